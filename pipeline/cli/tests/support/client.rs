//! A NATS client of the tests' own: a socket and the few words of the protocol that a producer needs, so that what is
//! sent is byte for byte what a test says, subjects and headers too. Nothing of the pipeline is in it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A connection.
pub struct Client {
    lines: BufReader<TcpStream>,
    asked: u64,
}

/// What the broker said of a publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is stored, under this sequence.
    Stored(u64),
    /// Nobody listens to that subject.
    Nobody,
    /// The broker refused it, and closes the connection.
    Refused(String),
}

impl Client {
    /// Connects to `nats://host:port`.
    pub fn connect(url: &str) -> Self {
        let address = url.strip_prefix("nats://").unwrap();
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut client = Self { lines: BufReader::new(stream), asked: 0 };
        client.line();
        client.write(
            b"CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true}\r\n",
        );
        client.write(b"SUB _INBOX.test.* 1\r\n");
        client
    }

    /// Publishes a message and waits for what becomes of it. `headers` is the whole block, its first line included.
    pub fn publish(&mut self, subject: &[u8], headers: &[u8], body: &[u8]) -> Answer {
        self.asked += 1;
        let (reply, total) = (format!("_INBOX.test.{}", self.asked), headers.len() + body.len());
        let (verb, sizes) = match headers {
            [] => ("PUB", total.to_string()),
            _ => ("HPUB", format!("{} {total}", headers.len())),
        };
        let command = [verb.as_bytes(), subject, reply.as_bytes(), sizes.as_bytes()].join(&b' ');
        self.write(&[&command[..], b"\r\n", headers, body, b"\r\n"].concat());
        loop {
            let line = self.line();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("MSG" | "HMSG") => return self.answer(words.next_back().unwrap().parse().unwrap()),
                Some("PING") => self.write(b"PONG\r\n"),
                Some("-ERR") => return Answer::Refused(line.trim().to_owned()),
                other => panic!("the broker says {other:?}"),
            }
        }
    }

    /// Reads the message that a publication is answered with.
    fn answer(&mut self, size: usize) -> Answer {
        let mut message = vec![0; size + 2];
        self.lines.read_exact(&mut message).unwrap();
        let text = String::from_utf8(message).unwrap();
        if text.starts_with("NATS/1.0 503") {
            return Answer::Nobody;
        }
        let answer: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        Answer::Stored(answer["seq"].as_u64().unwrap_or_else(|| panic!("it is not stored: {text}")))
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.lines.read_line(&mut line).unwrap() > 0, "the broker is there");
        line
    }

    /// What cannot be written is answered all the same: the broker says why before it closes.
    fn write(&mut self, bytes: &[u8]) {
        drop(self.lines.get_mut().write_all(bytes));
    }
}
