//! What the live view shows, drawn with ratatui: pure, from the board, the stages and the refusals to cells of text.
//! What says that something is wrong says it in words; colour only helps.

use std::collections::BTreeMap;

use jackpot_core::refusal::StageName;
use jackpot_core::time::Millis;
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Table};

use super::around::Seen;
use super::screen::Key;
use crate::live::board::Level;
use crate::live::{self, Board, Pulse};
use crate::progress::{counted, grouped};
use crate::status;
use crate::views::table;

/// Seconds of contributions that a line of a level draws.
const DRAWN_SECONDS: i64 = 20;
/// From least to most.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// How wide a terminal must be for them.
const DRAWN_WIDTH: u16 = 118;
/// How many lines the lower boxes take, borders included.
const LOWER_LINES: u16 = 9;

/// What is shown.
#[derive(Debug, Default)]
pub struct Scene {
    /// The amounts.
    pub board: Board,
    /// The broker's clock.
    pub pulse: Option<Pulse>,
    /// Why the broker cannot be followed just now.
    pub trouble: Option<String>,
    /// What stands around the amounts.
    pub around: Seen,
    /// Whether somebody has left the view.
    pub left: bool,
    /// The first line of the levels that is seen.
    scroll: usize,
}

impl Scene {
    /// Somebody has pressed a key.
    pub fn press(&mut self, key: Key) {
        match key {
            Key::Leave => self.left = true,
            Key::Scroll(lines) => {
                let by = usize::try_from(lines.unsigned_abs()).unwrap_or(usize::MAX);
                self.scroll =
                    if lines < 0 { self.scroll.saturating_sub(by) } else { self.scroll.saturating_add(by) };
            }
        }
    }

    /// Draws all of it.
    pub fn draw(&mut self, frame: &mut Frame<'_>) {
        let [top, levels, lower, bottom] = Layout::vertical([
            Constraint::Length(2),
            Constraint::Min(4),
            Constraint::Length(LOWER_LINES),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        let [stages, events] =
            Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)]).areas(lower);
        let [hits, refusals] =
            Layout::vertical([Constraint::Percentage(50), Constraint::Percentage(50)]).areas(events);
        frame.render_widget(self.heading(), top);
        self.draw_levels(frame, levels);
        frame.render_widget(self.stages(), stages);
        frame.render_widget(self.hits(hits), hits);
        frame.render_widget(self.refusals(refusals), refusals);
        frame.render_widget(self.sum(), bottom);
    }

    fn heading(&self) -> Paragraph<'_> {
        let stale = live::stale(&self.board, self.pulse, self.trouble.as_deref());
        let mut lines = Vec::new();
        if let Some(head) = self.board.head() {
            let age = self.pulse.map_or(0, |pulse| (pulse.now().0 - head.committed_at.0).max(0) / 1_000);
            let as_of = head.as_of.map_or_else(|| "nothing yet".into(), |at| at.to_string());
            lines.push(Line::from(vec![
                "jackpots".bold(),
                format!(" as of {as_of}   commit {}, {age} s ago   terms {}", head.commit, head.terms).into(),
            ]));
        } else {
            lines.push(Line::from("jackpots".bold()));
        }
        lines.extend(stale.map(|why| Line::from(format!("STALE: {why}")).bold().reversed()));
        Paragraph::new(lines)
    }

    fn draw_levels(&mut self, frame: &mut Frame<'_>, area: Rect) {
        let room = usize::from(area.height.saturating_sub(3));
        let count = self.board.levels().len();
        self.scroll = self.scroll.min(count.saturating_sub(room));
        let mut title = format!(" {} ", counted(count as u64, "level", "levels"));
        if count > room {
            let last = (self.scroll + room).min(count);
            title = format!(" levels {} to {last} of {count}, arrows and page keys move ", self.scroll + 1);
        }
        let header =
            ["pool", "level", "now", "", "contributed/min", "growth/min", "wagers/min", "hits", "last 20 s"];
        let right = [false, false, true, false, true, true, true, true, false];
        let header = header.iter().zip(right).map(|(text, right)| cell((*text).to_owned(), right));
        let to = self.board.head().and_then(|head| head.windows_to);
        let rows = self.board.levels().values().skip(self.scroll).take(room).map(|level| {
            let texts = texts(level, to);
            Row::new(texts.into_iter().zip(right).enumerate().map(|(column, (text, right))| {
                cell(text, right).style(if column == 2 { Style::new().bold() } else { Style::new() })
            }))
        });
        let widths = [
            Constraint::Min(8),
            Constraint::Min(8),
            Constraint::Min(14),
            Constraint::Length(3),
            Constraint::Min(15),
            Constraint::Min(11),
            Constraint::Min(10),
            Constraint::Min(5),
            Constraint::Length(if area.width < DRAWN_WIDTH { 0 } else { 20 }),
        ];
        let table = Table::new(rows, widths)
            .header(Row::new(header).style(Style::new().add_modifier(Modifier::UNDERLINED)))
            .block(Block::new().borders(Borders::ALL).title(title));
        frame.render_widget(table, area);
    }

    /// A line for each stage: how far behind it is, over all partitions, who works on it, and what is in the way.
    fn stages(&self) -> Table<'_> {
        let mut of: BTreeMap<StageName, Vec<&status::Row>> = BTreeMap::new();
        self.around.stages.iter().for_each(|row| of.entry(row.stage).or_default().push(row));
        let rows = of.into_iter().map(|(stage, parts)| {
            // The ledger as a whole has the lags of its partitions once more.
            let partitions = parts.iter().filter(|row| row.part.starts_with("partition "));
            let lag: u64 = partitions.map(|row| row.lag).sum();
            let mut owners: Vec<_> = parts.iter().flat_map(|row| &row.owners).collect();
            owners.sort_unstable();
            owners.dedup();
            let amiss = parts.iter().find(|row| row.owners.is_empty());
            let state = amiss.map_or_else(
                || Span::from("at work"),
                |row| {
                    let why = row.why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
                    Span::from(format!("{}: {}{why}", row.part, row.condition)).bold().reversed()
                },
            );
            Row::new([
                cell(stage.to_string(), false),
                cell(grouped(&lag.to_string()), true),
                cell(owners.len().to_string(), true),
                Cell::from(state),
            ])
        });
        let header = Row::new([
            cell("stage".into(), false),
            cell("lag".into(), true),
            cell("processes".into(), true),
            cell("state".into(), false),
        ]);
        let title = match &self.around.trouble {
            Some(trouble) => format!(" stages, as they were: {trouble} "),
            None => " stages, lag in frames ".into(),
        };
        let widths =
            [Constraint::Length(9), Constraint::Length(7), Constraint::Length(9), Constraint::Min(10)];
        Table::new(rows, widths)
            .header(header.style(Style::new().add_modifier(Modifier::UNDERLINED)))
            .block(Block::new().borders(Borders::ALL).title(title))
    }

    fn hits(&self, area: Rect) -> Paragraph<'_> {
        let room = usize::from(area.height.saturating_sub(2));
        let lines = self.board.hits().take(room).map(|hit| {
            let payoff = table::amount(&hit.payoff.to_string(), &hit.currency);
            let what = format!(" {} {} {}", hit.currency, hit.pool, hit.level);
            let rest = format!("  {} in {}  {}", hit.operator, hit.jurisdiction, hit.recorded_at);
            Line::from(vec![payoff.bold(), what.into(), rest.into()])
        });
        boxed(lines.collect(), " last hits ".into())
    }

    fn refusals(&self, area: Rect) -> Paragraph<'_> {
        let room = usize::from(area.height.saturating_sub(2));
        let lines = self.around.refusals.iter().rev().take(room).map(|notice| {
            let what = notice.wager.as_ref().or(notice.batch.as_ref()).map_or("", String::as_str);
            let reason = notice.reason.as_str().bold();
            Line::from(vec![reason, format!("  {what}  {}", notice.detail).into()])
        });
        let refused = &self.around.refused;
        let all: u64 = refused.values().sum();
        let mut title = format!(" refusals: {} since the view began", grouped(&all.to_string()));
        let mut most: Vec<_> = refused.iter().collect();
        most.sort_by_key(|&(reason, count)| (std::cmp::Reverse(*count), *reason));
        for (reason, count) in most.into_iter().take(3) {
            title.push_str(&format!(", {reason} {}", grouped(&count.to_string())));
        }
        title.push(' ');
        boxed(lines.collect(), title)
    }

    fn sum(&self) -> Line<'_> {
        let mut most: BTreeMap<&str, u64> = BTreeMap::new();
        for ((pool, _), level) in self.board.levels() {
            let entry = most.entry(pool.as_str()).or_default();
            *entry = level.totals.wagers.max(*entry);
        }
        let wagers: u64 = most.into_values().sum();
        let sum = counted(wagers, "wager has joined a pool", "wagers have joined pools");
        Line::from(format!("{sum}; q or Ctrl-C ends the view"))
    }

    /// The amounts on one line.
    pub fn line(&self) -> String {
        let levels = self.board.levels().values().map(|level| {
            let totals = &level.totals;
            let amount = table::amount(&totals.current.to_string(), &totals.currency);
            format!("{}/{} {amount} {}", totals.pool, totals.level, totals.currency)
        });
        levels.collect::<Vec<_>>().join("  ")
    }
}

fn boxed(lines: Vec<Line<'_>>, title: String) -> Paragraph<'_> {
    Paragraph::new(lines).block(Block::new().borders(Borders::ALL).title(title))
}

fn cell<'a>(text: String, right: bool) -> Cell<'a> {
    let alignment = if right { Alignment::Right } else { Alignment::Left };
    Cell::from(Line::from(text).alignment(alignment))
}

/// What a line tells of a level.
fn texts(level: &Level, to: Option<Millis>) -> [String; 9] {
    let (totals, flow) = (&level.totals, level.flow());
    let rate = |amount: jackpot_core::money::Pico| amount.floor_to_minor(4).to_string();
    let waits = if totals.pending.is_some() { "*" } else { "" };
    [
        totals.pool.clone(),
        format!("{}{waits}", totals.level),
        table::amount(&totals.display.to_string(), &totals.currency),
        totals.currency.clone(),
        rate(flow.contributed),
        rate(flow.change),
        grouped(&flow.wagers.to_string()),
        totals.hits.to_string(),
        drawn(level, to),
    ]
}

/// The contributions of each of the last seconds up to then, as bars; the highest of them is a full one.
fn drawn(level: &Level, to: Option<Millis>) -> String {
    let Some(to) = to else { return String::new() };
    let by_end: BTreeMap<_, _> = level.flows().map(|(end, flow)| (end, flow.contributed.0)).collect();
    let ends = (0..DRAWN_SECONDS).rev().map(|back| to.plus(-back * 1_000));
    let values: Vec<_> = ends.map(|end| by_end.get(&end).copied().unwrap_or(0)).collect();
    let most = values.iter().copied().max().unwrap_or(0).max(1);
    let bar = |value: i128| match usize::try_from(value * 8 / most).unwrap_or(0) {
        0 if value == 0 => ' ',
        height => BARS[height.clamp(1, 8) - 1],
    };
    values.into_iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use jackpot_core::log::Entry;
    use jackpot_core::record::RefusalNotice;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    use super::*;

    const AT: &str = "2026-06-08T20:15:30.123Z";

    fn level(pool: &str, name: &str, commit: u64, current: &str) -> serde_json::Value {
        json!({
            "pool": pool, "level": name, "currency": "EUR", "sequence": commit, "commit": commit, "terms": 1,
            "as_of": AT, "current": current, "display": current, "base": "100", "ceiling": null,
            "pending": {"ceiling": "5"}, "reserve": "0", "diversion": "0", "wagers": 1_234, "wagered": "0",
            "contributed": current, "paid": "0", "house": "100", "adjusted": "0", "hits": 3
        })
    }

    fn window(end: &str, start: &str, contributed: &str) -> serde_json::Value {
        json!({
            "pool": "mega", "level": "grand", "currency": "EUR", "commit": 7, "seconds": 1, "window_start": start,
            "window_end": end, "opening": "0", "closing": contributed, "wagers": 20, "wagered": "0",
            "contributed": contributed, "paid": "0", "house": "0", "adjusted": "0", "hits": 0, "late": 0,
            "by_operator": {}, "by_jurisdiction": {}
        })
    }

    fn commit(number: u64, levels: &[serde_json::Value]) -> Entry {
        let windows = [
            window("2026-06-08T20:15:28.000Z", "2026-06-08T20:15:27.000Z", "1.5"),
            window("2026-06-08T20:15:30.000Z", "2026-06-08T20:15:29.000Z", "3"),
        ];
        let hit = json!({
            "pool": "mega", "level": "grand", "currency": "EUR", "sequence": 3, "commit": number, "order": 0,
            "wager": "acme-spin-eu1/1/2", "operator": "acme", "source": "acme-spin-eu1", "game": "g", "round": "r",
            "jurisdiction": "MT", "occurred_at": AT, "recorded_at": AT, "payoff": "1234.5", "current": "100",
            "from_diversion": "0", "from_reserve": "0", "from_house": "100", "base": "100", "terms": 1
        });
        let commit = json!({
            "commit": number, "previous": "0".repeat(64), "terms": 1, "as_of": AT, "partitions": [],
            "settings": {"seconds": [1], "max_skew_s": 300},
            "counts": {"windows": 2, "hits": 1, "changed": number}, "levels": levels, "windows": windows, "hits": [hit]
        });
        Entry {
            sequence: number,
            subject: "commits".into(),
            recorded_at: Millis::parse(AT).expect("a time"),
            headers: Vec::new(),
            payload: commit.to_string().into(),
        }
    }

    /// The text of the view in so many lines.
    fn seen(scene: &mut Scene, lines: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(130, lines)).expect("a terminal");
        terminal.draw(|frame| scene.draw(frame)).expect("drawn");
        let buffer = terminal.backend().buffer();
        let rows = buffer.content.chunks(usize::from(buffer.area.width));
        let rows = rows.map(|row| row.iter().map(ratatui::buffer::Cell::symbol).collect::<String>());
        rows.map(|row| row.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
    }

    fn scene(levels: &[serde_json::Value]) -> Scene {
        let mut scene =
            Scene { pulse: Some(Pulse::new(Millis::parse(AT).expect("a time"))), ..Scene::default() };
        scene.board.commit(&commit(7, levels)).expect("a commit");
        scene
    }

    #[tokio::test(start_paused = true)]
    async fn an_amount_has_its_time_and_is_marked_when_it_is_stale() {
        let mut scene = scene(&[level("mega", "grand", 7, "500104.25")]);
        let text = seen(&mut scene, 24);
        assert!(text.contains("as of 2026-06-08T20:15:30.123Z   commit 7, 0 s ago   terms 1"), "{text}");
        let line = text.lines().find(|line| line.contains("mega")).expect("the level");
        let words: Vec<_> = line.split_whitespace().collect();
        let expect = ["│mega", "grand*", "500,104.25", "EUR", "4.5", "4.5", "40", "3", "▄", "█│"];
        assert_eq!(words, expect, "{text}");
        assert!(text.contains("1,234.50 EUR mega grand  acme in MT") && !text.contains("STALE"), "{text}");
        tokio::time::sleep(std::time::Duration::from_secs(4)).await;
        let text = seen(&mut scene, 24);
        assert!(text.contains("4 s ago") && text.contains("STALE: the pipeline has not committed"), "{text}");
        scene.trouble = Some("the broker has gone".into());
        assert!(seen(&mut scene, 24).contains("STALE: the broker has gone"));
        assert_eq!(scene.line(), "mega/grand 500,104.25 EUR");
    }

    #[tokio::test]
    async fn levels_that_do_not_fit_are_scrolled_to() {
        let levels: Vec<_> = (10..60).map(|n| level("mega", &format!("l{n}"), 7, "100")).collect();
        let mut scene = scene(&levels);
        let text = seen(&mut scene, 24);
        assert!(
            text.contains("levels 1 to 9 of 50") && text.contains("l18*") && !text.contains("l19*"),
            "{text}"
        );
        scene.press(Key::Scroll(1));
        assert!(seen(&mut scene, 24).contains("levels 2 to 10 of 50"));
        scene.press(Key::Scroll(i32::MAX));
        let text = seen(&mut scene, 24);
        assert!(text.contains("levels 42 to 50 of 50") && text.contains("l59*"), "{text}");
        scene.press(Key::Scroll(-1));
        assert!(seen(&mut scene, 24).contains("levels 41 to 49 of 50"));
        scene.press(Key::Leave);
        assert!(scene.left);
        // A terminal of hardly any room is no reason to fail.
        seen(&mut scene, 3);
    }

    #[tokio::test]
    async fn what_is_in_the_way_is_said_in_words() {
        let mut scene = scene(&[level("mega", "grand", 7, "100")]);
        let row = |part: &str, lag, owners: &[&str], why: Option<&str>| status::Row {
            stage: StageName::Geofence,
            part: part.into(),
            owners: owners.iter().map(|&owner| owner.to_owned()).collect(),
            standing_by: 0,
            position: 1,
            lag,
            watermark: None,
            condition: if why.is_some() { "stopped" } else { "running" }.into(),
            why: why.map(str::to_owned),
        };
        scene.around.stages =
            vec![row("partition 0", 1_000, &["a"], None), row("partition 1", 234, &["b"], None)];
        let text = seen(&mut scene, 24);
        assert!(text.contains("geofence    1,234         2 at work"), "{text}");
        scene.around.stages.push(row("partition 2", 0, &[], Some("look")));
        assert!(seen(&mut scene, 24).contains("partition 2: stopped: look"));
        let notice: RefusalNotice = serde_json::from_value(json!({
            "wager": "acme-spin-eu1/4/1", "stage": "validate", "reason": "invalid_amount", "detail": "mend it",
            "at": AT, "operator": "acme", "source": "acme-spin-eu1", "partition": 0, "frame": 1, "number": 0
        }))
        .expect("a refusal");
        scene.around.refusal(notice.clone(), false);
        (0..25).for_each(|_| scene.around.refusal(notice.clone(), true));
        let text = seen(&mut scene, 24);
        assert!(text.contains("refusals: 25 since the view began, invalid_amount 25"), "{text}");
        assert!(text.contains("invalid_amount  acme-spin-eu1/4/1  mend it"), "{text}");
        assert_eq!(scene.around.refusals.len(), 20, "older ones are forgotten");
    }
}
