//! How many jobs are not over, so that no service or tenant has more than it may.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// How many jobs of each service and tenant are not over.
#[derive(Debug, Default)]
pub struct Census(Mutex<HashMap<OfTenant, usize>>);

/// A service, and a tenant whose jobs it has.
type OfTenant = (Arc<str>, Arc<str>);

/// As many are not over as may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany {
    /// How many there are.
    pub jobs: usize,
    /// Whether it is the tenant's bound.
    pub of_tenant: bool,
}

// === impl Census ===

impl Census {
    /// Counts `more` jobs in, or none of them.
    ///
    /// Errors: with them there would be more than `most` of the service, or `most_of_tenant` of the tenant.
    pub fn reserve(
        &self,
        service: &Arc<str>,
        tenant: &Arc<str>,
        more: usize,
        most: usize,
        most_of_tenant: usize,
    ) -> Result<(), TooMany> {
        let mut all = self.0.lock();
        let of_service: usize = all
            .iter()
            .filter(|((of, _), _)| of == service)
            .map(|(_, count)| count)
            .sum();
        let own = all.entry((service.clone(), tenant.clone())).or_default();
        if *own + more > most_of_tenant || of_service + more > most {
            // Where both are reached, it is nobody's fault.
            let of_tenant = of_service + more <= most;
            return Err(TooMany {
                jobs: if of_tenant { *own } else { of_service },
                of_tenant,
            });
        }
        *own += more;
        Ok(())
    }

    /// Counts jobs in that are there already.
    pub fn count_in(&self, service: &Arc<str>, tenant: &Arc<str>) {
        let mut all = self.0.lock();
        *all.entry((service.clone(), tenant.clone())).or_default() += 1;
    }

    /// So many of them are over, or were never taken in.
    pub fn count_out(&self, service: &Arc<str>, tenant: &Arc<str>, fewer: usize) {
        let mut all = self.0.lock();
        let key = (service.clone(), tenant.clone());
        if let Some(count) = all.get_mut(&key) {
            *count = count.saturating_sub(fewer);
            if *count == 0 {
                all.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_more_than_may_be_and_what_is_over_makes_room() {
        let census = Census::default();
        let (render, a, b): (Arc<str>, Arc<str>, Arc<str>) =
            ("render".into(), "a".into(), "b".into());
        let reserve = |tenant, more| census.reserve(&render, tenant, more, 5, 3);
        assert_eq!(reserve(&a, 3), Ok(()));
        let mine = TooMany {
            jobs: 3,
            of_tenant: true,
        };
        assert_eq!(reserve(&a, 1), Err(mine));
        assert_eq!(reserve(&b, 2), Ok(()));
        let all = TooMany {
            jobs: 5,
            of_tenant: false,
        };
        assert_eq!(reserve(&b, 1), Err(all));
        assert_eq!(reserve(&a, 1), Err(all), "both bounds");
        census.count_out(&render, &a, 1);
        assert_eq!(reserve(&b, 1), Ok(()));
        census.count_out(&render, &a, 9);
        census.count_in(&render, &a);
        assert_eq!(census.0.lock().len(), 2);
    }
}
