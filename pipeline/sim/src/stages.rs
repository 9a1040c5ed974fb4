//! The stages, and what runs their partitions: the parts that their `main.rs` runs, too. What a process has beside them,
//! flags, signals and the admin port, the simulation does without.

use std::time::Duration;

use aggregate::committer::Settings as LedgerSettings;
use jackpot_core::log::Log;
use jackpot_core::record::WindowSettings;
use jackpot_core::refusal::StageName;
use jackpot_core::runner::Context;
use validate::KeyFile;
use validate::intake::Settings as IntakeSettings;

use crate::executor::Work;

/// The stages, in the order of the flow.
pub const ALL: [StageName; 5] =
    [StageName::Validate, StageName::Geofence, StageName::Allocate, StageName::Aggregate, StageName::Audit];

/// How the stages run; the same in every process of a deployment.
#[derive(Debug, Clone)]
pub struct StageSettings {
    /// Partitions in all.
    pub partitions: u16,
    /// Validate's.
    pub intake: IntakeSettings,
    /// How windows are closed.
    pub windows: WindowSettings,
    /// See [`Context::stand_by`].
    pub stand_by: Duration,
    /// See [`Context::snapshot_bytes`].
    pub snapshot_bytes: u64,
}

/// Whether the partitions of a stage are divided among its processes. The ledger is one.
pub fn is_divided(stage: StageName) -> bool {
    stage != StageName::Aggregate
}

/// The parts that run a partition of this stage, or the whole ledger.
pub fn parts<L: Log>(
    stage: StageName,
    context: &Context<L>,
    partition: u16,
    settings: &StageSettings,
    keys: &KeyFile,
) -> Vec<Work> {
    let total = settings.partitions;
    match stage {
        StageName::Validate => validate::parts(context, partition, settings.intake, keys),
        StageName::Geofence => geofence::parts(context, partition),
        StageName::Allocate => allocate::parts(context, partition),
        StageName::Aggregate => {
            let windows = settings.windows.clone();
            aggregate::parts(context, total, LedgerSettings { workers: 1, windows }, None)
        }
        StageName::Audit => audit::parts(context, partition, total),
    }
}
