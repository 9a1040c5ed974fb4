//! An independent model of the pipeline: raw wagers in, exact totals out, written straight from the contract.
//! It shares no code with the stages: its own amounts, windows of sequences, eligibility and ledger, over plain
//! JSON values, slow and simple. No keys; the names of ISO 4217 and ISO 3166-1 that the tests use.
//!
//! What the contract leaves to the pipeline — the order in which partitions meet in the ledger — it takes from
//! the record: the vectors in `commits`, the revision of the terms that each commit ran, and of each frame how far it
//! reached into the ingress and which revision it names.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::places::Places;

/// Pico-units in one unit of a currency.
const PICO: i128 = 1_000_000_000_000;
/// The active currencies of the tests. A code that is not here is unknown.
const CURRENCIES: [&str; 5] = ["EUR", "GBP", "JPY", "SEK", "USD"];
/// The countries of the tests. A code that is not here is none.
const COUNTRIES: [&str; 6] = ["DE", "FR", "GB", "MT", "SE", "US"];

/// A stored ingress message.
#[derive(Debug, Clone)]
pub struct Raw {
    /// Its sequence in `wagers`.
    pub position: u64,
    /// The stored subject, `lane.<p>.<operator>.<source>`.
    pub subject: String,
    /// The broker's receive time, in milliseconds since 1970.
    pub received_ms: i64,
    /// The batch.
    pub body: Vec<u8>,
}

/// A level, in pico-units.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Level {
    pub current: i128,
    pub reserve: i128,
    pub diversion: i128,
    pub wagers: u64,
    pub wagered: i128,
    pub contributed: i128,
    pub paid: i128,
    pub house: i128,
    pub hits: u64,
    pub base: i128,
    pub ceiling: Option<i128>,
    pub pending: Pending,
    increment_ppm: i128,
    reserve_ppm: i128,
    minor: i128,
}

/// What waits for a level's next hit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pending {
    pub increment_ppm: Option<i128>,
    pub reserve_ppm: Option<i128>,
    pub ceiling: Option<i128>,
}

/// What a frame of the spine says of itself: the last ingress message that it read, and its revision of the terms.
#[derive(Debug, Clone, Copy)]
pub struct Frame {
    pub reach: u64,
    pub terms: u64,
}

/// A paid hit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    pub pool: String,
    pub level: String,
    pub wager: String,
    pub payoff: i128,
    pub current: i128,
    pub from_diversion: i128,
    pub from_reserve: i128,
    pub from_house: i128,
}

/// What the model says must come out.
#[derive(Debug, Default)]
pub struct Outcome {
    pub levels: BTreeMap<(String, String), Level>,
    pub hits: Vec<Hit>,
    /// `(id, reason)`, sorted.
    pub refusals: Vec<(String, String)>,
    /// Wagers that were allocated, to a pool or to none.
    pub allocated: u64,
}

/// Runs the model. `frame(p, n)` is frame `n` of partition `p`, and `committed` is shown what there is after each commit.
pub fn run(
    revisions: &BTreeMap<u64, Value>,
    raws: &[Raw],
    commits: &[Value],
    frame: impl Fn(usize, u64) -> Frame,
    mut committed: impl FnMut(&Value, &Outcome),
) -> Outcome {
    let none = Value::Null;
    let (accepted, interactions, places, outcome) = Default::default();
    let mut model = Model { terms: &none, accepted, interactions, places, outcome };
    let mut lanes: BTreeMap<usize, Vec<&Raw>> = BTreeMap::new();
    for raw in raws {
        let words: Vec<_> = raw.subject.split('.').collect();
        if words.len() == 4 {
            lanes.entry(words[1].parse().unwrap()).or_default().push(raw);
        }
    }
    let mut next: BTreeMap<usize, usize> = BTreeMap::new();
    let mut consumed: BTreeMap<usize, u64> = BTreeMap::new();
    let mut ran = 0;
    for commit in commits {
        let runs = commit["terms"].as_u64().unwrap();
        if runs > ran {
            model.learn(&revisions[&runs]);
            ran = runs;
        }
        for (partition, until) in list(commit, "partitions").iter().enumerate() {
            let lane = lanes.get(&partition).map_or(&[][..], Vec::as_slice);
            let at = next.entry(partition).or_default();
            let from = consumed.insert(partition, until["frame"].as_u64().unwrap()).unwrap_or(0);
            for number in from + 1..=consumed[&partition] {
                let Frame { reach, terms } = frame(partition, number);
                assert!(terms <= runs, "a commit runs the revisions of its frames");
                model.terms = &revisions[&terms];
                while *at < lane.len() && lane[*at].position <= reach {
                    model.batch(lane[*at]);
                    *at += 1;
                }
            }
        }
        committed(commit, &model.outcome);
    }
    for (partition, lane) in &lanes {
        assert_eq!(next.get(partition), Some(&lane.len()), "all of partition {partition} is committed");
    }
    model.outcome.refusals.sort();
    model.outcome
}

struct Model<'a> {
    terms: &'a Value,
    accepted: BTreeMap<String, BTreeSet<u64>>,
    interactions: BTreeMap<(String, String), BTreeSet<u64>>,
    places: Places,
    outcome: Outcome,
}

impl<'a> Model<'a> {
    /// Takes a revision up, at the beginning of a commit.
    fn learn(&mut self, terms: &Value) {
        for pool in list(terms, "pools") {
            for level in list(pool, "levels") {
                let key = (text(pool, "pool").to_owned(), text(level, "level").to_owned());
                match self.outcome.levels.get_mut(&key) {
                    Some(known) => known.learn(level),
                    None => drop(self.outcome.levels.insert(key, Level::new(pool, level))),
                }
            }
        }
    }

    fn refuse(&mut self, id: &str, reason: &str) {
        self.outcome.refusals.push((id.into(), reason.into()));
    }

    fn batch(&mut self, raw: &Raw) {
        let unnamed = format!("@{}", raw.position);
        let Ok(batch) = serde_json::from_slice::<Value>(&raw.body) else {
            return self.refuse(&unnamed, "malformed");
        };
        let id = match (identifier(&batch["source"]), whole(&batch["sequence"])) {
            (Some(source), Some(sequence)) => format!("{source}/{sequence}"),
            _ => unnamed,
        };
        if let Err(reason) = self.judge(raw, &batch) {
            return self.refuse(&id, reason);
        }
        for (index, wager) in list(&batch, "wagers").iter().enumerate() {
            let id = format!("{id}/{index}");
            match self.wager(raw, &batch, wager) {
                Err(reason) => self.refuse(&id, reason),
                Ok(place) => {
                    self.outcome.allocated += 1;
                    self.post(&id, &batch, wager, &place);
                }
            }
        }
    }

    /// Whether the batch stands, and remembers it if it does.
    fn judge(&mut self, raw: &Raw, batch: &Value) -> Result<(), &'static str> {
        match &batch["schema"] {
            Value::String(schema) if schema == "wager-batch/1" => {}
            Value::String(_) => return Err("unsupported_schema"),
            _ => return Err("malformed"),
        }
        let claims: usize = list(batch, "wagers").iter().map(|wager| list(wager, "hits").len()).sum();
        let formed =
            (1..=500).contains(&list(batch, "wagers").len()) && claims <= 64 && raw.body.len() <= 512 * 1024;
        let (Some(operator), Some(source), Some(sequence), true) =
            (identifier(&batch["operator"]), identifier(&batch["source"]), whole(&batch["sequence"]), formed)
        else {
            return Err("malformed");
        };
        if !raw.subject.ends_with(&format!(".{operator}.{source}")) {
            return Err("subject_mismatch");
        }
        let listed = |entry: &Value| entry["source"] == source && entry["operator"] == operator;
        if !list(self.terms, "sources").iter().any(listed) {
            return Err("unknown_source");
        }
        let accepted = self.accepted.entry(source.into()).or_default();
        let highest = accepted.last().copied().unwrap_or(sequence);
        if sequence + 1_024 < highest {
            return Err("stale_sequence");
        }
        if sequence > highest + 1_000_000 {
            return Err("sequence_jump");
        }
        if accepted.insert(sequence) { Ok(()) } else { Err("duplicate_batch") }
    }

    /// Where the wager was made, if it stands by validate, geofence and allocate in this order.
    fn wager(&mut self, raw: &Raw, batch: &Value, wager: &Value) -> Result<String, &'static str> {
        if !well_formed(wager) {
            return Err("invalid_field");
        }
        if amount(&wager["amount"]).is_none() {
            return Err("invalid_amount");
        }
        if !CURRENCIES.contains(&text(wager, "currency")) {
            return Err("unknown_currency");
        }
        let occurred = millis(&wager["occurred_at"]).unwrap();
        if occurred > raw.received_ms + 5_000 {
            return Err("occurred_in_future");
        }
        let key = (text(batch, "source").to_owned(), text(wager, "session").to_owned());
        let interaction = whole(&wager["interaction"]).unwrap();
        let seen = self.interactions.entry(key).or_default();
        let highest = seen.last().copied().unwrap_or(0);
        if interaction + 64 < highest || !seen.insert(interaction) {
            return Err("duplicate_interaction");
        }
        let place = self.places.place(self.terms, batch, wager)?;
        let known = list(self.terms, "games").iter().any(|game| game["game"] == wager["game"]);
        if known { Ok(place) } else { Err("unknown_game") }
    }

    /// Takes the wager to its pools, then pays its hits.
    fn post(&mut self, id: &str, batch: &Value, wager: &Value, place: &str) {
        let mut joined = Vec::new();
        for pool in list(self.terms, "pools") {
            let Some(eligible) = self.eligible(pool, batch, wager, place).filter(|_| joined.len() < 8) else {
                continue;
            };
            joined.push(text(pool, "pool"));
            for level in list(pool, "levels") {
                let key = (text(pool, "pool").to_owned(), text(level, "level").to_owned());
                self.outcome.levels.get_mut(&key).unwrap().contribute(eligible);
            }
        }
        let mut taken = BTreeSet::new();
        for hit in list(wager, "hits") {
            let name = |field: &str| hit[field].as_str().unwrap_or_default().to_owned();
            let key = (name("pool"), name("level"));
            let pays = joined.contains(&key.0.as_str()) && taken.insert(key.clone());
            match self.outcome.levels.get_mut(&key).filter(|_| pays) {
                Some(level) => self.outcome.hits.push(level.pay(key, id)),
                None => self.refuse(id, "hit_refused"),
            }
        }
    }

    /// What of the wager counts in the pool, in micro-units of its currency.
    fn eligible(&self, pool: &Value, batch: &Value, wager: &Value, place: &str) -> Option<i128> {
        let any = |field: &str, name: &str| {
            pool[field].is_null() || strings(pool, field).any(|entry| entry == "*" || entry == name)
        };
        let funds = text(wager, "funds");
        let funded = if pool["funds"].is_null() {
            funds == "cash"
        } else {
            strings(pool, "funds").any(|f| f == funds)
        };
        let opted = pool["requires_opt_in"] != true || wager["opt_in"] == true;
        let fits = any("operators", text(batch, "operator"))
            && any("games", text(wager, "game"))
            && within(place, pool)
            && funded
            && opted;
        if !fits {
            return None;
        }
        let micro = amount(&wager["amount"]).unwrap();
        let converted = if wager["currency"] == pool["currency"] {
            micro
        } else {
            let pair = list(self.terms, "exchange_rates")
                .iter()
                .find(|rate| rate["from"] == wager["currency"] && rate["to"] == pool["currency"])?;
            half_even(micro * decimal(text(pair, "rate"), 9), 1_000_000_000)
        };
        let least = pool["min_wager"].as_str().map_or(0, |text| decimal(text, 6));
        let most = pool["max_wager"].as_str().map(|text| decimal(text, 6));
        (converted >= least).then(|| most.map_or(converted, |most| converted.min(most)))
    }
}

impl Level {
    fn new(pool: &Value, level: &Value) -> Self {
        let base = pico(text(level, "base"));
        Self {
            current: base,
            house: base,
            base,
            ceiling: level["ceiling"].as_str().map(pico),
            increment_ppm: level["increment_ppm"].as_u64().unwrap().into(),
            reserve_ppm: level["reserve_ppm"].as_u64().unwrap_or(0).into(),
            minor: if pool["currency"] == "JPY" { PICO } else { PICO / 100 },
            ..Self::default()
        }
    }

    /// A rate, and a ceiling below what there is now, wait for the next hit; the rest holds at once.
    fn learn(&mut self, level: &Value) {
        let increment = level["increment_ppm"].as_u64().unwrap().into();
        let reserve = level["reserve_ppm"].as_u64().unwrap_or(0).into();
        let ceiling = level["ceiling"].as_str().map(pico);
        let lowered = ceiling != self.ceiling && ceiling.is_some_and(|ceiling| ceiling < self.current);
        self.base = pico(text(level, "base"));
        self.pending = Pending {
            increment_ppm: if increment == self.increment_ppm { None } else { Some(increment) },
            reserve_ppm: if reserve == self.reserve_ppm { None } else { Some(reserve) },
            ceiling: if lowered { ceiling } else { None },
        };
        if !lowered {
            self.ceiling = ceiling;
        }
    }

    fn contribute(&mut self, eligible: i128) {
        let increment = eligible * self.increment_ppm;
        let reserve = eligible * self.reserve_ppm;
        self.wagers += 1;
        self.wagered += eligible * 1_000_000;
        self.contributed += increment + reserve;
        self.reserve += reserve;
        self.current += increment;
        if let Some(ceiling) = self.ceiling {
            // A refill may stand above the ceiling; only what this increment adds above it is diverted.
            let over = (self.current - ceiling).clamp(0, increment);
            self.current -= over;
            self.diversion += over;
        }
    }

    fn pay(&mut self, (pool, level): (String, String), wager: &str) -> Hit {
        let payoff = self.current - self.current % self.minor;
        let from_diversion = self.base.min(self.diversion);
        let from_reserve = (self.base - from_diversion).min(self.reserve);
        let from_house = self.base - from_diversion - from_reserve;
        self.hits += 1;
        self.paid += payoff;
        self.diversion -= from_diversion;
        self.reserve -= from_reserve;
        self.house += from_house;
        self.current += self.base - payoff;
        let pending = std::mem::take(&mut self.pending);
        self.increment_ppm = pending.increment_ppm.unwrap_or(self.increment_ppm);
        self.reserve_ppm = pending.reserve_ppm.unwrap_or(self.reserve_ppm);
        self.ceiling = pending.ceiling.or(self.ceiling);
        let (wager, current) = (wager.into(), self.current);
        Hit { pool, level, wager, payoff, current, from_diversion, from_reserve, from_house }
    }
}

/// Whether every field has its form, but for the amount's digits and the currency's code.
fn well_formed(wager: &Value) -> bool {
    let token = |field: &str, max: usize| {
        wager[field]
            .as_str()
            .is_some_and(|text| (1..=max).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_graphic()))
    };
    let named = token("session", 64) && token("player", 64) && token("round", 128);
    let money = !wager["amount"].is_null() && wager["currency"].is_string();
    let funded = ["cash", "bonus", "free"].iter().any(|funds| wager["funds"] == *funds);
    let opted = wager["opt_in"].is_null() || wager["opt_in"].is_boolean();
    let claims = &wager["hits"];
    let claimed = claims.is_null() || claims.as_array().is_some_and(|claims| claims.len() <= 16);
    let occurred = millis(&wager["occurred_at"]);
    named
        && money
        && funded
        && opted
        && claimed
        && whole(&wager["interaction"]).is_some()
        && identifier(&wager["game"]).is_some()
        && occurred.is_some_and(|occurred| well_located(&wager["location"], occurred))
}

/// Whether the location is one, or absent.
fn well_located(location: &Value, occurred: i64) -> bool {
    if location.is_null() {
        return true;
    }
    let points: Vec<_> = [("latitude", -90.0, 90.0), ("longitude", -180.0, 180.0), ("accuracy_m", 0.0, 2e7)]
        .into_iter()
        .filter(|(field, ..)| !location[*field].is_null())
        .map(|(field, least, most)| {
            location[field].as_f64().is_some_and(|value| (least..=most).contains(&value))
        })
        .collect();
    let place = &location["jurisdiction"];
    let coded = place.as_str().is_some_and(|code| {
        let subdivision = code.split_once('-').map(|(_, subdivision)| subdivision);
        let formed = |part: &str| {
            (1..=3).contains(&part.len())
                && part.bytes().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
        };
        COUNTRIES.contains(&country(code)) && subdivision.is_none_or(formed)
    });
    let checked = millis(&location["checked_at"]).is_some_and(|checked| checked - occurred <= 60_000);
    let placed = if place.is_null() { points.len() == 3 } else { coded };
    location.is_object()
        && checked
        && placed
        && matches!(points.len(), 0 | 3)
        && points.iter().all(|fits| *fits)
}

/// What a field lists; nothing where it is no list.
pub fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

/// A field that is text.
pub fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("{field} of {value} is text"))
}

/// What a field lists, as texts.
pub fn strings<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a str> {
    list(value, field).iter().map(|entry| entry.as_str().unwrap())
}

/// The country of a place.
pub fn country(place: &str) -> &str {
    place.split('-').next().unwrap()
}

/// Whether a list of jurisdictions holds the place.
pub fn within(place: &str, owner: &Value) -> bool {
    strings(owner, "jurisdictions").any(|code| code == place || code == country(place))
}

/// A text of the form `[a-z0-9][a-z0-9-]{0,63}`.
fn identifier(value: &Value) -> Option<&str> {
    let fits = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    value
        .as_str()
        .filter(|name| (1..=64).contains(&name.len()) && name.bytes().all(fits) && !name.starts_with('-'))
}

/// A whole number from 1 to 2⁶³ − 1.
fn whole(value: &Value) -> Option<u64> {
    value.as_u64().filter(|&number| number >= 1 && i64::try_from(number).is_ok())
}

/// A wager's amount in micro-units, if it has the contract's form.
fn amount(value: &Value) -> Option<i128> {
    let text = value.as_str()?;
    let (units, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit());
    let formed = digits(units)
        && digits(fraction)
        && units.len() <= 10
        && fraction.len() <= 6
        && (units == "0" || !units.starts_with('0'));
    formed.then(|| decimal(text, 6)).filter(|&micro| micro <= 1_000_000_000_000_000)
}

/// A decimal as a whole number of 10^-places.
pub fn decimal(text: &str, places: usize) -> i128 {
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let (units, fraction) = text.split_once('.').unwrap_or((text, ""));
    assert!(fraction.len() <= places, "{text} has at most {places} decimals");
    sign * format!("{units}{fraction:0<places$}").parse::<i128>().unwrap()
}

/// A decimal in pico-units.
pub fn pico(text: &str) -> i128 {
    decimal(text, 12)
}

fn half_even(value: i128, unit: i128) -> i128 {
    let (quotient, rest) = (value / unit, value % unit);
    let up = 2 * rest > unit || (2 * rest == unit && quotient % 2 == 1);
    quotient + i128::from(up)
}

/// A time in milliseconds since 1970.
pub fn millis(value: &Value) -> Option<i64> {
    Some(value.as_str()?.parse::<jiff::Timestamp>().ok()?.as_millisecond())
}
