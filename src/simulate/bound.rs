//! What no scheduler could exceed.

use super::simplex::{Program, solve};
use std::collections::HashMap;

/// What machines can do.
#[derive(Clone, Debug, PartialEq)]
pub struct Supply {
    /// How many slots each machine has.
    pub slots: Vec<f64>,
    /// Seconds of one of size 1, by class and machine; `None` where it cannot run.
    pub run_s: Vec<Vec<Option<f64>>>,
}

/// What no scheduler could exceed, were work as divisible as water and every model loaded everywhere.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    /// The most jobs a second for ever, of this mix of classes.
    pub per_s: f64,
    /// What one job of each class is worth, in jobs of the mix: a mix that shifts to what is quickly done does no more by
    /// that. (The dual prices: no schedule of any mix is worth more than `per_s` in a second.)
    pub worth: Vec<f64>,
    /// The mean time of one job on the machine that is best for it, seconds: nobody could be served sooner.
    pub best_s: f64,
}

/// Solves: the most λ where p_i λ ≤ Σ_j x_ij and Σ_i x_ij s_ij ≤ slots_j.
///
/// `mix`: the part of each class, in units of size. `None`: there is nothing to do, or a class runs nowhere.
pub fn bound(supply: &Supply, mix: &[f64]) -> Option<Bound> {
    let all: f64 = mix.iter().sum();
    let asked = |class: &usize| mix[*class] > 0.0;
    let classes: Vec<usize> = (0..mix.len()).filter(asked).collect();
    let machines = alike(supply, &classes);
    if classes.is_empty() || !all.is_finite() {
        return None;
    }
    // λ first; then what each machine does of each class.
    let each = classes.iter().enumerate();
    let lambda = each.map(|(row, class)| (row, mix[*class] / all)).collect();
    let mut program = Program {
        objective: vec![1.0],
        columns: vec![lambda],
        limits: vec![0.0; classes.len()],
    };
    for (slots, times) in &machines {
        let machine = program.limits.len();
        program.limits.push(*slots);
        for (row, time) in times.iter().enumerate() {
            if let Some(time) = time {
                program.objective.push(0.0);
                program.columns.push(vec![(row, -1.0), (machine, *time)]);
            }
        }
    }
    let mut best_s = 0.0;
    for (row, class) in classes.iter().enumerate() {
        let times = machines.iter().filter_map(|(_, times)| times[row]);
        best_s += mix[*class] / all * times.min_by(f64::total_cmp)?;
    }
    let optimum = solve(&program)?;
    let mut worth = vec![0.0; mix.len()];
    for (row, class) in classes.iter().enumerate() {
        worth[*class] = optimum.prices[row];
    }
    Some(Bound {
        per_s: optimum.value,
        worth,
        best_s,
    })
}

/// Machines with the same times are one with more slots: a farm of a thousand is of a few kinds.
fn alike(supply: &Supply, classes: &[usize]) -> Vec<(f64, Vec<Option<f64>>)> {
    let mut machines: Vec<(f64, Vec<Option<f64>>)> = Vec::new();
    let mut known: HashMap<Vec<Option<u64>>, usize> = HashMap::new();
    for (machine, slots) in supply.slots.iter().enumerate() {
        let times = classes.iter().map(|class| supply.run_s[*class][machine]);
        let times: Vec<Option<f64>> = times.collect();
        if times.iter().all(Option::is_none) || *slots <= 0.0 {
            continue;
        }
        let bits = times.iter().map(|time| time.map(f64::to_bits)).collect();
        let at = *known.entry(bits).or_insert(machines.len());
        match machines.get_mut(at) {
            Some((all, _)) => *all += slots,
            None => machines.push((*slots, times)),
        }
    }
    machines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases;

    /// The same number by other means: of all corners (as many rows met exactly as there are variables), the best one
    /// that keeps within all rows.
    fn by_trying_all(slots: &[f64], times: &[Vec<Option<f64>>], mix: &[f64]) -> f64 {
        let cells: Vec<(usize, usize, f64)> = (0..mix.len())
            .flat_map(|i| (0..slots.len()).filter_map(move |j| Some((i, j, times[i][j]?))))
            .collect();
        let n = 1 + cells.len();
        // Rows as `a · v <= b`, with v = (λ, x…).
        let mut rows: Vec<(Vec<f64>, f64)> = Vec::new();
        for (i, part) in mix.iter().enumerate() {
            let mut row = vec![0.0; n];
            row[0] = *part;
            for (k, cell) in cells.iter().enumerate() {
                row[1 + k] = if cell.0 == i { -1.0 } else { 0.0 };
            }
            rows.push((row, 0.0));
        }
        for (j, slots) in slots.iter().enumerate() {
            let mut row = vec![0.0; n];
            for (k, cell) in cells.iter().enumerate() {
                row[1 + k] = if cell.1 == j { cell.2 } else { 0.0 };
            }
            rows.push((row, *slots));
        }
        for v in 0..n {
            let mut row = vec![0.0; n];
            row[v] = -1.0;
            rows.push((row, 0.0));
        }
        let mut best = 0.0f64;
        for chosen in 0u32..1 << rows.len() {
            if chosen.count_ones() as usize != n {
                continue;
            }
            let tight = (0..rows.len()).filter(|r| chosen >> r & 1 == 1);
            let system = tight.map(|r| {
                let mut row = rows[r].0.clone();
                row.push(rows[r].1);
                row
            });
            let Some(v) = solved(system.collect()) else {
                continue;
            };
            let within = |(row, limit): &(Vec<f64>, f64)| {
                row.iter().zip(&v).map(|(a, v)| a * v).sum::<f64>() <= limit + 1e-7
            };
            if rows.iter().all(within) {
                best = best.max(v[0]);
            }
        }
        best
    }

    /// Gauss, with the largest pivot; the last column is the right side.
    fn solved(mut rows: Vec<Vec<f64>>) -> Option<Vec<f64>> {
        let n = rows.len();
        for c in 0..n {
            let p = (c..n).max_by(|a, b| rows[*a][c].abs().total_cmp(&rows[*b][c].abs()))?;
            if rows[p][c].abs() < 1e-9 {
                return None;
            }
            rows.swap(c, p);
            let pivot: Vec<f64> = rows[c].iter().map(|x| x / rows[c][c]).collect();
            for (r, row) in rows.iter_mut().enumerate() {
                if r != c {
                    let by = row[c];
                    row.iter_mut().zip(&pivot).for_each(|(x, p)| *x -= by * p);
                }
            }
            rows[c] = pivot;
        }
        Some(rows.iter().map(|row| row[n]).collect())
    }

    #[test]
    fn the_bound_is_the_best_of_all_corners() {
        let time = proptest::option::weighted(0.8, 0.5f64..50.0);
        let times = proptest::collection::vec(proptest::collection::vec(time, 3), 2);
        let slots = proptest::collection::vec(1u32..4, 3);
        let mix = proptest::collection::vec(0.1f64..1.0, 2);
        let compared = std::cell::Cell::new(0);
        cases::tried(40, (times, slots, mix), |(times, slots, mix)| {
            let slots: Vec<f64> = slots.iter().map(|slots| f64::from(*slots)).collect();
            let all: f64 = mix.iter().sum();
            let mix: Vec<f64> = mix.iter().map(|part| part / all).collect();
            let supply = Supply {
                slots: slots.clone(),
                run_s: times.clone(),
            };
            let tried = by_trying_all(&slots, &times, &mix);
            match bound(&supply, &mix) {
                Some(bound) => {
                    assert!(
                        (bound.per_s - tried).abs() <= 1e-6 * tried.max(1.0),
                        "{} {tried}",
                        bound.per_s
                    );
                    compared.set(compared.get() + 1);
                }
                None => assert!(tried < 1e-6, "{tried}"),
            }
        });
        assert!(compared.get() > 20, "{compared:?}");
    }

    #[test]
    fn no_mix_is_worth_more_than_the_bound() {
        let times = proptest::collection::vec(proptest::collection::vec(0.5f64..50.0, 4), 3);
        let mix = proptest::collection::vec(0.1f64..1.0, 6);
        cases::tried(100, (times, mix), |(times, mix)| {
            let run_s = times
                .iter()
                .map(|row| row.iter().copied().map(Some).collect());
            let supply = Supply {
                slots: vec![1.0, 2.0, 1.0, 3.0],
                run_s: run_s.collect(),
            };
            let (one, other) = mix.split_at(3);
            let one = bound(&supply, one).unwrap();
            let all: f64 = other.iter().sum();
            let of_other: f64 = other
                .iter()
                .zip(&one.worth)
                .map(|(part, worth)| part / all * worth)
                .sum();
            let most_of_other = bound(&supply, other).unwrap().per_s * of_other;
            assert!(
                most_of_other <= one.per_s * (1.0 + 1e-6),
                "{most_of_other} {}",
                one.per_s
            );
        });
    }

    #[test]
    fn a_class_that_runs_nowhere_has_no_bound_and_no_machine_too_many_is_counted() {
        let supply = |run_s| Supply {
            slots: vec![2.0, 1.0],
            run_s,
        };
        assert_eq!(bound(&supply(vec![vec![None, None]]), &[1.0]), None);
        assert_eq!(bound(&supply(vec![vec![Some(1.0), None]]), &[0.0]), None);
        let one = bound(
            &supply(vec![vec![Some(4.0), Some(2.0)], vec![None, None]]),
            &[3.0, 0.0],
        );
        let one = one.unwrap();
        assert!((one.per_s - 1.0).abs() < 1e-9, "{one:?}");
        assert_eq!((one.best_s, one.worth[1]), (2.0, 0.0));
    }

    #[test]
    fn thirty_two_classes_on_a_thousand_different_machines_have_a_bound() {
        let mut chance = crate::simulate::chance::Chance::new(7, 7);
        let (classes, machines) = if cfg!(debug_assertions) {
            (16, 120)
        } else {
            (32, 1000)
        };
        let run_s = (0..classes).map(|_| {
            (0..machines)
                .map(|_| Some(1.0 + 99.0 * chance.unit()))
                .collect()
        });
        let supply = Supply {
            run_s: run_s.collect(),
            slots: vec![1.0; machines],
        };
        let bound = bound(&supply, &vec![1.0; classes]).unwrap();
        // Every machine's work is worth at most what its slots are: the prices say so themselves.
        let prices = (0..machines).map(|j| {
            let worth = (0..classes).map(|i| bound.worth[i] / supply.run_s[i][j].unwrap());
            worth.fold(0.0, f64::max)
        });
        let dual: f64 = prices.sum();
        assert!(
            (dual / bound.per_s - 1.0).abs() < 1e-6,
            "{dual} {}",
            bound.per_s
        );
        let all: f64 = bound.worth.iter().sum::<f64>() / classes as f64;
        assert!((all - 1.0).abs() < 1e-6, "{all}");
    }
}
