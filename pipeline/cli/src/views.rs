//! The views and refusals, as the operator's commands show them: read a stream, select, sort, render.
//! `totals`, `windows`, `hits` and `refusals` differ only in what a [`View`] says.

pub mod render;
pub mod table;

use std::io::Write;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use jackpot_core::log::{Entry, Log, LogError, Reader};
use jackpot_core::terms::store;
use jackpot_core::time::Millis;
use jackpot_core::topology;
use serde_json::{Map, Value};
use tokio::time::sleep;

use crate::duration;
use crate::exit::Unusable;
use crate::server::Server;
use crate::streams;

/// What is known of a view: where it is, how it is sorted, what its fields are.
#[derive(Debug)]
pub struct View {
    /// Its stream, and the first word of its subjects.
    pub stream: &'static str,
    /// The words of its subjects behind the first, by the flags that select them.
    pub words: &'static [Word],
    /// The fields it is sorted by.
    pub order: &'static [&'static str],
    /// The field that `--since` and `--until` look at.
    pub time: &'static str,
    /// Whether only the last message of a subject counts.
    pub latest: bool,
    /// Its fields, in the order of the contract.
    pub columns: &'static [Column],
}

/// A word of a view's subjects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// Anything.
    Any,
    /// A window's length.
    Seconds,
    /// A pool.
    Pool,
    /// A level.
    Level,
    /// A source.
    Source,
}

/// A field of a view.
#[derive(Debug)]
pub struct Column {
    /// Its name.
    pub field: &'static str,
    /// What it is.
    pub kind: Kind,
    /// How soon it is left out of a table that is too narrow: 0 is never shown there, 1 the last to go.
    pub rank: u8,
}

/// What a field is, which says how people read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A name or a sentence.
    Text,
    /// A number.
    Count,
    /// An amount of the object's currency.
    Amount,
    /// A time.
    Time,
    /// An object of its own.
    Object,
}

/// One object of a view.
#[derive(Debug, Clone)]
pub struct Row {
    /// The object as it is stored.
    pub stored: Bytes,
    /// The same, read.
    pub fields: Map<String, Value>,
}

/// What of a view is wanted, and how it is written.
#[derive(Debug, clap::Args)]
pub struct Selection {
    /// For programs: one JSON array.
    #[arg(long, group = "format", conflicts_with = "follow")]
    json: bool,
    /// For programs: one JSON object a line.
    #[arg(long, group = "format")]
    jsonl: bool,
    /// For spreadsheets: comma-separated values with a line of names.
    #[arg(long, group = "format")]
    csv: bool,
    /// Only of this pool.
    #[arg(long)]
    pool: Option<String>,
    /// Only of this level.
    #[arg(long)]
    level: Option<String>,
    /// Only of this source.
    #[arg(long)]
    source: Option<String>,
    /// Not before this time (RFC 3339, or how long ago: 10m).
    #[arg(long, value_name = "TIME", value_parser = duration::moment)]
    since: Option<Millis>,
    /// Before this time.
    #[arg(long, value_name = "TIME", value_parser = duration::moment)]
    until: Option<Millis>,
    /// At most so many: the latest.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Go on with what comes.
    #[arg(long)]
    follow: bool,
}

/// Arguments of a command that shows a view.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub(crate) server: Server,
    #[command(flatten)]
    selection: Selection,
}

/// Arguments of `windows`.
#[derive(Debug, clap::Args)]
pub struct WindowsArgs {
    #[command(flatten)]
    pub(crate) view: Args,
    /// Only windows of this length.
    #[arg(long, value_name = "N")]
    seconds: Option<u32>,
}

/// How objects are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Table,
    Json,
    JsonLines,
    Csv,
}

/// Shows a view that has no flag of its own.
pub async fn run<L: Log>(view: &View, args: &Args, log: &L, out: &mut impl Write) -> anyhow::Result<()> {
    show(view, &args.selection, None, log, out).await
}

/// Shows the windows.
pub async fn run_windows<L: Log>(
    view: &View,
    args: &WindowsArgs,
    log: &L,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    show(view, &args.view.selection, args.seconds, log, out).await
}

async fn show<L: Log>(
    view: &View,
    selection: &Selection,
    seconds: Option<u32>,
    log: &L,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    selection.check(view)?;
    let filter = selection.filter(view, seconds);
    let next = log.extent(view.stream).await?.last + 1;
    let rows = if view.stream == topology::TOTALS {
        let wanted = |pool: &str, level: &str| {
            fits(selection.pool.as_deref(), pool) && fits(selection.level.as_deref(), level)
        };
        let mut rows = present(view, log, wanted).await?;
        rows.retain(|row| selection.wants(view, row));
        rows
    } else if view.latest {
        newest(view, selection, &filter, log).await?
    } else {
        stored(view, selection, &filter, log).await?
    };
    let rows = selection.cut(sorted(view, rows), view);
    let width = table::terminal_width();
    match selection.format() {
        Format::Json => render::json(&rows, out)?,
        Format::JsonLines => render::json_lines(&rows, out)?,
        Format::Csv => render::csv(view.columns, &rows, true, out)?,
        Format::Table => out.write_all(table::render(view.columns, &rows, width).as_bytes())?,
    }
    out.flush()?;
    if selection.follow {
        follow(view, selection, &filter, next, log, out).await?;
    }
    Ok(())
}

/// The last object of each level that is wanted and that the terms know; a level is never taken out of them.
pub async fn present<L: Log>(
    view: &View,
    log: &L,
    wanted: impl Fn(&str, &str) -> bool,
) -> anyhow::Result<Vec<Row>> {
    let Some(claim) = store::latest(log).await? else { return Ok(Vec::new()) };
    let terms = store::load(log, claim.revision).await?;
    let mut rows = Vec::new();
    for pool in &terms.pools {
        for level in pool.levels.iter().filter(|level| wanted(&pool.pool, &level.level)) {
            let subject = topology::totals(&pool.pool, &level.level);
            if let Some(entry) = log.last(view.stream, &subject).await? {
                rows.push(Row::read(view, &entry)?);
            }
        }
    }
    Ok(rows)
}

/// All objects that are wanted; of more than `--limit`, the latest.
async fn stored<L: Log>(
    view: &View,
    selection: &Selection,
    filter: &str,
    log: &L,
) -> anyhow::Result<Vec<Row>> {
    let mut rows = std::collections::VecDeque::new();
    streams::each(log, view.stream, filter, |entry| {
        let row = Row::read(view, &entry)?;
        if selection.wants(view, &row) {
            rows.push_back(row);
            if selection.limit.is_some_and(|limit| rows.len() > limit) {
                rows.pop_front();
            }
        }
        Ok(())
    })
    .await?;
    Ok(rows.into())
}

/// The last object of each subject that is wanted.
async fn newest<L: Log>(
    view: &View,
    selection: &Selection,
    filter: &str,
    log: &L,
) -> anyhow::Result<Vec<Row>> {
    let mut rows = std::collections::BTreeMap::new();
    streams::each(log, view.stream, filter, |entry| {
        let row = Row::read(view, &entry)?;
        rows.insert(entry.subject, row);
        Ok(())
    })
    .await?;
    Ok(rows.into_values().filter(|row| selection.wants(view, row)).collect())
}

/// Writes what comes, for as long as it is let.
async fn follow<L: Log>(
    view: &View,
    selection: &Selection,
    filter: &str,
    mut from: u64,
    log: &L,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    loop {
        let mut reader = match log.read(view.stream, Some(filter), from).await {
            Ok(reader) => reader,
            Err(LogError::Unavailable(_)) => {
                sleep(Duration::from_secs(1)).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        while let Ok(entry) = reader.next().await {
            from = entry.sequence + 1;
            let row = Row::read(view, &entry)?;
            if !selection.wants(view, &row) {
                continue;
            }
            let rows = std::slice::from_ref(&row);
            match selection.format() {
                Format::JsonLines | Format::Json => render::json_lines(rows, out)?,
                Format::Csv => render::csv(view.columns, rows, false, out)?,
                Format::Table => writeln!(out, "{}", table::line(view.columns, &row))?,
            }
            out.flush()?;
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// Sorts as the contract says; what is equal in that stays in the order of the stream.
fn sorted(view: &View, mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_by_cached_key(|row| -> Vec<Rank> { view.order.iter().map(|field| row.rank(field)).collect() });
    rows
}

/// A field's place in the order: nothing first, then numbers, then text.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Nothing,
    Number(u64),
    Text(String),
}

impl Row {
    /// Reads a stored object.
    pub fn read(view: &View, entry: &Entry) -> anyhow::Result<Self> {
        let read = || {
            let message = format!("cannot read message {} of the stream {}", entry.sequence, view.stream);
            format!("{message}; it was not written by this pipeline")
        };
        let fields = serde_json::from_slice(&entry.payload).with_context(read)?;
        Ok(Self { stored: entry.payload.clone(), fields })
    }

    /// A field's text.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.fields.get(field).and_then(Value::as_str)
    }

    fn rank(&self, field: &str) -> Rank {
        match self.fields.get(field) {
            Some(Value::Number(number)) => Rank::Number(number.as_u64().unwrap_or(0)),
            Some(Value::String(text)) => Rank::Text(text.clone()),
            _ => Rank::Nothing,
        }
    }
}

impl Selection {
    fn format(&self) -> Format {
        match (self.json, self.jsonl, self.csv) {
            (true, ..) => Format::Json,
            (_, true, _) => Format::JsonLines,
            (.., true) => Format::Csv,
            _ => Format::Table,
        }
    }

    /// A flag that selects by a field that the view does not have would hide everything.
    fn check(&self, view: &View) -> Result<(), Unusable> {
        for (field, value) in [("pool", &self.pool), ("level", &self.level), ("source", &self.source)] {
            if value.is_some() && !view.columns.iter().any(|column| column.field == field) {
                let stream = view.stream;
                return Err(Unusable::new(format!(
                    "--{field} cannot be used: {stream} have no {field}; leave it out"
                )));
            }
        }
        Ok(())
    }

    /// The subjects that can hold what is wanted.
    fn filter(&self, view: &View, seconds: Option<u32>) -> String {
        let mut filter = view.stream.to_owned();
        for word in view.words {
            let wanted = match word {
                Word::Any => None,
                Word::Seconds => seconds.map(|seconds| seconds.to_string()),
                Word::Pool => self.pool.clone(),
                Word::Level => self.level.clone(),
                Word::Source => self.source.clone(),
            };
            filter.push('.');
            filter.push_str(wanted.as_deref().filter(|word| is_word(word)).unwrap_or("*"));
        }
        filter
    }

    /// Whether an object is wanted.
    fn wants(&self, view: &View, row: &Row) -> bool {
        let named = |field: &str, wanted: &Option<String>| {
            wanted.as_deref().is_none_or(|wanted| row.text(field) == Some(wanted))
        };
        let at = row.text(view.time).and_then(Millis::parse);
        named("pool", &self.pool)
            && named("level", &self.level)
            && named("source", &self.source)
            && self.since.is_none_or(|since| at.is_some_and(|at| at >= since))
            && self.until.is_none_or(|until| at.is_some_and(|at| at < until))
    }

    fn cut(&self, mut rows: Vec<Row>, view: &View) -> Vec<Row> {
        if view.latest
            && let Some(limit) = self.limit
        {
            rows.truncate(limit);
        }
        rows
    }
}

fn fits(wanted: Option<&str>, name: &str) -> bool {
    wanted.is_none_or(|wanted| wanted == name)
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|c| c.is_ascii_graphic() && !matches!(c, b'.' | b'*' | b'>'))
}

const fn column(field: &'static str, kind: Kind, rank: u8) -> Column {
    Column { field, kind, rank }
}

/// The present state of each level.
pub const TOTALS: View = View {
    stream: topology::TOTALS,
    words: &[Word::Pool, Word::Level],
    order: &["pool", "level"],
    time: "as_of",
    latest: true,
    columns: &[
        column("pool", Kind::Text, 1),
        column("level", Kind::Text, 1),
        column("currency", Kind::Text, 2),
        column("sequence", Kind::Count, 0),
        column("commit", Kind::Count, 12),
        column("terms", Kind::Count, 11),
        column("as_of", Kind::Time, 10),
        column("current", Kind::Amount, 1),
        column("display", Kind::Amount, 0),
        column("base", Kind::Amount, 9),
        column("ceiling", Kind::Amount, 9),
        column("pending", Kind::Object, 0),
        column("reserve", Kind::Amount, 6),
        column("diversion", Kind::Amount, 7),
        column("wagers", Kind::Count, 3),
        column("wagered", Kind::Amount, 8),
        column("contributed", Kind::Amount, 4),
        column("paid", Kind::Amount, 5),
        column("house", Kind::Amount, 8),
        column("adjusted", Kind::Amount, 0),
        column("hits", Kind::Count, 3),
    ],
};

/// Closed windows.
pub const WINDOWS: View = View {
    stream: topology::WINDOWS,
    words: &[Word::Seconds, Word::Pool, Word::Level],
    order: &["pool", "level", "seconds", "window_start"],
    time: "window_start",
    latest: false,
    columns: &[
        column("pool", Kind::Text, 1),
        column("level", Kind::Text, 1),
        column("currency", Kind::Text, 3),
        column("commit", Kind::Count, 10),
        column("seconds", Kind::Count, 1),
        column("window_start", Kind::Time, 1),
        column("window_end", Kind::Time, 0),
        column("opening", Kind::Amount, 6),
        column("closing", Kind::Amount, 4),
        column("wagers", Kind::Count, 2),
        column("wagered", Kind::Amount, 3),
        column("contributed", Kind::Amount, 2),
        column("paid", Kind::Amount, 5),
        column("house", Kind::Amount, 7),
        column("adjusted", Kind::Amount, 0),
        column("hits", Kind::Count, 5),
        column("late", Kind::Count, 6),
        column("by_operator", Kind::Object, 0),
        column("by_jurisdiction", Kind::Object, 0),
        column("by_game", Kind::Object, 0),
        column("by_operator_jurisdiction", Kind::Object, 0),
    ],
};

/// Hits.
pub const HITS: View = View {
    stream: topology::HITS,
    words: &[Word::Pool, Word::Level],
    order: &["pool", "level", "sequence"],
    time: "recorded_at",
    latest: false,
    columns: &[
        column("pool", Kind::Text, 1),
        column("level", Kind::Text, 1),
        column("currency", Kind::Text, 2),
        column("sequence", Kind::Count, 2),
        column("commit", Kind::Count, 7),
        column("order", Kind::Count, 0),
        column("wager", Kind::Text, 3),
        column("operator", Kind::Text, 8),
        column("source", Kind::Text, 0),
        column("game", Kind::Text, 6),
        column("round", Kind::Text, 9),
        column("jurisdiction", Kind::Text, 5),
        column("occurred_at", Kind::Time, 4),
        column("recorded_at", Kind::Time, 0),
        column("payoff", Kind::Amount, 1),
        column("current", Kind::Amount, 4),
        column("from_diversion", Kind::Amount, 10),
        column("from_reserve", Kind::Amount, 10),
        column("from_house", Kind::Amount, 10),
        column("base", Kind::Amount, 9),
        column("terms", Kind::Count, 11),
    ],
};

/// Refusals.
pub const REFUSALS: View = View {
    stream: topology::REFUSALS,
    words: &[Word::Any, Word::Source],
    order: &["at", "partition", "number"],
    time: "at",
    latest: false,
    columns: &[
        column("at", Kind::Time, 2),
        column("wager", Kind::Text, 1),
        column("batch", Kind::Text, 1),
        column("stage", Kind::Text, 3),
        column("reason", Kind::Text, 1),
        column("detail", Kind::Text, 2),
        column("operator", Kind::Text, 0),
        column("source", Kind::Text, 4),
        column("partition", Kind::Count, 6),
        column("frame", Kind::Count, 6),
        column("number", Kind::Count, 6),
    ],
};

/// What has become of each source's batches.
pub const SOURCES: View = View {
    stream: topology::SOURCES,
    words: &[Word::Any, Word::Source],
    order: &["operator", "source"],
    time: "as_of",
    latest: true,
    columns: &[
        column("operator", Kind::Text, 2),
        column("source", Kind::Text, 1),
        column("highest", Kind::Count, 1),
        column("batches", Kind::Count, 3),
        column("wagers", Kind::Count, 2),
        column("refused_batches", Kind::Count, 3),
        column("refused_wagers", Kind::Count, 3),
        column("missing", Kind::Object, 4),
        column("as_of", Kind::Time, 5),
        column("frame", Kind::Count, 0),
    ],
};

#[cfg(test)]
mod tests {
    use clap::Parser;
    use jackpot_core::log::jetstream::setup::{SetUp, streams};
    use jackpot_core::log::memory::Memory;
    use jackpot_core::log::{Append, Appender, Expect};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: WindowsArgs,
    }

    /// A log with these messages: subject and body.
    async fn log(messages: &[(&str, &str)]) -> Memory {
        let memory = Memory::new(streams(&SetUp::new(1)), || Millis(0));
        let mut appender = memory.appender().await.expect("an appender");
        for (subject, body) in messages {
            let payload = Bytes::from((*body).to_owned());
            let append =
                Append { subject: (*subject).into(), headers: Vec::new(), payload, expect: Expect::Any };
            appender.send(append).await.expect("it is sent");
            appender.acknowledged().await.expect("it is stored");
        }
        memory
    }

    async fn check(view: &View, memory: &Memory, flags: &[&str], expect: &str) {
        let line = ["x", "--nats", "nats://nowhere"].iter().chain(flags);
        let args = Line::parse_from(line).args;
        let mut out = Vec::new();
        run_windows(view, &args, memory, &mut out).await.expect("it is shown");
        assert_eq!(String::from_utf8_lossy(&out), expect, "{flags:?}");
    }

    #[tokio::test]
    async fn windows_are_sorted_selected_and_cut() {
        let window = |pool: &str, seconds: u32, minute: u32| {
            let start = format!("2026-06-08T20:{minute:02}:00.000Z");
            format!(
                r#"{{"pool":"{pool}","level":"grand","seconds":{seconds},"window_start":"{start}","new":1}}"#
            )
        };
        let all = [window("b", 60, 2), window("a", 60, 1), window("a", 1, 5), window("a", 60, 0)];
        let [b, a1, a_second, a0] = &all;
        let memory = log(&[
            ("windows.60.b.grand", b),
            ("windows.60.a.grand", a1),
            ("windows.1.a.grand", a_second),
            ("windows.60.a.grand", a0),
        ])
        .await;
        let check = async |flags: &[&str], expect: &str| check(&WINDOWS, &memory, flags, expect).await;
        check(&["--json"], &format!("[\n{a_second},\n{a0},\n{a1},\n{b}\n]\n")).await;
        check(&["--jsonl", "--seconds", "60", "--pool", "a"], &format!("{a0}\n{a1}\n")).await;
        check(&["--jsonl", "--since", "2026-06-08T20:02:00Z"], &format!("{a_second}\n{b}\n")).await;
        check(&["--jsonl", "--until", "2026-06-08T20:02:00Z"], &format!("{a0}\n{a1}\n")).await;
        check(&["--jsonl", "--limit", "2"], &format!("{a_second}\n{a0}\n")).await;
        check(&["--json", "--level", "none"], "[]\n").await;
        check(&["--pool", "none"], "nothing yet\n").await;
    }

    #[tokio::test]
    async fn refusals_come_by_time_partition_and_number() {
        let refusal = |at: u32, partition: u32, number: u32| {
            format!(
                r#"{{"at":"2026-06-08T20:00:{at:02}.000Z","partition":{partition},"number":{number},"source":"eu{partition}"}}"#
            )
        };
        let all = [refusal(2, 0, 0), refusal(1, 1, 10), refusal(1, 1, 9), refusal(1, 0, 11)];
        let [late, ten, nine, eleven] = &all;
        let memory = log(&[
            ("refusals.acme.eu0", late),
            ("refusals.acme.eu1", ten),
            ("refusals.acme.eu1", nine),
            ("refusals.acme.eu0", eleven),
        ])
        .await;
        check(&REFUSALS, &memory, &["--jsonl"], &format!("{eleven}\n{nine}\n{ten}\n{late}\n")).await;
        let args = Line::parse_from(["x", "--nats", "nats://nowhere", "--pool", "mega"]).args;
        let error = run_windows(&REFUSALS, &args, &memory, &mut Vec::new()).await.expect_err("no such field");
        assert!(error.is::<Unusable>() && error.to_string().contains("--pool"), "{error}");
        check(&REFUSALS, &memory, &["--jsonl", "--source", "eu1"], &format!("{nine}\n{ten}\n")).await;
    }

    #[tokio::test]
    async fn of_totals_the_last_of_each_level_counts() {
        let memory = log(&[
            ("totals.mega.minor", r#"{"pool":"mega","level":"minor","sequence":1}"#),
            ("totals.mega.grand", r#"{"pool":"mega","level":"grand","sequence":1}"#),
            ("totals.mega.minor", r#"{"pool":"mega","level":"minor","sequence":2}"#),
        ])
        .await;
        check(&TOTALS, &memory, &["--json"], "[]\n").await;
        let terms = jackpot_core::terms::Terms::parse(crate::terms::EXAMPLE).expect("the example");
        store::store(&memory, &terms).await.expect("the terms are stored");
        let (grand, minor) = (
            r#"{"pool":"mega","level":"grand","sequence":1}"#,
            r#"{"pool":"mega","level":"minor","sequence":2}"#,
        );
        check(&TOTALS, &memory, &["--jsonl"], &format!("{grand}\n{minor}\n")).await;
        check(&TOTALS, &memory, &["--jsonl", "--level", "minor"], &format!("{minor}\n")).await;
        check(&TOTALS, &memory, &["--jsonl", "--limit", "1"], &format!("{grand}\n")).await;
    }
}
