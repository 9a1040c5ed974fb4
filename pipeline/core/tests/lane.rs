//! The lane, over hand-made frames and stages that are small enough to see through: wherever a run is cut, what is
//! stored in the end is the same; every contradiction has its sentence; what is in flight is bounded. Then the runner
//! around it, two at once over a log in which things go wrong. Lanes of real stages are in `stages/audit/tests`.

#![expect(clippy::unwrap_used, reason = "a check that cannot go on has failed")]

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use jackpot_core::digest::Digest;
use jackpot_core::frame::allocations::Allocations;
use jackpot_core::frame::audited::Audited;
use jackpot_core::frame::contributions::Contributions;
use jackpot_core::frame::geofenced::Geofenced;
use jackpot_core::frame::symbols::Symbols;
use jackpot_core::frame::{self, Body, Frame, Header, Ingress};
use jackpot_core::health::Condition;
use jackpot_core::lane::runner::LaneRunner;
use jackpot_core::lane::{Lane, Step};
use jackpot_core::limits::{APPEND_BYTES_IN_FLIGHT_MAX, APPENDS_IN_FLIGHT_MAX};
use jackpot_core::log::faulty::{Faulty, Rates};
use jackpot_core::log::jetstream::setup::{SetUp, streams};
use jackpot_core::log::memory::Memory;
use jackpot_core::log::{Append, Appender, Entry, Expect, Log, Reader};
use jackpot_core::refusal::StageName;
use jackpot_core::rules;
use jackpot_core::runner::{Context, drive};
use jackpot_core::snapshot::{self, Archivist, Key, Pieces, Saved, Unreadable};
use jackpot_core::stage::{Contradiction, Outcome, Stage, Tally};
use jackpot_core::terms::{Terms, store};
use jackpot_core::time::Millis;
use jackpot_core::topology;
use proptest::prelude::*;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

const PARTITION: u16 = 3;
const NOW: Millis = Millis(1_780_949_730_123);

/// A stage with two outputs and no state: what it makes of a frame hangs on the frame and its terms alone.
#[derive(Default)]
struct Split {
    revision: u64,
}

struct Halves {
    symbols: Symbols,
    revision: u64,
}

impl Stage for Split {
    const NAME: StageName = StageName::Allocate;
    const INPUT: topology::Lane = topology::Lane::Geofenced;
    const OUTPUTS: &'static [topology::Lane] = &[topology::Lane::Allocations, topology::Lane::Contributions];
    type Input = Geofenced;
    type Output = Halves;

    fn learn(&mut self, terms: &Terms) {
        self.revision = terms.revision;
    }

    fn process(&mut self, frame: Frame<Geofenced>) -> Result<Halves, Contradiction> {
        assert_eq!(frame.header.terms, self.revision, "a frame is computed under its own terms");
        Ok(Halves { symbols: frame.body.symbols, revision: self.revision })
    }
}

impl Outcome for Halves {
    fn encode(&self, headers: &[Header]) -> Vec<Bytes> {
        let mut noted = self.symbols.clone();
        noted.intern(&format!("revision-{}", self.revision));
        let allocations = Allocations { symbols: noted, batches: Vec::new() };
        let contributions = Contributions { symbols: self.symbols.clone(), ..Contributions::default() };
        vec![frame::encode(&headers[0], &allocations), frame::encode(&headers[1], &contributions)]
    }

    fn tally(&self) -> Tally {
        Tally { wagers_in: 1, ..Tally::default() }
    }
}

/// A stage whose state is how many frames it has seen, and so many times a kilobyte long is each of its messages.
#[derive(Default)]
struct Count {
    seen: u64,
    kilobytes: usize,
}

struct Counted {
    seen: u64,
    leaves: usize,
}

impl Stage for Count {
    const NAME: StageName = StageName::Audit;
    const INPUT: topology::Lane = topology::Lane::Geofenced;
    const OUTPUTS: &'static [topology::Lane] = &[topology::Lane::Audit];
    const RESTORES: bool = true;
    type Input = Geofenced;
    type Output = Counted;

    fn learn(&mut self, _: &Terms) {}

    fn restore(&mut self, last: Option<&[u8]>) -> Result<(), Contradiction> {
        self.seen = last.map_or(0, |message| Frame::<Audited>::decode(message).unwrap().body.tree_size);
        Ok(())
    }

    fn process(&mut self, _: Frame<Geofenced>) -> Result<Counted, Contradiction> {
        self.seen += 1;
        Ok(Counted { seen: self.seen, leaves: self.kilobytes * 32 })
    }
}

impl Outcome for Counted {
    fn encode(&self, headers: &[Header]) -> Vec<Bytes> {
        let leaves = vec![Digest::ZERO; self.leaves];
        let audited = Audited { leaves, tree_size: self.seen, ..Audited::default() };
        headers.iter().map(|header| frame::encode(header, &audited)).collect()
    }

    fn tally(&self) -> Tally {
        Tally::default()
    }
}

/// A stage whose state is a fold of all that it was given, and comes back by nothing else.
#[derive(Default)]
struct Fold {
    seen: Digest,
    taken: Rc<Cell<usize>>,
}

struct Folded(Digest);

impl Stage for Fold {
    const NAME: StageName = StageName::Geofence;
    const INPUT: topology::Lane = topology::Lane::Geofenced;
    const OUTPUTS: &'static [topology::Lane] = &[topology::Lane::Audit];
    const REPLAYS: bool = true;
    const SNAPSHOT_FORMAT: u16 = 1;
    type Input = Geofenced;
    type Output = Folded;

    fn learn(&mut self, _: &Terms) {}

    fn restore(&mut self, _: Option<&[u8]>) -> Result<(), Contradiction> {
        self.seen = Digest::ZERO;
        Ok(())
    }

    fn freeze(&self) -> Pieces {
        Box::new(std::iter::once(snapshot::piece(&self.seen)))
    }

    fn thaw(&mut self, mut saved: Saved<'_>) -> Result<(), Unreadable> {
        self.seen = saved.take()?;
        saved.finish()
    }

    fn process(&mut self, frame: Frame<Geofenced>) -> Result<Folded, Contradiction> {
        self.taken.set(self.taken.get() + 1);
        self.seen = Digest::of_parts(&[&self.seen.0, &frame.header.sequence.to_le_bytes()]);
        Ok(Folded(self.seen))
    }
}

impl Outcome for Folded {
    fn encode(&self, headers: &[Header]) -> Vec<Bytes> {
        let audited = Audited { leaves: vec![self.0], ..Audited::default() };
        headers.iter().map(|header| frame::encode(header, &audited)).collect()
    }

    fn tally(&self) -> Tally {
        Tally::default()
    }
}

fn terms(revision: u64) -> Terms {
    let document = serde_json::json!({"schema": "terms/1", "revision": revision});
    Terms::parse(document.to_string().as_bytes()).unwrap()
}

fn entry(sequence: u64, payload: Bytes) -> Entry {
    Entry { sequence, subject: "a.lane".into(), recorded_at: NOW, headers: Vec::new(), payload }
}

/// The log of a lane: message n under sequence n.
fn entries(messages: &[Bytes]) -> Vec<Entry> {
    (1..).zip(messages).map(|(sequence, payload)| entry(sequence, payload.clone())).collect()
}

/// An input log: a frame under each of these revisions of the terms.
fn inputs(revisions: &[u64]) -> Vec<Bytes> {
    let mut previous = Digest::ZERO;
    let chain = |(sequence, &terms): (u64, &u64)| {
        let header = Header {
            partition: PARTITION,
            sequence,
            rules: rules::FIRST,
            terms,
            watermark: None,
            recorded_at: NOW,
            ingress: Ingress { position: 2 * sequence, count: sequence, chain: Digest::of(&[7]) },
            input: Digest::of(&sequence.to_le_bytes()),
            previous,
        };
        let message = frame::encode(&header, &body(sequence));
        previous = Digest::of(&message);
        message
    };
    (1..).zip(revisions).map(chain).collect()
}

fn body(number: u64) -> Geofenced {
    let mut body = Geofenced::default();
    body.symbols.intern(&format!("frame-{number}"));
    body
}

/// Changes a frame, so that it can still be read.
fn changed<B: Body>(message: &Bytes, change: impl FnOnce(&mut Frame<B>)) -> Bytes {
    let mut frame = Frame::<B>::decode(message).unwrap();
    change(&mut frame);
    frame.encode()
}

/// What the lane's outputs hold.
type Outputs = Vec<Vec<Bytes>>;

/// Resumes as the runner does; gives where to go on in the input, and what to append first.
fn resume<S: Stage>(
    lane: &mut Lane<S>,
    input: &[Bytes],
    outputs: &Outputs,
) -> Result<(u64, Vec<(usize, Append)>), Contradiction> {
    let tails: Vec<_> = outputs.iter().map(|messages| entries(messages).pop()).collect();
    let resume = lane.resume(&tails, u64::try_from(input.len()).unwrap())?;
    for (output, sequence) in resume.wanted {
        let message = outputs[output][usize::try_from(sequence).unwrap() - 1].clone();
        lane.recorded(output, &entry(sequence, message))?;
    }
    Ok((resume.from, resume.again))
}

fn accept<S: Stage>(lane: &mut Lane<S>, entry: &Entry) -> Result<Step, Contradiction> {
    if let Some(revision) = lane.terms_wanted(entry)? {
        lane.learn(revision, &terms(revision));
    }
    lane.accept(entry)
}

/// From one resume on, until the input ends, or `frames` were taken in: of the appends of each output so many are
/// stored, the others are lost. Those that are stored are acknowledged when `acknowledging`, else never.
fn run<S: Stage>(
    lane: &mut Lane<S>,
    input: &[Bytes],
    outputs: &mut Outputs,
    cut: &Cut,
) -> Result<(), Contradiction> {
    let (from, again) = resume(lane, input, outputs)?;
    let mut room = cut.stored.clone();
    let mut store = |lane: &mut Lane<S>, appends: Vec<(usize, Append)>| {
        for (output, append) in appends {
            let end = u64::try_from(outputs[output].len()).unwrap();
            assert_eq!(append.subject, S::OUTPUTS[output].subject(PARTITION));
            if room[output] > 0 && append.expect == Expect::Last(end) {
                room[output] -= 1;
                outputs[output].push(append.payload);
                if cut.acknowledging {
                    lane.acknowledged(output, end + 1);
                }
            }
        }
    };
    store(lane, again);
    for entry in entries(input).iter().skip(usize::try_from(from).unwrap() - 1).take(cut.frames) {
        if !lane.wants_input() {
            break;
        }
        let appends = accept(lane, entry)?.appends;
        store(lane, appends);
    }
    Ok(())
}

#[derive(Debug, Clone)]
struct Cut {
    frames: usize,
    stored: Vec<usize>,
    acknowledging: bool,
}

/// All that is left.
fn rest() -> Cut {
    Cut { frames: usize::MAX, stored: vec![usize::MAX; 2], acknowledging: true }
}

fn outputs_of<S: Stage>(stage: S, input: &[Bytes]) -> Outputs {
    let mut outputs = vec![Vec::new(); S::OUTPUTS.len()];
    run(&mut Lane::new(stage, PARTITION), input, &mut outputs, &rest()).unwrap();
    assert!(
        outputs.iter().all(|messages| messages.len() == input.len()),
        "one frame for each, in each output"
    );
    outputs
}

fn cuts() -> impl Strategy<Value = Vec<Cut>> {
    let cut = (0..24_usize, prop::collection::vec(0..24_usize, 2), any::<bool>());
    let cut = cut.prop_map(|(frames, stored, acknowledging)| Cut { frames, stored, acknowledging });
    prop::collection::vec(cut, 0..12)
}

fn revisions() -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(prop::bool::weighted(0.2), 1..48).prop_map(|grows| {
        let mut revision = 1;
        let next = |grows| {
            revision += u64::from(grows);
            revision
        };
        grows.into_iter().map(next).collect()
    })
}

proptest! {
    /// Wherever a run is cut, whatever of its appends was stored, and whether the same process goes on or another.
    #[test]
    fn any_cut_into_runs_stores_the_same_bytes(
        revisions in revisions(), cuts in cuts(), same_process in any::<bool>(),
    ) {
        let input = inputs(&revisions);
        let expect = outputs_of(Split::default(), &input);
        let (mut lane, mut outputs) = (Lane::new(Split::default(), PARTITION), vec![Vec::new(); 2]);
        for cut in &cuts {
            run(&mut lane, &input, &mut outputs, cut).unwrap();
            if !same_process {
                lane = Lane::new(Split::default(), PARTITION);
            }
        }
        // Each run takes in what may be in flight, at least, and the last one finds all done.
        for _ in 0..=revisions.len() / APPENDS_IN_FLIGHT_MAX + 1 {
            run(&mut lane, &input, &mut outputs, &rest()).unwrap();
        }
        prop_assert_eq!(outputs, expect);
        prop_assert!(lane.settled());
        prop_assert_eq!(lane.position(), u64::try_from(input.len()).unwrap());
    }

    /// The same for a stage whose state comes back from its output.
    #[test]
    fn a_state_comes_back_at_any_cut(revisions in revisions(), cuts in cuts()) {
        let input = inputs(&revisions);
        let expect = outputs_of(Count::default(), &input);
        let mut outputs = vec![Vec::new()];
        for cut in cuts.iter().chain([&rest(), &rest(), &rest(), &rest()]) {
            run(&mut Lane::new(Count::default(), PARTITION), &input, &mut outputs, cut).unwrap();
        }
        prop_assert_eq!(outputs, expect);
    }

    /// The same for a stage that is replayed, and for a race: another process stores frames, too.
    #[test]
    fn a_fold_comes_back_at_any_cut(
        revisions in revisions(), cuts in cuts(), same_process in any::<bool>(), others in any::<bool>(),
    ) {
        let input = inputs(&revisions);
        let expect = outputs_of(Fold::default(), &input);
        let (mut lane, mut outputs) = (Lane::new(Fold::default(), PARTITION), vec![Vec::new()]);
        for cut in &cuts {
            run(&mut lane, &input, &mut outputs, cut).unwrap();
            let length = outputs[0].len();
            if others {
                outputs[0].extend_from_slice(&expect[0][length..(length + cut.stored[1]).min(input.len())]);
            }
            if !same_process {
                lane = Lane::new(Fold::default(), PARTITION);
            }
        }
        for _ in 0..=revisions.len() / APPENDS_IN_FLIGHT_MAX + 1 {
            run(&mut lane, &input, &mut outputs, &rest()).unwrap();
        }
        prop_assert_eq!(outputs, expect);
        prop_assert!(lane.settled());
    }

    /// One output may be ahead by all that was in flight. Only what the other one lacks is appended.
    #[test]
    fn one_output_may_be_ahead(behind in 0..20_usize, ahead in 0..=APPENDS_IN_FLIGHT_MAX, first in any::<bool>()) {
        let input = inputs(&[1; 40]);
        let expect = outputs_of(Split::default(), &input);
        let mut outputs = expect.clone();
        outputs[usize::from(first)].truncate(behind);
        outputs[usize::from(!first)].truncate(behind + ahead);
        run(&mut Lane::new(Split::default(), PARTITION), &input, &mut outputs, &rest()).unwrap();
        prop_assert_eq!(outputs, expect);
    }
}

#[test]
fn what_is_in_flight_is_bounded_by_number_and_by_bytes() {
    let check = |kilobytes, expect: usize| {
        let input = inputs(&[1; 40]);
        let mut lane = Lane::new(Count { seen: 0, kilobytes }, PARTITION);
        resume(&mut lane, &input, &vec![Vec::new()]).unwrap();
        let (mut taken, mut bytes) = (0, 0);
        for entry in &entries(&input) {
            if !lane.wants_input() {
                break;
            }
            taken += 1;
            bytes += accept(&mut lane, entry).unwrap().appends[0].1.payload.len();
        }
        assert_eq!(taken, expect, "frames of {kilobytes} KiB");
        assert!(bytes < APPEND_BYTES_IN_FLIGHT_MAX + (kilobytes + 1) * 1024);
        assert_eq!(lane.acknowledged(0, 1), Some(Tally::default()));
        assert!(lane.wants_input(), "one acknowledgement makes room for one frame");
    };
    check(0, APPENDS_IN_FLIGHT_MAX);
    check(900, 10);
}

/// However much of what was in flight got lost, a process that goes on takes each frame in once.
#[test]
fn a_fold_appends_again_what_got_lost() {
    let input = inputs(&[1; 30]);
    let expect = outputs_of(Fold::default(), &input);
    for stored in 0..=APPENDS_IN_FLIGHT_MAX {
        let taken = Rc::<Cell<usize>>::default();
        let mut lane = Lane::new(Fold { taken: taken.clone(), ..Fold::default() }, PARTITION);
        let mut outputs = vec![Vec::new()];
        for acknowledging in [false, false, true, true, true] {
            run(&mut lane, &input, &mut outputs, &Cut { frames: 99, stored: vec![stored], acknowledging })
                .unwrap();
        }
        run(&mut lane, &input, &mut outputs, &rest()).unwrap();
        run(&mut lane, &input, &mut outputs, &rest()).unwrap();
        assert_eq!(outputs, expect);
        assert_eq!(taken.get(), 30, "with {stored} stored of what was in flight");
    }
    // What another one stored in their place is not what was computed.
    let mut lane = Lane::new(Fold::default(), PARTITION);
    let mut outputs = vec![Vec::new()];
    run(&mut lane, &input, &mut outputs, &Cut { frames: 5, stored: vec![0], acknowledging: false }).unwrap();
    outputs[0].extend_from_slice(&expect[0][..3]);
    outputs[0][2] = changed::<Audited>(&outputs[0][2], |frame| frame.body.tree_size = 7);
    let said = run(&mut lane, &input, &mut outputs, &rest()).unwrap_err().to_string();
    assert!(
        said.contains("frame 3 of audit-3 is not what computing it again from geofenced-3 gives"),
        "{said}"
    );
}

#[test]
fn a_frame_counts_when_all_of_its_appends_are_acknowledged() {
    let input = inputs(&[1, 1]);
    let mut lane = Lane::new(Split::default(), PARTITION);
    resume(&mut lane, &input, &vec![Vec::new(); 2]).unwrap();
    for entry in &entries(&input) {
        assert_eq!(accept(&mut lane, entry).unwrap().appends.len(), 2);
    }
    let tally = Tally { wagers_in: 1, ..Tally::default() };
    assert_eq!(lane.acknowledged(1, 1), None);
    assert_eq!(lane.acknowledged(1, 2), None);
    assert!(!lane.settled());
    assert_eq!(lane.acknowledged(0, 1), Some(tally.clone()));
    assert_eq!(lane.acknowledged(0, 2), Some(tally));
    assert!(lane.settled());
}

/// Five frames done, in both outputs, with one more in the input. `spoil` changes what is there before a process starts
/// and takes in all; it then stops, having appended nothing but what `appended` says, with a sentence that says
/// `expect`.
#[track_caller]
fn check_stops(spoil: impl FnOnce(&mut Vec<Bytes>, &mut Outputs), appended: usize, expect: &str) {
    let mut input = inputs(&[1, 1, 1, 2, 2, 2]);
    let mut outputs = outputs_of(Split::default(), &input);
    outputs.iter_mut().for_each(|messages| messages.truncate(5));
    spoil(&mut input, &mut outputs);
    let before: usize = outputs.iter().map(Vec::len).sum();
    let stopped = run(&mut Lane::new(Split::default(), PARTITION), &input, &mut outputs, &rest());
    let said = stopped.expect_err("the lane stops").to_string();
    assert!(said.contains(expect), "{said}\nshould say: {expect}");
    assert!(!said.contains('\n') && said.contains("; "), "one sentence that says what to do: {said}");
    assert_eq!(outputs.iter().map(Vec::len).sum::<usize>() - before, appended, "{said}");
}

#[test]
fn a_log_that_lost_its_tail_stops_the_lane() {
    check_stops(
        |input, _| input.truncate(4),
        0,
        "geofenced-3 ends at frame 4, but allocations-3 holds frames made from it up to 5",
    );
    // One output is behind, so that the input is longer than what both hold; still it lost a frame.
    check_stops(
        |input, outputs| {
            input.truncate(4);
            outputs[0].truncate(3);
        },
        0,
        "geofenced-3 ends at frame 4, but contributions-3 holds frames made from it up to 5",
    );
    let mut input = inputs(&[1; 40]);
    let mut outputs = outputs_of(Split::default(), &input);
    outputs[1].truncate(40 - APPENDS_IN_FLIGHT_MAX - 1);
    let said = resume(&mut Lane::new(Split::default(), PARTITION), &input, &outputs).unwrap_err().to_string();
    assert!(
        said.contains("contributions-3 ends at frame 23, but allocations-3, which is written with it, at 40")
    );
    // It grew again, with other content.
    input.truncate(30);
    input.extend(inputs(&[2; 40]).split_off(30));
    outputs[1] = outputs_of(Split::default(), &inputs(&[1; 40])).remove(1);
    let mut lane = Lane::new(Split::default(), PARTITION);
    let said = run(&mut lane, &input, &mut outputs, &rest()).unwrap_err().to_string();
    assert!(
        said.contains("frame 40 of geofenced-3 is not the one that allocations-3 was made from"),
        "{said}"
    );
}

#[test]
fn a_changed_input_stops_the_lane() {
    check_stops(
        |input, _| input[4] = changed::<Geofenced>(&input[4], |frame| frame.body = body(50)),
        0,
        "frame 5 of geofenced-3 is not the one that allocations-3 was made from",
    );
    check_stops(
        |input, _| {
            input[5] = changed::<Geofenced>(&input[5], |frame| frame.header.previous = Digest::of(&[1]))
        },
        0,
        "frame 6 of geofenced-3 does not follow the frame 5 that was read before it",
    );
    check_stops(
        |input, _| input[5] = changed::<Geofenced>(&input[5], |frame| frame.header.terms = 1),
        0,
        "frame 6 of geofenced-3 is under revision 1 of the terms, and the one before it was under 2",
    );
    check_stops(
        |input, _| input[5] = changed::<Geofenced>(&input[5], |frame| frame.header.partition = 0),
        0,
        "message 6 of geofenced-3 says that it is frame 6 of partition 0",
    );
    check_stops(
        |input, _| input[5] = changed::<Geofenced>(&input[5], |frame| frame.header.sequence = 7),
        0,
        "message 6 of geofenced-3 says that it is frame 7 of partition 3",
    );
    check_stops(
        |input, _| input[5] = input[5].slice(..input[5].len() - 1),
        0,
        "frame 6 of geofenced-3 cannot be read",
    );
    check_stops(
        |input, _| input[5] = changed::<Geofenced>(&input[5], |frame| frame.header.rules = 0),
        0,
        "frame 6 of geofenced-3 cannot be read",
    );
    // With no frame done there is nothing to compare with, but a first frame follows none.
    check_stops(
        |input, outputs| {
            outputs.iter_mut().for_each(Vec::clear);
            input[0] = changed::<Geofenced>(&input[0], |frame| frame.header.previous = Digest::of(&[1]));
        },
        0,
        "frame 1 of geofenced-3 does not follow the frame 0",
    );
    // A frame that is not the last one done is found out by the one behind it, which was made before it was changed.
    check_stops(
        |input, outputs| {
            outputs.iter_mut().for_each(|messages| messages.truncate(3));
            input[4] = changed::<Geofenced>(&input[4], |frame| frame.body = body(50));
        },
        4,
        "frame 6 of geofenced-3 does not follow the frame 5 that was read before it",
    );
}

#[test]
fn a_frame_of_later_rules_is_left_to_a_newer_build() {
    let (later, known) = (rules::KNOWN + 1, rules::KNOWN);
    let expect = |stream: &str| {
        format!(
            "{stream} is written under rules {later}, and this build knows them up to {known}; deploy a newer build, \
             which takes over here by itself"
        )
    };
    check_stops(
        |input, _| input[5] = changed::<Geofenced>(&input[5], |frame| frame.header.rules = later),
        0,
        &expect("frame 6 of geofenced-3"),
    );
    check_stops(
        |_, outputs| {
            outputs[0][4] = changed::<Allocations>(&outputs[0][4], |frame| frame.header.rules = later);
        },
        0,
        &expect("frame 5 of allocations-3"),
    );
}

#[test]
fn a_frame_is_made_by_the_rules_of_its_terms() {
    let input = inputs(&[1]);
    let mut lane = Lane::new(Split::default(), PARTITION);
    resume(&mut lane, &input, &vec![Vec::new(); 2]).unwrap();
    let first = entry(1, input[0].clone());
    assert_eq!(lane.terms_wanted(&first), Ok(Some(1)));
    lane.learn(1, &Terms { rules: 2, ..terms(1) });
    let said = lane.accept(&first).unwrap_err().to_string();
    assert_eq!(
        said,
        "frame 1 of geofenced-3 is written under rules 1, and revision 1 of the terms names rules 2: the log was \
         tampered with; restore it from a backup"
    );
}

#[test]
fn a_changed_output_stops_the_lane_before_it_vouches_for_it() {
    let last = |output: usize| {
        move |_: &mut Vec<Bytes>, outputs: &mut Outputs| {
            let message = outputs[output][4].clone();
            outputs[output][4] = match output {
                0 => changed::<Allocations>(&message, |frame| frame.body.symbols = Symbols::default()),
                _ => changed::<Contributions>(&message, |frame| frame.body.wagers += 1),
            };
        }
    };
    check_stops(last(0), 0, "frame 5 of allocations-3 is not what computing it again from geofenced-3 gives");
    check_stops(
        last(1),
        0,
        "frame 5 of contributions-3 is not what computing it again from geofenced-3 gives",
    );
    // Of frames that one output is ahead with, each is compared before the other one goes on.
    check_stops(
        |_, outputs| {
            outputs[1].truncate(2);
            outputs[0][3] =
                changed::<Allocations>(&outputs[0][3], |frame| frame.body.symbols = Symbols::default());
        },
        1,
        "frame 4 of allocations-3 is not what computing it again from geofenced-3 gives",
    );
    check_stops(
        |_, outputs| outputs[1][4] = Bytes::from_static(b"JPF"),
        0,
        "frame 5 of contributions-3 cannot be read",
    );
    check_stops(
        |_, outputs| {
            outputs[1][4] = changed::<Contributions>(&outputs[1][4], |frame| frame.header.sequence = 4);
        },
        0,
        "message 5 of contributions-3 says that it is frame 4 of partition 3",
    );
}

#[test]
fn a_state_is_taken_back_only_from_the_message_that_the_next_one_follows() {
    let input = inputs(&[1; 6]);
    let mut outputs = outputs_of(Count::default(), &input);
    outputs[0][4] = changed::<Audited>(&outputs[0][4], |frame| frame.body.tree_size += 1);
    let said = run(&mut Lane::new(Count::default(), PARTITION), &input, &mut outputs, &rest()).unwrap_err();
    assert!(said.to_string().contains("frame 5 of audit-3 is not the one that frame 6 follows"), "{said}");
}

#[test]
fn removed_messages_stop_the_lane() {
    let input = inputs(&[1; 6]);
    let mut outputs = outputs_of(Split::default(), &input);
    let mut lane = Lane::new(Split::default(), PARTITION);
    outputs.iter_mut().for_each(|messages| messages.truncate(3));
    resume(&mut lane, &input, &outputs).unwrap();
    let said = accept(&mut lane, &entries(&input)[4]).unwrap_err().to_string();
    assert!(said.contains("geofenced-3 goes on with frame 5 and not with 3"), "{said}");
    // The same where nothing was done yet.
    resume(&mut lane, &input, &vec![Vec::new(); 2]).unwrap();
    let said = accept(&mut lane, &entries(&input)[1]).unwrap_err().to_string();
    assert!(said.contains("geofenced-3 goes on with frame 2 and not with 1"), "{said}");
}

/// A log in memory with this input, and the terms that it names.
async fn filled(input: &[Bytes]) -> Memory {
    let log = Memory::new(streams(&SetUp::new(PARTITION + 1)), || NOW);
    for revision in 1..=3 {
        store::store(&log, &terms(revision)).await.unwrap();
    }
    let mut appender = log.appender().await.unwrap();
    for payload in input {
        let subject = topology::Lane::Geofenced.subject(PARTITION);
        let append = Append { subject, headers: Vec::new(), payload: payload.clone(), expect: Expect::Any };
        appender.send(append).await.unwrap();
        appender.acknowledged().await.unwrap();
    }
    log
}

fn context<L: Log>(log: &L, seed: u64, shutdown: &watch::Receiver<bool>) -> Context<L> {
    Context {
        stand_by: Duration::from_millis(500),
        snapshot_bytes: 1,
        seed,
        ..Context::new(log.clone(), StageName::Allocate, shutdown.clone())
    }
}

async fn stored(log: &Memory, lane: topology::Lane, count: usize) -> Vec<Bytes> {
    let mut reader = log.read(&lane.stream(PARTITION), None, 1).await.unwrap();
    let mut messages = Vec::new();
    while messages.len() < count {
        messages.push(reader.next().await.unwrap().payload);
    }
    messages
}

#[tokio::test(start_paused = true)]
async fn whoever_stands_by_goes_on_at_once_when_the_other_one_leaves() {
    let input = inputs(&[1; 6]);
    let log = filled(&input[..4]).await;
    let processes = [1, 2].map(|seed| {
        let (stop, shutdown) = watch::channel(false);
        let stand_by = Duration::from_secs(60);
        (stop, Context { stand_by, ..context(&log, seed, &shutdown) })
    });
    let [first, second] = processes
        .each_ref()
        .map(|(_, context)| drive(context, LaneRunner::new(context.clone(), PARTITION, Split::default())));
    let come = async |number: usize| {
        let subject = topology::Lane::Geofenced.subject(PARTITION);
        let payload = input[number - 1].clone();
        let mut appender = log.appender().await.unwrap();
        appender.send(Append { subject, headers: Vec::new(), payload, expect: Expect::Any }).await.unwrap();
        timeout(Duration::from_secs(300), stored(&log, topology::Lane::Allocations, number)).await.unwrap();
    };
    let script = async {
        let standing = async || {
            let stands_by = |condition: &Condition| *condition == Condition::StandingBy;
            let of = |context: &Context<Memory>| context.health.parts().iter().any(|(_, of)| stands_by(of));
            tokio::time::sleep(Duration::from_secs(1)).await;
            processes.each_ref().map(|(_, context)| of(context))
        };
        assert_eq!(standing().await, [false, false], "each has what is stored");
        come(5).await;
        let stands = standing().await;
        assert_ne!(stands[0], stands[1], "one of them was faster");
        processes[usize::from(stands[0])].0.send_replace(true);
        let begun = Instant::now();
        come(6).await;
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        for (stop, _) in &processes {
            stop.send_replace(true);
        }
    };
    tokio::join!(first, second, script);
}

/// Two runners of one lane, over a log in which things go wrong, until all is stored.
async fn race<S: Stage>(stage: fn() -> S, input: &[Bytes], seed: u64, rates: Rates) -> (Outputs, u64) {
    let log = filled(input).await;
    let faulty = Faulty::seeded(log.clone(), Duration::from_secs(5), seed, rates);
    let (stop, shutdown) = watch::channel(false);
    let contexts = [1, 2].map(|process| context(&faulty, seed * 2 + process, &shutdown));
    let runners = contexts.each_ref().map(|context| {
        let key = Key::partition(S::NAME, PARTITION);
        let (desk, archivist) = Archivist::new(context.clone(), key, Vec::new());
        let runner = LaneRunner::new(context.clone(), PARTITION, stage());
        let runner = if S::REPLAYS { runner.with_desk(desk) } else { runner };
        async move {
            tokio::join!(drive(context, runner), archivist.run());
        }
    });
    let [first, second] = runners;
    let finished = async {
        let mut outputs = Vec::new();
        for lane in S::OUTPUTS {
            let stored = timeout(Duration::from_secs(3_600), stored(&log, *lane, input.len())).await;
            let conditions = contexts.each_ref().map(|context| context.health.parts());
            outputs.push(stored.unwrap_or_else(|_| panic!("{} does not end: {conditions:?}", lane.as_str())));
        }
        stop.send_replace(true);
        outputs
    };
    let ((), (), outputs) = tokio::join!(first, second, finished);
    for lane in S::OUTPUTS {
        let extent = log.extent(&lane.stream(PARTITION)).await.unwrap();
        assert_eq!(extent.last, u64::try_from(input.len()).unwrap(), "nothing twice");
    }
    (outputs, faulty.struck())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn two_runners_over_a_bad_log_store_every_frame_once(seed in 1..u64::MAX / 4, frames in 60..160_usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let revisions: Vec<_> = (0..frames).map(|number| 1 + u64::try_from(3 * number / frames).unwrap()).collect();
        let input = inputs(&revisions);
        let rates = Rates { append: 500, read: 300, ask: 500 };
        let (outputs, struck) = runtime.block_on(race(Split::default, &input, seed, rates));
        prop_assert_eq!(outputs, outputs_of(Split::default(), &input));
        prop_assert!(struck > 0, "at these rates something goes wrong");
        for (outputs, expect) in [
            (runtime.block_on(race(Count::default, &input, seed, rates)).0, outputs_of(Count::default(), &input)),
            (runtime.block_on(race(Fold::default, &input, seed, rates)).0, outputs_of(Fold::default(), &input)),
        ] {
            prop_assert_eq!(outputs, expect);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_contradiction_is_believed_when_it_stays() {
    let mut input = inputs(&[1; 6]);
    let log = filled(&input).await;
    let outputs = outputs_of(Split::default(), &input);
    let mut appender = log.appender().await.unwrap();
    for (lane, messages) in Split::OUTPUTS.iter().zip(&outputs) {
        for payload in messages {
            let (subject, payload) = (lane.subject(PARTITION), payload.clone());
            appender
                .send(Append { subject, headers: Vec::new(), payload, expect: Expect::Any })
                .await
                .unwrap();
            appender.acknowledged().await.unwrap();
        }
    }
    input.truncate(4);
    let short = filled(&input).await;
    for (lane, messages) in Split::OUTPUTS.iter().zip(&outputs) {
        let mut appender = short.appender().await.unwrap();
        for payload in messages {
            let (subject, payload) = (lane.subject(PARTITION), payload.clone());
            appender
                .send(Append { subject, headers: Vec::new(), payload, expect: Expect::Any })
                .await
                .unwrap();
        }
    }
    let (stop, shutdown) = watch::channel(false);
    let check = async |log: &Memory, expect: &str| {
        let context = context(log, 1, &shutdown);
        let runner = LaneRunner::new(context.clone(), PARTITION, Split::default());
        let settled = async {
            loop {
                match context.health.ready() {
                    Ok(()) => break "ready".to_owned(),
                    Err(said) if said.starts_with("partition 3 stopped") => break said,
                    Err(_) => tokio::task::yield_now().await,
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let said =
            tokio::select! { said = settled => said, () = drive(&context, runner) => "gone".to_owned() };
        assert!(said.contains(expect), "{said}");
    };
    check(&log, "ready").await;
    let begun = Instant::now();
    check(&short, "geofenced-3 ends at frame 4, but allocations-3 holds frames made from it up to 6").await;
    // A leader that was held and deposed meanwhile needs a while to learn of it.
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    // An answer from the past looks the same, but only once.
    let faulty = Faulty::planned(log.clone(), Duration::from_secs(5));
    faulty.plan(4, jackpot_core::log::faulty::Fault::Stale);
    let context = context(&faulty, 1, &shutdown);
    let runner = LaneRunner::new(context.clone(), PARTITION, Split::default());
    let ready = async {
        while context.health.ready().is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        stop.send_replace(true);
    };
    tokio::join!(ready, drive(&context, runner));
    assert_eq!(faulty.struck(), 1);
    assert!(
        context
            .metrics
            .render()
            .contains(r#"jackpot_recoveries_total{cause="contradiction",stage="allocate"} 1"#)
    );
}

/// A newer build is at work and goes on: what it stores is no progress of the one that cannot read it.
#[tokio::test(start_paused = true)]
async fn a_contradiction_is_believed_while_another_process_goes_on() {
    let input = inputs(&[1; 600]);
    let log = filled(&input).await;
    let outputs = outputs_of(Split::default(), &input);
    let (_stop, shutdown) = watch::channel(false);
    let context = context(&log, 1, &shutdown);
    let runner = LaneRunner::new(context.clone(), PARTITION, Split::default());
    let other = async {
        let mut appender = log.appender().await.unwrap();
        for (allocations, contributions) in outputs[0].iter().zip(&outputs[1]) {
            let later = rules::KNOWN + 1;
            let allocations = changed::<Allocations>(allocations, |frame| frame.header.rules = later);
            let contributions = changed::<Contributions>(contributions, |frame| frame.header.rules = later);
            for (lane, payload) in Split::OUTPUTS.iter().zip([allocations, contributions]) {
                let subject = lane.subject(PARTITION);
                let append = Append { subject, headers: Vec::new(), payload, expect: Expect::Any };
                appender.send(append).await.unwrap();
                appender.acknowledged().await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            if let Err(said) = context.health.ready()
                && said.starts_with("partition 3 stopped")
            {
                return said;
            }
        }
        panic!("it looks again for ever")
    };
    let said =
        tokio::select! { biased; said = other => said, () = drive(&context, runner) => "gone".to_owned() };
    assert!(said.contains("is written under rules"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_replayed_lane_goes_on_from_its_snapshot() {
    let input = inputs(&[1; 60]);
    let log = filled(&[]).await;
    let key = Key::partition(Fold::NAME, PARTITION);
    let run = async |taken: &Rc<Cell<usize>>, new: std::ops::Range<usize>| {
        let (stop, shutdown) = watch::channel(false);
        let context = context(&log, 1, &shutdown);
        let (desk, archivist) = Archivist::new(context.clone(), key.clone(), Vec::new());
        let stage = Fold { taken: taken.clone(), ..Fold::default() };
        let runner = LaneRunner::new(context.clone(), PARTITION, stage).with_desk(desk);
        let finished = async {
            let mut appender = log.appender().await.unwrap();
            for payload in &input[new.clone()] {
                let subject = topology::Lane::Geofenced.subject(PARTITION);
                let payload = payload.clone();
                let append = Append { subject, headers: Vec::new(), payload, expect: Expect::Any };
                appender.send(append).await.unwrap();
                appender.acknowledged().await.unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let stored = stored(&log, topology::Lane::Audit, new.end).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            stop.send_replace(true);
            stored
        };
        tokio::join!(drive(&context, runner), archivist.run(), finished).2
    };
    run(&Rc::default(), 0..40).await;
    let kept = snapshot::list(&log, &key).await.unwrap().0;
    let last = kept.last().expect("snapshots were taken").frame;
    assert!(kept.len() == 2 && last <= 40, "of stored frames: {kept:?}");
    // Of what a snapshot holds, nothing is read again, so that it may be trimmed.
    log.trim(&topology::Lane::Geofenced.stream(PARTITION), None, last + 1).await.unwrap();
    let taken = Rc::default();
    let stored = run(&taken, 40..60).await;
    assert_eq!(vec![stored], outputs_of(Fold::default(), &input));
    assert_eq!(
        u64::try_from(taken.get()).unwrap(),
        60 - last,
        "each frame behind the snapshot is folded once"
    );
}
