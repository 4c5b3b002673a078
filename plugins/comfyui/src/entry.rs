//! An entry of the history: what came of a prompt.

use crate::frames::Frame;
use crate::json::{Json, Object, object};

/// What counts among a prompt's outputs as something to be seen.
const SEEN: [&str; 5] = ["images", "video", "audio", "3d", "text"];

/// What came of a prompt, without the prompt itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    /// By node, and by what they are (`images`, ..).
    pub outputs: Object,
    /// Whether it was executed to its end.
    pub success: bool,
    /// What was said meanwhile: `[event, data]` each.
    pub messages: Vec<Json>,
    /// By node: what is shown where.
    pub meta: Object,
    /// When its node was through with it, milliseconds since 1970, by the gateway's clock.
    pub through_ms: Option<i64>,
}

/// What lists say of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// How it ended.
    pub status: Status,
    /// When it began and ended, milliseconds since 1970, by its node's clock.
    pub started: Option<Json>,
    /// When it ended.
    pub ended: Option<Json>,
    /// When its node was through with it, by the gateway's clock: lists go by it.
    pub through_ms: Option<i64>,
    /// What went wrong.
    pub error: Option<Json>,
    /// How many outputs there are, and how many can be seen.
    pub outputs: (usize, usize),
    /// The output that stands for it.
    pub preview: Option<Json>,
    /// The entry itself, where no node said what came of it: then it is not in the gateway's store.
    pub made: Option<Box<Entry>>,
}

/// How a prompt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// To its end.
    Completed,
    /// With an error.
    Failed,
    /// Somebody took it back.
    Cancelled,
}

// === impl Entry ===

impl Entry {
    /// Of a node's history, or as it was kept.
    pub fn of(json: &Json) -> Self {
        let object = |key| json.get(key).and_then(Json::object).cloned();
        let status = json.get("status");
        let said = status.and_then(|status| status.get("messages")?.list());
        Entry {
            outputs: object("outputs").unwrap_or_default(),
            success: status
                .and_then(|status| status.get("completed"))
                .is_some_and(|is| *is == Json::Bool(true)),
            messages: said.unwrap_or(&[]).to_vec(),
            meta: object("meta").unwrap_or_default(),
            through_ms: json
                .get("through_ms")
                .and_then(Json::number)
                .and_then(|ms| i64::try_from(ms.integer()?).ok()),
        }
    }

    /// One that ended without a node's word.
    pub fn ended(event: &str, data: Json) -> Self {
        Entry {
            messages: vec![Json::List(vec![event.into(), data])],
            ..Entry::default()
        }
    }

    /// Its status, as a server shows it.
    pub fn status(&self) -> Json {
        object! {
            "status_str": if self.success { "success" } else { "error" },
            "completed": self.success,
            "messages": self.messages.clone(),
        }
    }

    /// As a server shows it. `prompt`: the five that stand for the prompt.
    pub fn shown(&self, prompt: Json) -> Json {
        object! {
            "prompt": prompt,
            "outputs": self.outputs.clone(),
            "status": self.status(),
            "meta": self.meta.clone(),
        }
    }

    /// As it is kept. `label`: what lists say of the prompt.
    pub fn written(&self, label: Json) -> String {
        let kept = object! {
            "outputs": self.outputs.clone(),
            "status": self.status(),
            "meta": self.meta.clone(),
            "label": label,
            "through_ms": self.through_ms.map(Json::integer),
        };
        kept.to_string()
    }

    /// What was said under a name.
    pub fn message(&self, event: &str) -> Option<&Json> {
        let mut said = self.messages.iter().filter_map(Json::list);
        let found = said.find(|said| said.first().and_then(Json::text) == Some(event))?;
        found.get(1)
    }

    /// The event that it ends with, as clients are sent it.
    pub fn last_word(&self) -> Option<Frame> {
        match self.messages.last()?.list()? {
            [Json::Text(event), data] => Some(Frame::new(event, data.clone())),
            _ => None,
        }
    }

    /// The event that told of a node's outputs.
    pub fn executed(&self, prompt: &str, node: &str, output: &Json) -> Frame {
        let shown = self.meta.get(node).and_then(|of| of.get("display_node"));
        let data = object! {
            "node": node,
            "display_node": shown.cloned().unwrap_or_else(|| node.into()),
            "output": output.clone(),
            "prompt_id": prompt,
        };
        Frame::new("executed", data)
    }

    /// What lists say of it.
    pub fn summary(&self) -> Summary {
        let time = |event| self.message(event)?.get("timestamp").cloned();
        let ends = [
            "execution_success",
            "execution_error",
            "execution_interrupted",
        ];
        let interrupted = self.message("execution_interrupted").is_some();
        let (count, seen, preview) = looked_through(&self.outputs);
        Summary {
            status: match (self.success, interrupted) {
                (true, _) => Status::Completed,
                (false, true) => Status::Cancelled,
                (false, false) => Status::Failed,
            },
            started: time("execution_start"),
            ended: ends.into_iter().find_map(time),
            through_ms: self.through_ms,
            error: self.message("execution_error").cloned(),
            outputs: (count, seen),
            preview,
            made: None,
        }
    }

    /// The same of one that is not in the gateway's store.
    pub fn summary_of_made(self) -> Summary {
        let summary = self.summary();
        Summary {
            made: Some(Box::new(self)),
            ..summary
        }
    }
}

/// How many outputs there are, how many can be seen, and the one that stands for all: a saved one, or else any.
fn looked_through(outputs: &Object) -> (usize, usize, Option<Json>) {
    let (mut count, mut seen) = (0, 0);
    let (mut saved, mut any) = (None, None);
    for (node, shown) in outputs {
        for (kind, items) in shown.object().into_iter().flatten() {
            for item in items.list().into_iter().flatten().filter_map(Json::object) {
                count += 1;
                if !SEEN.contains(&kind.as_str()) {
                    continue;
                }
                seen += 1;
                let mut told = item.clone();
                told.insert("nodeId".into(), node.as_str().into());
                told.insert("mediaType".into(), kind.as_str().into());
                let is_saved = item.get("type").and_then(Json::text) == Some("output");
                let place = if is_saved { &mut saved } else { &mut any };
                place.get_or_insert(Json::Object(told));
            }
        }
    }
    (count, seen, saved.or(any))
}

// === impl Status ===

impl Status {
    /// The word for it in `/api/jobs`.
    pub fn word(self) -> &'static str {
        match self {
            Status::Completed => "completed",
            Status::Failed => "failed",
            Status::Cancelled => "cancelled",
        }
    }
}
