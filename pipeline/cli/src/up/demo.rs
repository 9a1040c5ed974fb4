//! `jackpot up --demo`: synthetic traffic without end, and the live view.

use std::io::Write;

use jackpot_core::keys::Keys;
use jackpot_core::log::jetstream::JetStream;
use jackpot_core::terms::Terms;
use jackpot_core::time::Millis;

use crate::keys::Signer;
use crate::load::traffic::{Settings, Traffic};
use crate::load::{self, numbers};
use crate::watch;

/// Wagers a second: enough to see everything move, and little for the machine.
const RATE: u64 = 200;
/// Wagers of a batch at most.
const BATCH: usize = 50;

/// Publishes and shows, until something fails.
pub async fn run(
    log: &JetStream,
    terms: &Terms,
    keys: Option<Keys>,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let signer = Signer::new(keys).under(terms);
    let settings = Settings {
        seed: 1,
        start: Millis::now(),
        rate: RATE,
        wagers: u64::MAX,
        batch: BATCH,
        from: numbers::first(log, terms, None).await?,
    };
    let traffic = Traffic::new(&load::playable(terms, &signer), settings)?;
    tokio::select! {
        published = load::publish(traffic, log.clone(), &signer, |_| {}) => published.map(drop),
        shown = watch::run(log, out) => shown,
    }
}
