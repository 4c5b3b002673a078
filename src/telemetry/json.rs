//! Log lines as JSON: one object a line, its fields beside `timestamp`, `level` and `target`.
//!
//! tracing-subscriber's own takes twice the time, and the access line was half of what a request cost beyond Pingora
//! (measured with `make bench`).

use std::fmt::{self, Debug, Write};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_log::NormalizeEvent;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Formats events as JSON.
pub(super) struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        // What Pingora says through the `log` crate has its own place among its fields.
        let said = event.normalized_metadata();
        let about = said.as_ref().unwrap_or_else(|| event.metadata());
        let mut line = String::with_capacity(512);
        line.push_str("{\"timestamp\":\"");
        SystemTime.format_time(&mut Writer::new(&mut line))?;
        line.push_str("\",\"level\":\"");
        line.push_str(about.level().as_str());
        line.push('"');
        event.record(&mut Fields(&mut line));
        line.push_str(",\"target\":");
        quote(&mut line, about.target());
        line.push_str("}\n");
        writer.write_str(&line)
    }
}

/// Writes fields behind what is there.
struct Fields<'a>(&'a mut String);

impl Fields<'_> {
    fn name(&mut self, field: &Field) {
        self.0.push(',');
        quote(self.0, field.name());
        self.0.push(':');
    }

    fn plain(&mut self, field: &Field, value: impl fmt::Display) {
        self.name(field);
        // Writing to a string cannot fail.
        let _ = write!(self.0, "{value}");
    }
}

impl Visit for Fields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.plain(field, value);
        } else {
            self.plain(field, "null");
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.name(field);
        quote(self.0, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name().starts_with("log.") {
            return;
        }
        self.name(field);
        self.0.push('"');
        let _ = write!(Escaped(self.0), "{value:?}");
        self.0.push('"');
    }
}

fn quote(line: &mut String, text: &str) {
    line.push('"');
    let _ = Escaped(line).write_str(text);
    line.push('"');
}

/// The inside of a JSON string (RFC 8259, 7).
struct Escaped<'a>(&'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut plain = 0;
        for (i, byte) in text.bytes().enumerate() {
            if byte >= b' ' && byte != b'"' && byte != b'\\' {
                continue;
            }
            self.0.push_str(&text[plain..i]);
            plain = i + 1;
            match byte {
                b'"' => self.0.push_str("\\\""),
                b'\\' => self.0.push_str("\\\\"),
                b'\n' => self.0.push_str("\\n"),
                b'\r' => self.0.push_str("\\r"),
                b'\t' => self.0.push_str("\\t"),
                _ => write!(self.0, "\\u{byte:04x}")?,
            }
        }
        self.0.push_str(&text[plain..]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::lines::Lines;
    use parking_lot::Mutex;
    use std::io;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_line_is_json_whatever_it_says() {
        let paper = Paper::default();
        let lines = Lines::to(paper.clone());
        let subscriber = tracing_subscriber::fmt()
            .event_format(Json)
            .with_writer(lines.line())
            .finish();
        let odd = "a \"quoted\" \\ back\nslash\u{1b}[31m ü 束";
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(target: "t", odd, shown = ?odd, spoken = %odd, n = -1, big = u64::MAX, half = 0.5, none = f64::NAN, yes = true, nothing = None::<u64>, "{odd}");
        });
        drop(lines);
        let text = String::from_utf8(paper.0.lock().clone()).unwrap();
        let said: serde_json::Value = serde_json::from_str(text.trim_end_matches('\n')).unwrap();
        for (name, value) in [
            ("level", "WARN".into()),
            ("target", "t".into()),
            ("message", odd.into()),
            ("odd", odd.into()),
            ("spoken", odd.into()),
            ("shown", format!("{odd:?}").into()),
            ("n", (-1).into()),
            ("big", u64::MAX.into()),
            ("half", 0.5.into()),
            ("none", serde_json::Value::Null),
            ("yes", true.into()),
        ] {
            assert_eq!(said[name], value, "{name} in {text}");
        }
        assert!(said.get("nothing").is_none());
        assert!(
            said["timestamp"]
                .as_str()
                .is_some_and(|time| time.ends_with('Z'))
        );
    }
}
