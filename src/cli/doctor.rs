//! `strata doctor`: opens a data directory as the server would and reports what it finds. The server must not be running.

use super::Output;
use crate::settings::{File, ServeArguments, Settings, secrets_key};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub struct DoctorArguments {
    /// Data directory
    #[arg(long, env = "STRATA_DATA", value_name = "DIR", default_value = crate::settings::DEFAULT_DATA)]
    data: PathBuf,
    /// Directory of the models [default: the user's data directory]
    #[arg(long, env = "STRATA_MODELS", value_name = "DIR")]
    models: Option<PathBuf>,
    /// The server's configuration file, which may say the key that seals secrets
    #[arg(long, env = "STRATA_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The key that seals secrets, where it is not the one in `secrets.key`
    #[arg(long, env = "STRATA_SECRETS_KEY", value_name = "KEY", hide_env_values = true)]
    secrets_key: Option<String>,
}

pub fn run(arguments: DoctorArguments, output: Output) -> Result<ExitCode> {
    if !arguments.data.join("catalog.db").is_file() {
        bail!("`{}` is not a data directory: it holds no `catalog.db`", arguments.data.display());
    }
    let serve = ServeArguments {
        data: Some(arguments.data),
        models: arguments.models,
        secrets_key: secrets_key(arguments.secrets_key, arguments.config.as_deref())?,
        ..Default::default()
    };
    let settings = Settings::settle(serve, File::default())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let checks = runtime.block_on(async {
        let engine = strata_engine::Engine::open(strata_engine::Config {
            data_dir: settings.data_dir.clone(),
            models_dir: settings.models_dir,
            secrets_key: settings.secrets_key,
            public_url: crate::settings::DEFAULT_URL.to_owned(),
            workers: settings.workers,
            ..Default::default()
        })
        .await
        .with_context(|| format!("cannot open `{}`", settings.data_dir.display()))?;
        let checks = engine.doctor().await;
        engine.close().await;
        anyhow::Ok(checks?)
    })?;
    let answer: Vec<Value> =
        checks.iter().map(|check| json!({ "name": check.name, "ok": check.ok, "detail": check.detail })).collect();
    output.print(&Value::Array(answer), |out| {
        for check in &checks {
            writeln!(out, "{}  {}: {}", if check.ok { "ok  " } else { "FAIL" }, check.name, check.detail)?;
        }
        Ok(())
    })?;
    Ok(if checks.iter().all(|check| check.ok) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
