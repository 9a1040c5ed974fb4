//! Synthetic traffic: from terms, a seed, a start and first batch numbers to batches, always the same bytes.
//! `jackpot load`, the demo and the benchmark publish what this makes. Nothing here reads a clock or the log.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use jackpot_core::limits;
use jackpot_core::scatter::fnv1a;
use jackpot_core::terms::Terms;
use jackpot_core::time::Millis;

use super::market::Market;
use super::random::{Random, Weights};
use super::session::{Ground, Session};

/// How long a source gathers wagers before it sends a batch that is not full, in milliseconds.
const LINGER_MS: u64 = 200;
/// How long a player takes from one wager to the next, in seconds: so many sessions are at play at a time.
const THINKING_S: u64 = 4;
/// Sessions at play in one source at most.
const SESSIONS_MAX: u64 = 20_000;

/// What traffic to make.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The same seed gives the same traffic.
    pub seed: u64,
    /// When the first wager happens.
    pub start: Millis,
    /// Wagers a second, at least 1.
    pub rate: u64,
    /// Wagers in all.
    pub wagers: u64,
    /// Wagers of a batch at most, 1 to [`limits::BATCH_WAGERS_MAX`].
    pub batch: usize,
    /// The first batch number of each source; 1 where none is named.
    pub from: BTreeMap<String, u64>,
}

/// One batch, ready to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// When it is due, in milliseconds after the start.
    pub due_ms: u64,
    /// Its operator.
    pub operator: String,
    /// Its source.
    pub source: String,
    /// Its number.
    pub sequence: u64,
    /// How many wagers it holds.
    pub wagers: u64,
    /// The body, as it is published.
    pub body: Bytes,
}

/// Why there is nothing to play.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TrafficError {
    /// No game.
    #[error("the terms in force list no game; apply terms that do")]
    NoGame,
    /// No source that could send anything.
    #[error(
        "the terms in force have no source that need not sign, or whose key is there, and whose operator may take wagers anywhere; apply terms that do, or name the key file with --keys"
    )]
    NoSource,
}

/// The batches, in the order in which they are due.
#[derive(Debug)]
pub struct Traffic {
    market: Market,
    settings: Settings,
    random: Random,
    weights: Weights,
    producers: Vec<Producer>,
    /// Open batches in the order in which they were begun: when, whose, and its number.
    open: VecDeque<(u64, usize, u64)>,
    ready: VecDeque<Batch>,
    made: u64,
    /// Whether each wager is the only one of its session.
    strangers: bool,
}

/// One source: its players and the batch that it is gathering.
#[derive(Debug)]
struct Producer {
    ground: Ground,
    source: String,
    random: Random,
    sessions: Vec<Session>,
    sequence: u64,
    wagers: u64,
    body: Vec<u8>,
}

impl Traffic {
    /// Prepares the traffic. Sources that must sign their batches are left out.
    pub fn new(terms: &Terms, settings: Settings) -> Result<Self, TrafficError> {
        let market = Market::new(terms).ok_or(TrafficError::NoGame)?;
        let grounds: BTreeMap<&str, &[String]> =
            terms.operators.iter().map(|o| (o.operator.as_str(), o.jurisdictions.as_slice())).collect();
        let mut producers = Vec::new();
        for source in terms.sources.iter().filter(|source| source.keys.is_empty()) {
            let list = grounds.get(source.operator.as_str()).copied().unwrap_or_default();
            let (open, closed) = (market.open_to(list), market.closed_to(list));
            if open.is_empty() {
                continue;
            }
            let sequence = settings.from.get(&source.source).copied().unwrap_or(1);
            let start = settings.start.0.cast_unsigned();
            producers.push(Producer {
                ground: Ground { operator: source.operator.clone(), open, closed },
                random: Random::seeded(&[settings.seed, start, fnv1a(source.source.as_bytes()), sequence]),
                source: source.source.clone(),
                sessions: Vec::new(),
                sequence,
                wagers: 0,
                body: Vec::new(),
            });
        }
        if producers.is_empty() {
            return Err(TrafficError::NoSource);
        }
        let weights = Weights::zipf(producers.len());
        let at_play = settings.rate.saturating_mul(THINKING_S);
        for (index, producer) in producers.iter_mut().enumerate() {
            for _ in 0..weights.part(index, at_play).clamp(1, SESSIONS_MAX) {
                let session = producer.begin(&market, settings.start);
                producer.sessions.push(session);
            }
        }
        let random = Random::seeded(&[settings.seed, settings.start.0.cast_unsigned()]);
        let (open, ready) = (VecDeque::new(), VecDeque::new());
        Ok(Self { market, settings, random, weights, producers, open, ready, made: 0, strangers: false })
    }

    /// The same, but that each wager is the only one of its session: as many sessions as wagers.
    pub fn of_strangers(mut self) -> Self {
        self.strangers = true;
        self
    }

    /// Makes the next wager, and what batches that completes.
    fn step(&mut self) {
        let at_ms = self.offset_ms(self.made);
        self.made += 1;
        while let Some(&(since, index, sequence)) = self.open.front()
            && since + LINGER_MS <= at_ms
        {
            self.open.pop_front();
            self.close(index, sequence, since + LINGER_MS);
        }
        let index = self.weights.draw(&mut self.random);
        let producer = &mut self.producers[index];
        if producer.wagers == 0 {
            self.open.push_back((at_ms, index, producer.sequence));
        }
        let now = self.settings.start.plus(at_ms.cast_signed());
        producer.play(&self.market, now, self.strangers);
        let full = producer.wagers >= u64::try_from(self.settings.batch).unwrap_or(u64::MAX)
            || producer.body.len() > limits::BATCH_BYTES_MAX - 4_096;
        if full {
            let sequence = producer.sequence;
            self.close(index, sequence, at_ms);
        }
    }

    /// Closes the batch of this number, unless it was closed before.
    fn close(&mut self, index: usize, sequence: u64, due_ms: u64) {
        let producer = &mut self.producers[index];
        if producer.sequence == sequence && producer.wagers > 0 {
            self.ready.push_back(producer.close(due_ms));
        }
    }

    fn offset_ms(&self, wager: u64) -> u64 {
        let offset = u128::from(wager) * 1_000 / u128::from(self.settings.rate.max(1));
        u64::try_from(offset).expect("the end of the traffic is a time")
    }
}

impl Iterator for Traffic {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        while self.ready.is_empty() && self.made < self.settings.wagers {
            self.step();
        }
        if self.ready.is_empty() {
            let end_ms = self.offset_ms(self.made);
            while let Some((since, index, sequence)) = self.open.pop_front() {
                self.close(index, sequence, (since + LINGER_MS).min(end_ms).max(since));
            }
        }
        self.ready.pop_front()
    }
}

impl Producer {
    fn begin(&mut self, market: &Market, now: Millis) -> Session {
        Session::begin(market, &self.ground, now, &mut self.random)
    }

    /// One of the players makes a wager.
    fn play(&mut self, market: &Market, now: Millis, strangers: bool) {
        if self.wagers == 0 {
            let (operator, source, sequence) = (&self.ground.operator, &self.source, self.sequence);
            let envelope = format!(
                r#"{{"schema":"wager-batch/1","operator":"{operator}","source":"{source}","sequence":{sequence},"wagers":["#
            );
            self.body = envelope.into_bytes();
        } else {
            self.body.push(b',');
        }
        let seat = self.random.index(self.sessions.len());
        if strangers || self.sessions[seat].is_over() {
            self.sessions[seat] = self.begin(market, now);
        }
        self.sessions[seat].play(market, now, &mut self.random, &mut self.body);
        self.wagers += 1;
    }

    fn close(&mut self, due_ms: u64) -> Batch {
        self.body.extend_from_slice(b"]}");
        let batch = Batch {
            due_ms,
            operator: self.ground.operator.clone(),
            source: self.source.clone(),
            sequence: self.sequence,
            wagers: self.wagers,
            body: Bytes::from(std::mem::take(&mut self.body)),
        };
        self.sequence += 1;
        self.wagers = 0;
        batch
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    fn terms() -> Terms {
        Terms::parse(crate::terms::EXAMPLE).expect("the example terms have no faults")
    }

    fn settings() -> Settings {
        let start = Millis::parse("2026-06-08T20:15:30Z").expect("a time");
        Settings { seed: 7, start, rate: 1_000, wagers: 20_000, batch: 50, from: BTreeMap::new() }
    }

    fn traffic(settings: Settings) -> Vec<Batch> {
        Traffic::new(&terms(), settings).expect("the example terms can be played").collect()
    }

    #[test]
    fn the_same_settings_give_the_same_bytes() {
        let once = traffic(settings());
        assert_eq!(once, traffic(settings()));
        let other = |change: fn(&mut Settings)| {
            let mut changed = settings();
            change(&mut changed);
            traffic(changed)
        };
        assert_ne!(once, other(|s| s.seed = 8));
        assert_ne!(once, other(|s| s.start = s.start.plus(1)));
        let later = other(|s| s.from = BTreeMap::from([("acme-spin-eu1".into(), 5)]));
        let sessions = |batches: &[Batch]| -> BTreeSet<String> {
            let of_source = batches.iter().filter(|batch| batch.source == "acme-spin-eu1");
            of_source.flat_map(wagers).map(|wager| wager["session"].to_string()).collect()
        };
        assert!(sessions(&once).is_disjoint(&sessions(&later)), "a run that goes on never repeats a session");
    }

    fn wagers(batch: &Batch) -> Vec<Value> {
        let body: Value = serde_json::from_slice(&batch.body).expect("a batch is JSON");
        assert_eq!(body["schema"], "wager-batch/1");
        assert_eq!(body["operator"], batch.operator.as_str());
        assert_eq!(body["source"], batch.source.as_str());
        assert_eq!(body["sequence"], batch.sequence);
        body["wagers"].as_array().expect("wagers are an array").clone()
    }

    #[test]
    fn batches_keep_the_rules_of_the_contract() {
        let settings = settings();
        let batches = traffic(settings.clone());
        let mut next: BTreeMap<&str, u64> = BTreeMap::new();
        let mut interactions: BTreeMap<(&str, String), u64> = BTreeMap::new();
        let mut count = 0;
        for batch in &batches {
            assert!(batch.body.len() <= limits::BATCH_BYTES_MAX);
            let expected = next.entry(&batch.source).or_insert(1);
            assert_eq!(batch.sequence, *expected, "a source's batches are numbered without a gap");
            *expected += 1;
            let due = settings.start.plus(batch.due_ms.cast_signed());
            for wager in wagers(batch) {
                count += 1;
                let last = interactions.entry((&batch.source, wager["session"].to_string())).or_default();
                *last += 1;
                assert_eq!(wager["interaction"], *last, "a session's interactions have no gap");
                let time = |value: &Value| Millis::parse(value.as_str().expect("text")).expect("a time");
                let (occurred, checked) =
                    (time(&wager["occurred_at"]), time(&wager["location"]["checked_at"]));
                assert!(checked <= occurred && occurred <= due, "{wager}");
                let amount = wager["amount"].as_str().expect("an amount is text");
                jackpot_core::money::Micro::parse_wager(amount).expect("an amount");
            }
        }
        assert_eq!(count, settings.wagers);
        assert_eq!(batches.iter().map(|batch| batch.wagers).sum::<u64>(), settings.wagers);
        assert!(
            batches.is_sorted_by_key(|batch| batch.due_ms),
            "batches come in the order in which they are due"
        );
    }

    #[test]
    fn the_traffic_is_varied() {
        let mut settings = settings();
        settings.wagers = 60_000;
        let batches = traffic(settings);
        let all: Vec<Value> = batches.iter().flat_map(wagers).collect();
        let kinds = |field: &str| all.iter().map(|w| w[field].to_string()).collect::<BTreeSet<_>>().len();
        assert_eq!(kinds("currency"), 4);
        assert_eq!(kinds("funds"), 3);
        assert_eq!(kinds("opt_in"), 2);
        assert_eq!(kinds("game"), 10);
        assert!(kinds("amount") > 20);
        let places: BTreeSet<String> =
            all.iter().map(|wager| wager["location"]["jurisdiction"].to_string()).collect();
        assert!(
            places.contains("null") && (7..=8).contains(&places.len()),
            "six jurisdictions, points alone, and perhaps the blocked one: {places:?}"
        );
        let points = all.iter().filter(|wager| wager["location"].get("latitude").is_some()).count();
        assert!((all.len() / 3..all.len()).contains(&points), "some also have coordinates: {points}");
        let swedish = |batch: &&Batch| batch.operator == "fjordbet";
        let abroad = |wager: &Value| {
            ["GB", "DE", "US-NV", "US-NJ", "US-UT"]
                .iter()
                .any(|code| wager["location"]["jurisdiction"] == *code)
        };
        let strayed = batches.iter().filter(swedish).flat_map(wagers).filter(abroad).count();
        assert!((1..600).contains(&strayed), "a few play from where they may not: {strayed}");
        let hits = all.iter().filter(|wager| wager.get("hits").is_some()).count();
        assert!((1..60).contains(&hits), "hits are rare: {hits}");
        let of = |source: &str| {
            batches.iter().filter(|batch| batch.source == source).map(|b| b.wagers).sum::<u64>()
        };
        assert!(of("acme-spin-eu1") > 5 * of("silverstate-kiosk-nv1"), "sources differ in size");
    }

    #[test]
    fn strangers_come_once() {
        let traffic = Traffic::new(&terms(), settings()).expect("the example terms can be played");
        let sessions = traffic.of_strangers().flat_map(|batch| {
            wagers(&batch)
                .into_iter()
                .map(|wager| {
                    assert_eq!(wager["interaction"], 1);
                    wager["session"].to_string()
                })
                .collect::<Vec<_>>()
        });
        assert_eq!(sessions.collect::<BTreeSet<_>>().len(), 20_000);
    }

    #[test]
    fn terms_that_cannot_be_played_are_said_to_be_so() {
        let mut empty = terms();
        empty.games.clear();
        assert_eq!(Traffic::new(&empty, settings()).err(), Some(TrafficError::NoGame));
        let mut keyed = terms();
        for source in &mut keyed.sources {
            source.keys = vec!["k1".into()];
        }
        assert_eq!(Traffic::new(&keyed, settings()).err(), Some(TrafficError::NoSource));
    }
}
