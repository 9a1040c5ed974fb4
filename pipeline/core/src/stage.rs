//! What a stage is: a deterministic function from one log to another, frame by frame (design, section 9).
//! No `async`, no clock, no randomness and no I/O in a stage; [`crate::lane`] drives it.

use bytes::Bytes;

use crate::codec::CodecError;
use crate::frame::{Body, Frame, Header};
use crate::refusal::{Reason, StageName};
use crate::snapshot::{Pieces, Saved, Unreadable};
use crate::terms::Terms;
use crate::topology::Lane;

/// A stage of one partition: frame *n* of its input gives frame *n* of each of its outputs.
pub trait Stage {
    /// Which stage it is.
    const NAME: StageName;
    /// The lane it reads.
    const INPUT: Lane;
    /// The lanes it writes, in the order of the messages that [`Outcome::encode`] gives.
    const OUTPUTS: &'static [Lane];
    /// Whether [`Stage::restore`] takes its state back from its first output.
    const RESTORES: bool = false;
    /// Whether its state is a fold of all its input: a start takes back a snapshot, or else forgets what the stage
    /// knows ([`Stage::restore`] of `None`), and hands it every frame behind that; what comes of those that its outputs
    /// hold is compared or dropped. A stage without state, or one that its own last output restores, is not replayed.
    const REPLAYS: bool = false;
    /// The version of what [`Stage::freeze`] gives. A build reads those before its own too.
    const SNAPSHOT_FORMAT: u16 = 0;
    /// What it reads.
    type Input: Body;
    /// What it makes of a frame.
    type Output: Outcome;

    /// Terms to compute under from the next frame on. Called before the first frame, and whenever a frame names
    /// another revision than the one before. Revisions only grow, but a lane that starts over goes back to one that
    /// the stage had left.
    fn learn(&mut self, terms: &Terms);

    /// Takes back the state that a message of its own first output holds, the one before the next frame; `None` where
    /// there is none. For a stage without state there is nothing to do.
    fn restore(&mut self, _last: Option<&[u8]>) -> Result<(), Contradiction> {
        Ok(())
    }

    /// The state as it is now, for a snapshot; of a stage that is replayed.
    fn freeze(&self) -> Pieces {
        Box::new(std::iter::empty())
    }

    /// Takes back what [`Stage::freeze`] gave.
    fn thaw(&mut self, _content: Saved<'_>) -> Result<(), Unreadable> {
        Ok(())
    }

    /// Computes one frame.
    fn process(&mut self, frame: Frame<Self::Input>) -> Result<Self::Output, Contradiction>;
}

/// What a stage made of a frame.
pub trait Outcome {
    /// One message per output lane; `headers` are those of the frames, in the same order.
    fn encode(&self, headers: &[Header]) -> Vec<Bytes>;

    /// What the frame did, for the metrics.
    fn tally(&self) -> Tally;

    /// What to publish before the frame is appended, in order; see [`Publication`].
    fn publications(&self) -> &[Publication] {
        &[]
    }
}

/// What one frame did, for the metrics (contract, section 6).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// Ingress messages judged; by validate alone.
    pub batches_in: u64,
    /// Wagers judged, those of batches refused whole left out.
    pub wagers_in: u64,
    /// Wagers that go on to the next stage; 0 for the last two.
    pub wagers_out: u64,
    /// What this stage refused.
    pub refused: Vec<(Reason, u64)>,
    /// Runs of a source's numbers that never came; by validate alone, which decides it.
    pub gaps: u64,
    /// The numbers in them.
    pub gap_batches: u64,
    /// Batches with a number that was accepted before with other content; by validate alone, which decides it.
    pub conflicts: u64,
}

impl Tally {
    /// Counts one refusal.
    pub fn refuse(&mut self, reason: Reason) {
        match self.refused.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => self.refused.push((reason, 1)),
        }
    }
}

/// A message to the outside that belongs to a frame, and is published once, before the frame is appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// Where.
    pub subject: String,
    /// The place in log order that tells, of the last message on a subject, whether this one is there already.
    pub place: Place,
    /// What.
    pub payload: Bytes,
}

/// The place of a publication in its partition: the frame, then its number in the frame, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The frame.
    pub frame: u64,
    /// The number in the frame.
    pub number: u32,
}

/// Two logs, or a log and the rules, contradict each other (invariant I9): the partition stops and says so.
/// One sentence that says what is wrong and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Contradiction(pub String);

impl Contradiction {
    /// A frame of this stream cannot be read. One of a later build is left to that: the partition goes on where a process
    /// knows the frame's rules.
    pub fn unreadable(stream: &str, frame: u64, error: &CodecError) -> Self {
        Self(match error {
            CodecError::Newer(newer) => {
                format!(
                    "frame {frame} of {stream} is written {newer}; deploy a newer build, which takes over here by itself"
                )
            }
            CodecError::Fault { .. } => format!(
                "frame {frame} of {stream} cannot be read ({error}); restore the stream from a backup, since it was changed"
            ),
        })
    }
}
