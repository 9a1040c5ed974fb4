//! How full the streams are (design, section 7): every stage looks at those that it writes, tells it as metrics, and
//! warns from 80 % on, once per crossing. [`crate::service`] starts it beside the parts of a process.
//! Nothing here makes room: lanes are trimmed by [`crate::snapshot`], the record is an operator's.

use std::collections::VecDeque;
use std::time::Duration;

use tracing::{debug, info, warn};

use crate::limits;
use crate::log::{Extent, Log};
use crate::refusal::StageName;
use crate::runner::Context;
use crate::time::Millis;
use crate::topology::{self, Lane};

/// How often the streams are looked at.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// From here on somebody must look.
const NEARLY_FULL_PERCENT: u64 = 80;
/// Below this it is over: a stream that stays about the limit is told of once.
const RELIEVED_PERCENT: u64 = 75;
/// Looks that are remembered: an hour of them.
const LOOKS_REMEMBERED: usize = 360;
/// What was seen for a shorter time than this says nothing about hours.
const PACE_MS_MIN: i64 = 60_000;
/// Milliseconds of an hour.
const HOUR_MS: u128 = 3_600_000;

/// The streams that a stage looks at: each is looked at by one. Those that nobody or everybody writes are with the
/// stage that would stop first.
pub fn streams(stage: StageName, partitions: &[u16]) -> Vec<String> {
    let own: &[&str] = match stage {
        StageName::Validate => &[topology::WAGERS, topology::TERMS],
        StageName::Geofence | StageName::Allocate => &[],
        StageName::Aggregate => &[
            topology::COMMITS,
            topology::TOTALS,
            topology::WINDOWS,
            topology::HITS,
            topology::SNAPSHOTS,
            topology::MEMBERS,
        ],
        StageName::Audit => &[topology::REFUSALS, topology::SOURCES],
    };
    let lanes = Lane::ALL.into_iter().filter(|lane| lane.writer() == stage);
    let lanes = lanes.flat_map(|lane| partitions.iter().map(move |&partition| lane.stream(partition)));
    own.iter().map(|&name| name.to_owned()).chain(lanes).collect()
}

/// Looks at these streams until the process is told to stop.
pub async fn watch<L: Log>(context: Context<L>, streams: Vec<String>) {
    let mut watched: Vec<_> = streams.into_iter().map(|stream| (stream, Filling::default())).collect();
    while !context.stopping() {
        for (stream, filling) in &mut watched {
            let extent = match context.log.extent(stream).await {
                Ok(extent) => extent,
                Err(error) => {
                    debug!(stream, "it was not looked at: {error}");
                    continue;
                }
            };
            let (hours_left, news) = filling.look(&extent);
            context.metrics.room(stream, &extent, hours_left);
            match news {
                Some(News::NearlyFull) => warn!("{}", warning(stream, &extent, hours_left)),
                Some(News::Relieved) => info!("{stream} has room again"),
                None => {}
            }
        }
        context.pause(LOOK_INTERVAL).await;
    }
}

/// What the looks at one stream come to.
#[derive(Debug, Default)]
struct Filling {
    /// When it held how many bytes, the oldest first.
    seen: VecDeque<(Millis, u64)>,
    /// Whether it was told of.
    told: bool,
}

/// What is worth a line of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    NearlyFull,
    Relieved,
}

impl Filling {
    /// Takes a look in: the hours until the stream is full, where it grows, and what is new.
    fn look(&mut self, extent: &Extent) -> (Option<u32>, Option<News>) {
        if self.seen.len() == LOOKS_REMEMBERED {
            self.seen.pop_front();
        }
        self.seen.push_back((extent.at, extent.bytes));
        let percent = percent(extent);
        let news = match self.told {
            false if percent >= NEARLY_FULL_PERCENT => Some(News::NearlyFull),
            true if percent < RELIEVED_PERCENT => Some(News::Relieved),
            _ => None,
        };
        self.told ^= news.is_some();
        (self.hours_left(extent), news)
    }

    fn hours_left(&self, extent: &Extent) -> Option<u32> {
        let free = extent.max_bytes.saturating_sub(extent.bytes);
        if free < message_bytes_max().min(extent.max_bytes / 10) {
            return Some(0);
        }
        let &(since, bytes) = self.seen.front()?;
        let elapsed = u128::try_from(extent.at.0 - since.0).ok()?;
        let grown = u128::from(extent.bytes.checked_sub(bytes)?);
        let told = extent.at.0 - since.0 >= PACE_MS_MIN;
        let left_ms = (u128::from(free) * elapsed).checked_div(grown).filter(|_| told)?;
        Some(u32::try_from(left_ms / HOUR_MS).unwrap_or(u32::MAX))
    }
}

fn message_bytes_max() -> u64 {
    u64::try_from(limits::MESSAGE_BYTES_MAX).expect("a length fits 64 bits")
}

fn percent(extent: &Extent) -> u64 {
    let percent = u128::from(extent.bytes) * 100 / u128::from(extent.max_bytes.max(1));
    u64::try_from(percent).unwrap_or(u64::MAX)
}

/// Says how full a stream is, and what to do.
fn warning(stream: &str, extent: &Extent, hours_left: Option<u32>) -> String {
    let when = match hours_left {
        None => String::new(),
        Some(0) => ", and is full within the hour at its present pace".to_owned(),
        Some(hours) => format!(", and is full in about {hours} hours at the pace of the last one"),
    };
    let (percent, max_bytes) = (percent(extent), extent.max_bytes);
    format!("{stream} holds {percent} % of the {max_bytes} bytes that it may{when}: {}", advice(stream))
}

/// What becomes of a stream that is full, and what to do.
pub fn advice(stream: &str) -> String {
    let drains = Lane::ALL.iter().any(|lane| {
        let of = stream.strip_prefix(lane.as_str()).and_then(|rest| rest.strip_prefix('-'));
        lane.drains() && of.is_some_and(|partition| partition.parse::<u16>().is_ok())
    });
    if drains {
        "it drains once the stages that read it go on, which `jackpot status` shows; until then whoever writes it waits"
            .into()
    } else {
        format!(
            "raise its limit with `jackpot init --max-bytes {stream}=SIZE`; whoever writes it waits for that"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::log::jetstream::setup;

    fn extent(seconds: i64, bytes: u64) -> Extent {
        Extent { bytes, max_bytes: 1_000_000, at: Millis(seconds * 1_000), ..Extent::default() }
    }

    #[test]
    fn each_stream_is_looked_at_by_one_stage() {
        let all = StageName::ALL.iter().flat_map(|&stage| streams(stage, &[0, 1, 2]));
        let all: Vec<_> = all.collect();
        let there: BTreeSet<_> = setup::streams(&setup::SetUp::new(3)).into_iter().map(|s| s.name).collect();
        assert_eq!(all.len(), there.len());
        assert_eq!(all.into_iter().collect::<BTreeSet<_>>(), there);
    }

    #[test]
    fn a_crossing_is_told_once() {
        let mut filling = Filling::default();
        let news: Vec<_> = [79, 80, 99, 76, 80, 74, 70, 80]
            .into_iter()
            .zip(0..)
            .filter_map(|(percent, at)| Some((percent, filling.look(&extent(at, percent * 10_000)).1?)))
            .collect();
        assert_eq!(news, [(80, News::NearlyFull), (74, News::Relieved), (80, News::NearlyFull)]);
    }

    #[test]
    fn hours_follow_the_pace_of_the_last_hour() {
        let mut filling = Filling::default();
        assert_eq!(filling.look(&extent(0, 100_000)).0, None, "one look tells no pace");
        assert_eq!(filling.look(&extent(10, 200_000)).0, None, "a burst tells none either");
        assert_eq!(filling.look(&extent(3_600, 200_000)).0, Some(8));
        assert_eq!(filling.look(&extent(3_600, 100_000)).0, None, "it does not grow");
        assert_eq!(filling.look(&extent(3_600, 901_000)).0, Some(0), "it may refuse what comes next");
        for at in 0..1_000 {
            filling.look(&extent(3_600 + at * 10, 400_000));
        }
        assert_eq!(filling.seen.len(), LOOKS_REMEMBERED);
        assert_eq!(filling.look(&extent(13_600, 500_000)).0, Some(4), "what is long ago is forgotten");
    }

    #[test]
    fn whoever_is_warned_is_told_what_to_do() {
        let said = warning("commits", &extent(0, 830_000), Some(12));
        let expect = "commits holds 83 % of the 1000000 bytes that it may, and is full in about 12 hours at the pace of \
                      the last one: raise its limit with `jackpot init --max-bytes commits=SIZE`; whoever writes it waits \
                      for that";
        assert_eq!(said, expect);
        for (stream, drains) in [
            ("validated-0", true),
            ("geofenced-12", true),
            ("contributions-3", true),
            ("allocations-0", false),
            ("audit-0", false),
            ("wagers", false),
            ("snapshots", false),
        ] {
            assert_eq!(advice(stream).contains("drains"), drains, "{stream}");
        }
    }
}
