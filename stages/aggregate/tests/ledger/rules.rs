//! The contract's rules one by one, with tiny inputs and exact numbers.

use std::sync::Arc;

use aggregate::commit::{Committed, Cut};
use jackpot_core::limits;
use jackpot_core::record::{LevelTotals, Window};
use jackpot_core::terms::Terms;

use crate::world::*;

/// `level: current reserve diversion | wagers wagered contributed paid house hits`, changed levels in order.
fn levels(committed: &Committed) -> Vec<String> {
    let one = |l: &LevelTotals| {
        format!(
            "{}: {} {} {} | {} {} {} {} {} {}",
            l.level,
            l.current,
            l.reserve,
            l.diversion,
            l.wagers,
            l.wagered,
            l.contributed,
            l.paid,
            l.house,
            l.hits
        )
    };
    committed.commit.levels.iter().map(one).collect()
}

/// `level seconds@start: opening closing | wagers wagered contributed paid house hits late`.
fn windows(committed: &Committed) -> Vec<String> {
    let one = |w: &Window| {
        format!(
            "{} {}@{}: {} {} | {} {} {} {} {} {} {}",
            w.level,
            w.seconds,
            w.window_start.second() - T0,
            w.opening,
            w.closing,
            w.wagers,
            w.wagered,
            w.contributed,
            w.paid,
            w.house,
            w.hits,
            w.late
        )
    };
    committed.commit.windows.iter().map(one).collect()
}

fn one_level() -> Arc<Terms> {
    terms(1, &["mega:grand 10 - 100000 50000"])
}

#[test]
fn a_commit_is_these_bytes() {
    let mut world = World::new(2);
    let committed = world.post(&one_level(), 2_000, &[sum("mega", 4, 2, "2.50"), hit("mega", "grand", 4)]);
    let digest = committed.commit.partitions[0].digest;
    let expect = format!(
        concat!(
            r#"{{"commit":1,"previous":"0000000000000000000000000000000000000000000000000000000000000000","#,
            r#""terms":1,"as_of":"2026-06-08T20:00:10.000Z","partitions":["#,
            r#"{{"frame":1,"digest":"{}","watermark":"2026-06-08T20:00:02.000Z"}},"#,
            r#"{{"frame":0,"digest":"0000000000000000000000000000000000000000000000000000000000000000","watermark":null}}],"#,
            r#""settings":{{"seconds":[1,60,3600],"max_skew_s":300}},"counts":{{"windows":0,"hits":1,"changed":1}},"#,
            r#""levels":[{{"pool":"mega","level":"grand","currency":"EUR","sequence":1,"commit":1,"terms":1,"#,
            r#""as_of":"2026-06-08T20:00:10.000Z","current":"10","display":"10","base":"10","ceiling":null,"#,
            r#""pending":null,"reserve":"0","diversion":"0","wagers":2,"wagered":"2.5","contributed":"0.375","#,
            r#""paid":"10.25","house":"19.875","adjusted":"0","hits":1}}],"windows":[],"#,
            r#""hits":[{{"pool":"mega","level":"grand","currency":"EUR","sequence":1,"commit":1,"order":0,"#,
            r#""wager":"acme-eu1/7/1","operator":"acme","source":"acme-eu1","game":"spin","round":"r-1","#,
            r#""jurisdiction":"MT","occurred_at":"2026-06-08T20:00:04.005Z","#,
            r#""recorded_at":"2026-06-08T20:00:04.105Z","payoff":"10.25","current":"10","from_diversion":"0","#,
            r#""from_reserve":"0.125","from_house":"9.875","base":"10","terms":1}}]}}"#,
        ),
        digest
    );
    assert_eq!(std::str::from_utf8(&committed.message), Ok(expect.as_str()));
    let heartbeat = world.commit(None, vec![], &[None, None]);
    assert_eq!(heartbeat.commit.previous, committed.digest);
    assert_eq!(heartbeat.commit.counts, committed.commit.counts, "a heartbeat changes nothing");
    assert_eq!((heartbeat.commit.as_of, heartbeat.commit.levels.len()), (committed.commit.as_of, 0));
}

#[test]
fn a_new_level_is_in_totals_with_the_commit_that_first_runs_its_revision() {
    let mut world = World::new(1);
    let committed = world.commit(Some(&one_level()), vec![], &[Some(1_000)]);
    assert_eq!(levels(&committed), ["grand: 10 0 0 | 0 0 0 0 10 0"]);
    let second = terms(2, &["mega:grand 10 - 100000 50000,minor 3 - 1000 0", "mini:only 1 - 0 0"]);
    let committed = world.commit(Some(&second), vec![], &[None]);
    let expect = ["grand: 10 0 0 | 0 0 0 0 10 0", "minor: 3 0 0 | 0 0 0 0 3 0", "only: 1 0 0 | 0 0 0 0 1 0"];
    assert_eq!(levels(&committed), expect);
    assert_eq!(committed.commit.terms, 2);
}

#[test]
fn changes_that_wait_are_shown_and_take_effect_exactly_at_the_hit() {
    let mut world = World::new(1);
    world.post(&one_level(), 0, &[sum("mega", 1, 1, "30")]);
    let second = terms(2, &["mega:grand 12 12.5 200000 50000"]);
    let committed = world.commit(Some(&second), vec![], &[None]);
    let shown = serde_json::to_value(&committed.commit.levels[0]).expect("plain data");
    assert_eq!(shown["pending"], serde_json::json!({"increment_ppm": 200_000, "ceiling": "12.5"}));
    assert_eq!((shown["base"].as_str(), shown["ceiling"].as_str()), (Some("12"), None));
    // From 13, 10 at 10 % before the hit, which pays 14 and refills 12, 2 of it from the reserve; then 10 at the
    // new 20 %, of which the new ceiling leaves 0.5 and diverts 1.5.
    let posts = [sum("mega", 5, 1, "10"), hit("mega", "grand", 5), sum("mega", 5, 1, "10")];
    let committed = world.post(&second, 3_000, &posts);
    assert_eq!(levels(&committed), ["grand: 12.5 0.5 1.5 | 3 50 8.5 14 20 1"]);
    assert_eq!(committed.commit.levels[0].pending, None);
    let committed = world.commit(None, vec![], &[Some(6_000)]);
    assert_eq!(windows(&committed), ["grand 1@5: 14.5 14.5 | 2 20 4 14 10 1 0"]);
    assert_eq!(committed.commit.windows[0].by_operator["acme"].contributed.to_string(), "4");
}

#[test]
fn going_back_to_the_old_value_leaves_nothing_waiting() {
    let mut world = World::new(1);
    world.commit(Some(&one_level()), vec![], &[Some(0)]);
    world.commit(Some(&terms(2, &["mega:grand 10 - 200000 50000"])), vec![], &[None]);
    let committed = world.commit(Some(&terms(3, &["mega:grand 10 - 100000 50000"])), vec![], &[None]);
    assert_eq!(committed.commit.levels[0].pending, None);
    assert_eq!(committed.commit.levels[0].sequence, 3);
    let committed = world.commit(Some(&terms(4, &["mega:grand 10 - 100000 50000"])), vec![], &[None]);
    let total = &committed.commit.levels[0];
    assert_eq!(
        (total.terms, total.sequence),
        (4, 4),
        "a total names the highest revision, whatever it changes"
    );
    assert_eq!(levels(&committed), ["grand: 10 0 0 | 0 0 0 0 10 0"]);
}

#[test]
fn a_frame_of_an_older_revision_posts_to_the_levels_of_its_own() {
    let mut world = World::new(2);
    let (first, second) = (one_level(), terms(2, &["mega:grand 10 - 100000 50000,minor 3 - 1000 0"]));
    let old = world.frame(0, &first, Some(0), &[sum("mega", 2, 1, "1")]);
    let new = world.frame(1, &second, Some(0), &[sum("mega", 2, 1, "1")]);
    let committed = world.commit(Some(&second), vec![old, new], &[None, None]);
    let expect = ["grand: 10.2 0.1 0 | 2 2 0.3 0 10 0", "minor: 3.001 0 0 | 1 1 0.001 0 3 0"];
    assert_eq!(levels(&committed), expect);
    let committed = world.commit(None, vec![], &[Some(3_000), Some(3_000)]);
    let expect = ["grand 1@2: 10 10.3 | 2 2 0.3 0 0 0 0", "minor 1@2: 3 3.001 | 1 1 0.001 0 0 0 0"];
    assert_eq!(windows(&committed)[2..], expect);
}

#[test]
fn hits_apply_in_log_order_and_the_next_takes_what_the_refill_made() {
    let mut world = World::new(2);
    let terms = one_level();
    let b = world.frame(1, &terms, Some(0), &[sum("mega", 2, 1, "5"), hit("mega", "grand", 2)]);
    let a = world.frame(0, &terms, Some(0), &[sum("mega", 2, 1, "5"), hit("mega", "grand", 2)]);
    let committed = world.commit(Some(&terms), vec![b, a], &[None, None]);
    let hits: Vec<_> = committed
        .commit
        .hits
        .iter()
        .map(|hit| format!("{} {} {} {}", hit.order, hit.sequence, hit.payoff, hit.current))
        .collect();
    assert_eq!(hits, ["0 1 10.5 10", "1 2 10.5 10"]);
    assert_eq!(levels(&committed), ["grand: 10 0 0 | 2 10 1.5 21 29.5 2"]);
}

#[test]
fn windows_chain_from_opening_to_closing_and_empty_ones_are_left_out() {
    let mut world = World::new(1);
    let terms = one_level();
    world.commit(Some(&terms), vec![], &[Some(1_500)]);
    let committed = world.post(&terms, 2_500, &[sum("mega", 4, 1, "1"), sum("mega", 59, 1, "1")]);
    assert_eq!(windows(&committed), ["grand 1@1: 0 10 | 0 0 0 0 10 0 0"], "the base's window");
    let committed = world.post(&terms, 58_000, &[sum("mega", 60, 2, "2"), hit("mega", "grand", 4)]);
    assert_eq!(windows(&committed), ["grand 1@4: 10 10.15 | 1 1 0.15 0 0 0 0"]);
    let committed = world.commit(None, vec![], &[Some(3_600_000)]);
    let expect = [
        "grand 1@59: 10.15 10.3 | 1 1 0.15 0 0 0 0",
        "grand 60@0: 0 10.3 | 2 2 0.3 0 10 0 0",
        // 10.4 paid, refilled with 0.2 of the reserve and 9.8 of the house, in the latest window.
        "grand 1@60: 10.3 10 | 2 2 0.3 10.4 9.8 1 0",
        "grand 60@60: 10.3 10 | 2 2 0.3 10.4 9.8 1 0",
        "grand 3600@0: 0 10 | 4 4 0.6 10.4 19.8 1 0",
    ];
    assert_eq!(windows(&committed), expect);
    assert_eq!(committed.commit.counts.windows, 7);
}

#[test]
fn a_late_event_counts_in_the_earliest_open_window_of_each_length_and_in_its_late() {
    let mut world = World::new(1);
    let terms = one_level();
    world.commit(Some(&terms), vec![], &[Some(65_000)]);
    // Of these, second 64 is late for its second alone, second 10 also for its minute.
    let posts = [sum("mega", 64, 2, "1"), sum("mega", 10, 3, "1"), sum("mega", 65, 4, "1")];
    world.post(&terms, 65_000, &posts);
    let committed = world.commit(None, vec![], &[Some(3_600_000)]);
    let expect = [
        "grand 1@65: 0 10.45 | 9 3 0.45 0 10 0 5",
        "grand 60@60: 0 10.45 | 9 3 0.45 0 10 0 3",
        "grand 3600@0: 0 10.45 | 9 3 0.45 0 10 0 0",
    ];
    assert_eq!(windows(&committed), expect);
}

#[test]
fn a_base_goes_to_the_earliest_window_that_is_open_at_its_commit() {
    // Before any watermark: where the first one will lie.
    let mut world = World::new(1);
    let terms = one_level();
    assert_eq!(windows(&world.commit(Some(&terms), vec![], &[None])), [""; 0]);
    let committed = world.commit(None, vec![], &[Some(70_000)]);
    assert_eq!(windows(&committed), [""; 0], "the window that holds the watermark is open");
    let committed = world.commit(None, vec![], &[Some(71_000)]);
    assert_eq!(windows(&committed), ["grand 1@70: 0 10 | 0 0 0 0 10 0 0"]);
    // After: where the watermark stands before the commit, though the commit itself closes that window.
    let mut world = World::new(1);
    world.commit(None, vec![], &[Some(70_000)]);
    let committed = world.commit(Some(&terms), vec![], &[Some(75_000)]);
    assert_eq!(windows(&committed), ["grand 1@70: 0 10 | 0 0 0 0 10 0 0"]);
}

#[test]
fn the_slowest_partition_holds_windows_back_until_the_skew_is_too_great() {
    let mut world = World::new(2);
    let terms = one_level();
    world.commit(Some(&terms), vec![], &[Some(0), None]);
    let closes =
        |world: &mut World, idle: [Option<i64>; 2]| windows(&world.commit(None, vec![], &idle)).len();
    let base = "the base is in the windows where the skew had put the watermark";
    assert_eq!(closes(&mut world, [Some(0), Some(0)]), 3, "{base}");
    let frame = world.frame(0, &terms, Some(9_000), &[sum("mega", 5, 1, "1")]);
    assert_eq!(windows(&world.commit(None, vec![frame], &[None, None])).len(), 0);
    assert_eq!(closes(&mut world, [Some(305_999), None]), 0);
    assert_eq!(closes(&mut world, [Some(306_000), None]), 1);
    assert_eq!(closes(&mut world, [Some(1_000), Some(1_000)]), 0, "watermarks never go back");
}

/// What a snapshot of the books takes, behind the commit that this frame makes.
fn frozen_bytes(world: &mut World, terms: &Arc<Terms>, second: i64) -> usize {
    world.books.keep_next();
    world.post(terms, second * 1_000 - 2_000, &[sum("mega", second, 1, "10")]);
    let frozen = world.books.freeze().expect("the commit before is kept");
    frozen.pieces.map(|piece| piece.len()).sum()
}

#[test]
fn a_partition_that_stopped_for_a_day_leaves_the_books_as_large_as_they_were() {
    let (mut world, terms) = (World::new(2), one_level());
    let last = world.frame(1, &terms, Some(-2_000), &[sum("mega", 0, 1, "10")]);
    world.commit(Some(&terms), vec![last], &[None, None]);
    let mut bytes = Vec::new();
    for hour in 0..24 {
        // Every 20 seconds a wager: some 15 windows of a second are open within the skew, but 4,320 would be in a day.
        for second in (hour * 3_600..(hour + 1) * 3_600).step_by(20) {
            world.post(&terms, second * 1_000 - 2_000, &[sum("mega", second, 1, "10")]);
        }
        bytes.push(frozen_bytes(&mut world, &terms, (hour + 1) * 3_600));
    }
    assert_eq!(bytes[0].abs_diff(bytes[23]) / 64, 0, "{bytes:?}");
    let closed: usize = world.record.iter().map(|recorded| recorded.committed.commit.windows.len()).sum();
    assert!(closed > 4_320, "the windows of a day but its end are closed: {closed}");
}

#[test]
fn windows_are_broken_down_by_who_and_where_and_longer_ones_by_what() {
    let mut world = World::new(1);
    let terms = one_level();
    let posts = [
        sum_of("mega", 1, 1, "1", "acme", "MT", "spin"),
        sum_of("mega", 1, 2, "2", "acme", "US-NV", "spin"),
        sum_of("mega", 1, 4, "4", "beta", "MT", "dice"),
    ];
    world.post(&terms, 1_000, &posts);
    let committed = world.commit(None, vec![], &[Some(60_000)]);
    let [.., second, minute] = &committed.commit.windows[..] else { panic!("two windows") };
    let shares = |shares: &std::collections::BTreeMap<String, jackpot_core::record::Share>| {
        let one = |(name, s): (&String, &jackpot_core::record::Share)| {
            format!("{name} {} {} {}", s.wagers, s.wagered, s.contributed)
        };
        shares.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    assert_eq!((second.seconds, minute.seconds), (1, 60));
    for window in [second, minute] {
        assert_eq!(shares(&window.by_operator), "acme 3 3 0.45, beta 4 4 0.6");
        assert_eq!(shares(&window.by_jurisdiction), "MT 5 5 0.75, US-NV 2 2 0.3");
    }
    assert_eq!((&second.by_game, &second.by_operator_jurisdiction), (&None, &None));
    let by_game = minute.by_game.as_ref().map(shares);
    assert_eq!(by_game.as_deref(), Some("dice 4 4 0.6, spin 3 3 0.45"));
    let by_pair = minute.by_operator_jurisdiction.as_ref().map(shares);
    assert_eq!(by_pair.as_deref(), Some("acme/MT 1 1 0.15, acme/US-NV 2 2 0.3, beta/MT 4 4 0.6"));
}

#[test]
fn windows_that_are_too_many_for_a_commit_close_in_the_next_ones() {
    let level = |i| format!("l{i} 0 - 1000 0");
    let pool = format!("mega:{}", (0..8).map(level).collect::<Vec<_>>().join(","));
    let terms = terms(1, &[&pool]);
    let mut world = World::new(1);
    world.commit(Some(&terms), vec![], &[Some(0)]);
    for part in 0..2 {
        let game = |i| sum_of("mega", 30, 1, "1.234567", "acme", "MT", &format!("game-{}", part * 1_000 + i));
        let posts: Vec<_> = (0..1_000).map(game).collect();
        world.post(&terms, 0, &posts);
    }
    let mut published = Vec::new();
    let mut idle = 60_000;
    loop {
        let committed = world.commit(None, vec![], &[Some(idle)]);
        assert!(committed.message.len() <= limits::COMMIT_BYTES_MAX, "{}", committed.message.len());
        assert!(!committed.commit.windows.is_empty(), "at least one closes in every commit");
        published.extend(committed.commit.windows.iter().map(|w| (w.window_end, w.level.clone(), w.seconds)));
        if world.books.backlog() == 0 {
            break;
        }
        // A frame is taken beside the windows that wait; its wager is late, and theirs are frozen.
        idle += 1_000;
        let frame = world.frame(0, &terms, None, &[sum("mega", 30, 1, "1")]);
        assert!(world.books.cut().takes(&frame.frame));
        world.commit(None, vec![frame], &[None]);
    }
    assert!(world.record.len() > 5, "it took several commits");
    assert!(published.is_sorted());
    let minutes: Vec<_> = world
        .record
        .iter()
        .flat_map(|recorded| &recorded.committed.commit.windows)
        .filter(|window| window.seconds == 60 && window.window_end.second() == T0 + 60)
        .map(|window| (window.level.clone(), window.wagers, window.by_game.as_ref().map(|games| games.len())))
        .collect();
    let expect: Vec<_> = (0..8).map(|i| (format!("l{i}"), 2_000, Some(2_000))).collect();
    assert_eq!(minutes, expect);
}

#[test]
fn a_commit_takes_no_frame_that_could_make_it_too_large() {
    let pools: Vec<_> = (0..1_000).map(|i| format!("pool-{i:04}:only 0 - 0 0")).collect();
    let terms = terms(1, &pools.iter().map(String::as_str).collect::<Vec<_>>());
    let mut world = World::new(1);
    let mut frame = |pools: std::ops::Range<usize>, hits: usize| {
        let sums = pools.map(|i| sum(&format!("pool-{i:04}"), 1, 1, "1"));
        let hits = std::iter::repeat_n(hit("pool-0000", "only", 1), hits);
        world.frame(0, &terms, None, &sums.chain(hits).collect::<Vec<_>>()).frame
    };
    let (half, same, more, hits) = (frame(0..400, 0), frame(0..400, 0), frame(0..600, 0), frame(0..400, 120));
    let mut cut = Cut::new(0);
    assert!(cut.takes(&half) && cut.takes(&same), "the same levels are counted once");
    assert!(!cut.clone().takes(&more) && !cut.clone().takes(&hits) && cut.takes(&same));
    let mut cut = Cut::new(0);
    assert!(cut.takes(&frame(0..1_000, 200)), "the first frame is always taken");
    assert!(!cut.takes(&half));
    let mut cut = Cut::new(0);
    cut.learn(&terms);
    assert!(cut.takes(&half) && !cut.takes(&half), "a revision may change every level");
    let mut cut = Cut::new(limits::COMMIT_BYTES_MAX);
    assert!(!cut.takes(&half), "a window that waits has room");
}

/// `run` must give a contradiction that says `expect`, and leave the books as they were.
fn contradiction(
    expect: &str,
    run: impl FnOnce(&mut World) -> Result<Committed, jackpot_core::stage::Contradiction>,
) {
    let mut world = World::new(1);
    world.post(&one_level(), 0, &[sum("mega", 1, 1, "1")]);
    let error = run(&mut world).expect_err(expect).to_string();
    assert!(error.contains(expect), "{error}");
    assert_eq!(world.books.number(), 1);
    assert!(world.try_commit(None, vec![], &[None]).is_ok(), "nothing has happened");
}

#[test]
fn what_contradicts_the_books_is_refused_whole() {
    let frame = |world: &mut World, terms: &Terms, post: Post| world.frame(0, terms, None, &[post]);
    contradiction("names the pool other, which the books do not know", |world| {
        let frame = frame(world, &one_level(), sum("other", 1, 1, "1"));
        world.try_commit(None, vec![frame], &[None])
    });
    contradiction("names the level mega/minor, which the books do not know", |world| {
        let wide = terms(1, &["mega:grand 10 - 100000 50000,minor 3 - 1000 0"]);
        let frame = frame(world, &wide, sum("mega", 1, 1, "1"));
        world.try_commit(None, vec![frame], &[None])
    });
    contradiction("a hit of mega/minor, a level that it does not list", |world| {
        let frame = frame(world, &one_level(), hit("mega", "minor", 1));
        world.try_commit(None, vec![frame], &[None])
    });
    contradiction("outside the calendar", |world| {
        let frame = frame(world, &one_level(), sum("mega", i64::MAX / 2, 1, "1"));
        world.try_commit(None, vec![frame], &[None])
    });
    contradiction("hand the revision in", |world| {
        let second = terms(2, &["mega:grand 10 - 100000 50000"]);
        let frame = frame(world, &second, sum("mega", 1, 1, "1"));
        world.try_commit(None, vec![frame], &[None])
    });
    contradiction("does not follow frame 1", |world| {
        let skipped = frame(world, &one_level(), sum("mega", 1, 1, "1"));
        let next = frame(world, &one_level(), sum("mega", 1, 1, "1"));
        assert_ne!(skipped.digest, next.digest);
        world.try_commit(None, vec![next], &[None])
    });
    contradiction("does not follow frame 1", |world| {
        let mut forged = frame(world, &one_level(), sum("mega", 1, 1, "1"));
        forged.frame.header.previous = forged.digest;
        world.try_commit(None, vec![forged], &[None])
    });
    contradiction("watermarks of 2 partitions", |world| world.try_commit(None, vec![], &[None, None]));
    contradiction("drops the level mega/grand", |world| {
        world.try_commit(Some(&terms(2, &["mega:minor 10 - 100000 50000"])), vec![], &[None])
    });
    contradiction("drops the pool mega", |world| {
        world.try_commit(Some(&terms(2, &["mini:grand 10 - 100000 50000"])), vec![], &[None])
    });
    contradiction("changes the currency of the pool mega from EUR to USD", |world| {
        let mut dollars = (*terms(2, &["mega:grand 10 - 100000 50000"])).clone();
        dollars.pools[0].currency = "USD".into();
        world.try_commit(Some(&Arc::new(dollars)), vec![], &[None])
    });
}

#[test]
fn a_replay_names_the_first_difference() {
    let mut world = World::new(1);
    world.post(&one_level(), 0, &[sum("mega", 1, 1, "1")]);
    world.commit(None, vec![], &[Some(60_000)]);
    let check = |commit: usize, from: &str, to: &str, expect: &str| {
        let mut again = World::new(1);
        let mut outcome = Ok(());
        for (index, recorded) in world.record.iter().enumerate() {
            let mut message = String::from_utf8(recorded.committed.message.to_vec()).expect("JSON");
            if index == commit {
                assert!(message.contains(from), "{message}");
                message = message.replacen(from, to, 1);
            }
            let replayed =
                again.books.replay(message.as_bytes(), recorded.frames.clone(), recorded.terms.clone());
            if let Err(error) = replayed {
                outcome = Err(error.to_string());
                break;
            }
        }
        match outcome {
            Ok(()) => assert_eq!(expect, ""),
            Err(error) => assert!(!expect.is_empty() && error.contains(expect), "{error}"),
        }
    };
    check(0, "10.1", "10.1", "");
    check(0, r#""current":"10.1""#, r#""current":"10.2""#, "commit 1 computed again from its frames");
    check(0, r#""current":"10.1""#, r#""current":"10.2""#, "at levels[0].current;");
    check(1, r#""wagers":1"#, r#""wagers":2"#, "commit 2 computed again");
    check(1, r#""by_operator":{"acme""#, r#""by_operator":{"bcme""#, "at windows[1].by_operator.");
    check(0, r#""changed":1"#, r#""changed":1 "#, "at its form, not its content");
    check(0, r#""frame":1"#, r#""frame":2"#, "records frame 2");
    check(0, r#""seconds":[1,60,3600]"#, r#""seconds":[1,60]"#, "the first commit fixes the lengths");
    check(1, r#""commit":2"#, r#""commit":3"#, "does not continue the books");
    check(1, "{", "", "cannot be read");
}

#[test]
fn payoffs_are_whole_minor_units_of_any_currency() {
    let check = |currency: &str, payoff: &str, current: &str, display: &str| {
        let mut terms = (*terms(1, &["mega:grand 10 - 100000 0"])).clone();
        terms.pools[0].currency = currency.into();
        let mut world = World::new(1);
        let posts = [sum("mega", 1, 1, "9.87654"), hit("mega", "grand", 1), sum("mega", 1, 1, "9.87654")];
        let committed = world.post(&Arc::new(terms), 0, &posts);
        let (hit, level) = (&committed.commit.hits[0], &committed.commit.levels[0]);
        let shown = [hit.payoff, level.current, level.display].map(|amount| amount.to_string());
        assert_eq!(shown, [payoff, current, display], "{currency}");
        assert_eq!((&*hit.currency, &*level.currency), (currency, currency));
    };
    // 10.987654 is there, and the rest below a minor unit stays; then 0.987654 more.
    check("JPY", "10", "11.975308", "11");
    check("EUR", "10.98", "10.995308", "10.99");
    check("BHD", "10.987", "10.988308", "10.988");
}

#[test]
fn a_hit_names_the_revision_of_its_frame_and_is_paid_by_what_has_run() {
    let mut world = World::new(2);
    let (first, second) = (one_level(), terms(2, &["mega:grand 12 - 100000 50000"]));
    world.commit(Some(&first), vec![], &[None, None]);
    let old = world.frame(1, &first, Some(0), &[sum("mega", 2, 1, "1"), hit("mega", "grand", 2)]);
    let new = world.frame(0, &second, Some(0), &[sum("mega", 2, 1, "1")]);
    let committed = world.commit(Some(&second), vec![old, new], &[None, None]).commit;
    let hit = &committed.hits[0];
    assert_eq!((hit.terms, committed.terms, committed.levels[0].terms), (1, 2, 2));
    assert_eq!([hit.payoff, hit.base, hit.current].map(|amount| amount.to_string()), ["10.2", "12", "12"]);
}

#[test]
fn a_lowered_ceiling_is_held_exactly_where_it_lies_below_what_there_is() {
    let learned = |ceiling: &str| {
        let mut world = World::new(1);
        world.post(&one_level(), 0, &[sum("mega", 1, 1, "10")]);
        let second = terms(2, &[&format!("mega:grand 10 {ceiling} 100000 50000")]);
        let committed = world.commit(Some(&second), vec![], &[None]);
        let level = &committed.commit.levels[0];
        (level.ceiling.map(|ceiling| ceiling.to_string()), level.pending.is_some(), world, second)
    };
    let (ceiling, held, mut world, second) = learned("11");
    assert_eq!((ceiling.as_deref(), held), (Some("11"), false), "it is at what there is");
    let committed = world.post(&second, 0, &[sum("mega", 1, 1, "0.000001")]);
    assert_eq!(levels(&committed), ["grand: 11 0.50000005 0.0000001 | 2 10.000001 1.50000015 0 10 0"]);
    let (ceiling, held, mut world, second) = learned("10.999999");
    assert_eq!((ceiling.as_deref(), held), (None, true), "it is below by the least amount there is");
    let committed = world.post(&second, 0, &[sum("mega", 1, 1, "1"), hit("mega", "grand", 1)]);
    assert_eq!(committed.commit.hits[0].payoff.to_string(), "11.1", "until the hit nothing cuts");
    assert_eq!(
        committed.commit.levels[0].ceiling.map(|ceiling| ceiling.to_string()).as_deref(),
        Some("10.999999")
    );
}

#[test]
fn a_revision_that_changes_every_level_there_may_be_fits_a_commit() {
    let name = |kind: &str, i: usize| format!("{kind}-{i:03}-{}", "n".repeat(50));
    let all = |revision, rate: u32| {
        let level =
            |i| format!("{} 999999999999999.123456 999999999999999.5 {rate} {rate}", name("level", i));
        let levels = (0..8).map(level).collect::<Vec<_>>().join(",");
        let pools: Vec<_> = (0..128).map(|i| format!("{}:{levels}", name("pool", i))).collect();
        terms(revision, &pools.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let mut world = World::new(1);
    let first = world.commit(Some(&all(1, 1_000)), vec![], &[Some(0)]);
    // The same frame changes every level, pays as many hits as a frame may hold, and brings a revision.
    let second = all(2, 2_000);
    let sums = (0..128).map(|i| sum(&name("pool", i), 1, 1, "1000000000"));
    let hits = (0..limits::FRAME_HITS_MAX).map(|i| hit(&name("pool", i % 128), &name("level", i % 8), 1));
    let posts: Vec<_> = sums.chain(hits).collect();
    let committed = world.post(&second, 0, &posts);
    for committed in [&first, &committed] {
        assert_eq!(committed.commit.levels.len(), limits::LEVELS_MAX);
        assert!(committed.message.len() <= limits::MESSAGE_BYTES_MAX, "{}", committed.message.len());
    }
    assert_eq!(committed.commit.hits.len(), limits::FRAME_HITS_MAX);
}
