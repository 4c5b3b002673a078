//! What the service manager is told, where one started us: the protocol of sd_notify(3).
//!
//! Datagrams of `NAME=value` lines to the socket that `NOTIFY_SOCKET` names, a path or (`@name`) an abstract
//! one. Without the variable every word goes nowhere. No crate: the common one knows no abstract sockets.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// A manager whose queue is full must not hold up the gateway for longer.
const PATIENCE: Duration = Duration::from_secs(1);

/// What an ending takes beside the grace: last words to clients, and the process itself.
const ENDING: Duration = Duration::from_secs(10);

/// The service manager, if there is one.
pub(super) struct Manager {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

// === impl Manager ===

impl Manager {
    /// As the environment says.
    pub(super) fn from_env() -> Self {
        let to = std::env::var_os("NOTIFY_SOCKET").and_then(|socket| {
            reach(&socket)
                .inspect_err(|error| {
                    tracing::warn!(?socket, %error, "cannot speak with the service manager; it is told nothing");
                })
                .ok()
        });
        let watchdog = to.as_ref().and_then(|_| {
            watchdog(
                std::env::var_os("WATCHDOG_USEC"),
                std::env::var_os("WATCHDOG_PID"),
                std::process::id(),
            )
        });
        Manager { to, watchdog }
    }

    /// Whether anybody listens.
    pub(super) fn listens(&self) -> bool {
        self.to.is_some()
    }

    /// How often it wants to hear [`Manager::alive`]; `None`: it does not.
    pub(super) fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// The start is done.
    pub(super) fn ready(&self, status: &str) {
        self.say(&format!("READY=1\nSTATUS={}", line(status)));
    }

    /// A line for people, as `systemctl status` shows it.
    pub(super) fn status(&self, status: &str) {
        self.say(&format!("STATUS={}", line(status)));
    }

    /// A reload begins that the manager may have asked for: it then waits for this and for
    /// [`Manager::reloaded`]. The time, which has to come in the same message, tells it that this is the
    /// answer to its own signal and not to an earlier one.
    pub(super) fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let usec = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={usec}"));
    }

    /// That reload is done. There is no word for one that failed; the status says it.
    pub(super) fn reloaded(&self) {
        self.say("READY=1");
    }

    /// The gateway goes down. A manager with less patience than our grace is asked for more: nobody should
    /// have to keep `TimeoutStopSec` and `limits.grace` in step.
    pub(super) fn stopping(&self, grace: Duration) {
        let usec = (grace + ENDING).as_micros();
        let status = format!(
            "going down; requests at work have {} s",
            grace.as_secs_f64()
        );
        self.say(&format!(
            "STOPPING=1\nEXTEND_TIMEOUT_USEC={usec}\nSTATUS={status}"
        ));
    }

    /// The gateway is alive.
    pub(super) fn alive(&self) {
        self.say("WATCHDOG=1");
    }

    fn say(&self, words: &str) {
        if let Some((socket, to)) = &self.to
            && let Err(error) = socket.send_to_addr(words.as_bytes(), to)
        {
            tracing::warn!(words, %error, "the service manager was not told");
        }
    }
}

fn reach(socket: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let to = address(socket)?;
    let from = UnixDatagram::unbound()?;
    from.set_write_timeout(Some(PATIENCE))?;
    Ok((from, to))
}

fn address(socket: &OsStr) -> io::Result<SocketAddr> {
    match socket.as_encoded_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(socket),
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => {
            use std::os::linux::net::SocketAddrExt;
            SocketAddr::from_abstract_name(name)
        }
        _ => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "`NOTIFY_SOCKET` is neither a path nor `@name`",
        )),
    }
}

/// Its patience, where it means this process (sd_watchdog_enabled(3)).
fn watchdog(usec: Option<OsString>, pid: Option<OsString>, me: u32) -> Option<Duration> {
    let number = |text: OsString| text.to_str()?.parse::<u64>().ok();
    if pid.is_some_and(|pid| number(pid) != Some(me.into())) {
        return None;
    }
    let usec = number(usec?)?;
    (usec > 0).then(|| Duration::from_micros(usec))
}

/// On one line: what follows a line break would be a word of ours to the manager.
fn line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_that_means_somebody_else_is_not_fed() {
        let of = |usec: &str, pid: Option<&str>| {
            watchdog(Some(usec.into()), pid.map(OsString::from), 7).map(|time| time.as_millis())
        };
        assert_eq!(of("30000000", None), Some(30_000));
        assert_eq!(of("30000000", Some("7")), Some(30_000));
        assert_eq!(of("30000000", Some("8")), None);
        assert_eq!(of("30000000", Some("me")), None);
        assert_eq!(of("0", None), None);
        assert_eq!(of("soon", None), None);
        assert_eq!(watchdog(None, None, 7), None);
    }

    #[test]
    fn a_status_cannot_smuggle_in_another_word() {
        assert_eq!(line("bad\nMAINPID=1\r\u{0}"), "bad MAINPID=1  ");
    }

    #[test]
    fn a_socket_of_another_family_is_refused() {
        assert!(address(OsStr::new("/run/systemd/notify")).is_ok());
        assert!(address(OsStr::new("vsock:2:1234")).is_err());
        assert!(address(OsStr::new("")).is_err());
    }
}
