//! The sessions of one source: what a stage remembers of each, and since when it is idle, in that order.
//! validate keeps the interactions that it accepted, geofence the place where a session was last.
//!
//! A session is its value and 32 bytes in a slab plus its place in the index. The slab's entries are linked from
//! the longest idle to the latest, so that forgetting is one step and needs no clock but the broker's receive times.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::frame::validated::SessionKey;
use crate::limits;
use crate::snapshot::{self, Saved, Unreadable};
use crate::time::Millis;

/// A map by session. The key is half a SHA-256, so its first bytes are hash enough.
pub type BySession<T> = HashMap<SessionKey, T, BuildHasherDefault<KeyHasher>>;

/// Takes the first eight bytes of a [`SessionKey`].
#[derive(Debug, Clone, Copy, Default)]
pub struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    /// The length of every key is the same.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A place in the slab.
pub type Slot = u32;
/// No place.
const NONE: Slot = Slot::MAX;
const _: () = assert!(limits::SESSIONS_PER_SOURCE_MAX < NONE as usize, "every session has a slot");
const _: () = assert!(size_of::<Session<[u64; 2]>>() == 48);

/// One session.
#[derive(Debug, Clone)]
struct Session<T> {
    key: SessionKey,
    value: T,
    /// When its last wager was received.
    last: Millis,
    /// Its neighbour whose last wager is older.
    older: Slot,
    /// Its neighbour whose last wager is newer; in a free slot, the next free one.
    newer: Slot,
}

/// The sessions of a source, with a `T` of each.
#[derive(Debug, Clone)]
pub struct Sessions<T> {
    slots: Vec<Session<T>>,
    index: BySession<Slot>,
    oldest: Slot,
    newest: Slot,
    free: Slot,
}

impl<T> Default for Sessions<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), index: BySession::default(), oldest: NONE, newest: NONE, free: NONE }
    }
}

/// A session, the receive time of its last wager, and what is remembered of it.
pub type Kept<T> = (SessionKey, Millis, T);

/// The sessions of a source as they were: what a snapshot is written from. To make it costs a copy of the slab.
#[derive(Debug)]
pub struct FrozenSessions<T> {
    slots: Vec<Session<T>>,
    next: Slot,
}

impl<T: Copy> Iterator for FrozenSessions<T> {
    type Item = Kept<T>;

    /// From the longest idle to the latest.
    fn next(&mut self) -> Option<Kept<T>> {
        let session = (self.next != NONE).then(|| &self.slots[index(self.next)])?;
        self.next = session.newer;
        Some((session.key, session.last, session.value))
    }
}

/// Sessions of one piece of a snapshot: to write it takes well below a millisecond.
const PIECE_SESSIONS: usize = 2_048;

/// The pieces of a snapshot.
pub fn pieces<T: Copy + Serialize>(mut sessions: FrozenSessions<T>) -> impl Iterator<Item = Vec<u8>> {
    std::iter::from_fn(move || {
        let mut bytes = Vec::new();
        sessions.by_ref().take(PIECE_SESSIONS).for_each(|session| bytes.extend(snapshot::piece(&session)));
        (!bytes.is_empty()).then_some(bytes)
    })
}

impl<T: Copy> Sessions<T> {
    /// As they are now, for a snapshot.
    pub fn freeze(&self) -> FrozenSessions<T> {
        FrozenSessions { slots: self.slots.clone(), next: self.oldest }
    }

    /// Takes back so many sessions that a snapshot holds.
    pub fn thaw(count: usize, content: &mut Saved<'_>) -> Result<Self, Unreadable>
    where
        T: DeserializeOwned,
    {
        let mut sessions = Self::default();
        sessions.slots.reserve(count.min(limits::SESSIONS_PER_SOURCE_MAX));
        sessions.index.reserve(count.min(limits::SESSIONS_PER_SOURCE_MAX));
        for _ in 0..count {
            let (key, last, value): Kept<T> = content.take()?;
            let slot = sessions.insert(key, value, last);
            sessions.link(slot);
        }
        Ok(sessions)
    }
}

/// Equal where the same is remembered in the same order, wherever in the slab.
impl<T: PartialEq> PartialEq for Sessions<T> {
    fn eq(&self, other: &Self) -> bool {
        let of = |known: &'_ Session<T>| (known.key, known.last);
        self.len() == other.len()
            && self.iter().zip(other.iter()).all(|(a, b)| of(a) == of(b) && a.value == b.value)
    }
}

impl<T: Eq> Eq for Sessions<T> {}

/// Whether a session is forgotten at `now` whose last wager was received at `last`.
pub fn is_idle(last: Millis, now: Millis) -> bool {
    now.0 - last.0 > limits::SESSION_IDLE_MAX_MS
}

impl<T> Sessions<T> {
    /// How many are kept.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Whether this one is kept, forgotten or not.
    pub fn holds(&self, key: &SessionKey) -> bool {
        self.index.contains_key(key)
    }

    /// What is remembered of a session at `now`.
    pub fn get(&self, key: &SessionKey, now: Millis) -> Option<&T> {
        let session = self.at(*self.index.get(key)?);
        Some(&session.value).filter(|_| !is_idle(session.last, now))
    }

    /// What is remembered of a session that has a wager which was received at `now`: it is the latest then.
    pub fn touch(&mut self, key: &SessionKey, now: Millis) -> Option<&mut T> {
        let slot = *self.index.get(key)?;
        if is_idle(self.at(slot).last, now) {
            return None;
        }
        self.unlink(slot);
        self.at_mut(slot).last = now;
        self.link(slot);
        Some(&mut self.at_mut(slot).value)
    }

    /// The one that is idle longest.
    pub fn first(&self) -> Option<Slot> {
        Some(self.oldest).filter(|&slot| slot != NONE)
    }

    /// The one that is idle longest but for this one and those before it.
    pub fn after(&self, slot: Slot) -> Option<Slot> {
        Some(self.at(slot).newer).filter(|&slot| slot != NONE)
    }

    /// Which session is there.
    pub fn key(&self, slot: Slot) -> &SessionKey {
        &self.at(slot).key
    }

    /// Remembers this of a session with a wager that was received at `now`, which never goes back. Where there are
    /// more than `max` then, the one that is idle longest is forgotten.
    pub fn put(&mut self, key: SessionKey, value: T, now: Millis, max: usize) {
        let slot = match self.index.get(&key) {
            Some(&slot) => {
                self.unlink(slot);
                let session = self.at_mut(slot);
                (session.value, session.last) = (value, now);
                slot
            }
            None => self.insert(key, value, now),
        };
        self.link(slot);
        if self.len() > max {
            self.forget(self.oldest);
        }
    }

    /// Drops those that are forgotten at `now`.
    pub fn forget_idle(&mut self, now: Millis) {
        while let Some(slot) = self.first().filter(|&slot| is_idle(self.at(slot).last, now)) {
            self.forget(slot);
        }
        if self.is_empty() {
            *self = Self::default();
        }
    }

    fn forget(&mut self, slot: Slot) {
        self.unlink(slot);
        let key = self.at(slot).key;
        self.index.remove(&key);
        self.at_mut(slot).newer = self.free;
        self.free = slot;
    }

    /// Takes a slot for a new session, not yet linked.
    fn insert(&mut self, key: SessionKey, value: T, last: Millis) -> Slot {
        let session = Session { key, value, last, older: NONE, newer: NONE };
        let slot = if self.free == NONE {
            self.slots.push(session);
            Slot::try_from(self.slots.len() - 1).expect("every session has a slot")
        } else {
            let slot = self.free;
            self.free = self.at(slot).newer;
            *self.at_mut(slot) = session;
            slot
        };
        self.index.insert(key, slot);
        slot
    }

    /// Makes it the newest.
    fn link(&mut self, slot: Slot) {
        let before = std::mem::replace(&mut self.newest, slot);
        let session = self.at_mut(slot);
        (session.older, session.newer) = (before, NONE);
        if before == NONE {
            self.oldest = slot;
        } else {
            self.at_mut(before).newer = slot;
        }
    }

    fn unlink(&mut self, slot: Slot) {
        let (older, newer) = (self.at(slot).older, self.at(slot).newer);
        if older == NONE {
            self.oldest = newer;
        } else {
            self.at_mut(older).newer = newer;
        }
        if newer == NONE {
            self.newest = older;
        } else {
            self.at_mut(newer).older = older;
        }
    }

    /// From the longest idle to the latest.
    fn iter(&self) -> impl Iterator<Item = &Session<T>> {
        std::iter::successors(self.first(), |&slot| self.after(slot)).map(|slot| self.at(slot))
    }

    fn at(&self, slot: Slot) -> &Session<T> {
        &self.slots[index(slot)]
    }

    fn at_mut(&mut self, slot: Slot) -> &mut Session<T> {
        &mut self.slots[index(slot)]
    }
}

fn index(slot: Slot) -> usize {
    usize::try_from(slot).expect("a slot is a place in memory")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 4;
    const HOUR: i64 = 3_600_000;

    proptest! {
        /// Against a list in the order of the last wagers.
        #[test]
        fn the_longest_idle_is_forgotten_first(
            steps in proptest::collection::vec((0_u8..8, any::<u8>(), 0_i64..5, 0_u8..4), 1..100),
        ) {
            let mut sessions = Sessions::default();
            let mut model: Vec<(SessionKey, u8, Millis)> = Vec::new();
            let mut now = Millis(0);
            for (session, value, hours, step) in steps {
                now = now.plus(hours * HOUR);
                model.retain(|&(_, _, last)| now.0 - last.0 <= 12 * HOUR);
                let key = [session; 16];
                let known = model.iter().position(|(known, ..)| *known == key);
                match step {
                    0 => {
                        sessions.forget_idle(now);
                        prop_assert_eq!(sessions.len(), model.len());
                    }
                    1 => {
                        let expect = known.map(|at| model.remove(at).1);
                        prop_assert_eq!(sessions.touch(&key, now).copied(), expect);
                        model.extend(expect.map(|value| (key, value, now)));
                    }
                    _ => {
                        sessions.put(key, value, now, MAX);
                        known.map(|at| model.remove(at));
                        model.push((key, value, now));
                        if model.len() > MAX {
                            model.remove(0);
                        }
                    }
                }
                for session in 0..8 {
                    let known = model.iter().find(|(key, ..)| *key == [session; 16]);
                    let expect = known.map(|(_, value, _)| value);
                    prop_assert_eq!(sessions.get(&[session; 16], now), expect);
                }
                prop_assert!(sessions.len() <= MAX && sessions.slots.len() <= MAX + 1);
            }
        }
    }
}
