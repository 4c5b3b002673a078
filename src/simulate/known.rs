//! What is taken for true where nobody wrote it down: times as the gateway learned them, or as a trace has them.

use super::recorded::Recorded;
use super::setup::{Class, Cost, Setup};
use crate::schedule::{ClassKey, Estimator};
use crate::store::LearnedTime;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Times that were seen, with guesses where nothing ran, as the gateway would guess.
#[derive(Default)]
pub struct Known {
    estimator: Estimator,
    classes: BTreeMap<ClassKey, Seen>,
}

/// What was seen of a class.
#[derive(Default)]
struct Seen {
    runs: u64,
    model: Option<Arc<str>>,
    vram_mib: u64,
}

// === impl Known ===

impl Known {
    /// Takes up what a gateway has learned.
    pub fn import(&mut self, times: Vec<LearnedTime>) {
        for time in &times {
            let (service, class, _) = &time.key;
            let key = ClassKey {
                service: service.as_str().into(),
                class: class.as_str().into(),
            };
            self.classes.entry(key).or_default();
        }
        let of: Vec<_> = times.iter().map(|time| time.key.clone()).collect();
        self.estimator.import(times);
        for (service, class, endpoint) in of {
            let key = ClassKey {
                service: service.into(),
                class: class.into(),
            };
            let known = self.estimator.estimate(&key, &endpoint, 1.0);
            let seen = self.classes.entry(key).or_default();
            seen.runs += known.map_or(0, |known| known.runs);
        }
    }

    /// Learns from what ran in a trace.
    ///
    /// Errors: a line whose service or node the setup does not know.
    pub fn learn(&mut self, recorded: &Recorded, setup: &Setup) -> Result<(), String> {
        for request in &recorded.requests {
            let at = |what: String| format!("line {}: {what}", request.line);
            let service = setup.service(request.service.as_deref()).map_err(at)?;
            let key = ClassKey {
                service: setup.plan.services[service].name.clone(),
                class: request.class.as_str().into(),
            };
            let seen = self.classes.entry(key.clone()).or_default();
            seen.runs += 1;
            seen.vram_mib = seen.vram_mib.max(request.vram_mib);
            if let Some(model) = &request.model {
                seen.model = Some(model.as_str().into());
            }
            let Some((node, seconds, cold)) = &request.ran else {
                continue;
            };
            let endpoint = setup.endpoint(node);
            let endpoint = endpoint.ok_or_else(|| at(format!("there is no node `{node}`")))?;
            let took = Duration::from_secs_f64(seconds.clamp(1e-6, 1e9));
            let name = &setup.plan.endpoints[endpoint].name;
            self.estimator.learn(&key, name, request.size, took, *cold);
        }
        Ok(())
    }

    /// Puts what was seen in a setup, as what there is to do and how long it takes.
    ///
    /// Errors: nothing was seen.
    pub fn into_setup(mut self, mut setup: Setup) -> Result<Setup, String> {
        let weights = setup.plan.pools.iter().flat_map(|pool| {
            let members = pool.members.iter();
            members.map(|m| (setup.plan.endpoints[m.endpoint].name.clone(), m.weight))
        });
        self.estimator.weigh(weights.collect::<Vec<_>>());
        self.estimator.refresh();
        let mut classes = Vec::new();
        for (key, seen) in &self.classes {
            // Of services that the file has no more, the store may know.
            let Ok(service) = setup.service(Some(&*key.service)) else {
                continue;
            };
            let mut costs = vec![None; setup.plan.endpoints.len()];
            let mut cv = (0, 0.0);
            let members = &setup.plan.pools[setup.plan.services[service].pool].members;
            for endpoint in members.iter().map(|member| member.endpoint) {
                let name = &setup.plan.endpoints[endpoint].name;
                let node = &setup.plan.nodes[setup.plan.endpoints[endpoint].node].facts;
                let Some(known) = self.estimator.estimate(key, name, 1.0) else {
                    continue;
                };
                if seen.vram_mib <= node.vram_mib {
                    costs[endpoint] = Some(Cost {
                        run_s: known.warm_s,
                        load_s: known.cold_s,
                    });
                }
                if known.runs > cv.0 {
                    cv = (known.runs, known.sd_s / known.warm_s);
                }
            }
            if costs.iter().any(Option::is_some) {
                classes.push(Class {
                    service,
                    name: key.class.clone(),
                    model: seen.model.clone(),
                    vram_mib: seen.vram_mib,
                    share: seen.runs as f64,
                    cv: cv.1,
                    costs,
                });
            }
        }
        if classes.is_empty() {
            return Err("no times are known: give `--times FILE`, a trace whose lines have `node` and `seconds`, or a `data_dir` in which a gateway has learned".into());
        }
        setup.classes = classes;
        Ok(setup)
    }
}
