//! The JSON Schemas of `schemas/` and their examples, held against the types and rules of this crate: whoever
//! reads a schema can rely on it. What no JSON Schema can say stands in `schemas/README.md`, and is not tested here.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use jackpot_core::limits;
use jackpot_core::money::{Micro, Pico, Rate};
use jackpot_core::names;
use jackpot_core::record;
use jackpot_core::refusal::{Reason, StageName};
use jackpot_core::rules;
use jackpot_core::terms::Terms;
use jackpot_core::time::Millis;
use jsonschema::Validator;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas")
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn parse<T: DeserializeOwned>(path: &Path) -> T {
    serde_json::from_slice(&read(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files of a folder whose names end so, by name without the ending.
fn files(folder: &Path, ending: &str) -> BTreeMap<String, PathBuf> {
    let list = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    list.map(|entry| entry.expect("a folder can be listed").path())
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?.strip_suffix(ending)?.to_owned();
            Some((name, path))
        })
        .collect()
}

/// All schemas by name, such as `wager-batch`.
fn schemas() -> BTreeMap<String, Value> {
    files(&folder(), ".schema.json").into_iter().map(|(name, path)| (name, parse(&path))).collect()
}

fn schema(name: &str) -> Value {
    parse(&folder().join(format!("{name}.schema.json")))
}

/// The examples of a schema by name; `kind` is `valid` or `invalid`.
fn examples(name: &str, kind: &str) -> BTreeMap<String, PathBuf> {
    files(&folder().join(name).join(kind), ".json")
}

fn validator(schema: &Value) -> Validator {
    jsonschema::draft202012::new(schema).expect("the schema is valid")
}

/// Judges values by one definition of a schema alone.
fn definition(name: &str, definition: &str) -> Validator {
    let schema = schema(name);
    assert!(schema["$defs"][definition].is_object(), "{name} has no definition {definition}");
    validator(&json!({"$schema": DIALECT, "$ref": format!("#/$defs/{definition}"), "$defs": schema["$defs"]}))
}

#[test]
fn every_schema_is_valid_and_has_examples() {
    let schemas = schemas();
    let names: Vec<_> = schemas.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["commit", "hit", "idle-notice", "refusal", "source", "terms", "totals", "wager-batch", "window"]
    );
    for (name, schema) in &schemas {
        assert_eq!(schema["$schema"], DIALECT, "{name}");
        assert_eq!(schema["$id"], format!("urn:jackpot:{name}:1"));
        if let Err(error) = jsonschema::meta::validate(schema) {
            panic!("{name} is no valid schema: {error}");
        }
        for kind in ["valid", "invalid"] {
            assert!(!examples(name, kind).is_empty(), "{name} has no {kind} examples");
        }
    }
}

#[test]
fn valid_examples_fit_and_invalid_ones_do_not() {
    for (name, schema) in &schemas() {
        let validator = validator(schema);
        for (example, path) in examples(name, "valid") {
            let value = parse(&path);
            if let Err(error) = validator.validate(&value) {
                panic!("{name}/valid/{example}: {error} at {}", error.instance_path());
            }
        }
        for (example, path) in examples(name, "invalid") {
            assert!(!validator.is_valid(&parse(&path)), "{name}/invalid/{example} fits the schema");
        }
    }
}

/// Each file stands alone, so that any validator can use it; what they share must not drift apart.
#[test]
fn a_definition_is_the_same_in_every_schema() {
    let mut seen: BTreeMap<String, (String, Value)> = BTreeMap::new();
    for (name, schema) in schemas() {
        for (key, definition) in schema["$defs"].as_object().into_iter().flatten() {
            let (first, known) =
                seen.entry(key.clone()).or_insert_with(|| (name.clone(), definition.clone()));
            assert_eq!(known, definition, "`{key}` differs between {first} and {name}");
        }
    }
}

/// A supplier reads the schema before anything else.
#[test]
fn every_field_is_described() {
    for (name, schema) in schemas() {
        assert!(schema["title"].is_string(), "{name} has no title");
        check_described(&name, &schema, &schema);
        for (key, definition) in schema["$defs"].as_object().into_iter().flatten() {
            check_described(&format!("{name}#{key}"), definition, &schema);
        }
    }
}

#[test]
fn names_of_fields_are_snake_case() {
    fn names<'a>(schema: &'a Value, found: &mut Vec<&'a str>) {
        found.extend(schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.as_str()));
        match schema {
            Value::Object(fields) => fields.values().for_each(|inner| names(inner, found)),
            Value::Array(items) => items.iter().for_each(|inner| names(inner, found)),
            _ => {}
        }
    }
    for (schema_name, schema) in schemas() {
        let mut found = Vec::new();
        names(&schema, &mut found);
        assert!(!found.is_empty(), "{schema_name}");
        for name in found {
            let plain = name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_');
            assert!(plain && !name.starts_with('_') && !name.ends_with('_'), "{schema_name}: {name}");
        }
    }
}

fn check_described(place: &str, schema: &Value, root: &Value) {
    let shared = schema["$ref"].as_str().and_then(|target| root.pointer(target.strip_prefix('#')?));
    let described = |schema: &Value| schema["description"].is_string();
    assert!(described(schema) || shared.is_some_and(described), "{place} has no description");
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        check_described(&format!("{place}.{name}"), field, root);
    }
}

fn comes_back<T: Serialize + DeserializeOwned>(name: &str) {
    for (example, path) in examples(name, "valid") {
        let value: T = parse(&path);
        let again = serde_json::to_value(&value).expect("a record is plain data");
        assert_eq!(again, parse::<Value>(&path), "{name}/valid/{example}");
    }
}

#[test]
fn examples_of_outputs_are_what_we_write() {
    comes_back::<record::Commit>("commit");
    comes_back::<record::LevelTotals>("totals");
    comes_back::<record::Window>("window");
    comes_back::<record::Hit>("hit");
    comes_back::<record::RefusalNotice>("refusal");
    comes_back::<record::IdleNotice>("idle-notice");
    comes_back::<record::SourceState>("source");
}

#[test]
fn the_books_of_the_examples_balance() {
    for (example, path) in examples("totals", "valid") {
        let level: record::LevelTotals = parse(&path);
        let owned = level.current + level.reserve + level.diversion;
        let given = level.contributed + level.house + level.adjusted - level.paid;
        assert_eq!(owned, given, "totals/valid/{example}");
        let minor = names::minor_digits(&level.currency);
        assert_eq!(level.display, level.current.floor_to_minor(minor), "totals/valid/{example}");
    }
    for (example, path) in examples("window", "valid") {
        let window: record::Window = parse(&path);
        let moved = window.contributed + window.house + window.adjusted - window.paid;
        assert_eq!(window.closing, window.opening + moved, "window/valid/{example}");
        for shares in [&window.by_operator, &window.by_jurisdiction] {
            let wagered = shares.values().fold(Pico::ZERO, |sum, share| sum + share.wagered);
            assert_eq!(wagered, window.wagered, "window/valid/{example}");
        }
    }
    for (example, path) in examples("hit", "valid") {
        let hit: record::Hit = parse(&path);
        assert_eq!(hit.from_diversion + hit.from_reserve + hit.from_house, hit.base, "hit/valid/{example}");
    }
}

#[test]
fn terms_are_judged_alike() {
    let validator = validator(&schema("terms"));
    for (example, path) in examples("terms", "valid") {
        let terms =
            Terms::parse(&read(&path)).unwrap_or_else(|faults| panic!("terms/valid/{example}: {faults:?}"));
        let stored = serde_json::from_slice(&terms.document()).expect("a document is JSON");
        assert!(validator.is_valid(&stored), "what is stored of terms/valid/{example} does not fit");
    }
    for (example, path) in examples("terms", "invalid") {
        assert!(Terms::parse(&read(&path)).is_err(), "terms/invalid/{example} is taken");
    }
}

#[test]
fn invalid_batches_name_their_refusal() {
    let mut shown = Vec::new();
    for (example, _) in examples("wager-batch", "invalid") {
        let (name, _) = example.split_once('-').expect("a name is <reason>-<what>");
        let reason = Reason::from_name(name).unwrap_or_else(|| panic!("{example}: no such reason"));
        shown.push(reason);
    }
    shown.sort();
    shown.dedup();
    let of_form = [
        Reason::Malformed,
        Reason::UnsupportedSchema,
        Reason::InvalidField,
        Reason::InvalidAmount,
        Reason::UnknownCurrency,
        Reason::HitRefused,
    ];
    assert_eq!(shown, of_form, "the reasons that are about form alone, each with an example");
}

#[test]
fn bounds_are_those_of_the_code() {
    let check = |name: &str, pointer: &str, expect: usize| {
        assert_eq!(schema(name).pointer(pointer), Some(&json!(expect)), "{name}{pointer}");
    };
    check("wager-batch", "/properties/wagers/maxItems", limits::BATCH_WAGERS_MAX);
    check("wager-batch", "/$defs/wager/properties/hits/maxItems", limits::WAGER_HITS_MAX);
    check("terms", "/properties/rules/minimum", usize::from(rules::FIRST));
    check("terms", "/properties/rules/maximum", usize::from(rules::KNOWN));
    check("terms", "/properties/games/maxItems", limits::GAMES_MAX);
    check("terms", "/$defs/pool/properties/levels/maxItems", limits::POOL_LEVELS_MAX);
    check("commit", "/properties/levels/maxItems", limits::LEVELS_MAX);
    check("commit", "/properties/partitions/maxItems", usize::from(limits::PARTITIONS_MAX));
    check("refusal", "/properties/detail/maxLength", limits::DETAIL_BYTES_MAX);
    for name in ["refusal", "idle-notice"] {
        check(name, "/properties/partition/maximum", usize::from(limits::PARTITIONS_MAX) - 1);
    }
    let reasons: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(schema("refusal")["properties"]["reason"]["enum"], json!(reasons));
}

/// A notice fits with each reason's own stage, and with no other.
#[test]
fn each_reason_belongs_to_one_stage() {
    let validator = validator(&schema("refusal"));
    let notices: [Value; 2] = ["wager", "batch"].map(|name| parse(&examples("refusal", "valid")[name]));
    for &reason in Reason::ALL {
        for &stage in StageName::ALL {
            let fits = notices.each_ref().map(|notice| {
                let mut notice = notice.clone();
                notice["reason"] = json!(reason);
                notice["stage"] = json!(stage);
                validator.is_valid(&notice)
            });
            let (own, whole) = (stage == reason.stage(), reason <= Reason::SequenceJump);
            assert_eq!(fits, [own && !whole, own && whole], "{reason} by {stage}");
        }
    }
}

#[test]
fn currencies_and_countries_are_those_of_the_code() {
    let currency = definition("wager-batch", "currency");
    let jurisdiction = definition("wager-batch", "jurisdiction");
    let letters = || 'A'..='Z';
    for country in letters().flat_map(|a| letters().map(move |b| format!("{a}{b}"))) {
        for code in [country.clone(), format!("{country}-NV"), format!("{country}-NEVA")] {
            assert_eq!(jurisdiction.is_valid(&json!(code)), names::is_jurisdiction(&code), "{code}");
        }
        for code in letters().map(|c| format!("{country}{c}")) {
            assert_eq!(currency.is_valid(&json!(code)), names::is_currency(&code), "{code}");
        }
    }
}

#[test]
fn amounts_at_their_bounds_are_judged_alike() {
    let wager = definition("wager-batch", "wager_amount");
    let terms = definition("terms", "terms_amount");
    let rate = definition("terms", "rate");
    let wholes = ["0", "1", "999999999", "1000000", "1000000000", "999999999999999", "1000000000000000"];
    let ends = ["", ".", ".0", ".000000", ".000001", ".0000001", ".000000001", ".0000000000", "e1", " "];
    for whole in wholes {
        for (start, end) in ["", "0", "-", "+", "1"].iter().flat_map(|start| ends.map(|end| (start, end))) {
            let text = format!("{start}{whole}{end}");
            assert_eq!(wager.is_valid(&json!(text)), Micro::parse_wager(&text).is_ok(), "wager {text:?}");
            assert_eq!(terms.is_valid(&json!(text)), Micro::parse_terms(&text).is_ok(), "terms {text:?}");
            assert_eq!(rate.is_valid(&json!(text)), Rate::parse(&text).is_ok(), "rate {text:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn amounts_and_times_that_we_print_fit(
        units in any::<i64>(),
        fraction in 0_i128..1_000_000_000_000,
        at in -62_135_596_800_000_i64..253_402_300_800_000,
    ) {
        let pico = Pico(i128::from(units) * 1_000_000 + fraction);
        let fits = |name: &str| definition("totals", name).is_valid(&json!(pico));
        prop_assert!(fits("balance"), "{pico}");
        prop_assert_eq!(fits("amount"), pico >= Pico::ZERO, "{}", pico);
        prop_assert!(definition("totals", "instant").is_valid(&json!(Millis(at))), "{}", Millis(at));
        prop_assert!(definition("wager-batch", "time").is_valid(&json!(Millis(at))), "{}", Millis(at));
    }

    #[test]
    fn identifiers_are_judged_alike(text in "[a-zA-Z0-9é -]{0,4}|[a-z0-9-]{63,65}|[!-~ ]{0,3}") {
        let identifier = definition("wager-batch", "identifier");
        prop_assert_eq!(identifier.is_valid(&json!(text)), names::is_identifier(&text), "{}", text);
    }
}
