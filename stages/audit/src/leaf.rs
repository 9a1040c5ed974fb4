//! The canonical bytes of an outcome, which are a leaf of the partition's Merkle tree (RFC 6962).
//!
//! A leaf stands for itself: names are written out, and with the terms of its revision anybody can compute again
//! what it says. Integers are unsigned LEB128 (`uint`); times are milliseconds since 1970, zigzag, then LEB128
//! (`int`); text is its length in bytes as `uint`, then UTF-8 (`text`); amounts are millionths of a unit, rates
//! 10⁻⁹. Every leaf begins with
//!
//! ```text
//! byte  1                the version of this format
//! byte  kind             0 an allocated wager, 1 a refused wager, 2 a refused batch
//! text  operator         of the subject that the batch came on
//! text  source           of that subject
//! uint  position         the batch's sequence in the stream `wagers`
//! int   recorded_at      when the broker received it
//! uint  terms            the revision it was judged under
//! ```
//!
//! and goes on, by kind:
//!
//! ```text
//! allocated wager        refused wager           refused batch
//! uint  sequence         uint  sequence          text  batch       `<source>/<sequence>` or `@<position>`
//! uint  index            uint  index             text  reason
//! text  game             text  stage             text  detail
//! uint  amount           text  reason            byte  conflict    1: the number was used with other content
//! text  currency         text  detail
//! byte  funds            0 cash, 1 bonus, 2 free; and 4 when the player opted in
//! int   occurred_at
//! text  jurisdiction
//! uint  participations, and for each, in the order of the terms
//!   text  pool
//!   uint  eligible       in the pool's currency
//!   uint  rate           0: none was needed
//! uint  hits, and if there are any
//!   text  round, and for each, in the order of the wager
//!     byte  readable     1, then text pool, text level; or 0
//!     byte  refused      0: it stands; or 1, then text stage, text reason, text detail
//! ```

use jackpot_core::codec::Writer;
use jackpot_core::digest::Digest;
use jackpot_core::frame::allocations::Allocation;
use jackpot_core::frame::batch::{HitClaim, Hits, Refusal, RefusedBatch};
use jackpot_core::frame::symbols::Symbols;
use jackpot_core::merkle;
use jackpot_core::time::Millis;

use crate::fate::Fate;

/// The version of the format.
const VERSION: u8 = 1;
/// Added to the code of the funds.
const OPT_IN: u8 = 4;

/// What a leaf says of the batch that its outcome belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin<'a> {
    /// The operator in the subject it came on.
    pub operator: &'a str,
    /// The source in that subject.
    pub source: &'a str,
    /// Its sequence in the stream `wagers`.
    pub position: u64,
    /// When the broker received it.
    pub recorded_at: Millis,
    /// The revision of the terms that it was judged under.
    pub terms: u64,
}

/// Leaves, one after the other in one buffer.
#[derive(Debug, Default)]
pub struct Leaves {
    writer: Writer,
    /// Where each ends.
    ends: Vec<usize>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Allocated = 0,
    RefusedWager = 1,
    RefusedBatch = 2,
}

impl Leaves {
    /// Adds the leaf of a wager of the batch `sequence`. `symbols` are those of the frame.
    pub fn wager(&mut self, origin: Origin<'_>, symbols: &Symbols, sequence: u64, fate: Fate<'_>) {
        match fate {
            Fate::Allocated { allocation, hit_refusals } => {
                self.begin(Kind::Allocated, origin);
                self.writer.uint(sequence);
                self.allocation(symbols, allocation);
                self.hits(symbols, allocation.wager.hits.as_deref(), hit_refusals);
            }
            Fate::Refused(refusal) => {
                self.begin(Kind::RefusedWager, origin);
                self.writer.uint(sequence);
                self.writer.uint(u64::from(refusal.index));
                self.grounds(refusal);
            }
        }
        self.end();
    }

    /// Adds the leaf of a batch that was refused whole.
    pub fn refused_batch(&mut self, origin: Origin<'_>, refused: &RefusedBatch) {
        self.begin(Kind::RefusedBatch, origin);
        self.writer.text(&refused.batch);
        self.writer.text(refused.reason.as_str());
        self.writer.text(&refused.detail);
        self.writer.byte(u8::from(refused.conflict));
        self.end();
    }

    /// The bytes of each, in order.
    pub fn finish(self) -> Vec<Vec<u8>> {
        let bytes = self.writer.finish();
        slices(&bytes, &self.ends).map(<[u8]>::to_vec).collect()
    }

    /// The hash of each, in order.
    pub fn hashes(self) -> Vec<Digest> {
        let bytes = self.writer.finish();
        slices(&bytes, &self.ends).map(merkle::leaf_hash).collect()
    }

    fn begin(&mut self, kind: Kind, origin: Origin<'_>) {
        let writer = &mut self.writer;
        writer.byte(VERSION);
        writer.byte(kind as u8);
        writer.text(origin.operator);
        writer.text(origin.source);
        writer.uint(origin.position);
        writer.int(origin.recorded_at.0);
        writer.uint(origin.terms);
    }

    fn end(&mut self) {
        self.ends.push(self.writer.written());
    }

    fn allocation(&mut self, symbols: &Symbols, allocation: &Allocation) {
        let (wager, writer) = (&allocation.wager, &mut self.writer);
        writer.uint(u64::from(wager.index));
        writer.text(symbols.name(wager.game));
        writer.uint_wide(wager.amount.0);
        writer.text(symbols.name(wager.currency));
        writer.byte(wager.funds.code() + if wager.opt_in { OPT_IN } else { 0 });
        writer.int(wager.occurred_at.0);
        writer.text(symbols.name(wager.jurisdiction));
        writer.len(allocation.participations.len());
        for participation in &allocation.participations {
            writer.text(symbols.name(participation.pool));
            writer.uint_wide(participation.eligible.0);
            writer.uint(participation.rate.map_or(0, |rate| rate.0));
        }
    }

    fn hits(&mut self, symbols: &Symbols, hits: Option<&Hits>, refusals: &[Refusal]) {
        let Some(hits) = hits else { return self.writer.len(0) };
        self.writer.len(hits.claims.len());
        self.writer.text(&hits.round);
        for (number, claim) in hits.claims.iter().enumerate() {
            match claim {
                HitClaim::Unreadable => self.writer.byte(0),
                HitClaim::Level { pool, level } => {
                    self.writer.byte(1);
                    self.writer.text(symbols.name(*pool));
                    self.writer.text(symbols.name(*level));
                }
            }
            match refusals.iter().find(|refusal| refusal.hit.map(usize::from) == Some(number)) {
                None => self.writer.byte(0),
                Some(refusal) => {
                    self.writer.byte(1);
                    self.grounds(refusal);
                }
            }
        }
    }

    fn grounds(&mut self, refusal: &Refusal) {
        self.writer.text(refusal.stage.as_str());
        self.writer.text(refusal.reason.as_str());
        self.writer.text(&refusal.detail);
    }
}

/// The leaves in `bytes`, given where each ends.
fn slices<'a>(bytes: &'a [u8], ends: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let starts = std::iter::once(0).chain(ends.iter().copied());
    starts.zip(ends).map(|(start, &end)| &bytes[start..end])
}
