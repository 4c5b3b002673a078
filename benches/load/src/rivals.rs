//! Starting what is measured, each with as many threads as the machine has cores, an access log that goes nowhere,
//! kept connections to the same two nodes, and bodies passed on as they come. Those that can hold bodies until they are
//! whole do so on a second port.

use crate::client::Connection;
use crate::process::Tree;
use anyhow::{Context, Result, bail};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

/// Something that stands before the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rival {
    Tabane,
    Pingora,
    /// The same with the gateway's allocator.
    PingoraMimalloc,
    Nginx,
    Haproxy,
}

/// All, in the order of the table.
pub const RIVALS: [Rival; 5] = [
    Rival::Tabane,
    Rival::Pingora,
    Rival::PingoraMimalloc,
    Rival::Nginx,
    Rival::Haproxy,
];

impl Rival {
    /// What the table calls it.
    pub fn name(self) -> &'static str {
        match self {
            Rival::Tabane => "tabane",
            Rival::Pingora => "minimal Pingora",
            Rival::PingoraMimalloc => "… with mimalloc",
            Rival::Nginx => "nginx",
            Rival::Haproxy => "HAProxy",
        }
    }

    /// Starts it in front of the nodes, and waits until it answers.
    ///
    /// Errors: it is not installed, or does not answer in time.
    pub async fn start(self, tabane: &Path, nodes: &[u16]) -> Result<Running> {
        let folder = tempfile::tempdir()?;
        let (port, holds) = (free_port()?, free_port()?);
        let threads = std::thread::available_parallelism()?.get();
        let config = folder.path().join("config");
        let mut command = match self {
            Rival::Tabane => {
                fs::write(&config, tabane_config([port, holds], nodes))?;
                let mut command = Command::new(tabane);
                command.arg("run").arg("-c").arg(&config);
                command
            }
            Rival::Pingora | Rival::PingoraMimalloc => {
                let this = std::env::current_exe()?;
                let mut command = match self {
                    Rival::Pingora => Command::new(this.with_file_name("minimal-pingora")),
                    _ => Command::new(this),
                };
                if self == Rival::PingoraMimalloc {
                    command.arg("peer");
                }
                command.arg(format!("127.0.0.1:{port}"));
                command.args(nodes.iter().map(u16::to_string));
                command
            }
            Rival::Nginx => {
                fs::write(
                    &config,
                    nginx_config(folder.path(), [port, holds], nodes, threads),
                )?;
                let mut command = Command::new("nginx");
                command.arg("-c").arg(&config).arg("-e").arg("stderr");
                command
            }
            Rival::Haproxy => {
                fs::write(&config, haproxy_config(port, nodes, threads))?;
                let mut command = Command::new("haproxy");
                command.arg("-f").arg(&config);
                command
            }
        };
        command.stdout(Stdio::null());
        // Debian keeps servers where only root looks.
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", format!("{}:/usr/sbin", path.to_string_lossy()));
        }
        let mut running = Running::begin(command, folder, port)
            .with_context(|| format!("cannot start {}", self.name()))?;
        running.answers(self.name()).await?;
        if matches!(self, Rival::Tabane | Rival::Nginx) {
            running.holds = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, holds)));
        }
        Ok(running)
    }
}

/// A process that is ended when this is dropped.
pub struct Running {
    child: Child,
    _folder: TempDir,
    pub address: SocketAddr,
    /// Where bodies are held before they go on, in memory first and then on disk.
    pub holds: Option<SocketAddr>,
}

impl Running {
    /// Starts a process that serves on `port` and may use `folder`.
    pub fn begin(mut command: Command, folder: TempDir, port: u16) -> Result<Self> {
        let child = command
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        Ok(Running {
            child,
            _folder: folder,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            holds: None,
        })
    }

    /// What it says, where that is piped.
    pub fn output(&mut self) -> Option<tokio::process::ChildStdout> {
        self.child.stdout.take()
    }

    pub fn tree(&self) -> Result<Tree> {
        self.child.id().map(Tree).context("the process has ended")
    }

    /// Waits until it answers as the nodes do.
    pub async fn answers(&mut self, name: &str) -> Result<()> {
        self.answers_at(name, "/").await
    }

    /// Waits until it answers at a path.
    ///
    /// Errors: it ended, or does not answer in time.
    pub async fn answers_at(&mut self, name: &str, path: &str) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let asked = async { Connection::open(self.address).await?.get(path).await };
            let Err(error) = asked.await else {
                return Ok(());
            };
            if let Some(status) = self.child.try_wait()? {
                bail!("{name} ended with {status} before it answered; start it by hand to see why");
            }
            if Instant::now() > end {
                return Err(error.context(format!("{name} did not answer within 20 s")));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends it in order: nginx would leave its workers behind if it were killed.
    pub async fn end(mut self) -> Result<()> {
        if let Some(pid) = self.child.id() {
            Command::new("kill").arg(pid.to_string()).status().await?;
        }
        if tokio::time::timeout(Duration::from_secs(10), self.child.wait())
            .await
            .is_err()
        {
            self.child.kill().await?;
        }
        Ok(())
    }
}

/// `n` nodes that all have behind them, and their ports.
pub async fn nodes(n: usize) -> Result<(Running, Vec<u16>)> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("node")
        .arg(n.to_string())
        .stdout(Stdio::piped());
    let mut running = Running::begin(command, tempfile::tempdir()?, 0)?;
    let said = running.output().context("the node has no output")?;
    let mut line = String::new();
    BufReader::new(said).read_line(&mut line).await?;
    let ports = line
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<Vec<u16>, _>>()?;
    let first = ports.first().context("the node told no port")?;
    running.address.set_port(*first);
    running.answers("the node").await?;
    Ok((running, ports))
}

/// A port that was free a moment ago.
pub fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

fn tabane_config([port, holds]: [u16; 2], nodes: &[u16]) -> String {
    let pool: Vec<_> = nodes
        .iter()
        .map(|port| format!("{{url: \"http://127.0.0.1:{port}\", slots: 1024}}"))
        .collect();
    format!(
        "listen:
  - {{address: 127.0.0.1:{port}, service: any}}
  - {{address: 127.0.0.1:{holds}, service: holds}}
admin: off
data_dir: data
limits: {{connections: 20000, connections_per_address: 20000}}
pools:
  all: [{pool}]
services:
  any: {{kind: http, pool: all, body: stream}}
  holds: {{kind: http, pool: all}}
",
        pool = pool.join(", "),
    )
}

fn nginx_config(folder: &Path, [port, holds]: [u16; 2], nodes: &[u16], threads: usize) -> String {
    let folder = folder.display();
    let servers: String = nodes
        .iter()
        .map(|port| format!("server 127.0.0.1:{port};\n"))
        .collect();
    format!(
        "daemon off;
worker_processes {threads};
worker_rlimit_nofile 20000;
pid {folder}/pid;
error_log stderr crit;
events {{ worker_connections 8192; }}
http {{
    access_log /dev/null combined buffer=64k flush=1s;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000000;
    client_max_body_size 0;
    upstream nodes {{
        {servers}
        keepalive 1024;
        keepalive_requests 1000000000;
    }}
    proxy_http_version 1.1;
    proxy_set_header Connection \"\";
    proxy_max_temp_file_size 0;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{ proxy_pass http://nodes; proxy_request_buffering off; }}
    }}
    server {{
        listen 127.0.0.1:{holds};
        client_body_buffer_size 1m;
        location / {{ proxy_pass http://nodes; }}
    }}
}}
"
    )
}

fn haproxy_config(port: u16, nodes: &[u16], threads: usize) -> String {
    let servers: String = nodes
        .iter()
        .map(|port| format!("    server node-{port} 127.0.0.1:{port}\n"))
        .collect();
    format!(
        "global
    nbthread {threads}
    maxconn 8000
    log stdout format raw local0
defaults
    mode http
    log global
    option httplog
    http-reuse always
    timeout connect 5s
    timeout client 300s
    timeout server 300s
frontend clients
    bind 127.0.0.1:{port} backlog 4096
    default_backend nodes
backend nodes
    balance roundrobin
{servers}"
    )
}
