//! What the schemas of Kubernetes do not know of the manifests: whether names meet, whether a Job can do by accident
//! what it never may, whether the binaries know what they are told. Asked by the tests beside it; changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::pipeline::STAGES;

use super::manifests::{at, containers, id, is_workload, items, pod_labels, selects, text};
use super::policy::{Verdict, verdict};

/// How long a stage may take to end: five seconds until others have taken over, and what is in flight.
const GRACE_SECONDS_MIN: u64 = 30;
/// The exit codes that no restart mends.
const SETTINGS: [i64; 2] = [2, 78];

/// What the lint knows from elsewhere.
pub struct Known {
    /// What each program says of itself with `--help`, those of its commands included.
    pub help: BTreeMap<String, String>,
    /// ConfigMaps and Secrets that the README has people make.
    pub made: BTreeSet<String>,
    /// The entries that the README has people give them.
    pub entries: BTreeSet<String>,
}

impl Known {
    /// Asks the programs in a folder, and reads the README.
    pub fn ask(programs: &Path, readme: &str) -> Self {
        let mut help = BTreeMap::new();
        for stage in STAGES {
            help.insert(stage.to_owned(), ask(programs, &[stage]));
        }
        for command in [&["jackpot", "init"][..], &["jackpot", "terms", "apply"]] {
            help.insert(command.join(" "), ask(programs, command));
        }
        let words: Vec<_> = readme.split_whitespace().collect();
        let after = |phrase: &[&str]| {
            let found = words.windows(phrase.len() + 1).filter(|window| window.starts_with(phrase));
            found.filter_map(|window| window.last()).map(|name| (*name).to_owned()).collect::<Vec<_>>()
        };
        let made = [after(&["create", "configmap"]), after(&["create", "secret", "generic"])].concat();
        let entries = words.iter().filter_map(|word| word.strip_prefix("--from-file=")?.split('=').next());
        let entries = entries.map(str::to_owned).collect();
        Self { help, made: made.into_iter().collect(), entries }
    }
}

fn ask(programs: &Path, command: &[&str]) -> String {
    let (program, rest) = command.split_first().unwrap();
    let output = Command::new(programs.join(program)).args(rest).arg("--help").output().unwrap();
    assert!(output.status.success(), "{command:?} --help");
    String::from_utf8(output.stdout).unwrap()
}

/// All that is wrong, a sentence each.
pub fn faults(objects: &[Value], known: &Known) -> Vec<String> {
    let mut lint = Lint { objects, known, faults: Vec::new() };
    lint.names();
    lint.images();
    for workload in objects.iter().filter(|object| is_workload(object)) {
        lint.pod(workload);
        lint.references(workload);
        for container in containers(workload) {
            lint.container(workload, container);
            if is_ours(container) {
                lint.program(workload, container);
            }
        }
        if is_stage(workload) {
            lint.stage(workload);
        }
        if is_stage(workload) && text(workload, "kind") == "Job" {
            lint.job(workload);
        }
    }
    lint.budgets();
    lint.traffic();
    lint.monitors();
    lint.faults
}

struct Lint<'a> {
    objects: &'a [Value],
    known: &'a Known,
    faults: Vec<String>,
}

fn is_stage(workload: &Value) -> bool {
    !pod_labels(workload)["jackpot/stage"].is_null()
}

/// Whether it runs one of our programs.
fn is_ours(container: &Value) -> bool {
    let image = text(container, "image");
    image.rsplit('/').next().is_some_and(|last| last.starts_with("jackpot"))
}

/// How many pods a workload has.
fn size(workload: &Value) -> u64 {
    let count =
        ["spec/parallelism", "spec/replicas"].into_iter().find_map(|path| at(workload, path).as_u64());
    count.unwrap_or(1)
}

impl<'a> Lint<'a> {
    fn check(&mut self, holds: bool, object: &Value, what: impl FnOnce() -> String) {
        if !holds {
            self.faults.push(format!("{}: {}", id(object), what()));
        }
    }

    fn of_kind(&self, kind: &str) -> Vec<&'a Value> {
        self.objects.iter().filter(|object| text(object, "kind") == kind).collect()
    }

    fn workloads(&self) -> Vec<&'a Value> {
        self.objects.iter().filter(|object| is_workload(object)).collect()
    }

    fn find(&self, kind: &str, name: &str) -> Option<&'a Value> {
        self.of_kind(kind).into_iter().find(|object| text(object, "metadata/name") == name)
    }

    /// Nothing is there twice, and all is in one namespace.
    fn names(&mut self) {
        let mut seen = BTreeSet::new();
        for object in self.objects {
            self.check(seen.insert(id(object)), object, || "is there twice".into());
            let place =
                if text(object, "kind") == "Namespace" { "metadata/name" } else { "metadata/namespace" };
            self.check(text(object, place) == "jackpot", object, || "is in another namespace".into());
        }
    }

    /// One image of ours everywhere, and none that may be another one tomorrow.
    fn images(&mut self) {
        let mut ours = BTreeSet::new();
        for workload in self.workloads() {
            for container in containers(workload) {
                let image = text(container, "image");
                let tag = image.rsplit('/').next().and_then(|last| last.split_once([':', '@']));
                let fixed = tag.is_some_and(|(_, tag)| !tag.is_empty() && tag != "latest");
                self.check(fixed, workload, || format!("the image {image:?} has no tag that stays"));
                if is_ours(container) && ours.insert(image) {
                    self.check(ours.len() == 1, workload, || format!("has another image of ours: {image}"));
                }
            }
        }
    }

    /// What holds of every pod.
    fn pod(&mut self, workload: &Value) {
        let pod = at(workload, "spec/template/spec");
        for (path, expect) in [
            ("automountServiceAccountToken", json!(false)),
            ("enableServiceLinks", json!(false)),
            ("securityContext/runAsNonRoot", json!(true)),
            ("securityContext/seccompProfile/type", json!("RuntimeDefault")),
        ] {
            self.check(*at(pod, path) == expect, workload, || format!("{path} is not {expect}"));
        }
        for constraint in items(pod, "topologySpreadConstraints") {
            let own = selects(&constraint["labelSelector"], pod_labels(workload));
            self.check(own, workload, || "is spread by other pods than its own".into());
            let keys = items(constraint, "matchLabelKeys").filter_map(Value::as_str);
            for key in keys {
                let there = !pod_labels(workload)[key].is_null();
                self.check(there, workload, || format!("is spread by a label {key} that its pods lack"));
            }
        }
        if text(workload, "kind") == "StatefulSet" {
            let selector = at(workload, "spec/selector");
            let selected: Vec<_> = self
                .workloads()
                .into_iter()
                .filter(|other| selects(selector, pod_labels(other)))
                .map(id)
                .collect();
            self.check(selected == [id(workload)], workload, || format!("selects the pods of {selected:?}"));
            let service = self.find("Service", text(workload, "spec/serviceName"));
            self.check(service.is_some(), workload, || "has no Service of the name that it says".into());
        }
    }

    /// What holds of every container.
    fn container(&mut self, workload: &Value, container: &Value) {
        let name = text(container, "name");
        for (path, expect) in [
            ("allowPrivilegeEscalation", json!(false)),
            ("readOnlyRootFilesystem", json!(true)),
            ("capabilities/drop", json!(["ALL"])),
        ] {
            let holds = *at(&container["securityContext"], path) == expect;
            self.check(holds, workload, || format!("{name}: {path} is not {expect}"));
        }
        let resources = &container["resources"];
        let memory = at(resources, "requests/memory");
        self.check(memory.is_string() && memory == at(resources, "limits/memory"), workload, || {
            format!("{name}: what memory it asks for is not what it may have")
        });
        self.check(at(resources, "requests/cpu").is_string(), workload, || format!("{name} asks for no CPU"));
        let limit = at(resources, "limits/cpu");
        self.check(limit.is_null() || limit == at(resources, "requests/cpu"), workload, || {
            format!("{name} may have another share of the CPU than it asks for")
        });
        let ports: BTreeSet<_> = items(container, "ports").map(|port| text(port, "name")).collect();
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let port = at(container, &format!("{probe}/httpGet/port"));
            let named = port.is_null() || port.as_str().is_some_and(|port| ports.contains(port));
            self.check(named, workload, || {
                format!("{name}: its {probe} asks at {port}, which it does not name")
            });
        }
    }

    /// What a program of ours is told, it knows.
    fn program(&mut self, workload: &Value, container: &Value) {
        let name = text(container, "name");
        let command: Vec<_> = items(container, "command").filter_map(Value::as_str).collect();
        let known = self.known.help.iter().find(|(program, _)| {
            command
                .join(" ")
                .strip_prefix(program.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
        });
        let Some((program, help)) = known else {
            return self
                .check(false, workload, || format!("{name} runs {command:?}, which is no program of ours"));
        };
        self.check(container["args"].is_null(), workload, || format!("{name} has args beside its command"));
        for flag in command.iter().filter(|word| word.starts_with("--")) {
            let knows = help.split_whitespace().any(|word| word == *flag);
            self.check(knows, workload, || format!("{program} does not know {flag}"));
        }
        for variable in items(container, "env") {
            let variable = text(variable, "name");
            let knows = help.contains(&format!("[env: {variable}="));
            self.check(knows, workload, || format!("{program} does not know {variable}"));
        }
        let told =
            items(container, "env").map(|variable| text(variable, "name")).chain(command.iter().copied());
        let bounded =
            told.filter(|word| word.to_lowercase().replace('_', "-").contains("until-idle")).count();
        self.check(bounded == 0, workload, || {
            format!("{name} ends when it is idle, and its index is complete then")
        });
        let paths =
            items(container, "env").map(|variable| text(variable, "value")).chain(command.iter().copied());
        for path in paths.filter(|path| path.starts_with('/')) {
            let there = self.is_mounted(workload, container, Path::new(path));
            self.check(there, workload, || format!("{name} is told of {path}, where nothing is mounted"));
        }
    }

    /// Whether a container finds a file: an entry of a ConfigMap or a Secret that it mounts.
    fn is_mounted(&self, workload: &Value, container: &Value, path: &Path) -> bool {
        items(container, "volumeMounts").any(|mount| {
            let Ok(entry) = path.strip_prefix(text(mount, "mountPath")) else { return false };
            let entry = entry.to_str().unwrap();
            let mut volumes = items(workload, "spec/template/spec/volumes");
            let volume = volumes.find(|volume| volume["name"] == mount["name"]).unwrap_or(&Value::Null);
            match self.find("ConfigMap", text(volume, "configMap/name")) {
                Some(map) => map["data"][entry].is_string(),
                None => self.known.entries.contains(entry),
            }
        })
    }

    /// What pods refer to is there, or the README has somebody make it.
    fn references(&mut self, workload: &Value) {
        let pod = at(workload, "spec/template/spec");
        let account = text(pod, "serviceAccountName");
        let ours = containers(workload).any(is_ours);
        self.check(!ours || self.find("ServiceAccount", account).is_some(), workload, || {
            "has no account".into()
        });
        let shared = self
            .workloads()
            .iter()
            .filter(|other| text(other, "spec/template/spec/serviceAccountName") == account)
            .count();
        self.check(!ours || shared == 1, workload, || format!("shares the account {account:?}"));
        let mut volumes = BTreeSet::new();
        for volume in items(pod, "volumes") {
            volumes.insert(text(volume, "name"));
            for (kind, path) in [("ConfigMap", "configMap/name"), ("Secret", "secret/secretName")] {
                self.refers(workload, kind, text(volume, path), None);
            }
        }
        volumes
            .extend(items(workload, "spec/volumeClaimTemplates").map(|claim| text(claim, "metadata/name")));
        for container in containers(workload) {
            for mount in items(container, "volumeMounts") {
                let there = volumes.contains(text(mount, "name"));
                self.check(there, workload, || format!("mounts {}, which is no volume", mount["name"]));
            }
            for variable in items(container, "env") {
                for (kind, path) in
                    [("ConfigMap", "valueFrom/configMapKeyRef"), ("Secret", "valueFrom/secretKeyRef")]
                {
                    let from = at(variable, path);
                    self.refers(workload, kind, text(from, "name"), Some(text(from, "key")));
                }
            }
        }
    }

    fn refers(&mut self, workload: &Value, kind: &str, name: &str, key: Option<&str>) {
        if name.is_empty() || (key.is_none() && self.known.made.contains(name)) {
            return;
        }
        let Some(found) = self.find(kind, name) else {
            return self
                .check(false, workload, || format!("refers to the {kind} {name}, which nobody makes"));
        };
        if let Some(key) = key {
            self.check(found["data"][key].is_string(), workload, || format!("{kind} {name} has no {key}"));
            // What a start depends on stays as it is, so that a Job's later starts are as its first.
            self.check(found["immutable"] == true, found, || {
                "can be changed under a Job that is at work".into()
            });
        }
    }

    /// What holds of every stage.
    fn stage(&mut self, workload: &Value) {
        let stage = &pod_labels(workload)["jackpot/stage"];
        let container = at(workload, "spec/template/spec/containers/0");
        let command = at(container, "command");
        self.check(*command == json!([stage]), workload, || format!("runs {command}, not {stage}"));
        for (probe, path) in
            [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]
        {
            let asks = text(container, &format!("{probe}/httpGet/path"));
            self.check(asks == path, workload, || format!("its {probe} asks for {asks:?}, not {path}"));
        }
        let port = items(container, "ports").find(|port| text(port, "name") == "metrics");
        let told = items(container, "env").find(|variable| text(variable, "name") == "JACKPOT_METRICS_PORT");
        let (port, told) =
            (port.map(|port| port["containerPort"].to_string()), told.map(|told| text(told, "value")));
        self.check(port.is_some() && port.as_deref() == told, workload, || {
            format!("its port metrics is {port:?}, and it is told {told:?}")
        });
        let grace = at(workload, "spec/template/spec/terminationGracePeriodSeconds").as_u64().unwrap_or(30);
        self.check(grace >= GRACE_SECONDS_MIN, workload, || format!("{grace} s are too short to end in"));
        let spread = items(workload, "spec/template/spec/topologySpreadConstraints").count();
        self.check(spread > 0, workload, || "is not spread over nodes".into());
    }

    /// What holds of a stage's Job: none of its indexes is ever complete, and it fails for its settings alone.
    fn job(&mut self, job: &Value) {
        let (completions, parallelism) = (at(job, "spec/completions"), at(job, "spec/parallelism"));
        let elastic = completions == parallelism && completions.as_u64().is_some_and(|count| count > 0);
        self.check(elastic, job, || {
            format!("{completions} completions with {parallelism} at once cannot be resized")
        });
        for (path, expect) in [
            ("spec/completionMode", json!("Indexed")),
            ("spec/podReplacementPolicy", json!("Failed")),
            ("spec/template/spec/restartPolicy", json!("Never")),
            ("spec/backoffLimitPerIndex", json!(i32::MAX)),
            ("spec/backoffLimit", Value::Null),
            ("spec/maxFailedIndexes", Value::Null),
            ("spec/activeDeadlineSeconds", Value::Null),
            ("spec/ttlSecondsAfterFinished", Value::Null),
            ("spec/successPolicy", Value::Null),
            ("spec/suspend", Value::Null),
            ("spec/template/spec/activeDeadlineSeconds", Value::Null),
        ] {
            let is = at(job, path);
            self.check(*is == expect, job, || format!("{path} is {is}, not {expect}"));
        }
        let actions: BTreeSet<_> =
            items(job, "spec/podFailurePolicy/rules").map(|rule| text(rule, "action")).collect();
        let known = actions.iter().all(|action| ["FailJob", "FailIndex", "Ignore", "Count"].contains(action));
        self.check(known, job, || format!("there are no actions {actions:?}"));
        if known {
            self.codes(job);
        }
        // The index is part of the pod's name and of its host's.
        let name = text(job, "metadata/name");
        self.check(name.len() <= 58, job, || "its pods' names are too long for hosts".into());
    }

    /// Of all exit codes two end the Job; after any other the index is started again, whoever asked the pod to go.
    fn codes(&mut self, job: &Value) {
        let main = at(job, "spec/template/spec/containers/0");
        let rules: Vec<_> = items(main, "restartPolicyRules").collect();
        for (code, disrupted) in (1..=255).flat_map(|code| [(code, false), (code, true)]) {
            let expect = if SETTINGS.contains(&code) { Verdict::FailJob } else { Verdict::Ignore };
            let is = verdict(job, text(main, "name"), code, disrupted);
            self.check(is == expect, job, || {
                format!("exit {code}, drained {disrupted}, leads to {is:?}, not {expect:?}")
            });
        }
        // Where a container is started again in place: for the same codes, and for 0 too.
        for rule in rules {
            let again =
                json!({ "action": "Restart", "exitCodes": { "operator": "NotIn", "values": SETTINGS } });
            self.check(*rule == again && main["restartPolicy"] == "Never", job, || {
                format!("starts again by {rule}")
            });
        }
    }

    /// No pod has two budgets, which no eviction can honour, and each budget lets one pod go.
    fn budgets(&mut self) {
        let budgets = self.of_kind("PodDisruptionBudget");
        for budget in &budgets {
            let selected: Vec<_> = self
                .workloads()
                .into_iter()
                .filter(|one| selects(at(budget, "spec/selector"), pod_labels(one)))
                .collect();
            self.check(selected.len() == 1, budget, || format!("is over {} workloads", selected.len()));
            let least = at(budget, "spec/minAvailable").as_u64();
            self.check(least.is_some() && at(budget, "spec/maxUnavailable").is_null(), budget, || {
                "over a Job's pods only a whole minAvailable counts".into()
            });
            let total: u64 = selected.into_iter().map(size).sum();
            self.check(least.is_some_and(|least| least < total), budget, || {
                format!("asks for {least:?} of {total} pods, so that no node can be drained")
            });
        }
        for workload in self.workloads().into_iter().filter(|one| is_stage(one)) {
            let of =
                budgets.iter().filter(|one| selects(at(one, "spec/selector"), pod_labels(workload))).count();
            let expect = usize::from(size(workload) > 1);
            self.check(of == expect, workload, || {
                format!("{of} budgets are over its {} pods", size(workload))
            });
        }
    }

    /// Nothing is let through that no policy names, and the policies name pods and ports that are there.
    fn traffic(&mut self) {
        let policies = self.of_kind("NetworkPolicy");
        let shut = policies.iter().any(|policy| {
            *at(policy, "spec") == json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"] })
        });
        if !shut {
            self.faults.push("no NetworkPolicy shuts what the others do not open".into());
        }
        for policy in &policies {
            let selected = self.selected(at(policy, "spec/podSelector"));
            self.check(!selected.is_empty(), policy, || "is over no pods".into());
            for port in items(policy, "spec/ingress").flat_map(|rule| items(rule, "ports")) {
                for workload in &selected {
                    self.check(has_port(workload, &port["port"]), policy, || {
                        format!("lets through to port {}, which {} does not name", port["port"], id(workload))
                    });
                }
            }
        }
        for workload in self.workloads().into_iter().filter(|one| containers(one).any(is_ours)) {
            let over: Vec<_> = policies
                .iter()
                .filter(|policy| selects(at(policy, "spec/podSelector"), pod_labels(workload)))
                .flat_map(|policy| items(policy, "spec/egress").flat_map(|rule| items(rule, "ports")))
                .map(|port| port["port"].as_u64())
                .collect();
            let reaches = [4222, 53].iter().all(|port| over.contains(&Some(*port)));
            self.check(reaches, workload, || "is let through to no broker, or finds none".into());
        }
    }

    /// Where something is scraped, every port called metrics is; and Services and monitors name ports that are there.
    fn monitors(&mut self) {
        let monitors = self.of_kind("PodMonitor");
        for monitor in &monitors {
            // The schemas do not know what a PodMonitor is.
            let fields =
                at(monitor, "spec").as_object().into_iter().flatten().map(|(field, _)| field.as_str());
            let known = ["selector", "podMetricsEndpoints", "podTargetLabels"];
            let unknown: Vec<_> = fields.filter(|field| !known.contains(field)).collect();
            self.check(unknown.is_empty(), monitor, || format!("has the fields {unknown:?}"));
            let scrapes =
                items(monitor, "spec/podMetricsEndpoints").any(|one| text(one, "path") == "/metrics");
            self.check(scrapes, monitor, || "scrapes no /metrics".into());
            let selected = self.selected(at(monitor, "spec/selector"));
            for endpoint in items(monitor, "spec/podMetricsEndpoints") {
                for workload in &selected {
                    self.check(has_port(workload, &endpoint["port"]), monitor, || {
                        format!("scrapes port {}, which {} does not name", endpoint["port"], id(workload))
                    });
                }
            }
            let metered = self.workloads().into_iter().filter(|one| has_port(one, &json!("metrics")));
            for workload in metered {
                let scraped = selects(at(monitor, "spec/selector"), pod_labels(workload));
                self.check(scraped, workload, || "is not scraped".into());
            }
        }
        for service in self.of_kind("Service") {
            let selector = json!({ "matchLabels": at(service, "spec/selector") });
            let selected = self.selected(&selector);
            for port in items(service, "spec/ports") {
                let there = selected.iter().any(|one| has_port(one, &port["targetPort"]));
                self.check(there, service, || format!("no pod of it has the port {}", port["targetPort"]));
            }
        }
    }

    fn selected(&self, selector: &Value) -> Vec<&'a Value> {
        self.workloads().into_iter().filter(|one| selects(selector, pod_labels(one))).collect()
    }
}

fn has_port(workload: &Value, port: &Value) -> bool {
    containers(workload).flat_map(|one| items(one, "ports")).any(|one| one["name"] == *port)
}
