//! How a receiver knows that a letter is ours: Standard Webhooks 1.0.
//!
//! Signed are the letter's id, the time of this try, and the body: a letter that was overheard cannot be sent again later.

use crate::store::Moment;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::digest::Key;
use hmac::{Hmac, Mac};
use http::header::InvalidHeaderValue;
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::Sha256;
use std::fmt;

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

const PREFIX: &str = "whsec_";

/// How long a secret may be, by the standard. More than a block of the hash would be hashed first, and gain nothing.
const BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Signs letters.
#[derive(Clone)]
pub struct Signer(Vec<Hmac<Sha256>>);

/// Why letters cannot be signed with what was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSecret {
    /// There is none.
    #[error("letters need at least one secret to be signed with")]
    None,
    /// It is not written as the standard says.
    #[error("a secret for letters is `whsec_` and the base64 of 24 to 64 random bytes")]
    Form,
}

// === impl Signer ===

impl Signer {
    /// Signs with each of these secrets: two while receivers move from one to the other.
    ///
    /// Errors: there is none, or one is no secret; it is not repeated.
    /// Source: Standard Webhooks 1.0, "Symmetric signatures".
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Result<Self, BadSecret> {
        let keys: Result<Vec<_>, _> = secrets.into_iter().map(key).collect();
        match keys {
            Ok(keys) if keys.is_empty() => Err(BadSecret::None),
            keys => keys.map(Signer),
        }
    }

    /// The headers by which a receiver knows this try at a letter: `webhook-id`, `webhook-timestamp`, `webhook-signature`.
    ///
    /// Errors: the id cannot stand in a header.
    pub fn headers(
        &self,
        id: &str,
        now: Moment,
        body: &[u8],
    ) -> Result<HeaderMap, InvalidHeaderValue> {
        let seconds = now.0.div_euclid(1000);
        let head = format!("{id}.{seconds}.");
        let signatures: Vec<String> = self
            .0
            .iter()
            .map(|key| {
                let mac = key.clone().chain_update(&head).chain_update(body);
                format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
            })
            .collect();
        Ok(HeaderMap::from_iter([
            (ID, HeaderValue::try_from(id)?),
            (TIMESTAMP, HeaderValue::from(seconds)),
            (SIGNATURE, HeaderValue::try_from(signatures.join(" "))?),
        ]))
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({} secrets)", self.0.len())
    }
}

/// A secret in the form that receivers take.
pub fn new_secret() -> String {
    let chance: [u8; 32] = rand::random();
    format!("{PREFIX}{}", STANDARD.encode(chance))
}

fn key(secret: &str) -> Result<Hmac<Sha256>, BadSecret> {
    let text = secret.strip_prefix(PREFIX).ok_or(BadSecret::Form)?;
    let bytes = STANDARD.decode(text).map_err(|_| BadSecret::Form)?;
    if !BYTES.contains(&bytes.len()) {
        return Err(BadSecret::Form);
    }
    // HMAC itself pads a key with zeros to the length of a block.
    let mut key = Key::<Hmac<Sha256>>::default();
    key[..bytes.len()].copy_from_slice(&bytes);
    Ok(<Hmac<Sha256> as Mac>::new(&key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use standardwebhooks::Webhook;
    use std::time::{SystemTime, UNIX_EPOCH};

    /// The receivers' crate compares with the real clock.
    fn now() -> Moment {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Moment(since.as_millis() as i64)
    }

    #[test]
    fn a_receiver_knows_a_letter_by_its_secret() {
        for length in [24, 32, 63, 64] {
            let secret = format!("whsec_{}", STANDARD.encode(vec![7; length]));
            let signer = Signer::new([secret.as_str()]).unwrap();
            let headers = signer
                .headers("msg_1", now(), b"{\"a\":\"\xc3\xbc\"}")
                .unwrap();
            let receiver = Webhook::new(&secret).unwrap();
            receiver
                .verify("{\"a\":\"ü\"}".as_bytes(), &headers)
                .unwrap();
            receiver.verify(b"{}", &headers).unwrap_err();
            let other = Webhook::new(&new_secret()).unwrap();
            other
                .verify("{\"a\":\"ü\"}".as_bytes(), &headers)
                .unwrap_err();
        }
    }

    #[test]
    fn a_letter_cannot_be_sent_again_under_another_id_or_time() {
        let secret = new_secret();
        let receiver = Webhook::new(&secret).unwrap();
        let signer = Signer::new([secret.as_str()]).unwrap();
        let headers = signer.headers("msg_1", now(), b"{}").unwrap();
        for (name, value) in [(ID, "msg_2"), (TIMESTAMP, "1")] {
            let mut forged = headers.clone();
            forged.insert(name, HeaderValue::from_static(value));
            receiver.verify(b"{}", &forged).unwrap_err();
        }
        let old = signer
            .headers("msg_1", Moment(now().0 - 600_000), b"{}")
            .unwrap();
        receiver.verify(b"{}", &old).unwrap_err();
    }

    #[test]
    fn while_a_secret_is_replaced_both_are_good() {
        let (old, new) = (new_secret(), new_secret());
        let signer = Signer::new([old.as_str(), new.as_str()]).unwrap();
        let headers = signer.headers("msg_1", now(), b"{}").unwrap();
        for secret in [old, new] {
            Webhook::new(&secret)
                .unwrap()
                .verify(b"{}", &headers)
                .unwrap();
        }
    }

    #[test]
    fn the_time_is_in_whole_seconds() {
        let signer = Signer::new([new_secret().as_str()]).unwrap();
        for (at, wants) in [(0, "0"), (1_999, "1"), (1_700_000_000_123, "1700000000")] {
            let headers = signer.headers("msg_1", Moment(at), b"").unwrap();
            assert_eq!(headers[TIMESTAMP], wants);
        }
    }

    #[test]
    fn what_is_no_secret_is_refused_and_not_repeated() {
        let short = format!("whsec_{}", STANDARD.encode([1; 23]));
        let long = format!("whsec_{}", STANDARD.encode([1; 65]));
        let bare = STANDARD.encode([1; 32]);
        for secret in ["", "whsec_", "whsec_!!!!", &short, &long, &bare] {
            assert_eq!(
                Signer::new([secret]).unwrap_err(),
                BadSecret::Form,
                "{secret}"
            );
        }
        assert_eq!(Signer::new([]).unwrap_err(), BadSecret::None);
        let signer = Signer::new([new_secret().as_str()]).unwrap();
        assert_eq!(format!("{signer:?}"), "Signer(1 secrets)");
        assert!(signer.headers("a\nb", Moment(0), b"").is_err());
    }
}
