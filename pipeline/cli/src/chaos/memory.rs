//! How much memory each process held over the time of a run, and whether it grows: the slope of the line that fits
//! the second half of what was seen best (least squares). Whole numbers throughout.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::pipeline::Process;

/// What was seen of each process: when, in milliseconds, and how many KiB.
#[derive(Debug, Default)]
pub(super) struct Memory {
    seen: BTreeMap<String, Vec<(i64, i64)>>,
}

/// The memory of a process, over the lives of all that had its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Held {
    pub(super) process: String,
    pub(super) samples: usize,
    pub(super) min_kib: i64,
    pub(super) median_kib: i64,
    pub(super) max_kib: i64,
    /// By how much it grew per minute over the second half.
    pub(super) kib_per_minute: i64,
}

impl Memory {
    /// Looks at the processes.
    pub(super) fn note(&mut self, at: Duration, processes: &[Process]) {
        let at = i64::try_from(at.as_millis()).unwrap_or(i64::MAX);
        for process in processes {
            // A process that has just gone, or is only just being started, holds nothing.
            if let Some(kib) =
                process.resident_kib().and_then(|kib| i64::try_from(kib).ok()).filter(|&kib| kib > 0)
            {
                self.seen.entry(process.label.clone()).or_default().push((at, kib));
            }
        }
    }

    /// What was seen of each.
    pub(super) fn summary(&self) -> Vec<Held> {
        self.seen.iter().map(|(process, seen)| Held::new(process, seen)).collect()
    }
}

impl Held {
    fn new(process: &str, seen: &[(i64, i64)]) -> Self {
        let mut sizes: Vec<_> = seen.iter().map(|&(_, kib)| kib).collect();
        sizes.sort_unstable();
        let at = |place: usize| sizes.get(place).copied().unwrap_or(0);
        Self {
            process: process.into(),
            samples: sizes.len(),
            min_kib: at(0),
            median_kib: at(sizes.len() / 2),
            max_kib: at(sizes.len().saturating_sub(1)),
            kib_per_minute: slope_per_minute(&seen[seen.len() / 2..]),
        }
    }
}

/// The slope of the line of least squares through points of milliseconds and KiB, in KiB per minute.
fn slope_per_minute(points: &[(i64, i64)]) -> i64 {
    let count = i128::try_from(points.len()).unwrap_or(0);
    let points = || points.iter().map(|&(at, kib)| (i128::from(at), i128::from(kib)));
    let (sum_at, sum_kib) = points().fold((0, 0), |(a, k), (at, kib)| (a + at, k + kib));
    let (above, below) = points().fold((0, 0), |(above, below), (at, kib)| {
        let (at, kib) = (count * at - sum_at, count * kib - sum_kib);
        (above + at * kib, below + at * at)
    });
    if below == 0 { 0 } else { i64::try_from(above * 60_000 / below).unwrap_or(i64::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_is_that_of_the_second_half() {
        // It grows by 60 KiB a second at first, then by 1 KiB a second.
        let seen: Vec<_> =
            (0..200).map(|s| (s * 1_000, if s < 100 { s * 60 } else { 6_000 + s - 100 })).collect();
        let held = Held::new("audit", &seen);
        assert_eq!((held.samples, held.min_kib, held.median_kib, held.max_kib), (200, 0, 6_000, 6_099));
        assert_eq!(held.kib_per_minute, 60);
        assert_eq!(slope_per_minute(&[(0, 5), (1_000, 5), (2_000, 5)]), 0);
        assert_eq!(slope_per_minute(&[(0, 60), (1_000, 59), (2_000, 58)]), -60);
        assert_eq!(slope_per_minute(&[(7, 5)]), 0);
        assert_eq!(slope_per_minute(&[]), 0);
    }
}
