//! The binary as its users meet it: exit codes, what goes where, and the commands that need no server.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use jackpot_core::broker::{Broker, BrokerSettings, Sync};

/// A port of this machine that nobody listens on: nothing may be bound to it without privileges.
const NOBODY: &str = "nats://127.0.0.1:1";

fn jackpot(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jackpot"));
    command.args(args);
    for variable in ["NATS_URL", "NATS_CREDS", "NATS_TLS_CA", "NATS_TLS_CERT", "NATS_TLS_KEY", "JACKPOT_KEYS"]
    {
        command.env_remove(variable);
    }
    command.output().expect("the binary runs")
}

/// Runs a command that must fail; `says` must stand on standard error, and nothing on standard output.
fn check_failure(args: &[&str], code: i32, says: &str) {
    let output = jackpot(args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
    assert!(error.contains(says), "{args:?} should say {says:?}: {error}");
    assert!(output.stdout.is_empty(), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
}

fn file(directory: &Path, name: &str, content: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, content).expect("the file is written");
    path
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

#[test]
fn usage_is_2() {
    check_failure(&[], 2, "Usage: jackpot");
    check_failure(&["jump"], 2, "unrecognized subcommand");
    check_failure(&["totals"], 2, "--nats <URL>");
    check_failure(&["totals", "--nats", NOBODY, "--wrong"], 2, "unexpected argument");
    check_failure(&["totals", "--nats"], 2, "a value is required");
    check_failure(&["totals", "--nats", NOBODY, "--json", "--csv"], 2, "cannot be used with");
    check_failure(&["totals", "--nats", NOBODY, "--json", "--follow"], 2, "cannot be used with");
    check_failure(&["publish", "--nats", NOBODY], 2, "<FILE>");
    check_failure(&["terms", "check"], 2, "<FILE>");
}

#[test]
fn a_value_that_cannot_be_used_is_78() {
    check_failure(&["wait", "--nats", NOBODY, "--timeout", "soon"], 78, "--timeout");
    check_failure(&["wait", "--nats", "http://127.0.0.1:1"], 78, "http://127.0.0.1:1");
    check_failure(&["wait", "--nats", ""], 78, "is no NATS URL");
    check_failure(
        &["wait", "--nats", NOBODY, "--tls-ca", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")],
        78,
        "is no PEM file",
    );
    check_failure(&["totals", "--nats", NOBODY, "--since", "yesterday"], 78, "--since");
    check_failure(&["totals", "--nats", NOBODY, "--creds", "/no/such/file"], 78, "--creds /no/such/file");
    check_failure(&["totals", "--nats", NOBODY, "--creds", ""], 78, "--creds ");
    check_failure(&["up", "--keys", ""], 78, "--keys ");
    check_failure(&["totals", "--nats", ""], 78, "is no NATS URL");
    check_failure(&["load", "--nats", NOBODY, "--rate", "0", "--seconds", "1"], 78, "--rate");
    check_failure(
        &["load", "--nats", NOBODY, "--rate", "1", "--seconds", "1", "--batch", "501"],
        78,
        "--batch",
    );
    check_failure(&["init", "--nats", NOBODY, "--partitions", "65"], 78, "--partitions");
    let small = ["init", "--nats", NOBODY, "--max-bytes", "validated-0=64KiB"];
    check_failure(&small, 78, "a lane must be able to hold one frame");
    check_failure(&["up", "--partitions", "0"], 78, "--partitions");
    check_failure(&["up", "--sync", "sometimes"], 78, "--sync");
    check_failure(&["up", "--metrics-port", "65535"], 78, "--metrics-port");
    check_failure(&["up", "--terms", "/no/such/file"], 78, "--terms /no/such/file");
    check_failure(&["up", "--keys", "/no/such/file"], 78, "--keys /no/such/file");
}

#[test]
fn a_variable_is_as_good_as_a_flag() {
    let output = Command::new(env!("CARGO_BIN_EXE_jackpot"))
        .args(["wait", "--timeout", "1s"])
        .env("NATS_URL", "http://127.0.0.1:1")
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(78));
}

#[test]
fn no_server_is_1_in_one_sentence() {
    let output = jackpot(&["publish", "--nats", NOBODY, "--timeout", "300ms", "/dev/null"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    let last = error.lines().last().expect("an error");
    assert!(last.starts_with("jackpot: no connection to NATS at nats://127.0.0.1:1"), "{error}");
}

#[test]
fn terms_are_checked_without_a_server() {
    let directory = tempfile::tempdir().expect("a directory");
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/terms/example.json");
    let output = jackpot(&["terms", "check", example]);
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("no faults: revision 1, 3 pools with 7 levels"));

    let content = std::fs::read_to_string(example).expect("the example");
    let wrong = content.replace("\"base\": \"500000\"", "\"base\": \"5000000\"").replace("\"UT\"", "\"XX\"");
    let wrong = wrong.replacen("\"operator\": \"acme\"}", "\"operator\": \"nobody\"}", 1);
    let output = jackpot(&["terms", "check", text(&file(directory.path(), "wrong.json", &wrong))]);
    assert_eq!(output.status.code(), Some(1));
    let faults = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(
        faults[0].starts_with("sources[0].operator: ") && faults[1].starts_with("pools[0].levels[0].base: ")
    );
    assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1, "one sentence");

    check_failure(&["terms", "check", text(&directory.path().join("missing"))], 1, "missing");
    let broken = file(directory.path(), "broken.json", "{");
    assert_eq!(jackpot(&["terms", "check", text(&broken)]).status.code(), Some(1));
}

#[test]
fn help_and_version_are_0() {
    let output = jackpot(&["--version"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("jackpot {}\n", env!("CARGO_PKG_VERSION")));
    for command in ["up", "init", "terms", "publish", "load", "wait", "totals", "windows", "hits", "refusals"]
    {
        assert_eq!(jackpot(&[command, "--help"]).status.code(), Some(0), "{command}");
    }
}

#[test]
fn up_refuses_to_run_without_stages_of_its_version() {
    let directory = tempfile::tempdir().expect("a directory");
    let alone = directory.path().join("jackpot");
    std::fs::copy(env!("CARGO_BIN_EXE_jackpot"), &alone).expect("the binary is copied");
    let up = || {
        let mut command = Command::new(&alone);
        command.args(["up", "--dir", text(&directory.path().join("data"))]).env_remove("NATS_URL");
        command.output().expect("the binary runs")
    };
    let check = |says: &str| {
        let output = up();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{error}");
        assert!(error.contains(says) && error.contains("cargo build --workspace"), "{error}");
    };
    check("cannot be run");
    let stage = file(directory.path(), "validate", "#!/bin/sh\necho validate 0.0.0\n");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(stage, executable).expect("it can be run");
    check("says `validate 0.0.0`");
    assert!(!directory.path().join("data").exists(), "nothing was started");
}

/// The commands against a real server without stages.
#[test]
fn nats_commands_work_on_a_server() {
    let directory = tempfile::tempdir().expect("a directory");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let settings = BrokerSettings::new(directory.path().join("data"), Sync::Relaxed);
    let mut broker = runtime.block_on(Broker::start(settings)).expect("a server");
    let url = broker.url();
    let run = |args: &[&str], code: i32| {
        let output = jackpot(&[args, &["--nats", &url]].concat());
        let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{args:?}: {out}{error}");
        (out.into_owned(), error.into_owned())
    };

    assert!(run(&["wait"], 1).1.contains("jackpot init"));
    assert!(run(&["publish", "/dev/null"], 0).1.contains("published 0 batches"));
    assert!(run(&["init", "--partitions", "2"], 0).0.contains("wagers: created"));
    let again = run(&["init", "--rate", "5000"], 0).0;
    assert!(again.contains("\n2 partitions\n"), "the number is that of the data: {again}");
    let (_, growth) =
        again.split_once("At 5,000 wagers a second").expect("it tells how fast the record grows");
    let records =
        ["wagers", "allocations-0", "allocations-1", "audit-0", "audit-1", "commits", "hits", "windows"];
    for stream in records {
        let row = growth.lines().find(|line| line.trim_start().starts_with(stream));
        let hours = row.and_then(|row| row.split_whitespace().last()?.replace(',', "").parse::<f64>().ok());
        assert!(hours.is_some_and(|hours| hours > 0.0), "{stream}: {growth}");
    }
    assert!(run(&["init", "--partitions", "3"], 78).1.contains("--partitions 3"));

    assert!(run(&["load", "--rate", "10", "--seconds", "1"], 1).1.contains("no terms are in force"));
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/terms/example.json");
    let applied = run(&["terms", "apply", example, "--timeout", "200ms"], 1).1;
    assert!(applied.contains("revision 1 is applied, but partition 0 does not run it yet"), "{applied}");
    assert!(run(&["terms", "show"], 0).0.contains("\"revision\": 1"));
    assert!(run(&["terms", "show", "2"], 1).1.contains("revision 2 of the terms is not in the log"));

    let repeat =
        ["load", "--rate", "500", "--seconds", "2", "--start", "2026-06-08T20:00:00Z", "--from", "1"];
    let printed = run(&[&repeat[..], &["--print"]].concat(), 0).0;
    assert_eq!(printed, run(&[&repeat[..], &["--print"]].concat(), 0).0, "byte for byte");
    let batches = printed.lines().count();
    let lines = file(directory.path(), "batches", &format!("{printed}\nnonsense\n{{\"source\":\"x\"}}\n"));
    let error = run(&["publish", text(&lines)], 1).1;
    assert!(error.contains(&format!("published {batches} batches")), "{error}");
    assert!(error.contains(&format!("batches:{}: is no JSON object", batches + 2)), "{error}");
    assert!(error.contains(&format!("batches:{}: has no `operator`", batches + 3)), "{error}");
    assert!(run(&["load", "--rate", "500", "--seconds", "1"], 0).1.contains("published 500 wagers"));
    assert!(run(&["wait", "--timeout", "200ms"], 1).1.contains("validate, partition "));

    assert_eq!(run(&["totals", "--json"], 0).0, "[]\n");
    assert_eq!(run(&["refusals", "--jsonl"], 0).0, "");
    assert!(run(&["windows", "--csv"], 0).0.starts_with("pool,level,currency,commit,seconds,"));
    assert_eq!(run(&["hits"], 0).0, "nothing yet\n");
    runtime.block_on(broker.stop()).expect("it stops");
    assert!(run(&["totals"], 1).1.contains("no connection to NATS at"));
}
