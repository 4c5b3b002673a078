//! One card, several services: one server that makes images as jobs, one that chats, and what must never be.

use crate::crash::Phoenix;
use crate::scene::{Reply, Scene, app, eventually};
use bytes::Bytes;
use futures::future::join_all;
use http::{Method, Request};
use http_body_util::Full;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use tabane_sim::{Gpu, Knobs, Node, Unload};
use tokio::task::JoinHandle;
use tokio::time::sleep;

const CARD_MIB: u64 = 24 << 10;
const JOBS: usize = 16;
const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Two servers on one card.
struct Machine {
    gpu: Gpu,
    image: Node,
    chat: Node,
}

impl Machine {
    /// `image` loads 16 GiB and `chat` so many.
    async fn start(chat_gib: u64) -> Machine {
        let gpu = Gpu::new(CARD_MIB);
        let image = Node::start_on(Some(&gpu), ANY, image()).await.unwrap();
        let chat = Node::start_on(Some(&gpu), ANY, chat(chat_gib))
            .await
            .unwrap();
        Machine { gpu, image, chat }
    }

    /// The file: `card` is what the node says, `release` what the kinds do.
    fn yaml(&self, card: &str, chat: &str, release: &str) -> String {
        let (image_url, chat_url) = (self.image.url(), self.chat.url());
        let health = "{interval: 50ms, interval_down: 20ms, timeout: 300ms, rise: 1, fall: 2}";
        let probe = "probe: {path: /health, busy: /busy, vram_free_mib: /vram_free_mib}";
        format!(
            r#"data_dir: data
nodes:
  gpu:
    gpu: {{vram: 24GiB}}
    sharing: {card}
    endpoints:
      image: {{url: "{image_url}", vram: 16GiB}}
      chat: {{url: "{chat_url}", slots: 4{chat}}}
services:
  image:
    pool: [gpu/image]
    routes: [/jobs]
    health: {health}
    cool_down: 1ms
    gpu_hold: {{min: 100ms, max: 400ms}}
    jobs: {{attempts: 50, backoff: [10ms], on_unknown: resubmit}}
    kind:
      batch:
        {probe}
        {release}
        poll:
          id: /id
          status: "/jobs/{{id}}"
          state: /status
          done: [done]
          failed: [failed]
          canceled: [canceled]
          result: "/jobs/{{id}}/result"
          cancel: {{method: DELETE, path: "/jobs/{{id}}"}}
          every: 20ms
          every_max: 20ms
          lost_after: 1s
  chat:
    pool: [gpu/chat]
    routes: [/chat]
    interactive: true
    health: {health}
    cool_down: 1ms
    gpu_hold: {{min: 100ms, max: 200ms}}
    kind:
      http:
        {probe}
        {release}
"#
        )
    }

    fn usual(&self) -> String {
        self.yaml("exclusive", ", vram: 12GiB", "release: /unload")
    }

    fn is_as_it_should_be(&self) {
        let counts = self.gpu.counts();
        assert_eq!(
            (
                counts.both_at_work,
                counts.out_of_memory,
                counts.unloads_at_work
            ),
            (0, 0, 0),
            "{counts:?}"
        );
    }
}

fn image() -> Knobs {
    Knobs {
        loads_mib: 16 << 10,
        model_load_ms: 20,
        unload_ms: 60,
        ..Knobs::named("image", 1).working(30)
    }
}

fn chat(gib: u64) -> Knobs {
    Knobs {
        loads_mib: gib << 10,
        model_load_ms: 20,
        ..Knobs::named("chat", 4).working(15)
    }
}

/// Three who chat until they are told to stop; how many answers they got.
struct Chatting {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU32>,
    clients: Vec<JoinHandle<()>>,
}

impl Chatting {
    /// `ask` gives the status of one request, or nothing where there is no gateway.
    fn start<F: Future<Output = Option<u16>> + Send + 'static>(
        ask: impl Fn() -> F + Clone + Send + 'static,
        only: &'static [u16],
    ) -> Chatting {
        let (stop, answered) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU32::new(0)),
        );
        let client = |_| {
            let (ask, stop, answered) = (ask.clone(), stop.clone(), answered.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    match ask().await {
                        Some(200) => _ = answered.fetch_add(1, Ordering::Relaxed),
                        Some(status) => assert!(only.contains(&status), "{status}"),
                        None => sleep(Duration::from_millis(5)).await,
                    }
                }
            })
        };
        Chatting {
            clients: (0..3).map(client).collect(),
            stop,
            answered,
        }
    }

    async fn end(self) -> u32 {
        self.stop.store(true, Ordering::Relaxed);
        for client in join_all(self.clients).await {
            client.unwrap();
        }
        self.answered.load(Ordering::Relaxed)
    }
}

async fn say(scene: &Scene) -> Reply {
    let request = Request::post(scene.url("/chat"));
    scene.send(request.body(Full::from("hello")).unwrap()).await
}

fn talk(scene: &Arc<Scene>, only: &'static [u16]) -> Chatting {
    let scene = scene.clone();
    let ask = move || {
        let scene = scene.clone();
        async move { Some(say(&scene).await.status.as_u16()) }
    };
    Chatting::start(ask, only)
}

async fn submit_all(scene: &Scene) -> Vec<String> {
    let mut jobs = Vec::new();
    for _ in 0..JOBS {
        jobs.push(scene.submit("/jobs", "{}").await);
    }
    jobs
}

fn card(scene: &Scene, endpoint: &str) -> &'static str {
    let nodes = scene.gateway.dispatch().nodes();
    let mut endpoints = nodes.iter().flat_map(|node| &node.endpoints);
    let found = endpoints.find(|e| e.name == endpoint).unwrap();
    found.card.unwrap_or("not shared")
}

#[tokio::test(flavor = "multi_thread")]
async fn two_services_take_turns_on_one_card_and_both_make_progress_through_reloads() {
    let switches = turns_through_reloads("interactive: true").await;
    // One job in each turn: a person does not wait for a second.
    assert!((JOBS..3 * JOBS).contains(&switches), "{switches}");
}

#[tokio::test(flavor = "multi_thread")]
async fn work_of_one_service_is_done_together_where_nobody_goes_first() {
    let switches = turns_through_reloads("interactive: false").await;
    assert!((3..JOBS * 3 / 2).contains(&switches), "{switches}");
}

/// Chats beside jobs while the file changes; how often the card changed hands.
async fn turns_through_reloads(chat: &str) -> usize {
    let machine = Machine::start(12).await;
    let usual = machine.usual().replace("interactive: true", chat);
    let scene = Arc::new(Scene::start(&usual).await);
    let chatting = talk(&scene, &[]);
    let jobs = submit_all(&scene).await;
    let (mut over, mut rounds) = (0, 0);
    let mut answered = Vec::new();
    for job in &jobs {
        scene.until_job(job, "succeeded").await;
        over += 1;
        answered.push(chatting.answered.load(Ordering::Relaxed));
        if over % 3 == 0 {
            rounds += 1;
            let other = usual.replace("max: 400ms", &format!("max: {}ms", 400 + rounds));
            scene.reload(&other).await.unwrap();
        }
    }
    let all = chatting.end().await;
    machine.is_as_it_should_be();
    // While the jobs went on, people were answered: not only before and after.
    let during = answered[JOBS - 1] - answered[0];
    assert!(during > 10 && all >= during, "{answered:?}");
    let switches = scene.metric("tabane_gpu_switches_total").await;
    let holders = ["image", "chat"].map(|name| card(&scene, &format!("gpu/{name}")));
    assert!(
        holders.contains(&"holds") && holders[0] != holders[1],
        "{holders:?}"
    );
    assert_eq!(scene.metric("tabane_gpu_holder").await, 1.0);
    switches as usize
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_and_started_again_disturbs_nobody_for_long() {
    let mut it = Machine::start(12).await;
    let scene = Arc::new(Scene::start(&it.usual()).await);
    let chatting = talk(&scene, &[502, 503, 504]);
    let jobs = submit_all(&scene).await;
    for (i, job) in jobs.iter().enumerate() {
        if i % 8 == 2 {
            let address = it.image.kill().await;
            it.image = Node::start_on(Some(&it.gpu), address, image())
                .await
                .unwrap();
        }
        if i % 8 == 6 {
            let address = it.chat.kill().await;
            sleep(Duration::from_millis(100)).await;
            it.chat = Node::start_on(Some(&it.gpu), address, chat(12))
                .await
                .unwrap();
        }
        scene.until_job(job, "succeeded").await;
    }
    assert!(chatting.end().await > 10);
    it.is_as_it_should_be();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_killed_takes_up_who_holds_the_card() {
    let machine = Machine::start(12).await;
    machine.image.set(|knobs| knobs.work_ms = 100);
    let phoenix = Phoenix::rise(&machine.usual());
    let asking = phoenix.clone();
    let ask = move || {
        let phoenix = asking.clone();
        async move {
            let body = Bytes::from("hello");
            let sent = phoenix.try_send(Method::POST, "/chat", &[], body).await;
            sent.map(|(status, ..)| status.as_u16())
        }
    };
    let chatting = Chatting::start(ask, &[502, 503]);
    let mut jobs = Vec::new();
    for i in 0..JOBS {
        jobs.push(
            phoenix
                .submit("/jobs", &format!("job-{i}"), Bytes::from("{}"))
                .await,
        );
    }
    for (i, job) in jobs.iter().enumerate() {
        if i % 6 == 3 {
            phoenix.die_and_rise();
        }
        let document = phoenix.over(job).await;
        assert_eq!(document["state"], "succeeded", "{document}");
    }
    assert!(chatting.end().await > 10);
    machine.is_as_it_should_be();
    let twice = machine
        .image
        .seen()
        .submits
        .into_values()
        .filter(|n| *n > 1)
        .count();
    assert_eq!(twice, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_comes_before_the_other_has_let_go() {
    let machine = Machine::start(12).await;
    let scene = Arc::new(Scene::start(&machine.usual()).await);
    assert_eq!(say(&scene).await.status, 200);
    machine.chat.set(|knobs| knobs.unload = Unload::Fails);
    let before = machine.gpu.counts().unloads;
    let job = scene.submit("/jobs", "{}").await;
    eventually("it is asked again", || {
        machine.gpu.counts().unloads >= before + 2
    })
    .await;
    assert_eq!(card(&scene, "gpu/image"), "free");
    assert_eq!(scene.get(&job).await.json()["state"], "queued");
    machine.chat.set(|knobs| knobs.unload = Unload::Frees);
    scene.until_job(&job, "succeeded").await;
    machine.is_as_it_should_be();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_says_that_it_let_go_and_did_not_is_found_out() {
    let machine = Machine::start(12).await;
    let scene = Arc::new(Scene::start(&machine.usual()).await);
    assert_eq!(say(&scene).await.status, 200);
    machine.chat.set(|knobs| knobs.unload = Unload::Never);
    let job = scene.submit("/jobs", "{}").await;
    eventually("it says that it let go", || {
        card(&scene, "gpu/chat") == "free"
    })
    .await;
    let probes = machine.image.seen().probes;
    machine.image.until(|seen| seen.probes > probes + 5).await;
    assert_eq!(scene.get(&job).await.json()["state"], "queued");
    assert_eq!(machine.gpu.counts().out_of_memory, 0);
    machine.chat.set(|knobs| knobs.unload = Unload::Frees);
    // Somebody else has it let go.
    let url = format!("{}/unload", machine.chat.url());
    scene
        .send(Request::post(url).body(Full::default()).unwrap())
        .await;
    scene.until_job(&job, "succeeded").await;
    machine.is_as_it_should_be();
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_cannot_let_go_take_turns() {
    let machine = Machine::start(8).await;
    let scene = Arc::new(Scene::start(&machine.yaml("exclusive", ", vram: 8GiB", "")).await);
    let chatting = talk(&scene, &[]);
    for job in submit_all(&scene).await {
        scene.until_job(&job, "succeeded").await;
    }
    assert!(chatting.end().await > 10);
    machine.is_as_it_should_be();
    assert_eq!(machine.gpu.counts().loads, 2, "what is loaded stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn services_that_fit_on_the_card_work_at_once() {
    let machine = Machine::start(8).await;
    let yaml = machine.yaml("fits", ", vram: 8GiB", "release: /unload");
    let scene = Arc::new(Scene::start(&yaml).await);
    machine.chat.set(|knobs| knobs.work_ms = 100);
    let chatting = talk(&scene, &[]);
    for job in submit_all(&scene).await {
        scene.until_job(&job, "succeeded").await;
    }
    chatting.end().await;
    let counts = machine.gpu.counts();
    assert!(
        counts.both_at_work > 10 && counts.out_of_memory == 0,
        "{counts:?}"
    );
    assert_eq!(
        (card(&scene, "gpu/image"), card(&scene, "gpu/chat")),
        ("holds", "holds")
    );
    // Once they do not fit any more, they take turns.
    let yaml = machine.yaml("fits", ", vram: 12GiB", "release: /unload");
    scene.reload(&yaml).await.unwrap();
    let chatting = talk(&scene, &[]);
    let both = |scene: &Scene| {
        let words = [card(scene, "gpu/image"), card(scene, "gpu/chat")];
        words == ["holds", "holds"]
    };
    for job in submit_all(&scene).await {
        scene.until_job(&job, "succeeded").await;
        assert!(!both(&scene));
    }
    assert!(chatting.end().await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_run_keeps_nobody_waiting() {
    let machine = Machine::start(12).await;
    let yaml = machine.usual();
    machine.image.kill().await;
    let scene = Arc::new(Scene::start_unproven(app(), &yaml).await);
    scene.until_state("gpu/chat", "up").await;
    assert_eq!(say(&scene).await.status, 200);
}
