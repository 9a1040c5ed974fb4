//! Judges the wagers of one frame: where each was made, or the first reason for which it is refused, in the order of
//! the contract (section 3). Made anew for every frame, so that what is asked of the terms is asked once per frame.

use jackpot_core::frame::batch::{Accepted, Batch, Refusal, Verdict};
use jackpot_core::frame::geofenced;
use jackpot_core::frame::symbols::{Symbol, Symbols};
use jackpot_core::frame::validated::{self, Location};
use jackpot_core::names;
use jackpot_core::refusal::StageName;
use jackpot_core::stage::Tally;

use crate::boundaries::{Area, Boundaries, Spot};
use crate::geometry;
use crate::grounds::{self, Grounds};
use crate::memory::{Fix, Memory, Remembered};
use crate::rules::{NO_RULE_MAX_AGE_MS, Place, Rules, Standing};

/// Judges the wagers of one frame.
pub struct Fence<'a> {
    rules: &'a Rules,
    boundaries: &'static Boundaries,
    symbols: Symbols,
    /// By the jurisdiction's symbol: the place as the operator asked last finds it.
    claims: Vec<Option<(Symbol, Place)>>,
    /// The same by area; empty in a frame without coordinates.
    areas: Vec<Option<(Symbol, Place)>>,
    tally: Tally,
}

/// Where a wager was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Where {
    /// There, as it declares.
    Claim(Symbol),
    /// There, by its coordinates.
    Area(Area),
}

impl<'a> Fence<'a> {
    /// For a frame with these names.
    pub fn new(rules: &'a Rules, symbols: Symbols) -> Self {
        let claims = vec![None; symbols.names().len()];
        let (boundaries, areas) = (Boundaries::get(), Vec::new());
        Self { rules, boundaries, symbols, claims, areas, tally: Tally::default() }
    }

    /// The batch with the wagers that may pass.
    pub fn pass(&mut self, batch: Batch<validated::Wager>, memory: &mut Memory) -> Batch<geofenced::Wager> {
        let Batch { operator, source, position, recorded_at, verdict } = batch;
        memory.pass(recorded_at);
        let verdict = match verdict {
            Verdict::Accepted(accepted) => {
                let mut remembered = memory.of(self.symbols.name(source));
                Verdict::Accepted(self.pass_wagers(operator, accepted, &mut remembered))
            }
            Verdict::Refused(refused) => Verdict::Refused(refused),
        };
        Batch { operator, source, position, recorded_at, verdict }
    }

    /// The frame's names, with those of the places that were found, and what the frame did.
    pub fn finish(self) -> (Symbols, Tally) {
        (self.symbols, self.tally)
    }

    fn pass_wagers(
        &mut self,
        operator: Symbol,
        mut accepted: Accepted<validated::Wager>,
        remembered: &mut Remembered<'_>,
    ) -> Accepted<geofenced::Wager> {
        self.tally.wagers_in += accepted.wagers.len() as u64;
        let mut refusals = Vec::new();
        let wagers: Vec<_> = std::mem::take(&mut accepted.wagers)
            .into_iter()
            .filter_map(|wager| match self.judge(operator, &wager, remembered) {
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

    /// Where the wager was made, or why it is refused.
    fn judge(
        &mut self,
        operator: Symbol,
        wager: &validated::Wager,
        remembered: &mut Remembered<'_>,
    ) -> Result<Symbol, Grounds> {
        let last = remembered.last(&wager.session);
        let location = wager.location.as_ref().filter(|at| at.jurisdiction.is_some() || at.point.is_some());
        let location = location.ok_or_else(grounds::location_missing)?;
        let fix = location.point.map(|point| {
            let known = last.filter(|last| last.point == point).map(|last| last.spot);
            let spot = known.unwrap_or_else(|| self.boundaries.locate(&point));
            Fix { point, spot, checked_at: location.checked_at }
        });
        let found = fix.and_then(|fix| fix.spot.subdivision.or(fix.spot.country));
        let (finer, conflict) = self.finer(location.jurisdiction, found);
        let place = finer.map(|finer| self.place(operator, finer));

        self.check_age(wager, location, finer, place)?;
        self.check_certainty(operator, fix.as_ref(), finer, place)?;
        if let Some((claim, area)) = conflict {
            return Err(grounds::location_conflict(self.symbols.name(claim), self.boundaries.code(area)));
        }
        check_travel(last.as_ref(), fix.as_ref())?;
        let (finer, place) =
            finer.zip(place).expect("without a claim, coordinates in no country are uncertain");
        if place.standing != Standing::Open {
            let operator = self.symbols.name(operator);
            return Err(grounds::jurisdiction_blocked(place.standing, operator, self.code(finer)));
        }
        if let Some(fix) = fix {
            remembered.accept(wager.session, fix);
        }
        Ok(match finer {
            Where::Claim(claim) => claim,
            Where::Area(area) => self.symbols.intern(self.boundaries.code(area)),
        })
    }

    fn check_age(
        &self,
        wager: &validated::Wager,
        location: &Location,
        finer: Option<Where>,
        place: Option<Place>,
    ) -> Result<(), Grounds> {
        let age = wager.occurred_at.0.saturating_sub(location.checked_at.0);
        let age_max = place.map_or(NO_RULE_MAX_AGE_MS, |place| place.age_max);
        if age > age_max {
            return Err(grounds::location_stale(age, age_max, finer.map(|finer| self.code(finer))));
        }
        Ok(())
    }

    /// Whether it is certain in which country the wager was made, and in which of its subdivisions where the rules
    /// or the operator's list tell them apart.
    fn check_certainty(
        &mut self,
        operator: Symbol,
        fix: Option<&Fix>,
        finer: Option<Where>,
        place: Option<Place>,
    ) -> Result<(), Grounds> {
        let country = fix.map(|fix| fix.spot.country.ok_or_else(grounds::nowhere)).transpose()?;
        if let (Some(finer), Some(Place { standing: Standing::Subdivided, .. })) = (finer, place) {
            return Err(grounds::subdivision_unknown(self.code(finer)));
        }
        let (Some(fix), Some(country)) = (fix, country) else { return Ok(()) };
        let Spot { subdivision, in_country, in_subdivision, .. } = fix.spot;
        let too_wide = |code| Err(grounds::too_wide(&geometry::metres(fix.point.accuracy_m), code));
        if !in_country {
            return too_wide(self.boundaries.code(country));
        }
        if self.place(operator, Where::Area(country)).standing != Standing::Subdivided {
            return Ok(());
        }
        match (finer, subdivision) {
            // The boundaries know where the subdivision is that was declared: the centre is not in it.
            (Some(Where::Claim(claim)), None) if self.boundaries.area(self.symbols.name(claim)).is_some() => {
                too_wide(self.symbols.name(claim))
            }
            (Some(finer), _) if !in_subdivision => too_wide(self.code(finer)),
            _ => Ok(()),
        }
    }

    /// The finer one of what is declared and what was found; where neither contains the other, what was found, and
    /// both as they are in conflict.
    fn finer(&self, claim: Option<Symbol>, found: Option<Area>) -> (Option<Where>, Option<(Symbol, Area)>) {
        let (claim, area) = match (claim, found) {
            (Some(claim), Some(area)) => (claim, area),
            (claim, found) => return (claim.map(Where::Claim).or(found.map(Where::Area)), None),
        };
        let (declared, code) = (self.symbols.name(claim), self.boundaries.code(area));
        if declared == code || names::country(declared) == code {
            (Some(Where::Claim(claim)), None)
        } else {
            let conflict = (names::country(code) != declared).then_some((claim, area));
            (Some(Where::Area(area)), conflict)
        }
    }

    /// What the terms say of a place and an operator in it.
    fn place(&mut self, operator: Symbol, at: Where) -> Place {
        if self.areas.is_empty() && matches!(at, Where::Area(_)) {
            self.areas = vec![None; self.boundaries.len()];
        }
        let known = match at {
            Where::Claim(claim) => self.claims[claim.index()],
            Where::Area(area) => self.areas[area.index()],
        };
        match known {
            Some((asker, place)) if asker == operator => place,
            _ => {
                let place = self.rules.place(self.symbols.name(operator), self.code(at));
                match at {
                    Where::Claim(claim) => self.claims[claim.index()] = Some((operator, place)),
                    Where::Area(area) => self.areas[area.index()] = Some((operator, place)),
                }
                place
            }
        }
    }

    fn code(&self, at: Where) -> &str {
        match at {
            Where::Claim(claim) => self.symbols.name(claim),
            Where::Area(area) => self.boundaries.code(area),
        }
    }
}

/// Whether the player can have got there from the session's last accepted place.
fn check_travel(last: Option<&Fix>, fix: Option<&Fix>) -> Result<(), Grounds> {
    match last.zip(fix) {
        Some((last, fix)) if last.too_far(fix) => {
            let elapsed = last.checked_at.0.abs_diff(fix.checked_at.0);
            Err(grounds::impossible_travel(&geometry::gap_km(&last.point, &fix.point), elapsed))
        }
        _ => Ok(()),
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
