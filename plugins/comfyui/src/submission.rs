//! The body of `POST /prompt`: nothing of it is lost, and its secrets are not shown.

use crate::json::{Json, NotJson, Object};
use std::fmt::{self, Debug, Formatter};

/// The entries of `extra_data` that are keys to somebody's account. Nodes of partner services need them; nobody else does.
const SECRET: [&str; 2] = ["auth_token_comfy_org", "api_key_comfy_org"];

/// What a client submitted.
#[derive(Clone, PartialEq)]
pub struct Submission {
    /// All of it but its secrets.
    body: Object,
    secrets: Secrets,
}

/// What goes to the node that executes it, and nowhere else: neither to a log nor to a disk.
#[derive(Clone, PartialEq, Default)]
pub struct Secrets(Vec<Secret>);

#[derive(Clone, PartialEq)]
struct Secret {
    /// Its place among the entries of `extra_data`.
    place: usize,
    name: String,
    value: Json,
}

/// Why a body cannot be read. A real server answers it with 500.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is not JSON.
    #[error(transparent)]
    NotJson(#[from] NotJson),
    /// It is JSON, but neither an object nor a list.
    #[error("a prompt is submitted in an object")]
    NoObject,
}

// === impl Submission ===

impl Submission {
    /// Reads a body.
    pub fn read(bytes: &[u8]) -> Result<Self, Unreadable> {
        let mut body = match Json::read(bytes)? {
            Json::Object(body) => body,
            // In a list there is no prompt, and so the real server says.
            Json::List(_) => Object::new(),
            _ => return Err(Unreadable::NoObject),
        };
        let mut secrets = Secrets::default();
        if let Some(Json::Object(extra)) = body.get_mut("extra_data") {
            secrets = Secrets::taken_from(extra);
        }
        Ok(Submission { body, secrets })
    }

    /// One whose secrets are not known any more.
    pub fn of(body: Object) -> Self {
        Submission {
            body,
            secrets: Secrets::default(),
        }
    }

    /// Takes its secrets up again.
    pub fn put_back(&mut self, secrets: &Secrets) {
        self.secrets = secrets.clone();
    }

    /// Who it comes from is said in a header: a server puts it beside the prompt.
    pub fn note_source(&mut self, source: &str) {
        let extra = self
            .body
            .entry("extra_data".into())
            .or_insert_with(|| Json::Object(Object::new()));
        if let Json::Object(extra) = extra
            && !extra.contains_key("comfy_usage_source")
        {
            extra.insert("comfy_usage_source".into(), source.into());
        }
    }

    /// All of it but its secrets.
    pub fn body(&self) -> &Object {
        &self.body
    }

    /// Its secrets.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// The nodes, if they are there as nodes have to be.
    pub fn prompt(&self) -> Option<&Object> {
        self.body.get("prompt")?.object()
    }

    /// The id that the client chose.
    pub fn prompt_id(&self) -> Option<&Json> {
        self.body.get("prompt_id").filter(|id| **id != Json::Null)
    }

    /// Who is told of it: what stands beside the prompt goes before what stands in `extra_data`, as on a real server.
    pub fn client_id(&self) -> Option<&str> {
        let extra = || self.body.get("extra_data")?.get("client_id");
        self.body.get("client_id").or_else(extra)?.text()
    }

    /// Its place in the queue, where the client says it.
    pub fn number(&self) -> Option<&Json> {
        self.body.get("number")
    }

    /// Whether it goes before all others.
    pub fn is_front(&self) -> bool {
        self.body.get("front").is_some_and(crate::python::is_true)
    }

    /// The only outputs that are wanted. `None`: all are.
    pub fn targets(&self) -> Option<&Json> {
        let targets = self.body.get("partial_execution_targets");
        targets.filter(|targets| **targets != Json::Null)
    }

    /// What a node is sent: `edit` changes what is to be changed (names of files, the client's id), then the secrets are put
    /// back to where they were.
    pub fn for_node(&self, edit: impl FnOnce(&mut Object)) -> String {
        let mut body = self.body.clone();
        edit(&mut body);
        if let Some(Json::Object(extra)) = body.get_mut("extra_data") {
            self.secrets.put_back(extra);
        }
        Json::Object(body).to_string()
    }
}

/// Not what is in it: prompts are long, and people's own.
impl Debug for Submission {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        out.debug_struct("Submission")
            .field("keys", &self.body.keys().collect::<Vec<_>>())
            .field("nodes", &self.prompt().map_or(0, Object::len))
            .field("secrets", &self.secrets)
            .finish()
    }
}

// === impl Secrets ===

impl Secrets {
    fn taken_from(extra: &mut Object) -> Self {
        let names = extra.keys().enumerate();
        let secret = names.filter(|(_, name)| SECRET.contains(&name.as_str()));
        let places: Vec<usize> = secret.map(|(place, _)| place).collect();
        let taken = places.into_iter().rev().filter_map(|place| {
            let (name, value) = extra.shift_remove_index(place)?;
            Some(Secret { place, name, value })
        });
        let mut taken: Vec<Secret> = taken.collect();
        taken.reverse();
        Secrets(taken)
    }

    fn put_back(&self, extra: &mut Object) {
        for secret in &self.0 {
            // Somebody may have taken entries out.
            let place = secret.place.min(extra.len());
            extra.shift_insert(place, secret.name.clone(), secret.value.clone());
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Their names.
impl Debug for Secrets {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let names = self.0.iter().map(|secret| &secret.name);
        out.debug_list().entries(names).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{"client_id": "c", "prompt": {"9": {"inputs": {"seed": 18446744073709551615, "cfg": 4.50}, "class_type": "KSampler"}, "3": {"class_type": "A"}}, "extra_data": {"auth_token_comfy_org": "hush", "extra_pnginfo": {"workflow": {"z": 1, "a": [1]}}, "api_key_comfy_org": "hush too", "x": 1}, "own": null, "front": 1}"#;

    #[test]
    fn nothing_is_lost_and_keys_stay_in_order() {
        let submission = Submission::read(BODY.as_bytes()).unwrap();
        assert_eq!(submission.for_node(|_| {}), BODY);
        assert_eq!(submission.client_id(), Some("c"));
        assert_eq!(submission.prompt_id(), None);
        assert!(submission.is_front());
        let ids: Vec<&String> = submission.prompt().unwrap().keys().collect();
        assert_eq!(ids, ["9", "3"]);
    }

    #[test]
    fn secrets_are_neither_shown_nor_kept_with_the_rest() {
        let submission = Submission::read(BODY.as_bytes()).unwrap();
        let body = Json::Object(submission.body().clone());
        for told in [
            format!("{submission:?}"),
            format!("{:?}", submission.secrets()),
            body.to_string(),
        ] {
            assert!(!told.contains("hush"), "{told}");
        }
        assert_eq!(
            format!("{:?}", submission.secrets()),
            r#"["auth_token_comfy_org", "api_key_comfy_org"]"#
        );
        let sent = submission.for_node(|body| {
            if let Some(Json::Object(extra)) = body.get_mut("extra_data") {
                extra.clear();
            }
        });
        assert!(
            sent.contains(
                r#""extra_data": {"auth_token_comfy_org": "hush", "api_key_comfy_org": "hush too"}"#
            ),
            "{sent}"
        );
        assert!(
            !Submission::read(br#"{"prompt": "hush"#)
                .unwrap_err()
                .to_string()
                .contains("hush")
        );
    }

    #[test]
    fn what_is_no_object_is_told_apart() {
        assert_eq!(Submission::read(b"3").unwrap_err(), Unreadable::NoObject);
        assert!(matches!(
            Submission::read(b"{"),
            Err(Unreadable::NotJson(_))
        ));
        assert_eq!(Submission::read(b"[]").unwrap().prompt(), None);
        let told_in_extra = br#"{"extra_data": {"client_id": "e"}, "number": -2.5}"#;
        let submission = Submission::read(told_in_extra).unwrap();
        assert_eq!(submission.client_id(), Some("e"));
        assert!(submission.number().is_some() && submission.secrets().is_empty());
    }
}
