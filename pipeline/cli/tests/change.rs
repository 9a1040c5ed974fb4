//! Terms change while everything runs: wagers of many sources flow over all partitions without a pause, and meanwhile
//! revisions add games and pools, hold rates and a ceiling back, race each other, meet a full ingress, and lose their
//! `jackpot terms apply` to a kill -9. Then every wager must have been computed under the revision that its frame names,
//! every commit must say what the independent model says, and nothing may be lost or doubled.
//! The stages' binaries must be built: `cargo build --workspace`.

#![expect(clippy::unwrap_used, reason = "a check that cannot go on has failed")]

#[allow(dead_code, reason = "each test crate uses a part of what they share")]
#[path = "support/shared.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use jackpot::load::traffic::{Settings, Traffic};
use jackpot_core::terms::Terms;
use jackpot_core::time::Millis;
use serde_json::{Value, json};

use sim::auditor::record::Header;
use support::input;
use support::model::{Level, Outcome, list, pico, text};
use support::pipeline::{Pipeline, until};
use support::record::{self, Record};

/// Between two batches.
const PACE: Duration = Duration::from_millis(5);
/// Wagers of a batch.
const WAGERS: usize = 5;

#[test]
fn nats_terms_change_under_load() {
    let directory = tempfile::tempdir().unwrap();
    let mut revisions = Revisions::new(directory.path(), first_terms());
    let first = revisions.file(1);
    let flags = ["--partitions", "4", "--terms", first.to_str().unwrap()];
    let pipeline = Pipeline::start(directory.path(), &flags, &[("JACKPOT_IDLE_AFTER", "1h")]);
    let record = Record::open(&pipeline.url);
    let flow = Flow::start(&pipeline, &revisions.terms[&1]);

    add_a_game_and_a_pool(&pipeline, &record, &mut revisions);
    hold_a_rate(&pipeline, &record, &flow, &mut revisions);
    hold_a_ceiling(&pipeline, &record, &flow, &mut revisions);
    for _ in 0..4 {
        race(&pipeline, &record, &mut revisions);
    }
    meet_a_full_ingress(&pipeline, &record, &mut revisions);
    lose_an_apply(&pipeline, &record, &mut revisions);
    let published = flow.finish();

    pipeline.wait();
    let mut commits = Commits::default();
    let outcome = record.model_of(&revisions.terms, |commit, outcome| commits.check(commit, outcome));
    let totals = record::assert_exact(&record, &outcome, |args| pipeline.json(args));
    assert_nothing_lost(&record, &outcome, published);
    let (last, ran) = (*revisions.terms.last_key_value().unwrap().0, assert_markers_hold(&record));
    assert_eq!(commits.terms, last, "the last revision has run");
    assert!(ran.len() >= 8, "frames name one revision after the other: {ran:?}");
    assert!(totals.iter().all(|total| total["terms"] == last), "every total names the highest revision");
    assert!(outcome.hits.len() > 100, "levels were won: {}", outcome.hits.len());
    let proof = pipeline.ok(&["verify"]);
    assert!(!proof.is_empty());
    pipeline.stop();
}

/// A revision that adds a game and a pool: wagers of that game flow before and after.
fn add_a_game_and_a_pool(pipeline: &Pipeline, record: &Record, revisions: &mut Revisions) {
    until("wagers of the game that is to come are refused", || {
        pipeline.json(&["refusals", "--limit", "1"]).iter().any(|refusal| refusal["reason"] == "unknown_game")
    });
    let file = revisions.next(|terms| {
        terms["games"].as_array_mut().unwrap().push(json!({ "game": "new-reef", "supplier": "feltline" }));
        terms["pools"].as_array_mut().unwrap().push(json!({
            "pool": "reef", "currency": "JPY", "games": ["new-reef"], "jurisdictions": ["MT", "GB", "SE", "DE"],
            "levels": [{ "level": "coral", "base": "1000", "increment_ppm": 40_000, "reserve_ppm": 10_000 }],
        }));
        terms["exchange_rates"].as_array_mut().unwrap().extend([
            json!({ "from": "EUR", "to": "JPY", "rate": "161.234567891" }),
            json!({ "from": "GBP", "to": "JPY", "rate": "189.5" }),
        ]);
    });
    apply(pipeline, &file);
    until("the new level is shown", || total(record, "reef", "coral").is_some());
    let total = total(record, "reef", "coral").unwrap();
    assert_eq!(total["house"], "1000", "the new level is in totals from the commit that first runs it");
    until("the new pool grows", || number(record, "reef", "coral", "wagers") > 50);
}

/// A rate is held until the next hit, whatever flows until then.
fn hold_a_rate(pipeline: &Pipeline, record: &Record, flow: &Flow, revisions: &mut Revisions) {
    let file = revisions.next(|terms| {
        let levels = tide(terms);
        levels[0]["increment_ppm"] = json!(30_000);
        levels[1]["reserve_ppm"] = json!(2_000);
        levels[1]["base"] = json!("6.5");
    });
    let plan = pipeline.ok(&["terms", "plan", file.to_str().unwrap(), "--json"]);
    let changes: Vec<Value> = serde_json::from_str(&plan).unwrap();
    let classes: BTreeMap<_, _> =
        changes.iter().map(|change| (text(change, "place"), text(change, "class"))).collect();
    assert_eq!(classes["pools.tide.levels.high.increment_ppm"], "on_next_hit");
    assert_eq!(classes["pools.tide.levels.low.reserve_ppm"], "on_next_hit");
    assert_eq!(classes["pools.tide.levels.low.base"], "immediate");
    apply(pipeline, &file);
    let before = number(record, "tide", "high", "wagers");
    until("wagers flow under the old rate", || number(record, "tide", "high", "wagers") > before + 300);
    let (high, low) = (total(record, "tide", "high").unwrap(), total(record, "tide", "low").unwrap());
    assert_eq!(high["pending"], json!({ "increment_ppm": 30_000 }));
    assert_eq!((&low["pending"], &low["base"]), (&json!({ "reserve_ppm": 2_000 }), &json!("6.5")));
    flow.win(true);
    until("hits bring both rates in force", || {
        ["high", "low"].iter().all(|level| total(record, "tide", level).unwrap()["pending"].is_null())
    });
    until("levels are won again and again", || number(record, "tide", "high", "hits") > 5);
    flow.win(false);
}

/// A ceiling below what there is waits for the next hit too, and then it cuts.
fn hold_a_ceiling(pipeline: &Pipeline, record: &Record, flow: &Flow, revisions: &mut Revisions) {
    let current = || pico(text(&total(record, "tide", "high").unwrap(), "current"));
    // What was won may still be on its way.
    pipeline.wait();
    until("the level grows past the ceiling to come", || current() > pico("40"));
    let file = revisions.next(|terms| tide(terms)[0]["ceiling"] = json!("30"));
    apply(pipeline, &file);
    let last = revisions.last();
    until("the total names the revision", || total(record, "tide", "high").unwrap()["terms"] == last);
    let held = total(record, "tide", "high").unwrap();
    assert_eq!((&held["pending"], &held["ceiling"]), (&json!({ "ceiling": "30" }), &Value::Null));
    let before = current();
    until("the level still grows", || current() > before);
    flow.win(true);
    until("a hit brings the ceiling in force", || {
        let total = total(record, "tide", "high").unwrap();
        total["pending"].is_null() && total["ceiling"] == "30"
    });
    flow.win(false);
    until("what is above the ceiling is diverted", || {
        pico(text(&total(record, "tide", "high").unwrap(), "diversion")) > 0
    });
    flow.win(true);
}

/// Two different next revisions at once: one wins, the other is refused, and nothing of it holds.
fn race(pipeline: &Pipeline, record: &Record, revisions: &mut Revisions) {
    let number = revisions.last() + 1;
    let of = |rate: u64| move |terms: &mut Value| tide(terms)[1]["increment_ppm"] = json!(rate);
    let files = [
        revisions.draft(number, "one", of(9_000 + number)),
        revisions.draft(number, "two", of(8_000 + number)),
    ];
    let applying = files.each_ref().map(|file| begin(pipeline, &["terms", "apply", file.to_str().unwrap()]));
    let ended = applying.map(|child| child.wait_with_output().unwrap());
    let codes = ended.each_ref().map(|output| output.status.code());
    let winner = match codes {
        [Some(0), Some(1)] => 0,
        [Some(1), Some(0)] => 1,
        _ => panic!("exactly one is applied: {ended:?}"),
    };
    let said = String::from_utf8_lossy(&ended[1 - winner].stderr);
    assert!(said.contains(&format!("revision {number} is applied")), "{said}");
    assert!(said.contains("with other content") && said.lines().count() == 1, "{said}");
    revisions.take(number, &files[winner]);
    let shown = in_force(pipeline);
    assert_eq!(tide(&mut shown.clone())[1], tide(&mut revisions.terms[&number].clone())[1]);
    assert_eq!(shown["revision"], number);
    assert_eq!(markers(record).len() as u64, number * 4, "each revision has one marker on each partition");
}

/// A full ingress refuses the markers: `apply` says so, nothing is lost, and the same again works once there is room.
fn meet_a_full_ingress(pipeline: &Pipeline, record: &Record, revisions: &mut Revisions) {
    let number = revisions.last() + 1;
    fill(pipeline, record);
    let file = revisions.next(|terms| {
        terms["games"].as_array_mut().unwrap().push(json!({ "game": "late-reef", "supplier": "feltline" }));
    });
    let output = run(pipeline, &["terms", "apply", file.to_str().unwrap(), "--timeout", "2s"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("wagers") && said.contains("full") && said.contains("--max-bytes"), "{said}");
    assert_eq!(said.lines().count(), 1, "one sentence: {said}");
    assert!(markers(record).iter().all(|marker| *marker < number), "no partition has a marker");
    make_room(pipeline);
    goes_on_under(record, number - 1);
    apply(pipeline, &file);
    assert_eq!(ran(record), number);
}

/// An `apply` that dies between its claim and its markers: nothing holds, and whoever applies next finishes it.
fn lose_an_apply(pipeline: &Pipeline, record: &Record, revisions: &mut Revisions) {
    for same in [true, false] {
        let number = revisions.last() + 1;
        fill(pipeline, record);
        let file = revisions.next(|terms| tide(terms)[0]["base"] = json!(format!("{number}.000001")));
        let mut child = begin(pipeline, &["terms", "apply", file.to_str().unwrap(), "--timeout", "120s"]);
        let claim = format!("terms.revision.{number}");
        until("the revision is claimed", || record.last("terms", &claim).is_some());
        child.kill().unwrap();
        child.wait().unwrap();
        make_room(pipeline);
        goes_on_under(record, number - 1);
        assert!(markers(record).iter().all(|marker| *marker < number), "the dead left no marker");
        assert_eq!(in_force(pipeline)["revision"], number - 1, "what is claimed alone is not in force");
        let other = revisions.draft(number, "other", |terms| tide(terms)[0]["base"] = json!("1"));
        let output = run(pipeline, &["terms", "apply", other.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1), "the number is taken: {output:?}");
        if same {
            apply(pipeline, &file);
            assert_eq!(ran(record), number);
        } else {
            let next = revisions.next(|terms| tide(terms)[1]["base"] = json!("7"));
            apply(pipeline, &next);
            assert_eq!(ran(record), number + 1);
            let before = markers(record);
            apply(pipeline, &file);
            assert_eq!(markers(record), before, "what is behind already changes nothing");
        }
    }
}

/// Lets the ingress hold no message more: its limit is what it holds, and what is left is filled.
fn fill(pipeline: &Pipeline, record: &Record) {
    let limit = |bytes: u64| run(pipeline, &["init", "--max-bytes", &format!("wagers={bytes}")]);
    let lowest = 16 * 1024;
    let mut bytes = lowest;
    // It grows while it is asked; the refusal says how much it holds.
    until("the ingress is limited to about what it holds", || {
        let output = limit(bytes);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let holds =
            said.split_once("holds ").and_then(|(_, rest)| rest.split(' ').next()?.parse::<u64>().ok());
        match (output.status.code(), holds) {
            (Some(0), _) => true,
            (Some(78), Some(holds)) => {
                bytes = holds + lowest;
                false
            }
            _ => panic!("{said}"),
        }
    });
    until("the ingress is full", || record.try_publish("wagers.acme.acme-spin-eu1", "[]").is_err());
}

fn make_room(pipeline: &Pipeline) {
    pipeline.ok(&["init", "--max-bytes", "wagers=1GiB"]);
}

/// Wagers flow on, under this revision.
fn goes_on_under(record: &Record, revision: u64) {
    let from = record.count("wagers");
    until("wagers flow again", || record.count("wagers") > from + 200);
    until("and are committed", || {
        let reach = |p| {
            record
                .last(&format!("validated-{p}"), &format!("validated.{p}"))
                .map(|last| Header::read(&last.payload))
        };
        (0..4).all(|p| reach(p).is_some_and(|head| head.position > from && head.terms == revision))
    });
    assert_eq!(ran(record), revision);
}

/// Every message of the flow, and each once, has its end: as many wagers as were published are allocated or refused.
fn assert_nothing_lost(record: &Record, outcome: &Outcome, published: BTreeSet<(String, u64)>) {
    let stored = record.all("wagers").into_iter().filter_map(|entry| {
        let batch: Value = serde_json::from_slice(&entry.payload).ok()?;
        Some((batch["source"].as_str()?.to_owned(), batch["sequence"].as_u64()?))
    });
    assert_eq!(stored.collect::<BTreeSet<_>>(), published, "all that was published is in the ingress");
    let whole = |reason: &str| ["malformed", "duplicate_batch"].contains(&reason);
    let refused =
        outcome.refusals.iter().filter(|(_, reason)| !whole(reason) && reason != "hit_refused").count();
    let wagers = published.len() * WAGERS;
    assert_eq!(outcome.allocated + refused as u64, wagers as u64, "every wager has one end");
    let ended = outcome.refusals.iter().filter(|(_, reason)| reason != "hit_refused").count();
    assert_eq!(record.leaves(4), outcome.allocated + ended as u64, "and it is in the audit");
}

/// On each partition, every batch is in a frame of the revision whose marker came last before it. Gives the revisions
/// that frames name.
fn assert_markers_hold(record: &Record) -> BTreeSet<u64> {
    let wagers = record.all("wagers");
    let mut named = BTreeSet::new();
    for partition in 0..4 {
        let lane = format!("lane.{partition}.");
        let mut own = wagers.iter().filter(|entry| entry.subject.starts_with(&lane)).peekable();
        let mut revision = 0;
        for frame in record.all(&format!("validated-{partition}")) {
            let frame = Header::read(&frame.payload);
            named.insert(frame.terms);
            while let Some(entry) = own.next_if(|entry| entry.sequence <= frame.position) {
                if entry.subject.ends_with(".terms") {
                    revision = record::json(entry)["revision"].as_u64().unwrap();
                } else {
                    assert_eq!(frame.terms, revision, "{entry:?} is computed under its marker's revision");
                }
            }
        }
    }
    named
}

/// What commits say, held against the model as it stands after each.
#[derive(Default)]
struct Commits {
    levels: BTreeMap<(String, String), Level>,
    sequences: BTreeMap<(String, String), u64>,
    terms: u64,
}

impl Commits {
    fn check(&mut self, commit: &Value, outcome: &Outcome) {
        let terms = commit["terms"].as_u64().unwrap();
        let changed =
            |(key, level): &(&_, &Level)| terms > self.terms || self.levels.get(*key) != Some(*level);
        let changed: Vec<_> = outcome.levels.iter().filter(changed).collect();
        let shown = list(commit, "levels");
        assert_eq!(
            shown.len(),
            changed.len(),
            "commit {} holds the levels that it changed",
            commit["commit"]
        );
        for (shown, (key, level)) in shown.iter().zip(changed) {
            let sequence = self.sequences.entry(key.clone()).or_default();
            *sequence += 1;
            assert_eq!((text(shown, "pool"), text(shown, "level")), (key.0.as_str(), key.1.as_str()));
            assert_eq!(
                (&shown["sequence"], &shown["terms"]),
                (&json!(*sequence), &commit["terms"]),
                "{shown}"
            );
            assert_eq!(told(shown), expected(level), "{shown}");
        }
        self.levels.clone_from(&outcome.levels);
        self.terms = terms;
    }
}

/// A level's amounts and counts, its base, and its ceiling, in force and waiting, and the rates that wait.
type State = (Vec<i128>, [Option<i128>; 4]);

fn told(shown: &Value) -> State {
    let amount = |field| pico(text(shown, field));
    let count = |field: &str| i128::from(shown[field].as_u64().unwrap());
    let amounts = ["base", "current", "reserve", "diversion", "wagered", "contributed", "paid", "house"];
    let amounts = amounts.map(amount).into_iter().chain(["wagers", "hits"].map(count)).collect();
    let pending = &shown["pending"];
    let rate = |field: &str| pending[field].as_u64().map(i128::from);
    let ceilings = [&shown["ceiling"], &pending["ceiling"]].map(|value| value.as_str().map(pico));
    (amounts, [ceilings[0], ceilings[1], rate("increment_ppm"), rate("reserve_ppm")])
}

fn expected(level: &Level) -> State {
    let Level { base, current, reserve, diversion, wagered, contributed, paid, house, .. } = *level;
    let counts = [level.wagers.into(), level.hits.into()];
    let amounts = [base, current, reserve, diversion, wagered, contributed, paid, house]
        .into_iter()
        .chain(counts)
        .collect();
    let pending = level.pending;
    (amounts, [level.ceiling, pending.ceiling, pending.increment_ppm, pending.reserve_ppm])
}

/// The example terms, and a pool of Europe that is won all the time, once that is wanted.
fn first_terms() -> Value {
    let mut terms = input::example_terms();
    terms["pools"].as_array_mut().unwrap().insert(
        0,
        json!({
            "pool": "tide", "currency": "EUR", "jurisdictions": ["MT", "GB", "SE", "DE"],
            "levels": [
                { "level": "high", "base": "20", "increment_ppm": 20_000, "reserve_ppm": 5_000 },
                { "level": "low", "base": "5", "increment_ppm": 9_999, "reserve_ppm": 1 },
            ],
        }),
    );
    terms
}

fn tide(terms: &mut Value) -> &mut Vec<Value> {
    let pools = terms["pools"].as_array_mut().unwrap();
    let pool = pools.iter_mut().find(|pool| pool["pool"] == "tide").unwrap();
    pool["levels"].as_array_mut().unwrap()
}

/// The revisions that were applied, each with its file.
struct Revisions {
    directory: PathBuf,
    terms: BTreeMap<u64, Value>,
}

impl Revisions {
    fn new(directory: &Path, first: Value) -> Self {
        let revisions = Self { directory: directory.to_owned(), terms: BTreeMap::from([(1, first)]) };
        std::fs::write(revisions.file(1), revisions.terms[&1].to_string()).unwrap();
        revisions
    }

    fn file(&self, number: u64) -> PathBuf {
        self.directory.join(format!("terms-{number}.json"))
    }

    fn last(&self) -> u64 {
        *self.terms.last_key_value().unwrap().0
    }

    /// A next revision that nobody has applied.
    fn draft(&self, number: u64, name: &str, change: impl FnOnce(&mut Value)) -> PathBuf {
        let mut terms = self.terms[&(number.min(self.last() + 1) - 1)].clone();
        terms["revision"] = json!(number);
        change(&mut terms);
        let file = self.directory.join(format!("terms-{number}-{name}.json"));
        std::fs::write(&file, terms.to_string()).unwrap();
        file
    }

    /// The next revision.
    fn next(&mut self, change: impl FnOnce(&mut Value)) -> PathBuf {
        let number = self.last() + 1;
        let file = self.draft(number, "next", change);
        self.take(number, &file);
        file
    }

    /// What is in this file is the revision.
    fn take(&mut self, number: u64, file: &Path) {
        let terms = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        self.terms.insert(number, terms);
    }
}

/// Wagers of all sources of the example terms, batch by batch through one `jackpot publish -`, until it is told to end.
struct Flow {
    win: Arc<AtomicBool>,
    end: Arc<AtomicBool>,
    feeding: JoinHandle<BTreeSet<(String, u64)>>,
    publishing: Child,
}

impl Flow {
    fn start(pipeline: &Pipeline, terms: &Value) -> Self {
        let mut command = jackpot(pipeline, &["publish", "-", "--timeout", "120s"]);
        let mut publishing = command.stdin(Stdio::piped()).spawn().unwrap();
        let mut pipe = publishing.stdin.take().unwrap();
        let terms = Terms::parse(terms.to_string().as_bytes()).unwrap();
        let start = Millis::parse("2026-06-08T20:59:45Z").unwrap();
        let settings = Settings {
            seed: 21,
            start,
            rate: 2_000,
            wagers: 1_000_000,
            batch: WAGERS,
            from: BTreeMap::new(),
        };
        let traffic = Traffic::new(&terms, settings).unwrap();
        let (win, end) = <(Arc<AtomicBool>, Arc<AtomicBool>)>::default();
        let (winning, ending) = (win.clone(), end.clone());
        let feeding = std::thread::spawn(move || {
            let (mut published, mut count) = (BTreeSet::new(), 0);
            let whole =
                traffic.filter(|batch| usize::try_from(batch.wagers).is_ok_and(|wagers| wagers == WAGERS));
            for batch in whole.take_while(|_| !ending.load(Ordering::Relaxed)) {
                let mut body: Value = serde_json::from_slice(&batch.body).unwrap();
                change(&mut body, &mut count, winning.load(Ordering::Relaxed));
                writeln!(pipe, "{body}").unwrap();
                published.insert((batch.source, batch.sequence));
                std::thread::sleep(PACE);
            }
            published
        });
        Self { win, end, feeding, publishing }
    }

    /// From now on levels of the pools that a wager may be in are won now and then, or they are not.
    fn win(&self, win: bool) {
        self.win.store(win, Ordering::Relaxed);
    }

    /// Ends it; gives the batches that were published, each by source and number.
    fn finish(self) -> BTreeSet<(String, u64)> {
        self.end.store(true, Ordering::Relaxed);
        let published = self.feeding.join().unwrap();
        let output = self.publishing.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        published
    }
}

/// Some wagers are of games that the first revision does not know; some win, if any may.
fn change(batch: &mut Value, count: &mut u64, win: bool) {
    for wager in batch["wagers"].as_array_mut().unwrap() {
        *count += 1;
        wager.as_object_mut().unwrap().remove("hits");
        match *count % 21 {
            3 | 11 => wager["game"] = json!("new-reef"),
            7 => wager["game"] = json!("late-reef"),
            _ => {}
        }
        if win && count.is_multiple_of(17) {
            wager["hits"] =
                json!([{ "pool": "tide", "level": "high" }, { "pool": "reef", "level": "coral" }]);
        }
        if win && count.is_multiple_of(29) {
            wager["hits"] = json!([{ "pool": "tide", "level": "low" }]);
        }
    }
}

fn total(record: &Record, pool: &str, level: &str) -> Option<Value> {
    record.last("totals", &format!("totals.{pool}.{level}")).map(|entry| record::json(&entry))
}

fn number(record: &Record, pool: &str, level: &str, field: &str) -> u64 {
    total(record, pool, level).unwrap()[field].as_u64().unwrap()
}

/// The terms in force.
fn in_force(pipeline: &Pipeline) -> Value {
    serde_json::from_str(&pipeline.ok(&["terms", "show"])).unwrap()
}

/// The highest revision that the last commit has run.
fn ran(record: &Record) -> u64 {
    record::json(&record.last("commits", "commits").unwrap())["terms"].as_u64().unwrap()
}

/// The revisions of all markers of all partitions.
fn markers(record: &Record) -> Vec<u64> {
    let all = record.all("wagers");
    let markers = all.iter().filter(|entry| entry.subject.ends_with(".terms"));
    markers.map(|marker| record::json(marker)["revision"].as_u64().unwrap()).collect()
}

fn apply(pipeline: &Pipeline, file: &Path) {
    pipeline.ok(&["terms", "apply", file.to_str().unwrap(), "--timeout", "120s"]);
}

fn run(pipeline: &Pipeline, args: &[&str]) -> Output {
    jackpot(pipeline, args).output().unwrap()
}

fn begin(pipeline: &Pipeline, args: &[&str]) -> Child {
    jackpot(pipeline, args).stdin(Stdio::null()).spawn().unwrap()
}

fn jackpot(pipeline: &Pipeline, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jackpot"));
    command.args(args).env_remove("JACKPOT_KEYS").env("NATS_URL", &pipeline.url);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}
