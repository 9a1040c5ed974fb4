//! The pipeline that is disturbed: a `jackpot up` over a directory, the processes that it keeps, and what the system
//! says of them in `/proc`. Every process is signalled by its own id, after it was seen to be a child of that `up`.

use std::collections::BTreeMap;
use std::fs::{File, read_dir, read_to_string};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, sleep};

use super::Args;
use crate::bench;

/// How long killed processes may take to be gone.
const GONE_MAX: Duration = Duration::from_secs(20);
/// How often it is looked whether they are.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A process that `up` keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    /// `validate`; where there are several of that name, `validate 2`.
    pub(super) label: String,
    pid: Pid,
    /// When it was started, in the kernel's ticks: an id alone may be given to another process later.
    started: u64,
}

/// The pipeline.
#[derive(Debug)]
pub(super) struct Pipeline {
    dir: PathBuf,
    flags: Vec<String>,
    snapshot_bytes: u64,
    up: Option<Child>,
    lines: Option<Lines<BufReader<ChildStdout>>>,
    url: String,
    /// The ports of the first start: later ones take the same, so that producers and processes find each other again.
    ports: [u16; 2],
    /// What a process is called, by its command line: it is the same after every start.
    labels: BTreeMap<String, String>,
}

impl Pipeline {
    /// A pipeline that is not started yet.
    pub(super) fn new(args: &Args, dir: PathBuf) -> Self {
        let mut flags = vec!["--sync".to_owned(), bench::sync_name(args.sync).to_owned()];
        if let Some(servers) = args.servers {
            flags.extend(["--servers".to_owned(), servers.to_string()]);
        }
        if let Some(processes) = &args.processes {
            flags.extend(["--processes".to_owned(), processes.clone()]);
        }
        Self {
            dir,
            flags,
            snapshot_bytes: args.snapshot_bytes,
            up: None,
            lines: None,
            url: String::new(),
            ports: [0, 0],
            labels: BTreeMap::new(),
        }
    }

    /// Where its server listens.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Starts it, and waits until wagers can be published.
    pub(super) async fn start(&mut self) -> anyhow::Result<()> {
        let said = self.dir.join("up.log");
        let said_file = File::options().create(true).append(true).open(&said)?;
        let mut up = Command::new(std::env::current_exe()?)
            .args(["up", "--no-page", "--nats-port", &self.ports[0].to_string()])
            .args(["--metrics-port", &self.ports[1].to_string()])
            .args(&self.flags)
            .arg("--dir")
            .arg(&self.dir)
            .env_remove("NATS_URL")
            .env("RUST_LOG", "warn")
            .env("JACKPOT_SNAPSHOT_BYTES", self.snapshot_bytes.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(said_file)
            // A terminal's Ctrl-C is ours: `up` is told to stop by us.
            .process_group(0)
            .spawn()
            .context("`jackpot up` cannot be started")?;
        let stdout = up.stdout.take().context("its output cannot be read")?;
        let mut lines = BufReader::new(stdout).lines();
        self.up = Some(up);
        let mut servers: Vec<String> = Vec::new();
        loop {
            let line = lines.next_line().await?;
            let line =
                line.with_context(|| format!("`jackpot up` did not get ready; {} says why", said.display()))?;
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some("nats"), Some(url)) => servers.push(url.to_owned()),
                (Some("validate"), Some(url)) if self.ports[1] == 0 => self.ports[1] = port(url)?,
                (Some("ready"), None) => break,
                _ => {}
            }
        }
        self.lines = Some(lines);
        self.url = servers.join(",");
        self.ports[0] = port(&self.url)?;
        if self.labels.is_empty() {
            self.labels = label(self.children()?.into_iter().map(|child| (child.command, child.name)));
            ensure!(
                self.labels.len() >= 6,
                "five stages and a server were expected, but {:?} run",
                self.labels
            );
        }
        Ok(())
    }

    /// The processes that run now.
    pub(super) fn processes(&mut self) -> anyhow::Result<Vec<Process>> {
        let up = self.up.as_mut().context("`jackpot up` was not started")?;
        if let Some(status) = up.try_wait()? {
            bail!("`jackpot up` has ended ({status}); {} says why", self.dir.join("up.log").display());
        }
        let mut processes = Vec::new();
        for child in self.children()? {
            if let Some(label) = self.labels.get(&child.command) {
                processes.push(Process { label: label.clone(), pid: child.pid, started: child.started });
            }
        }
        processes.sort_by(|a, b| a.label.cmp(&b.label));
        Ok(processes)
    }

    /// kill -9 of everything at once, and waits until all of it is gone.
    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        let Some(mut up) = self.up.take() else { return Ok(()) };
        if let Some(pid) = up.id().and_then(pid_of) {
            // Held first, so that it starts nothing that is not in the list.
            kill_process(pid, Signal::STOP)?;
            let children = children_of(pid);
            for child in &children {
                send(child.pid, child.started, Signal::KILL)?;
            }
            kill_process(pid, Signal::KILL)?;
            up.wait().await?;
            let deadline = Instant::now() + GONE_MAX;
            while let Some(child) = children.iter().find(|child| is_there(child.pid, child.started)) {
                ensure!(Instant::now() < deadline, "{} does not go after kill -9", child.name);
                sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }

    /// Stops it as Ctrl-C would; it must end cleanly.
    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        let Some(up) = self.up.as_mut() else { return Ok(()) };
        let Some(pid) = up.id().and_then(pid_of) else { bail!("`jackpot up` has ended by itself") };
        for child in children_of(pid) {
            send(child.pid, child.started, Signal::CONT)?;
        }
        kill_process(pid, Signal::TERM)?;
        if let Some(lines) = &mut self.lines {
            while lines.next_line().await?.is_some() {}
        }
        let status = up.wait().await?;
        self.up = None;
        ensure!(status.success(), "`jackpot up` did not end cleanly ({status})");
        Ok(())
    }

    fn children(&self) -> anyhow::Result<Vec<Found>> {
        let up = self.up.as_ref().and_then(Child::id).and_then(pid_of).context("`jackpot up` has ended")?;
        Ok(children_of(up))
    }
}

impl Process {
    /// Sends a signal; none where the process is not there any more.
    pub(super) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        send(self.pid, self.started, signal)
    }

    /// The memory that it holds (resident), in KiB; `None` where it is gone.
    pub(super) fn resident_kib(&self) -> Option<u64> {
        let status = read_to_string(format!("/proc/{}/status", self.pid.as_raw_nonzero())).ok()?;
        let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        value.split_whitespace().next()?.parse().ok()
    }
}

/// A process as `/proc` shows it.
#[derive(Debug)]
struct Found {
    name: String,
    command: String,
    pid: Pid,
    started: u64,
}

/// The children of a process; those that go meanwhile are left out.
fn children_of(parent: Pid) -> Vec<Found> {
    let tasks = read_dir(format!("/proc/{}/task", parent.as_raw_nonzero())).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| read_to_string(task.path().join("children")).ok());
    let ids: Vec<u32> = lists
        .flat_map(|list| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>())
        .collect();
    ids.into_iter().filter_map(found).collect()
}

fn found(id: u32) -> Option<Found> {
    let pid = pid_of(id)?;
    let name = read_to_string(format!("/proc/{id}/comm")).ok()?.trim().to_owned();
    let command = read_to_string(format!("/proc/{id}/cmdline")).ok()?.replace('\0', " ");
    let started = started(pid)?;
    Some(Found { name, command, pid, started })
}

/// When a process was started, where it is there and no zombie.
fn started(pid: Pid) -> Option<u64> {
    let stat = read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // Behind the name, which is in parentheses: the state, and as the 20th field the start.
    let mut fields = stat.rsplit(')').next()?.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

fn is_there(pid: Pid, since: u64) -> bool {
    started(pid) == Some(since)
}

fn send(pid: Pid, since: u64, signal: Signal) -> anyhow::Result<()> {
    if !is_there(pid, since) {
        return Ok(());
    }
    match kill_process(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error).context("a process of the pipeline cannot be signalled"),
    }
}

fn pid_of(id: u32) -> Option<Pid> {
    i32::try_from(id).ok().and_then(Pid::from_raw)
}

/// What processes are called: by their program, and numbered where several run it.
fn label(processes: impl Iterator<Item = (String, String)>) -> BTreeMap<String, String> {
    let commands: BTreeMap<String, String> = processes.collect();
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let number = |(command, name): (String, String)| {
        let number = seen.entry(name.clone()).or_default();
        *number += 1;
        let label = if *number == 1 { name } else { format!("{name} {number}") };
        (command, label)
    };
    commands.into_iter().map(number).collect()
}

/// The port in the first URL of a list: `nats://127.0.0.1:4222,…`, `http://127.0.0.1:9600/metrics`.
fn port(url: &str) -> anyhow::Result<u16> {
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>();
    let first = url.split(',').next().and_then(|url| url.splitn(3, ':').nth(2));
    first
        .and_then(|rest| digits(rest).parse().ok())
        .with_context(|| format!("`jackpot up` listens at {url}, which names no port"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_from_what_up_says() {
        assert_eq!(port("nats://127.0.0.1:4222").expect("a port"), 4_222);
        assert_eq!(port("nats://127.0.0.1:4222,nats://127.0.0.1:4223").expect("a port"), 4_222);
        assert_eq!(port("http://127.0.0.1:9600/metrics").expect("a port"), 9_600);
        assert!(port("nowhere").is_err());
    }

    #[test]
    fn processes_of_one_program_are_numbered_by_their_command_lines() {
        let named = |command: &str, name: &str| (command.to_owned(), name.to_owned());
        let labels = label(
            [named("audit -p 3", "audit"), named("nats b", "nats"), named("nats a", "nats")].into_iter(),
        );
        let expect = [("audit -p 3", "audit"), ("nats a", "nats"), ("nats b", "nats 2")];
        assert_eq!(labels, expect.into_iter().map(|(command, label)| named(command, label)).collect());
    }

    #[test]
    fn a_process_is_known_by_its_start_too() {
        let own = pid_of(std::process::id()).expect("an id");
        let since = started(own).expect("this process runs");
        assert!(is_there(own, since) && !is_there(own, since + 1));
        send(own, since + 1, Signal::KILL).expect("another process of that id is not met");
    }
}
