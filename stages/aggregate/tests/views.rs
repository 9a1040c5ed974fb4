//! The views as readers meet them, over the log in memory and a clock that the test moves: everything of `commits` in
//! order, `totals` no faster than the contract says, and the last state never left out, across restarts too.

#![expect(clippy::unwrap_used, reason = "a check that cannot go on has failed")]

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use aggregate::views::exact::{ExactView, Kind};
use aggregate::views::totals::TotalsView;
use jackpot_core::log::jetstream::setup::{SetUp, streams};
use jackpot_core::log::memory::Memory;
use jackpot_core::log::{Append, Appender, Entry, Expect, Log, Reader};
use jackpot_core::metrics::business::Business;
use jackpot_core::record::{Commit, Window};
use jackpot_core::refusal::StageName;
use jackpot_core::runner::{Context, drive};
use jackpot_core::terms::Terms;
use jackpot_core::time::Millis;
use jackpot_core::topology;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use world::{T0, World, hit, sum, sum_of, terms};

#[allow(dead_code, reason = "each test crate uses a part of it")]
#[path = "ledger/world.rs"]
mod world;

/// Between two commits.
const PACE: Duration = Duration::from_millis(10);

/// A log whose clock is tokio's, which stands still while anybody works.
fn memory() -> Memory {
    let start = Instant::now();
    let now = move || Millis(T0 * 1_000).plus(i64::try_from(start.elapsed().as_millis()).unwrap());
    Memory::new(streams(&SetUp::new(1)), now)
}

/// Runs all three views while something else goes on, then stops them as a process does.
async fn viewed(log: &Memory, meanwhile: impl Future<Output = ()>) {
    let (stop, shutdown) = watch::channel(false);
    let context = &Context::new(log.clone(), StageName::Aggregate, shutdown);
    let exact = |kind| async move { drive(context, ExactView::new(context.clone(), kind)).await };
    let totals = drive(context, TotalsView::new(context.clone()));
    let meanwhile = async {
        meanwhile.await;
        stop.send_replace(true);
    };
    tokio::join!(totals, exact(Kind::Hits), exact(Kind::Windows), meanwhile);
}

/// Appends so many commits, one every [`PACE`]; in each all pools get a wager, and every tenth hits the first one.
async fn commit(log: &Memory, world: &mut World, terms: &Arc<Terms>, count: i64) {
    let mut appender = log.appender().await.unwrap();
    for _ in 0..count {
        let number = world.books.number();
        let second = i64::try_from(number).unwrap() / 10;
        let pools = terms.pools.iter().map(|pool| sum(&pool.pool, second, 1, "1"));
        let hits = number.is_multiple_of(10).then(|| hit("pool-000", "only", second));
        let posts: Vec<_> = pools.chain(hits).collect();
        let payload = world.post(terms, second * 1_000, &posts).message;
        let expect = Expect::Last(number);
        let append = Append { subject: topology::COMMITS.into(), headers: Vec::new(), payload, expect };
        appender.send(append).await.unwrap();
        appender.acknowledged().await.unwrap();
        sleep(PACE).await;
    }
}

async fn all(log: &Memory, stream: &str) -> Vec<Entry> {
    let count = log.extent(stream).await.unwrap().last;
    let mut reader = log.read(stream, None, 1).await.unwrap();
    let mut entries = Vec::new();
    for _ in 0..count {
        entries.push(reader.next().await.unwrap());
    }
    entries
}

fn json(entry: &Entry) -> Value {
    serde_json::from_slice(&entry.payload).unwrap()
}

/// No second, wherever it begins, has more than so many of these.
fn check_pace(entries: &[&Entry], most: usize) {
    for window in entries.windows(most + 1) {
        let (first, last) = (window[0].recorded_at, window[most].recorded_at);
        assert!(last.0 - first.0 >= 1_000, "{most} and one more between {first} and {last}");
    }
}

/// Many pools, each changed by each of many commits; the views are stopped and started again amid them.
async fn run(pools: usize) -> (Memory, BTreeMap<String, Vec<Entry>>) {
    let log = memory();
    let names: Vec<_> = (0..pools).map(|i| format!("pool-{i:03}:only 10 - 100000 0")).collect();
    let terms = terms(1, &names.iter().map(String::as_str).collect::<Vec<_>>());
    let mut world = World::new(1);
    viewed(&log, commit(&log, &mut world, &terms, 150)).await;
    commit(&log, &mut world, &terms, 20).await;
    viewed(&log, async {
        commit(&log, &mut world, &terms, 130).await;
        sleep(Duration::from_secs(3)).await;
    })
    .await;
    let mut subjects: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
    for entry in all(&log, topology::TOTALS).await {
        subjects.entry(entry.subject.to_string()).or_default().push(entry);
    }
    assert_eq!(subjects.len(), pools);
    (log, subjects)
}

#[tokio::test(start_paused = true)]
async fn totals_are_thinned_per_level_and_the_last_state_is_shown() {
    let (log, subjects) = run(3).await;
    let commits: Vec<Commit> = all(&log, topology::COMMITS)
        .await
        .iter()
        .map(|entry| serde_json::from_slice(&entry.payload).unwrap())
        .collect();
    for (subject, shown) in &subjects {
        check_pace(&shown.iter().collect::<Vec<_>>(), 20);
        assert!((50..=62).contains(&shown.len()), "about as many as may be, of 300: {}", shown.len());
        let shown: Vec<_> = shown.iter().map(json).collect();
        assert!(shown.is_sorted_by_key(|total| total["sequence"].as_u64()), "{subject}: never an older one");
        for total in &shown {
            let commit = &commits[usize::try_from(total["commit"].as_u64().unwrap()).unwrap() - 1];
            let levels = commit.levels.iter().map(|level| serde_json::to_value(level).unwrap());
            assert!(levels.into_iter().any(|level| level == *total), "{total} is what the commit says");
        }
        assert_eq!(shown.last().unwrap()["commit"], commits.len(), "{subject}: the last state");
    }
    for (view, count) in [(topology::HITS, 30), (topology::WINDOWS, 0)] {
        let shown: Vec<_> = all(&log, view).await.iter().map(json).collect();
        let committed = commits.iter().map(|commit| serde_json::to_value(commit).unwrap());
        let committed: Vec<_> =
            committed.flat_map(|commit| commit[view].as_array().unwrap().clone()).collect();
        assert_eq!(shown, committed, "{view}: every one, once, in commit order");
        assert!(shown.len() >= count, "{view}: {}", shown.len());
    }
    assert!(log.extent(topology::WINDOWS).await.unwrap().last >= 3 * 27, "windows of a second have closed");
}

#[tokio::test(start_paused = true)]
async fn totals_are_thinned_over_all_levels_and_the_last_states_are_shown() {
    let (log, subjects) = run(150).await;
    let all = all(&log, topology::TOTALS).await;
    check_pace(&all.iter().collect::<Vec<_>>(), 2_000);
    let last = log.extent(topology::COMMITS).await.unwrap().last;
    for (subject, shown) in &subjects {
        check_pace(&shown.iter().collect::<Vec<_>>(), 20);
        assert_eq!(json(shown.last().unwrap())["commit"], last, "{subject}: the last state");
    }
    assert_eq!(last, 300);
}

/// What is written is looked at, not what was computed: the third commit is changed on its way.
#[tokio::test(start_paused = true)]
async fn books_out_of_balance_are_told_while_they_are_shown() {
    let log = memory();
    let terms = terms(1, &["pool-000:only 10 - 100000 0", "pool-001:only 10 - 100000 0"]);
    let mut world = World::new(1);
    let mut appender = log.appender().await.unwrap();
    let (stop, shutdown) = watch::channel(false);
    let context = &Context::new(log.clone(), StageName::Aggregate, shutdown);
    let told = || -> String {
        let text = context.metrics.render();
        let mut lines = text.lines();
        let sample = "jackpot_conservation_difference{stage=\"aggregate\"} ";
        lines.find_map(|line| line.strip_prefix(sample)).unwrap().to_owned()
    };
    let commits = async {
        for (number, expect) in (0..).zip(["0", "0", "0.5", "0"]) {
            let posts = terms.pools.iter().map(|pool| sum(&pool.pool, 0, 1, "1"));
            let message = world.post(&terms, 0, &posts.collect::<Vec<_>>()).message;
            let text = std::str::from_utf8(&message).unwrap();
            let wrong = text.replacen("\"reserve\":\"0\"", "\"reserve\":\"0.5\"", 1);
            let payload = if number == 2 { wrong.into() } else { message };
            let expect_last = Expect::Last(number);
            let subject = topology::COMMITS.to_owned();
            let append = Append { subject, headers: Vec::new(), payload, expect: expect_last };
            appender.send(append).await.unwrap();
            appender.acknowledged().await.unwrap();
            sleep(Duration::from_secs(1)).await;
            assert_eq!(told(), expect, "after commit {}", number + 1);
        }
        stop.send_replace(true);
    };
    tokio::join!(drive(context, TotalsView::new(context.clone())), commits);
}

/// What a metric says of the series that have this label.
fn told(context: &Context<Memory>, metric: &str, label: &str) -> Vec<String> {
    let text = context.metrics.render();
    let lines = text.lines().filter(|line| line.starts_with(&format!("{metric}{{")) && line.contains(label));
    lines.map(|line| line.rsplit_once(' ').unwrap().1.to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn the_business_counts_each_window_once_across_starts_of_the_views() {
    let log = memory();
    let terms = terms(1, &["pool-000:only 10 - 100000 0, more 5 - 50000 0"]);
    let mut world = World::new(1);
    let mut appender = log.appender().await.unwrap();
    let (stop, shutdown) = watch::channel(false);
    let mut context = Context::new(log.clone(), StageName::Aggregate, shutdown);
    let business = Business::register(&context.metrics, StageName::Aggregate, Some(60));
    stop.send_replace(true);
    for minute in 0..12 {
        let number = world.books.number();
        let posts = [("acme", "MT"), ("acme", "GB"), ("other", "MT")].map(|(operator, jurisdiction)| {
            sum_of("pool-000", minute * 60, 1, "0.3", operator, jurisdiction, "spin")
        });
        let payload = world.post(&terms, minute * 60_000, &posts).message;
        let subject = topology::COMMITS.to_owned();
        let append = Append { subject, headers: Vec::new(), payload, expect: Expect::Last(number) };
        appender.send(append).await.unwrap();
        appender.acknowledged().await.unwrap();
        // The views run for a while after every other commit, each time from a new start.
        if minute % 2 == 1 {
            let (stop, shutdown) = watch::channel(false);
            context.shutdown = shutdown;
            let windows =
                ExactView::new(context.clone(), Kind::Windows).with_business(Some(business.clone()));
            let stopping = async {
                sleep(Duration::from_secs(1)).await;
                stop.send_replace(true);
            };
            tokio::join!(drive(&context, windows), stopping);
        }
    }
    let windows = all(&log, topology::WINDOWS).await;
    let windows = windows.iter().map(|entry| serde_json::from_slice::<Window>(&entry.payload).unwrap());
    let windows: Vec<_> = windows.filter(|window| window.seconds == 60).collect();
    assert_eq!(windows.len(), 2 * 11, "of both levels, one of each minute but the last");
    assert_eq!(told(&context, "jackpot_operator_contributed_total", "pool-000"), ["0.495"; 3]);
    assert_eq!(told(&context, "jackpot_operator_contributed_total", "operator=\"other\""), ["0.495"]);
    assert_eq!(told(&context, "jackpot_game_contributed_total", "game=\"spin\""), ["1.485"]);
}

#[tokio::test(start_paused = true)]
async fn a_process_tells_of_all_levels_while_it_shows_them_and_of_none_while_another_does() {
    let log = memory();
    let terms = terms(1, &["pool-000:only 10 - 100000 0", "pool-001:only 10 - 100000 0"]);
    let mut world = World::new(1);
    let mut context = Context::new(log.clone(), StageName::Aggregate, watch::channel(false).1);
    let business = Business::register(&context.metrics, StageName::Aggregate, None);
    let wagers = |context: &Context<Memory>| told(context, "jackpot_level_wagers_total", "");
    let (stop, shutdown) = watch::channel(false);
    context.shutdown = shutdown;
    let view = TotalsView::new(context.clone()).with_business(Some(business.clone()));
    let working = async {
        commit(&log, &mut world, &terms, 30).await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(wagers(&context), ["30", "30"]);
        let entry = all(&log, topology::TOTALS).await.pop().unwrap();
        let last = log.extent(topology::TOTALS).await.unwrap().last;
        let mut appender = log.appender().await.unwrap();
        let append = Append {
            subject: entry.subject.to_string(),
            headers: vec![(topology::SETTLED.into(), "0".into())],
            payload: entry.payload.clone(),
            expect: Expect::Last(last),
        };
        appender.send(append).await.unwrap();
        appender.acknowledged().await.unwrap();
        commit(&log, &mut world, &terms, 1).await;
        sleep(Duration::from_millis(500)).await;
        assert!(wagers(&context).is_empty(), "somebody else wrote: this process stands by");
        stop.send_replace(true);
    };
    tokio::join!(drive(&context, view), working);
}
