//! A straight line through what is measured, that forgets.

use serde::{Deserialize, Serialize};

/// What a measurement counts for after each later one: some fifty of them make the line.
const KEEPS: f64 = 0.98;
/// So many measurements count as much as what was believed before them.
const BELIEF: f64 = 4.0;
/// How far apart measurements have to lie, in shares of their mean, to say as much of the slope as what was believed.
const SPREAD: f64 = 0.5;
/// From so many on, one that is off by more than [`OFF`] counts as one that is off by so much: a hiccup moves the line a little,
/// what lasts moves it all the way.
const SURE: f64 = 8.0;
const OFF: f64 = 4.0;

/// Least squares of `y` on `x`, by sums that decay. Neither the slope nor what stands at 0 is ever negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Line {
    weight: f64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
}

/// What is believed of the slope where measurements say little of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Belief {
    /// The line goes through 0: all of `y` is in proportion to `x`.
    Proportional,
    /// With each step of `x`, `y` grows by this share of its mean.
    Share(f64),
}

// === impl Line ===

impl Line {
    /// A measurement; what makes no sense is left out.
    pub fn add(&mut self, x: f64, y: f64, weight: f64, belief: Belief) {
        if !(x.is_finite() && y.is_finite() && x >= 0.0 && y > 0.0 && weight > 0.0) {
            return;
        }
        let y = match self.at(x, belief) {
            Some(wants) if self.weight >= SURE => y.clamp(wants / OFF, wants * OFF),
            _ => y,
        };
        for sum in [
            &mut self.weight,
            &mut self.x,
            &mut self.y,
            &mut self.xx,
            &mut self.xy,
        ] {
            *sum *= KEEPS;
        }
        self.weight += weight;
        self.x += weight * x;
        self.y += weight * y;
        self.xx += weight * x * x;
        self.xy += weight * x * y;
    }

    /// How many measurements it is made of, the older the less.
    pub fn weight(&self) -> f64 {
        self.weight
    }

    /// What stands at 0, and the slope; `None`: nothing was measured.
    pub fn fit(&self, belief: Belief) -> Option<(f64, f64)> {
        if self.weight <= 0.0 {
            return None;
        }
        let (mean_x, mean_y) = (self.x / self.weight, self.y / self.weight);
        let believed = match belief {
            Belief::Proportional => mean_y / mean_x.max(1.0),
            Belief::Share(share) => share * mean_y,
        };
        let spread = (self.xx / self.weight - mean_x * mean_x).max(0.0);
        let both = self.xy / self.weight - mean_x * mean_y;
        let doubt = (SPREAD * mean_x.max(1.0)).powi(2) * BELIEF / self.weight;
        let slope = ((both + doubt * believed) / (spread + doubt)).max(0.0);
        let base = mean_y - slope * mean_x;
        match base >= 0.0 {
            true => Some((base, slope)),
            // Through 0, then, as steep as fits best.
            false => Some((0.0, self.xy / self.xx.max(f64::MIN_POSITIVE))),
        }
    }

    /// What is expected at `x`.
    pub fn at(&self, x: f64, belief: Belief) -> Option<f64> {
        self.fit(belief).map(|(base, slope)| base + slope * x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_measurement_is_enough_for_a_guess() {
        let mut line = Line::default();
        assert_eq!(line.at(1.0, Belief::Proportional), None);
        line.add(1000.0, 0.5, 1.0, Belief::Proportional);
        let near = |x: f64, wants: f64| {
            let got = line.at(x, Belief::Proportional).unwrap();
            assert!((got - wants).abs() < 1e-9, "{got} for {wants}");
        };
        near(1000.0, 0.5);
        near(2000.0, 1.0);
        let mut line = Line::default();
        line.add(2.0, 0.010, 1.0, Belief::Share(0.02));
        let eight = line.at(8.0, Belief::Share(0.02)).unwrap();
        assert!((0.010..0.012).contains(&eight), "{eight}");
    }

    #[test]
    fn measurements_that_lie_apart_make_the_line_their_own() {
        let mut line = Line::default();
        for n in 0..60 {
            let x = f64::from(n % 8);
            line.add(x, 0.013 + 0.001 * x, 1.0, Belief::Share(0.02));
        }
        let (base, slope) = line.fit(Belief::Share(0.02)).unwrap();
        assert!(
            (base - 0.013).abs() < 0.0005 && (slope - 0.001).abs() < 0.0002,
            "{base} {slope}"
        );
    }

    #[test]
    fn a_hiccup_moves_it_a_little_and_what_lasts_all_the_way() {
        let mut line = Line::default();
        let mut add = |y: f64| {
            line.add(1000.0, y, 1.0, Belief::Proportional);
            line.at(1000.0, Belief::Proportional).unwrap()
        };
        for _ in 0..50 {
            add(0.1);
        }
        let after = add(60.0);
        assert!(after < 0.12, "{after}");
        let slow = (0..150).map(|_| add(2.0)).last().unwrap();
        assert!((1.8..2.01).contains(&slow), "{slow}");
    }

    proptest! {
        #[test]
        fn nothing_that_is_measured_makes_nonsense_of_it(
            all in proptest::collection::vec((any::<f64>(), any::<f64>()), 0..50),
            some in proptest::collection::vec((0.0f64..1e6, 0.0f64..1e4), 0..50),
            x in 0.0f64..1e6,
        ) {
            for belief in [Belief::Proportional, Belief::Share(0.02)] {
                let mut line = Line::default();
                for (x, y) in some.iter().copied() {
                    line.add(x, y, 1.0, belief);
                }
                for (x, y) in &all {
                    if x.abs() < 1e9 && y.abs() < 1e9 {
                        line.add(*x, *y, 1.0, belief);
                    }
                }
                line.add(f64::NAN, 1.0, 1.0, belief);
                line.add(1.0, f64::INFINITY, 1.0, belief);
                if let Some(y) = line.at(x, belief) {
                    prop_assert!(y.is_finite() && y >= 0.0, "{y} of {line:?}");
                }
            }
        }
    }
}
