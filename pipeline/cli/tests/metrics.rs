//! The metrics of the five processes of a pipeline: those that the README lists and no others, and of the fixed ones
//! what they count, batch by batch and wager by wager (contract, section 6).
//! The stages' binaries must be built: `cargo build --workspace`.

#![expect(clippy::unwrap_used, reason = "a check that cannot go on has failed")]

#[path = "../../core/tests/support/exposition.rs"]
mod exposition;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use jackpot::up::probe;
use jackpot_core::refusal::{Reason, StageName};
use jackpot_core::time::Millis;
use serde_json::{Value, json};
use tokio::time::Instant;

const JACKPOT: &str = env!("CARGO_BIN_EXE_jackpot");
const SOURCE: &str = "acme-spin-eu1";
/// How long a count may take to follow what it counts.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running `jackpot up`, and the metrics ports of its stages.
struct Pipeline {
    up: Child,
    url: String,
    ports: BTreeMap<String, u16>,
    log: PathBuf,
}

impl Pipeline {
    fn start(dir: &Path) -> Self {
        let log = dir.join("log");
        let mut up = Command::new(JACKPOT);
        up.arg("up").args(["--nats-port", "0", "--metrics-port", "0", "--partitions", "2"]);
        up.args(["--sync", "relaxed"]).arg("--dir").arg(dir.join("data")).env_remove("NATS_URL");
        up.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&log).unwrap());
        let mut up = up.spawn().expect("`jackpot up` starts");
        let (mut url, mut ports) = (String::new(), BTreeMap::new());
        for line in BufReader::new(up.stdout.take().unwrap()).lines().map_while(Result::ok) {
            let words: Vec<_> = line.split_whitespace().collect();
            match words[..] {
                ["nats", address, ..] => address.clone_into(&mut url),
                [stage, address] if address.ends_with("/metrics") => {
                    let port = address.rsplit(':').next().unwrap().trim_end_matches("/metrics");
                    ports.insert(stage.to_owned(), port.parse().unwrap());
                }
                ["ready"] => break,
                _ => {}
            }
        }
        assert_eq!(ports.len(), 5, "`jackpot up` gets ready: {}", std::fs::read_to_string(&log).unwrap());
        Self { up, url, ports, log }
    }

    fn ok(&self, args: &[&str]) {
        let output = Command::new(JACKPOT).args(args).env("NATS_URL", &self.url).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// What the process of a stage serves.
    fn scrape(&self, stage: StageName) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answer = runtime.block_on(probe::get(self.ports[stage.as_str()], "/metrics")).unwrap();
        assert_eq!(answer.status, 200);
        answer.body
    }

    /// What the process of a stage counts: batches in, wagers in, wagers out, and the refusals that are not 0.
    fn counts(&self, stage: StageName) -> ([u64; 3], Vec<(Reason, u64)>) {
        let text = self.scrape(stage);
        let value = |name: &str, labels: &str| -> Option<u64> {
            let sample = format!("{name}{{{labels}stage=\"{stage}\"}} ");
            let line = text.lines().find_map(|line| line.strip_prefix(&sample))?;
            Some(line.parse().unwrap())
        };
        let fixed = ["jackpot_batches_in_total", "jackpot_wagers_in_total", "jackpot_wagers_out_total"]
            .map(|name| value(name, "").unwrap_or_else(|| panic!("{stage} serves {name} from the start")));
        let refused = Reason::ALL.iter().filter_map(|&reason| {
            let count = value("jackpot_refusals_total", &format!("reason=\"{reason}\","));
            assert_eq!(count.is_some(), reason.stage() == stage, "{stage} serves {reason}");
            count.filter(|&count| count > 0).map(|count| (reason, count))
        });
        (fixed, refused.collect())
    }

    /// What was done may be visible to others before its process has heard the acknowledgement and counted it.
    #[track_caller]
    fn check(&self, stage: StageName, fixed: [u64; 3], refused: &[(Reason, u64)]) {
        let (expect, deadline) = ((fixed, refused.to_vec()), Instant::now() + PATIENCE);
        while self.counts(stage) != expect && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(self.counts(stage), expect, "{stage}");
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        let pid = self.up.id().to_string();
        let stopped = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(stopped.is_ok() && self.up.wait().is_ok(), "`jackpot up` stops");
    }
}

/// A wager that joins a pool, with a change.
fn wager(interaction: u64, change: impl Fn(&mut Value)) -> Value {
    let now = Millis::now().plus(-1_000);
    let mut wager = json!({
        "session": "s-1", "interaction": interaction, "player": "p-1", "game": "quick-spin-7", "round": "r-1",
        "amount": "2.50", "currency": "EUR", "funds": "cash", "occurred_at": now,
        "location": {"jurisdiction": "MT", "checked_at": now},
    });
    change(&mut wager);
    wager
}

fn batch(schema: &str, sequence: u64, wagers: &[Value]) -> String {
    let batch = json!({"schema": schema, "operator": "acme", "source": SOURCE, "sequence": sequence, "wagers": wagers});
    batch.to_string()
}

#[test]
fn nats_every_process_serves_and_counts_what_is_documented() {
    let directory = tempfile::tempdir().unwrap();
    let pipeline = Pipeline::start(directory.path());
    for &stage in StageName::ALL {
        pipeline.check(stage, [0; 3], &[]);
    }
    let as_it_is = |_: &mut Value| {};
    let batches = [
        batch(
            "wager-batch/1",
            1,
            &[
                wager(1, |wager| wager["hits"] = json!([{"pool": "mega", "level": "no-such"}])),
                wager(2, |wager| wager["amount"] = json!(2.5)),
                wager(3, |wager| wager["location"] = Value::Null),
                wager(4, |wager| wager["game"] = json!("no-such")),
            ],
        ),
        batch("wager-batch/1", 1, &[wager(5, as_it_is), wager(6, as_it_is)]),
        batch("wager-batch/9", 2, &[wager(5, as_it_is)]),
        batch("wager-batch/1", 2_000, &[wager(7, as_it_is)]),
    ];
    let file = directory.path().join("batches");
    std::fs::write(&file, batches.join("\n")).unwrap();
    pipeline.ok(&["publish", file.to_str().unwrap()]);
    pipeline.ok(&["wait"]);

    let whole = [(Reason::UnsupportedSchema, 1), (Reason::DuplicateBatch, 1), (Reason::InvalidAmount, 1)];
    pipeline.check(StageName::Validate, [4, 5, 4], &whole);
    pipeline.check(StageName::Geofence, [0, 4, 3], &[(Reason::LocationMissing, 1)]);
    let own = [(Reason::UnknownGame, 1), (Reason::HitRefused, 1)];
    pipeline.check(StageName::Allocate, [0, 3, 2], &own);
    pipeline.check(StageName::Aggregate, [0, 2, 0], &[]);
    pipeline.check(StageName::Audit, [0, 2, 0], &[]);

    for &stage in StageName::ALL {
        let text = pipeline.scrape(stage);
        assert_eq!(exposition::served(&text), exposition::documented(stage.as_str()), "{stage}");
    }
    let text = pipeline.scrape(StageName::Validate);
    for (name, value) in [("gaps", 1), ("gap_batches", 974), ("conflicts", 1)] {
        let line = format!("jackpot_{name}_total{{stage=\"validate\"}} {value}\n");
        assert!(text.contains(&line), "{line}{text}");
    }
    let log = std::fs::read_to_string(&pipeline.log).unwrap();
    assert!(log.contains("batches of source acme-spin-eu1 never came") && log.contains("2 to 975"), "{log}");
    assert!(log.contains("batch acme-spin-eu1/1 came again with other content"), "{log}");
}
