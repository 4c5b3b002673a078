//! Who may come in: how many connections there may be, in all and of one address.

use super::head::Fault;
use crate::config::plan::LimitsPlan;
use crate::dispatch::Dispatch;
use http::StatusCode;
use parking_lot::Mutex;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Descriptors that are never given to clients: listeners, the admin's connections, probes, files, farewells.
const RESERVE: u64 = 64;

/// How many clients at once may be told that there is no place for them; more are told nothing.
const FAREWELLS: usize = 24;

/// Counts the connections that are open.
pub struct Doors {
    dispatch: Dispatch,
    /// As many as the process has descriptors for.
    most: usize,
    inside: Mutex<Inside>,
    farewells: Arc<Semaphore>,
}

#[derive(Default)]
struct Inside {
    all: usize,
    of: HashMap<IpAddr, usize>,
}

/// One connection's place, given back when it is dropped.
pub(super) struct Pass {
    doors: Arc<Doors>,
    from: IpAddr,
}

// === impl Doors ===

impl Doors {
    pub(super) fn new(dispatch: Dispatch) -> Arc<Self> {
        Arc::new(Doors {
            dispatch,
            most: affordable(descriptors()),
            inside: Mutex::default(),
            farewells: Arc::new(Semaphore::new(FAREWELLS)),
        })
    }

    /// The bounds of now.
    pub(super) fn limits(&self) -> LimitsPlan {
        let world = self.dispatch.world();
        world.map_or_else(LimitsPlan::default, |world| world.plan.limits)
    }

    /// How many connections are open.
    pub fn count(&self) -> usize {
        self.inside.lock().all
    }

    /// Lets a client in.
    ///
    /// Errors: there are as many as may be.
    pub(super) fn enter(self: &Arc<Self>, from: SocketAddr) -> Result<Pass, Fault> {
        let limits = self.limits();
        let from = from.ip();
        let full = |why| Fault {
            status: StatusCode::SERVICE_UNAVAILABLE,
            why,
        };
        let mut inside = self.inside.lock();
        if inside.all >= limits.connections.min(self.most) {
            return Err(full("the gateway has as many connections as it may"));
        }
        let of = inside.of.entry(from).or_default();
        if *of >= limits.connections_per_address {
            return Err(full(
                "there are as many connections from your address as may be",
            ));
        }
        *of += 1;
        inside.all += 1;
        drop(inside);
        Ok(Pass {
            doors: self.clone(),
            from,
        })
    }

    /// Leave to tell one who finds no place why; `None` while as many are told.
    pub(super) fn farewell(&self) -> Option<OwnedSemaphorePermit> {
        self.farewells.clone().try_acquire_owned().ok()
    }

    /// Counts one that was turned away before its request was read.
    pub(super) fn turned_away(&self, from: SocketAddr, fault: Fault) {
        self.dispatch.metrics().turned_away(fault.status.as_u16());
        tracing::info!(client = %from.ip(), status = fault.status.as_u16(), why = fault.why, "client turned away");
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut inside = self.doors.inside.lock();
        inside.all -= 1;
        if let Some(of) = inside.of.get_mut(&self.from) {
            *of -= 1;
            if *of == 0 {
                inside.of.remove(&self.from);
            }
        }
    }
}

/// How many connections there are descriptors for: each may need one more, to its node.
fn affordable(descriptors: Option<u64>) -> usize {
    let Some(descriptors) = descriptors else {
        return usize::MAX;
    };
    let reserve = RESERVE.min(descriptors / 2);
    usize::try_from((descriptors - reserve) / 2)
        .unwrap_or(usize::MAX)
        .max(1)
}

/// How many descriptors the process may have, after asking for as many as it is allowed; `None`: any number.
fn descriptors() -> Option<u64> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: maximum,
        maximum,
    };
    // Who may not raise it works with what there is.
    let _ = setrlimit(Resource::Nofile, all);
    getrlimit(Resource::Nofile).current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_never_take_the_last_descriptors() {
        for (descriptors, clients) in [
            (None, usize::MAX),
            (Some(1024), 480),
            (Some(256), 96),
            (Some(100), 25),
            (Some(3), 1),
            (Some(0), 1),
        ] {
            assert_eq!(affordable(descriptors), clients, "{descriptors:?}");
        }
    }
}
