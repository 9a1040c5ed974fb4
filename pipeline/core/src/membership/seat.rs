//! What one process makes of what all say: which partitions it takes up and which it leaves, and what it says itself.
//! It awaits nothing and reads no clock; [`super::Sharing`] carries its orders out and tells it how they went.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::{Hold, Roster, Said, assign};
use crate::log::Entry;

/// How long a partition that stopped here is left to others, once it is theirs. Then it may come back: what was wrong
/// here has been mended perhaps, and otherwise it stops again and says so.
const LEFT_ALONE: Duration = Duration::from_secs(60);

/// A member's place among the others.
#[derive(Debug)]
pub struct Seat {
    id: String,
    born: u64,
    partitions: u16,
    roster: Roster,
    /// From which message of ours on the roster is complete; until then it decides nothing.
    complete_from: u64,
    complete: bool,
    leaving: bool,
    held: BTreeMap<u16, Held>,
    /// Partitions that stopped here and that others have: until when they are left to them.
    left: BTreeMap<u16, Instant>,
}

/// A partition that is run here.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    since: u64,
    ready: bool,
    stopped: bool,
}

/// How a partition that is run here does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is getting there, or has trouble that passes.
    Busy,
    /// It is at work, or would be if another process were not.
    Ready,
    /// It stopped until somebody looks.
    Stopped,
}

/// What is to be done with a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Run it.
    Start(u16),
    /// Finish what is in flight, and leave it.
    Stop(u16),
}

impl Seat {
    /// A member of this name, which no other process of the stage should have at the same time. `born` tells it from
    /// one that has nevertheless.
    pub fn new(id: &str, born: u64, partitions: u16) -> Self {
        Self {
            id: id.to_owned(),
            born,
            partitions,
            roster: Roster::default(),
            complete_from: 0,
            complete: false,
            leaving: false,
            held: BTreeMap::new(),
            left: BTreeMap::new(),
        }
    }

    /// Its name among the members.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The stream, which ends at `last`, is read from its beginning once more: until a message of our own behind that
    /// end comes, not all members are known.
    pub fn read_anew(&mut self, last: u64) {
        (self.roster, self.complete_from, self.complete) = (Roster::default(), last + 1, false);
    }

    /// Takes in the next message of `members`; tells whether it is one of our own.
    pub fn hear(&mut self, entry: &Entry) -> bool {
        let (born, complete) = (self.born, self.complete);
        let Some((id, said)) = self.roster.hear(entry) else { return false };
        let (named_so, own) = (id == self.id, said.born == born);
        if named_so && !own && complete {
            // Another process goes by our name, and thinks that it is the only one: it may keep it.
            self.id = format!("{}-{:x}", self.id, self.born);
        }
        self.complete |= named_so && own && entry.sequence >= self.complete_from;
        named_so && own
    }

    /// Whether all members are known.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// The process is about to end.
    pub fn leave(&mut self) {
        self.leaving = true;
    }

    /// Whether there is nobody to leave anything to, or nothing left.
    pub fn may_go(&self) -> bool {
        let others = || self.roster.candidates().keys().any(|&id| id != self.id);
        self.held.is_empty() || !self.complete || !others()
    }

    /// What to start and stop here, given what is known of all. What is ours and has been taken by others since counts as
    /// taken anew.
    pub fn orders(&mut self, now: Instant) -> Vec<Order> {
        self.left.retain(|_, until| *until > now);
        if !self.complete {
            return Vec::new();
        }
        let mut candidates = self.roster.candidates();
        if self.leaving {
            candidates.remove(self.id.as_str());
        }
        let mut orders = Vec::new();
        for (owner, share) in assign(&candidates, self.partitions) {
            for partition in share {
                let held = self.held.get_mut(&partition);
                if owner == self.id {
                    match held {
                        None => orders.push(Order::Start(partition)),
                        Some(held) if self.roster.latest(&self.id, partition) >= Some(held.since) => {
                            held.since = self.roster.last();
                        }
                        Some(_) => {}
                    }
                } else if let Some(held) = held {
                    // Its new owner first says that it is ready. Only one that took it later may have it: so two never
                    // leave it to each other at once. One that is not ready here is of no use to anybody.
                    let hold = candidates[owner.as_str()].holds.get(&partition);
                    let taken = hold.is_some_and(|hold| hold.ready && hold.since > held.since);
                    orders.extend((taken || !held.ready).then_some(Order::Stop(partition)));
                }
            }
        }
        orders
    }

    /// A partition is taken up.
    pub fn started(&mut self, partition: u16) {
        self.left.remove(&partition);
        self.held.insert(partition, Held { since: self.roster.last(), ..Held::default() });
    }

    /// How a partition that is run here does.
    pub fn look(&mut self, partition: u16, state: State) {
        if let Some(held) = self.held.get_mut(&partition) {
            held.stopped = state == State::Stopped;
            held.ready = state == State::Ready || (held.ready && !held.stopped);
        }
    }

    /// A partition is left.
    pub fn stopped(&mut self, partition: u16, now: Instant) {
        if self.held.remove(&partition).is_some_and(|held| held.stopped) {
            self.left.insert(partition, now + LEFT_ALONE);
        }
    }

    /// Whether anything is on its way from one to the other, so that it is worth looking often.
    pub fn is_unsettled(&self) -> bool {
        self.leaving || self.held.values().any(|held| !held.ready && !held.stopped)
    }

    /// How many partitions are run here.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// What to say to the others.
    pub fn said(&self) -> Said {
        let holds = self
            .held
            .iter()
            .map(|(&partition, held)| (partition, Hold { since: held.since, ready: held.ready }));
        let stopped = self.held.iter().filter(|(_, held)| held.stopped).map(|(&partition, _)| partition);
        Said {
            born: self.born,
            leaving: self.leaving,
            holds: holds.collect(),
            cannot: stopped.chain(self.left.keys().copied()).collect(),
        }
    }

    /// From which message on the stream is still wanted, at most so often as this is asked; what is before is forgotten.
    pub fn tidy(&mut self) -> Option<u64> {
        let first = self.roster.outdated()?;
        self.roster.forget_before(first);
        Some(first)
    }
}
