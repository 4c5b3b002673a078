//! `POST /prompt`: looked at, kept, and only then answered.
//!
//! What is wrong with a prompt is told at once, in ComfyUI's own words, by what the nodes say that they can do. What only a
//! node can say (`VALIDATE_INPUTS` of a pack) is told at once where a node is free, since that node is asked first; where all
//! are busy, it is told later, as an error of the prompt's execution.

use super::{Call, describe};
use crate::attend;
use crate::clock::now_ms;
use crate::facts::Facts;
use crate::farm::{Merged, Node};
use crate::json::{Json, Object, object};
use crate::ledger::{Phase, Prompt, Verdict};
use crate::needs::{FilePath, Needs};
use crate::object_info::ObjectInfo;
use crate::reply::{Reply, broken, json, ok, with};
use crate::stored::{Stored, print};
use crate::submission::Submission;
use crate::validate::{Invalid, Rules, Told, check, nowhere};
use crate::workflow::Workflow;
use http::{Response, StatusCode};
use std::sync::Arc;
use std::time::Duration;
use tabane_api::{Body, Caller, JobView, Need, Refusal, Urgency, Work};
use tokio::time::timeout;

/// How long until a free node has to be asked, and how long its word is waited for then.
const ASKED: Duration = Duration::from_millis(200);
const VERDICT: Duration = Duration::from_secs(5);

/// What the nodes said within this is new enough to refuse a prompt by.
const FRESH: Duration = Duration::from_millis(500);

/// A prompt that was looked at.
struct Looked {
    outputs: Vec<String>,
    node_errors: Object,
}

impl Call<'_> {
    pub(super) async fn submit(&self) -> Reply {
        let Ok(body) = self.request.body().to_bytes(super::MOST).await else {
            return Ok(broken());
        };
        let Ok(mut submission) = Submission::read(&body) else {
            return Ok(broken());
        };
        drop(body);
        let source = self.request.headers().get("comfy-usage-source");
        if let Some(source) = source.and_then(|source| source.to_str().ok()) {
            submission.note_source(source);
        }
        let print = print(&submission);
        let id = match submission.prompt_id() {
            None => uuid::Uuid::new_v4().to_string(),
            Some(Json::Text(id)) => id.clone(),
            Some(other) => crate::python::str(other),
        };
        if let Some(answer) = self.again(&id, &print) {
            return Ok(answer);
        }
        let looked = match self.look(&submission).await {
            Ok(looked) => looked,
            Err(answer) => return Ok(*answer),
        };
        let number = match submission.number() {
            Some(number) => float(number),
            None => self.kind.desk.ledger.number(submission.is_front()),
        };
        let secrets = submission.secrets().clone();
        let stored = Stored {
            id: id.as_str().into(),
            number: number.clone(),
            owner: self.owner(),
            created_ms: now_ms(),
            outputs: looked.outputs,
            print: print.clone(),
            node_errors: looked.node_errors.clone().into(),
            submission,
        };
        let urgency = match front(&number) {
            true => Urgency::new(Urgency::default().value() - 1),
            false => Urgency::default(),
        };
        self.take_in(stored, secrets, urgency, &print).await
    }

    async fn take_in(
        &self,
        stored: Stored,
        secrets: crate::submission::Secrets,
        urgency: Urgency,
        print: &str,
    ) -> Reply {
        let kind = self.kind;
        let written = stored.written();
        let merged = kind.merged();
        let empty = ObjectInfo::default();
        let info = merged.as_ref().map_or(&empty, |merged| &merged.info);
        let holds = |path: FilePath<'_>| kind.holds(path);
        let nothing = Object::new();
        let facts = Facts::of(stored.prompt().unwrap_or(&nothing), info, &holds);
        let answer = object! {
            "prompt_id": &*stored.id,
            "number": stored.number.clone(),
            "node_errors": stored.node_errors.clone(),
        };
        let prompt = Prompt::new(stored, facts.signatures.clone(), Phase::Taking);
        let prompt = match kind.desk.ledger.put(prompt) {
            Ok(prompt) => prompt,
            // Twice in the same moment.
            Err(known) => {
                return Ok(self.again(&known.id, print).unwrap_or_else(broken));
            }
        };
        prompt.keep_secrets(secrets);
        // A node that said before this what it can do did not look at it.
        let merged = kind.merged();
        let feasible = merged
            .as_ref()
            .map(|merged| self.look_at_all(&prompt, merged))
            .unwrap_or_default();
        // The gateway knows as well as a node does what is wrong with what ComfyUI has itself.
        let is_awaited = self.is_one_free(&feasible)
            && merged.as_ref().is_some_and(|m| is_custom(&prompt, &m.info));
        prompt.awaits(is_awaited);
        let work = Work {
            name: Work::is_name(&prompt.id).then(|| prompt.id.clone()),
            caller: Caller {
                tenant: prompt.label.owner.clone(),
                address: self.caller.address,
            },
            need: self.need(&prompt, facts, urgency),
            uri: http::Uri::from_static("/prompt"),
            body: written.into(),
            keep: Some(kind.setup.config.history.keep.0),
        };
        let mut verdict = prompt.verdict.subscribe();
        let job = match self.submit_new(work).await {
            Ok(job) => job,
            Err(why) => {
                kind.desk.ledger.forget(&prompt);
                return Err(why);
            }
        };
        prompt.is_job(&job.id);
        kind.desk.ledger.is_taken_in(&prompt);
        if !is_awaited {
            return Ok(ok(&answer));
        }
        let mut told = None;
        let asked = timeout(ASKED, verdict.wait_for(Option::is_some))
            .await
            .is_ok();
        if asked {
            let word = |told: &Option<Verdict>| !matches!(told, None | Some(Verdict::Asked));
            let word = timeout(VERDICT, verdict.wait_for(word)).await;
            told = word.ok().and_then(|told| told.ok()?.clone());
        }
        // Whoever refuses it from here on knows that nobody waits, or says so now.
        if told.is_none() && !prompt.awaits(false) {
            told = prompt.verdict.borrow().clone();
        }
        Ok(match told {
            Some(Verdict::Refused(told)) => with(
                StatusCode::BAD_REQUEST,
                "application/json; charset=utf-8",
                told.to_string(),
            ),
            _ => ok(&answer),
        })
    }

    /// Hands a prompt in as a job. One of its id that is over was forgotten a moment ago, and is still being deleted.
    async fn submit_new(&self, work: Work) -> Result<JobView, Refusal> {
        let job = self.host.submit(work.clone()).await?;
        if !job.state.is_over() {
            return Ok(job);
        }
        self.host.forget(&job.id).await?;
        self.host.submit(work).await
    }

    /// The answer to a prompt that was taken in before; `None`: there is none of this id.
    fn again(&self, id: &str, print: &str) -> Option<Response<Body>> {
        let known = self.kind.desk.ledger.get(id)?;
        if known.label.print == print {
            return Some(ok(&object! {
                "prompt_id": &*known.id,
                "number": known.label.number.clone(),
                "node_errors": known.label.node_errors.clone(),
            }));
        }
        let told = object! {
            "error": object! {
                "type": "duplicate_prompt_id",
                "message": "prompt_id is in use",
                "details": format!("There is another prompt with the id {id}; omit it to let the server generate one"),
                "extra_info": object! {},
            },
            "node_errors": object! {},
        };
        Some(json(StatusCode::BAD_REQUEST, &told))
    }

    /// Whether it can be executed, by what is known of the nodes; before it is refused, they are asked once more.
    async fn look(&self, submission: &Submission) -> Result<Looked, Box<Response<Body>>> {
        match self.look_once(submission) {
            Ok(looked) => return Ok(looked),
            Err(Invalid::Unexpected) => return Err(Box::new(broken())),
            Err(Invalid::Told(_)) => {}
        }
        describe::refresh(self.kind, FRESH).await;
        self.look_once(submission).map_err(|invalid| {
            Box::new(match invalid {
                Invalid::Unexpected => broken(),
                Invalid::Told(told) => refused(&told),
            })
        })
    }

    fn look_once(&self, submission: &Submission) -> Result<Looked, Invalid> {
        let Some(merged) = self.kind.merged() else {
            // Nobody can say anything of it: it waits for who can.
            return match submission.prompt() {
                Some(_) => Ok(Looked {
                    outputs: Vec::new(),
                    node_errors: Object::new(),
                }),
                None => Err(Invalid::Unexpected),
            };
        };
        let nodes = self.kind.nodes();
        let infos: Vec<(Arc<str>, Arc<ObjectInfo>)> = nodes
            .iter()
            .filter_map(|node| Some((node.name.clone(), node.info()?)))
            .collect();
        let has_file = |path: FilePath<'_>| {
            self.kind.keeps(path) || infos.iter().any(|(_, info)| info.has_file(path))
        };
        let rules = Rules {
            info: &merged.info,
            names: &self.kind.setup.names,
            dialect: merged.dialect,
            has_file: &has_file,
        };
        let valid = check(submission, rules)?;
        if let Some(prompt) = submission.prompt() {
            let workflow = Workflow::of(prompt);
            let needs = Needs::of(&workflow, &merged.info);
            let infos: Vec<(&str, &ObjectInfo)> = infos
                .iter()
                .map(|(name, info)| (&**name, &**info))
                .collect();
            if let Some(told) = nowhere(&needs, &infos, &self.kind.setup.names) {
                return Err(told.into());
            }
        }
        Ok(Looked {
            outputs: valid.outputs,
            node_errors: valid.node_errors,
        })
    }

    /// Notes what each node lacks for a prompt; those that lack nothing.
    fn look_at_all(&self, prompt: &Prompt, merged: &Merged) -> Vec<Arc<Node>> {
        let nodes = self.kind.nodes().into_iter();
        nodes
            .filter(|node| attend::look_at(self.kind, prompt, merged, node))
            .collect()
    }

    /// Whether one of these is well and has nothing to do.
    fn is_one_free(&self, nodes: &[Arc<Node>]) -> bool {
        let all = self.kind.endpoints();
        all.iter().any(|at| {
            let is_free = at.usable && at.used < at.slots;
            is_free && nodes.iter().any(|node| node.id == at.id)
        })
    }

    fn need(&self, prompt: &Prompt, facts: Facts, urgency: Urgency) -> Need {
        let config = &self.kind.setup.config;
        let labels = config.labels.iter();
        Need {
            model: facts.model.map(Into::into),
            size: facts.size,
            urgency,
            vram_mib: config.vram_mib,
            labels: labels
                .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
                .collect(),
            work: Some(prompt.id.clone()),
            ..Need::of_class(&facts.class)
        }
    }
}

/// Whether only a node can say all that is wrong with it: it has nodes of other people's.
fn is_custom(prompt: &Prompt, info: &ObjectInfo) -> bool {
    let Some(stored) = prompt.stored() else {
        return false;
    };
    let Some(nodes) = stored.prompt() else {
        return false;
    };
    let workflow = Workflow::of(nodes);
    let mut classes = workflow.nodes().iter().map(|node| info.class(node.class));
    classes.any(|class| class.is_none_or(|class| class.is_custom()))
}

/// A client's own number is a `float` to the server.
fn float(number: &Json) -> Json {
    match crate::python::convert("FLOAT", number) {
        Ok(number) => number,
        Err(_) => number.clone(),
    }
}

/// Whether a number is one of those before all others.
fn front(number: &Json) -> bool {
    number.number().is_some_and(|number| number.value() < 0.0)
}

fn refused(told: &Told) -> Response<Body> {
    with(
        StatusCode::BAD_REQUEST,
        "application/json; charset=utf-8",
        told.to_string(),
    )
}
