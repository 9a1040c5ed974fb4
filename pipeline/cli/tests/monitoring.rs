//! Alerts, runbooks and dashboards in k8s/monitoring: held together and to the README's tables by what they say, judged
//! by promtool, and seen at work by a real Prometheus that scrapes a real pipeline.
//! Prometheus must be on PATH (Debian's package `prometheus`; `.ci/run` installs it), and the stages' binaries must be
//! built: `cargo build --workspace`.

#![expect(clippy::unwrap_used, reason = "a check that cannot go on has failed")]

#[allow(dead_code, reason = "each test crate uses a part of it")]
#[path = "../../core/tests/support/exposition.rs"]
mod exposition;
#[path = "support/prometheus.rs"]
mod prometheus;
#[allow(dead_code, reason = "each test crate uses a part of what they share")]
#[path = "support/shared.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use prometheus::{Prometheus, check_metrics, eventually, promtool};
use support::pipeline::{Pipeline, STAGES, signal};

fn monitoring() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../k8s/monitoring")
}

fn read(file: &str) -> String {
    std::fs::read_to_string(monitoring().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// What follows a word at the beginning of a line, for each line that it begins.
fn after<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.trim_start().strip_prefix(word)).map(str::trim).collect()
}

#[test]
fn promtool_accepts_rules_settings_and_unit_tests() {
    let folder = monitoring();
    promtool(&folder, &["check", "rules", "--lint=all", "--lint-fatal", "rules.yaml"]);
    promtool(&folder, &["check", "config", "prometheus.yml"]);
    promtool(&folder, &["test", "rules", "rules_test.yaml"]);
}

#[test]
fn every_alert_has_a_runbook_and_a_unit_test_and_each_of_those_its_alert() {
    let (rules, tests, runbooks) = (read("rules.yaml"), read("rules_test.yaml"), read("runbooks.md"));
    let alerts = after(&rules, "- alert:");
    assert!(alerts.len() > 20, "{alerts:?}");
    assert_eq!(after(&runbooks, "## "), alerts, "runbooks are in the order of the alerts");
    assert_eq!(after(&tests, "- name:"), alerts, "and so are unit tests");
    let urls: Vec<_> =
        alerts.iter().map(|alert| format!("'k8s/monitoring/runbooks.md#{}'", alert.to_lowercase())).collect();
    assert_eq!(after(&rules, "runbook_url:"), urls, "an alert names its runbook by the section's anchor");
    for (alert, test) in alerts.iter().zip(tests.split("\n  - name: ").skip(1)) {
        let severe =
            runbooks.split(&format!("\n## {alert}\n\n*")).nth(1).expect("a runbook says how severe it is");
        let severity = severe.split(".*").next().unwrap();
        let firing = after(test, "- exp_labels:");
        assert!(!firing.is_empty(), "the unit test of {alert} sees it fire");
        assert!(firing.iter().all(|labels| labels.contains(&format!("severity: {severity}}}"))), "{alert}");
        let silent: Vec<_> = after(test, "exp_alerts:").iter().map(|expect| expect.is_empty()).collect();
        assert!(!silent[0], "the unit test of {alert} begins while all is well");
        assert!(
            firing.len() > 1 || silent.ends_with(&[false]),
            "the unit test of {alert} sees it clear, or another one take its place"
        );
    }
}

#[test]
fn the_operators_object_holds_the_same_rules() {
    let printed = Command::new(monitoring().join("prometheus-rule")).output().unwrap();
    assert!(printed.status.success());
    assert_eq!(
        String::from_utf8(printed.stdout).unwrap(),
        read("prometheus-rule.yaml"),
        "after a change: k8s/monitoring/prometheus-rule > k8s/monitoring/prometheus-rule.yaml"
    );
    let rules = read("rules.yaml");
    let (_, rules) = rules.split_once("groups:").unwrap();
    let object = read("prometheus-rule.yaml");
    let (_, inner) = object.split_once("\nspec:\n  groups:").unwrap();
    assert_eq!(inner.replace("\n  ", "\n"), rules);
}

/// A query of a dashboard: the panel's title, and what is asked.
struct Query {
    panel: String,
    expr: String,
}

const DASHBOARDS: [&str; 2] = ["dashboards/pipeline.json", "dashboards/business.json"];

fn queries(dashboard: &str) -> Vec<Query> {
    let board: Value = serde_json::from_str(&read(dashboard)).unwrap();
    let mut queries = Vec::new();
    for panel in board["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        for target in panel.get("targets").and_then(Value::as_array).into_iter().flatten() {
            let expr = target["expr"].as_str().unwrap();
            let expr = expr.replace("$__rate_interval", "10s").replace("$pool", ".+");
            assert!(!expr.contains('$'), "{title}: {expr} names a variable that this test does not know");
            queries.push(Query { panel: title.to_owned(), expr });
        }
    }
    queries
}

/// The names of our metrics in a query.
fn named(expr: &str) -> BTreeSet<String> {
    let inside = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    expr.split(|c| !inside(c))
        .filter(|word| word.starts_with("jackpot_") || word.starts_with("jackpot:"))
        .map(str::to_owned)
        .collect()
}

/// All metrics that the README lists, and the records of the rules.
fn known() -> BTreeSet<String> {
    let documented = STAGES.into_iter().chain(["`--business-metrics`"]).flat_map(exposition::documented);
    let mut known = BTreeSet::new();
    for (name, described) in documented {
        if described.kind == "histogram" {
            known.extend(["_bucket", "_count", "_sum"].map(|end| format!("{name}{end}")));
        } else {
            known.insert(name);
        }
    }
    known.extend(after(&read("rules.yaml"), "- record:").iter().map(|&name| name.to_owned()));
    known
}

#[test]
fn rules_and_dashboards_ask_for_what_there_is() {
    let files =
        std::fs::read_dir(monitoring().join("dashboards")).unwrap().map(|file| file.unwrap().file_name());
    let files: BTreeSet<_> = files.map(|name| format!("dashboards/{}", name.to_str().unwrap())).collect();
    assert_eq!(files, DASHBOARDS.map(str::to_owned).into(), "no dashboard is left out here");
    let listed = after(&read("kustomization.yaml"), "- dashboards/").len();
    assert_eq!(listed, DASHBOARDS.len(), "nor in what is applied");
    let (known, mut asked) = (known(), named(&read("rules.yaml")));
    let mut as_rules = String::from("groups:\n- name: dashboards\n  rules:\n");
    for (dashboard, uid) in DASHBOARDS.into_iter().zip(["jackpot-pipeline", "jackpot-business"]) {
        let board: Value = serde_json::from_str(&read(dashboard)).unwrap();
        assert_eq!(board["uid"], uid);
        let panels = board["panels"].as_array().unwrap();
        let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
        assert_eq!(ids.len(), panels.len(), "{dashboard}: each panel has an id of its own");
        for Query { panel, expr } in queries(dashboard) {
            let names = named(&expr);
            assert!(!names.is_empty() || expr.contains("ALERTS"), "{dashboard}, {panel}: {expr}");
            asked.extend(names);
            let quoted = serde_json::to_string(&expr).unwrap();
            as_rules.push_str(&format!("  - record: dashboard:query\n    expr: {quoted}\n"));
        }
        let variables = board["templating"]["list"].as_array().unwrap();
        let lists = variables.iter().filter_map(|variable| variable["query"].as_str());
        asked.extend(lists.filter(|query| *query != "prometheus").flat_map(named));
    }
    let unknown: Vec<_> = asked.difference(&known).collect();
    assert!(unknown.is_empty(), "the README and the rules know no {unknown:?}");
    let of_histogram = |name: &str| name.ends_with("_count") || name.ends_with("_sum");
    let unseen: Vec<_> = known.difference(&asked).filter(|name| !of_histogram(name)).collect();
    assert!(unseen.is_empty(), "no dashboard and no alert looks at {unseen:?}");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("queries.yaml"), as_rules).unwrap();
    // The same name for all of them is a duplicate to the linter, and of no matter here.
    promtool(folder.path(), &["check", "rules", "--lint=none", "queries.yaml"]);
}

/// The rules with durations for a test: scraped twice a second, they notice and forget within seconds.
fn hasty_rules() -> String {
    let mut hasty = String::new();
    for line in read("rules.yaml").lines() {
        let line = match line.split_once("for: ") {
            // What has half an hour for it has nothing to do with a test's minute.
            Some((indent, wait)) if indent.trim().is_empty() && wait != "30m" && wait != "1h" => {
                format!("{indent}for: 1s")
            }
            _ => line.replace("[1m]", "[3s]").replace("[2m]", "[4s]").replace("[5m]", "[6s]"),
        };
        hasty.push_str(&line.replace("[10m]", "[8s]").replace(") > 45", ") > 4"));
        hasty.push('\n');
    }
    assert!(
        hasty.contains("[3s]) == 0") && hasty.contains("[1h])) > 4"),
        "the rules are as this test knows them"
    );
    hasty
}

/// Where each stage serves its metrics, as `jackpot up` said.
fn ports(pipeline: &Pipeline) -> BTreeMap<String, u16> {
    let said = pipeline.said.iter().filter_map(|line| {
        let (stage, address) = line.trim_end().strip_suffix("/metrics")?.split_once(' ')?;
        Some((stage.to_owned(), address.rsplit_once(':')?.1.parse().ok()?))
    });
    said.collect()
}

/// What of a dashboard may be empty while all is well: what is shown only where there is something to see.
const QUIET: [&str; 4] =
    ["Refusals per second", "Refusals per minute by reason", "Time until full", "Recoveries per minute"];

#[test]
fn nats_a_prometheus_sees_a_pipeline_and_its_alerts_fire_and_clear() {
    let directory = tempfile::tempdir().unwrap();
    let flags = ["--partitions", "2", "--sync", "relaxed"];
    let settings = [("JACKPOT_BUSINESS_METRICS", "on"), ("JACKPOT_IDLE_AFTER", "1h")];
    let pipeline = Pipeline::start(directory.path(), &flags, &settings);
    let ports = ports(&pipeline);
    assert_eq!(ports.len(), STAGES.len(), "{:?}", pipeline.said);
    let targets: Vec<_> = ports.values().copied().collect();
    let prometheus = Prometheus::start(directory.path(), &hasty_rules(), &targets);
    eventually("all five are scraped", || prometheus.numbers("sum(up)") == [5.0]);

    // Event time goes by the wagers alone here, and each lot closes the windows of the one before. Of a counter, what it
    // begins with is no increase: so there are three lots.
    for (minutes, told) in [(30, 0), (15, 1), (0, 2)] {
        let begun = jiff::Timestamp::now() - jiff::SignedDuration::from_mins(minutes);
        let begun = begun.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        pipeline.ok(&["load", "--rate", "1000", "--seconds", "1", "--start", &begun]);
        pipeline.wait();
        eventually("contributions by operator and game are told", || {
            let names = ["jackpot_operator_contributed_total", "jackpot_game_contributed_total"];
            let moved = |name| prometheus.numbers(&format!("max(changes({name}[10m])) >= {told} - 1")).len();
            told == 0 || names.into_iter().all(|name| moved(name) == 1)
        });
    }
    for (stage, port) in &ports {
        check_metrics(stage, *port);
    }
    levels_are_those_of_the_record(&pipeline, &prometheus);
    shares_add_up(&prometheus);
    for (dashboard, query) in
        DASHBOARDS.iter().flat_map(|name| queries(name).into_iter().map(move |q| (name, q)))
    {
        eventually(&format!("{dashboard}, {}: {}", query.panel, query.expr), || {
            !prometheus.query(&query.expr).is_empty() || QUIET.contains(&query.panel.as_str())
        });
    }
    let beats = "changes(jackpot_heartbeat_timestamp_seconds[4s]) > 2";
    let quiet = "sum(increase(jackpot_wagers_in_total[4s])) == 0";
    eventually("the heart of both partitions beats while no wager comes", || {
        prometheus.numbers(&format!("count({beats}) and {quiet}")) == [2.0]
    });
    eventually("no alert fires while all is well", || prometheus.firing().is_empty());

    stopped_and_continued(&pipeline, &prometheus);

    // What nothing changes is told again by the process that comes after.
    pipeline.kill("aggregate");
    levels_are_those_of_the_record(&pipeline, &prometheus);
}

/// A stage that is held while there is something to do: who stands still, and what is late for it, is alerted, and is
/// not any more once the stage goes on.
fn stopped_and_continued(pipeline: &Pipeline, prometheus: &Prometheus) {
    let held = pipeline.pid("geofence").unwrap();
    signal("STOP", held);
    pipeline.ok(&["load", "--rate", "400", "--seconds", "2"]);
    let stage = |stage: &str| Some(stage.to_owned());
    let expected = [
        ("JackpotTargetDown", stage("geofence")),
        ("JackpotStageStalled", stage("geofence")),
        ("JackpotPartitionUnowned", stage("geofence")),
        ("JackpotHeartbeatLate", None),
    ];
    let expected: BTreeSet<_> = expected.map(|(alert, stage)| (alert.to_owned(), stage)).into();
    let mut seen = BTreeSet::new();
    eventually(&format!("{expected:?} fire"), || {
        seen.extend(prometheus.firing());
        expected.is_subset(&seen)
    });
    assert!(
        seen.iter().all(|(_, of)| of.is_none() || *of == stage("geofence")),
        "no other stage is to blame: {seen:?}"
    );
    signal("CONT", held);
    pipeline.wait();
    eventually("all alerts are silent again", || prometheus.firing().is_empty());
}

/// Each level is told, as near to the exact amount as a number of Prometheus can be.
fn levels_are_those_of_the_record(pipeline: &Pipeline, prometheus: &Prometheus) {
    let totals = pipeline.json(&["totals"]);
    assert!(totals.len() > 5);
    for (name, field) in [
        ("jackpot_level_current", "current"),
        ("jackpot_level_contributed_total", "contributed"),
        ("jackpot_level_wagers_total", "wagers"),
        ("jackpot_level_hits_total", "hits"),
    ] {
        let exact = totals.iter().map(|total| {
            let exact = &total[field];
            let exact = exact.as_str().map_or_else(|| exact.to_string(), str::to_owned);
            let name = |field: &str| total[field].as_str().unwrap().to_owned();
            ((name("pool"), name("level")), exact.parse::<f64>().unwrap())
        });
        let exact: BTreeMap<_, _> = exact.collect();
        eventually(&format!("{name} is {exact:?}"), || {
            let told = prometheus.query(name).into_iter();
            told.map(|(labels, value)| ((labels["pool"].clone(), labels["level"].clone()), value))
                .collect::<BTreeMap<_, _>>()
                == exact
        });
    }
}

/// What operators and games contributed to a pool is the same money.
fn shares_add_up(prometheus: &Prometheus) {
    let [operators, games] = ["jackpot_operator_contributed_total", "jackpot_game_contributed_total"]
        .map(|name| format!("sum by (pool) ({name})"));
    eventually(
        "shares by operator and by game add up to the same, up to what binary fractions are off",
        || {
            !prometheus.query(&operators).is_empty()
                && prometheus.query(&format!("{operators} unless {games}")).is_empty()
                && prometheus.query(&format!("abs({operators} / {games} - 1) > 1e-9")).is_empty()
        },
    );
}
