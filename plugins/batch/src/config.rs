//! What a person may type into the kind's block.

use crate::pointer::{Plain, Pointer};
use crate::short::{Short, Span};
use crate::template::Path;
use http::{HeaderName, Method};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use tabane_http::{Parts, Probe, Release, Size};

/// The kind's block in the YAML file. One of `sync`, `poll` and `callback` says how the end of the work is known.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How a node is asked whether it is well: a path, or more.
    #[serde(default)]
    pub probe: Probe,
    /// The least GPU memory of a node that can serve this, MiB.
    #[serde(default)]
    pub vram_mib: u64,
    /// Labels that a node must carry to serve this.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Which requests take alike long: those with the same values in these places, as in
    /// `class: [path: 1, json: /scene]`; unless said, those with the same method and first part of the path.
    #[serde(default)]
    pub class: Parts,
    /// Which model a request asks for: the first of these places that says one, as in `model: {json: /model}`. It goes to
    /// nodes that have it, and rather to those where it is loaded.
    #[serde(default)]
    pub model: Parts,
    /// How much work a request is, in whatever unit, as in `size: {multiply: [json: /frames, json: /samples]}`.
    #[serde(default)]
    pub size: Size,
    /// How a server is told to let go of the GPU, where it shares the card with another (`sharing` at its node): a path, or
    /// `{path, method, body, status}`. Without it the services take turns, and what this one has loaded stays.
    pub release: Option<Release>,
    /// Headers of every request that jobs and probes make, such as a key that the servers want.
    #[serde(default)]
    pub headers: Headers,
    /// The answer is the result. This is how it is unless the file says otherwise.
    pub sync: Option<Sync>,
    /// The server takes the work, says what it calls it, and is asked how far it is.
    pub poll: Option<Poll>,
    /// The server takes the work, and calls the gateway when it is done. Needs `nodes_reach_us_at`.
    pub callback: Option<Callback>,
}

/// The answer is the result.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sync {
    /// Words by which a failing answer tells that the card's memory was too small: the job then goes elsewhere.
    #[serde(default)]
    pub out_of_memory: Vec<String>,
}

/// Work that is asked for until it is done.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Poll {
    /// How the work is handed over; the client's own request unless said.
    #[serde(default)]
    pub submit: Submit,
    /// Where the answer to that says what the server calls the work: a JSON pointer, or `{header: Location}`.
    pub id: Short<IdAt>,
    /// What is asked for to see how far it is: a path, or more.
    pub status: Short<Ask>,
    /// Where the state stands in the answer to that.
    pub state: Pointer,
    /// The states of work that is done.
    pub done: Vec<Plain>,
    /// The states of work that came to nothing.
    #[serde(default)]
    pub failed: Vec<Plain>,
    /// The states of work that was stopped.
    #[serde(default)]
    pub canceled: Vec<Plain>,
    /// Where it says how far the work is: a pointer to a number from 0 to 1, `{at, max}`, or `{at, of}`.
    pub progress: Option<Short<ProgressAt>>,
    /// Where it says in words what it does.
    pub message: Option<Pointer>,
    /// Where the log stands: a text that grows, or a list of lines.
    pub log: Option<Pointer>,
    /// Where it says why work came to nothing.
    pub error: Option<Pointer>,
    /// Words by which an error or message tells that the card's memory was too small: the job then goes elsewhere.
    #[serde(default)]
    pub out_of_memory: Vec<String>,
    /// What is asked for to get the result: a path, or more. Without it, the last status answer is the result.
    pub result: Option<Short<Ask>>,
    /// In place of `result`: where in the status answer its address stands. Only its path is followed, on the same node.
    pub result_url: Option<Pointer>,
    /// What is asked for to stop the work, by POST unless said: a path, or more.
    pub cancel: Option<Short<Ask>>,
    /// How often it is asked at first; 2s. The pauses grow with the work, by a tenth each.
    pub every: Option<Span>,
    /// How long the pauses become at most; 15s.
    pub every_max: Option<Span>,
    /// When nothing good has been heard for so long, the work is taken for lost; 2m.
    pub lost_after: Option<Span>,
    /// How work is found of which nobody knows whether it was taken: by `{attempt}`, which `submit` sent along.
    pub find: Option<Find>,
}

/// Work whose server calls when it is done.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Callback {
    /// How the work is handed over. `{callback}` has to stand in it: the address that the server calls.
    pub submit: Submit,
    /// Where the answer to that says what the server calls the work; needed where another path names `{id}`.
    pub id: Option<Short<IdAt>>,
    /// Where the state stands in what the server sends. Without it, its first call says that the work is done.
    pub state: Option<Pointer>,
    /// The states of work that is done.
    #[serde(default)]
    pub done: Vec<Plain>,
    /// The states of work that came to nothing.
    #[serde(default)]
    pub failed: Vec<Plain>,
    /// The states of work that was stopped.
    #[serde(default)]
    pub canceled: Vec<Plain>,
    /// Where it says how far the work is: a pointer to a number from 0 to 1, `{at, max}`, or `{at, of}`.
    pub progress: Option<Short<ProgressAt>>,
    /// Where it says in words what it does.
    pub message: Option<Pointer>,
    /// Where the log stands: a text that grows, or a list of lines.
    pub log: Option<Pointer>,
    /// Where it says why work came to nothing.
    pub error: Option<Pointer>,
    /// Words by which an error or message tells that the card's memory was too small: the job then goes elsewhere.
    #[serde(default)]
    pub out_of_memory: Vec<String>,
    /// What is asked for to get the result: a path, or more. Without it, what the server sent is the result.
    pub result: Option<Short<Ask>>,
    /// In place of `result`: where in what it sent the address stands. Only its path is followed, on the same node.
    pub result_url: Option<Pointer>,
    /// What is asked for to stop the work, by POST unless said: a path, or more.
    pub cancel: Option<Short<Ask>>,
    /// What is asked for now and then, in case a call was lost: a path, or more. It is read as calls are.
    pub status: Option<Short<Ask>>,
    /// How often `status` is asked for at first; 30s. The pauses grow with the work, by a tenth each.
    pub every: Option<Span>,
    /// How long the pauses become at most; 2m.
    pub every_max: Option<Span>,
    /// When `status` has had no good answer for so long, the work is taken for lost; 2m.
    pub lost_after: Option<Span>,
    /// How work is found of which nobody knows whether it was taken: by `{attempt}`, which `submit` sent along.
    pub find: Option<Find>,
}

/// How work is handed over: the client's request, with what is said here in place of its own.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Submit {
    /// The client's unless said.
    pub method: Option<Verb>,
    /// The client's path and query unless said.
    pub path: Option<Path>,
    /// Headers to add, or to put in place of the client's; they may hold words, as `{attempt}`.
    #[serde(default)]
    pub headers: Headers,
    /// What is put into the client's JSON body: pointers, and texts that may hold words, as `/webhook: "{callback}"`.
    #[serde(default)]
    pub set: BTreeMap<Pointer, String>,
    /// How long the server may take to say that it took the work, the sending of it included; 10m.
    pub timeout: Option<Span>,
}

/// A request: in its short form a path, as `/jobs/{id}`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// GET unless said.
    pub method: Option<Verb>,
    /// What is asked for.
    pub path: Path,
    /// Headers of this request; they may hold words, as `{id}`.
    #[serde(default)]
    pub headers: Headers,
    /// Its body: any JSON, whose texts may hold words, as `{task_id: "{id}"}`.
    pub json: Option<serde_json::Value>,
}

/// Where an answer says what the work is called: in its short form a JSON pointer.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum IdAt {
    /// A header, such as `Location`; of an address, `{id}` is the last part and `{location}` is its path and query.
    Header(Name),
    /// A place in its JSON.
    Pointer(Pointer),
}

/// Where it stands how far work is: in its short form a pointer to a number from 0 to 1.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProgressAt {
    /// Where the number stands.
    pub at: Pointer,
    /// What the number is when all is done; 1.
    pub max: Option<f64>,
    /// In place of `max`: where that stands.
    pub of: Option<Pointer>,
}

/// How work is found by the attempt's own id.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Find {
    /// GET unless said.
    pub method: Option<Verb>,
    /// What is asked for; `{attempt}` has to stand in it.
    pub path: Path,
    /// Headers of this request; they may hold words.
    #[serde(default)]
    pub headers: Headers,
    /// Where the answer says what the server calls the work. Nothing there, or 404: it was not taken.
    pub id: Pointer,
}

/// A method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs)]
pub enum Verb {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

/// A header's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(pub(crate) HeaderName);

/// Headers by name. What they say may be a secret, and is not shown.
#[derive(Clone, Default, PartialEq)]
pub struct Headers(pub(crate) Vec<(HeaderName, String)>);

// === impl Verb ===

impl From<Verb> for Method {
    fn from(verb: Verb) -> Method {
        match verb {
            Verb::Get => Method::GET,
            Verb::Post => Method::POST,
            Verb::Put => Method::PUT,
            Verb::Patch => Method::PATCH,
            Verb::Delete => Method::DELETE,
        }
    }
}

// === impl Headers ===

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.iter().map(|(name, _)| name);
        f.debug_set().entries(names).finish()
    }
}
