//! The geofence stage: decides where each wager was made, and whether wagers may come from there
//! (contract, sections 3 and 4). The lane in `jackpot_core` drives [`Geofence`], frame by frame.
//!
//! A place is what a wager declares. What the terms say of a place is asked of [`rules`] once per frame and name;
//! per wager there are only comparisons of numbers. Header, batches and earlier refusals go on as they came.

pub mod rules;

use bytes::Bytes;
use jackpot_core::frame::batch::{Accepted, Batch, Refusal, Verdict};
use jackpot_core::frame::geofenced::{self, Geofenced};
use jackpot_core::frame::symbols::{Symbol, Symbols};
use jackpot_core::frame::validated::{self, Validated};
use jackpot_core::frame::{self, Frame, Header};
use jackpot_core::refusal::{Reason, StageName};
use jackpot_core::stage::{Contradiction, Outcome, Stage, Tally};
use jackpot_core::terms::Terms;
use jackpot_core::topology::Lane;

use crate::rules::{NO_RULE_MAX_AGE_MS, Place, Rules, Standing};

/// The stage. It has no state but the rules it has learnt.
#[derive(Debug, Default)]
pub struct Geofence {
    rules: Rules,
}

/// What the stage makes of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// For allocate.
    pub geofenced: Geofenced,
    tally: Tally,
}

/// Why a wager is refused, and what its producer can mend.
type Grounds = (Reason, String);

impl Stage for Geofence {
    const NAME: StageName = StageName::Geofence;
    const INPUT: Lane = Lane::Validated;
    const OUTPUTS: &'static [Lane] = &[Lane::Geofenced];
    type Input = Validated;
    type Output = Placed;

    fn learn(&mut self, terms: &Terms) {
        self.rules = Rules::compile(terms);
    }

    fn process(&mut self, frame: Frame<Validated>) -> Result<Placed, Contradiction> {
        assert_eq!(
            frame.header.terms,
            self.rules.revision(),
            "the lane teaches a frame's terms before it hands the frame over"
        );
        let Validated { symbols, batches, contents: _ } = frame.body;
        let mut fence = Fence {
            rules: &self.rules,
            symbols: &symbols,
            places: vec![None; symbols.names().len()],
            tally: Tally::default(),
        };
        let batches = batches.into_iter().map(|batch| fence.pass(batch)).collect();
        let tally = fence.tally;
        Ok(Placed { geofenced: Geofenced { symbols, batches }, tally })
    }
}

impl Outcome for Placed {
    fn encode(&self, headers: &[Header]) -> Vec<Bytes> {
        headers.iter().map(|header| frame::encode(header, &self.geofenced)).collect()
    }

    fn tally(&self) -> Tally {
        self.tally.clone()
    }
}

/// Judges the wagers of one frame.
struct Fence<'a> {
    rules: &'a Rules,
    symbols: &'a Symbols,
    /// By the jurisdiction's symbol: the place as the operator asked last finds it.
    places: Vec<Option<(Symbol, Place)>>,
    tally: Tally,
}

impl Fence<'_> {
    /// The batch with the wagers that may pass.
    fn pass(&mut self, batch: Batch<validated::Wager>) -> Batch<geofenced::Wager> {
        let Batch { operator, source, position, recorded_at, verdict } = batch;
        let verdict = match verdict {
            Verdict::Accepted(accepted) => Verdict::Accepted(self.pass_wagers(operator, accepted)),
            Verdict::Refused(refused) => Verdict::Refused(refused),
        };
        Batch { operator, source, position, recorded_at, verdict }
    }

    fn pass_wagers(
        &mut self,
        operator: Symbol,
        mut accepted: Accepted<validated::Wager>,
    ) -> Accepted<geofenced::Wager> {
        self.tally.wagers_in += accepted.wagers.len() as u64;
        let mut refusals = Vec::new();
        let wagers: Vec<_> = std::mem::take(&mut accepted.wagers)
            .into_iter()
            .filter_map(|wager| match self.judge(operator, &wager) {
                Ok(jurisdiction) => Some(placed(wager, jurisdiction)),
                Err((reason, detail)) => {
                    refusals.push(Refusal {
                        index: wager.index,
                        hit: None,
                        stage: StageName::Geofence,
                        reason,
                        detail: detail.into(),
                    });
                    None
                }
            })
            .collect();
        self.tally.wagers_out += wagers.len() as u64;
        refusals.iter().for_each(|refusal| self.tally.refuse(refusal.reason));
        accepted.narrowed(wagers, refusals)
    }

    /// Where the wager was made, or the first reason, in the order of the contract, for which it is refused.
    fn judge(&mut self, operator: Symbol, wager: &validated::Wager) -> Result<Symbol, Grounds> {
        let location = wager.location.as_ref().ok_or_else(location_missing)?;
        let place = location.jurisdiction.map(|claim| (claim, self.place(operator, claim)));

        let age_max = place.map_or(NO_RULE_MAX_AGE_MS, |(_, place)| place.age_max);
        let age = wager.occurred_at.0.saturating_sub(location.checked_at.0);
        if age > age_max {
            return Err(location_stale(
                age,
                age_max,
                location.jurisdiction.map(|claim| self.symbols.name(claim)),
            ));
        }
        let Some((claim, place)) = place else { return Err(place_unknown()) };
        if place.standing == Standing::Subdivided {
            return Err(subdivision_unknown(self.symbols.name(claim)));
        }
        // Here is the place of `location_conflict` and `impossible_travel`, which are about points: these rules
        // place a wager by what it declares, so that neither can be.
        match place.standing {
            Standing::Open => Ok(claim),
            closed => {
                Err(jurisdiction_blocked(closed, self.symbols.name(operator), self.symbols.name(claim)))
            }
        }
    }

    /// What the terms say of a jurisdiction and an operator in it.
    fn place(&mut self, operator: Symbol, jurisdiction: Symbol) -> Place {
        let known = &mut self.places[jurisdiction.index()];
        match *known {
            Some((asker, place)) if asker == operator => place,
            _ => {
                let place = self.rules.place(self.symbols.name(operator), self.symbols.name(jurisdiction));
                *known = Some((operator, place));
                place
            }
        }
    }
}

fn placed(wager: validated::Wager, jurisdiction: Symbol) -> geofenced::Wager {
    geofenced::Wager {
        index: wager.index,
        game: wager.game,
        amount: wager.amount,
        currency: wager.currency,
        funds: wager.funds,
        opt_in: wager.opt_in,
        occurred_at: wager.occurred_at,
        jurisdiction,
        hits: wager.hits,
    }
}

fn location_missing() -> Grounds {
    let detail = "the wager has no `location`: send one with `jurisdiction` and `checked_at`";
    (Reason::LocationMissing, detail.into())
}

fn location_stale(age: i64, age_max: i64, jurisdiction: Option<&str>) -> Grounds {
    let whose = jurisdiction.map_or_else(String::new, |code| format!(" for {code}"));
    let (age, age_max) = (seconds(age), seconds(age_max));
    let detail = format!(
        "the location was checked {age} s before the wager, and {age_max} s are allowed{whose}: check it again"
    );
    (Reason::LocationStale, detail)
}

fn place_unknown() -> Grounds {
    let detail = "no place is known for the coordinates alone: name the `jurisdiction` in `location` too";
    (Reason::LocationUncertain, detail.into())
}

fn subdivision_unknown(country: &str) -> Grounds {
    let detail = format!(
        "{country} is a country alone, and the terms tell its subdivisions apart: name the subdivision ({country}-…)"
    );
    (Reason::LocationUncertain, detail)
}

fn jurisdiction_blocked(standing: Standing, operator: &str, code: &str) -> Grounds {
    let detail = match standing {
        Standing::Unruled => format!("the terms have no rule for {code}, and what has no rule is blocked"),
        Standing::Blocked => format!("the terms block {code}"),
        _ => format!("the terms do not list {code} among the jurisdictions of the operator {operator}"),
    };
    (Reason::JurisdictionBlocked, detail)
}

/// Milliseconds as seconds: `1800`, `1800.001`.
fn seconds(millis: i64) -> String {
    let (whole, rest) = (millis / 1_000, millis % 1_000);
    if rest == 0 { whole.to_string() } else { format!("{whole}.{rest:03}") }
}

#[cfg(test)]
mod tests;
