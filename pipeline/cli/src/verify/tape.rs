//! Reads a stream in order, up to where it ended when the proof began, as whoever proves needs it: a message that
//! is not there is a finding and no error, and a broken connection is begun again.

use anyhow::Context;
use jackpot_core::log::{Entry, Log, Reader};

/// How often reading is begun again without getting on.
const ATTEMPTS_MAX: u32 = 5;

/// A stream being read.
pub struct Tape<L: Log> {
    log: L,
    stream: String,
    filter: String,
    reader: Option<L::Reader>,
    /// Where to go on.
    next: u64,
    /// The last message to read; 0 when there is none.
    last: u64,
    ahead: Option<Entry>,
}

impl<L: Log> Tape<L> {
    /// From the first message that fits the filter to the one that is the last now.
    pub async fn open(log: &L, stream: impl Into<String>, filter: impl Into<String>) -> anyhow::Result<Self> {
        let (stream, filter) = (stream.into(), filter.into());
        let last = log.last(&stream, &filter).await?.map_or(0, |entry| entry.sequence);
        Ok(Self { log: log.clone(), stream, filter, reader: None, next: 1, last, ahead: None })
    }

    /// The same from this sequence on.
    pub fn from(self, next: u64) -> Self {
        Self { next, ..self }
    }

    /// The stream's name.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// The sequence of the last message to read; 0 when there is none.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The sequence of the first message that the stream holds now.
    pub async fn first(&self) -> anyhow::Result<u64> {
        Ok(self.log.extent(&self.stream).await?.first)
    }

    /// The next message, `None` at the end.
    pub async fn next(&mut self) -> anyhow::Result<Option<Entry>> {
        if let Some(entry) = self.ahead.take() {
            return Ok(Some(entry));
        }
        let mut attempts = 0;
        while self.next <= self.last {
            match self.read().await {
                Ok(entry) => {
                    self.next = entry.sequence + 1;
                    self.reader.take_if(|_| self.next > self.last);
                    return Ok(Some(entry).filter(|entry| entry.sequence <= self.last));
                }
                Err(_) if attempts < ATTEMPTS_MAX => attempts += 1,
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot read the stream {}", self.stream));
                }
            }
        }
        Ok(None)
    }

    /// The next message of the reader, which is opened where there is none, and is gone after an error.
    async fn read(&mut self) -> anyhow::Result<Entry> {
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => self.log.read(&self.stream, Some(&self.filter), self.next).await?,
        };
        let entry = reader.next().await?;
        self.reader = Some(reader);
        Ok(entry)
    }

    /// The message with this sequence, `None` where it is not there. Those before it are skipped.
    pub async fn at(&mut self, sequence: u64) -> anyhow::Result<Option<Entry>> {
        while let Some(entry) = self.next().await? {
            if entry.sequence == sequence {
                return Ok(Some(entry));
            }
            if entry.sequence > sequence {
                self.ahead = Some(entry);
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// The next message if it lies at or before `sequence`.
    pub async fn until(&mut self, sequence: u64) -> anyhow::Result<Option<Entry>> {
        let next = self.next().await?;
        match next {
            Some(entry) if entry.sequence > sequence => {
                self.ahead = Some(entry);
                Ok(None)
            }
            next => Ok(next),
        }
    }
}
