use super::ticket::{Place, PoolId, Ticket, TicketId};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use tabane_api::{EndpointId, Mode};

/// Everyone who waits, by what they want.
#[derive(Default)]
pub(super) struct Lanes {
    /// Number of a lane, by what its tickets want.
    numbers: HashMap<Want, usize>,
    lanes: HashMap<usize, Lane>,
    next: usize,
    /// Where each ticket stands.
    places: HashMap<TicketId, (usize, Place)>,
    /// How many of each group there are.
    groups: HashMap<Group, usize>,
    /// The heads of all lanes, in the order they are served.
    heads: BTreeMap<Place, usize>,
}

struct Lane {
    want: Want,
    tickets: BTreeMap<Place, Ticket>,
}

/// What must be the same for two tickets to fit into the same room by the same choice.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Want {
    pool: PoolId,
    /// The policy's address: compared, never followed; the lane's tickets keep it alive.
    policy: usize,
    slots: u32,
    vram_mib: u64,
    labels: Vec<(Arc<str>, Arc<str>)>,
    key: Option<u64>,
    excluded: Vec<EndpointId>,
    /// Among them those that its kind says lack something for it.
    barred: Vec<EndpointId>,
    model: Option<Arc<str>>,
    /// Service and class, where the choice asks for times.
    class: Option<(Arc<str>, Arc<str>)>,
}

/// Those who are matched together: of one pool, by one policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Group {
    pub(super) pool: PoolId,
    policy: usize,
}

impl Group {
    pub(super) fn of(ticket: &Ticket) -> Self {
        Group {
            pool: ticket.pool,
            policy: policy(ticket),
        }
    }
}

/// A policy's address: compared, never followed.
fn policy(ticket: &Ticket) -> usize {
    Arc::as_ptr(&ticket.policy).cast::<()>().addr()
}

// === impl Lanes ===

impl Lanes {
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn get(&self, id: TicketId) -> Option<&Ticket> {
        let (number, place) = self.places.get(&id)?;
        self.lanes.get(number)?.tickets.get(place)
    }

    pub(super) fn insert(&mut self, ticket: Ticket) {
        *self.groups.entry(Group::of(&ticket)).or_default() += 1;
        let want = Want::of(&ticket);
        let number = *self.numbers.entry(want.clone()).or_insert_with(|| {
            self.next += 1;
            self.next
        });
        let lane = self.lanes.entry(number).or_insert_with(|| Lane {
            want,
            tickets: BTreeMap::new(),
        });
        let place = ticket.place();
        if let Some(head) = lane.head() {
            self.heads.remove(&head);
        }
        self.places.insert(ticket.id, (number, place));
        lane.tickets.insert(place, ticket);
        if let Some(head) = lane.head() {
            self.heads.insert(head, number);
        }
    }

    pub(super) fn remove(&mut self, id: TicketId) -> Option<Ticket> {
        let (number, place) = self.places.remove(&id)?;
        let lane = self.lanes.get_mut(&number)?;
        if let Some(head) = lane.head() {
            self.heads.remove(&head);
        }
        let ticket = lane.tickets.remove(&place);
        let group = lane.want.group();
        if let Some(waiting) = self.groups.get_mut(&group) {
            *waiting = waiting.saturating_sub(1);
            if *waiting == 0 {
                self.groups.remove(&group);
            }
        }
        let lane = self.lanes.get_mut(&number)?;
        match lane.head() {
            Some(head) => {
                self.heads.insert(head, number);
            }
            None => {
                if let Some(lane) = self.lanes.remove(&number) {
                    self.numbers.remove(&lane.want);
                }
            }
        }
        ticket
    }

    /// The first head of a lane after `place`; of all lanes when there is none.
    pub(super) fn next_head(&self, place: Option<Place>) -> Option<&Ticket> {
        let after = place.map_or(Bound::Unbounded, Bound::Excluded);
        let (place, number) = self.heads.range((after, Bound::Unbounded)).next()?;
        self.lanes.get(number)?.tickets.get(place)
    }

    /// The place of whoever is first.
    pub(super) fn first_place(&self) -> Option<Place> {
        self.heads.first_key_value().map(|(place, _)| *place)
    }

    /// The first lanes of a group, by their heads, at most so many: each with its first tickets, at most as many, and how
    /// many there are.
    pub(super) fn of_group(
        &self,
        group: Group,
        most: usize,
    ) -> impl Iterator<Item = (Vec<&Ticket>, usize)> {
        let lanes = self.heads.values().filter_map(|n| self.lanes.get(n));
        let of_group = lanes.filter(move |lane| lane.want.group() == group);
        of_group.take(most).map(move |lane| {
            let first = lane.tickets.values().take(most);
            (first.collect(), lane.tickets.len())
        })
    }

    /// How many of a group wait.
    pub(super) fn waiting_in(&self, group: Group) -> usize {
        self.groups.get(&group).copied().unwrap_or(0)
    }

    /// The first of each lane.
    pub(super) fn heads(&self) -> impl Iterator<Item = &Ticket> {
        let lanes = self
            .heads
            .values()
            .filter_map(|number| self.lanes.get(number));
        lanes.filter_map(|lane| lane.tickets.values().next())
    }

    /// All of them, in no order.
    pub(super) fn all(&self) -> impl Iterator<Item = &Ticket> {
        self.lanes.values().flat_map(|lane| lane.tickets.values())
    }

    /// The first so many, in order. Costs what is asked for, not what waits.
    pub(super) fn first(&self, most: usize) -> Vec<&Ticket> {
        // No lane whose head comes later than this can have one of the first.
        let heads = self.heads.iter().take(most);
        let mut next: BinaryHeap<_> = heads
            .map(|(place, number)| Reverse((*place, *number)))
            .collect();
        let mut first = Vec::new();
        while first.len() < most
            && let Some(Reverse((place, number))) = next.pop()
            && let Some(lane) = self.lanes.get(&number)
        {
            first.extend(lane.tickets.get(&place));
            let after = (Bound::Excluded(place), Bound::Unbounded);
            if let Some((place, _)) = lane.tickets.range(after).next() {
                next.push(Reverse((*place, number)));
            }
        }
        first
    }
}

impl Lane {
    fn head(&self) -> Option<Place> {
        self.tickets.first_key_value().map(|(place, _)| *place)
    }
}

impl Want {
    fn group(&self) -> Group {
        Group {
            pool: self.pool,
            policy: self.policy,
        }
    }

    fn of(ticket: &Ticket) -> Self {
        Want {
            pool: ticket.pool,
            policy: policy(ticket),
            slots: ticket.need.slots,
            vram_mib: ticket.need.vram_mib,
            labels: ticket.need.labels.clone(),
            key: ticket.need.key,
            excluded: ticket.excluded.clone(),
            barred: ticket.barred.clone(),
            model: ticket.need.model.clone(),
            class: (ticket.policy.mode() != Mode::Load)
                .then(|| (ticket.service.clone(), ticket.need.class.clone())),
        }
    }
}
