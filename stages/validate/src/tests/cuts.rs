//! However an ingress is cut into frames, the outcome is the same; and the state is a fold of the frames.

use jackpot_core::limits;
use jackpot_core::snapshot::Saved;
use proptest::prelude::*;

use super::*;

/// Few enough that a run reaches it. A frame of a run must hold no more wagers.
const SESSIONS_MAX: usize = 6;
const HOUR_MS: i64 = 3_600_000;

/// One message of a random ingress.
#[derive(Debug, Clone)]
enum Step {
    Batch { source: &'static str, step: i64, wagers: Vec<(u8, u64)>, pad: bool },
    Garbage,
    Foreign,
    Marker { revision: u64 },
}

fn step() -> impl Strategy<Value = (Step, i64)> {
    let distance =
        prop_oneof![6 => Just(1_i64), 3 => -3_i64..4, 1 => -1_100_i64..1_100, 1 => Just(1_000_001_i64)];
    let wagers = proptest::collection::vec((0_u8..12, 0_u64..5), 1..3);
    let source = prop_oneof![5 => Just("eu1"), 1 => Just("eu2"), 1 => Just("eu3"), 1 => Just("signed")];
    let step = prop_oneof![
        12 => (source, distance, wagers, any::<bool>())
            .prop_map(|(source, step, wagers, pad)| Step::Batch { source, step, wagers, pad }),
        1 => Just(Step::Garbage),
        1 => Just(Step::Foreign),
        1 => (0_u64..6).prop_map(|revision| Step::Marker { revision }),
    ];
    let passed = prop_oneof![8 => 0_i64..2_000, 1 => -20 * HOUR_MS..0, 2 => 0_i64..5 * HOUR_MS, 1 => Just(13 * HOUR_MS)];
    (step, passed)
}

/// Revision 2 restarts `eu1`, 3 says nothing of it, 4 says the same again, 5 restarts it elsewhere.
fn revisions() -> Vec<Terms> {
    let starts = [None, Some(1_000), None, Some(1_000), Some(50)];
    (1..).zip(starts).map(|(revision, start)| terms(revision, [start, None])).collect()
}

fn ingress(steps: &[(Step, i64)]) -> Vec<Entry> {
    let mut at = RECORDED_AT;
    let mut highest = 1_000_i64;
    let mut entries = vec![marker(1, at, 1)];
    for (position, (step, passed)) in (2..).step_by(3).zip(steps) {
        at = at.plus(*passed);
        entries.push(match step {
            Step::Batch { source, step, wagers, pad } => {
                let sequence = (highest + step).max(1);
                highest = if *step < 1_000 { highest.max(sequence) } else { highest };
                let wagers: Vec<_> = wagers
                    .iter()
                    .map(|(session, interaction)| {
                        wager(&format!("s{session}"), *interaction)
                            .replace("EUR", if *pad { "GBP" } else { "EUR" })
                    })
                    .collect();
                let body = batch(source, sequence.unsigned_abs(), &wagers);
                let entry = message(position, &format!("lane.0.acme.{source}"), at, body);
                // Whether it is signed matters to one source alone.
                if *pad { entry } else { signed(entry, "k2", source, sequence.unsigned_abs()) }
            }
            Step::Garbage => message(position, "lane.0.acme.eu1", at, "{"),
            Step::Foreign => message(position, "lane.0.terms", at, "{"),
            Step::Marker { revision } => marker(position, at, *revision),
        });
    }
    entries
}

fn fresh() -> State {
    State::with_sessions_max(0, SESSIONS_MAX)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_cut_gives_the_same_outcomes(
        steps in proptest::collection::vec(step(), 1..60),
        cuts in proptest::collection::vec(1_usize..=3, 60),
    ) {
        let ingress = ingress(&steps);
        let (mut one_by_one, mut state) = (fresh(), fresh());
        let singles = run(&mut one_by_one, &revisions(), &ingress, &[1; 120]);
        let frames = run(&mut state, &revisions(), &ingress, &cuts);
        prop_assert_eq!(outcomes(&frames), outcomes(&singles));
        prop_assert_eq!(state.memory(), one_by_one.memory());
        if let (Some(frame), Some(single)) = (frames.last(), singles.last()) {
            prop_assert_eq!(frame.header.ingress, single.header.ingress);
            prop_assert_eq!(frame.header.watermark, single.header.watermark);
            prop_assert_eq!(frame.header.recorded_at, single.header.recorded_at);
        }
        prop_assert_eq!(&replay(fresh(), &revisions(), &frames), &state, "the state is a fold of the frames");
    }

    #[test]
    fn a_restart_at_any_frame_changes_nothing(
        steps in proptest::collection::vec(step(), 1..40),
        cuts in proptest::collection::vec(1_usize..=3, 40),
        stop in any::<prop::sample::Index>(),
    ) {
        let ingress = ingress(&steps);
        let mut state = fresh();
        let frames = run(&mut state, &revisions(), &ingress, &cuts);
        let kept = stop.index(frames.len() + 1);
        let mut resumed = replay(fresh(), &revisions(), &frames[..kept]);
        let content: Vec<u8> = resumed.freeze().flatten().collect();
        let thawed = fresh().thaw(Saved(&content)).expect("it is whole");
        prop_assert_eq!(&thawed, &resumed, "a snapshot is the whole state");
        prop_assert!(fresh().thaw(Saved(&content[..content.len() - 1])).is_err(), "a part is no state");
        resumed = thawed;
        let from = resumed.tail().ingress.position;
        let rest: Vec<_> = ingress.iter().filter(|entry| entry.sequence > from).cloned().collect();
        let again = run(&mut resumed, &revisions(), &rest, cuts.get(kept..).unwrap_or_default());
        prop_assert_eq!(&again[..], &frames[kept..], "byte for byte the same frames");
        prop_assert_eq!(resumed, state);
    }
}

#[test]
fn a_frame_is_cut_by_each_of_its_limits() {
    let check = |bodies: Vec<String>, expect: usize, why: &str| {
        let ingress: Vec<_> = [marker(1, RECORDED_AT, 1)]
            .into_iter()
            .chain((2..).zip(bodies).map(|(at, body)| message(at, "lane.0.acme.eu1", RECORDED_AT, body)))
            .collect();
        let frames = run(&mut State::new(0), &[terms(1, [None; 2])], &ingress, &[]);
        assert_eq!(frames[0].body.batches.len(), expect, "{why}");
        assert_eq!(outcomes(&frames).len(), ingress.len() - 1, "nothing is left out");
    };
    let plain = |i| wager("s", i).replace(r#"{"pool":"mega","level":"grand"}"#, "");
    let batches = |count: u64, size: u64, wager: &dyn Fn(u64) -> String| -> Vec<String> {
        (0..count)
            .map(|n| batch("eu1", n + 1, &(1..=size).map(|i| wager(n * size + i)).collect::<Vec<_>>()))
            .collect()
    };
    check(batches(4, 500, &plain), 2, "1,024 wagers");
    check(batches(6, 60, &|i| wager("s", i)), 4, "256 hits");
    check(vec!["{".into(); 1_100], limits::FRAME_BATCHES_MAX, "1,024 batches");
    let subjects = (2..1_000).map(|at| message(at, &format!("lane.0.acme.{at:01000}"), RECORDED_AT, "{"));
    let ingress: Vec<_> = subjects.collect();
    let frames = run(&mut State::new(0), &[], &ingress, &[]);
    let lens: Vec<_> = frames.iter().map(|frame| frame.encode().len()).collect();
    assert!(lens.len() > 1 && lens[0] > 400_000, "{lens:?}");
    assert!(lens.iter().all(|&len| len <= limits::FRAME_BYTES_MAX), "512 KiB: {lens:?}");
    let long = |i: u64| {
        wager("s", i)
            .replace("r-99812", &"r".repeat(128))
            .replace("[{\"pool\":\"mega\",\"level\":\"grand\"}]", "[]")
    };
    check(batches(2, 500, &long), 2, "what is not carried on does not count");
    let faulty = |_| format!("{{\"session\":\"s\",\"interaction\":\"{}\"}}", "\\u0001".repeat(60));
    check(batches(2, 500, &faulty), 2, "refusals are shorter than what refuses them");
    let name =
        |i: u64| plain(i).replace("quick-spin-7", &format!("{i:064}")).replace("\"MT\"", "\"MT\",\"x\":0");
    check(batches(3, 341, &name), 3, "1,023 names");
}

#[test]
fn a_frame_stays_below_what_it_was_weighed_at() {
    let hits: Vec<_> = (0..16).map(|i| format!("{{\"pool\":\"{i:064}\",\"level\":\"{i:063}l\"}}")).collect();
    let heavy = |i: u64| {
        wager("s", i)
            .replace("r-99812", &"r".repeat(128))
            .replace("2.50", "999999999.999999")
            .replace("quick-spin-7", &format!("{i:064}"))
            .replace("\"MT\"", "\"US-NV\",\"latitude\":-89.999,\"longitude\":-179.9,\"accuracy_m\":1234567.8")
            .replace("2026-06-08T20:15:30", "0000-01-01T00:00:00")
            .replace("2026-06-08T20:01:00", "0000-01-01T00:00:00")
            .replace(
                r#"{"pool":"mega","level":"grand"}"#,
                &if i <= 4 { hits.join(",") } else { String::new() },
            )
    };
    let wagers: Vec<_> =
        (1..=150).map(heavy).chain((1..=150).map(|i| heavy(9 + i).replace("\"EUR\"", "1"))).collect();
    let body = batch("eu1", i64::MAX.unsigned_abs(), &wagers);
    assert!(body.len() <= limits::BATCH_BYTES_MAX);
    let entry = message(2, "lane.0.acme.eu1", RECORDED_AT, body);
    let crate::batch::Content::Batch(Ok(envelope)) = parse(&entry).content else { panic!("it is a batch") };
    let bound = envelope.weight + 200;
    let ingress = [marker(1, RECORDED_AT, 1), entry];
    let frames = run(&mut State::new(0), &[terms(1, [None; 2])], &ingress, &[]);
    let len = frames[0].encode().len();
    assert!(len <= bound && len > bound / 3, "{len} of {bound}");
}

#[test]
fn a_jump_is_one_gap_and_a_restart_forgets() {
    let revisions = revisions();
    let mut state = State::new(0);
    let sent = |at: u64, sequence: u64| {
        message(at, "lane.0.acme.eu1", RECORDED_AT, batch("eu1", sequence, &[wager("s", at)]))
    };
    let ingress = [
        marker(1, RECORDED_AT, 1),
        sent(2, 7),
        sent(3, 900_000),
        marker(4, RECORDED_AT, 5),
        marker(5, RECORDED_AT, 2),
        sent(6, 49),
        sent(7, 50),
        sent(8, 50),
    ];
    let frames = run(&mut state, &revisions, &ingress, &[]);
    let outcomes = outcomes(&frames);
    assert!(outcomes[1].contains("Gap { from: 8, to: 898975 }"), "{}", outcomes[1]);
    assert!(outcomes[2].contains("sequence 49 lies below 50"), "{}", outcomes[2]);
    assert!(outcomes[3].contains("r5: 50 "), "a lower marker changes nothing: {}", outcomes[3]);
    assert!(outcomes[4].contains("DuplicateBatch"), "{}", outcomes[4]);
    assert_eq!(frames.len(), 2, "the revision ends the frame");
    assert_eq!(frames[1].header.ingress.count, 8, "markers before the first batch are in its frame's count");
}

#[test]
fn logs_that_contradict_the_state_are_noticed() {
    let mut state = State::new(0);
    let revisions = [terms(1, [None; 2])];
    let compiled = CompiledTerms::new(&revisions[0]);
    let sent = |at: u64, sequence: u64| {
        message(at, "lane.0.acme.eu1", RECORDED_AT, batch("eu1", sequence, &[wager("s", at)]))
    };
    let ingress = [marker(1, RECORDED_AT, 1), sent(2, 1), sent(3, 2)];
    let frames = run(&mut state, &revisions, &ingress, &[1, 1]);
    let start = replay(State::new(0), &revisions, &frames[..1]);
    let check = |change: &dyn Fn(&mut Frame<Validated>), expect: &str| {
        let mut frame = frames[1].clone();
        change(&mut frame);
        let told = start.clone().fold(&frame, Digest::ZERO, &compiled).expect_err(expect).to_string();
        assert!(told.contains(expect), "{told}");
    };
    check(&|frame| frame.header.partition = 1, "another partition");
    check(&|frame| frame.header.sequence = 3, "not the next one");
    check(&|frame| frame.header.previous = Digest::ZERO, "does not follow");
    check(&|frame| frame.header.watermark = None, "goes back");
    check(&|frame| frame.header.ingress.position = 2, "reads nothing");
    check(&|frame| frame.body.contents.clear(), "its content is not recorded");
    check(&|frame| frame.body.contents.push([0; 16]), "more contents");
    let twice = |frame: &mut Frame<Validated>| {
        frame.body.batches.push(frame.body.batches[0].clone());
        frame.body.contents.push([0; 16]);
    };
    check(&twice, "cannot have been accepted");
}
