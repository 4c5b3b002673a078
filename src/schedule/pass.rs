//! One pass over those who wait: whose turn it is tries its lanes, in order, and gets what is free.

use super::decision::{Considered, Decision, How, worth_keeping};
use super::lanes::{Group, Lanes};
use super::matching::{self, Begin, Cell, Job, Slots};
use super::rows::Rows;
use super::ticket::{Place, PoolId, Ticket, TicketId};
use super::worth::Worth;
use super::{Room, Want};
use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;
use tabane_api::{Candidate, Draw, EndpointId, Matching, Mode, Refusal};

/// What is known within one pass: room only shrinks in it, so whoever found none need not try again.
#[derive(Default)]
pub(super) struct Pass {
    /// How far each tenant has come.
    cursors: HashMap<Arc<str>, Place>,
    /// Those of a tenant that were matched and got nothing more.
    matched: HashSet<(Arc<str>, Group)>,
    full: HashMap<PoolId, bool>,
    /// Endpoints that are kept for work of several slots that has waited for as long as it may: work of one slot would take
    /// each slot that comes free, for ever.
    kept: HashSet<EndpointId>,
    /// What was planned for those who had their turn before.
    slots: Slots,
    rows: Rows,
    pub(super) wants: Vec<Want>,
}

/// Whose turn it is.
pub(super) struct Turn<'a> {
    pub(super) tenant: &'a Arc<str>,
    pub(super) lanes: &'a Lanes,
    /// How many slots its work takes.
    pub(super) at_work: u32,
    /// Nobody else waits: all that can be decided may be at once.
    pub(super) alone: bool,
    pub(super) held_back: &'a HashMap<TicketId, Instant>,
    pub(super) now: Instant,
}

/// What a turn comes to. Empty: nothing can be given to this tenant in this pass.
#[derive(Default)]
pub(super) struct Came {
    /// With the node-seconds that each is expected to take.
    pub(super) granted: Vec<(Decision, f64)>,
    pub(super) broken: Vec<(TicketId, Refusal)>,
    /// Who waits beside a free slot.
    pub(super) declined: Vec<TicketId>,
    /// Who does not any more, where that begins anew.
    pub(super) beside_none: Vec<TicketId>,
}

/// What a try came to.
pub(super) enum Tried {
    Granted(Decision, f64),
    Waits(Vec<Want>),
    Broken(Refusal),
}

/// By which rule those who wait are looked at together.
#[derive(Clone, Copy)]
enum Rule {
    Matched(Matching),
    InTurn(usize),
}

fn rule(ticket: &Ticket) -> Option<Rule> {
    match ticket.policy.mode() {
        _ if ticket.need.slots == 0 => None,
        Mode::Load | Mode::Terms => None,
        Mode::InTurn { window } => Some(Rule::InTurn(window)),
        Mode::Match(matching) => Some(Rule::Matched(matching)),
    }
}

/// Whether a ticket is not chosen for alone.
pub(super) fn is_matched(ticket: &Ticket) -> bool {
    rule(ticket).is_some()
}

/// Whether its tenant may have so much more at work.
pub(super) fn may_have(ticket: &Ticket, at_work: u32) -> bool {
    let with = at_work.saturating_add(ticket.need.slots);
    ticket.need.slots == 0 || ticket.share.most.is_none_or(|most| with <= most)
}

// === impl Pass ===

impl Pass {
    /// Those who are not interactive have their turn: tenants begin anew.
    pub(super) fn next_band(&mut self) {
        self.cursors.clear();
        self.matched.clear();
    }

    /// Gives a tenant what its turn comes to.
    pub(super) fn turn(
        &mut self,
        turn: Turn<'_>,
        room: &mut dyn Room,
        draw: &mut dyn Draw,
        worth: &mut Worth,
    ) -> Came {
        let mut came = Came::default();
        loop {
            let cursor = self.cursors.get(turn.tenant).copied();
            let Some(ticket) = turn.lanes.next_head(cursor) else {
                return came;
            };
            let group = Group::of(ticket);
            let done = is_matched(ticket) && self.matched.contains(&(turn.tenant.clone(), group));
            let skip = done
                || !may_have(ticket, turn.at_work)
                || (ticket.need.slots > 0 && !self.has_room(ticket.pool, room));
            if skip {
                self.cursors.insert(turn.tenant.clone(), ticket.place());
                continue;
            }
            if let Some(how) = rule(ticket) {
                self.match_group(&turn, group, how, room, worth, &mut came);
                if came.granted.is_empty() {
                    self.matched.insert((turn.tenant.clone(), group));
                    continue;
                }
                self.full.clear();
                return came;
            }
            self.cursors.insert(turn.tenant.clone(), ticket.place());
            match attempt_beside(ticket, &self.kept, room, draw, turn.now) {
                Tried::Granted(decision, node_s) => {
                    self.full.clear();
                    self.slots.remove(&decision.endpoint);
                    self.rows.taken(decision.endpoint);
                    came.granted.push((decision, node_s));
                    return came;
                }
                Tried::Broken(why) => {
                    came.broken.push((ticket.id, why));
                    return came;
                }
                Tried::Waits(wants) => {
                    self.wants.extend(wants);
                    self.keep(ticket, room, turn.now);
                }
            }
        }
    }

    /// Keeps an endpoint for a ticket of several slots that finds no room and has waited for too long: the one that has them
    /// first.
    fn keep(&mut self, ticket: &Ticket, room: &dyn Room, now: Instant) {
        let waited = now.saturating_duration_since(ticket.since);
        if ticket.need.slots < 2 || waited < ticket.patience {
            return;
        }
        let mut among = Vec::new();
        room.candidates(ticket, &mut among);
        if among.iter().any(|c| c.has_room(&ticket.need)) {
            return;
        }
        let open = among
            .iter()
            .filter(|c| c.held && !self.kept.contains(&c.id));
        let first = open.min_by(|a, b| {
            let (a, b) = ((a.terms.wait_s, a.used), (b.terms.wait_s, b.used));
            a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))
        });
        self.kept.extend(first.map(|c| c.id));
    }

    fn has_room(&mut self, pool: PoolId, room: &dyn Room) -> bool {
        *self.full.entry(pool).or_insert_with(|| room.has_room(pool))
    }

    /// Matches those of a group.
    fn match_group(
        &mut self,
        turn: &Turn<'_>,
        group: Group,
        how: Rule,
        room: &mut dyn Room,
        worth: &mut Worth,
        came: &mut Came,
    ) {
        let (Rule::Matched(Matching {
            window: window_of, ..
        })
        | Rule::InTurn(window_of)) = how;
        let waiting = turn.lanes.waiting_in(group);
        let (lanes, counts): (Vec<Vec<&Ticket>>, Vec<usize>) =
            turn.lanes.of_group(group, window_of).unzip();
        let mut outcome = {
            let mut rows = Vec::with_capacity(lanes.len());
            let mut pool_slots = 0;
            for (i, lane) in lanes.iter().enumerate() {
                let Some(head) = lane.first() else { continue };
                let cells = self.rows.of(head, room, &mut self.slots);
                if i == 0 {
                    let slots = |cell: &Cell| self.slots.get(&cell.endpoint).map_or(0, Vec::len);
                    pool_slots = cells.iter().map(slots).sum();
                }
                rows.push(cells);
            }
            let backlog = match how {
                Rule::Matched(matching) => matching::is_backlog(waiting, pool_slots, matching),
                Rule::InTurn(_) => false,
            };
            // In a backlog most slots are taken: of each lane as many as there are free ones will do.
            let is_free = |free_in: &&f64| **free_in <= 0.0;
            let free = || self.slots.values().flatten().filter(is_free).count();
            let most = match backlog {
                true => lanes.len() * free().clamp(1, window_of),
                false => window_of,
            };
            let own = |ticket: &Ticket| self.rows.of(ticket, room, &mut self.slots);
            let mut jobs = window(&lanes, &counts, &rows, most, turn, own);
            for head in lanes.iter().filter_map(|lane| lane.first()) {
                self.keep(head, room, turn.now);
            }
            if !self.kept.is_empty() {
                let is_open = |cell: &Cell| !self.kept.contains(&cell.endpoint);
                for job in &mut jobs {
                    job.cells = job.cells.iter().copied().filter(is_open).collect();
                }
            }
            if backlog {
                for job in &mut jobs {
                    job.new = room.is_new(job.ticket);
                }
            }
            match how {
                Rule::InTurn(_) => matching::in_turn(&jobs, &mut self.slots),
                Rule::Matched(_) if backlog => {
                    let per_slot = waiting as f64 / pool_slots.max(1) as f64;
                    let deep = worth.is_deep(turn.tenant, group, per_slot);
                    let worth = deep.then_some(&mut *worth);
                    matching::by_loss(&jobs, &mut self.slots, worth, turn.now)
                }
                Rule::Matched(_) => {
                    worth.is_shallow(turn.tenant, group);
                    matching::matched(&jobs, &mut self.slots)
                }
            }
        };
        let by_id: HashMap<TicketId, &Ticket> = lanes
            .iter()
            .flatten()
            .map(|ticket| (ticket.id, *ticket))
            .collect();
        for (id, endpoint) in outcome.want.drain(..) {
            if let Some(ticket) = by_id.get(&id) {
                self.wants.push(want(ticket, endpoint));
            }
        }
        let mut at_work = turn.at_work;
        for begin in outcome.begin {
            let Some(ticket) = by_id.get(&begin.ticket) else {
                continue;
            };
            let more = turn.alone || came.granted.is_empty();
            if !more || !may_have(ticket, at_work) {
                continue;
            }
            let unfit = unfit(ticket, &self.kept, room);
            let Some(node_s) = room.take(begin.endpoint, ticket) else {
                // An endpoint on trial took another, or what it costs is spent: who stands behind this one must not overtake
                // it, so the rest is planned anew.
                break;
            };
            at_work += ticket.need.slots;
            self.rows.taken(begin.endpoint);
            let Begin {
                endpoint,
                how,
                considered,
                ..
            } = begin;
            let decision = Decision::of(ticket, turn.now, endpoint, how, considered, unfit);
            came.granted.push((decision, node_s));
        }
        if !came.granted.is_empty() {
            // Planned anew, by how things stand now.
            self.slots.clear();
        }
        if let Rule::InTurn(_) = how {
            // Nobody comes before them who is not older: only what they wait beside a free slot counts.
            let all = lanes.iter().flatten().map(|ticket| ticket.id);
            let beside_none = all.filter(|id| !outcome.declined.contains(id));
            came.beside_none
                .extend(beside_none.filter(|id| turn.held_back.contains_key(id)));
        }
        came.declined.append(&mut outcome.declined);
    }
}

/// What makes those who wait twins: they are of one lane, and of the same work or with the same
/// places to go at the same cost.
struct Like<'a> {
    lane: usize,
    work: Option<&'a Arc<str>>,
    cells: Rc<[Cell]>,
}

/// The oldest of each lane in turn, at most so many.
fn window<'a>(
    lanes: &[Vec<&'a Ticket>],
    counts: &[usize],
    rows: &[Rc<[Cell]>],
    most: usize,
    turn: &Turn<'_>,
    mut own: impl FnMut(&Ticket) -> Rc<[Cell]>,
) -> Vec<Job<'a>> {
    let deepest = lanes.iter().map(Vec::len).max().unwrap_or(0);
    let mut jobs = Vec::with_capacity(most.min(64));
    let mut likes: Vec<Like<'_>> = Vec::new();
    for depth in 0..deepest {
        for (lane, (tickets, of_head)) in lanes.iter().zip(rows).enumerate() {
            let (Some(ticket), Some(head)) = (tickets.get(depth), tickets.first()) else {
                continue;
            };
            if jobs.len() >= most {
                return jobs;
            }
            let cells = match is_alike(ticket, head) {
                true => of_head.clone(),
                false => own(ticket),
            };
            let held_back = turn.held_back.get(&ticket.id);
            let waited = held_back.map(|at| turn.now.saturating_duration_since(*at));
            let forced = waited.is_some_and(|waited| waited >= ticket.patience)
                && cells.iter().any(|cell| cell.room);
            let work = ticket.need.work.as_ref();
            let is_like =
                |like: &Like<'_>| like.lane == lane && (like.work == work || *like.cells == *cells);
            let known = likes.iter().position(is_like);
            let twins = known.unwrap_or(likes.len());
            if known.is_none() {
                likes.push(Like {
                    lane,
                    work,
                    cells: cells.clone(),
                });
            }
            jobs.push(Job {
                ticket,
                lane,
                twins,
                cells,
                forced,
                new: false,
                waiting: counts[lane],
            });
        }
    }
    jobs
}

/// What a ticket gets that is alone, by the rules of all.
pub(super) fn alone(
    ticket: &Ticket,
    room: &dyn Room,
    draw: &mut dyn Draw,
    now: Instant,
) -> Option<EndpointId> {
    let Some(how) = rule(ticket) else {
        let mut among = Vec::new();
        room.candidates(ticket, &mut among);
        let picked = ticket.policy.preview(&ticket.need, &among, draw)?;
        let picked = among.get(picked)?;
        return picked.has_room(&ticket.need).then_some(picked.id);
    };
    let mut slots = Slots::default();
    let job = Job {
        ticket,
        lane: 0,
        twins: 0,
        cells: Rows::default().of(ticket, room, &mut slots),
        forced: false,
        new: room.is_new(ticket),
        waiting: 1,
    };
    let outcome = match how {
        Rule::InTurn(_) => matching::in_turn(&[job], &mut slots),
        Rule::Matched(matching) => {
            let pool_slots = slots.values().map(Vec::len).sum();
            match matching::is_backlog(1, pool_slots, matching) {
                true => matching::by_loss(&[job], &mut slots, None, now),
                false => matching::matched(&[job], &mut slots),
            }
        }
    };
    outcome.begin.first().map(|begin| begin.endpoint)
}

/// Whether two of one lane may go to the same places at the same cost: they are of one size and, to their kind, the same
/// work, and what is paid for does not depend on how long they have waited.
fn is_alike(a: &Ticket, b: &Ticket) -> bool {
    let same = a.need.size == b.need.size && a.need.work == b.need.work && a.need.own == b.need.own;
    a.id == b.id || (same && a.price.spill_after.is_zero())
}

/// Who cannot serve a ticket now, and why; among them those that are kept for another.
fn unfit(
    ticket: &Ticket,
    kept: &HashSet<EndpointId>,
    room: &dyn Room,
) -> Vec<(EndpointId, String)> {
    let mut unfit = room.unfit(ticket);
    if kept.is_empty() {
        return unfit;
    }
    let mut among = Vec::new();
    room.candidates(ticket, &mut among);
    for candidate in among.iter().filter(|c| kept.contains(&c.id)) {
        unfit.retain(|(id, _)| *id != candidate.id);
        unfit.push((candidate.id, KEPT.to_owned()));
    }
    unfit
}

/// Why an endpoint is not given away that is kept.
const KEPT: &str = "it is kept for work of several slots that has waited for long";

/// Has a ticket's policy choose, and takes what it chose.
pub(super) fn attempt(
    ticket: &Ticket,
    room: &mut dyn Room,
    draw: &mut dyn Draw,
    now: Instant,
) -> Tried {
    attempt_beside(ticket, &HashSet::new(), room, draw, now)
}

/// The same, but for endpoints that are kept for others.
fn attempt_beside(
    ticket: &Ticket,
    kept: &HashSet<EndpointId>,
    room: &mut dyn Room,
    draw: &mut dyn Draw,
    now: Instant,
) -> Tried {
    let broken = |what: &str| {
        let why = format!("the policy of service `{}` {what}", ticket.service);
        Tried::Broken(Refusal::Internal(why))
    };
    let (endpoint, considered) = {
        let mut among = Vec::with_capacity(16);
        room.candidates(ticket, &mut among);
        if ticket.need.slots > 0 && !kept.is_empty() {
            among.retain(|candidate| !kept.contains(&candidate.id));
        }
        if among.is_empty() {
            return Tried::Waits(Vec::new());
        }
        // A plugin's code runs under the lock here, and where the room asks a kind: its panic must not leave a ticket in two
        // places.
        let picked = catch_unwind(AssertUnwindSafe(|| {
            ticket.policy.pick(&ticket.need, &among, draw)
        }));
        let waits = || {
            let elsewhere = among.iter().filter(|candidate| !candidate.held);
            Tried::Waits(elsewhere.map(|c| want(ticket, c.id)).collect())
        };
        match picked {
            Ok(None) => return waits(),
            Ok(Some(index)) => match among.get(index) {
                Some(candidate) if candidate.has_room(&ticket.need) => {
                    let considered = |c: &Candidate<'_>| Considered {
                        endpoint: c.id,
                        terms: c.terms,
                        room: c.has_room(&ticket.need),
                    };
                    let all = among.iter().map(considered).collect();
                    (candidate.id, worth_keeping(all, candidate.id))
                }
                Some(candidate) if candidate.held => return Tried::Waits(Vec::new()),
                Some(candidate) => return Tried::Waits(vec![want(ticket, candidate.id)]),
                None => return broken("picked nobody's number"),
            },
            Err(_) => return broken("panicked"),
        }
    };
    let unfit = unfit(ticket, kept, room);
    match room.take(endpoint, ticket) {
        Some(node_s) => {
            let decision = Decision::of(ticket, now, endpoint, How::Picked, considered, unfit);
            Tried::Granted(decision, node_s)
        }
        None => Tried::Waits(Vec::new()),
    }
}

fn want(ticket: &Ticket, endpoint: EndpointId) -> Want {
    Want {
        ticket: ticket.id,
        endpoint,
        since: ticket.since,
        interactive: ticket.need.interactive,
        patience: ticket.patience,
    }
}
