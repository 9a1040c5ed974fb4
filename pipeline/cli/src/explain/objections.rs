//! Why a wager takes no part in a pool: the first rule of the pool that it does not meet (contract, section 4).
//! For people who ask; what was decided is in the frames, and [`crate::verify`] proves it.

use jackpot_core::frame::geofenced::Wager;
use jackpot_core::frame::symbols::Symbols;
use jackpot_core::limits;
use jackpot_core::names;
use jackpot_core::terms::{Pool, Terms};
use serde::Serialize;

/// A pool that a wager did not join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Objection {
    /// The pool.
    pub pool: String,
    /// Why, as a clause about the pool.
    pub why: String,
}

/// The pools of the terms that the wager did not join, each with the reason.
pub fn of(
    terms: &Terms,
    symbols: &Symbols,
    operator: &str,
    wager: &Wager,
    joined: &[&str],
) -> Vec<Objection> {
    let other = terms.pools.iter().filter(|pool| !joined.contains(&&*pool.pool));
    other
        .map(|pool| {
            let why = objection(terms, pool, symbols, operator, wager);
            let full = || format!("comes after the {} that a wager joins at most", limits::WAGER_POOLS_MAX);
            Objection { pool: pool.pool.clone(), why: why.unwrap_or_else(full) }
        })
        .collect()
}

fn objection(terms: &Terms, pool: &Pool, symbols: &Symbols, operator: &str, wager: &Wager) -> Option<String> {
    let (game, place, currency) =
        (symbols.name(wager.game), symbols.name(wager.jurisdiction), symbols.name(wager.currency));
    let lists = |list: &[String], name: &str| list.iter().any(|entry| entry == name || entry == "*");
    let rate = terms.exchange_rates.iter().find(|rate| rate.from == currency && rate.to == pool.currency);
    if !lists(&pool.operators, operator) {
        return Some(format!("does not list the operator {operator}"));
    }
    if !lists(&pool.games, game) {
        return Some(format!("does not list the game {game}"));
    }
    if !names::listed(place, pool.jurisdictions.iter().map(String::as_str)) {
        return Some(format!("does not list {place}"));
    }
    if !pool.funds.contains(&wager.funds) {
        return Some(format!("takes no {} wagers", wager.funds.as_str()));
    }
    if pool.requires_opt_in && !wager.opt_in {
        return Some("requires that the player opted in".into());
    }
    let amount = match rate {
        _ if currency == pool.currency => wager.amount,
        Some(rate) => wager.amount.convert(rate.rate),
        None => return Some(format!("is in {}, and there is no rate from {currency}", pool.currency)),
    };
    let (least, unit) = (pool.min_wager, &pool.currency);
    (amount < least).then(|| format!("takes wagers from {least} {unit} on, and this is {amount}"))
}

#[cfg(test)]
mod tests {
    use jackpot_core::frame::batch::Funds;
    use jackpot_core::money::Micro;
    use jackpot_core::time::Millis;

    use super::*;

    #[test]
    fn the_first_rule_that_is_not_met_is_told() {
        let terms = Terms::parse(crate::terms::EXAMPLE).expect("the example");
        let check = |operator: &str, [game, place, currency]: [&str; 3], amount, funds, expect: [&str; 3]| {
            let mut symbols = Symbols::default();
            let wager = Wager {
                index: 0,
                game: symbols.intern(game),
                amount: Micro(amount),
                currency: symbols.intern(currency),
                funds,
                opt_in: false,
                occurred_at: Millis(0),
                jurisdiction: symbols.intern(place),
                hits: None,
            };
            let told = of(&terms, &symbols, operator, &wager, &[]);
            assert_eq!(told.iter().map(|objection| &*objection.why).collect::<Vec<_>>(), expect);
        };
        check(
            "fjordbet",
            ["quick-spin-7", "MT", "GBP"],
            50_000,
            Funds::Cash,
            [
                "takes wagers from 0.1 EUR on, and this is 0.058824",
                "does not list the operator fjordbet",
                "requires that the player opted in",
            ],
        );
        check(
            "silverstate",
            ["blackjack-plus", "US-NV", "USD"],
            1_000_000,
            Funds::Free,
            [
                "does not list US-NV",
                "does not list the game blackjack-plus",
                "does not list the operator silverstate",
            ],
        );
        check(
            "harbourside",
            ["quick-spin-7", "US-NJ", "SEK"],
            1_000_000,
            Funds::Cash,
            [
                "does not list US-NJ",
                "is in USD, and there is no rate from SEK",
                "does not list the operator harbourside",
            ],
        );
    }
}
