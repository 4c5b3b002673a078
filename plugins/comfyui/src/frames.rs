//! What a node says on its socket, and what clients are told: a message, and as much of it read as has to be known.
//!
//! The message itself stays as it came: whoever gets it gets its bytes. All integers in bytes are big-endian `u32`.
//!
//! | first | then | |
//! |---|---|---|
//! | 1 | format (1 JPEG, 2 PNG), image | a preview that does not say what it is of |
//! | 3 | length of node's id, node's id, text | what a node says of its progress; it names no prompt |
//! | 4 | length of JSON, JSON, image | a preview that does; only for clients that asked for it |

use crate::json::{Json, object};
use bytes::{Buf, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::sync::Arc;
use tabane_api::Message;

const PREVIEW: u32 = 1;
const TEXT: u32 = 3;
const PREVIEW_WITH_METADATA: u32 = 4;
const JPEG: u32 = 1;
const PNG: u32 = 2;

/// One message. A copy shares its bytes.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The prompt that it is of, where it says so. Whoever knows better may put it in: previews without metadata and texts of
    /// progress are of the prompt that the node executes.
    pub prompt: Option<Arc<str>>,
    /// What it tells.
    pub event: Event,
    body: Body,
}

/// What a message tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// `execution_start`
    Start,
    /// `execution_cached`: these nodes need not be computed again.
    Cached(Arc<[String]>),
    /// `executing`: this node's turn. `None`: the prompt is over, and its history is complete.
    Executing(Option<Arc<str>>),
    /// `progress`, of this node.
    Progress(Option<Arc<str>>),
    /// `progress_state`: of all nodes.
    ProgressState,
    /// `executed`: a node's outputs.
    Executed,
    /// `execution_success`
    Success,
    /// `execution_error`
    Error,
    /// An `execution_error` with which nothing ends: an output was blocked by a node, the others go on.
    Blocked,
    /// `execution_interrupted`
    Interrupted,
    /// `status`
    Status,
    /// An image.
    Preview {
        /// The node that made it, where it says so.
        node: Option<Arc<str>>,
        /// It is a PNG, as `SaveImageWebsocket` sends results. Samplers show what they are at as JPEG.
        is_result: bool,
    },
    /// What a node says of its progress.
    Text,
    /// `feature_flags`
    FeatureFlags,
    /// `logs`
    Logs,
    /// Anything else: packs send what they like.
    Other,
}

#[derive(Clone, Debug)]
enum Body {
    Text(Arc<String>),
    Binary(Bytes),
    /// A preview with metadata.
    Preview {
        bytes: Bytes,
        /// Where the image begins; at 8 or later.
        image_at: usize,
        /// As a preview without metadata says it.
        format: u32,
    },
}

// === impl Frame ===

impl Frame {
    /// Reads a message. What cannot be read is [`Event::Other`].
    pub fn read(message: Message) -> Self {
        match message {
            Message::Text(text) => Frame::of_text(text),
            Message::Binary(bytes) => Frame::of_bytes(bytes),
        }
    }

    /// `{"type": .., "data": ..}`, as the real server writes it.
    pub fn new(name: &str, data: Json) -> Self {
        Frame::of_text(object! {"type": name, "data": data}.to_string())
    }

    /// The last that is told of a prompt. Its history is complete by then.
    pub fn end(prompt: &str) -> Self {
        Frame::new(
            "executing",
            object! {"node": Json::Null, "prompt_id": prompt},
        )
    }

    /// The message, for a client that asked for metadata of previews, or did not.
    pub fn message(self, with_metadata: bool) -> Message {
        match self.body {
            Body::Text(text) => Message::Text(Arc::unwrap_or_clone(text)),
            Body::Preview {
                bytes,
                image_at,
                format,
            } if !with_metadata => Message::Binary(without_metadata(bytes, image_at, format)),
            Body::Binary(bytes) | Body::Preview { bytes, .. } => Message::Binary(bytes),
        }
    }

    /// The message, if it is text.
    pub fn text(&self) -> Option<&str> {
        match &self.body {
            Body::Text(text) => Some(text),
            _ => None,
        }
    }

    /// How long the message is, bytes.
    pub fn size(&self) -> usize {
        match &self.body {
            Body::Text(text) => text.len(),
            Body::Binary(bytes) | Body::Preview { bytes, .. } => bytes.len(),
        }
    }

    fn of_text(text: String) -> Self {
        let (prompt, event) = skim(&text)
            .or_else(|| read(&text))
            .unwrap_or((None, Event::Other));
        Frame {
            prompt,
            event,
            body: Body::Text(Arc::new(text)),
        }
    }

    fn of_bytes(bytes: Bytes) -> Self {
        told_preview(&bytes).unwrap_or_else(|| {
            let mut rest = &bytes[..];
            let event = match (rest.try_get_u32(), rest.try_get_u32()) {
                (Ok(PREVIEW), Ok(format)) => Event::Preview {
                    node: None,
                    is_result: format == PNG,
                },
                (Ok(TEXT), Ok(_)) => Event::Text,
                _ => Event::Other,
            };
            Frame {
                prompt: None,
                event,
                body: Body::Binary(bytes),
            }
        })
    }
}

// === text ===

/// What matters in `data`.
#[derive(Default)]
struct Data {
    prompt_id: Option<Arc<str>>,
    node: Option<Arc<str>>,
    nodes: Vec<String>,
    exception_type: Option<Arc<str>>,
}

impl Data {
    fn of(self, kind: &str) -> (Option<Arc<str>>, Event) {
        let event = match kind {
            "execution_start" => Event::Start,
            "execution_cached" => Event::Cached(self.nodes.into()),
            "executing" => Event::Executing(self.node),
            "progress" => Event::Progress(self.node),
            "progress_state" => Event::ProgressState,
            "executed" => Event::Executed,
            "execution_success" => Event::Success,
            "execution_error" if self.exception_type.as_deref() == Some("ExecutionBlocked") => {
                Event::Blocked
            }
            "execution_error" => Event::Error,
            "execution_interrupted" => Event::Interrupted,
            "status" => Event::Status,
            "feature_flags" => Event::FeatureFlags,
            "logs" => Event::Logs,
            _ => Event::Other,
        };
        (self.prompt_id, event)
    }
}

/// Looks for what matters and steps over the rest: a state of progress has all nodes in it, and comes at every step.
fn skim(text: &str) -> Option<(Option<Arc<str>>, Event)> {
    #[derive(Deserialize)]
    struct Told<'a> {
        #[serde(rename = "type", borrow)]
        kind: Cow<'a, str>,
        #[serde(borrow, default)]
        data: Option<&'a RawValue>,
    }
    /// Of whatever type: what packs send need not be as in ComfyUI's own.
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Parts<'a> {
        #[serde(borrow)]
        prompt_id: Option<&'a RawValue>,
        #[serde(borrow)]
        node: Option<&'a RawValue>,
        #[serde(borrow)]
        nodes: Option<&'a RawValue>,
        #[serde(borrow)]
        exception_type: Option<&'a RawValue>,
    }
    fn value<'a, T: Deserialize<'a>>(raw: Option<&'a RawValue>) -> Option<T> {
        serde_json::from_str(raw?.get()).ok()
    }
    let told: Told = fields(text.as_bytes())?;
    let parts = told.data.and_then(|data| fields(data.get().as_bytes()));
    let parts: Parts = parts.unwrap_or_default();
    let text = |raw| value::<Cow<str>>(raw).map(Arc::from);
    let data = Data {
        prompt_id: text(parts.prompt_id),
        node: text(parts.node),
        nodes: value(parts.nodes).unwrap_or_default(),
        exception_type: text(parts.exception_type),
    };
    Some(data.of(&told.kind))
}

/// Fields of an object by their names: from a list serde would take them by their places.
fn fields<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Option<T> {
    let is_object = json.trim_ascii_start().starts_with(b"{");
    is_object.then(|| serde_json::from_slice(json).ok())?
}

/// The same of what Python writes and others do not call JSON: outputs with a `NaN` in them.
fn read(text: &str) -> Option<(Option<Arc<str>>, Event)> {
    let told = Json::read(text.as_bytes()).ok()?;
    let value = |key| told.get("data").and_then(|data| data.get(key));
    let text = |key| value(key).and_then(Json::text).map(Arc::from);
    let nodes = value("nodes").and_then(Json::list).unwrap_or_default();
    let data = Data {
        prompt_id: text("prompt_id"),
        node: text("node"),
        nodes: nodes
            .iter()
            .filter_map(Json::text)
            .map(String::from)
            .collect(),
        exception_type: text("exception_type"),
    };
    Some(data.of(told.get("type").and_then(Json::text)?))
}

// === bytes ===

fn told_preview(bytes: &Bytes) -> Option<Frame> {
    #[derive(Deserialize)]
    struct Metadata<'a> {
        #[serde(borrow, default)]
        prompt_id: Option<Cow<'a, str>>,
        #[serde(borrow, default)]
        node_id: Option<Cow<'a, str>>,
        #[serde(borrow, default)]
        image_type: Option<Cow<'a, str>>,
    }
    let mut rest = &bytes[..];
    if rest.try_get_u32().ok()? != PREVIEW_WITH_METADATA {
        return None;
    }
    let length = rest.try_get_u32().ok()? as usize;
    let metadata: Metadata = fields(rest.get(..length)?)?;
    let is_png = metadata.image_type.as_deref() == Some("image/png");
    Some(Frame {
        prompt: metadata.prompt_id.map(Arc::from),
        event: Event::Preview {
            node: metadata.node_id.map(Arc::from),
            is_result: is_png,
        },
        body: Body::Preview {
            bytes: bytes.clone(),
            image_at: 8 + length,
            format: if is_png { PNG } else { JPEG },
        },
    })
}

/// The eight bytes before the image become its head. Nothing is copied where nobody else has the bytes.
fn without_metadata(mut bytes: Bytes, image_at: usize, format: u32) -> Bytes {
    bytes.advance(image_at - 8);
    let mut plain = BytesMut::from(bytes);
    plain[..4].copy_from_slice(&PREVIEW.to_be_bytes());
    plain[4..8].copy_from_slice(&format.to_be_bytes());
    plain.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Frame {
        Frame::read(Message::Text(text.to_owned()))
    }

    fn binary(parts: &[&[u8]]) -> Frame {
        Frame::read(Message::Binary(parts.concat().into()))
    }

    fn with_metadata(json: &str, image: &[u8]) -> Vec<u8> {
        let length = (json.len() as u32).to_be_bytes();
        [&4u32.to_be_bytes(), &length, json.as_bytes(), image].concat()
    }

    #[test]
    fn events_are_told_apart_and_keep_their_bytes() {
        let node = || Some(Arc::from("3"));
        for (said, prompt, event) in [
            (
                r#"{"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 1}}}}"#,
                None,
                Event::Status,
            ),
            (
                r#"{"type":"execution_start","data":{"prompt_id":"p","timestamp":1}}"#,
                Some("p"),
                Event::Start,
            ),
            (
                r#"{"type": "execution_cached", "data": {"nodes": ["3", "a\"b"], "prompt_id": "p"}}"#,
                Some("p"),
                Event::Cached(["3".into(), "a\"b".into()].into()),
            ),
            (
                r#"{"type": "executing", "data": {"node": "3", "display_node": "4", "prompt_id": "p"}}"#,
                Some("p"),
                Event::Executing(node()),
            ),
            (
                r#"{"type": "executing", "data": {"node": null, "prompt_id": "\u00e9"}}"#,
                Some("é"),
                Event::Executing(None),
            ),
            (
                r#"{"data": {"value": 1, "max": 2, "prompt_id": "p", "node": "3"}, "type": "progress"}"#,
                Some("p"),
                Event::Progress(node()),
            ),
            (
                r#"{"type": "progress_state", "data": {"prompt_id": "p", "nodes": {"3": {"prompt_id": "q"}}}}"#,
                Some("p"),
                Event::ProgressState,
            ),
            (
                r#"{"type": "executed", "data": {"node": "3", "output": {"a": [NaN, 1e400]}, "prompt_id": "p"}}"#,
                Some("p"),
                Event::Executed,
            ),
            (
                r#"{"type": "executed", "data": {"output": {"text": ["\ud800"]}, "prompt_id": "p"}}"#,
                Some("p"),
                Event::Executed,
            ),
            (
                r#"{"type": "execution_success", "data": {"prompt_id": "p"}}"#,
                Some("p"),
                Event::Success,
            ),
            (
                r#"{"type": "execution_error", "data": {"prompt_id": "p", "exception_type": "torch.OutOfMemoryError"}}"#,
                Some("p"),
                Event::Error,
            ),
            (
                r#"{"type": "execution_error", "data": {"prompt_id": "p", "current_inputs": NaN}}"#,
                Some("p"),
                Event::Error,
            ),
            (
                r#"{"type": "execution_error", "data": {"prompt_id": "p", "exception_type": "ExecutionBlocked"}}"#,
                Some("p"),
                Event::Blocked,
            ),
            (
                r#"{"type": "execution_interrupted", "data": {"prompt_id": "p"}}"#,
                Some("p"),
                Event::Interrupted,
            ),
            (
                r#"{"type": "feature_flags", "data": {}}"#,
                None,
                Event::FeatureFlags,
            ),
            (
                r#"{"type": "logs", "data": {"entries": [], "size": null}}"#,
                None,
                Event::Logs,
            ),
            (
                r#"{"type": "pack.own", "data": {"node": 5, "prompt_id": 6}}"#,
                None,
                Event::Other,
            ),
            (
                r#"{"type": "pack.own", "data": {"prompt_id": "p"}}"#,
                Some("p"),
                Event::Other,
            ),
            (r#"{"type": "pack.own", "data": ["p"]}"#, None, Event::Other),
            (r#"{"type": "pack.own"}"#, None, Event::Other),
            (
                r#"{"type": 1, "data": {"prompt_id": "p"}}"#,
                None,
                Event::Other,
            ),
            (r#"["executing", {"prompt_id": "p"}]"#, None, Event::Other),
            ("[]", None, Event::Other),
            ("{", None, Event::Other),
            ("", None, Event::Other),
        ] {
            let frame = text(said);
            assert_eq!(
                (frame.prompt.as_deref(), &frame.event),
                (prompt, &event),
                "{said}"
            );
            assert_eq!((frame.text(), frame.size()), (Some(said), said.len()));
            assert_eq!(frame.message(false), Message::Text(said.to_owned()));
        }
    }

    #[test]
    fn bytes_are_told_apart_and_nothing_short_is_too_short() {
        let preview = |is_result| Event::Preview {
            node: None,
            is_result,
        };
        for (parts, event) in [
            (
                &[&[0, 0, 0, 1], &[0, 0, 0, 1], &b"\xff\xd8\xff"[..]][..],
                preview(false),
            ),
            (&[&[0, 0, 0, 1], &[0, 0, 0, 2], b"\x89PNG"], preview(true)),
            (&[&[0, 0, 0, 3], &[0, 0, 0, 1], b"3half"], Event::Text),
            (&[&[0, 0, 0, 2], &[0, 0, 0, 1], b"?"], Event::Other),
            (&[&[0, 0, 0, 4], &[0, 0, 0, 9], b"{}"], Event::Other),
            (&[&[0, 0, 0, 4], &[255, 255, 255, 255], b"{}"], Event::Other),
            (&[&[0, 0, 0, 4], &[0, 0, 0, 2], b"[]"], Event::Other),
            (&[&[0, 0, 0, 1], &[0, 0]], Event::Other),
            (&[], Event::Other),
        ] {
            let frame = binary(parts);
            assert_eq!((&frame.event, &frame.prompt), (&event, &None));
            assert_eq!(frame.message(false), Message::Binary(parts.concat().into()));
        }
    }

    #[test]
    fn a_preview_loses_its_metadata_and_nothing_else() {
        for (kind, image, format) in [
            ("jpeg", &b"\xff\xd8\xff\xe0"[..], 1),
            ("png", b"\x89PNG", 2),
            ("png", b"", 2),
        ] {
            let json = format!(
                r#"{{"node_id": "3", "prompt_id": "p", "display_node_id": "3", "parent_node_id": null, "real_node_id": "3", "image_type": "image/{kind}"}}"#
            );
            let bytes = with_metadata(&json, image);
            let frame = binary(&[&bytes]);
            assert_eq!(frame.prompt.as_deref(), Some("p"));
            let event = Event::Preview {
                node: Some("3".into()),
                is_result: format == 2,
            };
            assert_eq!(frame.event, event);
            let plain = [&[0, 0, 0, 1, 0, 0, 0, format], image].concat();
            assert_eq!(frame.clone().message(true), Message::Binary(bytes.into()));
            // Once while another has the bytes, once alone.
            assert_eq!(
                frame.clone().message(false),
                Message::Binary(plain.clone().into())
            );
            assert_eq!(frame.message(false), Message::Binary(plain.into()));
        }
        let bare = binary(&[&with_metadata("{}", b"i")]);
        let plain = b"\0\0\0\x01\0\0\0\x01i";
        assert_eq!(bare.message(false), Message::Binary(plain[..].into()));
    }

    #[test]
    fn an_image_that_nobody_else_has_is_not_copied() {
        let bytes = Bytes::from(with_metadata(r#"{"image_type": "image/png"}"#, &[7; 4096]));
        let image = bytes[bytes.len() - 4096..].as_ptr();
        let Message::Binary(plain) = Frame::read(Message::Binary(bytes)).message(false) else {
            panic!("an image is bytes");
        };
        assert_eq!(plain[8..].as_ptr(), image);
    }
}
