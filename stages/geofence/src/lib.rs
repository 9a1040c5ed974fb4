//! The geofence stage: decides where each wager was made, and whether wagers may come from there
//! (contract, sections 3 and 4). The lane in `jackpot_core` drives [`Geofence`], frame by frame.
//!
//! A place is what a wager declares, what the boundaries know at its coordinates, or both. Header, batches and
//! earlier refusals go on as they came; coordinates and sessions end here.
//!
//! | room | what lives there |
//! |---|---|
//! | `fence` | the judgement of a frame's wagers, in the order of the contract |
//! | [`rules`] | the terms, as the stage asks them |
//! | [`boundaries`] | which areas a circle is in |
//! | `geometry` | circles and distances; the only floating point |
//! | `memory` | where each session was last |
//! | `grounds` | sentences of refusals |
//! | `parts` | what runs a partition |

pub mod boundaries;
mod fence;
mod geometry;
mod grounds;
mod memory;
mod parts;
pub mod rules;

pub use parts::parts;

use bytes::Bytes;
use jackpot_core::frame::geofenced::Geofenced;
use jackpot_core::frame::validated::Validated;
use jackpot_core::frame::{self, Frame, Header};
use jackpot_core::refusal::StageName;
use jackpot_core::snapshot::{Pieces, Saved, Unreadable};
use jackpot_core::stage::{Contradiction, Outcome, Stage, Tally};
use jackpot_core::terms::Terms;
use jackpot_core::topology::Lane;

use crate::boundaries::Boundaries;
use crate::fence::Fence;
use crate::memory::Memory;
use crate::rules::Rules;

/// The stage: the rules it has learnt, and where each session was last.
#[derive(Debug)]
pub struct Geofence {
    rules: Rules,
    memory: Memory,
}

impl Default for Geofence {
    /// Before the first frame. The boundaries are read now, so that no frame waits for them.
    fn default() -> Self {
        assert!(!Boundaries::get().is_empty(), "there are boundaries");
        Self { rules: Rules::default(), memory: Memory::default() }
    }
}

/// What the stage makes of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// For allocate.
    pub geofenced: Geofenced,
    tally: Tally,
}

impl Stage for Geofence {
    const NAME: StageName = StageName::Geofence;
    const INPUT: Lane = Lane::Validated;
    const OUTPUTS: &'static [Lane] = &[Lane::Geofenced];
    const REPLAYS: bool = true;
    const SNAPSHOT_FORMAT: u16 = 1;
    type Input = Validated;
    type Output = Placed;

    fn learn(&mut self, terms: &Terms) {
        self.rules = Rules::compile(terms);
    }

    /// Nothing of what is remembered is in the output: the lane replays the input.
    fn restore(&mut self, _last: Option<&[u8]>) -> Result<(), Contradiction> {
        self.memory.clear();
        Ok(())
    }

    fn freeze(&self) -> Pieces {
        self.memory.freeze()
    }

    fn thaw(&mut self, content: Saved<'_>) -> Result<(), Unreadable> {
        self.memory.thaw(content)
    }

    fn process(&mut self, frame: Frame<Validated>) -> Result<Placed, Contradiction> {
        assert_eq!(
            frame.header.terms,
            self.rules.revision(),
            "the lane teaches a frame's terms before it hands the frame over"
        );
        let Validated { symbols, batches, contents: _ } = frame.body;
        let mut fence = Fence::new(&self.rules, symbols);
        let batches = batches.into_iter().map(|batch| fence.pass(batch, &mut self.memory)).collect();
        let (symbols, tally) = fence.finish();
        Ok(Placed { geofenced: Geofenced { symbols, batches }, tally })
    }
}

impl Outcome for Placed {
    fn encode(&self, headers: &[Header]) -> Vec<Bytes> {
        headers.iter().map(|header| frame::encode(header, &self.geofenced)).collect()
    }

    fn tally(&self) -> Tally {
        self.tally.clone()
    }
}

#[cfg(test)]
mod tests;
