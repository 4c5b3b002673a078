use parking_lot::Mutex;
use std::collections::HashMap;
use tabane_api::{Candidate, Draw, EndpointId, Need, NoConfig, Policy, PolicyKind};

/// Takes turns, smoothly by weight: 5, 1, 1 gives `a a b a c a a`, not `a a a a a b c`.
///
/// Source: nginx's smooth weighted round robin (2012): everyone gains its weight each turn, the richest is
/// taken and pays the sum of all weights.
pub(super) struct RoundRobin {
    credit: Mutex<HashMap<EndpointId, i64>>,
}

impl PolicyKind for RoundRobin {
    const NAME: &'static str = "round_robin";
    type Config = NoConfig;

    fn new(_config: NoConfig) -> Result<Self, String> {
        Ok(RoundRobin {
            credit: Mutex::default(),
        })
    }
}

impl Policy for RoundRobin {
    fn pick(&self, need: &Need, among: &[Candidate<'_>], _draw: &mut dyn Draw) -> Option<usize> {
        turn(&mut self.credit.lock(), need, among)
    }

    fn preview(&self, need: &Need, among: &[Candidate<'_>], _draw: &mut dyn Draw) -> Option<usize> {
        turn(&mut self.credit.lock().clone(), need, among)
    }
}

fn turn(
    credit: &mut HashMap<EndpointId, i64>,
    need: &Need,
    among: &[Candidate<'_>],
) -> Option<usize> {
    // Who left the pool leaves the table.
    if credit.len() > 2 * among.len() + 16 {
        credit.retain(|id, _| among.iter().any(|candidate| candidate.id == *id));
    }
    let mut total = 0;
    let mut best: Option<(i64, usize)> = None;
    for (i, candidate) in among
        .iter()
        .enumerate()
        .filter(|(_, candidate)| candidate.has_room(need))
    {
        let weight = i64::from(candidate.weight);
        total += weight;
        let has = credit.entry(candidate.id).or_default();
        // Bounded, so that one who was full for long does not then take a thousand turns.
        *has = (*has + weight).min(2 * weight + total);
        if best.is_none_or(|(most, _)| *has > most) {
            best = Some((*has, i));
        }
    }
    let (_, i) = best?;
    *credit.entry(among[i].id).or_default() -= total;
    Some(i)
}

#[cfg(test)]
mod tests {
    use super::super::testing::candidates;
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn turns(policy: &RoundRobin, of: &[(u32, u32, u32)], n: usize) -> String {
        let among = candidates(of);
        let mut draw = StdRng::seed_from_u64(1);
        (0..n)
            .filter_map(|_| policy.pick(&Need::of_class("x"), &among, &mut draw))
            .map(|i| among[i].name)
            .collect()
    }

    #[test]
    fn turns_are_smooth_by_weight() {
        let policy = RoundRobin::new(NoConfig {}).unwrap();
        assert_eq!(
            turns(&policy, &[(5, 9, 0), (1, 9, 0), (1, 9, 0)], 7),
            "aabacaa"
        );
        assert_eq!(
            turns(&RoundRobin::new(NoConfig {}).unwrap(), &[(1, 9, 0); 3], 6),
            "abcabc"
        );
    }

    #[test]
    fn who_is_full_is_passed_over() {
        let policy = RoundRobin::new(NoConfig {}).unwrap();
        assert_eq!(turns(&policy, &[(1, 1, 1), (1, 1, 0)], 3), "bbb");
        assert_eq!(turns(&policy, &[(1, 1, 1), (1, 1, 1)], 3), "");
    }

    #[test]
    fn asking_why_takes_no_turn() {
        let policy = RoundRobin::new(NoConfig {}).unwrap();
        let among = candidates(&[(1, 9, 0), (1, 9, 0)]);
        let mut draw = StdRng::seed_from_u64(1);
        for _ in 0..3 {
            assert_eq!(
                policy.preview(&Need::of_class("x"), &among, &mut draw),
                Some(0)
            );
        }
        assert_eq!(turns(&policy, &[(1, 9, 0), (1, 9, 0)], 2), "ab");
    }
}
