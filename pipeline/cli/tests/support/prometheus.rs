//! A real Prometheus for a test, on a free port over a folder of its own, and promtool, which asks it and judges files.
//! Never here: what must come out.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::pipeline::until;

/// How often Prometheus scrapes, and evaluates its rules.
const SCRAPED_EVERY: Duration = Duration::from_millis(500);
/// How long anybody may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Whom to thank where a program is missing.
const MISSING: &str = "it is Debian's package `prometheus`, which .ci/run installs";

/// Runs promtool in a folder; it must find nothing wrong.
pub fn promtool(folder: &Path, args: &[&str]) -> String {
    let output = Command::new("promtool").current_dir(folder).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("promtool: {error}; {MISSING}"));
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "promtool {args:?}:\n{}{}", said[0], said[1]);
    said[0].clone()
}

/// What a process on this machine answers, where that is a success. In HTTP 1.0, an answer ends with the connection.
fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(ANSWER_MAX)).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.split(' ').nth(1).filter(|&status| status == "200").map(|_| body.to_owned())
}

/// Waits for what only another scrape can change.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    until(what, || {
        let so = condition();
        if !so {
            std::thread::sleep(SCRAPED_EVERY / 2);
        }
        so
    });
}

/// Judges what a stage serves by Prometheus' conventions for names, types and help.
pub fn check_metrics(stage: &str, port: u16) {
    let answer = get(port, "/metrics").unwrap_or_else(|| panic!("{stage} serves metrics"));
    let mut judge = Command::new("promtool");
    judge.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut judge = judge.spawn().unwrap_or_else(|error| panic!("promtool: {error}; {MISSING}"));
    judge.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
    let output = judge.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "promtool on the metrics of {stage}: {said}");
}

/// A running Prometheus.
pub struct Prometheus {
    child: Child,
    port: u16,
    folder: PathBuf,
}

impl Prometheus {
    /// Starts one that scrapes these ports twice a second, and evaluates these rules as often.
    pub fn start(folder: &Path, rules: &str, targets: &[u16]) -> Self {
        let folder = folder.join("prometheus");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("rules.yaml"), rules).unwrap();
        let targets: Vec<_> = targets.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let settings = format!(
            "global: {{scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}}\n\
             rule_files: [rules.yaml]\n\
             scrape_configs: [{{job_name: jackpot, static_configs: [{{targets: {targets:?}}}]}}]\n"
        );
        std::fs::write(folder.join("prometheus.yml"), settings).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let mut command = Command::new("prometheus");
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        command.args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"]).current_dir(&folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("prometheus: {error}; {MISSING}"));
        let mut prometheus = Self { child, port, folder };
        until("Prometheus is ready", || {
            let ended = prometheus.child.try_wait().unwrap();
            assert!(ended.is_none(), "Prometheus ended: {ended:?}\n{}", prometheus.log());
            get(port, "/-/ready").is_some()
        });
        prometheus
    }

    /// What an expression gives now: each series by its labels, and its value.
    pub fn query(&self, expr: &str) -> Vec<(BTreeMap<String, String>, f64)> {
        let encoded: String = expr.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let text = get(self.port, &format!("/api/v1/query?query={encoded}"));
        let text = text.unwrap_or_else(|| panic!("Prometheus does not answer {expr}:\n{}", self.log()));
        let answer: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{expr}: {error}: {text}"));
        let sample = |sample: &Value| {
            let labels = serde_json::from_value(sample["metric"].clone()).unwrap();
            (labels, sample["value"][1].as_str().unwrap().parse().unwrap())
        };
        answer["data"]["result"].as_array().into_iter().flatten().map(sample).collect()
    }

    /// The values alone.
    pub fn numbers(&self, expr: &str) -> Vec<f64> {
        self.query(expr).into_iter().map(|(_, value)| value).collect()
    }

    /// The alerts that fire now, each with the stage that it blames, if it does.
    pub fn firing(&self) -> Vec<(String, Option<String>)> {
        let firing = self.query("ALERTS{alertstate=\"firing\"}");
        firing
            .into_iter()
            .map(|(labels, _)| (labels["alertname"].clone(), labels.get("stage").cloned()))
            .collect()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.child.kill().expect("Prometheus can be ended");
        self.child.wait().expect("Prometheus can be waited for");
    }
}
