//! `jackpot bench`: how fast the whole pipeline is on this machine, what a wager costs, and how long it takes to be
//! in the totals. Each run starts a pipeline of its own in a temporary directory: first those that publish wagers as
//! fast as they are taken ([`throughput`]), then those at a steady rate ([`latency`]). Each ends when all that was
//! published is in totals and audit, and is checked to the last digit ([`pools`]). Processor time is that of the stages
//! and the broker, from `/proc`; the producer's is not in it.

mod latency;
pub(crate) mod machine;
mod pipeline;
mod pools;
mod throughput;

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use anyhow::bail;
use jackpot_core::log::jetstream::JetStream;
use jackpot_core::topology;
use serde::Serialize;
use tokio::time::Instant;

use crate::load::traffic::Batch;
use crate::publish::publisher::{Letter, Publisher};
use crate::up::SyncMode;
use latency::Steady;
use machine::Machine;
use pipeline::{Pipeline, cpu};

/// Wagers made per second of a run, by how many a batch holds: about what a machine of two cores takes.
const RATES: [(u64, u64); 3] = [(200, 100_000), (20, 60_000), (1, 20_000)];
/// Wagers a second of the runs at a steady rate.
const STEADY_RATES: [u64; 2] = [1_000, 10_000];
/// How long wagers may take to come through.
const PATIENCE: Duration = Duration::from_secs(300);

/// Measures the pipeline on this machine.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print one JSON array of runs.
    #[arg(long)]
    json: bool,
    /// About how long each run publishes, on a machine of two cores.
    #[arg(long, value_name = "S", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// When the server acknowledges: after an fsync, or before it.
    #[arg(long, value_enum, default_value_t = SyncMode::Relaxed)]
    sync: SyncMode,
}

/// What one run measured.
#[derive(Debug, Serialize)]
struct Run {
    /// Wagers per batch.
    batch: u64,
    /// Wagers published.
    wagers: u64,
    /// From the first publish until all of them were in totals and audit.
    seconds: f64,
    wagers_per_second: f64,
    /// Processor time per wager of stages and broker, in microseconds,
    cpu_us_per_wager: f64,
    /// and by process.
    cpu_us_by_process: BTreeMap<String, f64>,
    /// Bytes per wager that were published.
    bytes_per_wager: f64,
    /// When the server acknowledged.
    sync: &'static str,
    /// The sums are those of the published wagers, to the last digit.
    exact: bool,
    /// What was measured at a steady rate.
    #[serde(flatten)]
    steady: Option<Steady>,
    machine: Machine,
}

/// Runs the command.
pub async fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<()> {
    let machine = Machine::this();
    if machine.is_debug_build() {
        eprintln!(
            "jackpot: this is a debug build, whose figures say nothing; build with `cargo build --release`"
        );
    }
    let mut runs = Vec::new();
    for (batch, rate) in RATES {
        eprintln!("jackpot: measuring batches of {batch}");
        runs.push(throughput::measure(args, batch, rate * args.seconds).await?);
    }
    for rate in STEADY_RATES {
        eprintln!("jackpot: measuring {rate} wagers a second");
        runs.push(latency::measure(args, rate).await?);
    }
    if args.json {
        serde_json::to_writer(&mut *out, &runs)?;
        writeln!(out)?;
        return Ok(());
    }
    writeln!(out, "{machine}, sync {}", sync_name(args.sync))?;
    table(&runs, out)
}

/// The runs for people: what is taken, then how long it takes.
fn table(runs: &[Run], out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(out)?;
    writeln!(out, "{:>6} {:>10} {:>10} {:>12}  by process", "batch", "wagers", "wagers/s", "µs CPU/wager")?;
    for run in runs.iter().filter(|run| run.steady.is_none()) {
        let Run { batch, wagers, wagers_per_second, cpu_us_per_wager, cpu_us_by_process, .. } = run;
        let parts: Vec<_> = cpu_us_by_process.iter().map(|(name, us)| format!("{name} {us:.2}")).collect();
        let parts = parts.join(", ");
        writeln!(out, "{batch:>6} {wagers:>10} {wagers_per_second:>10.0} {cpu_us_per_wager:>12.2}  {parts}")?;
    }
    writeln!(out)?;
    writeln!(
        out,
        "{:>6} {:>10} {:>10} {:>12}  {:<12} {:>8} {:>8} {:>8} {:>8}",
        "batch", "wagers", "wagers/s", "µs CPU/wager", "ms until", "p50", "p90", "p99", "max"
    )?;
    for (run, steady) in runs.iter().filter_map(|run| Some((run, run.steady.as_ref()?))) {
        let Run { batch, wagers, cpu_us_per_wager, .. } = run;
        let rate = steady.rate;
        write!(out, "{batch:>6} {wagers:>10} {rate:>10} {cpu_us_per_wager:>12.2}  ")?;
        for (index, (what, latency)) in
            [("in commits", &steady.latency_ms), ("in totals", &steady.totals_latency_ms)]
                .into_iter()
                .enumerate()
        {
            let latency::Latency { p50, p90, p99, max } = latency;
            let indent = if index == 0 { 0 } else { 43 };
            writeln!(out, "{:indent$}{what:<12} {p50:>8.2} {p90:>8.2} {p99:>8.2} {max:>8.2}", "")?;
        }
    }
    Ok(())
}

/// The beginning of a measurement.
struct Meter {
    processes: BTreeMap<String, u32>,
    before: BTreeMap<String, Duration>,
    began: Instant,
}

impl Meter {
    fn start(pipeline: &Pipeline) -> anyhow::Result<Self> {
        let processes = pipeline.processes()?;
        Ok(Self { before: cpu(&processes)?, processes, began: Instant::now() })
    }

    /// What was measured while these batches came through.
    #[expect(clippy::float_arithmetic, reason = "rates and times are measurements, no money")]
    fn finish<'a>(
        self,
        args: &Args,
        batch: u64,
        batches: impl IntoIterator<Item = &'a Batch>,
    ) -> anyhow::Result<Run> {
        let seconds = self.began.elapsed().as_secs_f64();
        let spent = cpu(&self.processes)?;
        let (mut wagers, mut bytes) = (0, 0);
        for batch in batches {
            wagers += batch.wagers;
            bytes += u64::try_from(batch.body.len())?;
        }
        let counted = count(wagers);
        let mut cpu_us_by_process = BTreeMap::new();
        for (name, after) in spent {
            let used = after.saturating_sub(self.before.get(&name).copied().unwrap_or_default());
            cpu_us_by_process.insert(name, used.as_secs_f64() * 1e6 / counted);
        }
        Ok(Run {
            batch,
            wagers,
            seconds,
            wagers_per_second: counted / seconds,
            cpu_us_per_wager: cpu_us_by_process.values().sum(),
            cpu_us_by_process,
            bytes_per_wager: count(bytes) / counted,
            sync: sync_name(args.sync),
            // A run whose sums differ is an error, and no run.
            exact: true,
            steady: None,
            machine: Machine::this(),
        })
    }
}

/// A count as a measurement; below 2⁵³, so that nothing is lost.
#[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2⁵³")]
fn count(count: u64) -> f64 {
    count as f64
}

/// The name of a mode, as `up` takes it.
pub(crate) fn sync_name(sync: SyncMode) -> &'static str {
    match sync {
        SyncMode::Always => "always",
        SyncMode::Relaxed => "relaxed",
    }
}

fn letter(place: usize, batch: &Batch) -> Letter<usize> {
    let subject = topology::wagers(&batch.operator, &batch.source);
    Letter { place, subject, headers: Vec::new(), payload: batch.body.clone() }
}

/// Fails where the server does not take a batch.
fn rejected(publisher: &Publisher<JetStream, usize>) -> anyhow::Result<()> {
    match publisher.rejected.first() {
        None => Ok(()),
        Some(first) => bail!("the server does not take batch {}: {}", first.place, first.why),
    }
}
