//! `jackpot wait`: returns when all that was published before it began is in totals and audit.
//! It follows the positions that frames and commits record from stage to stage, and changes nothing.

use std::time::Duration;

use anyhow::{Context, anyhow};
use jackpot_core::frame::Header;
use jackpot_core::frame::validated::Validated;
use jackpot_core::log::{Entry, Log, LogError};
use jackpot_core::record::Commit;
use jackpot_core::topology::{self, Lane};
use tokio::time::{Instant, sleep};

use crate::duration;
use crate::server::Server;
use crate::streams;

/// How often a position is asked for.
const POLL: Duration = Duration::from_millis(15);
/// The header of `totals`: all that commits up to this one changed has been written.
pub const SETTLED: &str = "Jackpot-Settled";

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
    let partitions = streams::partitions(log).await?;
    let mut published = Vec::new();
    for partition in 0..partitions {
        let filter = topology::batches_filter(partition);
        let last = log.last(topology::WAGERS, &filter).await?;
        published.extend(last.map(|entry| (partition, entry.sequence)));
    }
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
                Ok(last.filter(|entry| settled(entry).is_some_and(|settled| settled >= changed)).map(drop))
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

fn settled(entry: &Entry) -> Option<u64> {
    entry.headers.iter().find(|(name, _)| name == SETTLED).and_then(|(_, value)| value.parse().ok())
}
