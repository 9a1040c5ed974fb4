//! Finds things in the logs by bisection, since positions only grow: a batch among its source's messages, the frame
//! that read a position, the commit that consumed a frame. Where a source's numbers went back, so that bisection finds
//! nothing, all of its messages are read.

use anyhow::{Context, anyhow, bail};
use jackpot_core::frame::Header;
use jackpot_core::log::{Entry, Log};
use jackpot_core::record::Commit;
use jackpot_core::topology::{self, IngressSubject, Lane};

use crate::frame;
use crate::progress::{Progress, counted};
use crate::verify::raw;
use crate::verify::tape::Tape;

/// A stored batch, and what finding it cost.
#[derive(Debug)]
pub struct Found {
    /// The message.
    pub entry: Entry,
    /// Its partition.
    pub partition: u16,
    /// The operator in its subject.
    pub operator: String,
    /// The source in its subject.
    pub source: String,
    /// How it was found: `position`, `bisection`, or `scan`.
    pub by: &'static str,
    /// How many messages of `wagers` were read for it.
    pub messages_read: u64,
}

/// The message at a position of `wagers`.
pub async fn stored<L: Log>(log: &L, position: u64) -> anyhow::Result<Found> {
    let entry = log.get(topology::WAGERS, position).await?;
    let Some(entry) = entry else {
        let last = log.extent(topology::WAGERS).await?.last;
        bail!("the stream wagers holds no message {position}; it ends at {last}");
    };
    found(entry, "position", 1)
}

fn found(entry: Entry, by: &'static str, messages_read: u64) -> anyhow::Result<Found> {
    let partition = entry.subject.split('.').nth(1).and_then(|word| word.parse().ok());
    let Some((partition, IngressSubject::Batch { operator, source })) =
        partition.zip(IngressSubject::parse(&entry.subject))
    else {
        bail!(
            "message {} of wagers is no batch but {}: it puts terms in force, or is not the pipeline's",
            entry.sequence,
            entry.subject
        );
    };
    let (operator, source) = (operator.to_owned(), source.to_owned());
    Ok(Found { entry, partition, operator, source, by, messages_read })
}

/// The batch that a source gave this number; of several the one that was accepted, else the first.
/// `accepted` says of a message whether it was.
pub async fn batch<L: Log>(
    log: &L,
    partitions: u16,
    source: &str,
    sequence: u64,
    accepted: impl AsyncFn(&Found) -> anyhow::Result<bool>,
) -> anyhow::Result<Found> {
    let filter = format!("lane.{}.*.{source}", topology::partition(source, partitions));
    let Some(last) = log.last(topology::WAGERS, &filter).await? else {
        bail!("nothing was ever stored of the source {source}; see its name, and `jackpot sources`");
    };
    let (candidate, mut read) = bisect_batch(log, &filter, last.sequence, sequence).await?;
    let mut first = None;
    if let Some(entry) = candidate {
        let found = found(entry, "bisection", read)?;
        if accepted(&found).await? {
            return Ok(found);
        }
        first = Some(found);
    }
    let mut progress = Progress::new();
    let mut tape = Tape::open(log, topology::WAGERS, filter).await?;
    while let Some(entry) = tape.next().await? {
        read += 1;
        progress.show(|| format!("{} of {source}", counted(read, "message", "messages")));
        if number(&entry) == Some(sequence) {
            let found = found(entry, "scan", read)?;
            if accepted(&found).await? {
                progress.clear();
                return Ok(found);
            }
            first = first.or(Some(found));
        }
    }
    progress.clear();
    first.ok_or_else(|| {
        anyhow!(
            "the source {source} never published a batch {sequence}; its last message is at {}",
            last.sequence
        )
    })
}

/// The first of a source's messages whose number is the wanted one or above, if it is the wanted one.
async fn bisect_batch<L: Log>(
    log: &L,
    filter: &str,
    last: u64,
    wanted: u64,
) -> anyhow::Result<(Option<Entry>, u64)> {
    let (mut low, mut high, mut read) = (1, last, 0);
    let mut candidate: Option<Entry> = None;
    while low <= high {
        let middle = low + (high - low) / 2;
        let entry = log.next(topology::WAGERS, filter, middle).await?;
        let entry = entry.context("the stream wagers ends before where it ended a moment ago")?;
        read += 1;
        if number(&entry).is_some_and(|number| number < wanted) {
            low = entry.sequence + 1;
        } else {
            high = middle - 1;
            candidate = Some(entry);
        }
    }
    Ok((candidate.filter(|entry| number(entry) == Some(wanted)), read))
}

fn number(entry: &Entry) -> Option<u64> {
    serde_json::from_slice::<raw::Batch<'_>>(&entry.payload).ok()?.sequence
}

/// The first frame of a partition that has read up to a position, or beyond; `None` when none has yet. The record is
/// asked first: of the lane before it the earlier frames may be trimmed.
pub async fn frame_of<L: Log>(log: &L, partition: u16, position: u64) -> anyhow::Result<Option<u64>> {
    let recorded = log.extent(&Lane::Allocations.stream(partition)).await?;
    let found =
        frame_in(log, Lane::Allocations, partition, (recorded.first, recorded.last), position).await?;
    if found.is_some() {
        return Ok(found);
    }
    let extent = log.extent(&Lane::Validated.stream(partition)).await?;
    let waiting = (extent.first.max(recorded.last + 1), extent.last);
    frame_in(log, Lane::Validated, partition, waiting, position).await
}

async fn frame_in<L: Log>(
    log: &L,
    lane: Lane,
    partition: u16,
    (low, high): (u64, u64),
    position: u64,
) -> anyhow::Result<Option<u64>> {
    let stream = lane.stream(partition);
    let reaches = async |sequence| -> anyhow::Result<bool> {
        let entry = log.get(&stream, sequence).await?;
        let entry = entry.ok_or_else(|| anyhow!("frame {sequence} of {stream} is not there any more"))?;
        let Header { ingress, .. } = frame::peek(&stream, &entry)?;
        Ok(ingress.position >= position)
    };
    first(low, high, reaches).await
}

/// The commit that consumed a frame of a partition; `None` when none has yet.
pub async fn commit_of<L: Log>(log: &L, partition: u16, frame: u64) -> anyhow::Result<Option<Commit>> {
    first_commit(log, |commit| {
        commit.partitions.get(usize::from(partition)).is_some_and(|consumed| consumed.frame >= frame)
    })
    .await
}

/// The first commit of which something holds that holds of all after it.
pub async fn first_commit<L: Log>(
    log: &L,
    holds: impl Fn(&Commit) -> bool,
) -> anyhow::Result<Option<Commit>> {
    let extent = log.extent(topology::COMMITS).await?;
    let number =
        first(extent.first, extent.last, async |number| Ok(holds(&commit(log, number).await?))).await?;
    match number {
        Some(number) => Ok(Some(commit(log, number).await?)),
        None => Ok(None),
    }
}

/// A commit.
pub async fn commit<L: Log>(log: &L, number: u64) -> anyhow::Result<Commit> {
    let entry = log.get(topology::COMMITS, number).await?;
    let entry = entry.ok_or_else(|| anyhow!("commit {number} is not there any more"))?;
    serde_json::from_slice(&entry.payload)
        .with_context(|| format!("cannot read commit {number}; run this command in the stages' version"))
}

/// The first number from `low` to `high` of which something holds that holds of all after it.
pub async fn first(
    mut low: u64,
    high: u64,
    holds: impl AsyncFn(u64) -> anyhow::Result<bool>,
) -> anyhow::Result<Option<u64>> {
    let mut end = high + 1;
    while low < end {
        let middle = low + (end - low) / 2;
        if holds(middle).await? {
            end = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok((end <= high).then_some(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bisection_finds_the_first() {
        for (low, high, wanted, expect) in
            [(1, 9, 4, Some(4)), (1, 9, 0, Some(1)), (3, 9, 1, Some(3)), (1, 9, 10, None), (1, 0, 1, None)]
        {
            let found = first(low, high, async |number| Ok(number >= wanted)).await.expect("no error");
            assert_eq!(found, expect, "{low} {high} {wanted}");
        }
    }
}
