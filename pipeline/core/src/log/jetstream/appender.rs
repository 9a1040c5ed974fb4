//! Appends to streams: pipelined, with acknowledgements in the order of the sends, or all of a batch or nothing.
//! One inbox takes all acknowledgements of an appender; a reply's last word is the number of its send.
//! Nothing here tries again: what to do about a fate that is unknown is the runner's to decide.

use std::collections::VecDeque;
use std::str::FromStr as _;
use std::time::Duration;

use async_nats::client::PublishErrorKind;
use async_nats::header::{
    HeaderName, HeaderValue, NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL, NATS_BATCH_ID, NATS_BATCH_SEQUENCE,
    NATS_EXPECTED_LAST_SEQUENCE, NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
};
use async_nats::{HeaderMap, Message, StatusCode, Subject, Subscriber};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::reader::fresh;
use super::{ANSWER_MAX, JetStream, wire};
use crate::limits;
use crate::log::{Append, AppendError, Appender, Expect, LogError};
use crate::topology;

/// The stream's last sequence, or its subject's, is another one.
const WRONG_LAST_SEQUENCE: u32 = 10_071;
/// Another append holds the same fence just now.
const WRONG_LAST_SEQUENCE_NOW: u32 = 10_164;
/// The stream could not store it: full, or its disk failed.
const STORE_FAILED: u32 = 10_077;
/// The account's, the server's or the disk's storage is used up.
const NO_ROOM: [u32; 4] = [10_002, 10_023, 10_028, 10_047];

/// Appends with several in flight.
pub struct Pipelined {
    log: JetStream,
    subscriber: Subscriber,
    losses: watch::Receiver<u64>,
    /// `<inbox>.`, to which the number of a send is added.
    reply_prefix: String,
    /// The number of the oldest send that is not yet answered to the caller.
    oldest: u64,
    /// The sends from `oldest` on.
    sends: VecDeque<Sent>,
    acknowledged_within: Duration,
    /// How long nothing at all may be heard while something is in flight.
    silence_max: Duration,
    /// When something was heard last.
    heard: Instant,
}

struct Sent {
    at: Instant,
    subject: Subject,
    fate: Option<Result<u64, AppendError>>,
}

impl Pipelined {
    pub(super) async fn open(log: &JetStream) -> Result<Self, LogError> {
        let inbox = log.client.new_inbox();
        let losses = fresh(&log.losses);
        let subscriber = log.subscribe(format!("{inbox}.*")).await?;
        Ok(Self {
            log: log.clone(),
            subscriber,
            losses,
            reply_prefix: format!("{inbox}."),
            oldest: 0,
            sends: VecDeque::new(),
            acknowledged_within: log.acknowledged_within,
            silence_max: log.silence_max,
            heard: Instant::now(),
        })
    }

    /// Waits until something more is known: a reply, a lost connection, or the oldest send's deadline.
    ///
    /// Replies of one stream come in order; those of another stream, and refusals of a replicated one, may overtake.
    /// Each is kept with its send, so that a reply which was lost is found out by its deadline.
    async fn learn(&mut self, deadline: Instant) {
        tokio::select! {
            biased;
            reply = self.subscriber.next() => match reply {
                Some(reply) => self.settle(&reply),
                None => self.lose_all("the connection is closed"),
            },
            _ = self.losses.changed() => self.lose_all("the connection was lost"),
            () = sleep_until(deadline) => {
                self.log.doubt();
                if let Some(oldest) = self.sends.front_mut() {
                    let waited = oldest.at.elapsed().as_millis();
                    oldest.fate.get_or_insert(Err(AppendError::Silent(waited)));
                }
            }
        }
    }

    /// Until when a reply to a send is waited for. A server that is slow answers one send after the other; from one that
    /// is cut off nothing comes at all.
    fn deadline(&self, sent: &Sent) -> Instant {
        (sent.at + self.acknowledged_within).min(sent.at.max(self.heard) + self.silence_max)
    }

    /// Takes what has arrived, without waiting.
    fn take_arrived(&mut self) {
        while let Some(Some(reply)) = self.subscriber.next().now_or_never() {
            self.settle(&reply);
        }
    }

    /// Notes a reply with its send. One for a send that was given up is of no interest any more.
    fn settle(&mut self, reply: &Message) {
        self.heard = Instant::now();
        let number =
            reply.subject.strip_prefix(self.reply_prefix.as_str()).and_then(|word| word.parse::<u64>().ok());
        let place = number.and_then(|number| usize::try_from(number.checked_sub(self.oldest)?).ok());
        if let Some(send) = place.and_then(|place| self.sends.get_mut(place)) {
            let Sent { subject, fate: known, .. } = send;
            known.get_or_insert_with(|| fate(reply, subject));
        }
    }

    fn lose_all(&mut self, what: &str) {
        for send in &mut self.sends {
            send.fate.get_or_insert_with(|| Err(AppendError::Unknown(what.into())));
        }
    }
}

impl Appender for Pipelined {
    async fn send(&mut self, mut append: Append) -> Result<(), LogError> {
        // More replies than the subscription holds would be dropped.
        while self.sends.len() >= limits::APPENDS_UNACKNOWLEDGED_MAX {
            self.take_arrived();
            let Some(open) = self.sends.iter().find(|send| send.fate.is_none()) else { break };
            let deadline = self.deadline(open);
            self.learn(deadline).await;
        }
        let number = self.oldest + u64::try_from(self.sends.len()).expect("a length fits");
        let reply = format!("{}{number}", self.reply_prefix);
        let at = Instant::now();
        let subject = Subject::from(std::mem::take(&mut append.subject));
        let fate = publish(&self.log, subject.clone(), append, reply.into(), None).await?.err().map(Err);
        self.sends.push_back(Sent { at, subject, fate });
        Ok(())
    }

    async fn acknowledged(&mut self) -> Result<u64, AppendError> {
        loop {
            match self.sends.front() {
                None => std::future::pending().await,
                Some(Sent { fate: Some(_), .. }) => {
                    let oldest = self.sends.pop_front().and_then(|send| send.fate);
                    self.oldest += 1;
                    return oldest.expect("the oldest send has a fate: it was looked at just now");
                }
                Some(sent) => {
                    let deadline = self.deadline(sent);
                    self.learn(deadline).await;
                }
            }
        }
    }

    fn in_flight(&self) -> usize {
        self.sends.len()
    }
}

/// Stores all of `appends`, or none: an atomic batch (NATS ADR-50).
pub(super) async fn append_atomic(log: &JetStream, appends: Vec<Append>) -> Result<u64, AppendError> {
    let count = appends.len();
    if !(1..=limits::ATOMIC_BATCH_MAX).contains(&count) {
        let most = limits::ATOMIC_BATCH_MAX;
        return Err(AppendError::Rejected(
            format!("an atomic batch has 1 to {most} messages, not {count}").into(),
        ));
    }
    check_fences(&appends)?;
    let nothing_sent = |error: LogError| AppendError::Unknown(error.to_string().into());
    let inbox = log.client.new_inbox();
    let mut losses = fresh(&log.losses);
    let mut replies = log.subscribe(format!("{inbox}.*")).await.map_err(nothing_sent)?;
    let id = inbox.rsplit('.').next().expect("splitting gives at least one word");
    let into = appends[0].subject.clone();
    for (number, mut append) in (1..).zip(appends) {
        let batch = Batch { id, number, last: number == count };
        let subject = Subject::from(std::mem::take(&mut append.subject));
        publish(log, subject, append, format!("{inbox}.{number}").into(), Some(batch))
            .await
            .map_err(nothing_sent)??;
    }
    let commit = format!("{inbox}.{count}");
    let mut refused = None;
    let deadline = Instant::now() + log.acknowledged_within;
    loop {
        let reply = tokio::select! {
            biased;
            reply = replies.next() => reply,
            _ = losses.changed() => None,
            () = sleep_until(deadline) => {
                log.doubt();
                return Err(AppendError::Silent(log.acknowledged_within.as_millis()));
            }
        };
        let Some(reply) = reply else {
            return Err(AppendError::Unknown("the batch was not answered".into()));
        };
        let is_commit = reply.subject.as_str() == commit;
        // All but the last are answered with nothing, or with why they cannot be part of a batch.
        if is_commit || !reply.payload.is_empty() || reply.status.is_some() {
            match (fate(&reply, &into), is_commit) {
                (Ok(sequence), true) => return Ok(sequence),
                (Ok(_), false) => {}
                (Err(error), true) => return Err(refused.unwrap_or(error)),
                (Err(error), false) => refused = refused.or(Some(error)),
            }
        }
    }
}

/// That each fence stands where the broker allows it in a batch: else it would refuse the batch as if a fence did not
/// hold, again and again.
pub(in crate::log) fn check_fences(appends: &[Append]) -> Result<(), AppendError> {
    for (place, append) in appends.iter().enumerate() {
        let fits = match append.expect {
            Expect::Any => true,
            Expect::Last(_) => place == 0,
            Expect::LastOfSubject(_) => {
                appends[..place].iter().all(|earlier| earlier.subject != append.subject)
            }
        };
        if !fits {
            let what = format!(
                "message {} of an atomic batch may not have the fence {:?}",
                place + 1,
                append.expect
            );
            return Err(AppendError::Rejected(what.into()));
        }
    }
    Ok(())
}

/// A message's place in an atomic batch.
#[derive(Clone, Copy)]
struct Batch<'a> {
    id: &'a str,
    number: usize,
    last: bool,
}

/// Hands a message to the connection. The inner error is the message's fate: it was not sent, and never could be.
async fn publish(
    log: &JetStream,
    subject: Subject,
    append: Append,
    reply: Subject,
    batch: Option<Batch<'_>>,
) -> Result<Result<(), AppendError>, LogError> {
    let headers = match headers(&append, batch) {
        Ok(headers) => headers,
        Err(error) => return Ok(Err(error)),
    };
    let client = &log.client;
    let published = async {
        match headers {
            Some(headers) => {
                client.publish_with_reply_and_headers(subject, reply, headers, append.payload).await
            }
            None => client.publish_with_reply(subject, reply, append.payload).await,
        }
    };
    match timeout(ANSWER_MAX, published).await {
        Ok(Ok(())) => Ok(Ok(())),
        Ok(Err(error)) if error.kind() == PublishErrorKind::Send => Err(LogError::Unavailable(error.into())),
        Ok(Err(error)) => Ok(Err(AppendError::Rejected(error.to_string().into()))),
        Err(elapsed) => Err(LogError::Unavailable(elapsed.into())),
    }
}

/// The headers to send; `None` when there are none, which most messages to the ingress have not.
fn headers(append: &Append, batch: Option<Batch<'_>>) -> Result<Option<HeaderMap>, AppendError> {
    if append.headers.is_empty() && append.expect == Expect::Any && batch.is_none() {
        return Ok(None);
    }
    let mut headers = HeaderMap::new();
    for (name, value) in &append.headers {
        let pair = HeaderName::from_str(name).ok().zip(HeaderValue::from_str(value).ok());
        let Some((name, value)) = pair.filter(|_| !wire::is_protocol(name)) else {
            return Err(AppendError::Rejected(format!("{name:?} cannot be sent as a header").into()));
        };
        headers.append(name, value);
    }
    match append.expect {
        Expect::Any => {}
        Expect::Last(last) => headers.insert(NATS_EXPECTED_LAST_SEQUENCE, last.to_string()),
        Expect::LastOfSubject(last) => headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, last.to_string()),
    }
    if let Some(batch) = batch {
        headers.insert(NATS_BATCH_ID, batch.id);
        headers.insert(NATS_BATCH_SEQUENCE, batch.number.to_string());
        if batch.last {
            headers.insert(NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL);
        }
    }
    Ok(Some(headers))
}

/// What a reply says of the append to this subject.
fn fate(reply: &Message, subject: &str) -> Result<u64, AppendError> {
    if reply.status == Some(StatusCode::NO_RESPONDERS) {
        return Err(AppendError::Unknown("no stream takes this subject just now".into()));
    }
    let answer: wire::PublishAnswer = match serde_json::from_slice(&reply.payload) {
        Ok(answer) => answer,
        Err(error) => {
            return Err(AppendError::Unknown(format!("a reply that cannot be read: {error}").into()));
        }
    };
    match (answer.error, answer.seq) {
        (Some(error), _) => {
            let said: Box<str> = error.to_string().into();
            Err(match error.err_code {
                WRONG_LAST_SEQUENCE | WRONG_LAST_SEQUENCE_NOW => AppendError::Fenced(said),
                STORE_FAILED => AppendError::full(subject, &said),
                code if NO_ROOM.contains(&code) => {
                    let stream = topology::stream_of(subject);
                    let what = format!("{stream} ({said}): free room for the server, or let it use more");
                    AppendError::Full(what.into())
                }
                _ if error.is_passing() => AppendError::Unknown(said),
                _ => AppendError::Rejected(said),
            })
        }
        (None, Some(sequence)) => Ok(sequence),
        (None, None) => Err(AppendError::Unknown("a reply without a sequence".into())),
    }
}
