//! What runs a partition of the audit: `main` puts it into a process, and the simulation into one of its own.

use jackpot_core::lane::runner::LaneRunner;
use jackpot_core::log::Log;
use jackpot_core::runner::Context;
use jackpot_core::service::{Running, driven};

use crate::Audit;
use crate::sources::SourcesView;

/// One lane, and the view of the partition's sources, of so many partitions in all.
pub fn parts<L: Log>(context: &Context<L>, partition: u16, total: u16) -> Vec<Running> {
    vec![
        driven(context, LaneRunner::new(context.clone(), partition, Audit::default())),
        driven(context, SourcesView::new(context.clone(), partition, total)),
    ]
}
