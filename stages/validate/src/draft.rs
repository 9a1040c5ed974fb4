//! What a frame being cut has accepted so far of one source, over what is confirmed. Dropped with the frame, so that
//! a frame which loses the race for its place leaves no trace. `cut` decides by it, `state` never sees it.

use std::collections::HashSet;
use std::hash::BuildHasherDefault;

use jackpot_core::frame::validated::SessionKey;
use jackpot_core::limits;
use jackpot_core::sessions::{BySession, KeyHasher, Sessions, Slot, is_idle};
use jackpot_core::time::Millis;

use crate::state::{Memory, Source};
use crate::terms::CompiledTerms;
use crate::window::{Interactions, Repeat, Window};

const _: () = assert!(
    limits::FRAME_WAGERS_MAX < limits::SESSIONS_PER_SOURCE_MAX,
    "a frame never fills a source's memory, so that whatever it forgets was there before"
);

/// A source in a frame being cut.
#[derive(Debug)]
pub struct SourceDraft<'s> {
    /// Its batches.
    pub window: Window,
    confirmed: Option<&'s Sessions<Interactions>>,
    sessions_max: usize,
    /// The sessions that the frame has wagers of, as they are after them.
    touched: BySession<(Interactions, Millis)>,
    /// How many of them are not among the confirmed ones.
    added: usize,
    /// Confirmed ones that were forgotten to make room.
    forgotten: HashSet<SessionKey, BuildHasherDefault<KeyHasher>>,
    /// The last of those.
    last_forgotten: Option<Slot>,
}

impl<'s> SourceDraft<'s> {
    /// As the frame finds the source, under its terms.
    pub fn new(name: &str, memory: &'s Memory, terms: &CompiledTerms) -> Self {
        let source: Option<&'s Source> = memory.sources.get(name);
        let confirmed = source.map(|source| source.window.clone()).unwrap_or_default();
        let window = match terms.sequence_from(name) {
            Some(from) if confirmed.declared() != Some(from) => Window::starting_at(from),
            _ => confirmed,
        };
        Self {
            window,
            confirmed: source.map(|source| &source.sessions),
            sessions_max: memory.sessions_max,
            touched: BySession::default(),
            added: 0,
            forgotten: HashSet::default(),
            last_forgotten: None,
        }
    }

    /// Accepts an interaction received at `now`, or says why not.
    pub fn accept(&mut self, key: SessionKey, interaction: u64, now: Millis) -> Result<(), Repeat> {
        let mut seen = self.seen(&key, now);
        seen.accept(interaction)?;
        if self.touched.insert(key, (seen, now)).is_none() {
            let confirmed = self.confirmed.is_some_and(|sessions| sessions.holds(&key));
            if !confirmed || self.forgotten.contains(&key) {
                self.added += 1;
                self.make_room();
            }
        }
        Ok(())
    }

    fn seen(&self, key: &SessionKey, now: Millis) -> Interactions {
        if let Some(&(seen, last)) = self.touched.get(key) {
            return if is_idle(last, now) { Interactions::default() } else { seen };
        }
        let confirmed = self.confirmed.filter(|_| !self.forgotten.contains(key));
        confirmed.and_then(|sessions| sessions.get(key, now)).copied().unwrap_or_default()
    }

    /// Forgets the session that is idle longest, where there is one too many.
    fn make_room(&mut self) {
        let Some(sessions) = self.confirmed else { return };
        if sessions.len() + self.added - self.forgotten.len() <= self.sessions_max {
            return;
        }
        let after = |slot: Option<Slot>| slot.map_or_else(|| sessions.first(), |slot| sessions.after(slot));
        let mut slot = after(self.last_forgotten);
        while let Some(touched) = slot.filter(|&slot| self.touched.contains_key(sessions.key(slot))) {
            slot = after(Some(touched));
        }
        let slot = slot.expect("a frame never fills a source's memory");
        self.forgotten.insert(*sessions.key(slot));
        self.last_forgotten = Some(slot);
    }
}

#[cfg(test)]
mod tests {
    use jackpot_core::terms::Terms;
    use proptest::prelude::*;

    use super::*;
    use crate::state::State;
    use crate::window;

    const MAX: usize = 6;

    proptest! {
        /// Whatever came before, a frame decides as if each of its wagers had been confirmed at once.
        #[test]
        fn a_draft_decides_as_the_state_would(
            before in proptest::collection::vec((0_u8..10, 1_u64..4, 0_i64..3), 0..20),
            frame in proptest::collection::vec((0_u8..10, 1_u64..4, 0_i64..3), 0..=MAX),
        ) {
            let mut memory = State::with_sessions_max(0, MAX).memory().clone();
            let mut now = Millis(0);
            let mut sessions = Sessions::default();
            for (session, interaction, hours) in before {
                now = now.plus(hours * 3_600_000);
                window::accept(&mut sessions, [session; 16], interaction, now, MAX).ok();
            }
            memory.sources.insert("eu1".into(), Source { sessions: sessions.clone(), ..Source::default() });
            let terms = CompiledTerms::new(&Terms::none());
            let mut draft = SourceDraft::new("eu1", &memory, &terms);
            for (session, interaction, hours) in frame {
                now = now.plus(hours * 3_600_000);
                let expect = window::accept(&mut sessions, [session; 16], interaction, now, MAX);
                prop_assert_eq!(draft.accept([session; 16], interaction, now), expect);
            }
        }
    }
}
