//! What a process says of itself: alive, ready, and why a partition stopped. Written by runners, read by
//! [`crate::admin`]. A process is ready when every partition that it runs is, and none has stopped.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// What a partition's runner is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Not yet at work: reading back what the log holds.
    Starting,
    /// At work.
    Running,
    /// Another process is at work on this partition.
    StandingBy,
    /// It cannot go on for now, and keeps trying: what is in the way.
    Trying(String),
    /// It will not go on until somebody looks: one sentence that says what is wrong and what to do.
    Stopped(String),
}

/// The conditions of a process's partitions (and views). Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Health {
    told: Arc<Told>,
}

#[derive(Debug, Default)]
struct Told {
    parts: Mutex<BTreeMap<String, Condition>>,
    branches: Mutex<Vec<Weak<Told>>>,
}

impl Health {
    /// What parts that come and go together say of themselves: it is seen here too, until the last clone is dropped.
    pub fn branch(&self) -> Self {
        let branch = Self::default();
        let mut branches = held(&self.told.branches);
        branches.retain(|other| other.strong_count() > 0);
        branches.push(Arc::downgrade(&branch.told));
        branch
    }

    /// Sets the condition of a part: `partition 3`, `view hits`.
    pub fn set(&self, part: &str, condition: Condition) {
        held(&self.told.parts).insert(part.to_owned(), condition);
    }

    /// Forgets a part that has nothing of its own to say any more; tells whether it had.
    pub fn forget(&self, part: &str) -> bool {
        held(&self.told.parts).remove(part).is_some()
    }

    /// All parts and their conditions, those of branches included; of a part that two of them have, both.
    pub fn parts(&self) -> Vec<(String, Condition)> {
        let own = |told: &Told| -> Vec<_> {
            held(&told.parts).iter().map(|(part, condition)| (part.clone(), condition.clone())).collect()
        };
        let mut parts = own(&self.told);
        let branches: Vec<_> = held(&self.told.branches).iter().filter_map(Weak::upgrade).collect();
        branches.iter().for_each(|branch| parts.extend(own(branch)));
        parts.sort_by(|a, b| a.0.cmp(&b.0));
        parts
    }

    /// `Ok` when ready, otherwise a line per part that is not.
    pub fn ready(&self) -> Result<(), String> {
        let parts = self.parts();
        let lines: Vec<_> = parts
            .iter()
            .filter_map(|(part, condition)| match condition {
                Condition::Running | Condition::StandingBy => None,
                Condition::Starting => Some(format!("{part}: starting")),
                Condition::Trying(what) => Some(format!("{part}: {what}")),
                Condition::Stopped(what) => Some(format!("{part} stopped: {what}")),
            })
            .collect();
        match (parts.is_empty(), lines.is_empty()) {
            (true, _) => Err("starting".into()),
            (false, true) => Ok(()),
            (false, false) => Err(lines.join("\n")),
        }
    }
}

fn held<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_stopped_part_is_enough() {
        let health = Health::default();
        assert_eq!(health.ready(), Err("starting".into()));
        health.set("partition 0", Condition::Running);
        health.set("partition 1", Condition::StandingBy);
        assert_eq!(health.ready(), Ok(()));
        health.set("partition 1", Condition::Stopped("look".into()));
        assert_eq!(health.ready(), Err("partition 1 stopped: look".into()));
        assert!(health.forget("partition 1") && !health.forget("partition 1"));
        assert_eq!(health.ready(), Ok(()));
    }

    #[test]
    fn a_branch_is_seen_until_it_is_dropped() {
        let health = Health::default();
        health.set("members", Condition::Running);
        let branch = health.branch();
        branch.set("partition 0", Condition::Starting);
        assert_eq!(health.ready(), Err("partition 0: starting".into()));
        let other = branch.clone();
        drop(branch);
        assert_eq!(health.parts().len(), 2, "a clone keeps it");
        drop(other);
        assert_eq!(health.ready(), Ok(()));
    }
}
