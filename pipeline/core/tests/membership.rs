//! Who runs what: the division of partitions as a function, members who hear of each other late, and processes over a
//! log in memory that join, leave, are killed, or sleep and wake up believing that nothing has changed.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use jackpot_core::log::jetstream::setup::{SetUp, StreamSettings, streams};
use jackpot_core::log::memory::Memory;
use jackpot_core::log::{Append, Appender, Entry, Expect, Log, Reader};
use jackpot_core::membership::seat::State;
use jackpot_core::membership::{Hold, Order, Said, Seat, Sharing, assign};
use jackpot_core::recovery::Trouble;
use jackpot_core::refusal::StageName;
use jackpot_core::runner::{Context, Name, Part, Standing, drive};
use jackpot_core::stage::Contradiction;
use jackpot_core::time::{Clock, Millis};
use jackpot_core::topology::{self, Lane};
use proptest::prelude::*;
use tokio::sync::watch;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, timeout};

// The division.

type Members = BTreeMap<String, Said>;

fn divide(members: &Members, partitions: u16) -> BTreeMap<String, Vec<u16>> {
    assign(&members.iter().map(|(id, said)| (id.as_str(), said)).collect(), partitions)
}

fn said(holds: impl IntoIterator<Item = (u16, u64)>, cannot: impl IntoIterator<Item = u16>) -> Said {
    let holds = holds.into_iter().map(|(partition, since)| (partition, Hold { since, ready: true }));
    Said { holds: holds.collect(), cannot: cannot.into_iter().collect(), ..Said::default() }
}

/// Members who have said whatever it may be.
fn members(cannot: bool) -> impl Strategy<Value = Members> {
    let numbers = || prop::collection::btree_set(0..64_u16, 0..24);
    let holds = prop::collection::btree_map(0..64_u16, 0..4_u64, 0..24);
    let one = (holds, numbers())
        .prop_map(move |(holds, stopped)| said(holds, if cannot { stopped } else { BTreeSet::new() }));
    prop::collection::btree_map("[a-f]{1,3}-[0-9]{1,4}", one, 1..9)
}

/// Members who hold what was divided among them.
fn settled(count: usize, partitions: u16) -> Members {
    let mut members: Members = (0..count).map(|n| (format!("m{n}"), Said::default())).collect();
    for (id, share) in divide(&members, partitions) {
        members.insert(id, said(share.into_iter().map(|partition| (partition, 1)), []));
    }
    members
}

fn owners(shares: &BTreeMap<String, Vec<u16>>) -> BTreeMap<u16, &str> {
    shares
        .iter()
        .flat_map(|(id, share)| share.iter().map(move |&partition| (partition, id.as_str())))
        .collect()
}

fn most_and_least(shares: &BTreeMap<String, Vec<u16>>) -> (usize, usize) {
    let loads = || shares.values().map(Vec::len);
    (loads().max().unwrap_or(0), loads().min().unwrap_or(0))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn every_partition_has_one_owner_and_loads_are_even(members in members(false), partitions in 1..=64_u16) {
        let shares = divide(&members, partitions);
        prop_assert_eq!(shares.values().map(Vec::len).sum::<usize>(), usize::from(partitions));
        prop_assert_eq!(owners(&shares).len(), usize::from(partitions));
        let (most, least) = most_and_least(&shares);
        prop_assert!(most - least <= 1, "{:?}", shares);
    }

    #[test]
    fn who_cannot_does_not_where_anybody_can(members in members(true), partitions in 1..=64_u16) {
        let shares = divide(&members, partitions);
        let all = owners(&shares);
        prop_assert_eq!(all.len(), usize::from(partitions));
        let can = |id: &str, partition: u16| !members[id].cannot.contains(&partition);
        for (&partition, owner) in &all {
            prop_assert!(can(owner, partition) || !members.keys().any(|id| can(id, partition)), "{}", partition);
            for (other, share) in &shares {
                let uneven = shares[*owner].len() >= share.len() + 2;
                prop_assert!(!(uneven && can(other, partition)), "{} could go to {}: {:?}", partition, other, shares);
            }
        }
    }

    #[test]
    fn a_join_moves_the_least_and_to_the_newcomer_alone(count in 1..9_usize, partitions in 1..=64_u16) {
        let mut members = settled(count, partitions);
        let before = divide(&members, partitions);
        members.insert("newcomer".into(), Said::default());
        let after = divide(&members, partitions);
        let (before, moved) = (owners(&before), owners(&after));
        let moved: Vec<_> = moved.iter().filter(|(partition, owner)| before[partition] != **owner).collect();
        prop_assert!(moved.iter().all(|(_, owner)| **owner == "newcomer"));
        prop_assert_eq!(moved.len(), usize::from(partitions) / (count + 1));
    }

    #[test]
    fn a_leave_moves_what_the_leaver_had_alone(count in 2..9_usize, partitions in 1..=64_u16, leaver in 0..9_usize) {
        let mut members = settled(count, partitions);
        let before = divide(&members, partitions);
        let leaver = format!("m{}", leaver % count);
        members.remove(&leaver);
        let after = divide(&members, partitions);
        let (before, after) = (owners(&before), owners(&after));
        prop_assert!(after.iter().all(|(partition, owner)| before[partition] == *owner || before[partition] == leaver));
    }

    /// Members hear what is said late, each as late as it likes, get ready when they like, and say what they do when
    /// they like: in the end each partition is at one of them, they have equal shares, and it did not take long. At no
    /// time has a partition nobody at work that had one before.
    #[test]
    fn members_who_hear_late_agree(
        count in 1..6_usize, partitions in 1..=16_u16, late in 0..3_usize,
        schedule in prop::collection::vec((0..9_usize, 0..4_u8), 60..400),
    ) {
        let mut meeting = Meeting::new(count, late, partitions);
        for (who, what) in schedule {
            meeting.step(who % (count + late), what);
            meeting.check()?;
        }
        for round in 0.. {
            let before = meeting.starts;
            for who in 0..count + late {
                (0..4).for_each(|what| meeting.step(who, what));
                meeting.check()?;
            }
            if meeting.starts == before && meeting.is_settled() {
                break;
            }
            prop_assert!(round < 30, "it does not settle: {:?}", meeting.seats.iter().map(Seat::said).collect::<Vec<_>>());
        }
    }
}

/// Seats around a stream, without any process.
struct Meeting {
    seats: Vec<Seat>,
    stream: Vec<Entry>,
    heard: Vec<usize>,
    worked: BTreeSet<u16>,
    partitions: u16,
    starts: usize,
}

impl Meeting {
    fn new(count: usize, late: usize, partitions: u16) -> Self {
        let seats: Vec<_> =
            (0..count + late).map(|n| Seat::new(&format!("m{n}"), n as u64, partitions)).collect();
        let (stream, worked) = Default::default();
        let mut meeting = Self { heard: vec![0; seats.len()], seats, stream, worked, partitions, starts: 0 };
        (0..count).for_each(|who| meeting.step(who, 3));
        meeting
    }

    fn step(&mut self, who: usize, what: u8) {
        let seat = &mut self.seats[who];
        match what {
            0 => {
                if let Some(entry) = self.stream.get(self.heard[who]) {
                    self.heard[who] += 1;
                    seat.hear(entry);
                }
            }
            1 => {
                for order in seat.orders(Instant::now()) {
                    match order {
                        Order::Start(partition) => {
                            self.starts += 1;
                            seat.started(partition);
                        }
                        Order::Stop(partition) => seat.stopped(partition, Instant::now()),
                    }
                }
            }
            2 => {
                let held: Vec<_> = seat.said().holds.into_keys().collect();
                self.worked.extend(&held);
                held.into_iter().for_each(|partition| seat.look(partition, State::Ready));
            }
            _ => {
                let sequence = self.stream.len() as u64 + 1;
                let subject = topology::member(StageName::Geofence, seat.id()).into();
                let payload = serde_json::to_vec(&seat.said()).expect("plain data").into();
                let (recorded_at, headers) = (Millis(1_000), Vec::new());
                self.stream.push(Entry { sequence, subject, recorded_at, headers, payload });
                while let Some(entry) = self.stream.get(self.heard[who]) {
                    self.heard[who] += 1;
                    self.seats[who].hear(entry);
                }
            }
        }
    }

    fn at(&self, partition: u16, fits: impl Fn(&Hold) -> bool) -> usize {
        self.seats.iter().filter(|seat| seat.said().holds.get(&partition).is_some_and(&fits)).count()
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for &partition in &self.worked {
            prop_assert!(self.at(partition, |hold| hold.ready) > 0, "nobody is at work on {}", partition);
        }
        Ok(())
    }

    fn is_settled(&self) -> bool {
        let loads: Vec<_> = self.seats.iter().map(Seat::held).collect();
        let even = loads.iter().max().unwrap_or(&0) - loads.iter().min().unwrap_or(&0) <= 1;
        even && (0..self.partitions).all(|partition| self.at(partition, |_| true) == 1)
    }
}

#[test]
fn of_two_of_one_name_the_later_keeps_it() {
    let mut meeting = Meeting::new(1, 1, 2);
    meeting.seats[1] = Seat::new("m0", 7, 2);
    meeting.step(1, 3);
    meeting.step(0, 0);
    assert_eq!((meeting.seats[0].id(), meeting.seats[1].id()), ("m0-0", "m0"));
    for _ in 0..4 {
        (0..2).for_each(|who| (0..4).for_each(|what| meeting.step(who, what)));
    }
    assert!(meeting.is_settled());
}

// Processes over a log in memory, in a time that passes only when everybody waits.

const PARTITIONS: u16 = 4;
/// How often each partition's work is due.
const WORK: Duration = Duration::from_millis(10);
/// How long it takes to get ready.
const GETTING_READY: Duration = Duration::from_millis(300);

/// Work on a partition: a message is appended every 10 ms, by whoever is at it.
struct Work {
    context: Context<Memory>,
    name: Name,
    partition: u16,
    last: u64,
    prepared: bool,
    /// Whether it finds something here that must stop it.
    ill: Rc<Cell<Option<u16>>>,
}

impl Work {
    async fn append(&mut self) -> Result<(), Trouble> {
        let mut appender = self.context.log.appender().await?;
        let (subject, expect) = (Lane::Geofenced.subject(self.partition), Expect::Last(self.last));
        appender.send(Append { subject, headers: Vec::new(), payload: "work".into(), expect }).await?;
        self.last = appender.acknowledged().await?;
        Ok(())
    }
}

impl Part for Work {
    fn name(&self) -> &Name {
        &self.name
    }

    fn progress(&self) -> u64 {
        self.last
    }

    async fn pass(&mut self) -> Result<(), Trouble> {
        if !std::mem::replace(&mut self.prepared, true) {
            sleep(GETTING_READY).await;
        }
        self.last = self.context.log.extent(&Lane::Geofenced.stream(self.partition)).await?.last;
        if self.ill.get() == Some(self.partition) {
            return Err(Contradiction("look".into()).into());
        }
        self.context.working(&self.name);
        loop {
            self.context.pause(WORK).await;
            if self.context.stopping() {
                return Ok(());
            }
            self.append().await?;
        }
    }

    async fn standing(&mut self) -> Result<Standing, Trouble> {
        let output = self.context.log.extent(&Lane::Geofenced.stream(self.partition)).await?.last;
        Ok(Standing { output, waiting: true })
    }
}

/// A process: alone with its tasks, so that it can be held as a whole, and told to stop.
struct Process {
    held: Rc<Cell<bool>>,
    ill: Rc<Cell<Option<u16>>>,
    stop: watch::Sender<bool>,
    context: Context<Memory>,
    run: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl Process {
    fn new(log: &Memory, id: &str) -> Self {
        let (stop, shutdown) = watch::channel(false);
        let context = Context {
            snapshot_bytes: 1,
            seed: id.bytes().map(u64::from).sum(),
            clock: Clock::new(|| Millis(0)),
            ..Context::new(log.clone(), StageName::Geofence, shutdown)
        };
        let ill = Rc::new(Cell::new(None));
        let found = ill.clone();
        let part = move |context: &Context<Memory>,
                         partition: u16|
              -> jackpot_core::membership::runner::Running {
            let context = context.clone();
            let (name, ill) = (Name::partition(partition), found.clone());
            Box::pin(async move {
                let work = Work { context: context.clone(), name, partition, last: 0, prepared: false, ill };
                drive(&context, work).await;
            })
        };
        let sharing = Sharing::new(context.clone(), StageName::Geofence, id, 1, PARTITIONS, part);
        let tasks = LocalSet::new();
        tasks.spawn_local(sharing.run());
        let held = Rc::new(Cell::new(false));
        let asleep = held.clone();
        let run = async move {
            let mut tasks = pin!(tasks);
            // One that is held is asked again and again, since nothing of its own may wake it.
            poll_fn(|cx| if asleep.get() { Poll::Pending } else { tasks.as_mut().poll(cx) }).await;
        };
        Self { held, ill, stop, context, run: Some(Box::pin(run)) }
    }

    fn owned(&self) -> usize {
        let text = self.context.metrics.render();
        let line = text.lines().find(|line| line.starts_with("jackpot_owned_partitions{")).expect("a gauge");
        line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
    }
}

/// Lets time pass for all processes.
async fn pass(processes: &mut [Process], time: Duration) {
    let until = Instant::now() + time;
    let mut step = Box::pin(sleep(Duration::from_millis(1)));
    poll_fn(|cx| {
        while step.as_mut().poll(cx).is_ready() {
            if Instant::now() >= until {
                return Poll::Ready(());
            }
            step = Box::pin(sleep(Duration::from_millis(1)));
        }
        for process in &mut *processes {
            if process.run.as_mut().is_some_and(|run| run.as_mut().poll(cx).is_ready()) {
                process.run = None;
            }
        }
        Poll::Pending
    })
    .await;
}

fn log() -> (Memory, Instant) {
    let begun = Instant::now();
    let now = move || Millis(i64::try_from(begun.elapsed().as_millis()).expect("a short test"));
    (Memory::new(streams(&SetUp::new(PARTITIONS)), now), begun)
}

/// The longest time without work on a partition from `from` on.
async fn longest_pause(log: &Memory, from: i64) -> Duration {
    let mut longest = 0;
    for partition in 0..PARTITIONS {
        let mut reader = log.read(&Lane::Geofenced.stream(partition), None, 1).await.expect("it opens");
        let mut before = from;
        while let Ok(Ok(entry)) = timeout(Duration::ZERO, reader.next()).await {
            if entry.recorded_at.0 > from {
                longest = longest.max(entry.recorded_at.0 - before);
                before = entry.recorded_at.0;
            }
        }
    }
    Duration::from_millis(longest.unsigned_abs())
}

fn millis(begun: Instant) -> i64 {
    i64::try_from(begun.elapsed().as_millis()).expect("a short test")
}

fn loads(processes: &[Process]) -> Vec<usize> {
    processes.iter().map(Process::owned).collect()
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_process_that_joins_takes_its_share_without_a_pause() {
    let (log, begun) = log();
    let mut processes = vec![Process::new(&log, "a")];
    pass(&mut processes, SECOND).await;
    assert_eq!(loads(&processes), [4]);
    let from = millis(begun);
    processes.push(Process::new(&log, "b"));
    pass(&mut processes, 2 * SECOND).await;
    assert_eq!(loads(&processes), [2, 2]);
    processes.push(Process::new(&log, "c"));
    pass(&mut processes, 2 * SECOND).await;
    assert_eq!(loads(&processes).iter().sum::<usize>(), 4);
    assert!(loads(&processes).iter().all(|&load| load > 0));
    assert!(longest_pause(&log, from).await < Duration::from_millis(200));
    assert!(processes.iter().all(|process| process.context.health.ready().is_ok()));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_leaves_hands_over_without_a_pause() {
    let (log, begun) = log();
    let mut processes = vec![Process::new(&log, "a"), Process::new(&log, "b")];
    pass(&mut processes, 2 * SECOND).await;
    assert_eq!(loads(&processes), [2, 2]);
    let from = millis(begun);
    processes[0].stop.send_replace(true);
    pass(&mut processes, SECOND).await;
    assert!(processes[0].run.is_none(), "it has gone");
    assert_eq!(loads(&processes), [0, 4]);
    pass(&mut processes, SECOND).await;
    let pause = longest_pause(&log, from).await;
    assert!(pause < Duration::from_millis(200), "{pause:?}");
    // The last one has nobody to wait for.
    processes[1].stop.send_replace(true);
    pass(&mut processes, Duration::from_millis(100)).await;
    assert!(processes[1].run.is_none());
    // It has said so: whoever comes next does not wait for it.
    processes.push(Process::new(&log, "c"));
    pass(&mut processes, SECOND).await;
    assert_eq!(processes[2].owned(), 4);
}

#[tokio::test(start_paused = true)]
async fn what_a_killed_process_ran_is_run_by_others_soon() {
    let (log, begun) = log();
    let mut processes = vec![Process::new(&log, "a"), Process::new(&log, "b")];
    pass(&mut processes, 2 * SECOND).await;
    let from = millis(begun);
    drop(processes.remove(0));
    pass(&mut processes, 8 * SECOND).await;
    assert_eq!(loads(&processes), [4]);
    let pause = longest_pause(&log, from).await;
    assert!(pause > 4 * SECOND && pause < 7 * SECOND, "{pause:?}");
    // One that is started again in the same place is known by its name: nobody waits for the dead one.
    let from = millis(begun);
    drop(processes.remove(0));
    processes.push(Process::new(&log, "b"));
    pass(&mut processes, 2 * SECOND).await;
    assert_eq!(loads(&processes), [4]);
    assert!(longest_pause(&log, from).await < SECOND);
    // Those who are gone are forgotten.
    pass(&mut processes, 130 * SECOND).await;
    let of = async |id: &str| {
        log.last(topology::MEMBERS, &topology::member(StageName::Geofence, id)).await.expect("it answers")
    };
    assert!(of("a").await.is_none() && of("b").await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_process_that_wakes_up_lets_go() {
    let (log, begun) = log();
    let mut processes = vec![Process::new(&log, "a"), Process::new(&log, "b")];
    pass(&mut processes, 2 * SECOND).await;
    let from = millis(begun);
    processes[0].held.set(true);
    pass(&mut processes, 15 * SECOND).await;
    assert_eq!(loads(&processes), [2, 4]);
    assert!(longest_pause(&log, from).await < 7 * SECOND);
    let from = millis(begun);
    processes[0].held.set(false);
    pass(&mut processes, 3 * SECOND).await;
    assert_eq!(loads(&processes), [2, 2], "it is one of them again");
    assert!(longest_pause(&log, from).await < Duration::from_millis(200));
}

#[tokio::test(start_paused = true)]
async fn what_stopped_here_goes_on_elsewhere_if_it_can() {
    let (log, _) = log();
    let mut processes = vec![Process::new(&log, "a")];
    processes[0].ill.set(Some(2));
    pass(&mut processes, 2 * SECOND).await;
    let ready = |process: &Process| process.context.health.ready();
    assert_eq!(ready(&processes[0]), Err("partition 2 stopped: look".into()), "there is nobody else");
    processes.push(Process::new(&log, "b"));
    pass(&mut processes, 2 * SECOND).await;
    assert!(processes.iter().all(|process| ready(process).is_ok()));
    assert_eq!(loads(&processes), [2, 2]);
    assert!(processes[1].context.health.parts().iter().any(|(part, _)| part == "partition 2"));
    // Nobody can: then it stays where it is, and that is said once.
    processes[1].ill.set(Some(2));
    let mut appender = log.appender().await.expect("it opens");
    let (subject, payload) = (Lane::Geofenced.subject(2), "other work".into());
    appender
        .send(Append { subject, headers: Vec::new(), payload, expect: Expect::Any })
        .await
        .expect("it is sent");
    pass(&mut processes, 10 * SECOND).await;
    let said: Vec<_> = processes.iter().filter_map(|process| ready(process).err()).collect();
    assert_eq!(said, ["partition 2 stopped: look"]);
    let stopped = |process: &Process| {
        process
            .context
            .metrics
            .render()
            .contains("jackpot_partition_stopped{partition=\"2\",stage=\"geofence\"} 1")
    };
    assert_eq!(processes.iter().filter(|process| stopped(process)).count(), 1);
    assert_eq!(loads(&processes), [2, 2]);
}

#[tokio::test(start_paused = true)]
async fn work_goes_on_while_nobody_can_say_anything() {
    let (log, begun) = log();
    let mut processes = vec![Process::new(&log, "a"), Process::new(&log, "b")];
    pass(&mut processes, 2 * SECOND).await;
    let from = millis(begun);
    let settings = |subjects| StreamSettings {
        per_subject_max: Some(1),
        ..StreamSettings::record(topology::MEMBERS, subjects, 1 << 24)
    };
    log.create(settings(&["elsewhere"]));
    pass(&mut processes, 60 * SECOND).await;
    assert_eq!(loads(&processes), [2, 2]);
    assert!(processes.iter().all(|process| process.context.health.ready().is_err()), "it is said");
    log.create(settings(&["members.*.*"]));
    pass(&mut processes, 5 * SECOND).await;
    assert_eq!(loads(&processes), [2, 2]);
    assert!(processes.iter().all(|process| process.context.health.ready().is_ok()));
    assert!(longest_pause(&log, from).await < Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn who_never_learns_of_others_runs_everything() {
    let begun = Instant::now();
    let now = move || Millis(millis(begun));
    let all = streams(&SetUp::new(PARTITIONS));
    let members = all.iter().find(|stream| stream.name == topology::MEMBERS).expect("there is one").clone();
    let log = Memory::new(all.into_iter().filter(|stream| stream.name != topology::MEMBERS), now);
    let mut processes = vec![Process::new(&log, "a"), Process::new(&log, "b")];
    pass(&mut processes, 15 * SECOND).await;
    assert_eq!(loads(&processes), [4, 4]);
    let from = millis(begun);
    pass(&mut processes, 60 * SECOND).await;
    assert!(longest_pause(&log, from).await < 3 * SECOND, "two owners do not hinder each other for long");
    let fenced = |process: &Process| {
        let text = process.context.metrics.render();
        let line = text.lines().find(|line| line.contains("cause=\"fenced\"")).expect("a counter").to_owned();
        line.rsplit(' ').next().and_then(|value| value.parse::<u64>().ok()).expect("a number")
    };
    let contests: u64 = processes.iter().map(fenced).sum();
    assert!(contests < 4 * 75 * 4, "nor contend all the time: {contests}");
    log.create(members);
    pass(&mut processes, 5 * SECOND).await;
    assert_eq!(loads(&processes), [2, 2]);
}
