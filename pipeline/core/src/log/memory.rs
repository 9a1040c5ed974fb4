//! The log in memory: for tests, and for the simulation of the whole pipeline in one process.
//! It behaves as JetStream does, down to the size of a stored message; `tests/log_contract.rs` holds both to it.
//! It reads no clock and draws nothing: the same calls in the same order give the same log.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use tokio::sync::{Notify, broadcast, mpsc};

use crate::limits;
use crate::log::jetstream::appender::check_fences;
use crate::log::jetstream::setup::StreamSettings;
use crate::log::{
    Append, AppendError, Appender, Entry, Expect, Extent, Log, LogError, Notices, ReadError, Reader,
};
use crate::time::Millis;
use crate::topology;

/// A message at most: the broker's default `max_payload`.
const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;

/// A broker in memory. Cheap to clone; all clones share it.
#[derive(Clone)]
pub struct Memory {
    shared: Arc<Shared>,
}

struct Shared {
    now: Box<dyn Fn() -> Millis + Send + Sync>,
    streams: Mutex<BTreeMap<String, Stored>>,
    /// Wakes readers whenever something was stored.
    stored: Notify,
    notices: broadcast::Sender<(Arc<str>, Bytes)>,
}

/// A stream.
struct Stored {
    settings: StreamSettings,
    first: u64,
    last: u64,
    bytes: u64,
    entries: BTreeMap<u64, Entry>,
    /// The stored sequences of each subject, ascending.
    subjects: BTreeMap<Box<str>, VecDeque<u64>>,
}

impl Memory {
    /// A broker with these streams; `now` says when a message is received.
    pub fn new(
        streams: impl IntoIterator<Item = StreamSettings>,
        now: impl Fn() -> Millis + Send + Sync + 'static,
    ) -> Self {
        let (notices, _) = broadcast::channel(limits::NOTICES_MAX);
        let streams =
            streams.into_iter().map(|settings| (settings.name.clone(), Stored::new(settings))).collect();
        let shared =
            Shared { now: Box::new(now), streams: Mutex::new(streams), stored: Notify::new(), notices };
        Self { shared: Arc::new(shared) }
    }

    /// Creates a stream; one of that name keeps what it holds and takes the settings.
    pub fn create(&self, settings: StreamSettings) {
        let mut streams = self.streams();
        match streams.get_mut(&settings.name) {
            Some(stream) => stream.settings = settings,
            None => {
                streams.insert(settings.name.clone(), Stored::new(settings));
            }
        }
    }

    /// Loses what a stream holds behind `last`, as a broker does that had not synced it; what comes next gets those numbers
    /// again. Gives what is lost. Readers that are open notice nothing: a broker that does this has gone away.
    pub fn lose(&self, stream: &str, last: u64) -> Vec<Entry> {
        self.streams().get_mut(stream).map_or_else(Vec::new, |stream| stream.lose(last))
    }

    fn streams(&self) -> MutexGuard<'_, BTreeMap<String, Stored>> {
        self.shared.streams.lock().expect("nobody panics while holding the streams")
    }

    fn with<T>(&self, stream: &str, look: impl FnOnce(&Stored) -> T) -> Result<T, LogError> {
        self.streams().get(stream).map(look).ok_or_else(|| LogError::NoStream(stream.into()))
    }

    /// Stores all of `appends` in one stream, or none.
    fn store(&self, appends: Vec<Append>) -> Result<u64, AppendError> {
        let recorded_at = (self.shared.now)();
        let mut streams = self.streams();
        let mut target: Option<&mut Stored> = None;
        for append in &appends {
            check_message(append)?;
            let takes =
                |stream: &Stored| stream.settings.subjects.iter().any(|s| topology::fits(&append.subject, s));
            match &target {
                Some(stream) if takes(stream) => {}
                Some(_) => return Err(AppendError::Rejected("an atomic batch goes to one stream".into())),
                None => target = streams.values_mut().find(|stream| takes(stream)),
            }
            if target.is_none() {
                return Err(AppendError::Unknown("no stream takes this subject just now".into()));
            }
        }
        let Some(stream) = target else {
            return Err(AppendError::Rejected("an append has a message".into()));
        };
        let entries = stream.admit(appends, recorded_at)?;
        for entry in entries {
            stream.push(entry);
        }
        let last = stream.last;
        drop(streams);
        self.shared.stored.notify_waiters();
        Ok(last)
    }
}

fn check_message(append: &Append) -> Result<(), AppendError> {
    let header_bytes = append.headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum::<usize>();
    if append.payload.len() + header_bytes > PAYLOAD_BYTES_MAX {
        return Err(AppendError::Rejected("the message is larger than the broker takes".into()));
    }
    let protocol = |name: &str| name.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("nats-"));
    match append.headers.iter().find(|(name, _)| protocol(name)) {
        Some((name, _)) => Err(AppendError::Rejected(format!("{name:?} cannot be sent as a header").into())),
        None => Ok(()),
    }
}

impl Stored {
    fn new(settings: StreamSettings) -> Self {
        let (entries, subjects) = (BTreeMap::new(), BTreeMap::new());
        Self { settings, first: 1, last: 0, bytes: 0, entries, subjects }
    }

    /// The entries that the appends become, when every fence holds and there is room for all.
    fn admit(&self, appends: Vec<Append>, recorded_at: Millis) -> Result<Vec<Entry>, AppendError> {
        let mut entries: Vec<Entry> = Vec::with_capacity(appends.len());
        let mut bytes = self.bytes;
        if appends.len() > 1 && !self.settings.atomic {
            return Err(AppendError::Rejected("the stream takes no atomic batches".into()));
        }
        for (sequence, append) in (self.last + 1..).zip(appends) {
            let stored_as = self.settings.transform.and_then(|transform| transform.apply(&append.subject));
            let subject = stored_as.unwrap_or(append.subject).into_boxed_str();
            match append.expect {
                Expect::Any => {}
                Expect::Last(expected) => fence(expected, self.last)?,
                Expect::LastOfSubject(expected) => fence(expected, self.last_of(&subject))?,
            }
            let mut headers = append.headers;
            headers.sort_by(|a, b| a.0.cmp(&b.0));
            let entry = Entry { sequence, subject, recorded_at, headers, payload: append.payload };
            bytes += stored_bytes(&entry);
            entries.push(entry);
        }
        if bytes > self.settings.max_bytes {
            return Err(AppendError::full(&self.settings.subjects[0], "maximum bytes exceeded"));
        }
        Ok(entries)
    }

    fn push(&mut self, entry: Entry) {
        self.last = entry.sequence;
        self.bytes += stored_bytes(&entry);
        let sequences = self.subjects.entry(entry.subject.clone()).or_default();
        sequences.push_back(entry.sequence);
        let kept = self
            .settings
            .per_subject_max
            .map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
        let oldest = if sequences.len() > kept { sequences.front().copied() } else { None };
        self.entries.insert(entry.sequence, entry);
        if let Some(oldest) = oldest {
            self.remove(oldest);
        }
    }

    fn trim(&mut self, filter: Option<&str>, before: u64) {
        let fits = |entry: &Entry| filter.is_none_or(|filter| topology::fits(&entry.subject, filter));
        let old = self.entries.range(..before).filter(|(_, entry)| fits(entry));
        let old: Vec<_> = old.map(|(sequence, _)| *sequence).collect();
        old.into_iter().for_each(|sequence| self.remove(sequence));
    }

    fn remove(&mut self, sequence: u64) {
        let Some(entry) = self.entries.remove(&sequence) else { return };
        self.bytes -= stored_bytes(&entry);
        if let Some(sequences) = self.subjects.get_mut(&entry.subject) {
            sequences.retain(|kept| *kept != sequence);
            if sequences.is_empty() {
                self.subjects.remove(&entry.subject);
            }
        }
        self.first = self.entries.first_key_value().map_or(self.last + 1, |(first, _)| *first);
    }

    fn lose(&mut self, last: u64) -> Vec<Entry> {
        let lost: Vec<_> = self.entries.range(last + 1..).map(|(_, entry)| entry.clone()).collect();
        lost.iter().for_each(|entry| self.remove(entry.sequence));
        self.last = self.last.min(last);
        self.first = self.entries.first_key_value().map_or(self.last + 1, |(first, _)| *first);
        lost
    }

    fn last_of(&self, subject: &str) -> u64 {
        self.subjects.get(subject).and_then(|sequences| sequences.back()).copied().unwrap_or(0)
    }

    fn last_fitting(&self, filter: &str) -> Option<Entry> {
        let fitting = self.subjects.iter().filter(|(subject, _)| topology::fits(subject, filter));
        let last = fitting.filter_map(|(_, sequences)| sequences.back()).max()?;
        self.entries.get(last).cloned()
    }
}

fn fence(expected: u64, last: u64) -> Result<(), AppendError> {
    if expected == last {
        return Ok(());
    }
    Err(AppendError::Fenced(format!("wrong last sequence: {last}").into()))
}

/// What a message takes in the broker's file store: its parts, a header of 22 bytes, a checksum of 8.
fn stored_bytes(entry: &Entry) -> u64 {
    let headers: usize = entry.headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
    let block = if entry.headers.is_empty() { 0 } else { "NATS/1.0\r\n\r\n".len() + 4 + headers };
    u64::try_from(22 + entry.subject.len() + block + entry.payload.len() + 8).expect("a length fits")
}

impl Log for Memory {
    type Reader = MemoryReader;
    type Appender = MemoryAppender;

    async fn extent(&self, stream: &str) -> Result<Extent, LogError> {
        let at = (self.shared.now)();
        self.with(stream, |stream| Extent {
            first: stream.first,
            last: stream.last,
            bytes: stream.bytes,
            max_bytes: stream.settings.max_bytes,
            at,
        })
    }

    async fn last(&self, stream: &str, filter: &str) -> Result<Option<Entry>, LogError> {
        self.with(stream, |stream| stream.last_fitting(filter))
    }

    async fn get(&self, stream: &str, sequence: u64) -> Result<Option<Entry>, LogError> {
        self.with(stream, |stream| stream.entries.get(&sequence).cloned())
    }

    async fn read(&self, stream: &str, filter: Option<&str>, from: u64) -> Result<Self::Reader, LogError> {
        self.with(stream, |stored| MemoryReader {
            log: self.clone(),
            stream: stream.to_owned(),
            filter: filter.map(ToOwned::to_owned),
            position: from,
            short: (from > stored.last + 1).then_some(stored.last + 1),
            expected: if filter.is_none() { from.max(stored.first) } else { from },
            ended: false,
        })
    }

    async fn appender(&self) -> Result<Self::Appender, LogError> {
        Ok(MemoryAppender { log: self.clone(), fates: VecDeque::new() })
    }

    async fn append_atomic(&self, appends: Vec<Append>) -> Result<u64, AppendError> {
        let (count, most) = (appends.len(), limits::ATOMIC_BATCH_MAX);
        if !(1..=most).contains(&count) {
            let what = format!("an atomic batch has 1 to {most} messages, not {count}");
            return Err(AppendError::Rejected(what.into()));
        }
        check_fences(&appends)?;
        self.store(appends)
    }

    async fn trim(&self, stream: &str, filter: Option<&str>, before: u64) -> Result<(), LogError> {
        let mut streams = self.streams();
        let stored = streams.get_mut(stream).ok_or_else(|| LogError::NoStream(stream.into()))?;
        stored.trim(filter, before);
        Ok(())
    }

    async fn notify(&self, subject: &str, payload: Bytes) -> Result<(), LogError> {
        // That nobody listens is no error.
        self.shared.notices.send((subject.into(), payload)).map_or(Ok(()), |_| Ok(()))
    }

    async fn listen(&self, subject: &str) -> Result<Notices, LogError> {
        let (sender, notices) = mpsc::channel(1);
        tokio::spawn(hand_on(self.shared.notices.subscribe(), subject.to_owned(), sender));
        Ok(notices)
    }
}

/// Hands on the notices that fit; the channel that they come from drops the oldest when this one is slow.
async fn hand_on(
    mut from: broadcast::Receiver<(Arc<str>, Bytes)>,
    filter: String,
    to: mpsc::Sender<(Box<str>, Bytes)>,
) {
    loop {
        let received = tokio::select! {
            biased;
            () = to.closed() => return,
            received = from.recv() => received,
        };
        match received {
            Ok((subject, payload)) if topology::fits(&subject, &filter) => {
                if to.send((subject.as_ref().into(), payload)).await.is_err() {
                    return;
                }
            }
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// Reads a stream in memory.
pub struct MemoryReader {
    log: Memory,
    stream: String,
    filter: Option<String>,
    /// Where to look for the next message.
    position: u64,
    /// Where the stream ended, when that is before where this reader is to start.
    short: Option<u64>,
    /// The lowest sequence that may come; without a filter, the only one.
    expected: u64,
    ended: bool,
}

impl Reader for MemoryReader {
    async fn next(&mut self) -> Result<Entry, ReadError> {
        let shared = Arc::clone(&self.log.shared);
        loop {
            let mut stored = std::pin::pin!(shared.stored.notified());
            // From here on nothing that is stored is missed, whether or not this has been polled.
            stored.as_mut().enable();
            if self.ended {
                return Err(ReadError::Lost("it had ended before; open another".into()));
            }
            if let Some(got) = self.short {
                self.ended = true;
                return Err(ReadError::Gap { got, expected: self.expected });
            }
            if let Some(taken) = self.ready() {
                return taken;
            }
            stored.await;
        }
    }

    fn ready(&mut self) -> Option<Result<Entry, ReadError>> {
        if self.ended || self.short.is_some() {
            return None;
        }
        let entry = {
            let streams = self.log.streams();
            let fits = |entry: &Entry| self.filter.as_ref().is_none_or(|f| topology::fits(&entry.subject, f));
            let mut ahead = streams.get(&self.stream)?.entries.range(self.position..).map(|(_, entry)| entry);
            ahead.find(|entry| fits(entry)).cloned()?
        };
        let got = entry.sequence;
        let fits = if self.filter.is_some() { got >= self.expected } else { got == self.expected };
        if !fits {
            self.ended = true;
            return Some(Err(ReadError::Gap { got, expected: self.expected }));
        }
        self.position = got + 1;
        self.expected = got + 1;
        Some(Ok(entry))
    }
}

/// Appends to streams in memory: what is sent is stored at once, and its fate kept until it is asked for.
pub struct MemoryAppender {
    log: Memory,
    fates: VecDeque<Result<u64, AppendError>>,
}

impl Appender for MemoryAppender {
    async fn send(&mut self, append: Append) -> Result<(), LogError> {
        self.fates.push_back(self.log.store(vec![append]));
        Ok(())
    }

    async fn acknowledged(&mut self) -> Result<u64, AppendError> {
        match self.fates.pop_front() {
            Some(fate) => fate,
            None => std::future::pending().await,
        }
    }

    fn in_flight(&self) -> usize {
        self.fates.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_lost_is_gone_and_its_numbers_are_given_again() {
        let memory = Memory::new([StreamSettings::record("s", &["s.*"], 1_000)], || Millis(0));
        let append = |subject: &str, last| Append {
            subject: subject.into(),
            headers: Vec::new(),
            payload: Bytes::from_static(b"x"),
            expect: Expect::Last(last),
        };
        for (last, subject) in (0..).zip(["s.a", "s.b", "s.a"]) {
            memory.store(vec![append(subject, last)]).unwrap();
        }
        let lost: Vec<_> = memory.lose("s", 1).iter().map(|entry| entry.sequence).collect();
        assert_eq!(lost, [2, 3]);
        let last = memory.last("s", "s.*").await.unwrap().map(|entry| entry.sequence);
        let extent = memory.extent("s").await.unwrap();
        assert_eq!((last, extent.first, extent.last), (Some(1), 1, 1));
        assert_eq!(memory.store(vec![append("s.b", 1)]).unwrap(), 2);
        assert_eq!(memory.lose("s", 0).len(), 2);
        let extent = memory.extent("s").await.unwrap();
        assert_eq!((extent.first, extent.last, extent.bytes), (1, 0, 0));
    }
}
