//! `jackpot chaos` itself: a short run with a fixed seed finds nothing wrong, and what it leaves behind is what the
//! independent model in `support/model.rs` says, to the last digit.
//! The stages' binaries must be built: `cargo build --workspace`.

#![expect(clippy::unwrap_used, reason = "a check that cannot go on has failed")]

#[allow(dead_code, reason = "each test crate uses a part of what they share")]
#[path = "support/shared.rs"]
mod support;

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use support::input;
use support::model::{list, text};
use support::pipeline::Pipeline;
use support::record::{self, Record};

/// Wagers that are published: 300 a second for 30 s.
const WAGERS: u64 = 9_000;

#[test]
fn nats_kills_stops_and_restarts_change_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let report = chaos(directory.path());
    let happened = |action: &str| -> u64 {
        let kinds = list(&report, "kinds").iter().filter(|kind| text(kind, "kind").starts_with(action));
        kinds.map(|kind| kind["count"].as_u64().unwrap()).sum()
    };
    assert_eq!([happened("kill "), happened("stop "), happened("restart")], [8, 2, 1], "{report}");
    assert_eq!(
        (&report["wrong"], &report["wagers"]),
        (&Value::Array(Vec::new()), &WAGERS.into()),
        "{report}"
    );
    for kind in list(&report, "kinds") {
        let worst = kind["worst_ms"].as_i64().unwrap().max(kind["worst_amid_ms"].as_i64().unwrap());
        assert!((1..60_000).contains(&worst), "a fault is felt, and gets over: {kind}");
    }
    let held: Vec<_> = list(&report, "memory").iter().map(|held| text(held, "process")).collect();
    assert_eq!(held, ["aggregate", "allocate", "audit", "geofence", "nats-server", "validate"]);
    for held in list(&report, "memory") {
        let kib = ["min_kib", "median_kib", "max_kib"].map(|field| held[field].as_i64().unwrap());
        assert!(kib[0] > 0 && kib.is_sorted() && held["samples"].as_u64() > Some(5), "{held}");
    }

    let pipeline = Pipeline::start(directory.path(), &[], &[]);
    let record = Record::open(&pipeline.url);
    let outcome = record.model(&input::example_terms());
    record::assert_exact(&record, &outcome, |args| pipeline.json(args));
    let refused = |whole: bool| {
        let of = outcome.refusals.iter().filter(|(_, reason)| *reason != "hit_refused");
        of.filter(|(_, reason)| (reason == "duplicate_batch") == whole).count() as u64
    };
    assert_eq!(outcome.allocated + refused(false), WAGERS, "every wager counts once or is refused once");
    assert_eq!(Some(refused(true)), report["repeated"].as_u64(), "and so is every repeated batch");
    pipeline.stop();
}

/// A short run over a directory.
fn chaos(dir: &Path) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jackpot"));
    command.args([
        "chaos",
        "--json",
        "--seed",
        "7",
        "--seconds",
        "30",
        "--rate",
        "300",
        "--snapshot-bytes",
        "65536",
    ]);
    command.args(["--kills", "8", "--stops", "2", "--restarts", "1", "--dir"]).arg(dir);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let log = std::fs::read_to_string(dir.join("up.log")).unwrap_or_default();
    assert!(output.status.success(), "{said}\n{}\n{log}", String::from_utf8_lossy(&output.stdout));
    serde_json::from_slice(&output.stdout).expect("one object and nothing else")
}
