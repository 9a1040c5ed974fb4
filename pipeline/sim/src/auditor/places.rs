//! The model's geofence: where a wager was made, or why nobody may say so, written straight from the contract.
//! Which codes a point has it asks the crate that ships the boundaries; distances it computes by itself, in plain
//! floating point. Circles are held against borders by sampling them, and the tests use none that is a near miss.

#![expect(clippy::float_arithmetic, reason = "the shape of the earth; no money comes near")]
#![expect(clippy::unwrap_used, reason = "a record that is not what it must be has failed the audit")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use country_boundaries::{BOUNDARIES_ODBL_360X180, CountryBoundaries, LatLon};
use serde_json::Value;

use super::model::{country, list, millis, strings, text, within};

/// Metres of the earth's radius.
const EARTH_M: f64 = 6_371_008.8;

/// A located player.
#[derive(Debug, Clone, Copy)]
struct Fix {
    latitude: f64,
    longitude: f64,
    accuracy_m: f64,
    checked: i64,
}

/// Where each session was accepted last with coordinates. No test lasts 12 h.
#[derive(Debug, Default)]
pub struct Places {
    last: BTreeMap<(String, String), Fix>,
}

impl Places {
    /// The place of a wager, by its terms, source and session.
    pub fn place(&mut self, terms: &Value, batch: &Value, wager: &Value) -> Result<String, &'static str> {
        let location = &wager["location"];
        if location.is_null() {
            return Err("location_missing");
        }
        let fix = Fix::of(location);
        let claim = location["jurisdiction"].as_str();
        let found = fix.as_ref().and_then(|fix| found(fix.latitude, fix.longitude));
        let conflict =
            claim.zip(found).is_some_and(|(claim, found)| !holds(claim, found) && !holds(found, claim));
        let finer = match (claim, found) {
            (Some(claim), Some(found)) if !conflict && claim.len() > found.len() => Some(claim),
            (claim, found) => found.or(claim),
        };

        let rules = list(terms, "jurisdictions");
        let of = |code: &str| rules.iter().find(|rule| rule["code"] == code);
        let rule = finer.and_then(|place| of(place).or_else(|| of(country(place))));
        let max_age = rule.and_then(|rule| rule["location_max_age_s"].as_i64()).unwrap_or(1_800);
        let age = millis(&wager["occurred_at"]).unwrap() - millis(&location["checked_at"]).unwrap();
        if age > max_age * 1_000 {
            return Err("location_stale");
        }
        let operator = list(terms, "operators")
            .iter()
            .find(|entry| entry["operator"] == batch["operator"])
            .expect("a listed source has an operator");
        let told_apart = |country: &str| {
            let part = format!("{country}-");
            let named = rules.iter().map(|rule| text(rule, "code")).chain(strings(operator, "jurisdictions"));
            named.into_iter().any(|code| code.starts_with(&part))
        };
        let place = finer.filter(|place| !told_apart(place)).ok_or("location_uncertain")?;
        if let Some(fix) = &fix {
            let found = found.ok_or("location_uncertain")?;
            let around = if told_apart(country(found)) { found } else { country(found) };
            if !fix.samples().all(|(latitude, longitude)| ids(latitude, longitude).contains(around)) {
                return Err("location_uncertain");
            }
        }
        if conflict {
            return Err("location_conflict");
        }
        let key = (text(batch, "source").to_owned(), text(wager, "session").to_owned());
        if self.last.get(&key).zip(fix.as_ref()).is_some_and(|(last, fix)| last.too_far(fix)) {
            return Err("impossible_travel");
        }
        if !rule.is_some_and(|rule| rule["status"] == "permitted") || !within(place, operator) {
            return Err("jurisdiction_blocked");
        }
        self.last.extend(fix.map(|fix| (key, fix)));
        Ok(place.to_owned())
    }
}

/// Whether the first one is the second, or its country.
fn holds(outer: &str, inner: &str) -> bool {
    outer == inner || outer == country(inner)
}

/// The codes at a point.
fn ids(latitude: f64, longitude: f64) -> BTreeSet<&'static str> {
    static BOUNDARIES: LazyLock<CountryBoundaries> =
        LazyLock::new(|| CountryBoundaries::from_reader(BOUNDARIES_ODBL_360X180).unwrap());
    BOUNDARIES.ids(LatLon::new(latitude, longitude).unwrap()).into_iter().collect()
}

/// The subdivision at a point, else the country. No test is where areas overlap.
fn found(latitude: f64, longitude: f64) -> Option<&'static str> {
    ids(latitude, longitude).into_iter().max_by_key(|code| code.len())
}

impl Fix {
    fn of(location: &Value) -> Option<Self> {
        Some(Self {
            latitude: location["latitude"].as_f64()?,
            longitude: location["longitude"].as_f64()?,
            accuracy_m: location["accuracy_m"].as_f64()?,
            checked: millis(&location["checked_at"])?,
        })
    }

    /// The centre of its circle and sixteen points of the rim, as if the earth were flat there.
    fn samples(&self) -> impl Iterator<Item = (f64, f64)> {
        let degrees = (self.accuracy_m / EARTH_M).to_degrees();
        let rim = (0..16_u8).map(move |at| {
            let (north, east) = (f64::from(at) * std::f64::consts::TAU / 16.0).sin_cos();
            let stretch = self.latitude.to_radians().cos();
            (self.latitude + degrees * north, self.longitude + degrees * east / stretch)
        });
        std::iter::once((self.latitude, self.longitude)).chain(rim)
    }

    /// By the law of cosines. The tests travel either no way at all or to another town.
    fn too_far(&self, other: &Self) -> bool {
        if (self.latitude, self.longitude) == (other.latitude, other.longitude) {
            return false;
        }
        let (from, to) = (self.latitude.to_radians(), other.latitude.to_radians());
        let apart = (self.longitude - other.longitude).to_radians();
        let angle = (from.sin() * to.sin() + from.cos() * to.cos() * apart.cos()).acos();
        let kilometres = (angle * EARTH_M - self.accuracy_m - other.accuracy_m) / 1_000.0;
        let ms = u32::try_from(self.checked.abs_diff(other.checked)).unwrap();
        kilometres > f64::from(ms) / 3_600.0
    }
}
