//! The `validate` stage as a process: one intake per partition.

use std::process::ExitCode;
use std::time::Duration;

use jackpot_core::log::jetstream::JetStream;
use jackpot_core::refusal::StageName;
use jackpot_core::runner::{Context, drive};
use jackpot_core::service::{self, Program, Running};
use jackpot_core::settings::Mistakes;
use validate::intake::{Intake, Settings};

struct Process;

#[derive(clap::Args)]
struct Args {
    /// How much later than the newest one a wager may come and still be on time
    #[arg(long, env = "JACKPOT_LATENESS", value_name = "DURATION", default_value = "2s")]
    lateness: String,
    /// How long nothing must have been stored for a partition until it counts as idle
    #[arg(long, env = "JACKPOT_IDLE_AFTER", value_name = "DURATION", default_value = "1s")]
    idle_after: String,
}

impl Program for Process {
    const STAGE: StageName = StageName::Validate;
    type Args = Args;
    type Settings = Settings;

    fn check(args: &Args, mistakes: &mut Mistakes) -> Option<Settings> {
        let lateness: Option<Duration> = mistakes.duration("--lateness", &args.lateness);
        let idle_after = mistakes.duration("--idle-after", &args.idle_after);
        Some(Settings { lateness: lateness?, idle_after: idle_after? })
    }

    fn parts(
        context: &Context<JetStream>,
        partitions: &[u16],
        _total: u16,
        settings: Settings,
    ) -> Vec<Running> {
        let run = |&partition| -> Running {
            let context = context.clone();
            Box::pin(async move { drive(&context, Intake::new(context.clone(), partition, settings)).await })
        };
        partitions.iter().map(run).collect()
    }
}

fn main() -> ExitCode {
    service::main::<Process>()
}
