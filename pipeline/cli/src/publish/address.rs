//! Where a batch goes: its `operator` and `source`, read as leniently as can be; and its `sequence`, where it is to be
//! signed. Everything else about a line is for validate to judge, so nothing else of it is looked at.

use std::fmt;

use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

/// Where a line goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Its operator.
    pub operator: String,
    /// Its source.
    pub source: String,
}

impl Address {
    /// Reads where a line goes, or says why that cannot be told.
    ///
    /// Reading ends when both names are known: what stands behind them may be anything.
    pub fn read(line: &[u8]) -> Result<Self, String> {
        let (values, read) = fields(line, ["operator", "source"]);
        match (values, read) {
            ([Some(operator), Some(source)], _) => {
                Ok(Self { operator: word("operator", &operator)?, source: word("source", &source)? })
            }
            (_, Err(error)) => Err(format!("is no JSON object with `operator` and `source`: {error}")),
            ([None, _], _) => Err("has no `operator`".into()),
            ([_, None], _) => Err("has no `source`".into()),
        }
    }

    /// The subject that it is published to.
    pub fn subject(&self) -> String {
        jackpot_core::topology::wagers(&self.operator, &self.source)
    }
}

/// Reads the number of a batch, by which it is signed.
pub fn sequence(line: &[u8]) -> Result<u64, String> {
    match fields(line, ["sequence"]) {
        ([Some(number)], _) => number
            .as_u64()
            .filter(|&number| number > 0)
            .ok_or_else(|| "has a `sequence` that is no whole number from 1 on, and must be signed".into()),
        (_, Err(error)) => Err(format!("is no JSON object with `sequence`, and must be signed: {error}")),
        ([None], _) => Err("has no `sequence`, and must be signed".into()),
    }
}

/// The values of these fields, as far as they are known when reading ended.
fn fields<const N: usize>(
    line: &[u8],
    names: [&'static str; N],
) -> ([Option<Value>; N], Result<(), serde_json::Error>) {
    let mut fields = Fields { names, values: [const { None }; N] };
    let read = serde_json::Deserializer::from_slice(line).deserialize_map(&mut fields);
    (fields.values, read)
}

/// A name as a word of a subject.
fn word(field: &str, value: &Value) -> Result<String, String> {
    let text = value.as_str().ok_or_else(|| format!("has an `{field}` that is no text"))?;
    let separates = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '.' | '*' | '>');
    if text.is_empty() || text.len() > 256 || text.contains(separates) {
        return Err(format!("has an `{field}` that cannot be a word of a subject"));
    }
    Ok(text.to_owned())
}

/// Reads an object until these fields are known; of one that is there twice the first counts.
struct Fields<const N: usize> {
    names: [&'static str; N],
    values: [Option<Value>; N],
}

impl<'de, const N: usize> Visitor<'de> for &mut Fields<N> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while self.values.iter().any(Option::is_none) {
            let Some(key) = map.next_key::<String>()? else { return Ok(()) };
            match self.names.iter().position(|name| *name == key) {
                Some(at) if self.values[at].is_none() => self.values[at] = Some(map.next_value()?),
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
        match (Address::read(line.as_bytes()).map(|address| address.subject()), expect) {
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

    #[test]
    fn the_number_is_read_wherever_it_stands() {
        let check = |line: &str, expect: Result<u64, &str>| match (sequence(line.as_bytes()), expect) {
            (Ok(number), Ok(expect)) => assert_eq!(number, expect, "{line}"),
            (Err(why), Err(expect)) => assert!(why.contains(expect), "{line}: {why}"),
            (got, _) => panic!("{line}: {got:?}"),
        };
        check(r#"{"wagers":[{"sequence":1}],"sequence":4711}"#, Ok(4711));
        check(r#"{"sequence":4711,"wagers":[broken"#, Ok(4711));
        check(r#"{"sequence":0}"#, Err("no whole number"));
        check(r#"{"sequence":17.0}"#, Err("no whole number"));
        check(r#"{"sequence":"17"}"#, Err("no whole number"));
        check(r#"{"wagers":[]}"#, Err("has no `sequence`"));
        check(r#"{"wagers":[broken"#, Err("no JSON object"));
    }
}
