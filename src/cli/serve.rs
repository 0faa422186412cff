//! `strata serve`: opens the engine, listens, and closes cleanly on an interrupt or a termination signal.

use super::Output;
use crate::settings::{File, ServeArguments, Settings};
use anyhow::{Context, Result};
use std::io::IsTerminal;
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;

pub fn run(arguments: ServeArguments, output: Output) -> Result<()> {
    start_logs(output);
    if let Ok(fault) = std::env::var("STRATA_FAULT") {
        strata_engine::arm_fault(&fault)?;
        tracing::warn!(fault, "a fault is armed: this server is being tested");
    }
    let file = File::read(arguments.config.as_deref())?;
    let settings = Settings::settle(arguments, file)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(settings))
}

async fn serve(settings: Settings) -> Result<()> {
    // The address is taken first: a second server on the same port must fail before it touches the data.
    let listener =
        TcpListener::bind(settings.listen).await.with_context(|| format!("cannot listen on {}", settings.listen))?;
    let serving = settings.protection.serving()?;
    let scheme = if serving.tls.is_some() { "https" } else { "http" };
    let address = format!("{scheme}://{}", listener.local_addr()?);
    let engine = strata_engine::Engine::open(strata_engine::Config {
        data_dir: settings.data_dir.clone(),
        models_dir: settings.models_dir,
        bootstrap_key: settings.bootstrap_key,
        secrets_key: settings.secrets_key,
        public_url: settings.public_url.unwrap_or_else(|| address.clone()),
        allow_private_urls: settings.allow_private_urls,
        sql_files: settings.sql_files,
        trust_proxy: settings.trust_proxy,
        workers: settings.workers,
        providers: settings.providers,
        extractor_endpoints: settings.extractor_endpoints,
        rotate_signing_every: Some(settings.rotate_signing_every),
        backups: settings.backups,
        webhook_tries: Some(settings.webhook_tries),
        allowed: settings.protection.allowed,
    })
    .await
    .with_context(|| format!("cannot open `{}`", settings.data_dir.display()))?;
    if let Some(key) = engine.first_key() {
        eprintln!("API key, shown this once: {key}");
        eprintln!("it is also in {}", settings.data_dir.join("admin.key").display());
    }
    // Read by people and by programs that start a server on port 0.
    eprintln!("listening on {address}");
    let stop = stop_signal()?;
    strata_http::serve(engine.clone(), listener, serving, stop).await.context("the server stopped")?;
    engine.close().await;
    Ok(())
}

/// Ends when the process is asked to stop. The handlers are in place when this returns, so that a signal right after
/// the start is not missed.
fn stop_signal() -> Result<impl Future<Output = ()> + Send + 'static> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        Ok(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            tracing::info!("stopping: open requests are finished first");
        })
    }
    #[cfg(not(unix))]
    {
        Ok(async {
            if let Err(error) = tokio::signal::ctrl_c().await {
                tracing::error!(%error, "cannot wait for the interrupt");
            }
        })
    }
}

/// Logs go to stderr; `STRATA_LOG` filters them as `RUST_LOG` would, and `--json` writes one JSON object a line.
fn start_logs(output: Output) {
    let filter = EnvFilter::try_from_env("STRATA_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if output.json {
        logs.json().init();
    } else {
        logs.with_ansi(std::io::stderr().is_terminal()).init();
    }
}
