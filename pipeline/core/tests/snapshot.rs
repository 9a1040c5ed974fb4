//! Snapshots over the log in memory: what is saved comes back, by the greatest frame that the output holds; of two
//! writers one wins; what is damaged, foreign or of a newer build is said; lanes are trimmed to what nobody needs.

#![expect(clippy::unwrap_used, reason = "a check that cannot go on has failed")]

use bytes::Bytes;
use jackpot_core::digest::Digest;
use jackpot_core::log::jetstream::setup::{SetUp, streams};
use jackpot_core::log::memory::Memory;
use jackpot_core::log::{Append, Appender, Expect, Log};
use jackpot_core::recovery::Trouble;
use jackpot_core::refusal::StageName;
use jackpot_core::snapshot::{self, Frozen, Kept, Key, greatest, list, save, trim_lanes};
use jackpot_core::time::Millis;
use jackpot_core::topology::{self, Lane};

const FORMAT: u16 = 3;
const STREAM: &str = "validated-0";

fn key() -> Key {
    Key::partition(StageName::Validate, 0)
}

async fn append(log: &Memory, subject: String, payload: impl Into<Bytes>) {
    let mut appender = log.appender().await.unwrap();
    let append = Append { subject, headers: Vec::new(), payload: payload.into(), expect: Expect::Any };
    appender.send(append).await.unwrap();
    appender.acknowledged().await.unwrap();
}

/// The message of a frame.
fn message(frame: u64) -> String {
    format!("frame {frame}")
}

/// A log with so many frames on every lane of partition 0.
async fn world(frames: u64) -> Memory {
    let log = Memory::new(streams(&SetUp::new(1)), || Millis(1_780_949_730_123));
    for frame in 1..=frames {
        for lane in Lane::ALL {
            append(&log, lane.subject(0), message(frame)).await;
        }
    }
    log
}

fn frozen(frame: u64, pieces: Vec<Vec<u8>>) -> Frozen {
    let digest = Digest::of(message(frame).as_bytes());
    Frozen { frame, digest, read: vec![frame], format: FORMAT, pieces: Box::new(pieces.into_iter()) }
}

/// Saves a snapshot whose content is the frame's number.
async fn save_at(log: &Memory, key: &Key, frame: u64) -> Option<Kept> {
    save(log, key, frozen(frame, vec![snapshot::piece(&frame)])).await.unwrap()
}

/// The snapshot that a start takes where the output ends there.
async fn begin(log: &Memory, end: u64, format: u16) -> Result<Option<(Kept, Vec<u8>)>, Trouble> {
    let (all, _) = list(log, &key()).await?;
    greatest(log, &key(), all, (STREAM, end), &[], format).await
}

/// The number in the snapshot that a start takes where the output ends there, or what stops it.
async fn taken(log: &Memory, end: u64, format: u16) -> Result<Option<u64>, String> {
    let found = begin(log, end, format).await.map_err(|trouble| trouble.to_string())?;
    Ok(found.map(|(kept, content)| {
        let frame: u64 = snapshot::Saved(&content).take().unwrap();
        assert_eq!(frame, kept.frame);
        frame
    }))
}

#[tokio::test]
async fn the_greatest_one_that_the_output_holds_comes_back() {
    let log = world(10).await;
    assert_eq!(taken(&log, 10, FORMAT).await, Ok(None));
    for frame in [2, 5, 9] {
        save_at(&log, &key(), frame).await.unwrap();
    }
    assert_eq!(taken(&log, 10, FORMAT).await, Ok(Some(9)));
    assert_eq!(taken(&log, 8, FORMAT).await, Ok(Some(5)));
    assert_eq!(taken(&log, 4, FORMAT).await, Ok(None), "two are kept, and the third is gone");
    let kept = list(&log, &key()).await.unwrap().0;
    let subject = topology::snapshot_part(StageName::Validate, "0", 2, 0);
    assert_eq!(kept.iter().map(|kept| kept.frame).collect::<Vec<_>>(), [5, 9]);
    assert_eq!(log.last(topology::SNAPSHOTS, &subject).await.unwrap(), None, "its parts are removed");
    assert_eq!(save_at(&log, &key(), 9).await, None, "there is one that is as new");
}

#[tokio::test]
async fn large_contents_are_cut_into_messages_and_put_together_again() {
    let log = world(3).await;
    let pieces: Vec<_> = (0..40_u8).map(|piece| vec![piece; 70_000]).collect();
    let content = pieces.concat();
    let kept = save(&log, &key(), frozen(3, pieces)).await.unwrap().unwrap();
    assert_eq!((kept.parts, kept.bytes), (6, 2_800_000));
    let (_, read) = begin(&log, 3, FORMAT).await.unwrap().unwrap();
    assert!(read == content);
}

#[tokio::test]
async fn of_two_writers_one_wins() {
    let log = world(9).await;
    save_at(&log, &key(), 1).await.unwrap();
    let key = key();
    let pieces = |frame: u64| vec![snapshot::piece(&frame), vec![7; 600_000]];
    let both = tokio::join!(save(&log, &key, frozen(5, pieces(5))), save(&log, &key, frozen(6, pieces(6))));
    let frames = list(&log, &key).await.unwrap().0.iter().map(|kept| kept.frame).collect::<Vec<_>>();
    let won: Vec<_> = [both.0, both.1].into_iter().filter_map(Result::ok).flatten().collect();
    assert_eq!(won.len(), 1, "the other one learns that it was too late");
    assert_eq!(frames, [1, won[0].frame]);
    let (kept, content) = begin(&log, 9, FORMAT).await.unwrap().unwrap();
    assert_eq!((kept, content.len()), (won[0].clone(), 600_001));
    // What the loser left behind goes with what is older than all that is kept.
    for frame in [7, 8] {
        save_at(&log, &key, frame).await.unwrap();
    }
    let parts = topology::snapshots_all(StageName::Validate, "0");
    let mut reader = log.read(topology::SNAPSHOTS, Some(&parts), 1).await.unwrap();
    let mut left = Vec::new();
    while let Some(entry) = jackpot_core::log::Reader::ready(&mut reader) {
        left.push(entry.unwrap().subject.to_string());
    }
    assert_eq!(left, ["snapshots.validate.0.7.0", "snapshots.validate.0.8.0"]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_used_is_said() {
    let check = async |log: &Memory, format: u16, expect: &str| {
        let said = taken(log, 9, format).await.unwrap_err();
        assert!(said.contains(expect), "{said} should say {expect}");
    };
    let log = world(9).await;
    save_at(&log, &key(), 5).await.unwrap();
    check(&log, FORMAT - 1, "was written by a newer build (form 3, this one knows 2); run that build").await;

    let part = topology::snapshot_part(StageName::Validate, "0", 5, 0);
    append(&log, part, snapshot::piece(&6_u64)).await;
    check(&log, FORMAT, "behind frame 5 is damaged (its content does not have its digest)").await;
    log.trim(topology::SNAPSHOTS, Some("snapshots.*.*.*.*"), u64::MAX).await.unwrap();
    check(&log, FORMAT, "behind frame 5 is damaged (part 0 is missing)").await;
    append(&log, topology::snapshots(StageName::Validate, "0"), "[{}]").await;
    check(&log, FORMAT, "of snapshots cannot be read").await;

    let log = world(9).await;
    let foreign = Frozen { digest: Digest::of(b"another"), ..frozen(4, vec![vec![1]]) };
    save(&log, &key(), foreign).await.unwrap().unwrap();
    check(
        &log,
        FORMAT,
        "frame 4 of validated-0 is not the one that the snapshot of validate 0 was taken behind",
    )
    .await;
}

#[tokio::test]
async fn an_older_one_of_a_form_that_is_known_is_taken() {
    let log = world(9).await;
    save_at(&log, &key(), 5).await.unwrap();
    let newer = Frozen { format: FORMAT + 1, ..frozen(7, vec![vec![1]]) };
    save(&log, &key(), newer).await.unwrap().unwrap();
    assert_eq!(taken(&log, 9, FORMAT).await, Ok(Some(5)));
}

#[tokio::test]
async fn lanes_are_kept_from_the_older_snapshot_of_everybody_on() {
    let log = world(20).await;
    let first = async || {
        let mut firsts = Vec::new();
        for lane in [Lane::Validated, Lane::Geofenced, Lane::Contributions, Lane::Allocations, Lane::Audit] {
            firsts.push(log.extent(&lane.stream(0)).await.unwrap().first);
        }
        firsts
    };
    let (validate, geofence) = (key(), Key::partition(StageName::Geofence, 0));
    for (key, frame) in [(&validate, 6), (&validate, 9), (&geofence, 4)] {
        save_at(&log, key, frame).await.unwrap();
    }
    trim_lanes(&log, 0).await.unwrap();
    assert_eq!(first().await, [1, 1, 1, 1, 1], "geofence has one snapshot, and might need what is before it");
    save_at(&log, &geofence, 12).await.unwrap();
    trim_lanes(&log, 0).await.unwrap();
    assert_eq!(first().await, [4, 4, 1, 1, 1]);
    for frame in [30, 40] {
        let kept = Frozen { read: vec![frame - 25], ..frozen(frame, vec![vec![1]]) };
        save(&log, &Key::ledger(), kept).await.unwrap().unwrap();
    }
    trim_lanes(&log, 0).await.unwrap();
    assert_eq!(first().await, [4, 4, 5, 1, 1]);
    // allocate may still have to make its last frames again, of both outputs.
    append(&log, Lane::Validated.subject(0), message(21)).await;
    for (key, frame) in [(&validate, 20), (&validate, 21), (&geofence, 20), (&geofence, 21)] {
        save_at(&log, key, frame).await.unwrap();
    }
    trim_lanes(&log, 0).await.unwrap();
    assert_eq!(first().await, [20, 20, 5, 1, 1]);
}
