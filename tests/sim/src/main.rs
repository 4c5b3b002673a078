//! Simulated GPU nodes on the command line.

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use std::net::SocketAddr;
use tabane_sim::comfy::{ComfyKnobs, ComfyNode, Model, Spec, Version};
use tabane_sim::llm::{self, Engine, LlmKnobs, LlmNode};
use tabane_sim::{Knobs, Node};
use tokio::signal::unix::{SignalKind, signal};

/// Simulated GPU nodes: HTTP servers with knobs. `PUT /sim` changes knobs while they run.
#[derive(Parser)]
#[command(name = "tabane-sim", version)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Start one node
    Node(NodeArgs),
    /// Start one node that speaks as ComfyUI does. `PUT /sim` changes its knobs
    Comfyui(ComfyArgs),
    /// Start one node that speaks as an engine for language models does. `PUT /sim` changes its knobs
    Llm(LlmArgs),
    /// Start the four unequal nodes of `make run`, on 127.0.0.1:18101 to 18104
    Farm {
        /// The first of the four ports
        #[arg(long, default_value_t = 18101)]
        port: u16,
    },
}

#[derive(Args)]
struct NodeArgs {
    /// Where it listens
    #[arg(long, default_value = "127.0.0.1:18101")]
    listen: SocketAddr,
    /// Knobs as a JSON object: `{"name":"a","slots":2,"work_ms":300}`
    #[arg(long, default_value = "{}")]
    knobs: String,
}

#[derive(Args)]
struct ComfyArgs {
    /// Where it listens
    #[arg(long, default_value = "127.0.0.1:8188")]
    listen: SocketAddr,
    /// Its name
    #[arg(long, default_value = "comfy")]
    name: String,
    /// How fast it works, where 1 is the speed of its knobs' times
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
    /// The version that it claims to be
    #[arg(long, default_value = "0.3.64")]
    claims: Version,
    /// Its card's name
    #[arg(long, default_value = "NVIDIA GeForce RTX 4090")]
    gpu: String,
    /// Its card's memory
    #[arg(long, default_value_t = 24)]
    vram_gib: u64,
    /// A model that it has: `checkpoints/sdxl/base.safetensors=6500`, in MiB
    #[arg(long = "model", value_parser = model)]
    models: Vec<Model>,
    /// A class that it has not
    #[arg(long)]
    without: Vec<String>,
    /// It writes names of files as Windows does
    #[arg(long)]
    windows: bool,
    /// The origin that may ask, or `*`
    #[arg(long)]
    cors: Option<String>,
    /// Knobs as a JSON object: `{"step_ms":50,"model_load_ms":3000}`
    #[arg(long, default_value = "{}")]
    knobs: String,
}

#[derive(Args)]
struct LlmArgs {
    /// As which engine it speaks: vllm, llama.cpp, ollama
    engine: Engine,
    /// Where it listens
    #[arg(long, default_value = "127.0.0.1:8000")]
    listen: SocketAddr,
    /// Its name
    #[arg(long, default_value = "llm")]
    name: String,
    /// A model that it has: `llama3=6000`, in MiB. Without one it has `tiny`
    #[arg(long = "model", value_parser = llm_model)]
    models: Vec<llm::Model>,
    /// How many tokens a prompt and its answer may have
    #[arg(long, default_value_t = 8192)]
    context: usize,
    /// How many requests it works on at once; the engine's own number if it is not said
    #[arg(long)]
    slots: Option<usize>,
    /// How many tokens vLLM's cache holds
    #[arg(long, default_value_t = 256 * 1024)]
    kv_tokens: usize,
    /// How fast it works, where 1 is the speed of its knobs' times
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
    /// Its card's memory
    #[arg(long, default_value_t = 24)]
    vram_gib: u64,
    /// llama.cpp loads models when they are asked for
    #[arg(long)]
    router: bool,
    /// Knobs as a JSON object: `{"prefill_tps":20000,"step_ms":8}`
    #[arg(long, default_value = "{}")]
    knobs: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let nodes = match Cli::parse().what {
        What::Node(args) => {
            let knobs = Knobs::default()
                .overlay(args.knobs.as_bytes())
                .map_err(anyhow::Error::msg)?;
            vec![start(args.listen, knobs).await?]
        }
        What::Comfyui(args) => {
            let node = start_comfy(args).await?;
            until_told().await?;
            node.stop().await;
            return Ok(());
        }
        What::Llm(args) => {
            let node = start_llm(args).await?;
            until_told().await?;
            node.stop().await;
            return Ok(());
        }
        What::Farm { port } => {
            let mut nodes = Vec::new();
            for (i, (name, gpu, vram_gib, slots, work_ms)) in FARM.into_iter().enumerate() {
                let knobs = Knobs {
                    name: name.into(),
                    gpu: gpu.into(),
                    vram_mib: vram_gib * 1024,
                    slots,
                    work_ms,
                    model_load_ms: 2000,
                    ..Knobs::default()
                };
                nodes
                    .push(start(SocketAddr::from(([127, 0, 0, 1], port + i as u16)), knobs).await?);
            }
            nodes
        }
    };
    until_told().await?;
    drop(nodes);
    Ok(())
}

/// Waits until it is to end.
async fn until_told() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(())
}

/// Name, card, GiB, slots, milliseconds a request.
const FARM: [(&str, &str, u64, u32, u64); 4] = [
    ("tokyo-4090", "RTX 4090", 24, 4, 150),
    ("osaka-3090", "RTX 3090", 24, 2, 300),
    ("kyoto-4070", "RTX 4070", 12, 2, 400),
    ("nara-3060", "RTX 3060", 12, 1, 900),
];

async fn start(listen: SocketAddr, knobs: Knobs) -> Result<Node> {
    let (name, slots, work_ms) = (knobs.name.clone(), knobs.slots, knobs.work_ms);
    let node = Node::start_at(listen, knobs).await.with_context(|| {
        format!("cannot listen on {listen}; another program has it, or another farm runs")
    })?;
    println!(
        "simulated node {name} on {} ({slots} slots, {work_ms} ms a request)",
        node.url()
    );
    Ok(node)
}

fn model(text: &str) -> Result<Model, String> {
    let wanted = "a folder, a name and a size are wanted: checkpoints/base.safetensors=6500";
    let (path, mib) = text.rsplit_once('=').ok_or(wanted)?;
    let (folder, name) = path.split_once('/').ok_or(wanted)?;
    let mib = mib.parse().map_err(|_| wanted)?;
    Ok(Model::new(folder, name, mib))
}

async fn start_comfy(args: ComfyArgs) -> Result<ComfyNode> {
    let knobs = ComfyKnobs::default()
        .speed(args.speed)
        .overlay(args.knobs.as_bytes())
        .map_err(anyhow::Error::msg)?;
    let mut spec = Spec::named(&args.name).version(args.claims).knobs(knobs);
    spec.listen = args.listen;
    spec.gpu = args.gpu;
    spec.vram_mib = args.vram_gib * 1024;
    spec.models.extend(args.models);
    spec.without = args.without;
    spec.windows = args.windows;
    spec.cors = args.cors;
    let node = ComfyNode::start(spec)
        .await
        .with_context(|| format!("cannot listen on {}; another program has it", args.listen))?;
    println!(
        "simulated ComfyUI {} {} on {}",
        args.name,
        args.claims,
        node.url()
    );
    Ok(node)
}

fn llm_model(text: &str) -> Result<llm::Model, String> {
    let wanted = "a name and a size are wanted: llama3=6000";
    let (name, mib) = text.rsplit_once('=').ok_or(wanted)?;
    Ok(llm::Model {
        name: name.to_owned(),
        context: 0,
        mib: mib.parse().map_err(|_| wanted)?,
        embeds: false,
    })
}

async fn start_llm(args: LlmArgs) -> Result<LlmNode> {
    let knobs = LlmKnobs::default()
        .speed(args.speed)
        .overlay(args.knobs.as_bytes())
        .map_err(anyhow::Error::msg)?;
    let mut spec = llm::Spec::new(args.engine, &args.name).knobs(knobs);
    spec.listen = args.listen;
    spec.models = args.models;
    if spec.models.is_empty() {
        spec = spec.model("tiny", 6000);
    }
    spec.models
        .iter_mut()
        .for_each(|model| model.context = args.context);
    spec.slots = args.slots.unwrap_or(spec.slots);
    spec.kv_tokens = args.kv_tokens;
    spec.vram_mib = args.vram_gib * 1024;
    spec.router = args.router;
    let node = LlmNode::start(spec)
        .await
        .with_context(|| format!("cannot listen on {}; another program has it", args.listen))?;
    println!("simulated {} {} on {}", args.engine, args.name, node.url());
    Ok(node)
}
