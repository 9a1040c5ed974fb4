//! What happens to the deployment while it is busy: act by act, when and to whom, by dice.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use jackpot_core::refusal::StageName;
use tokio::time::{Instant, sleep};

use crate::dice::Dice;
use crate::fleet::{Fleet, Share};
use crate::network::Network;
use crate::profile::{Chaos, Profile};
use crate::stages;
use crate::trace::Trace;

/// How often it is looked whether something is due.
const TICK: Duration = Duration::from_millis(50);

/// Something that is done to the deployment.
type Act = fn(&mut Mischief);

/// Does to the deployment what the profile says, until it is no longer busy.
pub struct Mischief {
    fleet: Rc<RefCell<Fleet>>,
    network: Arc<Network>,
    dice: Dice,
    trace: Trace,
    partitions: u16,
    /// Of 4 places, so many are for members.
    members: u64,
    /// Streams that are full just now, and until when.
    full: Vec<(String, Instant)>,
    streams: Vec<String>,
}

impl Mischief {
    /// Nothing done yet. `streams` are the names of all streams.
    pub fn new(
        fleet: Rc<RefCell<Fleet>>,
        network: Arc<Network>,
        streams: Vec<String>,
        dice: Dice,
        trace: Trace,
        profile: &Profile,
    ) -> Self {
        let (partitions, members) = (profile.stages.partitions, profile.members);
        Self { fleet, network, dice, trace, partitions, members, full: Vec::new(), streams }
    }

    /// Opens the first places: for each stage as many as the profile says.
    pub fn found(&mut self, profile: &Profile) {
        for (stage, &count) in stages::ALL.into_iter().zip(&profile.processes) {
            for _ in 0..count {
                self.open(stage);
            }
        }
    }

    /// Opens a place.
    fn open(&mut self, stage: StageName) {
        let share = self.share(stage);
        self.fleet.borrow_mut().open(stage, share);
    }

    /// A member's share, or all partitions, or some.
    fn share(&mut self, stage: StageName) -> Share {
        if stages::is_divided(stage) && self.dice.below(4) < self.members {
            let again = self.dice.below(12) == 0;
            return self.fleet.borrow().member(again);
        }
        let all: Vec<u16> = (0..self.partitions).collect();
        if self.dice.below(2) == 0 {
            return Share::Only(all);
        }
        let some: Vec<_> = all.iter().copied().filter(|_| self.dice.below(2) == 0).collect();
        Share::Only(if some.is_empty() { all } else { some })
    }

    /// Acts until `until`, then leaves everything to heal.
    pub async fn act(&mut self, chaos: Chaos, until: Instant) {
        let mut loss = chaos.loss.map(|after| Instant::now() + Duration::from_millis(after));
        while Instant::now() < until {
            sleep(TICK).await;
            if loss.take_if(|at| *at <= Instant::now()).is_some() {
                let down = Duration::from_millis(self.dice.between(10, 4_000));
                self.trace
                    .say(format_args!("the broker loses what it had not synced, and is away for {down:?}"));
                self.network.lose_tail(down).await;
            }
            self.fleet.borrow_mut().tend();
            let due = |every: Option<u64>, dice: &mut Dice| {
                // A tick is a twentieth of a second.
                every.is_some_and(|seconds| dice.below(seconds * 20) == 0)
            };
            let acts: [(Option<u64>, Act); 7] = [
                (chaos.crash, Self::crash),
                (chaos.freeze, Self::freeze),
                (chaos.drain, Self::drain),
                (chaos.rescale, Self::rescale),
                (chaos.cut, Self::cut),
                (chaos.outage, Self::outage),
                (chaos.jump, Self::jump),
            ];
            for (every, act) in acts {
                if due(every, &mut self.dice) {
                    act(self);
                }
            }
            if due(chaos.fill, &mut self.dice) {
                self.fill().await;
            }
            self.empty(false).await;
        }
        self.empty(true).await;
    }

    fn place(&mut self) -> Option<usize> {
        let len = self.fleet.borrow().len();
        (len > 0).then(|| self.dice.place(len))
    }

    fn crash(&mut self) {
        let polls = *self.dice.pick(&[0, 1, 2, 3, 5, 8, 13, 30, 100, 300]);
        if let Some(place) = self.place() {
            self.fleet.borrow_mut().crash(place, polls);
        }
    }

    fn freeze(&mut self) {
        let pause = Duration::from_millis(*self.dice.pick(&[300, 2_000, 6_000, 60_000]));
        if let Some(place) = self.place() {
            self.fleet.borrow_mut().freeze(place, pause);
        }
    }

    fn drain(&mut self) {
        if let Some(place) = self.place() {
            self.fleet.borrow_mut().drain(place, true);
        }
    }

    fn rescale(&mut self) {
        match (self.dice.below(3), self.place()) {
            (0, _) | (_, None) => {
                let stage = *self.dice.pick(&stages::ALL);
                if self.fleet.borrow().len() < 20 {
                    self.open(stage);
                }
            }
            (1, Some(place)) => self.fleet.borrow_mut().drain(place, false),
            (_, Some(place)) => {
                let stage = self.fleet.borrow().stage(place);
                let share = self.share(stage);
                self.fleet.borrow_mut().assign(place, share);
                self.fleet.borrow_mut().drain(place, true);
            }
        }
    }

    fn cut(&mut self) {
        let hosts = self.network.hosts();
        if hosts.is_empty() {
            return;
        }
        let (host, down) = (*self.dice.pick(&hosts), self.dice.between(0, 5_000));
        self.trace.say(format_args!("the connection of {host} breaks for {down} ms"));
        self.network.cut(host, Duration::from_millis(down));
    }

    fn outage(&mut self) {
        let down = self.dice.between(10, 8_000);
        self.trace.say(format_args!("the broker is away for {down} ms"));
        for host in self.network.hosts() {
            self.network.cut(host, Duration::from_millis(down));
        }
    }

    fn jump(&mut self) {
        let by_ms = *self.dice.pick(&[-20_000_i64, -3_000, -300, 300, 3_000, 20_000]);
        match self.place() {
            Some(place) if self.dice.below(3) > 0 => {
                self.trace.say(format_args!("the clock of a process jumps by {by_ms} ms"));
                self.fleet.borrow_mut().jump(place, by_ms);
            }
            _ => {
                self.trace.say(format_args!("the broker's clock jumps by {by_ms} ms"));
                self.network.jump(by_ms);
            }
        }
    }

    async fn fill(&mut self) {
        let stream = self.dice.pick(&self.streams).clone();
        let (room, pause) = (self.dice.below(8_000), self.dice.between(500, 10_000));
        self.trace.say(format_args!("{stream} has room for {room} bytes for {pause} ms"));
        self.network.limit(&stream, Some(room)).await;
        self.full.push((stream, Instant::now() + Duration::from_millis(pause)));
    }

    /// Gives back their room to streams whose time has come, or to all.
    async fn empty(&mut self, all: bool) {
        let now = Instant::now();
        let mut over: Vec<_> = self.full.extract_if(.., |(_, until)| all || *until <= now).collect();
        for (stream, _) in over.drain(..) {
            self.network.limit(&stream, None).await;
        }
    }
}
