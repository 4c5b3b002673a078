mod placement;

use super::*;
use crate::config::plan::PricePlan;
use policies::testing::NOBODY;
use std::cell::Cell;
use std::time::Duration;
use tabane_api::{Candidate, Need, Policy, Urgency};

const SECOND: Duration = Duration::from_secs(1);

/// Endpoints 0, 1, … of so many slots, all of them in every pool.
#[derive(Default)]
struct Hall {
    slots: Vec<u32>,
    used: Vec<u32>,
    /// How often it was asked who could serve.
    tries: Cell<usize>,
}

impl Hall {
    fn of(slots: &[u32]) -> Self {
        Hall {
            slots: slots.to_vec(),
            used: vec![0; slots.len()],
            tries: Cell::new(0),
        }
    }

    fn full(slots: &[u32]) -> Self {
        Hall {
            used: slots.to_vec(),
            ..Hall::of(slots)
        }
    }

    fn give_back(&mut self, endpoint: usize, slots: u32) {
        self.used[endpoint] -= slots;
    }
}

impl Room for Hall {
    fn candidates<'a>(&'a self, ticket: &Ticket, into: &mut Vec<Candidate<'a>>) {
        self.tries.set(self.tries.get() + 1);
        let one = |i: usize| Candidate {
            id: EndpointId(i as u32),
            name: "n/x",
            hash: i as u64,
            weight: 1,
            slots: self.slots[i],
            used: self.used[i],
            passing: 0,
            held: true,
            terms: tabane_api::Terms::default(),
            node: &NOBODY,
        };
        let all = (0..self.slots.len()).map(one);
        into.extend(all.filter(|c| !ticket.excluded.contains(&c.id)));
    }

    fn take(&mut self, endpoint: EndpointId, ticket: &Ticket) -> Option<f64> {
        let i = endpoint.0 as usize;
        let fits = self.used[i] + ticket.need.slots <= self.slots[i];
        if fits {
            self.used[i] += ticket.need.slots;
        }
        fits.then_some(1.0)
    }
}

/// The first with room; with a key, the endpoint of that number or nobody.
struct Keyed;

impl Policy for Keyed {
    fn pick(&self, need: &Need, among: &[Candidate<'_>], _draw: &mut dyn Draw) -> Option<usize> {
        match need.key {
            Some(key) => among.iter().position(|c| c.hash == key),
            None => among.iter().position(|c| c.has_room(need)),
        }
    }
}

struct Panics;

impl Policy for Panics {
    fn pick(&self, _need: &Need, _among: &[Candidate<'_>], _draw: &mut dyn Draw) -> Option<usize> {
        // Not `panic!`: the hook would print a trace for what is meant.
        std::panic::resume_unwind(Box::new("meant"))
    }
}

struct Lies;

impl Policy for Lies {
    fn pick(&self, _need: &Need, among: &[Candidate<'_>], _draw: &mut dyn Draw) -> Option<usize> {
        Some(among.len())
    }
}

struct NoChance;

impl Draw for NoChance {
    fn below(&mut self, _bound: usize) -> usize {
        0
    }
}

/// A schedule, its room, and the time they live in.
struct World {
    schedule: Schedule,
    hall: Hall,
    now: Instant,
    start: Instant,
    policy: Arc<dyn Policy>,
}

impl World {
    fn new(hall: Hall) -> Self {
        let now = Instant::now();
        World {
            schedule: Schedule::new(Box::new(NoChance)),
            hall,
            now,
            start: now,
            policy: Arc::new(Keyed),
        }
    }

    /// A ticket of service `s` that came so many seconds after the start.
    fn ticket(&self, id: u64, second: u32) -> Ticket {
        Ticket {
            id: TicketId(id),
            asked_as: AskedAs::Number,
            service: "s".into(),
            pool: PoolId(0),
            need: Need::of_class("x"),
            policy: self.policy.clone(),
            kind: None,
            price: PricePlan::default(),
            excluded: Vec::new(),
            turn: Turn::Held(self.start + SECOND * second),
            since: self.start,
            before_s: 0.0,
            barred: Vec::new(),
            share: Share::default(),
            patience: Duration::from_secs(600),
            expected: Span::default(),
            queue: QueueLimits {
                max: 100,
                max_wait: SECOND * 300,
            },
        }
    }

    fn arrive(&mut self, ticket: Ticket) -> Vec<Action> {
        let event = Event::Arrived(ticket);
        self.schedule.apply(event, &mut self.hall, self.now)
    }

    /// One that comes and waits.
    fn waits(&mut self, ticket: Ticket) {
        assert_eq!(self.arrive(ticket), []);
    }

    fn freed(&mut self) -> Vec<Action> {
        let actions = self.schedule.apply(Event::Freed, &mut self.hall, self.now);
        assert_eq!(
            self.schedule.apply(Event::Freed, &mut self.hall, self.now),
            [],
            "one pass gives all there is to give"
        );
        actions
    }

    fn leave(&mut self, id: u64) {
        let event = Event::Left(TicketId(id));
        assert_eq!(self.schedule.apply(event, &mut self.hall, self.now), []);
    }

    /// Frees slots of endpoint 0 one by one; who got them, in order.
    fn serve_one_by_one(&mut self, n: usize) -> Vec<u64> {
        (0..n)
            .flat_map(|_| {
                self.hall.give_back(0, 1);
                granted(&self.freed())
            })
            .collect()
    }
}

fn granted(actions: &[Action]) -> Vec<u64> {
    let one = |action: &Action| match action {
        Action::Grant(id, _) => id.0,
        other => panic!("not a grant: {other:?}"),
    };
    actions.iter().map(one).collect()
}

fn urgent(urgency: u8, ticket: Ticket) -> Ticket {
    Ticket {
        need: Need {
            urgency: Urgency::new(urgency),
            ..ticket.need
        },
        ..ticket
    }
}

fn keyed(key: u64, ticket: Ticket) -> Ticket {
    Ticket {
        need: Need {
            key: Some(key),
            ..ticket.need
        },
        ..ticket
    }
}

/// A job, by its number in the order of acceptance.
fn stored(seq: i64, ticket: Ticket) -> Ticket {
    Ticket {
        turn: Turn::Stored(seq),
        ..ticket
    }
}

fn slots(slots: u32, ticket: Ticket) -> Ticket {
    Ticket {
        need: Need {
            slots,
            ..ticket.need
        },
        ..ticket
    }
}

fn queue_of(max: usize, ticket: Ticket) -> Ticket {
    Ticket {
        queue: QueueLimits {
            max,
            ..ticket.queue
        },
        ..ticket
    }
}

fn grant(id: u64, endpoint: u32) -> Action {
    Action::Grant(TicketId(id), EndpointId(endpoint))
}

#[test]
fn the_more_urgent_is_served_first_then_who_came_first() {
    let mut world = World::new(Hall::full(&[1]));
    // (id, urgency, second, pool): the pools differ, so that lanes do.
    let all = [
        (1, 3, 5, 0),
        (2, 3, 1, 1),
        (3, 0, 9, 0),
        (4, 7, 0, 1),
        (5, 3, 1, 0),
        (6, 0, 8, 1),
    ];
    for (id, urgency, second, pool) in all {
        let ticket = urgent(urgency, world.ticket(id, second));
        world.waits(Ticket {
            pool: PoolId(pool),
            ..ticket
        });
    }
    let seen: Vec<u64> = world
        .schedule
        .snapshot(100)
        .iter()
        .map(|v| v.ticket)
        .collect();
    assert_eq!(seen, [6, 3, 2, 5, 1, 4]);
    assert_eq!(world.serve_one_by_one(6), seen);
    assert_eq!(world.schedule.waiting(), 0);
    assert_eq!(world.schedule.waiting_in("s"), 0);
}

#[test]
fn one_pass_serves_all_there_is_room_for_in_order() {
    let mut world = World::new(Hall::full(&[3, 2]));
    for id in 1..=7 {
        let ticket = world.ticket(id, id as u32);
        world.waits(ticket);
    }
    world.hall.give_back(0, 2);
    world.hall.give_back(1, 2);
    assert_eq!(
        world.freed(),
        [grant(1, 0), grant(2, 0), grant(3, 1), grant(4, 1)]
    );
    assert_eq!(world.schedule.waiting(), 3);
}

#[test]
fn a_newcomer_never_overtakes_one_that_waits_for_the_same() {
    let mut world = World::new(Hall::full(&[1]));
    world.waits(world.ticket(1, 0));
    // The slot comes free, and before anyone says so, another comes.
    world.hall.give_back(0, 1);
    let actions = world.arrive(world.ticket(2, 1));
    assert_eq!(granted(&actions), [1]);
    assert_eq!(world.schedule.waiting(), 1);
    assert_eq!(world.serve_one_by_one(1), [2]);
}

#[test]
fn a_newcomer_never_overtakes_one_of_another_service_that_waits_for_the_same() {
    let mut world = World::new(Hall::full(&[1]));
    world.waits(world.ticket(1, 0));
    world.hall.give_back(0, 1);
    let other = Ticket {
        service: "t".into(),
        pool: PoolId(1),
        ..world.ticket(2, 1)
    };
    assert_eq!(granted(&world.arrive(other)), [1]);
}

#[test]
fn who_is_stuck_on_a_full_endpoint_does_not_hold_up_others() {
    let mut world = World::new(Hall {
        slots: vec![1, 4],
        used: vec![1, 4],
        ..Hall::default()
    });
    for id in 1..=3 {
        let stuck = urgent(0, keyed(0, world.ticket(id, 0)));
        world.waits(stuck);
    }
    let wide = urgent(1, slots(4, world.ticket(4, 0)));
    world.waits(wide);
    world.waits(world.ticket(5, 1));
    world.hall.give_back(1, 1);
    assert_eq!(world.freed(), [grant(5, 1)]);
    // A newcomer that wants what nobody waits for is served at once.
    world.hall.give_back(1, 1);
    assert_eq!(world.arrive(keyed(1, world.ticket(6, 2))), [grant(6, 1)]);
    world.hall.give_back(0, 1);
    assert_eq!(world.freed(), [grant(1, 0)]);
    world.hall.give_back(1, 4);
    assert_eq!(world.freed(), [grant(4, 1)]);
}

#[test]
fn a_queue_is_bounded_per_service() {
    let mut world = World::new(Hall::full(&[1]));
    for id in 1..=2 {
        let ticket = queue_of(2, world.ticket(id, 0));
        world.waits(ticket);
    }
    let actions = world.arrive(queue_of(2, world.ticket(3, 0)));
    let full = Refusal::QueueFull {
        service: "s".into(),
        waiting: 2,
        retry_after: rate::UNKNOWN,
    };
    assert_eq!(actions, [Action::Refuse(TicketId(3), full)]);
    assert_eq!(world.schedule.waiting_in("s"), 2);
    // Another service has a queue of its own.
    let other = Ticket {
        service: "t".into(),
        ..queue_of(1, world.ticket(4, 0))
    };
    world.waits(other);
    assert_eq!(world.schedule.waiting(), 3);
    assert_eq!(world.schedule.waiting_in("t"), 1);
    // Whoever would be served at once needs no place.
    world.hall.slots.push(1);
    world.hall.used.push(0);
    assert_eq!(
        world.arrive(keyed(1, queue_of(2, world.ticket(5, 0)))),
        [grant(1, 1)],
        "the older goes first, and leaves it its place"
    );
}

#[test]
fn who_is_refused_is_told_when_to_come_back_by_the_rate_of_late() {
    let mut world = World::new(Hall::of(&[1]));
    for id in 1..=20 {
        let actions = world.arrive(world.ticket(id, 0));
        assert_eq!(actions, [grant(id, 0)]);
        world.hall.give_back(0, 1);
        world.now += SECOND * 4;
    }
    world.hall.used[0] = 1;
    for id in 21..=23 {
        let ticket = queue_of(3, world.ticket(id, 0));
        world.waits(ticket);
    }
    let advice = |world: &mut World, max_wait| {
        let ticket = queue_of(3, world.ticket(30, 0));
        let queue = QueueLimits {
            max_wait,
            ..ticket.queue
        };
        match world.arrive(Ticket { queue, ..ticket })[..] {
            [Action::Refuse(_, Refusal::QueueFull { retry_after, .. })] => retry_after,
            ref other => panic!("{other:?}"),
        }
    };
    // Three wait before it and each takes four seconds.
    let told = advice(&mut world, SECOND * 300).as_secs_f64();
    assert!((15.9..16.1).contains(&told), "{told}");
    assert_eq!(
        advice(&mut world, SECOND * 10),
        SECOND * 10,
        "never more than one may wait"
    );
    assert_eq!(advice(&mut world, Duration::ZERO), rate::SOONEST);
}

#[test]
fn who_leaves_frees_its_place() {
    let mut world = World::new(Hall::full(&[1]));
    for id in 1..=2 {
        let ticket = queue_of(2, world.ticket(id, 0));
        world.waits(ticket);
    }
    world.leave(1);
    world.leave(1);
    world.leave(99);
    assert_eq!(world.schedule.waiting_in("s"), 1);
    let next = queue_of(2, world.ticket(3, 1));
    world.waits(next);
    assert_eq!(world.serve_one_by_one(2), [2, 3]);
}

#[test]
fn without_a_queue_who_finds_no_room_is_refused_at_once() {
    for someone_waits in [false, true] {
        let mut world = World::new(Hall::full(&[1]));
        if someone_waits {
            let other = Ticket {
                service: "t".into(),
                ..world.ticket(1, 0)
            };
            world.waits(other);
        }
        let before = world.schedule.waiting();
        let actions = world.arrive(queue_of(0, world.ticket(2, 0)));
        assert!(
            matches!(
                actions[..],
                [Action::Refuse(
                    TicketId(2),
                    Refusal::QueueFull { waiting: 0, .. }
                )]
            ),
            "{actions:?}"
        );
        assert_eq!(world.schedule.waiting(), before);
        world.hall.slots[0] = 9;
        world.freed();
        assert_eq!(granted(&world.arrive(queue_of(0, world.ticket(3, 0)))), [3]);
    }
}

#[test]
fn a_policy_that_panics_or_lies_fails_one_ticket_and_nobody_else() {
    let bad: [Arc<dyn Policy>; 2] = [Arc::new(Panics), Arc::new(Lies)];
    for policy in bad {
        let mut world = World::new(Hall::of(&[1]));
        let broken = |world: &World, id| Ticket {
            policy: policy.clone(),
            ..world.ticket(id, 0)
        };
        let refused = |actions: &[Action], id| matches!(actions, [Action::Refuse(TicketId(of), Refusal::Internal(_))] if *of == id);
        // With nobody waiting …
        let actions = world.arrive(broken(&world, 1));
        assert!(refused(&actions, 1), "{actions:?}");
        // … and with others in the queue.
        world.hall.used[0] = 1;
        world.waits(world.ticket(2, 0));
        let actions = world.arrive(broken(&world, 3));
        assert!(refused(&actions, 3), "{actions:?}");
        assert_eq!(world.schedule.waiting(), 1);
        assert_eq!(world.schedule.waiting_in("s"), 1);
        assert_eq!(world.serve_one_by_one(1), [2]);
        assert_eq!(world.hall.used, [1], "nothing was taken for the broken");
    }
}

#[test]
fn a_second_attempt_keeps_its_place() {
    let mut world = World::new(Hall::full(&[1, 1]));
    for id in 1..=3 {
        let ticket = world.ticket(id, id as u32);
        world.waits(ticket);
    }
    // It came before all of them, and endpoint 1 failed it.
    let second = Ticket {
        excluded: vec![EndpointId(1)],
        ..world.ticket(4, 0)
    };
    world.waits(second);
    world.hall.give_back(1, 1);
    assert_eq!(world.freed(), [grant(1, 1)]);
    assert_eq!(world.serve_one_by_one(3), [4, 2, 3]);
}

#[test]
fn where_nobody_could_serve_one_waits() {
    let mut world = World::new(Hall::of(&[]));
    world.waits(world.ticket(1, 0));
    assert_eq!(world.freed(), []);
    world.hall = Hall::of(&[1]);
    assert_eq!(world.freed(), [grant(1, 0)]);
}

#[test]
fn of_the_equally_urgent_a_connection_goes_before_a_job_and_jobs_go_as_they_were_accepted() {
    let mut world = World::new(Hall::full(&[1]));
    // As after a restart: the jobs are older than the process, and taken up in any order.
    world.waits(stored(7, world.ticket(1, 0)));
    world.waits(stored(-3, world.ticket(2, 0)));
    world.waits(world.ticket(3, 9));
    world.waits(urgent(2, stored(9, world.ticket(4, 9))));
    world.waits(urgent(4, world.ticket(5, 1)));
    assert_eq!(world.serve_one_by_one(5), [4, 3, 2, 1, 5]);
}

#[test]
fn jobs_are_never_refused_and_leave_the_queue_to_connections() {
    let mut world = World::new(Hall::full(&[1]));
    for id in 1..=5 {
        let job = queue_of(1, stored(id as i64, world.ticket(id, 0)));
        world.waits(job);
    }
    let held = queue_of(1, world.ticket(6, 0));
    world.waits(held);
    // Even where connections have all the places there are.
    let job = queue_of(0, stored(8, world.ticket(8, 0)));
    world.waits(job);
    assert_eq!(world.schedule.waiting_in("s"), 1);
    assert_eq!(world.schedule.stored_in("s"), 6);
    assert_eq!(world.schedule.waiting(), 7);
    let actions = world.arrive(queue_of(1, world.ticket(7, 0)));
    assert!(
        matches!(
            actions[..],
            [Action::Refuse(
                TicketId(7),
                Refusal::QueueFull { waiting: 1, .. }
            )]
        ),
        "{actions:?}"
    );
    // The first of an empty queue takes another way through the schedule.
    let mut world = World::new(Hall::full(&[1]));
    let job = queue_of(0, stored(1, world.ticket(1, 0)));
    world.waits(job);
    assert_eq!(world.schedule.stored_in("s"), 1);
    assert_eq!(world.serve_one_by_one(1), [1]);
    assert_eq!(world.schedule.stored_in("s"), 0);
}

#[test]
fn a_job_that_is_moved_keeps_its_turn_among_its_new_equals() {
    let mut world = World::new(Hall::full(&[1]));
    for id in 1..=3 {
        let job = urgent(5, stored(id as i64, world.ticket(id, 0)));
        world.waits(job);
    }
    for id in [10, 20] {
        let job = urgent(1, stored(id as i64 / 8, world.ticket(id, 0)));
        world.waits(job);
    }
    let moved = |world: &mut World, id, urgency| {
        let event = Event::Moved(TicketId(id), Urgency::new(urgency));
        let actions = world.schedule.apply(event, &mut world.hall, world.now);
        assert_eq!(actions, []);
    };
    moved(&mut world, 1, 1);
    moved(&mut world, 99, 0);
    assert_eq!(world.schedule.rank(TicketId(1)), Some(0), "1 before 10 / 8");
    assert_eq!(world.schedule.stored_in("s"), 5);
    moved(&mut world, 20, 7);
    assert_eq!(world.serve_one_by_one(5), [1, 10, 2, 3, 20]);
}

#[test]
fn a_rank_counts_those_of_the_same_service_only() {
    let mut world = World::new(Hall::full(&[1]));
    for id in 1..=6 {
        let work = Span::new(id as f64, 0.0);
        let ticket = stored(id as i64, world.ticket(id, 0));
        world.waits(Ticket {
            service: if id % 2 == 0 { "even" } else { "odd" }.into(),
            // Lanes do not matter to it.
            pool: PoolId(id as u32 % 3),
            since: Instant::now(),
            before_s: 0.0,
            barred: Vec::new(),
            share: Share::default(),
            patience: Duration::from_secs(600),
            expected: work,
            ..ticket
        });
    }
    assert_eq!(world.schedule.rank(TicketId(6)), Some(2));
    assert_eq!(
        world.schedule.before(TicketId(6)),
        Some((2, Span::new(6.0, 0.0)))
    );
    assert_eq!(world.schedule.backlog("odd"), Span::new(9.0, 0.0));
    assert_eq!(world.schedule.rank(TicketId(7)), None);
    assert_eq!(world.serve_one_by_one(2), [1, 2]);
    assert_eq!(world.schedule.rank(TicketId(6)), Some(1));
    assert_eq!(world.schedule.rank(TicketId(1)), None);
}

#[test]
fn a_hundred_thousand_jobs_cost_no_more_tries_than_a_hundred() {
    for waiting in [100u64, 100_000] {
        let mut world = World::new(Hall::full(&[1]));
        for id in 1..=waiting {
            let job = stored(id as i64, world.ticket(id, 0));
            world.waits(job);
        }
        let tried = |world: &mut World, event| {
            world.hall.tries.set(0);
            world.schedule.apply(event, &mut world.hall, world.now);
            world.hall.tries.get()
        };
        let newcomer = stored(waiting as i64 + 1, world.ticket(waiting + 1, 0));
        assert_eq!(tried(&mut world, Event::Arrived(newcomer)), 1);
        world.hall.give_back(0, 1);
        assert_eq!(tried(&mut world, Event::Freed), 2, "one is served, one not");
        assert_eq!(
            world.schedule.rank(TicketId(waiting)),
            Some(waiting as usize - 2)
        );
        assert_eq!(world.schedule.snapshot(3).len(), 3);
    }
}
