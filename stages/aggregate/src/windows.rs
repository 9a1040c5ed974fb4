//! Event-time windows of a pool's levels (contract, section 5): tumbling, of several lengths, closed by watermark.
//! [`crate::ledger`] posts what it posts to the levels; here it is remembered by time until the window closes.
//! The watermark is given: how it follows from those of the partitions is [`effective`].
//!
//! Within a pool all levels see the same wagers, so an open window keeps eligible amounts once per pool, and
//! under which [`Rule`] they came; what a level made of them is computed when the window closes.

use std::collections::BTreeMap;

use jackpot_core::limits;
use jackpot_core::money::{Micro, Pico, Ppm};
use jackpot_core::record::{Share, WindowSettings};
use jackpot_core::time::Millis;
use serde::{Deserialize, Serialize};

use crate::ledger::Payoff;
use crate::postings::{HitAt, Part, Run, Tally, Turn};

/// Windows at least so long, in seconds, are broken down by game, and by operator and jurisdiction together.
pub const DETAILED_FROM_S: u32 = 60;
/// How many lengths there may be: each costs every posting two look-ups.
pub const LENGTHS_MAX: usize = 8;
/// A window at most: a day.
pub const LENGTH_MAX_S: u32 = 86_400;

/// Why the settings of windows cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// None, or too many.
    #[error("give 1 to {LENGTHS_MAX} window lengths, not {0}")]
    Count(usize),
    /// Out of range.
    #[error("a window is 1 to {LENGTH_MAX_S} seconds long, not {0}")]
    Length(u32),
    /// In disorder.
    #[error("give window lengths in ascending order, each once: {1} does not come after {0}")]
    Order(u32, u32),
}

/// Whether windows can be kept by these settings.
pub fn check(settings: &WindowSettings) -> Result<(), SettingsError> {
    let seconds = &settings.seconds;
    if seconds.is_empty() || seconds.len() > LENGTHS_MAX {
        return Err(SettingsError::Count(seconds.len()));
    }
    if let Some(&length) = seconds.iter().find(|length| !(1..=LENGTH_MAX_S).contains(*length)) {
        return Err(SettingsError::Length(length));
    }
    match seconds.windows(2).find(|pair| pair[0] >= pair[1]) {
        Some(pair) => Err(SettingsError::Order(pair[0], pair[1])),
        None => Ok(()),
    }
}

/// The watermark that closes windows: the least of the partitions', or the greatest less `max_skew_s` where that
/// is later. A partition that has said nothing yet (`None`: no wager, no idle notice) is behind all others: until
/// its first idle notice only the skew closes windows. `None` while no partition has said anything.
pub fn effective(watermarks: &[Option<Millis>], max_skew_s: u32) -> Option<Millis> {
    let greatest = watermarks.iter().flatten().max()?;
    let ahead = greatest.plus(-i64::from(max_skew_s) * 1_000);
    let least = watermarks.iter().copied().min().flatten();
    Some(least.map_or(ahead, |least| least.max(ahead)))
}

/// By a level's position: the share of eligible amounts that counts as contributed; `None` where the level is
/// not part of the pool in the frame's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rule(#[serde(with = "crate::postings::ppm_options")] pub [Option<Ppm>; limits::POOL_LEVELS_MAX]);

/// The windows of a pool.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PoolWindows {
    levels: usize,
    lengths: Vec<Length>,
    /// By level: bases that wait for the first watermark, before which no window is the earliest open one.
    unplaced: Vec<Pico>,
}

/// The windows of one length.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Length {
    seconds: u32,
    /// Open windows that hold anything, by their first second.
    open: BTreeMap<i64, OpenWindow>,
    /// By level: what the last closed window closed with.
    closing: Vec<Pico>,
}

/// A window that may still change.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct OpenWindow {
    /// One per rule; there is a second one only where a rate or the levels changed within the window.
    segments: Vec<Segment>,
    /// What moved in levels but wagers, by position. May be shorter than there are levels.
    moves: Vec<Moves>,
}

/// Wagers that came under the same rule.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Segment {
    rule: Rule,
    total: Tally,
    late: u64,
    /// By operator and jurisdiction.
    pairs: BTreeMap<(u32, u32), Tally>,
    /// By game; empty in short windows.
    games: BTreeMap<u32, Tally>,
}

/// What moved in a level but wagers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Moves {
    paid: Pico,
    house: Pico,
    hits: u64,
}

/// A closed window of one level; it never changes any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedWindow {
    /// The pool's number.
    pub pool: u32,
    /// The level's position in the pool.
    pub level: u8,
    /// Its length.
    pub seconds: u32,
    /// Its first second.
    pub start: i64,
    /// What the window before closed with.
    pub opening: Pico,
    /// What it closes with itself.
    pub closing: Pico,
    /// Of its wagers.
    pub total: Share,
    /// How many of them were late.
    pub late: u64,
    /// Payoffs.
    pub paid: Pico,
    /// What the house put in.
    pub house: Pico,
    /// Hits.
    pub hits: u64,
    /// By operator and jurisdiction.
    pub pairs: Vec<((u32, u32), Share)>,
    /// By game; only in windows of [`DETAILED_FROM_S`] and longer.
    pub games: Option<Vec<(u32, Share)>>,
}

impl PoolWindows {
    /// No window is open. `seconds` are the lengths.
    pub fn new(seconds: &[u32]) -> Self {
        let length = |&seconds| Length { seconds, open: BTreeMap::new(), closing: Vec::new() };
        Self { levels: 0, lengths: seconds.iter().map(length).collect(), unplaced: Vec::new() }
    }

    /// A new level, whose base the house pays in the earliest open window.
    pub fn open_level(&mut self, base: Pico, turn: &Turn) {
        self.levels += 1;
        self.unplaced.push(base);
        self.lengths.iter_mut().for_each(|length| length.closing.push(Pico::ZERO));
        self.place(turn);
    }

    /// Puts bases that wait into the earliest open window: the one that holds the watermark before the commit,
    /// or, where there was none, the commit's own.
    pub fn place(&mut self, turn: &Turn) {
        let Some(earliest) = turn.before.or(turn.after) else { return };
        for (level, base) in self.unplaced.iter_mut().map(std::mem::take).enumerate() {
            if base != Pico::ZERO {
                for length in &mut self.lengths {
                    let start = length.start(earliest);
                    length.open.entry(start).or_default().moves(level).house += base;
                }
            }
        }
    }

    /// Posts a run of sums to the windows that they occurred in, or the earliest open ones.
    pub fn post(&mut self, run: &Run, rule: &Rule, turn: &Turn) {
        for length in &mut self.lengths {
            let detailed = length.detailed();
            let (seconds, closed) = (length.seconds, turn.before);
            for parts in chunks(&run.pairs, seconds, closed) {
                let (start, late) = place(parts[0].second, seconds, closed);
                let segment = length.open.entry(start).or_default().segment(rule);
                for part in parts {
                    segment.total.add(part.tally);
                    segment.late += if late { part.tally.wagers } else { 0 };
                    segment.pairs.entry(part.key).or_default().add(part.tally);
                }
            }
            for parts in chunks(&run.games, seconds, closed).take_while(|_| detailed) {
                let (start, _) = place(parts[0].second, seconds, closed);
                let segment = length.open.entry(start).or_default().segment(rule);
                for part in parts {
                    segment.games.entry(part.key).or_default().add(part.tally);
                }
            }
        }
    }

    /// Posts a payoff and its refill to the latest window of the level that holds anything.
    pub fn hit(&mut self, hit: &HitAt, payoff: &Payoff, turn: &Turn) {
        let level = usize::from(hit.level);
        for length in &mut self.lengths {
            let held =
                length.open.iter().rev().find(|(_, window)| window.holds(level)).map(|(&start, _)| start);
            // The wager's own contribution comes before its hit, so there is one; if not, it is the hit's own.
            let start = held.unwrap_or_else(|| place(hit.second, length.seconds, turn.before).0);
            let moves = length.open.entry(start).or_default().moves(level);
            moves.paid += payoff.payoff;
            moves.house += payoff.from_house;
            moves.hits += 1;
        }
    }

    /// Closes all windows that end at or before the commit's watermark.
    pub fn close(&mut self, pool: u32, turn: &Turn, closed: &mut Vec<ClosedWindow>) {
        let Some(passed) = turn.after else { return };
        for length in &mut self.lengths {
            while let Some(entry) = length.open.first_entry()
                && entry.key() + i64::from(length.seconds) <= passed
            {
                let (start, window) = entry.remove_entry();
                for level in (0_u8..).take(self.levels).filter(|&level| window.holds(level.into())) {
                    closed.push(length.close(pool, level, start, &window));
                }
            }
        }
    }

    /// What the lengths closed with in which no open window holds anything of the level.
    pub fn settled(&self, level: usize) -> impl Iterator<Item = Pico> {
        let placed = self.unplaced[level] == Pico::ZERO;
        self.lengths
            .iter()
            .filter(move |length| placed && !length.open.values().any(|window| window.holds(level)))
            .map(move |length| length.closing[level])
    }
}

impl Length {
    fn detailed(&self) -> bool {
        self.seconds >= DETAILED_FROM_S
    }

    /// The first second of the window that `second` lies in.
    fn start(&self, second: i64) -> i64 {
        place(second, self.seconds, None).0
    }

    fn close(&mut self, pool: u32, level: u8, start: i64, window: &OpenWindow) -> ClosedWindow {
        let position = usize::from(level);
        let moves = window.moves.get(position).copied().unwrap_or_default();
        let (mut total, mut late) = (Share::default(), 0);
        let (mut pairs, mut games) = (BTreeMap::new(), BTreeMap::new());
        for segment in &window.segments {
            let Some(rate) = segment.rule.0[position] else { continue };
            add(&mut total, segment.total, rate);
            late += segment.late;
            segment.pairs.iter().for_each(|(&key, &tally)| add(pairs.entry(key).or_default(), tally, rate));
            segment.games.iter().for_each(|(&key, &tally)| add(games.entry(key).or_default(), tally, rate));
        }
        let opening = self.closing[position];
        let closing = opening + total.contributed + moves.house - moves.paid;
        self.closing[position] = closing;
        ClosedWindow {
            pool,
            level,
            seconds: self.seconds,
            start,
            opening,
            closing,
            total,
            late,
            paid: moves.paid,
            house: moves.house,
            hits: moves.hits,
            pairs: pairs.into_iter().collect(),
            games: self.detailed().then(|| games.into_iter().collect()),
        }
    }
}

impl OpenWindow {
    fn segment(&mut self, rule: &Rule) -> &mut Segment {
        // Nearly always the last one fits; a rule that comes back, as revisions overlap, finds its own.
        let found = self.segments.iter().rposition(|segment| segment.rule == *rule);
        let index = found.unwrap_or_else(|| {
            self.segments.push(Segment {
                rule: *rule,
                total: Tally::default(),
                late: 0,
                pairs: BTreeMap::new(),
                games: BTreeMap::new(),
            });
            self.segments.len() - 1
        });
        &mut self.segments[index]
    }

    fn moves(&mut self, level: usize) -> &mut Moves {
        if self.moves.len() <= level {
            self.moves.resize(level + 1, Moves::default());
        }
        &mut self.moves[level]
    }

    /// Whether anything happened to the level in this window.
    fn holds(&self, level: usize) -> bool {
        self.moves.get(level).is_some_and(|moves| *moves != Moves::default())
            || self.segments.iter().any(|segment| segment.rule.0[level].is_some())
    }
}

/// The first second of the window that takes an event of `second`, and whether the event is late for its own.
fn place(second: i64, seconds: u32, closed: Option<i64>) -> (i64, bool) {
    let seconds = i64::from(seconds);
    let start = |second: i64| second.div_euclid(seconds) * seconds;
    match closed {
        Some(closed) if start(second) + seconds <= closed => (start(closed), true),
        _ => (start(second), false),
    }
}

/// Parts, which are sorted by second, as the windows that take them see them.
fn chunks<K>(parts: &[Part<K>], seconds: u32, closed: Option<i64>) -> impl Iterator<Item = &[Part<K>]> {
    parts.chunk_by(move |a, b| place(a.second, seconds, closed) == place(b.second, seconds, closed))
}

fn add(share: &mut Share, tally: Tally, rate: Ppm) {
    let Tally { wagers, eligible } = tally;
    share.wagers += wagers;
    share.wagered += Micro::pico(eligible);
    share.contributed += eligible.share(rate);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_watermark_closes_or_the_greatest_less_the_skew() {
        let check = |watermarks: &[Option<i64>], expect: Option<i64>| {
            let watermarks: Vec<_> = watermarks.iter().map(|at| at.map(Millis)).collect();
            assert_eq!(effective(&watermarks, 300).map(|at| at.0), expect, "{watermarks:?}");
        };
        check(&[], None);
        check(&[None, None], None);
        check(&[Some(5_000), Some(7_000)], Some(5_000));
        check(&[Some(5_000), Some(400_000)], Some(100_000));
        check(&[None, Some(400_000)], Some(100_000));
        check(&[None, Some(5_000)], Some(-295_000));
    }

    #[test]
    fn an_event_goes_to_its_own_window_or_to_the_earliest_open_one() {
        let check = |second, seconds, closed, expect| assert_eq!(place(second, seconds, closed), expect);
        check(119, 60, None, (60, false));
        check(-1, 60, None, (-60, false));
        check(119, 60, Some(119), (60, false));
        check(119, 60, Some(120), (120, true));
        check(119, 60, Some(190), (180, true));
        check(119, 1, Some(119), (119, false));
        check(118, 1, Some(119), (119, true));
    }

    #[test]
    fn settings_are_checked() {
        let check = |seconds: &[u32]| check(&WindowSettings { seconds: seconds.into(), max_skew_s: 300 });
        assert_eq!(check(&[1, 60, 3_600]), Ok(()));
        assert_eq!(check(&[]), Err(SettingsError::Count(0)));
        assert_eq!(check(&[0, 1]), Err(SettingsError::Length(0)));
        assert_eq!(check(&[60, 1]), Err(SettingsError::Order(60, 1)));
        assert_eq!(check(&[60, 60]), Err(SettingsError::Order(60, 60)));
    }
}
