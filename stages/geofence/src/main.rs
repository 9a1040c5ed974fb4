//! The `geofence` stage as a process: one lane per partition.

use std::process::ExitCode;

use geofence::Geofence;
use jackpot_core::lane::runner::LaneRunner;
use jackpot_core::log::jetstream::JetStream;
use jackpot_core::refusal::StageName;
use jackpot_core::runner::Context;
use jackpot_core::service::{self, NoArgs, Program, Running};
use jackpot_core::settings::Mistakes;
use jackpot_core::snapshot::{Key, drive_archived};

struct Process;

impl Program for Process {
    const STAGE: StageName = StageName::Geofence;
    type Args = NoArgs;
    type Settings = ();

    fn check(_: &NoArgs, _: &mut Mistakes) -> Option<()> {
        Some(())
    }

    fn part(context: &Context<JetStream>, partition: u16, _total: u16, (): &()) -> Running {
        let key = Key::partition(StageName::Geofence, partition);
        Box::pin(drive_archived(context.clone(), key, vec![partition], move |context, desk| {
            LaneRunner::new(context, partition, Geofence::default()).with_desk(desk)
        }))
    }
}

fn main() -> ExitCode {
    service::main::<Process>()
}
