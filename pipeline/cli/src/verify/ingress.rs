//! A partition's part of the ingress, read again from the stored messages: the chain over them, how many there are,
//! and which revision of the terms is in force where.

use jackpot_core::digest::Digest;
use jackpot_core::frame::{Header, Ingress};
use jackpot_core::log::{Entry, Log};
use jackpot_core::terms::store;
use jackpot_core::time::Millis;
use jackpot_core::topology::IngressSubject;

use crate::verify::findings::{Check, Findings, Place};
use crate::verify::outcomes::Message;
use crate::verify::shelf::Shelf;
use crate::verify::tape::Tape;

/// The ingress of a partition, up to some message.
pub struct Intake<L: Log> {
    tape: Tape<L>,
    read: Ingress,
    /// The latest receive time so far.
    recorded_at: Millis,
    /// The revision in force behind what was read.
    revision: u64,
    /// Whether frames get all that they read of the ingress, as it is stored.
    entries: bool,
}

/// What a frame holds of the ingress.
#[derive(Default)]
pub struct Ingested {
    /// Its batches, in order.
    pub messages: Vec<Message>,
    /// All messages as they are stored, where somebody cuts frames again.
    pub entries: Vec<Entry>,
}

impl<L: Log> Intake<L> {
    /// From the first message on.
    pub fn new(tape: Tape<L>, entries: bool) -> Self {
        Self { tape, read: Ingress::default(), recorded_at: Millis(i64::MIN), revision: 0, entries }
    }

    /// Reads up to where the frame says that it read, and compares what the frame says of it.
    pub async fn read(
        &mut self,
        place: &Place,
        header: &Header,
        shelf: &mut Shelf<L>,
        findings: &mut Findings,
    ) -> anyhow::Result<Ingested> {
        let mut ingested = Ingested::default();
        let fault = |findings: &mut Findings, what: String| {
            findings.fault(Check::Ingress, place.clone(), what);
        };
        while let Some(entry) = self.tape.until(header.ingress.position).await? {
            findings.count(Check::Ingress, 1);
            self.chain(&entry);
            match IngressSubject::parse(&entry.subject) {
                Some(IngressSubject::Batch { operator, source }) => ingested.messages.push(Message {
                    position: entry.sequence,
                    operator: operator.to_owned(),
                    source: source.to_owned(),
                    recorded_at: entry.recorded_at,
                    body: entry.payload.clone(),
                }),
                Some(IngressSubject::Terms) => {
                    let turns = self.marker(&entry, shelf, findings).await?;
                    if turns && !ingested.messages.is_empty() {
                        let what = "the frame holds batches from before and after a change of terms";
                        fault(findings, what.into());
                    }
                }
                None => {}
            }
            if self.entries {
                ingested.entries.push(entry);
            }
        }
        if header.ingress != self.read {
            let Ingress { position, count, .. } = header.ingress;
            fault(
                findings,
                format!(
                    "the frame read {count} messages up to {position}, and stored are {} up to {}{}",
                    self.read.count,
                    self.read.position,
                    if (position, count) == (self.read.position, self.read.count) {
                        ", of which one was changed"
                    } else {
                        ""
                    }
                ),
            );
            // What follows is judged from here, so that one change is one finding.
            self.read = header.ingress;
        }
        if header.recorded_at != self.recorded_at {
            let what = format!(
                "the latest of its messages was received at {}, and it says {}",
                self.recorded_at, header.recorded_at
            );
            fault(findings, what);
        }
        if header.terms != self.revision {
            let what = format!(
                "the frame is under revision {} of the terms, and {} is in force",
                header.terms, self.revision
            );
            fault(findings, what);
            self.revision = header.terms;
        }
        Ok(ingested)
    }

    /// `chain' = SHA-256(chain ‖ position ‖ subject ‖ SHA-256(body))`, the position in eight bytes, low byte first.
    fn chain(&mut self, entry: &Entry) {
        let body = Digest::of(&entry.payload);
        let position = entry.sequence.to_le_bytes();
        let Ingress { count, chain, .. } = self.read;
        let chain = Digest::of_parts(&[&chain.0, &position, entry.subject.as_bytes(), &body.0]);
        self.read = Ingress { position: entry.sequence, count: count + 1, chain };
        self.recorded_at = self.recorded_at.max(entry.recorded_at);
    }

    /// Takes a marker; true when it puts a later revision in force.
    async fn marker(
        &mut self,
        entry: &Entry,
        shelf: &mut Shelf<L>,
        findings: &mut Findings,
    ) -> anyhow::Result<bool> {
        let Ok(marker) = store::read_marker(entry) else { return Ok(false) };
        if marker.revision <= self.revision {
            return Ok(false);
        }
        self.revision = marker.revision;
        let terms = shelf.get(marker.revision, findings).await?;
        if terms.is_some_and(|terms| terms.digest() != marker.digest) {
            let what = format!("revision {} is not the document that was put in force", marker.revision);
            findings.fault(Check::Ingress, Place::of(self.tape.stream(), entry.sequence), what);
        }
        Ok(true)
    }
}
