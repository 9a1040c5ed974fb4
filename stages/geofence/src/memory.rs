//! Where each session was accepted last: what the stage remembers of a partition. A fold of its input, which the
//! stage makes itself as it judges; a start replays the input through it.
//!
//! A session is remembered for as long as validate remembers it: 12 h after its last wager, whatever became of that,
//! by the broker's receive times, and at most a million sessions of a source, the longest idle forgotten first.

use std::collections::BTreeMap;

use jackpot_core::frame::validated::Point;
use jackpot_core::limits;
use jackpot_core::sessions::{self, Sessions};
use jackpot_core::snapshot::{Pieces, Saved, Unreadable, piece};
use jackpot_core::time::Millis;
use serde::{Deserialize, Serialize};

use crate::boundaries::Spot;
use crate::geometry;

/// The last accepted place of a session that has coordinates.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Fix {
    /// Where.
    pub point: Point,
    /// What the boundaries say of it.
    pub spot: Spot,
    /// When that was found out.
    pub checked_at: Millis,
}

impl Fix {
    /// Whether the player cannot have got from there to here, or from here to there.
    pub fn too_far(&self, other: &Self) -> bool {
        let elapsed = self.checked_at.0.abs_diff(other.checked_at.0);
        self.point != other.point && geometry::too_far(&self.point, &other.point, elapsed)
    }
}

/// What is remembered of a partition.
#[derive(Debug, Clone, PartialEq)]
pub struct Memory {
    /// The latest receive time of a batch. It never goes back, whatever a broker's clock does.
    clock: Millis,
    /// By source.
    sources: BTreeMap<Box<str>, Sessions<Fix>>,
    /// Sessions kept per source at most.
    sessions_max: usize,
}

/// The sessions of one source, when a batch of it was received.
#[derive(Debug)]
pub struct Remembered<'a> {
    sessions: &'a mut Sessions<Fix>,
    now: Millis,
    sessions_max: usize,
}

impl Default for Memory {
    fn default() -> Self {
        Self::with_sessions_max(limits::SESSIONS_PER_SOURCE_MAX)
    }
}

impl Memory {
    /// With another bound on sessions, so that a test can reach it.
    pub fn with_sessions_max(sessions_max: usize) -> Self {
        Self { clock: Millis(0), sources: BTreeMap::new(), sessions_max }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::with_sessions_max(self.sessions_max);
    }

    /// A batch was received at this time. Once a minute, sessions that are forgotten are dropped; what is remembered
    /// is the same before and after.
    pub fn pass(&mut self, at: Millis) {
        const MINUTE_MS: i64 = 60_000;
        if at.0.div_euclid(MINUTE_MS) > self.clock.0.div_euclid(MINUTE_MS) {
            for sessions in self.sources.values_mut() {
                sessions.forget_idle(at);
            }
        }
        self.clock = self.clock.max(at);
    }

    /// As it is now, for a snapshot: the clock and the number of sources, then each source.
    pub fn freeze(&self) -> Pieces {
        let sources: Vec<_> = self
            .sources
            .iter()
            .map(|(name, sessions)| (name.clone(), sessions.len(), sessions.freeze()))
            .collect();
        let head = piece(&(self.clock, sources.len()));
        let sources = sources.into_iter().flat_map(|(name, count, sessions)| {
            std::iter::once(piece(&(name, count))).chain(sessions::pieces(sessions))
        });
        Box::new(std::iter::once(head).chain(sources))
    }

    /// Takes back what [`Memory::freeze`] gave.
    pub fn thaw(&mut self, mut content: Saved<'_>) -> Result<(), Unreadable> {
        let (clock, sources): (Millis, usize) = content.take()?;
        let mut thawed = Self { clock, ..Self::with_sessions_max(self.sessions_max) };
        for _ in 0..sources {
            let (name, count): (Box<str>, usize) = content.take()?;
            thawed.sources.insert(name, Sessions::thaw(count, &mut content)?);
        }
        content.finish()?;
        *self = thawed;
        Ok(())
    }

    /// The sessions of a source.
    pub fn of(&mut self, source: &str) -> Remembered<'_> {
        if !self.sources.contains_key(source) {
            self.sources.insert(source.into(), Sessions::default());
        }
        let sessions = self.sources.get_mut(source).expect("it was just put there");
        Remembered { sessions, now: self.clock, sessions_max: self.sessions_max }
    }
}

impl Remembered<'_> {
    /// Where a session was last. It has a wager now, so that it is not idle.
    pub fn last(&mut self, session: &[u8; 16]) -> Option<Fix> {
        self.sessions.touch(session, self.now).copied()
    }

    /// A session was accepted there.
    pub fn accept(&mut self, session: [u8; 16], fix: Fix) {
        self.sessions.put(session, fix, self.now, self.sessions_max);
    }
}
