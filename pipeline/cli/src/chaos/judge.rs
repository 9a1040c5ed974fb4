//! The verdict, from what is stored and from what the producers remember: every acknowledged batch is there with its
//! own bytes and was accepted once, each repeat of it was refused; the lanes are one to one; the books balance; the
//! windows of a second add up to the totals. `verify` computes all else again from the raw wagers, by its own code.

use std::collections::BTreeMap;
use std::time::Duration;

use jackpot_core::log::Log;
use jackpot_core::money::Pico;
use jackpot_core::record::{Commit, LevelTotals, SourceState, Window};
use jackpot_core::scatter::fnv1a;
use jackpot_core::topology::{self, Lane};
use tokio::time::{Instant, sleep};

use super::producer::{Sent, Source};
use crate::publish::address;
use crate::verify::{self, findings::Fault};
use crate::{streams, wait};

/// How long views may take to show the last of what was committed, and windows of a second to close.
const SHOWN_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(250);
/// Findings of one kind that are told.
const TOLD_MAX: usize = 5;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// What is wrong, a sentence each.
    pub(super) wrong: Vec<String>,
    /// Batches that are stored more often than once, since their first acknowledgement was lost.
    pub(super) repeated: u64,
    pub(super) commits: u64,
    pub(super) frames: u64,
    pub(super) hits: u64,
    pub(super) windows: u64,
}

/// Judges everything that is stored.
pub(super) async fn judge<L: Log>(log: &L, sent: &Sent) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict::default();
    let stored = stored(log).await?;
    for (name, source) in &sent.0 {
        let copies = verdict.batches(name, source, stored.get(name));
        let complaint = until_none(async || shown(log, name, source, copies).await).await?;
        verdict.wrong.extend(complaint);
    }
    for name in stored.keys().filter(|name| !sent.0.contains_key(*name)) {
        verdict.wrong.push(format!("batches of {name} are stored, which sent none"));
    }
    if let Some(commit) = wait::last_commit(log).await? {
        verdict.lanes(log, &commit).await?;
        verdict.commits = commit.commit;
        (verdict.hits, verdict.windows) = (commit.counts.hits, commit.counts.windows);
    }
    let complaint = until_none(async || windows(log).await).await?;
    verdict.wrong.extend(complaint);
    let findings = verify::verify(log, true).await?;
    let told = findings.told().iter().map(|Fault { check, place, what }| {
        format!("verify, {}: {} {}: {what}", check.name(), place.stream, place.sequence)
    });
    verdict.wrong.extend(told);
    Ok(verdict)
}

/// By source and number: the hash of each stored copy.
type Stored = BTreeMap<String, BTreeMap<u64, Vec<u64>>>;

async fn stored<L: Log>(log: &L) -> anyhow::Result<Stored> {
    let mut stored = Stored::new();
    streams::each(log, topology::WAGERS, "lane.*.*.*", |entry| {
        let source = entry.subject.rsplit('.').next().unwrap_or_default();
        let number = address::sequence(&entry.payload).unwrap_or(0);
        let copies = stored.entry(source.to_owned()).or_default().entry(number).or_default();
        copies.push(fnv1a(&entry.payload));
        Ok(())
    })
    .await?;
    Ok(stored)
}

impl Verdict {
    /// Each batch that was acknowledged is there, as it was sent; gives how many copies are too many.
    fn batches(&mut self, name: &str, source: &Source, stored: Option<&BTreeMap<u64, Vec<u64>>>) -> u64 {
        let none = BTreeMap::new();
        let stored = stored.unwrap_or(&none);
        let missing = source.batches.keys().filter(|number| !stored.contains_key(*number));
        let missing =
            missing.map(|number| format!("batch {name}/{number} was acknowledged and is not stored"));
        let unsent = stored.keys().filter(|number| !source.batches.contains_key(*number));
        let unsent = unsent.map(|number| format!("batch {name}/{number} is stored and was never sent"));
        let other = source.batches.iter().filter(|(number, hash)| {
            stored.get(number).is_some_and(|copies| copies.iter().any(|copy| copy != *hash))
        });
        let other = other.map(|(number, _)| format!("batch {name}/{number} is not stored as it was sent"));
        self.wrong.extend(missing.take(TOLD_MAX));
        self.wrong.extend(unsent.take(TOLD_MAX));
        self.wrong.extend(other.take(TOLD_MAX));
        let copies = stored.values().map(|copies| u64::try_from(copies.len()).unwrap_or(u64::MAX) - 1).sum();
        self.repeated += copies;
        copies
    }

    /// Each lane of a partition holds the same frames, and the ledger has consumed them all.
    async fn lanes<L: Log>(&mut self, log: &L, commit: &Commit) -> anyhow::Result<()> {
        for (partition, consumed) in (0..).zip(&commit.partitions) {
            self.frames += consumed.frame;
            for lane in Lane::ALL {
                let (stream, last) =
                    (lane.stream(partition), log.extent(&lane.stream(partition)).await?.last);
                if last != consumed.frame {
                    let frame = consumed.frame;
                    self.wrong
                        .push(format!("{stream} ends at frame {last}, and the ledger has consumed {frame}"));
                }
            }
        }
        Ok(())
    }
}

/// Asks again for a while, since views follow in their own time: what is wrong at last.
async fn until_none(ask: impl AsyncFn() -> anyhow::Result<Option<String>>) -> anyhow::Result<Option<String>> {
    let deadline = Instant::now() + SHOWN_MAX;
    loop {
        let complaint = ask().await?;
        if complaint.is_none() || Instant::now() >= deadline {
            return Ok(complaint);
        }
        sleep(POLL).await;
    }
}

/// Whether the view of a source counts each of its batches once, and each further copy as refused.
async fn shown<L: Log>(log: &L, name: &str, source: &Source, copies: u64) -> anyhow::Result<Option<String>> {
    let subject = topology::sources(&source.operator, name);
    let state: SourceState = match log.last(topology::SOURCES, &subject).await? {
        Some(entry) => serde_json::from_slice(&entry.payload)?,
        None => SourceState::default(),
    };
    let batches = u64::try_from(source.batches.len()).unwrap_or(u64::MAX);
    let got = [state.batches, state.refused_batches, state.wagers + state.refused_wagers];
    let expect = [batches, copies, source.wagers];
    let right = got == expect && state.missing.is_empty();
    let wrong = format!(
        "{subject} counts {got:?} accepted batches, refused ones and wagers, with {:?} missing, and should count {expect:?}",
        state.missing
    );
    Ok(if right { None } else { Some(wrong) })
}

/// What a level gained, or its windows did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    wagers: u64,
    hits: u64,
    wagered: Pico,
    contributed: Pico,
    paid: Pico,
    house: Pico,
}

/// Whether the books balance, and the windows of a second follow each other and add up to the totals.
async fn windows<L: Log>(log: &L) -> anyhow::Result<Option<String>> {
    let mut chains: BTreeMap<(String, String), (Sum, Pico)> = BTreeMap::new();
    let mut wrong = None;
    streams::each(log, topology::WINDOWS, "windows.1.>", |entry| {
        let window: Window = serde_json::from_slice(&entry.payload)?;
        let chain = chains.entry((window.pool.clone(), window.level.clone())).or_default();
        if window.opening != chain.1 {
            let Window { pool, level, window_start, .. } = &window;
            wrong.get_or_insert_with(|| format!("the window of {pool}/{level} at {window_start} opens with what the one before did not close with"));
        }
        chain.0.add(&window);
        chain.1 = window.closing;
        Ok(())
    })
    .await?;
    for ((pool, level), (sum, closing)) in &chains {
        let Some(entry) = log.last(topology::TOTALS, &topology::totals(pool, level)).await? else {
            return Ok(Some(format!("{pool}/{level} has windows and no total")));
        };
        let total: LevelTotals = serde_json::from_slice(&entry.payload)?;
        let held = total.current + total.reserve + total.diversion;
        if held != total.contributed + total.house + total.adjusted - total.paid {
            return Ok(Some(format!("the books of {pool}/{level} do not balance")));
        }
        let LevelTotals { wagers, hits, wagered, contributed, paid, house, .. } = total;
        let expect = Sum { wagers, hits, wagered, contributed, paid, house };
        if (*sum, *closing) != (expect, held) {
            return Ok(Some(format!(
                "the windows of {pool}/{level} add up to {sum:?}, and its total is {expect:?}"
            )));
        }
    }
    Ok(wrong)
}

impl Sum {
    fn add(&mut self, window: &Window) {
        self.wagers += window.wagers;
        self.hits += window.hits;
        self.wagered += window.wagered;
        self.contributed += window.contributed;
        self.paid += window.paid;
        self.house += window.house;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_foreign_and_changed_batches_are_told_and_repeats_are_counted() {
        let source =
            Source { operator: "acme".into(), wagers: 3, batches: [(1, 10), (2, 20), (3, 30)].into() };
        let check = |stored: &[(u64, &[u64])], copies: u64, expect: &[&str]| {
            let stored = stored.iter().map(|&(number, copies)| (number, copies.to_vec())).collect();
            let mut verdict = Verdict::default();
            assert_eq!(verdict.batches("eu1", &source, Some(&stored)), copies);
            assert_eq!(verdict.wrong, expect);
        };
        check(&[(1, &[10]), (2, &[20, 20]), (3, &[30])], 1, &[]);
        check(&[(1, &[10]), (3, &[30])], 0, &["batch eu1/2 was acknowledged and is not stored"]);
        check(&[(1, &[10]), (2, &[20, 21]), (3, &[30])], 1, &["batch eu1/2 is not stored as it was sent"]);
        check(
            &[(1, &[10]), (2, &[20]), (3, &[30]), (4, &[1])],
            0,
            &["batch eu1/4 is stored and was never sent"],
        );
    }
}
