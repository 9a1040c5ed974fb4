//! The view `sources`: what has become of each source's batches, thinned to one message a second each. A producer
//! that lost its counter starts from here. One part per partition; it reads `allocations-p`, where the fate of every
//! batch stands, and goes on behind the last frame that the view says it has shown; where another frame is in its
//! place by now, it counts anew from the first.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use jackpot_core::digest::Digest;
use jackpot_core::frame::Frame;
use jackpot_core::frame::allocations::{Allocation, Allocations};
use jackpot_core::frame::batch::{Accepted, Batch, Verdict};
use jackpot_core::limits;
use jackpot_core::log::{Append, Appender, Entry, Expect, Log, Reader};
use jackpot_core::record::SourceState;
use jackpot_core::recovery::Trouble;
use jackpot_core::runner::{Context, GRACE, Name, Part, Standing, WATCHDOG, Watch};
use jackpot_core::stage::Contradiction;
use jackpot_core::terms::Terms;
use jackpot_core::topology::{self, COUNTED, Lane, SETTLED};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::warn;

/// Between the acknowledgement of one message of a source and the next one (contract, section 5): what is stored is
/// then at least so far apart.
const INTERVAL: Duration = Duration::from_secs(1);
/// All subjects of the view.
const ALL: &str = "sources.>";

/// The view of one partition's sources.
pub struct SourcesView<L> {
    context: Context<L>,
    name: Name,
    partition: u16,
    partitions: u16,
    sources: BTreeMap<String, Shown>,
    /// The last message of each subject in the view. A source that the terms give to another operator has two.
    lasts: BTreeMap<String, u64>,
    /// The revision that the known sources are of; `None` before the first frame.
    terms: Option<u64>,
    /// The last frame that was read.
    read: u64,
    /// Its message, where it was read here.
    message: Bytes,
    recalled: Recalled,
}

/// What was taken back of the view.
#[derive(Default)]
struct Recalled {
    /// The last message that was.
    newest: u64,
    /// The last one of this partition's sources.
    own: u64,
    /// Up to which frame everything is shown by then.
    settled: u64,
    /// The last frame that any state was counted up to, and its digest.
    counted: (u64, Option<Digest>),
}

/// A source as the view knows it.
struct Shown {
    state: SourceState,
    /// The first frame that is in the state but not in the view.
    due_since: Option<u64>,
    /// When the next one may follow.
    next: Instant,
}

impl<L: Log> SourcesView<L> {
    /// A view that has yet to be driven.
    pub fn new(context: Context<L>, partition: u16, partitions: u16) -> Self {
        let part = format!("view sources of partition {partition}");
        let name = Name { name: part, label: format!("sources-{partition}") };
        let (sources, lasts, message, recalled) = Default::default();
        Self { context, name, partition, partitions, sources, lasts, terms: None, read: 0, message, recalled }
    }

    /// Takes back what the view shows of this partition's sources, and goes on behind that.
    async fn resume(&mut self) -> Result<(), Trouble> {
        self.sources.clear();
        self.lasts.clear();
        self.terms = None;
        self.recalled = Recalled::default();
        self.recall_all().await?;
        let (stored, settled) = (self.frames_stored().await?, self.recalled.settled);
        if stored < settled {
            return Err(Trouble::Contradiction(Contradiction(format!(
                "the view of sources shows frame {settled} of {}, which ends at {stored}: it lost acknowledged frames; \
                 restore it from a backup or a replica",
                Lane::Allocations.stream(self.partition)
            ))));
        }
        self.read = settled;
        if !self.is_counted_right().await? {
            let (frame, _) = self.recalled.counted;
            warn!(
                partition = self.partition,
                frame, "allocations lost what was counted and grew again: all sources are counted anew"
            );
            self.sources.clear();
            self.read = 0;
        }
        Ok(())
    }

    /// Whether the last frame that was counted is the one that is in its place: each names the one before, so all are.
    async fn is_counted_right(&self) -> Result<bool, Trouble> {
        let (frame, Some(digest)) = self.recalled.counted else { return Ok(true) };
        let entry = self.context.log.get(&Lane::Allocations.stream(self.partition), frame).await?;
        Ok(entry.is_some_and(|entry| Digest::of(&entry.payload) == digest))
    }

    /// The last frame of allocations.
    async fn frames_stored(&self) -> Result<u64, Trouble> {
        Ok(self.context.log.extent(&Lane::Allocations.stream(self.partition)).await?.last)
    }

    /// Takes back what the view has beyond what was taken back before.
    async fn recall_all(&mut self) -> Result<(), Trouble> {
        let log = self.context.log.clone();
        let newest = log.last(topology::SOURCES, ALL).await?.map_or(0, |entry| entry.sequence);
        if newest <= self.recalled.newest {
            return Ok(());
        }
        let mut reader = log.read(topology::SOURCES, Some(ALL), self.recalled.newest + 1).await?;
        while self.recalled.newest < newest {
            let next = timeout(WATCHDOG, reader.next()).await;
            let entry = next.map_err(|_| Trouble::stalled(topology::SOURCES))??;
            self.recall(&entry)?;
            self.recalled.newest = entry.sequence;
        }
        Ok(())
    }

    /// Takes in a message of the view.
    fn recall(&mut self, entry: &Entry) -> Result<(), Contradiction> {
        let state: SourceState = serde_json::from_slice(&entry.payload).map_err(|error| {
            Contradiction(format!(
                "message {} of sources cannot be read ({error}); something else published it: remove it",
                entry.sequence
            ))
        })?;
        if topology::partition(&state.source, self.partitions) != self.partition {
            return Ok(());
        }
        self.recalled.own = entry.sequence;
        self.recalled.settled = self.recalled.settled.max(topology::settled(entry));
        if state.frame >= self.recalled.counted.0 {
            self.recalled.counted = (state.frame, topology::counted(entry));
        }
        let name = state.source.clone();
        self.lasts.insert(entry.subject.to_string(), entry.sequence);
        // When it was stored is not known here: it may have been just now.
        self.sources.insert(name, Shown { state, due_since: None, next: Instant::now() + INTERVAL });
        Ok(())
    }

    /// Takes in a frame of allocations.
    async fn take(&mut self, entry: &Entry) -> Result<(), Trouble> {
        let frame = Frame::<Allocations>::decode(&entry.payload).map_err(|error| {
            Contradiction::unreadable(&Lane::Allocations.stream(self.partition), entry.sequence, &error)
        })?;
        if self.terms != Some(frame.header.terms) {
            let terms = self.context.terms.get(frame.header.terms).await?;
            self.learn(&terms, entry.sequence);
        }
        for batch in &frame.body.batches {
            let source = frame.body.symbols.name(batch.source);
            let operator = frame.body.symbols.name(batch.operator);
            // Batches on the subject of a source that the terms do not know are refusals, and no more.
            if let Some(shown) = self.sources.get_mut(source)
                && shown.state.operator == operator
                && shown.state.frame < entry.sequence
            {
                count(&mut shown.state, batch);
                shown.due_since.get_or_insert(entry.sequence);
            }
        }
        (self.read, self.message) = (entry.sequence, entry.payload.clone());
        Ok(())
    }

    /// The sources of a revision: new ones are known from now on, and a new `sequence_from` starts one anew.
    fn learn(&mut self, terms: &Terms, frame: u64) {
        self.terms = Some(terms.revision);
        let ours = |name: &str| topology::partition(name, self.partitions) == self.partition;
        for source in terms.sources.iter().filter(|source| ours(&source.source)) {
            let shown = self.sources.entry(source.source.clone()).or_insert_with(|| Shown {
                state: SourceState { source: source.source.clone(), ..SourceState::default() },
                due_since: None,
                next: Instant::now(),
            });
            shown.state.operator.clone_from(&source.operator);
            if let Some(from) = source.sequence_from
                && shown.state.sequence_from != Some(from)
                && shown.state.frame < frame
            {
                shown.state.sequence_from = Some(from);
                shown.state.highest = from - 1;
                shown.state.missing.clear();
            }
        }
    }

    /// The source to show next, the longest waiting first, and when it may be.
    fn next_due(&self) -> Option<(&str, Instant)> {
        let now = Instant::now();
        let due = self
            .sources
            .iter()
            .filter_map(|(name, shown)| Some((shown.next.max(now), shown.due_since?, name)));
        due.min().map(|(at, _, name)| (name.as_str(), at))
    }

    /// The message that shows a source; what is left tells up to which frame all is shown then.
    fn show(&mut self, name: &str) -> Append {
        let shown = self.sources.get_mut(name).expect("only known sources are due");
        shown.due_since = None;
        shown.state.frame = self.read;
        let subject = topology::sources(&shown.state.operator, &shown.state.source);
        let payload = Bytes::from(serde_json::to_vec(&shown.state).expect("a state is plain data"));
        let expect = Expect::LastOfSubject(self.lasts.get(&subject).copied().unwrap_or(0));
        let waiting = self.sources.values().filter_map(|shown| shown.due_since).min();
        let settled = waiting.map_or(self.read, |since| since - 1);
        let counted = Digest::of(&self.message);
        let headers = vec![(SETTLED.into(), settled.to_string()), (COUNTED.into(), counted.to_string())];
        Append { subject, headers, payload, expect }
    }

    /// A message is stored: how soon another one of the source may follow.
    fn stored(&mut self, name: &str, subject: String, sequence: u64) {
        self.lasts.insert(subject, sequence);
        if let Some(shown) = self.sources.get_mut(name) {
            shown.next = Instant::now() + INTERVAL;
        }
    }
}

impl<L: Log> Part for SourcesView<L> {
    fn name(&self) -> &Name {
        &self.name
    }

    fn progress(&self) -> u64 {
        self.read
    }

    async fn pass(&mut self) -> Result<(), Trouble> {
        self.resume().await?;
        let stream = Lane::Allocations.stream(self.partition);
        let mut reader = self.context.log.read(&stream, None, self.read + 1).await?;
        let mut appender = self.context.log.appender().await?;
        self.context.working(&self.name);
        let mut flight: Option<(String, String)> = None;
        let mut watch = Watch::default();
        loop {
            let idle = flight.is_none();
            let due = self.next_due().filter(|_| idle).map(|(name, at)| (name.to_owned(), at));
            let at = due.as_ref().map_or_else(Instant::now, |(_, at)| *at);
            let watchdog = sleep_until(Instant::now() + WATCHDOG);
            tokio::select! {
                biased;
                () = self.context.stopped() => break,
                fate = appender.acknowledged(), if !idle => {
                    let sequence = fate?;
                    if let Some((name, subject)) = flight.take() {
                        self.stored(&name, subject, sequence);
                    }
                }
                () = sleep_until(at), if due.is_some() => {
                    let (name, _) = due.expect("this branch is taken only when a source is due");
                    while let Some(entry) = reader.ready() {
                        self.take(&entry?).await?;
                    }
                    let append = self.show(&name);
                    let subject = append.subject.clone();
                    appender.send(append).await?;
                    flight = Some((name, subject));
                }
                entry = reader.next() => self.take(&entry?).await?,
                () = watchdog, if idle => {
                    let last = self.context.log.extent(&stream).await?.last;
                    if watch.stalled(last, self.read) {
                        return Err(Trouble::stalled(&stream));
                    }
                }
            }
        }
        if flight.is_some()
            && let Ok(fate) = timeout(GRACE, appender.acknowledged()).await
        {
            fate?;
        }
        Ok(())
    }

    /// What this process has read may be shown by nobody, where its own append was refused; and what is shown of other
    /// partitions says nothing of this one.
    async fn standing(&mut self) -> Result<Standing, Trouble> {
        self.recall_all().await?;
        let Recalled { own, settled, .. } = self.recalled;
        Ok(Standing { output: own, waiting: self.frames_stored().await? > settled })
    }
}

/// Counts a batch.
fn count(state: &mut SourceState, batch: &Batch<Allocation>) {
    state.as_of = Some(state.as_of.map_or(batch.recorded_at, |at| at.max(batch.recorded_at)));
    match &batch.verdict {
        Verdict::Refused(_) => state.refused_batches += 1,
        Verdict::Accepted(accepted) => {
            state.batches += 1;
            let Accepted { sequence, wagers, refusals, .. } = accepted;
            let refused = refusals.iter().filter(|refusal| refusal.hit.is_none()).count();
            state.wagers += u64::try_from(wagers.len()).expect("a length fits 64 bits");
            state.refused_wagers += u64::try_from(refused).expect("a length fits 64 bits");
            accept(state, *sequence);
        }
    }
}

/// Moves a source's window over an accepted number.
fn accept(state: &mut SourceState, sequence: u64) {
    if sequence > state.highest {
        // The first accepted number is the start, where the terms name none.
        let started = state.highest > 0 || state.sequence_from.is_some();
        if started && sequence > state.highest + 1 {
            state.missing.push((state.highest + 1, sequence - 1));
        }
        state.highest = sequence;
        let lowest = sequence.saturating_sub(limits::SEQUENCE_WINDOW);
        state.missing.retain_mut(|(from, to)| {
            *from = lowest.max(*from);
            from <= to
        });
        return;
    }
    let Some(place) = state.missing.iter().position(|(from, to)| (*from..=*to).contains(&sequence)) else {
        return;
    };
    let (from, to) = state.missing[place];
    let rest = [(from, sequence - 1), (sequence + 1, to)].into_iter().filter(|(from, to)| from <= to);
    state.missing.splice(place..=place, rest);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_go_missing_and_come_late() {
        let mut state = SourceState::default();
        let mut check = |sequence, highest, missing: &[(u64, u64)]| {
            accept(&mut state, sequence);
            assert_eq!((state.highest, state.missing.as_slice()), (highest, missing), "{sequence}");
        };
        check(5, 5, &[]);
        check(10, 10, &[(6, 9)]);
        check(7, 10, &[(6, 6), (8, 9)]);
        check(6, 10, &[(8, 9)]);
        check(9, 10, &[(8, 8)]);
        check(8, 10, &[]);
        check(3, 10, &[]);
        check(1_100, 1_100, &[(76, 1_099)]);
    }

    proptest! {
        #[test]
        fn the_window_knows_what_a_set_of_all_numbers_knows(steps in proptest::collection::vec(0_u64..1_500, 1..200)) {
            let (mut state, mut accepted, mut start) = (SourceState::default(), BTreeSet::new(), 0);
            for (base, step) in (1_500..).zip(steps) {
                let sequence = base * 2 - step;
                let lowest = state.highest.saturating_sub(limits::SEQUENCE_WINDOW);
                if sequence < lowest || !accepted.insert(sequence) {
                    continue;
                }
                start = if start == 0 { sequence } else { start };
                accept(&mut state, sequence);
            }
            let lowest = state.highest.saturating_sub(limits::SEQUENCE_WINDOW);
            let missing: Vec<u64> = state.missing.iter().flat_map(|&(from, to)| from..=to).collect();
            for number in start.max(lowest)..=state.highest {
                prop_assert_ne!(accepted.contains(&number), missing.contains(&number), "{}", number);
            }
        }
    }
}
