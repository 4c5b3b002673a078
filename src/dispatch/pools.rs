use crate::schedule::PoolId;
use std::collections::HashMap;
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

    /// Puts these pools in place of all others.
    pub fn replace(&mut self, pools: impl IntoIterator<Item = (PoolId, Vec<(EndpointId, u32)>)>) {
        self.members = pools.into_iter().collect();
    }
}
