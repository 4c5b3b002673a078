use super::machine::Memory;
use super::outcome::{Change, Options, Outcome, Run, What};
use super::setup::{Cost, Setup};
use super::trace::Trace;
use crate::dispatch::{Over, Rooms};
use crate::fleet::{self, End, Failure};
use crate::schedule::{
    self, Action, AskedAs, PoolId, QueueLimits, Schedule, Share, Span, Ticket, TicketId, Turn,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tabane_api::{EndpointId, Need, ProbeError, Refusal, Vitals};

/// A room full of machines, with the gateway's own rooms in charge of it.
pub struct Farm<'a> {
    setup: &'a Setup,
    trace: &'a Trace,
    options: Options,
    rooms: Rooms,
    base: Instant,
    now_ns: u64,
    agenda: BinaryHeap<Reverse<(u64, u64, Due)>>,
    noted: u64,
    changes: Vec<Change>,
    /// Nodes that are not in the plan yet.
    absent: Vec<String>,
    /// By endpoint of the plan.
    ids: Vec<Option<EndpointId>>,
    endpoints: HashMap<EndpointId, usize>,
    pools: Vec<PoolId>,
    /// By node of the plan.
    memory: Vec<Memory>,
    down: Vec<bool>,
    /// Jobs at work, by endpoint, each with the slots it has.
    at_work: Vec<Vec<(usize, u32)>>,
    /// The job of each ticket.
    jobs: Vec<usize>,
    /// The ticket of each job, and where it failed before.
    states: Vec<State>,
    shares: HashMap<Arc<str>, Share>,
    /// The next time of which the rooms are told that it has come.
    tick_ns: Option<u64>,
    outcome: Outcome,
}

#[derive(Clone, Debug, Default)]
struct State {
    ticket: TicketIdOrNone,
    excluded: Vec<EndpointId>,
    begun_ns: u64,
}

type TicketIdOrNone = Option<TicketId>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// Work of a ticket ends; how, was clear when it began.
    End(u64, bool),
    /// A job is queued once more.
    Again(usize),
    /// One who holds a connection has waited long enough.
    Leave(u64),
    /// An endpoint is probed.
    Probe(usize),
    /// A change, by its index.
    Change(usize),
    /// The rooms wait for this time.
    Tick,
}

/// How long a job that runs nowhere near where it was sent takes to fail there.
const FAILS_IN_S: f64 = 1.0;
/// When nothing is to come and somebody waits, time alone may help: so many seconds of it.
const PATIENCE_S: u64 = 7200;

// === impl Farm ===

impl<'a> Farm<'a> {
    /// Lets a trace happen to a farm, from a cold start: no time is known, no model is loaded.
    ///
    /// Errors: a change names no node.
    pub fn run(
        setup: &'a Setup,
        trace: &'a Trace,
        changes: &[Change],
        options: Options,
    ) -> Result<Outcome, String> {
        let mut farm = Farm::new(setup, trace, changes, options)?;
        farm.install()?;
        farm.all();
        Ok(farm.outcome)
    }

    fn new(
        setup: &'a Setup,
        trace: &'a Trace,
        changes: &[Change],
        options: Options,
    ) -> Result<Self, String> {
        let plan = &setup.plan;
        for change in changes {
            if setup.node(&change.node).is_none() {
                return Err(format!("there is no node `{}`", change.node));
            }
        }
        let draw = StdRng::seed_from_u64(options.seed);
        let mut farm = Farm {
            setup,
            trace,
            options,
            rooms: Rooms::new(Schedule::new(Box::new(draw))),
            base: Instant::now(),
            now_ns: 0,
            agenda: BinaryHeap::new(),
            noted: 0,
            changes: changes.to_vec(),
            absent: Vec::new(),
            ids: Vec::new(),
            endpoints: HashMap::new(),
            pools: Vec::new(),
            memory: Vec::new(),
            down: vec![false; plan.nodes.len()],
            at_work: vec![Vec::new(); plan.endpoints.len()],
            jobs: Vec::with_capacity(trace.arrivals.len()),
            states: vec![State::default(); trace.arrivals.len()],
            shares: HashMap::new(),
            tick_ns: None,
            outcome: Outcome {
                runs: vec![Run::default(); trace.arrivals.len()],
                busy_s: vec![0.0; plan.endpoints.len()],
                most_at_work: vec![0; plan.endpoints.len()],
                ..Outcome::default()
            },
        };
        let nodes = plan.nodes.iter();
        farm.memory = nodes.map(|node| Memory::new(node.facts.vram_mib)).collect();
        for tenant in &plan.tenants {
            let share = Share {
                weight: tenant.weight,
                most: tenant.max_at_work,
            };
            farm.shares.insert(tenant.name.clone(), share);
        }
        for (i, change) in changes.iter().enumerate() {
            if change.what == What::Added {
                farm.absent.push(change.node.clone());
            }
            farm.note(nanos(change.at_s), Due::Change(i));
        }
        Ok(farm)
    }

    fn install(&mut self) -> Result<(), String> {
        let mut plan = self.setup.plan.clone();
        if !self.absent.is_empty() {
            let mut setup = self.setup.clone();
            for node in &self.absent {
                setup = setup.without(node)?;
            }
            plan = setup.plan;
        }
        let now = self.now();
        self.rooms.install(&plan, now);
        let endpoints = self.setup.plan.endpoints.iter();
        let by_name = |name: &Arc<str>| self.rooms.fleet.by_name(name);
        let ids: Vec<Option<EndpointId>> = endpoints.map(|e| by_name(&e.name)).collect();
        for (endpoint, id) in ids.iter().enumerate() {
            if let Some(id) = id {
                self.endpoints.insert(*id, endpoint);
            }
        }
        self.ids = ids;
        self.pools = plan
            .services
            .iter()
            .map(|service| self.rooms.pools.id(&plan.pools[service.pool].name))
            .collect();
        for endpoint in 0..self.ids.len() {
            if self.ids[endpoint].is_some() {
                self.probe(endpoint);
            }
        }
        self.served(schedule::Event::Freed);
        Ok(())
    }

    /// Until nothing is to come.
    fn all(&mut self) {
        let mut next = 0;
        let mut waited = 0;
        loop {
            let arrival = self.trace.arrivals.get(next);
            let arrival_ns = arrival.map_or(u64::MAX, |arrival| nanos(arrival.at_s));
            let due_ns = self.agenda.peek().map_or(u64::MAX, |Reverse(due)| due.0);
            // Who waits to be paid for is looked at again and again, maybe for ever.
            let idle = self.at_work.iter().all(Vec::is_empty);
            let ticks = self.agenda.len() == usize::from(self.tick_ns.is_some());
            if arrival_ns == u64::MAX && (due_ns == u64::MAX || (idle && ticks)) {
                if self.rooms.schedule.waiting() == 0 || waited >= PATIENCE_S {
                    break;
                }
                waited += 1;
                self.now_ns += 1_000_000_000;
                self.served(schedule::Event::Freed);
                continue;
            }
            // Before what comes in the same moment, so that a slot that comes free is free for it.
            if due_ns <= arrival_ns {
                if let Some(Reverse((at, _, due))) = self.agenda.pop() {
                    self.now_ns = at;
                    self.happens(due);
                }
            } else {
                self.now_ns = arrival_ns;
                self.ask(next);
                next += 1;
            }
            let waiting = self.rooms.schedule.waiting();
            self.outcome.most_waiting = self.outcome.most_waiting.max(waiting);
        }
    }

    fn happens(&mut self, due: Due) {
        match due {
            Due::End(ticket, well) => self.ends(TicketId(ticket), well),
            Due::Again(job) => self.ask(job),
            Due::Leave(ticket) => self.leaves(TicketId(ticket)),
            Due::Probe(endpoint) => self.probe(endpoint),
            Due::Change(i) => self.change(i),
            Due::Tick => {
                self.tick_ns = None;
                let now = self.now();
                let (actions, given) = self.rooms.tick(now);
                self.deliver(given);
                self.release(actions);
                self.follow_time();
            }
        }
    }

    /// Somebody asks, or a job that failed is queued again: its turn is that of before.
    fn ask(&mut self, job: usize) {
        let arrival = &self.trace.arrivals[job];
        let class = &self.setup.classes[arrival.class];
        let service = &self.setup.plan.services[class.service];
        let id = TicketId(self.jobs.len() as u64);
        self.jobs.push(job);
        self.states[job].ticket = Some(id);
        let need = Need {
            model: class.model.clone(),
            size: if self.options.told_sizes {
                arrival.size
            } else {
                1.0
            },
            urgency: arrival.urgency,
            vram_mib: class.vram_mib,
            interactive: service.interactive || arrival.interactive,
            tenant: arrival.tenant.clone(),
            ..need_of(&class.name)
        };
        let pool = self.pools[class.service];
        if let Some(why) = self.rooms.nobody_fits(pool, &need) {
            self.refuse(job, why);
            return;
        }
        let expected = match arrival.held {
            true => Span::default(),
            false => self.rooms.expected(&service.name, pool, &need),
        };
        let since = self.base + Duration::from_secs_f64(arrival.at_s);
        let (turn, queue) = match arrival.held {
            true => (
                Turn::Held(since),
                (service.queue.max, service.queue.max_wait),
            ),
            false => (Turn::Stored(job as i64), (usize::MAX, Duration::MAX)),
        };
        let ticket = Ticket {
            id,
            asked_as: AskedAs::Number,
            service: service.name.clone(),
            pool,
            share: self.shares.get(&need.tenant).copied().unwrap_or_default(),
            need,
            policy: self.setup.policies[class.service].clone(),
            kind: Some(self.setup.kinds[class.service].clone()),
            price: service.price,
            before_s: 0.0,
            barred: Vec::new(),
            excluded: self.states[job].excluded.clone(),
            turn,
            since,
            patience: service.patience,
            expected,
            queue: QueueLimits {
                max: queue.0,
                max_wait: queue.1,
            },
        };
        if arrival.held {
            let leave_ns = nanos(arrival.at_s) + queue.1.as_nanos() as u64;
            self.note(leave_ns, Due::Leave(id.0));
        }
        self.served(schedule::Event::Arrived(ticket));
    }

    fn leaves(&mut self, ticket: TicketId) {
        let job = self.jobs[ticket.0 as usize];
        let waits = self.rooms.schedule.rank(ticket).is_some();
        if waits && self.states[job].ticket == Some(ticket) {
            self.served(schedule::Event::Left(ticket));
            self.refuse(job, "it waited too long".into());
        }
    }

    fn refuse(&mut self, job: usize, why: String) {
        self.states[job].ticket = None;
        self.outcome.runs[job].refused = Some(why);
    }

    /// Work ends, if it was not lost before.
    fn ends(&mut self, ticket: TicketId, well: bool) {
        let job = self.jobs[ticket.0 as usize];
        if self.states[job].ticket != Some(ticket) {
            return;
        }
        let endpoint = self.outcome.runs[job].endpoint;
        self.off(job, endpoint);
        if well {
            let run = &mut self.outcome.runs[job];
            run.end_s = Some(self.now_ns as f64 / 1e9);
            run.ended += 1;
            self.outcome.end_s = self.outcome.end_s.max(self.now_ns as f64 / 1e9);
            self.ended(job, endpoint, End::Done);
        } else {
            let node = self.setup.plan.endpoints[endpoint].node;
            match self.down[node] {
                true => self.fails(job, endpoint, Failure::Connect),
                false => {
                    self.ran_out_of_memory(job, node);
                    self.fails(job, endpoint, Failure::Status);
                }
            }
        }
    }

    /// Takes work off its endpoint.
    fn off(&mut self, job: usize, endpoint: usize) {
        let held_s = (self.now_ns - self.states[job].begun_ns) as f64 / 1e9;
        let at = self.at_work[endpoint].iter().position(|work| work.0 == job);
        let slots = at.map_or(1, |at| self.at_work[endpoint].swap_remove(at).1);
        let node = self.setup.plan.endpoints[endpoint].node;
        let usd_per_hour = self.setup.plan.nodes[node].facts.usd_per_hour;
        let of_node = self.setup.plan.endpoints[endpoint].slots.max(1);
        let run = &mut self.outcome.runs[job];
        run.busy_s += held_s;
        run.usd += usd_per_hour * held_s / 3600.0 * f64::from(slots) / f64::from(of_node);
        self.outcome.busy_s[endpoint] += held_s * f64::from(slots);
    }

    fn ended(&mut self, job: usize, endpoint: usize, end: End) {
        let (Some(id), Some(ticket)) = (self.ids[endpoint], self.states[job].ticket.take()) else {
            return;
        };
        let service = self.setup.classes[self.trace.arrivals[job].class].service;
        let name = self.setup.plan.endpoints[endpoint].name.clone();
        let cool_down = self.setup.plan.services[service].cool_down;
        let now = self.now();
        let began = self.options.stopwatch.then(Instant::now);
        let over = Over {
            ticket,
            endpoint: id,
            name: &name,
            slots: 1,
            end,
            cool_down,
            well: end == End::Done,
        };
        let (actions, given) = self.rooms.ended(&over, now);
        self.decided(began);
        self.deliver(given);
        self.release(actions);
        self.follow_time();
    }

    /// A node fails a job: it is queued again after the service's back-off, and not sent there while there is another.
    fn fails(&mut self, job: usize, endpoint: usize, how: Failure) {
        self.ended(job, endpoint, End::Failed(how));
        if let Some(id) = self.ids[endpoint]
            && !self.states[job].excluded.contains(&id)
        {
            self.states[job].excluded.push(id);
        }
        let service = self.setup.classes[self.trace.arrivals[job].class].service;
        let backoff = &self.setup.plan.services[service].jobs.backoff;
        let after = backoff.first().copied().unwrap_or_default();
        self.note(self.now_ns + after.as_nanos() as u64, Due::Again(job));
    }

    /// A class does not run on a node, and nobody knew: the node says so, as a kind would tell.
    fn ran_out_of_memory(&mut self, job: usize, node: usize) {
        let class = &self.setup.classes[self.trace.arrivals[job].class];
        let service = &self.setup.plan.services[class.service].name;
        let node = &self.setup.plan.nodes[node].facts.name;
        let now = self.now();
        if self.rooms.shortages.note(service, &class.name, node, now) {
            self.rooms.rebar(now);
        }
    }

    fn change(&mut self, i: usize) {
        let Change { node, what, .. } = self.changes[i].clone();
        let Some(at) = self.setup.node(&node) else {
            return;
        };
        match what {
            What::Added => {
                self.absent.retain(|absent| *absent != node);
                // It names nodes that were looked up before: nothing can be against it.
                let _ = self.install();
            }
            What::Lost => {
                self.down[at] = true;
                self.memory[at].clear();
                let endpoints = 0..self.setup.plan.endpoints.len();
                let on_it = endpoints.filter(|e| self.setup.plan.endpoints[*e].node == at);
                for endpoint in on_it.collect::<Vec<_>>() {
                    for (job, _) in self.at_work[endpoint].clone() {
                        self.off(job, endpoint);
                        self.fails(job, endpoint, Failure::Reset);
                    }
                    self.probe(endpoint);
                }
            }
        }
    }

    fn probe(&mut self, endpoint: usize) {
        let Some(id) = self.ids[endpoint] else {
            return;
        };
        let node = self.setup.plan.endpoints[endpoint].node;
        let outcome = match self.down[node] {
            true => Err(ProbeError::Unreachable("the node is down".into())),
            false => Ok(Vitals {
                busy: Some(self.at_work[endpoint].len() as u32),
                ..Vitals::default()
            }),
        };
        self.apply(fleet::Event::Probed {
            endpoint: id,
            started: self.now(),
            outcome,
        });
        // Until what it says is believed. Afterwards it would say the same for ever.
        let usable = self.rooms.fleet.usable(id);
        if usable == self.down[node] {
            let soon = self.rooms.fleet.probe_interval(id);
            self.note(self.now_ns + soon.as_nanos() as u64, Due::Probe(endpoint));
        }
    }

    fn apply(&mut self, event: fleet::Event) {
        let now = self.now();
        let (actions, given) = self.rooms.apply(event, now);
        self.deliver(given);
        self.release(actions);
        self.follow_time();
    }

    /// Whoever is asked to let go of a card does so at once: it is loading that takes time, and that is counted.
    fn release(&mut self, actions: Vec<fleet::Action>) {
        for action in actions {
            if let fleet::Action::Release(endpoint) = action {
                let outcome = fleet::Outcome::Freed;
                self.apply(fleet::Event::Released { endpoint, outcome });
            }
        }
    }

    fn served(&mut self, event: schedule::Event) {
        let now = self.now();
        let began = self.options.stopwatch.then(Instant::now);
        let (actions, given) = self.rooms.schedule(event, now);
        self.decided(began);
        self.deliver(given);
        self.release(actions);
        self.follow_time();
    }

    fn decided(&mut self, began: Option<Instant>) {
        if let Some(began) = began {
            let took = began.elapsed().as_nanos();
            let took = u32::try_from(took).unwrap_or(u32::MAX);
            self.outcome.decided_ns.push(took);
        }
    }

    fn deliver(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Grant(ticket, endpoint) => self.begins(ticket, endpoint),
                Action::Refuse(ticket, why) => self.is_refused(ticket, &why),
            }
        }
    }

    fn is_refused(&mut self, ticket: TicketId, why: &Refusal) {
        let job = self.jobs[ticket.0 as usize];
        self.refuse(job, why.to_string());
    }

    fn begins(&mut self, ticket: TicketId, endpoint: EndpointId) {
        let job = self.jobs[ticket.0 as usize];
        let Some(&endpoint) = self.endpoints.get(&endpoint) else {
            return;
        };
        let arrival = &self.trace.arrivals[job];
        let class = &self.setup.classes[arrival.class];
        let node = self.setup.plan.endpoints[endpoint].node;
        let run = &mut self.outcome.runs[job];
        run.attempts += 1;
        run.endpoint = endpoint;
        run.begin_s = self.now_ns as f64 / 1e9;
        self.states[job].begun_ns = self.now_ns;
        self.at_work[endpoint].push((job, 1));
        let at_work = self.at_work[endpoint].iter().map(|work| work.1).sum();
        let most = &mut self.outcome.most_at_work[endpoint];
        *most = (*most).max(at_work);
        let (takes_s, well) = match class.costs[endpoint] {
            _ if self.down[node] => (0.0, false),
            None => (FAILS_IN_S, false),
            Some(Cost { run_s, load_s }) => {
                let model = class.model.as_ref().unwrap_or(&class.name);
                let loaded = self.memory[node].load(model, class.vram_mib);
                run.loads += u32::from(loaded);
                let load_s = if loaded { load_s } else { 0.0 };
                (load_s + run_s * arrival.size * arrival.luck, true)
            }
        };
        self.note(
            self.now_ns + nanos(takes_s).max(1),
            Due::End(ticket.0, well),
        );
    }

    /// Sees to it that the rooms are told when a time comes that they wait for.
    fn follow_time(&mut self) {
        let Some(due) = self.rooms.next_due() else {
            return;
        };
        let due_ns = due.saturating_duration_since(self.base).as_nanos() as u64;
        let due_ns = due_ns.max(self.now_ns);
        if self.tick_ns.is_none_or(|tick_ns| due_ns < tick_ns) {
            self.tick_ns = Some(due_ns);
            self.note(due_ns, Due::Tick);
        }
    }

    fn note(&mut self, at_ns: u64, due: Due) {
        self.noted += 1;
        self.agenda.push(Reverse((at_ns, self.noted, due)));
    }

    fn now(&self) -> Instant {
        self.base + Duration::from_nanos(self.now_ns)
    }
}

/// A need of a class, whose name is shared and not copied.
fn need_of(class: &Arc<str>) -> Need {
    Need {
        class: class.clone(),
        ..Need::of_class("")
    }
}

fn nanos(seconds: f64) -> u64 {
    (seconds.max(0.0) * 1e9).round() as u64
}
