//! The terms as the geofence asks them: a place and an operator in, what holds there out.
//! Compiled once per revision; asked once per frame for each pair of names. Knows nothing of wagers.

use std::collections::{HashMap, HashSet};

use jackpot_core::names;
use jackpot_core::terms::{Status, Terms};

/// How old a location may be where no rule says it, in milliseconds (contract, section 3).
pub const NO_RULE_MAX_AGE_MS: i64 = 1_800_000;

/// The compiled terms. As it comes by default it knows nobody: revision 0.
#[derive(Debug, Default)]
pub struct Rules {
    revision: u64,
    /// By code.
    jurisdictions: HashMap<String, Rule>,
    /// The countries of which a rule names a subdivision.
    subdivided: HashSet<String>,
    /// By name.
    operators: HashMap<String, Territory>,
}

/// The rule of one jurisdiction.
#[derive(Debug, Clone, Copy)]
struct Rule {
    status: Status,
    age_max: i64,
}

/// Where an operator takes wagers.
#[derive(Debug)]
struct Territory {
    listed: HashSet<String>,
    /// The countries of which the list names a subdivision.
    subdivided: HashSet<String>,
}

/// What the terms say of a jurisdiction and an operator in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// How long before a wager its location may have been checked, in milliseconds.
    pub age_max: i64,
    /// Whether wagers may come from there.
    pub standing: Standing,
}

/// Whether an operator's wagers may come from a jurisdiction; of what does not permit it, the first in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is a country alone, and the rules or the operator's list name a subdivision of it.
    Subdivided,
    /// No rule is about it.
    Unruled,
    /// Its rule blocks it.
    Blocked,
    /// The operator's list does not hold it.
    Unlisted,
    /// They may.
    Open,
}

impl Rules {
    /// Takes of the terms what concerns places.
    pub fn compile(terms: &Terms) -> Self {
        let rule = |rule: &jackpot_core::terms::Jurisdiction| Rule {
            status: rule.status,
            age_max: i64::try_from(rule.location_max_age_s).unwrap_or(i64::MAX).saturating_mul(1_000),
        };
        Self {
            revision: terms.revision,
            jurisdictions: terms.jurisdictions.iter().map(|of| (of.code.clone(), rule(of))).collect(),
            subdivided: subdivided(terms.jurisdictions.iter().map(|rule| rule.code.as_str())),
            operators: terms
                .operators
                .iter()
                .map(|operator| (operator.operator.clone(), Territory::of(&operator.jurisdictions)))
                .collect(),
        }
    }

    /// The revision that was compiled.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// What holds for an operator in a jurisdiction. The rule is that of the subdivision itself, else that of its
    /// country.
    pub fn place(&self, operator: &str, code: &str) -> Place {
        let country = names::country(code);
        let rule = self.jurisdictions.get(code).or_else(|| self.jurisdictions.get(country));
        let territory = self.operators.get(operator);
        let split = self.subdivided.contains(code)
            || territory.is_some_and(|territory| territory.subdivided.contains(code));
        let standing = match rule {
            _ if split => Standing::Subdivided,
            None => Standing::Unruled,
            Some(rule) if rule.status == Status::Blocked => Standing::Blocked,
            Some(_) if territory.is_some_and(|territory| territory.holds(code, country)) => Standing::Open,
            Some(_) => Standing::Unlisted,
        };
        Place { age_max: rule.map_or(NO_RULE_MAX_AGE_MS, |rule| rule.age_max), standing }
    }
}

impl Territory {
    fn of(list: &[String]) -> Self {
        Self {
            listed: list.iter().cloned().collect(),
            subdivided: subdivided(list.iter().map(String::as_str)),
        }
    }

    /// Whether the list holds the place, itself or as a part of its country.
    fn holds(&self, code: &str, country: &str) -> bool {
        self.listed.contains(code) || self.listed.contains(country)
    }
}

/// The countries of which some code is a subdivision.
fn subdivided<'a>(codes: impl Iterator<Item = &'a str>) -> HashSet<String> {
    codes.filter(|code| names::country(code) != *code).map(|code| names::country(code).to_owned()).collect()
}
