//! The `audit` stage as a process: one lane per partition, and the view of its sources.

use std::process::ExitCode;

use audit::Audit;
use audit::sources::SourcesView;
use jackpot_core::lane::runner::LaneRunner;
use jackpot_core::log::jetstream::JetStream;
use jackpot_core::refusal::StageName;
use jackpot_core::runner::{Context, drive};
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

    fn parts(context: &Context<JetStream>, partitions: &[u16], total: u16, (): ()) -> Vec<Running> {
        let mut parts: Vec<Running> = Vec::new();
        for &partition in partitions {
            let (lane, view) = (context.clone(), context.clone());
            parts.push(Box::pin(async move {
                drive(&lane, LaneRunner::new(lane.clone(), partition, Audit::default())).await;
            }));
            parts.push(Box::pin(async move {
                drive(&view, SourcesView::new(view.clone(), partition, total)).await;
            }));
        }
        parts
    }
}

fn main() -> ExitCode {
    service::main::<Process>()
}
