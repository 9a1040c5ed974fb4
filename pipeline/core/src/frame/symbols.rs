//! The names in a frame, each written once: operators, sources, games, currencies, jurisdictions, pools, levels.
//! Records refer to them by number, so that a stage resolves each name once per frame and not once per wager.

use foldhash::HashMap;

use crate::codec::{CodecError, Reader, Writer};

/// The number of a name in its frame's [`Symbols`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Symbol(pub u16);

impl Symbol {
    /// Its place in the table.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// Writes the number.
    pub fn encode(self, writer: &mut Writer) {
        writer.uint(u64::from(self.0));
    }
}

/// A frame's table of names, in the order in which they were first used. At most 65,535.
#[derive(Debug, Clone, Default)]
pub struct Symbols {
    names: Vec<Box<str>>,
    numbers: HashMap<Box<str>, Symbol>,
}

impl PartialEq for Symbols {
    fn eq(&self, other: &Self) -> bool {
        self.names == other.names
    }
}

impl Eq for Symbols {}

impl Symbols {
    /// The number of `name`, which is added when it is new.
    ///
    /// # Panics
    /// When the table is full. A frame's limits (`limits::FRAME_WAGERS_MAX`) keep it far below.
    pub fn intern(&mut self, name: &str) -> Symbol {
        if self.numbers.len() != self.names.len() {
            self.numbers = self.names.iter().cloned().zip((0..=u16::MAX).map(Symbol)).collect();
        }
        if let Some(&symbol) = self.numbers.get(name) {
            return symbol;
        }
        let symbol = Symbol(u16::try_from(self.names.len()).expect("a frame holds fewer than 65,536 names"));
        self.names.push(name.into());
        self.numbers.insert(name.into(), symbol);
        symbol
    }

    /// The name with this number. Numbers come from this table, or from [`Symbols::read`], which checks them.
    pub fn name(&self, symbol: Symbol) -> &str {
        &self.names[symbol.index()]
    }

    /// All names, in order of their numbers.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.names.iter().map(AsRef::as_ref)
    }

    /// Writes the table.
    pub fn encode(&self, writer: &mut Writer) {
        writer.len(self.names.len());
        for name in &self.names {
            writer.text(name);
        }
    }

    /// Reads a table.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let len = reader.len("symbols")?;
        if len > usize::from(u16::MAX) {
            return Err(reader.fault("symbols", "more names than a frame may hold"));
        }
        let names = (0..len).map(|_| reader.text("symbol").map(Box::from)).collect::<Result<_, _>>()?;
        Ok(Self { names, numbers: HashMap::default() })
    }

    /// Reads a number and checks that the table has it.
    pub fn read(&self, what: &'static str, reader: &mut Reader<'_>) -> Result<Symbol, CodecError> {
        let symbol = Symbol(reader.narrow(what)?);
        if symbol.index() < self.names.len() {
            Ok(symbol)
        } else {
            Err(reader.fault(what, "the frame has no such symbol"))
        }
    }
}
