//! The spine: what validate found to be wagers, with all that geofence needs to place them.
//! The player is not carried on, and the session only as a key.

use serde::{Deserialize, Serialize};

use crate::codec::{CodecError, Reader, Writer};
use crate::frame::batch::{Batch, Funds, Hits, Record};
use crate::frame::symbols::{Symbol, Symbols};
use crate::frame::{Body, Header, Kind};
use crate::money::Micro;
use crate::rules::CONTENTS_BEFORE_BATCHES;
use crate::time::Millis;

/// The body of a frame of `validated-p`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Validated {
    /// The names.
    pub symbols: Symbols,
    /// The ingress messages of the frame, in order.
    pub batches: Vec<Batch<Wager>>,
    /// For each accepted batch, in order, the first half of its body's SHA-256: tells a repeat from a conflict.
    pub contents: Vec<[u8; 16]>,
}

/// Names a session of a source: the first 16 bytes of SHA-256 of its text.
pub type SessionKey = [u8; 16];

/// A valid wager, not yet placed.
#[derive(Debug, Clone, PartialEq)]
pub struct Wager {
    /// Its index in the batch, from 0.
    pub index: u16,
    /// The player's session.
    pub session: SessionKey,
    /// The number of the interaction in the session.
    pub interaction: u64,
    /// The game.
    pub game: Symbol,
    /// The amount, in `currency`.
    pub amount: Micro,
    /// ISO 4217.
    pub currency: Symbol,
    /// Whose money.
    pub funds: Funds,
    /// Whether the player opted in.
    pub opt_in: bool,
    /// When it happened.
    pub occurred_at: Millis,
    /// Where it was made, if that was told.
    pub location: Option<Location>,
    /// What it won.
    pub hits: Option<Box<Hits>>,
}

impl Eq for Wager {}

/// A location as the wager gives it: a claim, a point, or both.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Location {
    /// The declared jurisdiction.
    pub jurisdiction: Option<Symbol>,
    /// The measured point.
    pub point: Option<Point>,
    /// When it was checked.
    pub checked_at: Millis,
}

/// A point on the earth (WGS 84) with its accuracy.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Degrees, −90 to 90.
    pub latitude: f64,
    /// Degrees, −180 to 180.
    pub longitude: f64,
    /// The radius in metres that the player is within.
    pub accuracy_m: f64,
}

const OPT_IN: u8 = 0b0000_0100;
const LOCATED: u8 = 0b0000_1000;
const CLAIMED: u8 = 0b0001_0000;
const MEASURED: u8 = 0b0010_0000;
const FUNDS: u8 = 0b0000_0011;

impl Record for Wager {
    fn encode(&self, recorded_at: Millis, writer: &mut Writer) {
        let mut flags = self.funds.code();
        if self.opt_in {
            flags |= OPT_IN;
        }
        if let Some(location) = &self.location {
            flags |= LOCATED;
            if location.jurisdiction.is_some() {
                flags |= CLAIMED;
            }
            if location.point.is_some() {
                flags |= MEASURED;
            }
        }
        writer.byte(flags);
        writer.uint(u64::from(self.index));
        writer.raw(&self.session);
        writer.uint(self.interaction);
        self.game.encode(writer);
        writer.uint_wide(self.amount.0);
        self.currency.encode(writer);
        writer.int(self.occurred_at.0 - recorded_at.0);
        if let Some(location) = &self.location {
            writer.int(location.checked_at.0 - recorded_at.0);
            if let Some(jurisdiction) = location.jurisdiction {
                jurisdiction.encode(writer);
            }
            if let Some(point) = &location.point {
                for number in [point.latitude, point.longitude, point.accuracy_m] {
                    writer.raw(&number.to_bits().to_le_bytes());
                }
            }
        }
        Hits::encode(self.hits.as_deref(), writer);
    }

    fn decode(recorded_at: Millis, symbols: &Symbols, reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let flags = reader.byte("flags")?;
        Ok(Self {
            index: reader.narrow("index")?,
            session: reader.array("session")?,
            interaction: reader.uint("interaction")?,
            game: symbols.read("game", reader)?,
            amount: Micro(reader.uint_wide("amount")?),
            currency: symbols.read("currency", reader)?,
            funds: Funds::from_code(flags & FUNDS).ok_or_else(|| reader.fault("funds", "no such code"))?,
            opt_in: flags & OPT_IN != 0,
            occurred_at: recorded_at.plus(reader.int("occurred_at")?),
            location: if flags & LOCATED == 0 {
                None
            } else {
                Some(Location {
                    checked_at: recorded_at.plus(reader.int("checked_at")?),
                    jurisdiction: if flags & CLAIMED == 0 {
                        None
                    } else {
                        Some(symbols.read("jurisdiction", reader)?)
                    },
                    point: if flags & MEASURED == 0 { None } else { Some(Point::decode(reader)?) },
                })
            },
            hits: Hits::decode(symbols, reader)?,
        })
    }
}

impl Point {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let mut number = |what| reader.array(what).map(|bytes| f64::from_bits(u64::from_le_bytes(bytes)));
        Ok(Self {
            latitude: number("latitude")?,
            longitude: number("longitude")?,
            accuracy_m: number("accuracy_m")?,
        })
    }
}

impl Body for Validated {
    const KIND: Kind = Kind::Validated;

    fn encode(&self, header: &Header, writer: &mut Writer) {
        self.symbols.encode(writer);
        if header.rules < CONTENTS_BEFORE_BATCHES {
            Batch::encode_all(&self.batches, header, writer);
            self.encode_contents(writer);
        } else {
            self.encode_contents(writer);
            Batch::encode_all(&self.batches, header, writer);
        }
    }

    fn decode(header: &Header, reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let symbols = Symbols::decode(reader)?;
        if header.rules < CONTENTS_BEFORE_BATCHES {
            let batches = Batch::decode_all(header, &symbols, reader)?;
            Ok(Self { symbols, batches, contents: Self::decode_contents(reader)? })
        } else {
            let contents = Self::decode_contents(reader)?;
            let batches = Batch::decode_all(header, &symbols, reader)?;
            Ok(Self { symbols, batches, contents })
        }
    }
}

impl Validated {
    fn encode_contents(&self, writer: &mut Writer) {
        writer.len(self.contents.len());
        for content in &self.contents {
            writer.raw(content);
        }
    }

    fn decode_contents(reader: &mut Reader<'_>) -> Result<Vec<[u8; 16]>, CodecError> {
        (0..reader.len("contents")?).map(|_| reader.array("content")).collect()
    }
}
