//! One partition, frame by frame: its part of the ingress, its five lanes side by side, and what follows from them for
//! the ledger and for producers. [`crate::verify`] drives it, in the order in which the commits consumed the frames.

use std::collections::BTreeMap;
use std::sync::Arc;

use jackpot_core::digest::Digest;
use jackpot_core::frame::allocations::{Allocation, Allocations};
use jackpot_core::frame::audited::{Audited, Incident};
use jackpot_core::frame::batch::{Accepted, Batch, Refusal, Verdict};
use jackpot_core::frame::contributions::Contributions;
use jackpot_core::frame::geofenced::Geofenced;
use jackpot_core::frame::symbols::Symbols;
use jackpot_core::frame::validated::Validated;
use jackpot_core::frame::{Body, Frame, Header};
use jackpot_core::log::{Entry, Log};
use jackpot_core::record::RefusalNotice;
use jackpot_core::refusal::{Reason, StageName};
use jackpot_core::terms::Terms;
use jackpot_core::time::Millis;
use jackpot_core::topology::{self, Lane};

use crate::verify::again::{Digests, Stages};
use crate::verify::contributions;
use crate::verify::findings::{Check, Findings, Place};
use crate::verify::ingress::{Ingested, Intake};
use crate::verify::leaves::{self, Tree};
use crate::verify::numbers::Numbers;
use crate::verify::outcomes::{self, Inspection, Message, Reading};
use crate::verify::pools::Rules;
use crate::verify::shelf::Shelf;
use crate::verify::sums::{self, Item};
use crate::verify::tape::Tape;

/// A partition, up to some frame.
pub struct Partition<L: Log> {
    number: u16,
    tapes: Vec<Tape<L>>,
    /// By lane: the first frame that is there, as far as that is known.
    firsts: [u64; 5],
    /// By lane: whether the last frame was trimmed.
    trimmed: [bool; 5],
    /// By lane: the digest of the last frame, where that was there, or what is recorded names it.
    chained: [Option<Digest>; 5],
    /// Frames of `contributions-p` that were written again since a digest was found recorded.
    written: u64,
    /// The stages before allocate, where their frames are computed again, as far as that could be done.
    stages: Option<Box<Stages>>,
    intake: Intake<L>,
    watermark: Option<Millis>,
    /// The latest event of an accepted wager.
    latest: Option<Millis>,
    numbers: BTreeMap<String, Numbers>,
    /// The revision whose starts of numbers are applied.
    declared: u64,
    tree: Tree,
    done: u64,
}

/// What a frame gives the rest of the proof.
#[derive(Default)]
pub struct Work {
    /// Its header, of whichever lane has one.
    pub header: Option<Header>,
    /// The message in `contributions-p`.
    pub contributions: Option<Contributed>,
    /// What its allocations give the ledger.
    pub items: Vec<Item>,
    /// The terms that it was made under.
    pub terms: Option<Arc<Terms>>,
    /// What producers must have been told of it.
    pub notices: Vec<RefusalNotice>,
}

/// A frame of `contributions-p`.
#[derive(Debug, Clone, Copy)]
pub struct Contributed {
    /// Its digest.
    pub digest: Digest,
    /// It was trimmed, and written again from the allocations.
    pub written: bool,
}

/// A frame of one lane.
struct Taken<B> {
    digest: Digest,
    frame: Option<Frame<B>>,
}

/// The frame of all lanes.
struct Slice {
    validated: Option<Taken<Validated>>,
    geofenced: Option<Taken<Geofenced>>,
    allocations: Option<Taken<Allocations>>,
    contributions: Option<Taken<Contributions>>,
    audited: Option<Taken<Audited>>,
}

fn frame<B>(taken: &Option<Taken<B>>) -> Option<&Frame<B>> {
    taken.as_ref()?.frame.as_ref()
}

impl<L: Log> Partition<L> {
    /// Opens its lanes, the last of the flow first: what is written meanwhile lags and never leads. `deep`: the frames
    /// of the stages before allocate are computed again by these.
    pub async fn open(log: &L, number: u16, deep: bool) -> anyhow::Result<Self> {
        let mut tapes = Vec::new();
        for lane in Lane::ALL.into_iter().rev() {
            tapes.push(Tape::open(log, lane.stream(number), lane.subject(number)).await?);
        }
        tapes.reverse();
        let wagers = Tape::open(log, topology::WAGERS, topology::ingress_filter(number)).await?;
        Ok(Self {
            number,
            tapes,
            firsts: [1; 5],
            trimmed: [false; 5],
            chained: [Some(Digest::ZERO); 5],
            written: 0,
            stages: deep.then(|| Box::new(Stages::new(number))),
            intake: Intake::new(wagers, deep),
            watermark: None,
            latest: None,
            numbers: BTreeMap::new(),
            declared: 0,
            tree: Tree::default(),
            done: 0,
        })
    }

    /// The last frame that was taken.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// The last frame that is there, of a lane.
    pub fn last(&self, lane: Lane) -> u64 {
        self.tapes[at(lane)].last()
    }

    /// The last frame that any lane holds.
    pub fn end(&self) -> u64 {
        self.tapes.iter().map(Tape::last).max().unwrap_or(0)
    }

    /// An output that is longer than its input has outlived it.
    pub fn check_lengths(&self, findings: &mut Findings) {
        let made_from = [
            (Lane::Geofenced, Lane::Validated),
            (Lane::Allocations, Lane::Geofenced),
            (Lane::Contributions, Lane::Geofenced),
            (Lane::Audit, Lane::Allocations),
        ];
        for (output, input) in made_from {
            let (last, there) = (self.last(output), self.last(input));
            if last > there {
                let place = Place::of(output.stream(self.number), last);
                let what =
                    format!("it ends there, and {} ends at {there} already", input.stream(self.number));
                findings.fault(Check::Chains, place, what);
            }
        }
    }

    /// Takes the next frame of all lanes.
    pub async fn advance(&mut self, shelf: &mut Shelf<L>, findings: &mut Findings) -> anyhow::Result<Work> {
        self.done += 1;
        let slice = Slice {
            validated: self.take(Lane::Validated, findings).await?,
            geofenced: self.take(Lane::Geofenced, findings).await?,
            allocations: self.take(Lane::Allocations, findings).await?,
            contributions: self.take(Lane::Contributions, findings).await?,
            audited: self.take(Lane::Audit, findings).await?,
        };
        self.check_links(&slice, findings);
        let header = slice.headers().next().map(|(lane, header)| (lane, header.clone()));
        let Some((lane, header)) = header else {
            let contributions = self.contributed(&slice, None);
            return Ok(Work { contributions, ..Work::default() });
        };
        let ingested = self.intake.read(&self.place(lane), &header, shelf, findings).await?;
        let terms = shelf.get(header.terms, findings).await?;
        self.check_rules(lane, &header, terms.as_deref(), findings);
        let mut readings: Vec<_> = ingested.messages.iter().map(|_| None).collect();
        self.check_batches(&slice, &ingested, &mut readings, findings);
        self.check_numbers(&slice, &ingested, terms.as_deref(), findings);
        self.check_watermark(&slice, &header, &readings, findings);
        self.compute_again(&slice, &ingested, terms.as_deref(), findings);
        let contributions = self.contributed(&slice, terms.as_deref());
        let mut work = Work { header: Some(header), contributions, terms, ..Work::default() };
        if let Some(allocations) = frame(&slice.allocations) {
            if let Some(terms) = &work.terms {
                self.check_allocations(terms, allocations, &readings, findings);
            }
            self.check_leaves(allocations, frame(&slice.audited), findings);
            work.items = sums::of_allocations(allocations);
            work.notices = notices(allocations);
            if let Some(contributions) = frame(&slice.contributions) {
                self.check_sums(work.terms.as_deref(), &work.items, allocations, contributions, findings);
            }
        }
        Ok(work)
    }

    fn place(&self, lane: Lane) -> Place {
        Place::of(lane.stream(self.number), self.done)
    }

    /// Takes the frame of one lane, and checks its place in its own log.
    async fn take<B: Body>(
        &mut self,
        lane: Lane,
        findings: &mut Findings,
    ) -> anyhow::Result<Option<Taken<B>>> {
        let entry = self.tapes[at(lane)].at(self.done).await?;
        self.trimmed[at(lane)] = entry.is_none() && self.is_trimmed(lane).await?;
        let Some(entry) = entry else {
            if self.trimmed[at(lane)] {
                findings.trimmed(lane, self.number);
                return Ok(None);
            }
            if self.done <= self.last(lane) {
                findings.fault(Check::Chains, self.place(lane), "the frame is not there");
            }
            self.chained[at(lane)] = None;
            return Ok(None);
        };
        findings.count(Check::Chains, 1);
        let digest = Digest::of(&entry.payload);
        let frame = self.read(lane, &entry, findings);
        self.chained[at(lane)] = Some(digest);
        Ok(Some(Taken { digest, frame }))
    }

    /// Whether the frame, which is not there, lies before all that are: lanes are trimmed, also while this runs, and
    /// records never.
    async fn is_trimmed(&mut self, lane: Lane) -> anyhow::Result<bool> {
        if is_record(lane) || self.done > self.last(lane) {
            return Ok(false);
        }
        if self.done >= self.firsts[at(lane)] {
            self.firsts[at(lane)] = self.tapes[at(lane)].first().await?;
        }
        Ok(self.done < self.firsts[at(lane)])
    }

    fn read<B: Body>(&mut self, lane: Lane, entry: &Entry, findings: &mut Findings) -> Option<Frame<B>> {
        let written = if lane == Lane::Contributions { std::mem::take(&mut self.written) } else { 0 };
        let mut fault = |what: String| findings.fault(Check::Chains, self.place(lane), what);
        let frame = match Frame::<B>::decode(&entry.payload) {
            Ok(frame) => frame,
            Err(error) => {
                fault(format!("the frame cannot be read ({error})"));
                return None;
            }
        };
        let header = &frame.header;
        if (header.partition, header.sequence) != (self.number, self.done) {
            let what = format!(
                "the frame says that it is number {} of partition {}",
                header.sequence, header.partition
            );
            fault(what);
        }
        match self.chained[at(lane)] {
            Some(digest) if digest != header.previous => {
                fault("the frame does not follow the one before it: one of the two was changed".into());
            }
            Some(_) if written > 0 => findings.proved(lane, self.number, written),
            _ => {}
        }
        Some(frame)
    }

    /// The frame's message in `contributions-p`: as it is stored, or, where it was trimmed, written again. With it, of
    /// the lanes that were trimmed, the digests by which their next frames are told.
    fn contributed(&mut self, slice: &Slice, terms: Option<&Terms>) -> Option<Contributed> {
        let allocations = frame(&slice.allocations);
        if self.trimmed[at(Lane::Geofenced)] {
            self.chained[at(Lane::Geofenced)] = allocations.map(|frame| frame.header.input);
        }
        if self.trimmed[at(Lane::Validated)] {
            self.chained[at(Lane::Validated)] = frame(&slice.geofenced).map(|frame| frame.header.input);
        }
        if !self.trimmed[at(Lane::Contributions)] {
            let stored = slice.contributions.as_ref();
            return stored.map(|taken| Contributed { digest: taken.digest, written: false });
        }
        let chained = &mut self.chained[at(Lane::Contributions)];
        let known = allocations.zip(terms).zip(*chained);
        *chained = known.and_then(|((frame, terms), previous)| contributions::digest(frame, terms, previous));
        self.written = if chained.is_some() { self.written + 1 } else { 0 };
        chained.map(|digest| Contributed { digest, written: true })
    }

    /// A commit names the digest of a frame of `contributions-p`. It goes on from there, so that one change is one
    /// finding.
    pub fn committed(&mut self, frame: u64, digest: Digest, findings: &mut Findings) {
        if frame != self.done || !self.trimmed[at(Lane::Contributions)] {
            return;
        }
        let written = std::mem::take(&mut self.written);
        if self.chained[at(Lane::Contributions)].replace(digest) == Some(digest) {
            findings.proved(Lane::Contributions, self.number, written);
        }
    }

    /// Has the stages compute their frames, and compares these with what is recorded of them. What follows a frame
    /// that is another cannot be computed.
    fn compute_again(
        &mut self,
        slice: &Slice,
        ingested: &Ingested,
        terms: Option<&Terms>,
        findings: &mut Findings,
    ) {
        let Some(mut stages) = self.stages.take() else { return };
        let (Some(allocations), Some(terms)) = (frame(&slice.allocations), terms) else { return };
        let computed = match stages.next(allocations, &ingested.entries, terms) {
            Ok(computed) => computed,
            Err(why) => {
                let what = format!("it cannot be computed again from wagers: {why}");
                return findings.fault(Check::Chains, self.place(Lane::Allocations), what);
            }
        };
        let Digests { validated, geofenced } = computed;
        let by_geofence = frame(&slice.geofenced).map(|frame| frame.header.input);
        let of_validated = slice.validated.as_ref().map(|taken| taken.digest).or(by_geofence);
        let of_geofenced = slice.geofenced.as_ref().map_or(allocations.header.input, |taken| taken.digest);
        for (lane, computed, recorded) in
            [(Lane::Validated, validated, of_validated), (Lane::Geofenced, geofenced, Some(of_geofenced))]
        {
            if recorded.is_some_and(|recorded| recorded != computed) {
                let what = "computed again from wagers it is another frame than the one that is recorded";
                return findings.fault(Check::Chains, self.place(lane), what);
            }
        }
        for lane in [Lane::Validated, Lane::Geofenced] {
            if self.trimmed[at(lane)] {
                findings.proved(lane, self.number, 1);
            }
        }
        self.stages = Some(stages);
    }

    /// Each frame names the one it was made from, and says the same of its place.
    fn check_links(&self, slice: &Slice, findings: &mut Findings) {
        let digest = |lane| match lane {
            Lane::Geofenced => slice.validated.as_ref().map(|taken| taken.digest),
            Lane::Allocations => slice.geofenced.as_ref().map(|taken| taken.digest),
            Lane::Contributions => {
                let beside = || frame(&slice.allocations).map(|frame| frame.header.input);
                slice.geofenced.as_ref().map(|taken| taken.digest).or_else(beside)
            }
            Lane::Audit => slice.allocations.as_ref().map(|taken| taken.digest),
            Lane::Validated => Some(Digest::ZERO),
        };
        let first = slice.headers().next().map(|(_, header)| header.clone());
        for (lane, header) in slice.headers() {
            if digest(lane).is_some_and(|digest| digest != header.input) {
                let what = "it was not made from the frame that stands in the lane before it now";
                findings.fault(Check::Chains, self.place(lane), what);
            }
            let place = |header: &Header| (header.rules, header.terms, header.watermark, header.recorded_at);
            let same = |first: &Header| place(first) == place(header) && first.ingress == header.ingress;
            if !first.as_ref().is_none_or(same) {
                let what = "its header differs from the frame's in the lanes before it";
                findings.fault(Check::Chains, self.place(lane), what);
            }
        }
    }

    /// A frame is made by the rules that its terms name.
    fn check_rules(&self, lane: Lane, header: &Header, terms: Option<&Terms>, findings: &mut Findings) {
        if let Some(terms) = terms.filter(|terms| terms.rules != header.rules) {
            let what = format!(
                "it is written under rules {}, and its terms name rules {}",
                header.rules, terms.rules
            );
            findings.fault(Check::Chains, self.place(lane), what);
        }
    }

    fn check_batches(
        &self,
        slice: &Slice,
        ingested: &Ingested,
        readings: &mut [Option<Reading>],
        findings: &mut Findings,
    ) {
        let stream = |lane: Lane| lane.stream(self.number);
        let frame_number = self.done;
        let messages = &ingested.messages;
        if let Some(Frame { body, .. }) = frame(&slice.validated) {
            let (stream, stage) = (&stream(Lane::Validated), StageName::Validate);
            let mut inspection = Inspection { findings, stream, frame: frame_number, stage };
            inspection.batches(&body.symbols, &body.batches, messages, readings);
        }
        if let Some(Frame { body, .. }) = frame(&slice.geofenced) {
            let (stream, stage) = (&stream(Lane::Geofenced), StageName::Geofence);
            let mut inspection = Inspection { findings, stream, frame: frame_number, stage };
            inspection.batches(&body.symbols, &body.batches, messages, readings);
        }
        if let Some(Frame { body, .. }) = frame(&slice.allocations) {
            let (stream, stage) = (&stream(Lane::Allocations), StageName::Allocate);
            let mut inspection = Inspection { findings, stream, frame: frame_number, stage };
            inspection.batches(&body.symbols, &body.batches, messages, readings);
        }
        let geofenced = frame(&slice.geofenced).map(|frame| &frame.body.batches);
        if let (Some(Frame { body, .. }), Some(later)) = (frame(&slice.validated), geofenced) {
            self.check_narrowed(Lane::Geofenced, StageName::Validate, &body.batches, later, findings);
        }
        if let (Some(earlier), Some(Frame { body, .. })) = (geofenced, frame(&slice.allocations)) {
            self.check_narrowed(Lane::Allocations, StageName::Geofence, earlier, &body.batches, findings);
        }
    }

    fn check_narrowed<V, W>(
        &self,
        lane: Lane,
        stage: StageName,
        earlier: &[Batch<V>],
        later: &[Batch<W>],
        findings: &mut Findings,
    ) {
        for (earlier, later) in earlier.iter().zip(later) {
            if let Err(what) = outcomes::narrowed(earlier, later, stage) {
                let place = self.place(lane).wager(format!("@{}", later.position));
                findings.fault(Check::Outcomes, place, format!("of the batch, {what}"));
            }
        }
    }

    fn check_numbers(
        &mut self,
        slice: &Slice,
        ingested: &Ingested,
        terms: Option<&Terms>,
        findings: &mut Findings,
    ) {
        if let Some(terms) = terms.filter(|terms| terms.revision > self.declared) {
            self.declared = terms.revision;
            for source in &terms.sources {
                if let Some(from) = source.sequence_from {
                    self.numbers.entry(source.source.clone()).or_default().declare(from);
                }
            }
        }
        if let Some(Frame { body, .. }) = frame(&slice.allocations) {
            let place = self.place(Lane::Allocations);
            let desk = NumbersDesk { numbers: &mut self.numbers, terms, place, findings };
            desk.check(&body.batches, &ingested.messages);
        } else if let Some(Frame { body, .. }) = frame(&slice.validated) {
            let place = self.place(Lane::Validated);
            let desk = NumbersDesk { numbers: &mut self.numbers, terms, place, findings };
            desk.check(&body.batches, &ingested.messages);
        }
    }

    /// The watermark follows the events, never ahead of the latest one, and never goes back.
    fn check_watermark(
        &mut self,
        slice: &Slice,
        header: &Header,
        readings: &[Option<Reading>],
        findings: &mut Findings,
    ) {
        let (lane, latest) = match (frame(&slice.validated), frame(&slice.allocations)) {
            (Some(validated), _) => (Lane::Validated, latest_event(&validated.body)),
            (None, Some(allocations)) if self.trimmed[at(Lane::Validated)] => {
                (Lane::Allocations, latest_accepted(&allocations.body, readings))
            }
            _ => {
                self.watermark = header.watermark.max(self.watermark);
                return;
            }
        };
        self.latest = self.latest.max(latest);
        if header.watermark < self.watermark || header.watermark > self.latest {
            let show = |at: Option<Millis>| at.map_or_else(|| "none".to_owned(), |at| at.to_string());
            let what = format!(
                "the watermark is {}, after {}, and the latest event is of {}",
                show(header.watermark),
                show(self.watermark),
                show(self.latest)
            );
            findings.fault(Check::Chains, self.place(lane), what);
        }
        self.watermark = header.watermark.max(self.watermark);
    }

    fn check_allocations(
        &self,
        terms: &Terms,
        allocations: &Frame<Allocations>,
        readings: &[Option<Reading>],
        findings: &mut Findings,
    ) {
        let symbols = &allocations.body.symbols;
        let mut rules = Rules::new(terms, symbols);
        for (batch, reading) in allocations.body.batches.iter().zip(readings) {
            let Verdict::Accepted(accepted) = &batch.verdict else { continue };
            let refused = hit_refusals(accepted);
            findings.count(Check::Allocations, accepted.wagers.len());
            for allocation in &accepted.wagers {
                let index = allocation.wager.index;
                let refused = refused.get(&index).map_or(&[][..], Vec::as_slice);
                let raw = reading.as_ref().and_then(|reading| reading.wagers.get(usize::from(index)));
                let fresh = match raw {
                    Some(Ok(raw)) => {
                        let place = symbols.name(allocation.wager.jurisdiction);
                        outcomes::freshness(raw, rules.age_max(place))
                    }
                    _ => Ok(()),
                };
                let found = fresh.and_then(|()| rules.check(batch.operator, allocation, refused));
                if let Err(what) = found {
                    let id = format!("{}/{}/{index}", symbols.name(batch.source), accepted.sequence);
                    let place = self.place(Lane::Allocations).wager(id);
                    findings.fault(Check::Allocations, place, format!("the wager {what}"));
                }
            }
        }
    }

    fn check_leaves(
        &mut self,
        allocations: &Frame<Allocations>,
        audited: Option<&Frame<Audited>>,
        findings: &mut Findings,
    ) {
        let due = leaves::of(allocations);
        findings.count(Check::Outcomes, due.len());
        due.iter().for_each(|(_, leaf)| self.tree.add(*leaf));
        let Some(Frame { body, .. }) = audited else { return };
        findings.count(Check::Leaves, due.len());
        let place = || Place::of(Lane::Audit.stream(self.number), self.done);
        let mut fault = |place, what: String| findings.fault(Check::Leaves, place, what);
        if body.leaves.len() != due.len() {
            let what =
                format!("the entry has {} leaves, and the frame {} outcomes", body.leaves.len(), due.len());
            fault(place(), what);
        }
        if let Some((id, _)) =
            due.iter().zip(&body.leaves).find_map(|(due, leaf)| (due.1 != *leaf).then_some(due))
        {
            fault(place().wager(id), "the leaf is not the outcome that the frame records".into());
        }
        if (body.tree_size, &body.frontier) != (self.tree.size(), &self.tree.roots()) {
            let what = format!(
                "the tree of {} leaves is not the one that follows from the leaves so far, which are {}",
                body.tree_size,
                self.tree.size()
            );
            fault(place(), what);
            // What follows is judged by what was recorded, so that one change is one finding.
            if let Some(recorded) = Tree::recorded(body.tree_size, &body.frontier) {
                self.tree = recorded;
            }
        }
        let told = body.incidents.iter().map(|incident| incident_of(&body.symbols, incident));
        if !told.eq(incidents(allocations)) {
            fault(place(), "the incidents are not those of the frame: gaps, and numbers used again".into());
        }
    }

    fn check_sums(
        &self,
        terms: Option<&Terms>,
        items: &[Item],
        allocations: &Frame<Allocations>,
        contributions: &Frame<Contributions>,
        findings: &mut Findings,
    ) {
        findings.count(Check::Contributions, 1);
        let mut fault =
            |what: String| findings.fault(Check::Contributions, self.place(Lane::Contributions), what);
        if let Some(what) = sums::difference(items, &sums::of_contributions(contributions)) {
            fault(what);
        }
        let body = &contributions.body;
        let allocated: usize = allocations
            .body
            .batches
            .iter()
            .map(|batch| match &batch.verdict {
                Verdict::Accepted(accepted) => accepted.wagers.len(),
                Verdict::Refused(_) => 0,
            })
            .sum();
        if usize::try_from(body.wagers) != Ok(allocated) {
            fault(format!("it stands for {} wagers, and {allocated} are allocated", body.wagers));
        }
        let Some(terms) = terms else { return };
        for listed in &body.pools {
            let name = body.symbols.name(listed.pool);
            let pool = terms.pools.iter().find(|pool| pool.pool == name);
            let levels = listed.levels.iter().map(|level| body.symbols.name(*level));
            let due = pool.iter().flat_map(|pool| &pool.levels).map(|level| level.level.as_str());
            if pool.is_none() || !levels.eq(due) {
                fault(format!("the levels of {name} are not those of the terms"));
            }
        }
    }
}

impl Slice {
    /// The headers that can be read, in the order of the flow.
    fn headers(&self) -> impl Iterator<Item = (Lane, &Header)> {
        [
            (Lane::Validated, frame(&self.validated).map(|frame| &frame.header)),
            (Lane::Geofenced, frame(&self.geofenced).map(|frame| &frame.header)),
            (Lane::Allocations, frame(&self.allocations).map(|frame| &frame.header)),
            (Lane::Contributions, frame(&self.contributions).map(|frame| &frame.header)),
            (Lane::Audit, frame(&self.audited).map(|frame| &frame.header)),
        ]
        .into_iter()
        .filter_map(|(lane, header)| Some((lane, header?)))
    }
}

/// The latest event among the wagers that validate accepted.
fn latest_event(body: &Validated) -> Option<Millis> {
    let events = body.batches.iter().filter_map(|batch| match &batch.verdict {
        Verdict::Accepted(accepted) => accepted.wagers.iter().map(|wager| wager.occurred_at).max(),
        Verdict::Refused(_) => None,
    });
    events.max()
}

/// The same where the frame of `validated-p` was trimmed: by the raw wagers that validate did not refuse.
fn latest_accepted(body: &Allocations, readings: &[Option<Reading>]) -> Option<Millis> {
    let latest = |(batch, reading): (&Batch<Allocation>, &Option<Reading>)| {
        let (Verdict::Accepted(accepted), Some(reading)) = (&batch.verdict, reading) else { return None };
        let is_refused = |index: u16| {
            let refused = |of: &Refusal| (of.index, of.stage, of.hit) == (index, StageName::Validate, None);
            accepted.refusals.iter().any(refused)
        };
        let wagers = (0_u16..).zip(&reading.wagers).filter(|(index, _)| !is_refused(*index));
        wagers.filter_map(|(_, wager)| Some(wager.as_ref().ok()?.occurred_at)).max()
    };
    body.batches.iter().zip(readings).filter_map(latest).max()
}

/// Whether a lane is kept for ever: what was trimmed of the others is proved by these.
pub fn is_record(lane: Lane) -> bool {
    match lane {
        Lane::Validated | Lane::Geofenced | Lane::Contributions => false,
        Lane::Allocations | Lane::Audit => true,
    }
}

/// Where a lane stands in the order of the flow.
fn at(lane: Lane) -> usize {
    match lane {
        Lane::Validated => 0,
        Lane::Geofenced => 1,
        Lane::Allocations => 2,
        Lane::Contributions => 3,
        Lane::Audit => 4,
    }
}

/// Judges the numbers of a frame's batches.
struct NumbersDesk<'a> {
    numbers: &'a mut BTreeMap<String, Numbers>,
    terms: Option<&'a Terms>,
    place: Place,
    findings: &'a mut Findings,
}

impl NumbersDesk<'_> {
    fn check<W>(mut self, batches: &[Batch<W>], messages: &[Message]) {
        for (batch, message) in batches.iter().zip(messages) {
            self.findings.count(Check::Numbers, 1);
            match &batch.verdict {
                Verdict::Accepted(accepted) => self.accepted(message, accepted),
                Verdict::Refused(refused) => self.refused(message, refused.reason),
            }
        }
    }

    fn accepted<W>(&mut self, message: &Message, accepted: &Accepted<W>) {
        let id = format!("{}/{}", message.source, accepted.sequence);
        let known = self.terms.is_none_or(|terms| {
            let of = |source: &jackpot_core::terms::Source| {
                (&*source.source, &*source.operator) == (&*message.source, &*message.operator)
            };
            terms.sources.iter().any(of)
        });
        if !known {
            self.fault(&id, "the batch is accepted, though the terms know no such source of this operator");
        }
        let numbers = self.numbers.entry(message.source.clone()).or_default();
        let objection = numbers.objection(accepted.sequence);
        let gaps = numbers.accept(accepted.sequence);
        if let Some(reason) = objection {
            self.fault(&id, &format!("the batch is accepted, and its number calls for {reason}"));
        }
        if gaps != accepted.gaps {
            let what =
                format!("the batch makes {} gaps, and {} are recorded", gaps.len(), accepted.gaps.len());
            self.fault(&id, &what);
        }
    }

    fn refused(&mut self, message: &Message, reason: Reason) {
        if !matches!(reason, Reason::DuplicateBatch | Reason::StaleSequence | Reason::SequenceJump) {
            return;
        }
        let Some(sequence) = message.sequence() else {
            return self
                .fault(&format!("@{}", message.position), "it is refused for a number it does not have");
        };
        let numbers = self.numbers.entry(message.source.clone()).or_default();
        let due = numbers.objection(sequence);
        if due != Some(reason) {
            let due = due.map_or("accepts it", |reason| reason.as_str());
            let id = format!("{}/{sequence}", message.source);
            self.fault(&id, &format!("the batch is refused as {reason}, and the rule for its number: {due}"));
        }
    }

    fn fault(&mut self, id: &str, what: &str) {
        self.findings.fault(Check::Numbers, self.place.clone().wager(id), what);
    }
}

/// The refusals of hits, by the index of their wagers.
fn hit_refusals(accepted: &Accepted<Allocation>) -> BTreeMap<u16, Vec<&Refusal>> {
    let mut refused: BTreeMap<u16, Vec<&Refusal>> = BTreeMap::new();
    for refusal in accepted.refusals.iter().filter(|refusal| refusal.hit.is_some()) {
        refused.entry(refusal.index).or_default().push(refusal);
    }
    refused
}

/// What producers must be told of a frame, in log order.
fn notices(frame: &Frame<Allocations>) -> Vec<RefusalNotice> {
    let (header, symbols) = (&frame.header, &frame.body.symbols);
    let mut notices = Vec::new();
    for batch in &frame.body.batches {
        let source = symbols.name(batch.source);
        let blank = RefusalNotice {
            wager: None,
            batch: None,
            stage: StageName::Validate,
            reason: Reason::Malformed,
            detail: String::new(),
            at: batch.recorded_at,
            operator: symbols.name(batch.operator).into(),
            source: source.into(),
            partition: header.partition,
            frame: header.sequence,
            number: 0,
        };
        match &batch.verdict {
            Verdict::Refused(refused) => notices.push(RefusalNotice {
                batch: Some(refused.batch.to_string()),
                reason: refused.reason,
                detail: refused.detail.to_string(),
                ..blank
            }),
            Verdict::Accepted(accepted) => {
                notices.extend(accepted.refusals.iter().map(|refusal| RefusalNotice {
                    wager: Some(format!("{source}/{}/{}", accepted.sequence, refusal.index)),
                    stage: refusal.stage,
                    reason: refusal.reason,
                    detail: refusal.detail.to_string(),
                    ..blank.clone()
                }));
            }
        }
    }
    for (notice, number) in notices.iter_mut().zip(0..) {
        notice.number = number;
    }
    notices
}

/// What somebody must look at, in a form that two accounts of it share: operator, source, and from–to or position.
type Noted = (String, String, Result<(u64, u64), u64>);

fn incidents(frame: &Frame<Allocations>) -> impl Iterator<Item = Noted> {
    let symbols = &frame.body.symbols;
    frame.body.batches.iter().flat_map(move |batch| {
        let what = match &batch.verdict {
            Verdict::Refused(refused) if refused.conflict => vec![Err(batch.position)],
            Verdict::Refused(_) => Vec::new(),
            Verdict::Accepted(accepted) => accepted.gaps.iter().map(|gap| Ok((gap.from, gap.to))).collect(),
        };
        let (operator, source) = (symbols.name(batch.operator), symbols.name(batch.source));
        what.into_iter().map(move |what| (operator.to_owned(), source.to_owned(), what))
    })
}

fn incident_of(symbols: &Symbols, incident: &Incident) -> Noted {
    let (operator, source, what) = match *incident {
        Incident::Gap { operator, source, gap } => (operator, source, Ok((gap.from, gap.to))),
        Incident::Conflict { operator, source, position } => (operator, source, Err(position)),
    };
    (symbols.name(operator).to_owned(), symbols.name(source).to_owned(), what)
}
