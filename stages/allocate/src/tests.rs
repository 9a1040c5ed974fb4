//! Wagers, allocated: `check` says what becomes of one wager, `check_postings` what the ledger is told of many.

use jackpot_core::digest::Digest;
use jackpot_core::frame::Ingress;
use jackpot_core::frame::batch::{Funds, Gap, HitClaim, Hits, RefusedBatch};
use jackpot_core::frame::contributions::Posting;

use super::*;

const TERMS: &str = r#"{"schema": "terms/1", "revision": 3,
    "operators": [{"operator": "acme", "jurisdictions": ["MT", "US"]}, {"operator": "north", "jurisdictions": ["MT"]}],
    "games": [{"game": "spin", "supplier": "x"}, {"game": "dice", "supplier": "x"}],
    "exchange_rates": [{"from": "GBP", "to": "EUR", "rate": "1.17647"}, {"from": "EUR", "to": "GBP", "rate": "0.5"}],
    "pools": [
        {"pool": "mega", "currency": "EUR", "jurisdictions": ["MT", "US"], "min_wager": "0.10", "max_wager": "100",
         "levels": [{"level": "grand", "base": "500", "increment_ppm": 3000},
                    {"level": "minor", "base": "1", "increment_ppm": 5000}]},
        {"pool": "sterling", "currency": "GBP", "operators": ["acme"], "games": ["spin"], "jurisdictions": ["MT"],
         "funds": ["cash", "bonus"], "levels": [{"level": "grand", "base": "5", "increment_ppm": 1}]},
        {"pool": "willing", "currency": "EUR", "jurisdictions": ["MT"], "funds": ["cash", "free"],
         "requires_opt_in": true, "levels": [{"level": "only", "base": "5", "increment_ppm": 1}]},
        {"pool": "nevada", "currency": "USD", "jurisdictions": ["US-NV"],
         "levels": [{"level": "only", "base": "5", "increment_ppm": 1}]}]}"#;

const NOW: Millis = Millis(1_780_949_730_123);

/// A wager in words; what a test does not say is as in [`WAGER`].
#[derive(Clone)]
struct Case {
    operator: &'static str,
    game: &'static str,
    amount: &'static str,
    currency: &'static str,
    funds: Funds,
    opt_in: bool,
    jurisdiction: &'static str,
    after: i64,
    hits: &'static [(&'static str, &'static str)],
}

const WAGER: Case = Case {
    operator: "acme",
    game: "spin",
    amount: "2.50",
    currency: "EUR",
    funds: Funds::Cash,
    opt_in: false,
    jurisdiction: "MT",
    after: 0,
    hits: &[],
};

/// Stands in `hits` for an entry that could not be read.
const UNREADABLE: (&str, &str) = ("", "");

fn wager(index: u16, case: &Case, symbols: &mut Symbols) -> geofenced::Wager {
    let claims: Vec<_> = case
        .hits
        .iter()
        .map(|entry| match *entry {
            UNREADABLE => HitClaim::Unreadable,
            (pool, level) => HitClaim::Level { pool: symbols.intern(pool), level: symbols.intern(level) },
        })
        .collect();
    geofenced::Wager {
        index,
        game: symbols.intern(case.game),
        amount: Micro::parse_wager(case.amount).expect("an amount"),
        currency: symbols.intern(case.currency),
        funds: case.funds,
        opt_in: case.opt_in,
        occurred_at: NOW.plus(case.after),
        jurisdiction: symbols.intern(case.jurisdiction),
        hits: if claims.is_empty() { None } else { Some(Box::new(Hits { round: "r-1".into(), claims })) },
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
        ingress: Ingress { position: 40, count: 12, chain: Digest::ZERO },
        input: Digest::ZERO,
        previous: Digest::ZERO,
    }
}

fn process(terms: &str, body: Geofenced) -> Result<Allocated, Contradiction> {
    let mut stage = Allocate::default();
    stage.learn(&Terms::parse(terms.as_bytes()).expect("the tests' terms"));
    stage.process(Frame { header: header(), body })
}

/// Each wager in a batch of its own, since each has its operator.
fn allocate(terms: &str, cases: &[Case]) -> Allocated {
    let mut symbols = Symbols::default();
    let batches = (1..)
        .zip(cases)
        .map(|(sequence, case)| Batch {
            operator: symbols.intern(case.operator),
            source: symbols.intern("eu1"),
            position: 40,
            recorded_at: NOW.plus(50),
            verdict: Verdict::Accepted(Accepted {
                sequence,
                wagers: vec![wager(0, case, &mut symbols)],
                refusals: vec![],
                gaps: vec![],
            }),
        })
        .collect();
    process(terms, Geofenced { symbols, batches }).expect("nothing contradicts")
}

/// The pools that a wager takes part in, and what is refused of it, a line each.
fn outcome(allocations: &Allocations, accepted: &Accepted<Allocation>) -> String {
    let mut lines = Vec::new();
    for participation in accepted.wagers.iter().flat_map(|allocation| &allocation.participations) {
        let rate = participation.rate.map(|rate| format!(" at {rate}")).unwrap_or_default();
        lines.push(format!(
            "{} {}{rate}",
            allocations.symbols.name(participation.pool),
            participation.eligible
        ));
    }
    lines.extend(accepted.refusals.iter().map(|refusal| format!("{}: {}", refusal.reason, refusal.detail)));
    lines.join("\n")
}

fn check_under(terms: &str, case: &Case, expect: &str) {
    let allocated = allocate(terms, std::slice::from_ref(case));
    let Verdict::Accepted(accepted) = &allocated.allocations.batches[0].verdict else { panic!("accepted") };
    assert_eq!(outcome(&allocated.allocations, accepted), expect);
}

/// What becomes of one wager.
fn check(case: &Case, expect: &str) {
    check_under(TERMS, case, expect);
}

/// What the ledger is told of wagers, a line each.
fn check_postings(cases: &[Case], expect: &[&str]) {
    let Contributions { symbols, wagers: _, pools, postings } = allocate(TERMS, cases).contributions;
    let pool = |index: u16| symbols.name(pools[usize::from(index)].pool);
    let lines: Vec<_> = postings
        .iter()
        .map(|posting| match posting {
            Posting::Sum(sum) => format!(
                "{} +{} {}/{}/{}: {} of {}",
                pool(sum.pool),
                sum.second - NOW.second(),
                symbols.name(sum.operator),
                symbols.name(sum.jurisdiction),
                symbols.name(sum.game),
                sum.eligible,
                sum.wagers
            ),
            Posting::Hit(hit) => format!(
                "{} {} won by {}/{}/{} of {} in {} from {}, round {}",
                pool(hit.pool),
                symbols.name(hit.level),
                symbols.name(hit.source),
                hit.sequence,
                hit.index,
                symbols.name(hit.operator),
                symbols.name(hit.game),
                symbols.name(hit.jurisdiction),
                hit.round
            ),
        })
        .collect();
    assert_eq!(lines, expect);
}

#[test]
fn wagers_join_the_pools_that_fit() {
    check(&WAGER, "mega 2.5\nsterling 1.25 at 0.5");
    check(&Case { opt_in: true, ..WAGER }, "mega 2.5\nsterling 1.25 at 0.5\nwilling 2.5");
    check(&Case { operator: "north", ..WAGER }, "mega 2.5");
    check(&Case { game: "dice", ..WAGER }, "mega 2.5");
    check(&Case { funds: Funds::Bonus, ..WAGER }, "sterling 1.25 at 0.5");
    check(&Case { funds: Funds::Free, ..WAGER }, "");
    check(&Case { funds: Funds::Free, opt_in: true, ..WAGER }, "willing 2.5");
    check(&Case { jurisdiction: "US-NV", ..WAGER }, "mega 2.5");
    check(&Case { jurisdiction: "US-NV", currency: "USD", ..WAGER }, "nevada 2.5");
    check(&Case { jurisdiction: "US", currency: "USD", ..WAGER }, "");
    check(&Case { jurisdiction: "SE", ..WAGER }, "");
}

#[test]
fn currencies_are_converted_by_listed_pairs_alone() {
    check(&Case { currency: "GBP", ..WAGER }, "mega 2.941175 at 1.17647\nsterling 2.5");
    check(&Case { currency: "SEK", ..WAGER }, "");
    // Half to even: 0.5 and 1.5 micro-units.
    check(&Case { amount: "0.000001", ..WAGER }, "sterling 0 at 0.5");
    check(&Case { amount: "0.000003", ..WAGER }, "sterling 0.000002 at 0.5");
}

#[test]
fn limits_are_about_the_converted_amount() {
    check(&Case { amount: "0.099999", game: "dice", ..WAGER }, "");
    check(&Case { amount: "0.1", game: "dice", ..WAGER }, "mega 0.1");
    check(&Case { amount: "0.085", currency: "GBP", game: "dice", ..WAGER }, "mega 0.1 at 1.17647");
    check(&Case { amount: "0.084999", currency: "GBP", game: "dice", ..WAGER }, "");
    check(&Case { amount: "100.01", ..WAGER }, "mega 100\nsterling 50.005 at 0.5");
    check(&Case { amount: "0", ..WAGER }, "sterling 0 at 0.5");
}

#[test]
fn the_first_eight_pools_in_which_a_wager_would_take_part() {
    let pool = |number| {
        let min = if number == 2 { "5" } else { "0" };
        format!(
            r#"{{"pool": "p{number}", "currency": "EUR", "jurisdictions": ["MT"], "min_wager": "{min}",
                "levels": [{{"level": "l", "base": "1", "increment_ppm": 1}}]}}"#
        )
    };
    let terms = format!(
        r#"{{"schema": "terms/1", "revision": 3, "operators": [{{"operator": "acme", "jurisdictions": ["MT"]}}],
            "games": [{{"game": "spin", "supplier": "x"}}], "pools": [{}]}}"#,
        (0..100).map(pool).collect::<Vec<_>>().join(", ")
    );
    check_under(&terms, &WAGER, "p0 2.5\np1 2.5\np3 2.5\np4 2.5\np5 2.5\np6 2.5\np7 2.5\np8 2.5");
    check_under(
        &terms,
        &Case { amount: "5", hits: &[("p7", "l"), ("p8", "l")], ..WAGER },
        "p0 5\np1 5\np2 5\np3 5\np4 5\np5 5\np6 5\np7 5\n\
         hit_refused: hits[1] names the pool `p8`, in which the wager takes no part by its operator, game, \
         jurisdiction, funds, opt-in, currency or amount",
    );
}

#[test]
fn a_game_must_be_known() {
    check(
        &Case { game: "poker", hits: &[UNREADABLE], ..WAGER },
        "unknown_game: the terms know no game `poker`: have it added to them, or name one that they know",
    );
}

#[test]
fn hits_are_judged_one_by_one() {
    check(&Case { hits: &[("mega", "grand"), ("mega", "minor")], ..WAGER }, "mega 2.5\nsterling 1.25 at 0.5");
    check(
        &Case {
            game: "dice",
            hits: &[
                UNREADABLE,
                ("mega", "grand"),
                ("mega", "grand"),
                ("mega", "huge"),
                ("sterling", "grand"),
                ("other", "grand"),
                UNREADABLE,
                ("mega", "minor"),
            ],
            ..WAGER
        },
        "mega 2.5\n\
         hit_refused: hits[0] cannot be read: an entry is an object with `pool` and `level`, both identifiers\n\
         hit_refused: hits[2] names the level `grand` of the pool `mega` a second time: a wager wins a level once\n\
         hit_refused: hits[3] names the level `huge`, which the pool `mega` does not have\n\
         hit_refused: hits[4] names the pool `sterling`, in which the wager takes no part by its operator, game, \
         jurisdiction, funds, opt-in, currency or amount\n\
         hit_refused: hits[5] names the pool `other`, which the terms do not have\n\
         hit_refused: hits[6] cannot be read: an entry is an object with `pool` and `level`, both identifiers",
    );
}

#[test]
fn what_is_alike_is_summed() {
    check_postings(
        &[
            WAGER,
            Case { amount: "1", ..WAGER },
            Case { operator: "north", ..WAGER },
            Case { amount: "0.5", after: 876, ..WAGER },
            Case { amount: "0.25", after: 877, ..WAGER },
            Case { game: "dice", ..WAGER },
            Case { game: "poker", ..WAGER },
            Case { jurisdiction: "SE", ..WAGER },
            Case { jurisdiction: "US-NV", ..WAGER },
            Case { amount: "2000", ..WAGER },
        ],
        &[
            "mega +0 acme/MT/spin: 104 of 4",
            "sterling +0 acme/MT/spin: 1002 of 4",
            "mega +0 north/MT/spin: 2.5 of 1",
            "mega +1 acme/MT/spin: 0.25 of 1",
            "sterling +1 acme/MT/spin: 0.125 of 1",
            "mega +0 acme/MT/dice: 2.5 of 1",
            "mega +0 acme/US-NV/spin: 2.5 of 1",
        ],
    );
}

#[test]
fn sums_are_cut_at_the_hits_of_their_pool() {
    check_postings(
        &[
            WAGER,
            Case { game: "dice", ..WAGER },
            Case {
                hits: &[("mega", "grand"), ("nowhere", "grand"), ("mega", "minor")],
                amount: "10",
                ..WAGER
            },
            WAGER,
            Case { game: "dice", ..WAGER },
            Case { hits: &[("sterling", "grand")], operator: "north", ..WAGER },
        ],
        &[
            "mega +0 acme/MT/spin: 12.5 of 2",
            // This pool is not hit, and so not cut.
            "sterling +0 acme/MT/spin: 7.5 of 3",
            "mega +0 acme/MT/dice: 2.5 of 1",
            "mega grand won by eu1/3/0 of acme in spin from MT, round r-1",
            "mega minor won by eu1/3/0 of acme in spin from MT, round r-1",
            "mega +0 acme/MT/spin: 2.5 of 1",
            "mega +0 acme/MT/dice: 2.5 of 1",
            "mega +0 north/MT/spin: 2.5 of 1",
        ],
    );
}

#[test]
fn a_frame_goes_on_with_all_that_was_known_of_it() {
    let mut symbols = Symbols::default();
    let (operator, source) = (symbols.intern("acme"), symbols.intern("eu1"));
    let refused_before = Refusal {
        index: 1,
        hit: None,
        stage: StageName::Geofence,
        reason: Reason::LocationStale,
        detail: "x".into(),
    };
    let wagers = vec![
        wager(0, &Case { game: "poker", ..WAGER }, &mut symbols),
        wager(2, &Case { hits: &[("x", "y")], ..WAGER }, &mut symbols),
        wager(3, &Case { jurisdiction: "SE", ..WAGER }, &mut symbols),
    ];
    let gap = Gap { from: 4, to: 6 };
    let accepted = Batch {
        operator,
        source,
        position: 40,
        recorded_at: NOW.plus(50),
        verdict: Verdict::Accepted(Accepted {
            sequence: 7,
            wagers: wagers.clone(),
            refusals: vec![refused_before],
            gaps: vec![gap],
        }),
    };
    let refused = Batch {
        verdict: Verdict::Refused(RefusedBatch {
            batch: "@39".into(),
            reason: Reason::Malformed,
            detail: "no JSON".into(),
            conflict: true,
        }),
        ..accepted.clone()
    };
    let batches = vec![refused, accepted];
    let allocated = process(TERMS, Geofenced { symbols, batches }).expect("nothing contradicts");

    let Verdict::Refused(refused) = &allocated.allocations.batches[0].verdict else { panic!("refused") };
    assert_eq!((&*refused.batch, refused.conflict), ("@39", true));
    let Verdict::Accepted(accepted) = &allocated.allocations.batches[1].verdict else { panic!("accepted") };
    assert_eq!((accepted.sequence, &accepted.gaps[..]), (7, &[gap][..]));
    let kept: Vec<_> = accepted.wagers.iter().map(|allocation| allocation.wager.clone()).collect();
    assert_eq!(kept, wagers[1..]);
    let places: Vec<_> =
        accepted.refusals.iter().map(|refusal| (refusal.index, refusal.hit, refusal.reason)).collect();
    assert_eq!(
        places,
        [(0, None, Reason::UnknownGame), (1, None, Reason::LocationStale), (2, Some(0), Reason::HitRefused)]
    );
    assert_eq!(
        allocated.tally(),
        Tally {
            wagers_in: 3,
            wagers_out: 2,
            refused: vec![(Reason::UnknownGame, 1), (Reason::HitRefused, 1)],
            ..Tally::default()
        }
    );
    assert_eq!(allocated.contributions.wagers, 2);
    let pools: Vec<_> = allocated
        .contributions
        .pools
        .iter()
        .map(|pool| {
            let name = |symbol: &Symbol| allocated.contributions.symbols.name(*symbol);
            (name(&pool.pool), pool.levels.iter().map(name).collect::<Vec<_>>())
        })
        .collect();
    assert_eq!(pools, [("mega", vec!["grand", "minor"]), ("sterling", vec!["grand"])]);

    let headers = [header(), Header { previous: Digest::of(b"other"), ..header() }];
    let messages = allocated.encode(&headers);
    let [for_audit, for_ledger] = headers;
    assert_eq!(
        Frame::<Allocations>::decode(&messages[0]).expect("what was written"),
        Frame { header: for_audit, body: allocated.allocations }
    );
    assert_eq!(
        Frame::<Contributions>::decode(&messages[1]).expect("what was written"),
        Frame { header: for_ledger, body: allocated.contributions }
    );
}

#[test]
fn a_frame_that_validate_cannot_have_written_stops_the_partition() {
    let mut symbols = Symbols::default();
    let (operator, source) = (symbols.intern("acme"), symbols.intern("eu1"));
    let mut wager = wager(0, &WAGER, &mut symbols);
    wager.amount = Micro(Micro::WAGER_MAX.0 + 1);
    let accepted = Accepted { sequence: 7, wagers: vec![wager], refusals: vec![], gaps: vec![] };
    let verdict = Verdict::Accepted(accepted);
    let batches = vec![Batch { operator, source, position: 40, recorded_at: NOW, verdict }];
    let error = process(TERMS, Geofenced { symbols, batches }).expect_err("an amount above the maximum");
    assert_eq!(
        error.to_string(),
        "frame 9 of geofenced-1 holds the wager eu1/7/0 with an amount of 1000000000.000001 and 0 hits, more than \
         validate lets pass: the frame was changed; restore the stream from a backup"
    );
}

#[test]
fn the_longest_details_fit() {
    let long: &'static str = "x".repeat(64).leak();
    let hits: &'static [(&str, &str)] = vec![(long, long), (long, long), ("mega", long)].leak();
    let cases = [Case { game: long, ..WAGER }, Case { hits, ..WAGER }];
    let mut refusals = 0;
    for batch in &allocate(TERMS, &cases).allocations.batches {
        let Verdict::Accepted(accepted) = &batch.verdict else { panic!("accepted") };
        for refusal in &accepted.refusals {
            assert!(refusal.detail.len() <= limits::DETAIL_BYTES_MAX, "{}", refusal.detail);
            refusals += 1;
        }
    }
    assert_eq!(refusals, 4);
}
