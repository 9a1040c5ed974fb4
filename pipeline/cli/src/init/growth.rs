//! How fast the streams grow that hold the record, and when each will be full: a full record stops the deployment until
//! an operator raises its limit or archives it (design, section 7).
//!
//! The figures were measured with `jackpot load` on the example terms, which stand for an ordinary deployment: 3 pools
//! with 7 levels, 4 partitions, batches of at most 100 wagers. What was stored, with what the server adds to each
//! message:
//!
//! | wagers/s | batches/s | `wagers` B/wager | `allocations-p` B/frame | `audit-p` B/frame | `commits` B/commit |
//! |---|---|---|---|---|---|
//! | 100 | 33 | 401 | 361 | 555 | 2,107 |
//! | 2,000 | 52 | 350 | 1,022 | 1,557 | 2,320 |
//! | 10,000 | 62 | 346 | 3,142 | 5,219 | 2,405 |
//!
//! A batch makes a frame of its own, and a frame a commit, as long as the pipeline keeps up; where it does not, frames
//! and commits merge and less is stored. So this errs towards too much.

use jackpot_core::log::jetstream::JetStream;
use jackpot_core::log::{Extent, Log as _, LogError};
use jackpot_core::topology::{self, Lane};

/// Batches that producers send a second, in all, where they are not forced to send more.
const BATCHES: u64 = 50;
/// Wagers of a batch, beyond which there are more batches.
const BATCH_WAGERS: u64 = 100;
/// Commits a second at most: one append is in flight.
const COMMITS_MAX: u64 = 500;
/// Levels, where no terms are in force yet: those of the example.
pub const LEVELS: u64 = 7;
/// Bytes of a wager in `wagers`, and of a batch around it.
const WAGER: (u64, u64) = (345, 170);
/// Bytes of a wager in `allocations-p`, and of a frame around it.
const ALLOCATION: (u64, u64) = (20, 310);
/// Bytes of a wager in `audit-p`, and of a frame around it.
const AUDITED: (u64, u64) = (34, 440);
/// Bytes of a commit, and of a level in it; a batch changes about half of the levels, and at most those of the pools
/// that a wager may join.
const COMMIT: (u64, u64) = (700, 420);
/// Levels that change with a commit at most.
const CHANGED_MAX: u64 = 64;
/// Bytes a second that a level's windows come to: one of a second, and its parts of the longer ones.
const LEVEL_WINDOWS: u64 = 950;
/// Bytes of a hit; one wager in so many wins.
const HIT: (u64, u64) = (560, 4_000);
/// Bytes of a refusal; one wager in so many is refused.
const REFUSAL: (u64, u64) = (480, 300);

/// A stream of the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Growth {
    /// Its name.
    pub stream: String,
    /// What it grows by, in bytes a day.
    pub bytes_per_day: u64,
    /// What it may hold, and what of that is free, in bytes.
    pub max_bytes: u64,
    /// See [`Growth::max_bytes`].
    pub free_bytes: u64,
}

impl Growth {
    /// Seconds until it is full.
    pub fn seconds_left(&self) -> u64 {
        let seconds = u128::from(self.free_bytes) * 86_400 / u128::from(self.bytes_per_day.max(1));
        u64::try_from(seconds).unwrap_or(u64::MAX)
    }
}

/// The streams of the record at so many wagers a second, in the order in which they will be full.
pub async fn estimate(
    log: &JetStream,
    partitions: u16,
    rate: u64,
    levels: u64,
) -> Result<Vec<Growth>, LogError> {
    let mut growing = Vec::new();
    for (stream, bytes_per_day) in bytes_per_day(partitions, rate, levels) {
        let Extent { bytes, max_bytes, .. } = log.extent(&stream).await?;
        let free_bytes = max_bytes.saturating_sub(bytes);
        growing.push(Growth { stream, bytes_per_day, max_bytes, free_bytes });
    }
    growing.sort_by_key(Growth::seconds_left);
    Ok(growing)
}

/// Batches a second, in all, at so many wagers a second.
pub fn batches(rate: u64) -> u64 {
    rate.min(BATCHES).max(rate.div_ceil(BATCH_WAGERS))
}

/// What each stream of the record grows by in a day.
fn bytes_per_day(partitions: u16, rate: u64, levels: u64) -> Vec<(String, u64)> {
    let batches = batches(rate);
    let of = |(wager, around): (u64, u64)| rate * wager + batches * around;
    // Sources are spread over the partitions by hash, which is even where there are many.
    let share = |bytes: u64| bytes.div_ceil(u64::from(partitions.max(1)));
    let changed = levels.div_ceil(2).min(CHANGED_MAX);
    let windows = levels * LEVEL_WINDOWS;
    // At rest there is a commit each second too; and windows stand in it as in their view.
    let commits = batches.clamp(1, COMMITS_MAX) * (COMMIT.0 + changed * COMMIT.1) + windows;
    let mut streams = vec![
        (topology::WAGERS.to_owned(), of(WAGER)),
        (topology::COMMITS.to_owned(), commits),
        (topology::WINDOWS.to_owned(), windows),
        (topology::HITS.to_owned(), (rate * HIT.0).div_ceil(HIT.1)),
        (topology::REFUSALS.to_owned(), (rate * REFUSAL.0).div_ceil(REFUSAL.1)),
    ];
    for partition in 0..partitions {
        streams.push((Lane::Allocations.stream(partition), share(of(ALLOCATION))));
        streams.push((Lane::Audit.stream(partition), share(of(AUDITED))));
    }
    streams.iter_mut().for_each(|(_, bytes)| *bytes *= 86_400);
    streams
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was measured, by the table above, in bytes a second.
    #[test]
    fn the_figures_are_those_that_were_measured() {
        let check = |rate: u64, stream: &str, measured: u64| {
            let all = bytes_per_day(1, rate, LEVELS);
            let (_, bytes) = all.iter().find(|(name, _)| name == stream).expect("it is there");
            let second = bytes / 86_400;
            assert!(
                second * 10 >= measured * 9 && second <= measured * 2,
                "{stream} at {rate}: {second} and {measured} bytes a second"
            );
        };
        check(2_000, "wagers", 700_000);
        check(2_000, "allocations-0", 51_500);
        check(2_000, "audit-0", 78_400);
        check(2_000, "commits", 115_800);
        check(2_000, "windows", 6_000);
        check(10_000, "wagers", 3_464_000);
        check(10_000, "allocations-0", 212_100);
        check(10_000, "audit-0", 352_300);
        check(100, "wagers", 40_100);
    }

    #[test]
    fn batches_grow_with_the_rate_and_never_hold_less_than_a_wager() {
        assert_eq!([1, 50, 1_000, 5_000, 100_000].map(batches), [1, 50, 50, 50, 1_000]);
    }

    #[test]
    fn a_stream_that_is_full_has_no_time_left() {
        let growth = |free_bytes, bytes_per_day| Growth {
            stream: "wagers".into(),
            bytes_per_day,
            max_bytes: 1 << 30,
            free_bytes,
        };
        assert_eq!(growth(0, 10).seconds_left(), 0);
        assert_eq!(growth(100, 86_400).seconds_left(), 100);
        assert_eq!(growth(1 << 63, 0).seconds_left(), u64::MAX);
    }
}
