//! A kind and a policy of one's own, in a crate of one's own: what a user writes.

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use std::sync::Arc;
use tabane_api::{
    Ask, Body, Caller, Candidate, Content, Draw, Host, Intent, Kind, Need, NoConfig, NodeClient,
    Policy, PolicyKind, ProbeError, Refusal, Service, Shape, Vitals,
};

/// A renderer: frames are forwarded, `/farm` is answered by the gateway, `/panic` and `/hang` show what faults do.
pub struct Renderer {
    settings: Settings,
}

/// Its own block: `kind: {renderer: {licence: studio}}`.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// What a node's health page must mention.
    licence: String,
}

impl Kind for Renderer {
    const NAME: &'static str = "renderer";
    type Config = Settings;

    fn new(settings: Settings, _prior: Option<Arc<Self>>) -> Result<Self, String> {
        if settings.licence.is_empty() {
            return Err("licence: must not be empty".into());
        }
        Ok(Renderer { settings })
    }
}

#[async_trait]
impl Service for Renderer {
    fn classify(&self, ask: &Ask<'_>, body: Option<&Bytes>) -> Result<Intent, Refusal> {
        match (ask.path, body) {
            ("/farm", _) => Ok(Intent::Own { max: 1024 }),
            ("/panic", _) => panic!("as the test wants it"),
            ("/hang", _) => loop {
                std::thread::park();
            },
            // The memory that a scene needs stands in its body.
            ("/frame", None) => Ok(Intent::NeedBody { max: 1 << 20 }),
            ("/frame", Some(body)) => {
                let text = std::str::from_utf8(body).unwrap_or_default();
                let vram_mib = text.parse().map_err(|_| {
                    Refusal::BadRequest("the body is the scene's memory in MiB".into())
                })?;
                Ok(Intent::Forward(Need {
                    vram_mib,
                    ..Need::of_class("frame")
                }))
            }
            (path, _) => Ok(Intent::Forward(Need::of_class(path))),
        }
    }

    async fn probe(&self, node: &dyn NodeClient) -> Result<Vitals, ProbeError> {
        let page = node
            .send(Request::get("/health").body(Bytes::new())?)
            .await?;
        let text = String::from_utf8_lossy(page.body());
        if text.contains(&self.settings.licence) {
            Ok(Vitals::default())
        } else {
            Err(ProbeError::Unhealthy(format!(
                "its licence is not `{}`",
                self.settings.licence
            )))
        }
    }

    fn refuse(&self, _ask: &Ask<'_>, why: &Refusal) -> Shape {
        Shape {
            content_type: "text/plain",
            body: format!("renderer: {why}").into(),
            headers: http::HeaderMap::new(),
        }
    }

    async fn answer(
        &self,
        _request: Request<Content>,
        caller: &Caller,
        host: &Arc<dyn Host>,
    ) -> Result<Response<Body>, Refusal> {
        let names: Vec<String> = host
            .endpoints()
            .iter()
            .map(|endpoint| endpoint.name.to_string())
            .collect();
        Ok(Response::new(
            format!("{} sees {}", caller.tenant, names.join(", ")).into(),
        ))
    }
}

/// Takes the cheapest card that has room.
pub struct Cheapest;

impl PolicyKind for Cheapest {
    const NAME: &'static str = "cheapest";
    type Config = NoConfig;

    fn new(_config: NoConfig) -> Result<Self, String> {
        Ok(Cheapest)
    }
}

impl Policy for Cheapest {
    fn pick(&self, need: &Need, among: &[Candidate<'_>], _draw: &mut dyn Draw) -> Option<usize> {
        let has_room = |i: &usize| among[*i].has_room(need);
        let price = |i: usize| among[i].node.usd_per_hour;
        (0..among.len())
            .filter(has_room)
            .min_by(|a, b| price(*a).total_cmp(&price(*b)))
    }
}
