//! Holds what people read to what is there: every relative link in the Markdown of the repository leads to a file, its
//! `#anchor` to a heading, and what code blocks call `jackpot` for, command and flags, the command line knows.
//! Suppliers are told of every reason of a refusal. No server is started. That the commands do what the text says is for people to try.

#![expect(clippy::unwrap_used, reason = "a check that cannot go on has failed")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, iter};

use clap::CommandFactory;
use jackpot::cli::Cli;
use jackpot_core::refusal::Reason;

/// What is read: single files, and folders of which every `.md` counts.
const READ: [&str; 5] = ["README.md", "ARCHITECTURE.md", "docs", "k8s", "schemas"];

/// A piece of Markdown: a line outside of code blocks, or one inside.
enum Line<'a> {
    Prose(&'a str),
    Code(&'a str),
}

#[test]
fn every_link_leads_somewhere() {
    let mut faults = Vec::new();
    let mut count = 0;
    for file in files() {
        let text = fs::read_to_string(&file).unwrap();
        for target in prose(&text).flat_map(links) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            count += 1;
            if let Some(fault) = fault(&file, target) {
                faults.push(format!("{}: {target}: {fault}", shown(&file)));
            }
        }
    }
    assert!(faults.is_empty(), "these links lead nowhere:\n{}", faults.join("\n"));
    assert!(count > 30, "links are found: {count}");
}

#[test]
fn every_command_in_a_code_block_exists() {
    let command = Cli::command();
    let mut faults = Vec::new();
    let mut count = 0;
    for file in files() {
        let text = fs::read_to_string(&file).unwrap();
        let code = lines(&text).into_iter().filter_map(|line| match line {
            Line::Code(code) => Some(code),
            Line::Prose(_) => None,
        });
        for called in code.flat_map(calls) {
            count += 1;
            if let Err(fault) = check(&command, &called) {
                faults.push(format!("{}: jackpot {}: {fault}", shown(&file), called.join(" ")));
            }
        }
    }
    assert!(faults.is_empty(), "these commands do not exist:\n{}", faults.join("\n"));
    assert!(count > 30, "commands are found: {count}");
}

#[test]
fn suppliers_are_told_of_every_refusal() {
    let guide = fs::read_to_string(root().join("docs/suppliers.md")).unwrap();
    let rows = guide
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .filter(|(_, rest)| ["batch |", "wager |", "hit |"].iter().any(|of| rest.starts_with(of)));
    let told: Vec<_> = rows.map(|(reason, _)| reason).collect();
    let reasons: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(told, reasons, "docs/suppliers.md lists each reason once, in the order of the contract");
}

#[test]
fn what_is_wrong_is_found() {
    let readme = root().join("README.md");
    assert_eq!(fault(&readme, "ARCHITECTURE.md#invariants"), None);
    assert_eq!(fault(&readme, "#two-commands"), None);
    assert_eq!(fault(&readme, "docs"), None);
    assert!(fault(&readme, "NOWHERE.md").is_some());
    assert!(fault(&readme, "ARCHITECTURE.md#no-such-heading").is_some());
    assert!(fault(&readme, "#no-such-heading").is_some());

    let command = Cli::command();
    let verdict = |line| calls(line).iter().map(|called| check(&command, called).is_ok()).collect::<Vec<_>>();
    assert_eq!(verdict("$ jackpot wait && jackpot refusals --source a | head"), [true, true]);
    assert_eq!(verdict("x=$(jackpot terms show 3)"), [true]);
    assert_eq!(verdict("jackpot terms aply terms.json"), [false]);
    assert_eq!(verdict("jackpot totals --pol mega"), [false]);
    assert_eq!(verdict("target/release/jackpot dance"), [false]);
    assert_eq!(verdict("docker build -t jackpot:0.1.0 ."), [] as [bool; 0]);
    assert_eq!(heading("What `init` asks, of a server"), "what-init-asks-of-a-server");
}

/// The Markdown that is held to what is there.
fn files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for name in READ {
        let path = root().join(name);
        if path.is_file() {
            files.push(path);
        } else {
            collect(&path, &mut files);
        }
    }
    files.sort();
    files
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "node_modules") {
                collect(&path, files);
            }
        } else if path.extension().is_some_and(|extension| extension == "md") {
            files.push(path);
        }
    }
}

fn lines(text: &str) -> Vec<Line<'_>> {
    let mut inside = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else {
            lines.push(if inside { Line::Code(line) } else { Line::Prose(line) });
        }
    }
    lines
}

fn prose(text: &str) -> impl Iterator<Item = &str> {
    lines(text).into_iter().filter_map(|line| match line {
        Line::Prose(prose) => Some(prose),
        Line::Code(_) => None,
    })
}

/// The targets of `[text](target)` in a line.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target)
}

/// Why a link from this file leads nowhere, if it does.
fn fault(file: &Path, target: &str) -> Option<String> {
    let (path, anchor) = target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
    let to = if path.is_empty() { file.to_owned() } else { file.parent().unwrap().join(path) };
    if !to.exists() {
        return Some("there is no such file".into());
    }
    let anchor = anchor?;
    let text = fs::read_to_string(&to).ok()?;
    let headings: BTreeSet<String> = prose(&text)
        .filter(|line| line.starts_with('#'))
        .map(|line| heading(line.trim_start_matches('#')))
        .collect();
    (!headings.contains(anchor)).then(|| "there is no such heading".into())
}

/// The anchor that a heading gets: lower case, spaces as hyphens, nothing else but letters, digits, `-` and `_`.
fn heading(text: &str) -> String {
    let kept = text.trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The words behind each `jackpot` that a line of code calls, up to the end of that call.
fn calls(line: &str) -> Vec<Vec<String>> {
    let spaced =
        line.replace("$(", " ; ").replace("<(", " ; ").replace([')', '`'], " ; ").replace(';', " ; ");
    let mut words = spaced.split_whitespace().peekable();
    let mut calls = Vec::new();
    let mut begins = true;
    while let Some(word) = words.next() {
        let is_jackpot = word == "jackpot" || word.ends_with("/jackpot");
        if begins && is_jackpot && words.peek().is_some() {
            let end = |word: &&str| {
                !matches!(*word, ";" | "|" | "||" | "&&" | "&" | ">" | ">>" | "2>" | "#" | "\\")
            };
            let called = iter::from_fn(|| words.next_if(end)).map(str::to_owned).collect();
            calls.push(called);
            begins = true;
        } else {
            // A prompt or a variable before a command is none itself.
            begins = matches!(word, "$" | ";" | "|" | "||" | "&&" | "&")
                || (begins
                    && word
                        .split_once('=')
                        .is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_')));
        }
    }
    calls
}

/// Follows the words through subcommands, then asks for each flag whether the command that was reached has it.
fn check(command: &clap::Command, words: &[String]) -> Result<(), String> {
    let mut command = command;
    let mut words = words.iter().peekable();
    while command.has_subcommands() {
        let Some(word) = words.next_if(|word| !word.starts_with('-')) else { break };
        command = command.find_subcommand(word).ok_or_else(|| format!("there is no `{word}`"))?;
    }
    for flag in words.filter_map(|word| word.strip_prefix("--")) {
        let name = flag.split('=').next().unwrap();
        let known = command.get_arguments().any(|argument| argument.get_long() == Some(name));
        if !known && !matches!(name, "help" | "version" | "verbose" | "") {
            return Err(format!("there is no --{name}"));
        }
    }
    Ok(())
}

fn shown(file: &Path) -> String {
    file.strip_prefix(root()).unwrap_or(file).display().to_string()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
