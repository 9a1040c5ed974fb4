//! `jackpot load`: synthetic traffic, seeded, by the terms in force, going on after each source's highest batch.
//! What is made is a pure function of its settings ([`traffic`]); here it is timed and published.

pub mod market;
pub mod numbers;
pub mod places;
pub mod random;
pub mod session;
pub mod traffic;

use std::fmt;
use std::io::Write;
use std::time::Duration;

use anyhow::anyhow;
use clap::builder::RangedU64ValueParser;
use jackpot_core::limits;
use jackpot_core::log::Log;
use jackpot_core::terms::{Terms, store};
use jackpot_core::time::Millis;
use jackpot_core::topology;
use tokio::time::{Instant, sleep_until};

use crate::duration;
use crate::keys::{KeysFlag, Signer};
use crate::progress::{Progress, counted};
use crate::publish::publisher::{Letter, Publisher};
use crate::server::Server;
use traffic::{Settings, Traffic};

/// Wagers of a batch, where nothing is said: producers batch, since a message costs more than a wager.
const BATCH: u64 = 100;
/// How long a server may be away.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Publishes realistic synthetic traffic: the same seed, start and first numbers give the same bytes.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub(crate) server: Server,
    /// Wagers a second.
    #[arg(long, value_name = "R", value_parser = RangedU64ValueParser::<u64>::new().range(1..=10_000_000))]
    rate: u64,
    /// For how long.
    #[arg(long, value_name = "S", value_parser = RangedU64ValueParser::<u64>::new().range(1..=1_000_000_000))]
    seconds: u64,
    /// The seed.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// When the first wager happens (RFC 3339); now where it is not given.
    #[arg(long, value_name = "TIME", value_parser = duration::time)]
    start: Option<Millis>,
    /// The first batch number of each source; after its highest batch where it is not given.
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u64>::new().range(1..=1_000_000_000_000_000))]
    from: Option<u64>,
    #[command(flatten)]
    pub(crate) keys: KeysFlag,
    /// Wagers of a batch at most.
    #[arg(long, value_name = "N", default_value_t = BATCH, value_parser = RangedU64ValueParser::<u64>::new().range(1..=500))]
    batch: u64,
    /// Write the batches to standard output, one a line, instead of publishing them; with --start, at once.
    #[arg(long)]
    print: bool,
}

/// Runs the command.
pub async fn run<L: Log>(args: &Args, log: L, out: &mut impl Write) -> anyhow::Result<()> {
    let keys = args.keys.read()?;
    let terms = in_force(&log).await?;
    let signer = Signer::new(keys).under(&terms);
    for source in &terms.sources {
        if let Err(why) = signer.key(&source.source) {
            eprintln!("jackpot: {} is left out: its batches {why}", source.source);
        }
    }
    let settings = Settings {
        seed: args.seed,
        start: args.start.unwrap_or_else(Millis::now),
        rate: args.rate,
        wagers: args.rate * args.seconds,
        batch: usize::try_from(args.batch).unwrap_or(limits::BATCH_WAGERS_MAX),
        from: numbers::first(&log, &terms, args.from).await?,
    };
    let traffic = Traffic::new(&playable(&terms, &signer), settings)?;
    if args.print {
        return print(traffic, args.start.is_none(), out).await;
    }
    let mut progress = Progress::new();
    let (began, mut wagers) = (Instant::now(), 0);
    let published = publish(traffic, log, &signer, |more| {
        wagers += more;
        progress.show(|| format!("{} published", counted(wagers, "wager", "wagers")));
    })
    .await;
    progress.clear();
    let batches = published?;
    eprintln!(
        "published {} in {} in {} s",
        counted(wagers, "wager", "wagers"),
        counted(batches, "batch", "batches"),
        began.elapsed().as_secs()
    );
    Ok(())
}

/// The terms as traffic sees them, which leaves sources with keys out: those that can be signed have none.
pub fn playable(terms: &Terms, signer: &Signer) -> Terms {
    let mut playable = terms.clone();
    for source in playable.sources.iter_mut().filter(|source| signer.key(&source.source).is_ok()) {
        source.keys.clear();
    }
    playable
}

/// Publishes traffic as it falls due, signed where it must be, telling `published` the wagers of each batch; gives the batches.
pub async fn publish<L: Log>(
    traffic: Traffic,
    log: L,
    signer: &Signer,
    mut published: impl FnMut(u64),
) -> anyhow::Result<u64> {
    let mut publisher: Publisher<L, Place> = Publisher::new(log, PATIENCE);
    let began = Instant::now();
    for batch in traffic {
        wait_until(began, batch.due_ms).await;
        let subject = topology::wagers(&batch.operator, &batch.source);
        let signed = signer.headers(&batch.source, || Ok(batch.sequence), &batch.body);
        let headers = signed.map_err(|why| anyhow!("the batches of {} {why}", batch.source))?;
        let place = Place { source: batch.source, sequence: batch.sequence };
        publisher.publish(Letter { place, subject, headers, payload: batch.body }).await?;
        published(batch.wagers);
    }
    publisher.finish().await?;
    match publisher.rejected.first() {
        None => Ok(publisher.acknowledged),
        Some(first) => Err(anyhow!("the server does not take batch {}: {}", first.place, first.why)),
    }
}

async fn print(traffic: Traffic, timed: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let began = Instant::now();
    for batch in traffic {
        if timed {
            wait_until(began, batch.due_ms).await;
        }
        out.write_all(&batch.body)?;
        out.write_all(b"\n")?;
        if timed {
            out.flush()?;
        }
    }
    out.flush()?;
    Ok(())
}

async fn wait_until(began: Instant, due_ms: u64) {
    let due = began + Duration::from_millis(due_ms);
    if due > Instant::now() {
        sleep_until(due).await;
    }
}

/// A batch's id, by which people find it again.
struct Place {
    source: String,
    sequence: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.source, self.sequence)
    }
}

/// The terms that were applied last.
pub async fn in_force<L: Log>(log: &L) -> anyhow::Result<Terms> {
    let marker = store::in_force(log).await?;
    let marker =
        marker.ok_or_else(|| anyhow!("no terms are in force; apply some with `jackpot terms apply FILE`"))?;
    Ok(store::load(log, marker.revision).await?)
}

#[cfg(test)]
mod tests {
    use jackpot_core::log::jetstream::setup::{SetUp, streams};
    use jackpot_core::log::memory::Memory;

    use super::*;

    #[tokio::test]
    async fn traffic_goes_on_after_each_sources_highest_batch() {
        let memory = Memory::new(streams(&SetUp::new(3)), Millis::now);
        assert!(in_force(&memory).await.expect_err("no terms").to_string().contains("jackpot terms apply"));
        let terms = Terms::parse(crate::terms::EXAMPLE).expect("the example");
        let claim = store::store(&memory, &terms).await.expect("the terms are stored");
        assert!(in_force(&memory).await.is_err(), "what is claimed is not in force yet");
        store::activate(&memory, 3, &claim).await.expect("the terms are activated");
        let markers = memory.extent(topology::WAGERS).await.expect("the stream").last;
        let terms = in_force(&memory).await.expect("the terms are in force");
        for round in 0..2 {
            let from = numbers::first(&memory, &terms, None).await.expect("numbers");
            assert_eq!(from["acme-spin-eu1"] == 1, round == 0, "the second round goes on");
            let settings =
                Settings { seed: 1, start: Millis(0), rate: 10_000, wagers: 1_000, batch: 20, from };
            let traffic = Traffic::new(&terms, settings).expect("the example can be played");
            publish(traffic, memory.clone(), &Signer::default(), |_| {}).await.expect("it is published");
        }
        let from = numbers::first(&memory, &terms, None).await.expect("numbers");
        let batches: u64 = from.values().map(|next| next - 1).sum();
        assert_eq!(
            batches,
            memory.extent(topology::WAGERS).await.expect("the stream").last - markers,
            "no number twice"
        );
        let fixed = numbers::first(&memory, &terms, Some(1)).await.expect("numbers");
        assert!(fixed.len() == 12 && fixed.values().all(|&next| next == 1));
    }
}
