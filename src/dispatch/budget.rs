use std::sync::atomic::{AtomicI64, Ordering};

/// How many retries a service may make, so that a farm in trouble is not buried under second tries.
///
/// Every request puts a share of a retry in (`retry.budget` for each hundred), every retry takes one out, and a
/// reserve covers a node's sudden end. Source: the retry budgets of Envoy and Linkerd, which use the same two numbers.
#[derive(Debug)]
pub struct RetryBudget {
    /// In hundredths of a retry.
    left: AtomicI64,
}

/// What is there at the start and at most: as many requests as a large node has at work when it ends.
const RESERVE: i64 = 100 * 100;

// === impl RetryBudget ===

impl Default for RetryBudget {
    fn default() -> Self {
        RetryBudget {
            left: AtomicI64::new(RESERVE),
        }
    }
}

impl RetryBudget {
    /// A request came.
    pub fn earn(&self, per_hundred: u32) {
        let more = |left: i64| (left < RESERVE).then(|| RESERVE.min(left + i64::from(per_hundred)));
        let _ = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Takes one retry out; `false` when there is none.
    pub fn take(&self) -> bool {
        let less = |left: i64| (left >= 100).then(|| left - 100);
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_bounded_by_requests_beside_a_reserve() {
        let budget = RetryBudget::default();
        let mut taken = 0;
        for _ in 0..1000 {
            budget.earn(20);
            taken += u32::from(budget.take());
        }
        // The reserve, and a fifth of the requests less the first, which found the reserve full.
        assert!((298..=300).contains(&taken), "{taken}");
        let stingy = RetryBudget::default();
        assert_eq!((0..200).filter(|_| stingy.take()).count(), 100);
        stingy.earn(0);
        assert!(!stingy.take());
    }
}
