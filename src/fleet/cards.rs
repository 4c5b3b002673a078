//! The shared cards of the fleet: which endpoint is on which, and what their machines want done.

use super::endpoint::Endpoint;
use super::sharing::{Card, Deed, Looks, Outcome, Want};
use super::{Action, Fleet};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;
use tabane_api::EndpointId;

/// Cards that are shared, by their nodes.
#[derive(Debug, Default)]
pub(super) struct Cards {
    cards: BTreeMap<Arc<str>, Card>,
    /// When time alone changes something, soonest first.
    due: BTreeSet<(Instant, Arc<str>)>,
    /// Those something happened to since they were last settled.
    touched: BTreeSet<Arc<str>>,
}

// === impl Cards ===

impl Cards {
    /// Something of an endpoint may have changed.
    pub(super) fn touch(&mut self, endpoint: &Endpoint) {
        if self.cards.contains_key(&endpoint.spec.node.name) {
            self.touched.insert(endpoint.spec.node.name.clone());
        }
    }

    /// Takes over what the plan says of who shares what.
    pub(super) fn plan(&mut self, endpoints: &mut FxHashMap<EndpointId, Endpoint>, now: Instant) {
        let mut shared: BTreeMap<Arc<str>, (u64, BTreeMap<_, _>, Looks)> = BTreeMap::new();
        for (id, endpoint) in &mut *endpoints {
            // One that left keeps its claim until it has let go.
            let Some(claim) = endpoint.spec.claim else {
                continue;
            };
            let node = endpoint.node();
            let card = shared.entry(node.name.clone()).or_default();
            if !endpoint.leaving {
                card.0 = node.vram_mib;
            }
            card.1.insert(*id, claim);
            card.2.insert(*id, endpoint.look());
        }
        self.cards.retain(|node, _| shared.contains_key(node));
        self.due.retain(|(_, node)| shared.contains_key(node));
        for (node, (vram_mib, claims, looks)) in shared {
            let card = self.cards.entry(node.clone());
            let card = card.or_insert_with(|| Card::new(vram_mib, now));
            card.share(vram_mib, &claims, &looks, now);
            self.touched.insert(node);
        }
        for endpoint in endpoints.values_mut() {
            endpoint.held = self.grants(endpoint);
        }
    }

    /// It is another server now, or was started again.
    pub(super) fn came_up(&mut self, endpoint: &Endpoint) {
        if let Some(card) = self.cards.get_mut(&endpoint.spec.node.name) {
            card.came_up(endpoint.id);
        }
    }

    /// Whether one that leaves has nothing on its card any more.
    pub(super) fn has_let_go(&self, endpoint: &Endpoint) -> bool {
        let card = self.cards.get(&endpoint.spec.node.name);
        card.is_none_or(|card| card.has_let_go(endpoint.id))
    }

    /// It is forgotten.
    pub(super) fn gone(&mut self, endpoint: &Endpoint) {
        if let Some(card) = self.cards.get_mut(&endpoint.spec.node.name) {
            card.gone(endpoint.id);
        }
    }

    /// Whether somebody waits for its card's free memory to be seen.
    pub(super) fn is_proving(&self, endpoint: &Endpoint) -> bool {
        let card = self.cards.get(&endpoint.spec.node.name);
        card.is_some_and(Card::is_proving)
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    fn grants(&self, endpoint: &Endpoint) -> bool {
        let card = self.cards.get(&endpoint.spec.node.name);
        endpoint.spec.claim.is_none() || card.is_none_or(|card| card.grants(endpoint.id))
    }
}

// === impl Fleet ===

impl Fleet {
    /// Whether any card is shared: else nobody need say who waits.
    pub fn shares(&self) -> bool {
        !self.cards.cards.is_empty()
    }

    /// An endpoint was given work that a person waits for: its turn is not batch.
    pub fn serves_person(&mut self, id: EndpointId, now: Instant) {
        if let Some(endpoint) = self.endpoints.get(&id)
            && let Some(card) = self.cards.cards.get_mut(&endpoint.spec.node.name)
        {
            card.serves_person(id, now);
        }
    }

    /// An endpoint has work that takes slots: what it may be given, or what it had before anybody asked.
    pub(super) fn card_at_work(&mut self, id: EndpointId, now: Instant) {
        let Some(endpoint) = self.endpoints.get(&id) else {
            return;
        };
        let Some(card) = self.cards.cards.get_mut(&endpoint.spec.node.name) else {
            return;
        };
        let held = card.grants(id);
        card.at_work(id, now);
        let (changed, members) = (held != card.grants(id), card.members());
        self.cards.touch(endpoint);
        if changed {
            self.mark_held(&members);
        }
    }

    fn mark_held(&mut self, members: &[EndpointId]) {
        for id in members {
            if let Some(endpoint) = self.endpoints.get_mut(id) {
                endpoint.held = self.cards.grants(endpoint);
            }
        }
    }

    /// What an endpoint has of the card it shares, in a word: `holds`, `yields`, `releasing`, `not_released`, `free`,
    /// `stays` or `unknown`; `None` where the card is not shared.
    pub fn card_word(&self, endpoint: &Endpoint) -> Option<&'static str> {
        let card = self.cards.cards.get(&endpoint.spec.node.name)?;
        card.word(endpoint.id)
    }

    pub(super) fn wanted(&mut self, mut wants: Vec<Want>, now: Instant) {
        wants.sort_unstable();
        let mut of_cards: BTreeMap<&str, Vec<Want>> = BTreeMap::new();
        for want in wants {
            if let Some(endpoint) = self.endpoints.get(&want.endpoint) {
                let node = &*endpoint.spec.node.name;
                of_cards.entry(node).or_default().push(want);
            }
        }
        for (node, card) in &mut self.cards.cards {
            let wants = of_cards.remove(&**node).unwrap_or_default();
            if card.wanted(wants, now) {
                self.cards.touched.insert(node.clone());
            }
        }
    }

    pub(super) fn released(&mut self, id: EndpointId, outcome: Outcome, now: Instant) {
        if let Some(endpoint) = self.endpoints.get(&id)
            && let Some(card) = self.cards.cards.get_mut(&endpoint.spec.node.name)
        {
            card.released(id, outcome, endpoint.look().up, now);
            self.cards.touched.insert(endpoint.spec.node.name.clone());
        }
    }

    /// Lets every card go on that something happened to, or that is due.
    pub(super) fn settle_cards(&mut self, actions: &mut Vec<Action>, now: Instant) {
        while let Some((due, node)) = self.cards.due.first()
            && *due <= now
        {
            self.cards.touched.insert(node.clone());
            self.cards.due.pop_first();
        }
        while let Some(node) = self.cards.touched.pop_first() {
            let Some(card) = self.cards.cards.get_mut(&node) else {
                continue;
            };
            let members = card.members();
            let look = |id| Some((id, self.endpoints.get(&id)?.look()));
            let looks: Looks = members.iter().copied().filter_map(look).collect();
            let before = card.due();
            let deeds = card.settle(&looks, now);
            let due = card.due();
            if before != due {
                if let Some(before) = before {
                    self.cards.due.remove(&(before, node.clone()));
                }
                if let Some(due) = due {
                    self.cards.due.insert((due, node.clone()));
                }
            }
            self.mark_held(&members);
            for id in &members {
                // One that leaves may have let go just now.
                self.settle(*id, actions);
            }
            if members.iter().all(|id| self.endpoints.contains_key(id)) {
                self.cards.touched.remove(&node);
            }
            actions.extend(deeds.into_iter().flat_map(told));
        }
    }
}

fn told(deed: Deed) -> Vec<Action> {
    match deed {
        Deed::Release(id) => vec![Action::Release(id)],
        Deed::Prove(id) => vec![Action::Prove(id)],
        Deed::Held(endpoint, from, took) => vec![
            Action::Held {
                endpoint,
                from,
                took,
            },
            Action::Freed,
        ],
        Deed::Kept => vec![Action::Freed],
        Deed::NoRoom(id) => vec![Action::NoRoom(id)],
        Deed::Unproven(id) => vec![Action::Unproven(id)],
    }
}
