//! The messages that leave the pipeline (contract, sections 3 and 5), as they are written and read back.
//! Amounts are exact decimal strings, times RFC 3339 with milliseconds. `schemas/` says the same in JSON Schema.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::money::{Pico, Ppm};
use crate::refusal::{Reason, StageName};
use crate::time::Millis;

/// One message of `commits`: all that a commit changed, what it consumed, and its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Its number: its sequence in the stream.
    pub commit: u64,
    /// The SHA-256 of the message of the commit before; zeros in the first.
    pub previous: Digest,
    /// The highest revision of the terms that has run.
    pub terms: u64,
    /// The latest broker receive time among what was consumed; `None` before the first frame.
    pub as_of: Option<Millis>,
    /// Per partition, from 0: what has been consumed up to and with this commit.
    pub partitions: Vec<Consumed>,
    /// The settings that windows were closed by.
    pub settings: WindowSettings,
    /// Cumulative counts.
    pub counts: Counts,
    /// The levels that changed, after it, by pool and level.
    pub levels: Vec<LevelTotals>,
    /// The windows that closed, by end, pool and level.
    pub windows: Vec<Window>,
    /// The hits, in log order.
    pub hits: Vec<Hit>,
}

/// What of a partition has been consumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Consumed {
    /// The number of the last frame of `contributions-p`; 0 before the first.
    pub frame: u64,
    /// The SHA-256 of that frame; zeros before the first.
    pub digest: Digest,
    /// The watermark that the commit went by; `None` before the first wager or idle notice.
    pub watermark: Option<Millis>,
}

/// What windows are closed by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSettings {
    /// The lengths, in seconds, ascending. The first commit fixes them.
    pub seconds: Vec<u32>,
    /// How far the greatest watermark may run ahead before it closes windows alone, in seconds.
    pub max_skew_s: u32,
}

/// Counts over all commits up to and with this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Windows published.
    pub windows: u64,
    /// Hits paid.
    pub hits: u64,
    /// The last commit that changed a level; 0 when none did.
    pub changed: u64,
}

/// One message of `totals.<pool>.<level>`: the level after a commit that changed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LevelTotals {
    /// The pool.
    pub pool: String,
    /// The level.
    pub level: String,
    /// The pool's currency.
    pub currency: String,
    /// One more for each commit that changed the level.
    pub sequence: u64,
    /// The commit.
    pub commit: u64,
    /// The highest revision of the terms that has run.
    pub terms: u64,
    /// The latest broker receive time among what was consumed; `None` before the first frame.
    pub as_of: Option<Millis>,
    /// The amount owed to the next winner.
    pub current: Pico,
    /// `current`, floored to the currency's minor unit.
    pub display: Pico,
    /// What it starts from after a hit.
    pub base: Pico,
    /// What it does not grow above.
    pub ceiling: Option<Pico>,
    /// What waits for the next hit.
    pub pending: Option<Pending>,
    /// The hidden reserve.
    pub reserve: Pico,
    /// What would have lifted `current` above the ceiling.
    pub diversion: Pico,
    /// Wagers that took part.
    pub wagers: u64,
    /// The sum of their eligible amounts.
    pub wagered: Pico,
    /// The sum of increments and reserves.
    pub contributed: Pico,
    /// The sum of payoffs.
    pub paid: Pico,
    /// What the house put in.
    pub house: Pico,
    /// Corrections and transfers.
    pub adjusted: Pico,
    /// How often it was won.
    pub hits: u64,
}

impl LevelTotals {
    /// What the level holds less what it must hold: 0 while its books balance (invariant I4).
    pub fn difference(&self) -> Pico {
        let holds = self.current + self.reserve + self.diversion;
        holds - (self.contributed + self.house + self.adjusted - self.paid)
    }
}

/// Changes of a level that wait for its next hit. Only what waits is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pending {
    /// The increment rate.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "ppm_option")]
    pub increment_ppm: Option<Ppm>,
    /// The reserve rate.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "ppm_option")]
    pub reserve_ppm: Option<Ppm>,
    /// The ceiling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ceiling: Option<Pico>,
}

/// One message of `windows.<seconds>.<pool>.<level>`: a closed event-time window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The pool.
    pub pool: String,
    /// The level.
    pub level: String,
    /// The pool's currency.
    pub currency: String,
    /// The commit that closed it.
    pub commit: u64,
    /// Its length.
    pub seconds: u32,
    /// When it begins, inclusive.
    pub window_start: Millis,
    /// When it ends, exclusive.
    pub window_end: Millis,
    /// `current + reserve + diversion` before it; the closing of the window before, 0 in the first.
    pub opening: Pico,
    /// `opening + contributed + house + adjusted − paid`.
    pub closing: Pico,
    /// Wagers that took part.
    pub wagers: u64,
    /// The sum of their eligible amounts.
    pub wagered: Pico,
    /// The sum of increments and reserves.
    pub contributed: Pico,
    /// The sum of payoffs.
    pub paid: Pico,
    /// What the house put in.
    pub house: Pico,
    /// Corrections and transfers.
    pub adjusted: Pico,
    /// Hits.
    pub hits: u64,
    /// How many of the wagers came after their own window had closed.
    pub late: u64,
    /// Shares by operator.
    pub by_operator: BTreeMap<String, Share>,
    /// Shares by jurisdiction.
    pub by_jurisdiction: BTreeMap<String, Share>,
    /// Shares by game; from 60 s on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_game: Option<BTreeMap<String, Share>>,
    /// Shares by operator and jurisdiction (`acme/US-NV`); from 60 s on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_operator_jurisdiction: Option<BTreeMap<String, Share>>,
}

/// A part of a window's wagers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Share {
    /// Wagers.
    pub wagers: u64,
    /// The sum of their eligible amounts.
    pub wagered: Pico,
    /// The sum of increments and reserves.
    pub contributed: Pico,
}

/// One message of `hits.<pool>.<level>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hit {
    /// The pool.
    pub pool: String,
    /// The level.
    pub level: String,
    /// The pool's currency.
    pub currency: String,
    /// The number of the hit of this level, from 1, without gaps.
    pub sequence: u64,
    /// The commit.
    pub commit: u64,
    /// Its number in the commit, from 0, over all levels, in log order.
    pub order: u32,
    /// The winning wager: `<source>/<sequence>/<index>`.
    pub wager: String,
    /// Its operator.
    pub operator: String,
    /// Its source.
    pub source: String,
    /// Its game.
    pub game: String,
    /// Its round.
    pub round: String,
    /// Where it was made.
    pub jurisdiction: String,
    /// When it happened.
    pub occurred_at: Millis,
    /// When the broker received it.
    pub recorded_at: Millis,
    /// What is paid: `current` floored to the minor unit.
    pub payoff: Pico,
    /// `current` after payoff and refill.
    pub current: Pico,
    /// What of the refill came from the diversion pool,
    pub from_diversion: Pico,
    /// from the reserve,
    pub from_reserve: Pico,
    /// and from the house.
    pub from_house: Pico,
    /// The refill in all.
    pub base: Pico,
    /// The revision of the terms of the wager's frame.
    pub terms: u64,
}

/// One message of `refusals.<operator>.<source>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalNotice {
    /// The refused wager: `<source>/<sequence>/<index>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wager: Option<String>,
    /// The refused batch: `<source>/<sequence>`, or `@<stream sequence>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<String>,
    /// Who refused it.
    pub stage: StageName,
    /// Why.
    pub reason: Reason,
    /// What the producer can mend.
    pub detail: String,
    /// When the broker received it.
    pub at: Millis,
    /// The operator in the subject that it came on.
    pub operator: String,
    /// The source in that subject.
    pub source: String,
    /// The partition,
    pub partition: u16,
    /// the frame,
    pub frame: u64,
    /// and the number in the frame, from 0: its place in log order.
    pub number: u32,
}

/// One message of `sources.<operator>.<source>`: what has become of the source's batches.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SourceState {
    /// The operator.
    pub operator: String,
    /// The source.
    pub source: String,
    /// The highest batch number that was accepted; 0 when none was.
    pub highest: u64,
    /// Accepted batches.
    pub batches: u64,
    /// Accepted wagers.
    pub wagers: u64,
    /// Batches refused whole.
    pub refused_batches: u64,
    /// Refused wagers of accepted batches.
    pub refused_wagers: u64,
    /// Numbers within the window that have not come: from, to, both included, ascending.
    pub missing: Vec<(u64, u64)>,
    /// When the broker received the last batch that is counted here; `None` before the first.
    pub as_of: Option<Millis>,
    /// The frame of the source's partition up to which its batches are counted.
    pub frame: u64,
    /// Where the terms have let its numbers start anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence_from: Option<u64>,
}

/// A plain message on `idle.<p>`: the partition has read all that is stored for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdleNotice {
    /// The partition.
    pub partition: u16,
    /// Its last frame; 0 when there is none.
    pub frame: u64,
    /// The watermark; `None` before the first wager while the partition is not idle, and when this machine's clock
    /// cannot be trusted.
    pub watermark: Option<Millis>,
    /// The revision of the terms in force; 0 when there is none.
    pub terms: u64,
    /// When the broker said that nothing more is stored, by its own clock; for the metrics alone. A build that knows of no
    /// such thing leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Millis>,
}

mod ppm_option {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::money::Ppm;

    pub fn serialize<S: Serializer>(ppm: &Option<Ppm>, s: S) -> Result<S::Ok, S::Error> {
        match ppm {
            Some(ppm) => s.serialize_u32(ppm.0),
            None => s.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Ppm>, D::Error> {
        Ok(Option::<u32>::deserialize(d)?.map(Ppm))
    }
}
