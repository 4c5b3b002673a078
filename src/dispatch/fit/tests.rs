use super::*;
use crate::config::plan::{HealthPlan, PricePlan, Target};
use crate::dispatch::Rooms;
use crate::fleet::{self, Spec, Takes};
use crate::schedule::{
    self, PoolId, QueueLimits, Schedule, Share, Span, Ticket, TicketId, Turn, register,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::time::Instant;
use tabane_api::{NodeFacts, Registry, Vitals};

/// A node with one endpoint: its name, memory, labels and what it takes.
struct Node {
    name: &'static str,
    vram_mib: u64,
    labels: &'static [(&'static str, &'static str)],
    slots: u32,
    models: Option<&'static [&'static str]>,
    max_size: Option<f64>,
    usd_per_hour: f64,
    /// What its probe shows.
    shows: &'static [&'static str],
}

const NODE: Node = Node {
    name: "n",
    vram_mib: 0,
    labels: &[],
    slots: 1,
    models: None,
    max_size: None,
    usd_per_hour: 0.0,
    shows: &[],
};

fn names(all: &[(&str, &str)]) -> Vec<(Arc<str>, Arc<str>)> {
    let pair = |(name, value): &(&str, &str)| (Arc::from(*name), Arc::from(*value));
    all.iter().map(pair).collect()
}

/// A pool of these nodes.
fn rooms(nodes: &[Node]) -> (Rooms, PoolId) {
    let (mut rooms, now) = (
        Rooms::new(Schedule::new(Box::new(StdRng::seed_from_u64(1)))),
        Instant::now(),
    );
    let spec = |node: &Node| Spec {
        name: format!("{}/x", node.name).into(),
        node: Arc::new(NodeFacts {
            name: node.name.into(),
            vram_mib: node.vram_mib,
            labels: names(node.labels).into_iter().collect(),
            usd_per_hour: node.usd_per_hour,
            ..NodeFacts::default()
        }),
        target: Target {
            host: "h".into(),
            port: 1,
            tls: None,
            h2: false,
        },
        slots: node.slots,
        slots_said: true,
        takes: Takes {
            models: node
                .models
                .map(|models| models.iter().map(|m| Arc::from(*m)).collect()),
            max_size: node.max_size,
        },
        drained: false,
        health: HealthPlan::default(),
        drain: Duration::ZERO,
        claim: None,
    };
    let specs = nodes.iter().map(spec).collect();
    rooms.fleet.apply(fleet::Event::Plan(specs), now);
    let pool = rooms.pools.id(&"p".into());
    let mut members = Vec::new();
    for node in nodes {
        let endpoint = rooms.fleet.by_name(&format!("{}/x", node.name)).unwrap();
        let vitals = Vitals {
            models: node.shows.iter().map(|m| m.to_string()).collect(),
            ..Vitals::default()
        };
        let probed = fleet::Event::Probed {
            endpoint,
            started: now,
            outcome: Ok(vitals),
        };
        rooms.fleet.apply(probed, now);
        members.push((endpoint, 1));
    }
    rooms.pools.replace([(pool, members)]);
    (rooms, pool)
}

fn need(change: impl FnOnce(&mut Need)) -> Need {
    let mut need = Need::of_class("still");
    change(&mut need);
    need
}

/// What the one endpoint lacks, in words; empty where it fits.
fn said(node: Node, need: &Need) -> String {
    let (rooms, pool) = rooms(&[node]);
    let id = rooms.pools.members(pool)[0].0;
    let endpoint = rooms.fleet.get(id).unwrap();
    let lacks: Vec<Lack> = lacks(need, endpoint).collect();
    assert_eq!(lacks.is_empty(), fits(need, endpoint));
    let endpoint = endpoint.name().clone();
    Miss { endpoint, lacks }.to_string()
}

#[test]
fn a_need_fits_by_memory_labels_slots_size_and_models() {
    let vram = need(|need| need.vram_mib = 16_000);
    let card = |vram_mib| Node { vram_mib, ..NODE };
    assert_eq!(said(card(16_000), &vram), "");
    assert_eq!(
        said(card(15_999), &vram),
        "it has 15999 MiB of GPU memory, and 16000 are needed"
    );
    assert!(said(card(0), &vram).starts_with("it is not said to have any GPU memory"));

    let windows = need(|need| need.labels = names(&[("os", "windows")]));
    let labels = |labels| Node { labels, ..NODE };
    assert_eq!(said(labels(&[("a", "b"), ("os", "windows")]), &windows), "");
    assert_eq!(
        said(labels(&[("os", "linux")]), &windows),
        "it is labelled `os: linux`, and `os: windows` is needed"
    );
    assert_eq!(
        said(NODE, &windows),
        "it does not carry the label `os: windows`"
    );

    let wide = need(|need| need.slots = 3);
    assert_eq!(said(Node { slots: 3, ..NODE }, &wide), "");
    let narrow = said(Node { slots: 2, ..NODE }, &wide);
    assert_eq!(narrow, "it has 2 slots, and 3 are needed");
    assert_eq!(said(NODE, &need(|need| need.slots = 0)), "");

    let large = need(|need| need.size = 20.5);
    let most = |max_size| Node { max_size, ..NODE };
    assert_eq!(said(most(None), &large), "");
    assert_eq!(said(most(Some(20.5)), &large), "");
    assert_eq!(
        said(most(Some(20.0)), &large),
        "it takes requests up to size 20 (`max_size`), and this one is of size 20.5"
    );

    let flux = need(|need| need.model = Some("flux".into()));
    let has = |models: &'static [&'static str], shows| Node {
        models: Some(models),
        shows,
        ..NODE
    };
    let shows = |shows| Node { shows, ..NODE };
    assert_eq!(said(NODE, &flux), "", "nobody says what it has");
    assert_eq!(said(shows(&["sd15", "flux"]), &flux), "");
    assert_eq!(
        said(shows(&["sd15"]), &flux),
        "it does not show the model `flux` now"
    );
    let none = "it does not have the model `flux`";
    assert_eq!(
        said(has(&["sd15"], &["flux"]), &flux),
        none,
        "the file counts"
    );
    assert_eq!(said(has(&["flux"], &["sd15"]), &flux), "");
    assert_eq!(said(has(&[], &[]), &flux), none);
    assert_eq!(said(has(&["sd15"], &[]), &need(|_| {})), "");

    let much = need(|need| (need.vram_mib, need.size) = (2, 9.0));
    let little = Node {
        vram_mib: 1,
        max_size: Some(1.0),
        ..NODE
    };
    assert_eq!(
        said(little, &much),
        "it has 1 MiB of GPU memory, and 2 are needed; it takes requests up to size 1 (`max_size`), and this one is of size 9"
    );
}

#[test]
fn what_nobody_could_ever_serve_names_the_nearest_miss() {
    let why = |nodes: &[Node], need: &Need| {
        let (rooms, pool) = rooms(nodes);
        rooms.nobody_fits(pool, need).unwrap_or_default()
    };
    let card = |name, vram_mib| Node {
        name,
        vram_mib,
        ..NODE
    };
    let vram = need(|need| need.vram_mib = 48_000);
    let nearest = why(
        &[card("a", 12_000), card("b", 24_000), card("c", 8_000)],
        &vram,
    );
    assert!(
        nearest.starts_with("`b/x` comes nearest: it has 24000 MiB"),
        "{nearest}"
    );
    // One thing that is far off is nearer than two.
    let both = need(|need| {
        need.vram_mib = 48_000;
        need.labels = names(&[("os", "windows")]);
    });
    let windows = Node {
        labels: &[("os", "windows")],
        ..card("w", 1_000)
    };
    let nearest = why(&[card("b", 47_000), windows], &both);
    assert!(nearest.starts_with("`w/x` comes nearest"), "{nearest}");
    // Of equals the first.
    let nearest = why(&[card("a", 1), card("b", 1)], &vram);
    assert!(nearest.starts_with("`a/x`"), "{nearest}");
    // One that fits is enough, whatever its state; and nobody knows who comes into an empty pool.
    assert_eq!(why(&[card("a", 1), card("b", 48_000)], &vram), "");
    assert_eq!(why(&[], &vram), "");
}

#[test]
fn a_model_that_nobody_has_is_answered_with_the_name_that_looks_like_it() {
    let why = |nodes: &[Node], model: &str| {
        let (rooms, pool) = rooms(nodes);
        let need = need(|need| need.model = Some(model.into()));
        rooms.nobody_fits(pool, &need).unwrap_or_default()
    };
    let has = |name, models| Node {
        name,
        models: Some(models),
        ..NODE
    };
    let pool = || [has("a", &["sd15", "sdxl"]), has("b", &["flux-dev"])];
    assert_eq!(
        why(&pool(), "flux-dve"),
        "`b/x` comes nearest: it does not have the model `flux-dve`; did you mean `flux-dev`?"
    );
    let far = why(&pool(), "zzz");
    assert!(
        far.ends_with("there are `flux-dev`, `sd15` and `sdxl`"),
        "{far}"
    );
    // A probe that does not show it now may show it in a minute.
    let shows = Node {
        name: "c",
        shows: &["sd15"],
        ..NODE
    };
    let [a, b] = pool();
    assert_eq!(why(&[a, b, shows], "zzz"), "");
}

#[test]
fn what_ran_out_of_memory_everywhere_is_hopeless_for_a_day_and_not_for_ever() {
    let card = |name, vram_mib| Node {
        name,
        vram_mib,
        ..NODE
    };
    let (mut rooms, pool) = rooms(&[card("small", 8_000), card("large", 24_000)]);
    let need = need(|need| need.vram_mib = 10_000);
    let (service, now): (Arc<str>, _) = (Arc::from("render"), Instant::now());
    let why = |rooms: &Rooms, now| rooms.nobody_bears(&service, pool, &need, now);
    for _ in 0..2 {
        assert_eq!(why(&rooms, now), None);
        rooms
            .shortages
            .note(&service, &need.class, &"large".into(), now);
    }
    assert_eq!(
        why(&rooms, now + Duration::from_secs(3600)).unwrap(),
        "`large/x` comes nearest: it ran out of GPU memory with requests of class `still`, and gets no more of them for 23 h"
    );
    assert_eq!(
        rooms.nobody_fits(pool, &need),
        None,
        "it is no lack for ever"
    );
    let large = rooms.fleet.by_name("large/x").unwrap();
    let large = rooms.fleet.get(large).unwrap();
    let miss = rooms.miss(&service, &need, large, now + Duration::from_secs(3600));
    assert_eq!(
        miss.unwrap().to_string(),
        "it ran out of GPU memory with requests of class `still`, and gets no more of them for 23 h"
    );
    let day = Duration::from_secs(24 * 3600);
    assert_eq!(why(&rooms, now + day), None);
}

#[test]
fn who_waits_for_a_node_that_ran_out_of_memory_gets_it_when_the_day_is_over() {
    let card = |name| Node { name, ..NODE };
    let (mut rooms, pool) = rooms(&[card("small"), card("large")]);
    let (service, now): (Arc<str>, _) = (Arc::from("render"), Instant::now());
    let id = |rooms: &Rooms, name| rooms.fleet.by_name(name).unwrap();
    let (small, large) = (id(&rooms, "small/x"), id(&rooms, "large/x"));
    let ask = |rooms: &mut Rooms, number, class: &str, now| {
        let ticket = ticket(TicketId(number), &service, pool, Need::of_class(class), now);
        rooms.schedule(schedule::Event::Arrived(ticket), now).1
    };
    let granted = |number, endpoint| vec![schedule::Action::Grant(TicketId(number), endpoint)];
    for _ in 0..2 {
        let class = Arc::from("still");
        rooms
            .shortages
            .note(&Arc::from("render"), &class, &"small".into(), now);
    }
    assert_eq!(ask(&mut rooms, 1, "still", now), granted(1, large));
    assert_eq!(ask(&mut rooms, 2, "still", now), []);
    // One of another class stands behind it, and may have what it may not.
    assert_eq!(ask(&mut rooms, 3, "film", now), granted(3, small));
    rooms.apply(
        fleet::Event::Ended {
            endpoint: small,
            slots: 1,
            end: fleet::End::Done,
            cool_down: Duration::ZERO,
        },
        now,
    );
    let due = rooms.next_due().unwrap();
    let (_, given) = rooms.tick(due);
    assert_eq!(due, now + Duration::from_secs(24 * 3600));
    assert_eq!(given, granted(2, small));
}

#[test]
fn who_may_not_be_paid_for_yet_is_when_it_has_waited_long_enough_and_nothing_else_happens() {
    let owned = Node {
        name: "owned",
        ..NODE
    };
    let cloud = Node {
        name: "cloud",
        usd_per_hour: 2.0,
        ..NODE
    };
    let (mut rooms, pool) = rooms(&[owned, cloud]);
    let (service, begin) = (Arc::from("render"), Instant::now());
    let mut ask = |number| {
        let mut ticket = ticket(TicketId(number), &service, pool, Need::of_class("a"), begin);
        ticket.price.spill_after = Duration::from_secs(60);
        rooms.schedule(schedule::Event::Arrived(ticket), begin).1
    };
    assert_eq!(ask(1).len(), 1, "the owned node is free");
    assert_eq!(ask(2), []);
    let paid_at = loop {
        let now = rooms.next_due().expect("it is looked at again");
        let (_, given) = rooms.tick(now);
        let cloud = rooms.fleet.by_name("cloud/x").unwrap();
        match &given[..] {
            [] => assert!(now < begin + Duration::from_secs(61), "it waits on"),
            [schedule::Action::Grant(TicketId(2), got)] if *got == cloud => break now,
            other => panic!("{other:?}"),
        }
    };
    assert!(
        paid_at >= begin + Duration::from_secs(30),
        "waited {:?}",
        paid_at - begin
    );
    let (_, given) = rooms.tick(rooms.next_due().unwrap());
    assert_eq!(
        (given, rooms.next_due()),
        (Vec::new(), None),
        "nobody waits"
    );
}

fn ticket(id: TicketId, service: &Arc<str>, pool: PoolId, need: Need, now: Instant) -> Ticket {
    let registry = register(Registry::default());
    let mut block = serde_json::Deserializer::from_str("{}");
    let mut block = <dyn erased_serde::Deserializer<'_>>::erase(&mut block);
    let first = registry.find_policy("first").unwrap();
    Ticket {
        asked_as: crate::schedule::AskedAs::Number,
        id,
        service: service.clone(),
        pool,
        need,
        policy: (first.decode)(&mut block).unwrap().build().unwrap(),
        kind: None,
        price: PricePlan::default(),
        before_s: 0.0,
        excluded: Vec::new(),
        barred: Vec::new(),
        turn: Turn::Held(now),
        since: now,
        share: Share::default(),
        patience: Duration::ZERO,
        expected: Span::default(),
        queue: QueueLimits {
            max: 9,
            max_wait: Duration::MAX,
        },
    }
}
