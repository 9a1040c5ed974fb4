//! What a new revision would change, and when each change may take effect (contract, section 4).
//! Regulators hold what would alter a running jackpot until it has been won (GLI-19, 2.4.2): increment and reserve
//! rates, and a ceiling below the present amount. `jackpot terms plan` prints it, `apply` goes by it; the ledger
//! decides for itself, when it takes the revision up.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

use crate::money::Pico;
use crate::terms::Terms;

/// When a change takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// With the revision.
    Immediate,
    /// At the level's next hit.
    OnNextHit,
    /// Never: the revision cannot be applied.
    Refused,
}

/// One difference between two revisions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Where: `pools.mega.levels.grand.increment_ppm`.
    pub place: String,
    /// When it takes effect.
    pub class: Class,
    /// What it is and why it is of that class, in a sentence.
    pub reason: String,
    /// The value before; null where there was none.
    pub before: Value,
    /// The value after; null where there is none.
    pub after: Value,
}

/// All changes from the revision applied last to a new one, sorted by their places, a change of number or order first.
/// `current` gives a level's present amount, where it is known; before anything was known it is the level's base.
/// Where nothing was applied yet ([`Terms::none`]) the new one may have any number.
pub fn plan(before: &Terms, after: &Terms, current: impl Fn(&str, &str) -> Option<Pico>) -> Vec<Change> {
    let mut changes = Vec::new();
    if before == after {
        return changes;
    }
    let current = |pool: &str, level: &str| current(pool, level).or_else(|| base(before, pool, level));
    if before.revision != 0 && after.revision != before.revision + 1 {
        changes.push(Change {
            place: "revision".into(),
            class: Class::Refused,
            reason: format!(
                "revision {} was applied last, so the next one is {}",
                before.revision,
                before.revision + 1
            ),
            before: before.revision.into(),
            after: after.revision.into(),
        });
    }
    let (old, new) = (by_name(document(before)), by_name(document(after)));
    if is_reordered(&order(before), &order(after)) {
        changes.push(Change {
            place: "pools".into(),
            class: Class::Immediate,
            reason: "their order changes, and with it which eight a wager joins that fits more".into(),
            before: order(before).into(),
            after: order(after).into(),
        });
    }
    walk(&mut Vec::new(), &old, &new, &mut |place, before, after| {
        let (class, reason) = classify(place, before, after, &current);
        changes.push(Change {
            place: place.join("."),
            class,
            reason,
            before: before.clone(),
            after: after.clone(),
        });
    });
    changes
}

fn base(terms: &Terms, pool: &str, level: &str) -> Option<Pico> {
    let pool = terms.pools.iter().find(|known| known.pool == pool)?;
    pool.levels.iter().find(|known| known.level == level).map(|level| level.base)
}

fn order(terms: &Terms) -> Vec<&str> {
    terms.pools.iter().map(|pool| pool.pool.as_str()).collect()
}

/// Whether names that both lists have stand in another order.
fn is_reordered(before: &[&str], after: &[&str]) -> bool {
    let kept = before.iter().filter(|name| after.contains(name));
    !kept.eq(after.iter().filter(|name| before.contains(name)))
}

fn document(terms: &Terms) -> Value {
    let mut document = serde_json::to_value(terms).expect("terms are plain data");
    if let Some(fields) = document.as_object_mut() {
        fields.remove("revision");
        fields.insert("rules".into(), terms.rules.into());
    }
    document
}

/// Lists of named things become objects by their names, so that their order alone is no difference.
fn by_name(value: Value) -> Value {
    match value {
        Value::Array(items) if items.iter().all(Value::is_object) => {
            Value::Object(items.into_iter().map(|item| (own_name(&item), by_name(item))).collect())
        }
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(name, value)| (name, by_name(value))).collect())
        }
        other => other,
    }
}

/// The name of a thing in its list. A source also names its operator, so `source` is looked for first.
fn own_name(item: &Value) -> String {
    const NAMES: [&str; 6] = ["code", "source", "operator", "game", "pool", "level"];
    match (&item["from"], &item["to"]) {
        (Value::String(from), Value::String(to)) => format!("{from}→{to}"),
        _ => NAMES.iter().find_map(|name| item[*name].as_str()).unwrap_or_default().to_owned(),
    }
}

/// Calls `found` for each place where two documents differ; what is new or gone is one difference.
fn walk<'a>(
    place: &mut Vec<&'a str>,
    before: &'a Value,
    after: &'a Value,
    found: &mut impl FnMut(&[&str], &Value, &Value),
) {
    match (before, after) {
        _ if before == after => {}
        (Value::Object(old), Value::Object(new)) => {
            let names: BTreeSet<&str> = old.keys().chain(new.keys()).map(String::as_str).collect();
            for name in names {
                place.push(name);
                walk(place, &before[name], &after[name], found);
                place.pop();
            }
        }
        _ => found(place, before, after),
    }
}

fn classify(
    place: &[&str],
    before: &Value,
    after: &Value,
    current: &impl Fn(&str, &str) -> Option<Pico>,
) -> (Class, String) {
    let refused = |why: &str| (Class::Refused, why.to_owned());
    match *place {
        ["rules"] if after.as_u64() < before.as_u64() => refused(
            "rules never go back, since what stages remember was made by the later ones; what is wrong with those, newer \
             ones mend",
        ),
        ["rules"] => (
            Class::Immediate,
            format!(
                "frames behind the revision's marker are made by rules {after}: every process must know them"
            ),
        ),
        ["pools", _] if after.is_null() => refused(
            "a pool cannot be removed: its money belongs to the players; keep it, or close it to wagers",
        ),
        ["pools", _, "levels", _] if after.is_null() => {
            refused("a level cannot be removed: its money belongs to the players; keep it, with rates of 0")
        }
        ["pools", _, "currency"] => refused("a pool keeps its currency for ever; open another pool"),
        ["pools", _, "levels", _, "increment_ppm" | "reserve_ppm"] => (
            Class::OnNextHit,
            "a rate of a running jackpot is held until it has been won (GLI-19, 2.4.2)".into(),
        ),
        ["pools", pool, "levels", level, "ceiling"] => ceiling(current(pool, level), after),
        ["pools", pool] if before.is_null() => {
            (Class::Immediate, format!("the pool {pool} opens; the house pays the bases of its levels"))
        }
        ["pools", _, "levels", level] if before.is_null() => {
            (Class::Immediate, format!("the level {level} opens at its base, which the house pays"))
        }
        ["pools", _, "levels", _, "base"] => (Class::Immediate, "a base acts at the next refill".into()),
        _ => (Class::Immediate, "holds for every wager behind the revision's marker".into()),
    }
}

fn ceiling(current: Option<Pico>, after: &Value) -> (Class, String) {
    let ceiling = after.as_str().and_then(|text| Pico::parse(text).ok());
    match (ceiling, current) {
        (Some(ceiling), Some(current)) if ceiling < current => (
            Class::OnNextHit,
            format!(
                "it lies below the {current} that the level stands at, and is held until that has been won"
            ),
        ),
        (Some(_), Some(current)) => {
            (Class::Immediate, format!("it does not lie below the {current} that the level stands at"))
        }
        (Some(_), None) => (Class::Immediate, "the level is new".into()),
        (None, _) => (Class::Immediate, "the level may grow without a ceiling".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: &str = r#"{"schema": "terms/1", "revision": 7,
        "jurisdictions": [{"code": "MT", "status": "permitted"}],
        "operators": [{"operator": "acme", "jurisdictions": ["MT"]}],
        "sources": [{"source": "acme-1", "operator": "acme"}],
        "games": [{"game": "spin", "supplier": "s"}],
        "exchange_rates": [{"from": "GBP", "to": "EUR", "rate": "1.2"}],
        "pools": [{"pool": "mega", "currency": "EUR", "jurisdictions": ["MT"],
            "levels": [{"level": "grand", "base": "100", "ceiling": "900", "increment_ppm": 3000}]}]}"#;

    /// Applies each replacement of text to the terms; the level stands at 500.
    fn check(replace: &[(&str, &str)], expect: &[(&str, Class)]) {
        let before = Terms::parse(TERMS.as_bytes()).expect("they have no faults");
        let mut text = TERMS.replace("\"revision\": 7", "\"revision\": 8");
        for (old, new) in replace {
            assert!(text.contains(old), "{old}");
            text = text.replace(old, new);
        }
        let after = Terms::parse(text.as_bytes()).unwrap_or_else(|faults| panic!("{faults:?}"));
        let changes = plan(&before, &after, |_, _| Some(Pico::parse("500").expect("an amount")));
        let got: Vec<_> = changes.iter().map(|change| (change.place.as_str(), change.class)).collect();
        assert_eq!(got, expect, "{replace:?}");
    }

    #[test]
    fn changes_have_their_class() {
        use Class::{Immediate, OnNextHit, Refused};
        check(&[], &[]);
        check(&[("\"revision\": 8", "\"revision\": 9")], &[("revision", Refused)]);
        check(&[("3000", "2000")], &[("pools.mega.levels.grand.increment_ppm", OnNextHit)]);
        check(
            &[("\"increment_ppm\": 3000", "\"increment_ppm\": 3000, \"reserve_ppm\": 1")],
            &[("pools.mega.levels.grand.reserve_ppm", OnNextHit)],
        );
        check(&[("\"900\"", "\"499\"")], &[("pools.mega.levels.grand.ceiling", OnNextHit)]);
        check(&[("\"900\"", "\"500\"")], &[("pools.mega.levels.grand.ceiling", Immediate)]);
        check(&[("\"ceiling\": \"900\", ", "")], &[("pools.mega.levels.grand.ceiling", Immediate)]);
        check(&[("\"base\": \"100\"", "\"base\": \"50\"")], &[("pools.mega.levels.grand.base", Immediate)]);
        check(&[("\"1.2\"", "\"1.3\"")], &[("exchange_rates.GBP→EUR.rate", Immediate)]);
        check(&[("\"currency\": \"EUR\"", "\"currency\": \"SEK\"")], &[("pools.mega.currency", Refused)]);
        check(
            &[("\"pool\": \"mega\"", "\"pool\": \"giga\"")],
            &[("pools.giga", Immediate), ("pools.mega", Refused)],
        );
        check(
            &[("\"level\": \"grand\"", "\"level\": \"minor\"")],
            &[("pools.mega.levels.grand", Refused), ("pools.mega.levels.minor", Immediate)],
        );
        check(
            &[("\"acme-1\"", "\"acme-2\"")],
            &[("sources.acme-1", Immediate), ("sources.acme-2", Immediate)],
        );
        check(
            &[("\"status\": \"permitted\"", "\"status\": \"blocked\"")],
            &[("jurisdictions.MT.status", Immediate)],
        );
    }

    #[test]
    fn rules_only_go_on() {
        let before = Terms::parse(TERMS.as_bytes()).expect("they have no faults");
        let check = |from: u16, to: u16, expect: &[(&str, Class)]| {
            let (before, after) =
                (Terms { rules: from, ..before.clone() }, Terms { rules: to, revision: 8, ..before.clone() });
            let changes = plan(&before, &after, |_, _| None);
            let got: Vec<_> = changes.iter().map(|change| (change.place.as_str(), change.class)).collect();
            assert_eq!(got, expect, "{from} to {to}");
            assert!(changes.iter().all(|change| change.before == from && change.after == to), "{changes:?}");
        };
        check(1, 1, &[]);
        check(2, 2, &[]);
        check(1, 2, &[("rules", Class::Immediate)]);
        check(1, 4, &[("rules", Class::Immediate)]);
        check(2, 1, &[("rules", Class::Refused)]);
    }

    #[test]
    fn a_level_that_nobody_saw_yet_stands_at_its_base() {
        let before = Terms::parse(TERMS.as_bytes()).expect("they have no faults");
        let text = TERMS.replace("\"revision\": 7", "\"revision\": 8").replace("\"100\"", "\"50\"");
        let check = |ceiling: &str, expect: Class| {
            let text = text.replace("\"900\"", ceiling);
            let after = Terms::parse(text.as_bytes()).unwrap_or_else(|faults| panic!("{faults:?}"));
            let changes = plan(&before, &after, |_, _| None);
            let got: Vec<_> = changes.iter().map(|change| (change.place.as_str(), change.class)).collect();
            let base = ("pools.mega.levels.grand.base", Class::Immediate);
            assert_eq!(got, [base, ("pools.mega.levels.grand.ceiling", expect)]);
        };
        check("\"99.999999\"", Class::OnNextHit);
        check("\"100\"", Class::Immediate);
    }

    #[test]
    fn the_first_may_have_any_number_and_everything_is_new() {
        let first = Terms::parse(TERMS.as_bytes()).expect("they have no faults");
        let changes = plan(&Terms::none(), &first, |_, _| None);
        let got: Vec<_> = changes.iter().map(|change| change.place.as_str()).collect();
        let new = [
            "exchange_rates.GBP→EUR",
            "games.spin",
            "jurisdictions.MT",
            "operators.acme",
            "pools.mega",
            "sources.acme-1",
        ];
        assert_eq!(got, new);
        assert!(changes.iter().all(|change| change.class == Class::Immediate && change.before.is_null()));
    }

    #[test]
    fn a_number_that_is_not_the_next_one_is_refused_with_what_else_changes() {
        let before = Terms::parse(TERMS.as_bytes()).expect("they have no faults");
        for number in [1, 6, 9, 70] {
            let after = Terms { revision: number, pools: Vec::new(), ..before.clone() };
            let changes = plan(&before, &after, |_, _| None);
            let got: Vec<_> = changes.iter().map(|change| (change.place.as_str(), change.class)).collect();
            assert_eq!(got, [("revision", Class::Refused), ("pools.mega", Class::Refused)]);
            assert!(changes[0].reason.ends_with("the next one is 8"), "{}", changes[0].reason);
        }
    }

    #[test]
    fn the_same_document_changes_nothing() {
        let terms = Terms::parse(TERMS.as_bytes()).expect("they have no faults");
        assert_eq!(plan(&terms, &terms, |_, _| None), []);
    }
}
