//! `/settings`: a user's settings, one file of JSON that everybody can read.

use super::reply::{self, Answer, broken, empty};
use super::users::{User, read_json};
use super::{draft, failed};
use crate::json::{Json, Object};
use http::StatusCode;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use tabane_api::Content;

const SETTINGS: &str = "comfy.settings.json";

// === impl User ===

impl User {
    /// `GET /settings`: all of them.
    pub async fn settings(&self) -> Answer {
        reply::ok(self.read_settings().await?)
    }

    /// `GET /settings/{id}`: one; `null` if it was never set.
    pub async fn setting(&self, id: &str) -> Answer {
        reply::ok(self.read_settings().await?.swap_remove(id))
    }

    /// `POST /settings`: changes those that are in the body.
    pub async fn change_settings(&self, body: Content) -> Answer {
        match read_json(&self.files, body).await? {
            Ok(Json::Object(new)) => self.change(new).await,
            Ok(_) => Ok(broken()),
            Err(reply) => Ok(reply),
        }
    }

    /// `POST /settings/{id}`: changes one.
    pub async fn change_setting(&self, id: &str, body: Content) -> Answer {
        match read_json(&self.files, body).await? {
            Ok(value) => {
                self.change(Object::from_iter([(id.to_owned(), value)]))
                    .await
            }
            Err(reply) => Ok(reply),
        }
    }

    async fn read_settings(&self) -> Result<Object, tabane_api::Refusal> {
        let path = self.folder.join(SETTINGS);
        let read = self.files.blocking(move |_| read(&path)).await;
        read.map_err(|error| failed("read settings", error))
    }

    async fn change(&self, new: Object) -> Answer {
        let path = self.folder.join(SETTINGS);
        let changed = self.files.blocking(move |disk| {
            let _one_at_a_time = disk.users.lock();
            let mut all = read(&path);
            all.extend(new);
            draft::write(disk, &path, indented(&all.into()).as_bytes())
        });
        match changed.await.flatten() {
            Ok(()) => Ok(empty(StatusCode::OK)),
            Err(error) => Err(failed("keep settings", error)),
        }
    }
}

/// Those in a file; none if it is not there, or cannot be understood.
fn read(path: &Path) -> Object {
    let read = fs::read(path).ok();
    match read.and_then(|bytes| Json::read(&bytes).ok()) {
        Some(Json::Object(settings)) => settings,
        _ => Object::new(),
    }
}

/// As Python's `json.dumps(…, indent=4)` writes it.
fn indented(json: &Json) -> String {
    let mut out = String::new();
    write(&mut out, json, 0);
    out
}

fn write(out: &mut String, json: &Json, depth: usize) {
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.push_str(&"    ".repeat(depth));
    };
    let parts: Vec<(Option<&str>, &Json)> = match json {
        Json::Object(object) => {
            let entries = object.iter();
            entries
                .map(|(key, value)| (Some(key.as_str()), value))
                .collect()
        }
        Json::List(list) => list.iter().map(|value| (None, value)).collect(),
        _ => Vec::new(),
    };
    if parts.is_empty() {
        // Into a text, all can be written.
        let _ = write!(out, "{json}");
        return;
    }
    let (open, close) = if json.object().is_some() {
        ('{', '}')
    } else {
        ('[', ']')
    };
    out.push(open);
    for (i, (key, value)) in parts.into_iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        line(out, depth + 1);
        if let Some(key) = key {
            let _ = write!(out, "{}: ", Json::from(key));
        }
        write(out, value, depth + 1);
    }
    line(out, depth);
    out.push(close);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_written_as_comfyui_writes_them() {
        let settings = r#"{"Comfy.Locale": "é", "a": {}, "b": [1.0, [], {"c": null}]}"#;
        let wanted = r#"{
    "Comfy.Locale": "\u00e9",
    "a": {},
    "b": [
        1.0,
        [],
        {
            "c": null
        }
    ]
}"#;
        let settings = Json::read(settings.as_bytes()).unwrap();
        assert_eq!(indented(&settings), wanted);
    }
}
