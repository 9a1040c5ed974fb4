//! The intake on a log in memory, started again: it goes on from a snapshot, needs nothing that is older, and does
//! nothing with a spine that the snapshot contradicts.

use jackpot_core::log::{Log, memory::Memory};
use jackpot_core::refusal::StageName;
use jackpot_core::snapshot::{self, Kept, Key};
use jackpot_core::topology::{self, Lane};
use tokio::time::sleep;

use super::halts::{Validate, apply, publish, with_log};
use super::*;

const SPINE: &str = "validated-0";

/// Waits until there are two snapshots, the newer one behind this frame.
async fn snapshots(log: &Memory, frame: u64) -> Vec<Kept> {
    let key = Key::partition(StageName::Validate, 0);
    loop {
        let (kept, _) = snapshot::list(log, &key).await.expect("a list");
        if kept.len() == 2 && kept.last().is_some_and(|newest| newest.frame == frame) {
            return kept;
        }
        sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// A log with three frames of one batch each, written by a validate that is gone, and two snapshots.
async fn filled(log: &Memory) -> Vec<Kept> {
    apply(log, 1, &[]).await;
    let validate = Validate::start(log, None);
    let mut kept = Vec::new();
    for sequence in 1..=3 {
        publish(log, "eu1", sequence, None).await;
        validate.frames(sequence).await;
        if sequence > 1 {
            kept = snapshots(log, sequence).await;
        }
    }
    validate.stop().await;
    kept
}

#[test]
fn it_goes_on_from_a_snapshot_and_remembers_what_was_before() {
    with_log(async |log, _| {
        let kept = filled(&log).await;
        assert_eq!(kept[0].frame, 2);
        log.trim(SPINE, None, 3).await.expect("it is trimmed");
        let validate = Validate::start(&log, None);
        publish(&log, "eu1", 2, None).await;
        publish(&log, "eu1", 4, None).await;
        validate.at_work().await;
        let verdicts = async {
            loop {
                let last = log.last(SPINE, &Lane::Validated.subject(0)).await.expect("it answers");
                let frame = Frame::<Validated>::decode(&last.expect("a frame").payload).expect("a frame");
                if frame.header.ingress.count == 6 {
                    break;
                }
                sleep(std::time::Duration::from_millis(5)).await;
            }
            let mut verdicts = Vec::new();
            for sequence in 4..=log.extent(SPINE).await.expect("it answers").last {
                let entry = log.get(SPINE, sequence).await.expect("it answers").expect("a frame");
                let frame = Frame::<Validated>::decode(&entry.payload).expect("a frame");
                verdicts.extend(frame.body.batches.into_iter().map(|batch| match batch.verdict {
                    Verdict::Accepted(accepted) => format!("accepted {}", accepted.sequence),
                    Verdict::Refused(refused) => refused.reason.to_string(),
                }));
            }
            verdicts
        };
        assert_eq!(verdicts.await, ["duplicate_batch", "accepted 4"]);
        validate.stop().await;
    });
}

#[test]
fn a_spine_that_ends_before_its_snapshot_lost_frames() {
    with_log(async |log, _| {
        filled(&log).await;
        // The same log, but for the last frame of the spine.
        let other = copy(&log, 2).await;
        let validate = Validate::start(&other, None);
        let said = validate.halted().await;
        let expect = "validated-0 ends at frame 2, but there is a snapshot behind frame 3: it lost acknowledged frames";
        assert!(said.contains(expect), "{said}");
        validate.stop().await;
    });
}

#[test]
fn a_snapshot_that_cannot_be_read_is_no_empty_state() {
    with_log(async |log, _| {
        let kept = filled(&log).await;
        let parts = topology::snapshot_parts(StageName::Validate, "0", kept[1].frame);
        log.trim(topology::SNAPSHOTS, Some(&parts), u64::MAX).await.expect("it is trimmed");
        let validate = Validate::start(&log, None);
        let said = validate.halted().await;
        assert!(
            said.contains("the snapshot of validate 0 behind frame 3 is damaged (part 0 is missing)"),
            "{said}"
        );
        assert_eq!(log.extent(SPINE).await.expect("it answers").last, 3, "nothing is made from nothing");
        validate.stop().await;
    });
}

/// A copy of all that a partition's validate reads, its spine only up to a frame.
async fn copy(log: &Memory, until: u64) -> Memory {
    use jackpot_core::log::jetstream::setup::{SetUp, streams};
    use jackpot_core::log::{Append, Appender, Expect};

    let other = Memory::new(streams(&SetUp::new(1)), || RECORDED_AT);
    let mut appender = other.appender().await.expect("an appender");
    for stream in [topology::WAGERS, topology::TERMS, topology::SNAPSHOTS, SPINE] {
        let extent = log.extent(stream).await.expect("it answers");
        let last = if stream == SPINE { until } else { extent.last };
        for sequence in 1..=last {
            // What is gone there is a message that nobody reads here: the numbers are to be the same.
            let entry = log.get(stream, sequence).await.expect("it answers");
            let filler = || message(sequence, &format!("{stream}.filler"), RECORDED_AT, "");
            let Entry { subject, headers, payload, .. } = entry.unwrap_or_else(filler);
            let subject = match subject.strip_prefix("lane.0.") {
                Some(rest) if rest != "terms" => format!("wagers.{rest}"),
                _ => subject.into(),
            };
            appender
                .send(Append { subject, headers, payload, expect: Expect::Any })
                .await
                .expect("it is sent");
            appender.acknowledged().await.expect("it is stored");
        }
    }
    other
}
