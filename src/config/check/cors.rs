//! Which web pages may ask.

use super::url;
use crate::config::file_jobs::Cors;
use crate::config::findings::{Findings, Spot};
use crate::config::plan::CorsPlan;
use crate::config::problem::shorten;
use crate::config::typed::{At, Field, Short};

/// What a service says of pages; `*` beside others is all of them.
pub(crate) fn cors(typed: &Field<Short<Cors>>, outer: Spot, findings: &Findings) -> CorsPlan {
    let mut plan = CorsPlan::default();
    let spot = typed.spot(outer);
    let Some(Short(typed)) = typed.get() else {
        return plan;
    };
    let spot = typed.origins.spot(spot);
    for origin in typed.origins.get().into_iter().flat_map(|all| &all.0) {
        let Some(At { spot, value }) = origin.at(spot) else {
            continue;
        };
        if value == "*" {
            plan.any = true;
        } else if let Some(origin) = url::origin(value) {
            plan.origins.push(origin.into());
        } else {
            let what = format!("`{}` is no origin", shorten(value));
            let hint = "write each by itself with scheme, host and port, and without a path: `https://studio.example`";
            findings.problem(spot, what, hint);
        }
    }
    plan
}
