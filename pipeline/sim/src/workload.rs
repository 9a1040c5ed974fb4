//! What goes into the pipeline: revisions of the terms, and batches as a supplier's game servers send them on their
//! worst days. All of it is made beforehand, from the seed alone. What must become of it, only the auditor knows.

mod batches;
mod keys;
mod terms;
mod wagers;

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use crate::dice::Dice;
use crate::profile::Profile;

pub use keys::{Edit, secret};

/// What is published and applied.
pub struct Workload {
    /// The revisions of the terms, from the first one on, each with the time after which it is applied.
    pub revisions: Vec<(Duration, Value)>,
    /// What each source publishes, in order.
    pub sources: Vec<Vec<Planned>>,
    /// What happens to the key file, in order.
    pub keys: Vec<Edit>,
}

/// A message to publish.
#[derive(Debug, Clone)]
pub struct Planned {
    /// Not before so long after the start.
    pub at: Duration,
    /// Where.
    pub subject: String,
    /// How it is signed.
    pub headers: Vec<(String, String)>,
    /// What.
    pub body: Bytes,
}

impl Workload {
    /// The workload of a seed.
    pub fn draw(seed: u64, profile: &Profile) -> Self {
        let revisions = terms::draw(&mut Dice::new(seed, "terms"), profile);
        let sources = batches::draw(&mut Dice::new(seed, "batches"), profile, &revisions);
        let keys = keys::draw(&mut Dice::new(seed, "keys"), profile, &revisions);
        Self { revisions, sources, keys }
    }
}
