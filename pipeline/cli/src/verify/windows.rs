//! The event-time windows of one level, kept again (contract, section 5): tumbling, of several lengths, closed by
//! watermark, each opening with what the one before closed with.

use std::collections::BTreeMap;

use jackpot_core::money::{Micro, Pico};
use jackpot_core::record::{LevelTotals, Share, Window};
use jackpot_core::time::Millis;

use crate::verify::ledger::Stamp;
use crate::verify::sums::Sum;

/// Windows at least so long are broken down by game, and by operator and jurisdiction together.
const DETAILED_FROM_S: u32 = 60;

/// The windows of a level.
#[derive(Debug)]
pub struct Windows {
    /// One in which nothing happened.
    blank: Window,
    lengths: Vec<Length>,
    /// A base that waits for the first watermark.
    base: Pico,
}

/// The windows of one length.
#[derive(Debug)]
struct Length {
    seconds: u32,
    /// By their first second; only those in which something happened.
    open: BTreeMap<i64, Window>,
    /// What the last closed one closed with.
    closing: Pico,
    /// What the closed ones that were published add up to,
    published: Sums,
    /// and those that were not yet.
    due: Sums,
}

/// What windows add up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    /// Wagers.
    pub wagers: u64,
    /// Their eligible amounts.
    pub wagered: Pico,
    /// Increments and reserves.
    pub contributed: Pico,
    /// Payoffs.
    pub paid: Pico,
    /// What the house put in.
    pub house: Pico,
    /// Hits.
    pub hits: u64,
}

impl Sums {
    fn of(window: &Window) -> Self {
        Self {
            wagers: window.wagers,
            wagered: window.wagered,
            contributed: window.contributed,
            paid: window.paid,
            house: window.house,
            hits: window.hits,
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            wagers: self.wagers + other.wagers,
            wagered: self.wagered + other.wagered,
            contributed: self.contributed + other.contributed,
            paid: self.paid + other.paid,
            house: self.house + other.house,
            hits: self.hits + other.hits,
        }
    }

    fn less(self, other: Self) -> Self {
        Self {
            wagers: self.wagers.saturating_sub(other.wagers),
            wagered: self.wagered - other.wagered,
            contributed: self.contributed - other.contributed,
            paid: self.paid - other.paid,
            house: self.house - other.house,
            hits: self.hits.saturating_sub(other.hits),
        }
    }
}

impl Windows {
    /// Of a new level, whose base the house pays.
    pub fn new(level: &LevelTotals, seconds: &[u32]) -> Self {
        let length = |&seconds| Length {
            seconds,
            open: BTreeMap::new(),
            closing: Pico::ZERO,
            published: Sums::default(),
            due: Sums::default(),
        };
        Self { blank: blank(level), lengths: seconds.iter().map(length).collect(), base: level.base }
    }

    /// A base that waits goes to the earliest open window, as soon as a watermark says which that is.
    pub fn place_base(&mut self, stamp: &Stamp) {
        let Some(earliest) = stamp.before.or(stamp.after) else { return };
        let base = std::mem::take(&mut self.base);
        if base != Pico::ZERO {
            for length in &mut self.lengths {
                length.window(&self.blank, earliest).house += base;
            }
        }
    }

    /// Posts a sum to the windows that it occurred in, or to the earliest open ones.
    pub fn post(&mut self, sum: &Sum, contributed: Pico, stamp: &Stamp) {
        let share = Share { wagers: sum.wagers, wagered: Micro(sum.eligible).pico(), contributed };
        for length in &mut self.lengths {
            let (second, late) = length.place(sum.key.second, stamp.before);
            let window = length.window(&self.blank, second);
            window.wagers += share.wagers;
            window.wagered += share.wagered;
            window.contributed += share.contributed;
            window.late += if late { share.wagers } else { 0 };
            let key = &sum.key;
            add(&mut window.by_operator, &key.operator, share);
            add(&mut window.by_jurisdiction, &key.jurisdiction, share);
            if let Some(games) = &mut window.by_game {
                add(games, &key.game, share);
            }
            if let Some(pairs) = &mut window.by_operator_jurisdiction {
                add(pairs, &format!("{}/{}", key.operator, key.jurisdiction), share);
            }
        }
    }

    /// Posts a payoff and its refill to the latest window that holds anything; the wager's own is there already.
    pub fn hit(&mut self, occurred_at: Millis, payoff: Pico, from_house: Pico, stamp: &Stamp) {
        for length in &mut self.lengths {
            let latest = length.open.last_key_value().map(|(first, _)| *first);
            let second =
                latest.unwrap_or_else(|| length.place(occurred_at.0.div_euclid(1_000), stamp.before).0);
            let window = length.window(&self.blank, second);
            window.paid += payoff;
            window.house += from_house;
            window.hits += 1;
        }
    }

    /// Closes what the commit's watermark has passed.
    pub fn close(&mut self, stamp: &Stamp, closed: &mut Vec<Window>) {
        let Some(passed) = stamp.after else { return };
        for length in &mut self.lengths {
            while let Some(first) = length.open.first_entry()
                && first.key() + i64::from(length.seconds) <= passed
            {
                let mut window = first.remove();
                window.opening = length.closing;
                window.closing = window.opening + window.contributed + window.house - window.paid;
                length.closing = window.closing;
                length.due = length.due.plus(Sums::of(&window));
                closed.push(window);
            }
        }
    }

    /// A window was published; it counts from here on as it was.
    pub fn published(&mut self, window: &Window) {
        if let Some(length) = self.lengths.iter_mut().find(|length| length.seconds == window.seconds) {
            length.published = length.published.plus(Sums::of(window));
        }
    }

    /// A window that was due has been published.
    pub fn settle(&mut self, window: &Window) {
        if let Some(length) = self.lengths.iter_mut().find(|length| length.seconds == window.seconds) {
            length.due = length.due.less(Sums::of(window));
        }
    }

    /// By length: what the published windows, those that wait and those that are open add up to.
    pub fn sums(&self) -> impl Iterator<Item = (u32, Sums)> {
        self.lengths.iter().map(|length| {
            let waits = Sums { house: self.base, ..Sums::default() };
            let open = length.open.values().map(Sums::of).fold(waits, Sums::plus);
            (length.seconds, length.published.plus(length.due).plus(open))
        })
    }
}

impl Length {
    /// The open window that holds this second.
    fn window(&mut self, blank: &Window, second: i64) -> &mut Window {
        let (first, seconds) = (self.first(second), self.seconds);
        let detailed = seconds >= DETAILED_FROM_S;
        self.open.entry(first).or_insert_with(|| Window {
            seconds,
            window_start: Millis(first * 1_000),
            window_end: Millis((first + i64::from(seconds)) * 1_000),
            by_game: detailed.then(BTreeMap::new),
            by_operator_jurisdiction: detailed.then(BTreeMap::new),
            ..blank.clone()
        })
    }

    /// A second of the window that takes an event, and whether it comes late for its own.
    fn place(&self, second: i64, closed: Option<i64>) -> (i64, bool) {
        match closed {
            Some(closed) if self.first(second) + i64::from(self.seconds) <= closed => (closed, true),
            _ => (second, false),
        }
    }

    /// The first second of the window that a second lies in.
    fn first(&self, second: i64) -> i64 {
        second - second.rem_euclid(self.seconds.into())
    }
}

fn blank(level: &LevelTotals) -> Window {
    Window {
        pool: level.pool.clone(),
        level: level.level.clone(),
        currency: level.currency.clone(),
        commit: 0,
        seconds: 0,
        window_start: Millis(0),
        window_end: Millis(0),
        opening: Pico::ZERO,
        closing: Pico::ZERO,
        wagers: 0,
        wagered: Pico::ZERO,
        contributed: Pico::ZERO,
        paid: Pico::ZERO,
        house: Pico::ZERO,
        adjusted: Pico::ZERO,
        hits: 0,
        late: 0,
        by_operator: BTreeMap::new(),
        by_jurisdiction: BTreeMap::new(),
        by_game: None,
        by_operator_jurisdiction: None,
    }
}

fn add(shares: &mut BTreeMap<String, Share>, name: &str, share: Share) {
    let sum = match shares.get_mut(name) {
        Some(sum) => sum,
        None => shares.entry(name.to_owned()).or_default(),
    };
    sum.wagers += share.wagers;
    sum.wagered += share.wagered;
    sum.contributed += share.contributed;
}

/// The second up to which windows are closed: every partition's watermark has passed it, or the greatest one has by
/// `max_skew_s`.
pub fn passed(watermarks: &[Option<Millis>], max_skew_s: u32) -> Option<Millis> {
    let greatest = watermarks.iter().flatten().max()?;
    let skewed = greatest.plus(-i64::from(max_skew_s) * 1_000);
    let all = watermarks.iter().copied().collect::<Option<Vec<_>>>();
    let least = all.and_then(|all| all.into_iter().min());
    Some(least.map_or(skewed, |least| least.max(skewed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_close_when_all_have_passed_or_one_is_far_ahead() {
        let check = |watermarks: &[Option<i64>], expect: Option<i64>| {
            let watermarks: Vec<_> = watermarks.iter().map(|at| at.map(Millis)).collect();
            assert_eq!(passed(&watermarks, 300).map(|at| at.0), expect, "{watermarks:?}");
        };
        check(&[None, None], None);
        check(&[Some(5_000), Some(7_000)], Some(5_000));
        check(&[Some(5_000), Some(400_000)], Some(100_000));
        check(&[None, Some(400_000)], Some(100_000));
        let oldest = Millis::FIRST.0;
        check(&[None, Some(oldest + 1)], Some(oldest));
    }
}
