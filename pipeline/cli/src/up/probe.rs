//! A question to a small HTTP server, a stage's or a broker's: one GET, one short answer.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a stage may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// How much of an answer is read at most.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No connection, or it broke.
    #[error("it does not answer yet ({0})")]
    Io(#[from] std::io::Error),
    /// It took too long.
    #[error("it is slow to answer")]
    Slow,
    /// What came was no HTTP.
    #[error("something else listens on its port")]
    Strange,
}

/// Asks a stage on this machine for a path.
pub async fn get(port: u16, path: &str) -> Result<Answer, ProbeError> {
    get_from("127.0.0.1", port, path).await
}

/// Asks a host for a path.
pub async fn get_from(host: &str, port: u16, path: &str) -> Result<Answer, ProbeError> {
    timeout(ANSWER_MAX, ask(host, port, path)).await.unwrap_or(Err(ProbeError::Slow))
}

async fn ask(host: &str, port: u16, path: &str) -> Result<Answer, ProbeError> {
    let mut stream = TcpStream::connect((host, port)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes).await?;
    read(&String::from_utf8_lossy(&bytes)).ok_or(ProbeError::Strange)
}

fn read(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.trim().parse().ok()?;
    Some(Answer { status, body: body.to_owned() })
}

impl Answer {
    /// The first line of the body, for people.
    pub fn first_line(&self) -> &str {
        self.body.lines().next().unwrap_or("it is not ready yet")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let answer = read("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 9\r\n\r\nstarting\nx")
            .expect("an answer");
        assert_eq!((answer.status, answer.first_line()), (503, "starting"));
        assert_eq!(read("HTTP/1.1 200 OK\r\n\r\n").map(|answer| answer.status), Some(200));
        assert!(read("SSH-2.0\r\n\r\n").is_none() && read("").is_none());
    }
}
