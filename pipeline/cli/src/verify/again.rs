//! The frames of `validated-p` and `geofenced-p` computed again, by the stages themselves: from the stored wagers, the
//! recorded cut, and what a frame records of receive times, signatures and its watermark. With `jackpot verify --deep`
//! [`crate::verify::lane`] compares their digests with what is recorded, also where the frames were trimmed.
//! What stages remember is remembered here, for as long as the proof runs. Nothing here reads a log.

use std::collections::BTreeMap;

use geofence::Geofence;
use jackpot_core::digest::Digest;
use jackpot_core::frame::Frame;
use jackpot_core::frame::allocations::Allocations;
use jackpot_core::frame::validated::Validated;
use jackpot_core::log::Entry;
use jackpot_core::stage::{Outcome, Stage};
use jackpot_core::terms::Terms;
use jackpot_core::topology::IngressSubject;
use validate::{CompiledTerms, ParsedMessage, State, parse, recorded_signature, recut};

/// Two stages of one partition, up to some frame.
pub struct Stages {
    state: State,
    geofence: Geofence,
    compiled: CompiledTerms,
    /// The digest of the last frame of `geofenced-p`.
    geofenced: Digest,
}

/// The digests of a frame that was computed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digests {
    /// In `validated-p`.
    pub validated: Digest,
    /// In `geofenced-p`.
    pub geofenced: Digest,
}

impl Stages {
    /// Before the first frame of a partition.
    pub fn new(partition: u16) -> Self {
        let terms = Terms::none();
        let mut geofence = Geofence::default();
        geofence.learn(&terms);
        let compiled = CompiledTerms::new(&terms);
        Self { state: State::new(partition), geofence, compiled, geofenced: Digest::ZERO }
    }

    /// Computes the next frame, of which `recorded` is what allocate made, and `entries` all that it read of the
    /// ingress. Why it cannot be computed is a clause; after one, the stages are of no further use.
    pub fn next(
        &mut self,
        recorded: &Frame<Allocations>,
        entries: &[Entry],
        terms: &Terms,
    ) -> Result<Digests, String> {
        if self.compiled.revision() != terms.revision {
            self.compiled = CompiledTerms::new(terms);
            self.geofence.learn(terms);
        }
        let messages = messages(recorded, entries)?;
        let frame = recut(&self.state, &self.compiled, &recorded.header, &messages);
        let frame = frame.ok_or("no frame can be cut there")?;
        let validated = Digest::of(&frame.encode());
        self.state.fold(&frame, validated, &self.compiled).map_err(|error| error.to_string())?;
        self.geofenced = self.place(frame, validated)?;
        Ok(Digests { validated, geofenced: self.geofenced })
    }

    fn place(&mut self, frame: Frame<Validated>, validated: Digest) -> Result<Digest, String> {
        let header = frame.header.next_stage(validated, self.geofenced);
        let placed = self.geofence.process(frame).map_err(|error| error.to_string())?;
        Ok(Digest::of(&placed.encode(&[header])[0]))
    }
}

/// The messages of a frame as validate reads them, with what the frame records of each.
fn messages(recorded: &Frame<Allocations>, entries: &[Entry]) -> Result<Vec<ParsedMessage>, String> {
    let batches: BTreeMap<_, _> = recorded.body.batches.iter().map(|batch| (batch.position, batch)).collect();
    let message = |entry: &Entry| match batches.get(&entry.sequence) {
        Some(batch) => {
            let entry = Entry { recorded_at: batch.recorded_at, ..entry.clone() };
            Ok(parse(&entry).with_recorded(recorded_signature(&batch.verdict)))
        }
        // Whether an unrecorded batch was signed nobody can tell.
        None if matches!(IngressSubject::parse(&entry.subject), Some(IngressSubject::Batch { .. })) => {
            Err(format!("it does not hold the batch @{}", entry.sequence))
        }
        None => Ok(parse(entry)),
    };
    entries.iter().map(message).collect()
}
