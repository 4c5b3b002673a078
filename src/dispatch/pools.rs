use crate::fleet::Fleet;
use crate::schedule::PoolId;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tabane_api::EndpointId;

/// The pools as they are now: asked when a lease is granted, so that whoever waits sees a new node at once.
#[derive(Debug, Default)]
pub struct Pools {
    ids: HashMap<Arc<str>, PoolId>,
    members: HashMap<PoolId, Vec<(EndpointId, u32)>>,
}

// === impl Pools ===

impl Pools {
    /// The number that stands for a pool's name, for as long as the gateway runs.
    pub fn id(&mut self, name: &Arc<str>) -> PoolId {
        let next = PoolId(self.ids.len() as u32);
        *self.ids.entry(name.clone()).or_insert(next)
    }

    /// Who is in a pool, each with its weight; nobody when it has left.
    pub fn members(&self, pool: PoolId) -> &[(EndpointId, u32)] {
        self.members
            .get(&pool)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// Which domain each pool belongs to: pools that share a node, directly or by others, belong to the same, which is
    /// called by the lowest of their numbers.
    pub fn domains(&self, fleet: &Fleet) -> HashMap<PoolId, u32> {
        let mut domains: BTreeMap<PoolId, u32> = self.members.keys().map(|p| (*p, p.0)).collect();
        let mut of_node: BTreeMap<Arc<str>, Vec<PoolId>> = BTreeMap::new();
        for (pool, members) in &self.members {
            for endpoint in members.iter().filter_map(|(id, _)| fleet.get(*id)) {
                of_node
                    .entry(endpoint.node().name.clone())
                    .or_default()
                    .push(*pool);
            }
        }
        for pools in of_node.values() {
            let all: Vec<u32> = pools.iter().map(|pool| domains[pool]).collect();
            let Some(least) = all.iter().min().copied() else {
                continue;
            };
            for domain in domains.values_mut().filter(|domain| all.contains(domain)) {
                *domain = least;
            }
        }
        domains.into_iter().collect()
    }

    /// Puts these pools in place of all others.
    pub fn replace(&mut self, pools: impl IntoIterator<Item = (PoolId, Vec<(EndpointId, u32)>)>) {
        self.members = pools.into_iter().collect();
    }
}
