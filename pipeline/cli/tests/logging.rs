//! What the binary says on standard error: one sentence, unless it is asked for more; and nothing on standard output.

use std::process::{Command, Output};

/// Publishes nothing to a port that nobody listens on.
fn publish(flags: &[&str], levels: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jackpot"));
    command.args(["publish", "--nats", "nats://127.0.0.1:1", "--timeout", "300ms", "/dev/null"]).args(flags);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("NATS_") || name == "RUST_LOG") {
            command.env_remove(name);
        }
    }
    command.envs(levels.map(|levels| ("RUST_LOG", levels))).output().expect("the binary runs")
}

fn check(flags: &[&str], levels: Option<&str>, code: i32, lines: usize, says: &str) {
    let output = publish(flags, levels);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{flags:?} {levels:?}: {said}");
    assert!(said.contains(says), "{flags:?} {levels:?} should say {says:?}: {said}");
    assert!(lines == 0 || said.lines().count() == lines, "{flags:?} {levels:?}: {said}");
    assert!(output.stdout.is_empty());
}

#[test]
fn one_sentence_unless_more_is_asked_for() {
    let (sentence, below) = ("jackpot: no connection to NATS at", "no connection to NATS yet; trying on");
    check(&[], None, 1, 1, sentence);
    check(&["--verbose"], None, 1, 2, below);
    check(&["-v"], Some("off"), 1, 1, sentence);
    check(&[], Some("warn"), 1, 2, below);
    check(&[], Some("jackpot_core=loud"), 78, 0, "--log-levels");
}
