//! Which pools a wager takes part in, and with how much. Names are resolved once per frame, each on its first use;
//! after that a wager costs a few words of bits and the arithmetic of its amounts.

use jackpot_core::frame::geofenced::Wager;
use jackpot_core::frame::symbols::{Symbol, Symbols};
use jackpot_core::limits;
use jackpot_core::money::{Micro, Rate};

use crate::rules::{Money, PoolSet, Rules};

/// A wager's part in one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// The number of the pool in the terms.
    pub pool: usize,
    /// What of the wager counts, in the pool's currency.
    pub eligible: Micro,
    /// The exchange rate used, if any.
    pub rate: Option<Rate>,
}

/// The rules, with one frame's names resolved. Each table is by symbol.
pub struct Eligibility<'a> {
    rules: &'a Rules,
    operators: Vec<Option<&'a PoolSet>>,
    games: Vec<Option<Option<&'a PoolSet>>>,
    jurisdictions: Vec<Option<PoolSet>>,
    currencies: Vec<Option<Money>>,
}

impl<'a> Eligibility<'a> {
    /// Nothing is resolved yet. `symbols` may grow later, by names that no wager has.
    pub fn new(rules: &'a Rules, symbols: &Symbols) -> Self {
        let len = symbols.names().len();
        Self {
            rules,
            operators: vec![None; len],
            games: vec![None; len],
            jurisdictions: vec![None; len],
            currencies: vec![None; len],
        }
    }

    /// Adds to `shares` the wager's part in each pool that it joins, in the order of the terms.
    /// Says whether the terms know its game; if not, it joins none.
    pub fn shares(
        &mut self,
        symbols: &Symbols,
        operator: Symbol,
        wager: &Wager,
        shares: &mut Vec<Share>,
    ) -> bool {
        let rules = self.rules;
        let game = self.games[wager.game.index()].get_or_insert_with(|| rules.game(symbols.name(wager.game)));
        let Some(game) = *game else { return false };
        let Some(funds) = rules.funds(wager.funds, wager.opt_in) else { return true };
        let operator =
            self.operators[operator.index()].get_or_insert_with(|| rules.operator(symbols.name(operator)));
        let place = self.jurisdictions[wager.jurisdiction.index()]
            .get_or_insert_with(|| rules.jurisdiction(symbols.name(wager.jurisdiction)));
        let money = self.currencies[wager.currency.index()]
            .get_or_insert_with(|| rules.money(symbols.name(wager.currency)));

        let mut exchange = Exchange { amount: wager.amount, last: None };
        for number in PoolSet::common([game, operator, place, &money.pools, funds]) {
            let pool = &rules.pools()[number];
            let rate = money.rates[pool.currency];
            let amount = exchange.at(rate);
            if amount < pool.min_wager {
                continue;
            }
            let eligible = pool.max_wager.map_or(amount, |max| amount.min(max));
            shares.push(Share { pool: number, eligible, rate });
            if shares.len() == limits::WAGER_POOLS_MAX {
                break;
            }
        }
        true
    }
}

/// Converts one amount; pools beside each other mostly share a currency.
struct Exchange {
    amount: Micro,
    last: Option<(Rate, Micro)>,
}

impl Exchange {
    fn at(&mut self, rate: Option<Rate>) -> Micro {
        let Some(rate) = rate else { return self.amount };
        match self.last {
            Some((last, converted)) if last == rate => converted,
            _ => {
                let converted = self.amount.convert(rate);
                self.last = Some((rate, converted));
                converted
            }
        }
    }
}
