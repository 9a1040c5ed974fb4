//! A rolling upgrade on a real server, under load. Processes of this build, the old one, and of one that knows rules
//! version 2 as well share the partitions of each stage, and not a byte is another than the old build makes; the new
//! build takes over alone; terms name rules 2, which is refused as long as a process does not know them; frames are of
//! version 2 from the marker on, and an old process that is still there, or comes back, says so and leaves them alone.
//! The old build's binaries must be built, `cargo build --workspace`; the new one's this test builds itself.

#![expect(clippy::unwrap_used, reason = "a check that cannot go on has failed")]

#[path = "support/stages.rs"]
#[allow(dead_code, reason = "each test uses its part")]
mod stages;
#[allow(dead_code, reason = "each test crate uses a part of what they share")]
#[path = "support/shared.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};
use sim::auditor::record::Header;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use stages::{Process, World};
use support::input;
use support::pipeline::{STAGES, until};
use support::record::{self, Record};

const JACKPOT: &str = env!("CARGO_BIN_EXE_jackpot");
const PARTITIONS: u16 = 4;
/// The stages that share partitions.
const DIVIDED: [&str; 4] = ["validate", "geofence", "allocate", "audit"];
/// So many frames each process appends before the next step.
const FRAMES: u64 = 20;
/// What who does not know rules 2 says of them.
const UNKNOWN: &str = "under rules 2, and this build knows them up to 1; deploy a newer build";

/// The binaries of one build.
struct Build(PathBuf);

impl Build {
    fn old() -> Self {
        support::pipeline::check_stages();
        Self(Path::new(JACKPOT).parent().unwrap().to_owned())
    }

    /// Builds the one that knows rules 2, beside this one: what both have in common is not built twice, and neither
    /// makes the other stale. Where nothing changed this is done at once.
    fn new() -> Self {
        let old = Path::new(JACKPOT).parent().unwrap();
        let (target, profile) = (old.parent().unwrap(), old.file_name().unwrap());
        let folder = target.join("next-rules");
        let named = if profile == "debug" { "dev".as_ref() } else { profile };
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--locked", "--workspace", "--bins", "--features", "jackpot-core/next-rules"]);
        cargo.arg("--profile").arg(named).current_dir(env!("CARGO_MANIFEST_DIR"));
        cargo.env("CARGO_BUILD_BUILD_DIR", target).env("CARGO_TARGET_DIR", &folder);
        // What is said of this package is not to be said of others, some of which would be built anew for it.
        let own = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        for (name, _) in std::env::vars().filter(|(name, _)| own(name)) {
            cargo.env_remove(name);
        }
        assert!(cargo.status().unwrap().success(), "the build with the next rules fails");
        Self(folder.join(profile))
    }
}

/// A server, and what runs on it.
struct Site {
    world: World,
    url: String,
    handle: Handle,
    /// Ends the thread that drives what waits.
    _end: oneshot::Sender<()>,
}

impl Site {
    fn start(terms: &Value) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        std::thread::spawn(move || runtime.block_on(ended));
        let world = handle.block_on(World::start(PARTITIONS, terms));
        Self { url: world.url(), world, handle, _end: end }
    }

    fn stage(&self, build: &Build, stage: &'static str, args: &[&str]) -> Process {
        self.handle.block_on(self.world.stage_of(&build.0, stage, args))
    }

    fn stages(&self, build: &Build, stages: &[&'static str]) -> BTreeMap<&'static str, Process> {
        stages.iter().map(|stage| (*stage, self.stage(build, stage, &[]))).collect()
    }

    fn end(&self, process: Process) {
        self.handle.block_on(process.end());
    }

    /// How many frames a process has appended, or for aggregate commits.
    fn appended(&self, process: &Process) -> u64 {
        let parts = (0..PARTITIONS).map(|partition| partition.to_string()).chain(["commits".into()]);
        parts.map(|part| self.handle.block_on(process.metric("jackpot_frames_total", &part))).sum()
    }

    /// Waits until each of these appends frames from now on.
    fn wait_at_work<'a>(&self, who: &str, processes: impl IntoIterator<Item = &'a Process>) {
        for process in processes {
            let before = self.appended(process);
            until(&format!("the {who} {} appends frames", process.stage), || {
                self.appended(process) >= before + FRAMES
            });
        }
    }

    /// How many partitions a process runs.
    fn owned(&self, process: &Process) -> u64 {
        let (_, body) = self.handle.block_on(process.get("/metrics"));
        let line = body.lines().find(|line| line.starts_with("jackpot_owned_partitions{")).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    fn run(&self, build: &Build, args: &[&str]) -> Output {
        Command::new(build.0.join("jackpot")).args(args).env("NATS_URL", &self.url).output().unwrap()
    }

    fn ok(&self, build: &Build, args: &[&str]) -> String {
        let output = self.run(build, args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "jackpot {args:?}: {}: {said}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, build: &Build, args: &[&str]) -> Vec<Value> {
        serde_json::from_str(&self.ok(build, &[args, &["--json"]].concat())).unwrap()
    }

    /// Runs what must fail; gives what it says.
    fn refused(&self, build: &Build, args: &[&str]) -> String {
        let output = self.run(build, args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "jackpot {args:?}: {said}");
        said
    }
}

/// Traffic until this is dropped.
struct Load(Child);

impl Load {
    fn start(site: &Site) -> Self {
        let mut command = Command::new(JACKPOT);
        command.args(["load", "--rate", "400", "--seconds", "600", "--seed", "5"]).env("NATS_URL", &site.url);
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(quiet.spawn().unwrap())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn nats_a_newer_build_takes_over_and_changes_no_byte_until_terms_say_so() {
    let (old, new) = (Build::old(), Build::new());
    let first = input::example_terms();
    let site = Site::start(&first);
    let record = Record::open(&site.url);
    let elders = site.stages(&old, &STAGES);
    let load = Load::start(&site);
    site.wait_at_work("old", elders.values());

    // Side by side, then the new build alone.
    let mut newer = site.stages(&new, &STAGES);
    for stage in DIVIDED {
        site.wait_at_work("old", [&elders[stage]]);
        site.wait_at_work("new", [&newer[stage]]);
    }
    elders.into_values().for_each(|process| site.end(process));
    site.wait_at_work("new", newer.values());
    assert_eq!(rules_of_frames(&record), BTreeSet::from([(1, 1)]));
    site.ok(&old, &["verify", "--deep"]);

    // Terms by other rules, while an old process is there that is no member.
    let straggler = site.stage(&old, "validate", &["--only", "0", "--stand-by", "0s"]);
    site.wait_at_work("straggling", [&straggler]);
    let mut second = first.clone();
    (second["revision"], second["rules"]) = (json!(first["revision"].as_u64().unwrap() + 1), json!(2));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), second.to_string()).unwrap();
    let document = file.path().to_str().unwrap();
    let said = String::from_utf8(site.run(&old, &["terms", "check", document]).stdout).unwrap();
    assert!(
        said.contains("rules: is 2, and this build knows rules 1; newer ones need a newer build"),
        "{said}"
    );
    assert!(site.ok(&new, &["terms", "plan", document]).contains("frames behind the revision's marker"));
    let said = site.refused(&new, &["terms", "apply", document]);
    assert!(said.contains("which 1 process does not know, first validate "), "{said}");
    assert_eq!(rules_of_frames(&record), BTreeSet::from([(1, 1)]));

    // It is asleep when they are applied, and wakes up.
    straggler.hold();
    site.ok(&new, &["terms", "apply", document]);
    straggler.go_on();
    let said = site.handle.block_on(straggler.stopped("partition 0"));
    assert!(said.contains(UNKNOWN), "{said}");

    // Members of an old build come back, and leave what they cannot read to the new one.
    let elders = site.stages(&old, &DIVIDED);
    for elder in elders.values() {
        until(&format!("the old {} says why it cannot go on", elder.stage), || {
            elder.said().contains(UNKNOWN)
        });
        until(&format!("the old {} runs nothing", elder.stage), || site.owned(elder) == 0);
        assert_eq!(site.appended(elder), 0, "{}", elder.said());
    }
    // The new build comes back from frames of both versions.
    for stage in DIVIDED {
        let again = site.stage(&new, stage, &[]);
        site.end(newer.insert(stage, again).unwrap());
    }
    site.wait_at_work("new", newer.values());
    drop(load);

    site.ok(&new, &["wait", "--timeout", "120s"]);
    assert_eq!(rules_of_frames(&record), BTreeSet::from([(1, 1), (2, 2)]));
    assert_exact(&site, &new, &record, [first, second]);
    site.ok(&new, &["verify", "--deep"]);
    let said = site.refused(&old, &["verify"]);
    assert!(said.contains("this build knows them up to 1"), "{said}");
    let elders = elders.into_values().chain(newer.into_values()).chain([straggler]);
    elders.for_each(|process| site.end(process));
}

/// Under which revision of the terms, and which rules, there are frames on every partition and lane.
fn rules_of_frames(record: &Record) -> BTreeSet<(u64, u64)> {
    let mut all = BTreeSet::new();
    for partition in 0..PARTITIONS {
        let mut of_partition = BTreeSet::new();
        for lane in ["validated", "geofenced", "allocations", "contributions", "audit"] {
            let frames = record.all(&format!("{lane}-{partition}"));
            let headers = frames.iter().map(|entry| Header::read(&entry.payload));
            let versions: Vec<_> = headers.map(|header| (header.terms, header.rules)).collect();
            assert!(versions.is_sorted(), "{lane}-{partition} goes from one version to the next");
            of_partition.extend(versions);
        }
        assert!(all.is_empty() || all == of_partition, "partition {partition} has frames of all versions");
        all = of_partition;
    }
    all
}

/// What came out is what the model says.
fn assert_exact(site: &Site, new: &Build, record: &Record, terms: [Value; 2]) {
    let revisions = terms.map(|terms| (terms["revision"].as_u64().unwrap(), terms));
    let outcome = record.model_of(&revisions.into(), |_, _| {});
    assert!(outcome.allocated > 1_000, "there was load: {}", outcome.allocated);
    record::assert_exact(record, &outcome, |args| site.json(new, args));
}
