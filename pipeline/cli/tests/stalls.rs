//! What goes silent without an error: a connection of which one direction is dead, and a broker that stands still. The
//! stages notice it within seconds, count it, and mend it by themselves; nothing is lost or counted twice.
//! The stages' binaries must be built: `cargo build --workspace`.

#![expect(clippy::unwrap_used, reason = "a check that cannot go on has failed")]

use std::time::Duration;

use jackpot_core::log::Log;
use jackpot_core::record::LevelTotals;
use jackpot_core::topology;
use tokio::time::{Instant, interval, sleep};

use crate::proxy::{Proxy, Way};
use crate::stages::{Process, World, end, one_level, one_wager, until};

#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/stages.rs"]
#[allow(dead_code, reason = "each test uses its part")]
mod stages;

/// From the moment at which a connection dies by halves, all is well again so soon. An acknowledgement is waited for for
/// 5 s, and an echo for 2 s; the rest is room for a machine that others use too.
const MENDED_WITHIN: Duration = Duration::from_secs(25);
/// Who hears nothing says so himself, unless the connection's pings have ended it before.
const LOST: [&str; 2] = ["stalled", "transient"];
const STAGES: [&str; 5] = ["validate", "geofence", "allocate", "aggregate", "audit"];

/// How often the parts of a process started over for these causes.
async fn recoveries(process: &Process, causes: &[&str]) -> u64 {
    let (_, body) = process.get("/metrics").await;
    let count = |cause: &&str| {
        let start = format!("jackpot_recoveries_total{{cause=\"{cause}\"");
        let line = body.lines().find(|line| line.starts_with(&start)).unwrap();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    causes.iter().map(count).sum()
}

async fn wagers(world: &World) -> u64 {
    let last = world.log.last(topology::TOTALS, &topology::totals("mega", "grand")).await.unwrap();
    last.map_or(0, |last| serde_json::from_slice::<LevelTotals>(&last.payload).unwrap().wagers)
}

/// Each direction of each stage's connection dies in turn under a steady flow.
#[tokio::test]
async fn nats_a_connection_that_is_half_dead_is_made_anew() {
    let world = World::start(1, &one_level("eu1")).await;
    let mut proxies = Vec::new();
    let mut processes = Vec::new();
    for stage in STAGES {
        let proxy = Proxy::start(&world.url()).await;
        processes.push(world.stage_at(&proxy.url, stage, &[]).await);
        proxies.push(proxy);
    }
    let mut sequence = 0;
    let mut publish = async |count: u64| {
        for _ in 0..count {
            sequence += 1;
            world.publish(&[one_wager("eu1", sequence)]).await;
            sleep(Duration::from_millis(20)).await;
        }
        world.settled(0).await;
        sequence
    };
    publish(10).await;
    for (process, proxy) in processes.iter().zip(&proxies) {
        for way in [Way::ToBroker, Way::FromBroker] {
            let (before, connections) = (recoveries(process, &LOST).await, proxy.connections());
            let begun = Instant::now();
            proxy.swallow(way);
            publish(10).await;
            let took = begun.elapsed();
            println!("{} {way:?}: {took:?}", process.stage);
            assert!(took < MENDED_WITHIN, "{} {way:?}: {took:?}", process.stage);
            assert!(proxy.connections() > connections, "{} {way:?}: it is another connection", process.stage);
            until(&format!("{} {way:?} is counted", process.stage), async || {
                (recoveries(process, &LOST).await > before).then_some(())
            })
            .await;
            process.ready().await;
        }
    }
    let published = publish(10).await;
    assert_eq!(wagers(&world).await, published);
    end(processes).await;
}

/// A wager every two seconds, just as often as the readers are looked at: nobody starts over.
#[tokio::test]
async fn nats_a_quiet_flow_is_no_stall() {
    let world = World::start(1, &one_level("eu1")).await;
    let processes = world.stages(&[]).await;
    let mut rounds = interval(Duration::from_secs(2));
    for sequence in 1..=6 {
        rounds.tick().await;
        world.publish(&[one_wager("eu1", sequence)]).await;
    }
    world.settled(0).await;
    assert_eq!(wagers(&world).await, 6);
    for process in &processes {
        assert_eq!(recoveries(process, &LOST).await, 0, "{}: {}", process.stage, process.said());
    }
    end(processes).await;
}
