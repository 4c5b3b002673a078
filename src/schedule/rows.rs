//! Where those who wait could go, kept within a pass: what is given away there changes one endpoint, and not the others.

use super::Room;
use super::matching::{Cell, Slots};
use super::ticket::{Ticket, TicketId};
use std::collections::HashMap;
use std::rc::Rc;
use tabane_api::{Candidate, EndpointId};

/// What was worked out in a pass.
#[derive(Default)]
pub(super) struct Rows {
    of: HashMap<TicketId, Row>,
    /// When the slots of each endpoint are free, as it stands.
    free: Slots,
    /// The endpoints that were taken, in order.
    taken: Vec<EndpointId>,
}

struct Row {
    cells: Rc<[Cell]>,
    /// How many of the endpoints that were taken it knows of.
    knows: usize,
}

// === impl Rows ===

impl Rows {
    /// Where a ticket could go, by the endpoints' numbers. When the slots there are free is put into `slots`, where that is
    /// not planned yet.
    pub(super) fn of(&mut self, ticket: &Ticket, room: &dyn Room, slots: &mut Slots) -> Rc<[Cell]> {
        let cells = match self.of.get_mut(&ticket.id) {
            Some(row) => {
                if row.knows < self.taken.len() {
                    row.cells = again(ticket, row, &self.taken[row.knows..], &mut self.free, room);
                    row.knows = self.taken.len();
                }
                row.cells.clone()
            }
            None => self.anew(ticket, room),
        };
        #[cfg(test)]
        self.check(ticket, room, &cells);
        for cell in cells.iter() {
            let free = self.free.get(&cell.endpoint);
            let of_endpoint = slots.entry(cell.endpoint);
            of_endpoint.or_insert_with(|| free.cloned().unwrap_or_default());
        }
        cells
    }

    /// An endpoint was taken.
    pub(super) fn taken(&mut self, endpoint: EndpointId) {
        self.free.remove(&endpoint);
        self.taken.push(endpoint);
    }

    fn anew(&mut self, ticket: &Ticket, room: &dyn Room) -> Rc<[Cell]> {
        let mut among = Vec::with_capacity(16);
        room.candidates(ticket, &mut among);
        for candidate in &among {
            note(&mut self.free, candidate, room);
        }
        let mut cells: Vec<Cell> = among.iter().map(|c| Cell::of(c, &ticket.need)).collect();
        cells.sort_unstable_by_key(|cell| cell.endpoint);
        let cells: Rc<[Cell]> = cells.into();
        if room.is_steady(ticket) {
            let row = Row {
                cells: cells.clone(),
                knows: self.taken.len(),
            };
            self.of.insert(ticket.id, row);
        }
        cells
    }
}

/// The same row when some of its endpoints were taken.
fn again(
    ticket: &Ticket,
    row: &Row,
    taken: &[EndpointId],
    free: &mut Slots,
    room: &dyn Room,
) -> Rc<[Cell]> {
    let now = |cell: &Cell| {
        if !taken.contains(&cell.endpoint) {
            return Some(*cell);
        }
        let candidate = room.candidate(ticket, cell.endpoint)?;
        note(free, &candidate, room);
        Some(Cell::of(&candidate, &ticket.need))
    };
    row.cells.iter().filter_map(now).collect()
}

fn note(free: &mut Slots, candidate: &Candidate<'_>, room: &dyn Room) {
    free.entry(candidate.id)
        .or_insert_with(|| room.slots(candidate));
}

#[cfg(test)]
thread_local! {
    /// How many rows of this thread's were kept, and held against what would be worked out anew.
    pub(crate) static CHECKED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
impl Rows {
    /// What is kept is what would be worked out anew: in every test of this crate that lets somebody wait.
    fn check(&self, ticket: &Ticket, room: &dyn Room, cells: &[Cell]) {
        if !self.of.contains_key(&ticket.id) {
            return;
        }
        let mut anew = Rows::default();
        let wants = anew.anew(ticket, room);
        let plain = |cells: &[Cell]| -> Vec<_> {
            let plain = |cell: &Cell| (cell.endpoint, cell.terms, cell.room, cell.held);
            cells.iter().map(plain).collect()
        };
        assert_eq!(plain(cells), plain(&wants), "{:?}", ticket.need);
        for (endpoint, free) in &anew.free {
            assert_eq!(
                self.free.get(endpoint),
                Some(free),
                "{endpoint:?} for {:?}",
                ticket.need
            );
        }
        CHECKED.set(CHECKED.get() + usize::from(!self.taken.is_empty()));
    }
}
