//! `GET /view` of what a prompt made: all of it, a part, and that it is known.

use super::ask::{get, new_id, noise, over, submission};
use super::farm::Farm;
use super::pairs::{Pairs, head};
use crate::Comfyui;
use crate::client::Connection;
use anyhow::{Context, Result};
use std::time::Instant;
use tabane_sim::comfy::ComfyNode;

pub async fn run(args: &Comfyui, farm: &Farm, alone: &ComfyNode) -> Result<()> {
    let mut ends = Vec::new();
    for address in [farm.address(), alone.addr()] {
        let mut connection = Connection::open(address).await?;
        let id = new_id();
        let request = submission(&id, "bench", &noise());
        connection.ask(&request, 200).await?;
        let entry = over(&mut connection, &id).await?;
        let image = &entry["outputs"]["2"]["images"][0];
        let text = |key: &str| image[key].as_str().context("a prompt made no image");
        let path = format!(
            "/view?filename={}&subfolder={}&type={}",
            text("filename")?,
            text("subfolder")?,
            text("type")?
        );
        connection.get(&path).await?;
        let etag = connection.header("etag").context("an image has no ETag")?;
        ends.push((connection, path, etag));
    }
    head();
    let asked = [
        ("`GET /view`, 1.1 MB", "", 200),
        (
            "`GET /view`, 64 KiB of it by `Range`",
            "Range: bytes=400000-465535\r\n",
            206,
        ),
        (
            "`GET /view`, 304 by `If-None-Match`",
            "If-None-Match: ETAG\r\n",
            304,
        ),
    ];
    for (what, more, wants) in asked {
        let mut pairs = Pairs::default();
        for _ in 0..args.samples {
            for (times, (connection, path, etag)) in pairs.each().into_iter().zip(&mut ends) {
                let request = get(path, &more.replace("ETAG", etag));
                let began = Instant::now();
                connection.ask(&request, wants).await?;
                times.push(began.elapsed());
            }
        }
        pairs.print(what, "5 ms");
    }
    println!();
    Ok(())
}
