//! `jackpot terms plan`: what a document would change, when each change takes effect, and what cannot be applied.
//! The rules are `jackpot_core::terms::plan`'s; here the present state is asked for, and the answer printed.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use anyhow::bail;
use comfy_table::{Table, presets};
use jackpot_core::log::Log;
use jackpot_core::money::Pico;
use jackpot_core::record::LevelTotals;
use jackpot_core::terms::plan::{Change, Class, plan};
use jackpot_core::terms::{Terms, store};
use jackpot_core::topology;

use super::{parse, read};
use crate::progress::counted;
use crate::server::Server;

/// Arguments of `terms plan`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub(crate) server: Server,
    /// The document.
    file: PathBuf,
    /// Print one JSON array of changes.
    #[arg(long)]
    json: bool,
}

/// Prints the changes; fails when one of them is refused.
pub async fn run<L: Log>(args: &Args, log: &L, out: &mut impl Write) -> anyhow::Result<()> {
    let document = read(&args.file)?;
    let terms = parse(&args.file.display().to_string(), &document, &mut std::io::stderr())?;
    let changes = changes(log, &terms).await?;
    if args.json {
        serde_json::to_writer(&mut *out, &changes)?;
        writeln!(out)?;
    } else if !changes.is_empty() {
        for line in table(&changes).lines() {
            writeln!(out, "{}", line.trim_end())?;
        }
    }
    refuse(&changes)
}

/// What terms would change; those that are applied already change nothing.
pub async fn changes<L: Log>(log: &L, terms: &Terms) -> anyhow::Result<Vec<Change>> {
    let Some(latest) = store::latest(log).await? else {
        return Ok(plan(&Terms::none(), terms, |_, _| None));
    };
    if let Some(claim) = store::claim(log, terms.revision).await? {
        let same = claim.digest == terms.digest();
        return Ok(if same { Vec::new() } else { vec![taken(terms.revision, latest.revision)] });
    }
    let before = store::load(log, latest.revision).await?;
    let mut current = BTreeMap::new();
    for pool in &before.pools {
        for level in &pool.levels {
            let subject = topology::totals(&pool.pool, &level.level);
            if let Some(entry) = log.last(topology::TOTALS, &subject).await? {
                let totals: LevelTotals = serde_json::from_slice(&entry.payload)?;
                current.insert((pool.pool.clone(), level.level.clone()), totals.current);
            }
        }
    }
    let current = |pool: &str, level: &str| -> Option<Pico> {
        current.get(&(pool.to_owned(), level.to_owned())).copied()
    };
    Ok(plan(&before, terms, current))
}

fn taken(revision: u64, latest: u64) -> Change {
    Change {
        place: "revision".into(),
        class: Class::Refused,
        reason: format!("revision {revision} is applied, with other content; the next one is {}", latest + 1),
        before: latest.into(),
        after: revision.into(),
    }
}

/// An error where one of the changes is refused.
pub fn refuse(changes: &[Change]) -> anyhow::Result<()> {
    let refused: Vec<_> = changes.iter().filter(|change| change.class == Class::Refused).collect();
    let Some(first) = refused.first() else { return Ok(()) };
    let count = u64::try_from(refused.len()).unwrap_or(u64::MAX);
    let count = counted(count, "change is refused", "changes are refused");
    bail!("{count}, first {}: {}; mend the document and plan again", first.place, first.reason)
}

fn table(changes: &[Change]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["place", "class", "before", "after", "why"]);
    for change in changes {
        let class = match change.class {
            Class::Immediate => "immediate",
            Class::OnNextHit => "on_next_hit",
            Class::Refused => "refused",
        };
        table.add_row([&change.place, class, &short(&change.before), &short(&change.after), &change.reason]);
    }
    table
}

/// A value that fits a cell.
fn short(value: &serde_json::Value) -> String {
    let text = match value {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut cut: String = text.chars().take(40).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut
}

#[cfg(test)]
mod tests;
