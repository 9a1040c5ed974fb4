//! Who runs what: the processes of a stage divide its partitions among them (design, section 6).
//!
//! Each process writes itself into the stream `members`, one message a second, the last of each counting, and reads
//! what the others of its stage write. From what is stored there alone every process computes who is to run which
//! partition ([`assign`]), so that no one has to lead. A partition is handed over without a pause: the new owner takes
//! it up beside the old one, says that it is ready, and only then the old one leaves.
//!
//! Nothing here is needed for anything to be right: appends are fenced, and any number of processes may run the same
//! partition for as long as they like. So a process that cannot read who the others are goes on with what it has.
//!
//! [`Seat`] decides, without I/O; [`Sharing`] awaits, and starts and stops what runs a partition.

pub mod assign;
pub mod roster;
pub mod runner;
pub mod seat;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use assign::assign;
pub use roster::Roster;
pub use runner::Sharing;
pub use seat::{Order, Seat};

/// What a process says of itself to the others of its stage.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Tells a process from another one, earlier or at once, of the same name.
    pub born: u64,
    /// It is about to end: others are to take up what it runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
    /// The partitions that it runs.
    #[serde(default)]
    pub holds: BTreeMap<u16, Hold>,
    /// Those that it cannot run, since they stopped here.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub cannot: BTreeSet<u16>,
}

/// A partition that a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Up to which message of `members` it had read when it took the partition, or last learned that it is to keep what
    /// others took too: of two that have one, the later has it.
    pub since: u64,
    /// Whether it is at work, or ready to be as soon as the other one leaves.
    pub ready: bool,
}
