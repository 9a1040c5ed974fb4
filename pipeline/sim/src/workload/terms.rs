//! Revisions of the terms: a few pools over a few operators, and changes of every kind that may be applied.

use std::time::Duration;

use serde_json::{Value, json};

use crate::dice::Dice;
use crate::profile::Profile;

/// Names of sources, with their operators. The first ones are used.
const SOURCES: [(&str, &str); 8] = [
    ("acme-spin-eu1", "acme"),
    ("silver-nv1", "silverstate"),
    ("fjord-se1", "fjordbet"),
    ("acme-table-eu2", "acme"),
    ("silver-nj2", "silverstate"),
    ("fjord-mt2", "fjordbet"),
    ("acme-mobile-uk1", "acme"),
    ("silver-kiosk-3", "silverstate"),
];

/// The revisions, each with the time after which it is applied.
pub fn draw(dice: &mut Dice, profile: &Profile) -> Vec<(Duration, Value)> {
    let mut terms = first(dice, profile.sources);
    let busy_ms = u64::try_from(profile.busy.as_millis()).expect("a run lasts minutes");
    let mut revisions = vec![(Duration::from_millis(dice.below(1_500)), terms.clone())];
    for revision in 2..=profile.revisions {
        terms["revision"] = revision.into();
        for _ in 0..dice.between(1, 3) {
            change(dice, &mut terms, revision);
        }
        revisions.push((Duration::from_millis(dice.below(busy_ms)), terms.clone()));
    }
    let mut times: Vec<_> = revisions.iter().map(|(at, _)| *at).collect();
    times[1..].sort_unstable();
    for (revision, at) in revisions.iter_mut().zip(times) {
        revision.0 = at;
    }
    revisions
}

fn first(dice: &mut Dice, sources: usize) -> Value {
    let offset = dice.place(SOURCES.len());
    let sources: Vec<_> = (0..sources)
        .map(|place| SOURCES[(offset + place) % SOURCES.len()])
        .map(|(source, operator)| self::source(dice, source, operator))
        .collect();
    let mut pools = vec![json!({
        "pool": "mega", "currency": "EUR", "jurisdictions": ["MT", "GB", "SE", "DE", "US-NV"],
        "funds": ["cash", "bonus"], "min_wager": "0.10", "max_wager": "40",
        "levels": [level(dice, "grand"), level(dice, "minor")],
    })];
    if dice.below(2) == 0 {
        pools.push(json!({
            "pool": "desert", "currency": "USD", "operators": ["silverstate"], "games": ["quick-spin", "neon-mile"],
            "jurisdictions": ["US-NV", "US-NJ"], "levels": [level(dice, "jackpot")],
        }));
    }
    if dice.below(3) == 0 {
        pools.push(json!({
            "pool": "koi", "currency": "JPY", "jurisdictions": ["MT", "US-NJ", "SE"], "requires_opt_in": true,
            "min_wager": "1", "levels": [level(dice, "gold"), level(dice, "white"), level(dice, "red")],
        }));
    }
    json!({
        "schema": "terms/1", "revision": 1,
        "jurisdictions": [
            { "code": "MT", "status": "permitted" }, { "code": "GB", "status": "permitted" },
            { "code": "SE", "status": "permitted", "location_max_age_s": 60 },
            { "code": "DE", "status": "permitted" }, { "code": "US-NV", "status": "permitted" },
            { "code": "US-NJ", "status": "permitted" }, { "code": "US-UT", "status": "blocked" },
        ],
        "operators": [
            { "operator": "acme", "jurisdictions": ["MT", "GB", "DE"] },
            { "operator": "fjordbet", "jurisdictions": ["SE", "MT"] },
            { "operator": "silverstate", "jurisdictions": ["US-NV", "US-NJ", "US-UT"] },
        ],
        "sources": sources,
        "games": [
            { "game": "quick-spin", "supplier": "northlight" }, { "game": "tides", "supplier": "northlight" },
            { "game": "neon-mile", "supplier": "desertbyte" },
        ],
        "exchange_rates": [
            { "from": "GBP", "to": "EUR", "rate": "1.17647" }, { "from": "SEK", "to": "EUR", "rate": "0.0892857" },
            { "from": "USD", "to": "EUR", "rate": "0.921659" }, { "from": "EUR", "to": "JPY", "rate": "169.5" },
            { "from": "USD", "to": "JPY", "rate": "156.25" },
        ],
        "pools": pools,
    })
}

/// A source as it begins: few sign, few have a declared start.
fn source(dice: &mut Dice, source: &str, operator: &str) -> Value {
    let mut new = json!({ "source": source, "operator": operator });
    if dice.below(3) == 0 {
        new["keys"] = json!([format!("{source}-k1")]);
    }
    if dice.below(4) == 0 {
        new["sequence_from"] = dice.pick(&[1, 2, 700, 1_500_000]).to_owned().into();
    }
    new
}

/// A source's keys are changed as one does it: another one beside the first, the first taken away, or all.
fn rotate(dice: &mut Dice, source: &mut Value, revision: u64) {
    let mut keys = source["keys"].as_array().cloned().unwrap_or_default();
    let new = Value::from(format!("{}-k{revision}", source["source"].as_str().expect("a name")));
    match (keys.len(), dice.below(4)) {
        _ if keys.contains(&new) => return,
        (0, _) | (1, 0 | 1) => keys.push(new),
        (1, 2) => keys = vec![new],
        (_, 3) => keys.clear(),
        _ => drop(keys.remove(0)),
    }
    source["keys"] = keys.into();
}

/// A source starts anew: ahead, behind, or where it did before; or its start is said no more.
fn restart(dice: &mut Dice, source: &mut Value) {
    match dice.below(5) {
        0 => drop(source.as_object_mut().expect("a source is an object").remove("sequence_from")),
        _ => source["sequence_from"] = dice.pick(&[1, 700, 2_500, 1_500_000, 9_000_000]).to_owned().into(),
    }
}

fn level(dice: &mut Dice, name: &str) -> Value {
    let base = dice.between(1, 30);
    let mut level = json!({ "level": name, "base": base.to_string() });
    rates(dice, &mut level);
    if dice.below(2) == 0 {
        level["ceiling"] = (base + dice.below(4)).to_string().into();
    }
    level
}

fn rates(dice: &mut Dice, level: &mut Value) {
    level["increment_ppm"] = dice.between(0, 60_000).into();
    level["reserve_ppm"] = dice.pick(&[0, 1, 2_500, 20_000]).to_owned().into();
}

/// One change of those that may be applied while everything runs.
fn change(dice: &mut Dice, terms: &mut Value, revision: u64) {
    let pools = terms["pools"].as_array_mut().expect("terms have pools");
    let pool = dice.place(pools.len());
    let pool = &mut pools[pool];
    let levels = pool["levels"].as_array_mut().expect("a pool has levels");
    let place = dice.place(levels.len());
    let level = &mut levels[place];
    match dice.below(13) {
        0 | 1 => rates(dice, level),
        2 => {
            let base = dice.between(1, 30);
            level["base"] = base.to_string().into();
            if level["ceiling"].is_string() {
                level["ceiling"] = (base + dice.below(4)).to_string().into();
            }
        }
        3 => {
            let ceiling = level["base"].as_str().and_then(|base| base.parse::<u64>().ok());
            let ceiling = ceiling.expect("a base is a whole number here") + dice.below(3);
            level["ceiling"] = ceiling.to_string().into();
        }
        4 => drop(level.as_object_mut().expect("a level is an object").remove("ceiling")),
        5 if levels.len() < 6 => {
            let new = self::level(dice, &format!("new-{revision}-{}", levels.len()));
            levels.push(new);
        }
        6 => pool["max_wager"] = dice.between(2, 60).to_string().into(),
        7 => {
            let blocked = *dice.pick(&["permitted", "blocked"]);
            terms["jurisdictions"][0]["status"] = blocked.into();
        }
        8 | 9 => {
            let sources = terms["sources"].as_array_mut().expect("terms have sources");
            let place = dice.place(sources.len());
            rotate(dice, &mut sources[place], revision);
        }
        10 | 11 => {
            let sources = terms["sources"].as_array_mut().expect("terms have sources");
            let place = dice.place(sources.len());
            restart(dice, &mut sources[place]);
        }
        _ => {
            let sources = terms["sources"].as_array_mut().expect("terms have sources");
            let (source, operator) = SOURCES[dice.place(SOURCES.len())];
            if sources.iter().all(|known| known["source"] != source) {
                sources.push(self::source(dice, source, operator));
            } else if sources.len() > 1 && dice.below(2) == 0 {
                sources.retain(|known| known["source"] != source);
            }
        }
    }
}
