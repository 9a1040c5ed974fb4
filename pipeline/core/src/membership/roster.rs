//! Who is there, as the stream `members` says it. The only clock is the broker's: a member is there as long as its last
//! message was received not much before the last message of all. Where nothing is received, nobody leaves.

use std::collections::BTreeMap;

use super::Said;
use crate::limits;
use crate::log::Entry;
use crate::time::Millis;

/// How long a member counts as there after its last message.
pub const EXPIRES_MS: i64 = 5_000;
/// How long the message of one that is gone is kept, for those who look at the stream.
const KEPT_MS: i64 = 60_000;

/// The members of a stage.
#[derive(Debug, Clone, Default)]
pub struct Roster {
    members: BTreeMap<String, Seen>,
    last: u64,
    at: Millis,
}

#[derive(Debug, Clone)]
struct Seen {
    sequence: u64,
    at: Millis,
    said: Said,
}

impl Roster {
    /// Takes in the next message of the stage. Gives who said it, where it can be read.
    pub fn hear(&mut self, entry: &Entry) -> Option<(&str, &Said)> {
        (self.last, self.at) = (entry.sequence, entry.recorded_at);
        let id = entry.subject.rsplit('.').next()?;
        let said: Said = serde_json::from_slice(&entry.payload).ok()?;
        let known = self.members.contains_key(id);
        if !known && self.members.len() >= limits::MEMBERS_REMEMBERED {
            let longest = self.members.iter().min_by_key(|(_, seen)| seen.sequence)?.0.clone();
            self.members.remove(&longest);
        }
        let seen = Seen { sequence: entry.sequence, at: entry.recorded_at, said };
        self.members.insert(id.to_owned(), seen);
        self.members.get_key_value(id).map(|(id, seen)| (id.as_str(), &seen.said))
    }

    /// The last message that was taken in.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Those among whom the partitions are divided: who is there, and not about to end.
    pub fn candidates(&self) -> BTreeMap<&str, &Said> {
        let there = self.members.iter().filter(|(_, seen)| self.silence(seen) <= EXPIRES_MS);
        there.filter(|(_, seen)| !seen.said.leaving).map(|(id, seen)| (id.as_str(), &seen.said)).collect()
    }

    /// When a partition was last taken by anybody but this member, there or not.
    pub fn latest(&self, except: &str, partition: u16) -> Option<u64> {
        let others = self.members.iter().filter(|(id, _)| *id != except);
        others.filter_map(|(_, seen)| Some(seen.said.holds.get(&partition)?.since)).max()
    }

    /// What a member said last, whether or not it is there.
    pub fn said(&self, id: &str) -> Option<&Said> {
        self.members.get(id).map(|seen| &seen.said)
    }

    /// The first message that is still wanted, where there are others before it.
    pub fn outdated(&self) -> Option<u64> {
        let (old, kept): (Vec<&Seen>, Vec<&Seen>) =
            self.members.values().partition(|seen| self.silence(seen) > KEPT_MS);
        let first = kept.iter().map(|seen| seen.sequence).min()?;
        old.iter().any(|seen| seen.sequence < first).then_some(first)
    }

    /// Forgets who was last heard before this message: it is being removed.
    pub fn forget_before(&mut self, first: u64) {
        self.members.retain(|_, seen| seen.sequence >= first);
    }

    /// How long a member had said nothing when the last message came. A clock that was set back may not keep anybody
    /// there for longer.
    fn silence(&self, seen: &Seen) -> i64 {
        self.at.0.saturating_sub(seen.at.0).saturating_abs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(sequence: u64, id: &str, at: i64, payload: &'static str) -> Entry {
        let (recorded_at, headers) = (Millis(at), Vec::new());
        let subject = format!("members.audit.{id}").into();
        Entry { sequence, subject, recorded_at, headers, payload: payload.into() }
    }

    #[test]
    fn a_member_is_there_for_five_seconds_of_the_brokers_time() {
        let mut roster = Roster::default();
        let mut hear = |sequence, id, at, expect: &[&str]| {
            roster.hear(&entry(sequence, id, at, r#"{"born":1}"#));
            assert_eq!(roster.candidates().into_keys().collect::<Vec<_>>(), expect, "{at}");
        };
        hear(1, "a", 1_000, &["a"]);
        hear(2, "b", 6_000, &["a", "b"]);
        hear(3, "b", 6_001, &["b"]);
        hear(4, "a", 6_002, &["a", "b"]);
        // The broker's clock is set back by an hour.
        hear(5, "b", 6_002 - 3_600_000, &["b"]);
        hear(6, "a", 6_003 - 3_600_000, &["a", "b"]);
    }

    #[test]
    fn who_ends_is_no_candidate_and_what_cannot_be_read_is_nobody() {
        let mut roster = Roster::default();
        assert!(roster.hear(&entry(1, "a", 0, r#"{"born":1,"leaving":true}"#)).is_some());
        assert!(roster.hear(&entry(2, "b", 0, "what?")).is_none());
        assert!(roster.candidates().is_empty());
        assert!(roster.said("a").is_some() && roster.said("b").is_none());
    }

    #[test]
    fn what_is_outdated_is_before_everything_that_is_not() {
        let mut roster = Roster::default();
        let said = r#"{"born":1}"#;
        for (sequence, id, at) in [(1, "a", 0), (2, "b", 0), (5, "c", 50_000), (9, "d", 60_001)] {
            assert_eq!(roster.outdated(), None);
            roster.hear(&entry(sequence, id, at, said));
        }
        assert_eq!(roster.outdated(), Some(5));
        roster.forget_before(5);
        assert_eq!(roster.outdated(), None);
        assert!(roster.said("a").is_none() && roster.said("c").is_some());
    }

    #[test]
    fn no_more_are_remembered_than_must_be() {
        let mut roster = Roster::default();
        let many = u64::try_from(limits::MEMBERS_REMEMBERED).expect("a small number") + 3;
        for sequence in 1..=many {
            roster.hear(&entry(sequence, &format!("m{sequence}"), 0, r#"{"born":1}"#));
        }
        assert_eq!(roster.candidates().len(), limits::MEMBERS_REMEMBERED);
        assert!(roster.said("m3").is_none() && roster.said("m4").is_some());
    }
}
