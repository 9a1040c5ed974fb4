//! `jackpot bench`: how fast the whole pipeline is on this machine, and what a wager costs.
//! Each run starts a pipeline of its own in a temporary directory, publishes wagers that were made beforehand as
//! fast as they are taken, waits until all of them are in totals and audit, and checks the sums. Processor time is
//! that of the stages and the broker, from `/proc`; the producer's is not in it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use jackpot_core::log::Log;
use jackpot_core::log::jetstream::JetStream;
use jackpot_core::money::{Micro, Pico};
use jackpot_core::record::{LevelTotals, RefusalNotice};
use jackpot_core::terms::{Level, Pool, Terms};
use jackpot_core::time::Millis;
use jackpot_core::{money, topology};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::Instant;

use crate::load::traffic::{Batch, Settings, Traffic};
use crate::publish::publisher::{Letter, Publisher};
use crate::server::{self, Credentials};
use crate::up::SyncMode;
use crate::{streams, terms, wait};

/// Wagers made per second of a run, by how many a batch holds: about what a machine of two cores takes.
const RATES: [(u64, u64); 3] = [(200, 100_000), (20, 60_000), (1, 20_000)];
/// The pool that every wager in its currency takes part in, so that its sums can be checked simply.
const POOL: &str = "bench";
const CURRENCY: &str = "EUR";
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
}

/// Runs the command.
pub async fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<()> {
    let mut runs = Vec::new();
    for (batch, rate) in RATES {
        eprintln!("jackpot: measuring batches of {batch}");
        runs.push(measure(args, batch, rate * args.seconds).await?);
    }
    if args.json {
        serde_json::to_writer(&mut *out, &runs)?;
        writeln!(out)?;
        return Ok(());
    }
    writeln!(out, "{:>6} {:>10} {:>10} {:>12}  by process", "batch", "wagers", "wagers/s", "µs CPU/wager")?;
    for run in &runs {
        let parts: Vec<_> =
            run.cpu_us_by_process.iter().map(|(name, us)| format!("{name} {us:.2}")).collect();
        writeln!(
            out,
            "{:>6} {:>10} {:>10.0} {:>12.2}  {}",
            run.batch,
            run.wagers,
            run.wagers_per_second,
            run.cpu_us_per_wager,
            parts.join(", ")
        )?;
    }
    Ok(())
}

#[expect(clippy::float_arithmetic, reason = "rates and times are measurements, no money")]
async fn measure(args: &Args, batch: u64, wagers: u64) -> anyhow::Result<Run> {
    let terms = bench_terms()?;
    let batches = make(&terms, batch, wagers)?;
    let bytes: usize = batches.iter().map(|batch| batch.body.len()).sum();
    let mut pipeline = Pipeline::start(args, &terms).await?;
    let processes = pipeline.processes()?;
    let (before, began) = (cpu(&processes)?, Instant::now());
    publish(&pipeline.log, &batches).await?;
    wait::settle(&pipeline.log, PATIENCE).await?;
    let seconds = began.elapsed().as_secs_f64();
    let spent = cpu(&processes)?;
    check(&pipeline.log, &batches).await?;
    pipeline.stop().await?;
    let count = count(wagers);
    let mut cpu_us_by_process = BTreeMap::new();
    for (name, after) in spent {
        let used = after.saturating_sub(before.get(&name).copied().unwrap_or_default());
        cpu_us_by_process.insert(name, used.as_secs_f64() * 1e6 / count);
    }
    Ok(Run {
        batch,
        wagers,
        seconds,
        wagers_per_second: count / seconds,
        cpu_us_per_wager: cpu_us_by_process.values().sum(),
        cpu_us_by_process,
        bytes_per_wager: self::count(u64::try_from(bytes)?) / count,
        sync: sync_name(args.sync),
        exact: true,
    })
}

/// A count as a measurement; below 2⁵³, so that nothing is lost.
#[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2⁵³")]
fn count(count: u64) -> f64 {
    count as f64
}

fn sync_name(sync: SyncMode) -> &'static str {
    match sync {
        SyncMode::Always => "always",
        SyncMode::Relaxed => "relaxed",
    }
}

/// The example terms, with a pool that all wagers in its currency take part in, and no exchange rates.
fn bench_terms() -> anyhow::Result<Terms> {
    let mut terms = terms::parse("the example terms", terms::EXAMPLE, &mut std::io::stderr())?;
    terms.exchange_rates.clear();
    let jurisdictions = terms.jurisdictions.iter().map(|rule| rule.code.clone()).collect();
    let level = |level: &str, increment: u32, reserve: u32| Level {
        level: level.into(),
        base: Pico(100 * money::PICO),
        ceiling: None,
        increment_ppm: money::Ppm(increment),
        reserve_ppm: money::Ppm(reserve),
    };
    let funds = vec![
        jackpot_core::frame::batch::Funds::Cash,
        jackpot_core::frame::batch::Funds::Bonus,
        jackpot_core::frame::batch::Funds::Free,
    ];
    let pool = Pool {
        pool: POOL.into(),
        currency: CURRENCY.into(),
        operators: vec!["*".into()],
        games: vec!["*".into()],
        jurisdictions,
        funds,
        requires_opt_in: false,
        min_wager: Micro(0),
        max_wager: None,
        levels: vec![level("grand", 3_000, 1_000), level("minor", 6_750, 2_250)],
    };
    terms.pools.insert(0, pool);
    Ok(terms)
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
        let subject = topology::wagers(&batch.operator, &batch.source);
        publisher
            .publish(Letter { place, subject, headers: Vec::new(), payload: batch.body.clone() })
            .await?;
    }
    publisher.finish().await?;
    match publisher.rejected.first() {
        None => Ok(()),
        Some(first) => bail!("the server does not take batch {}: {}", first.place, first.why),
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

/// Whether the pool's sums are those of the published wagers that were not refused.
async fn check(log: &JetStream, batches: &[Batch]) -> anyhow::Result<()> {
    let mut refused = BTreeSet::new();
    streams::each(log, topology::REFUSALS, "refusals.>", |entry| {
        let notice: RefusalNotice = serde_json::from_slice(&entry.payload)?;
        ensure!(notice.batch.is_none(), "batch {:?} was refused: {}", notice.batch, notice.detail);
        if notice.reason != jackpot_core::refusal::Reason::HitRefused {
            refused.insert(notice.wager.unwrap_or_default());
        }
        Ok(())
    })
    .await?;
    let (mut wagers, mut wagered) = (0_u64, Micro(0));
    for batch in batches {
        let published: Published<'_> = serde_json::from_slice(&batch.body)?;
        for (index, wager) in published.wagers.iter().enumerate() {
            let id = || format!("{}/{}/{index}", batch.source, batch.sequence);
            if wager.currency == CURRENCY && (refused.is_empty() || !refused.contains(&id())) {
                wagers += 1;
                wagered = Micro(wagered.0 + Micro::parse_wager(wager.amount)?.0);
            }
        }
    }
    for (level, ppm) in [("grand", 4_000), ("minor", 9_000)] {
        let entry = log.last(topology::TOTALS, &topology::totals(POOL, level)).await?;
        let entry = entry.with_context(|| format!("there are no totals of {POOL}/{level}"))?;
        let totals: LevelTotals = serde_json::from_slice(&entry.payload)?;
        ensure!(
            totals.wagers == wagers
                && totals.wagered == wagered.pico()
                && totals.contributed == wagered.share(money::Ppm(ppm)),
            "the totals of {POOL}/{level} are not those of the published wagers: {} wagers of {} were expected, {} of \
             {} are there; keep the directory's data and report this",
            wagers,
            wagered,
            totals.wagers,
            totals.wagered
        );
    }
    Ok(())
}

/// A `jackpot up` of the run's own.
struct Pipeline {
    up: Child,
    lines: Lines<BufReader<ChildStdout>>,
    log: JetStream,
    _dir: tempfile::TempDir,
}

impl Pipeline {
    async fn start(args: &Args, terms: &Terms) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir().context("a temporary directory cannot be made")?;
        let file = dir.path().join("terms.json");
        std::fs::write(&file, terms.document())?;
        let mut up = Command::new(std::env::current_exe()?)
            .args(["up", "--nats-port", "0", "--metrics-port", "0", "--sync", sync_name(args.sync)])
            .arg("--dir")
            .arg(dir.path().join("data"))
            .arg("--terms")
            .arg(&file)
            .env_remove("NATS_URL")
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("`jackpot up` cannot be started")?;
        let stdout = up.stdout.take().context("its output cannot be read")?;
        let mut lines = BufReader::new(stdout).lines();
        let mut url = None;
        while let Some(line) = lines.next_line().await? {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nats") => url = words.next().map(str::to_owned),
                Some("ready") => break,
                _ => {}
            }
        }
        let url = url.context("`jackpot up` did not get ready; run it by itself to see why")?;
        let log = server::connect(&url, &Credentials::default(), server::CONNECT_MAX).await?;
        Ok(Self { up, lines, log, _dir: dir })
    }

    /// The stages and the broker by name, with their process ids.
    fn processes(&self) -> anyhow::Result<BTreeMap<String, u32>> {
        let up = self.up.id().context("`jackpot up` has ended")?;
        let mut processes = BTreeMap::new();
        for task in std::fs::read_dir(format!("/proc/{up}/task"))? {
            let children = std::fs::read_to_string(task?.path().join("children"))?;
            for pid in children.split_whitespace() {
                let name = std::fs::read_to_string(format!("/proc/{pid}/comm"))?;
                processes.insert(name.trim().to_owned(), pid.parse()?);
            }
        }
        ensure!(processes.len() == 6, "five stages and a broker were expected, but {processes:?} run");
        Ok(processes)
    }

    async fn stop(&mut self) -> anyhow::Result<()> {
        let pid = self.up.id().context("`jackpot up` has ended")?;
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid)?).context("it has no process id")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        while self.lines.next_line().await?.is_some() {}
        ensure!(self.up.wait().await?.success(), "`jackpot up` did not end cleanly");
        Ok(())
    }
}

/// The processor time that each process has used so far, user and system.
fn cpu(processes: &BTreeMap<String, u32>) -> anyhow::Result<BTreeMap<String, Duration>> {
    let ticks = rustix::param::clock_ticks_per_second();
    let mut spent = BTreeMap::new();
    for (name, pid) in processes {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .with_context(|| format!("{name} has ended during the run"))?;
        // Behind the name, which is in parentheses: user and system time are the 12th and 13th fields.
        let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let used: u64 = fields.iter().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        spent.insert(name.clone(), Duration::from_millis(used * 1_000 / ticks));
    }
    Ok(spent)
}
