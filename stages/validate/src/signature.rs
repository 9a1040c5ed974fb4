//! The signature of a batch (contract, section 2): what its headers say, kept by `batch` where there are any, and
//! judged by `cut` against the keys of the source. The timestamp is signed, not judged.

use bytes::Bytes;

use jackpot_core::keys::{ID_HEADER, Key, SIGNATURE_HEADER, Signed, TIMESTAMP_HEADER};
use jackpot_core::log::Entry;

use crate::detail::{Quoted, detail};

/// What a message says of its signature, and what was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    id: Option<Box<str>>,
    timestamp: Option<Box<str>>,
    /// All of them, separated by spaces.
    signatures: Box<str>,
    body: Bytes,
}

/// A key that the terms name: its id, and the secret where the key file holds it.
#[derive(Debug, Clone)]
pub struct NamedKey {
    /// Its id.
    pub id: Box<str>,
    /// Its secret.
    pub key: Option<Key>,
}

impl Signature {
    /// Reads the headers of a message; `None` where none of them is a signature. Names are told apart without regard
    /// to case; of several with one name the first counts, of signatures all.
    pub fn read(entry: &Entry) -> Option<Box<Self>> {
        let values = |name: &'static str| {
            let named = move |(header, _): &&(String, String)| header.eq_ignore_ascii_case(name);
            entry.headers.iter().filter(named).map(|(_, value)| value.trim())
        };
        let signatures: Vec<&str> = values(SIGNATURE_HEADER).collect();
        if signatures.is_empty() {
            return None;
        }
        Some(Box::new(Self {
            id: values(ID_HEADER).next().map(Into::into),
            timestamp: values(TIMESTAMP_HEADER).next().map(Into::into),
            signatures: signatures.join(" ").into(),
            body: entry.payload.clone(),
        }))
    }

    /// How many bytes of headers are kept.
    pub fn len(&self) -> usize {
        let header = |value: &Option<Box<str>>| value.as_ref().map_or(0, |value| value.len());
        header(&self.id) + header(&self.timestamp) + self.signatures.len()
    }

    /// Judges the signature of the batch `id` of a source with these keys; the error says what to mend.
    pub fn judge(signature: Option<&Self>, id: &str, keys: &[NamedKey]) -> Result<(), Box<str>> {
        let list = keys.iter().map(|key| &*key.id).collect::<Vec<_>>().join(" or ");
        let Some(signature) = signature else {
            return Err(detail(format_args!(
                "the header {SIGNATURE_HEADER} is missing: this source must sign its batches as Standard Webhooks say, with key {list}"
            )));
        };
        let signed = Signed {
            id: word(ID_HEADER, &signature.id, |value| value == id, &format!("\"{id}\""))?,
            timestamp: word(TIMESTAMP_HEADER, &signature.timestamp, is_whole, "a whole number of seconds")?,
            body: &signature.body,
        };
        let fits = |named: &NamedKey| {
            let key =
                named.key.as_ref().expect("a batch is judged only when all keys of the terms are there");
            key.verify(&signed, &signature.signatures)
        };
        if keys.iter().any(fits) {
            return Ok(());
        }
        Err(detail(format_args!(
            "no signature in {SIGNATURE_HEADER} fits: each is \"v1,\" and the base64 of HMAC-SHA256 over {ID_HEADER}.{TIMESTAMP_HEADER}.body, the body's bytes as published, with key {list}"
        )))
    }
}

/// A header that must be there and of its form. The form leaves no point in it, so that `id.timestamp.body` can be
/// read in one way only.
fn word<'a>(
    name: &str,
    value: &'a Option<Box<str>>,
    fits: impl Fn(&str) -> bool,
    rule: &str,
) -> Result<&'a str, Box<str>> {
    match value {
        None => Err(detail(format_args!("the header {name} is missing; it must be {rule}"))),
        Some(value) if fits(value) => Ok(value),
        Some(value) => {
            Err(detail(format_args!("the header {name} must be {rule}, and is {}", Quoted(value))))
        }
    }
}

fn is_whole(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit())
}
