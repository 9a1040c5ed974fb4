//! Runs everything in one thread: which of the tasks that can go on is polled next, the dice decide. A process is a
//! group of tasks, which can be frozen, or dropped at any of its polls: that is a crash at an await.
//!
//! Tokio gives the time alone, paused: it jumps to the next timer when nothing can go on. No task is ever handed to
//! tokio's own scheduler, so its order of waking decides nothing.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use crate::dice::Dice;
use crate::trace::Trace;

/// So many polls without the time moving are a loop that never ends.
const POLLS_AT_ONCE_MAX: u64 = 200_000;

/// A task's future.
pub type Work = Pin<Box<dyn Future<Output = ()>>>;

/// A process, or something else whose tasks live and die together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group(pub u64);

/// How a group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Tasks that have not ended.
    pub running: usize,
    /// Whether it was dropped before its tasks had ended.
    pub crashed: bool,
    frozen: bool,
    /// Polls until it crashes.
    fuse: Option<u64>,
}

/// What tasks ask of the executor. Cheap to clone.
#[derive(Clone, Default)]
pub struct Handle {
    desk: Rc<RefCell<Desk>>,
}

#[derive(Default)]
struct Desk {
    groups: BTreeMap<Group, Standing>,
    next: u64,
    asked: VecDeque<Asked>,
}

enum Asked {
    Spawn(Group, Work),
    Kill(Group),
    Thaw(Group),
}

impl Handle {
    /// A new group, without tasks yet.
    pub fn group(&self) -> Group {
        let mut desk = self.desk.borrow_mut();
        desk.next += 1;
        let group = Group(desk.next);
        desk.groups.insert(group, Standing::default());
        group
    }

    /// Adds a task to a group.
    pub fn spawn(&self, group: Group, work: Work) {
        let mut desk = self.desk.borrow_mut();
        desk.standing(group).running += 1;
        desk.asked.push_back(Asked::Spawn(group, work));
    }

    /// Drops all tasks of a group.
    pub fn kill(&self, group: Group) {
        self.desk.borrow_mut().asked.push_back(Asked::Kill(group));
    }

    /// Crashes a group at one of its next polls.
    pub fn light(&self, group: Group, polls: u64) {
        self.desk.borrow_mut().standing(group).fuse = Some(polls);
    }

    /// Takes a fuse away that has not burnt down.
    pub fn defuse(&self, group: Group) {
        self.desk.borrow_mut().standing(group).fuse = None;
    }

    /// Polls a group no more until it is thawed: it notices nothing, whatever its timers are.
    pub fn freeze(&self, group: Group) {
        self.desk.borrow_mut().standing(group).frozen = true;
    }

    /// Lets a frozen group go on.
    pub fn thaw(&self, group: Group) {
        let mut desk = self.desk.borrow_mut();
        if std::mem::take(&mut desk.standing(group).frozen) {
            desk.asked.push_back(Asked::Thaw(group));
        }
    }

    /// How a group stands.
    pub fn standing(&self, group: Group) -> Standing {
        *self.desk.borrow_mut().standing(group)
    }
}

impl Desk {
    fn standing(&mut self, group: Group) -> &mut Standing {
        self.groups.get_mut(&group).expect("a group stays known to the end")
    }
}

/// Runs tasks until the first one, the script, has ended.
pub struct Executor {
    handle: Handle,
    tasks: BTreeMap<u64, Task>,
    ready: Arc<Ready>,
    /// Tasks that could go on, were their group not frozen.
    held: BTreeMap<Group, BTreeSet<u64>>,
    next: u64,
    dice: Dice,
    trace: Trace,
    polls: u64,
    /// The time of the last poll, and how many polls there were at it.
    instant: (u64, u64),
}

struct Task {
    group: Group,
    work: Work,
    waker: Waker,
}

/// The tasks that can go on. A set: in which order they were woken does not matter.
#[derive(Default)]
struct Ready {
    tasks: Mutex<BTreeSet<u64>>,
    /// Who polls the executor.
    outside: Mutex<Option<Waker>>,
}

struct Bell {
    task: u64,
    ready: Arc<Ready>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ready.add(self.task);
        if let Some(outside) = &*self.ready.outside.lock().unwrap_or_else(PoisonError::into_inner) {
            outside.wake_by_ref();
        }
    }
}

impl Ready {
    fn add(&self, task: u64) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).insert(task);
    }

    /// Takes one of those that can go on.
    fn draw(&self, dice: &mut Dice) -> Option<u64> {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if tasks.is_empty() {
            return None;
        }
        let place = if tasks.len() == 1 { 0 } else { dice.place(tasks.len()) };
        let drawn = tasks.iter().nth(place).copied();
        drawn.inspect(|task| {
            tasks.remove(task);
        })
    }
}

impl Executor {
    /// An executor without tasks.
    pub fn new(handle: Handle, dice: Dice, trace: Trace) -> Self {
        let (tasks, held) = (BTreeMap::new(), BTreeMap::new());
        let (ready, instant) = (Arc::default(), (0, 0));
        Self { handle, tasks, ready, held, next: 0, dice, trace, polls: 0, instant }
    }

    /// Runs the script, and all that it spawns, until the script has ended; gives what it returned, and how many polls
    /// that took. What else is running then is dropped.
    pub async fn run<T: 'static>(mut self, script: impl Future<Output = T> + 'static) -> (T, u64) {
        let result = Rc::new(RefCell::new(None));
        let returned = result.clone();
        let group = self.handle.group();
        let script = async move {
            let value = script.await;
            returned.borrow_mut().replace(value);
        };
        self.handle.spawn(group, Box::pin(script));
        poll_fn(|context| {
            *self.ready.outside.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(context.waker().clone());
            loop {
                self.obey();
                if let Some(value) = result.borrow_mut().take() {
                    return Poll::Ready((value, self.polls));
                }
                let Some(task) = self.ready.draw(&mut self.dice) else { return Poll::Pending };
                self.poll(task);
            }
        })
        .await
    }

    fn obey(&mut self) {
        loop {
            let asked = self.handle.desk.borrow_mut().asked.pop_front();
            match asked {
                None => return,
                Some(Asked::Spawn(group, work)) => self.spawn(group, work),
                Some(Asked::Kill(group)) => self.kill(group),
                Some(Asked::Thaw(group)) => {
                    self.held.remove(&group).into_iter().flatten().for_each(|task| self.ready.add(task));
                }
            }
        }
    }

    fn spawn(&mut self, group: Group, work: Work) {
        self.next += 1;
        let task = self.next;
        let waker = Waker::from(Arc::new(Bell { task, ready: self.ready.clone() }));
        self.tasks.insert(task, Task { group, work, waker });
        self.ready.add(task);
    }

    fn kill(&mut self, group: Group) {
        self.held.remove(&group);
        let dropped: Vec<_> = self.tasks.extract_if(.., |_, task| task.group == group).collect();
        let mut desk = self.handle.desk.borrow_mut();
        let standing = desk.standing(group);
        standing.crashed |= standing.running > 0;
        standing.running = 0;
        standing.fuse = None;
        drop(desk);
        self.trace.mark(b'k', group.0);
        drop(dropped);
    }

    fn poll(&mut self, number: u64) {
        let Some(group) = self.tasks.get(&number).map(|task| task.group) else { return };
        let standing = self.handle.standing(group);
        if standing.frozen {
            self.held.entry(group).or_default().insert(number);
            return;
        }
        if standing.fuse == Some(0) {
            self.kill(group);
            return;
        }
        self.handle.desk.borrow_mut().standing(group).fuse = standing.fuse.map(|polls| polls - 1);
        self.count(number);
        let Some(task) = self.tasks.get_mut(&number) else { return };
        let waker = task.waker.clone();
        if task.work.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            self.tasks.remove(&number);
            self.handle.desk.borrow_mut().standing(group).running -= 1;
        }
    }

    fn count(&mut self, number: u64) {
        self.trace.mark(b'p', number);
        self.polls += 1;
        let now = self.trace.elapsed_ms();
        let (at, polls) = &mut self.instant;
        (*at, *polls) = if *at == now { (*at, *polls + 1) } else { (now, 1) };
        assert!(*polls < POLLS_AT_ONCE_MAX, "something spins: {polls} polls and the time stands still");
    }
}
