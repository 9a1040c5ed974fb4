//! Finds everything that is wrong with a document of terms at once, each fault with its place (contract, section 4).
//! [`super::Terms::parse`] calls it on every document that comes from outside. All rules are here, of form and of
//! meaning, so that no fault hides another: whatever cannot be read is told and left out, and the rest is judged.
//! What is stored was judged when it was applied and does not come by here again.

mod findings;
mod near;

use std::collections::BTreeSet;

use self::findings::{Fields, Findings, Spot};
use super::{Fault, SCHEMA};
use crate::limits;
use crate::money::{Micro, Ppm, Rate};

/// The fields of an object: those that must be there, and those that may.
struct Shape {
    required: &'static [&'static str],
    optional: &'static [&'static str],
}

const TERMS: Shape = Shape {
    required: &["schema", "revision"],
    optional: &[
        "rules",
        "jurisdictions",
        "operators",
        "sources",
        "games",
        "exchange_rates",
        "pools",
        "author",
        "authorizer",
        "reason",
    ],
};
const JURISDICTION: Shape = Shape { required: &["code", "status"], optional: &["location_max_age_s"] };
const OPERATOR: Shape = Shape { required: &["operator", "jurisdictions"], optional: &[] };
const SOURCE: Shape = Shape { required: &["source", "operator"], optional: &["keys", "sequence_from"] };
const GAME: Shape = Shape { required: &["game", "supplier"], optional: &[] };
const EXCHANGE_RATE: Shape = Shape { required: &["from", "to", "rate"], optional: &[] };
const POOL: Shape = Shape {
    required: &["pool", "currency", "jurisdictions", "levels"],
    optional: &["operators", "games", "funds", "requires_opt_in", "min_wager", "max_wager"],
};
const LEVEL: Shape =
    Shape { required: &["level", "base", "increment_ppm"], optional: &["ceiling", "reserve_ppm"] };

/// A whole number of this contract reaches so far: 2⁶³−1.
const WHOLE_MAX: u64 = i64::MAX.unsigned_abs();

/// The names that a list of the document gives, and that others may refer to.
type Names<'a> = BTreeSet<&'a str>;

/// All faults of a document, in the order in which they stand in it.
pub fn faults(document: &[u8]) -> Vec<Fault> {
    let mut findings = Findings::default();
    match super::tree::parse(document) {
        Ok(node) => terms(&mut findings, &Spot::whole(&node)),
        Err(flaw) => findings.no_json(flaw),
    }
    findings.finish(document)
}

fn terms(findings: &mut Findings, document: &Spot<'_>) {
    let Some(fields) = findings.object(document, &TERMS) else { return };
    if let Some(spot) = fields.get("schema")
        && findings.text(&spot).is_some_and(|schema| schema != SCHEMA)
    {
        findings.add(&spot, format!("must be \"{SCHEMA}\""));
    }
    if let Some(spot) = fields.get("revision") {
        findings.whole(&spot, 1, WHOLE_MAX);
    }
    if let Some(spot) = fields.get("rules") {
        findings.rules(&spot);
    }
    for name in ["author", "authorizer", "reason"] {
        if let Some(spot) = fields.get(name) {
            findings.text(&spot);
        }
    }
    jurisdictions(findings, &fields);
    let operators = operators(findings, &fields);
    let games = games(findings, &fields);
    sources(findings, &fields, operators.as_ref());
    exchange_rates(findings, &fields);
    pools(findings, &fields, operators.as_ref(), games.as_ref());
}

fn jurisdictions(findings: &mut Findings, fields: &Fields<'_>) {
    let mut seen = Names::new();
    for item in findings.items(fields, "jurisdictions").unwrap_or_default() {
        let Some(rule) = findings.object(&item, &JURISDICTION) else { continue };
        if let Some(spot) = rule.get("code") {
            findings.jurisdiction(&spot, &mut seen);
        }
        if let Some(spot) = rule.get("status") {
            findings.one_of(&spot, &["permitted", "blocked"]);
        }
        if let Some(spot) = rule.get("location_max_age_s") {
            findings.whole(&spot, 0, WHOLE_MAX);
        }
    }
}

/// Judges the operators and gives their names; `None` where there is no list to have names from.
fn operators<'a>(findings: &mut Findings, fields: &Fields<'a>) -> Option<Names<'a>> {
    let (mut names, mut pairs) = (Names::new(), 0);
    for item in findings.items(fields, "operators")? {
        let Some(operator) = findings.object(&item, &OPERATOR) else { continue };
        if let Some(spot) = operator.get("operator") {
            findings.name(&spot, &mut names);
        }
        pairs += listed_jurisdictions(findings, &operator);
    }
    if pairs > limits::OPERATOR_JURISDICTIONS_MAX
        && let Some(spot) = fields.get("operators")
    {
        let max = limits::OPERATOR_JURISDICTIONS_MAX;
        findings.add(&spot, format!("{pairs} pairs of operator and jurisdiction are more than {max}"));
    }
    Some(names)
}

/// Judges the jurisdictions that an operator or a pool lists, and says how many they are.
fn listed_jurisdictions(findings: &mut Findings, owner: &Fields<'_>) -> usize {
    let mut seen = Names::new();
    let items = findings.items(owner, "jurisdictions").unwrap_or_default();
    for item in &items {
        findings.jurisdiction(item, &mut seen);
    }
    items.len()
}

fn games<'a>(findings: &mut Findings, fields: &Fields<'a>) -> Option<Names<'a>> {
    let mut names = Names::new();
    let items = findings.items(fields, "games")?;
    for item in &items {
        let Some(game) = findings.object(item, &GAME) else { continue };
        if let Some(spot) = game.get("game") {
            findings.name(&spot, &mut names);
        }
        if let Some(spot) = game.get("supplier") {
            findings.text(&spot);
        }
    }
    if items.len() > limits::GAMES_MAX
        && let Some(spot) = fields.get("games")
    {
        findings.add(&spot, format!("{} games are more than {}", items.len(), limits::GAMES_MAX));
    }
    Some(names)
}

fn sources(findings: &mut Findings, fields: &Fields<'_>, operators: Option<&Names<'_>>) {
    let mut names = Names::new();
    for item in findings.items(fields, "sources").unwrap_or_default() {
        let Some(source) = findings.object(&item, &SOURCE) else { continue };
        if let Some(spot) = source.get("source") {
            findings.name(&spot, &mut names);
        }
        if let Some(spot) = source.get("operator") {
            findings.reference(&spot, operators, "operators");
        }
        let mut keys = Names::new();
        for spot in findings.items(&source, "keys").unwrap_or_default() {
            findings.key(&spot, &mut keys);
        }
        if let Some(spot) = source.get("sequence_from") {
            findings.whole(&spot, 1, WHOLE_MAX);
        }
    }
}

fn exchange_rates(findings: &mut Findings, fields: &Fields<'_>) {
    let mut seen = BTreeSet::new();
    for item in findings.items(fields, "exchange_rates").unwrap_or_default() {
        let Some(pair) = findings.object(&item, &EXCHANGE_RATE) else { continue };
        let [from, to] = ["from", "to"].map(|name| findings.currency(&pair.get(name)?));
        if let (Some(from), Some(to)) = (from, to)
            && !seen.insert((from, to))
        {
            findings.add(&item, format!("the pair of {from} and {to} is listed twice"));
        }
        if let Some(spot) = pair.get("rate") {
            let form = "a rate is a decimal string above 0, at most \"1000000\", with at most 9 decimals";
            findings.decimal(&spot, form, Rate::parse);
        }
    }
}

fn pools(
    findings: &mut Findings,
    fields: &Fields<'_>,
    operators: Option<&Names<'_>>,
    games: Option<&Names<'_>>,
) {
    let (mut names, mut levels_in_all) = (Names::new(), 0);
    for item in findings.items(fields, "pools").unwrap_or_default() {
        let Some(pool) = findings.object(&item, &POOL) else { continue };
        if let Some(spot) = pool.get("pool") {
            findings.name(&spot, &mut names);
        }
        if let Some(spot) = pool.get("currency") {
            findings.currency(&spot);
        }
        participants(findings, &pool, "operators", operators);
        participants(findings, &pool, "games", games);
        listed_jurisdictions(findings, &pool);
        funds(findings, &pool);
        if let Some(spot) = pool.get("requires_opt_in") {
            findings.boolean(&spot);
        }
        bounds(findings, &pool);
        levels_in_all += levels(findings, &pool);
    }
    if levels_in_all > limits::LEVELS_MAX
        && let Some(spot) = fields.get("pools")
    {
        findings.add(&spot, format!("{levels_in_all} levels are more than {}", limits::LEVELS_MAX));
    }
}

/// Judges the operators or games that a pool lists by name, or by `*`.
fn participants(findings: &mut Findings, pool: &Fields<'_>, field: &str, known: Option<&Names<'_>>) {
    let mut seen = Names::new();
    for spot in findings.items(pool, field).unwrap_or_default() {
        if let Some(name) = findings.text(&spot) {
            findings.once(&spot, name, &mut seen);
            if name != "*" {
                findings.reference(&spot, known, field);
            }
        }
    }
}

fn funds(findings: &mut Findings, pool: &Fields<'_>) {
    let mut seen = Names::new();
    for spot in findings.items(pool, "funds").unwrap_or_default() {
        if let Some(funds) = findings.one_of(&spot, &["cash", "bonus", "free"]) {
            findings.once(&spot, funds, &mut seen);
        }
    }
}

/// Judges `min_wager` and `max_wager`.
fn bounds(findings: &mut Findings, pool: &Fields<'_>) {
    let [min, max] = ["min_wager", "max_wager"].map(|name| findings.amount(&pool.get(name)?));
    if let (Some(min), Some(max), Some(spot)) = (min, max, pool.get("min_wager"))
        && min > max
    {
        findings.add(&spot, "is above max_wager".into());
    }
}

/// Judges the levels of a pool, and says how many they are.
fn levels(findings: &mut Findings, pool: &Fields<'_>) -> usize {
    let Some(items) = findings.items(pool, "levels") else { return 0 };
    let (mut names, mut sum) = (Names::new(), 0);
    for item in &items {
        if let Some(fields) = findings.object(item, &LEVEL) {
            sum += level(findings, &fields, &mut names);
        }
    }
    if let Some(spot) = pool.get("levels") {
        if items.is_empty() || items.len() > limits::POOL_LEVELS_MAX {
            let max = limits::POOL_LEVELS_MAX;
            findings.add(&spot, format!("a pool has 1 to {max} levels, and this one has {}", items.len()));
        }
        if sum > u64::from(Ppm::ONE.0) {
            findings.add(&spot, format!("the rates add up to {sum} ppm, more than 1000000"));
        }
    }
    items.len()
}

/// Judges a level, and gives the sum of its rates.
fn level<'a>(findings: &mut Findings, fields: &Fields<'a>, names: &mut Names<'a>) -> u64 {
    if let Some(spot) = fields.get("level") {
        findings.name(&spot, names);
    }
    let [base, ceiling]: [Option<Micro>; 2] =
        ["base", "ceiling"].map(|name| findings.amount(&fields.get(name)?));
    if let (Some(base), Some(ceiling), Some(spot)) = (base, ceiling, fields.get("base"))
        && base > ceiling
    {
        findings.add(&spot, "is above the ceiling".into());
    }
    let rates = ["increment_ppm", "reserve_ppm"]
        .map(|name| findings.whole(&fields.get(name)?, 0, u64::from(Ppm::ONE.0)));
    rates.into_iter().flatten().sum()
}

#[cfg(test)]
mod tests;
