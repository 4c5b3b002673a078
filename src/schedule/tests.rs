use super::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::time::Duration;
use tabane_api::{NodeFacts, Policy, Urgency, hash};

/// Endpoints with slots, and how many are used.
struct Endpoints {
    facts: NodeFacts,
    all: Vec<(u32, u32)>,
}

impl Room for Endpoints {
    fn candidates<'a>(&'a self, _ticket: &Ticket, into: &mut Vec<Candidate<'a>>) {
        into.extend(
            self.all
                .iter()
                .enumerate()
                .map(|(i, &(slots, used))| Candidate {
                    id: EndpointId(i as u32),
                    name: "n/http",
                    hash: hash(&[i as u8]),
                    weight: 1,
                    slots,
                    used,
                    passing: 0,
                    node: &self.facts,
                }),
        );
    }

    fn take(&mut self, endpoint: EndpointId, need: &Need) -> bool {
        let (slots, used) = &mut self.all[endpoint.0 as usize];
        let fits = *used + need.slots <= *slots;
        *used += if fits { need.slots } else { 0 };
        fits
    }
}

/// Takes the endpoint that the key names, and waits for it; without a key the first with room.
struct Keyed;

impl Policy for Keyed {
    fn pick(&self, need: &Need, among: &[Candidate<'_>], _draw: &mut dyn Draw) -> Option<usize> {
        match need.key {
            Some(666) => panic!("as the test wants it"),
            Some(key) => Some(key as usize),
            None => among.iter().position(|candidate| candidate.has_room(need)),
        }
    }
}

struct Scene {
    schedule: Schedule,
    room: Endpoints,
    now: Instant,
    next: u64,
    policy: Arc<dyn Policy>,
}

impl Scene {
    fn new(slots: &[u32]) -> Self {
        Scene {
            schedule: Schedule::new(Box::new(StdRng::seed_from_u64(1))),
            room: Endpoints {
                facts: NodeFacts::default(),
                all: slots.iter().map(|slots| (*slots, 0)).collect(),
            },
            now: Instant::now(),
            next: 0,
            policy: Arc::new(Keyed),
        }
    }

    fn ticket(&mut self, urgency: u8, key: Option<u64>) -> Ticket {
        self.next += 1;
        self.now += Duration::from_millis(1);
        Ticket {
            id: TicketId(self.next),
            service: "any".into(),
            pool: PoolId(0),
            need: Need {
                urgency: Urgency::new(urgency),
                key,
                ..Need::of_class("x")
            },
            policy: self.policy.clone(),
            excluded: Vec::new(),
            arrived: self.now,
            queue: QueueLimits {
                max: 100,
                max_wait: Duration::from_secs(60),
            },
        }
    }

    fn arrive(&mut self, ticket: Ticket) -> Vec<Action> {
        self.schedule
            .apply(Event::Arrived(ticket), &mut self.room, self.now)
    }

    fn come(&mut self, urgency: u8, key: Option<u64>) -> (u64, Vec<Action>) {
        let ticket = self.ticket(urgency, key);
        (ticket.id.0, self.arrive(ticket))
    }

    fn free(&mut self, endpoint: usize) -> Vec<u64> {
        self.room.all[endpoint].1 -= 1;
        self.now += Duration::from_secs(1);
        let actions = self.schedule.apply(Event::Freed, &mut self.room, self.now);
        actions
            .into_iter()
            .map(|action| {
                if let Action::Grant(id, _) = action {
                    id.0
                } else {
                    panic!("{action:?}")
                }
            })
            .collect()
    }
}

#[test]
fn the_more_urgent_first_and_then_who_came_first() {
    let mut scene = Scene::new(&[1]);
    assert!(matches!(
        scene.come(3, None).1[..],
        [Action::Grant(_, EndpointId(0))]
    ));
    let ids: Vec<u64> = [3, 5, 3, 1, 1]
        .map(|urgency| scene.come(urgency, None).0)
        .to_vec();
    let served: Vec<u64> = (0..5).flat_map(|_| scene.free(0)).collect();
    assert_eq!(served, [ids[3], ids[4], ids[0], ids[2], ids[1]]);
    assert_eq!(
        (scene.schedule.waiting(), scene.schedule.waiting_in("any")),
        (0, 0)
    );
}

#[test]
fn a_newcomer_overtakes_nobody_who_could_have_had_its_slot() {
    let mut scene = Scene::new(&[1]);
    scene.come(3, None);
    let (waiting, _) = scene.come(3, None);
    // A slot comes free and nobody was told yet when the next one arrives.
    scene.room.all[0].1 -= 1;
    let (_, actions) = scene.come(3, None);
    assert_eq!(actions, [Action::Grant(TicketId(waiting), EndpointId(0))]);
}

#[test]
fn one_who_waits_for_a_full_node_does_not_hold_up_the_others() {
    let mut scene = Scene::new(&[1, 1]);
    scene.come(3, Some(0));
    let (tied, actions) = scene.come(0, Some(0));
    assert_eq!(
        actions,
        [],
        "it waits for the first though the second is free"
    );
    assert!(matches!(
        scene.come(7, None).1[..],
        [Action::Grant(_, EndpointId(1))]
    ));
    let (free, _) = scene.come(7, None);
    assert_eq!(scene.free(1), [free]);
    assert_eq!(scene.free(0), [tied]);
}

#[test]
fn a_second_attempt_keeps_its_place() {
    let mut scene = Scene::new(&[1]);
    let early = scene.ticket(3, None);
    scene.come(3, None);
    let (later, _) = scene.come(3, None);
    let again = Ticket {
        id: TicketId(99),
        excluded: vec![EndpointId(7)],
        ..early
    };
    scene.arrive(again);
    assert_eq!([scene.free(0), scene.free(0)].concat(), [99, later]);
}

#[test]
fn past_the_bound_the_next_is_refused_and_told_when_to_come_back() {
    let mut scene = Scene::new(&[1]);
    let bounded = |scene: &mut Scene, max| {
        let ticket = scene.ticket(3, None);
        let queue = QueueLimits {
            max,
            max_wait: Duration::from_secs(60),
        };
        scene.arrive(Ticket { queue, ..ticket })
    };
    assert!(
        matches!(bounded(&mut scene, 0)[..], [Action::Grant(..)]),
        "who need not wait needs no place"
    );
    assert!(matches!(
        bounded(&mut scene, 0)[..],
        [Action::Refuse(_, Refusal::QueueFull { waiting: 0, .. })]
    ));
    assert_eq!(bounded(&mut scene, 2), []);
    assert_eq!(bounded(&mut scene, 2), []);
    // Served once a second: three would take three seconds.
    for _ in 0..30 {
        scene.come(3, None);
        scene.free(0);
    }
    let full = bounded(&mut scene, 2);
    let [
        Action::Refuse(
            _,
            Refusal::QueueFull {
                waiting: 2,
                retry_after,
                ..
            },
        ),
    ] = full[..]
    else {
        panic!("{full:?}")
    };
    assert!((2..=4).contains(&retry_after.as_secs()), "{retry_after:?}");
    assert_eq!(scene.schedule.waiting_in("any"), 2);
}

#[test]
fn who_leaves_frees_the_place_and_leaving_twice_is_nothing() {
    let mut scene = Scene::new(&[1]);
    scene.come(3, None);
    let (leaver, _) = scene.come(3, None);
    let (stayer, _) = scene.come(3, None);
    for _ in 0..2 {
        scene
            .schedule
            .apply(Event::Left(TicketId(leaver)), &mut scene.room, scene.now);
        assert_eq!(scene.schedule.waiting_in("any"), 1);
    }
    assert_eq!(
        scene
            .schedule
            .snapshot()
            .iter()
            .map(|view| view.ticket)
            .collect::<Vec<_>>(),
        [stayer]
    );
    assert_eq!(scene.free(0), [stayer]);
}

#[test]
fn a_policy_that_panics_or_lies_fails_one_ticket_and_no_other() {
    let mut scene = Scene::new(&[1]);
    for fault in [Some(666), Some(42)] {
        assert!(matches!(
            scene.come(3, fault).1[..],
            [Action::Refuse(_, Refusal::Internal(_))]
        ));
    }
    assert!(matches!(scene.come(3, None).1[..], [Action::Grant(..)]));
    let (waits, _) = scene.come(3, None);
    let (_, actions) = scene.come(0, Some(666));
    assert!(
        matches!(actions[..], [Action::Refuse(_, Refusal::Internal(_))]),
        "{actions:?}"
    );
    assert_eq!(scene.free(0), [waits]);
    assert_eq!(scene.schedule.waiting(), 0);
}
