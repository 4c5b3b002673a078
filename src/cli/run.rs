use super::manager::Manager;
use super::report;
use crate::app::{App, Gateway, Source};
use crate::config::Loaded;
use crate::dispatch::Dispatch;
use crate::reload::Trigger;
use crate::telemetry::{self, Event, Told};
use anyhow::{Context, Result};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::time::{MissedTickBehavior, interval};

/// Runs a gateway until it is told to end.
pub(super) fn run(app: &App, source: Source) -> ExitCode {
    let loaded = match app.load(&source) {
        Ok(loaded) => loaded,
        Err(problems) => {
            report(&problems, "");
            return ExitCode::FAILURE;
        }
    };
    let log = telemetry::init_log(loaded.plan.log.format);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("tabane")
        .build();
    let ran = runtime
        .context("cannot start the runtime")
        .and_then(|runtime| {
            let ran = runtime.block_on(until_told(app, source, loaded));
            // What is left after the grace is cut; it was logged.
            runtime.shutdown_background();
            ran
        });
    drop(log);
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tabane: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn until_told(app: &App, source: Source, loaded: Loaded) -> Result<()> {
    let mut hang_up = signal(SignalKind::hangup()).context("cannot wait for SIGHUP")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let manager = Arc::new(Manager::from_env());
    let gateway = app.start(source, loaded).await?;
    announce(&gateway);
    let mut events = manager
        .listens()
        .then(|| gateway.dispatch().events().subscribe());
    // Not only once a node is up: that may take longer than the manager waits, and requests can wait, too.
    manager.ready(&serving(&gateway));
    if let Some(patience) = manager.watchdog() {
        let dispatch = gateway.dispatch().clone();
        tokio::spawn(show_life(manager.clone(), dispatch, patience));
    }
    loop {
        tokio::select! {
            _ = hang_up.recv() => {
                manager.reloading();
                // Problems are logged where they are found.
                let _ = gateway.reload(Trigger::Signal).await;
                manager.reloaded();
            }
            told = next(&mut events) => match &told.event {
                Event::Reloaded { .. } => manager.status(&serving(&gateway)),
                Event::ReloadFailed { problems } => manager.status(&refused(&gateway, problems)),
                _ => {}
            },
            _ = terminate.recv() => break,
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    let grace = gateway
        .dispatch()
        .world()
        .map(|world| world.plan.limits.grace)
        .unwrap_or_default();
    tracing::info!(grace_s = grace.as_secs_f64(), "going down");
    manager.stopping(grace);
    tokio::select! {
        () = gateway.shutdown(grace) => {}
        // Asked twice: at once.
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(())
}

fn announce(gateway: &Gateway) {
    let (addresses, services) = (addresses(gateway), services(gateway));
    let admin = admin(gateway);
    tracing::info!(%addresses, %admin, %services, "tabane is up");
}

/// How things stand, in a line.
fn serving(gateway: &Gateway) -> String {
    let (addresses, services) = (addresses(gateway), services(gateway));
    let world = gateway.dispatch().world();
    let generation = world.map_or(0, |world| world.generation);
    let admin = admin(gateway);
    format!("serving {services} on {addresses}; admin {admin}; configuration {generation}")
}

/// The same after a reload whose files had problems.
fn refused(gateway: &Gateway, problems: &[String]) -> String {
    let first = problems.first().map_or("", String::as_str);
    let all = problems.len();
    format!(
        "{}; the files have problems ({all}): {first}",
        serving(gateway)
    )
}

fn services(gateway: &Gateway) -> String {
    let services = gateway.dispatch().services().into_iter();
    services.map(|s| s.name).collect::<Vec<_>>().join(", ")
}

fn addresses(gateway: &Gateway) -> String {
    let addresses = gateway.addresses();
    let shown = addresses.iter().map(ToString::to_string);
    shown.collect::<Vec<_>>().join(", ")
}

fn admin(gateway: &Gateway) -> String {
    let admin = gateway.admin();
    admin.map_or_else(|| "off".into(), |admin| admin.to_string())
}

/// The next event, where anybody wants to know.
async fn next(events: &mut Option<Receiver<Arc<Told>>>) -> Arc<Told> {
    loop {
        let Some(listener) = events else {
            return std::future::pending().await;
        };
        match listener.recv().await {
            Ok(told) => return told,
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => *events = None,
        }
    }
}

/// Shows the service manager that the gateway lives, for as long as it does: from a worker thread, each time
/// after the lock was had that every request needs. Workers that all hang, or a lock that nobody gives back,
/// fall silent, and the manager starts anew.
async fn show_life(manager: Arc<Manager>, dispatch: Dispatch, patience: Duration) {
    let mut beat = interval(patience / 2);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        let _ = dispatch.at_work();
        manager.alive();
    }
}
