//! Keys as commands use them: the flag, whether terms name others, and the signing of batches.
//! How a key file reads and how a signature is made is `jackpot_core::keys`' matter.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jackpot_core::keys::{self, Key, Keys};
use jackpot_core::log::{Log, LogError};
use jackpot_core::settings::file_name;
use jackpot_core::terms::store::{self, StoreError};
use jackpot_core::terms::{Fault, Terms};
use jackpot_core::time::Millis;
use tokio::time::{Instant, sleep};

use crate::exit::Unusable;

/// How often a command that goes on and on asks which terms are in force.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The pause before a server that was away is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// The key file, for commands that sign or look keys up.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct KeysFlag {
    /// The secrets of the keys that the terms name, a line each: `<key id> whsec_<base64>`.
    #[arg(id = "keys", long, env = "JACKPOT_KEYS", value_name = "FILE", value_parser = file_name())]
    pub file: Option<PathBuf>,
}

impl KeysFlag {
    /// Reads the file, if one is named.
    pub fn read(&self) -> anyhow::Result<Option<Keys>> {
        let Some(file) = &self.file else { return Ok(None) };
        let keys = Keys::read(file)
            .map_err(|error| Unusable::new(format!("--keys {} cannot be used: {error}", file.display())))?;
        Ok(Some(keys))
    }

    /// What terms name that is not among `keys`, which are those of the file.
    pub fn faults(&self, terms: &Terms, keys: Option<&Keys>) -> Vec<Fault> {
        let advice = match &self.file {
            Some(file) => format!("is not in {}; add it, or name another key", file.display()),
            None => "is named, and no key file is; give one with --keys FILE".to_owned(),
        };
        let missing = keys.unwrap_or(&Keys::default()).missing(terms);
        missing
            .into_iter()
            .map(|(place, id)| Fault { place, what: format!("the key `{id}` {advice}"), position: None })
            .collect()
    }
}

/// Signs batches by the terms in force: with the last key of their source.
#[derive(Debug, Default)]
pub struct Signer {
    keys: Option<Keys>,
    revision: u64,
    /// The last key of each source that has any.
    last: BTreeMap<String, String>,
    /// When it was asked last which terms are in force.
    looked: Option<Instant>,
}

impl Signer {
    /// One that knows no terms yet.
    pub fn new(keys: Option<Keys>) -> Self {
        Self { keys, ..Self::default() }
    }

    /// The same under these terms.
    pub fn under(self, terms: &Terms) -> Self {
        let last =
            |source: &jackpot_core::terms::Source| Some((source.source.clone(), source.keys.last()?.clone()));
        Self { revision: terms.revision, last: terms.sources.iter().filter_map(last).collect(), ..self }
    }

    /// Looks which terms are in force, unless that was done just now. The first time a server that is away is waited
    /// for as long as `patience`; later what is known will do.
    pub async fn look<L: Log>(&mut self, log: &L, patience: Duration) -> anyhow::Result<()> {
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY) {
            return Ok(());
        }
        let began = Instant::now();
        loop {
            match self.in_force(log).await {
                Ok(Some(terms)) => *self = std::mem::take(self).under(&terms),
                Ok(None) => {}
                Err(StoreError::Log(LogError::Unavailable(why))) if self.looked.is_none() => {
                    if began.elapsed() >= patience {
                        return Err(StoreError::Log(LogError::Unavailable(why)).into());
                    }
                    sleep(PAUSE).await;
                    continue;
                }
                Err(StoreError::Log(LogError::Unavailable(_))) => {}
                Err(error) => return Err(error.into()),
            }
            self.looked = Some(Instant::now());
            return Ok(());
        }
    }

    /// The terms in force, where they are others than those known. Before any were applied no source has keys.
    async fn in_force<L: Log>(&self, log: &L) -> Result<Option<Terms>, StoreError> {
        match store::in_force(log).await {
            Ok(Some(marker)) if marker.revision != self.revision => {
                store::load(log, marker.revision).await.map(Some)
            }
            Ok(_) | Err(StoreError::Log(LogError::NoStream(_))) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The key that a source's batches are signed with, if any; the error says why one is needed and not there.
    pub fn key(&self, source: &str) -> Result<Option<&Key>, String> {
        let Some(id) = self.last.get(source) else { return Ok(None) };
        match &self.keys {
            None => Err(format!("must be signed with the key {id}; name the key file with --keys FILE")),
            Some(keys) => keys.get(id).map(Some).ok_or_else(|| {
                format!("must be signed with the key {id}, which is not in the key file; add it")
            }),
        }
    }

    /// The headers that sign a batch; none where its source has no keys.
    pub fn headers(
        &self,
        source: &str,
        sequence: impl FnOnce() -> Result<u64, String>,
        body: &[u8],
    ) -> Result<Vec<(String, String)>, String> {
        let Some(key) = self.key(source)? else { return Ok(Vec::new()) };
        Ok(keys::headers(key, source, sequence()?, Millis::now().0.div_euclid(1_000), body))
    }
}

#[cfg(test)]
mod tests {
    use jackpot_core::keys::Signed;
    use jackpot_core::log::jetstream::setup::{SetUp, streams};
    use jackpot_core::log::memory::Memory;

    use super::*;

    const KEYS: &[u8] =
        b"k1 whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\nk2 whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

    fn keys() -> Keys {
        Keys::parse(KEYS).expect("keys")
    }

    fn terms(revision: u64, keys: &[&str]) -> Terms {
        let mut terms = Terms::parse(crate::terms::EXAMPLE).expect("the example");
        terms.revision = revision;
        terms.sources[0].keys = keys.iter().map(|&key| key.into()).collect();
        terms
    }

    #[test]
    fn faults_say_where_the_key_should_be() {
        let check = |file: Option<&str>, keys: Option<&Keys>, expect: &[&str]| {
            let flag = KeysFlag { file: file.map(Into::into) };
            let faults = flag.faults(&terms(1, &["k1", "k3"]), keys);
            let told: Vec<String> =
                faults.iter().map(|fault| format!("{}: {}", fault.place, fault.what)).collect();
            assert_eq!(told, expect);
        };
        let named = "is named, and no key file is; give one with --keys FILE";
        check(
            None,
            None,
            &[
                &format!("sources[0].keys[0]: the key `k1` {named}"),
                &format!("sources[0].keys[1]: the key `k3` {named}"),
            ],
        );
        check(
            Some("keys"),
            Some(&keys()),
            &["sources[0].keys[1]: the key `k3` is not in keys; add it, or name another key"],
        );
    }

    #[test]
    fn the_last_key_signs() {
        let signer = Signer::new(Some(keys())).under(&terms(1, &["k1", "k2"]));
        let headers = signer.headers("acme-spin-eu1", || Ok(7), b"{}").expect("it is signed");
        let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["webhook-id", "webhook-timestamp", "webhook-signature"]);
        let signed = Signed { id: &headers[0].1, timestamp: &headers[1].1, body: b"{}" };
        assert_eq!(signed.id, "acme-spin-eu1/7");
        assert!(keys().get("k2").expect("k2").verify(&signed, &headers[2].1));
        let nobody = || -> Result<u64, String> { panic!("the number is only read to sign") };
        assert_eq!(signer.headers("acme-bingo-uk1", nobody, b"{}"), Ok(Vec::new()));
        let unread = signer.headers("acme-spin-eu1", || Err("no number".into()), b"{}");
        assert_eq!(unread, Err("no number".to_owned()));
        let without = Signer::new(None).under(&terms(1, &["k1"])).headers("acme-spin-eu1", || Ok(7), b"{}");
        assert!(without.expect_err("no file").contains("the key k1; name the key file with --keys"));
        let lacking =
            Signer::new(Some(keys())).under(&terms(1, &["k9"])).headers("acme-spin-eu1", || Ok(7), b"{}");
        assert!(lacking.expect_err("no k9").contains("the key k9, which is not in the key file"));
    }

    #[tokio::test]
    async fn the_terms_in_force_are_followed() {
        let none = Memory::new([], || Millis(0));
        let mut signer = Signer::new(None);
        signer.look(&none, Duration::ZERO).await.expect("no streams are no terms");
        assert!(signer.key("acme-spin-eu1").expect("no key is needed").is_none());

        let log = Memory::new(streams(&SetUp::new(1)), || Millis(0));
        let mut signer = Signer::new(None);
        signer.look(&log, Duration::ZERO).await.expect("there are no terms");
        let claim = store::store(&log, &terms(1, &["k1"])).await.expect("it is stored");
        signer.looked = Some(Instant::now() - LOOK_EVERY);
        signer.look(&log, Duration::ZERO).await.expect("what is claimed is not in force");
        assert!(signer.key("acme-spin-eu1").expect("no key is needed").is_none());
        store::activate(&log, 1, &claim).await.expect("it is activated");
        signer.look(&log, Duration::ZERO).await.expect("it was done just now");
        assert!(signer.key("acme-spin-eu1").expect("no key is needed").is_none());
        signer.looked = Some(Instant::now() - LOOK_EVERY);
        signer.look(&log, Duration::ZERO).await.expect("there are terms");
        assert!(signer.key("acme-spin-eu1").is_err());
    }
}
