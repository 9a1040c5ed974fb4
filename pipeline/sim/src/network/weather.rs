//! How often what goes wrong between a process and the broker. All rates are in 10,000 of the calls they can strike.

use std::time::Duration;

use crate::dice::Dice;

/// What goes wrong, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weather {
    /// A message takes up to so many milliseconds each way.
    pub wait_ms_max: u64,
    /// A message takes seconds.
    pub slow: u32,
    /// A message to the broker gets lost.
    pub requests_lost: u32,
    /// An answer gets lost.
    pub answers_lost: u32,
    /// An append arrives once more, later.
    pub repeats: u32,
    /// An append is refused, since another one is in process (10164).
    pub refused: u32,
    /// A reader ends.
    pub readers_lost: u32,
    /// A reader gets a message that it had before, or misses one; it notices.
    pub readers_skip: u32,
    /// A reader says nothing more, and does not notice.
    pub readers_silent: u32,
    /// A reader is given a message seconds later than others.
    pub readers_late: u32,
    /// A question is answered from the past.
    pub stale: u32,
    /// A plain message gets lost.
    pub notices_lost: u32,
    /// The connection breaks while something is asked.
    pub cuts: u32,
}

impl Weather {
    /// Nothing goes wrong.
    pub const FAIR: Self = Self {
        wait_ms_max: 1,
        slow: 0,
        requests_lost: 0,
        answers_lost: 0,
        repeats: 0,
        refused: 0,
        readers_lost: 0,
        readers_skip: 0,
        readers_silent: 0,
        readers_late: 0,
        stale: 0,
        notices_lost: 0,
        cuts: 0,
    };

    /// How long a message is on its way.
    pub fn wait(&self, dice: &mut Dice) -> Duration {
        let ms = dice.below(self.wait_ms_max + 1);
        let slow = if dice.strikes(self.slow) { dice.between(100, 8_000) } else { 0 };
        Duration::from_millis(ms + slow)
    }

    /// Weather of a seed: each kind of fault is absent in half of them, and else rare to frequent.
    pub fn draw(dice: &mut Dice) -> Self {
        let mut rate = |most: u32| {
            let frequent = [0, 0, 0, most / 10, most / 3, most];
            *dice.pick(&frequent)
        };
        let mut weather = Self {
            wait_ms_max: 1,
            slow: rate(150),
            requests_lost: rate(150),
            answers_lost: rate(300),
            repeats: rate(500),
            refused: rate(200),
            readers_lost: rate(100),
            readers_skip: rate(100),
            readers_silent: rate(60),
            readers_late: rate(300),
            stale: rate(200),
            notices_lost: rate(2_000),
            cuts: rate(60),
        };
        weather.wait_ms_max = *dice.pick(&[0, 1, 3, 10, 40]);
        weather
    }
}
