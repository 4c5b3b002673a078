//! The policies that ship: each a small file with its own block in the YAML.

mod fastest;
mod first;
mod hash;
mod keys;
mod least_loaded;
mod matched;
mod round_robin;
mod sticky;

use tabane_api::Registry;

/// Adds all of them to a registry.
pub fn register(registry: Registry) -> Registry {
    registry
        .policy::<least_loaded::LeastLoaded>()
        .policy::<matched::Match>()
        .policy::<fastest::Fastest>()
        .policy::<round_robin::RoundRobin>()
        .policy::<first::First>()
        .policy::<hash::Hash>()
        .policy::<sticky::Sticky>()
}

#[cfg(test)]
pub(super) mod testing {
    use tabane_api::{Candidate, EndpointId, NodeFacts, hash};

    pub(crate) static NOBODY: std::sync::LazyLock<NodeFacts> =
        std::sync::LazyLock::new(NodeFacts::default);

    /// Candidates named `a`, `b`, …, each (weight, slots, used).
    pub(crate) fn candidates(of: &[(u32, u32, u32)]) -> Vec<Candidate<'static>> {
        const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let one = |(i, &(weight, slots, used)): (usize, &(u32, u32, u32))| Candidate {
            id: EndpointId(i as u32),
            name: NAMES[i],
            hash: hash(NAMES[i].as_bytes()),
            weight,
            slots,
            used,
            passing: 0,
            held: true,
            terms: tabane_api::Terms::default(),
            node: &NOBODY,
        };
        of.iter().enumerate().map(one).collect()
    }
}
