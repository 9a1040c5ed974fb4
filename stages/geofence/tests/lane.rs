//! The lane of geofence, whose state is a fold of its input, cut into runs anywhere: a run that goes on in the same
//! process, and one that begins anew and is handed every frame again, store the same bytes as one run alone.

#![expect(clippy::unwrap_used, reason = "a check that cannot go on has failed")]

use bytes::Bytes;
use geofence::Geofence;
use jackpot_core::digest::Digest;
use jackpot_core::frame::batch::{Accepted, Batch, Funds, Verdict};
use jackpot_core::frame::validated::{Location, Point, Validated, Wager};
use jackpot_core::frame::{self, Header, Ingress};
use jackpot_core::lane::Lane;
use jackpot_core::log::Entry;
use jackpot_core::money::Micro;
use jackpot_core::rules;
use jackpot_core::terms::Terms;
use jackpot_core::time::Millis;
use proptest::prelude::*;

const NOW: Millis = Millis(1_780_949_730_123);
/// Las Vegas and Reno: some 560 km apart, so that a session cannot be in both within half an hour.
const TOWNS: [(f64, f64); 2] = [(36.17, -115.14), (39.53, -119.81)];

fn terms() -> Terms {
    let document = serde_json::json!({
        "schema": "terms/1", "revision": 1,
        "jurisdictions": [{"code": "US-NV", "status": "permitted"}],
        "operators": [{"operator": "silver", "jurisdictions": ["US-NV"]}],
        "sources": [{"source": "nv1", "operator": "silver"}],
    });
    Terms::parse(document.to_string().as_bytes()).unwrap()
}

/// A log of frames with one wager each, all of one session: so many minutes after the one before; true is Reno.
fn input(visits: &[(i64, bool)]) -> Vec<Bytes> {
    let (mut previous, mut at) = (Digest::ZERO, NOW);
    let mut messages = Vec::new();
    for (sequence, &(minutes, reno)) in (1_u64..).zip(visits) {
        at = at.plus(minutes * 60_000);
        let header = Header {
            partition: 0,
            sequence,
            rules: rules::FIRST,
            terms: 1,
            watermark: Some(at),
            recorded_at: at,
            ingress: Ingress { position: sequence, count: sequence, chain: Digest::ZERO },
            input: Digest::ZERO,
            previous,
        };
        let message = frame::encode(&header, &body(sequence, at, TOWNS[usize::from(reno)]));
        previous = Digest::of(&message);
        messages.push(message);
    }
    messages
}

fn body(sequence: u64, at: Millis, (latitude, longitude): (f64, f64)) -> Validated {
    let mut body = Validated { contents: vec![[0; 16]], ..Validated::default() };
    let point = Point { latitude, longitude, accuracy_m: 50.0 };
    let wager = Wager {
        index: 0,
        session: [7; 16],
        interaction: sequence,
        game: body.symbols.intern("spin"),
        amount: Micro(1),
        currency: body.symbols.intern("USD"),
        funds: Funds::Cash,
        opt_in: false,
        occurred_at: at,
        location: Some(Location { jurisdiction: None, point: Some(point), checked_at: at }),
        hits: None,
    };
    let accepted = Accepted { sequence, wagers: vec![wager], refusals: Vec::new(), gaps: Vec::new() };
    body.batches.push(Batch {
        operator: body.symbols.intern("silver"),
        source: body.symbols.intern("nv1"),
        position: sequence,
        recorded_at: at,
        verdict: Verdict::Accepted(accepted),
    });
    body
}

fn entry(subject: &str, sequence: usize, payload: &Bytes) -> Entry {
    Entry {
        sequence: u64::try_from(sequence).unwrap(),
        subject: subject.into(),
        recorded_at: NOW,
        headers: Vec::new(),
        payload: payload.clone(),
    }
}

/// A run up to frame `until`, of whose appends the last `lost` are not stored.
fn run(lane: &mut Lane<Geofence>, input: &[Bytes], output: &mut Vec<Bytes>, until: usize, lost: usize) {
    let tail = output.last().map(|message| entry("geofenced.0", output.len(), message));
    let resume = lane.resume(&[tail], u64::try_from(input.len()).unwrap()).unwrap();
    for (index, sequence) in resume.wanted {
        let sequence = usize::try_from(sequence).unwrap();
        lane.recorded(index, &entry("geofenced.0", sequence, &output[sequence - 1])).unwrap();
    }
    let mut appended = resume.again;
    for sequence in usize::try_from(resume.from).unwrap()..=until {
        let message = entry("validated.0", sequence, &input[sequence - 1]);
        if let Some(revision) = lane.terms_wanted(&message).unwrap() {
            lane.learn(revision, &terms());
        }
        appended.extend(lane.accept(&message).unwrap().appends);
    }
    appended.truncate(appended.len().saturating_sub(lost));
    for (_, append) in appended {
        output.push(append.payload);
        lane.acknowledged(0, u64::try_from(output.len()).unwrap());
    }
}

proptest! {
    #[test]
    fn any_cut_into_runs_stores_the_same_bytes(
        visits in prop::collection::vec((1_i64..40, any::<bool>()), 1..30),
        cuts in prop::collection::vec((0_usize..10, 0_usize..4, any::<bool>()), 0..8),
    ) {
        let input = input(&visits);
        let mut whole = Vec::new();
        run(&mut Lane::new(Geofence::default(), 0), &input, &mut whole, input.len(), 0);
        prop_assert_eq!(whole.len(), input.len());

        let (mut lane, mut output) = (Lane::new(Geofence::default(), 0), Vec::new());
        for (frames, lost, new_process) in cuts {
            let until = (output.len() + frames).min(input.len());
            run(&mut lane, &input, &mut output, until, lost);
            if new_process {
                lane = Lane::new(Geofence::default(), 0);
            }
        }
        run(&mut lane, &input, &mut output, input.len(), 0);
        prop_assert_eq!(output, whole);
    }
}

#[test]
fn a_changed_frame_stops_the_lane_wherever_it_is_replayed() {
    let visits = |first| input(&[(1, first), (1, false), (40, true), (1, false)]);
    let input = visits(false);
    let mut output = Vec::new();
    run(&mut Lane::new(Geofence::default(), 0), &input, &mut output, 4, 0);
    let other = visits(true);
    let mut lane = Lane::new(Geofence::default(), 0);
    lane.resume(&[Some(entry("geofenced.0", 4, &output[3]))], 4).unwrap();
    lane.learn(1, &terms());
    lane.accept(&entry("validated.0", 1, &other[0])).unwrap();
    let error = lane.accept(&entry("validated.0", 2, &input[1])).unwrap_err();
    assert!(error.to_string().starts_with("frame 2 of validated-0 does not follow the frame 1"), "{error}");
}
