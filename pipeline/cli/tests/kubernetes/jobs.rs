//! Runs rendered Jobs with the real binaries, as the Job controller and a node would: a process per index, with its
//! environment, files and probes; an end judged by the Job's policy; waits between starts; resizing, suspending,
//! draining, deleting. A thread does what is due; tests say what they want and wait for it.
//!
//! What differs from a cluster: an image is a folder of programs, a Service's name is replaced by a place on this machine,
//! mounted files lie in a folder of the runner's, and since all pods have one address each has a port of its own.

#[path = "jobs/nodes.rs"]
mod nodes;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::support::pipeline::{signal, until};

use super::manifests::{at, items, text};
use super::policy::{Verdict, backoff, verdict};
use super::probes::Probes;

/// How often the thread looks.
const LOOK: Duration = Duration::from_millis(20);

/// A cluster that knows nothing but Jobs and what they refer to.
pub struct Cluster {
    state: Arc<Mutex<State>>,
    /// Ended by the state's `over`.
    thread: Option<JoinHandle<()>>,
}

struct State {
    /// Where the programs of an image are, by the image's name.
    images: BTreeMap<String, PathBuf>,
    /// What stands for the name and port of a Service.
    services: Vec<(String, String)>,
    /// ConfigMaps and Secrets: their entries as files, each in a folder of its name.
    files: PathBuf,
    config: BTreeMap<String, Value>,
    budgets: Vec<Value>,
    jobs: BTreeMap<String, Job>,
    /// The nodes that take no pods.
    cordoned: BTreeSet<usize>,
    /// The fewest pods that each stage has had ready, where somebody asks.
    least: Option<BTreeMap<String, usize>>,
    begun: Instant,
    log: Vec<String>,
    over: bool,
}

struct Job {
    object: Value,
    /// By index; those that wait to be started again too.
    pods: BTreeMap<u64, Pod>,
    completed: BTreeSet<u64>,
    failed: Option<String>,
    deleted: bool,
}

/// What an index has: a process, or a time from which it may have one.
struct Pod {
    /// How often it has ended in the life of the Job.
    ends: u32,
    port: u16,
    /// The containers that are yet to run, the present one first.
    left: Vec<Value>,
    running: Option<Running>,
    not_before: Instant,
}

struct Running {
    child: Child,
    node: usize,
    probes: Probes,
    /// When a process that was told to end is killed.
    deadline: Option<Instant>,
    /// Whether it was told to leave its node.
    disrupted: bool,
}

/// What a test may know of a Job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Indexes whose process runs and is ready.
    pub ready: usize,
    /// Indexes whose process runs.
    pub running: usize,
    /// Indexes that are complete.
    pub completed: usize,
    /// Why it has failed.
    pub failed: Option<String>,
}

impl Cluster {
    /// One that keeps mounted files and what pods say in a folder.
    pub fn new(folder: &Path) -> Self {
        let state = State {
            images: BTreeMap::new(),
            services: Vec::new(),
            files: folder.to_owned(),
            config: BTreeMap::new(),
            budgets: Vec::new(),
            jobs: BTreeMap::new(),
            cordoned: BTreeSet::new(),
            least: None,
            begun: Instant::now(),
            log: Vec::new(),
            over: false,
        };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            loop {
                let mut state = shared.lock().unwrap();
                if state.over {
                    return;
                }
                state.act();
                drop(state);
                std::thread::sleep(LOOK);
            }
        });
        Self { state, thread: Some(thread) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Has an image: a folder of programs.
    pub fn pull(&self, image: &str, programs: &Path) {
        self.state().images.insert(image.to_owned(), programs.to_owned());
    }

    /// Has a Service: `nats:4222` is where this says.
    pub fn serve(&self, service: &str, place: &str) {
        self.state().services.push((service.to_owned(), place.to_owned()));
    }

    /// Makes a ConfigMap or a Secret, or replaces it, as its files are replaced under pods that run.
    pub fn configure(&self, name: &str, data: Value) {
        self.state().configure(name, data);
    }

    /// `kubectl apply`: takes the Jobs, ConfigMaps and budgets of a deployment; the rest is for clusters.
    ///
    /// # Errors
    /// What cannot be changed is refused, as an API server refuses it.
    pub fn apply(&self, objects: &[Value]) -> Result<(), String> {
        let mut state = self.state();
        for object in objects {
            let name = text(object, "metadata/name");
            match text(object, "kind") {
                "ConfigMap" => state.configure(name, object["data"].clone()),
                "Job" => state.apply(name, object)?,
                "PodDisruptionBudget" => state.budgets.push(object.clone()),
                _ => {}
            }
        }
        Ok(())
    }

    /// `kubectl patch job NAME -p '{"spec":{"completions":N,"parallelism":N}}'`.
    pub fn resize(&self, job: &str, count: u64) {
        let mut state = self.state();
        state.say(format_args!("{job}: completions and parallelism are {count} now"));
        let spec = &mut state.jobs.get_mut(job).unwrap().object["spec"];
        assert_eq!(spec["completions"], spec["parallelism"], "only what is equal can be resized");
        (spec["completions"], spec["parallelism"]) = (count.into(), count.into());
    }

    /// `kubectl patch job NAME -p '{"spec":{"suspend":…}}'`.
    pub fn suspend(&self, job: &str, suspended: bool) {
        let mut state = self.state();
        state.say(format_args!("{job}: suspend is {suspended} now"));
        state.jobs.get_mut(job).unwrap().object["spec"]["suspend"] = suspended.into();
    }

    /// `kubectl delete job -l LABEL=VALUE`; returns when their pods are gone.
    pub fn delete(&self, label: &str, value: &str) {
        let mut state = self.state();
        let chosen = |job: &Job| job.object["metadata"]["labels"][label] == value;
        let names: Vec<_> =
            state.jobs.iter().filter(|(_, job)| chosen(job)).map(|(name, _)| name.clone()).collect();
        state.say(format_args!("deleted: {}", names.join(", ")));
        names.iter().for_each(|name| state.jobs.get_mut(name).unwrap().deleted = true);
        drop(state);
        until("the deleted Jobs are gone", || names.iter().all(|name| !self.state().jobs.contains_key(name)));
    }

    /// Kills a pod's process, as a lack of memory does; returns when its end is known.
    pub fn kill(&self, job: &str, index: u64) {
        let mut state = self.state();
        state.say(format_args!("{job}-{index}: kill -9"));
        let pod = &state.jobs[job].pods[&index];
        let ends = pod.ends;
        signal("KILL", pod.running.as_ref().unwrap().child.id());
        drop(state);
        until("the end of what was killed is known", || self.state().jobs[job].pods[&index].ends > ends);
    }

    /// What is known of a Job.
    pub fn see(&self, job: &str) -> Seen {
        let state = self.state();
        let job = &state.jobs[job];
        Seen {
            ready: job.ready(),
            running: job.pods.values().filter(|pod| pod.running.is_some()).count(),
            completed: job.completed.len(),
            failed: job.failed.clone(),
        }
    }

    /// `kubectl wait`: for so many ready pods of each of these Jobs, and no more than those.
    pub fn wait_ready(&self, jobs: &[(&str, usize)]) {
        for (job, count) in jobs {
            until(&format!("{job} has {count} ready pods"), || {
                let seen = self.see(job);
                assert_eq!((seen.completed, &seen.failed), (0, &None), "{job}");
                (seen.ready, seen.running) == (*count, *count)
            });
            self.say(format_args!("{job}: {count} of {count} ready"));
        }
    }

    /// How often each pod of a Job has ended.
    pub fn ends(&self, job: &str) -> Vec<u32> {
        self.state().jobs[job].pods.values().map(|pod| pod.ends).collect()
    }

    /// The indexes of all Jobs that were complete but for these Jobs, and all that have failed.
    pub fn accidents(&self, meant: &[&str]) -> Vec<String> {
        let state = self.state();
        let of = |(name, job): (&String, &Job)| {
            let completed =
                (!meant.contains(&name.as_str())).then_some(job.completed.iter()).into_iter().flatten();
            let completed = completed.map(|index| format!("{name}-{index} is complete")).collect::<Vec<_>>();
            completed.into_iter().chain(job.failed.clone()).collect::<Vec<_>>()
        };
        state.jobs.iter().flat_map(of).collect()
    }

    /// Writes a line into the log.
    pub fn say(&self, what: impl Display) {
        self.state().say(what);
    }

    /// What has happened, a line each.
    pub fn log(&self) -> Vec<String> {
        self.state().log.clone()
    }
}

impl Drop for Cluster {
    /// Leaves no process behind, whatever has failed before.
    fn drop(&mut self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).over = true;
        drop(self.thread.take().map(JoinHandle::join));
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let pods = state.jobs.values_mut().flat_map(|job| job.pods.values_mut());
        for running in pods.filter_map(|pod| pod.running.as_mut()) {
            drop(running.child.kill());
            drop(running.child.wait());
        }
    }
}

impl State {
    fn say(&mut self, what: impl Display) {
        let line = format!("{:>6.1} s  {what}", self.begun.elapsed().as_secs_f64());
        println!("{line}");
        self.log.push(line);
    }

    fn configure(&mut self, name: &str, data: Value) {
        let folder = self.files.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        for (key, content) in data.as_object().unwrap() {
            std::fs::write(folder.join(key), content.as_str().unwrap()).unwrap();
        }
        self.config.insert(name.to_owned(), data);
    }

    fn apply(&mut self, name: &str, object: &Value) -> Result<(), String> {
        match self.jobs.get_mut(name) {
            Some(job) if at(&job.object, "spec/template") != at(object, "spec/template") => {
                return Err(format!("Job {name} is invalid: spec.template: field is immutable"));
            }
            Some(job) => job.object = object.clone(),
            None => {
                let image = text(object, "spec/template/spec/containers/0/image");
                self.say(format_args!("{name}: created, with {image}"));
                let job = Job {
                    object: object.clone(),
                    pods: BTreeMap::new(),
                    completed: BTreeSet::new(),
                    failed: None,
                    deleted: false,
                };
                self.jobs.insert(name.to_owned(), job);
            }
        }
        Ok(())
    }

    /// Does what is due.
    fn act(&mut self) {
        for name in self.jobs.keys().cloned().collect::<Vec<_>>() {
            let mut job = self.jobs.remove(&name).unwrap();
            let mut said = job.reap(&name);
            if job.wants_none() {
                job.end_from(0);
            } else {
                job.end_from(job.count());
                said.extend(self.start_missing(&name, &mut job));
            }
            job.pods
                .retain(|&index, pod| pod.running.is_some() || !job.deleted && index < count(&job.object));
            said.into_iter().for_each(|line| self.say(line));
            if !(job.deleted && job.pods.is_empty()) {
                self.jobs.insert(name, job);
            }
        }
        self.note_ready();
    }

    /// Starts the indexes that have no process, and may.
    fn start_missing(&self, name: &str, job: &mut Job) -> Vec<String> {
        let mut said = Vec::new();
        for index in (0..job.count()).filter(|index| !job.completed.contains(index)).collect::<Vec<_>>() {
            let containers = items(&job.object, "spec/template/spec/initContainers")
                .chain(items(&job.object, "spec/template/spec/containers"));
            let all: Vec<_> = containers.cloned().collect();
            let node = self.node_for(job);
            let pod = job.pods.entry(index).or_insert_with(Pod::new);
            if pod.running.is_some() || Instant::now() < pod.not_before {
                continue;
            }
            if pod.left.is_empty() {
                pod.left = all;
            }
            let child = self.spawn(&job.object, index, pod.port, &pod.left[0]);
            said.push(format!(
                "{name}-{index}: started {} on node {node}, process {}",
                text(&pod.left[0], "command/0"),
                child.id()
            ));
            let probes = Probes::start(&pod.left[0], pod.port);
            pod.running = Some(Running { child, probes, node, deadline: None, disrupted: false });
        }
        said
    }

    /// Starts a container's process.
    fn spawn(&self, job: &Value, index: u64, port: u16, container: &Value) -> Child {
        let image = text(container, "image");
        let programs = self.images.get(image).unwrap_or_else(|| panic!("there is no image {image}"));
        let mut words =
            items(container, "command").map(|word| self.here(job, container, word.as_str().unwrap()));
        let mut command = Command::new(programs.join(words.next().unwrap()));
        command.args(words).env_clear();
        if text(job, "spec/completionMode") == "Indexed" {
            command.env("JOB_COMPLETION_INDEX", index.to_string());
        }
        let own = items(container, "ports").find(|port| text(port, "name") == "metrics");
        for variable in items(container, "env") {
            let from = at(variable, "valueFrom/configMapKeyRef");
            let value = match variable["value"].as_str() {
                Some(value) => value,
                None => text(&self.config[text(from, "name")], text(from, "key")),
            };
            // The one port of a pod's own address; here every pod has another one of this machine's.
            let is_port =
                own.is_some() && own.and_then(|port| port["containerPort"].as_u64()) == value.parse().ok();
            let value = if is_port { port.to_string() } else { self.here(job, container, value) };
            command.env(text(variable, "name"), value);
        }
        let log = self.files.join(format!("{}-{index}.log", text(job, "metadata/name")));
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
    }

    /// A value as it must be on this machine: Services and mounted files are elsewhere.
    fn here(&self, job: &Value, container: &Value, value: &str) -> String {
        let mut value = value.to_owned();
        for (service, place) in &self.services {
            value = value.replace(service, place);
        }
        for mount in items(container, "volumeMounts") {
            if let Ok(rest) = Path::new(&value).strip_prefix(text(mount, "mountPath")) {
                let volume =
                    items(job, "spec/template/spec/volumes").find(|one| one["name"] == mount["name"]);
                let names = ["configMap/name", "secret/secretName"].map(|path| text(volume.unwrap(), path));
                return self.files.join(names.concat()).join(rest).display().to_string();
            }
        }
        value
    }
}

impl Job {
    fn count(&self) -> u64 {
        count(&self.object)
    }

    /// How many of its processes are ready, and were not told to end.
    fn ready(&self) -> usize {
        self.pods.values().filter_map(|pod| pod.running.as_ref()).filter(|running| running.is_ready()).count()
    }

    fn wants_none(&self) -> bool {
        self.deleted || self.failed.is_some() || at(&self.object, "spec/suspend") == true
    }

    /// Tells the processes of indexes from this one on to end.
    fn end_from(&mut self, first: u64) {
        let grace = grace(&self.object);
        for running in self.pods.range_mut(first..).filter_map(|(_, pod)| pod.running.as_mut()) {
            running.end(grace);
        }
    }

    /// Looks at all processes: which have ended, and what follows; which are to be killed. The end of a process whose Job
    /// is suspended counts as any other, which is the worse of what may be.
    fn reap(&mut self, name: &str) -> Vec<String> {
        let mut said = Vec::new();
        let grace = grace(&self.object);
        let count = self.count();
        for (&index, pod) in &mut self.pods {
            let Some(running) = &mut pod.running else { continue };
            let Some(status) = running.child.try_wait().unwrap() else {
                if running.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                    said.push(format!("{name}-{index}: killed, its grace is over"));
                    running.child.kill().unwrap();
                    running.deadline = None;
                } else if running.deadline.is_none() && running.probes.is_dead() {
                    said.push(format!("{name}-{index}: does not answer its probes, so it is told to end"));
                    running.end(grace);
                }
                continue;
            };
            let code = i64::from(status.code().or(status.signal().map(|signal| 128 + signal)).unwrap());
            let (container, disrupted) = (pod.left.remove(0), running.disrupted);
            pod.running = None;
            // What runs before the pod's own container is followed by it.
            if code == 0 && !pod.left.is_empty() {
                said.push(format!("{name}-{index}: exit 0 of {}", text(&container, "name")));
                continue;
            }
            pod.left.clear();
            let is = verdict(&self.object, text(&container, "name"), code, disrupted);
            pod.ends += 1;
            let wait = backoff(pod.ends);
            pod.not_before = Instant::now() + wait;
            let follows = match is {
                Verdict::Complete if index < count => {
                    self.completed.insert(index);
                    "complete".to_owned()
                }
                Verdict::FailJob | Verdict::FailIndex => {
                    self.failed = Some(format!("{name} failed: exit {code} of {name}-{index}"));
                    "the Job has failed".to_owned()
                }
                _ if self.deleted || self.failed.is_some() || index >= count => "gone".to_owned(),
                _ => format!("{is:?}, again after {} s", wait.as_secs()),
            };
            said.push(format!("{name}-{index}: exit {code}, {follows}"));
        }
        said
    }
}

impl Pod {
    fn new() -> Self {
        Self { ends: 0, port: free_port(), left: Vec::new(), running: None, not_before: Instant::now() }
    }
}

impl Running {
    fn is_ready(&self) -> bool {
        self.deadline.is_none() && self.probes.is_ready()
    }

    /// SIGTERM, and SIGKILL when the grace is over.
    fn end(&mut self, grace: Duration) {
        if self.deadline.is_none() {
            signal("TERM", self.child.id());
            self.deadline = Some(Instant::now() + grace);
        }
    }
}

/// How many indexes a Job has.
fn count(job: &Value) -> u64 {
    at(job, "spec/completions").as_u64().unwrap_or(1)
}

fn grace(job: &Value) -> Duration {
    Duration::from_secs(at(job, "spec/template/spec/terminationGracePeriodSeconds").as_u64().unwrap_or(30))
}

/// A port that nobody has, below those that the system gives to outgoing connections; another one each time.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 4_000).unwrap();
    loop {
        let port = 20_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 8_000;
        if TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
}
