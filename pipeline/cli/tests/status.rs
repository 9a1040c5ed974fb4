//! `jackpot status` against a real server: a partition that stopped in the ledger alone is a row that says why, and
//! exit 1, until it goes on.

#![expect(clippy::unwrap_used, reason = "a check that cannot go on has failed")]

use std::process::Command;

use jackpot_core::frame::Frame;
use jackpot_core::frame::contributions::{Contributions, Posting};
use jackpot_core::topology::{self, Lane};
use serde_json::Value;

use crate::stages::{Process, World, end, one_level, one_wager, until};

#[path = "support/stages.rs"]
#[allow(dead_code, reason = "each test uses its part")]
mod stages;

const PARTITIONS: u16 = 2;

/// A source whose batches go to partition 0.
fn source() -> String {
    (0..).map(|n| format!("s{n}")).find(|name| topology::partition(name, PARTITIONS) == 0).unwrap()
}

/// A part, its condition, and why it is not at work.
type Part = (String, String, Option<String>);

/// What `status --json` says of the ledger's parts; its exit code, and its sentence.
fn status(world: &World) -> (Vec<Part>, i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jackpot"));
    let output = command.args(["status", "--json", "--nats", world.log.url()]).output().unwrap();
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let ledger = rows.iter().filter(|row| row["stage"] == "aggregate");
    let ledger =
        ledger.map(|row| (text(&row["part"]).unwrap(), text(&row["condition"]).unwrap(), text(&row["why"])));
    let said = String::from_utf8(output.stderr).unwrap();
    (ledger.collect(), output.status.code().unwrap(), said)
}

/// All parts of the ledger run once each has found out that no other process has it, and nothing else is wrong.
async fn all_is_well(world: &World) {
    let ledger = until("all is well", async || {
        let (ledger, code, _) = status(world);
        (code == 0).then_some(ledger)
    });
    let ledger = ledger.await;
    let parts: Vec<_> = ledger.iter().map(|(part, ..)| part.as_str()).collect();
    assert_eq!(
        parts,
        ["ledger commits", "partition 0", "partition 1", "view hits", "view totals", "view windows"]
    );
    assert!(ledger.iter().all(|(_, condition, why)| condition == "running" && why.is_none()), "{ledger:?}");
}

fn place(running: &[Process], stage: &str) -> usize {
    running.iter().position(|process| process.stage == stage).unwrap()
}

#[tokio::test]
async fn nats_a_partition_that_stopped_in_the_ledger_is_told_until_it_goes_on() {
    let world = World::start(PARTITIONS, &one_level(&source())).await;
    let mut running = world.stages(&[]).await;
    for process in &running {
        process.ready().await;
    }
    world.publish(&[one_wager(&source(), 1), one_wager(&source(), 2)]).await;
    world.settled(0).await;
    all_is_well(&world).await;

    // The log is changed and restored while its writer is away: of all stages the ledger alone has seen it.
    running.remove(place(&running, "allocate")).end().await;
    let mut original = None;
    let last = |messages: &mut Vec<bytes::Bytes>| {
        let mut frame = Frame::<Contributions>::decode(messages.last().unwrap()).unwrap();
        let Posting::Sum(sum) = &mut frame.body.postings[0] else { unreachable!("nothing was won") };
        sum.eligible.0 += 1;
        original = messages.pop();
        messages.push(frame.encode());
    };
    world.tamper(Lane::Contributions, 0, last).await;
    let ledger = running.remove(place(&running, "aggregate"));
    let said = ledger.stopped("partition 0").await;
    assert!(said.contains("of contributions-0 is not the one that was committed"), "{said}");
    world.tamper(Lane::Contributions, 0, |messages| *messages.last_mut().unwrap() = original.unwrap()).await;
    let allocate = world.stage("allocate", &[]).await;
    allocate.ready().await;
    running.push(allocate);
    let (parts, code, sentence) = status(&world);
    let why = |wanted: &str| parts.iter().find(|(part, ..)| part == wanted).unwrap();
    assert_eq!(why("partition 0"), &("partition 0".into(), "stopped".into(), Some(said.clone())));
    assert_eq!(why("partition 1").1, "running");
    assert_eq!(why("ledger commits").1, "running");
    assert_eq!(code, 1);
    assert_eq!(sentence, format!("jackpot: partition 0 of aggregate is not at work (stopped): {said}\n"));

    // Another process takes the ledger over and finds all as it should be.
    ledger.hold();
    let other = world.stage("aggregate", &[]).await;
    other.ready().await;
    world.publish(&[one_wager(&source(), 3)]).await;
    world.settled(0).await;
    all_is_well(&world).await;

    // The first one gets it back, looks anew, and has nothing to say any more.
    ledger.go_on();
    other.end().await;
    ledger.ready().await;
    world.publish(&[one_wager(&source(), 4)]).await;
    world.settled(0).await;
    assert_eq!(ledger.metric("jackpot_partition_stopped", "0").await, 0);
    all_is_well(&world).await;
    running.push(ledger);
    end(running).await;
}
