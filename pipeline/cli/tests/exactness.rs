//! Whole pipelines on a real server: what goes in comes out as the independent model in `support/model.rs` says,
//! to the last digit, whatever is repeated, restarted or killed meanwhile.
//! The stages' binaries must be built: `cargo build --workspace`.

#![expect(clippy::unwrap_used, reason = "a check that cannot go on has failed")]

#[allow(dead_code, reason = "each test crate uses a part of what they share")]
#[path = "support/shared.rs"]
mod support;

use std::collections::BTreeMap;

use jackpot_core::topology::partition;
use serde_json::{Value, json};

use support::input::{self, lines};
use support::model::{list, text};
use support::pipeline::{Pipeline, STAGES, signal, until};
use support::record::{self, Record, reach};

#[test]
fn nats_100_000_wagers_match_the_model() {
    const SOURCE: &str = "acme-spin-eu1";
    let terms = input::example_terms();
    let mut batches = input::generate(&terms, 11, 100_000);
    input::spoil_wagers(&mut batches);
    let template = batches.iter().find(|batch| text(batch, "source") == SOURCE).unwrap().clone();
    let edges = input::edges(&template, input::highest(&batches, SOURCE));
    let spoilt = lines(&input::spoil_batches(batches));

    // Partitions do not count as idle: event time is that of the wagers, months ago, and windows close by it.
    let directory = tempfile::tempdir().unwrap();
    let pipeline = Pipeline::start(directory.path(), &["--partitions", "4"], &[("JACKPOT_IDLE_AFTER", "1h")]);
    let (first, rest) = spoilt.split_at(spoilt.len() / 2);
    pipeline.publish(first);
    let record = Record::open(&pipeline.url);
    // What `jackpot publish` would not send.
    record.publish("wagers.acme.acme-spin-eu1", "[1, 2]");
    record.publish("wagers.acme.acme-spin-eu2", "no JSON");
    record.publish("wagers.acme.acme-spin-eu2", vec![b'{', 0xff, b'}']);
    record.publish("wagers.acme.acme-spin-eu2", "");
    record.publish("wagers.acme.acme-spin-eu2", template.to_string());
    record.publish("wagers.fjordbet.acme-spin-eu1", template.to_string());
    pipeline.publish(&[rest, &lines(&edges)].concat());
    pipeline.wait();
    assert!(record.count("windows") > 200, "windows close by the wagers' own time");
    pipeline.stop();

    // Now they do, and all windows close.
    let pipeline = Pipeline::start(directory.path(), &[], &[]);
    let record = Record::open(&pipeline.url);
    until("all windows are closed and shown", || all_closed(&record));
    let outcome = record.model(&terms);
    assert_varied(&outcome.refusals);
    let totals = record::assert_exact(&record, &outcome, |args| pipeline.json(args));
    let whole = outcome.refusals.iter().filter(|(_, reason)| reason != "hit_refused").count();
    assert_eq!(record.leaves(4), outcome.allocated + whole as u64, "every wager has one end in the audit");
    let windows = pipeline.json(&["windows"]);
    assert!(windows.iter().any(|window| window["late"] != 0), "some wagers are late for their windows");
    record::assert_windows_add_up(&windows, &totals);
    pipeline.stop();
}

/// Whether the ledger's watermark is later than any window, and none waits to be published or shown.
fn all_closed(record: &Record) -> bool {
    let last = record.last("commits", "commits").map(|entry| record::json(&entry)).unwrap();
    let passed = |of: &Value| of["watermark"].as_str().is_some_and(|time| time > "2026-10-01");
    let quiet = ["windows", "levels"].iter().all(|field| list(&last, field).is_empty());
    quiet
        && list(&last, "partitions").iter().all(passed)
        && Some(record.count("windows")) == last["counts"]["windows"].as_u64()
}

/// The input holds every reason that can be had without keys, each several times.
fn assert_varied(refusals: &[(String, String)]) {
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, reason) in refusals {
        *reasons.entry(reason).or_default() += 1;
    }
    for (reason, least) in [
        ("malformed", 20),
        ("unsupported_schema", 2),
        ("subject_mismatch", 2),
        ("unknown_source", 4),
        ("duplicate_batch", 80),
        ("stale_sequence", 2),
        ("sequence_jump", 2),
        ("invalid_field", 200),
        ("invalid_amount", 80),
        ("unknown_currency", 20),
        ("occurred_in_future", 10),
        ("duplicate_interaction", 10),
        ("location_missing", 10),
        ("location_stale", 10),
        ("location_uncertain", 10),
        ("location_conflict", 10),
        ("impossible_travel", 10),
        ("jurisdiction_blocked", 30),
        ("unknown_game", 10),
        ("hit_refused", 80),
    ] {
        assert!(reasons.get(reason).is_some_and(|&count| count >= least), "{reason}: {reasons:?}");
    }
}

#[test]
fn nats_restarts_and_kills_change_nothing() {
    let terms = lone_terms();
    let batches = lone_input(&terms);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("terms.json");
    std::fs::write(&file, terms.to_string()).unwrap();
    let flags = ["--partitions", "4", "--terms", file.to_str().unwrap()];
    // Snapshots are taken often, so that what is killed comes back from one, and lanes are trimmed meanwhile.
    let often = [("JACKPOT_SNAPSHOT_BYTES", "16384")];
    let start = |name: &str| Pipeline::start(&made(directory.path().join(name)), &flags, &often);

    let undisturbed = start("undisturbed");
    undisturbed.publish(&lines(&batches));
    undisturbed.wait();
    let expect = undisturbed.json(&["totals"]);
    undisturbed.stop();

    let disturbed = start("disturbed");
    let parts: Vec<_> = batches.chunks(batches.len().div_ceil(1 + 2 * STAGES.len())).collect();
    disturbed.publish(&lines(parts[0]));
    disturbed.wait();
    let mut repeated = 0;
    for (stage, parts_amid) in STAGES.into_iter().zip(parts[1..].chunks(2)) {
        kill_in_flight(&disturbed, stage, &lines(parts_amid[0]), &lines(parts_amid[1]));
        for of in [parts[0], parts_amid[1]] {
            repeated += assert_repeat_refused(&disturbed, &batches, largest(of));
        }
    }
    disturbed.stop();
    let disturbed = start("disturbed");
    repeated += assert_repeat_refused(&disturbed, &batches, largest(parts[0]));
    disturbed.publish(&lines(&batches));
    disturbed.wait();
    assert_trimmed(&disturbed.url);
    let totals = disturbed.json(&["totals"]);
    assert_eq!(without_places(&totals), without_places(&expect));

    let record = Record::open(&disturbed.url);
    let outcome = record.model(&terms);
    let again = outcome.refusals.iter().filter(|(_, reason)| reason == "duplicate_batch").count();
    assert_eq!(again, batches.len(), "all that was published again is refused");
    assert!(repeated > 300, "the repeats were many: {repeated}");
    assert!(outcome.hits.len() > 20, "levels were won: {}", outcome.hits.len());
    record::assert_exact(&record, &outcome, |args| disturbed.json(args));
    disturbed.stop();
}

/// The lanes begin with what the last snapshots need, and the records are whole.
fn assert_trimmed(url: &str) {
    let record = Record::open(url);
    let firsts = |lane: &str| (0..4).map(|p| record.first(&format!("{lane}-{p}"))).collect::<Vec<_>>();
    for lane in ["validated", "geofenced", "contributions"] {
        assert!(firsts(lane).iter().any(|&first| first > 1), "{lane} is trimmed: {:?}", firsts(lane));
    }
    for lane in ["allocations", "audit"] {
        assert_eq!(firsts(lane), [1; 4], "{lane} is a record");
    }
}

/// The example terms, with a pool that one source alone can reach: only there levels are won, since only there the
/// order of the wagers is the same in every run.
fn lone_terms() -> Value {
    let mut terms = input::example_terms();
    let lists = [
        ("operators", json!({ "operator": "lone", "jurisdictions": ["MT"] })),
        ("sources", json!({ "source": "lone-1", "operator": "lone" })),
        (
            "pools",
            json!({
                "pool": "lone", "currency": "EUR", "operators": ["lone"], "jurisdictions": ["MT"],
                "levels": [
                    { "level": "high", "base": "20", "ceiling": "24", "increment_ppm": 20_000, "reserve_ppm": 5_000 },
                    { "level": "low", "base": "5", "increment_ppm": 9_999, "reserve_ppm": 1 },
                ],
            }),
        ),
    ];
    for (list, entry) in lists {
        terms[list].as_array_mut().unwrap().insert(0, entry);
    }
    terms
}

/// 30,000 wagers, of which some of the lone source win.
fn lone_input(terms: &Value) -> Vec<Value> {
    let mut batches = input::generate(terms, 12, 30_000);
    let mut count = 0;
    for batch in &mut batches {
        let lone = text(batch, "source") == "lone-1";
        for wager in batch["wagers"].as_array_mut().unwrap() {
            wager.as_object_mut().unwrap().remove("hits");
            count += u64::from(lone);
            if lone && count % 101 == 0 {
                let level = if count % 303 == 0 { "high" } else { "low" };
                wager["hits"] = json!([{ "pool": "lone", "level": level }]);
            }
        }
    }
    batches
}

/// Publishes two parts, and kills the stage amid them: stopped in the first as soon as it has taken something up,
/// killed with the second waiting for it.
fn kill_in_flight(pipeline: &Pipeline, stage: &str, first: &[String], second: &[String]) {
    let record = Record::open(&pipeline.url);
    let before = output(&record, stage);
    let publishing = pipeline.begin_to_publish(first);
    until("the stage takes up the load", || output(&record, stage) != before);
    signal("STOP", pipeline.pid(stage).unwrap());
    publishing.finish();
    pipeline.publish(second);
    let ahead = || (0..4).filter(|&p| input_of(&record, stage)[p] > output(&record, stage)[p]).count();
    until("the stage's input runs ahead of its output", || ahead() > 0);
    assert!(ahead() > 0, "frames are in flight when {stage} is killed");
    pipeline.kill(stage);
}

/// How far a stage has written, by partition: frames; of validate, the last ingress message in a frame.
fn output(record: &Record, stage: &str) -> [u64; 4] {
    match stage {
        "validate" => [0, 1, 2, 3].map(|p| {
            let last = record.last(&format!("validated-{p}"), &format!("validated.{p}"));
            last.map_or(0, |entry| reach(&entry.payload))
        }),
        "geofence" => counts(record, "geofenced"),
        "allocate" => {
            let (allocations, contributions) =
                (counts(record, "allocations"), counts(record, "contributions"));
            [0, 1, 2, 3].map(|p| allocations[p].min(contributions[p]))
        }
        "audit" => counts(record, "audit"),
        _ => {
            let last =
                record.last("commits", "commits").map(|entry| record::json(&entry)).unwrap_or_default();
            [0, 1, 2, 3].map(|p| last["partitions"][p]["frame"].as_u64().unwrap_or(0))
        }
    }
}

/// How far a stage could have read, in the same measure.
fn input_of(record: &Record, stage: &str) -> [u64; 4] {
    match stage {
        "validate" => [0, 1, 2, 3].map(|p| {
            let last = record.last("wagers", &format!("lane.{p}.*.*"));
            last.map_or(0, |entry| entry.sequence)
        }),
        "geofence" => counts(record, "validated"),
        "allocate" => counts(record, "geofenced"),
        "audit" => counts(record, "allocations"),
        _ => counts(record, "contributions"),
    }
}

fn counts(record: &Record, lane: &str) -> [u64; 4] {
    [0, 1, 2, 3].map(|p| record.count(&format!("{lane}-{p}")))
}

/// The batch with the most wagers.
fn largest(batches: &[Value]) -> &Value {
    batches.iter().max_by_key(|batch| list(batch, "wagers").len()).unwrap()
}

/// Tells a batch of the load once more under a number that is new: each of its interactions is refused.
/// Gives how many they are.
fn assert_repeat_refused(pipeline: &Pipeline, batches: &[Value], repeated: &Value) -> usize {
    let source = text(repeated, "source");
    let earlier = pipeline.json(&["refusals", "--source", source]);
    let new = |refusal: &Value| refusal["wager"].as_str()?.split('/').nth(1)?.parse::<u64>().ok();
    let highest = earlier.iter().filter_map(new).max().unwrap_or(0).max(input::highest(batches, source));
    let mut batch = repeated.clone();
    batch["sequence"] = (highest + 1).into();
    pipeline.publish(&lines(&[batch]));
    pipeline.wait();
    let refused = |id: String| json!({ "wager": id, "reason": "duplicate_interaction" });
    let wagers = list(repeated, "wagers").len();
    let expect: Vec<_> =
        (0..wagers).map(|index| refused(format!("{source}/{}/{index}", highest + 1))).collect();
    let all = pipeline.json(&["refusals", "--source", source]);
    let of_batch = format!("{source}/{}/", highest + 1);
    let got: Vec<_> = all
        .iter()
        .filter(|refusal| refusal["wager"].as_str().is_some_and(|id| id.starts_with(&of_batch)))
        .map(|refusal| json!({ "wager": refusal["wager"], "reason": refusal["reason"] }))
        .collect();
    assert_eq!(got, expect, "interactions repeated after a kill are refused");
    wagers
}

/// Totals but for what says where in the record they stand.
fn without_places(totals: &[Value]) -> Vec<String> {
    let stripped = totals.iter().cloned().map(|mut total| {
        for field in ["sequence", "commit", "as_of"] {
            assert!(total.as_object_mut().unwrap().remove(field).is_some(), "{field} is in every total");
        }
        total.to_string()
    });
    stripped.collect()
}

fn made(directory: std::path::PathBuf) -> std::path::PathBuf {
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

/// The sources of the example terms meet every partition, so that the tests above do.
#[test]
fn every_partition_has_a_source() {
    let terms = input::example_terms();
    let used = |p| list(&terms, "sources").iter().any(|entry| partition(text(entry, "source"), 4) == p);
    assert!((0..4).all(used));
}
