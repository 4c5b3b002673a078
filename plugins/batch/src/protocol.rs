//! What a block means: one way to hand work over and follow it, whichever of the shapes it was typed in.

use crate::config::{Ask, Callback, Config, Find, Headers, IdAt, Poll, ProgressAt, Submit, Verb};
use crate::pointer::{Plain, Pointer};
use crate::short::{Short, Span};
use crate::template::{Path, Template, Word, Words};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use serde_json::Value;
use std::time::Duration;

/// How work is handed over, followed and stopped.
#[derive(Debug)]
pub(crate) struct Protocol {
    /// `poll` or `callback`: the key that errors name.
    pub(crate) key: &'static str,
    pub(crate) submit: Handing,
    /// Where the answer to `submit` says what the work is called; without it, it goes by the attempt's own id.
    pub(crate) id: Option<IdAt>,
    /// What is asked while the work goes on.
    pub(crate) status: Option<Question>,
    /// Whether the server calls.
    pub(crate) calls: bool,
    pub(crate) signs: Signs,
    pub(crate) result: ResultAt,
    pub(crate) cancel: Option<Question>,
    pub(crate) find: Option<(Question, Pointer)>,
    /// The first pause between two questions, and the longest.
    pub(crate) every: (Duration, Duration),
    pub(crate) lost_after: Duration,
}

/// How work is handed over.
#[derive(Debug)]
pub(crate) struct Handing {
    pub(crate) method: Option<Method>,
    pub(crate) path: Option<Path>,
    pub(crate) headers: Vec<(HeaderName, Template)>,
    pub(crate) set: Vec<(Pointer, Template)>,
    pub(crate) timeout: Duration,
}

/// A request to be made.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) method: Method,
    path: Path,
    headers: Vec<(HeaderName, Template)>,
    json: Option<Value>,
}

/// How a document about the work is read.
#[derive(Debug)]
pub(crate) struct Signs {
    /// Without it, any document says that the work is done.
    pub(crate) state: Option<Pointer>,
    pub(crate) done: Vec<Plain>,
    pub(crate) failed: Vec<Plain>,
    pub(crate) canceled: Vec<Plain>,
    pub(crate) progress: Option<ProgressAt>,
    pub(crate) message: Option<Pointer>,
    pub(crate) log: Option<Pointer>,
    pub(crate) error: Option<Pointer>,
    /// In lower case.
    pub(crate) out_of_memory: Vec<String>,
}

/// Where the result is.
#[derive(Debug)]
pub(crate) enum ResultAt {
    /// In the last document.
    Document,
    /// Behind a request.
    Asked(Question),
    /// At an address in the last document.
    Address(Pointer),
}

// === impl Protocol ===

impl Protocol {
    /// What the block means; `None`: the answer is the result.
    ///
    /// Errors: a sentence that names the key.
    pub(crate) fn of(config: Config) -> Result<Option<Self>, String> {
        if let Some((name, _)) = config.headers.0.iter().find(|(name, _)| is_framing(name)) {
            return Err(format!("headers.{name}: this header is the gateway's own"));
        }
        match (config.sync, config.poll, config.callback) {
            (None, Some(poll), None) => Protocol::of_poll(poll).map(Some),
            (None, None, Some(callback)) => Protocol::of_callback(callback).map(Some),
            (_, None, None) => Ok(None),
            _ => Err("one of `sync`, `poll` and `callback` says how the end of the work is known; take out the others".into()),
        }
    }

    fn of_poll(poll: Poll) -> Result<Self, String> {
        let protocol = Protocol {
            key: "poll",
            submit: Handing::of(poll.submit, "poll")?,
            id: Some(poll.id.0),
            status: Some(Question::of(poll.status, Method::GET, "poll.status")?),
            calls: false,
            signs: Signs {
                state: Some(poll.state),
                done: poll.done,
                failed: poll.failed,
                canceled: poll.canceled,
                progress: poll.progress.map(|Short(at)| at),
                message: poll.message,
                log: poll.log,
                error: poll.error,
                out_of_memory: poll.out_of_memory,
            },
            result: ResultAt::of(poll.result, poll.result_url, "poll")?,
            cancel: optional(poll.cancel, Method::POST, "poll.cancel")?,
            find: find(poll.find, "poll")?,
            every: pace(poll.every, poll.every_max, [2, 15], "poll")?,
            lost_after: positive(poll.lost_after, 120, "poll.lost_after")?,
        };
        protocol.check()
    }

    fn of_callback(callback: Callback) -> Result<Self, String> {
        let protocol = Protocol {
            key: "callback",
            submit: Handing::of(callback.submit, "callback")?,
            id: callback.id.map(|Short(id)| id),
            status: optional(callback.status, Method::GET, "callback.status")?,
            calls: true,
            signs: Signs {
                state: callback.state,
                done: callback.done,
                failed: callback.failed,
                canceled: callback.canceled,
                progress: callback.progress.map(|Short(at)| at),
                message: callback.message,
                log: callback.log,
                error: callback.error,
                out_of_memory: callback.out_of_memory,
            },
            result: ResultAt::of(callback.result, callback.result_url, "callback")?,
            cancel: optional(callback.cancel, Method::POST, "callback.cancel")?,
            find: find(callback.find, "callback")?,
            every: pace(callback.every, callback.every_max, [30, 120], "callback")?,
            lost_after: positive(callback.lost_after, 120, "callback.lost_after")?,
        };
        protocol.check()
    }

    /// Says what makes no sense.
    fn check(mut self) -> Result<Self, String> {
        let key = self.key;
        self.signs.check(key)?;
        for word in [Word::Id, Word::Location] {
            if self.submit.names(word) {
                return Err(format!(
                    "{key}.submit: what the work is called is not known before it was handed over; take `{{id}}` and `{{location}}` out"
                ));
            }
        }
        if self.calls && !self.submit.names(Word::Callback) {
            return Err(format!(
                "{key}.submit: nothing tells the server whom to call; put `{{callback}}` into `headers`, `set` or `path`"
            ));
        }
        if !self.calls && self.submit.names(Word::Callback) {
            return Err(format!(
                "{key}.submit: nobody waits to be called; take `{{callback}}` out, or write `callback:` in place of `{key}:`"
            ));
        }
        if self.calls && self.status.is_some() && self.signs.state.is_none() {
            return Err(format!(
                "{key}.status: its answer says nothing without `state`; add it, or leave `status` out"
            ));
        }
        let result = match &self.result {
            ResultAt::Asked(question) => Some(question),
            _ => None,
        };
        for (name, question) in [
            ("status", self.status.as_ref()),
            ("result", result),
            ("cancel", self.cancel.as_ref()),
        ] {
            let Some(question) = question else { continue };
            if question.names(Word::Callback) {
                return Err(format!(
                    "{key}.{name}: only `submit` tells whom to call; take `{{callback}}` out"
                ));
            }
            if self.id.is_none() && (question.names(Word::Id) || question.names(Word::Location)) {
                return Err(format!(
                    "{key}.{name}: nobody knows what the work is called; say in `id` where the answer to `submit` says it"
                ));
            }
        }
        if let Some((question, _)) = &self.find {
            if !question.names(Word::Attempt) {
                return Err(format!(
                    "{key}.find.path: work is found by the attempt's own id; put `{{attempt}}` into it"
                ));
            }
            if !self.submit.names(Word::Attempt) {
                return Err(format!(
                    "{key}.find: nothing can be found by an id that was never sent; put `{{attempt}}` into `submit`"
                ));
            }
        }
        for text in &mut self.signs.out_of_memory {
            *text = text.to_lowercase();
        }
        Ok(self)
    }
}

// === impl Handing ===

impl Handing {
    fn of(submit: Submit, key: &str) -> Result<Self, String> {
        let set = submit.set.into_iter();
        let method: Option<Method> = submit.method.map(Verb::into);
        if method == Some(Method::GET) {
            return Err(format!(
                "{key}.submit.method: GET hands nothing over; take POST or PUT"
            ));
        }
        Ok(Handing {
            method,
            path: submit.path,
            headers: templates(submit.headers, &format!("{key}.submit"))?,
            set: set.map(|(at, text)| (at, Template::parse(&text))).collect(),
            timeout: positive(submit.timeout, 600, &format!("{key}.submit.timeout"))?,
        })
    }

    fn names(&self, word: Word) -> bool {
        let texts = self.headers.iter().map(|(_, text)| text);
        self.path.as_ref().is_some_and(|path| path.names(word))
            || texts
                .chain(self.set.iter().map(|(_, text)| text))
                .any(|text| text.names(word))
    }
}

// === impl Question ===

impl Question {
    fn of(Short(ask): Short<Ask>, method: Method, key: &str) -> Result<Self, String> {
        Ok(Question {
            method: ask.method.map_or(method, Verb::into),
            path: ask.path,
            headers: templates(ask.headers, key)?,
            json: ask.json,
        })
    }

    /// The request, with every word in its place.
    ///
    /// Errors: a sentence; a word makes it no request.
    pub(crate) fn request(&self, words: &Words) -> Result<Request<Bytes>, String> {
        let body = match &self.json {
            Some(json) => filled(json, words).to_string().into(),
            None => Bytes::new(),
        };
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        let path = self.path.fill(words);
        *request.uri_mut() = path
            .parse()
            .map_err(|error| format!("`{path}` cannot be asked for: {error}"))?;
        if self.json.is_some() {
            let json = HeaderValue::from_static("application/json");
            request.headers_mut().insert(header::CONTENT_TYPE, json);
        }
        fill_headers(&self.headers, words, request.headers_mut())?;
        Ok(request)
    }

    fn names(&self, word: Word) -> bool {
        fn json_names(json: &Value, word: Word) -> bool {
            match json {
                Value::String(text) => Template::parse(text).names(word),
                Value::Array(items) => items.iter().any(|item| json_names(item, word)),
                Value::Object(members) => members.values().any(|value| json_names(value, word)),
                _ => false,
            }
        }
        self.path.names(word)
            || self.headers.iter().any(|(_, text)| text.names(word))
            || self
                .json
                .as_ref()
                .is_some_and(|json| json_names(json, word))
    }
}

// === impl Signs ===

impl Signs {
    fn check(&self, key: &str) -> Result<(), String> {
        if self.state.is_none() {
            for (name, values) in [
                ("done", &self.done),
                ("failed", &self.failed),
                ("canceled", &self.canceled),
            ] {
                if !values.is_empty() {
                    return Err(format!(
                        "{key}.{name}: say in `state` where the state stands"
                    ));
                }
            }
        } else if self.done.is_empty() {
            return Err(format!(
                "{key}.done: without a state that says so, no work is ever done"
            ));
        }
        let lists = [&self.done, &self.failed, &self.canceled];
        let all: Vec<&Plain> = lists.into_iter().flatten().collect();
        for (i, value) in all.iter().enumerate() {
            if all[..i].contains(value) {
                return Err(format!(
                    "{key}.state: `{value}` is listed twice; a state means one thing"
                ));
            }
        }
        if let Some(progress) = &self.progress {
            if progress.max.is_some() && progress.of.is_some() {
                return Err(format!("{key}.progress: give `max` or `of`, not both"));
            }
            if progress
                .max
                .is_some_and(|max| !max.is_finite() || max <= 0.0)
            {
                return Err(format!("{key}.progress.max: must be more than 0"));
            }
        }
        if self.out_of_memory.iter().any(|text| text.trim().is_empty()) {
            return Err(format!(
                "{key}.out_of_memory: an empty text stands in every message"
            ));
        }
        if !self.out_of_memory.is_empty() && self.error.is_none() && self.message.is_none() {
            return Err(format!(
                "{key}.out_of_memory: say in `error` or `message` where the server says why work came to nothing"
            ));
        }
        Ok(())
    }
}

// === impl ResultAt ===

impl ResultAt {
    fn of(result: Option<Short<Ask>>, url: Option<Pointer>, key: &str) -> Result<Self, String> {
        match (result, url) {
            (None, None) => Ok(ResultAt::Document),
            (Some(ask), None) => {
                Question::of(ask, Method::GET, &format!("{key}.result")).map(ResultAt::Asked)
            }
            (None, Some(at)) => Ok(ResultAt::Address(at)),
            (Some(_), Some(_)) => Err(format!(
                "{key}.result_url: the result is at one place; give this or `result`"
            )),
        }
    }
}

fn optional(
    ask: Option<Short<Ask>>,
    method: Method,
    key: &str,
) -> Result<Option<Question>, String> {
    ask.map(|ask| Question::of(ask, method, key)).transpose()
}

fn find(find: Option<Find>, key: &str) -> Result<Option<(Question, Pointer)>, String> {
    let Some(find) = find else { return Ok(None) };
    let ask = Ask {
        method: find.method,
        path: find.path,
        headers: find.headers,
        json: None,
    };
    let question = Question::of(Short(ask), Method::GET, &format!("{key}.find"))?;
    Ok(Some((question, find.id)))
}

/// The first pause and the longest; `preset` in seconds. One that is longer than the preset bound raises it.
fn pace(
    every: Option<Span>,
    most: Option<Span>,
    preset: [u64; 2],
    key: &str,
) -> Result<(Duration, Duration), String> {
    let first = positive(every, preset[0], &format!("{key}.every"))?;
    let most = match most {
        Some(Span(most)) if most < first => {
            return Err(format!("{key}.every_max: must not be less than `every`"));
        }
        Some(Span(most)) => most,
        None => Duration::from_secs(preset[1]).max(first),
    };
    Ok((first, most))
}

fn positive(span: Option<Span>, preset_s: u64, key: &str) -> Result<Duration, String> {
    let span = span.map_or(Duration::from_secs(preset_s), |Span(span)| span);
    if span < Duration::from_millis(10) {
        return Err(format!("{key}: must be at least 10ms"));
    }
    Ok(span)
}

fn templates(headers: Headers, key: &str) -> Result<Vec<(HeaderName, Template)>, String> {
    let headers = headers.0.into_iter();
    headers
        .map(|(name, value)| {
            if is_framing(&name) {
                return Err(format!(
                    "{key}.headers.{name}: this header is the gateway's own"
                ));
            }
            Ok((name, Template::parse(&value)))
        })
        .collect()
}

/// Headers that say how a message goes over the wire, or where: no file can know them.
fn is_framing(name: &HeaderName) -> bool {
    [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ]
    .contains(name)
}

/// Puts headers in place of those of the same name.
pub(crate) fn fill_headers(
    templates: &[(HeaderName, Template)],
    words: &Words,
    headers: &mut HeaderMap,
) -> Result<(), String> {
    for (name, text) in templates {
        let value = HeaderValue::try_from(text.fill(words)).map_err(|_| {
            format!("header `{name}`: what is to be filled in cannot stand in a header")
        })?;
        headers.insert(name.clone(), value);
    }
    Ok(())
}

fn filled(json: &Value, words: &Words) -> Value {
    match json {
        Value::String(text) => Template::parse(text).fill(words).into(),
        Value::Array(items) => items.iter().map(|item| filled(item, words)).collect(),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| (name.clone(), filled(value, words)))
            .collect(),
        other => other.clone(),
    }
}
