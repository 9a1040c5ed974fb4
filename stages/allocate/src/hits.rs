//! Which of the levels that a wager claims to have won are hits. Hits are rare, so names are compared here as text.

use jackpot_core::frame::batch::{HitClaim, Hits};
use jackpot_core::frame::symbols::Symbols;

use crate::eligibility::Share;
use crate::rules::Rules;

/// A level that was won: the numbers of the pool in the terms and of the level in the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Won {
    /// The pool.
    pub pool: usize,
    /// The level.
    pub level: usize,
}

/// Judges a wager's claims, in their order: what was won, or why it was not.
/// `shares` are the wager's parts in pools.
pub fn judge(
    rules: &Rules,
    symbols: &Symbols,
    shares: &[Share],
    hits: &Hits,
) -> Vec<(u8, Result<Won, String>)> {
    let names = |claim: &HitClaim| match *claim {
        HitClaim::Level { pool, level } => Some((symbols.name(pool), symbols.name(level))),
        HitClaim::Unreadable => None,
    };
    let claims: Vec<_> = hits.claims.iter().map(names).collect();
    let verdict = |(number, claim): (u8, &Option<(&str, &str)>)| {
        let earlier = &claims[..usize::from(number)];
        let verdict = match *claim {
            None => Err(format!(
                "hits[{number}] cannot be read: an entry is an object with `pool` and `level`, both identifiers"
            )),
            Some((pool, level)) if earlier.contains(claim) => Err(format!(
                "hits[{number}] names the level `{level}` of the pool `{pool}` a second time: a wager wins a level once"
            )),
            Some((pool, level)) => {
                find(rules, shares, pool, level).map_err(|what| format!("hits[{number}] names {what}"))
            }
        };
        (number, verdict)
    };
    (0..=u8::MAX).zip(&claims).map(verdict).collect()
}

fn find(rules: &Rules, shares: &[Share], pool: &str, level: &str) -> Result<Won, String> {
    let number = rules.pool(pool).ok_or_else(|| format!("the pool `{pool}`, which the terms do not have"))?;
    if !shares.iter().any(|share| share.pool == number) {
        return Err(format!(
            "the pool `{pool}`, in which the wager takes no part by its operator, game, jurisdiction, funds, opt-in, \
             currency or amount"
        ));
    }
    let levels = &rules.pools()[number].levels;
    let level = levels
        .iter()
        .position(|name| name == level)
        .ok_or_else(|| format!("the level `{level}`, which the pool `{pool}` does not have"))?;
    Ok(Won { pool: number, level })
}
