//! What a shell does with the completions that the binary prints.

use std::io::Write;
use std::process::{Command, Output, Stdio};

fn completions(shell: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jackpot"));
    command.args(["completions", shell]).output().expect("the binary runs")
}

#[test]
fn bash_completes_a_command_and_its_flags() {
    let script = completions("bash");
    assert_eq!(script.status.code(), Some(0));
    let ask = r#"
        complete -p jackpot
        COMP_WORDS=(jackpot ref) COMP_CWORD=1
        _jackpot jackpot ref jackpot && echo "${COMPREPLY[@]}"
        COMP_WORDS=(jackpot up --metr) COMP_CWORD=2
        _jackpot jackpot --metr up && echo "${COMPREPLY[@]}"
    "#;
    let mut bash = Command::new("bash");
    bash.arg("--norc").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut bash = bash.spawn().expect("bash is there");
    let mut input = bash.stdin.take().expect("its input");
    input.write_all(&[&script.stdout[..], ask.as_bytes()].concat()).expect("it reads");
    drop(input);
    let output = bash.wait_with_output().expect("it ends");
    let (said, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let lines: Vec<_> = said.lines().collect();
    assert!(lines[0].contains("_jackpot"), "{said}{error}");
    assert_eq!(lines[1..], ["refusals", "--metrics-port"], "{error}");
}

#[test]
fn a_shell_that_is_not_known_is_78() {
    let output = completions("command.com");
    assert_eq!(output.status.code(), Some(78), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.is_empty());
}
