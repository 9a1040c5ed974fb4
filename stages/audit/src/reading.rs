//! The terms, read a second time, straight from the contract (section 4) and without a line of allocate's:
//! a verifier that reuses the writer's code repeats its mistakes. Pool by pool in the order of the document it is
//! asked whether the wager takes part, and with how much, and the answers are compared with what was written.
//! Answers that depend on names alone are remembered for the length of a frame.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use foldhash::HashMap;
use jackpot_core::frame::allocations::{Allocation, Participation};
use jackpot_core::frame::batch::{Funds, HitClaim, Refusal};
use jackpot_core::frame::geofenced::Wager;
use jackpot_core::frame::symbols::{Symbol, Symbols};
use jackpot_core::money::{Micro, Rate};
use jackpot_core::refusal::{Reason, StageName};
use jackpot_core::terms::{Status, Terms};

/// The most that a wager may be, in millionths (contract, section 1).
const AMOUNT_MAX: u128 = 1_000_000_000_000_000;
/// Entries of `hits` of a wager at most (contract, section 1).
const HITS_MAX: usize = 16;
/// Pools that a wager takes part in at most (contract, section 4).
const POOLS_MAX: usize = 8;

/// The terms, in the order in which the audit asks them.
#[derive(Debug, Default)]
pub struct Reading {
    revision: u64,
    /// Each rule by its code.
    places: BTreeMap<String, Status>,
    /// Where each operator takes wagers.
    territories: BTreeMap<String, BTreeSet<String>>,
    games: BTreeSet<String>,
    /// By what is paid, then by what it becomes.
    rates: BTreeMap<String, BTreeMap<String, Rate>>,
    pools: Vec<Pool>,
    pools_by_operator: Listed,
    pools_by_game: Listed,
    pools_by_place: Listed,
}

#[derive(Debug)]
struct Pool {
    name: String,
    currency: String,
    funds: Vec<Funds>,
    requires_opt_in: bool,
    min_wager: u128,
    max_wager: Option<u128>,
    levels: Vec<String>,
}

/// Who or what the pools list.
#[derive(Debug, Default)]
struct Listed {
    /// By pool: whether it lists `*`.
    all: Vec<bool>,
    /// The pools that list a name.
    by_name: BTreeMap<String, Vec<usize>>,
}

impl Listed {
    fn by<'a>(lists: impl Iterator<Item = &'a Vec<String>>) -> Self {
        let mut listed = Self::default();
        for (pool, list) in lists.enumerate() {
            listed.all.push(list.iter().any(|name| name == "*"));
            for name in list {
                listed.by_name.entry(name.clone()).or_default().push(pool);
            }
        }
        listed
    }

    /// By pool: whether it lists one of these names, or `*`.
    fn holding(&self, names: &[&str]) -> Vec<bool> {
        let mut holding = self.all.clone();
        for pool in names.iter().filter_map(|name| self.by_name.get(*name)).flatten() {
            holding[*pool] = true;
        }
        holding
    }
}

impl Reading {
    /// Reads the terms.
    pub fn of(terms: &Terms) -> Self {
        let mut rates = BTreeMap::<_, BTreeMap<_, _>>::new();
        for listed in &terms.exchange_rates {
            rates.entry(listed.from.clone()).or_default().insert(listed.to.clone(), listed.rate);
        }
        Self {
            revision: terms.revision,
            places: terms.jurisdictions.iter().map(|rule| (rule.code.clone(), rule.status)).collect(),
            territories: terms
                .operators
                .iter()
                .map(|operator| (operator.operator.clone(), operator.jurisdictions.iter().cloned().collect()))
                .collect(),
            games: terms.games.iter().map(|game| game.game.clone()).collect(),
            rates,
            pools: terms
                .pools
                .iter()
                .map(|pool| Pool {
                    name: pool.pool.clone(),
                    currency: pool.currency.clone(),
                    funds: pool.funds.clone(),
                    requires_opt_in: pool.requires_opt_in,
                    min_wager: pool.min_wager.0,
                    max_wager: pool.max_wager.map(|max| max.0),
                    levels: pool.levels.iter().map(|level| level.level.clone()).collect(),
                })
                .collect(),
            pools_by_operator: Listed::by(terms.pools.iter().map(|pool| &pool.operators)),
            pools_by_game: Listed::by(terms.pools.iter().map(|pool| &pool.games)),
            pools_by_place: Listed::by(terms.pools.iter().map(|pool| &pool.jurisdictions)),
        }
    }

    /// The revision that was read.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Why an operator may not take wagers from a place, if so.
    fn objection(&self, operator: &str, code: &str) -> Option<String> {
        let country = code.split('-').next().unwrap_or(code);
        let territory = self.territories.get(operator);
        let listed = |code: &str| territory.is_some_and(|list| list.contains(code));
        // The codes of a country's subdivisions stand side by side, from this one on.
        let within = format!("{code}-");
        let rule = self.places.range(within.clone()..).next().map(|(other, _)| other);
        let entry = territory.and_then(|list| list.range(within.clone()..).next());
        if [rule, entry].into_iter().flatten().any(|other| other.starts_with(&within)) {
            return Some(format!("is placed in {code} alone, of which the terms name a subdivision"));
        }
        match self.places.get(code).or_else(|| self.places.get(country)) {
            Some(Status::Permitted) if listed(code) || listed(country) => None,
            Some(Status::Permitted) => {
                Some(format!("is from {code}, which the list of its operator {operator} does not hold"))
            }
            Some(Status::Blocked) => Some(format!("is from {code}, which is blocked")),
            None => Some(format!("is from {code}, which has no rule")),
        }
    }
}

/// A reading of the terms, and what has been asked of it in one frame.
pub struct Recall<'a> {
    reading: &'a Reading,
    symbols: &'a Symbols,
    /// What operator, game and jurisdiction say.
    fits: HashMap<(Symbol, Symbol, Symbol), Fit>,
    /// By symbol: for each pool whether the operator, the game, the jurisdiction is listed there.
    by_operator: Vec<Option<Vec<bool>>>,
    by_game: Vec<Option<Vec<bool>>>,
    by_place: Vec<Option<Vec<bool>>>,
    /// What a wager's currency is to a pool, by the symbol and then by pool.
    money: Vec<Option<Vec<Money>>>,
}

/// What operator, game and jurisdiction of a wager say: the pools that they allow, or why it cannot stand.
type Fit = Result<Vec<usize>, String>;

/// What a currency is to a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Money {
    Same,
    At(Rate),
    Foreign,
}

impl<'a> Recall<'a> {
    /// Nothing has been asked yet.
    pub fn new(reading: &'a Reading, symbols: &'a Symbols) -> Self {
        let len = symbols.names().len();
        Self {
            reading,
            symbols,
            fits: HashMap::default(),
            by_operator: vec![None; len],
            by_game: vec![None; len],
            by_place: vec![None; len],
            money: vec![None; len],
        }
    }

    /// Compares an allocation with what the terms say of its wager. What differs is a clause about the wager.
    pub fn check(
        &mut self,
        operator: Symbol,
        allocation: &Allocation,
        hit_refusals: &[Refusal],
    ) -> Result<(), String> {
        let wager = &allocation.wager;
        if wager.amount.0 > AMOUNT_MAX {
            return Err(format!("is of {}, more than a wager may be", wager.amount));
        }
        self.check_participations(operator, wager, &allocation.participations)?;
        if wager.hits.is_some() || !hit_refusals.is_empty() {
            self.check_hits(allocation, hit_refusals)?;
        }
        Ok(())
    }

    fn check_participations(
        &mut self,
        operator: Symbol,
        wager: &Wager,
        written: &[Participation],
    ) -> Result<(), String> {
        self.ask(operator, wager);
        let (reading, symbols) = (self.reading, self.symbols);
        let fit = &self.fits[&(operator, wager.game, wager.jurisdiction)];
        let pools = fit.as_ref().map_err(String::clone)?;
        let money = self.money[wager.currency.index()].as_deref().unwrap_or_default();
        let mut place = 0;
        for &number in pools {
            let pool = &reading.pools[number];
            let Some((eligible, rate)) = part(pool, money[number], wager) else { continue };
            let agrees = written.get(place).is_some_and(|written| {
                (written.eligible, written.rate) == (eligible, rate)
                    && symbols.name(written.pool) == pool.name
            });
            if !agrees {
                return Err(format!(
                    "takes part in {} by the terms, and in {} as it is written",
                    shown(&pool.name, eligible, rate),
                    written
                        .get(place)
                        .map_or_else(|| "nothing more".into(), |written| self.as_written(written))
                ));
            }
            place += 1;
            if place == POOLS_MAX {
                break;
            }
        }
        match written.get(place) {
            None => Ok(()),
            Some(extra) => Err(format!(
                "takes part in {place} pools by the terms, and in {} beyond them as it is written",
                self.as_written(extra)
            )),
        }
    }

    /// Asks what depends on names alone, unless it was asked before.
    fn ask(&mut self, operator: Symbol, wager: &Wager) {
        let (reading, symbols) = (self.reading, self.symbols);
        self.money[wager.currency.index()].get_or_insert_with(|| {
            let code = symbols.name(wager.currency);
            let rates = reading.rates.get(code);
            let money = |pool: &Pool| match rates.and_then(|rates| rates.get(&pool.currency)) {
                _ if pool.currency == code => Money::Same,
                Some(rate) => Money::At(*rate),
                None => Money::Foreign,
            };
            reading.pools.iter().map(money).collect()
        });
        let key = (operator, wager.game, wager.jurisdiction);
        if self.fits.contains_key(&key) {
            return;
        }
        let [operator_name, game, code] =
            [operator, wager.game, wager.jurisdiction].map(|symbol| symbols.name(symbol));
        let fit = if !reading.games.contains(game) {
            Err(format!("is of the game `{game}`, which the terms do not know"))
        } else if let Some(objection) = reading.objection(operator_name, code) {
            Err(objection)
        } else {
            let country = code.split('-').next().unwrap_or(code);
            let by_operator = self.by_operator[operator.index()]
                .get_or_insert_with(|| reading.pools_by_operator.holding(&[operator_name]));
            let by_game = self.by_game[wager.game.index()]
                .get_or_insert_with(|| reading.pools_by_game.holding(&[game]));
            let by_place = self.by_place[wager.jurisdiction.index()]
                .get_or_insert_with(|| reading.pools_by_place.holding(&[code, country]));
            let allowed = |&pool: &usize| by_operator[pool] && by_game[pool] && by_place[pool];
            Ok((0..reading.pools.len()).filter(allowed).collect())
        };
        self.fits.insert(key, fit);
    }

    /// Each claim is a hit or refused, as the contract says; and nothing else is refused.
    fn check_hits(&self, allocation: &Allocation, refusals: &[Refusal]) -> Result<(), String> {
        let claims: &[HitClaim] = allocation.wager.hits.as_ref().map_or(&[], |hits| &hits.claims);
        if claims.len() > HITS_MAX {
            return Err(format!("has {} hits, more than a wager may have", claims.len()));
        }
        let mut refused = vec![false; claims.len()];
        for refusal in refusals {
            if (refusal.stage, refusal.reason) != (StageName::Allocate, Reason::HitRefused) {
                return Err(format!("has a hit refused by {} as {}", refusal.stage, refusal.reason));
            }
            let number = refusal.hit.map_or(usize::MAX, usize::from);
            match refused.get_mut(number) {
                Some(refused) if !*refused => *refused = true,
                Some(_) => return Err(format!("has hits[{number}] refused twice")),
                None => return Err(format!("has hits[{number}] refused, which it does not have")),
            }
        }
        if !refusals.is_sorted_by_key(|refusal| refusal.hit) {
            return Err("has its refused hits in another order than its hits".into());
        }
        for (number, refused) in refused.into_iter().enumerate() {
            let stands = self.stands(&allocation.participations, claims, number);
            if stands == refused {
                let [by_terms, as_written] =
                    if stands { ["a hit", "refused"] } else { ["to be refused", "a hit"] };
                return Err(format!(
                    "has hits[{number}], {by_terms} by the terms and {as_written} as it is written"
                ));
            }
        }
        Ok(())
    }

    /// Whether a claim is a hit: readable, the first of its level in the wager, of a pool that the wager takes part
    /// in, and of a level of that pool.
    fn stands(&self, participations: &[Participation], claims: &[HitClaim], number: usize) -> bool {
        let named = |claim: &HitClaim| match *claim {
            HitClaim::Unreadable => None,
            HitClaim::Level { pool, level } => Some((self.symbols.name(pool), self.symbols.name(level))),
        };
        let Some((pool, level)) = named(&claims[number]) else { return false };
        let first = !claims[..number].iter().any(|earlier| named(earlier) == Some((pool, level)));
        let joined = participations.iter().any(|participation| self.symbols.name(participation.pool) == pool);
        let known =
            |candidate: &Pool| candidate.name == pool && candidate.levels.iter().any(|name| name == level);
        first && joined && self.reading.pools.iter().any(known)
    }

    fn as_written(&self, participation: &Participation) -> String {
        shown(self.symbols.name(participation.pool), participation.eligible, participation.rate)
    }
}

/// A wager's part in a pool that operator, game and jurisdiction allow it: what counts, and the rate used.
fn part(pool: &Pool, money: Money, wager: &Wager) -> Option<(Micro, Option<Rate>)> {
    if !pool.funds.contains(&wager.funds) || (pool.requires_opt_in && !wager.opt_in) {
        return None;
    }
    let (amount, rate) = match money {
        Money::Foreign => return None,
        Money::Same => (wager.amount.0, None),
        Money::At(rate) => (converted(wager.amount.0, rate), Some(rate)),
    };
    if amount < pool.min_wager {
        return None;
    }
    let eligible = match pool.max_wager {
        Some(max) if amount > max => max,
        _ => amount,
    };
    Some((Micro(eligible), rate))
}

/// Millionths of one currency in another, at so many billionths: the nearest whole number, of two the even one.
/// A wager's maximum at the highest rate is 10³⁰, far below what 128 bits hold.
fn converted(amount: u128, rate: Rate) -> u128 {
    const BILLION: u128 = 1_000_000_000;
    let product = amount * u128::from(rate.0);
    let below = product / BILLION;
    match (2 * (product - below * BILLION)).cmp(&BILLION) {
        Ordering::Less => below,
        Ordering::Greater => below + 1,
        Ordering::Equal => below + below % 2,
    }
}

fn shown(pool: &str, eligible: Micro, rate: Option<Rate>) -> String {
    match rate {
        None => format!("`{pool}` with {eligible}"),
        Some(rate) => format!("`{pool}` with {eligible} at {rate}"),
    }
}
