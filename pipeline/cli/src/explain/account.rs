//! The account of a wager or a batch: what the logs hold of it, stage by stage, in one object. `--json` gives it as it
//! is, `render` writes it for people.

use std::sync::Arc;

use anyhow::bail;
use jackpot_core::digest::Digest;
use jackpot_core::frame::allocations::{Allocation, Allocations, Participation};
use jackpot_core::frame::audited::Audited;
use jackpot_core::frame::batch::{Accepted, Batch, Funds, HitClaim, Refusal, RefusedBatch, Verdict};
use jackpot_core::frame::geofenced::Geofenced;
use jackpot_core::frame::symbols::Symbols;
use jackpot_core::frame::validated::{self, Validated};
use jackpot_core::frame::{Body, Frame};
use jackpot_core::log::{Entry, Log};
use jackpot_core::money::{Micro, Pico};
use jackpot_core::record::{self, Commit, Pending, RefusalNotice};
use jackpot_core::refusal::{Reason, StageName};
use jackpot_core::terms::Terms;
use jackpot_core::terms::cache::TermsCache;
use jackpot_core::time::Millis;
use jackpot_core::topology::{self, Lane};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::Id;
use super::find::{self, Found};
use super::objections::{self, Objection};
use super::rates::{self, Moment, Rates};
use crate::frame::view::WagerView;
use crate::progress::counted;
use crate::verify::lane::is_record;
use crate::verify::raw;
use crate::verify::tape::Tape;
use crate::{frame, streams};

/// Billionths in one: what exchange rates are written in.
const BILLION: u128 = 1_000_000_000;

/// All that is known.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// The wager's id, or the batch's.
    pub id: String,
    /// How it ended, or how far it has come.
    pub ended: Ended,
    /// How it was found.
    pub found: How,
    /// The message.
    pub stored: Stored,
    /// The frame that took it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame: Option<FramePlace>,
    /// What validate, geofence and allocate did.
    pub stages: Vec<Step>,
    /// The wagers, where a batch was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub wagers: Vec<Line>,
    /// Its part in pools.
    pub pools: Vec<Part>,
    /// The pools that it did not join, and why.
    pub not_joined: Vec<Objection>,
    /// What it claimed to have won.
    pub hits: Vec<Claim>,
    /// The commit that took it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitPlace>,
    /// Where the audit holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaf: Option<Leaf>,
    /// Other messages with the number of this batch, as far as they were refused for it.
    pub repeats: Vec<Repeat>,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// The wager was allocated.
    Allocated,
    /// The wager was refused.
    Refused,
    /// The batch was refused whole.
    BatchRefused,
    /// The batch was accepted.
    Accepted,
    /// It is on its way.
    Waiting,
}

/// How it was found.
#[derive(Debug, Serialize)]
pub struct How {
    /// `position`, `bisection` or `scan`.
    pub by: &'static str,
    /// How many messages of `wagers` were read.
    pub messages_read: u64,
}

/// The message.
#[derive(Debug, Serialize)]
pub struct Stored {
    /// Its sequence in `wagers`.
    pub sequence: u64,
    /// Its subject there.
    pub subject: String,
    /// The operator in it.
    pub operator: String,
    /// The source in it.
    pub source: String,
    /// When the broker received it.
    pub recorded_at: Millis,
    /// The size of the batch's body.
    pub bytes: usize,
    /// Its SHA-256.
    pub digest: Digest,
    /// The batch's id, where it can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<String>,
    /// How many wagers it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wagers: Option<usize>,
    /// The raw wager, as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw: Option<Box<RawValue>>,
}

/// The frame.
#[derive(Debug, Serialize)]
pub struct FramePlace {
    /// The partition.
    pub partition: u16,
    /// The frame's number, in each of the lanes.
    pub frame: u64,
    /// The revision of the terms.
    pub terms: u64,
    /// By lane: when the frame was stored there.
    pub lanes: Vec<LanePlace>,
}

/// The frame in a lane.
#[derive(Debug, Serialize)]
pub struct LanePlace {
    /// The stream.
    pub stream: String,
    /// When it was stored; `None` where it was trimmed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored_at: Option<Millis>,
    /// Whether it was trimmed, since no stage needs it any more.
    pub trimmed: bool,
}

/// What a stage did.
#[derive(Debug, Serialize)]
pub struct Step {
    /// The stage.
    pub stage: StageName,
    /// `passed`, `refused`, or `waiting`.
    pub outcome: &'static str,
    /// What it found, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Why it refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// What the producer can mend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The wager as it wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wager: Option<Box<RawValue>>,
}

/// A wager of a batch.
#[derive(Debug, Serialize)]
pub struct Line {
    /// Its index.
    pub index: u16,
    /// Who refused it, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<(StageName, Reason)>,
    /// The amount, if it was allocated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount: Option<Pico>,
    /// Its currency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// The pools that it takes part in.
    pub pools: Vec<String>,
}

/// A wager's part in a pool.
#[derive(Debug, Serialize)]
pub struct Part {
    /// The pool.
    pub pool: String,
    /// Its currency.
    pub currency: String,
    /// The wager's amount in its own currency.
    pub amount: Pico,
    /// The currency of that.
    pub from: String,
    /// The exchange rate, where one was needed,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<String>,
    /// the product, exactly,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact: Option<String>,
    /// and rounded half to even to a millionth.
    pub converted: Pico,
    /// The most that counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_wager: Option<Pico>,
    /// What counts.
    pub eligible: Pico,
    /// What it gives to the levels, once it is committed.
    pub levels: Vec<Given>,
}

/// What a wager gave to a level.
#[derive(Debug, Serialize)]
pub struct Given {
    /// The level.
    pub level: String,
    /// The rates at that moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rates: Option<Rates>,
    /// To `current`, or above the ceiling to the diversion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub increment: Option<Pico>,
    /// To the reserve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserve: Option<Pico>,
    /// The level after the commit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<After>,
}

/// A level after the commit.
#[derive(Debug, Serialize)]
pub struct After {
    /// What is owed to the next winner.
    pub current: Pico,
    /// What it does not grow above.
    pub ceiling: Option<Pico>,
    /// What waits for the next hit.
    pub pending: Option<Pending>,
}

/// What a wager claimed to have won.
#[derive(Debug, Serialize)]
pub struct Claim {
    /// Its number in the wager's `hits`.
    pub number: usize,
    /// The pool, where it could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// The level.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// `paid`, `refused`, or `waiting`.
    pub outcome: &'static str,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What was paid, and where the refill came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payoff: Option<record::Hit>,
}

/// The commit.
#[derive(Debug, Serialize)]
pub struct CommitPlace {
    /// Its number.
    pub commit: u64,
    /// The highest revision that had run.
    pub terms: u64,
    /// The latest receive time of what it and those before consumed.
    pub as_of: Option<Millis>,
}

/// The audit's leaf.
#[derive(Debug, Serialize)]
pub struct Leaf {
    /// Its number in the partition's tree, from 0.
    pub number: u64,
    /// Its hash.
    pub hash: Digest,
    /// The first size of the tree that holds it.
    pub tree_size: u64,
}

/// The same number again.
#[derive(Debug, Serialize)]
pub struct Repeat {
    /// When it was received.
    pub at: Millis,
    /// In which frame it was refused.
    pub frame: u64,
    /// What was said.
    pub detail: String,
}

/// A frame in the lanes that hold wagers and their leaves.
struct Lanes {
    place: FramePlace,
    validated: Option<Frame<Validated>>,
    geofenced: Option<Frame<Geofenced>>,
    allocations: Option<Frame<Allocations>>,
    audited: Option<Frame<Audited>>,
}

/// Finds what is asked for, and tells all of it.
pub async fn explain<L: Log>(log: &L, id: &Id) -> anyhow::Result<Explanation> {
    let partitions = streams::partitions(log).await?;
    let (found, index) = match id {
        Id::Stored(position) => (find::stored(log, *position).await?, None),
        Id::Batch { source, sequence, index } => {
            let accepted = async |found: &Found| is_accepted(log, found).await;
            (find::batch(log, partitions, source, *sequence, accepted).await?, *index)
        }
    };
    let lanes = match find::frame_of(log, found.partition, found.entry.sequence).await? {
        Some(frame) => Some(Lanes::read(log, found.partition, frame).await?),
        None => None,
    };
    let desk = Desk { log, terms: TermsCache::new(log.clone()), partitions, found: &found, index };
    desk.account(id, lanes).await
}

async fn is_accepted<L: Log>(log: &L, found: &Found) -> anyhow::Result<bool> {
    let Some(number) = find::frame_of(log, found.partition, found.entry.sequence).await? else {
        return Ok(false);
    };
    let lanes = Lanes::read(log, found.partition, number).await?;
    Ok(matches!(lanes.fate(found.entry.sequence), Some(Fate::Accepted(_))))
}

/// The batch that was stored at a position of `wagers`.
fn at<W>(batches: &[Batch<W>], position: u64) -> Option<&Batch<W>> {
    batches.iter().find(|batch| batch.position == position)
}

/// What became of a batch as a whole, or the refusals of its wagers, of whichever lane says so.
enum Fate<'f> {
    Refused(&'f RefusedBatch),
    Accepted(&'f [Refusal]),
}

impl<'f, W> From<&'f Batch<W>> for Fate<'f> {
    fn from(batch: &'f Batch<W>) -> Self {
        match &batch.verdict {
            Verdict::Refused(refused) => Self::Refused(refused),
            Verdict::Accepted(accepted) => Self::Accepted(&accepted.refusals),
        }
    }
}

impl Lanes {
    async fn read<L: Log>(log: &L, partition: u16, number: u64) -> anyhow::Result<Self> {
        let mut lanes = Vec::new();
        let validated = fetch::<L, Validated>(log, Lane::Validated, partition, number, &mut lanes).await?;
        let geofenced = fetch::<L, Geofenced>(log, Lane::Geofenced, partition, number, &mut lanes).await?;
        let allocations =
            fetch::<L, Allocations>(log, Lane::Allocations, partition, number, &mut lanes).await?;
        let audited = fetch::<L, Audited>(log, Lane::Audit, partition, number, &mut lanes).await?;
        let recorded = allocations.as_ref().map(|frame| &frame.header);
        let header = recorded.or(validated.as_ref().map(|frame| &frame.header));
        let terms = header.map_or(0, |header| header.terms);
        let place = FramePlace { partition, frame: number, terms, lanes };
        Ok(Self { place, validated, geofenced, allocations, audited })
    }

    /// What became of the batch that was stored at a position of `wagers`.
    fn fate(&self, position: u64) -> Option<Fate<'_>> {
        match (&self.allocations, &self.validated) {
            (Some(frame), _) => at(&frame.body.batches, position).map(Fate::from),
            (None, Some(frame)) => at(&frame.body.batches, position).map(Fate::from),
            (None, None) => None,
        }
    }
}

async fn fetch<L: Log, B: Body>(
    log: &L,
    lane: Lane,
    partition: u16,
    number: u64,
    places: &mut Vec<LanePlace>,
) -> anyhow::Result<Option<Frame<B>>> {
    let stream = lane.stream(partition);
    let Some(entry) = log.get(&stream, number).await? else {
        if !is_record(lane) && number < log.extent(&stream).await?.first {
            places.push(LanePlace { stream, stored_at: None, trimmed: true });
        }
        return Ok(None);
    };
    let frame = frame::read(&stream, &entry)?;
    places.push(LanePlace { stream, stored_at: Some(entry.recorded_at), trimmed: false });
    Ok(Some(frame))
}

/// A wager as a stage wrote it.
struct Shown {
    /// What it found, in a sentence.
    note: String,
    /// The wager, where its frame is there.
    wager: Option<Box<RawValue>>,
}

/// What an account is made from.
struct Desk<'a, L> {
    log: &'a L,
    terms: TermsCache<L>,
    partitions: u16,
    found: &'a Found,
    /// The wager that is asked for; the whole batch where there is none.
    index: Option<u16>,
}

impl<L: Log> Desk<'_, L> {
    async fn account(&self, id: &Id, lanes: Option<Lanes>) -> anyhow::Result<Explanation> {
        let mut explanation = Explanation {
            id: id.to_string(),
            ended: Ended::Waiting,
            found: How { by: self.found.by, messages_read: self.found.messages_read },
            stored: self.stored()?,
            frame: None,
            stages: Vec::new(),
            wagers: Vec::new(),
            pools: Vec::new(),
            not_joined: Vec::new(),
            hits: Vec::new(),
            commit: None,
            leaf: None,
            repeats: self.repeats(id).await?,
        };
        let Some(lanes) = lanes else {
            explanation.stages.push(step(StageName::Validate, "waiting"));
            return Ok(explanation);
        };
        self.validate(&lanes, &mut explanation)?;
        if explanation.ended == Ended::Waiting {
            self.geofence(&lanes, &mut explanation)?;
        }
        if explanation.ended == Ended::Waiting {
            self.allocate(&lanes, &mut explanation).await?;
        }
        explanation.leaf = self.leaf(&lanes);
        explanation.frame = Some(lanes.place);
        Ok(explanation)
    }

    fn stored(&self) -> anyhow::Result<Stored> {
        let Found { entry, operator, source, .. } = self.found;
        let raw = serde_json::from_slice::<raw::Batch<'_>>(&entry.payload).ok();
        let batch = raw.as_ref().and_then(|raw| Some(format!("{source}/{}", raw.sequence?)));
        let wagers = raw.and_then(|raw| raw.wagers);
        let count = wagers.as_ref().map(Vec::len);
        let wager = self.index.and_then(|index| wagers?.get(usize::from(index)).map(|raw| (*raw).to_owned()));
        if let (Some(index), None, Some(count)) = (self.index, &wager, count) {
            bail!("the batch has {count} wagers, numbered from 0; there is no wager {index}");
        }
        Ok(Stored {
            sequence: entry.sequence,
            subject: entry.subject.to_string(),
            operator: operator.clone(),
            source: source.clone(),
            recorded_at: entry.recorded_at,
            bytes: entry.payload.len(),
            digest: Digest::of(&entry.payload),
            batch,
            wagers: count,
            raw: wager,
        })
    }

    /// The batch that is asked for, in a frame.
    fn batch<'f, W>(&self, batches: &'f [Batch<W>]) -> Option<&'f Batch<W>> {
        at(batches, self.found.entry.sequence)
    }

    /// The same, where it was accepted.
    fn accepted<'f, W>(&self, batches: &'f [Batch<W>]) -> Option<&'f Accepted<W>> {
        match &self.batch(batches)?.verdict {
            Verdict::Accepted(accepted) => Some(accepted),
            Verdict::Refused(_) => None,
        }
    }

    fn validate(&self, lanes: &Lanes, explanation: &mut Explanation) -> anyhow::Result<()> {
        let shown = match (&lanes.validated, &lanes.allocations) {
            (Some(frame), _) => self.validated(frame)?,
            // What it was, is what it came as; that it was accepted, is on record.
            (None, Some(_)) => self.came()?,
            (None, None) => return Ok(()),
        };
        match lanes.fate(self.found.entry.sequence) {
            None => {}
            Some(Fate::Refused(refused)) => {
                explanation.ended = Ended::BatchRefused;
                explanation.stages.push(Step {
                    reason: Some(refused.reason),
                    detail: Some(refused.detail.to_string()),
                    ..step(StageName::Validate, "refused")
                });
            }
            Some(Fate::Accepted(refusals)) => {
                self.pass(StageName::Validate, refusals, shown, explanation);
            }
        }
        Ok(())
    }

    /// The wager in a frame of `validated-p`.
    fn validated(&self, frame: &Frame<Validated>) -> anyhow::Result<Option<Shown>> {
        let symbols = &frame.body.symbols;
        let Some(accepted) = self.accepted(&frame.body.batches) else { return Ok(None) };
        let found = accepted.wagers.iter().find(|wager| Some(wager.index) == self.index);
        let shown = found.map(|wager| {
            let view = to_raw_value(&WagerView::validated(symbols, wager))?;
            Ok(Shown { note: validated(symbols, wager), wager: Some(view) })
        });
        shown.transpose()
    }

    /// The wager as it came, of which the frame of `validated-p` was trimmed.
    fn came(&self) -> anyhow::Result<Option<Shown>> {
        let raw = self.stored()?.raw;
        let wager = raw.and_then(|raw| raw::wager(&raw).ok());
        Ok(wager.map(|wager| Shown { note: came(&wager), wager: None }))
    }

    fn geofence(&self, lanes: &Lanes, explanation: &mut Explanation) -> anyhow::Result<()> {
        let (symbols, refusals, found) = match (&lanes.geofenced, &lanes.allocations) {
            (Some(frame), _) => {
                let Some(accepted) = self.accepted(&frame.body.batches) else { return Ok(()) };
                let found = accepted.wagers.iter().find(|wager| Some(wager.index) == self.index);
                (&frame.body.symbols, &accepted.refusals, found)
            }
            (None, Some(frame)) => {
                let Some(accepted) = self.accepted(&frame.body.batches) else { return Ok(()) };
                let found = accepted.wagers.iter().find(|of| Some(of.wager.index) == self.index);
                (&frame.body.symbols, &accepted.refusals, found.map(|of| &of.wager))
            }
            (None, None) => {
                explanation.stages.push(step(StageName::Geofence, "waiting"));
                return Ok(());
            }
        };
        let shown = match found {
            Some(wager) => Some(Shown {
                note: format!("in {}", symbols.name(wager.jurisdiction)),
                wager: Some(to_raw_value(&WagerView::geofenced(symbols, wager))?),
            }),
            None if self.index.is_some() && lanes.geofenced.is_none() => {
                Some(Shown { note: "in a place that the frame held which was trimmed".into(), wager: None })
            }
            None => None,
        };
        self.pass(StageName::Geofence, refusals, shown, explanation);
        Ok(())
    }

    /// What a stage made of the wager: it wrote it on, or it refused it.
    fn pass(
        &self,
        stage: StageName,
        refusals: &[Refusal],
        shown: Option<Shown>,
        explanation: &mut Explanation,
    ) {
        let refused = refusals.iter().find(|refusal| {
            refusal.stage == stage && refusal.hit.is_none() && Some(refusal.index) == self.index
        });
        explanation.stages.push(match refused {
            Some(refusal) => {
                explanation.ended = Ended::Refused;
                Step {
                    reason: Some(refusal.reason),
                    detail: Some(refusal.detail.to_string()),
                    ..step(stage, "refused")
                }
            }
            None => {
                let (note, wager) = shown.map_or((None, None), |shown| (Some(shown.note), shown.wager));
                Step { note, wager, ..step(stage, "passed") }
            }
        });
    }

    async fn allocate(&self, lanes: &Lanes, explanation: &mut Explanation) -> anyhow::Result<()> {
        let Some(frame) = &lanes.allocations else {
            explanation.stages.push(step(StageName::Allocate, "waiting"));
            return Ok(());
        };
        let Some(batch) = self.batch(&frame.body.batches) else { return Ok(()) };
        let Verdict::Accepted(accepted) = &batch.verdict else { return Ok(()) };
        let symbols = &frame.body.symbols;
        let found = accepted.wagers.iter().find(|of| Some(of.wager.index) == self.index);
        let shown = found.map(|allocation| {
            let pools = u64::try_from(allocation.participations.len()).unwrap_or(u64::MAX);
            let note = format!("to {}", counted(pools, "pool", "pools"));
            Ok::<_, anyhow::Error>(Shown {
                note,
                wager: Some(to_raw_value(&WagerView::allocated(symbols, allocation))?),
            })
        });
        self.pass(StageName::Allocate, &accepted.refusals, shown.transpose()?, explanation);
        if self.index.is_none() {
            explanation.ended = Ended::Accepted;
            explanation.wagers = lines(symbols, accepted);
        }
        let place = (lanes.place.partition, lanes.place.frame);
        let commit = find::commit_of(self.log, place.0, place.1).await?;
        explanation.commit = commit.as_ref().map(|commit| CommitPlace {
            commit: commit.commit,
            terms: commit.terms,
            as_of: commit.as_of,
        });
        let Some(allocation) = found else { return Ok(()) };
        explanation.ended = Ended::Allocated;
        let terms = self.terms.get(frame.header.terms).await?;
        for participation in &allocation.participations {
            let mut part = part(&terms, symbols, allocation, participation);
            if let Some(commit) = &commit {
                self.give(&terms, commit, place, allocation.wager.index, &mut part).await?;
            }
            explanation.pools.push(part);
        }
        let joined: Vec<_> = explanation.pools.iter().map(|part| &*part.pool).collect();
        explanation.not_joined =
            objections::of(&terms, symbols, symbols.name(batch.operator), &allocation.wager, &joined);
        explanation.hits = claims(symbols, batch, accepted, allocation, commit.as_ref());
        Ok(())
    }

    /// What the wager gave to each level of a pool.
    async fn give(
        &self,
        terms: &Arc<Terms>,
        commit: &Commit,
        (partition, frame): (u16, u64),
        index: u16,
        part: &mut Part,
    ) -> anyhow::Result<()> {
        let position = self.found.entry.sequence;
        let moment = Moment { commit, partition, frame, position, index, partitions: self.partitions };
        let pool = terms.pools.iter().find(|pool| pool.pool == part.pool);
        for level in pool.iter().flat_map(|pool| &pool.levels) {
            let rates = rates::in_force(self.log, &self.terms, &moment, &part.pool, &level.level).await?;
            let share = |ppm: u32| Pico(part.eligible.0 / 1_000_000 * i128::from(ppm));
            let after = commit
                .levels
                .iter()
                .find(|total| (&*total.pool, &*total.level) == (&*part.pool, &*level.level));
            part.levels.push(Given {
                level: level.level.clone(),
                increment: rates.as_ref().map(|rates| share(rates.increment_ppm)),
                reserve: rates.as_ref().map(|rates| share(rates.reserve_ppm)),
                rates,
                after: after.map(|total| After {
                    current: total.current,
                    ceiling: total.ceiling,
                    pending: total.pending,
                }),
            });
        }
        Ok(())
    }

    /// The leaf of the outcome: leaves stand in the order of batches, then of wagers.
    fn leaf(&self, lanes: &Lanes) -> Option<Leaf> {
        let (frame, audited) = (lanes.allocations.as_ref()?, &lanes.audited.as_ref()?.body);
        let mut before = 0;
        for batch in &frame.body.batches {
            let outcomes = match &batch.verdict {
                Verdict::Refused(_) => 1,
                Verdict::Accepted(accepted) => {
                    let refused = accepted.refusals.iter().filter(|refusal| refusal.hit.is_none());
                    accepted.wagers.len() + refused.count()
                }
            };
            if batch.position == self.found.entry.sequence {
                let whole = matches!(batch.verdict, Verdict::Refused(_));
                let within = if whole { 0 } else { usize::from(self.index?) };
                let place = before + within;
                let count = u64::try_from(audited.leaves.len()).ok()?;
                let number = audited.tree_size.checked_sub(count)? + u64::try_from(place).ok()?;
                let (hash, tree_size) = (*audited.leaves.get(place)?, audited.tree_size);
                return Some(Leaf { number, hash, tree_size });
            }
            before += outcomes;
        }
        None
    }

    /// What the source was told of the same number again.
    async fn repeats(&self, id: &Id) -> anyhow::Result<Vec<Repeat>> {
        let Id::Batch { source, sequence, .. } = id else { return Ok(Vec::new()) };
        let batch = format!("{source}/{sequence}");
        let filter = topology::refusals(&self.found.operator, source);
        let mut tape = Tape::open(self.log, topology::REFUSALS, filter).await?;
        let mut repeats = Vec::new();
        let of = |entry: &Entry| serde_json::from_slice::<RefusalNotice>(&entry.payload).ok();
        while let Some(entry) = tape.next().await? {
            if let Some(notice) = of(&entry)
                && notice.batch.as_deref() == Some(&*batch)
                && notice.reason == Reason::DuplicateBatch
            {
                repeats.push(Repeat { at: notice.at, frame: notice.frame, detail: notice.detail });
            }
        }
        Ok(repeats)
    }
}

fn step(stage: StageName, outcome: &'static str) -> Step {
    Step { stage, outcome, note: None, reason: None, detail: None, wager: None }
}

/// What validate read, in a sentence.
fn validated(symbols: &Symbols, wager: &validated::Wager) -> String {
    let place = wager.location.map(|location| {
        let point = location
            .point
            .map(|point| format!("at {}, {} within {} m", point.latitude, point.longitude, point.accuracy_m));
        (location.jurisdiction.map(|code| symbols.name(code)), point, location.checked_at)
    });
    sentence(&Wagered {
        amount: wager.amount,
        currency: symbols.name(wager.currency),
        funds: wager.funds,
        opt_in: wager.opt_in,
        game: symbols.name(wager.game),
        occurred_at: wager.occurred_at,
        interaction: wager.interaction,
        place,
    })
}

/// The same of the wager as it came.
fn came(wager: &raw::Wager) -> String {
    let place = wager.location.as_ref().map(|location| {
        let point = location.measured.then(|| "with coordinates".to_owned());
        (location.jurisdiction.as_deref(), point, location.checked_at)
    });
    sentence(&Wagered {
        amount: Micro(wager.amount),
        currency: &wager.currency,
        funds: wager.funds,
        opt_in: wager.opt_in,
        game: &wager.game,
        occurred_at: wager.occurred_at,
        interaction: wager.interaction,
        place,
    })
}

/// What is told of a wager.
struct Wagered<'a> {
    amount: Micro,
    currency: &'a str,
    funds: Funds,
    opt_in: bool,
    game: &'a str,
    occurred_at: Millis,
    interaction: u64,
    /// The claim, the point, and when it was checked.
    place: Option<(Option<&'a str>, Option<String>, Millis)>,
}

fn sentence(wager: &Wagered<'_>) -> String {
    let place = match &wager.place {
        None => "without a location".to_owned(),
        Some((claim, point, checked_at)) => {
            let claim = claim.map(|code| format!("claiming {code}"));
            let parts: Vec<_> = claim.into_iter().chain(point.clone()).collect();
            format!("{}, checked {checked_at}", parts.join(", "))
        }
    };
    format!(
        "{} {}, {}{}, on {} at {}, interaction {} of its session; {place}",
        wager.amount,
        wager.currency,
        wager.funds.as_str(),
        if wager.opt_in { ", opted in" } else { "" },
        wager.game,
        wager.occurred_at,
        wager.interaction
    )
}

fn part(terms: &Terms, symbols: &Symbols, allocation: &Allocation, participation: &Participation) -> Part {
    let (wager, name) = (&allocation.wager, symbols.name(participation.pool));
    let pool = terms.pools.iter().find(|pool| pool.pool == name);
    let exact = participation.rate.map(|rate| wager.amount.0.saturating_mul(rate.0.into()));
    let converted = participation.rate.map_or(wager.amount, |rate| wager.amount.convert(rate));
    Part {
        pool: name.to_owned(),
        currency: pool.map(|pool| pool.currency.clone()).unwrap_or_default(),
        amount: wager.amount.pico(),
        from: symbols.name(wager.currency).to_owned(),
        rate: participation.rate.map(|rate| rate.to_string()),
        exact: exact.map(decimal),
        converted: converted.pico(),
        max_wager: pool.and_then(|pool| pool.max_wager).map(Micro::pico),
        eligible: participation.eligible.pico(),
        levels: Vec::new(),
    }
}

/// Millionths of billionths, exactly.
fn decimal(value: u128) -> String {
    let unit = BILLION * 1_000_000;
    let text = format!("{}.{:015}", value / unit, value % unit);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn lines(symbols: &Symbols, accepted: &Accepted<Allocation>) -> Vec<Line> {
    let name = |symbol| symbols.name(symbol).to_owned();
    let allocated = accepted.wagers.iter().map(|of| Line {
        index: of.wager.index,
        refused: None,
        amount: Some(of.wager.amount.pico()),
        currency: Some(name(of.wager.currency)),
        pools: of.participations.iter().map(|part| name(part.pool)).collect(),
    });
    let refused = accepted.refusals.iter().filter(|refusal| refusal.hit.is_none()).map(|refusal| Line {
        index: refusal.index,
        refused: Some((refusal.stage, refusal.reason)),
        amount: None,
        currency: None,
        pools: Vec::new(),
    });
    let mut lines: Vec<_> = allocated.chain(refused).collect();
    lines.sort_by_key(|line| line.index);
    lines
}

fn claims(
    symbols: &Symbols,
    batch: &Batch<Allocation>,
    accepted: &Accepted<Allocation>,
    allocation: &Allocation,
    commit: Option<&Commit>,
) -> Vec<Claim> {
    let index = allocation.wager.index;
    let id = format!("{}/{}/{index}", symbols.name(batch.source), accepted.sequence);
    let claims = allocation.wager.hits.as_ref().map_or(&[][..], |hits| &hits.claims);
    let claim = |(number, claim): (usize, &HitClaim)| {
        let named = match *claim {
            HitClaim::Level { pool, level } => Some((symbols.name(pool), symbols.name(level))),
            HitClaim::Unreadable => None,
        };
        let refusal = accepted.refusals.iter().find(|refusal| {
            refusal.index == index && refusal.hit.is_some_and(|hit| usize::from(hit) == number)
        });
        let payoff = commit.and_then(|commit| {
            commit.hits.iter().find(|hit| hit.wager == id && Some((&*hit.pool, &*hit.level)) == named)
        });
        let payoff = payoff.filter(|_| refusal.is_none()).cloned();
        Claim {
            number,
            pool: named.map(|(pool, _)| pool.to_owned()),
            level: named.map(|(_, level)| level.to_owned()),
            outcome: match (refusal, &payoff) {
                (Some(_), _) => "refused",
                (None, Some(_)) => "paid",
                (None, None) => "waiting",
            },
            detail: refusal.map(|refusal| refusal.detail.to_string()),
            payoff,
        }
    };
    claims.iter().enumerate().map(claim).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_shown_exactly() {
        assert_eq!(decimal(800_000 * 1_176_470_000), "0.941176");
        assert_eq!(decimal(1), "0.000000000000001");
        assert_eq!(decimal(2_000_000 * BILLION), "2");
    }
}
