//! The lanes of allocate and audit, one behind the other, cut into runs anywhere: what is stored in the end is what one
//! run stores, with one of allocate's two outputs ahead or behind, and every refusal is published once, in log order.

#![expect(clippy::unwrap_used, reason = "a check that cannot go on has failed")]

use std::collections::BTreeMap;

use allocate::Allocate;
use audit::Audit;
use bytes::Bytes;
use jackpot_core::digest::Digest;
use jackpot_core::frame::batch::{Accepted, Batch, Funds, HitClaim, Hits, RefusedBatch, Verdict};
use jackpot_core::frame::geofenced::{Geofenced, Wager};
use jackpot_core::frame::{self, Header, Ingress};
use jackpot_core::lane::Lane;
use jackpot_core::limits::APPENDS_IN_FLIGHT_MAX;
use jackpot_core::log::{Entry, Expect};
use jackpot_core::money::Micro;
use jackpot_core::refusal::Reason;
use jackpot_core::rules;
use jackpot_core::stage::{Place, Publication, Stage};
use jackpot_core::terms::Terms;
use jackpot_core::time::Millis;
use proptest::prelude::*;

const NOW: Millis = Millis(1_780_949_730_123);

/// The revisions differ in what a pool takes in, so that a frame under the wrong one would be another frame.
fn terms(revision: u64) -> Terms {
    let document = serde_json::json!({
        "schema": "terms/1", "revision": revision,
        "jurisdictions": [{"code": "MT", "status": "permitted"}],
        "operators": [{"operator": "acme", "jurisdictions": ["MT"]}],
        "sources": [{"source": "eu1", "operator": "acme"}, {"source": "eu2", "operator": "acme"}],
        "games": [{"game": "spin", "supplier": "x"}],
        "pools": [{"pool": "mega", "currency": "EUR", "jurisdictions": ["MT"], "max_wager": revision.to_string(),
            "levels": [{"level": "grand", "base": "10", "increment_ppm": 3000}]}],
    });
    Terms::parse(document.to_string().as_bytes()).unwrap()
}

/// What a frame holds: batches of so many wagers, each with what is special about it; none at all: a refused batch.
type Content = Vec<Vec<Special>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Special {
    Nothing,
    UnknownGame,
    Hit,
    HitOfNoLevel,
}

fn contents() -> impl Strategy<Value = Vec<(bool, Content)>> {
    use Special::{Hit, HitOfNoLevel, Nothing, UnknownGame};
    let special =
        prop_oneof![4 => Just(Nothing), 1 => Just(UnknownGame), 1 => Just(Hit), 1 => Just(HitOfNoLevel)];
    let batches = prop::collection::vec(prop::collection::vec(special, 0..4), 1..4);
    prop::collection::vec((prop::bool::weighted(0.2), batches), 1..40)
}

/// A log of geofenced frames; before some of them the revision grows.
fn input(contents: &[(bool, Content)]) -> Vec<Bytes> {
    let (mut previous, mut revision, mut batches) = (Digest::ZERO, 1, 0);
    let frame = |(sequence, (grows, content)): (u64, &(bool, Content))| {
        revision += u64::from(*grows);
        let mut body = Geofenced::default();
        for specials in content {
            batches += 1;
            body.batches.push(batch(&mut body.symbols, batches, specials));
        }
        let header = Header {
            partition: 0,
            sequence,
            rules: rules::FIRST,
            terms: revision,
            watermark: Some(NOW),
            recorded_at: NOW,
            ingress: Ingress { position: batches, count: batches, chain: Digest::of(&[7]) },
            input: Digest::of(&sequence.to_le_bytes()),
            previous,
        };
        let message = frame::encode(&header, &body);
        previous = Digest::of(&message);
        message
    };
    (1..).zip(contents).map(frame).collect()
}

fn batch(symbols: &mut frame::symbols::Symbols, number: u64, specials: &[Special]) -> Batch<Wager> {
    let source = if number.is_multiple_of(2) { "eu1" } else { "eu2" };
    let verdict = if specials.is_empty() {
        let (batch, detail) = (format!("{source}/{number}").into(), "it was accepted before".into());
        Verdict::Refused(RefusedBatch { batch, reason: Reason::DuplicateBatch, detail, conflict: false })
    } else {
        let wagers = (0..).zip(specials).map(|(index, special)| wager(symbols, index, *special)).collect();
        Verdict::Accepted(Accepted { sequence: number, wagers, refusals: Vec::new(), gaps: Vec::new() })
    };
    Batch {
        operator: symbols.intern("acme"),
        source: symbols.intern(source),
        position: number,
        recorded_at: NOW,
        verdict,
    }
}

fn wager(symbols: &mut frame::symbols::Symbols, index: u16, special: Special) -> Wager {
    let level = match special {
        Special::Hit => Some("grand"),
        Special::HitOfNoLevel => Some("none"),
        Special::Nothing | Special::UnknownGame => None,
    };
    let hits = level.map(|level| {
        let claim = HitClaim::Level { pool: symbols.intern("mega"), level: symbols.intern(level) };
        Box::new(Hits { round: "r-1".into(), claims: vec![claim] })
    });
    Wager {
        index,
        game: symbols.intern(if special == Special::UnknownGame { "unheard-of" } else { "spin" }),
        amount: Micro(20_000_000),
        currency: symbols.intern("EUR"),
        funds: Funds::Cash,
        opt_in: false,
        occurred_at: NOW,
        jurisdiction: symbols.intern("MT"),
        hits,
    }
}

/// A stage between its logs.
struct Process<S: Stage> {
    lane: Lane<S>,
    outputs: Vec<Vec<Bytes>>,
    /// What was published, by subject.
    published: BTreeMap<String, Vec<(Place, Bytes)>>,
}

impl<S: Stage> Process<S> {
    fn new(stage: S) -> Self {
        let outputs = vec![Vec::new(); S::OUTPUTS.len()];
        Self { lane: Lane::new(stage, 0), outputs, published: BTreeMap::new() }
    }

    /// Starts anew, takes in up to `frames` frames, and stores of what is appended to each output up to `stored`.
    fn run(&mut self, stage: S, input: &[Bytes], frames: usize, stored: [usize; 2]) {
        self.lane = Lane::new(stage, 0);
        let entries = |messages: &[Bytes]| -> Vec<Entry> {
            let entry = |(sequence, payload): (u64, &Bytes)| Entry {
                sequence,
                subject: "lane".into(),
                recorded_at: NOW,
                headers: Vec::new(),
                payload: payload.clone(),
            };
            (1..).zip(messages).map(entry).collect()
        };
        let tails: Vec<_> = self.outputs.iter().map(|messages| entries(messages).pop()).collect();
        let resume = self.lane.resume(&tails, u64::try_from(input.len()).unwrap()).unwrap();
        for (output, sequence) in resume.wanted {
            let place = usize::try_from(sequence).unwrap() - 1;
            self.lane.recorded(output, &entries(&self.outputs[output])[place]).unwrap();
        }
        let mut room = stored;
        for entry in entries(input).iter().skip(usize::try_from(resume.from).unwrap() - 1).take(frames) {
            if !self.lane.wants_input() {
                break;
            }
            if let Some(revision) = self.lane.terms_wanted(entry).unwrap() {
                self.lane.learn(revision, &terms(revision));
            }
            let step = self.lane.accept(entry).unwrap();
            self.publish(step.publications);
            for (output, append) in step.appends {
                let end = u64::try_from(self.outputs[output].len()).unwrap();
                if room[output] > 0 && append.expect == Expect::Last(end) {
                    room[output] -= 1;
                    self.outputs[output].push(append.payload);
                    self.lane.acknowledged(output, end + 1);
                }
            }
        }
    }

    /// As the publisher does it: the last message on a subject tells what is there.
    fn publish(&mut self, publications: Vec<Publication>) {
        for Publication { subject, place, payload } in publications {
            let there = self.published.entry(subject).or_default();
            if there.last().is_none_or(|(last, _)| *last < place) {
                there.push((place, payload));
            }
        }
    }

    fn finish(&mut self, stage: impl Fn() -> S, input: &[Bytes]) {
        for _ in 0..=input.len() / APPENDS_IN_FLIGHT_MAX + 1 {
            self.run(stage(), input, usize::MAX, [usize::MAX; 2]);
        }
        assert!(self.outputs.iter().all(|messages| messages.len() == input.len()), "one frame for each");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_cut_into_runs_stores_and_publishes_the_same(
        contents in contents(),
        cuts in prop::collection::vec((0..24_usize, 0..24_usize, 0..24_usize), 0..12),
    ) {
        let input = input(&contents);
        let mut allocate = Process::new(Allocate::default());
        allocate.finish(Allocate::default, &input);
        let mut audit = Process::new(Audit::default());
        audit.finish(Audit::default, &allocate.outputs[0]);

        let (mut cut_allocate, mut cut_audit) = (Process::new(Allocate::default()), Process::new(Audit::default()));
        for (frames, first, second) in cuts {
            cut_allocate.run(Allocate::default(), &input, frames, [first, second]);
            let so_far = cut_allocate.outputs[0].clone();
            cut_audit.run(Audit::default(), &so_far, frames, [second, 0]);
        }
        cut_allocate.finish(Allocate::default, &input);
        cut_audit.finish(Audit::default, &allocate.outputs[0]);
        prop_assert_eq!(cut_allocate.outputs, allocate.outputs);
        prop_assert_eq!(cut_audit.outputs, audit.outputs);
        let refused = |(_, content): &(bool, Content)| -> usize {
            let of = |special: &&Special| matches!(special, Special::UnknownGame | Special::HitOfNoLevel);
            content.iter().map(|batch| usize::from(batch.is_empty()) + batch.iter().filter(of).count()).sum()
        };
        let published: usize = audit.published.values().map(Vec::len).sum();
        prop_assert_eq!(published, contents.iter().map(refused).sum::<usize>());
        prop_assert_eq!(cut_audit.published, audit.published);
    }
}
