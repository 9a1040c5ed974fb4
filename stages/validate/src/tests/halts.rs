//! The intake on a log in memory: where a key is missing it stops at the marker, and goes on when the key is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jackpot_core::frame::validated::Validated;
use jackpot_core::health::{Condition, Health};
use jackpot_core::log::jetstream::setup::{SetUp, streams};
use jackpot_core::log::memory::Memory;
use jackpot_core::log::{Append, Appender, Expect, Log};
use jackpot_core::metrics::Metrics;
use jackpot_core::refusal::StageName;
use jackpot_core::rules;
use jackpot_core::runner::Context;
use jackpot_core::snapshot::{Key, drive_archived};
use jackpot_core::terms::store;
use jackpot_core::topology;
use tokio::sync::watch;
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

use super::*;
use crate::KeyFile;
use crate::intake::{Intake, Settings};

/// A validate of one partition, as long as it is not dropped.
pub(super) struct Validate {
    log: Memory,
    health: Health,
    pub metrics: Metrics,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Validate {
    pub fn start(log: &Memory, keys: Option<PathBuf>) -> Self {
        let (stop, shutdown) = watch::channel(false);
        let context = Context {
            stand_by: Duration::from_millis(100),
            snapshot_bytes: 1,
            ..Context::new(log.clone(), StageName::Validate, shutdown)
        };
        let (health, metrics) = (context.health.clone(), context.metrics.clone());
        let settings = Settings { lateness: Duration::from_secs(2), idle_after: Duration::from_millis(20) };
        let key = Key::partition(StageName::Validate, 0);
        let task = tokio::task::spawn_local(drive_archived(context, key, vec![0], move |context, desk| {
            Intake::new(context, 0, settings).with_keys(KeyFile::new(keys)).with_desk(desk)
        }));
        Self { log: log.clone(), health, metrics, stop, task }
    }

    /// Waits until the partition is halted, and gives what it says.
    pub async fn halted(&self) -> String {
        loop {
            if let [(_, Condition::Stopped(why))] = &self.health.parts()[..] {
                assert!(
                    self.metrics
                        .render()
                        .contains("jackpot_partition_stopped{partition=\"0\",stage=\"validate\"} 1")
                );
                return why.clone();
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until there are so many frames, and gives the revisions that they were made under.
    pub async fn frames(&self, count: u64) -> Vec<u64> {
        let mut revisions = Vec::new();
        for sequence in 1..=count {
            let entry = loop {
                match self.log.get("validated-0", sequence).await.expect("the stream") {
                    Some(entry) => break entry,
                    None => sleep(Duration::from_millis(5)).await,
                }
            };
            revisions.push(Frame::<Validated>::decode(&entry.payload).expect("a frame").header.terms);
        }
        revisions
    }

    pub async fn at_work(&self) {
        while self.health.ready().is_err() {
            sleep(Duration::from_millis(5)).await;
        }
        assert!(
            self.metrics.render().contains("jackpot_partition_stopped{partition=\"0\",stage=\"validate\"} 0")
        );
    }

    pub async fn stop(self) {
        self.stop.send_replace(true);
        self.task.await.expect("it ends");
    }
}

pub(super) async fn apply(log: &Memory, revision: u64, keys: &[&str]) {
    let mut terms = terms(revision, [None; 2]);
    terms.sources[2].keys = keys.iter().map(|&key| key.into()).collect();
    let claim = store::store(log, &terms).await.expect("it is stored");
    store::activate(log, 1, &claim).await.expect("it is activated");
}

pub(super) async fn publish(log: &Memory, source: &str, sequence: u64, key: Option<&str>) {
    let body = batch(source, sequence, &[wager("s", sequence)]);
    let entry = message(1, "", RECORDED_AT, body);
    let entry = match key {
        Some(key) => signed(entry, key, source, sequence),
        None => entry,
    };
    let mut appender = log.appender().await.expect("an appender");
    let subject = topology::wagers("acme", source);
    let append = Append { subject, headers: entry.headers, payload: entry.payload, expect: Expect::Any };
    appender.send(append).await.expect("it is sent");
    appender.acknowledged().await.expect("it is stored");
}

/// Runs a test over a fresh log and a key file.
pub(super) fn with_log(test: impl AsyncFnOnce(Memory, &Path)) {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("keys");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let log = Memory::new(streams(&SetUp::new(1)), || RECORDED_AT);
    let ran = async { timeout(Duration::from_secs(30), test(log, &file)).await.expect("it does not hang") };
    runtime.block_on(LocalSet::new().run_until(ran));
}

#[test]
fn it_stops_at_the_marker_and_goes_on_when_the_key_is_there() {
    with_log(async |log, file| {
        fs::write(file, KEYS.lines().next().expect("a line")).expect("the file is written");
        let validate = Validate::start(&log, Some(file.to_owned()));
        let mut notices = log.listen(topology::IDLE_ALL).await.expect("it listens");
        apply(&log, 1, &["k1"]).await;
        publish(&log, "signed", 1, Some("k1")).await;
        assert_eq!(validate.frames(1).await, [1]);
        apply(&log, 2, &["k1", "k2"]).await;
        publish(&log, "signed", 2, Some("k2")).await;
        publish(&log, "eu1", 1, None).await;
        let expect = format!(
            "revision 2 of the terms names keys that are not there, k2; add them to {}, which is read again every second",
            file.display()
        );
        assert_eq!(validate.halted().await, expect);
        assert_eq!(log.extent("validated-0").await.expect("the stream").last, 1);
        while notices.try_recv().is_ok() {}
        fs::write(file, "k1 not-a-secret").expect("the file is written");
        while validate.halted().await == expect {
            sleep(Duration::from_millis(5)).await;
        }
        let told = validate.halted().await;
        assert!(told.contains("line 1 of the key file") && !told.contains("not-a-secret"), "{told}");
        let said = notices.try_recv().map(|(_, payload)| payload);
        assert!(said.is_err(), "a halted partition is not idle: {said:?}");
        fs::write(file, KEYS).expect("the file is written");
        assert_eq!(validate.frames(2).await, [1, 2]);
        validate.at_work().await;
        validate.stop().await;
    });
}

#[test]
fn it_stops_at_a_start_too_where_nothing_waits() {
    with_log(async |log, file| {
        fs::write(file, KEYS).expect("the file is written");
        apply(&log, 1, &["k1"]).await;
        publish(&log, "signed", 1, Some("k1")).await;
        let before = Validate::start(&log, Some(file.to_owned()));
        assert_eq!(before.frames(1).await, [1]);
        before.stop().await;

        let without = Validate::start(&log, None);
        assert_eq!(
            without.halted().await,
            "revision 1 of the terms names keys that are not there, k1; no key file was given: start validate with --keys FILE"
        );
        without.stop().await;

        fs::write(file, "").expect("the file is written");
        let waiting = Validate::start(&log, Some(file.to_owned()));
        assert!(waiting.halted().await.contains("not there, k1; add them to"));
        fs::write(file, KEYS).expect("the file is written");
        waiting.at_work().await;
        publish(&log, "signed", 2, Some("k1")).await;
        assert_eq!(waiting.frames(2).await, [1, 1]);
        waiting.stop().await;
    });
}

#[test]
fn it_stops_at_the_marker_of_later_rules() {
    with_log(async |log, _| {
        let later = rules::KNOWN + 1;
        let validate = Validate::start(&log, None);
        apply(&log, 1, &[]).await;
        publish(&log, "eu1", 1, None).await;
        assert_eq!(validate.frames(1).await, [1]);
        let of_a_newer_build = Terms { rules: later, ..terms(2, [None; 2]) };
        let claim = store::store(&log, &of_a_newer_build).await.expect("it is stored");
        store::activate(&log, 1, &claim).await.expect("it is activated");
        publish(&log, "eu1", 2, None).await;
        let expect = format!(
            "revision 2 of the terms is under rules {later}, and this build knows them up to {}; deploy a newer build, \
             which takes over here by itself",
            rules::KNOWN
        );
        assert_eq!(validate.halted().await, expect);
        assert_eq!(log.extent("validated-0").await.expect("the stream").last, 1);
        validate.stop().await;
    });
}

/// A quiet partition may start long after a rotation: what keys were named in between, nobody needs any more.
#[test]
fn terms_that_judge_nothing_need_no_keys() {
    with_log(async |log, file| {
        fs::write(file, KEYS).expect("the file is written");
        apply(&log, 1, &["k1"]).await;
        publish(&log, "signed", 1, Some("k1")).await;
        let before = Validate::start(&log, Some(file.to_owned()));
        assert_eq!(before.frames(1).await, [1]);
        before.stop().await;
        apply(&log, 2, &["k1", "k2"]).await;
        apply(&log, 3, &["k2"]).await;
        fs::write(file, KEYS.lines().nth(1).expect("a line")).expect("the file is written");
        let after = Validate::start(&log, Some(file.to_owned()));
        publish(&log, "signed", 2, Some("k2")).await;
        assert_eq!(after.frames(2).await, [1, 3]);
        after.at_work().await;
        after.stop().await;
    });
}
