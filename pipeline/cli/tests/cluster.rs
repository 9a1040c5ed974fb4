//! The pipeline on a cluster of three servers, under load: one killed, one that leads held like one that is cut off,
//! leaders that step down, all killed at once. Nothing that was acknowledged is lost or counted twice.
//! The stages' binaries must be built: `cargo build --workspace`.

#![expect(clippy::unwrap_used, reason = "a check that cannot go on has failed")]

#[allow(dead_code, reason = "each test crate uses a part of what they share")]
#[path = "support/shared.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use support::input;
use support::model::{list, text};
use support::pipeline::{Pipeline, signal, until};
use support::record::{self, Record};

const SERVERS: u32 = 3;
const PARTITIONS: u16 = 2;
/// How long the server that leads most is held: longer than the others wait until they choose another leader.
const HELD: Duration = Duration::from_secs(10);
/// How long all partitions may stand still after the loss of one server: the servers themselves take up to ten seconds
/// to choose leaders, the rest is for this machine.
const STANDSTILL_MAX: Duration = Duration::from_secs(60);

#[test]
fn nats_a_cluster_loses_its_servers_and_no_wager() {
    let directory = tempfile::tempdir().unwrap();
    let partitions = PARTITIONS.to_string();
    let flags = ["--servers", "3", "--partitions", &partitions, "--sync", "relaxed"];
    let pipeline = Pipeline::start(directory.path(), &flags, &[]);
    assert_eq!(pipeline.url.split(',').count(), 3, "all servers are named: {:?}", pipeline.said);
    assert_other_number_refused(directory.path());
    let cluster = Cluster::of(&pipeline);
    assert_eq!(cluster.leaders().values().sum::<usize>(), cluster.streams.len(), "every stream has a leader");

    let acknowledged = under_load(&pipeline, || lose_servers(&cluster));
    until("every stream has a leader", || cluster.leaders().values().sum::<usize>() == cluster.streams.len());
    pipeline.wait();
    let record = Record::open(&pipeline.url);
    let (terms, totals) = (input::example_terms(), pipeline.json(&["totals"]));
    let outcome = record.model(&terms);
    record::assert_modelled(&outcome, &totals, &pipeline.json(&["refusals"]));
    record::assert_balanced(&totals);
    record::assert_chained(&record);
    assert_all_stored(&record, acknowledged);
    assert!(pipeline.ok(&["status"]).contains("running"), "no partition has stopped");
    assert!(pipeline.ok(&["verify"]).contains("verified"));
    pipeline.stop();
}

/// One after the other is lost, then all; after each the pipeline goes on.
fn lose_servers(cluster: &Cluster) {
    cluster.goes_on("the load is taken up");

    cluster.kill(&[cluster.leading()]);
    cluster.goes_on("a server that leads was killed");

    cluster.step_down();
    cluster.goes_on("leaders stepped down");

    let held = cluster.pid(cluster.leading());
    signal("STOP", held);
    sleep(HELD);
    signal("CONT", held);
    cluster.goes_on("a server that leads was held");

    cluster.step_down();
    cluster.kill(&[1, 2, 3]);
    cluster.goes_on("all servers were killed at once");
}

/// Does something while one `jackpot load` after the other publishes; gives how many batches they say were acknowledged.
fn under_load(pipeline: &Pipeline, doing: impl FnOnce()) -> u64 {
    let done = AtomicBool::new(false);
    let load = || {
        let mut batches = 0;
        while !done.load(Ordering::Relaxed) {
            let output = pipeline.run(&["load", "--rate", "300", "--seconds", "15"]);
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8(said).unwrap();
            println!("load: {said}");
            // One that begins while no server answers finds out nothing and publishes nothing.
            if output.status.success() {
                batches += count_of(&said);
            }
        }
        batches
    };
    std::thread::scope(|scope| {
        // Whatever becomes of `doing`, the load ends.
        let ended = Ended(&done);
        let load = scope.spawn(load);
        doing();
        drop(ended);
        load.join().unwrap()
    })
}

/// Says that something is done when it is dropped.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The number in "… in 1,234 batches in …".
fn count_of(said: &str) -> u64 {
    let (before, _) = said.split_once(" batches in ").unwrap_or_else(|| panic!("{said} counts batches"));
    before.rsplit(' ').next().unwrap().replace(',', "").parse().unwrap()
}

/// Every source's batches are stored from the first to the last, and no fewer than were acknowledged.
fn assert_all_stored(record: &Record, acknowledged: u64) {
    let mut stored: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for batch in record.values("wagers").iter().filter(|value| value.get("wagers").is_some()) {
        let sequence = batch["sequence"].as_u64().unwrap();
        stored.entry(text(batch, "source").into()).or_default().insert(sequence);
    }
    for (source, sequences) in &stored {
        let last = sequences.last().copied().unwrap();
        assert_eq!(sequences.len() as u64, last, "{source} has no gap");
    }
    let batches: u64 = stored.values().map(|sequences| sequences.len() as u64).sum();
    assert!(acknowledged > 0 && batches >= acknowledged, "{batches} stored, {acknowledged} acknowledged");
}

/// The directory of three servers is none of one.
fn assert_other_number_refused(directory: &Path) {
    let mut up = Command::new(env!("CARGO_BIN_EXE_jackpot"));
    up.args(["up", "--servers", "1", "--metrics-port", "0", "--dir"]).arg(directory);
    let output = up.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("holds the data of 3 servers, not 1"), "{said}");
}

/// The servers of a pipeline, watched from outside.
struct Cluster<'a> {
    pipeline: &'a Pipeline,
    record: Record,
    streams: Vec<String>,
}

impl<'a> Cluster<'a> {
    fn of(pipeline: &'a Pipeline) -> Self {
        let record = Record::open(&pipeline.url);
        let names = record.ask("$JS.API.STREAM.NAMES").unwrap();
        let streams = list(&names, "streams").iter().map(|name| name.as_str().unwrap().to_owned()).collect();
        Self { pipeline, record, streams }
    }

    fn pid(&self, server: u32) -> u32 {
        self.pipeline.server(server).unwrap_or_else(|| panic!("server {server} runs"))
    }

    fn info(&self, stream: &str) -> Option<Value> {
        self.record.ask(&format!("$JS.API.STREAM.INFO.{stream}")).filter(|info| info.get("state").is_some())
    }

    /// How many streams each server leads.
    fn leaders(&self) -> BTreeMap<u32, usize> {
        let mut leaders = BTreeMap::new();
        for info in self.streams.iter().filter_map(|stream| self.info(stream)) {
            assert_eq!(info["config"]["num_replicas"], SERVERS, "{info}");
            let leader =
                info["cluster"]["leader"].as_str().and_then(|name| name.rsplit('-').next()?.parse().ok());
            *leaders.entry(leader.unwrap()).or_default() += 1;
        }
        leaders
    }

    /// The server that leads most streams.
    fn leading(&self) -> u32 {
        let leaders = self.leaders();
        println!("streams led by each server: {leaders:?}");
        leaders.into_iter().max_by_key(|&(_, streams)| streams).unwrap().0
    }

    /// kill -9; returns when other processes have taken their places.
    fn kill(&self, servers: &[u32]) {
        let killed: Vec<_> = servers.iter().map(|&server| (server, self.pid(server))).collect();
        killed.iter().for_each(|&(_, pid)| signal("KILL", pid));
        for (server, pid) in killed {
            until("`jackpot up` starts the killed server again", || {
                self.pipeline.server(server).is_some_and(|new| new != pid)
            });
        }
    }

    /// Every stream chooses its leader anew.
    fn step_down(&self) {
        for stream in &self.streams {
            self.record.ask(&format!("$JS.API.STREAM.LEADER.STEPDOWN.{stream}"));
        }
    }

    /// How far the last log of each partition, and the ledger, have come.
    fn positions(&self) -> Option<Vec<u64>> {
        let audit = (0..PARTITIONS).map(|partition| format!("audit-{partition}"));
        let logs = audit.chain(["commits".to_owned()]);
        logs.map(|stream| self.info(&stream)?["state"]["last_seq"].as_u64()).collect()
    }

    /// Waits until each partition has gone on, through all its stages, and says how long that took.
    fn goes_on(&self, after: &str) {
        let begun = Instant::now();
        let mut before = None;
        until(after, || {
            let Some(now) = self.positions() else { return false };
            let before: &Vec<u64> = before.get_or_insert_with(|| now.clone());
            before.iter().zip(&now).all(|(before, now)| now > &(before + 2))
        });
        println!("{after}: all partitions went on after {} ms", begun.elapsed().as_millis());
        assert!(begun.elapsed() < STANDSTILL_MAX, "{after}: they stood still for {:?}", begun.elapsed());
    }
}
