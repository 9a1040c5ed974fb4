//! Cuts one frame out of the ingress of a partition: [`Cutter`]. It decides what `batch` could not tell from a
//! message alone, against what is confirmed (`state`) and what the frame has accepted so far (`draft`).
//! The runner drives it; no clock is read here, and a cutter that is dropped has changed nothing.

use std::collections::HashMap;

use jackpot_core::digest::Digest;
use jackpot_core::frame::batch::{Accepted, Batch, Gap, HitClaim, Hits, Refusal, RefusedBatch, Verdict};
use jackpot_core::frame::symbols::{Symbol, Symbols};
use jackpot_core::frame::validated::{Location, Validated, Wager};
use jackpot_core::frame::{Frame, Header, Ingress};
use jackpot_core::limits;
use jackpot_core::refusal::{Reason, StageName};
use jackpot_core::stage::Tally;
use jackpot_core::terms::store::Marker;
use jackpot_core::time::Millis;

use crate::batch::{Content, Envelope, ParsedMessage, refused_weight};
use crate::detail::detail;
use crate::draft::SourceDraft;
use crate::signature::Signature;
use crate::state::State;
use crate::terms::CompiledTerms;
use crate::window::{Repeat, Standing};

/// Bytes of a frame's header at most, with the counts of what is in the frame.
const HEADER_BYTES_MAX: usize = 200;
/// Bytes of a gap in a frame at most.
const GAP_BYTES_MAX: usize = 20;

/// What became of a message that was offered to a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Taken {
    /// It is taken: in the frame, or read over, which the frame of the next batch will say.
    In,
    /// The frame has no room for it. Finish the frame, and offer the message to the next one.
    Full,
    /// It is the marker of a later revision, under which all that follows is judged. Finish the frame if it holds
    /// anything; then offer the same messages, from the first one not confirmed on, to a cutter under these terms.
    Turn(Marker),
}

/// A frame being cut, after the last one that the state has folded and under one revision of the terms.
#[derive(Debug)]
pub struct Cutter<'s> {
    state: &'s State,
    terms: &'s CompiledTerms,
    lateness_ms: i64,
    /// What was read, and the latest receive time of it.
    read: (Ingress, Millis),
    /// The same up to the last batch: what the frame says.
    covered: (Ingress, Millis),
    /// The latest receive time of a batch; see `state::Memory`.
    clock: Millis,
    watermark: Option<Millis>,
    sources: HashMap<Box<str>, SourceDraft<'s>>,
    body: Validated,
    load: Load,
}

/// What a frame is cut by.
#[derive(Debug, Clone, Copy)]
struct Load {
    wagers: usize,
    hits: usize,
    bytes: usize,
}

impl<'s> Cutter<'s> {
    /// An empty frame. The terms must be complete where a batch of a keyed source comes. `lateness_ms` is how far the watermark stays behind the highest event time.
    pub fn new(state: &'s State, terms: &'s CompiledTerms, lateness_ms: i64) -> Self {
        let tail = state.tail();
        assert!(terms.revision() >= tail.terms, "revisions of the terms only grow");
        Self {
            state,
            terms,
            lateness_ms,
            read: (tail.ingress, tail.recorded_at),
            covered: (tail.ingress, tail.recorded_at),
            clock: state.memory().clock,
            watermark: tail.watermark,
            sources: HashMap::new(),
            body: Validated::default(),
            load: Load { wagers: 0, hits: 0, bytes: HEADER_BYTES_MAX },
        }
    }

    /// Whether no batch is in it yet.
    pub fn is_empty(&self) -> bool {
        self.body.batches.is_empty()
    }

    /// Offers the next message of the partition's ingress. A batch is never split.
    pub fn take(&mut self, message: &ParsedMessage) -> Taken {
        assert!(message.position > self.read.0.position, "the ingress is read in order, each message once");
        match &message.content {
            Content::Marker(marker) if marker.revision > self.terms.revision() => Taken::Turn(*marker),
            Content::Marker(_) | Content::Foreign => {
                self.read(message);
                Taken::In
            }
            Content::Batch(parsed) => self.take_batch(message, parsed),
        }
    }

    /// The frame; `None` if it holds no batch. Markers behind its last batch are for the next frame to cover.
    pub fn finish(self) -> Option<Frame<Validated>> {
        if self.is_empty() {
            return None;
        }
        let tail = self.state.tail();
        let header = Header {
            partition: self.state.partition(),
            sequence: tail.frame + 1,
            rules: self.terms.rules(),
            terms: self.terms.revision(),
            watermark: self.watermark,
            recorded_at: self.covered.1,
            ingress: self.covered.0,
            input: Digest::ZERO,
            previous: tail.digest,
        };
        Some(Frame { header, body: self.body })
    }

    /// Counts a message as read.
    fn read(&mut self, message: &ParsedMessage) {
        let (ingress, recorded_at) = self.read;
        self.read = (
            ingress.after(message.position, &message.subject, &message.digest),
            recorded_at.max(message.recorded_at),
        );
    }

    fn take_batch(&mut self, message: &ParsedMessage, parsed: &Result<Envelope, RefusedBatch>) -> Taken {
        let judged = match parsed {
            Ok(envelope) => self.judge(message, envelope).map(|gaps| (envelope, gaps)),
            Err(refused) => Err(refused.clone()),
        };
        let load = match &judged {
            Ok((envelope, gaps)) => Load {
                wagers: envelope.wagers.len() + envelope.refusals.len(),
                hits: envelope.hits,
                bytes: envelope.weight + GAP_BYTES_MAX * gaps.len(),
            },
            Err(refused) => Load { wagers: 0, hits: 0, bytes: refused_weight(refused, message.sender()) },
        };
        if !self.has_room(load) {
            return Taken::Full;
        }
        self.load = self.load.plus(load);
        self.read(message);
        self.covered = self.read;
        self.clock = self.clock.max(message.recorded_at);
        let (operator, source) = message.sender();
        let (operator, source) = (self.body.symbols.intern(operator), self.body.symbols.intern(source));
        let verdict = match judged {
            Ok((envelope, gaps)) => Verdict::Accepted(self.accept(message, envelope, gaps)),
            Err(refused) => Verdict::Refused(refused),
        };
        self.body.batches.push(Batch {
            operator,
            source,
            position: message.position,
            recorded_at: message.recorded_at,
            verdict,
        });
        Taken::In
    }

    fn has_room(&self, more: Load) -> bool {
        let load = self.load.plus(more);
        self.is_empty()
            || self.body.batches.len() < limits::FRAME_BATCHES_MAX
                && load.wagers <= limits::FRAME_WAGERS_MAX
                && load.hits <= limits::FRAME_HITS_MAX
                && load.bytes <= limits::FRAME_BYTES_MAX
    }

    /// Judges a batch as a whole, in the order of the contract: whether the source is known, then its signature where
    /// it has keys, then its sequence. Gives the gaps that its acceptance makes.
    fn judge(&mut self, message: &ParsedMessage, envelope: &Envelope) -> Result<Vec<Gap>, RefusedBatch> {
        let (operator, source) = message.sender();
        let sequence = envelope.sequence;
        let refuse = |reason, detail| RefusedBatch {
            batch: format!("{source}/{sequence}").into(),
            reason,
            detail,
            conflict: false,
        };
        if !self.terms.knows(operator, source) {
            let sentence = detail(format_args!(
                "revision {} of the terms lists no source \"{source}\" of operator \"{operator}\"",
                self.terms.revision()
            ));
            return Err(refuse(Reason::UnknownSource, sentence));
        }
        let keys = self.terms.keys(source);
        if !keys.is_empty() {
            let judge =
                || Signature::judge(message.signature.as_deref(), &format!("{source}/{sequence}"), keys);
            let judged = message.recorded.clone().unwrap_or_else(judge);
            judged.map_err(|sentence| refuse(Reason::BadSignature, sentence))?;
        }
        let content = message.digest.short();
        let draft = self.source(source);
        match draft.window.judge(sequence, &content) {
            Standing::New => Ok(draft.window.gaps(sequence)),
            Standing::Duplicate { same } => {
                let conflict = same == Some(false);
                let sentence = detail(format_args!(
                    "sequence {sequence} was accepted before{}",
                    match same {
                        Some(true) => ", with the same content; there is nothing to do",
                        Some(false) => ", with other content; give every new batch the next number",
                        None => "; its content is no longer remembered",
                    }
                ));
                Err(RefusedBatch { conflict, ..refuse(Reason::DuplicateBatch, sentence) })
            }
            Standing::Stale { lowest } => {
                let sentence = detail(format_args!(
                    "sequence {sequence} lies below {lowest}, the lowest that can still be accepted; a source that lost its counter needs a new sequence_from in the terms"
                ));
                Err(refuse(Reason::StaleSequence, sentence))
            }
            Standing::Jump { highest } => {
                let sentence = detail(format_args!(
                    "sequence {sequence} lies more than {} above {highest}, the highest that was accepted; mend the counter, or give the source a new sequence_from in the terms",
                    limits::SEQUENCE_JUMP_MAX
                ));
                Err(refuse(Reason::SequenceJump, sentence))
            }
        }
    }

    fn source(&mut self, name: &str) -> &mut SourceDraft<'s> {
        if !self.sources.contains_key(name) {
            let draft = SourceDraft::new(name, self.state.memory(), self.terms);
            self.sources.insert(name.into(), draft);
        }
        self.sources.get_mut(name).expect("it was just put there")
    }

    /// Takes in a batch, judging the interactions of its wagers one after the other.
    fn accept(&mut self, message: &ParsedMessage, envelope: &Envelope, gaps: Vec<Gap>) -> Accepted<Wager> {
        let content = message.digest.short();
        self.body.contents.push(content);
        let (clock, lateness_ms) = (self.clock, self.lateness_ms);
        self.source(message.sender().1).window.accept(envelope.sequence, content);
        let draft = self.sources.get_mut(message.sender().1).expect("it was judged, and so put there");
        let mut names = Adoption::new(&envelope.names, &mut self.body.symbols);
        let (mut wagers, mut repeats) = (Vec::with_capacity(envelope.wagers.len()), Vec::new());
        for wager in &envelope.wagers {
            match draft.accept(wager.session, wager.interaction, clock) {
                Ok(()) => {
                    self.watermark = self.watermark.max(Some(wager.occurred_at.plus(-lateness_ms)));
                    wagers.push(names.wager(wager));
                }
                Err(repeat) => repeats.push(refuse_repeat(wager, repeat)),
            }
        }
        let accepted: Accepted<Wager> = Accepted {
            sequence: envelope.sequence,
            wagers: Vec::new(),
            refusals: envelope.refusals.clone(),
            gaps,
        };
        accepted.narrowed(wagers, repeats)
    }
}

impl Load {
    fn plus(self, other: Self) -> Self {
        Self {
            wagers: self.wagers + other.wagers,
            hits: self.hits + other.hits,
            bytes: self.bytes + other.bytes,
        }
    }
}

fn refuse_repeat(wager: &Wager, repeat: Repeat) -> Refusal {
    let (index, number) = (wager.index, wager.interaction);
    let sentence = match repeat {
        Repeat::Accepted => {
            detail(format_args!("wagers[{index}].interaction {number} of its session was accepted before"))
        }
        Repeat::Older { highest } => detail(format_args!(
            "wagers[{index}].interaction {number} of its session is older than what is remembered: {highest} was accepted"
        )),
    };
    Refusal {
        index,
        hit: None,
        stage: StageName::Validate,
        reason: Reason::DuplicateInteraction,
        detail: sentence,
    }
}

/// Brings the names of a batch into its frame, each when an accepted wager first needs it.
struct Adoption<'a> {
    names: &'a Symbols,
    frame: &'a mut Symbols,
    known: Vec<Option<Symbol>>,
}

impl<'a> Adoption<'a> {
    fn new(names: &'a Symbols, frame: &'a mut Symbols) -> Self {
        Self { names, frame, known: vec![None; names.names().len()] }
    }

    fn symbol(&mut self, symbol: Symbol) -> Symbol {
        *self.known[symbol.index()].get_or_insert_with(|| self.frame.intern(self.names.name(symbol)))
    }

    fn wager(&mut self, wager: &Wager) -> Wager {
        Wager {
            game: self.symbol(wager.game),
            currency: self.symbol(wager.currency),
            location: wager.location.map(|location| Location {
                jurisdiction: location.jurisdiction.map(|code| self.symbol(code)),
                ..location
            }),
            hits: wager.hits.as_deref().map(|hits| {
                let claims = hits.claims.iter().map(|claim| self.claim(*claim)).collect();
                Box::new(Hits { round: hits.round.clone(), claims })
            }),
            ..*wager
        }
    }

    fn claim(&mut self, claim: HitClaim) -> HitClaim {
        match claim {
            HitClaim::Level { pool, level } => {
                HitClaim::Level { pool: self.symbol(pool), level: self.symbol(level) }
            }
            HitClaim::Unreadable => HitClaim::Unreadable,
        }
    }
}

/// What a frame did, for the metrics.
pub fn tally(body: &Validated) -> Tally {
    let count = |len: usize| u64::try_from(len).expect("a length fits 64 bits");
    let mut tally = Tally { batches_in: count(body.batches.len()), ..Tally::default() };
    for batch in &body.batches {
        match &batch.verdict {
            Verdict::Accepted(accepted) => {
                tally.wagers_out += count(accepted.wagers.len());
                tally.wagers_in += count(accepted.wagers.len() + accepted.refusals.len());
                accepted.refusals.iter().for_each(|refusal| tally.refuse(refusal.reason));
                tally.gaps += count(accepted.gaps.len());
                tally.gap_batches += accepted.gaps.iter().map(|gap| gap.to - gap.from + 1).sum::<u64>();
            }
            Verdict::Refused(refused) => {
                tally.refuse(refused.reason);
                tally.conflicts += u64::from(refused.conflict);
            }
        }
    }
    tally
}
