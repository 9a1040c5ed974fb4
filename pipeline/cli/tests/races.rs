//! Two processes of each stage on one partition, neither of which knows of the other: every append is fenced, one
//! wins, and what is stored is what one process alone would have stored. Everything is recomputed from its input.

#![expect(clippy::unwrap_used, reason = "a check that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aggregate::books::Books;
use aggregate::postings::Taken;
use allocate::Allocate;
use audit::Audit;
use bytes::Bytes;
use geofence::Geofence;
use jackpot_core::digest::Digest;
use jackpot_core::frame::Frame;
use jackpot_core::frame::contributions::Contributions;
use jackpot_core::frame::validated::Validated;
use jackpot_core::lane::Lane as Driver;
use jackpot_core::log::{Append, Appender, Entry, Expect, Log};
use jackpot_core::record::{Commit, LevelTotals};
use jackpot_core::stage::{Publication, Stage};
use jackpot_core::terms::cache::TermsCache;
use jackpot_core::time::Millis;
use jackpot_core::topology::{self, Lane};
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval};
use validate::{CompiledTerms, State, parse, recut};

use crate::stages::{Process, World, end, until};

#[path = "support/stages.rs"]
#[allow(dead_code, reason = "each test uses its part")]
mod stages;

/// How long batches are published.
const RACE: Duration = Duration::from_secs(60);
/// How often a batch of each source is.
const ROUND: Duration = Duration::from_millis(25);
/// How long one side of the race is held, by turns, once in every [`TURN`].
const HELD: Duration = Duration::from_millis(250);
/// How long a turn is; for the rest of it both sides run.
const TURN: Duration = Duration::from_millis(1_000);
/// So many appends of each stage each of its two processes must have won.
const WINS_MIN: u64 = 100;
const SOURCES: [&str; 3] = ["eu1", "eu2", "eu3"];
const STAGES: [&str; 5] = ["validate", "geofence", "allocate", "aggregate", "audit"];
/// Wagers of a batch; each of 2 EUR, but one of the batch of every seventh round names an unknown game.
const WAGERS: u64 = 5;

fn terms(revision: u64) -> Value {
    let games: Vec<_> =
        (0..=revision).map(|n| json!({"game": format!("spin-{n}"), "supplier": "x"})).collect();
    let sources: Vec<_> = SOURCES.iter().map(|name| json!({"source": name, "operator": "acme"})).collect();
    json!({
        "schema": "terms/1", "revision": revision,
        "jurisdictions": [{"code": "MT", "status": "permitted"}],
        "operators": [{"operator": "acme", "jurisdictions": ["MT"]}],
        "sources": sources, "games": games,
        "pools": [{"pool": "mega", "currency": "EUR", "jurisdictions": ["MT"], "levels": [
            {"level": "grand", "base": "1000", "increment_ppm": 3000, "reserve_ppm": 1000},
            {"level": "minor", "base": "10", "ceiling": "12", "increment_ppm": 6750, "reserve_ppm": 2250},
        ]}],
    })
}

/// What was published, as far as totals and refusals must tell.
#[derive(Default)]
struct Published {
    messages: u64,
    wagers: u64,
    hits: u64,
    refused: BTreeMap<&'static str, u64>,
}

/// The batch of a source in a round.
fn batch(source: &str, round: u64, published: &mut Published) -> Value {
    let now = Millis::now().to_string();
    let wagers: Vec<_> = (0..WAGERS)
        .map(|index| {
            let unknown = round % 7 == 3 && index == 2;
            let hit = round % 40 == 11 && index == 4;
            *published.refused.entry("unknown_game").or_default() += u64::from(unknown);
            published.wagers += u64::from(!unknown);
            published.hits += u64::from(hit);
            json!({
                "session": format!("s-{}", (round + index) % 50), "interaction": round + 1, "player": "p",
                "game": if unknown { "unheard-of" } else { "spin-1" }, "round": format!("r-{round}"),
                "amount": "2", "currency": "EUR", "funds": "cash", "occurred_at": now,
                "location": {"jurisdiction": "MT", "checked_at": now},
                "hits": if hit { json!([{"pool": "mega", "level": "minor"}]) } else { json!([]) },
            })
        })
        .collect();
    json!({
        "schema": "wager-batch/1", "operator": "acme", "source": source, "sequence": round + 1, "wagers": wagers,
    })
}

/// Publishes for so long, at a steady pace, with some batches twice and some that are none; in the middle, new terms.
async fn publish(world: &World) -> Published {
    let mut published = Published::default();
    let mut appender = world.log.appender().await.unwrap();
    let begun = Instant::now();
    let mut rounds = interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut turned = false;
    let mut round = 0;
    while begun.elapsed() < RACE {
        rounds.tick().await;
        if begun.elapsed() > RACE / 2 && !turned {
            turned = true;
            world.apply(&terms(2)).await;
            published.messages += 1;
        }
        for source in SOURCES {
            let body = batch(source, round, &mut published).to_string();
            let mut bodies = vec![body.clone()];
            if round % 10 == 5 {
                bodies.push(body);
                *published.refused.entry("duplicate_batch").or_default() += 1;
            }
            if round % 25 == 7 {
                bodies.push("{".into());
                *published.refused.entry("malformed").or_default() += 1;
            }
            for body in bodies {
                let (subject, payload) = (topology::wagers("acme", source), Bytes::from(body));
                appender
                    .send(Append { subject, headers: Vec::new(), payload, expect: Expect::Any })
                    .await
                    .unwrap();
                published.messages += 1;
            }
        }
        while appender.in_flight() > 0 {
            appender.acknowledged().await.unwrap();
        }
        round += 1;
    }
    published
}

/// Holds one side after the other, so that each has a while to itself, and each wakes up behind the other one and goes
/// on with what it had in mind.
async fn take_turns(sides: &[Vec<Process>; 2]) {
    let mut turns = interval(TURN);
    for side in (0..2).cycle() {
        turns.tick().await;
        sides[side].iter().for_each(Process::hold);
        let mut rest = interval(HELD);
        rest.tick().await;
        rest.tick().await;
        sides[side].iter().for_each(Process::go_on);
    }
}

/// Whether the ledger of this process was refused, and so stands by.
async fn stands_by(process: &Process) -> bool {
    let (_, body) = process.get("/metrics").await;
    body.lines()
        .any(|line| line.starts_with("jackpot_recoveries_total{cause=\"fenced\"") && !line.ends_with(" 0"))
}

/// Of two aggregates the one at work is ended as Kubernetes does; the other one does not wait for its silence.
#[tokio::test]
async fn nats_a_ledger_that_leaves_hands_over_at_once() {
    let world = World::start(1, &terms(1)).await;
    let patient = ["--stand-by", "60s"];
    let line = world.stages(&patient).await;
    let other = world.stage("aggregate", &patient).await;
    let (mut published, mut round) = (Published::default(), 0);
    let mut publish = async |rounds: u64| {
        for _ in 0..rounds {
            world.publish(&[batch(SOURCES[0], round, &mut published)]).await;
            round += 1;
        }
    };
    publish(5).await;
    world.settled(0).await;
    let (mut line, mut ledgers): (Vec<_>, Vec<_>) =
        line.into_iter().chain([other]).partition(|process| process.stage != "aggregate");
    until("one ledger stands by", async || {
        (stands_by(&ledgers[0]).await || stands_by(&ledgers[1]).await).then_some(())
    })
    .await;
    let working = usize::from(stands_by(&ledgers[0]).await);
    publish(5).await;
    world.settled(0).await;
    let begun = Instant::now();
    ledgers.remove(working).end().await;
    println!("the ledger at work left in {:?}", begun.elapsed());
    publish(5).await;
    world.settled(0).await;
    let took = begun.elapsed();
    println!("all is in totals again {took:?} after it was told to");
    assert!(took < Duration::from_secs(20), "{took:?}: it waited for silence");
    let commits = world.read(topology::COMMITS).await;
    let gaps = commits.windows(2).map(|pair| pair[1].recorded_at.0 - pair[0].recorded_at.0);
    println!("commits were at most {:?} ms apart", gaps.max());
    line.append(&mut ledgers);
    end(line).await;
}

#[tokio::test]
async fn nats_two_of_each_stage_race() {
    let world = World::start(1, &terms(1)).await;
    let mut sides = [Vec::new(), Vec::new()];
    for side in &mut sides {
        for stage in STAGES {
            side.push(world.stage(stage, &["--only", "0", "--stand-by", "0s"]).await);
        }
    }
    let published = tokio::select! {
        published = publish(&world) => published,
        () = take_turns(&sides) => unreachable!("turns are taken for ever"),
    };
    sides.iter().flatten().for_each(Process::go_on);
    world.settled(0).await;
    check_wins(&sides).await;
    for side in sides {
        end(side).await;
    }

    let frames = check_lanes(&world, &published).await;
    let commits = check_commits(&world, &frames).await;
    check_views(&world, &commits, &published).await;
}

/// Each side won its share of the appends, and no append was won twice.
async fn check_wins(sides: &[Vec<Process>; 2]) {
    for (place, stage) in STAGES.iter().enumerate() {
        let label = if *stage == "aggregate" { "commits" } else { "0" };
        let mut wins = [0; 2];
        for (side, wins) in sides.iter().zip(&mut wins) {
            *wins = side[place].metric("jackpot_frames_total", label).await;
        }
        println!("{stage}: {wins:?}");
        assert!(wins.iter().all(|&wins| wins >= WINS_MIN), "{stage}: {wins:?}");
    }
}

/// The lanes are one to one, and each frame is what its input gives. Gives the frames for the ledger.
async fn check_lanes(world: &World, published: &Published) -> Vec<Entry> {
    let ingress = world.read(topology::WAGERS).await;
    assert_eq!(
        ingress.len(),
        usize::try_from(published.messages + 1).unwrap(),
        "every message is there once"
    );
    let mut lanes = BTreeMap::new();
    for lane in Lane::ALL {
        lanes.insert(lane, world.read(&lane.stream(0)).await);
    }
    let frames = lanes[&Lane::Validated].len();
    assert!(lanes.values().all(|entries| entries.len() == frames), "the lanes are one to one");
    check_spine(world, &ingress, &lanes[&Lane::Validated]).await;
    let of = |lane| lanes[&lane].as_slice();
    check_stage(world, Geofence::default(), of(Lane::Validated), &[of(Lane::Geofenced)]).await;
    let outputs = [of(Lane::Allocations), of(Lane::Contributions)];
    check_stage(world, Allocate::default(), of(Lane::Geofenced), &outputs).await;
    let notices = check_stage(world, Audit::default(), of(Lane::Allocations), &[of(Lane::Audit)]).await;
    check_refusals(world, &notices, published).await;
    lanes.remove(&Lane::Contributions).unwrap()
}

/// Every frame of the spine is what its ingress gives where it was cut, and all of the ingress is in one.
async fn check_spine(world: &World, ingress: &[Entry], spine: &[Entry]) {
    let terms = TermsCache::new(world.log.clone());
    let (mut state, mut read) = (State::new(0), 0);
    for entry in spine {
        let frame = Frame::<Validated>::decode(&entry.payload).unwrap();
        let until =
            ingress.iter().position(|message| message.sequence == frame.header.ingress.position).unwrap() + 1;
        assert!(until > read, "frame {} reads on", entry.sequence);
        let messages: Vec<_> = ingress[read..until].iter().map(parse).collect();
        let compiled = CompiledTerms::new(&terms.get(frame.header.terms).await.unwrap());
        let again = recut(&state, &compiled, &frame.header, &messages).unwrap();
        assert_eq!(again.encode(), entry.payload, "frame {} of the spine", entry.sequence);
        assert_eq!(frame.header.ingress.count, u64::try_from(until).unwrap(), "every message is counted");
        state.fold(&frame, Digest::of(&entry.payload), &compiled).unwrap();
        read = until;
    }
    let markers = ingress[read..].iter().all(|message| message.subject.as_ref() == topology::terms_marker(0));
    assert!(markers, "the spine has read every batch");
}

/// Runs a stage over its stored input: its outputs are stored, byte for byte. Gives what it publishes.
async fn check_stage<S: Stage>(
    world: &World,
    stage: S,
    input: &[Entry],
    outputs: &[&[Entry]],
) -> Vec<Publication> {
    let terms = TermsCache::new(world.log.clone());
    let mut lane = Driver::new(stage, 0);
    lane.resume(&vec![None; outputs.len()], u64::try_from(input.len()).unwrap()).unwrap();
    let mut publications = Vec::new();
    for (entry, place) in input.iter().zip(0..) {
        if let Some(revision) = lane.terms_wanted(entry).unwrap() {
            lane.learn(revision, &terms.get(revision).await.unwrap());
        }
        let step = lane.accept(entry).unwrap();
        publications.extend(step.publications);
        for (output, append) in step.appends {
            let stored: &Entry = &outputs[output][place];
            assert_eq!(
                append.payload,
                stored.payload,
                "frame {} of {:?}",
                entry.sequence,
                S::OUTPUTS[output]
            );
            assert_eq!((append.subject.as_str(), entry.sequence), (&*stored.subject, stored.sequence));
            lane.acknowledged(output, entry.sequence);
        }
    }
    publications
}

/// Every refusal was published once, in log order, and they are as many as there must be.
async fn check_refusals(world: &World, notices: &[Publication], published: &Published) {
    let stored = world.read(topology::REFUSALS).await;
    for source in SOURCES {
        let subject = topology::refusals("acme", source);
        let stored = stored.iter().filter(|entry| *entry.subject == *subject).map(|entry| &entry.payload);
        let expect = notices.iter().filter(|notice| notice.subject == subject).map(|notice| &notice.payload);
        assert!(stored.eq(expect), "the refusals on {subject} are those of the frames");
    }
    assert_eq!(stored.len(), notices.len());
    let mut reasons = BTreeMap::<String, u64>::new();
    let mut places = BTreeSet::new();
    for entry in &stored {
        let notice: Value = serde_json::from_slice(&entry.payload).unwrap();
        *reasons.entry(notice["reason"].as_str().unwrap().into()).or_default() += 1;
        assert!(places.insert((notice["frame"].as_u64(), notice["number"].as_u64())), "{notice}");
    }
    let expect = published.refused.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect();
    assert_eq!(reasons, expect);
}

/// Every commit is what its frames give.
async fn check_commits(world: &World, frames: &[Entry]) -> Vec<Commit> {
    let terms = TermsCache::new(world.log.clone());
    let entries = world.read(topology::COMMITS).await;
    let commits: Vec<Commit> =
        entries.iter().map(|entry| serde_json::from_slice(&entry.payload).unwrap()).collect();
    let mut books = Books::start(1, 1, commits[0].settings.clone()).unwrap();
    let mut consumed = 0;
    for (entry, commit) in entries.iter().zip(&commits) {
        let until = usize::try_from(commit.partitions[0].frame).unwrap();
        let taken = frames[consumed..until].iter().map(|entry| Taken {
            digest: Digest::of(&entry.payload),
            frame: Frame::<Contributions>::decode(&entry.payload).unwrap(),
        });
        let newer = commit.terms > books.terms();
        let newer = if newer { Some(terms.get(commit.terms).await.unwrap()) } else { None };
        books.replay(&entry.payload, taken.collect(), newer).unwrap();
        consumed = until;
    }
    assert_eq!(consumed, frames.len(), "every frame is in a commit");
    commits
}

/// The views show what was committed, each hit and window once, and totals are the sum of what was published.
async fn check_views(world: &World, commits: &[Commit], published: &Published) {
    let list =
        |commit: &Commit, name: &str| serde_json::to_value(commit).unwrap()[name].as_array().unwrap().clone();
    for view in [topology::HITS, topology::WINDOWS] {
        let shown: Vec<Value> = world
            .read(view)
            .await
            .iter()
            .map(|entry| serde_json::from_slice(&entry.payload).unwrap())
            .collect();
        let expect: Vec<Value> = commits.iter().flat_map(|commit| list(commit, view)).collect();
        assert!(
            shown.iter().eq(expect.iter().take(shown.len())),
            "{view} are those of the commits, in order"
        );
        // The last commits closed windows while the processes ended.
        assert!(shown.len() == expect.len() || view == topology::WINDOWS, "all {view} are shown");
    }
    for level in ["grand", "minor"] {
        let last = world.log.last(topology::TOTALS, &topology::totals("mega", level)).await.unwrap().unwrap();
        let shown: LevelTotals = serde_json::from_slice(&last.payload).unwrap();
        let committed =
            commits.iter().rev().flat_map(|commit| &commit.levels).find(|totals| totals.level == level);
        assert_eq!(Some(&shown), committed, "totals show the last state of {level}");
        assert_eq!(shown.wagers, published.wagers);
        assert_eq!(shown.wagered.to_string(), (published.wagers * 2).to_string());
        assert_eq!(shown.hits, if level == "minor" { published.hits } else { 0 });
    }
}
