//! What a seed decides before anything runs: how large the deployment is, what is done to it, and for how long.
//! Most seeds are small, and each leaves out some kinds of trouble, so that the others can be seen at work.

use std::time::Duration;

use jackpot_core::record::WindowSettings;
use validate::intake::Settings as IntakeSettings;

use crate::dice::Dice;
use crate::network::weather::Weather;
use crate::stages::StageSettings;

/// What a seed decides.
#[derive(Debug, Clone)]
pub struct Profile {
    /// How the stages run.
    pub stages: StageSettings,
    /// Processes of each stage, in the order of the flow; 0 for one that is started only now and then.
    pub processes: [usize; 5],
    /// Of 4 processes of a stage that is divided, so many are members; the others run what they are told.
    pub members: u64,
    /// What each lane that is trimmed holds at most, where it is so little that it fills, and drains behind snapshots.
    /// Less than [`Profile::LANE_BYTES_MIN`] only until the trouble ends.
    pub lane_bytes: Option<u64>,
    /// Sources that publish.
    pub sources: usize,
    /// Batches in all, before some are repeated or spoilt.
    pub batches: usize,
    /// Revisions of the terms that are applied one after the other.
    pub revisions: u64,
    /// For how long wagers are published and things go wrong.
    pub busy: Duration,
    /// What the network does.
    pub weather: Weather,
    /// What is done to processes, streams and clocks, and how often.
    pub chaos: Chaos,
}

/// How often what is done: between two acts of each kind lie so many seconds on average; `None`: it is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Chaos {
    /// A process is dropped at one of its next awaits.
    pub crash: Option<u64>,
    /// A process is stopped as by SIGSTOP, and goes on later.
    pub freeze: Option<u64>,
    /// A process is told to stop; another one takes its place.
    pub drain: Option<u64>,
    /// A stage gets more or fewer processes, or other partitions for them.
    pub rescale: Option<u64>,
    /// The connection of a process breaks.
    pub cut: Option<u64>,
    /// The broker goes away and comes back: all connections break.
    pub outage: Option<u64>,
    /// A stream is full for a while.
    pub fill: Option<u64>,
    /// The clock of the broker, or of a process, jumps.
    pub jump: Option<u64>,
    /// The broker loses what it has not synced, once, after so many milliseconds.
    pub loss: Option<u64>,
}

impl Profile {
    /// A lane that holds less may never take the frame that has gathered before it.
    pub const LANE_BYTES_MIN: u64 = 100_000;

    /// What this seed decides.
    pub fn draw(seed: u64) -> Self {
        let mut dice = Dice::new(seed, "profile");
        let partitions = u16::try_from(dice.between(1, 3)).expect("a small number");
        let quiet = dice.below(12) == 0;
        let seconds = dice.pick::<&[u32]>(&[&[1], &[1, 10], &[1, 60], &[2, 10, 30]]);
        let stages = StageSettings {
            partitions,
            intake: IntakeSettings {
                lateness: Duration::from_millis(dice.between(0, 2) * 1_000),
                idle_after: Duration::from_millis(*dice.pick(&[200, 1_000, 3_000])),
            },
            windows: WindowSettings { seconds: seconds.to_vec(), max_skew_s: *dice.pick(&[5, 30, 300]) },
            stand_by: Duration::from_millis(*dice.pick(&[500, 2_000])),
            snapshot_bytes: *dice.pick(&[1, 2_000, 20_000, u64::MAX]),
        };
        let mut room = Dice::new(seed, "room");
        let lane_bytes = (room.below(6) == 0).then(|| *room.pick(&[20_000, 60_000, 150_000]));
        let (sources, batches) = (dice.between(1, 4), dice.between(20, 120));
        let busy_s = dice.between(10, 40);
        let loss = (!quiet && dice.below(8) == 0).then(|| dice.between(3_000, busy_s * 1_000 - 2_000));
        Self {
            stages,
            processes: [0; 5].map(|_| *dice.pick(&[0, 1, 1, 2, 2, 3])),
            lane_bytes,
            members: *dice.pick(&[0, 0, 0, 2, 4, 4, 4, 4]),
            sources: usize::try_from(sources).expect("a small number"),
            batches: usize::try_from(if dice.below(10) == 0 { batches * 3 } else { batches })
                .expect("a small number"),
            revisions: *dice.pick(&[1, 1, 2, 3, 4]),
            busy: Duration::from_secs(busy_s),
            weather: if quiet { Weather::FAIR } else { Weather::draw(&mut dice) },
            chaos: if quiet { Chaos::default() } else { Chaos { loss, ..Chaos::draw(&mut dice) } },
        }
    }
}

impl Chaos {
    fn draw(dice: &mut Dice) -> Self {
        let mut every = |often: u64| *dice.pick(&[None, None, Some(often), Some(often * 4)]);
        Self {
            crash: every(2),
            freeze: every(8),
            drain: every(6),
            rescale: every(8),
            cut: every(4),
            outage: every(12),
            fill: every(8),
            jump: every(8),
            loss: None,
        }
    }
}
