//! Versions of the rules: formats of frames, boundary data, algorithms (design, section 3). Terms name the version that
//! holds from their revision on, validate stamps it on the frame, every stage after it carries it forward.
//! A build knows all versions up to its own highest and computes each frame by the frame's: which build runs where
//! never changes a byte. Nothing here decides which version holds.

/// The version that holds where the terms name none, and before there are any.
pub const FIRST: u16 = 1;
/// The highest version that this build knows. The feature `next-rules` is for the test of rolling upgrades alone.
pub const KNOWN: u16 = if cfg!(feature = "next-rules") { CONTENTS_BEFORE_BATCHES } else { FIRST };

/// From this version on, which no release knows yet, a validated frame's contents stand before its batches.
pub(crate) const CONTENTS_BEFORE_BATCHES: u16 = 2;

/// [`FIRST`], where something does not say its version: it is from before there were others.
pub fn first() -> u16 {
    FIRST
}

/// Something is of a version that this build does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("under rules {0}, and this build knows them up to {KNOWN}")]
pub struct Newer(pub u16);

/// The versions that this build knows, in words.
pub fn known() -> String {
    if KNOWN == FIRST { FIRST.to_string() } else { format!("{FIRST} to {KNOWN}") }
}

/// Whether this build knows the version, which is above 0.
pub fn check(version: u16) -> Result<(), Newer> {
    if version <= KNOWN { Ok(()) } else { Err(Newer(version)) }
}
