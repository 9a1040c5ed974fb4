//! What the terms give a wager: whether it may come from where it was made, which pools it takes part in and with how
//! much, and which of its claims are hits (contract, sections 3 and 4). Written again from the contract, for one
//! frame at a time; what differs from what allocate wrote is a clause about the wager.

use std::collections::{BTreeMap, BTreeSet};

use jackpot_core::frame::allocations::{Allocation, Participation};
use jackpot_core::frame::batch::{HitClaim, Refusal};
use jackpot_core::frame::geofenced::Wager;
use jackpot_core::frame::symbols::{Symbol, Symbols};
use jackpot_core::money::{Micro, Rate};
use jackpot_core::refusal::Reason;
use jackpot_core::terms::{Pool, Status, Terms};

/// Pools that a wager takes part in at most.
const POOLS_MAX: usize = 8;
/// How old a location may be where no rule says it, in seconds.
const AGE_MAX_S: u64 = 1_800;

/// The terms of a frame, and what has been asked of them.
pub struct Rules<'a> {
    terms: &'a Terms,
    symbols: &'a Symbols,
    games: BTreeSet<&'a str>,
    /// By operator, game, jurisdiction and currency: the pools that these allow, each with the rate to use.
    known: BTreeMap<[Symbol; 4], Allowed<'a>>,
}

type Allowed<'a> = Result<Vec<(&'a Pool, Option<Rate>)>, String>;

impl<'a> Rules<'a> {
    /// Of a frame with these names.
    pub fn new(terms: &'a Terms, symbols: &'a Symbols) -> Self {
        let games = terms.games.iter().map(|game| game.game.as_str()).collect();
        Self { terms, symbols, games, known: BTreeMap::new() }
    }

    /// Compares an allocation with what the terms give its wager. `refusals` are those of its hits.
    pub fn check(
        &mut self,
        operator: Symbol,
        allocation: &Allocation,
        refusals: &[&Refusal],
    ) -> Result<(), String> {
        let due = self.due(operator, &allocation.wager)?;
        let written: Vec<_> = allocation.participations.iter().map(|part| self.written(part)).collect();
        if due != written {
            let show = |parts: &[Part<'_>]| match parts {
                [] => "no pool".to_owned(),
                parts => parts.iter().map(Part::shown).collect::<Vec<_>>().join(", "),
            };
            return Err(format!(
                "takes part in {} by the terms of revision {}, and in {} as it is written",
                show(&due),
                self.terms.revision,
                show(&written)
            ));
        }
        self.check_hits(allocation, refusals)
    }

    /// How old the location of a wager from there may be, in milliseconds.
    pub fn age_max(&self, code: &str) -> i64 {
        let seconds = self.rule(code).map_or(AGE_MAX_S, |rule| rule.location_max_age_s);
        i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000)
    }

    fn rule(&self, code: &str) -> Option<&'a jackpot_core::terms::Jurisdiction> {
        let of = |code: &str| self.terms.jurisdictions.iter().find(|rule| rule.code == code);
        of(code).or_else(|| of(country(code)))
    }

    fn due(&mut self, operator: Symbol, wager: &Wager) -> Result<Vec<Part<'a>>, String> {
        let key = [operator, wager.game, wager.jurisdiction, wager.currency];
        if !self.known.contains_key(&key) {
            let allowed = self.allowed(key.map(|symbol| self.symbols.name(symbol)));
            self.known.insert(key, allowed);
        }
        let allowed = self.known[&key].as_ref().map_err(Clone::clone)?;
        Ok(allowed.iter().filter_map(|&(pool, rate)| part(pool, rate, wager)).take(POOLS_MAX).collect())
    }

    /// What depends on names alone.
    fn allowed(&self, [operator, game, code, currency]: [&str; 4]) -> Allowed<'a> {
        if !self.games.contains(game) {
            return Err(format!("is allocated, though the terms know no game `{game}`"));
        }
        self.place(operator, code)?;
        let listed = |list: &[String], name: &str| list.iter().any(|entry| entry == name || entry == "*");
        let mut pools = Vec::new();
        for pool in &self.terms.pools {
            let fits = listed(&pool.operators, operator)
                && listed(&pool.games, game)
                && pool.jurisdictions.iter().any(|entry| entry == code || entry == country(code));
            let rates = &self.terms.exchange_rates;
            let rate = rates.iter().find(|rate| rate.from == currency && rate.to == pool.currency);
            match rate {
                _ if !fits => {}
                _ if pool.currency == currency => pools.push((pool, None)),
                Some(rate) => pools.push((pool, Some(rate.rate))),
                None => {}
            }
        }
        Ok(pools)
    }

    /// Whether an operator takes wagers from a place.
    fn place(&self, operator: &str, code: &str) -> Result<(), String> {
        let territory = self.terms.operators.iter().find(|entry| entry.operator == operator);
        let list = territory.map_or(&[][..], |territory| &territory.jurisdictions);
        let rules = self.terms.jurisdictions.iter().map(|rule| &rule.code);
        let within = |other: &String| other != code && country(other) == code;
        if rules.chain(list).any(within) {
            return Err(format!("is allocated from {code} alone, of which the terms name a subdivision"));
        }
        let permitted = self.rule(code).is_some_and(|rule| rule.status == Status::Permitted);
        let taken = list.iter().any(|entry| entry == code || entry == country(code));
        if permitted && taken {
            return Ok(());
        }
        Err(format!("is allocated from {code}, where the terms let {operator} take no wagers"))
    }

    /// Each claim is a hit or refused, and nothing else is refused.
    fn check_hits(&self, allocation: &Allocation, refusals: &[&Refusal]) -> Result<(), String> {
        let claims = allocation.wager.hits.as_ref().map_or(&[][..], |hits| &hits.claims);
        let named = |claim: &HitClaim| match *claim {
            HitClaim::Level { pool, level } => Some((self.symbols.name(pool), self.symbols.name(level))),
            HitClaim::Unreadable => None,
        };
        let mut seen = BTreeSet::new();
        for (number, claim) in claims.iter().enumerate() {
            let stands = named(claim).is_some_and(|(pool, level)| {
                let joined =
                    allocation.participations.iter().any(|part| self.symbols.name(part.pool) == pool);
                let known = self.terms.pools.iter().find(|known| known.pool == pool);
                let known = known.is_some_and(|known| known.levels.iter().any(|known| known.level == level));
                seen.insert((pool, level)) && joined && known
            });
            let of = |refusal: &&&Refusal| refusal.hit.is_some_and(|hit| usize::from(hit) == number);
            let refused = refusals.iter().filter(of).count();
            if refused != usize::from(!stands) {
                let due = if stands { "is a hit" } else { "is to be refused" };
                return Err(format!(
                    "has hits[{number}], which {due} by the terms, and is refused {refused} times"
                ));
            }
        }
        let stray = refusals.iter().find(|refusal| {
            refusal.reason != Reason::HitRefused
                || refusal.hit.is_none_or(|hit| usize::from(hit) >= claims.len())
        });
        stray.map_or(Ok(()), |refusal| {
            Err(format!("stands, and has a refusal as {} of a hit that it does not have", refusal.reason))
        })
    }

    fn written(&self, part: &Participation) -> Part<'a> {
        Part { pool: self.symbols.name(part.pool), eligible: part.eligible.0, rate: part.rate }
    }
}

/// A wager's part in a pool.
#[derive(Debug, PartialEq, Eq)]
struct Part<'a> {
    pool: &'a str,
    eligible: u128,
    rate: Option<Rate>,
}

impl Part<'_> {
    fn shown(&self) -> String {
        let eligible = Micro(self.eligible);
        match self.rate {
            None => format!("{} with {eligible}", self.pool),
            Some(rate) => format!("{} with {eligible} at {rate}", self.pool),
        }
    }
}

fn part<'a>(pool: &'a Pool, rate: Option<Rate>, wager: &Wager) -> Option<Part<'a>> {
    let allowed = pool.funds.contains(&wager.funds) && (wager.opt_in || !pool.requires_opt_in);
    let amount = rate.map_or(wager.amount.0, |rate| converted(wager.amount.0, rate.0));
    let eligible = pool.max_wager.map_or(amount, |max| amount.min(max.0));
    (allowed && amount >= pool.min_wager.0).then_some(Part { pool: &pool.pool, eligible, rate })
}

/// Millionths at a rate in billionths, to the nearest whole one; of two as near, the even one.
pub fn converted(amount: u128, rate: u64) -> u128 {
    const BILLION: u128 = 1_000_000_000;
    let exact = amount.saturating_mul(rate.into());
    let (below, rest) = (exact / BILLION, exact % BILLION);
    let up = rest * 2 > BILLION || (rest * 2 == BILLION && below % 2 == 1);
    if up { below + 1 } else { below }
}

/// The country of a jurisdiction: what stands before the hyphen.
pub fn country(code: &str) -> &str {
    code.split('-').next().unwrap_or(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversion_rounds_half_to_even() {
        let half = 500_000_000;
        for (amount, expect) in [(1, 0), (2, 1), (3, 2), (5, 2), (7, 4)] {
            assert_eq!(converted(amount, half), expect, "{amount}");
        }
        assert_eq!(converted(10_000_000, 1_176_470_000), 11_764_700);
    }
}
