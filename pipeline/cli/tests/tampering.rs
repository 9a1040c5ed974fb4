//! Logs that were changed, or lost what was acknowledged, under a pipeline on a real server: the partition stops where
//! that is noticed, with a sentence, and the other partition goes on to totals and audit.
//!
//! What is noticed when: the last frame of a log by its writer and its reader as soon as they start; any other frame
//! by the reader that comes to it, or to the one behind it.

#![expect(clippy::unwrap_used, reason = "a check that cannot go on has failed")]

use bytes::Bytes;
use jackpot_core::frame::allocations::Allocations;
use jackpot_core::frame::audited::Audited;
use jackpot_core::frame::batch::{Batch, Verdict};
use jackpot_core::frame::contributions::{Contributions, Posting};
use jackpot_core::frame::geofenced::Geofenced;
use jackpot_core::frame::symbols::Symbols;
use jackpot_core::frame::validated::Validated;
use jackpot_core::frame::{Body, Frame};
use jackpot_core::log::{Append, Appender, Expect, Log};
use jackpot_core::money::Micro;
use jackpot_core::record::LevelTotals;
use jackpot_core::refusal::StageName;
use jackpot_core::time::Millis;
use jackpot_core::topology::{self, Lane};
use serde_json::{Value, json};

use crate::stages::{Process, World, end, until};

#[path = "support/stages.rs"]
#[allow(dead_code, reason = "each test uses its part")]
mod stages;

const PARTITIONS: u16 = 2;
/// Wagers of a batch, of 2 EUR each.
const WAGERS: u64 = 3;
const STAGES: [&str; 5] = ["validate", "geofence", "allocate", "aggregate", "audit"];

/// A pipeline of two partitions with one source each; everything is done to partition 0.
struct Scene {
    world: World,
    /// The number of each source's last batch.
    sequences: [u64; 2],
    running: Vec<Process>,
    /// Flags of all stages.
    flags: &'static [&'static str],
}

/// The source whose batches go to a partition.
fn source(partition: u16) -> String {
    (0..).map(|n| format!("s{n}")).find(|name| topology::partition(name, PARTITIONS) == partition).unwrap()
}

impl Scene {
    /// All stages run, and three frames of each partition are in totals and audit.
    async fn open() -> Self {
        Self::open_with(&[]).await
    }

    /// The same, with snapshots as often as can be, until all lanes are trimmed.
    async fn open_trimmed() -> Self {
        let mut scene = Self::open_with(&["--snapshot-bytes", "1"]).await;
        for _ in 0..50 {
            if scene.is_trimmed().await {
                return scene;
            }
            for partition in 0..PARTITIONS {
                scene.publish(partition, Lane::Audit).await;
                scene.world.settled(partition).await;
            }
        }
        panic!("lanes are trimmed before there are 50 frames more");
    }

    async fn is_trimmed(&self) -> bool {
        for lane in [Lane::Validated, Lane::Geofenced, Lane::Contributions] {
            for partition in 0..PARTITIONS {
                if self.world.log.extent(&lane.stream(partition)).await.unwrap().first <= 1 {
                    return false;
                }
            }
        }
        true
    }

    async fn open_with(flags: &'static [&'static str]) -> Self {
        let sources: Vec<_> =
            (0..PARTITIONS).map(|p| json!({"source": source(p), "operator": "acme"})).collect();
        let terms = json!({
            "schema": "terms/1", "revision": 1,
            "jurisdictions": [{"code": "MT", "status": "permitted"}],
            "operators": [{"operator": "acme", "jurisdictions": ["MT"]}],
            "sources": sources, "games": [{"game": "spin", "supplier": "x"}],
            "pools": [{"pool": "mega", "currency": "EUR", "jurisdictions": ["MT"], "levels": [
                {"level": "grand", "base": "1000", "increment_ppm": 3000, "reserve_ppm": 1000},
            ]}],
        });
        let world = World::start(PARTITIONS, &terms).await;
        let mut scene = Self { world, sequences: [0; 2], running: Vec::new(), flags };
        scene.run(&STAGES).await;
        for partition in 0..PARTITIONS {
            scene.publish(partition, Lane::Audit).await;
            scene.publish(partition, Lane::Audit).await;
            scene.publish(partition, Lane::Audit).await;
            scene.world.settled(partition).await;
        }
        scene
    }

    async fn run(&mut self, stages: &[&'static str]) {
        for stage in stages {
            self.running.push(self.world.stage(stage, self.flags).await);
        }
    }

    /// Ends these stages.
    async fn end(&mut self, stages: &[&str]) {
        let running = std::mem::take(&mut self.running);
        let (ending, staying) = running.into_iter().partition(|process| stages.contains(&process.stage));
        self.running = staying;
        end(ending).await;
    }

    fn process(&self, stage: &str) -> &Process {
        self.running.iter().find(|process| process.stage == stage).unwrap()
    }

    /// Publishes a batch, and waits until it is a frame of this lane.
    async fn publish(&mut self, partition: u16, until: Lane) {
        let sequence = &mut self.sequences[usize::from(partition)];
        *sequence += 1;
        self.world.publish(&[batch(&source(partition), *sequence)]).await;
        self.world.reached(until, partition).await;
    }

    /// Partition 0 has stopped in this stage and in no other place of it, and says so.
    async fn stopped(&self, stage: &str, sentence: &str) {
        let process = self.process(stage);
        let said = process.stopped("partition 0").await;
        assert!(said.contains(sentence), "{stage} says: {said}\nand should say: {sentence}");
        assert!(said.contains("; "), "{stage} says what to do: {said}");
        assert_eq!(process.metric("jackpot_partition_stopped", "0").await, 1, "{stage}");
        assert_eq!(process.metric("jackpot_partition_stopped", "1").await, 0, "{stage}");
    }

    /// A part has stopped, and others may have for the same reason; gives its sentence.
    async fn stopped_among(&self, stage: &str, part: &str, label: &str) -> String {
        let process = self.process(stage);
        let start = format!("{part} stopped: ");
        let said = until(&format!("{stage} says that {part} has stopped"), async || {
            let (status, body) = process.get("/readyz").await;
            let said = body.lines().find_map(|line| line.strip_prefix(&start)).map(str::to_owned);
            said.filter(|_| status == 503)
        })
        .await;
        assert_eq!(process.metric("jackpot_partition_stopped", label).await, 1, "{stage}");
        said
    }

    /// What is published for partition 1 still reaches totals and audit.
    async fn the_other_goes_on(&mut self) {
        let before = self.wagers().await;
        self.publish(1, Lane::Audit).await;
        self.world.settled(1).await;
        assert!(self.wagers().await >= before + WAGERS, "totals go on");
    }

    /// Whatever was published is in totals and audit, once.
    async fn all_goes_on(&mut self) {
        for partition in 0..PARTITIONS {
            self.publish(partition, Lane::Audit).await;
        }
        for partition in 0..PARTITIONS {
            self.world.settled(partition).await;
        }
        assert_eq!(self.wagers().await, self.sequences.iter().sum::<u64>() * WAGERS);
    }

    async fn wagers(&self) -> u64 {
        let last = self.world.log.last(topology::TOTALS, &topology::totals("mega", "grand")).await.unwrap();
        serde_json::from_slice::<LevelTotals>(&last.unwrap().payload).unwrap().wagers
    }
}

fn batch(source: &str, sequence: u64) -> Value {
    let now = Millis::now().to_string();
    let wagers: Vec<_> = (0..WAGERS)
        .map(|index| {
            json!({
                "session": format!("s-{index}"), "interaction": sequence, "player": "p", "game": "spin",
                "round": "r", "amount": "2", "currency": "EUR", "funds": "cash", "occurred_at": now,
                "location": {"jurisdiction": "MT", "checked_at": now},
            })
        })
        .collect();
    json!({
        "schema": "wager-batch/1", "operator": "acme", "source": source, "sequence": sequence, "wagers": wagers,
    })
}

/// Changes a message in one place, so that it is still a frame in its place.
type Change = fn(&Bytes) -> Bytes;

fn changed<B: Body>(message: &Bytes, change: impl FnOnce(&mut B)) -> Bytes {
    let mut frame = Frame::<B>::decode(message).unwrap();
    change(&mut frame.body);
    let changed = frame.encode();
    assert_ne!(changed, *message);
    changed
}

/// The first wager of a frame.
fn first<W>(batches: &mut [Batch<W>]) -> &mut W {
    match &mut batches[0].verdict {
        Verdict::Accepted(accepted) => &mut accepted.wagers[0],
        Verdict::Refused(_) => unreachable!("all batches are accepted"),
    }
}

const VALIDATED: (Lane, Change) =
    (Lane::Validated, |message| changed::<Validated>(message, |body| first(&mut body.batches).amount.0 += 1));
const GEOFENCED: (Lane, Change) =
    (Lane::Geofenced, |message| changed::<Geofenced>(message, |body| first(&mut body.batches).amount.0 += 1));
const ALLOCATIONS: (Lane, Change) = (Lane::Allocations, |message| {
    changed::<Allocations>(message, |body| {
        first(&mut body.batches).participations[0].eligible = Micro(3_000_000)
    })
});
const CONTRIBUTIONS: (Lane, Change) = (Lane::Contributions, |message| {
    changed::<Contributions>(message, |body| match &mut body.postings[0] {
        Posting::Sum(sum) => sum.eligible.0 += 1,
        Posting::Hit(_) => unreachable!("nothing was won"),
    })
});
const AUDIT: (Lane, Change) =
    (Lane::Audit, |message| changed::<Audited>(message, |body| body.leaves.swap(0, 1)));

/// The pool of a contributions frame gets a name that no terms have.
fn of_another_pool(message: &Bytes) -> Bytes {
    changed::<Contributions>(message, |body| {
        let mut renamed = Symbols::default();
        for name in body.symbols.names() {
            renamed.intern(if name == "mega" { "giga" } else { name });
        }
        body.symbols = renamed;
    })
}

/// The last frame that everybody had done with is changed: its writer, and the one who made the next log of it, stop.
/// Once the stream is restored, all goes on.
#[tokio::test]
async fn nats_a_changed_last_frame_stops_its_partition_until_it_is_restored() {
    let mut scene = Scene::open().await;
    let mut check = async |(lane, change): (Lane, Change), expect: &[(&str, &str)]| {
        scene.end(&STAGES).await;
        let mut original = Bytes::new();
        scene
            .world
            .tamper(lane, 0, |messages| {
                let last = messages.last_mut().unwrap();
                original = last.clone();
                *last = change(last);
            })
            .await;
        scene.run(&STAGES).await;
        for (stage, sentence) in expect {
            scene.stopped(stage, sentence).await;
        }
        scene.the_other_goes_on().await;
        scene.end(&STAGES).await;
        scene.world.tamper(lane, 0, |messages| *messages.last_mut().unwrap() = original).await;
        scene.run(&STAGES).await;
        scene.all_goes_on().await;
    };
    check(
        VALIDATED,
        &[
            ("validate", "of validated-0 is not what cutting it again from wagers gives"),
            ("geofence", "of validated-0 is not the one that geofenced-0 was made from"),
        ],
    )
    .await;
    check(
        GEOFENCED,
        &[
            ("geofence", "of geofenced-0 is not what computing it again from validated-0 gives"),
            ("allocate", "of geofenced-0 is not the one that allocations-0 was made from"),
        ],
    )
    .await;
    check(
        ALLOCATIONS,
        &[
            ("allocate", "of allocations-0 is not what computing it again from geofenced-0 gives"),
            ("audit", "of allocations-0 is not the one that audit-0 was made from"),
        ],
    )
    .await;
    check(AUDIT, &[("audit", "of audit-0 is not what computing it again from allocations-0 gives")]).await;
}

/// Frames wait, since their reader does not run; one of them is changed, and then the reader starts.
#[tokio::test]
async fn nats_a_changed_frame_that_waits_stops_its_partition() {
    let check = async |reader: &'static str,
                       (lane, change): (Lane, Change),
                       behind: usize,
                       expect: &[(&str, &str)]| {
        let mut scene = Scene::open().await;
        scene.end(&[reader]).await;
        for _ in 0..3 {
            scene.publish(0, lane).await;
        }
        scene.end(&STAGES).await;
        scene
            .world
            .tamper(lane, 0, |messages| {
                let place = messages.len() - 1 - behind;
                messages[place] = change(&messages[place]);
            })
            .await;
        scene.run(&STAGES).await;
        for (stage, sentence) in expect {
            scene.stopped(stage, sentence).await;
        }
        scene.the_other_goes_on().await;
        scene.end(&STAGES).await;
    };
    let spine = ("validate", "it does not follow the frame that came before it");
    check(
        "geofence",
        VALIDATED,
        1,
        &[spine, ("geofence", "frame 6 of validated-0 does not follow the frame 5")],
    )
    .await;
    check("allocate", GEOFENCED, 1, &[("allocate", "frame 6 of geofenced-0 does not follow the frame 5")])
        .await;
    check(
        "audit",
        ALLOCATIONS,
        1,
        &[("audit", "frame 5 of allocations-0 is not what the terms of revision 1 give")],
    )
    .await;
    check(
        "aggregate",
        CONTRIBUTIONS,
        1,
        &[("aggregate", "frame 6 of contributions-0 does not follow the frame 5")],
    )
    .await;
    // The last one: nothing is behind it that would tell its reader, but its writer knows.
    check("allocate", GEOFENCED, 0, &[("geofence", "frame 6 of geofenced-0 is not what computing it again")])
        .await;
    let writer =
        ("allocate", "frame 6 of contributions-0 is not what computing it again from geofenced-0 gives");
    check("aggregate", CONTRIBUTIONS, 0, &[writer]).await;
    let pool = ("aggregate", "giga, which the books do not know");
    check("aggregate", (Lane::Contributions, of_another_pool), 0, &[writer, pool]).await;
}

/// The log changes under a ledger that runs and has consumed it.
#[tokio::test]
async fn nats_the_ledger_stops_one_partition_alone() {
    let mut scene = Scene::open().await;
    scene.end(&["allocate"]).await;
    let (lane, change) = CONTRIBUTIONS;
    scene
        .world
        .tamper(lane, 0, |messages| {
            let last = messages.last_mut().unwrap();
            *last = change(last);
        })
        .await;
    scene.stopped("aggregate", "frame 3 of contributions-0 is not the one that was committed").await;
    scene.run(&["allocate"]).await;
    scene.stopped("allocate", "frame 3 of contributions-0 is not what computing it again").await;
    scene.the_other_goes_on().await;
    scene.end(&STAGES).await;

    let mut scene = Scene::open().await;
    scene.end(&["allocate"]).await;
    scene.world.tamper(lane, 0, |messages| messages.truncate(2)).await;
    scene.stopped("aggregate", "contributions-0 ends at frame 2, but commit").await;
    // What allocate lost within the bound on what is in flight it makes again; the ledger goes on when it is started.
    scene.run(&["allocate"]).await;
    scene.world.reached(lane, 0).await;
    scene.the_other_goes_on().await;
    scene.end(&["aggregate"]).await;
    scene.run(&["aggregate"]).await;
    scene.all_goes_on().await;
    scene.end(&STAGES).await;
}

/// A stream that is shorter than what was made of it.
#[tokio::test]
async fn nats_a_log_that_lost_its_tail_stops_its_partition() {
    let mut scene = Scene::open().await;
    scene.end(&STAGES).await;
    scene.world.tamper(Lane::Geofenced, 0, |messages| messages.truncate(2)).await;
    // Without geofence for partition 0, which would make the frame again.
    let geofence = scene.world.stage("geofence", &["--only", "1"]).await;
    scene.running.push(geofence);
    scene.run(&["validate", "allocate", "aggregate", "audit"]).await;
    scene
        .stopped(
            "allocate",
            "geofenced-0 ends at frame 2, but allocations-0 holds frames made from it up to 3",
        )
        .await;
    scene.the_other_goes_on().await;
    scene.end(&["geofence", "allocate"]).await;
    scene.run(&["geofence"]).await;
    scene.world.reached(Lane::Geofenced, 0).await;
    scene.run(&["allocate"]).await;
    scene.all_goes_on().await;
    scene.end(&STAGES).await;
}

/// The ingress without its last batch, which is partition 0's; then with another batch in its place.
#[tokio::test]
async fn nats_an_ingress_that_lost_wagers_stops_its_partition() {
    for grown_again in [false, true] {
        let mut scene = Scene::open().await;
        scene.publish(0, Lane::Audit).await;
        scene.end(&STAGES).await;
        let mut ingress: Vec<_> = scene
            .world
            .read(topology::WAGERS)
            .await
            .into_iter()
            .map(|entry| {
                let words: Vec<_> = entry.subject.split('.').collect();
                let subject = match words[..] {
                    ["lane", _, operator, source] => topology::wagers(operator, source),
                    _ => entry.subject.to_string(),
                };
                (subject, entry.payload)
            })
            .collect();
        let (subject, _) = ingress.pop().unwrap();
        assert_eq!(subject, topology::wagers("acme", &source(0)));
        scene.world.replace(topology::WAGERS, &ingress).await;
        if grown_again {
            scene.world.publish(&[batch(&source(0), 1_000)]).await;
        }
        scene.run(&STAGES).await;
        scene
            .stopped("validate", "the stream wagers does not hold what frame 4 of validated-0 was made of")
            .await;
        scene.the_other_goes_on().await;
        scene.end(&STAGES).await;
    }
}

/// The one thing that heals by itself: what the spine lost is cut again from the ingress, where geofence's frames tell
/// the cuts. Geofence stops meanwhile, and goes on when it is started again.
#[tokio::test]
async fn nats_a_spine_that_lost_its_tail_is_made_again() {
    let mut scene = Scene::open().await;
    scene.end(&STAGES).await;
    let before = scene.world.read(&Lane::Validated.stream(0)).await;
    scene.world.tamper(Lane::Validated, 0, |messages| messages.truncate(1)).await;
    scene.run(&["geofence"]).await;
    scene
        .stopped("geofence", "validated-0 ends at frame 1, but geofenced-0 holds frames made from it up to 3")
        .await;
    scene.end(&["geofence"]).await;
    scene.run(&["validate"]).await;
    scene.world.reached(Lane::Validated, 0).await;
    let payloads = |entries: Vec<jackpot_core::log::Entry>| -> Vec<_> {
        entries.into_iter().map(|entry| entry.payload).collect()
    };
    assert_eq!(payloads(scene.world.read(&Lane::Validated.stream(0)).await), payloads(before));
    scene.run(&["geofence", "allocate", "aggregate", "audit"]).await;
    scene.all_goes_on().await;
    scene.end(&STAGES).await;
}

/// `validated-0` was deleted, and `init` made it anew, when its beginning had long been trimmed.
#[tokio::test]
async fn nats_a_trimmed_stream_made_anew_stops_its_partition() {
    let mut scene = Scene::open_trimmed().await;
    scene.end(&STAGES).await;
    scene.world.replace(&Lane::Validated.stream(0), &[]).await;
    scene.run(&STAGES).await;
    scene
        .stopped("geofence", "validated-0 ends at frame 0, but geofenced-0 holds frames made from it up to")
        .await;
    scene.stopped("validate", "frame 1 cannot be made again: what geofence made of it is not there").await;
    scene.the_other_goes_on().await;
    scene.end(&STAGES).await;

    let mut scene = Scene::open_trimmed().await;
    scene.end(&STAGES).await;
    scene.world.replace(&Lane::Geofenced.stream(0), &[]).await;
    scene.run(&STAGES).await;
    scene.stopped("geofence", "geofenced-0 ends at frame 0, but there is a snapshot behind frame").await;
    scene
        .stopped("allocate", "geofenced-0 ends at frame 0, but allocations-0 holds frames made from it up to")
        .await;
    scene.the_other_goes_on().await;
    scene.end(&STAGES).await;
}

/// The states of partition 0, as their snapshots are listed.
fn states() -> [(StageName, String); 2] {
    [StageName::Validate, StageName::Geofence].map(|stage| (stage, topology::snapshots(stage, "0")))
}

/// Lists of snapshots that another deployment wrote.
#[tokio::test]
async fn nats_snapshots_of_another_deployment_stop_their_partition() {
    let mut other = Scene::open_trimmed().await;
    other.end(&STAGES).await;
    let mut scene = Scene::open_trimmed().await;
    let last = other.world.log.extent(&Lane::Geofenced.stream(0)).await.unwrap().last;
    while scene.world.reached(Lane::Audit, 0).await < last {
        scene.publish(0, Lane::Audit).await;
    }
    scene.end(&STAGES).await;
    let mut appender = scene.world.log.appender().await.unwrap();
    for (_, subject) in states() {
        let list = other.world.log.last(topology::SNAPSHOTS, &subject).await.unwrap().unwrap();
        let append = Append { subject, headers: Vec::new(), payload: list.payload, expect: Expect::Any };
        appender.send(append).await.unwrap();
        appender.acknowledged().await.unwrap();
    }
    scene.run(&STAGES).await;
    scene
        .stopped("validate", "of validated-0 is not the one that the snapshot of validate 0 was taken behind")
        .await;
    scene
        .stopped("geofence", "of geofenced-0 is not the one that the snapshot of geofence 0 was taken behind")
        .await;
    scene.the_other_goes_on().await;
    scene.end(&STAGES).await;
}

/// The stream `snapshots` was emptied: of partition 0 first, then of all.
#[tokio::test]
async fn nats_lost_snapshots_stop_what_they_are_needed_for() {
    let mut scene = Scene::open_trimmed().await;
    scene.end(&STAGES).await;
    let log = scene.world.log.clone();
    let last = log.extent(topology::SNAPSHOTS).await.unwrap().last;
    for (stage, list) in states() {
        for filter in [list, topology::snapshots_all(stage, "0")] {
            log.trim(topology::SNAPSHOTS, Some(&filter), last + 1).await.unwrap();
        }
    }
    scene.run(&STAGES).await;
    let none =
        |state: &str| format!("the stream `snapshots` holds no snapshot of {state} for what was before");
    scene.stopped("validate", &none("validate 0")).await;
    scene.stopped("geofence", &none("geofence 0")).await;
    scene.the_other_goes_on().await;
    scene.end(&STAGES).await;

    let last = log.extent(topology::SNAPSHOTS).await.unwrap().last;
    log.trim(topology::SNAPSHOTS, None, last + 1).await.unwrap();
    scene.run(&STAGES).await;
    for stage in ["validate", "geofence"] {
        for partition in ["0", "1"] {
            let said = scene.stopped_among(stage, &format!("partition {partition}"), partition).await;
            assert!(said.contains(&none(&format!("{stage} {partition}"))), "{said}");
        }
    }
    let said = scene.stopped_among("aggregate", "ledger commits", "commits").await;
    assert!(said.contains(&none("aggregate commits")), "{said}");
    scene.end(&STAGES).await;
}

/// The stream `terms` was deleted and made anew: who starts then and needs them stops, and all goes on once it is restored.
#[tokio::test]
async fn nats_missing_terms_stop_what_they_are_needed_for() {
    let mut scene = Scene::open().await;
    scene.end(&STAGES).await;
    let terms: Vec<_> = scene
        .world
        .read(topology::TERMS)
        .await
        .into_iter()
        .map(|entry| (entry.subject.to_string(), entry.payload))
        .collect();
    scene.world.replace(topology::TERMS, &[]).await;
    scene.run(&STAGES).await;
    for stage in ["validate", "geofence", "allocate", "audit"] {
        for partition in ["0", "1"] {
            let said = scene.stopped_among(stage, &format!("partition {partition}"), partition).await;
            assert!(said.contains("revision 1"), "{stage}: {said}");
            assert!(said.contains("; "), "{stage} says what to do: {said}");
        }
    }
    let said = scene.stopped_among("aggregate", "ledger commits", "commits").await;
    assert!(said.contains("revision 1"), "{said}");
    scene.end(&STAGES).await;
    scene.world.replace(topology::TERMS, &terms).await;
    scene.run(&STAGES).await;
    scene.all_goes_on().await;
    scene.end(&STAGES).await;
}
