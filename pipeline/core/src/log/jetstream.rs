//! The log on NATS JetStream: connection, questions to the leader, plain messages.
//! Reading is in [`reader`], appending in [`appender`], the set-up of streams in [`setup`]; what is on the wire is
//! read in `wire`. Runners open one [`JetStream`] per process and clone it.
//! Never here: direct get (stale on replicas), acknowledgement floors, a stream handle that is fetched per call,
//! or a consumer that is recreated behind the caller's back. Every wait has an end.

pub mod appender;
pub mod reader;
pub mod setup;
mod wire;

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_nats::client::{PublishErrorKind, RequestErrorKind};
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event};
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::limits;
use crate::log::{Append, AppendError, Cause, Entry, Extent, Log, LogError, Notices};
use crate::time::Millis;

/// How long a connection may be silent before it is asked whether it lives; it counts as dead when it was asked twice.
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// How long an echo may take. The server's core makes it, which does not wait for a disk.
const ECHO_MAX: Duration = Duration::from_secs(2);
/// How long the broker may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long no acknowledgement may come: as long as the servers of a cluster may take to choose a leader.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// The longest wait between two attempts to connect.
const RECONNECT_MAX: Duration = Duration::from_secs(2);
/// How each part of a PEM file begins.
const PEM_BEGIN: &[u8] = b"-----BEGIN ";

/// How to connect.
#[derive(Debug, Clone)]
pub struct ConnectSettings {
    /// A NATS credentials file (JWT and seed).
    pub creds: Option<PathBuf>,
    /// A file of root certificates (PEM); TLS is required when it is given.
    pub tls_ca: Option<PathBuf>,
    /// The client's certificate (PEM), together with `tls_key`.
    pub tls_cert: Option<PathBuf>,
    /// The client's key (PEM), together with `tls_cert`.
    pub tls_key: Option<PathBuf>,
    /// The first words of the inboxes, where the user may only receive on some; `_INBOX` otherwise.
    pub inbox_prefix: Option<String>,
    /// How long to try for a first connection; `None`: for ever.
    pub give_up_after: Option<Duration>,
    /// How long an append may stay unacknowledged before its fate counts as unknown.
    pub acknowledged_within: Duration,
    /// How long no acknowledgement at all may come while appends are in flight, until the fate of the oldest counts as
    /// unknown: their stream has lost its leader.
    pub silence_max: Duration,
}

impl Default for ConnectSettings {
    fn default() -> Self {
        Self {
            creds: None,
            tls_ca: None,
            tls_cert: None,
            tls_key: None,
            inbox_prefix: None,
            give_up_after: None,
            acknowledged_within: ANSWER_MAX,
            silence_max: SILENCE_MAX,
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The settings cannot be used; no retry mends that.
    #[error("cannot connect with these settings: {what}")]
    Settings {
        /// Which setting, and what to do.
        what: String,
        /// What the client said.
        #[source]
        cause: Cause,
    },
    /// Nobody answers there, or refuses us.
    #[error(
        "no connection to NATS at {url}: {cause}; see that a server runs there and knows these credentials"
    )]
    Unreachable {
        /// Where.
        url: String,
        /// What the client said last.
        #[source]
        cause: Cause,
    },
}

/// What has happened to the connection since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// How often it was lost.
    pub disconnects: u64,
    /// How often it was made, the first time included.
    pub connects: u64,
    /// Messages dropped because a subscription was full; a reader notices each as a gap.
    pub slow_consumers: u64,
}

/// A connection to a broker. Cheap to clone; all clones share it.
#[derive(Clone)]
pub struct JetStream {
    client: Client,
    url: Arc<str>,
    acknowledged_within: Duration,
    silence_max: Duration,
    /// Counts the losses of the connection: whoever waits for an answer learns that it will not come.
    losses: watch::Receiver<u64>,
    slow_consumers: Arc<AtomicU64>,
    suspects: Arc<reader::Suspects>,
    /// Whether an echo is waited for.
    doubted: Arc<AtomicBool>,
}

impl std::fmt::Debug for JetStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JetStream")
            .field("url", &self.url)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl JetStream {
    /// Connects, and keeps trying with jitter until it stands or `give_up_after` has passed.
    /// `url` may list several servers, separated by commas; `name` is shown by the broker.
    pub async fn connect(url: &str, name: &str, settings: &ConnectSettings) -> Result<Self, ConnectError> {
        let (options, losses, slow_consumers) = options(name, settings).await?;
        let servers = servers(url)?;
        let begun = Instant::now();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let error = match options.clone().connect(&servers).await {
                Ok(client) => {
                    return Ok(Self {
                        client,
                        url: url.into(),
                        acknowledged_within: settings.acknowledged_within,
                        silence_max: settings.silence_max,
                        losses,
                        slow_consumers,
                        suspects: Arc::default(),
                        doubted: Arc::default(),
                    });
                }
                Err(error) => error,
            };
            if error.kind() == ConnectErrorKind::Tls {
                let what = "the TLS files or the server's certificate do not fit".into();
                return Err(ConnectError::Settings { what, cause: error.into() });
            }
            let wait = reconnect_delay(attempts);
            if settings.give_up_after.is_some_and(|limit| begun.elapsed() + wait > limit) {
                return Err(ConnectError::Unreachable { url: url.into(), cause: error.into() });
            }
            if attempts == 1 || attempts % 32 == 0 {
                tracing::warn!(url, %error, "no connection to NATS yet; trying on");
            }
            sleep(wait).await;
        }
    }

    /// What has happened to the connection so far.
    pub fn stats(&self) -> Stats {
        Stats {
            disconnects: *self.losses.borrow(),
            connects: self.client.statistics().connects.load(Ordering::Relaxed),
            slow_consumers: self.slow_consumers.load(Ordering::Relaxed),
        }
    }

    /// Whether the connection stands just now, as far as this side knows.
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == async_nats::connection::State::Connected
    }

    /// Where it connects to.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The client below, for what is no log (questions and answers about status).
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Something was not heard in time. That may be a slow server or a dead connection, and of a connection of which
    /// one direction is dead the client learns nothing while the other one still brings heartbeats. An echo tells: where
    /// none comes back, the connection is made anew.
    fn doubt(&self) {
        if self.doubted.swap(true, Ordering::Relaxed) {
            return;
        }
        let (client, doubted) = (self.client.clone(), self.doubted.clone());
        tokio::spawn(async move {
            if timeout(ECHO_MAX, echo(&client)).await.is_err() {
                tracing::warn!("the connection to NATS is half dead: nothing comes back; it is made anew");
                if timeout(ECHO_MAX, client.force_reconnect()).await.is_err() {
                    tracing::warn!("the connection takes no command either; its pings will end it");
                }
            }
            doubted.store(false, Ordering::Relaxed);
        });
    }

    /// Asks an endpoint of the JetStream API, and reads the answer.
    async fn ask<T: DeserializeOwned>(&self, subject: String, body: Bytes) -> Result<T, AskError> {
        let mut losses = reader::fresh(&self.losses);
        let asked = timeout(ANSWER_MAX, self.client.request(async_nats::Subject::from(subject), body));
        let answer = tokio::select! {
            biased;
            answer = asked => answer,
            // What was sent before the loss will not be answered after it.
            _ = losses.changed() => {
                return Err(AskError::Log(LogError::Unavailable("the connection was lost".into())));
            }
        };
        let answer = match answer {
            Err(elapsed) => {
                self.doubt();
                return Err(AskError::Log(LogError::Unavailable(elapsed.into())));
            }
            Ok(Err(error)) => {
                let refused = matches!(
                    error.kind(),
                    RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded
                );
                let as_log = if refused { LogError::Denied } else { LogError::Unavailable };
                return Err(AskError::Log(as_log(error.into())));
            }
            Ok(Ok(answer)) => answer,
        };
        let unreadable = |error: serde_json::Error| AskError::Log(LogError::Denied(error.into()));
        let error: wire::MaybeError = serde_json::from_slice(&answer.payload).map_err(unreadable)?;
        if let Some(error) = error.error {
            return Err(AskError::Api(error));
        }
        serde_json::from_slice(&answer.payload).map_err(unreadable)
    }

    /// Asks the stream's leader for one message.
    async fn message(&self, stream: &str, which: serde_json::Value) -> Result<Option<Entry>, LogError> {
        let body = Bytes::from(which.to_string());
        match self.ask::<wire::GetAnswer>(format!("$JS.API.STREAM.MSG.GET.{stream}"), body).await {
            Ok(answer) => answer.message.entry().map(Some),
            Err(AskError::Api(error)) if error.err_code == wire::NO_MESSAGE_FOUND => Ok(None),
            Err(error) => Err(error.into_log(stream)),
        }
    }

    /// Hands a plain message to the connection.
    async fn publish(&self, subject: String, payload: Bytes) -> Result<(), LogError> {
        let published = self.client.publish(async_nats::Subject::from(subject), payload);
        match timeout(ANSWER_MAX, published).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if error.kind() == PublishErrorKind::Send => {
                Err(LogError::Unavailable(error.into()))
            }
            Ok(Err(error)) => Err(LogError::Denied(error.into())),
            Err(elapsed) => Err(LogError::Unavailable(elapsed.into())),
        }
    }

    /// Subscribes; the broker learns of it before anything that is sent later.
    async fn subscribe(&self, subject: String) -> Result<async_nats::Subscriber, LogError> {
        match timeout(ANSWER_MAX, self.client.subscribe(async_nats::Subject::from(subject))).await {
            Ok(Ok(subscriber)) => Ok(subscriber),
            Ok(Err(error)) if error.kind() == async_nats::SubscribeErrorKind::Other => {
                Err(LogError::Unavailable(error.into()))
            }
            Ok(Err(error)) => Err(LogError::Denied(error.into())),
            Err(elapsed) => Err(LogError::Unavailable(elapsed.into())),
        }
    }
}

impl Log for JetStream {
    type Reader = reader::Pull;
    type Appender = appender::Pipelined;

    async fn extent(&self, stream: &str) -> Result<Extent, LogError> {
        let info: StreamInfo = self
            .ask(format!("$JS.API.STREAM.INFO.{stream}"), Bytes::new())
            .await
            .map_err(|error| error.into_log(stream))?;
        let state = info.state;
        let first = if state.messages == 0 { state.last_seq + 1 } else { state.first_seq };
        let at =
            Millis::parse(&info.ts).ok_or_else(|| LogError::Denied("it says no time of its own".into()))?;
        // The broker says -1 where there is no limit.
        let max_bytes = info.config["max_bytes"].as_u64().unwrap_or(u64::MAX);
        Ok(Extent { first, last: state.last_seq, bytes: state.bytes, max_bytes, at })
    }

    async fn last(&self, stream: &str, filter: &str) -> Result<Option<Entry>, LogError> {
        self.message(stream, serde_json::json!({ "last_by_subj": filter })).await
    }

    async fn get(&self, stream: &str, sequence: u64) -> Result<Option<Entry>, LogError> {
        if sequence == 0 {
            return Ok(None);
        }
        self.message(stream, serde_json::json!({ "seq": sequence })).await
    }

    async fn next(&self, stream: &str, filter: &str, from: u64) -> Result<Option<Entry>, LogError> {
        self.message(stream, serde_json::json!({ "seq": from.max(1), "next_by_subj": filter })).await
    }

    async fn read(&self, stream: &str, filter: Option<&str>, from: u64) -> Result<Self::Reader, LogError> {
        reader::Pull::open(self, stream, filter, from).await
    }

    async fn appender(&self) -> Result<Self::Appender, LogError> {
        appender::Pipelined::open(self).await
    }

    async fn append_atomic(&self, appends: Vec<Append>) -> Result<u64, AppendError> {
        appender::append_atomic(self, appends).await
    }

    async fn trim(&self, stream: &str, filter: Option<&str>, before: u64) -> Result<(), LogError> {
        // The broker reads 0 and 1 as "everything".
        if before <= 1 {
            return Ok(());
        }
        let mut which = serde_json::json!({ "seq": before });
        if let Some(filter) = filter {
            which["filter"] = filter.into();
        }
        let subject = format!("$JS.API.STREAM.PURGE.{stream}");
        let purged: Result<serde_json::Value, _> = self.ask(subject, which.to_string().into()).await;
        purged.map(|_| ()).map_err(|error| error.into_log(stream))
    }

    async fn notify(&self, subject: &str, payload: Bytes) -> Result<(), LogError> {
        self.publish(subject.into(), payload).await?;
        // It may be the last that the process does.
        match timeout(ANSWER_MAX, self.client.flush()).await {
            Ok(flushed) => flushed.map_err(|error| LogError::Unavailable(error.into())),
            Err(elapsed) => Err(LogError::Unavailable(elapsed.into())),
        }
    }

    async fn listen(&self, subject: &str) -> Result<Notices, LogError> {
        let subscriber = self.subscribe(subject.into()).await?;
        let (sender, notices) = mpsc::channel(1);
        tokio::spawn(hand_on(subscriber, sender));
        Ok(notices)
    }
}

/// Hands plain messages on as fast as they are taken; of more than [`limits::NOTICES_MAX`] the oldest are dropped.
async fn hand_on(mut subscriber: async_nats::Subscriber, sender: mpsc::Sender<(Box<str>, Bytes)>) {
    let mut waiting = VecDeque::new();
    loop {
        tokio::select! {
            message = subscriber.next() => {
                let Some(message) = message else { return };
                if waiting.len() == limits::NOTICES_MAX {
                    waiting.pop_front();
                }
                waiting.push_back((message.subject.as_str().into(), message.payload));
            }
            permit = sender.reserve(), if !waiting.is_empty() => {
                let Ok(permit) = permit else { return };
                permit.send(waiting.pop_front().expect("something is waiting: it was asked just now"));
            }
            () = sender.closed() => return,
        }
    }
}

/// Sends a message to ourselves and waits until it is back; a connection that says no is not half dead.
async fn echo(client: &Client) {
    let inbox = async_nats::Subject::from(client.new_inbox());
    let Ok(mut echoes) = client.subscribe(inbox.clone()).await else { return };
    if client.publish(inbox, Bytes::new()).await.is_ok() {
        echoes.next().await;
    }
}

/// Why a question to the API has no good answer.
#[derive(Debug)]
enum AskError {
    Log(LogError),
    Api(wire::ApiError),
}

impl AskError {
    fn into_log(self, stream: &str) -> LogError {
        match self {
            Self::Log(error) => error,
            Self::Api(error) if error.err_code == wire::STREAM_NOT_FOUND => LogError::NoStream(stream.into()),
            Self::Api(error) if error.is_passing() => LogError::Unavailable(error.into()),
            Self::Api(error) => LogError::Denied(error.into()),
        }
    }
}

/// The part of a stream's information that is asked for.
#[derive(Debug, Deserialize)]
struct StreamInfo {
    config: serde_json::Value,
    state: StreamState,
    ts: String,
}

#[derive(Debug, Deserialize)]
struct StreamState {
    messages: u64,
    bytes: u64,
    first_seq: u64,
    last_seq: u64,
}

/// Whether this says where servers are: `nats://host:port`, several separated by commas.
pub fn is_url(url: &str) -> bool {
    servers(url).is_ok()
}

/// The hosts that this names; none where it is no URL.
pub fn hosts(url: &str) -> Vec<String> {
    let servers = servers(url).unwrap_or_default();
    servers.iter().map(|server| server.host().to_owned()).collect()
}

fn servers(url: &str) -> Result<Vec<async_nats::ServerAddr>, ConnectError> {
    let parse = |one: &str| {
        let address: async_nats::ServerAddr = one.trim().parse()?;
        // An empty text is read as a server without a host, which would be tried for ever.
        if address.host().is_empty() { Err(std::io::Error::other("it names no host")) } else { Ok(address) }
    };
    let settings = |one: &str, cause: std::io::Error| ConnectError::Settings {
        what: format!("{one:?} is no NATS URL; write nats://host:port"),
        cause: cause.into(),
    };
    url.split(',').map(|one| parse(one).map_err(|cause| settings(one, cause))).collect()
}

type Observed = (ConnectOptions, watch::Receiver<u64>, Arc<AtomicU64>);

async fn options(name: &str, settings: &ConnectSettings) -> Result<Observed, ConnectError> {
    let (loss, losses) = watch::channel(0_u64);
    let slow_consumers = Arc::new(AtomicU64::new(0));
    let dropped = Arc::clone(&slow_consumers);
    let observe = move |event| {
        match event {
            Event::Disconnected | Event::Closed => loss.send_modify(|count| *count += 1),
            Event::SlowConsumer(_) => {
                dropped.fetch_add(1, Ordering::Relaxed);
            }
            Event::ServerError(error) => tracing::warn!(%error, "the NATS server reports an error"),
            _ => {}
        }
        std::future::ready(())
    };
    let mut options = ConnectOptions::new()
        .name(name)
        .ping_interval(PING_INTERVAL)
        .request_timeout(Some(ANSWER_MAX))
        .subscription_capacity(limits::SUBSCRIPTION_MESSAGES_MAX)
        .reconnect_delay_callback(reconnect_delay)
        .event_callback(observe);
    if let Some(prefix) = &settings.inbox_prefix {
        options = options.custom_inbox_prefix(prefix);
    }
    if let Some(ca) = &settings.tls_ca {
        options = options.add_root_certificates(pem(ca).await?).require_tls(true);
    }
    match (&settings.tls_cert, &settings.tls_key) {
        (Some(cert), Some(key)) => {
            let (cert, key) = (pem(cert).await?, pem(key).await?);
            options = options.add_client_certificate(cert, key).require_tls(true);
        }
        (None, None) => {}
        _ => {
            let cause = "one of the two is missing".into();
            let what = "a client's certificate and its key are given together".into();
            return Err(ConnectError::Settings { what, cause });
        }
    }
    if let Some(creds) = &settings.creds {
        options = options.credentials_file(creds).await.map_err(|cause| ConnectError::Settings {
            what: format!("{} is no readable credentials file", creds.display()),
            cause: cause.into(),
        })?;
    }
    Ok((options, losses, slow_consumers))
}

/// The path, once it is known that the file is PEM: a wrong file must not look like a server that is away.
async fn pem(path: &Path) -> Result<PathBuf, ConnectError> {
    let unusable = |why: &str, cause: Cause| {
        let what = format!("{} {why}", path.display());
        ConnectError::Settings { what, cause }
    };
    let read = tokio::fs::read(path).await.map_err(|cause| unusable("cannot be read", cause.into()))?;
    if !read.windows(PEM_BEGIN.len()).any(|bytes| bytes == PEM_BEGIN) {
        return Err(unusable("is no PEM file", "nothing begins in it".into()));
    }
    Ok(path.to_path_buf())
}

/// Between nothing and a bound that doubles from 50 ms to [`RECONNECT_MAX`], so that a fleet does not come at once.
fn reconnect_delay(attempts: usize) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX).min(6);
    let bound = (Duration::from_millis(50) * 2_u32.pow(doublings)).min(RECONNECT_MAX);
    // A hasher with the keys that the standard library draws for each process and call is random enough.
    let drawn = RandomState::new().build_hasher().finish();
    let millis = u64::try_from(bound.as_millis()).expect("the bound is two seconds at most");
    Duration::from_millis(drawn % (millis + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reconnects_are_spread_and_bounded() {
        for attempts in [0, 1, 2, 7, 1_000_000] {
            assert!(reconnect_delay(attempts) <= RECONNECT_MAX);
        }
        assert!((0..64).map(|_| reconnect_delay(7)).any(|delay| delay > Duration::from_millis(50)));
    }

    #[test]
    fn hosts_are_read() {
        assert_eq!(hosts("nats://a:4222,b, tls://10.0.0.1:1"), ["a", "b", "10.0.0.1"]);
        assert!(hosts("http://a").is_empty());
    }

    #[tokio::test]
    async fn settings_that_cannot_work_are_named() {
        let check = async |settings: ConnectSettings, url: &str, expect: &str| {
            let error = JetStream::connect(url, "test", &settings).await.expect_err("it cannot work");
            assert!(matches!(error, ConnectError::Settings { .. }), "{error:?}");
            assert!(error.to_string().contains(expect), "{error} should say {expect}");
        };
        let none = ConnectSettings::default;
        check(none(), "http://127.0.0.1", "is no NATS URL").await;
        check(none(), "", "is no NATS URL").await;
        check(none(), "127.0.0.1,", "is no NATS URL").await;
        let tls_ca = Some(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml").into());
        check(ConnectSettings { tls_ca, ..none() }, "127.0.0.1", "Cargo.toml is no PEM file").await;
        let creds = Some("/nowhere/creds".into());
        check(ConnectSettings { creds, ..none() }, "127.0.0.1", "/nowhere/creds").await;
        let tls_ca = Some("/nowhere/ca.pem".into());
        check(ConnectSettings { tls_ca, ..none() }, "127.0.0.1", "/nowhere/ca.pem").await;
        let tls_key = Some("/nowhere/key.pem".into());
        check(ConnectSettings { tls_key, ..none() }, "127.0.0.1", "given together").await;
    }

    #[tokio::test]
    async fn nobody_there_is_said_after_the_time_given() {
        let settings =
            ConnectSettings { give_up_after: Some(Duration::from_millis(100)), ..Default::default() };
        let error = JetStream::connect("127.0.0.1:1", "test", &settings).await.expect_err("nobody listens");
        assert!(matches!(error, ConnectError::Unreachable { .. }), "{error:?}");
    }
}
