//! A `nats-server` of this machine's own: found or installed, started, restarted on its port, stopped.
//! Used by `jackpot up` and by the tests that need a real server. A pipeline in production does not start brokers.
//! Several that hold the same streams are a [`Cluster`].
//! Never here: streams (see [`crate::log::jetstream::setup`]), users.

mod cluster;
mod install;

use std::fs::{File, TryLockError};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

pub use cluster::{Cluster, servers_of};
pub use install::{InstallError, find_or_install};

/// Ports are picked below those that the system gives to outgoing connections: a client that knocks at one of those
/// while no server is there may by chance connect to itself, and hold the port against the server.
const PORTS: std::ops::Range<u16> = 18_000..30_000;
/// How often another port is tried when somebody was faster.
const PORT_ATTEMPTS_MAX: usize = 20;
/// How long a server that was told to stop may take.
const STOP_MAX: Duration = Duration::from_secs(20);
/// How long a directory may still be held by a server that is going.
const HELD_MAX: Duration = Duration::from_secs(5);
/// What tells the server's collector how much memory it should stay below, where the environment says nothing else. A
/// backlog of gigabytes that is read goes through its caches; without a limit it lets them grow to as much again.
const MEMORY_LIMIT: (&str, &str) = ("GOMEMLIMIT", "1GiB");
/// How often a starting server is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The tag by which a server's configuration says that it syncs before it acknowledges. Clients are told the tags of
/// their server; its `sync_interval` they are not.
pub const SYNC_TAG: &str = "sync:always";

/// When the server calls a message stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// After it was written through to the disk: an acknowledgement survives a power cut.
    Always,
    /// Before: an acknowledgement survives the death of the server, not that of the machine. For trials.
    Relaxed,
}

/// How to start a server.
#[derive(Debug, Clone)]
pub struct BrokerSettings {
    /// Where it keeps its data; created when it is not there.
    pub dir: PathBuf,
    /// The port on 127.0.0.1; 0: any that is free.
    pub port: u16,
    /// When a message counts as stored.
    pub sync: Sync,
    /// Where the server is installed when there is none; `None`: the target directory of this build.
    pub cache: Option<PathBuf>,
    /// How long it may take to be ready; much data takes long to recover.
    pub ready_within: Duration,
}

impl BrokerSettings {
    /// A server in this directory, on any free port.
    pub fn new(dir: impl Into<PathBuf>, sync: Sync) -> Self {
        Self { dir: dir.into(), port: 0, sync, cache: None, ready_within: Duration::from_secs(120) }
    }
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// There is none on this machine, and none could be installed.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// The directory cannot be used.
    #[error("cannot use {}: {cause}", path.display())]
    Dir {
        /// Which file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// Another server uses the directory.
    #[error("another nats-server uses {}; stop it first, or give another directory", .0.display())]
    Held(PathBuf),
    /// The directory holds the data of another number of servers.
    #[error("{} holds the data of {has} servers, not {asked}; start as many, or give another directory", dir.display())]
    Servers {
        /// The directory.
        dir: PathBuf,
        /// How many it is for.
        has: u16,
        /// How many were asked for.
        asked: u16,
    },
    /// The program cannot be run.
    #[error("cannot run nats-server: {0}")]
    Spawn(#[source] io::Error),
    /// It ended before it was ready.
    #[error("nats-server ended before it was ready ({status}): {said}")]
    Ended {
        /// How.
        status: ExitStatus,
        /// The end of what it said.
        said: String,
    },
    /// It did not become ready in time.
    #[error("nats-server was not ready within {} s; see {}", waited.as_secs(), log.display())]
    NotReady {
        /// How long it was given.
        waited: Duration,
        /// Where it says why.
        log: PathBuf,
    },
}

/// A running server; killed when this is dropped.
#[derive(Debug)]
pub struct Broker {
    settings: BrokerSettings,
    binary: PathBuf,
    /// Its place in a cluster, when it is in one.
    seat: Option<Seat>,
    /// Held by this process and, as its standard input, by the server: as long as either lives, nobody else starts
    /// one in the same directory.
    lock: File,
    child: Child,
    port: u16,
}

/// A server's place in a cluster.
#[derive(Debug, Clone)]
struct Seat {
    /// The cluster's name: servers of another one are not let in.
    cluster: String,
    /// The server's name, the same each time that it is started: by it the others know it again.
    server: String,
    /// Where it waits for the others.
    route_port: u16,
    /// Where all of them do.
    routes: Vec<u16>,
}

impl Broker {
    /// Finds or installs the server, starts it, and waits until it is ready.
    pub async fn start(settings: BrokerSettings) -> Result<Self, BrokerError> {
        let binary = find_or_install(settings.cache.as_deref()).await?;
        Self::start_as(settings, binary, None).await
    }

    async fn start_as(
        settings: BrokerSettings,
        binary: PathBuf,
        seat: Option<Seat>,
    ) -> Result<Self, BrokerError> {
        let in_dir = |cause| BrokerError::Dir { path: settings.dir.clone(), cause };
        std::fs::create_dir_all(&settings.dir).map_err(in_dir)?;
        let dir = settings.dir.canonicalize().map_err(in_dir)?;
        let settings = BrokerSettings { dir, ..settings };
        let lock = hold(&settings.dir).await?;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let port = if settings.port == 0 { free_port() } else { settings.port };
            match run(&binary, &settings, seat.as_ref(), &lock, port).await {
                Ok(child) => return Ok(Self { settings, binary, seat, lock, child, port }),
                Err(BrokerError::Ended { said, .. })
                    if settings.port == 0 && attempts < PORT_ATTEMPTS_MAX && is_taken(&said) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process; `None` when it has ended.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Where it keeps its data.
    pub fn dir(&self) -> &Path {
        &self.settings.dir
    }

    /// Waits until the process ends, by itself or not.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Kills it, as a crash would.
    pub async fn kill(&mut self) -> io::Result<()> {
        self.child.kill().await
    }

    /// Tells it to stop, and waits until it has; kills it when it takes too long.
    pub async fn stop(&mut self) -> io::Result<()> {
        let Some(pid) = self.pid() else { return Ok(()) };
        // The server's own way to be signalled: this build has no unsafe code to do it with.
        let told = Command::new(&self.binary)
            .arg("--signal")
            .arg(format!("quit={pid}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .await;
        match told {
            Ok(status) if status.success() => {}
            told => tracing::warn!(pid, ?told, "nats-server could not be told to stop; it is killed"),
        }
        match timeout(STOP_MAX, self.child.wait()).await {
            Ok(ended) => ended.map(|_| ()),
            Err(_) => self.child.kill().await,
        }
    }

    /// Starts it again on the same port and data, when it has ended or was killed.
    pub async fn restart(&mut self) -> Result<(), BrokerError> {
        if self.pid().is_some() {
            self.stop().await.map_err(BrokerError::Spawn)?;
        }
        let mut attempts = 0;
        loop {
            attempts += 1;
            match run(&self.binary, &self.settings, self.seat.as_ref(), &self.lock, self.port).await {
                Ok(child) => {
                    self.child = child;
                    return Ok(());
                }
                Err(BrokerError::Ended { said, .. }) if attempts < PORT_ATTEMPTS_MAX && is_taken(&said) => {
                    sleep(Duration::from_millis(100)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Takes the directory for this process and the servers that it starts.
async fn hold(dir: &Path) -> Result<File, BrokerError> {
    let path = dir.join("broker.lock");
    let lock = File::options().create(true).truncate(false).read(true).write(true).open(&path);
    let lock = lock.map_err(|cause| BrokerError::Dir { path: path.clone(), cause })?;
    let begun = Instant::now();
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::Error(cause)) => return Err(BrokerError::Dir { path, cause }),
            Err(TryLockError::WouldBlock) if begun.elapsed() < HELD_MAX => sleep(LOOK_EVERY).await,
            Err(TryLockError::WouldBlock) => return Err(BrokerError::Held(dir.to_path_buf())),
        }
    }
}

/// A port that nobody listens on just now.
fn free_port() -> u16 {
    let span = u64::from(PORTS.end - PORTS.start);
    loop {
        // A hasher with keys that the standard library draws is random enough to keep tests apart.
        let drawn = u16::try_from(RandomState::new().build_hasher().finish() % span).expect("below a u16");
        let port = PORTS.start + drawn;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// Eight hexadecimal digits that no other call gives.
fn drawn_name() -> String {
    format!("{:08x}", RandomState::new().build_hasher().finish() >> 32)
}

fn is_taken(said: &str) -> bool {
    said.contains("address already in use")
}

/// Starts the process, and waits until it is ready.
async fn run(
    binary: &Path,
    settings: &BrokerSettings,
    seat: Option<&Seat>,
    lock: &File,
    port: u16,
) -> Result<Child, BrokerError> {
    let file = |name: &str| settings.dir.join(name);
    let in_file = |path: PathBuf| move |cause| BrokerError::Dir { path, cause };
    let name = seat.map_or_else(|| format!("jackpot-{port}-{}", drawn_name()), |seat| seat.server.clone());
    let path = file("nats-server.conf");
    std::fs::write(&path, config(settings, seat, port, &name)?).map_err(in_file(path.clone()))?;
    let log = file("nats-server.log");
    let log_begin = std::fs::metadata(&log).map_or(0, |metadata| metadata.len());
    let errors = file("nats-server.err");
    let stderr = File::create(&errors).map_err(in_file(errors.clone()))?;
    let stdin = lock.try_clone().map_err(BrokerError::Spawn)?;
    let mut server = Command::new(binary);
    #[expect(clippy::disallowed_methods, reason = "it is a setting of the server, which inherits it")]
    let limited = std::env::var_os(MEMORY_LIMIT.0).is_some();
    if !limited {
        server.env(MEMORY_LIMIT.0, MEMORY_LIMIT.1);
    }
    let mut child = server
        .arg("--config")
        .arg(&path)
        .stdin(Stdio::from(stdin))
        .stdout(Stdio::null())
        .stderr(Stdio::from(stderr))
        // A terminal's Ctrl-C goes to a whole group of processes; this one is stopped after those that use it.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(BrokerError::Spawn)?;
    let begun = Instant::now();
    while begun.elapsed() < settings.ready_within {
        if is_ready(port, &name).await {
            return Ok(child);
        }
        if let Some(status) = child.try_wait().map_err(BrokerError::Spawn)? {
            let said = last_words(&errors, &log, log_begin);
            return Err(BrokerError::Ended { status, said });
        }
        sleep(LOOK_EVERY).await;
    }
    Err(BrokerError::NotReady { waited: settings.ready_within, log })
}

/// The server's configuration.
fn config(
    settings: &BrokerSettings,
    seat: Option<&Seat>,
    port: u16,
    name: &str,
) -> Result<String, BrokerError> {
    let dir = settings.dir.to_str().filter(|dir| !dir.contains(['"', '\\', '\n'])).ok_or_else(|| {
        let cause =
            io::Error::new(io::ErrorKind::InvalidInput, "its name cannot be written in a configuration");
        BrokerError::Dir { path: settings.dir.clone(), cause }
    })?;
    let (sync_interval, tags) = match settings.sync {
        Sync::Always => ("always", format!("server_tags: [\"{SYNC_TAG}\"]\n")),
        Sync::Relaxed => ("2m", String::new()),
    };
    let cluster = seat.map_or_else(String::new, |seat| {
        let routes: Vec<_> = seat.routes.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
        format!(
            "cluster {{\n  name: \"{}\"\n  listen: \"127.0.0.1:{}\"\n  routes: [{}]\n}}\n",
            seat.cluster,
            seat.route_port,
            routes.join(", ")
        )
    });
    // What streams may hold is reserved: the bound is the streams', and the disk's, not the server's guess.
    Ok(format!(
        "server_name: \"{name}\"\n\
         listen: \"127.0.0.1:{port}\"\n\
         log_file: \"{dir}/nats-server.log\"\n\
         log_size_limit: 16MB\n\
         log_max_num: 2\n\
         jetstream {{\n  store_dir: \"{dir}\"\n  sync_interval: {sync_interval}\n  max_file_store: 16TB\n}}\n\
         {tags}{cluster}"
    ))
}

/// What a server says first.
#[derive(Debug, Deserialize)]
struct Info {
    server_name: String,
    #[serde(default)]
    jetstream: bool,
}

/// Whether the server of this name takes connections on the port, JetStream included.
async fn is_ready(port: u16, name: &str) -> bool {
    let greeting = async {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).await.ok()?;
        serde_json::from_str::<Info>(line.strip_prefix("INFO ")?).ok()
    };
    let greeting = timeout(Duration::from_secs(1), greeting).await.ok().flatten();
    greeting.is_some_and(|info| info.server_name == name && info.jetstream)
}

/// The last lines that it wrote since it was started.
fn last_words(errors: &Path, log: &Path, log_begin: u64) -> String {
    let errors = std::fs::read_to_string(errors).unwrap_or_default();
    let log = std::fs::read(log).unwrap_or_default();
    let since = log.get(usize::try_from(log_begin).unwrap_or(0)..).unwrap_or(&log);
    let log = String::from_utf8_lossy(since);
    let lines: Vec<&str> = errors.lines().chain(log.lines()).filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join(" / ")
}
