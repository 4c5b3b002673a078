//! What was decided is what is told of it: random traffic over the real rooms, and beside them a book that is kept of what
//! every node does. Of every decision each term is worked out from the book, and each endpoint of the pool is asked for.

use crate::config::load_text;
use crate::config::plan::Plan;
use crate::dispatch::rooms::Looked;
use crate::dispatch::{Over, Rooms};
use crate::fleet::{self, End, Failure};
use crate::schedule::{
    self, Action, AskedAs, CHECKED, ClassKey, Considered, Decision, How, QueueLimits, Schedule,
    Share, Span, Ticket, TicketId, Turn, register, remaining,
};
use async_trait::async_trait;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tabane_api::{
    Ask, Candidate, EndpointId, Intent, Kind, Mode, Need, NoConfig, NodeClient, Policy, ProbeError,
    Refusal, Registry, Service, Terms, Urgency, Vitals,
};

const FILE: &str = "
admin: false
nodes:
  big: {gpu: {vram: 48GiB}, labels: {site: a}, price_per_hour: 3, url: 'http://big:1', slots: 2}
  mid: {gpu: {vram: 24GiB}, labels: {site: a}, url: 'http://mid:1'}
  old: {gpu: {vram: 8GiB}, labels: {site: b}, endpoints: {x: {url: 'http://old:1', max_size: 2}}}
  rented: {gpu: {vram: 24GiB}, labels: {site: b}, price_per_hour: 0.9, url: 'http://rented:1'}
  listed: {gpu: {vram: 16GiB}, endpoints: {x: {url: 'http://listed:1', models: [m1, m2]}}}
  both:
    gpu: {vram: 24GiB}
    labels: {site: b}
    sharing: exclusive
    endpoints: {one: {url: 'http://both:1'}, two: {url: 'http://both:2'}}
pools:
  one: [{endpoint: big, weight: 3}, mid, old, both/one]
  two: [{endpoint: mid, weight: 2}, old, rented, listed, both/two]
services:
  one: {kind: made, pool: one, policy: POLICY, routes: [/one], patience: 40s, gpu_hold: {min: 1s, max: 20s}, PRICE_ONE}
  two: {kind: made, pool: two, policy: POLICY, routes: [/two], patience: 40s, gpu_hold: {min: 1s, max: 20s}, PRICE_TWO}
";

/// What the two services may spend. What only nodes with a price can serve may cost anything.
const PRICES: [[&str; 2]; 2] = [
    ["price: {seconds_per_usd: 2000}"; 2],
    [
        "price: {spill_after: 15s, usd_per_hour: 5, seconds_per_usd: 500}",
        "price: {spill_after: 15s, usd_per_job: 0.008, usd_per_hour: 0.08, seconds_per_usd: 500}",
    ],
];

/// A class, its service, its model, what it takes of a card, its label, its slots, and its seconds where nothing slows it.
type Class = (
    &'static str,
    usize,
    Option<&'static str>,
    u64,
    Option<&'static str>,
    u32,
    f64,
);
const CLASSES: [Class; 9] = [
    ("small", 0, None, 4, None, 1, 3.0),
    ("large", 0, None, 20, None, 1, 20.0),
    ("huge", 0, None, 40, None, 1, 30.0),
    ("wide", 0, None, 8, None, 2, 8.0),
    ("small", 1, Some("m1"), 4, None, 1, 5.0),
    ("other", 1, Some("m2"), 12, None, 1, 9.0),
    ("third", 1, Some("m3"), 6, None, 1, 6.0),
    ("there", 1, None, 6, Some("b"), 1, 12.0),
    ("odd", 1, None, 2, None, 1, 4.0),
];

const GIB: u64 = 1024;

/// How often one who asks now and then is overtaken by a flood, at most.
const OVERTAKEN: usize = 5;

/// Whom the work is of, with its weight and how many slots it may have; the last asks for one now and then.
const TENANTS: [(&str, u32, Option<u32>); 4] = [
    ("flood", 1, None),
    ("heavy", 3, None),
    ("few", 1, Some(2)),
    ("single", 1, None),
];

/// Its requests of one class cost twice what is learned: it knows better. Some pieces of work lack something on every third
/// endpoint, and cost more on some.
struct Made;

/// What some pieces of work are called.
const WORKS: [&str; 3] = ["0", "1", "2"];

/// What an endpoint lacks for a piece of work.
fn lacks(need: &Need, at: EndpointId) -> bool {
    let work = need.work.as_deref().and_then(|work| work.parse().ok());
    work == Some(at.0 % 3)
}

#[async_trait]
impl Service for Made {
    fn classify(&self, _: &Ask<'_>, _: Option<&Bytes>) -> Result<Intent, Refusal> {
        Err(Refusal::NotFound(String::new()))
    }
    async fn probe(&self, _: &dyn NodeClient) -> Result<Vitals, ProbeError> {
        Ok(Vitals::default())
    }
    fn terms(&self, need: &Need, at: &Candidate<'_>, _: &Vitals, learned: Terms) -> Terms {
        odd(need, at.id, learned)
    }
    fn lacks(&self, need: &Need, at: EndpointId) -> Option<String> {
        lacks(need, at).then(|| "is not for this work".into())
    }
}

fn odd(need: &Need, at: EndpointId, learned: Terms) -> Terms {
    let times = match (&*need.class, need.work.as_deref()) {
        ("odd", _) => 2.0,
        (_, Some("2")) if at.0.is_multiple_of(2) => 3.0,
        _ => 1.0,
    };
    Terms {
        run_s: times * learned.run_s,
        ..learned
    }
}

impl Kind for Made {
    const NAME: &'static str = "made";
    type Config = NoConfig;
    fn new(_: NoConfig, _: Option<Arc<Self>>) -> Result<Self, String> {
        Ok(Made)
    }
}

/// What every node does: kept by what the rooms say they gave, and by nothing else of theirs.
#[derive(Clone, Default)]
struct Book {
    at_work: BTreeMap<EndpointId, Vec<Work>>,
    loaded: BTreeMap<EndpointId, Vec<(Arc<str>, u64)>>,
    /// By service and minute.
    spent: BTreeMap<(Arc<str>, u64), f64>,
    first_spent: Option<Instant>,
    at_work_of: BTreeMap<Arc<str>, u32>,
    /// How often a service's class ran out of memory on a node.
    short: BTreeMap<(ClassKey, Arc<str>), (u32, Instant)>,
}

#[derive(Clone)]
struct Work {
    ticket: TicketId,
    class: ClassKey,
    need: Need,
    cold: bool,
    usd: f64,
    since: Instant,
}

/// The rooms, and what happens to them.
struct World {
    plan: Plan,
    policies: Vec<Arc<dyn Policy>>,
    rooms: Rooms,
    draw: StdRng,
    base: Instant,
    now: Instant,
    agenda: BinaryHeap<Reverse<(Instant, u64, Due)>>,
    noted: u64,
    tick: Option<Instant>,
    tickets: BTreeMap<TicketId, Ticket>,
    book: Book,
    down: BTreeSet<Arc<str>>,
    /// Usable, and in possession of its card, before the event.
    before: BTreeMap<EndpointId, (bool, bool)>,
    /// What the event gave something to.
    given: BTreeSet<EndpointId>,
    /// Whether anybody waited before it.
    queued: bool,
    /// Whether everything is asked before it happens.
    asks: bool,
    seen: Vec<String>,
    /// Of one who asks now and then: how many of the flood were served in its pool since it waits.
    overtaken: BTreeMap<TicketId, usize>,
    told: Tally,
}

/// How often each thing that is to be seen was.
#[derive(Debug, Default)]
struct Tally {
    decisions: usize,
    alone: usize,
    foretold: usize,
    overtaken: usize,
    how: BTreeMap<&'static str, usize>,
    reasons: BTreeMap<&'static str, usize>,
    terms: BTreeMap<&'static str, usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Asks,
    Single,
    Ends(u64, u8),
    Leaves(u64),
    Lost(usize),
    Back(usize),
    Probe(EndpointId),
    Tick,
}

fn seconds(s: f64) -> Duration {
    Duration::from_secs_f64(s)
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-6 * a.abs().max(b.abs()).max(1.0)
}

// === impl Book ===

impl Book {
    fn used(&self, endpoint: &fleet::Endpoint) -> u32 {
        let at_work = self.at_work.get(&endpoint.id()).into_iter().flatten();
        at_work.map(|work| work.need.slots).sum::<u32>() + endpoint.cooling()
    }

    fn is_loaded(&self, id: EndpointId, need: &Need) -> bool {
        let on = self.loaded.get(&id).into_iter().flatten();
        on.into_iter().any(|(name, _)| name == need.loads())
    }

    /// What is least recently used makes room; where nobody knows a size, all but the last.
    fn loads(&mut self, endpoint: &fleet::Endpoint, need: &Need) {
        let card = endpoint.node().vram_mib;
        let on = self.loaded.entry(endpoint.id()).or_default();
        on.retain(|(name, _)| name != need.loads());
        on.push((need.loads().clone(), need.vram_mib));
        let known = |on: &[(Arc<str>, u64)]| card > 0 && on.iter().all(|(_, mib)| *mib > 0);
        while on.len() > 1 && (!known(on) || on.iter().map(|(_, mib)| mib).sum::<u64>() > card) {
            on.remove(0);
        }
    }

    fn minute(&self, now: Instant) -> u64 {
        let first = self.first_spent.unwrap_or(now);
        now.saturating_duration_since(first).as_secs() / 60
    }

    fn spend(&mut self, service: &Arc<str>, usd: f64, now: Instant) {
        if usd != 0.0 {
            self.first_spent.get_or_insert(now);
            let minute = self.minute(now);
            *self.spent.entry((service.clone(), minute)).or_default() += usd;
        }
    }

    fn spent_usd(&self, service: &Arc<str>, now: Instant) -> f64 {
        let since = self.minute(now).saturating_sub(59);
        let of = self.spent.iter();
        let of = of.filter(|((of, minute), _)| of == service && *minute >= since);
        of.map(|(_, usd)| usd).sum::<f64>().max(0.0)
    }
}

// === impl World ===

impl World {
    fn new(policy: &str, price: [&str; 2], seed: u64, asks: bool) -> Self {
        World::of(FILE, policy, price, seed, asks)
    }

    fn of(file: &str, policy: &str, price: [&str; 2], seed: u64, asks: bool) -> Self {
        let registry = register(Registry::default().kind::<Made>());
        let [one, two] = price;
        let text = file.replace("POLICY", policy);
        let text = text.replace("PRICE_ONE", one).replace("PRICE_TWO", two);
        let plan = match load_text("t.yaml", &text, &registry, &|_| None) {
            Ok(loaded) => loaded.plan,
            Err(problems) => panic!("{problems:?}"),
        };
        let policies = plan.services.iter().map(|s| s.policy.build().unwrap());
        let base = Instant::now();
        let mut world = World {
            policies: policies.collect(),
            rooms: Rooms::new(Schedule::new(Box::new(StdRng::seed_from_u64(seed)))),
            draw: StdRng::seed_from_u64(seed ^ 0x9e37),
            base,
            now: base,
            agenda: BinaryHeap::new(),
            noted: 0,
            tick: None,
            tickets: BTreeMap::new(),
            book: Book::default(),
            down: BTreeSet::new(),
            before: BTreeMap::new(),
            given: BTreeSet::new(),
            queued: false,
            asks,
            seen: Vec::new(),
            overtaken: BTreeMap::new(),
            told: Tally::default(),
            plan,
        };
        let plan = world.plan.clone();
        world.happens(|rooms, now| (rooms.install(&plan, now), Vec::new()));
        world.learned_before();
        for id in world.all() {
            world.probe(id);
        }
        world
    }

    /// What getting ready takes is known where a card changes hands: else it would hardly ever be learned there.
    fn learned_before(&mut self) {
        for (name, service, ..) in CLASSES {
            let class = ClassKey {
                service: self.plan.services[service].name.clone(),
                class: name.into(),
            };
            let endpoint = ["both/one", "both/two"][service];
            let estimator = &mut self.rooms.times.estimator;
            estimator.learn(&class, endpoint, 1.0, seconds(14.0), true);
            estimator.learn(&class, endpoint, 1.0, seconds(6.0), false);
        }
    }

    fn all(&self) -> Vec<EndpointId> {
        let mut all: Vec<EndpointId> = self.rooms.fleet.all().map(|e| e.id()).collect();
        all.sort_unstable();
        all
    }

    fn below(&mut self, n: usize) -> usize {
        (self.draw.next_u64() % n as u64) as usize
    }

    fn unit(&mut self) -> f64 {
        ((self.draw.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    fn note(&mut self, after: Duration, due: Due) {
        self.noted += 1;
        self.agenda
            .push(Reverse((self.now + after, self.noted, due)));
    }

    /// Until so many seconds are over: bursts and lulls, nodes that are lost and come back.
    fn run(&mut self, until_s: f64) {
        self.note(Duration::ZERO, Due::Asks);
        self.note(seconds(5.0), Due::Single);
        for (i, at_s) in [0.2, 0.4, 0.6].into_iter().enumerate() {
            let node = [0, 1, 5][i];
            self.note(seconds(at_s * until_s), Due::Lost(node));
            self.note(seconds((at_s + 0.05) * until_s), Due::Back(node));
        }
        let end = self.base + seconds(until_s);
        while let Some(Reverse((at, _, due))) = self.agenda.pop() {
            self.now = at;
            let over = at > end;
            match due {
                Due::Asks if !over => {
                    let since_s = (at - self.base).as_secs_f64();
                    // A lull, and then more than there is room for.
                    let every_s = [20.0, 3.0, 6.0][(since_s / 100.0) as usize % 3];
                    self.ask_random();
                    let next_s = -self.unit().ln() * every_s;
                    self.note(seconds(next_s), Due::Asks);
                }
                Due::Single if !over => {
                    self.ask(4, 3, 1.0, Vec::new(), self.now);
                    self.note(seconds(37.0), Due::Single);
                }
                Due::Asks => {}
                // As other traffic would have those who wait looked at.
                Due::Single => {
                    self.happens(|rooms, now| rooms.schedule(schedule::Event::Freed, now));
                    self.note(seconds(37.0), Due::Single);
                }
                Due::Ends(id, fate) => self.ends(TicketId(id), fate),
                Due::Leaves(id) => {
                    self.overtaken.remove(&TicketId(id));
                    self.happens(|rooms, now| {
                        rooms.schedule(schedule::Event::Left(TicketId(id)), now)
                    });
                }
                Due::Lost(node) => self.lost(node),
                Due::Back(node) => {
                    self.down.remove(&self.plan.nodes[node].facts.name);
                    self.probe_node(node);
                }
                Due::Probe(id) => self.probe(id),
                Due::Tick => {
                    self.tick = None;
                    self.happens(Rooms::tick);
                }
            }
            if over
                && self.rooms.schedule.waiting() == 0
                && self.book.at_work.values().all(Vec::is_empty)
            {
                break;
            }
            assert!(
                at < end + seconds(100_000.0),
                "somebody waits for ever: {:?}",
                self.rooms.schedule.snapshot(9)
            );
        }
    }

    fn ask_random(&mut self) {
        let many = 1 + self.below(3) * self.below(3);
        for _ in 0..many {
            let tenant = [0, 0, 0, 1, 1, 2][self.below(6)];
            let class = self.below(CLASSES.len());
            let size = [0.5, 1.0, 1.0, 2.5][self.below(4)];
            self.ask(class, tenant, size, Vec::new(), self.now);
        }
    }

    fn ask(
        &mut self,
        class: usize,
        tenant: usize,
        size: f64,
        excluded: Vec<EndpointId>,
        since: Instant,
    ) {
        let work = WORKS.get(self.below(8));
        let (name, service, model, gib, label, slots, _) = CLASSES[class];
        let service = &self.plan.services[service];
        let (tenant, weight, most) = TENANTS[tenant];
        let id = TicketId(self.tickets.len() as u64 + 1);
        let urgency = match self.draw.next_u64() % 8 {
            0 => 1,
            1 => 5,
            _ => 3,
        };
        let need = Need {
            model: model.map(Arc::from),
            size,
            slots,
            urgency: Urgency::new(urgency),
            vram_mib: gib * GIB,
            labels: label
                .iter()
                .map(|l| ("site".into(), Arc::from(*l)))
                .collect(),
            interactive: self.draw.next_u64().is_multiple_of(16),
            tenant: tenant.into(),
            work: work.map(|work| Arc::from(*work)),
            ..Need::of_class(name)
        };
        let pool = self.rooms.pools.id(&self.plan.pools[service.pool].name);
        let (name, price, patience) = (service.name.clone(), service.price, service.patience);
        let kind = service.kind.build(None).unwrap();
        let policy = self.policies[CLASSES[class].1].clone();
        if self.rooms.nobody_fits(pool, &need).is_some() {
            return;
        }
        let held = self.draw.next_u64().is_multiple_of(3);
        let turn = match held {
            true => Turn::Held(since),
            false => Turn::Stored(id.0 as i64),
        };
        let mut ticket = Ticket {
            id,
            asked_as: AskedAs::Number,
            service: name.clone(),
            pool,
            policy,
            kind: Some(kind),
            price,
            excluded,
            barred: Vec::new(),
            turn,
            since,
            before_s: 0.0,
            share: Share { weight, most },
            patience,
            expected: self.rooms.expected(&name, pool, &need),
            need,
            queue: QueueLimits {
                max: 1000,
                max_wait: Duration::from_secs(3600),
            },
        };
        // Somebody can do it, who never runs short of memory.
        let mut members = self.rooms.pools.members(pool).iter();
        let serves = |id: EndpointId| {
            let name = self.rooms.fleet.get(id).unwrap().name();
            self.lacks(&ticket, id).is_none()
                && !["mid/", "old/"].iter().any(|n| name.starts_with(n))
        };
        if !members.any(|(id, _)| serves(*id)) {
            ticket.need.work = None;
        }
        if !price.spill_after.is_zero() {
            ticket.before_s = self.rooms.unpaid_wait_s(&ticket, self.now);
        }
        self.tickets.insert(id, ticket.clone());
        if tenant == "single" {
            self.overtaken.insert(id, 0);
        }
        if held && self.below(4) == 0 {
            let after_s = 30.0 * self.unit();
            self.note(seconds(after_s), Due::Leaves(id.0));
        }
        // Where nobody waits, what would happen can be told.
        let alone = self.rooms.schedule.waiting() == 0;
        let would = (self.asks && alone).then(|| {
            let looked = self.rooms.look(&ticket, self.now);
            (self.rooms.would(&ticket, self.now), looked)
        });
        if self.asks {
            self.rooms.look(&ticket, self.now);
        }
        let first = self.rooms.decided().count();
        let cards = self.rooms.fleet.all().filter(|e| e.holds_card());
        let held: BTreeSet<EndpointId> = cards.map(|e| e.id()).collect();
        let arrived = schedule::Event::Arrived(ticket);
        self.happens(|rooms, now| rooms.schedule(arrived, now));
        if let Some((would, looked)) = would {
            self.foretold(id, would, &looked, first, &held);
        }
    }

    /// What would happen, and what did.
    fn foretold(
        &mut self,
        id: TicketId,
        would: Option<EndpointId>,
        looked: &[Looked],
        first: usize,
        held: &BTreeSet<EndpointId>,
    ) {
        self.told.alone += 1;
        let decided = self.rooms.decided().skip(first);
        let did = decided.into_iter().find(|d| d.ticket == id);
        let ticket = &self.tickets[&id];
        let got = did.map(|did| did.endpoint);
        let name = |id: Option<EndpointId>| Some(self.rooms.fleet.get(id?)?.name().clone());
        let is_held = |id: EndpointId| held.contains(&id);
        // For a card that another service lets go of meanwhile it would have waited.
        assert!(
            would.is_some() == got.is_some() || (would.is_none() && !got.is_some_and(is_held)),
            "{:?} of {:?}: would {:?}, did {:?}: {looked:?}",
            ticket.need,
            ticket.policy.mode(),
            name(would),
            name(got)
        );
        if would.is_none() {
            return;
        }
        let Some(did) = did else { return };
        self.told.foretold += 1;
        // What was looked at is what was considered, term by term.
        let open = looked
            .iter()
            .filter_map(|l| Some((l.endpoint, l.terms?, l.room)));
        let considered = did.considered.iter().map(|c| (c.endpoint, c.terms, c.room));
        assert_eq!(open.collect::<Vec<_>>(), considered.collect::<Vec<_>>());
        let total = |id| {
            did.considered
                .iter()
                .find(|c| Some(c.endpoint) == id)
                .map(|c| c.terms.total_s())
        };
        // Of equals chance chooses.
        assert!(
            would == got || total(would) == total(got),
            "{:?}: would {:?}, did {:?}: {did:?}",
            ticket.policy.mode(),
            name(would),
            name(got)
        );
    }

    fn ends(&mut self, id: TicketId, fate: u8) {
        let mut at_work = self.book.at_work.iter();
        let on = at_work.find_map(|(on, all)| all.iter().any(|w| w.ticket == id).then_some(*on));
        // It was lost before.
        let Some(on) = on else { return };
        let end = match fate {
            0 => End::Failed(Failure::Status),
            1 => End::Aborted { began: true },
            _ => End::Done,
        };
        self.over(id, on, end);
        if fate == 0 {
            self.runs_short(id, on);
            self.again(id, on);
        }
    }

    /// Of what fails, some does for want of memory, and says so.
    fn runs_short(&mut self, id: TicketId, on: EndpointId) {
        let ticket = &self.tickets[&id];
        let node = self.rooms.fleet.get(on).unwrap().node().name.clone();
        if !["mid", "old"].contains(&&*node) {
            return;
        }
        let (service, class) = (&ticket.service, &ticket.need.class);
        let key = (World::class(ticket), node.clone());
        let until = self.now + Duration::from_secs(24 * 3600);
        let ran = self.book.short.entry(key).or_insert((0, until));
        *ran = (ran.0 + 1, until);
        if self.rooms.shortages.note(service, class, &node, self.now) {
            self.rooms.rebar(self.now);
        }
    }

    fn again(&mut self, id: TicketId, on: EndpointId) {
        let ticket = self.tickets[&id].clone();
        let mut excluded = ticket.excluded;
        if !excluded.contains(&on) {
            excluded.push(on);
        }
        let of = |c: &Class| {
            *c.0 == *ticket.need.class && self.plan.services[c.1].name == ticket.service
        };
        let class = CLASSES.iter().position(of).unwrap();
        let tenant = TENANTS
            .iter()
            .position(|t| *t.0 == *ticket.need.tenant)
            .unwrap();
        self.ask(class, tenant, ticket.need.size, excluded, ticket.since);
    }

    fn over(&mut self, id: TicketId, on: EndpointId, end: End) {
        let now = self.now;
        let endpoint = self.rooms.fleet.get(on).unwrap();
        let (name, of, usd_per_hour) = (
            endpoint.name().clone(),
            endpoint.slots(),
            endpoint.node().usd_per_hour,
        );
        let all = self.book.at_work.get_mut(&on).unwrap();
        let at = all.iter().position(|work| work.ticket == id).unwrap();
        let work = all.swap_remove(at);
        let part = f64::from(work.need.slots) / f64::from(of);
        let cost = part * (now - work.since).as_secs_f64() * usd_per_hour / 3600.0;
        self.book.spend(&work.class.service, cost - work.usd, now);
        *self.book.at_work_of.get_mut(&work.need.tenant).unwrap() -= work.need.slots;
        self.happens(|rooms, now| {
            let over = Over {
                ticket: id,
                endpoint: on,
                name: &name,
                slots: work.need.slots,
                end,
                cool_down: seconds(2.0),
                well: end == End::Done,
            };
            rooms.ended(&over, now)
        });
    }

    fn lost(&mut self, node: usize) {
        self.down.insert(self.plan.nodes[node].facts.name.clone());
        for on in self.on(node) {
            let all: Vec<TicketId> = self
                .book
                .at_work
                .get(&on)
                .into_iter()
                .flatten()
                .map(|w| w.ticket)
                .collect();
            for id in all {
                self.over(id, on, End::Failed(Failure::Reset));
                self.again(id, on);
            }
        }
        self.probe_node(node);
    }

    fn on(&self, node: usize) -> Vec<EndpointId> {
        let name = &self.plan.nodes[node].facts.name;
        let on_it = |id: &EndpointId| {
            self.rooms
                .fleet
                .get(*id)
                .is_some_and(|e| e.node().name == *name)
        };
        self.all().into_iter().filter(on_it).collect()
    }

    fn probe_node(&mut self, node: usize) {
        for id in self.on(node) {
            self.probe(id);
        }
    }

    fn probe(&mut self, endpoint: EndpointId) {
        let is = self.rooms.fleet.get(endpoint).unwrap();
        let down = self.down.contains(&is.node().name);
        let outcome = match down {
            true => Err(ProbeError::Unreachable("it is down".into())),
            false => Ok(Vitals::default()),
        };
        self.happens(|rooms, now| {
            let started = now;
            rooms.apply(
                fleet::Event::Probed {
                    endpoint,
                    started,
                    outcome,
                },
                now,
            )
        });
        if self.rooms.fleet.usable(endpoint) == down {
            let soon = self.rooms.fleet.probe_interval(endpoint);
            self.note(soon, Due::Probe(endpoint));
        }
    }

    /// Lets something happen, and holds every decision that comes of it to the book.
    fn happens(
        &mut self,
        event: impl FnOnce(&mut Rooms, Instant) -> (Vec<fleet::Action>, Vec<Action>),
    ) {
        let marks = |e: &fleet::Endpoint| (e.id(), (e.is_usable(), e.holds_card()));
        self.before = self.rooms.fleet.all().map(marks).collect();
        self.queued = self.rooms.schedule.waiting() > 0;
        let (before, now) = (self.rooms.decided().count(), self.now);
        let (actions, given) = event(&mut self.rooms, now);
        for action in &actions {
            if let fleet::Action::Down(id, _)
            | fleet::Action::Gone(id)
            | fleet::Action::Release(id) = action
            {
                self.book.loaded.remove(id);
            }
        }
        let decisions: Vec<Decision> = self.rooms.decided().skip(before).cloned().collect();
        let grants = given.iter().map(|action| match action {
            Action::Grant(id, endpoint) => (*id, *endpoint),
            Action::Refuse(id, why) => panic!("{id:?} was refused: {why}"),
        });
        let decided = decisions.iter().map(|d| (d.ticket, d.endpoint));
        assert_eq!(grants.collect::<Vec<_>>(), decided.collect::<Vec<_>>());
        self.given = decisions.iter().map(|d| d.endpoint).collect();
        let mut books = vec![self.book.clone()];
        for decision in &decisions {
            self.check(decision, &books);
            self.begins(decision);
            books.push(self.book.clone());
        }
        for service in &self.plan.services {
            let (own, said) = (
                self.book.spent_usd(&service.name, now),
                self.rooms.spent_usd(&service.name, now),
            );
            assert!(near(own, said), "{own} {said}");
        }
        for action in actions {
            if let fleet::Action::Release(endpoint) = action {
                self.released(endpoint);
            }
        }
        if let Some(due) = self.rooms.next_due() {
            let due = due.max(self.now);
            if self.tick.is_none_or(|tick| due < tick) {
                self.tick = Some(due);
                self.note(due - self.now, Due::Tick);
            }
        }
    }

    /// Whoever is asked for a card lets go of it at once.
    fn released(&mut self, endpoint: EndpointId) {
        let outcome = fleet::Outcome::Freed;
        let event = fleet::Event::Released { endpoint, outcome };
        self.happens(|rooms, now| rooms.apply(event, now));
    }

    /// Work begins; how long it truly takes nobody knows before.
    fn begins(&mut self, decision: &Decision) {
        let ticket = self.tickets[&decision.ticket].clone();
        let terms = self.terms(&self.book.clone(), &ticket, decision.endpoint, 1);
        let endpoint = self.rooms.fleet.get(decision.endpoint).unwrap();
        let need = &ticket.need;
        let cold = !self.book.is_loaded(endpoint.id(), need);
        let part = f64::from(need.slots) / f64::from(endpoint.slots());
        let usd = part * terms.occupied_s() * endpoint.node().usd_per_hour / 3600.0;
        let slowness = 1.0 + f64::from(endpoint.id().0) / 3.0;
        self.book.loads(endpoint, need);
        let class = ClassKey {
            service: ticket.service.clone(),
            class: need.class.clone(),
        };
        self.book
            .at_work
            .entry(decision.endpoint)
            .or_default()
            .push(Work {
                ticket: ticket.id,
                class,
                need: need.clone(),
                cold,
                usd,
                since: self.now,
            });
        self.book.spend(&ticket.service, usd, self.now);
        *self.book.at_work_of.entry(need.tenant.clone()).or_default() += need.slots;
        let of = |c: &&Class| *c.0 == *need.class && self.plan.services[c.1].name == ticket.service;
        let base_s = CLASSES.iter().find(of).unwrap().6;
        let luck = 0.7 + 0.6 * self.unit();
        let load_s = if cold {
            need.vram_mib as f64 / 4096.0
        } else {
            0.0
        };
        let takes_s = load_s + base_s * slowness * need.size * luck;
        let fate = self.below(16) as u8;
        self.note(seconds(takes_s), Due::Ends(ticket.id.0, fate));
    }
}

/// What a decision is held to.
impl World {
    fn class(ticket: &Ticket) -> ClassKey {
        ClassKey {
            service: ticket.service.clone(),
            class: ticket.need.class.clone(),
        }
    }

    /// What a ticket costs at an endpoint by what was learned, without the wait; `held` as far as anybody can tell.
    fn terms(&mut self, book: &Book, ticket: &Ticket, id: EndpointId, weight: u32) -> Terms {
        let (class, need) = (World::class(ticket), &ticket.need);
        let estimator = &mut self.rooms.times.estimator;
        let endpoint = self.rooms.fleet.get(id).unwrap();
        let number = estimator.number(endpoint.name());
        let row = estimator.row(&class);
        let run_s = row
            .estimate(number, need.size)
            .map_or(10.0 / f64::from(weight), |e| e.warm_s);
        let cold_s = row.estimate(number, need.size).map_or(0.0, |e| e.cold_s);
        let load_s = if book.is_loaded(id, need) {
            0.0
        } else {
            cold_s
        };
        let stale = row.stale(number) as f64 / (500.0 * self.plan.endpoints.len() as f64);
        let doubt = stale / (1.0 + stale);
        let doubt = match row.estimate(number, need.size) {
            None => 0.0,
            Some(e) if e.prior => doubt.max(0.2),
            Some(_) => doubt,
        };
        let takes_s = load_s + run_s;
        Terms {
            wait_s: 0.0,
            switch_s: 0.0,
            load_s,
            run_s,
            price_s: ticket.price.seconds_per_usd * takes_s * endpoint.node().usd_per_hour / 3600.0,
            explore_s: -doubt * takes_s,
        }
    }

    /// Until a need's slots are free.
    fn wait_s(&mut self, book: &Book, need: &Need, id: EndpointId) -> f64 {
        let endpoint = self.rooms.fleet.get(id).unwrap();
        let (slots, used) = (endpoint.slots(), book.used(endpoint));
        let number = self.rooms.times.estimator.number(endpoint.name());
        let mut frees = vec![0.0; slots.saturating_sub(used) as usize];
        for work in book.at_work.get(&id).into_iter().flatten() {
            let estimate = self
                .rooms
                .times
                .estimator
                .row(&work.class)
                .estimate(number, work.need.size);
            let span = estimate.map_or(Span::new(10.0, 0.0), |e| e.span(work.cold));
            let left_s = remaining(span, (self.now - work.since).as_secs_f64()).mean_s();
            frees.extend(vec![left_s.max(1e-3); work.need.slots as usize]);
        }
        frees.resize(slots as usize, 1.0);
        frees.sort_unstable_by(f64::total_cmp);
        frees[need.slots as usize - 1]
    }

    /// What of the file keeps a ticket off an endpoint.
    fn lacks(&self, ticket: &Ticket, id: EndpointId) -> Option<&'static str> {
        let need = &ticket.need;
        let endpoint = self.rooms.fleet.get(id).unwrap();
        let name = &**endpoint.name();
        let labels = &endpoint.node().labels;
        let has = |label: &(Arc<str>, Arc<str>)| labels.get(&label.0) == Some(&label.1);
        if endpoint.node().vram_mib < need.vram_mib {
            Some("of GPU memory, and")
        } else if !need.labels.iter().all(has) {
            Some("label")
        } else if endpoint.slots() < need.slots {
            Some("slot, and")
        } else if name.starts_with("old") && need.size > 2.0 {
            Some("max_size")
        } else if name.starts_with("listed") && need.model.as_deref().is_some_and(|m| m == "m3") {
            Some("does not have the model")
        } else if self.is_short(ticket, endpoint) {
            Some("ran out of GPU memory")
        } else if lacks(need, id) {
            Some("is not for this work")
        } else {
            None
        }
    }

    fn is_short(&self, ticket: &Ticket, endpoint: &fleet::Endpoint) -> bool {
        let key = (World::class(ticket), endpoint.node().name.clone());
        let times = self.book.short.get(&key);
        times.is_some_and(|(times, until)| *times >= 2 && *until > self.now)
    }

    /// Why a ticket may not have an endpoint: all there is against it.
    fn against(
        &mut self,
        book: &Book,
        ticket: &Ticket,
        id: EndpointId,
        weight: u32,
    ) -> Vec<&'static str> {
        let mut against = Vec::from_iter(self.lacks(ticket, id));
        let endpoint = self.rooms.fleet.get(id).unwrap();
        let slots = endpoint.slots();
        let usd_per_hour = endpoint.node().usd_per_hour;
        let (before, now) = (
            self.before.get(&id).is_some_and(|b| b.0),
            endpoint.is_usable(),
        );
        if !before || !now {
            against.push("it is ");
        }
        if ticket.excluded.contains(&id) {
            against.push("it failed this before");
        }
        let price = ticket.price;
        if usd_per_hour > 0.0 {
            let terms = self.terms(book, ticket, id, weight);
            let terms = odd(&ticket.need, id, terms);
            let part = f64::from(ticket.need.slots) / f64::from(slots);
            let usd = part * terms.occupied_s() * usd_per_hour / 3600.0;
            if price.usd_per_job.is_some_and(|most| usd > most) {
                against.push("it would cost");
            }
            let spent = book.spent_usd(&ticket.service, self.now);
            if price.usd_per_hour.is_some_and(|most| spent + usd > most) {
                against.push("USD are spent in this hour");
            }
            let mut soonest_s: Option<f64> = None;
            for (other, _) in self.rooms.pools.members(ticket.pool).to_vec() {
                let is = self.rooms.fleet.get(other).unwrap();
                if is.is_usable()
                    && is.node().usd_per_hour <= 0.0
                    && self.lacks(ticket, other).is_none()
                {
                    let wait_s = self.wait_s(book, &ticket.need, other);
                    soonest_s = Some(soonest_s.map_or(wait_s, |s| s.min(wait_s)));
                }
            }
            let waited_s = (self.now - ticket.since).as_secs_f64();
            let soon = |s: f64| ticket.before_s.max(waited_s + s) < price.spill_after.as_secs_f64();
            if soonest_s.is_some_and(soon) {
                against.push("it waits");
            }
        }
        against
    }

    fn check(&mut self, decision: &Decision, books: &[Book]) {
        let ticket = self.tickets[&decision.ticket].clone();
        let told = format!(
            "{} s, {:?}: {:?} on {}: {decision:#?}",
            (self.now - self.base).as_secs_f64(),
            ticket.policy.mode(),
            ticket.need,
            self.rooms.fleet.get(decision.endpoint).unwrap().name()
        );
        let members = self.rooms.pools.members(ticket.pool).to_vec();
        let now = books.last().unwrap();
        // Its tenant may have it.
        let at_work = now
            .at_work_of
            .get(&ticket.need.tenant)
            .copied()
            .unwrap_or(0);
        assert!(
            ticket
                .share
                .most
                .is_none_or(|most| at_work + ticket.need.slots <= most),
            "{told}"
        );
        // Everyone of the pool is in, or out: nobody is both.
        let mut named: Vec<EndpointId> = decision.considered.iter().map(|c| c.endpoint).collect();
        named.extend(decision.unfit.iter().map(|(id, _)| *id));
        named.sort_unstable();
        let mut pool: Vec<EndpointId> = members.iter().map(|(id, _)| *id).collect();
        pool.sort_unstable();
        assert_eq!(named, pool, "{told}");
        // Who is out is so for a reason that is true, and who is in has nothing against it.
        for (id, why) in &decision.unfit {
            if why.contains("is kept for work of several slots") {
                let now = self.now;
                let wide =
                    |other: &Ticket| other.need.slots > 1 && now - other.since >= other.patience;
                let waits = |other: &Ticket| self.rooms.schedule.is_waiting(other.id);
                assert!(
                    self.tickets
                        .values()
                        .any(|other| wide(other) && waits(other)),
                    "{told}"
                );
                continue;
            }
            let weight = members.iter().find(|m| m.0 == *id).unwrap().1;
            let against = self.against(now, &ticket, *id, weight);
            let reason = against.into_iter().find(|reason| why.contains(reason));
            let Some(reason) = reason else {
                panic!("{why} ({id:?}): {told}")
            };
            *self.told.reasons.entry(reason).or_default() += 1;
        }
        let all_failed = decision
            .considered
            .iter()
            .all(|c| ticket.excluded.contains(&c.endpoint));
        for Considered { endpoint, .. } in &decision.considered {
            let weight = members.iter().find(|m| m.0 == *endpoint).unwrap().1;
            // As it was when it was planned.
            let usable = self.rooms.fleet.get(*endpoint).unwrap().is_usable()
                || self.before[endpoint].0
                || self.given.contains(endpoint);
            let mut all = books.iter().map(|book| {
                let mut against = self.against(book, &ticket, *endpoint, weight);
                against.retain(|why| !(all_failed && *why == "it failed this before"));
                against.retain(|why| !(usable && *why == "it is "));
                against
            });
            let of_then = all.find(Vec::is_empty);
            let against = self.against(now, &ticket, *endpoint, weight);
            assert!(of_then.is_some(), "{against:?} ({endpoint:?}): {told}");
            // What it got it may have now.
            if *endpoint == decision.endpoint {
                assert!(
                    !against
                        .iter()
                        .any(|why| why.contains("US") || why.contains("cost")),
                    "{against:?}: {told}"
                );
            }
        }
        // What it got is one of those, and had room.
        let got = decision
            .considered
            .iter()
            .find(|c| c.endpoint == decision.endpoint);
        let Some(got) = got else { panic!("{told}") };
        assert!(got.room, "{told}");
        // Each term is that of then: of when it was planned, where several were at once.
        for considered in &decision.considered {
            let weight = members
                .iter()
                .find(|m| m.0 == considered.endpoint)
                .unwrap()
                .1;
            let wrong: Vec<String> = books
                .iter()
                .map_while(|book| self.wrong(book, &ticket, considered, weight))
                .collect();
            assert!(wrong.len() < books.len(), "{wrong:?}: {told}");
        }
        self.check_choice(&ticket, decision, got, now, &told);
        self.is_fair(&ticket, decision.endpoint, now, &told);
        self.told.decisions += 1;
        let waited = decision.waited.as_secs_f64();
        self.seen.push(format!(
            "{:?} {:?} {:?} {waited} {:?} {:?}",
            decision.ticket, decision.endpoint, decision.how, decision.considered, decision.unfit
        ));
    }

    /// One of a flood takes what somebody could have who asks now and then no more often than there are slots that this one
    /// does not wait for.
    fn is_fair(&mut self, ticket: &Ticket, endpoint: EndpointId, book: &Book, told: &str) {
        self.overtaken.remove(&ticket.id);
        if &*ticket.need.tenant != "flood" || ticket.need.interactive {
            return;
        }
        let waiting: Vec<TicketId> = self.overtaken.keys().copied().collect();
        for id in waiting {
            let other = self.tickets[&id].clone();
            let could = self.against(book, &other, endpoint, 1).is_empty();
            if other.pool == ticket.pool && could {
                let times = self.overtaken.entry(id).or_default();
                *times += 1;
                self.told.overtaken = self.told.overtaken.max(*times);
            }
        }
        let most = self.told.overtaken;
        assert!(most <= OVERTAKEN, "{most} times: {told}");
    }

    /// What is wrong with the terms of one that was considered.
    fn wrong(
        &mut self,
        book: &Book,
        ticket: &Ticket,
        said: &Considered,
        weight: u32,
    ) -> Option<String> {
        let (endpoint, terms) = (said.endpoint, said.terms);
        let used = book.used(self.rooms.fleet.get(endpoint).unwrap());
        let free = used + ticket.need.slots <= self.rooms.fleet.get(endpoint).unwrap().slots();
        // Before the event, after it, and meanwhile where it was given something.
        let mut holds = vec![
            self.before[&endpoint].1,
            self.rooms.fleet.get(endpoint).unwrap().holds_card(),
        ];
        holds.extend(self.given.contains(&endpoint).then_some(true));
        let mut own = Terms::default();
        if ticket.policy.mode() != Mode::Load {
            own = self.terms(book, ticket, endpoint, weight);
            own.wait_s = self.wait_s(book, &ticket.need, endpoint);
            own = odd(&ticket.need, endpoint, own);
            own.switch_s = terms.switch_s;
            let switches = [0.0, 10.0];
            if !holds
                .iter()
                .any(|held| switches[usize::from(!held)] == terms.switch_s)
            {
                return Some(format!("switch_s of {said:?}"));
            }
        }
        // In turn, those who were to go before it count.
        let after_others = self.queued && matches!(ticket.policy.mode(), Mode::InTurn { .. });
        if after_others && own.wait_s <= terms.wait_s {
            own.wait_s = terms.wait_s;
        }
        let taken = after_others && terms.wait_s > 0.0;
        if !holds
            .iter()
            .any(|held| said.room == (free && *held && !taken))
        {
            return Some(format!("room of {said:?}: used {used}, held {holds:?}"));
        }
        let pairs = [
            ("load_s", own.load_s, terms.load_s),
            ("run_s", own.run_s, terms.run_s),
            ("price_s", own.price_s, terms.price_s),
            ("explore_s", own.explore_s, terms.explore_s),
            ("wait_s", own.wait_s, terms.wait_s),
        ];
        for (name, own, said) in pairs {
            if !near(own, said) {
                return Some(format!("{name} of {endpoint:?}: is {own}, said {said}"));
            }
        }
        for (name, own, _) in pairs {
            *self.told.terms.entry(name).or_default() += usize::from(own != 0.0);
        }
        *self.told.terms.entry("switch_s").or_default() += usize::from(terms.switch_s != 0.0);
        let sum = terms.wait_s
            + terms.switch_s
            + terms.load_s
            + terms.run_s
            + terms.price_s
            + terms.explore_s;
        let total = super::TermsView::from(terms).total_s;
        (!near(sum, total)).then(|| format!("the sum is {sum}, and {total} is said"))
    }

    /// By the rule that is said, it is the one that was to be chosen.
    fn check_choice(
        &mut self,
        ticket: &Ticket,
        decision: &Decision,
        got: &Considered,
        book: &Book,
        told: &str,
    ) {
        let total = |c: &Considered| c.terms.total_s();
        let least = decision
            .considered
            .iter()
            .map(total)
            .fold(f64::INFINITY, f64::min);
        let word = match decision.how {
            How::Picked => "picked",
            How::InTurn => "in_turn",
            How::Matched { .. } => "matched",
            How::New => "new",
            How::MostLost { .. } => "most_lost",
            How::OutOfPatience => "out_of_patience",
        };
        *self.told.how.entry(word).or_default() += 1;
        match (decision.how, ticket.policy.mode()) {
            (How::Picked, Mode::Load) => {
                let load = |id| {
                    let endpoint = self.rooms.fleet.get(id).unwrap();
                    let mut members = self.rooms.pools.members(ticket.pool).iter();
                    let weight = members.find(|m| m.0 == id).unwrap().1;
                    let with = book.used(endpoint) + ticket.need.slots;
                    f64::from(with) / f64::from(endpoint.slots()) / f64::from(weight)
                };
                let open = decision.considered.iter().filter(|c| c.room);
                let lightest = open.map(|c| load(c.endpoint)).fold(f64::INFINITY, f64::min);
                assert!(near(load(got.endpoint), lightest), "{told}");
            }
            (How::Picked, _) => assert!(near(total(got), least), "{told}"),
            // One that is like it was to go there: but for their sizes it is the least as well.
            (How::InTurn, Mode::InTurn { .. }) => {}
            (How::Matched { .. }, Mode::Match(_)) => {}
            (How::MostLost { loss }, Mode::Match(_)) => {
                let age_s = (self.now - ticket.since).as_secs_f64() + 1.0;
                let weight = f64::from(3 - i32::from(ticket.need.urgency.value())).exp2();
                let own = weight * age_s / (got.terms.occupied_s() + got.terms.price_s);
                assert!(near(own, loss), "{own}: {told}");
            }
            (How::New, Mode::Match(_)) => {
                let row = self.rooms.times.row(&ticket.service, &ticket.need);
                assert!(row.is_new(), "{told}");
            }
            (How::OutOfPatience, _) => assert!(decision.waited >= ticket.patience, "{told}"),
            _ => panic!("{told}"),
        }
    }
}

const POLICIES: [&str; 3] = ["least_loaded", "fastest", "match"];

fn ran(policy: &str, price: [&str; 2], seed: u64, asks: bool, until_s: f64) -> World {
    let mut world = World::new(policy, price, seed, asks);
    world.run(until_s);
    world
}

#[test]
fn what_is_told_of_a_decision_is_what_was_done() {
    for (policy, hows) in POLICIES.iter().zip([
        &["picked"][..],
        &["picked", "in_turn", "out_of_patience"],
        &["matched", "most_lost"],
    ]) {
        let mut reasons = BTreeSet::new();
        for (i, price) in PRICES.iter().enumerate() {
            let told = ran(policy, *price, 17 + i as u64, true, 1000.0).told;
            assert!(told.decisions > 150, "{policy}: {told:?}");
            assert!(told.foretold > 1, "{policy}: {told:?}");
            let missed = hows.iter().find(|how| !told.how.contains_key(*how));
            assert_eq!(missed, None, "{policy}: {told:?}");
            let of_terms = told.terms.values().filter(|seen| **seen > 20).count();
            let all = if *policy == "least_loaded" { 0 } else { 6 };
            assert_eq!(of_terms, all, "{policy}: {told:?}");
            reasons.extend(told.reasons.into_keys());
        }
        assert_eq!(reasons.len(), 12, "{policy}: {reasons:?}");
    }
}

#[test]
fn what_is_kept_within_a_pass_is_what_would_be_worked_out_anew() {
    // Where no card changes hands and nothing is dear: else nothing is kept.
    let file = FILE.replace("    sharing: exclusive\n", "");
    for policy in ["fastest", "match"] {
        for seed in 0..4 {
            let before = CHECKED.get();
            let mut world = World::of(&file, policy, PRICES[0], seed, seed % 2 == 0);
            world.run(600.0);
            let kept = CHECKED.get() - before;
            assert!(kept > 100, "{policy}: {kept}");
            assert!(world.told.decisions > 100, "{policy}: {:?}", world.told);
        }
    }
}

#[test]
fn the_same_seed_decides_the_same_twice_whether_anybody_asks_or_not() {
    for policy in POLICIES {
        let [asked, unasked] =
            [true, false].map(|asks| ran(policy, PRICES[1], 3, asks, 400.0).seen);
        assert!(asked.len() > 60, "{policy}: {}", asked.len());
        let differs = asked.iter().zip(&unasked).find(|(a, b)| a != b);
        assert_eq!(differs, None, "{policy}");
        assert_eq!(asked.len(), unasked.len(), "{policy}");
    }
}

/// Both slots of the only node for a class are there at once, for two that waited.
fn two_for_one_node(price: &str) -> World {
    let mut world = World::new("match", [price; 2], 1, false);
    world.lost(0);
    let big = world.on(0)[0];
    while world.rooms.fleet.usable(big) {
        world.probe(big);
    }
    for _ in 0..2 {
        world.ask(2, 0, 1.0, Vec::new(), world.now);
    }
    assert_eq!(world.rooms.schedule.waiting(), 2);
    world.down.clear();
    while !world.rooms.fleet.usable(big) {
        world.probe(big);
    }
    world
}

#[test]
fn money_that_the_first_of_two_spends_is_not_there_for_the_second() {
    let rich = two_for_one_node("price: {usd_per_hour: 1}");
    assert_eq!(rich.told.decisions, 2);
    let enough_for_one = 0.75 * rich.rooms.spent_usd("one", rich.now);
    let poor = two_for_one_node(&format!("price: {{usd_per_hour: {enough_for_one}}}"));
    assert_eq!(poor.told.decisions, 1);
}

#[test]
fn a_slot_that_cools_comes_free_before_one_that_works() {
    let mut world = two_for_one_node("price: {usd_per_hour: 1}");
    let big = world.on(0)[0];
    let id = world.book.at_work[&big][0].ticket;
    world.over(id, big, End::Aborted { began: true });
    let ticket = world.tickets[&id].clone();
    let looked = world.rooms.look(&ticket, world.now);
    let of_big = looked.iter().find(|looked| looked.endpoint == big);
    let wait_s = of_big.unwrap().terms.unwrap().wait_s;
    assert!(wait_s <= 1.0, "{wait_s}");
}
