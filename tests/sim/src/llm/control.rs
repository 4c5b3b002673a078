//! `/sim`: the knobs, over HTTP. No real server has it.

use super::reply::{Reply, with};
use super::server::Server;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::io;

/// `GET` tells the knobs; anything else changes those that are in its body.
pub(crate) async fn control(server: &Server, request: Request<Incoming>) -> io::Result<Reply> {
    if *request.method() != Method::GET {
        let changes = request
            .into_body()
            .collect()
            .await
            .map_err(io::Error::other)?;
        match server.knobs().overlay(&changes.to_bytes()) {
            Ok(knobs) => {
                server.knobs.send_replace(knobs);
            }
            Err(why) => {
                return Ok(with(
                    StatusCode::BAD_REQUEST,
                    "text/plain; charset=utf-8",
                    why,
                ));
            }
        }
    }
    let told = serde_json::to_vec(&server.knobs()).map_err(io::Error::other)?;
    Ok(with(StatusCode::OK, "application/json", told))
}
