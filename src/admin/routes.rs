use super::guard::{error, guard};
use super::{Means, jobs, stream};
use crate::dispatch::{Question, day};
use crate::telemetry::PoolGauge;
use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;
use std::time::SystemTime;

/// The document that describes this API. A test holds it against the routes.
const OPENAPI: &str = include_str!("openapi.json");

/// Every path of the admin listener.
pub(super) fn router(means: Means) -> Router {
    let api = Router::new()
        .route("/api/v1/nodes", get(nodes))
        .route("/api/v1/nodes/{name}", get(node))
        .route("/api/v1/nodes/{name}/drain", post(drain))
        .route("/api/v1/nodes/{name}/undrain", post(undrain))
        .route("/api/v1/services", get(services))
        .route("/api/v1/pools", get(pools))
        .route("/api/v1/queue", get(queue))
        .route("/api/v1/config", get(config))
        .route("/api/v1/explain", get(explain))
        .route("/api/v1/usage", get(usage))
        .route("/api/v1/scale/{pool}", get(scale))
        .route("/api/v1/events", get(stream::events))
        .route("/api/v1/reload", post(reload))
        .route("/api/v1/jobs", any(jobs::call))
        .route("/api/v1/jobs/purge", post(jobs::purge))
        .route("/api/v1/jobs/{id}", any(jobs::call))
        .route("/api/v1/jobs/{id}/{what}", any(jobs::call))
        .route("/api/v1/arrays/{id}", any(jobs::call))
        .route("/api/v1/arrays/{id}/{what}", any(jobs::call))
        .route("/api/v1/openapi.json", get(openapi))
        .route("/metrics", get(metrics))
        .fallback(nothing)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(means.clone(), guard));
    // Probes of an orchestrator carry no token and learn nothing but yes or no.
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .merge(api)
        .layer(middleware::from_fn(plain_headers))
        .with_state(means)
}

async fn ready(State(means): State<Means>) -> Response {
    if means.dispatch.is_ready() {
        "ready\n".into_response()
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "not ready: no endpoint is usable, or the gateway is going down\n",
        )
            .into_response()
    }
}

async fn metrics(State(means): State<Means>) -> Response {
    let dispatch = &means.dispatch;
    let scales = dispatch.scales().into_iter();
    let pools: Vec<PoolGauge> = scales
        .map(|scale| PoolGauge {
            pool: scale.pool,
            desired: scale.desired,
        })
        .collect();
    let text = dispatch.metrics().render(
        &dispatch.gauges(),
        &dispatch.service_gauges(),
        &pools,
        (means.gauges)(),
    );
    (
        [(
            header::CONTENT_TYPE,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        )],
        text,
    )
        .into_response()
}

async fn nodes(State(means): State<Means>) -> Response {
    Json(means.dispatch.nodes()).into_response()
}

async fn node(State(means): State<Means>, Path(name): Path<String>) -> Response {
    match means
        .dispatch
        .nodes()
        .into_iter()
        .find(|node| node.name == name)
    {
        Some(node) => Json(node).into_response(),
        None => no_node(&name),
    }
}

async fn drain(State(means): State<Means>, Path(name): Path<String>) -> Response {
    mark(means, name, true).await
}

async fn undrain(State(means): State<Means>, Path(name): Path<String>) -> Response {
    mark(means, name, false).await
}

async fn mark(means: Means, name: String, on: bool) -> Response {
    let (dispatch, node) = (means.dispatch.clone(), name.clone());
    // The mark is on disk before it is answered, and a disk may be slow.
    match tokio::task::spawn_blocking(move || dispatch.drain(&node, on)).await {
        Ok(Ok(true)) => match means
            .dispatch
            .nodes()
            .into_iter()
            .find(|node| node.name == name)
        {
            Some(node) => Json(node).into_response(),
            None => Json(json!({"name": name})).into_response(),
        },
        Ok(Ok(false)) => no_node(&name),
        Ok(Err(why)) => error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "not_kept",
            &why.to_string(),
        ),
        Err(_) => error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the mark could not be set",
        ),
    }
}

fn no_node(name: &str) -> Response {
    error(
        StatusCode::NOT_FOUND,
        "no_such_node",
        &format!("no node is named `{name}`; `GET /api/v1/nodes` lists them"),
    )
}

/// Which days.
#[derive(Deserialize)]
struct Days {
    from: Option<String>,
    to: Option<String>,
}

async fn usage(State(means): State<Means>, Query(days): Query<Days>) -> Response {
    let today = day(SystemTime::now());
    let to = days.to.unwrap_or_else(|| today.clone());
    let from = days.from.unwrap_or_else(|| to.clone());
    if !is_day(&from) || !is_day(&to) {
        let why = "`from` and `to` are days, such as `2026-11-27`";
        return error(StatusCode::BAD_REQUEST, "bad_request", why);
    }
    match means.dispatch.usage(&from, &to).await {
        Ok(rows) => Json(json!({"from": from, "to": to, "usage": rows})).into_response(),
        Err(why) => error(
            StatusCode::SERVICE_UNAVAILABLE,
            "store_unusable",
            &why.to_string(),
        ),
    }
}

/// `2026-11-27`.
fn is_day(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 10
        && bytes.iter().enumerate().all(|(at, byte)| match at {
            4 | 7 => *byte == b'-',
            _ => byte.is_ascii_digit(),
        })
}

async fn services(State(means): State<Means>) -> Response {
    Json(means.dispatch.services()).into_response()
}

async fn pools(State(means): State<Means>) -> Response {
    Json(means.dispatch.pools()).into_response()
}

async fn queue(State(means): State<Means>) -> Response {
    Json(means.dispatch.queue()).into_response()
}

/// What serves: enough to tell two configurations apart, and nothing secret.
async fn config(State(means): State<Means>) -> Response {
    let Some(world) = means.dispatch.world() else {
        return error(
            StatusCode::SERVICE_UNAVAILABLE,
            "no_config",
            "no configuration is installed yet",
        );
    };
    let plan = &world.plan;
    let listeners: Vec<_> = plan
        .listeners
        .iter()
        .map(|listener| listener.address.to_string())
        .collect();
    let tenants: Vec<_> = plan
        .tenants
        .iter()
        .map(|tenant| json!({"name": tenant.name, "weight": tenant.weight}))
        .collect();
    Json(json!({
        "generation": world.generation,
        "hash": plan.hash,
        "listeners": listeners,
        "nodes": plan.nodes.len(),
        "endpoints": plan.endpoints.len(),
        "services": plan.services.iter().map(|service| &service.name).collect::<Vec<_>>(),
        "tenants": tenants,
    }))
    .into_response()
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ExplainQuery {
    service: Option<String>,
    path: Option<String>,
    class: Option<String>,
    model: Option<String>,
    size: Option<f64>,
    tenant: Option<String>,
    job: Option<String>,
    request: Option<String>,
    ticket: Option<u64>,
}

async fn explain(
    State(means): State<Means>,
    query: Result<Query<ExplainQuery>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let asked = query.ok().and_then(|Query(query)| question(query));
    let Some(asked) = asked else {
        return error(
            StatusCode::BAD_REQUEST,
            "bad_request",
            "say what about: `/api/v1/explain?service=NAME&path=/…`, `?job=ID`, `?request=ID` or `?ticket=N`",
        );
    };
    if let Some(explanation) = means.dispatch.explain(&asked) {
        return Json(explanation).into_response();
    }
    // By the name that its client gave it.
    if let Question::Job(name) = &asked
        && let Some(jobs) = means.dispatch.jobs()
        && let Ok(Some(job)) = jobs.store().find(None, name).await
        && let Some(explanation) = means.dispatch.explain(&Question::Job(job.id.to_string()))
    {
        return Json(explanation).into_response();
    }
    match asked {
        Question::Would { service, .. } => error(
            StatusCode::NOT_FOUND,
            "no_such_service",
            &format!("no service is named `{service}`; `GET /api/v1/services` lists them"),
        ),
        _ => error(
            StatusCode::NOT_FOUND,
            "not_found",
            "nothing is known of it: it does not wait, and is none of the last 4096 that were given a node since the start",
        ),
    }
}

fn question(query: ExplainQuery) -> Option<Question> {
    let ExplainQuery {
        service,
        path,
        class,
        model,
        size,
        tenant,
        job,
        request,
        ticket,
    } = query;
    match (service, job, request, ticket) {
        (Some(service), None, None, None) => Some(Question::Would {
            service,
            path: path.unwrap_or_else(|| "/".into()),
            class,
            model,
            size,
            tenant,
        }),
        (None, Some(job), None, None) => Some(Question::Job(job)),
        (None, None, Some(request), None) => Some(Question::Request(request)),
        (None, None, None, Some(ticket)) => Some(Question::Ticket(ticket)),
        _ => None,
    }
}

async fn scale(State(means): State<Means>, Path(pool): Path<String>) -> Response {
    match means.dispatch.scale(&pool) {
        Some(scale) => Json(scale).into_response(),
        None => error(
            StatusCode::NOT_FOUND,
            "no_such_pool",
            &format!("no service uses a pool `{pool}`; `GET /api/v1/pools` lists them"),
        ),
    }
}

async fn reload(State(means): State<Means>) -> Response {
    match (means.reload)().await {
        Ok(applied) => Json(applied).into_response(),
        Err(problems) => {
            let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
            let message = "the configuration has problems; the old one stays";
            let body =
                json!({"error": {"code": "bad_config", "message": message}, "problems": text});
            (StatusCode::UNPROCESSABLE_ENTITY, Json(body)).into_response()
        }
    }
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

async fn nothing() -> Response {
    error(
        StatusCode::NOT_FOUND,
        "not_found",
        "nothing is here; `GET /api/v1/openapi.json` lists what is",
    )
}

async fn wrong_method() -> Response {
    error(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "this path does not take this method; see `/api/v1/openapi.json`",
    )
}

/// Answers are neither kept by caches nor sniffed by browsers.
async fn plain_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(
        header::CACHE_CONTROL,
        axum::http::HeaderValue::from_static("no-store"),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        axum::http::HeaderValue::from_static("nosniff"),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::OPENAPI;

    #[test]
    fn the_document_describes_every_route_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
        let mut described: Vec<&str> = document["paths"]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        // Composed so that this line is not itself found in the source.
        let marker = concat!(".route(", "\"");
        let mut routed: Vec<&str> = include_str!("routes.rs")
            .split(marker)
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .filter(|path| path.starts_with('/'))
            .collect();
        described.sort_unstable();
        routed.sort_unstable();
        assert!(routed.len() > 10);
        assert_eq!(described, routed);
    }
}
