//! What classes are worth, when more waits than all slots can do soon: which work a slot is good for, and which it should
//! leave to others.

use super::lanes::Group;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tabane_api::EndpointId;

/// What one of each class is worth, as logarithms: the prices at which every slot, doing what pays best by the second,
/// works the backlog off in the shortest time.
///
/// They are the dual prices of the linear program that shares the slots' time among the classes. They are not solved for,
/// but followed: with each decision those of classes that get less than their part of the backlog rise, and the others
/// fall. Where slots are indifferent, a little of everything is done ([`SOFT`]), so that prices settle instead of swinging.
#[derive(Debug, Default)]
pub(super) struct Worth {
    ln: HashMap<Class, f64>,
    /// Whose backlog is deep.
    deep: HashSet<Whose>,
}

type Class = (Arc<str>, Arc<str>);
type Whose = (Arc<str>, Group);

/// A backlog is deep from so many for each slot on, until it is none any more: what slots are good for counts then, since
/// else long work that only few slots are good for would be left to the end, or to slots that take ever longer over it.
const DEEP: f64 = 16.0;

/// Those of one class who wait.
pub(super) struct Heap {
    pub(super) class: Class,
    /// How many.
    pub(super) waiting: usize,
    /// Where they could go: the endpoint, its slots, and the seconds of one there.
    pub(super) on: Vec<(EndpointId, f64, f64)>,
}

/// How much less, as a share, a class may pay a slot and still be done there now and then.
const SOFT: f64 = 0.1;
/// How far prices move in one step, as a share of `SOFT` for each factor of `e` that a class gets too little.
const STEP: f64 = 0.5;
/// So many steps when a class is new, and at every decision.
const STEPS: (usize, usize) = (40, 3);
/// So many classes are kept in mind.
const MOST: usize = 4096;

// === impl Worth ===

impl Worth {
    /// Whether a backlog of so many for each slot is deep.
    pub(super) fn is_deep(&mut self, tenant: &Arc<str>, group: Group, per_slot: f64) -> bool {
        let whose = (tenant.clone(), group);
        if per_slot > DEEP && self.deep.len() < MOST {
            self.deep.insert(whose);
            return true;
        }
        self.deep.contains(&whose)
    }

    /// It is no backlog any more.
    pub(super) fn is_shallow(&mut self, tenant: &Arc<str>, group: Group) {
        if !self.deep.is_empty() {
            self.deep.remove(&(tenant.clone(), group));
        }
    }

    /// Follows the backlog; answers how good each slot is for each class: 1.0 for the best, less where another pays more.
    pub(super) fn follow(&mut self, heaps: &[Heap]) -> Vec<HashMap<EndpointId, f64>> {
        let (mut ids, mut slots) = (HashMap::new(), Vec::new());
        let mut pays: Vec<Vec<(usize, f64)>> = Vec::with_capacity(heaps.len());
        for heap in heaps {
            let on = heap.on.iter().map(|(endpoint, n, takes_s)| {
                let id = *ids.entry(*endpoint).or_insert_with(|| {
                    slots.push(*n);
                    slots.len() - 1
                });
                (id, -takes_s.max(1e-3).ln())
            });
            pays.push(on.collect());
        }
        if self.ln.len() > MOST {
            self.ln.clear();
        }
        let mut fresh = false;
        let mut ln: Vec<f64> = Vec::with_capacity(heaps.len());
        for heap in heaps {
            ln.push(*self.ln.entry(heap.class.clone()).or_insert_with(|| {
                fresh = true;
                // As if all slots were alike: by the second of its best one.
                let best = heap.on.iter().map(|on| on.2).fold(f64::INFINITY, f64::min);
                best.clamp(1e-3, 1e9).ln()
            }));
        }
        let steps = if fresh { STEPS.0 } else { STEPS.1 };
        let mut best = vec![f64::NEG_INFINITY; slots.len()];
        for step in 0..=steps {
            best.fill(f64::NEG_INFINITY);
            for (class, pays) in pays.iter().enumerate() {
                for (id, pay) in pays {
                    best[*id] = best[*id].max(ln[class] + pay);
                }
            }
            if step == steps {
                break;
            }
            // What each slot does, shared by how well each class pays; and what comes of it for the classes.
            let mut sums = vec![0.0; slots.len()];
            for (class, pays) in pays.iter().enumerate() {
                for (id, pay) in pays {
                    sums[*id] += ((ln[class] + pay - best[*id]) / SOFT).exp();
                }
            }
            let mut ratio: Vec<f64> = Vec::with_capacity(heaps.len());
            for (class, pays) in pays.iter().enumerate() {
                let done = |(id, pay): &(usize, f64)| {
                    let part = ((ln[class] + pay - best[*id]) / SOFT).exp() / sums[*id];
                    slots[*id] * part * pay.exp()
                };
                let done: f64 = pays.iter().map(done).sum();
                ratio.push((done / heaps[class].waiting as f64).max(1e-12).ln());
            }
            let mean = ratio.iter().sum::<f64>() / ratio.len().max(1) as f64;
            for (ln, ratio) in ln.iter_mut().zip(&ratio) {
                *ln -= STEP * SOFT * (ratio - mean).clamp(-3.0, 3.0);
            }
        }
        for (heap, ln) in heaps.iter().zip(&ln) {
            self.ln.insert(heap.class.clone(), *ln);
        }
        let good = heaps.iter().enumerate().map(|(class, heap)| {
            let on = heap.on.iter().zip(&pays[class]);
            on.map(|((endpoint, ..), (id, pay))| (*endpoint, (ln[class] + pay - best[*id]).exp()))
                .collect()
        });
        good.collect()
    }
}
