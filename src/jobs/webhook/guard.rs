//! Where letters may go. A client names the address and the gateway connects from inside: without a guard, any client could
//! reach what only the gateway's own network can.
//!
//! Rules.
//! - The operator lists hosts (`hooks.example.com`, `*.example.com`) and ranges of addresses (`10.0.0.0/8`). A URL with a
//!   name has to match a listed name; one with an address has to be in a listed range. Ports are free.
//! - A listed name says nothing of where it leads: *every* address it stands for has to be public, or in a listed range. The
//!   connection goes to the addresses that were checked; the name is not asked again.
//! - `https`, unless the host is listed by its full name or the address by its range: a letter in the clear is for networks
//!   that the operator had in mind, not for whatever is below a suffix.
//! - No user or password, and no spelling of a host that two programs could read as two hosts.

use crate::config::host::{host_name, range};
use http::Uri;
use http::uri::Scheme;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longer addresses are no addresses.
const LONGEST: usize = 2048;

/// Ranges that are not the public internet. What is not unicast of the IPv6 internet (`2000::/3`) is not public either.
///
/// Source: IANA's registries of special-purpose addresses (RFC 6890 and its updates).
const SPECIAL_V4: [(Ipv4Net, &str); 16] = [
    (v4(0, 0, 0, 0, 8), "this network"),
    (v4(10, 0, 0, 0, 8), "private"),
    (v4(100, 64, 0, 0, 10), "shared by a carrier"),
    (v4(127, 0, 0, 0, 8), "loopback"),
    (v4(169, 254, 0, 0, 16), "link-local"),
    (v4(172, 16, 0, 0, 12), "private"),
    (v4(192, 0, 0, 0, 24), "for protocols"),
    (v4(192, 0, 2, 0, 24), "for documentation"),
    (v4(192, 88, 99, 0, 24), "a relay of 6to4"),
    (v4(192, 168, 0, 0, 16), "private"),
    (v4(198, 18, 0, 0, 15), "for benchmarks"),
    (v4(198, 51, 100, 0, 24), "for documentation"),
    (v4(203, 0, 113, 0, 24), "for documentation"),
    (v4(224, 0, 0, 0, 4), "multicast"),
    (v4(255, 255, 255, 255, 32), "broadcast"),
    (v4(240, 0, 0, 0, 4), "reserved"),
];

const SPECIAL_V6: [(Ipv6Net, &str); 8] = [
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 128), "unspecified"),
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), "loopback"),
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), "private"),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), "link-local"),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), "multicast"),
    // Teredo, benchmarks, ORCHID: each leads somewhere else, or nowhere.
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), "for protocols"),
    (
        v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32),
        "for documentation",
    ),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), "for documentation"),
];

const INTERNET_V6: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

/// Where letters may go.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    /// Names in lower case.
    names: Vec<Name>,
    ranges: Vec<IpNet>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    /// This one.
    Host(String),
    /// Whatever ends so; it begins with the dot.
    Below(String),
}

// === impl Guard ===

impl Guard {
    /// Reads what the operator listed. Nothing listed: letters may go nowhere.
    ///
    /// Shapes: `hooks.example.com` · `*.example.com` · `10.0.0.0/8` · `10.1.2.3` · `fd00::/8`.
    /// Errors: the first entry that is none of these, in a sentence.
    pub fn new<'a>(allow: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut guard = Guard::default();
        for entry in allow {
            if let Some(range) = range(entry) {
                guard.ranges.push(range);
                continue;
            }
            let (below, name) = match entry.strip_prefix("*.") {
                Some(name) => (true, name),
                None => (false, entry),
            };
            let name = host_name(name).ok_or_else(|| {
                format!(
                    "`{entry}` is neither a host (`hooks.example.com`, `*.example.com`; other scripts as `xn--…`) \
                     nor a range of addresses (`10.0.0.0/8`)"
                )
            })?;
            guard.names.push(match below {
                true => Name::Below(format!(".{name}")),
                false => Name::Host(name),
            });
        }
        Ok(guard)
    }

    /// Whether a letter may go to this URL, as far as can be told without asking for its addresses: for submissions.
    ///
    /// Errors: why not, in a sentence for whoever gave the URL.
    pub fn check_url(&self, url: &str) -> Result<(), String> {
        self.target(url).map(drop)
    }

    /// The same, and the URL as it is connected to: whoever connects has to read it as it was read here.
    pub(super) fn target(&self, url: &str) -> Result<Uri, String> {
        if url.len() > LONGEST {
            return Err(format!("the URL is longer than {LONGEST} characters"));
        }
        let uri: Uri = url.parse().map_err(|_| "it is not a URL".to_owned())?;
        let clear = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => false,
            Some(scheme) if *scheme == Scheme::HTTP => true,
            Some(_) => return Err("the URL is neither http nor https".to_owned()),
            None => return Err("the URL has to begin with `https://`".to_owned()),
        };
        let authority = uri.authority().ok_or("the URL has no host")?;
        if authority.as_str().contains('@') {
            return Err("the URL holds a user or password".to_owned());
        }
        let after = &authority.as_str()[authority.host().len()..];
        if !after.is_empty() && authority.port_u16().is_none_or(|port| port == 0) {
            return Err("the URL has no port from 1 to 65535".to_owned());
        }
        let by_its_own = self.allows_host(authority.host())?;
        if clear && !by_its_own {
            return Err(format!(
                "letters to `{}` go over https only",
                authority.host()
            ));
        }
        Ok(uri)
    }

    /// Whether a letter may go to this address, which its host stands for.
    ///
    /// Errors: why not.
    pub fn check_address(&self, address: IpAddr) -> Result<(), String> {
        // How a dual-stack socket writes an IPv4 address: the connection goes to that one.
        let address = address.to_canonical();
        match not_public(address) {
            Some(what) if !self.has(address) => Err(format!(
                "its address {address} is {what}, and not in a listed range"
            )),
            _ => Ok(()),
        }
    }

    /// Whether the host is listed, and by its own name or range rather than by a suffix.
    fn allows_host(&self, host: &str) -> Result<bool, String> {
        let not_listed = || {
            format!(
                "letters may not go to `{host}`: the gateway's `webhooks.allow` does not list it"
            )
        };
        if let Some(address) = literal(host) {
            return match self.has(address.to_canonical()) {
                true => Ok(true),
                false => Err(not_listed()),
            };
        }
        let name = host_name(host).ok_or_else(|| {
            format!(
                "`{host}` is no host: write a name in ASCII, or an address as `192.0.2.1` or `[2001:db8::1]`"
            )
        })?;
        let mut found = Err(not_listed());
        for listed in &self.names {
            match listed {
                Name::Host(host) if *host == name => return Ok(true),
                Name::Below(suffix) if name.ends_with(suffix) => found = Ok(false),
                _ => {}
            }
        }
        found
    }

    fn has(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(&address))
    }
}

/// What an address is for, if not for the public internet.
fn not_public(address: IpAddr) -> Option<&'static str> {
    let address = match address {
        IpAddr::V4(address) => {
            let mut special = SPECIAL_V4.iter();
            return special
                .find(|(range, _)| range.contains(&address))
                .map(|(_, what)| *what);
        }
        IpAddr::V6(address) => address,
    };
    if let Some(inner) = inner_v4(address) {
        return not_public(inner.into());
    }
    let special = SPECIAL_V6
        .iter()
        .find(|(range, _)| range.contains(&address));
    match special {
        Some((_, what)) => Some(what),
        None if INTERNET_V6.contains(&address) => None,
        None => Some("not of the public internet"),
    }
}

/// The IPv4 address that a packet to this one ends up at: by NAT64 (RFC 6052) or 6to4 (RFC 3056).
fn inner_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let joined = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(joined(high, low)),
        [0x2002, high, low, ..] => Some(joined(high, low)),
        _ => None,
    }
}

/// An address as a URL writes it.
fn literal(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[') {
        Some(rest) => Some(IpAddr::V6(rest.strip_suffix(']')?.parse().ok()?)),
        None => Some(IpAddr::V4(host.parse().ok()?)),
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

const fn v6(parts: [u16; 8], length: u8) -> Ipv6Net {
    let [a, b, c, d, e, f, g, h] = parts;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(allow: &[&str]) -> Guard {
        Guard::new(allow.iter().copied()).unwrap()
    }

    #[test]
    fn a_letter_goes_to_what_is_listed_and_nowhere_else() {
        let guard = guard(&[
            "hooks.example.com",
            "*.studio.example",
            "10.0.0.0/8",
            "fd12::/16",
            "8.8.8.8",
        ]);
        for url in [
            "https://hooks.example.com",
            "https://hooks.example.com/a?b=c#d",
            "https://hooks.example.com:8443/a",
            "HTTPS://Hooks.EXAMPLE.com/",
            "https://hooks.example.com./a",
            "http://hooks.example.com/a",
            "https://a.studio.example/",
            "https://a.b.Studio.example/",
            "http://10.1.2.3/",
            "https://10.1.2.3:1/",
            "http://[fd12::1]:8080/a",
            "http://[::ffff:10.1.2.3]/",
            "https://8.8.8.8/",
        ] {
            assert_eq!(guard.check_url(url), Ok(()), "{url}");
        }
        for (url, why) in [
            ("", "not a URL"),
            ("hooks.example.com", "begin with `https://`"),
            ("/a", "begin with `https://`"),
            ("//hooks.example.com/a", "begin with `https://`"),
            ("ftp://hooks.example.com/", "neither http nor https"),
            ("file:///etc/passwd", "not a URL"),
            ("https://", "not a URL"),
            ("https:///a", "not a URL"),
            ("https://a@hooks.example.com/", "user or password"),
            ("https://a:b@hooks.example.com/", "user or password"),
            (
                "https://hooks.example.com@evil.example/",
                "user or password",
            ),
            ("https://hooks.example.com:0/", "no port"),
            ("https://hooks.example.com:/", "no port"),
            ("https://hooks.example.com:65536/", "no"),
            ("https://evil.example/", "does not list it"),
            ("https://example.com/", "does not list it"),
            ("https://xhooks.example.com/", "does not list it"),
            (
                "https://hooks.example.com.evil.example/",
                "does not list it",
            ),
            ("https://evil.example/hooks.example.com", "does not list it"),
            ("https://studio.example/", "does not list it"),
            ("https://evilstudio.example/", "does not list it"),
            ("http://a.studio.example/", "over https only"),
            ("https://hooks.example.com../", "is no host"),
            ("https://.studio.example/", "is no host"),
            ("https://a..studio.example/", "is no host"),
            ("https://hooks.example.com%2e/", "no"),
            ("https://hooks.example.com\\@evil.example/", "not a URL"),
            ("https://hooks .example.com/", "not a URL"),
            ("https://hooks.example.com\n/", "not a URL"),
            ("https://hööks.example.com/", "not a URL"),
            ("http://11.0.0.1/", "does not list it"),
            ("http://127.0.0.1/", "does not list it"),
            ("http://[::1]/", "does not list it"),
            ("http://[::ffff:127.0.0.1]/", "does not list it"),
            ("http://[fe80::1%25eth0]/", "no"),
            ("http://localhost/", "does not list it"),
            // Addresses to resolvers, names to others.
            ("http://10.1/", "is no host"),
            ("http://127.1/", "is no host"),
            ("http://2130706433/", "is no host"),
            ("http://0x7f000001/", "is no host"),
            ("http://0x7f.1/", "is no host"),
            ("http://0177.0.0.1/", "is no host"),
            ("http://010.0.0.1/", "is no host"),
            ("http://10.0.0.1./", "is no host"),
            ("http://10.0.0.256/", "is no host"),
            ("http://0x/", "is no host"),
        ] {
            let told = guard.check_url(url).expect_err(url);
            assert!(told.contains(why), "{url}: {told}");
        }
        let long = format!("https://hooks.example.com/{}", "a".repeat(LONGEST));
        assert!(guard.check_url(&long).unwrap_err().contains("longer"));
    }

    #[test]
    fn without_a_list_letters_go_nowhere() {
        for url in [
            "https://hooks.example.com/",
            "https://8.8.8.8/",
            "http://127.0.0.1/",
        ] {
            assert!(Guard::default().check_url(url).is_err());
        }
    }

    #[test]
    fn names_in_other_scripts_are_listed_as_they_are_asked_for() {
        let guard = guard(&["xn--hks-sna.example", "*.XN--P1AI"]);
        for url in [
            "https://xn--hks-sna.example/",
            "https://XN--HKS-SNA.example/",
            "https://a.xn--p1ai/",
        ] {
            assert_eq!(guard.check_url(url), Ok(()), "{url}");
        }
        // A letter that only looks the same.
        assert!(guard.check_url("https://xn--hks-tna.example/").is_err());
    }

    #[test]
    fn an_entry_that_could_not_be_meant_is_refused() {
        for entry in [
            "",
            "*",
            "*.",
            ".",
            "a..b",
            "*.*.example.com",
            "a.*.com",
            "https://hooks.example.com",
            "hooks.example.com/a",
            "hooks.example.com:443",
            "10.0.0.0/33",
            "10.0.0/8",
            "127.1",
            "hööks.example",
            "a b",
            "[::1]",
        ] {
            let told = Guard::new([entry]).expect_err(entry);
            assert!(told.contains("neither a host"), "{told}");
        }
    }

    #[test]
    fn an_address_that_is_not_public_is_denied_unless_its_range_is_listed() {
        let nothing = Guard::default();
        for (address, what) in [
            ("0.0.0.0", "this network"),
            ("0.1.2.3", "this network"),
            ("10.0.0.1", "private"),
            ("100.64.0.1", "carrier"),
            ("100.127.255.255", "carrier"),
            ("127.0.0.1", "loopback"),
            ("127.255.255.254", "loopback"),
            ("169.254.169.254", "link-local"),
            ("172.16.0.1", "private"),
            ("172.31.255.255", "private"),
            ("192.0.0.8", "protocols"),
            ("192.0.2.1", "documentation"),
            ("192.88.99.1", "6to4"),
            ("192.168.1.1", "private"),
            ("198.19.255.255", "benchmarks"),
            ("198.51.100.1", "documentation"),
            ("203.0.113.1", "documentation"),
            ("224.0.0.1", "multicast"),
            ("239.255.255.255", "multicast"),
            ("240.0.0.1", "reserved"),
            ("255.255.255.255", "broadcast"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("::127.0.0.1", "not of the public internet"),
            ("::ffff:127.0.0.1", "loopback"),
            ("::ffff:169.254.169.254", "link-local"),
            ("::ffff:0:127.0.0.1", "not of the public internet"),
            ("64:ff9b::7f00:1", "loopback"),
            ("64:ff9b::169.254.169.254", "link-local"),
            ("64:ff9b:1::808:808", "not of the public internet"),
            ("100::1", "not of the public internet"),
            ("2001::1", "protocols"),
            ("2001:db8::1", "documentation"),
            ("2002:7f00:1::1", "loopback"),
            ("2002:a9fe:a9fe::1", "link-local"),
            ("2002:c0a8:101::", "private"),
            ("3fff::1", "documentation"),
            ("4000::1", "not of the public internet"),
            ("5f00::1", "not of the public internet"),
            ("fc00::1", "private"),
            ("fd00::1", "private"),
            ("fe80::1", "link-local"),
            ("fec0::1", "not of the public internet"),
            ("ff02::1", "multicast"),
        ] {
            let parsed: IpAddr = address.parse().unwrap();
            let told = nothing.check_address(parsed).expect_err(address);
            assert!(told.contains(what), "{address}: {told}");
            let listed = guard(&[&parsed.to_canonical().to_string()]);
            assert_eq!(listed.check_address(parsed), Ok(()), "{address}");
        }
    }

    #[test]
    fn public_addresses_need_no_range() {
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.1",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.1",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::1",
            "2001:200::1",
            "2606:4700::1111",
            "2a00::1",
        ] {
            let parsed: IpAddr = address.parse().unwrap();
            assert_eq!(Guard::default().check_address(parsed), Ok(()), "{address}");
        }
    }

    #[test]
    fn a_range_opens_itself_only() {
        let guard = guard(&["10.0.0.0/8"]);
        for denied in ["11.0.0.1", "127.0.0.1", "64:ff9b::7f00:1"] {
            let parsed: IpAddr = denied.parse().unwrap();
            let told = guard.check_address(parsed);
            assert_eq!(told.is_ok(), denied == "11.0.0.1", "{denied}");
        }
        // By way of a translator is another way than the operator listed.
        assert!(
            guard
                .check_address("2002:a00:1::1".parse().unwrap())
                .is_err()
        );
        assert!(
            guard
                .check_address("64:ff9b::a00:1".parse().unwrap())
                .is_err()
        );
        assert!(
            guard
                .check_address("::ffff:10.0.0.1".parse().unwrap())
                .is_ok()
        );
    }
}
