//! What a pipeline has recorded, as a test reads it from the server: whole streams, a frame's header by the decoder
//! of the simulation's auditor (the layout is in `schemas/frames.md`), and what must hold of any record.
//! Only the client that talks to the server is the pipeline's; none of its formats is read by its own code.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use jackpot_core::log::jetstream::{ConnectSettings, JetStream};
use jackpot_core::log::{Append, AppendError, Appender, Entry, Expect, Log, Reader};
use serde_json::Value;
use sim::auditor::books::hit;
use sim::auditor::record::{Header, hex, leaves, sha256};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::model::{self, Raw, list, pico, text};

/// A connection to the server of a pipeline.
pub struct Record {
    log: JetStream,
    handle: Handle,
    /// Ends the thread that drives the connection.
    _end: oneshot::Sender<()>,
}

impl Record {
    /// Connects.
    pub fn open(url: &str) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        let log = runtime.block_on(JetStream::connect(url, "test", &ConnectSettings::default())).unwrap();
        let (end, ended) = oneshot::channel::<()>();
        std::thread::spawn(move || runtime.block_on(ended));
        Self { log, handle, _end: end }
    }

    /// All messages of a stream that are there now.
    pub fn all(&self, stream: &str) -> Vec<Entry> {
        self.handle.block_on(async {
            let extent = self.log.extent(stream).await.unwrap();
            let mut entries: Vec<Entry> = Vec::new();
            let mut reader = self.log.read(stream, None, extent.first).await.unwrap();
            while extent.first + entries.len() as u64 <= extent.last {
                entries.push(reader.next().await.unwrap());
            }
            entries
        })
    }

    /// All messages of a stream of JSON.
    pub fn values(&self, stream: &str) -> Vec<Value> {
        self.all(stream).iter().map(json).collect()
    }

    /// How many messages a stream holds.
    pub fn count(&self, stream: &str) -> u64 {
        self.handle.block_on(self.log.extent(stream)).unwrap().last
    }

    /// The first message that a stream still holds.
    pub fn first(&self, stream: &str) -> u64 {
        self.handle.block_on(self.log.extent(stream)).unwrap().first
    }

    /// The last message of a stream on a subject.
    pub fn last(&self, stream: &str, subject: &str) -> Option<Entry> {
        self.handle.block_on(self.log.last(stream, subject)).unwrap()
    }

    /// Publishes a message, whatever it is, and waits for its acknowledgement.
    pub fn publish(&self, subject: &str, body: impl Into<Bytes>) {
        self.try_publish(subject, body).unwrap();
    }

    /// The same, where the server may refuse it.
    pub fn try_publish(&self, subject: &str, body: impl Into<Bytes>) -> Result<u64, AppendError> {
        let append = Append {
            subject: subject.into(),
            headers: Vec::new(),
            payload: body.into(),
            expect: Expect::Any,
        };
        self.handle.block_on(async {
            let mut appender = self.log.appender().await.unwrap();
            appender.send(append).await.unwrap();
            appender.acknowledged().await
        })
    }

    /// Asks the server's API; `None` where nobody answers in time.
    pub fn ask(&self, subject: &str) -> Option<Value> {
        let asked = self.log.client().request(subject.to_owned(), "".into());
        let answer =
            self.handle.block_on(async { timeout(Duration::from_secs(2), asked).await }).ok()?.ok()?;
        Some(serde_json::from_slice(&answer.payload).unwrap())
    }

    /// Removes a stream with all that it holds.
    pub fn delete(&self, stream: &str) {
        let subject = format!("$JS.API.STREAM.DELETE.{stream}");
        let answer = self.handle.block_on(self.log.client().request(subject, "".into())).unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        assert_eq!(answer["success"], true, "{answer}");
    }

    /// Runs the model over what was recorded under one revision of the terms.
    pub fn model(&self, terms: &Value) -> model::Outcome {
        let revisions = BTreeMap::from([(terms["revision"].as_u64().unwrap(), terms.clone())]);
        self.model_of(&revisions, |_, _| {})
    }

    /// Runs the model over what was recorded under these revisions; `committed` is shown what there is after each commit.
    pub fn model_of(
        &self,
        revisions: &BTreeMap<u64, Value>,
        committed: impl FnMut(&Value, &model::Outcome),
    ) -> model::Outcome {
        let raws = self.all("wagers").into_iter().map(|entry| Raw {
            position: entry.sequence,
            subject: entry.subject.into(),
            received_ms: entry.recorded_at.0,
            headers: entry.headers,
            body: entry.payload.into(),
        });
        let commits = self.values("commits");
        let partitions = list(&commits[0], "partitions").len();
        let frames: Vec<Vec<Header>> = (0..partitions)
            .map(|p| {
                self.all(&format!("allocations-{p}"))
                    .iter()
                    .map(|entry| Header::read(&entry.payload))
                    .collect()
            })
            .collect();
        let reach =
            |partition: usize, frame: u64| frames[partition][usize::try_from(frame).unwrap() - 1].position;
        let revisions: Vec<_> = revisions.values().cloned().collect();
        let outcome = model::follow(&revisions, &raws.collect::<Vec<_>>(), &commits, reach, committed);
        assert_eq!(outcome.left, 0, "all of every partition is committed");
        outcome
    }

    /// The leaves of all partitions' Merkle trees: one for each wager, and one for each batch refused whole.
    pub fn leaves(&self, partitions: u16) -> u64 {
        let last = |p| self.last(&format!("audit-{p}"), &format!("audit.{p}"));
        (0..partitions).filter_map(last).map(|entry| leaves(&entry.payload).0).sum()
    }
}

/// A message that is JSON.
pub fn json(entry: &Entry) -> Value {
    serde_json::from_slice(&entry.payload).unwrap()
}

/// Up to which ingress message a frame has read.
pub fn reach(frame: &[u8]) -> u64 {
    Header::read(frame).position
}

/// Each commit names the one before by its digest, and each frame that it consumed by that frame's.
pub fn assert_chained(record: &Record) {
    let commits = record.all("commits");
    let partitions = list(&json(&commits[0]), "partitions").len();
    let frames: Vec<BTreeMap<u64, String>> = (0..partitions)
        .map(|p| {
            let entries = record.all(&format!("contributions-{p}"));
            entries.iter().map(|entry| (entry.sequence, digest(&entry.payload))).collect()
        })
        .collect();
    let mut previous = "0".repeat(64);
    for (number, entry) in (1..).zip(&commits) {
        let commit = json(entry);
        assert_eq!((entry.sequence, &commit["commit"]), (number, &Value::from(number)));
        assert_eq!(text(&commit, "previous"), previous, "commit {number} follows the one before");
        previous = digest(&entry.payload);
        for (partition, consumed) in list(&commit, "partitions").iter().enumerate() {
            // Of frames that were trimmed there is nothing to compare.
            if let Some(digest) = frames[partition].get(&consumed["frame"].as_u64().unwrap()) {
                assert_eq!(text(consumed, "digest"), digest, "commit {number}");
            }
        }
    }
    let last = json(commits.last().unwrap());
    let consumed: Vec<_> = list(&last, "partitions").iter().map(|of| of["frame"].as_u64().unwrap()).collect();
    for (partition, frames) in (0..).zip(consumed) {
        for lane in ["validated", "geofenced", "allocations", "contributions", "audit"] {
            assert_eq!(
                record.count(&format!("{lane}-{partition}")),
                frames,
                "{lane}-{partition} is one to one"
            );
        }
    }
}

/// The views hold what the commits hold: every window and every hit in order, and of each level the last state. Where the
/// pipeline runs, they follow what it commits meanwhile.
pub fn assert_views(record: &Record, totals: &[Value]) {
    let before = ["windows", "hits"].map(|view| (view, record.count(view)));
    let commits = record.values("commits");
    for (view, before) in before {
        let committed: Vec<_> = commits.iter().flat_map(|commit| list(commit, view)).cloned().collect();
        let all = committed.len() as u64;
        assert!(before <= all, "no more {view} than are committed: {before} of {all}");
        let begun = Instant::now();
        while record.count(view) < all {
            assert!(begun.elapsed() < Duration::from_secs(10), "all {view} are in their view: {all}");
            std::thread::sleep(Duration::from_millis(20));
        }
        for (shown, committed) in record.values(view).into_iter().zip(committed) {
            assert_eq!(shown, committed, "a message of {view} is what was committed");
        }
    }
    let levels = commits.iter().flat_map(|commit| list(commit, "levels"));
    let last: BTreeMap<_, _> = levels.map(|level| (key(level), level)).collect();
    assert_eq!(totals.iter().collect::<Vec<_>>(), last.into_values().collect::<Vec<_>>());
}

/// The books of each level balance, to the last digit.
pub fn assert_balanced(totals: &[Value]) {
    for level in totals {
        let of = |field| pico(text(level, field));
        let held = of("contributed") + of("house") + of("adjusted") - of("paid");
        assert_eq!(funds(level), held, "the books of {level} balance");
    }
}

/// The windows of each length are a chain of openings and closings, add up to the totals, and each one's shares
/// add up to it. All of them must be closed.
pub fn assert_windows_add_up(windows: &[Value], totals: &[Value]) {
    let mut chains: BTreeMap<(u64, (String, String)), Vec<&Value>> = BTreeMap::new();
    for window in windows {
        let (seconds, start) =
            (window["seconds"].as_u64().unwrap(), model::millis(&window["window_start"]).unwrap());
        let length = i64::try_from(seconds).unwrap() * 1_000;
        assert_eq!(start % length, 0, "{window} begins at a multiple of its length");
        assert_eq!(model::millis(&window["window_end"]), Some(start + length));
        assert_shares(window, seconds);
        chains.entry((seconds, key(window))).or_default().push(window);
    }
    for total in totals {
        for seconds in [1, 60, 3_600] {
            let mut chain = chains.remove(&(seconds, key(total))).unwrap_or_default();
            chain.sort_by_key(|window| model::millis(&window["window_start"]));
            assert_chain(&chain, total, seconds);
        }
    }
    assert!(chains.is_empty(), "every window belongs to a level that has totals");
}

fn assert_chain(chain: &[&Value], total: &Value, seconds: u64) {
    let what = format!("windows of {seconds} s of {:?}", key(total));
    let mut opening = 0;
    for window in chain {
        let of = |field| pico(text(window, field));
        assert_eq!(of("opening"), opening, "{what}: {window}");
        opening += of("contributed") + of("house") + of("adjusted") - of("paid");
        assert_eq!(of("closing"), opening, "{what}: {window}");
    }
    assert!(
        chain.is_sorted_by(|a, b| text(a, "window_end") <= text(b, "window_start")),
        "{what} do not overlap"
    );
    assert_eq!(opening, funds(total), "{what}: the last one closes with what the level holds");
    for field in ["wagered", "contributed", "paid", "house", "adjusted"] {
        let sum: i128 = chain.iter().map(|window| pico(text(window, field))).sum();
        assert_eq!(sum, pico(text(total, field)), "{what}: {field}");
    }
    for field in ["wagers", "hits"] {
        let sum: u64 = chain.iter().map(|window| window[field].as_u64().unwrap()).sum();
        assert_eq!(Some(sum), total[field].as_u64(), "{what}: {field}");
    }
}

fn assert_shares(window: &Value, seconds: u64) {
    let breakdowns: &[&str] = match seconds {
        1 => &["by_operator", "by_jurisdiction"],
        _ => &["by_operator", "by_jurisdiction", "by_game", "by_operator_jurisdiction"],
    };
    for by in breakdowns {
        let shares: Vec<_> = window[*by].as_object().unwrap().values().collect();
        let wagers: u64 = shares.iter().map(|share| share["wagers"].as_u64().unwrap()).sum();
        assert_eq!(Some(wagers), window["wagers"].as_u64(), "{by} of {window}");
        for field in ["wagered", "contributed"] {
            let sum: i128 = shares.iter().map(|share| pico(text(share, field))).sum();
            assert_eq!(sum, pico(text(window, field)), "{field} {by} of {window}");
        }
    }
}

/// The record, and what the command shows of it with `--json`, are what the model says, to the last digit; gives the
/// totals.
pub fn assert_exact(
    record: &Record,
    outcome: &model::Outcome,
    json: impl Fn(&[&str]) -> Vec<Value>,
) -> Vec<Value> {
    let totals = json(&["totals"]);
    assert_modelled(outcome, &totals, &json(&["refusals"]));
    let mut hits = json(&["hits"]);
    hits.sort_by_key(|hit| (hit["commit"].as_u64(), hit["order"].as_u64()));
    assert_hits_modelled(outcome, &hits);
    assert_balanced(&totals);
    assert_chained(record);
    assert_views(record, &totals);
    totals
}

/// Totals and refusals are those of the model, to the last digit.
pub fn assert_modelled(outcome: &model::Outcome, totals: &[Value], refusals: &[Value]) {
    let expect: Vec<_> = outcome.levels.iter().map(|(name, level)| (name.clone(), amounts(level))).collect();
    let got: Vec<_> = totals.iter().map(|total| (key(total), shown(total))).collect();
    assert_eq!(got, expect, "the totals are those of the model");
    let id = |refusal: &Value| match (refusal["wager"].as_str(), refusal["batch"].as_str()) {
        (Some(id), None) | (None, Some(id)) => id.to_owned(),
        _ => panic!("{refusal} names a wager or a batch"),
    };
    let mut got: Vec<_> =
        refusals.iter().map(|refusal| (id(refusal), text(refusal, "reason").to_owned())).collect();
    got.sort();
    let differ = got.iter().zip(&outcome.refusals).find(|(got, expect)| got != expect);
    assert_eq!(differ, None, "the refusals are those of the model");
    assert_eq!(got.len(), outcome.refusals.len());
}

/// The hits are those of the model, in its order.
pub fn assert_hits_modelled(outcome: &model::Outcome, hits: &[Value]) {
    let got: Vec<_> = hits.iter().map(hit).collect();
    assert_eq!(got, outcome.hits);
}

/// Every field that the model has.
const FIELDS: [&str; 9] =
    ["current", "reserve", "diversion", "wagers", "wagered", "contributed", "paid", "house", "hits"];

fn amounts(level: &model::Level) -> Vec<(&'static str, i128)> {
    let values = [
        level.current,
        level.reserve,
        level.diversion,
        level.wagers.into(),
        level.wagered,
        level.contributed,
        level.paid,
        level.house,
        level.hits.into(),
    ];
    FIELDS.into_iter().zip(values).collect()
}

fn shown(total: &Value) -> Vec<(&'static str, i128)> {
    let value = |field: &str| match &total[field] {
        Value::String(amount) => pico(amount),
        count => count.as_u64().unwrap_or_else(|| panic!("{field} of {total} is a count")).into(),
    };
    FIELDS.into_iter().map(|field| (field, value(field))).collect()
}

/// What a level holds.
fn funds(total: &Value) -> i128 {
    ["current", "reserve", "diversion"].into_iter().map(|field| pico(text(total, field))).sum()
}

fn key(value: &Value) -> (String, String) {
    (text(value, "pool").into(), text(value, "level").into())
}

fn digest(bytes: &[u8]) -> String {
    hex(&sha256(bytes))
}
