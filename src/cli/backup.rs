//! `strata backup` and `strata backups`: make backups of a data directory, whether a server runs on it or not, and look
//! through those that are there.

use super::{Output, table};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use strata_store::{
    backup::{self, Repository, retention},
    seams::System,
};

#[derive(Debug, clap::Args)]
pub struct BackupArguments {
    /// Where to: a directory, made if it is missing, or `s3://bucket/prefix`
    to: String,
    /// Data directory
    #[arg(long, env = "STRATA_DATA", value_name = "DIR", default_value = crate::settings::DEFAULT_DATA)]
    data: PathBuf,
    /// The server's configuration file, to go in; its `[backup]` also says how an object store is reached
    #[arg(long, env = "STRATA_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The server's file of providers, to go in
    #[arg(long, env = "STRATA_PROVIDERS", value_name = "FILE")]
    providers: Option<PathBuf>,
    /// Put `admin.key`, `secrets.key` and the keys of the configuration in, too
    #[arg(long)]
    with_keys: bool,
    /// Then remove all but this many backups of the server [default: none are removed]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep: Option<u32>,
}

#[derive(Debug, clap::Args)]
pub struct BackupsArguments {
    /// A directory, or `s3://bucket/prefix`
    from: String,
    /// The server's configuration file, whose `[backup]` says how an object store is reached
    #[arg(long, env = "STRATA_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Read every part and compare it with its hash
    #[arg(long)]
    verify: bool,
    /// This one only
    #[arg(long, value_name = "ID")]
    backup: Option<String>,
}

pub fn run(arguments: BackupArguments, output: Output) -> Result<()> {
    let files = crate::settings::configuration(
        arguments.config.as_deref(),
        arguments.providers.as_deref(),
        arguments.with_keys,
    )?;
    let access = crate::settings::access(arguments.config.as_deref(), &arguments.to)?;
    let order = strata_engine::backups::order(&arguments.data, files, arguments.with_keys)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (made, pruned) = runtime.block_on(async {
        let seams = System::default();
        let repository = Repository::open_or_make_with(&arguments.to, &access).await?;
        let made = backup::make(&order, &repository, &seams)
            .await
            .with_context(|| format!("cannot back up `{}`", arguments.data.display()))?;
        let pruned = match arguments.keep {
            Some(keep) => {
                let thinned = retention::prune(&repository, &made.source, keep as usize, &seams).await;
                Some(thinned.context("the backup was made, and older ones were not removed")?)
            }
            None => None,
        };
        anyhow::Ok((made, pruned))
    })?;
    if !made.lost.is_empty() {
        eprintln!(
            "warning: {} contents that the catalog names are missing or damaged, and not in the backup\n\nhint: `strata doctor` says more",
            made.lost.len()
        );
    }
    let mut answer = serde_json::to_value(&made)?;
    answer["pruned"] = serde_json::to_value(&pruned)?;
    output.print(&answer, |out| {
        writeln!(out, "{}", made.backup_id)?;
        writeln!(
            out,
            "catalog of {}, {} contents of {}; {} of them new, {} written",
            megabytes(made.catalog_bytes),
            made.blobs,
            megabytes(made.blob_bytes),
            made.new_blobs,
            megabytes(made.written_bytes)
        )?;
        if let Some(pruned) = &pruned {
            let later = if pruned.put_off { "; what they alone named goes next time" } else { "" };
            let freed = megabytes(pruned.size_bytes);
            writeln!(out, "{} old backups removed, {freed} freed{later}", pruned.backups.len())?;
        }
        Ok(())
    })
}

pub fn list(arguments: BackupsArguments, output: Output) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if arguments.verify {
        return verify(&runtime, &arguments, output);
    }
    let access = crate::settings::access(arguments.config.as_deref(), &arguments.from)?;
    let listed = runtime.block_on(async {
        let repository = Repository::open_with(&arguments.from, &access).await?;
        repository.manifests().await
    })?;
    let mut answer = Vec::new();
    let mut rows = Vec::new();
    let mut is_readable = true;
    for one in &listed {
        if arguments.backup.as_ref().is_some_and(|wanted| *wanted != one.backup_id) {
            continue;
        }
        match &one.manifest {
            Ok(manifest) => {
                answer.push(json!({
                    "backup_id": manifest.backup_id,
                    "created_at": manifest.created_at,
                    "strata": manifest.strata,
                    "schema": manifest.schema,
                    "source": manifest.source,
                    "counts": manifest.counts,
                    "catalog_bytes": manifest.catalog.size_bytes,
                    "blobs": manifest.blobs.count,
                    "blob_bytes": manifest.blobs.size_bytes,
                    "files": manifest.files.iter().map(|file| &file.name).collect::<Vec<_>>(),
                    "lost": manifest.lost.len(),
                }));
                rows.push(vec![
                    manifest.backup_id.clone(),
                    manifest.source.clone(),
                    manifest.counts.objects.to_string(),
                    manifest.counts.documents.to_string(),
                    megabytes(manifest.catalog.size_bytes),
                    megabytes(manifest.blobs.size_bytes),
                ]);
            }
            Err(error) => {
                is_readable = false;
                answer.push(json!({ "backup_id": one.backup_id, "error": error.to_string() }));
                rows.push(vec![one.backup_id.clone(), error.to_string()]);
            }
        }
    }
    let header = ["BACKUP", "SERVER", "OBJECTS", "DOCUMENTS", "CATALOG", "CONTENTS"];
    output.print(&Value::Array(answer), |out| table(out, &header, &rows))?;
    Ok(if is_readable { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn verify(runtime: &tokio::runtime::Runtime, arguments: &BackupsArguments, output: Output) -> Result<ExitCode> {
    let access = crate::settings::access(arguments.config.as_deref(), &arguments.from)?;
    let found = runtime.block_on(async {
        let repository = Repository::open_with(&arguments.from, &access).await?;
        backup::verify(&repository, arguments.backup.as_deref()).await
    })?;
    output.print(&serde_json::to_value(&found)?, |out| {
        for one in &found {
            match one.ok {
                true => writeln!(out, "ok    {}", one.backup_id)?,
                false => writeln!(out, "FAIL  {}: {} faults", one.backup_id, one.fault_count)?,
            }
            for fault in &one.faults {
                writeln!(out, "      {fault}")?;
            }
        }
        Ok(())
    })?;
    Ok(if found.iter().all(|one| one.ok) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(super) fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
