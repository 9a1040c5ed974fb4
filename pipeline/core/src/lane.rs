//! The lane: drives one [`Stage`] of one partition, frame *n* of its input to frame *n* of its outputs.
//! Sans-io: [`runner`] awaits, the lane decides. Production, tests and the simulation share it.
//!
//! Invariants held here: I2 (one to one, in order, by number), I9 (a log that contradicts another stops the
//! lane), and the bound on appends in flight (I7). Nothing here reads a clock or knows a broker.

pub mod runner;

use std::collections::VecDeque;

use bytes::Bytes;

use crate::digest::Digest;
use crate::frame::{Frame, Header};
use crate::limits;
use crate::log::{Append, Entry, Expect};
use crate::stage::{Contradiction, Outcome, Publication, Stage, Tally};
use crate::terms::Terms;

/// One stage of one partition.
pub struct Lane<S: Stage> {
    stage: S,
    partition: u16,
    /// The revision that the stage computes under.
    terms: Option<u64>,
    /// The last frame of the input that is done with, or computed with its outputs in flight.
    done: u64,
    /// What the message `done` of the input must be; `None` before the first.
    input: Option<Input>,
    outputs: Vec<Output>,
    flights: VecDeque<Flight>,
}

/// The digest of a frame of the input.
enum Input {
    /// Recorded in our own output, and not yet compared with what the input holds.
    Recorded(Digest),
    /// Read.
    Read(Digest),
}

/// An output's log as this lane knows it.
struct Output {
    /// The last frame that is stored, as far as was read when the lane resumed.
    stored: u64,
    /// The digest of that frame.
    stored_digest: Digest,
    /// The digest of the frame `done` of this output.
    digest: Digest,
}

/// A frame whose appends are not all acknowledged.
struct Flight {
    sequence: u64,
    unacknowledged: usize,
    bytes: usize,
    tally: Tally,
}

/// Where to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// Open the input at this sequence.
    pub from: u64,
    /// For each output that is ahead of another one: its index, and the frame whose digest is wanted.
    pub anchors: Vec<(usize, u64)>,
}

/// What a frame of the input leads to.
#[derive(Debug, Default)]
pub struct Step {
    /// To be published before anything is appended.
    pub publications: Vec<Publication>,
    /// To be appended, each with the index of its output.
    pub appends: Vec<(usize, Append)>,
}

impl<S: Stage> Lane<S> {
    /// A lane that has yet to [`Lane::resume`].
    pub fn new(stage: S, partition: u16) -> Self {
        Self {
            stage,
            partition,
            terms: None,
            done: 0,
            input: None,
            outputs: Vec::new(),
            flights: VecDeque::new(),
        }
    }

    /// Starts over from what the outputs hold; whatever was in flight is forgotten.
    ///
    /// `tails` are the last messages of the outputs, asked of their leaders, and `input_last` is the last
    /// sequence of the input, asked after them.
    pub fn resume(&mut self, tails: &[Option<Entry>], input_last: u64) -> Result<Resume, Contradiction> {
        assert_eq!(tails.len(), S::OUTPUTS.len(), "one tail per output lane");
        self.flights.clear();
        self.outputs.clear();
        let mut recorded = Vec::new();
        for (index, tail) in tails.iter().enumerate() {
            let header = tail.as_ref().map(|entry| self.own_header(index, entry)).transpose()?;
            self.outputs.push(Output {
                stored: header.as_ref().map_or(0, |header| header.sequence),
                stored_digest: tail.as_ref().map_or(Digest::ZERO, |entry| Digest::of(&entry.payload)),
                digest: Digest::ZERO,
            });
            recorded.push(header);
        }
        self.done = self.outputs.iter().map(|output| output.stored).min().unwrap_or(0);
        if input_last < self.done {
            return Err(Contradiction(format!(
                "{} ends at frame {input_last}, but {} holds frames made from it up to {}: the input lost \
                 acknowledged frames; restore it from a backup or a replica, and do not let it grow again first",
                S::INPUT.stream(self.partition),
                S::OUTPUTS[0].stream(self.partition),
                self.done
            )));
        }
        let mut anchors = Vec::new();
        self.input = None;
        for (index, (output, header)) in self.outputs.iter_mut().zip(recorded).enumerate() {
            if output.stored == self.done {
                output.digest = output.stored_digest;
                self.input = header.map(|header| Input::Recorded(header.input));
            } else if self.done > 0 {
                anchors.push((index, self.done));
            }
        }
        let restorable = tails.iter().flatten().find(|entry| entry.sequence == self.done);
        self.stage.restore(restorable.map(|entry| entry.payload.as_ref()))?;
        Ok(Resume { from: self.done.max(1), anchors })
    }

    /// Answers an anchor of [`Resume`]: the message of that output.
    pub fn anchor(&mut self, output: usize, entry: &Entry) {
        self.outputs[output].digest = Digest::of(&entry.payload);
    }

    /// The revision of the terms that must be [learnt](Lane::learn) before this frame can be accepted.
    pub fn terms_wanted(&self, entry: &Entry) -> Result<Option<u64>, Contradiction> {
        let header =
            Header::peek::<S::Input>(&entry.payload).map_err(|error| self.unreadable(entry, &error))?;
        match self.terms {
            Some(known) if known > header.terms => Err(Contradiction(format!(
                "frame {} of {} is under revision {} of the terms, and the one before it was under {known}: \
                 revisions only grow; the log was tampered with, restore it from a backup",
                entry.sequence,
                S::INPUT.stream(self.partition),
                header.terms
            ))),
            Some(known) if known == header.terms => Ok(None),
            _ => Ok(Some(header.terms)),
        }
    }

    /// Terms to compute under from the next frame on.
    pub fn learn(&mut self, revision: u64, terms: &Terms) {
        self.terms = Some(revision);
        self.stage.learn(terms);
    }

    /// Takes the next message of the input. The first one after a resume may be the last one done, which is
    /// compared with what was recorded of it and leads to nothing.
    pub fn accept(&mut self, entry: &Entry) -> Result<Step, Contradiction> {
        let digest = Digest::of(&entry.payload);
        if entry.sequence == self.done {
            return self.compare(entry, digest).map(|()| Step::default());
        }
        assert_eq!(entry.sequence, self.done + 1, "the reader checks that no sequence is missing");
        let previous = match &self.input {
            None => Digest::ZERO,
            Some(Input::Read(digest)) => *digest,
            Some(Input::Recorded(_)) => {
                return Err(Contradiction(format!(
                    "frame {} of {}, from which the last output was made, is not there any more; restore it",
                    self.done,
                    S::INPUT.stream(self.partition)
                )));
            }
        };
        let frame =
            Frame::<S::Input>::decode(&entry.payload).map_err(|error| self.unreadable(entry, &error))?;
        self.check_place(entry, &frame.header, previous)?;
        let header = frame.header.clone();
        let outcome = self.stage.process(frame)?;
        let headers: Vec<_> =
            self.outputs.iter().map(|output| header.next_stage(digest, output.digest)).collect();
        let messages = outcome.encode(&headers);
        self.done = entry.sequence;
        self.input = Some(Input::Read(digest));
        self.emit(&outcome, messages)
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
    /// appends are acknowledged.
    pub fn acknowledged(&mut self, output: usize, sequence: u64) -> Option<Tally> {
        self.outputs[output].stored = self.outputs[output].stored.max(sequence);
        let flight = self.flights.iter_mut().find(|flight| flight.sequence == sequence);
        let flight = flight.expect("a fenced append is stored under the sequence that it predicts");
        flight.unacknowledged -= 1;
        let done = self.flights.front().is_some_and(|flight| flight.unacknowledged == 0);
        if done { self.flights.pop_front().map(|flight| flight.tally) } else { None }
    }

    /// The last frame of the input that was accepted.
    pub fn position(&self) -> u64 {
        self.done
    }

    /// Turns a computed frame into appends, or compares it where the output holds it already.
    fn emit(&mut self, outcome: &S::Output, messages: Vec<Bytes>) -> Result<Step, Contradiction> {
        let (mut appends, mut bytes) = (Vec::new(), 0);
        for (index, payload) in messages.into_iter().enumerate() {
            assert!(
                payload.len() <= limits::MESSAGE_BYTES_MAX,
                "the limits on a frame keep it below a message"
            );
            let output = &mut self.outputs[index];
            output.digest = Digest::of(&payload);
            if self.done > output.stored {
                bytes += payload.len();
                let subject = S::OUTPUTS[index].subject(self.partition);
                let expect = Expect::Last(self.done - 1);
                appends.push((index, Append { subject, headers: Vec::new(), payload, expect }));
            } else if self.done == output.stored && output.digest != output.stored_digest {
                return Err(Contradiction(format!(
                    "frame {} of {} is not what computing it again from {} gives: it was changed, or made by \
                     other rules; restore both streams from a backup and let `jackpot verify` tell which is right",
                    self.done,
                    S::OUTPUTS[index].stream(self.partition),
                    S::INPUT.stream(self.partition)
                )));
            }
        }
        let publications = if appends.is_empty() { Vec::new() } else { outcome.publications().to_vec() };
        if !appends.is_empty() {
            let flight =
                Flight { sequence: self.done, unacknowledged: appends.len(), bytes, tally: outcome.tally() };
            self.flights.push_back(flight);
        }
        Ok(Step { publications, appends })
    }

    /// Compares the last input that was done with what our own output recorded of it.
    fn compare(&mut self, entry: &Entry, digest: Digest) -> Result<(), Contradiction> {
        match &self.input {
            Some(Input::Recorded(recorded)) if *recorded == digest => {
                self.input = Some(Input::Read(digest));
                Ok(())
            }
            Some(Input::Recorded(_)) => Err(Contradiction(format!(
                "frame {} of {} is not the one that {} was made from: it was changed, or the log lost its tail and \
                 grew again; restore it from a backup",
                entry.sequence,
                S::INPUT.stream(self.partition),
                S::OUTPUTS[0].stream(self.partition)
            ))),
            _ => unreachable!("a message comes once after each resume"),
        }
    }

    fn check_place(&self, entry: &Entry, header: &Header, previous: Digest) -> Result<(), Contradiction> {
        let stream = S::INPUT.stream(self.partition);
        if header.sequence != entry.sequence || header.partition != self.partition {
            return Err(Contradiction(format!(
                "message {} of {stream} says that it is frame {} of partition {}: it was put there by hand; \
                 restore the stream from a backup",
                entry.sequence, header.sequence, header.partition
            )));
        }
        if header.previous != previous {
            return Err(Contradiction(format!(
                "frame {} of {stream} does not follow the frame {} that was read before it: one of them was \
                 changed; restore the stream from a backup",
                entry.sequence,
                entry.sequence - 1
            )));
        }
        Ok(())
    }

    /// The header of the last message of one of our own outputs.
    fn own_header(&self, index: usize, entry: &Entry) -> Result<Header, Contradiction> {
        let stream = S::OUTPUTS[index].stream(self.partition);
        let header = Header::peek_any(&entry.payload).map_err(|error| {
            Contradiction(format!(
                "the last message of {stream} is no frame that this build can read ({error}); \
                 run a build that knows it, or restore the stream from a backup"
            ))
        })?;
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

    fn unreadable(&self, entry: &Entry, error: &crate::codec::CodecError) -> Contradiction {
        Contradiction(format!(
            "frame {} of {} cannot be read ({error}); run a build that knows its format, or restore the stream \
             from a backup if it was changed",
            entry.sequence,
            S::INPUT.stream(self.partition)
        ))
    }
}
