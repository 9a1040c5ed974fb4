//! For the ledger: sums of eligible amounts, in log order, cut at each hit (design, section 5).
//! The ledger's work thus does not grow with the wager rate, and the order around a hit is exact.

use crate::codec::{CodecError, Reader, Writer};
use crate::frame::symbols::{Symbol, Symbols};
use crate::frame::{Body, Header, Kind};
use crate::money::Micro;
use crate::time::Millis;

/// The body of a frame of `contributions-p`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Contributions {
    /// The names.
    pub symbols: Symbols,
    /// How many allocated wagers the frame stands for, those without a pool included.
    pub wagers: u32,
    /// The pools that postings name, each with the levels it has in the frame's terms.
    pub pools: Vec<PoolLevels>,
    /// In log order, as far as order matters: all of a pool's sums before a hit come before that hit.
    pub postings: Vec<Posting>,
}

/// A pool and its levels under the frame's terms, in the order of the document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolLevels {
    /// The pool.
    pub pool: Symbol,
    /// Its levels.
    pub levels: Vec<Symbol>,
}

/// One entry for the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Posting {
    /// Wagers that are alike in all that matters to the ledger.
    Sum(Sum),
    /// A hit.
    Hit(Box<Hit>),
}

/// The sum of the eligible amounts of `wagers` wagers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sum {
    /// The index of the pool in [`Contributions::pools`].
    pub pool: u16,
    /// The second of event time they occurred in, since 1970.
    pub second: i64,
    /// The operator.
    pub operator: Symbol,
    /// The jurisdiction.
    pub jurisdiction: Symbol,
    /// The game.
    pub game: Symbol,
    /// How many.
    pub wagers: u32,
    /// The sum, in the pool's currency.
    pub eligible: Micro,
}

/// A level that was won.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// The index of the pool in [`Contributions::pools`].
    pub pool: u16,
    /// The level.
    pub level: Symbol,
    /// The winning wager: its operator,
    pub operator: Symbol,
    /// its source,
    pub source: Symbol,
    /// the number of its batch,
    pub sequence: u64,
    /// its index in the batch,
    pub index: u16,
    /// its game,
    pub game: Symbol,
    /// its round,
    pub round: Box<str>,
    /// where it was made,
    pub jurisdiction: Symbol,
    /// when it happened,
    pub occurred_at: Millis,
    /// and when the broker received it.
    pub recorded_at: Millis,
}

impl Body for Contributions {
    const KIND: Kind = Kind::Contributions;

    fn encode(&self, header: &Header, writer: &mut Writer) {
        self.symbols.encode(writer);
        writer.uint(u64::from(self.wagers));
        writer.len(self.pools.len());
        for pool in &self.pools {
            pool.pool.encode(writer);
            writer.len(pool.levels.len());
            pool.levels.iter().for_each(|level| level.encode(writer));
        }
        let base = header.recorded_at;
        writer.len(self.postings.len());
        for posting in &self.postings {
            match posting {
                Posting::Sum(sum) => sum.encode(base, writer),
                Posting::Hit(hit) => hit.encode(base, writer),
            }
        }
    }

    fn decode(header: &Header, reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let symbols = Symbols::decode(reader)?;
        let wagers = reader.narrow("wagers")?;
        let pools: Vec<_> = (0..reader.len("pools")?)
            .map(|_| {
                Ok(PoolLevels {
                    pool: symbols.read("pool", reader)?,
                    levels: (0..reader.len("levels")?)
                        .map(|_| symbols.read("level", reader))
                        .collect::<Result<_, _>>()?,
                })
            })
            .collect::<Result<_, _>>()?;
        let base = header.recorded_at;
        let postings = (0..reader.len("postings")?)
            .map(|_| {
                let kind = reader.byte("posting")?;
                let pool: u16 = reader.narrow("posting.pool")?;
                if usize::from(pool) >= pools.len() {
                    return Err(reader.fault("posting.pool", "the frame has no such pool"));
                }
                match kind {
                    0 => Ok(Posting::Sum(Sum::decode(pool, base, &symbols, reader)?)),
                    1 => Ok(Posting::Hit(Box::new(Hit::decode(pool, base, &symbols, reader)?))),
                    _ => Err(reader.fault("posting", "neither a sum nor a hit")),
                }
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { symbols, wagers, pools, postings })
    }
}

impl Sum {
    fn encode(&self, base: Millis, writer: &mut Writer) {
        writer.byte(0);
        writer.uint(u64::from(self.pool));
        writer.int(self.second - base.second());
        self.operator.encode(writer);
        self.jurisdiction.encode(writer);
        self.game.encode(writer);
        writer.uint(u64::from(self.wagers));
        writer.uint_wide(self.eligible.0);
    }

    fn decode(
        pool: u16,
        base: Millis,
        symbols: &Symbols,
        reader: &mut Reader<'_>,
    ) -> Result<Self, CodecError> {
        Ok(Self {
            pool,
            second: base.second().saturating_add(reader.int("sum.second")?),
            operator: symbols.read("sum.operator", reader)?,
            jurisdiction: symbols.read("sum.jurisdiction", reader)?,
            game: symbols.read("sum.game", reader)?,
            wagers: reader.narrow("sum.wagers")?,
            eligible: Micro(reader.uint_wide("sum.eligible")?),
        })
    }
}

impl Hit {
    fn encode(&self, base: Millis, writer: &mut Writer) {
        writer.byte(1);
        writer.uint(u64::from(self.pool));
        self.level.encode(writer);
        self.operator.encode(writer);
        self.source.encode(writer);
        writer.uint(self.sequence);
        writer.uint(u64::from(self.index));
        self.game.encode(writer);
        writer.text(&self.round);
        self.jurisdiction.encode(writer);
        writer.int(self.occurred_at.0 - base.0);
        writer.int(self.recorded_at.0 - base.0);
    }

    fn decode(
        pool: u16,
        base: Millis,
        symbols: &Symbols,
        reader: &mut Reader<'_>,
    ) -> Result<Self, CodecError> {
        Ok(Self {
            pool,
            level: symbols.read("hit.level", reader)?,
            operator: symbols.read("hit.operator", reader)?,
            source: symbols.read("hit.source", reader)?,
            sequence: reader.uint("hit.sequence")?,
            index: reader.narrow("hit.index")?,
            game: symbols.read("hit.game", reader)?,
            round: reader.text("hit.round")?.into(),
            jurisdiction: symbols.read("hit.jurisdiction", reader)?,
            occurred_at: base.plus(reader.int("hit.occurred_at")?),
            recorded_at: base.plus(reader.int("hit.recorded_at")?),
        })
    }
}
