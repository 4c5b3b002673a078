use http::{HeaderMap, Method};
use std::net::IpAddr;
use std::sync::Arc;

/// The tenant of a caller who showed no key.
pub const ANONYMOUS: &str = "anonymous";

/// Who is asking.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The tenant's name in the YAML file, or [`ANONYMOUS`].
    pub tenant: Arc<str>,
    /// The address that the connection came from.
    pub address: IpAddr,
}

/// A request's head, as a kind or a policy sees it.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The method.
    pub method: &'a Method,
    /// The normalised path: what the route was matched on.
    pub path: &'a str,
    /// The query, without its question mark.
    pub query: Option<&'a str>,
    /// The headers as they came.
    pub headers: &'a HeaderMap,
    /// Who is asking.
    pub caller: &'a Caller,
}

impl<'a> Ask<'a> {
    /// The value of a header that is text.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The value of a cookie (RFC 6265, 5.4: `name=value` pairs joined by `; `, in any number of headers).
    pub fn cookie(&self, name: &str) -> Option<&'a str> {
        self.headers
            .get_all(http::header::COOKIE)
            .iter()
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find_map(|(key, value)| (key == name).then_some(value))
    }

    /// The first value of a query parameter, as it was sent (percent signs and all).
    pub fn query_value(&self, name: &str) -> Option<&'a str> {
        self.query?
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .find_map(|(key, value)| (key == name).then_some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_and_query_values_are_found() {
        let mut headers = HeaderMap::new();
        headers.append("cookie", "a=1; session=x=y".parse().unwrap());
        headers.append("cookie", "b=2".parse().unwrap());
        let caller = Caller {
            tenant: ANONYMOUS.into(),
            address: [127, 0, 0, 1].into(),
        };
        let ask = Ask {
            method: &Method::GET,
            path: "/",
            query: Some("q=1&flag&q=2"),
            headers: &headers,
            caller: &caller,
        };
        assert_eq!(ask.cookie("session"), Some("x=y"));
        assert_eq!(ask.cookie("b"), Some("2"));
        assert_eq!(ask.cookie("c"), None);
        assert_eq!(ask.query_value("q"), Some("1"));
        assert_eq!(ask.query_value("flag"), Some(""));
        assert_eq!(ask.query_value("none"), None);
    }
}
