use super::least_loaded::least_loaded;
use bytes::Bytes;
use http::HeaderValue;
use schemars::JsonSchema;
use serde::Deserialize;
use tabane_api::{Ask, Candidate, Draw, Key, Need, Policy, PolicyKind};

/// Sends a client back to the endpoint it had before, by a cookie of the gateway's own; a new one goes to the least loaded.
pub(super) struct Sticky(Config);

/// How clients are sent back.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// The cookie's name.
    #[serde(default = "cookie")]
    cookie: String,
    /// What a client does whose endpoint is full.
    #[serde(default)]
    when_full: WhenFull,
}

/// What a client does whose endpoint is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum WhenFull {
    /// It waits: its state is there.
    #[default]
    Wait,
    /// It goes elsewhere, and stays there.
    Move,
}

fn cookie() -> String {
    "tabane".into()
}

impl PolicyKind for Sticky {
    const NAME: &'static str = "sticky";
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        // RFC 6265, 4.1.1: a cookie's name is a token.
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if config.cookie.is_empty() || !config.cookie.bytes().all(token) {
            return Err(format!("cookie: `{}` is no cookie's name", config.cookie));
        }
        Ok(Sticky(config))
    }
}

impl Policy for Sticky {
    fn pick(&self, need: &Need, among: &[Candidate<'_>], draw: &mut dyn Draw) -> Option<usize> {
        let before = need
            .key
            .and_then(|key| among.iter().position(|candidate| candidate.hash == key));
        match before {
            Some(i) if self.0.when_full == WhenFull::Wait || among[i].has_room(need) => Some(i),
            _ => least_loaded(need, among, draw),
        }
    }

    fn key(&self, ask: &Ask<'_>, _body: Option<&Bytes>) -> Key {
        let sent = ask
            .cookie(&self.0.cookie)
            .filter(|value| value.len() == 16 && value.bytes().all(|b| b.is_ascii_hexdigit()));
        sent.and_then(|value| u64::from_str_radix(value, 16).ok())
            .map_or(Key::None, Key::Of)
    }

    fn remember(&self, ask: &Ask<'_>, _endpoint: &str, hash: u64) -> Option<HeaderValue> {
        if self.key(ask, None) == Key::Of(hash) {
            return None;
        }
        HeaderValue::from_str(&format!(
            "{}={hash:016x}; Path=/; HttpOnly; SameSite=Lax",
            self.0.cookie
        ))
        .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::candidates;
    use super::*;
    use http::{HeaderMap, Method};
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use tabane_api::Caller;

    fn policy(when_full: WhenFull) -> Sticky {
        Sticky::new(Config {
            cookie: cookie(),
            when_full,
        })
        .unwrap()
    }

    #[test]
    fn a_client_finds_its_way_back_by_its_cookie() {
        let sticky = policy(WhenFull::Wait);
        let among = candidates(&[(1, 4, 0), (1, 4, 3)]);
        let caller = Caller {
            tenant: "t".into(),
            address: [10, 0, 0, 1].into(),
        };
        let mut headers = HeaderMap::new();
        let set = {
            let ask = Ask {
                method: &Method::GET,
                path: "/",
                query: None,
                headers: &headers,
                caller: &caller,
            };
            assert_eq!(sticky.key(&ask, None), Key::None);
            sticky.remember(&ask, among[1].name, among[1].hash).unwrap()
        };
        let pair = set.to_str().unwrap().split(';').next().unwrap();
        headers.insert("cookie", pair.parse().unwrap());
        let ask = Ask {
            method: &Method::GET,
            path: "/",
            query: None,
            headers: &headers,
            caller: &caller,
        };
        let Key::Of(key) = sticky.key(&ask, None) else {
            panic!("no key in {pair}")
        };
        let need = Need {
            key: Some(key),
            ..Need::of_class("x")
        };
        assert_eq!(
            sticky.pick(&need, &among, &mut StdRng::seed_from_u64(1)),
            Some(1)
        );
        assert_eq!(
            sticky.remember(&ask, among[1].name, among[1].hash),
            None,
            "it has the cookie already"
        );
    }

    #[test]
    fn a_full_endpoint_is_waited_for_or_left_as_the_file_says() {
        let among = candidates(&[(1, 1, 0), (1, 1, 1)]);
        let need = Need {
            key: Some(among[1].hash),
            ..Need::of_class("x")
        };
        let mut draw = StdRng::seed_from_u64(1);
        assert_eq!(
            policy(WhenFull::Wait).pick(&need, &among, &mut draw),
            Some(1)
        );
        assert_eq!(
            policy(WhenFull::Move).pick(&need, &among, &mut draw),
            Some(0)
        );
        assert_eq!(
            policy(WhenFull::Wait).pick(&need, &among[..1], &mut draw),
            Some(0),
            "its endpoint is gone"
        );
    }

    #[test]
    fn garbage_in_the_cookie_is_no_key() {
        let caller = Caller {
            tenant: "t".into(),
            address: [10, 0, 0, 1].into(),
        };
        for garbage in [
            "tabane=",
            "tabane=zzzzzzzzzzzzzzzz",
            "tabane=+123456789abcdef",
            "other=1",
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("cookie", garbage.parse().unwrap());
            let ask = Ask {
                method: &Method::GET,
                path: "/",
                query: None,
                headers: &headers,
                caller: &caller,
            };
            assert_eq!(
                policy(WhenFull::Wait).key(&ask, None),
                Key::None,
                "{garbage}"
            );
        }
    }
}
