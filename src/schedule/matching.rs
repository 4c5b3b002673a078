//! Who of many goes where: all who wait are matched to slots at once, and what comes first on a free slot begins.
//!
//! The cost of a job on a slot is what everybody waits because of it: on a slot where it is the k-th from the last, it
//! and the k - 1 behind it wait for its work, and it waits for the slot. So a job may be left waiting beside a free slot,
//! because a better one is free soon: an idle GPU is not always a good idea.
//!
//! Where more wait than can be looked at together, waiting for better is no use, since all slots will be busy: then
//! each free slot takes the class that loses most by waiting there.
//!
//! Sources: Horn 1973 and Bruno, Coffman, Sethi 1974 (the sum of completion times as an assignment), AlloX (Le et al.,
//! EuroSys 2020), the generalised cμ rule (Mandelbaum and Stolyar 2004).

use super::assign::assign;
use super::decision::{self, Considered, How};
use super::ticket::{Ticket, TicketId};
use super::worth::{Heap, Worth};
use rustc_hash::FxHashMap;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::time::Instant;
use tabane_api::{Candidate, EndpointId, Matching, Need, Terms};

/// Someone who waits, in a window.
#[derive(Clone)]
pub(super) struct Job<'a> {
    pub(super) ticket: &'a Ticket,
    /// Its place in the list of lanes.
    pub(super) lane: usize,
    /// Those of its lane that are the same work to their kind, or can go to the same places at the same cost, by a number: of
    /// them, the first goes first.
    pub(super) twins: usize,
    /// Where it could go, by the endpoints' numbers.
    pub(super) cells: Rc<[Cell]>,
    /// It has waited beside a free slot for as long as it may.
    pub(super) forced: bool,
    /// Nothing like it ever ran.
    pub(super) new: bool,
    /// How many of its lane wait.
    pub(super) waiting: usize,
}

/// A place where a job could go, and what that costs.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Cell {
    pub(super) endpoint: EndpointId,
    pub(super) terms: Terms,
    /// Whether it could begin there now.
    pub(super) room: bool,
    /// Whether another service holds the card.
    pub(super) held: bool,
}

impl Cell {
    pub(super) fn of(candidate: &Candidate<'_>, need: &Need) -> Self {
        Cell {
            endpoint: candidate.id,
            terms: candidate.terms,
            room: candidate.has_room(need),
            held: candidate.held,
        }
    }

    /// What there was to choose from, and what was chosen.
    fn considered(cells: &[Cell], chosen: EndpointId) -> Vec<Considered> {
        let all = cells.iter().map(|cell| Considered {
            endpoint: cell.endpoint,
            terms: cell.terms,
            room: cell.room,
        });
        decision::worth_keeping(all.collect(), chosen)
    }
}

/// A job's cell on an endpoint.
fn cell_on(cells: &[Cell], endpoint: EndpointId) -> Option<&Cell> {
    let at = cells.binary_search_by_key(&endpoint, |cell| cell.endpoint);
    at.ok().map(|at| &cells[at])
}

/// When the slots of each endpoint are free, seconds from now, soonest first: as they are, and as they will be by what
/// was planned before in the same pass.
pub(super) type Slots = FxHashMap<EndpointId, Vec<f64>>;

/// What a window comes to.
#[derive(Default)]
pub(super) struct Outcome {
    /// Who begins where, in order.
    pub(super) begin: Vec<Begin>,
    /// Who would begin on a card that another service holds.
    pub(super) want: Vec<(TicketId, EndpointId)>,
    /// Who waits though it could begin somewhere now.
    pub(super) declined: Vec<TicketId>,
}

pub(super) struct Begin {
    pub(super) ticket: TicketId,
    pub(super) endpoint: EndpointId,
    pub(super) how: How,
    pub(super) considered: Vec<Considered>,
}

/// How many seconds of age a job that has just come counts with, where age decides.
const NEWBORN_S: f64 = 1.0;

/// Matches a window.
///
/// Shapes: `jobs` in the order of their turns; of one lane, the one that came first stands first.
pub(super) fn matched(jobs: &[Job<'_>], slots: &mut Slots) -> Outcome {
    let mut outcome = Outcome::default();
    let rest = forced(jobs, slots, &mut outcome);
    match rest.len() == jobs.len() {
        true => match_all(jobs, slots, &mut outcome),
        false => match_all(&rest, slots, &mut outcome),
    }
    outcome.declined = declined(jobs, &outcome.begin);
    outcome
}

/// Whoever has waited for as long as it may begins where it costs least of what is free, before all others. Answers who is
/// left.
fn forced<'a>(jobs: &[Job<'a>], slots: &mut Slots, outcome: &mut Outcome) -> Vec<Job<'a>> {
    let mut left = Vec::with_capacity(jobs.len());
    for job in jobs {
        let takes = (job.ticket.need.slots as usize).max(1);
        let is_free = |cell: &&Cell| {
            let all = slots.get(&cell.endpoint).into_iter().flatten();
            cell.room && cell.held && all.filter(|free_in| **free_in <= 0.0).count() >= takes
        };
        let free = job.cells.iter().filter(|_| job.forced).filter(is_free);
        let best = free.min_by(|a, b| a.terms.total_s().total_cmp(&b.terms.total_s()));
        let Some(cell) = best else {
            left.push(job.clone());
            continue;
        };
        outcome.begin.push(Begin {
            ticket: job.ticket.id,
            endpoint: cell.endpoint,
            how: How::OutOfPatience,
            considered: Cell::considered(&job.cells, cell.endpoint),
        });
        let all = slots.get_mut(&cell.endpoint).into_iter().flatten();
        for free_in in all.filter(|free_in| **free_in <= 0.0).take(takes) {
            *free_in = cell.terms.occupied_s().max(f64::MIN_POSITIVE);
        }
    }
    left
}

/// Matches all of a window to slots.
fn match_all(jobs: &[Job<'_>], slots: &mut Slots, outcome: &mut Outcome) {
    let columns = Columns::of(jobs, slots);
    if columns.all.is_empty() {
        return;
    }
    // A column of its own for each job stands for "not in this window".
    let width = columns.all.len() + jobs.len();
    let mut costs = vec![NEVER; jobs.len() * width];
    for (row, job) in jobs.iter().enumerate() {
        let of_row = &mut costs[row * width..(row + 1) * width];
        columns.price(job, of_row);
        of_row[columns.all.len() + row] = LATER;
    }
    let assigned = assign(&costs, jobs.len(), width);
    // What comes first on each slot: the one with most behind it.
    let mut first: HashMap<(EndpointId, usize), (usize, usize)> = HashMap::new();
    let mut planned: HashMap<(EndpointId, usize), f64> = HashMap::new();
    for (row, column) in assigned.iter().enumerate() {
        let Some(column) = columns.all.get(*column) else {
            continue;
        };
        let cell = cell_on(&jobs[row].cells, column.endpoint);
        let slot = (column.endpoint, column.slot);
        *planned.entry(slot).or_default() += cell.map_or(0.0, |c| c.terms.occupied_s());
        let best = first.entry(slot).or_insert((0, row));
        if column.position > best.0 {
            *best = (column.position, row);
        }
    }
    let mut served = vec![0; jobs.iter().map(|job| job.twins + 1).max().unwrap_or(0)];
    let mut firsts: Vec<_> = first.into_iter().collect();
    firsts.sort_unstable_by_key(|(slot, (_, row))| (*row, *slot));
    for ((endpoint, slot), (position, row)) in firsts {
        if columns.free_in(endpoint, slot) > 0.0 {
            continue;
        }
        // Of its like, whoever came first.
        let twins = jobs[row].twins;
        let Some(job) = jobs.iter().filter(|j| j.twins == twins).nth(served[twins]) else {
            continue;
        };
        let Some(cell) = cell_on(&job.cells, endpoint) else {
            continue;
        };
        if !cell.held {
            outcome.want.push((job.ticket.id, endpoint));
        } else if cell.room {
            served[twins] += 1;
            outcome.begin.push(Begin {
                ticket: job.ticket.id,
                endpoint,
                how: How::Matched {
                    behind: position - 1,
                },
                considered: Cell::considered(&job.cells, endpoint),
            });
        }
    }
    for ((endpoint, slot), takes_s) in planned {
        if let Some(free_in) = slots.get_mut(&endpoint).and_then(|all| all.get_mut(slot)) {
            *free_in += takes_s;
        }
    }
}

/// Lets each in turn go where its work is over first, counting what those before it will need.
///
/// Shapes: as in [`matched`].
pub(super) fn in_turn(jobs: &[Job<'_>], slots: &mut Slots) -> Outcome {
    let mut outcome = Outcome::default();
    let mut served = vec![0; jobs.iter().map(|job| job.twins + 1).max().unwrap_or(0)];
    for all in slots.values_mut() {
        all.sort_unstable_by(f64::total_cmp);
    }
    for job in jobs {
        let takes = (job.ticket.need.slots as usize).max(1);
        // The same places, as they will be by what was planned before.
        let planned = |cell: &Cell| {
            let wait_s = *slots.get(&cell.endpoint)?.get(takes - 1)?;
            let mut cell = *cell;
            cell.terms.wait_s = wait_s;
            cell.room &= wait_s <= 0.0;
            Some(cell)
        };
        let open = |cell: &&Cell| cell.room || !job.forced;
        let cells = job.cells.iter().filter(open).filter_map(planned);
        // Of two where it is over as soon, the one where it begins sooner.
        let order = |cell: &Cell| (cell.terms.total_s(), cell.terms.wait_s);
        let best = cells.min_by(|a, b| {
            let (a, b) = (order(a), order(b));
            a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1))
        });
        let Some(own) = best else { continue };
        let (endpoint, free_in_s) = (own.endpoint, own.terms.wait_s);
        // Of its like, whoever came first.
        let mut twins = jobs.iter().filter(|other| other.twins == job.twins);
        let Some(first) = twins.nth(served[job.twins]) else {
            continue;
        };
        let Some(cell) = cell_on(&first.cells, endpoint).and_then(planned) else {
            continue;
        };
        let of_first: Vec<Cell> = match free_in_s > 0.0 {
            true => Vec::new(),
            false => first.cells.iter().filter_map(planned).collect(),
        };
        if let Some(all) = slots.get_mut(&endpoint) {
            all[..takes].fill(free_in_s + own.terms.occupied_s());
            all.sort_unstable_by(f64::total_cmp);
        }
        if free_in_s > 0.0 {
            continue;
        }
        if !cell.held {
            outcome.want.push((first.ticket.id, endpoint));
        } else if cell.room {
            served[job.twins] += 1;
            outcome.begin.push(Begin {
                ticket: first.ticket.id,
                endpoint,
                how: match first.ticket.id == job.ticket.id {
                    true if job.forced => How::OutOfPatience,
                    true => How::Picked,
                    false => How::InTurn,
                },
                considered: Cell::considered(&of_first, endpoint),
            });
        }
    }
    outcome.declined = declined(jobs, &outcome.begin);
    outcome
}

/// Who waits though it could begin somewhere now.
fn declined(jobs: &[Job<'_>], begin: &[Begin]) -> Vec<TicketId> {
    let begins = |job: &&Job<'_>| begin.iter().any(|begin| begin.ticket == job.ticket.id);
    let waits = jobs.iter().filter(|job| !begins(job));
    waits
        .filter(|job| job.cells.iter().any(|cell| cell.room))
        .map(|job| job.ticket.id)
        .collect()
}

/// Gives each free slot to the class that loses most by waiting there; with `worth`, of those that the slot is good for.
///
/// Shapes: `jobs` holds the first of each lane, and of a lane's further ones as many as there are slots.
pub(super) fn by_loss(
    jobs: &[Job<'_>],
    slots: &mut Slots,
    worth: Option<&mut Worth>,
    now: Instant,
) -> Outcome {
    let good = worth.map(|worth| good_for(jobs, slots, worth));
    // What is guessed of work that never ran may be wrong by any factor: it is found out soon, with one of it at a time.
    let mut tries_new = true;
    let is_good = |lane: usize, endpoint: &EndpointId| {
        let of_lane = good.as_ref().and_then(|good| good.get(lane)?.get(endpoint));
        of_lane.is_none_or(|good| *good >= GOOD)
    };
    let mut outcome = Outcome::default();
    let mut taken = vec![false; jobs.len()];
    let mut endpoints: Vec<EndpointId> = jobs
        .iter()
        .flat_map(|job| job.cells.iter().filter(|c| c.room || !c.held))
        .map(|cell| cell.endpoint)
        .collect();
    endpoints.sort_unstable();
    endpoints.dedup();
    for endpoint in endpoints {
        let free = slots
            .get(&endpoint)
            .map_or(0, |all| all.iter().filter(|s| **s <= 0.0).count());
        for _ in 0..free {
            let mut best: Option<((bool, f64), usize, Cell)> = None;
            // Of a lane, whoever stands first, though another may have come before: it may be more urgent.
            let mut lanes: HashSet<usize> = HashSet::new();
            let waiting = jobs.iter().enumerate().filter(|(i, _)| !taken[*i]);
            let waiting = waiting.filter(|(_, job)| {
                cell_on(&job.cells, endpoint).is_some() && lanes.insert(job.lane)
            });
            for (i, job) in waiting {
                let new = job.new && tries_new;
                if !new && !is_good(job.lane, &endpoint) {
                    continue;
                }
                let Some(cell) = cell_on(&job.cells, endpoint) else {
                    continue;
                };
                let loss = (new, loss(job, cell, now));
                if best.is_none_or(|(most, ..)| loss > most) {
                    best = Some((loss, i, *cell));
                }
            }
            let Some(((new, loss), i, cell)) = best else {
                break;
            };
            taken[i] = true;
            tries_new &= !new;
            let job = &jobs[i];
            if !cell.held {
                outcome.want.push((job.ticket.id, endpoint));
            } else if cell.room {
                outcome.begin.push(Begin {
                    ticket: job.ticket.id,
                    endpoint,
                    how: match new {
                        true => How::New,
                        false => How::MostLost { loss },
                    },
                    considered: Cell::considered(&job.cells, endpoint),
                });
            }
            let all = slots.get_mut(&endpoint).into_iter().flatten();
            if let Some(free_in) = all.into_iter().find(|s| **s <= 0.0) {
                *free_in += cell.terms.occupied_s().max(f64::MIN_POSITIVE);
            }
        }
    }
    outcome.declined = declined(jobs, &outcome.begin);
    outcome
}

/// A slot is good for a class that pays at least so much of what the best would there.
const GOOD: f64 = 0.85;

/// How good each slot is for each lane.
fn good_for(jobs: &[Job<'_>], slots: &Slots, worth: &mut Worth) -> Vec<HashMap<EndpointId, f64>> {
    let lanes = jobs.iter().map(|job| job.lane + 1).max().unwrap_or(0);
    let mut first: Vec<Option<&Job<'_>>> = vec![None; lanes];
    for job in jobs {
        first[job.lane].get_or_insert(job);
    }
    let on = |cell: &Cell| {
        let slots = slots.get(&cell.endpoint).map_or(1, Vec::len);
        (cell.endpoint, slots as f64, cell.terms.run_s)
    };
    let heap = |job: &Job<'_>| Heap {
        class: (job.ticket.service.clone(), job.ticket.need.class.clone()),
        waiting: job.waiting,
        on: job.cells.iter().map(on).collect(),
    };
    let heaps: Vec<Heap> = first.iter().flatten().map(|job| heap(job)).collect();
    worth.follow(&heaps)
}

/// What a job loses in each second that an endpoint works on something else: its age, by its weight, and by how long it takes there.
fn loss(job: &Job<'_>, cell: &Cell, now: Instant) -> f64 {
    let age_s = now
        .saturating_duration_since(job.ticket.since)
        .as_secs_f64();
    let cost_s = cell.terms.occupied_s() + cell.terms.price_s;
    weight(&job.ticket.need) * (age_s + NEWBORN_S) / cost_s.max(SHORTEST_S)
}

/// How much a second of waiting counts: twice as much with each step of urgency (RFC 9218's 3 counts once).
fn weight(need: &Need) -> f64 {
    f64::from(3 - i32::from(need.urgency.value())).exp2()
}

/// No work is taken to be shorter.
const SHORTEST_S: f64 = 1e-3;
/// Not in this window: dearer than any place in it.
const LATER: f64 = 1e12;
/// Not possible at all.
const NEVER: f64 = 1e15;

/// The places that are to be given: a slot, and how many from the last.
struct Columns {
    all: Vec<Column>,
    free: FxHashMap<(EndpointId, usize), f64>,
}

#[derive(Clone, Copy)]
struct Column {
    endpoint: EndpointId,
    slot: usize,
    position: usize,
    free_in_s: f64,
}

impl Column {
    fn key(&self) -> (EndpointId, usize, usize) {
        (self.endpoint, self.slot, self.position)
    }

    /// What this place costs a job.
    fn price(&self, job: &Job<'_>, cell: &Cell) -> f64 {
        let Terms {
            price_s, explore_s, ..
        } = cell.terms;
        let takes_s = cell.terms.occupied_s();
        let waits_s = self.position as f64 * takes_s + self.free_in_s + explore_s;
        weight(&job.ticket.need) * waits_s + price_s
    }
}

impl Columns {
    /// All places that a best matching could need: a job that is not on one of its `jobs.len()` cheapest places leaves one
    /// of those to nobody, and would be better off there.
    fn of(jobs: &[Job<'_>], slots: &Slots) -> Self {
        let most = jobs.len();
        let cheapest = |own: &mut Vec<(f64, Column)>| {
            if own.len() > most {
                own.select_nth_unstable_by(most - 1, |a, b| {
                    a.0.total_cmp(&b.0).then_with(|| a.1.key().cmp(&b.1.key()))
                });
                own.truncate(most);
            }
        };
        let mut all: Vec<Column> = Vec::new();
        let (mut ends, mut own) = (Vec::new(), Vec::new());
        for job in jobs {
            ends.clear();
            for cell in job.cells.iter() {
                let of_endpoint = slots.get(&cell.endpoint).map_or(&[][..], Vec::as_slice);
                let columns = of_endpoint.iter().take(most).enumerate();
                ends.extend(columns.map(|(slot, free_in_s)| {
                    let column = Column {
                        endpoint: cell.endpoint,
                        slot,
                        position: 1,
                        free_in_s: *free_in_s,
                    };
                    (column.price(job, cell), column)
                }));
            }
            // On a slot, each place is dearer than the one before: no slot beyond these has one of the cheapest.
            cheapest(&mut ends);
            // Not all behind each other on the best slot: plans that far ahead were seen to make people wait longer.
            let positions = most.min(2 * most.div_ceil(ends.len().max(1)) + 2);
            own.clear();
            for (_, last) in &ends {
                let Some(cell) = cell_on(&job.cells, last.endpoint) else {
                    continue;
                };
                own.extend((1..=positions).map(|position| {
                    let column = Column { position, ..*last };
                    (column.price(job, cell), column)
                }));
            }
            cheapest(&mut own);
            all.extend(own.iter().map(|(_, column)| *column));
        }
        all.sort_unstable_by_key(Column::key);
        all.dedup_by_key(|column| column.key());
        let free = all.iter().map(|c| ((c.endpoint, c.slot), c.free_in_s));
        Columns {
            free: free.collect(),
            all,
        }
    }

    /// What each place costs a job.
    fn price(&self, job: &Job<'_>, costs: &mut [f64]) {
        let mut cell: Option<&Cell> = None;
        for (column, cost) in self.all.iter().zip(costs) {
            // Columns of one endpoint stand together.
            if cell.is_none_or(|cell| cell.endpoint != column.endpoint) {
                cell = cell_on(&job.cells, column.endpoint);
            }
            if let Some(cell) = cell {
                *cost = column.price(job, cell);
            }
        }
    }

    fn free_in(&self, endpoint: EndpointId, slot: usize) -> f64 {
        self.free
            .get(&(endpoint, slot))
            .copied()
            .unwrap_or(f64::INFINITY)
    }
}

/// Whether so many wait that a window says too little.
pub(super) fn is_backlog(waiting: usize, slots: usize, matching: Matching) -> bool {
    waiting as f64 > matching.backlog * slots as f64
}
