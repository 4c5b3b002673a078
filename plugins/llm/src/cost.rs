//! What something costs, in CPU time of this thread: on a machine that others use, the clock says little.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// Prints what one `run` costs, and what that is for each KB where it reads `bytes`.
pub fn print<T>(name: &str, bytes: usize, mut run: impl FnMut() -> T) {
    let mut best = f64::MAX;
    for _ in 0..7 {
        let (begun, mut runs) = (cpu(), 0u32);
        let mut spent = Duration::ZERO;
        while spent < Duration::from_millis(30) {
            for _ in 0..20 {
                black_box(run());
            }
            runs += 20;
            spent = cpu() - begun;
        }
        best = best.min(spent.as_nanos() as f64 / f64::from(runs));
    }
    let per_kb = best / bytes.max(1) as f64 * 1024.0;
    match bytes {
        0 => println!("{name}: {best:.1} ns"),
        _ => println!("{name} ({bytes} B): {best:.0} ns, {per_kb:.0} ns per KB"),
    }
}

/// What Linux says; elsewhere the clock.
fn cpu() -> Duration {
    let said = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let ns = said.and_then(|text| text.split(' ').next()?.parse().ok());
    static BEGUN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    ns.map_or_else(|| BEGUN.elapsed(), Duration::from_nanos)
}
