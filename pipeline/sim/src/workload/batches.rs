//! Batches: the numbers of a source in order, and all that goes wrong with them.

use std::time::Duration;

use bytes::Bytes;
use jackpot_core::time::Millis;
use serde_json::{Value, json};

use super::Planned;
use super::wagers::Session;
use crate::dice::Dice;
use crate::network::EPOCH;
use crate::profile::Profile;

/// What each source of the last revision publishes, in order.
pub fn draw(dice: &mut Dice, profile: &Profile, terms: &Value) -> Vec<Vec<Planned>> {
    let sources = terms["sources"].as_array().expect("terms have sources");
    let levels = levels(terms);
    let each = profile.batches / sources.len();
    sources.iter().map(|source| Line::new(dice, source, &levels).publish(dice, profile, each)).collect()
}

fn levels(terms: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("a name is text").to_owned();
    let of = |pool: &Value| {
        let levels = pool["levels"].as_array().expect("a pool has levels").clone();
        levels.into_iter().map(|level| (text(&pool["pool"]), text(&level["level"]))).collect::<Vec<_>>()
    };
    terms["pools"].as_array().expect("terms have pools").iter().flat_map(of).collect()
}

/// A source at work.
struct Line<'a> {
    operator: &'a str,
    source: &'a str,
    levels: &'a [(String, String)],
    sessions: Vec<Session>,
    sequence: u64,
}

impl<'a> Line<'a> {
    fn new(dice: &mut Dice, source: &'a Value, levels: &'a [(String, String)]) -> Self {
        let name = |field: &str| source[field].as_str().expect("a name is text");
        let (operator, source) = (name("operator"), name("source"));
        let sessions = (0..dice.between(1, 6))
            .map(|number| Session::draw(dice, operator, usize::try_from(number).expect("a small number")));
        let sessions = sessions.collect();
        Self { operator, source, levels, sessions, sequence: dice.between(1, 3_000) }
    }

    fn publish(mut self, dice: &mut Dice, profile: &Profile, batches: usize) -> Vec<Planned> {
        let busy_ms = u64::try_from(profile.busy.as_millis()).expect("a run lasts minutes");
        let mut times: Vec<_> = (0..batches).map(|_| dice.below(busy_ms)).collect();
        if dice.below(3) == 0 {
            // All at once, as after a night of no connection.
            times.fill(dice.below(busy_ms));
        }
        times.sort_unstable();
        let mut planned: Vec<Planned> = Vec::new();
        let mut held: Option<Planned> = None;
        for at_ms in times {
            let batch = self.batch(dice, at_ms);
            let plan = self.plan(at_ms, batch.to_string());
            match dice.below(24) {
                0 => planned.extend([plan.clone(), plan]),
                1 => {
                    let mut other = batch.clone();
                    other["wagers"][0] = json!("another wager");
                    planned.extend([plan, self.plan(at_ms, other.to_string())]);
                }
                2 if held.is_none() => held = Some(plan),
                // Never told: a gap.
                3 => {}
                4 => {
                    let spoilt = self.spoilt(dice, batch);
                    planned.extend([self.plan(at_ms, spoilt), plan]);
                }
                5 if !planned.is_empty() => {
                    let again = Planned { at: plan.at, ..dice.pick(&planned).clone() };
                    planned.extend([plan, again]);
                }
                6 => {
                    let subject =
                        format!("wagers.{}.{}", self.operator, dice.pick(&["nobody", "acme-spin-eu1"]));
                    planned.push(Planned { subject, ..plan.clone() });
                    planned.push(plan);
                }
                _ => planned.push(plan),
            }
            if dice.below(6) == 0
                && let Some(late) = held.take()
            {
                planned.push(Planned { at: Duration::from_millis(at_ms), ..late });
            }
        }
        planned.extend(held);
        planned
    }

    fn batch(&mut self, dice: &mut Dice, at_ms: u64) -> Value {
        self.sequence += match dice.below(60) {
            0 => dice.between(2, 5),
            1 => dice.between(1_000, 1_050),
            _ => 1,
        };
        let count = if dice.below(40) == 0 { dice.between(60, 300) } else { dice.between(1, 10) };
        let at = EPOCH.plus(i64::try_from(at_ms).expect("a run lasts minutes"));
        let wagers: Vec<_> = (0..count)
            .map(|_| {
                let ago = i64::try_from(dice.below(3_000)).expect("a small number");
                let session = dice.place(self.sessions.len());
                self.sessions[session].play(dice, Millis(at.0 - ago), self.levels)
            })
            .collect();
        json!({
            "schema": "wager-batch/1", "operator": self.operator, "source": self.source, "sequence": self.sequence,
            "wagers": wagers,
        })
    }

    /// The batch as one that is refused whole.
    fn spoilt(&self, dice: &mut Dice, mut batch: Value) -> String {
        match dice.below(11) {
            0 => return "no JSON".into(),
            1 => return "[1, 2]".into(),
            2 => batch["schema"] = json!("wager-batch/2"),
            3 => batch["schema"] = Value::Null,
            4 => batch["sequence"] = json!(0),
            5 => batch["wagers"] = json!([]),
            6 => batch["operator"] = json!("nobody"),
            7 => batch["sequence"] = json!(self.sequence.saturating_sub(1_025).max(1)),
            8 => batch["sequence"] = json!("17"),
            9 => batch["sequence"] = json!(self.sequence + 1_100_000),
            _ => batch["source"] = json!("Upper Case"),
        }
        batch.to_string()
    }

    fn plan(&self, at_ms: u64, body: String) -> Planned {
        let subject = format!("wagers.{}.{}", self.operator, self.source);
        Planned { at: Duration::from_millis(at_ms), subject, body: Bytes::from(body) }
    }
}
