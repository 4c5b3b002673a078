//! What has to be true of a dispatch after every step, by books that are kept beside it.

use super::book::{Farm, Held, TICK, Was, now};
use super::file::File;
use crate::config::diff;
use crate::config::plan::Plan;
use crate::dispatch::{Dispatch, ListenerKey, NodeView, World};
use crate::fleet::{Endpoint, State};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl Farm {
    pub(super) fn check(&mut self) {
        self.check_slots();
        self.check_waiting();
        self.check_revoked();
        let upstreams = self.dispatch.0.core.lock().upstreams.len();
        assert_eq!(
            upstreams,
            self.endpoints().len(),
            "an endpoint and its way to it come and go together"
        );
        for node in self.dispatch.nodes() {
            let marked = self.marks.contains(&node.name);
            assert_eq!(
                node.drained_by_operator, marked,
                "the mark of `{}`",
                node.name
            );
            let kept_back = marked || node.drained_by_file;
            let works = |state| matches!(state, "up" | "trial" | "ejected" | "unproven");
            let working = node.endpoints.iter().find(|end| works(end.state));
            assert!(!kept_back || working.is_none(), "drained: {working:?}");
        }
        let used = self.file.used();
        let all = self.endpoints();
        for name in used.keys() {
            assert!(all.contains_key(name), "`{name}` is wanted, and not there");
        }
        for (name, is) in &all {
            let held = self
                .held
                .iter()
                .any(|held| held.lease.upstream().id == is.id);
            let leaves = is.state == State::Leaving;
            assert_eq!(
                leaves,
                !used.contains_key(name),
                "`{name}` is {:?}",
                is.state
            );
            assert!(
                !leaves || held,
                "`{name}` left, holds nothing, and is still there"
            );
        }
    }

    fn check_slots(&mut self) {
        let core = self.dispatch.0.core.lock();
        for endpoint in core.rooms.fleet.all() {
            let most = self.most.entry(endpoint.id()).or_default();
            // A file may make it smaller than what it holds; then nothing is added until it is below.
            *most = if endpoint.used() <= endpoint.slots() {
                endpoint.slots()
            } else {
                (*most).max(endpoint.slots())
            };
            let (name, used) = (endpoint.name(), endpoint.used());
            assert!(
                used <= *most,
                "`{name}`: {used} of {} slots",
                endpoint.slots()
            );
            let ours = |held: &&Held| held.lease.upstream().id == endpoint.id();
            let at_work: u32 = self.held.iter().filter(ours).map(|held| held.slots).sum();
            let passing = self
                .held
                .iter()
                .filter(ours)
                .filter(|held| held.slots == 0)
                .count();
            assert_eq!(
                (endpoint.at_work(), endpoint.passing() as usize),
                (at_work, passing),
                "`{name}`"
            );
        }
    }

    fn check_waiting(&self) {
        let core = self.dispatch.0.core.lock();
        assert_eq!(core.rooms.schedule.waiting(), self.waiting.len());
        assert_eq!(core.waiters.len(), self.waiting.len());
        for waiting in &self.waiting {
            for member in self.file.pools.get(&waiting.pool).into_iter().flatten() {
                let endpoint = core
                    .rooms
                    .fleet
                    .by_name(member.0)
                    .and_then(|id| core.rooms.fleet.get(id));
                let room = |e: &&Endpoint| {
                    e.is_usable() && (waiting.slots == 0 || e.used() + waiting.slots <= e.slots())
                };
                let free = endpoint
                    .filter(room)
                    .map(|endpoint| endpoint.name().clone());
                assert_eq!(free, None, "someone waits for pool `{}`", waiting.pool);
            }
        }
    }

    fn check_revoked(&mut self) {
        for held in &mut self.held {
            let upstream = held.lease.upstream();
            let due = self.leaving.get(&upstream.id).copied();
            held.revoked |= due.is_some_and(|due| due + TICK <= now());
            let came = held.lease.revocation().came();
            if due.is_some_and(|due| due <= now() + TICK) && !held.revoked {
                held.revoked = came;
            }
            assert_eq!(
                came, held.revoked,
                "a lease on `{}` was told to end",
                upstream.name
            );
        }
        self.seen.revoked += self.held.iter().filter(|held| held.revoked).count();
    }

    /// What the file did not touch is as it was.
    pub(super) fn kept(&mut self, before: &BTreeMap<String, Was>) {
        let (after, used) = (self.endpoints(), self.file.used());
        for (name, was) in before.iter().filter(|(name, _)| used.contains_key(*name)) {
            let is = &after[name];
            assert_eq!(is.id, was.id, "`{name}` is another");
            assert!(
                is.at_work >= was.at_work && is.cooling == was.cooling,
                "`{name}` forgot what it holds"
            );
            let here = self.plan.endpoints.iter().find(|e| *e.name == **name);
            let same = here.is_some_and(|here| here.target == was.upstream.target);
            assert_eq!(
                Arc::ptr_eq(&is.upstream, &was.upstream),
                same,
                "the way to `{name}`"
            );
            let kept_back = |state| matches!(state, State::Draining | State::Leaving);
            if !same {
                self.seen.moved += 1;
                assert!(
                    matches!(is.state, State::Unproven | State::Draining),
                    "`{name}` is {:?}",
                    is.state
                );
            } else if !kept_back(is.state) && !kept_back(was.state) {
                self.seen.kept += 1;
                assert_eq!(is.state, was.state, "`{name}`");
            }
        }
    }

    /// Kinds and policies whose block is the same go on, with what they hold; others are new.
    pub(super) fn services_kept(&self, old: &File, before: &World) {
        let world = self.dispatch.world().unwrap();
        assert_eq!(world.generation, before.generation + 1);
        for service in &world.services {
            let name = &*service.plan.name;
            let (Some(was), Some(before)) = (old.services.get(name), before.service(name)) else {
                continue;
            };
            let is = &self.file.services[name];
            let kind = Arc::ptr_eq(&service.kind, &before.kind);
            let policy = Arc::ptr_eq(&service.policy, &before.policy);
            let same = (is.path == was.path, is.policy == was.policy);
            assert_eq!((kind, policy), same, "kind and policy of `{name}`");
        }
    }

    /// The diff names what differs, and nothing else.
    pub(super) fn compare_diff(&self, file: &File, plan: &Plan) {
        let told = diff(&self.plan, plan);
        assert_eq!(
            self.file.patched(&told, file),
            *file,
            "with what is named taken over: {told}"
        );
        let changed = &told.endpoints;
        let named = [&changed.added, &changed.changed, &changed.removed]
            .into_iter()
            .flatten();
        assert_eq!(
            named.cloned().collect::<BTreeSet<_>>(),
            self.file.differing_endpoints(file),
            "{told}"
        );
        let old = &self.file;
        let (pools, services) = (&told.pools.changed, &told.services.changed);
        assert!(
            pools.iter().all(|name| old.pools[name] != file.pools[name]),
            "{told}"
        );
        assert!(
            services
                .iter()
                .all(|name| old.services[name] != file.services[name]),
            "{told}"
        );
        let nodes = &told.nodes.changed;
        assert!(
            nodes
                .iter()
                .all(|name| old.nodes[name].drained != file.nodes[name].drained),
            "{told}"
        );
        assert_eq!(diff(plan, plan).to_string(), "nothing changed");
    }

    pub(super) fn endpoints(&self) -> BTreeMap<String, Was> {
        let core = self.dispatch.0.core.lock();
        let was = |endpoint: &Endpoint| Was {
            id: endpoint.id(),
            state: endpoint.state(),
            at_work: endpoint.at_work(),
            cooling: endpoint.cooling(),
            upstream: core.upstreams[&endpoint.id()].clone(),
        };
        core.rooms
            .fleet
            .all()
            .map(|endpoint| (endpoint.name().to_string(), was(endpoint)))
            .collect()
    }

    /// Everything of a dispatch that its file alone decides.
    pub(super) fn picture(&self, dispatch: &Dispatch) -> BTreeSet<String> {
        let mut picture = BTreeSet::new();
        let world = dispatch.world().unwrap();
        for (upstream, service) in dispatch.upstreams() {
            if self.file.used().contains_key(&*upstream.name) {
                let probed_by = service.map(|service| service.plan.name.clone());
                picture.insert(format!(
                    "way {} {} {probed_by:?}",
                    upstream.name,
                    upstream.target.authority()
                ));
            }
        }
        for service in dispatch.services() {
            picture.insert(format!(
                "service {} {} {} {}",
                service.name, service.policy, service.pool, service.queue_max
            ));
        }
        // Those that left and still work are shown too.
        let wanted = |node: &NodeView| self.file.nodes.contains_key(&node.name);
        for node in dispatch.nodes().into_iter().filter(wanted) {
            picture.insert(format!("node {} {}", node.name, node.drained_by_file));
        }
        for listener in world.plan.listeners.iter() {
            let key = ListenerKey {
                address: listener.address,
                nth: 0,
            };
            for path in ["/s0", "/s1", "/s1/free", "/s2", "/"] {
                let leads = world.route(&key, "h", path);
                let leads = leads.map(|(service, options)| (service.plan.name.clone(), options));
                picture.insert(format!("route {} {path} {leads:?}", listener.address));
            }
        }
        let core = dispatch.0.core.lock();
        for service in &world.services {
            for (id, weight) in core.rooms.pools.members(service.pool) {
                let endpoint = core.rooms.fleet.get(*id).unwrap();
                picture.insert(format!(
                    "member {} {} {weight}",
                    service.plan.name,
                    endpoint.name()
                ));
            }
        }
        for endpoint in core
            .rooms
            .fleet
            .all()
            .filter(|endpoint| endpoint.state() != State::Leaving)
        {
            let (name, node) = (endpoint.name(), &endpoint.node().name);
            picture.insert(format!(
                "endpoint {name} {node} {} {}",
                endpoint.slots(),
                endpoint.target().authority()
            ));
        }
        picture
    }
}
