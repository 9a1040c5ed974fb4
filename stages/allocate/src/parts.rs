//! What runs a partition of allocate: `main` puts it into a process, and the simulation into one of its own.

use jackpot_core::lane::runner::LaneRunner;
use jackpot_core::log::Log;
use jackpot_core::runner::Context;
use jackpot_core::service::{Running, driven};

use crate::Allocate;

/// One lane.
pub fn parts<L: Log>(context: &Context<L>, partition: u16) -> Vec<Running> {
    vec![driven(context, LaneRunner::new(context.clone(), partition, Allocate::default()))]
}
