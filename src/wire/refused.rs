//! Which status a refusal gets. The only file that knows; its shape is the kind's.

use http::StatusCode;
use std::time::Duration;
use tabane_api::Refusal;

/// The status of a refusal.
pub fn status(why: &Refusal) -> StatusCode {
    match why {
        Refusal::BadRequest(_) => StatusCode::BAD_REQUEST,
        Refusal::Unauthorized(_) => StatusCode::UNAUTHORIZED,
        Refusal::NotFound(_) | Refusal::NoSuch(_) => StatusCode::NOT_FOUND,
        Refusal::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Refusal::HeadTooLarge(_) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        Refusal::TooSlow => StatusCode::REQUEST_TIMEOUT,
        Refusal::QueueFull { .. } | Refusal::TenantFull { .. } | Refusal::Limited { .. } => {
            StatusCode::TOO_MANY_REQUESTS
        }
        // The request is good and the service lacks a machine for it: more hardware would help, another request would not.
        Refusal::NoFit { .. }
        | Refusal::WaitedTooLong { .. }
        | Refusal::ShuttingDown
        | Refusal::Overloaded(_) => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::NodeFailed(_) => StatusCode::BAD_GATEWAY,
        Refusal::NodeTimeout(_) => StatusCode::GATEWAY_TIMEOUT,
        Refusal::WrongMethod { .. } => StatusCode::METHOD_NOT_ALLOWED,
        Refusal::Forbidden(_) => StatusCode::FORBIDDEN,
        Refusal::Conflict(_) => StatusCode::CONFLICT,
        Refusal::Gone(_) => StatusCode::GONE,
        Refusal::Unprocessable(_) => StatusCode::UNPROCESSABLE_ENTITY,
        Refusal::StoreFull(_) => StatusCode::INSUFFICIENT_STORAGE,
        Refusal::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// When it is worth trying again; `None` where it is not.
pub fn retry_after(why: &Refusal) -> Option<Duration> {
    match why {
        Refusal::QueueFull { retry_after, .. }
        | Refusal::TenantFull { retry_after, .. }
        | Refusal::Limited { retry_after, .. } => Some(*retry_after),
        Refusal::WaitedTooLong { .. } | Refusal::Overloaded(_) => Some(Duration::from_secs(5)),
        Refusal::StoreFull(_) => Some(Duration::from_secs(60)),
        Refusal::ShuttingDown => Some(Duration::from_secs(1)),
        _ => None,
    }
}
