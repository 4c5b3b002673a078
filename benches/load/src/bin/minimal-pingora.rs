//! The minimal Pingora proxy with the system's allocator, as it comes: `minimal-pingora LISTEN PORT…`.

#[path = "../peer.rs"]
mod peer;

use anyhow::{Context, Result};

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let listen = args.next().context("no address")?.parse()?;
    let nodes = args
        .map(|port| port.parse())
        .collect::<Result<Vec<_>, _>>()?;
    peer::run(listen, &nodes)
}
