//! The cheapest way to give each row a column of its own.

/// The assignment of least total cost: for each row its column.
///
/// Shapes: `costs` holds `rows` rows of `columns` each, `rows <= columns`; all finite.
/// Costs rows² × columns steps at worst, and most often far fewer.
/// Source: Kuhn's Hungarian method with potentials, in the form of shortest augmenting paths (Jonker and Volgenant 1987).
pub(super) fn assign(costs: &[f64], rows: usize, columns: usize) -> Vec<usize> {
    debug_assert!(rows <= columns && costs.len() == rows * columns);
    // Column 0 stands for "none"; rows and columns count from 1.
    let mut row_potential = vec![0.0; rows + 1];
    let mut column_potential = vec![0.0; columns + 1];
    let mut row_of = vec![0; columns + 1];
    let mut came_by = vec![0; columns + 1];
    let mut least = vec![0.0; columns + 1];
    let mut done = vec![false; columns + 1];
    for row in 1..=rows {
        row_of[0] = row;
        let mut column = 0;
        least.fill(f64::INFINITY);
        done.fill(false);
        // The shortest path, in reduced costs, from this row to a column that is free.
        loop {
            done[column] = true;
            let from = row_of[column];
            let of_row = &costs[(from - 1) * columns..from * columns];
            let (mut step, mut next) = (f64::INFINITY, 0);
            for to in 1..=columns {
                if done[to] {
                    continue;
                }
                let reduced = of_row[to - 1] - row_potential[from] - column_potential[to];
                if reduced < least[to] {
                    least[to] = reduced;
                    came_by[to] = column;
                }
                if least[to] < step {
                    step = least[to];
                    next = to;
                }
            }
            for to in 0..=columns {
                if done[to] {
                    row_potential[row_of[to]] += step;
                    column_potential[to] -= step;
                } else {
                    least[to] -= step;
                }
            }
            column = next;
            if row_of[column] == 0 {
                break;
            }
        }
        while column != 0 {
            let before = came_by[column];
            row_of[column] = row_of[before];
            column = before;
        }
    }
    let mut assigned = vec![0; rows];
    for column in 1..=columns {
        if row_of[column] > 0 {
            assigned[row_of[column] - 1] = column - 1;
        }
    }
    assigned
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases;
    use proptest::prelude::*;

    fn cheapest(costs: &[f64], rows: usize, columns: usize, row: usize, taken: u32) -> f64 {
        if row == rows {
            return 0.0;
        }
        let free = (0..columns).filter(|column| taken >> column & 1 == 0);
        let with = |column: usize| {
            let rest = cheapest(costs, rows, columns, row + 1, taken | 1 << column);
            costs[row * columns + column] + rest
        };
        free.map(with).fold(f64::INFINITY, f64::min)
    }

    #[test]
    fn no_other_assignment_is_cheaper() {
        let size = (1usize..6, 0usize..3);
        let case = size.prop_flat_map(|(rows, more)| {
            let columns = rows + more;
            let costs = proptest::collection::vec(0.0f64..100.0, rows * columns);
            (Just(rows), Just(columns), costs)
        });
        cases::tried(500, case, |(rows, columns, costs)| {
            let assigned = assign(&costs, rows, columns);
            let mut taken = assigned.clone();
            taken.sort_unstable();
            taken.dedup();
            assert_eq!(taken.len(), rows, "each a column of its own");
            let cost: f64 = assigned
                .iter()
                .enumerate()
                .map(|(row, column)| costs[row * columns + column])
                .sum();
            let least = cheapest(&costs, rows, columns, 0, 0);
            assert!((cost - least).abs() < 1e-9, "{cost} {least}");
        });
    }
}
