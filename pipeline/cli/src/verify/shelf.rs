//! The revisions of the terms that the proof goes by, each loaded once. One that is missing or damaged is a finding.

use std::collections::BTreeMap;
use std::sync::Arc;

use jackpot_core::log::Log;
use jackpot_core::terms::Terms;
use jackpot_core::terms::store::{self, StoreError};
use jackpot_core::topology;

use crate::verify::findings::{Check, Findings, Place};

/// Revisions that are kept at most; partitions and commits run a few at a time.
const KEPT_MAX: usize = 32;

/// Terms by revision.
pub struct Shelf<L> {
    log: L,
    known: BTreeMap<u64, Option<Arc<Terms>>>,
}

impl<L: Log> Shelf<L> {
    /// An empty one.
    pub fn new(log: L) -> Self {
        Self { log, known: BTreeMap::new() }
    }

    /// The terms of a revision, if they are there. Revision 0 knows nobody.
    pub async fn get(
        &mut self,
        revision: u64,
        findings: &mut Findings,
    ) -> anyhow::Result<Option<Arc<Terms>>> {
        if let Some(terms) = self.known.get(&revision) {
            return Ok(terms.clone());
        }
        let loaded = match revision {
            0 => Ok(Terms::none()),
            _ => store::load(&self.log, revision).await,
        };
        let terms = match loaded {
            Ok(terms) => Some(Arc::new(terms)),
            Err(error @ (StoreError::Missing(_) | StoreError::Damaged { .. } | StoreError::Taken(_))) => {
                findings.fault(Check::Allocations, Place::of(topology::TERMS, revision), error.to_string());
                None
            }
            Err(error) => return Err(error.into()),
        };
        self.known.insert(revision, terms.clone());
        while self.known.len() > KEPT_MAX {
            self.known.pop_first();
        }
        Ok(terms)
    }
}
