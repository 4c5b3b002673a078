//! The wall clock, as servers stamp it on what they say.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, milliseconds since 1970.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}
