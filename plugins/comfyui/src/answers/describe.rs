//! What the nodes are, all of them as one.

use super::Call;
use crate::attend;
use crate::farm::Merged;
use crate::json::{Json, Object, object};
use crate::kind::Comfyui;
use crate::needs::Folder;
use crate::reply::{Reply, ok};
use futures::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// What nodes said of themselves within this is taken as new.
const FRESH: Duration = Duration::from_secs(2);

/// How long nodes are waited for that are asked what they can do: the others do not wait for one that does not answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a pool of which nobody is known yet is waited for: it was put together a moment ago, or all are down.
const NEW: Duration = Duration::from_secs(5);

impl Call<'_> {
    /// `GET /object_info`, `GET /object_info/{class}`
    pub(super) async fn object_info(&self, class: Option<&str>) -> Reply {
        refresh(self.kind, FRESH).await;
        let Ok(merged) = timeout(NEW, self.until_told()).await else {
            return Err(tabane_api::Refusal::Overloaded(
                "no ComfyUI node has said yet what it can do; try again soon".into(),
            ));
        };
        let uploaded = match self.kind.files() {
            Ok(files) => files.names(Folder::Input).await.unwrap_or_default(),
            Err(_) => Vec::new(),
        };
        let told = match class {
            None => merged.info.with_files(None, &uploaded),
            Some(class) => merged.info.with_files(Some(class), &uploaded),
        };
        Ok(ok(&told))
    }

    /// All nodes as one: where all that are in the pool are new, as soon as one has said what it can do.
    async fn until_told(&self) -> Arc<Merged> {
        let farm = &self.kind.desk.farm;
        loop {
            let version = farm.version();
            match self.kind.merged() {
                Some(merged) => return merged,
                None => farm.says_more(version).await,
            }
        }
    }

    /// `GET /system_stats`: the home node's system, and the cards of all.
    pub(super) fn system_stats(&self) -> Json {
        let nodes = self.kind.nodes();
        let told: Vec<_> = nodes
            .iter()
            .filter_map(|node| Some((node.short.clone(), node.told().stats?)))
            .collect();
        let mut system = match told.first().and_then(|(_, stats)| stats.get("system")) {
            Some(Json::Object(system)) => system.clone(),
            _ => Object::new(),
        };
        for key in ["ram_total", "ram_free"] {
            if told.len() > 1 {
                let all = told
                    .iter()
                    .filter_map(|(_, stats)| stats.get("system")?.get(key)?.number()?.integer());
                let sum = i64::try_from(all.sum::<i128>()).unwrap_or(i64::MAX);
                system.insert(key.into(), Json::integer(sum));
            }
        }
        let mut devices = Vec::new();
        for (name, stats) in &told {
            for device in stats.get("devices").and_then(Json::list).unwrap_or(&[]) {
                let mut device = device.clone();
                if told.len() > 1
                    && let Json::Object(device) = &mut device
                {
                    if let Some(Json::Text(own)) = device.get_mut("name") {
                        own.insert_str(0, &format!("{name}: "));
                    }
                    let index = i64::try_from(devices.len()).unwrap_or_default();
                    device.insert("index".into(), Json::integer(index));
                }
                devices.push(device);
            }
        }
        object! {"system": system, "devices": Json::List(devices)}
    }
}

/// What the service says that it can: what all nodes can, and what the gateway does for them.
pub fn features(kind: &Comfyui) -> Json {
    let merged = kind.merged();
    let mut all = match merged.as_ref().map(|merged| merged.features.clone()) {
        Some(Json::Object(features)) => features,
        _ => Object::new(),
    };
    all.insert("supports_preview_metadata".into(), true.into());
    let most = merged.and_then(|merged| merged.max_upload);
    let most = most.unwrap_or(crate::files::MOST_UPLOAD as i64);
    all.insert("max_upload_size".into(), Json::integer(most));
    if all.contains_key("assets") {
        all.insert("assets".into(), false.into());
    }
    all.into()
}

/// Asks all nodes that are well what they can do, unless they said so within `fresh`.
pub(super) async fn refresh(kind: &Comfyui, fresh: Duration) {
    let usable = kind.endpoints().into_iter().filter(|at| at.usable);
    let asked = usable.filter_map(|at| {
        let node = kind.desk.farm.node(at.id, &at.name);
        let client = kind.client(at.id)?;
        let kind = kind.clone();
        Some(async move {
            // To its end, whether or not whoever asked stays: the next one has it then.
            let asked =
                tokio::spawn(async move { attend::ask(&kind, &node, &*client, fresh).await });
            let _ = timeout(PATIENCE, asked).await;
        })
    });
    join_all(asked.collect::<Vec<_>>()).await;
}
