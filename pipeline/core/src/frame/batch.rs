//! A batch on its way through the lanes, generic over what is known of its wagers at that stage.
//! Refusals travel with the batch, so that the audit sees the outcome of every wager in one place.

use crate::codec::{CodecError, Reader, Writer};
use crate::frame::Header;
use crate::frame::symbols::{Symbol, Symbols};
use crate::refusal::{Reason, StageName};
use crate::time::Millis;

/// One ingress message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch<W> {
    /// The operator in the subject it came on.
    pub operator: Symbol,
    /// The source in the subject it came on.
    pub source: Symbol,
    /// Its sequence in the stream `wagers`.
    pub position: u64,
    /// When the broker received it.
    pub recorded_at: Millis,
    /// What became of it.
    pub verdict: Verdict<W>,
}

/// What became of a batch as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<W> {
    /// Its wagers are judged one by one.
    Accepted(Accepted<W>),
    /// Refused whole.
    Refused(RefusedBatch),
}

/// An accepted batch: each of its wagers is either in `wagers` or in `refusals`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted<W> {
    /// The source's number of the batch.
    pub sequence: u64,
    /// The wagers that still stand, in the order of the batch.
    pub wagers: Vec<W>,
    /// Refused wagers and hits, by index, then by hit.
    pub refusals: Vec<Refusal>,
    /// Sequences of the source that left the window unseen when this batch was accepted.
    pub gaps: Vec<Gap>,
}

/// Batches that never came: `from` to `to`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The first missing sequence.
    pub from: u64,
    /// The last.
    pub to: u64,
}

/// A batch that was refused whole, by validate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedBatch {
    /// `<source>/<sequence>`, or `@<stream sequence>` where that cannot be read.
    pub batch: Box<str>,
    /// Why.
    pub reason: Reason,
    /// What the producer can mend; at most `limits::DETAIL_BYTES_MAX` bytes.
    pub detail: Box<str>,
    /// The number was accepted before, with other content: somebody must look.
    pub conflict: bool,
}

/// A refused wager, or a refused hit of a wager that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The wager's index in its batch, from 0.
    pub index: u16,
    /// The hit's index in its wager, from 0, when the refusal is about a hit alone.
    pub hit: Option<u8>,
    /// Who refused it.
    pub stage: StageName,
    /// Why.
    pub reason: Reason,
    /// What the producer can mend; at most `limits::DETAIL_BYTES_MAX` bytes.
    pub detail: Box<str>,
}

/// The source of the player's stake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Funds {
    /// The player's own money.
    Cash,
    /// Bonus money.
    Bonus,
    /// A free game.
    Free,
}

/// Pool levels that an interaction's game outcome won. Rare, so a wager holds it boxed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hits {
    /// The game round.
    pub round: Box<str>,
    /// In the order of the wager.
    pub claims: Vec<HitClaim>,
}

/// One entry of a wager's `hits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HitClaim {
    /// A level of a pool.
    Level {
        /// The pool.
        pool: Symbol,
        /// The level.
        level: Symbol,
    },
    /// An entry that could not be read; allocate refuses it.
    Unreadable,
}

/// A wager at some stage: what [`Batch`] needs to write it.
pub trait Record: Sized {
    /// Writes it, times relative to the batch's receive time.
    fn encode(&self, recorded_at: Millis, writer: &mut Writer);
    /// Reads it, checking every symbol.
    fn decode(recorded_at: Millis, symbols: &Symbols, reader: &mut Reader<'_>) -> Result<Self, CodecError>;
}

impl Funds {
    /// Two bits in a frame.
    pub fn code(self) -> u8 {
        match self {
            Self::Cash => 0,
            Self::Bonus => 1,
            Self::Free => 2,
        }
    }

    /// The one with this code.
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::Cash, Self::Bonus, Self::Free].into_iter().find(|funds| funds.code() == code)
    }

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cash => "cash",
            Self::Bonus => "bonus",
            Self::Free => "free",
        }
    }
}

impl<W: Record> Batch<W> {
    /// Writes all batches of a frame.
    pub fn encode_all(batches: &[Self], header: &Header, writer: &mut Writer) {
        writer.len(batches.len());
        for batch in batches {
            batch.encode(header, writer);
        }
    }

    /// Reads all batches of a frame.
    pub fn decode_all(
        header: &Header,
        symbols: &Symbols,
        reader: &mut Reader<'_>,
    ) -> Result<Vec<Self>, CodecError> {
        (0..reader.len("batches")?).map(|_| Self::decode(header, symbols, reader)).collect()
    }

    fn encode(&self, header: &Header, writer: &mut Writer) {
        self.operator.encode(writer);
        self.source.encode(writer);
        writer.uint(header.ingress.position - self.position);
        writer.int(self.recorded_at.0 - header.recorded_at.0);
        match &self.verdict {
            Verdict::Accepted(accepted) => {
                writer.byte(0);
                accepted.encode(self.recorded_at, writer);
            }
            Verdict::Refused(refused) => {
                writer.byte(1);
                writer.text(&refused.batch);
                writer.byte(refused.reason.code());
                writer.text(&refused.detail);
                writer.byte(u8::from(refused.conflict));
            }
        }
    }

    fn decode(header: &Header, symbols: &Symbols, reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let operator = symbols.read("operator", reader)?;
        let source = symbols.read("source", reader)?;
        let back = reader.uint("position")?;
        let Some(position) = header.ingress.position.checked_sub(back) else {
            return Err(reader.fault("position", "it lies before the first"));
        };
        let recorded_at = header.recorded_at.plus(reader.int("recorded_at")?);
        let verdict = match reader.byte("verdict")? {
            0 => Verdict::Accepted(Accepted::decode(recorded_at, symbols, reader)?),
            1 => Verdict::Refused(RefusedBatch {
                batch: reader.text("batch")?.into(),
                reason: read_reason(reader)?,
                detail: reader.text("detail")?.into(),
                conflict: reader.byte("conflict")? != 0,
            }),
            _ => return Err(reader.fault("verdict", "neither accepted nor refused")),
        };
        Ok(Self { operator, source, position, recorded_at, verdict })
    }
}

impl<W: Record> Accepted<W> {
    fn encode(&self, recorded_at: Millis, writer: &mut Writer) {
        writer.uint(self.sequence);
        writer.len(self.wagers.len());
        for wager in &self.wagers {
            wager.encode(recorded_at, writer);
        }
        writer.len(self.refusals.len());
        for refusal in &self.refusals {
            refusal.encode(writer);
        }
        writer.len(self.gaps.len());
        for gap in &self.gaps {
            writer.uint(gap.from);
            writer.uint(gap.to);
        }
    }

    fn decode(recorded_at: Millis, symbols: &Symbols, reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            sequence: reader.uint("batch sequence")?,
            wagers: (0..reader.len("wagers")?)
                .map(|_| W::decode(recorded_at, symbols, reader))
                .collect::<Result<_, _>>()?,
            refusals: (0..reader.len("refusals")?)
                .map(|_| Refusal::decode(reader))
                .collect::<Result<_, _>>()?,
            gaps: (0..reader.len("gaps")?)
                .map(|_| Ok(Gap { from: reader.uint("gap.from")?, to: reader.uint("gap.to")? }))
                .collect::<Result<_, _>>()?,
        })
    }

    /// The same batch with other wagers and these refusals added, in their place by index.
    pub fn narrowed<V>(self, wagers: Vec<V>, added: Vec<Refusal>) -> Accepted<V> {
        let mut refusals = self.refusals;
        if !added.is_empty() {
            refusals.extend(added);
            refusals.sort_by_key(|refusal| (refusal.index, refusal.hit));
        }
        Accepted { sequence: self.sequence, wagers, refusals, gaps: self.gaps }
    }
}

impl Refusal {
    fn encode(&self, writer: &mut Writer) {
        writer.uint(u64::from(self.index));
        writer.byte(self.hit.map_or(0, |hit| hit + 1));
        writer.byte(self.stage.code());
        writer.byte(self.reason.code());
        writer.text(&self.detail);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            index: reader.narrow("refusal.index")?,
            hit: reader.byte("refusal.hit")?.checked_sub(1),
            stage: StageName::from_code(reader.byte("refusal.stage")?)
                .ok_or_else(|| reader.fault("refusal.stage", "no such stage"))?,
            reason: read_reason(reader)?,
            detail: reader.text("refusal.detail")?.into(),
        })
    }
}

fn read_reason(reader: &mut Reader<'_>) -> Result<Reason, CodecError> {
    Reason::from_code(reader.byte("reason")?).ok_or_else(|| reader.fault("reason", "no such reason"))
}

impl Hits {
    /// Writes the hits of a wager; a wager without any costs one byte.
    pub fn encode(hits: Option<&Self>, writer: &mut Writer) {
        let Some(hits) = hits else { return writer.len(0) };
        writer.len(hits.claims.len());
        writer.text(&hits.round);
        for claim in &hits.claims {
            match claim {
                HitClaim::Unreadable => writer.byte(0),
                HitClaim::Level { pool, level } => {
                    writer.byte(1);
                    pool.encode(writer);
                    level.encode(writer);
                }
            }
        }
    }

    /// Reads them.
    pub fn decode(symbols: &Symbols, reader: &mut Reader<'_>) -> Result<Option<Box<Self>>, CodecError> {
        let len = reader.len("hits")?;
        if len == 0 {
            return Ok(None);
        }
        let round = reader.text("round")?.into();
        let claims = (0..len)
            .map(|_| match reader.byte("hit")? {
                0 => Ok(HitClaim::Unreadable),
                1 => Ok(HitClaim::Level {
                    pool: symbols.read("hit.pool", reader)?,
                    level: symbols.read("hit.level", reader)?,
                }),
                _ => Err(reader.fault("hit", "neither a level nor unreadable")),
            })
            .collect::<Result<_, _>>()?;
        Ok(Some(Box::new(Self { round, claims })))
    }
}
