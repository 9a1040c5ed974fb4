//! Wagers published by clients in other languages, without an SDK, signed or not, are acknowledged and counted exactly
//! once. The producers in `docs/producers/` are what a game server would do, and what the guide for suppliers hands out;
//! `.ci/run` installs what they need, as do the commands that a test names where it is absent. The producers in Go and
//! Java are not run here. The stages' binaries and the producer in Rust must be built: `cargo build --workspace`.

#![expect(clippy::unwrap_used, reason = "a check that cannot go on has failed")]

#[allow(dead_code, reason = "each test crate uses a part of what they share")]
#[path = "support/shared.rs"]
mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use jackpot_core::time::Millis;
use serde_json::{Value, json};

use support::input::{self, lines};
use support::model::text;
use support::pipeline::Pipeline;
use support::record::{self, Record};

const SOURCE: &str = "acme-spin-eu1";
const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const ANOTHER_KEY: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

#[test]
fn nats_wagers_of_other_languages_are_counted_once() {
    let clients = [python(), javascript(), rust()];
    let terms = input::example_terms();
    let batches = input::generate(&terms, 13, 4_000);
    // Each client has operators of its own.
    let share = |operators: &[&str]| -> Vec<Value> {
        batches.iter().filter(|batch| operators.contains(&text(batch, "operator"))).cloned().collect()
    };
    let shares = [share(&["acme"]), share(&["fjordbet"]), share(&["silverstate", "harbourside"])];
    assert_eq!(shares.iter().map(Vec::len).sum::<usize>(), batches.len());
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, batches: &[Value]| {
        let path = directory.path().join(name);
        std::fs::write(&path, lines(batches).join("\n") + "\n").unwrap();
        path
    };
    let files = [0, 1, 2].map(|share| file(&format!("{share}.ndjson"), &shares[share]));
    let keys = directory.path().join("keys");
    std::fs::write(&keys, format!("k1 {KEY}\n")).unwrap();
    let data = directory.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let flags = ["--partitions", "4", "--keys", keys.to_str().unwrap()];
    let pipeline = Pipeline::start(&data, &flags, &[]);

    // Each client tells its own share, then once more what another one has told.
    let mut positions = BTreeSet::new();
    for shift in [0, 1] {
        for (number, client) in clients.iter().enumerate() {
            let share = (number + shift) % shares.len();
            let acknowledgements = publish(client, &pipeline, &files[share], None);
            assert_eq!(acknowledgements.len(), shares[share].len());
            for (acknowledgement, batch) in acknowledgements.iter().zip(&shares[share]) {
                assert_eq!(acknowledgement["stream"], "wagers");
                assert_eq!(acknowledgement["sequence"], batch["sequence"]);
                let position = acknowledgement["seq"].as_u64().unwrap();
                assert!(positions.insert(position), "{acknowledgement} is new");
            }
        }
    }

    pipeline.wait();
    let (totals, refusals) = (pipeline.json(&["totals"]), pipeline.json(&["refusals"]));
    let record = Record::open(&pipeline.url);
    let outcome = record.model(&terms);
    let repeats = outcome.refusals.iter().filter(|(_, reason)| reason == "duplicate_batch").count();
    assert_eq!(repeats, batches.len());
    assert!(outcome.allocated > 3_900, "nearly all were counted: {}", outcome.allocated);
    record::assert_modelled(&outcome, &totals, &refusals);
    record::assert_balanced(&totals);

    signed(&clients, &pipeline, &terms, directory.path());
    pipeline.stop();
}

/// From now on a source has a key: what each client signs with it counts, what it signs with another one or not at all
/// is refused.
fn signed(clients: &[Client], pipeline: &Pipeline, terms: &Value, directory: &Path) {
    let path = |name: &str| directory.join(name);
    let mut keyed = terms.clone();
    keyed["revision"] = json!(2);
    let sources = keyed["sources"].as_array_mut().unwrap();
    sources.iter_mut().find(|source| source["source"] == SOURCE).unwrap()["keys"] = json!(["k1"]);
    std::fs::write(path("terms.json"), keyed.to_string()).unwrap();
    let (file, keys) = (path("terms.json"), path("keys"));
    pipeline.ok(&["terms", "apply", file.to_str().unwrap(), "--keys", keys.to_str().unwrap()]);

    let before = pipeline.json(&["refusals", "--source", SOURCE]).len();
    let wagers = allocated(pipeline);
    let mut sequence = 100_000;
    let mut expected = Vec::new();
    for client in clients {
        for secret in [Some(KEY), Some(ANOTHER_KEY), None] {
            sequence += 1;
            std::fs::write(path("batch"), batch(sequence)).unwrap();
            assert_eq!(publish(client, pipeline, &path("batch"), secret).len(), 1);
            if secret != Some(KEY) {
                expected.push((json!(format!("{SOURCE}/{sequence}")), json!("bad_signature")));
            }
        }
    }
    pipeline.wait();
    let refused: Vec<_> = pipeline.json(&["refusals", "--source", SOURCE])[before..]
        .iter()
        .map(|refusal| (refusal["batch"].clone(), refusal["reason"].clone()))
        .collect();
    assert_eq!(refused, expected);
    assert_eq!(allocated(pipeline), wagers + clients.len() as u64);
}

/// How many wagers took part in the level `grand` of `mega`.
fn allocated(pipeline: &Pipeline) -> u64 {
    pipeline.json(&["totals", "--pool", "mega", "--level", "grand"])[0]["wagers"].as_u64().unwrap()
}

/// A batch of one wager that takes part in every level of the pool `mega`. Its player has a name that is not ASCII in a
/// field that nobody reads: signatures are over bytes.
fn batch(sequence: u64) -> String {
    let now = Millis::now().plus(-1_000);
    let wager = json!({
        "session": format!("s-{sequence}"), "interaction": 1, "player": "p-1", "game": "quick-spin-7", "round": "r-1",
        "amount": "2.50", "currency": "EUR", "funds": "cash", "occurred_at": now, "note": "Żaneta, 10 €",
        "location": {"jurisdiction": "MT", "checked_at": now},
    });
    json!({"schema": "wager-batch/1", "operator": "acme", "source": SOURCE, "sequence": sequence, "wagers": [wager]})
        .to_string()
}

/// A program that publishes, its first arguments, and one more setting.
struct Client {
    program: PathBuf,
    script: Option<PathBuf>,
    settings: Vec<(&'static str, PathBuf)>,
}

fn python() -> Client {
    let installed = root().join("target/foreign/python");
    let command =
        "python3 -m pip install --target target/foreign/python -r docs/producers/python/requirements.txt";
    check_installed(&installed.join("nats"), command);
    Client {
        program: "python3".into(),
        script: Some(producers().join("python/publish.py")),
        settings: vec![("PYTHONPATH", installed)],
    }
}

fn javascript() -> Client {
    let folder = producers().join("node");
    check_installed(&folder.join("node_modules/@nats-io"), "npm ci --prefix docs/producers/node");
    Client { program: "node".into(), script: Some(folder.join("publish.mjs")), settings: Vec::new() }
}

fn rust() -> Client {
    let program = Path::new(env!("CARGO_BIN_EXE_jackpot")).with_file_name("jackpot-producer");
    check_installed(&program, "cargo build --workspace");
    Client { program, script: None, settings: Vec::new() }
}

fn check_installed(path: &Path, command: &str) {
    assert!(path.exists(), "{} is missing; run `{command}` (or `.ci/run`) first", path.display());
}

/// Publishes a file with a client; gives the acknowledgements that it prints.
fn publish(client: &Client, pipeline: &Pipeline, file: &Path, secret: Option<&str>) -> Vec<Value> {
    let name = client.program.display();
    let mut command = Command::new(&client.program);
    command
        .args(&client.script)
        .args(["--url", &pipeline.url])
        .args(secret.map(|secret| ["--secret", secret]).iter().flatten());
    let Output { status, stdout, stderr } = command
        .arg(file)
        .stdin(Stdio::null())
        .envs(client.settings.iter().map(|(name, value)| (name, value)))
        .output()
        .unwrap_or_else(|error| panic!("{name} cannot be run ({error}); install it"));
    assert!(status.success(), "{name} {:?}: {status}: {}", client.script, String::from_utf8_lossy(&stderr));
    let printed = String::from_utf8(stdout).unwrap();
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn producers() -> PathBuf {
    root().join("docs/producers")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
