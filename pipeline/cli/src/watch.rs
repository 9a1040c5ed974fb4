//! `jackpot watch`: the live view in the terminal, straight from `commits`: every amount was committed, has its time,
//! and is marked when nothing newer has come for a while. Where standard output is no terminal, a line at a time.

use std::collections::{BTreeMap, VecDeque};
use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::Context;
use comfy_table::{Cell, CellAlignment, Table, presets};
use jackpot_core::log::{Log, Reader};
use jackpot_core::money::Pico;
use jackpot_core::record::{Commit, Hit, LevelTotals};
use jackpot_core::time::Millis;
use jackpot_core::topology;
use tokio::time::{Instant, interval, sleep};

use crate::progress::{counted, grouped};
use crate::server::Server;
use crate::views::{self, table};
use crate::wait;

/// How often the view is drawn anew.
const FRAME: Duration = Duration::from_millis(250);
/// How often a line is written where there is no terminal.
const LINE: Duration = Duration::from_secs(2);
/// Over how long rates are taken.
const RATE_OVER: Duration = Duration::from_secs(5);
/// A quiet pipeline commits each second: without news for so long, what is shown is stale.
const STALE_AFTER: Duration = Duration::from_secs(3);
/// How many of the last hits are shown.
const HITS_SHOWN: usize = 5;

/// Arguments of `watch`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub(crate) server: Server,
}

/// Shows the live view until it is interrupted.
pub async fn run<L: Log>(log: &L, out: &mut impl Write) -> anyhow::Result<()> {
    let terminal = std::io::stdout().is_terminal();
    let _screen = if terminal { Some(Screen::enter(out)?) } else { None };
    let mut scene = Scene::new();
    let mut frames = interval(if terminal { FRAME } else { LINE });
    loop {
        let watching = follow(log, &mut scene, &mut frames, terminal, out);
        let error = tokio::select! {
            biased;
            interrupted = tokio::signal::ctrl_c() => return Ok(interrupted?),
            ended = watching => match ended {
                Ok(()) => return Ok(()),
                Err(error) => error,
            },
        };
        if error.is::<std::io::Error>() {
            return Err(error);
        }
        // A server that is away comes back; until then the view says that it is stale.
        scene.trouble = Some(error.to_string());
        draw(&scene, terminal, out)?;
        sleep(Duration::from_secs(1)).await;
    }
}

async fn follow<L: Log>(
    log: &L,
    scene: &mut Scene,
    frames: &mut tokio::time::Interval,
    terminal: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let last = wait::last_commit(log).await?.map_or(0, |commit| commit.commit);
    for row in views::present(&views::TOTALS, log, |_, _| true).await? {
        scene.level(serde_json::from_slice(&row.stored).context("the totals cannot be read")?);
    }
    let mut commits = log.read(topology::COMMITS, None, last + 1).await?;
    scene.trouble = None;
    loop {
        tokio::select! {
            entry = commits.next() => {
                let entry = entry?;
                scene.commit(serde_json::from_slice(&entry.payload).context("a commit cannot be read")?);
            }
            _ = frames.tick() => draw(scene, terminal, out)?,
        }
    }
}

fn draw(scene: &Scene, terminal: bool, out: &mut impl Write) -> std::io::Result<()> {
    if terminal {
        // Home, draw over what is there, clear what is left: without flicker.
        let text = scene.full(Instant::now(), Millis::now()).replace('\n', "\x1b[K\n");
        write!(out, "\x1b[H{text}\x1b[J")?;
    } else if !scene.levels.is_empty() {
        writeln!(out, "{}", scene.line())?;
    }
    out.flush()
}

/// A pool and a level.
type LevelName = (String, String);

/// The levels as they stood: their wagers and contributions.
struct Past {
    at: Instant,
    levels: BTreeMap<LevelName, (u64, Pico)>,
}

/// The terminal's second screen, for as long as the view lasts.
struct Screen;

impl Screen {
    fn enter(out: &mut impl Write) -> std::io::Result<Self> {
        out.write_all(b"\x1b[?1049h\x1b[?25l")?;
        Ok(Self)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that has gone needs nothing given back.
        drop(std::io::stdout().write_all(b"\x1b[?25h\x1b[?1049l"));
        drop(std::io::stdout().flush());
    }
}

/// What is shown.
struct Scene {
    levels: BTreeMap<LevelName, LevelTotals>,
    hits: VecDeque<Hit>,
    commit: u64,
    terms: u64,
    as_of: Option<Millis>,
    /// When the last commit came.
    heard: Option<Instant>,
    /// The past few seconds.
    past: VecDeque<Past>,
    trouble: Option<String>,
}

impl Scene {
    fn new() -> Self {
        Self {
            levels: BTreeMap::new(),
            hits: VecDeque::new(),
            commit: 0,
            terms: 0,
            as_of: None,
            heard: None,
            past: VecDeque::new(),
            trouble: None,
        }
    }

    fn level(&mut self, totals: LevelTotals) {
        self.levels.insert((totals.pool.clone(), totals.level.clone()), totals);
    }

    fn commit(&mut self, commit: Commit) {
        self.commit = commit.commit;
        self.terms = commit.terms;
        self.as_of = commit.as_of;
        commit.levels.into_iter().for_each(|level| self.level(level));
        for hit in commit.hits {
            self.hits.push_front(hit);
        }
        self.hits.truncate(HITS_SHOWN);
        let now = Instant::now();
        self.heard = Some(now);
        if self.past.back().is_none_or(|past| now - past.at >= FRAME) {
            let levels =
                self.levels.iter().map(|(name, level)| (name.clone(), (level.wagers, level.contributed)));
            self.past.push_back(Past { at: now, levels: levels.collect() });
        }
        while self.past.front().is_some_and(|past| now - past.at > RATE_OVER) && self.past.len() > 2 {
            self.past.pop_front();
        }
    }

    /// A level's wagers and growth per second, over the past few seconds, in whole wagers and pico-units.
    fn rate(&self, name: &LevelName, level: &LevelTotals) -> (u64, Pico) {
        let (Some(from), Some(to)) = (self.past.front(), self.past.back()) else { return (0, Pico::ZERO) };
        let millis = i128::try_from((to.at - from.at).as_millis()).unwrap_or(i128::MAX);
        let (Some((wagers, contributed)), true) = (from.levels.get(name), millis > 0) else {
            return (0, Pico::ZERO);
        };
        let per_second = |count: i128| count * 1_000 / millis;
        let more = per_second(i128::from(level.wagers.saturating_sub(*wagers)));
        (u64::try_from(more).unwrap_or(0), Pico(per_second((level.contributed - *contributed).0)))
    }

    /// The whole view.
    fn full(&self, now: Instant, clock: Millis) -> String {
        let mut lines = vec![self.heading(now, clock), String::new()];
        lines.extend(self.table().lines().map(|line| line.trim_end().to_owned()));
        if !self.hits.is_empty() {
            lines.extend([String::new(), "last hits".into()]);
        }
        lines.extend(self.hits.iter().map(|hit| {
            let payoff = table::amount(&hit.payoff.to_string(), &hit.currency);
            format!(
                " {}  {}/{}  {payoff} {}  {} in {}",
                hit.recorded_at, hit.pool, hit.level, hit.currency, hit.wager, hit.jurisdiction
            )
        }));
        lines.extend([String::new(), format!("{}; Ctrl-C ends the view", self.sum()), String::new()]);
        lines.join("\n")
    }

    fn heading(&self, now: Instant, clock: Millis) -> String {
        let stale = self.heard.is_none_or(|heard| now - heard > STALE_AFTER);
        let mark = match (&self.trouble, stale) {
            (Some(trouble), _) => format!("  STALE: {trouble}"),
            (None, true) => "  STALE: no commit has come for a while".into(),
            (None, false) => String::new(),
        };
        let as_of = self.as_of.map_or_else(
            || "nothing yet".into(),
            |at| format!("{at} ({} s ago)", (clock.0 - at.0).max(0) / 1_000),
        );
        format!("jackpots as of {as_of}   commit {}   terms {}{mark}", self.commit, self.terms)
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        let header =
            ["pool", "level", "", "now", "grows a second", "wagers a second", "wagers", "hits", "pending"];
        table.load_style(presets::NOTHING).set_header(header);
        for (name, level) in &self.levels {
            let (wagers, growth) = self.rate(name, level);
            let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
            table.add_row([
                Cell::new(&level.pool),
                Cell::new(&level.level),
                Cell::new(&level.currency),
                right(table::amount(&level.display.to_string(), &level.currency)),
                right(growth.floor_to_minor(4).to_string()),
                right(wagers.to_string()),
                right(grouped(&level.wagers.to_string())),
                right(level.hits.to_string()),
                Cell::new(if level.pending.is_some() { "waits for a hit" } else { "" }),
            ]);
        }
        table
    }

    fn sum(&self) -> String {
        let wagers: u64 = self
            .levels
            .iter()
            .fold(BTreeMap::new(), |mut most: BTreeMap<&str, u64>, ((pool, _), level)| {
                let entry = most.entry(pool.as_str()).or_default();
                *entry = level.wagers.max(*entry);
                most
            })
            .into_values()
            .sum();
        counted(wagers, "wager has joined a pool", "wagers have joined pools")
    }

    /// The amounts on one line.
    fn line(&self) -> String {
        let levels = self.levels.values().map(|level| {
            let amount = table::amount(&level.current.to_string(), &level.currency);
            format!("{}/{} {amount} {}", level.pool, level.level, level.currency)
        });
        levels.collect::<Vec<_>>().join("  ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(wagers: u64, current: &str) -> LevelTotals {
        serde_json::from_value(serde_json::json!({
            "pool": "mega", "level": "grand", "currency": "EUR", "sequence": 1, "commit": 7, "terms": 1,
            "as_of": "2026-06-08T20:15:30.123Z", "current": current, "display": current, "base": "100",
            "ceiling": null, "pending": null, "reserve": "0", "diversion": "0", "wagers": wagers, "wagered": "0",
            "contributed": current, "paid": "0", "house": "100", "adjusted": "0", "hits": 0
        }))
        .expect("a level")
    }

    #[tokio::test(start_paused = true)]
    async fn an_amount_has_its_time_and_is_marked_when_it_is_stale() {
        let mut scene = Scene::new();
        let commit = |number, level| -> Commit {
            let mut commit: Commit = serde_json::from_value(serde_json::json!({
                "commit": number, "previous": "0".repeat(64), "terms": 1, "as_of": "2026-06-08T20:15:30.123Z",
                "partitions": [], "settings": {"seconds": [1], "max_skew_s": 300},
                "counts": {"windows": 0, "hits": 0, "changed": number}, "levels": [], "windows": [], "hits": []
            }))
            .expect("a commit");
            commit.levels.push(level);
            commit
        };
        scene.commit(commit(7, totals(10, "100")));
        sleep(Duration::from_secs(2)).await;
        scene.commit(commit(8, totals(30, "104")));
        let clock = Millis::parse("2026-06-08T20:15:31.500Z").expect("a time");
        let text = scene.full(Instant::now(), clock);
        assert!(text.contains("as of 2026-06-08T20:15:30.123Z (1 s ago)   commit 8   terms 1\n"), "{text}");
        assert!(text.contains("104.00") && !text.contains("STALE"), "{text}");
        let name = ("mega".to_owned(), "grand".to_owned());
        let (wagers, growth) = scene.rate(&name, &scene.levels[&name]);
        assert_eq!((wagers, growth.to_string().as_str()), (10, "2"));
        sleep(Duration::from_secs(4)).await;
        assert!(scene.full(Instant::now(), clock).contains("STALE"), "nothing came for 4 s");
        assert_eq!(scene.line(), "mega/grand 104.00 EUR");
    }
}
