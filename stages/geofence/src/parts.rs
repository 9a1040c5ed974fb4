//! What runs a partition of geofence: `main` puts it into a process, and the simulation into one of its own.

use jackpot_core::lane::runner::LaneRunner;
use jackpot_core::log::Log;
use jackpot_core::refusal::StageName;
use jackpot_core::runner::Context;
use jackpot_core::service::Running;
use jackpot_core::snapshot::{Key, drive_archived};

use crate::Geofence;

/// One lane, with the archivist of its state.
pub fn parts<L: Log>(context: &Context<L>, partition: u16) -> Vec<Running> {
    let key = Key::partition(StageName::Geofence, partition);
    vec![Box::pin(drive_archived(context.clone(), key, vec![partition], move |context, desk| {
        LaneRunner::new(context, partition, Geofence::default()).with_desk(desk)
    }))]
}
