//! The key file of a validate: where the secrets of the keys that terms name come from. `intake` reads it whenever it
//! takes up terms that name any, and again every second while one of them is missing.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jackpot_core::keys::{Keys, KeysError};
use jackpot_core::terms::Terms;

use crate::terms::CompiledTerms;

/// The key file that a validate was given, if any. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct KeyFile(Option<Place>);

/// Where a key file is.
#[derive(Debug, Clone)]
enum Place {
    Path(Arc<PathBuf>),
    Memory(Arc<Mutex<Keys>>),
}

impl KeyFile {
    /// The file at a path.
    pub fn new(path: Option<PathBuf>) -> Self {
        Self(path.map(|path| Place::Path(Arc::new(path))))
    }

    /// One without a file: whoever shares these keys may change them, as an operator edits a file. For the simulation.
    pub fn shared(keys: Arc<Mutex<Keys>>) -> Self {
        Self(Some(Place::Memory(keys)))
    }

    /// Compiles terms with those of their keys that the file holds now; and one sentence when some are missing.
    pub(crate) fn compile(&self, terms: &Terms) -> (CompiledTerms, Option<String>) {
        if terms.sources.iter().all(|source| source.keys.is_empty()) {
            return (CompiledTerms::new(terms), None);
        }
        let (keys, advice) = match self.0.as_ref().map(Place::read) {
            None => (Keys::default(), "no key file was given: start validate with --keys FILE".to_owned()),
            Some((path, Ok(keys))) => {
                (keys, format!("add them to {}, which is read again every second", path.display()))
            }
            Some((_, Err(error))) => {
                (Keys::default(), format!("{error}: mend it, it is read again every second"))
            }
        };
        let missing: Vec<_> = keys.missing(terms).into_iter().map(|(_, id)| id).collect();
        let why = (!missing.is_empty()).then(|| {
            format!(
                "revision {} of the terms names keys that are not there, {}; {advice}",
                terms.revision,
                missing.join(", ")
            )
        });
        (CompiledTerms::with_keys(terms, &keys), why)
    }
}

impl Place {
    /// What is there now, and where that is.
    fn read(&self) -> (&Path, Result<Keys, KeysError>) {
        match self {
            Self::Path(path) => (path, Keys::read(path)),
            Self::Memory(keys) => {
                (Path::new("memory"), Ok(keys.lock().unwrap_or_else(PoisonError::into_inner).clone()))
            }
        }
    }
}
