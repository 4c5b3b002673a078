//! What the system says of a process and its children: CPU time and memory.

use anyhow::{Context, Result};
use std::fs;
use std::time::Duration;

/// A process and all that it started.
#[derive(Clone, Copy)]
pub struct Tree(pub u32);

impl Tree {
    /// User and system time so far, of all of them. Source: `/proc/PID/stat`, in hundredths of a second.
    pub fn cpu(self) -> Result<Duration> {
        let mut ticks = 0;
        for pid in self.pids()? {
            ticks += stat(pid, 11)? + stat(pid, 12)?;
        }
        Ok(Duration::from_millis(ticks * 10))
    }

    /// Memory that is really there, in bytes, pages shared between them counted once.
    /// Source: `Pss` of `/proc/PID/smaps_rollup`.
    pub fn memory(self) -> Result<u64> {
        let mut all = 0;
        for pid in self.pids()? {
            all += kib(&format!("/proc/{pid}/smaps_rollup"), "Pss:")? * 1024;
        }
        Ok(all)
    }

    /// The most memory that any of them ever had, pages of files among it, in bytes. Source: `VmHWM` of
    /// `/proc/PID/status`.
    pub fn peak(self) -> Result<u64> {
        let mut peak = 0;
        for pid in self.pids()? {
            peak = peak.max(kib(&format!("/proc/{pid}/status"), "VmHWM:")? * 1024);
        }
        Ok(peak)
    }

    /// Lets [`Tree::peak`] begin anew from what there is now, which is told, in bytes. Source: `/proc/PID/clear_refs`.
    pub fn forget_peak(self) -> Result<u64> {
        let mut now = 0;
        for pid in self.pids()? {
            fs::write(format!("/proc/{pid}/clear_refs"), "5")?;
            now = now.max(kib(&format!("/proc/{pid}/status"), "VmRSS:")? * 1024);
        }
        Ok(now)
    }

    fn pids(self) -> Result<Vec<u32>> {
        let mut pids = vec![self.0];
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            if let Some(pid) = name.to_str().and_then(|name| name.parse().ok())
                && stat(pid, 1).is_ok_and(|parent| parent == u64::from(self.0))
            {
                pids.push(pid);
            }
        }
        Ok(pids)
    }
}

/// A line of a file that says so many `kB`.
fn kib(path: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let lines = text.lines().filter_map(|line| line.strip_prefix(name));
    lines
        .filter_map(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .next()
        .with_context(|| format!("no {name} in {path}"))
}

/// A field of `/proc/PID/stat`, counted from the state, which is 0: names may hold spaces.
fn stat(pid: u32, field: usize) -> Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let (_, fields) = text.rsplit_once(") ").context("no name in stat")?;
    let field = fields.split(' ').nth(field).context("too few fields")?;
    Ok(field.parse()?)
}
