//! Batches of a source with keys, through a whole pipeline: what is signed counts, what is not is refused, keys
//! rotate, and validate waits at the marker for a key that its file lacks.
//! The stages' binaries must be built: `cargo build --workspace`.

#![expect(clippy::unwrap_used, reason = "a check that cannot go on has failed")]

#[allow(dead_code, reason = "each test crate uses a part of what they share")]
#[path = "support/pipeline.rs"]
mod pipeline;

use std::path::PathBuf;
use std::process::{Command, Output};

use jackpot_core::keys::{self, Key};
use jackpot_core::log::jetstream::{ConnectSettings, JetStream};
use jackpot_core::log::{Append, Appender, Expect, Log};
use jackpot_core::time::Millis;
use serde_json::{Value, json};
use tempfile::TempDir;

use pipeline::{Pipeline, until};

const K1: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const K2: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const SOURCE: &str = "acme-spin-eu1";

/// A pipeline whose one keyed source is [`SOURCE`], and what a test does to it.
struct World {
    pipeline: Pipeline,
    directory: TempDir,
}

impl World {
    fn file(&self, name: &str) -> String {
        path(&self.directory, name)
    }

    /// Runs a subcommand whose end is not taken for granted.
    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jackpot"));
        command.args(args).env("NATS_URL", &self.pipeline.url).env_remove("JACKPOT_KEYS");
        command.output().expect("the command runs")
    }

    /// Runs a subcommand that must fail, and gives what it says.
    fn fails(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        said
    }

    /// Publishes batches with `jackpot publish`, given the key file.
    fn publish(&self, batches: &[String]) {
        std::fs::write(self.file("batches"), batches.join("\n")).unwrap();
        self.pipeline.ok(&["publish", &self.file("batches"), "--keys", &self.file("keys")]);
    }

    /// Publishes a batch as any client would, with these headers.
    fn send(&self, body: &str, headers: Vec<(String, String)>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let log =
                JetStream::connect(&self.pipeline.url, "test", &ConnectSettings::default()).await.unwrap();
            let mut appender = log.appender().await.unwrap();
            let (subject, payload) = (format!("wagers.acme.{SOURCE}"), body.to_owned().into());
            appender.send(Append { subject, headers, payload, expect: Expect::Any }).await.unwrap();
            appender.acknowledged().await.unwrap();
        });
    }

    /// What has become of the batches: those accepted, and the refused ones with their reasons.
    fn check(&self, accepted: &[u64], refused: &[(u64, &str)]) {
        self.pipeline.wait();
        let wagers: u64 = self
            .pipeline
            .json(&["totals", "--pool", "mega", "--level", "grand"])
            .iter()
            .map(|level| level["wagers"].as_u64().unwrap())
            .sum();
        assert_eq!(wagers, u64::try_from(accepted.len()).unwrap(), "one wager a batch: {accepted:?}");
        let told: Vec<_> = self
            .pipeline
            .json(&["refusals", "--source", SOURCE])
            .iter()
            .map(|refusal| (refusal["batch"].clone(), refusal["reason"].clone()))
            .collect();
        let expect: Vec<_> = refused
            .iter()
            .map(|(sequence, reason)| (json!(format!("{SOURCE}/{sequence}")), json!(reason)))
            .collect();
        assert_eq!(told, expect);
    }

    /// Why validate has stopped, if it has.
    fn stopped(&self) -> Option<String> {
        let output = self.run(&["status", "--json"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code() == Some(1) && text.contains("names keys that are not there")).then_some(text)
    }
}

fn path(directory: &TempDir, name: &str) -> String {
    directory.path().join(name).to_str().expect("a path of text").to_owned()
}

/// The example terms with keys for one source.
fn terms(directory: &TempDir, revision: u64, keys: &[&str]) -> String {
    let example = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("terms/example.json");
    let mut terms: Value = serde_json::from_slice(&std::fs::read(example).unwrap()).unwrap();
    terms["revision"] = json!(revision);
    let sources = terms["sources"].as_array_mut().unwrap();
    sources.iter_mut().find(|source| source["source"] == SOURCE).unwrap()["keys"] = json!(keys);
    let file = path(directory, &format!("terms-{revision}.json"));
    std::fs::write(&file, terms.to_string()).unwrap();
    file
}

/// A batch of one wager that takes part in every level of the pool `mega`.
fn batch(sequence: u64) -> String {
    let now = Millis::now().plus(-1_000);
    let wager = json!({
        "session": format!("s-{sequence}"), "interaction": 1, "player": "p-1", "game": "quick-spin-7", "round": "r-1",
        "amount": "2.50", "currency": "EUR", "funds": "cash", "occurred_at": now,
        "location": {"jurisdiction": "MT", "checked_at": now},
    });
    json!({"schema": "wager-batch/1", "operator": "acme", "source": SOURCE, "sequence": sequence, "wagers": [wager]})
        .to_string()
}

fn signature(secret: &str, sequence: u64, body: &str) -> Vec<(String, String)> {
    keys::headers(&Key::parse(secret).unwrap(), SOURCE, sequence, 1, body.as_bytes())
}

#[test]
fn nats_signed_batches_count_and_a_missing_key_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let keys = path(&directory, "keys");
    std::fs::write(&keys, format!("# keys of acme\nk1 {K1}\n")).unwrap();
    let first = terms(&directory, 1, &["k1"]);
    let data = directory.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let flags = ["--partitions", "2", "--terms", &first, "--keys", &keys];
    let world = World { pipeline: Pipeline::start(&data, &flags, &[]), directory };

    // The command signs; a client that does not, or with a stranger's key, is refused; without a file nothing is sent.
    world.publish(&[batch(1)]);
    world.send(&batch(2), Vec::new());
    let body = batch(3);
    world.send(&body, signature(K2, 3, &body));
    world.send(&body, signature(K1, 3, &body));
    std::fs::write(world.file("unsigned"), batch(4)).unwrap();
    let said = world.fails(&["publish", &world.file("unsigned")]);
    assert!(said.contains("unsigned:1: must be signed with the key k1; name the key file"), "{said}");
    world.check(&[1, 3], &[(2, "bad_signature"), (3, "bad_signature")]);

    // Terms with a key that the file lacks are refused, and so are terms with keys where no file is given. Who applies
    // them with another file than validate's makes validate wait.
    let second = terms(&world.directory, 2, &["k1", "k2"]);
    let said = world.fails(&["terms", "apply", &second, "--keys", &keys]);
    assert!(said.contains("the key `k2` is not in ") && said.contains("has 1 fault"), "{said}");
    let said = world.fails(&["terms", "apply", &second]);
    assert!(said.contains("the key `k1` is named, and no key file is; give one with --keys FILE"), "{said}");
    assert!(world.stopped().is_none(), "nothing was applied");
    let others = path(&world.directory, "keys-of-somebody-else");
    std::fs::write(&others, format!("k1 {K1}\nk2 {K2}\n")).unwrap();
    let said = world.fails(&["terms", "apply", &second, "--keys", &others, "--timeout", "1s"]);
    assert!(said.contains("revision 2 is applied, but"), "{said}");
    until("validate says that it has stopped", || world.stopped().is_some());
    let body = batch(4);
    world.send(&body, signature(K2, 4, &body));
    world.fails(&["wait", "--timeout", "1s"]);
    assert!(world.stopped().unwrap().contains("not there, k2; add them to"));

    // It goes on when the key is there: the last key signs, the other one still counts.
    std::fs::write(&keys, format!("k1 {K1}\nk2 {K2}\n")).unwrap();
    world.pipeline.ok(&["terms", "apply", &second, "--keys", &keys]);
    assert!(world.stopped().is_none());
    world.publish(&[batch(5)]);
    let body = batch(6);
    world.send(&body, signature(K1, 6, &body));
    let third = terms(&world.directory, 3, &["k2"]);
    world.pipeline.ok(&["terms", "apply", &third, "--keys", &keys]);
    let body = batch(7);
    world.send(&body, signature(K1, 7, &body));
    world.publish(&[batch(8)]);
    let refused = [(2, "bad_signature"), (3, "bad_signature"), (7, "bad_signature")];
    world.check(&[1, 3, 4, 5, 6, 8], &refused);

    // Synthetic traffic signs too, where it can.
    let load = ["load", "--rate", "200", "--seconds", "1", "--seed", "3"];
    let said = String::from_utf8_lossy(&world.run(&load).stderr).into_owned();
    assert!(said.contains("acme-spin-eu1 is left out: its batches must be signed with the key k2"), "{said}");
    let before = highest(&world);
    assert_eq!(before, 8);
    world.pipeline.ok(&[&load[..], &["--keys", &keys]].concat());
    world.pipeline.wait();
    until("signed traffic is accepted", || highest(&world) > before);
    world.pipeline.stop();
}

#[test]
fn the_key_file_may_be_named_by_a_variable() {
    let mut up = Command::new(env!("CARGO_BIN_EXE_jackpot"));
    let output = up.arg("up").env("JACKPOT_KEYS", "/no/such/file").output().expect("the command runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("--keys /no/such/file cannot be used: the key file /no/such/file"), "{said}");
}

/// The highest batch of the source that was accepted.
fn highest(world: &World) -> u64 {
    let sources = world.pipeline.json(&["sources"]);
    let source = sources.iter().find(|source| source["source"] == SOURCE).unwrap();
    source["highest"].as_u64().unwrap()
}
