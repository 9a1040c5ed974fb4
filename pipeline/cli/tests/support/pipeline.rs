//! A whole pipeline for a test: `jackpot up` on free ports in a temporary directory, and the command against it.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

/// The command's binary; the stages' stand beside it.
pub const JACKPOT: &str = env!("CARGO_BIN_EXE_jackpot");

/// A running `jackpot up`.
pub struct Pipeline {
    up: Child,
    pub url: String,
    pub nats_port: u16,
    pub metrics_port: u16,
    pub dir: PathBuf,
}

impl Pipeline {
    /// Starts one over the data in `dir` and waits until wagers can be published.
    pub fn start(dir: &Path, more: &[&str]) -> Self {
        let first = free_ports(6);
        Self::start_on(dir, first, more)
    }

    /// The same on given ports, of which there are six.
    pub fn start_on(dir: &Path, first: u16, more: &[&str]) -> Self {
        let (nats_port, metrics_port) = (first, first + 1);
        let mut up = Command::new(JACKPOT)
            .arg("up")
            .arg("--dir")
            .arg(dir)
            .args(["--nats-port", &nats_port.to_string(), "--metrics-port", &metrics_port.to_string()])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log_file(dir))
            .spawn()
            .expect("`jackpot up` starts");
        let stdout = BufReader::new(up.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    // The test no longer listens; the pipe is still drained so that `up` does not block.
                    continue;
                }
            }
        });
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line == "ready" => break,
                Ok(_) => {}
                Err(_) => {
                    let log = std::fs::read_to_string(log_path(dir)).unwrap_or_default();
                    panic!("`jackpot up` did not get ready (status {:?}):\n{log}", up.try_wait());
                }
            }
        }
        let url = format!("nats://127.0.0.1:{nats_port}");
        Self { up, url, nats_port, metrics_port, dir: dir.to_owned() }
    }

    /// Runs a subcommand against it.
    pub fn run(&self, args: &[&str]) -> Output {
        Command::new(JACKPOT).args(args).env("NATS_URL", &self.url).output().expect("the command runs")
    }

    /// Runs a subcommand that must succeed; gives its standard output.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(
            output.status.success(),
            "jackpot {args:?} gave {:?}: {}\n--- log of up\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr),
            tail(&std::fs::read_to_string(log_path(&self.dir)).unwrap_or_default())
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a subcommand with `--json` and parses its one array.
    pub fn json(&self, args: &[&str]) -> Vec<Value> {
        let text = self.ok(&[args, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("jackpot {args:?} --json: {error}: {text}"))
    }

    /// Publishes batches, one per line.
    pub fn publish(&self, lines: &str) {
        let file = self.dir.join(format!("publish-{:x}.ndjson", lines.as_ptr() as usize));
        std::fs::write(&file, lines).unwrap();
        self.ok(&["publish", file.to_str().unwrap(), "--timeout", "120s"]);
        std::fs::remove_file(file).unwrap();
    }

    /// Waits until all that was published is in totals and audit.
    pub fn wait(&self) {
        self.ok(&["wait", "--timeout", "120s"]);
    }

    /// The process id of a stage.
    pub fn pid(&self, stage: &str) -> u32 {
        children(self.up.id())
            .into_iter()
            .find(|&pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == stage))
            .unwrap_or_else(|| panic!("no process of the stage {stage} is running"))
    }

    /// kill -9 of a stage; returns when it is gone.
    pub fn kill(&self, stage: &str) {
        let pid = self.pid(stage);
        signal("KILL", pid);
        until("the killed stage is gone", || !children(self.up.id()).contains(&pid));
    }

    /// Ctrl-C, and a clean end.
    pub fn stop(mut self) {
        signal("INT", self.up.id());
        let status = self.up.wait().unwrap();
        assert!(status.success(), "`jackpot up` ends with 0 on Ctrl-C, not {status:?}");
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        if matches!(self.up.try_wait(), Ok(None)) {
            signal("TERM", self.up.id());
            if self.up.wait().is_err() {
                eprintln!("`jackpot up` could not be waited for");
            }
        }
    }
}

/// Waits for a condition, without sleeping longer than it takes.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "after a minute still not: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a signal to a process that the test started.
pub fn signal(name: &str, pid: u32) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status().unwrap();
    assert!(status.success() || name == "KILL", "kill -{name} {pid}");
}

/// The processes that any thread of a process has started.
fn children(parent: u32) -> Vec<u32> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{parent}/task")) else { return Vec::new() };
    let lists = tasks.flatten().map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
    lists.flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<u32>>()).collect()
}

/// The first of so many consecutive ports that are free just now.
pub fn free_ports(count: u16) -> u16 {
    let spread = u16::try_from(std::process::id() % 20_000).unwrap();
    let mut first = 20_000 + spread;
    loop {
        let bound: Vec<_> = (0..count).map_while(|i| TcpListener::bind(("127.0.0.1", first + i)).ok()).collect();
        if bound.len() == usize::from(count) {
            return first;
        }
        first = if first > 50_000 { 20_000 } else { first + count };
    }
}

fn log_path(dir: &Path) -> PathBuf {
    dir.join("up.log")
}

fn log_file(dir: &Path) -> Stdio {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(log_path(dir)).unwrap();
    writeln!(file, "--- jackpot up").unwrap();
    file.into()
}

fn tail(text: &str) -> &str {
    let start = text.len().saturating_sub(8_000);
    text.get(start..).unwrap_or(text)
}
