//! The batches of a frame against the stored messages: each message ends in one batch of the frame, each wager of an
//! accepted one in one allocation or refusal, and what a frame says of a wager is what the raw one says
//! (invariant I3). [`crate::verify::lane`] asks it of each of the three lanes that hold wagers.

use bytes::Bytes;
use jackpot_core::frame::allocations::Allocation;
use jackpot_core::frame::batch::{Accepted, Batch, HitClaim, Hits, Refusal, Verdict};
use jackpot_core::frame::geofenced;
use jackpot_core::frame::symbols::Symbols;
use jackpot_core::frame::validated;
use jackpot_core::refusal::{Reason, StageName};
use jackpot_core::time::Millis;

use crate::verify::findings::{Check, Findings, Place};
use crate::verify::pools::country;
use crate::verify::raw;

/// How far `occurred_at` may lie after the broker's receive time, in milliseconds.
const FUTURE_MAX_MS: i64 = 5_000;
/// How far `checked_at` may lie after `occurred_at`, in milliseconds.
const CHECKED_AFTER_MAX_MS: i64 = 60_000;
/// Wagers of a batch at most.
const WAGERS_MAX: usize = 500;
/// Bytes of a batch at most.
const BYTES_MAX: usize = 512 * 1_024;

/// A stored batch.
#[derive(Debug, Clone)]
pub struct Message {
    /// Its sequence in the stream `wagers`.
    pub position: u64,
    /// The operator in its subject.
    pub operator: String,
    /// The source in its subject.
    pub source: String,
    /// When the broker received it.
    pub recorded_at: Millis,
    /// Its body.
    pub body: Bytes,
}

/// What a batch that was accepted says, read once for all lanes.
pub struct Reading {
    /// The source's number of it.
    pub sequence: u64,
    /// Its wagers, or why one cannot be read.
    pub wagers: Vec<Result<raw::Wager, String>>,
}

impl Message {
    /// Reads a batch that was accepted; why it cannot have been is a clause about it.
    pub fn read(&self) -> Result<Reading, String> {
        let raw: raw::Batch<'_> = serde_json::from_slice(&self.body)
            .map_err(|error| format!("is accepted, and cannot be read ({error})"))?;
        let named = (raw.operator.as_deref(), raw.source.as_deref());
        let sequence = raw.sequence.filter(|&sequence| sequence >= 1 && i64::try_from(sequence).is_ok());
        let wagers = raw.wagers.unwrap_or_default();
        let envelope = raw.schema.as_deref() == Some("wager-batch/1")
            && named == (Some(&self.operator), Some(&self.source))
            && (1..=WAGERS_MAX).contains(&wagers.len())
            && self.body.len() <= BYTES_MAX;
        match sequence.filter(|_| envelope) {
            Some(sequence) => Ok(Reading { sequence, wagers: wagers.into_iter().map(raw::wager).collect() }),
            None => Err("is accepted, and its envelope is not that of a batch".into()),
        }
    }

    /// The number that the batch gives itself, whether or not it was accepted.
    pub fn sequence(&self) -> Option<u64> {
        serde_json::from_slice::<raw::Batch<'_>>(&self.body).ok()?.sequence
    }
}

/// What a lane says of a wager.
pub trait Told {
    /// Its index in the batch.
    fn index(&self) -> u16;
    /// Compares it with the raw one; what differs is a clause about the wager.
    fn compare(&self, symbols: &Symbols, raw: &raw::Wager) -> Result<(), String>;
}

impl Told for validated::Wager {
    fn index(&self) -> u16 {
        self.index
    }

    fn compare(&self, symbols: &Symbols, raw: &raw::Wager) -> Result<(), String> {
        let same = (self.session, self.interaction) == (raw.session, raw.interaction)
            && symbols.name(self.game) == raw.game
            && self.amount.0 == raw.amount
            && symbols.name(self.currency) == raw.currency
            && (self.funds, self.opt_in, self.occurred_at) == (raw.funds, raw.opt_in, raw.occurred_at);
        let place = match (&self.location, &raw.location) {
            (None, None) => true,
            (Some(told), Some(raw)) => {
                told.checked_at == raw.checked_at
                    && told.jurisdiction.map(|code| symbols.name(code)) == raw.jurisdiction.as_deref()
                    && told.point.is_some() == raw.measured
            }
            _ => false,
        };
        if same && place {
            return compare_hits(symbols, self.hits.as_deref(), raw);
        }
        Err(format!(
            "is {} {} on {} at {} as it is written, and {} {} on {} at {} as it came{}",
            self.amount,
            symbols.name(self.currency),
            symbols.name(self.game),
            self.occurred_at,
            jackpot_core::money::Micro(raw.amount),
            raw.currency,
            raw.game,
            raw.occurred_at,
            if place { "" } else { ", in another place" }
        ))
    }
}

impl Told for geofenced::Wager {
    fn index(&self) -> u16 {
        self.index
    }

    fn compare(&self, symbols: &Symbols, raw: &raw::Wager) -> Result<(), String> {
        let same = symbols.name(self.game) == raw.game
            && self.amount.0 == raw.amount
            && symbols.name(self.currency) == raw.currency
            && (self.funds, self.opt_in, self.occurred_at) == (raw.funds, raw.opt_in, raw.occurred_at);
        if !same {
            return Err(format!(
                "is {} {} of {} on {} at {} as it is written, and {} {} of {} on {} at {} as it came",
                self.amount,
                symbols.name(self.currency),
                self.funds.as_str(),
                symbols.name(self.game),
                self.occurred_at,
                jackpot_core::money::Micro(raw.amount),
                raw.currency,
                raw.funds.as_str(),
                raw.game,
                raw.occurred_at
            ));
        }
        compare_place(symbols.name(self.jurisdiction), raw)?;
        compare_hits(symbols, self.hits.as_deref(), raw)
    }
}

impl Told for Allocation {
    fn index(&self) -> u16 {
        self.wager.index
    }

    fn compare(&self, symbols: &Symbols, raw: &raw::Wager) -> Result<(), String> {
        self.wager.compare(symbols, raw)
    }
}

/// A wager is placed where it says, or finer by its coordinates.
fn compare_place(placed: &str, raw: &raw::Wager) -> Result<(), String> {
    let Some(location) = &raw.location else {
        return Err(format!("is placed in {placed}, and came without a location"));
    };
    match &location.jurisdiction {
        Some(claim) if claim == placed => Ok(()),
        Some(claim) if location.measured && country(placed) == claim => Ok(()),
        None if location.measured => Ok(()),
        claim => Err(format!(
            "is placed in {placed}, and claims {}",
            claim.as_deref().unwrap_or("no jurisdiction and no point")
        )),
    }
}

fn compare_hits(symbols: &Symbols, told: Option<&Hits>, raw: &raw::Wager) -> Result<(), String> {
    let claims = told.map_or(&[][..], |hits| &hits.claims);
    let name = |claim: &HitClaim| match *claim {
        HitClaim::Level { pool, level } => Some((symbols.name(pool), symbols.name(level))),
        HitClaim::Unreadable => None,
    };
    let due = raw.hits.iter().map(|hit| hit.as_ref().map(|(pool, level)| (pool.as_str(), level.as_str())));
    let same = claims.iter().map(name).eq(due);
    if same && told.is_none_or(|hits| *hits.round == *raw.round) {
        return Ok(());
    }
    Err(format!("claims {} hits as it is written, and {} others as it came", claims.len(), raw.hits.len()))
}

/// One lane's frame, and where to report.
pub struct Inspection<'a> {
    /// What is found.
    pub findings: &'a mut Findings,
    /// The stream.
    pub stream: &'a str,
    /// The frame.
    pub frame: u64,
    /// The stage that wrote it: no later one can have refused anything.
    pub stage: StageName,
}

impl Inspection<'_> {
    fn fault(&mut self, check: Check, id: impl Into<String>, what: impl Into<String>) {
        self.findings.fault(check, Place::of(self.stream, self.frame).wager(id), what);
    }

    /// Compares the batches of a frame with the messages that it says it holds.
    pub fn batches<W: Told>(
        &mut self,
        symbols: &Symbols,
        batches: &[Batch<W>],
        messages: &[Message],
        readings: &mut [Option<Reading>],
    ) {
        if batches.len() != messages.len() {
            let what = format!(
                "the frame has {} batches, and {} messages are stored where it read",
                batches.len(),
                messages.len()
            );
            self.findings.fault(Check::Outcomes, Place::of(self.stream, self.frame), what);
            return;
        }
        for ((batch, message), reading) in batches.iter().zip(messages).zip(readings) {
            let id = format!("@{}", message.position);
            let told = (batch.position, batch.recorded_at);
            let named = (symbols.name(batch.operator), symbols.name(batch.source));
            if told != (message.position, message.recorded_at)
                || named != (&*message.operator, &*message.source)
            {
                self.fault(
                    Check::Outcomes,
                    id,
                    format!(
                        "the frame says that @{} of {}/{} was received at {}, and stored are @{} of {}/{} at {}",
                        batch.position,
                        named.0,
                        named.1,
                        batch.recorded_at,
                        message.position,
                        message.operator,
                        message.source,
                        message.recorded_at
                    ),
                );
                continue;
            }
            match &batch.verdict {
                Verdict::Accepted(accepted) => self.accepted(symbols, accepted, message, reading),
                Verdict::Refused(refused) if refuses_batches(refused.reason) => {}
                Verdict::Refused(refused) => {
                    let what = format!("it is refused whole as {}, which is about wagers", refused.reason);
                    self.fault(Check::Outcomes, &*refused.batch, what);
                }
            }
        }
    }

    fn accepted<W: Told>(
        &mut self,
        symbols: &Symbols,
        accepted: &Accepted<W>,
        message: &Message,
        reading: &mut Option<Reading>,
    ) {
        let batch = format!("{}/{}", message.source, accepted.sequence);
        if reading.is_none() {
            match message.read() {
                Ok(read) => *reading = Some(read),
                Err(what) => return self.fault(Check::Wagers, batch, format!("the batch {what}")),
            }
        }
        let Some(read) = reading else { return };
        if read.sequence != accepted.sequence {
            let what = format!("the batch is number {} as it came", read.sequence);
            self.fault(Check::Wagers, &*batch, what);
        }
        self.indexes(&batch, accepted, read.wagers.len());
        for told in &accepted.wagers {
            let Some(raw) = read.wagers.get(usize::from(told.index())) else { continue };
            let compared = raw.as_ref().map_err(Clone::clone).and_then(|raw| {
                if raw.occurred_at.0 > message.recorded_at.0.saturating_add(FUTURE_MAX_MS) {
                    return Err("lies further in the future than is allowed".into());
                }
                told.compare(symbols, raw)
            });
            if let Err(what) = compared {
                self.fault(Check::Wagers, format!("{batch}/{}", told.index()), format!("the wager {what}"));
            }
        }
        self.findings.count(Check::Wagers, accepted.wagers.len());
    }

    /// Indexes 0 to n are there once each, as a wager that stands or as a refusal.
    fn indexes<W: Told>(&mut self, batch: &str, accepted: &Accepted<W>, wagers: usize) {
        let mut ends = vec![0_u32; wagers];
        let stands = accepted.wagers.iter().map(Told::index);
        let refused = accepted.refusals.iter().filter(|refusal| refusal.hit.is_none());
        for index in stands.chain(refused.map(|refusal| refusal.index)) {
            match ends.get_mut(usize::from(index)) {
                Some(count) => *count += 1,
                None => {
                    let what = format!("the batch has no wager {index}; it came with {wagers}");
                    self.fault(Check::Outcomes, format!("{batch}/{index}"), what);
                }
            }
        }
        for (index, count) in ends.into_iter().enumerate().filter(|(_, count)| *count != 1) {
            let what = match count {
                0 => "the wager is neither allocated nor refused".to_owned(),
                _ => format!("the wager has {count} outcomes"),
            };
            self.fault(Check::Outcomes, format!("{batch}/{index}"), what);
        }
        if !accepted.wagers.iter().map(Told::index).is_sorted() {
            self.fault(Check::Outcomes, batch, "the wagers are not in the order of the batch");
        }
        for refusal in &accepted.refusals {
            if refusal.stage > self.stage || refuser(refusal) != Some(refusal.stage) {
                let what = format!("it is refused by {} as {}", refusal.stage, refusal.reason);
                self.fault(Check::Outcomes, format!("{batch}/{}", refusal.index), what);
            }
        }
    }
}

/// Compares the freshness of an allocated wager's location with the rule of its place.
pub fn freshness(raw: &raw::Wager, age_max: i64) -> Result<(), String> {
    let Some(location) = &raw.location else { return Ok(()) };
    let age = raw.occurred_at.0.saturating_sub(location.checked_at.0);
    if (-CHECKED_AFTER_MAX_MS..=age_max).contains(&age) {
        return Ok(());
    }
    Err(format!("is allocated, though its location was checked {age} ms before it and {age_max} are allowed"))
}

/// What earlier lanes say of a batch must stand in later ones: the same verdict, and their refusals.
pub fn narrowed<V, W>(earlier: &Batch<V>, later: &Batch<W>, stage: StageName) -> Result<(), String> {
    match (&earlier.verdict, &later.verdict) {
        (Verdict::Refused(earlier), Verdict::Refused(later)) if earlier == later => Ok(()),
        (Verdict::Accepted(earlier), Verdict::Accepted(later)) => {
            let kept: Vec<&Refusal> =
                later.refusals.iter().filter(|refusal| refusal.stage <= stage).collect();
            if (earlier.sequence, &earlier.gaps) != (later.sequence, &later.gaps) {
                return Err("it has another number or other gaps than in the lane before".into());
            }
            if !kept.into_iter().eq(&earlier.refusals) {
                return Err("its earlier refusals are not those of the lane before".into());
            }
            Ok(())
        }
        _ => Err("the verdict is another than in the lane before".into()),
    }
}

/// Whether a batch is refused whole for this reason.
fn refuses_batches(reason: Reason) -> bool {
    use Reason as R;
    matches!(
        reason,
        R::Malformed
            | R::UnsupportedSchema
            | R::SubjectMismatch
            | R::UnknownSource
            | R::BadSignature
            | R::DuplicateBatch
            | R::StaleSequence
            | R::SequenceJump
    )
}

/// Who refuses wagers, or hits, for this reason.
fn refuser(refusal: &Refusal) -> Option<StageName> {
    use Reason as R;
    match (refusal.reason, refusal.hit) {
        (R::HitRefused, Some(_)) | (R::UnknownGame, None) => Some(StageName::Allocate),
        (
            R::InvalidField
            | R::InvalidAmount
            | R::UnknownCurrency
            | R::OccurredInFuture
            | R::DuplicateInteraction,
            None,
        ) => Some(StageName::Validate),
        (
            R::LocationMissing
            | R::LocationStale
            | R::LocationUncertain
            | R::LocationConflict
            | R::ImpossibleTravel
            | R::JurisdictionBlocked,
            None,
        ) => Some(StageName::Geofence),
        _ => None,
    }
}
