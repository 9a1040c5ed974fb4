//! A view that misses nothing: `hits` and `windows`. Each commit carries the cumulative count of what the view
//! shows, so the sequence of each of its messages is known beforehand, and fences it like a frame of a lane.

use std::collections::VecDeque;
use std::future::Future;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};

use jackpot_core::log::{Append, Appender, Entry, Expect, Log, Reader};
use jackpot_core::metrics::business::Business;
use jackpot_core::record::{Counts, Window};
use jackpot_core::recovery::Trouble;
use jackpot_core::runner::{Context, GRACE, Name, Part, Standing, WATCHDOG, Watch, stored};
use jackpot_core::stage::Contradiction;
use jackpot_core::topology;
use serde_json::value::RawValue;

use crate::views::{Named, Slices, shown_text};

/// Messages in flight at most; they are small.
const IN_FLIGHT_MAX: usize = 256;

/// How many of the last messages of the view are compared with the commits at a start.
const CHECKED: usize = 64;

/// Which view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `hits.<pool>.<level>`.
    Hits,
    /// `windows.<seconds>.<pool>.<level>`.
    Windows,
}

impl Kind {
    fn stream(self) -> &'static str {
        match self {
            Self::Hits => topology::HITS,
            Self::Windows => topology::WINDOWS,
        }
    }

    fn count(self, counts: &Counts) -> u64 {
        match self {
            Self::Hits => counts.hits,
            Self::Windows => counts.windows,
        }
    }

    fn entries<'a>(self, slices: Slices<'a>) -> Vec<&'a RawValue> {
        match self {
            Self::Hits => slices.hits,
            Self::Windows => slices.windows,
        }
    }

    fn subject(self, named: &Named<'_>) -> String {
        match self {
            Self::Hits => topology::hits(named.pool, named.level),
            Self::Windows => topology::windows(named.seconds, named.pool, named.level),
        }
    }
}

/// One exact view.
pub struct ExactView<L> {
    context: Context<L>,
    kind: Kind,
    name: Name,
    /// The last message of the view that is sent; those after it are due.
    sent: u64,
    /// The last commit that was read.
    read: u64,
    /// Where windows are counted, if they are,
    business: Option<Business>,
    /// and those in flight that will be, each with its sequence.
    uncounted: VecDeque<(u64, Window)>,
}

impl<L: Log> ExactView<L> {
    /// A view that has yet to be driven.
    pub fn new(context: Context<L>, kind: Kind) -> Self {
        let name = Name::single("view", kind.stream());
        Self { context, kind, name, sent: 0, read: 0, business: None, uncounted: VecDeque::new() }
    }

    /// The view of windows, which counts there what it publishes.
    pub fn with_business(self, business: Option<Business>) -> Self {
        Self { business, ..self }
    }

    /// Notes a window that is about to be published, if its like is counted.
    fn note(&mut self, sequence: u64, named: &Named<'_>, json: &RawValue) {
        if self.business.as_ref().is_some_and(|business| business.counts(named.seconds))
            && let Ok(window) = serde_json::from_str(json.get())
        {
            self.uncounted.push_back((sequence, window));
        }
    }

    /// A message of the view is stored.
    fn stored(&mut self, sequence: u64) {
        self.context.metrics.at(&self.name.label, sequence);
        let Some(business) = &self.business else { return };
        while let Some((_, window)) = self.uncounted.pop_front_if(|(noted, _)| *noted <= sequence) {
            business.window(&window);
        }
    }

    /// Finds where to go on: the end of the view, and the first commit that has more.
    async fn resume(&mut self) -> Result<u64, Trouble> {
        self.uncounted.clear();
        let log = &self.context.log;
        self.sent = log.extent(self.kind.stream()).await?.last;
        let commits = log.extent(topology::COMMITS).await?.last;
        let shown = if commits == 0 { 0 } else { self.count_at(commits).await? };
        if self.sent > shown {
            return Err(Trouble::Contradiction(Contradiction(format!(
                "{} has {} messages, but commits know of {shown}: commits lost acknowledged messages; restore the \
                 stream from a backup or a replica",
                self.kind.stream(),
                self.sent
            ))));
        }
        self.check_end(commits).await?;
        let (mut low, mut high) = (1, commits + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.count_at(middle).await? > self.sent { high = middle } else { low = middle + 1 }
        }
        self.read = low - 1;
        Ok(low)
    }

    /// That the last messages of the view are those that are committed in their places: commits that lost their tail and
    /// grew again may be as long as they were, and end alike.
    async fn check_end(&self, commits: u64) -> Result<(), Trouble> {
        let (log, stream) = (&self.context.log, self.kind.stream());
        let mut holding: Option<Entry> = None;
        for sequence in (1..=self.sent).rev().take(CHECKED) {
            let Some(message) = log.get(stream, sequence).await? else { break };
            let shown = shown_text(&message)?;
            let commit = Named::read(shown)?.commit;
            let entry = match holding.take().filter(|entry| entry.sequence == commit) {
                Some(entry) => entry,
                None if (1..=commits).contains(&commit) => stored(log, topology::COMMITS, commit).await?,
                None => return Err(self.foreign(sequence, commit).into()),
            };
            if !self.is_held(&entry, sequence, shown)? {
                return Err(self.foreign(sequence, commit).into());
            }
            holding = Some(entry);
        }
        Ok(())
    }

    /// Whether a commit holds this as the view's message with this sequence.
    fn is_held(&self, commit: &Entry, sequence: u64, shown: &str) -> Result<bool, Contradiction> {
        let slices = Slices::read(commit)?;
        let total = self.kind.count(&slices.counts);
        let mut held = (1..=total).rev().zip(self.kind.entries(slices).into_iter().rev());
        Ok(held.any(|(place, json)| place == sequence && json.get() == shown))
    }

    fn foreign(&self, sequence: u64, commit: u64) -> Contradiction {
        let stream = self.kind.stream();
        Contradiction(format!(
            "message {sequence} of {stream} is not what commit {commit} holds in its place: commits lost acknowledged \
             messages and grew again, or one of them was changed; restore both streams from a backup and let `jackpot \
             verify` tell which is right"
        ))
    }

    async fn count_at(&self, commit: u64) -> Result<u64, Trouble> {
        let entry = stored(&self.context.log, topology::COMMITS, commit).await?;
        Ok(self.kind.count(&Slices::read(&entry)?.counts))
    }

    /// The appends of a commit that are not in the view.
    fn due(&mut self, entry: &Entry) -> Result<Vec<Append>, Contradiction> {
        let slices = Slices::read(entry)?;
        self.read = slices.commit;
        let total = self.kind.count(&slices.counts);
        let entries = self.kind.entries(slices);
        let before =
            u64::try_from(entries.len()).ok().and_then(|len| total.checked_sub(len)).ok_or_else(|| {
                Contradiction(format!(
                    "commit {} counts fewer {} than it holds; restore the stream",
                    self.read,
                    self.kind.stream()
                ))
            })?;
        let mut due = Vec::new();
        for (sequence, json) in (before + 1..).zip(entries) {
            if sequence > self.sent {
                let payload = Bytes::copy_from_slice(json.get().as_bytes());
                let named = Named::read(json.get())?;
                let subject = self.kind.subject(&named);
                self.note(sequence, &named, json);
                due.push(Append {
                    subject,
                    headers: Vec::new(),
                    payload,
                    expect: Expect::Last(sequence - 1),
                });
                self.sent = sequence;
            }
        }
        Ok(due)
    }
}

impl<L: Log> Part for ExactView<L> {
    fn name(&self) -> &Name {
        &self.name
    }

    fn progress(&self) -> u64 {
        self.sent
    }

    async fn pass(&mut self) -> Result<(), Trouble> {
        let from = self.resume().await?;
        let mut reader = self.context.log.read(topology::COMMITS, None, from).await?;
        let mut appender = self.context.log.appender().await?;
        self.context.working(&self.name);
        let mut watch = Watch::default();
        loop {
            let watchdog = sleep_until(Instant::now() + WATCHDOG);
            tokio::select! {
                biased;
                () = self.context.stopped() => break,
                fate = appender.acknowledged(), if appender.in_flight() > 0 => self.stored(fate?),
                entry = reader.next(), if appender.in_flight() < IN_FLIGHT_MAX => {
                    for append in self.due(&entry?)? {
                        appender.send(append).await?;
                    }
                }
                () = watchdog, if appender.in_flight() == 0 => {
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
        let output = self.context.log.extent(self.kind.stream()).await?.last;
        let commits = self.context.log.extent(topology::COMMITS).await?.last;
        let shown = if commits == 0 { 0 } else { self.count_at(commits).await? };
        Ok(Standing { output, waiting: shown > output })
    }
}

/// Waits for what is in flight, for as long as a stopping process may.
pub fn settle<A: Appender>(appender: &mut A) -> impl Future<Output = Result<(), Trouble>> + '_ {
    let settling = async move {
        while appender.in_flight() > 0 {
            appender.acknowledged().await?;
        }
        Ok(())
    };
    async { tokio::time::timeout(GRACE, settling).await.unwrap_or(Ok(())) }
}
