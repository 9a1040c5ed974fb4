//! The table of metrics in the README against what each stage's registry holds, both ways: name, type and labels.
//! `pipeline/cli/tests/metrics.rs` asks the same of processes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use jackpot_core::log::{AppendError, Extent, LogError};
use jackpot_core::metrics::Metrics;
use jackpot_core::metrics::business::{Business, SERIES_MAX};
use jackpot_core::money::Pico;
use jackpot_core::record::{LevelTotals, Window};
use jackpot_core::recovery::Trouble;
use jackpot_core::refusal::{Reason, StageName};
use jackpot_core::stage::{Contradiction, Tally};
use jackpot_core::time::Millis;

#[path = "support/exposition.rs"]
mod exposition;

use exposition::{documented, served};

/// A registry in which everything happened that can.
fn busy(stage: StageName) -> Metrics {
    let metrics = Metrics::new(stage);
    metrics.at("0", 1);
    metrics.stopped("0", false);
    metrics.appended("0", 2, &Tally::default());
    metrics.acknowledged(Duration::from_millis(1));
    metrics.room("wagers", &Extent::default(), None);
    metrics.heartbeat("0", Millis(1));
    metrics.watermark("0", Millis(1));
    metrics
}

#[test]
fn the_readme_describes_what_is_served_and_nothing_else() {
    for &stage in StageName::ALL {
        assert_eq!(documented(stage.as_str()), served(&busy(stage).render()), "{stage}");
    }
}

/// The conventions of Prometheus: what `promtool check metrics` would say.
#[test]
fn names_say_what_they_are() {
    for &stage in StageName::ALL {
        let text = busy(stage).render();
        for (name, described) in served(&text) {
            assert!(name.starts_with("jackpot_"), "{name}");
            assert_eq!(described.kind == "counter", name.ends_with("_total"), "{name}");
            let spans = name.ends_with("_seconds") && !name.ends_with("_timestamp_seconds");
            assert_eq!(described.kind == "histogram", spans, "{name}");
            let help = text.lines().find(|line| line.starts_with(&format!("# HELP {name} ")));
            assert!(help.is_some_and(|help| help.ends_with('.')), "{name} has a help of one sentence");
        }
    }
}

/// The values of a metric by the text of its labels but `stage`.
fn values(text: &str, stage: StageName, name: &str) -> BTreeMap<String, String> {
    let samples = text.lines().filter_map(|line| line.strip_prefix(&format!("{name}{{")));
    let own = format!("stage=\"{stage}\"");
    samples
        .map(|sample| {
            let (labels, value) = sample.rsplit_once("} ").expect("labels, then a value");
            assert!(labels.contains(&own), "{sample}");
            (labels.replace(&own, "").trim_matches(',').to_owned(), value.to_owned())
        })
        .collect()
}

#[test]
fn counters_are_there_from_the_start() {
    for &stage in StageName::ALL {
        let metrics = Metrics::new(stage);
        let text = metrics.render();
        let zero = |labels: &[String]| -> BTreeMap<_, _> {
            labels.iter().map(|label| (label.clone(), "0".to_owned())).collect()
        };
        for name in ["jackpot_wagers_in_total", "jackpot_wagers_out_total", "jackpot_batches_in_total"] {
            assert_eq!(values(&text, stage, name), zero(&[String::new()]), "{stage} {name}");
        }
        let reasons: Vec<_> = Reason::ALL
            .iter()
            .filter(|reason| reason.stage() == stage)
            .map(|reason| format!("reason=\"{reason}\""))
            .collect();
        assert_eq!(values(&text, stage, "jackpot_refusals_total"), zero(&reasons), "{stage}");
        let alarms = if stage == StageName::Validate { vec![String::new()] } else { vec![] };
        for name in ["jackpot_gaps_total", "jackpot_gap_batches_total", "jackpot_conflicts_total"] {
            assert_eq!(values(&text, stage, name), zero(&alarms), "{stage} {name}");
        }
        let causes = Trouble::KINDS.map(|kind| format!("cause=\"{kind}\""));
        assert_eq!(values(&text, stage, "jackpot_recoveries_total"), zero(&causes), "{stage}");
        metrics.at("3", 7);
        let frames = values(&metrics.render(), stage, "jackpot_frames_total");
        assert_eq!(frames.get("partition=\"3\"").map(String::as_str), Some("0"), "{stage}");
    }
}

/// The value of a metric that a stage has once, or of its one partition.
fn value(metrics: &Metrics, stage: StageName, name: &str) -> String {
    let values = values(&metrics.render(), stage, name);
    assert_eq!(values.len(), 1, "{name}: {values:?}");
    values.into_values().next().expect("there is one")
}

#[test]
fn times_and_amounts_are_seconds_and_units() {
    let stage = StageName::Aggregate;
    let metrics = Metrics::new(stage);
    metrics.heartbeat("0", Millis(1_780_949_730_125));
    assert_eq!(value(&metrics, stage, "jackpot_heartbeat_timestamp_seconds"), "1780949730.125");
    metrics.watermark("0", Millis(-5));
    assert_eq!(value(&metrics, stage, "jackpot_watermark_timestamp_seconds"), "0", "nothing is before 1970");
    assert_eq!(value(&metrics, stage, "jackpot_conservation_difference"), "0", "from the start");
    metrics.conservation(Pico(2_500_000_000_001));
    assert_eq!(value(&metrics, stage, "jackpot_conservation_difference"), "2.500000000001");
    metrics.came_through(Millis(1_000), Millis(1_250));
    metrics.came_through(Millis(1_000), Millis(900));
    assert_eq!(value(&metrics, stage, "jackpot_end_to_end_seconds_sum"), "0.25", "never less than nothing");
    assert_eq!(value(&metrics, stage, "jackpot_end_to_end_seconds_count"), "2");
    metrics.partitions(4);
    assert_eq!(value(&metrics, stage, "jackpot_partitions"), "4");
}

#[tokio::test(start_paused = true)]
async fn a_gate_counts_the_time_in_which_it_is_shut() {
    let stage = StageName::Audit;
    let metrics = Metrics::new(stage);
    let held = || value(&metrics, stage, "jackpot_held_back_seconds_total");
    let mut gate = metrics.gate("0");
    for (open, expect) in [(true, "0"), (false, "0"), (false, "0"), (true, "2"), (true, "2"), (false, "2")] {
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(gate.open(open), open);
        assert_eq!(held(), expect);
    }
    tokio::time::advance(Duration::from_secs(3)).await;
    drop(gate);
    assert_eq!(held(), "5", "also where its part starts over");
}

#[test]
fn every_trouble_has_its_cause() {
    let troubles: [Trouble; 6] = [
        AppendError::Fenced("x".into()).into(),
        AppendError::Full("x".into()).into(),
        AppendError::Unknown("x".into()).into(),
        AppendError::Silent(5_000).into(),
        LogError::Unavailable("x".into()).into(),
        Contradiction("x".into()).into(),
    ];
    let metrics = Metrics::new(StageName::Audit);
    troubles.iter().for_each(|trouble| metrics.recovering(trouble));
    let causes = values(&metrics.render(), StageName::Audit, "jackpot_recoveries_total");
    let expect =
        [("contradiction", "1"), ("fenced", "1"), ("full", "1"), ("stalled", "1"), ("transient", "2")];
    let expect = expect.map(|(cause, count)| (format!("cause=\"{cause}\""), count.to_owned()));
    assert_eq!(causes, BTreeMap::from(expect));
}

#[test]
fn a_tally_is_counted_where_it_belongs() {
    let metrics = Metrics::new(StageName::Validate);
    let tally = Tally {
        batches_in: 1,
        wagers_in: 2,
        wagers_out: 3,
        refused: vec![(Reason::InvalidAmount, 4)],
        gaps: 5,
        gap_batches: 6,
        conflicts: 7,
    };
    metrics.appended("0", 9, &tally);
    metrics.appended("0", 10, &tally);
    let text = metrics.render();
    let names: BTreeSet<_> =
        text.lines().filter(|line| !line.starts_with('#') && !line.ends_with(" 0")).collect();
    let stage = "stage=\"validate\"";
    let expect = [
        format!("jackpot_batches_in_total{{{stage}}} 2"),
        format!("jackpot_build_info{{{stage},version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")),
        format!("jackpot_conflicts_total{{{stage}}} 14"),
        format!("jackpot_frames_total{{partition=\"0\",{stage}}} 2"),
        format!("jackpot_gap_batches_total{{{stage}}} 12"),
        format!("jackpot_gaps_total{{{stage}}} 10"),
        format!("jackpot_position_frames{{partition=\"0\",{stage}}} 10"),
        format!("jackpot_refusals_total{{reason=\"invalid_amount\",{stage}}} 8"),
        format!("jackpot_wagers_in_total{{{stage}}} 4"),
        format!("jackpot_wagers_out_total{{{stage}}} 6"),
    ];
    assert_eq!(names, expect.iter().map(String::as_str).collect());
}

/// An example of a message, which its schema's tests hold to be right.
fn example<T: serde::de::DeserializeOwned>(path: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas").join(path);
    serde_json::from_slice(&std::fs::read(path).expect("an example")).expect("of its form")
}

#[test]
fn the_business_is_told_of_levels_and_of_who_contributed() {
    let stage = StageName::Aggregate;
    let metrics = Metrics::new(stage);
    let business = Business::register(&metrics, stage, Some(60));
    let quiet = metrics.render();
    assert!(!quiet.contains("jackpot_level_"), "nothing is told of what is not known");
    let level: LevelTotals = example("totals/valid/after-a-hit.json");
    let window: Window = example("window/valid/one-minute.json");
    business.level(&level);
    business.level(&LevelTotals { current: Pico(12_000_000_000_001), wagers: 7, ..level.clone() });
    assert!(business.counts(60) && !business.counts(1));
    business.window(&window);
    business.window(&window);
    let text = metrics.render();
    let common = documented(stage.as_str());
    let [added, described] = [served(&text), documented("`--business-metrics`")].map(|mut metrics| {
        metrics.retain(|name, _| !common.contains_key(name));
        metrics
    });
    assert_eq!(added, described, "the README describes what is added");
    let of_level =
        format!("currency=\"{}\",level=\"{}\",pool=\"{}\"", level.currency, level.level, level.pool);
    let told = |name| values(&text, stage, name);
    let one = |name, value: &str| {
        assert_eq!(told(name), BTreeMap::from([(of_level.clone(), value.to_owned())]), "{name}");
    };
    one("jackpot_level_current", "12.000000000001");
    one("jackpot_level_wagers_total", "7");
    one("jackpot_level_contributed_total", &level.contributed.to_string());
    one("jackpot_level_hits_total", &level.hits.to_string());
    let of_pool = |rest: &str| format!("currency=\"{}\",{rest},pool=\"{}\"", window.currency, window.pool);
    let pairs = window.by_operator_jurisdiction.as_ref().expect("a window of a minute");
    let pairs = pairs.iter().map(|(pair, share)| {
        let (operator, jurisdiction) = pair.split_once('/').expect("a pair");
        let labels = of_pool(&format!("jurisdiction=\"{jurisdiction}\",operator=\"{operator}\""));
        (labels, (share.contributed + share.contributed).to_string())
    });
    assert_eq!(told("jackpot_operator_contributed_total"), pairs.collect(), "both windows count");
    assert_eq!(
        told("jackpot_game_contributed_total").len(),
        window.by_game.as_ref().map_or(0, BTreeMap::len)
    );
    business.forget_levels();
    let left = served(&metrics.render());
    assert!(left.keys().all(|name| !name.starts_with("jackpot_level_")), "another process tells of them now");
    assert!(left.contains_key("jackpot_operator_contributed_total"), "what this one published stays counted");
}

#[test]
fn there_is_a_bound_on_business_series_and_what_is_beyond_is_counted() {
    let stage = StageName::Aggregate;
    let metrics = Metrics::new(stage);
    let business = Business::register(&metrics, stage, None);
    assert!(!business.counts(60));
    let level: LevelTotals = example("totals/valid/after-a-hit.json");
    for number in 0..200 {
        business.level(&LevelTotals { pool: format!("pool-{number}"), ..level.clone() });
    }
    let kept = |text: &str| {
        text.lines()
            .filter(|line| line.starts_with("jackpot_level_") || line.starts_with("jackpot_game"))
            .count()
    };
    assert_eq!(kept(&metrics.render()), SERIES_MAX, "8 of each of 125 levels");
    assert_eq!(value(&metrics, stage, "jackpot_business_left_out_total"), "75");
    business.level(&LevelTotals { pool: "pool-3".into(), hits: 9, ..level });
    business.window(&example("window/valid/one-minute.json"));
    let text = metrics.render();
    assert_eq!(kept(&text), SERIES_MAX);
    let hits =
        text.lines().find(|line| line.starts_with("jackpot_level_hits_total") && line.contains("\"pool-3\""));
    assert!(hits.is_some_and(|line| line.ends_with(" 9")), "those that are there go on: {hits:?}");
}
