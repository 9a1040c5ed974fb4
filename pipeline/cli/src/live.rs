//! What is live: the committed state of all levels, followed as commits come. `serve` hands it to browsers, `watch` draws it.
//! It begins with the views and goes on with `commits`, so that all of a commit is shown, or nothing of it, and never
//! anything else. Nothing is written to the log here.

pub mod board;
pub mod recent;

use std::time::Duration;

use anyhow::Context;
use jackpot_core::log::jetstream::JetStream;
use jackpot_core::log::{Entry, Log, Reader};
use jackpot_core::record::{Commit, Window};
use jackpot_core::time::Millis;
use jackpot_core::topology::{self, settled};
use tokio::time::Instant;

use crate::views;
pub use board::Board;

/// A quiet pipeline commits each second: where the last commit is older than this, what is shown is stale. A broker that
/// elects a leader, or a stage that starts again, is noticed; a slow second is not.
pub const STALE_AFTER: Duration = Duration::from_secs(3);
/// How often the broker is asked for its time.
pub const ASK_TIME_EVERY: Duration = Duration::from_secs(10);
/// Windows that are read to begin with: a minute of one-second windows of some 80 levels. Of more levels the first minute
/// tells of a shorter time.
const WINDOWS_BEFORE: u64 = 5_000;

/// The broker's clock, as this machine can tell it.
#[derive(Debug, Clone, Copy)]
pub struct Pulse {
    at: Millis,
    since: Instant,
}

impl Pulse {
    /// The broker has just said that it is `at`.
    pub fn new(at: Millis) -> Self {
        Self { at, since: Instant::now() }
    }

    /// The broker's time.
    pub fn now(&self) -> Millis {
        self.at.plus(i64::try_from(self.since.elapsed().as_millis()).unwrap_or(i64::MAX))
    }

    /// The broker has stored something at `at`: its clock is there at least.
    fn heard(&mut self, at: Millis) {
        if at > self.now() {
            *self = Self::new(at);
        }
    }
}

/// Why what a board shows is stale; `None` while it is not. `trouble` is why the broker cannot be followed just now.
pub fn stale(board: &Board, pulse: Option<Pulse>, trouble: Option<&str>) -> Option<String> {
    let age = pulse.zip(board.head()).map(|(pulse, head)| pulse.now().0 - head.committed_at.0);
    let old = age.is_some_and(|age| u128::try_from(age).is_ok_and(|age| age > STALE_AFTER.as_millis()));
    match (trouble, age) {
        (_, Some(_)) if !old => None,
        (Some(trouble), _) => Some(trouble.to_owned()),
        (None, Some(_)) => Some("the pipeline has not committed anything since".into()),
        (None, None) => Some("nothing has been committed yet".into()),
    }
}

/// Follows the commits.
pub struct Feed {
    commits: <JetStream as Log>::Reader,
    pulse: Pulse,
}

impl Feed {
    /// Reads the present state from the views, and goes on where they end.
    ///
    /// # Errors
    /// When the broker does not answer, or holds what this build cannot read.
    pub async fn open(log: &JetStream) -> anyhow::Result<(Board, Self)> {
        let mut board = Board::default();
        let mut from = 1;
        let last = log.last(topology::COMMITS, topology::COMMITS).await?;
        if let Some(last) = &last {
            let commit: Commit = serde_json::from_slice(&last.payload).context("a commit cannot be read")?;
            let shown = log.last(topology::TOTALS, &format!("{}.>", topology::TOTALS)).await?;
            let shown = shown.as_ref().map_or(0, settled);
            for row in views::present(&views::TOTALS, log, |_, _| true).await? {
                board.level(std::str::from_utf8(&row.stored)?)?;
            }
            // What the views do not show yet is read from the commits themselves.
            from = if shown >= commit.counts.changed { last.sequence + 1 } else { shown + 1 };
            from = from.min(windows_before(log, &mut board, &commit).await?.unwrap_or(from));
            hits_before(log, &mut board, &commit).await?;
            board.begin(&commit, last.recorded_at);
        }
        let pulse = Pulse::new(log.extent(topology::COMMITS).await?.at);
        let commits = log.read(topology::COMMITS, None, from).await?;
        Ok((board, Self { commits, pulse }))
    }

    /// The next commit; waits until there is one. Safe to cancel.
    ///
    /// # Errors
    /// When the broker stops to deliver: open another.
    pub async fn next(&mut self) -> anyhow::Result<Entry> {
        let entry = self.commits.next().await?;
        self.pulse.heard(entry.recorded_at);
        Ok(entry)
    }

    /// The broker's clock.
    pub fn pulse(&self) -> Pulse {
        self.pulse
    }

    /// Asks the broker for its time: one that was set back would make everything look stale.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn ask_time(&mut self, log: &JetStream) -> anyhow::Result<()> {
        self.pulse = Pulse::new(log.extent(topology::COMMITS).await?.at);
        Ok(())
    }
}

/// Takes in the last windows that are shown; gives the commit to go on with where not all are shown yet.
async fn windows_before(log: &JetStream, board: &mut Board, commit: &Commit) -> anyhow::Result<Option<u64>> {
    let extent = log.extent(topology::WINDOWS).await?;
    let last = extent.last.min(commit.counts.windows);
    let mut sequence = last.saturating_sub(WINDOWS_BEFORE).max(extent.first.saturating_sub(1));
    if sequence >= last {
        return Ok((commit.counts.windows > last).then_some(1));
    }
    let mut reader = log.read(topology::WINDOWS, None, sequence + 1).await?;
    let mut closed_by = 1;
    while sequence < last {
        let entry = reader.next().await?;
        let window: Window = serde_json::from_slice(&entry.payload).context("a window cannot be read")?;
        (sequence, closed_by) = (entry.sequence, window.commit);
        board.window(&window, &commit.settings);
    }
    Ok((commit.counts.windows > last).then_some(closed_by))
}

/// Takes in the last hits, in their order.
async fn hits_before(log: &JetStream, board: &mut Board, commit: &Commit) -> anyhow::Result<()> {
    let last = log.extent(topology::HITS).await?.last.min(commit.counts.hits);
    let first = last.saturating_sub(board::HITS_KEPT as u64) + 1;
    for sequence in first..=last {
        if let Some(entry) = log.get(topology::HITS, sequence).await? {
            board.hit(std::str::from_utf8(&entry.payload)?)?;
        }
    }
    Ok(())
}
