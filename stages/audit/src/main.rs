//! The `audit` stage as a process: one lane per partition, and the view of its sources.

use std::process::ExitCode;

use audit::Audit;
use audit::sources::SourcesView;
use jackpot_core::lane::runner::LaneRunner;
use jackpot_core::log::jetstream::JetStream;
use jackpot_core::refusal::StageName;
use jackpot_core::runner::{Context, drive};
use jackpot_core::service::{self, NoArgs, Program, Running, together};
use jackpot_core::settings::Mistakes;

struct Process;

impl Program for Process {
    const STAGE: StageName = StageName::Audit;
    type Args = NoArgs;
    type Settings = ();

    fn check(_: &NoArgs, _: &mut Mistakes) -> Option<()> {
        Some(())
    }

    fn part(context: &Context<JetStream>, partition: u16, total: u16, (): &()) -> Running {
        let (lane, view) = (context.clone(), context.clone());
        let parts: [Running; 2] = [
            Box::pin(async move {
                drive(&lane, LaneRunner::new(lane.clone(), partition, Audit::default())).await;
            }),
            Box::pin(async move {
                drive(&view, SourcesView::new(view.clone(), partition, total)).await;
            }),
        ];
        together(parts)
    }
}

fn main() -> ExitCode {
    service::main::<Process>()
}
