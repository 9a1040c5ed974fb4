//! An independent model of the pipeline: raw wagers in, exact totals out, written straight from the contract.
//! It shares no code with the stages: its own amounts, windows of sequences, eligibility and ledger, over plain
//! JSON values, slow and simple. Of ISO 4217 and ISO 3166-1 it knows the names that the simulation and the tests of
//! whole pipelines use, and of keys those of the simulation. Both ask it, and nothing else does.
//!
//! What the contract leaves to the pipeline — the order in which partitions meet in the ledger, and with which commit
//! a revision of the terms runs there — it takes from the record: the vectors and revisions in `commits`, and how far
//! each frame reached into the ingress.

#![expect(clippy::unwrap_used, reason = "a record that is not what it must be has failed the audit")]

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::places::Places;
use super::signatures;
use crate::workload;

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
    /// Its headers.
    pub headers: Vec<(String, String)>,
    /// The batch.
    pub body: Vec<u8>,
}

/// A level, in pico-units. The amounts are those of its total.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the contract says what each is")]
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
    /// What waits for the next hit.
    pub pending: Pending,
    increment_ppm: i128,
    reserve_ppm: i128,
    minor: i128,
}

/// What of a level waits for its next hit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the contract says what each is")]
pub struct Pending {
    pub increment_ppm: Option<i128>,
    pub reserve_ppm: Option<i128>,
    pub ceiling: Option<i128>,
}

/// A paid hit.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the contract says what each is")]
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

/// What becomes of the batches that came on one source's subject.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Accepted batches.
    pub batches: u64,
    /// Batches that were refused whole.
    pub refused_batches: u64,
    /// Allocated wagers.
    pub wagers: u64,
    /// Refused wagers of accepted batches.
    pub refused_wagers: u64,
    /// The highest accepted number, or what its start says instead, as of its last batch.
    pub highest: u64,
    /// Which numbers below it, and within its window, were not accepted by then.
    pub missing: Vec<(u64, u64)>,
    /// The start that terms have declared behind its last batch: the view may know of it.
    pub declared: Option<u64>,
}

/// What the model says must come out.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The levels, by pool and level.
    pub levels: BTreeMap<(String, String), Level>,
    /// The hits, in the ledger's order.
    pub hits: Vec<Hit>,
    /// `(id, reason)`, sorted.
    pub refusals: Vec<(String, String)>,
    /// Wagers that were allocated, to a pool or to none.
    pub allocated: u64,
    /// What became of each source's batches, by operator and source of the subject, where the terms knew both.
    pub sources: BTreeMap<(String, String), Tally>,
    /// Batches that no commit has consumed.
    pub left: usize,
}

/// Runs the model over these revisions of the terms. `reach(p, n)` is the ingress position that frame `n` of partition
/// `p` read up to.
pub fn run(
    revisions: &[Value],
    raws: &[Raw],
    commits: &[Value],
    reach: impl Fn(usize, u64) -> u64,
) -> Outcome {
    follow(revisions, raws, commits, reach, |_, _| {})
}

/// The same; `after` sees what must have come out after each commit. Refusals are not sorted before the end.
pub fn follow(
    revisions: &[Value],
    raws: &[Raw],
    commits: &[Value],
    reach: impl Fn(usize, u64) -> u64,
    mut after: impl FnMut(&Value, &Outcome),
) -> Outcome {
    let mut model = Model::new(revisions);
    let mut lanes: BTreeMap<usize, Vec<&Raw>> = BTreeMap::new();
    for raw in raws {
        let mut words = raw.subject.split('.');
        if words.next() == Some("lane") {
            lanes.entry(words.next().unwrap().parse().unwrap()).or_default().push(raw);
        }
    }
    let mut next: BTreeMap<usize, usize> = BTreeMap::new();
    for commit in commits {
        model.take_up(commit["terms"].as_u64().unwrap());
        for (partition, consumed) in list(commit, "partitions").iter().enumerate() {
            let frame = consumed["frame"].as_u64().unwrap();
            let until = if frame == 0 { 0 } else { reach(partition, frame) };
            let lane = lanes.get(&partition).map_or(&[][..], Vec::as_slice);
            let at = next.entry(partition).or_default();
            while *at < lane.len() && lane[*at].position <= until {
                model.message(partition, lane[*at]);
                *at += 1;
            }
        }
        after(commit, &model.outcome);
    }
    let behind = |partition: &usize| next.get(partition).copied().unwrap_or(0);
    let left = lanes.iter().flat_map(|(partition, lane)| &lane[behind(partition)..]);
    model.outcome.left = left.filter(|raw| !raw.is_marker()).count();
    model.outcome.refusals.sort();
    model.outcome
}

impl Raw {
    fn is_marker(&self) -> bool {
        self.subject.split('.').count() == 3
    }
}

struct Model<'a> {
    revisions: BTreeMap<u64, &'a Value>,
    /// By partition: the revision of the last marker.
    in_force: BTreeMap<usize, u64>,
    /// The highest revision that a commit has run.
    ran: u64,
    /// By partition: the revision of its last batch.
    begun: BTreeMap<usize, u64>,
    /// The partition of each source that has published, by operator and source.
    homes: BTreeMap<(String, String), usize>,
    /// By partition and source.
    numbers: BTreeMap<(usize, String), Numbers>,
    interactions: BTreeMap<(String, String), BTreeSet<u64>>,
    places: Places,
    outcome: Outcome,
}

/// What is known of a source's numbers.
#[derive(Default)]
struct Numbers {
    /// The `sequence_from` that was applied last.
    declared: Option<u64>,
    /// The first number that was accepted since.
    first: Option<u64>,
    accepted: BTreeSet<u64>,
}

impl Numbers {
    fn highest(&self) -> Option<u64> {
        self.accepted.last().copied().or(self.declared.map(|from| from - 1))
    }

    fn judge(&mut self, sequence: u64) -> Result<(), &'static str> {
        let highest = self.highest().unwrap_or(sequence);
        if sequence + 1_024 < highest || self.declared.is_some_and(|from| sequence < from) {
            return Err("stale_sequence");
        }
        if sequence > highest + 1_000_000 {
            return Err("sequence_jump");
        }
        self.first.get_or_insert(sequence);
        if self.accepted.insert(sequence) { Ok(()) } else { Err("duplicate_batch") }
    }

    fn missing(&self) -> Vec<(u64, u64)> {
        let (Some(start), Some(highest)) = (self.declared.or(self.first), self.highest()) else {
            return Vec::new();
        };
        let mut missing: Vec<(u64, u64)> = Vec::new();
        let window = start.max(highest.saturating_sub(1_024))..highest;
        for number in window.filter(|number| !self.accepted.contains(number)) {
            match missing.last_mut() {
                Some((_, to)) if *to + 1 == number => *to = number,
                _ => missing.push((number, number)),
            }
        }
        missing
    }
}

impl<'a> Model<'a> {
    fn new(revisions: &'a [Value]) -> Self {
        let numbered = revisions.iter().map(|terms| (terms["revision"].as_u64().unwrap(), terms));
        let (numbers, interactions, places, outcome) = Default::default();
        let (in_force, begun, homes) = Default::default();
        let revisions = numbered.collect();
        Self { revisions, in_force, ran: 0, begun, homes, numbers, interactions, places, outcome }
    }

    /// The ledger runs a revision.
    fn take_up(&mut self, revision: u64) {
        if revision <= self.ran {
            return;
        }
        self.ran = revision;
        for pool in list(self.revisions[&revision], "pools") {
            for level in list(pool, "levels") {
                let key = (text(pool, "pool").into(), text(level, "level").into());
                let new = || Level::new(pool, level);
                self.outcome.levels.entry(key).or_insert_with(new).learn(level);
            }
        }
    }

    fn message(&mut self, partition: usize, raw: &Raw) {
        let in_force = self.in_force.entry(partition).or_default();
        if raw.is_marker() {
            let marker: Value = serde_json::from_slice(&raw.body).unwrap();
            *in_force = marker["revision"].as_u64().unwrap().max(*in_force);
            return;
        }
        assert!(*in_force <= self.ran, "a frame's revision runs in the ledger");
        static NONE: Value = Value::Null;
        let revision = *in_force;
        let terms = self.revisions.get(&revision).copied().unwrap_or(&NONE);
        if self.begun.insert(partition, revision) != Some(revision) {
            self.begin(partition, terms);
        }
        self.batch(partition, terms, raw);
    }

    /// A revision comes into force with the first batch under it: a new start makes what was known of numbers void.
    fn begin(&mut self, partition: usize, terms: &Value) {
        for source in list(terms, "sources") {
            let declared = source["sequence_from"].as_u64();
            let name = text(source, "source").to_owned();
            let numbers = self.numbers.entry((partition, name.clone())).or_default();
            if declared.is_some() && declared != numbers.declared {
                *numbers = Numbers { declared, ..Numbers::default() };
                let key = (text(source, "operator").to_owned(), name);
                let home = self.homes.get(&key) == Some(&partition);
                if let Some(tally) = self.outcome.sources.get_mut(&key).filter(|_| home) {
                    tally.declared = declared;
                }
            }
        }
    }

    fn refuse(&mut self, id: &str, reason: &str) {
        self.outcome.refusals.push((id.into(), reason.into()));
    }

    fn batch(&mut self, partition: usize, terms: &Value, raw: &Raw) {
        let unnamed = format!("@{}", raw.position);
        let Ok(batch) = serde_json::from_slice::<Value>(&raw.body) else {
            self.tally(partition, terms, raw).refused_batches += 1;
            return self.refuse(&unnamed, "malformed");
        };
        let id = match (identifier(&batch["source"]), whole(&batch["sequence"])) {
            (Some(source), Some(sequence)) => format!("{source}/{sequence}"),
            _ => unnamed,
        };
        if let Err(reason) = self.judge(partition, terms, raw, &batch) {
            self.tally(partition, terms, raw).refused_batches += 1;
            return self.refuse(&id, reason);
        }
        let before = self.outcome.allocated;
        for (index, wager) in list(&batch, "wagers").iter().enumerate() {
            let id = format!("{id}/{index}");
            match self.wager(terms, raw, &batch, wager) {
                Err(reason) => self.refuse(&id, reason),
                Ok(place) => {
                    self.outcome.allocated += 1;
                    self.post(terms, &id, &batch, wager, &place);
                }
            }
        }
        let allocated = self.outcome.allocated - before;
        let wagers = u64::try_from(list(&batch, "wagers").len()).unwrap();
        let tally = self.tally(partition, terms, raw);
        tally.batches += 1;
        tally.wagers += allocated;
        tally.refused_wagers += wagers - allocated;
    }

    /// Where to count what came on a subject; what is counted for a source that the terms do not know is dropped.
    fn tally(&mut self, partition: usize, terms: &Value, raw: &Raw) -> &mut Tally {
        let words: Vec<_> = raw.subject.split('.').collect();
        let listed = |entry: &Value| entry["operator"] == words[2] && entry["source"] == words[3];
        let known = list(terms, "sources").iter().any(listed);
        let key = if known { (words[2].into(), words[3].into()) } else { Default::default() };
        self.homes.insert(key.clone(), partition);
        let tally = self.outcome.sources.entry(key).or_default();
        let numbers = self.numbers.entry((partition, words[3].into())).or_default();
        tally.highest = numbers.highest().unwrap_or(0);
        tally.missing = numbers.missing();
        tally.declared = None;
        tally
    }

    /// Whether the batch stands, and remembers it if it does.
    fn judge(
        &mut self,
        partition: usize,
        terms: &Value,
        raw: &Raw,
        batch: &Value,
    ) -> Result<(), &'static str> {
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
        let Some(entry) = list(terms, "sources").iter().find(|entry| listed(entry)) else {
            return Err("unknown_source");
        };
        let secrets: Vec<_> = strings(entry, "keys").map(workload::secret).collect();
        let id = format!("{source}/{sequence}");
        if !secrets.is_empty() && !signatures::fits(&raw.headers, &id, &raw.body, &secrets) {
            return Err("bad_signature");
        }
        self.numbers.entry((partition, source.into())).or_default().judge(sequence)
    }

    /// Where the wager was made, if it stands by validate, geofence and allocate in this order.
    fn wager(
        &mut self,
        terms: &Value,
        raw: &Raw,
        batch: &Value,
        wager: &Value,
    ) -> Result<String, &'static str> {
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
        let place = self.places.place(terms, batch, wager)?;
        let known = list(terms, "games").iter().any(|game| game["game"] == wager["game"]);
        if known { Ok(place) } else { Err("unknown_game") }
    }

    /// Takes the wager to its pools, then pays its hits.
    fn post(&mut self, terms: &Value, id: &str, batch: &Value, wager: &Value, place: &str) {
        let (mut joined, mut winnable) = (0, BTreeSet::new());
        for pool in list(terms, "pools") {
            let Some(eligible) = eligible(terms, pool, batch, wager, place).filter(|_| joined < 8) else {
                continue;
            };
            joined += 1;
            for level in list(pool, "levels") {
                let key = (text(pool, "pool").to_owned(), text(level, "level").to_owned());
                self.outcome.levels.get_mut(&key).unwrap().contribute(eligible);
                winnable.insert(key);
            }
        }
        for hit in list(wager, "hits") {
            let name = |field: &str| hit[field].as_str().unwrap_or_default().to_owned();
            let key = (name("pool"), name("level"));
            // A level can be won that is in the terms of the frame, and once.
            if winnable.remove(&key) {
                let level = self.outcome.levels.get_mut(&key).unwrap();
                self.outcome.hits.push(level.pay(key, id));
            } else {
                self.refuse(id, "hit_refused");
            }
        }
    }
}

/// What of the wager counts in the pool, in micro-units of its currency.
fn eligible(terms: &Value, pool: &Value, batch: &Value, wager: &Value, place: &str) -> Option<i128> {
    let any = |field: &str, name: &str| {
        pool[field].is_null() || strings(pool, field).any(|entry| entry == "*" || entry == name)
    };
    let funds = text(wager, "funds");
    let funded =
        if pool["funds"].is_null() { funds == "cash" } else { strings(pool, "funds").any(|f| f == funds) };
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
        let pair = list(terms, "exchange_rates")
            .iter()
            .find(|rate| rate["from"] == wager["currency"] && rate["to"] == pool["currency"])?;
        half_even(micro * decimal(text(pair, "rate"), 9), 1_000_000_000)
    };
    let least = pool["min_wager"].as_str().map_or(0, |text| decimal(text, 6));
    let most = pool["max_wager"].as_str().map(|text| decimal(text, 6));
    (converted >= least).then(|| most.map_or(converted, |most| converted.min(most)))
}

impl Level {
    fn new(pool: &Value, level: &Value) -> Self {
        let base = pico(text(level, "base"));
        let (increment_ppm, reserve_ppm) = rates(level);
        Self {
            current: base,
            house: base,
            base,
            ceiling: level["ceiling"].as_str().map(pico),
            increment_ppm,
            reserve_ppm,
            minor: if pool["currency"] == "JPY" { PICO } else { PICO / 100 },
            ..Self::default()
        }
    }

    /// Takes a revision up. What waits for a hit is what differs from what is in force.
    fn learn(&mut self, level: &Value) {
        let (increment, reserve) = rates(level);
        let ceiling = level["ceiling"].as_str().map(pico);
        self.base = pico(text(level, "base"));
        self.pending = Pending {
            increment_ppm: (increment != self.increment_ppm).then_some(increment),
            reserve_ppm: (reserve != self.reserve_ppm).then_some(reserve),
            ceiling: ceiling.filter(|&ceiling| ceiling < self.current && Some(ceiling) != self.ceiling),
        };
        if self.pending.ceiling.is_none() {
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

/// The increment and reserve rates of a level.
fn rates(level: &Value) -> (i128, i128) {
    let reserve = level["reserve_ppm"].as_u64().unwrap_or(0);
    (level["increment_ppm"].as_u64().unwrap().into(), reserve.into())
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
