//! Batches: the numbers of a source in order, and all that goes wrong with them.

use std::time::Duration;

use bytes::Bytes;
use jackpot_core::time::Millis;
use serde_json::{Value, json};

use super::wagers::Session;
use super::{Planned, keys};
use crate::dice::Dice;
use crate::network::EPOCH;
use crate::profile::Profile;

/// What each source of the last revision publishes, in order.
pub fn draw(dice: &mut Dice, profile: &Profile, revisions: &[(Duration, Value)]) -> Vec<Vec<Planned>> {
    let terms = &revisions.last().expect("there is a first revision").1;
    let sources = terms["sources"].as_array().expect("terms have sources");
    let levels = levels(terms);
    let each = profile.batches / sources.len();
    sources
        .iter()
        .map(|source| Line::new(dice, source, &levels, revisions).publish(dice, profile, each))
        .collect()
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
    revisions: &'a [(Duration, Value)],
    sessions: Vec<Session>,
    sequence: u64,
    /// The `sequence_from` that it followed last.
    followed: Option<u64>,
}

impl<'a> Line<'a> {
    fn new(
        dice: &mut Dice,
        source: &'a Value,
        levels: &'a [(String, String)],
        revisions: &'a [(Duration, Value)],
    ) -> Self {
        let name = |field: &str| source[field].as_str().expect("a name is text");
        let (operator, source) = (name("operator"), name("source"));
        let sessions = (0..dice.between(1, 6))
            .map(|number| Session::draw(dice, operator, usize::try_from(number).expect("a small number")));
        let sessions = sessions.collect();
        let sequence = dice.between(1, 3_000);
        Self { operator, source, levels, revisions, sessions, sequence, followed: None }
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
            let entry = self.entry(dice, at_ms);
            self.follow(dice, entry);
            let batch = self.batch(dice, at_ms);
            let plan = self.plan(dice, at_ms, entry, &batch);
            match dice.below(24) {
                0 => planned.extend([plan.clone(), plan]),
                1 => {
                    let mut other = batch.clone();
                    other["wagers"][0] = json!("another wager");
                    planned.extend([plan, self.plan(dice, at_ms, entry, &other)]);
                }
                2 if held.is_none() => held = Some(plan),
                // Never told: a gap.
                3 => {}
                4 => {
                    let spoilt = self.spoilt(dice, batch);
                    planned.extend([self.plan(dice, at_ms, entry, &spoilt), plan]);
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

    /// What the terms say of this source when a batch is made; the supplier may know of them too early or too late.
    fn entry(&self, dice: &mut Dice, at_ms: u64) -> &'a Value {
        static NONE: Value = Value::Null;
        let known_ms = (at_ms + dice.pick(&[3_000, 3_000, 3_000, 0, 6_000])).saturating_sub(3_000);
        let known = |(at, _): &&(Duration, Value)| *at <= Duration::from_millis(known_ms);
        let terms = self.revisions.iter().rfind(known).map_or(&self.revisions[0].1, |(_, terms)| terms);
        let sources = terms["sources"].as_array().expect("terms have sources");
        sources.iter().find(|entry| entry["source"] == self.source).unwrap_or(&NONE)
    }

    /// Goes on from where the terms say that its numbers start anew.
    fn follow(&mut self, dice: &mut Dice, entry: &Value) {
        if let Some(from) = entry["sequence_from"].as_u64().filter(|&from| self.followed != Some(from)) {
            self.followed = Some(from);
            self.sequence = (from + dice.pick(&[0, 0, 0, 1, 3, 1_100])).saturating_sub(1);
        }
    }

    /// The batch as one that is refused whole.
    fn spoilt(&self, dice: &mut Dice, mut batch: Value) -> Value {
        match dice.below(11) {
            // A text alone: it is published as it stands.
            0 => return "no JSON".into(),
            1 => return json!([1, 2]),
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
        batch
    }

    fn plan(&self, dice: &mut Dice, at_ms: u64, entry: &Value, batch: &Value) -> Planned {
        let subject = format!("wagers.{}.{}", self.operator, self.source);
        let body = batch.as_str().map_or_else(|| batch.to_string(), str::to_owned);
        let sequence = batch["sequence"].as_u64().unwrap_or(self.sequence);
        let at = EPOCH.plus(i64::try_from(at_ms).expect("a run lasts minutes"));
        let headers = keys::sign(dice, &keys::named(entry), (self.source, sequence), at, body.as_bytes());
        Planned { at: Duration::from_millis(at_ms), subject, headers, body: Bytes::from(body) }
    }
}
