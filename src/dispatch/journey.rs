//! The way of one request: who and where, what it asks for, and the lease it gets or waits for.

use super::hooks::guarded;
use super::waiters::{Tell, Waiter};
use super::world::{ListenerKey, LiveService, World};
use super::{Dispatch, Lease, Shared, now};
use crate::access::Identity;
use crate::config::plan::{JobsMode, Priority, RouteOptions};
use crate::fleet::End;
use crate::jobs;
use crate::schedule::{self, AskedAs, QueueLimits, Share, Span, Ticket, TicketId, Turn};
use crate::telemetry::Event;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tabane_api::{Ask, Caller, Choice, EndpointId, Intent, Key, Need, Refusal, Urgency};
use tokio::sync::oneshot;

/// One request under way: the service of the world it began with, who asks, and what it needs.
pub struct Journey {
    /// The service it is for.
    pub service: Arc<LiveService>,
    /// What its route does differently.
    pub options: RouteOptions,
    /// Who asks.
    pub caller: Caller,
    /// The headers that carried the tenant's key: not the node's business.
    pub key_headers: Vec<HeaderName>,
    /// What it needs; a placeholder until [`Journey::classify`] said.
    need: Need,
    /// The most urgent that its tenant's jobs may ask for.
    cap: Urgency,
    /// What its tenant may have.
    share: Share,
    /// How many requests of its tenant may wait at once.
    max_waiting: Option<usize>,
    /// Its id, by which an operator may ask about it.
    id: HeaderValue,
    /// The one endpoint it is for.
    pinned: Option<EndpointId>,
    /// The ways to serve it that are left, where it is relayed.
    choices: VecDeque<Choice>,
    /// For how long a node is waited for, where another way is left.
    max_wait: Option<Duration>,
    /// Endpoints that failed it.
    excluded: Vec<EndpointId>,
    arrived: Instant,
}

/// When a tenant that has as many waiting as it may should come back: one of them may have had its turn by then.
const COME_BACK: Duration = Duration::from_secs(5);

/// What comes next for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Its kind has to see the whole body first, up to so many bytes; then classify again.
    ReadBody {
        /// The largest body the kind takes.
        max: u64,
    },
    /// What it needs, or what ties it to a node, may stand in its body, if that fits into memory; then classify again.
    ReadKey,
    /// It wants a lease, and is forwarded.
    Lease,
    /// It is relayed, each of its choices with a lease: [`Journey::next_choice`].
    Relay,
    /// Its kind answers, given the body.
    Answer {
        /// The largest body the kind takes.
        max: u64,
    },
    /// Its kind speaks on this socket.
    Socket,
}

// === impl Dispatch ===

impl Dispatch {
    /// Finds out who asks and for which service, in the world that the request read when it came.
    ///
    /// Errors: with the service, where it is known, so that the refusal can take its shape.
    pub fn enter(
        &self,
        world: &World,
        listener: &ListenerKey,
        host: &str,
        path: &str,
        headers: &HeaderMap,
        from: IpAddr,
    ) -> Result<Journey, (Refusal, Option<Arc<LiveService>>)> {
        if self.0.closing.load(Ordering::Acquire) {
            return Err((Refusal::ShuttingDown, None));
        }
        // Who, before where: one without a key does not learn which paths are served.
        let identity = world
            .access
            .identify(headers, from, listener.address.ip().is_loopback());
        let (service, options) = match (world.route(listener, host, path), &identity) {
            (Ok(found), _) => found,
            (Err(_), Err(refusal)) => return Err((refusal.clone(), None)),
            (Err(refusal), Ok(_)) => return Err((refusal, None)),
        };
        let Identity {
            caller, matched, ..
        } = match identity {
            Ok(identity) => identity,
            Err(refusal) => return Err((refusal, Some(service))),
        };
        Ok(Journey {
            need: Need::of_class(""),
            cap: world.priority_cap(&caller.tenant),
            share: world.share(&caller.tenant),
            max_waiting: world.max_waiting(&caller.tenant),
            id: HeaderValue::from_static("-"),
            pinned: None,
            choices: VecDeque::new(),
            max_wait: None,
            excluded: Vec::new(),
            arrived: now(),
            service,
            options,
            caller,
            key_headers: matched,
        })
    }

    /// Finds out who asks, where no service is asked for.
    ///
    /// Errors: `Unauthorized`, or the gateway goes down.
    pub fn identify(
        &self,
        world: &World,
        listener: &ListenerKey,
        headers: &HeaderMap,
        from: IpAddr,
    ) -> Result<Identity, Refusal> {
        if self.is_closing() {
            return Err(Refusal::ShuttingDown);
        }
        let loopback = listener.address.ip().is_loopback();
        world.access.identify(headers, from, loopback)
    }

    /// A journey to a service that is named, not routed to: of a job that is submitted by its service's name.
    ///
    /// Errors: there is no such service, it takes no jobs, or its kind refuses the request.
    pub fn journey_to(
        &self,
        world: &World,
        service: &str,
        ask: &Ask<'_>,
        body: &Bytes,
    ) -> Result<Journey, Refusal> {
        let Some(service) = world.service(service).cloned() else {
            return Err(Refusal::NoSuch(format!("there is no service `{service}`")));
        };
        let name = service.plan.name.clone();
        // Nobody gets by a name where no route would take them.
        let Some(options) = world.way_to(&name, ask.path) else {
            let why = format!("no route of service `{name}` takes `{}`", ask.path);
            return Err(Refusal::NoSuch(why));
        };
        if options.jobs.unwrap_or(service.plan.jobs.mode) == JobsMode::Off {
            let why = format!("service `{name}` takes no jobs here");
            return Err(Refusal::Forbidden(why));
        }
        let mut journey = Journey {
            need: Need::of_class(""),
            cap: world.priority_cap(&ask.caller.tenant),
            share: world.share(&ask.caller.tenant),
            max_waiting: world.max_waiting(&ask.caller.tenant),
            id: HeaderValue::from_static("-"),
            pinned: None,
            choices: VecDeque::new(),
            max_wait: None,
            excluded: Vec::new(),
            arrived: now(),
            service,
            options,
            caller: ask.caller.clone(),
            key_headers: Vec::new(),
        };
        let mut step = journey.classify(ask, None)?;
        if matches!(step, Step::ReadKey | Step::ReadBody { .. }) {
            step = journey.classify(ask, Some(body))?;
        }
        match step {
            Step::Lease | Step::Relay => Ok(journey),
            _ => {
                let name = &journey.service.plan.name;
                let why =
                    format!("the kind of service `{name}` answers this itself; ask it directly");
                Err(Refusal::BadRequest(why))
            }
        }
    }

    /// Gets slots on an endpoint, at once or after waiting. Dropping the future gives the place up.
    ///
    /// Errors: `QueueFull`, `TenantFull`, `WaitedTooLong`, `NoFit`, `ShuttingDown`.
    pub async fn lease(&self, journey: &Journey) -> Result<Lease, Refusal> {
        let shared = &self.0;
        let id = TicketId(shared.tickets.fetch_add(1, Ordering::Relaxed));
        if let Some(endpoint) = journey.pinned {
            return self.lease_there(journey, endpoint, id);
        }
        let queue = journey.service.plan.queue;
        let ticket = Ticket {
            id,
            asked_as: AskedAs::Request(journey.id.clone()),
            service: journey.service.plan.name.clone(),
            pool: journey.service.pool,
            need: journey.need.clone(),
            policy: journey.service.policy.clone(),
            kind: Some(journey.service.kind.clone()),
            price: journey.service.plan.price,
            excluded: journey.excluded.clone(),
            turn: Turn::Held(journey.arrived),
            since: journey.arrived,
            before_s: 0.0,
            barred: Vec::new(),
            share: journey.share,
            patience: journey.service.plan.patience,
            expected: Span::default(),
            queue: QueueLimits {
                max: queue.max,
                max_wait: queue.max_wait,
            },
        };
        let verdict = shared.turn(|core, now, out| {
            if shared.over.load(Ordering::Acquire) {
                return Err(Refusal::ShuttingDown);
            }
            let Ticket { need, share, .. } = &ticket;
            if let Some(refusal) = core.not_today(&journey.service, need, *share, now) {
                return Err(refusal);
            }
            let own = core
                .schedule(schedule::Event::Arrived(ticket), now, out)
                .into_iter()
                .next();
            if let Some(schedule::Action::Refuse(_, Refusal::QueueFull { service, .. })) = &own {
                shared.means.events.send(Event::QueueFull {
                    service: service.clone(),
                });
            }
            match own {
                Some(action) => core.granted(&action).map(Ok),
                None => {
                    let tenant = &journey.need.tenant;
                    let has = core.waiters.held_by(tenant);
                    if journey.max_waiting.is_some_and(|most| has >= most) {
                        core.schedule(schedule::Event::Left(id), now, out);
                        return Err(Refusal::TenantFull {
                            tenant: tenant.to_string(),
                            has,
                            what: "requests waiting",
                            retry_after: COME_BACK,
                        });
                    }
                    let (tell, told) = oneshot::channel();
                    core.waiters.insert(Waiter {
                        tell: Tell::Client(tell),
                        ticket: id,
                        service: journey.service.clone(),
                        need: journey.need.clone(),
                    });
                    Ok(Err(told))
                }
            }
        })?;
        let told = match verdict {
            Ok(upstream) => {
                return Ok(Lease::new(
                    shared.clone(),
                    id,
                    upstream,
                    journey.service.clone(),
                    journey.need.clone(),
                ));
            }
            Err(told) => told,
        };
        let mut place = Place { shared, id, told };
        // A second attempt keeps its place and its deadline.
        let deadline = journey.arrived + queue.max_wait;
        let deadline = match journey.max_wait {
            Some(most) => deadline.min(now() + most),
            None => deadline,
        };
        tokio::select! {
            biased;
            verdict = &mut place.told => verdict.unwrap_or(Err(Refusal::ShuttingDown)),
            () = tokio::time::sleep_until(deadline.into()) => {
                Err(Refusal::WaitedTooLong { service: journey.service.plan.name.to_string(), waited: now() - journey.arrived })
            }
        }
    }
}

impl Dispatch {
    /// A lease without slots on the one endpoint that a request is for.
    ///
    /// Errors: it is not well, or has left, or failed this request.
    fn lease_there(
        &self,
        journey: &Journey,
        endpoint: EndpointId,
        id: TicketId,
    ) -> Result<Lease, Refusal> {
        let upstream = {
            let mut core = self.0.core.lock();
            let rooms = &mut core.rooms;
            let there = rooms.fleet.get(endpoint).filter(|e| e.is_usable());
            let name = there.map(|there| there.name().clone());
            let taken = name.is_some()
                && !journey.excluded.contains(&endpoint)
                && rooms.fleet.take(endpoint, 0, now());
            match core.upstreams.get(&endpoint).filter(|_| taken) {
                Some(upstream) => upstream.clone(),
                None => {
                    let name = name.as_deref().unwrap_or("that has this");
                    return Err(Refusal::NodeFailed(format!(
                        "the node `{name}` cannot be reached now; try again"
                    )));
                }
            }
        };
        let (service, need) = (journey.service.clone(), journey.need.clone());
        Ok(Lease::new(self.0.clone(), id, upstream, service, need))
    }
}

/// A place in the queue, given up when it is dropped.
struct Place<'a> {
    shared: &'a Arc<Shared>,
    id: TicketId,
    told: oneshot::Receiver<Result<Lease, Refusal>>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.shared.turn(|core, now, out| {
            // Whoever was granted is no longer waiting; leaving twice is nothing.
            if core.waiters.remove(&self.id).is_some() {
                core.schedule(schedule::Event::Left(self.id), now, out);
            }
        });
        // Granted as it left: nothing was sent to the node.
        self.told.close();
        if let Ok(Ok(lease)) = self.told.try_recv() {
            lease.end(End::Unused);
        }
    }
}

// === impl Journey ===

impl Journey {
    /// Reads what the request asks for: its kind's word first, then the route's, then what ties it to a node.
    ///
    /// Errors: the kind's refusal, or `Internal` when the kind or policy panicked.
    pub fn classify(&mut self, ask: &Ask<'_>, body: Option<&Bytes>) -> Result<Step, Refusal> {
        let asked = |body: Option<&Bytes>| {
            guarded(&self.service.plan.name, || {
                self.service.kind.classify(ask, body)
            })?
        };
        let intent = match asked(body)? {
            // What streams is not held for what it may say.
            Intent::WantBody if body.is_none() && self.options.stream => {
                asked(Some(&Bytes::new()))?
            }
            intent => intent,
        };
        let mut relayed = false;
        let mut need = match intent {
            Intent::NeedBody { .. } if body.is_some() => {
                return Err(Refusal::Internal(format!(
                    "the kind of service `{}` asked for the body twice",
                    self.service.plan.name
                )));
            }
            Intent::NeedBody { max } => return Ok(Step::ReadBody { max }),
            Intent::WantBody if body.is_none() => return Ok(Step::ReadKey),
            Intent::WantBody => {
                return Err(Refusal::Internal(format!(
                    "the kind of service `{}` asked for the body twice",
                    self.service.plan.name
                )));
            }
            Intent::Own { max } => return Ok(Step::Answer { max }),
            Intent::Socket => return Ok(Step::Socket),
            Intent::Pinned(endpoint) => {
                self.pinned = Some(endpoint);
                Need::of_class("pinned").without_slot()
            }
            Intent::Forward(need) => need,
            Intent::Relay(choices) => {
                self.choices = choices.into();
                let Some(first) = self.choices.front() else {
                    let why = "its kind knows no way to serve it";
                    return Err(Refusal::Internal(why.into()));
                };
                let need = first.need.clone();
                relayed = true;
                need
            }
        };
        self.complete(&mut need, ask);
        need.key = match guarded(&self.service.plan.name, || {
            self.service.policy.key(ask, body)
        })? {
            Key::None => None,
            Key::Of(key) => Some(key),
            Key::NeedBody if body.is_some() => None,
            Key::NeedBody => return Ok(Step::ReadKey),
        };
        let key = need.key;
        let mut choices = std::mem::take(&mut self.choices);
        for choice in &mut choices {
            self.complete(&mut choice.need, ask);
            choice.need.key = key;
        }
        self.choices = choices;
        self.need = need;
        Ok(if relayed { Step::Relay } else { Step::Lease })
    }

    /// Puts into a need what is the gateway's to say, by the file and by who asks.
    fn complete(&self, need: &mut Need, ask: &Ask<'_>) {
        if let Some(slots) = self.options.slots.filter(|_| self.pinned.is_none()) {
            need.slots = slots;
        }
        need.tenant = self.caller.tenant.clone();
        need.interactive = self
            .options
            .interactive
            .unwrap_or(self.service.plan.interactive);
        need.urgency = match self.options.priority.unwrap_or(self.service.plan.priority) {
            Priority::Fixed(urgency) => urgency,
            Priority::Header => ask.header("priority").and_then(urgency).unwrap_or_default(),
        };
    }

    /// Its kind lets it begin, or not: asked once, before it waits.
    pub fn admit(&self) -> Result<(), Refusal> {
        guarded(&self.service.plan.name, || {
            self.service.kind.admit(&self.need, now())
        })?
    }

    /// Takes up the next way to serve it; `None`: none is left.
    pub fn next_choice(&mut self) -> Option<Choice> {
        let choice = self.choices.pop_front()?;
        self.need = choice.need.clone();
        self.excluded.clear();
        // Of the last one nobody knows a better.
        self.max_wait = choice.max_wait.filter(|_| self.has_choice());
        Some(choice)
    }

    /// Whether another way to serve it is left.
    pub fn has_choice(&self) -> bool {
        !self.choices.is_empty()
    }

    /// How soon it gets its turn as a job.
    pub fn job_urgency(&self, headers: &HeaderMap) -> Urgency {
        let service = self.options.priority.unwrap_or(self.service.plan.priority);
        let asked = headers
            .get("priority")
            .and_then(|value| value.to_str().ok());
        let asked = asked.and_then(urgency).unwrap_or_default().max(self.cap);
        jobs::priority(&self.service.plan.jobs, service, asked)
    }

    /// Whether its service and route let it be accepted for later.
    pub fn jobs_mode(&self) -> JobsMode {
        self.options.jobs.unwrap_or(self.service.plan.jobs.mode)
    }

    /// What it needs.
    pub fn need(&self) -> &Need {
        &self.need
    }

    /// What its tenant may have.
    pub(super) fn share(&self) -> Share {
        self.share
    }

    /// Takes no slot from here on: it is a socket, or something as idle.
    pub fn without_slot(&mut self) {
        self.need.slots = 0;
    }

    /// It is called so.
    pub fn called(&mut self, id: HeaderValue) {
        self.id = id;
    }

    /// This endpoint failed it: the next attempt goes elsewhere if there is an elsewhere.
    pub fn exclude(&mut self, endpoint: EndpointId) {
        if !self.excluded.contains(&endpoint) {
            self.excluded.push(endpoint);
        }
    }

    /// When it came.
    pub fn arrived(&self) -> Instant {
        self.arrived
    }

    /// How long ago it came.
    pub fn age(&self) -> Duration {
        now() - self.arrived
    }
}

/// The urgency in a `Priority` header (RFC 9218, 4.1: a structured-field dictionary; `u=0` to `u=7`).
fn urgency(header: &str) -> Option<Urgency> {
    let value = header
        .split(',')
        .filter_map(|member| member.trim().strip_prefix("u="))
        .next_back()?;
    let digit = value.split(';').next()?.trim().parse::<u8>().ok()?;
    (digit <= 7).then(|| Urgency::new(digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_priority_header_is_read_as_rfc_9218_says() {
        for (header, wants) in [
            ("u=1", Some(1)),
            ("i, u=5", Some(5)),
            ("u=2, u=6;x=1", Some(6)),
            ("u=8", None),
            ("i", None),
            ("", None),
            ("u=x", None),
        ] {
            assert_eq!(urgency(header).map(Urgency::value), wants, "{header}");
        }
    }
}
