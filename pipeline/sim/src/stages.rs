//! The parts of a stage's process, put together as its `main.rs` does. What a process has beside them, settings,
//! signals and the admin port, the simulation does without.

use std::future::Future;
use std::time::Duration;

use aggregate::committer::{Committer, Settings as LedgerSettings};
use aggregate::views::exact::{ExactView, Kind};
use aggregate::views::totals::TotalsView;
use allocate::Allocate;
use audit::Audit;
use audit::sources::SourcesView;
use geofence::Geofence;
use jackpot_core::lane::runner::LaneRunner;
use jackpot_core::log::Log;
use jackpot_core::record::WindowSettings;
use jackpot_core::refusal::StageName;
use jackpot_core::runner::{Context, Part, drive};
use jackpot_core::snapshot::{Key, drive_archived};
use jackpot_core::stage::Stage;
use validate::intake::{Intake, Settings as IntakeSettings};

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

/// The parts of a process of this stage that runs these partitions.
pub fn parts<L: Log>(
    stage: StageName,
    context: &Context<L>,
    partitions: &[u16],
    settings: &StageSettings,
) -> Vec<Work> {
    let of_each = |part: &dyn Fn(u16) -> Work| partitions.iter().map(|&partition| part(partition)).collect();
    match stage {
        StageName::Validate => of_each(&|partition| {
            let (key, settings) = (Key::partition(stage, partition), settings.intake);
            Box::pin(drive_archived(context.clone(), key, vec![partition], move |context, desk| {
                Intake::new(context, partition, settings).with_desk(desk)
            }))
        }),
        StageName::Geofence => of_each(&|partition| {
            let key = Key::partition(stage, partition);
            Box::pin(drive_archived(context.clone(), key, vec![partition], move |context, desk| {
                LaneRunner::new(context, partition, Geofence::default()).with_desk(desk)
            }))
        }),
        StageName::Allocate => of_each(&|partition| lane(context, partition, Allocate::default())),
        StageName::Aggregate => ledger(context, settings),
        StageName::Audit => {
            let mut parts: Vec<Work> = of_each(&|partition| lane(context, partition, Audit::default()));
            parts.extend(partitions.iter().map(|&partition| {
                run(context, SourcesView::new(context.clone(), partition, settings.partitions))
            }));
            parts
        }
    }
}

/// The ledger has all partitions, whichever its process was given.
fn ledger<L: Log>(context: &Context<L>, settings: &StageSettings) -> Vec<Work> {
    let ledger = LedgerSettings { workers: 1, windows: settings.windows.clone() };
    let partitions = settings.partitions;
    let committer = move |context, desk| Committer::new(context, partitions, ledger).with_desk(desk);
    vec![
        Box::pin(drive_archived(context.clone(), Key::ledger(), (0..partitions).collect(), committer)),
        run(context, TotalsView::new(context.clone())),
        run(context, ExactView::new(context.clone(), Kind::Hits)),
        run(context, ExactView::new(context.clone(), Kind::Windows)),
    ]
}

fn lane<L: Log, S: Stage + 'static>(context: &Context<L>, partition: u16, stage: S) -> Work {
    run(context, LaneRunner::new(context.clone(), partition, stage))
}

fn run<L: Log, P: Part + 'static>(context: &Context<L>, part: P) -> Work {
    let context = context.clone();
    Box::pin(async move { drive(&context, part).await }) as std::pin::Pin<Box<dyn Future<Output = ()>>>
}
