//! Terms: what is computed — pools, rates, rules, sources — revision by revision (contract, section 4).
//! The document is the type; how revisions are kept in the log is in [`store`].
//! What a stage needs of them it compiles for itself.

pub mod cache;
pub mod plan;
pub mod store;

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;
use crate::frame::batch::Funds;
use crate::money::{Micro, Pico, Ppm, Rate};
use crate::{limits, names};

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
    /// Where: `pools[1].levels[0].base`.
    pub place: String,
    /// What, in a sentence that says how to mend it.
    pub what: String,
}

impl Terms {
    /// Reads a document; all faults that can be told are told at once.
    pub fn parse(document: &[u8]) -> Result<Self, Vec<Fault>> {
        let mut reader = serde_json::Deserializer::from_slice(document);
        let terms: Self = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            vec![Fault { place: error.path().to_string(), what: error.inner().to_string() }]
        })?;
        reader.end().map_err(|error| vec![Fault { place: ".".into(), what: error.to_string() }])?;
        let faults = terms.faults();
        if faults.is_empty() { Ok(terms) } else { Err(faults) }
    }

    /// What is in force before any terms were applied: revision 0, which knows nobody.
    pub fn none() -> Self {
        Self {
            schema: SCHEMA.into(),
            revision: 0,
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

    /// What is wrong with the document beyond its form.
    fn faults(&self) -> Vec<Fault> {
        let mut faults = Faults(Vec::new());
        if self.schema != SCHEMA {
            faults.add("schema", format!("must be \"{SCHEMA}\""));
        }
        if self.revision == 0 || i64::try_from(self.revision).is_err() {
            faults.add("revision", "must be a whole number from 1 to 2⁶³−1".into());
        }
        self.check_places(&mut faults);
        self.check_names(&mut faults);
        self.check_rates(&mut faults);
        self.check_pools(&mut faults);
        faults.0
    }

    fn check_places(&self, faults: &mut Faults) {
        let mut seen = BTreeSet::new();
        for (i, rule) in self.jurisdictions.iter().enumerate() {
            let place = format!("jurisdictions[{i}].code");
            faults.jurisdiction(&place, &rule.code);
            faults.once(&mut seen, &place, &rule.code);
        }
        let lists = self
            .operators
            .iter()
            .enumerate()
            .map(|(i, operator)| (format!("operators[{i}]"), &operator.jurisdictions))
            .chain(
                self.pools.iter().enumerate().map(|(i, pool)| (format!("pools[{i}]"), &pool.jurisdictions)),
            );
        for (owner, list) in lists {
            let mut seen = BTreeSet::new();
            for (i, code) in list.iter().enumerate() {
                let place = format!("{owner}.jurisdictions[{i}]");
                faults.jurisdiction(&place, code);
                faults.once(&mut seen, &place, code);
            }
        }
        let pairs: usize = self.operators.iter().map(|operator| operator.jurisdictions.len()).sum();
        if pairs > limits::OPERATOR_JURISDICTIONS_MAX {
            faults.add(
                "operators",
                format!(
                    "{pairs} pairs of operator and jurisdiction are more than {}",
                    limits::OPERATOR_JURISDICTIONS_MAX
                ),
            );
        }
    }

    fn check_names(&self, faults: &mut Faults) {
        let (mut operators, mut sources, mut games) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (i, operator) in self.operators.iter().enumerate() {
            faults.name(&mut operators, &format!("operators[{i}].operator"), &operator.operator);
        }
        for (i, source) in self.sources.iter().enumerate() {
            faults.name(&mut sources, &format!("sources[{i}].source"), &source.source);
            if !operators.contains(source.operator.as_str()) {
                faults.add(
                    &format!("sources[{i}].operator"),
                    format!("no operator `{}` is listed", source.operator),
                );
            }
            let mut keys = BTreeSet::new();
            for (j, key) in source.keys.iter().enumerate() {
                faults.key(&mut keys, &format!("sources[{i}].keys[{j}]"), key);
            }
            if source.sequence_from == Some(0) {
                faults.add(&format!("sources[{i}].sequence_from"), "must be at least 1".into());
            }
        }
        for (i, game) in self.games.iter().enumerate() {
            faults.name(&mut games, &format!("games[{i}].game"), &game.game);
        }
        if self.games.len() > limits::GAMES_MAX {
            faults.add("games", format!("{} games are more than {}", self.games.len(), limits::GAMES_MAX));
        }
        for (i, pool) in self.pools.iter().enumerate() {
            for (field, list, known) in
                [("operators", &pool.operators, &operators), ("games", &pool.games, &games)]
            {
                for (j, name) in list.iter().enumerate() {
                    if name != "*" && !known.contains(name.as_str()) {
                        faults.add(
                            &format!("pools[{i}].{field}[{j}]"),
                            format!("nothing of the name `{name}` is listed in `{field}`"),
                        );
                    }
                }
            }
        }
    }

    fn check_rates(&self, faults: &mut Faults) {
        let mut seen = BTreeSet::new();
        for (i, rate) in self.exchange_rates.iter().enumerate() {
            for (field, code) in [("from", &rate.from), ("to", &rate.to)] {
                faults.currency(&format!("exchange_rates[{i}].{field}"), code);
            }
            faults.once(&mut seen, &format!("exchange_rates[{i}]"), &format!("{}→{}", rate.from, rate.to));
        }
    }

    fn check_pools(&self, faults: &mut Faults) {
        let mut seen = BTreeSet::new();
        for (i, pool) in self.pools.iter().enumerate() {
            let at = format!("pools[{i}]");
            faults.name(&mut seen, &format!("{at}.pool"), &pool.pool);
            faults.currency(&format!("{at}.currency"), &pool.currency);
            if pool.max_wager.is_some_and(|max| max < pool.min_wager) {
                faults.add(&format!("{at}.min_wager"), "is above max_wager".into());
            }
            if pool.levels.is_empty() || pool.levels.len() > limits::POOL_LEVELS_MAX {
                faults.add(
                    &format!("{at}.levels"),
                    format!("a pool has 1 to {} levels", limits::POOL_LEVELS_MAX),
                );
            }
            let mut names = BTreeSet::new();
            let mut sum = 0_u64;
            for (j, level) in pool.levels.iter().enumerate() {
                faults.name(&mut names, &format!("{at}.levels[{j}].level"), &level.level);
                if level.ceiling.is_some_and(|ceiling| ceiling < level.base) {
                    faults.add(&format!("{at}.levels[{j}].base"), "is above the ceiling".into());
                }
                sum += u64::from(level.increment_ppm.0) + u64::from(level.reserve_ppm.0);
            }
            if sum > u64::from(Ppm::ONE.0) {
                faults.add(
                    &format!("{at}.levels"),
                    format!("the rates add up to {sum} ppm, more than 1000000"),
                );
            }
        }
        let levels: usize = self.pools.iter().map(|pool| pool.levels.len()).sum();
        if levels > limits::LEVELS_MAX {
            faults.add("pools", format!("{levels} levels are more than {}", limits::LEVELS_MAX));
        }
    }
}

/// Collects faults.
struct Faults(Vec<Fault>);

impl Faults {
    fn add(&mut self, place: &str, what: String) {
        self.0.push(Fault { place: place.into(), what });
    }

    fn once(&mut self, seen: &mut BTreeSet<String>, place: &str, name: &str) {
        if !seen.insert(name.to_owned()) {
            self.add(place, format!("`{name}` is listed twice"));
        }
    }

    fn name<'a>(&mut self, seen: &mut BTreeSet<&'a str>, place: &str, name: &'a str) {
        if !names::is_identifier(name) {
            self.add(place, format!("`{name}` is no identifier: [a-z0-9][a-z0-9-]{{0,63}}"));
        }
        if !seen.insert(name) {
            self.add(place, format!("`{name}` is listed twice"));
        }
    }

    /// The id of a key. A secret that stands in its place is not told on.
    fn key(&mut self, seen: &mut BTreeSet<String>, place: &str, id: &str) {
        if id.starts_with("whsec_") {
            self.add(
                place,
                "is a secret; name the key's id here, and keep the secret in the key file".into(),
            );
            return;
        }
        if !names::is_token(id, 64) || id.starts_with('#') {
            let form = "1 to 64 printable ASCII characters without space, the first no `#`";
            self.add(place, format!("`{id}` is no key id: {form}"));
        }
        self.once(seen, place, id);
    }

    fn jurisdiction(&mut self, place: &str, code: &str) {
        if !names::is_jurisdiction(code) {
            self.add(place, format!("`{code}` is neither an ISO 3166-1 alpha-2 nor a 3166-2 code"));
        }
    }

    fn currency(&mut self, place: &str, code: &str) {
        if !names::is_currency(code) {
            self.add(place, format!("`{code}` is no active ISO 4217 currency"));
        }
    }
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
