//! The command line: what there is to call, and what each call runs. Every command has a module of its own.

use std::io::{BufWriter, Write};
use std::time::Duration;

use jackpot_core::telemetry;

use crate::server::CONNECT_MAX;
use crate::{
    bench, chaos, completions, explain, frame, init, load, publish, serve, status, terms, up, verify, views,
    wait, watch,
};

/// The operator's command of the jackpot pipeline.
#[derive(Debug, clap::Parser)]
#[command(name = "jackpot", version, arg_required_else_help = true, disable_help_subcommand = true)]
pub struct Cli {
    /// Say on standard error what goes on below; RUST_LOG says what of it.
    #[arg(long, short, global = true)]
    verbose: bool,
    #[arg(long, env = "RUST_LOG", hide = true, value_name = "LEVELS", value_parser = telemetry::check_levels)]
    log_levels: Option<String>,
    #[command(subcommand)]
    command: Command,
}

/// What is logged: nothing where nobody asks, since a command tells in its own words what a person needs.
fn levels(asked: Option<&str>, verbose: bool) -> &str {
    let asked = asked.filter(|levels| !levels.is_empty());
    asked.unwrap_or(if verbose { telemetry::LEVELS } else { "off" })
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Runs the whole pipeline on this machine.
    Up(up::Args),
    /// Creates the streams on a server, or checks those that are there.
    Init(init::Args),
    /// Checks, applies and shows terms.
    #[command(subcommand)]
    Terms(terms::Command),
    /// Publishes newline-delimited wager batches.
    Publish(publish::Args),
    /// Publishes synthetic traffic.
    Load(load::Args),
    /// Waits until all that was published before is in totals and audit.
    Wait(wait::Args),
    /// Shows the present state of each level.
    Totals(views::Args),
    /// Shows closed windows.
    Windows(views::WindowsArgs),
    /// Shows hits.
    Hits(views::Args),
    /// Shows refusals.
    Refusals(views::Args),
    /// Shows jackpots, rates and hits, live.
    Watch(watch::Args),
    /// Serves the live page of jackpots, rates and hits; reads only.
    Serve(serve::Args),
    /// Shows who works on what, how far it is, and what stands in the way.
    Status(status::Args),
    /// Shows what has become of each source's batches.
    Sources(views::Args),
    /// Shows one wager through every stage.
    Explain(explain::Args),
    /// Proves the audit log, the books and the totals against the raw wagers.
    Verify(verify::Args),
    /// Prints a frame of a lane as JSON.
    Frame(frame::Args),
    /// Measures the pipeline on this machine.
    Bench(bench::Args),
    /// Kills, holds and restarts the processes of a pipeline of its own under load, and proves the record.
    Chaos(chaos::Args),
    /// Prints what lets a shell complete this command's words.
    Completions(completions::Args),
}

/// Runs a command to its end.
pub async fn run(cli: Cli) -> anyhow::Result<()> {
    telemetry::start_at(levels(cli.log_levels.as_deref(), cli.verbose));
    let mut out = BufWriter::new(std::io::stdout().lock());
    dispatch(cli.command, &mut out).await?;
    out.flush()?;
    Ok(())
}

async fn dispatch(command: Command, out: &mut impl Write) -> anyhow::Result<()> {
    match command {
        Command::Up(args) => up::run(args, out).await,
        Command::Init(args) => init::run(&args, out).await,
        Command::Terms(terms::Command::Check(args)) => terms::check(&args, out),
        Command::Terms(terms::Command::Plan(args)) => {
            terms::plan::run(&args, &args.server.connect(CONNECT_MAX).await?, out).await
        }
        Command::Terms(terms::Command::Apply(args)) => {
            let log = args.server.connect(CONNECT_MAX).await?;
            terms::apply(&args, &log, async || status::ask(&log).await, out).await
        }
        Command::Terms(terms::Command::Show(args)) => {
            terms::show(&args, &args.server.connect(CONNECT_MAX).await?, out).await
        }
        Command::Publish(args) => {
            let log = args.server.connect(args.timeout).await?;
            publish::run(args, log).await
        }
        Command::Load(args) => load::run(&args, args.server.connect(patient()).await?, out).await,
        Command::Wait(args) => wait::run(&args, &args.server.connect(CONNECT_MAX).await?).await,
        Command::Totals(args) => view(&views::TOTALS, &args, out).await,
        Command::Hits(args) => view(&views::HITS, &args, out).await,
        Command::Refusals(args) => view(&views::REFUSALS, &args, out).await,
        Command::Sources(args) => view(&views::SOURCES, &args, out).await,
        Command::Watch(args) => watch::run(&args.server.connect(CONNECT_MAX).await?, out).await,
        Command::Serve(args) => serve::run(&args, out).await,
        Command::Status(args) => status::run(&args, &args.server.connect(CONNECT_MAX).await?, out).await,
        Command::Explain(args) => explain::run(&args, &args.server.connect(CONNECT_MAX).await?, out).await,
        Command::Verify(args) => verify::run(&args, &args.server.connect(CONNECT_MAX).await?, out).await,
        Command::Frame(args) => frame::run(&args, &args.server.connect(CONNECT_MAX).await?, out).await,
        Command::Bench(args) => bench::run(&args, out).await,
        Command::Chaos(args) => chaos::run(&args, out).await,
        Command::Completions(args) => completions::run(&args, out),
        Command::Windows(args) => {
            let log = args.view.server.connect(CONNECT_MAX).await?;
            views::run_windows(&views::WINDOWS, &args, &log, out).await
        }
    }
}

async fn view(view: &views::View, args: &views::Args, out: &mut impl Write) -> anyhow::Result<()> {
    views::run(view, args, &args.server.connect(CONNECT_MAX).await?, out).await
}

/// Publishing outlasts a server that is away.
fn patient() -> Duration {
    load::PATIENCE
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn nothing_is_logged_unless_it_is_asked_for() {
        assert_eq!(levels(None, false), "off");
        assert_eq!(levels(Some(""), false), "off");
        assert_eq!(levels(None, true), telemetry::LEVELS);
        assert_eq!(levels(Some("warn"), true), "warn");
    }

    #[test]
    fn no_command_has_two_flags_of_one_name() {
        Cli::command().debug_assert();
    }
}
