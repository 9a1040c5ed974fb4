//! Nodes, of which a cluster of tests has two: which one a pod is on, and how one is drained, as budgets allow.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::manifests::{at, id, pod_labels, selects};
use crate::support::pipeline::until;

use super::{Cluster, Job, State, grace};

/// How many nodes there are.
const NODES: usize = 2;

impl Cluster {
    /// `kubectl drain`: every pod of a node is told to leave, as soon as its budget allows, and none comes; returns when
    /// all are gone.
    pub fn drain(&self, node: usize) {
        let mut state = self.state();
        state.say(format_args!("node {node} is drained"));
        state.cordoned.insert(node);
        drop(state);
        until(&format!("node {node} is empty"), || {
            let mut state = self.state();
            state.evict(node);
            state.jobs.values().all(|job| job.on(node) == 0)
        });
        self.say(format_args!("node {node} is empty"));
    }

    /// `kubectl uncordon`: pods may come again.
    pub fn uncordon(&self, node: usize) {
        let mut state = self.state();
        state.cordoned.remove(&node);
        state.say(format_args!("node {node} takes pods again"));
    }

    /// Begins to note the least number of ready pods that each stage has at any time.
    pub fn watch_ready(&self) {
        self.state().least = Some(BTreeMap::new());
    }

    /// The least number of ready pods since then, by stage.
    pub fn least_ready(&self) -> BTreeMap<String, usize> {
        self.state().least.clone().unwrap_or_default()
    }
}

impl State {
    /// The node that a new pod of a Job comes to: of those that take pods, the one with the fewest of it.
    pub(super) fn node_for(&self, job: &Job) -> usize {
        let open = (0..NODES).filter(|node| !self.cordoned.contains(node));
        open.min_by_key(|&node| job.on(node)).expect("some node takes pods")
    }

    /// Tells every pod of a node to leave that may.
    fn evict(&mut self, node: usize) {
        let there = |(name, job): (&String, &Job)| {
            let pods = job.pods.iter().filter(|(_, pod)| {
                pod.running.as_ref().is_some_and(|running| running.node == node && !running.disrupted)
            });
            pods.map(|(index, _)| (name.clone(), *index)).collect::<Vec<_>>()
        };
        for (name, index) in self.jobs.iter().flat_map(there).collect::<Vec<_>>() {
            if self.may_leave(&name, index) {
                self.say(format_args!("{name}-{index}: evicted from node {node}"));
                let job = self.jobs.get_mut(&name).unwrap();
                let grace = grace(&job.object);
                let running = job.pods.get_mut(&index).unwrap().running.as_mut().unwrap();
                running.disrupted = true;
                running.end(grace);
            }
        }
    }

    /// Whether every budget over a pod leaves enough ready ones; a pod that is not ready may always leave.
    fn may_leave(&self, name: &str, index: u64) -> bool {
        let job = &self.jobs[name];
        let is_ready = job.pods[&index].running.as_ref().is_some_and(super::Running::is_ready);
        let over = |budget: &&Value| selects(at(budget, "spec/selector"), pod_labels(&job.object));
        !is_ready
            || self.budgets.iter().filter(over).all(|budget| {
                let selected = |one: &&Job| selects(at(budget, "spec/selector"), pod_labels(&one.object));
                let ready: usize = self.jobs.values().filter(selected).map(Job::ready).sum();
                let least = at(budget, "spec/minAvailable").as_u64();
                let least = least.unwrap_or_else(|| panic!("{} is over a Job's pods", id(budget)));
                u64::try_from(ready).unwrap() > least
            })
    }

    /// Notes how many pods of each stage are ready now, where they are fewer than ever.
    pub(super) fn note_ready(&mut self) {
        let Some(least) = &mut self.least else { return };
        let mut now: BTreeMap<&str, usize> = BTreeMap::new();
        for job in self.jobs.values() {
            if let Some(stage) = pod_labels(&job.object)["jackpot/stage"].as_str() {
                *now.entry(stage).or_default() += job.ready();
            }
        }
        for (stage, ready) in now {
            let least = least.entry(stage.to_owned()).or_insert(ready);
            *least = ready.min(*least);
        }
    }
}

impl Job {
    /// How many of its processes run on a node.
    fn on(&self, node: usize) -> usize {
        let running = self.pods.values().filter_map(|pod| pod.running.as_ref());
        running.filter(|running| running.node == node).count()
    }
}
