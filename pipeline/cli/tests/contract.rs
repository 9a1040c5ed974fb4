//! Holds the table of the contract's rules to the code: `contract/section-N.md` lists each rule of a section once,
//! in the contract's own order, with the tests that hold it. A rule without a test, a test that is gone, a reason or
//! a field that no rule speaks of makes this fail. Whether a test says what its rule says is for people to read;
//! no pipeline is started here.
//!
//! A row is `| rule | held by |`; what holds it are references like `stages/x/src/y.rs::function`, each in backticks,
//! with the path from the root of the repository.

#![expect(clippy::unwrap_used, reason = "a check that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use jackpot_core::refusal::Reason;
use serde_json::Value;

/// One rule, and where it stands.
struct Row {
    place: String,
    rule: String,
    held_by: Vec<(String, String)>,
}

/// The tables, `section-1.md` first.
fn sections() -> Vec<String> {
    let folder = root().join("pipeline/cli/tests/contract");
    let name = |entry: fs::DirEntry| entry.file_name().to_str().unwrap().to_owned();
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| name(entry.unwrap())).collect();
    names.sort();
    names
}

/// The rows of all sections.
fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for name in sections() {
        let text = fs::read_to_string(root().join("pipeline/cli/tests/contract").join(&name)).unwrap();
        let lines = (1..).zip(text.lines()).filter(|(_, line)| line.starts_with('|'));
        // The first two lines of a table are its head.
        for (number, line) in lines.skip(2) {
            rows.push(row(format!("{name}:{number}"), line));
        }
    }
    rows
}

/// Reads `| rule | held by |`; a bar within a cell is written `\|`.
fn row(place: String, line: &str) -> Row {
    let cells: Vec<String> =
        line.replace("\\|", "\0").split('|').map(|cell| cell.replace('\0', "|").trim().to_owned()).collect();
    let [before, rule, held_by, after] = &cells[..] else { panic!("{place}: a row has two cells") };
    assert!(before.is_empty() && after.is_empty(), "{place}: a row begins and ends with a bar");
    assert!(!rule.is_empty(), "{place}: a rule is told");
    let reference = |reference: &str| {
        let bare = reference.trim().strip_prefix('`').and_then(|rest| rest.strip_suffix('`'));
        let parts = bare.and_then(|bare| bare.split_once("::"));
        let (file, function) =
            parts.unwrap_or_else(|| panic!("{place}: no `file.rs::function`: {reference}"));
        (file.to_owned(), function.to_owned())
    };
    let held_by = held_by.split(',').map(reference).collect();
    Row { place, rule: rule.clone(), held_by }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The names of the tests in a source: functions with a test's attribute, and those that a macro of the file makes
/// tests of, each alone on its line in the macro's list.
fn tests(source: &str) -> BTreeSet<String> {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let makes_tests = source.contains("async fn $") || source.contains(" fn $");
    let named = lines.iter().filter_map(|line| line.strip_suffix(',')).filter(|_| makes_tests);
    let mut tests: BTreeSet<String> = named.map(str::to_owned).collect();
    for (number, line) in lines.iter().enumerate() {
        let line = line.strip_prefix("async ").unwrap_or(line);
        let Some((name, _)) = line.strip_prefix("fn ").and_then(|rest| rest.split_once(['(', '<'])) else {
            continue;
        };
        let above = lines[..number].iter().rev().take_while(|line| line.starts_with(['#', '/']));
        if above.copied().any(|line| line == "#[test]" || line.starts_with("#[tokio::test")) {
            tests.insert(name.to_owned());
        }
    }
    tests
}

#[test]
fn every_rule_is_held_by_tests_that_are_there() {
    let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut missing = Vec::new();
    for row in rows() {
        for (file, function) in row.held_by {
            let tests = known.entry(file.clone()).or_insert_with(|| {
                let source = fs::read_to_string(root().join(&file));
                tests(&source.unwrap_or_else(|error| panic!("{}: {file}: {error}", row.place)))
            });
            if !tests.contains(&function) {
                missing.push(format!("{}: {file} has no test {function}", row.place));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn no_section_is_left_out() {
    let sections = sections();
    let expect: Vec<_> = (1..=sections.len()).map(|number| format!("section-{number}.md")).collect();
    assert_eq!(sections, expect);
    for section in sections {
        let rows = rows().into_iter().filter(|row| row.place.starts_with(&format!("{section}:")));
        assert!(rows.count() > 5, "{section} has rules");
    }
}

#[test]
fn no_rule_stands_twice() {
    let mut places = BTreeMap::new();
    for row in rows() {
        if let Some(before) = places.insert(row.rule.clone(), row.place.clone()) {
            panic!("{} and {} are the same rule: {}", before, row.place, row.rule);
        }
    }
    assert!(!places.is_empty(), "there are rules");
}

#[test]
fn every_reason_and_every_field_has_its_rule() {
    let rows = rows();
    let is_told = |name: &str| rows.iter().any(|row| row.rule.contains(&format!("`{name}`")));
    let mut names: BTreeSet<String> = Reason::ALL.iter().map(|reason| reason.as_str().to_owned()).collect();
    let schema = fs::read_to_string(root().join("schemas/wager-batch.schema.json")).unwrap();
    properties(&serde_json::from_str(&schema).unwrap(), &mut names);
    assert!(
        names.contains("opt_in") && names.contains("checked_at"),
        "the schema names the fields: {names:?}"
    );
    let missing: Vec<_> = names.into_iter().filter(|name| !is_told(name)).collect();
    assert!(missing.is_empty(), "no rule tells of {missing:?}");
}

/// The names of all properties that a schema describes.
fn properties(schema: &Value, names: &mut BTreeSet<String>) {
    if let Some(described) = schema["properties"].as_object() {
        names.extend(described.keys().cloned());
    }
    match schema {
        Value::Object(fields) => fields.values().for_each(|inner| properties(inner, names)),
        Value::Array(items) => items.iter().for_each(|inner| properties(inner, names)),
        _ => {}
    }
}

#[test]
fn a_helper_is_no_test_and_a_test_is_one() {
    let source = "#[test]\nfn a() {}\n\nfn b() {}\n/// Why.\n#[tokio::test(flavor = \"multi_thread\")]\nasync fn c() {}\n";
    assert_eq!(tests(source), ["a", "c"].map(str::to_owned).into());
    let made = "macro_rules! m { () => { #[tokio::test] async fn $check() {} } }\nm!(\n    d,\n);\nasync fn d() {}\n";
    assert_eq!(tests(made), ["d"].map(str::to_owned).into());
}
