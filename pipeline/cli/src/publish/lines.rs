//! Reads newline-delimited batches from files or standard input, on a thread of their own, with a bounded lead.
//! A line's bytes are not changed; blank lines are skipped.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

/// Lines that are read ahead at most.
const AHEAD: usize = 64;
/// A line at most: no NATS server takes a message above 64 MiB.
const LINE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Where a line is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, `-` for standard input.
    pub file: Arc<str>,
    /// The line, from 1; 0 is the file as a whole.
    pub line: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}", self.file),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

/// A line, or why there is none.
pub type Line = (Place, Result<Bytes, String>);

/// Starts reading; the lines come in the order of the files. A file that cannot be read is told and passed over.
pub fn read(files: Vec<PathBuf>) -> mpsc::Receiver<Line> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    std::thread::spawn(move || {
        for path in files {
            let file: Arc<str> = path.display().to_string().into();
            let read = if path == Path::new("-") {
                each(std::io::stdin().lock(), &file, &sender)
            } else {
                match File::open(&path) {
                    Ok(opened) => each(BufReader::with_capacity(1 << 16, opened), &file, &sender),
                    Err(error) => sender
                        .blocking_send((Place { file, line: 0 }, Err(format!("cannot be read: {error}"))))
                        .map_err(|_| Gone),
                }
            };
            if read.is_err() {
                return;
            }
        }
    });
    receiver
}

/// Nobody wants more lines.
struct Gone;

fn each(mut input: impl BufRead, file: &Arc<str>, sender: &mpsc::Sender<Line>) -> Result<(), Gone> {
    for line in 1.. {
        let place = Place { file: file.clone(), line };
        let content = match next(&mut input) {
            Ok(None) => return Ok(()),
            Ok(Some(bytes)) if bytes.trim_ascii().is_empty() => continue,
            Ok(Some(bytes)) if bytes.len() > LINE_BYTES_MAX => {
                Err("is longer than any message may be".into())
            }
            Ok(Some(bytes)) => Ok(Bytes::from(bytes)),
            Err(error) => {
                let told = sender.blocking_send((place, Err(format!("cannot be read: {error}"))));
                return told.map_err(|_| Gone);
            }
        };
        sender.blocking_send((place, content)).map_err(|_| Gone)?;
    }
    Ok(())
}

/// The next line without its newline; of one that is too long, only the beginning.
fn next(input: &mut impl BufRead) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut some = false;
    loop {
        let available = match input.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if available.is_empty() {
            return Ok(some.then_some(line));
        }
        some = true;
        let end = available.iter().position(|&byte| byte == b'\n');
        let part = &available[..end.unwrap_or(available.len())];
        if line.len() <= LINE_BYTES_MAX {
            line.extend_from_slice(part);
        }
        let used = part.len() + usize::from(end.is_some());
        input.consume(used);
        if end.is_some() {
            return Ok(Some(line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_not_changed_and_blank_lines_are_skipped() {
        let (sender, mut receiver) = mpsc::channel(16);
        let input = b" {\"a\": 1}\r\n\n   \n\xff\xfe\nlast".as_slice();
        assert!(each(input, &Arc::from("f"), &sender).is_ok());
        drop(sender);
        let mut lines = Vec::new();
        while let Some((place, content)) = receiver.blocking_recv() {
            lines.push((place.to_string(), content.expect("bytes")));
        }
        let expect: [(&str, &[u8]); 3] = [("f:1", b" {\"a\": 1}\r"), ("f:4", b"\xff\xfe"), ("f:5", b"last")];
        assert_eq!(lines, expect.map(|(place, bytes)| (place.to_owned(), Bytes::from_static(bytes))));
    }

    #[test]
    fn a_missing_file_is_told_and_the_next_one_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let there = directory.path().join("there");
        std::fs::write(&there, "x\n").expect("a file");
        let mut lines = read(vec![directory.path().join("missing"), there]);
        let (place, content) = lines.blocking_recv().expect("a line");
        assert!(place.to_string().ends_with("missing") && content.is_err());
        assert_eq!(lines.blocking_recv().expect("a line").1.expect("bytes"), "x");
        assert!(lines.blocking_recv().is_none());
    }
}
