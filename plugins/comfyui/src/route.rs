//! Which request asks for what. Everything is there twice, bare and under `/api`, but for what the real server has once.

use http::Method;
use percent_encoding::percent_decode_str;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `GET /prompt`: how many wait or run.
    Count,
    /// `POST /prompt`
    Submit,
    /// `GET /queue`
    Queue,
    /// `POST /queue`
    EditQueue,
    /// `POST /interrupt`
    Interrupt,
    /// `POST /free`
    Free,
    /// `GET /history`
    History,
    /// `GET /history/{id}`
    HistoryOf(String),
    /// `POST /history`
    EditHistory,
    /// `GET /api/jobs`
    Jobs,
    /// `GET /api/jobs/{id}`
    JobOf(String),
    /// `POST /api/jobs/{id}/cancel`
    CancelOne(String),
    /// `POST /api/jobs/cancel`
    CancelMany,
    /// `POST /upload/image`
    UploadImage,
    /// `POST /upload/mask`
    UploadMask,
    /// `GET /view`
    View,
    /// `GET /internal/files/{folder}`
    Files(String),
    /// `GET /object_info`
    ObjectInfo,
    /// `GET /object_info/{class}`
    ObjectInfoOf(String),
    /// `GET /models`
    Folders,
    /// `GET /models/{folder}`
    ModelsIn(String),
    /// `GET /experiment/models`, `GET /experiment/models/{folder}`: lists that are united.
    Experiment(Option<String>),
    /// `GET /embeddings`
    Embeddings,
    /// `GET /view_metadata/{folder}`, `GET /experiment/models/preview/..`: whichever node has it.
    Wherever,
    /// `GET /system_stats`
    SystemStats,
    /// `GET /features`
    Features,
    /// `/users`, `/settings`, `/userdata`, `/v2/userdata` and below: what is kept of users, its path as it came, without
    /// `/api`.
    Users,
    /// `GET /internal/logs`, `GET /internal/logs/raw`
    Logs {
        /// Whether as JSON.
        raw: bool,
    },
    /// `PATCH /internal/logs/subscribe`
    SubscribeLogs,
    /// `/api/assets`, `/api/tags`: not kept here.
    Assets,
    /// `GET /ws`
    Socket,
    /// Whatever else a server or its custom nodes have.
    Other,
}

/// What a request asks for. `path` is as it came: a part is cut out before its percent signs are read, so that `%2F` within a
/// name stays there.
pub fn operation(method: &Method, path: &str) -> Operation {
    use Operation::*;
    let bare = path
        .strip_prefix("/api")
        .filter(|bare| bare.starts_with('/'));
    let below_api = bare.is_some();
    let bare = bare.unwrap_or(path);
    let parts: Vec<&str> = bare.split('/').skip(1).collect();
    let (get, post) = (
        matches!(*method, Method::GET | Method::HEAD),
        *method == Method::POST,
    );
    match parts.as_slice() {
        ["ws"] if get => Socket,
        ["prompt"] if get => Count,
        ["prompt"] if post => Submit,
        ["queue"] if get => Queue,
        ["queue"] if post => EditQueue,
        ["interrupt"] if post => Interrupt,
        ["free"] if post => Free,
        ["history"] if get => History,
        ["history"] if post => EditHistory,
        ["history", id] if get => HistoryOf(decoded(id)),
        ["jobs"] if get && below_api => Jobs,
        ["jobs", "cancel"] if post && below_api => CancelMany,
        ["jobs", id] if get && below_api => JobOf(decoded(id)),
        ["jobs", id, "cancel"] if post && below_api => CancelOne(decoded(id)),
        ["upload", "image"] if post => UploadImage,
        ["upload", "mask"] if post => UploadMask,
        ["view"] if get => View,
        ["internal", "files", folder] if get && !below_api => Files(decoded(folder)),
        ["internal", "logs"] if get && !below_api => Logs { raw: false },
        ["internal", "logs", "raw"] if get && !below_api => Logs { raw: true },
        ["internal", "logs", "subscribe"] if *method == Method::PATCH && !below_api => {
            SubscribeLogs
        }
        ["object_info"] if get => ObjectInfo,
        ["object_info", class] if get => ObjectInfoOf(decoded(class)),
        ["models"] if get => Folders,
        ["models", folder] if get => ModelsIn(decoded(folder)),
        ["experiment", "models"] if get => Experiment(None),
        ["experiment", "models", folder] if get => Experiment(Some(decoded(folder))),
        ["experiment", "models", "preview", ..] | ["view_metadata", _] if get => Wherever,
        ["embeddings"] if get => Embeddings,
        ["system_stats"] if get => SystemStats,
        ["features"] if get => Features,
        ["users" | "settings" | "userdata", ..] | ["v2", "userdata", ..] => Users,
        ["assets" | "tags", ..] if below_api => Assets,
        _ => Other,
    }
}

/// A part of a path.
pub fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// The values of a query, percent signs and plus signs read.
pub fn query(query: Option<&str>) -> Vec<(String, String)> {
    let pairs = query.unwrap_or_default().split('&');
    let pairs = pairs.filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (
            decoded(&key.replace('+', " ")),
            decoded(&value.replace('+', " ")),
        )
    });
    pairs.collect()
}

/// The first value of this name.
pub fn value<'a>(query: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut pairs = query.iter();
    pairs.find_map(|(key, value)| (key == name).then_some(value.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_lead_to_the_same() {
        use Operation::*;
        for (method, path, wants) in [
            (Method::POST, "/prompt", Submit),
            (Method::POST, "/api/prompt", Submit),
            (Method::GET, "/api/history/a%2Fb", HistoryOf("a/b".into())),
            (Method::GET, "/api/jobs", Jobs),
            (Method::GET, "/jobs", Other),
            (Method::POST, "/api/jobs/x/cancel", CancelOne("x".into())),
            (Method::GET, "/internal/logs/raw", Logs { raw: true }),
            (Method::GET, "/api/internal/logs", Other),
            (Method::GET, "/apiary", Other),
            (Method::GET, "/", Other),
            (Method::POST, "/api/userdata/workflows%2Fa.json", Users),
            (Method::GET, "/v2/userdata", Users),
            (Method::GET, "/extensions/core/a.js", Other),
            (Method::HEAD, "/view", View),
            (Method::GET, "/api/ws", Socket),
        ] {
            assert_eq!(operation(&method, path), wants, "{method} {path}");
        }
    }
}
