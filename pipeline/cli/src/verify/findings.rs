//! What the proof has found: per check how much was looked at, and the first faults with their places.
//! Every room of [`crate::verify`] reports here; here it is written for people and for programs.

use std::collections::BTreeMap;
use std::io::{self, Write};

use jackpot_core::topology::Lane;
use serde::Serialize;

use crate::progress::{counted, grouped};

/// Faults of one check that are told; the others are only counted.
const TOLD_MAX: usize = 5;

/// One thing that is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// Frames follow each other, and each names the one it was made from.
    Chains,
    /// The frames' ingress chain is that of the stored messages.
    Ingress,
    /// Every batch and every wager ends once.
    Outcomes,
    /// No number of a source was accepted twice, and only such that were are refused as repeats.
    Numbers,
    /// Frames say of a wager what the raw one says.
    Wagers,
    /// Pools and eligible amounts are what the terms give.
    Allocations,
    /// The sums for the ledger are those of the allocations.
    Contributions,
    /// The audit's Merkle tree has these leaves.
    Leaves,
    /// What producers were told is what the frames say.
    Refusals,
    /// The commits follow each other, and name the frames that they consumed.
    Commits,
    /// The levels are what the allocations make of them, and balance.
    Books,
    /// The hits are those of the allocations, with their payoffs and refills.
    Hits,
    /// The windows are what the allocations make of them, and add up to the totals.
    Windows,
    /// The views show what the commits say.
    Views,
}

impl Check {
    /// All of them, in the order of the flow.
    pub const ALL: [Self; 14] = [
        Self::Chains,
        Self::Ingress,
        Self::Outcomes,
        Self::Numbers,
        Self::Wagers,
        Self::Allocations,
        Self::Contributions,
        Self::Leaves,
        Self::Refusals,
        Self::Commits,
        Self::Books,
        Self::Hits,
        Self::Windows,
        Self::Views,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chains => "chains",
            Self::Ingress => "ingress",
            Self::Outcomes => "outcomes",
            Self::Numbers => "numbers",
            Self::Wagers => "wagers",
            Self::Allocations => "allocations",
            Self::Contributions => "contributions",
            Self::Leaves => "leaves",
            Self::Refusals => "refusals",
            Self::Commits => "commits",
            Self::Books => "books",
            Self::Hits => "hits",
            Self::Windows => "windows",
            Self::Views => "views",
        }
    }

    /// What it counts: one, many.
    fn counts(self) -> (&'static str, &'static str) {
        match self {
            Self::Chains | Self::Contributions => ("frame", "frames"),
            Self::Ingress => ("message", "messages"),
            Self::Outcomes | Self::Allocations => ("wager", "wagers"),
            Self::Numbers => ("batch", "batches"),
            Self::Wagers => ("comparison", "comparisons"),
            Self::Leaves => ("leaf", "leaves"),
            Self::Refusals => ("refusal", "refusals"),
            Self::Commits => ("commit", "commits"),
            Self::Books => ("state", "states"),
            Self::Hits => ("hit", "hits"),
            Self::Windows => ("window", "windows"),
            Self::Views => ("message", "messages"),
        }
    }

    /// What holds where nothing was found.
    fn claim(self) -> &'static str {
        match self {
            Self::Chains => "each follows the one before and names what it was made from",
            Self::Ingress => "the frames' chain is that of the stored messages",
            Self::Outcomes => "each wager and each refused batch ended exactly once",
            Self::Numbers => "none was accepted twice, and only repeats are refused as such",
            Self::Wagers => "frames say of a wager what the raw one says",
            Self::Allocations => "pools, eligible amounts and hits are what the terms give",
            Self::Contributions => "the ledger was given the sums of the allocations",
            Self::Leaves => "the audit's trees have these leaves",
            Self::Refusals => "producers were told what the frames say",
            Self::Commits => "each follows the one before and names the frames it consumed",
            Self::Books => "levels are what the allocations make of them, and balance",
            Self::Hits => "payoffs and refills, in log order",
            Self::Windows => "closed as the allocations say, and adding up to the totals",
            Self::Views => "totals, hits and windows show what the commits say",
        }
    }
}

/// Where something is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The stream.
    pub stream: String,
    /// The message in it.
    pub sequence: u64,
    /// The wager or batch, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wager: Option<String>,
}

impl Place {
    /// A message.
    pub fn of(stream: impl Into<String>, sequence: u64) -> Self {
        Self { stream: stream.into(), sequence, wager: None }
    }

    /// A wager, or a batch, in a message.
    pub fn wager(self, id: impl Into<String>) -> Self {
        Self { wager: Some(id.into()), ..self }
    }
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// What was being proved.
    pub check: Check,
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// What is wrong there.
    pub what: String,
}

/// What became of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Which.
    pub check: Check,
    /// How much was looked at.
    pub counted: u64,
    /// How many faults were found.
    pub faults: u64,
}

/// Frames of a lane that are not stored any more, since no stage needs them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trimmed {
    /// The lane's stream.
    pub stream: String,
    /// How many.
    pub frames: u64,
    /// How many of them were computed again and found to be the recorded ones by their digests.
    pub proved: u64,
}

/// What has been found so far.
#[derive(Debug, Clone)]
pub struct Findings {
    lines: Vec<Line>,
    told: Vec<Fault>,
    trimmed: BTreeMap<(Lane, u16), (u64, u64)>,
}

impl Default for Findings {
    fn default() -> Self {
        let line = |check| Line { check, counted: 0, faults: 0 };
        Self { lines: Check::ALL.map(line).into(), told: Vec::new(), trimmed: BTreeMap::new() }
    }
}

impl Findings {
    /// So many more were looked at.
    pub fn count(&mut self, check: Check, more: usize) {
        self.line(check).counted += u64::try_from(more).unwrap_or(u64::MAX);
    }

    /// Something is wrong.
    pub fn fault(&mut self, check: Check, place: Place, what: impl Into<String>) {
        self.line(check).faults += 1;
        if self.told.iter().filter(|fault| fault.check == check).count() < TOLD_MAX {
            self.told.push(Fault { check, place, what: what.into() });
        }
    }

    /// A frame of a partition's lane was trimmed.
    pub fn trimmed(&mut self, lane: Lane, partition: u16) {
        self.trimmed.entry((lane, partition)).or_default().0 += 1;
    }

    /// So many frames that were trimmed are the recorded ones by their digests.
    pub fn proved(&mut self, lane: Lane, partition: u16, frames: u64) {
        self.trimmed.entry((lane, partition)).or_default().1 += frames;
    }

    /// What was trimmed, by lane in the order of the flow, then by partition.
    pub fn all_trimmed(&self) -> impl Iterator<Item = Trimmed> {
        self.trimmed.iter().map(|(&(lane, partition), &(frames, proved))| Trimmed {
            stream: lane.stream(partition),
            frames,
            proved,
        })
    }

    /// One line per check.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// The first faults of each check, in the order in which they were found.
    pub fn told(&self) -> &[Fault] {
        &self.told
    }

    /// How many faults there are.
    pub fn faults(&self) -> u64 {
        self.lines.iter().map(|line| line.faults).sum()
    }

    fn line(&mut self, check: Check) -> &mut Line {
        self.lines.iter_mut().find(|line| line.check == check).expect("every check has its line")
    }
}

/// The findings for programs.
#[derive(Serialize)]
struct Report<'a> {
    verified: bool,
    checks: &'a [Line],
    faults: u64,
    first: &'a [Fault],
    trimmed: Vec<Trimmed>,
}

impl Findings {
    /// One object.
    pub fn json(&self, out: &mut impl Write) -> anyhow::Result<()> {
        let (faults, first) = (self.faults(), self.told());
        let trimmed = self.all_trimmed().collect();
        let report = Report { verified: faults == 0, checks: &self.lines, faults, first, trimmed };
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
        Ok(())
    }

    /// A line per check, one per lane of which frames were trimmed, then the first faults, or `verified`.
    pub fn text(&self, out: &mut impl Write) -> io::Result<()> {
        for Line { check, counted, faults } in &self.lines {
            let (one, many) = check.counts();
            let noun = if *counted == 1 { one } else { many };
            let verdict = match faults {
                0 => check.claim().to_owned(),
                faults => counted_faults(*faults).to_uppercase(),
            };
            let counted = grouped(&counted.to_string());
            writeln!(out, "{:<13} {counted:>11} {noun:<11}  {verdict}", check.name())?;
        }
        self.text_of_trimmed(out)?;
        if self.told.is_empty() {
            return writeln!(out, "verified");
        }
        for Fault { check, place, what } in &self.told {
            let wager = place.wager.as_ref().map_or_else(String::new, |wager| format!(", {wager}"));
            writeln!(out, "\n{}: {} {}{wager}", check.name(), place.stream, place.sequence)?;
            writeln!(out, "  {what}")?;
        }
        Ok(())
    }
}

impl Findings {
    /// A line per lane, over all partitions.
    fn text_of_trimmed(&self, out: &mut impl Write) -> io::Result<()> {
        for lane in Lane::ALL {
            let of = self.trimmed.iter().filter(|((of, _), _)| *of == lane);
            let (frames, proved) = of.fold((0, 0), |sum, (_, more)| (sum.0 + more.0, sum.1 + more.1));
            if frames == 0 {
                continue;
            }
            let noun = if frames == 1 { "frame" } else { "frames" };
            let name = lane.as_str();
            let verdict = match proved {
                0 => format!("of {name}: wagers and allocations stand for them"),
                proved if proved == frames => format!("of {name}, computed again and proved by digest"),
                proved => format!("of {name}, {} proved by digest", grouped(&proved.to_string())),
            };
            writeln!(out, "{:<13} {:>11} {noun:<11}  {verdict}", "trimmed", grouped(&frames.to_string()))?;
        }
        Ok(())
    }
}

/// `1 fault`, `2,000 faults`.
pub fn counted_faults(faults: u64) -> String {
    counted(faults, "fault", "faults")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_all_counted_and_the_first_told() {
        let mut findings = Findings::default();
        findings.count(Check::Leaves, 1);
        for sequence in 0..9 {
            findings.fault(Check::Books, Place::of("commits", sequence), "no");
        }
        findings.fault(Check::Hits, Place::of("commits", 3).wager("eu1/1/0"), "not so");
        let mut text = Vec::new();
        findings.text(&mut text).expect("a buffer takes it");
        let text = String::from_utf8(text).expect("text");
        assert_eq!((findings.faults(), findings.told().len()), (10, 6));
        assert!(text.contains("1 leaf ") && text.contains("9 FAULTS"), "{text}");
        assert!(text.ends_with("hits: commits 3, eu1/1/0\n  not so\n"), "{text}");
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
        let mut json = Vec::new();
        findings.json(&mut json).expect("a buffer takes it");
        let report: serde_json::Value = serde_json::from_slice(&json).expect("an object");
        assert_eq!((&report["verified"], &report["faults"]), (&false.into(), &10.into()));
        assert_eq!(report["first"][5]["wager"], "eu1/1/0");
        let mut trimmed = Findings::default();
        for partition in [0, 0, 1] {
            trimmed.trimmed(Lane::Validated, partition);
            trimmed.trimmed(Lane::Contributions, partition);
        }
        trimmed.proved(Lane::Contributions, 0, 2);
        let mut text = Vec::new();
        trimmed.text(&mut text).expect("a buffer takes it");
        let text = String::from_utf8(text).expect("text");
        assert!(text.contains("3 frames       of validated: wagers and allocations stand"), "{text}");
        assert!(text.contains("3 frames       of contributions, 2 proved by digest"), "{text}");
        assert!(text.ends_with("\nverified\n") && text.lines().all(|line| line.len() <= 100), "{text}");
        let mut text = Vec::new();
        Findings::default().text(&mut text).expect("a buffer takes it");
        assert!(text.ends_with(b"\nverified\n"));
    }
}
