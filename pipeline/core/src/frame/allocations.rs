//! For the audit: each wager with the pools it takes part in and how much of it counts there.

use crate::codec::{CodecError, Reader, Writer};
use crate::frame::batch::{Batch, Record};
use crate::frame::geofenced;
use crate::frame::symbols::{Symbol, Symbols};
use crate::frame::{Body, Header, Kind};
use crate::money::{Micro, Rate};
use crate::time::Millis;

/// The body of a frame of `allocations-p`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Allocations {
    /// The names.
    pub symbols: Symbols,
    /// The ingress messages of the frame, in order, with the refusals of all stages.
    pub batches: Vec<Batch<Allocation>>,
}

/// A wager and what it gives to which pools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    /// The wager. Its hits are all its claims; those that a refusal names are not paid.
    pub wager: geofenced::Wager,
    /// At most `limits::WAGER_POOLS_MAX`, in the order of the terms.
    pub participations: Vec<Participation>,
}

/// A wager's part in one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Participation {
    /// The pool.
    pub pool: Symbol,
    /// What of the wager counts, in the pool's currency.
    pub eligible: Micro,
    /// The exchange rate used; `None` when the wager is in the pool's currency.
    pub rate: Option<Rate>,
}

impl Record for Allocation {
    fn encode(&self, recorded_at: Millis, writer: &mut Writer) {
        self.wager.encode(recorded_at, writer);
        writer.len(self.participations.len());
        for participation in &self.participations {
            participation.pool.encode(writer);
            writer.uint_wide(participation.eligible.0);
            writer.uint(participation.rate.map_or(0, |rate| rate.0));
        }
    }

    fn decode(recorded_at: Millis, symbols: &Symbols, reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let wager = geofenced::Wager::decode(recorded_at, symbols, reader)?;
        let participations = (0..reader.len("participations")?)
            .map(|_| {
                Ok(Participation {
                    pool: symbols.read("pool", reader)?,
                    eligible: Micro(reader.uint_wide("eligible")?),
                    rate: Some(reader.uint("rate")?).filter(|&rate| rate != 0).map(Rate),
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { wager, participations })
    }
}

impl Body for Allocations {
    const KIND: Kind = Kind::Allocations;

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
