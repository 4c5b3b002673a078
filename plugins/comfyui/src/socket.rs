//! `GET /ws`.

use crate::answers::features;
use crate::kind::Comfyui;
use crate::route::{query, value};
use http::Request;
use tabane_api::{Caller, Socket};

/// Speaks with a client until its socket ends.
pub async fn serve(
    kind: &Comfyui,
    request: Request<()>,
    _caller: &Caller,
    socket: Box<dyn Socket>,
) {
    // The first thing it is told is how many wait.
    if kind.ready().await.is_err() {
        return;
    }
    let query = query(request.uri().query());
    let client = value(&query, "clientId");
    kind.desk
        .clients
        .attach(client, socket, || features(kind))
        .await;
}
