//! The timely dataflow (design, section 5): entries are exchanged by pool over the worker threads, each worker's
//! operator holds its pools' ledgers, and the timestamp is the number of the commit.
//! [`crate::books`] hands in all of a commit at once and gets back all that it did, once the frontier has passed.
//! One worker runs in the caller's thread, so that a commit is handed over to nobody; more run in threads of their own.
//! The order in which records arrive never matters: a commit is sorted into log order before it is folded.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use timely::WorkerConfig;
use timely::communication::allocator::thread::Thread;
use timely::communication::{Allocator, WorkerGuards};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::{Capability, Input, Probe};
use timely::dataflow::{InputHandle, ProbeHandle};
use timely::worker::Worker;

use crate::ledger::{Outcome, PoolLedger};
use crate::postings::{Entry, PoolTerms, Task, Turn};

/// How long a worker parks at most while a commit is under way; it is woken when another one has something.
const PARK_MAX: Duration = Duration::from_millis(1);
/// Worker threads at most: more than cores never helps, and a machine has fewer.
pub const WORKERS_MAX: usize = 64;

/// Why the dataflow did not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// None, or too many.
    #[error("give 1 to {WORKERS_MAX} workers, not {0}")]
    Workers(usize),
    /// The system gave no threads.
    #[error("the worker threads did not start: {0}")]
    Threads(Box<str>),
}

/// The entries of a commit.
struct Job {
    commit: u64,
    entries: Vec<Entry>,
}

/// The running workers. Dropping it stops them.
pub struct Dataflow {
    crew: Crew,
    workers: u64,
    shelf: Shelf,
}

/// Who works.
enum Crew {
    /// The one worker, in the caller's thread.
    Lone(Box<Lone>),
    /// Several, each in a thread of its own.
    Threads(Threads),
}

/// The one worker, in the caller's thread.
struct Lone {
    worker: Worker,
    /// `None` once it is being dropped: nothing more is to come then.
    ports: Option<Ports>,
}

/// Workers in threads of their own.
struct Threads {
    // The order of the fields is that of dropping: the first worker ends with its jobs, then all are joined.
    jobs: SyncSender<Job>,
    done: Receiver<Vec<Outcome>>,
    _guards: WorkerGuards<()>,
}

/// The state of pools at the end of a commit, by number.
pub type Pools = BTreeMap<u32, PoolLedger>;

/// Where workers put copies of their pools.
type Shelf = Arc<Mutex<Pools>>;

impl Dataflow {
    /// Starts `workers` of them. `seconds` are the windows' lengths, `pools` what the ledgers begin with, each with
    /// the route of its entries.
    pub fn start(workers: usize, seconds: &[u32], pools: Vec<(u64, PoolLedger)>) -> Result<Self, StartError> {
        if !(1..=WORKERS_MAX).contains(&workers) {
            return Err(StartError::Workers(workers));
        }
        let shelf = Shelf::default();
        let start = Start { seconds: seconds.into(), pools, shelf: shelf.clone() };
        let crew = match workers {
            1 => Crew::Lone(Box::new(Lone::new(&start))),
            more => Crew::Threads(Threads::start(more, start)?),
        };
        Ok(Self { crew, workers: number(workers), shelf })
    }

    /// Runs one commit to its end: what it did, worker by worker; and, where `keep` says so, the pools as they were
    /// before it.
    ///
    /// # Panics
    /// When a worker has died, of a broken invariant; its own message says which.
    pub fn run(
        &mut self,
        commit: u64,
        turn: Turn,
        entries: Vec<Entry>,
        keep: bool,
    ) -> (Vec<Outcome>, Option<Pools>) {
        let outcomes = self.fold(commit, Turn { keep, ..turn }, entries);
        let shelved = || std::mem::take(&mut *self.shelf.lock().unwrap_or_else(PoisonError::into_inner));
        (outcomes, keep.then(shelved))
    }

    fn fold(&mut self, commit: u64, turn: Turn, mut entries: Vec<Entry>) -> Vec<Outcome> {
        entries.extend((0..self.workers).map(|route| Entry { route, task: Task::Turn(turn) }));
        let job = Job { commit, entries };
        match &mut self.crew {
            Crew::Lone(lone) => lone.fold(job),
            Crew::Threads(threads) => threads.fold(job),
        }
    }
}

impl Lone {
    fn new(start: &Start) -> Self {
        // Without the time of a start it neither measures nor parks.
        let mut worker = Worker::new(WorkerConfig::default(), Allocator::Thread(Thread::default()), None);
        let ledger = start.ledger(0, 1);
        let ports = Some(Ports::build(&mut worker, ledger));
        Self { worker, ports }
    }

    fn fold(&mut self, job: Job) -> Vec<Outcome> {
        let ports = self.ports.as_mut().expect("the worker works until it is dropped");
        let worker = &mut self.worker;
        ports.fold(job, || {
            worker.step();
        })
    }
}

impl Drop for Lone {
    fn drop(&mut self) {
        self.ports = None;
        // After a broken invariant the operators are in no state to be run to their end.
        while !std::thread::panicking() && self.worker.step() {}
    }
}

impl Threads {
    fn start(workers: usize, start: Start) -> Result<Self, StartError> {
        let (jobs, received) = sync_channel(1);
        let (finished, done) = channel();
        let desk = Mutex::new(Some((received, finished)));
        let communication = timely::CommunicationConfig::Process(workers);
        let config = timely::Config { communication, worker: WorkerConfig::default() };
        let guards = timely::execute(config, move |worker| {
            let first = worker.index() == 0;
            let desk = desk.lock().expect("nobody panics holding the desk").take_if(|_| first);
            let ledger = start.ledger(number(worker.index()), number(worker.peers()));
            work(worker, ledger, desk);
        })
        .map_err(|error| StartError::Threads(error.into()))?;
        Ok(Self { jobs, done, _guards: guards })
    }

    fn fold(&mut self, job: Job) -> Vec<Outcome> {
        self.jobs.send(job).expect("the ledger's first worker lives as long as the books");
        self.done.recv().expect("the ledger's first worker answers every commit")
    }
}

/// What the workers begin with.
struct Start {
    seconds: Box<[u32]>,
    pools: Vec<(u64, PoolLedger)>,
    shelf: Shelf,
}

impl Start {
    /// The share of one of so many workers.
    fn ledger(&self, index: u64, workers: u64) -> Ledger {
        let own = self.pools.iter().filter(|(route, _)| route % workers == index);
        let pools = own.map(|(_, pool)| (pool.number(), pool.clone())).collect();
        Ledger { seconds: self.seconds.clone(), pools, shelf: self.shelf.clone() }
    }
}

/// The life of a worker's thread. The first one works off the desk; the others only do their share of the dataflow.
fn work(worker: &mut Worker, ledger: Ledger, desk: Option<(Receiver<Job>, Sender<Vec<Outcome>>)>) {
    let mut ports = Ports::build(worker, ledger);
    let Some((jobs, done)) = desk else { return };
    while let Ok(job) = jobs.recv() {
        let outcomes = ports.fold(job, || {
            worker.step_or_park(Some(PARK_MAX));
        });
        if done.send(outcomes).is_err() {
            return;
        }
    }
}

type Entries = InputHandle<u64, CapacityContainerBuilder<Vec<Entry>>>;
/// What the collecting operator sends on; there is only its progress to see.
type Nothing = CapacityContainerBuilder<Vec<()>>;

/// The ends of a dataflow: where a commit goes in, when it is done, and what it did.
struct Ports {
    input: Entries,
    probe: ProbeHandle<u64>,
    outcomes: Rc<RefCell<Vec<Outcome>>>,
}

impl Ports {
    /// Runs a commit to its end; `step` lets the worker do some of it.
    fn fold(&mut self, Job { commit, mut entries }: Job, mut step: impl FnMut()) -> Vec<Outcome> {
        self.input.advance_to(commit);
        self.input.send_batch(&mut entries);
        self.input.advance_to(commit + 1);
        self.input.flush();
        while self.probe.less_than(&(commit + 1)) {
            step();
        }
        self.outcomes.take()
    }

    /// The dataflow: entries to their pools' worker, what it did to the first worker, and the probe behind that.
    fn build(worker: &mut Worker, mut ledger: Ledger) -> Self {
        let outcomes = Rc::new(RefCell::new(Vec::new()));
        let collected = outcomes.clone();
        let (input, probe) = worker.dataflow::<u64, _, _>(move |scope| {
            let (input, entries) = scope.new_input::<Vec<Entry>>();
            let (probe, _) = entries
                .unary_frontier(Exchange::new(|entry: &Entry| entry.route), "ledger", move |_, _| {
                    let mut open: BTreeMap<u64, (Capability<u64>, Vec<Entry>)> = BTreeMap::new();
                    move |(input, frontier), output| {
                        input.for_each(|capability, entries| {
                            let capability = capability.retain_least(output.output_index());
                            let capability = capability.expect("all entries are sent at a commit's number");
                            let commit = *capability.time();
                            open.entry(commit).or_insert_with(|| (capability, Vec::new())).1.append(entries);
                        });
                        while let Some(first) = open.first_entry()
                            && !frontier.less_equal(first.key())
                        {
                            let (capability, entries) = first.remove();
                            output.session(&capability).give(ledger.fold(entries));
                        }
                    }
                })
                .container::<Vec<Outcome>>()
                .unary::<Nothing, _, _, _>(Exchange::new(|_: &Outcome| 0), "collect", move |_, _| {
                    move |input, _| input.for_each(|_, outcomes| collected.borrow_mut().append(outcomes))
                })
                .probe();
            (input, probe)
        });
        Self { input, probe, outcomes }
    }
}

/// The pools of one worker.
struct Ledger {
    seconds: Box<[u32]>,
    pools: Pools,
    shelf: Shelf,
}

impl Ledger {
    /// Folds a commit: what it did to this worker's pools.
    fn fold(&mut self, entries: Vec<Entry>) -> Outcome {
        let (mut turns, mut learned, mut postings) = (Vec::new(), Vec::new(), Vec::new());
        for Entry { task, .. } in entries {
            match task {
                Task::Turn(turn) => turns.push(turn),
                Task::Learn(terms) => learned.push(terms),
                Task::Post(asked) => postings.push(asked),
            }
        }
        let [turn] = turns[..] else { panic!("a worker gets one turn per commit, and got {}", turns.len()) };
        if turn.keep {
            self.shelf.lock().unwrap_or_else(PoisonError::into_inner).extend(self.pools.clone());
        }
        if turn.before.is_none() {
            self.pools.values_mut().for_each(|pool| pool.begin(&turn));
        }
        learned.iter().for_each(|terms| self.learn(terms, &turn));
        postings.sort_unstable_by_key(|asked| (asked.partition, asked.frame, asked.pool));
        let mut outcome = Outcome::default();
        for asked in &postings {
            let pool = self.pools.get_mut(&asked.pool);
            pool.expect("a pool is learned before it is posted to").post(asked, &turn, &mut outcome);
        }
        self.pools.values_mut().for_each(|pool| pool.turn(&turn, &mut outcome));
        outcome
    }

    fn learn(&mut self, terms: &PoolTerms, turn: &Turn) {
        let new = || PoolLedger::new(terms.pool, terms.minor_digits, &self.seconds);
        self.pools.entry(terms.pool).or_insert_with(new).learn(terms, turn);
    }
}

fn number(count: usize) -> u64 {
    u64::try_from(count).expect("at most WORKERS_MAX")
}
