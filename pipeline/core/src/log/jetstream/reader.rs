//! Reads a stream through an ephemeral pull consumer, asked ahead by messages and bytes.
//! One subscription takes both the messages and what the broker says about the pulls; [`Pull`] counts what is still
//! owed and renews the pull when half of it has come. A gap, a step back, a status that is no accounting, a lost
//! connection and silence end it: it never heals itself, since where to go on is the runner's to decide.
//!
//! The client drops the connection over headers that it cannot parse, and anybody who may publish can store such.
//! Where the connection was lost at the same place again and again, the message there is therefore asked for by
//! itself, in JSON (see `Suspect`); the consumer goes on behind it.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use async_nats::{HeaderMap, Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::wire::{self, Delivery};
use super::{AskError, JetStream};
use crate::limits;
use crate::log::{Entry, Log as _, LogError, ReadError, Reader};

/// How often the broker says that it is there while it has nothing to deliver.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Silence that means that the reader is lost: three missed heartbeats, and some room.
const SILENCE_MAX: Duration = Duration::from_millis(3_500);
/// How long a pull stands before the broker gives it back.
const PULL_EXPIRES: Duration = Duration::from_secs(30);
/// How long the broker keeps a consumer that nobody pulls from.
const INACTIVE_MAX: Duration = Duration::from_secs(30);
/// A pull asks for so many messages at least.
const PULL_MESSAGES_MIN: usize = limits::READ_AHEAD_MESSAGES / 8;
/// A pull asks for so many bytes at least: any one message must fit, or the broker would give it back at once.
const PULL_BYTES_MIN: usize = limits::READ_AHEAD_BYTES / 2;

/// How long a new consumer may be unknown to the server that is asked to pull from it, on a cluster.
const UNKNOWN_MAX: Duration = Duration::from_secs(2);
/// When such a pull is tried again.
const UNKNOWN_PAUSE: Duration = Duration::from_millis(50);

/// How far a stretch that is read with care reaches beyond the last loss, at most.
const STRETCH_MAX: u64 = 64;
/// Losses of the connection at one place, after which the message there is suspected.
const LOSSES_SUSPICIOUS: u32 = 2;
/// Each further loss in the same stretch lets one more message behind it be taken with care, up to so many: whoever
/// stores one message that cannot be parsed mostly stores more.
const AHEAD_MAX: u64 = 1_024;

const _: () = assert!(PULL_BYTES_MIN > limits::MESSAGE_BYTES_MAX, "a pull must be able to hold any message");

/// Reads one stream in order. Dropping it removes its consumer.
pub struct Pull {
    log: JetStream,
    stream: String,
    filter: Option<String>,
    subscriber: Subscriber,
    losses: watch::Receiver<u64>,
    /// The consumer's name.
    name: String,
    /// While set, messages are asked for one by one, until one at or after this sequence has come.
    careful: Option<u64>,
    /// Since when the consumer stands.
    standing: Option<Instant>,
    /// Until when no pull is sent.
    pull_after: Option<Instant>,
    /// Where statuses come to; messages keep their own subject.
    inbox: String,
    /// Where pulls are sent.
    next_subject: async_nats::Subject,
    /// Where the consumer's end is sent.
    delete_subject: async_nats::Subject,
    /// The lowest stream sequence that may come next; without a filter, the only one.
    expected: u64,
    /// How many messages the consumer has delivered.
    delivered: u64,
    /// Where the stream ended, when that is before where this reader is to start: the log is shorter than thought.
    /// The broker would wait in silence until it has grown, with whatever content.
    short: Option<u64>,
    /// What the standing pulls may still bring.
    owed_messages: usize,
    owed_bytes: usize,
    /// Since when nothing has been heard, once somebody waited in vain.
    silent_since: Option<Instant>,
    ended: bool,
}

impl Pull {
    pub(super) async fn open(
        log: &JetStream,
        stream: &str,
        filter: Option<&str>,
        from: u64,
    ) -> Result<Self, LogError> {
        let from = from.max(1);
        let extent = log.extent(stream).await?;
        let inbox = log.client.new_inbox();
        // An inbox is unique, and its last word is a fit name for the consumer that delivers to it.
        let name = inbox.rsplit('.').next().expect("splitting gives at least one word").to_owned();
        let losses = fresh(&log.losses);
        let subscriber = log.subscribe(inbox.clone()).await?;
        let mut reader = Self {
            log: log.clone(),
            stream: stream.to_owned(),
            filter: filter.map(ToOwned::to_owned),
            subscriber,
            losses,
            careful: log.suspects.careful(&place(stream, filter), from),
            standing: None,
            pull_after: None,
            inbox,
            next_subject: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}").into(),
            delete_subject: format!("$JS.API.CONSUMER.DELETE.{stream}.{name}").into(),
            name,
            expected: if filter.is_some() { from } else { from.max(extent.first) },
            delivered: 0,
            short: (from > extent.last + 1).then_some(extent.last + 1),
            owed_messages: 0,
            owed_bytes: 0,
            silent_since: None,
            ended: false,
        };
        if reader.careful.is_none() {
            reader.stand().await?;
        }
        Ok(reader)
    }

    /// Creates the consumer, and asks it for messages.
    async fn stand(&mut self) -> Result<(), LogError> {
        create_consumer(&self.log, &self.stream, &self.name, self.filter.as_deref(), self.expected).await?;
        self.standing = Some(Instant::now());
        self.renew().await.map_err(|error| LogError::Unavailable(error.into()))
    }

    /// The next message, asked for by itself; `None` once the consumer can go on. Safe to cancel.
    async fn step(&mut self, until: u64) -> Result<Option<Entry>, ReadError> {
        let filter = self.filter.as_deref().unwrap_or(">");
        let found = self.log.next(&self.stream, filter, self.expected).await;
        let Some(entry) = found.map_err(|error| self.lost(error.to_string()))? else {
            self.careful = None;
            return Ok(None);
        };
        self.check_stream(entry.sequence)?;
        if entry.sequence >= until {
            tracing::warn!(stream = self.stream, sequence = entry.sequence, "a message was taken with care");
            self.careful = None;
            self.log.suspects.taken(&place(&self.stream, self.filter.as_deref()), entry.sequence);
        }
        Ok(Some(entry))
    }

    /// Asks for more when half of what was asked for has come.
    async fn renew(&mut self) -> Result<(), ReadError> {
        if self.pull_after.is_some_and(|after| Instant::now() < after) {
            return Ok(());
        }
        self.pull_after = None;
        let Some(pull) = self.wanted() else { return Ok(()) };
        let published = self.log.client.publish_with_reply(
            self.next_subject.clone(),
            async_nats::Subject::from(self.inbox.clone()),
            pull.body(),
        );
        match tokio::time::timeout(super::ANSWER_MAX, published).await {
            Ok(Ok(())) => {
                self.owed_messages += pull.messages;
                self.owed_bytes += pull.bytes;
                Ok(())
            }
            Ok(Err(error)) => Err(self.lost(error.to_string())),
            Err(_) => Err(self.lost("the connection takes nothing".into())),
        }
    }

    fn wanted(&self) -> Option<PullRequest> {
        let low = self.owed_messages < limits::READ_AHEAD_MESSAGES / 2
            || self.owed_bytes < limits::READ_AHEAD_BYTES / 2;
        low.then(|| PullRequest {
            messages: (limits::READ_AHEAD_MESSAGES.saturating_sub(self.owed_messages)).max(PULL_MESSAGES_MIN),
            bytes: (limits::READ_AHEAD_BYTES.saturating_sub(self.owed_bytes)).max(PULL_BYTES_MIN),
        })
    }

    /// What a message on the subscription means: an entry, the end, or nothing for the caller.
    fn take(&mut self, message: Message) -> Option<Result<Entry, ReadError>> {
        self.silent_since = None;
        // A producer may store a message with any status line, so only what comes to the inbox itself is a status.
        if message.subject.as_str() == self.inbox {
            return self.take_status(&message).err().map(Err);
        }
        let Some(delivery) = message.reply.as_deref().and_then(Delivery::parse) else {
            let what = format!("a delivery with a reply subject that cannot be read: {:?}", message.reply);
            return Some(Err(self.lost(what)));
        };
        self.owed_messages = self.owed_messages.saturating_sub(1);
        self.owed_bytes = self.owed_bytes.saturating_sub(message.length);
        Some(self.check(delivery).map(|()| Entry {
            sequence: delivery.stream_sequence,
            recorded_at: delivery.recorded_at,
            headers: message.headers.as_ref().map(wire::publisher_headers).unwrap_or_default(),
            payload: message.payload,
            // The subject owns its bytes alone, so this moves them.
            subject: message.subject.into_string().into_boxed_str(),
        }))
    }

    /// That nothing was skipped and nothing came twice.
    fn check(&mut self, delivery: Delivery) -> Result<(), ReadError> {
        self.check_stream(delivery.stream_sequence)?;
        let (got, expected) = (delivery.consumer_sequence, self.delivered + 1);
        if got != expected {
            self.ended = true;
            return Err(ReadError::Gap { got, expected });
        }
        self.delivered += 1;
        Ok(())
    }

    fn check_stream(&mut self, got: u64) -> Result<(), ReadError> {
        let fits = if self.filter.is_some() { got >= self.expected } else { got == self.expected };
        if !fits {
            self.ended = true;
            return Err(ReadError::Gap { got, expected: self.expected });
        }
        self.expected = got + 1;
        Ok(())
    }

    /// A heartbeat, or a pull that ended. What else the broker has to say means that this reader is lost.
    fn take_status(&mut self, message: &Message) -> Result<(), ReadError> {
        let said = message.description.as_deref().unwrap_or_default();
        let headers = message.headers.as_ref();
        match message.status {
            Some(StatusCode::IDLE_HEARTBEAT) => {
                let delivered = headers.and_then(|headers| number(headers, "Nats-Last-Consumer"));
                let stream = headers.and_then(|headers| number(headers, "Nats-Last-Stream"));
                if delivered.is_some_and(|last| last > self.delivered) {
                    return Err(self.lost("messages were lost on the way: the heartbeat is ahead".into()));
                }
                if self.filter.is_none() && stream.is_some_and(|last| last >= self.expected) {
                    let got = stream.unwrap_or_default();
                    self.ended = true;
                    return Err(ReadError::Gap { got, expected: self.expected });
                }
                Ok(())
            }
            // The server that created the consumer has answered before the one that is asked heard of it.
            Some(StatusCode::NO_RESPONDERS)
                if self.delivered == 0
                    && self.standing.is_some_and(|since| since.elapsed() < UNKNOWN_MAX) =>
            {
                (self.owed_messages, self.owed_bytes) = (0, 0);
                self.pull_after = Some(Instant::now() + UNKNOWN_PAUSE);
                Ok(())
            }
            Some(StatusCode::TIMEOUT) => self.settle(headers, said),
            Some(StatusCode::REQUEST_TERMINATED)
                if said.eq_ignore_ascii_case("Message Size Exceeds MaxBytes")
                    || said.eq_ignore_ascii_case("Batch Completed") =>
            {
                self.settle(headers, said)
            }
            status => {
                let status = status.map_or(0, |status| status.as_u16());
                Err(self.lost(format!("the broker ended it: {status} {said}")))
            }
        }
    }

    /// A pull ended before it brought all that it asked for: the rest is not owed any more.
    fn settle(&mut self, headers: Option<&HeaderMap>, said: &str) -> Result<(), ReadError> {
        let rest =
            |name| headers.and_then(|headers| number(headers, name)).and_then(|n| usize::try_from(n).ok());
        let (Some(messages), Some(bytes)) = (rest("Nats-Pending-Messages"), rest("Nats-Pending-Bytes"))
        else {
            return Err(self.lost(format!("a pull ended without account: {said}")));
        };
        if said.eq_ignore_ascii_case("Message Size Exceeds MaxBytes") && bytes >= PULL_BYTES_MIN {
            return Err(self.lost(format!("the next message is larger than the {bytes} bytes asked for")));
        }
        self.owed_messages = self.owed_messages.saturating_sub(messages);
        self.owed_bytes = self.owed_bytes.saturating_sub(bytes);
        Ok(())
    }

    /// The connection was lost while this reader had a pull standing: perhaps over what was to come next.
    fn suspect(&self) {
        self.log.suspects.lost(place(&self.stream, self.filter.as_deref()), self.expected);
    }

    fn lost(&mut self, what: String) -> ReadError {
        self.ended = true;
        ReadError::Lost(what.into())
    }

    /// A message that has arrived; `None` when none has.
    fn arrived(&mut self) -> Option<Result<Entry, ReadError>> {
        while let Some(message) = self.subscriber.next().now_or_never() {
            let Some(message) = message else {
                return Some(Err(self.lost("the connection is closed".into())));
            };
            if let Some(taken) = self.take(message) {
                return Some(taken);
            }
        }
        None
    }
}

impl Reader for Pull {
    async fn next(&mut self) -> Result<Entry, ReadError> {
        loop {
            if self.ended {
                return Err(ReadError::Lost("it had ended before; open another".into()));
            }
            if let Some(got) = self.short {
                self.ended = true;
                return Err(ReadError::Gap { got, expected: self.expected });
            }
            if let Some(until) = self.careful {
                match self.step(until).await? {
                    Some(entry) => return Ok(entry),
                    None => continue,
                }
            }
            if self.standing.is_none() {
                self.stand().await.map_err(|error| self.lost(error.to_string()))?;
            }
            self.renew().await?;
            if let Some(taken) = self.arrived() {
                return taken;
            }
            let since = *self.silent_since.get_or_insert_with(Instant::now);
            tokio::select! {
                biased;
                message = self.subscriber.next() => {
                    let Some(message) = message else { return Err(self.lost("the connection is closed".into())) };
                    if let Some(taken) = self.take(message) {
                        return taken;
                    }
                }
                _ = self.losses.changed() => {
                    self.suspect();
                    return Err(self.lost("the connection was lost".into()));
                }
                () = sleep_until(self.pull_after.unwrap_or(since)), if self.pull_after.is_some() => {}
                () = sleep_until(since + SILENCE_MAX) => {
                    self.ended = true;
                    self.log.doubt();
                    return Err(ReadError::Silent(SILENCE_MAX.as_millis()));
                }
            }
        }
    }

    fn ready(&mut self) -> Option<Result<Entry, ReadError>> {
        if self.ended || self.short.is_some() || self.standing.is_none() {
            return None;
        }
        let taken = self.arrived()?;
        // While the caller finds something each time, nobody awaits `next`: the pull is renewed here as well.
        // What the connection cannot take at once is tried again with the next message.
        if let Some(Err(error)) = self.renew().now_or_never() {
            tracing::debug!(%error, "a pull could not be renewed");
        }
        Some(taken)
    }
}

impl Drop for Pull {
    fn drop(&mut self) {
        if self.standing.is_none() {
            return;
        }
        // Whoever held the reader was busy with something else when the connection was lost, and may be so each time.
        if self.losses.has_changed().unwrap_or(false) {
            self.suspect();
        }
        // A courtesy: the broker removes the consumer by itself after `INACTIVE_MAX`.
        let published = self.log.client.publish(self.delete_subject.clone(), Bytes::new()).now_or_never();
        if !matches!(published, Some(Ok(()))) {
            tracing::debug!(consumer = %self.delete_subject, "left for the broker to remove");
        }
    }
}

/// What is read: a stream and a filter.
fn place(stream: &str, filter: Option<&str>) -> String {
    format!("{stream} {}", filter.unwrap_or_default())
}

/// Where readers lost the connection. There are as many places as lanes are read, so this is small.
#[derive(Debug, Default)]
pub(super) struct Suspects(Mutex<BTreeMap<String, Suspect>>);

/// A stretch of a stream at which the connection was lost.
#[derive(Debug)]
struct Suspect {
    /// What the readers waited for, the first and the last of it.
    stretch: RangeInclusive<u64>,
    /// How often they waited in vain.
    losses: u32,
}

impl Suspects {
    fn places(&self) -> MutexGuard<'_, BTreeMap<String, Suspect>> {
        self.0.lock().expect("nobody panics while holding the suspects")
    }

    /// The connection was lost while `sequence` was waited for.
    fn lost(&self, place: String, sequence: u64) {
        let mut places = self.places();
        let suspect = places.entry(place).or_insert(Suspect { stretch: sequence..=sequence, losses: 0 });
        let (first, last) = (*suspect.stretch.start(), *suspect.stretch.end());
        // What lies near may have been on its way already: it belongs to the same stretch.
        if (first..=last.saturating_add(STRETCH_MAX)).contains(&sequence) {
            *suspect =
                Suspect { stretch: first..=last.max(sequence), losses: suspect.losses.saturating_add(1) };
        } else {
            *suspect = Suspect { stretch: sequence..=sequence, losses: 1 };
        }
    }

    /// Up to where a reader that starts at `from` is to be careful.
    fn careful(&self, place: &str, from: u64) -> Option<u64> {
        let places = self.places();
        let suspect = places.get(place)?;
        let last = *suspect.stretch.end();
        let suspicious = suspect.losses >= LOSSES_SUSPICIOUS && from <= last;
        // From further away the consumer brings what lies before, and dies at the stretch if it must.
        let near = from.saturating_add(STRETCH_MAX) >= *suspect.stretch.start();
        let ahead = u64::from(suspect.losses.saturating_sub(LOSSES_SUSPICIOUS)).min(AHEAD_MAX);
        (suspicious && near).then_some(last.saturating_add(ahead))
    }

    /// The suspected message is this one: who starts at it again is to be careful again.
    fn taken(&self, place: &str, sequence: u64) {
        if let Some(suspect) = self.places().get_mut(place) {
            let (first, last) = (*suspect.stretch.start(), *suspect.stretch.end());
            suspect.stretch = first..=last.max(sequence);
        }
    }
}

/// One pull.
struct PullRequest {
    messages: usize,
    bytes: usize,
}

impl PullRequest {
    fn body(&self) -> Bytes {
        format!(
            r#"{{"batch":{},"max_bytes":{},"expires":{},"idle_heartbeat":{}}}"#,
            self.messages,
            self.bytes,
            PULL_EXPIRES.as_nanos(),
            HEARTBEAT.as_nanos()
        )
        .into()
    }
}

async fn create_consumer(
    log: &JetStream,
    stream: &str,
    name: &str,
    filter: Option<&str>,
    from: u64,
) -> Result<(), LogError> {
    let mut config = serde_json::json!({
        "name": name,
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": from,
        "ack_policy": "none",
        "replay_policy": "instant",
        "mem_storage": true,
        "num_replicas": 1,
        "inactive_threshold": nanoseconds(INACTIVE_MAX),
    });
    let mut subject = format!("$JS.API.CONSUMER.CREATE.{stream}.{name}");
    if let Some(filter) = filter {
        config["filter_subject"] = filter.into();
        subject = format!("{subject}.{filter}");
    }
    let body = serde_json::json!({ "stream_name": stream, "config": config, "action": "create" }).to_string();
    let created: Result<serde_json::Value, AskError> = log.ask(subject, body.into()).await;
    created.map(|_| ()).map_err(|error| error.into_log(stream))
}

/// A receiver that has seen all losses up to now.
pub(super) fn fresh(losses: &watch::Receiver<u64>) -> watch::Receiver<u64> {
    let mut losses = losses.clone();
    losses.mark_unchanged();
    losses
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).expect("half a minute fits")
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.as_str().parse().ok()
}
