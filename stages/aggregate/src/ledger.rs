//! The exact state of levels (contract, section 4): contributions, hits, and what a revision of the terms does.
//! [`crate::dataflow`] calls it, one [`PoolLedger`] per pool, in log order.
//! No names, no JSON, no order between pools: those are [`crate::books`]'s.

use jackpot_core::money::{Micro, Pico, Ppm};
use serde::{Deserialize, Serialize};

use crate::postings::{Item, LevelTerms, PoolPostings, PoolTerms, Turn};
use crate::windows::{ClosedWindow, PoolWindows, Rule};

/// A level: what it is run by, and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LevelBook {
    /// What it starts from after a hit.
    pub base: Pico,
    /// What it does not grow above.
    pub ceiling: Option<Pico>,
    /// The share of an eligible amount that it grows by.
    #[serde(with = "crate::postings::ppm")]
    pub increment: Ppm,
    /// The share that goes to its reserve.
    #[serde(with = "crate::postings::ppm")]
    pub reserve_rate: Ppm,
    /// What waits for the next hit.
    pub waiting: Waiting,
    /// The amount owed to the next winner.
    pub current: Pico,
    /// The hidden reserve.
    pub reserve: Pico,
    /// What would have lifted `current` above the ceiling.
    pub diversion: Pico,
    /// Wagers that took part.
    pub wagers: u64,
    /// The sum of their eligible amounts.
    pub wagered: Pico,
    /// The sum of increments and reserves.
    pub contributed: Pico,
    /// The sum of payoffs.
    pub paid: Pico,
    /// What the house put in.
    pub house: Pico,
    /// Corrections and transfers; nothing posts any yet.
    pub adjusted: Pico,
    /// How often it was won.
    pub hits: u64,
    /// In how many commits it changed.
    pub sequence: u64,
}

/// Changes that wait for a level's next hit. `ceiling` never waits to be lifted altogether: that is immediate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Waiting {
    /// The increment rate.
    #[serde(with = "crate::postings::ppm_option")]
    pub increment: Option<Ppm>,
    /// The reserve rate.
    #[serde(with = "crate::postings::ppm_option")]
    pub reserve_rate: Option<Ppm>,
    /// The ceiling.
    pub ceiling: Option<Pico>,
}

/// What a hit paid, and where the refill came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payoff {
    /// The number of the hit of this level, from 1.
    pub sequence: u64,
    /// What is paid.
    pub payoff: Pico,
    /// `current` after payoff and refill.
    pub current: Pico,
    /// What of the refill came from the diversion pool,
    pub from_diversion: Pico,
    /// from the reserve,
    pub from_reserve: Pico,
    /// and from the house.
    pub from_house: Pico,
}

impl LevelBook {
    /// A new level: `current` is `base`, funded by the house.
    pub fn open(terms: &LevelTerms) -> Self {
        Self {
            base: terms.base,
            ceiling: terms.ceiling,
            increment: terms.increment,
            reserve_rate: terms.reserve,
            waiting: Waiting::default(),
            current: terms.base,
            reserve: Pico::ZERO,
            diversion: Pico::ZERO,
            wagers: 0,
            wagered: Pico::ZERO,
            contributed: Pico::ZERO,
            paid: Pico::ZERO,
            house: terms.base,
            adjusted: Pico::ZERO,
            hits: 0,
            sequence: 0,
        }
    }

    /// Takes a revision up. What waits is what differs from what is in force, so that a later revision replaces an
    /// earlier one, and one that goes back to the old value leaves nothing waiting.
    pub fn learn(&mut self, terms: &LevelTerms) {
        let lowered = |ceiling: &Pico| *ceiling < self.current && Some(*ceiling) != self.ceiling;
        self.waiting = Waiting {
            increment: Some(terms.increment).filter(|rate| *rate != self.increment),
            reserve_rate: Some(terms.reserve).filter(|rate| *rate != self.reserve_rate),
            ceiling: terms.ceiling.filter(lowered),
        };
        self.base = terms.base;
        if self.waiting.ceiling.is_none() {
            self.ceiling = terms.ceiling;
        }
    }

    /// Posts `wagers` wagers with the sum `eligible`. What lies above the ceiling goes to the diversion pool;
    /// a level that a refill has left above its ceiling diverts everything.
    pub fn post(&mut self, wagers: u64, eligible: Micro) {
        let increment = eligible.share(self.increment);
        let reserve = eligible.share(self.reserve_rate);
        let room =
            self.ceiling.map_or(increment, |ceiling| (ceiling - self.current).clamp(Pico::ZERO, increment));
        self.current += room;
        self.diversion += increment - room;
        self.reserve += reserve;
        self.wagers += wagers;
        self.wagered += eligible.pico();
        self.contributed += increment + reserve;
    }

    /// Pays the level out and refills it. What waits takes effect after that.
    pub fn hit(&mut self, minor_digits: u32) -> Payoff {
        let payoff = self.current.floor_to_minor(minor_digits);
        let from_diversion = self.base.min(self.diversion);
        let from_reserve = (self.base - from_diversion).min(self.reserve);
        let from_house = self.base - from_diversion - from_reserve;
        self.current = self.current - payoff + self.base;
        self.diversion -= from_diversion;
        self.reserve -= from_reserve;
        self.house += from_house;
        self.paid += payoff;
        self.hits += 1;
        let waiting = std::mem::take(&mut self.waiting);
        self.increment = waiting.increment.unwrap_or(self.increment);
        self.reserve_rate = waiting.reserve_rate.unwrap_or(self.reserve_rate);
        self.ceiling = waiting.ceiling.or(self.ceiling);
        Payoff {
            sequence: self.hits,
            payoff,
            current: self.current,
            from_diversion,
            from_reserve,
            from_house,
        }
    }

    /// All that the level holds.
    pub fn funds(&self) -> Pico {
        self.current + self.reserve + self.diversion
    }

    /// The books of a level balance to the last digit (invariant I4).
    pub fn assert_balanced(&self) {
        assert_eq!(
            self.funds(),
            self.contributed + self.house + self.adjusted - self.paid,
            "a level's current, reserve and diversion must be what came in less what was paid: {self:?}"
        );
    }

    /// The share of an eligible amount that counts as contributed.
    fn contributed_rate(&self) -> Ppm {
        Ppm(self.increment.0 + self.reserve_rate.0)
    }
}

/// A pool: its levels by position, and their windows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PoolLedger {
    pool: u32,
    minor_digits: u32,
    levels: Vec<LevelBook>,
    /// By position: whether the commit at hand has changed the level.
    changed: Vec<bool>,
    windows: PoolWindows,
}

/// A level that a commit changed, after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedLevel {
    /// The pool's number.
    pub pool: u32,
    /// The level's position in the pool.
    pub level: u8,
    /// Its state.
    pub book: LevelBook,
}

/// A hit that was paid, with its place in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaidHit {
    /// The partition,
    pub partition: u16,
    /// the frame,
    pub frame: u64,
    /// and the index in the frame's postings.
    pub posting: u32,
    /// The level's position in its pool.
    pub level: u8,
    /// What was paid.
    pub payoff: Payoff,
}

/// What a commit did to the pools of one worker, in no particular order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// The levels that changed.
    pub levels: Vec<ChangedLevel>,
    /// The windows that closed.
    pub windows: Vec<ClosedWindow>,
    /// The hits.
    pub hits: Vec<PaidHit>,
}

impl PoolLedger {
    /// A pool without levels yet: [`PoolLedger::learn`] opens them. `seconds` are the windows' lengths.
    pub fn new(pool: u32, minor_digits: u32, seconds: &[u32]) -> Self {
        Self {
            pool,
            minor_digits,
            levels: Vec::new(),
            changed: Vec::new(),
            windows: PoolWindows::new(seconds),
        }
    }

    /// Its number.
    pub fn number(&self) -> u32 {
        self.pool
    }

    /// Begins a commit: a base that waits for the first watermark finds its window.
    pub fn begin(&mut self, turn: &Turn) {
        self.windows.place(turn);
    }

    /// Takes a revision up, at the beginning of a commit. Levels keep their positions; new ones come last.
    /// All of them change, if only in that their totals name the revision: the last message is the present state.
    pub fn learn(&mut self, terms: &PoolTerms, turn: &Turn) {
        for (position, level) in terms.levels.iter().enumerate() {
            if let Some(book) = self.levels.get_mut(position) {
                book.learn(level);
                self.changed[position] = true;
            } else {
                self.levels.push(LevelBook::open(level));
                self.changed.push(true);
                self.windows.open_level(level.base, turn);
            }
        }
    }

    /// Posts what one frame asks, in its order.
    pub fn post(&mut self, postings: &PoolPostings, turn: &Turn, outcome: &mut Outcome) {
        for item in &postings.items {
            match item {
                Item::Run(run) => {
                    self.windows.post(run, &self.rule(&postings.levels), turn);
                    for &level in &postings.levels {
                        self.levels[usize::from(level)].post(run.wagers, run.eligible);
                        self.changed[usize::from(level)] = true;
                    }
                }
                Item::Hit(hit) => {
                    let payoff = self.levels[usize::from(hit.level)].hit(self.minor_digits);
                    self.changed[usize::from(hit.level)] = true;
                    self.windows.hit(hit, &payoff, turn);
                    outcome.hits.push(PaidHit {
                        partition: postings.partition,
                        frame: postings.frame,
                        posting: hit.posting,
                        level: hit.level,
                        payoff,
                    });
                }
            }
        }
    }

    /// Ends a commit: gives the changed levels, and closes the windows that the watermark has passed.
    pub fn turn(&mut self, turn: &Turn, outcome: &mut Outcome) {
        for (position, changed) in (0_u8..).zip(&mut self.changed) {
            if std::mem::take(changed) {
                let book = &mut self.levels[usize::from(position)];
                book.sequence += 1;
                book.assert_balanced();
                outcome.levels.push(ChangedLevel { pool: self.pool, level: position, book: *book });
            }
        }
        let closed = outcome.windows.len();
        self.windows.close(self.pool, turn, &mut outcome.windows);
        if outcome.windows.len() > closed {
            self.assert_windows_add_up();
        }
    }

    /// Where a level has no open window left, the last closing is all that it holds (invariant I4).
    fn assert_windows_add_up(&self) {
        for (position, book) in self.levels.iter().enumerate() {
            for closing in self.windows.settled(position) {
                assert_eq!(closing, book.funds(), "a level's windows must add up to its total: {book:?}");
            }
        }
    }

    /// By what share each level takes part in a posting, now.
    fn rule(&self, levels: &[u8]) -> Rule {
        let mut rule = Rule::default();
        for &level in levels {
            rule.0[usize::from(level)] = Some(self.levels[usize::from(level)].contributed_rate());
        }
        rule
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pico(text: &str) -> Pico {
        Pico::parse(text).expect("an amount")
    }

    fn terms(base: &str, ceiling: Option<&str>, increment: u32, reserve: u32) -> LevelTerms {
        LevelTerms {
            base: pico(base),
            ceiling: ceiling.map(pico),
            increment: Ppm(increment),
            reserve: Ppm(reserve),
        }
    }

    fn micro(text: &str) -> Micro {
        Micro::parse_wager(text).expect("an amount")
    }

    /// `current reserve diversion contributed house paid`.
    fn check(book: &LevelBook, expect: &str) {
        let LevelBook { current, reserve, diversion, contributed, house, paid, .. } = book;
        assert_eq!(format!("{current} {reserve} {diversion} {contributed} {house} {paid}"), expect);
        book.assert_balanced();
    }

    #[test]
    fn the_trades_own_vectors_come_out() {
        // SG Mega Drop: 2 % of the wager, of which 0.300/0.525/0.675 to current and a third of that to reseed.
        for (increment, reserve, expect) in [
            (3_000, 1_000, "0.3 0.1 0 0.4 0 0"),
            (5_250, 1_750, "0.525 0.175 0 0.7 0 0"),
            (6_750, 2_250, "0.675 0.225 0 0.9 0 0"),
        ] {
            let mut book = LevelBook::open(&terms("0", None, increment, reserve));
            book.post(1, micro("100"));
            check(&book, expect);
        }
        // Unibo: 50 at 0.20 %, split 20/30/50.
        for (increment, expect) in
            [(400, "0.02 0 0 0.02 0 0"), (600, "0.03 0 0 0.03 0 0"), (1_000, "0.05 0 0 0.05 0 0")]
        {
            let mut book = LevelBook::open(&terms("0", None, increment, 0));
            book.post(1, micro("50"));
            check(&book, expect);
        }
    }

    #[test]
    fn what_is_above_the_ceiling_is_diverted() {
        let mut book = LevelBook::open(&terms("10", Some("11"), 100_000, 50_000));
        check(&book, "10 0 0 0 10 0");
        book.post(1, micro("8"));
        check(&book, "10.8 0.4 0 1.2 10 0");
        book.post(1, micro("8"));
        check(&book, "11 0.8 0.6 2.4 10 0");
    }

    #[test]
    fn a_hit_pays_whole_minor_units_and_refills_from_diversion_reserve_and_house() {
        let mut book = LevelBook::open(&terms("10", Some("11"), 100_000, 50_000));
        book.post(2, micro("16"));
        book.post(1, micro("0.000001"));
        check(&book, "11 0.80000005 0.6000001 2.40000015 10 0");
        let payoff = book.hit(2);
        assert_eq!(
            payoff,
            Payoff {
                sequence: 1,
                payoff: pico("11"),
                current: pico("10"),
                from_diversion: pico("0.6000001"),
                from_reserve: pico("0.80000005"),
                from_house: pico("8.59999985"),
            }
        );
        check(&book, "10 0 0 2.40000015 18.59999985 11");
        book.post(1, micro("0.12345"));
        assert_eq!(book.hit(0).current, pico("10.012345"), "the rest below a minor unit stays");
    }

    #[test]
    fn a_refill_is_not_cut_by_the_ceiling_and_then_everything_is_diverted() {
        let mut book = LevelBook::open(&terms("10", Some("10"), 100_000, 0));
        book.ceiling = None;
        book.post(1, micro("0.09"));
        book.ceiling = Some(pico("10"));
        book.hit(2);
        check(&book, "10.009 0 0 0.009 20 10");
        book.post(1, micro("1"));
        check(&book, "10.009 0 0.1 0.109 20 10");
    }

    #[test]
    fn held_changes_take_effect_right_after_the_hit() {
        let mut book = LevelBook::open(&terms("10", None, 100_000, 0));
        book.post(1, micro("100"));
        book.learn(&terms("12", Some("15"), 200_000, 50_000));
        let waiting = Waiting {
            increment: Some(Ppm(200_000)),
            reserve_rate: Some(Ppm(50_000)),
            ceiling: Some(pico("15")),
        };
        assert_eq!(book.waiting, waiting);
        assert_eq!((book.base, book.ceiling), (pico("12"), None), "the base is immediate");
        book.post(1, micro("10"));
        check(&book, "21 0 0 11 10 0");
        let payoff = book.hit(2);
        assert_eq!((payoff.payoff, payoff.current), (pico("21"), pico("12")));
        assert_eq!(book.waiting, Waiting::default());
        book.post(2, micro("20"));
        check(&book, "15 1 1 16 22 21");
    }

    #[test]
    fn a_later_revision_replaces_what_waits() {
        let mut book = LevelBook::open(&terms("10", Some("50"), 100_000, 0));
        book.learn(&terms("10", Some("9"), 200_000, 0));
        book.learn(&terms("10", Some("30"), 300_000, 0));
        assert_eq!(book.waiting, Waiting { increment: Some(Ppm(300_000)), ..Waiting::default() });
        assert_eq!(book.ceiling, Some(pico("30")), "a ceiling above current is immediate");
        book.learn(&terms("10", Some("30"), 100_000, 0));
        assert_eq!(book.waiting, Waiting::default());
        book.learn(&terms("10", None, 100_000, 0));
        assert_eq!(book.ceiling, None, "lifting a ceiling is immediate");
    }

    #[test]
    fn a_ceiling_that_stays_where_it_is_does_not_wait() {
        let mut book = LevelBook::open(&terms("10", Some("10"), 0, 0));
        book.current = pico("10.5");
        book.house = pico("10.5");
        book.learn(&terms("10", Some("10"), 0, 0));
        assert_eq!((book.ceiling, book.waiting), (Some(pico("10")), Waiting::default()));
        book.learn(&terms("10", Some("10.2"), 0, 0));
        assert_eq!(book.waiting.ceiling, Some(pico("10.2")));
    }
}
