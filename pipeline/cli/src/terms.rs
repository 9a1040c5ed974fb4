//! `jackpot terms`: checks terms, applies them while everything runs, and shows what was applied.
//! How revisions are kept is `jackpot_core::terms::store`'s matter; when a revision takes effect, the ledger's.

pub mod plan;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use jackpot_core::frame::Header;
use jackpot_core::frame::validated::Validated;
use jackpot_core::keys::Keys;
use jackpot_core::log::{AppendError, Log, LogError};
use jackpot_core::record::IdleNotice;
use jackpot_core::terms::store::{self, StoreError};
use jackpot_core::terms::{Fault, Terms};
use jackpot_core::topology::{self, Lane};
use tokio::time::{Instant, sleep};

use crate::duration;
use crate::keys::KeysFlag;
use crate::progress::counted;
use crate::server::Server;
use crate::{streams, wait};

/// The example terms: what `jackpot up` applies where none are named.
pub const EXAMPLE: &[u8] = include_bytes!("../terms/example.json");
/// How often it is asked whether a revision runs, and a passing failure is tried again.
const POLL: Duration = Duration::from_millis(50);

/// Checks, applies and shows terms.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Finds all faults of a document, without a server.
    Check(CheckArgs),
    /// Prints what a document would change, and when each change takes effect.
    Plan(plan::Args),
    /// Applies a document, and waits until every partition runs it.
    Apply(ApplyArgs),
    /// Prints an applied revision; the last one where none is named.
    Show(ShowArgs),
}

/// Arguments of `terms check`.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// The document.
    file: PathBuf,
}

/// Arguments of `terms apply`.
#[derive(Debug, clap::Args)]
pub struct ApplyArgs {
    #[command(flatten)]
    pub(crate) server: Server,
    /// The document.
    file: PathBuf,
    #[command(flatten)]
    keys: KeysFlag,
    /// How long to wait until every partition runs it.
    #[arg(long, default_value = "60s", value_parser = duration::parse)]
    timeout: Duration,
}

/// Arguments of `terms show`.
#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    #[command(flatten)]
    pub(crate) server: Server,
    /// The revision.
    revision: Option<u64>,
}

/// Prints what is wrong with a document, or what is in it.
pub fn check(args: &CheckArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let document = read(&args.file)?;
    let terms = parse(&args.file.display().to_string(), &document, out)?;
    let levels = terms.pools.iter().map(|pool| pool.levels.len()).sum::<usize>();
    let count = |count: usize, one, many| counted(u64::try_from(count).unwrap_or(u64::MAX), one, many);
    writeln!(
        out,
        "{}: no faults: revision {}, {} with {}, {}, {}",
        args.file.display(),
        terms.revision,
        count(terms.pools.len(), "pool", "pools"),
        count(levels, "level", "levels"),
        count(terms.sources.len(), "source", "sources"),
        count(terms.games.len(), "game", "games"),
    )?;
    Ok(())
}

/// Reads a document from a file.
pub fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("cannot read {}; name a file of terms", file.display()))
}

/// Reads terms; faults go to `faults`, one a line.
pub fn parse(name: &str, document: &[u8], faults: &mut impl Write) -> anyhow::Result<Terms> {
    Terms::parse(document).map_err(|found| refused(name, &found, faults))
}

fn refused(name: &str, found: &[Fault], faults: &mut impl Write) -> anyhow::Error {
    for fault in found {
        if let Err(error) = writeln!(faults, "{fault}") {
            return error.into();
        }
    }
    let count = u64::try_from(found.len()).unwrap_or(u64::MAX);
    anyhow!("{name} has {}; mend what is named and try again", counted(count, "fault", "faults"))
}

/// Checks, stores and activates terms, and waits until they run.
pub async fn apply<L: Log>(args: &ApplyArgs, log: &L, out: &mut impl Write) -> anyhow::Result<()> {
    let document = read(&args.file)?;
    let name = args.file.display().to_string();
    let terms = parse(&name, &document, &mut std::io::stderr())?;
    match args.keys.read()? {
        Some(keys) => find_keys(&name, &terms, &args.keys, Some(&keys))?,
        None if terms.sources.iter().any(|source| !source.keys.is_empty()) => eprintln!(
            "jackpot: {name} names keys, and without --keys FILE nobody sees whether they are there; validate stops at this \
             revision where one is missing"
        ),
        None => {}
    }
    let deadline = Instant::now() + args.timeout;
    activate(log, &terms, deadline).await?;
    running(log, terms.revision, deadline).await?;
    writeln!(out, "revision {} is in force on every partition", terms.revision)?;
    Ok(())
}

/// Refuses terms that name a key that is not there.
pub fn find_keys(name: &str, terms: &Terms, flag: &KeysFlag, keys: Option<&Keys>) -> anyhow::Result<()> {
    let faults = flag.faults(terms, keys);
    if faults.is_empty() { Ok(()) } else { Err(refused(name, &faults, &mut std::io::stderr())) }
}

/// Stores terms and puts their markers into the ingress; all of it is safe to repeat.
pub async fn activate<L: Log>(log: &L, terms: &Terms, deadline: Instant) -> anyhow::Result<()> {
    let partitions = streams::partitions(log).await?;
    loop {
        let error = match try_activate(log, partitions, terms).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let passing = matches!(
            error.downcast_ref::<StoreError>(),
            Some(
                StoreError::Log(LogError::Unavailable(_))
                    | StoreError::Append(
                        AppendError::Fenced(_) | AppendError::Full(_) | AppendError::Unknown(_)
                    )
            )
        );
        if !passing || Instant::now() + POLL >= deadline {
            return Err(error);
        }
        sleep(POLL).await;
    }
}

async fn try_activate<L: Log>(log: &L, partitions: u16, terms: &Terms) -> anyhow::Result<()> {
    plan::refuse(&plan::changes(log, terms).await?)?;
    let claim = store::store(log, terms).await?;
    store::activate(log, partitions, &claim).await?;
    Ok(())
}

/// Waits until every partition runs a revision: its validate stamps it on a frame, or says so while it is idle; and
/// until the ledger has run it.
pub async fn running<L: Log>(log: &L, revision: u64, deadline: Instant) -> anyhow::Result<()> {
    let partitions = streams::partitions(log).await?;
    let mut notices = log.listen(topology::IDLE_ALL).await?;
    let mut waiting: BTreeSet<u16> = (0..partitions).collect();
    loop {
        while let Ok((_, payload)) = notices.try_recv() {
            if let Ok(notice) = serde_json::from_slice::<IdleNotice>(&payload)
                && notice.terms >= revision
            {
                waiting.remove(&notice.partition);
            }
        }
        let what = match still_waiting(log, revision, &mut waiting).await {
            Ok(None) => return Ok(()),
            Ok(Some(what)) => what,
            Err(error) => match error.downcast_ref::<LogError>() {
                Some(LogError::Unavailable(_)) => error.to_string(),
                _ => return Err(error),
            },
        };
        if Instant::now() + POLL >= deadline {
            bail!(
                "revision {revision} is applied, but {what} yet; see that all stages run, then run the same command \
                 again"
            );
        }
        sleep(POLL).await;
    }
}

/// Who does not run the revision, in words; `None` when everybody does.
async fn still_waiting<L: Log>(
    log: &L,
    revision: u64,
    waiting: &mut BTreeSet<u16>,
) -> anyhow::Result<Option<String>> {
    for partition in waiting.clone() {
        let lane = Lane::Validated;
        let last = log.last(&lane.stream(partition), &lane.subject(partition)).await?;
        let stamped = last.map(|entry| Header::peek::<Validated>(&entry.payload)).transpose()?;
        if stamped.is_some_and(|header| header.terms >= revision) {
            waiting.remove(&partition);
        }
    }
    if let Some(partition) = waiting.first() {
        return Ok(Some(format!("partition {partition} does not run it")));
    }
    let ran = wait::last_commit(log).await?.map_or(0, |commit| commit.terms);
    Ok((ran < revision).then(|| format!("no commit has run it (the last one ran {ran})")))
}

/// Prints an applied revision as JSON.
pub async fn show<L: Log>(args: &ShowArgs, log: &L, out: &mut impl Write) -> anyhow::Result<()> {
    let terms = match args.revision {
        Some(revision) => store::load(log, revision).await?,
        None => crate::load::in_force(log).await?,
    };
    serde_json::to_writer_pretty(&mut *out, &terms)?;
    writeln!(out)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use jackpot_core::log::jetstream::setup::{SetUp, streams};
    use jackpot_core::log::memory::Memory;
    use jackpot_core::time::Millis;

    use super::*;

    fn example() -> Terms {
        Terms::parse(EXAMPLE).unwrap_or_else(|faults| panic!("{faults:#?}"))
    }

    #[test]
    fn the_example_has_no_faults_and_names_no_key() {
        let terms = example();
        assert_eq!((terms.operators.len(), terms.sources.len(), terms.games.len()), (4, 12, 10));
        assert_eq!(terms.pools.len(), 3);
        assert!(terms.sources.iter().all(|source| source.keys.is_empty()));
    }

    #[test]
    fn faults_are_told_one_a_line() {
        let document = String::from_utf8(EXAMPLE.to_vec()).expect("text").replace("\"0.10\"", "\"1000\"");
        let document = document.replace("\"GB\", \"DE\"]", "\"GB\", \"XX\"]");
        let mut told = Vec::new();
        let error = parse("terms.json", document.as_bytes(), &mut told).expect_err("there are faults");
        assert!(error.to_string().starts_with("terms.json has 2 faults"), "{error}");
        let told = String::from_utf8(told).expect("text");
        let lines: Vec<_> = told.lines().collect();
        assert_eq!(lines.len(), 2, "{told}");
        assert!(lines[0].starts_with("operators[") && lines[0].contains(".jurisdictions["), "{told}");
        assert!(lines[1].starts_with("pools[0].min_wager: is above max_wager (line "), "{told}");
    }

    #[tokio::test]
    async fn terms_are_applied_once_and_in_order() {
        let memory = Memory::new(streams(&SetUp::new(2)), || Millis(0));
        let soon = || Instant::now() + Duration::from_millis(100);
        let mut terms = example();
        activate(&memory, &terms, soon()).await.expect("the first may have any number");
        activate(&memory, &terms, soon()).await.expect("the same again changes nothing");
        let markers = memory.extent(topology::WAGERS).await.expect("the stream").last;
        assert_eq!(markers, 2, "one marker a partition");
        terms.author = Some("somebody else".into());
        let error = activate(&memory, &terms, soon()).await.expect_err("the number is taken");
        assert!(error.to_string().contains("the next one is 2"), "{error}");
        terms.revision = 3;
        let error = activate(&memory, &terms, soon()).await.expect_err("2 is next");
        assert!(error.to_string().starts_with("1 change is refused, first revision"), "{error}");
        terms.revision = 2;
        activate(&memory, &terms, soon()).await.expect("2 is next");
        assert_eq!(crate::load::in_force(&memory).await.expect("terms are in force"), terms);
        let error = running(&memory, 2, soon()).await.expect_err("no ledger runs");
        assert!(error.to_string().contains("partition 0 does not run it"), "{error}");
    }
}
