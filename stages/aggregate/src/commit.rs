//! The message of a commit (contract, section 5): how what the ledger did is written, in which order, how large it
//! may grow, and its place in the chain of digests. [`crate::books`] calls it.
//! Also [`Cut`], by which the runner decides how many frames a commit takes. Nothing here changes a level.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use jackpot_core::digest::Digest;
use jackpot_core::frame::Frame;
use jackpot_core::frame::contributions::{self, Contributions, Posting};
use jackpot_core::limits;
use jackpot_core::record::{Commit, Hit, LevelTotals, Pending, Share, Window};
use jackpot_core::stage::Contradiction;
use jackpot_core::terms::Terms;
use jackpot_core::time::Millis;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ledger::{ChangedLevel, PaidHit};
use crate::postings::{PoolEntry, Register};
use crate::windows::ClosedWindow;

/// A level's totals at most, in JSON, names included, with amounts up to 10¹⁵ units and counts up to 10¹².
pub const LEVEL_BYTES_MAX: usize = 832;
/// A hit at most, in JSON, likewise, without the texts of its wager and its level.
pub const HIT_BYTES: usize = 760;
/// A hit at most, with texts.
pub const HIT_BYTES_MAX: usize = HIT_BYTES + 6 * NAME_BYTES_MAX + ROUND_BYTES_MAX;
/// What a commit holds but levels, windows and hits, at most.
pub const ENVELOPE_BYTES_MAX: usize = 1_024 + PARTITIONS * CONSUMED_BYTES_MAX;

const NAME_BYTES_MAX: usize = 64;
const ROUND_BYTES_MAX: usize = 128;
const CONSUMED_BYTES_MAX: usize = 160;
const PARTITIONS: usize = limits::PARTITIONS_MAX as usize;

const _: () = assert!(limits::COMMIT_CHANGES_BYTES + ENVELOPE_BYTES_MAX <= limits::COMMIT_BYTES_MAX);
const _: () = assert!(
    limits::LEVELS_MAX * LEVEL_BYTES_MAX + ENVELOPE_BYTES_MAX <= limits::MESSAGE_BYTES_MAX,
    "a frame, or a revision, that changes every level must fit a message"
);
const _: () = assert!(
    limits::FRAME_HITS_MAX * HIT_BYTES_MAX + ENVELOPE_BYTES_MAX <= limits::COMMIT_CHANGES_BYTES,
    "a frame full of hits must fit a commit"
);

/// A commit as it is appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// What it says.
    pub commit: Commit,
    /// The message.
    pub message: Bytes,
    /// The SHA-256 of the message.
    pub digest: Digest,
}

/// Decides, frame by frame, how many a commit takes: none that could make its levels and hits larger than
/// [`limits::COMMIT_CHANGES_BYTES`], by an estimate from above. The cut is free (design, section 2): it is
/// recorded, and a replay goes by the record.
#[derive(Debug, Clone)]
pub struct Cut {
    /// By pool: the levels that have been counted.
    levels: BTreeMap<Box<str>, usize>,
    bytes: usize,
    bytes_max: usize,
    /// Whether the next frame is taken however large it is.
    first: bool,
}

impl Cut {
    /// A commit that has taken nothing yet. `backlog` is the size of the first closed window that waits to be
    /// published, 0 when none does: there is always room for it, if need be by taking no frame at all.
    pub fn new(backlog: usize) -> Self {
        let room = limits::MESSAGE_BYTES_MAX - ENVELOPE_BYTES_MAX;
        let bytes_max = limits::COMMIT_CHANGES_BYTES.min(room.saturating_sub(backlog));
        Self { levels: BTreeMap::new(), bytes: 0, bytes_max, first: backlog == 0 }
    }

    /// The commit will take this revision up, which may change every level.
    pub fn learn(&mut self, terms: &Terms) {
        for pool in &terms.pools {
            self.bytes += self.levels_bytes(&pool.pool, pool.levels.len());
            self.levels.insert(pool.pool.as_str().into(), pool.levels.len());
        }
    }

    /// Whether the commit takes this frame; once it says no, the commit is full.
    /// The first frame is always taken, unless a closed window waits that would not fit beside it.
    pub fn takes(&mut self, frame: &Frame<Contributions>) -> bool {
        let body = &frame.body;
        let pools = body.pools.iter().map(|pool| (body.symbols.name(pool.pool), pool.levels.len()));
        let levels: usize = pools.clone().map(|(pool, levels)| self.levels_bytes(pool, levels)).sum();
        let hits: usize = body
            .postings
            .iter()
            .map(|posting| match posting {
                Posting::Sum(_) => 0,
                Posting::Hit(hit) => hit_bytes(body, hit),
            })
            .sum();
        if !self.first && self.bytes + levels + hits > self.bytes_max {
            return false;
        }
        self.first = false;
        self.bytes += levels + hits;
        for (pool, levels) in pools {
            let counted = self.levels.entry(pool.into()).or_default();
            *counted = levels.max(*counted);
        }
        true
    }

    /// What so many levels of a pool add to those that have been counted.
    fn levels_bytes(&self, pool: &str, levels: usize) -> usize {
        let counted = self.levels.get(pool).copied().unwrap_or(0);
        let level = LEVEL_BYTES_MAX - NAME_BYTES_MAX + pool.len().min(NAME_BYTES_MAX);
        levels.saturating_sub(counted) * level
    }
}

fn hit_bytes(body: &Contributions, hit: &contributions::Hit) -> usize {
    let symbols = [
        body.pools[usize::from(hit.pool)].pool,
        hit.level,
        hit.operator,
        hit.source,
        hit.source,
        hit.game,
        hit.jurisdiction,
    ];
    HIT_BYTES + hit.round.len() + symbols.map(|symbol| body.symbols.name(symbol).len()).iter().sum::<usize>()
}

/// What all messages of a commit say of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp {
    pub(crate) commit: u64,
    pub(crate) terms: u64,
    pub(crate) as_of: Option<Millis>,
}

/// A level after a commit that changed it.
pub(crate) fn level_totals(stamp: Stamp, pool: &PoolEntry, changed: &ChangedLevel) -> LevelTotals {
    let book = &changed.book;
    let waiting = book.waiting;
    let pending = Pending {
        increment_ppm: waiting.increment,
        reserve_ppm: waiting.reserve_rate,
        ceiling: waiting.ceiling,
    };
    LevelTotals {
        pool: (&*pool.name).into(),
        level: level_name(pool, changed.level),
        currency: (&*pool.currency).into(),
        sequence: book.sequence,
        commit: stamp.commit,
        terms: stamp.terms,
        as_of: stamp.as_of,
        current: book.current,
        display: book.current.floor_to_minor(pool.minor_digits),
        base: book.base,
        ceiling: book.ceiling,
        pending: Some(pending).filter(|pending| *pending != Pending::default()),
        reserve: book.reserve,
        diversion: book.diversion,
        wagers: book.wagers,
        wagered: book.wagered,
        contributed: book.contributed,
        paid: book.paid,
        house: book.house,
        adjusted: book.adjusted,
        hits: book.hits,
    }
}

/// A closed window; which commit publishes it is not known yet.
pub(crate) fn window(register: &Register, closed: &ClosedWindow) -> Window {
    let pool = register.pool(closed.pool);
    let end = closed.start + i64::from(closed.seconds);
    let mut by_operator = BTreeMap::new();
    let mut by_jurisdiction = BTreeMap::new();
    for &((operator, jurisdiction), share) in &closed.pairs {
        add(&mut by_operator, register.name(operator).into(), share);
        add(&mut by_jurisdiction, register.name(jurisdiction).into(), share);
    }
    let by_game = |games: &Vec<(u32, Share)>| {
        games.iter().map(|&(game, share)| (register.name(game).into(), share)).collect()
    };
    let by_pair = || {
        let name =
            |(operator, jurisdiction)| format!("{}/{}", register.name(operator), register.name(jurisdiction));
        closed.pairs.iter().map(|&(pair, share)| (name(pair), share)).collect()
    };
    Window {
        pool: (&*pool.name).into(),
        level: level_name(pool, closed.level),
        currency: (&*pool.currency).into(),
        commit: 0,
        seconds: closed.seconds,
        window_start: Millis(closed.start * 1_000),
        window_end: Millis(end * 1_000),
        opening: closed.opening,
        closing: closed.closing,
        wagers: closed.total.wagers,
        wagered: closed.total.wagered,
        contributed: closed.total.contributed,
        paid: closed.paid,
        house: closed.house,
        adjusted: jackpot_core::money::Pico::ZERO,
        hits: closed.hits,
        late: closed.late,
        by_operator,
        by_jurisdiction,
        by_game: closed.games.as_ref().map(by_game),
        by_operator_jurisdiction: closed.games.as_ref().map(|_| by_pair()),
    }
}

fn add(shares: &mut BTreeMap<String, Share>, name: String, share: Share) {
    let sum = shares.entry(name).or_default();
    sum.wagers += share.wagers;
    sum.wagered += share.wagered;
    sum.contributed += share.contributed;
}

/// A hit, with what its frame says of the wager.
pub(crate) fn hit(
    commit: u64,
    order: u32,
    pool: &PoolEntry,
    paid: &PaidHit,
    frame: &Frame<Contributions>,
    of: &contributions::Hit,
) -> Hit {
    let name = |symbol| frame.body.symbols.name(symbol);
    let payoff = &paid.payoff;
    Hit {
        pool: (&*pool.name).into(),
        level: level_name(pool, paid.level),
        currency: (&*pool.currency).into(),
        sequence: payoff.sequence,
        commit,
        order,
        wager: format!("{}/{}/{}", name(of.source), of.sequence, of.index),
        operator: name(of.operator).into(),
        source: name(of.source).into(),
        game: name(of.game).into(),
        round: (&*of.round).into(),
        jurisdiction: name(of.jurisdiction).into(),
        occurred_at: of.occurred_at,
        recorded_at: of.recorded_at,
        payoff: payoff.payoff,
        current: payoff.current,
        from_diversion: payoff.from_diversion,
        from_reserve: payoff.from_reserve,
        from_house: payoff.from_house,
        base: payoff.from_diversion + payoff.from_reserve + payoff.from_house,
        terms: frame.header.terms,
    }
}

fn level_name(pool: &PoolEntry, level: u8) -> String {
    (&*pool.levels[usize::from(level)]).into()
}

/// A closed window's message-to-be and its size, in the queue of those that wait to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Queued {
    pub(crate) window: Window,
    pub(crate) bytes: usize,
}

impl Serialize for Queued {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        json(&self.window).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Queued {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let message = Vec::<u8>::deserialize(deserializer)?;
        serde_json::from_slice(&message).map(Self::new).map_err(serde::de::Error::custom)
    }
}

impl Queued {
    pub(crate) fn new(window: Window) -> Self {
        // A commit's number has 20 digits at most, and the one that stands there now has one.
        let bytes = json(&window).len() + 20;
        Self { window, bytes }
    }
}

/// Moves windows from the queue into the commit, as many as fit [`limits::COMMIT_BYTES_MAX`], and at least one –
/// unless not even a message could hold that beside what the commit changed.
pub(crate) fn publish(commit: &mut Commit, queue: &mut VecDeque<Queued>) {
    let mut bytes = json(&*commit).len() + 20;
    while let Some(next) = queue.front() {
        let quiet = commit.levels.is_empty() && commit.hits.is_empty();
        let bytes_max = match commit.windows.is_empty() {
            true if quiet => usize::MAX,
            true => limits::MESSAGE_BYTES_MAX,
            false => limits::COMMIT_BYTES_MAX,
        };
        if bytes + next.bytes > bytes_max {
            break;
        }
        bytes += next.bytes;
        let next = queue.pop_front().expect("the queue has a front");
        commit.windows.push(Window { commit: commit.commit, ..next.window });
        commit.counts.windows += 1;
    }
}

/// Writes the commit.
pub(crate) fn seal(commit: Commit) -> Result<Committed, Contradiction> {
    let message = json(&commit);
    if message.len() > limits::MESSAGE_BYTES_MAX {
        return Err(Contradiction(format!(
            "commit {} is {} bytes long, more than the {} of a message; a single frame changed {} levels and \
             brought {} hits with names too long for that: run a build, and a broker, with a larger limit",
            commit.commit,
            message.len(),
            limits::MESSAGE_BYTES_MAX,
            commit.levels.len(),
            commit.hits.len()
        )));
    }
    Ok(Committed { digest: Digest::of(&message), message: message.into(), commit })
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("a commit is plain data, its times within the calendar")
}

#[cfg(test)]
mod tests {
    use super::*;
    use jackpot_core::money::{PICO, Pico, Ppm};
    use jackpot_core::record::Consumed;

    const AT: Millis = Millis(1_780_949_730_123);

    fn large() -> Pico {
        Pico(1_000_000_000_000_000 * PICO - 1)
    }

    fn name() -> String {
        "n".repeat(NAME_BYTES_MAX)
    }

    #[test]
    fn the_largest_level_is_within_its_estimate() {
        let (amount, count) = (large(), 999_999_999_999);
        let level = LevelTotals {
            pool: name(),
            level: name(),
            currency: "EUR".into(),
            sequence: count,
            commit: count,
            terms: count,
            as_of: Some(AT),
            current: amount,
            display: amount.floor_to_minor(2),
            base: amount,
            ceiling: Some(amount),
            pending: Some(Pending {
                increment_ppm: Some(Ppm::ONE),
                reserve_ppm: Some(Ppm::ONE),
                ceiling: Some(amount),
            }),
            reserve: amount,
            diversion: amount,
            wagers: count,
            wagered: amount,
            contributed: amount,
            paid: amount.floor_to_minor(2),
            house: amount,
            adjusted: Pico::ZERO,
            hits: count,
        };
        let bytes = json(&level).len() + 1;
        assert!((LEVEL_BYTES_MAX - 50..=LEVEL_BYTES_MAX).contains(&bytes), "{bytes}");
    }

    #[test]
    fn the_largest_hit_is_within_its_estimate() {
        let (amount, count) = (large(), 999_999_999_999);
        let hit = Hit {
            pool: name(),
            level: name(),
            currency: "EUR".into(),
            sequence: count,
            commit: count,
            order: u32::MAX,
            wager: format!("{}/{}/{}", name(), i64::MAX, 499),
            operator: name(),
            source: name(),
            game: name(),
            round: "r".repeat(ROUND_BYTES_MAX),
            jurisdiction: "US-NV1".into(),
            occurred_at: AT,
            recorded_at: AT,
            payoff: amount.floor_to_minor(2),
            current: amount,
            from_diversion: amount,
            from_reserve: amount,
            from_house: amount,
            base: amount,
            terms: count,
        };
        let bytes = json(&hit).len() + 1;
        assert!((HIT_BYTES_MAX - 200..=HIT_BYTES_MAX).contains(&bytes), "{bytes}");
    }

    #[test]
    fn what_a_partition_adds_is_within_its_estimate() {
        let consumed = Consumed { frame: u64::MAX, digest: Digest::ZERO, watermark: Some(AT) };
        assert!(json(&consumed).len() < CONSUMED_BYTES_MAX);
    }
}
