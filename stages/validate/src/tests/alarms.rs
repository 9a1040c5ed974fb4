//! Alarms: what a frame gives rise to, and that the processes of a partition count each once between them.

use std::time::Duration;

use jackpot_core::log::memory::Memory;
use jackpot_core::log::{Append, Appender, Expect, Log};
use jackpot_core::topology;
use tokio::time::sleep;

use super::halts::{Validate, apply, with_log};
use super::*;
use crate::alarms::alarms;
use crate::tally;

/// Number 1 starts a source, 2000 leaves 2 to 975 unseen, and comes again with other content, and with the same.
fn bodies() -> Vec<String> {
    let numbered = |sequence, interaction| batch("eu1", sequence, &[wager("s", interaction)]);
    vec![numbered(1, 1), numbered(2_000, 2), numbered(2_000, 3), numbered(2_000, 2)]
}

#[test]
fn a_frame_gives_rise_to_alarms() {
    let mut state = State::new(0);
    let mut ingress = vec![marker(1, RECORDED_AT, 1)];
    for (position, body) in (2..).zip(bodies()) {
        ingress.push(message(position, "lane.0.acme.eu1", RECORDED_AT, body));
    }
    let frames = run(&mut state, &[terms(1, [None; 2])], &ingress, &[]);
    let told: Vec<_> = frames.iter().flat_map(|frame| alarms(&frame.body)).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("source eu1") && told[0].contains(": 2 to 975 (974 in all);"), "{told:?}");
    assert!(told[1].starts_with("batch eu1/2000 came again with other content"), "{told:?}");
    let tallies: Vec<_> = frames.iter().map(|frame| tally(&frame.body)).collect();
    let counted = tallies.iter().map(|tally| (tally.gaps, tally.gap_batches, tally.conflicts));
    assert_eq!(
        counted.fold((0, 0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1, sum.2 + one.2)),
        (1, 974, 1)
    );
}

async fn publish(log: &Memory, body: String) {
    let mut appender = log.appender().await.expect("an appender");
    let subject = topology::wagers("acme", "eu1");
    let append = Append { subject, headers: Vec::new(), payload: body.into(), expect: Expect::Any };
    appender.send(append).await.expect("it is sent");
    appender.acknowledged().await.expect("it is stored");
}

/// What some processes count of a metric, in all.
fn sum(processes: &[&Validate], metric: &str) -> u64 {
    let value = |process: &&Validate| -> u64 {
        let text = process.metrics.render();
        let line = text.lines().find(|line| line.starts_with(&format!("{metric}{{")));
        let value = line.unwrap_or_else(|| panic!("{metric} is served from the start")).rsplit_once(' ');
        value.expect("a value follows").1.parse().expect("a number")
    };
    processes.iter().map(value).sum()
}

fn counted(processes: &[&Validate]) -> [u64; 4] {
    ["jackpot_batches_in_total", "jackpot_gaps_total", "jackpot_gap_batches_total", "jackpot_conflicts_total"]
        .map(|metric| sum(processes, metric))
}

#[test]
fn processes_that_race_count_each_alarm_once() {
    with_log(async |log, _| {
        apply(&log, 1, &[]).await;
        let (one, other) = (Validate::start(&log, None), Validate::start(&log, None));
        assert_eq!(counted(&[&one, &other]), [0; 4]);
        for body in bodies() {
            publish(&log, body).await;
        }
        while counted(&[&one, &other])[0] < 4 {
            sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(counted(&[&one, &other]), [4, 1, 974, 1]);
        one.stop().await;
        other.stop().await;
        let frames = log.extent("validated-0").await.expect("the stream").last;
        let later = Validate::start(&log, None);
        publish(&log, bodies().swap_remove(3)).await;
        later.frames(frames + 1).await;
        while counted(&[&later])[0] < 1 {
            sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(counted(&[&later]), [1, 0, 0, 0], "what was read back was counted by those who made it");
        later.stop().await;
    });
}
