//! What sequences of reloads have brought to light, each in its shortest form.

use super::book::Farm;
use super::drive::on_paused_time;
use super::file::File;
use std::collections::BTreeMap;
use std::time::Duration;

/// A file whose service `s0` has one endpoint, `n0/e`, with so many slots; `s1` and `s2` have another.
fn one(slots: u32) -> File {
    let mut file = File::full();
    let alone = |name: &str| BTreeMap::from([(name.to_owned(), 1)]);
    file.pools.insert("p0".into(), alone("n0/e"));
    file.pools.insert("p1".into(), alone("n1/e"));
    file.pools.insert("p2".into(), alone("n1/e"));
    file.nodes
        .get_mut("n0")
        .unwrap()
        .endpoints
        .insert("e".into(), (1000, slots));
    file
}

/// The same on another port.
fn moved(mut file: File) -> File {
    let node = file.nodes.get_mut("n0").unwrap();
    node.endpoints.get_mut("e").unwrap().0 = 2000;
    file
}

fn without(mut file: File) -> File {
    file.pools.insert("p0".into(), BTreeMap::new());
    file
}

#[test]
fn who_waits_is_served_by_the_pools_of_the_new_file() {
    on_paused_time(async {
        let mut farm = Farm::new(one(1)).await;
        farm.ask("/s0");
        farm.ask("/s0");
        assert_eq!(farm.counts(), (1, 1));
        // The endpoint gets a second slot, and belongs to another service: not to the one who waits.
        let mut file = without(one(2));
        file.pools
            .insert("p1".into(), BTreeMap::from([("n0/e".to_owned(), 1)]));
        farm.install(file);
        farm.settle().await;
        assert_eq!(farm.counts(), (1, 1));
    });
}

#[test]
fn a_lease_on_a_url_that_the_file_changed_ends_with_the_gateway() {
    on_paused_time(async {
        let mut farm = Farm::new(one(1)).await;
        farm.ask("/s0");
        farm.install(moved(one(1)));
        farm.settle().await;
        assert_eq!(farm.counts(), (1, 0));
        farm.let_go();
    });
}

#[test]
fn a_lease_on_a_url_that_the_file_changed_ends_when_its_endpoint_has_drained() {
    on_paused_time(async {
        let mut farm = Farm::new(one(1)).await;
        farm.ask("/s0");
        for file in [moved(one(1)), without(moved(one(1)))] {
            farm.install(file);
            farm.settle().await;
        }
        farm.pass(Duration::from_secs(10)).await;
        farm.settle().await;
        assert_eq!(farm.seen.revoked, 1);
    });
}

#[test]
fn an_endpoint_that_leaves_stays_where_it_was_whatever_the_file_does_with_its_name() {
    on_paused_time(async {
        let mut farm = Farm::new(one(1)).await;
        farm.ask("/s0");
        for file in [without(one(1)), without(moved(one(1))), one(1)] {
            farm.install(file);
            farm.settle().await;
        }
    });
}

#[test]
fn who_waits_when_the_gateway_lets_go_takes_no_slot_along() {
    on_paused_time(async {
        let mut farm = Farm::new(one(1)).await;
        farm.ask("/s0");
        farm.ask("/s0");
        assert_eq!(farm.counts(), (1, 1));
        farm.let_go();
    });
}
