//! The command line against a whole pipeline: how `up` starts, mends and ends what it runs, what is written for people and
//! what for programs, and how the stages' own binaries end.
//! The stages' binaries must be built: `cargo build --workspace`.

#![expect(clippy::unwrap_used, reason = "a check that cannot go on has failed")]

#[allow(dead_code, reason = "each test crate uses a part of what they share")]
#[path = "support/shared.rs"]
mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use jackpot_core::broker::{Broker, BrokerSettings, Sync};
use serde_json::{Value, json};

use support::input;
use support::model::{list, millis, text};
use support::pipeline::{Pipeline, STAGES, child, signal, until};
use support::record::{self, Record};

/// A command that knows of no pipeline but the one that it is told.
fn command(program: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("NATS_") || name.starts_with("JACKPOT_")) {
            command.env_remove(name);
        }
    }
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn jackpot(args: &[&str]) -> Command {
    command(Path::new(env!("CARGO_BIN_EXE_jackpot")), args)
}

fn stage(name: &str) -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_jackpot")).with_file_name(name)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// `jackpot up` in a process group of its own, as a shell starts it.
struct Up {
    child: Child,
    lines: Vec<String>,
}

impl Up {
    fn start(args: &[&str]) -> Self {
        let mut command = jackpot(&[&["up"], args].concat());
        let mut child = command.stderr(Stdio::null()).process_group(0).spawn().unwrap();
        let (mut lines, mut pipe) = (Vec::new(), BufReader::new(child.stdout.take().unwrap()).lines());
        for line in pipe.by_ref().map_while(Result::ok) {
            lines.push(line);
            if lines.last().is_some_and(|line| line == "ready") {
                break;
            }
        }
        // A writer whose pipe nobody reads would block, or die.
        std::thread::spawn(move || pipe.count());
        assert_eq!(lines.last().map(String::as_str), Some("ready"), "{lines:?}");
        Self { child, lines }
    }

    /// Where something listens, by the line that begins with its name.
    fn address(&self, name: &str) -> String {
        let line = self.lines.iter().find(|line| line.starts_with(&format!("{name} "))).unwrap();
        let word = line.split_whitespace().nth(1).unwrap();
        word.split("://").nth(1).unwrap().split('/').next().unwrap().to_owned()
    }

    /// Ctrl-C as a terminal sends it: to all processes of the group at once.
    fn interrupt(mut self) {
        let group = format!("-{}", self.child.id());
        assert!(Command::new("kill").args(["-INT", "--", &group]).status().unwrap().success());
        let status = self.child.wait().unwrap();
        assert_eq!(status.code(), Some(0), "Ctrl-C drains and ends with 0");
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            signal("TERM", self.child.id());
            self.child.wait().unwrap();
        }
    }
}

/// The first of five ports in a row that nobody listens on.
fn five_ports() -> u16 {
    let free = |port: u16| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok();
    (20_000..30_000).step_by(7).find(|&base| (base..base + 5).all(free)).unwrap()
}

fn get(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.starts_with("HTTP/1.1 200").then_some(answer)
}

#[test]
fn nats_up_mends_what_dies_and_ends_with_all_that_it_started() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path().join("data");
    let (dir, base) = (dir.to_str().unwrap(), five_ports());
    let ports = base.to_string();
    let flags = ["--dir", dir, "--nats-port", "0", "--metrics-port", &ports, "--sync", "relaxed"];
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let page = taken.local_addr().unwrap().port().to_string();
    let up = Up::start(&[&flags[..], &["--partitions", "2", "--page-port", &page]].concat());
    assert!(get(&up.address("page"), "/").is_some(), "the page is on another port where its own is taken");
    assert!(up.lines[0].contains("--sync relaxed: FOR TRIALS"), "{:?}", up.lines);
    for (port, stage) in (base..).zip(STAGES) {
        assert_eq!(
            up.address(stage),
            format!("127.0.0.1:{port}"),
            "the ports follow the order of the pipeline"
        );
        assert!(get(&up.address(stage), "/readyz").is_some(), "{stage} is ready");
    }
    let url = format!("nats://{}", up.address("nats"));

    // Whatever dies is started again, on the same port.
    for name in ["allocate", "nats-server"] {
        let pid = child(up.child.id(), name).unwrap();
        signal("KILL", pid);
        until("another process has taken its place", || {
            child(up.child.id(), name).is_some_and(|new| new != pid)
        });
    }
    until("all are ready again", || STAGES.iter().all(|stage| get(&up.address(stage), "/readyz").is_some()));
    let load = jackpot(&["load", "--nats", &url, "--rate", "200", "--seconds", "1"]).output().unwrap();
    assert!(load.status.success() && load.stdout.is_empty(), "{}", said(&load));
    let wait = jackpot(&["wait", "--nats", &url, "--timeout", "60s"]).output().unwrap();
    assert!(wait.status.success(), "{}", said(&wait));

    let addresses: Vec<_> = STAGES.iter().chain(&["nats", "page"]).map(|name| up.address(name)).collect();
    up.interrupt();
    for address in addresses {
        assert!(TcpStream::connect(&address).is_err(), "nobody listens on {address} any more");
    }
    let other = jackpot(&[&["up"], &flags[..], &["--partitions", "3"]].concat()).output().unwrap();
    assert_eq!(other.status.code(), Some(78), "{}", said(&other));
    assert!(said(&other).contains("--partitions 3") && other.stdout.is_empty(), "{}", said(&other));
}

/// `--nats`: the server is another's, and stays; `--demo`: traffic and the live view follow `ready`.
#[test]
fn nats_up_uses_a_server_that_runs_and_plays_a_demo() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let settings = BrokerSettings::new(directory.path().join("data"), Sync::Relaxed);
    let mut broker = runtime.block_on(Broker::start(settings)).unwrap();
    let url = broker.url();
    let up = Up::start(&["--nats", &url, "--metrics-port", "0", "--demo"]);
    assert!(up.lines[0].contains(&url) && up.lines[0].contains("as it was found"), "{:?}", up.lines);
    let record = Record::open(&url);
    until("the demo's wagers are in totals", || {
        record.last("totals", "totals.mega.minor").is_some_and(|total| record::json(&total)["wagers"] != 0)
    });
    assert!(child(up.child.id(), "nats-server").is_none());
    up.interrupt();
    assert!(record.count("wagers") > 0, "the server is there still");
    runtime.block_on(broker.stop()).unwrap();
}

#[test]
fn nats_output_is_for_people_or_for_programs() {
    let directory = tempfile::tempdir().unwrap();
    let pipeline = Pipeline::start(
        directory.path(),
        &["--partitions", "2"],
        &[("JACKPOT_WINDOWS", "1,2"), ("JACKPOT_IDLE_AFTER", "1h")],
    );
    assert!(pipeline.said[0].contains("fsync before each acknowledgement"), "{:?}", pipeline.said);
    let server = std::fs::read_to_string(directory.path().join("nats-server.conf")).unwrap();
    assert!(server.contains("sync_interval: always"), "{server}");
    let traffic = input::generate(&input::example_terms(), 5, 20_000);
    pipeline.publish(&input::lines(&spoilt(traffic)));
    pipeline.wait();
    check_totals(&pipeline);
    until("windows are closed", || pipeline.json(&["windows"]).len() > 60);
    check_windows(&pipeline);
    check_hits(&pipeline);
    check_refusals(&pipeline);
    check_status(&pipeline);
    check_follow(&pipeline);
    check_publish(&pipeline, directory.path());
    check_plan(&pipeline, directory.path());
    let sources = pipeline.json(&["sources", "--source", "acme-spin-eu1"]);
    assert_eq!(sources.len(), 1, "{sources:?}");
    let shown: Value = serde_json::from_str(&pipeline.ok(&["terms", "show", "1"])).unwrap();
    let example = input::example_terms();
    for field in ["revision", "author", "authorizer", "reason"] {
        assert_eq!(shown[field], example[field], "{field} is recorded");
    }
    pipeline.stop();
}

/// Traffic of which some wagers win, and some are refused.
fn spoilt(mut batches: Vec<Value>) -> Vec<Value> {
    let mut count = 0;
    for wager in batches.iter_mut().flat_map(|batch| batch["wagers"].as_array_mut().unwrap()) {
        count += 1;
        match count % 50 {
            10 => wager["amount"] = json!("many"),
            20 => wager["game"] = json!("unheard-of"),
            30 => wager["hits"] = json!([{ "pool": "mega", "level": "minor" }]),
            40 => wager["hits"] = json!([{ "pool": "mega", "level": "major" }]),
            _ => {}
        }
    }
    batches
}

fn names(row: &Value) -> (String, String) {
    (text(row, "pool").into(), text(row, "level").into())
}

fn check_totals(pipeline: &Pipeline) {
    let totals = pipeline.json(&["totals"]);
    assert_eq!(totals.len(), 7);
    assert!(totals.is_sorted_by_key(names), "by pool and level");
    let lines = pipeline.ok(&["totals", "--jsonl"]);
    let rows: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows, totals, "one object a line");
    let csv = pipeline.ok(&["totals", "--csv"]);
    assert!(csv.starts_with(
        "pool,level,currency,sequence,commit,terms,as_of,current,display,base,ceiling,pending,"
    ));
    assert_eq!(csv.lines().count(), 8);
    let table = pipeline.ok(&["totals"]);
    assert!(table.lines().count() >= 8 && table.contains("desert-link"), "{table}");
    assert_eq!(pipeline.json(&["totals", "--pool", "mega"]).len(), 3);
    assert_eq!(pipeline.json(&["totals", "--pool", "mega", "--level", "grand"]).len(), 1);
    assert_eq!(pipeline.json(&["totals", "--limit", "2"]), totals[..2]);
}

fn check_windows(pipeline: &Pipeline) {
    let windows = pipeline.json(&["windows"]);
    let order = |row: &Value| (names(row), row["seconds"].as_u64(), text(row, "window_start").to_owned());
    assert!(windows.is_sorted_by_key(order), "by pool, level, length and start");
    let twos = pipeline.json(&["windows", "--seconds", "2"]);
    assert!(!twos.is_empty() && twos.iter().all(|window| window["seconds"] == 2));
    let middle = text(&windows[windows.len() / 2], "window_start").to_owned();
    let since = pipeline.json(&["windows", "--since", &middle]);
    let until = pipeline.json(&["windows", "--until", &middle]);
    assert!(since.iter().all(|window| text(window, "window_start") >= middle.as_str()) && !since.is_empty());
    assert!(until.iter().all(|window| text(window, "window_start") < middle.as_str()));
    assert!(since.len() + until.len() >= windows.len(), "every window is in one of the two");
    assert_eq!(pipeline.json(&["windows", "--limit", "5"]).len(), 5);
}

fn check_hits(pipeline: &Pipeline) {
    let hits = pipeline.json(&["hits"]);
    assert!(hits.len() > 20, "{}", hits.len());
    assert!(
        hits.is_sorted_by_key(|hit| (names(hit), hit["sequence"].as_u64())),
        "by pool, level and sequence"
    );
    let source = text(hits.last().unwrap(), "source").to_owned();
    let pool = text(hits.last().unwrap(), "pool").to_owned();
    let own = pipeline.json(&["hits", "--source", &source, "--pool", &pool]);
    let named = |hit: &&Value| hit["source"] == source.as_str() && hit["pool"] == pool.as_str();
    let expect: Vec<_> = hits.iter().filter(named).cloned().collect();
    assert_eq!(own, expect);
}

fn check_refusals(pipeline: &Pipeline) {
    let refusals = pipeline.json(&["refusals"]);
    let order = |row: &Value| (millis(&row["at"]), row["partition"].as_u64(), row["number"].as_u64());
    assert!(refusals.len() > 100 && refusals.is_sorted_by_key(order), "by time, partition and number");
    let csv = pipeline.ok(&["refusals", "--csv"]);
    assert_eq!(csv.lines().count(), refusals.len() + 1, "all of them");
    let source = text(&refusals[0], "source").to_owned();
    let own = pipeline.json(&["refusals", "--source", &source]);
    assert!(own.iter().all(|refusal| refusal["source"] == source.as_str()) && !own.is_empty());
}

/// Per stage and partition, with exit 1 while one does not work.
fn check_status(pipeline: &Pipeline) {
    let rows = pipeline.json(&["status"]);
    for stage in STAGES {
        let own: Vec<_> = rows.iter().filter(|row| row["stage"] == stage).collect();
        assert!(own.len() >= 2, "{stage}: {own:?}");
        for row in own {
            assert_eq!(list(row, "owners").len(), 1, "{row}");
            assert_eq!(
                (&row["condition"], &row["why"], &row["lag"]),
                (&json!("running"), &Value::Null, &json!(0)),
                "{row}"
            );
            assert!(row["position"].as_u64().is_some() && row.get("watermark").is_some(), "{row}");
        }
    }
    let of = |partition: u16| format!("partition {partition}");
    let parts: Vec<_> =
        rows.iter().filter(|row| row["stage"] == "geofence").map(|row| text(row, "part")).collect();
    assert_eq!(parts, [of(0), of(1)]);
    assert!(pipeline.ok(&["status"]).contains("partition 1"));
    let pid = pipeline.pid("geofence").unwrap();
    signal("STOP", pid);
    let output = jackpot(&["status", "--json", "--nats", &pipeline.url]).output().unwrap();
    signal("CONT", pid);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("partition 0 of geofence is not at work"), "{}", said(&output));
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert!(rows.iter().any(|row| row["stage"] == "geofence" && list(row, "owners").is_empty()), "{rows:?}");
}

/// What comes is written as it comes.
fn check_follow(pipeline: &Pipeline) {
    let args =
        ["totals", "--follow", "--jsonl", "--pool", "mega", "--level", "minor", "--nats", &pipeline.url];
    let mut follower = jackpot(&args).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    let present = next();
    pipeline.ok(&["load", "--rate", "100", "--seconds", "1"]);
    let later = next();
    assert!(later["sequence"].as_u64() > present["sequence"].as_u64(), "{later} comes after {present}");
    signal("INT", follower.id());
    follower.wait().unwrap();
}

/// Nothing but errors and progress on standard error, nothing on standard output; `-` is standard input, and publishing
/// again is safe.
fn check_publish(pipeline: &Pipeline, dir: &Path) {
    let batches = input::generate(&input::example_terms(), 6, 500);
    let text = input::lines(&batches).join("\n");
    let file = dir.join("again.ndjson");
    std::fs::write(&file, &text).unwrap();
    let record = Record::open(&pipeline.url);
    let before = record.count("wagers");
    let mut command = jackpot(&["publish", "-", "--nats", &pipeline.url]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty(), "{}", said(&output));
    let again = jackpot(&["publish", file.to_str().unwrap(), "--nats", &pipeline.url]).output().unwrap();
    assert!(again.status.success() && again.stdout.is_empty(), "{}", said(&again));
    let stored = record.all("wagers").split_off(usize::try_from(before).unwrap());
    assert_eq!(stored.len(), 2 * batches.len(), "no message id keeps a repeat out of the ingress");
    for entry in &stored {
        assert!(entry.headers.is_empty(), "{:?}", entry.headers);
    }
    let bytes: Vec<_> = stored[..batches.len()].iter().map(|entry| entry.payload.to_vec()).collect();
    let lines: Vec<_> = text.lines().map(|line| line.as_bytes().to_vec()).collect();
    assert_eq!(bytes, lines, "each line's bytes unchanged, in their order");
}

/// Each change with its class and the reason; exit 1 when one is refused, and then `apply` refuses it too.
fn check_plan(pipeline: &Pipeline, dir: &Path) {
    let plan = |revision: u64, change: &dyn Fn(&mut Value), code: i32| {
        let mut terms = input::example_terms();
        terms["revision"] = json!(revision);
        change(&mut terms);
        let file = dir.join("next.json");
        std::fs::write(&file, terms.to_string()).unwrap();
        let run = |args: &[&str]| {
            let args = [&["terms"], args, &[file.to_str().unwrap(), "--nats", &pipeline.url]].concat();
            let output = jackpot(&args).output().unwrap();
            assert_eq!(output.status.code(), Some(code), "{args:?}: {}", said(&output));
            output
        };
        let changes: Vec<Value> = serde_json::from_slice(&run(&["plan", "--json"]).stdout).unwrap();
        assert!(changes.iter().all(|change| !text(change, "reason").is_empty()), "{changes:?}");
        let class = |change: &Value| (text(change, "place").to_owned(), text(change, "class").to_owned());
        if code == 1 {
            run(&["apply"]);
        }
        let printed = String::from_utf8(run(&["plan"]).stdout).unwrap();
        assert_eq!(printed.is_empty(), changes.is_empty(), "{printed}");
        changes.iter().map(class).collect::<Vec<_>>()
    };
    let level = |terms: &mut Value, change: &dyn Fn(&mut Value)| change(&mut terms["pools"][0]["levels"][2]);
    let of =
        |classes: &[(String, String)]| classes.iter().map(|(_, class)| class.clone()).collect::<Vec<_>>();
    assert!(plan(1, &|_| {}, 0).is_empty(), "the same document again changes nothing");
    assert_eq!(
        of(&plan(1, &|terms| terms["author"] = json!("another"), 1)),
        ["refused"],
        "the number is taken"
    );
    assert_eq!(of(&plan(3, &|_| {}, 1)), ["refused"], "2 is next");
    let lower = plan(2, &|terms| level(terms, &|level| level["ceiling"] = json!("100.01")), 0);
    assert_eq!(lower, [("pools.mega.levels.minor.ceiling".to_owned(), "on_next_hit".to_owned())]);
    let higher = plan(2, &|terms| level(terms, &|level| level["ceiling"] = json!("1000000")), 0);
    assert_eq!(of(&higher), ["immediate"]);
    let gone = plan(2, &|terms| drop(terms["pools"].as_array_mut().unwrap().remove(1)), 1);
    assert_eq!(gone, [("pools.desert-link".to_owned(), "refused".to_owned())]);
    let dollars = plan(2, &|terms| terms["pools"][0]["currency"] = json!("USD"), 1);
    assert_eq!(of(&dollars), ["refused"]);
}

/// A bounded run ends with 0; settings that no restart will mend, with 78 and all mistakes at once.
#[test]
fn nats_stages_end_as_they_are_told() {
    for name in STAGES {
        let wrong = ["--nats", "nats://127.0.0.1:1", "--metrics-port", "many", "--stand-by", "soon"];
        let output = command(&stage(name), &wrong).output().unwrap();
        assert_eq!(output.status.code(), Some(78), "{name}: {}", said(&output));
        assert!(
            said(&output).contains("--metrics-port") && said(&output).contains("--stand-by"),
            "{}",
            said(&output)
        );
    }
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let settings = BrokerSettings::new(directory.path().join("data"), Sync::Relaxed);
    let mut broker = runtime.block_on(Broker::start(settings)).unwrap();
    let url = broker.url();
    let init = jackpot(&["init", "--partitions", "1", "--nats", &url]).output().unwrap();
    assert!(init.status.success(), "{}", said(&init));
    for name in STAGES {
        let flags = ["--metrics-port", "0", "--until-idle", "500ms"];
        let bounded = command(&stage(name), &flags).env("NATS_URL", &url).output().unwrap();
        assert_eq!(bounded.status.code(), Some(0), "{name}: {}", said(&bounded));
        let mut running = command(&stage(name), &["--metrics-port", "0", "--nats", &url]);
        let mut child = running.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("/readyz on ")), "{name} serves its port");
        signal("TERM", child.id());
        assert_eq!(child.wait().unwrap().code(), Some(143), "{name}");
    }
    runtime.block_on(broker.stop()).unwrap();
}

/// A stream is not limited to less than it holds; and where nobody runs, `status` says so.
#[test]
fn nats_init_refuses_what_would_lose_data() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let settings = BrokerSettings::new(directory.path().join("data"), Sync::Relaxed);
    let mut broker = runtime.block_on(Broker::start(settings)).unwrap();
    let url = broker.url();
    let run = |args: &[&str], code: i32| {
        let output = jackpot(&[args, &["--nats", &url]].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", said(&output));
        said(&output)
    };
    run(&["init", "--partitions", "1"], 0);
    assert!(run(&["status"], 1).contains("start a process of this stage"));
    let record = Record::open(&url);
    record.publish("wagers.acme.acme-1", vec![b'x'; 4_096]);
    assert!(run(&["init", "--max-bytes", "wagers=1KiB"], 78).contains("cannot be limited to"));
    run(&["init", "--max-bytes", "wagers=1GiB"], 0);
    runtime.block_on(broker.stop()).unwrap();
}
