//! Where letters about jobs may go, and what signs them.

use crate::config::file_jobs::Webhooks;
use crate::config::findings::{Findings, Spot};
use crate::config::host::{host_name, range};
use crate::config::plan::{Secret, WebhooksPlan};
use crate::config::problem::shorten;
use crate::config::typed::{At, Field};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// What the file says of letters. No message says a secret.
pub(crate) fn webhooks(typed: &Field<Webhooks>, outer: Spot, findings: &Findings) -> WebhooksPlan {
    let mut plan = WebhooksPlan::default();
    let Some(At { spot, value: typed }) = typed.at(outer) else {
        return plan;
    };
    let allow_at = typed.allow.spot(spot);
    for entry in typed.allow.get().into_iter().flat_map(|all| &all.0) {
        let Some(At { spot, value }) = entry.at(allow_at) else {
            continue;
        };
        if range(value).is_some() || host_name(value.strip_prefix("*.").unwrap_or(value)).is_some()
        {
            plan.allow.push(value.as_str().into());
        } else {
            let what = format!(
                "`{}` is neither a host nor a range of addresses",
                shorten(value)
            );
            let hint = "write `hooks.example.com`, `*.example.com`, or `10.0.0.0/8` where private addresses are meant";
            findings.problem(spot, what, hint);
        }
    }
    let secret_at = typed.secret.spot(spot);
    for secret in typed.secret.get().into_iter().flat_map(|all| &all.0) {
        let Some(At { spot, value }) = secret.at(secret_at) else {
            continue;
        };
        if is_secret(value) {
            plan.secrets.push(Secret::new(value.clone()));
        } else {
            let hint = "make one with `echo whsec_$(openssl rand -base64 32)`";
            let what = "a secret for letters is `whsec_` and 24 to 64 bytes in base64";
            findings.problem(spot, what, hint);
        }
    }
    plan
}

/// Source: Standard Webhooks 1.0, "Symmetric signatures".
fn is_secret(text: &str) -> bool {
    let bytes = text
        .strip_prefix("whsec_")
        .and_then(|rest| STANDARD.decode(rest).ok());
    bytes.is_some_and(|bytes| (24..=64).contains(&bytes.len()))
}
