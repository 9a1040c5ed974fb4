//! One `check`: a frame that allocate would write, changed in one place, and what the audit finds; and what an
//! entry holds of a frame in which nothing is wrong.

use jackpot_core::digest::Digest;
use jackpot_core::frame::Ingress;
use jackpot_core::frame::allocations::Participation;
use jackpot_core::frame::batch::{Funds, Gap, HitClaim, Hits};
use jackpot_core::frame::geofenced;
use jackpot_core::merkle;
use jackpot_core::money::{Micro, Rate};
use jackpot_core::rules;
use jackpot_core::time::Millis;

use super::*;

const TERMS: &str = r#"{"schema": "terms/1", "revision": 3,
    "jurisdictions": [{"code": "MT", "status": "permitted"}, {"code": "SE", "status": "permitted"},
        {"code": "US", "status": "permitted"}, {"code": "US-UT", "status": "blocked"},
        {"code": "CA", "status": "permitted"}],
    "operators": [{"operator": "acme", "jurisdictions": ["MT", "US", "CA", "CA-ON"]}],
    "games": [{"game": "spin", "supplier": "x"}],
    "exchange_rates": [{"from": "EUR", "to": "GBP", "rate": "0.5"}],
    "pools": [
        {"pool": "mega", "currency": "EUR", "jurisdictions": ["MT", "US"], "max_wager": "100",
         "levels": [{"level": "grand", "base": "500", "increment_ppm": 3000},
                    {"level": "minor", "base": "1", "increment_ppm": 5000}]},
        {"pool": "sterling", "currency": "GBP", "jurisdictions": ["MT"],
         "levels": [{"level": "grand", "base": "5", "increment_ppm": 1}]},
        {"pool": "willing", "currency": "EUR", "jurisdictions": ["MT"], "requires_opt_in": true,
         "levels": [{"level": "grand", "base": "5", "increment_ppm": 1}]}]}"#;

const NOW: Millis = Millis(1_780_949_730_123);

fn header() -> Header {
    Header {
        partition: 1,
        sequence: 9,
        rules: rules::FIRST,
        terms: 3,
        watermark: None,
        recorded_at: NOW.plus(50),
        ingress: Ingress { position: 40, count: 12, chain: Digest::ZERO },
        input: Digest::ZERO,
        previous: Digest::ZERO,
    }
}

fn refusal(index: u16, hit: Option<u8>, stage: StageName, reason: Reason) -> Refusal {
    Refusal { index, hit, stage, reason, detail: "so it is".into() }
}

/// The symbols that [`sound`] and the changes to it use.
struct Words {
    symbols: Symbols,
    mega: Symbol,
    sterling: Symbol,
    willing: Symbol,
    grand: Symbol,
}

impl Words {
    fn new() -> Self {
        let mut symbols = Symbols::default();
        let [mega, sterling, willing, grand] =
            ["mega", "sterling", "willing", "grand"].map(|name| symbols.intern(name));
        Self { symbols, mega, sterling, willing, grand }
    }
}

/// A batch of three wagers: 0 won a level and claims two more things, 1 was refused, 2 is plain.
fn sound(words: &mut Words) -> Accepted<Allocation> {
    let (mega, sterling, grand) = (words.mega, words.sterling, words.grand);
    let wager = geofenced::Wager {
        index: 0,
        game: words.symbols.intern("spin"),
        amount: Micro(120_000_000),
        currency: words.symbols.intern("EUR"),
        funds: Funds::Cash,
        opt_in: false,
        occurred_at: NOW,
        jurisdiction: words.symbols.intern("MT"),
        hits: None,
    };
    let participations = vec![
        Participation { pool: mega, eligible: Micro(100_000_000), rate: None },
        Participation { pool: sterling, eligible: Micro(60_000_000), rate: Some(Rate(500_000_000)) },
    ];
    let claims = vec![
        HitClaim::Level { pool: mega, level: grand },
        HitClaim::Unreadable,
        HitClaim::Level { pool: mega, level: grand },
    ];
    let winner =
        geofenced::Wager { hits: Some(Box::new(Hits { round: "r-1".into(), claims })), ..wager.clone() };
    Accepted {
        sequence: 7,
        wagers: vec![
            Allocation { wager: winner, participations: participations.clone() },
            Allocation { wager: geofenced::Wager { index: 2, ..wager }, participations },
        ],
        refusals: vec![
            refusal(0, Some(1), StageName::Allocate, Reason::HitRefused),
            refusal(0, Some(2), StageName::Allocate, Reason::HitRefused),
            refusal(1, None, StageName::Geofence, Reason::LocationStale),
        ],
        gaps: vec![Gap { from: 4, to: 6 }],
    }
}

fn batch(symbols: &mut Symbols, verdict: Verdict<Allocation>) -> Batch<Allocation> {
    Batch {
        operator: symbols.intern("acme"),
        source: symbols.intern("eu1"),
        position: 40,
        recorded_at: NOW.plus(50),
        verdict,
    }
}

fn refused(reason: Reason) -> RefusedBatch {
    RefusedBatch { batch: "eu1/7".into(), reason, detail: "so it is".into(), conflict: true }
}

fn stage() -> Audit {
    let mut stage = Audit::default();
    stage.learn(&Terms::parse(TERMS.as_bytes()).expect("the tests' terms"));
    stage
}

fn audit(symbols: Symbols, batches: Vec<Batch<Allocation>>) -> Result<Entry, Contradiction> {
    stage().process(Frame { header: header(), body: Allocations { symbols, batches } })
}

/// What the audit finds in [`sound`] after a change: a clause, or nothing.
fn check(change: impl FnOnce(&mut Words, &mut Accepted<Allocation>), expect: Option<&str>) {
    let mut words = Words::new();
    let mut accepted = sound(&mut words);
    change(&mut words, &mut accepted);
    let batch = batch(&mut words.symbols, Verdict::Accepted(accepted));
    let found = audit(words.symbols, vec![batch]).err().map(|contradiction| contradiction.to_string());
    let expect = expect.map(|finding| {
        format!(
            "frame 9 of allocations-1 is not what the terms of revision 3 give: {finding}; keep all streams as \
             they are, and find out whether allocate or audit reads the terms wrongly"
        )
    });
    assert_eq!(found, expect);
}

#[test]
fn what_is_right_passes() {
    check(|_, _| {}, None);
}

#[test]
fn participations_must_be_those_of_the_terms() {
    check(
        |_, batch| batch.wagers[1].participations[0].eligible = Micro(120_000_000),
        Some(
            "the wager eu1/7/2 takes part in `mega` with 100 by the terms, and in `mega` with 120 as it is written",
        ),
    );
    check(
        |_, batch| batch.wagers[1].participations[1].rate = None,
        Some(
            "the wager eu1/7/2 takes part in `sterling` with 60 at 0.5 by the terms, and in `sterling` with 60 as it \
             is written",
        ),
    );
    check(
        |words, batch| batch.wagers[1].participations[0].pool = words.willing,
        Some(
            "the wager eu1/7/2 takes part in `mega` with 100 by the terms, and in `willing` with 100 as it is written",
        ),
    );
    check(
        |_, batch| batch.wagers[1].participations.swap(0, 1),
        Some(
            "the wager eu1/7/2 takes part in `mega` with 100 by the terms, and in `sterling` with 60 at 0.5 as it is \
             written",
        ),
    );
    check(
        |_, batch| batch.wagers[1].participations.truncate(1),
        Some(
            "the wager eu1/7/2 takes part in `sterling` with 60 at 0.5 by the terms, and in nothing more as it is \
             written",
        ),
    );
    check(
        |words, batch| {
            let extra = Participation { pool: words.willing, eligible: Micro(120_000_000), rate: None };
            batch.wagers[1].participations.push(extra);
        },
        Some(
            "the wager eu1/7/2 takes part in 2 pools by the terms, and in `willing` with 120 beyond them as it is \
             written",
        ),
    );
    check(
        |_, batch| batch.wagers[1].wager.opt_in = true,
        Some(
            "the wager eu1/7/2 takes part in `willing` with 120 by the terms, and in nothing more as it is written",
        ),
    );
    check(
        |_, batch| batch.wagers[1].wager.amount = Micro(1_000_000_000_000_001),
        Some("the wager eu1/7/2 is of 1000000000.000001, more than a wager may be"),
    );
}

#[test]
fn a_wager_that_should_have_been_refused_is_found() {
    check(
        |words, batch| batch.wagers[1].wager.game = words.symbols.intern("dice"),
        Some("the wager eu1/7/2 is of the game `dice`, which the terms do not know"),
    );
    for (code, finding) in [
        ("US-UT", "is from US-UT, which is blocked"),
        ("FR-75", "is from FR-75, which has no rule"),
        ("SE", "is from SE, which the list of its operator acme does not hold"),
        ("US", "is placed in US alone, of which the terms name a subdivision"),
        ("CA", "is placed in CA alone, of which the terms name a subdivision"),
    ] {
        check(
            |words, batch| batch.wagers[1].wager.jurisdiction = words.symbols.intern(code),
            Some(&format!("the wager eu1/7/2 {finding}")),
        );
    }
    check(
        |words, batch| {
            batch.wagers[1].wager.jurisdiction = words.symbols.intern("US-TX");
            batch.wagers[1].participations.truncate(1);
        },
        None,
    );
}

#[test]
fn hits_must_be_refused_when_and_only_when_the_contract_says_so() {
    let name = "the wager eu1/7/0 has";
    check(
        |_, batch| drop(batch.refusals.remove(0)),
        Some(&format!("{name} hits[1], to be refused by the terms and a hit as it is written")),
    );
    check(
        |_, batch| drop(batch.refusals.remove(1)),
        Some(&format!("{name} hits[2], to be refused by the terms and a hit as it is written")),
    );
    check(
        |_, batch| {
            batch.refusals.insert(0, refusal(0, Some(0), StageName::Allocate, Reason::HitRefused));
        },
        Some(&format!("{name} hits[0], a hit by the terms and refused as it is written")),
    );
    check(|_, batch| batch.refusals[1].hit = Some(1), Some(&format!("{name} hits[1] refused twice")));
    check(
        |_, batch| batch.refusals[1].hit = Some(3),
        Some(&format!("{name} hits[3] refused, which it does not have")),
    );
    check(
        |_, batch| batch.refusals.swap(0, 1),
        Some(&format!("{name} its refused hits in another order than its hits")),
    );
    check(
        |_, batch| batch.refusals[0].reason = Reason::UnknownGame,
        Some(&format!("{name} a hit refused by allocate as unknown_game")),
    );
    for (pool, level) in [("willing", "grand"), ("mega", "huge"), ("other", "grand")] {
        check(
            |words, batch| {
                let claim =
                    HitClaim::Level { pool: words.symbols.intern(pool), level: words.symbols.intern(level) };
                batch.wagers[0].wager.hits.as_mut().expect("it has hits").claims[0] = claim;
                // What was named twice is so no more.
                batch.refusals.remove(1);
            },
            Some(&format!("{name} hits[0], to be refused by the terms and a hit as it is written")),
        );
    }
}

#[test]
fn every_index_has_one_outcome() {
    let disorder = "the batch eu1/7 is in disorder, since";
    check(
        |_, batch| drop(batch.refusals.pop()),
        Some(&format!("{disorder} no outcome stands where that of the wager 1 should")),
    );
    check(
        |_, batch| drop(batch.wagers.remove(0)),
        Some(&format!("{disorder} no outcome stands where that of the wager 0 should")),
    );
    check(
        |_, batch| batch.refusals.push(refusal(2, None, StageName::Validate, Reason::InvalidField)),
        Some(&format!("{disorder} the wager 2 has more than one outcome")),
    );
    check(
        |_, batch| batch.refusals.push(refusal(1, None, StageName::Validate, Reason::InvalidField)),
        Some(&format!("{disorder} the wager 1 has more than one outcome")),
    );
    check(
        |_, batch| batch.wagers.swap(0, 1),
        Some(&format!("{disorder} no outcome stands where that of the wager 0 should")),
    );
    check(
        |_, batch| batch.refusals.push(refusal(4, None, StageName::Validate, Reason::InvalidField)),
        Some(&format!("{disorder} no outcome stands where that of the wager 3 should")),
    );
    check(
        |_, batch| {
            batch.wagers.clear();
            batch.refusals.clear();
        },
        Some(&format!("{disorder} no wager of it is allocated or refused")),
    );
    check(
        |_, batch| batch.refusals[2].stage = StageName::Validate,
        Some("the wager eu1/7/1 is refused by validate as location_stale"),
    );
    check(
        |_, batch| batch.refusals[2].reason = Reason::HitRefused,
        Some("the wager eu1/7/1 is refused by geofence as hit_refused"),
    );
}

#[test]
fn a_batch_is_refused_whole_for_reasons_of_batches_alone() {
    for &reason in Reason::ALL {
        let mut symbols = Symbols::default();
        let batch = batch(&mut symbols, Verdict::Refused(refused(reason)));
        assert_eq!(audit(symbols, vec![batch]).is_ok(), reason <= Reason::SequenceJump, "{reason}");
    }
}

/// A refused batch, then [`sound`].
fn sound_frame() -> Allocations {
    let mut words = Words::new();
    let accepted = sound(&mut words);
    let batches = vec![
        batch(&mut words.symbols, Verdict::Refused(refused(Reason::DuplicateBatch))),
        batch(&mut words.symbols, Verdict::Accepted(accepted)),
    ];
    Allocations { symbols: words.symbols, batches }
}

#[test]
fn an_entry_holds_leaves_frontier_and_incidents() {
    let entry =
        stage().process(Frame { header: header(), body: sound_frame() }).expect("nothing contradicts");
    assert_eq!(entry.tally(), Tally { wagers_in: 2, ..Tally::default() });
    let audited = entry.audited;
    assert_eq!((audited.leaves.len(), audited.tree_size, audited.frontier.len()), (4, 4, 1));
    let mut expect = Frontier::default();
    audited.leaves.iter().for_each(|leaf| expect.append(*leaf));
    assert_eq!(audited.frontier, [expect.root()]);
    let (operator, source) = (Symbol(0), Symbol(1));
    assert_eq!(audited.symbols.names().collect::<Vec<_>>(), ["acme", "eu1"]);
    assert_eq!(
        audited.incidents,
        [
            Incident::Conflict { operator, source, position: 40 },
            Incident::Gap { operator, source, gap: Gap { from: 4, to: 6 } }
        ]
    );
}

#[test]
fn every_refusal_is_told_to_the_subject_it_came_on() {
    let entry =
        stage().process(Frame { header: header(), body: sound_frame() }).expect("nothing contradicts");
    let notices: Vec<RefusalNotice> = entry
        .publications()
        .iter()
        .map(|publication| {
            assert_eq!(publication.subject, "refusals.acme.eu1");
            let notice: RefusalNotice = serde_json::from_slice(&publication.payload).expect("a notice");
            assert_eq!(publication.place, Place { frame: notice.frame, number: notice.number });
            notice
        })
        .collect();
    let notice = |number, wager: Option<&str>, batch: Option<&str>, stage, reason| RefusalNotice {
        wager: wager.map(Into::into),
        batch: batch.map(Into::into),
        stage,
        reason,
        detail: "so it is".into(),
        at: NOW.plus(50),
        operator: "acme".into(),
        source: "eu1".into(),
        partition: 1,
        frame: 9,
        number,
    };
    assert_eq!(
        notices,
        [
            notice(0, None, Some("eu1/7"), StageName::Validate, Reason::DuplicateBatch),
            notice(1, Some("eu1/7/0"), None, StageName::Allocate, Reason::HitRefused),
            notice(2, Some("eu1/7/0"), None, StageName::Allocate, Reason::HitRefused),
            notice(3, Some("eu1/7/1"), None, StageName::Geofence, Reason::LocationStale),
        ]
    );
    assert_eq!(
        std::str::from_utf8(&entry.publications()[3].payload).expect("JSON"),
        r#"{"wager":"eu1/7/1","stage":"geofence","reason":"location_stale","detail":"so it is","at":"2026-06-08T20:15:30.173Z","operator":"acme","source":"eu1","partition":1,"frame":9,"number":3}"#
    );
}

#[test]
fn the_tree_goes_on_from_the_last_entry() {
    let frame = |sequence| Frame { header: Header { sequence, ..header() }, body: sound_frame() };
    let mut through = stage();
    let first = through.process(frame(1)).expect("nothing contradicts");
    let second = through.process(frame(2)).expect("nothing contradicts");

    let mut again = stage();
    let message = first.encode(&[Header { sequence: 1, ..header() }]);
    again.restore(Some(&message[0])).expect("an entry");
    assert_eq!(again.process(frame(2)).expect("nothing contradicts"), second);
    again.restore(None).expect("an empty log");
    assert_eq!(again.process(frame(1)).expect("nothing contradicts"), first);

    let cut = again.restore(Some(&message[0][..9])).expect_err("half a message");
    assert!(cut.to_string().contains("cannot be read"), "{cut}");
    let mut false_entry = first;
    false_entry.audited.tree_size += 3;
    let message = false_entry.encode(&[header()]);
    let unfit = again.restore(Some(&message[0])).expect_err("a frontier that fits no tree");
    assert!(unfit.to_string().contains("fits no tree of 7 leaves"), "{unfit}");
}

/// The bytes of `text` with its length before it.
fn text(text: &str) -> Vec<u8> {
    let mut bytes = vec![u8::try_from(text.len()).expect("a short text")];
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// The format, spelled out: what is written today must be readable for ever.
#[test]
fn leaves_are_as_documented() {
    let Allocations { symbols, batches } = sound_frame();
    let origin =
        Origin { operator: "acme", source: "eu1", position: 40, recorded_at: Millis(-2), terms: 300 };
    let mut leaves = Leaves::default();
    let Verdict::Refused(refused) = &batches[0].verdict else { panic!("refused") };
    leaves.refused_batch(origin, refused);
    let Verdict::Accepted(accepted) = &batches[1].verdict else { panic!("accepted") };
    for fate in fates(accepted) {
        leaves.wager(origin, &symbols, accepted.sequence, fate.expect("in order"));
    }
    let bytes = leaves.finish();

    let start = |kind: u8| [vec![1, kind], text("acme"), text("eu1"), vec![40, 3, 0xac, 0x02]].concat();
    let refused_batch =
        [start(2), text("eu1/7"), text("duplicate_batch"), text("so it is"), vec![1]].concat();
    // The milliseconds of NOW, doubled by the zigzag: 3561899460246.
    let now = vec![0x96, 0x8d, 0x82, 0x8e, 0xd5, 0x67];
    let plain = |index: u8| {
        [
            start(0),
            vec![7, index],
            text("spin"),
            vec![0x80, 0x9c, 0x9c, 0x39],
            text("EUR"),
            vec![0],
            now.clone(),
            text("MT"),
            vec![2],
            text("mega"),
            vec![0x80, 0xc2, 0xd7, 0x2f, 0],
            text("sterling"),
            vec![0x80, 0x8e, 0xce, 0x1c, 0x80, 0xca, 0xb5, 0xee, 0x01],
        ]
        .concat()
    };
    let refused_for = |reason| [vec![1], text("allocate"), text(reason), text("so it is")].concat();
    let grand = [vec![1], text("mega"), text("grand")].concat();
    let winner = [
        plain(0),
        vec![3],
        text("r-1"),
        grand.clone(),
        vec![0],
        vec![0],
        refused_for("hit_refused"),
        grand,
        refused_for("hit_refused"),
    ]
    .concat();
    let refused_wager =
        [start(1), vec![7, 1], text("geofence"), text("location_stale"), text("so it is")].concat();
    let expect = [refused_batch, winner, refused_wager, [plain(2), vec![0]].concat()];
    assert_eq!(bytes, expect);

    let mut leaves = Leaves::default();
    leaves.refused_batch(origin, refused);
    assert_eq!(leaves.hashes(), [merkle::leaf_hash(&expect[0])]);
}
