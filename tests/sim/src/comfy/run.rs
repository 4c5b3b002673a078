//! Executes prompts, one after the other, and tells of it in the order in which the real server does:
//!
//! `execution_start`, `execution_cached`, then for each node `progress_state`, `executing`, whatever it tells of its progress,
//! `executed` if there is something to be shown, `progress_state`; `execution_success`, `_error` or `_interrupted`; then the
//! entry in the history is written, `status` goes to everybody, and `executing` without a node ends it.

use super::cache::{Cache, Made};
use super::hub::{Preview, event, plain_preview, progress_text, told_preview};
use super::json::{Json, Object, object};
use super::library::Class;
use super::order::{Order, class_of, inputs_of};
use super::queue::{Ended, Item};
use super::seen::Saw;
use super::server::{Load, Next, Server};
use super::spec::Model;
use super::value::Value;
use super::work;
use indexmap::IndexMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// A prompt that is being executed.
pub(crate) struct Run<'a> {
    pub(crate) server: &'a Server,
    pub(crate) item: &'a Item,
    /// Which object of its class the node is that is executed now.
    pub(crate) object: u64,
    client: Option<&'a str>,
    progress: IndexMap<String, Progress>,
    messages: Vec<Json>,
    executed: Vec<String>,
}

struct Progress {
    value: Json,
    max: Json,
    state: &'static str,
}

/// Why a node came to nothing.
pub(crate) enum Stop {
    Interrupted,
    Failed { kind: String, message: String },
    OutOfMemory,
}

/// Executes whatever comes, for as long as the process lives.
pub(crate) async fn run(server: Arc<Server>) {
    let mut cache = Cache::default();
    loop {
        match server.next().await {
            Next::Free { forget: true } => cache.clear(),
            Next::Free { forget: false } => {}
            Next::Execute(item) => {
                let client = item.client().map(str::to_owned);
                server.now.lock().client = client.clone();
                if let Some(gpu) = &server.on_gpu {
                    gpu.begin();
                }
                let ended = Run::of(&server, &item).execute(&mut cache).await;
                if let Some(gpu) = &server.on_gpu {
                    gpu.end();
                }
                server.now.lock().node = None;
                let lag = server.knobs().history_lag_ms;
                if lag > 0 {
                    sleep(Duration::from_millis(lag)).await;
                }
                server.queue.lock().done(ended);
                server.queue_updated();
                if client.is_some() {
                    let end = object! {"node": Json::Null, "prompt_id": item.prompt_id.as_str()};
                    server.send(&event("executing", end), client.as_deref());
                }
            }
        }
    }
}

// === impl Run ===

impl<'a> Run<'a> {
    fn of(server: &'a Server, item: &'a Item) -> Self {
        Run {
            server,
            item,
            object: 0,
            client: item.client(),
            progress: IndexMap::new(),
            messages: Vec::new(),
            executed: Vec::new(),
        }
    }

    async fn execute(mut self, cache: &mut Cache) -> Ended {
        let Server {
            library,
            spec,
            disk,
            ..
        } = self.server;
        let prompt = &self.item.prompt;
        self.message("execution_start", object! {"prompt_id": self.id()}, false);
        cache.begin(
            prompt,
            library,
            disk,
            spec.version.keeps_more_than_one_prompt(),
        );
        let cached = prompt.keys().filter(|node| cache.get(node).is_some());
        let cached: Vec<String> = cached.cloned().collect();
        self.server.record.note(Saw::Started {
            prompt_id: self.item.prompt_id.clone(),
            cached: cached.clone(),
        });
        let nodes: Json = cached.into_iter().collect();
        self.message(
            "execution_cached",
            object! {"nodes": nodes, "prompt_id": self.id()},
            false,
        );
        let mut order = Order::of(prompt, library, &self.item.outputs, |node| {
            cache.get(node).is_some()
        });
        let end = loop {
            let Some(node) = order.next() else {
                break match order.stuck() {
                    Some(stuck) => self.stuck(stuck),
                    None => ("execution_success", object! {"prompt_id": self.id()}),
                };
            };
            let Some(class) = class_of(prompt, &node, library) else {
                order.done(&node);
                continue;
            };
            let inputs = self.inputs(&node, cache);
            match self.node(&node, class, &inputs, cache).await {
                Ok(()) => order.done(&node),
                Err(stop) => break self.stopped(&node, stop, &inputs),
            }
        };
        self.end(end, cache)
    }

    fn end(mut self, (how, data): (&'static str, Json), cache: &Cache) -> Ended {
        self.message(how, data, how == "execution_interrupted");
        self.server.record.note(Saw::Ended {
            prompt_id: self.item.prompt_id.clone(),
            how: how.to_owned(),
        });
        let shown = self.item.prompt.keys().filter_map(|node| {
            let (output, meta) = cache.get(node)?.shown.clone()?;
            Some((node.clone(), output, meta))
        });
        let (mut outputs, mut metas) = (Object::new(), Object::new());
        for (node, output, meta) in shown {
            outputs.insert(node.clone(), output);
            metas.insert(node, meta);
        }
        Ended {
            success: how == "execution_success",
            messages: self.messages,
            outputs,
            meta: metas,
        }
    }

    async fn node(
        &mut self,
        node: &str,
        class: &Class,
        inputs: &IndexMap<String, Value>,
        cache: &mut Cache,
    ) -> Result<(), Stop> {
        if let Some(made) = cache.get(node) {
            // Only an output is here although it is cached: it is shown again.
            let shown = made.shown.as_ref().map(|(output, _)| output.clone());
            self.shown(node, shown.into());
            self.finish(node);
            return Ok(());
        }
        let running = Progress {
            value: 0.0.into(),
            max: 1.0.into(),
            state: "running",
        };
        self.progress.insert(node.to_owned(), running);
        self.tell_progress();
        if self.client.is_some() {
            self.server.now.lock().node = Some(node.to_owned());
            let data = object! {"node": node, "display_node": node, "prompt_id": self.id()};
            self.tell("executing", data);
        }
        if self.server.knobs().texts {
            self.server
                .send(&progress_text(node, &format!("{node} works")), None);
        }
        self.object = cache.object(node, &class.works_as);
        self.misbehave(node).await?;
        self.pause(self.server.knobs().node_time(&class.works_as))
            .await?;
        let (values, output) = work::work(self, node, class, inputs).await?;
        let meta = object! {
            "node_id": node,
            "display_node": node,
            "parent_node": Json::Null,
            "real_node_id": node,
        };
        if let Some(output) = &output {
            self.shown(node, output.clone());
        }
        let made = Made {
            values,
            shown: output.map(|output| (output, meta)),
        };
        cache.set(node, made);
        self.finish(node);
        self.executed.push(node.to_owned());
        Ok(())
    }

    /// Does what the knobs say of this class.
    async fn misbehave(&self, node: &str) -> Result<(), Stop> {
        let knobs = self.server.knobs();
        let class = self.item.prompt[node]
            .get("class_type")
            .and_then(Json::text);
        let at = |named: &Option<String>| named.is_some() && named.as_deref() == class;
        if at(&knobs.crash_at) {
            self.server.kill();
            std::future::pending::<()>().await;
        }
        if at(&knobs.hang_at) {
            self.server.until_knobs(|knobs| !at(&knobs.hang_at)).await;
        }
        if at(&knobs.out_of_memory_at) {
            return Err(Stop::OutOfMemory);
        }
        if at(&knobs.fail_at) {
            return Err(Stop::failed("RuntimeError", "failing as the knobs say"));
        }
        Ok(())
    }

    /// Lets time go by, unless it is interrupted.
    pub(crate) async fn pause(&self, time: Duration) -> Result<(), Stop> {
        let mut interrupted = self.server.interrupted.subscribe();
        let was = *interrupted.borrow_and_update();
        if was {
            return Err(Stop::Interrupted);
        }
        if time.is_zero() {
            return Ok(());
        }
        tokio::select! {
            () = sleep(time) => Ok(()),
            _ = interrupted.wait_for(|is| *is) => Err(Stop::Interrupted),
        }
    }

    /// Has a model in the card's memory, which takes its time if it was not there.
    pub(crate) async fn load(&self, model: &Model) -> Result<(), Stop> {
        match self.server.load(model) {
            Load::IsThere => Ok(()),
            Load::Loads => self.pause(self.server.knobs().load_time(model.mib)).await,
            Load::OutOfMemory => Err(Stop::OutOfMemory),
        }
    }

    /// Tells how far a node is, with or without something to be seen. Who negotiated it gets the picture with what it belongs to,
    /// and before the event; others after it.
    pub(crate) fn step(&mut self, node: &str, value: Json, max: Json, preview: Option<&Preview>) {
        let data = object! {
            "value": value.clone(),
            "max": max.clone(),
            "prompt_id": self.id(),
            "node": node,
        };
        let running = Progress {
            value,
            max,
            state: "running",
        };
        self.progress.insert(node.to_owned(), running);
        self.tell_progress();
        let with_metadata = self.server.hub.wants_metadata(self.client);
        if let Some(preview) = preview
            && with_metadata
        {
            self.server
                .send(&told_preview(preview, node, self.id()), self.client);
        }
        self.tell("progress", data);
        if let Some(preview) = preview
            && !with_metadata
        {
            self.server.send(&plain_preview(preview), self.client);
        }
    }

    /// The values that a node works with.
    fn inputs(&self, node: &str, cache: &Cache) -> IndexMap<String, Value> {
        let inputs = inputs_of(&self.item.prompt, node);
        inputs
            .filter_map(|(name, value)| {
                let value = match value.link() {
                    Some((from, slot)) => cache.get(from)?.values.get(slot)?.clone(),
                    None => Value::Plain(value.clone()),
                };
                Some((name.clone(), value))
            })
            .collect()
    }

    fn id(&self) -> &'a str {
        &self.item.prompt_id
    }

    /// To the client of this prompt; to everybody, if it has none.
    fn tell(&self, kind: &str, data: Json) {
        self.server.send(&event(kind, data), self.client);
    }

    /// Tells and remembers. What is not for everybody is told to nobody where there is no client.
    fn message(&mut self, kind: &str, data: Json, for_everybody: bool) {
        let mut data = data;
        if let Json::Object(data) = &mut data {
            data.insert("timestamp".into(), self.server.clock().into());
        }
        self.messages
            .push(Json::List(vec![kind.into(), data.clone()]));
        if self.client.is_some() || for_everybody {
            self.tell(kind, data);
        }
    }

    fn shown(&self, node: &str, output: Json) {
        if self.client.is_some() {
            let data = object! {
                "node": node,
                "display_node": node,
                "output": output,
                "prompt_id": self.id(),
            };
            self.tell("executed", data);
        }
    }

    fn finish(&mut self, node: &str) {
        let finished = self.progress.entry(node.to_owned()).or_insert(Progress {
            value: 0_i64.into(),
            max: 1_i64.into(),
            state: "pending",
        });
        finished.value = finished.max.clone();
        finished.state = "finished";
        self.tell_progress();
    }

    fn tell_progress(&self) {
        if !self.server.spec.version.tells_progress_state() {
            return;
        }
        let nodes = self.progress.iter().map(|(node, progress)| {
            let told = object! {
                "value": progress.value.clone(),
                "max": progress.max.clone(),
                "state": progress.state,
                "node_id": node.as_str(),
                "prompt_id": self.id(),
                "display_node_id": node.as_str(),
                "parent_node_id": Json::Null,
                "real_node_id": node.as_str(),
            };
            (node.clone(), told)
        });
        let nodes: Object = nodes.collect();
        self.tell(
            "progress_state",
            object! {"prompt_id": self.id(), "nodes": nodes},
        );
    }

    fn stuck(&self, node: &str) -> (&'static str, Json) {
        let failed = Stop::failed("graph.DependencyCycleError", "Dependency cycle detected");
        self.stopped(node, failed, &IndexMap::new())
    }

    fn stopped(
        &self,
        node: &str,
        stop: Stop,
        inputs: &IndexMap<String, Value>,
    ) -> (&'static str, Json) {
        let prompt = &self.item.prompt;
        let mut data = Object::new();
        data.insert("prompt_id".into(), self.id().into());
        data.insert("node_id".into(), node.into());
        data.insert(
            "node_type".into(),
            prompt[node].get("class_type").cloned().into(),
        );
        data.insert(
            "executed".into(),
            self.executed.iter().map(String::as_str).collect(),
        );
        let (kind, message, tips) = match stop {
            Stop::Interrupted => return ("execution_interrupted", data.into()),
            Stop::Failed { kind, message } => (kind, message, ""),
            Stop::OutOfMemory => {
                self.server.unload();
                let tips = "This error means you ran out of memory on your GPU.\n\nTIPS: If the workflow worked before you might have accidentally set the batch_size to a large number.";
                let message = "Allocation on device 0 would exceed allowed memory. (out of memory)";
                ("torch.OutOfMemoryError".into(), message.into(), tips)
            }
        };
        let inputs: Object = inputs
            .iter()
            .map(|(name, value)| (name.clone(), Json::List(vec![value.told()])))
            .collect();
        data.insert(
            "exception_message".into(),
            format!("{message}\n{tips}").into(),
        );
        data.insert("exception_type".into(), kind.into());
        let traceback = "  File \"/opt/ComfyUI/execution.py\", in execute\n";
        data.insert("traceback".into(), Json::List(vec![traceback.into()]));
        data.insert("current_inputs".into(), inputs.into());
        data.insert(
            "current_outputs".into(),
            prompt.keys().map(String::as_str).collect(),
        );
        ("execution_error", data.into())
    }
}

// === impl Stop ===

impl Stop {
    pub(crate) fn failed(kind: &str, message: &str) -> Self {
        Stop::Failed {
            kind: kind.into(),
            message: message.into(),
        }
    }
}
