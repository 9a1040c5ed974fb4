//! `jackpot verify`: proves the audit log, the books and the totals against the raw wagers.
//!
//! It computes everything again by code of its own: with the stages it shares the types of frames and records, and
//! their codecs, and nothing that decides. One pass in log order, over all streams side by side, in memory that is
//! bounded by what the pipeline itself keeps open. What is written while it runs is left out.
//!
//! Lanes may have been trimmed, records not. Of a frame that was trimmed, `wagers` and `allocations-p` hold what there
//! is to prove; what the ledger was given is written again from the allocations, and the digest in the commit tells
//! that it is the same to the byte.
//!
//! Not proved here: refusals that only a stage's memory or the boundary data decide (repeated interactions, places by
//! coordinates, travel), and by how much the watermark stays behind the events. With `--deep` the stages themselves
//! compute their frames again, and digests tell whether these are the recorded ones: that costs their work and what
//! they remember, and proves such refusals as far as the stages are right. What a file of keys said of a signature is
//! taken as it is recorded.

mod again;
mod commits;
mod contributions;
pub mod findings;
mod ingress;
pub(crate) mod lane;
mod leaves;
mod ledger;
mod numbers;
mod outcomes;
mod pools;
pub mod raw;
mod shelf;
mod sums;
pub(crate) mod tape;
mod views;
mod windows;

use std::io::Write;
use std::time::Duration;

use anyhow::bail;
use jackpot_core::digest::Digest;
use jackpot_core::log::{Entry, Log};
use jackpot_core::record::{Commit, Consumed};
use jackpot_core::topology::{self, Lane};
use tokio::time::{Instant, sleep};

use crate::progress::{Progress, counted};
use crate::server::Server;
use crate::streams;
use commits::Record;
use findings::{Check, Findings, Place, counted_faults};
use lane::{Contributed, Partition};
use shelf::Shelf;
use tape::Tape;
use views::{Refusals, Views};

/// How long allocations may lag behind what the ledger has committed: they are written at the same time.
const LAG_MAX: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

/// Proves the audit log, the books and the totals against the raw wagers.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub(crate) server: Server,
    /// For programs: one JSON object.
    #[arg(long)]
    json: bool,
    /// Also has validate and geofence compute all their frames again, those that were trimmed too, and compares digests.
    #[arg(long)]
    deep: bool,
}

/// Runs the command; any fault is an error.
pub async fn run<L: Log>(args: &Args, log: &L, out: &mut impl Write) -> anyhow::Result<()> {
    let findings = verify(log, args.deep).await?;
    match args.json {
        true => findings.json(out)?,
        false => findings.text(out)?,
    }
    out.flush()?;
    match findings.faults() {
        0 => Ok(()),
        faults => bail!(
            "{} found; keep all streams as they are, and find out who changed what is named first",
            counted_faults(faults)
        ),
    }
}

/// Proves everything that is stored now; `deep`: with the frames of validate and geofence computed again by these.
pub async fn verify<L: Log>(log: &L, deep: bool) -> anyhow::Result<Findings> {
    let mut findings = Findings::default();
    let mut proof = Proof::open(log, deep, &mut findings).await?;
    proof.lengths(&mut findings);
    for number in 1..=proof.commits.last() {
        match proof.commits.at(number).await? {
            Some(entry) => proof.commit(&entry, &mut findings).await?,
            None => {
                findings.fault(
                    Check::Commits,
                    Place::of(topology::COMMITS, number),
                    "the commit is not there",
                );
            }
        }
    }
    proof.finish(&mut findings).await?;
    Ok(findings)
}

/// All streams, side by side.
struct Proof<L: Log> {
    shelf: Shelf<L>,
    views: Views<L>,
    commits: Tape<L>,
    record: Record,
    refusals: Refusals<L>,
    partitions: Vec<Partition<L>>,
    /// By partition: the last frame of `contributions-p`, where it is known.
    contributed: Vec<Option<Contributed>>,
    progress: Progress,
    frames: u64,
}

impl<L: Log> Proof<L> {
    /// Opens everything, the last of the flow first: then whatever is written meanwhile makes an output shorter than
    /// its input, which is nothing wrong.
    async fn open(log: &L, deep: bool, findings: &mut Findings) -> anyhow::Result<Self> {
        let count = streams::partitions(log).await?;
        let views = Views::open(log, findings).await?;
        let commits = Tape::open(log, topology::COMMITS, topology::COMMITS).await?;
        let mut audited = Vec::new();
        for partition in 0..count {
            audited.push(log.extent(&Lane::Audit.stream(partition)).await?.last);
        }
        let refusals = Refusals::open(log, audited).await?;
        let committed = log.get(topology::COMMITS, commits.last()).await?;
        let mut partitions = Vec::new();
        for partition in 0..count {
            partitions.push(open_partition(log, partition, deep, committed.as_ref()).await?);
        }
        Ok(Self {
            shelf: Shelf::new(log.clone()),
            views,
            commits,
            record: Record::new(count),
            refusals,
            contributed: vec![Some(Contributed { digest: Digest::ZERO, written: false }); partitions.len()],
            partitions,
            progress: Progress::new(),
            frames: 0,
        })
    }

    fn lengths(&self, findings: &mut Findings) {
        self.partitions.iter().for_each(|partition| partition.check_lengths(findings));
    }

    /// Proves a commit and the frames that it consumed.
    async fn commit(&mut self, entry: &Entry, findings: &mut Findings) -> anyhow::Result<()> {
        if let Some(commit) = self.record.read(entry, findings) {
            let terms = match commit.terms > self.record.terms() {
                true => self.shelf.get(commit.terms, findings).await?,
                false => None,
            };
            let consumed = commit.partitions.clone();
            let mut open = self.record.begin(commit, entry.payload.len(), terms.as_deref());
            for (partition, frame) in consumed.iter().map(|consumed| consumed.frame).enumerate() {
                while self.partitions[partition].done() < frame.min(self.partitions[partition].end()) {
                    let work = self.advance(partition, findings).await?;
                    self.record.post(&mut open, &work, findings);
                }
                let there = self.partitions[partition].last(Lane::Contributions);
                if there < frame && self.record.consumed(partition) < frame {
                    let what = format!(
                        "it consumed frame {frame} of contributions-{partition}, which ends at {there}"
                    );
                    findings.fault(Check::Commits, Place::of(topology::COMMITS, entry.sequence), what);
                    self.contributed[partition] = None;
                }
            }
            self.record.end(open, &self.contributed, findings);
            for (number, Consumed { frame, digest, .. }) in consumed.into_iter().enumerate() {
                self.partitions[number].committed(frame, digest, findings);
                // What follows is judged from here, so that one change is one finding.
                self.contributed[number] = Some(Contributed { digest, written: false });
            }
        }
        self.views.check(entry, findings).await?;
        let (number, frames) = (entry.sequence, self.frames);
        let last = self.commits.last();
        self.progress.show(|| format!("commit {number} of {last}, {}", counted(frames, "frame", "frames")));
        Ok(())
    }

    async fn advance(&mut self, partition: usize, findings: &mut Findings) -> anyhow::Result<lane::Work> {
        let mut work = self.partitions[partition].advance(&mut self.shelf, findings).await?;
        self.contributed[partition] = work.contributions;
        self.refusals.due(std::mem::take(&mut work.notices));
        self.refusals.settle(findings).await?;
        self.frames += 1;
        Ok(work)
    }

    /// Proves the frames that no commit has consumed yet, and what can only be told at the end.
    async fn finish(&mut self, findings: &mut Findings) -> anyhow::Result<()> {
        for partition in 0..self.partitions.len() {
            while self.partitions[partition].done() < self.partitions[partition].end() {
                self.advance(partition, findings).await?;
            }
        }
        self.record.finish(self.commits.last(), findings);
        self.views.finish(findings);
        self.refusals.finish(findings).await?;
        self.progress.clear();
        Ok(())
    }
}

/// Opens a partition once its allocations are there as far as the ledger has committed.
async fn open_partition<L: Log>(
    log: &L,
    number: u16,
    deep: bool,
    committed: Option<&Entry>,
) -> anyhow::Result<Partition<L>> {
    let commit = committed.and_then(|entry| serde_json::from_slice::<Commit>(&entry.payload).ok());
    let consumed = commit.and_then(|commit| commit.partitions.get(usize::from(number)).copied());
    let deadline = Instant::now() + LAG_MAX;
    loop {
        let partition = Partition::open(log, number, deep).await?;
        let there = partition.last(Lane::Allocations);
        let idle = partition.last(Lane::Contributions) <= there;
        if idle || consumed.is_none_or(|consumed| consumed.frame <= there) || Instant::now() >= deadline {
            return Ok(partition);
        }
        sleep(POLL).await;
    }
}
