//! `jackpot verify`, `explain` and `frame` against a small real pipeline, and `verify` against tampered copies of its
//! streams: each change that is made is found, where it was made.
#![expect(clippy::unwrap_used, reason = "a test says by its panic where it went wrong")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use jackpot::verify::findings::{Check, Findings};
use jackpot::verify::verify;
use jackpot::{server, streams};
use jackpot_core::digest::Digest;
use jackpot_core::frame::allocations::Allocations;
use jackpot_core::frame::audited::Audited;
use jackpot_core::frame::batch::{Accepted, Verdict};
use jackpot_core::frame::contributions::{Contributions, Posting};
use jackpot_core::frame::geofenced::Geofenced;
use jackpot_core::frame::{Body, Frame};
use jackpot_core::log::jetstream::JetStream;
use jackpot_core::log::jetstream::setup::{self, SetUp};
use jackpot_core::log::memory::Memory;
use jackpot_core::log::{Append, Appender, Entry, Expect, Log};
use jackpot_core::refusal::Reason;
use jackpot_core::time::Millis;
use jackpot_core::topology::Lane;
use serde_json::{Value, json};

#[path = "support/pipeline.rs"]
#[allow(dead_code, reason = "only what is done to processes is of use here")]
mod processes;

const JACKPOT: &str = env!("CARGO_BIN_EXE_jackpot");
const PARTITIONS: u16 = 2;

/// A running `jackpot up`.
struct Pipeline {
    up: Child,
    url: String,
}

impl Pipeline {
    fn start(dir: &Path, terms: &Path, settings: &[(&str, &str)]) -> Self {
        let mut up = Command::new(JACKPOT);
        up.envs(settings.iter().copied());
        up.arg("up").args(["--nats-port", "0", "--metrics-port", "0", "--sync", "relaxed"]);
        up.args(["--partitions", &PARTITIONS.to_string()]).arg("--dir").arg(dir.join("data"));
        up.arg("--terms").arg(terms).env_remove("NATS_URL").stdin(Stdio::null()).stdout(Stdio::piped());
        let mut up = up.spawn().expect("`jackpot up` starts");
        let mut url = None;
        for line in BufReader::new(up.stdout.take().unwrap()).lines().map_while(Result::ok) {
            if let Some(found) = line.split_whitespace().find(|word| word.starts_with("nats://")) {
                url.get_or_insert(found.to_owned());
            }
            if line == "ready" {
                break;
            }
        }
        Self { up, url: url.expect("`jackpot up` says where the server is before it is ready") }
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new(JACKPOT).args(args).env("NATS_URL", &self.url).output().expect("the command runs")
    }

    /// Runs a command that must succeed; gives its standard output.
    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {error}{}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stdout).unwrap()
    }

    fn fails(&self, args: &[&str], code: i32, says: &str) {
        let output = self.run(args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
        assert!(error.contains(says), "{args:?} should say {says:?}: {error}");
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(args)).expect("JSON")
    }

    /// kill -9 of a stage; returns when another process has taken its place.
    fn kill(&self, stage: &str) {
        let process = || processes::child(self.up.id(), stage);
        let killed = process().expect("the stage runs");
        processes::signal("KILL", killed);
        processes::until("the stage is started again", || process().is_some_and(|now| now != killed));
    }

    async fn log(&self) -> JetStream {
        server::connect(&self.url, &server::Credentials::default(), Duration::from_secs(5)).await.unwrap()
    }

    fn publish(&self, dir: &Path, lines: &[String]) {
        let file = dir.join("batches");
        std::fs::write(&file, lines.join("\n")).unwrap();
        self.ok(&["publish", file.to_str().unwrap()]);
        self.ok(&["wait"]);
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        let pid = self.up.id().to_string();
        let stopped = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(stopped.is_ok() && self.up.wait().is_ok(), "`jackpot up` stops");
    }
}

/// The terms: rates of `mega/minor` change with revision 2, which waits for its next hit; and there is a new pool.
fn terms(revision: u64) -> String {
    let mut pools = vec![json!({
        "pool": "mega", "currency": "EUR", "jurisdictions": ["MT", "SE"], "min_wager": "0.10", "max_wager": "100",
        "levels": [
            {"level": "grand", "base": "1000", "ceiling": "1000.02", "increment_ppm": 3000, "reserve_ppm": 1000},
            {"level": "minor", "base": "10", "increment_ppm": if revision == 1 { 6750 } else { 9000 },
             "reserve_ppm": 2250}
        ]
    })];
    if revision > 1 {
        pools.push(json!({
            "pool": "extra", "currency": "SEK", "operators": ["fjord"], "jurisdictions": ["SE"],
            "levels": [{"level": "only", "base": "5", "increment_ppm": 10_000}]
        }));
    }
    json!({
        "schema": "terms/1", "revision": revision,
        "jurisdictions": [{"code": "MT", "status": "permitted"}, {"code": "SE", "status": "permitted"}],
        "operators": [{"operator": "acme", "jurisdictions": ["MT", "SE"]}, {"operator": "fjord", "jurisdictions": ["SE"]}],
        "sources": [{"source": "acme-1", "operator": "acme"}, {"source": "acme-2", "operator": "acme"},
                    {"source": "fjord-1", "operator": "fjord"}],
        "games": [{"game": "spin", "supplier": "north"}, {"game": "dice", "supplier": "south"}],
        "exchange_rates": [{"from": "GBP", "to": "EUR", "rate": "1.176471"}, {"from": "SEK", "to": "EUR", "rate": "0.09"}],
        "pools": pools
    })
    .to_string()
}

/// A wager of the session `s`, with these fields over the usual ones.
fn wager(interaction: u64, over: &Value) -> Value {
    let now = Millis::now();
    let mut wager = json!({
        "session": "s", "interaction": interaction, "player": "p", "game": "spin", "round": format!("r{interaction}"),
        "amount": "2.50", "currency": "EUR", "funds": "cash", "occurred_at": now.to_string(),
        "location": {"jurisdiction": "MT", "checked_at": now.to_string()}
    });
    for (field, value) in over.as_object().unwrap() {
        wager[field] = value.clone();
    }
    wager
}

fn batch(operator: &str, source: &str, sequence: u64, first: u64, wagers: &[Value]) -> String {
    let wagers: Vec<_> = (first..).zip(wagers).map(|(number, over)| wager(number, over)).collect();
    json!({"schema": "wager-batch/1", "operator": operator, "source": source, "sequence": sequence, "wagers": wagers})
        .to_string()
}

/// Everything that the proof has to deal with: refusals of every stage, repeats, hits, a ceiling, a change of terms.
fn publish_all(pipeline: &Pipeline, dir: &Path) {
    let now = Millis::now();
    let hits = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(pool, level)| json!({"pool": pool, "level": level})).collect::<Vec<_>>()
    };
    let first = batch(
        "acme",
        "acme-1",
        1,
        1,
        &[
            json!({}),
            json!({"amount": "10.01", "currency": "GBP"}),
            json!({"amount": "1.2345678"}),
            json!({"location": {"jurisdiction": "FR", "checked_at": now.to_string()}}),
            json!({"game": "chess"}),
            json!({"hits": hits(&[("mega", "minor"), ("mega", "grand")])}),
            json!({"hits": hits(&[("none", "minor"), ("mega", "minor"), ("mega", "minor")])}),
            json!({"amount": "150"}),
            json!({"funds": "bonus", "occurred_at": now.plus(-7_200_000).to_string(),
                   "location": {"jurisdiction": "MT", "checked_at": now.plus(-7_200_000).to_string()}}),
        ],
    );
    let conflict = batch("acme", "acme-1", 1, 50, &[json!({})]);
    let malformed = json!({"operator": "acme", "source": "acme-1"}).to_string();
    let unknown = batch("acme", "acme-9", 1, 1, &[json!({})]);
    let fjord = batch(
        "fjord",
        "fjord-1",
        7,
        1,
        &[json!({"location": {"jurisdiction": "SE",
        "checked_at": now.to_string()}, "currency": "SEK", "amount": "12.345678"})],
    );
    pipeline.publish(dir, &[first.clone(), fjord, first, conflict, malformed, unknown]);

    let file = dir.join("terms-2.json");
    std::fs::write(&file, terms(2)).unwrap();
    pipeline.ok(&["terms", "apply", file.to_str().unwrap()]);
    let second =
        [json!({"amount": "5"}), json!({"hits": hits(&[("mega", "minor")])}), json!({"amount": "5"})];
    pipeline.publish(dir, &[batch("acme", "acme-1", 3_000, 100, &second)]);
    pipeline.ok(&["load", "--rate", "400", "--seconds", "2"]);
    pipeline.ok(&["wait"]);
}

/// All streams, as they are stored.
type Streams = BTreeMap<String, Vec<Entry>>;

/// Copies the streams, the last of the flow first, so that what is written meanwhile lags and never leads.
async fn copy(log: &JetStream) -> Streams {
    let lanes = |lane: Lane| (0..PARTITIONS).map(move |partition| lane.stream(partition));
    let mut names: Vec<String> = ["totals", "hits", "windows"].map(String::from).into();
    names.extend(lanes(Lane::Audit));
    names.extend(["refusals", "commits"].map(String::from));
    for lane in [Lane::Contributions, Lane::Allocations, Lane::Geofenced, Lane::Validated] {
        names.extend(lanes(lane));
    }
    names.extend(["wagers", "terms"].map(String::from));
    let mut all = Streams::new();
    for name in names {
        let mut entries = Vec::new();
        let take = |entry| {
            entries.push(entry);
            Ok(())
        };
        streams::each(log, &name, ">", take).await.unwrap();
        all.insert(name, entries);
    }
    all
}

/// The first entries of the lanes that were trimmed.
fn trimmed(all: &Streams) -> impl Iterator<Item = &Entry> {
    let lanes = [Lane::Validated, Lane::Geofenced, Lane::Contributions];
    let streams =
        lanes.into_iter().flat_map(|lane| (0..PARTITIONS).map(move |partition| lane.stream(partition)));
    streams.filter_map(|stream| all[&stream].first()).filter(|entry| entry.sequence > 1)
}

/// A log that holds these streams.
async fn held(all: &Streams) -> Memory {
    let clock = Arc::new(AtomicI64::new(0));
    let now = Arc::clone(&clock);
    let memory =
        Memory::new(setup::streams(&SetUp::new(PARTITIONS)), move || Millis(now.load(Ordering::Relaxed)));
    let mut appender = memory.appender().await.unwrap();
    for entry in trimmed(all) {
        // Something must stand there first.
        let (subject, payload) = (entry.subject.to_string(), Bytes::new());
        for _ in 1..entry.sequence {
            let (subject, payload) = (subject.clone(), payload.clone());
            appender
                .send(Append { subject, headers: Vec::new(), payload, expect: Expect::Any })
                .await
                .unwrap();
            appender.acknowledged().await.unwrap();
        }
        memory.trim(&subject.replace('.', "-"), None, entry.sequence).await.unwrap();
    }
    for entry in all.values().flatten() {
        clock.store(entry.recorded_at.0, Ordering::Relaxed);
        let words: Vec<_> = entry.subject.split('.').collect();
        let subject = match words[..] {
            ["lane", _, operator, source] => format!("wagers.{operator}.{source}"),
            _ => entry.subject.to_string(),
        };
        let (headers, payload) = (entry.headers.clone(), entry.payload.clone());
        appender.send(Append { subject, headers, payload, expect: Expect::Any }).await.unwrap();
        appender.acknowledged().await.unwrap();
    }
    memory
}

/// Changes a copy, and expects that the proof finds it, where it was made.
async fn check(all: &Streams, what: &str, change: impl FnOnce(&mut Streams) -> Expected) {
    let mut changed = all.clone();
    let expected = change(&mut changed);
    let findings = verify(&held(&changed).await, false).await.expect("a proof comes to its end");
    let found = findings.told().iter().any(|fault| {
        fault.check == expected.check
            && (&*fault.place.stream, fault.place.sequence) == (&*expected.stream, expected.sequence)
            && expected.wager.as_ref().is_none_or(|wager| fault.place.wager.as_ref() == Some(wager))
    });
    assert!(found, "{what}: {expected:?} is not among\n{}", told(&findings));
}

/// What must be found.
#[derive(Debug)]
struct Expected {
    check: Check,
    stream: String,
    sequence: u64,
    wager: Option<String>,
}

fn expect(check: Check, stream: &str, sequence: u64) -> Expected {
    Expected { check, stream: stream.into(), sequence, wager: None }
}

impl Expected {
    fn about(self, wager: impl Into<String>) -> Self {
        Self { wager: Some(wager.into()), ..self }
    }
}

fn told(findings: &Findings) -> String {
    let mut text = Vec::new();
    findings.text(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

/// Changes the first frame of a lane that `change` takes, which says so by giving something.
fn change_frame<B: Body, T>(
    all: &mut Streams,
    lane: Lane,
    mut change: impl FnMut(&mut B) -> Option<T>,
) -> (String, u64, T) {
    for partition in 0..PARTITIONS {
        let stream = lane.stream(partition);
        for entry in all.get_mut(&stream).unwrap() {
            let mut frame = Frame::<B>::decode(&entry.payload).unwrap();
            if let Some(taken) = change(&mut frame.body) {
                entry.payload = frame.encode();
                return (stream, entry.sequence, taken);
            }
        }
    }
    panic!("no frame of {} is fit to be changed", lane.as_str());
}

/// The accepted batches of a frame, each with its id.
fn accepted(
    body: &mut Allocations,
) -> impl Iterator<Item = (String, &mut Accepted<jackpot_core::frame::allocations::Allocation>)> {
    let Allocations { symbols, batches } = body;
    batches.iter_mut().filter_map(|batch| match &mut batch.verdict {
        Verdict::Accepted(accepted) => {
            Some((format!("{}/{}", symbols.name(batch.source), accepted.sequence), accepted))
        }
        Verdict::Refused(_) => None,
    })
}

/// Changes the first JSON message of a stream that `change` takes; gives its sequence.
fn change_json(all: &mut Streams, stream: &str, mut change: impl FnMut(&mut Value) -> bool) -> u64 {
    for entry in all.get_mut(stream).unwrap() {
        let Ok(mut value) = serde_json::from_slice(&entry.payload) else { continue };
        if change(&mut value) {
            entry.payload = Bytes::from(value.to_string());
            return entry.sequence;
        }
    }
    panic!("no message of {stream} is fit to be changed");
}

#[test]
fn nats_honest_streams_are_proved_and_tampered_ones_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let first = dir.path().join("terms-1.json");
    std::fs::write(&first, terms(1)).unwrap();
    let pipeline = Pipeline::start(dir.path(), &first, &[]);
    publish_all(&pipeline, dir.path());

    honest(&pipeline, &["verify"]);
    honest(&pipeline, &["verify", "--deep"]);
    explained(&pipeline);
    framed(&pipeline);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let all = copy(&pipeline.log().await).await;
        let findings = verify(&held(&all).await, true).await.unwrap();
        assert_eq!(findings.faults(), 0, "the copy is honest:\n{}", told(&findings));
        tampered_frames(&all).await;
        tampered_records(&all).await;
    });
}

/// What is stored is proved; gives what was trimmed of it: stream, frames, and of how many the digest was found.
fn honest(pipeline: &Pipeline, verify: &[&str]) -> Vec<(String, u64, u64)> {
    let text = pipeline.ok(verify);
    assert!(text.ends_with("\nverified\n") && text.lines().all(|line| line.chars().count() <= 100), "{text}");
    let report = pipeline.json(&[verify, &["--json"]].concat());
    assert_eq!((&report["verified"], &report["faults"]), (&json!(true), &json!(0)));
    for line in report["checks"].as_array().unwrap() {
        assert_ne!(line["counted"], 0, "each check has something to look at: {line}");
    }
    let trimmed = report["trimmed"].as_array().unwrap().iter().map(|of| {
        let count = |field: &str| of[field].as_u64().unwrap();
        (of["stream"].as_str().unwrap().to_owned(), count("frames"), count("proved"))
    });
    trimmed.collect()
}

/// Snapshots are taken often, and stages are killed: lanes are trimmed, and what was in them is proved and explained
/// all the same.
#[test]
fn nats_trimmed_lanes_are_proved_and_explained() {
    let dir = tempfile::tempdir().unwrap();
    let first = dir.path().join("terms-1.json");
    std::fs::write(&first, terms(1)).unwrap();
    let pipeline = Pipeline::start(dir.path(), &first, &[("JACKPOT_SNAPSHOT_BYTES", "4096")]);
    publish_all(&pipeline, dir.path());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let log = runtime.block_on(pipeline.log());
    let place = pipeline.json(&["explain", "acme-1/1/5", "--json"])["frame"].clone();
    let place = |field: &str| place[field].as_u64().unwrap();
    let (partition, frame) = (u16::try_from(place("partition")).unwrap(), place("frame"));
    let trimmed_lanes = [Lane::Validated, Lane::Geofenced, Lane::Contributions];
    // Behind the change of terms, too.
    let is_trimmed = || {
        trimmed_lanes.into_iter().all(|lane| {
            let extent = runtime.block_on(log.extent(&lane.stream(partition))).unwrap();
            extent.first > frame + 20
        })
    };
    for stage in processes::STAGES.into_iter().cycle().take(20) {
        std::thread::scope(|scope| {
            let load = scope.spawn(|| pipeline.ok(&["load", "--rate", "400", "--seconds", "2"]));
            std::thread::sleep(Duration::from_millis(500));
            pipeline.kill(stage);
            // What is written, and trimmed, while a proof runs is no fault.
            honest(&pipeline, &["verify"]);
            load.join().unwrap();
        });
        pipeline.ok(&["wait"]);
        if is_trimmed() && stage == "audit" {
            break;
        }
    }
    assert!(is_trimmed(), "lanes are trimmed");

    let trimmed = honest(&pipeline, &["verify"]);
    for lane in trimmed_lanes {
        let stream = lane.stream(partition);
        let of = trimmed.iter().find(|(of, ..)| *of == stream).unwrap();
        let proved = if lane == Lane::Contributions { of.1 } else { 0 };
        assert!(of.1 >= frame + 20 && of.2 == proved, "{of:?}");
    }
    let deep = honest(&pipeline, &["verify", "--deep"]);
    assert!(deep.len() >= 3 && deep.iter().all(|(_, frames, proved)| frames == proved), "{deep:?}");

    explained(&pipeline);
    let text = pipeline.ok(&["explain", "acme-1/1/5"]);
    assert!(text.contains("trimmed, since no stage needs it any more"), "{text}");
    assert!(text.contains("2.5 EUR, cash, on spin"), "{text}");
    for lane in trimmed_lanes {
        let stream = lane.stream(partition);
        let instead = format!("see `jackpot frame allocations-{partition} {frame}`");
        pipeline.fails(&["frame", &stream, &frame.to_string()], 1, &instead);
    }
    pipeline.ok(&["frame", &Lane::Allocations.stream(partition), &frame.to_string()]);

    runtime.block_on(async {
        let all = copy(&log).await;
        let findings = verify(&held(&all).await, true).await.unwrap();
        assert_eq!(findings.faults(), 0, "the copy is honest:\n{}", told(&findings));
        tampered_behind_the_trimmed(&all).await;
        trimmed_records(&all).await;
        a_hole(&pipeline, &log, &Lane::Validated.stream(partition)).await;
    });
}

/// What the ledger was given can be written again from the allocations alone: whoever changes these is found by the
/// digests in the commits, also where all that is left fits together.
async fn tampered_behind_the_trimmed(all: &Streams) {
    check(all, "a wager counts with more than it should, and nothing is chained anew", |all| {
        let (stream, frame, id) = change_frame(all, Lane::Allocations, more);
        expect(Check::Allocations, &stream, frame).about(id)
    })
    .await;

    let mut changed = all.clone();
    let (stream, frame, id) = change_frame(&mut changed, Lane::Allocations, more);
    chain_frames::<Allocations>(&mut changed, &stream);
    let partition: usize = stream.rsplit('-').next().unwrap().parse().unwrap();
    let commit = consuming(all, partition, frame);
    let findings = verify(&held(&changed).await, false).await.unwrap();
    let of_commits: Vec<_> = findings.told().iter().filter(|fault| fault.check == Check::Commits).collect();
    let found = matches!(of_commits[..], [fault] if fault.place.sequence == commit
        && fault.what.ends_with("is not the one that it consumed, as the allocations give it"));
    assert!(found, "{id} counts with more: commit {commit} alone tells\n{}", told(&findings));

    let mut changed = all.clone();
    let entry = &mut changed.get_mut(&stream).unwrap()[2];
    let mut other = Frame::<Allocations>::decode(&entry.payload).unwrap();
    other.header.input = Digest::ZERO;
    entry.payload = other.encode();
    chain_frames::<Allocations>(&mut changed, &stream);
    let findings = verify(&held(&changed).await, true).await.unwrap();
    let geofenced = stream.replace("allocations", "geofenced");
    let found = findings.told().iter().any(|fault| {
        (&*fault.place.stream, fault.place.sequence) == (&*geofenced, 3)
            && fault.what.starts_with("computed again from wagers it is another frame")
    });
    assert!(found, "the allocations name another frame\n{}", told(&findings));
}

/// The commit that consumed a frame of a partition.
fn consuming(all: &Streams, partition: usize, frame: u64) -> u64 {
    let consumed = |entry: &&Entry| {
        let commit: Value = serde_json::from_slice(&entry.payload).unwrap();
        commit["partitions"][partition]["frame"].as_u64() >= Some(frame)
    };
    all["commits"].iter().find(consumed).expect("the frame is committed").sequence
}

/// The first wager that takes part in a pool counts with more.
fn more(body: &mut Allocations) -> Option<String> {
    accepted(body).find_map(|(id, accepted)| {
        let allocation = accepted.wagers.iter_mut().find(|of| !of.participations.is_empty())?;
        allocation.wager.amount.0 += 1;
        allocation.participations[0].eligible.0 += 1;
        Some(format!("{id}/{}", allocation.wager.index))
    })
}

/// Makes each frame name the one before, as whoever changes one would.
fn chain_frames<B: Body>(all: &mut Streams, stream: &str) {
    let mut previous = Digest::ZERO;
    for entry in all.get_mut(stream).unwrap() {
        let mut frame = Frame::<B>::decode(&entry.payload).unwrap();
        frame.header.previous = previous;
        entry.payload = frame.encode();
        previous = Digest::of(&entry.payload);
    }
}

/// Records are kept for ever: of these nothing may be missing.
async fn trimmed_records(all: &Streams) {
    for (stream, check) in [
        ("wagers", Check::Ingress),
        ("allocations-0", Check::Chains),
        ("audit-0", Check::Chains),
        ("commits", Check::Commits),
    ] {
        let memory = held(all).await;
        memory.trim(stream, None, 8).await.unwrap();
        let findings = verify(&memory, false).await.unwrap();
        let of = findings.lines().iter().find(|line| line.check == check).unwrap();
        assert!(of.faults > 0, "{stream} was trimmed:\n{}", told(&findings));
    }
}

/// A frame amid a lane is deleted.
async fn a_hole(pipeline: &Pipeline, log: &JetStream, stream: &str) {
    let hole = loop {
        let extent = log.extent(stream).await.unwrap();
        if extent.last >= extent.first + 2 {
            break extent.last - 1;
        }
        pipeline.ok(&["load", "--rate", "100", "--seconds", "1"]);
    };
    let request = json!({ "seq": hole }).to_string();
    let answer =
        log.client().request(format!("$JS.API.STREAM.MSG.DELETE.{stream}"), request.into()).await.unwrap();
    assert!(String::from_utf8_lossy(&answer.payload).contains("true"), "{answer:?}");
    let output = pipeline.run(&["verify"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&format!("chains: {stream} {hole}\n  the frame is not there")), "{text}");
}

fn explained(pipeline: &Pipeline) {
    let explain = |id: &str| pipeline.json(&["explain", id, "--json"]);
    for id in
        ["acme-1/1/5", "acme-1/1/1", "acme-1/1/3", "acme-1/1/6", "acme-1/1/8", "acme-1/1", "fjord-1/7/0"]
    {
        let text = pipeline.ok(&["explain", id]);
        assert!(text.contains(id) && text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }

    let winner = explain("acme-1/1/5");
    assert_eq!(winner["ended"], "allocated");
    assert_eq!(winner["hits"][0]["outcome"], "paid");
    assert_eq!(winner["hits"][1]["payoff"]["payoff"], "1000.02", "what is above the ceiling is not paid");
    assert_eq!(winner["repeats"].as_array().unwrap().len(), 2, "the repeat and the conflict");
    assert!(winner["leaf"]["hash"].is_string());

    let converted = &explain("acme-1/1/1")["pools"][0];
    assert_eq!((&converted["exact"], &converted["converted"]), (&json!("11.77647471"), &json!("11.776475")));
    assert_eq!(converted["levels"][0]["increment"], "0.035329425");
    assert_eq!(explain("acme-1/1/7")["pools"][0]["eligible"], "100");

    let refused = |id: &str| {
        let account = explain(id);
        let step = account["stages"].as_array().unwrap().last().unwrap().clone();
        (account["ended"].clone(), step["stage"].clone(), step["reason"].clone())
    };
    assert_eq!(refused("acme-1/1/2"), (json!("refused"), json!("validate"), json!("invalid_amount")));
    assert_eq!(refused("acme-1/1/3"), (json!("refused"), json!("geofence"), json!("jurisdiction_blocked")));
    assert_eq!(refused("acme-1/1/4"), (json!("refused"), json!("allocate"), json!("unknown_game")));
    assert_eq!(refused("acme-9/1"), (json!("batch_refused"), json!("validate"), json!("unknown_source")));
    assert_eq!(explain("acme-1/1/6")["hits"][2]["outcome"], "refused");
    assert_eq!(explain("acme-1/1/8")["not_joined"][0]["why"], "takes no bonus wagers");

    // The rate of revision 2 waits for the hit, and holds from the next wager on.
    let rates = |id: &str| explain(id)["pools"][0]["levels"][1]["rates"].clone();
    let before = rates("acme-1/3000/0");
    assert_eq!((&before["increment_ppm"], &before["since_hit"]), (&json!(6750), &json!("acme-1/1/6")));
    assert_eq!(rates("acme-1/3000/1")["increment_ppm"], 6750, "the winner's own contribution comes first");
    let after = rates("acme-1/3000/2");
    assert_eq!((&after["increment_ppm"], &after["since_hit"]), (&json!(9000), &json!("acme-1/3000/1")));
    assert_eq!(rates("acme-1/1/0")["since_hit"], Value::Null);

    let position = explain("acme-1/1")["stored"]["sequence"].as_u64().unwrap();
    let stored = explain(&format!("@{position}"));
    assert_eq!((&stored["ended"], &stored["stored"]["batch"]), (&json!("accepted"), &json!("acme-1/1")));
    for told in pipeline.json(&["refusals", "--json"]).as_array().unwrap() {
        if told["reason"] == "malformed" {
            let id = told["batch"].as_str().unwrap();
            assert_eq!(refused(id), (json!("batch_refused"), json!("validate"), json!("malformed")));
            assert!(pipeline.ok(&["explain", id]).contains("its whole batch was refused"), "{id}");
        }
    }
    pipeline.fails(&["explain", "acme-1/2/0"], 1, "never published a batch 2");
    pipeline.fails(&["explain", "acme-1/1/9"], 1, "there is no wager 9");
    pipeline.fails(&["explain", "nobody/1"], 1, "nothing was ever stored");
    pipeline.fails(&["explain", "@1"], 1, "is no batch");
    pipeline.fails(&["explain", "acme-1"], 78, "<source>/<sequence>/<index>");
}

fn framed(pipeline: &Pipeline) {
    let explained = pipeline.json(&["explain", "acme-1/1/5", "--json"]);
    let place = |field: &str| explained["frame"][field].as_u64().unwrap();
    for lane in Lane::ALL {
        let stream = lane.stream(u16::try_from(place("partition")).unwrap());
        let frame = pipeline.json(&["frame", &stream, &place("frame").to_string()]);
        assert_eq!(frame["header"]["sequence"], place("frame"), "{stream}");
        assert_eq!(frame["header"]["terms"], 1, "{stream}");
    }
    pipeline.fails(&["frame", "commits", "1"], 1, "is no lane");
    pipeline.fails(&["frame", "audit-7", "1"], 1, "no stream audit-7");
    pipeline.fails(&["frame", "audit-0", "4000000"], 1, "holds no frame 4000000");
}

async fn tampered_frames(all: &Streams) {
    check(all, "a wager counts with more than it should", |all| {
        let change = |body: &mut Allocations| {
            accepted(body).find_map(|(id, accepted)| {
                let allocation = accepted.wagers.iter_mut().find(|of| !of.participations.is_empty())?;
                allocation.participations[0].eligible.0 += 1;
                Some(format!("{id}/{}", allocation.wager.index))
            })
        };
        let (stream, frame, id) = change_frame(all, Lane::Allocations, change);
        expect(Check::Allocations, &stream, frame).about(id)
    })
    .await;
    check(all, "a refusal is dropped from a frame", |all| {
        let change = |body: &mut Allocations| {
            accepted(body).find_map(|(id, accepted)| {
                let at = accepted.refusals.iter().position(|refusal| refusal.hit.is_none())?;
                Some(format!("{id}/{}", accepted.refusals.remove(at).index))
            })
        };
        let (stream, frame, id) = change_frame(all, Lane::Allocations, change);
        expect(Check::Outcomes, &stream, frame).about(id)
    })
    .await;
    check(all, "a hit is refused that stands", |all| {
        let change = |body: &mut Allocations| {
            accepted(body).find_map(|(id, accepted)| {
                let at = accepted.refusals.iter().position(|refusal| refusal.hit.is_some())?;
                let refusal = &mut accepted.refusals[at];
                refusal.hit = Some(1);
                Some(format!("{id}/{}", refusal.index))
            })
        };
        let (stream, frame, id) = change_frame(all, Lane::Allocations, change);
        expect(Check::Allocations, &stream, frame).about(id)
    })
    .await;
    check(all, "a repeat is refused as stale", |all| {
        let change = |body: &mut Allocations| {
            body.batches.iter_mut().find_map(|batch| match &mut batch.verdict {
                Verdict::Refused(refused) if refused.reason == Reason::DuplicateBatch => {
                    refused.reason = Reason::StaleSequence;
                    Some(refused.batch.to_string())
                }
                _ => None,
            })
        };
        let (stream, frame, id) = change_frame(all, Lane::Allocations, change);
        expect(Check::Numbers, &stream, frame).about(id)
    })
    .await;
    check(all, "a wager is moved in time", |all| {
        let change = |body: &mut Geofenced| {
            let Geofenced { symbols, batches } = body;
            batches.iter_mut().find_map(|batch| {
                let Verdict::Accepted(accepted) = &mut batch.verdict else { return None };
                let wager = accepted.wagers.first_mut()?;
                wager.occurred_at = wager.occurred_at.plus(-1);
                Some(format!("{}/{}/{}", symbols.name(batch.source), accepted.sequence, wager.index))
            })
        };
        let (stream, frame, id) = change_frame(all, Lane::Geofenced, change);
        expect(Check::Wagers, &stream, frame).about(id)
    })
    .await;
    check(all, "the ledger is given more than was allocated", |all| {
        let change = |body: &mut Contributions| {
            body.postings.iter_mut().find_map(|posting| match posting {
                Posting::Sum(sum) => {
                    sum.eligible.0 += 1;
                    Some(())
                }
                Posting::Hit(_) => None,
            })
        };
        let (stream, frame, ()) = change_frame(all, Lane::Contributions, change);
        expect(Check::Contributions, &stream, frame)
    })
    .await;
    check(all, "a leaf of the audit is another", |all| {
        let change = |body: &mut Audited| body.leaves.first_mut().map(|leaf| *leaf = Digest::ZERO);
        let (stream, frame, ()) = change_frame(all, Lane::Audit, change);
        expect(Check::Leaves, &stream, frame)
    })
    .await;
    check(all, "a frame is put in the place of another", |all| {
        let stream = Lane::Geofenced.stream(0);
        let entries = all.get_mut(&stream).unwrap();
        entries[1].payload = entries[0].payload.clone();
        expect(Check::Chains, &stream, 2)
    })
    .await;
    check(all, "the allocations lost their end", |all| {
        let last = all.get_mut(&Lane::Allocations.stream(0)).unwrap().pop().unwrap().sequence;
        expect(Check::Chains, &Lane::Audit.stream(0), last)
    })
    .await;
    check(all, "the contributions lost their end", |all| {
        let last = all.get_mut(&Lane::Contributions.stream(0)).unwrap().pop().unwrap().sequence;
        expect(Check::Commits, "commits", consuming(all, 0, last))
    })
    .await;
}

async fn tampered_records(all: &Streams) {
    let amount = |all: &mut Streams| {
        let change = |batch: &mut Value| {
            let first = batch["wagers"][0]["interaction"] == 1;
            let taken = batch["source"] == "acme-1" && batch["sequence"] == 1 && first;
            if taken {
                batch["wagers"][0]["amount"] = json!("2.51");
            }
            taken
        };
        let position = change_json(all, "wagers", change);
        frame_of(all, position)
    };
    check(all, "a raw wager is of another amount: the chain tells", |all| {
        let (stream, frame) = amount(all);
        expect(Check::Ingress, &stream, frame)
    })
    .await;
    check(all, "a raw wager is of another amount: the allocation tells", |all| {
        let (stream, frame) = amount(all);
        expect(Check::Wagers, &stream.replace("validated", "allocations"), frame).about("acme-1/1/0")
    })
    .await;
    check(all, "a refusal is not told", |all| {
        let refusals = all.get_mut("refusals").unwrap();
        let told: Value = serde_json::from_slice(&refusals.remove(1).payload).unwrap();
        let id = told.get("wager").or(told.get("batch")).and_then(Value::as_str).unwrap();
        expect(Check::Refusals, "refusals", 2).about(id)
    })
    .await;
    check(all, "a refusal is told otherwise", |all| {
        let sequence = change_json(all, "refusals", |told| {
            told["detail"] = json!("it is well");
            true
        });
        expect(Check::Refusals, "refusals", sequence)
    })
    .await;
    check(all, "a level holds more than it should, and all commits after that are chained anew", |all| {
        let change = |commit: &mut Value| {
            let level = commit["levels"].as_array_mut().unwrap().first_mut();
            level.is_some_and(|level| {
                level["current"] = json!("77777");
                true
            })
        };
        let commit = change_json(all, "commits", change);
        chain(all);
        expect(Check::Books, "commits", commit)
    })
    .await;
    check(all, "a commit says something else", |all| {
        let commit = change_json(all, "commits", |commit| {
            commit["settings"]["max_skew_s"] = json!(299);
            true
        });
        expect(Check::Commits, "commits", commit + 1)
    })
    .await;
    check(all, "two hits of a commit change places", |all| {
        let mut id = String::new();
        let change = |commit: &mut Value| {
            let hits = commit["hits"].as_array_mut().unwrap();
            if hits.len() < 2 {
                return false;
            }
            hits.swap(0, 1);
            hits[0]["order"] = json!(0);
            hits[1]["order"] = json!(1);
            id = hits[0]["wager"].as_str().unwrap().to_owned();
            true
        };
        let commit = change_json(all, "commits", change);
        chain(all);
        expect(Check::Hits, "commits", commit).about(id)
    })
    .await;
    check(all, "a window closes with more than it should", |all| {
        let change = |commit: &mut Value| {
            let window = commit["windows"].as_array_mut().unwrap().first_mut();
            window.is_some_and(|window| {
                window["contributed"] = json!("1");
                true
            })
        };
        let commit = change_json(all, "commits", change);
        chain(all);
        expect(Check::Windows, "commits", commit)
    })
    .await;
    check(all, "a total is another", |all| {
        // Written as it was but for one digit, so that nothing but the amount differs.
        let totals = all.get_mut("totals").unwrap();
        let text = String::from_utf8(totals[0].payload.to_vec()).unwrap();
        totals[0].payload = Bytes::from(text.replacen("\"current\":\"1", "\"current\":\"2", 1));
        expect(Check::Views, "totals", 1)
    })
    .await;
    check(all, "a hit is not shown", |all| {
        all.get_mut("hits").unwrap().remove(0);
        expect(Check::Views, "hits", 1)
    })
    .await;
    check(all, "a revision is another document", |all| {
        let documents = all.get_mut("terms").unwrap();
        let at = documents.iter().position(|entry| entry.subject.starts_with("terms.document")).unwrap();
        let text = String::from_utf8(documents[at].payload.to_vec()).unwrap();
        documents[at].payload = Bytes::from(text.replace("6750", "6751"));
        expect(Check::Allocations, "terms", 1)
    })
    .await;
}

/// The frame that read a position of the ingress.
fn frame_of(all: &Streams, position: u64) -> (String, u64) {
    for partition in 0..PARTITIONS {
        let stream = Lane::Validated.stream(partition);
        for entry in &all[&stream] {
            let frame = Frame::<jackpot_core::frame::validated::Validated>::decode(&entry.payload).unwrap();
            if frame.body.batches.iter().any(|batch| batch.position == position) {
                return (stream, entry.sequence);
            }
        }
    }
    panic!("no frame holds @{position}");
}

/// Makes each commit name the one before, as whoever changes one would.
fn chain(all: &mut Streams) {
    let mut previous = Digest::ZERO;
    for entry in all.get_mut("commits").unwrap() {
        let mut commit: Value = serde_json::from_slice(&entry.payload).unwrap();
        if commit["previous"] != previous.to_string() {
            commit["previous"] = json!(previous.to_string());
            entry.payload = Bytes::from(commit.to_string());
        }
        previous = Digest::of(&entry.payload);
    }
}
