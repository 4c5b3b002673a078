//! Who asks, or waits, for what cannot come.
//!
//! Rules.
//! - No endpoint of the pool could ever serve it, as the file stands: whoever asks is refused at once, for now or for later.
//!   When a reload brings this about, whoever holds a connection is refused too. Jobs go on waiting and say why: they were
//!   accepted, and the next file may have what they need.
//! - Of those that could, its class ran out of memory on each: whoever holds a connection is refused, and a job is dead,
//!   since a day is longer than anybody means to wait. It can be retried.

use super::core::{Core, Outbox};
use super::lease::Lease;
use super::runner::Runner;
use super::world::LiveService;
use super::{Dispatch, Journey, Shared};
use crate::fleet::Endpoint;
use crate::schedule::{self, Share, TicketId};
use crate::store::{Changed, JobId, JobRecord};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tabane_api::{EndpointId, Need, Refusal};

/// Where what was learned of memory is kept: beside the values of plugins, under a name that none of them has.
const SPACE: &str = ".gateway";
const KEY: &str = "out_of_memory";

/// How long until a store that did not answer is asked again.
const STORE_AGAIN: Duration = Duration::from_secs(10);

// === impl Dispatch ===

impl Dispatch {
    /// Whether any endpoint of the file could ever serve it.
    ///
    /// Errors: `NoFit`, with the nearest miss.
    pub fn could_ever(&self, journey: &Journey) -> Result<(), Refusal> {
        let core = self.0.core.lock();
        let refusal = core.never(&journey.service, journey.need(), journey.share());
        refusal.map_or(Ok(()), Err)
    }

    /// The same of a job that is to wait again.
    ///
    /// Errors: `NoFit`, with the nearest miss.
    pub fn could_again(&self, job: &JobRecord) -> Result<(), Refusal> {
        let world = self.world();
        let Some((service, share)) =
            world.and_then(|w| Some((w.service(&job.service)?.clone(), w.share(&job.tenant))))
        else {
            // Its service is not in the file now; it may come back.
            return Ok(());
        };
        let refusal = self.0.core.lock().never(&service, &job.need, share);
        refusal.map_or(Ok(()), Err)
    }

    /// Writes what was learned of memory since the last call.
    pub(super) async fn write_shortages(&self) {
        let Some(jobs) = self.jobs() else { return };
        let kept = {
            let shortages = &mut self.0.core.lock().rooms.shortages;
            shortages.changed(super::now(), jobs.now())
        };
        if let Some(kept) = kept
            && let Err(error) = jobs.store().put_value(SPACE, KEY, Some(kept.into())).await
        {
            tracing::warn!(%error, "what was learned of GPU memory cannot be kept");
        }
    }

    /// Takes up what was learned of memory before the gateway went down.
    pub(super) async fn read_shortages(&self) {
        let Some(jobs) = self.jobs() else { return };
        let kept = match jobs.store().value(SPACE, KEY).await {
            Ok(None) => return,
            Ok(Some(kept)) => kept,
            Err(error) => {
                return tracing::warn!(%error, "what was learned of GPU memory cannot be read");
            }
        };
        let shortages = &mut self.0.core.lock().rooms.shortages;
        if let Err(error) = shortages.import(&kept, super::now(), jobs.now()) {
            tracing::warn!(%error, "what was learned of GPU memory is learned anew");
        }
    }
}

// === impl Core ===

impl Core {
    /// Why nobody could ever serve a need of this service, as the file stands.
    pub(super) fn never(
        &self,
        service: &LiveService,
        need: &Need,
        share: Share,
    ) -> Option<Refusal> {
        let why = match share.most {
            Some(most) if most < need.slots => Some(format!(
                "it takes {} slots, and tenant `{}` may have {most} at once (`max_at_work`)",
                need.slots, need.tenant
            )),
            _ => self.rooms.nobody_fits(service.pool, need),
        };
        why.map(|why| no_fit(service, why))
    }

    /// The same, or why nobody could today.
    pub(super) fn not_today(
        &self,
        service: &LiveService,
        need: &Need,
        share: Share,
        now: Instant,
    ) -> Option<Refusal> {
        self.never(service, need, share).or_else(|| {
            let (name, pool) = (&service.plan.name, service.pool);
            let why = self.rooms.nobody_bears(name, pool, need, now)?;
            Some(no_fit(service, why))
        })
    }

    /// Refuses those who hold a connection and wait for what cannot come.
    pub(super) fn refuse_hopeless(&mut self, now: Instant, out: &mut Outbox) {
        let refused: Vec<(TicketId, Refusal)> = self
            .waiters
            .values()
            .filter(|waiter| waiter.is_held())
            .filter_map(|waiter| {
                let share = self.rooms.schedule.ticket(waiter.ticket)?.share;
                let refusal = self.not_today(&waiter.service, &waiter.need, share, now)?;
                Some((waiter.ticket, refusal))
            })
            .collect();
        for (ticket, refusal) in refused {
            if let Some(waiter) = self.waiters.remove(&ticket) {
                self.schedule(schedule::Event::Left(ticket), now, out);
                out.verdicts.push((waiter, Err(refusal)));
            }
        }
    }

    /// Jobs that wait for what cannot come: how many of each service and class, and why the first of them.
    pub(super) fn stuck(&self) -> BTreeMap<(Arc<str>, Arc<str>), (usize, String)> {
        let mut stuck: BTreeMap<_, (usize, String)> = BTreeMap::new();
        for waiter in self.jobs.values().filter_map(|id| self.waiters.get(id)) {
            if let Some(why) = self.rooms.nobody_fits(waiter.service.pool, &waiter.need) {
                let of = (waiter.service.plan.name.clone(), waiter.need.class.clone());
                stuck.entry(of).or_insert((0, why)).0 += 1;
            }
        }
        stuck
    }
}

fn no_fit(service: &LiveService, why: String) -> Refusal {
    Refusal::NoFit {
        service: service.plan.name.to_string(),
        why,
    }
}

// === impl Lease ===

impl Lease {
    /// The node's card was too small for it.
    pub fn ran_out_of_memory(&self) {
        let service = self.service().plan.name.clone();
        self.shared()
            .ran_out_of_memory(&service, self.need(), self.upstream().id);
    }
}

// === impl Shared ===

impl Shared {
    /// A request of this class ran out of memory there.
    pub(super) fn ran_out_of_memory(
        self: &Arc<Self>,
        service: &Arc<str>,
        need: &Need,
        endpoint: EndpointId,
    ) {
        if need.slots == 0 {
            return;
        }
        let kept_away = self.turn(|core, now, out| {
            let node = core.rooms.fleet.get(endpoint).map(Endpoint::node);
            let node = node?.name.clone();
            let away = core.rooms.shortages.note(service, &need.class, &node, now);
            if away {
                core.rooms.rebar(now);
                core.refuse_hopeless(now, out);
            }
            away.then_some(node)
        });
        let Some(node) = kept_away else { return };
        tracing::warn!(%node, %service, class = %need.class,
            "requests of this class ran out of GPU memory there twice; the node gets no more of them for a day");
        self.ask_anew(|waiter| {
            waiter.service.plan.name == *service && waiter.need.class == need.class
        });
    }

    /// Ends a job that nobody can serve today.
    pub(super) fn give_up(self: &Arc<Self>, runner: &Arc<Runner>, job: JobId, why: &Refusal) {
        let (runner, why) = (runner.clone(), why.to_string());
        runner.clone().spawn(async move {
            match runner.jobs.give_up(&job, &why).await {
                Ok(Changed::Now(_)) => tracing::warn!(%job, %why, "a job is dead"),
                // Taken back meanwhile.
                Ok(Changed::Stale) => {}
                Err(error) => {
                    tracing::error!(%job, %error, "cannot write how a job ended; trying again");
                    runner.delay(job, runner.jobs.now().after(STORE_AGAIN));
                }
            }
        });
    }
}
