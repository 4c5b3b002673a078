//! The rooms of floor 2, and where they meet: pure, on any clock, so that what is simulated is what is done.

use super::fit::{self, Miss};
use super::pools::Pools;
use super::room::{FleetRoom, lacks_of_kind, share};
use super::shortages::Shortages;
use super::spending::{self, Spending};
use super::times::{Held, Times};
use crate::config::plan::{HoldPlan, Plan, Sharing};
use crate::fleet::{self, End, Fleet};
use crate::schedule::{self, Decision, PoolId, Room, Schedule, Span, Ticket, TicketId};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tabane_api::{EndpointId, Need, Terms};

/// How often a card that changes hands may have others given, in one instant: each time somebody holds who did not, so it
/// comes to an end by itself, long before this.
const TURNS: usize = 64;

/// Who can work, who waits, which endpoints each pool has, and how long work takes.
pub struct Rooms {
    /// Who can work.
    pub fleet: Fleet,
    /// Who waits.
    pub schedule: Schedule,
    /// The pools of now.
    pub pools: Pools,
    /// Learned times, and the work they are held against.
    pub times: Times,
    /// What services spend.
    spending: Spending,
    /// Which classes ran out of memory where.
    pub shortages: Shortages,
    /// Whether any endpoint has a largest size.
    sized: bool,
    /// What was decided last.
    decided: VecDeque<Decision>,
}

/// So many decisions are kept, for whoever asks why.
const KEPT: usize = 4096;

/// How the work of a ticket ended.
#[derive(Clone, Copy, Debug)]
pub struct Over<'a> {
    /// Whose it was.
    pub ticket: TicketId,
    /// Where.
    pub endpoint: EndpointId,
    /// That one's name.
    pub name: &'a str,
    /// How many slots it held.
    pub slots: u32,
    /// How it ended.
    pub end: End,
    /// How long its slots cool when it was broken off.
    pub cool_down: Duration,
    /// Whether what was asked for was done: how long it took is worth learning.
    pub well: bool,
}

/// An endpoint of a pool, as it stands to one ticket.
#[derive(Clone, Debug)]
pub struct Looked {
    /// Which.
    pub endpoint: EndpointId,
    /// Its weight in the pool.
    pub weight: u32,
    /// Whether the work could begin there now.
    pub room: bool,
    /// What it would cost; `None`: it cannot serve it.
    pub terms: Option<Terms>,
    /// Why it cannot.
    pub excluded: Option<String>,
}

// === impl Rooms ===

impl Rooms {
    /// Nobody can work, and nobody waits.
    pub fn new(schedule: Schedule) -> Self {
        Rooms {
            fleet: Fleet::new(),
            schedule,
            pools: Pools::default(),
            times: Times::default(),
            spending: Spending::default(),
            shortages: Shortages::default(),
            sized: false,
            decided: VecDeque::new(),
        }
    }

    /// Puts a plan in place of the one before: its endpoints, its pools, its weights. Who waits is to look again.
    pub fn install(&mut self, plan: &Plan, now: Instant) -> Vec<fleet::Action> {
        let actions = self.fleet.apply(fleet::Event::Plan(specs(plan)), now);
        let ids: Vec<Option<EndpointId>> = plan
            .endpoints
            .iter()
            .map(|e| self.fleet.by_name(&e.name))
            .collect();
        let pools: Vec<_> = plan
            .pools
            .iter()
            .map(|pool| {
                let members = pool.members.iter();
                let members = members.filter_map(|m| Some((ids[m.endpoint]?, m.weight)));
                (self.pools.id(&pool.name), members.collect())
            })
            .collect();
        self.pools.replace(pools);
        self.times.weigh(plan, &self.fleet);
        self.regroup(now);
        actions
    }

    /// Lets something happen to the fleet, and gives what comes free to those who wait.
    pub fn apply(
        &mut self,
        event: fleet::Event,
        now: Instant,
    ) -> (Vec<fleet::Action>, Vec<schedule::Action>) {
        if let fleet::Event::Probed {
            endpoint,
            outcome: Ok(vitals),
            ..
        } = &event
        {
            self.times.probed(*endpoint, vitals);
        }
        let mut actions = self.turn(event, now);
        let freed = actions.contains(&fleet::Action::Freed);
        let mut given = Vec::new();
        if freed && self.schedule.waiting() > 0 {
            let (more, to_tickets) = self.schedule(schedule::Event::Freed, now);
            actions.extend(more);
            given = to_tickets;
        }
        (actions, given)
    }

    /// Lets something happen to those who wait. Where cards are shared, those who hold them are told who waits, and what
    /// comes of that is given away as well.
    pub fn schedule(
        &mut self,
        event: schedule::Event,
        now: Instant,
    ) -> (Vec<fleet::Action>, Vec<schedule::Action>) {
        let mut given = self.pass(event, now);
        let mut actions = Vec::new();
        if !self.fleet.shares() {
            return (actions, given);
        }
        for _ in 0..TURNS {
            let want = |want: &schedule::Want| fleet::Want {
                endpoint: want.endpoint,
                since: want.since,
                interactive: want.interactive,
                patience: want.patience,
            };
            let wants = self.schedule.wants().map(want).collect();
            let more = self.turn(fleet::Event::Wanted(wants), now);
            let freed = more.contains(&fleet::Action::Freed);
            actions.extend(more);
            if !freed {
                break;
            }
            given.extend(self.pass(schedule::Event::Freed, now));
        }
        (actions, given)
    }

    /// Lets something happen to the fleet, and no more.
    fn turn(&mut self, event: fleet::Event, now: Instant) -> Vec<fleet::Action> {
        let actions = self.fleet.apply(event, now);
        for action in &actions {
            if let fleet::Action::Down(endpoint, _)
            | fleet::Action::Gone(endpoint)
            | fleet::Action::Release(endpoint) = action
            {
                self.times.emptied(*endpoint);
            }
        }
        actions
    }

    /// Those who wait, and the room that they look at, as it is now.
    fn meet(&mut self, now: Instant) -> (&mut Schedule, FleetRoom<'_>) {
        self.times.refresh();
        let room = FleetRoom {
            fleet: &mut self.fleet,
            pools: &self.pools,
            times: &mut self.times,
            spending: &mut self.spending,
            shortages: &self.shortages,
            slots: RefCell::default(),
            now,
        };
        (&mut self.schedule, room)
    }

    fn pass(&mut self, mut event: schedule::Event, now: Instant) -> Vec<schedule::Action> {
        if let schedule::Event::Arrived(ticket) = &mut event
            && !ticket.price.spill_after.is_zero()
        {
            ticket.before_s = self.unpaid_wait_s(ticket, now);
        }
        if let schedule::Event::Arrived(ticket) = &mut event {
            ticket.barred = self.barred(ticket, now);
            // What is over in a moment need not be estimated; of what will wait, a backlog is made.
            if ticket.expected == Span::default() && ticket.need.slots > 0 {
                let room = self.pools.members(ticket.pool).iter().any(|(id, _)| {
                    let endpoint = self.fleet.get(*id).filter(|e| e.is_usable());
                    endpoint.is_some_and(|e| e.used() < e.slots())
                });
                if !room {
                    let (service, pool) = (ticket.service.clone(), ticket.pool);
                    ticket.expected = self.expected(&service, pool, &ticket.need);
                }
            }
        }
        let may_pay_later = match &event {
            schedule::Event::Arrived(ticket) => {
                spending::may_pay_later(ticket).then_some(ticket.id)
            }
            _ => None,
        };
        let (schedule, mut room) = self.meet(now);
        let actions = schedule.apply(event, &mut room, now);
        if let Some(ticket) = may_pay_later.filter(|ticket| self.schedule.is_waiting(*ticket)) {
            self.spending.waits(ticket, now);
        }
        self.decided.extend(self.schedule.decisions());
        let surplus = self.decided.len().saturating_sub(KEPT);
        self.decided.drain(..surplus);
        actions
    }

    /// What a service has spent in the last hour on nodes that have a price, USD.
    pub fn spent_usd(&self, service: &str, now: Instant) -> f64 {
        self.spending.in_last_hour(service, now)
    }

    /// What was decided last, the latest at the end: at most 4096.
    pub fn decided(&self) -> impl DoubleEndedIterator<Item = &Decision> {
        self.decided.iter()
    }

    /// Who could serve a ticket now, with room or without, by what terms; and who could not, and why.
    pub fn look(&mut self, ticket: &Ticket, now: Instant) -> Vec<Looked> {
        let (_, room) = self.meet(now);
        let mut among = Vec::new();
        room.candidates(ticket, &mut among);
        let looked = |(id, weight): &(EndpointId, u32)| {
            let endpoint = room.fleet.get(*id)?;
            let candidate = among.iter().find(|c| c.id == *id);
            let excluded = match candidate {
                Some(_) => None,
                None => room.why_not(ticket, endpoint, *weight),
            };
            Some(Looked {
                endpoint: *id,
                weight: *weight,
                room: candidate.is_some_and(|c| c.has_room(&ticket.need)),
                terms: candidate.map(|c| c.terms),
                excluded,
            })
        };
        let members = room.pools.members(ticket.pool).iter();
        members.filter_map(looked).collect()
    }

    /// What a ticket would get now if nobody else waited; `None`: it would wait.
    pub fn would(&mut self, ticket: &Ticket, now: Instant) -> Option<EndpointId> {
        let (schedule, room) = self.meet(now);
        schedule.would(ticket, &room, &mut rand::rng(), now)
    }

    /// When time alone changes something.
    pub fn next_due(&self) -> Option<Instant> {
        let dues = [
            self.fleet.next_due(),
            self.schedule.next_due(),
            self.shortages.next_due(),
            self.spending.next_due(),
        ];
        dues.into_iter().flatten().min()
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Instant) -> (Vec<fleet::Action>, Vec<schedule::Action>) {
        let (mut actions, mut given) = self.apply(fleet::Event::Tick, now);
        let is_due = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        let lapsed = is_due(self.shortages.next_due());
        if lapsed {
            self.shortages.lapse(now);
            self.rebar(now);
        }
        let paid = is_due(self.spending.next_due())
            && (self.spending).look(|ticket| self.schedule.is_waiting(ticket), now);
        if lapsed || paid || is_due(self.schedule.next_due()) {
            let (more, to_tickets) = self.schedule(schedule::Event::Freed, now);
            actions.extend(more);
            given.extend(to_tickets);
        }
        (actions, given)
    }

    /// A ticket's work is over on an endpoint: what went well is learned from, its tenant is charged, and its slots go back.
    pub fn ended(
        &mut self,
        over: &Over<'_>,
        now: Instant,
    ) -> (Vec<fleet::Action>, Vec<schedule::Action>) {
        let Over {
            ticket,
            endpoint,
            name,
            slots,
            end,
            cool_down,
            well,
        } = *over;
        let held = self
            .times
            .ended(ticket, (endpoint, name), well && end == End::Done, now);
        if let Some(Held {
            service,
            seconds,
            slots,
            usd,
        }) = held
        {
            let (of, usd_per_hour) = self.fleet.get(endpoint).map_or((1, 0.0), |endpoint| {
                (endpoint.slots(), endpoint.node().usd_per_hour)
            });
            let cost = share(slots, of) * seconds * usd_per_hour / 3600.0;
            self.spending.spend(&service, cost - usd, now);
            self.pass(
                schedule::Event::Ended(ticket, share(slots, of) * seconds),
                now,
            );
        }
        let event = fleet::Event::Ended {
            endpoint,
            slots,
            end,
            cool_down,
        };
        self.apply(event, now)
    }

    /// Pools that share nodes take turns among the same tenants: which of them belong together.
    fn regroup(&mut self, now: Instant) {
        let domains = self.pools.domains(&self.fleet);
        self.pass(schedule::Event::Domains(domains), now);
        self.rebar(now);
    }

    /// Who waits may be barred from other endpoints than before: the plan changed, what was learned of memory, or what a kind
    /// knows.
    pub fn rebar(&mut self, now: Instant) {
        let mut all = self.fleet.all();
        self.sized = all.any(|endpoint| endpoint.takes().max_size.is_some());
        let (fleet, pools, shortages, sized) =
            (&self.fleet, &self.pools, &self.shortages, self.sized);
        self.schedule
            .rebar(|ticket| barred((fleet, pools, shortages), ticket, sized, now));
    }

    /// Why no endpoint of the pool could ever serve a need; `None` when one could, or when there is none at all.
    pub fn nobody_fits(&self, pool: PoolId, need: &Need) -> Option<String> {
        let misses = self.misses(pool, need, |miss, _| {
            miss.lacks.retain(fit::Lack::lasts);
        })?;
        Some(fit::why(&misses))
    }

    /// Why no endpoint of the pool could serve a need of this service today: of those that could, its class ran out of memory.
    pub fn nobody_bears(
        &self,
        service: &Arc<str>,
        pool: PoolId,
        need: &Need,
        now: Instant,
    ) -> Option<String> {
        let short = self.shortages.of(service, need)?;
        let misses = self.misses(pool, need, |miss, endpoint| {
            miss.lacks.retain(fit::Lack::lasts);
            miss.lacks
                .extend(short.lack(&need.class, &endpoint.node().name, now));
        })?;
        Some(fit::why(&misses))
    }

    /// What an endpoint lacks for a need of this service now; `None`: it fits.
    pub fn miss(
        &self,
        service: &Arc<str>,
        need: &Need,
        endpoint: &fleet::Endpoint,
        now: Instant,
    ) -> Option<Miss> {
        let short = self.shortages.of(service, need);
        let learned = short.and_then(|s| s.lack(&need.class, &endpoint.node().name, now));
        let lacks: Vec<fit::Lack> = fit::lacks(need, endpoint).chain(learned).collect();
        (!lacks.is_empty()).then(|| Miss {
            endpoint: endpoint.name().clone(),
            lacks,
        })
    }

    /// What each endpoint of the pool lacks, of what `counts` leaves or adds; `None` when one lacks nothing, or the pool is
    /// empty.
    fn misses(
        &self,
        pool: PoolId,
        need: &Need,
        counts: impl Fn(&mut Miss, &fleet::Endpoint),
    ) -> Option<Vec<Miss>> {
        let members = self.pools.members(pool).iter();
        let mut misses = Vec::new();
        for endpoint in members.filter_map(|(id, _)| self.fleet.get(*id)) {
            let mut miss = Miss {
                endpoint: endpoint.name().clone(),
                lacks: fit::lacks(need, endpoint).collect(),
            };
            counts(&mut miss, endpoint);
            if miss.lacks.is_empty() {
                return None;
            }
            misses.push(miss);
        }
        (!misses.is_empty()).then_some(misses)
    }

    fn barred(&self, ticket: &Ticket, now: Instant) -> Vec<EndpointId> {
        let rooms = (&self.fleet, &self.pools, &self.shortages);
        barred(rooms, ticket, self.sized, now)
    }
}

/// The endpoints that others with a ticket's needs may get, and it may not.
fn barred(
    (fleet, pools, shortages): (&Fleet, &Pools, &Shortages),
    ticket: &Ticket,
    sized: bool,
    now: Instant,
) -> Vec<EndpointId> {
    let short = shortages.of(&ticket.service, &ticket.need);
    let bars = |endpoint: &fleet::Endpoint| {
        let most = endpoint.takes().max_size;
        most.is_some_and(|most| ticket.need.size > most)
            || short.is_some_and(|short| !short.spares(&endpoint.node().name, now))
    };
    let is_out = |id: EndpointId| {
        // Requests come by the thousand each second: the fleet is asked where it may matter.
        let may_bar = sized || short.is_some();
        lacks_of_kind(ticket, id).is_some() || (may_bar && fleet.get(id).is_some_and(bars))
    };
    let members = pools.members(ticket.pool).iter();
    let out = members.filter(|(id, _)| is_out(*id));
    out.map(|(id, _)| *id).collect()
}

/// The fleet's view of a plan.
fn specs(plan: &Plan) -> Vec<fleet::Spec> {
    // A removed node may go on for as long as the most patient of the services that use it says.
    let mut drains = vec![Duration::ZERO; plan.endpoints.len()];
    let mut holds: Vec<Option<HoldPlan>> = vec![None; plan.endpoints.len()];
    for service in &plan.services {
        for member in &plan.pools[service.pool].members {
            drains[member.endpoint] = drains[member.endpoint].max(service.drain);
            let hold = holds[member.endpoint].get_or_insert(service.gpu_hold);
            hold.min = hold.min.max(service.gpu_hold.min);
            hold.max = hold.max.max(service.gpu_hold.max);
        }
    }
    // An endpoint that no pool holds is nobody's business; `check` has warned of it.
    plan.endpoints
        .iter()
        .zip(drains.into_iter().zip(holds))
        .filter_map(|(endpoint, (drain, hold))| {
            let node = &plan.nodes[endpoint.node];
            let claim = |whole| fleet::Claim {
                whole,
                vram_mib: endpoint.vram_mib,
                hold: hold.unwrap_or_default(),
            };
            Some(fleet::Spec {
                name: endpoint.name.clone(),
                node: node.facts.clone(),
                target: endpoint.target.clone(),
                slots: endpoint.slots,
                slots_said: endpoint.slots_said,
                takes: fleet::Takes {
                    models: endpoint.models.clone(),
                    max_size: endpoint.max_size,
                },
                drained: node.drained,
                health: plan.services[endpoint.probed_by?].health,
                drain,
                claim: match node.sharing {
                    Sharing::Free => None,
                    Sharing::Exclusive => Some(claim(true)),
                    Sharing::Fits => Some(claim(false)),
                },
            })
        })
        .collect()
}
