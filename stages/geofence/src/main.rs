//! The `geofence` stage as a process: one lane per partition.

use std::process::ExitCode;

use jackpot_core::log::jetstream::JetStream;
use jackpot_core::refusal::StageName;
use jackpot_core::runner::Context;
use jackpot_core::service::{self, NoArgs, Program, Running};
use jackpot_core::settings::Mistakes;

struct Process;

impl Program for Process {
    const STAGE: StageName = StageName::Geofence;
    type Args = NoArgs;
    type Settings = ();

    fn check(_: &NoArgs, _: &mut Mistakes) -> Option<()> {
        Some(())
    }

    fn parts(context: &Context<JetStream>, partition: u16, _total: u16, (): &()) -> Vec<Running> {
        geofence::parts(context, partition)
    }
}

fn main() -> ExitCode {
    service::main::<Process>()
}
