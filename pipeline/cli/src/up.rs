//! `jackpot up`: the whole pipeline on this machine, from an empty directory to `ready`, until it is told to stop.
//! Here is the order of things; processes are kept alive by [`fleet`], asked for readiness by [`probe`].
//! Standard output holds where everything listens and `ready`; all else goes to standard error.

pub mod demo;
pub mod fleet;
pub mod probe;
pub mod stages;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::ValueEnum;
use clap::builder::RangedI64ValueParser;
use jackpot_core::broker::{self, BrokerError, BrokerSettings, Cluster, Sync};
use jackpot_core::keys::Keys;
use jackpot_core::log::jetstream::JetStream;
use jackpot_core::log::jetstream::setup::SetUp;
use jackpot_core::refusal::StageName;
use jackpot_core::terms::{Terms, store};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::exit::Unusable;
use crate::keys::KeysFlag;
use crate::server::{self, Credentials};
use crate::{init, serve, terms};
use fleet::Fleet;
use stages::{Place, Places};

/// How long a server that was given may take to answer, and one that has started to take terms.
const SERVER_MAX: Duration = Duration::from_secs(60);
/// Where a NATS server listens by custom.
const NATS_PORT: u16 = 4222;
/// Where the live page is served, below the metrics ports.
const PAGE_PORT: u16 = 9590;
/// How often it is said what is still waited for.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// Runs the whole pipeline on this machine.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the data is kept.
    #[arg(long, value_name = "DIR", default_value = "jackpot-data")]
    dir: PathBuf,
    /// How many lanes, fixed for ever; 4 where there is no data yet.
    #[arg(long, value_name = "N", value_parser = init::partitions_parser())]
    partitions: Option<u16>,
    /// Use this running NATS server instead of an own one; NATS_URL counts where it is not empty and neither
    /// --nats-port nor --servers is given.
    #[arg(long, value_name = "URL", conflicts_with = "nats_port")]
    nats: Option<String>,
    #[arg(long, env = "NATS_URL", hide = true, value_name = "URL")]
    nats_url: Option<String>,
    #[command(flatten)]
    credentials: Credentials,
    /// The port of the own NATS server, 4222 where nothing is said; 0: any that is free.
    #[arg(long, value_name = "PORT")]
    nats_port: Option<u16>,
    /// How many NATS servers to start, on ports from --nats-port on: with 3 or 5, each stream is kept by three of them;
    /// fixed for the data, 1 where there is none yet.
    #[arg(long, value_name = "N", conflicts_with = "nats", value_parser = servers)]
    servers: Option<u16>,
    /// The first of the metrics ports: five in the order of the pipeline, then those of further processes; 0: any that are
    /// free.
    #[arg(long, value_name = "PORT", default_value_t = 9600, value_parser = RangedI64ValueParser::<u16>::new().range(0..=65_531))]
    metrics_port: u16,
    /// How many processes of a stage, such as validate=2,allocate=3; one, where nothing is said of it.
    #[arg(long, value_name = "STAGE=N", value_delimiter = ',', value_parser = stages::processes)]
    processes: Vec<(StageName, u16)>,
    #[command(flatten)]
    keys: KeysFlag,
    /// The terms to apply; the example terms where none are in force.
    #[arg(long, value_name = "FILE")]
    terms: Option<PathBuf>,
    /// When the own server acknowledges: after an fsync, or (for trials) before it.
    #[arg(long, value_enum, default_value_t = SyncMode::Always)]
    sync: SyncMode,
    /// The port of the live page on this machine; another one is taken where it is in use; 0: any that is free.
    #[arg(long, value_name = "PORT", default_value_t = PAGE_PORT)]
    page_port: u16,
    /// Serve no live page.
    #[arg(long, conflicts_with = "page_port")]
    no_page: bool,
    /// Add live traffic, and print the totals as they grow.
    #[arg(long)]
    demo: bool,
}

/// When the server acknowledges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SyncMode {
    /// After it has been written through to the disk.
    Always,
    /// Before: a power cut may lose what was acknowledged.
    Relaxed,
}

/// The largest number of servers that keep a stream.
const REPLICAS_MAX: u16 = 3;

/// Where the streams are.
struct Home {
    /// Where clients connect.
    url: String,
    /// Each server, and what is known of it.
    servers: Vec<(String, String)>,
    /// How many servers keep each stream.
    replicas: u8,
}

/// Runs everything until it is told to stop, or cannot go on.
pub async fn run(args: Args, out: &mut impl Write) -> anyhow::Result<()> {
    let mut stop = Stop::new()?;
    let keys = args.keys.read()?;
    let named = args.named_terms(keys.as_ref())?;
    let (mut fleet, mut failures) = Fleet::new();
    let ended = tokio::select! {
        biased;
        () = stop.asked() => Ok(()),
        Some(failure) = failures.recv() => Err(failure),
        result = bring_up(&args, named, keys, &mut fleet, out) => result,
    };
    if !fleet.is_empty() {
        eprintln!("jackpot: stopping the stages, then the server");
    }
    fleet.shut_down().await;
    ended
}

/// Starts all, says where it is, and stays; it returns only when it cannot go on.
async fn bring_up(
    args: &Args,
    named: Option<(String, Terms)>,
    keys: Option<Keys>,
    fleet: &mut Fleet,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    for (flag, file) in args.credentials.files() {
        server::readable(flag, file)?;
    }
    let stages = stages::find().await?;
    let places = Places::choose(args.metrics_port, &args.processes)?;
    let home = match args.server() {
        Some(url) => Home {
            url: url.to_owned(),
            servers: vec![(url.to_owned(), "as it was found".to_owned())],
            replicas: 1,
        },
        None => start_servers(args, fleet).await?,
    };
    let url = &home.url;
    let log = server::connect(url, &args.credentials, SERVER_MAX).await?;
    let partitions = init::partitions(&log, args.partitions).await?;
    eprintln!("jackpot: checking the streams of {partitions} partitions");
    init::ensure(&log, &SetUp { replicas: home.replicas, ..SetUp::new(partitions) }).await?;
    let terms = take_up_terms(&log, partitions, named).await?;
    for place in places.all() {
        let command = stages::command(&stages[&place.stage], place, url, args);
        eprintln!("jackpot: starting {place}");
        fleet.keep(place.to_string(), command);
    }
    for place in places.all() {
        wait_ready(place).await;
    }
    eprintln!("jackpot: waiting until revision {} of the terms runs on every partition", terms.revision);
    while let Err(error) = terms::running(&log, terms.revision, Instant::now() + SAY_EVERY).await {
        eprintln!("jackpot: {error:#}");
    }
    let mut page = JoinSet::new();
    let page_at = args.serve_page(&log, &mut page).await;
    say_where(&home, &places, page_at, partitions, &terms, out)?;
    if args.demo {
        return demo::run(&log, &terms, keys, out).await;
    }
    std::future::pending().await
}

/// The own servers: found or installed, started, kept alive.
async fn start_servers(args: &Args, fleet: &mut Fleet) -> anyhow::Result<Home> {
    let unusable = |error: &BrokerError| Unusable::new(format!("--dir {}: {error}", args.dir.display()));
    let count = match args.servers {
        Some(count) => count,
        None => broker::servers_of(&args.dir).map_err(|error| unusable(&error))?.unwrap_or(1),
    };
    let what = if count == 1 { "nats-server".to_owned() } else { format!("{count} nats-servers") };
    eprintln!("jackpot: starting {what} (where there is none on PATH, one is installed first)");
    let (sync, promise) = match args.sync {
        SyncMode::Always => (Sync::Always, "fsync before each acknowledgement"),
        SyncMode::Relaxed => {
            (Sync::Relaxed, "--sync relaxed: FOR TRIALS, a power cut may lose what was acknowledged")
        }
    };
    let port = args.nats_port.unwrap_or(NATS_PORT);
    let settings = BrokerSettings { port, ..BrokerSettings::new(&args.dir, sync) };
    let cluster = Cluster::start(settings, count).await.map_err(|error| match &error {
        BrokerError::Dir { .. } | BrokerError::Servers { .. } => anyhow::Error::new(unusable(&error)),
        BrokerError::Ended { said, .. } if said.contains("address already in use") => anyhow::anyhow!(
            "port {port}{} is in use; give another --nats-port, or use the server that is there with --nats",
            if count == 1 { String::new() } else { format!(" or one of the {} after it", count - 1) }
        ),
        _ => error.into(),
    })?;
    let mut home = Home {
        url: cluster.url(),
        servers: Vec::new(),
        replicas: u8::try_from(count.min(REPLICAS_MAX)).expect("three at most"),
    };
    for (number, broker) in (1..).zip(cluster.into_brokers()) {
        let (dir, name) = match count {
            1 => (args.dir.clone(), "nats-server".to_owned()),
            _ => (args.dir.join(format!("server-{number}")), format!("nats-server {number}")),
        };
        home.servers.push((broker.url(), format!("data in {}, {promise}", dir.display())));
        fleet.keep_broker(name, broker);
    }
    Ok(home)
}

/// Sees that terms are in force: those that were named, else those that are, else the example.
async fn take_up_terms(
    log: &JetStream,
    partitions: u16,
    named: Option<(String, Terms)>,
) -> anyhow::Result<Terms> {
    let deadline = Instant::now() + SERVER_MAX;
    let (name, terms) = match (named, store::latest(log).await?) {
        (Some(named), _) => named,
        (None, Some(claim)) => {
            eprintln!("jackpot: revision {} of the terms stays in force", claim.revision);
            store::activate(log, partitions, &claim).await?;
            return Ok(store::load(log, claim.revision).await?);
        }
        (None, None) => {
            let name = "the example terms".to_owned();
            let example = terms::parse(&name, terms::EXAMPLE, &mut std::io::stderr())?;
            (name, example)
        }
    };
    eprintln!("jackpot: applying {name} as revision {}", terms.revision);
    terms::activate(log, &terms, deadline).await?;
    Ok(terms)
}

/// Waits until a stage says that it is ready, and says now and then what it says instead.
async fn wait_ready(place: Place) {
    let mut said = Instant::now();
    loop {
        let answer = probe::get(place.port, "/readyz").await;
        if answer.as_ref().is_ok_and(|answer| answer.status == 200) {
            return;
        }
        if said.elapsed() >= SAY_EVERY {
            said = Instant::now();
            match answer {
                Ok(answer) => eprintln!("jackpot: waiting for {place}: {}", answer.first_line()),
                Err(error) => eprintln!("jackpot: waiting for {place}: {error}"),
            }
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Prints where everything listens, and `ready`.
fn say_where(
    home: &Home,
    places: &Places,
    page: Option<SocketAddr>,
    partitions: u16,
    terms: &Terms,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    for (url, what) in &home.servers {
        writeln!(out, "{:<10} {url}  ({what})", "nats")?;
    }
    for place in places.all() {
        writeln!(out, "{:<10} http://127.0.0.1:{}/metrics", place.stage.as_str(), place.port)?;
    }
    if let Some(page) = page {
        writeln!(out, "{:<10} http://{page}/", "page")?;
    }
    writeln!(
        out,
        "{:<10} revision {}, {} pools, {partitions} partitions",
        "terms",
        terms.revision,
        terms.pools.len()
    )?;
    writeln!(out, "{:<10} export NATS_URL={}; jackpot totals", "try", home.url)?;
    writeln!(out, "ready")?;
    out.flush()?;
    Ok(())
}

impl Args {
    /// The running server to use; `None` for an own one.
    fn server(&self) -> Option<&str> {
        let given = |url: &&str| !url.is_empty() && self.nats_port.is_none() && self.servers.is_none();
        let from_environment = || self.nats_url.as_deref().filter(given);
        self.nats.as_deref().or_else(from_environment)
    }

    /// The terms that were named, with all their keys, read before anything is started.
    fn named_terms(&self, keys: Option<&Keys>) -> anyhow::Result<Option<(String, Terms)>> {
        let Some(file) = &self.terms else { return Ok(None) };
        server::readable("--terms", file)?;
        let name = file.display().to_string();
        let terms = terms::parse(&name, &terms::read(file)?, &mut std::io::stderr())?;
        terms::find_keys(&name, &terms, &self.keys, keys)?;
        Ok(Some((name, terms)))
    }

    /// Serves the live page as long as `page` lives; gives where. What goes wrong with it is said, and stops nothing else.
    async fn serve_page(&self, log: &JetStream, page: &mut JoinSet<()>) -> Option<SocketAddr> {
        if self.no_page {
            return None;
        }
        let listener = match TcpListener::bind((Ipv4Addr::LOCALHOST, self.page_port)).await {
            Ok(listener) => Ok(listener),
            Err(error) => {
                eprintln!(
                    "jackpot: port {} for the page cannot be used ({error}); taking another one",
                    self.page_port
                );
                TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await
            }
        };
        match listener.and_then(|listener| Ok((listener.local_addr()?, listener))) {
            Ok((address, listener)) => {
                let served = serve::serve(log.clone(), listener);
                page.spawn(async {
                    if let Err(error) = served.await {
                        eprintln!("jackpot: {error:#}; all else goes on");
                    }
                });
                Some(address)
            }
            Err(error) => {
                eprintln!("jackpot: the page cannot be served ({error}); all else goes on");
                None
            }
        }
    }
}

/// Reads how many servers there are to be: two hold no majority when one is lost, and no stream is kept by more than
/// five.
fn servers(text: &str) -> Result<u16, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        "5" => Ok(5),
        _ => Err("give 1, 3 or 5: an even number outlives no more than the odd one below it".into()),
    }
}

/// The signals that ask us to stop.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen to signals");
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// A port that nobody listens on, or the reason why it cannot be used.
fn free(port: u16, whose: &str) -> anyhow::Result<()> {
    match std::net::TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, port)) {
        Ok(_) => Ok(()),
        Err(error) => bail!("port {port} for {whose} cannot be used ({error}); give another --metrics-port"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn a_server_that_runs_is_used_where_one_is_named() {
        let check = |flags: &[&str], expect: Option<&str>| {
            let line = ["up", "--nats-url", ""].iter().chain(flags);
            assert_eq!(Line::parse_from(line).args.server(), expect, "{flags:?}");
        };
        check(&[], None);
        check(&["--nats", "a"], Some("a"));
        let args = |flags: &[&str]| Line::parse_from(["up", "--nats-url", "b"].iter().chain(flags)).args;
        assert_eq!(args(&[]).server(), Some("b"));
        assert_eq!(args(&["--nats", "a"]).server(), Some("a"));
        assert_eq!(args(&["--nats-port", "1"]).server(), None);
        assert_eq!(args(&["--servers", "3"]).server(), None);
        assert!(Line::try_parse_from(["up", "--servers", "2"]).is_err());
        assert!(Line::try_parse_from(["up", "--servers", "3", "--nats", "a"]).is_err());
    }
}
