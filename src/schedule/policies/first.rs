use tabane_api::{Candidate, Draw, Need, NoConfig, Policy, PolicyKind};

/// Fills one endpoint before the next, in the order of the file: the others can be switched off, or cost nothing.
pub(super) struct First;

impl PolicyKind for First {
    const NAME: &'static str = "first";
    type Config = NoConfig;

    fn new(_config: NoConfig) -> Result<Self, String> {
        Ok(First)
    }
}

impl Policy for First {
    fn pick(&self, need: &Need, among: &[Candidate<'_>], _draw: &mut dyn Draw) -> Option<usize> {
        among.iter().position(|candidate| candidate.has_room(need))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::candidates;
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn one_is_filled_before_the_next() {
        let pick = |of: &[(u32, u32, u32)]| {
            First.pick(
                &Need::of_class("x"),
                &candidates(of),
                &mut StdRng::seed_from_u64(1),
            )
        };
        assert_eq!(pick(&[(1, 2, 1), (9, 2, 0)]), Some(0));
        assert_eq!(pick(&[(1, 2, 2), (1, 2, 0)]), Some(1));
        assert_eq!(pick(&[(1, 2, 2), (1, 2, 2)]), None);
    }
}
