//! Places, judged: one `check` for a single wager, and frames where what matters is around it.

use jackpot_core::frame::batch::{
    Accepted, Batch, Funds, Gap, HitClaim, Hits, Refusal, RefusedBatch, Verdict,
};
use jackpot_core::frame::symbols::{Symbol, Symbols};
use jackpot_core::frame::validated::{Location, Point, Wager};
use jackpot_core::frame::{Ingress, geofenced};
use jackpot_core::limits;
use jackpot_core::money::Micro;
use jackpot_core::refusal::Reason;
use jackpot_core::time::Millis;

use super::*;
use crate::grounds::*;
use crate::rules::Standing;

mod points;
mod travel;

const TERMS: &str = r#"{"schema": "terms/1", "revision": 3,
    "jurisdictions": [
        {"code": "MT", "status": "permitted", "location_max_age_s": 600}, {"code": "SE", "status": "permitted"},
        {"code": "US", "status": "permitted"}, {"code": "US-NV", "status": "permitted", "location_max_age_s": 60},
        {"code": "US-UT", "status": "blocked"}, {"code": "CA", "status": "permitted"},
        {"code": "KP", "status": "blocked"}, {"code": "GB", "status": "permitted", "location_max_age_s": 900},
        {"code": "GI", "status": "permitted"}, {"code": "IT", "status": "permitted"},
        {"code": "FJ", "status": "permitted"}],
    "operators": [
        {"operator": "acme", "jurisdictions": ["MT", "US", "KP", "FR", "GB", "GI", "FJ"]},
        {"operator": "north", "jurisdictions": ["CA-ON", "US-NV", "US", "IT-25", "IT-32"]}],
    "sources": [{"source": "eu1", "operator": "acme"}]}"#;

/// When the tests' wagers happen.
const NOW: Millis = Millis(1_780_949_730_123);

const POINT: Point = Point { latitude: 35.9, longitude: 14.5, accuracy_m: 20.0 };

/// A wager of an operator with this location, checked so many milliseconds before.
struct Case {
    operator: &'static str,
    jurisdiction: Option<&'static str>,
    point: Option<Point>,
    age: i64,
}

fn at(operator: &'static str, jurisdiction: &'static str, age: i64) -> Case {
    Case { operator, jurisdiction: Some(jurisdiction), point: None, age }
}

fn wager(index: u16, game: Symbol, currency: Symbol, location: Option<Location>) -> Wager {
    Wager {
        index,
        session: [7; 16],
        interaction: 1,
        game,
        amount: Micro(2_500_000),
        currency,
        funds: Funds::Bonus,
        opt_in: true,
        occurred_at: NOW,
        location,
        hits: None,
    }
}

fn header() -> Header {
    Header {
        partition: 1,
        sequence: 9,
        rules: jackpot_core::rules::FIRST,
        terms: 3,
        watermark: None,
        recorded_at: NOW.plus(50),
        ingress: Ingress { position: 40, count: 12, chain: Default::default() },
        input: Default::default(),
        previous: Default::default(),
    }
}

fn accepted(symbols: &mut Symbols, operator: &str, wagers: Vec<Wager>) -> Batch<Wager> {
    Batch {
        operator: symbols.intern(operator),
        source: symbols.intern("eu1"),
        position: 40,
        recorded_at: NOW.plus(50),
        verdict: Verdict::Accepted(Accepted { sequence: 4711, wagers, refusals: vec![], gaps: vec![] }),
    }
}

fn process(symbols: Symbols, batches: Vec<Batch<Wager>>) -> Placed {
    let mut stage = Geofence::default();
    stage.learn(&Terms::parse(TERMS.as_bytes()).expect("the tests' terms"));
    let frame = Frame { header: header(), body: Validated { symbols, batches, contents: vec![[1; 16]] } };
    stage.process(frame).expect("nothing contradicts")
}

fn only_accepted(body: &Geofenced) -> &Accepted<geofenced::Wager> {
    match &body.batches[..] {
        [Batch { verdict: Verdict::Accepted(accepted), .. }] => accepted,
        other => panic!("one accepted batch expected: {other:?}"),
    }
}

/// Judges one wager: its jurisdiction, or `reason: detail`.
fn judged(case: Option<Case>) -> Result<String, String> {
    let mut symbols = Symbols::default();
    let (game, currency) = (symbols.intern("spin"), symbols.intern("EUR"));
    let location = case.as_ref().map(|case| Location {
        jurisdiction: case.jurisdiction.map(|code| symbols.intern(code)),
        point: case.point,
        checked_at: NOW.plus(-case.age),
    });
    let operator = case.map_or("acme", |case| case.operator);
    let batch = accepted(&mut symbols, operator, vec![wager(0, game, currency, location)]);
    let body = process(symbols, vec![batch]).geofenced;
    let result = only_accepted(&body);
    match (&result.wagers[..], &result.refusals[..]) {
        ([wager], []) => Ok(body.symbols.name(wager.jurisdiction).to_owned()),
        ([], [refusal]) => Err(format!("{}: {}", refusal.reason, refusal.detail)),
        other => panic!("a wager is placed or refused: {other:?}"),
    }
}

#[track_caller]
fn check(case: impl Into<Option<Case>>, expect: Result<&str, &str>) {
    let got = judged(case.into());
    assert_eq!(got.as_deref().map_err(String::as_str), expect);
}

#[test]
fn places_that_are_permitted() {
    check(at("acme", "MT", 0), Ok("MT"));
    check(at("acme", "US-NV", 0), Ok("US-NV"));
    check(at("acme", "US-TX", 0), Ok("US-TX"));
    check(at("north", "CA-ON", 0), Ok("CA-ON"));
    check(at("north", "US-TX", 0), Ok("US-TX"));
    check(Case { operator: "acme", jurisdiction: Some("MT"), point: Some(POINT), age: 0 }, Ok("MT"));
}

#[test]
fn a_wager_needs_a_location() {
    check(
        None,
        Err(
            "location_missing: the wager has no `location`: send one with `jurisdiction` or coordinates, and \
             `checked_at`",
        ),
    );
}

#[test]
fn a_location_must_be_fresh_by_the_rule_of_the_finer_place() {
    check(at("acme", "MT", 600_000), Ok("MT"));
    check(
        at("acme", "MT", 600_001),
        Err(
            "location_stale: the location was checked 600.001 s before the wager, and 600 s are allowed for MT: \
             check it again",
        ),
    );
    check(at("acme", "MT", -60_000), Ok("MT"));
    check(at("acme", "US-NV", 60_000), Ok("US-NV"));
    check(
        at("acme", "US-NV", 61_000),
        Err(
            "location_stale: the location was checked 61 s before the wager, and 60 s are allowed for US-NV: \
             check it again",
        ),
    );
    check(at("acme", "US-TX", 1_800_000), Ok("US-TX"));
    check(
        at("acme", "US-TX", 1_800_001),
        Err(
            "location_stale: the location was checked 1800.001 s before the wager, and 1800 s are allowed for \
             US-TX: check it again",
        ),
    );
    // No rule: the default, before anything is said about blocking.
    check(
        at("acme", "FR", 1_800_001),
        Err(
            "location_stale: the location was checked 1800.001 s before the wager, and 1800 s are allowed for \
             FR: check it again",
        ),
    );
    check(
        Case { operator: "acme", jurisdiction: None, point: Some(POINT), age: 601_000 },
        Err(
            "location_stale: the location was checked 601 s before the wager, and 600 s are allowed for MT: \
             check it again",
        ),
    );
}

#[test]
fn a_country_alone_is_uncertain_where_its_subdivisions_matter() {
    let us = "location_uncertain: US is a country alone, and the terms tell its subdivisions apart: name the \
              subdivision (US-…)";
    let ca = us.replace("US", "CA");
    check(at("acme", "US", 0), Err(us));
    check(at("acme", "US", 1_800_000), Err(us));
    // Only the list of this operator names a subdivision.
    check(at("north", "CA", 0), Err(&ca));
    check(
        at("acme", "CA", 0),
        Err("jurisdiction_blocked: the terms do not list CA among the jurisdictions of the operator acme"),
    );
}

#[test]
fn places_that_are_blocked() {
    check(
        at("acme", "FR", 0),
        Err("jurisdiction_blocked: the terms have no rule for FR, and what has no rule is blocked"),
    );
    check(
        at("acme", "FR-75", 0),
        Err("jurisdiction_blocked: the terms have no rule for FR-75, and what has no rule is blocked"),
    );
    check(at("acme", "KP", 0), Err("jurisdiction_blocked: the terms block KP"));
    check(at("acme", "US-UT", 0), Err("jurisdiction_blocked: the terms block US-UT"));
    check(
        at("acme", "SE", 0),
        Err("jurisdiction_blocked: the terms do not list SE among the jurisdictions of the operator acme"),
    );
    check(
        at("north", "CA-QC", 0),
        Err(
            "jurisdiction_blocked: the terms do not list CA-QC among the jurisdictions of the operator north",
        ),
    );
    check(
        at("nobody", "MT", 0),
        Err("jurisdiction_blocked: the terms do not list MT among the jurisdictions of the operator nobody"),
    );
}

#[test]
fn a_frame_goes_on_with_all_that_was_known_of_it() {
    let mut symbols = Symbols::default();
    let (game, currency) = (symbols.intern("spin"), symbols.intern("EUR"));
    let (mt, fr) = (symbols.intern("MT"), symbols.intern("FR"));
    let place = |jurisdiction| {
        Some(Location { jurisdiction: Some(jurisdiction), point: None, checked_at: NOW.plus(-1) })
    };
    let hits = Some(Box::new(Hits { round: "r-1".into(), claims: vec![HitClaim::Unreadable] }));
    let wagers = vec![
        wager(0, game, currency, place(fr)),
        Wager { hits: hits.clone(), ..wager(2, game, currency, place(mt)) },
        wager(3, game, currency, None),
    ];
    let refused_before = Refusal {
        index: 1,
        hit: None,
        stage: StageName::Validate,
        reason: Reason::InvalidAmount,
        detail: "x".into(),
    };
    let gap = Gap { from: 4, to: 6 };
    let mut first = accepted(&mut symbols, "acme", wagers);
    if let Verdict::Accepted(accepted) = &mut first.verdict {
        accepted.refusals.push(refused_before.clone());
        accepted.gaps.push(gap);
    }
    let second = Batch {
        verdict: Verdict::Refused(RefusedBatch {
            batch: "@39".into(),
            reason: Reason::Malformed,
            detail: "no JSON".into(),
            conflict: true,
        }),
        ..first.clone()
    };
    // The same place, of an operator that may not take wagers there.
    let third = accepted(&mut symbols, "north", vec![wager(0, game, currency, place(mt))]);
    let outcome = process(symbols.clone(), vec![first, second.clone(), third]);
    let body = outcome.geofenced.clone();

    assert_eq!(body.symbols, symbols);
    let [first, refused, third] = &body.batches[..] else { panic!("three batches: {:?}", body.batches) };
    let Verdict::Accepted(accepted) = &first.verdict else { panic!("accepted: {first:?}") };
    assert_eq!((accepted.sequence, &accepted.gaps[..]), (4711, &[gap][..]));
    assert_eq!(
        accepted.wagers,
        [geofenced::Wager {
            index: 2,
            game,
            amount: Micro(2_500_000),
            currency,
            funds: Funds::Bonus,
            opt_in: true,
            occurred_at: NOW,
            jurisdiction: mt,
            hits
        }]
    );
    let refused_for: Vec<_> =
        accepted.refusals.iter().map(|refusal| (refusal.index, refusal.reason)).collect();
    assert_eq!(
        refused_for,
        [(0, Reason::JurisdictionBlocked), (1, Reason::InvalidAmount), (3, Reason::LocationMissing)]
    );
    assert_eq!(accepted.refusals[1], refused_before);
    assert_eq!(format!("{:?}", refused.verdict), format!("{:?}", second.verdict));
    let Verdict::Accepted(third) = &third.verdict else { panic!("accepted: {third:?}") };
    assert_eq!(third.refusals[0].reason, Reason::JurisdictionBlocked);

    assert_eq!(
        outcome.tally(),
        Tally {
            wagers_in: 4,
            wagers_out: 1,
            refused: vec![(Reason::JurisdictionBlocked, 2), (Reason::LocationMissing, 1)],
            ..Tally::default()
        }
    );
    let messages = outcome.encode(&[header()]);
    let decoded = Frame::<Geofenced>::decode(&messages[0]).expect("what was written");
    assert_eq!(decoded, Frame { header: header(), body });
}

#[test]
fn the_longest_details_fit() {
    let name = "x".repeat(64);
    let details = [
        location_missing(),
        location_stale(i64::MAX, i64::MAX, Some("US-NEV")),
        nowhere(),
        too_wide("20000000", "US-NEV"),
        location_conflict("US-NEV", "US-NEV"),
        impossible_travel("20015", u64::MAX),
        subdivision_unknown("US"),
        jurisdiction_blocked(Standing::Unruled, &name, "US-NEV"),
        jurisdiction_blocked(Standing::Blocked, &name, "US-NEV"),
        jurisdiction_blocked(Standing::Unlisted, &name, "US-NEV"),
    ];
    for (reason, detail) in details {
        assert!(detail.len() <= limits::DETAIL_BYTES_MAX, "{reason}: {detail}");
    }
}
