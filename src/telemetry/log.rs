use super::json::Json;
use super::lines::Lines;
use crate::config::plan::LogFormat;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

/// What is logged when nobody says otherwise. Pingora's own lines about clients that leave are noise: the
/// access line tells the same, with more.
const FILTER: &str =
    "info,pingora=warn,pingora_core=error,pingora_proxy=off,pingora_load_balancing=warn";

/// Sends log lines to standard output; `TABANE_LOG` says which (`debug`, `info,tabane::access=off`, …).
///
/// A second call changes nothing: the first one's choice stays. Keep what is returned until the end: dropped, it waits
/// for the last lines.
#[must_use]
pub fn init(format: LogFormat) -> Lines {
    let filter = EnvFilter::builder()
        .with_env_var("TABANE_LOG")
        .with_default_directive(tracing::Level::INFO.into());
    let filter = match std::env::var("TABANE_LOG") {
        Ok(_) => filter.from_env_lossy(),
        Err(_) => EnvFilter::new(FILTER),
    };
    let terminal = std::io::stdout().is_terminal();
    let json = match format {
        LogFormat::Json => true,
        LogFormat::Human => false,
        LogFormat::Auto => !terminal,
    };
    // `try_init` also sends the `log` crate's lines here: Pingora speaks that.
    let out = Lines::to(std::io::stdout());
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(out.line());
    let _already = if json {
        lines.event_format(Json).finish().try_init()
    } else {
        lines.with_ansi(terminal).finish().try_init()
    };
    out
}
