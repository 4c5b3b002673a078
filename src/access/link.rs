//! Capability links: who holds one may do the one thing it names, until it expires, without a key.
//!
//! For browsers, which should not hold a tenant's key, and for backends that call back. A token is as good as a key for
//! what it opens: it is never logged.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::digest::Key;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::fmt;

/// Said before everything that is signed, so that no other signature by the same secret is ever a link.
const PURPOSE: &[u8] = b"tabane link 1\0";

const EXPIRY: usize = size_of::<i64>();
const MAC: usize = 32;

/// Signs links, and knows its own again.
#[derive(Clone)]
pub struct Links(Hmac<Sha256>);

// === impl Links ===

impl Links {
    /// Links of this secret, which is random and survives a restart. Another secret makes all earlier links worthless.
    pub fn new(secret: [u8; 32]) -> Self {
        // HMAC itself pads a key with zeros to the length of a block.
        let mut key = Key::<Hmac<Sha256>>::default();
        key[..secret.len()].copy_from_slice(&secret);
        let mut mac = <Hmac<Sha256> as Mac>::new(&key);
        mac.update(PURPOSE);
        Links(mac)
    }

    /// The token that opens `scope` until `expires`.
    ///
    /// Shapes: `scope` says what it opens, as `job/<id>/read`, any text; the token is 54 characters of `A-Za-z0-9_-`.
    /// Units: `expires` milliseconds since 1970.
    pub fn sign(&self, scope: &str, expires: i64) -> String {
        let expiry = expires.to_be_bytes();
        let mac = self.over(expiry, scope).finalize().into_bytes();
        URL_SAFE_NO_PAD.encode([&expiry[..], &mac].concat())
    }

    /// Whether the token opens `scope` now. How far a wrong one is from a right one does not show in the time it takes.
    ///
    /// Units: `now` milliseconds since 1970.
    pub fn check(&self, scope: &str, token: &str, now: i64) -> bool {
        // Decoded into room for one token: a longer one is refused before it costs anything.
        let mut parts = [0; EXPIRY + MAC];
        if URL_SAFE_NO_PAD.decode_slice(token, &mut parts) != Ok(parts.len()) {
            return false;
        }
        let mut expiry = [0; EXPIRY];
        expiry.copy_from_slice(&parts[..EXPIRY]);
        let genuine = self.over(expiry, scope).verify_slice(&parts[EXPIRY..]);
        genuine.is_ok() && now < i64::from_be_bytes(expiry)
    }

    /// The expiry has one length, so what follows it is the scope, whatever it holds.
    fn over(&self, expiry: [u8; EXPIRY], scope: &str) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(&expiry);
        mac.update(scope.as_bytes());
        mac
    }
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Links(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCOPE: &str = "job/01J/read";

    #[test]
    fn a_link_opens_what_it_names_until_it_expires() {
        let links = Links::new([7; 32]);
        let token = links.sign(SCOPE, 1_000);
        assert_eq!(token.len(), 54);
        assert!(links.check(SCOPE, &token, 0));
        assert!(links.check(SCOPE, &token, 999));
        assert!(!links.check(SCOPE, &token, 1_000));
    }

    #[test]
    fn a_link_opens_nothing_else() {
        let links = Links::new([7; 32]);
        let token = links.sign(SCOPE, 1_000);
        for scope in [
            "",
            "job/01J",
            "job/01J/read/",
            "job/01J/write",
            "JOB/01J/read",
        ] {
            assert!(!links.check(scope, &token, 0), "{scope}");
        }
        assert!(!Links::new([8; 32]).check(SCOPE, &token, 0));
    }

    #[test]
    fn a_link_that_was_altered_is_refused() {
        let links = Links::new([7; 32]);
        let token = links.sign(SCOPE, 1_000);
        // Every other spelling is refused too, with those of the last character that decode to the same bytes.
        for at in 0..token.len() {
            for other in
                "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=+/ \n".chars()
            {
                let mut altered: Vec<char> = token.chars().collect();
                if altered[at] != other {
                    altered[at] = other;
                    let altered: String = altered.into_iter().collect();
                    assert!(!links.check(SCOPE, &altered, 0), "{altered}");
                }
            }
        }
        for length in 0..token.len() {
            assert!(!links.check(SCOPE, &token[..length], 0));
        }
        for longer in ["A", "AA", "=", "==", "AAAA", " "] {
            assert!(!links.check(SCOPE, &format!("{token}{longer}"), 0));
        }
        assert!(!links.check(SCOPE, &"A".repeat(100_000), 0));
        assert!(!links.check(SCOPE, "ü", 0));
    }

    #[test]
    fn a_link_of_odd_times_is_no_way_in() {
        let links = Links::new([7; 32]);
        for expires in [i64::MIN, -1, 0] {
            assert!(!links.check(SCOPE, &links.sign(SCOPE, expires), 0));
        }
        assert!(links.check(SCOPE, &links.sign(SCOPE, i64::MAX), i64::MAX - 1));
    }

    #[test]
    fn the_secret_is_not_printed() {
        assert_eq!(format!("{:?}", Links::new([7; 32])), "Links(***)");
    }
}
