//! How fast endpoints are beside each other, from all that ran.

/// The time of a class on an endpoint as a product: how much work the class is, times how slow the endpoint is.
///
/// GPUs are not so simple (a class may like one card and not another), so this is only what is guessed where nothing
/// ran. In logarithms it is a sum, fitted by least squares: a class's level is the mean of what its runs say once the
/// endpoints' slowness is taken off, and an endpoint's slowness the mean of what its classes say once their level is.
/// Taken in turns, the two settle. Endpoints that no class connects keep the distance of their weights.
///
/// Source: two-way analysis of variance with missing cells, by alternating means.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Speeds {
    /// ln of seconds per unit of size on an endpoint of slowness 0; `NaN` for a class that ran nowhere.
    pub(super) levels: Vec<f64>,
    /// ln of how many times slower than weight 1 an endpoint is.
    pub(super) slowness: Vec<f64>,
}

/// One class on one endpoint, and ln of its seconds per unit of size.
pub(super) type Cell = (usize, usize, f64);

/// So many turns at most: with few cells missing, a handful is enough.
const TURNS: usize = 200;
/// What moves less than this has settled.
const SETTLED: f64 = 1e-10;

// === impl Speeds ===

impl Speeds {
    /// Fits so many classes to `weights`, one for each endpoint.
    pub(super) fn fit(cells: &[Cell], classes: usize, weights: &[u32]) -> Speeds {
        let mut slowness: Vec<f64> = weights
            .iter()
            .map(|weight| -f64::from((*weight).max(1)).ln())
            .collect();
        let mut levels = vec![f64::NAN; classes];
        for _ in 0..TURNS {
            let by_class = cells
                .iter()
                .map(|&(class, on, ln_s)| (class, ln_s - slowness[on]));
            settle(&mut levels, by_class);
            let by_endpoint = cells
                .iter()
                .map(|&(class, on, ln_s)| (on, ln_s - levels[class]));
            if settle(&mut slowness, by_endpoint) < SETTLED {
                break;
            }
        }
        Speeds { levels, slowness }
    }
}

/// Puts the means of what is said in place, and answers how far that moved any of them.
fn settle(means: &mut [f64], said: impl Iterator<Item = (usize, f64)>) -> f64 {
    let mut sums = vec![(0.0, 0u32); means.len()];
    for (of, value) in said {
        sums[of].0 += value;
        sums[of].1 += 1;
    }
    let mut moved = 0.0f64;
    for (mean, (sum, count)) in means.iter_mut().zip(sums) {
        if count > 0 {
            let new = sum / f64::from(count);
            moved = moved.max((new - *mean).abs());
            *mean = new;
        }
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases;
    use proptest::prelude::*;

    #[test]
    fn a_missing_cell_is_found_where_times_are_products() {
        let case = (
            proptest::collection::vec(-3.0f64..3.0, 2..6),
            proptest::collection::vec(-3.0f64..3.0, 2..6),
            any::<u64>(),
        );
        cases::tried(100, case, |(levels, slowness, holes)| {
            let (classes, endpoints) = (levels.len(), slowness.len());
            // The first row and column connect all; others are there or not.
            let there = |class: usize, on: usize| {
                class == 0 || on == 0 || holes >> ((class * 7 + on) % 64) & 1 == 1
            };
            let cells: Vec<Cell> = (0..classes)
                .flat_map(|class| (0..endpoints).map(move |on| (class, on)))
                .filter(|&(class, on)| there(class, on))
                .map(|(class, on)| (class, on, levels[class] + slowness[on]))
                .collect();
            let fit = Speeds::fit(&cells, classes, &vec![1; endpoints]);
            for (class, level) in levels.iter().enumerate() {
                for (on, slow) in slowness.iter().enumerate() {
                    let off = fit.levels[class] + fit.slowness[on] - level - slow;
                    assert!(off.abs() < 1e-5, "{off}");
                }
            }
        });
    }

    #[test]
    fn who_ran_nothing_is_as_slow_as_its_weight_says() {
        let fit = Speeds::fit(&[(0, 0, 2.0)], 2, &[2, 8]);
        let on_second = fit.levels[0] + fit.slowness[1];
        assert!((on_second - (2.0 - 4f64.ln())).abs() < 1e-12);
        assert!(fit.levels[1].is_nan());
    }
}
