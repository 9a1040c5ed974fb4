//! Snapshots of a stage's state (design, section 4), and the trimming of lanes that they allow.
//!
//! The stream `snapshots` holds, for each state, its snapshots in parts and one message that lists those confirmed.
//! A snapshot is named by the frame of the stage's own output that it was taken behind, and that frame's digest. It is
//! taken only of stored frames, written by [`Archivist`] beside the part at work, and never changed. The list is
//! fenced: of two writers one wins, and what the other wrote is removed with the next one.
//!
//! A part that starts asks [`greatest`] for the latest one that its output holds the frame of. One that cannot be read
//! is an error that says so, never an empty state.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

use crate::digest::Digest;
use crate::log::{Append, Appender, Expect, Log, Reader};
use crate::recovery::Trouble;
use crate::refusal::StageName;
use crate::room::LOOK_INTERVAL;
use crate::runner::{Context, Part, WATCHDOG, drive, stored};
use crate::stage::Contradiction;
use crate::topology::{self, Lane};

/// A snapshot is kept in parts of about this size, so that each fits a message.
const PART_BYTES: usize = 512 * 1024;
/// So many snapshots of a state are kept: should the newer one be of no use, there is the older one, and the lanes are
/// kept for it.
const KEPT: usize = 2;
/// A snapshot is due at the latest when the log has grown by this part of the smallest lane. Whoever is twice as far
/// without one waits for it, so the older of two lies at most four of these parts back, and a frame or two: a lane that
/// is full can be trimmed once who reads it has read it. Nothing else would make room, for no frame comes then.
const LANE_PARTS: u64 = 8;
/// How often the lanes are looked at while one of them fills.
const CROWDED_INTERVAL: Duration = Duration::from_secs(2);
/// The pause after a snapshot that could not be written, or lanes that could not be looked at.
const FAILED_PAUSE: Duration = Duration::from_secs(1);
/// The lanes that are trimmed.
const TRIMMED: [Lane; 3] = [Lane::Validated, Lane::Geofenced, Lane::Contributions];

/// A state's content, piece by piece, so that whoever writes it can let others work in between.
pub type Pieces = Box<dyn Iterator<Item = Vec<u8>> + Send>;

/// Which state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Whose.
    pub stage: StageName,
    /// Which of the stage's: a partition's number, or `commits`.
    pub label: Box<str>,
}

impl Key {
    /// The state of a partition.
    pub fn partition(stage: StageName, partition: u16) -> Self {
        Self { stage, label: partition.to_string().into() }
    }

    /// The state of the ledger.
    pub fn ledger() -> Self {
        Self { stage: StageName::Aggregate, label: topology::COMMITS.into() }
    }
}

/// A state behind a stored frame, as it was handed in.
pub struct Frozen {
    /// The frame of the stage's own output (of the ledger: the commit).
    pub frame: u64,
    /// The digest of its message.
    pub digest: Digest,
    /// By partition, the last frame of the input that the state holds; one where there is one partition.
    pub read: Vec<u64>,
    /// The version of the content's form.
    pub format: u16,
    /// The content.
    pub pieces: Pieces,
}

/// A confirmed snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The frame of the stage's own output that it was taken behind (of the ledger: the commit).
    pub frame: u64,
    /// The digest of that frame's message.
    pub digest: Digest,
    /// By partition, the last frame of the input that it holds.
    pub read: Vec<u64>,
    /// The version of the content's form.
    pub format: u16,
    /// From where on its parts are in the stream.
    pub first: u64,
    /// In how many parts it is kept.
    pub parts: u32,
    /// How long its content is.
    pub bytes: u64,
    /// The digest of its content.
    pub content: Digest,
}

/// Why the content of a snapshot cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("a snapshot's content cannot be read: {0}")]
pub struct Unreadable(#[from] postcard::Error);

/// Writes a value as a piece.
pub fn piece<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("memory takes what is plain data")
}

/// By how many bytes a message lets the log grow, for [`Desk::is_due`].
pub fn weight(message: &[u8]) -> u64 {
    u64::try_from(message.len()).expect("a length fits 64 bits")
}

/// Reads pieces, one value after the other.
#[derive(Debug)]
pub struct Saved<'a>(pub &'a [u8]);

impl Saved<'_> {
    /// The next value.
    pub fn take<T: DeserializeOwned>(&mut self) -> Result<T, Unreadable> {
        let (value, rest) = postcard::take_from_bytes(self.0)?;
        self.0 = rest;
        Ok(value)
    }

    /// Everything has been read.
    pub fn finish(self) -> Result<(), Unreadable> {
        if self.0.is_empty() { Ok(()) } else { Err(Unreadable(postcard::Error::SerdeDeCustom)) }
    }
}

impl Unreadable {
    /// What follows for the part.
    pub fn of(&self, key: &Key, frame: u64) -> Contradiction {
        damaged(key, frame, &self.to_string())
    }
}

fn damaged(key: &Key, frame: u64, what: &str) -> Contradiction {
    Contradiction(format!(
        "the snapshot of {} {} behind frame {frame} is damaged ({what}); restore the stream `snapshots` from a backup or \
         a replica, or, where its lane was not trimmed yet, remove what it holds",
        key.stage, key.label
    ))
}

/// The confirmed snapshots of a state, the oldest first, and the sequence of the message that says so; asked of the
/// leader.
pub async fn list<L: Log>(log: &L, key: &Key) -> Result<(Vec<Kept>, u64), Trouble> {
    let subject = topology::snapshots(key.stage, &key.label);
    let Some(entry) = log.last(topology::SNAPSHOTS, &subject).await? else { return Ok((Vec::new(), 0)) };
    let kept = serde_json::from_slice(&entry.payload).map_err(|error| {
        Contradiction(format!(
            "message {} of snapshots cannot be read ({error}); run the build that wrote it, or restore the stream from a \
             backup",
            entry.sequence
        ))
    })?;
    Ok((kept, entry.sequence))
}

/// The greatest of [all](list) snapshots whose frame `output` holds, which ends at `end`, with its content. Where there is
/// none, a state begins with the first message of `inputs`, and all of them must still be there: they are trimmed only for
/// snapshots.
///
/// # Errors
/// A contradiction where the output holds another frame there, where a snapshot is damaged, where none can be read by a
/// build that knows the form `format` and those before it, and where none is left of a trimmed input.
pub async fn greatest<L: Log>(
    log: &L,
    key: &Key,
    all: Vec<Kept>,
    (output, end): (&str, u64),
    inputs: &[String],
    format: u16,
) -> Result<Option<(Kept, Vec<u8>)>, Trouble> {
    let newest = all.last().map_or(0, |kept| kept.frame);
    let mut newer = None;
    for kept in all.into_iter().rev().filter(|kept| kept.frame <= end) {
        let entry = stored(log, output, kept.frame).await?;
        if Digest::of(&entry.payload) != kept.digest {
            return Err(Trouble::Contradiction(Contradiction(format!(
                "frame {} of {output} is not the one that the snapshot of {} {} was taken behind: the stream was changed \
                 or made anew, or the snapshot is of another deployment; restore {output} from a backup, or remove what \
                 the stream `snapshots` holds where it does not belong here",
                kept.frame, key.stage, key.label
            ))));
        }
        if kept.format <= format {
            let content = content(log, key, &kept).await?;
            return Ok(Some((kept, content)));
        }
        warn!(stage = %key.stage, label = %key.label, frame = kept.frame, "a snapshot of a newer build is passed over");
        newer = Some(kept);
    }
    match newer {
        None => {
            for input in inputs {
                none_needed(log, key, newest, (output, end), input).await?;
            }
            Ok(None)
        }
        Some(kept) => Err(Trouble::Contradiction(Contradiction(format!(
            "the snapshot of {} {} behind frame {} was written by a newer build (form {}, this one knows {format}); run \
             that build",
            key.stage, key.label, kept.frame, kept.format
        )))),
    }
}

/// Whoever takes no snapshot back for an `output` that ends at `end` begins with the first message of the `input`.
async fn none_needed<L: Log>(
    log: &L,
    key: &Key,
    newest: u64,
    (output, end): (&str, u64),
    input: &str,
) -> Result<(), Trouble> {
    let first = log.extent(input).await?.first;
    if first <= 1 {
        return Ok(());
    }
    Err(Trouble::Contradiction(Contradiction(match newest {
        1.. => format!(
            "{output} ends at frame {end}, but there is a snapshot behind frame {newest}: it lost acknowledged frames; \
             restore the stream from a backup or a replica"
        ),
        0 => format!(
            "{input} begins with frame {first}, and the stream `snapshots` holds no snapshot of {} {} for what was before: \
             it was emptied; restore it from a backup or a replica",
            key.stage, key.label
        ),
    })))
}

/// Reads the parts of a snapshot.
async fn content<L: Log>(log: &L, key: &Key, kept: &Kept) -> Result<Vec<u8>, Trouble> {
    let filter = topology::snapshot_parts(key.stage, &key.label, kept.frame);
    let mut reader = log.read(topology::SNAPSHOTS, Some(&filter), kept.first).await?;
    let mut parts = BTreeMap::new();
    // A part that two writers wrote is there once, behind the place of the first.
    while parts.len() < usize::try_from(kept.parts).unwrap_or(usize::MAX) {
        let Ok(entry) = timeout(WATCHDOG, reader.next()).await else {
            return Err(missing(log, key, kept).await?);
        };
        let entry = entry?;
        if let Some(number) = entry.subject.rsplit('.').next().and_then(|word| word.parse::<u32>().ok()) {
            parts.insert(number, entry.payload);
        }
    }
    let mut content = Vec::with_capacity(usize::try_from(kept.bytes).unwrap_or(0));
    parts.values().for_each(|part| content.extend_from_slice(part));
    if Digest::of(&content) == kept.content {
        Ok(content)
    } else {
        Err(damaged(key, kept.frame, "its content does not have its digest").into())
    }
}

/// Why the parts of a snapshot did not all come.
async fn missing<L: Log>(log: &L, key: &Key, kept: &Kept) -> Result<Trouble, Trouble> {
    for part in 0..kept.parts {
        let subject = topology::snapshot_part(key.stage, &key.label, kept.frame, part);
        if log.last(topology::SNAPSHOTS, &subject).await?.is_none() {
            return Ok(damaged(key, kept.frame, &format!("part {part} is missing")).into());
        }
    }
    Ok(Trouble::stalled(topology::SNAPSHOTS))
}

/// Where a part at work hands its state in.
#[derive(Debug, Clone)]
pub struct Desk {
    handed: mpsc::Sender<Frozen>,
    state: Arc<State>,
}

/// What a desk knows of its archivist.
#[derive(Debug)]
struct State {
    /// Whether a snapshot is being written; and before the lanes were looked at for the first time.
    busy: watch::Sender<bool>,
    /// So many bytes the log is to grow by until the next snapshot,
    due: AtomicU64,
    /// and at most so many, for the lanes' sake.
    due_max: AtomicU64,
    /// The bytes since the last confirmed snapshot that were for snapshots which could not be written.
    owed: AtomicU64,
    /// Whether a lane fills: a snapshot is due as soon as it holds anything new.
    crowded: AtomicBool,
}

impl Desk {
    /// Whether a snapshot is due when the log has grown by so many bytes since the last one: once to read those again
    /// costs more than to read a snapshot. Never while one is being written.
    pub fn is_due(&self, bytes: u64) -> bool {
        let State { busy, due, due_max, owed, crowded } = &*self.state;
        let due = due.load(Ordering::Relaxed).min(due_max.load(Ordering::Relaxed));
        let due = if crowded.load(Ordering::Relaxed) { 1 } else { due };
        bytes > 0 && bytes + owed.load(Ordering::Relaxed) >= due && !*busy.borrow()
    }

    /// Whether the part is too far ahead, when the log has grown by so many bytes since the last snapshot, to go on before
    /// that is written: were it to, the lanes would be full before they can be trimmed.
    pub fn is_ahead(&self, bytes: u64) -> bool {
        let State { due_max, owed, .. } = &*self.state;
        bytes + owed.load(Ordering::Relaxed) >= due_max.load(Ordering::Relaxed).saturating_mul(2)
    }

    /// Waits until no snapshot is being written.
    pub async fn free(&self) {
        if self.state.busy.subscribe().wait_for(|busy| !busy).await.is_err() {
            debug!("the archivist has left: the process is ending");
        }
    }

    /// Hands a state in.
    pub fn hand_in(&self, frozen: Frozen) {
        self.state.busy.send_replace(true);
        if self.handed.try_send(frozen).is_err() {
            debug!("the archivist has left: the process is ending");
        }
    }
}

/// The desk, while a snapshot is being written there that must be waited for: the log has grown by so many bytes behind it.
pub fn held_up(desk: Option<&Desk>, bytes: u64) -> Option<Desk> {
    desk.filter(|desk| desk.is_ahead(bytes) && *desk.state.busy.borrow()).cloned()
}

/// Waits until this desk takes another snapshot; for ever where there is none.
pub async fn free(desk: Option<&Desk>) {
    match desk {
        Some(desk) => desk.free().await,
        None => std::future::pending().await,
    }
}

impl std::fmt::Debug for Frozen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frozen")
            .field("frame", &self.frame)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

/// Writes the snapshots of one state, and then trims the lanes that are not needed any more.
pub struct Archivist<L: Log> {
    context: Context<L>,
    key: Key,
    /// The partitions whose lanes a snapshot of this state may free.
    partitions: Vec<u16>,
    handed: mpsc::Receiver<Frozen>,
    state: Arc<State>,
}

impl<L: Log> Archivist<L> {
    /// An archivist, and the desk where the part at work hands its state in.
    pub fn new(context: Context<L>, key: Key, partitions: Vec<u16>) -> (Desk, Self) {
        let (sender, handed) = mpsc::channel(1);
        let due = AtomicU64::new(context.snapshot_bytes);
        let (due_max, owed) = (AtomicU64::new(0), AtomicU64::new(0));
        let (busy, crowded) = (watch::Sender::new(true), AtomicBool::new(false));
        let state = Arc::new(State { busy, due, due_max, owed, crowded });
        let desk = Desk { handed: sender, state: state.clone() };
        (desk, Self { context, key, partitions, handed, state })
    }

    /// Works until the process is told to stop, and leaves then what it is at: it may be cut off anywhere, as a process
    /// may die. What fails is tried again with the next snapshot.
    pub async fn run(mut self) {
        let context = self.context.clone();
        tokio::select! {
            biased;
            () = context.stopped() => {}
            () = self.work() => {}
        }
    }

    async fn work(&mut self) {
        while !self.look().await {
            self.context.pause(FAILED_PAUSE).await;
        }
        self.state.busy.send_replace(false);
        let mut looked = Instant::now();
        loop {
            let crowded = self.state.crowded.load(Ordering::Relaxed);
            let interval = if crowded { CROWDED_INTERVAL } else { LOOK_INTERVAL };
            let frozen = tokio::select! {
                biased;
                frozen = self.handed.recv() => frozen,
                () = sleep_until(looked + interval) => {
                    looked = Instant::now();
                    self.look().await;
                    continue;
                }
            };
            let Some(frozen) = frozen else { return };
            self.write(frozen).await;
            self.state.busy.send_replace(false);
        }
    }

    async fn write(&self, frozen: Frozen) {
        let (stage, label, frame) = (self.key.stage, &self.key.label, frozen.frame);
        let State { due, due_max, owed, .. } = &*self.state;
        match save(&self.context.log, &self.key, frozen).await {
            Ok(Some(kept)) => {
                info!(%stage, %label, frame, bytes = kept.bytes, parts = kept.parts, "a snapshot is confirmed");
                due.store(kept.bytes.max(self.context.snapshot_bytes), Ordering::Relaxed);
                owed.store(0, Ordering::Relaxed);
                self.trim().await;
            }
            Ok(None) => {
                debug!(%stage, %label, frame, "another process has a snapshot that is as new");
                owed.store(0, Ordering::Relaxed);
            }
            Err(trouble) => {
                warn!(%stage, %label, frame, "no snapshot was written: {trouble}");
                let bytes = due.load(Ordering::Relaxed).min(due_max.load(Ordering::Relaxed));
                owed.fetch_add(bytes, Ordering::Relaxed);
                self.context.pause(FAILED_PAUSE).await;
            }
        }
    }

    /// Looks how large the lanes may be, and trims those that fill: whoever held them back may have gone on since the
    /// last snapshot. Whether they could be looked at.
    async fn look(&self) -> bool {
        match self.smallest_lane().await {
            Ok((max_bytes, crowded)) => {
                self.state.due_max.store((max_bytes / LANE_PARTS).max(1), Ordering::Relaxed);
                self.state.crowded.store(crowded, Ordering::Relaxed);
                if crowded {
                    self.trim().await;
                }
                true
            }
            Err(trouble) => {
                debug!("the lanes were not looked at: {trouble}");
                false
            }
        }
    }

    /// What the smallest lane may hold, and whether any is more than half full.
    async fn smallest_lane(&self) -> Result<(u64, bool), Trouble> {
        let (mut max_bytes, mut crowded) = (u64::MAX, false);
        for &partition in &self.partitions {
            for lane in TRIMMED {
                let extent = self.context.log.extent(&lane.stream(partition)).await?;
                max_bytes = max_bytes.min(extent.max_bytes);
                crowded |= extent.bytes > extent.max_bytes / 2;
            }
        }
        Ok((max_bytes, crowded))
    }

    async fn trim(&self) {
        for &partition in &self.partitions {
            if let Err(trouble) = trim_lanes(&self.context.log, partition).await {
                warn!(partition, "the lanes were not trimmed: {trouble}");
            }
        }
    }
}

/// Drives the part that `made` gives over a desk, with the archivist who writes what is handed in there beside it.
/// `partitions` are those whose lanes a snapshot may free.
pub async fn drive_archived<L: Log, P: Part>(
    context: Context<L>,
    key: Key,
    partitions: Vec<u16>,
    made: impl FnOnce(Context<L>, Desk) -> P,
) {
    let (desk, archivist) = Archivist::new(context.clone(), key, partitions);
    tokio::join!(drive(&context, made(context.clone(), desk)), archivist.run());
}

/// Writes a snapshot and confirms it; `None` where there is one that is as new.
///
/// # Errors
/// Where the log does not answer, or another writer was faster.
pub async fn save<L: Log>(log: &L, key: &Key, frozen: Frozen) -> Result<Option<Kept>, Trouble> {
    let (mut all, said) = list(log, key).await?;
    if all.last().is_some_and(|newest| newest.frame >= frozen.frame) {
        return Ok(None);
    }
    let mut parts = Parts::new(log.appender().await?, key, frozen.frame);
    for piece in frozen.pieces {
        parts.add(&piece).await?;
        tokio::task::yield_now().await;
    }
    let (mut appender, first, count, bytes, content) = parts.finish().await?;
    let (frame, digest) = (frozen.frame, frozen.digest);
    let kept =
        Kept { frame, digest, read: frozen.read, format: frozen.format, first, parts: count, bytes, content };
    all.push(kept.clone());
    all.drain(..all.len().saturating_sub(KEPT));
    let payload = serde_json::to_vec(&all).expect("a list is plain data").into();
    let subject = topology::snapshots(key.stage, &key.label);
    let expect = Expect::LastOfSubject(said);
    appender.send(Append { subject, headers: Vec::new(), payload, expect }).await?;
    appender.acknowledged().await?;
    let filter = topology::snapshots_all(key.stage, &key.label);
    log.trim(topology::SNAPSHOTS, Some(&filter), all[0].first).await?;
    Ok(Some(kept))
}

/// The parts of a snapshot that is being written.
struct Parts<A> {
    appender: A,
    stage: StageName,
    label: Box<str>,
    frame: u64,
    waiting: Vec<u8>,
    first: u64,
    count: u32,
    bytes: u64,
    hasher: Sha256,
}

impl<A: Appender> Parts<A> {
    fn new(appender: A, key: &Key, frame: u64) -> Self {
        let (stage, label) = (key.stage, key.label.clone());
        let (waiting, hasher) = (Vec::new(), Sha256::new());
        Self { appender, stage, label, frame, waiting, first: 0, count: 0, bytes: 0, hasher }
    }

    async fn add(&mut self, piece: &[u8]) -> Result<(), Trouble> {
        self.waiting.extend_from_slice(piece);
        while self.waiting.len() >= PART_BYTES {
            let rest = self.waiting.split_off(PART_BYTES);
            let part = std::mem::replace(&mut self.waiting, rest);
            self.send(part.into()).await?;
        }
        Ok(())
    }

    /// Writes one part; at most one is in flight, since nobody waits for a snapshot.
    async fn send(&mut self, part: Bytes) -> Result<(), Trouble> {
        self.hasher.update(&part);
        self.bytes += weight(&part);
        let subject = topology::snapshot_part(self.stage, &self.label, self.frame, self.count);
        self.appender
            .send(Append { subject, headers: Vec::new(), payload: part, expect: Expect::Any })
            .await?;
        let sequence = self.appender.acknowledged().await?;
        if self.count == 0 {
            self.first = sequence;
        }
        self.count += 1;
        Ok(())
    }

    /// Writes what is left: the appender, the first part's sequence, how many parts and bytes, and their digest.
    async fn finish(mut self) -> Result<(A, u64, u32, u64, Digest), Trouble> {
        let rest = std::mem::take(&mut self.waiting);
        if !rest.is_empty() || self.count == 0 {
            self.send(rest.into()).await?;
        }
        let digest = Digest(self.hasher.finalize().into());
        Ok((self.appender, self.first, self.count, self.bytes, digest))
    }
}

/// Removes from the lanes of a partition what no stage needs any more: each is kept from the older snapshot of whoever
/// replays it on, and never without its last frame (design, section 7).
pub async fn trim_lanes<L: Log>(log: &L, partition: u16) -> Result<(), Trouble> {
    let oldest = async |key: &Key, place: usize| -> Result<u64, Trouble> {
        let (all, _) = list(log, key).await?;
        // Until there are two, what is before the only one is still needed.
        let kept = all.first().filter(|_| all.len() == KEPT);
        Ok(kept.and_then(|kept| kept.read.get(place).copied()).unwrap_or(0))
    };
    let validate = oldest(&Key::partition(StageName::Validate, partition), 0).await?;
    let geofence = oldest(&Key::partition(StageName::Geofence, partition), 0).await?;
    let ledger = oldest(&Key::ledger(), usize::from(partition)).await?;
    let allocations = log.extent(&Lane::Allocations.stream(partition)).await?.last;
    let allocate = allocations.min(log.extent(&Lane::Contributions.stream(partition)).await?.last);
    for (lane, before) in [
        (Lane::Validated, validate.min(geofence)),
        // validate makes frames of its own again from those that geofence made of them.
        (Lane::Geofenced, validate.min(geofence).min(allocate)),
        (Lane::Contributions, ledger.min(allocate)),
    ] {
        let stream = lane.stream(partition);
        if log.extent(&stream).await?.first < before {
            log.trim(&stream, None, before).await?;
        }
    }
    Ok(())
}
