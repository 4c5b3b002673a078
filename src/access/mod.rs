//! Who is asking, first form: keys in the YAML file.
//!
//! Keys are kept as SHA-256 digests only. A look-up by digest tells an attacker nothing by its timing: to
//! steer the digest they would have to find preimages. `X-API-Key` is read before `Authorization: Bearer`,
//! so that a service behind the gateway may have an `Authorization` of its own.

mod link;

pub use link::Links;

use crate::config::plan::{Anonymous, Plan};
use http::{HeaderMap, HeaderName, header};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use subtle::ConstantTimeEq;
use tabane_api::{ANONYMOUS, Caller, Refusal};

/// The challenge of a refusal (RFC 6750, 3).
pub const WWW_AUTHENTICATE: &str = "Bearer realm=\"tabane\"";

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The keys of one world.
#[derive(Debug)]
pub struct Access {
    tenants: HashMap<[u8; 32], (Arc<str>, u32)>,
    anonymous: Anonymous,
    nobody: Arc<str>,
}

/// Who asks.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The tenant, and the address it asks from.
    pub caller: Caller,
    /// Its share against other tenants.
    pub weight: u32,
    /// The headers that carried keys of ours: the node does not get them.
    pub matched: Vec<HeaderName>,
}

// === impl Access ===

impl Access {
    /// Takes the keys of a plan.
    pub fn new(plan: &Plan) -> Self {
        let keys = plan
            .tenants
            .iter()
            .flat_map(|tenant| tenant.keys.iter().map(move |key| (tenant, key)));
        let tenants = keys
            .map(|(tenant, key)| (digest(key.reveal()), (tenant.name.clone(), tenant.weight)))
            .collect();
        Access {
            tenants,
            anonymous: plan.anonymous,
            nobody: ANONYMOUS.into(),
        }
    }

    /// Finds out who asks. A key that nobody has counts as none: it may be meant for the node.
    ///
    /// Errors: `Unauthorized` where one without a key may not ask.
    pub fn identify(
        &self,
        headers: &HeaderMap,
        from: IpAddr,
        listener_is_loopback: bool,
    ) -> Result<Identity, Refusal> {
        let mut found = None;
        let mut matched = Vec::new();
        let named: &[HeaderName] = if self.tenants.is_empty() {
            &[]
        } else {
            &[API_KEY, header::AUTHORIZATION]
        };
        for name in named {
            let shown = headers
                .get_all(name)
                .iter()
                .filter_map(|value| value.to_str().ok());
            let keys = shown.filter_map(|value| {
                if *name == API_KEY {
                    Some(value)
                } else {
                    bearer(value)
                }
            });
            if let Some(tenant) = keys
                .filter_map(|key| self.tenants.get(&digest(key.trim())))
                .next()
            {
                // A client may send its key both ways; neither is the node's business.
                matched.push(name.clone());
                found.get_or_insert(tenant);
            }
        }
        if let Some((tenant, weight)) = found {
            let caller = Caller {
                tenant: tenant.clone(),
                address: from,
            };
            return Ok(Identity {
                caller,
                weight: *weight,
                matched,
            });
        }
        let allowed = match self.anonymous {
            Anonymous::Allow => true,
            Anonymous::Loopback => listener_is_loopback,
            Anonymous::Deny => false,
        };
        if !allowed {
            let what = "a key is needed: send it as `Authorization: Bearer …` or `X-API-Key: …`";
            return Err(Refusal::Unauthorized(what.into()));
        }
        Ok(Identity {
            caller: Caller {
                tenant: self.nobody.clone(),
                address: from,
            },
            weight: 1,
            matched,
        })
    }
}

/// Whether two secrets are the same, in a time that does not tell where they differ.
pub fn same_secret(a: &str, b: &str) -> bool {
    digest(a).ct_eq(&digest(b)).into()
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(key)
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(anonymous: Anonymous) -> Access {
        let tenants = HashMap::from([
            (digest("key-of-a"), ("a".into(), 2)),
            (digest("key-of-b"), ("b".into(), 1)),
        ]);
        Access {
            tenants,
            anonymous,
            nobody: ANONYMOUS.into(),
        }
    }

    fn ask(
        access: &Access,
        headers: &[(&str, &str)],
        loopback: bool,
    ) -> Option<(String, Vec<HeaderName>)> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        let identity = access.identify(&map, [10, 0, 0, 1].into(), loopback).ok()?;
        Some((identity.caller.tenant.to_string(), identity.matched))
    }

    #[test]
    fn a_key_is_its_tenants_however_it_is_sent() {
        let access = access(Anonymous::Deny);
        for (headers, tenant, by) in [
            (&[("x-api-key", "key-of-a")][..], "a", API_KEY),
            (
                &[("authorization", "Bearer key-of-b")],
                "b",
                header::AUTHORIZATION,
            ),
            (
                &[("authorization", "bearer  key-of-b ")],
                "b",
                header::AUTHORIZATION,
            ),
            (
                &[
                    ("authorization", "Basic xyz"),
                    ("authorization", "Bearer key-of-a"),
                ],
                "a",
                header::AUTHORIZATION,
            ),
            (
                &[
                    ("x-api-key", "key-of-a"),
                    ("authorization", "Bearer the-nodes-own"),
                ],
                "a",
                API_KEY,
            ),
        ] {
            assert_eq!(
                ask(&access, headers, false),
                Some((tenant.into(), vec![by])),
                "{headers:?}"
            );
        }
    }

    #[test]
    fn a_key_sent_both_ways_is_taken_off_both_ways() {
        let both = [
            ("x-api-key", "key-of-a"),
            ("authorization", "Bearer key-of-a"),
        ];
        let (_, matched) = ask(&access(Anonymous::Deny), &both, false).unwrap();
        assert_eq!(matched, [API_KEY, header::AUTHORIZATION]);
    }

    #[test]
    fn one_without_a_key_may_ask_only_where_the_file_lets_them() {
        let wrong = [("authorization", "Bearer wrong")];
        for (anonymous, loopback, allowed) in [
            (Anonymous::Loopback, true, true),
            (Anonymous::Loopback, false, false),
            (Anonymous::Allow, false, true),
            (Anonymous::Deny, true, false),
        ] {
            let access = access(anonymous);
            for headers in [
                &[][..],
                &wrong,
                &[("authorization", "key-of-a")],
                &[("x-api-key", "")],
            ] {
                let wants = allowed.then(|| (ANONYMOUS.to_owned(), vec![]));
                assert_eq!(
                    ask(&access, headers, loopback),
                    wants,
                    "{anonymous:?} {loopback} {headers:?}"
                );
            }
        }
    }

    #[test]
    fn secrets_are_compared_whole() {
        assert!(same_secret("abc", "abc"));
        for other in ["", "ab", "abcd", "abd"] {
            assert!(!same_secret("abc", other));
        }
    }
}
