//! What tests are written with: terms, frames and commits in a few words.

use std::sync::Arc;

use aggregate::books::{Books, CommitInput};
use aggregate::commit::Committed;
use aggregate::postings::Taken;
use jackpot_core::digest::Digest;
use jackpot_core::frame::contributions::{Contributions, Hit, PoolLevels, Posting, Sum};
use jackpot_core::frame::{Frame, Header, Ingress};
use jackpot_core::money::Micro;
use jackpot_core::record::WindowSettings;
use jackpot_core::rules;
use jackpot_core::stage::Contradiction;
use jackpot_core::terms::Terms;
use jackpot_core::time::Millis;

/// 2026-06-08T20:00:00Z: the beginning of an hour.
pub const T0: i64 = 1_780_948_800;

pub fn settings() -> WindowSettings {
    WindowSettings { seconds: vec![1, 60, 3_600], max_skew_s: 300 }
}

/// A wager, or a hit, in a frame.
#[derive(Debug, Clone)]
pub enum Post {
    Sum {
        pool: String,
        second: i64,
        operator: String,
        jurisdiction: String,
        game: String,
        wagers: u32,
        eligible: u128,
    },
    Hit {
        pool: String,
        level: String,
        second: i64,
    },
}

/// `wagers` wagers of acme in Malta, at `T0 + second`, of `eligible` in all.
pub fn sum(pool: &str, second: i64, wagers: u32, eligible: &str) -> Post {
    sum_of(pool, second, wagers, eligible, "acme", "MT", "spin")
}

pub fn sum_of(
    pool: &str,
    second: i64,
    wagers: u32,
    eligible: &str,
    operator: &str,
    jurisdiction: &str,
    game: &str,
) -> Post {
    Post::Sum {
        pool: pool.into(),
        second: T0 + second,
        operator: operator.into(),
        jurisdiction: jurisdiction.into(),
        game: game.into(),
        wagers,
        eligible: Micro::parse_wager(eligible).expect("an amount").0,
    }
}

pub fn hit(pool: &str, level: &str, second: i64) -> Post {
    Post::Hit { pool: pool.into(), level: level.into(), second: T0 + second }
}

/// Terms with these pools, each `name: level base ceiling increment reserve, …` (`-`: no ceiling), in EUR.
pub fn terms(revision: u64, pools: &[&str]) -> Arc<Terms> {
    let pools: Vec<_> = pools
        .iter()
        .map(|pool| {
            let (name, levels) = pool.split_once(':').expect("a pool has levels");
            let levels: Vec<_> = levels.split(',').map(level).collect();
            serde_json::json!({"pool": name, "currency": "EUR", "jurisdictions": ["MT"], "levels": levels})
        })
        .collect();
    let document = serde_json::json!({"schema": "terms/1", "revision": revision, "pools": pools});
    Arc::new(Terms::parse(document.to_string().as_bytes()).expect("terms without a fault"))
}

fn level(text: &str) -> serde_json::Value {
    let words: Vec<_> = text.split_whitespace().collect();
    let [level, base, ceiling, increment, reserve] = words[..] else {
        panic!("a level is five words: {text}")
    };
    let rate = |text: &str| text.parse::<u32>().expect("a rate");
    serde_json::json!({
        "level": level, "base": base, "ceiling": (ceiling != "-").then_some(ceiling),
        "increment_ppm": rate(increment), "reserve_ppm": rate(reserve),
    })
}

/// Books, and the logs of partitions before them.
pub struct World {
    pub books: Books,
    /// Every commit with what it was made of.
    pub record: Vec<Recorded>,
    heads: Vec<(u64, Digest)>,
    revision: u64,
}

#[derive(Clone)]
pub struct Recorded {
    pub committed: Committed,
    pub frames: Vec<Taken>,
    pub terms: Option<Arc<Terms>>,
}

impl World {
    pub fn new(partitions: u16) -> Self {
        Self::with(1, partitions, settings())
    }

    pub fn with(workers: usize, partitions: u16, settings: WindowSettings) -> Self {
        let books = Books::start(workers, partitions, settings).expect("settings that can be used");
        let heads = vec![(0, Digest::ZERO); partitions.into()];
        Self { books, record: Vec::new(), heads, revision: 0 }
    }

    /// The next frame of a partition under a revision; its watermark is in milliseconds after [`T0`].
    pub fn frame(&mut self, partition: u16, terms: &Terms, watermark: Option<i64>, posts: &[Post]) -> Taken {
        let (sequence, previous) = self.heads[usize::from(partition)];
        let header = Header {
            partition,
            sequence: sequence + 1,
            rules: rules::FIRST,
            terms: terms.revision,
            watermark: watermark.map(|at| Millis(T0 * 1_000 + at)),
            recorded_at: Millis(T0 * 1_000 + 10_000 * (i64::try_from(sequence).expect("small") + 1)),
            ingress: Ingress::default(),
            input: Digest::ZERO,
            previous,
        };
        let frame = Frame { header, body: body(terms, posts) };
        let message = frame.encode();
        assert_eq!(Frame::decode(&message).expect("a frame"), frame);
        let digest = Digest::of(&message);
        self.heads[usize::from(partition)] = (frame.header.sequence, digest);
        Taken { digest, frame }
    }

    pub fn try_commit(
        &mut self,
        terms: Option<&Arc<Terms>>,
        frames: Vec<Taken>,
        idle: &[Option<i64>],
    ) -> Result<Committed, Contradiction> {
        let terms = terms.filter(|terms| terms.revision > self.revision).cloned();
        let input = CommitInput {
            number: self.books.number() + 1,
            previous: self.books.digest(),
            frames: frames.clone(),
            watermarks: idle.iter().map(|at| at.map(|at| Millis(T0 * 1_000 + at))).collect(),
            terms: terms.clone(),
        };
        let committed = self.books.commit(&input)?;
        self.revision = committed.commit.terms;
        self.record.push(Recorded { committed: committed.clone(), frames, terms });
        Ok(committed)
    }

    pub fn commit(
        &mut self,
        terms: Option<&Arc<Terms>>,
        frames: Vec<Taken>,
        idle: &[Option<i64>],
    ) -> Committed {
        self.try_commit(terms, frames, idle).expect("a commit without contradiction")
    }

    /// One frame of partition 0 as a commit.
    pub fn post(&mut self, terms: &Arc<Terms>, watermark: i64, posts: &[Post]) -> Committed {
        let frame = self.frame(0, terms, Some(watermark), posts);
        let idle = vec![None; self.heads.len()];
        self.commit(Some(terms), vec![frame], &idle)
    }
}

fn body(terms: &Terms, posts: &[Post]) -> Contributions {
    let mut body = Contributions::default();
    let mut listed: Vec<String> = Vec::new();
    for (index, post) in (0_u16..).zip(posts) {
        let name = match post {
            Post::Sum { pool, .. } | Post::Hit { pool, .. } => pool,
        };
        let pool = listed.iter().position(|known| known == name).unwrap_or_else(|| {
            listed.push(name.clone());
            let levels =
                terms.pools.iter().find(|pool| pool.pool == *name).map_or(&[][..], |pool| &pool.levels);
            let levels = levels.iter().map(|level| body.symbols.intern(&level.level)).collect();
            body.pools.push(PoolLevels { pool: body.symbols.intern(name), levels });
            listed.len() - 1
        });
        let pool = u16::try_from(pool).expect("few pools");
        let posting = match post {
            Post::Sum { second, operator, jurisdiction, game, wagers, eligible, .. } => {
                body.wagers += wagers;
                Posting::Sum(Sum {
                    pool,
                    second: *second,
                    operator: body.symbols.intern(operator),
                    jurisdiction: body.symbols.intern(jurisdiction),
                    game: body.symbols.intern(game),
                    wagers: *wagers,
                    eligible: Micro(*eligible),
                })
            }
            Post::Hit { level, second, .. } => Posting::Hit(Box::new(Hit {
                pool,
                level: body.symbols.intern(level),
                operator: body.symbols.intern("acme"),
                source: body.symbols.intern("acme-eu1"),
                sequence: 7,
                index,
                game: body.symbols.intern("spin"),
                round: "r-1".into(),
                jurisdiction: body.symbols.intern("MT"),
                occurred_at: Millis(second * 1_000 + 5),
                recorded_at: Millis(second * 1_000 + 105),
            })),
        };
        body.postings.push(posting);
    }
    body
}
