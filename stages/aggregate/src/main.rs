//! The `aggregate` stage as a process: the committer, and the views of what it commits.

use std::process::ExitCode;
use std::time::Duration;

use aggregate::committer::Settings;
use aggregate::windows;
use jackpot_core::log::jetstream::JetStream;
use jackpot_core::metrics::business::Business;
use jackpot_core::record::WindowSettings;
use jackpot_core::refusal::StageName;
use jackpot_core::runner::Context;
use jackpot_core::service::{self, Program, Running};
use jackpot_core::settings::Mistakes;

struct Process;

#[derive(clap::Args)]
struct Args {
    /// The lengths of windows in whole seconds, ascending; the first commit fixes them
    #[arg(long, env = "JACKPOT_WINDOWS", value_name = "SECONDS", default_value = "1,60,3600")]
    windows: String,
    /// How far the greatest watermark may run ahead before it closes windows alone
    #[arg(long, env = "JACKPOT_MAX_SKEW", value_name = "DURATION", default_value = "300s")]
    max_skew: String,
    /// Worker threads of the dataflow; one is best below hundreds of pools
    #[arg(long, env = "JACKPOT_WORKERS", value_name = "NUMBER", default_value = "1")]
    workers: String,
    /// Also serve the state of each level, and contributions by operator, jurisdiction and game: at most 1,000 series
    #[arg(
        long,
        env = "JACKPOT_BUSINESS_METRICS",
        value_name = "on|off",
        num_args = 0..=1,
        require_equals = true,
        default_value = "off",
        default_missing_value = "on"
    )]
    business_metrics: String,
}

/// [`Args`], checked.
struct Own {
    committer: Settings,
    business_metrics: bool,
}

impl Program for Process {
    const STAGE: StageName = StageName::Aggregate;
    type Args = Args;
    type Settings = Own;
    /// The ledger has all partitions: `--only` has no meaning for it.
    const DIVIDED: bool = false;

    fn check(args: &Args, mistakes: &mut Mistakes) -> Option<Own> {
        let business = match args.business_metrics.as_str() {
            "on" => Some(true),
            "off" => Some(false),
            _ => None,
        };
        let business =
            mistakes.check("--business-metrics", &args.business_metrics, business, "give on or off");
        let workers = args.workers.parse().ok().filter(|workers| (1..=64).contains(workers));
        let workers = mistakes.check("--workers", &args.workers, workers, "give a number from 1 to 64");
        let whole = |skew: Duration| u32::try_from(skew.as_secs()).ok().filter(|_| skew.subsec_nanos() == 0);
        let max_skew_s = mistakes.duration("--max-skew", &args.max_skew).and_then(|skew| {
            let form = "give whole seconds, at most 4294967295s";
            mistakes.check("--max-skew", &args.max_skew, whole(skew), form)
        });
        let seconds =
            args.windows.split(',').map(|word| word.trim().parse().ok()).collect::<Option<Vec<u32>>>();
        let form = "give whole seconds, ascending, such as 1,60,3600";
        let seconds = mistakes.check("--windows", &args.windows, seconds, form)?;
        let windows = WindowSettings { seconds, max_skew_s: max_skew_s? };
        let valid = windows::check(&windows);
        let what = valid.as_ref().err().map(ToString::to_string).unwrap_or_default();
        mistakes.check("--windows", &args.windows, valid.ok(), &what)?;
        Some(Own { committer: Settings { workers: workers?, windows }, business_metrics: business? })
    }

    fn parts(context: &Context<JetStream>, _: u16, total: u16, own: &Own) -> Vec<Running> {
        let settings = own.committer.clone();
        let business = own.business_metrics.then(|| {
            let mut lengths = settings.windows.seconds.iter().copied();
            let detailed = lengths.find(|&seconds| seconds >= windows::DETAILED_FROM_S);
            Business::register(&context.metrics, Self::STAGE, detailed)
        });
        aggregate::parts(context, total, settings, business)
    }
}

fn main() -> ExitCode {
    service::main::<Process>()
}
