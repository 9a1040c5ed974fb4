//! Sums over the last minute of closed windows: how fast a level grows, and where a pool's contributions come from.
//! Exact sums of what was published in windows; what is older than a minute of event time is taken out again.

use std::collections::{BTreeMap, VecDeque};

use jackpot_core::money::Pico;
use jackpot_core::record::{Share, Window};
use jackpot_core::time::Millis;

/// Over how long sums are taken, in milliseconds; one window where windows are longer.
pub const SPAN_MS: i64 = 60_000;
/// Shares of a pool that are kept at most: beyond, the sums reach less far back, and say so.
const SHARES_MAX: usize = 20_000;

/// What a level did in a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flow {
    /// Wagers that took part.
    pub wagers: u64,
    /// Increments and reserves.
    pub contributed: Pico,
    /// By how much what the level holds has changed, payoffs and refills included.
    pub change: Pico,
}

/// The last minute of a level.
#[derive(Debug, Default)]
pub struct Flows {
    windows: VecDeque<(Millis, Flow)>,
    sum: Flow,
}

impl Flows {
    /// Takes in a window, unless it was taken in before.
    pub fn push(&mut self, window: &Window) -> bool {
        if self.windows.back().is_some_and(|(end, _)| *end >= window.window_end) {
            return false;
        }
        let change = window.closing - window.opening;
        let flow = Flow { wagers: window.wagers, contributed: window.contributed, change };
        self.sum.wagers += flow.wagers;
        self.sum.contributed += flow.contributed;
        self.sum.change += flow.change;
        self.windows.push_back((window.window_end, flow));
        true
    }

    /// Takes out what ended by then; tells whether anything did.
    pub fn expire(&mut self, by: Millis) -> bool {
        let before = self.windows.len();
        while let Some((_, flow)) = self.windows.pop_front_if(|(end, _)| *end <= by) {
            self.sum.wagers -= flow.wagers;
            self.sum.contributed -= flow.contributed;
            self.sum.change -= flow.change;
        }
        self.windows.len() < before
    }

    /// The sum.
    pub fn sum(&self) -> Flow {
        self.sum
    }

    /// Each window's end, and what it held, oldest first.
    pub fn windows(&self) -> impl DoubleEndedIterator<Item = (Millis, Flow)> {
        self.windows.iter().copied()
    }
}

/// What a pool's contributions are told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum By {
    /// Where they were made.
    Jurisdiction,
    /// Who made them.
    Operator,
}

/// What somebody contributed in a window.
type Part = (By, String, Pico);

/// The last minute of a pool's contributions, over all its levels.
#[derive(Debug, Default)]
pub struct Shares {
    windows: VecDeque<(Millis, Vec<Part>)>,
    kept: usize,
    /// Sums, and of how many windows they are.
    sums: BTreeMap<(By, String), (Pico, usize)>,
    /// The end of the last window that was taken out.
    expired: Millis,
}

impl Shares {
    /// Takes in a window of one of its levels.
    pub fn push(&mut self, window: &Window) {
        let of = |by: By, shares: &BTreeMap<String, Share>| -> Vec<_> {
            shares.iter().map(|(name, share)| (by, name.clone(), share.contributed)).collect()
        };
        let mut shares = of(By::Jurisdiction, &window.by_jurisdiction);
        shares.extend(of(By::Operator, &window.by_operator));
        for (by, name, contributed) in &shares {
            let (sum, windows) = self.sums.entry((*by, name.clone())).or_default();
            *sum += *contributed;
            *windows += 1;
        }
        self.kept += shares.len();
        self.windows.push_back((window.window_end, shares));
        while self.kept > SHARES_MAX && self.windows.len() > 1 {
            self.take_out();
        }
    }

    /// Takes out what ended by then; tells whether anything did.
    pub fn expire(&mut self, by: Millis) -> bool {
        let before = self.windows.len();
        while self.windows.front().is_some_and(|(end, _)| *end <= by) {
            self.take_out();
        }
        self.windows.len() < before
    }

    fn take_out(&mut self) {
        let Some((end, shares)) = self.windows.pop_front() else { return };
        self.expired = self.expired.max(end);
        self.kept -= shares.len();
        for (by, name, contributed) in shares {
            let key = (by, name);
            if let Some((sum, windows)) = self.sums.get_mut(&key) {
                *sum -= contributed;
                *windows -= 1;
                if *windows == 0 {
                    self.sums.remove(&key);
                }
            }
        }
    }

    /// The sums by name.
    pub fn by(&self, by: By) -> BTreeMap<&str, Pico> {
        let of = self.sums.iter().filter(|((kind, _), _)| *kind == by);
        of.map(|((_, name), (sum, _))| (name.as_str(), *sum)).collect()
    }

    /// The end of the last window that is in the sums no more.
    pub fn expired(&self) -> Millis {
        self.expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A window of a second that ends then.
    pub fn window(end: i64, contributed: i128, places: &[&str]) -> Window {
        let share = Share { wagers: 1, wagered: Pico::ZERO, contributed: Pico(contributed) };
        let shares: BTreeMap<_, _> = places.iter().map(|&place| (place.to_owned(), share)).collect();
        Window {
            pool: "mega".into(),
            level: "grand".into(),
            currency: "EUR".into(),
            commit: 1,
            seconds: 1,
            window_start: Millis(end - 1_000),
            window_end: Millis(end),
            opening: Pico::ZERO,
            closing: Pico(contributed),
            wagers: 1,
            wagered: Pico::ZERO,
            contributed: Pico(contributed),
            paid: Pico::ZERO,
            house: Pico::ZERO,
            adjusted: Pico::ZERO,
            hits: 0,
            late: 0,
            by_operator: BTreeMap::from([("acme".to_owned(), share)]),
            by_jurisdiction: shares,
            by_game: None,
            by_operator_jurisdiction: None,
        }
    }

    #[test]
    fn what_is_older_than_the_minute_is_in_no_sum() {
        let (mut flows, mut shares) = (Flows::default(), Shares::default());
        for second in 1..=90 {
            let window =
                window(second * 1_000, i128::from(second), if second < 50 { &["MT"] } else { &["GB"] });
            assert!(flows.push(&window) && !flows.push(&window), "a window counts once");
            shares.push(&window);
            let by = Millis(second * 1_000 - SPAN_MS);
            flows.expire(by);
            shares.expire(by);
        }
        let sum: i128 = (31..=90).sum();
        let expect = Flow { wagers: 60, contributed: Pico(sum), change: Pico(sum) };
        assert_eq!(flows.sum(), expect);
        assert_eq!(shares.by(By::Operator), BTreeMap::from([("acme", Pico(sum))]));
        let places = BTreeMap::from([("MT", Pico((31..50).sum())), ("GB", Pico((50..=90).sum()))]);
        assert_eq!(shares.by(By::Jurisdiction), places);
        assert!(
            flows.expire(Millis(90_000)) && shares.expire(Millis(90_000)) && !flows.expire(Millis(90_000))
        );
        assert_eq!((flows.sum(), shares.by(By::Jurisdiction)), (Flow::default(), BTreeMap::new()));
    }

    #[test]
    fn shares_are_bounded_and_say_how_far_they_reach() {
        let places: Vec<_> = (0..5_000).map(|place| format!("p{place}")).collect();
        let places: Vec<_> = places.iter().map(String::as_str).collect();
        let mut shares = Shares::default();
        (1..=10).for_each(|second| shares.push(&window(second * 1_000, 1, &places)));
        assert_eq!(shares.windows.len(), 3);
        assert_eq!((shares.expired(), shares.by(By::Operator)["acme"]), (Millis(7_000), Pico(3)));
    }
}
