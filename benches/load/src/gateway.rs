//! A gateway whose file changes while it runs.

use crate::rivals::{Running, free_port};
use anyhow::{Result, ensure};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

pub struct Gateway {
    pub running: Running,
    admin: SocketAddr,
    file: PathBuf,
    text: Box<dyn Fn(usize) -> String>,
}

impl Gateway {
    /// `text` is the file but for its addresses, as it stands before reload `n`.
    pub async fn start(tabane: &Path, text: impl Fn(usize) -> String + 'static) -> Result<Self> {
        Gateway::start_with(tabane, "/", text).await
    }

    /// The same, with a path that it answers by itself: its nodes may be drained.
    pub async fn start_with(
        tabane: &Path,
        path: &str,
        text: impl Fn(usize) -> String + 'static,
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("tabane.yaml");
        let (port, admin) = (free_port()?, free_port()?);
        let head = format!(
            "listen: [{{address: 127.0.0.1:{port}}}]\nadmin: {{address: 127.0.0.1:{admin}}}\n"
        );
        let text = move |n| head.clone() + &text(n);
        fs::write(&file, text(0))?;
        let mut command = Command::new(tabane);
        command
            .arg("run")
            .arg("-c")
            .arg(&file)
            .stdout(Stdio::null());
        let mut running = Running::begin(command, folder, port)?;
        running.answers_at("tabane", path).await?;
        Ok(Gateway {
            running,
            admin: SocketAddr::from((Ipv4Addr::LOCALHOST, admin)),
            file,
            text: Box::new(text),
        })
    }

    /// Changes the file, and says how long the reload takes: from asking the admin listener to its answer.
    ///
    /// Errors: the gateway refused the file.
    pub async fn reload(&self, n: usize) -> Result<Duration> {
        // In place of the old file at once: the gateway watches it, too, and would else read half of it.
        let new = self.file.with_extension("new");
        fs::write(&new, (self.text)(n))?;
        fs::rename(&new, &self.file)?;
        let began = Instant::now();
        let mut stream = TcpStream::connect(self.admin).await?;
        let head = "POST /api/v1/reload HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n";
        stream
            .write_all(format!("{head}Content-Length: 0\r\n\r\n").as_bytes())
            .await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let done = answer.starts_with("HTTP/1.1 200");
        ensure!(done, "the reload was refused: {answer}");
        Ok(began.elapsed())
    }
}
