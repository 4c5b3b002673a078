//! How hosts and ranges of addresses are written: one reading for the file and for whoever follows it.

use ipnet::IpNet;
use std::net::IpAddr;

/// A name in lower case, without the dot that ends a full one. `None`: it is no name, or a name to one program and an
/// address to another: resolvers take `127.1`, `0x7f.1` and `2130706433` for addresses.
pub fn host_name(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    let number = last.bytes().all(|b| b.is_ascii_digit())
        || last
            .strip_prefix("0x")
            .is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
    (name.len() <= 253 && name.split('.').all(label) && !number).then_some(name)
}

/// A range of addresses, or one address as the range of itself.
pub fn range(text: &str) -> Option<IpNet> {
    let whole = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse::<IpNet>().ok().or_else(whole)
}
