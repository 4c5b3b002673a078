//! What `/metrics` says of the process itself, under the names that every dashboard knows. Where there is no
//! `/proc`, it says little.

use rustix::process::{Resource, getrlimit};
use std::fmt::Write;

/// Clock ticks a second in `/proc`: 100 on every Linux that tabane runs on.
const TICKS: f64 = 100.0;

/// Appends the process's own metrics, before the closing line.
pub(super) fn render(text: &mut String) {
    let mut gauge = |name: &str, help: &str, value: f64| {
        let _ = write!(
            text,
            "# HELP {name} {help}.\n# TYPE {name} gauge\n{name} {value}\n"
        );
    };
    if let Some(bytes) = resident() {
        gauge("process_resident_memory_bytes", "Resident memory", bytes);
    }
    if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
        gauge(
            "process_open_fds",
            "Open file descriptors",
            entries.count() as f64,
        );
    }
    // After the gateway asked for all it may have (`edge/doors.rs`). None: as many as the kernel has.
    if let Some(most) = getrlimit(Resource::Nofile).current {
        gauge(
            "process_max_fds",
            "Most file descriptors it may open",
            most as f64,
        );
    }
    if let Some(seconds) = cpu() {
        let _ = write!(
            text,
            "# HELP process_cpu_seconds User and system time.\n# TYPE process_cpu_seconds counter\nprocess_cpu_seconds_total {seconds}\n"
        );
    }
}

fn resident() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace()
        .next()?
        .parse::<f64>()
        .ok()
        .map(|kib| kib * 1024.0)
}

fn cpu() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name in brackets may hold spaces; user and system time are the 12th and 13th field after it.
    let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS)
}
