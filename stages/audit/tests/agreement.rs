//! Two readers of the same contract: whatever allocate makes of any terms and any wagers, the audit accepts, and
//! nothing that differs from it in one place; and what the ledger is told is what the allocations say.

use std::collections::BTreeMap;

use allocate::{Allocate, Allocated};
use audit::{Audit, Entry};
use jackpot_core::digest::Digest;
use jackpot_core::frame::allocations::{Allocation, Allocations, Participation};
use jackpot_core::frame::batch::{Accepted, Batch, Funds, HitClaim, Hits, Refusal, RefusedBatch, Verdict};
use jackpot_core::frame::contributions::{Contributions, Posting};
use jackpot_core::frame::geofenced::{self, Geofenced};
use jackpot_core::frame::symbols::{Symbol, Symbols};
use jackpot_core::frame::{Frame, Header, Ingress};
use jackpot_core::money::{Micro, Pico, Ppm, Rate};
use jackpot_core::refusal::{Reason, StageName};
use jackpot_core::rules;
use jackpot_core::stage::{Contradiction, Outcome, Stage};
use jackpot_core::terms::{ExchangeRate, Game, Jurisdiction, Level, Operator, Pool, SCHEMA, Status, Terms};
use jackpot_core::time::Millis;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

const OPERATORS: [&str; 2] = ["acme", "north"];
const GAMES: [&str; 3] = ["spin", "dice", "mega"];
const CURRENCIES: [&str; 3] = ["EUR", "GBP", "JPY"];
/// Where wagers come from: all permitted.
const PLACES: [&str; 5] = ["MT", "SE", "US-NV", "US-TX", "CA-ON"];
/// What pools may list.
const LISTABLE: [&str; 7] = ["MT", "SE", "US", "US-NV", "CA", "CA-ON", "FR"];
const LEVELS: [&str; 4] = ["grand", "major", "minor", "mini"];
const POOLS: usize = 16;
const NOW: Millis = Millis(1_780_949_730_123);

fn pool_name(number: usize) -> String {
    // One pool shares its name with a game: symbols are no roles.
    if number == 0 { "mega".into() } else { format!("p{number}") }
}

/// Amounts that often are alike, so that limits are met exactly; and all others.
fn amount() -> impl Strategy<Value = Micro> {
    prop_oneof![
        4 => (0_u128..8).prop_map(Micro),
        4 => (0_u128..8).prop_map(|units| Micro(units * 500_000)),
        1 => (0..=Micro::WAGER_MAX.0).prop_map(Micro),
        1 => Just(Micro::WAGER_MAX),
    ]
}

fn names(of: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    prop_oneof![
        1 => Just(vec!["*".to_owned()]),
        1 => subsequence(of, 0..=of.len())
            .prop_map(|names| names.into_iter().map(str::to_owned).collect()),
    ]
}

fn pools() -> impl Strategy<Value = Vec<Pool>> {
    let whom = (names(&OPERATORS), names(&GAMES), subsequence(&LISTABLE[..], 2..=LISTABLE.len()));
    let limits = (amount(), option::of(amount()));
    let pool = (
        whom,
        limits,
        select(&CURRENCIES[..]),
        subsequence(&[Funds::Cash, Funds::Bonus, Funds::Free][..], 1..=3),
        prop::bool::weighted(0.3),
        1..=3_usize,
    );
    // In a crowd, limits and currencies alone decide: the only way in which many pools fit one wager.
    (vec(pool, 0..=POOLS), prop::bool::weighted(0.3)).prop_map(|(pools, crowd)| {
        let pools =
            pools.into_iter().enumerate().map(|(number, (whom, limits, currency, funds, opt_in, levels))| {
                let pool = Pool {
                    pool: pool_name(number),
                    currency: currency.into(),
                    operators: whom.0,
                    games: whom.1,
                    jurisdictions: whom.2.into_iter().map(Into::into).collect(),
                    funds,
                    requires_opt_in: opt_in,
                    min_wager: limits.0.min(limits.1.unwrap_or(limits.0)),
                    max_wager: limits.1.map(|max| max.max(limits.0)),
                    levels: LEVELS[..levels].iter().map(|name| level(name)).collect(),
                };
                if crowd { open_to_all(pool) } else { pool }
            });
        pools.collect()
    })
}

fn open_to_all(pool: Pool) -> Pool {
    Pool {
        operators: vec!["*".into()],
        games: vec!["*".into()],
        jurisdictions: LISTABLE.map(Into::into).to_vec(),
        funds: vec![Funds::Cash, Funds::Bonus, Funds::Free],
        requires_opt_in: false,
        ..pool
    }
}

fn level(name: &str) -> Level {
    Level {
        level: name.into(),
        base: Pico::ZERO,
        ceiling: None,
        increment_ppm: Ppm(100),
        reserve_ppm: Ppm(0),
    }
}

fn terms() -> impl Strategy<Value = Terms> {
    let pairs: Vec<_> = CURRENCIES
        .iter()
        .flat_map(|from| CURRENCIES.iter().map(move |to| (*from, *to)))
        .filter(|(from, to)| from != to)
        .collect();
    let rate =
        prop_oneof![Just(Rate(500_000_000)), Just(Rate(1_500_000_000)), (1..=Rate::MAX.0).prop_map(Rate)];
    let rates = (subsequence(pairs, 0..=6), vec(rate, 6)).prop_map(|(pairs, rates)| {
        let listed = |((from, to), rate): ((&str, &str), Rate)| ExchangeRate {
            from: from.into(),
            to: to.into(),
            rate,
        };
        pairs.into_iter().zip(rates).map(listed).collect()
    });
    (rates, pools()).prop_map(|(exchange_rates, pools)| {
        let permitted = |code: &&str| Jurisdiction {
            code: (*code).into(),
            status: Status::Permitted,
            location_max_age_s: 1,
        };
        let territory = ["MT", "SE", "US", "CA"];
        let terms = Terms {
            rules: rules::FIRST,
            schema: SCHEMA.into(),
            revision: 1,
            jurisdictions: territory.iter().map(permitted).collect(),
            operators: OPERATORS
                .iter()
                .map(|name| Operator {
                    operator: (*name).into(),
                    jurisdictions: territory.map(Into::into).to_vec(),
                })
                .collect(),
            sources: vec![],
            games: GAMES.iter().map(|name| Game { game: (*name).into(), supplier: "x".into() }).collect(),
            exchange_rates,
            pools,
            author: None,
            authorizer: None,
            reason: None,
        };
        assert_eq!(Terms::parse(&terms.document()).as_ref(), Ok(&terms), "the generator makes sound terms");
        terms
    })
}

/// A wager before its names are symbols.
#[derive(Debug, Clone)]
struct Draft {
    game: &'static str,
    amount: Micro,
    currency: &'static str,
    funds: Funds,
    opt_in: bool,
    after: i64,
    place: &'static str,
    /// Pool and level; `None` where the entry could not be read.
    claims: Vec<Option<(String, &'static str)>>,
}

fn draft() -> impl Strategy<Value = Draft> {
    let claim = option::weighted(0.9, ((0..=POOLS).prop_map(pool_name), select(&LEVELS[..])));
    let claims = prop_oneof![3 => Just(vec![]), 2 => vec(claim, 1..6)];
    let game = prop_oneof![9 => select(&GAMES[..]), 1 => Just("poker")];
    let funds = select(&[Funds::Cash, Funds::Bonus, Funds::Free][..]);
    let currency = prop_oneof![9 => select(&CURRENCIES[..]), 1 => Just("SEK")];
    (game, amount(), currency, funds, any::<bool>(), 0..3_000_i64, select(&PLACES[..]), claims).prop_map(
        |(game, amount, currency, funds, opt_in, after, place, claims)| Draft {
            game,
            amount,
            currency,
            funds,
            opt_in,
            after,
            place,
            claims,
        },
    )
}

/// A batch before its names are symbols: refused whole, or wagers of which some are refused already.
type BatchDraft = (&'static str, Option<Vec<Option<Draft>>>);

fn frame() -> impl Strategy<Value = Frame<Geofenced>> {
    let wagers = vec(option::weighted(0.9, draft()), 1..10);
    let batch = (select(&OPERATORS[..]), option::weighted(0.9, wagers));
    vec(batch, 0..6).prop_map(|batches: Vec<BatchDraft>| {
        let mut symbols = Symbols::default();
        let batches = (1..)
            .zip(batches)
            .map(|(sequence, (operator, wagers))| Batch {
                operator: symbols.intern(operator),
                source: symbols.intern("eu1"),
                position: sequence,
                recorded_at: NOW.plus(5_000),
                verdict: match wagers {
                    None => Verdict::Refused(RefusedBatch {
                        batch: format!("@{sequence}").into(),
                        reason: Reason::Malformed,
                        detail: "no JSON".into(),
                        conflict: false,
                    }),
                    Some(drafts) => accepted(sequence, drafts, &mut symbols),
                },
            })
            .collect();
        Frame { header: header(), body: Geofenced { symbols, batches } }
    })
}

fn accepted(sequence: u64, drafts: Vec<Option<Draft>>, symbols: &mut Symbols) -> Verdict<geofenced::Wager> {
    let (mut wagers, mut refusals) = (Vec::new(), Vec::new());
    for (index, draft) in (0..).zip(drafts) {
        let Some(draft) = draft else {
            let (stage, reason) = (StageName::Geofence, Reason::LocationMissing);
            refusals.push(Refusal { index, hit: None, stage, reason, detail: "none".into() });
            continue;
        };
        let claim = |claim: &Option<(String, &str)>, symbols: &mut Symbols| match claim {
            None => HitClaim::Unreadable,
            Some((pool, level)) => {
                HitClaim::Level { pool: symbols.intern(pool), level: symbols.intern(level) }
            }
        };
        let claims: Vec<_> = draft.claims.iter().map(|entry| claim(entry, symbols)).collect();
        let hits = (!claims.is_empty()).then(|| Box::new(Hits { round: "r".into(), claims }));
        wagers.push(geofenced::Wager {
            index,
            game: symbols.intern(draft.game),
            amount: draft.amount,
            currency: symbols.intern(draft.currency),
            funds: draft.funds,
            opt_in: draft.opt_in,
            occurred_at: NOW.plus(draft.after),
            jurisdiction: symbols.intern(draft.place),
            hits,
        });
    }
    Verdict::Accepted(Accepted { sequence, wagers, refusals, gaps: vec![] })
}

fn header() -> Header {
    Header {
        partition: 0,
        sequence: 1,
        rules: rules::FIRST,
        terms: 1,
        watermark: Some(NOW),
        recorded_at: NOW.plus(5_000),
        ingress: Ingress { position: 40, count: 40, chain: Digest::ZERO },
        input: Digest::ZERO,
        previous: Digest::ZERO,
    }
}

fn allocate(terms: &Terms, frame: Frame<Geofenced>) -> Allocated {
    let mut stage = Allocate::default();
    stage.learn(terms);
    stage.process(frame).expect("the generator makes sound frames")
}

fn audit(terms: &Terms, body: Allocations) -> Result<Entry, Contradiction> {
    let mut stage = Audit::default();
    stage.learn(terms);
    stage.process(Frame { header: header(), body })
}

fn accepted_of<W>(batches: &[Batch<W>]) -> impl Iterator<Item = (&Batch<W>, &Accepted<W>)> {
    batches.iter().filter_map(|batch| match &batch.verdict {
        Verdict::Accepted(accepted) => Some((batch, accepted)),
        Verdict::Refused(_) => None,
    })
}

/// What of a pool was posted, or allocated, up to some point: how many wagers, and how much.
type Running = BTreeMap<String, (u32, u128)>;
/// A hit with what its pool had got before it.
type HitAt = (String, String, String, Option<(u32, u128)>);
/// Sums by pool, second, operator, jurisdiction and game.
type Shares = BTreeMap<(String, i64, String, String, String), (u32, u128)>;

fn add<K: Ord>(sums: &mut BTreeMap<K, (u32, u128)>, key: K, wagers: u32, eligible: Micro) {
    let sum = sums.entry(key).or_default();
    sum.0 += wagers;
    sum.1 += eligible.0;
}

/// Totals by pool, shares, and hits, from the contributions.
fn told(contributions: &Contributions) -> (Running, Shares, Vec<HitAt>) {
    let name = |symbol: Symbol| contributions.symbols.name(symbol).to_owned();
    let (mut running, mut shares, mut hits) = (Running::new(), Shares::new(), Vec::new());
    for posting in &contributions.postings {
        match posting {
            Posting::Sum(sum) => {
                let pool = name(contributions.pools[usize::from(sum.pool)].pool);
                let key =
                    (pool.clone(), sum.second, name(sum.operator), name(sum.jurisdiction), name(sum.game));
                add(&mut shares, key, sum.wagers, sum.eligible);
                add(&mut running, pool, sum.wagers, sum.eligible);
            }
            Posting::Hit(hit) => {
                let listed = &contributions.pools[usize::from(hit.pool)];
                assert!(listed.levels.contains(&hit.level), "a hit is of a level that is listed");
                let pool = name(listed.pool);
                let wager = format!("{}/{}/{}", name(hit.source), hit.sequence, hit.index);
                let before = running.get(&pool).copied();
                hits.push((wager, pool, name(hit.level), before));
            }
        }
    }
    (running, shares, hits)
}

/// The same from the allocations.
fn allocated(allocations: &Allocations) -> (Running, Shares, Vec<HitAt>) {
    let name = |symbol: Symbol| allocations.symbols.name(symbol).to_owned();
    let (mut running, mut shares, mut hits) = (Running::new(), Shares::new(), Vec::new());
    for (batch, accepted) in accepted_of(&allocations.batches) {
        for Allocation { wager, participations } in &accepted.wagers {
            for Participation { pool, eligible, .. } in participations {
                let key = (
                    name(*pool),
                    wager.occurred_at.second(),
                    name(batch.operator),
                    name(wager.jurisdiction),
                    name(wager.game),
                );
                add(&mut shares, key, 1, *eligible);
                add(&mut running, name(*pool), 1, *eligible);
            }
            let claims = wager.hits.as_ref().map_or(&[][..], |hits| &hits.claims);
            for (number, claim) in (0_u8..).zip(claims) {
                let refused = accepted
                    .refusals
                    .iter()
                    .any(|refusal| (refusal.index, refusal.hit) == (wager.index, Some(number)));
                match claim {
                    HitClaim::Level { pool, level } if !refused => {
                        let id = format!("{}/{}/{}", name(batch.source), accepted.sequence, wager.index);
                        let before = running.get(&name(*pool)).copied();
                        hits.push((id, name(*pool), name(*level), before));
                    }
                    _ => assert!(refused, "what is no level is refused"),
                }
            }
        }
    }
    (running, shares, hits)
}

/// One change to one field.
#[derive(Debug, Clone, Copy)]
enum Change {
    More,
    Less,
    OtherRate,
    OtherPool,
    MissingPool,
    SecondPool,
    OtherOrder,
    OtherIndex,
    HitRefused,
    HitNotRefused,
    OtherHitRefused,
    RefusalOfOther,
}

const CHANGES: [Change; 12] = [
    Change::More,
    Change::Less,
    Change::OtherRate,
    Change::OtherPool,
    Change::MissingPool,
    Change::SecondPool,
    Change::OtherOrder,
    Change::OtherIndex,
    Change::HitRefused,
    Change::HitNotRefused,
    Change::OtherHitRefused,
    Change::RefusalOfOther,
];

/// Makes the change somewhere in the frame; says whether there was a place for it.
fn change(allocations: &mut Allocations, change: Change, at: Index) -> bool {
    let symbols = &mut allocations.symbols;
    let mut batches: Vec<_> = allocations
        .batches
        .iter_mut()
        .filter_map(|batch| match &mut batch.verdict {
            Verdict::Accepted(accepted) => Some(accepted),
            Verdict::Refused(_) => None,
        })
        .collect();
    if batches.is_empty() {
        return false;
    }
    let number = at.index(batches.len());
    let Accepted { wagers, refusals, .. } = &mut *batches[number];
    if let Change::HitNotRefused | Change::OtherHitRefused | Change::RefusalOfOther = change {
        return change_refusal(refusals, change, at);
    }
    if wagers.is_empty() {
        return false;
    }
    let number = at.index(wagers.len());
    let Allocation { wager, participations } = &mut wagers[number];
    match change {
        Change::OtherIndex => wager.index += 1,
        Change::HitRefused => {
            let claims = wager.hits.as_ref().map_or(0, |hits| hits.claims.len());
            let stands = (0..u8::try_from(claims).expect("a few")).find(|&hit| {
                !refusals.iter().any(|refusal| (refusal.index, refusal.hit) == (wager.index, Some(hit)))
            });
            let Some(hit) = stands else { return false };
            let (stage, reason) = (StageName::Allocate, Reason::HitRefused);
            let detail = "no".into();
            refusals.push(Refusal { index: wager.index, hit: Some(hit), stage, reason, detail });
            refusals.sort_by_key(|refusal| (refusal.index, refusal.hit));
        }
        _ => return change_participation(symbols, participations, change, at),
    }
    true
}

fn change_refusal(refusals: &mut Vec<Refusal>, change: Change, at: Index) -> bool {
    let hits: Vec<_> = (0..refusals.len()).filter(|&number| refusals[number].hit.is_some()).collect();
    match change {
        Change::RefusalOfOther if !refusals.is_empty() => {
            let number = at.index(refusals.len());
            refusals[number].index += 1;
        }
        Change::HitNotRefused if !hits.is_empty() => drop(refusals.remove(hits[at.index(hits.len())])),
        Change::OtherHitRefused if !hits.is_empty() => {
            let refusal = &mut refusals[hits[at.index(hits.len())]];
            refusal.hit = refusal.hit.map(|hit| hit + 1);
        }
        _ => return false,
    }
    true
}

fn change_participation(
    symbols: &mut Symbols,
    participations: &mut Vec<Participation>,
    change: Change,
    at: Index,
) -> bool {
    if participations.is_empty() {
        return false;
    }
    let number = at.index(participations.len());
    let participation = &mut participations[number];
    match change {
        Change::More => participation.eligible.0 += 1,
        Change::Less if participation.eligible.0 > 0 => participation.eligible.0 -= 1,
        Change::OtherRate => {
            participation.rate = match participation.rate {
                None => Some(Rate::ONE),
                Some(Rate::MAX) => None,
                Some(Rate(rate)) => Some(Rate(rate + 1)),
            }
        }
        Change::OtherPool => {
            let other = if symbols.name(participation.pool) == "p1" { "p2" } else { "p1" };
            participation.pool = symbols.intern(other);
        }
        Change::MissingPool => drop(participations.remove(number)),
        Change::SecondPool => {
            let twice = participations[number];
            participations.insert(number, twice);
        }
        Change::OtherOrder if number > 0 => participations.swap(number - 1, number),
        _ => return false,
    }
    true
}

proptest! {
    #[test]
    fn the_audit_accepts_what_allocate_writes(terms in terms(), frame in frame()) {
        let judged: usize =
            accepted_of(&frame.body.batches).map(|(_, batch)| batch.wagers.len() + batch.refusals.len()).sum();
        let whole = frame.body.batches.len() - accepted_of(&frame.body.batches).count();
        let allocated = allocate(&terms, frame);
        let entry = audit(&terms, allocated.allocations);
        let entry = entry.map_err(|contradiction| TestCaseError::fail(contradiction.to_string()))?;
        prop_assert_eq!(entry.audited.leaves.len(), judged + whole, "one leaf for each wager and refused batch");
    }

    #[test]
    fn the_audit_finds_every_change(
        terms in terms(),
        frame in frame(),
        changes in vec((select(&CHANGES[..]), any::<Index>()), 12),
    ) {
        let allocations = allocate(&terms, frame).allocations;
        for (kind, at) in changes {
            let mut changed = allocations.clone();
            if change(&mut changed, kind, at) {
                prop_assert!(audit(&terms, changed).is_err(), "{:?} went unnoticed", kind);
            }
        }
    }

    #[test]
    fn the_ledger_is_told_what_the_allocations_say(terms in terms(), frame in frame()) {
        let Allocated { allocations, contributions, .. } = allocate(&terms, frame);
        prop_assert_eq!(told(&contributions), allocated(&allocations));
        let wagers: usize = accepted_of(&allocations.batches).map(|(_, batch)| batch.wagers.len()).sum();
        prop_assert_eq!(usize::try_from(contributions.wagers), Ok(wagers));
    }

    #[test]
    fn the_same_frame_gives_the_same_bytes(terms in terms(), frame in frame()) {
        let read = Frame::<Geofenced>::decode(&frame.encode()).expect("what was written");
        let headers = [header(), header()];
        let messages = allocate(&terms, frame).encode(&headers);
        prop_assert_eq!(&allocate(&terms, read).encode(&headers), &messages);
        let read = Frame::<Allocations>::decode(&messages[0]).expect("what was written");
        let [once, again] = [read.body.clone(), read.body].map(|body| audit(&terms, body));
        prop_assert_eq!(once, again);
    }
}
