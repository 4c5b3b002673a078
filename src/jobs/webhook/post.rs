//! How a letter gets to its receiver: one POST, over a connection to an address that was checked.

use super::{Guard, Outcome};
use arc_swap::ArcSwap;
use async_trait::async_trait;
use http::{HeaderMap, Uri, header};
use std::sync::Arc;
use std::time::Duration;
use ureq::config::Config;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

/// How long a try may take, with everything: the standard asks for 15 to 30 seconds.
const LONGEST: Duration = Duration::from_secs(15);

/// Sends letters.
#[async_trait]
pub trait Post: Send + Sync {
    /// Sends one, and says what happened.
    async fn post(&self, url: &Uri, headers: HeaderMap, body: String) -> Outcome;
}

/// Sends letters over HTTP/1.1, with TLS where the URL says so.
///
/// No redirect is followed, no proxy is used, no connection is used twice, and no answer's body is read.
pub struct HttpPost(ureq::Agent);

/// Finds the addresses of a name, and lets only those through to which letters may go.
#[derive(Debug)]
struct Checked {
    guard: Arc<ArcSwap<Guard>>,
    names: DefaultResolver,
}

// === impl HttpPost ===

impl HttpPost {
    /// Connects to where the guard of the moment lets it. Servers are believed that the system's certificates vouch for.
    pub fn new(guard: Arc<ArcSwap<Guard>>) -> Self {
        HttpPost::with_timeout(guard, LONGEST)
    }

    pub(super) fn with_timeout(guard: Arc<ArcSwap<Guard>>, longest: Duration) -> Self {
        let roots = rustls_native_certs::load_native_certs().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read the system's certificates: no letter can be sent over https");
            Vec::new()
        });
        let roots = roots
            .iter()
            .map(|root| Certificate::from_der(root).to_owned());
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::Specific(Arc::new(roots.collect())))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let config = Config::builder()
            .timeout_global(Some(longest))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            // Taken from the environment otherwise, and a proxy finds the addresses itself.
            .proxy(None)
            // What was allowed to an earlier letter may be denied to the next.
            .max_idle_connections(0)
            .max_idle_connections_per_host(0)
            .user_agent(concat!("tabane/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls)
            .build();
        let resolver = Checked {
            guard,
            names: DefaultResolver::default(),
        };
        HttpPost(ureq::Agent::with_parts(
            config,
            DefaultConnector::default(),
            resolver,
        ))
    }
}

#[async_trait]
impl Post for HttpPost {
    async fn post(&self, url: &Uri, headers: HeaderMap, body: String) -> Outcome {
        let (agent, url) = (self.0.clone(), url.clone());
        let sent = tokio::task::spawn_blocking(move || send(&agent, url, headers, &body)).await;
        sent.unwrap_or_else(|_| Outcome::Failed("the try broke off".to_owned()))
    }
}

fn send(agent: &ureq::Agent, url: Uri, headers: HeaderMap, body: &str) -> Outcome {
    let mut request = agent.post(url);
    if let Some(all) = request.headers_mut() {
        all.extend(headers);
    }
    match request.send(body) {
        Ok(answer) => {
            let retry_after = answer.headers().get(header::RETRY_AFTER);
            Outcome::Answered {
                status: answer.status(),
                retry_after: retry_after
                    .and_then(|value| value.to_str().ok())
                    .map(str::to_owned),
            }
        }
        Err(ureq::Error::Timeout(_)) => Outcome::TimedOut,
        Err(ureq::Error::HostNotFound) => Outcome::Failed("its host is not known".to_owned()),
        Err(ureq::Error::Other(denied)) => Outcome::Failed(denied.to_string()),
        Err(error) => Outcome::Failed(format!("cannot reach it: {error}")),
    }
}

impl Resolver for Checked {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.names.resolve(uri, config, timeout)?;
        let guard = self.guard.load();
        for address in found.iter() {
            guard
                .check_address(address.ip())
                .map_err(|why| ureq::Error::Other(why.into()))?;
        }
        Ok(found)
    }
}
