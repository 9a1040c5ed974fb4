//! What is left where a broker lost what it had acknowledged, and somebody has stopped (I9): whatever was done, before and
//! after, was right. Frames and messages that are gone are known here, and what was made of them is held to them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use jackpot_core::log::Entry;
use jackpot_core::topology::Lane;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::Expected;
use super::books::{self, number};
use super::model::{Raw, list, text};
use super::record::{Header, Record, hex, sha256};

/// A part that stopped, and the sentence that it said.
pub type Stopped = BTreeSet<(String, String)>;

/// Holds what is left to what was there.
///
/// # Panics
/// When something wrong was made or shown, or a part has stopped that has seen no contradiction.
pub fn audit(record: &Record, expected: &Expected<'_>, stopped: &Stopped) {
    assert_reasons(expected, stopped);
    for partition in 0..expected.partitions {
        assert_lanes(record, partition, stopped);
        assert_goes_on(record, expected, partition);
    }
    let frames: Vec<Vec<Bytes>> =
        (0..expected.partitions).map(|partition| committed(record, expected, partition)).collect();
    books::assert_made_of(record, expected, &frames);
    let headers: Vec<Vec<Header>> =
        frames.iter().map(|frames| frames.iter().map(|frame| Header::read(frame)).collect()).collect();
    let raws: Vec<Raw> = (0..expected.partitions)
        .zip(&headers)
        .flat_map(|(partition, headers)| read(record, expected, partition, headers))
        .collect();
    let outcome = books::follow(expected, &raws, &record.values("commits"), &headers);
    assert_eq!(outcome.left, 0, "what was committed is in the model");
    assert_shown(record, expected, stopped);
}

/// Who stopped says what to do, and stands where something is missing.
fn assert_reasons(expected: &Expected<'_>, stopped: &Stopped) {
    for (part, why) in stopped {
        assert!(why.contains("restore") || why.contains("apply"), "{part} says what to do: {why}");
        let partition = part.rsplit(' ').next().and_then(|word| word.parse().ok());
        let touched = match partition {
            Some(partition) => is_touched(expected, partition),
            None => true,
        };
        assert!(touched, "{part} stopped, and nothing of its partition was lost: {why}");
    }
}

/// Whether the broker has lost something of a partition, or of the terms.
fn is_touched(expected: &Expected<'_>, partition: u16) -> bool {
    let own = format!("lane.{partition}.");
    let lane = Lane::ALL.iter().any(|lane| !expected.lost.of(&lane.stream(partition)).is_empty());
    let ingress = expected.lost.of("wagers").iter().any(|entry| entry.subject.starts_with(&own));
    lane || ingress
        || ["terms", "commits", "refusals", "sources"].iter().any(|name| !expected.lost.of(name).is_empty())
}

/// Each lane is a chain; and where a frame is not made from the one that is there, somebody has stopped.
fn assert_lanes(record: &Record, partition: u16, stopped: &Stopped) {
    let stops = stopped
        .iter()
        .any(|(part, _)| part.ends_with(&format!("partition {partition}")) || part.contains("ledger"));
    for (lane, input) in [
        (Lane::Validated, None),
        (Lane::Geofenced, Some(Lane::Validated)),
        (Lane::Allocations, Some(Lane::Geofenced)),
        (Lane::Contributions, Some(Lane::Geofenced)),
        (Lane::Audit, Some(Lane::Allocations)),
    ] {
        let stream = lane.stream(partition);
        let inputs = input.map_or(&[][..], |input| record.entries(&input.stream(partition)));
        let mut previous = [0; 32];
        for (index, entry) in record.entries(&stream).iter().enumerate() {
            let header = Header::read(&entry.payload);
            assert_eq!(header.previous, previous, "{stream}: frame {} follows", entry.sequence);
            previous = sha256(&entry.payload);
            if let Some(origin) = inputs.get(index).filter(|_| input.is_some()) {
                let fits = header.input == sha256(&origin.payload);
                assert!(
                    fits || stops,
                    "{stream}: frame {} is made from another frame, and nobody says so",
                    entry.sequence
                );
            }
        }
    }
}

/// Where nothing of a partition is lost, it goes on.
fn assert_goes_on(record: &Record, expected: &Expected<'_>, partition: u16) {
    if is_touched(expected, partition) {
        return;
    }
    let own = format!("lane.{partition}.");
    let batch = |entry: &&Entry| entry.subject.starts_with(&own) && !entry.subject.ends_with(".terms");
    let newest = record.entries("wagers").iter().rev().find(batch).map_or(0, |entry| entry.sequence);
    let spine = record.entries(&Lane::Validated.stream(partition));
    let read = spine.last().map_or(0, |entry| Header::read(&entry.payload).position);
    assert!(read >= newest, "partition {partition} has lost nothing, and does not go on");
    for lane in Lane::ALL {
        let stream = lane.stream(partition);
        assert_eq!(
            record.entries(&stream).len(),
            spine.len(),
            "{stream} has lost nothing, and does not go on"
        );
    }
}

/// The frames of a partition that are in commits, from the first one on, whether or not they are still there: each is
/// found by its digest, which the next one names.
fn committed(record: &Record, expected: &Expected<'_>, partition: u16) -> Vec<Bytes> {
    let stream = Lane::Contributions.stream(partition);
    let there = record.entries(&stream).iter().chain(expected.lost.of(&stream));
    let known: BTreeMap<String, &Entry> = there.map(|entry| (hex(&sha256(&entry.payload)), entry)).collect();
    let Some(last) = record.values("commits").pop() else { return Vec::new() };
    let consumed = &list(&last, "partitions")[usize::from(partition)];
    let mut digest = text(consumed, "digest").to_owned();
    let mut frames = Vec::new();
    for sequence in (1..=number(consumed, "frame")).rev() {
        let entry = known
            .get(&digest)
            .unwrap_or_else(|| panic!("frame {sequence} of {stream} was committed, and never stored"));
        assert_eq!(entry.sequence, sequence, "{stream}: a frame that was committed");
        digest = hex(&Header::read(&entry.payload).previous);
        frames.push(entry.payload.clone());
    }
    frames.reverse();
    frames
}

/// The ingress that these frames read: what is there, or what was there before it was lost, as their chains say.
fn read(record: &Record, expected: &Expected<'_>, partition: u16, headers: &[Header]) -> Vec<Raw> {
    let own = format!("lane.{partition}.");
    let lost = expected.lost.of("wagers");
    let cut = lost.first().map_or(u64::MAX, |entry| entry.sequence);
    let now = || record.entries("wagers").iter();
    let ours = |entry: &&Entry| entry.subject.starts_with(&own);
    let worlds: [Vec<&Entry>; 2] = [
        now().filter(ours).collect(),
        now().filter(|entry| entry.sequence < cut).chain(lost).filter(ours).collect(),
    ];
    let (mut position, mut chain) = (0, [0; 32]);
    let mut raws = Vec::new();
    for header in headers {
        let between = |entry: &&&Entry| (position + 1..=header.position).contains(&entry.sequence);
        let candidates = worlds.iter().map(|world| world.iter().filter(between).copied().collect::<Vec<_>>());
        let mut fitting = candidates.filter(|messages| chained(chain, messages) == header.chain);
        let messages = fitting.next().expect("a frame has read what is or was there");
        raws.extend(messages.into_iter().map(|entry| Raw {
            position: entry.sequence,
            subject: entry.subject.to_string(),
            received_ms: entry.recorded_at.0,
            headers: entry.headers.clone(),
            body: entry.payload.to_vec(),
        }));
        (position, chain) = (header.position, header.chain);
    }
    raws
}

fn chained(chain: [u8; 32], messages: &[&Entry]) -> [u8; 32] {
    messages.iter().fold(chain, |chain, message| {
        let mut hasher = Sha256::new();
        hasher.update(chain);
        hasher.update(message.sequence.to_le_bytes());
        hasher.update(message.subject.as_bytes());
        hasher.update(sha256(&message.payload));
        hasher.finalize().into()
    })
}

/// Views show what is or was committed; and where that is no longer committed, they have stopped.
fn assert_shown(record: &Record, expected: &Expected<'_>, stopped: &Stopped) {
    let lost = expected.lost.of("commits");
    let cut = lost.first().map_or(u64::MAX, |entry| entry.sequence);
    let json = |entry: &Entry| serde_json::from_slice::<Value>(&entry.payload).expect("a commit is JSON");
    let now = || record.entries("commits").iter();
    let present: Vec<Value> = now().map(json).collect();
    let before: Vec<Value> = now().filter(|entry| entry.sequence < cut).chain(lost).map(json).collect();
    for view in ["windows", "hits"] {
        let held = |commits: &[Value]| -> Vec<Value> {
            commits.iter().flat_map(|commit| list(commit, view).to_vec()).collect()
        };
        let (present, before) = (held(&present), held(&before));
        let stops = stopped.iter().any(|(part, _)| part.contains(&format!("view {view}")));
        for (index, shown) in record.values(view).iter().enumerate() {
            let (is, was) = (present.get(index) == Some(shown), before.get(index) == Some(shown));
            assert!(is || was, "{shown} of {view} was never committed");
            assert!(is || stops, "{shown} of {view} is committed no more, and nobody says so");
        }
    }
    let holds = |commits: &[Value], total: &Value| {
        let commit = commits.iter().find(|commit| commit["commit"] == total["commit"]);
        commit.is_some_and(|commit| list(commit, "levels").contains(total))
    };
    for total in record.values("totals") {
        assert!(holds(&present, &total) || holds(&before, &total), "{total} was never committed");
    }
}
