//! Signatures of batches as the contract has them (section 2): Standard Webhooks, HMAC-SHA256 over `id.timestamp.body`.
//! Written anew: neither the pipeline's `keys` nor the crates that it uses for this are asked.

use sha2::{Digest as _, Sha256};

/// Whether one of the signatures in the headers is that of one of these secrets, `whsec_<base64>`, for the batch `id`.
pub fn fits(headers: &[(String, String)], id: &str, body: &[u8], secrets: &[String]) -> bool {
    let header =
        |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let (Some(named), Some(timestamp), Some(signatures)) =
        (header("webhook-id"), header("webhook-timestamp"), header("webhook-signature"))
    else {
        return false;
    };
    let timed = !timestamp.is_empty() && timestamp.bytes().all(|c| c.is_ascii_digit());
    let signed = [id.as_bytes(), timestamp.as_bytes(), body].join(&b'.');
    let codes: Vec<_> = secrets.iter().map(|secret| code(secret, &signed)).collect();
    let mut given = signatures.split(' ').filter_map(|word| base64(word.strip_prefix("v1,")?));
    named == id && timed && given.any(|given| codes.iter().any(|code| given == *code))
}

/// HMAC-SHA256 (RFC 2104) under the key that a secret spells.
fn code(secret: &str, message: &[u8]) -> [u8; 32] {
    let key = secret.strip_prefix("whsec_").and_then(base64).expect("a secret is whsec_ and base64");
    assert!(key.len() <= 64, "no secret is longer than a block");
    let pad =
        |with: u8| -> Vec<u8> { (0..64).map(|place| key.get(place).copied().unwrap_or(0) ^ with).collect() };
    let inner = Sha256::digest([&pad(0x36), message].concat());
    Sha256::digest([&pad(0x5c), &inner[..]].concat()).into()
}

/// What base64 with its padding spells; `None` where it spells nothing.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| match c {
        b'A'..=b'Z' => Some(c - b'A'),
        b'a'..=b'z' => Some(c - b'a' + 26),
        b'0'..=b'9' => Some(c - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let digits = text.trim_end_matches('=');
    let mut bytes = Vec::new();
    let (mut bits, mut held) = (0_u32, 0);
    for c in digits.bytes() {
        bits = bits << 6 | u32::from(digit(c)?);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 0xff).expect("eight bits"));
        }
    }
    (text.len().is_multiple_of(4) && text.len() - digits.len() <= 2).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector that Standard Webhooks publishes.
    #[test]
    fn the_published_vector_comes_out() {
        let secret = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned()];
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        let body = br#"{"test": 2432232314}"#;
        let headers = |signature: &str| {
            [("webhook-id", id), ("webhook-timestamp", "1614265330"), ("webhook-signature", signature)]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
        };
        let good = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert!(fits(&headers(good), id, body, &secret));
        assert!(fits(&headers(&format!("v1,AAAA v2,x {good}")), id, body, &secret));
        assert!(!fits(&headers(good), id, b"{}", &secret));
        assert!(!fits(&headers(&good.replace('g', "h")), id, body, &secret));
        assert!(!fits(&headers(good), "other", body, &secret));
        assert!(!fits(&headers(good), id, body, &[]));
        assert!(!fits(&headers("v1,"), id, body, &secret));
    }
}
