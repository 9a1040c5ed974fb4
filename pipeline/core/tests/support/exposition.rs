//! What the README says of metrics, and what a process serves, in one form, so that a test can compare them.
//! Never here: what the metrics are called.

use std::collections::{BTreeMap, BTreeSet};

const README: &str = include_str!("../../../../README.md");

/// A metric as it is described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    /// The names of its labels.
    pub labels: BTreeSet<String>,
}

/// The metrics that the README's table lists for a stage, by name.
pub fn documented(stage: &str) -> BTreeMap<String, Described> {
    let rows = README.lines().filter(|line| line.starts_with("| `jackpot_"));
    let described = rows.filter_map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, _unit, stages, meaning] = cells[..] else {
            panic!("a row of six cells: {row}");
        };
        assert!(!meaning.is_empty(), "{row}");
        let listed = stages == "all" || stages.split(", ").any(|listed| listed == stage);
        let mut labels: BTreeSet<_> = words(labels);
        labels.insert("stage".into());
        listed.then(|| (name.trim_matches('`').to_owned(), Described { kind: kind.into(), labels }))
    });
    let described: Vec<_> = described.collect();
    let count = described.len();
    let described: BTreeMap<_, _> = described.into_iter().collect();
    assert!(count > 0 && described.len() == count, "the README lists each metric once");
    described
}

fn words(cell: &str) -> BTreeSet<String> {
    cell.split(", ").filter(|word| !word.is_empty()).map(|word| word.trim_matches('`').to_owned()).collect()
}

/// The metrics of an answer in Prometheus' text format, by name.
pub fn served(text: &str) -> BTreeMap<String, Described> {
    let mut metrics: BTreeMap<String, Described> = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').expect("a name, then a type");
        let before = metrics.insert(name.into(), Described { kind: kind.into(), labels: BTreeSet::new() });
        assert!(before.is_none(), "{name} has one type");
    }
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let name = line.split(['{', ' ']).next().expect("a sample begins with a name");
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let known = base.filter(|base| metrics.contains_key(*base)).unwrap_or(name);
        let metric = metrics.get_mut(known).unwrap_or_else(|| panic!("{name} has no type"));
        let labels = line.split_once('{').map_or("", |(_, rest)| rest.rsplit_once('}').expect("braces").0);
        let names =
            labels.split("\",").filter_map(|label| label.split_once('=')).map(|(name, _)| name.to_owned());
        metric.labels.extend(names);
    }
    metrics
}
