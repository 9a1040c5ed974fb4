//! What runs a partition of validate: `main` puts it into a process, and the simulation into one of its own.

use jackpot_core::log::Log;
use jackpot_core::refusal::StageName;
use jackpot_core::runner::Context;
use jackpot_core::service::Running;
use jackpot_core::snapshot::{Key, drive_archived};

use crate::intake::{Intake, Settings};
use crate::keys::KeyFile;

/// One intake, with the archivist of its state.
pub fn parts<L: Log>(
    context: &Context<L>,
    partition: u16,
    settings: Settings,
    keys: &KeyFile,
) -> Vec<Running> {
    let (key, keys) = (Key::partition(StageName::Validate, partition), keys.clone());
    vec![Box::pin(drive_archived(context.clone(), key, vec![partition], move |context, desk| {
        Intake::new(context, partition, settings).with_keys(keys).with_desk(desk)
    }))]
}
