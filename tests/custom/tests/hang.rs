//! A kind that never returns takes a thread with it: the service manager's watchdog must be able to see that.

// In a test, what cannot be unwrapped is a failure.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Ended with the test, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_gateway_whose_threads_all_hang_stops_feeding_the_watchdog() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tabane.yaml");
    let yaml = r#"
listen: ["127.0.0.1:0"]
admin: off
services: {render: {kind: {renderer: {licence: studio}}, pool: [http://127.0.0.1:1], routes: [/]}}
"#;
    std::fs::write(&file, yaml).unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let hear = |patience: u64| {
        let patience = Some(Duration::from_secs(patience));
        socket.set_read_timeout(patience).unwrap();
        let mut message = [0; 4096];
        let heard = socket.recv(&mut message).ok()?;
        Some(String::from_utf8_lossy(&message[..heard]).into_owned())
    };
    let child = Command::new(env!("CARGO_BIN_EXE_custom-gateway"))
        .args(["run", "-c", file.to_str().unwrap()])
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "100000")
        .env_remove("WATCHDOG_PID")
        // One, so that one request hangs them all.
        .env("TOKIO_WORKER_THREADS", "1")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let _running = Running(child);
    let ready = hear(60).expect("a word in time");
    let address = ready
        .split_once(" on ")
        .and_then(|(_, rest)| rest.split(';').next())
        .unwrap_or_else(|| panic!("{ready:?}"));
    for _ in 0..3 {
        assert_eq!(hear(60).as_deref(), Some("WATCHDOG=1"));
    }
    let mut client = TcpStream::connect(address).unwrap();
    client
        .write_all(b"GET /hang HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    let asked = Instant::now();
    // 40 beats that do not come.
    while hear(2).is_some() {
        let told = asked.elapsed();
        assert!(
            told < Duration::from_secs(60),
            "the manager still hears that all is well"
        );
    }
}
