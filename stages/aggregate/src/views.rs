//! The views of `commits` (design, section 5): `hits` and `windows`, every one, once, in commit order, and
//! `totals`, thinned. Each is a part of its own that reads `commits` from the log, so that a view never shows
//! what was not committed, and goes on wherever its own stream ends.

pub mod exact;
pub mod totals;

use serde::Deserialize;
use serde_json::value::RawValue;

use jackpot_core::log::Entry;
use jackpot_core::record::Counts;
use jackpot_core::stage::Contradiction;

/// A commit's message, its lists taken apart but not their entries: a view passes their bytes on unchanged.
#[derive(Debug, Deserialize)]
pub struct Slices<'a> {
    /// See `record::Commit`.
    pub commit: u64,
    /// See `record::Commit`.
    pub counts: Counts,
    /// See `record::Commit`.
    #[serde(borrow)]
    pub levels: Vec<&'a RawValue>,
    /// See `record::Commit`.
    #[serde(borrow)]
    pub windows: Vec<&'a RawValue>,
    /// See `record::Commit`.
    #[serde(borrow)]
    pub hits: Vec<&'a RawValue>,
}

impl<'a> Slices<'a> {
    /// Reads a message of `commits`.
    pub fn read(entry: &'a Entry) -> Result<Self, Contradiction> {
        let slices: Self = serde_json::from_slice(&entry.payload).map_err(|error| {
            Contradiction(format!(
                "message {} of commits cannot be read ({error}); run a build that knows its format, or restore the \
                 stream from a backup",
                entry.sequence
            ))
        })?;
        if slices.commit == entry.sequence {
            Ok(slices)
        } else {
            Err(Contradiction(format!(
                "message {} of commits says that it is commit {}: it was put there by hand; restore the stream from \
                 a backup",
                entry.sequence, slices.commit
            )))
        }
    }
}

/// A message of a view, as text.
pub fn shown_text(entry: &Entry) -> Result<&str, Contradiction> {
    std::str::from_utf8(&entry.payload).map_err(|_| {
        let Entry { sequence, subject, .. } = entry;
        Contradiction(format!(
            "message {sequence} on {subject} is no text: something else published it; remove it"
        ))
    })
}

/// What of a level's or window's entry names its subject.
#[derive(Debug, Deserialize)]
pub struct Named<'a> {
    /// The pool.
    pub pool: &'a str,
    /// The level.
    pub level: &'a str,
    /// The length, for a window.
    #[serde(default)]
    pub seconds: u32,
    /// The commit.
    pub commit: u64,
}

impl<'a> Named<'a> {
    /// Reads an entry of a commit or of a view.
    pub fn read(json: &'a str) -> Result<Self, Contradiction> {
        serde_json::from_str(json).map_err(|error| {
            Contradiction(format!("an entry of commits names no level ({error}); restore the stream"))
        })
    }
}
