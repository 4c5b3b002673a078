use super::Outcome;
use http::Version;
use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

/// What is logged of one request: one line, structured.
#[derive(Clone, Debug)]
pub struct AccessLine<'a> {
    /// The request's id.
    pub request_id: Cow<'a, str>,
    /// Who asked.
    pub tenant: &'a str,
    /// From where.
    pub client: IpAddr,
    /// Which service; `-` when none was found.
    pub service: &'a str,
    /// What its kind calls such a request, and how much work it is: what times are learned by. `None` for what takes no slot.
    pub work: Option<(&'a str, f64)>,
    /// The method.
    pub method: &'a str,
    /// The host asked for.
    pub host: &'a str,
    /// The path, without the query: that may carry keys.
    pub path: &'a str,
    /// The status that was answered; 0 when none was.
    pub status: u16,
    /// The endpoint that served last; `-` when none did.
    pub node: &'a str,
    /// How long it waited for slots.
    pub wait: Duration,
    /// Until the first byte of a node's answer.
    pub first_byte: Option<Duration>,
    /// From the head to the end.
    pub total: Duration,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// Attempts at nodes.
    pub attempts: u32,
    /// The job that it became: what is asked of it later has other lines.
    pub job: Option<&'a str>,
    /// How it ended.
    pub outcome: Outcome,
    /// HTTP's version towards the client.
    pub protocol: Version,
}

// === impl AccessLine ===

impl AccessLine<'_> {
    /// Writes the line. Nothing is formatted when nobody wants it.
    pub fn emit(&self) {
        if !tracing::enabled!(target: "tabane::access", tracing::Level::INFO) {
            return;
        }
        tracing::info!(
            target: "tabane::access",
            request_id = &*self.request_id,
            tenant = self.tenant,
            client = %self.client,
            service = self.service,
            class = self.work.map(|(class, _)| class),
            size = self.work.map(|(_, size)| size),
            method = self.method,
            host = &*printable(self.host),
            path = &*printable(self.path),
            status = self.status,
            node = self.node,
            wait_ms = millis(self.wait),
            first_byte_ms = self.first_byte.map(millis),
            total_ms = millis(self.total),
            bytes_in = self.bytes_in,
            bytes_out = self.bytes_out,
            attempts = self.attempts,
            job = self.job,
            outcome = self.outcome.word(),
            code = self.outcome.code(),
            protocol = spoken(self.protocol),
            "request"
        );
    }
}

/// A version as people write it.
fn spoken(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "-",
    }
}

/// Milliseconds with three digits after the point.
fn millis(time: Duration) -> f64 {
    (time.as_micros() as f64) / 1000.0
}

/// A text that cannot break a line or fill a disk.
fn printable(text: &str) -> Cow<'_, str> {
    const MOST: usize = 512;
    if text.len() <= MOST && !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut end = MOST.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let cut = if end < text.len() { "…" } else { "" };
    Cow::Owned(
        text[..end]
            .chars()
            .flat_map(|c| {
                if c.is_control() {
                    c.escape_default().collect::<Vec<_>>()
                } else {
                    vec![c]
                }
            })
            .collect::<String>()
            + cut,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_a_line() {
        assert_eq!(printable("/a/ü"), "/a/ü");
        assert_eq!(printable("/a\nb\u{1b}[31m"), "/a\\nb\\u{1b}[31m");
        assert!(printable(&"ü".repeat(5000)).len() < 600);
    }
}
