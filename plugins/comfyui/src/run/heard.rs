//! What a node says of a prompt while it runs.

use super::OnNode;
use crate::frames::{Event, Frame};
use crate::json::Json;
use crate::workflow::Workflow;

impl OnNode<'_> {
    /// One message of the node's. Whether it says that the prompt is over.
    pub(super) async fn hear(&mut self, frame: Frame) -> bool {
        self.hears = true;
        match &frame.event {
            // What is said when the history is complete is said by the gateway, when its own is.
            Event::Executing(None) => return true,
            Event::Success => {
                self.freed();
                self.word = Some(frame);
            }
            // Another node may have room for it; how long it took says nothing.
            Event::Error | Event::Interrupted => {
                self.report.untypical();
                self.freed();
                self.word = Some(frame);
                return true;
            }
            Event::Executed => self.executed(frame).await,
            Event::Cached(nodes) => {
                self.note_cached(nodes);
                self.tell(frame);
            }
            Event::Status | Event::FeatureFlags | Event::Logs => {}
            _ => self.tell(frame),
        }
        false
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

    /// A node of the prompt has outputs: they are kept before anybody hears of them. What cannot be kept now is tried again when
    /// the prompt is over, and told then.
    async fn executed(&mut self, frame: Frame) {
        let said = frame
            .text()
            .and_then(|text| Json::read(text.as_bytes()).ok());
        let Some(Json::Object(mut said)) = said else {
            return self.tell(frame);
        };
        let Some(Json::Object(data)) = said.get_mut("data") else {
            return self.tell(frame);
        };
        let node = data.get("node").and_then(Json::text).map(str::to_owned);
        let (Some(node), Some(output)) = (node, data.get_mut("output")) else {
            return self.tell(frame);
        };
        let mut kept = output.clone();
        if let Err(error) = self.outputs.keep(&mut kept).await {
            tracing::debug!(prompt = %self.prompt.id, endpoint = %self.node.name, %error, "outputs cannot be kept now");
            return;
        }
        self.made.insert(node, kept.clone());
        if kept == *output {
            return self.tell(frame);
        }
        *output = kept;
        let said = Json::Object(said).to_string();
        self.tell(Frame::read(tabane_api::Message::Text(said)));
    }

    pub(super) fn tell(&self, frame: Frame) {
        if let Some(client) = &self.prompt.label.client {
            self.kind.desk.clients.send(client, frame);
        }
    }
}
