//! The scanner against `serde_json` as the oracle of what is JSON, and against the contract's own rules.

use std::collections::BTreeSet;
use std::fmt;

use proptest::prelude::*;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::*;

/// Reads a whole body and writes down what was handed out, in a form that tells values apart.
fn read(body: &[u8]) -> Result<String, Fault> {
    fn value(scanner: &mut Scanner<'_>, out: &mut String) -> Result<(), Fault> {
        match scanner.value()? {
            Value::Object => {
                out.push('{');
                while let Some(name) = scanner.name()? {
                    out.push_str(&format!("{name:?}:"));
                    value(scanner, out)?;
                }
                out.push('}');
            }
            Value::Array => {
                out.push('[');
                while scanner.item()? {
                    value(scanner, out)?;
                }
                out.push(']');
            }
            Value::String(text) => out.push_str(&format!("{text:?},")),
            Value::Number(number) => out.push_str(&written(number.parse().expect("a number"))),
            Value::Bool(is) => out.push_str(&format!("{is},")),
            Value::Null => out.push_str("null,"),
        }
        Ok(())
    }
    let mut scanner = Scanner::new(body)?;
    let mut out = String::new();
    value(&mut scanner, &mut out)?;
    scanner.finish()?;
    Ok(out)
}

/// Cut to nine digits: `serde_json` is off by one in the last place of some numbers.
fn written(number: f64) -> String {
    format!("{number:.8e},")
}

/// Reads over a whole body.
fn skip(body: &[u8]) -> Result<(), Fault> {
    let mut scanner = Scanner::new(body)?;
    let value = scanner.value()?;
    scanner.skip(&value)?;
    scanner.finish()
}

/// What `serde_json` reads, written down as [`read`] does it; the contract's own rules are checked on the way.
struct Oracle(String);

thread_local! {
    static DEPTH: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

impl<'de> Deserialize<'de> for Oracle {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OracleVisitor).map(Self)
    }
}

struct OracleVisitor;

fn nested<T, E: de::Error>(inside: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    DEPTH.with(|depth| {
        if depth.get() > 32 {
            return Err(E::custom("too deep"));
        }
        depth.set(depth.get() + 1);
        let result = inside();
        depth.set(depth.get() - 1);
        result
    })
}

impl<'de> Visitor<'de> for OracleVisitor {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_bool<E>(self, value: bool) -> Result<String, E> {
        Ok(format!("{value},"))
    }
    fn visit_i64<E>(self, value: i64) -> Result<String, E> {
        Ok(written(value.to_string().parse().expect("a number")))
    }
    fn visit_u64<E>(self, value: u64) -> Result<String, E> {
        Ok(written(value.to_string().parse().expect("a number")))
    }
    fn visit_f64<E>(self, value: f64) -> Result<String, E> {
        Ok(written(value))
    }
    fn visit_str<E>(self, value: &str) -> Result<String, E> {
        Ok(format!("{value:?},"))
    }
    fn visit_unit<E>(self) -> Result<String, E> {
        Ok("null,".into())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<String, A::Error> {
        nested(|| {
            let mut out = String::from("[");
            while let Some(Oracle(item)) = items.next_element()? {
                out.push_str(&item);
            }
            Ok(out + "]")
        })
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<String, A::Error> {
        nested(|| {
            let mut out = String::from("{");
            let mut seen = BTreeSet::new();
            while let Some(name) = entries.next_key::<String>()? {
                out.push_str(&format!("{name:?}:"));
                if !seen.insert(name) {
                    return Err(de::Error::custom("a name twice"));
                }
                out.push_str(&entries.next_value::<Oracle>()?.0);
            }
            Ok(out + "}")
        })
    }
}

/// `None` where the oracle has no opinion: it refuses numbers that do not fit an `f64`, which are JSON.
fn oracle(body: &[u8]) -> Option<Result<String, ()>> {
    DEPTH.with(|depth| depth.set(0));
    match serde_json::from_slice::<Oracle>(body) {
        Ok(Oracle(read)) => Some(Ok(read)),
        Err(error) if error.to_string().contains("out of range") => None,
        Err(_) => Some(Err(())),
    }
}

fn agrees(body: &[u8]) -> Result<(), TestCaseError> {
    let ours = read(body);
    prop_assert_eq!(ours.clone().map(drop), skip(body), "reading and skipping find the same");
    if let Some(theirs) = oracle(body) {
        prop_assert_eq!(ours.clone().map_err(drop), theirs, "{:?}", ours);
    }
    Ok(())
}

fn document() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("false".to_owned()),
        "-?(0|[1-9][0-9]{0,6})(\\.[0-9]{1,4})?([eE][+-]?[0-9]{1,2})?",
        string(),
    ];
    scalar.prop_recursive(6, 60, 20, |inner| {
        prop_oneof![
            proptest::collection::vec((space(), inner.clone()), 0..6)
                .prop_map(|items| format!("[{}]", join(items.into_iter().map(|(a, b)| a + &b)))),
            proptest::collection::vec((string(), space(), inner), 0..24).prop_map(|entries| format!(
                "{{{}}}",
                join(entries.into_iter().map(|(n, s, v)| n + &s + ":" + &v))
            )),
        ]
    })
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(",")
}

fn space() -> impl Strategy<Value = String> {
    "[ \n\r\t]{0,2}"
}

fn string() -> impl Strategy<Value = String> {
    prop_oneof![
        "\"[a-c]{1,2}\"",
        "\"[ -!#-\\[\\]-~]{0,20}\"",
        "\"([a-z]|é|𝄞|\\\\n|\\\\\"|\\\\\\\\|\\\\u00[0-9a-fA-F]{2}|\\\\ud834\\\\udd1e){0,12}\"",
        "\"([a-z]|\\\\ud[89a-f][0-9a-f]{2}){0,6}\"",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn documents_are_read_as_the_oracle_reads_them(body in document()) {
        agrees(body.as_bytes())?;
    }

    #[test]
    fn damaged_documents_are_refused_as_the_oracle_does(
        body in document(),
        place in any::<prop::sample::Index>(),
        damage in prop_oneof![
            Just(Vec::new()),
            proptest::collection::vec(any::<u8>(), 1..3),
            "[\\[\\]{},:\"\\\\0-9.eE+\\- a-z]{1,3}".prop_map(String::into_bytes),
        ],
        cut in 0_usize..3,
    ) {
        let mut body = body.into_bytes();
        let from = place.index(body.len() + 1);
        let to = (from + cut).min(body.len());
        body.splice(from..to, damage);
        agrees(&body)?;
    }

    #[test]
    fn any_bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..64)) {
        agrees(&body)?;
    }

    #[test]
    fn any_run_of_marks_is_read_or_refused(body in "[\\[\\]{},:\"\\\\u0-9.eE+\\-tfn ]{0,24}") {
        agrees(body.as_bytes())?;
    }

    #[test]
    fn plain_runs_end_where_a_naive_search_ends_them(bytes in proptest::collection::vec(
        prop_oneof![any::<u8>(), Just(b'a'), Just(0x1f), Just(0x20), Just(0x21), Just(b'"'), Just(b'\\'), Just(0xff)],
        0..40,
    )) {
        let naive = bytes.iter().position(|&b| b < 0x20 || b == b'"' || b == b'\\').unwrap_or(bytes.len());
        prop_assert_eq!(plain_len(&bytes), naive);
    }

    #[test]
    fn a_name_twice_is_found_among_any_number(count in 1_usize..60, twice in any::<prop::sample::Index>()) {
        let name = |i: usize| format!("\"n{i}\":{{\"n0\":1}}");
        let names: Vec<_> = (0..count).map(name).collect();
        let once = skip(format!("{{{}}}", names.join(",")).as_bytes());
        prop_assert_eq!(once, Ok(()));
        let again = skip(format!("{{{},{}}}", names.join(","), names[twice.index(count)]).as_bytes());
        prop_assert!(again.is_err());
    }
}

#[test]
fn the_rules_of_the_contract_hold() {
    let check = |body: &str, expect: Result<&str, (&'static str, usize)>| {
        let expect = expect.map(str::to_owned).map_err(|(what, offset)| Fault { what, offset });
        assert_eq!(read(body.as_bytes()), expect, "{body}");
    };
    check(
        r#"{"a":[1,{"b":null}],"c":"\u0000\ud834\udd1e"}"#,
        Ok("{\"a\":[1.00000000e0,{\"b\":null,}]\"c\":\"\\0𝄞\",}"),
    );
    check(r#"{"a":1,"\u0061":2}"#, Err(("the end of a name that its object has already", 15)));
    check(r#"{"x":{"a":1,"a":2}}"#, Err(("the end of a name that its object has already", 15)));
    check(r#"{"a":1,"b":{"a":1}}"#, Ok("{\"a\":1.00000000e0,\"b\":{\"a\":1.00000000e0,}}"));
    check(r#"["\ud834"]"#, Err(("half of a surrogate pair", 8)));
    check(r#"["\udd1e"]"#, Err(("half of a surrogate pair", 8)));
    check(r#"["\ud834\u0061"]"#, Err(("half of a surrogate pair", 14)));
    check("[1] x", Err(("something behind the end", 4)));
    check("\u{feff}[]", Err(("no value where one must be", 0)));
    check("", Err(("no value where one must be", 0)));
    check("[01]", Err(("no comma or closing bracket where one must be", 2)));
    check("[1,]", Err(("no value where one must be", 3)));
    check("{\"a\":1,}", Err(("no name where one must be", 7)));
    check("[1}", Err(("no comma or closing bracket where one must be", 2)));
    check("\"a\nb\"", Err(("a control character in a string", 2)));
    assert_eq!(read(b"[\"\xff\"]"), Err(Fault { what: "a byte that is no UTF-8", offset: 2 }));
}

#[test]
fn numbers_of_any_size_are_json() {
    for number in ["1e999999999", "-1E-400", &"9".repeat(100_000), "-0", "0.0e0"] {
        let mut scanner = Scanner::new(number.as_bytes()).expect("ASCII");
        assert_eq!(scanner.value(), Ok(Value::Number(number)));
        scanner.finish().expect("nothing is left");
    }
}

#[test]
fn nesting_is_bounded() {
    let nest = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(skip(nest(33).as_bytes()).is_ok(), "the innermost is inside 32 others");
    assert!(skip(nest(34).as_bytes()).is_err());
    assert!(skip("[".repeat(1_000_000).as_bytes()).is_err());
}

#[test]
fn a_body_full_of_names_is_read_fast() {
    let names: Vec<_> = (0..60_000).map(|i| format!("\"{i}\":0")).collect();
    assert!(
        skip(format!("{{{}}}", names.join(",")).as_bytes()).is_ok(),
        "a quadratic search takes minutes here"
    );
}
