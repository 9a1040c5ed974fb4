//! Each kind of fault alone, all of them in one document, and documents that are damaged at random places.

use std::collections::BTreeSet;
use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::faults;
use crate::rules;
use crate::terms::{Fault, Terms};

/// A document with every field and no fault, a field a line.
const SOUND: &str = r#"{
  "schema": "terms/1",
  "revision": 12,
  "rules": 1,
  "author": "a",
  "authorizer": "b",
  "reason": "c",
  "jurisdictions": [
    {"code": "MT", "status": "permitted", "location_max_age_s": 600},
    {"code": "US-NV", "status": "blocked"}
  ],
  "operators": [
    {"operator": "acme", "jurisdictions": ["MT", "US-NV"]},
    {"operator": "bluff", "jurisdictions": ["MT"]}
  ],
  "sources": [
    {"source": "acme-1", "operator": "acme", "keys": ["k1", "k2"], "sequence_from": 5},
    {"source": "bluff-1", "operator": "bluff"}
  ],
  "games": [{"game": "spin", "supplier": "s"}, {"game": "bingo", "supplier": "s"}],
  "exchange_rates": [{"from": "GBP", "to": "EUR", "rate": "1.2"}],
  "pools": [
    {"pool": "mega", "currency": "EUR", "operators": ["acme"], "games": ["spin", "bingo"],
      "jurisdictions": ["MT", "US"], "funds": ["cash", "bonus"], "requires_opt_in": true,
      "min_wager": "0.10", "max_wager": "100",
      "levels": [
        {"level": "grand", "base": "100", "ceiling": "900", "increment_ppm": 3000, "reserve_ppm": 1000},
        {"level": "minor", "base": "10", "increment_ppm": 20}
      ]},
    {"pool": "mini", "currency": "SEK", "jurisdictions": ["MT"],
      "levels": [{"level": "only", "base": "0", "increment_ppm": 996000}]}
  ]
}"#;

/// The faults without their positions, of which each is held against what stands there.
#[track_caller]
fn told(document: &str) -> Vec<String> {
    let found = faults(document.as_bytes());
    found.iter().for_each(|fault| check_position(document, fault));
    found.iter().map(|Fault { place, what, .. }| format!("{place}: {what}")).collect()
}

/// At the position stands what the place names: a name that is wrong, the object that lacks a field, or the value.
#[track_caller]
fn check_position(document: &str, fault: &Fault) {
    let position = fault.position.expect("a fault of a document has its position");
    let line = document.split('\n').nth(position.line - 1).expect("the line is there");
    let column: usize = line.chars().take(position.column - 1).map(char::len_utf8).sum();
    let before: usize = document.split_inclusive('\n').take(position.line - 1).map(str::len).sum();
    let rest = &document[before + column..];
    let (owner, name) = fault.place.rsplit_once('.').unwrap_or(("", &fault.place));
    if fault.what.contains("unknown here") || fault.what.contains("twice in its object") {
        let name = name.rsplit_once("[\"").map_or(name, |(_, name)| name.trim_end_matches("\"]"));
        assert!(rest.starts_with(&format!("\"{name}\"")), "{fault}: {rest}");
    } else if !fault.what.starts_with("no JSON") {
        let place = if fault.what == "is missing" { owner } else { fault.place.trim_start_matches('.') };
        let whole: Value = serde_json::from_str(document).expect("JSON");
        let pointer = format!("/{}", place.replace(['.', '['], "/").replace(']', ""));
        let here = serde_json::Deserializer::from_str(rest).into_iter::<Value>().next();
        let here = here.expect("a value begins here").expect("a value begins here");
        let there = if place.is_empty() { Some(&whole) } else { whole.pointer(&pointer) };
        assert_eq!(there, Some(&here), "{fault}");
    }
}

/// Replaces one text of the sound document, and expects these faults and no others.
#[track_caller]
fn check(old: &str, new: &str, expect: &[&str]) {
    assert_eq!(SOUND.matches(old).count(), 1, "`{old}` stands once in the document");
    let document = SOUND.replace(old, new);
    assert_eq!(told(&document), expect, "{old} → {new}");
    assert_eq!(Terms::parse(document.as_bytes()).is_ok(), expect.is_empty(), "{old} → {new}");
}

#[test]
fn a_sound_document_has_no_faults() {
    assert_eq!(told(SOUND), [""; 0]);
    check("\"author\": \"a\"", "\"author\": null", &[]);
    check("\"rules\": 1", "\"rules\": null", &[]);
    check("\"rules\": 1,", "", &[]);
    check("[\"k1\", \"k2\"]", "null", &[]);
    check("\"funds\": [\"cash\", \"bonus\"]", "\"funds\": null", &[]);
    check("\"ceiling\": \"900\"", "\"ceiling\": null", &[]);
    check("_s\": 600", "_s\": 0", &[]);
    check("\"900\"", "\"1000000000000000\"", &[]);
    check("\"1.2\"", "\"1000000\"", &[]);
    check("[\"acme\"], \"games\"", "[\"*\"], \"games\"", &[]);
}

#[test]
fn faults_of_the_document() {
    check("terms/1", "terms/2", &["schema: must be \"terms/1\""]);
    let revision = "must be a whole number from 1 to 9223372036854775807, and is";
    for bad in ["0", "-1", "12.0", "1e3", "9223372036854775808", "99999999999999999999999"] {
        check("\"revision\": 12", &format!("\"revision\": {bad}"), &[&format!("revision: {revision} {bad}")]);
    }
    check("\"revision\": 12", "\"revision\": \"12\"", &[&format!("revision: {revision} a string")]);
    check("\"revision\": 12,", "", &["revision: is missing"]);
    check(
        "\"revision\": 12",
        "\"revision\": null, \"revision\": 12",
        &["revision: is missing", "revision: stands twice in its object; remove one"],
    );
    let known = rules::known();
    for bad in [0, u32::from(rules::KNOWN) + 1, 70_000] {
        let expect =
            format!("rules: is {bad}, and this build knows rules {known}; newer ones need a newer build");
        check("\"rules\": 1", &format!("\"rules\": {bad}"), &[&expect]);
    }
    let version = "rules: must be a whole number from 0 to 9223372036854775807, and is";
    check("\"rules\": 1", "\"rules\": 1.5", &[&format!("{version} 1.5")]);
    check("\"rules\": 1", "\"rules\": \"1\"", &[&format!("{version} a string")]);
    check("\"reason\": \"c\"", "\"reason\": 7", &["reason: must be a string, and is a number"]);
    check("\"reason\"", "\"raeson\"", &["raeson: is unknown here; did you mean `reason`?"]);
    check("\"reason\"", "\"a b\"", &["[\"a b\"]: is unknown here"]);
    assert_eq!(told("[]"), [".: must be an object, and is a list"]);
    assert_eq!(
        told("{\"schema\": \"terms/1\",}"),
        [".: no JSON: what begins here is no field; there is a comma too many before it"]
    );
}

#[test]
fn faults_of_places_operators_sources_and_games() {
    check(
        "{\"code\": \"MT\"",
        "{\"code\": \"XX\"",
        &["jurisdictions[0].code: `XX` is neither an ISO 3166-1 alpha-2 nor a 3166-2 code"],
    );
    check(
        "\"permitted\"",
        "\"allowed\"",
        &["jurisdictions[0].status: must be one of permitted, blocked, and is `allowed`"],
    );
    check(
        "_s\": 600",
        "_s\": \"600\"",
        &[
            "jurisdictions[0].location_max_age_s: must be a whole number from 0 to 9223372036854775807, and is a string",
        ],
    );
    check("{\"code\": \"US-NV\"", "{\"code\": \"MT\"", &["jurisdictions[1].code: `MT` is listed twice"]);
    check(
        "\"acme\", \"jurisdictions\": [\"MT\", \"US-NV\"]",
        "\"acme\", \"jurisdictions\": [\"MT\", \"*\", \"MT\"]",
        &[
            "operators[0].jurisdictions[1]: `*` does not stand for jurisdictions; list them",
            "operators[0].jurisdictions[2]: `MT` is listed twice",
        ],
    );
    check(
        "{\"operator\": \"bluff\", \"jurisdictions\": [\"MT\"]}",
        "{\"operator\": \"bluff\"}, {\"operator\": \"bluff\", \"jurisdictions\": []}",
        &["operators[1].jurisdictions: is missing", "operators[2].operator: `bluff` is listed twice"],
    );
    check("\"bluff-1\"", "\"acme-1\"", &["sources[1].source: `acme-1` is listed twice"]);
    check(
        "\"operator\": \"acme\", \"keys\"",
        "\"operator\": \"acne\", \"keys\"",
        &["sources[0].operator: nothing of the name `acne` is listed in `operators`; did you mean `acme`?"],
    );
    check(
        "\"k1\", \"k2\"",
        "\"k1\", \"k1\", \"#\", \"a b\", \"whsec_MfKQ\", 3",
        &[
            "sources[0].keys[1]: `k1` is listed twice",
            "sources[0].keys[2]: `#` is no key id: 1 to 64 printable ASCII characters without space, the first no `#`",
            "sources[0].keys[3]: `a b` is no key id: 1 to 64 printable ASCII characters without space, the first no `#`",
            "sources[0].keys[4]: is a secret; name the key's id here, and keep the secret in the key file",
            "sources[0].keys[5]: must be a string, and is a number",
        ],
    );
    check(
        "\"sequence_from\": 5",
        "\"sequence_from\": 0",
        &["sources[0].sequence_from: must be a whole number from 1 to 9223372036854775807, and is 0"],
    );
    check(
        "{\"game\": \"bingo\", \"supplier\": \"s\"}",
        "{\"game\": \"Bingo\", \"supplier\": \"s\"}, 7, {\"game\": \"bingo\", \"supplier\": null}",
        &[
            "games[1].game: `Bingo` is no identifier: [a-z0-9][a-z0-9-]{0,63}",
            "games[2]: must be an object, and is a number",
            "games[3].supplier: is missing",
        ],
    );
}

#[test]
fn faults_of_exchange_rates() {
    let at = |what: &str| {
        format!(
            "exchange_rates[0].rate: {what}: a rate is a decimal string above 0, at most \"1000000\", with at most 9 decimals"
        )
    };
    for bad in ["0", "0.000", "1000000.1", "1000001", "1.0123456789", "-1", "1e3", ""] {
        check("\"1.2\"", &format!("\"{bad}\""), &[&at(&format!("`{bad}` cannot be used"))]);
    }
    check("\"1.2\"", "1.2", &[&at("is a number")]);
    check(
        "\"from\": \"GBP\"",
        "\"from\": \"gbp\"",
        &["exchange_rates[0].from: `gbp` is no active ISO 4217 currency"],
    );
    check(
        "\"rate\": \"1.2\"}",
        "\"rate\": \"1.2\"}, {\"from\": \"GBP\", \"to\": \"EUR\", \"rate\": \"1.3\"}",
        &["exchange_rates[1]: the pair of GBP and EUR is listed twice"],
    );
}

#[test]
fn faults_of_pools() {
    check("\"mini\"", "\"mega\"", &["pools[1].pool: `mega` is listed twice"]);
    check("\"SEK\"", "\"DEM\"", &["pools[1].currency: `DEM` is no active ISO 4217 currency"]);
    check(
        "\"operators\": [\"acme\"]",
        "\"operators\": [\"acme\", \"bluf\", \"acme\"]",
        &[
            "pools[0].operators[1]: nothing of the name `bluf` is listed in `operators`; did you mean `bluff`?",
            "pools[0].operators[2]: `acme` is listed twice",
        ],
    );
    check(
        "[\"spin\", \"bingo\"]",
        "[\"spin\", \"spin\", \"poker\"]",
        &[
            "pools[0].games[1]: `spin` is listed twice",
            "pools[0].games[2]: nothing of the name `poker` is listed in `games`",
        ],
    );
    check("[\"MT\", \"US\"]", "[\"MT\", \"MT\"]", &["pools[0].jurisdictions[1]: `MT` is listed twice"]);
    check(
        "[\"cash\", \"bonus\"]",
        "[\"cash\", \"real\", \"cash\"]",
        &[
            "pools[0].funds[1]: must be one of cash, bonus, free, and is `real`",
            "pools[0].funds[2]: `cash` is listed twice",
        ],
    );
    check("true", "1", &["pools[0].requires_opt_in: must be true or false, and is a number"]);
    check("\"0.10\"", "\"100.000001\"", &["pools[0].min_wager: is above max_wager"]);
    check(
        "\"max_wager\": \"100\"",
        "\"max_wager\": 100",
        &[
            "pools[0].max_wager: is a number: an amount is a decimal string from \"0\" to \"1000000000000000\", with at most 6 decimals",
        ],
    );
}

#[test]
fn faults_of_levels() {
    let amount = "an amount is a decimal string from \"0\" to \"1000000000000000\", with at most 6 decimals";
    for bad in ["1000000000000000.000001", "0.0000001", "01", "1.", "-1", "1e3", " 1"] {
        let fault = format!("pools[0].levels[0].base: `{bad}` cannot be used: {amount}");
        check("\"base\": \"100\"", &format!("\"base\": \"{bad}\""), &[&fault]);
    }
    check("\"900\"", "\"99\"", &["pools[0].levels[0].base: is above the ceiling"]);
    check("\"minor\"", "\"grand\"", &["pools[0].levels[1].level: `grand` is listed twice"]);
    let ppm = "must be a whole number from 0 to 1000000, and is";
    check("3000", "1000001", &[&format!("pools[0].levels[0].increment_ppm: {ppm} 1000001")]);
    check(
        "\"reserve_ppm\": 1000",
        "\"reserve_ppm\": 1.5",
        &[&format!("pools[0].levels[0].reserve_ppm: {ppm} 1.5")],
    );
    check(
        "\"increment_ppm\": 20",
        "\"increment_ppm\": 996001",
        &["pools[0].levels: the rates add up to 1000001 ppm, more than 1000000"],
    );
    let one = "{\"level\": \"only\", \"base\": \"0\", \"increment_ppm\": 996000}";
    check(one, "", &["pools[1].levels: a pool has 1 to 8 levels, and this one has 0"]);
    let nine: Vec<_> = (0..9)
        .map(|i| json!({"level": format!("l{i}"), "base": "0", "increment_ppm": 0}).to_string())
        .collect();
    check(one, &nine.join(","), &["pools[1].levels: a pool has 1 to 8 levels, and this one has 9"]);
    check(
        one,
        "{\"level\": \"only\", \"increment_pmm\": 996000, \"base\": \"0\", \"base\": \"1\"}",
        &[
            "pools[1].levels[0].increment_ppm: is missing",
            "pools[1].levels[0].increment_pmm: is unknown here; did you mean `increment_ppm`?",
            "pools[1].levels[0].base: stands twice in its object; remove one",
        ],
    );
}

#[test]
fn totals_have_limits() {
    let mut document: Value = serde_json::from_str(SOUND).expect("JSON");
    let level = |i: usize| json!({"level": format!("l{i}"), "base": "0", "increment_ppm": 0});
    let pool = |i: usize| {
        let levels: Vec<_> = (0..8).map(level).collect();
        json!({"pool": format!("p{i}"), "currency": "EUR", "jurisdictions": [], "levels": levels})
    };
    document["pools"] = (0..129).map(pool).collect();
    document["games"] = (0..2_001).map(|i| json!({"game": format!("g{i}"), "supplier": ""})).collect();
    let regions: Vec<_> = (0..1_001).map(|i| format!("US-{}", base_36(i))).collect();
    for operator in 0..2 {
        document["operators"][operator]["jurisdictions"] = json!(regions);
    }
    let found = faults(document.to_string().as_bytes());
    let told: BTreeSet<_> = found.iter().map(|fault| (fault.place.as_str(), fault.what.as_str())).collect();
    assert_eq!(
        told,
        BTreeSet::from([
            ("pools", "1032 levels are more than 1024"),
            ("games", "2001 games are more than 2000"),
            ("operators", "2002 pairs of operator and jurisdiction are more than 2000"),
        ])
    );
}

/// A number as two digits of a subdivision's code.
fn base_36(number: usize) -> String {
    let digit = |value: usize| char::from(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[value % 36]);
    [digit(number / 36), digit(number)].iter().collect()
}

#[test]
fn positions_are_told_by_line_and_column() {
    let told: Vec<_> = faults(SOUND.replace("terms/1", "ä").replace("\"reason\"", "\"raeson\"").as_bytes())
        .iter()
        .map(Fault::to_string)
        .collect();
    assert_eq!(
        told,
        [
            "schema: must be \"terms/1\" (line 2, column 13)",
            "raeson: is unknown here; did you mean `reason`? (line 7, column 3)"
        ]
    );
}

/// What a tired operator could hand in: every kind of fault in one document, and nothing hides anything.
#[test]
fn all_faults_are_told_at_once() {
    let document = r#"{
  "schema": "terms/9", "revision": 0, "raeson": "x", "author": [],
  "jurisdictions": [{"code": "XX", "status": "maybe"}, {"code": "MT", "status": "permitted", "location_max_age_s": -1}, "US"],
  "operators": [{"operator": "acme", "jurisdictions": ["MT", "MT"]}, {"operator": "Acme"}, {"operator": "acme", "jurisdictions": "MT"}],
  "sources": [{"source": "a", "operator": "acne", "keys": ["whsec_c2VjcmV0", "k", "k"], "sequence_from": 0}, {"source": "a", "operator": "acme"}],
  "games": [{"game": "spin", "supplier": 7, "studio": "s"}],
  "exchange_rates": [{"from": "GBP", "to": "EURO", "rate": "0"}, {"from": "SEK", "to": "EUR", "rate": 1.5}],
  "pools": [
    {"pool": "mega", "currency": "EUR", "operators": ["acme", "acme", "bluff"], "games": ["spinn"], "jurisdictions": ["*"],
     "funds": ["real"], "requires_opt_in": "no", "min_wager": "5", "max_wager": "4", "max_wager": "3",
     "levels": [{"level": "grand", "base": "10", "ceiling": "9", "increment_ppm": 900000}, {"level": "grand", "base": "1.0000001", "increment_ppm": 100001, "reserve_pmm": 1}]},
    {"pool": "mini", "levels": []}
  ]
}"#;
    let places: Vec<_> = faults(document.as_bytes()).into_iter().map(|fault| fault.place).collect();
    let expect = [
        "schema",
        "revision",
        "raeson",
        "author",
        "jurisdictions[0].code",
        "jurisdictions[0].status",
        "jurisdictions[1].location_max_age_s",
        "jurisdictions[2]",
        "operators[0].jurisdictions[1]",
        "operators[1].jurisdictions",
        "operators[1].operator",
        "operators[2].operator",
        "operators[2].jurisdictions",
        "sources[0].operator",
        "sources[0].keys[0]",
        "sources[0].keys[2]",
        "sources[0].sequence_from",
        "sources[1].source",
        "games[0].supplier",
        "games[0].studio",
        "exchange_rates[0].to",
        "exchange_rates[0].rate",
        "exchange_rates[1].rate",
        "pools[0].operators[1]",
        "pools[0].operators[2]",
        "pools[0].games[0]",
        "pools[0].jurisdictions[0]",
        "pools[0].funds[0]",
        "pools[0].requires_opt_in",
        "pools[0].min_wager",
        "pools[0].max_wager",
        "pools[0].levels",
        "pools[0].levels[0].base",
        "pools[0].levels[1].level",
        "pools[0].levels[1].base",
        "pools[0].levels[1].reserve_pmm",
        "pools[1].currency",
        "pools[1].jurisdictions",
        "pools[1].levels",
    ];
    assert_eq!(places, expect);
    assert!(told(document).iter().all(|line| !line.contains("c2VjcmV0")), "no secret is told on");
}

/// A file that is something else altogether, or a list that was renamed, takes no longer than it must.
#[test]
fn many_faults_are_told_too() {
    let fields: Vec<_> = (0..50_000).map(|i| format!("\"field-{i}\": {i}")).collect();
    assert_eq!(faults(format!("{{{}}}", fields.join(",")).as_bytes()).len(), 50_000 + 2);
    let mut document: Value = serde_json::from_str(SOUND).expect("JSON");
    document["games"] = (0..2_000).map(|i| json!({"game": format!("spin-{i}"), "supplier": ""})).collect();
    let wrong: Vec<_> = (0..20_000).map(|i| format!("spon-{i}")).collect();
    document["pools"][0]["games"] = json!(wrong);
    let found = faults(document.to_string().as_bytes());
    assert_eq!(found.len(), 20_000);
    let helped = found.iter().filter(|fault| fault.what.contains("did you mean")).count();
    assert_eq!(helped, 100, "the first ones are compared with what could be meant");
    let name = "x".repeat(100_000);
    let fault = &faults(format!("{{\"{name}\": 1}}").as_bytes())[2];
    assert!(fault.place.starts_with("[\"xxx") && fault.place.chars().count() < 80, "{}", fault.place.len());
}

#[test]
fn a_list_that_is_none_makes_no_reference_wrong() {
    let document = SOUND.replace("\"games\": [{\"game\"", "\"games\": {}, \"jackpots\": [{\"game\"");
    let places: Vec<_> = faults(document.as_bytes()).into_iter().map(|fault| fault.place).collect();
    assert_eq!(places, ["games", "jackpots"], "which games a pool may name is not known");
}

#[test]
fn what_was_accepted_is_accepted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = vec![root.join("pipeline/cli/terms/example.json")];
    for entry in std::fs::read_dir(root.join("schemas/terms/valid")).expect("the examples are there") {
        files.push(entry.expect("a file").path());
    }
    assert!(files.len() > 4, "{files:?}");
    for file in files {
        let document = std::fs::read(&file).expect("a file");
        let terms = Terms::parse(&document).unwrap_or_else(|faults| panic!("{}: {faults:?}", file.display()));
        assert_eq!(Terms::read_checked(&terms.document()), Ok(terms), "{}", file.display());
    }
}

/// All places of a document, as faults name them and as `serde_json` points to them.
fn places(value: &Value, place: &str, pointer: &str, found: &mut Vec<(String, String)>) {
    let mut visit = |name: String, key: &str, value: &Value| {
        let pointer = format!("{pointer}/{key}");
        found.push((name.clone(), pointer.clone()));
        places(value, &name, &pointer, found);
    };
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let dot = if place.is_empty() { "" } else { "." };
                visit(format!("{place}{dot}{name}"), name, value);
            }
        }
        Value::Array(items) => {
            for (i, value) in items.iter().enumerate() {
                visit(format!("{place}[{i}]"), &i.to_string(), value);
            }
        }
        _ => {}
    }
}

fn all_places() -> Vec<(String, String)> {
    let document = serde_json::from_str(SOUND).expect("JSON");
    let mut found = Vec::new();
    places(&document, "", "", &mut found);
    found
}

fn is_required(place: &str) -> bool {
    const OPTIONAL: [&str; 19] = [
        "rules",
        "author",
        "authorizer",
        "reason",
        "jurisdictions",
        "operators",
        "sources",
        "games",
        "exchange_rates",
        "pools",
        "location_max_age_s",
        "keys",
        "sequence_from",
        "funds",
        "requires_opt_in",
        "min_wager",
        "max_wager",
        "ceiling",
        "reserve_ppm",
    ];
    let (owner, name) = place.rsplit_once('.').unwrap_or(("", place));
    let listed_always = name == "jurisdictions" && !owner.is_empty();
    let is_pools_own = ["operators", "games"].contains(&name);
    !name.ends_with(']') && (listed_always || !(OPTIONAL.contains(&name) || is_pools_own))
}

/// A value of another type than the one that stands there.
fn retyped(old: &Value, pick: usize) -> Value {
    let others = [json!(true), json!("x"), json!(7), json!([]), json!({}), json!(2.5)];
    let kind = |value: &Value| std::mem::discriminant(value);
    let mut others = others.into_iter().filter(|other| kind(other) != kind(old)).cycle();
    others.nth(pick).expect("a cycle does not end")
}

proptest! {
    /// However many values are of another type, each is told at its place, where nothing around it is damaged too.
    #[test]
    fn what_is_retyped_is_told_at_its_place(picks in proptest::collection::vec((any::<prop::sample::Index>(), 0_usize..6), 1..8)) {
        let all = all_places();
        let mut document: Value = serde_json::from_str(SOUND).expect("JSON");
        let mut damaged: Vec<&(String, String)> = Vec::new();
        for (index, pick) in picks {
            let place = &all[index.index(all.len())];
            let apart = |other: &&(String, String)| {
                !other.1.starts_with(&format!("{}/", place.1)) && !place.1.starts_with(&format!("{}/", other.1)) && other.1 != place.1
            };
            if damaged.iter().all(apart) {
                let old = document.pointer_mut(&place.1).expect("the place is there");
                *old = retyped(old, pick);
                damaged.push(place);
            }
        }
        let found = faults(document.to_string().as_bytes());
        for (place, _) in damaged {
            prop_assert!(found.iter().any(|fault| fault.place == *place), "{place}: {found:?}");
        }
        prop_assert!(Terms::parse(document.to_string().as_bytes()).is_err());
    }

    /// A field that is left out, or null, is told where it must be there, and only then.
    #[test]
    fn what_is_dropped_is_told_at_its_place(index in any::<prop::sample::Index>(), null in any::<bool>()) {
        let fields: Vec<_> = all_places().into_iter().filter(|(place, _)| !place.ends_with(']')).collect();
        let (place, pointer) = &fields[index.index(fields.len())];
        let mut document: Value = serde_json::from_str(SOUND).expect("JSON");
        let (owner, name) = pointer.rsplit_once('/').expect("a pointer");
        let owner = document.pointer_mut(owner).and_then(Value::as_object_mut).expect("an object");
        if null {
            owner.insert(name.into(), Value::Null);
        } else {
            owner.remove(name);
        }
        let found = faults(document.to_string().as_bytes());
        let told = found.iter().any(|fault| fault.place == *place && fault.what == "is missing");
        prop_assert_eq!(told, is_required(place), "{}: {:?}", place, found);
    }

    /// Whatever passes the check can be read: the two opinions on a document's form are one.
    #[test]
    fn what_passes_can_be_read(index in any::<prop::sample::Index>(), text in "[ -~]{0,12}", number in any::<u64>()) {
        let all = all_places();
        let (place, pointer) = &all[index.index(all.len())];
        for value in [json!(text), json!(number), json!(number % 1_000_002), json!((number % 2_000_000).to_string()), Value::Null] {
            let mut document: Value = serde_json::from_str(SOUND).expect("JSON");
            *document.pointer_mut(pointer).expect("the place is there") = value;
            let document = document.to_string();
            let found = faults(document.as_bytes());
            if found.is_empty() {
                prop_assert!(Terms::read_checked(document.as_bytes()).is_ok(), "{}: {}", place, document);
            }
        }
    }

    #[test]
    fn no_document_panics(cut in 0..SOUND.len(), byte in any::<u8>()) {
        let mut document = SOUND.as_bytes().to_vec();
        document[cut] = byte;
        faults(&document);
        faults(&document[..cut]);
    }
}
