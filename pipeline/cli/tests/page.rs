//! The live page against a whole pipeline: what its stream gives was committed, and what a browser shows of it is what the
//! totals are, with its time, and marked when it is stale. The browser is a headless Chromium, driven by `page/`.
//! The stages' binaries must be built: `cargo build --workspace`.

#![expect(clippy::unwrap_used, reason = "a check that cannot go on has failed")]

#[allow(dead_code, reason = "each test crate uses a part of what they share")]
#[path = "support/shared.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use serde_json::value::RawValue;

use support::input::{self, lines};
use support::model::{list, text};
use support::pipeline::{Pipeline, signal, until};
use support::record::{self, Record};

/// Where `jackpot up` serves the page.
fn address(pipeline: &Pipeline) -> String {
    let line = pipeline.said.iter().find(|line| line.starts_with("page ")).unwrap();
    line.split("http://").nth(1).unwrap().trim_end_matches('/').to_owned()
}

fn ask(address: &str, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    stream
}

fn answer(address: &str, request: &str) -> String {
    let mut text = String::new();
    ask(address, request).read_to_string(&mut text).unwrap();
    text
}

/// The messages of a stream of events, as they come.
fn events(stream: TcpStream) -> impl Iterator<Item = String> {
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    lines.filter_map(|line| line.strip_prefix("data: ").map(str::to_owned))
}

/// The objects of a field of a message, as they are written in it.
fn written(message: &str, field: &str) -> Vec<String> {
    let fields: BTreeMap<&str, &RawValue> = serde_json::from_str(message).unwrap();
    let objects: Vec<&RawValue> = serde_json::from_str(fields[field].get()).unwrap();
    objects.into_iter().map(|json| json.get().to_owned()).collect()
}

#[test]
fn nats_all_that_the_stream_gives_was_committed() {
    let terms = input::example_terms();
    let batches = input::generate(&terms, 31, 6_000);
    let directory = tempfile::tempdir().unwrap();
    let pipeline = Pipeline::start(directory.path(), &["--partitions", "2"], &[]);
    let address = address(&pipeline);
    let readers: Vec<_> = (0..3).map(|_| ask(&address, "GET /events")).collect();
    // A reader that takes nothing for as long as the pipeline works holds nobody up.
    let idle = ask(&address, "GET /events");
    let heard: [_; 3] = std::array::from_fn(|_| Arc::new(AtomicUsize::new(0)));
    let reading: Vec<_> = readers
        .into_iter()
        .zip(heard.clone())
        .map(|(stream, heard)| {
            std::thread::spawn(move || {
                let mut messages = Vec::new();
                for message in events(stream) {
                    heard.fetch_add(1, Ordering::Relaxed);
                    messages.push(message);
                    let last: Value = serde_json::from_str(messages.last().unwrap()).unwrap();
                    if last["terms"] == 2 {
                        break;
                    }
                }
                messages
            })
        })
        .collect();
    for batches in batches.chunks(batches.len().div_ceil(8)) {
        let before = heard.each_ref().map(|heard| heard.load(Ordering::Relaxed));
        pipeline.publish(&lines(batches));
        pipeline.wait();
        until("every reader is told of it", || {
            heard.iter().zip(before).all(|(heard, before)| heard.load(Ordering::Relaxed) > before)
        });
    }
    let totals = pipeline.json(&["totals"]);
    let hits = pipeline.json(&["hits"]);
    assert!(!hits.is_empty(), "there is something to see");
    // The next revision of the terms ends what is looked at.
    let mut next = terms.clone();
    next["revision"] = 2.into();
    let file = directory.path().join("terms.json");
    std::fs::write(&file, next.to_string()).unwrap();
    pipeline.ok(&["terms", "apply", file.to_str().unwrap()]);

    let record = Record::open(&pipeline.url);
    let commits = record.all("commits");
    let mut committed = BTreeSet::new();
    for entry in &commits {
        let message = std::str::from_utf8(&entry.payload).unwrap();
        committed.extend(written(message, "levels"));
        committed.extend(written(message, "hits"));
    }
    for messages in reading {
        let messages = messages.join().unwrap();
        assert!(messages.len() > 5, "it ticks: {}", messages.len());
        let (mut shown, mut paid) = (BTreeMap::new(), Vec::new());
        let mut commit = 0;
        for message in &messages {
            for level in written(message, "levels") {
                assert!(committed.contains(&level), "{level} is in no commit");
                let level: Value = serde_json::from_str(&level).unwrap();
                let name = (text(&level, "pool").to_owned(), text(&level, "level").to_owned());
                shown.insert(name, level);
            }
            for hit in written(message, "hits") {
                assert!(committed.contains(&hit), "{hit} is in no commit");
                paid.push(serde_json::from_str::<Value>(&hit).unwrap());
            }
            let message: Value = serde_json::from_str(message).unwrap();
            // Before the first state was read there is nothing to be shown.
            let Some(of) = message["commit"].as_u64() else { continue };
            assert!(of >= commit, "it never goes back");
            commit = of;
            let at = &record::json(&commits[usize::try_from(commit - 1).unwrap()]);
            assert_eq!(
                (&message["as_of"], &message["stale"]),
                (&at["as_of"], &Value::Null),
                "as of that commit"
            );
        }
        let shown: Vec<_> = shown.into_values().map(|level| level["current"].clone()).collect();
        let expect: Vec<_> = totals.iter().map(|level| level["current"].clone()).collect();
        assert_eq!(shown, expect, "the last that was shown is what is known");
        assert_eq!(paid.len().min(20), hits.len().min(20), "each hit once");
    }
    let late = events(idle).find(|message| !written(message, "levels").is_empty()).unwrap();
    assert!(committed.contains(&written(&late, "levels")[0]));
    let state = answer(&address, "GET /jackpots.json");
    let state: Value = serde_json::from_str(state.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!((list(&state, "levels").len(), state["whole"].as_bool()), (totals.len(), Some(true)));
    for request in ["POST /", "PUT /events", "DELETE /jackpots.json", "POST /jackpots.json"] {
        assert!(answer(&address, request).starts_with("HTTP/1.1 405"), "{request}: it only reads");
    }
    assert!(answer(&address, "GET /readyz").starts_with("HTTP/1.1 200"));
    pipeline.stop();
}

/// `jackpot serve`, where it was told to listen.
struct Served(Child);

impl Served {
    fn start(pipeline: &Pipeline, listen: &str) -> (Self, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jackpot"));
        command.args(["serve", "--nats", &pipeline.url, "--listen", listen]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split("http://").nth(1).unwrap().trim().trim_end_matches('/').to_owned();
        (Self(child), address)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Two tabs of a browser.
struct Browser {
    child: Child,
    steps: Option<ChildStdin>,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Browser {
    fn open(address: &str) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/page/page.mjs");
        let mut command = Command::new("node");
        command.arg(script).arg(format!("http://{address}/")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("node can be run; install Node");
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { steps: child.stdin.take(), child, answers }
    }

    /// Waits until a step is done; gives what it found.
    fn step(&mut self, step: &str) -> Value {
        writeln!(self.steps.as_ref().unwrap(), "{step}").unwrap();
        let answer = self.answers.next().unwrap_or_else(|| panic!("{step}: see what the browser said above"));
        serde_json::from_str(&answer.unwrap()).unwrap()
    }

    /// Waits until it shows these amounts, each exact, cut for the eye and with its time.
    fn shows(&mut self, totals: &[Value]) {
        let name = |level: &Value| format!("{}/{}", text(level, "pool"), text(level, "level"));
        let amounts: BTreeMap<_, _> =
            totals.iter().map(|level| (name(level), text(level, "current").to_owned())).collect();
        let tabs = self.step(&format!("amounts {}", serde_json::to_string(&amounts).unwrap()));
        for tab in tabs.as_array().unwrap() {
            for level in totals {
                let texts: Vec<_> =
                    tab[name(level)].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
                let plain = texts[0].replace(',', "");
                let (display, exact) = (text(level, "display"), text(level, "current"));
                let digits = plain.split_once('.').unwrap().1.len();
                assert_eq!((canonical(&plain).as_str(), digits), (display, 2), "the large number of {level}");
                assert_eq!(canonical(&texts[1].replace(',', "")), exact);
                let as_of = level["as_of"].as_str().map(|at| at.replace('T', " ").replace('Z', " UTC"));
                assert_eq!(texts[2], as_of.as_deref().unwrap_or("—"));
            }
        }
    }

    fn end(mut self) {
        drop(self.steps.take());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        drop(self.steps.take());
        if std::thread::panicking() {
            drop(self.child.kill());
        }
        drop(self.child.wait());
    }
}

/// Without the zeros that only pad.
fn canonical(decimal: &str) -> String {
    let cut =
        if decimal.contains('.') { decimal.trim_end_matches('0').trim_end_matches('.') } else { decimal };
    cut.to_owned()
}

#[test]
fn nats_a_browser_shows_what_is_committed_and_how_old_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let pipeline = Pipeline::start(directory.path(), &["--partitions", "2"], &[]);
    let load = |seed: u32| {
        pipeline.ok(&["load", "--rate", "2000", "--seconds", "2", "--seed", &seed.to_string()]);
        pipeline.wait();
        pipeline.json(&["totals"])
    };
    let (served, address) = Served::start(&pipeline, "127.0.0.1:0");
    let mut browser = Browser::open(&address);
    browser.shows(&pipeline.json(&["totals"]));
    browser.shows(&load(1));
    browser.step("fresh");

    // What was paid before somebody looks is shown, and not read out.
    let mut seed = 1;
    let more_hits = |than: usize| {
        until("there is a hit", || {
            seed += 1;
            load(seed);
            pipeline.json(&["hits"]).len() > than
        });
        pipeline.json(&["hits"]).len()
    };
    let mut more_hits = more_hits;
    let paid = more_hits(0);
    browser.end();
    let mut browser = Browser::open(&address);
    browser.shows(&pipeline.json(&["totals"]));
    for heard in browser.step("silent").as_array().unwrap() {
        assert_eq!(heard, "", "those were not paid just now");
    }
    more_hits(paid);
    let heard = browser.step("heard");
    assert!(heard.as_str().unwrap().contains(" paid "), "{heard}");
    browser.shows(&pipeline.json(&["totals"]));
    assert_eq!(browser.step("keys"), "filter");
    assert_eq!(browser.step("faults"), Value::Array(Vec::new()));

    // The ledger stands still; then it goes on.
    let ledger = pipeline.pid("aggregate").unwrap();
    signal("STOP", ledger);
    let said = browser.step("stale");
    assert!(said.as_str().unwrap().contains("has not committed anything since"), "{said}");
    assert_eq!(browser.step("faults"), Value::Array(Vec::new()), "what is stale can be read as well");
    assert!(answer(&address, "GET /readyz").starts_with("HTTP/1.1 503"));
    signal("CONT", ledger);
    browser.step("fresh");
    assert_eq!(browser.step("broken"), Value::Array(Vec::new()));

    // The broker is away, and comes back; the server that the page asks is away, and comes back.
    let broker = pipeline.pid("nats-server").unwrap();
    signal("KILL", broker);
    until("another broker", || pipeline.pid("nats-server").is_some_and(|pid| pid != broker));
    browser.shows(&load(7_001));
    browser.step("fresh");
    drop(served);
    let said = browser.step("stale");
    assert!(said.as_str().unwrap().contains("lost its server"), "{said}");
    let expect = load(7_002);
    let (_served, _) = Served::start(&pipeline, &address);
    browser.shows(&expect);
    browser.step("fresh");
    assert_eq!(browser.step("faults"), Value::Array(Vec::new()));
    browser.end();
}
