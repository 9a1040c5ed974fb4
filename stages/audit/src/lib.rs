//! The audit stage: checks that what allocate wrote is what the terms say, makes a leaf of a Merkle tree of the
//! outcome of every wager, and tells producers what was refused. The lane in `jackpot_core` drives [`Audit`].
//!
//! It shares types with allocate and no code: what is expected it reads from the terms by itself (`reading`).
//! Whatever differs stops the partition; nothing is repaired here and nothing is guessed.

pub mod fate;
pub mod leaf;
mod parts;
mod reading;
pub mod sources;

pub use parts::parts;

use bytes::Bytes;
use jackpot_core::frame::allocations::{Allocation, Allocations};
use jackpot_core::frame::audited::{Audited, Incident};
use jackpot_core::frame::batch::{Accepted, Batch, Refusal, RefusedBatch, Verdict};
use jackpot_core::frame::symbols::{Symbol, Symbols};
use jackpot_core::frame::{self, Frame, Header};
use jackpot_core::merkle::Frontier;
use jackpot_core::record::RefusalNotice;
use jackpot_core::refusal::{Reason, StageName};
use jackpot_core::stage::{Contradiction, Outcome, Place, Publication, Stage, Tally};
use jackpot_core::terms::Terms;
use jackpot_core::topology::{self, Lane};

use crate::fate::{Fate, fates};
use crate::leaf::{Leaves, Origin};
use crate::reading::{Reading, Recall};

/// The stage. Its state is the frontier of the partition's tree, which its last entry holds.
#[derive(Debug, Default)]
pub struct Audit {
    reading: Reading,
    frontier: Frontier,
}

/// What the stage makes of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// For the log.
    pub audited: Audited,
    /// For the producers: every refusal of the frame, in log order.
    pub notices: Vec<Publication>,
    tally: Tally,
}

impl Stage for Audit {
    const NAME: StageName = StageName::Audit;
    const INPUT: Lane = Lane::Allocations;
    const OUTPUTS: &'static [Lane] = &[Lane::Audit];
    const RESTORES: bool = true;
    type Input = Allocations;
    type Output = Entry;

    fn learn(&mut self, terms: &Terms) {
        self.reading = Reading::of(terms);
    }

    fn restore(&mut self, last: Option<&[u8]>) -> Result<(), Contradiction> {
        self.frontier = match last {
            None => Frontier::default(),
            Some(message) => frontier_of(message)?,
        };
        Ok(())
    }

    fn process(&mut self, frame: Frame<Allocations>) -> Result<Entry, Contradiction> {
        assert_eq!(
            frame.header.terms,
            self.reading.revision(),
            "the lane teaches a frame's terms before it hands the frame over"
        );
        let mut examination = Examination {
            header: &frame.header,
            symbols: &frame.body.symbols,
            recall: Recall::new(&self.reading, &frame.body.symbols),
            leaves: Leaves::default(),
            audited: Audited::default(),
            notices: Vec::new(),
            tally: Tally::default(),
        };
        for batch in &frame.body.batches {
            examination.examine(batch).map_err(|finding| contradiction(&frame.header, &finding))?;
        }
        let Examination { leaves, mut audited, notices, tally, .. } = examination;
        audited.leaves = leaves.hashes();
        audited.leaves.iter().for_each(|leaf| self.frontier.append(*leaf));
        audited.tree_size = self.frontier.size();
        audited.frontier = self.frontier.roots().to_vec();
        Ok(Entry { audited, notices, tally })
    }
}

impl Outcome for Entry {
    fn encode(&self, headers: &[Header]) -> Vec<Bytes> {
        headers.iter().map(|header| frame::encode(header, &self.audited)).collect()
    }

    /// The audit is the end of the way: it refuses nothing, and no wager goes on.
    fn tally(&self) -> Tally {
        self.tally.clone()
    }

    fn publications(&self) -> &[Publication] {
        &self.notices
    }
}

/// The frontier that the last message of `audit-p` holds.
fn frontier_of(message: &[u8]) -> Result<Frontier, Contradiction> {
    let entry = Frame::<Audited>::decode(message).map_err(|error| {
        Contradiction(format!(
            "the last entry of this partition's audit log cannot be read ({error}); run a build that knows its \
             format, or restore the stream from a backup if it was changed"
        ))
    })?;
    let (size, roots) = (entry.body.tree_size, entry.body.frontier);
    Frontier::new(size, roots).ok_or_else(|| {
        Contradiction(format!(
            "entry {} of {} has a frontier that fits no tree of {size} leaves; restore the stream from a backup",
            entry.header.sequence,
            Lane::Audit.stream(entry.header.partition)
        ))
    })
}

fn contradiction(header: &Header, finding: &str) -> Contradiction {
    Contradiction(format!(
        "frame {} of {} is not what the terms of revision {} give: {finding}; keep all streams as they are, and \
         find out whether allocate or audit reads the terms wrongly",
        header.sequence,
        Lane::Allocations.stream(header.partition),
        header.terms
    ))
}

/// The examination of one frame. What is found wrong is a clause of a sentence that names the wager or batch.
struct Examination<'a> {
    header: &'a Header,
    symbols: &'a Symbols,
    recall: Recall<'a>,
    leaves: Leaves,
    audited: Audited,
    notices: Vec<Publication>,
    tally: Tally,
}

impl<'a> Examination<'a> {
    fn examine(&mut self, batch: &'a Batch<Allocation>) -> Result<(), String> {
        let origin = Origin {
            operator: self.symbols.name(batch.operator),
            source: self.symbols.name(batch.source),
            position: batch.position,
            recorded_at: batch.recorded_at,
            terms: self.header.terms,
        };
        match &batch.verdict {
            Verdict::Accepted(accepted) => self.examine_accepted(batch, origin, accepted),
            Verdict::Refused(refused) => self.examine_refused(batch, origin, refused),
        }
    }

    fn examine_refused(
        &mut self,
        batch: &Batch<Allocation>,
        origin: Origin<'a>,
        refused: &RefusedBatch,
    ) -> Result<(), String> {
        if !is_about_a_batch(refused.reason) {
            return Err(format!("the batch {} is refused whole as {}", refused.batch, refused.reason));
        }
        if refused.conflict {
            let (operator, source) = self.names(origin);
            self.audited.incidents.push(Incident::Conflict { operator, source, position: batch.position });
        }
        self.leaves.refused_batch(origin, refused);
        self.publish(
            origin,
            RefusalNotice {
                batch: Some(refused.batch.to_string()),
                ..self.notice(origin, StageName::Validate, refused.reason, &refused.detail)
            },
        );
        Ok(())
    }

    fn examine_accepted(
        &mut self,
        batch: &'a Batch<Allocation>,
        origin: Origin<'a>,
        accepted: &'a Accepted<Allocation>,
    ) -> Result<(), String> {
        let name = |index: u16| format!("{}/{}/{index}", origin.source, accepted.sequence);
        for fate in fates(accepted) {
            let fate = fate.map_err(|disorder| {
                format!("the batch {}/{} is in disorder, since {disorder}", origin.source, accepted.sequence)
            })?;
            match fate {
                Fate::Allocated { allocation, hit_refusals } => self
                    .recall
                    .check(batch.operator, allocation, hit_refusals)
                    .map_err(|finding| format!("the wager {} {finding}", name(allocation.wager.index)))?,
                Fate::Refused(refusal) if is_about_a_wager(refusal) => {}
                Fate::Refused(Refusal { index, stage, reason, .. }) => {
                    return Err(format!("the wager {} is refused by {stage} as {reason}", name(*index)));
                }
            }
            self.leaves.wager(origin, self.symbols, accepted.sequence, fate);
        }
        self.tally.wagers_in += accepted.wagers.len() as u64;
        for &gap in &accepted.gaps {
            let (operator, source) = self.names(origin);
            self.audited.incidents.push(Incident::Gap { operator, source, gap });
        }
        for refusal in &accepted.refusals {
            let notice = RefusalNotice {
                wager: Some(name(refusal.index)),
                ..self.notice(origin, refusal.stage, refusal.reason, &refusal.detail)
            };
            self.publish(origin, notice);
        }
        Ok(())
    }

    /// The operator and the source as symbols of the entry.
    fn names(&mut self, origin: Origin<'a>) -> (Symbol, Symbol) {
        let symbols = &mut self.audited.symbols;
        (symbols.intern(origin.operator), symbols.intern(origin.source))
    }

    fn notice(&self, origin: Origin<'a>, stage: StageName, reason: Reason, detail: &str) -> RefusalNotice {
        RefusalNotice {
            wager: None,
            batch: None,
            stage,
            reason,
            detail: detail.into(),
            at: origin.recorded_at,
            operator: origin.operator.into(),
            source: origin.source.into(),
            partition: self.header.partition,
            frame: self.header.sequence,
            number: u32::try_from(self.notices.len()).expect("a frame's bytes bound its refusals"),
        }
    }

    fn publish(&mut self, origin: Origin<'a>, notice: RefusalNotice) {
        self.notices.push(Publication {
            subject: topology::refusals(origin.operator, origin.source),
            place: Place { frame: notice.frame, number: notice.number },
            payload: serde_json::to_vec(&notice).expect("a notice is plain data").into(),
        });
    }
}

/// Whether validate refuses a batch whole for this reason.
fn is_about_a_batch(reason: Reason) -> bool {
    use Reason::{
        BadSignature, DuplicateBatch, Malformed, SequenceJump, StaleSequence, SubjectMismatch, UnknownSource,
        UnsupportedSchema,
    };
    matches!(
        reason,
        Malformed
            | UnsupportedSchema
            | SubjectMismatch
            | UnknownSource
            | BadSignature
            | DuplicateBatch
            | StaleSequence
            | SequenceJump
    )
}

/// Whether the stage that refused a wager refuses wagers for this reason.
fn is_about_a_wager(refusal: &Refusal) -> bool {
    use Reason::{
        DuplicateInteraction, ImpossibleTravel, InvalidAmount, InvalidField, JurisdictionBlocked,
        LocationConflict, LocationMissing, LocationStale, LocationUncertain, OccurredInFuture,
        UnknownCurrency, UnknownGame,
    };
    let of = match refusal.reason {
        InvalidField | InvalidAmount | UnknownCurrency | OccurredInFuture | DuplicateInteraction => {
            StageName::Validate
        }
        LocationMissing | LocationStale | LocationUncertain | LocationConflict | ImpossibleTravel
        | JurisdictionBlocked => StageName::Geofence,
        UnknownGame => StageName::Allocate,
        _ => return false,
    };
    refusal.stage == of
}

#[cfg(test)]
mod tests;
