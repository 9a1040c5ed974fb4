//! What `terms plan` prints and how it ends, against the log in memory.

use jackpot_core::log::jetstream::setup::{SetUp, streams};
use jackpot_core::log::memory::Memory;
use jackpot_core::log::{Append, Appender as _, Expect};
use jackpot_core::time::Millis;
use serde_json::{Value, json};

use super::*;
use crate::terms::EXAMPLE;

struct World {
    log: Memory,
    directory: tempfile::TempDir,
}

impl World {
    /// The example is applied as revision 1, and its first level stands so high.
    async fn start(current: &str) -> Self {
        let log = Memory::new(streams(&SetUp::new(1)), || Millis(0));
        let world = Self { log, directory: tempfile::tempdir().expect("a directory") };
        let example = Terms::parse(EXAMPLE).expect("the example");
        store::store(&world.log, &example).await.expect("it is stored");
        let valid = concat!(env!("CARGO_MANIFEST_DIR"), "/../../schemas/totals/valid/after-a-wager.json");
        let mut totals: Value =
            serde_json::from_slice(&std::fs::read(valid).expect("an example")).expect("JSON");
        totals["current"] = json!(current);
        let subject = topology::totals(&example.pools[0].pool, &example.pools[0].levels[0].level);
        let payload = totals.to_string().into();
        let mut appender = world.log.appender().await.expect("an appender");
        let append = Append { subject, headers: Vec::new(), payload, expect: Expect::Any };
        appender.send(append).await.expect("it is sent");
        appender.acknowledged().await.expect("it is stored");
        world
    }

    /// Plans the example with a change: what is printed, and why it failed, if it did.
    async fn plan(&self, json: bool, change: impl Fn(&mut Value)) -> (String, Option<String>) {
        let mut document: Value = serde_json::from_slice(EXAMPLE).expect("JSON");
        document["revision"] = json!(2);
        change(&mut document);
        let file = self.directory.path().join("terms.json");
        std::fs::write(&file, document.to_string()).expect("a file");
        let server = Server::default();
        let mut out = Vec::new();
        let outcome = run(&Args { server, file, json }, &self.log, &mut out).await;
        (String::from_utf8(out).expect("text"), outcome.err().map(|error| error.to_string()))
    }

    /// Expects of each change its place, its class and words of its reason; a refused one is a failure.
    #[track_caller]
    fn check((printed, failed): (String, Option<String>), expect: &[(&str, &str, &str)]) {
        let lines: Vec<_> = printed.lines().skip(1).collect();
        assert_eq!(lines.len(), expect.len(), "{printed}");
        for (line, (place, class, reason)) in lines.iter().zip(expect) {
            let words: Vec<_> = line.split_whitespace().collect();
            assert_eq!((words[0], words[1]), (*place, *class), "{printed}");
            assert!(line.contains(reason), "{line}");
        }
        let refused = expect.iter().any(|(_, class, _)| *class == "refused");
        assert_eq!(failed.is_some(), refused, "{failed:?}");
    }
}

#[tokio::test]
async fn the_same_document_prints_nothing() {
    let world = World::start("500000").await;
    let same = |document: &mut Value| document["revision"] = json!(1);
    assert_eq!(world.plan(false, same).await, (String::new(), None));
    assert_eq!(world.plan(true, same).await, ("[]\n".to_owned(), None));
    assert_eq!(
        world.plan(false, |_| {}).await,
        (String::new(), None),
        "the next number alone changes nothing"
    );
}

#[tokio::test]
async fn each_change_has_its_class_and_its_reason() {
    let world = World::start("600000").await;
    let grand = "pools.mega.levels.grand";
    let level = |document: &mut Value, field: &str, value: Value| {
        document["pools"][0]["levels"][0][field] = value;
    };
    let check = World::check;
    check(
        world.plan(false, |document| level(document, "increment_ppm", json!(1))).await,
        &[(&format!("{grand}.increment_ppm"), "on_next_hit", "held until it has been won")],
    );
    check(
        world.plan(false, |document| level(document, "reserve_ppm", json!(1))).await,
        &[(&format!("{grand}.reserve_ppm"), "on_next_hit", "held until it has been won")],
    );
    let ceiling = format!("{grand}.ceiling");
    check(
        world.plan(false, |document| level(document, "ceiling", json!("599999.999999"))).await,
        &[(&ceiling, "on_next_hit", "below the 600000 that the level stands at")],
    );
    check(
        world.plan(false, |document| level(document, "ceiling", json!("600000"))).await,
        &[(&ceiling, "immediate", "does not lie below the 600000")],
    );
    check(
        world.plan(false, |document| level(document, "base", json!("1"))).await,
        &[(&format!("{grand}.base"), "immediate", "the next refill")],
    );
    check(
        world.plan(false, |document| document["pools"][0]["currency"] = json!("SEK")).await,
        &[("pools.mega.currency", "refused", "for ever")],
    );
    check(
        world.plan(false, |document| document["pools"] = json!([])).await,
        &[
            ("pools.desert-link", "refused", "cannot be removed"),
            ("pools.mega", "refused", "cannot be removed"),
            ("pools.nordic-daily", "refused", "cannot be removed"),
        ],
    );
    let remove_level = |document: &mut Value| {
        document["pools"][0]["levels"].as_array_mut().expect("levels").remove(0);
    };
    check(world.plan(false, remove_level).await, &[(grand, "refused", "cannot be removed")]);
    check(
        world.plan(false, |document| document["revision"] = json!(3)).await,
        &[("revision", "refused", "the next one is 2")],
    );
    check(
        world
            .plan(false, |document| {
                document["revision"] = json!(1);
                document["author"] = json!("somebody else");
            })
            .await,
        &[("revision", "refused", "applied, with other content; the next one is 2")],
    );
}

#[tokio::test]
async fn a_ceiling_below_its_base_is_a_fault() {
    let world = World::start("600000").await;
    let (printed, failed) =
        world.plan(false, |document| document["pools"][0]["levels"][0]["ceiling"] = json!("1")).await;
    assert_eq!(printed, "");
    assert!(failed.expect("it fails").contains("terms.json has 1 fault"));
}

#[tokio::test]
async fn the_first_terms_open_everything() {
    let log = Memory::new(streams(&SetUp::new(1)), || Millis(0));
    let changes = changes(&log, &Terms::parse(EXAMPLE).expect("the example")).await.expect("a plan");
    assert!(changes.iter().any(|change| change.place == "pools.mega" && change.reason.contains("opens")));
    assert!(changes.iter().all(|change| change.class == Class::Immediate));
}
