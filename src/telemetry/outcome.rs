//! How requests and probes end, in the words of metrics and logs.

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The node answered, below 400.
    Ok,
    /// The node answered 4xx.
    ClientError,
    /// The node answered 5xx.
    NodeError,
    /// The gateway refused it, with this code.
    Refused(&'static str),
    /// Its client left.
    ClientGone,
    /// The node broke off after its answer had begun.
    Broken,
}

/// How a probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// The endpoint is well.
    Ok,
    /// No answer in time.
    Timeout,
    /// Nobody listens.
    Unreachable,
    /// It answered, and not well.
    Unhealthy,
}

// === impl Outcome ===

impl Outcome {
    /// The word in metrics and logs.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::ClientError => "client_error",
            Outcome::NodeError => "node_error",
            Outcome::Refused(_) => "refused",
            Outcome::ClientGone => "client_gone",
            Outcome::Broken => "broken",
        }
    }

    /// The code of a refusal; empty otherwise.
    pub fn code(self) -> &'static str {
        match self {
            Outcome::Refused(code) => code,
            _ => "",
        }
    }
}

// === impl ProbeOutcome ===

impl ProbeOutcome {
    pub(super) fn word(self) -> &'static str {
        match self {
            ProbeOutcome::Ok => "ok",
            ProbeOutcome::Timeout => "timeout",
            ProbeOutcome::Unreachable => "unreachable",
            ProbeOutcome::Unhealthy => "unhealthy",
        }
    }
}
