//! The pipeline of a run: a `jackpot up` of its own on free ports over a temporary directory, connected to, and the
//! processor time that its processes have used. The runs start it, publish to it, and stop it.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use jackpot_core::log::jetstream::JetStream;
use jackpot_core::terms::Terms;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::{Args, sync_name};
use crate::server::{self, Credentials};

/// A `jackpot up` of the run's own.
pub(super) struct Pipeline {
    up: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// The connection to its server.
    pub(super) log: JetStream,
    _dir: tempfile::TempDir,
}

impl Pipeline {
    /// Starts one under these terms, and waits until wagers can be published.
    pub(super) async fn start(args: &Args, terms: &Terms) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir().context("a temporary directory cannot be made")?;
        let file = dir.path().join("terms.json");
        std::fs::write(&file, terms.document())?;
        let mut up = Command::new(std::env::current_exe()?)
            .args([
                "up",
                "--nats-port",
                "0",
                "--metrics-port",
                "0",
                "--no-page",
                "--sync",
                sync_name(args.sync),
            ])
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
    pub(super) fn processes(&self) -> anyhow::Result<BTreeMap<String, u32>> {
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

    /// Stops it cleanly.
    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        let pid = self.up.id().context("`jackpot up` has ended")?;
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid)?).context("it has no process id")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        while self.lines.next_line().await?.is_some() {}
        ensure!(self.up.wait().await?.success(), "`jackpot up` did not end cleanly");
        Ok(())
    }
}

/// The processor time that each process has used so far, user and system.
pub(super) fn cpu(processes: &BTreeMap<String, u32>) -> anyhow::Result<BTreeMap<String, Duration>> {
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
