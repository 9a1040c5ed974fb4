//! `jackpot publish`: newline-delimited wager batches, each line's bytes unchanged, per source in the order of
//! the files. It reads only `operator` and `source` of a line, and `sequence` where the source has keys in the terms in
//! force, to sign it; what a batch is worth, validate decides.

pub mod address;
pub mod lines;
pub mod publisher;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use bytes::Bytes;
use jackpot_core::log::Log;
use tokio::time::Instant;

use crate::duration;
use crate::keys::{KeysFlag, Signer};
use crate::progress::{Progress, counted};
use crate::server::Server;
use address::Address;
use lines::Place;
use publisher::{Letter, Publisher, Rejection};

/// Lines that are named at most; the rest are counted.
const NAMED_MAX: usize = 100;

/// Publishes newline-delimited wager batches. Safe to repeat.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub(crate) server: Server,
    /// Files of batches, one a line; `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) keys: KeysFlag,
    /// How long to wait for a server that is away or full.
    #[arg(long, default_value = "60s", value_parser = duration::parse)]
    pub(crate) timeout: Duration,
}

/// Publishes all lines; fails when one of them could not be.
pub async fn run<L: Log>(args: Args, log: L) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut signer = Signer::new(args.keys.read()?);
    let mut lines = lines::read(args.files);
    let mut publisher: Publisher<L, Place> = Publisher::new(log.clone(), args.timeout);
    let mut unaddressed = Vec::new();
    let mut progress = Progress::new();
    while let Some((place, content)) = lines.recv().await {
        signer.look(&log, args.timeout).await?;
        match content.and_then(|payload| letter(&signer, &place, payload)) {
            Ok(letter) => {
                let sent = publisher.publish(letter).await;
                if sent.is_err() {
                    progress.clear();
                }
                sent?;
            }
            Err(why) => unaddressed.push(Rejection { place, why }),
        }
        progress.show(|| format!("{} acknowledged", counted(publisher.acknowledged, "batch", "batches")));
    }
    let finished = publisher.finish().await;
    progress.clear();
    finished?;
    unaddressed.append(&mut publisher.rejected);
    eprintln!(
        "published {} in {} ms",
        counted(publisher.acknowledged, "batch", "batches"),
        began.elapsed().as_millis()
    );
    name(&unaddressed)
}

/// A line with its address, signed where its source has keys.
fn letter(signer: &Signer, place: &Place, payload: Bytes) -> Result<Letter<Place>, String> {
    let address = Address::read(&payload)?;
    let headers = signer.headers(&address.source, || address::sequence(&payload), &payload)?;
    Ok(Letter { place: place.clone(), subject: address.subject(), headers, payload })
}

/// Names the lines that were left out.
fn name(left_out: &[Rejection<Place>]) -> anyhow::Result<()> {
    for Rejection { place, why } in left_out.iter().take(NAMED_MAX) {
        eprintln!("{place}: {why}");
    }
    if left_out.len() > NAMED_MAX {
        eprintln!("… and {} more", left_out.len() - NAMED_MAX);
    }
    if left_out.is_empty() {
        return Ok(());
    }
    let count = u64::try_from(left_out.len()).unwrap_or(u64::MAX);
    bail!(
        "{} left out, as named above; mend them and publish them again",
        counted(count, "line was", "lines were")
    )
}
