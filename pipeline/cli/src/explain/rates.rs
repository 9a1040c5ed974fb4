//! By which rates a level took a wager. Rates change with a hit alone: what was in force is what the revision said that
//! ran at the level's last hit before the wager, or when the level was opened (contract, section 4).

use std::sync::Arc;

use anyhow::Context;
use jackpot_core::frame::allocations::{Allocation, Allocations};
use jackpot_core::frame::batch::{HitClaim, Refusal, Verdict};
use jackpot_core::log::Log;
use jackpot_core::record::{Commit, Hit};
use jackpot_core::terms::Terms;
use jackpot_core::terms::cache::TermsCache;
use jackpot_core::terms::store::StoreError;
use jackpot_core::topology::{self, Lane};
use serde::Serialize;

use super::find;
use crate::frame;
use crate::verify::tape::Tape;

/// How many messages of `hits` are looked at first, from the end.
const HITS_BACK: u64 = 256;

/// A level's rates when a wager came, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rates {
    /// Of an eligible amount, to `current`.
    pub increment_ppm: u32,
    /// And to the reserve.
    pub reserve_ppm: u32,
    /// The revision that says so.
    pub revision: u64,
    /// The hit since which they hold; none before: they hold since the level was opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_hit: Option<String>,
    /// The commit in which that was.
    pub since_commit: u64,
}

/// Where a wager stands in the order of the log.
pub struct Moment<'a> {
    /// Its commit.
    pub commit: &'a Commit,
    /// Its partition.
    pub partition: u16,
    /// Its frame.
    pub frame: u64,
    /// The place of its batch in `wagers`.
    pub position: u64,
    /// Its index.
    pub index: u16,
    /// All partitions.
    pub partitions: u16,
}

/// The rates of a level at a moment; `None` where the terms that would say it are gone.
pub async fn in_force<L: Log>(
    log: &L,
    terms: &TermsCache<L>,
    moment: &Moment<'_>,
    pool: &str,
    level: &str,
) -> anyhow::Result<Option<Rates>> {
    let hit = last_hit(log, moment, pool, level).await?;
    let (revision, since_commit) = match &hit {
        Some(hit) => (find::commit(log, hit.commit).await?.terms, hit.commit),
        None => match opening(log, terms, moment, pool, level).await? {
            Some(opening) => opening,
            None => return Ok(None),
        },
    };
    let document = terms.get(revision).await?;
    let Some(level) = level_of(&document, pool, level) else { return Ok(None) };
    Ok(Some(Rates {
        increment_ppm: level.increment_ppm.0,
        reserve_ppm: level.reserve_ppm.0,
        revision,
        since_hit: hit.map(|hit| hit.wager),
        since_commit,
    }))
}

fn level_of<'a>(terms: &'a Terms, pool: &str, level: &str) -> Option<&'a jackpot_core::terms::Level> {
    terms.pools.iter().find(|known| known.pool == pool)?.levels.iter().find(|known| known.level == level)
}

/// The revision that ran when a level was opened, and the commit.
async fn opening<L: Log>(
    log: &L,
    terms: &TermsCache<L>,
    moment: &Moment<'_>,
    pool: &str,
    level: &str,
) -> anyhow::Result<Option<(u64, u64)>> {
    let mut first = moment.commit.terms;
    while let Some(before) = earlier(terms, first).await? {
        if level_of(&before, pool, level).is_none() {
            break;
        }
        first -= 1;
    }
    let commit = find::first_commit(log, |commit| commit.terms >= first).await?;
    Ok(commit.map(|commit| (commit.terms, commit.commit)))
}

/// The revision before, if there is one.
async fn earlier<L: Log>(terms: &TermsCache<L>, revision: u64) -> anyhow::Result<Option<Arc<Terms>>> {
    if revision <= 1 {
        return Ok(None);
    }
    match terms.get(revision - 1).await {
        Ok(terms) => Ok(Some(terms)),
        Err(StoreError::Missing(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The level's last hit before a moment.
async fn last_hit<L: Log>(
    log: &L,
    moment: &Moment<'_>,
    pool: &str,
    level: &str,
) -> anyhow::Result<Option<Hit>> {
    let here: Vec<&Hit> =
        moment.commit.hits.iter().filter(|hit| (&*hit.pool, &*hit.level) == (pool, level)).collect();
    let mut found = None;
    if !here.is_empty() {
        let earlier = hits_before(log, moment).await?;
        for hit in here {
            let partition = topology::partition(&hit.source, moment.partitions);
            if partition < moment.partition || (partition == moment.partition && earlier.contains(&hit.wager))
            {
                found = Some(hit.clone());
            }
        }
    }
    match found {
        Some(hit) => Ok(Some(hit)),
        None => last_hit_before(log, moment.commit.commit, pool, level).await,
    }
}

/// The wagers of the moment's partition that won something in its commit and before it.
async fn hits_before<L: Log>(log: &L, moment: &Moment<'_>) -> anyhow::Result<Vec<String>> {
    let mut before = Vec::new();
    let number = moment.commit.commit;
    let from = match number {
        1 => 1,
        _ => {
            let previous = find::commit(log, number - 1).await?;
            previous.partitions.get(usize::from(moment.partition)).map_or(0, |consumed| consumed.frame) + 1
        }
    };
    let stream = Lane::Allocations.stream(moment.partition);
    for sequence in from..=moment.frame {
        let entry = log.get(&stream, sequence).await?;
        let entry = entry.with_context(|| format!("frame {sequence} of {stream} is not there"))?;
        let body = frame::read::<Allocations>(&stream, &entry)?.body;
        for batch in body.batches.iter().filter(|batch| batch.position <= moment.position) {
            let Verdict::Accepted(accepted) = &batch.verdict else { continue };
            let indexes = accepted.wagers.iter().filter(|of| wins(of, &accepted.refusals));
            let indexes = indexes.map(|of| of.wager.index);
            let source = body.symbols.name(batch.source);
            before.extend(
                indexes
                    .filter(|index| (batch.position, *index) < (moment.position, moment.index))
                    .map(|index| format!("{source}/{}/{index}", accepted.sequence)),
            );
        }
    }
    Ok(before)
}

/// Whether a claim of a wager stands.
fn wins(allocation: &Allocation, refusals: &[Refusal]) -> bool {
    let index = allocation.wager.index;
    let stands = |(number, claim): (u8, &HitClaim)| {
        let refused = |refusal: &Refusal| (refusal.index, refusal.hit) == (index, Some(number));
        matches!(claim, HitClaim::Level { .. }) && !refusals.iter().any(refused)
    };
    allocation.wager.hits.as_ref().is_some_and(|hits| (0..).zip(&hits.claims).any(stands))
}

/// The level's last hit in the commits before one.
async fn last_hit_before<L: Log>(
    log: &L,
    commit: u64,
    pool: &str,
    level: &str,
) -> anyhow::Result<Option<Hit>> {
    let extent = log.extent(topology::HITS).await?;
    let read = |payload: &[u8]| serde_json::from_slice::<Hit>(payload).context("cannot read the stream hits");
    let later = async |sequence| match log.get(topology::HITS, sequence).await? {
        Some(entry) => Ok(read(&entry.payload)?.commit >= commit),
        None => Ok(false),
    };
    let end = find::first(extent.first, extent.last, later).await?.unwrap_or(extent.last + 1);
    let mut back = HITS_BACK;
    loop {
        let from = end.saturating_sub(back).max(extent.first);
        let mut tape = Tape::open(log, topology::HITS, topology::hits(pool, level)).await?.from(from);
        let mut found = None;
        while let Some(entry) = tape.until(end.saturating_sub(1)).await? {
            found = Some(read(&entry.payload)?);
        }
        if found.is_some() || from == extent.first {
            return Ok(found);
        }
        back = back.saturating_mul(8);
    }
}
