//! What a prompt made, taken off its node: the gateway keeps it, under a name that nothing else of the service has, and says
//! that name wherever the node said its own.

use crate::farm::Node;
use crate::files::Unplaced;
use crate::json::{Json, Object};
use crate::kind::Comfyui;
use crate::needs::{FilePath, Folder};
use http::{Request, StatusCode};
use std::collections::HashMap;
use tabane_api::{Content, NodeClient, NodeError, RunError};

/// Results that are named by texts alone, under these keys: 3D models, mostly.
const NAMED: [&str; 2] = ["result", "model_file"];

/// The outputs of one attempt.
pub struct Outputs<'a> {
    kind: &'a Comfyui,
    job: &'a str,
    node: &'a Node,
    client: &'a dyn NodeClient,
    /// Folder, subfolder and name on the node; subfolder and name here.
    known: HashMap<(Folder, String, String), Option<(String, String)>>,
}

impl<'a> Outputs<'a> {
    /// None yet.
    pub fn of(kind: &'a Comfyui, job: &'a str, node: &'a Node, client: &'a dyn NodeClient) -> Self {
        Outputs {
            kind,
            job,
            node,
            client,
            known: HashMap::new(),
        }
    }

    /// Keeps all files that are named in what a node made (`{"images": [{"filename", "subfolder", "type"}], ..}`), and puts
    /// the names in that they got.
    pub async fn keep(&mut self, made: &mut Json) -> Result<(), RunError> {
        let Json::Object(made) = made else {
            return Ok(());
        };
        for (key, items) in made {
            let Json::List(items) = items else { continue };
            for item in items {
                match item {
                    Json::Object(file) => self.keep_file(file).await?,
                    Json::Text(name) if NAMED.contains(&key.as_str()) => {
                        self.keep_named(name).await?;
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    async fn keep_file(&mut self, file: &mut Object) -> Result<(), RunError> {
        let text = |key: &str| file.get(key).and_then(Json::text).map(str::to_owned);
        let Some(name) = text("filename").filter(|name| !name.is_empty()) else {
            return Ok(());
        };
        let folder = text("type").and_then(|name| Folder::named(&name));
        let subfolder = text("subfolder").unwrap_or_default();
        // What a prompt shows of its inputs is not its own.
        let Some(folder) = folder.filter(|folder| *folder != Folder::Input) else {
            return Ok(());
        };
        if let Some((subfolder_here, name_here)) = self.place(folder, &subfolder, &name).await? {
            if name_here != name {
                file.insert("filename".into(), name_here.into());
            }
            if subfolder_here != subfolder {
                file.insert("subfolder".into(), subfolder_here.into());
            }
        }
        Ok(())
    }

    /// A path below the folder of outputs, if it is one.
    async fn keep_named(&mut self, path: &mut String) -> Result<(), RunError> {
        let is_file = path
            .rsplit_once('.')
            .is_some_and(|(_, ending)| (1..=5).contains(&ending.len()));
        if !is_file || path.contains(['\n', ' ']) {
            return Ok(());
        }
        let at = FilePath::of(path);
        let folder = match at.folder {
            Folder::Temp => Folder::Temp,
            _ => Folder::Output,
        };
        let (subfolder, name) = (at.subfolder.to_owned(), at.name.to_owned());
        if let Some((subfolder_here, name_here)) = self.place(folder, &subfolder, &name).await?
            && (&subfolder_here, &name_here) != (&subfolder, &name)
        {
            *path = match subfolder_here.as_str() {
                "" => name_here,
                within => format!("{within}/{name_here}"),
            };
        }
        Ok(())
    }

    /// Takes a file off the node. `None`: there is none of this name.
    async fn place(
        &mut self,
        folder: Folder,
        subfolder: &str,
        name: &str,
    ) -> Result<Option<(String, String)>, RunError> {
        let key = (folder, subfolder.to_owned(), name.to_owned());
        if let Some(known) = self.known.get(&key) {
            return Ok(known.clone());
        }
        let placed = self.fetch(folder, subfolder, name).await?;
        self.known.insert(key, placed.clone());
        Ok(placed)
    }

    async fn fetch(
        &self,
        folder: Folder,
        subfolder: &str,
        name: &str,
    ) -> Result<Option<(String, String)>, RunError> {
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("filename", name)
            .append_pair("subfolder", subfolder)
            .append_pair("type", folder.name())
            .finish();
        let request = Request::get(format!("/view?{query}")).body(Content::default());
        let answer = self
            .client
            .stream(request.map_err(NodeError::from)?)
            .await?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => {
                tracing::warn!(endpoint = %self.node.name, folder = folder.name(), subfolder, name,
                    "a node names an output that it does not give");
                return Ok(None);
            }
            status => {
                let what = format!("it answered {status} to /view of `{name}`");
                return Err(NodeError::Broken(what).into());
            }
        }
        let files = self
            .kind
            .files()
            .map_err(|why| RunError::Impossible(why.to_string()))?;
        let at = FilePath {
            folder,
            subfolder,
            name,
        };
        match files.place(self.job, at, answer.into_body()).await {
            Ok(placed) => Ok(Some((placed.subfolder, placed.name))),
            Err(Unplaced::Node(error)) => Err(error.into()),
            Err(Unplaced::Name(name)) => {
                tracing::warn!(endpoint = %self.node.name, name, "a node names an output that cannot be kept");
                Ok(None)
            }
            Err(error @ Unplaced::Disk { .. }) => Err(RunError::Impossible(format!(
                "{error}; make room in the gateway's `data_dir` and submit it again"
            ))),
        }
    }
}
