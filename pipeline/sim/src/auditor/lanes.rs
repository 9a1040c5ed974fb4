//! Frames, held to the frames that they were made from (I2), and to what a fresh stage makes of them (I1).

use std::collections::BTreeMap;

use jackpot_core::digest::Digest;
use jackpot_core::frame::{Frame, validated::Validated};
use jackpot_core::stage::{Outcome, Stage};
use jackpot_core::terms::Terms;
use jackpot_core::topology::Lane;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use validate::{CompiledTerms, State, recorded_signature, recut};

use super::record::{Header, Record, sha256};

/// All lanes of a partition are of one length; each frame says its place, the one before it, and the one that it was made
/// from; and the spine's chain over the ingress is the ingress.
pub fn assert_one_to_one(record: &Record, partition: u16) {
    let spine = record.entries(&Lane::Validated.stream(partition));
    for (lane, input) in [
        (Lane::Validated, None),
        (Lane::Geofenced, Some(Lane::Validated)),
        (Lane::Allocations, Some(Lane::Geofenced)),
        (Lane::Contributions, Some(Lane::Geofenced)),
        (Lane::Audit, Some(Lane::Allocations)),
    ] {
        let stream = lane.stream(partition);
        let inputs = input.map_or(&[][..], |input| record.entries(&input.stream(partition)));
        let frames = record.entries(&stream);
        assert_eq!(frames.len(), spine.len(), "{stream} is one to one with the spine");
        let mut previous = [0; 32];
        for (number, entry) in (1..).zip(frames) {
            let header = Header::read(&entry.payload);
            let place = (entry.sequence, header.sequence, header.partition, header.previous);
            let expect = (number, number, u64::from(partition), previous);
            assert_eq!(place, expect, "{stream}: frame {number} says its place");
            assert_eq!(header.rules, 1, "{stream}: frame {number} is under the rules of the terms");
            previous = sha256(&entry.payload);
            let index = usize::try_from(number - 1).expect("a length");
            let made_from = if input.is_some() { sha256(&inputs[index].payload) } else { [0; 32] };
            assert_eq!(header.input, made_from, "{stream}: frame {number} is made from its frame");
            let origin = Header::read(&spine[index].payload);
            let same = (header.terms, header.position, header.count, header.chain);
            assert_eq!(
                same,
                (origin.terms, origin.position, origin.count, origin.chain),
                "{stream}: frame {number}"
            );
        }
    }
    assert_chained(record, partition);
}

/// The chain of each frame of the spine is that of the ingress up to its position, and nothing is left out.
fn assert_chained(record: &Record, partition: u16) {
    let own = format!("lane.{partition}.");
    let mut ingress = record.entries("wagers").iter().filter(|entry| entry.subject.starts_with(&own));
    let (mut chain, mut count) = ([0; 32], 0);
    for entry in record.entries(&Lane::Validated.stream(partition)) {
        let header = Header::read(&entry.payload);
        let mut position = 0;
        while position < header.position {
            let message = ingress.next().expect("a frame reads no further than the ingress");
            position = message.sequence;
            let mut hasher = Sha256::new();
            hasher.update(chain);
            hasher.update(position.to_le_bytes());
            hasher.update(message.subject.as_bytes());
            hasher.update(sha256(&message.payload));
            chain = hasher.finalize().into();
            count += 1;
        }
        let at = (position, count, chain);
        assert_eq!(
            (header.position, header.count, header.chain),
            at,
            "frame {} reads what is there",
            header.sequence
        );
    }
    assert!(
        ingress.all(|left| left.subject.ends_with(".terms")),
        "every batch of partition {partition} is in a frame"
    );
}

/// Every frame is what a fresh stage makes of its input.
pub fn assert_computed(record: &Record, partition: u16, revisions: &[Value]) {
    let parse =
        |document: &Value| Terms::parse(document.to_string().as_bytes()).expect("terms without a fault");
    let mut terms: BTreeMap<_, _> =
        revisions.iter().map(parse).map(|terms| (terms.revision, terms)).collect();
    terms.insert(0, Terms::none());
    assert_cut(record, partition, &terms);
    assert_made(record, partition, &terms, geofence::Geofence::default());
    assert_made(record, partition, &terms, allocate::Allocate::default());
    assert_made(record, partition, &terms, audit::Audit::default());
}

/// The spine is what cutting the ingress again gives, where it says that it was cut.
fn assert_cut(record: &Record, partition: u16, terms: &BTreeMap<u64, Terms>) {
    let own = format!("lane.{partition}.");
    let mut ingress =
        record.entries("wagers").iter().filter(|entry| entry.subject.starts_with(&own)).peekable();
    let mut state = State::new(partition);
    for entry in record.entries(&Lane::Validated.stream(partition)) {
        let frame = Frame::<Validated>::decode(&entry.payload).expect("a frame of the spine");
        let compiled = CompiledTerms::new(&terms[&frame.header.terms]);
        let recorded: BTreeMap<_, _> =
            frame.body.batches.iter().map(|batch| (batch.position, batch)).collect();
        let mut messages = Vec::new();
        while let Some(message) = ingress.next_if(|message| message.sequence <= frame.header.ingress.position)
        {
            let parsed = validate::parse(message);
            messages.push(match recorded.get(&message.sequence) {
                None => parsed,
                Some(batch) => parsed.with_recorded(recorded_signature(&batch.verdict)),
            });
        }
        let again = recut(&state, &compiled, &frame.header, &messages).expect("a frame can be cut there");
        assert!(
            again.encode() == entry.payload,
            "frame {} of validated-{partition} is cut as it says",
            entry.sequence
        );
        state.fold(&frame, Digest::of(&entry.payload), &compiled).expect("the frame follows");
    }
}

/// The outputs of a lane's stage are what a fresh one makes of its input.
fn assert_made<S: Stage>(record: &Record, partition: u16, terms: &BTreeMap<u64, Terms>, mut stage: S) {
    stage.restore(None).expect("a fresh stage needs nothing");
    let mut learnt = None;
    let mut previous = vec![Digest::ZERO; S::OUTPUTS.len()];
    for (index, input) in record.entries(&S::INPUT.stream(partition)).iter().enumerate() {
        let frame = Frame::<S::Input>::decode(&input.payload).expect("a frame of the input");
        let header = frame.header.clone();
        if learnt.replace(header.terms) != Some(header.terms) {
            stage.learn(&terms[&header.terms]);
        }
        let made = stage.process(frame).expect("the stage takes its input");
        let digest = Digest::of(&input.payload);
        let headers: Vec<_> = previous.iter().map(|previous| header.next_stage(digest, *previous)).collect();
        for ((lane, payload), previous) in S::OUTPUTS.iter().zip(made.encode(&headers)).zip(&mut previous) {
            let stored = &record.entries(&lane.stream(partition))[index].payload;
            assert!(
                payload == *stored,
                "frame {} of {} is what a fresh stage makes",
                index + 1,
                lane.stream(partition)
            );
            *previous = Digest::of(&payload);
        }
    }
}
