//! What geofence placed: a wager with its jurisdiction, without session and coordinates.

use crate::codec::{CodecError, Reader, Writer};
use crate::frame::batch::{Batch, Funds, Hits, Record};
use crate::frame::symbols::{Symbol, Symbols};
use crate::frame::{Body, Header, Kind};
use crate::money::Micro;
use crate::time::Millis;

/// The body of a frame of `geofenced-p`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Geofenced {
    /// The names.
    pub symbols: Symbols,
    /// The ingress messages of the frame, in order.
    pub batches: Vec<Batch<Wager>>,
}

/// A placed wager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wager {
    /// Its index in the batch, from 0.
    pub index: u16,
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
    /// Where it was made: ISO 3166-1 or 3166-2, the finer of what is known.
    pub jurisdiction: Symbol,
    /// What it won.
    pub hits: Option<Box<Hits>>,
}

const OPT_IN: u8 = 0b0000_0100;
const FUNDS: u8 = 0b0000_0011;

impl Record for Wager {
    fn encode(&self, recorded_at: Millis, writer: &mut Writer) {
        writer.byte(self.funds.code() | if self.opt_in { OPT_IN } else { 0 });
        writer.uint(u64::from(self.index));
        self.game.encode(writer);
        writer.uint_wide(self.amount.0);
        self.currency.encode(writer);
        writer.int(self.occurred_at.0 - recorded_at.0);
        self.jurisdiction.encode(writer);
        Hits::encode(self.hits.as_deref(), writer);
    }

    fn decode(recorded_at: Millis, symbols: &Symbols, reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let flags = reader.byte("flags")?;
        Ok(Self {
            index: reader.narrow("index")?,
            game: symbols.read("game", reader)?,
            amount: Micro(reader.uint_wide("amount")?),
            currency: symbols.read("currency", reader)?,
            funds: Funds::from_code(flags & FUNDS).ok_or_else(|| reader.fault("funds", "no such code"))?,
            opt_in: flags & OPT_IN != 0,
            occurred_at: recorded_at.plus(reader.int("occurred_at")?),
            jurisdiction: symbols.read("jurisdiction", reader)?,
            hits: Hits::decode(symbols, reader)?,
        })
    }
}

impl Body for Geofenced {
    const KIND: Kind = Kind::Geofenced;

    fn encode(&self, header: &Header, writer: &mut Writer) {
        self.symbols.encode(writer);
        Batch::encode_all(&self.batches, header, writer);
    }

    fn decode(header: &Header, reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let symbols = Symbols::decode(reader)?;
        let batches = Batch::decode_all(header, &symbols, reader)?;
        Ok(Self { symbols, batches })
    }
}
