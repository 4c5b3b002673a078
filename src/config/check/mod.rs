//! What was typed gets its meaning: names are resolved, defaults filled in, and everything that
//! makes no sense is told, all of it at once, each at its place and with a hint.
//!
//! Nothing here stops at the first problem. A part that is at fault is left out or replaced by its
//! default, so that the rest can be checked; the plan counts only when no problem was found.

mod access;
mod block;
mod cors;
mod fleet;
mod jobs;
mod listen;
mod placement;
mod pools;
mod route;
mod service;
mod sharing;
mod url;
mod value;
mod webhooks;

use super::findings::Findings;
use super::merge::All;
use super::plan::Plan;
use super::typed::{At, Field};
use std::path::PathBuf;
use std::sync::Arc;
use tabane_api::Registry;

/// Makes a plan, and names the further files (with their bytes) that it depends on.
///
/// The plan's hash is left empty: only the loader knows what was read.
pub(crate) fn check(
    all: &All,
    registry: &Registry,
    findings: &Findings,
) -> (Plan, Vec<(PathBuf, Vec<u8>)>) {
    let mut fleet = fleet::fleet(all, findings);
    sharing::sharing(all, &fleet, findings);
    let mut pools = pools::pools(all, &mut fleet, findings);
    let services = service::services(all, &mut fleet, &mut pools, registry, findings);
    let mut listeners = listen::listeners(all, &services, findings);
    let admin = access::admin(all, findings);
    listen::no_clash(all, &mut listeners, admin.as_ref(), findings);
    let tenants = access::tenants(all, findings);
    let anonymous = access::anonymous(all, &listeners, &tenants, findings);
    let routes = route::routes(all, &services, &listeners, findings);
    pools.warn_of_unused(findings);
    fleet.warn_of_unused(findings);
    let probed_by = service::probed_by(&services, &pools, fleet.endpoints.len());
    for (endpoint, probed_by) in fleet.endpoints.iter_mut().zip(probed_by) {
        endpoint.probed_by = probed_by;
        if let Some(service) = probed_by.filter(|_| !endpoint.slots_said) {
            endpoint.slots = services[service].plan.kind.slots();
        }
    }
    let own = |typed: &Field<String>, paths| {
        let At { spot, value } = typed.at(all.root)?;
        url::own(value, paths, spot, findings).map(Arc::from)
    };
    let plan = Plan {
        hash: String::new(),
        listeners: listeners.into_iter().map(|l| l.plan).collect(),
        admin: admin.map(|a| a.plan),
        data_dir: access::data_dir(all, findings),
        public_url: own(&all.public_url, true),
        nodes_reach_us_at: own(&all.nodes_reach_us_at, false),
        webhooks: webhooks::webhooks(&all.webhooks, all.root, findings),
        tenants,
        anonymous,
        log: access::log(all),
        limits: access::limits(all, findings),
        nodes: fleet.nodes,
        endpoints: fleet.endpoints,
        pools: pools.plans,
        services: services.into_iter().map(|s| s.plan).collect(),
        routes,
    };
    (plan, fleet.files)
}
