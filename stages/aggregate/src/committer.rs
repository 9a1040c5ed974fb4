//! The committer: gathers frames from all partitions into commits and appends them, one in flight (design,
//! section 5). A start, and a lost race, rebuild the books from `contributions-p` and the vectors in `commits`,
//! each digest compared. One per process; others stand by.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, error};

use jackpot_core::digest::Digest;
use jackpot_core::frame::Frame;
use jackpot_core::frame::contributions::Contributions;
use jackpot_core::health::Condition;
use jackpot_core::log::{Append, Appender, Entry, Expect, Log, Notices, ReadError, Reader};
use jackpot_core::record::{Commit, Consumed, IdleNotice, WindowSettings};
use jackpot_core::recovery::Trouble;
use jackpot_core::runner::{Context, Name, Part, Standing, WATCHDOG};
use jackpot_core::stage::{Contradiction, Tally};
use jackpot_core::terms::Terms;
use jackpot_core::topology::{self, Lane};

use crate::books::{Books, CommitInput};
use crate::commit::Committed;
use crate::postings::Taken;
use crate::views::exact::settle;

/// A quiet pipeline appends a commit so often (contract, section 5).
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Frames of one partition that wait for a commit at most.
const QUEUE_FRAMES_MAX: usize = 64;

/// How the ledger runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Worker threads of the dataflow.
    pub workers: usize,
    /// How windows are closed.
    pub windows: WindowSettings,
}

/// Gathers frames into commits.
pub struct Committer<L: Log> {
    context: Context<L>,
    name: Name,
    settings: Settings,
    partitions: u16,
    /// `None` before the first resume.
    books: Option<Books>,
    notices: Vec<Option<IdleNotice>>,
    /// The last commit that is known to be stored.
    stored: u64,
}

/// What of a partition is read and waits.
struct Feed<R> {
    partition: u16,
    reader: R,
    /// The last frame that was read: its number and digest.
    read: (u64, Digest),
    /// The frame that the reader begins with is to be compared with what was consumed.
    anchored: bool,
    queue: VecDeque<Taken>,
    /// Why nothing more is taken from this partition; the others go on.
    stopped: bool,
}

/// A commit whose append is not acknowledged.
struct Flight {
    commit: u64,
    sent: Instant,
    wagers: u64,
}

impl<L: Log> Committer<L> {
    /// A committer that has yet to be driven.
    pub fn new(context: Context<L>, partitions: u16, settings: Settings) -> Self {
        Self {
            context,
            name: Name::single("ledger", "commits"),
            settings,
            partitions,
            books: None,
            notices: vec![None; usize::from(partitions)],
            stored: 0,
        }
    }

    /// Brings the books to the last stored commit: forward by replay, or from the beginning where they hold a
    /// commit that was not stored.
    async fn resume(&mut self) -> Result<Vec<Feed<L::Reader>>, Trouble> {
        let tail = self.context.log.extent(topology::COMMITS).await?.last;
        if tail < self.stored {
            return Err(Trouble::Contradiction(Contradiction(format!(
                "commits end at {tail}, but commit {} was acknowledged: they lost acknowledged messages; restore the \
                 stream from a backup or a replica",
                self.stored
            ))));
        }
        self.stored = tail;
        let mut books = match self.books.take() {
            Some(books) if self.holds(&books, tail).await? => books,
            _ => self.open_books()?,
        };
        let mut feeds = Vec::new();
        for (partition, consumed) in (0..).zip(books.partitions()) {
            feeds.push(Feed::open(&self.context.log, partition, *consumed).await?);
        }
        if books.number() < tail {
            self.replay(&mut books, &mut feeds, tail).await?;
        }
        self.books = Some(books);
        Ok(feeds)
    }

    fn open_books(&self) -> Result<Books, Trouble> {
        let Settings { workers, windows } = self.settings.clone();
        Books::start(workers, self.partitions, windows)
            .map_err(|error| Contradiction(error.to_string()).into())
    }

    /// Whether the books stand at a stored commit.
    async fn holds(&self, books: &Books, tail: u64) -> Result<bool, Trouble> {
        if books.number() == 0 || books.number() > tail {
            return Ok(false);
        }
        let entry = self.context.log.get(topology::COMMITS, books.number()).await?;
        Ok(entry.is_some_and(|entry| Digest::of(&entry.payload) == books.digest()))
    }

    /// Computes the stored commits again, from the frames that they say they consumed.
    async fn replay(
        &self,
        books: &mut Books,
        feeds: &mut [Feed<L::Reader>],
        until: u64,
    ) -> Result<(), Trouble> {
        debug!(from = books.number() + 1, until, "computing commits again");
        let mut reader = self.context.log.read(topology::COMMITS, None, books.number() + 1).await?;
        while books.number() < until {
            let entry = reader.next().await?;
            let recorded = read_commit(&entry)?;
            let mut frames = Vec::new();
            for (feed, consumed) in feeds.iter_mut().zip(&recorded.partitions) {
                while feed.read.0 < consumed.frame {
                    frames.extend(feed.next().await?);
                }
            }
            self.context.touch();
            let terms = self.terms_for(books.terms(), recorded.terms).await?;
            books.replay(&entry.payload, frames, terms)?;
        }
        Ok(())
    }

    /// The terms of a revision, when it is a new one.
    async fn terms_for(&self, known: u64, revision: u64) -> Result<Option<Arc<Terms>>, Trouble> {
        if revision > known { Ok(Some(self.context.terms.get(revision).await?)) } else { Ok(None) }
    }

    /// Takes what waits into a commit and computes it; gives it with the number of its wagers.
    async fn cut(&mut self, feeds: &mut [Feed<L::Reader>]) -> Result<(Committed, u64), Trouble> {
        let books = self.books.as_ref().expect("resume has made them");
        let (number, previous) = (books.number() + 1, books.digest());
        let (frames, mut terms) = self.take(books, feeds).await?;
        let mut positions: Vec<_> = books.partitions().iter().map(|consumed| consumed.frame).collect();
        for taken in &frames {
            positions[usize::from(taken.frame.header.partition)] = taken.frame.header.sequence;
        }
        let mut watermarks = vec![None; positions.len()];
        for notice in self.notices.iter().flatten() {
            let partition = usize::from(notice.partition);
            if notice.frame == positions[partition] {
                watermarks[partition] = notice.watermark;
                let known = terms.as_ref().map_or(books.terms(), |terms| terms.revision);
                terms = self.terms_for(known, notice.terms).await?.or(terms);
            }
        }
        let wagers = frames.iter().map(|taken| u64::from(taken.frame.body.wagers)).sum();
        let books = self.books.as_mut().expect("resume has made them");
        let made = books.commit(CommitInput { number, previous, frames, watermarks, terms })?;
        Ok((made, wagers))
    }

    /// Frames for one commit, in turn from each partition until it is full, and the revision that they take up.
    async fn take(
        &self,
        books: &Books,
        feeds: &mut [Feed<L::Reader>],
    ) -> Result<(Vec<Taken>, Option<Arc<Terms>>), Trouble> {
        let (mut cut, mut frames, mut terms) = (books.cut(), Vec::new(), None);
        let mut revision = books.terms();
        while feeds.iter().any(|feed| !feed.queue.is_empty()) {
            for feed in feeds.iter_mut() {
                let Some(next) = feed.queue.front() else { continue };
                if let Some(newer) = self.terms_for(revision, next.frame.header.terms).await? {
                    cut.learn(&newer);
                    revision = newer.revision;
                    terms = Some(newer);
                }
                if !cut.takes(&next.frame) {
                    return Ok((frames, terms));
                }
                frames.extend(feed.queue.pop_front());
            }
        }
        Ok((frames, terms))
    }

    /// Whether there is something to commit before the next heartbeat: frames, or closed windows that the last
    /// commit had no room for.
    fn is_due(&self, feeds: &[Feed<L::Reader>]) -> bool {
        let backlog = self.books.as_ref().is_some_and(|books| books.backlog() > 0);
        backlog || feeds.iter().any(|feed| !feed.queue.is_empty())
    }

    fn notice(&mut self, notice: Option<(Box<str>, Bytes)>) -> Result<(), Trouble> {
        let Some((subject, payload)) = notice else {
            return Err(Trouble::stalled(topology::IDLE_ALL));
        };
        match serde_json::from_slice::<IdleNotice>(&payload) {
            Ok(notice) if notice.partition < self.partitions => {
                self.notices[usize::from(notice.partition)] = Some(notice);
            }
            _ => debug!(%subject, "a message that is no idle notice is ignored"),
        }
        Ok(())
    }

    /// A partition whose log contradicts the books stops; the others go on.
    fn stop(&self, feed: &mut Feed<L::Reader>, contradiction: &Contradiction) {
        feed.stopped = true;
        let name = Name::partition(feed.partition);
        error!(part = name.name, "stopped: {contradiction}");
        self.context.metrics.stopped(&name.label, true);
        self.context.health.set(&name.name, Condition::Stopped(contradiction.to_string()));
    }

    /// Readers that say nothing are believed only while their streams have nothing more.
    async fn check_stall(&self, feeds: &mut [Feed<L::Reader>]) -> Result<(), Trouble> {
        for feed in feeds.iter_mut().filter(|feed| !feed.stopped && feed.queue.is_empty()) {
            let stream = Lane::Contributions.stream(feed.partition);
            let last = self.context.log.extent(&stream).await?.last;
            if last > feed.read.0 {
                return Err(Trouble::stalled(&stream));
            }
        }
        Ok(())
    }
}

impl<L: Log> Part for Committer<L> {
    fn name(&self) -> &Name {
        &self.name
    }

    fn progress(&self) -> u64 {
        self.stored
    }

    async fn pass(&mut self) -> Result<(), Trouble> {
        let mut notices: Notices = self.context.log.listen(topology::IDLE_ALL).await?;
        let mut feeds = self.resume().await?;
        let mut appender = self.context.log.appender().await?;
        self.context.working(&self.name);
        let mut flight: Option<Flight> = None;
        let mut beat = Instant::now() + HEARTBEAT;
        loop {
            let idle = flight.is_none();
            if idle && (Instant::now() >= beat || self.is_due(&feeds)) {
                let (made, wagers) = self.cut(&mut feeds).await?;
                let (commit, payload) = (made.commit.commit, made.message);
                let subject = topology::COMMITS.to_owned();
                let expect = Expect::Last(commit - 1);
                appender.send(Append { subject, headers: Vec::new(), payload, expect }).await?;
                flight = Some(Flight { commit, sent: Instant::now(), wagers });
                beat = Instant::now() + HEARTBEAT;
                continue;
            }
            let watchdog = sleep_until(Instant::now() + WATCHDOG);
            tokio::select! {
                biased;
                () = self.context.stopped() => break,
                fate = appender.acknowledged(), if !idle => {
                    self.stored = fate?;
                    if let Some(flight) = flight.take() {
                        self.context.metrics.acknowledged(flight.sent.elapsed());
                        let tally = Tally { wagers_in: flight.wagers, ..Tally::default() };
                        self.context.metrics.appended(&self.name.label, flight.commit, &tally);
                    }
                }
                (index, entry) = next_entry(&mut feeds) => {
                    self.context.touch();
                    if let Err(contradiction) = feeds[index].take(&entry?) {
                        self.stop(&mut feeds[index], &contradiction);
                    }
                }
                notice = notices.recv() => self.notice(notice)?,
                () = sleep_until(beat), if idle => {}
                () = watchdog => self.check_stall(&mut feeds).await?,
            }
        }
        settle(&mut appender).await
    }

    async fn standing(&mut self) -> Result<Standing, Trouble> {
        let output = self.context.log.extent(topology::COMMITS).await?.last;
        // A ledger at work appends at least a heartbeat each second: silence alone means that it is gone.
        Ok(Standing { output, waiting: true })
    }
}

impl<R: Reader> Feed<R> {
    /// Opens a partition at the frame that was consumed last, which is then compared.
    async fn open<L: Log<Reader = R>>(log: &L, partition: u16, consumed: Consumed) -> Result<Self, Trouble> {
        let reader = log.read(&Lane::Contributions.stream(partition), None, consumed.frame.max(1)).await?;
        Ok(Self {
            partition,
            reader,
            read: (consumed.frame, consumed.digest),
            anchored: consumed.frame > 0,
            queue: VecDeque::new(),
            stopped: false,
        })
    }

    /// Takes in a message: checks its place and its chain, and puts it into the queue.
    fn take(&mut self, entry: &Entry) -> Result<(), Contradiction> {
        let stream = Lane::Contributions.stream(self.partition);
        let digest = Digest::of(&entry.payload);
        if std::mem::take(&mut self.anchored) {
            return if (entry.sequence, digest) == self.read {
                Ok(())
            } else {
                Err(Contradiction(format!(
                    "frame {} of {stream} is not the one that was committed: it was changed, or the log lost its tail \
                     and grew again; restore the stream from a backup",
                    entry.sequence
                )))
            };
        }
        let frame = Frame::<Contributions>::decode(&entry.payload).map_err(|error| {
            Contradiction(format!(
                "frame {} of {stream} cannot be read ({error}); run a build that knows its format, or restore the \
                 stream from a backup if it was changed",
                entry.sequence
            ))
        })?;
        let header = &frame.header;
        let placed = header.sequence == entry.sequence
            && header.sequence == self.read.0 + 1
            && header.partition == self.partition;
        if !placed || header.previous != self.read.1 {
            return Err(Contradiction(format!(
                "frame {} of {stream} does not follow the frame {} that was read before it: one of them was changed; \
                 restore the stream from a backup",
                entry.sequence, self.read.0
            )));
        }
        self.read = (entry.sequence, digest);
        self.queue.push_back(Taken { digest, frame });
        Ok(())
    }

    /// Reads one message, and gives the frame that it brought, if it did.
    async fn next(&mut self) -> Result<Option<Taken>, Trouble> {
        let entry = self.reader.next().await?;
        self.take(&entry)?;
        Ok(self.queue.pop_front())
    }
}

/// The next message of any partition that may read on, with the partition's place.
async fn next_entry<R: Reader>(feeds: &mut [Feed<R>]) -> (usize, Result<Entry, ReadError>) {
    poll_fn(|context| {
        for (index, feed) in feeds.iter_mut().enumerate() {
            if !feed.stopped
                && feed.queue.len() < QUEUE_FRAMES_MAX
                && let Poll::Ready(entry) = pin!(feed.reader.next()).poll(context)
            {
                return Poll::Ready((index, entry));
            }
        }
        Poll::Pending
    })
    .await
}

fn read_commit(entry: &Entry) -> Result<Commit, Contradiction> {
    serde_json::from_slice(&entry.payload).map_err(|error| {
        Contradiction(format!(
            "message {} of commits cannot be read ({error}); run a build that knows its format, or restore the stream \
             from a backup",
            entry.sequence
        ))
    })
}
