//! Wagers published by clients in other languages, without an SDK, are acknowledged and counted exactly once.
//! The scripts in `foreign/` are what a game server would do; `.ci/run` installs what they need, as do the
//! commands that a test names where it is absent. The stages' binaries must be built: `cargo build --workspace`.

#![expect(clippy::unwrap_used, reason = "a check that cannot go on has failed")]

#[allow(dead_code, reason = "each test crate uses a part of what they share")]
#[path = "support/shared.rs"]
mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use support::input::{self, lines};
use support::model::text;
use support::pipeline::Pipeline;
use support::record::{self, Record};

#[test]
fn nats_wagers_of_python_and_javascript_are_counted_once() {
    let (python, javascript) = (python(), javascript());
    let terms = input::example_terms();
    let batches = input::generate(&terms, 13, 4_000);
    let (acme, others): (Vec<_>, Vec<_>) =
        batches.into_iter().partition(|batch| text(batch, "operator") == "acme");
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, batches: &[Value]| {
        let path = directory.path().join(name);
        std::fs::write(&path, lines(batches).join("\n") + "\n").unwrap();
        path
    };
    let (of_acme, of_others) = (file("acme.ndjson", &acme), file("others.ndjson", &others));
    let pipeline = Pipeline::start(directory.path(), &["--partitions", "4"], &[]);

    let by_python = publish(&python, &pipeline, &of_acme);
    let by_javascript = publish(&javascript, &pipeline, &of_others);
    // Each client tells once more what the other one has told.
    let again_by_javascript = publish(&javascript, &pipeline, &of_acme);
    let again_by_python = publish(&python, &pipeline, &of_others);
    let mut positions = BTreeSet::new();
    for (acknowledgements, batches) in [
        (&by_python, &acme),
        (&by_javascript, &others),
        (&again_by_javascript, &acme),
        (&again_by_python, &others),
    ] {
        assert_eq!(acknowledgements.len(), batches.len());
        for (acknowledgement, batch) in acknowledgements.iter().zip(batches) {
            assert_eq!(acknowledgement["stream"], "wagers");
            assert_eq!(acknowledgement["sequence"], batch["sequence"]);
            assert!(positions.insert(acknowledgement["seq"].as_u64().unwrap()), "{acknowledgement} is new");
        }
    }

    pipeline.wait();
    let (totals, refusals) = (pipeline.json(&["totals"]), pipeline.json(&["refusals"]));
    let record = Record::open(&pipeline.url);
    let outcome = record.model(&terms);
    let repeats = outcome.refusals.iter().filter(|(_, reason)| reason == "duplicate_batch").count();
    assert_eq!(repeats, acme.len() + others.len());
    assert!(outcome.allocated > 3_900, "nearly all were counted: {}", outcome.allocated);
    record::assert_modelled(&outcome, &totals, &refusals);
    record::assert_balanced(&totals);
    pipeline.stop();
}

/// A program that publishes, its first arguments, and one more setting.
struct Client {
    program: &'static str,
    script: PathBuf,
    settings: Vec<(&'static str, PathBuf)>,
}

fn python() -> Client {
    let installed = root().join("target/foreign/python");
    let command = "python3 -m pip install --target target/foreign/python -r pipeline/cli/tests/foreign/requirements.txt";
    check_installed(&installed.join("nats"), command);
    Client {
        program: "python3",
        script: scripts().join("publish.py"),
        settings: vec![("PYTHONPATH", installed)],
    }
}

fn javascript() -> Client {
    check_installed(&scripts().join("node_modules/@nats-io"), "npm ci --prefix pipeline/cli/tests/foreign");
    Client { program: "node", script: scripts().join("publish.mjs"), settings: Vec::new() }
}

fn check_installed(path: &Path, command: &str) {
    assert!(path.exists(), "{} is missing; run `{command}` (or `.ci/run`) first", path.display());
}

/// Publishes a file with a client; gives the acknowledgements that it prints.
fn publish(client: &Client, pipeline: &Pipeline, file: &Path) -> Vec<Value> {
    let mut command = Command::new(client.program);
    command.arg(&client.script).args(["--url", &pipeline.url]).arg(file).stdin(Stdio::null());
    let Output { status, stdout, stderr } = command
        .envs(client.settings.iter().map(|(name, value)| (name, value)))
        .output()
        .unwrap_or_else(|error| panic!("{} cannot be run ({error}); install it", client.program));
    assert!(status.success(), "{}: {status}: {}", client.script.display(), String::from_utf8_lossy(&stderr));
    let printed = String::from_utf8(stdout).unwrap();
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
