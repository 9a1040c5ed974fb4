//! The audit's entry for one allocation frame: the leaves it adds to the partition's Merkle tree (RFC 6962),
//! the frontier of the tree after it, and what somebody must look at.

use crate::codec::{CodecError, Reader, Writer};
use crate::digest::Digest;
use crate::frame::batch::Gap;
use crate::frame::symbols::{Symbol, Symbols};
use crate::frame::{Body, Header, Kind};

/// The body of a frame of `audit-p`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Audited {
    /// The names.
    pub symbols: Symbols,
    /// The leaf hashes of the frame, in log order: one per wager, one per batch that was refused whole.
    pub leaves: Vec<Digest>,
    /// How many leaves the partition's tree has after this frame.
    pub tree_size: u64,
    /// The roots of the tree's complete subtrees, largest first: one per bit set in `tree_size`.
    pub frontier: Vec<Digest>,
    /// What somebody must look at.
    pub incidents: Vec<Incident>,
}

/// Something that is no refusal of its own but must not go unnoticed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incident {
    /// Batches of a source never came.
    Gap {
        /// The operator.
        operator: Symbol,
        /// The source.
        source: Symbol,
        /// Which.
        gap: Gap,
    },
    /// A batch's number was used again with other content.
    Conflict {
        /// The operator.
        operator: Symbol,
        /// The source.
        source: Symbol,
        /// The ingress message that did so.
        position: u64,
    },
}

impl Body for Audited {
    const KIND: Kind = Kind::Audited;

    fn encode(&self, _header: &Header, writer: &mut Writer) {
        self.symbols.encode(writer);
        writer.len(self.leaves.len());
        self.leaves.iter().for_each(|leaf| writer.raw(&leaf.0));
        writer.uint(self.tree_size);
        writer.len(self.frontier.len());
        self.frontier.iter().for_each(|root| writer.raw(&root.0));
        writer.len(self.incidents.len());
        for incident in &self.incidents {
            match incident {
                Incident::Gap { operator, source, gap } => {
                    writer.byte(0);
                    operator.encode(writer);
                    source.encode(writer);
                    writer.uint(gap.from);
                    writer.uint(gap.to);
                }
                Incident::Conflict { operator, source, position } => {
                    writer.byte(1);
                    operator.encode(writer);
                    source.encode(writer);
                    writer.uint(*position);
                }
            }
        }
    }

    fn decode(_header: &Header, reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let symbols = Symbols::decode(reader)?;
        let leaves =
            (0..reader.len("leaves")?).map(|_| reader.array("leaf").map(Digest)).collect::<Result<_, _>>()?;
        let tree_size = reader.uint("tree_size")?;
        let frontier = (0..reader.len("frontier")?)
            .map(|_| reader.array("frontier").map(Digest))
            .collect::<Result<_, _>>()?;
        let incidents = (0..reader.len("incidents")?)
            .map(|_| {
                let kind = reader.byte("incident")?;
                let operator = symbols.read("incident.operator", reader)?;
                let source = symbols.read("incident.source", reader)?;
                match kind {
                    0 => Ok(Incident::Gap {
                        operator,
                        source,
                        gap: Gap { from: reader.uint("gap.from")?, to: reader.uint("gap.to")? },
                    }),
                    1 => Ok(Incident::Conflict { operator, source, position: reader.uint("position")? }),
                    _ => Err(reader.fault("incident", "no such incident")),
                }
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { symbols, leaves, tree_size, frontier, incidents })
    }
}
