//! What is shown against what is recorded: `hits` and `windows` message by message, `totals` each message against its
//! commit, and the refusals that producers were told against those of the frames.

use std::collections::{BTreeMap, VecDeque};

use jackpot_core::digest::Digest;
use jackpot_core::log::{Entry, Log};
use jackpot_core::record::RefusalNotice;
use jackpot_core::topology;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::verify::findings::{Check, Findings, Place};
use crate::verify::tape::Tape;

/// A commit's lists, their entries as they are written.
#[derive(Deserialize)]
pub struct Slices<'a> {
    #[serde(borrow)]
    levels: Vec<&'a RawValue>,
    #[serde(borrow)]
    windows: Vec<&'a RawValue>,
    #[serde(borrow)]
    hits: Vec<&'a RawValue>,
}

/// What of an entry names its subject.
#[derive(Deserialize)]
struct Named {
    pool: String,
    level: String,
    #[serde(default)]
    seconds: u32,
    #[serde(default)]
    commit: u64,
}

/// The three views.
pub struct Views<L: Log> {
    hits: Exact<L>,
    windows: Exact<L>,
    totals: Totals,
}

/// A view of which every message is predicted.
struct Exact<L: Log> {
    tape: Tape<L>,
    shown: u64,
}

/// The thinned view; the stream keeps a bounded number of messages of each level.
struct Totals {
    /// By subject and commit: the message and its sequence.
    stored: BTreeMap<(String, u64), (Digest, u64)>,
    /// Up to which commit everything is shown.
    settled: u64,
    /// By subject: the last commit that changed the level, of those that are settled, and the last one shown.
    last: BTreeMap<String, (u64, u64)>,
}

impl<L: Log> Views<L> {
    /// Opens all three.
    pub async fn open(log: &L, findings: &mut Findings) -> anyhow::Result<Self> {
        let totals = Totals::load(log, findings).await?;
        let exact = async |stream: &'static str| -> anyhow::Result<_> {
            Ok(Exact { tape: Tape::open(log, stream, format!("{stream}.>")).await?, shown: 0 })
        };
        Ok(Self { hits: exact(topology::HITS).await?, windows: exact(topology::WINDOWS).await?, totals })
    }

    /// Compares what is shown of a commit.
    pub async fn check(&mut self, entry: &Entry, findings: &mut Findings) -> anyhow::Result<()> {
        let Ok(slices) = serde_json::from_slice::<Slices<'_>>(&entry.payload) else { return Ok(()) };
        for json in slices.hits {
            self.hits.check(json, |named| topology::hits(&named.pool, &named.level), findings).await?;
        }
        for json in slices.windows {
            let subject = |named: &Named| topology::windows(named.seconds, &named.pool, &named.level);
            self.windows.check(json, subject, findings).await?;
        }
        for json in slices.levels {
            self.totals.check(json, entry.sequence, findings);
        }
        Ok(())
    }

    /// After the last commit: nothing is shown that was not committed, and no last state is left out.
    pub fn finish(&self, findings: &mut Findings) {
        for exact in [&self.hits, &self.windows] {
            if exact.tape.last() > exact.shown {
                let what =
                    format!("it shows {} messages, and the commits hold {}", exact.tape.last(), exact.shown);
                findings.fault(Check::Views, Place::of(exact.tape.stream(), exact.tape.last()), what);
            }
        }
        for ((subject, commit), (_, sequence)) in &self.totals.stored {
            let what = format!("{subject} shows commit {commit}, which did not change it or is not there");
            findings.fault(Check::Views, Place::of(topology::TOTALS, *sequence), what);
        }
        for (subject, (changed, shown)) in &self.totals.last {
            if shown < changed {
                let what = format!(
                    "{subject} shows commit {shown} last, though commit {changed} changed it after that"
                );
                findings.fault(Check::Views, Place::of(topology::TOTALS, self.totals.settled), what);
            }
        }
    }
}

impl<L: Log> Exact<L> {
    async fn check(
        &mut self,
        json: &RawValue,
        subject: impl Fn(&Named) -> String,
        findings: &mut Findings,
    ) -> anyhow::Result<()> {
        self.shown += 1;
        if self.shown > self.tape.last() {
            return Ok(());
        }
        let place = Place::of(self.tape.stream(), self.shown);
        findings.count(Check::Views, 1);
        let Some(entry) = self.tape.at(self.shown).await? else {
            findings.fault(Check::Views, place, "the message is not there");
            return Ok(());
        };
        let named = serde_json::from_str::<Named>(json.get()).ok();
        let subject = named.as_ref().map(subject);
        if entry.payload != json.get().as_bytes() || subject.is_none_or(|subject| *subject != *entry.subject)
        {
            findings.fault(Check::Views, place, "the message is not what its commit says");
        }
        Ok(())
    }
}

impl Totals {
    async fn load<L: Log>(log: &L, findings: &mut Findings) -> anyhow::Result<Self> {
        let mut totals = Self { stored: BTreeMap::new(), settled: 0, last: BTreeMap::new() };
        let mut tape = Tape::open(log, topology::TOTALS, format!("{}.>", topology::TOTALS)).await?;
        while let Some(entry) = tape.next().await? {
            let named = serde_json::from_slice::<Named>(&entry.payload).ok();
            let named = named.filter(|named| topology::totals(&named.pool, &named.level) == *entry.subject);
            let Some(Named { commit, .. }) = named else {
                let what = "the message is no total of its subject";
                findings.fault(Check::Views, Place::of(topology::TOTALS, entry.sequence), what);
                continue;
            };
            totals.settled = totals.settled.max(topology::settled(&entry));
            let subject = entry.subject.to_string();
            let last = totals.last.entry(subject.clone()).or_default();
            if commit <= last.1 {
                let what = format!("{subject} shows commit {commit} after commit {}", last.1);
                findings.fault(Check::Views, Place::of(topology::TOTALS, entry.sequence), what);
            }
            last.1 = last.1.max(commit);
            totals.stored.insert((subject, commit), (Digest::of(&entry.payload), entry.sequence));
        }
        Ok(totals)
    }

    fn check(&mut self, json: &RawValue, commit: u64, findings: &mut Findings) {
        let Ok(named) = serde_json::from_str::<Named>(json.get()) else { return };
        let subject = topology::totals(&named.pool, &named.level);
        if commit <= self.settled {
            self.last.entry(subject.clone()).or_default().0 = commit;
        }
        let Some((digest, sequence)) = self.stored.remove(&(subject, commit)) else { return };
        findings.count(Check::Views, 1);
        if digest != Digest::of(json.get().as_bytes()) {
            let what = "the message is not what its commit says";
            findings.fault(Check::Views, Place::of(topology::TOTALS, sequence), what);
        }
    }
}

/// The refusals that producers were told, beside those of the frames.
pub struct Refusals<L: Log> {
    tape: Tape<L>,
    /// By partition: what is due, in log order.
    due: Vec<VecDeque<RefusalNotice>>,
    /// By partition: what was read before its frame was.
    ahead: Vec<VecDeque<(u64, RefusalNotice)>>,
    /// By partition: the last frame that the audit has an entry of; of later ones nothing need be told yet.
    audited: Vec<u64>,
}

impl<L: Log> Refusals<L> {
    /// From the first on. `audited` is, by partition, how far the audit had come before.
    pub async fn open(log: &L, audited: Vec<u64>) -> anyhow::Result<Self> {
        let tape = Tape::open(log, topology::REFUSALS, format!("{}.>", topology::REFUSALS)).await?;
        let queues = audited.len();
        Ok(Self {
            tape,
            due: std::iter::repeat_with(VecDeque::new).take(queues).collect(),
            ahead: std::iter::repeat_with(VecDeque::new).take(queues).collect(),
            audited,
        })
    }

    /// A frame has these refusals.
    pub fn due(&mut self, notices: Vec<RefusalNotice>) {
        for notice in notices {
            if let Some(queue) = self.due.get_mut(usize::from(notice.partition)) {
                queue.push_back(notice);
            }
        }
    }

    /// Compares as many as can be: all that is due, as far as messages go.
    pub async fn settle(&mut self, findings: &mut Findings) -> anyhow::Result<()> {
        for partition in 0..self.due.len() {
            self.compare(partition, findings);
            while self.ahead[partition].is_empty() && !self.due[partition].is_empty() {
                let Some(entry) = self.tape.next().await? else { return Ok(()) };
                self.take(&entry, findings);
                self.compare(partition, findings);
            }
        }
        Ok(())
    }

    /// After the last frame: what is left on either side has no counterpart.
    pub async fn finish(&mut self, findings: &mut Findings) -> anyhow::Result<()> {
        while let Some(entry) = self.tape.next().await? {
            self.take(&entry, findings);
        }
        for partition in 0..self.due.len() {
            self.compare(partition, findings);
            for (sequence, notice) in std::mem::take(&mut self.ahead[partition]) {
                stray(sequence, &notice, findings);
            }
            let audited = self.audited[partition];
            for notice in self.due[partition].drain(..).filter(|notice| notice.frame <= audited) {
                missing(self.tape.last(), &notice, findings);
            }
        }
        Ok(())
    }

    fn take(&mut self, entry: &Entry, findings: &mut Findings) {
        findings.count(Check::Refusals, 1);
        let place = Place::of(topology::REFUSALS, entry.sequence);
        match serde_json::from_slice::<RefusalNotice>(&entry.payload) {
            Ok(notice) if topology::refusals(&notice.operator, &notice.source) != *entry.subject => {
                findings.fault(Check::Refusals, place, "the message is not about the source of its subject");
            }
            Ok(notice) => match self.ahead.get_mut(usize::from(notice.partition)) {
                Some(queue) => queue.push_back((entry.sequence, notice)),
                None => findings.fault(Check::Refusals, place, "there is no such partition"),
            },
            Err(error) => {
                findings.fault(Check::Refusals, place, format!("the message cannot be read ({error})"));
            }
        }
    }

    fn compare(&mut self, partition: usize, findings: &mut Findings) {
        let (due, ahead) = (&mut self.due[partition], &mut self.ahead[partition]);
        while let (Some(next), Some((sequence, told))) = (due.front(), ahead.front()) {
            let order = (next.frame, next.number).cmp(&(told.frame, told.number));
            match order {
                std::cmp::Ordering::Less => missing(*sequence, next, findings),
                std::cmp::Ordering::Greater => stray(*sequence, told, findings),
                std::cmp::Ordering::Equal if next != told => {
                    let place = Place::of(topology::REFUSALS, *sequence).wager(id(told));
                    findings.fault(Check::Refusals, place, "the message is not what its frame says");
                }
                std::cmp::Ordering::Equal => {}
            }
            if order.is_le() {
                due.pop_front();
            }
            if order.is_ge() {
                ahead.pop_front();
            }
        }
    }
}

fn id(notice: &RefusalNotice) -> String {
    notice.wager.clone().or_else(|| notice.batch.clone()).unwrap_or_default()
}

fn missing(sequence: u64, notice: &RefusalNotice, findings: &mut Findings) {
    let what = format!(
        "the refusal as {} of frame {} of partition {} is missing before this message",
        notice.reason, notice.frame, notice.partition
    );
    findings.fault(Check::Refusals, Place::of(topology::REFUSALS, sequence).wager(id(notice)), what);
}

fn stray(sequence: u64, notice: &RefusalNotice, findings: &mut Findings) {
    let what = format!(
        "the message is number {} of frame {} of partition {}, where nothing of the kind is due",
        notice.number, notice.frame, notice.partition
    );
    findings.fault(Check::Refusals, Place::of(topology::REFUSALS, sequence).wager(id(notice)), what);
}
