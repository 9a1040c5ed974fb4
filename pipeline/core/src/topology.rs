//! Every subject and stream name, printed and parsed in one place (contract, sections 2, 3 and 5).
//! How streams are set up on a server is in `log::jetstream`; here are only their names.

use crate::digest::Digest;
use crate::limits;
use crate::log::Entry;
use crate::refusal::StageName;

/// The shared ingress stream.
pub const WAGERS: &str = "wagers";
/// The record of what the ledger did.
pub const COMMITS: &str = "commits";
/// View: the state of each level.
pub const TOTALS: &str = "totals";
/// View: closed windows.
pub const WINDOWS: &str = "windows";
/// View: hits.
pub const HITS: &str = "hits";
/// Refusals, as the audit publishes them.
pub const REFUSALS: &str = "refusals";
/// View: what has become of each source's batches.
pub const SOURCES: &str = "sources";
/// Snapshots of the stages' states, in parts, and the list of those confirmed.
pub const SNAPSHOTS: &str = "snapshots";
/// Who runs what: the last message of each process.
pub const MEMBERS: &str = "members";
/// Terms: documents and claimed revisions.
pub const TERMS: &str = "terms";

/// The streams of a lane: one of each per partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// validate → geofence: the spine.
    Validated,
    /// geofence → allocate.
    Geofenced,
    /// allocate → audit.
    Allocations,
    /// allocate → aggregate.
    Contributions,
    /// audit's record.
    Audit,
}

impl Lane {
    /// All of them, in the order of the flow.
    pub const ALL: [Self; 5] =
        [Self::Validated, Self::Geofenced, Self::Allocations, Self::Contributions, Self::Audit];

    /// The first word of its streams and subjects.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Validated => "validated",
            Self::Geofenced => "geofenced",
            Self::Allocations => "allocations",
            Self::Contributions => "contributions",
            Self::Audit => "audit",
        }
    }

    /// The stream of a partition: `validated-0`.
    pub fn stream(self, partition: u16) -> String {
        format!("{}-{partition}", self.as_str())
    }

    /// The one subject of that stream: `validated.0`.
    pub fn subject(self, partition: u16) -> String {
        format!("{}.{partition}", self.as_str())
    }

    /// Whether it is trimmed to what somebody still needs; the others are the record.
    pub fn drains(self) -> bool {
        matches!(self, Self::Validated | Self::Geofenced | Self::Contributions)
    }

    /// The stage that writes it.
    pub fn writer(self) -> StageName {
        match self {
            Self::Validated => StageName::Validate,
            Self::Geofenced => StageName::Geofence,
            Self::Allocations | Self::Contributions => StageName::Allocate,
            Self::Audit => StageName::Audit,
        }
    }
}

/// What a subject of the ingress stream is, as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IngressSubject<'a> {
    /// `lane.<p>.<operator>.<source>`: a wager batch.
    Batch {
        /// The operator in the subject.
        operator: &'a str,
        /// The source in the subject.
        source: &'a str,
    },
    /// `lane.<p>.terms`: an activation marker.
    Terms,
}

impl<'a> IngressSubject<'a> {
    /// Reads a stored subject of the ingress stream.
    pub fn parse(subject: &'a str) -> Option<Self> {
        let mut words = subject.split('.');
        if words.next() != Some("lane") {
            return None;
        }
        words.next()?.parse::<u16>().ok()?;
        match (words.next()?, words.next(), words.next()) {
            ("terms", None, None) => Some(Self::Terms),
            (operator, Some(source), None) => Some(Self::Batch { operator, source }),
            _ => None,
        }
    }
}

/// Where a producer publishes: `wagers.<operator>.<source>`.
pub fn wagers(operator: &str, source: &str) -> String {
    format!("{WAGERS}.{operator}.{source}")
}

/// The partition of a source: FNV-1a (32 bits) of its name, modulo the number of partitions, as NATS computes
/// `partition(n, token)` in the ingress stream's transform.
pub fn partition(source: &str, partitions: u16) -> u16 {
    let hash =
        source.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    u16::try_from(hash % u32::from(partitions.max(1))).expect("a remainder is below a u16")
}

/// All of a partition's ingress, batches and markers: `lane.<p>.>`.
pub fn ingress_filter(partition: u16) -> String {
    format!("lane.{partition}.>")
}

/// A partition's batches alone: `lane.<p>.*.*`.
pub fn batches_filter(partition: u16) -> String {
    format!("lane.{partition}.*.*")
}

/// Where a partition's activation markers are: `lane.<p>.terms`.
pub fn terms_marker(partition: u16) -> String {
    format!("lane.{partition}.terms")
}

/// The plain subject on which a partition's validate says that it is idle: `idle.<p>`.
pub fn idle(partition: u16) -> String {
    format!("idle.{partition}")
}

/// The plain subject on which a part of a process at work says that it leaves: `left.<stage>.<part>`.
pub fn left(stage: StageName, part: &str) -> String {
    format!("left.{stage}.{part}")
}

/// All idle notices.
pub const IDLE_ALL: &str = "idle.*";

/// `totals.<pool>.<level>`.
pub fn totals(pool: &str, level: &str) -> String {
    format!("{TOTALS}.{pool}.{level}")
}

/// `windows.<seconds>.<pool>.<level>`.
pub fn windows(seconds: u32, pool: &str, level: &str) -> String {
    format!("{WINDOWS}.{seconds}.{pool}.{level}")
}

/// `hits.<pool>.<level>`.
pub fn hits(pool: &str, level: &str) -> String {
    format!("{HITS}.{pool}.{level}")
}

/// `refusals.<operator>.<source>`, of the subject that the batch came on. A name that would make it longer than a
/// broker takes stands there as `~` and its SHA-256: anybody can publish to such a subject, and nobody's names are so
/// long.
pub fn refusals(operator: &str, source: &str) -> String {
    let word = |name: &'_ str| match name.len() <= limits::SUBJECT_NAME_BYTES_MAX {
        true => name.to_owned(),
        false => format!("~{}", Digest::of(name.as_bytes())),
    };
    format!("{REFUSALS}.{}.{}", word(operator), word(source))
}

/// `sources.<operator>.<source>`.
pub fn sources(operator: &str, source: &str) -> String {
    format!("{SOURCES}.{operator}.{source}")
}

/// The header of a thinned view that says up to which commit, or frame, everything is shown once this message is.
pub const SETTLED: &str = "Jackpot-Settled";

/// What a message's [`SETTLED`] says; 0 where it says nothing.
pub fn settled(entry: &Entry) -> u64 {
    header(entry, SETTLED).and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// A header of `sources`: the SHA-256 of the message of allocations that a state was counted up to.
pub const COUNTED: &str = "Jackpot-Counted";

/// What a message's [`COUNTED`] says, where it says anything.
pub fn counted(entry: &Entry) -> Option<Digest> {
    header(entry, COUNTED).and_then(Digest::parse)
}

fn header<'a>(entry: &'a Entry, name: &str) -> Option<&'a str> {
    entry.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// `terms.revision.<n>`: the claim of a revision's number.
pub fn terms_revision(revision: u64) -> String {
    format!("{TERMS}.revision.{revision}")
}

/// `terms.document.<digest>.<part>`: a part of a document.
pub fn terms_document(digest: &Digest, part: usize) -> String {
    format!("{TERMS}.document.{digest}.{part}")
}

/// `snapshots.<stage>.<label>`: the list of a state's confirmed snapshots.
pub fn snapshots(stage: StageName, label: &str) -> String {
    format!("{SNAPSHOTS}.{stage}.{label}")
}

/// `snapshots.<stage>.<label>.<frame>.<part>`: a part of a snapshot.
pub fn snapshot_part(stage: StageName, label: &str, frame: u64, part: u32) -> String {
    format!("{SNAPSHOTS}.{stage}.{label}.{frame}.{part}")
}

/// All parts of one snapshot.
pub fn snapshot_parts(stage: StageName, label: &str, frame: u64) -> String {
    format!("{SNAPSHOTS}.{stage}.{label}.{frame}.*")
}

/// All parts of all snapshots of a state.
pub fn snapshots_all(stage: StageName, label: &str) -> String {
    format!("{SNAPSHOTS}.{stage}.{label}.*.*")
}

/// `members.<stage>.<member>`: what a process says of itself to the others of its stage.
pub fn member(stage: StageName, member: &str) -> String {
    format!("{MEMBERS}.{stage}.{member}")
}

/// All processes of a stage.
pub fn members(stage: StageName) -> String {
    member(stage, "*")
}

/// The stream that takes this subject.
pub fn stream_of(subject: &str) -> String {
    let (kind, rest) = subject.split_once('.').unwrap_or((subject, ""));
    match kind {
        "lane" => WAGERS.to_owned(),
        lane if Lane::ALL.iter().any(|of| of.as_str() == lane) => format!("{lane}-{rest}"),
        stream => stream.to_owned(),
    }
}

/// Whether a subject, word by word, fits a filter with `*` and `>`.
pub fn fits(subject: &str, filter: &str) -> bool {
    let (mut words, mut wanted) = (subject.split('.'), filter.split('.'));
    loop {
        match (words.next(), wanted.next()) {
            (Some(_), Some(">")) | (None, None) => return true,
            (Some(word), Some(want)) if want == "*" || want == word => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ingress_subjects_are_told_apart() {
        let check = |subject, expect| assert_eq!(IngressSubject::parse(subject), expect, "{subject}");
        check("lane.0.terms", Some(IngressSubject::Terms));
        check("lane.3.acme.eu1", Some(IngressSubject::Batch { operator: "acme", source: "eu1" }));
        check("lane.3.terms.eu1", Some(IngressSubject::Batch { operator: "terms", source: "eu1" }));
        check("lane.x.terms", None);
        check("lane.3.acme", None);
        check("lane.3.acme.a.b", None);
        check("wagers.acme.eu1", None);
    }

    #[test]
    fn sources_are_spread_as_the_broker_does_it() {
        assert_eq!(
            partition("a", u16::MAX),
            u16::try_from(0xe40c_292c_u32 % 0xffff).unwrap(),
            "FNV-1a's own example"
        );
        assert!((0..4).all(|p| (0..64).any(|n| partition(&format!("s{n}"), 4) == p)));
        assert_eq!(partition("acme", 1), 0);
    }

    #[test]
    fn a_refusal_has_a_subject_whatever_its_batch_came_on() {
        assert_eq!(refusals("acme", "eu1"), "refusals.acme.eu1");
        let long = "x".repeat(limits::SUBJECT_NAME_BYTES_MAX);
        assert_eq!(refusals(&long, "eu1"), format!("refusals.{long}.eu1"));
        let longer = format!("{long}x");
        let subject = refusals("acme", &longer);
        assert_eq!(subject, format!("refusals.acme.~{}", Digest::of(longer.as_bytes())));
        assert_ne!(subject, refusals("acme", &format!("{long}y")));
    }

    #[test]
    fn a_subject_tells_its_stream() {
        let settings = crate::log::jetstream::setup::streams(&crate::log::jetstream::setup::SetUp::new(2));
        for stream in settings {
            assert!(stream.subjects.iter().all(|subject| stream_of(subject) == stream.name), "{stream:?}");
        }
        assert_eq!(stream_of(&terms_marker(1)), WAGERS);
    }

    #[test]
    fn filters_fit_as_the_broker_does_it() {
        assert!(fits("lane.0.terms", "lane.0.>"));
        assert!(fits("lane.0.a.b", "lane.0.*.*"));
        assert!(!fits("lane.0.terms", "lane.0.*.*"));
        assert!(!fits("lane.0", "lane.0.>"));
        assert!(fits("a", "a") && !fits("a.b", "a"));
    }
}
