//! The terms as allocate asks them: for each name, which pools it fits, as a set of bits in the order of the
//! document. Compiled once per revision; asked once per frame for each name. Knows nothing of wagers.

use std::collections::HashMap;

use jackpot_core::frame::batch::Funds;
use jackpot_core::money::{Micro, Rate};
use jackpot_core::names;
use jackpot_core::terms::{self, Terms};

/// Stands for everybody in a pool's `operators`, and for everything in its `games`.
const ALL: &str = "*";

/// The compiled terms. As they come by default they know no game and no pool: revision 0.
#[derive(Debug, Default)]
pub struct Rules {
    revision: u64,
    pools: Vec<Pool>,
    numbers: HashMap<String, usize>,
    /// Every game of the terms.
    games: HashMap<String, PoolSet>,
    /// The operators that some pool names; all others are in `any_operator`.
    operators: HashMap<String, PoolSet>,
    any_operator: PoolSet,
    /// The jurisdictions that some pool names.
    jurisdictions: HashMap<String, PoolSet>,
    /// By the code of the funds, then by opt-in.
    funds: Vec<[PoolSet; 2]>,
    /// The pools' currencies, each once.
    currencies: Vec<String>,
    /// By what is paid, then by what it becomes.
    rates: HashMap<String, HashMap<String, Rate>>,
}

/// A pool, as far as a wager's part in it goes.
#[derive(Debug)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// The number of its currency; see [`Money::rates`].
    pub currency: usize,
    /// The least converted amount that takes part.
    pub min_wager: Micro,
    /// The most of a wager that counts.
    pub max_wager: Option<Micro>,
    /// Its levels.
    pub levels: Vec<String>,
}

/// What a wager's currency is to the pools.
#[derive(Debug, Clone)]
pub struct Money {
    /// The pools that take it.
    pub pools: PoolSet,
    /// By the number of a pool's currency: the rate, or `None` where it is the same one. What stands for a
    /// currency whose pools do not take it is never asked for.
    pub rates: Vec<Option<Rate>>,
}

impl Rules {
    /// Takes of the terms what concerns a wager's part in pools.
    pub fn compile(terms: &Terms) -> Self {
        let mut rules = Self { revision: terms.revision, ..Self::default() };
        for rate in &terms.exchange_rates {
            rules.rates.entry(rate.from.clone()).or_default().insert(rate.to.clone(), rate.rate);
        }
        let any_game = PoolSet::of(&terms.pools, |pool| pool.games.iter().any(|game| game == ALL));
        rules.games = terms.games.iter().map(|game| (game.game.clone(), any_game.clone())).collect();
        rules.any_operator = PoolSet::of(&terms.pools, |pool| pool.operators.iter().any(|name| name == ALL));
        for funds in [Funds::Cash, Funds::Bonus, Funds::Free] {
            let takes =
                |pool: &terms::Pool, opt_in| pool.funds.contains(&funds) && (opt_in || !pool.requires_opt_in);
            let pools = |opt_in| PoolSet::of(&terms.pools, |pool| takes(pool, opt_in));
            rules.funds.push([pools(false), pools(true)]);
        }
        for (number, pool) in terms.pools.iter().enumerate() {
            rules.add_pool(number, pool);
        }
        rules
    }

    fn add_pool(&mut self, number: usize, pool: &terms::Pool) {
        for game in pool.games.iter().filter(|game| *game != ALL) {
            if let Some(pools) = self.games.get_mut(game) {
                pools.insert(number);
            }
        }
        for operator in pool.operators.iter().filter(|operator| *operator != ALL) {
            let pools = self.operators.entry(operator.clone()).or_insert_with(|| self.any_operator.clone());
            pools.insert(number);
        }
        for code in &pool.jurisdictions {
            self.jurisdictions.entry(code.clone()).or_default().insert(number);
        }
        let known = self.currencies.iter().position(|code| *code == pool.currency);
        let currency = known.unwrap_or_else(|| {
            self.currencies.push(pool.currency.clone());
            self.currencies.len() - 1
        });
        self.numbers.insert(pool.pool.clone(), number);
        self.pools.push(Pool {
            name: pool.pool.clone(),
            currency,
            min_wager: pool.min_wager,
            max_wager: pool.max_wager,
            levels: pool.levels.iter().map(|level| level.level.clone()).collect(),
        });
    }

    /// The revision that was compiled.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The pools, in the order of the document: a pool's number is its place here.
    pub fn pools(&self) -> &[Pool] {
        &self.pools
    }

    /// The number of the pool of this name.
    pub fn pool(&self, name: &str) -> Option<usize> {
        self.numbers.get(name).copied()
    }

    /// The pools that a game is in; `None` when the terms know no such game.
    pub fn game(&self, name: &str) -> Option<&PoolSet> {
        self.games.get(name)
    }

    /// The pools that an operator's wagers may join.
    pub fn operator(&self, name: &str) -> &PoolSet {
        self.operators.get(name).unwrap_or(&self.any_operator)
    }

    /// The pools that wagers from a jurisdiction may join: those that list it, or its country.
    pub fn jurisdiction(&self, code: &str) -> PoolSet {
        let mut pools = PoolSet::default();
        for code in [code, names::country(code)] {
            if let Some(listed) = self.jurisdictions.get(code) {
                pools.insert_all(listed);
            }
        }
        pools
    }

    /// The pools that wagers with such money may join.
    pub fn funds(&self, funds: Funds, opt_in: bool) -> Option<&PoolSet> {
        self.funds.get(usize::from(funds.code())).map(|pools| &pools[usize::from(opt_in)])
    }

    /// What a currency is to the pools.
    pub fn money(&self, code: &str) -> Money {
        let listed = self.rates.get(code);
        let exchange = |to: &String| match listed.and_then(|rates| rates.get(to)) {
            _ if to == code => Some(None),
            Some(&rate) => Some(Some(rate)),
            None => None,
        };
        let exchanges: Vec<_> = self.currencies.iter().map(exchange).collect();
        let mut pools = PoolSet::default();
        for (number, pool) in self.pools.iter().enumerate() {
            if exchanges[pool.currency].is_some() {
                pools.insert(number);
            }
        }
        Money { pools, rates: exchanges.into_iter().map(Option::flatten).collect() }
    }
}

/// A set of pools by number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolSet(Vec<u64>);

impl PoolSet {
    fn of(pools: &[terms::Pool], fits: impl Fn(&terms::Pool) -> bool) -> Self {
        let mut set = Self::default();
        for (number, _) in pools.iter().enumerate().filter(|(_, pool)| fits(pool)) {
            set.insert(number);
        }
        set
    }

    fn insert(&mut self, number: usize) {
        let word = number / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (number % 64);
    }

    fn insert_all(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        self.0.iter_mut().zip(&other.0).for_each(|(word, more)| *word |= more);
    }

    /// The numbers that are in all of the sets, ascending.
    pub fn common(sets: [&Self; 5]) -> impl Iterator<Item = usize> {
        let words = sets.iter().map(|set| set.0.len()).min().unwrap_or(0);
        (0..words).flat_map(move |word| {
            let mut bits = sets.iter().fold(u64::MAX, |bits, set| bits & set.0[word]);
            std::iter::from_fn(move || {
                let bit = usize::try_from(bits.trailing_zeros()).ok().filter(|&bit| bit < 64)?;
                bits &= bits - 1;
                Some(word * 64 + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn sets_of_pools_are_sets(
            members in proptest::array::uniform5(proptest::collection::vec(0_usize..200, 0..150)),
        ) {
            let sets = members.clone().map(|numbers| {
                let mut set = PoolSet::default();
                numbers.into_iter().for_each(|number| set.insert(number));
                set
            });
            let expect = members
                .iter()
                .map(|numbers| numbers.iter().copied().collect::<BTreeSet<_>>())
                .reduce(|a, b| &a & &b)
                .expect("five sets");
            let got: Vec<_> = PoolSet::common(sets.each_ref()).collect();
            prop_assert_eq!(got, expect.into_iter().collect::<Vec<_>>());
        }
    }
}
