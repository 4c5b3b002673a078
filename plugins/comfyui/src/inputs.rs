//! The files that a prompt loads, brought to the node that it goes to.

use crate::farm::Node;
use crate::kind::Comfyui;
use crate::needs::{FilePath, Needs};
use crate::object_info::ObjectInfo;
use crate::stored::Stored;
use crate::workflow::Workflow;
use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request, header};
use std::io;
use std::sync::Arc;
use tabane_api::{Content, NodeClient, NodeError, RunError};

/// Between the parts of what is uploaded. It is long and random, so that no file has it in it.
const BOUNDARY: &str = "tabane-7bd1c2f0a9e64c5f8d3e21b6f40c9a57";

/// Brings all files that are kept here and that the node has not from here.
pub async fn bring(
    kind: &Comfyui,
    stored: &Stored,
    info: &ObjectInfo,
    node: &Node,
    client: &dyn NodeClient,
) -> Result<(), RunError> {
    let Some(prompt) = stored.prompt() else {
        return Ok(());
    };
    let workflow = Workflow::of(prompt);
    let mut needs = Needs::of(&workflow, info);
    needs.files.dedup_by_key(|file| file.path);
    for file in &needs.files {
        one(kind, file.path, node, client).await?;
    }
    Ok(())
}

async fn one(
    kind: &Comfyui,
    path: FilePath<'_>,
    node: &Node,
    client: &dyn NodeClient,
) -> Result<(), RunError> {
    let Ok(files) = kind.files() else {
        return Ok(());
    };
    let unread = |error: io::Error| {
        RunError::Impossible(format!("its input `{}` cannot be read: {error}", path.name))
    };
    // One that is not kept here lies on the node, or the node says that it does not.
    let Some(kept) = files.find(path).await.map_err(unread)? else {
        return Ok(());
    };
    let holds = kept.etag();
    let key = format!("{}/{}/{}", path.folder.name(), path.subfolder, path.name);
    if node.has_copy(&key, &holds) {
        return Ok(());
    }
    let before = before(path);
    let after = format!("\r\n--{BOUNDARY}--\r\n");
    let body = Around {
        before: before.into(),
        within: kept.content(),
        after: after.into(),
    };
    let request = Request::builder()
        .method(Method::POST)
        .uri("/upload/image")
        .header(
            header::CONTENT_TYPE,
            format!("multipart/form-data; boundary={BOUNDARY}"),
        )
        .body(Content::Stored(Arc::new(body)))
        .map_err(NodeError::from)?;
    let answer = client.stream(request).await?;
    let status = answer.status();
    if !status.is_success() {
        let what = format!("it answered {status} to the upload of `{}`", path.name);
        return Err(NodeError::Broken(what).into());
    }
    node.was_copied(key, holds);
    Ok(())
}

/// What stands before the file's bytes: where it goes, and that it goes there whatever is there.
fn before(path: FilePath<'_>) -> String {
    let mut all = String::new();
    let fields = [
        ("type", path.folder.name()),
        ("subfolder", path.subfolder),
        ("overwrite", "true"),
    ];
    for (name, value) in fields {
        all.push_str(&format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
        ));
    }
    // As browsers write it (WHATWG HTML, multipart form data): these three are what could end the name.
    let name = path
        .name
        .replace('"', "%22")
        .replace('\r', "%0D")
        .replace('\n', "%0A");
    all.push_str(&format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"image\"; filename=\"{name}\"\r\nContent-Type: application/octet-stream\r\n\r\n"
    ));
    all
}

/// Something kept, with something before and after it.
struct Around {
    before: Bytes,
    within: Content,
    after: Bytes,
}

#[async_trait]
impl tabane_api::Stored for Around {
    fn length(&self) -> u64 {
        (self.before.len() + self.after.len()) as u64 + self.within.length()
    }

    async fn read(&self, offset: u64, most: usize) -> io::Result<Bytes> {
        let first = self.before.len() as u64;
        let second = first + self.within.length();
        let part = |bytes: &Bytes, from: u64| {
            let from = usize::try_from(from).map_or(bytes.len(), |at| at.min(bytes.len()));
            bytes.slice(from..bytes.len().min(from.saturating_add(most)))
        };
        match offset {
            at if at < first => Ok(part(&self.before, at)),
            at if at < second => self.within.read(at - first, most).await,
            at => Ok(part(&self.after, at - second)),
        }
    }
}
