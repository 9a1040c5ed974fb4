//! Sets the streams up, or checks those that are there: what `jackpot init` and `jackpot up` do first.
//! [`streams`] is the one description of every stream of [`crate::topology`]; the memory log is built from it too.
//! Nothing here ever removes or shrinks anything: a setting that could lose data is an error that says so.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::{AskError, JetStream, StreamInfo, wire};
use crate::limits;
use crate::log::{Cause, LogError};
use crate::topology::{self, Lane};

/// Where a stream's metadata says for how many partitions it was made.
const PARTITIONS_KEY: &str = "jackpot-partitions";
/// The least that the broker allows, in nanoseconds: we use no message ids, so there is nothing to remember.
const DUPLICATE_WINDOW: u64 = 100_000_000;
/// No stream is smaller than this: a few of the largest messages must fit.
const STREAM_BYTES_MIN: u64 = 16 * 1024 * 1024;
/// States of a level that `totals` keeps, for readers that come late.
const TOTALS_KEPT: u64 = 128;
/// States of a source that `sources` keeps: only the last one counts.
const SOURCES_KEPT: u64 = 4;
/// The server has no room for what the streams may hold.
const STORAGE_RESOURCES_EXCEEDED: u32 = 10_047;

/// A cluster has too few servers that are there for what was asked.
const NO_SUITABLE_PEERS: u32 = 10_005;
/// How long the servers of a cluster may take to agree on who leads, after all of them were started, or lost power.
const AGREED_WITHIN: Duration = Duration::from_secs(60);
/// How often they are asked meanwhile, and how long one question waits: before they agree, nobody answers.
const AGREED_ASK: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// What to set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetUp {
    /// How many lanes; fixed for ever.
    pub partitions: u16,
    /// On how many servers each stream is kept: 1, or 3 on a cluster.
    pub replicas: u8,
    /// What all streams together may hold. New streams share it; streams that exist keep what they have.
    pub budget_bytes: u64,
    /// What a stream may hold, by its name (`validated-3`) or its kind (`validated`); applied to streams that exist too.
    pub max_bytes: BTreeMap<String, u64>,
}

impl SetUp {
    /// So many partitions on one server, within 16 GiB.
    pub fn new(partitions: u16) -> Self {
        Self { partitions, replicas: 1, budget_bytes: 16 * 1024 * 1024 * 1024, max_bytes: BTreeMap::new() }
    }
}

/// One stream, as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSettings {
    /// Its name.
    pub name: String,
    /// What it listens to.
    pub subjects: Vec<String>,
    /// What it holds at most; then it refuses new messages.
    pub max_bytes: u64,
    /// Messages of one subject at most, the oldest going first; `None`: all are kept.
    pub per_subject_max: Option<u64>,
    /// Whether messages may be removed from its beginning: a lane after snapshots, a view to be rebuilt.
    pub removable: bool,
    /// Whether atomic batches may be stored in it.
    pub atomic: bool,
    /// Under which subject what comes under the first one is stored.
    pub transform: Option<Transform>,
    /// For how many partitions it was made; 0 where that does not matter.
    pub partitions: u16,
}

impl StreamSettings {
    /// A stream that keeps all there is under these subjects.
    pub fn record(name: impl Into<String>, subjects: &[&str], max_bytes: u64) -> Self {
        Self {
            name: name.into(),
            subjects: subjects.iter().map(|subject| (*subject).to_owned()).collect(),
            max_bytes,
            per_subject_max: None,
            removable: false,
            atomic: false,
            transform: None,
            partitions: 0,
        }
    }
}

/// The one transform there is: `wagers.<operator>.<source>` is stored as `lane.<p>.<operator>.<source>`, where *p*
/// is [`topology::partition`] of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transform {
    /// How many partitions.
    pub partitions: u16,
}

impl Transform {
    fn source(self) -> String {
        format!("{}.*.*", topology::WAGERS)
    }

    fn destination(self) -> String {
        format!("lane.{{{{partition({},2)}}}}.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}", self.partitions)
    }

    /// The subject that a message is stored under.
    pub fn apply(self, subject: &str) -> Option<String> {
        let (operator, source) =
            subject.strip_prefix(topology::WAGERS)?.strip_prefix('.')?.split_once('.')?;
        let fits = !operator.is_empty() && !source.is_empty() && !source.contains('.');
        let partition = topology::partition(source, self.partitions);
        fits.then(|| format!("lane.{partition}.{operator}.{source}"))
    }
}

/// All streams, sorted by name.
pub fn streams(setup: &SetUp) -> Vec<StreamSettings> {
    let p = u64::from(setup.partitions);
    // What each kind may hold, in thousandths of the budget, over all its streams.
    let share = |thousandths: u64, streams: u64| {
        (setup.budget_bytes / 1_000 * thousandths / streams.max(1)).max(STREAM_BYTES_MIN)
    };
    let mut streams = vec![
        StreamSettings {
            atomic: true,
            transform: Some(Transform { partitions: setup.partitions }),
            ..StreamSettings::record(topology::WAGERS, &["wagers.*.*", "lane.*.terms"], share(290, 1))
        },
        StreamSettings::record(topology::COMMITS, &["commits"], share(50, 1)),
        StreamSettings {
            // Discarding new ones when full: were old ones discarded, an idle level would lose its present state.
            per_subject_max: Some(TOTALS_KEPT),
            removable: true,
            ..StreamSettings::record(topology::TOTALS, &["totals.*.*"], share(40, 1))
        },
        StreamSettings {
            removable: true,
            ..StreamSettings::record(topology::WINDOWS, &["windows.*.*.*"], share(30, 1))
        },
        StreamSettings {
            removable: true,
            ..StreamSettings::record(topology::HITS, &["hits.*.*"], share(10, 1))
        },
        StreamSettings {
            atomic: true,
            ..StreamSettings::record(topology::REFUSALS, &["refusals.*.*"], share(30, 1))
        },
        StreamSettings {
            per_subject_max: Some(SOURCES_KEPT),
            removable: true,
            ..StreamSettings::record(topology::SOURCES, &["sources.*.*"], share(5, 1))
        },
        StreamSettings::record(topology::TERMS, &["terms.>"], share(5, 1)),
        StreamSettings {
            per_subject_max: Some(1),
            removable: true,
            ..StreamSettings::record(topology::SNAPSHOTS, &["snapshots.>"], share(79, 1))
        },
        StreamSettings {
            per_subject_max: Some(1),
            removable: true,
            ..StreamSettings::record(topology::MEMBERS, &["members.*.*"], share(1, 1))
        },
    ];
    for lane in Lane::ALL {
        let (thousandths, removable) = match lane {
            Lane::Validated | Lane::Geofenced => (90, true),
            Lane::Contributions => (40, true),
            Lane::Allocations | Lane::Audit => (120, false),
        };
        for partition in 0..setup.partitions {
            let subject = lane.subject(partition);
            let record = StreamSettings::record(lane.stream(partition), &[&subject], share(thousandths, p));
            streams.push(StreamSettings { removable, ..record });
        }
    }
    for stream in &mut streams {
        stream.partitions = setup.partitions;
        if let Some(bytes) = asked_bytes(setup, &stream.name) {
            stream.max_bytes = bytes;
        }
    }
    streams.sort_by(|a, b| a.name.cmp(&b.name));
    streams
}

/// What was asked for this stream, by its name or by its kind.
fn asked_bytes(setup: &SetUp, name: &str) -> Option<u64> {
    let kind = name.split('-').next().unwrap_or(name);
    setup.max_bytes.get(name).or_else(|| setup.max_bytes.get(kind)).copied()
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Each stream, sorted by name, and what became of it.
    pub streams: Vec<(String, Done)>,
}

/// What was done to a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// It is new.
    Created,
    /// It was there, and right.
    Unchanged,
    /// It was there; these settings were changed, each with what it was and is.
    Updated(Vec<String>),
}

/// Why the streams are not as they should be.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    /// A number that cannot be.
    #[error("{0}")]
    Settings(String),
    /// The streams were made for another number of partitions.
    #[error("the stream {stream} was made for {has} partitions, not {asked}; the number is fixed: use {has}")]
    Partitions {
        /// Which.
        stream: String,
        /// For how many it was made.
        has: u16,
        /// How many were asked for.
        asked: u16,
    },
    /// There is a stream of that name that would lose data, or is not ours.
    #[error(
        "the stream {stream} has {setting} = {has}, and it must be {must}; nothing was changed: \
         back its data up, then mend it or remove it by hand"
    )]
    WouldLose {
        /// Which.
        stream: String,
        /// The setting, as the broker calls it.
        setting: &'static str,
        /// What it is.
        has: Value,
        /// What it must be.
        must: Value,
    },
    /// It holds more than it is to hold.
    #[error("the stream {stream} holds {holds} bytes already; it cannot be limited to {asked}")]
    TooSmall {
        /// Which.
        stream: String,
        /// What it holds.
        holds: u64,
        /// What was asked for.
        asked: u64,
    },
    /// The server has no room for what the stream may hold.
    #[error(
        "the server has no room for the {max_bytes} bytes of {stream}: {cause}; ask for less, or give it more disk"
    )]
    NoRoom {
        /// Which.
        stream: String,
        /// What it may hold.
        max_bytes: u64,
        /// What the server said.
        #[source]
        cause: Cause,
    },
    /// The server refuses.
    #[error("the server refuses the stream {stream}: {cause}")]
    Refused {
        /// Which.
        stream: String,
        /// What the server said.
        #[source]
        cause: Cause,
    },
    /// The server does not answer.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Creates the streams that are missing, and checks those that are there. Looks at all before it changes any.
/// On a cluster each stream has a leader when this returns.
pub async fn ensure(log: &JetStream, setup: &SetUp) -> Result<Report, SetUpError> {
    ensure_counting(log, setup, &AtomicUsize::new(0)).await
}

/// The same; `done` is how many streams are as they should be, for whoever waits.
pub async fn ensure_counting(
    log: &JetStream,
    setup: &SetUp,
    done: &AtomicUsize,
) -> Result<Report, SetUpError> {
    if !(1..=limits::PARTITIONS_MAX).contains(&setup.partitions) {
        let most = limits::PARTITIONS_MAX;
        return Err(SetUpError::Settings(format!(
            "there are 1 to {most} partitions, not {}",
            setup.partitions
        )));
    }
    if !(1..=5).contains(&setup.replicas) {
        return Err(SetUpError::Settings(format!("there are 1 to 5 replicas, not {}", setup.replicas)));
    }
    let wanted = streams(setup);
    let mut plans = Vec::with_capacity(wanted.len());
    for stream in &wanted {
        let found = read_info(&stream.name, ask(log, info_subject(&stream.name), Bytes::new()).await);
        let plan = match found? {
            Some(info) => compare(stream, setup, info)?,
            None => Plan::Create,
        };
        plans.push(plan);
    }
    let mut report = Report { streams: Vec::with_capacity(wanted.len()) };
    for (stream, plan) in wanted.iter().zip(plans) {
        let became = match plan {
            Plan::Create => {
                create(log, stream, setup.replicas).await?;
                Done::Created
            }
            Plan::Leave => Done::Unchanged,
            Plan::Update { config, changes } => {
                let subject = format!("$JS.API.STREAM.UPDATE.{}", stream.name);
                put(log, stream, subject, &config).await?;
                Done::Updated(changes)
            }
        };
        report.streams.push((stream.name.clone(), became));
        done.store(report.streams.len(), Ordering::Relaxed);
    }
    Ok(report)
}

/// Waits until the servers of a cluster agree on who leads them, and who leads the ingress where it exists.
/// A server alone is asked once.
pub async fn agreed(log: &JetStream) -> Result<(), LogError> {
    let deadline = Instant::now() + AGREED_WITHIN;
    loop {
        let asked = timeout(AGREED_ASK.1, partitions(log)).await;
        match asked.unwrap_or_else(|elapsed| Err(LogError::Unavailable(elapsed.into()))) {
            Err(LogError::Unavailable(_)) if is_clustered(log) && Instant::now() < deadline => {
                sleep(AGREED_ASK.0).await;
            }
            asked => return asked.map(|_| ()),
        }
    }
}

/// Asks the API; again and again while the servers of a cluster have not agreed yet on what is asked for.
async fn ask<T: DeserializeOwned>(log: &JetStream, subject: String, body: Bytes) -> Result<T, AskError> {
    let deadline = Instant::now() + AGREED_WITHIN;
    loop {
        let answer = log.ask(subject.clone(), body.clone()).await;
        let passes = match &answer {
            Err(AskError::Log(LogError::Unavailable(_))) => true,
            Err(AskError::Api(error)) => error.is_passing() || error.err_code == NO_SUITABLE_PEERS,
            _ => false,
        };
        if !passes || !is_clustered(log) || Instant::now() > deadline {
            return answer;
        }
        sleep(AGREED_ASK.0).await;
    }
}

/// Whether the server is one of several.
fn is_clustered(log: &JetStream) -> bool {
    log.client.server_info().cluster.is_some()
}

/// For how many partitions the streams of this server were made; `None` where there are none.
pub async fn partitions(log: &JetStream) -> Result<Option<u16>, LogError> {
    let info = info(log, topology::WAGERS).await?;
    Ok(info.and_then(|info| partitions_of(&info.config)))
}

/// Creates one stream.
pub async fn create(log: &JetStream, stream: &StreamSettings, replicas: u8) -> Result<(), SetUpError> {
    let subject = format!("$JS.API.STREAM.CREATE.{}", stream.name);
    put(log, stream, subject, &config(stream, replicas)).await
}

async fn put(
    log: &JetStream,
    stream: &StreamSettings,
    subject: String,
    config: &Value,
) -> Result<(), SetUpError> {
    let name = || stream.name.clone();
    match ask::<Value>(log, subject, config.to_string().into()).await {
        Ok(_) => Ok(()),
        Err(AskError::Api(error)) if error.err_code == STORAGE_RESOURCES_EXCEEDED => {
            Err(SetUpError::NoRoom { stream: name(), max_bytes: stream.max_bytes, cause: error.into() })
        }
        Err(AskError::Api(error)) if !error.is_passing() => {
            Err(SetUpError::Refused { stream: name(), cause: error.into() })
        }
        Err(error) => Err(error.into_log(&stream.name).into()),
    }
}

fn info_subject(stream: &str) -> String {
    format!("$JS.API.STREAM.INFO.{stream}")
}

async fn info(log: &JetStream, stream: &str) -> Result<Option<StreamInfo>, LogError> {
    read_info(stream, log.ask(info_subject(stream), Bytes::new()).await)
}

fn read_info(stream: &str, asked: Result<StreamInfo, AskError>) -> Result<Option<StreamInfo>, LogError> {
    match asked {
        Ok(info) => Ok(Some(info)),
        Err(AskError::Api(error)) if error.err_code == wire::STREAM_NOT_FOUND => Ok(None),
        Err(error) => Err(error.into_log(stream)),
    }
}

fn partitions_of(config: &Value) -> Option<u16> {
    config["metadata"][PARTITIONS_KEY].as_str()?.parse().ok()
}

/// The whole configuration of a stream.
fn config(stream: &StreamSettings, replicas: u8) -> Value {
    let mut config = json!({
        "name": stream.name,
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "max_bytes": stream.max_bytes,
        "max_msgs": -1,
        "max_age": 0,
        "max_consumers": -1,
        "max_msg_size": -1,
        "num_replicas": replicas,
        "duplicate_window": DUPLICATE_WINDOW,
        "allow_direct": false,
        "metadata": { PARTITIONS_KEY: stream.partitions.to_string() },
    });
    for (setting, must) in musts(stream) {
        config[setting] = must;
    }
    for (setting, must) in mendable(stream) {
        config[setting] = must;
    }
    config
}

/// What cannot be another way without losing data, or reading what is not ours.
fn musts(stream: &StreamSettings) -> Vec<(&'static str, Value)> {
    let transform = stream.transform.map(|t| json!({ "src": t.source(), "dest": t.destination() }));
    vec![
        ("subjects", json!(stream.subjects)),
        ("subject_transform", transform.unwrap_or(Value::Null)),
        ("retention", json!("limits")),
        ("storage", json!("file")),
        ("discard", json!("new")),
        ("max_age", json!(0)),
        ("max_msgs", json!(-1)),
        ("max_msgs_per_subject", stream.per_subject_max.map_or(json!(-1), |max| json!(max))),
    ]
}

/// What can be put right on a stream that exists.
fn mendable(stream: &StreamSettings) -> Vec<(&'static str, Value)> {
    let mut settings = vec![("allow_direct", json!(false))];
    if stream.atomic {
        settings.push(("allow_atomic", json!(true)));
    }
    if !stream.removable {
        settings.push(("deny_delete", json!(true)));
        settings.push(("deny_purge", json!(true)));
    }
    settings
}

enum Plan {
    Create,
    Leave,
    Update { config: Value, changes: Vec<String> },
}

/// What to do about a stream that exists.
fn compare(stream: &StreamSettings, setup: &SetUp, info: StreamInfo) -> Result<Plan, SetUpError> {
    let StreamInfo { mut config, state, .. } = info;
    let name = || stream.name.clone();
    match partitions_of(&config) {
        Some(has) if has != setup.partitions => {
            return Err(SetUpError::Partitions { stream: name(), has, asked: setup.partitions });
        }
        Some(_) => {}
        None => {
            let (setting, has) = ("metadata", config["metadata"].clone());
            let must = json!({ PARTITIONS_KEY: setup.partitions.to_string() });
            return Err(SetUpError::WouldLose { stream: name(), setting, has, must });
        }
    }
    for (setting, must) in musts(stream) {
        let has = config.get(setting).cloned().unwrap_or(Value::Null);
        if has != must {
            return Err(SetUpError::WouldLose { stream: name(), setting, has, must });
        }
    }
    // Acknowledged before it is written at all; only a new stream can be another way.
    if config["persist_mode"] == "async" {
        let (setting, has, must) = ("persist_mode", json!("async"), json!("default"));
        return Err(SetUpError::WouldLose { stream: name(), setting, has, must });
    }
    let mut changes = Vec::new();
    let mut change = |setting: &str, to: Value| {
        let has = config.get(setting).cloned().unwrap_or(json!(false));
        if has != to {
            changes.push(format!("{setting}: {has} → {to}"));
            config[setting] = to;
        }
    };
    for (setting, must) in mendable(stream) {
        change(setting, must);
    }
    if let Some(asked) = asked_bytes(setup, &stream.name) {
        if asked < state.bytes {
            return Err(SetUpError::TooSmall { stream: name(), holds: state.bytes, asked });
        }
        change("max_bytes", json!(asked));
    }
    if info_replicas(&config) < u64::from(setup.replicas) {
        let has = info_replicas(&config);
        changes.push(format!("num_replicas: {has} → {}", setup.replicas));
        config["num_replicas"] = json!(setup.replicas);
    }
    Ok(if changes.is_empty() { Plan::Leave } else { Plan::Update { config, changes } })
}

fn info_replicas(config: &Value) -> u64 {
    config["num_replicas"].as_u64().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stream_is_described_once_and_within_the_budget() {
        for partitions in [1, 4, 64] {
            let setup = SetUp { budget_bytes: 64 << 30, ..SetUp::new(partitions) };
            let all = streams(&setup);
            assert_eq!(all.len(), 10 + 5 * usize::from(partitions));
            assert!(all.windows(2).all(|pair| pair[0].name < pair[1].name), "sorted, no name twice");
            assert!(all.iter().map(|stream| stream.max_bytes).sum::<u64>() <= setup.budget_bytes);
        }
    }

    #[test]
    fn a_stream_is_named_alone_or_by_its_kind() {
        let mut setup = SetUp::new(2);
        setup.max_bytes = [("validated".to_owned(), 20), ("validated-1".to_owned(), 30)].into();
        let bytes = |name: &str| streams(&setup).iter().find(|s| s.name == name).map(|s| s.max_bytes);
        assert_eq!((bytes("validated-0"), bytes("validated-1")), (Some(20), Some(30)));
    }

    #[test]
    fn a_setting_that_would_lose_data_is_refused() {
        let setup = SetUp::new(4);
        let stream = &streams(&setup)[0];
        let state = || super::super::StreamState { messages: 1, bytes: 500, first_seq: 1, last_seq: 1 };
        let check = |setting: &str, value: Value, expect: &str| {
            let mut config = config(stream, 1);
            config[setting] = value;
            let said = match compare(stream, &setup, StreamInfo { config, state: state(), ts: String::new() })
            {
                Ok(Plan::Leave) => "leave".to_owned(),
                Ok(Plan::Update { changes, .. }) => changes.join(", "),
                Ok(Plan::Create) => "create".to_owned(),
                Err(error) => error.to_string(),
            };
            assert!(said.contains(expect), "{said} should say {expect}");
        };
        check("name", json!(stream.name), "leave");
        check("discard", json!("old"), "discard = \"old\"");
        check("max_age", json!(5), "max_age = 5");
        check("storage", json!("memory"), "storage = \"memory\"");
        check("subjects", json!(["x"]), "subjects = [\"x\"]");
        check("metadata", json!({ PARTITIONS_KEY: "8" }), "was made for 8 partitions, not 4");
        check("metadata", Value::Null, "metadata = null");
        check("persist_mode", json!("async"), "persist_mode = \"async\"");
        check("persist_mode", json!("default"), "leave");
        check("deny_purge", json!(false), "deny_purge: false → true");
        check("max_bytes", json!(1), "leave");
    }
}
