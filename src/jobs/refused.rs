//! What the store's and the bounds' trouble is to whoever asks.

use super::AcceptError;
use crate::store::StoreError;
use std::time::Duration;
use tabane_api::Refusal;

/// When it is worth asking again where as many jobs are not over as may be.
const COME_BACK: Duration = Duration::from_secs(30);

/// What the store's trouble is to a client.
pub fn unavailable(error: StoreError) -> Refusal {
    tracing::error!(%error, "the store cannot be used");
    match error {
        StoreError::Full(_) => Refusal::StoreFull("there is no more room for jobs".into()),
        _ => Refusal::Overloaded("jobs cannot be kept or looked up now; try again soon".into()),
    }
}

/// Why a job was not taken in, to its client.
pub fn not_accepted(error: AcceptError, service: &str, tenant: &str) -> Refusal {
    match error {
        AcceptError::Store(error) => unavailable(error),
        AcceptError::TooMany(too_many) if too_many.of_tenant => Refusal::TenantFull {
            tenant: tenant.to_owned(),
            has: too_many.jobs,
            what: "jobs that are not over",
            retry_after: COME_BACK,
        },
        AcceptError::TooMany(too_many) => Refusal::QueueFull {
            service: service.to_owned(),
            waiting: too_many.jobs,
            retry_after: COME_BACK,
        },
    }
}
