//! Publishes synthetic traffic, repeats what was not acknowledged, and remembers each batch: what was sent is what must
//! be accounted for.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::bail;
use jackpot_core::limits;
use jackpot_core::log::jetstream::JetStream;
use jackpot_core::scatter::fnv1a;
use jackpot_core::terms::Terms;
use jackpot_core::time::Millis;
use jackpot_core::topology;
use tokio::time::{Instant, sleep_until};

use super::{Args, PATIENCE};
use crate::load;
use crate::load::traffic::{Batch, Settings, Traffic};
use crate::publish::publisher::{Letter, Publisher};

/// Wagers a second by which sessions that are only there to be remembered have happened.
const STRANGERS_RATE: u64 = 100_000;
/// Wagers of their batches.
const STRANGERS_BATCH: usize = 200;

/// What was sent, and acknowledged, of a source.
#[derive(Debug, Default)]
pub(super) struct Source {
    pub(super) operator: String,
    pub(super) wagers: u64,
    /// Its batches: number, and hash of the body.
    pub(super) batches: BTreeMap<u64, u64>,
}

/// What was sent, and acknowledged, by source.
#[derive(Debug, Default)]
pub(super) struct Sent(pub(super) BTreeMap<String, Source>);

impl Sent {
    fn note(&mut self, batch: &Batch) {
        let source = self.0.entry(batch.source.clone()).or_default();
        batch.operator.clone_into(&mut source.operator);
        source.wagers += batch.wagers;
        source.batches.insert(batch.sequence, fnv1a(&batch.body));
    }

    /// Wagers in all.
    pub(super) fn wagers(&self) -> u64 {
        self.0.values().map(|source| source.wagers).sum()
    }

    /// Batches in all.
    pub(super) fn batches(&self) -> usize {
        self.0.values().map(|source| source.batches.len()).sum()
    }

    /// The first number of each source that was not sent.
    fn next(&self) -> BTreeMap<String, u64> {
        let next = |source: &Source| source.batches.last_key_value().map_or(1, |(last, _)| last + 1);
        self.0.iter().map(|(name, source)| (name.clone(), next(source))).collect()
    }
}

/// Whoever publishes.
#[derive(Debug)]
pub(super) struct Producer {
    log: JetStream,
    terms: Terms,
    seed: u64,
    rate: u64,
    seconds: u64,
    batch: usize,
    pub(super) sent: Sent,
}

impl Producer {
    /// Publishes by the terms in force.
    pub(super) async fn new(log: &JetStream, args: &Args) -> anyhow::Result<Self> {
        Ok(Self {
            log: log.clone(),
            terms: load::in_force(log).await?,
            seed: args.seed,
            rate: args.rate,
            seconds: args.seconds,
            batch: usize::try_from(args.batch).unwrap_or(limits::BATCH_WAGERS_MAX),
            sent: Sent::default(),
        })
    }

    /// So many wagers, each of a session of its own, as fast as they are taken.
    pub(super) async fn strangers(&mut self, sessions: u64) -> anyhow::Result<()> {
        let lasted_ms = sessions * 1_000 / STRANGERS_RATE;
        let start = Millis::now().plus(-i64::try_from(lasted_ms).unwrap_or(i64::MAX));
        let settings = self.settings(start, STRANGERS_RATE, sessions, STRANGERS_BATCH);
        let traffic = Traffic::new(&self.terms, settings)?.of_strangers();
        self.publish(traffic, false).await
    }

    /// The load, at its rate; ends when all of it is acknowledged.
    pub(super) async fn load(&mut self) -> anyhow::Result<()> {
        let settings = self.settings(Millis::now(), self.rate, self.rate * self.seconds, self.batch);
        let traffic = Traffic::new(&self.terms, settings)?;
        self.publish(traffic, true).await
    }

    fn settings(&self, start: Millis, rate: u64, wagers: u64, batch: usize) -> Settings {
        Settings { seed: self.seed, start, rate, wagers, batch, from: self.sent.next() }
    }

    async fn publish(&mut self, traffic: Traffic, timed: bool) -> anyhow::Result<()> {
        let mut publisher = Publisher::new(self.log.clone(), PATIENCE);
        let began = Instant::now();
        for batch in traffic {
            let due = began + Duration::from_millis(batch.due_ms);
            if timed && due > Instant::now() {
                sleep_until(due).await;
            }
            self.sent.note(&batch);
            let place = format!("{}/{}", batch.source, batch.sequence);
            let subject = topology::wagers(&batch.operator, &batch.source);
            publisher.publish(Letter { place, subject, headers: Vec::new(), payload: batch.body }).await?;
        }
        publisher.finish().await?;
        match publisher.rejected.first() {
            None => Ok(()),
            Some(first) => bail!("the server does not take batch {}: {}", first.place, first.why),
        }
    }
}
