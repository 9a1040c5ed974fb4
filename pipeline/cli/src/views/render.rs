//! Objects for programs: JSON arrays, JSON lines and CSV. Objects are passed on exactly as they are stored.

use std::io::{self, Write};

use serde_json::Value;

use super::{Column, Row};

/// One array, an object a line.
pub fn json(rows: &[Row], out: &mut impl Write) -> io::Result<()> {
    out.write_all(b"[")?;
    for (index, row) in rows.iter().enumerate() {
        out.write_all(if index == 0 { b"\n" } else { b",\n" })?;
        out.write_all(&row.stored)?;
    }
    out.write_all(if rows.is_empty() { b"]\n" } else { b"\n]\n" })
}

/// One object a line.
pub fn json_lines(rows: &[Row], out: &mut impl Write) -> io::Result<()> {
    for row in rows {
        out.write_all(&row.stored)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// Comma-separated values (RFC 4180, lines end in a newline alone). Objects within are JSON in their cell.
pub fn csv(columns: &[Column], rows: &[Row], names: bool, out: &mut impl Write) -> io::Result<()> {
    if names {
        let names: Vec<&str> = columns.iter().map(|column| column.field).collect();
        writeln!(out, "{}", names.join(","))?;
    }
    for row in rows {
        let cells: Vec<String> = columns.iter().map(|column| cell(row.fields.get(column.field))).collect();
        writeln!(out, "{}", cells.join(","))?;
    }
    Ok(())
}

fn cell(value: Option<&Value>) -> String {
    let text = match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    if text.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::{Kind, REFUSALS};
    use super::*;

    fn row(text: &'static str) -> Row {
        let fields = serde_json::from_str(text).expect("an object");
        Row { stored: Bytes::from_static(text.as_bytes()), fields }
    }

    fn written(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        write(&mut out).expect("a buffer takes it");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn objects_are_passed_on_as_they_are() {
        let rows = [row(r#"{"z":1,"a":"0.10","new":[1]}"#), row("{}")];
        assert_eq!(written(|out| json(&rows, out)), "[\n{\"z\":1,\"a\":\"0.10\",\"new\":[1]},\n{}\n]\n");
        assert_eq!(written(|out| json(&[], out)), "[]\n");
        assert_eq!(written(|out| json_lines(&rows, out)), "{\"z\":1,\"a\":\"0.10\",\"new\":[1]}\n{}\n");
    }

    #[test]
    fn cells_are_quoted_where_they_must_be() {
        let columns = ["a", "b", "c", "d"].map(|field| Column { field, kind: Kind::Text, rank: 1 });
        let rows = [row(r#"{"d":{"x":1},"a":"say \"no\", twice","b":null,"other":1}"#)];
        let expect = "a,b,c,d\n\"say \"\"no\"\", twice\",,,\"{\"\"x\"\":1}\"\n";
        assert_eq!(written(|out| csv(&columns, &rows, true, out)), expect);
        assert!(written(|out| csv(REFUSALS.columns, &[], true, out)).starts_with("at,wager,batch,"));
    }
}
