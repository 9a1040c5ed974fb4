//! `jackpot wait`: returns when all that was published before it began is in totals and audit.
//! It follows the positions that frames and commits record from stage to stage, and changes nothing.

use std::time::Duration;

use anyhow::{Context, anyhow};
use jackpot_core::frame::Header;
use jackpot_core::frame::validated::Validated;
use jackpot_core::log::{Entry, Log, LogError};
use jackpot_core::record::Commit;
use jackpot_core::topology::{self, Lane, settled};
use tokio::time::{Instant, sleep};

use crate::duration;
use crate::server::Server;
use crate::streams;

/// How often a position is asked for.
const POLL: Duration = Duration::from_millis(15);

/// Returns when all that was published before is in totals and audit. Windows close by their own time.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub(crate) server: Server,
    /// How long to wait at most.
    #[arg(long, default_value = "60s", value_parser = duration::parse)]
    timeout: Duration,
}

/// Runs the command.
pub async fn run<L: Log>(args: &Args, log: &L) -> anyhow::Result<()> {
    settle(log, args.timeout).await
}

/// Waits until everything that is in the ingress now has come through.
pub async fn settle<L: Log>(log: &L, patience: Duration) -> anyhow::Result<()> {
    let watch = Watch { log, deadline: Instant::now() + patience, patience };
    let what = "the server to tell what was published".to_owned();
    let published = watch.until(what, async || published(log).await.map(Some)).await?;
    let mut frames = Vec::new();
    for &(partition, position) in &published {
        frames.push((partition, watch.validated(partition, position).await?));
    }
    for &(partition, frame) in &frames {
        watch.audited(partition, frame).await?;
    }
    let commit = watch.committed(&frames).await?;
    watch.viewed(commit.as_ref()).await
}

/// Up to where in the ingress each partition has something to be waited for.
async fn published<L: Log>(log: &L) -> anyhow::Result<Vec<(u16, u64)>> {
    let mut published = Vec::new();
    for partition in 0..streams::partitions(log).await? {
        let filter = topology::batches_filter(partition);
        let last = log.last(topology::WAGERS, &filter).await?;
        published.extend(last.map(|entry| (partition, entry.sequence)));
    }
    Ok(published)
}

/// Asks again and again, until a deadline.
struct Watch<'a, L> {
    log: &'a L,
    deadline: Instant,
    patience: Duration,
}

impl<L: Log> Watch<'_, L> {
    /// The frame of `validated-p` that holds the ingress up to `position`, or a later one.
    async fn validated(&self, partition: u16, position: u64) -> anyhow::Result<u64> {
        let stream = Lane::Validated.stream(partition);
        let what = format!("validate, partition {partition}, to read the batch at {position}");
        self.until(what, async || {
            let Some(entry) = self.last_of(&stream, &Lane::Validated.subject(partition)).await? else {
                return Ok(None);
            };
            let header = Header::peek::<Validated>(&entry.payload).with_context(|| {
                format!(
                    "cannot read frame {} of {stream}; run this command in the stages' version",
                    entry.sequence
                )
            })?;
            Ok((header.ingress.position >= position).then_some(header.sequence))
        })
        .await
    }

    async fn audited(&self, partition: u16, frame: u64) -> anyhow::Result<()> {
        let stream = Lane::Audit.stream(partition);
        let what = format!("audit, partition {partition}, to take up frame {frame}");
        self.until(what, async || Ok(self.reaches(&stream, frame).await?.then_some(()))).await
    }

    /// The first commit seen that holds all these frames; `None` when there is none to wait for.
    async fn committed(&self, frames: &[(u16, u64)]) -> anyhow::Result<Option<Commit>> {
        let mut commit = None;
        for &(partition, frame) in frames {
            let what = format!("aggregate, partition {partition}, to commit frame {frame}");
            let holds = async || {
                let commit = last_commit(self.log).await?;
                let consumed = |commit: &Commit| {
                    commit
                        .partitions
                        .get(usize::from(partition))
                        .is_some_and(|consumed| consumed.frame >= frame)
                };
                Ok(commit.filter(consumed))
            };
            commit = Some(self.until(what, holds).await?);
        }
        Ok(commit)
    }

    /// Waits for the views of a commit.
    async fn viewed(&self, commit: Option<&Commit>) -> anyhow::Result<()> {
        let Some(commit) = commit else { return Ok(()) };
        let changed = commit.counts.changed;
        if changed > 0 {
            let what = format!("aggregate to write the totals of commit {changed}");
            self.until(what, async || {
                let last = self.last_of(topology::TOTALS, &format!("{}.>", topology::TOTALS)).await?;
                Ok(last.filter(|entry| settled(entry) >= changed).map(drop))
            })
            .await?;
        }
        for (view, count) in
            [(topology::HITS, commit.counts.hits), (topology::WINDOWS, commit.counts.windows)]
        {
            let what = format!("aggregate to write number {count} of {view}");
            self.until(what, async || Ok(self.reaches(view, count).await?.then_some(()))).await?;
        }
        Ok(())
    }

    async fn reaches(&self, stream: &str, sequence: u64) -> Result<bool, LogError> {
        Ok(sequence == 0 || self.log.extent(stream).await?.last >= sequence)
    }

    async fn last_of(&self, stream: &str, filter: &str) -> Result<Option<Entry>, LogError> {
        self.log.last(stream, filter).await
    }

    /// Polls until `check` gives something. An absent server is waited for too.
    async fn until<T>(
        &self,
        what: String,
        check: impl AsyncFn() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        loop {
            let tried = tokio::time::timeout_at(self.deadline, check()).await;
            let why = match tried {
                Ok(Ok(Some(found))) => return Ok(found),
                Ok(Ok(None)) => None,
                Ok(Err(error)) => match error.downcast_ref::<LogError>() {
                    Some(LogError::Unavailable(_)) => Some(error),
                    _ => return Err(error),
                },
                Err(_) => None,
            };
            if Instant::now() + POLL >= self.deadline {
                let patience = duration::show(self.patience);
                let late = anyhow!(
                    "still waiting after {patience} for {what}; see that this stage runs, or wait longer with --timeout"
                );
                return Err(match why {
                    Some(error) => error.context(late),
                    None => late,
                });
            }
            sleep(POLL).await;
        }
    }
}

/// The last commit, if there is one.
pub async fn last_commit<L: Log>(log: &L) -> anyhow::Result<Option<Commit>> {
    let Some(entry) = log.last(topology::COMMITS, topology::COMMITS).await? else { return Ok(None) };
    let commit = serde_json::from_slice(&entry.payload).with_context(|| {
        format!("cannot read commit {}; run this command in the stages' version", entry.sequence)
    })?;
    Ok(Some(commit))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use jackpot_core::digest::Digest;
    use jackpot_core::frame::{Frame, Ingress};
    use jackpot_core::log::faulty::{Fault, Faulty};
    use jackpot_core::log::jetstream::setup::{SetUp, streams};
    use jackpot_core::log::memory::Memory;
    use jackpot_core::log::{Append, Appender, Expect};
    use jackpot_core::record::{Consumed, Counts, WindowSettings};
    use jackpot_core::rules;
    use jackpot_core::time::Millis;

    use super::*;

    /// A pipeline of two partitions without stages: the test plays them.
    struct Played(Memory);

    impl Played {
        fn new() -> Self {
            Self(Memory::new(streams(&SetUp::new(2)), || Millis(0)))
        }

        async fn append(
            &self,
            subject: &str,
            headers: Vec<(String, String)>,
            payload: impl Into<Bytes>,
        ) -> u64 {
            let mut appender = self.0.appender().await.expect("an appender");
            let append =
                Append { subject: subject.into(), headers, payload: payload.into(), expect: Expect::Any };
            appender.send(append).await.expect("it is sent");
            appender.acknowledged().await.expect("it is stored")
        }

        async fn validate(&self, partition: u16, sequence: u64, position: u64) {
            let header = Header {
                partition,
                sequence,
                rules: rules::FIRST,
                terms: 1,
                watermark: None,
                recorded_at: Millis(0),
                ingress: Ingress { position, count: 1, chain: Digest::ZERO },
                input: Digest::ZERO,
                previous: Digest::ZERO,
            };
            let frame = Frame { header, body: Validated::default() }.encode();
            self.append(&Lane::Validated.subject(partition), Vec::new(), frame).await;
        }

        async fn audit(&self, partition: u16) {
            self.append(&Lane::Audit.subject(partition), Vec::new(), "entry").await;
        }

        async fn commit(&self, frames: [u64; 2], counts: Counts) {
            let commit = Commit {
                commit: 1,
                previous: Digest::ZERO,
                terms: 1,
                as_of: None,
                partitions: frames.map(|frame| Consumed { frame, ..Consumed::default() }).into(),
                settings: WindowSettings { seconds: vec![1], max_skew_s: 300 },
                counts,
                levels: Vec::new(),
                windows: Vec::new(),
                hits: Vec::new(),
            };
            let bytes = serde_json::to_vec(&commit).expect("a commit is plain data");
            self.append(topology::COMMITS, Vec::new(), bytes).await;
        }

        async fn total(&self, settled: u64) {
            let headers = vec![(topology::SETTLED.to_owned(), settled.to_string())];
            self.append(&topology::totals("mega", "grand"), headers, "{}").await;
        }

        async fn check_waits_for(&self, says: &str) {
            let error = settle(&self.0, Duration::from_millis(60)).await.expect_err("it is not through");
            assert!(error.to_string().contains(says), "it should wait for {says}: {error:#}");
        }
    }

    #[tokio::test]
    async fn it_waits_for_every_stage_in_turn() {
        let played = Played::new();
        settle(&played.0, Duration::from_secs(5)).await.expect("nothing was published");
        let position = played.append("wagers.acme.eu1", Vec::new(), "{}").await;
        let stored = played.0.get(topology::WAGERS, position).await.expect("the log").expect("the batch");
        let partition: u16 = stored.subject.split('.').nth(1).expect("a word").parse().expect("a partition");
        played.check_waits_for(&format!("validate, partition {partition}, ")).await;
        played.validate(partition, 1, position).await;
        played.check_waits_for(&format!("audit, partition {partition}, ")).await;
        played.audit(partition).await;
        played.check_waits_for(&format!("aggregate, partition {partition}, ")).await;
        let frames = if partition == 0 { [1, 0] } else { [0, 1] };
        played.commit(frames, Counts { windows: 0, hits: 1, changed: 7 }).await;
        played.check_waits_for("the totals of commit 7").await;
        played.total(6).await;
        played.check_waits_for("the totals of commit 7").await;
        played.total(7).await;
        played.check_waits_for("number 1 of hits").await;
        played.append("hits.mega.grand", Vec::new(), "{}").await;
        settle(&played.0, Duration::from_secs(5)).await.expect("all is through");
    }

    #[tokio::test]
    async fn a_batch_that_changes_nothing_is_through_with_its_commit() {
        let played = Played::new();
        let position = played.append("wagers.acme.eu1", Vec::new(), "nonsense").await;
        for partition in 0..2 {
            played.validate(partition, 1, position).await;
            played.audit(partition).await;
        }
        let later = async {
            sleep(Duration::from_millis(50)).await;
            played.commit([1, 1], Counts::default()).await;
        };
        let (settled, ()) = tokio::join!(settle(&played.0, Duration::from_secs(5)), later);
        settled.expect("there is no view to wait for");
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_at_first_is_waited_for() {
        let log = Faulty::planned(Played::new().0, Duration::from_millis(5));
        log.plan(0, Fault::Unavailable);
        settle(&log, Duration::from_secs(5)).await.expect("it answers later, and nothing was published");
        assert_eq!(log.struck(), 1, "the fault struck");
    }

    #[tokio::test]
    async fn without_streams_it_says_what_to_do() {
        let error =
            settle(&Memory::new([], || Millis(0)), Duration::from_secs(5)).await.expect_err("no streams");
        assert!(error.to_string().contains("jackpot init"), "{error}");
    }
}
