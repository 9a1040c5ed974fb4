//! What can be played under given terms: games, places, currencies, and the pools that a wager joins.
//! Only synthetic traffic asks; what a wager really joins is decided by the stage `allocate`, which shares no
//! code with this.

use std::collections::{BTreeMap, BTreeSet};

use jackpot_core::frame::batch::Funds;
use jackpot_core::money::{Micro, Rate};
use jackpot_core::names;
use jackpot_core::terms::{Pool, Status, Terms};

use super::random::{Random, Weights};

/// The terms, as players meet them.
#[derive(Debug)]
pub struct Market {
    games: Vec<String>,
    game_weights: Weights,
    currencies: Vec<String>,
    rates: BTreeMap<(String, String), Rate>,
    rules: BTreeMap<String, Rule>,
    pools: Vec<Pool>,
}

#[derive(Debug, Clone, Copy)]
struct Rule {
    permitted: bool,
    max_age_s: u64,
}

/// What is the same for all wagers of a session, of what pools ask for.
#[derive(Debug, Clone, Copy)]
pub struct Player<'a> {
    /// The operator.
    pub operator: &'a str,
    /// Where the player is.
    pub jurisdiction: &'a str,
    /// What the player pays in.
    pub currency: &'a str,
    /// Whose money it is.
    pub funds: Funds,
    /// Whether the player opted in.
    pub opt_in: bool,
}

impl Market {
    /// Compiles the terms; `None` when they list no game.
    pub fn new(terms: &Terms) -> Option<Self> {
        if terms.games.is_empty() {
            return None;
        }
        let mut currencies: BTreeSet<String> =
            terms.exchange_rates.iter().map(|rate| rate.from.clone()).collect();
        currencies.extend(terms.pools.iter().map(|pool| pool.currency.clone()));
        if currencies.is_empty() {
            currencies.insert("EUR".into());
        }
        let rates = terms.exchange_rates.iter().map(|r| ((r.from.clone(), r.to.clone()), r.rate)).collect();
        let rules = terms.jurisdictions.iter().map(|rule| {
            let permitted = rule.status == Status::Permitted;
            (rule.code.clone(), Rule { permitted, max_age_s: rule.location_max_age_s })
        });
        Some(Self {
            games: terms.games.iter().map(|game| game.game.clone()).collect(),
            game_weights: Weights::zipf(terms.games.len()),
            currencies: currencies.into_iter().collect(),
            rates,
            rules: rules.collect(),
            pools: terms.pools.clone(),
        })
    }

    /// The jurisdictions of an operator's list from which wagers are permitted.
    pub fn open_to(&self, list: &[String]) -> Vec<String> {
        list.iter().filter(|code| self.rule(code).is_some_and(|rule| rule.permitted)).cloned().collect()
    }

    /// The jurisdictions with a rule from which an operator with this list may not take wagers.
    pub fn closed_to(&self, list: &[String]) -> Vec<String> {
        let closed = |code: &str, rule: &Rule| {
            !rule.permitted || !names::listed(code, list.iter().map(String::as_str))
        };
        self.rules.iter().filter(|(code, rule)| closed(code, rule)).map(|(code, _)| code.clone()).collect()
    }

    /// How old a location may be there, in seconds.
    pub fn location_max_age_s(&self, jurisdiction: &str) -> u64 {
        self.rule(jurisdiction).map_or(1_800, |rule| rule.max_age_s)
    }

    fn rule(&self, jurisdiction: &str) -> Option<Rule> {
        self.rules.get(jurisdiction).or_else(|| self.rules.get(names::country(jurisdiction))).copied()
    }

    /// Draws a game, the popular ones more often.
    pub fn game(&self, random: &mut Random) -> usize {
        self.game_weights.draw(random)
    }

    /// A game's name.
    pub fn game_name(&self, game: usize) -> &str {
        &self.games[game]
    }

    /// Draws what a player there pays in: mostly the money of the place, where the terms know it.
    pub fn currency(&self, jurisdiction: &str, random: &mut Random) -> &str {
        let home = home_currency(names::country(jurisdiction));
        let known = self.currencies.iter().find(|code| *code == home);
        match known {
            Some(home) if !random.once_in(12) => home,
            _ => &self.currencies[random.index(self.currencies.len())],
        }
    }

    /// The pools that this player's wagers may join, by their place in the terms.
    pub fn pools_of(&self, player: &Player<'_>) -> Vec<usize> {
        let joins = |pool: &Pool| {
            everybody_or(&pool.operators, player.operator)
                && names::listed(player.jurisdiction, pool.jurisdictions.iter().map(String::as_str))
                && pool.funds.contains(&player.funds)
                && (player.opt_in || !pool.requires_opt_in)
                && self.convert(Micro::WAGER_MAX, player.currency, &pool.currency).is_some()
        };
        (0..self.pools.len()).filter(|&index| joins(&self.pools[index])).collect()
    }

    /// Draws a level that this wager could have won: high ones are far rarer. `None` where it joins no pool.
    pub fn hit(
        &self,
        pools: &[usize],
        game: usize,
        amount: Micro,
        currency: &str,
        random: &mut Random,
    ) -> Option<(&str, &str)> {
        let pool = &self.pools[*pools.get(random.index(pools.len().max(1)))?];
        let counts = self.convert(amount, currency, &pool.currency)?;
        if counts < pool.min_wager || !everybody_or(&pool.games, self.game_name(game)) {
            return None;
        }
        let weights = Weights::new((0..).take(pool.levels.len()).map(|rank: u32| 1 << (4 * rank)));
        let level = &pool.levels[weights.draw(random)];
        Some((&pool.pool, &level.level))
    }

    fn convert(&self, amount: Micro, from: &str, to: &str) -> Option<Micro> {
        if from == to {
            return Some(amount);
        }
        self.rates.get(&(from.to_owned(), to.to_owned())).map(|&rate| amount.convert(rate))
    }
}

fn everybody_or(list: &[String], name: &str) -> bool {
    list.iter().any(|entry| entry == "*" || entry == name)
}

/// What people pay in there; the euro where this table does not say.
fn home_currency(country: &str) -> &'static str {
    match country {
        "US" => "USD",
        "GB" | "GI" | "IM" => "GBP",
        "SE" => "SEK",
        "DK" => "DKK",
        "NO" => "NOK",
        "CA" => "CAD",
        "AU" => "AUD",
        "NZ" => "NZD",
        "CH" => "CHF",
        "PL" => "PLN",
        "CZ" => "CZK",
        "RO" => "RON",
        "BR" => "BRL",
        "MX" => "MXN",
        "JP" => "JPY",
        "ZA" => "ZAR",
        _ => "EUR",
    }
}
