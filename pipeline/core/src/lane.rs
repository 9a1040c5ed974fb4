//! The lane: drives one [`Stage`] of one partition, frame *n* of its input to frame *n* of its outputs.
//! Sans-io: [`runner`] awaits, the lane decides. Production, tests and the simulation share it.
//!
//! Invariants held here: I2 (one to one, in order, by number), I9 (a log that contradicts another stops the
//! lane), and the bound on appends in flight (I7). Nothing here reads a clock or knows a broker.

pub mod runner;

use std::collections::VecDeque;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::CodecError;
use crate::digest::Digest;
use crate::frame::{Frame, Header};
use crate::limits;
use crate::log::{Append, Entry, Expect};
use crate::snapshot::{self, Frozen, Kept, Saved, Unreadable};
use crate::stage::{Contradiction, Outcome, Publication, Stage, Tally};
use crate::terms::Terms;
use crate::time::Millis;

/// One stage of one partition.
pub struct Lane<S: Stage> {
    stage: S,
    partition: u16,
    /// The revision that the stage has learnt, and the version of the rules that it names.
    learnt: Option<(u64, u16)>,
    /// The revision of the last frame that was computed, or of the one to compute again: revisions only grow.
    revision: u64,
    /// The last frame that every output held when the lane resumed.
    resumed: u64,
    /// The last frame that was computed. After a resume it is `base`, or an earlier one where the stage is replayed.
    done: u64,
    /// Frames up to this one are computed for the stage's state alone; those after it that are stored are compared.
    base: u64,
    input: Input,
    /// Where the stage is replayed: the digest of the frame after `base`, as our own output recorded it.
    awaited: Option<Digest>,
    outputs: Vec<Output>,
    /// The last frame that is known to be stored as it was computed, and its digest in the first output.
    settled: (u64, Digest),
    flights: VecDeque<Flight>,
    /// Of a stage that is replayed: how many bytes of input it has folded since its last snapshot.
    folded: u64,
    /// A snapshot whose frame is not known to be stored yet, and how many of those bytes it holds.
    frozen: Option<(Frozen, u64)>,
}

/// What a snapshot of a stage that is replayed says of the lane, before the stage's own state.
#[derive(Serialize, Deserialize)]
struct Place {
    /// The digest of the input frame that was folded last.
    input: Digest,
    /// Its revision of the terms.
    revision: u64,
}

/// What is known of the input.
#[derive(Clone, Copy)]
enum Input {
    /// Nothing: no output holds a frame.
    Unread,
    /// The digest of the frame after `done`, as our own output recorded it.
    Recorded(Digest),
    /// The digest of the frame `done`, as it was read.
    Read(Digest),
}

/// An output's log as this lane knows it.
struct Output {
    /// The digests of the frames after `base` and `done` that are stored: to compute them again must give the same.
    stored: VecDeque<Digest>,
    /// The digest of the frame `done`.
    digest: Digest,
}

/// A frame whose appends are not all acknowledged.
struct Flight {
    sequence: u64,
    /// Its digest in the first output.
    digest: Digest,
    /// Of a stage that is replayed: what was appended, to append it again should it get lost.
    again: Vec<(usize, Append)>,
    unacknowledged: usize,
    bytes: usize,
    tally: Tally,
}

/// Where to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// Open the input at this sequence.
    pub from: u64,
    /// Messages of outputs that the lane must [know](Lane::recorded) first, in this order: the index of the output,
    /// and the sequence.
    pub wanted: Vec<(usize, u64)>,
    /// To be appended first: what was computed before, and was not stored. Each with the index of its output.
    pub again: Vec<(usize, Append)>,
}

/// What a frame of the input leads to.
#[derive(Debug, Default)]
pub struct Step {
    /// To be published before anything is appended.
    pub publications: Vec<Publication>,
    /// To be appended, each with the index of its output.
    pub appends: Vec<(usize, Append)>,
    /// When the broker received the newest wagers of the frame.
    pub recorded_at: Millis,
}

impl<S: Stage> Lane<S> {
    /// A lane that has yet to [`Lane::resume`].
    pub fn new(stage: S, partition: u16) -> Self {
        Self {
            stage,
            partition,
            learnt: None,
            revision: 0,
            resumed: 0,
            done: 0,
            base: 0,
            input: Input::Unread,
            awaited: None,
            outputs: Vec::new(),
            settled: (0, Digest::ZERO),
            flights: VecDeque::new(),
            folded: 0,
            frozen: None,
        }
    }

    /// Whether the state that this lane has folded is of use where the output ends with frame `end`: what is stored is
    /// that, or beyond it. Where it is not, [`Lane::thaw`] takes back a snapshot, or else everything is folded anew.
    pub fn goes_on_from(&self, end: u64) -> bool {
        let computed = || {
            let mut computed = self.flights.iter().map(|flight| flight.sequence).chain([self.settled.0]);
            computed.any(|sequence| sequence == end)
        };
        matches!(self.input, Input::Read(_)) && (self.done < end || computed())
    }

    /// Takes a snapshot back, before [`Lane::resume`].
    pub fn thaw(&mut self, kept: &Kept, content: &[u8]) -> Result<(), Unreadable> {
        let mut content = Saved(content);
        let place: Place = content.take()?;
        self.flights.clear();
        self.forget_logs(S::OUTPUTS.len());
        self.stage.thaw(content)?;
        self.done = kept.frame;
        self.input = Input::Read(place.input);
        self.revision = place.revision;
        self.outputs[0].digest = kept.digest;
        self.settled = (kept.frame, kept.digest);
        self.folded = 0;
        Ok(())
    }

    /// How many bytes of input were folded since the last snapshot.
    pub fn unfrozen(&self) -> u64 {
        self.folded - self.frozen.as_ref().map_or(0, |(_, bytes)| *bytes)
    }

    /// Whether a snapshot waits for its frame to be stored.
    pub fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    /// Freezes the state behind the last frame that was computed; [`Lane::frozen`] gives it once that frame is stored.
    pub fn freeze(&mut self) {
        let Input::Read(input) = self.input else { return };
        let place = snapshot::piece(&Place { input, revision: self.revision });
        let frozen = Frozen {
            frame: self.done,
            digest: self.outputs[0].digest,
            read: vec![self.done],
            format: S::SNAPSHOT_FORMAT,
            pieces: Box::new(std::iter::once(place).chain(self.stage.freeze())),
        };
        self.frozen = Some((frozen, self.folded));
    }

    /// The frozen state, once its frame is known to be stored.
    pub fn frozen(&mut self) -> Option<Frozen> {
        let (frozen, bytes) = self.frozen.take_if(|(frozen, _)| frozen.frame <= self.settled.0)?;
        self.folded -= bytes;
        Some(frozen)
    }

    /// Starts over from what the outputs hold; whatever was in flight is forgotten. The last frame that all outputs
    /// hold is computed again, and so are those behind it that only some hold: nothing is appended to a log that is
    /// not what this stage makes of its input. A stage that is replayed computes nothing twice that it remembers.
    ///
    /// `tails` are the last messages of the outputs, asked of their leaders, and `input_last` is the last
    /// sequence of the input, asked after them.
    pub fn resume(&mut self, tails: &[Option<Entry>], input_last: u64) -> Result<Resume, Contradiction> {
        assert_eq!(tails.len(), S::OUTPUTS.len(), "one tail per output lane");
        let ends: Vec<_> = tails.iter().map(|tail| tail.as_ref().map_or(0, |entry| entry.sequence)).collect();
        self.check_ends(&ends, input_last)?;
        self.awaited = None;
        self.frozen = None;
        self.resumed = ends.iter().copied().min().unwrap_or(0);
        self.base = self.resumed.saturating_sub(1);
        let mut again = Vec::new();
        if S::REPLAYS {
            again = self.rewind(tails[0].as_ref())?;
        } else {
            self.flights.clear();
            self.done = self.base;
            self.forget_logs(S::OUTPUTS.len());
        }
        for (output, &end) in self.outputs.iter_mut().zip(&ends) {
            output.stored = (self.base..end).map(|_| Digest::ZERO).collect();
        }
        let mut wanted = Vec::new();
        for (index, (tail, end)) in tails.iter().zip(ends).enumerate() {
            if let Some(entry) = tail.as_ref().filter(|entry| entry.sequence > self.base) {
                self.recorded(index, entry)?;
            }
            wanted.extend((self.base + 1..end).map(|sequence| (index, sequence)));
        }
        if S::RESTORES && self.done > 0 {
            wanted.push((0, self.done));
        } else if !S::REPLAYS {
            self.stage.restore(None)?;
        }
        Ok(Resume { from: self.done + 1, wanted, again })
    }

    /// Prepares a stage whose state is a fold of its input: it goes on from what it has folded, if what is stored is
    /// that or beyond it; otherwise it forgets everything and begins with the first frame. What it has computed and
    /// is not stored is to be appended again: it is not computed again, since nothing can be unfolded.
    fn rewind(&mut self, tail: Option<&Entry>) -> Result<Vec<(usize, Append)>, Contradiction> {
        assert_eq!(S::OUTPUTS.len(), 1, "a stage that is replayed has one output");
        let folded = self.goes_on_from(self.resumed);
        let stored = (self.resumed, tail.map_or(Digest::ZERO, |entry| Digest::of(&entry.payload)));
        let computed = self.flights.iter().map(|flight| (flight.sequence, flight.digest));
        let computed = computed.chain([self.settled]).find(|(sequence, _)| *sequence == stored.0);
        if let Some(computed) = computed.filter(|_| folded && self.resumed <= self.done) {
            if computed != stored {
                return Err(self.remade(0, self.resumed));
            }
            self.base = self.done;
            self.settled = stored;
            self.flights.retain(|flight| flight.sequence > stored.0);
            return Ok(self.flights.iter().flat_map(|flight| flight.again.clone()).collect());
        }
        self.flights.clear();
        if !folded {
            self.done = 0;
            self.forget_logs(S::OUTPUTS.len());
            self.stage.restore(None)?;
        }
        Ok(Vec::new())
    }

    /// Forgets what is known of the logs.
    fn forget_logs(&mut self, outputs: usize) {
        self.input = Input::Unread;
        self.revision = 0;
        self.outputs.clear();
        self.outputs.resize_with(outputs, || Output { stored: VecDeque::new(), digest: Digest::ZERO });
    }

    /// Takes in a message that an output holds: a frame that is computed again must be it.
    pub fn recorded(&mut self, output: usize, entry: &Entry) -> Result<(), Contradiction> {
        let header = self.own_header(output, entry)?;
        let digest = Digest::of(&entry.payload);
        let known = &mut self.outputs[output];
        if S::RESTORES && entry.sequence == self.done {
            return if digest == known.digest {
                self.stage.restore(Some(&entry.payload))
            } else {
                Err(Contradiction(format!(
                    "frame {} of {} is not the one that frame {} follows: one of them was changed; restore the stream \
                     from a backup",
                    self.done,
                    S::OUTPUTS[output].stream(self.partition),
                    self.done + 1
                )))
            };
        }
        let place =
            usize::try_from(entry.sequence - self.base - 1).expect("within the bound on what is in flight");
        known.stored[place] = digest;
        if place == 0 && S::REPLAYS {
            self.awaited = Some(header.input);
        } else if place == 0 {
            known.digest = header.previous;
            self.input = Input::Recorded(header.input);
            self.revision = header.terms;
        }
        Ok(())
    }

    /// The revision of the terms that must be [learnt](Lane::learn) before this frame can be accepted.
    pub fn terms_wanted(&self, entry: &Entry) -> Result<Option<u64>, Contradiction> {
        self.check_input(entry, || Digest::of(&entry.payload))?;
        let header =
            Header::peek::<S::Input>(&entry.payload).map_err(|error| self.unreadable(entry, &error))?;
        self.check_place(entry, &header)?;
        Ok(Some(header.terms).filter(|terms| self.learnt.is_none_or(|(learnt, _)| learnt != *terms)))
    }

    /// Terms to compute under from the next frame on.
    pub fn learn(&mut self, revision: u64, terms: &Terms) {
        self.learnt = Some((revision, terms.rules));
        self.stage.learn(terms);
    }

    /// Takes the next message of the input.
    pub fn accept(&mut self, entry: &Entry) -> Result<Step, Contradiction> {
        let digest = Digest::of(&entry.payload);
        self.check_input(entry, || digest)?;
        let frame =
            Frame::<S::Input>::decode(&entry.payload).map_err(|error| self.unreadable(entry, &error))?;
        self.check_place(entry, &frame.header)?;
        self.check_rules(&frame.header)?;
        let header = frame.header.clone();
        let outcome = self.stage.process(frame)?;
        let headers: Vec<_> =
            self.outputs.iter().map(|output| header.next_stage(digest, output.digest)).collect();
        let messages = outcome.encode(&headers);
        self.done = entry.sequence;
        self.folded += snapshot::weight(&entry.payload);
        self.input = Input::Read(digest);
        self.revision = header.terms;
        self.emit(&outcome, messages, header.recorded_at)
    }

    /// Whether another message of the input can be accepted within the bound on appends in flight.
    pub fn wants_input(&self) -> bool {
        let bytes: usize = self.flights.iter().map(|flight| flight.bytes).sum();
        self.flights.len() < limits::APPENDS_IN_FLIGHT_MAX && bytes < limits::APPEND_BYTES_IN_FLIGHT_MAX
    }

    /// Whether everything that was appended is acknowledged.
    pub fn settled(&self) -> bool {
        self.flights.is_empty()
    }

    /// An append of `output` was acknowledged with this sequence. Returns what the frame did, once all of its
    /// appends are acknowledged: frame by frame, since each output acknowledges in order.
    pub fn acknowledged(&mut self, output: usize, sequence: u64) -> Option<Tally> {
        assert!(output < self.outputs.len(), "there is such an output");
        let flight = self.flights.iter_mut().find(|flight| flight.sequence == sequence);
        let flight = flight.expect("a fenced append is stored under the sequence that it predicts");
        flight.unacknowledged -= 1;
        let done = self.flights.pop_front_if(|flight| flight.unacknowledged == 0)?;
        self.settled = (done.sequence, done.digest);
        Some(done.tally)
    }

    /// The last frame of the input that is done with.
    pub fn position(&self) -> u64 {
        self.done.max(self.resumed)
    }

    /// The last frame that is known to be stored as this lane computed it: unlike its position this never grows by what
    /// another process stores.
    pub fn proved(&self) -> u64 {
        self.settled.0
    }

    /// The last frame of the input that was taken in since the lane resumed, or the one before what it wants next.
    pub fn taken(&self) -> u64 {
        self.done
    }

    /// Turns a computed frame into appends, or compares it where the output holds it already.
    fn emit(
        &mut self,
        outcome: &S::Output,
        messages: Vec<Bytes>,
        recorded_at: Millis,
    ) -> Result<Step, Contradiction> {
        let (mut appends, mut bytes, mut digest) = (Vec::new(), 0, Digest::ZERO);
        for (index, payload) in messages.into_iter().enumerate() {
            assert!(
                payload.len() <= limits::MESSAGE_BYTES_MAX,
                "the limits on a frame keep it below a message"
            );
            let output = &mut self.outputs[index];
            output.digest = Digest::of(&payload);
            if index == 0 {
                digest = output.digest;
            }
            if self.done <= self.base {
                continue;
            }
            match output.stored.pop_front() {
                None => {
                    bytes += payload.len();
                    let subject = S::OUTPUTS[index].subject(self.partition);
                    let expect = Expect::Last(self.done - 1);
                    appends.push((index, Append { subject, headers: Vec::new(), payload, expect }));
                }
                Some(stored) if stored == output.digest => {}
                Some(_) => return Err(self.remade(index, self.done)),
            }
        }
        let publications = if appends.is_empty() { Vec::new() } else { outcome.publications().to_vec() };
        if appends.is_empty() {
            self.settled = (self.done, digest);
        } else {
            self.flights.push_back(Flight {
                sequence: self.done,
                digest,
                again: if S::REPLAYS { appends.clone() } else { Vec::new() },
                unacknowledged: appends.len(),
                bytes,
                tally: outcome.tally(),
            });
        }
        Ok(Step { publications, appends, recorded_at })
    }

    /// An output holds another frame than computing it again gives.
    fn remade(&self, output: usize, sequence: u64) -> Contradiction {
        Contradiction(format!(
            "frame {sequence} of {} is not what computing it again from {} gives: it was changed, or made by other \
             rules; restore both streams from a backup and let `jackpot verify` tell which is right",
            S::OUTPUTS[output].stream(self.partition),
            S::INPUT.stream(self.partition)
        ))
    }

    /// That no output is longer than the input, and none further ahead of another than what is in flight.
    fn check_ends(&self, ends: &[u64], input_last: u64) -> Result<(), Contradiction> {
        let stream = |index: usize| S::OUTPUTS[index].stream(self.partition);
        let places = || ends.iter().enumerate().rev();
        let (Some((least, &behind)), Some((most, &ahead))) =
            (places().min_by_key(|end| end.1), places().max_by_key(|end| end.1))
        else {
            return Ok(());
        };
        if input_last < ahead {
            return Err(Contradiction(format!(
                "{} ends at frame {input_last}, but {} holds frames made from it up to {ahead}: the input lost \
                 acknowledged frames; restore it from a backup or a replica, and do not let it grow again first",
                S::INPUT.stream(self.partition),
                stream(most)
            )));
        }
        let in_flight = u64::try_from(limits::APPENDS_IN_FLIGHT_MAX).expect("a small number");
        if ahead - behind > in_flight {
            return Err(Contradiction(format!(
                "{} ends at frame {behind}, but {}, which is written with it, at {ahead}: the shorter one lost \
                 acknowledged frames; restore it from a backup or a replica",
                stream(least),
                stream(most)
            )));
        }
        Ok(())
    }

    /// That this is the next message, and the one that our own output recorded, where it did.
    fn check_input(&self, entry: &Entry, digest: impl FnOnce() -> Digest) -> Result<(), Contradiction> {
        let stream = S::INPUT.stream(self.partition);
        if entry.sequence != self.done + 1 {
            return Err(Contradiction(format!(
                "{stream} goes on with frame {} and not with {}, from which {} is to be made: what is between was \
                 removed; restore it from a backup",
                entry.sequence,
                self.done + 1,
                S::OUTPUTS[0].stream(self.partition)
            )));
        }
        let recorded = match self.input {
            Input::Recorded(recorded) => Some(recorded),
            Input::Unread | Input::Read(_) => self.awaited.filter(|_| entry.sequence == self.base + 1),
        };
        match recorded {
            Some(recorded) if recorded != digest() => Err(Contradiction(format!(
                "frame {} of {stream} is not the one that {} was made from: it was changed, or the log lost its tail \
                 and grew again; restore it from a backup",
                entry.sequence,
                S::OUTPUTS[0].stream(self.partition)
            ))),
            _ => Ok(()),
        }
    }

    fn check_place(&self, entry: &Entry, header: &Header) -> Result<(), Contradiction> {
        let stream = S::INPUT.stream(self.partition);
        if header.sequence != entry.sequence || header.partition != self.partition {
            return Err(Contradiction(format!(
                "message {} of {stream} says that it is frame {} of partition {}: it was put there by hand; \
                 restore the stream from a backup",
                entry.sequence, header.sequence, header.partition
            )));
        }
        let follows = match self.input {
            Input::Unread => header.previous == Digest::ZERO,
            Input::Recorded(_) => true,
            Input::Read(digest) => header.previous == digest,
        };
        if !follows {
            return Err(Contradiction(format!(
                "frame {} of {stream} does not follow the frame {} that was read before it: one of them was \
                 changed; restore the stream from a backup",
                entry.sequence, self.done
            )));
        }
        if header.terms < self.revision {
            return Err(Contradiction(format!(
                "frame {} of {stream} is under revision {} of the terms, and the one before it was under {}: \
                 revisions only grow; the log was tampered with, restore it from a backup",
                entry.sequence, header.terms, self.revision
            )));
        }
        Ok(())
    }

    /// That a frame is made by the rules that its terms name.
    fn check_rules(&self, header: &Header) -> Result<(), Contradiction> {
        match self.learnt {
            Some((terms, rules)) if terms == header.terms && rules != header.rules => {
                Err(Contradiction(format!(
                    "frame {} of {} is written under rules {}, and revision {terms} of the terms names rules {rules}: the \
                     log was tampered with; restore it from a backup",
                    header.sequence,
                    S::INPUT.stream(self.partition),
                    header.rules
                )))
            }
            _ => Ok(()),
        }
    }

    /// The header of a message of one of our own outputs.
    fn own_header(&self, index: usize, entry: &Entry) -> Result<Header, Contradiction> {
        let stream = S::OUTPUTS[index].stream(self.partition);
        let header = Header::peek_any(&entry.payload)
            .map_err(|error| Contradiction::unreadable(&stream, entry.sequence, &error))?;
        if header.sequence == entry.sequence && header.partition == self.partition {
            Ok(header)
        } else {
            Err(Contradiction(format!(
                "message {} of {stream} says that it is frame {} of partition {}: it was put there by hand; \
                 restore the stream from a backup",
                entry.sequence, header.sequence, header.partition
            )))
        }
    }

    fn unreadable(&self, entry: &Entry, error: &CodecError) -> Contradiction {
        Contradiction::unreadable(&S::INPUT.stream(self.partition), entry.sequence, error)
    }
}
