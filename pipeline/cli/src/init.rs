//! `jackpot init`: creates the streams on a server, or checks those that are there; for a cluster's set-up job.
//! Whether the server keeps what it acknowledges is [`promise`]'s question. What the streams are is in `jackpot_core::log::jetstream::setup`, which never loses data.

pub mod growth;
pub mod promise;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::builder::{RangedI64ValueParser, RangedU64ValueParser};
use comfy_table::{CellAlignment, Table, presets};
use jackpot_core::limits;
use jackpot_core::log::jetstream::JetStream;
use jackpot_core::log::jetstream::setup::{self, Done, Report, SetUp, SetUpError};
use jackpot_core::terms::store;
use jackpot_core::topology::Lane;
use tokio::time::sleep;

use crate::exit::Unusable;
use crate::progress::grouped;
use crate::server::{CONNECT_MAX, Server};

/// How often it is said how far it is.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// A lane may not be smaller: a frame may be as large as a message, and one that does not fit is never stored.
const LANE_BYTES_MIN: u64 = 1024 * 1024;
const _: () = assert!(limits::MESSAGE_BYTES_MAX < 1024 * 1024, "it is larger than any message");

/// Partitions of a pipeline, where nothing is said.
pub const PARTITIONS: u16 = 4;

/// Creates the streams on a server, or checks those that are there; refuses what would lose data.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub(crate) server: Server,
    /// How many lanes, fixed for ever; 4 where there are no streams yet.
    #[arg(long, value_name = "N", value_parser = partitions_parser())]
    partitions: Option<u16>,
    /// On how many servers each stream is kept: 3 on a cluster.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = RangedI64ValueParser::<u8>::new().range(1..=5))]
    replicas: u8,
    /// The monitoring port of the server, such as http://nats:8222, which tells whether it syncs to disk before it
    /// acknowledges; without it the server's tags are looked at, and port 8222 of its host.
    #[arg(long, value_name = "URL", value_parser = promise::monitor)]
    monitor: Option<promise::Monitor>,
    /// Create the streams although a power cut may lose what was acknowledged: for trials.
    #[arg(long)]
    accept_relaxed_sync: bool,
    /// What the new streams together may hold, such as 16GiB.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    budget: Option<u64>,
    /// What a stream (`validated-0`), or all of a kind (`validated`), may hold; also of streams that exist. A lane holds at least 1MiB.
    #[arg(long = "max-bytes", value_name = "STREAM=SIZE", value_parser = stream_size)]
    max_bytes: Vec<(String, u64)>,
    /// Wagers a second, for how fast the streams of the record will grow and when they will be full.
    #[arg(long, value_name = "R", default_value_t = 1_000, value_parser = RangedU64ValueParser::<u64>::new().range(1..=10_000_000))]
    rate: u64,
}

/// How `--partitions` is read.
pub fn partitions_parser() -> RangedI64ValueParser<u16> {
    RangedI64ValueParser::new().range(1..=i64::from(jackpot_core::limits::PARTITIONS_MAX))
}

/// Runs the command.
pub async fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<()> {
    let log = args.server.connect(CONNECT_MAX).await?;
    let partitions = partitions(&log, args.partitions).await?;
    if args.replicas == 1 && !args.accept_relaxed_sync && setup::partitions(&log).await?.is_none() {
        promise::check(&log, args.monitor.as_ref()).await?;
    }
    let mut setup = SetUp { replicas: args.replicas, ..SetUp::new(partitions) };
    if let Some(budget) = args.budget {
        setup.budget_bytes = budget;
    }
    setup.max_bytes = BTreeMap::from_iter(args.max_bytes.iter().cloned());
    let report = ensure(&log, &setup).await?;
    for (stream, done) in &report.streams {
        match done {
            Done::Created => writeln!(out, "{stream}: created")?,
            Done::Unchanged => writeln!(out, "{stream}: as it should be")?,
            Done::Updated(changes) => writeln!(out, "{stream}: changed {}", changes.join(", "))?,
        }
    }
    writeln!(out, "{partitions} partitions")?;
    let levels = levels(&log).await?;
    show_growth(args.rate, levels, &growth::estimate(&log, partitions, args.rate, levels).await?, out)
}

/// The levels of the terms in force, or of the example where there are none.
async fn levels(log: &JetStream) -> anyhow::Result<u64> {
    let Some(claim) = store::latest(log).await? else { return Ok(growth::LEVELS) };
    let terms = store::load(log, claim.revision).await?;
    Ok(u64::try_from(terms.pools.iter().map(|pool| pool.levels.len()).sum::<usize>())?)
}

/// Prints how fast the record grows, the stream that will be full first on the first line.
fn show_growth(
    rate: u64,
    levels: u64,
    growing: &[growth::Growth],
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let (wagers, batches) = (grouped(&rate.to_string()), grouped(&growth::batches(rate).to_string()));
    writeln!(
        out,
        "\nAt {wagers} wagers a second (--rate) in {batches} batches, with {levels} levels, the record grows by about \
         this; a stream that is full stops the deployment until --max-bytes raises it:"
    )?;
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["stream", "MiB a day", "MiB at most", "hours until full"]);
    let mib = |bytes: u64| grouped(&(bytes >> 20).to_string());
    for growth in growing {
        let tenths = growth.seconds_left() / 360;
        let hours = format!("{}.{}", grouped(&(tenths / 10).to_string()), tenths % 10);
        table.add_row([growth.stream.clone(), mib(growth.bytes_per_day), mib(growth.max_bytes), hours]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// The number of partitions: the one that was asked for, or the one that the data has.
pub async fn partitions(log: &JetStream, asked: Option<u16>) -> anyhow::Result<u16> {
    setup::agreed(log).await?;
    let has = setup::partitions(log).await?;
    match (has, asked) {
        (Some(has), Some(asked)) if has != asked => Err(Unusable::new(format!(
            "--partitions {asked} does not fit the data, which has {has}, for ever; leave the flag out, or start with other data"
        ))
        .into()),
        (Some(has), _) => Ok(has),
        (None, asked) => Ok(asked.unwrap_or(PARTITIONS)),
    }
}

/// Creates or checks the streams; a setting that cannot be is a flag that cannot be used.
pub async fn ensure(log: &JetStream, setup: &SetUp) -> anyhow::Result<Report> {
    let (all, done) = (setup::streams(setup).len(), AtomicUsize::new(0));
    let waiting = async {
        loop {
            sleep(SAY_EVERY).await;
            eprintln!("jackpot: {} of {all} streams are as they should be", done.load(Ordering::Relaxed));
        }
    };
    let ensured = tokio::select! {
        ensured = setup::ensure_counting(log, setup, &done) => ensured,
        () = waiting => unreachable!("it is said for ever"),
    };
    ensured.map_err(|error| match &error {
        SetUpError::Settings(_) | SetUpError::Partitions { .. } | SetUpError::TooSmall { .. } => {
            anyhow::Error::new(Unusable::new(error.to_string()))
        }
        _ => error.into(),
    })
}

/// Reads a size: a whole number of bytes, or of KiB, MiB, GiB or TiB.
fn size(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let shift = match unit {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return Err("give a whole number of bytes, or of KiB, MiB, GiB or TiB, such as 16GiB".into()),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes
        .filter(|&bytes| bytes > 0 && i64::try_from(bytes).is_ok())
        .ok_or_else(|| "give a size above 0 that a stream can have, such as 16GiB".into())
}

fn stream_size(text: &str) -> Result<(String, u64), String> {
    let (stream, bytes) = text.split_once('=').ok_or("give a stream and a size, such as wagers=64GiB")?;
    let kind = stream.rsplit_once('-').map_or(stream, |(kind, _)| kind);
    let known = setup::streams(&SetUp::new(1))
        .iter()
        .any(|known| known.name == stream || known.name == kind || known.name == format!("{kind}-0"));
    if !known {
        return Err(format!("there is no stream `{stream}`"));
    }
    let bytes = size(bytes)?;
    let drains = Lane::ALL.iter().any(|lane| lane.drains() && lane.as_str() == kind);
    if drains && bytes < LANE_BYTES_MIN {
        return Err("a lane must be able to hold one frame, which may have 1MiB, or it comes to a stop; give 1MiB or more"
            .into());
    }
    Ok((stream.to_owned(), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size("16GiB"), Ok(16 << 30));
        assert_eq!(size("1000"), Ok(1_000));
        for bad in ["", "0", "GiB", "1.5GiB", "16GB", "9999999999TiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
        assert_eq!(stream_size("wagers=1MiB"), Ok(("wagers".into(), 1 << 20)));
        assert_eq!(stream_size("validated=1MiB"), Ok(("validated".into(), 1 << 20)));
        assert!(stream_size("validated-3=1MiB").is_ok());
        for small in ["validated=1023KiB", "geofenced-0=256KiB", "contributions-12=1"] {
            assert!(stream_size(small).is_err_and(|error| error.contains("1MiB or more")), "{small}");
        }
        assert!(stream_size("allocations=256KiB").is_ok(), "the record may be as small as one likes");
        assert!(stream_size("wager=1MiB").is_err() && stream_size("wagers").is_err());
    }
}
