//! The kind `http`: any GPU service that speaks HTTP. Copy this crate to write a kind of your own.

mod config;
mod extract;
mod memory;
mod release;

pub use config::{Config, Probe, Statuses};
pub use extract::{Extract, Extracted, Part, Parts, Size};
pub use release::{Release, Verb};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Extensions, Method, Request, Response};
use memory::{Beginning, Signs};
use serde_json::Value;
use std::sync::Arc;
use tabane_api::{
    Ask, Attempt, Done, Intent, Kind, Need, NodeClient, NodeError, OutOfMemory, ProbeError,
    Refusal, Released, Report, RunError, Seen, Service, Vitals,
};

/// Any service that speaks HTTP: each request is forwarded as it came, and takes one slot.
pub struct Http {
    config: Config,
    extract: Extract,
    signs: Signs,
}

impl Kind for Http {
    const NAME: &'static str = "http";
    type Config = Config;

    fn new(config: Config, _prior: Option<Arc<Self>>) -> Result<Self, String> {
        config.check()?;
        let Config {
            class, size, model, ..
        } = &config;
        let extract = Extract::new(class.clone(), size.clone(), model.clone())?;
        let signs = Signs::new(&config.out_of_memory)?;
        Ok(Http {
            config,
            extract,
            signs,
        })
    }
}

#[async_trait]
impl Service for Http {
    fn classify(&self, ask: &Ask<'_>, body: Option<&Bytes>) -> Result<Intent, Refusal> {
        let Some(Extracted { class, size, model }) = self.extract.read(ask, body) else {
            return Ok(Intent::WantBody);
        };
        let mut need = Need::of_class(&class);
        need.size = size;
        need.model = model.map(Arc::from);
        need.vram_mib = self.config.vram_mib;
        need.labels = self
            .config
            .labels
            .iter()
            .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
            .collect();
        // Looking whether the service is there, or what it allows, must not hold a GPU.
        let looks = *ask.method == Method::GET || *ask.method == Method::HEAD;
        if *ask.method == Method::OPTIONS || (looks && self.config.probe.is_page(ask.path)) {
            need = need.without_slot();
        }
        Ok(Intent::Forward(need))
    }

    async fn probe(&self, node: &dyn NodeClient) -> Result<Vitals, ProbeError> {
        ask(&self.config.probe, node).await
    }

    fn observe(&self, _need: &Need, seen: Seen<'_>, notes: &mut Extensions) {
        if self.signs.is_empty() {
            return;
        }
        match seen {
            Seen::Head(status, _) if status.as_u16() >= 400 => {
                notes.insert(Beginning::default());
            }
            Seen::Head(..) => {
                notes.remove::<Beginning>();
            }
            Seen::Bytes(bytes) => {
                if let Some(beginning) = notes.get_mut::<Beginning>() {
                    beginning.add(bytes);
                }
            }
            Seen::Broken => {}
            Seen::End => {
                let beginning = notes.remove::<Beginning>();
                if beginning.is_some_and(|b| self.signs.said(b.bytes()).is_some()) {
                    notes.insert(OutOfMemory);
                }
            }
        }
    }

    async fn run(
        &self,
        attempt: &Attempt,
        node: &dyn NodeClient,
        _report: &dyn Report,
    ) -> Result<Done, RunError> {
        let mut request = Request::new(attempt.body.clone());
        *request.method_mut() = attempt.method.clone();
        *request.uri_mut() = attempt.uri.clone();
        *request.headers_mut() = attempt.headers.clone();
        match self.signs.look(node.stream(request).await?).await? {
            Ok(said) => Err(RunError::OutOfMemory(said)),
            Err(answer) => Ok(Done::by_status(answer)),
        }
    }

    async fn release(&self, node: &dyn NodeClient) -> Result<Released, NodeError> {
        match &self.config.release {
            Some(release) => release.run(&self.config.probe, node).await,
            None => Ok(Released::Unsupported),
        }
    }
}

/// Asks a node whether it is well.
async fn ask(probe: &Probe, node: &dyn NodeClient) -> Result<Vitals, ProbeError> {
    let request = Request::builder()
        .method(probe.method())
        .uri(&probe.path)
        .body(Bytes::new())?;
    let answer = node
        .send(request)
        .await
        .map_err(|error| match error.into() {
            ProbeError::Unhealthy(why) => unhealthy(probe, &why),
            other => other,
        })?;
    judge(probe, &answer)
}

/// Whether the answer to a probe is that of a service that is well.
fn judge(probe: &Probe, answer: &Response<Bytes>) -> Result<Vitals, ProbeError> {
    let unhealthy = |why: String| Err(unhealthy(probe, &why));
    if !probe.status.contains(answer.status()) {
        return unhealthy(format!(
            "expected status {}, got {}",
            probe.status,
            answer.status().as_u16()
        ));
    }
    if let Some(wanted) = &probe.body
        && !contains(answer.body(), wanted.as_bytes())
    {
        return unhealthy(format!("the answer does not contain `{wanted}`"));
    }
    if !probe.is_read() {
        return Ok(Vitals::default());
    }
    let Ok(json) = serde_json::from_slice::<Value>(answer.body()) else {
        return unhealthy("the answer is not JSON, and the file points into it".into());
    };
    let number = |pointer: &Option<String>| {
        pointer
            .as_ref()
            .and_then(|at| json.pointer(at))
            .and_then(Value::as_u64)
    };
    Ok(Vitals {
        busy: number(&probe.busy).and_then(|busy| busy.try_into().ok()),
        vram_free_mib: number(&probe.vram_free_mib),
        models: names(&probe.models, &json).unwrap_or_default(),
        loaded: names(&probe.loaded, &json),
        slots: None,
    })
}

/// The names that stand in a document: a list of them or of maps that have one, a map by them, or a single one. `None`:
/// nothing of the kind is there.
fn names(pointer: &Option<String>, document: &Value) -> Option<Vec<String>> {
    let name = |value: &Value| {
        let within = ["name", "id", "model"].map(|key| value.get(key));
        let mut texts = [Some(value)].into_iter().chain(within).flatten();
        texts.find_map(Value::as_str).map(str::to_owned)
    };
    match document.pointer(pointer.as_ref()?)? {
        Value::Null => Some(Vec::new()),
        Value::Array(all) => Some(all.iter().filter_map(name).collect()),
        Value::String(name) => Some(vec![name.clone()]),
        Value::Object(all) => Some(all.keys().cloned().collect()),
        _ => None,
    }
}

fn unhealthy(probe: &Probe, why: &str) -> ProbeError {
    ProbeError::Unhealthy(format!("{} {}: {why}", probe.method(), probe.path))
}

fn contains(body: &[u8], wanted: &[u8]) -> bool {
    wanted.is_empty() || body.windows(wanted.len()).any(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, StatusCode};
    use tabane_api::{ANONYMOUS, Caller};

    /// A node that answers every probe the same.
    struct Node(Result<(u16, &'static str), NodeError>);

    #[async_trait]
    impl NodeClient for Node {
        fn name(&self) -> &str {
            "node/http"
        }

        async fn send(&self, _request: Request<Bytes>) -> Result<Response<Bytes>, NodeError> {
            let (status, body) = self.0.clone()?;
            let mut answer = Response::new(Bytes::from_static(body.as_bytes()));
            *answer.status_mut() = StatusCode::from_u16(status).unwrap();
            Ok(answer)
        }
    }

    fn kind(block: &str) -> Result<Http, String> {
        let config: Config = serde_json::from_str(block).map_err(|error| error.to_string())?;
        Http::new(config, None)
    }

    /// Probes are quick here, so that they can be run to their end without a runtime.
    fn probe(block: &str, node: Node) -> Result<Vitals, ProbeError> {
        let kind = kind(block).unwrap();
        let mut probe = kind.probe(&node);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match probe.as_mut().poll(&mut context) {
            std::task::Poll::Ready(outcome) => outcome,
            std::task::Poll::Pending => panic!("the node answers at once"),
        }
    }

    fn need(block: &str, method: Method, path: &str) -> Need {
        let headers = HeaderMap::new();
        let caller = Caller {
            tenant: ANONYMOUS.into(),
            address: [127, 0, 0, 1].into(),
        };
        let ask = Ask {
            method: &method,
            path,
            query: None,
            headers: &headers,
            caller: &caller,
        };
        match kind(block).unwrap().classify(&ask, None) {
            Ok(Intent::Forward(need)) => need,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn whoever_answers_is_at_home_unless_the_file_says_more() {
        for status in [200, 301, 401, 404, 405] {
            assert!(probe("{}", Node(Ok((status, "")))).is_ok(), "{status}");
        }
        for status in [500, 503] {
            assert!(
                matches!(
                    probe("{}", Node(Ok((status, "")))),
                    Err(ProbeError::Unhealthy(_))
                ),
                "{status}"
            );
        }
        assert_eq!(
            probe("{}", Node(Err(NodeError::Timeout))),
            Err(ProbeError::Timeout)
        );
        assert!(matches!(
            probe("{}", Node(Err(NodeError::Unreachable("refused".into())))),
            Err(ProbeError::Unreachable(_))
        ));
        let broken = Node(Err(NodeError::Broken("reset".into())));
        assert_eq!(
            probe(r#"{"probe": "/health"}"#, broken),
            Err(ProbeError::Unhealthy(
                "GET /health: the exchange broke: reset".into()
            ))
        );
    }

    #[test]
    fn status_and_body_are_as_expected_or_the_node_is_not_well() {
        let block =
            r#"{"probe": {"path": "/health", "status": [200, "204-206"], "body": "ready"}}"#;
        assert!(probe(block, Node(Ok((200, "I am ready.")))).is_ok());
        assert!(probe(block, Node(Ok((205, "ready")))).is_ok());
        let error = probe(block, Node(Ok((201, "ready"))))
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "unhealthy: GET /health: expected status 200, 204-206, got 201"
        );
        let error = probe(block, Node(Ok((200, "loading"))))
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "unhealthy: GET /health: the answer does not contain `ready`"
        );
    }

    #[test]
    fn a_node_that_says_how_busy_it_is_is_believed() {
        let block =
            r#"{"probe": {"path": "/health", "busy": "/queue/running", "vram_free_mib": "/vram"}}"#;
        let vitals = probe(
            block,
            Node(Ok((200, r#"{"queue": {"running": 3}, "vram": 2048}"#))),
        )
        .unwrap();
        assert_eq!((vitals.busy, vitals.vram_free_mib), (Some(3), Some(2048)));
        assert_eq!(
            probe(block, Node(Ok((200, "{}")))).unwrap(),
            Vitals::default()
        );
        assert!(probe(block, Node(Ok((200, "not json")))).is_err());
    }

    #[test]
    fn the_models_of_a_node_are_read_in_the_forms_that_servers_give_them() {
        let block = r#"{"probe": {"path": "/", "models": "/data", "loaded": "/loaded"}}"#;
        for (answer, models, loaded) in [
            (r#"{"data": ["a", "b"]}"#, &["a", "b"][..], None),
            (
                r#"{"data": [{"id": "a"}, {"name": "b", "id": "c"}, {"model": "d"}, 7, {}], "loaded": ["a"]}"#,
                &["a", "b", "d"],
                Some(&["a"][..]),
            ),
            (
                r#"{"data": {"a": {}, "b": 1}, "loaded": null}"#,
                &["a", "b"],
                Some(&[]),
            ),
            (r#"{"data": 7, "loaded": "a"}"#, &[], Some(&["a"])),
            ("{}", &[], None),
        ] {
            let vitals = probe(block, Node(Ok((200, answer)))).unwrap();
            assert_eq!(vitals.models, models, "{answer}");
            assert_eq!(
                vitals.loaded.as_deref(),
                loaded
                    .map(|l| l.iter().map(|m| m.to_string()).collect::<Vec<_>>())
                    .as_deref(),
                "{answer}"
            );
        }
    }

    #[test]
    fn a_forwarded_answer_that_says_memory_was_too_small_leaves_a_note_of_it() {
        let kind = kind(r#"{"out_of_memory": ["out of memory"]}"#).unwrap();
        let need = Need::of_class("x");
        let noted = |all: &[(u16, &[&[u8]])]| {
            let mut notes = Extensions::new();
            for (status, pieces) in all {
                let status = StatusCode::from_u16(*status).unwrap();
                kind.observe(&need, Seen::Head(status, &HeaderMap::new()), &mut notes);
                for piece in *pieces {
                    kind.observe(&need, Seen::Bytes(piece), &mut notes);
                }
                kind.observe(&need, Seen::End, &mut notes);
            }
            notes.get::<OutOfMemory>().is_some()
        };
        assert!(noted(&[(500, &[b"CUDA Out of mem", b"ory"])]));
        assert!(!noted(&[(200, &[b"out of memory"])]));
        assert!(!noted(&[(500, &[b"out of patience"])]));
        assert!(!noted(&[(500, &[]), (200, &[b"out of memory"])]));
    }

    #[test]
    fn looking_takes_no_slot_and_working_takes_one() {
        let block = r#"{"probe": "/health", "vram_mib": 20000, "labels": {"os": "linux"}}"#;
        assert_eq!(need(block, Method::GET, "/health").slots, 0);
        assert_eq!(need(block, Method::OPTIONS, "/render").slots, 0);
        assert_eq!(need(block, Method::POST, "/health").slots, 1);
        let render = need(block, Method::POST, "/render/7/frame");
        assert_eq!(
            (
                &*render.class,
                render.slots,
                render.vram_mib,
                render.labels.len()
            ),
            ("POST /render", 1, 20000, 1)
        );
        assert_eq!(
            need("{}", Method::GET, "/").slots,
            1,
            "the default probe's page is the service itself"
        );
        assert_eq!(&*need("{}", Method::GET, "/%00%ff/x").class, "GET /other");
    }

    #[test]
    fn the_body_is_wanted_where_class_or_size_stand_in_it() {
        let block = r#"{"class": [{"path": 1}, {"json": "/model"}], "size": {"multiply": {"json": "/frames"}, "per": 10}}"#;
        let headers = HeaderMap::new();
        let caller = Caller {
            tenant: ANONYMOUS.into(),
            address: [127, 0, 0, 1].into(),
        };
        let ask = Ask {
            method: &Method::POST,
            path: "/render",
            query: None,
            headers: &headers,
            caller: &caller,
        };
        let kind = kind(block).unwrap();
        let wanted = kind.classify(&ask, None);
        assert!(matches!(wanted, Ok(Intent::WantBody)), "{wanted:?}");
        let body = Bytes::from_static(br#"{"model": "xl", "frames": 240}"#);
        match kind.classify(&ask, Some(&body)) {
            Ok(Intent::Forward(need)) => {
                assert_eq!((&*need.class, need.size), ("render/xl", 24.0));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(
            &*need(block, Method::OPTIONS, "/render").class,
            "render/-",
            "nobody waits for a body that cannot come"
        );
    }

    #[test]
    fn a_block_that_makes_no_sense_says_why() {
        for (block, wants) in [
            (
                r#"{"probe": "health"}"#,
                "probe.path: must begin with `/`, got `health`",
            ),
            (
                r#"{"probe": {"path": "/", "status": 99}}"#,
                "probe.status: 99 is no status",
            ),
            (
                r#"{"probe": {"path": "/", "status": "300-200"}}"#,
                "probe.status: `300-200` ends before it begins",
            ),
            (
                r#"{"probe": {"path": "/", "status": "fine"}}"#,
                "a status, as 200, or a range, as 200-299",
            ),
            (
                r#"{"probe": {"path": "/", "busy": "running"}}"#,
                "probe.busy: a JSON pointer begins with `/`, got `running`",
            ),
            (
                r#"{"probe": "/is it well"}"#,
                "probe.path: `/is it well` cannot be asked for",
            ),
            (
                r#"{"probe": {"path": "/", "method": "HEAD", "busy": "/running"}}"#,
                "probe.method: HEAD has no answer to read",
            ),
            (
                r#"{"probe": {"path": "/", "method": "HEAD", "body": "ok"}}"#,
                "probe.method: HEAD has no answer to read",
            ),
            (
                r#"{"probe": {"path": "/", "method": "POST"}}"#,
                "unknown variant `POST`",
            ),
            (r#"{"probe": {"pth": "/"}}"#, "unknown field `pth`"),
            (
                r#"{"release": "unload"}"#,
                "release.path: must begin with `/`, got `unload`",
            ),
            (r#"{"release": {"method": "POST"}}"#, "missing field `path`"),
            (
                r#"{"release": {"path": "/", "status": 600}}"#,
                "release.status: 600 is no status",
            ),
            (
                r#"{"probe": {"path": "/", "models": "data"}}"#,
                "probe.models: a JSON pointer begins with `/`, got `data`",
            ),
            (
                r#"{"out_of_memory": [" "]}"#,
                "out_of_memory: an empty text stands in every answer",
            ),
            (r#"{"model": {"query": ""}}"#, "model: must name something"),
            (
                r#"{"class": {"path": 0}}"#,
                "class.path: parts of a path are counted from 1, got 0",
            ),
        ] {
            let error = kind(block).err().unwrap_or_default();
            assert!(error.contains(wants), "{block}: {error}");
        }
    }
}
