//! The revisions that a process has loaded, shared by its partitions. A revision never changes, so an entry is
//! good for ever; only the latest few are kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Mutex;

use crate::limits;
use crate::log::Log;
use crate::terms::Terms;
use crate::terms::store::{self, StoreError};

/// Loads revisions of the terms from the log, once each.
#[derive(Debug, Clone)]
pub struct TermsCache<L> {
    log: L,
    known: Arc<Mutex<BTreeMap<u64, Arc<Terms>>>>,
}

impl<L: Log> TermsCache<L> {
    /// An empty cache.
    pub fn new(log: L) -> Self {
        Self { log, known: Arc::default() }
    }

    /// The terms of a revision. Revision 0 is in force before any was applied: it knows nobody.
    pub async fn get(&self, revision: u64) -> Result<Arc<Terms>, StoreError> {
        let mut known = self.known.lock().await;
        if let Some(terms) = known.get(&revision) {
            return Ok(terms.clone());
        }
        let terms =
            Arc::new(if revision == 0 { Terms::none() } else { store::load(&self.log, revision).await? });
        known.insert(revision, terms.clone());
        while known.len() > limits::TERMS_REMEMBERED {
            known.pop_first();
        }
        Ok(terms)
    }
}
