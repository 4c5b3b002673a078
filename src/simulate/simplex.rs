/// A linear program: the most of `objective · x`, where `columns` times `x` is at most `limits`, and x at least 0.
pub(super) struct Program {
    /// What one of each variable is worth.
    pub objective: Vec<f64>,
    /// What one of each variable takes: row and how much.
    pub columns: Vec<Vec<(usize, f64)>>,
    /// What there is of each row, 0 or more: doing nothing is then a beginning.
    pub limits: Vec<f64>,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Optimum {
    /// The most.
    pub value: f64,
    /// What one more of each row would be worth.
    pub prices: Vec<f64>,
}

const TINY: f64 = 1e-10;

/// Solves it by the revised simplex with a dense inverse: rows are few (classes and nodes), variables many and sparse.
///
/// The variable that promises most enters; where that moves nothing for long, the first one that promises anything, which
/// cannot go in circles (Bland 1977). `None`: it has no bound, or did not end.
pub(super) fn solve(program: &Program) -> Option<Optimum> {
    let (rows, own) = (program.limits.len(), program.columns.len());
    // Variables past the program's own are the slacks of the rows.
    let mut basis: Vec<usize> = (own..own + rows).collect();
    let mut is_basic = vec![false; own + rows];
    is_basic[own..].fill(true);
    let mut inverse: Vec<Vec<f64>> = (0..rows)
        .map(|i| (0..rows).map(|j| f64::from(u8::from(i == j))).collect())
        .collect();
    let mut values = program.limits.clone();
    let worth = |variable: usize| program.objective.get(variable).copied().unwrap_or(0.0);
    let mut prices = vec![0.0; rows];
    let mut idle = 0;
    for _ in 0..200 * (rows + 10) {
        let gain = |variable: usize, prices: &[f64]| match program.columns.get(variable) {
            Some(column) => {
                let cost = column.iter().map(|(row, takes)| prices[*row] * takes);
                worth(variable) - cost.sum::<f64>()
            }
            None => -prices[variable - own],
        };
        let mut entering: Option<(usize, f64)> = None;
        for variable in (0..own + rows).filter(|variable| !is_basic[*variable]) {
            let gain = gain(variable, &prices);
            if gain > TINY && entering.is_none_or(|(_, most)| gain > most) {
                entering = Some((variable, gain));
                if idle > rows {
                    break;
                }
            }
        }
        let Some((entering, gained)) = entering else {
            let made = basis.iter().zip(&values);
            let value = made.map(|(variable, amount)| worth(*variable) * amount.max(0.0));
            return Some(Optimum {
                value: value.sum(),
                prices: prices.iter().map(|price| price.max(0.0)).collect(),
            });
        };
        let direction: Vec<f64> = inverse
            .iter()
            .map(|row| match program.columns.get(entering) {
                Some(column) => column.iter().map(|(at, takes)| row[*at] * takes).sum(),
                None => row[entering - own],
            })
            .collect();
        let mut leaving: Option<(usize, f64)> = None;
        for (row, &along) in direction.iter().enumerate() {
            if along <= TINY {
                continue;
            }
            let until = values[row].max(0.0) / along;
            let first = leaving.is_none_or(|(other, least)| {
                until < least || (until == least && basis[row] < basis[other])
            });
            if first {
                leaving = Some((row, until));
            }
        }
        let (pivot, step) = leaving?;
        idle = if step > TINY { 0 } else { idle + 1 };
        let scale = direction[pivot];
        for (row, along) in direction.iter().enumerate() {
            if row != pivot {
                values[row] -= along * step;
            }
        }
        values[pivot] = step;
        let pivot_row: Vec<f64> = inverse[pivot].iter().map(|value| value / scale).collect();
        for (row, along) in direction.iter().enumerate() {
            if row != pivot && *along != 0.0 {
                for (value, pivot) in inverse[row].iter_mut().zip(&pivot_row) {
                    *value -= along * pivot;
                }
            }
        }
        for (price, pivot) in prices.iter_mut().zip(&pivot_row) {
            *price += gained * pivot;
        }
        inverse[pivot] = pivot_row;
        is_basic[basis[pivot]] = false;
        is_basic[entering] = true;
        basis[pivot] = entering;
    }
    None
}
