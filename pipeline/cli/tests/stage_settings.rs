//! The five stage binaries as Kubernetes meets them: what cannot be used is 78, with all mistakes at once; what is not
//! of the command's form is 2, as clap prints it (contract, section 7). No server is needed: all of it ends before.
//! The stages' binaries must be built: `cargo build --workspace`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const STAGES: [&str; 5] = ["validate", "geofence", "allocate", "aggregate", "audit"];
/// Nobody listens there: a stage that accepts its settings would try for ever.
const NOBODY: &str = "nats://127.0.0.1:1";

fn run(stage: &str, flags: &[&str], variables: &[(&str, &[u8])]) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_jackpot")).with_file_name(stage);
    assert!(program.exists(), "{} is missing; run `cargo build --workspace` first", program.display());
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("NATS_") || name.starts_with("JACKPOT_")) {
            command.env_remove(name);
        }
    }
    command.envs(variables.iter().map(|(name, value)| (name, OsStr::from_bytes(value))));
    command.args(flags).stdin(Stdio::null()).output().expect("the stage runs")
}

/// Expects an exit code, and each of these words in what is said.
#[track_caller]
fn check(stage: &str, flags: &[&str], variables: &[(&str, &[u8])], code: i32, says: &[&str]) {
    let output = run(stage, flags, variables);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stage} {flags:?} {variables:?}: {said}");
    for words in says {
        assert!(said.contains(words), "{stage} {flags:?} {variables:?} should say {words:?}: {said}");
    }
}

#[test]
fn a_value_that_cannot_be_used_is_78() {
    let flags: [(&str, &str); 12] = [
        ("--metrics-port", "99999"),
        ("--metrics-port", "-1"),
        ("--metrics-port", ""),
        ("--only", "x"),
        ("--only", "64"),
        ("--only", "0,,1"),
        ("--stand-by", "2"),
        ("--until-idle", "soon"),
        ("--log", "xml"),
        ("--creds", "/no/such/file"),
        ("--creds", ""),
        ("--tls-ca", "/no/such/file"),
    ];
    let variables: [(&str, &str, &[u8]); 8] = [
        ("JACKPOT_METRICS_PORT", "--metrics-port", b""),
        ("JACKPOT_ONLY", "--only", b""),
        ("JACKPOT_STAND_BY", "--stand-by", b""),
        ("JACKPOT_UNTIL_IDLE", "--until-idle", b""),
        ("JACKPOT_LOG", "--log", b""),
        ("NATS_CREDS", "--creds", b""),
        ("NATS_TLS_CA", "--tls-ca", b""),
        ("JACKPOT_STAND_BY", "UTF-8", b"\xff"),
    ];
    for stage in STAGES {
        for (flag, value) in flags {
            let says = format!("{flag} `{value}` cannot be used: ");
            check(stage, &["--nats", NOBODY, &format!("{flag}={value}")], &[], 78, &[&says]);
        }
        for (name, says, value) in variables {
            check(stage, &["--nats", NOBODY], &[(name, value)], 78, &[says]);
        }
        for url in ["", "http://127.0.0.1:1", "nats://a b", "nats://127.0.0.1:1,", "nats://"] {
            let says = format!("--nats `{url}` cannot be used: ");
            check(stage, &[], &[("NATS_URL", url.as_bytes())], 78, &[&says]);
        }
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    for stage in STAGES {
        let flags = ["--nats=", "--metrics-port=x", "--only=y", "--creds=/no/such/file"];
        let says =
            ["--nats `` ", "--metrics-port `x` ", "--only `y` ", "--creds `/no/such/file` ", "--log `z` "];
        check(stage, &flags, &[("JACKPOT_LOG", b"z")], 78, &says);
    }
}

#[test]
fn what_one_stage_has_of_its_own_is_checked_too() {
    let validate = |flag: &str, says: &str| check("validate", &["--nats", NOBODY, flag], &[], 78, &[says]);
    validate("--lateness=2", "--lateness `2` cannot be used: ");
    validate("--idle-after=", "--idle-after `` cannot be used: ");
    validate("--keys=", "--keys `` cannot be used: ");
    validate("--keys=/no/such/file", "--keys `/no/such/file` cannot be used: ");
    check("validate", &["--nats", NOBODY], &[("JACKPOT_KEYS", b"")], 78, &["--keys `` cannot be used: "]);
    let aggregate = |flag: &str, says: &str| check("aggregate", &["--nats", NOBODY, flag], &[], 78, &[says]);
    aggregate("--workers=0", "--workers `0` cannot be used: ");
    aggregate("--windows=60,1", "--windows `60,1` cannot be used: ");
    aggregate("--windows=", "--windows `` cannot be used: ");
    aggregate("--max-skew=500ms", "--max-skew `500ms` cannot be used: give whole seconds");
    aggregate("--business-metrics=maybe", "--business-metrics `maybe` cannot be used: give on or off");
    aggregate("--business-metrics=", "--business-metrics `` cannot be used: give on or off");
    aggregate("--max-skew=9999999h", "--max-skew `9999999h` cannot be used: give whole seconds");
}

#[test]
fn wrong_usage_is_2_and_help_is_0() {
    for stage in STAGES {
        check(stage, &[], &[], 2, &["--nats <URL>", "Usage: "]);
        check(stage, &["--nats", NOBODY, "--nonsense"], &[], 2, &["--nonsense", "Usage: "]);
        check(stage, &["--nats", NOBODY, "more"], &[], 2, &["more"]);
        check(stage, &["--nats", NOBODY, "--only"], &[], 2, &["--only"]);
        check(stage, &["--nats", NOBODY, "--tls-cert", "/dev/null"], &[], 2, &["--tls-key"]);
        check(stage, &["--help"], &[], 0, &[]);
        let version = run(stage, &["--version"], &[]);
        assert_eq!(version.status.code(), Some(0));
        let expect = format!("{stage} {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(String::from_utf8_lossy(&version.stdout), expect);
    }
}
