use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::f64::consts::TAU;

/// A seeded source of chance: the same numbers for the same seed, on every machine.
pub(super) struct Chance(StdRng);

// === impl Chance ===

impl Chance {
    /// `of` tells streams of one seed apart, so that more of one kind of chance does not change another.
    pub(super) fn new(seed: u64, of: u64) -> Self {
        Chance(StdRng::seed_from_u64(
            seed ^ of.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        ))
    }

    /// Above 0, below 1.
    pub(super) fn unit(&mut self) -> f64 {
        ((self.0.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// The time until the next of events that come independently, `rate` of them in a second.
    pub(super) fn until_next(&mut self, rate: f64) -> f64 {
        -self.unit().ln() / rate
    }

    /// A lognormal number with mean 1 and this coefficient of variation.
    pub(super) fn lognormal(&mut self, cv: f64) -> f64 {
        let variance = (1.0 + cv * cv).ln();
        let normal = (-2.0 * self.unit().ln()).sqrt() * (TAU * self.unit()).cos();
        (variance.sqrt() * normal - variance / 2.0).exp()
    }

    /// The index of one of these, each as often as its weight says.
    pub(super) fn pick(&mut self, weights: &[f64]) -> usize {
        let mut left = self.unit() * weights.iter().sum::<f64>();
        for (i, weight) in weights.iter().enumerate() {
            left -= weight;
            if left <= 0.0 {
                return i;
            }
        }
        weights.len().saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_the_mean_and_the_spread_they_are_said_to_have() {
        let mut chance = Chance::new(1, 1);
        let drawn: Vec<f64> = (0..200_000).map(|_| chance.lognormal(0.7)).collect();
        let mean = drawn.iter().sum::<f64>() / drawn.len() as f64;
        let squares = drawn.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>();
        let cv = (squares / drawn.len() as f64).sqrt() / mean;
        assert!((mean - 1.0).abs() < 0.01, "{mean}");
        assert!((cv - 0.7).abs() < 0.02, "{cv}");
    }

    #[test]
    fn one_is_picked_as_often_as_its_weight_says() {
        let mut chance = Chance::new(1, 2);
        let mut seen = [0; 3];
        for _ in 0..100_000 {
            seen[chance.pick(&[1.0, 0.0, 3.0])] += 1;
        }
        assert_eq!(seen[1], 0);
        assert!((24_000..26_000).contains(&seen[0]), "{seen:?}");
    }
}
