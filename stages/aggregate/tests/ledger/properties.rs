//! What must hold for any log: the books agree with a naive model, windows add up, workers, replays and cuts make
//! no difference. Logs are invented from a seed.

use std::collections::BTreeMap;
use std::sync::Arc;

use aggregate::books::Books;
use aggregate::commit::Committed;
use aggregate::postings::Taken;
use jackpot_core::money::Pico;
use jackpot_core::record::{Commit, LevelTotals, Share, WindowSettings};
use jackpot_core::snapshot::Saved;
use jackpot_core::terms::Terms;
use proptest::prelude::*;

use crate::model::{self, Model};
use crate::world::*;

/// SplitMix64: a log is a function of its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.roll(100) < percent
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let index = self.roll(u64::try_from(from.len()).expect("small"));
        &from[usize::try_from(index).expect("small")]
    }

    fn word(&mut self, from: &[&'static str]) -> &'static str {
        let word: &&str = self.pick(from);
        word
    }

    fn number(&mut self, below: u64) -> i64 {
        i64::try_from(self.roll(below)).expect("small")
    }
}

/// A frame to be.
#[derive(Debug, Clone)]
struct Draft {
    partition: u16,
    terms: Arc<Terms>,
    watermark: Option<i64>,
    posts: Vec<Post>,
}

/// A commit to be.
#[derive(Debug, Clone)]
struct Step {
    terms: Option<Arc<Terms>>,
    drafts: Vec<Draft>,
    idle: Vec<Option<i64>>,
}

struct Shape {
    partitions: u16,
    pools: u64,
    revisions: u64,
    steps: usize,
}

fn level_text(dice: &mut Dice, name: u64) -> String {
    let base = dice.roll(20);
    let ceiling = if dice.chance(50) { "-".to_owned() } else { (base + dice.roll(4)).to_string() };
    let (increment, reserve) = (dice.roll(100_000), if dice.chance(50) { 0 } else { dice.roll(20_000) });
    format!("l{name} {base} {ceiling} {increment} {reserve}")
}

/// Revisions, each with some levels changed, and at times a new level or pool.
fn invent_terms(dice: &mut Dice, shape: &Shape) -> Vec<Arc<Terms>> {
    let mut pools: Vec<Vec<String>> =
        (0..shape.pools).map(|_| (0..=dice.roll(3)).map(|level| level_text(dice, level)).collect()).collect();
    let mut revisions = Vec::new();
    for revision in 1..=shape.revisions {
        if revision > 1 {
            for pool in &mut pools {
                for (name, level) in (0..).zip(pool.iter_mut()) {
                    if dice.chance(40) {
                        *level = level_text(dice, name);
                    }
                }
                if pool.len() < 6 && dice.chance(20) {
                    let name = u64::try_from(pool.len()).expect("small");
                    pool.push(level_text(dice, name));
                }
            }
            if dice.chance(20) {
                pools.push(vec![level_text(dice, 0)]);
            }
        }
        let texts: Vec<_> =
            pools.iter().zip(0..).map(|(levels, i)| format!("pool-{i}:{}", levels.join(","))).collect();
        // Every other revision may be skipped in the log, as one that no frame was made under.
        revisions.push(terms(revision * 2, &texts.iter().map(String::as_str).collect::<Vec<_>>()));
    }
    revisions
}

fn invent_posts(dice: &mut Dice, terms: &Terms, now: i64) -> Vec<Post> {
    let mut posts = Vec::new();
    for _ in 0..=dice.roll(6) {
        let pool = dice.pick(&terms.pools);
        let age = if dice.chance(80) { dice.number(6) } else { dice.number(200) };
        let post = sum_of(
            &pool.pool,
            now - age,
            u32::try_from(1 + dice.roll(3)).expect("small"),
            &format!("{}.{:06}", dice.roll(50), dice.roll(1_000_000)),
            dice.word(&["acme", "beta", "core"]),
            dice.word(&["MT", "US-NV", "GB"]),
            dice.word(&["spin", "dice", "reel", "zero"]),
        );
        posts.push(post);
        if dice.chance(15) {
            posts.push(hit(&pool.pool, &dice.pick(&pool.levels).level, now - age));
        }
    }
    posts
}

fn invent(seed: u64, shape: &Shape) -> Vec<Step> {
    let dice = &mut Dice(seed);
    let revisions = invent_terms(dice, shape);
    let mut now = 100;
    let mut revision = 0;
    let mut behind = vec![0_usize; shape.partitions.into()];
    let mut watermarks: Vec<Option<i64>> = vec![None; shape.partitions.into()];
    let mut steps = Vec::new();
    let mut running = None;
    for _ in 0..shape.steps {
        if revision + 1 < revisions.len() && dice.chance(25) {
            revision += 1;
        }
        let mut highest = None;
        let mut drafts = Vec::new();
        for _ in 0..dice.roll(4) {
            now += if dice.chance(10) { dice.number(400) } else { dice.number(15) };
            let partition = dice.number(shape.partitions.into());
            let at = usize::try_from(partition).expect("small");
            behind[at] = behind[at].max(if dice.chance(60) { revision } else { 0 });
            highest = highest.max(Some(behind[at]));
            let terms = revisions[behind[at]].clone();
            let posts = invent_posts(dice, &terms, now);
            watermarks[at] = watermarks[at].max(Some(now * 1_000 - 2_000 + dice.number(1_000)));
            let partition = u16::try_from(partition).expect("small");
            drafts.push(Draft { partition, terms, watermark: watermarks[at], posts });
        }
        drafts.sort_by_key(|draft| draft.partition);
        if dice.chance(10) {
            highest = highest.max(Some(revision));
        }
        let idle = watermarks.iter().map(|_| dice.chance(15).then(|| now * 1_000 - 2_000)).collect();
        let terms = highest.filter(|highest| Some(*highest) > running).map(|highest| {
            running = Some(highest);
            revisions[highest].clone()
        });
        steps.push(Step { terms, drafts, idle });
    }
    // In the end every window closes, also the one that holds the first watermark where there was none before.
    for end in [now + 8_000, now + 16_000] {
        let idle = vec![Some(end * 1_000); shape.partitions.into()];
        steps.push(Step { terms: None, drafts: Vec::new(), idle });
    }
    steps
}

fn run(world: &mut World, step: &Step) -> (Vec<Taken>, Committed) {
    let frames: Vec<_> = step
        .drafts
        .iter()
        .map(|draft| world.frame(draft.partition, &draft.terms, draft.watermark, &draft.posts))
        .collect();
    let committed = world.commit(step.terms.as_ref(), frames.clone(), &step.idle);
    (frames, committed)
}

fn play(workers: usize, partitions: u16, steps: &[Step]) -> World {
    let mut world = World::with(workers, partitions, settings());
    steps.iter().for_each(|step| drop(run(&mut world, step)));
    world
}

fn model_step(model: &mut Model, step: &Step) -> Vec<(model::Key, model::Window)> {
    let mut watermarks: Vec<Option<i64>> = step.idle.iter().map(|at| at.map(|at| T0 * 1_000 + at)).collect();
    for draft in &step.drafts {
        let at = usize::from(draft.partition);
        watermarks[at] = watermarks[at].max(draft.watermark.map(|at| T0 * 1_000 + at));
    }
    let after = model.begin(step.terms.as_deref(), &watermarks);
    for draft in &step.drafts {
        draft.posts.iter().for_each(|post| model.post(&draft.terms, post));
    }
    model.close(after)
}

/// A level's total as the model has it.
fn as_model(level: &LevelTotals, model: &model::Level) -> model::Level {
    let pending = level.pending.unwrap_or_default();
    model::Level {
        currency: level.currency.clone(),
        base: level.base.0,
        ceiling: level.ceiling.map(|ceiling| ceiling.0),
        increment: model.increment,
        reserve_rate: model.reserve_rate,
        next_increment: pending.increment_ppm.map(|rate| rate.0.into()),
        next_reserve_rate: pending.reserve_ppm.map(|rate| rate.0.into()),
        next_ceiling: pending.ceiling.map(|ceiling| ceiling.0),
        current: level.current.0,
        reserve: level.reserve.0,
        diversion: level.diversion.0,
        wagers: level.wagers,
        wagered: level.wagered.0,
        contributed: level.contributed.0,
        paid: level.paid.0,
        house: level.house.0,
        hits: level.hits,
    }
}

/// A window as the model has it.
fn as_model_window(window: &jackpot_core::record::Window) -> (model::Key, model::Window) {
    let part = |share: &Share| (share.wagers, share.wagered.0, share.contributed.0);
    let mut parts = BTreeMap::new();
    let mut read = |mark: &str, shares: Option<&BTreeMap<String, Share>>| {
        parts.extend(
            shares.into_iter().flatten().map(|(name, share)| (format!("{mark}:{name}"), part(share))),
        );
    };
    read("o", Some(&window.by_operator));
    read("j", Some(&window.by_jurisdiction));
    read("g", window.by_game.as_ref());
    read("p", window.by_operator_jurisdiction.as_ref());
    let key =
        (window.window_end.second(), window.pool.clone(), window.level.clone(), i64::from(window.seconds));
    let window = model::Window {
        total: (window.wagers, window.wagered.0, window.contributed.0),
        late: window.late,
        paid: window.paid.0,
        house: window.house.0,
        hits: window.hits,
        parts,
    };
    (key, window)
}

/// The last total of each level.
fn totals(world: &World) -> BTreeMap<(String, String), LevelTotals> {
    let commits = world.record.iter().map(|recorded| &recorded.committed.commit);
    let levels = commits.flat_map(|commit| commit.levels.iter().cloned());
    levels.map(|level| ((level.pool.clone(), level.level.clone()), level)).collect()
}

fn check_against_model(steps: &[Step], partitions: u16) {
    let mut world = World::new(partitions);
    let mut model = Model::new(partitions.into(), &[1, 60, 3_600], 300);
    for step in steps {
        let paid = model.payoffs.len();
        let before = model.levels.clone();
        let closed = model_step(&mut model, step);
        let Commit { levels, windows, hits, .. } = run(&mut world, step).1.commit;
        // A revision changes every level: its total names it.
        let changed = |(key, level): &(&_, &_)| step.terms.is_some() || before.get(*key) != Some(level);
        let changed: Vec<_> = model.levels.iter().filter(changed).collect();
        assert_eq!(levels.len(), changed.len(), "exactly what changed is in a commit");
        for (level, (key, expect)) in levels.iter().zip(changed) {
            assert_eq!((&level.pool, &level.level), (&key.0, &key.1));
            assert_eq!(as_model(level, expect), *expect, "{key:?}");
        }
        let hits: Vec<_> = hits.iter().map(|h| (h.pool.clone(), h.level.clone(), h.payoff.0)).collect();
        assert_eq!(hits, model.payoffs[paid..]);
        let windows: Vec<_> = windows.iter().map(as_model_window).collect();
        let closed: Vec<_> = closed
            .into_iter()
            .map(|(key, mut window)| {
                let short = key.3 < 60;
                window.parts.retain(|part, _| !short || part.starts_with("o:") || part.starts_with("j:"));
                (key, window)
            })
            .collect();
        assert_eq!(windows, closed);
    }
    assert!(model.open.is_empty(), "in the end every window has closed");
}

fn check_windows_add_up(world: &World) {
    let mut sums: BTreeMap<(u32, String, String), [Pico; 5]> = BTreeMap::new();
    let mut counts: BTreeMap<(u32, String, String), [u64; 2]> = BTreeMap::new();
    let commits = world.record.iter().map(|recorded| &recorded.committed.commit);
    for window in commits.flat_map(|commit| &commit.windows) {
        let key = (window.seconds, window.pool.clone(), window.level.clone());
        let sum = sums.entry(key.clone()).or_default();
        assert_eq!(window.opening, sum[4], "a window opens with what the one before closed with: {key:?}");
        sum[0] += window.wagered;
        sum[1] += window.contributed;
        sum[2] += window.paid;
        sum[3] += window.house;
        sum[4] = window.closing;
        assert_eq!(window.closing, sum[1] + sum[3] - sum[2], "{key:?}");
        let count = counts.entry(key).or_default();
        count[0] += window.wagers;
        count[1] += window.hits;
        let operators = window.by_operator.values().fold(Pico::ZERO, |sum, share| sum + share.contributed);
        assert_eq!(operators, window.contributed, "operators add up to their window");
    }
    for (key, total) in totals(world) {
        let funds = total.current + total.reserve + total.diversion;
        assert_eq!(funds, total.contributed + total.house + total.adjusted - total.paid, "{key:?}");
        for seconds in [1, 60, 3_600] {
            let key = (seconds, key.0.clone(), key.1.clone());
            let sum = sums.remove(&key).unwrap_or_default();
            assert_eq!(sum, [total.wagered, total.contributed, total.paid, total.house, funds], "{key:?}");
            assert_eq!(counts.remove(&key).unwrap_or_default(), [total.wagers, total.hits], "{key:?}");
        }
    }
    assert!(sums.is_empty(), "every window is of a level that has a total");
}

/// The same frames, cut anew: never across the first frame of a revision, since changes that are immediate act
/// from the beginning of a commit.
fn cut_anew(seed: u64, steps: &[Step]) -> Vec<Step> {
    let dice = &mut Dice(seed);
    let mut cut: Vec<Step> = Vec::new();
    for step in steps {
        let mut rest = step.drafts.clone().into_iter().peekable();
        let mut terms = step.terms.clone();
        loop {
            let mut drafts = Vec::new();
            while rest.peek().is_some() && (drafts.is_empty() || dice.chance(50)) {
                drafts.extend(rest.next());
            }
            let idle = vec![None; step.idle.len()];
            let joins = terms.is_none() && dice.chance(50);
            match cut.last_mut().filter(|_| joins) {
                Some(last) => last.drafts.extend(drafts),
                None => cut.push(Step { terms: terms.take(), drafts, idle }),
            }
            if rest.peek().is_none() {
                break;
            }
        }
    }
    cut
}

#[test]
fn a_base_that_waits_for_the_first_watermark_is_in_a_window_in_the_end() {
    let steps =
        invent(10_548_341_433_302_571_312, &Shape { partitions: 1, pools: 3, revisions: 4, steps: 1 });
    check_against_model(&steps, 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_books_agree_with_the_model(seed in any::<u64>(), partitions in 1_u16..4, steps in 1_usize..30) {
        let steps = invent(seed, &Shape { partitions, pools: 3, revisions: 4, steps });
        check_against_model(&steps, partitions);
    }

    #[test]
    fn windows_add_up_to_totals(seed in any::<u64>(), partitions in 1_u16..4, steps in 1_usize..40) {
        let steps = invent(seed, &Shape { partitions, pools: 3, revisions: 4, steps });
        check_windows_add_up(&play(1, partitions, &steps));
    }

    #[test]
    fn a_replay_gives_the_same_bytes(seed in any::<u64>(), partitions in 1_u16..4, steps in 1_usize..20) {
        let steps = invent(seed, &Shape { partitions, pools: 3, revisions: 4, steps });
        let world = play(1, partitions, &steps);
        let mut again = World::with(2, partitions, settings());
        for recorded in &world.record {
            let message = &recorded.committed.message;
            let made = again.books.replay(message, recorded.frames.clone(), recorded.terms.clone());
            prop_assert_eq!(made.as_ref(), Ok(&recorded.committed));
        }
    }

    #[test]
    fn cuts_make_no_difference_to_levels(seed in any::<u64>(), steps in 1_usize..30) {
        let steps = invent(seed, &Shape { partitions: 1, pools: 3, revisions: 3, steps });
        let plain = |world: &World| -> Vec<LevelTotals> {
            let free = |level: LevelTotals| LevelTotals { sequence: 0, commit: 0, as_of: None, terms: 0, ..level };
            totals(world).into_values().map(free).collect()
        };
        let payoffs = |world: &World| -> Vec<Pico> {
            let commits = world.record.iter().map(|recorded| &recorded.committed.commit);
            commits.flat_map(|commit| commit.hits.iter().map(|hit| hit.payoff)).collect()
        };
        let (one, other) = (play(1, 1, &steps), play(1, 1, &cut_anew(seed, &steps)));
        prop_assert_eq!(plain(&one), plain(&other));
        prop_assert_eq!(payoffs(&one), payoffs(&other));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_worker_and_four_give_the_same_bytes(seed in any::<u64>(), steps in 1_usize..20) {
        let steps = invent(seed, &Shape { partitions: 3, pools: 40, revisions: 3, steps });
        let bytes = |workers| -> Vec<_> {
            play(workers, 3, &steps).record.into_iter().map(|recorded| recorded.committed.message).collect()
        };
        let one = bytes(1);
        prop_assert_eq!(&one, &bytes(4));
        prop_assert_eq!(&one, &bytes(3));
    }
}

/// What was made in vain is forgotten: books that went back make the same commits again, and can go back again.
#[test]
fn books_that_went_back_make_the_same_commits_again() {
    for workers in [1, 3] {
        let terms = terms(1, &["mega:grand 500 900 3000 1000, minor 10 - 6750 2250", "mini:only 1 2 5000 0"]);
        let mut world = World::with(workers, 1, settings());
        for number in 0..600 {
            let posts =
                [sum("mega", number, 3, "7.5"), hit("mega", "minor", number), sum("mini", number, 1, "99")];
            world.post(&terms, number * 1_000, &posts);
        }
        let World { mut books, record, .. } = world;
        let last = record.last().expect("there are commits").committed.digest;
        for _ in 0..2 {
            books = books.rewind().expect("workers start").expect("a copy was kept");
            assert_eq!(books.number(), 512, "the last copy was kept before commit 513");
            for Recorded { committed, frames, terms } in &record[512..] {
                books.replay(&committed.message, frames.clone(), terms.clone()).expect("the same commit");
            }
            assert_eq!(books.digest(), last);
        }
    }
    let new = World::new(1).books;
    assert!(new.rewind().expect("nothing is started").is_none(), "new books have nothing to go back to");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// Books that a snapshot gives back go on with the same bytes, whatever it was taken in the middle of.
    #[test]
    fn a_snapshot_is_the_whole_of_the_books(seed in any::<u64>(), steps in 2_usize..30, at in any::<prop::sample::Index>()) {
        let steps = invent(seed, &Shape { partitions: 2, pools: 3, revisions: 3, steps });
        let record = play(1, 2, &steps).record;
        let mut books = Books::start(1, 2, settings()).expect("settings that can be used");
        let at = 1 + at.index(record.len() - 1);
        for Recorded { committed, frames, terms } in &record[..=at] {
            books.keep_next();
            books.replay(&committed.message, frames.clone(), terms.clone()).expect("the same commit");
        }
        let frozen = books.freeze().expect("a copy was kept");
        let before = usize::try_from(frozen.frame).expect("small");
        prop_assert_eq!(before, at, "the copy is that of the commit before");
        prop_assert_eq!(frozen.digest, record[before - 1].committed.digest);
        let read: Vec<_> = record[before - 1].committed.commit.partitions.iter().map(|consumed| consumed.frame).collect();
        prop_assert_eq!(&frozen.read, &read);
        let content: Vec<u8> = frozen.pieces.flatten().collect();
        for workers in [1, 3] {
            let mut thawed = Books::thaw(workers, &settings(), Saved(&content)).expect("it is whole");
            for Recorded { committed, frames, terms } in &record[before..] {
                thawed.replay(&committed.message, frames.clone(), terms.clone()).expect("the same commit");
            }
        }
        prop_assert!(Books::thaw(1, &settings(), Saved(&content[..content.len() - 1])).is_err(), "a part is no state");
        let others = WindowSettings { seconds: vec![1, 60], ..settings() };
        let said = Books::thaw(1, &others, Saved(&content)).err().expect("other windows").to_string();
        prop_assert!(said.contains("keep windows of [1, 60, 3600] seconds and the settings say [1, 60]"), "{}", said);
    }
}
