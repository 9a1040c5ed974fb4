//! How long a fault was felt: the longest time in which a partition's wagers came into no commit, or into no entry of
//! the audit, by the broker's own times of what is stored. The resolution is the time between two batches of a
//! partition; the longest pause without any fault is told beside the others.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use jackpot_core::log::Log;
use jackpot_core::time::Millis;
use jackpot_core::topology::{self, Lane};
use serde::{Deserialize, Serialize};

use super::faults::Fault;
use crate::streams;

/// How long after a fault its pause begins at most: what was read before it is still handed on.
const ONSET_MS: i64 = 1_000;

/// When a partition went on, ascending: in commits, or in its audit log.
type Track = Vec<Millis>;

/// The pauses of all faults of a kind, in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Kind {
    /// What was done to whom.
    pub(super) kind: String,
    pub(super) count: usize,
    /// How many of them met a pipeline at work, and were over before the next fault; the next three are of these.
    pub(super) alone: usize,
    pub(super) median_ms: i64,
    pub(super) worst_ms: i64,
    /// The longest pause counted from when a held process went on.
    pub(super) worst_after_ms: i64,
    /// The longest of the others: faults amid faults.
    pub(super) worst_amid_ms: i64,
}

/// The pauses of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Pauses {
    /// The longest pause before the first fault.
    pub(super) undisturbed_ms: i64,
    pub(super) kinds: Vec<Kind>,
    /// Every fault, in the order in which they were done.
    pub(super) faults: Vec<Felt>,
}

/// Measures the pauses of a load that lasted from `began` to `ended`.
pub(super) async fn measure<L: Log>(
    log: &L,
    faults: &[Fault],
    began: Millis,
    ended: Millis,
) -> anyhow::Result<Pauses> {
    let tracks = tracks(log).await?;
    let first = faults.first().map_or(ended, |fault| fault.at);
    let undisturbed_ms = longest(&tracks, began, first).0;
    let faults = felt(&tracks, faults, ended);
    Ok(Pauses { undisturbed_ms, kinds: kinds(&faults), faults })
}

/// What of a commit tells how far the ledger is.
#[derive(Deserialize)]
struct Positions {
    partitions: Vec<Position>,
}

#[derive(Deserialize)]
struct Position {
    frame: u64,
}

async fn tracks<L: Log>(log: &L) -> anyhow::Result<Vec<Track>> {
    let (mut tracks, mut frames): (Vec<Track>, Vec<u64>) = (Vec::new(), Vec::new());
    streams::each(log, topology::COMMITS, topology::COMMITS, |entry| {
        let Positions { partitions } = serde_json::from_slice(&entry.payload)?;
        tracks.resize_with(partitions.len(), Track::new);
        frames.resize(partitions.len(), 0);
        for ((position, frame), track) in partitions.iter().zip(&mut frames).zip(&mut tracks) {
            if position.frame > *frame {
                *frame = position.frame;
                track.push(entry.recorded_at);
            }
        }
        Ok(())
    })
    .await?;
    for partition in 0..streams::partitions(log).await? {
        let (stream, subject) = (Lane::Audit.stream(partition), Lane::Audit.subject(partition));
        let mut track = Track::new();
        streams::each(log, &stream, &subject, |entry| {
            track.push(entry.recorded_at);
            Ok(())
        })
        .await?;
        tracks.push(track);
    }
    Ok(tracks)
}

/// The longest pause of any partition after `from`, and when it ended. What begins later than [`ONSET_MS`] after that
/// is counted up to `next` alone: it may be the next fault's.
fn longest(tracks: &[Track], from: Millis, next: Millis) -> (i64, Millis) {
    let earliest = |&(pause, end): &(i64, Millis)| (pause, Reverse(end));
    let of = |track: &Track| {
        let after = track.partition_point(|&at| at <= from);
        let begins = std::iter::once(from).chain(track[after..].iter().copied());
        let pauses = begins.zip(track[after..].iter().copied()).map(|(begin, end)| {
            let end = if begin < from.plus(ONSET_MS) { end } else { end.min(next) };
            (end.0 - begin.0, end)
        });
        pauses.take_while(|&(pause, end)| end.0 - pause <= next.0).max_by_key(earliest)
    };
    tracks.iter().filter_map(of).max_by_key(earliest).unwrap_or((0, from))
}

/// How a fault was felt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Felt {
    #[serde(flatten)]
    fault: Fault,
    /// Whether it met a pipeline at work, and was over before the next one.
    alone: bool,
    /// The pause from when it was done,
    pause_ms: i64,
    /// and from when it was over.
    after_ms: i64,
}

fn felt(tracks: &[Track], faults: &[Fault], ended: Millis) -> Vec<Felt> {
    let mut until = Millis::FIRST;
    let felt = faults.iter().enumerate().map(|(place, fault)| {
        let next = faults.get(place + 1).map_or(ended, |next| next.at);
        let (pause_ms, end) = longest(tracks, fault.at, next.max(fault.over));
        let (after_ms, _) = longest(tracks, fault.over, next.max(fault.over));
        let end = end.max(fault.over);
        let alone = until < fault.at && end < next;
        until = until.max(end);
        Felt { fault: fault.clone(), alone, pause_ms, after_ms }
    });
    felt.collect()
}

fn kinds(felt: &[Felt]) -> Vec<Kind> {
    let mut kinds: BTreeMap<&str, Vec<&Felt>> = BTreeMap::new();
    for felt in felt {
        kinds.entry(&felt.fault.kind).or_default().push(felt);
    }
    kinds.into_iter().map(|(kind, all)| Kind::new(kind, &all)).collect()
}

impl Kind {
    fn new(kind: &str, all: &[&Felt]) -> Self {
        let mut alone: Vec<_> = all.iter().filter(|felt| felt.alone).map(|felt| felt.pause_ms).collect();
        alone.sort_unstable();
        let worst = |alone: bool, of: fn(&Felt) -> i64| {
            all.iter().copied().filter(|felt| felt.alone == alone).map(of).max().unwrap_or(0)
        };
        Self {
            kind: kind.into(),
            count: all.len(),
            alone: alone.len(),
            median_ms: alone.get(alone.len() / 2).copied().unwrap_or(0),
            worst_ms: worst(true, |felt| felt.pause_ms),
            worst_after_ms: worst(true, |felt| felt.after_ms),
            worst_amid_ms: worst(false, |felt| felt.pause_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(times: &[i64]) -> Track {
        times.iter().copied().map(Millis).collect()
    }

    fn fault(kind: &str, at: i64, over: i64) -> Fault {
        Fault { kind: kind.into(), at: Millis(at), over: Millis(over) }
    }

    #[test]
    fn a_pause_begins_with_its_fault_and_may_end_after_the_next() {
        let tracks = [track(&[0, 10, 20, 120, 130]), track(&[0, 50, 100, 150])];
        let check = |from, until, expect| {
            assert_eq!(longest(&tracks, Millis(from), Millis(until)).0, expect, "{from}")
        };
        check(15, 40, 100);
        check(25, 40, 95);
        check(121, 200, 29);
        check(150, 200, 0);
        assert_eq!(longest(&[], Millis(0), Millis(10)), (0, Millis(0)));
    }

    #[test]
    fn faults_amid_faults_are_told_apart() {
        let times: Vec<i64> = (0..100).chain(150..400).chain(460..1_000).map(|at| at * 100).collect();
        let faults = [
            fault("kill audit", 10_000, 10_000),
            fault("kill audit", 20_000, 20_000),
            fault("stop audit", 40_000, 44_000),
            fault("kill audit", 42_000, 42_000),
        ];
        let kinds = kinds(&felt(&[track(&times)], &faults, Millis(100_000)));
        let kind = |kind: &str, count, alone, ms: [i64; 4]| {
            let [median_ms, worst_ms, worst_after_ms, worst_amid_ms] = ms;
            Kind { kind: kind.into(), count, alone, median_ms, worst_ms, worst_after_ms, worst_amid_ms }
        };
        // The last kill falls into a hold, and so neither of the two is alone.
        assert_eq!(
            kinds,
            [
                kind("kill audit", 3, 2, [5_000, 5_000, 5_000, 4_000]),
                kind("stop audit", 1, 0, [0, 0, 0, 6_000])
            ]
        );
    }
}
