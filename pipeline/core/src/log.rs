//! The log port: what the pipeline needs of a broker, and nothing more.
//! Two implementations, [`jetstream`] and [`memory`], pass one contract suite (`tests/log_contract.rs`);
//! [`faulty`] wraps either and injects what a network does. Lanes and runners know only this port.

pub mod faulty;
pub mod jetstream;
pub mod memory;

use std::future::Future;

use bytes::Bytes;

use crate::time::Millis;
use crate::{room, topology};

/// A stored message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its sequence in the stream, from 1.
    pub sequence: u64,
    /// The subject it is stored under.
    pub subject: Box<str>,
    /// When the broker received it.
    pub recorded_at: Millis,
    /// The publisher's headers; those of the broker's own protocol (`Nats-…`) are left out.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub payload: Bytes,
}

/// A message to store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// The subject to publish to.
    pub subject: String,
    /// Headers to store with it.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub payload: Bytes,
    /// What must hold for it to be stored.
    pub expect: Expect,
}

/// The fence: what must hold for an append to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Any,
    /// The stream's last sequence is this (0: it is empty).
    Last(u64),
    /// The last sequence of this append's subject is this (0: it has none).
    LastOfSubject(u64),
}

/// What a stream holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extent {
    /// The first sequence that is still there (last + 1 when nothing is).
    pub first: u64,
    /// The last sequence ever given; 0 when none was.
    pub last: u64,
    /// Bytes stored.
    pub bytes: u64,
    /// Bytes that may be stored; then new messages are refused.
    pub max_bytes: u64,
    /// When the broker said so, by its own clock.
    pub at: Millis,
}

/// Why a request to the log failed, by what the caller can do.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// No answer, or no connection: whether it happened is unknown. Recover, then try again, for ever.
    #[error("the broker did not answer: {0}")]
    Unavailable(#[source] Cause),
    /// The stream is not there. Somebody must run `jackpot init`.
    #[error("the stream {0} does not exist; run `jackpot init`")]
    NoStream(Box<str>),
    /// The broker refuses, and would again. Somebody must look.
    #[error("the broker refuses: {0}")]
    Denied(#[source] Cause),
}

/// What the broker or its client said, for people.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// The fate of an append that was not acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Not stored: the fence does not hold (10071), or another append holds it just now (10164).
    #[error("the log has moved on: {0}")]
    Fenced(Box<str>),
    /// Not stored: the stream is full and refuses new messages. Which, and what to do.
    #[error("the stream is full: {0}")]
    Full(Box<str>),
    /// Unknown: a lost reply, a lost connection. It may be stored.
    #[error("no acknowledgement: {0}")]
    Unknown(Box<str>),
    /// Unknown, for nothing was heard for so many milliseconds. It may be stored.
    #[error("no acknowledgement: nothing heard for {0} ms")]
    Silent(u128),
    /// Not stored, and never will be: too large, not permitted, no such stream.
    #[error("the append was rejected: {0}")]
    Rejected(Box<str>),
}

impl AppendError {
    /// The stream that takes this subject is full, as the broker says.
    pub fn full(subject: &str, said: &str) -> Self {
        let stream = topology::stream_of(subject);
        Self::Full(format!("{stream} ({said}): {}", room::advice(&stream)).into())
    }
}

/// Why a reader has nothing more to give. It is of no further use: open another.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The sequence is not the expected one: something was skipped or came twice.
    #[error("the reader got {got} and expected {expected}")]
    Gap {
        /// What came.
        got: u64,
        /// What should have come.
        expected: u64,
    },
    /// It stopped delivering.
    #[error("the reader stopped: {0}")]
    Lost(Box<str>),
    /// Nothing was heard for so many milliseconds, not even that there is nothing.
    #[error("the reader stopped: nothing heard for {0} ms")]
    Silent(u128),
}

/// A broker that keeps streams: durable, totally ordered logs. Cheap to clone.
pub trait Log: Clone + Send + Sync + 'static {
    /// Reads a stream in order.
    type Reader: Reader;
    /// Appends to a stream, pipelined.
    type Appender: Appender;

    /// What the stream holds, asked of its leader.
    fn extent(&self, stream: &str) -> impl Future<Output = Result<Extent, LogError>> + Send;

    /// The last message whose subject fits `filter` (which may hold wildcards), asked of the leader.
    fn last(
        &self,
        stream: &str,
        filter: &str,
    ) -> impl Future<Output = Result<Option<Entry>, LogError>> + Send;

    /// The message with this sequence, asked of the leader; `None` when it is not there.
    fn get(
        &self,
        stream: &str,
        sequence: u64,
    ) -> impl Future<Output = Result<Option<Entry>, LogError>> + Send;

    /// The first message at or after `from` whose subject fits `filter`, asked of the leader; `None` when there is
    /// none. For looking here and there: a reader asks for more than is wanted then.
    fn next(
        &self,
        stream: &str,
        filter: &str,
        from: u64,
    ) -> impl Future<Output = Result<Option<Entry>, LogError>> + Send {
        async move {
            if self.last(stream, filter).await?.is_none_or(|last| last.sequence < from) {
                return Ok(None);
            }
            let next = self.read(stream, Some(filter), from).await?.next().await;
            next.map(Some).map_err(|error| LogError::Unavailable(error.into()))
        }
    }

    /// Opens a reader at the first message at or after `from` whose subject fits `filter`.
    ///
    /// Without a filter the reader checks that each message's sequence follows the one before, from `from` on
    /// (or from the stream's first, where that is later); with one, that none was skipped by the consumer.
    /// Where the stream ends before `from` − 1, the reader opens and ends at once, in [`ReadError::Gap`].
    fn read(
        &self,
        stream: &str,
        filter: Option<&str>,
        from: u64,
    ) -> impl Future<Output = Result<Self::Reader, LogError>> + Send;

    /// Opens an appender. Appends may go to any stream; which, the subject decides.
    fn appender(&self) -> impl Future<Output = Result<Self::Appender, LogError>> + Send;

    /// Stores all of `appends` in one stream, or none, each fence included; returns the last sequence.
    /// At most [`crate::limits::ATOMIC_BATCH_MAX`], of which only the first may expect the stream's last sequence,
    /// and none its subject's where an earlier one of the batch has the same subject.
    fn append_atomic(&self, appends: Vec<Append>) -> impl Future<Output = Result<u64, AppendError>> + Send;

    /// Removes what the stream holds before the message `before`; of it, where there is a filter, what fits that.
    /// The last sequence of the stream stays what it is.
    fn trim(
        &self,
        stream: &str,
        filter: Option<&str>,
        before: u64,
    ) -> impl Future<Output = Result<(), LogError>> + Send;

    /// Sends a plain message that nobody stores, to whoever listens just now.
    fn notify(&self, subject: &str, payload: Bytes) -> impl Future<Output = Result<(), LogError>> + Send;

    /// Listens to plain messages; `None` at the end of the subscription.
    fn listen(&self, subject: &str) -> impl Future<Output = Result<Notices, LogError>> + Send;
}

/// Plain messages as they come; bounded, the oldest are lost first. Subject and payload.
pub type Notices = tokio::sync::mpsc::Receiver<(Box<str>, Bytes)>;

/// Reads one stream in order, with read-ahead.
pub trait Reader: Send {
    /// The next message; waits until there is one. Safe to cancel.
    fn next(&mut self) -> impl Future<Output = Result<Entry, ReadError>> + Send;

    /// The next message, if it has arrived already.
    fn ready(&mut self) -> Option<Result<Entry, ReadError>>;
}

/// Appends with several in flight. Acknowledgements come in the order of the sends.
pub trait Appender: Send {
    /// Hands the message to the connection. Nothing is known of its fate until [`Appender::acknowledged`].
    fn send(&mut self, append: Append) -> impl Future<Output = Result<(), LogError>> + Send;

    /// The fate of the oldest unanswered send: its sequence in its stream, or why there is none.
    /// Waits for ever when nothing is in flight. Safe to cancel.
    /// After an error the sends behind it have fates too, unless the appender is dropped.
    fn acknowledged(&mut self) -> impl Future<Output = Result<u64, AppendError>> + Send;

    /// How many sends are unanswered.
    fn in_flight(&self) -> usize;
}
