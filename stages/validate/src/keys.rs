//! The key file of a validate: where the secrets of the keys that terms name come from. `intake` reads it whenever it
//! takes up terms that name any, and again every second while one of them is missing.

use std::path::PathBuf;
use std::sync::Arc;

use jackpot_core::keys::Keys;
use jackpot_core::terms::Terms;

use crate::terms::CompiledTerms;

/// The key file that a validate was given, if any. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct KeyFile(Option<Arc<PathBuf>>);

impl KeyFile {
    /// The file at a path.
    pub fn new(path: Option<PathBuf>) -> Self {
        Self(path.map(Arc::new))
    }

    /// Compiles terms with those of their keys that the file holds now; and one sentence when some are missing.
    pub(crate) fn compile(&self, terms: &Terms) -> (CompiledTerms, Option<String>) {
        if terms.sources.iter().all(|source| source.keys.is_empty()) {
            return (CompiledTerms::new(terms), None);
        }
        let (keys, advice) = match self.0.as_deref().map(|path| (path, Keys::read(path))) {
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
