//! One attempt at a prompt on a node: its inputs are brought there, it is handed over, what the node says of it goes to its
//! client, and what it made is kept.
//!
//! The node's events say how soon; the node's history says what is true. Where no events come it is asked.

use crate::attend;
use crate::entry::{Entry, Status};
use crate::farm::Node;
use crate::frames::{Event, Frame};
use crate::inputs;
use crate::json::{Json, Object, object};
use crate::kind::Comfyui;
use crate::ledger::{Phase, Prompt, Verdict};
use crate::lookup::{Look, look};
use crate::outputs::Outputs;
use crate::stored::Stored;
use crate::translate::translate;
use crate::workflow::Workflow;
use bytes::Bytes;
use http::{Response, StatusCode};
use std::sync::Arc;
use std::time::Duration;
use tabane_api::{
    Attempt, Done, NodeClient, NodeError, Report, RunError, Verdict as Judged, one_piece,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

/// How often a node is asked about a prompt: where its events come, and where they do not.
const ASK: Duration = Duration::from_secs(10);
const ASK_OFTEN: Duration = Duration::from_secs(1);

/// How long a node may refuse connections until what it had is taken for lost: its process is gone.
const GONE: Duration = Duration::from_secs(4);

/// How long it may be silent: it may come back, and still be at it.
const SILENT: Duration = Duration::from_secs(60);

/// How long the node's word is waited for when its history has it already: its events may be slower.
const LATE: Duration = Duration::from_secs(3);

/// So many messages wait until they are read: reading waits while an output is taken off the node.
const INBOX: usize = 4096;

/// Runs an attempt to its end.
pub async fn run(
    kind: &Comfyui,
    attempt: &Attempt,
    client: &dyn NodeClient,
    report: &dyn Report,
) -> Result<Done, RunError> {
    let unready = |why: tabane_api::Refusal| RunError::Impossible(why.to_string());
    kind.ready().await.map_err(unready)?;
    let id = attempt.need.work.as_deref().unwrap_or_default();
    let unknown = || RunError::Impossible(format!("there is no prompt `{id}`"));
    let prompt = kind.desk.ledger.get(id).ok_or_else(unknown)?;
    let stored = prompt.stored().ok_or_else(unknown)?;
    // After a start it may be taken up again before anybody looks after its node.
    let mut all = kind.endpoints().into_iter();
    let at = all.find(|at| *at.name == *client.name());
    let left = || RunError::Lost("its node has left the pool".into());
    let at = at.ok_or_else(left)?;
    let node = kind.desk.farm.node(at.id, &at.name);

    let (sender, inbox) = mpsc::channel(INBOX);
    node.hand_over(&prompt.id, sender);
    prompt.stands(Phase::Running {
        at: node.id,
        name: node.name.clone(),
    });
    let mut on_node = OnNode {
        kind,
        prompt: &prompt,
        node: &node,
        client,
        report,
        inbox,
        outputs: Outputs::of(kind, &attempt.job, &node, client),
        made: Object::new(),
        hears: false,
        has_word: false,
        last: None,
        is_done: false,
    };
    if attempt.handle.is_none()
        && let Some(refused) = on_node.hand_over(&stored).await?
    {
        return on_node.refused(&refused).await;
    }
    on_node.follow().await
}

/// A prompt on a node.
struct OnNode<'a> {
    kind: &'a Comfyui,
    prompt: &'a Arc<Prompt>,
    node: &'a Arc<Node>,
    client: &'a dyn NodeClient,
    report: &'a dyn Report,
    inbox: mpsc::Receiver<Frame>,
    outputs: Outputs<'a>,
    /// By node of the prompt: what it made, with the names that it has here.
    made: Object,
    /// The node's events came when it was handed over, or some did since.
    hears: bool,
    /// The node said how it ended.
    has_word: bool,
    /// The event that ends it, kept back until it is sure that it does.
    last: Option<Frame>,
    /// It is over, and that is being written.
    is_done: bool,
}

impl Drop for OnNode<'_> {
    fn drop(&mut self) {
        self.node.lets_go(&self.prompt.id);
        // What follows is another attempt, if anything.
        if !self.is_done {
            self.prompt.stands(Phase::Waiting);
        }
    }
}

impl OnNode<'_> {
    /// Hands the prompt over. `Some`: the node said no, and why.
    async fn hand_over(&mut self, stored: &Stored) -> Result<Option<Arc<str>>, RunError> {
        let info = self.node.info();
        if let Some(info) = &info {
            inputs::bring(self.kind, stored, info, self.node, self.client).await?;
        }
        let submission = stored.with_secrets(self.prompt.secrets().as_ref());
        let body = submission.for_node(|body| {
            if let (Some(info), Some(Json::Object(nodes))) = (&info, body.get_mut("prompt")) {
                translate(nodes, info, &self.kind.setup.names);
            }
            // There is one ahead of it at most: whose turn it is was decided here.
            body.shift_remove("front");
            body.shift_remove("number");
            body.insert("prompt_id".into(), (&*self.prompt.id).into());
            body.insert("client_id".into(), self.node.sid.as_str().into());
        });
        self.prompt.verdict.send_replace(Some(Verdict::Asked));
        self.report.submitting().await?;
        let request = http::Request::builder()
            .method("POST")
            .uri("/prompt")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Bytes::from(body))
            .map_err(NodeError::from)?;
        let answer = match self.client.send(request).await {
            Ok(answer) => answer,
            Err(error @ (NodeError::Unreachable(_) | NodeError::BadRequest(_))) => {
                return Err(error.into());
            }
            // It may have taken it all the same: its id is ours, so it can be asked.
            Err(error) => return self.did_it_take(error).await.map(|()| None),
        };
        match answer.status() {
            StatusCode::OK => self.taken().await.map(|()| None),
            StatusCode::BAD_REQUEST => {
                let told = String::from_utf8_lossy(answer.body());
                Ok(Some(told.into()))
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Err(RunError::Busy),
            status => {
                let what = format!("it answered {status} to /prompt");
                Err(NodeError::Broken(what).into())
            }
        }
    }

    async fn taken(&mut self) -> Result<(), RunError> {
        self.hears = self.node.is_heard();
        self.report.handle(&self.prompt.id).await?;
        self.prompt.verdict.send_replace(Some(Verdict::Taken));
        Ok(())
    }

    async fn did_it_take(&mut self, error: NodeError) -> Result<(), RunError> {
        let mut tries = 0;
        loop {
            match look(self.client, &self.prompt.id).await {
                Ok(Look::Nowhere) if tries == 0 => {}
                Ok(Look::Nowhere) => return Err(error.into()),
                Ok(_) => return self.taken().await,
                Err(_) if tries < 20 => {}
                Err(_) => {
                    let what = format!("{error}, and it does not say whether it has it");
                    return Err(RunError::Unknown(what));
                }
            }
            tries += 1;
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// The node does not take it. Another may, if this one changed; else it is refused for good.
    async fn refused(&mut self, told: &Arc<str>) -> Result<Done, RunError> {
        let asked = attend::ask(self.kind, self.node, self.client, Duration::ZERO).await;
        if asked.is_ok()
            && let Some(merged) = self.kind.merged()
            && !attend::look_at(self.kind, self.prompt, &merged, self.node)
        {
            return Err(RunError::Busy);
        }
        let verdict = Verdict::Refused(told.clone());
        self.prompt.verdict.send_replace(Some(verdict));
        let said = Json::read(told.as_bytes()).unwrap_or_default();
        let text = |key: &str| {
            let error = said.get("error").and_then(|error| error.get(key)?.text());
            error.unwrap_or_default().to_owned()
        };
        let errors = said.get("node_errors").and_then(Json::object);
        let first = errors.and_then(|errors| errors.first());
        let data = object! {
            "prompt_id": &*self.prompt.id,
            "node_id": first.map_or("", |(id, _)| id.as_str()),
            "node_type": first.and_then(|(_, of)| of.get("class_type")).cloned(),
            "executed": Json::List(Vec::new()),
            "exception_message": format!("{}\n{}", text("message"), text("details")),
            "exception_type": text("type"),
            "traceback": Json::List(Vec::new()),
            "current_inputs": object! {},
            "current_outputs": Json::List(Vec::new()),
            "timestamp": now_ms(),
        };
        self.report.untypical();
        self.report.freed();
        self.last = Some(Frame::new("execution_error", data.clone()));
        self.done(Entry::ended("execution_error", data))
    }

    /// Follows the prompt to its end.
    async fn follow(&mut self) -> Result<Done, RunError> {
        let mut missing = 0;
        let mut unreachable: Option<Instant> = None;
        // A prompt that is taken up again may be over for long.
        let mut ask_at = Instant::now();
        loop {
            let is_heard = self.node.is_heard();
            let is_over = tokio::select! {
                biased;
                () = self.node.falls_silent(), if is_heard => {
                    ask_at = Instant::now();
                    false
                }
                Some(frame) = self.inbox.recv() => {
                    missing = 0;
                    self.take(frame).await?
                }
                () = sleep_until(ask_at) => match look(self.client, &self.prompt.id).await {
                    Ok(Look::Over(entry)) => return self.ended(*entry).await,
                    Ok(Look::There) => {
                        (missing, unreachable) = (0, None);
                        ask_at = self.next_look();
                        false
                    }
                    Ok(Look::Nowhere) => {
                        missing += 1;
                        if self.prompt.was_taken_back() {
                            return self.taken_back();
                        }
                        if missing > 2 {
                            let what = "it was restarted, or somebody took it out of its queue";
                            return Err(RunError::Lost(what.into()));
                        }
                        ask_at = Instant::now() + Duration::from_millis(300);
                        false
                    }
                    Err(error) => {
                        let since = *unreachable.get_or_insert_with(Instant::now);
                        let most = match error {
                            NodeError::Unreachable(_) => GONE,
                            _ => SILENT,
                        };
                        if since.elapsed() >= most {
                            return Err(RunError::Lost(error.to_string()));
                        }
                        ask_at = Instant::now() + Duration::from_millis(500);
                        false
                    }
                }
            };
            if is_over {
                // Its history is complete, or will be in a moment.
                ask_at = Instant::now();
            } else if !self.node.is_heard() {
                ask_at = ask_at.min(Instant::now() + ASK_OFTEN);
            }
        }
    }

    /// It was taken back before the node began with it: the node knows nothing of it any more.
    fn taken_back(&mut self) -> Result<Done, RunError> {
        let data = object! {
            "prompt_id": &*self.prompt.id,
            "node_id": "",
            "node_type": "",
            "executed": Json::List(Vec::new()),
            "timestamp": now_ms(),
        };
        self.done(Entry::ended("execution_interrupted", data))
    }

    fn next_look(&self) -> Instant {
        Instant::now()
            + match self.node.is_heard() && self.last.is_none() {
                true => ASK,
                false => ASK_OFTEN,
            }
    }

    /// One message of the node's. Whether it says that the prompt is over.
    async fn take(&mut self, frame: Frame) -> Result<bool, RunError> {
        self.hears = true;
        match &frame.event {
            // What is said when the history is complete is said by the gateway, when its own is.
            Event::Executing(None) => return Ok(true),
            Event::Success => {
                self.report.freed();
                self.has_word = true;
                self.tell(frame);
                return Ok(false);
            }
            // Another node may have room for it; how long it took says nothing.
            Event::Error | Event::Interrupted => {
                self.report.untypical();
                self.report.freed();
                self.has_word = true;
                self.last = Some(frame);
                return Ok(true);
            }
            Event::Executed => {
                let frame = self.executed(frame).await?;
                self.tell(frame);
            }
            Event::Cached(nodes) => {
                self.note_cached(nodes);
                self.tell(frame);
            }
            Event::ProgressState | Event::Progress(_) => {
                self.tell(frame);
            }
            Event::Status | Event::FeatureFlags | Event::Logs => {}
            _ => self.tell(frame),
        }
        Ok(false)
    }

    /// These nodes of the prompt need not be computed again. Where that is most of the work, the rest says nothing of how long
    /// others take.
    fn note_cached(&self, nodes: &[String]) {
        let Some(stored) = self.prompt.stored() else {
            return;
        };
        let Some(all) = stored.prompt() else { return };
        tracing::debug!(prompt = %self.prompt.id, endpoint = %self.node.name, cached = nodes.len(), of = all.len(),
            "what a node had computed of a prompt");
        let workflow = Workflow::of(all);
        let mut samplers = workflow
            .nodes()
            .iter()
            .filter(|node| node.is_sampler())
            .peekable();
        let is_done = match samplers.peek() {
            Some(_) => samplers.all(|node| nodes.iter().any(|id| id == node.id)),
            None => nodes.len() * 2 > all.len(),
        };
        if is_done && !nodes.is_empty() {
            self.report.untypical();
        }
    }

    /// A node of the prompt has outputs: they are kept before anybody hears of them.
    async fn executed(&mut self, frame: Frame) -> Result<Frame, RunError> {
        let said = frame
            .text()
            .and_then(|text| Json::read(text.as_bytes()).ok());
        let Some(Json::Object(mut said)) = said else {
            return Ok(frame);
        };
        let Some(Json::Object(data)) = said.get_mut("data") else {
            return Ok(frame);
        };
        let node = data.get("node").and_then(Json::text).map(str::to_owned);
        let Some(output) = data.get_mut("output") else {
            return Ok(frame);
        };
        let before = output.clone();
        self.outputs.keep(output).await?;
        let kept = output.clone();
        if let Some(node) = node {
            self.made.insert(node, kept.clone());
        }
        match kept == before {
            true => Ok(frame),
            false => Ok(Frame::read(tabane_api::Message::Text(
                Json::Object(said).to_string(),
            ))),
        }
    }

    fn tell(&self, frame: Frame) {
        if let Some(client) = &self.prompt.label.client {
            self.kind.desk.clients.send(client, frame);
        }
    }

    /// It is over, and this is what the node's history says of it.
    async fn ended(&mut self, mut entry: Entry) -> Result<Done, RunError> {
        if !entry.success {
            self.report.untypical();
        }
        self.report.freed();
        self.hear_out().await?;
        for (node, made) in &mut entry.outputs {
            if let Some(kept) = self.made.get(node) {
                *made = kept.clone();
                continue;
            }
            self.outputs.keep(made).await?;
            // Nobody heard of it, since the node's events did not come.
            let shown = entry.meta.get(node).and_then(|of| of.get("display_node"));
            let data = object! {
                "node": node.as_str(),
                "display_node": shown.cloned().unwrap_or_else(|| node.as_str().into()),
                "output": made.clone(),
                "prompt_id": &*self.prompt.id,
            };
            self.tell(Frame::new("executed", data));
        }
        if let Some(error) = entry.message("execution_error") {
            let text = |key| error.get(key).and_then(Json::text).unwrap_or_default();
            let (kind, message) = (text("exception_type"), text("exception_message"));
            if is_out_of_memory(kind, message) {
                self.node.forgets();
                self.last = None;
                return Err(RunError::OutOfMemory(message.trim().to_owned()));
            }
        }
        let signatures = self.prompt.signatures();
        if entry.success {
            self.node.computed(&signatures);
        }
        self.done(entry)
    }

    /// Hears what the node said before its history was complete; what is on its way yet is waited for, where its events come.
    async fn hear_out(&mut self) -> Result<(), RunError> {
        let until = Instant::now() + LATE;
        while self.hears && !self.has_word && self.node.is_heard() {
            match timeout_at(until, self.inbox.recv()).await {
                Ok(Some(frame)) => self.take(frame).await?,
                _ => break,
            };
        }
        while let Ok(frame) = self.inbox.try_recv() {
            self.take(frame).await?;
        }
        Ok(())
    }

    fn done(&mut self, entry: Entry) -> Result<Done, RunError> {
        let summary = entry.summary();
        let verdict = match summary.status {
            Status::Completed => Judged::Succeeded,
            Status::Failed => Judged::Failed,
            Status::Cancelled => Judged::Canceled,
        };
        let written = entry.written(self.prompt.label.written());
        // Nobody heard the node's word where its events did not come.
        let last = self.last.take().or_else(|| {
            let said = entry.messages.last().filter(|_| !self.has_word)?.list()?;
            match said {
                [Json::Text(event), data] => Some(Frame::new(event, data.clone())),
                _ => None,
            }
        });
        let is_early = matches!(&*self.prompt.verdict.borrow(), Some(Verdict::Refused(_)))
            && self.prompt.is_waited_for();
        if let Some(last) = last.filter(|_| !is_early) {
            self.tell(last);
        }
        self.prompt.ends_with(summary);
        self.is_done = true;
        let mut response = Response::new(one_piece(written.into()));
        let json = http::HeaderValue::from_static("application/json");
        response
            .headers_mut()
            .insert(http::header::CONTENT_TYPE, json);
        Ok(Done { verdict, response })
    }
}

fn is_out_of_memory(kind: &str, message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    kind.ends_with("OutOfMemoryError")
        || message.contains("out of memory")
        || message.contains("allocation on device")
}

/// Now, milliseconds since 1970.
pub fn now_ms() -> Json {
    Json::integer(crate::clock::now_ms())
}
