//! Where clients connect.

use super::access::AdminListener;
use super::service::Checked;
use super::value;
use crate::config::findings::{Findings, Spot};
use crate::config::merge::All;
use crate::config::plan::ListenerPlan;
use crate::config::problem::{shorten, suggest};
use crate::config::typed::{At, Short};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// A listener and its place.
pub(crate) struct Listener {
    pub(crate) plan: ListenerPlan,
    pub(crate) spot: Spot,
    /// It names a service, known or not.
    pub(crate) has_service: bool,
}

/// All listeners; 127.0.0.1:8080 when none was typed.
pub(crate) fn listeners(all: &All, services: &[Checked<'_>], findings: &Findings) -> Vec<Listener> {
    let mut listeners = Vec::new();
    for field in &all.listen {
        let Some(At {
            spot,
            value: Short(typed),
        }) = field.at(all.root)
        else {
            continue;
        };
        let service = typed.service.at(spot).and_then(|name| {
            let found = services.iter().find(|s| s.name.value == *name.value);
            let typed = all.services.iter().any(|(n, _)| n.value == *name.value);
            if !typed {
                let known = all.services.iter().map(|(name, _)| name.value.as_str());
                let what = format!("there is no service `{}`", shorten(name.value));
                findings.problem(name.spot, what, suggest(name.value, known));
            }
            found.map(|service| service.index)
        });
        let Some(At {
            spot: address_spot,
            value: address,
        }) = typed.address.at(spot)
        else {
            if typed.address.is_missing() {
                findings.missing(spot, "address", "such as `0.0.0.0:8080`");
            }
            continue;
        };
        if let Some(address) = value::address(address, address_spot, findings) {
            listeners.push(Listener {
                plan: ListenerPlan { address, service },
                spot: address_spot,
                has_service: !typed.service.is_missing(),
            });
        }
    }
    if all.listen.is_empty() {
        listeners.push(Listener {
            plan: ListenerPlan {
                address: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
                service: None,
            },
            spot: all.root,
            has_service: false,
        });
    }
    listeners
}

/// Tells of addresses that cannot both be listened on, the operator's among them.
pub(crate) fn no_clash(
    all: &All,
    listeners: &mut [Listener],
    admin: Option<&AdminListener>,
    findings: &Findings,
) {
    let mut before: Vec<(SocketAddr, Spot, &str)> = Vec::new();
    let admin = admin.map(|a| (a.plan.address, a.spot, "the admin listener"));
    let listeners = listeners
        .iter()
        .map(|l| (l.plan.address, l.spot, "a listener"));
    for (address, spot, what) in listeners.chain(admin) {
        if let Some((other, at, whose)) = before.iter().find(|(other, ..)| clash(*other, address)) {
            // A default stands nowhere: what was typed is then at fault.
            let (spot, mine, theirs, whose, hint) = match (spot == all.root, *at == all.root) {
                (true, _) => (*at, *other, address, what, unless(what)),
                (_, true) => (spot, address, *other, *whose, unless(whose)),
                _ => (
                    spot,
                    address,
                    *other,
                    *whose,
                    format!("it is at {}", findings.show(*at)),
                ),
            };
            findings.problem(
                spot,
                format!("{mine} is taken by {whose} on {theirs}"),
                hint,
            );
        }
        before.push((address, spot, what));
    }
}

/// How to move a listener that is there by default.
fn unless(whose: &str) -> String {
    match whose {
        "the admin listener" => {
            "that is its default; say `admin: ADDRESS`, or `admin: off`".to_owned()
        }
        _ => "that is its default; say `listen: [ADDRESS]`".to_owned(),
    }
}

/// Whether both cannot be listened on. Port 0 takes any free one. `[::]` takes IPv4 too on most systems.
fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    let takes_all =
        |ip: IpAddr, other: IpAddr| ip.is_unspecified() && (ip.is_ipv6() || other.is_ipv4());
    a.port() != 0
        && a.port() == b.port()
        && (a.ip() == b.ip() || takes_all(a.ip(), b.ip()) || takes_all(b.ip(), a.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_clash_when_both_cannot_be_listened_on() {
        let check = |a: &str, b: &str, expected| {
            let (a, b) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!(clash(a, b), expected, "{a} {b}");
            assert_eq!(clash(b, a), expected, "{b} {a}");
        };
        check("127.0.0.1:80", "127.0.0.1:80", true);
        check("127.0.0.1:80", "0.0.0.0:80", true);
        check("127.0.0.1:80", "[::]:80", true);
        check("127.0.0.1:80", "127.0.0.2:80", false);
        check("127.0.0.1:80", "127.0.0.1:81", false);
        check("[::1]:80", "0.0.0.0:80", false);
        check("0.0.0.0:0", "0.0.0.0:0", false);
    }
}
