//! An engine that answers at once: what is left is the router's time.

use super::engines::MODEL;
use anyhow::Result;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use tokio::net::TcpListener;

/// Events with a token in each streamed answer; two more begin and end it.
pub const EVENTS: usize = 100;

/// Runs so many until they are told to end; prints their ports.
pub async fn serve(n: usize) -> Result<()> {
    let mut ports = Vec::new();
    for _ in 0..n {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        ports.push(listener.local_addr()?.port().to_string());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                tokio::spawn(async move {
                    let http = hyper::server::conn::http1::Builder::new();
                    let serve =
                        service_fn(|request| async { Ok::<_, Infallible>(answer(request).await) });
                    // Whoever leaves is no error of the engine.
                    let _ = http.serve_connection(TokioIo::new(stream), serve).await;
                });
            }
        });
    }
    println!("{}", ports.join(" "));
    std::future::pending().await
}

async fn answer(request: Request<Incoming>) -> Response<BoxBody<Bytes, Infallible>> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let streams = body
        .windows(13)
        .rev()
        .take(200)
        .any(|w| w == b"\"stream\":true");
    match path.as_str() {
        "/v1/models" => json(format!(
            "{{\"object\":\"list\",\"data\":[{{\"id\":\"{MODEL}\",\"object\":\"model\",\"created\":1,\"owned_by\":\"vllm\",\"max_model_len\":32768}}]}}"
        )),
        "/health" => json(String::new()),
        "/version" => json("{\"version\":\"0.32.0\"}".into()),
        "/v1/chat/completions" if streams => events(),
        "/v1/chat/completions" => json(format!(
            "{{\"id\":\"x\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"{MODEL}\",\"choices\":[{{\"index\":0,\"message\":{{\"role\":\"assistant\",\"content\":\"well\"}},\"finish_reason\":\"stop\"}}],\"usage\":{{\"prompt_tokens\":50,\"completion_tokens\":1,\"total_tokens\":51}}}}"
        )),
        _ => {
            let mut answer = json("{}".into());
            *answer.status_mut() = StatusCode::NOT_FOUND;
            answer
        }
    }
}

fn json(text: String) -> Response<BoxBody<Bytes, Infallible>> {
    let mut answer = Response::new(Full::new(Bytes::from(text)).boxed());
    let json = http::HeaderValue::from_static("application/json");
    answer.headers_mut().insert("content-type", json);
    answer
}

/// One write each, as engines do.
fn events() -> Response<BoxBody<Bytes, Infallible>> {
    let event = |delta: &str, finish: &str| {
        format!(
            "data: {{\"id\":\"x\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"{MODEL}\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{finish}}}]}}\n\n"
        )
    };
    let token = Bytes::from(event("{\"content\":\" word\"}", "null"));
    let first = Bytes::from(event("{\"role\":\"assistant\",\"content\":\"\"}", "null"));
    let last = Bytes::from(event("{}", "\"stop\"") + "data: [DONE]\n\n");
    let all = std::iter::once(first)
        .chain(std::iter::repeat_n(token, EVENTS))
        .chain(std::iter::once(last));
    let pieces = stream::iter(all).then(|piece| async {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        Ok(Frame::data(piece))
    });
    let mut answer = Response::new(BodyExt::boxed(StreamBody::new(pieces)));
    let kind = http::HeaderValue::from_static("text/event-stream");
    answer.headers_mut().insert("content-type", kind);
    answer
}
