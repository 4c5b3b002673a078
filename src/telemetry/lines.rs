//! Log lines on their way out. Whoever reads them may be slow, or stand still (a full pipe): that must not hold up a
//! request, so lines wait in memory, and a thread of their own writes them.
//!
//! Not tracing-appender: it wakes its thread for each line, which costs more than a request's line itself.

use parking_lot::{Condvar, Mutex};
use std::io::{self, Write};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use tracing_subscriber::fmt::MakeWriter;

/// How many bytes may wait; lines past that are lost, and counted.
const MOST: usize = 4 << 20;

/// How long lines wait for others before they are written.
const GATHER: Duration = Duration::from_millis(20);

/// How long [`Lines`] waits at its end for what still waits.
const LAST: Duration = Duration::from_secs(1);

/// Where log lines are given to. Dropped, it waits a moment until they are out.
pub struct Lines(Arc<Queue>);

/// One writer's way to the lines.
#[derive(Clone)]
pub(super) struct Line(Arc<Queue>);

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    /// There is something to write, and it is urgent.
    come: Condvar,
    /// All is written.
    done: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    lost: u64,
    writing: bool,
    closing: bool,
}

// === impl Lines ===

impl Lines {
    /// Lines that go to `out`.
    pub(super) fn to(out: impl Write + Send + 'static) -> Lines {
        let queue = Arc::new(Queue::default());
        let began = thread::Builder::new().name("tabane-log".into()).spawn({
            let queue = queue.clone();
            move || queue.write(out)
        });
        if let Err(error) = began {
            eprintln!("tabane: no thread for the log, which stays empty: {error}");
        }
        Lines(queue)
    }

    /// A way for writers.
    pub(super) fn line(&self) -> Line {
        Line(self.0.clone())
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let end = Instant::now() + LAST;
        let mut state = self.0.state.lock();
        state.closing = true;
        self.0.come.notify_one();
        while state.writing || !state.waiting.is_empty() {
            if self.0.done.wait_until(&mut state, end).timed_out() {
                return;
            }
        }
    }
}

// === impl Queue ===

impl Queue {
    fn push(&self, line: &[u8]) {
        let mut state = self.state.lock();
        if state.waiting.len() + line.len() > MOST {
            state.lost += 1;
            return;
        }
        let first = state.waiting.is_empty();
        state.waiting.extend_from_slice(line);
        drop(state);
        if first {
            self.come.notify_one();
        }
    }

    fn write(&self, mut out: impl Write) {
        let mut lines = Vec::new();
        loop {
            let mut state = self.state.lock();
            while state.waiting.is_empty() {
                if state.closing {
                    return;
                }
                self.come.wait(&mut state);
            }
            if !state.closing {
                drop(state);
                thread::sleep(GATHER);
                state = self.state.lock();
            }
            std::mem::swap(&mut lines, &mut state.waiting);
            let lost = std::mem::take(&mut state.lost);
            state.writing = true;
            drop(state);
            // Nobody reads any more: there is nobody to tell.
            let _ = out.write_all(&lines).and_then(|()| out.flush());
            lines.clear();
            if lost > 0 {
                tracing::warn!(lost, "log lines were lost: whoever reads them was too slow");
            }
            let mut state = self.state.lock();
            state.writing = false;
            self.done.notify_all();
        }
    }
}

// === impl Line ===

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Line {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Gives on what it is given, once it is told that it may.
    struct Reader {
        may: mpsc::Receiver<()>,
        read: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.may.recv();
            self.read.send(bytes.to_vec()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stands_still_holds_nobody_up_and_what_is_lost_is_counted() {
        let (may, waits) = mpsc::channel();
        let (read, out) = mpsc::channel();
        let lines = Lines::to(Reader { may: waits, read });
        let line = [b'x'; 1 << 10];
        // Twice as many as may wait: this loop would not end if anybody waited for the reader.
        for _ in 0..2 * (MOST >> 10) {
            lines.line().write_all(&line).unwrap();
        }
        let (waiting, lost) = {
            let state = lines.0.state.lock();
            (state.waiting.len(), state.lost)
        };
        assert!(
            waiting <= MOST && lost > 0,
            "{waiting} wait, {lost} are lost"
        );
        drop(may);
        drop(lines);
        let came: usize = out.iter().map(|bytes| bytes.len()).sum();
        assert_eq!(
            came >> 10,
            (2 * (MOST >> 10)) - lost as usize,
            "all others came"
        );
    }

    #[test]
    fn the_last_lines_are_out_before_the_end() {
        let (may, waits) = mpsc::channel();
        let (read, out) = mpsc::channel();
        drop(may);
        let lines = Lines::to(Reader { may: waits, read });
        lines.line().write_all(b"the last words\n").unwrap();
        drop(lines);
        assert_eq!(
            out.try_iter().flatten().collect::<Vec<_>>(),
            b"the last words\n"
        );
    }
}
