//! The operator's API, on a listener of its own: never on one that clients reach.
//!
//! Without a token it is only on loopback (`config/check` sees to that). Whatever changes something is a POST
//! and is refused from web pages: a page in the operator's browser can reach loopback too.

mod guard;
mod jobs;
mod routes;
mod stream;

use crate::config::{Applied, Problem};
use crate::dispatch::Dispatch;
use crate::telemetry::EdgeGauge;
use futures::future::BoxFuture;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// What the admin API is given to work with.
#[derive(Clone)]
pub struct Means {
    /// Nodes, services, queue.
    pub dispatch: Dispatch,
    /// Reads the files again.
    pub reload: Reload,
    /// Numbers that only the edge knows.
    pub gauges: Arc<dyn Fn() -> EdgeGauge + Send + Sync>,
}

/// Reads the files again and says what changed, or what is wrong.
pub type Reload = Arc<dyn Fn() -> BoxFuture<'static, Result<Applied, Vec<Problem>>> + Send + Sync>;

/// Binds the admin listener.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves until `closing` is set.
pub async fn serve(
    listener: TcpListener,
    means: Means,
    mut closing: watch::Receiver<bool>,
) -> io::Result<()> {
    let until = async move {
        // A sender that is gone closes too.
        let _ = closing.wait_for(|closing| *closing).await;
    };
    axum::serve(listener, routes::router(means))
        .with_graceful_shutdown(until)
        .await
}
