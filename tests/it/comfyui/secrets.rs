//! Keys to somebody's account go to the node that needs them, and are nowhere else.

use super::client::Client;
use super::prompts::slow;
use super::{file, names, started};
use crate::scene::on_free_ports;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use tabane_sim::comfy::{ComfyNode, Spec};
use tokio::time::{interval, timeout};

const SECRET: &str = "hush-3f9c1";

/// The program itself, since its log is looked at; ended with this.
struct Gateway(Child);

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether a file, or one below a folder, has a text in it.
fn holds(path: &Path, text: &str) -> Vec<String> {
    if path.is_dir() {
        let entries = fs::read_dir(path).unwrap();
        return entries
            .flat_map(|entry| holds(&entry.unwrap().path(), text))
            .collect();
    }
    let bytes = fs::read(path).unwrap_or_default();
    let found = bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes());
    found
        .then(|| path.display().to_string())
        .into_iter()
        .collect()
}

async fn up(log: &Path) -> std::net::SocketAddr {
    let mut look = interval(std::time::Duration::from_millis(10));
    let up = timeout(super::LONG, async {
        loop {
            look.tick().await;
            let text = fs::read_to_string(log).unwrap();
            let line = text.lines().find(|line| line.contains("tabane is up"));
            if let Some(line) = line.filter(|line| line.ends_with('}')) {
                let line: Value = serde_json::from_str(line).unwrap();
                return line["addresses"].as_str().unwrap().parse().unwrap();
            }
        }
    });
    up.await.expect("it comes up")
}

/// Nobody is shown it.
async fn nowhere(client: &Client, ids: [&str; 2]) {
    let mut paths: Vec<String> = ["/queue", "/history", "/api/jobs"].map(String::from).into();
    for id in ids {
        paths.extend([format!("/history/{id}"), format!("/api/jobs/{id}")]);
    }
    for path in paths {
        let told = client.get(&path).await.body;
        assert!(!String::from_utf8_lossy(&told).contains(SECRET), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_reach_the_node_and_neither_disk_log_queue_nor_history() {
    let nodes: Vec<ComfyNode> = started(vec![Spec::named("a")]).await;
    let dir = tempfile::tempdir().unwrap();
    let yaml = dir.path().join("tabane.yaml");
    let log = dir.path().join("log");
    fs::write(
        &yaml,
        on_free_ports(&file(&nodes, &names(&nodes), super::More::default())),
    )
    .unwrap();
    let out = fs::File::create(&log).unwrap();
    let gateway = Command::new(env!("CARGO_BIN_EXE_tabane"))
        .args(["run", "-c", yaml.to_str().unwrap()])
        .env("TABANE_LOG", "trace")
        .stderr(out.try_clone().unwrap())
        .stdout(out)
        .spawn();
    let _gateway = Gateway(gateway.unwrap());
    let client = Client::new(up(&log).await, "c");
    client
        .until("/object_info", |told| told.get("SaveImage").is_some())
        .await;

    let extra = json!({
        "auth_token_comfy_org": format!("{SECRET}-token"),
        "extra_pnginfo": {"workflow": {"id": "w"}},
        "api_key_comfy_org": format!("{SECRET}-key"),
    });
    let runs = client
        .submit_with(&slow(60.0, 1), json!({"extra_data": extra}))
        .await;
    super::until_at(&nodes[0], &runs).await;
    let waits = client
        .submit_with(&slow(0.0, 2), json!({"extra_data": extra}))
        .await;

    // That version of the node shows them itself.
    let at_node = Client::new(nodes[0].addr(), "c").get("/queue").await.json();
    let data = &at_node["queue_running"][0][3];
    assert_eq!(data["auth_token_comfy_org"], extra["auth_token_comfy_org"]);
    assert_eq!(data["api_key_comfy_org"], extra["api_key_comfy_org"]);
    nowhere(&client, [&runs, &waits]).await;
    client.post("/interrupt", &json!({"prompt_id": runs})).await;
    client.finished(&waits).await;
    nowhere(&client, [&runs, &waits]).await;
    let entry = client.finished(&waits).await;
    assert_eq!(
        entry["prompt"][3],
        json!({"extra_pnginfo": {"workflow": {"id": "w"}}, "client_id": "c"})
    );
    // Nobody logs what was wrong with a body that has them.
    let broken = format!("{{\"prompt\": {{}}, \"extra_data\": {{\"api_key_comfy_org\": \"{SECRET}");
    assert_eq!(client.ask("POST", "/prompt", &[], broken).await.status, 500);
    let kept = holds(&dir.path().join("data"), SECRET);
    assert_eq!(kept, Vec::<String>::new());
    assert_eq!(holds(&log, SECRET), Vec::<String>::new());
    assert!(
        !holds(&dir.path().join("data"), &waits).is_empty(),
        "it was looked at"
    );
    assert!(!holds(&log, &waits).is_empty(), "it was looked at");
}
