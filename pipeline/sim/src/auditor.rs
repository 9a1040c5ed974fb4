//! Knows every answer. When a run has come to rest, it reads all that the broker stores and holds it to the
//! invariants; whatever is wrong ends in a panic that says what.
//!
//! | room | what it holds to what |
//! |---|---|
//! | [`record`] | what is stored, taken apart without the pipeline's own code |
//! | [`lanes`] | I1, I2: frames to the frames that they were made from, and to what a fresh stage makes of them |
//! | [`books`] | I3, I4, I8: commits, refusals and acknowledgements to the model |
//! | [`views`] | I5: views to commits; and refusals and sources to the lanes |
//! | [`remains`] | I9: what is left where a broker lost what it had acknowledged, to what was there before |
//! | [`model`], [`places`], [`signatures`] | what must come out, by code that is the contract's and not the pipeline's |
//!
//! I6 is held to by running a seed twice, and I7 by the bounds on what a run may take.

pub mod books;
pub mod lanes;
pub mod model;
pub mod places;
pub mod record;
pub mod remains;
pub mod signatures;
pub mod views;

use bytes::Bytes;
use serde_json::Value;

use record::{Lost, Record};

/// What a run must have left behind.
pub struct Expected<'a> {
    /// Partitions in all.
    pub partitions: u16,
    /// The lengths of windows.
    pub seconds: &'a [u32],
    /// The revisions of the terms.
    pub revisions: &'a [Value],
    /// What suppliers hold an acknowledgement for: the sequence in `wagers`, and the body.
    pub acknowledged: &'a [(u64, Bytes)],
    /// What the broker lost although it had acknowledged it.
    pub lost: &'a Lost,
}

/// What the auditor counted, for the report.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is named for what it counts")]
pub struct Counted {
    pub ingress: usize,
    pub frames: usize,
    pub commits: usize,
    pub allocated: u64,
    pub refusals: usize,
    pub hits: usize,
    pub windows: usize,
}

/// Holds a record that has come to rest to everything, but for what the broker has lost.
///
/// # Panics
/// When it does not hold.
pub fn audit(record: &Record, expected: &Expected<'_>) -> Counted {
    for partition in 0..expected.partitions {
        lanes::assert_one_to_one(record, partition);
        lanes::assert_computed(record, partition, expected.revisions);
    }
    books::assert_acknowledged(record, expected.lost, expected.acknowledged);
    books::assert_commits_computed(record, expected);
    let outcome = books::assert_modelled(record, expected);
    assert_eq!(outcome.left, 0, "every batch is in a commit");
    books::assert_windows_add_up(record, expected.seconds);
    views::assert_shown(record);
    if expected.lost.of("refusals").is_empty() {
        views::assert_refusals(record, &outcome);
    }
    views::assert_leaves(record, expected.partitions, &outcome);
    if expected.lost.of("sources").is_empty() {
        views::assert_sources(record, expected.revisions, &outcome);
    }
    Counted {
        ingress: record.entries("wagers").len(),
        frames: (0..expected.partitions).map(|p| record.entries(&format!("validated-{p}")).len()).sum(),
        commits: record.entries("commits").len(),
        allocated: outcome.allocated,
        refusals: outcome.refusals.len(),
        hits: outcome.hits.len(),
        windows: record.entries("windows").len(),
    }
}
