//! Durations and sizes as people type them, and values that may be `none`.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

/// Longer than anything here needs, short enough that adding it to any clock is safe.
pub(crate) const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// A duration: `500ms`, `30s`, `5m`, `1h30m`, `2d`, or `0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

/// A size in bytes: `1024`, `64KB`, `1MiB`, `24GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

/// A bound that may be `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OrNone<T>(pub(crate) Option<T>);

/// What is read from one word.
pub(crate) trait Unit: Sized {
    /// For `expected …`.
    const EXPECTED: &'static str;
    /// Reads it. Errors: what is wrong, and behind `; ` what to write.
    fn parse(text: &str) -> Result<Self, String>;
}

impl Unit for Span {
    const EXPECTED: &'static str = "a duration such as `500ms`, `30s`, `5m` or `1h`";

    fn parse(text: &str) -> Result<Self, String> {
        let no = || {
            format!(
                "`{}` is not a duration; write it as `500ms`, `30s`, `5m` or `1h`",
                short(text)
            )
        };
        if text == "0" {
            return Ok(Span(Duration::ZERO));
        }
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(format!(
                "`{}` has no unit; write `{0}s` for seconds",
                short(text)
            ));
        }
        let mut rest = text;
        let mut total_ms: u64 = 0;
        while !rest.is_empty() {
            let (number, after) = leading_number(rest).ok_or_else(no)?;
            let end = after
                .find(|c: char| !c.is_ascii_alphabetic())
                .unwrap_or(after.len());
            let (unit, next) = after.split_at(end);
            let ms = match unit {
                "ms" => 1,
                "s" => 1000,
                "m" | "min" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                _ => return Err(no()),
            };
            total_ms = number
                .checked_mul(ms)
                .and_then(|more| total_ms.checked_add(more))
                .ok_or_else(|| too_long(text))?;
            rest = next;
        }
        let span = Duration::from_millis(total_ms);
        if text.is_empty() {
            Err(no())
        } else if span > LONGEST {
            Err(too_long(text))
        } else {
            Ok(Span(span))
        }
    }
}

impl Unit for Size {
    const EXPECTED: &'static str = "a size such as `1024`, `64KB`, `1MiB` or `24GiB`";

    fn parse(text: &str) -> Result<Self, String> {
        let no = || {
            format!(
                "`{}` is not a size; write it as `1024`, `64KB`, `1MiB` or `24GiB`",
                short(text)
            )
        };
        let (number, unit) = leading_number(text).ok_or_else(no)?;
        let factor: u64 = match unit.trim_start() {
            "" | "B" => 1,
            "KB" | "kB" => 1000,
            "MB" => 1000_u64.pow(2),
            "GB" => 1000_u64.pow(3),
            "TB" => 1000_u64.pow(4),
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            _ => return Err(no()),
        };
        let bytes = number
            .checked_mul(factor)
            .filter(|bytes| *bytes <= i64::MAX as u64);
        bytes
            .map(Size)
            .ok_or_else(|| format!("`{}` is more than can be counted", short(text)))
    }
}

impl<T: Unit> Unit for OrNone<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(OrNone(None)),
            _ => T::parse(text).map(|value| OrNone(Some(value))),
        }
    }
}

fn leading_number(text: &str) -> Option<(u64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

fn short(text: &str) -> String {
    super::problem::shorten(text)
}

fn too_long(text: &str) -> String {
    format!("`{}` is too long; the longest is `366d`", short(text))
}

struct UnitVisitor<T>(PhantomData<T>);

impl<T: Unit> Visitor<'_> for UnitVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        T::parse(text).map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(UnitVisitor(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(UnitVisitor(PhantomData))
    }
}

impl<'de, T: Unit> Deserialize<'de> for OrNone<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(UnitVisitor(PhantomData))
    }
}

impl JsonSchema for Span {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // No pattern: a `${…}` may stand here too.
        json_schema!({"type": ["string", "integer"], "examples": ["500ms", "30s", "5m", "1h"]})
    }
}

impl JsonSchema for Size {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["string", "integer"], "examples": ["64KB", "1MiB", "24GiB"]})
    }
}

impl<T: JsonSchema> JsonSchema for OrNone<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("OrNone_{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let value = generator.subschema_for::<T>();
        json_schema!({"anyOf": [{"const": "none"}, value]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_units() {
        let ms = |text| Span::parse(text).map(|s| s.0.as_millis());
        assert_eq!(ms("500ms"), Ok(500));
        assert_eq!(ms("30s"), Ok(30_000));
        assert_eq!(ms("1h30m"), Ok(5_400_000));
        assert_eq!(ms("0"), Ok(0));
        for bad in [
            "",
            "5",
            "s",
            "5 s",
            "5x",
            "-5s",
            "1.5s",
            "99999999999999999999s",
            "18446744073709551615h",
            "367d",
            "5sé",
        ] {
            assert!(ms(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_read_with_their_units() {
        let bytes = |text| Size::parse(text).map(|s| s.0);
        assert_eq!(bytes("1024"), Ok(1024));
        assert_eq!(bytes("64KB"), Ok(64_000));
        assert_eq!(bytes("24GiB"), Ok(24 << 30));
        for bad in [
            "",
            "GiB",
            "-1",
            "1.5GiB",
            "1 XB",
            "99999999999999999999",
            "18446744073709551615TiB",
        ] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
