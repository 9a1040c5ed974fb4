//! What is shown to the outside, held to what was committed and computed (I5), and to the model.

use std::collections::BTreeMap;

use serde_json::Value;

use super::books::{key, number};
use super::model::{Outcome, list, text};
use super::record::{Record, leaves};

/// The views hold what the commits hold: every window and every hit in order, and of each level the last state; and
/// nothing that no commit holds.
pub fn assert_shown(record: &Record) {
    let commits = record.values("commits");
    for view in ["windows", "hits"] {
        let committed: Vec<_> = commits.iter().flat_map(|commit| list(commit, view)).collect();
        let shown = record.values(view);
        assert_eq!(shown.len(), committed.len(), "all {view} are in their view, once");
        for (number, (shown, committed)) in (1..).zip(shown.iter().zip(committed)) {
            assert_eq!(shown, committed, "message {number} of {view} is what was committed");
        }
    }
    let levels = || commits.iter().flat_map(|commit| list(commit, "levels"));
    let committed: BTreeMap<_, _> =
        levels().map(|level| ((key(level), number(level, "commit")), level)).collect();
    let last: BTreeMap<_, _> = levels().map(|level| (key(level), level)).collect();
    let mut shown: BTreeMap<_, Value> = BTreeMap::new();
    for total in record.values("totals") {
        let place = (key(&total), number(&total, "commit"));
        assert_eq!(committed.get(&place), Some(&&total), "a total is what was committed");
        let before = shown.insert(key(&total), total.clone());
        let grows = before.is_none_or(|before| number(&before, "commit") < number(&total, "commit"));
        assert!(grows, "totals of a level only go on: {total}");
    }
    let shown: BTreeMap<_, _> = shown.iter().map(|(name, total)| (name.clone(), total)).collect();
    assert_eq!(shown, last, "the last total of each level is shown");
}

/// The refusals are those of the model, each once; and those of a subject are in the order of the log.
pub fn assert_refusals(record: &Record, outcome: &Outcome) {
    let id = |refusal: &Value| match (refusal["wager"].as_str(), refusal["batch"].as_str()) {
        (Some(id), None) | (None, Some(id)) => id.to_owned(),
        _ => panic!("{refusal} names a wager or a batch"),
    };
    let notices = record.values("refusals");
    let mut got: Vec<_> =
        notices.iter().map(|refusal| (id(refusal), text(refusal, "reason").to_owned())).collect();
    got.sort();
    let differ = got.iter().zip(&outcome.refusals).find(|(got, expect)| got != expect);
    assert_eq!(differ, None, "the refusals are those of the model");
    assert_eq!(got.len(), outcome.refusals.len(), "all refusals are published, once");
    let mut places: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (entry, notice) in record.entries("refusals").iter().zip(&notices) {
        let subject = format!("refusals.{}.{}", text(notice, "operator"), text(notice, "source"));
        assert_eq!(*entry.subject, subject, "{notice} is published where its batch came from");
        let place = (number(notice, "frame"), number(notice, "number"));
        let before = places.insert(subject, place);
        assert!(before.is_none_or(|before| before < place), "refusals are in the order of the log: {notice}");
    }
}

/// Every wager and every batch refused whole is a leaf of the audit, once (I3).
pub fn assert_leaves(record: &Record, partitions: u16, outcome: &Outcome) {
    let mut size = 0;
    for partition in 0..partitions {
        let mut tree = 0;
        for entry in record.entries(&format!("audit-{partition}")) {
            let (after, added) = leaves(&entry.payload);
            tree += added;
            assert_eq!(after, tree, "the tree of partition {partition} grows by the leaves of each frame");
        }
        size += tree;
    }
    let refused = outcome.refusals.iter().filter(|(_, reason)| reason != "hit_refused").count();
    let refused = u64::try_from(refused).expect("a length");
    assert_eq!(size, outcome.allocated + refused, "every wager has one end");
}

/// The last state of each source that the terms know, and never drop, counts what became of its batches.
pub fn assert_sources(record: &Record, revisions: &[Value], outcome: &Outcome) {
    let mut shown: BTreeMap<(String, String), Value> = BTreeMap::new();
    for state in record.values("sources") {
        shown.insert((text(&state, "operator").into(), text(&state, "source").into()), state);
    }
    let listed =
        |terms: &Value, name: &str| list(terms, "sources").iter().any(|entry| entry["source"] == name);
    let dropped =
        |name: &str| revisions.windows(2).any(|pair| listed(&pair[0], name) && !listed(&pair[1], name));
    let known = |name: &str| !name.is_empty() && !dropped(name);
    for (name, tally) in outcome.sources.iter().filter(|(name, _)| known(&name.1)) {
        let state = shown.get(name).unwrap_or_else(|| panic!("{name:?} is in the view of sources"));
        let of = |field: &str| number(state, field);
        let got = [of("batches"), of("refused_batches"), of("wagers"), of("refused_wagers")];
        let expect = [tally.batches, tally.refused_batches, tally.wagers, tally.refused_wagers];
        assert_eq!(got, expect, "{state} counts what became of the batches of {name:?}");
        let missing = list(state, "missing").iter().map(|range| (range[0].as_u64(), range[1].as_u64()));
        let missing: Vec<_> = missing.filter_map(|(from, to)| from.zip(to)).collect();
        let numbers = (of("highest"), missing);
        // What is shown last may have been written before or behind the first batch, of another source, of a revision
        // that starts this one anew.
        let declared = tally.declared.map(|from| (from - 1, Vec::new()));
        assert!(
            numbers == (tally.highest, tally.missing.clone()) || Some(&numbers) == declared.as_ref(),
            "{state} tells the numbers of {name:?}: {tally:?}"
        );
    }
}
