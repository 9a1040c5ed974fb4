//! The ledger: from `contributions-p` to `commits` (design, section 5).
//!
//! | room | what lives there |
//! |---|---|
//! | [`books`] | [`books::Books`]: one commit after the other, from frames to a message; and replay |
//! | [`commit`] | the message of a commit and its place in the chain; when a commit takes no further frame |
//! | [`postings`] | what a frame asks of each pool, and how names become numbers |
//! | [`dataflow`] | the timely dataflow that carries postings to the pools and changes back |
//! | [`ledger`] | the exact state of levels: contributions, hits, revisions |
//! | [`windows`] | event-time windows: open, late, closed |
//! | [`committer`] | gathers frames from the lanes, and appends the commits |
//! | [`views`] | what is written from `commits`: totals, windows, hits |
//! | `parts` | what runs the ledger |
//!
//! Nothing but the last three awaits, and nothing reads a clock to decide: what the ledger does is a function of the frames, the
//! recorded cuts and the recorded watermarks alone (invariant I1).

pub mod books;
pub mod commit;
pub mod committer;
pub mod dataflow;
pub mod ledger;
mod parts;
pub mod postings;
pub mod views;
pub mod windows;

pub use parts::parts;
