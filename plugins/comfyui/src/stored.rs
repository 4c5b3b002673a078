//! A prompt as it is kept until it is over, and as it is shown meanwhile and after. Its secrets are not in it.

use crate::json::{Json, NotJson, Object, object};
use crate::ledger::Label;
use crate::submission::{Secrets, Submission};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::sync::Arc;

/// What is kept of a prompt that was taken in.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Its id.
    pub id: Arc<str>,
    /// Its place in the queue, as the client or the counter said it.
    pub number: Json,
    /// Who asked: what the gateway calls them.
    pub owner: Arc<str>,
    /// When it was taken in, milliseconds since 1970.
    pub created_ms: i64,
    /// The nodes of it that make results.
    pub outputs: Vec<String>,
    /// What makes a repeat of it the same.
    pub print: String,
    /// What was wrong with other outputs, and told although it was taken.
    pub node_errors: Json,
    /// The rest of its body: `prompt`, `extra_data`, `client_id`, `partial_execution_targets`.
    pub submission: Submission,
}

// === impl Stored ===

impl Stored {
    /// Reads what [`Stored::written`] wrote.
    ///
    /// Errors: it is not that.
    pub fn read(bytes: &[u8]) -> Result<Self, NotJson> {
        let Json::Object(mut all) = Json::read(bytes)? else {
            return Err(NotJson { at: 0 });
        };
        let mut take = |key: &str| all.shift_remove(key).unwrap_or_default();
        let text = |json: Json| json.text().unwrap_or_default().to_owned();
        let Json::Object(submission) = take("submission") else {
            return Err(NotJson { at: 0 });
        };
        let outputs = take("outputs");
        let outputs = outputs.list().unwrap_or(&[]).iter().filter_map(Json::text);
        Ok(Stored {
            outputs: outputs.map(str::to_owned).collect(),
            id: text(take("id")).into(),
            number: take("number"),
            owner: text(take("owner")).into(),
            created_ms: take("created_ms")
                .number()
                .and_then(|ms| i64::try_from(ms.integer()?).ok())
                .unwrap_or_default(),
            print: text(take("print")),
            node_errors: take("node_errors"),
            submission: Submission::of(submission),
        })
    }

    /// How it is kept.
    pub fn written(&self) -> String {
        let submission = self.submission.body().clone();
        let kept = object! {
            "id": &*self.id,
            "number": self.number.clone(),
            "owner": &*self.owner,
            "created_ms": Json::integer(self.created_ms),
            "outputs": self.outputs.iter().map(String::as_str).collect::<Vec<_>>(),
            "print": self.print.as_str(),
            "node_errors": self.node_errors.clone(),
            "submission": submission,
        };
        kept.to_string()
    }

    /// What lists say of it.
    pub fn label(&self) -> Label {
        Label {
            number: self.number.clone(),
            owner: self.owner.clone(),
            client: self.client().map(Into::into),
            created_ms: self.created_ms,
            workflow_id: self.workflow_id().cloned(),
            print: self.print.clone(),
            node_errors: self.node_errors.clone(),
        }
    }

    /// The nodes of it.
    pub fn prompt(&self) -> Option<&Object> {
        self.submission.prompt()
    }

    /// Who is told of it.
    pub fn client(&self) -> Option<&str> {
        self.submission.client_id()
    }

    /// The front end's name for the drawing that it came from.
    pub fn workflow_id(&self) -> Option<&Json> {
        let extra = self.submission.body().get("extra_data")?;
        extra.get("extra_pnginfo")?.get("workflow")?.get("id")
    }

    /// What goes with it, as a server shows it: the client's id in it, and where servers do so, the time.
    pub fn extra_data(&self, stamps: bool) -> Json {
        let body = self.submission.body();
        let mut extra = match body.get("extra_data") {
            Some(Json::Object(extra)) => extra.clone(),
            _ => Object::new(),
        };
        if let Some(client) = body.get("client_id") {
            extra.insert("client_id".into(), client.clone());
        }
        if stamps {
            extra.insert("create_time".into(), Json::integer(self.created_ms));
        }
        extra.into()
    }

    /// The five of them that stand for a prompt in `/queue` and `/history`.
    pub fn tuple(&self, stamps: bool) -> Json {
        let prompt = self.submission.body().get("prompt").cloned();
        let outputs: Vec<&str> = self.outputs.iter().map(String::as_str).collect();
        Json::List(vec![
            self.number.clone(),
            (&*self.id).into(),
            prompt.into(),
            self.extra_data(stamps),
            outputs.into(),
        ])
    }

    /// The same with its secrets: only for the node that executes it.
    pub fn with_secrets(&self, secrets: Option<&Secrets>) -> Submission {
        let mut submission = self.submission.clone();
        if let Some(secrets) = secrets {
            submission.put_back(secrets);
        }
        submission
    }
}

/// What makes two bodies the same submission: all of it but the secrets.
pub fn print(submission: &Submission) -> String {
    let mut hash = Sha256::new();
    hash.update(Json::Object(submission.body().clone()).to_string());
    let mut hex = String::with_capacity(64);
    for byte in hash.finalize() {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}
