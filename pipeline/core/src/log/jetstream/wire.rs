//! What JetStream writes: answers of its API, acknowledgements, the reply subjects of deliveries, headers.
//! Read here without trust: a message that a producer sent must never make its reader fail.

use async_nats::HeaderMap;
use serde::Deserialize;

use crate::log::{Entry, LogError};
use crate::time::Millis;

/// No such stream.
pub(super) const STREAM_NOT_FOUND: u32 = 10_059;
/// No message with that sequence or subject.
pub(super) const NO_MESSAGE_FOUND: u32 = 10_037;

/// An error as the API writes it.
#[derive(Debug, Clone, Deserialize, thiserror::Error)]
#[error("{description} ({code}/{err_code})")]
pub(super) struct ApiError {
    pub code: u16,
    #[serde(default)]
    pub err_code: u32,
    #[serde(default)]
    pub description: String,
}

impl ApiError {
    /// A leader that is missing or moving, a server that is starting or overloaded.
    pub fn is_passing(&self) -> bool {
        self.code == 503 || self.code == 429 || self.code == 408
    }
}

/// Any answer, read for its error alone.
#[derive(Debug, Deserialize)]
pub(super) struct MaybeError {
    pub error: Option<ApiError>,
}

/// An acknowledgement of a publish.
#[derive(Debug, Deserialize)]
pub(super) struct PublishAnswer {
    pub seq: Option<u64>,
    pub error: Option<ApiError>,
}

/// The answer to `STREAM.MSG.GET`.
#[derive(Debug, Deserialize)]
pub(super) struct GetAnswer {
    pub message: StoredMessage,
}

#[derive(Debug, Deserialize)]
pub(super) struct StoredMessage {
    subject: Box<str>,
    seq: u64,
    #[serde(default)]
    hdrs: Option<String>,
    #[serde(default)]
    data: String,
    time: String,
}

impl StoredMessage {
    pub fn entry(self) -> Result<Entry, LogError> {
        let strange = |what: &str| LogError::Denied(format!("an answer that cannot be read: {what}").into());
        let headers = match self.hdrs {
            Some(text) => plain_headers(&base64(&text).ok_or_else(|| strange("headers"))?),
            None => Vec::new(),
        };
        Ok(Entry {
            sequence: self.seq,
            subject: self.subject,
            recorded_at: Millis::parse(&self.time).ok_or_else(|| strange("time"))?,
            headers,
            payload: base64(&self.data).ok_or_else(|| strange("data"))?.into(),
        })
    }
}

/// Where a delivered message stands, by its reply subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Delivery {
    /// Its sequence in the stream.
    pub stream_sequence: u64,
    /// How many messages this consumer has delivered, this one included.
    pub consumer_sequence: u64,
    /// When the broker received it.
    pub recorded_at: Millis,
}

impl Delivery {
    /// Reads `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<nanoseconds>.<pending>`, or the
    /// longer form with `<domain>.<account>` before the stream (and perhaps a word at the end).
    pub fn parse(reply: &str) -> Option<Self> {
        let mut words = [""; 10];
        let mut count = 0;
        for word in reply.strip_prefix("$JS.ACK.")?.split('.') {
            *words.get_mut(count)? = word;
            count += 1;
        }
        let at = match count {
            7 => 3,
            9 | 10 => 5,
            _ => return None,
        };
        let nanoseconds: i64 = words[at + 2].parse().ok()?;
        Some(Self {
            stream_sequence: words[at].parse().ok()?,
            consumer_sequence: words[at + 1].parse().ok()?,
            recorded_at: Millis(nanoseconds.div_euclid(1_000_000)),
        })
    }
}

/// Whether the header belongs to the broker's protocol.
pub(super) fn is_protocol(name: &str) -> bool {
    name.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("nats-"))
}

/// The publisher's headers, sorted by name: the client keeps them in a hash map.
pub(super) fn publisher_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let mut kept: Vec<(String, String)> = headers
        .iter()
        .map(|(name, values)| (AsRef::<str>::as_ref(name), values))
        .filter(|(name, _)| !is_protocol(name))
        .flat_map(|(name, values)| values.iter().map(|value| (name.to_owned(), value.as_str().to_owned())))
        .collect();
    kept.sort_by(|a, b| a.0.cmp(&b.0));
    kept
}

/// The publisher's headers of a stored header block, sorted by name; lines that are none are passed over.
fn plain_headers(block: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(block);
    let mut kept: Vec<(String, String)> = text
        .split("\r\n")
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| !is_protocol(name))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    kept.sort_by(|a, b| a.0.cmp(&b.0));
    kept
}

/// Decodes standard base64 (RFC 4648, section 4), with padding.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| match c {
        b'A'..=b'Z' => Some(c - b'A'),
        b'a'..=b'z' => Some(c - b'a' + 26),
        b'0'..=b'9' => Some(c - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let quads = text.len() / 4;
    for (number, quad) in text.as_bytes().chunks_exact(4).enumerate() {
        let padding = quad.iter().rev().take_while(|c| **c == b'=').count();
        if padding > 2 || (padding > 0 && number + 1 < quads) {
            return None;
        }
        let mut bits = 0_u32;
        for c in &quad[..4 - padding] {
            bits = bits << 6 | u32::from(digit(*c)?);
        }
        bits <<= 6 * padding;
        let [_, first, second, third] = bits.to_be_bytes();
        bytes.extend_from_slice(&[first, second, third][..3 - padding]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deliveries_are_read_in_both_forms() {
        let check = |reply, expect: Option<(u64, u64, i64)>| {
            let got =
                Delivery::parse(reply).map(|d| (d.stream_sequence, d.consumer_sequence, d.recorded_at.0));
            assert_eq!(got, expect, "{reply}");
        };
        check("$JS.ACK.wagers.c1.1.42.7.1780949730123999999.3", Some((42, 7, 1_780_949_730_123)));
        check("$JS.ACK._.hash.wagers.c1.1.42.7.1780949730123000000.3", Some((42, 7, 1_780_949_730_123)));
        check("$JS.ACK._.hash.wagers.c1.1.42.7.1780949730123000000.3.x9", Some((42, 7, 1_780_949_730_123)));
        check("$JS.ACK.wagers.c1.1.42.7.12", None);
        check("$JS.ACK.wagers.c1.1.x.7.12.3", None);
        check("$JS.ACK.a.b.c.d.e.f.g.h.i.j.k", None);
        check("_INBOX.a.b", None);
    }

    #[test]
    fn stored_headers_are_read_leniently() {
        let block =
            b"NATS/1.0 503 x\r\nwebhook-id: a/1 \r\nnats-Msg-Id: 7\r\nno header\r\nA: b:c\r\n\xff: d\r\n\r\n";
        let headers = plain_headers(block);
        let expect = [("A", "b:c"), ("webhook-id", "a/1"), ("\u{fffd}", "d")];
        assert_eq!(headers, expect.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn base64_is_read_strictly() {
        let check = |text, expect: Option<&[u8]>| assert_eq!(base64(text).as_deref(), expect, "{text}");
        check("", Some(b""));
        check("Zg==", Some(b"f"));
        check("Zm8=", Some(b"fo"));
        check("Zm9v", Some(b"foo"));
        check("Zm9vYmFy+/8=", Some(b"foobar\xfb\xff"));
        check("Zg", None);
        check("Zg==Zg==", None);
        check("Z===", None);
        check("Zm9-", None);
    }
}
