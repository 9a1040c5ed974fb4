//! What happens when: a pure function of the seed and the counts. Faults are spread evenly over the time, each at a
//! moment drawn in its own slot, in an order that is drawn; whom they meet is drawn when they fall due, since only then
//! it is known who runs.

use std::fmt;
use std::time::Duration;

use super::Args;
use crate::load::random::Random;
use crate::progress::counted;

/// From the beginning to the first fault, and from the last one to the end, in milliseconds: so long the pipeline is
/// looked at undisturbed.
const CALM_MS: u64 = 3_000;
/// How long a process is held, in milliseconds.
const HELD_MS: (u64, u64) = (1_000, 10_000);

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// kill -9 of one process.
    Kill,
    /// SIGSTOP of one process for so long, then SIGCONT.
    Hold(Duration),
    /// kill -9 of all processes at once, then everything is started again.
    Restart,
}

/// A fault and when it is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Planned {
    /// After the beginning.
    pub(super) due: Duration,
    pub(super) action: Action,
    /// Draws whom it meets.
    pub(super) draw: u64,
}

/// All faults, in the order in which they are due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) faults: Vec<Planned>,
}

impl Plan {
    /// The faults of a run.
    pub(super) fn new(args: &Args) -> Self {
        Self::draw(args.seed, args.seconds * 1_000, [args.kills, args.stops, args.restarts])
    }

    fn draw(seed: u64, millis: u64, [kills, stops, restarts]: [u64; 3]) -> Self {
        let mut random = Random::seeded(&[seed]);
        let count = kills + stops + restarts;
        let calm = CALM_MS.min(millis / 4);
        let slot = (millis - 2 * calm) / count.max(1);
        let mut left = [kills, stops, restarts];
        let faults = (0..count).map(|place| {
            let mut drawn = random.below(left.iter().sum());
            let mut kind = 0;
            while drawn >= left[kind] {
                drawn -= left[kind];
                kind += 1;
            }
            left[kind] -= 1;
            let held = Duration::from_millis(random.between(HELD_MS.0, HELD_MS.1));
            let due = Duration::from_millis(calm + place * slot + random.below(slot.max(1)));
            let action = [Action::Kill, Action::Hold(held), Action::Restart][kind];
            Planned { due, action, draw: random.number() }
        });
        Self { faults: faults.collect() }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |fits: fn(&Action) -> bool| {
            u64::try_from(self.faults.iter().filter(|fault| fits(&fault.action)).count()).unwrap_or(u64::MAX)
        };
        let kills = counted(count(|action| matches!(action, Action::Kill)), "kill", "kills");
        let holds = counted(count(|action| matches!(action, Action::Hold(_))), "stop", "stops");
        let restarts = counted(count(|action| matches!(action, Action::Restart)), "restart", "restarts");
        write!(f, "{kills}, {holds} and {restarts}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_alone_draws_the_plan() {
        let plan = |seed| Plan::draw(seed, 600_000, [100, 20, 5]);
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
        assert_eq!(plan(1).to_string(), "100 kills, 20 stops and 5 restarts");
        assert_eq!(Plan::draw(1, 600_000, [0, 0, 0]).faults, []);
    }

    #[test]
    fn faults_are_spread_over_the_time_and_the_ends_are_calm() {
        let faults = Plan::draw(3, 600_000, [100, 20, 5]).faults;
        assert_eq!(faults.len(), 125);
        assert!(faults.is_sorted_by_key(|fault| fault.due));
        assert!(faults[0].due >= Duration::from_secs(3) && faults[124].due <= Duration::from_secs(597));
        for minute in 0..10 {
            let amid = |fault: &&Planned| fault.due.as_secs() / 60 == minute;
            assert!((9..=16).contains(&faults.iter().filter(amid).count()), "minute {minute}");
        }
        let holds = faults.iter().filter_map(|fault| match fault.action {
            Action::Hold(held) => Some(held),
            _ => None,
        });
        let holds: Vec<_> = holds.collect();
        assert!(holds.iter().all(|held| (1..=10).contains(&held.as_secs())) && holds.len() == 20);
        let kinds: Vec<_> = faults.iter().map(|fault| fault.action == Action::Kill).collect();
        assert!(kinds[..62].iter().any(|kill| !kill) && kinds[62..].iter().any(|kill| !kill));
    }
}
