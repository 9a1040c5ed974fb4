//! Terms: what is computed — pools, rates, rules, sources — revision by revision (contract, section 4).
//! The document is the type; what is wrong with one, `check` finds; how revisions are kept in the log is in [`store`].
//! What a stage needs of them it compiles for itself.

pub mod cache;
mod check;
pub mod plan;
pub mod store;
pub mod tree;

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use self::tree::Position;
use crate::digest::Digest;
use crate::frame::batch::Funds;
use crate::money::{Micro, Pico, Ppm, Rate};
use crate::rules;

/// The value of `schema` in a document of terms.
pub const SCHEMA: &str = "terms/1";

/// One revision of the terms. Immutable once applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// [`SCHEMA`].
    pub schema: String,
    /// The number of the revision, from 1.
    pub revision: u64,
    /// The version of the [rules] that frames are made by from this revision on.
    #[serde(
        default = "rules::first",
        deserialize_with = "null_is_first_rules",
        skip_serializing_if = "is_first_rules"
    )]
    pub rules: u16,
    /// Where wagers may come from. A jurisdiction with no rule is blocked.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub jurisdictions: Vec<Jurisdiction>,
    /// Who may take wagers, and where.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub operators: Vec<Operator>,
    /// Which sources publish batches.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub sources: Vec<Source>,
    /// Which games wagers may name.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub games: Vec<Game>,
    /// Pairs of currencies; no inverses and no chains are derived.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub exchange_rates: Vec<ExchangeRate>,
    /// The pools, in the order in which a wager joins them.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub pools: Vec<Pool>,
    /// Who wrote the revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Who authorized it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorizer: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The rule of one jurisdiction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jurisdiction {
    /// ISO 3166-1 alpha-2, or 3166-2; a country stands for its subdivisions that have no rule of their own.
    pub code: String,
    /// Whether wagers may come from there.
    pub status: Status,
    /// How long before a wager its location may have been checked, in seconds.
    #[serde(default = "location_max_age_s_default", deserialize_with = "null_is_default_max_age")]
    pub location_max_age_s: u64,
}

/// Whether wagers may come from a jurisdiction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// They may.
    Permitted,
    /// They may not.
    Blocked,
}

/// An operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operator {
    /// Its name.
    pub operator: String,
    /// Where it may take wagers; always listed.
    pub jurisdictions: Vec<String>,
}

/// A source of batches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Its name, one of a kind over all operators.
    pub source: String,
    /// Whose it is.
    pub operator: String,
    /// The ids of the keys that sign its batches; none: batches are not signed.
    #[serde(default, deserialize_with = "null_is_absent", skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// Where its batch numbers start anew; a new value makes validate forget what it remembers of the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence_from: Option<u64>,
}

/// A game.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Game {
    /// Its name.
    pub game: String,
    /// Who supplies it.
    pub supplier: String,
}

/// How much of `to` one unit of `from` is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExchangeRate {
    /// The wager's currency.
    pub from: String,
    /// The pool's currency.
    pub to: String,
    /// The rate.
    #[serde(deserialize_with = "read_rate", serialize_with = "as_text")]
    pub rate: Rate,
}

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Its name.
    pub pool: String,
    /// ISO 4217.
    pub currency: String,
    /// Whose wagers take part; `*` is everybody.
    #[serde(default = "everybody", deserialize_with = "null_is_everybody")]
    pub operators: Vec<String>,
    /// Which games take part; `*` is all.
    #[serde(default = "everybody", deserialize_with = "null_is_everybody")]
    pub games: Vec<String>,
    /// From where; always listed.
    pub jurisdictions: Vec<String>,
    /// With whose money.
    #[serde(default = "cash", deserialize_with = "null_is_cash")]
    pub funds: Vec<Funds>,
    /// Whether the player must have opted in.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub requires_opt_in: bool,
    /// The least converted amount that takes part.
    #[serde(default, deserialize_with = "null_or_micro", serialize_with = "as_text")]
    pub min_wager: Micro,
    /// The most of a wager that counts.
    #[serde(
        default,
        deserialize_with = "read_micro_option",
        skip_serializing_if = "Option::is_none",
        serialize_with = "as_text_option"
    )]
    pub max_wager: Option<Micro>,
    /// Its levels, at least one.
    pub levels: Vec<Level>,
}

/// A level of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Level {
    /// Its name in the pool.
    pub level: String,
    /// What it starts from, and starts from again after each hit.
    #[serde(deserialize_with = "read_amount")]
    pub base: Pico,
    /// What it does not grow above.
    #[serde(default, deserialize_with = "read_amount_option", skip_serializing_if = "Option::is_none")]
    pub ceiling: Option<Pico>,
    /// The share of an eligible amount that it grows by.
    #[serde(deserialize_with = "read_ppm", serialize_with = "as_ppm")]
    pub increment_ppm: Ppm,
    /// The share that goes to its reserve.
    #[serde(default, deserialize_with = "null_or_ppm", serialize_with = "as_ppm")]
    pub reserve_ppm: Ppm,
}

/// One thing that is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where: `pools[1].levels[0].base`; `.` for the document as a whole.
    pub place: String,
    /// What, in a sentence that says how to mend it.
    pub what: String,
    /// Where in the file, where that is known.
    pub position: Option<Position>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, what, position } = self;
        match position {
            Some(position) => write!(f, "{place}: {what} ({position})"),
            None => write!(f, "{place}: {what}"),
        }
    }
}

impl Terms {
    /// Reads a document that comes from outside; all its faults are told at once.
    pub fn parse(document: &[u8]) -> Result<Self, Vec<Fault>> {
        let faults = check::faults(document);
        if !faults.is_empty() {
            return Err(faults);
        }
        Self::read_checked(document).map_err(|fault| vec![fault])
    }

    /// Reads a document that was checked before, when it was applied: its form is still judged, its meaning is not.
    /// A later build, whose checks are others, thus reads what an earlier one applied.
    pub fn read_checked(document: &[u8]) -> Result<Self, Fault> {
        let fault = |place: String, what: String| Fault { place, what, position: None };
        let mut reader = serde_json::Deserializer::from_slice(document);
        let terms = serde_path_to_error::deserialize(&mut reader)
            .map_err(|error| fault(error.path().to_string(), error.inner().to_string()))?;
        reader.end().map_err(|error| fault(".".into(), error.to_string()))?;
        Ok(terms)
    }

    /// What is in force before any terms were applied: revision 0, which knows nobody.
    pub fn none() -> Self {
        Self {
            schema: SCHEMA.into(),
            revision: 0,
            rules: rules::FIRST,
            jurisdictions: Vec::new(),
            operators: Vec::new(),
            sources: Vec::new(),
            games: Vec::new(),
            exchange_rates: Vec::new(),
            pools: Vec::new(),
            author: None,
            authorizer: None,
            reason: None,
        }
    }

    /// The document as it is kept: canonical JSON, the same bytes for the same terms.
    pub fn document(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("terms are plain data")
    }

    /// The digest of [`Terms::document`], by which a revision is known.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.document())
    }
}

fn null_is_first_rules<'de, D: Deserializer<'de>>(d: D) -> Result<u16, D::Error> {
    Option::deserialize(d).map(|version| version.unwrap_or(rules::FIRST))
}

/// A document of the first version does not say so, as before there were others: its digest is what it was.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_first_rules(version: &u16) -> bool {
    *version == rules::FIRST
}

fn location_max_age_s_default() -> u64 {
    1_800
}

fn everybody() -> Vec<String> {
    vec!["*".into()]
}

fn cash() -> Vec<Funds> {
    vec![Funds::Cash]
}

fn null_is_absent<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(d: D) -> Result<T, D::Error> {
    Option::deserialize(d).map(Option::unwrap_or_default)
}

fn null_is_everybody<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    Option::deserialize(d).map(|list| list.unwrap_or_else(everybody))
}

fn null_is_cash<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Funds>, D::Error> {
    Option::deserialize(d).map(|list| list.unwrap_or_else(cash))
}

fn null_is_default_max_age<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
    Option::deserialize(d).map(|age| age.unwrap_or_else(location_max_age_s_default))
}

fn read_rate<'de, D: Deserializer<'de>>(d: D) -> Result<Rate, D::Error> {
    let text = String::deserialize(d)?;
    Rate::parse(&text).map_err(|error| {
        serde::de::Error::custom(format!(
            "`{text}` {error}: a rate is a decimal above 0, at most 1000000, with at most 9 decimals"
        ))
    })
}

fn read_amount<'de, D: Deserializer<'de>>(d: D) -> Result<Pico, D::Error> {
    let text = String::deserialize(d)?;
    Pico::parse_terms(&text).map_err(|error| serde::de::Error::custom(format!("`{text}` {error}")))
}

fn read_amount_option<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Pico>, D::Error> {
    let Some(text) = Option::<String>::deserialize(d)? else { return Ok(None) };
    Pico::parse_terms(&text).map(Some).map_err(|error| serde::de::Error::custom(format!("`{text}` {error}")))
}

fn read_micro_option<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Micro>, D::Error> {
    let Some(text) = Option::<String>::deserialize(d)? else { return Ok(None) };
    Micro::parse_terms(&text).map(Some).map_err(|error| serde::de::Error::custom(format!("`{text}` {error}")))
}

fn null_or_micro<'de, D: Deserializer<'de>>(d: D) -> Result<Micro, D::Error> {
    read_micro_option(d).map(Option::unwrap_or_default)
}

fn read_ppm<'de, D: Deserializer<'de>>(d: D) -> Result<Ppm, D::Error> {
    u32::deserialize(d).and_then(checked_ppm)
}

fn null_or_ppm<'de, D: Deserializer<'de>>(d: D) -> Result<Ppm, D::Error> {
    Option::deserialize(d).and_then(|ppm| checked_ppm(ppm.unwrap_or_default()))
}

fn checked_ppm<E: serde::de::Error>(ppm: u32) -> Result<Ppm, E> {
    if ppm > Ppm::ONE.0 {
        return Err(E::custom(format!("{ppm} ppm are more than the whole (1000000)")));
    }
    Ok(Ppm(ppm))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn as_ppm<S: Serializer>(ppm: &Ppm, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_u32(ppm.0)
}

fn as_text<S: Serializer, T: std::fmt::Display>(value: &T, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(value)
}

fn as_text_option<S: Serializer, T: std::fmt::Display>(value: &Option<T>, s: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => s.collect_str(value),
        None => s.serialize_none(),
    }
}
