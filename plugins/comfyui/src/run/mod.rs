//! One attempt at a prompt on a node: its inputs are brought there, it is handed over, what the node says of it goes to its
//! client, and what it made is kept.
//!
//! The node's events say how soon; the node's history says what is true. Where no events come it is asked, and what they would
//! have told is told by the history. Nothing is run again before it is sure that the node has it no more: it refuses
//! connections, so that its process is gone; it answers and does not know it; or it was silent for long. In the last case it
//! may be at it all the same, and ends it as a stray when it comes back (`strays`).
//!
//! - `heard`: what the node says. `over`: what follows when it is over.

mod heard;
mod over;

use crate::attend;
use crate::ending;
use crate::entry::Entry;
use crate::farm::Node;
use crate::frames::Frame;
use crate::inputs;
use crate::json::{Json, Object, object};
use crate::kind::Comfyui;
use crate::ledger::{Phase, Prompt, Verdict};
use crate::lookup::{self, ARRIVES, Look, STOPS, look};
use crate::outputs::Outputs;
use crate::stored::Stored;
use crate::translate::translate;
use bytes::Bytes;
use http::StatusCode;
use std::sync::Arc;
use std::time::Duration;
use tabane_api::{Attempt, Done, NodeClient, NodeError, Report, RunError};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

/// How often a node is asked about a prompt: where its events come; where none came of late; and where its socket is not open,
/// or the prompt's end is near.
const ASK: Duration = Duration::from_secs(5);
const ASK_SOMETIMES: Duration = Duration::from_secs(2);
const ASK_OFTEN: Duration = Duration::from_secs(1);

/// How long nothing comes until it is asked more often: one step of a sampler takes as long on a slow card.
const QUIET: Duration = Duration::from_secs(4);

/// How long nothing comes until the socket is opened anew, to be sure that it is not deaf.
const DEAF: Duration = Duration::from_secs(20);

/// How long a node may refuse connections until what it had is taken for lost: its process is gone.
const GONE: Duration = Duration::from_secs(4);

/// How long it may be silent: it may come back, and still be at it.
const SILENT: Duration = Duration::from_secs(60);

/// How long it may say that it does not know a prompt that it took: it was restarted, or somebody took it out of its queue.
const UNKNOWN: Duration = Duration::from_millis(600);

/// How long it may take to say where it is with a prompt: what it tells meanwhile waits to be read.
const LOOK: Duration = Duration::from_secs(5);

/// How long until a node that gave no good answer is asked again.
const AGAIN: Duration = Duration::from_millis(300);

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
    let left = || RunError::Lost("its node has left the pool".into());
    let node = kind.node_named(client.name()).ok_or_else(left)?;
    for before in prompt.goes_to(node.id) {
        if before != node.id {
            ending::strays(kind, &prompt, before);
        }
    }
    node.strays.remove(&prompt.id).await;

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
        is_taken: attempt.handle.is_some(),
        stopping: None,
        word: None,
        is_done: false,
    };
    match on_node.attempt(attempt, &stored).await {
        // Whoever took it back does not want it to be tried again.
        Err(error) if prompt.was_taken_back() && !matches!(error, RunError::Superseded) => {
            on_node.interrupted()
        }
        came => came,
    }
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
    /// By node of the prompt: what it made, with the names that it has here, as its client was told.
    made: Object,
    /// The node's events came when it was handed over, or some did since.
    hears: bool,
    /// The node has it, or had it.
    is_taken: bool,
    /// Since when it is known that somebody took it back.
    stopping: Option<Instant>,
    /// How it ended, as the node said it. It is told when that is on disk.
    word: Option<Frame>,
    /// It is over, and that is being written.
    is_done: bool,
}

/// What came of handing a prompt over.
enum Handed {
    /// The node took it.
    Taken,
    /// It did not say so. It may have, all the same.
    Unsure,
    /// It said no, and why.
    Refused(Arc<str>),
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
    async fn attempt(&mut self, attempt: &Attempt, stored: &Stored) -> Result<Done, RunError> {
        if attempt.handle.is_some() {
            return self.follow().await;
        }
        // An attempt of before may have ended because the node went silent.
        if attempt.number > 1 && self.has_it_still().await {
            self.is_called().await?;
            return self.follow().await;
        }
        match self.hand_over(stored).await? {
            Handed::Taken => self.takes_it(),
            Handed::Unsure => {}
            Handed::Refused(told) => return self.refused(&told).await,
        }
        self.follow().await
    }

    /// Whether the node is at it, or has made it, without having been asked now.
    async fn has_it_still(&self) -> bool {
        match look(self.client, &self.prompt.id).await {
            Ok(Look::There) => true,
            Ok(Look::Over(entry)) => entry.success,
            Ok(Look::Nowhere) | Err(_) => false,
        }
    }

    async fn hand_over(&mut self, stored: &Stored) -> Result<Handed, RunError> {
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
            body.insert("client_id".into(), (&*self.node.sid).into());
        });
        self.prompt.verdict.send_replace(Some(Verdict::Asked));
        self.report.submitting().await?;
        // From here on, whoever takes it back finds it on the node, or is found by the look that follows.
        if self.prompt.was_taken_back() {
            return Err(RunError::Busy);
        }
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
            Err(error) => {
                tracing::debug!(prompt = %self.prompt.id, endpoint = %self.node.name, %error, "a node does not say whether it took a prompt");
                self.is_called().await?;
                return Ok(Handed::Unsure);
            }
        };
        match answer.status() {
            StatusCode::OK => {
                self.is_called().await?;
                Ok(Handed::Taken)
            }
            StatusCode::BAD_REQUEST => {
                let told = String::from_utf8_lossy(answer.body());
                Ok(Handed::Refused(told.into()))
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Err(RunError::Busy),
            status => {
                let what = format!("it answered {status} to /prompt");
                Err(NodeError::Broken(what).into())
            }
        }
    }

    /// From here on a gateway that comes back takes it up by its id.
    async fn is_called(&mut self) -> Result<(), RunError> {
        self.hears = self.node.line.is_open();
        let called = self.report.handle(&self.prompt.id).await;
        if called.is_err() {
            // Nobody follows it: it must not go on for nothing.
            let _ = lookup::interrupt(Some(self.node), self.client, &self.prompt.id).await;
        }
        Ok(called?)
    }

    fn takes_it(&mut self) {
        self.is_taken = true;
        self.prompt.verdict.send_replace(Some(Verdict::Taken));
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
        self.prompt.is_off(self.node.id);
        self.report.untypical();
        self.freed();
        self.done(Entry::ended("execution_error", data))
    }

    /// Follows the prompt to its end.
    async fn follow(&mut self) -> Result<Done, RunError> {
        let mut unknown: Option<Instant> = None;
        let mut unreachable: Option<Instant> = None;
        // A prompt that is taken up again may be over for long.
        let mut ask_at = Instant::now();
        loop {
            let is_open = self.node.line.is_open();
            let is_over = tokio::select! {
                biased;
                () = self.node.line.ends(), if is_open => true,
                () = self.prompt.is_taken_back(), if self.stopping.is_none() => {
                    self.stopping = Some(Instant::now());
                    true
                }
                Some(frame) = self.inbox.recv() => {
                    unknown = None;
                    self.hear(frame).await
                }
                () = sleep_until(ask_at) => {
                    ask_at = match self.look().await {
                        Ok(Look::Over(entry)) => return self.ended(*entry).await,
                        Ok(Look::There) => {
                            (unknown, unreachable) = (None, None);
                            self.is_at_it().await;
                            Instant::now() + self.until_next_look()
                        }
                        Ok(Look::Nowhere) => {
                            unreachable = None;
                            let since = *unknown.get_or_insert_with(Instant::now);
                            if since.elapsed() >= self.until_unknown() {
                                return self.is_gone();
                            }
                            Instant::now() + AGAIN
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
                            Instant::now() + AGAIN
                        }
                    };
                    false
                }
            };
            if is_over {
                // Its history is complete, or will be in a moment; or the node has to be asked whether it is.
                ask_at = Instant::now();
            } else {
                ask_at = ask_at.min(Instant::now() + self.until_next_look());
            }
        }
    }

    async fn look(&self) -> Result<Look, NodeError> {
        let looked = timeout(LOOK, look(self.client, &self.prompt.id));
        looked.await.unwrap_or(Err(NodeError::Timeout))
    }

    /// The node says that it has it.
    async fn is_at_it(&mut self) {
        if !self.is_taken {
            self.takes_it();
        }
        if let Some(since) = self.stopping {
            // An interrupt that came as it was between two states hit nothing.
            let told = lookup::interrupt(Some(self.node), self.client, &self.prompt.id).await;
            if let Err(error) = told {
                tracing::debug!(prompt = %self.prompt.id, endpoint = %self.node.name, %error, "a node cannot be told to interrupt a prompt");
            }
            if since.elapsed() >= STOPS {
                self.give_up();
            }
        }
        if self.node.line.is_open() && self.node.line.quiet_for() >= DEAF {
            self.node.line.open_anew();
        }
    }

    /// It was taken back and its node does not let go of it: it ends without its word.
    fn give_up(&self) {
        let (Some(host), Some(job)) = (self.kind.desk.host.get().cloned(), self.prompt.job())
        else {
            return;
        };
        // This attempt ends with it.
        tokio::spawn(async move {
            if let Err(error) = host.cancel(&job).await {
                tracing::warn!(%job, %error, "a prompt that its node does not let go of cannot be taken back");
            }
        });
    }

    /// The node answers, and does not know it.
    fn is_gone(&mut self) -> Result<Done, RunError> {
        self.prompt.is_off(self.node.id);
        let what = match self.is_taken {
            true => "it was restarted, or somebody took it out of its queue",
            false => "it broke off as it was handed it, and did not take it",
        };
        Err(RunError::Lost(what.into()))
    }

    /// How long it has to be unknown to a node until that has it no more.
    fn until_unknown(&self) -> Duration {
        match self.is_taken {
            true => UNKNOWN,
            false => ARRIVES,
        }
    }

    fn until_next_look(&self) -> Duration {
        let line = &self.node.line;
        if !line.is_open() || self.word.is_some() || self.stopping.is_some() {
            return ASK_OFTEN;
        }
        match self.hears && line.quiet_for() < QUIET {
            true => ASK,
            false => ASK_SOMETIMES,
        }
    }
}

/// Now, milliseconds since 1970.
pub fn now_ms() -> Json {
    Json::integer(crate::clock::now_ms())
}
