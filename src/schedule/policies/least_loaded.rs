use tabane_api::{Candidate, Draw, Need, NoConfig, Policy, PolicyKind};

/// Takes the endpoint with the least load per slot and weight: the default.
///
/// Always a full scan: with few endpoints of few slots, two random choices pick the worse of two in a quarter
/// of all cases. What counts is the load *with* this request, so that weights tell on an idle pool too.
pub(super) struct LeastLoaded;

impl PolicyKind for LeastLoaded {
    const NAME: &'static str = "least_loaded";
    type Config = NoConfig;

    fn new(_config: NoConfig) -> Result<Self, String> {
        Ok(LeastLoaded)
    }
}

impl Policy for LeastLoaded {
    fn pick(&self, need: &Need, among: &[Candidate<'_>], draw: &mut dyn Draw) -> Option<usize> {
        least_loaded(need, among, draw)
    }
}

/// The choice itself, for policies that fall back on it.
pub(super) fn least_loaded(
    need: &Need,
    among: &[Candidate<'_>],
    draw: &mut dyn Draw,
) -> Option<usize> {
    let mut best: Option<(f64, usize)> = None;
    let mut ties = 0;
    for (i, candidate) in among
        .iter()
        .enumerate()
        .filter(|(_, candidate)| candidate.has_room(need))
    {
        let load = load_with(need, candidate);
        match best {
            Some((least, _)) if load > least => {}
            Some((least, _)) if load == least => {
                // Each of the equals with the same chance, in one pass (reservoir of one).
                ties += 1;
                if draw.below(ties) == 0 {
                    best = Some((load, i));
                }
            }
            _ => {
                ties = 1;
                best = Some((load, i));
            }
        }
    }
    best.map(|(_, i)| i)
}

/// The load per slot and weight once it had this request too. What takes no slot is spread by how many such there are.
fn load_with(need: &Need, candidate: &Candidate<'_>) -> f64 {
    let share = f64::from(candidate.slots.max(1)) * f64::from(candidate.weight.max(1));
    let busy = if need.slots == 0 {
        candidate.passing + 1
    } else {
        candidate.used + need.slots
    };
    f64::from(busy) / share
}

#[cfg(test)]
mod tests {
    use super::super::testing::candidates;
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn pick(of: &[(u32, u32, u32)]) -> Option<usize> {
        least_loaded(
            &Need::of_class("x"),
            &candidates(of),
            &mut StdRng::seed_from_u64(1),
        )
    }

    #[test]
    fn the_least_loaded_per_slot_and_weight_is_taken() {
        assert_eq!(pick(&[(1, 4, 3), (1, 4, 2)]), Some(1));
        assert_eq!(pick(&[(1, 2, 1), (1, 8, 3)]), Some(1));
        assert_eq!(
            pick(&[(1, 4, 0), (3, 4, 0)]),
            Some(1),
            "weight tells on an idle pool"
        );
        assert_eq!(
            pick(&[(3, 4, 3), (1, 4, 1)]),
            Some(0),
            "4 of 4 at weight 3 is less than 2 of 4 at weight 1"
        );
    }

    #[test]
    fn a_full_endpoint_is_never_taken() {
        assert_eq!(pick(&[(1, 1, 1), (1, 2, 2)]), None);
        assert_eq!(pick(&[(9, 1, 1), (1, 2, 1)]), Some(1));
        assert_eq!(pick(&[]), None);
    }

    #[test]
    fn equals_share_by_chance() {
        let mut draw = StdRng::seed_from_u64(7);
        let mut count = [0; 3];
        for _ in 0..3000 {
            count[least_loaded(
                &Need::of_class("x"),
                &candidates(&[(1, 1, 0); 3]),
                &mut draw,
            )
            .unwrap()] += 1;
        }
        assert!(count.iter().all(|n| (850..1150).contains(n)), "{count:?}");
    }

    #[test]
    fn what_takes_no_slot_goes_where_fewest_such_are_even_when_all_is_full() {
        let mut among = candidates(&[(1, 1, 1), (1, 1, 1)]);
        among[0].passing = 5;
        let need = Need::of_class("socket").without_slot();
        assert_eq!(
            least_loaded(&need, &among, &mut StdRng::seed_from_u64(1)),
            Some(1)
        );
    }
}
