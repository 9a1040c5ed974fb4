//! Sessions that move: what is remembered of them, for how long, and how fast is too fast.

use jackpot_core::snapshot::Saved;
use proptest::prelude::*;

use super::*;

/// Two places on one meridian in Nevada, a degree apart: 111,195.08 m, which take 400.302 s at 1,000 km/h.
const SOUTH: f64 = 38.0;
const NORTH: f64 = 39.0;
const HOUR: i64 = 3_600_000;

/// A wager in a batch of its own.
#[derive(Debug, Clone, Copy)]
struct Visit {
    source: &'static str,
    session: u8,
    /// `None`: claimed without coordinates.
    latitude: Option<f64>,
    /// Claimed beside them.
    claim: Option<&'static str>,
    accuracy_m: f64,
    /// When the location was checked and the wager made, in milliseconds.
    checked: i64,
    /// When the batch was received, in milliseconds.
    received: i64,
}

fn visit(latitude: f64, checked: i64) -> Visit {
    let (latitude, claim) = (Some(latitude), None);
    Visit { source: "eu1", session: 1, latitude, claim, accuracy_m: 0.0, checked, received: 0 }
}

/// The frames of visits, one each.
fn frames(visits: &[Visit]) -> Vec<Frame<Validated>> {
    let frame = |(visit, sequence): (&Visit, u64)| {
        let mut symbols = Symbols::default();
        let (game, currency) = (symbols.intern("spin"), symbols.intern("EUR"));
        let (operator, source) = (symbols.intern("acme"), symbols.intern(visit.source));
        let claim = visit.claim.or(visit.latitude.is_none().then_some("US-NV"));
        let jurisdiction = claim.map(|code| symbols.intern(code));
        let (longitude, accuracy_m) = (-117.0, visit.accuracy_m);
        let point = visit.latitude.map(|latitude| Point { latitude, longitude, accuracy_m });
        let checked_at = NOW.plus(visit.checked);
        let located = Location { jurisdiction, point, checked_at };
        let made = wager(0, game, currency, Some(located));
        let made = Wager { session: [visit.session; 16], occurred_at: checked_at, ..made };
        let verdict =
            Verdict::Accepted(Accepted { sequence, wagers: vec![made], refusals: vec![], gaps: vec![] });
        let batch = Batch { operator, source, position: 40, recorded_at: NOW.plus(visit.received), verdict };
        Frame {
            header: Header { sequence, ..header() },
            body: Validated { symbols, batches: vec![batch], contents: vec![[1; 16]] },
        }
    };
    visits.iter().zip(1..).map(frame).collect()
}

fn stage(sessions_max: usize) -> Geofence {
    let mut stage = Geofence { rules: Rules::default(), memory: Memory::with_sessions_max(sessions_max) };
    stage.learn(&Terms::parse(TERMS.as_bytes()).expect("the tests' terms"));
    stage
}

/// What became of each visit: its place or its reason.
fn fates(visits: &[Visit], sessions_max: usize) -> Vec<String> {
    let mut stage = stage(sessions_max);
    let fate = |frame| {
        let body = stage.process(frame).expect("nothing contradicts").geofenced;
        let accepted = only_accepted(&body);
        match &accepted.wagers[..] {
            [wager] => body.symbols.name(wager.jurisdiction).to_owned(),
            _ => accepted.refusals[0].reason.to_string(),
        }
    };
    frames(visits).into_iter().map(fate).collect()
}

#[track_caller]
fn check(visits: &[Visit], expect: &[&str]) {
    assert_eq!(fates(visits, 1_000), expect);
}

const HERE: &str = "US-NV";
const FAST: &str = "impossible_travel";

#[test]
fn nobody_is_faster_than_1000_km_h() {
    check(&[visit(SOUTH, 0), visit(NORTH, 400_303)], &[HERE, HERE]);
    check(&[visit(SOUTH, 0), visit(NORTH, 400_302)], &[HERE, FAST]);
    // Backwards in time too.
    check(&[visit(SOUTH, 0), visit(NORTH, -400_303)], &[HERE, HERE]);
    check(&[visit(SOUTH, 0), visit(NORTH, -400_302)], &[HERE, FAST]);
    // Less both accuracies: 110,000.08 m are left.
    let rough = |accuracy_m, visit| Visit { accuracy_m, ..visit };
    check(&[rough(1_000.0, visit(SOUTH, 0)), rough(195.0, visit(NORTH, 396_001))], &[HERE, HERE]);
    check(&[rough(1_000.0, visit(SOUTH, 0)), rough(195.0, visit(NORTH, 396_000))], &[HERE, FAST]);
}

#[test]
fn distances_are_those_of_great_circles() {
    let at = |latitude, longitude| Point { latitude, longitude, accuracy_m: 0.0 };
    let metres = |from: Point, to: Point| {
        assert_eq!(geometry::gap_m(&from, &to).to_bits(), geometry::gap_m(&to, &from).to_bits());
        geometry::metres(geometry::gap_m(&from, &to))
    };
    // A quarter and a half of the way around, over the pole, and along a parallel, which is a detour.
    assert_eq!(metres(at(0.0, 0.0), at(0.0, 90.0)), "10007557");
    assert_eq!(metres(at(0.0, -180.0), at(0.0, 0.0)), "20015114");
    assert_eq!(metres(at(80.0, 10.0), at(80.0, -170.0)), "2223902");
    assert_eq!(metres(at(60.0, 0.0), at(60.0, 90.0)), "4604546");
    // Across the antimeridian, and on it: 0.02 degrees, and nothing.
    assert_eq!(metres(at(-16.83, 179.99), at(-16.83, -179.99)), "2129");
    assert_eq!(metres(at(-16.83, 180.0), at(-16.83, -180.0)), "0");
    assert_eq!(metres(at(90.0, 12.0), at(90.0, -77.0)), "0");
}

#[test]
fn no_time_is_infinitely_fast() {
    check(&[visit(SOUTH, 0), visit(SOUTH, 0)], &[HERE, HERE]);
    check(&[visit(SOUTH, 0), visit(SOUTH + 0.000_01, 0)], &[HERE, FAST]);
    // Where the circles meet nobody moved at all.
    let rough = |visit| Visit { accuracy_m: 1.0, ..visit };
    check(&[rough(visit(SOUTH, 0)), rough(visit(SOUTH + 0.000_01, 0))], &[HERE, HERE]);
}

#[test]
fn only_accepted_places_with_coordinates_count() {
    // The refused one does not move the session.
    check(&[visit(SOUTH, 0), visit(NORTH, 1_000), visit(SOUTH, 2_000)], &[HERE, FAST, HERE]);
    // A claim alone is no place to travel from or to.
    let claimed = |checked| Visit { latitude: None, ..visit(SOUTH, checked) };
    check(&[visit(SOUTH, 0), claimed(1_000), visit(NORTH, 2_000)], &[HERE, HERE, FAST]);
    check(&[claimed(0), visit(NORTH, 1_000), visit(SOUTH, 2_000)], &[HERE, HERE, FAST]);
    // Canada is not listed: the session is still where it was.
    let abroad = visit(49.5, 3 * HOUR);
    check(&[visit(SOUTH, 0), abroad, visit(NORTH, 1_000)], &[HERE, "jurisdiction_blocked", FAST]);
}

#[test]
fn a_journey_is_judged_after_its_place_and_before_the_rules_of_that() {
    let claimed = |claim, visit| Visit { claim: Some(claim), ..visit };
    // Canada is not listed, and Malta is elsewhere: the one is told after the journey, the other before it.
    let first = visit(SOUTH, 0);
    check(&[first, visit(49.5, 1_000)], &[HERE, FAST]);
    check(&[first, claimed("MT", visit(NORTH, 1_000))], &[HERE, "location_conflict"]);
    check(&[first, Visit { accuracy_m: 5_000_000.0, ..visit(NORTH, 1_000) }], &[HERE, "location_uncertain"]);
}

#[test]
fn a_session_belongs_to_its_source() {
    let elsewhere = Visit { source: "eu2", ..visit(NORTH, 1_000) };
    let another = Visit { session: 2, ..visit(NORTH, 1_000) };
    check(&[visit(SOUTH, 0), elsewhere, another, visit(NORTH, 1_000)], &[HERE, HERE, HERE, FAST]);
}

#[test]
fn a_session_is_forgotten_after_12_hours_without_a_wager() {
    let at = |hours: i64, visit: Visit| Visit { received: hours * HOUR, ..visit };
    let first = visit(SOUTH, 0);
    check(&[first, at(12, visit(NORTH, 1_000))], &[HERE, FAST]);
    check(&[first, at(13, visit(NORTH, 1_000))], &[HERE, HERE]);
    // Any wager of the session keeps it in mind, one without coordinates and a refused one too.
    let claimed = Visit { latitude: None, ..visit(SOUTH, 0) };
    check(
        &[first, at(11, claimed), at(22, visit(NORTH, 0)), at(33, visit(NORTH, 0))],
        &[HERE, HERE, FAST, FAST],
    );
    // Receive times that go back take nothing back.
    let other = Visit { session: 2, ..visit(SOUTH, 0) };
    check(&[first, at(13, other), at(1, visit(NORTH, 1_000))], &[HERE, HERE, HERE]);
}

#[test]
fn the_longest_idle_session_is_forgotten_first() {
    let of = |session, latitude| Visit { session, ..visit(latitude, 0) };
    let visits = [of(1, SOUTH), of(2, SOUTH), of(1, SOUTH), of(3, SOUTH), of(1, NORTH), of(2, NORTH)];
    assert_eq!(fates(&visits, 2), [HERE, HERE, HERE, HERE, FAST, HERE]);
}

#[test]
fn the_detail_tells_how_far_and_how_fast() {
    let mut stage = stage(10);
    let mut details = Vec::new();
    for frame in frames(&[visit(SOUTH, 0), visit(NORTH, 1_500)]) {
        let body = stage.process(frame).expect("nothing contradicts").geofenced;
        details.extend(only_accepted(&body).refusals.iter().map(|refusal| refusal.detail.to_string()));
    }
    assert_eq!(
        details,
        [
            "the session's last accepted place is at least 111 km away, and 1.500 s lie between the two checks: \
          nobody travels faster than 1000 km/h"
        ]
    );
}

proptest! {
    /// Invariant I1: whenever the stage starts again and takes in its input from the first frame on, it writes the
    /// same bytes.
    #[test]
    fn a_replayed_stage_goes_on_with_the_same_bytes(
        visits in proptest::collection::vec(
            (any::<bool>(), 0_u8..4, proptest::option::of(37.9..39.6), 0.0..2_000.0, 0_i64..600, 0_i64..240),
            1..40,
        ),
        sessions_max in 1_usize..4,
        cut in any::<proptest::sample::Index>(),
    ) {
        let mut received = 0;
        let visits: Vec<_> = visits
            .into_iter()
            .map(|(other, session, latitude, accuracy_m, checked, minutes)| {
                received += minutes * 60_000;
                let (source, checked) = (if other { "eu2" } else { "eu1" }, checked * 1_000);
                Visit { source, session, latitude, claim: None, accuracy_m, checked, received }
            })
            .collect();
        let bytes = |stage: &mut Geofence, frame: Frame<Validated>| {
            let header = frame.header.clone();
            stage.process(frame).expect("nothing contradicts").encode(&[header])
        };
        let mut once = stage(sessions_max);
        let expect: Vec<_> = frames(&visits).into_iter().map(|frame| bytes(&mut once, frame)).collect();

        let cut = cut.index(visits.len());
        let mut again = stage(sessions_max);
        for frame in frames(&visits).into_iter().take(cut) {
            bytes(&mut again, frame);
        }
        again.restore(None).expect("it forgets");
        let got: Vec<_> = frames(&visits).into_iter().map(|frame| bytes(&mut again, frame)).collect();
        prop_assert_eq!(&got[..], &expect[..]);

        let mut fresh = stage(sessions_max);
        let mut rest = frames(&visits);
        for frame in rest.drain(..cut) {
            bytes(&mut fresh, frame);
        }
        let got: Vec<_> = rest.into_iter().map(|frame| bytes(&mut fresh, frame)).collect();
        prop_assert_eq!(&got[..], &expect[cut..]);
    }
}

proptest! {
    /// Wherever a state is taken back from a snapshot, it is the same, and so is what is made of all that follows.
    #[test]
    fn a_snapshot_is_the_whole_state(
        visits in proptest::collection::vec((0_u8..6, 0_u8..3, 37.0_f64..40.0, 0_i64..4 * HOUR), 1..40),
        at in 0_usize..40,
    ) {
        let mut received = 0;
        let visits: Vec<_> = visits
            .into_iter()
            .map(|(session, source, latitude, passed)| {
                received += passed;
                let source = ["eu1", "eu2", "eu3"][usize::from(source)];
                Visit { source, session, received, ..visit(latitude, received) }
            })
            .collect();
        let mut frames = frames(&visits);
        let later = frames.split_off(at.min(frames.len()));
        let mut stage = stage(4);
        for frame in frames {
            stage.process(frame).expect("nothing contradicts");
        }
        let content: Vec<u8> = stage.freeze().flatten().collect();
        let mut thawed = self::stage(4);
        thawed.thaw(Saved(&content)).expect("it is whole");
        prop_assert_eq!(&thawed.memory, &stage.memory);
        for frame in later {
            let made = thawed.process(frame.clone()).expect("nothing contradicts");
            prop_assert_eq!(made, stage.process(frame).expect("nothing contradicts"));
        }
        prop_assert!(thawed.thaw(Saved(&content[..content.len() - 1])).is_err(), "a part is no state");
    }
}
