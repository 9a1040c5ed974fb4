//! The main that all stages share: settings, logs, the broker, the admin port, parts, and a clean end.
//! It reads downward. What a stage has of its own it says through [`Program`].

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::admin;
use crate::health::Health;
use crate::log::jetstream::{ConnectError, JetStream, setup};
use crate::membership::Sharing;
use crate::membership::runner::together;
use crate::metrics::Metrics;
use crate::recovery::Backoff;
use crate::refusal::StageName;
use crate::room;
use crate::runner::Context;
use crate::settings::{EXIT_CONFIG, EXIT_DRAINED, EXIT_USAGE, Mistakes, StageArgs, StageSettings};
use crate::status;
use crate::telemetry;
use crate::terms::cache::TermsCache;
use crate::time::Clock;

pub use crate::membership::runner::{Running, driven};

/// Stages make and drop many small things of each wager; this takes less of their time than the system's own does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The exit code after a drain on SIGINT, as a shell gives it.
const EXIT_INTERRUPTED: u8 = 130;

/// What a stage has of its own.
pub trait Program: 'static {
    /// Which stage it is.
    const STAGE: StageName;
    /// Its own flags, beside those of all stages.
    type Args: clap::Args;
    /// Those, checked.
    type Settings: 'static;
    /// Whether the partitions are divided among its processes ([`crate::membership`]). A stage that is not divided has
    /// all of them in one part, which stands by where another process has it already.
    const DIVIDED: bool = true;

    /// Checks its own flags.
    fn check(args: &Self::Args, mistakes: &mut Mistakes) -> Option<Self::Settings>;

    /// The parts that run a partition, of so many in all, until their context says that they are to stop. Of a stage
    /// that is not divided, those that run all of them.
    fn parts(
        context: &Context<JetStream>,
        partition: u16,
        total: u16,
        settings: &Self::Settings,
    ) -> Vec<Running>;
}

/// For a stage without flags of its own.
#[derive(Debug, Clone, clap::Args)]
pub struct NoArgs {}

#[derive(Parser)]
struct Cli<A: clap::Args> {
    #[command(flatten)]
    stage: StageArgs,
    #[command(flatten)]
    own: A,
}

/// Why the process ends.
enum End {
    Terminated,
    Interrupted,
    Idle,
}

/// Runs a stage until it is told to stop; see the contract, section 7, for the exit codes.
pub fn main<P: Program>() -> ExitCode {
    let command = Cli::<P::Args>::command()
        .name(P::STAGE.as_str())
        .version(env!("CARGO_PKG_VERSION"))
        .about(format!("The {} stage of the jackpot pipeline", P::STAGE));
    let matches = command.try_get_matches();
    let cli = match matches.and_then(|matches| Cli::<P::Args>::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let mut mistakes = Mistakes::default();
    let (settings, own) = (cli.stage.check(&mut mistakes), P::check(&cli.own, &mut mistakes));
    let (settings, own) = match (mistakes.finish(), settings, own) {
        (Ok(()), Some(settings), Some(own)) => (settings, own),
        (mistakes, ..) => return refuse(&mistakes.err().unwrap_or_default()),
    };
    telemetry::start(settings.log);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    runtime.block_on(LocalSet::new().run_until(run::<P>(cli.stage, settings, own)))
}

async fn run<P: Program>(args: StageArgs, settings: StageSettings, own: P::Settings) -> ExitCode {
    // First of all: whoever finds the process at its port may already end it.
    let ended = signalled();
    let (metrics, health) = (Metrics::new(P::STAGE), Health::default());
    let (stop, shutdown) = watch::channel(false);
    let (listener, address) = match admin::bind(settings.metrics_port).await {
        Ok(bound) => bound,
        Err(error) => {
            let what = format!(
                "port {} cannot be served ({error}); choose another --metrics-port",
                settings.metrics_port
            );
            // A port that is taken may be free later; one that is not allowed will not be.
            let allowed = error.kind() != std::io::ErrorKind::PermissionDenied;
            return if allowed { fail(&what) } else { refuse(&[what]) };
        }
    };
    info!(
        version = env!("CARGO_PKG_VERSION"),
        "{} serves /metrics, /livez and /readyz on {address}",
        P::STAGE
    );
    let mut served = shutdown.clone();
    let serving = tokio::spawn(admin::serve(listener, metrics.clone(), health.clone(), async move {
        if served.wait_for(|&stop| stop).await.is_err() {
            warn!("the process ended before it was told to");
        }
    }));
    let (active, mut activity) = watch::channel(Instant::now());
    let process = Process { id: member(address.port()), metrics, health, shutdown, active };
    let start = start::<P>(&args, &settings, own, process);
    tokio::pin!(ended);
    let mut parts = tokio::select! {
        parts = start => match parts {
            Ok(parts) => parts,
            Err(error) => return error,
        },
        end = &mut ended => return leave(P::STAGE, &end),
    };
    let end = tokio::select! {
        end = ended => end,
        () = idle(&mut activity, settings.until_idle) => End::Idle,
        broken = parts.join_next() => return broke(broken),
    };
    info!("draining");
    stop.send_replace(true);
    while let Some(joined) = parts.join_next().await {
        if let Err(error) = joined {
            return fail(&error);
        }
    }
    match serving.await {
        Ok(Ok(())) => leave(P::STAGE, &end),
        Ok(Err(error)) => fail(&error),
        Err(error) => fail(&error),
    }
}

/// What this process is called among those of its stage: by its machine and its port, which no other one has at the same
/// time, and which it has again when it is started again in the same place.
fn member(port: u16) -> String {
    let host = status::host();
    let word = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    format!("{}-{port}", host.chars().take(64).map(word).collect::<String>())
}

/// Tells this process from another one of its name. Drawn, since two that are started together are born in the same
/// moment; no larger than the whole numbers that every reader of JSON keeps exact.
fn born() -> u64 {
    RandomState::new().hash_one(std::process::id()) >> 11
}

/// What there is of the process before it has a broker.
struct Process {
    /// What it is called among those of its stage.
    id: String,
    metrics: Metrics,
    health: Health,
    shutdown: watch::Receiver<bool>,
    active: watch::Sender<Instant>,
}

/// Connects, waits for the streams, and starts the parts.
async fn start<P: Program>(
    args: &StageArgs,
    settings: &StageSettings,
    own: P::Settings,
    process: Process,
) -> Result<JoinSet<()>, ExitCode> {
    let seed = u64::from(std::process::id());
    let connect = args.broker.credentials.connect_settings();
    let log =
        JetStream::connect(&args.broker.nats, P::STAGE.as_str(), &connect).await.map_err(
            |error| match error {
                ConnectError::Settings { .. } => refuse(&[error.to_string()]),
                ConnectError::Unreachable { .. } => fail(&error),
            },
        )?;
    let total = partitions(&log, seed).await;
    process.metrics.partitions(total);
    let named = settings.only.clone().unwrap_or_default();
    if named.iter().any(|&partition| partition >= total) {
        return Err(refuse(&[format!(
            "--only {named:?} names partitions that this deployment does not have; it has 0 to {}",
            total - 1
        )]));
    }
    tokio::spawn(status::answer(log.clone(), P::STAGE, process.health.clone()));
    let (terms, clock) = (TermsCache::new(log.clone()), Clock::machine());
    let context = Context {
        log,
        terms,
        metrics: process.metrics,
        health: process.health,
        shutdown: process.shutdown,
        stand_by: settings.stand_by,
        snapshot_bytes: settings.snapshot_bytes,
        seed,
        clock,
        active: process.active,
    };
    let looked = settings.only.clone().unwrap_or_else(|| (0..total).collect());
    tokio::spawn(room::watch(context.clone(), room::streams(P::STAGE, &looked)));
    let mut parts = JoinSet::new();
    let part =
        move |context: &Context<JetStream>, partition| together(P::parts(context, partition, total, &own));
    match &settings.only {
        _ if !P::DIVIDED => drop(parts.spawn_local(part(&context, 0))),
        Some(only) => {
            context.metrics.owns(only.len());
            for &partition in only {
                parts.spawn_local(part(&context, partition));
            }
        }
        None => {
            parts.spawn_local(Sharing::new(context, P::STAGE, &process.id, born(), total, part).run());
        }
    }
    Ok(parts)
}

/// How many partitions there are, once the streams are there.
async fn partitions(log: &JetStream, seed: u64) -> u16 {
    let mut backoff = Backoff::new(seed);
    loop {
        match setup::partitions(log).await {
            Ok(Some(total)) => return total,
            Ok(None) => warn!("the streams are not there yet; `jackpot init` or `jackpot up` makes them"),
            Err(error) => warn!("the broker does not answer yet: {error}"),
        }
        tokio::time::sleep(backoff.next_pause()).await;
    }
}

/// Listens for SIGTERM and SIGINT from now on, and gives what waits for one.
fn signalled() -> impl Future<Output = End> {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    async {
        let (mut terminate, mut interrupt) = match signals {
            (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
            (Err(error), _) | (_, Err(error)) => {
                error!("signals cannot be received ({error}); stop this process with SIGKILL, which is safe");
                return std::future::pending().await;
            }
        };
        tokio::select! {
            _ = terminate.recv() => End::Terminated,
            _ = interrupt.recv() => End::Interrupted,
        }
    }
}

/// Waits until there was nothing to do for so long; for ever when the run is not bounded.
async fn idle(activity: &mut watch::Receiver<Instant>, bound: Option<Duration>) {
    let Some(bound) = bound else { return std::future::pending().await };
    loop {
        let until = *activity.borrow_and_update() + bound;
        if Instant::now() >= until {
            return;
        }
        tokio::time::sleep_until(until).await;
    }
}

/// A part ended although nobody told it to.
fn broke(broken: Option<Result<(), tokio::task::JoinError>>) -> ExitCode {
    match broken {
        Some(Err(error)) => fail(&error),
        Some(Ok(())) | None => fail(&"a part of the process ended by itself; start it again and report this"),
    }
}

fn leave(stage: StageName, end: &End) -> ExitCode {
    info!("{stage} has stopped");
    match end {
        End::Terminated => ExitCode::from(EXIT_DRAINED),
        End::Interrupted => ExitCode::from(EXIT_INTERRUPTED),
        End::Idle => ExitCode::SUCCESS,
    }
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    error!("{error}");
    ExitCode::FAILURE
}

/// What clap says of the command line. A value that is no text is one that cannot be used, and no wrong usage.
fn usage(error: &clap::Error) -> ExitCode {
    // Nothing is left to be done where even this cannot be printed.
    drop(error.print());
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        ErrorKind::InvalidUtf8 => ExitCode::from(EXIT_CONFIG),
        _ => ExitCode::from(EXIT_USAGE),
    }
}

fn refuse(mistakes: &[String]) -> ExitCode {
    for mistake in mistakes {
        eprintln!("error: {mistake}");
    }
    ExitCode::from(EXIT_CONFIG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_that_are_started_in_one_moment_are_born_apart() {
        assert_ne!(born(), born());
    }
}
