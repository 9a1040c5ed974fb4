//! Runs as fast as wagers are taken: what was made beforehand is published with many batches in flight, until all
//! of it is in totals and audit.

use std::collections::BTreeMap;

use jackpot_core::log::jetstream::JetStream;
use jackpot_core::terms::Terms;
use jackpot_core::time::Millis;

use super::pipeline::Pipeline;
use super::{Args, Meter, PATIENCE, Run, letter, pools, rejected};
use crate::load::traffic::{Batch, Settings, Traffic};
use crate::publish::publisher::Publisher;
use crate::wait;

/// Publishes so many wagers in batches of `batch`.
pub(super) async fn measure(args: &Args, batch: u64, wagers: u64) -> anyhow::Result<Run> {
    let terms = pools::shared()?;
    let batches = make(&terms, batch, wagers)?;
    let mut pipeline = Pipeline::start(args, &terms).await?;
    let meter = Meter::start(&pipeline)?;
    publish(&pipeline.log, &batches).await?;
    wait::settle(&pipeline.log, PATIENCE).await?;
    let run = meter.finish(args, batch, &batches)?;
    pools::check(&pipeline.log, &batches, |_| pools::ALL.into()).await?;
    pipeline.stop().await?;
    Ok(run)
}

fn make(terms: &Terms, batch: u64, wagers: u64) -> anyhow::Result<Vec<Batch>> {
    let settings = Settings {
        seed: 1,
        start: Millis::now(),
        // Fast enough for every source to fill its batches.
        rate: 1_000_000,
        wagers,
        batch: usize::try_from(batch)?,
        from: BTreeMap::new(),
    };
    Ok(Traffic::new(terms, settings)?.collect())
}

async fn publish(log: &JetStream, batches: &[Batch]) -> anyhow::Result<()> {
    let mut publisher = Publisher::new(log.clone(), PATIENCE);
    for (place, batch) in batches.iter().enumerate() {
        publisher.publish(letter(place, batch)).await?;
    }
    publisher.finish().await?;
    rejected(&publisher)
}
