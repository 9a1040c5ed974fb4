//! The `audit` stage as a process: one lane per partition, and the view of its sources.

use std::process::ExitCode;

use jackpot_core::log::jetstream::JetStream;
use jackpot_core::refusal::StageName;
use jackpot_core::runner::Context;
use jackpot_core::service::{self, NoArgs, Program, Running};
use jackpot_core::settings::Mistakes;

struct Process;

impl Program for Process {
    const STAGE: StageName = StageName::Audit;
    type Args = NoArgs;
    type Settings = ();

    fn check(_: &NoArgs, _: &mut Mistakes) -> Option<()> {
        Some(())
    }

    fn parts(context: &Context<JetStream>, partition: u16, total: u16, (): &()) -> Vec<Running> {
        audit::parts(context, partition, total)
    }
}

fn main() -> ExitCode {
    service::main::<Process>()
}
