//! Runs at a steady rate: how long it takes from a batch until everybody can know what it did.
//!
//! The schedule is fixed beforehand (open loop): a batch is due at its time whether those before it have come through
//! or not, and its latency counts from then, so that a pipeline that stalls is not spared the batches that it
//! would have held up. How late the producer itself was at worst is told too.
//!
//! A batch is told by its effect. Each partition has one source and one pool that all its wagers take part in; a
//! partition keeps the order of a source, so the first message that counts as many wagers of the pool as were
//! published up to and with a batch covers that batch. That message is taken from `commits`, by a reader of the
//! stream, which gives only what is stored: it is the record, and holds every commit. `totals`, the view, leaves out
//! what comes more often than 20 times a second for a level (contract, section 5); its latency is told beside it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use jackpot_core::log::jetstream::JetStream;
use jackpot_core::log::{Log, Reader};
use jackpot_core::time::Millis;
use jackpot_core::topology;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use super::pipeline::Pipeline;
use super::{Args, Meter, PATIENCE, Run, letter, pools, rejected};
use crate::init::PARTITIONS;
use crate::load::traffic::{Batch, Settings, Traffic};
use crate::publish::publisher::Publisher;
use crate::wait;

/// Wagers of a batch.
const BATCH: u64 = 10;
/// Batches that the producer may be ahead of the connection; the schedule does not wait for it.
const AHEAD: usize = 4_096;
/// The level that is watched in each pool; all of a pool count the same wagers.
const LEVEL: &str = "grand";
/// From the start of the producer to the first batch, so that it begins on time.
const LEAD: Duration = Duration::from_millis(100);
/// How often in a row a reader may break off.
const ATTEMPTS: u32 = 5;

/// Latencies of a run's batches, in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

/// What a run at a steady rate measured beside what all runs do.
#[derive(Debug, Serialize)]
pub(super) struct Steady {
    /// Wagers a second, by the schedule.
    pub(super) rate: u64,
    /// From the moment a batch was due until a reader of `commits` had the commit that holds it.
    pub(super) latency_ms: Latency,
    /// Until a reader of `totals` had a state of its level that holds it.
    pub(super) totals_latency_ms: Latency,
    /// How long after it was due a batch was handed to the connection, at worst; it is part of the latencies.
    pub(super) producer_late_ms: f64,
}

/// A batch that was handed to the connection.
struct Sent {
    due: Instant,
    batch: Batch,
}

/// When which count of a pool's wagers was first seen; ascending in both.
type Seen = BTreeMap<String, Vec<(Instant, u64)>>;

/// Publishes at a steady rate.
pub(super) async fn measure(args: &Args, rate: u64) -> anyhow::Result<Run> {
    let terms = pools::by_partition(PARTITIONS)?;
    let mut pipeline = Pipeline::start(args, &terms).await?;
    let settings = Settings {
        seed: 1,
        start: Millis::now(),
        rate,
        wagers: rate * args.seconds,
        batch: usize::try_from(BATCH)?,
        from: BTreeMap::new(),
    };
    let batches = pace(Traffic::new(&terms, settings)?, rate);
    let log = &pipeline.log;
    let (told, counts) = watch::channel(None);
    let meter = Meter::start(&pipeline)?;
    let (published, commits, totals) = tokio::try_join!(
        publish(log, batches, told),
        follow(log, topology::COMMITS, committed, counts.clone()),
        follow(log, topology::TOTALS, shown, counts),
    )?;
    let (sent, late) = published;
    let steady = Steady {
        rate,
        latency_ms: latency(&sent, &commits)?,
        totals_latency_ms: latency(&sent, &totals)?,
        producer_late_ms: millis(late),
    };
    let run = meter.finish(args, BATCH, sent.iter().map(|sent| &sent.batch))?;
    pools::check(log, sent.iter().map(|sent| &sent.batch), |batch| batch.operator.clone()).await?;
    pipeline.stop().await?;
    Ok(Run { steady: Some(steady), ..run })
}

/// Gives each batch when it is due, on a thread of its own: timers of the runtime are whole milliseconds.
fn pace(traffic: Traffic, rate: u64) -> mpsc::Receiver<Sent> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    std::thread::spawn(move || {
        let (began, mut wagers) = (Instant::now() + LEAD, 0);
        for batch in traffic {
            wagers += batch.wagers;
            let due = began + Duration::from_micros(wagers * 1_000_000 / rate);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if sender.blocking_send(Sent { due, batch }).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Publishes what is due, waits until all of it is through, and tells how many wagers each pool must count. Gives the
/// batches, and how late the producer was at worst.
async fn publish(
    log: &JetStream,
    mut batches: mpsc::Receiver<Sent>,
    told: watch::Sender<Option<BTreeMap<String, u64>>>,
) -> anyhow::Result<(Vec<Sent>, Duration)> {
    let mut publisher = Publisher::new(log.clone(), PATIENCE);
    let (mut all, mut late) = (Vec::new(), Duration::ZERO);
    while let Some(sent) = batches.recv().await {
        publisher.publish(letter(all.len(), &sent.batch)).await?;
        late = late.max(sent.due.elapsed());
        all.push(sent);
    }
    publisher.finish().await?;
    rejected(&publisher)?;
    wait::settle(log, PATIENCE).await?;
    let mut counts = BTreeMap::new();
    for sent in &all {
        *counts.entry(sent.batch.operator.clone()).or_insert(0) += sent.batch.wagers;
    }
    told.send_replace(Some(counts));
    Ok((all, late))
}

/// Reads a stream as it grows, until every pool counts what it must.
async fn follow(
    log: &JetStream,
    stream: &'static str,
    read: fn(&[u8]) -> serde_json::Result<Vec<Counted>>,
    mut counts: watch::Receiver<Option<BTreeMap<String, u64>>>,
) -> anyhow::Result<Seen> {
    let (mut seen, mut from, mut attempts) = (Seen::new(), log.extent(stream).await?.last + 1, 0);
    let mut reader = log.read(stream, None, from).await?;
    loop {
        let known = counts.borrow_and_update().clone();
        if known.as_ref().is_some_and(|counts| covers(&seen, counts)) {
            return Ok(seen);
        }
        let patience = if known.is_some() { PATIENCE } else { Duration::MAX };
        let entry = tokio::select! {
            entry = timeout(patience, reader.next()) => entry,
            told = counts.changed(), if known.is_none() => {
                told.context("the producer is gone")?;
                continue;
            }
        };
        let at = Instant::now();
        match entry.with_context(|| format!("{stream} do not count all published wagers"))? {
            Ok(entry) => {
                (from, attempts) = (entry.sequence + 1, 0);
                for counted in read(&entry.payload)? {
                    note(&mut seen, at, counted);
                }
            }
            Err(error) => {
                attempts += 1;
                ensure!(attempts < ATTEMPTS, "cannot read the stream {stream}: {error}");
                reader = log.read(stream, None, from).await?;
            }
        }
    }
}

fn covers(seen: &Seen, counts: &BTreeMap<String, u64>) -> bool {
    let last = |pool: &String| seen.get(pool).and_then(|seen| seen.last()).map_or(0, |&(_, count)| count);
    counts.iter().all(|(pool, &count)| last(pool) >= count)
}

fn note(seen: &mut Seen, at: Instant, counted: Counted) {
    let seen = seen.entry(counted.pool).or_default();
    if seen.last().is_none_or(|&(_, count)| count < counted.wagers) {
        seen.push((at, counted.wagers));
    }
}

/// What is read of a level's state.
#[derive(Deserialize)]
struct Counted {
    pool: String,
    level: String,
    wagers: u64,
}

/// The watched levels of a commit.
fn committed(payload: &[u8]) -> serde_json::Result<Vec<Counted>> {
    #[derive(Deserialize)]
    struct Levels {
        levels: Vec<Counted>,
    }
    let mut levels = serde_json::from_slice::<Levels>(payload)?.levels;
    levels.retain(|level| level.level == LEVEL);
    Ok(levels)
}

/// A message of the view `totals`, where it is of a watched level.
fn shown(payload: &[u8]) -> serde_json::Result<Vec<Counted>> {
    let level: Counted = serde_json::from_slice(payload)?;
    Ok(if level.level == LEVEL { vec![level] } else { Vec::new() })
}

/// The latencies of all batches.
fn latency(sent: &[Sent], seen: &Seen) -> anyhow::Result<Latency> {
    let mut published: BTreeMap<&str, u64> = BTreeMap::new();
    let mut latencies = Vec::with_capacity(sent.len());
    for Sent { due, batch } in sent {
        let count = published.entry(&batch.operator).or_insert(0);
        *count += batch.wagers;
        let seen = seen.get(&batch.operator).map(Vec::as_slice).unwrap_or_default();
        let first = seen.partition_point(|&(_, wagers)| wagers < *count);
        let (at, _) = seen.get(first).context("a batch was never seen")?;
        latencies.push(at.saturating_duration_since(*due));
    }
    latencies.sort_unstable();
    ensure!(!latencies.is_empty(), "nothing was published");
    let rank = |percent: usize| millis(latencies[(latencies.len() * percent).div_ceil(100) - 1]);
    Ok(Latency { p50: rank(50), p90: rank(90), p99: rank(99), max: rank(100) })
}

#[expect(clippy::float_arithmetic, reason = "times are measurements, no money")]
fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(start: Instant, due_ms: u64, operator: &str, wagers: u64) -> Sent {
        let batch = Batch {
            due_ms,
            operator: operator.into(),
            source: operator.into(),
            sequence: 1,
            wagers,
            body: bytes::Bytes::new(),
        };
        Sent { due: start + Duration::from_millis(due_ms), batch }
    }

    #[test]
    fn a_batch_is_seen_with_the_first_message_that_counts_it_in_its_own_pool() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let all = [
            sent(start, 0, "a", 10),
            sent(start, 10, "b", 10),
            sent(start, 20, "a", 10),
            sent(start, 30, "a", 5),
        ];
        let mut seen = Seen::new();
        let counted = |pool: &str, wagers| Counted { pool: pool.into(), level: LEVEL.into(), wagers };
        note(&mut seen, at(3), counted("a", 10));
        note(&mut seen, at(4), counted("a", 10));
        note(&mut seen, at(100), counted("a", 25));
        assert!(latency(&all, &seen).is_err(), "the batch of b was not seen yet");
        let counts = BTreeMap::from([("a".to_owned(), 25), ("b".to_owned(), 10)]);
        assert!(!covers(&seen, &counts));
        note(&mut seen, at(50), counted("b", 10));
        assert!(covers(&seen, &counts));
        // 3 ms, 40 ms, 80 ms and 70 ms: the second and third of a came together, each waits from when it was due.
        let latency = latency(&all, &seen).expect("all were seen");
        assert_eq!(latency, Latency { p50: 40.0, p90: 80.0, p99: 80.0, max: 80.0 });
    }

    #[test]
    fn states_of_the_watched_level_are_read() {
        let commit = br#"{"commit":1,"levels":[{"pool":"bench-0","level":"grand","wagers":7},{"pool":"bench-0","level":"minor","wagers":7}]}"#;
        let read: Vec<_> =
            committed(commit).expect("a commit").into_iter().map(|c| (c.pool, c.wagers)).collect();
        assert_eq!(read, [("bench-0".to_owned(), 7)]);
        assert!(shown(br#"{"pool":"bench-0","level":"minor","wagers":7}"#).expect("a total").is_empty());
        assert_eq!(shown(br#"{"pool":"p","level":"grand","wagers":7}"#).expect("a total").len(), 1);
    }

    #[test]
    fn the_schedule_does_not_wait() {
        let terms = pools::by_partition(2).expect("the example can be read");
        let settings = Settings {
            seed: 1,
            start: Millis(0),
            rate: 10_000,
            wagers: 400,
            batch: 10,
            from: BTreeMap::new(),
        };
        let mut batches = pace(Traffic::new(&terms, settings).expect("they can be played"), 10_000);
        let first = batches.blocking_recv().expect("a batch");
        // Whoever takes them late finds them due as if it had not been.
        std::thread::sleep(Duration::from_millis(50));
        let mut last = first.due;
        while let Some(sent) = batches.blocking_recv() {
            assert!(sent.due >= last);
            last = sent.due;
        }
        assert_eq!(last - first.due, Duration::from_micros(40_000 - first.batch.wagers * 100));
    }
}
