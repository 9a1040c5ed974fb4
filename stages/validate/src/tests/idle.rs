//! What a partition says that has read all there is: event time follows the clock only once nothing was stored for a
//! while, and not at all where the clock is not the broker's.

use std::time::Duration;

use jackpot_core::log::jetstream::setup::{SetUp, streams};
use jackpot_core::log::memory::Memory;
use jackpot_core::log::{Append, Appender, Expect, Log};
use jackpot_core::record::IdleNotice;
use jackpot_core::refusal::StageName;
use jackpot_core::runner::{Context, drive};
use jackpot_core::terms::store;
use jackpot_core::topology;
use tokio::sync::watch;
use tokio::time::timeout;

use super::*;
use crate::intake::{Intake, Settings};

/// What was said, with this machine's clock around it.
struct Said {
    notice: IdleNotice,
    from: Millis,
    to: Millis,
}

impl Said {
    /// Whether the notice carries the time of then, by a clock that is off by so much.
    fn is_stamped(&self, off_ms: i64) -> bool {
        let range = self.from.plus(off_ms)..=self.to.plus(off_ms);
        self.notice.at.is_some_and(|at| range.contains(&at))
    }

    /// Whether the watermark is the clock of then, less the lateness.
    fn follows_the_clock(&self) -> bool {
        let range = self.from.plus(-LATENESS_MS)..=self.to.plus(-LATENESS_MS);
        self.notice.watermark.is_some_and(|watermark| range.contains(&watermark))
    }
}

/// Runs the intake of one partition whose broker's clock is off by so much, with a batch stored or none; gives what it
/// says first, what it says once it is idle, and whether it alarms.
async fn said(off_ms: i64, batch_stored: bool) -> (Said, Said, bool) {
    let log = Memory::new(streams(&SetUp::new(1)), move || Millis::now().plus(off_ms));
    let mut terms = terms(1, [None; 2]);
    terms.sources.retain(|source| source.keys.is_empty());
    let claim = store::store(&log, &terms).await.expect("it is stored");
    store::activate(&log, 1, &claim).await.expect("it is activated");
    if batch_stored {
        let payload = batch("eu1", 1, &[wager("s", 1)]).into();
        let subject = topology::wagers("acme", "eu1");
        let mut appender = log.appender().await.expect("an appender");
        let append = Append { subject, headers: Vec::new(), payload, expect: Expect::Any };
        appender.send(append).await.expect("it is sent");
        appender.acknowledged().await.expect("it is stored");
    }
    let (stop, shutdown) = watch::channel(false);
    let context = Context {
        stand_by: Duration::from_millis(100),
        ..Context::new(log.clone(), StageName::Validate, shutdown)
    };
    let metrics = context.metrics.clone();
    // Notices come twice a second: the first one before the partition is idle, and the fourth one after.
    let settings = Settings {
        lateness: Duration::from_millis(LATENESS_MS.unsigned_abs()),
        idle_after: Duration::from_millis(1_200),
    };
    let mut notices = log.listen(topology::IDLE_ALL).await.expect("it listens");
    let heard = async {
        let from = Millis::now();
        let mut all = Vec::new();
        while all.len() < 4 {
            let (_, payload) = notices.recv().await.expect("the partition says something");
            let notice = serde_json::from_slice(&payload).expect("a notice");
            all.push(Said { notice, from, to: Millis::now() });
        }
        stop.send_replace(true);
        let last = all.pop().expect("four");
        (all.swap_remove(0), last)
    };
    let intake = Intake::new(context.clone(), 0, settings);
    let (first, last) = timeout(Duration::from_secs(30), async {
        let (heard, ()) = tokio::join!(heard, drive(&context, intake));
        heard
    })
    .await
    .expect("it does not hang");
    (first, last, metrics.render().contains("jackpot_clock_astray{stage=\"validate\"} 1"))
}

#[tokio::test]
async fn a_partition_follows_the_clock_once_it_is_idle_and_the_clock_is_right() {
    let event = Some(batch_time().plus(-LATENESS_MS));
    let (never, before, right, astray, ahead) =
        tokio::join!(said(0, false), said(0, true), said(400, true), said(700, true), said(-700, false));
    assert_eq!((never.0.notice.watermark, never.0.notice.terms), (None, 1), "it is not idle yet");
    assert!(never.1.follows_the_clock() && !never.2, "one that never had an event counts as idle");
    assert_eq!(
        (before.0.notice.watermark, before.0.notice.frame),
        (event, 1),
        "its own event time until it is idle"
    );
    assert!(
        before.1.follows_the_clock() && right.1.follows_the_clock() && !right.2,
        "half a second is near enough"
    );
    assert_eq!(astray.1.notice.watermark, event, "a clock that is astray advances nothing");
    assert_eq!(ahead.1.notice.watermark, None);
    assert!(astray.2 && ahead.2, "and alarms");
    assert!(
        never.0.is_stamped(0) && astray.1.is_stamped(700) && ahead.1.is_stamped(-700),
        "a notice carries the broker's time, whatever this machine's clock says"
    );
}

/// When the one wager happened.
fn batch_time() -> Millis {
    let parsed: serde_json::Value = serde_json::from_str(&wager("s", 1)).expect("a wager");
    Millis::parse(parsed["occurred_at"].as_str().expect("a time")).expect("a time")
}
