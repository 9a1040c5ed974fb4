//! Several processes of each stage on a real server, under load: more of them join, are told to leave, are killed, and
//! sleep while others take over. What comes out is what the model says, shares stay even, and no frame waits for long.
//! The stages' binaries must be built: `cargo build --workspace`.

#![expect(clippy::unwrap_used, reason = "a check that cannot go on has failed")]

#[allow(dead_code, reason = "each test crate uses a part of what they share")]
#[path = "support/shared.rs"]
mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use jackpot_core::log::Entry;
use serde_json::Value;
use tokio::time::Instant;

use support::input;
use support::model::text;
use support::pipeline::{Pipeline, signal, until};
use support::record::{self, Record, reach};

const JACKPOT: &str = env!("CARGO_BIN_EXE_jackpot");
const PARTITIONS: u64 = 4;
/// The stages that share partitions, and how many processes of each `jackpot up` runs.
const STAGES: [(&str, usize); 4] = [("validate", 2), ("geofence", 2), ("allocate", 3), ("audit", 2)];
/// How long one is asleep: much longer than it takes until others take over.
const ASLEEP: Duration = Duration::from_secs(15);
/// How long two processes contend for the same partition.
const CONTEST: Duration = Duration::from_secs(15);
/// How long a frame may wait at most, over the whole test: five seconds until somebody who is dead or asleep counts as
/// gone, and the rest for a machine that other tests share.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// A process beside those of `jackpot up`, or the load; killed when it is dropped.
struct Extra(Child);

impl Extra {
    fn stage(pipeline: &Pipeline, stage: &str, args: &[&str]) -> Self {
        let mut command = Command::new(Path::new(JACKPOT).with_file_name(stage));
        command.args(["--metrics-port", "0"]).args(args).env("NATS_URL", &pipeline.url);
        Self(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Traffic until this is dropped.
    fn load(pipeline: &Pipeline) -> Self {
        let mut command = Command::new(JACKPOT);
        command.args(["load", "--rate", "400", "--seconds", "600", "--seed", "5"]);
        command.env("NATS_URL", &pipeline.url).stdin(Stdio::null()).stdout(Stdio::null());
        Self(command.stderr(Stdio::null()).spawn().unwrap())
    }

    /// Ends it as Kubernetes does.
    fn end(mut self) {
        signal("TERM", self.0.id());
        assert_eq!(self.0.wait().unwrap().code(), Some(143));
    }
}

impl Drop for Extra {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }
}

/// How many partitions each process of a stage is at work on; `None` where one has not exactly one owner.
fn loads(pipeline: &Pipeline, stage: &str) -> Option<BTreeMap<String, usize>> {
    let output =
        Command::new(JACKPOT).args(["status", "--json"]).env("NATS_URL", &pipeline.url).output().unwrap();
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).ok()?;
    let mut loads = BTreeMap::new();
    let of_stage = |row: &&Value| text(row, "stage") == stage && text(row, "part").starts_with("partition ");
    for row in rows.iter().filter(of_stage) {
        let owners: Vec<_> = row["owners"].as_array()?.iter().filter_map(Value::as_str).collect();
        let [owner] = owners[..] else { return None };
        *loads.entry(owner.to_owned()).or_default() += 1;
    }
    Some(loads)
}

/// Waits until so many processes of a stage share the partitions evenly; gives how long that took.
fn wait_even(pipeline: &Pipeline, stage: &str, processes: usize) -> Duration {
    let begun = Instant::now();
    until(&format!("{processes} processes of {stage} have equal shares"), || {
        let Some(loads) = loads(pipeline, stage) else { return false };
        let (most, least) = (loads.values().max(), loads.values().min());
        let even = most.zip(least).is_some_and(|(most, least)| most - least <= 1);
        even && loads.len() == processes && loads.values().sum::<usize>() as u64 == PARTITIONS
    });
    begun.elapsed()
}

/// What a stage reads and writes, of a partition.
fn legs(stage: &str, partition: u64) -> (String, String) {
    let (input, output) = match stage {
        "validate" => return ("wagers".into(), format!("validated-{partition}")),
        "geofence" => ("validated", "geofenced"),
        "allocate" => ("geofenced", "allocations"),
        _ => ("allocations", "audit"),
    };
    (format!("{input}-{partition}"), format!("{output}-{partition}"))
}

/// The longest time in milliseconds from a message of a stage's input, received in this span, to what became of it.
fn longest_wait(record: &Record, stage: &str, span: std::ops::Range<i64>) -> i64 {
    let (mut longest, mut seen) = (0, 0);
    for partition in 0..PARTITIONS {
        let (input, output) = legs(stage, partition);
        let own =
            |entry: &Entry| input != "wagers" || entry.subject.starts_with(&format!("lane.{partition}."));
        let batch = |entry: &Entry| !entry.subject.ends_with(".terms");
        let outputs = record.all(&output);
        let mut outputs = outputs.iter().peekable();
        for entry in record.all(&input).iter().filter(|entry| own(entry) && batch(entry)) {
            let covers = |made: &Entry| match input.as_str() {
                "wagers" => reach(&made.payload) >= entry.sequence,
                _ => made.sequence >= entry.sequence,
            };
            while outputs.next_if(|made| !covers(made)).is_some() {}
            if span.contains(&entry.recorded_at.0) {
                let made = outputs.peek().unwrap_or_else(|| panic!("{output} covers {}", entry.sequence));
                longest = longest.max(made.recorded_at.0 - entry.recorded_at.0);
                seen += 1;
            }
        }
    }
    assert!(seen > 0, "{stage} had something to do");
    longest
}

fn now() -> i64 {
    jackpot_core::time::Millis::now().0
}

#[test]
fn nats_processes_join_leave_die_and_sleep_under_load() {
    let terms = input::example_terms();
    let directory = tempfile::tempdir().unwrap();
    let counts: Vec<_> = STAGES.iter().map(|(stage, count)| format!("{stage}={count}")).collect();
    let flags = ["--partitions", "4", "--sync", "relaxed", "--processes", &counts.join(",")];
    let pipeline = Pipeline::start(directory.path(), &flags, &[]);
    let listening = pipeline.said.iter().filter(|line| line.ends_with("/metrics")).count();
    assert_eq!(listening, 10, "each process says where it listens: {:?}", pipeline.said);
    let load = Extra::load(&pipeline);
    let more = |stage| Extra::stage(&pipeline, stage, &[]);
    for (stage, count) in STAGES {
        wait_even(&pipeline, stage, count);
    }

    // One more of each joins, and leaves when it is told to.
    let joined = STAGES.map(|(stage, _)| more(stage));
    for (stage, count) in STAGES {
        wait_even(&pipeline, stage, count + 1);
    }
    let mut leaves = Vec::new();
    for (extra, (stage, count)) in joined.into_iter().zip(STAGES) {
        let begun = now();
        extra.end();
        wait_even(&pipeline, stage, count);
        leaves.push((stage, begun - 100..now()));
    }

    // One is killed, and nobody starts it again.
    let joined = ["validate", "geofence"].map(|stage| (stage, more(stage)));
    for (stage, _) in &joined {
        wait_even(&pipeline, stage, 3);
    }
    for (stage, extra) in joined {
        drop(extra);
        println!("{stage}: shares are even {:?} after a kill -9", wait_even(&pipeline, stage, 2));
    }

    // One falls asleep and wakes up, believing that nothing has changed.
    let joined = [("validate", 2, more("validate")), ("allocate", 3, more("allocate"))];
    for (stage, count, _) in &joined {
        wait_even(&pipeline, stage, count + 1);
    }
    let asleep = Instant::now();
    for (stage, count, extra) in &joined {
        signal("STOP", extra.0.id());
        // It cannot say that it is at work; it is to be seen that others are.
        wait_even(&pipeline, stage, *count);
    }
    until("they have slept", || asleep.elapsed() >= ASLEEP);
    for (stage, count, extra) in &joined {
        signal("CONT", extra.0.id());
        println!("{stage}: shares are even {:?} after waking up", wait_even(&pipeline, stage, count + 1));
    }
    joined.into_iter().for_each(|(.., extra)| extra.end());

    // Two have the same partitions, neither of which ever waits.
    let rivals =
        STAGES.map(|(stage, _)| Extra::stage(&pipeline, stage, &["--only", "0,1", "--stand-by", "0s"]));
    let begun = Instant::now();
    until("they have contended", || begun.elapsed() >= CONTEST);
    rivals.into_iter().for_each(Extra::end);

    drop(load);
    pipeline.wait();
    for (stage, count) in STAGES {
        wait_even(&pipeline, stage, count);
    }
    let record = Record::open(&pipeline.url);
    for (stage, span) in leaves {
        println!("{stage}: the longest wait at a clean leave is {} ms", longest_wait(&record, stage, span));
    }
    for (stage, _) in STAGES {
        let longest = longest_wait(&record, stage, 0..i64::MAX);
        println!("{stage}: the longest wait of all is {longest} ms");
        assert!(u128::from(longest.unsigned_abs()) < WAIT_MAX.as_millis(), "{stage}: {longest} ms");
    }
    assert_exact(&pipeline, &record, &terms);
    pipeline.stop();
}

/// What came out is what the model says.
fn assert_exact(pipeline: &Pipeline, record: &Record, terms: &Value) {
    let outcome = record.model(terms);
    assert!(outcome.allocated > 5_000, "there was load: {}", outcome.allocated);
    record::assert_exact(record, &outcome, |args| pipeline.json(args));
}
