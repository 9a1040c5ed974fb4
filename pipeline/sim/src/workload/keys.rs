//! Keys: their secrets, how batches are signed with them and how they are not, and what an operator does to the file
//! that holds them for validate.

use std::collections::BTreeSet;
use std::time::Duration;

use jackpot_core::keys::{self, ID_HEADER, Key, SIGNATURE_HEADER, TIMESTAMP_HEADER};
use jackpot_core::time::Millis;
use serde_json::Value;

use crate::dice::Dice;
use crate::profile::Profile;

/// What is done to the key file at a time.
#[derive(Debug, Clone)]
pub struct Edit {
    /// After so long.
    pub at: Duration,
    /// The keys that it holds from then on.
    pub holds: BTreeSet<String>,
}

/// The secret of a key: its id, spelt so that it can be read as base64.
pub fn secret(id: &str) -> String {
    let digits: String = id.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("whsec_{digits:A<48}")
}

/// The ids of the keys that an entry of a source in the terms names.
pub fn named(source: &Value) -> Vec<&str> {
    source["keys"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// What happens to the key file: a key comes with the revision that names it, sooner or later; now and then one is taken
/// away for a while; and in the end all are there.
pub fn draw(dice: &mut Dice, profile: &Profile, revisions: &[(Duration, Value)]) -> Vec<Edit> {
    let busy_ms = u64::try_from(profile.busy.as_millis()).expect("a run lasts minutes");
    let mut all: BTreeSet<String> = BTreeSet::new();
    // When which key comes or goes.
    let mut changes: Vec<(Duration, bool, String)> = Vec::new();
    for (at, terms) in revisions {
        let sources = terms["sources"].as_array().expect("terms have sources");
        for key in sources.iter().flat_map(named) {
            if all.insert(key.to_owned()) {
                let late = Duration::from_millis(*dice.pick(&[0, 0, 0, 500, 4_000]));
                changes.push((at.saturating_sub(Duration::from_secs(1)) + late, true, key.to_owned()));
            }
        }
    }
    for key in &all {
        if dice.below(3) == 0 {
            let from = dice.below(busy_ms);
            let until = from + dice.between(200, 6_000);
            changes.push((Duration::from_millis(from), false, key.clone()));
            changes.push((Duration::from_millis(until), true, key.clone()));
        }
    }
    changes.sort();
    let mut holds = BTreeSet::new();
    let edits = changes.into_iter().map(|(at, comes, key)| {
        if comes {
            holds.insert(key)
        } else {
            holds.remove(&key)
        };
        Edit { at, holds: holds.clone() }
    });
    edits.collect()
}

/// The headers of a batch of a source that has these keys, signed with the last of them; seldom wrongly, or not at all.
/// A source without keys seldom signs all the same.
pub fn sign(
    dice: &mut Dice,
    keys: &[&str],
    id: (&str, u64),
    at: Millis,
    body: &[u8],
) -> Vec<(String, String)> {
    let fault = dice.below(40);
    let Some(last) = keys.last().copied().or((fault == 0).then_some("nobody")) else { return Vec::new() };
    let signed = |key: &str, id: (&str, u64), body: &[u8]| {
        let key = Key::parse(&secret(key)).expect("a secret");
        keys::headers(&key, id.0, id.1, at.0 / 1_000, body)
    };
    let change = |named: &str, to: &dyn Fn(&str) -> String| {
        let mut headers = signed(last, id, body);
        for (name, value) in &mut headers {
            if name == named {
                *value = to(value);
            }
        }
        headers
    };
    match fault {
        1 => Vec::new(),
        2 => signed("nobody", id, body),
        3 => signed(last, (id.0, id.1 + 1), body),
        4 => signed(last, id, b"another body"),
        5 => change(TIMESTAMP_HEADER, &|_| "now".into()),
        6 => change(SIGNATURE_HEADER, &|value| value.replacen("v1,", "v2,", 1)),
        7 => signed(last, id, body).into_iter().filter(|(name, _)| name != ID_HEADER).collect(),
        // Several, of which one fits: as while keys are changed.
        8 => change(SIGNATURE_HEADER, &|value| format!("v1,AAAA v1a,AAAA {value}")),
        // The first of its keys, which is perhaps the one before.
        9..=12 => signed(keys.first().copied().unwrap_or(last), id, body),
        _ => signed(last, id, body),
    }
}
