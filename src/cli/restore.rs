//! `strata restore`: a new data directory out of a backup. The server is started on it afterwards, and builds its index.

use super::{Output, backup::megabytes};
use anyhow::{Context, Result};
use std::path::PathBuf;
use strata_store::backup::{self, Repository, Wanted};

#[derive(Debug, clap::Args)]
pub struct RestoreArguments {
    /// Where from: a directory, or `s3://bucket/prefix`
    from: String,
    /// The server's configuration file, whose `[backup]` says how an object store is reached
    #[arg(long, env = "STRATA_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data directory to make; it must be empty or missing
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Which backup [default: the newest]
    #[arg(long, value_name = "ID")]
    backup: Option<String>,
    /// Leave out contents that are missing or damaged in the backup, instead of refusing to restore
    #[arg(long)]
    skip_damaged: bool,
}

pub fn run(arguments: RestoreArguments, output: Output) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let RestoreArguments { from, config, data, backup: backup_id, skip_damaged } = arguments;
    let access = crate::settings::access(config.as_deref(), &from)?;
    let wanted = Wanted { backup_id, data_dir: data.clone(), skip_damaged };
    let restored = runtime.block_on(async {
        let repository = Repository::open_with(&from, &access).await?;
        backup::restore(&repository, &wanted).await
    });
    let restored = restored.with_context(|| format!("cannot restore into `{}`", data.display()))?;
    if !restored.lost.is_empty() {
        eprintln!("warning: {} contents that the catalog names are not there", restored.lost.len());
    }
    output.print(&serde_json::to_value(&restored)?, |out| {
        writeln!(
            out,
            "{} is in {}: catalog of {}, {} contents of {}",
            restored.backup_id,
            data.display(),
            megabytes(restored.catalog_bytes),
            restored.blobs,
            megabytes(restored.blob_bytes)
        )?;
        if !restored.files.is_empty() {
            writeln!(out, "beside them: {}", restored.files.join(", "))?;
        }
        Ok(())
    })
}
