//! Real places, and the crate that ships the boundaries as the judge of what is where.

#![expect(clippy::float_arithmetic, reason = "points are made up here")]

use std::collections::BTreeSet;

use country_boundaries::{BOUNDARIES_ODBL_360X180, CountryBoundaries, LatLon};
use jackpot_core::names;
use proptest::prelude::*;

use super::*;

fn point(latitude: f64, longitude: f64, accuracy_m: f64) -> Point {
    Point { latitude, longitude, accuracy_m }
}

fn judge() -> &'static CountryBoundaries {
    static JUDGE: LazyLock<CountryBoundaries> = LazyLock::new(|| {
        CountryBoundaries::from_reader(BOUNDARIES_ODBL_360X180).expect("it reads its own data")
    });
    &JUDGE
}

/// The codes at a point, as the crate has them.
fn ids(latitude: f64, longitude: f64) -> BTreeSet<&'static str> {
    let at = LatLon::new(latitude, longitude).expect("on earth");
    judge().ids(at).into_iter().filter(|id| names::is_jurisdiction(id)).collect()
}

/// A point so many metres away.
fn away(from: &Point, metres: f64, bearing: f64) -> (f64, f64) {
    let (angle, north, east) =
        (metres / 6_371_008.8, from.latitude.to_radians(), from.longitude.to_radians());
    let latitude =
        (north.sin() * angle.cos() + north.cos() * angle.sin() * bearing.cos()).clamp(-1.0, 1.0).asin();
    let longitude =
        east + (bearing.sin() * angle.sin() * north.cos()).atan2(angle.cos() - north.sin() * latitude.sin());
    let longitude = longitude.to_degrees();
    (
        latitude.to_degrees(),
        if longitude > 180.0 {
            longitude - 360.0
        } else if longitude < -180.0 {
            longitude + 360.0
        } else {
            longitude
        },
    )
}

/// Points all over a circle, of which the outermost are 2 m inside.
fn all_over(circle: &Point) -> impl Iterator<Item = (f64, f64)> {
    let radius = (circle.accuracy_m - 2.0).max(0.0);
    (0..=6_u32).flat_map(move |ring| {
        (0..72_u32).map(move |at| {
            let bearing = f64::from(at) * std::f64::consts::TAU / 72.0;
            away(circle, radius * f64::from(ring) / 6.0, bearing)
        })
    })
}

/// What the boundaries say of a circle: where its centre is, and `?` where the circle leaves the subdivision, `??`
/// where it leaves the country.
fn located(latitude: f64, longitude: f64, accuracy_m: f64) -> String {
    let boundaries = Boundaries::get();
    let spot = boundaries.locate(&point(latitude, longitude, accuracy_m));
    let Some(country) = spot.country else { return "nowhere".into() };
    let doubt = match (spot.in_country, spot.in_subdivision) {
        (true, true) => "",
        (true, false) => "?",
        (false, _) => "??",
    };
    format!("{}{doubt}", boundaries.code(spot.subdivision.unwrap_or(country)))
}

#[test]
fn real_places() {
    let places = [
        ("Las Vegas", 36.1699, -115.1398, 50.0, "US-NV"),
        ("Las Vegas, coarsely", 36.1699, -115.1398, 25_000.0, "US-NV"),
        ("Las Vegas, too coarsely", 36.1699, -115.1398, 60_000.0, "US-NV?"),
        ("Reno, 15 km from California", 39.5296, -119.8138, 100.0, "US-NV"),
        ("Reno, coarsely", 39.5296, -119.8138, 20_000.0, "US-NV?"),
        ("Stateline at Lake Tahoe", 38.9614, -119.9399, 20.0, "US-NV"),
        ("Stateline, 1 km", 38.9614, -119.9399, 1_000.0, "US-NV?"),
        ("South Lake Tahoe", 38.9399, -119.9772, 500.0, "US-CA"),
        ("Atlantic City", 39.3643, -74.4229, 3_000.0, "US-NJ"),
        ("Camden, on the Delaware", 39.9448, -75.1190, 100.0, "US-NJ"),
        ("Camden, 3 km", 39.9448, -75.1190, 3_000.0, "US-NJ?"),
        ("Philadelphia", 39.9526, -75.1652, 1_000.0, "US-PA"),
        ("New York", 40.7580, -73.9855, 500.0, "US-NY"),
        ("Washington", 38.8977, -77.0365, 300.0, "US-DC"),
        ("Detroit", 42.3314, -83.0458, 100.0, "US-MI"),
        ("Detroit, 5 km", 42.3314, -83.0458, 5_000.0, "US-MI??"),
        ("Windsor", 42.3149, -83.0364, 100.0, "CA-ON"),
        ("Windsor, 5 km", 42.3149, -83.0364, 5_000.0, "CA-ON??"),
        ("Toronto", 43.6532, -79.3832, 1_000.0, "CA-ON"),
        ("Point Roberts, south of the 49th parallel", 48.9880, -123.0560, 300.0, "US-WA"),
        ("Point Roberts, 2 km", 48.9880, -123.0560, 2_000.0, "US-WA??"),
        ("Valletta", 35.8989, 14.5146, 1_000.0, "MT"),
        ("Geneva", 46.2044, 6.1432, 500.0, "CH"),
        ("Geneva, 10 km", 46.2044, 6.1432, 10_000.0, "CH??"),
        ("Annemasse", 46.1934, 6.2342, 100.0, "FR"),
        ("Rome, 1 km from the Vatican", 41.9009, 12.4833, 1_000.0, "IT"),
        ("Rome, around the Vatican", 41.9009, 12.4833, 20_000.0, "IT??"),
        ("the Vatican", 41.9029, 12.4534, 50.0, "VA"),
        ("London", 51.5074, -0.1278, 1_000.0, "GB-ENG"),
        ("Gretna, at the border with Scotland", 54.9957, -3.0670, 3_000.0, "GB-SCT?"),
        ("Belfast", 54.5973, -5.9301, 1_000.0, "GB-NIR"),
        ("Berlin", 52.5200, 13.4050, 20_000.0, "DE"),
        ("Stockholm", 59.3293, 18.0686, 1_000.0, "SE"),
        // Territories with a code of their own, inside the sovereign's area.
        ("Gibraltar", 36.1408, -5.3536, 50.0, "GI"),
        ("Gibraltar, 5 km", 36.1408, -5.3536, 5_000.0, "GI??"),
        ("La Línea", 36.1750, -5.3480, 300.0, "ES-AN"),
        ("La Línea, 5 km", 36.1750, -5.3480, 5_000.0, "ES-AN??"),
        ("San Juan", 18.4655, -66.1057, 1_000.0, "PR"),
        ("Hong Kong", 22.3193, 114.1694, 1_000.0, "HK"),
        ("Mariehamn", 60.0973, 19.9348, 500.0, "AX"),
        ("Longyearbyen", 78.2232, 15.6267, 500.0, "SJ"),
        ("Saint Helier", 49.1868, -2.1064, 300.0, "JE"),
        // Codes outside the standard count for the country around them.
        ("Las Palmas", 28.1235, -15.4363, 500.0, "ES"),
        ("Ceuta", 35.8894, -5.3213, 300.0, "ES-CE"),
        // Claimed by two.
        ("Sevastopol", 44.6167, 33.5254, 100.0, "nowhere"),
        ("Pristina", 42.6629, 21.1655, 100.0, "nowhere"),
        // Both sides of the antimeridian.
        ("Suva", -18.1416, 178.4419, 1_000.0, "FJ"),
        ("Taveuni, west", -16.8300, 179.9900, 300.0, "FJ"),
        ("Taveuni, across", -16.8300, 179.9990, 5_000.0, "FJ"),
        ("Taveuni, across from the east", -16.8300, -179.9990, 5_000.0, "FJ"),
        ("Taveuni, at 180", -16.8300, 180.0, 1_000.0, "FJ"),
        ("Taveuni, at -180", -16.8300, -180.0, 1_000.0, "FJ"),
        ("Chukotka, across", 67.0, 179.9, 20_000.0, "RU"),
        // Nobody's.
        ("the Atlantic", 0.0, -20.0, 10.0, "nowhere"),
        ("where the equator meets the prime meridian", 0.0, 0.0, 0.0, "nowhere"),
        ("the North Pole", 90.0, 0.0, 0.0, "nowhere"),
        ("the South Pole", -90.0, 180.0, 20_000_000.0, "nowhere"),
        ("Vienna, anywhere on earth", 48.2082, 16.3738, 20_000_000.0, "AT??"),
        ("Siberia, coarsely", 62.0, 100.0, 500_000.0, "RU?"),
        ("no number", f64::NAN, 16.0, 1.0, "nowhere"),
        ("out of range", 48.0, 361.0, 1.0, "nowhere"),
    ];
    let wrong: Vec<_> = places
        .into_iter()
        .map(|(place, latitude, longitude, accuracy_m, expect)| {
            (place, located(latitude, longitude, accuracy_m), expect)
        })
        .filter(|(_, found, expect)| found != expect)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_overlap_of_countries_is_a_territory_in_its_sovereign() {
    let boundaries = Boundaries::get();
    let within = |inner, outer| {
        let area = |code| boundaries.area(code).expect("a known code");
        boundaries.raster.is_within(area(inner), area(outer))
    };
    for (inner, outer) in [("GI", "GB"), ("GI", "ES"), ("PR", "US"), ("HK", "CN"), ("GL", "DK"), ("SJ", "NO")]
    {
        assert!(within(inner, outer) && !within(outer, inner), "{inner} is in {outer}");
    }
    for (one, other) in [("SS", "SD"), ("RU", "UA"), ("US", "CA"), ("FR", "DE")] {
        assert!(!within(one, other) && !within(other, one), "{one} and {other} are apart");
    }
}

/// Invariant I1: not a bit of this may differ between machines, nor change under the same version of the rules.
#[test]
fn decisions_are_the_same_everywhere() {
    let mut told = String::new();
    for at in 0..2_000_u32 {
        let (row, column) = (f64::from(at / 50), f64::from(at % 50));
        let here = point(36.3 + row * 0.51, -9.7 + column * 0.73, f64::from(at) * 7.3);
        let there = point(row - 61.7, column * 7.1 - 179.9, 1.5);
        let far = geometry::too_far(&here, &there, u64::from(at) * 30_000);
        let gap = geometry::gap_m(&here, &there).to_bits();
        told += &format!("{} {gap:x} {far}\n", located(here.latitude, here.longitude, here.accuracy_m));
    }
    let digest = jackpot_core::digest::Digest::of(told.as_bytes()).to_string();
    assert_eq!(
        digest, "405b276f5cf0e37c81396779b8818b24a68e9618c710393f8a25b2ec1ae90e3f",
        "other decisions need another version of the rules"
    );
}

/// Circles of all sizes, most of them where borders are.
fn circles() -> impl Strategy<Value = Point> {
    let border = (40.0..55.0, -5.0..30.0, 0.0..4.5_f64);
    let states = (30.0..45.0, -115.0..-75.0, 0.0..5.0_f64);
    let anywhere = (-89.9..89.9, -180.0..180.0, 0.0..6.0_f64);
    prop_oneof![border, states, anywhere]
        .prop_map(|(latitude, longitude, size)| point(latitude, longitude, 10_f64.powf(size)))
}

proptest! {
    /// The raster is read as the crate reads it.
    #[test]
    fn points_are_where_the_crate_finds_them(circle in circles()) {
        let boundaries = Boundaries::get();
        let (cell, at) = Circle::new(&circle).centre();
        let found: BTreeSet<_> = boundaries.raster.cell(cell).at(at).map(|area| boundaries.code(area)).collect();
        prop_assert_eq!(found, ids(circle.latitude, circle.longitude));
    }

    /// What is said to be wholly inside has no point outside.
    #[test]
    fn a_circle_inside_is_inside_everywhere(circle in circles()) {
        let boundaries = Boundaries::get();
        let spot = boundaries.locate(&circle);
        let whole = [(spot.country, spot.in_country), (spot.subdivision, spot.in_subdivision)];
        for area in whole.into_iter().filter_map(|(area, inside)| area.filter(|_| inside)) {
            let code = boundaries.code(area);
            for (latitude, longitude) in all_over(&circle) {
                prop_assert!(ids(latitude, longitude).contains(code), "{} leaves {} at {} {}", code, code, latitude, longitude);
            }
        }
    }
}

/// The other way round: of circles that are said to leave their country, a point outside is found nearly always. The
/// exceptions are circles around something too small for the points tried (the Vatican), and those that just graze.
#[test]
fn a_circle_that_leaves_is_outside_somewhere() {
    let boundaries = Boundaries::get();
    let (mut left, mut seen) = (0, 0);
    for at in 0..1_500_u32 {
        let (row, column) = (f64::from(at / 50), f64::from(at % 50));
        let circle = point(36.0 + row * 0.7, -9.0 + column * 0.7, 20_000.0 + 100.0 * f64::from(at));
        let spot = boundaries.locate(&circle);
        let Some(country) = spot.country.filter(|_| !spot.in_country) else { continue };
        let code = boundaries.code(country);
        let outside =
            |ids: BTreeSet<&str>| ids.iter().any(|id| names::country(id) != code) || !ids.contains(code);
        left += 1;
        seen += u32::from(all_over(&circle).any(|(latitude, longitude)| outside(ids(latitude, longitude))));
    }
    assert!(left > 500 && left - seen <= left / 50, "{seen} of {left} circles were seen to leave");
}
