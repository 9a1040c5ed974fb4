//! What the outside sees of the ledger, with plain clients and tiny inputs: every field of every message, when it is
//! written, and what the metrics count. The rules one by one are in the stages' own tests.
//! The stages' binaries must be built: `cargo build --workspace`.

#![expect(clippy::unwrap_used, reason = "a check that cannot go on has failed")]

#[allow(dead_code, reason = "each test crate uses a part of what they share")]
#[path = "support/shared.rs"]
mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use jackpot_core::time::Millis;
use jackpot_core::topology;
use serde_json::{Value, json};

use support::model::{list, millis, pico, text};
use support::pipeline::{Pipeline, STAGES, until};
use support::record::{self, Record};

/// Pools of three currencies; of the levels of `mega` one has a ceiling. Revision 2 adds a level, revision 3 nothing.
fn terms(revision: u64) -> Value {
    let mut levels = vec![
        json!({ "level": "grand", "base": "100", "ceiling": "100.05", "increment_ppm": 10_000, "reserve_ppm": 5_000 }),
        json!({ "level": "minor", "base": "1.5", "increment_ppm": 2_500 }),
    ];
    if revision > 1 {
        levels.push(json!({ "level": "late", "base": "7", "increment_ppm": 0 }));
    }
    json!({
        "schema": "terms/1", "revision": revision,
        "jurisdictions": [
            { "code": "MT", "status": "permitted" }, { "code": "US-NV", "status": "permitted" },
            { "code": "SE", "status": "blocked" },
        ],
        "operators": [{ "operator": "acme", "jurisdictions": ["MT", "US", "SE", "GB"] }],
        "sources": [{ "source": "acme-1", "operator": "acme" }],
        "games": [{ "game": "spin", "supplier": "x" }],
        "exchange_rates": [
            { "from": "EUR", "to": "BHD", "rate": "0.4" }, { "from": "EUR", "to": "JPY", "rate": "160" },
        ],
        "pools": [
            { "pool": "mega", "currency": "EUR", "jurisdictions": ["MT", "US"], "max_wager": "10", "levels": levels },
            { "pool": "dinar", "currency": "BHD", "jurisdictions": ["MT"],
              "levels": [{ "level": "only", "base": "2", "increment_ppm": 12_345 }] },
            { "pool": "yen", "currency": "JPY", "jurisdictions": ["MT"],
              "levels": [{ "level": "only", "base": "50", "increment_ppm": 12_345 }] },
        ],
    })
}

/// A wager of 4 EUR in Malta, changed; its interaction is its number.
fn wager(number: u64, at: Millis, change: impl FnOnce(&mut Value)) -> Value {
    let mut wager = json!({
        "session": "s-1", "interaction": number, "player": "p-1", "game": "spin", "round": format!("r-{number}"),
        "amount": "4", "currency": "EUR", "funds": "cash", "occurred_at": at,
        "location": { "jurisdiction": "MT", "checked_at": at },
    });
    change(&mut wager);
    wager
}

fn batch(sequence: u64, wagers: &[Value]) -> String {
    json!({ "schema": "wager-batch/1", "operator": "acme", "source": "acme-1", "sequence": sequence, "wagers": wagers })
        .to_string()
}

const SUBJECT: &str = "wagers.acme.acme-1";

fn start(dir: &Path, settings: &[(&str, &str)]) -> (Pipeline, Record) {
    write(dir, 1);
    let file = dir.join("terms-1.json");
    let flags = ["--partitions", "2", "--sync", "relaxed", "--terms", file.to_str().unwrap()];
    let pipeline = Pipeline::start(dir, &flags, settings);
    let record = Record::open(&pipeline.url);
    (pipeline, record)
}

fn write(dir: &Path, revision: u64) -> String {
    let file = dir.join(format!("terms-{revision}.json"));
    std::fs::write(&file, terms(revision).to_string()).unwrap();
    file.to_str().unwrap().to_owned()
}

fn last(record: &Record, stream: &str, subject: &str) -> Value {
    record.last(stream, subject).map(|entry| record::json(&entry)).unwrap_or_default()
}

/// Two batches: three wagers that count, of which the second wins; each way to end otherwise; then the first batch again.
fn publish(record: &Record) -> Millis {
    let at = Millis::now();
    let won = json!([{ "pool": "mega", "level": "grand" }, { "pool": "yen", "level": "only" }, { "pool": "dinar", "level": "only" }]);
    let wagers = [
        wager(1, at, |_| {}),
        wager(2, at, |wager| wager["hits"] = won),
        wager(3, at, |wager| wager["amount"] = json!("25")),
        wager(4, at, |wager| wager["amount"] = json!(4)),
        wager(5, at, |wager| wager["location"]["jurisdiction"] = json!("SE")),
        wager(6, at, |wager| wager["location"]["jurisdiction"] = json!("GB")),
        wager(7, at, |wager| wager["game"] = json!("unheard-of")),
    ];
    record.publish(SUBJECT, batch(1, &wagers));
    let refused_hit = json!([{ "pool": "mega", "level": "nobody" }]);
    let second = [wager(8, at, |wager| {
        wager["hits"] = refused_hit;
        wager["currency"] = json!("SEK");
    })];
    record.publish(SUBJECT, batch(3, &second));
    record.publish(SUBJECT, batch(1, &wagers));
    at
}

#[test]
fn nats_every_field_is_what_the_contract_says() {
    let directory = tempfile::tempdir().unwrap();
    let (pipeline, record) = start(directory.path(), &[("JACKPOT_WINDOWS", "1,2")]);
    let at = publish(&record);
    pipeline.wait();
    assert!(
        pipeline.said[0].contains("--sync relaxed"),
        "the banner names what a trial may lose: {:?}",
        pipeline.said
    );
    check_idle_watermarks(&record);
    check_totals(&record);
    check_hits(&record, at);
    check_source(&pipeline, &record);
    check_metrics(&pipeline);
    check_quiet_commits(&record);
    check_windows(&record, at);
    check_terms_without_traffic(&pipeline, &record, directory.path());
    check_rebuilt_views(&pipeline, &record);
    pipeline.stop();
}

/// Views may be thrown away: `init` makes their streams anew, and the stages that start fill them from the record.
fn check_rebuilt_views(pipeline: &Pipeline, record: &Record) {
    const VIEWS: [&str; 4] = ["hits", "sources", "totals", "windows"];
    let shown = |view: &'static str| {
        let all = record.all(view);
        // Of a thinned view only the last message of each subject is the same again, and of a source it says how far it
        // was when it was written.
        let latest: BTreeMap<_, _> =
            all.iter().map(|entry| (entry.subject.to_string(), record::json(entry))).collect();
        let mut latest: Vec<_> = latest.into_values().collect();
        latest.iter_mut().filter(|_| view == "sources").for_each(|state| state["frame"] = Value::Null);
        let exact = ["hits", "windows"].contains(&view);
        let all = all.iter().map(record::json).collect::<Vec<_>>();
        if exact { all } else { latest }
    };
    until("every window has closed", || {
        let totals = pipeline.json(&["totals"]);
        let windows = record.values("windows");
        let closed = |total: &Value, seconds: u64| {
            let own = |window: &&Value| {
                let named = ["pool", "level"].iter().all(|field| window[*field] == total[*field]);
                named && window["seconds"] == seconds
            };
            let closing = windows.iter().rfind(own).map_or(0, |window| pico(text(window, "closing")));
            closing == ["current", "reserve", "diversion"].iter().map(|field| pico(text(total, field))).sum()
        };
        totals.iter().all(|total| closed(total, 1) && closed(total, 2))
    });
    let before = VIEWS.map(shown);
    for view in VIEWS {
        record.delete(view);
    }
    pipeline.ok(&["init"]);
    assert!(VIEWS.iter().all(|view| record.count(view) == 0));
    pipeline.kill("aggregate");
    pipeline.kill("audit");
    for (view, before) in VIEWS.into_iter().zip(before) {
        until(&format!("{view} are as they were"), || record.count(view) > 0 && shown(view) == before);
    }
}

/// Both partitions, also the one that never had an event, follow the clock less the lateness once they are idle.
fn check_idle_watermarks(record: &Record) {
    let from = record.count("commits");
    until("both partitions are idle", || {
        let commits = record.all("commits").split_off(usize::try_from(from).unwrap());
        let follows = |entry: &jackpot_core::log::Entry, consumed: &Value| {
            millis(&consumed["watermark"])
                .is_some_and(|at| (1_900..4_000).contains(&(entry.recorded_at.0 - at)))
        };
        commits
            .iter()
            .any(|entry| list(&record::json(entry), "partitions").iter().all(|of| follows(entry, of)))
    });
}

/// Of a source whose partition is not idle, event time is the highest `occurred_at` of its accepted wagers less the
/// lateness; a partition that says nothing holds windows back until the skew is too great.
#[test]
fn nats_event_time_advances_by_the_wagers() {
    let directory = tempfile::tempdir().unwrap();
    let settings = [
        ("JACKPOT_IDLE_AFTER", "1h"),
        ("JACKPOT_LATENESS", "5s"),
        ("JACKPOT_WINDOWS", "1,60"),
        ("JACKPOT_MAX_SKEW", "100s"),
    ];
    let (pipeline, record) = start(directory.path(), &settings);
    let own = usize::from(topology::partition("acme-1", 2));
    let now = Millis(Millis::now().second() * 1_000);
    let watermarks = || {
        let commit = last(&record, "commits", topology::COMMITS);
        [own, 1 - own].map(|partition| millis(&list(&commit, "partitions")[partition]["watermark"]))
    };
    let mut publish = {
        let (record, mut number) = (&record, 0);
        let pipeline = &pipeline;
        move |at: Millis, amount: &str| {
            number += 1;
            let wager = wager(number, at, |wager| wager["amount"] = json!(amount));
            record.publish(SUBJECT, batch(number, &[wager]));
            pipeline.wait();
        }
    };
    publish(now.plus(-300_000), "1");
    assert_eq!(watermarks(), [Some(now.0 - 305_000), None]);
    publish(now.plus(-400_000), "1");
    assert_eq!(watermarks(), [Some(now.0 - 305_000), None], "watermarks never go back");
    publish(now.plus(1_000), "not accepted");
    assert_eq!(watermarks(), [Some(now.0 - 305_000), None], "refused wagers move nothing");
    assert_eq!(record.count("windows"), 0, "the other partition has said nothing");
    // So far ahead that the skew closes all that ends before `now` − 106 s.
    publish(now.plus(-1_000), "1");
    assert_eq!(watermarks(), [Some(now.0 - 6_000), None]);
    until("windows close by the skew", || record.count("windows") > 0);
    pipeline.wait();
    let seconds = |window: &Value| millis(&window["window_end"]).unwrap();
    assert!(record.values("windows").iter().all(|window| seconds(window) <= now.0 - 106_000));
    // Late by its minute: it counts in the earliest open windows, which hold the watermark of 106 s ago.
    publish(now.plus(-300_000), "3");
    publish(now.plus(4_000), "1");
    publish(now.plus(4_500), "1");
    let late = || {
        let windows = record.values("windows");
        windows
            .into_iter()
            .filter(|window| window["pool"] == "yen" && window["late"] != 0)
            .collect::<Vec<_>>()
    };
    until("the late wager's second closes", || late().iter().any(|window| window["seconds"] == 1));
    let window = late().into_iter().find(|window| window["seconds"] == 1).unwrap();
    assert_eq!(window["window_start"], json!(Millis(now.0 - 106_000)));
    assert_eq!(
        [&window["late"], &window["wagers"], &window["wagered"]],
        [&json!(1), &json!(1), &json!("480")]
    );
    // The running totals are exact either way.
    let total = last(&record, "totals", "totals.yen.only");
    assert_eq!([&total["wagers"], &total["wagered"]], [&json!(6), &json!("1280")]);
    pipeline.stop();
}

/// By hand, from the contract. Eligible in `mega`: 4, 4, 10 (of 25). `grand`: 0.04 each for the first two; the second
/// would lift it to 100.08, and 0.03 of it is diverted; then it pays 100.05 and takes 0.03 of diversion, 0.04 of reserve
/// and 99.93 of the house. The third diverts 0.05 of its 0.1.
fn check_totals(record: &Record) {
    let total = |pool: &str, level: &str| last(record, "totals", &format!("totals.{pool}.{level}"));
    let grand = total("mega", "grand");
    let commit = grand["commit"].as_u64().unwrap();
    let committed = record.values("commits");
    let commits = || committed.iter().flat_map(|commit| list(commit, "levels"));
    let changed = commits().filter(|level| level["pool"] == "mega" && level["level"] == "grand").count();
    let of_commit = &committed[usize::try_from(commit).unwrap() - 1];
    let newest = record.all("wagers").last().unwrap().recorded_at;
    assert_eq!(
        committed.last().unwrap()["as_of"],
        json!(newest),
        "the latest receive time of what was consumed"
    );
    let expect = json!({
        "pool": "mega", "level": "grand", "currency": "EUR", "sequence": changed, "commit": commit, "terms": 1,
        "as_of": of_commit["as_of"], "current": "100.05", "display": "100.05", "base": "100", "ceiling": "100.05",
        "pending": null, "reserve": "0.05", "diversion": "0.05", "wagers": 3, "wagered": "18", "contributed": "0.27",
        "paid": "100.05", "house": "199.93", "adjusted": "0", "hits": 1,
    });
    assert_eq!(grand, expect);
    let minor = total("mega", "minor");
    let fields =
        |total: &Value, fields: &[&str]| fields.iter().map(|field| total[*field].clone()).collect::<Vec<_>>();
    let shown = fields(&minor, &["current", "display", "ceiling", "reserve", "wagers", "house", "hits"]);
    assert_eq!(
        shown,
        [json!("1.545"), json!("1.54"), json!(null), json!("0"), json!(3), json!("1.5"), json!(0)]
    );
    // 3 × 160 × 4 … yen at 12,345 ppm: 7.9008 for each of the first two, and what is below a yen stays.
    let yen = total("yen", "only");
    let shown = fields(&yen, &["current", "display", "paid", "wagered"]);
    assert_eq!(shown, [json!("100.1816"), json!("100"), json!("65"), json!("5280")]);
    // 1.6 dinar at 12,345 ppm: 0.019752 each; a dinar has three decimals.
    let dinar = total("dinar", "only");
    let shown = fields(&dinar, &["current", "display", "paid", "wagered"]);
    assert_eq!(shown, [json!("2.123954"), json!("2.123"), json!("2.039"), json!("13.2")]);
    let hits: Vec<_> = ["mega", "yen", "dinar"].iter().map(|pool| number_of_hits(record, pool)).collect();
    assert_eq!(hits, [1, 1, 1]);
}

fn number_of_hits(record: &Record, pool: &str) -> usize {
    record.values("hits").iter().filter(|hit| hit["pool"] == pool).count()
}

fn check_hits(record: &Record, at: Millis) {
    let hits = record.values("hits");
    let stored = record.all("wagers");
    let received = stored.iter().find(|entry| entry.subject.ends_with(".acme.acme-1")).unwrap().recorded_at;
    let expect = json!({
        "pool": "mega", "level": "grand", "currency": "EUR", "sequence": 1, "commit": hits[0]["commit"], "order": 0,
        "wager": "acme-1/1/1", "operator": "acme", "source": "acme-1", "game": "spin", "round": "r-2",
        "jurisdiction": "MT", "occurred_at": at, "recorded_at": received, "payoff": "100.05", "current": "100",
        "from_diversion": "0.03", "from_reserve": "0.04", "from_house": "99.93", "base": "100", "terms": 1,
    });
    assert_eq!(hits[0], expect);
    let order = |hit: &Value| (hit["order"].as_u64(), text(hit, "pool").to_owned());
    let orders: Vec<_> = hits.iter().map(order).collect();
    assert_eq!(orders, [(Some(0), "mega".into()), (Some(1), "yen".into()), (Some(2), "dinar".into())]);
    let stored: Vec<_> = record.all("hits").iter().map(|entry| entry.subject.to_string()).collect();
    assert_eq!(stored, ["hits.mega.grand", "hits.yen.only", "hits.dinar.only"]);
}

fn check_source(pipeline: &Pipeline, record: &Record) {
    let subject = "sources.acme.acme-1";
    until("the view of sources shows all three batches", || {
        last(record, "sources", subject)["refused_batches"] == 1
    });
    let shown = last(record, "sources", subject);
    let stored = record.all("wagers");
    let newest = stored.iter().rfind(|entry| entry.subject.ends_with(".acme.acme-1")).unwrap();
    let fields = ["highest", "batches", "wagers", "refused_batches", "refused_wagers", "missing", "as_of"];
    let got: BTreeMap<_, _> = fields.into_iter().map(|field| (field, shown[field].clone())).collect();
    let expect = json!({
        "highest": 3, "batches": 2, "wagers": 4, "refused_batches": 1, "refused_wagers": 4, "missing": [[2, 2]],
        "as_of": newest.recorded_at,
    });
    assert_eq!(json!(got), expect);
    assert_eq!(pipeline.json(&["sources"]), [shown]);
}

/// Each stage's counters: a batch that is refused whole is in `batches_in` and `refusals` alone.
fn check_metrics(pipeline: &Pipeline) {
    let metrics: BTreeMap<_, _> =
        STAGES.into_iter().map(|stage| (stage, get(pipeline, stage, "/metrics"))).collect();
    let value = |stage: &str, name: &str| {
        let labels = |line: &&str| {
            line.starts_with(&format!("{name}{{")) && line.contains(&format!("stage=\"{stage}\""))
        };
        let line = metrics[stage].lines().find(labels).unwrap_or_else(|| panic!("{stage} has {name}"));
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let of = |name: &str| STAGES.map(|stage| value(stage, name));
    assert_eq!(of("jackpot_wagers_in_total"), [8, 7, 5, 4, 4]);
    assert_eq!(of("jackpot_wagers_out_total"), [7, 5, 4, 0, 0]);
    assert_eq!(of("jackpot_batches_in_total"), [3, 0, 0, 0, 0]);
    let refusals = |stage: &str, reason: &str| {
        let label = format!("reason=\"{reason}\"");
        let lines = metrics[stage].lines().filter(|line| line.starts_with("jackpot_refusals_total{"));
        let line = lines.into_iter().find(|line| line.contains(&label)).unwrap();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    for (stage, reason, count) in [
        ("validate", "invalid_amount", 1),
        ("validate", "duplicate_batch", 1),
        ("validate", "malformed", 0),
        ("geofence", "jurisdiction_blocked", 2),
        ("allocate", "unknown_game", 1),
        ("allocate", "hit_refused", 1),
    ] {
        assert_eq!(refusals(stage, reason), count, "{stage} {reason}");
    }
    for stage in STAGES {
        assert_eq!(get(pipeline, stage, "/livez").lines().next(), Some("HTTP/1.1 200 OK"), "{stage}");
        assert_eq!(get(pipeline, stage, "/readyz").lines().next(), Some("HTTP/1.1 200 OK"), "{stage}");
    }
}

/// Asks a stage on the port that `jackpot up` printed for it.
fn get(pipeline: &Pipeline, stage: &str, path: &str) -> String {
    let line = pipeline.said.iter().find(|line| line.starts_with(&format!("{stage} "))).unwrap();
    let address = line.split("http://").nth(1).unwrap().strip_suffix("/metrics").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A quiet pipeline appends one commit a second.
fn check_quiet_commits(record: &Record) {
    let from = record.count("commits");
    until("several quiet commits are there", || record.count("commits") >= from + 8);
    let commits = record.all("commits");
    let quiet = |entry: &&jackpot_core::log::Entry| {
        let commit = record::json(entry);
        ["levels", "windows", "hits"].iter().all(|field| list(&commit, field).is_empty())
    };
    let quiet: Vec<_> = commits.iter().filter(quiet).collect();
    // Closing windows are no quiet commits; between two that follow each other a second passes.
    for pair in quiet.windows(2).filter(|pair| pair[0].sequence + 1 == pair[1].sequence) {
        let apart = pair[1].recorded_at.0 - pair[0].recorded_at.0;
        assert!(
            (900..5_000).contains(&apart),
            "commits {} and the next are {apart} ms apart",
            pair[0].sequence
        );
    }
    assert!(quiet.len() >= 3, "{}", quiet.len());
}

/// The windows of one and two seconds of the wagers close by the clock; one holds the base, one the wagers.
fn check_windows(record: &Record, at: Millis) {
    let second = at.second();
    let of = |seconds: i64| {
        move |window: &Value| {
            let start = millis(&window["window_start"]).unwrap() / 1_000;
            window["seconds"] == seconds
                && window["pool"] == "mega"
                && window["level"] == "grand"
                && start == second.div_euclid(seconds) * seconds
        }
    };
    until("the windows of the wagers are published", || {
        let windows = record.values("windows");
        [1, 2].iter().all(|&seconds| windows.iter().any(of(seconds)))
    });
    let windows = record.values("windows");
    for seconds in [1, 2] {
        let window = windows.iter().find(|window| of(seconds)(window)).unwrap();
        let start = Millis(second.div_euclid(seconds) * seconds * 1_000);
        let share = json!({ "wagers": 3, "wagered": "18", "contributed": "0.27" });
        // The base may lie in the same window.
        let (opening, house) = match text(window, "house") {
            "99.93" => ("100", "99.93"),
            _ => ("0", "199.93"),
        };
        let expect = json!({
            "pool": "mega", "level": "grand", "currency": "EUR", "commit": window["commit"], "seconds": seconds,
            "window_start": start, "window_end": start.plus(seconds * 1_000), "opening": opening, "closing": "100.15",
            "wagers": 3, "wagered": "18", "contributed": "0.27", "paid": "100.05", "house": house, "adjusted": "0",
            "hits": 1, "late": window["late"], "by_operator": { "acme": share }, "by_jurisdiction": { "MT": share },
        });
        assert_eq!(*window, expect);
        let mut chain = "0".to_owned();
        let own = |window: &&Value| {
            window["seconds"] == seconds && window["pool"] == "mega" && window["level"] == "grand"
        };
        for window in windows.iter().filter(own) {
            assert_eq!(text(window, "opening"), chain, "{window}");
            text(window, "closing").clone_into(&mut chain);
        }
        assert_eq!(chain, "100.15");
    }
    let subjects: Vec<_> = record.all("windows").iter().map(|entry| entry.subject.to_string()).collect();
    assert!(subjects.iter().any(|subject| subject == "windows.2.mega.grand"), "{subjects:?}");
}

/// With no traffic at all the next heartbeat runs a revision; every total names it.
fn check_terms_without_traffic(pipeline: &Pipeline, record: &Record, dir: &Path) {
    pipeline.ok(&["terms", "apply", &write(dir, 2)]);
    until("the new level is shown", || !last(record, "totals", "totals.mega.late").is_null());
    let late = last(record, "totals", "totals.mega.late");
    let first = late["commit"].as_u64();
    let expect = [json!(1), json!("7"), json!("7"), json!(2), json!(0)];
    assert_eq!(["sequence", "current", "house", "terms", "wagers"].map(|field| late[field].clone()), expect);
    let commits = record.values("commits");
    let ran = commits.iter().find(|commit| commit["terms"] == 2).unwrap();
    assert_eq!(
        ran["commit"].as_u64(),
        first,
        "the level is there from the commit that first ran its revision"
    );
    pipeline.ok(&["terms", "apply", &write(dir, 3)]);
    until("every total names the last revision", || {
        let totals = pipeline.json(&["totals"]);
        totals.len() == 5 && totals.iter().all(|total| total["terms"] == 3)
    });
    assert_eq!(last(record, "commits", topology::COMMITS)["terms"], 3);
}
