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
use jackpot_core::status::Report;
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

/// Checks, stores and activates terms, and waits until they run. `processes` asks all processes what they know: terms
/// by other rules than those in force are put in force only where every one that answers knows them.
pub async fn apply<L: Log>(
    args: &ApplyArgs,
    log: &L,
    processes: impl AsyncFn() -> anyhow::Result<Vec<Report>>,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let document = read(&args.file)?;
    let name = args.file.display().to_string();
    let terms = parse(&name, &document, &mut std::io::stderr())?;
    find_keys(&name, &terms, &args.keys, args.keys.read()?.as_ref())?;
    let deadline = Instant::now() + args.timeout;
    if insist(deadline, async || is_by_other_rules(log, &terms).await).await? {
        find_rules(terms.rules, &processes().await?)?;
    }
    activate(log, &terms, deadline).await?;
    running(log, terms.revision, deadline).await?;
    writeln!(out, "{}", outcome(terms.revision, store::latest(log).await?.map(|claim| claim.revision)))?;
    Ok(())
}

/// What has become of a revision that was applied; another one may have followed it, now or long ago.
fn outcome(revision: u64, latest: Option<u64>) -> String {
    match latest {
        Some(latest) if latest > revision => {
            format!("revision {revision} is applied; revision {latest}, which followed it, is in force now")
        }
        _ => format!("revision {revision} is in force on every partition"),
    }
}

/// Whether terms that are not applied yet change the version of the rules.
async fn is_by_other_rules<L: Log>(log: &L, terms: &Terms) -> anyhow::Result<bool> {
    Ok(plan::changes(log, terms).await?.iter().any(|change| change.place == "rules"))
}

/// Refuses rules that a process does not know: it would stop with all that it runs where they come into force.
fn find_rules(rules: u16, processes: &[Report]) -> anyhow::Result<()> {
    let behind: Vec<_> = processes.iter().filter(|process| process.rules < rules).collect();
    let Some(first) = behind.first() else { return Ok(()) };
    bail!(
        "the terms are under rules {rules}, which {} not know, first {} {}, which knows them up to {}; replace them all \
         by a newer build, then run the same command again",
        counted(u64::try_from(behind.len()).unwrap_or(u64::MAX), "process does", "processes do"),
        first.stage,
        first.process,
        first.rules
    )
}

/// Refuses terms that name a key that is not there.
pub fn find_keys(name: &str, terms: &Terms, flag: &KeysFlag, keys: Option<&Keys>) -> anyhow::Result<()> {
    let faults = flag.faults(terms, keys);
    if faults.is_empty() { Ok(()) } else { Err(refused(name, &faults, &mut std::io::stderr())) }
}

/// Stores terms and puts their markers into the ingress; all of it is safe to repeat.
pub async fn activate<L: Log>(log: &L, terms: &Terms, deadline: Instant) -> anyhow::Result<()> {
    insist(deadline, async || try_activate(log, terms).await).await
}

/// Tries again, until the deadline, while what is in the way may pass.
async fn insist<T>(deadline: Instant, attempt: impl AsyncFn() -> anyhow::Result<T>) -> anyhow::Result<T> {
    loop {
        let error = match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        if !is_passing(&error) || Instant::now() + POLL >= deadline {
            return Err(give_room(error));
        }
        sleep(POLL).await;
    }
}

/// Whether the same may succeed a little later: the server is away, or somebody else was faster.
fn is_passing(error: &anyhow::Error) -> bool {
    let of_log = |error: &LogError| matches!(error, LogError::Unavailable(_));
    match error.downcast_ref::<StoreError>() {
        Some(StoreError::Log(error)) => of_log(error),
        Some(StoreError::Append(error)) => !matches!(error, AppendError::Rejected(_)),
        _ => error.downcast_ref::<LogError>().is_some_and(of_log),
    }
}

/// The revision before, whose markers are missing where who applied it died in between, is finished first.
async fn try_activate<L: Log>(log: &L, terms: &Terms) -> anyhow::Result<()> {
    let partitions = streams::partitions(log).await?;
    plan::refuse(&plan::changes(log, terms).await?)?;
    if let Some(latest) = store::latest(log).await? {
        store::activate(log, partitions, &latest).await.map_err(|error| unfit(error, topology::WAGERS))?;
    }
    let claim = store::store(log, terms).await.map_err(|error| unfit(error, topology::TERMS))?;
    store::activate(log, partitions, &claim).await.map_err(|error| unfit(error, topology::WAGERS))?;
    Ok(())
}

/// Names the stream that is full, where that is why.
fn unfit(error: StoreError, stream: &'static str) -> anyhow::Error {
    match error {
        StoreError::Append(AppendError::Full(_)) => anyhow::Error::new(error).context(FullStream(stream)),
        _ => error.into(),
    }
}

/// The stream that has no room.
#[derive(Debug, thiserror::Error)]
#[error("the stream {0} has no room for the revision")]
struct FullStream(&'static str);

/// The error in one sentence that says what to do.
fn give_room(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<FullStream>() {
        Some(FullStream(stream)) => anyhow!(
            "the stream {stream} is full, so the revision is in force nowhere yet; give it room with `jackpot init \
             --max-bytes {stream}=SIZE`, then run the same command again"
        ),
        None => error,
    }
}

/// Waits until every partition runs a revision: its validate stamps it on a frame, or says so while it is idle; until
/// the ledger has run it; and until totals show that.
pub async fn running<L: Log>(log: &L, revision: u64, deadline: Instant) -> anyhow::Result<()> {
    let partitions = streams::partitions(log).await?;
    let mut notices = log.listen(topology::IDLE_ALL).await?;
    let mut waiting: BTreeSet<u16> = (0..partitions).collect();
    let mut shown = None;
    loop {
        while let Ok((_, payload)) = notices.try_recv() {
            if let Ok(notice) = serde_json::from_slice::<IdleNotice>(&payload)
                && notice.terms >= revision
            {
                waiting.remove(&notice.partition);
            }
        }
        let what = match still_waiting(log, revision, &mut waiting, &mut shown).await {
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
    shown: &mut Option<u64>,
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
    let commit = match shown {
        Some(commit) => *commit,
        None => {
            let (ran, changed) =
                wait::last_commit(log).await?.map_or((0, 0), |commit| (commit.terms, commit.counts.changed));
            if ran < revision {
                return Ok(Some(format!("no commit has run it (the last one ran {ran})")));
            }
            *shown.insert(changed)
        }
    };
    let last = log.last(topology::TOTALS, "totals.>").await?;
    let until = last.map_or(0, |entry| topology::settled(&entry));
    Ok((until < commit).then(|| format!("totals do not show commit {commit}")))
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
    use jackpot_core::log::Reader as _;
    use jackpot_core::log::faulty::{Faulty, Rates};
    use jackpot_core::log::jetstream::setup::{SetUp, streams};
    use jackpot_core::log::memory::Memory;
    use jackpot_core::refusal::StageName;
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

    fn log(partitions: u16) -> Memory {
        Memory::new(streams(&SetUp::new(partitions)), || Millis(0))
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(100)
    }

    /// The revisions that each partition's markers name, in their order.
    async fn markers(log: &Memory, partitions: u16) -> Vec<Vec<u64>> {
        let mut markers = vec![Vec::new(); usize::from(partitions)];
        let last = log.extent(topology::WAGERS).await.expect("the stream").last;
        for partition in 0..partitions {
            let subject = topology::terms_marker(partition);
            let mut reader = log.read(topology::WAGERS, Some(&subject), 1).await.expect("a reader");
            while let Ok(Ok(entry)) = tokio::time::timeout(Duration::from_millis(20), reader.next()).await {
                let marker = store::read_marker(&entry).expect("a marker");
                markers[usize::from(partition)].push(marker.revision);
                if entry.sequence == last {
                    break;
                }
            }
        }
        markers
    }

    #[tokio::test]
    async fn terms_are_applied_once_and_in_order() {
        let memory = log(2);
        let mut terms = Terms { revision: 70, ..example() };
        activate(&memory, &terms, soon()).await.expect("the first may have any number");
        activate(&memory, &terms, soon()).await.expect("the same again changes nothing");
        assert_eq!(markers(&memory, 2).await, [[70], [70]], "one marker a partition");
        terms.author = Some("somebody else".into());
        let error = activate(&memory, &terms, soon()).await.expect_err("the number is taken");
        assert!(error.to_string().contains("the next one is 71"), "{error}");
        for wrong in [1, 69, 72] {
            terms.revision = wrong;
            let error = activate(&memory, &terms, soon()).await.expect_err("71 is next");
            assert!(error.to_string().starts_with("1 change is refused, first revision"), "{error}");
        }
        terms.revision = 71;
        activate(&memory, &terms, soon()).await.expect("71 is next");
        assert_eq!(markers(&memory, 2).await, [[70, 71], [70, 71]]);
        assert_eq!(crate::load::in_force(&memory).await.expect("terms are in force"), terms);
        let error = running(&memory, 71, soon()).await.expect_err("no ledger runs");
        assert!(error.to_string().contains("partition 0 does not run it"), "{error}");
    }

    #[tokio::test]
    async fn a_number_that_was_claimed_and_not_marked_is_finished() {
        let memory = log(2);
        let first = example();
        let second = Terms { revision: 2, ..example() };
        let third = Terms { revision: 3, ..example() };
        activate(&memory, &first, soon()).await.expect("the first");
        store::store(&memory, &second).await.expect("the number is claimed, and the process dies");
        activate(&memory, &third, soon()).await.expect("the third follows the second");
        assert_eq!(markers(&memory, 2).await, [[1, 2, 3], [1, 2, 3]]);
        let fourth = Terms { revision: 4, ..example() };
        let claim =
            store::store(&memory, &fourth).await.expect("the number is claimed, and the process dies");
        activate(&memory, &fourth, soon()).await.expect("the same command again");
        assert_eq!(markers(&memory, 2).await, [[1, 2, 3, 4], [1, 2, 3, 4]]);
        store::activate(&memory, 2, &claim).await.expect("who was slow changes nothing");
        assert_eq!(markers(&memory, 2).await, [[1, 2, 3, 4], [1, 2, 3, 4]]);
    }

    /// Two apply at once, through a bad network: one number is one document, and no partition is left out.
    #[tokio::test(start_paused = true)]
    async fn of_two_at_once_one_number_is_one_document() {
        for seed in 0..200 {
            let memory = log(2);
            let rates = Rates { append: 3_000, read: 0, ask: 2_000 };
            let network = |seed| Faulty::seeded(memory.clone(), Duration::from_millis(5), seed, rates);
            let (one, other) = (network(seed), network(seed + 1_000));
            let mine = Terms { author: Some("one".into()), ..example() };
            let theirs =
                Terms { author: Some(["other", "one"][usize::from(seed % 2 == 0)].into()), ..example() };
            let patient = Instant::now() + Duration::from_secs(60);
            let (first, second) =
                tokio::join!(activate(&one, &mine, patient), activate(&other, &theirs, patient));
            let stored = match store::load(&memory, 1).await {
                Ok(stored) => stored,
                Err(_) => mine.clone(),
            };
            for (outcome, terms) in [(first, &mine), (second, &theirs)] {
                assert!(outcome.is_err() || stored == *terms, "{seed}: both think that the number is theirs");
            }
            let marked = markers(&memory, 2).await;
            assert!(marked == [[1], [1]] || marked.concat().is_empty(), "{seed}: {marked:?}");
            activate(&memory, &stored, patient).await.expect("whoever comes next finishes it");
            assert_eq!(markers(&memory, 2).await, [[1], [1]], "{seed}");
        }
    }

    #[tokio::test]
    async fn keys_that_terms_name_must_be_in_the_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        let mut terms = example();
        terms.sources[0].keys = vec!["k1".into()];
        std::fs::write(path("terms"), terms.document()).expect("a file");
        std::fs::write(path("k1"), "k1 whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a file");
        std::fs::write(path("k2"), "k2 whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a file");
        let nobody = async || Ok(Vec::new());
        let apply = async |keys: Option<&str>| {
            let memory = log(1);
            let server = Server::default();
            let keys = KeysFlag { file: keys.map(path) };
            let args = ApplyArgs { server, file: path("terms"), keys, timeout: Duration::from_millis(20) };
            let error = apply(&args, &memory, nobody, &mut Vec::new()).await.expect_err("no stage runs it");
            let applied = store::latest(&memory).await.expect("the log answers").is_some();
            (applied, error.to_string())
        };
        let (applied, error) = apply(None).await;
        assert!(!applied && error.contains("has 1 fault"), "{error}");
        let (applied, error) = apply(Some("k2")).await;
        assert!(!applied && error.contains("has 1 fault"), "{error}");
        let (applied, error) = apply(Some("k1")).await;
        assert!(applied && error.starts_with("revision 1 is applied, but partition 0"), "{error}");
    }

    fn process(stage: StageName, process: &str, rules: u16) -> Report {
        Report { stage, process: process.into(), version: "1".into(), rules, parts: Vec::new() }
    }

    #[test]
    fn rules_that_a_process_does_not_know_are_not_applied() {
        let [old, new] = [1, 2].map(|rules| process(StageName::Audit, &format!("host/{rules}"), rules));
        assert!(find_rules(2, &[]).is_ok() && find_rules(2, &[new.clone(), new.clone()]).is_ok());
        let said = find_rules(2, &[new.clone(), old.clone()]).expect_err("one is old").to_string();
        assert_eq!(
            said,
            "the terms are under rules 2, which 1 process does not know, first audit host/1, which knows them up to 1; \
             replace them all by a newer build, then run the same command again"
        );
        let said = find_rules(2, &[old.clone(), new, old]).expect_err("two are old").to_string();
        assert!(said.contains("which 2 processes do not know"), "{said}");
    }

    #[tokio::test]
    async fn only_a_change_of_the_rules_asks_who_knows_them() {
        let memory = log(1);
        let asks = async |terms: &Terms| is_by_other_rules(&memory, terms).await.expect("the log answers");
        assert!(!asks(&example()).await);
        assert!(asks(&Terms { rules: 2, ..example() }).await, "the first may be by any");
        activate(&memory, &example(), soon()).await.expect("the first");
        assert!(!asks(&Terms { revision: 2, author: Some("a".into()), ..example() }).await);
        assert!(asks(&Terms { revision: 2, rules: 2, ..example() }).await);
    }

    #[tokio::test]
    async fn terms_of_later_rules_are_not_read() {
        let memory = log(1);
        let later = jackpot_core::rules::KNOWN + 1;
        let claim = store::store(&memory, &Terms { rules: later, ..example() }).await.expect("it is stored");
        store::activate(&memory, 1, &claim).await.expect("a newer build applies it");
        let next = Terms { revision: 2, ..example() };
        let error = activate(&memory, &next, soon()).await.expect_err("what it follows is not known");
        let known = jackpot_core::rules::KNOWN;
        let expect = format!(
            "revision 1 of the terms is under rules {later}, and this build knows them up to {known}; "
        );
        assert!(error.to_string().starts_with(&expect), "{error}");
        assert_eq!(markers(&memory, 1).await, [[1]]);
    }

    #[test]
    fn what_has_become_of_a_revision_is_said() {
        assert_eq!(outcome(7, Some(7)), "revision 7 is in force on every partition");
        assert_eq!(
            outcome(7, Some(9)),
            "revision 7 is applied; revision 9, which followed it, is in force now"
        );
    }
}
