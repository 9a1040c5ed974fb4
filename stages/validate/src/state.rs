//! What validate remembers of a partition: a fold of its own output, frame by frame ([`State::fold`]), and nothing
//! else changes it. Decisions for a frame being cut are made in `draft`, over this.

use std::collections::BTreeMap;

use jackpot_core::digest::Digest;
use jackpot_core::frame::batch::{Accepted, Batch, Verdict};
use jackpot_core::frame::validated::{Validated, Wager};
use jackpot_core::frame::{Frame, Header, Ingress};
use jackpot_core::limits;
use jackpot_core::sessions::{self, Sessions};
use jackpot_core::snapshot::{Pieces, Saved, Unreadable, piece};
use jackpot_core::stage::Contradiction;
use jackpot_core::time::Millis;
use serde::{Deserialize, Serialize};

use crate::terms::CompiledTerms;
use crate::window::{self, Content, Interactions, Standing, Window};

/// Where the output of a partition ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tail {
    /// The number of the last frame; 0 before the first.
    pub frame: u64,
    /// The digest of its message; zero before the first. The next frame's `previous`.
    pub digest: Digest,
    /// The revision of the terms that it was made under; 0 before the first.
    pub terms: u64,
    /// Its watermark.
    pub watermark: Option<Millis>,
    /// The latest receive time of the ingress read so far.
    pub recorded_at: Millis,
    /// What of the ingress is in the frames: read on behind `ingress.position`.
    pub ingress: Ingress,
}

/// What is remembered of a source.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Source {
    /// Its batches.
    pub window: Window,
    /// Its players' sessions.
    pub sessions: Sessions<Interactions>,
}

/// What validate remembers of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    partition: u16,
    tail: Tail,
    memory: Memory,
}

/// What decisions are made by: the same however the ingress was cut into frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Memory {
    /// The latest receive time of a batch. It never goes back, whatever a broker's clock does.
    pub clock: Millis,
    /// The sources, by name.
    pub sources: BTreeMap<Box<str>, Source>,
    /// Sessions kept per source at most.
    pub sessions_max: usize,
}

impl State {
    /// Before the first frame of a partition.
    pub fn new(partition: u16) -> Self {
        Self::with_sessions_max(partition, limits::SESSIONS_PER_SOURCE_MAX)
    }

    /// With another bound on sessions, so that a test can reach it.
    pub(crate) fn with_sessions_max(partition: u16, sessions_max: usize) -> Self {
        let memory = Memory { clock: Millis(0), sources: BTreeMap::new(), sessions_max };
        Self { partition, tail: Tail::default(), memory }
    }

    /// The partition.
    pub fn partition(&self) -> u16 {
        self.partition
    }

    /// Where the output ends, as far as it was folded.
    pub fn tail(&self) -> &Tail {
        &self.tail
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// As it is now, for a snapshot: the tail, the clock and the number of sources, then each source.
    pub fn freeze(&self) -> Pieces {
        let mut sources = Vec::new();
        for (name, Source { window, sessions }) in &self.memory.sources {
            sources.push(((name.clone(), window.clone(), sessions.len()), sessions.freeze()));
        }
        let head = piece(&(self.tail, self.memory.clock, sources.len()));
        let sources = sources
            .into_iter()
            .flat_map(|(head, sessions)| std::iter::once(piece(&head)).chain(sessions::pieces(sessions)));
        Box::new(std::iter::once(head).chain(sources))
    }

    /// What [`State::freeze`] gave of this partition.
    pub fn thaw(&self, mut content: Saved<'_>) -> Result<Self, Unreadable> {
        let (tail, clock, count): (Tail, Millis, usize) = content.take()?;
        let mut sources = BTreeMap::new();
        for _ in 0..count {
            let (name, window, count): (Box<str>, Window, usize) = content.take()?;
            sources.insert(name, Source { window, sessions: Sessions::thaw(count, &mut content)? });
        }
        content.finish()?;
        let memory = Memory { clock, sources, sessions_max: self.memory.sessions_max };
        Ok(Self { partition: self.partition, tail, memory })
    }

    /// Takes in the next frame of the output, whoever made it. `digest` is that of its message, `terms` the revision
    /// that its header names. After an error the state is of no further use: the partition stops.
    ///
    /// What `sequence_from` says is applied with the first frame of each revision. A revision under which the
    /// partition has no frame was never in force for any of its batches.
    pub fn fold(
        &mut self,
        frame: &Frame<Validated>,
        digest: Digest,
        terms: &CompiledTerms,
    ) -> Result<(), Contradiction> {
        let header = &frame.header;
        self.check(header, terms)?;
        if self.tail.frame == 0 || self.tail.terms != header.terms {
            self.memory.begin(terms);
        }
        let mut contents = frame.body.contents.iter();
        for batch in &frame.body.batches {
            self.memory.pass(batch.recorded_at);
            if let Verdict::Accepted(accepted) = &batch.verdict {
                let source = frame.body.symbols.name(batch.source);
                let content = contents.next();
                self.memory.take(source, accepted, content).map_err(|what| refuted(header, batch, what))?;
            }
        }
        if contents.next().is_some() {
            return Err(contradiction(header, "it has more contents than accepted batches"));
        }
        self.tail = Tail {
            frame: header.sequence,
            digest,
            terms: header.terms,
            watermark: header.watermark,
            recorded_at: header.recorded_at,
            ingress: header.ingress,
        };
        Ok(())
    }

    fn check(&self, header: &Header, terms: &CompiledTerms) -> Result<(), Contradiction> {
        let tail = &self.tail;
        assert_eq!(header.terms, terms.revision(), "a frame is folded with the terms that its header names");
        let what = if header.partition != self.partition {
            "it belongs to another partition"
        } else if header.sequence != tail.frame + 1 {
            "its number is not the next one"
        } else if header.previous != tail.digest {
            "it does not follow the frame that came before it"
        } else if header.terms < tail.terms {
            "its revision of the terms is lower than that of the frame before"
        } else if header.watermark < tail.watermark || header.recorded_at < tail.recorded_at {
            "its watermark or its receive time goes back"
        } else if header.ingress.position <= tail.ingress.position
            || header.ingress.count <= tail.ingress.count
        {
            "it reads nothing of the ingress"
        } else {
            return Ok(());
        };
        Err(contradiction(header, what))
    }
}

fn contradiction(header: &Header, what: &str) -> Contradiction {
    Contradiction(format!(
        "frame {} of validated-{} contradicts the frames before it: {what}; the log was changed or lost its tail: restore it from a replica or a backup",
        header.sequence, header.partition
    ))
}

fn refuted(header: &Header, batch: &Batch<Wager>, what: &str) -> Contradiction {
    contradiction(header, &format!("of the batch at {} in the stream wagers, {what}", batch.position))
}

impl Memory {
    /// A revision comes into force.
    fn begin(&mut self, terms: &CompiledTerms) {
        for (name, from) in terms.starts() {
            let known = self.sources.get(name).and_then(|source| source.window.declared());
            if known != Some(from) {
                self.sources.entry(name.into()).or_default().window = Window::starting_at(from);
            }
        }
    }

    /// A batch was received at this time. Once a minute, sessions that are forgotten are dropped; what is remembered
    /// is the same before and after.
    fn pass(&mut self, at: Millis) {
        const MINUTE_MS: i64 = 60_000;
        if at.0.div_euclid(MINUTE_MS) > self.clock.0.div_euclid(MINUTE_MS) {
            for source in self.sources.values_mut() {
                source.sessions.forget_idle(at);
            }
        }
        self.clock = self.clock.max(at);
    }

    /// An accepted batch. The error says what it contradicts.
    fn take(
        &mut self,
        name: &str,
        accepted: &Accepted<Wager>,
        content: Option<&Content>,
    ) -> Result<(), &'static str> {
        let content = content.ok_or("its content is not recorded")?;
        if !self.sources.contains_key(name) {
            self.sources.insert(name.into(), Source::default());
        }
        let source = self.sources.get_mut(name).expect("it was just put there");
        if source.window.judge(accepted.sequence, content) != Standing::New {
            return Err("its sequence cannot have been accepted");
        }
        if source.window.gaps(accepted.sequence) != accepted.gaps {
            return Err("its gaps are others");
        }
        source.window.accept(accepted.sequence, *content);
        for wager in &accepted.wagers {
            let (session, interaction) = (wager.session, wager.interaction);
            window::accept(&mut source.sessions, session, interaction, self.clock, self.sessions_max)
                .map_err(|_| "an interaction was accepted twice")?;
        }
        Ok(())
    }
}
