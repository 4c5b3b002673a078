//! A running gateway's admin API, as the commands ask it.

use super::{AdminArgs, report};
use crate::app::{App, Source};
use anyhow::{Context, Result, anyhow};
use http::{Method, Request, Response, StatusCode, header};
use serde_json::Value;
use std::process::ExitCode;
use std::time::Duration;
use ureq::Body;

/// How long an answer may be silent, unless the question says otherwise.
const SILENCE: Duration = Duration::from_secs(30);

/// How long it may take to reach the gateway.
const CONNECT: Duration = Duration::from_secs(10);

/// A running gateway's admin API: a handle, cheap to clone.
#[derive(Clone)]
pub(super) struct Remote {
    base: String,
    token: Option<String>,
    agent: ureq::Agent,
}

/// A question to it.
pub(super) struct Ask<'a> {
    /// Its method.
    pub(super) method: Method,
    /// Path and query, with all that needs it escaped.
    pub(super) path: &'a str,
    /// Headers beside the token.
    pub(super) headers: &'a [(&'a str, &'a str)],
    /// How long the answer may be silent before it counts as broken off.
    pub(super) silence: Duration,
}

/// The gateway answered and said no.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct Refused {
    /// The answer's status.
    pub(super) status: StatusCode,
    /// What it said.
    pub(super) message: String,
}

// === impl Ask ===

impl<'a> Ask<'a> {
    /// A question with nothing special about it.
    pub(super) fn new(method: Method, path: &'a str) -> Self {
        Ask {
            method,
            path,
            headers: &[],
            silence: SILENCE,
        }
    }
}

// === impl Remote ===

impl Remote {
    /// By the flags, else by the configuration file.
    pub(super) fn find(app: &App, args: &AdminArgs) -> Result<Remote> {
        let (mut address, mut token) = (args.admin.clone(), args.token.clone());
        if address.is_none() {
            let loaded = app
                .load(&Source::File(args.file.config.clone()))
                .map_err(|problems| {
                    report(&problems, "");
                    anyhow!(
                        "cannot tell the admin address from `{}`; name it with --admin",
                        args.file.config.display()
                    )
                })?;
            let admin = loaded.plan.admin.ok_or_else(|| {
                anyhow!(
                    "the admin listener is off in `{}`",
                    args.file.config.display()
                )
            })?;
            // Everywhere is reached from here by loopback.
            let at = if admin.address.ip().is_unspecified() {
                std::net::SocketAddr::from(([127, 0, 0, 1], admin.address.port()))
            } else {
                admin.address
            };
            address = Some(at.to_string());
            token = token.or_else(|| admin.token.map(|token| token.reveal().to_owned()));
        }
        let agent = ureq::Agent::config_builder()
            .timeout_connect(Some(CONNECT))
            .timeout_per_write(Some(SILENCE))
            .http_status_as_error(false)
            .build()
            .into();
        Ok(Remote {
            base: format!("http://{}", address.unwrap_or_default()),
            token,
            agent,
        })
    }

    /// The text that a `GET` is answered.
    pub(super) fn get(&self, path: &str) -> Result<String> {
        self.text(&Ask::new(Method::GET, path))
    }

    /// The text that a `POST` without a body is answered.
    pub(super) fn post(&self, path: &str) -> Result<String> {
        self.text(&Ask::new(Method::POST, path))
    }

    /// The text of a good answer.
    ///
    /// Errors: [`Refused`], or the gateway was not reached.
    pub(super) fn text(&self, ask: &Ask<'_>) -> Result<String> {
        let mut answer = self.send(ask)?;
        if !answer.status().is_success() {
            return Err(refusal(answer).into());
        }
        let body = answer.body_mut().with_config().limit(u64::MAX);
        let bytes = body.read_to_vec().context("the answer broke off")?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The document of a good answer.
    ///
    /// Errors: as for [`Remote::text`], or it is no document.
    pub(super) fn json(&self, ask: &Ask<'_>) -> Result<Value> {
        let text = self.text(ask)?;
        serde_json::from_str(&text).with_context(|| {
            format!(
                "`{} {}` was answered with something else than JSON; is {} the admin address?",
                ask.method, ask.path, self.base
            )
        })
    }

    /// An answer of any status.
    ///
    /// Errors: the gateway was not reached.
    pub(super) fn send(&self, ask: &Ask<'_>) -> Result<Response<Body>> {
        let mut request = Request::builder()
            .method(&ask.method)
            .uri(format!("{}{}", self.base, ask.path));
        for (name, value) in ask.headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let what = || format!("cannot reach the gateway's admin API at {}", self.base);
        let request = request.body(()).with_context(what)?;
        let request = self.agent.configure_request(request);
        let request = request.timeout_per_read(Some(ask.silence)).build();
        self.agent.run(request).with_context(what)
    }
}

/// What an answer that is no good one says.
pub(super) fn refusal(mut answer: Response<Body>) -> Refused {
    let status = answer.status();
    let text = answer.body_mut().read_to_string().unwrap_or_default();
    let told: Value = serde_json::from_str(&text).unwrap_or_default();
    for problem in told["problems"].as_array().into_iter().flatten() {
        eprintln!("{}", problem.as_str().unwrap_or_default());
    }
    let message = match told["error"]["message"].as_str().unwrap_or(text.trim()) {
        "" => format!("the gateway answered {status}"),
        message => message.to_owned(),
    };
    Refused { status, message }
}

/// A text as part of a query: everything but unreserved characters is escaped (RFC 3986, 2.3).
pub(super) fn percent(text: &str) -> String {
    text.bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() || b"-._~/".contains(&b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

/// How a command ends.
pub(super) fn done(asked: Result<()>) -> ExitCode {
    match asked {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has seen enough, as `head` has.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tabane: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether our own output was closed. What breaks between us and the gateway is an error of the client's library.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
