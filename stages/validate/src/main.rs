//! The `validate` stage as a process: one intake per partition.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use jackpot_core::keys::Keys;
use jackpot_core::log::jetstream::JetStream;
use jackpot_core::refusal::StageName;
use jackpot_core::runner::Context;
use jackpot_core::service::{self, Program, Running};
use jackpot_core::settings::{Mistakes, file_name};
use validate::KeyFile;
use validate::intake::Settings;

struct Process;

#[derive(clap::Args)]
struct Args {
    /// How much later than the newest one a wager may come and still be on time
    #[arg(long, env = "JACKPOT_LATENESS", value_name = "DURATION", default_value = "2s")]
    lateness: String,
    /// How long nothing must have been stored for a partition until it counts as idle
    #[arg(long, env = "JACKPOT_IDLE_AFTER", value_name = "DURATION", default_value = "1s")]
    idle_after: String,
    /// The secrets of the keys that the terms name, a line each: `<key id> whsec_<base64>`
    #[arg(long, env = "JACKPOT_KEYS", value_name = "FILE", value_parser = file_name())]
    keys: Option<PathBuf>,
}

/// [`Args`], checked.
struct Own {
    intake: Settings,
    keys: KeyFile,
}

impl Program for Process {
    const STAGE: StageName = StageName::Validate;
    type Args = Args;
    type Settings = Own;

    fn check(args: &Args, mistakes: &mut Mistakes) -> Option<Own> {
        let lateness: Option<Duration> = mistakes.duration("--lateness", &args.lateness);
        let idle_after = mistakes.duration("--idle-after", &args.idle_after);
        if let Some(file) = &args.keys
            && let Err(error) = Keys::read(file)
        {
            mistakes.check::<()>("--keys", &file.display().to_string(), None, &error.to_string());
        }
        let intake = Settings { lateness: lateness?, idle_after: idle_after? };
        Some(Own { intake, keys: KeyFile::new(args.keys.clone()) })
    }

    fn parts(context: &Context<JetStream>, partition: u16, _total: u16, own: &Own) -> Vec<Running> {
        validate::parts(context, partition, own.intake, &own.keys)
    }
}

fn main() -> ExitCode {
    service::main::<Process>()
}
