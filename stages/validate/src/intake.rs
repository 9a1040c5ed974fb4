//! The intake: reads a partition's ingress, cuts it into frames and appends them to the spine, one append in
//! flight (design, section 2). One per partition and process.
//!
//! The state is a fold of the stored frames alone: a frame of our own is folded when it is acknowledged, a frame
//! of another process when it is read. A frame that loses the race is dropped, and nothing has to be undone.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use prometheus::IntGauge;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{error, warn};

use jackpot_core::digest::Digest;
use jackpot_core::frame::batch::Batch;
use jackpot_core::frame::geofenced::Geofenced;
use jackpot_core::frame::validated::Validated;
use jackpot_core::frame::{Frame, Header, Ingress};
use jackpot_core::log::{Append, Appender, Entry, Expect, Log, Notices, Reader};
use jackpot_core::record::IdleNotice;
use jackpot_core::recovery::Trouble;
use jackpot_core::refusal::StageName;
use jackpot_core::runner::{Context, GRACE, Name, Part, Standing, WATCHDOG, Watch, tail};
use jackpot_core::snapshot::{self, Desk, Frozen, Key, Saved, Unreadable, free, held_up};
use jackpot_core::stage::Contradiction;
use jackpot_core::time::Millis;
use jackpot_core::topology::{self, Lane};

use crate::alarms::alarms;
use crate::batch::{Content, ParsedMessage, parse};
use crate::cut::{Cutter, Taken, tally};
use crate::keys::KeyFile;
use crate::recut::{recorded_signature, recut};
use crate::state::State;
use crate::terms::CompiledTerms;

/// How often the key file is read again while a key is missing.
const KEYS_INTERVAL: Duration = Duration::from_secs(1);
/// How often a partition that has read all says so.
const NOTICE_INTERVAL: Duration = Duration::from_millis(500);
/// Ingress messages that wait for a frame at most.
const QUEUE_MESSAGES_MAX: usize = 4_096;
/// Their bytes at most.
const QUEUE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The version of the form of validate's snapshots.
const SNAPSHOT_FORMAT: u16 = 1;

/// How far this machine's clock may be off the broker's (contract, section 5).
const CLOCK_OFF_MAX_MS: i64 = 500;

/// How validate runs.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How much later than the newest one a wager may come and still be on time.
    pub lateness: Duration,
    /// How long nothing must have been stored for a partition until it counts as idle.
    pub idle_after: Duration,
}

impl Settings {
    fn lateness_ms(self) -> i64 {
        i64::try_from(self.lateness.as_millis()).unwrap_or(i64::MAX)
    }
}

/// Cuts the ingress of one partition into frames.
pub struct Intake<L> {
    context: Context<L>,
    name: Name,
    partition: u16,
    settings: Settings,
    state: State,
    /// What of the ingress the frame before the last one had read.
    before: Ingress,
    /// The terms in force behind the last message that was cut.
    terms: CompiledTerms,
    /// Where the secrets of their keys are.
    keys: KeyFile,
    /// Where a key of the terms in force is missing: what was said of that, and when the file is read again.
    halt: Option<(String, Instant)>,
    queue: Queue,
    /// Up to where the ingress is known to hold nothing more for this partition.
    looked: u64,
    clock_astray: IntGauge,
    /// While this process stands by: what the one at work says when the partition is idle, and how often it did.
    others: Option<Notices>,
    heard: u64,
    /// Where snapshots are handed in,
    desk: Option<Desk>,
    /// and the bytes of frames that were folded since the last one.
    folded: u64,
    /// The frame of the newest snapshot when this process knew nothing: the spine cannot end before it.
    vouched: u64,
}

/// Ingress messages that no stored frame covers, in order.
#[derive(Default)]
struct Queue {
    messages: VecDeque<(ParsedMessage, usize)>,
    bytes: usize,
    /// How many of the first ones are read over: markers behind the last batch.
    passed: usize,
}

/// What a frame records of ingress messages, by position: when the broker received them, and of their signatures.
type Recorded = BTreeMap<u64, (Millis, Result<(), Box<str>>)>;

fn record_of<W>(batches: &[Batch<W>]) -> Recorded {
    let recorded = |batch: &Batch<W>| (batch.recorded_at, recorded_signature(&batch.verdict));
    batches.iter().map(|batch| (batch.position, recorded(batch))).collect()
}

/// A frame whose append is not acknowledged.
struct Flight {
    frame: Frame<Validated>,
    digest: Digest,
    bytes: u64,
    sent: Instant,
}

impl<L: Log> Intake<L> {
    /// An intake that has yet to be driven.
    pub fn new(context: Context<L>, partition: u16, settings: Settings) -> Self {
        let clock_astray = context.metrics.clock_astray();
        Self {
            context,
            name: Name::partition(partition),
            partition,
            settings,
            state: State::new(partition),
            before: Ingress::default(),
            terms: CompiledTerms::new(&jackpot_core::terms::Terms::none()),
            keys: KeyFile::default(),
            halt: None,
            queue: Queue::default(),
            looked: 0,
            clock_astray,
            others: None,
            heard: 0,
            desk: None,
            folded: 0,
            vouched: 0,
        }
    }

    /// The same with the keys of a file, which terms that name keys need.
    pub fn with_keys(self, keys: KeyFile) -> Self {
        Self { keys, ..self }
    }

    /// The same, handing in snapshots of its state there.
    pub fn with_desk(self, desk: Desk) -> Self {
        Self { desk: Some(desk), ..self }
    }

    /// Brings the state to the end of the spine, whoever wrote it, and opens the ingress behind it.
    async fn resume(&mut self) -> Result<L::Reader, Trouble> {
        self.queue = Queue::default();
        self.looked = 0;
        self.others = None;
        // Asked first: while nothing is lost, the spine is at least as long as what is made of it.
        let made = self.context.log.extent(&Lane::Geofenced.stream(self.partition)).await?.last;
        let stream = Lane::Validated.stream(self.partition);
        let stored = tail(&self.context.log, &stream, &Lane::Validated.subject(self.partition)).await?;
        let (last, digest) =
            stored.as_ref().map_or((0, Digest::ZERO), |entry| (entry.sequence, Digest::of(&entry.payload)));
        self.take_back(&stream, last).await?;
        let known = *self.state.tail();
        if last < known.frame || (last == known.frame && digest != known.digest) {
            return Err(Trouble::Contradiction(Contradiction(format!(
                "{stream} ends at frame {last}, which is not the frame {} that was acknowledged: it lost acknowledged \
                 frames; restore the stream from a backup or a replica",
                known.frame
            ))));
        }
        let mut reader = match stored {
            Some(entry) if entry.sequence > known.frame => {
                self.catch_up(&stream, last - 1).await?;
                self.take_last(&entry).await?
            }
            _ => self.read_ingress(self.before, known.frame, known.ingress, &Recorded::new()).await?.0,
        };
        while self.state.tail().frame < made {
            reader = self.rebuild().await?;
        }
        if self.state.tail().frame < self.vouched {
            return Err(Trouble::Contradiction(Contradiction(format!(
                "{stream} ends at frame {last}, but there is a snapshot behind frame {}: it lost acknowledged frames; \
                 restore the stream from a backup or a replica",
                self.vouched
            ))));
        }
        self.turn(self.state.tail().terms).await?;
        self.context.metrics.at(&self.name.label, self.state.tail().frame);
        Ok(reader)
    }

    /// A process that knows nothing takes a snapshot back, if there is one; and one that stood by while what it has not
    /// folded was trimmed.
    async fn take_back(&mut self, stream: &str, end: u64) -> Result<(), Trouble> {
        let known = self.state.tail().frame;
        if known > 0 && self.context.log.extent(stream).await?.first <= known + 1 {
            return Ok(());
        }
        let key = Key::partition(StageName::Validate, self.partition);
        let log = &self.context.log;
        let (all, _) = snapshot::list(log, &key).await?;
        self.vouched = all.last().map_or(0, |newest| newest.frame);
        let spine = [stream.to_owned()];
        if let Some((kept, bytes)) =
            snapshot::greatest(log, &key, all, (stream, end), &spine, SNAPSHOT_FORMAT).await?
        {
            let unreadable = |error: Unreadable| error.of(&key, kept.frame);
            let mut content = Saved(&bytes);
            self.before = content.take().map_err(unreadable)?;
            self.state = self.state.thaw(content).map_err(unreadable)?;
            self.folded = 0;
        }
        Ok(())
    }

    /// Hands a snapshot in when one is due: of stored frames alone, which the state always is.
    fn archive(&mut self) {
        let Some(desk) = self.desk.as_ref().filter(|desk| desk.is_due(self.folded)) else { return };
        let (tail, before) = (self.state.tail(), snapshot::piece(&self.before));
        desk.hand_in(Frozen {
            frame: tail.frame,
            digest: tail.digest,
            read: vec![tail.frame],
            format: SNAPSHOT_FORMAT,
            pieces: Box::new(std::iter::once(before).chain(self.state.freeze())),
        });
        self.folded = 0;
    }

    /// Folds the frames up to `until` that this process has not made.
    async fn catch_up(&mut self, stream: &str, until: u64) -> Result<(), Trouble> {
        if self.state.tail().frame >= until {
            return Ok(());
        }
        let mut reader = self.context.log.read(stream, None, self.state.tail().frame + 1).await?;
        while self.state.tail().frame < until {
            let entry = timeout(WATCHDOG, reader.next()).await.map_err(|_| Trouble::stalled(stream))??;
            let frame = self.decode(&entry)?;
            self.turn(frame.header.terms).await?;
            self.fold(&frame, Digest::of(&entry.payload))?;
            self.folded += snapshot::weight(&entry.payload);
        }
        Ok(())
    }

    fn decode(&self, entry: &Entry) -> Result<Frame<Validated>, Contradiction> {
        Frame::<Validated>::decode(&entry.payload).map_err(|error| {
            Contradiction::unreadable(&Lane::Validated.stream(self.partition), entry.sequence, &error)
        })
    }

    /// Cuts the last frame of the spine again, and folds it: the next frame would vouch for it.
    async fn take_last(&mut self, entry: &Entry) -> Result<L::Reader, Trouble> {
        let recorded = self.decode(entry)?;
        let digest = Digest::of(&entry.payload);
        let (reader, frame) = self.recut(&recorded.header, &record_of(&recorded.body.batches)).await?;
        // A frame that does not even follow is refused when it is folded.
        let follows = recorded.header.previous == self.state.tail().digest;
        if follows && frame.is_none_or(|frame| Digest::of(&frame.encode()) != digest) {
            return Err(Trouble::Contradiction(Contradiction(format!(
                "frame {} of {} is not what cutting it again from wagers gives: it was changed, or made by other rules; \
                 restore both streams from a backup",
                entry.sequence,
                Lane::Validated.stream(self.partition)
            ))));
        }
        self.fold(&recorded, digest)?;
        Ok(reader)
    }

    /// Appends again a frame that the spine lost, and of which geofence has made one: the same, or none.
    async fn rebuild(&mut self) -> Result<L::Reader, Trouble> {
        let sequence = self.state.tail().frame + 1;
        let (spine, stream) =
            (Lane::Validated.stream(self.partition), Lane::Geofenced.stream(self.partition));
        let lost = |why: &str| {
            Contradiction(format!(
                "{spine} ends at frame {}, but {stream} holds frames made from it, and frame {sequence} cannot be made \
                 again: {why}; restore {spine} from a backup or a replica",
                sequence - 1
            ))
        };
        let made = self.context.log.get(&stream, sequence).await?;
        let made = made.ok_or_else(|| lost("what geofence made of it is not there"))?;
        let made = Frame::<Geofenced>::decode(&made.payload).map_err(|error| lost(&error.to_string()))?;
        let (reader, frame) = self.recut(&made.header, &record_of(&made.body.batches)).await?;
        let frame = frame.ok_or_else(|| lost("no frame can be cut there"))?;
        let payload = frame.encode();
        let digest = Digest::of(&payload);
        if digest != made.header.input {
            return Err(lost("wagers give another one").into());
        }
        let subject = Lane::Validated.subject(self.partition);
        let mut appender = self.context.log.appender().await?;
        let expect = Expect::Last(sequence - 1);
        appender.send(Append { subject, headers: Vec::new(), payload, expect }).await?;
        appender.acknowledged().await?;
        warn!(frame = sequence, "{spine} had lost a frame; it was made again from wagers");
        self.fold(&frame, digest)?;
        Ok(reader)
    }

    /// Reads what the frame after the last one was cut from, and cuts it again.
    async fn recut(
        &mut self,
        recorded: &Header,
        batches: &Recorded,
    ) -> Result<(L::Reader, Option<Frame<Validated>>), Trouble> {
        self.turn(recorded.terms).await?;
        let from = self.state.tail().ingress;
        let (reader, messages) =
            self.read_ingress(from, recorded.sequence, recorded.ingress, batches).await?;
        Ok((reader, recut(&self.state, &self.terms, recorded, &messages)))
    }

    fn fold(&mut self, frame: &Frame<Validated>, digest: Digest) -> Result<(), Contradiction> {
        let before = self.state.tail().ingress;
        self.state.fold(frame, digest, &self.terms)?;
        self.before = before;
        Ok(())
    }

    /// Takes up a revision of the terms.
    async fn turn(&mut self, revision: u64) -> Result<(), Trouble> {
        if self.terms.revision() != revision {
            self.terms = self.keys.compile(&*self.context.terms.get(revision).await?).0;
        }
        Ok(())
    }

    /// Whether the partition is halted: a key of the terms in force is missing, and no marker of later ones is what
    /// comes next. Nothing is cut or said then, and the file is read again every second, until the key is there.
    async fn is_halted(&mut self) -> Result<bool, Trouble> {
        if !self.terms.is_complete() && !self.queue.turns(self.terms.revision()) {
            if self.halt.as_ref().is_some_and(|&(_, again)| Instant::now() < again) {
                return Ok(true);
            }
            let terms = self.context.terms.get(self.terms.revision()).await?;
            let (compiled, missing) = self.keys.compile(&terms);
            self.terms = compiled;
            if let Some(why) = missing {
                if self.halt.as_ref().is_none_or(|(said, _)| *said != why) {
                    self.context.halted(&self.name, &why);
                }
                self.halt = Some((why, Instant::now() + KEYS_INTERVAL));
                return Ok(true);
            }
        }
        if self.halt.take().is_some() {
            self.context.working(&self.name);
        }
        Ok(false)
    }

    /// Reads again what a frame was made of, so that an ingress that is not the one we know is noticed.
    async fn read_ingress(
        &self,
        from: Ingress,
        frame: u64,
        until: Ingress,
        batches: &Recorded,
    ) -> Result<(L::Reader, Vec<ParsedMessage>), Trouble> {
        let foreign = || {
            Contradiction(format!(
                "the stream wagers does not hold what frame {frame} of {} was made of: it lost acknowledged wagers, or \
                 is another one; restore it from a backup or a replica, and do not let it grow first",
                Lane::Validated.stream(self.partition)
            ))
        };
        let filter = topology::ingress_filter(self.partition);
        let stored = self.context.log.last(topology::WAGERS, &filter).await?;
        if stored.map_or(0, |entry| entry.sequence) < until.position {
            return Err(foreign().into());
        }
        let mut reader = self.context.log.read(topology::WAGERS, Some(&filter), from.position + 1).await?;
        let (mut read, mut messages) = (from, Vec::new());
        while read.position < until.position {
            let mut entry =
                timeout(WATCHDOG, reader.next()).await.map_err(|_| Trouble::stalled(topology::WAGERS))??;
            read = read.after(entry.sequence, &entry.subject, &Digest::of(&entry.payload));
            messages.push(match batches.get(&entry.sequence) {
                None => parse(&entry),
                Some((at, signature)) => {
                    entry.recorded_at = *at;
                    parse(&entry).with_recorded(signature.clone())
                }
            });
        }
        if read == until { Ok((reader, messages)) } else { Err(foreign().into()) }
    }

    /// Cuts the next frame out of the queue; `None` when it holds no batch.
    async fn cut(&mut self) -> Result<Option<Frame<Validated>>, Trouble> {
        loop {
            if self.is_halted().await? {
                return Ok(None);
            }
            let mut cutter = Cutter::new(&self.state, &self.terms, self.settings.lateness_ms());
            let mut turn = None;
            self.queue.passed = 0;
            for (message, _) in &self.queue.messages {
                match cutter.take(message) {
                    Taken::In => self.queue.passed += 1,
                    Taken::Full => break,
                    Taken::Turn(marker) => {
                        turn = Some(marker);
                        break;
                    }
                }
            }
            let frame = cutter.finish();
            let (None, Some(marker)) = (&frame, turn) else { return Ok(frame) };
            let terms = self.context.terms.get(marker.revision).await?;
            if terms.digest() != marker.digest {
                return Err(Trouble::Contradiction(Contradiction(format!(
                    "the marker of revision {} of the terms names another document than the stream `terms` holds under \
                     that number; restore the stream from a backup",
                    marker.revision
                ))));
            }
            self.terms = self.keys.compile(&terms).0;
        }
    }

    /// A frame of our own is stored.
    fn settle(&mut self, flight: Flight) -> Result<(), Trouble> {
        self.context.metrics.acknowledged(flight.sent.elapsed());
        self.context.metrics.came_through(flight.frame.header.recorded_at, self.context.clock.now());
        self.fold(&flight.frame, flight.digest)?;
        self.folded += flight.bytes;
        self.archive();
        self.queue.covered(self.state.tail().ingress.position);
        self.context.metrics.appended(&self.name.label, self.state.tail().frame, &tally(&flight.frame.body));
        for alarm in alarms(&flight.frame.body) {
            warn!(part = self.name.name, "{alarm}");
        }
        Ok(())
    }

    /// Says that all is read that is stored for the partition, if the leader confirms it: that runs new terms where
    /// no wager brings them. Event time follows the clock only once the partition is idle.
    async fn say_read(&mut self, idle: bool) -> Result<(), Trouble> {
        let Some((watermark, at)) = self.watermark(idle).await? else { return Ok(()) };
        let notice = IdleNotice {
            partition: self.partition,
            frame: self.state.tail().frame,
            watermark,
            terms: self.terms.revision(),
            at: Some(at),
        };
        let payload = serde_json::to_vec(&notice).expect("a notice is plain data").into();
        self.context.log.notify(&topology::idle(self.partition), payload).await?;
        Ok(())
    }

    /// The watermark of a partition that has read all, by the clock once it is idle, and the broker's time; `None` where
    /// more is stored.
    /// A clock that differs from the broker's alarms, and advances nothing.
    async fn watermark(&mut self, idle: bool) -> Result<Option<(Option<Millis>, Millis)>, Trouble> {
        let asked = self.context.clock.now();
        let extent = self.context.log.extent(topology::WAGERS).await?;
        let answered = self.context.clock.now();
        if self.more(extent.last).await?.is_some() {
            return Ok(None);
        }
        let off_ms = (asked.0 - extent.at.0).max(extent.at.0 - answered.0);
        let astray = off_ms > CLOCK_OFF_MAX_MS;
        if astray {
            error!(
                part = self.name.name,
                "this machine's clock is {off_ms} ms off the broker's: synchronize both; until then idle partitions do \
                 not advance"
            );
        }
        self.clock_astray.set(i64::from(astray));
        let watermark = self.state.tail().watermark;
        let clock = (idle && !astray).then(|| answered.plus(-self.settings.lateness_ms()));
        Ok(Some((watermark.max(clock), extent.at)))
    }

    /// The last message of the ingress that was read.
    fn read(&self) -> u64 {
        self.queue.messages.back().map_or(self.state.tail().ingress.position, |(last, _)| last.position)
    }

    /// The last message that the ingress, which ends at `last`, holds for this partition, if it was not read; asked of
    /// its leader where another partition's messages may have moved the end.
    async fn more(&mut self, last: u64) -> Result<Option<u64>, Trouble> {
        let read = self.read();
        if last <= self.looked.max(read) {
            return Ok(None);
        }
        let newest =
            self.context.log.last(topology::WAGERS, &topology::ingress_filter(self.partition)).await?;
        let more = newest.map(|entry| entry.sequence).filter(|&newest| newest > read);
        if more.is_none() {
            self.looked = last;
        }
        Ok(more)
    }

    /// Takes what has arrived into the queue.
    fn fill(&mut self, first: &Entry, reader: &mut L::Reader) -> Result<(), Trouble> {
        self.queue.push(first);
        while self.queue.has_room()
            && let Some(entry) = reader.ready()
        {
            self.queue.push(&entry?);
        }
        self.context.touch();
        Ok(())
    }
}

impl<L: Log> Part for Intake<L> {
    fn name(&self) -> &Name {
        &self.name
    }

    fn progress(&self) -> u64 {
        self.state.tail().frame
    }

    async fn pass(&mut self) -> Result<(), Trouble> {
        let mut reader = self.resume().await?;
        let mut appender = self.context.log.appender().await?;
        self.halt = None;
        // Where more is stored, the terms in force are perhaps those of a marker that is still to be read.
        let last = self.context.log.extent(topology::WAGERS).await?.last;
        if self.more(last).await?.is_some() || !self.is_halted().await? {
            self.context.working(&self.name);
        }
        let mut flight: Option<Flight> = None;
        let mut gate = self.context.metrics.gate(&self.name.label);
        let mut watch = Watch::default();
        let mut heard = Instant::now();
        let mut idle_from = heard + self.settings.idle_after;
        let mut due = idle_from.min(heard + NOTICE_INTERVAL);
        loop {
            let held_up = held_up(self.desk.as_ref(), self.folded);
            if flight.is_none()
                && held_up.is_none()
                && self.queue.waiting()
                && let Some(frame) = self.cut().await?
            {
                let payload = frame.encode();
                let (digest, bytes) = (Digest::of(&payload), snapshot::weight(&payload));
                let subject = Lane::Validated.subject(self.partition);
                let expect = Expect::Last(frame.header.sequence - 1);
                appender.send(Append { subject, headers: Vec::new(), payload, expect }).await?;
                flight = Some(Flight { frame, digest, bytes, sent: Instant::now() });
            }
            let idle = flight.is_none() && !self.queue.waiting() && self.halt.is_none();
            let again = self.halt.as_ref().map(|&(_, again)| again);
            let open = gate.open(self.queue.has_room());
            tokio::select! {
                biased;
                () = self.context.stopped() => break,
                () = free(held_up.as_ref()), if held_up.is_some() => self.archive(),
                fate = appender.acknowledged(), if flight.is_some() => {
                    fate?;
                    self.settle(flight.take().expect("this branch is taken only with one in flight"))?;
                }
                entry = reader.next(), if open => {
                    self.fill(&entry?, &mut reader)?;
                    heard = Instant::now();
                    idle_from = heard + self.settings.idle_after;
                    due = idle_from.min(heard + NOTICE_INTERVAL);
                }
                () = sleep_until(again.unwrap_or(due)), if again.is_some() => {
                    self.is_halted().await?;
                }
                () = sleep_until(due), if idle => {
                    let now = Instant::now();
                    due = now + NOTICE_INTERVAL;
                    self.say_read(now >= idle_from).await?;
                }
                () = sleep_until(heard + WATCHDOG), if idle => {
                    heard = Instant::now();
                    // A reader that says nothing is believed only while there is nothing to say.
                    let last = self.context.log.extent(topology::WAGERS).await?.last;
                    let held = self.more(last).await?.unwrap_or(0);
                    if watch.stalled(held, self.read()) {
                        return Err(Trouble::stalled(topology::WAGERS));
                    }
                }
            }
        }
        if let Some(flight) = flight
            && let Ok(fate) = timeout(GRACE, appender.acknowledged()).await
        {
            fate?;
            self.settle(flight)?;
        }
        Ok(())
    }

    /// The process at work appends, or says that the partition is idle: silence means that it is gone, and then
    /// somebody must say so even where no wager waits.
    async fn standing(&mut self) -> Result<Standing, Trouble> {
        let spine = self.context.log.extent(&Lane::Validated.stream(self.partition)).await?.last;
        let others = match &mut self.others {
            Some(others) => others,
            None => self.others.insert(self.context.log.listen(&topology::idle(self.partition)).await?),
        };
        loop {
            match others.try_recv() {
                Ok(_) => self.heard += 1,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    self.others = None;
                    break;
                }
            }
        }
        Ok(Standing { output: spine + self.heard, waiting: true })
    }
}

impl Queue {
    fn push(&mut self, entry: &Entry) {
        let message = parse(entry);
        let bytes = entry.payload.len() + message.headers_len();
        self.bytes += bytes;
        self.messages.push_back((message, bytes));
    }

    /// Whether terms after this revision come into force before any batch.
    fn turns(&self, revision: u64) -> bool {
        let later =
            |message: &ParsedMessage| message.marker().is_some_and(|marker| marker.revision > revision);
        let batch = |message: &ParsedMessage| matches!(message.content, Content::Batch(_));
        let next = self.messages.iter().find(|(message, _)| batch(message) || later(message));
        next.is_some_and(|(message, _)| later(message))
    }

    fn has_room(&self) -> bool {
        self.messages.len() < QUEUE_MESSAGES_MAX && self.bytes < QUEUE_BYTES_MAX
    }

    /// Whether there is a message that has not been looked at.
    fn waiting(&self) -> bool {
        self.messages.len() > self.passed
    }

    /// Forgets what a stored frame covers.
    fn covered(&mut self, position: u64) {
        while let Some((_, bytes)) = self.messages.pop_front_if(|(message, _)| message.position <= position) {
            self.bytes -= bytes;
        }
        self.passed = 0;
    }
}
