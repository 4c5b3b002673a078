//! The rules at the top of `sharing`, one by one, through the fleet.

mod holding;
mod random;
mod switching;
mod trouble;

use crate::config::plan::{HealthPlan, HoldPlan, Target};
use crate::fleet::{Action, Claim, End, Event, Fleet, Outcome, Spec, Takes, Want};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tabane_api::{EndpointId, NodeFacts, ProbeError, Vitals};

const SECOND: Duration = Duration::from_secs(1);
const HOLD: HoldPlan = HoldPlan {
    min: Duration::from_secs(30),
    max: Duration::from_secs(300),
};
const CARD: u64 = 24_000;

/// A node whose endpoints share a card, and the time it lives in.
struct Gpu {
    fleet: Fleet,
    now: Instant,
    /// Who waits, by endpoint.
    waiting: BTreeMap<EndpointId, Want>,
    seen: Vec<Action>,
}

/// What an endpoint claims.
fn whole() -> Claim {
    Claim {
        whole: true,
        vram_mib: None,
        hold: HOLD,
    }
}

fn part(vram_mib: u64) -> Claim {
    Claim {
        whole: false,
        vram_mib: Some(vram_mib),
        hold: HOLD,
    }
}

fn spec(name: &str, claim: Option<Claim>) -> Spec {
    Spec {
        name: format!("gpu/{name}").into(),
        node: Arc::new(NodeFacts {
            name: "gpu".into(),
            vram_mib: CARD,
            ..NodeFacts::default()
        }),
        target: Target {
            host: name.into(),
            port: 80,
            tls: None,
            h2: false,
        },
        slots: 2,
        slots_said: true,
        takes: Takes::default(),
        drained: false,
        health: HealthPlan {
            fall: 1,
            rise: 1,
            ..HealthPlan::default()
        },
        drain: SECOND * 30,
        claim,
    }
}

impl Gpu {
    /// Endpoints `a`, `b`, … that all were asked and have let go.
    fn of(claims: &[Claim]) -> Self {
        let mut gpu = Gpu::unasked(claims);
        for release in gpu.releases() {
            gpu.released(release, Outcome::Freed);
        }
        gpu
    }

    /// As it is at a start, all up.
    fn unasked(claims: &[Claim]) -> Self {
        let mut gpu = Gpu::unproven(claims);
        for id in gpu.ids() {
            gpu.up(id);
        }
        gpu
    }

    fn unproven(claims: &[Claim]) -> Self {
        let mut gpu = Gpu {
            fleet: Fleet::new(),
            now: Instant::now(),
            waiting: BTreeMap::new(),
            seen: Vec::new(),
        };
        let names = ["a", "b", "c"].iter().zip(claims);
        gpu.plan(
            names
                .map(|(name, claim)| spec(name, Some(*claim)))
                .collect(),
        );
        gpu
    }

    fn ids(&self) -> Vec<EndpointId> {
        let mut ids: Vec<_> = self.fleet.all().map(|e| e.id()).collect();
        ids.sort();
        ids
    }

    fn id(&self, name: &str) -> EndpointId {
        self.fleet.by_name(&format!("gpu/{name}")).unwrap()
    }

    fn apply(&mut self, event: Event) {
        let actions = self.fleet.apply(event, self.now);
        let freed = actions.contains(&Action::Freed);
        self.seen.extend(actions);
        // As dispatch does it: what comes free is given, and then it is said who still waits.
        if freed {
            self.say();
        }
    }

    /// Lets something happen, and nothing follow.
    fn apply_only(&mut self, event: Event) {
        let actions = self.fleet.apply(event, self.now);
        self.seen.extend(actions);
    }

    fn plan(&mut self, specs: Vec<Spec>) {
        self.apply(Event::Plan(specs));
    }

    fn up(&mut self, endpoint: EndpointId) {
        self.probe(endpoint, None);
    }

    fn probe(&mut self, endpoint: EndpointId, vram_free_mib: Option<u64>) {
        let vitals = Vitals {
            vram_free_mib,
            ..Vitals::default()
        };
        self.says(endpoint, vitals);
    }

    fn says(&mut self, endpoint: EndpointId, vitals: Vitals) {
        self.now += Duration::from_millis(1);
        let started = self.now;
        self.now += Duration::from_millis(1);
        self.apply(Event::Probed {
            endpoint,
            started,
            outcome: Ok(vitals),
        });
    }

    fn down(&mut self, endpoint: EndpointId) {
        let outcome = Err(ProbeError::Unreachable("refused".into()));
        self.apply(Event::Probed {
            endpoint,
            started: self.now,
            outcome,
        });
    }

    /// Somebody waits for an endpoint from now on.
    fn want(&mut self, name: &str, interactive: bool) {
        self.want_with(name, interactive, SECOND * 600);
    }

    fn want_with(&mut self, name: &str, interactive: bool, patience: Duration) {
        let endpoint = self.id(name);
        let want = Want {
            endpoint,
            since: self.now,
            interactive,
            patience,
        };
        self.waiting.insert(endpoint, want);
        self.say();
    }

    fn leave(&mut self, name: &str) {
        let id = self.id(name);
        self.waiting.remove(&id);
        self.say();
    }

    /// Those who wait for what holds its card are served; the others are said. As often as something comes of it.
    fn say(&mut self) {
        for _ in 0..10 {
            for (id, want) in self.waiting.clone() {
                if self.fleet.take(id, 1, self.now) {
                    if want.interactive {
                        self.fleet.serves_person(id, self.now);
                    }
                    self.waiting.remove(&id);
                }
            }
            let wants = self.waiting.values().copied().collect();
            let actions = self.fleet.apply(Event::Wanted(wants), self.now);
            let freed = actions.contains(&Action::Freed);
            self.seen.extend(actions);
            if !freed {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    fn end(&mut self, name: &str) {
        self.apply(Event::Ended {
            endpoint: self.id(name),
            slots: 1,
            end: End::Done,
            cool_down: Duration::ZERO,
        });
    }

    fn released(&mut self, endpoint: EndpointId, outcome: Outcome) {
        self.now += Duration::from_millis(1);
        self.apply(Event::Released { endpoint, outcome });
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.apply(Event::Tick);
    }

    /// Lets time pass from one due moment to the next.
    fn pass_by_dues(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.fleet.next_due().filter(|due| *due <= until) {
            self.now = due;
            self.apply(Event::Tick);
        }
        self.now = until;
        self.apply(Event::Tick);
    }

    /// Who is to be asked to let go, since the last look.
    fn releases(&mut self) -> Vec<EndpointId> {
        let seen = std::mem::take(&mut self.seen).into_iter();
        let release = |action| match action {
            Action::Release(id) => Some(id),
            _ => None,
        };
        seen.filter_map(release).collect()
    }

    fn sees(&mut self, wanted: &Action) -> bool {
        let saw = self.seen.contains(wanted);
        self.seen.clear();
        saw
    }

    fn word(&self, name: &str) -> &'static str {
        let endpoint = self.fleet.get(self.id(name)).unwrap();
        self.fleet.card_word(endpoint).unwrap()
    }

    fn at_work(&self, name: &str) -> u32 {
        self.fleet.get(self.id(name)).unwrap().at_work()
    }

    /// `a` holds the card and is at work.
    fn with_a_at_work(interactive: bool) -> Self {
        let mut gpu = Gpu::of(&[whole(), whole()]);
        gpu.want("a", interactive);
        assert_eq!((gpu.word("a"), gpu.at_work("a")), ("holds", 1));
        gpu.seen.clear();
        gpu
    }
}
