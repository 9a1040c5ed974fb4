//! Keys that sign wager batches: the key file, and signatures as in Standard Webhooks (contract, section 2).
//! validate verifies with them, `jackpot publish` and `load` sign, `jackpot terms apply` looks whether they are there.
//! A secret is never shown: errors name a line and nothing of it, and `Debug` hides it. No clock is read here: the
//! timestamp is signed, never judged.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD};
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig};
use hmac::digest::CtOutput;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::terms::Terms;

/// The header that holds what is signed first: `<source>/<sequence>`.
pub const ID_HEADER: &str = "webhook-id";
/// The header that holds when it was signed, in seconds since 1970.
pub const TIMESTAMP_HEADER: &str = "webhook-timestamp";
/// The header that holds the signatures, separated by spaces.
pub const SIGNATURE_HEADER: &str = "webhook-signature";

/// What a secret begins with.
const SECRET_PREFIX: &str = "whsec_";
/// What a signature of the one scheme that is known here begins with.
const SIGNATURE_PREFIX: &str = "v1,";

/// Reads base64 as the libraries of all languages write it: padded or not.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// A secret, ready to sign: the state of HMAC-SHA256 behind the key, cloned for each message.
#[derive(Clone)]
pub struct Key(Hmac<Sha256>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// What is signed: `id.timestamp.body`.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// `<source>/<sequence>`.
    pub id: &'a str,
    /// As it stands in its header.
    pub timestamp: &'a str,
    /// The bytes, as they are published.
    pub body: &'a [u8],
}

impl Key {
    /// Reads `whsec_<base64>`; the error says what is wrong, without the secret.
    pub fn parse(secret: &str) -> Result<Self, &'static str> {
        let digits = secret.strip_prefix(SECRET_PREFIX).ok_or("the secret must begin with whsec_")?;
        let bytes = LENIENT.decode(digits).map_err(|_| "what follows whsec_ must be base64")?;
        if bytes.is_empty() {
            return Err("nothing follows whsec_; a secret is 24 to 64 random bytes in base64");
        }
        Ok(Self(Hmac::new_from_slice(&bytes).expect("HMAC takes a key of any length")))
    }

    /// The signature as it stands in its header: `v1,<base64>`.
    pub fn sign(&self, signed: &Signed<'_>) -> String {
        format!("{SIGNATURE_PREFIX}{}", STANDARD.encode(self.code(signed).into_bytes()))
    }

    /// Whether one of the signatures, separated by spaces, is this key's. Those of other schemes are passed over.
    /// How long it takes does not depend on how nearly a signature fits.
    pub fn verify(&self, signed: &Signed<'_>, signatures: &str) -> bool {
        let code = self.code(signed);
        signatures.split_ascii_whitespace().filter_map(read_signature).any(|given| given == code)
    }

    fn code(&self, signed: &Signed<'_>) -> CtOutput<Hmac<Sha256>> {
        let mac = self.0.clone().chain_update(signed.id).chain_update(b".").chain_update(signed.timestamp);
        mac.chain_update(b".").chain_update(signed.body).finalize()
    }
}

fn read_signature(word: &str) -> Option<CtOutput<Hmac<Sha256>>> {
    let bytes: [u8; 32] = LENIENT.decode(word.strip_prefix(SIGNATURE_PREFIX)?).ok()?.try_into().ok()?;
    Some(CtOutput::new(bytes.into()))
}

/// The three headers that sign a batch.
pub fn headers(key: &Key, source: &str, sequence: u64, seconds: i64, body: &[u8]) -> Vec<(String, String)> {
    let (id, timestamp) = (format!("{source}/{sequence}"), seconds.to_string());
    let signature = key.sign(&Signed { id: &id, timestamp: &timestamp, body });
    let named = [(ID_HEADER, id), (TIMESTAMP_HEADER, timestamp), (SIGNATURE_HEADER, signature)];
    named.map(|(name, value)| (name.to_owned(), value)).into()
}

/// Keys by their ids.
#[derive(Debug, Clone, Default)]
pub struct Keys(BTreeMap<Box<str>, Key>);

/// Why keys could not be had. Nothing of the file's content is in it.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// There is no file, or no right to read it.
    #[error("the key file {} cannot be read ({why})", .file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system says.
        #[source]
        why: io::Error,
    },
    /// A line is not of the form.
    #[error(
        "line {} of the key file {} cannot be used: {}; write `<key id> whsec_<base64>`",
        .fault.line, .file.display(), .fault.what
    )]
    Line {
        /// The file.
        file: PathBuf,
        /// The line.
        fault: LineFault,
    },
}

/// The first line of a key file that is not of the form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineFault {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: &'static str,
}

impl Keys {
    /// Reads a key file.
    ///
    /// # Errors
    /// When it cannot be read, or a line of it cannot be used.
    pub fn read(file: &Path) -> Result<Self, KeysError> {
        let content =
            std::fs::read(file).map_err(|why| KeysError::Unreadable { file: file.to_owned(), why })?;
        Self::parse(&content).map_err(|fault| KeysError::Line { file: file.to_owned(), fault })
    }

    /// Reads lines `<key id> whsec_<base64>`; blank lines and those that begin with `#` say nothing.
    ///
    /// # Errors
    /// The first line that cannot be used.
    pub fn parse(content: &[u8]) -> Result<Self, LineFault> {
        let mut keys = BTreeMap::new();
        for (line, content) in (1..).zip(content.split(|&byte| byte == b'\n')) {
            let fault = |what| LineFault { line, what };
            let text = std::str::from_utf8(content).map_err(|_| fault("it is no text in UTF-8"))?.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let mut words = text.split_whitespace();
            let (Some(id), Some(secret), None) = (words.next(), words.next(), words.next()) else {
                return Err(fault("it is not two words"));
            };
            let key = Key::parse(secret).map_err(fault)?;
            if keys.insert(id.into(), key).is_some() {
                return Err(fault("a line before it has the same key id"));
            }
        }
        Ok(Self(keys))
    }

    /// The key of an id.
    pub fn get(&self, id: &str) -> Option<&Key> {
        self.0.get(id)
    }

    /// The ids that the terms name and that are not here: where each is named first, and the id.
    pub fn missing<'t>(&self, terms: &'t Terms) -> Vec<(String, &'t str)> {
        let mut missing: Vec<(String, &str)> = Vec::new();
        for (i, source) in terms.sources.iter().enumerate() {
            for (j, id) in source.keys.iter().enumerate() {
                if self.get(id).is_none() && missing.iter().all(|(_, known)| known != id) {
                    missing.push((format!("sources[{i}].keys[{j}]"), id));
                }
            }
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::terms::{Operator, Source};

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn key(secret: &str) -> Key {
        Key::parse(secret).expect("a secret")
    }

    /// The vectors that the reference libraries of Standard Webhooks and of its origin, Svix, publish.
    #[test]
    fn published_vectors_come_out() {
        let check = |secret, id, timestamp, body: &str, expect: &str| {
            let signed = Signed { id, timestamp, body: body.as_bytes() };
            assert_eq!(key(secret).sign(&signed), expect);
            assert!(key(secret).verify(&signed, expect));
        };
        check(
            SECRET,
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "1614265330",
            r#"{"test": 2432232314}"#,
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        );
        check(
            "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
            "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
            "1649367553",
            r#"{"email":"test@example.com","username":"test_user"}"#,
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
        );
    }

    #[test]
    fn one_of_several_signatures_is_enough_and_nothing_else_is() {
        let signed = Signed { id: "eu1/5", timestamp: "1780949731", body: b"{}" };
        let good = key(SECRET).sign(&signed);
        let check = |signatures: &str, expect: bool| {
            assert_eq!(key(SECRET).verify(&signed, signatures), expect, "{signatures}");
        };
        let other = key("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD").sign(&signed);
        check(&good, true);
        check(&format!("{other} {good}"), true);
        check(&format!("v1a,AAAA v2,x  {good} {other}"), true);
        check(good.trim_end_matches('='), true);
        check(&other, false);
        check("", false);
        check("v1,", false);
        check(&good[..good.len() - 4], false);
        check(&good.replace("v1,", ""), false);
        check(&good.replace("v1,", "v1a,"), false);
        check(&good.replace("v1,", "V1,"), false);
        check(&format!("{good}{good}"), false);
        for changed in [
            Signed { id: "eu1/6", ..signed },
            Signed { timestamp: "1780949732", ..signed },
            Signed { body: b"{} ", ..signed },
        ] {
            assert!(!key(SECRET).verify(&changed, &good), "{changed:?}");
        }
    }

    #[test]
    fn a_key_file_is_read_line_by_line() {
        let file = format!(
            "# the keys of acme\n\nk1 {SECRET}\r\n\t k-2\twhsec_dGVzdA  \n #k3 nothing\nk3 whsec_dGVzdA=="
        );
        let keys = Keys::parse(file.as_bytes()).expect("keys");
        assert!(keys.get("k1").is_some() && keys.get("k-2").is_some() && keys.get("k3").is_some());
        assert!(keys.get("#k3").is_none() && keys.get("k4").is_none());
        assert!(Keys::parse(b"").is_ok(), "a file without keys is one");
    }

    #[test]
    fn a_fault_names_the_line_and_nothing_of_it() {
        let check = |line: &str, expect: &str| {
            let content = format!("# first\nk1 {SECRET}\n{line}\n");
            let fault = Keys::parse(content.as_bytes()).expect_err(line);
            assert_eq!((fault.line, fault.what), (3, expect), "{line}");
            let said = KeysError::Line { file: "keys".into(), fault }.to_string();
            assert!(said.starts_with("line 3 of the key file keys cannot be used: "), "{said}");
            assert!(!said.contains("c2VjcmV0") && !said.contains("k2"), "{said}");
        };
        check("k2", "it is not two words");
        check("whsec_c2VjcmV0", "it is not two words");
        check("k2 whsec_c2VjcmV0 more", "it is not two words");
        check("k2 c2VjcmV0", "the secret must begin with whsec_");
        check("whsec_c2VjcmV0 k2", "the secret must begin with whsec_");
        check("k2 whsec_c2Vjc-V0", "what follows whsec_ must be base64");
        check("k2 whsec_", "nothing follows whsec_; a secret is 24 to 64 random bytes in base64");
        check("k1 whsec_c2VjcmV0", "a line before it has the same key id");
        assert_eq!(Keys::parse(b"\xff").expect_err("no text").what, "it is no text in UTF-8");
        let error = Keys::read(Path::new("/no/such/file")).expect_err("there is none").to_string();
        assert!(error.starts_with("the key file /no/such/file cannot be read (No such file"), "{error}");
    }

    #[test]
    fn nothing_shows_a_secret() {
        let keys = Keys::parse(format!("k1 {SECRET}").as_bytes()).expect("keys");
        assert_eq!(format!("{keys:?}"), "Keys({\"k1\": Key(…)})");
    }

    #[test]
    fn missing_keys_are_told_once_each() {
        let source = |source: &str, keys: &[&str]| Source {
            source: source.into(),
            operator: "acme".into(),
            keys: keys.iter().map(|&key| key.into()).collect(),
            sequence_from: None,
        };
        let operators = vec![Operator { operator: "acme".into(), jurisdictions: Vec::new() }];
        let sources = vec![source("a", &[]), source("b", &["k1", "k3"]), source("c", &["k3", "k2"])];
        let terms = Terms { revision: 1, operators, sources, ..Terms::none() };
        let keys = Keys::parse(format!("k1 {SECRET}").as_bytes()).expect("keys");
        let expect = [("sources[1].keys[1]".to_owned(), "k3"), ("sources[2].keys[1]".to_owned(), "k2")];
        assert_eq!(keys.missing(&terms), expect);
        assert!(keys.missing(&Terms::none()).is_empty());
    }

    proptest! {
        #[test]
        fn what_is_signed_is_verified(
            secret in proptest::collection::vec(any::<u8>(), 1..100),
            body in proptest::collection::vec(any::<u8>(), 0..300),
            sequence in any::<u64>(),
            seconds in any::<i64>(),
        ) {
            let key = key(&format!("whsec_{}", STANDARD.encode(secret)));
            let headers = headers(&key, "eu1", sequence, seconds, &body);
            let [(_, id), (_, timestamp), (_, signature)] = &headers[..] else { panic!("three headers") };
            let signed = Signed { id, timestamp, body: &body };
            prop_assert!(key.verify(&signed, signature));
        }
    }
}
