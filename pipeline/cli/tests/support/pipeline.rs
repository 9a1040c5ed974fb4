//! A whole pipeline for a test: `jackpot up` on free ports over a directory, and the command against it.
//! Tests start it, publish, kill stages and ask for views; what is in the streams is read by `record`.
//! Never here: knowledge of what must come out.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio::time::Instant;

/// The command's binary; the stages' stand beside it.
const JACKPOT: &str = env!("CARGO_BIN_EXE_jackpot");
/// The stages, in the order of the flow.
pub const STAGES: [&str; 5] = ["validate", "geofence", "allocate", "aggregate", "audit"];
/// How long anything may take: builds and other tests share the machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running `jackpot up`.
pub struct Pipeline {
    up: Child,
    /// Where its servers listen, separated by commas.
    pub url: String,
    /// The lines that it printed before `ready`.
    pub said: Vec<String>,
    dir: PathBuf,
}

impl Pipeline {
    /// Starts one over the data in `dir`, with more flags and settings, and waits until wagers can be published.
    pub fn start(dir: &Path, flags: &[&str], settings: &[(&str, &str)]) -> Self {
        check_stages();
        let mut command = jackpot();
        command
            .arg("up")
            .arg("--dir")
            .arg(dir)
            .args(["--nats-port", "0", "--metrics-port", "0", "--page-port", "0"])
            .args(flags);
        command.envs(settings.iter().copied()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut up = command.stderr(log_file(dir)).spawn().expect("`jackpot up` starts");
        let lines = read_lines(up.stdout.take().unwrap());
        let mut pipeline = Self { up, url: String::new(), said: Vec::new(), dir: dir.to_owned() };
        let deadline = Instant::now() + PATIENCE;
        loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line == "ready" => return pipeline,
                Ok(line) => {
                    if let Some(url) = line.split_whitespace().find(|word| word.starts_with("nats://")) {
                        let comma = if pipeline.url.is_empty() { "" } else { "," };
                        pipeline.url = [&pipeline.url, url].join(comma);
                    }
                    pipeline.said.push(line);
                }
                Err(_) => panic!("`jackpot up` did not get ready:\n{}", pipeline.log()),
            }
        }
    }

    /// Runs a subcommand that must succeed; gives its standard output.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.command(args).output().expect("the command runs");
        self.text(args, &output)
    }

    /// Runs a subcommand, whatever comes of it.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the command runs")
    }

    /// Runs a subcommand with `--json` and reads its one array.
    pub fn json(&self, args: &[&str]) -> Vec<Value> {
        let text = self.ok(&[args, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("jackpot {args:?} --json: {error}: {text}"))
    }

    /// Publishes batches, one a line.
    pub fn publish(&self, lines: &[String]) {
        self.begin_to_publish(lines).finish();
    }

    /// Begins to publish batches, one a line, while the test does something else.
    pub fn begin_to_publish(&self, lines: &[String]) -> Publishing<'_> {
        let mut file = tempfile::NamedTempFile::new_in(&self.dir).unwrap();
        for line in lines {
            writeln!(file, "{line}").unwrap();
        }
        let mut command = self.command(&["publish", file.path().to_str().unwrap(), "--timeout", "120s"]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        Publishing { pipeline: self, child, file }
    }

    /// Waits until all that was published is in totals and audit.
    pub fn wait(&self) {
        self.ok(&["wait", "--timeout", "120s"]);
    }

    /// The process id of a stage, while it runs.
    pub fn pid(&self, stage: &str) -> Option<u32> {
        child(self.up.id(), stage)
    }

    /// The process id of one of several servers, by its number, while it runs.
    pub fn server(&self, number: u32) -> Option<u32> {
        let folder = format!("/server-{number}/");
        let runs_there = |pid: &u32| {
            std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains(&folder))
        };
        children(self.up.id()).into_iter().find(runs_there)
    }

    /// kill -9 of a stage; returns when another process has taken its place.
    pub fn kill(&self, stage: &str) {
        let killed = self.pid(stage);
        signal("KILL", killed.unwrap_or_else(|| panic!("{stage} runs")));
        until("`jackpot up` starts the killed stage again", || {
            self.pid(stage).is_some_and(|pid| Some(pid) != killed)
        });
    }

    /// Ctrl-C, and a clean end.
    pub fn stop(mut self) {
        signal("INT", self.up.id());
        let status = self.up.wait().unwrap();
        assert!(status.success(), "`jackpot up` ends with 0 on Ctrl-C, not {status}:\n{}", self.log());
    }

    /// The end of what `jackpot up` and its stages said.
    fn log(&self) -> String {
        let log = std::fs::read(log_path(&self.dir)).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(8_000)..]).into_owned()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = jackpot();
        command.args(args).env("NATS_URL", &self.url);
        command
    }

    fn text(&self, args: &[&str], output: &Output) -> String {
        let said = String::from_utf8_lossy(&output.stderr);
        let status = output.status;
        assert!(status.success(), "jackpot {args:?}: {status}: {said}\n--- jackpot up\n{}", self.log());
        String::from_utf8(output.stdout.clone()).unwrap()
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        if matches!(self.up.try_wait(), Ok(None)) {
            signal("TERM", self.up.id());
            self.up.wait().expect("`jackpot up` can be waited for");
        }
    }
}

/// A `jackpot publish` under way.
pub struct Publishing<'a> {
    pipeline: &'a Pipeline,
    child: Child,
    file: tempfile::NamedTempFile,
}

impl Publishing<'_> {
    /// Waits until all batches are acknowledged.
    pub fn finish(self) {
        let output = self.child.wait_with_output().unwrap();
        self.pipeline.text(&["publish"], &output);
        self.file.close().unwrap();
    }
}

/// Waits for a condition; asks again and again, since what it waits for is in other processes.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "after {} s still not so: {what}", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a signal to a process that the test started.
pub fn signal(name: &str, pid: u32) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status().unwrap();
    assert!(status.success(), "kill -{name} {pid}");
}

/// The command, without what the tester's shell says of another pipeline.
fn jackpot() -> Command {
    let mut command = Command::new(JACKPOT);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("NATS_") || name.starts_with("JACKPOT_")) {
            command.env_remove(name);
        }
    }
    command
}

/// The stages are built by `cargo build`, not with this test: one that is missing, or older than what it is built
/// from by cargo's own list, would make the test say something of another program.
pub fn check_stages() {
    let folder = Path::new(JACKPOT).parent().unwrap();
    let changed = |path: &Path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    for stage in STAGES {
        let program = folder.join(stage);
        let built = changed(&program).unwrap_or_else(|| {
            panic!("{} is missing; run `cargo build --workspace` first", program.display())
        });
        let list = program.with_extension("d");
        let newer = |source: &PathBuf| changed(source).is_none_or(|time: SystemTime| time > built);
        let stale = sources(&list).into_iter().find(newer);
        assert!(
            stale.is_none(),
            "{} is older than {}; run `cargo build --workspace` first",
            program.display(),
            stale.unwrap_or_default().display()
        );
    }
}

/// What a program was built from, as cargo's list beside it says; the list itself where it cannot be read.
fn sources(list: &Path) -> Vec<PathBuf> {
    let Ok(text) = std::fs::read_to_string(list) else { return vec![list.to_owned()] };
    // A space in a path has a backslash before it.
    let words = text.replace("\\ ", "\0");
    words.split_whitespace().skip(1).map(|word| word.replace('\0', " ").into()).collect()
}

/// The lines of a pipe, read to its end whether anybody listens or not, so that the writer never blocks.
fn read_lines(pipe: ChildStdout) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            drop(sender.send(line));
        }
    });
    lines
}

/// The process of this name that another one has started, if there is one.
pub fn child(parent: u32, called: &str) -> Option<u32> {
    children(parent).into_iter().find(|&pid| name(pid).is_some_and(|name| name == called))
}

/// The processes that a process has started.
fn children(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|pid| status(*pid, "PPid").is_some_and(|of| of == parent.to_string())).collect()
}

fn name(pid: u32) -> Option<String> {
    status(pid, "Name")
}

/// What the system says of a process, if it is there.
fn status(pid: u32, field: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(value.trim().to_owned())
}

fn log_path(dir: &Path) -> PathBuf {
    dir.join("up.log")
}

fn log_file(dir: &Path) -> Stdio {
    std::fs::File::options().create(true).append(true).open(log_path(dir)).unwrap().into()
}
