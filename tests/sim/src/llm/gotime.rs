//! Times as Go writes them in JSON.

use std::time::Duration;

/// A time since 1970, in UTC, to the nanosecond: `2026-08-21T18:48:22.5Z`.
pub(crate) fn rfc3339(since_1970: Duration) -> String {
    let seconds = since_1970.as_secs();
    let (year, month, day) = date((seconds / 86_400) as i64);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let nanos = format!("{:09}", since_1970.subsec_nanos());
    let fraction = nanos.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{point}{fraction}Z")
}

/// Year, month and day of a day since 1970. Source: Howard Hinnant, "chrono-compatible low-level date algorithms".
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_writes_them() {
        for (time, text) in [
            (Duration::ZERO, "1970-01-01T00:00:00Z"),
            (Duration::new(1_582_934_400, 0), "2020-02-29T00:00:00Z"),
            (
                Duration::new(1_795_784_190, 120_450_000),
                "2026-11-27T12:56:30.12045Z",
            ),
        ] {
            assert_eq!(rfc3339(time), text);
        }
    }
}
