//! Commits, held to the model (I3, I4), to what fresh books make of them (I1), and to the windows that they close.

use std::collections::BTreeMap;
use std::sync::Arc;

use aggregate::books::Books;
use aggregate::postings::Taken;
use bytes::Bytes;
use jackpot_core::digest::Digest;
use jackpot_core::frame::Frame;
use jackpot_core::frame::contributions::Contributions;
use jackpot_core::record::WindowSettings;
use jackpot_core::terms::Terms;
use jackpot_core::topology::Lane;
use serde_json::Value;

use super::Expected;
use super::model::{self, Level, Outcome, Raw, list, millis, pico, text};
use super::record::{Header, Lost, Record, hex, sha256};

/// What was acknowledged is stored where the acknowledgement says, and as it was published (I8), but for what the broker
/// lost.
pub fn assert_acknowledged(record: &Record, lost: &Lost, acknowledged: &[(u64, Bytes)]) {
    let stored = record.entries("wagers");
    let gone = |sequence, body| {
        lost.of("wagers").iter().any(|entry| entry.sequence == sequence && entry.payload == body)
    };
    for (sequence, body) in acknowledged.iter().filter(|(sequence, body)| !gone(*sequence, body)) {
        let place = usize::try_from(sequence - 1).expect("a length");
        let kept = stored.get(place).is_some_and(|entry| entry.payload == body);
        assert!(kept, "message {sequence} of wagers was acknowledged, and is not there");
    }
}

/// Every commit is what fresh books make of the frames that it names.
pub fn assert_commits_computed(record: &Record, expected: &Expected<'_>) {
    let frames: Vec<Vec<Bytes>> = (0..expected.partitions)
        .map(|partition| record.entries(&Lane::Contributions.stream(partition)))
        .map(|entries| entries.iter().map(|entry| entry.payload.clone()).collect())
        .collect();
    assert_made_of(record, expected, &frames);
}

/// Every commit is what fresh books make of these frames, by partition.
pub fn assert_made_of(record: &Record, expected: &Expected<'_>, stored: &[Vec<Bytes>]) {
    let windows = WindowSettings { seconds: expected.seconds.to_vec(), max_skew_s: 1 };
    let mut books = Books::start(1, expected.partitions, windows).expect("books open");
    let mut taken: Vec<usize> = vec![0; usize::from(expected.partitions)];
    for entry in record.entries("commits") {
        let commit: Value = serde_json::from_slice(&entry.payload).expect("a commit is JSON");
        let mut frames = Vec::new();
        for (partition, consumed) in list(&commit, "partitions").iter().enumerate() {
            let at = &mut taken[partition];
            let until = usize::try_from(number(consumed, "frame")).expect("a length");
            for payload in &stored[partition][*at..until] {
                let frame = Frame::<Contributions>::decode(payload).expect("a frame");
                frames.push(Taken { digest: Digest::of(payload), frame });
            }
            *at = until;
        }
        let revision = number(&commit, "terms");
        let terms = (revision > books.terms()).then(|| {
            let document = expected.revisions.iter().find(|terms| terms["revision"] == revision);
            let document = document.expect("a commit runs a revision that was applied").to_string();
            Arc::new(Terms::parse(document.as_bytes()).expect("terms without a fault"))
        });
        if let Err(error) = books.replay(&entry.payload, frames, terms) {
            panic!("commit {} is what fresh books make: {error}", entry.sequence);
        }
    }
}

/// Every commit follows the one before, consumes what there is, and leaves the levels as the model has them, balanced.
pub fn assert_modelled(record: &Record, expected: &Expected<'_>) -> Outcome {
    let raws = record.entries("wagers").iter().map(|entry| Raw {
        position: entry.sequence,
        subject: entry.subject.to_string(),
        received_ms: entry.recorded_at.0,
        headers: entry.headers.clone(),
        body: entry.payload.to_vec(),
    });
    let raws: Vec<_> = raws.collect();
    let commits = record.values("commits");
    assert_chained(record, &commits);
    let frames: Vec<Vec<Header>> = (0..expected.partitions)
        .map(|partition| record.entries(&Lane::Validated.stream(partition)))
        .map(|entries| entries.iter().map(|entry| Header::read(&entry.payload)).collect())
        .collect();
    follow(expected, &raws, &commits, &frames)
}

/// Holds every commit to the model. `frames` are the headers of each partition's frames.
pub fn follow(expected: &Expected<'_>, raws: &[Raw], commits: &[Value], frames: &[Vec<Header>]) -> Outcome {
    let frame =
        |partition: usize, number: u64| &frames[partition][usize::try_from(number - 1).expect("a length")];
    let reach = |partition: usize, number: u64| frame(partition, number).position;
    let mut known: BTreeMap<(String, String), Value> = BTreeMap::new();
    let mut hits = Vec::new();
    model::follow(expected.revisions, raws, commits, reach, |commit, outcome| {
        for (partition, consumed) in list(commit, "partitions").iter().enumerate() {
            let consumed = number(consumed, "frame");
            assert!(
                consumed == 0 || frame(partition, consumed).terms <= number(commit, "terms"),
                "a commit runs the revisions of its frames"
            );
        }
        for level in list(commit, "levels") {
            known.insert(key(level), level.clone());
        }
        hits.extend(list(commit, "hits").iter().map(hit));
        assert_eq!(known.len(), outcome.levels.len(), "commit {}: all levels are open", commit["commit"]);
        for ((name, total), (of, level)) in known.iter().zip(&outcome.levels) {
            assert_eq!(name, of);
            assert_level(total, level, &commit["commit"]);
        }
        assert_eq!(hits, outcome.hits, "commit {}: the hits are those of the model", commit["commit"]);
    })
}

/// Each commit names the one before by its digest, and each frame that it consumed by that frame's.
fn assert_chained(record: &Record, commits: &[Value]) {
    let mut previous = "0".repeat(64);
    let mut consumed: BTreeMap<usize, u64> = BTreeMap::new();
    let mut ran = 0;
    for (number, (entry, commit)) in (1_u64..).zip(record.entries("commits").iter().zip(commits)) {
        assert_eq!((entry.sequence, &commit["commit"]), (number, &Value::from(number)));
        assert_eq!(text(commit, "previous"), previous, "commit {number} follows the one before");
        previous = hex(&sha256(&entry.payload));
        assert!(self::number(commit, "terms") >= ran, "commit {number}: revisions only grow");
        ran = self::number(commit, "terms");
        for (partition, of) in list(commit, "partitions").iter().enumerate() {
            let frame = self::number(of, "frame");
            let before = consumed.insert(partition, frame).unwrap_or(0);
            assert!(frame >= before, "commit {number}: partition {partition} goes on");
            if frame > 0 {
                let stored = record.entries(&format!("contributions-{partition}"));
                let stored = &stored[usize::try_from(frame - 1).expect("a length")];
                assert_eq!(text(of, "digest"), hex(&sha256(&stored.payload)), "commit {number}");
            }
        }
    }
}

/// A level's total is the model's, to the last digit, and its books balance.
fn assert_level(total: &Value, level: &Level, commit: &Value) {
    let of = |field: &str| pico(text(total, field));
    let count = |field: &str| i128::from(number(total, field));
    let ppm = |value: &Value| value.as_i64().map(i128::from);
    let pending = &total["pending"];
    let shown = [
        of("current"),
        of("reserve"),
        of("diversion"),
        of("wagered"),
        of("contributed"),
        of("paid"),
        of("house"),
    ];
    let modelled = [
        level.current,
        level.reserve,
        level.diversion,
        level.wagered,
        level.contributed,
        level.paid,
        level.house,
    ];
    assert_eq!(shown, modelled, "commit {commit}: {total} is the model's {level:?}");
    let counts = [count("wagers"), count("hits")];
    assert_eq!(counts, [level.wagers.into(), level.hits.into()], "commit {commit}: {total}");
    assert_eq!(of("base"), level.base, "commit {commit}: {total}");
    assert_eq!(total["ceiling"].as_str().map(pico), level.ceiling, "commit {commit}: {total}");
    let waiting = model::Pending {
        increment_ppm: ppm(&pending["increment_ppm"]),
        reserve_ppm: ppm(&pending["reserve_ppm"]),
        ceiling: pending["ceiling"].as_str().map(pico),
    };
    assert_eq!(waiting, level.pending, "commit {commit}: {total}");
    assert_eq!(
        funds(total),
        of("contributed") + of("house") + of("adjusted") - of("paid"),
        "{total} balances"
    );
}

/// A hit as a commit, or the view, tells of it.
pub fn hit(hit: &Value) -> model::Hit {
    let of = |field| pico(text(hit, field));
    model::Hit {
        pool: text(hit, "pool").into(),
        level: text(hit, "level").into(),
        wager: text(hit, "wager").into(),
        payoff: of("payoff"),
        current: of("current"),
        from_diversion: of("from_diversion"),
        from_reserve: of("from_reserve"),
        from_house: of("from_house"),
    }
}

/// The windows of each length are a chain of openings and closings, add up to the totals, and each one's shares add up
/// to it. All of them must be closed.
pub fn assert_windows_add_up(record: &Record, seconds: &[u32]) {
    let mut chains: BTreeMap<(u64, (String, String)), Vec<Value>> = BTreeMap::new();
    let mut totals: BTreeMap<(String, String), Value> = BTreeMap::new();
    for commit in record.values("commits") {
        totals.extend(list(&commit, "levels").iter().map(|level| (key(level), level.clone())));
        for window in list(&commit, "windows") {
            let length = number(window, "seconds");
            let start = millis(&window["window_start"]).expect("a time");
            let length_ms = i64::try_from(length * 1_000).expect("a length");
            assert_eq!(start % length_ms, 0, "{window} begins at a multiple of its length");
            assert_eq!(millis(&window["window_end"]), Some(start + length_ms), "{window}");
            assert_shares(window, length);
            chains.entry((length, key(window))).or_default().push(window.clone());
        }
    }
    for (name, total) in &totals {
        for &seconds in seconds {
            let chain = chains.remove(&(seconds.into(), name.clone())).unwrap_or_default();
            assert_chain(&chain, total, seconds);
        }
    }
    assert!(chains.is_empty(), "every window belongs to a level that has totals");
}

fn assert_chain(chain: &[Value], total: &Value, seconds: u32) {
    let what = format!("windows of {seconds} s of {:?}", key(total));
    let mut opening = 0;
    let mut end = String::new();
    for window in chain {
        let of = |field| pico(text(window, field));
        assert_eq!(of("opening"), opening, "{what}: {window}");
        opening += of("contributed") + of("house") + of("adjusted") - of("paid");
        assert_eq!(of("closing"), opening, "{what}: {window}");
        assert!(end.as_str() <= text(window, "window_start"), "{what} come in order: {window}");
        end = text(window, "window_end").to_owned();
    }
    assert_eq!(opening, funds(total), "{what}: the last one closes with what the level holds");
    for field in ["wagered", "contributed", "paid", "house", "adjusted"] {
        let sum: i128 = chain.iter().map(|window| pico(text(window, field))).sum();
        assert_eq!(sum, pico(text(total, field)), "{what}: {field}");
    }
    for field in ["wagers", "hits"] {
        let sum: u64 = chain.iter().map(|window| number(window, field)).sum();
        assert_eq!(sum, number(total, field), "{what}: {field}");
    }
}

fn assert_shares(window: &Value, seconds: u64) {
    let breakdowns: &[&str] = match seconds {
        ..60 => &["by_operator", "by_jurisdiction"],
        _ => &["by_operator", "by_jurisdiction", "by_game", "by_operator_jurisdiction"],
    };
    for by in breakdowns {
        let shares: Vec<_> = window[*by].as_object().expect("shares by name").values().collect();
        let wagers: u64 = shares.iter().map(|share| number(share, "wagers")).sum();
        assert_eq!(wagers, number(window, "wagers"), "{by} of {window}");
        for field in ["wagered", "contributed"] {
            let sum: i128 = shares.iter().map(|share| pico(text(share, field))).sum();
            assert_eq!(sum, pico(text(window, field)), "{field} {by} of {window}");
        }
    }
}

/// What a level holds.
fn funds(total: &Value) -> i128 {
    ["current", "reserve", "diversion"].into_iter().map(|field| pico(text(total, field))).sum()
}

/// The pool and level of an entry of a commit.
pub fn key(value: &Value) -> (String, String) {
    (text(value, "pool").into(), text(value, "level").into())
}

/// A field that is a count.
pub fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_else(|| panic!("{field} of {value} is a count"))
}
