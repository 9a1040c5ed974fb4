//! One run of one seed: everything is set up, is busy and in trouble for a while, is healed, and must come to rest; then
//! all processes leave, new ones must find nothing to do, and the auditor reads what is stored.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jackpot_core::frame::Header;
use jackpot_core::keys::Keys;
use jackpot_core::log::Log;
use jackpot_core::log::jetstream::setup::{SetUp, streams};
use jackpot_core::log::memory::Memory;
use jackpot_core::record::Commit;
use jackpot_core::time::Millis;
use jackpot_core::topology::{self, Lane};
use serde_json::Value;
use tokio::time::{Instant, sleep};
use validate::KeyFile;

use crate::auditor::record::{Lost, Record};
use crate::auditor::{self, Counted, Expected, remains};
use crate::chaos::Mischief;
use crate::dice::Dice;
use crate::executor::{Executor, Group, Handle};
use crate::fleet::{Fleet, Share};
use crate::network::Network;
use crate::network::weather::Weather;
use crate::producers::{self, Acknowledged};
use crate::profile::Profile;
use crate::trace::Trace;
use crate::workload::Workload;

/// How long it may take to come to rest when nothing goes wrong any more.
const REST_MAX: Duration = Duration::from_secs(240);
/// Where somebody has stopped, nothing more comes once nothing came for so long.
const STILL: Duration = Duration::from_secs(30);
/// The view of sources is at rest when it has shown nothing for so long.
const QUIET: Duration = Duration::from_secs(4);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(250);

/// What a run left behind. Two runs of a seed must be equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The digest of all that is stored.
    pub digest: [u8; 32],
    /// The fingerprint of every step.
    pub fingerprint: u64,
    /// How many polls there were.
    pub polls: u64,
    /// How much time was simulated.
    pub simulated: Duration,
    /// What the auditor counted; nothing where somebody has stopped.
    pub counted: Counted,
    /// How many parts have stopped, since the broker lost what it had acknowledged.
    pub stopped: usize,
}

/// Runs a seed; `aloud` prints what happens.
///
/// # Panics
/// When anything is not as it must be.
pub fn run(seed: u64, aloud: bool) -> Report {
    let profile = Profile::draw(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without I/O can always be made");
    runtime.block_on(tokio::task::unconstrained(async {
        let trace = Trace::new(aloud);
        trace.say(format_args!("{profile:#?}"));
        let handle = Handle::default();
        let world = World::new(seed, &profile, handle.clone(), trace.clone());
        let executor = Executor::new(handle, Dice::new(seed, "schedule"), trace.clone());
        let (mut report, polls) = executor.run(world.live(seed, profile)).await;
        report.polls = polls;
        report
    }))
}

/// Everything that takes part.
struct World {
    network: Arc<Network>,
    handle: Handle,
    fleet: Rc<RefCell<Fleet>>,
    trace: Trace,
    streams: Vec<String>,
    start: Instant,
    acknowledged: Acknowledged,
    keys: Arc<Mutex<Keys>>,
}

impl World {
    fn new(seed: u64, profile: &Profile, handle: Handle, trace: Trace) -> Self {
        let settings = streams(&SetUp::new(profile.stages.partitions));
        let streams = settings.iter().map(|settings| settings.name.clone()).collect();
        let network = Network::new(settings, Dice::new(seed, "network"), trace.clone());
        handle.spawn(handle.group(), Box::pin(network.clone().carry()));
        let dice = Dice::new(seed, "fleet");
        let keys: Arc<Mutex<Keys>> = Arc::default();
        let fleet = Fleet::new(
            network.clone(),
            handle.clone(),
            profile.stages.clone(),
            KeyFile::shared(keys.clone()),
            dice,
            trace.clone(),
        );
        Self {
            network,
            handle,
            fleet: Rc::new(RefCell::new(fleet)),
            trace,
            streams,
            start: Instant::now(),
            acknowledged: Acknowledged::default(),
            keys,
        }
    }

    async fn live(self, seed: u64, profile: Profile) -> Report {
        let workload = Workload::draw(seed, &profile);
        let revisions: Vec<Value> = workload.revisions.iter().map(|(_, terms)| terms.clone()).collect();
        self.hold_lanes(&profile, profile.lane_bytes).await;
        let outside = self.admit(seed, &profile, workload);
        let mut mischief = Mischief::new(
            self.fleet.clone(),
            self.network.clone(),
            self.streams.clone(),
            Dice::new(seed, "chaos"),
            self.trace.clone(),
            &profile,
        );
        mischief.found(&profile);
        self.network.set_weather(profile.weather);
        mischief.act(profile.chaos, self.start + profile.busy).await;
        self.trace.say(format_args!("all trouble ends"));
        self.network.set_weather(Weather::FAIR);
        self.fleet.borrow_mut().heal(profile.members > 0);
        if profile.lane_bytes < Some(Profile::LANE_BYTES_MIN) {
            self.hold_lanes(&profile, None).await;
        }
        if !self.lost().is_empty() {
            self.apply_again(&profile, &revisions);
        }
        let whole = self.rest(&profile, &outside).await;
        self.leave().await;
        if whole {
            self.witness(&profile).await;
            self.leave().await;
        }
        let record = Record::read(&self.network, &self.streams).await;
        let acknowledged = self.acknowledged.borrow().clone();
        let expected = Expected {
            partitions: profile.stages.partitions,
            seconds: &profile.stages.windows.seconds,
            revisions: &revisions,
            acknowledged: &acknowledged,
            lost: &self.lost(),
        };
        let counted = if whole {
            auditor::audit(&record, &expected)
        } else {
            remains::audit(&record, &expected, &self.fleet.borrow().stopped);
            Counted::default()
        };
        Report {
            digest: record.digest(),
            fingerprint: self.trace.fingerprint(),
            polls: 0,
            simulated: self.start.elapsed(),
            counted,
            stopped: self.fleet.borrow().stopped.len(),
        }
    }

    /// Lets suppliers and the operator in.
    fn admit(&self, seed: u64, profile: &Profile, workload: Workload) -> Vec<Group> {
        let mut outside = Vec::new();
        for (host, planned) in (1..).zip(workload.sources) {
            let group = self.handle.group();
            let dice = Dice::new(seed.wrapping_add(host), "producer");
            let work = producers::publish(
                self.network.join(host),
                planned,
                dice,
                self.acknowledged.clone(),
                self.start,
            );
            self.handle.spawn(group, Box::pin(work));
            outside.push(group);
        }
        let group = self.handle.group();
        let (link, trace) = (self.network.join(500), self.trace.clone());
        let partitions = profile.stages.partitions;
        let work = producers::apply(link, partitions, workload.revisions, trace.clone(), self.start);
        self.handle.spawn(group, Box::pin(work));
        let work = producers::edit_keys(self.keys.clone(), workload.keys, trace, self.start);
        self.handle.spawn(group, Box::pin(work));
        outside.push(group);
        outside
    }

    /// Lets the lanes that are trimmed hold so many bytes, or what they are set up with.
    async fn hold_lanes(&self, profile: &Profile, bytes: Option<u64>) {
        for lane in [Lane::Validated, Lane::Geofenced, Lane::Contributions] {
            for partition in 0..profile.stages.partitions {
                self.network.limit(&lane.stream(partition), bytes).await;
            }
        }
    }

    fn lost(&self) -> Lost {
        Lost::new(self.network.lost())
    }

    /// The operator applies the terms again, since the broker may have lost them.
    fn apply_again(&self, profile: &Profile, revisions: &[Value]) {
        let again = revisions.iter().map(|terms| (Duration::ZERO, terms.clone())).collect();
        let (link, trace) = (self.network.join(501), self.trace.clone());
        let work = producers::apply(link, profile.stages.partitions, again, trace, self.start);
        self.handle.spawn(self.handle.group(), Box::pin(work));
    }

    /// Waits until all that was published is everywhere, and all windows are closed; false where it will not be, since
    /// the broker has lost what it had acknowledged, and somebody has stopped.
    async fn rest(&self, profile: &Profile, outside: &[Group]) -> bool {
        let until = Instant::now() + REST_MAX;
        let (mut lengths, mut still) = (Vec::new(), Instant::now());
        let mut published = false;
        loop {
            self.look();
            if !published && outside.iter().all(|group| self.handle.standing(*group).running == 0) {
                self.trace.say(format_args!("all is published"));
                published = true;
            }
            let what = if !published {
                Some("suppliers and the operator are not done".to_owned())
            } else if self.network.is_busy() {
                Some("something is still on its way".to_owned())
            } else if let Some(what) = unsettled(self.network.broker(), profile).await {
                Some(what)
            } else {
                self.fleet.borrow().undivided().filter(|_| profile.members == 4)
            };
            let Some(what) = what else { break };
            let now = self.lengths().await;
            if std::mem::replace(&mut lengths, now.clone()) != now {
                still = Instant::now();
            }
            if still.elapsed() > STILL && !self.fleet.borrow().stopped.is_empty() {
                self.trace.say(format_args!("somebody has stopped, and nothing goes on: {what}"));
                return false;
            }
            if Instant::now() >= until {
                let report = self.fleet.borrow().report();
                panic!("stuck: after {} s without trouble {what}\n{report}", REST_MAX.as_secs());
            }
            sleep(LOOK).await;
        }
        // What is thinned comes in its own time; how much is to come, nothing in the log says.
        let mut shown = self.end(topology::SOURCES).await;
        let mut since = Instant::now();
        while since.elapsed() < QUIET {
            self.look();
            sleep(LOOK).await;
            let now = self.end(topology::SOURCES).await;
            if std::mem::replace(&mut shown, now) != now {
                since = Instant::now();
            }
            assert!(Instant::now() < until + REST_MAX, "stuck: sources are shown for ever");
        }
        self.trace.say(format_args!("all is at rest"));
        self.fleet.borrow().stopped.is_empty()
    }

    /// The last sequence of a stream.
    async fn end(&self, stream: &str) -> u64 {
        self.network.broker().extent(stream).await.expect("the stream is there").last
    }

    fn look(&self) {
        let mut fleet = self.fleet.borrow_mut();
        fleet.tend();
        if let Some((part, why)) = fleet.stopped.first()
            && self.network.lost().is_empty()
        {
            panic!("{part} stopped, and nothing contradicts anything: {why}");
        }
    }

    /// Tells all processes to leave, and waits until they have.
    async fn leave(&self) {
        self.fleet.borrow_mut().drain_all();
        loop {
            self.look();
            if self.fleet.borrow().is_still() {
                return;
            }
            sleep(LOOK).await;
        }
    }

    /// New processes over the whole record find nothing to do, and nothing that is not as they would have made it.
    async fn witness(&self, profile: &Profile) {
        let before = self.lengths().await;
        let all = Share::Only((0..profile.stages.partitions).collect());
        for stage in crate::stages::ALL {
            let mut fleet = self.fleet.borrow_mut();
            let share = if profile.members > 0 { fleet.member(false) } else { all.clone() };
            fleet.open(stage, share);
        }
        let until = Instant::now() + Duration::from_secs(8);
        while Instant::now() < until {
            self.look();
            sleep(LOOK).await;
        }
        for (before, after) in before.into_iter().zip(self.lengths().await) {
            assert_eq!(after, before, "new processes find nothing to do");
        }
    }

    /// The lengths of all streams but `commits` and `members`, which have heartbeats, and `snapshots`, which are taken of
    /// the former.
    async fn lengths(&self) -> Vec<(String, u64)> {
        let mut lengths = Vec::new();
        let grows =
            |stream: &str| [topology::COMMITS, topology::SNAPSHOTS, topology::MEMBERS].contains(&stream);
        for stream in self.streams.iter().filter(|stream| !grows(stream)) {
            lengths.push((stream.clone(), self.end(stream).await));
        }
        lengths
    }
}

/// What is not yet done of what was published; `None` when all is.
async fn unsettled(broker: &Memory, profile: &Profile) -> Option<String> {
    let last =
        async |stream: &str, filter: &str| broker.last(stream, filter).await.expect("the stream is there");
    let end = async |stream: &str| broker.extent(stream).await.expect("the stream is there").last;
    let commit = last(topology::COMMITS, topology::COMMITS).await;
    let Some(commit) = commit else { return Some("there is no commit".into()) };
    let commit: Commit = serde_json::from_slice(&commit.payload).expect("a commit is JSON");
    let longest = profile.stages.windows.seconds.iter().max().expect("there are windows");
    // Wagers may lie five seconds ahead of the clock, which may have been set back since; and a new level's base is in a
    // window that was open when the ledger first ran its revision.
    let changed = broker.get(topology::COMMITS, commit.counts.changed).await.expect("the stream is there");
    let changed =
        changed.map(|entry| serde_json::from_slice::<Commit>(&entry.payload).expect("a commit is JSON"));
    let opened = changed.into_iter().flat_map(|commit| commit.partitions).filter_map(|of| of.watermark).max();
    let at = latest(broker).await.max(opened.unwrap_or(Millis(0)));
    let closed = at.plus(i64::from(*longest) * 1_000 + 6_000);
    for (partition, consumed) in (0..).zip(&commit.partitions) {
        let newest = last(topology::WAGERS, &topology::batches_filter(partition)).await;
        let newest = newest.map_or(0, |entry| entry.sequence);
        let spine = last(&Lane::Validated.stream(partition), &Lane::Validated.subject(partition)).await;
        let read = spine
            .as_ref()
            .map(|entry| Header::peek_any(&entry.payload).expect("a frame").ingress.position)
            .unwrap_or(0);
        if read < newest {
            return Some(format!("the spine of partition {partition} has read {read} of {newest}"));
        }
        let frames = spine.map_or(0, |entry| entry.sequence);
        for lane in Lane::ALL {
            let length = end(&lane.stream(partition)).await;
            if length != frames {
                return Some(format!("{} has {length} frames of {frames}", lane.stream(partition)));
            }
        }
        if consumed.frame != frames {
            return Some(format!(
                "the ledger has consumed {} frames of {frames} of partition {partition}",
                consumed.frame
            ));
        }
        if consumed.watermark.is_none_or(|watermark| watermark < closed) {
            return Some(format!(
                "the watermark of partition {partition} is {:?}, not {closed}",
                consumed.watermark
            ));
        }
    }
    if commit.terms < profile.revisions {
        return Some(format!("the ledger runs revision {} of {}", commit.terms, profile.revisions));
    }
    let (windows, hits) = (end(topology::WINDOWS).await, end(topology::HITS).await);
    if (windows, hits) != (commit.counts.windows, commit.counts.hits) || !commit.windows.is_empty() {
        return Some(format!("views show {windows} windows and {hits} hits of {:?}", commit.counts));
    }
    let shown = last(topology::TOTALS, "totals.>").await.as_ref().map_or(0, topology::settled);
    (shown < commit.counts.changed)
        .then(|| format!("totals show commit {shown} of {}", commit.counts.changed))
}

/// The latest time at which the broker received a batch or a marker.
async fn latest(broker: &Memory) -> Millis {
    let extent = broker.extent(topology::WAGERS).await.expect("the stream is there");
    let mut latest = Millis(0);
    for sequence in extent.first..=extent.last {
        let entry = broker.get(topology::WAGERS, sequence).await.expect("the stream is there");
        latest = latest.max(entry.map_or(Millis(0), |entry| entry.recorded_at));
    }
    latest
}
