//! `jackpot status`: who works on what, how far it is, and what stands in the way.
//! Positions and lag come from the streams; who works, and why somebody stopped, from the processes themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::Duration;

use anyhow::bail;
use comfy_table::{Table, presets};
use futures_util::StreamExt;
use jackpot_core::frame::Header;
use jackpot_core::log::Log;
use jackpot_core::log::jetstream::JetStream;
use jackpot_core::refusal::StageName;
use jackpot_core::runner::Name;
use jackpot_core::status::{PartReport, Report, SUBJECT};
use jackpot_core::time::Millis;
use jackpot_core::topology::{self, Lane};
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use crate::server::Server;
use crate::{streams, wait};

/// How long answers are waited for.
const ANSWERS: Duration = Duration::from_millis(500);
/// What the ledger as a whole is called.
const LEDGER: &str = "ledger commits";

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub(crate) server: Server,
    /// Print one JSON array.
    #[arg(long)]
    json: bool,
}

/// One stage of one partition, or a part that a process has once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The stage.
    pub stage: StageName,
    /// The partition, or the part that a process has once.
    pub part: String,
    /// The processes at work on it: one, but for the moments of a change.
    pub owners: Vec<String>,
    /// How many more stand by.
    pub standing_by: usize,
    /// The last frame (or commit) that it has appended.
    pub position: u64,
    /// How many frames of its input are not in its output. For validate: whether ingress waits, as 0 or 1.
    pub lag: u64,
    /// The event time that it has come to.
    pub watermark: Option<Millis>,
    /// `running`, `stopped`, or why not.
    pub condition: String,
    /// In a sentence, where it is not at work.
    pub why: Option<String>,
}

/// Prints who does what; fails when a part is stopped, or nobody works on it.
pub async fn run(args: &Args, log: &JetStream, out: &mut impl Write) -> anyhow::Result<()> {
    let rows = rows(log).await?;
    if args.json {
        serde_json::to_writer(&mut *out, &rows)?;
        writeln!(out)?;
    } else {
        for line in table(&rows).lines() {
            writeln!(out, "{}", line.trim_end())?;
        }
    }
    match rows.iter().find(|row| row.owners.is_empty()) {
        None => Ok(()),
        Some(row) => {
            out.flush()?;
            let why = row.why.clone().unwrap_or_else(|| "start a process of this stage".into());
            bail!("{} of {} is not at work ({}): {why}", row.part, row.stage, row.condition)
        }
    }
}

/// Every part of every stage.
///
/// # Errors
/// When the broker does not answer.
pub async fn rows(log: &JetStream) -> anyhow::Result<Vec<Row>> {
    let partitions = streams::partitions(log).await?;
    let reports = ask(log).await?;
    let mut rows = Vec::new();
    for partition in 0..partitions {
        for &stage in StageName::ALL.iter().filter(|stage| **stage != StageName::Aggregate) {
            let (position, lag) = progress(log, stage, partition).await?;
            let mut row = row(&reports, stage, &part(partition), position, lag);
            row.watermark = watermark(log, stage, partition).await?;
            rows.push(row);
        }
    }
    rows.extend(ledger(log, &reports, partitions).await?);
    for view in [topology::TOTALS, topology::WINDOWS, topology::HITS] {
        let position = log.extent(view).await?.last;
        rows.push(row(&reports, StageName::Aggregate, &format!("view {view}"), position, 0));
    }
    let others = other_parts(&reports, &rows);
    for (stage, part) in others {
        let position = log.extent(topology::SOURCES).await?.last;
        rows.push(row(&reports, stage, &part, position, 0));
    }
    rows.sort_by(|a, b| (a.stage, &a.part).cmp(&(b.stage, &b.part)));
    Ok(rows)
}

/// Parts that processes tell of beyond those: the view `sources`, of which each partition has its own part. That a
/// process is a member of its stage is told only where something is in the way.
fn other_parts(reports: &[Report], rows: &[Row]) -> BTreeSet<(StageName, String)> {
    let tells = |told: &&PartReport| told.condition != "running" || !told.part.starts_with("members ");
    let told = reports
        .iter()
        .flat_map(|report| report.parts.iter().filter(tells).map(|told| (report.stage, &told.part)));
    let known = |(stage, part): &(StageName, &String)| {
        rows.iter().any(|row| row.stage == *stage && row.part == **part)
    };
    told.filter(|told| !known(told)).map(|(stage, part)| (stage, part.clone())).collect()
}

/// The ledger: each partition as it is consumed, then the commits.
async fn ledger<L: Log>(log: &L, reports: &[Report], partitions: u16) -> anyhow::Result<Vec<Row>> {
    let commit = wait::last_commit(log).await?;
    let consumed = commit.as_ref().map(|commit| commit.partitions.as_slice()).unwrap_or_default();
    let (mut rows, mut lags) = (Vec::new(), 0);
    for partition in 0..partitions {
        let last = log.extent(&Lane::Contributions.stream(partition)).await?.last;
        let taken = consumed.get(usize::from(partition)).copied().unwrap_or_default();
        let lag = last.saturating_sub(taken.frame);
        let mut row =
            row(&of_ledger(reports, partition), StageName::Aggregate, &part(partition), taken.frame, lag);
        row.watermark = taken.watermark;
        lags += lag;
        rows.push(row);
    }
    let position = commit.as_ref().map_or(0, |commit| commit.commit);
    let mut ledger = row(reports, StageName::Aggregate, LEDGER, position, lags);
    ledger.watermark = consumed.iter().map(|consumed| consumed.watermark).min().flatten();
    rows.push(ledger);
    Ok(rows)
}

/// What the aggregates say of a partition. They have the ledger as a whole, and name a partition only where it has
/// stopped while the others go on.
fn of_ledger(reports: &[Report], partition: u16) -> Vec<Report> {
    let name = part(partition);
    let of = |report: &Report| {
        let told = |wanted: &str| report.parts.iter().find(|told| told.part == wanted);
        let told = told(&name).or_else(|| told(LEDGER))?;
        Some(Report { parts: vec![PartReport { part: name.clone(), ..told.clone() }], ..report.clone() })
    };
    reports.iter().filter(|report| report.stage == StageName::Aggregate).filter_map(of).collect()
}

/// What a partition is called.
fn part(partition: u16) -> String {
    Name::partition(partition).name
}

/// Asks all processes, and takes the answers that come in time.
pub async fn ask(log: &JetStream) -> anyhow::Result<Vec<Report>> {
    let inbox = log.client().new_inbox();
    let mut answers = log.client().subscribe(inbox.clone()).await?;
    log.client().publish_with_reply(SUBJECT, inbox, Vec::new().into()).await?;
    let until = Instant::now() + ANSWERS;
    let mut reports: Vec<Report> = Vec::new();
    while let Ok(Some(answer)) = timeout_at(until, answers.next()).await {
        // Where no process is there at all, the broker says so with an empty message.
        if !answer.payload.is_empty() {
            reports.push(serde_json::from_slice(&answer.payload)?);
        }
    }
    reports.sort_by(|a, b| (a.stage, &a.process).cmp(&(b.stage, &b.process)));
    Ok(reports)
}

fn row(reports: &[Report], stage: StageName, part: &str, position: u64, lag: u64) -> Row {
    let mut conditions: BTreeMap<&str, Vec<(&str, Option<&String>)>> = BTreeMap::new();
    for report in reports.iter().filter(|report| report.stage == stage) {
        for told in report.parts.iter().filter(|told| told.part == part) {
            let entry = (report.process.as_str(), told.why.as_ref());
            conditions.entry(told.condition.as_str()).or_default().push(entry);
        }
    }
    let owners = conditions.get("running").into_iter().flatten().map(|(process, _)| (*process).to_owned());
    let worst = ["running", "stopped", "trying", "starting", "standing_by"]
        .into_iter()
        .find(|condition| conditions.contains_key(condition));
    let why = worst.and_then(|condition| conditions[condition].iter().find_map(|(_, why)| why.cloned()));
    Row {
        stage,
        part: part.into(),
        owners: owners.collect(),
        standing_by: conditions.get("standing_by").map_or(0, Vec::len),
        position,
        lag,
        watermark: None,
        condition: worst.unwrap_or("nobody is there").into(),
        why,
    }
}

/// How far a stage is with a partition, and how much it has before it.
async fn progress<L: Log>(log: &L, stage: StageName, partition: u16) -> anyhow::Result<(u64, u64)> {
    let last = async |lane: Lane| log.extent(&lane.stream(partition)).await.map(|extent| extent.last);
    let (input, output) = match stage {
        StageName::Validate => {
            let lane = Lane::Validated;
            let tail = log.last(&lane.stream(partition), &lane.subject(partition)).await?;
            let read = tail.as_ref().map(|entry| Header::peek_any(&entry.payload)).transpose()?;
            let read = read.map_or(0, |header| header.ingress.position);
            let newest = log.last(topology::WAGERS, &topology::batches_filter(partition)).await?;
            let waiting = newest.is_some_and(|entry| entry.sequence > read);
            return Ok((tail.map_or(0, |entry| entry.sequence), u64::from(waiting)));
        }
        StageName::Geofence => (last(Lane::Validated).await?, last(Lane::Geofenced).await?),
        StageName::Allocate => {
            let output = last(Lane::Allocations).await?.min(last(Lane::Contributions).await?);
            (last(Lane::Geofenced).await?, output)
        }
        StageName::Aggregate | StageName::Audit => (last(Lane::Allocations).await?, last(Lane::Audit).await?),
    };
    Ok((output, input.saturating_sub(output)))
}

/// The event time that a stage has come to in a partition.
async fn watermark<L: Log>(log: &L, stage: StageName, partition: u16) -> anyhow::Result<Option<Millis>> {
    let Some(lane) = Lane::ALL.into_iter().find(|lane| lane.writer() == stage) else { return Ok(None) };
    let tail = log.last(&lane.stream(partition), &lane.subject(partition)).await?;
    let header = tail.map(|entry| Header::peek_any(&entry.payload)).transpose()?;
    Ok(header.and_then(|header| header.watermark))
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    let header = ["stage", "part", "owner", "standing by", "position", "lag", "watermark", "condition"];
    table.load_style(presets::NOTHING).set_header(header);
    for row in rows {
        let condition = match &row.why {
            None => row.condition.clone(),
            Some(why) => format!("{}: {why}", row.condition),
        };
        table.add_row([
            row.stage.to_string(),
            row.part.clone(),
            row.owners.join(", "),
            row.standing_by.to_string(),
            row.position.to_string(),
            row.lag.to_string(),
            row.watermark.map(|at| at.to_string()).unwrap_or_default(),
            condition,
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(process: &str, condition: &str, why: Option<&str>) -> Report {
        let part = PartReport {
            part: "partition 0".into(),
            condition: condition.into(),
            why: why.map(str::to_owned),
        };
        let (stage, process, version) = (StageName::Audit, process.into(), "1".into());
        Report { stage, process, version, rules: 1, parts: vec![part] }
    }

    fn check(reports: &[Report], owners: &[&str], standing_by: usize, condition: &str, why: Option<&str>) {
        let row = row(reports, StageName::Audit, "partition 0", 1, 0);
        assert_eq!(row.owners, owners);
        assert_eq!(
            (row.standing_by, row.condition.as_str(), row.why.as_deref()),
            (standing_by, condition, why)
        );
    }

    #[test]
    fn a_partition_of_the_ledger_is_as_the_ledger_unless_it_stopped_alone() {
        let told = |part: &str, condition: &str, why: Option<&str>| PartReport {
            part: part.into(),
            condition: condition.into(),
            why: why.map(str::to_owned),
        };
        let report = Report {
            stage: StageName::Aggregate,
            process: "a".into(),
            version: "1".into(),
            rules: 1,
            parts: vec![told(LEDGER, "running", None), told("partition 1", "stopped", Some("look"))],
        };
        let reports = [report];
        let row =
            |partition| row(&of_ledger(&reports, partition), StageName::Aggregate, &part(partition), 1, 0);
        assert_eq!(
            (row(0).owners, row(0).condition.as_str(), row(0).why),
            (vec!["a".into()], "running", None)
        );
        assert_eq!(
            (row(1).owners, row(1).condition.as_str(), row(1).why.as_deref()),
            (vec![], "stopped", Some("look"))
        );
    }

    #[test]
    fn a_part_that_has_no_row_yet_gets_one() {
        let reports = [report("a", "stopped", Some("look")), report("b", "running", None)];
        let rows = [row(&reports, StageName::Audit, "partition 1", 1, 0)];
        let others = other_parts(&reports, &rows);
        assert_eq!(Vec::from_iter(others), [(StageName::Audit, "partition 0".to_owned())]);
        assert!(other_parts(&reports, &[row(&reports, StageName::Audit, "partition 0", 1, 0)]).is_empty());
    }

    #[test]
    fn a_part_is_at_work_where_one_process_is() {
        check(&[], &[], 0, "nobody is there", None);
        check(&[report("a", "running", None), report("b", "standing_by", None)], &["a"], 1, "running", None);
        check(
            &[report("a", "stopped", Some("look")), report("b", "standing_by", None)],
            &[],
            1,
            "stopped",
            Some("look"),
        );
    }
}
