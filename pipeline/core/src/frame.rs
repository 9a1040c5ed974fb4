//! A frame: one message on a lane, a run of batches with a header that fixes its place (design, section 2).
//! Stages read and write bodies; lanes read and write headers; nobody else takes frames apart.
//! Nothing here reads a clock or the network.

pub mod allocations;
pub mod audited;
pub mod batch;
pub mod contributions;
pub mod geofenced;
pub mod symbols;
pub mod validated;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::{CodecError, Reader, Writer};
use crate::digest::Digest;
use crate::rules;
use crate::time::Millis;

/// The first bytes of every frame.
const MAGIC: &[u8; 3] = b"JPF";
/// Stands for "no watermark yet".
const NO_WATERMARK: i64 = i64::MIN;

/// What a frame's body holds. The numbers are on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// See [`validated::Validated`].
    Validated = 1,
    /// See [`geofenced::Geofenced`].
    Geofenced = 2,
    /// See [`allocations::Allocations`].
    Allocations = 3,
    /// See [`contributions::Contributions`].
    Contributions = 4,
    /// See [`audited::Audited`].
    Audited = 5,
}

impl Kind {
    /// All of them, in the order of the flow.
    pub const ALL: [Self; 5] =
        [Self::Validated, Self::Geofenced, Self::Allocations, Self::Contributions, Self::Audited];
}

/// Up to where a partition's ingress has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ingress {
    /// The sequence, in the stream `wagers`, of the last message read.
    pub position: u64,
    /// How many messages of the partition have been read in all.
    pub count: u64,
    /// Over all of them: `chain' = SHA-256(chain ‖ position ‖ subject ‖ SHA-256(body))`.
    pub chain: Digest,
}

impl Ingress {
    /// After the next message: its sequence in the stream, the subject it is stored under, the digest of its body.
    /// In the chain the position is eight bytes, low byte first.
    pub fn after(self, position: u64, subject: &str, body: &Digest) -> Self {
        let chain = Digest::of_parts(&[&self.chain.0, &position.to_le_bytes(), subject.as_bytes(), &body.0]);
        Self { position, count: self.count + 1, chain }
    }
}

/// Fixes a frame's place in its log, and the logs before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The partition.
    pub partition: u16,
    /// The frame's number: its sequence in its own stream, and that of the frame it was made from.
    pub sequence: u64,
    /// The version of the [rules] it was made by: that of its revision of the terms.
    pub rules: u16,
    /// The revision of the terms it was made under.
    pub terms: u64,
    /// Event time: no wager accepted later is expected to have occurred before; `None` before the first wager.
    pub watermark: Option<Millis>,
    /// The latest broker receive time among the ingress messages read so far.
    pub recorded_at: Millis,
    /// What of the ingress is in the frames up to this one.
    pub ingress: Ingress,
    /// The digest of the input frame; zero in a validated frame, whose input is the ingress chain.
    pub input: Digest,
    /// The digest of the previous frame of the same log; zero in the first.
    pub previous: Digest,
}

/// What a frame carries. One implementation per [`Kind`].
pub trait Body: Sized {
    /// Which kind it is.
    const KIND: Kind;
    /// Writes the body. `header` is the one it is stored under: times are written relative to it.
    fn encode(&self, header: &Header, writer: &mut Writer);
    /// Reads what [`Body::encode`] wrote.
    fn decode(header: &Header, reader: &mut Reader<'_>) -> Result<Self, CodecError>;
}

/// A header and a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame<B> {
    /// Its place.
    pub header: Header,
    /// Its content.
    pub body: B,
}

/// The message that a frame of this header and this body is; what [`Frame::encode`] gives, without owning either.
pub fn encode<B: Body>(header: &Header, body: &B) -> Bytes {
    let mut writer = Writer::with_capacity(1024);
    header.encode(B::KIND, &mut writer);
    body.encode(header, &mut writer);
    writer.finish().into()
}

impl<B: Body> Frame<B> {
    /// The frame as a message. The same frame is always the same bytes.
    pub fn encode(&self) -> Bytes {
        encode(&self.header, &self.body)
    }

    /// Reads a message, to its last byte.
    pub fn decode(message: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(message);
        let header = Header::decode(B::KIND, &mut reader)?;
        let body = B::decode(&header, &mut reader)?;
        reader.finish()?;
        Ok(Self { header, body })
    }
}

impl Header {
    fn encode(&self, kind: Kind, writer: &mut Writer) {
        writer.raw(MAGIC);
        writer.byte(kind as u8);
        writer.uint(u64::from(self.rules));
        writer.uint(u64::from(self.partition));
        writer.uint(self.sequence);
        writer.uint(self.terms);
        writer.int(self.watermark.map_or(NO_WATERMARK, |at| at.0));
        writer.int(self.recorded_at.0);
        writer.uint(self.ingress.position);
        writer.uint(self.ingress.count);
        writer.raw(&self.ingress.chain.0);
        writer.raw(&self.input.0);
        writer.raw(&self.previous.0);
    }

    fn decode(kind: Kind, reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        if reader.array::<3>("magic")? != *MAGIC {
            return Err(reader.fault("magic", "this is no frame"));
        }
        if reader.byte("kind")? != kind as u8 {
            return Err(reader.fault("kind", "this is a frame of another kind"));
        }
        let version = reader.narrow("rules")?;
        if version < rules::FIRST {
            return Err(reader.fault("rules", "there is no such version"));
        }
        rules::check(version).map_err(CodecError::Newer)?;
        Ok(Self {
            rules: version,
            partition: reader.narrow("partition")?,
            sequence: reader.uint("sequence")?,
            terms: reader.uint("terms")?,
            watermark: Some(reader.int("watermark")?).filter(|&at| at != NO_WATERMARK).map(Millis),
            recorded_at: Millis(reader.int("recorded_at")?),
            ingress: Ingress {
                position: reader.uint("ingress.position")?,
                count: reader.uint("ingress.count")?,
                chain: Digest(reader.array("ingress.chain")?),
            },
            input: Digest(reader.array("input")?),
            previous: Digest(reader.array("previous")?),
        })
    }

    /// Reads the header alone of a frame that holds a `B`; the body is not looked at.
    pub fn peek<B: Body>(message: &[u8]) -> Result<Self, CodecError> {
        Self::decode(B::KIND, &mut Reader::new(message))
    }

    /// Reads the header alone of a frame of any kind.
    pub fn peek_any(message: &[u8]) -> Result<Self, CodecError> {
        let kind =
            message.get(MAGIC.len()).and_then(|&byte| Kind::ALL.into_iter().find(|kind| *kind as u8 == byte));
        let mut reader = Reader::new(message);
        match kind {
            Some(kind) => Self::decode(kind, &mut reader),
            None => Err(reader.fault("kind", "this is no frame of a known kind")),
        }
    }

    /// The header of the frame that a stage makes from this one: the same place, its own chain.
    pub fn next_stage(&self, input: Digest, previous: Digest) -> Self {
        Self { input, previous, ..self.clone() }
    }
}
