//! What a person may type of jobs, and of who hears of them.

use super::file::Priority;
use super::short::expected;
use super::typed::{Field, FromList, FromWord, OneOrMany, Short};
use super::units::{OrNone, Span};
use schemars::JsonSchema;
use serde::Deserialize;

/// Requests that are accepted for later.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Jobs {
    /// Which requests: `off`, `opt-in` (those that say `Prefer: respond-async`), or `always`.
    pub(crate) mode: Field<JobsWord>,
    /// How many may wait or be at work at once; 100000. Past it, 429.
    pub(crate) max: Field<u64>,
    /// How many of one tenant; as many as `max`.
    pub(crate) max_per_tenant: Field<u64>,
    /// Who waits shorter, in place of what the service says: 0 (first) to 7 (last), or `header`.
    pub(crate) priority: Field<Short<Priority>>,
    /// The most urgent that a client may ask for; 0.
    pub(crate) priority_cap: Field<u64>,
    /// How many attempts may fail until a job is dead, 1 to 100; 3.
    pub(crate) attempts: Field<u64>,
    /// How long until the second attempt, the third, and so on; the last is for all further ones; 1s, 10s, 60s.
    pub(crate) backoff: Field<Vec<Field<Span>>>,
    /// How long one attempt may take unless the job says less; 7d.
    pub(crate) timeout: Field<Span>,
    /// Whether another attempt follows one that took too long; false.
    pub(crate) retry_on_timeout: Field<bool>,
    /// How long a job may wait for its start unless it says less; `none`.
    pub(crate) start_by: Field<OrNone<Span>>,
    /// How long a result is kept; 24h.
    pub(crate) keep: Field<Span>,
    /// How long a job that ended dead is kept; 7d.
    pub(crate) keep_dead: Field<Span>,
    /// What becomes of work of which nobody can say whether a node took it: the job is dead (`fail`, the default), or it is handed over again (`resubmit`).
    pub(crate) on_unknown: Field<OnUnknownWord>,
    /// What becomes of a job whose client waited for it and left: it goes on (`continue`, the default), or is canceled (`cancel`).
    pub(crate) on_disconnect: Field<OnDisconnectWord>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(crate) enum JobsWord {
    Off,
    OptIn,
    Always,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum OnUnknownWord {
    Fail,
    Resubmit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum OnDisconnectWord {
    Continue,
    Cancel,
}

/// Which web pages may ask.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Cors {
    /// Origins such as `https://studio.example`; `*` is any.
    pub(crate) origins: Field<OneOrMany<String>>,
}

/// Where the ends of jobs may be told.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Webhooks {
    /// Hosts (`hooks.example.com`, `*.example.com`), and address ranges (`10.0.0.0/8`) where private addresses are meant; nobody when nothing is said.
    pub(crate) allow: Field<OneOrMany<String>>,
    /// Signs what is told, `whsec_` and 24 to 64 bytes in base64; several while one is replaced. The gateway makes one of its own when nothing is said.
    pub(crate) secret: Field<OneOrMany<String>>,
}

// === short forms ===

impl FromWord for Jobs {
    const EXPECTED: &'static str = "`off`, `opt-in`, `always`, or a map with `mode` and more";
    const WORD: &'static str = "`off`, `opt-in` or `always`";

    fn from_word(word: &str) -> Result<Self, String> {
        let mode = match word {
            "off" | "false" => JobsWord::Off,
            "opt-in" => JobsWord::OptIn,
            "always" => JobsWord::Always,
            _ => return Err(expected::<Self>(word)),
        };
        Ok(Jobs {
            mode: Field::of(mode),
            ..Jobs::default()
        })
    }
}

impl FromWord for Cors {
    const EXPECTED: &'static str = "`\"*\"`, an origin, a list of them, or a map with `origins`";
    const WORD: &'static str = "`*` or an origin";

    fn from_word(word: &str) -> Result<Self, String> {
        Ok(Cors {
            origins: Field::of(OneOrMany(vec![Field::of(word.to_owned())])),
        })
    }

    const FROM_LIST: Option<FromList<Self>> = Some(|origins| Cors {
        origins: Field::of(OneOrMany(origins)),
    });
}
