//! How a server is told to let go of the GPU, and how it is seen that it did.

use crate::config::{Probe, Statuses};
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, header};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor, value::MapAccessDeserializer};
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;
use tabane_api::{NodeClient, NodeError, Released};
use tokio::time::{Instant, sleep};

/// Between two looks at the free memory.
const LOOK: Duration = Duration::from_millis(100);

/// Memory that does not rise for so long is not waited for here: most likely there was nothing to let go of. Whoever comes
/// next is let in only when enough of it is seen to be free.
const SETTLED: Duration = Duration::from_secs(1);

/// How long it is looked at. What is still not free then is seen by whoever comes next, which is proven again.
const LONGEST: Duration = Duration::from_secs(30);

/// Readings of the same memory differ by so much, MiB: other processes come and go.
const NOISE: u64 = 64;

/// How a server is told to let go of the GPU. In its short form a path: `release: /unload`.
#[derive(Clone, Debug, PartialEq)]
pub struct Release {
    /// What is asked for.
    pub path: String,
    /// How.
    pub method: Verb,
    /// JSON to send along.
    pub body: Option<serde_json::Value>,
    /// The statuses of a server that does so.
    pub status: Statuses,
}

/// The long form, as it is typed.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Long {
    /// What is asked for, such as `/unload`.
    path: String,
    /// POST unless said.
    #[serde(default)]
    method: Verb,
    /// JSON to send along, such as `{unload_models: true, free_memory: true}`.
    body: Option<serde_json::Value>,
    /// The statuses of a server that does so; 200-299 unless said.
    status: Option<Statuses>,
}

/// A method that changes something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(rename = "ReleaseMethod")]
#[expect(missing_docs)]
pub enum Verb {
    #[default]
    Post,
    Put,
    Patch,
    Delete,
    Get,
}

// === impl Release ===

impl Release {
    /// Says what makes no sense.
    pub(crate) fn check(&self) -> Result<(), String> {
        if !self.path.starts_with('/') {
            return Err(format!(
                "release.path: must begin with `/`, got `{}`",
                self.path
            ));
        }
        if let Err(error) = self.path.parse::<PathAndQuery>() {
            return Err(format!(
                "release.path: `{}` cannot be asked for: {error}; write odd characters as %20",
                self.path
            ));
        }
        self.status.check("release.status")
    }

    /// Tells the server, and waits until its own word on free memory, where the probe has one, shows it.
    pub(crate) async fn run(
        &self,
        probe: &Probe,
        node: &dyn NodeClient,
    ) -> Result<Released, NodeError> {
        let before = match probe.vram_free_mib {
            Some(_) => free(probe, node).await,
            None => None,
        };
        let answer = node.send(self.request()?).await?;
        if !self.status.contains(answer.status()) {
            return Err(NodeError::Broken(format!(
                "{} {}: expected status {}, got {}",
                Method::from(self.method),
                self.path,
                self.status,
                answer.status().as_u16()
            )));
        }
        if probe.vram_free_mib.is_some() {
            watch(before, probe, node).await?;
        }
        Ok(Released::Freed)
    }

    fn request(&self) -> Result<Request<Bytes>, NodeError> {
        let body = self.body.as_ref().map(ToString::to_string);
        let mut request = Request::builder()
            .method(Method::from(self.method))
            .uri(&self.path)
            .body(Bytes::from(body.clone().unwrap_or_default()))?;
        if body.is_some() {
            let json = HeaderValue::from_static("application/json");
            request.headers_mut().insert(header::CONTENT_TYPE, json);
        }
        Ok(request)
    }
}

/// Waits until free memory has risen and rises no more, or has not risen for a while.
///
/// Errors: nobody could say how much is free.
async fn watch(before: Option<u64>, probe: &Probe, node: &dyn NodeClient) -> Result<(), NodeError> {
    let began = Instant::now();
    let (mut last, mut since) = (None, began);
    while began.elapsed() < LONGEST {
        let now = free(probe, node).await;
        let rises = match (last, now) {
            (Some(last), Some(now)) => now > last + NOISE,
            (None, _) => true,
            // It does not answer while it is at it.
            (_, None) => true,
        };
        if rises {
            since = Instant::now();
        }
        let risen = matches!((before, now), (Some(before), Some(now)) if now > before + NOISE);
        if !rises && (risen || since.elapsed() >= SETTLED) {
            return Ok(());
        }
        last = now.or(last);
        sleep(LOOK).await;
    }
    last.map(|_| ()).ok_or(NodeError::Timeout)
}

/// How much memory is free; `None`: it does not say.
async fn free(probe: &Probe, node: &dyn NodeClient) -> Option<u64> {
    crate::ask(probe, node).await.ok()?.vram_free_mib
}

impl From<Verb> for Method {
    fn from(verb: Verb) -> Method {
        match verb {
            Verb::Post => Method::POST,
            Verb::Put => Method::PUT,
            Verb::Patch => Method::PATCH,
            Verb::Delete => Method::DELETE,
            Verb::Get => Method::GET,
        }
    }
}

impl<'de> Deserialize<'de> for Release {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // By hand and not `untagged`: an error inside keeps its own place.
        struct ReleaseVisitor;
        impl<'de> Visitor<'de> for ReleaseVisitor {
            type Value = Release;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path, as `/unload`, or a map with `path`")
            }

            fn visit_str<E: Error>(self, path: &str) -> Result<Release, E> {
                Ok(Release {
                    path: path.to_owned(),
                    method: Verb::default(),
                    body: None,
                    status: Statuses::good(),
                })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Release, A::Error> {
                let long = Long::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Release {
                    path: long.path,
                    method: long.method,
                    body: long.body,
                    status: long.status.unwrap_or_else(Statuses::good),
                })
            }
        }
        from.deserialize_any(ReleaseVisitor)
    }
}

impl JsonSchema for Release {
    fn schema_name() -> Cow<'static, str> {
        "Release".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let long = generator.subschema_for::<Long>();
        json_schema!({"anyOf": [{"type": "string", "pattern": "^/"}, long]})
    }
}

#[cfg(test)]
mod tests {
    use crate::Http;
    use async_trait::async_trait;
    use bytes::Bytes;
    use http::{Method, Request, Response, StatusCode};
    use parking_lot::Mutex;
    use std::time::Duration;
    use tabane_api::{Kind, NodeClient, NodeError, Released, Service};
    use tokio::time::Instant;

    /// A server that lets go so long after it was told, of so much.
    struct Node {
        status: u16,
        frees_after: Duration,
        frees: u64,
        told: Mutex<Vec<(Method, String, Bytes, Instant)>>,
    }

    impl Node {
        fn new(status: u16, frees_after: u64, frees: u64) -> Self {
            Node {
                status,
                frees_after: Duration::from_millis(frees_after),
                frees,
                told: Mutex::default(),
            }
        }
    }

    #[async_trait]
    impl NodeClient for Node {
        fn name(&self) -> &str {
            "node/http"
        }

        async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, NodeError> {
            let path = request.uri().to_string();
            let mut told = self.told.lock();
            if path == "/health" {
                let gone = told
                    .first()
                    .is_some_and(|(.., at)| at.elapsed() >= self.frees_after);
                let free = 2_000 + if gone { self.frees } else { 0 };
                return Ok(Response::new(format!("{{\"free\": {free}}}").into()));
            }
            let (head, body) = request.into_parts();
            told.push((head.method, path, body, Instant::now()));
            let mut answer = Response::new(Bytes::new());
            *answer.status_mut() = StatusCode::from_u16(self.status).unwrap();
            Ok(answer)
        }
    }

    const SEEN: &str = r#""probe": {"path": "/health", "vram_free_mib": "/free"}"#;

    async fn release(block: &str, node: &Node) -> (Result<Released, NodeError>, Duration) {
        let kind = Http::new(serde_json::from_str(block).unwrap(), None).unwrap();
        let began = Instant::now();
        let released = kind.release(node).await;
        (released, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn it_returns_when_the_memory_is_free_and_not_when_it_was_accepted() {
        let block = format!(r#"{{{SEEN}, "release": "/unload"}}"#);
        for (frees_after, frees, wants_ms) in [(0, 20_000, 100), (700, 20_000, 800), (0, 0, 1000)] {
            let (released, took) = release(&block, &Node::new(202, frees_after, frees)).await;
            assert_eq!(released, Ok(Released::Freed));
            // Up to a look more: nothing is slept for exactly.
            let wants = wants_ms..=wants_ms + 110;
            assert!(wants.contains(&took.as_millis()), "{took:?} {wants_ms}");
        }
        let node = Node::new(202, 0, 20_000);
        let (released, _) = release(&block, &node).await;
        assert_eq!(released, Ok(Released::Freed));
        let told = node.told.lock();
        assert_eq!((&told[0].0, &*told[0].1), (&Method::POST, "/unload"));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_word_on_memory_the_answer_is_taken_for_it() {
        let node = Node::new(200, 100, 1);
        let block = r#"{"release": {"path": "/free", "body": {"free_memory": true}}}"#;
        let (released, took) = release(block, &node).await;
        assert_eq!((released, took), (Ok(Released::Freed), Duration::ZERO));
        assert_eq!(node.told.lock()[0].2, r#"{"free_memory":true}"#);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_refuses_has_not_let_go() {
        let (released, _) = release(r#"{"release": "/free"}"#, &Node::new(404, 0, 1)).await;
        let why = "the exchange broke: POST /free: expected status 200-299, got 404";
        assert_eq!(released.unwrap_err().to_string(), why);
        let block = r#"{"release": {"path": "/free", "status": [200, 404]}}"#;
        let (released, _) = release(block, &Node::new(404, 0, 1)).await;
        assert_eq!(released, Ok(Released::Freed));
    }

    #[tokio::test(start_paused = true)]
    async fn whose_file_says_nothing_cannot_let_go() {
        let (released, _) = release("{}", &Node::new(200, 0, 1)).await;
        assert_eq!(released, Ok(Released::Unsupported));
    }
}
