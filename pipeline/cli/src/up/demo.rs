//! `jackpot up --demo`: synthetic traffic without end, and the totals as they grow, a line every other second.

use std::io::Write;
use std::time::Duration;

use jackpot_core::log::Log;
use jackpot_core::terms::Terms;
use jackpot_core::time::Millis;
use tokio::time::sleep;

use crate::load::traffic::{Settings, Traffic};
use crate::load::{self, first_numbers};
use crate::views::{self, Row, table};

/// Wagers a second: enough to see everything move, and little for the machine.
const RATE: u64 = 200;
/// Wagers of a batch at most.
const BATCH: usize = 50;
/// How often the totals are shown.
const EVERY: Duration = Duration::from_secs(2);

/// Publishes and shows, until something fails.
pub async fn run<L: Log>(log: &L, terms: &Terms, out: &mut impl Write) -> anyhow::Result<()> {
    let settings = Settings {
        seed: 1,
        start: Millis::now(),
        rate: RATE,
        wagers: u64::MAX,
        batch: BATCH,
        from: first_numbers(log, terms, None).await?,
    };
    let traffic = Traffic::new(terms, settings)?;
    tokio::select! {
        published = load::publish(traffic, log.clone(), |_| {}) => published.map(drop),
        shown = show(log, out) => shown,
    }
}

async fn show<L: Log>(log: &L, out: &mut impl Write) -> anyhow::Result<()> {
    loop {
        sleep(EVERY).await;
        // A server that is away is waited for by the traffic; here it only has nothing to show.
        if let Ok(rows) = views::present(&views::TOTALS, log, |_, _| true).await
            && !rows.is_empty()
        {
            writeln!(out, "{}", line(&rows))?;
            out.flush()?;
        }
    }
}

fn line(rows: &[Row]) -> String {
    let levels = rows.iter().filter_map(|row| {
        let (pool, level) = (row.text("pool")?, row.text("level")?);
        let (current, currency) = (row.text("current")?, row.text("currency")?);
        Some(format!("{pool}/{level} {} {currency}", table::amount(current, currency)))
    });
    levels.collect::<Vec<_>>().join("  ")
}
