use super::least_loaded::least_loaded;
use tabane_api::{Candidate, Draw, Mode, Need, NoConfig, Policy, PolicyKind};

/// Takes the endpoint where the work is over first: the default for what streams, many at once on a node.
///
/// Always a full scan. One that is full may be the best all the same: then the request waits for it.
pub(super) struct Fastest;

impl PolicyKind for Fastest {
    const NAME: &'static str = "fastest";
    type Config = NoConfig;

    fn new(_config: NoConfig) -> Result<Self, String> {
        Ok(Fastest)
    }
}

impl Policy for Fastest {
    fn mode(&self) -> Mode {
        Mode::InTurn { window: 32 }
    }

    fn pick(&self, need: &Need, among: &[Candidate<'_>], draw: &mut dyn Draw) -> Option<usize> {
        fastest(need, among, draw)
    }
}

/// The choice itself. What takes no slot goes by load: no time is learned of it.
pub(super) fn fastest(need: &Need, among: &[Candidate<'_>], draw: &mut dyn Draw) -> Option<usize> {
    if need.slots == 0 {
        return least_loaded(need, among, draw);
    }
    let mut best: Option<(f64, f64, usize)> = None;
    let mut ties = 0;
    for (i, candidate) in among.iter().enumerate() {
        // Two that are as fast: the one with less to do.
        let cost = (candidate.terms.total_s(), candidate.load());
        match best {
            Some((least, load, _)) if cost > (least, load) => {}
            Some((least, load, _)) if cost == (least, load) => {
                ties += 1;
                if draw.below(ties) == 0 {
                    best = Some((cost.0, cost.1, i));
                }
            }
            _ => {
                ties = 1;
                best = Some((cost.0, cost.1, i));
            }
        }
    }
    best.map(|(_, _, i)| i)
}

#[cfg(test)]
mod tests {
    use super::super::testing::candidates;
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use tabane_api::Terms;

    #[test]
    fn the_one_where_it_is_over_first_is_taken_and_waited_for() {
        let need = Need::of_class("x");
        let pick = |terms: &[Terms]| {
            let mut among = candidates(&[(1, 1, 0); 3]);
            for (candidate, terms) in among.iter_mut().zip(terms) {
                candidate.terms = *terms;
                candidate.used = u32::from(terms.wait_s > 0.0);
            }
            let mut draw = StdRng::seed_from_u64(1);
            fastest(&need, &among, &mut draw)
        };
        let terms = |wait_s, load_s, run_s| Terms {
            wait_s,
            load_s,
            run_s,
            ..Terms::default()
        };
        let (slow, cold) = (terms(0.0, 0.0, 9.0), terms(0.0, 4.0, 4.0));
        assert_eq!(pick(&[slow, cold, terms(3.0, 0.0, 6.0)]), Some(1));
        assert_eq!(pick(&[slow, cold, terms(3.0, 0.0, 4.0)]), Some(2));
    }
}
