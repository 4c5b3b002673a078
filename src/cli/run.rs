use super::report;
use crate::app::{App, Gateway, Source};
use crate::config::Loaded;
use crate::reload::Trigger;
use crate::telemetry;
use anyhow::{Context, Result};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Runs a gateway until it is told to end.
pub(super) fn run(app: &App, source: Source) -> ExitCode {
    let loaded = match app.load(&source) {
        Ok(loaded) => loaded,
        Err(problems) => {
            report(&problems, "");
            return ExitCode::FAILURE;
        }
    };
    telemetry::init_log(loaded.plan.log.format);
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
    let gateway = app.start(source, loaded).await?;
    announce(&gateway);
    loop {
        tokio::select! {
            _ = hang_up.recv() => {
                // Problems are logged where they are found.
                let _ = gateway.reload(Trigger::Signal).await;
            }
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
    tokio::select! {
        () = gateway.shutdown(grace) => {}
        // Asked twice: at once.
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(())
}

fn announce(gateway: &Gateway) {
    let services = gateway
        .dispatch()
        .services()
        .into_iter()
        .map(|service| service.name)
        .collect::<Vec<_>>()
        .join(", ");
    let addresses = gateway
        .addresses()
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    let admin = gateway
        .admin()
        .map(|admin| admin.to_string())
        .unwrap_or_else(|| "off".into());
    tracing::info!(%addresses, %admin, %services, "tabane is up");
}
