//! `jackpot chaos`: load on a pipeline of its own while its processes are killed, held and restarted, and then the proof
//! that nobody could tell: whatever was acknowledged ended exactly once, and all adds up.
//! Here is the order of things. What happens when is drawn from a seed ([`plan`]), done to the processes
//! ([`pipeline`], [`faults`]) while batches are published ([`producer`]); then the record is judged ([`judge`]), and the
//! pauses are read from the broker's own times ([`pauses`]). Nothing of this runs in production.

mod faults;
mod judge;
mod memory;
mod pauses;
mod pipeline;
mod plan;
mod producer;
mod report;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use jackpot_core::log::jetstream::JetStream;
use jackpot_core::time::Millis;
use tokio::signal::unix::{SignalKind, signal};

use crate::server::{self, Credentials};
use crate::up::SyncMode;
use crate::wait;
use faults::Disturbed;
use pipeline::Pipeline;
use plan::Plan;
use producer::Producer;
use report::Report;

/// How long what was published may take to come through when the faults are over, and a server to come back.
const PATIENCE: Duration = Duration::from_secs(300);

/// Kills, holds and restarts the processes of a pipeline of its own under load, and proves that nothing was lost.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// For how long batches are published.
    #[arg(long, value_name = "S", default_value_t = 600, value_parser = clap::value_parser!(u64).range(10..=86_400))]
    seconds: u64,
    /// The seed of the faults and of the wagers.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Wagers a second.
    #[arg(long, value_name = "R", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: u64,
    /// Wagers of a batch at most.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=500))]
    batch: u64,
    /// Processes killed (kill -9): stages and servers, at random.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(0..=100_000))]
    kills: u64,
    /// Processes held (SIGSTOP) for 1 to 10 s.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(0..=100_000))]
    stops: u64,
    /// Times that everything is killed at once, and started again.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    restarts: u64,
    /// So many sessions, each with one wager, before the faults begin: what the stages then have to come back with.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=100_000_000))]
    sessions: u64,
    /// Servers of the pipeline's own, as `jackpot up --servers` takes it.
    #[arg(long, value_name = "N")]
    servers: Option<u8>,
    /// Processes of a stage, as `jackpot up --processes` takes it.
    #[arg(long, value_name = "STAGE=N,…")]
    processes: Option<String>,
    /// A snapshot is due when a log has grown by so many bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 1_048_576)]
    snapshot_bytes: u64,
    /// When the server acknowledges: after an fsync, or before it.
    #[arg(long, value_enum, default_value_t = SyncMode::Always)]
    sync: SyncMode,
    /// Keep the data here; otherwise it is in a temporary directory, which is kept where something is wrong.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command; anything that is wrong is an error.
pub async fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<()> {
    let place = Place::new(args)?;
    let mut pipeline = Pipeline::new(args, place.path());
    let ended = tokio::select! {
        biased;
        ended = disturb(args, &mut pipeline) => ended,
        stopped = stopped() => Err(stopped),
    };
    let stopped = pipeline.stop().await;
    let judged = ended.map(|mut report| {
        report.wrong.extend(stopped.err().map(|error| format!("{error:#}")));
        report
    });
    let report = match judged {
        Ok(report) => report,
        Err(error) => return Err(error.context(format!("the data is kept in {}", place.keep().display()))),
    };
    match args.json {
        true => report.json(out)?,
        false => report.text(out)?,
    }
    out.flush()?;
    if report.wrong.is_empty() {
        return Ok(());
    }
    bail!(
        "{} wrong; the data is kept in {}",
        crate::progress::counted(report.wrongs(), "thing is", "things are"),
        place.keep().display()
    );
}

/// Everything from the start of the pipeline to the verdict.
async fn disturb(args: &Args, pipeline: &mut Pipeline) -> anyhow::Result<Report> {
    pipeline.start().await?;
    let log = connect(pipeline.url()).await?;
    let mut producer = Producer::new(&log, args).await?;
    if args.sessions > 0 {
        eprintln!("jackpot: publishing a wager of each of {} sessions", args.sessions);
        producer.strangers(args.sessions).await?;
        wait::settle(&log, PATIENCE).await?;
    }
    let plan = Plan::new(args);
    eprintln!("jackpot: publishing {} wagers a second for {} s, with {plan}", args.rate, args.seconds);
    let began = Millis::now();
    let disturbing = faults::disturb(pipeline, &plan, Duration::from_secs(args.seconds));
    let (disturbed, ()) = tokio::try_join!(disturbing, producer.load())?;
    let ended = Millis::now();
    eprintln!("jackpot: waiting until all of it is in totals and audit");
    wait::settle(&log, PATIENCE).await.context("what was published does not come through")?;
    let Disturbed { faults, memory } = disturbed;
    eprintln!("jackpot: proving the record");
    let verdict = judge::judge(&log, &producer.sent).await?;
    let pauses = pauses::measure(&log, &faults, began, ended).await?;
    Ok(Report::new(args, &producer.sent, verdict, pauses, memory.summary()))
}

async fn connect(url: &str) -> anyhow::Result<JetStream> {
    server::connect(url, &Credentials::default(), server::CONNECT_MAX).await
}

/// Waits for Ctrl-C, or whatever else asks us to stop.
async fn stopped() -> anyhow::Error {
    let listening = || anyhow::Ok((signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?));
    match listening().context("cannot listen to signals") {
        Err(error) => error,
        Ok((mut interrupt, mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            anyhow::anyhow!("stopped before the end")
        }
    }
}

/// Where the data is.
enum Place {
    Given(PathBuf),
    Temporary(tempfile::TempDir),
}

impl Place {
    fn new(args: &Args) -> anyhow::Result<Self> {
        match &args.dir {
            None => tempfile::tempdir().map(Self::Temporary).context("a temporary directory cannot be made"),
            Some(dir) => {
                let made = std::fs::create_dir_all(dir);
                made.with_context(|| format!("--dir {} cannot be made", dir.display()))?;
                Ok(Self::Given(dir.clone()))
            }
        }
    }

    fn path(&self) -> PathBuf {
        match self {
            Self::Given(dir) => dir.clone(),
            Self::Temporary(dir) => dir.path().to_owned(),
        }
    }

    /// Leaves the data where it is.
    fn keep(self) -> PathBuf {
        match self {
            Self::Given(dir) => dir,
            Self::Temporary(dir) => dir.keep(),
        }
    }
}
