//! What the gateway answers itself, operation by operation.

mod cancel;
mod describe;
mod history;
mod jobs;
mod queue;
mod spread;
mod submit;
mod users;

pub use describe::features;

use crate::config::Route;
use crate::files::{Upload, cached};
use crate::json::{Json, object};
use crate::kind::Comfyui;
use crate::logs;
use crate::origin;
use crate::reply::{Reply, empty, json, ok};
use crate::route::{Operation, operation, query};
use http::{HeaderMap, Method, Request, StatusCode};
use std::sync::Arc;
use tabane_api::{ANONYMOUS, Caller, Content, Host};

/// The largest document that is read whole, bytes; files are not.
const MOST: usize = 100 << 20;

/// A request that is answered here.
pub(crate) struct Call<'a> {
    pub(crate) kind: &'a Comfyui,
    pub(crate) host: &'a Arc<dyn Host>,
    /// Who asks.
    pub(crate) caller: &'a Caller,
    pub(crate) request: Request<Content>,
    pub(crate) query: Vec<(String, String)>,
}

/// Answers a request.
pub async fn answer(
    kind: &Comfyui,
    request: Request<Content>,
    caller: &Caller,
    host: &Arc<dyn Host>,
    route: Route,
) -> Reply {
    if origin::is_foreign(request.headers()) {
        return Ok(empty(StatusCode::FORBIDDEN));
    }
    let asked = operation(request.method(), request.uri().path());
    kind.ready().await?;
    let path = request.uri().path().to_owned();
    let call = Call {
        kind,
        host,
        caller,
        query: query(request.uri().query()),
        request,
    };
    let reply = call.answer(asked, route).await?;
    Ok(cached(&path, reply))
}

/// What the gateway calls whoever asks: the tenant of a key; else a `comfy-user`; else where the request comes from.
pub fn owner(caller: &Caller, headers: &HeaderMap) -> Arc<str> {
    if &*caller.tenant != ANONYMOUS {
        return caller.tenant.clone();
    }
    let user = headers
        .get("comfy-user")
        .and_then(|user| user.to_str().ok())
        .filter(|user| !user.is_empty() && user.len() <= 128);
    match user {
        Some(user) => format!("user {user}").into(),
        None => caller.address.to_canonical().to_string().into(),
    }
}

// === impl Call ===

impl Call<'_> {
    async fn answer(&self, asked: Operation, route: Route) -> Reply {
        use Operation::*;
        let headers = self.request.headers();
        Ok(match asked {
            Submit => return self.submit().await,
            Count => ok(&self.exec_info()),
            Queue => ok(&self.queue().await?),
            EditQueue => return self.edit_queue().await,
            Interrupt => return self.interrupt().await,
            Operation::History => return self.history().await,
            HistoryOf(id) => return self.history_of(&id).await,
            EditHistory => return self.edit_history().await,
            Jobs => return self.jobs(),
            JobOf(id) => return self.job(&id).await,
            CancelOne(id) => return self.cancel_one(&id).await,
            CancelMany => return self.cancel_many().await,
            Free => return self.free().await,
            UploadImage => return self.upload(Upload::File).await,
            UploadMask => return self.upload(Upload::Mask).await,
            View => return self.view().await,
            Files(folder) => {
                let merged = self.kind.merged();
                let dialect = merged.map_or(crate::validate::Dialect::Late, |m| m.dialect);
                return self.kind.files()?.list(&folder, dialect).await;
            }
            ObjectInfo => return self.object_info(None).await,
            ObjectInfoOf(class) => return self.object_info(Some(&class)).await,
            Folders => return self.lists("/models").await,
            ModelsIn(folder) => return self.lists(&below("/models", &folder)).await,
            Embeddings => return self.lists("/embeddings").await,
            Experiment(None) => return self.lists("/experiment/models").await,
            Experiment(Some(folder)) => {
                return self.lists(&below("/experiment/models", &folder)).await;
            }
            Wherever => return self.first().await,
            SystemStats => ok(&self.system_stats()),
            Features => ok(&features(self.kind)),
            Users => return self.users().await,
            Logs { raw: true } => ok(&logs::raw(self.kind).await),
            Logs { raw: false } => ok(&text_of(&logs::raw(self.kind).await)),
            SubscribeLogs => return self.subscribe_logs().await,
            Assets => {
                let told = object! {
                    "error": object! {
                        "code": "SERVICE_DISABLED",
                        "message": "Assets are not kept by this gateway. Use /upload/image and /view.",
                        "details": object! {},
                    },
                };
                json(StatusCode::SERVICE_UNAVAILABLE, &told)
            }
            Socket | Other => {
                let asks = matches!(*self.request.method(), Method::GET | Method::HEAD);
                match route {
                    Route::View if asks => {
                        let query = self.request.uri().query();
                        let reply = self.kind.files()?.view(query, headers).await?;
                        match reply.status() {
                            StatusCode::NOT_FOUND => return self.first().await,
                            _ => reply,
                        }
                    }
                    Route::First if asks => return self.first().await,
                    _ => return self.all().await,
                }
            }
        })
    }

    /// Its body, as a document. `None`: it is none; a server stumbles over it.
    pub(crate) async fn document(&self) -> Option<Json> {
        let body = self.request.body().to_bytes(MOST).await.ok()?;
        Json::read(&body).ok()
    }

    /// What the gateway calls whoever asks.
    pub(crate) fn owner(&self) -> Arc<str> {
        owner(self.caller, self.request.headers())
    }

    /// A value of the query.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        crate::route::value(&self.query, name)
    }

    async fn upload(&self, what: Upload) -> Reply {
        let (headers, body) = (self.request.headers(), self.request.body().clone());
        self.kind.files()?.upload(what, headers, body).await
    }

    /// A file that is kept here; one that only lies on a node since before is asked of the home node.
    async fn view(&self) -> Reply {
        let (query, headers) = (self.request.uri().query(), self.request.headers());
        let reply = self.kind.files()?.view(query, headers).await?;
        let is_input = self.value("type") == Some("input")
            || self
                .value("filename")
                .is_some_and(|name| name.ends_with("[input]"));
        match reply.status() == StatusCode::NOT_FOUND && is_input {
            true => self.first().await,
            false => Ok(reply),
        }
    }

    async fn subscribe_logs(&self) -> Reply {
        let Some(asked) = self.document().await else {
            return Ok(crate::reply::broken());
        };
        let client = asked.get("clientId").and_then(Json::text);
        let listens = asked.get("enabled").is_some_and(crate::python::is_true);
        if let Some(client) = client
            && self.kind.desk.logs.subscribe(client, listens)
        {
            for node in self.kind.nodes() {
                if let Some(client) = self.kind.client(node.id) {
                    logs::subscribe(&node, &*client, listens).await;
                }
            }
        }
        Ok(empty(StatusCode::OK))
    }
}

fn below(path: &str, name: &str) -> String {
    let name = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
    format!("{path}/{name}")
}

/// All lines of a log as one text.
fn text_of(log: &Json) -> Json {
    let entries = log.get("entries").and_then(Json::list).unwrap_or(&[]);
    let lines = entries.iter().map(|entry| {
        let text = |key| entry.get(key).and_then(Json::text).unwrap_or_default();
        format!("{} - {}", text("t"), text("m"))
    });
    Json::Text(lines.collect())
}
