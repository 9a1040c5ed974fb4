//! The committer: gathers frames from all partitions into commits and appends them, one in flight (design,
//! section 5). A start rebuilds the books from `contributions-p` and the vectors in `commits`, each digest compared;
//! a lost race goes back to what the books were some commits ago, and on from there in the same way. One process
//! appends; others stand by, and keep up.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, error, warn};

use jackpot_core::digest::Digest;
use jackpot_core::frame::Frame;
use jackpot_core::frame::contributions::Contributions;
use jackpot_core::health::Condition;
use jackpot_core::log::{Append, Appender, Entry, Expect, Log, Notices, ReadError, Reader};
use jackpot_core::record::{Commit, Consumed, IdleNotice, WindowSettings};
use jackpot_core::recovery::Trouble;
use jackpot_core::runner::{Context, Name, Part, Standing, WATCHDOG, Watch, first, tail};
use jackpot_core::snapshot::{self, Desk, Key, Saved};
use jackpot_core::stage::{Contradiction, Tally};
use jackpot_core::terms::Terms;
use jackpot_core::time::Millis;
use jackpot_core::topology::{self, Lane};

use crate::books::{self, Books, CommitInput, ThawError};
use crate::commit::{Committed, Cut};
use crate::postings::Taken;
use crate::views::exact::settle;

/// A quiet pipeline appends a commit so often (contract, section 5).
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Frames of one partition that wait for a commit at most.
const QUEUE_FRAMES_MAX: usize = 64;
/// Who stands by computes the others' commits when so many have come: a takeover is then near, and readers are not
/// opened for every commit.
const FOLLOW_COMMITS: u64 = 64;
/// So often in a row a partition's log must be found shorter than what was committed of it, or the terms of its frames
/// be missing, before that is believed; see `jackpot_core::runner`.
const DOUBTS_BELIEVED: u32 = 3;

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
    /// What metrics call the partitions.
    labels: Vec<String>,
    /// `None` before the first resume.
    books: Option<Books>,
    notices: Vec<Option<IdleNotice>>,
    /// The last commit that is known to be stored.
    stored: u64,
    /// How often in a row some partition's log was found shorter than what was committed of it.
    shorts: u32,
    /// Where snapshots of the books are handed in,
    desk: Option<Desk>,
    /// and the bytes that were read and written since the last one.
    folded: u64,
    /// The commit behind which the last one was taken.
    archived: u64,
    /// How often in a row the terms of a partition's next frame were not to be had.
    missing: u32,
    /// By partition: behind which frame its log contradicted the books, and how often in a row.
    doubts: Vec<(u64, u32)>,
}

/// What of a partition is read and waits.
struct Feed<R> {
    partition: u16,
    reader: R,
    /// The last frame that was read: its number and digest.
    read: (u64, Digest),
    /// The frame that the reader begins with is to be compared with what was consumed.
    anchored: bool,
    watch: Watch,
    queue: VecDeque<Taken>,
    /// The bytes of what was read, until somebody counts them.
    bytes: u64,
    /// Why nothing more is taken from this partition; the others go on.
    stopped: bool,
}

/// A commit whose append is not acknowledged.
struct Flight {
    commit: u64,
    sent: Instant,
    brought: Brought,
    partitions: Vec<Consumed>,
}

/// What metrics tell of a commit, once it is stored.
struct Brought {
    wagers: u64,
    /// By partition: when the broker received the newest wagers of each frame,
    frames: Vec<(u16, Millis)>,
    /// and said what an idle notice says that counts in this commit.
    notices: Vec<(u16, Millis)>,
}

impl<L: Log> Committer<L> {
    /// A committer that has yet to be driven.
    pub fn new(context: Context<L>, partitions: u16, settings: Settings) -> Self {
        Self {
            context,
            name: Name::single("ledger", "commits"),
            settings,
            partitions,
            labels: (0..partitions).map(|partition| Name::partition(partition).label).collect(),
            books: None,
            notices: vec![None; usize::from(partitions)],
            stored: 0,
            shorts: 0,
            desk: None,
            folded: 0,
            archived: 0,
            missing: 0,
            doubts: vec![(0, 0); usize::from(partitions)],
        }
    }

    /// The same, handing in snapshots of the books there.
    pub fn with_desk(self, desk: Desk) -> Self {
        Self { desk: Some(desk), ..self }
    }

    /// Brings the books to the last stored commit: forward by replay, from where they stand or stood, or from the
    /// beginning.
    async fn resume(&mut self) -> Result<Vec<Feed<L::Reader>>, Trouble> {
        let last = tail(&self.context.log, topology::COMMITS, topology::COMMITS).await?;
        let end = last.as_ref().map_or(0, |entry| entry.sequence);
        if end < self.stored {
            return Err(Trouble::Contradiction(Contradiction(format!(
                "commits end at {end}, but commit {} was acknowledged: they lost acknowledged messages; restore the \
                 stream from a backup or a replica",
                self.stored
            ))));
        }
        let mut books = self.books_at(end).await?;
        let caught_up = self.catch_up(&mut books, last).await;
        // A partition that had stopped is looked at anew, and stops again where its log is still not right.
        for feed in caught_up.iter().flatten().filter(|feed| !feed.stopped) {
            self.context.released(&Name::partition(feed.partition));
        }
        // Books that contradict the record are of no further use. All others are: it takes long to make them.
        if !matches!(caught_up, Err(Trouble::Contradiction(_))) {
            self.stored = self.stored.max(books.number());
            self.books = Some(books);
        }
        caught_up
    }

    /// Books at a stored commit: as they are, as they were some commits ago, or new ones.
    async fn books_at(&mut self, tail: u64) -> Result<Books, Trouble> {
        if !self.hold(tail).await?
            && let Some(books) = self.books.take()
        {
            self.books = books.rewind().map_err(|error| Contradiction(error.to_string()))?;
        }
        match self.hold(tail).await? && self.can_go_on().await? {
            true => Ok(self.books.take().expect("they hold a commit")),
            false => self.open_books(tail).await,
        }
    }

    /// Whether the frames behind what the books have consumed are still there: they are trimmed behind the snapshots of
    /// the process at work, while this one stands by.
    async fn can_go_on(&self) -> Result<bool, Trouble> {
        let consumed = self.books.iter().flat_map(|books| books.partitions());
        for (partition, consumed) in (0..).zip(consumed) {
            let stream = Lane::Contributions.stream(partition);
            if self.context.log.extent(&stream).await?.first > consumed.frame.max(1) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Opens all partitions behind what the books have consumed, and computes the commits up to the last one.
    async fn catch_up(
        &mut self,
        books: &mut Books,
        mut last: Option<Entry>,
    ) -> Result<Vec<Feed<L::Reader>>, Trouble> {
        let mut feeds = Vec::new();
        for (partition, consumed) in (0..).zip(books.partitions()) {
            feeds.push(Feed::open(&self.context.log, partition, *consumed).await?);
        }
        self.check_lengths(&mut feeds, last.as_ref(), books.number()).await?;
        while let Some(entry) = &last
            && books.number() < entry.sequence
        {
            self.replay(books, &mut feeds, entry.sequence).await?;
            // Others may have gone on meanwhile: only who has caught up can be the next.
            last = tail(&self.context.log, topology::COMMITS, topology::COMMITS).await?;
        }
        Ok(feeds)
    }

    /// A partition whose log is shorter than what was committed of it lost acknowledged frames: it stops, and where its
    /// frames are needed to rebuild the books, the ledger does.
    async fn check_lengths(
        &mut self,
        feeds: &mut [Feed<L::Reader>],
        last: Option<&Entry>,
        computed: u64,
    ) -> Result<(), Trouble> {
        let Some(last) = last else { return Ok(()) };
        let mut short = Vec::new();
        for (feed, consumed) in feeds.iter_mut().zip(read_commit(last)?.partitions) {
            let stream = Lane::Contributions.stream(feed.partition);
            let end = self.context.log.extent(&stream).await?.last;
            if end < consumed.frame {
                let contradiction = Contradiction(format!(
                    "{stream} ends at frame {end}, but commit {} consumed frame {}: it lost acknowledged frames; restore \
                     the stream from a backup or a replica",
                    last.sequence, consumed.frame
                ));
                short.push((feed, contradiction));
            }
        }
        self.shorts = if short.is_empty() { 0 } else { self.shorts + 1 };
        for (feed, contradiction) in short {
            if computed < last.sequence {
                return Err(contradiction.into());
            }
            if self.shorts < DOUBTS_BELIEVED {
                return Err(Trouble::Transient(contradiction.to_string().into()));
            }
            self.stop(feed, &contradiction);
        }
        Ok(())
    }

    /// Books from a snapshot, if there is one; else new ones.
    async fn open_books(&mut self, tail: u64) -> Result<Books, Trouble> {
        self.folded = 0;
        let Settings { workers, windows } = self.settings.clone();
        let key = Key::ledger();
        let log = &self.context.log;
        let (all, _) = snapshot::list(log, &key).await?;
        if let Some(newest) = all.last().filter(|newest| newest.frame > tail) {
            return Err(Trouble::Contradiction(Contradiction(format!(
                "commits end at {tail}, but there is a snapshot behind commit {}: they lost acknowledged messages; restore \
                 the stream from a backup or a replica",
                newest.frame
            ))));
        }
        let inputs: Vec<_> =
            (0..self.partitions).map(|partition| Lane::Contributions.stream(partition)).collect();
        let output = (topology::COMMITS, tail);
        let found = snapshot::greatest(log, &key, all, output, &inputs, books::SNAPSHOT_FORMAT).await?;
        let opened = match found {
            Some((kept, content)) => {
                self.archived = kept.frame;
                Books::thaw(workers, &windows, Saved(&content)).map_err(|error| match error {
                    ThawError::Unreadable(error) => error.of(&key, kept.frame),
                    ThawError::Lengths { .. } | ThawError::Start(_) => Contradiction(error.to_string()),
                })
            }
            None => Books::start(workers, self.partitions, windows)
                .map_err(|error| Contradiction(error.to_string())),
        };
        Ok(opened?)
    }

    /// Hands a snapshot in when one is due and the books keep a copy that is newer than the last one.
    fn archive(&mut self, feeds: &mut [Feed<L::Reader>]) {
        self.folded += feeds.iter_mut().map(|feed| std::mem::take(&mut feed.bytes)).sum::<u64>();
        let (Some(desk), Some(books)) = (&self.desk, &self.books) else { return };
        if books.kept() > self.archived && desk.is_due(self.folded) {
            self.archived = books.kept();
            self.folded = 0;
            books.freeze().into_iter().for_each(|frozen| desk.hand_in(frozen));
        }
    }

    /// Whether there are books that stand at a stored commit.
    async fn hold(&self, tail: u64) -> Result<bool, Trouble> {
        let Some(books) = self.books.as_ref().filter(|books| (1..=tail).contains(&books.number())) else {
            return Ok(false);
        };
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
            let entry = in_time(topology::COMMITS, &mut reader).await?;
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

    /// Takes what waits into a commit and computes it; gives it with what metrics tell of it, or nothing where a partition
    /// had to be stopped.
    async fn cut(&mut self, feeds: &mut [Feed<L::Reader>]) -> Result<Option<(Committed, Brought)>, Trouble> {
        let books = self.books.as_ref().expect("resume has made them");
        let (number, previous) = (books.number() + 1, books.digest());
        let (cut, revision) = (books.cut(), books.terms());
        let (frames, mut terms) = self.take(cut, revision, feeds).await?;
        let books = self.books.as_ref().expect("resume has made them");
        let mut positions: Vec<_> = books.partitions().iter().map(|consumed| consumed.frame).collect();
        for taken in &frames {
            positions[usize::from(taken.frame.header.partition)] = taken.frame.header.sequence;
        }
        let mut watermarks = vec![None; positions.len()];
        let mut notices = Vec::new();
        for notice in self.notices.iter().flatten() {
            let partition = usize::from(notice.partition);
            if notice.frame == positions[partition] {
                let known = terms.as_ref().map_or(books.terms(), |terms| terms.revision);
                match self.terms_for(known, notice.terms).await {
                    Ok(newer) => terms = newer.or(terms),
                    // Anybody can send a plain message: it is no log, and contradicts nothing.
                    Err(Trouble::Contradiction(what)) => {
                        warn!(partition, "an idle notice is ignored: {what}");
                        continue;
                    }
                    Err(trouble) => return Err(trouble),
                }
                watermarks[partition] = notice.watermark;
                notices.extend(notice.at.map(|at| (notice.partition, at)));
            }
        }
        let brought = Brought {
            wagers: frames.iter().map(|taken| u64::from(taken.frame.body.wagers)).sum(),
            frames: frames
                .iter()
                .map(|Taken { frame: Frame { header, .. }, .. }| (header.partition, header.recorded_at))
                .collect(),
            notices,
        };
        let input = CommitInput { number, previous, frames, watermarks, terms };
        let books = self.books.as_mut().expect("resume has made them");
        match books.commit(&input) {
            Ok(made) => Ok(Some((made, brought))),
            Err(contradiction) if self.stop_the_wrong(&input, feeds) => {
                debug!("without the partition that stopped, once more: {contradiction}");
                Ok(None)
            }
            Err(contradiction) => Err(contradiction.into()),
        }
    }

    /// Stops the partitions whose frames can be in no commit, and gives the others theirs back. Whether there was one.
    fn stop_the_wrong(&self, input: &CommitInput, feeds: &mut [Feed<L::Reader>]) -> bool {
        let books = self.books.as_ref().expect("a commit was tried");
        let of = |partition| {
            input.frames.iter().filter(move |taken: &&Taken| taken.frame.header.partition == partition)
        };
        let examined = |feed: &Feed<L::Reader>| books.examine(of(feed.partition), input.terms.as_deref());
        let found: Vec<_> = feeds.iter().map(examined).collect();
        if found.iter().all(Result::is_ok) {
            return false;
        }
        for (feed, found) in feeds.iter_mut().zip(found) {
            match found {
                Ok(()) => of(feed.partition).rev().for_each(|taken| feed.queue.push_front(taken.clone())),
                Err(contradiction) => self.stop(feed, &contradiction),
            }
        }
        true
    }

    /// Frames for one commit, in turn from each partition until it is full, and the revision that they take up.
    async fn take(
        &mut self,
        mut cut: Cut,
        mut revision: u64,
        feeds: &mut [Feed<L::Reader>],
    ) -> Result<(Vec<Taken>, Option<Arc<Terms>>), Trouble> {
        let (mut frames, mut terms) = (Vec::new(), None);
        while feeds.iter().any(|feed| !feed.queue.is_empty()) {
            for feed in feeds.iter_mut() {
                let Some(next) = feed.queue.front() else { continue };
                match self.terms_for(revision, next.frame.header.terms).await {
                    Ok(None) => {}
                    Ok(Some(newer)) => {
                        self.missing = 0;
                        cut.learn(&newer);
                        revision = newer.revision;
                        terms = Some(newer);
                    }
                    Err(Trouble::Contradiction(contradiction)) => {
                        self.missing += 1;
                        if self.missing < DOUBTS_BELIEVED {
                            return Err(Trouble::Transient(contradiction.to_string().into()));
                        }
                        self.stop(feed, &contradiction);
                        continue;
                    }
                    Err(trouble) => return Err(trouble),
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

    /// Looks again before a partition is stopped: its log may have been trimmed by another ledger, which went on after
    /// this one asked where the commits end.
    fn doubt(&mut self, feed: &Feed<L::Reader>, contradiction: &Contradiction) -> Result<(), Trouble> {
        let (behind, times) = &mut self.doubts[usize::from(feed.partition)];
        *times = if *behind == feed.read.0 { *times + 1 } else { 1 };
        *behind = feed.read.0;
        if *times < DOUBTS_BELIEVED {
            return Err(Trouble::Transient(contradiction.to_string().into()));
        }
        Ok(())
    }

    /// A partition whose log contradicts the books stops; the others go on. What of it was read and is not committed
    /// may be what is wrong.
    fn stop(&self, feed: &mut Feed<L::Reader>, contradiction: &Contradiction) {
        feed.stopped = true;
        feed.queue.clear();
        let name = Name::partition(feed.partition);
        error!(part = name.name, "stopped: {contradiction}");
        self.context.metrics.stopped(&name.label, true);
        self.context.health.set(&name.name, Condition::Stopped(contradiction.to_string()));
    }

    /// A commit is stored.
    fn settle(&self, flight: Flight) {
        let Flight { commit, sent, brought, partitions } = flight;
        let metrics = &self.context.metrics;
        metrics.acknowledged(sent.elapsed());
        metrics.appended(&self.name.label, commit, &Tally { wagers_in: brought.wagers, ..Tally::default() });
        let now = self.context.clock.now();
        brought.frames.iter().for_each(|&(_, at)| metrics.came_through(at, now));
        for &(partition, at) in brought.frames.iter().chain(&brought.notices) {
            metrics.heartbeat(&self.labels[usize::from(partition)], at);
        }
        for (label, consumed) in self.labels.iter().zip(partitions) {
            if let Some(at) = consumed.watermark {
                metrics.watermark(label, at);
            }
        }
    }

    /// Readers that say nothing are believed only while their streams have nothing more.
    async fn check_stall(&self, feeds: &mut [Feed<L::Reader>]) -> Result<(), Trouble> {
        for feed in feeds.iter_mut().filter(|feed| !feed.stopped && feed.queue.is_empty()) {
            let stream = Lane::Contributions.stream(feed.partition);
            let last = self.context.log.extent(&stream).await?.last;
            if feed.watch.stalled(last, feed.read.0) {
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
        let mut gate = self.context.metrics.gate(&self.name.label);
        let mut beat = Instant::now() + HEARTBEAT;
        let mut look = Instant::now() + WATCHDOG;
        loop {
            let idle = flight.is_none();
            if idle && (Instant::now() >= beat || self.is_due(&feeds)) {
                if self.desk.as_ref().is_some_and(|desk| desk.is_due(self.folded)) {
                    self.books.as_mut().expect("resume has made them").keep_next();
                }
                let Some((made, brought)) = self.cut(&mut feeds).await? else { continue };
                let Committed { commit: Commit { commit, partitions, .. }, message: payload, .. } = made;
                self.folded += snapshot::weight(&payload);
                self.archive(&mut feeds);
                let subject = topology::COMMITS.to_owned();
                let expect = Expect::Last(commit - 1);
                appender.send(Append { subject, headers: Vec::new(), payload, expect }).await?;
                flight = Some(Flight { commit, sent: Instant::now(), brought, partitions });
                beat = Instant::now() + HEARTBEAT;
                continue;
            }
            gate.open(feeds.iter().all(|feed| feed.stopped || feed.has_room()));
            tokio::select! {
                biased;
                () = self.context.stopped() => break,
                fate = appender.acknowledged(), if !idle => {
                    self.stored = fate?;
                    flight.take().into_iter().for_each(|flight| self.settle(flight));
                }
                (index, entry) = next_entry(&mut feeds) => {
                    self.context.touch();
                    if let Err(contradiction) = feeds[index].fill(entry?)? {
                        self.doubt(&feeds[index], &contradiction)?;
                        self.stop(&mut feeds[index], &contradiction);
                    }
                }
                notice = notices.recv() => self.notice(notice)?,
                () = sleep_until(beat), if idle => {}
                () = sleep_until(look) => {
                    look = Instant::now() + WATCHDOG;
                    self.check_stall(&mut feeds).await?;
                }
            }
        }
        settle(&mut appender).await
    }

    async fn standing(&mut self) -> Result<Standing, Trouble> {
        let output = self.context.log.extent(topology::COMMITS).await?.last;
        if output >= self.stored + FOLLOW_COMMITS {
            self.resume().await?;
        }
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
            watch: Watch::default(),
            queue: VecDeque::new(),
            bytes: 0,
            stopped: false,
        })
    }

    fn has_room(&self) -> bool {
        self.queue.len() < QUEUE_FRAMES_MAX
    }

    /// Takes in a message and those behind it that have arrived: what is behind a frame vouches for it.
    fn fill(&mut self, first: Entry) -> Result<Result<(), Contradiction>, ReadError> {
        let mut next = Some(Ok(first));
        while let Some(entry) = next {
            if let Err(contradiction) = self.take(&entry?) {
                return Ok(Err(contradiction));
            }
            next = if self.has_room() { self.reader.ready() } else { None };
        }
        Ok(Ok(()))
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
        let frame = Frame::<Contributions>::decode(&entry.payload)
            .map_err(|error| Contradiction::unreadable(&stream, entry.sequence, &error))?;
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
        self.bytes += snapshot::weight(&entry.payload);
        self.queue.push_back(Taken { digest, frame });
        Ok(())
    }

    /// Reads one message, and gives the frame that it brought, if it did.
    async fn next(&mut self) -> Result<Option<Taken>, Trouble> {
        let entry = in_time(&Lane::Contributions.stream(self.partition), &mut self.reader).await?;
        self.take(&entry)?;
        Ok(self.queue.pop_front())
    }
}

/// The next message of a stream that is known to have it.
async fn in_time<R: Reader>(stream: &str, reader: &mut R) -> Result<Entry, Trouble> {
    let next = timeout(WATCHDOG, reader.next()).await;
    Ok(next.map_err(|_| Trouble::stalled(stream))??)
}

/// The next message of any partition that may read on, with the partition's place. Safe to cancel.
async fn next_entry<R: Reader>(feeds: &mut [Feed<R>]) -> (usize, Result<Entry, ReadError>) {
    let reading = |feed: &Feed<R>| !feed.stopped && feed.has_room();
    let open = feeds.iter_mut().enumerate().filter(|(_, feed)| reading(feed));
    first(open.map(|(index, feed)| async move { (index, feed.reader.next().await) })).await
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
