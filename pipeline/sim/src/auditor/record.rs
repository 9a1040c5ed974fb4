//! What the broker stores, read at once; a frame's header by a decoder of the auditor's own (the layout is in
//! `schemas/frames.md`).

use std::collections::BTreeMap;

use jackpot_core::log::{Entry, Log};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::network::Network;

/// All messages of all streams.
pub struct Record {
    streams: BTreeMap<String, Vec<Entry>>,
}

/// What the broker lost although it had acknowledged it, by stream.
#[derive(Default)]
pub struct Lost(BTreeMap<String, Vec<Entry>>);

impl Lost {
    /// Of each stream, the messages.
    pub fn new(lost: Vec<(String, Vec<Entry>)>) -> Self {
        Self(lost.into_iter().collect())
    }

    /// What a stream lost.
    pub fn of(&self, stream: &str) -> &[Entry] {
        self.0.get(stream).map_or(&[], Vec::as_slice)
    }

    /// Whether nothing was.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What of a frame's header the auditor looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in schemas/frames.md")]
pub struct Header {
    pub rules: u64,
    pub partition: u64,
    pub sequence: u64,
    pub terms: u64,
    pub position: u64,
    pub count: u64,
    pub chain: [u8; 32],
    pub input: [u8; 32],
    pub previous: [u8; 32],
}

impl Record {
    /// Reads everything, what was trimmed too.
    pub async fn read(network: &Network, streams: &[String]) -> Self {
        let (broker, mut read) = (network.broker(), BTreeMap::new());
        for stream in streams {
            let extent = broker.extent(stream).await.expect("the stream is there");
            let mut entries = network.trimmed(stream);
            for sequence in extent.first..=extent.last {
                entries.extend(broker.get(stream, sequence).await.expect("the stream is there"));
            }
            read.insert(stream.clone(), entries);
        }
        Self { streams: read }
    }

    /// The messages of a stream.
    pub fn entries(&self, stream: &str) -> &[Entry] {
        self.streams.get(stream).map_or(&[], Vec::as_slice)
    }

    /// The messages of a stream of JSON.
    pub fn values(&self, stream: &str) -> Vec<Value> {
        let json = |entry: &Entry| serde_json::from_slice(&entry.payload).expect("the message is JSON");
        self.entries(stream).iter().map(json).collect()
    }

    /// The digest of every byte that is stored.
    pub fn digest(&self) -> [u8; 32] {
        let mut all = Sha256::new();
        for (name, entries) in &self.streams {
            all.update(name.as_bytes());
            for entry in entries {
                all.update(entry.sequence.to_le_bytes());
                all.update(entry.recorded_at.0.to_le_bytes());
                all.update(entry.subject.as_bytes());
                for (name, value) in &entry.headers {
                    all.update(name.as_bytes());
                    all.update(value.as_bytes());
                }
                all.update(sha256(&entry.payload));
            }
        }
        all.finalize().into()
    }

    /// How many bytes of messages a stream holds.
    pub fn bytes(&self, stream: &str) -> usize {
        self.entries(stream).iter().map(|entry| entry.payload.len()).sum()
    }
}

impl Header {
    /// Reads the header of a frame of any kind.
    pub fn read(frame: &[u8]) -> Self {
        assert_eq!(&frame[..3], b"JPF", "a frame begins with its magic");
        let mut rest = &frame[4..];
        let rules = uint(&mut rest);
        let (partition, sequence, terms) = (uint(&mut rest), uint(&mut rest), uint(&mut rest));
        // The watermark and the receive time.
        uint(&mut rest);
        uint(&mut rest);
        let (position, count) = (uint(&mut rest), uint(&mut rest));
        let (chain, input, previous) = (digest(&mut rest), digest(&mut rest), digest(&mut rest));
        Self { rules, partition, sequence, terms, position, count, chain, input, previous }
    }
}

/// How many leaves a partition's tree has after a frame of the audit, and how many the frame adds.
pub fn leaves(frame: &[u8]) -> (u64, u64) {
    let mut rest = &frame[4..];
    for _ in 0..8 {
        uint(&mut rest);
    }
    skip(&mut rest, 3 * 32);
    for _ in 0..uint(&mut rest) {
        let name = uint(&mut rest);
        skip(&mut rest, name);
    }
    let leaves = uint(&mut rest);
    skip(&mut rest, leaves * 32);
    (uint(&mut rest), leaves)
}

/// SHA-256.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// A digest as hexadecimal.
pub fn hex(digest: &[u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn digest(bytes: &mut &[u8]) -> [u8; 32] {
    let (digest, rest) = bytes.split_first_chunk().expect("a digest has 32 bytes");
    *bytes = rest;
    *digest
}

fn skip(bytes: &mut &[u8], count: u64) {
    *bytes = &bytes[usize::try_from(count).expect("a length")..];
}

/// Seven bits a byte, the low ones first, the top bit set in every byte but the last.
fn uint(bytes: &mut &[u8]) -> u64 {
    let len = bytes.iter().position(|byte| byte & 0x80 == 0).expect("a number ends") + 1;
    let value = bytes[..len].iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f));
    *bytes = &bytes[len..];
    value
}
