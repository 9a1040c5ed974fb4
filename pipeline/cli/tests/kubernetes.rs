//! The manifests of `k8s/`: what schemas do not know of them, and the rendered Jobs at work, their processes started,
//! resized, suspended, killed, drained and upgraded under load as the Job controller would, with every total exact.
//! `.ci/run` installs kubectl, which renders them. The stages' binaries must be built: `cargo build --workspace`.

#![expect(clippy::unwrap_used, reason = "a check that cannot go on has failed")]

#[path = "kubernetes/jobs.rs"]
mod jobs;
#[path = "kubernetes/lint.rs"]
mod lint;
#[path = "kubernetes/manifests.rs"]
mod manifests;
#[path = "kubernetes/nats.rs"]
mod nats;
#[path = "kubernetes/policy.rs"]
mod policy;
#[path = "kubernetes/probes.rs"]
mod probes;
#[allow(dead_code, reason = "each test crate uses a part of what they share")]
#[path = "support/shared.rs"]
mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use jobs::Cluster;
use lint::Known;
use manifests::{at, containers, id, is_workload, items, render, root, text};
use nats::Nats;
use support::input;
use support::pipeline::{STAGES, check_stages, until};
use support::record::{self, Record};

/// What is rendered and checked, in `k8s/`.
const FOLDERS: [&str; 6] = [
    "base",
    "overlays/laptop",
    "overlays/production",
    "tests/components",
    "tests/restart-in-place",
    "tests/statefulsets",
];
/// The label that tells releases apart.
const VERSION: &str = "app.kubernetes.io/version";

/// Where the programs are.
fn programs() -> PathBuf {
    check_stages();
    Path::new(env!("CARGO_BIN_EXE_jackpot")).parent().unwrap().to_owned()
}

fn readme() -> String {
    std::fs::read_to_string(root().join("k8s/README.md")).unwrap()
}

fn rendered(folder: &str) -> Vec<Value> {
    render(&root().join("k8s").join(folder))
}

/// What a kustomization of a test's own renders to, over a folder of `k8s/`.
fn over(folder: &str, more: &str) -> Vec<Value> {
    let own = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let up = "../".repeat(own.path().canonicalize().unwrap().components().count() - 1);
    let k8s = format!("{up}{}", root().join("k8s").strip_prefix("/").unwrap().display());
    let more = more.replace("K8S", &k8s);
    let text = format!(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [{k8s}/{folder}]\n{more}\n"
    );
    std::fs::write(own.path().join("kustomization.yaml"), text).unwrap();
    render(own.path())
}

fn find<'a>(objects: &'a mut [Value], name: &str) -> &'a mut Value {
    objects.iter_mut().find(|object| id(object) == name).unwrap_or_else(|| panic!("there is a {name}"))
}

#[test]
fn the_lint_finds_nothing() {
    let known = Known::ask(&programs(), &readme());
    for folder in FOLDERS {
        let faults = lint::faults(&rendered(folder), &known);
        assert!(faults.is_empty(), "k8s/{folder}:\n{}", faults.join("\n"));
    }
}

/// Changes a deployment for the worse.
type Worse = fn(&mut [Value]);

/// What is wrong then, in part.
const MISTAKES: &[(&str, Worse)] = &[
    ("Job/allocate: 2 completions with 3 at once", |all| {
        find(all, "Job/allocate")["spec"]["parallelism"] = json!(3)
    }),
    ("Job/allocate: 0 completions with 0 at once", |all| {
        find(all, "Job/allocate")["spec"]["parallelism"] = json!(0);
        find(all, "Job/allocate")["spec"]["completions"] = json!(0);
    }),
    ("Job/audit: exit 143, drained false, leads to Count", |all| {
        rule(all, 2)["onExitCodes"]["values"] = json!([2, 78, 143])
    }),
    ("Job/audit: exit 78, drained true, leads to Ignore", |all| {
        let rules = find(all, "Job/audit")["spec"]["podFailurePolicy"]["rules"].as_array_mut().unwrap();
        rules.swap(0, 1);
    }),
    ("Job/audit: exit 1, drained false, leads to FailJob", |all| {
        rule(all, 0)["onExitCodes"]["values"] = json!([1, 2, 78])
    }),
    ("Job/audit: exit 137, drained false, leads to Count", |all| {
        rule(all, 2)["onExitCodes"]["containerName"] = json!("other")
    }),
    ("Job/audit: there are no actions", |all| rule(all, 2)["action"] = json!("Explode")),
    ("Job/validate: spec/template/spec/restartPolicy is \"Always\"", |all| {
        pod(all)["restartPolicy"] = json!("Always")
    }),
    ("Job/validate: spec/podReplacementPolicy", |all| {
        find(all, "Job/validate")["spec"]["podReplacementPolicy"] = json!("TerminatingOrFailed");
    }),
    ("Job/validate: spec/ttlSecondsAfterFinished", |all| {
        find(all, "Job/validate")["spec"]["ttlSecondsAfterFinished"] = json!(60);
    }),
    ("Job/validate: spec/activeDeadlineSeconds", |all| {
        find(all, "Job/validate")["spec"]["activeDeadlineSeconds"] = json!(3600);
    }),
    ("Job/validate: 5 s are too short", |all| pod(all)["terminationGracePeriodSeconds"] = json!(5)),
    ("Job/validate: main ends when it is idle", |all| variable(all, "JACKPOT_UNTIL_IDLE", "30s")),
    ("Job/validate: main ends when it is idle", |all| {
        main(all)["command"] = json!(["validate", "--until-idle", "30s"])
    }),
    ("Job/validate: validate does not know JACKPOT_WINDOWS", |all| variable(all, "JACKPOT_WINDOWS", "1")),
    ("Job/validate: validate does not know --lates", |all| {
        main(all)["command"] = json!(["validate", "--lates", "2s"])
    }),
    ("Job/validate: runs [\"geofence\"]", |all| main(all)["command"] = json!(["geofence"])),
    ("Job/validate: main runs [\"valid\"]", |all| main(all)["command"] = json!(["valid"])),
    ("Job/validate: main is told of /etc/other", |all| variable(all, "JACKPOT_KEYS", "/etc/other")),
    ("Job/validate: main is told of /etc/jackpot-keys/key,", |all| {
        variable(all, "JACKPOT_KEYS", "/etc/jackpot-keys/key")
    }),
    ("Job/validate: its port metrics is", |all| main(all)["ports"][0]["containerPort"] = json!(9465)),
    ("Job/validate: main: its livenessProbe asks at \"http\"", |all| {
        main(all)["livenessProbe"]["httpGet"]["port"] = json!("http");
    }),
    ("Job/validate: its livenessProbe asks for \"/readyz\"", |all| {
        main(all)["livenessProbe"]["httpGet"]["path"] = json!("/readyz");
    }),
    ("NetworkPolicy/validate: lets through to port", |all| main(all)["ports"][0]["name"] = json!("other")),
    ("PodMonitor/jackpot: scrapes port", |all| main(all)["ports"][0]["name"] = json!("other")),
    ("PodMonitor/jackpot: has the fields [\"podMetricsEndpoint\"]", |all| {
        let spec = find(all, "PodMonitor/jackpot")["spec"].as_object_mut().unwrap();
        let endpoints = spec.remove("podMetricsEndpoints").unwrap();
        spec.insert("podMetricsEndpoint".into(), endpoints);
    }),
    ("PodMonitor/jackpot: scrapes no /metrics", |all| {
        find(all, "PodMonitor/jackpot")["spec"]["podMetricsEndpoints"] = json!([]);
    }),
    ("Job/validate: is not scraped", |all| {
        find(all, "PodMonitor/jackpot")["spec"]["selector"] =
            json!({ "matchLabels": { "jackpot/stage": "audit" } });
    }),
    ("has another image of ours: jackpot:0.2.0", |all| main(all)["image"] = json!("jackpot:0.2.0")),
    ("has no tag that stays", |all| main(all)["image"] = json!("jackpot:latest")),
    ("has no tag that stays", |all| main(all)["image"] = json!("registry.example:5000/jackpot")),
    ("Job/validate: main: what memory it asks for", |all| {
        main(all)["resources"]["limits"]["memory"] = json!("512Mi");
    }),
    ("Job/validate: securityContext/runAsNonRoot", |all| {
        pod(all)["securityContext"]["runAsNonRoot"] = json!(false)
    }),
    ("Job/validate: main: readOnlyRootFilesystem", |all| {
        main(all)["securityContext"]["readOnlyRootFilesystem"] = json!(false);
    }),
    ("Job/validate: is spread by other pods", |all| {
        pod(all)["topologySpreadConstraints"][0]["labelSelector"] =
            json!({ "matchLabels": { "app": "jackpot" } });
    }),
    ("Job/validate: has no account", |all| pod(all)["serviceAccountName"] = json!("default")),
    ("Job/validate: shares the account \"audit\"", |all| pod(all)["serviceAccountName"] = json!("audit")),
    ("Job/validate: refers to the Secret other", |all| {
        pod(all)["volumes"][0]["secret"]["secretName"] = json!("other");
    }),
    ("Job/validate: mounts \"other\"", |all| main(all)["volumeMounts"][0]["name"] = json!("other")),
    ("Job/validate: ConfigMap jackpot has no NATS_URL", |all| {
        find(all, "ConfigMap/jackpot")["data"] = json!({})
    }),
    ("ConfigMap/jackpot: can be changed", |all| find(all, "ConfigMap/jackpot")["immutable"] = json!(false)),
    ("PodDisruptionBudget/validate: is over 0 workloads", |all| {
        find(all, "PodDisruptionBudget/validate")["spec"]["selector"] =
            json!({ "matchLabels": { "app": "other" } });
    }),
    ("Job/audit: 2 budgets are over its 2 pods", |all| {
        find(all, "PodDisruptionBudget/validate")["spec"]["selector"] =
            json!({ "matchLabels": { "jackpot/stage": "audit" } });
    }),
    ("PodDisruptionBudget/validate: over a Job's pods only", |all| {
        find(all, "PodDisruptionBudget/validate")["spec"]["minAvailable"] = json!("50%");
    }),
    ("PodDisruptionBudget/validate: asks for Some(2) of 2", |all| {
        find(all, "PodDisruptionBudget/validate")["spec"]["minAvailable"] = json!(2);
    }),
    ("no NetworkPolicy shuts", |all| {
        find(all, "NetworkPolicy/nothing-else")["spec"]["podSelector"] =
            json!({ "matchLabels": { "app": "other" } });
    }),
    ("Job/validate: is let through to no broker", |all| {
        find(all, "NetworkPolicy/validate")["spec"]["egress"] = json!([]);
    }),
    ("Job/validate: is in another namespace", |all| {
        find(all, "Job/validate")["metadata"]["namespace"] = json!("other")
    }),
    ("Job/allocate: is there twice", |all| {
        find(all, "Job/validate")["metadata"]["name"] = json!("allocate");
    }),
];

fn pod(all: &mut [Value]) -> &mut Value {
    &mut find(all, "Job/validate")["spec"]["template"]["spec"]
}

fn main(all: &mut [Value]) -> &mut Value {
    &mut pod(all)["containers"][0]
}

fn variable(all: &mut [Value], name: &str, value: &str) {
    main(all)["env"].as_array_mut().unwrap().push(json!({ "name": name, "value": value }));
}

fn rule(all: &mut [Value], number: usize) -> &mut Value {
    &mut find(all, "Job/audit")["spec"]["podFailurePolicy"]["rules"][number]
}

#[test]
fn the_lint_finds_every_mistake() {
    let known = Known::ask(&programs(), &readme());
    let good = rendered("tests/components");
    for (expect, worsen) in MISTAKES {
        let mut worse = good.clone();
        worsen(&mut worse);
        let faults = lint::faults(&worse, &known);
        assert!(faults.iter().any(|fault| fault.contains(expect)), "{expect} is not among {faults:#?}");
    }
    let mut worse = rendered("tests/statefulsets");
    find(&mut worse, "StatefulSet/validate")["spec"]["selector"] =
        json!({ "matchLabels": { "jackpot/stage": "audit" } });
    let faults = lint::faults(&worse, &known);
    assert!(
        faults.iter().any(|fault| fault.starts_with("StatefulSet/validate: selects the pods of")),
        "{faults:?}"
    );
}

#[test]
fn the_laptop_begins_with_the_example_terms() {
    let rendered = rendered("overlays/laptop");
    let terms = rendered.iter().find(|object| id(object) == "ConfigMap/jackpot-terms").unwrap();
    let terms: Value = serde_json::from_str(text(terms, "data/terms.json")).unwrap();
    assert_eq!(terms, input::example_terms());
}

/// NATS as production has it fits what the bootstrap Job asks of it.
#[test]
fn the_values_for_nats_fit_the_bootstrap() {
    let file = std::fs::read_to_string(root().join("k8s/nats/values.yaml")).unwrap();
    let values = &manifests::parse(&file)[0];
    let all = rendered("overlays/production");
    let bootstrap = all.iter().find(|object| id(object).starts_with("Job/bootstrap")).unwrap();
    let command: Vec<_> = items(bootstrap, "spec/template/spec/initContainers/0/command").collect();
    let told = |flag: &str| {
        let place =
            command.iter().position(|word| *word == flag).unwrap_or_else(|| panic!("it is told {flag}"));
        command[place + 1].as_str().unwrap()
    };
    assert_eq!(at(values, "config/cluster/replicas").to_string(), told("--replicas"));
    assert_eq!(at(values, "config/cluster/enabled"), true);
    let gib = |size: &str| {
        size.trim_end_matches("iB").trim_end_matches('i').trim_end_matches('G').parse::<u64>().unwrap()
    };
    let store = at(values, "config/jetstream/fileStore");
    let (disk, room) = (gib(text(store, "pvc/size")), gib(text(store, "maxSize")));
    assert!(gib(told("--budget")) < room && room < disk, "{} < {room} < {disk}", told("--budget"));
    assert_eq!(text(values, "config/jetstream/merge/sync_interval"), "always");
    assert_eq!(at(values, "config/merge/server_tags"), &json!(["sync:always"]));
    for path in [
        "config/nats/tls/enabled",
        "config/nats/tls/merge/verify",
        "config/cluster/tls/enabled",
        "promExporter/enabled",
    ] {
        assert_eq!(at(values, path), true, "{path}");
    }
}

/// The image has every program that a pod runs.
#[test]
fn the_image_has_every_program() {
    let dockerfile = std::fs::read_to_string(root().join("k8s/Dockerfile")).unwrap();
    for workload in rendered("base").iter().filter(|object| is_workload(object)) {
        for container in containers(workload) {
            let program = text(container, "command/0");
            assert!(
                dockerfile.contains(&format!("/src/target/release/{program} ")),
                "the image lacks {program:?}"
            );
        }
    }
}

/// The README's commands name what is there.
#[test]
fn the_readme_names_jobs_that_are_there() {
    let there: Vec<_> =
        FOLDERS.iter().flat_map(|folder| rendered(folder)).map(|object| id(&object)).collect();
    let readme = readme();
    let named = readme.split("job/").skip(1).chain(readme.split("patch job ").skip(1));
    let names: Vec<_> = named.filter_map(|rest| rest.split_whitespace().next()).collect();
    assert!(names.len() >= 4, "{names:?}");
    for name in names {
        assert!(there.contains(&format!("Job/{name}")), "the README names a Job {name}");
    }
}

/// Folders of programs that only end, in the place of the binaries: what the runner makes of each end.
#[test]
fn the_runner_judges_ends_as_the_job_controller_does() {
    let (files, image) = (folder(), folder());
    for (program, script) in [
        ("validate", "exit 0"),
        ("geofence", "exit 1"),
        ("allocate", "trap '' TERM; while :; do sleep 0.1; done"),
        ("aggregate", "trap 'exit 0' TERM; while :; do sleep 0.1; done"),
        ("audit", "exit 78"),
    ] {
        let file = image.path().join(program);
        std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut all = rendered("overlays/laptop");
    all.retain(|object| id(object) != "Job/bootstrap");
    find(&mut all, "Job/allocate")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = json!(1);
    let cluster = Cluster::new(files.path());
    cluster.pull("jackpot:0.1.0", image.path());
    cluster.apply(&all).unwrap();

    until("an index that ends with 0 is complete", || cluster.see("validate").completed == 1);
    until("one that ends with 78 fails its Job", || cluster.see("audit").failed.is_some());
    let again = |line: &String| line.contains("geofence-0: exit 1, Ignore, again after 10 s");
    until("one that ends with 1 is to be started again", || cluster.log().iter().any(again));
    cluster.resize("allocate", 2);
    until("both run", || cluster.see("allocate").running == 2);
    cluster.resize("allocate", 1);
    until("the second one, which does not end by itself, is killed", || cluster.see("allocate").running == 1);
    assert!(cluster.log().iter().any(|line| line.contains("allocate-1: killed, its grace is over")));
    assert_eq!(cluster.ends("allocate"), [0], "an index that was taken away is forgotten");
    until("one that is to be drained runs", || cluster.see("aggregate").running == 1);
    cluster.drain(0);
    until("one that ends with 0 when drained is complete: the accident", || {
        cluster.see("aggregate").completed == 1
    });
    let accidents = cluster.accidents(&[]);
    assert_eq!(
        accidents,
        ["aggregate-0 is complete", "audit failed: exit 78 of audit-0", "validate-0 is complete"]
    );

    let mut other = all.clone();
    find(&mut other, "Job/validate")["spec"]["template"]["spec"]["containers"][0]["image"] =
        json!("jackpot:0.2.0");
    assert!(
        cluster.apply(&other).unwrap_err().contains("field is immutable"),
        "pods of a Job cannot be changed"
    );
}

#[test]
fn each_end_doubles_the_wait() {
    let waits = [1, 2, 3, 4, 6, 7, 200].map(|ends| policy::backoff(ends).as_secs());
    assert_eq!(waits, [10, 20, 40, 80, 320, 600, 600]);
}

/// A setting that cannot be used ends every Job at its first start.
#[test]
fn unusable_settings_fail_every_job() {
    let files = folder();
    let mut all = rendered("overlays/laptop");
    all.retain(|object| id(object) != "Job/bootstrap");
    find(&mut all, "ConfigMap/jackpot")["data"]["NATS_URL"] = json!("nats://:4222:");
    let cluster = Cluster::new(files.path());
    cluster.pull("jackpot:0.1.0", &programs());
    cluster.apply(&all).unwrap();
    for stage in STAGES {
        until(&format!("{stage} has failed"), || cluster.see(stage).failed.is_some());
        assert_eq!(cluster.see(stage).failed, Some(format!("{stage} failed: exit 78 of {stage}-0")));
        assert_eq!(cluster.ends(stage), [1], "{stage} is not started again");
    }
}

fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A deployment at work: its broker and its Jobs.
struct Deployment {
    cluster: Cluster,
    nats: Nats,
    _files: TempDir,
}

impl Deployment {
    /// Applies what is rendered, beside what somebody has made, and waits until the bootstrap Job is complete.
    fn start(objects: &[Value], made: &[(&str, Value)]) -> Self {
        let files = folder();
        let laptop = rendered("overlays/laptop");
        let config = laptop.iter().find(|object| id(object) == "ConfigMap/nats").unwrap();
        let nats = Nats::start(files.path(), text(config, "data/nats.conf"));
        let cluster = Cluster::new(files.path());
        cluster.pull("jackpot:0.1.0", &programs());
        cluster.serve("nats.nats:4222", &nats.place());
        cluster.serve("nats:4222", &nats.place());
        for (name, data) in made {
            cluster.configure(name, data.clone());
        }
        cluster.apply(objects).unwrap();
        until("the streams are there and the terms in force", || cluster.see("bootstrap").completed == 1);
        Self { cluster, nats, _files: files }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(programs().join("jackpot"));
        command.args(args).env_clear().env("NATS_URL", self.nats.url()).stdin(Stdio::null());
        command
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "jackpot {args:?}: {}: {said}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, args: &[&str]) -> Vec<Value> {
        serde_json::from_str(&self.ok(&[args, &["--json"]].concat())).unwrap()
    }

    /// Waits until so many processes of a stage share the four partitions evenly.
    fn wait_shared(&self, stage: &str, processes: usize) {
        until(&format!("{processes} processes of {stage} share its partitions"), || {
            let output = self.command(&["status", "--json"]).output().unwrap();
            let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap_or_default();
            let mut shares: BTreeMap<&str, usize> = BTreeMap::new();
            let of_stage =
                |row: &&Value| row["stage"] == stage && text(row, "part").starts_with("partition ");
            for row in rows.iter().filter(of_stage) {
                let owners: Vec<_> = items(row, "owners").filter_map(Value::as_str).collect();
                let [owner] = owners[..] else { return false };
                *shares.entry(owner).or_default() += 1;
            }
            let even = shares
                .values()
                .max()
                .zip(shares.values().min())
                .is_some_and(|(most, least)| most - least <= 1);
            even && shares.len() == processes && shares.values().sum::<usize>() == 4
        });
        self.cluster
            .say(format_args!("{stage}: 4 partitions, each with one owner, over {processes} processes"));
    }

    /// What came out is what the model says.
    fn assert_exact(&self) {
        self.ok(&["wait", "--timeout", "120s"]);
        let record = Record::open(&self.nats.url());
        let outcome = record.model(&input::example_terms());
        assert!(outcome.allocated > 5_000, "there was load: {}", outcome.allocated);
        record::assert_exact(&record, &outcome, |args| self.json(args));
        self.ok(&["verify"]);
        self.cluster.say(format_args!(
            "{} wagers allocated, {} refused: totals, hits and refusals are the model's to the last digit, and verify \
             finds nothing",
            outcome.allocated,
            outcome.refusals.len()
        ));
    }
}

/// Traffic until it is dropped.
struct Load(Child);

impl Load {
    fn start(deployment: &Deployment) -> Self {
        let mut command = deployment.command(&["load", "--rate", "200", "--seconds", "900", "--seed", "7"]);
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The laptop's manifests from their first start to the next release.
#[test]
fn nats_jobs_start_scale_die_drain_and_upgrade_with_exact_totals() {
    let objects = rendered("overlays/laptop");
    let deployment = Deployment::start(&objects, &[]);
    let cluster = &deployment.cluster;
    cluster.say("bootstrap is complete: every partition runs the first terms, so producers may start");
    let load = Load::start(&deployment);
    cluster.wait_ready(&STAGES.map(|stage| (stage, 1)));

    for count in [4, 2] {
        cluster.resize("allocate", u64::try_from(count).unwrap());
        cluster.wait_ready(&[("allocate", count)]);
        deployment.wait_shared("allocate", count);
    }
    cluster.suspend("geofence", true);
    until("geofence has no pods", || cluster.see("geofence").running == 0);
    cluster.suspend("geofence", false);
    cluster.kill("allocate", 0);
    cluster.kill("aggregate", 0);
    cluster.wait_ready(&[("allocate", 2), ("aggregate", 1), ("geofence", 1)]);
    deployment.wait_shared("allocate", 2);

    cluster.drain(0);
    cluster.wait_ready(&[("validate", 1), ("geofence", 1), ("allocate", 2), ("aggregate", 1), ("audit", 1)]);
    deployment.wait_shared("allocate", 2);

    let next = over(
        "overlays/laptop/release",
        "nameSuffix: -0-2-0\nimages: [{name: jackpot, newTag: 0.2.0}]\nlabels:\n  - pairs: {app.kubernetes.io/version: \
         0.2.0}\n    includeTemplates: true",
    );
    // The same build: what another one may change, other tests say.
    cluster.pull("jackpot:0.2.0", &programs());
    cluster.apply(&next).unwrap();
    until("the next release's bootstrap is complete", || cluster.see("bootstrap-0-2-0").completed == 1);
    let after = STAGES.map(|stage| format!("{stage}-0-2-0"));
    cluster.wait_ready(&after.each_ref().map(|job| (job.as_str(), 1)));
    deployment.wait_shared("allocate", 3);
    let ends: Vec<_> = STAGES.iter().map(|stage| cluster.ends(stage)).collect();
    assert_eq!(
        ends,
        [vec![1], vec![2], vec![2, 0], vec![2], vec![1]],
        "each pod has ended when it was meant to"
    );
    assert_eq!(cluster.accidents(&["bootstrap", "bootstrap-0-2-0"]), Vec::<String>::new());
    cluster.delete(VERSION, "0.1.0");
    for stage in ["validate", "geofence", "allocate", "audit"] {
        deployment.wait_shared(stage, 1);
    }
    cluster.wait_ready(&after.each_ref().map(|job| (job.as_str(), 1)));

    drop(load);
    deployment.assert_exact();
    assert_eq!(cluster.accidents(&["bootstrap-0-2-0"]), Vec::<String>::new());
    cluster.delete(VERSION, "0.2.0");
    let log = cluster.log();
    let ended: Vec<_> =
        log.iter().filter(|line| line.contains(": exit ") && !line.contains("bootstrap")).collect();
    assert!(ended.iter().all(|line| line.contains("exit 143") || line.contains("exit 137")), "{ended:#?}");
    assert_eq!(
        ended.iter().filter(|line| line.contains("exit 137")).count(),
        2,
        "two were killed: {ended:#?}"
    );
    assert!(
        !log.iter().any(|line| line.contains("grace is over")),
        "all that were told to end did so in time"
    );
}

/// Two processes of each stage, one on each of two nodes, which are drained one after the other.
#[test]
fn nats_drains_leave_a_pod_of_each_stage() {
    let mut objects = rendered("base");
    let laptop = rendered("overlays/laptop/release");
    // One server instead of three, and the terms that somebody makes.
    let first = at(
        laptop.iter().find(|object| id(object) == "Job/bootstrap").unwrap(),
        "spec/template/spec/initContainers/0/command",
    );
    find(&mut objects, "Job/bootstrap")["spec"]["template"]["spec"]["initContainers"][0]["command"] =
        first.clone();
    let deployment = Deployment::start(
        &objects,
        &[("jackpot-terms", json!({ "terms.json": input::example_terms().to_string() }))],
    );
    let (cluster, both) = (&deployment.cluster, STAGES.map(|stage| (stage, 2)));
    let load = Load::start(&deployment);
    cluster.wait_ready(&both);
    cluster.watch_ready();
    for node in [0, 1] {
        cluster.drain(node);
        cluster.wait_ready(&both);
        cluster.uncordon(node);
    }
    let least = cluster.least_ready();
    assert!(least.len() == 5 && least.values().all(|least| *least >= 1), "{least:?}");
    cluster.say(format_args!("the fewest pods that were ready at any time: {least:?}"));
    drop(load);
    deployment.assert_exact();
    assert_eq!(cluster.accidents(&["bootstrap"]), Vec::<String>::new());
}

/// A process at work outlives whatever becomes of its files and of the broker; only a start ends with 78.
#[test]
fn nats_only_a_start_fails_a_job() {
    let objects = over("overlays/laptop/release", "components: [K8S/components/keys]");
    let keys = json!({ "keys": "k1 whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n" });
    let mut deployment = Deployment::start(&objects, &[("jackpot-keys", keys)]);
    deployment.cluster.wait_ready(&STAGES.map(|stage| (stage, 1)));
    deployment.cluster.configure("jackpot-keys", json!({ "keys": "what is no key\n" }));
    deployment.cluster.say("the file of keys cannot be read any more, and the broker goes away");
    deployment.nats.kill();
    std::thread::sleep(Duration::from_secs(12));
    for stage in STAGES {
        assert_eq!(
            (cluster_running(&deployment, stage), deployment.cluster.ends(stage)),
            (1, vec![0]),
            "{stage} waits"
        );
    }
    deployment.nats.start_again();
    deployment.cluster.wait_ready(&STAGES.map(|stage| (stage, 1)));
    assert_eq!(deployment.cluster.accidents(&["bootstrap"]), Vec::<String>::new());

    // The next start finds what cannot be used: it ends the Job, with all its pods.
    deployment.cluster.resize("validate", 2);
    until("the Job has failed", || deployment.cluster.see("validate").failed.is_some());
    until("its pods are gone", || cluster_running(&deployment, "validate") == 0);
    assert_eq!(deployment.cluster.accidents(&["bootstrap"]), ["validate failed: exit 78 of validate-1"]);
}

fn cluster_running(deployment: &Deployment, job: &str) -> usize {
    deployment.cluster.see(job).running
}
