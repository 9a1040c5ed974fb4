//! A pipeline of processes for a test: a broker of its own, the streams, terms, and the stages' binaries, each
//! started, watched, held and ended by itself. Tests of what `jackpot up` does are elsewhere.
//! The stages' binaries stand beside the command's: `cargo build --workspace` makes them.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use jackpot_core::broker::{Broker, BrokerSettings, Sync};
use jackpot_core::frame::Header;
use jackpot_core::frame::validated::Validated;
use jackpot_core::log::jetstream::setup::{self, SetUp};
use jackpot_core::log::jetstream::{ConnectSettings, JetStream};
use jackpot_core::log::{Append, Appender, Entry, Expect, Log, Reader};
use jackpot_core::record::Commit;
use jackpot_core::terms::{Terms, store};
use jackpot_core::time::Millis;
use jackpot_core::topology::{self, Lane};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// The header of a message of `totals` that says up to which commit all is shown.
const SETTLED: &str = "Jackpot-Settled";
/// How long anything may take that a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A broker with the streams of a deployment.
pub struct World {
    pub log: JetStream,
    pub partitions: u16,
    setup: SetUp,
    broker: Broker,
    dir: tempfile::TempDir,
}

/// A stage's process; killed when this is dropped.
pub struct Process {
    pub stage: &'static str,
    child: Child,
    port: u16,
    said: PathBuf,
}

impl World {
    /// Starts the broker, makes the streams and applies the terms.
    pub async fn start(partitions: u16, terms: &Value) -> Self {
        Self::sized(partitions, terms, &[]).await
    }

    /// The same with streams, or kinds of streams, that may hold so many bytes.
    pub async fn sized(partitions: u16, terms: &Value, max_bytes: &[(&str, u64)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let broker = Broker::start(BrokerSettings::new(dir.path(), Sync::Relaxed)).await.unwrap();
        let log = JetStream::connect(&broker.url(), "test", &ConnectSettings::default()).await.unwrap();
        let mut setup = SetUp::new(partitions);
        setup.max_bytes = max_bytes.iter().map(|&(name, bytes)| (name.to_owned(), bytes)).collect();
        setup::ensure(&log, &setup).await.unwrap();
        let world = Self { log, partitions, setup, broker, dir };
        world.apply(terms).await;
        world
    }

    /// Applies terms.
    pub async fn apply(&self, terms: &Value) {
        let terms = Terms::parse(terms.to_string().as_bytes()).unwrap();
        let claim = store::store(&self.log, &terms).await.unwrap();
        store::activate(&self.log, self.partitions, &claim).await.unwrap();
    }

    /// The command against this broker.
    pub fn jackpot(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jackpot"));
        command.args(args).env("NATS_URL", self.broker.url()).kill_on_drop(true).stdin(Stdio::null());
        command
    }

    /// Lets the broker answer only at the end of each such time, as from a disk whose syncs take that long.
    pub async fn slow_down(&self, sync: Duration) {
        let pid = Pid::from_raw(i32::try_from(self.broker.pid().unwrap()).unwrap()).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        sleep(sync).await;
        kill_process(pid, Signal::CONT).unwrap();
        sleep(sync / 10).await;
    }

    /// Where a test may keep files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts a process of a stage and waits until it serves its port.
    pub async fn stage(&self, stage: &'static str, args: &[&str]) -> Process {
        self.stage_at(&self.url(), stage, args).await
    }

    /// Where the broker listens.
    pub fn url(&self) -> String {
        self.broker.url()
    }

    /// The same for a process that finds the broker there.
    pub async fn stage_at(&self, url: &str, stage: &'static str, args: &[&str]) -> Process {
        let beside = Path::new(env!("CARGO_BIN_EXE_jackpot")).parent().unwrap();
        self.run(beside, url, stage, args).await
    }

    /// The same with a binary of this folder.
    pub async fn stage_of(&self, folder: &Path, stage: &'static str, args: &[&str]) -> Process {
        self.run(folder, &self.url(), stage, args).await
    }

    async fn run(&self, folder: &Path, url: &str, stage: &'static str, args: &[&str]) -> Process {
        let program = folder.join(stage);
        assert!(program.exists(), "{} is not there: run `cargo build --workspace`", program.display());
        let (file, said) = tempfile::Builder::new()
            .prefix(stage)
            .suffix(".log")
            .tempfile_in(self.dir.path())
            .unwrap()
            .keep()
            .unwrap();
        let child = Command::new(program)
            .args(["--nats", url, "--metrics-port", "0"])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(file))
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut process = Process { stage, child, port: 0, said };
        process.port = until(&format!("{stage} serves its port"), async || process.served()).await;
        process
    }

    /// All five, in the order of the flow.
    pub async fn stages(&self, args: &[&str]) -> Vec<Process> {
        let mut processes = Vec::new();
        for stage in ["validate", "geofence", "allocate", "aggregate", "audit"] {
            processes.push(self.stage(stage, args).await);
        }
        processes
    }

    /// Publishes batches one after the other, each acknowledged; gives the last one's place in the ingress.
    pub async fn publish(&self, batches: &[Value]) -> u64 {
        let mut appender = self.log.appender().await.unwrap();
        let mut last = 0;
        for batch in batches {
            let subject =
                topology::wagers(batch["operator"].as_str().unwrap(), batch["source"].as_str().unwrap());
            let payload = batch.to_string().into();
            appender
                .send(Append { subject, headers: Vec::new(), payload, expect: Expect::Any })
                .await
                .unwrap();
            last = appender.acknowledged().await.unwrap();
        }
        last
    }

    /// All that a stream holds.
    pub async fn read(&self, stream: &str) -> Vec<Entry> {
        let last = self.log.extent(stream).await.unwrap().last;
        let mut entries: Vec<Entry> = Vec::new();
        if last == 0 {
            return entries;
        }
        let mut reader = self.log.read(stream, None, 1).await.unwrap();
        while entries.last().is_none_or(|entry| entry.sequence < last) {
            let next = timeout(PATIENCE, reader.next()).await;
            entries.push(next.unwrap_or_else(|_| panic!("{stream} is read to its end")).unwrap());
        }
        entries
    }

    /// Puts another stream in the place of this one: the same settings, and these messages, each under the subject that
    /// it was published to.
    pub async fn replace(&self, stream: &str, messages: &[(String, Bytes)]) {
        let answer =
            self.log.client().request(format!("$JS.API.STREAM.DELETE.{stream}"), "".into()).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        assert_eq!(answer["success"], true, "{answer}");
        let all = setup::streams(&self.setup);
        let settings = all.iter().find(|settings| settings.name == stream).unwrap();
        setup::create(&self.log, settings, 1).await.unwrap();
        let mut appender = self.log.appender().await.unwrap();
        for (sequence, (subject, payload)) in (1..).zip(messages) {
            let (subject, payload) = (subject.clone(), payload.clone());
            let expect = Expect::Last(sequence - 1);
            appender.send(Append { subject, headers: Vec::new(), payload, expect }).await.unwrap();
            assert_eq!(appender.acknowledged().await.unwrap(), sequence);
        }
    }

    /// Reads a lane's stream, lets `change` do what it likes with the messages, and puts them in its place.
    pub async fn tamper(&self, lane: Lane, partition: u16, change: impl FnOnce(&mut Vec<Bytes>)) {
        let stream = lane.stream(partition);
        let mut messages = self.read(&stream).await.into_iter().map(|entry| entry.payload).collect();
        change(&mut messages);
        let subject = lane.subject(partition);
        let messages: Vec<_> = messages.into_iter().map(|payload| (subject.clone(), payload)).collect();
        self.replace(&stream, &messages).await;
    }

    /// The last commit.
    pub async fn commit(&self) -> Option<Commit> {
        let entry = self.log.last(topology::COMMITS, topology::COMMITS).await.unwrap()?;
        Some(serde_json::from_slice(&entry.payload).unwrap())
    }

    /// Waits until all that is published for a partition is in frames of this lane; gives the last one's number.
    pub async fn reached(&self, lane: Lane, partition: u16) -> u64 {
        let batches = topology::batches_filter(partition);
        let last = self.log.last(topology::WAGERS, &batches).await.unwrap().map_or(0, |entry| entry.sequence);
        until(&format!("{} reaches {last}", lane.stream(partition)), async || {
            let (stream, subject) = (lane.stream(partition), lane.subject(partition));
            let tail = self.log.last(&stream, &subject).await.unwrap()?;
            (Header::peek_any(&tail.payload).unwrap().ingress.position >= last).then_some(tail.sequence)
        })
        .await
    }

    /// Waits until all that is published for a partition is in totals and audit.
    pub async fn settled(&self, partition: u16) {
        let frame = self.reached(Lane::Audit, partition).await;
        let what = format!("frame {frame} of partition {partition} is in totals, windows and hits");
        let commit = until(&what, async || {
            let commit = self.commit().await?;
            let consumed = commit.partitions[usize::from(partition)].frame;
            (consumed >= frame).then_some(commit)
        })
        .await;
        until(&what, async || {
            let last = self.log.last(topology::TOTALS, "totals.>").await.unwrap()?;
            let settled = last.headers.iter().find(|(name, _)| name == SETTLED)?.1.parse::<u64>().unwrap();
            let windows = self.log.extent(topology::WINDOWS).await.unwrap().last;
            let hits = self.log.extent(topology::HITS).await.unwrap().last;
            let shown = settled >= commit.counts.changed
                && windows >= commit.counts.windows
                && hits >= commit.counts.hits;
            shown.then_some(())
        })
        .await;
    }

    /// How far the spine has read the ingress.
    pub async fn spine(&self, partition: u16) -> Option<Header> {
        let (stream, subject) = (Lane::Validated.stream(partition), Lane::Validated.subject(partition));
        let tail = self.log.last(&stream, &subject).await.unwrap()?;
        Some(Header::peek::<Validated>(&tail.payload).unwrap())
    }
}

impl Process {
    /// The port, once it says where it serves.
    fn served(&self) -> Option<u16> {
        let said = self.said();
        let (_, address) = said.split_once("/readyz on ")?;
        address.split_whitespace().next()?.rsplit(':').next()?.parse().ok()
    }

    /// What it logged.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap()
    }

    /// Asks its port; the status and the body.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// A metric's value, by its name and its label `partition`; 0 where there is none.
    pub async fn metric(&self, name: &str, partition: &str) -> u64 {
        let (_, body) = self.get("/metrics").await;
        let label = format!("partition=\"{partition}\"");
        let line = body.lines().find(|line| line.starts_with(&format!("{name}{{")) && line.contains(&label));
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }

    /// What it has in memory, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let pid = self.child.id().unwrap_or_else(|| panic!("{} runs: {}", self.stage, self.said()));
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Waits until it says this of itself, and is not ready; gives the line.
    pub async fn says(&self, what: &str) -> String {
        until(&format!("{} says {what:?}", self.stage), async || {
            let (status, body) = self.get("/readyz").await;
            let line = body.lines().find(|line| line.contains(what))?;
            (status == 503).then(|| line.to_owned())
        })
        .await
    }

    /// Waits until it is ready.
    pub async fn ready(&self) {
        until(&format!("{} is ready", self.stage), async || {
            (self.get("/readyz").await.0 == 200).then_some(())
        })
        .await;
    }

    /// Waits until this part has stopped; gives its sentence. It is one line of `/readyz`, and no other part has one.
    pub async fn stopped(&self, part: &str) -> String {
        let start = format!("{part} stopped: ");
        let what = format!("{} says that {part} has stopped", self.stage);
        let body = until(&what, async || {
            let (status, body) = self.get("/readyz").await;
            (status == 503 && body.contains(&start)).then_some(body)
        })
        .await;
        let others: Vec<_> =
            body.lines().filter(|line| line.contains("stopped") && !line.starts_with(&start)).collect();
        assert!(others.is_empty(), "{}: {others:?}", self.stage);
        body.lines().find_map(|line| line.strip_prefix(&start)).unwrap().to_owned()
    }

    /// Holds it as it is: it does nothing and notices nothing, whatever its timers are.
    pub fn hold(&self) {
        kill_process(self.pid(), Signal::STOP).unwrap();
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        kill_process(self.pid(), Signal::CONT).unwrap();
    }

    /// Ends it as Kubernetes does.
    pub async fn end(mut self) {
        kill_process(self.pid(), Signal::TERM).unwrap();
        let ended =
            timeout(PATIENCE, self.child.wait()).await.unwrap_or_else(|_| panic!("{} ends", self.stage));
        assert_eq!(ended.unwrap().code(), Some(143), "{}: {}", self.stage, self.said());
    }

    fn pid(&self) -> Pid {
        let pid = self.child.id().unwrap_or_else(|| panic!("{} runs: {}", self.stage, self.said()));
        Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
    }
}

/// Ends all.
pub async fn end(processes: Vec<Process>) {
    for process in processes {
        process.end().await;
    }
}

/// Terms with one source, of operator `acme`, one game and one level.
pub fn one_level(source: &str) -> Value {
    json!({
        "schema": "terms/1", "revision": 1,
        "jurisdictions": [{"code": "MT", "status": "permitted"}],
        "operators": [{"operator": "acme", "jurisdictions": ["MT"]}],
        "sources": [{"source": source, "operator": "acme"}],
        "games": [{"game": "spin", "supplier": "x"}],
        "pools": [{"pool": "mega", "currency": "EUR", "jurisdictions": ["MT"], "levels": [
            {"level": "grand", "base": "1000", "increment_ppm": 3000, "reserve_ppm": 1000},
        ]}],
    })
}

/// A batch of that source with one wager, which takes part in that level.
pub fn one_wager(source: &str, sequence: u64) -> Value {
    let now = Millis::now().to_string();
    json!({"schema": "wager-batch/1", "operator": "acme", "source": source, "sequence": sequence, "wagers": [{
        "session": "s", "interaction": sequence, "player": "p", "game": "spin", "round": "r", "amount": "2",
        "currency": "EUR", "funds": "cash", "occurred_at": now, "location": {"jurisdiction": "MT", "checked_at": now},
    }]})
}

/// Waits for a condition.
pub async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(Instant::now() < deadline, "after {} s still not: {what}", PATIENCE.as_secs());
        sleep(Duration::from_millis(10)).await;
    }
}
