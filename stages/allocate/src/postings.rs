//! What the ledger is told of a frame: sums of eligible amounts, cut at each hit of their pool, and the hits.
//! Postings stand in log order of what began them, so that whatever a pool got before a hit comes before it.

use foldhash::HashMap;
use jackpot_core::frame::contributions::{Contributions, Hit, PoolLevels, Posting, Sum};
use jackpot_core::frame::geofenced::Wager;
use jackpot_core::frame::symbols::{Symbol, Symbols};

use crate::Origin;
use crate::eligibility::Share;
use crate::hits::Won;
use crate::rules::Rules;

/// Gathers the postings of one frame.
pub struct Postings<'a> {
    rules: &'a Rules,
    contributions: Contributions,
    /// By the frame's symbols: ours.
    symbols: Vec<Option<Symbol>>,
    /// By the number in the terms: the pools that postings name.
    pools: Vec<Option<PoolState>>,
    /// The place in `sums` of wagers that are alike.
    alike: HashMap<Alike, usize>,
    /// The sums that still grow: at most one per pool in each.
    sums: Vec<Vec<OpenSum>>,
}

/// What wagers have in common that are summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Alike {
    second: i64,
    operator: Symbol,
    jurisdiction: Symbol,
    game: Symbol,
}

#[derive(Debug, Clone, Copy)]
struct PoolState {
    /// Its index in [`Contributions::pools`].
    index: u16,
    /// How many hits of it have been posted: what was open before the last one grows no more.
    hits: u32,
}

#[derive(Debug, Clone, Copy)]
struct OpenSum {
    pool: u16,
    /// The pool's hits when it was begun.
    hits: u32,
    posting: usize,
}

impl<'a> Postings<'a> {
    /// No postings yet. `symbols` may grow later, by names that no wager has.
    pub fn new(rules: &'a Rules, symbols: &Symbols) -> Self {
        Self {
            rules,
            contributions: Contributions::default(),
            symbols: vec![None; symbols.names().len()],
            pools: vec![None; rules.pools().len()],
            alike: HashMap::default(),
            sums: Vec::new(),
        }
    }

    /// Counts a wager and posts its part in each pool.
    pub fn add_wager(&mut self, symbols: &Symbols, operator: Symbol, wager: &Wager, shares: &[Share]) {
        self.contributions.wagers += 1;
        if shares.is_empty() {
            return;
        }
        let second = wager.occurred_at.second();
        let alike = Alike { second, operator, jurisdiction: wager.jurisdiction, game: wager.game };
        let place = *self.alike.entry(alike).or_insert(self.sums.len());
        if place == self.sums.len() {
            self.sums.push(Vec::with_capacity(shares.len()));
        }
        for share in shares {
            let pool = self.pool(share.pool);
            let known = self.sums[place].iter().position(|sum| sum.pool == pool.index);
            match known.map(|at| self.sums[place][at]) {
                Some(open) if open.hits == pool.hits => self.grow(open.posting, share),
                _ => {
                    let posting = self.begin(symbols, alike, pool, share);
                    let begun = OpenSum { pool: pool.index, hits: pool.hits, posting };
                    match known {
                        Some(at) => self.sums[place][at] = begun,
                        None => self.sums[place].push(begun),
                    }
                }
            }
        }
    }

    /// Posts a hit, behind all that its pool got so far.
    pub fn add_hit(&mut self, symbols: &Symbols, origin: Origin, wager: &Wager, round: &str, won: Won) {
        let pool = self.pool(won.pool);
        let hit = Hit {
            pool: pool.index,
            level: self.contributions.pools[usize::from(pool.index)].levels[won.level],
            operator: self.symbol(symbols, origin.operator),
            source: self.symbol(symbols, origin.source),
            sequence: origin.sequence,
            index: wager.index,
            game: self.symbol(symbols, wager.game),
            round: round.into(),
            jurisdiction: self.symbol(symbols, wager.jurisdiction),
            occurred_at: wager.occurred_at,
            recorded_at: origin.recorded_at,
        };
        self.contributions.postings.push(Posting::Hit(Box::new(hit)));
        self.pools[won.pool] = Some(PoolState { hits: pool.hits + 1, ..pool });
    }

    /// The body of the frame for the ledger.
    pub fn finish(self) -> Contributions {
        self.contributions
    }

    fn begin(&mut self, symbols: &Symbols, alike: Alike, pool: PoolState, share: &Share) -> usize {
        let sum = Sum {
            pool: pool.index,
            second: alike.second,
            operator: self.symbol(symbols, alike.operator),
            jurisdiction: self.symbol(symbols, alike.jurisdiction),
            game: self.symbol(symbols, alike.game),
            wagers: 1,
            eligible: share.eligible,
        };
        self.contributions.postings.push(Posting::Sum(sum));
        self.contributions.postings.len() - 1
    }

    fn grow(&mut self, posting: usize, share: &Share) {
        match &mut self.contributions.postings[posting] {
            Posting::Sum(sum) => {
                sum.wagers += 1;
                sum.eligible.0 += share.eligible.0;
            }
            Posting::Hit(_) => unreachable!("an open sum is a sum"),
        }
    }

    /// The pool of this number in the terms, which is listed with its levels on its first use.
    fn pool(&mut self, number: usize) -> PoolState {
        if let Some(known) = self.pools[number] {
            return known;
        }
        let Contributions { symbols, pools, .. } = &mut self.contributions;
        let index = u16::try_from(pools.len()).expect("the terms hold at most 1,024 levels, and so pools");
        let rule = &self.rules.pools()[number];
        let pool = symbols.intern(&rule.name);
        pools.push(PoolLevels {
            pool,
            levels: rule.levels.iter().map(|level| symbols.intern(level)).collect(),
        });
        *self.pools[number].insert(PoolState { index, hits: 0 })
    }

    fn symbol(&mut self, symbols: &Symbols, symbol: Symbol) -> Symbol {
        let ours = &mut self.contributions.symbols;
        *self.symbols[symbol.index()].get_or_insert_with(|| ours.intern(symbols.name(symbol)))
    }
}
