//! Where a batch goes: its `operator` and `source`, read as leniently as can be.
//! Everything else about a line is for validate to judge, so nothing else of it is looked at.

use std::fmt;

use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

/// Reads the subject that a line is published to, or says why there is none.
///
/// Reading ends when both names are known: what stands behind them may be anything.
pub fn subject(line: &[u8]) -> Result<String, String> {
    let mut address = Address::default();
    let mut reader = serde_json::Deserializer::from_slice(line);
    let read = reader.deserialize_map(&mut address);
    match (address.operator, address.source, read) {
        (Some(operator), Some(source), _) => {
            let (operator, source) = (word("operator", &operator)?, word("source", &source)?);
            Ok(jackpot_core::topology::wagers(operator, source))
        }
        (_, _, Err(error)) => Err(format!("is no JSON object with `operator` and `source`: {error}")),
        (None, ..) => Err("has no `operator`".into()),
        (_, None, _) => Err("has no `source`".into()),
    }
}

/// A name as a word of a subject.
fn word<'a>(field: &str, value: &'a Value) -> Result<&'a str, String> {
    let text = value.as_str().ok_or_else(|| format!("has an `{field}` that is no text"))?;
    let separates = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '.' | '*' | '>');
    if text.is_empty() || text.len() > 256 || text.contains(separates) {
        return Err(format!("has an `{field}` that cannot be a word of a subject"));
    }
    Ok(text)
}

#[derive(Default)]
struct Address {
    operator: Option<Value>,
    source: Option<Value>,
}

impl<'de> Visitor<'de> for &mut Address {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while self.operator.is_none() || self.source.is_none() {
            let Some(key) = map.next_key::<String>()? else { return Ok(()) };
            match key.as_str() {
                "operator" if self.operator.is_none() => self.operator = Some(map.next_value()?),
                "source" if self.source.is_none() => self.source = Some(map.next_value()?),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expect: Result<&str, &str>) {
        match (subject(line.as_bytes()), expect) {
            (Ok(subject), Ok(expect)) => assert_eq!(subject, expect, "{line}"),
            (Err(why), Err(expect)) => assert!(why.contains(expect), "{line}: {why}"),
            (got, _) => panic!("{line}: {got:?}"),
        }
    }

    #[test]
    fn lines_are_addressed_leniently() {
        check(r#"{"operator":"acme","source":"eu1"}"#, Ok("wagers.acme.eu1"));
        check(
            r#" {"x":[1,{"operator":"no"}],"source":"eu1","sequence":-3,"operator":"acme"} "#,
            Ok("wagers.acme.eu1"),
        );
        check(r#"{"operator":"ac\u006de","source":"eu1"}"#, Ok("wagers.acme.eu1"));
        check(r#"{"operator":"Acme!","source":"EU_1"}"#, Ok("wagers.Acme!.EU_1"));
        // What is behind the two names is for validate to refuse.
        check(r#"{"operator":"acme","source":"eu1","wagers":[broken"#, Ok("wagers.acme.eu1"));
        check(r#"{"operator":"acme","source":"eu1","source":"eu2"}"#, Ok("wagers.acme.eu1"));
    }

    #[test]
    fn lines_without_an_address_are_named() {
        check("nonsense", Err("is no JSON object"));
        check("[1,2]", Err("is no JSON object"));
        check("\"text\"", Err("is no JSON object"));
        check(r#"{"source":"eu1"}"#, Err("no `operator`"));
        check(r#"{"operator":"acme"}"#, Err("no `source`"));
        check(r#"{"operator":"acme","#, Err("is no JSON object"));
        check(r#"{"operator":7,"source":"eu1"}"#, Err("no text"));
        check(r#"{"operator":null,"source":"eu1"}"#, Err("no text"));
        check(r#"{"operator":"a.b","source":"eu1"}"#, Err("word of a subject"));
        check(r#"{"operator":"acme","source":"*"}"#, Err("word of a subject"));
        check(r#"{"operator":"","source":"eu1"}"#, Err("word of a subject"));
    }
}
