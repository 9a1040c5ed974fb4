//! The view `sources` as a producer reads it, over the log in memory and a clock that the test moves: what has become of
//! its batches, one message a second at most, the last state always, across restarts and a change of operator.

#![expect(clippy::unwrap_used, reason = "a check that cannot go on has failed")]

use std::future::Future;
use std::time::Duration;

use audit::sources::SourcesView;
use jackpot_core::digest::Digest;
use jackpot_core::frame::allocations::{Allocation, Allocations};
use jackpot_core::frame::batch::{Accepted, Batch, Funds, Refusal, RefusedBatch, Verdict};
use jackpot_core::frame::geofenced::Wager;
use jackpot_core::frame::symbols::Symbols;
use jackpot_core::frame::{self, Header, Ingress};
use jackpot_core::log::jetstream::setup::{SetUp, streams};
use jackpot_core::log::memory::Memory;
use jackpot_core::log::{Append, Appender, Entry, Expect, Log, Reader};
use jackpot_core::money::Micro;
use jackpot_core::refusal::{Reason, StageName};
use jackpot_core::rules;
use jackpot_core::runner::{Context, drive};
use jackpot_core::terms::{Terms, store};
use jackpot_core::time::Millis;
use jackpot_core::topology::{self, Lane};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

const NOW: Millis = Millis(1_780_949_730_000);
/// Between two frames.
const PACE: Duration = Duration::from_millis(100);

/// Revision 2 gives the source to another operator; revisions 3 and 4 let its numbers start anew.
fn terms(revision: u64) -> Terms {
    let from = [json!(null), json!(null), json!(1_000), json!(1)];
    let from = &from[usize::try_from(revision - 1).unwrap()];
    let operators = ["acme", "north"].map(|operator| json!({"operator": operator, "jurisdictions": ["MT"]}));
    let document = json!({
        "schema": "terms/1", "revision": revision, "operators": operators,
        "sources": [{
            "source": "eu1", "operator": owner(revision), "sequence_from": from,
        }],
    });
    Terms::parse(document.to_string().as_bytes()).unwrap()
}

fn owner(revision: u64) -> &'static str {
    if revision == 1 { "acme" } else { "north" }
}

/// A source whose frames are appended, each with one batch.
struct Source {
    log: Memory,
    revision: u64,
    frame: u64,
    previous: Digest,
}

impl Source {
    async fn new() -> Self {
        let start = Instant::now();
        let now = move || NOW.plus(i64::try_from(start.elapsed().as_millis()).unwrap());
        let log = Memory::new(streams(&SetUp::new(1)), now);
        for revision in 1..=4 {
            store::store(&log, &terms(revision)).await.unwrap();
        }
        Self { log, revision: 1, frame: 0, previous: Digest::ZERO }
    }

    /// An accepted batch with two wagers, one refused wager, and a refused hit.
    async fn accept(&mut self, sequence: u64) {
        let mut symbols = Symbols::default();
        let refusal = |index, hit, reason| Refusal {
            index,
            hit,
            stage: StageName::Allocate,
            reason,
            detail: "so it is".into(),
        };
        let refusals = vec![refusal(1, None, Reason::UnknownGame), refusal(2, Some(0), Reason::HitRefused)];
        let wagers = [0, 2].map(|index| wager(&mut symbols, index)).into();
        let accepted = Accepted { sequence, wagers, refusals, gaps: Vec::new() };
        self.append(symbols, Verdict::Accepted(accepted)).await;
    }

    async fn refuse(&mut self) {
        let (batch, detail) = ("eu1/1".into(), "it was accepted before".into());
        let refused = RefusedBatch { batch, reason: Reason::DuplicateBatch, detail, conflict: false };
        self.append(Symbols::default(), Verdict::Refused(refused)).await;
    }

    async fn append(&mut self, mut symbols: Symbols, verdict: Verdict<Allocation>) {
        self.frame += 1;
        let recorded_at = NOW.plus(i64::try_from(self.frame).unwrap());
        let (operator, source) = (symbols.intern(owner(self.revision)), symbols.intern("eu1"));
        let batch = Batch { operator, source, position: self.frame, recorded_at, verdict };
        let header = Header {
            partition: 0,
            sequence: self.frame,
            rules: rules::FIRST,
            terms: self.revision,
            watermark: None,
            recorded_at,
            ingress: Ingress { position: self.frame, count: self.frame, chain: Digest::ZERO },
            input: Digest::ZERO,
            previous: self.previous,
        };
        let payload = frame::encode(&header, &Allocations { symbols, batches: vec![batch] });
        self.previous = Digest::of(&payload);
        let subject = Lane::Allocations.subject(0);
        let expect = Expect::Last(self.frame - 1);
        let mut appender = self.log.appender().await.unwrap();
        appender.send(Append { subject, headers: Vec::new(), payload, expect }).await.unwrap();
        appender.acknowledged().await.unwrap();
        sleep(PACE).await;
    }

    /// Runs the view while something else goes on, and long enough behind it.
    async fn viewed(&mut self, meanwhile: impl AsyncFnOnce(&mut Self)) {
        let (stop, shutdown) = watch::channel(false);
        let context = Context::new(self.log.clone(), StageName::Audit, shutdown);
        let meanwhile = async {
            meanwhile(self).await;
            sleep(Duration::from_secs(3)).await;
            stop.send_replace(true);
        };
        join(drive(&context, SourcesView::new(context.clone(), 0, 1)), meanwhile).await;
    }

    async fn shown(&self) -> Vec<Entry> {
        let count = self.log.extent(topology::SOURCES).await.unwrap().last;
        let mut reader = self.log.read(topology::SOURCES, None, 1).await.unwrap();
        let mut entries: Vec<Entry> = Vec::new();
        while entries.last().is_none_or(|entry| entry.sequence < count) {
            entries.push(reader.next().await.unwrap());
        }
        entries
    }

    /// The present state on the subject of the source's present operator.
    async fn check(&self, expect: Value) {
        let subject = topology::sources(owner(self.revision), "eu1");
        let last = self.log.last(topology::SOURCES, &subject).await.unwrap().unwrap();
        let state: Value = serde_json::from_slice(&last.payload).unwrap();
        for (field, value) in expect.as_object().unwrap() {
            assert_eq!(&state[field], value, "{field} of {state}");
        }
        assert_eq!((&state["operator"], &state["source"]), (&json!(owner(self.revision)), &json!("eu1")));
    }
}

async fn join(one: impl Future<Output = ()>, other: impl Future<Output = ()>) {
    tokio::join!(one, other);
}

fn wager(symbols: &mut Symbols, index: u16) -> Allocation {
    let wager = Wager {
        index,
        game: symbols.intern("spin"),
        amount: Micro(2_000_000),
        currency: symbols.intern("EUR"),
        funds: Funds::Cash,
        opt_in: false,
        occurred_at: NOW,
        jurisdiction: symbols.intern("MT"),
        hits: None,
    };
    Allocation { wager, participations: Vec::new() }
}

#[tokio::test(start_paused = true)]
async fn a_source_is_shown_once_a_second_at_most_and_its_last_state_always() {
    let mut source = Source::new().await;
    source
        .viewed(async |source| {
            for sequence in (5..35).filter(|number| ![7, 8, 20].contains(number)) {
                source.accept(sequence).await;
            }
            source.refuse().await;
            source.accept(20).await;
        })
        .await;
    let as_of = NOW.plus(29).to_string();
    source
        .check(json!({
            "highest": 34, "batches": 28, "wagers": 56, "refused_batches": 1, "refused_wagers": 28,
            "missing": [[7, 8]], "as_of": as_of,
        }))
        .await;
    // Stopped, behind, and started again.
    source.accept(40).await;
    source.viewed(async |source| source.accept(36).await).await;
    let expect = json!({"highest": 40, "batches": 30, "wagers": 60, "missing": [[7, 8], [35, 35], [37, 39]]});
    source.check(expect).await;
    let shown = source.shown().await;
    assert!(shown.len() <= 6, "the states between are left out: {}", shown.len());
    for pair in shown.windows(2) {
        let (first, next) = (pair[0].recorded_at, pair[1].recorded_at);
        assert!(next.0 - first.0 >= 1_000, "one at {first} and one at {next}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_goes_to_another_operator_is_shown_there_with_all_that_was_counted() {
    let mut source = Source::new().await;
    source.viewed(async |source| source.accept(5).await).await;
    source.check(json!({"highest": 5, "batches": 1})).await;
    source.revision = 2;
    source.viewed(async |source| source.accept(6).await).await;
    source.check(json!({"highest": 6, "batches": 2, "wagers": 4})).await;
    source.viewed(async |source| source.accept(7).await).await;
    source.check(json!({"highest": 7, "batches": 3})).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_start_of_the_numbers_forgets_what_is_missing() {
    let mut source = Source::new().await;
    source
        .viewed(async |source| {
            source.accept(5).await;
            source.accept(9).await;
            source.revision = 3;
            source.accept(1_002).await;
        })
        .await;
    source.check(json!({"highest": 1_002, "batches": 3, "missing": [[1_000, 1_001]]})).await;
    source.revision = 4;
    source.viewed(async |source| source.accept(3).await).await;
    source.check(json!({"highest": 3, "batches": 4, "missing": [[1, 2]]})).await;
}

#[tokio::test(start_paused = true)]
async fn where_the_log_lost_what_was_counted_and_grew_again_all_is_counted_anew() {
    let mut source = Source::new().await;
    let two = async |source: &mut Source| {
        source.accept(5).await;
        source.accept(6).await;
    };
    source.viewed(two).await;
    source.check(json!({"highest": 6, "batches": 2})).await;
    // Frame 2 is lost, and is another one by now; the view had counted the first one up to there.
    source.log.lose(&Lane::Allocations.stream(0), 1);
    source.frame = 1;
    source.refuse().await;
    source.viewed(async |source| source.accept(6).await).await;
    source.check(json!({"highest": 6, "batches": 2, "refused_batches": 1, "missing": []})).await;
    source.viewed(async |source| source.accept(7).await).await;
    source.check(json!({"highest": 7, "batches": 3, "refused_batches": 1})).await;
}
