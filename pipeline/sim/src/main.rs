//! `sim`: runs seeds of the simulation, one after the other, over as many threads as it is given.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clap::Parser;
use sim::scenario::{self, Report};
use tracing_subscriber::filter::LevelFilter;

/// How often a long run says how far it is.
const SAY_EVERY: u64 = 1_000;

/// Runs the whole pipeline in one thread over a faulty log, from a seed, and audits what comes out.
#[derive(Parser)]
#[command(name = "sim")]
struct Cli {
    /// Run this seed alone
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Run these seeds, the last one not included
    #[arg(long, value_name = "FROM..TO", value_parser = range, default_value = "0..100")]
    seeds: Range<u64>,
    /// Run every seed twice, and compare
    #[arg(long)]
    twice: bool,
    /// Print what happens; with --seed
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Go on after a seed that failed
    #[arg(long)]
    all: bool,
    /// Threads; each runs seeds of its own
    #[arg(long, default_value_t = 1)]
    jobs: usize,
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let form = "give two numbers, such as 0..500";
    let (from, to) = text.split_once("..").ok_or(form)?;
    match (from.parse(), to.parse()) {
        (Ok(from), Ok(to)) if from < to => Ok(from..to),
        _ => Err(form.into()),
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.trace {
        tracing_subscriber::fmt().without_time().with_max_level(LevelFilter::INFO).with_ansi(false).init();
    }
    let seed_alone = cli.seed.is_some();
    std::panic::set_hook(Box::new(move |panic| {
        // What it says is printed with its seed.
        if seed_alone && let Some(place) = panic.location() {
            eprintln!("at {place}");
        }
    }));
    let seeds = cli.seed.map_or(cli.seeds.clone(), |seed| seed..seed + 1);
    let (next, failed, sum) =
        (AtomicU64::new(seeds.start), AtomicBool::new(false), Mutex::new(Sum::default()));
    std::thread::scope(|scope| {
        for _ in 0..cli.jobs.max(1) {
            scope.spawn(|| {
                while cli.all || !failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    match try_seed(seed, &cli) {
                        Ok(report) => {
                            let mut sum = sum.lock().expect("nobody panics with the sum");
                            sum.add(&report);
                            if sum.runs % SAY_EVERY == 0 {
                                eprintln!("{sum}");
                            }
                        }
                        Err(why) => {
                            failed.store(true, Ordering::Relaxed);
                            eprintln!("seed {seed} failed: {why}; replay with: cargo run -p sim -- --seed {seed} --trace");
                        }
                    }
                }
            });
        }
    });
    if failed.into_inner() {
        return ExitCode::FAILURE;
    }
    println!("seeds {} to {}: all green; {}", seeds.start, seeds.end - 1, sum.into_inner().expect("the sum"));
    ExitCode::SUCCESS
}

fn try_seed(seed: u64, cli: &Cli) -> Result<Report, String> {
    let report = attempt(seed, cli.trace)?;
    if cli.twice && attempt(seed, false)? != report {
        return Err("two runs of it differ".into());
    }
    Ok(report)
}

/// A run; what a panic said, where there was one. A build that aborts on panic ends with it.
fn attempt(seed: u64, aloud: bool) -> Result<Report, String> {
    catch_unwind(AssertUnwindSafe(|| scenario::run(seed, aloud))).map_err(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
        said.unwrap_or("it panicked").to_owned()
    })
}

/// What all runs did together.
#[derive(Default)]
struct Sum {
    runs: u64,
    polls: u64,
    simulated: Duration,
    allocated: u64,
    refusals: usize,
    hits: usize,
    frames: usize,
    commits: usize,
    stopped: u64,
}

impl Sum {
    fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.polls += report.polls;
        self.simulated += report.simulated;
        self.allocated += report.counted.allocated;
        self.refusals += report.counted.refusals;
        self.hits += report.counted.hits;
        self.frames += report.counted.frames;
        self.commits += report.counted.commits;
        self.stopped += u64::from(report.stopped > 0);
    }
}

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { runs, polls, simulated, allocated, refusals, hits, frames, commits, stopped } = self;
        let minutes = simulated.as_secs() / 60;
        write!(
            f,
            "{runs} runs, {minutes} simulated minutes, {polls} polls, {frames} frames, {commits} commits, {allocated} \
             wagers allocated, {refusals} refusals, {hits} hits; {stopped} runs in which somebody had to stop"
        )
    }
}
