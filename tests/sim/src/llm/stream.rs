//! From a request for text to its answer: whatever can go wrong, the model, a place in its batch, and then token by token.

use super::ask::{Api, Work};
use super::batch::Wrote;
use super::fault::Fault;
use super::knobs::LlmKnobs;
use super::reply::{self, Reply};
use super::runner::Ticket;
use super::seen::{End, Line};
use super::server::Server;
use super::shelf::Hold;
use super::spec::Engine;
use super::token::{Seed, Token, number};
use super::voice::{Finish, Telling, Voice, voice};
use bytes::Bytes;
use futures::stream;
use http::{StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// An answer that is being written.
struct Writing {
    server: Arc<Server>,
    line: Line,
    voice: Box<dyn Voice>,
    telling: Telling,
    /// Its tokens, as text.
    pieces: Vec<String>,
    ticket: Ticket,
    /// The model stays as long as it is written to.
    _hold: Hold,
    /// What was said and not sent yet.
    said: VecDeque<String>,
    state: Progress,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    GoesOn,
    /// Everything was said.
    Ended(End),
    /// The connection is to be dropped.
    Drops,
}

/// Answers a request for text. An error drops its connection.
pub(crate) async fn answer(server: &Arc<Server>, mut line: Line, work: Work) -> io::Result<Reply> {
    let engine = server.spec.engine;
    line.note(|asked| {
        asked.model = work.named.clone();
        // A request that only loads a model is work, too.
        asked.prompt_tokens = work.prompt.len().max(1);
    });
    let knobs = server.knobs();
    if knobs.answer_ms > 0 {
        sleep(Duration::from_millis(knobs.answer_ms)).await;
    }
    if knobs.drop_after == Some(0) {
        line.end(End::Broken);
        return Err(io::Error::other("dropped as the knobs say"));
    }
    let api = work.api;
    let stream = work.stream;
    let writing = match begin(server, line, work).await {
        Ok(writing) => writing,
        Err(Early::Reply(reply)) => return Ok(*reply),
        Err(Early::Fault(fault, mut line)) => {
            let mut reply = fault.reply(engine, Some(api));
            if let (Fault::Busy | Fault::Status(_), Some(after)) =
                (&fault, &server.knobs().retry_after)
            {
                reply::set(&mut reply, header::RETRY_AFTER, after);
            }
            line.end(End::Answered(reply.status().as_u16()));
            return Ok(reply);
        }
    };
    if stream {
        streamed(writing).await
    } else {
        whole(writing).await
    }
}

/// Why nothing is written.
enum Early {
    Reply(Box<Reply>),
    Fault(Fault, Line),
}

async fn begin(server: &Arc<Server>, line: Line, work: Work) -> Result<Writing, Early> {
    let spec = &server.spec;
    let knobs = server.knobs();
    if let Some(status) = server.fails() {
        return Err(Early::Fault(Fault::Status(status), line));
    }
    let Some(model) = spec.find(work.named.as_deref()) else {
        return Err(Early::Fault(server.no_model(work.named), line));
    };
    let fault = |fault, line| Err(Early::Fault(fault, line));
    if spec.models[model].embeds {
        return fault(
            Fault::Cannot(
                "This server does not support completions. Start it without `--embeddings`",
            ),
            line,
        );
    }
    if work.only_loads && work.keep_s == Some(0) {
        server.shelf.expire(model);
        let reply = loaded(server, line, &work, model, "unload");
        return Err(Early::Reply(Box::new(reply)));
    }
    let Ok(hold) = server.shelf.take(model, work.keep_s).await else {
        return fault(Fault::Busy, line);
    };
    if work.only_loads {
        let reply = loaded(server, line, &work, model, "load");
        return Err(Early::Reply(Box::new(reply)));
    }
    let answer = match answer_of(server, model, &work) {
        Ok(answer) => answer,
        Err(why) => return fault(why, line),
    };
    let runner = &server.runners[model];
    if knobs.queue_limit.is_some_and(|limit| {
        runner.look(|batch| batch.waiting()) >= limit && !runner.look(|batch| batch.has_room())
    }) {
        return fault(Fault::Busy, line);
    }
    let Some(voice) = voice(spec.engine, work.api) else {
        return fault(Fault::NoPath, line);
    };
    let tokens: Vec<Token> = answer.pieces.iter().map(|piece| number(piece)).collect();
    let telling = Telling {
        id: server.id(),
        created: server.created(),
        model: server.model_name(model, work.named.as_deref()),
        prompt: answer.prompt.len(),
        most: work.most,
        finish: answer.finish,
        tool: answer.tool,
        usage: work.usage,
        usage_always: work.usage_always,
        tells_hits: spec.tells_hits,
        load: hold.waited,
        ..Telling::default()
    };
    line.note(|asked| asked.prompt_tokens = telling.prompt);
    Ok(Writing {
        ticket: runner.put(answer.prompt, tokens),
        server: server.clone(),
        line,
        voice,
        telling,
        pieces: answer.pieces,
        _hold: hold,
        said: VecDeque::new(),
        state: Progress::GoesOn,
    })
}

/// What is going to be written.
struct Answer {
    prompt: Vec<Token>,
    pieces: Vec<String>,
    finish: Finish,
    tool: Option<String>,
}

fn answer_of(server: &Server, model: usize, work: &Work) -> Result<Answer, Fault> {
    let knobs = server.knobs();
    let spec = &server.spec;
    let context = spec.models[model]
        .context
        .min(server.runners[model].look(|batch| batch.room()));
    let mut prompt = work.prompt.clone();
    match spec.engine {
        Engine::Vllm if work.most.is_some_and(|most| most > context) => {
            let key = if work.api == Api::Responses {
                "max_output_tokens"
            } else {
                "max_tokens"
            };
            return Err(Fault::TooMany(key, work.most.unwrap_or(0), context));
        }
        Engine::Vllm | Engine::LlamaCpp if prompt.len() >= context => {
            return Err(Fault::TooLong(prompt.len(), context));
        }
        // The beginning is left out.
        Engine::Ollama if prompt.len() >= context => {
            prompt.drain(..prompt.len() - context / 2);
        }
        _ => {}
    }
    let seed = Seed::of(&spec.models[model].name, &prompt);
    let drawn = seed.length(knobs.answer_tokens.max(1.0));
    let wished = match work.most {
        Some(most) if knobs.stops_early && !work.to_the_end => drawn.min(most),
        Some(most) => most,
        None => drawn,
    };
    let length = wished.min(context - prompt.len()).max(1);
    let tool = work.tool.clone().filter(|_| knobs.calls_tools);
    let complete = length == drawn
        && work
            .most
            .is_none_or(|most| knobs.stops_early && drawn <= most);
    let finish = match &tool {
        // As vLLM says it of a call that it was told to make.
        Some(_) if work.tool_forced && spec.engine == Engine::Vllm && work.api == Api::Chat => {
            Finish::Stop
        }
        Some(_) => Finish::Call,
        None if complete => Finish::Stop,
        None => Finish::Length,
    };
    let mut pieces: Vec<String> = (0..length)
        .map(|at| format!("{}{}", if at > 0 { " " } else { "" }, seed.word(at)))
        .collect();
    if tool.is_some() {
        if let Some(first) = pieces.first_mut() {
            first.insert_str(0, "{\"text\":\"");
        }
        if let Some(last) = pieces.last_mut() {
            last.push_str("\"}");
        }
    }
    Ok(Answer {
        prompt,
        pieces,
        finish,
        tool,
    })
}

/// Ollama's answer when there is nothing to write.
fn loaded(server: &Server, mut line: Line, work: &Work, model: usize, how: &str) -> Reply {
    let body = server.loaded(
        work.api,
        &server.model_name(model, work.named.as_deref()),
        how,
    );
    line.end(End::Answered(200));
    reply::json(server.spec.engine, 200, &body)
}

/// An answer in pieces. llama.cpp and Ollama say nothing at all before the first one, vLLM says at once that it is going to.
async fn streamed(mut writing: Writing) -> io::Result<Reply> {
    if writing.server.spec.engine != Engine::Vllm {
        match writing.step().await {
            Step::Fails(status) => return Ok(writing.failed(status)),
            Step::Drops => return Err(io::Error::other("dropped as the knobs say")),
            Step::Goes => {}
        }
    }
    let kind = writing.voice.kind();
    let sent = stream::unfold(writing, |mut writing| async move {
        let frame = writing.send().await?;
        Some((frame.map(Frame::data), writing))
    });
    let mut reply = reply::with(StatusCode::OK, kind, Bytes::new());
    *reply.body_mut() = StreamBody::new(sent).boxed_unsync();
    Ok(reply)
}

async fn whole(mut writing: Writing) -> io::Result<Reply> {
    while writing.state == Progress::GoesOn {
        match writing.step().await {
            Step::Goes => {}
            Step::Drops => return Err(io::Error::other("dropped as the knobs say")),
            Step::Fails(status) => return Ok(writing.failed(status)),
        }
        writing.said.clear();
    }
    if writing.state != Progress::Ended(End::Answered(200)) {
        return Ok(writing.failed(500));
    }
    writing.line.end(End::Answered(200));
    let (kind, body) = (
        writing.voice.whole_kind(),
        writing.voice.whole(&writing.telling),
    );
    Ok(reply::with(StatusCode::OK, kind, body))
}

/// What became of one token.
enum Step {
    Goes,
    Drops,
    Fails(u16),
}

// === impl Writing ===

impl Writing {
    /// Waits for a token, and says it; or what the knobs want instead.
    async fn step(&mut self) -> Step {
        let written = self.telling.written;
        let is = |limit: Option<usize>| limit.is_some_and(|limit| written >= limit);
        let stalls = |knobs: &LlmKnobs| is(knobs.stall_after);
        if stalls(&self.server.knobs()) {
            self.server.until_knobs(|knobs| !stalls(knobs)).await;
        }
        let knobs = self.server.knobs();
        if is(knobs.drop_after) {
            self.state = Progress::Drops;
            self.line.end(End::Broken);
            return Step::Drops;
        }
        if is(knobs.error_after) {
            if written == 0 && self.server.spec.engine != Engine::Vllm {
                return Step::Fails(500);
            }
            self.said
                .extend(self.voice.broken("failing as the knobs say"));
            self.state = Progress::Ended(End::Broken);
            return Step::Goes;
        }
        match self.ticket.next().await {
            Some(wrote) => self.say(wrote),
            // The engine forgot it: nothing more will come.
            None => {
                self.state = Progress::Drops;
                return Step::Drops;
            }
        }
        Step::Goes
    }

    fn say(&mut self, wrote: Wrote) {
        let piece = self.pieces.get(wrote.at).map_or("", String::as_str);
        let telling = &mut self.telling;
        telling.written = wrote.at + 1;
        telling.hit = wrote.hit;
        telling.slot = wrote.slot;
        telling.times = wrote.times;
        telling.text.push_str(piece);
        self.said
            .extend(self.voice.piece(telling, piece, wrote.last));
        if wrote.last {
            self.said.extend(self.voice.end(telling));
            self.state = Progress::Ended(End::Answered(200));
        }
        self.line.note(|asked| {
            asked.hit_tokens = Some(wrote.hit);
            asked.answer_tokens = wrote.at + 1;
        });
    }

    /// The next part of a stream. `None`: it is over.
    async fn send(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            if let Some(said) = self.said.pop_front() {
                return Some(Ok(said.into()));
            }
            match self.state {
                Progress::GoesOn => {
                    self.step().await;
                }
                Progress::Ended(end) => {
                    self.line.end(end);
                    return None;
                }
                Progress::Drops => {
                    // What was said before is sent first.
                    tokio::task::yield_now().await;
                    return Some(Err(io::Error::other("dropped as the knobs say")));
                }
            }
        }
    }

    fn failed(&mut self, status: u16) -> Reply {
        self.line.end(End::Answered(status));
        Fault::Status(status).reply(self.server.spec.engine, None)
    }
}
