//! What a run found, for people and for programs.

use std::io::Write;

use serde::Serialize;

use super::Args;
use super::judge::Verdict;
use super::memory::Held;
use super::pauses::Pauses;
use super::producer::Sent;
use crate::bench::machine::Machine;
use crate::progress::counted;

/// Everything that a run found.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    seed: u64,
    seconds: u64,
    rate: u64,
    sessions: u64,
    servers: u8,
    wagers: u64,
    batches: usize,
    /// Copies that were stored since the acknowledgement of the first was lost; each was refused.
    repeated: u64,
    frames: u64,
    commits: u64,
    hits: u64,
    windows: u64,
    #[serde(flatten)]
    pauses: Pauses,
    memory: Vec<Held>,
    machine: Machine,
    /// What is wrong, a sentence each.
    pub(super) wrong: Vec<String>,
}

impl Report {
    pub(super) fn new(args: &Args, sent: &Sent, verdict: Verdict, pauses: Pauses, memory: Vec<Held>) -> Self {
        let Verdict { wrong, repeated, commits, frames, hits, windows } = verdict;
        Self {
            seed: args.seed,
            seconds: args.seconds,
            rate: args.rate,
            sessions: args.sessions,
            servers: args.servers.unwrap_or(1),
            wagers: sent.wagers(),
            batches: sent.batches(),
            repeated,
            frames,
            commits,
            hits,
            windows,
            pauses,
            memory,
            machine: Machine::this(),
            wrong,
        }
    }

    /// How many things are wrong.
    pub(super) fn wrongs(&self) -> u64 {
        u64::try_from(self.wrong.len()).unwrap_or(u64::MAX)
    }

    /// For programs.
    pub(super) fn json(&self, out: &mut impl Write) -> anyhow::Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        writeln!(out)?;
        Ok(())
    }

    /// For people.
    pub(super) fn text(&self, out: &mut impl Write) -> anyhow::Result<()> {
        let Self { machine, seed, frames, commits, hits, windows, repeated, .. } = self;
        writeln!(out, "{machine}, seed {seed}")?;
        let batches = counted(u64::try_from(self.batches)?, "batch", "batches");
        let wagers = counted(self.wagers, "wager", "wagers");
        writeln!(
            out,
            "{wagers} in {batches}, {repeated} of them repeated; {frames} frames, {commits} commits, {hits} hits, {windows} windows"
        )?;
        writeln!(out)?;
        self.pauses(out)?;
        writeln!(out)?;
        self.memory(out)?;
        writeln!(out)?;
        for wrong in &self.wrong {
            writeln!(out, "wrong: {wrong}")?;
        }
        if self.wrong.is_empty() {
            writeln!(
                out,
                "every acknowledged batch counts exactly once; lanes, books, windows and views are whole"
            )?;
        }
        Ok(())
    }

    fn pauses(&self, out: &mut impl Write) -> anyhow::Result<()> {
        writeln!(
            out,
            "{:<20} {:>5} {:>6} {:>10} {:>10} {:>12} {:>12}",
            "pauses in ms", "count", "alone", "median", "worst", "worst after", "worst amid"
        )?;
        for kind in &self.pauses.kinds {
            writeln!(
                out,
                "{:<20} {:>5} {:>6} {:>10} {:>10} {:>12} {:>12}",
                kind.kind,
                kind.count,
                kind.alone,
                kind.median_ms,
                kind.worst_ms,
                kind.worst_after_ms,
                kind.worst_amid_ms
            )?;
        }
        writeln!(
            out,
            "{:<20} {:>5} {:>6} {:>10} {:>10}",
            "(before any fault)", "", "", "", self.pauses.undisturbed_ms
        )?;
        Ok(())
    }

    fn memory(&self, out: &mut impl Write) -> anyhow::Result<()> {
        writeln!(
            out,
            "{:<20} {:>7} {:>10} {:>10} {:>10} {:>14}",
            "memory in KiB", "samples", "min", "median", "max", "per minute"
        )?;
        for held in &self.memory {
            let Held { process, samples, min_kib, median_kib, max_kib, kib_per_minute } = held;
            writeln!(
                out,
                "{process:<20} {samples:>7} {min_kib:>10} {median_kib:>10} {max_kib:>10} {kib_per_minute:>14}"
            )?;
        }
        Ok(())
    }
}
