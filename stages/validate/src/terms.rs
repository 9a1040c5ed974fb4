//! What validate needs of a revision of the terms: which sources there are, where their numbers start, and the keys
//! that sign their batches.

use std::collections::BTreeMap;

use jackpot_core::keys::Keys;
use jackpot_core::terms::Terms;

use crate::signature::NamedKey;

/// A revision of the terms, as validate looks things up in it.
#[derive(Debug, Clone)]
pub struct CompiledTerms {
    revision: u64,
    rules: u16,
    sources: BTreeMap<Box<str>, Source>,
}

/// A source in the terms.
#[derive(Debug, Clone)]
struct Source {
    operator: Box<str>,
    sequence_from: Option<u64>,
    keys: Box<[NamedKey]>,
}

impl CompiledTerms {
    /// Compiles a revision without secrets, which [`State::fold`](crate::State::fold) has no use for.
    /// [`Terms::none`] is what is in force before any was applied.
    pub fn new(terms: &Terms) -> Self {
        Self::with_keys(terms, &Keys::default())
    }

    /// Compiles a revision with the secrets of its keys, as far as they are there.
    pub fn with_keys(terms: &Terms, keys: &Keys) -> Self {
        let named = |id: &String| NamedKey { id: id.as_str().into(), key: keys.get(id).cloned() };
        let sources = terms.sources.iter().map(|source| {
            let compiled = Source {
                operator: source.operator.as_str().into(),
                sequence_from: source.sequence_from,
                keys: source.keys.iter().map(named).collect(),
            };
            (source.source.as_str().into(), compiled)
        });
        Self { revision: terms.revision, rules: terms.rules, sources: sources.collect() }
    }

    /// Whether the secrets of all keys that it names are there. Under terms of which one is missing nothing may be cut.
    pub fn is_complete(&self) -> bool {
        self.sources.values().flat_map(|source| &source.keys).all(|named| named.key.is_some())
    }

    /// The number of the revision; 0 where no terms were applied yet.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The version of the rules that frames under them are made by.
    pub(crate) fn rules(&self) -> u16 {
        self.rules
    }

    /// Whether the operator has this source.
    pub(crate) fn knows(&self, operator: &str, source: &str) -> bool {
        self.sources.get(source).is_some_and(|known| &*known.operator == operator)
    }

    /// The keys of a source, of which one must have signed its batch; none: it does not sign.
    pub(crate) fn keys(&self, source: &str) -> &[NamedKey] {
        self.sources.get(source).map_or(&[], |source| &source.keys)
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
