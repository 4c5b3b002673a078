//! Cards that are too small, and results that do not come off a node.

use super::watcher::Watcher;
use super::{Farm, STUBBORN, farm, spec, times_taken, until_idle, word};
use crate::comfyui::client::images_of;
use crate::comfyui::prompts::{colour, slow};
use crate::comfyui::{More, taken, until};
use serde_json::json;
use tabane_sim::comfy::Saw;

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_for_which_a_card_is_too_small_is_made_on_a_bigger_one_and_nobody_hears_of_it() {
    let small = spec("a").knobs(tabane_sim::comfy::ComfyKnobs {
        out_of_memory_at: Some("TestSleep".into()),
        ..Default::default()
    });
    let farm = Farm::start(vec![small, spec("b")], STUBBORN).await;
    let client = farm.client("c");
    let hears = Watcher::of(farm.scene.address(), "c").await;
    farm.only("a").await;
    let id = client.submit(&slow(0.2, 1)).await;
    until(farm.node("a"), |saw| matches!(saw, Saw::Ended { .. })).await;
    farm.all().await;
    hears.hears_once(&id, "execution_success").await;
    assert_eq!(taken(farm.node("b")), std::slice::from_ref(&id));
    assert_eq!(word(&client.finished(&id).await), "execution_success");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_for_which_all_cards_are_too_small_ends_with_an_error_that_says_so() {
    let more = More {
        service: "jobs: {attempts: 2, backoff: [50ms]}",
        ..STUBBORN
    };
    let farm = Farm::start(vec![spec("a")], more).await;
    farm.node("a")
        .set(|knobs| knobs.out_of_memory_at = Some("TestSleep".into()));
    let client = farm.client("c");
    let hears = Watcher::of(farm.scene.address(), "c").await;
    let id = client.submit(&slow(0.2, 1)).await;
    hears.hears_once(&id, "execution_error").await;
    let entry = client.finished(&id).await;
    let told = entry["status"]["messages"].to_string();
    assert!(told.contains("memory"), "{told}");
    assert_eq!(taken(farm.node("a")).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_output_of_a_prompt_is_told_once_and_kept() {
    let farm = farm(1).await;
    let client = farm.client("c");
    let hears = Watcher::of(farm.scene.address(), "c").await;
    let mut prompt = colour(1, "first");
    prompt["3"] = json!({"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "second"}});
    let id = client.submit(&prompt).await;
    hears.hears_once(&id, "execution_success").await;
    let kinds = hears.kinds(&id);
    let shown = kinds.iter().filter(|kind| *kind == "executed").count();
    assert_eq!(shown, 2, "{kinds:?}");
    let entry = client.finished(&id).await;
    assert_eq!(images_of(&entry).len(), 2);
    assert_eq!(client.images(&entry).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_a_node_does_not_give_at_once_are_asked_for_again() {
    let farm = farm(1).await;
    let client = farm.client("c");
    let hears = Watcher::of(farm.scene.address(), "c").await;
    farm.node("a").set(|knobs| knobs.view_status = Some(500));
    let id = client.submit(&colour(1, "x")).await;
    until(
        farm.node("a"),
        |saw| matches!(saw, Saw::Request { path, .. } if path.starts_with("/view")),
    )
    .await;
    assert_eq!(hears.ends(&id).nulls, 0);
    farm.node("a").set(|knobs| knobs.view_status = None);
    hears.hears_once(&id, "execution_success").await;
    assert!(hears.kinds(&id).contains(&"executed".to_owned()));
    assert_eq!(times_taken(&farm.nodes, &id), 1, "it is not made twice");
    let entry = client.finished(&id).await;
    assert_eq!(client.images(&entry).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_a_node_never_gives_are_made_by_another() {
    let farm = farm(2).await;
    let client = farm.client("c");
    let hears = Watcher::of(farm.scene.address(), "c").await;
    farm.node("a").set(|knobs| knobs.view_status = Some(500));
    farm.only("a").await;
    let id = client.submit(&colour(1, "x")).await;
    until(farm.node("a"), |saw| matches!(saw, Saw::Ended { .. })).await;
    farm.all().await;
    hears.hears_once(&id, "execution_success").await;
    assert_eq!(taken(farm.node("b")), std::slice::from_ref(&id));
    let entry = client.finished(&id).await;
    assert_eq!(client.images(&entry).await.len(), 1);
    until_idle(&farm.nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_no_node_gives_are_an_error_that_says_why() {
    let more = More {
        service: "jobs: {attempts: 2, backoff: [50ms]}",
        ..STUBBORN
    };
    let farm = Farm::start(vec![spec("a")], more).await;
    farm.node("a").set(|knobs| knobs.view_status = Some(500));
    let client = farm.client("c");
    let hears = Watcher::of(farm.scene.address(), "c").await;
    let id = client.submit(&colour(1, "x")).await;
    hears.hears_once(&id, "execution_error").await;
    let told = client.finished(&id).await["status"]["messages"].to_string();
    assert!(told.contains("/view"), "{told}");
    assert_eq!(
        times_taken(&farm.nodes, &id),
        1,
        "what is made is not made again by who has it"
    );
}
