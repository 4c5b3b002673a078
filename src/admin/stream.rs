use super::Means;
use axum::extract::{Query, State};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use futures::{Stream, StreamExt};
use serde::Deserialize;
use std::convert::Infallible;
use std::time::Duration;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

/// What a listener wants to hear; nothing said: everything.
#[derive(Deserialize)]
pub(super) struct Filter {
    node: Option<String>,
    service: Option<String>,
}

/// The farm's log in one place, as it happens: server-sent events.
pub(super) async fn events(
    State(means): State<Means>,
    Query(filter): Query<Filter>,
) -> Sse<impl Stream<Item = Result<SseEvent, Infallible>>> {
    let events =
        BroadcastStream::new(means.dispatch.events().subscribe()).filter_map(move |event| {
            let told = match event {
                Ok(event) if event.concerns(filter.node.as_deref(), filter.service.as_deref()) => {
                    SseEvent::default()
                        .id(event.seq.to_string())
                        .event(event.name())
                        .json_data(&event)
                        .ok()
                }
                Ok(_) => None,
                // Whoever reads too slowly is told how much was missed instead of being waited for.
                Err(BroadcastStreamRecvError::Lagged(missed)) => {
                    Some(SseEvent::default().event("missed").data(missed.to_string()))
                }
            };
            std::future::ready(told.map(Ok))
        });
    Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15)))
}
