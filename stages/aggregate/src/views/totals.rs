//! The view `totals`: the present state of each level, thinned. At most 20 messages a second per level and 2,000
//! in all; what is in between is left out, the last state never is. One fenced append in flight, and never of an
//! older commit than the level's last one there.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};
use tracing::{error, warn};

use jackpot_core::log::{Append, Appender, Entry, Expect, Log, Reader};
use jackpot_core::metrics::business::Business;
use jackpot_core::money::Pico;
use jackpot_core::record::{Commit, LevelTotals};
use jackpot_core::recovery::Trouble;
use jackpot_core::runner::{Context, Name, Part, Standing, WATCHDOG, Watch, stored};
use jackpot_core::stage::Contradiction;
use jackpot_core::topology::{self, SETTLED, settled};

use crate::views::exact::settle;
use crate::views::{Named, Slices, shown_text};

/// Between the acknowledgement of one message of a level and the next one: what is stored is then at least so far apart.
const LEVEL_INTERVAL: Duration = Duration::from_millis(50);
/// The same, between two messages of any level.
const INTERVAL: Duration = Duration::from_micros(500);

/// The thinned view.
pub struct TotalsView<L> {
    context: Context<L>,
    name: Name,
    levels: BTreeMap<String, Level>,
    /// By subject: what the books of a level were out of balance by when it was shown last, where they were.
    astray: BTreeMap<String, Pico>,
    /// Where the states of levels are told, if they are.
    business: Option<Business>,
    /// The last commit that was read.
    read: u64,
    /// The last sequence of the view.
    last: u64,
    /// When the next message may leave.
    next: Instant,
}

/// A level as the view knows it, by its subject.
#[derive(Debug)]
struct Level {
    /// The state that is not shown yet, with the commit since which it differs from what is shown.
    due: Option<(u64, Bytes)>,
    /// The commit of the state that is shown; 0 when none is.
    shown: u64,
    /// When it may be shown again.
    next: Instant,
}

impl<L: Log> TotalsView<L> {
    /// A view that has yet to be driven.
    pub fn new(context: Context<L>) -> Self {
        let name = Name::single("view", topology::TOTALS);
        Self {
            context,
            name,
            levels: BTreeMap::new(),
            astray: BTreeMap::new(),
            business: None,
            read: 0,
            last: 0,
            next: Instant::now(),
        }
    }

    /// The same, telling there of each level.
    pub fn with_business(self, business: Option<Business>) -> Self {
        Self { business, ..self }
    }

    /// Tells of all levels as they are shown, those too that nothing changes for long.
    async fn tell_all(&self) -> Result<(), Trouble> {
        let Some(business) = &self.business else { return Ok(()) };
        let log = &self.context.log;
        let Some(last) = log.last(topology::COMMITS, topology::COMMITS).await? else { return Ok(()) };
        let terms = serde_json::from_slice::<Commit>(&last.payload).map_or(0, |commit| commit.terms);
        for pool in &self.context.terms.get(terms).await?.pools {
            for level in &pool.levels {
                let shown = log.last(topology::TOTALS, &topology::totals(&pool.pool, &level.level)).await?;
                let state = shown.and_then(|entry| serde_json::from_slice(&entry.payload).ok());
                state.iter().for_each(|state| business.level(state));
            }
        }
        Ok(())
    }

    async fn resume(&mut self) -> Result<u64, Trouble> {
        self.levels.clear();
        let entry = self.context.log.last(topology::TOTALS, &format!("{}.>", topology::TOTALS)).await?;
        let settled = entry.as_ref().map_or(0, settled);
        self.last = self.context.log.extent(topology::TOTALS).await?.last;
        self.read = settled;
        let commits = self.context.log.extent(topology::COMMITS).await?.last;
        if settled > commits {
            return Err(Trouble::Contradiction(Contradiction(format!(
                "totals show commit {settled}, but commits end at {commits}: they lost acknowledged messages; restore \
                 the stream from a backup or a replica"
            ))));
        }
        if let Some(entry) = entry {
            self.check_last(&entry, commits).await?;
        }
        Ok(settled + 1)
    }

    /// That the last message of the view is committed: commits that lost their tail and grew again may be as long as they
    /// were.
    async fn check_last(&self, last: &Entry, commits: u64) -> Result<(), Trouble> {
        let shown = shown_text(last)?;
        let Named { pool, level, commit, .. } = Named::read(shown)?;
        let held = if (1..=commits).contains(&commit) {
            let entry = stored(&self.context.log, topology::COMMITS, commit).await?;
            Slices::read(&entry)?.levels.iter().any(|json| json.get() == shown)
        } else {
            false
        };
        if held {
            return Ok(());
        }
        Err(Trouble::Contradiction(Contradiction(format!(
            "the total of {pool}/{level} that is shown is not what commit {commit} holds: commits lost acknowledged \
             messages and grew again, or one of them was changed; restore both streams from a backup and let `jackpot \
             verify` tell which is right"
        ))))
    }

    /// Takes in what a commit changed.
    async fn take(&mut self, entry: &Entry) -> Result<(), Trouble> {
        let slices = Slices::read(entry)?;
        for json in &slices.levels {
            let named = Named::read(json.get())?;
            let subject = topology::totals(named.pool, named.level);
            if !self.levels.contains_key(&subject) {
                let shown = self.shown(&subject).await?;
                // When a state that is shown already was stored is not known here: it may have been just now.
                let pause = if shown > 0 { LEVEL_INTERVAL } else { Duration::ZERO };
                self.levels.insert(subject.clone(), Level { due: None, shown, next: Instant::now() + pause });
            }
            let level = self.levels.get_mut(&subject).expect("it was just put there");
            if slices.commit > level.shown {
                let since = level.due.take().map_or(slices.commit, |(since, _)| since);
                level.due = Some((since, Bytes::copy_from_slice(json.get().as_bytes())));
            }
        }
        self.read = slices.commit;
        Ok(())
    }

    /// The commit of a level's last message in the view.
    async fn shown(&self, subject: &str) -> Result<u64, Trouble> {
        match self.context.log.last(topology::TOTALS, subject).await? {
            None => Ok(0),
            Some(entry) => Ok(Named::read(shown_text(&entry)?)?.commit),
        }
    }

    /// The subject of the level to show next, the longest waiting first, and when it may be.
    fn next_due(&self) -> Option<(&str, Instant)> {
        let due = self.levels.iter().filter_map(|(subject, level)| {
            let (since, _) = level.due.as_ref()?;
            Some((level.next.max(self.next), *since, subject.as_str()))
        });
        let now = Instant::now();
        due.min_by_key(|&(at, since, subject)| (at.max(now), since, subject))
            .map(|(at, _, subject)| (subject, at))
    }

    /// Takes the state to show off a level; what is left tells up to which commit all is shown then.
    fn show(&mut self, subject: &str) -> Append {
        let level = self.levels.get_mut(subject).expect("only known levels are due");
        let (_, payload) = level.due.take().expect("only levels with something to show are due");
        level.shown = self.read;
        self.look(subject, &payload);
        let waiting =
            self.levels.values().filter_map(|level| level.due.as_ref().map(|(since, _)| *since)).min();
        let settled = waiting.map_or(self.read, |since| since - 1);
        Append {
            subject: subject.to_owned(),
            headers: vec![(SETTLED.into(), settled.to_string())],
            payload,
            expect: Expect::Last(self.last),
        }
    }

    /// Reads what is about to be shown as any subscriber does, and adds it up: the ledger vouches for what it computes,
    /// this for what is written.
    fn look(&mut self, subject: &str, payload: &[u8]) {
        let state: LevelTotals = match serde_json::from_slice(payload) {
            Ok(state) => state,
            Err(error) => {
                warn!(
                    "the books of {subject} cannot be looked at ({error}); a newer build may have written them"
                );
                return;
            }
        };
        self.business.iter().for_each(|business| business.level(&state));
        let difference = state.difference();
        if difference == Pico::ZERO && self.astray.is_empty() {
            return;
        }
        if difference == Pico::ZERO {
            self.astray.remove(subject);
        } else {
            error!(
                "the books of {subject} are out of balance by {difference}: stop paying it out, run `jackpot verify`"
            );
            self.astray.insert(subject.to_owned(), Pico(difference.0.abs()));
        }
        let sum = self.astray.values().fold(Pico::ZERO, |sum, &difference| sum + difference);
        self.context.metrics.conservation(sum);
    }

    /// A message is stored: how soon others may follow.
    fn stored(&mut self, subject: Option<String>, sequence: u64) {
        let now = Instant::now();
        self.last = sequence;
        self.next = now + INTERVAL;
        if let Some(level) = subject.and_then(|subject| self.levels.get_mut(&subject)) {
            level.next = now + LEVEL_INTERVAL;
        }
    }
}

impl<L: Log> Part for TotalsView<L> {
    fn name(&self) -> &Name {
        &self.name
    }

    fn progress(&self) -> u64 {
        self.last
    }

    async fn pass(&mut self) -> Result<(), Trouble> {
        let from = self.resume().await?;
        self.tell_all().await?;
        let mut reader = self.context.log.read(topology::COMMITS, None, from).await?;
        let mut appender = self.context.log.appender().await?;
        self.context.working(&self.name);
        let mut flight: Option<String> = None;
        let mut watch = Watch::default();
        loop {
            let idle = flight.is_none();
            let due = self.next_due().filter(|_| idle).map(|(subject, at)| (subject.to_owned(), at));
            let at = due.as_ref().map_or_else(Instant::now, |(_, at)| *at);
            let watchdog = sleep_until(Instant::now() + WATCHDOG);
            tokio::select! {
                biased;
                () = self.context.stopped() => break,
                fate = appender.acknowledged(), if !idle => {
                    self.stored(flight.take(), fate?);
                    self.context.metrics.at(&self.name.label, self.read);
                }
                () = sleep_until(at), if due.is_some() => {
                    let (subject, _) = due.expect("this branch is taken only when a level is due");
                    while let Some(entry) = reader.ready() {
                        self.take(&entry?).await?;
                    }
                    let append = self.show(&subject);
                    appender.send(append).await?;
                    flight = Some(subject);
                }
                entry = reader.next() => self.take(&entry?).await?,
                () = watchdog, if idle => {
                    let last = self.context.log.extent(topology::COMMITS).await?.last;
                    if watch.stalled(last, self.read) {
                        return Err(Trouble::stalled(topology::COMMITS));
                    }
                }
            }
        }
        settle(&mut appender).await
    }

    async fn standing(&mut self) -> Result<Standing, Trouble> {
        self.business.iter().for_each(Business::forget_levels);
        let log = &self.context.log;
        let entry = log.last(topology::TOTALS, &format!("{}.>", topology::TOTALS)).await?;
        let commit = log.last(topology::COMMITS, topology::COMMITS).await?;
        let changed =
            commit.as_ref().map(Slices::read).transpose()?.map_or(0, |slices| slices.counts.changed);
        let shown = entry.as_ref().map_or(0, settled);
        Ok(Standing { output: entry.map_or(0, |entry| entry.sequence), waiting: changed > shown })
    }
}
