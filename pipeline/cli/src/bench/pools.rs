//! The terms that runs publish under, and whether the pools hold what was published. In each pool every wager of
//! its operators takes part whose currency is the pool's, so that what must be in it is a sum over the published
//! bytes; nothing of the pipeline computes it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, ensure};
use jackpot_core::frame::batch::Funds;
use jackpot_core::log::Log;
use jackpot_core::log::jetstream::JetStream;
use jackpot_core::money::{self, Micro, Pico, Ppm};
use jackpot_core::record::{LevelTotals, RefusalNotice};
use jackpot_core::refusal::Reason;
use jackpot_core::terms::{Level, Operator, Pool, Source, Terms};
use jackpot_core::topology;
use serde::Deserialize;

use crate::load::traffic::Batch;
use crate::{streams, terms};

/// The pool that wagers of all operators take part in.
pub(super) const ALL: &str = "bench";
/// Its currency, and that of the other pools here.
const CURRENCY: &str = "EUR";
/// The levels of each pool: increment and reserve.
const LEVELS: [(&str, u32, u32); 2] = [("grand", 3_000, 1_000), ("minor", 6_750, 2_250)];
/// Where players of the lanes' operators are: one place, and so one currency.
const PLACE: &str = "MT";

/// The example terms, with a pool that all wagers in its currency take part in, and no exchange rates.
pub(super) fn shared() -> anyhow::Result<Terms> {
    let mut terms = example()?;
    let jurisdictions = terms.jurisdictions.iter().map(|rule| rule.code.clone()).collect();
    terms.pools.insert(0, pool(ALL, "*", jurisdictions));
    Ok(terms)
}

/// Terms with one operator, one source and one pool for each partition, the operator and the pool with the
/// [`lane`]'s name: the wagers of a pool are then in the order in which they were published.
pub(super) fn by_partition(partitions: u16) -> anyhow::Result<Terms> {
    let mut terms = example()?;
    terms.jurisdictions.retain(|rule| rule.code == PLACE);
    let operator = |p| Operator { operator: lane(p), jurisdictions: vec![PLACE.into()] };
    let source = |p| Source {
        source: source(p, partitions),
        operator: lane(p),
        keys: Vec::new(),
        sequence_from: None,
    };
    terms.operators = (0..partitions).map(operator).collect();
    terms.sources = (0..partitions).map(source).collect();
    terms.pools = (0..partitions).map(|p| pool(&lane(p), &lane(p), vec![PLACE.into()])).collect();
    Ok(terms)
}

/// What the operator and the pool of a partition are called.
pub(super) fn lane(partition: u16) -> String {
    format!("bench-{partition}")
}

/// A source whose batches go to a partition.
fn source(partition: u16, partitions: u16) -> String {
    let mut names = (0..).map(|n: u32| format!("bench-source-{n}"));
    names
        .find(|name| topology::partition(name, partitions) == partition)
        .expect("a hash reaches every partition")
}

fn example() -> anyhow::Result<Terms> {
    let mut terms = terms::parse("the example terms", terms::EXAMPLE, &mut std::io::stderr())?;
    terms.exchange_rates.clear();
    Ok(terms)
}

fn pool(name: &str, operator: &str, jurisdictions: Vec<String>) -> Pool {
    let level = |&(level, increment, reserve): &(&str, u32, u32)| Level {
        level: level.into(),
        base: Pico(100 * money::PICO),
        ceiling: None,
        increment_ppm: Ppm(increment),
        reserve_ppm: Ppm(reserve),
    };
    Pool {
        pool: name.into(),
        currency: CURRENCY.into(),
        operators: vec![operator.into()],
        games: vec!["*".into()],
        jurisdictions,
        funds: vec![Funds::Cash, Funds::Bonus, Funds::Free],
        requires_opt_in: false,
        min_wager: Micro(0),
        max_wager: None,
        levels: LEVELS.iter().map(level).collect(),
    }
}

/// What a check needs of a published batch.
#[derive(Deserialize)]
struct Published<'a> {
    #[serde(borrow)]
    wagers: Vec<PublishedWager<'a>>,
}

#[derive(Deserialize)]
struct PublishedWager<'a> {
    amount: &'a str,
    currency: &'a str,
}

/// Whether the sums of the pools are those of the published wagers that were not refused; `pool` is the one that a
/// batch's wagers take part in.
pub(super) async fn check<'a>(
    log: &JetStream,
    batches: impl IntoIterator<Item = &'a Batch>,
    pool: impl Fn(&Batch) -> String,
) -> anyhow::Result<()> {
    let refused = refused(log).await?;
    let mut expected: BTreeMap<String, (u64, Micro)> = BTreeMap::new();
    for batch in batches {
        let (wagers, wagered) = expected.entry(pool(batch)).or_insert((0, Micro(0)));
        let published: Published<'_> = serde_json::from_slice(&batch.body)?;
        for (index, wager) in published.wagers.iter().enumerate() {
            let id = || format!("{}/{}/{index}", batch.source, batch.sequence);
            if wager.currency == CURRENCY && (refused.is_empty() || !refused.contains(&id())) {
                *wagers += 1;
                *wagered = Micro(wagered.0 + Micro::parse_wager(wager.amount)?.0);
            }
        }
    }
    for (pool, (wagers, wagered)) in expected {
        for (level, increment, reserve) in LEVELS {
            let entry = log.last(topology::TOTALS, &topology::totals(&pool, level)).await?;
            let entry = entry.with_context(|| format!("there are no totals of {pool}/{level}"))?;
            let totals: LevelTotals = serde_json::from_slice(&entry.payload)?;
            let exact = totals.wagers == wagers
                && totals.wagered == wagered.pico()
                && totals.contributed == wagered.share(Ppm(increment + reserve));
            ensure!(
                exact,
                "the totals of {pool}/{level} are not those of the published wagers: {wagers} wagers of {wagered} \
                 were expected, {} of {} are there; keep the directory's data and report this",
                totals.wagers,
                totals.wagered
            );
        }
    }
    Ok(())
}

/// The wagers that were refused; a batch must not be.
async fn refused(log: &JetStream) -> anyhow::Result<BTreeSet<String>> {
    let mut refused = BTreeSet::new();
    streams::each(log, topology::REFUSALS, "refusals.>", |entry| {
        let notice: RefusalNotice = serde_json::from_slice(&entry.payload)?;
        ensure!(notice.batch.is_none(), "batch {:?} was refused: {}", notice.batch, notice.detail);
        if notice.reason != Reason::HitRefused {
            refused.insert(notice.wager.unwrap_or_default());
        }
        Ok(())
    })
    .await?;
    Ok(refused)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jackpot_core::time::Millis;

    use super::*;
    use crate::load::traffic::{Settings, Traffic};

    #[test]
    fn every_partition_has_a_source_and_a_pool_of_its_own() {
        let terms = by_partition(4).expect("the example can be read");
        assert!(Terms::parse(&terms.document()).is_ok(), "they have no faults");
        let settings = Settings {
            seed: 1,
            start: Millis(0),
            rate: 1_000,
            wagers: 2_000,
            batch: 10,
            from: BTreeMap::new(),
        };
        let (mut lanes, mut currencies) = (BTreeSet::new(), BTreeSet::new());
        for batch in Traffic::new(&terms, settings).expect("they can be played") {
            let published: Published<'_> = serde_json::from_slice(&batch.body).expect("a batch");
            currencies.extend(published.wagers.iter().map(|wager| wager.currency.to_owned()));
            assert_eq!(batch.operator, lane(topology::partition(&batch.source, 4)));
            lanes.insert(batch.operator);
        }
        assert_eq!(lanes.len(), 4, "all of them are played");
        assert_eq!(Vec::from_iter(currencies), [CURRENCY], "every wager counts");
    }
}
