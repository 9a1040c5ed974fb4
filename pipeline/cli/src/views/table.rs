//! Objects for people: a table that fits the terminal, amounts cut to the currency's minor unit.
//! What does not fit is left out, the least telling columns first; programs read `--json`.

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table};
use jackpot_core::money::Pico;
use jackpot_core::names;
use serde_json::Value;

use super::{Column, Kind, Row};
use crate::progress::grouped;

/// The terminal's width; `None` when standard output is none.
pub fn terminal_width() -> Option<u16> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(size.ws_col).filter(|&columns| columns > 0)
}

/// The table, with its last newline.
pub fn render(columns: &[Column], rows: &[Row], width: Option<u16>) -> String {
    if rows.is_empty() {
        return "nothing yet\n".into();
    }
    let mut shown: Vec<&Column> =
        columns.iter().filter(|column| column.rank > 0 && filled(column, rows)).collect();
    let mut table = build(&shown, rows);
    while let Some(width) = width
        && table.lines().next().is_some_and(|line| line.chars().count() > usize::from(width))
    {
        let last = shown.iter().map(|column| column.rank).max().unwrap_or(1);
        if last <= 1 {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
            break;
        }
        let drop = shown.iter().rposition(|column| column.rank == last);
        drop.map(|index| shown.remove(index));
        table = build(&shown, rows);
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// One object on a line, for what comes one by one.
pub fn line(columns: &[Column], row: &Row) -> String {
    let mut text = String::new();
    for column in columns.iter().filter(|column| (1..=6).contains(&column.rank)) {
        let cell = cell(column, row);
        if !cell.is_empty() {
            if !text.is_empty() {
                text.push_str("  ");
            }
            text.push_str(column.field);
            text.push('=');
            text.push_str(&cell);
        }
    }
    text
}

fn build(shown: &[&Column], rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(shown.iter().map(|column| aligned(column, column.field.replace('_', " "))));
    for row in rows {
        table.add_row(shown.iter().map(|column| aligned(column, cell(column, row))));
    }
    table
}

fn aligned(column: &Column, text: String) -> Cell {
    let right = matches!(column.kind, Kind::Count | Kind::Amount);
    Cell::new(text).set_alignment(if right { CellAlignment::Right } else { CellAlignment::Left })
}

fn filled(column: &Column, rows: &[Row]) -> bool {
    rows.iter().any(|row| !row.fields.get(column.field).is_none_or(Value::is_null))
}

fn cell(column: &Column, row: &Row) -> String {
    match (row.fields.get(column.field), column.kind) {
        (None | Some(Value::Null), _) => String::new(),
        (Some(Value::String(text)), Kind::Amount) => amount(text, row.text("currency").unwrap_or_default()),
        (Some(Value::String(text)), _) => text.clone(),
        (Some(Value::Number(number)), _) => grouped(&number.to_string()),
        (Some(other), _) => other.to_string(),
    }
}

/// An amount for people: whole minor units, grouped, padded. What is no amount is shown as it is.
pub fn amount(text: &str, currency: &str) -> String {
    let digits = names::minor_digits(currency);
    let Ok(exact) = Pico::parse(text) else { return text.to_owned() };
    let cut = exact.floor_to_minor(digits).to_string();
    let (sign, cut) = cut.strip_prefix('-').map_or(("", cut.as_str()), |rest| ("-", rest));
    let (whole, fraction) = cut.split_once('.').unwrap_or((cut, ""));
    let width = usize::try_from(digits).unwrap_or(2);
    let point = if width == 0 { "" } else { "." };
    format!("{sign}{}{point}{fraction:0<width$}", grouped(whole))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::TOTALS;
    use super::*;

    fn rows() -> Vec<Row> {
        let total = |pool: &str, current: &str, ceiling: &str| {
            let text = format!(
                r#"{{"pool":"{pool}","level":"grand","currency":"EUR","sequence":3,"commit":9,"terms":1,
                "as_of":"2026-06-08T20:15:30.123Z","current":"{current}","display":"1","base":"500000",
                "ceiling":{ceiling},"pending":null,"reserve":"0.75","diversion":"0","wagers":12345,
                "wagered":"1000","contributed":"12.345678","paid":"0","house":"500000","adjusted":"0","hits":0}}"#
            );
            Row { fields: serde_json::from_str(&text).expect("an object"), stored: Bytes::from(text) }
        };
        vec![total("mega", "500012.345678", "\"900000\""), total("mini", "7.5", "null")]
    }

    #[test]
    fn amounts_are_cut_and_padded() {
        let check = |text, currency, expect| assert_eq!(amount(text, currency), expect);
        check("500012.345678", "EUR", "500,012.34");
        check("7.5", "EUR", "7.50");
        check("7.5", "JPY", "7");
        check("0", "EUR", "0.00");
        check("-0.001", "EUR", "-0.01");
        check("1.2345", "BHD", "1.234");
        check("what", "EUR", "what");
    }

    #[test]
    fn a_table_fits_the_terminal() {
        let wide = render(TOTALS.columns, &rows(), None);
        assert!(
            wide.contains("500,012.34") && wide.contains("as of") && !wide.contains("sequence"),
            "{wide}"
        );
        for width in [120, 80, 60, 40] {
            let text = render(TOTALS.columns, &rows(), Some(width));
            let widest = text.lines().map(|line| line.chars().count()).max();
            assert!(widest.is_some_and(|widest| widest <= usize::from(width)), "{width}:\n{text}");
            assert!(
                text.contains("mega") && text.contains("500,012.34"),
                "the telling columns stay:\n{text}"
            );
        }
        assert_eq!(render(TOTALS.columns, &[], Some(80)), "nothing yet\n");
    }

    #[test]
    fn a_line_tells_what_is_there() {
        let text = line(TOTALS.columns, &rows()[1]);
        assert!(text.starts_with("pool=mini  level=grand  currency=EUR  current=7.50"), "{text}");
        assert!(!text.contains("ceiling="), "{text}");
    }
}
