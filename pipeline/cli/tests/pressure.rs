//! Back-pressure and trimming (design, section 7) on a real server with small streams: a stage that is held while
//! wagers come fills its lane, and slows whoever writes it, up to the producer; nothing grows beyond its bound, and
//! when it goes on, everything drains and adds up. A full record stops the deployment, says so, and goes on after
//! `jackpot init --max-bytes`. What a stage that is down still needs is not trimmed.
//! The stages' binaries must be built: `cargo build --workspace`.

#![expect(clippy::unwrap_used, reason = "a check that cannot go on has failed")]

use std::path::PathBuf;
use std::time::Duration;

use jackpot_core::log::Log;
use jackpot_core::record::LevelTotals;
use jackpot_core::refusal::StageName;
use jackpot_core::snapshot::{Key, list};
use jackpot_core::time::Millis;
use jackpot_core::topology::{self, Lane};
use serde_json::{Value, json};
use tokio::process::Child;
use tokio::time::Instant;

use crate::stages::{Process, World, end, one_level, until};

#[path = "support/stages.rs"]
#[allow(dead_code, reason = "each test uses its part")]
mod stages;

/// A stage's process may have so much in memory, built without optimization: what it holds ahead is a few MiB.
const RESIDENT_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// How long each sync of a slow disk takes.
const SYNC: Duration = Duration::from_millis(100);
/// Wagers of a batch: two of them fill a frame.
const WAGERS: u64 = 500;
/// Lanes that a few frames fill: the ledger's frames are sums, and smaller.
const LANES: [(&str, u64); 3] =
    [("validated", 256 << 10), ("geofenced", 128 << 10), ("contributions", 48 << 10)];

/// Batches of one source, and how many were made.
#[derive(Default)]
struct Source {
    batches: u64,
}

impl Source {
    /// The next batch: wagers of 2.50 EUR, each in a session of its own, and in a second of its own, so that the ledger's
    /// sums are many.
    fn batch(&mut self, wagers: u64) -> Value {
        self.batches += 1;
        let (sequence, now) = (self.batches, Millis::now());
        let wagers: Vec<_> = (0..wagers)
            .map(|index| {
                let at = now.plus(-1_000 * i64::try_from(wagers - index).unwrap()).to_string();
                json!({
                    "session": format!("s-{sequence}-{index}"), "interaction": 1, "player": "p", "game": "spin", "round": "r",
                    "amount": "2.50", "currency": "EUR", "funds": "cash", "occurred_at": at,
                    "location": {"jurisdiction": "MT", "checked_at": at},
                })
            })
            .collect();
        json!({"schema": "wager-batch/1", "operator": "acme", "source": "eu1", "sequence": sequence, "wagers": wagers})
    }

    /// `jackpot publish` of so many batches, under way.
    fn publish(&mut self, world: &World, batches: u64) -> (Child, PathBuf) {
        let file = world.dir().join(format!("batches-{}", self.batches));
        let lines: Vec<_> = (0..batches).map(|_| self.batch(WAGERS).to_string()).collect();
        std::fs::write(&file, lines.join("\n")).unwrap();
        let errors = file.with_extension("log");
        let mut command = world.jackpot(&["publish", file.to_str().unwrap(), "--timeout", "300s"]);
        command.stdout(std::process::Stdio::null()).stderr(std::fs::File::create(&errors).unwrap());
        (command.spawn().unwrap(), errors)
    }
}

/// `jackpot init --max-bytes`, while everything runs.
async fn resize(world: &World, stream: &str, size: &str) {
    let output = world.jackpot(&["init", "--max-bytes", &format!("{stream}={size}")]).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn finished(mut publishing: Child) {
    assert!(publishing.wait().await.unwrap().success(), "all batches were acknowledged");
}

/// No stream holds more than it may, and no process more than its part of the memory.
async fn check_bounds(world: &World, processes: &[Process]) {
    for name in StageName::ALL.iter().flat_map(|&stage| jackpot_core::room::streams(stage, &[0])) {
        let extent = world.log.extent(&name).await.unwrap();
        assert!(extent.bytes <= extent.max_bytes, "{name}: {extent:?}");
    }
    for process in processes {
        let bytes = process.resident_bytes();
        assert!(bytes < RESIDENT_BYTES_MAX, "{} has {bytes} bytes in memory", process.stage);
    }
}

/// All that was published is in the totals, to the last digit, and is in them once.
async fn check_totals(world: &World, wagers: u64) {
    let last = world.log.last(topology::TOTALS, &topology::totals("mega", "grand")).await.unwrap().unwrap();
    let totals: LevelTotals = serde_json::from_slice(&last.payload).unwrap();
    assert_eq!(totals.wagers, wagers);
    let eur = |ten_thousandths: u64| {
        let (whole, rest) = (wagers * ten_thousandths / 10_000, wagers * ten_thousandths % 10_000);
        format!("{whole}.{rest:0>4}").trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    assert_eq!(totals.wagered.to_string(), eur(25_000));
    assert_eq!(totals.contributed.to_string(), eur(100));
    assert_eq!(totals.reserve.to_string(), eur(25));
}

fn find<'a>(processes: &'a [Process], stage: &str) -> &'a Process {
    processes.iter().find(|process| process.stage == stage).unwrap()
}

/// Every stage but validate in turn is held until its lane is full and the spine behind it too; with snapshots as rare
/// as by default, which these lanes are too small for.
#[tokio::test]
async fn nats_a_stage_that_is_held_slows_those_before_it_and_then_all_drains() {
    let world = World::sized(1, &one_level("eu1"), &LANES).await;
    let processes = world.stages(&[]).await;
    let mut source = Source::default();
    for (held, lane, batches) in [
        ("geofence", Lane::Validated, 25),
        ("allocate", Lane::Geofenced, 40),
        ("aggregate", Lane::Contributions, 70),
    ] {
        find(&processes, held).hold();
        let (publishing, _) = source.publish(&world, batches);
        let writer = find(&processes, lane.writer().as_str());
        let said = writer.says("is full").await;
        let (stream, advice) = (lane.stream(0), "it drains once the stages that read it go on");
        assert!(said.contains(&format!("{stream} (")) && said.contains(advice), "{said}");
        let said = find(&processes, "validate").says("is full").await;
        assert!(said.contains("validated-0 ("), "{said}");
        finished(publishing).await;
        check_bounds(&world, &processes).await;
        find(&processes, held).go_on();
        world.settled(0).await;
        for process in &processes {
            process.ready().await;
        }
        check_bounds(&world, &processes).await;
        check_totals(&world, source.batches * WAGERS).await;
    }
    for lane in [Lane::Validated, Lane::Geofenced, Lane::Contributions] {
        let extent = world.log.extent(&lane.stream(0)).await.unwrap();
        assert!(extent.first > 1, "{lane:?} was trimmed: {extent:?}");
    }
    end(processes).await;
}

/// A broker that answers as late as over a slow disk slows the whole flow and nothing else: no process gathers what it
/// cannot get rid of, none takes its connection for dead, and all adds up. The broker is held where its syncs would take
/// long.
#[tokio::test]
async fn nats_a_slow_disk_slows_everybody_down_and_no_more() {
    let world = World::sized(1, &one_level("eu1"), &LANES).await;
    let processes = world.stages(&[]).await;
    let mut source = Source::default();
    let begun = Instant::now();
    let (publishing, _) = source.publish(&world, 20);
    let mut syncs = 0;
    let flow = async {
        finished(publishing).await;
        world.settled(0).await;
    };
    let disk = async {
        loop {
            world.slow_down(SYNC).await;
            syncs += 1;
            if syncs % 5 == 0 {
                check_bounds(&world, &processes).await;
            }
        }
    };
    tokio::select! {
        () = flow => {}
        () = disk => {}
    }
    world.slow_down(Duration::ZERO).await;
    println!("{syncs} syncs in {:?}", begun.elapsed());
    assert!(syncs >= 10, "the disk was slow: {syncs}");
    check_bounds(&world, &processes).await;
    check_totals(&world, source.batches * WAGERS).await;
    for process in &processes {
        process.ready().await;
        assert!(!process.said().contains("half dead"), "{}: {}", process.stage, process.said());
    }
    end(processes).await;
}

/// The wagers themselves come to their limit: publishers are refused and wait, until there is room.
#[tokio::test]
async fn nats_a_full_ingress_refuses_until_it_may_hold_more() {
    let world = World::sized(1, &one_level("eu1"), &[("wagers", 1 << 20)]).await;
    let processes = world.stages(&[]).await;
    let validate = find(&processes, "validate");
    validate.hold();
    let mut source = Source::default();
    let (mut publishing, errors) = source.publish(&world, 20);
    until("a publisher is refused", async || {
        let said = std::fs::read_to_string(&errors).unwrap();
        let advice = "raise its limit with `jackpot init --max-bytes wagers=SIZE`";
        (said.contains("the stream is full: wagers (") && said.contains(advice)).then_some(())
    })
    .await;
    assert!(publishing.try_wait().unwrap().is_none(), "it waits");
    validate.go_on();
    world.reached(Lane::Audit, 0).await;
    check_bounds(&world, &processes).await;
    assert!(publishing.try_wait().unwrap().is_none(), "wagers are the record, and never trimmed");
    resize(&world, "wagers", "64MiB").await;
    finished(publishing).await;
    world.settled(0).await;
    check_totals(&world, source.batches * WAGERS).await;
    end(processes).await;
}

/// A full record stops the deployment where it is written, with a reason, not ready; an operator gives it room.
#[tokio::test]
async fn nats_a_full_record_stops_the_deployment_until_it_may_hold_more() {
    for (stream, stage, part) in
        [("allocations-0", "allocate", "partition 0"), ("commits", "aggregate", "ledger commits")]
    {
        let world = World::sized(1, &one_level("eu1"), &[(stream, 64 << 10)]).await;
        let processes = world.stages(&[]).await;
        let writer = find(&processes, stage);
        let mut source = Source::default();
        let said = until(&format!("{stream} is full"), async || {
            world.publish(&[source.batch(20)]).await;
            let (status, body) = writer.get("/readyz").await;
            let line = body.lines().find(|line| line.contains("is full"))?;
            assert_eq!(status, 503, "{body}");
            Some(line.to_owned())
        })
        .await;
        let advice = format!("raise its limit with `jackpot init --max-bytes {stream}=SIZE`");
        assert!(said.starts_with(&format!("{part}: the stream is full: {stream} (")), "{said}");
        assert!(said.contains(&advice), "{said}");
        let status = world.jackpot(&["status", "--json"]).output().await.unwrap();
        let status = String::from_utf8_lossy(&status.stdout).into_owned();
        assert!(status.contains(&format!("--max-bytes {stream}=SIZE")), "{status}");
        let warned = format!("{stream} holds ");
        until(&format!("{stage} warns"), async || writer.said().contains(&warned).then_some(())).await;
        assert_eq!(writer.said().matches(&warned).count(), 1, "it warns once: {}", writer.said());
        check_room(writer, stream).await;

        resize(&world, stream, "64MiB").await;
        world.publish(&[source.batch(20)]).await;
        world.settled(0).await;
        writer.ready().await;
        check_totals(&world, source.batches * 20).await;
        end(processes).await;
    }
}

/// The metrics say that the stream is above the mark from which on somebody must look.
async fn check_room(process: &Process, stream: &str) {
    let (_, body) = process.get("/metrics").await;
    let value = |name: &str| {
        let label = format!("stream=\"{stream}\"");
        let line = body.lines().find(|line| line.starts_with(&format!("{name}{{")) && line.contains(&label));
        line.unwrap_or_else(|| panic!("{name} of {stream}: {body}")).rsplit(' ').next().unwrap().to_owned()
    };
    let bytes = |name| value(name).parse::<u64>().unwrap();
    assert_eq!(bytes("jackpot_stream_bytes_max"), 64 << 10);
    assert!(bytes("jackpot_stream_bytes") * 100 >= 80 * (64 << 10), "{body}");
    assert!(["0", "+Inf"].contains(&value("jackpot_stream_seconds_left").as_str()), "{body}");
}

/// The newest snapshot of a state: the last frame of its input that it holds.
async fn snapshot(world: &World, key: &Key) -> u64 {
    list(&world.log, key).await.unwrap().0.last().map_or(0, |kept| kept.read[0])
}

/// While a stage is down, the others write snapshots and trim; what it has not read stays, and it goes on from there.
#[tokio::test]
async fn nats_what_a_stage_that_is_down_needs_is_not_trimmed() {
    let world = World::start(1, &one_level("eu1")).await;
    let often = ["--snapshot-bytes", "16384"];
    let mut processes = world.stages(&often).await;
    let mut source = Source::default();
    let validate = Key::partition(StageName::Validate, 0);
    for (down, lane) in
        [("geofence", Lane::Validated), ("allocate", Lane::Geofenced), ("aggregate", Lane::Contributions)]
    {
        let place = processes.iter().position(|process| process.stage == down).unwrap();
        processes.remove(place).end().await;
        let before = world.log.extent(&lane.stream(0)).await.unwrap();
        let reached = snapshot(&world, &validate).await;
        until("validate has written some snapshots more", async || {
            world.publish(&[source.batch(50)]).await;
            (snapshot(&world, &validate).await > reached + 20).then_some(())
        })
        .await;
        let during = world.log.extent(&lane.stream(0)).await.unwrap();
        assert!(during.last > before.last, "{lane:?} grew: {before:?}, {during:?}");
        assert!(
            during.first <= before.last + 1,
            "{lane:?} holds what {down} has not read: {before:?}, {during:?}"
        );
        processes.insert(place, world.stage(down, &often).await);
        world.settled(0).await;
        check_totals(&world, source.batches * 50).await;
        until(&format!("{lane:?} is trimmed now"), async || {
            world.publish(&[source.batch(50)]).await;
            (world.log.extent(&lane.stream(0)).await.unwrap().first > before.last).then_some(())
        })
        .await;
        world.settled(0).await;
    }
    check_totals(&world, source.batches * 50).await;
    end(processes).await;
}
