//! What a [`Log`] promises, as one suite that every implementation passes: in memory, on a real nats-server, and
//! either of them through [`Faulty`] while nothing goes wrong. Below it, what `Faulty` does, and what only a real
//! server can show. Tests that start a server are in modules whose names begin with `nats_` (`.config/nextest.toml`).

#![expect(clippy::unwrap_used, reason = "a check that cannot go on has failed")]

use std::future::Future;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use jackpot_core::broker::{Broker, BrokerError, BrokerSettings, Sync};
use jackpot_core::log::faulty::{Fault, Faulty, Rates};
use jackpot_core::log::jetstream::setup::{self, Done, SetUp, SetUpError, StreamSettings};
use jackpot_core::log::jetstream::{ConnectSettings, JetStream};
use jackpot_core::log::memory::Memory;
use jackpot_core::log::{
    Append, AppendError, Appender, Entry, Expect, Extent, Log, LogError, ReadError, Reader,
};
use jackpot_core::time::Millis;
use jackpot_core::topology;
use tokio::time::{Instant, timeout};

/// A log and the means to give it streams.
trait World {
    type Log: Log;
    fn log(&self) -> &Self::Log;
    fn create(&self, settings: StreamSettings) -> impl Future<Output = ()>;
}

struct MemoryWorld(Memory);

impl MemoryWorld {
    async fn new() -> Self {
        let clock = AtomicI64::new(1_780_949_730_000);
        Self(Memory::new([], move || Millis(clock.fetch_add(1, Ordering::Relaxed))))
    }
}

impl World for MemoryWorld {
    type Log = Memory;
    fn log(&self) -> &Memory {
        &self.0
    }
    async fn create(&self, settings: StreamSettings) {
        self.0.create(settings);
    }
}

struct NatsWorld {
    log: JetStream,
    broker: Broker,
    _dir: tempfile::TempDir,
}

impl NatsWorld {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let broker = Broker::start(BrokerSettings::new(dir.path(), Sync::Relaxed)).await.unwrap();
        let log = JetStream::connect(&broker.url(), "contract", &ConnectSettings::default()).await.unwrap();
        Self { log, broker, _dir: dir }
    }

    async fn ask(&self, subject: String, body: serde_json::Value) -> serde_json::Value {
        let answer = self.log.client().request(subject, body.to_string().into()).await.unwrap();
        serde_json::from_slice(&answer.payload).unwrap()
    }
}

impl World for NatsWorld {
    type Log = JetStream;
    fn log(&self) -> &JetStream {
        &self.log
    }
    async fn create(&self, settings: StreamSettings) {
        setup::create(&self.log, &settings, 1).await.unwrap();
    }
}

/// A world through a bad network, in which nothing goes wrong until it is planned.
struct FaultyWorld<W: World> {
    inner: W,
    log: Faulty<W::Log>,
}

impl<W: World> FaultyWorld<W> {
    fn over(inner: W) -> Self {
        let log = Faulty::planned(inner.log().clone(), Duration::from_millis(50));
        Self { inner, log }
    }
}

impl<W: World> World for FaultyWorld<W> {
    type Log = Faulty<W::Log>;
    fn log(&self) -> &Self::Log {
        &self.log
    }
    async fn create(&self, settings: StreamSettings) {
        self.inner.create(settings).await;
    }
}

/// One test of each check, in each world.
macro_rules! contract {
    ($($check:ident),* $(,)?) => {
        mod memory {
            use super::*;
            $(#[tokio::test] async fn $check() { within(super::$check(&MemoryWorld::new().await)).await })*
        }
        mod memory_faulty {
            use super::*;
            $(#[tokio::test] async fn $check() {
                within(super::$check(&FaultyWorld::over(MemoryWorld::new().await))).await
            })*
        }
        mod nats_server {
            use super::*;
            $(#[tokio::test] async fn $check() { within(super::$check(&NatsWorld::new().await)).await })*
        }
        mod nats_server_faulty {
            use super::*;
            $(#[tokio::test] async fn $check() {
                within(super::$check(&FaultyWorld::over(NatsWorld::new().await))).await
            })*
        }
    };
}

contract!(
    messages_come_back_in_order,
    readers_wait_for_what_comes,
    fences_hold,
    predicted_sequences_can_be_pipelined,
    a_stale_writers_later_predictions_come_true,
    atomic_batches_are_all_or_nothing,
    filters_show_their_part_in_order,
    the_next_of_a_subject_is_found_from_anywhere,
    a_full_stream_refuses,
    subjects_keep_their_last_messages,
    readers_start_where_the_stream_does,
    a_part_of_a_stream_is_trimmed,
    a_log_that_is_shorter_than_thought_is_noticed,
    what_is_missing_is_said,
    large_messages_pass,
    many_messages_pass,
    the_ingress_is_spread_over_lanes,
    waiting_can_be_cancelled,
    messages_that_cannot_be_are_rejected,
    notices_reach_those_who_listen,
);

async fn within(check: impl Future<Output = ()>) {
    timeout(Duration::from_secs(60), check).await.expect("a check ends within a minute");
}

fn stream(name: &str) -> StreamSettings {
    let subjects = format!("{name}.>");
    StreamSettings {
        atomic: true,
        removable: true,
        ..StreamSettings::record(name, &[&subjects], 256 * 1024 * 1024)
    }
}

fn append(subject: &str, payload: impl Into<Bytes>, expect: Expect) -> Append {
    Append { subject: subject.into(), headers: Vec::new(), payload: payload.into(), expect }
}

/// Sends all, then takes all fates.
async fn append_all<L: Log>(log: &L, appends: Vec<Append>) -> Vec<Result<u64, AppendError>> {
    let mut appender = log.appender().await.unwrap();
    let mut fates = Vec::new();
    let count = appends.len();
    for append in appends {
        appender.send(append).await.unwrap();
    }
    for left in (0..count).rev() {
        fates.push(appender.acknowledged().await);
        assert_eq!(appender.in_flight(), left);
    }
    fates
}

/// Appends `s.x` messages with these payloads, which must succeed.
async fn fill<L: Log>(log: &L, subject: &str, payloads: impl IntoIterator<Item = String>) {
    let appends = payloads.into_iter().map(|payload| append(subject, payload, Expect::Any)).collect();
    for fate in append_all(log, appends).await {
        fate.unwrap();
    }
}

async fn read_all<R: Reader>(reader: &mut R, count: usize) -> Vec<Entry> {
    let mut entries = Vec::with_capacity(count);
    while entries.len() < count {
        entries.push(reader.next().await.unwrap());
    }
    entries
}

fn sequences(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.sequence).collect()
}

fn short(fates: &[Result<u64, AppendError>]) -> Vec<String> {
    let word = |fate: &Result<u64, AppendError>| match fate {
        Ok(sequence) => sequence.to_string(),
        Err(AppendError::Fenced(_)) => "fenced".into(),
        Err(AppendError::Full(_)) => "full".into(),
        Err(AppendError::Unknown(_) | AppendError::Silent(_)) => "unknown".into(),
        Err(AppendError::Rejected(_)) => "rejected".into(),
    };
    fates.iter().map(word).collect()
}

async fn messages_come_back_in_order(world: &impl World) {
    world.create(stream("s")).await;
    let log = world.log();
    let empty = log.extent("s").await.unwrap();
    assert_eq!(empty, Extent { first: 1, last: 0, bytes: 0, max_bytes: stream("s").max_bytes, at: empty.at });
    let headers = vec![("b-late".to_owned(), "2".to_owned()), ("a-early".to_owned(), "1".to_owned())];
    let one = Append { headers: headers.clone(), ..append("s.one", "first", Expect::Last(0)) };
    let mut appends = vec![one];
    appends.extend((2..=100).map(|n| append("s.more", format!("message {n}"), Expect::Any)));
    let fates = append_all(log, appends).await;
    let expect: Vec<String> = (1..=100).map(|n: u64| n.to_string()).collect();
    assert_eq!(short(&fates), expect);

    let mut reader = log.read("s", None, 1).await.unwrap();
    let entries = read_all(&mut reader, 100).await;
    assert_eq!(sequences(&entries), (1..=100).collect::<Vec<u64>>());
    assert_eq!((entries[0].subject.as_ref(), entries[0].payload.as_ref()), ("s.one", b"first".as_ref()));
    let sorted = [("a-early", "1"), ("b-late", "2")].map(|(n, v)| (n.to_owned(), v.to_owned()));
    assert_eq!(entries[0].headers, sorted, "sorted, and without the broker's own");
    assert_eq!(
        (entries[99].subject.as_ref(), entries[99].payload.as_ref()),
        ("s.more", b"message 100".as_ref())
    );
    assert!(entries[99].headers.is_empty());
    assert!(entries.windows(2).all(|pair| pair[0].recorded_at <= pair[1].recorded_at));

    let mut reader = log.read("s", None, 51).await.unwrap();
    assert_eq!(reader.next().await.unwrap(), entries[50]);
    for at in [0, 42, 99] {
        assert_eq!(log.get("s", entries[at].sequence).await.unwrap().as_ref(), Some(&entries[at]));
    }
    assert_eq!(log.last("s", "s.more").await.unwrap().as_ref(), Some(&entries[99]));
    assert_eq!(log.last("s", "s.one").await.unwrap().as_ref(), Some(&entries[0]));
    assert_eq!(log.last("s", "s.*").await.unwrap().as_ref(), Some(&entries[99]));
    let extent = log.extent("s").await.unwrap();
    assert_eq!((extent.first, extent.last), (1, 100));
    assert!(extent.bytes > 100 * 10);
}

async fn readers_wait_for_what_comes(world: &impl World) {
    world.create(stream("s")).await;
    let log = world.log();
    let mut reader = log.read("s", None, 1).await.unwrap();
    assert!(reader.ready().is_none());
    fill(log, "s.x", ["a".into()]).await;
    assert_eq!(reader.next().await.unwrap().payload, "a");
    let waiting = async {
        let entry = reader.next().await.unwrap();
        (entry.sequence, entry.payload)
    };
    let ((), got) = tokio::join!(
        async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            fill(log, "s.x", ["b".into()]).await;
        },
        waiting
    );
    assert_eq!(got, (2, "b".into()));
    fill(log, "s.x", ["c".into(), "d".into()]).await;
    assert_eq!(reader.next().await.unwrap().payload, "c");
    let begun = Instant::now();
    let ready = loop {
        match reader.ready() {
            Some(ready) => break ready,
            None if begun.elapsed() > Duration::from_secs(10) => panic!("it never became ready"),
            None => tokio::task::yield_now().await,
        }
    };
    assert_eq!(ready.unwrap().payload, "d");
}

async fn fences_hold(world: &impl World) {
    world.create(stream("s")).await;
    let log = world.log();
    let appends = vec![
        append("s.a", "1", Expect::Last(0)),
        append("s.a", "x", Expect::Last(0)),
        append("s.a", "x", Expect::Last(7)),
        append("s.b", "2", Expect::LastOfSubject(0)),
        append("s.b", "x", Expect::LastOfSubject(0)),
        append("s.a", "x", Expect::LastOfSubject(2)),
        append("s.a", "3", Expect::LastOfSubject(1)),
        append("s.b", "4", Expect::Last(3)),
        append("s.b", "5", Expect::Any),
    ];
    let fates = append_all(log, appends).await;
    let expect = ["1", "fenced", "fenced", "2", "fenced", "fenced", "3", "4", "5"];
    assert_eq!(short(&fates), expect);
    let mut reader = log.read("s", None, 1).await.unwrap();
    let payloads: Vec<Bytes> =
        read_all(&mut reader, 5).await.into_iter().map(|entry| entry.payload).collect();
    assert_eq!(payloads, ["1", "2", "3", "4", "5"]);
}

async fn predicted_sequences_can_be_pipelined(world: &impl World) {
    world.create(stream("s")).await;
    let log = world.log();
    let appends = (0..64).map(|n| append("s.x", n.to_string(), Expect::Last(n))).collect();
    let fates = append_all(log, appends).await;
    assert_eq!(short(&fates), (1..=64).map(|n: u64| n.to_string()).collect::<Vec<_>>());
}

async fn a_stale_writers_later_predictions_come_true(world: &impl World) {
    world.create(stream("s")).await;
    let log = world.log();
    let predicted = |count: u64| (0..count).map(|n| append("s.x", n.to_string(), Expect::Last(n))).collect();
    let owner = append_all(log, predicted(3)).await;
    assert_eq!(short(&owner), ["1", "2", "3"]);
    let stale = append_all(log, predicted(6)).await;
    assert_eq!(short(&stale), ["fenced", "fenced", "fenced", "4", "5", "6"]);
}

async fn atomic_batches_are_all_or_nothing(world: &impl World) {
    world.create(stream("s")).await;
    world.create(stream("t")).await;
    let log = world.log();
    let last = async || log.extent("s").await.unwrap().last;
    let batch = |fence: Expect, second: Expect| {
        vec![append("s.a", "a", fence), append("s.b", "b", second), append("s.c", "c", Expect::Any)]
    };
    assert_eq!(log.append_atomic(batch(Expect::Last(0), Expect::Any)).await.unwrap(), 3);
    assert_eq!(last().await, 3);
    for (fence, second) in [
        (Expect::Last(0), Expect::Any),
        (Expect::LastOfSubject(0), Expect::Any),
        (Expect::Any, Expect::LastOfSubject(7)),
        (Expect::LastOfSubject(1), Expect::LastOfSubject(1)),
    ] {
        let error = log.append_atomic(batch(fence, second)).await.unwrap_err();
        assert!(matches!(error, AppendError::Fenced(_)), "{fence:?} {second:?}: {error:?}");
        assert_eq!(last().await, 3, "nothing is stored");
    }
    let sequence =
        log.append_atomic(batch(Expect::LastOfSubject(1), Expect::LastOfSubject(2))).await.unwrap();
    assert_eq!(sequence, 6);
    assert_eq!(log.append_atomic(vec![append("s.a", "alone", Expect::Last(6))]).await.unwrap(), 7);
    let error = log.append_atomic(vec![append("s.a", "alone", Expect::Last(6))]).await.unwrap_err();
    assert!(matches!(error, AppendError::Fenced(_)), "{error:?}");

    for unfit in [
        vec![],
        vec![append("s.a", "a", Expect::Any), append("s.b", "b", Expect::Last(8))],
        vec![append("s.a", "a", Expect::Any), append("t.a", "b", Expect::Any)],
        vec![append("s.a", "a", Expect::Any), append("s.a", "b", Expect::LastOfSubject(8))],
    ] {
        let error = log.append_atomic(unfit).await.unwrap_err();
        assert!(matches!(error, AppendError::Rejected(_)), "{error:?}");
    }
    assert_eq!(last().await, 7);

    let many = (0..500).map(|n| append("s.many", n.to_string(), Expect::Any)).collect();
    assert_eq!(log.append_atomic(many).await.unwrap(), 507);
    let mut reader = log.read("s", Some("s.many"), 1).await.unwrap();
    let entries = read_all(&mut reader, 500).await;
    assert_eq!(sequences(&entries), (8..=507).collect::<Vec<u64>>());
    assert!(entries.iter().all(|entry| entry.headers.is_empty()), "the batch's own headers are left out");
}

async fn filters_show_their_part_in_order(world: &impl World) {
    world.create(stream("s")).await;
    let log = world.log();
    let subjects = ["s.0.a", "s.1.a", "s.0.b.c", "s.1.terms"];
    let appends = (0..200).map(|n| append(subjects[n % 4], n.to_string(), Expect::Any)).collect();
    append_all(log, appends).await;
    let check = async |filter: &str, from: u64, expect: Vec<u64>| {
        let mut reader = log.read("s", Some(filter), from).await.unwrap();
        let entries = read_all(&mut reader, expect.len()).await;
        assert_eq!(sequences(&entries), expect, "{filter} from {from}");
        assert!(entries.iter().all(|entry| topology::fits(&entry.subject, filter)));
        assert!(reader.ready().is_none());
    };
    check("s.0.>", 1, (1..=200).filter(|n| n % 2 == 1).collect()).await;
    check("s.1.*", 1, (1..=200).filter(|n| n % 2 == 0).collect()).await;
    check("s.1.terms", 101, (101..=200).filter(|n| n % 4 == 0).collect()).await;
    check("s.0.b.c", 199, vec![199]).await;
    check("s.nobody", 1, vec![]).await;
}

async fn the_next_of_a_subject_is_found_from_anywhere(world: &impl World) {
    world.create(stream("s")).await;
    let log = world.log();
    assert!(log.next("s", "s.>", 1).await.unwrap().is_none(), "nothing is stored yet");
    for (subject, payload) in [("s.a", "1"), ("s.b", "2"), ("s.a", "3"), ("s.c.d", "4")] {
        fill(log, subject, [payload.into()]).await;
    }
    for (filter, from, expect) in [
        ("s.a", 0, Some(1)),
        ("s.a", 1, Some(1)),
        ("s.a", 2, Some(3)),
        ("s.a", 4, None),
        ("s.*", 2, Some(2)),
        ("s.*", 4, None),
        ("s.>", 4, Some(4)),
        ("s.>", 5, None),
        ("s.x", 1, None),
    ] {
        let found = log.next("s", filter, from).await.unwrap();
        assert_eq!(found.map(|entry| entry.sequence), expect, "{filter} from {from}");
    }
    let missing = log.next("none", "none.>", 1).await;
    assert!(matches!(missing, Err(LogError::NoStream(_))), "{missing:?}");
}

async fn a_full_stream_refuses(world: &impl World) {
    world.create(StreamSettings { max_bytes: 100_000, ..stream("s") }).await;
    let log = world.log();
    let appends = (0..15).map(|_| append("s.x", vec![b'x'; 9_000], Expect::Any)).collect();
    let fates = append_all(log, appends).await;
    let expect: Vec<String> =
        (1..=15).map(|n: u64| if n <= 11 { n.to_string() } else { "full".into() }).collect();
    assert_eq!(short(&fates), expect);
    assert_eq!(short(&append_all(log, vec![append("s.x", "small", Expect::Last(11))]).await), ["12"]);
    let error =
        log.append_atomic(vec![append("s.x", "1", Expect::Any), append("s.x", vec![0; 9_000], Expect::Any)]);
    let error = error.await.unwrap_err();
    assert!(matches!(error, AppendError::Full(_)), "{error:?}");
    let mut reader = log.read("s", None, 1).await.unwrap();
    assert_eq!(read_all(&mut reader, 12).await.len(), 12);
}

async fn subjects_keep_their_last_messages(world: &impl World) {
    world.create(StreamSettings { per_subject_max: Some(2), ..stream("s") }).await;
    let log = world.log();
    fill(log, "s.a", (1..=3).map(|n| format!("a{n}"))).await;
    fill(log, "s.b", (1..=5).map(|n| format!("b{n}"))).await;
    let payload = async |filter: &str| log.last("s", filter).await.unwrap().map(|entry| entry.payload);
    assert_eq!(payload("s.a").await.unwrap(), "a3");
    assert_eq!(payload("s.*").await.unwrap(), "b5");
    assert_eq!(payload("s.c").await, None);
    assert_eq!(log.get("s", 1).await.unwrap(), None, "the oldest went");
    let mut reader = log.read("s", Some("s.>"), 1).await.unwrap();
    assert_eq!(sequences(&read_all(&mut reader, 4).await), [2, 3, 7, 8], "a filter allows what is not there");
    let appends =
        vec![append("s.a", "x", Expect::LastOfSubject(0)), append("s.a", "a4", Expect::LastOfSubject(3))];
    assert_eq!(short(&append_all(log, appends).await), ["fenced", "9"]);
}

async fn readers_start_where_the_stream_does(world: &impl World) {
    world.create(stream("s")).await;
    let log = world.log();
    fill(log, "s.x", (1..=10).map(|n| n.to_string())).await;
    world.log().trim("s", None, 6).await.unwrap();
    let extent = log.extent("s").await.unwrap();
    assert_eq!((extent.first, extent.last), (6, 10));
    for (from, first) in [(0, 6), (1, 6), (6, 6), (8, 8)] {
        let mut reader = log.read("s", None, from).await.unwrap();
        assert_eq!(reader.next().await.unwrap().sequence, first, "from {from}");
    }
    world.log().trim("s", None, 11).await.unwrap();
    let extent = log.extent("s").await.unwrap();
    assert_eq!((extent.first, extent.last), (11, 10), "nothing is there, and the numbers go on");
    let mut reader = log.read("s", None, 3).await.unwrap();
    fill(log, "s.x", ["11".into()]).await;
    assert_eq!(reader.next().await.unwrap().sequence, 11);
}

async fn a_part_of_a_stream_is_trimmed(world: &impl World) {
    world.create(stream("s")).await;
    let log = world.log();
    for number in 1..=4 {
        fill(log, "s.a", [format!("a{number}")]).await;
        fill(log, "s.b", [format!("b{number}")]).await;
    }
    log.trim("s", Some("s.a"), 5).await.unwrap();
    let mut reader = log.read("s", Some("s.>"), 1).await.unwrap();
    assert_eq!(sequences(&read_all(&mut reader, 6).await), [2, 4, 5, 6, 7, 8]);
    for before in [0, 1] {
        log.trim("s", None, before).await.unwrap();
        assert_eq!(log.extent("s").await.unwrap().first, 2, "nothing is before {before}");
    }
    assert!(matches!(log.trim("none", None, 5).await, Err(LogError::NoStream(_))));
}

async fn a_log_that_is_shorter_than_thought_is_noticed(world: &impl World) {
    world.create(stream("s")).await;
    let log = world.log();
    fill(log, "s.x", ["1".into(), "2".into()]).await;
    for filter in [None, Some("s.x")] {
        let last = log.extent("s").await.unwrap().last;
        let mut reader = log.read("s", filter, last + 5).await.unwrap();
        assert!(reader.ready().is_none());
        match reader.next().await {
            Err(ReadError::Gap { got, expected }) => assert_eq!((got, expected), (last + 1, last + 5)),
            other => panic!("{filter:?}: {other:?}"),
        }
        assert!(matches!(reader.next().await, Err(ReadError::Lost(_))), "it has ended for good");
        assert!(reader.ready().is_none());
    }
}

async fn what_is_missing_is_said(world: &impl World) {
    world.create(stream("s")).await;
    let log = world.log();
    let missing = |error: LogError| assert!(matches!(error, LogError::NoStream(_)), "{error:?}");
    missing(log.extent("nowhere").await.unwrap_err());
    missing(log.last("nowhere", "x").await.unwrap_err());
    missing(log.get("nowhere", 1).await.unwrap_err());
    missing(log.read("nowhere", None, 1).await.err().unwrap());
    assert_eq!(log.last("s", "s.x").await.unwrap(), None);
    assert_eq!(log.get("s", 1).await.unwrap(), None);
    assert_eq!(log.get("s", 0).await.unwrap(), None);
    let fates = append_all(log, vec![append("nowhere.x", "", Expect::Any)]).await;
    assert_eq!(short(&fates), ["unknown"], "a stream may be on its way");
    let mut appender = log.appender().await.unwrap();
    let nothing = timeout(Duration::from_millis(50), appender.acknowledged()).await;
    assert!(nothing.is_err(), "with nothing in flight there is nothing to hear");
}

async fn large_messages_pass(world: &impl World) {
    world.create(stream("s")).await;
    let log = world.log();
    // Of sizes that do not divide what a reader asks for, so that pulls end in the middle.
    let sizes = [1, 1_000_000, 512 * 1024, 700_001, 0, 999_999, 300_000];
    let mut appender = log.appender().await.unwrap();
    for n in 0..50 {
        let payload = vec![u8::try_from(n).unwrap(); sizes[n % sizes.len()]];
        appender.send(append("s.x", payload, Expect::Any)).await.unwrap();
        if appender.in_flight() == 8 {
            appender.acknowledged().await.unwrap();
        }
    }
    while appender.in_flight() > 0 {
        appender.acknowledged().await.unwrap();
    }
    for filter in [None, Some("s.x")] {
        let mut reader = log.read("s", filter, 1).await.unwrap();
        for (n, entry) in read_all(&mut reader, 50).await.iter().enumerate() {
            let byte = u8::try_from(n).unwrap();
            assert_eq!(entry.payload.len(), sizes[n % sizes.len()]);
            assert!(entry.payload.iter().all(|b| *b == byte));
        }
    }
    assert_eq!(log.get("s", 2).await.unwrap().unwrap().payload.len(), 1_000_000);
}

async fn many_messages_pass(world: &impl World) {
    const MANY: u64 = 30_000;
    world.create(stream("s")).await;
    let log = world.log();
    let mut appender = log.appender().await.unwrap();
    for n in 1..=MANY {
        // More than an appender may have in flight: it waits by itself.
        appender.send(append("s.x", n.to_string(), Expect::Any)).await.unwrap();
    }
    for n in 1..=MANY {
        assert_eq!(appender.acknowledged().await.unwrap(), n);
    }
    for filter in [None, Some("s.>")] {
        let mut reader = log.read("s", filter, 1).await.unwrap();
        let mut expected = 1;
        while expected <= MANY {
            let mut entry = reader.next().await.unwrap();
            loop {
                assert_eq!(
                    (entry.sequence, entry.payload.as_ref()),
                    (expected, expected.to_string().as_bytes())
                );
                expected += 1;
                match reader.ready() {
                    Some(ready) => entry = ready.unwrap(),
                    None => break,
                }
            }
        }
    }
}

async fn the_ingress_is_spread_over_lanes(world: &impl World) {
    let setup = SetUp::new(4);
    let wagers = setup::streams(&setup).into_iter().find(|stream| stream.name == topology::WAGERS).unwrap();
    world.create(wagers).await;
    let log = world.log();
    let sources: Vec<String> = (0..60).map(|n| format!("src-{n}")).collect();
    let batch = |source: &String| append(&topology::wagers("acme", source), source.clone(), Expect::Any);
    append_all(log, sources.iter().map(batch).collect()).await;
    let marker = |p: u16| append(&topology::terms_marker(p), "marker", Expect::LastOfSubject(0));
    assert_eq!(log.append_atomic((0..4).map(marker).collect()).await.unwrap(), 64);
    append_all(log, sources.iter().map(batch).collect()).await;
    for partition in 0..4 {
        let mine: Vec<String> = sources
            .iter()
            .filter(|source| topology::partition(source, 4) == partition)
            .map(|source| format!("lane.{partition}.acme.{source}"))
            .collect();
        assert!(!mine.is_empty());
        let mut expect = mine.clone();
        expect.push(topology::terms_marker(partition));
        expect.extend(mine);
        let mut reader =
            log.read(topology::WAGERS, Some(&topology::ingress_filter(partition)), 1).await.unwrap();
        let entries = read_all(&mut reader, expect.len()).await;
        let got: Vec<String> = entries.iter().map(|entry| entry.subject.to_string()).collect();
        assert_eq!(got, expect, "partition {partition}");
        assert!(reader.ready().is_none());
        let marker = log.last(topology::WAGERS, &topology::terms_marker(partition)).await.unwrap().unwrap();
        assert_eq!(marker.sequence, 61 + u64::from(partition));
    }
    // A fence on the subject is on the one that it is stored under.
    let source = &sources[0];
    let last = format!("lane.{}.acme.{source}", topology::partition(source, 4));
    let last = log.last(topology::WAGERS, &last).await.unwrap().unwrap().sequence;
    let fenced = |last| Append { expect: Expect::LastOfSubject(last), ..batch(source) };
    let fates = append_all(log, vec![fenced(0), fenced(last)]).await;
    assert_eq!(short(&fates), ["fenced", "125"]);
    let stray = append("lane.0.acme.src-0", "", Expect::Any);
    assert_eq!(short(&append_all(log, vec![stray]).await), ["unknown"], "no way around the transform");
}

async fn waiting_can_be_cancelled(world: &impl World) {
    world.create(stream("s")).await;
    let log = world.log();
    let mut reader = log.read("s", None, 1).await.unwrap();
    let mut appender = log.appender().await.unwrap();
    let (mut read, mut acknowledged) = (Vec::new(), Vec::new());
    let mut sent = 0_u64;
    while read.len() < 500 || acknowledged.len() < 500 {
        if sent < 500 {
            appender.send(append("s.x", "x", Expect::Last(sent))).await.unwrap();
            sent += 1;
        }
        // Each turn cancels the one that is slower, and now and then both.
        tokio::select! {
            entry = reader.next() => read.push(entry.unwrap().sequence),
            sequence = appender.acknowledged() => acknowledged.push(sequence.unwrap()),
            () = tokio::time::sleep(Duration::from_micros(50)) => {}
        }
    }
    assert_eq!(read, (1..=500).collect::<Vec<u64>>());
    assert_eq!(acknowledged, (1..=500).collect::<Vec<u64>>());
}

async fn messages_that_cannot_be_are_rejected(world: &impl World) {
    world.create(stream("s")).await;
    let log = world.log();
    let header = |name: &str| Append {
        headers: vec![(name.to_owned(), "1".to_owned())],
        ..append("s.x", "header", Expect::Any)
    };
    let appends = vec![
        append("s.x", "fits", Expect::Any),
        append("s.x", vec![0; 1024 * 1024 + 1], Expect::Any),
        header("Nats-Msg-Id"),
        header("fine"),
    ];
    assert_eq!(short(&append_all(log, appends).await), ["1", "rejected", "rejected", "2"]);
}

async fn notices_reach_those_who_listen(world: &impl World) {
    let log = world.log();
    log.notify("idle.1", "nobody hears it".into()).await.unwrap();
    let mut one = log.listen("idle.1").await.unwrap();
    let mut all = log.listen(topology::IDLE_ALL).await.unwrap();
    for partition in 0..3 {
        log.notify(&topology::idle(partition), format!("p{partition}").into()).await.unwrap();
    }
    let notice = |partition: u16| (topology::idle(partition).into(), Bytes::from(format!("p{partition}")));
    assert_eq!(one.recv().await, Some(notice(1)));
    for partition in 0..3 {
        assert_eq!(all.recv().await, Some(notice(partition)));
    }
    for n in 0..3_000 {
        log.notify("idle.1", format!("{n}").into()).await.unwrap();
        if n % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let mut heard = Vec::new();
    while heard.last() != Some(&2_999) {
        heard.push(String::from_utf8_lossy(&one.recv().await.unwrap().1).parse::<u32>().unwrap());
    }
    assert!(
        heard.windows(2).all(|pair| pair[0] < pair[1]),
        "in order, the newest last, the oldest lost first"
    );
}

/// One test of each check of faults, over both implementations.
macro_rules! faults {
    ($($check:ident),* $(,)?) => {
        mod memory_faults {
            use super::*;
            $(#[tokio::test] async fn $check() {
                within(super::$check(&FaultyWorld::over(MemoryWorld::new().await))).await
            })*
        }
        mod nats_faults {
            use super::*;
            $(#[tokio::test] async fn $check() {
                within(super::$check(&FaultyWorld::over(NatsWorld::new().await))).await
            })*
        }
    };
}

faults!(
    after_an_unknown_fate_the_tail_tells,
    readers_end_with_their_faults,
    answers_may_be_old_or_missing,
    atomic_batches_have_unknown_fates_too,
    recovery_by_the_tail_is_exactly_once,
);

async fn after_an_unknown_fate_the_tail_tells<W: World>(world: &FaultyWorld<W>) {
    world.create(stream("s")).await;
    let log = world.log();
    let check = async |fault: Fault, expect: [&str; 4], stored: u64| {
        let begin = log.extent("s").await.unwrap().last;
        let appends = (begin..begin + 4).map(|last| append("s.x", "x", Expect::Last(last))).collect();
        log.plan(1, fault);
        let fates = append_all(log, appends).await;
        let relative: Vec<String> = short(&fates)
            .into_iter()
            .map(|word| word.parse::<u64>().map_or(word.clone(), |n| (n - begin).to_string()))
            .collect();
        assert_eq!(relative, expect, "{fault:?}");
        let last = log.last("s", "s.x").await.unwrap().unwrap().sequence;
        assert_eq!(last - begin, stored, "{fault:?}: the tail tells what is stored");
    };
    check(Fault::TimeoutStored, ["1", "unknown", "3", "4"], 4).await;
    check(Fault::ReplyLost, ["1", "unknown", "3", "4"], 4).await;
    check(Fault::TimeoutLost, ["1", "unknown", "fenced", "fenced"], 1).await;
    check(Fault::Refused, ["1", "fenced", "fenced", "fenced"], 1).await;
    assert_eq!(log.struck(), 4);
}

async fn readers_end_with_their_faults<W: World>(world: &FaultyWorld<W>) {
    world.create(stream("s")).await;
    let log = world.log();
    fill(log, "s.x", (1..=5).map(|n| n.to_string())).await;
    let check = async |fault: Fault, expect: Option<u64>| {
        log.plan(2, fault);
        let mut reader = log.read("s", None, 1).await.unwrap();
        assert_eq!(sequences(&read_all(&mut reader, 2).await), [1, 2]);
        match (reader.next().await, expect) {
            (Err(ReadError::Gap { got, expected: 3 }), Some(expect)) => assert_eq!(got, expect, "{fault:?}"),
            (Err(ReadError::Lost(_)), None) => {}
            (other, _) => panic!("{fault:?}: {other:?}"),
        }
        assert!(reader.ready().is_none() && reader.next().await.is_err(), "it has ended for good");
    };
    check(Fault::Stall, None).await;
    check(Fault::Backward, Some(2)).await;
    check(Fault::Skip, Some(4)).await;
}

async fn answers_may_be_old_or_missing<W: World>(world: &FaultyWorld<W>) {
    world.create(stream("s")).await;
    let log = world.log();
    fill(log, "s.a", ["1".into(), "2".into()]).await;
    fill(log, "s.b", ["3".into(), "4".into()]).await;
    let last = async |filter: &str| log.last("s", filter).await.unwrap().map(|entry| entry.sequence);
    log.plan(0, Fault::Stale);
    assert_eq!(last("s.a").await, Some(1));
    assert_eq!(last("s.a").await, Some(2));
    log.plan(0, Fault::Stale);
    assert_eq!(log.extent("s").await.unwrap().last, 3);
    log.plan(0, Fault::Unavailable);
    assert!(matches!(log.last("s", "s.b").await, Err(LogError::Unavailable(_))));
    log.plan(0, Fault::Unavailable);
    assert!(matches!(log.read("s", None, 1).await.err(), Some(LogError::Unavailable(_))));
    log.plan(0, Fault::Unavailable);
    log.heal();
    assert_eq!(last("s.b").await, Some(4));
}

async fn atomic_batches_have_unknown_fates_too<W: World>(world: &FaultyWorld<W>) {
    world.create(stream("s")).await;
    let log = world.log();
    let check = async |fault: Fault, expect: &str, stored: u64| {
        let begin = log.extent("s").await.unwrap().last;
        log.plan(0, fault);
        let batch = vec![append("s.a", "a", Expect::Any), append("s.b", "b", Expect::Any)];
        assert_eq!(short(&[log.append_atomic(batch).await]), [expect], "{fault:?}");
        assert_eq!(log.extent("s").await.unwrap().last - begin, stored, "{fault:?}");
    };
    check(Fault::TimeoutStored, "unknown", 2).await;
    check(Fault::ReplyLost, "unknown", 2).await;
    check(Fault::TimeoutLost, "unknown", 0).await;
    check(Fault::Refused, "fenced", 0).await;
}

/// The one recovery path of the design (section 2), over a network where one call in twenty goes wrong.
async fn recovery_by_the_tail_is_exactly_once<W: World>(world: &FaultyWorld<W>) {
    const FRAMES: u64 = 300;
    world.create(stream("s")).await;
    let rates = Rates { append: 500, read: 500, ask: 500 };
    let log = Faulty::seeded(world.inner.log().clone(), Duration::from_millis(5), 42, rates);
    let tail = async || loop {
        if let Ok(extent) = log.extent("s").await {
            return extent.last;
        }
    };
    let mut done = 0;
    while done < FRAMES {
        let Ok(mut appender) = log.appender().await else { continue };
        done = tail().await;
        let mut next = done;
        let lost = loop {
            if next < FRAMES && appender.in_flight() < 16 {
                appender.send(append("s.x", next.to_string(), Expect::Last(next))).await.unwrap();
                next += 1;
            } else if appender.in_flight() == 0 {
                break false;
            } else if let Err(error) = appender.acknowledged().await {
                assert!(matches!(error, AppendError::Fenced(_) | AppendError::Unknown(_)), "{error:?}");
                break true;
            }
        };
        done = if lost { 0 } else { next };
    }
    let mut read = 0;
    while read < FRAMES {
        let Ok(mut reader) = log.read("s", None, read + 1).await else { continue };
        while let Ok(entry) = reader.next().await {
            assert_eq!((entry.sequence, entry.payload.as_ref()), (read + 1, read.to_string().as_bytes()));
            read += 1;
            if read == FRAMES {
                break;
            }
        }
    }
    assert_eq!(world.inner.log().extent("s").await.unwrap().last, FRAMES);
    assert!(log.struck() > 20, "{} faults struck", log.struck());
}

#[tokio::test]
async fn the_same_seed_gives_the_same_faults() {
    let run = async |seed: u64| {
        let world = MemoryWorld::new().await;
        world.create(stream("s")).await;
        let rates = Rates { append: 3_000, read: 0, ask: 0 };
        let log = Faulty::seeded(world.0.clone(), Duration::ZERO, seed, rates);
        let appends = (0..200).map(|n| append("s.x", n.to_string(), Expect::Any)).collect();
        short(&append_all(&log, appends).await)
    };
    assert_eq!(run(1).await, run(1).await);
    assert_ne!(run(1).await, run(2).await);
}

/// What only a real server shows.
mod nats_server_alone {
    use super::*;

    #[tokio::test]
    async fn a_dead_server_is_noticed_and_its_return_too() {
        let mut world = NatsWorld::new().await;
        world.create(stream("s")).await;
        let log = world.log.clone();
        fill(&log, "s.x", (1..=100).map(|n| n.to_string())).await;
        let mut reader = log.read("s", None, 1).await.unwrap();
        let mut waiting = log.read("s", None, 101).await.unwrap();
        read_all(&mut reader, 50).await;
        let mut appender = log.appender().await.unwrap();
        world.broker.kill().await.unwrap();
        let begun = Instant::now();
        assert!(matches!(waiting.next().await, Err(ReadError::Lost(_))));
        appender.send(append("s.x", "101", Expect::Last(100))).await.unwrap();
        assert!(matches!(log.extent("s").await, Err(LogError::Unavailable(_))));
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
        assert!(!log.is_connected());

        world.broker.restart().await.unwrap();
        let last = loop {
            match log.extent("s").await {
                Ok(extent) => break extent.last,
                Err(LogError::Unavailable(_)) => {}
                Err(error) => panic!("{error}"),
            }
        };
        // The append waited in the connection, and is either stored or reported; never both twice.
        match appender.acknowledged().await {
            Ok(sequence) => assert_eq!(sequence, 101),
            Err(AppendError::Unknown(_) | AppendError::Silent(_)) => {}
            Err(error) => panic!("{error}"),
        }
        assert!((100..=101).contains(&last), "{last}");
        let mut reader = log.read("s", None, 100).await.unwrap();
        assert_eq!(reader.next().await.unwrap().payload, "100");
        let stats = log.stats();
        assert!(stats.disconnects >= 1 && stats.connects >= 2, "{stats:?}");
    }

    #[tokio::test]
    async fn an_append_in_flight_when_the_server_dies_is_unknown_at_once() {
        let mut world = NatsWorld::new().await;
        world.create(stream("s")).await;
        let mut appender = world.log.appender().await.unwrap();
        let mut sent = 0;
        let begun = Instant::now();
        let mut fates = Vec::new();
        while begun.elapsed() < Duration::from_millis(200) {
            appender.send(append("s.x", vec![0; 1_000], Expect::Last(sent))).await.unwrap();
            sent += 1;
        }
        world.broker.kill().await.unwrap();
        let begun = Instant::now();
        while appender.in_flight() > 0 {
            fates.push(appender.acknowledged().await);
        }
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        let known = fates.iter().take_while(|fate| fate.is_ok()).count();
        assert!(fates[known..].iter().all(|fate| matches!(fate, Err(AppendError::Unknown(_)))));
        world.broker.restart().await.unwrap();
        let last = loop {
            if let Ok(extent) = world.log.extent("s").await {
                break extent.last;
            }
        };
        assert!(last >= u64::try_from(known).unwrap(), "what was acknowledged is there");
    }

    /// Whether every thread of a process stands still by SIGSTOP: the state behind the name in `/proc` is `T`.
    fn is_held(pid: &str) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        threads
            .map(|thread| std::fs::read_to_string(thread.unwrap().path().join("stat")).unwrap())
            .all(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')))
    }

    #[tokio::test]
    async fn an_append_is_given_up_when_nothing_is_heard_and_not_before() {
        let world = NatsWorld::new().await;
        world.create(StreamSettings::record("s", &["s"], 64 << 20)).await;
        let settings = ConnectSettings {
            acknowledged_within: Duration::from_secs(60),
            silence_max: Duration::from_millis(500),
            ..Default::default()
        };
        let log = JetStream::connect(&world.broker.url(), "patient", &settings).await.unwrap();
        let mut appender = log.appender().await.unwrap();
        tokio::time::sleep(settings.silence_max * 2).await;
        appender.send(append("s", "1", Expect::Any)).await.unwrap();
        assert_eq!(appender.acknowledged().await.unwrap(), 1, "silence counts from the send on");
        let pid = world.broker.pid().unwrap().to_string();
        let signal = |name: &str| std::process::Command::new("kill").args([name, &pid]).status().unwrap();
        assert!(signal("-STOP").success());
        // A signal is on its way for a while, and a thread that it has not reached would still answer.
        while !is_held(&pid) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let held = Instant::now();
        appender.send(append("s", "2", Expect::Any)).await.unwrap();
        let error = appender.acknowledged().await.unwrap_err();
        assert!(matches!(error, AppendError::Silent(_)), "{error}");
        let waited = held.elapsed();
        assert!(signal("-CONT").success());
        assert!((settings.silence_max..Duration::from_secs(30)).contains(&waited), "{waited:?}");
    }

    #[tokio::test]
    async fn a_consumer_that_is_deleted_ends_its_reader() {
        let world = NatsWorld::new().await;
        world.create(stream("s")).await;
        fill(&world.log, "s.x", ["1".into()]).await;
        let mut reader = world.log.read("s", None, 1).await.unwrap();
        reader.next().await.unwrap();
        let names = world.ask("$JS.API.CONSUMER.NAMES.s".into(), serde_json::json!({})).await;
        let name = names["consumers"][0].as_str().unwrap();
        world.ask(format!("$JS.API.CONSUMER.DELETE.s.{name}"), serde_json::json!({})).await;
        let begun = Instant::now();
        assert!(matches!(reader.next().await, Err(ReadError::Lost(_))));
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn readers_leave_no_consumer_behind() {
        let world = NatsWorld::new().await;
        world.create(stream("s")).await;
        for _ in 0..20 {
            drop(world.log.read("s", None, 1).await.unwrap());
        }
        let begun = Instant::now();
        loop {
            let names = world.ask("$JS.API.CONSUMER.NAMES.s".into(), serde_json::json!({})).await;
            if names["total"] == 0 {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(5), "{names}");
        }
    }

    #[tokio::test]
    async fn an_idle_reader_and_a_slow_one_go_on() {
        let world = NatsWorld::new().await;
        world.create(stream("s")).await;
        let mut reader = world.log.read("s", None, 1).await.unwrap();
        // Longer than the silence that would mean that it is lost, with short waits that are cancelled.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(5) {
            assert!(
                timeout(Duration::from_millis(300), reader.next()).await.is_err(),
                "there is nothing to read"
            );
        }
        fill(&world.log, "s.x", (1..=20_000).map(|n| n.to_string())).await;
        reader.next().await.unwrap();
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(read_all(&mut reader, 19_999).await.last().unwrap().sequence, 20_000);
        assert_eq!(world.log.stats().slow_consumers, 0);
    }

    /// Publishes `x` to `s.x` with this header block, as no client library would.
    async fn publish_raw(world: &NatsWorld, block: &str) {
        let before = world.log.extent("s").await.unwrap().last;
        let sizes = (block.len(), block.len() + 1);
        let raw = format!(
            "CONNECT {{\"verbose\":false,\"headers\":true}}\r\nHPUB s.x {} {}\r\n{block}x\r\nPING\r\n",
            sizes.0, sizes.1
        );
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", world.broker.port())).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, raw.as_bytes()).await.unwrap();
        while world.log.extent("s").await.unwrap().last == before {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_status_line_that_a_producer_stored_is_only_a_message() {
        let world = NatsWorld::new().await;
        world.create(stream("s")).await;
        publish_raw(&world, "NATS/1.0 409 Consumer Deleted\r\n\r\n").await;
        let mut reader = world.log.read("s", None, 1).await.unwrap();
        assert_eq!(reader.next().await.unwrap().payload, "x");
        assert_eq!(world.log.get("s", 1).await.unwrap().unwrap().payload, "x");
    }

    #[tokio::test]
    async fn headers_that_the_client_cannot_read_stop_nobody() {
        let world = NatsWorld::new().await;
        world.create(stream("s")).await;
        fill(&world.log, "s.x", ["1".into(), "2".into()]).await;
        publish_raw(&world, "NATS/1.0\r\nMy Header: 1\r\n\r\n").await;
        fill(&world.log, "s.y", ["between".into()]).await;
        publish_raw(&world, "NATS/1.0\r\nno header at all\r\n\r\n").await;
        fill(&world.log, "s.x", ["6".into(), "7".into()]).await;
        for (filter, expect) in [(None, vec![1, 2, 3, 4, 5, 6, 7]), (Some("s.x"), vec![1, 2, 3, 5, 6, 7])] {
            // As runners do it: a new reader starts at the last message that was read.
            let (mut read, mut opened) = (Vec::new(), 0);
            while read.len() < expect.len() {
                opened += 1;
                assert!(opened < 20, "{read:?}");
                let from = read.last().copied().unwrap_or(1);
                let Ok(mut reader) = world.log.read("s", filter, from).await else { continue };
                while read.len() < expect.len() {
                    match reader.next().await {
                        Ok(entry) if Some(&entry.sequence) == read.last() => {}
                        Ok(entry) => read.push(entry.sequence),
                        Err(_) => break,
                    }
                }
            }
            assert_eq!(read, expect, "{filter:?}");
        }
        assert_eq!(world.log.get("s", 3).await.unwrap().unwrap().headers, [("My Header".into(), "1".into())]);
    }

    /// A client that writes its headers wrongly does so in each message.
    #[tokio::test]
    async fn many_headers_that_the_client_cannot_read_cost_few_losses() {
        let world = NatsWorld::new().await;
        world.create(stream("s")).await;
        for _ in 0..200 {
            publish_raw(&world, "NATS/1.0\r\nno header at all\r\n\r\n").await;
        }
        let mut read = Vec::new();
        while read.len() < 200 {
            let from = read.last().copied().unwrap_or(0) + 1;
            let Ok(mut reader) = world.log.read("s", None, from).await else { continue };
            while let Ok(entry) = reader.next().await {
                read.push(entry.sequence);
                if read.len() == 200 {
                    break;
                }
            }
        }
        assert_eq!(read, (1..=200).collect::<Vec<_>>());
        let losses = world.log.stats().disconnects;
        assert!(losses < 40, "{losses}");
    }

    /// A runner that has opened its reader asks for this and that before it reads on.
    #[tokio::test]
    async fn a_loss_that_comes_while_the_reader_is_left_alone_counts_too() {
        let world = NatsWorld::new().await;
        world.create(stream("s")).await;
        fill(&world.log, "s.x", ["1".into(), "2".into()]).await;
        publish_raw(&world, "NATS/1.0\r\nno header at all\r\n\r\n").await;
        fill(&world.log, "s.x", ["4".into()]).await;
        let (mut read, mut opened) = (Vec::new(), 0);
        while read.len() < 4 {
            opened += 1;
            assert!(opened < 20, "{read:?}");
            let from = read.last().copied().unwrap_or(0) + 1;
            let Ok(mut reader) = world.log.read("s", None, from).await else { continue };
            let before = world.log.stats().disconnects;
            for _ in 0..200 {
                drop(world.log.extent("s").await);
            }
            let mut lost = world.log.stats().disconnects != before;
            while !lost && read.len() < 4 {
                match reader.next().await {
                    Ok(entry) => read.push(entry.sequence),
                    Err(_) => lost = true,
                }
            }
        }
        assert_eq!(read, [1, 2, 3, 4]);
    }

    #[tokio::test]
    async fn streams_are_set_up_once_and_checked_for_ever() {
        let world = NatsWorld::new().await;
        let log = &world.log;
        let setup = SetUp::new(4);
        assert_eq!(setup::partitions(log).await.unwrap(), None);
        let report = setup::ensure(log, &setup).await.unwrap();
        assert_eq!(report.streams.len(), 30);
        assert!(report.streams.iter().all(|(_, done)| *done == Done::Created), "{report:?}");
        let again = setup::ensure(log, &setup).await.unwrap();
        assert!(again.streams.iter().all(|(_, done)| *done == Done::Unchanged), "{again:?}");
        assert_eq!(setup::partitions(log).await.unwrap(), Some(4));
        for name in ["wagers", "totals", "validated-3", "hits"] {
            let info = world.ask(format!("$JS.API.STREAM.INFO.{name}"), serde_json::json!({})).await;
            let config = &info["config"];
            assert_eq!(config["allow_direct"], false, "{name}");
            assert_eq!(config["discard"], "new", "{name}");
            assert_eq!(config["deny_purge"] == true, name == "wagers", "{name}");
        }

        let error = setup::ensure(log, &SetUp::new(8)).await.unwrap_err();
        assert!(matches!(error, SetUpError::Partitions { has: 4, asked: 8, .. }), "{error}");

        let mut larger = setup.clone();
        larger.max_bytes = [("validated".to_owned(), 5 << 30)].into();
        let report = setup::ensure(log, &larger).await.unwrap();
        let updated = report.streams.iter().filter(|(_, done)| matches!(done, Done::Updated(_)));
        let updated: Vec<&str> = updated.map(|(name, _)| name.as_str()).collect();
        assert_eq!(updated, ["validated-0", "validated-1", "validated-2", "validated-3"]);
        let kept = setup::ensure(log, &setup).await.unwrap();
        assert!(
            kept.streams.iter().all(|(_, done)| *done == Done::Unchanged),
            "what was raised stays: {kept:?}"
        );

        fill(log, "commits", ["x".repeat(1_000)]).await;
        let mut smaller = setup.clone();
        smaller.max_bytes = [("commits".to_owned(), 100)].into();
        let error = setup::ensure(log, &smaller).await.unwrap_err();
        assert!(matches!(error, SetUpError::TooSmall { .. }), "{error}");

        let mut info = world.ask("$JS.API.STREAM.INFO.windows".into(), serde_json::json!({})).await;
        info["config"]["discard"] = "old".into();
        world.ask("$JS.API.STREAM.UPDATE.windows".into(), info["config"].clone()).await;
        let error = setup::ensure(log, &setup).await.unwrap_err();
        assert!(matches!(error, SetUpError::WouldLose { setting: "discard", .. }), "{error}");
    }

    #[tokio::test]
    async fn a_directory_has_one_server_and_keeps_what_it_stored() {
        let mut world = NatsWorld::new().await;
        world.create(stream("s")).await;
        fill(&world.log, "s.x", ["1".into(), "2".into()]).await;
        let again = BrokerSettings::new(world.broker.dir(), Sync::Always);
        let error = Broker::start(again.clone()).await.unwrap_err();
        assert!(matches!(error, BrokerError::Held(_)), "{error}");
        let taken = tempfile::tempdir().unwrap();
        let other =
            BrokerSettings { port: world.broker.port(), ..BrokerSettings::new(taken.path(), Sync::Always) };
        let error = Broker::start(other).await.unwrap_err();
        assert!(matches!(&error, BrokerError::Ended { said, .. } if said.contains("in use")), "{error}");

        world.broker.stop().await.unwrap();
        assert_eq!(world.broker.pid(), None);
        let NatsWorld { broker, log, _dir } = world;
        drop(broker);
        let broker = Broker::start(BrokerSettings { port: 0, ..again }).await.unwrap();
        drop(log);
        let log = JetStream::connect(&broker.url(), "contract", &ConnectSettings::default()).await.unwrap();
        assert_eq!(log.extent("s").await.unwrap().last, 2);
        fill(&log, "s.x", ["3".into()]).await;
    }
}
