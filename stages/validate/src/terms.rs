//! What validate needs of a revision of the terms: which sources there are, and where their numbers start.

use std::collections::BTreeMap;

use jackpot_core::terms::Terms;

/// A revision of the terms, as validate looks things up in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompiledTerms {
    revision: u64,
    sources: BTreeMap<Box<str>, Source>,
}

/// A source in the terms.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    operator: Box<str>,
    sequence_from: Option<u64>,
}

impl CompiledTerms {
    /// Compiles a revision. [`Terms::none`] is what is in force before any was applied.
    pub fn new(terms: &Terms) -> Self {
        let sources = terms.sources.iter().map(|source| {
            let compiled =
                Source { operator: source.operator.as_str().into(), sequence_from: source.sequence_from };
            (source.source.as_str().into(), compiled)
        });
        Self { revision: terms.revision, sources: sources.collect() }
    }

    /// The number of the revision; 0 where no terms were applied yet.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether the operator has this source.
    pub(crate) fn knows(&self, operator: &str, source: &str) -> bool {
        self.sources.get(source).is_some_and(|known| &*known.operator == operator)
    }

    /// Where the source's numbers start, if the terms say so.
    pub(crate) fn sequence_from(&self, source: &str) -> Option<u64> {
        self.sources.get(source)?.sequence_from
    }

    /// All sources whose start the terms say, by name.
    pub(crate) fn starts(&self) -> impl Iterator<Item = (&str, u64)> {
        self.sources.iter().filter_map(|(name, source)| Some((&**name, source.sequence_from?)))
    }
}
