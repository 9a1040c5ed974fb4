//! An independent model of the pipeline: raw wagers in, exact totals out, written straight from the contract.
//! It shares no code with the stages: its own amounts, windows of sequences, eligibility and ledger, over plain
//! JSON values, slow and simple. One revision of the terms; declared jurisdictions.
//!
//! What the contract leaves to the pipeline — the order in which partitions meet in the ledger — it takes from
//! the record: the vectors in `commits`, and how far each frame reached into the ingress.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

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
    base: i128,
    ceiling: Option<i128>,
    increment_ppm: i128,
    reserve_ppm: i128,
}

/// A paid hit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    pub pool: String,
    pub level: String,
    pub wager: String,
    pub payoff: i128,
    pub current: i128,
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

/// Runs the model. `reach(p, n)` is the ingress position that frame `n` of partition `p` read up to.
pub fn run(terms: &Value, raws: &[Raw], commits: &[Value], reach: &dyn Fn(usize, u64) -> u64) -> Outcome {
    let mut model = Model::new(terms);
    let mut lanes: BTreeMap<usize, Vec<&Raw>> = BTreeMap::new();
    for raw in raws {
        let words: Vec<_> = raw.subject.split('.').collect();
        if words.len() == 4 {
            lanes.entry(words[1].parse().unwrap()).or_default().push(raw);
        }
    }
    let mut next: BTreeMap<usize, usize> = BTreeMap::new();
    for commit in commits {
        for (partition, consumed) in commit["partitions"].as_array().unwrap().iter().enumerate() {
            let frame = consumed["frame"].as_u64().unwrap();
            let until = if frame == 0 { 0 } else { reach(partition, frame) };
            let lane = lanes.get(&partition).map_or(&[][..], Vec::as_slice);
            let at = next.entry(partition).or_default();
            while *at < lane.len() && lane[*at].position <= until {
                model.batch(lane[*at]);
                *at += 1;
            }
        }
    }
    for (partition, lane) in &lanes {
        assert_eq!(next.get(partition), Some(&lane.len()), "all of partition {partition} is committed");
    }
    model.outcome.refusals.sort();
    model.outcome
}

struct Model {
    terms: Value,
    accepted: BTreeMap<String, BTreeSet<u64>>,
    interactions: BTreeMap<(String, String), BTreeSet<u64>>,
    outcome: Outcome,
}

impl Model {
    fn new(terms: &Value) -> Self {
        let mut outcome = Outcome::default();
        for pool in list(terms, "pools") {
            for level in list(pool, "levels") {
                let base = pico(text(level, "base"));
                let state = Level {
                    current: base,
                    house: base,
                    base,
                    ceiling: level["ceiling"].as_str().map(pico),
                    increment_ppm: i128::from(level["increment_ppm"].as_u64().unwrap()),
                    reserve_ppm: i128::from(level["reserve_ppm"].as_u64().unwrap_or(0)),
                    ..Level::default()
                };
                outcome.levels.insert((text(pool, "pool").into(), text(level, "level").into()), state);
            }
        }
        Self { terms: terms.clone(), accepted: BTreeMap::new(), interactions: BTreeMap::new(), outcome }
    }

    fn refuse(&mut self, id: String, reason: &str) {
        self.outcome.refusals.push((id, reason.into()));
    }

    fn batch(&mut self, raw: &Raw) {
        let Ok(batch) = serde_json::from_slice::<Value>(&raw.body) else {
            return self.refuse(format!("@{}", raw.position), "malformed");
        };
        let (source, sequence) = (text(&batch, "source").to_owned(), batch["sequence"].as_u64().unwrap());
        let id = format!("{source}/{sequence}");
        let listed = list(&self.terms, "sources")
            .iter()
            .any(|entry| entry["source"] == batch["source"] && entry["operator"] == batch["operator"]);
        if !listed {
            return self.refuse(id, "unknown_source");
        }
        let accepted = self.accepted.entry(source).or_default();
        let highest = accepted.last().copied();
        if accepted.contains(&sequence) {
            return self.refuse(id, "duplicate_batch");
        }
        if highest.is_some_and(|highest| sequence + 1_024 < highest) {
            return self.refuse(id, "stale_sequence");
        }
        if highest.is_some_and(|highest| sequence > highest + 1_000_000) {
            return self.refuse(id, "sequence_jump");
        }
        accepted.insert(sequence);
        for (index, wager) in list(&batch, "wagers").iter().enumerate() {
            let id = format!("{id}/{index}");
            match self.wager(raw, &batch, wager) {
                Err(reason) => self.refuse(id, reason),
                Ok(()) => {
                    self.outcome.allocated += 1;
                    self.post(&id, &batch, wager);
                }
            }
        }
    }

    /// Whether the wager stands, by validate, geofence and allocate in this order.
    fn wager(&mut self, raw: &Raw, batch: &Value, wager: &Value) -> Result<(), &'static str> {
        if amount(&wager["amount"]).is_none() {
            return Err("invalid_amount");
        }
        if millis(text(wager, "occurred_at")) > raw.received_ms + 5_000 {
            return Err("occurred_in_future");
        }
        let key = (text(batch, "source").to_owned(), text(wager, "session").to_owned());
        let interaction = wager["interaction"].as_u64().unwrap();
        let seen = self.interactions.entry(key).or_default();
        let highest = seen.last().copied().unwrap_or(0);
        if seen.contains(&interaction) || interaction + 64 < highest {
            return Err("duplicate_interaction");
        }
        seen.insert(interaction);
        self.placed(batch, wager)?;
        let known = list(&self.terms, "games").iter().any(|game| game["game"] == wager["game"]);
        if known { Ok(()) } else { Err("unknown_game") }
    }

    fn placed(&self, batch: &Value, wager: &Value) -> Result<(), &'static str> {
        let Some(place) = wager["location"]["jurisdiction"].as_str() else { return Err("location_missing") };
        let rules = list(&self.terms, "jurisdictions");
        let rule = rules
            .iter()
            .find(|rule| rule["code"] == place)
            .or_else(|| rules.iter().find(|rule| rule["code"] == country(place)));
        let max_age = rule.and_then(|rule| rule["location_max_age_s"].as_i64()).unwrap_or(1_800);
        let age = millis(text(wager, "occurred_at")) - millis(text(&wager["location"], "checked_at"));
        if age > max_age * 1_000 {
            return Err("location_stale");
        }
        let operator = list(&self.terms, "operators")
            .iter()
            .find(|entry| entry["operator"] == batch["operator"])
            .expect("a listed source has an operator");
        let named = rules.iter().map(|rule| text(rule, "code")).chain(strings(operator, "jurisdictions"));
        let finer = format!("{place}-");
        if !place.contains('-') && named.into_iter().any(|code| code.starts_with(&finer)) {
            return Err("location_uncertain");
        }
        let permitted = rule.is_some_and(|rule| rule["status"] == "permitted");
        if permitted && within(place, operator) { Ok(()) } else { Err("jurisdiction_blocked") }
    }

    /// Takes the wager to its pools, then pays its hits.
    fn post(&mut self, id: &str, batch: &Value, wager: &Value) {
        let pools = list(&self.terms, "pools").to_vec();
        let mut joined = Vec::new();
        for pool in &pools {
            if joined.len() < 8
                && let Some(eligible) = self.eligible(pool, batch, wager)
            {
                joined.push(text(pool, "pool"));
                for level in list(pool, "levels") {
                    let key = (text(pool, "pool").to_owned(), text(level, "level").to_owned());
                    self.outcome.levels.get_mut(&key).unwrap().contribute(eligible);
                }
            }
        }
        let mut taken = BTreeSet::new();
        for hit in list(wager, "hits") {
            let key = (text(hit, "pool").to_owned(), text(hit, "level").to_owned());
            let pays = joined.contains(&key.0.as_str())
                && self.outcome.levels.contains_key(&key)
                && taken.insert(key.clone());
            if !pays {
                self.refuse(id.to_owned(), "hit_refused");
                continue;
            }
            let pool = pools.iter().find(|pool| pool["pool"] == key.0.as_str()).unwrap();
            let minor = if text(pool, "currency") == "JPY" { 1 } else { 100 };
            let level = self.outcome.levels.get_mut(&key).unwrap();
            let payoff = level.pay(PICO / minor);
            let current = level.current;
            self.outcome.hits.push(Hit { pool: key.0, level: key.1, wager: id.into(), payoff, current });
        }
    }

    /// What of the wager counts in the pool, in micro-units of its currency.
    fn eligible(&self, pool: &Value, batch: &Value, wager: &Value) -> Option<i128> {
        let any = |field: &str, name: &str| {
            pool[field].is_null() || strings(pool, field).any(|entry| entry == "*" || entry == name)
        };
        let funds = text(wager, "funds");
        let funded = if pool["funds"].is_null() { funds == "cash" } else { strings(pool, "funds").any(|f| f == funds) };
        let opted = pool["requires_opt_in"] != true || wager["opt_in"] == true;
        let fits = any("operators", text(batch, "operator"))
            && any("games", text(wager, "game"))
            && within(text(&wager["location"], "jurisdiction"), pool)
            && funded
            && opted;
        if !fits {
            return None;
        }
        let micro = amount(&wager["amount"]).unwrap();
        let converted = if wager["currency"] == pool["currency"] {
            micro
        } else {
            let pair = list(&self.terms, "exchange_rates")
                .iter()
                .find(|rate| rate["from"] == wager["currency"] && rate["to"] == pool["currency"])?;
            half_even(micro * decimal(text(pair, "rate"), 9), 1_000_000_000)
        };
        let least = pool["min_wager"].as_str().map_or(0, |text| decimal(text, 6));
        let most = pool["max_wager"].as_str().map(|text| decimal(text, 6));
        (converted >= least).then(|| most.map_or(converted, |most| converted.min(most)))
    }
}

const PICO: i128 = 1_000_000_000_000;

impl Level {
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

    fn pay(&mut self, minor: i128) -> i128 {
        let payoff = self.current - self.current % minor;
        self.current -= payoff;
        self.paid += payoff;
        self.hits += 1;
        let from_diversion = self.base.min(self.diversion);
        let from_reserve = (self.base - from_diversion).min(self.reserve);
        self.diversion -= from_diversion;
        self.reserve -= from_reserve;
        self.house += self.base - from_diversion - from_reserve;
        self.current += self.base;
        payoff
    }
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

fn strings<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a str> {
    list(value, field).iter().map(|entry| entry.as_str().unwrap())
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("{field} of {value} is text"))
}

fn country(place: &str) -> &str {
    place.split('-').next().unwrap()
}

fn within(place: &str, owner: &Value) -> bool {
    strings(owner, "jurisdictions").any(|code| code == place || code == country(place))
}

/// A wager's amount in micro-units, if it has the contract's form.
fn amount(value: &Value) -> Option<i128> {
    let text = value.as_str()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit());
    let formed = digits(whole)
        && digits(fraction)
        && whole.len() <= 10
        && fraction.len() <= 6
        && (whole == "0" || !whole.starts_with('0'));
    formed.then(|| decimal(text, 6)).filter(|&micro| micro <= 1_000_000_000_000_000)
}

/// A decimal as a whole number of 10^-places.
pub fn decimal(text: &str, places: usize) -> i128 {
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    assert!(fraction.len() <= places, "{text} has at most {places} decimals");
    sign * format!("{whole}{fraction:0<places$}").parse::<i128>().unwrap()
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

fn millis(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().unwrap().as_millisecond()
}
