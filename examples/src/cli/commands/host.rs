//! `key host add|list|remove`: hosts that deposit backups and open nothing.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use backup_core::catalog::Actor;
use backup_core::{Error, HostId, Result};
use backup_storage::{HostFile, HostInfo, Repository};
use clap::{Args, Subcommand};
use serde::Serialize;
use zeroize::Zeroizing;

use super::Context;
use crate::cli::failure::Failure;
use crate::cli::secret;
use crate::table::{Cell, Table};

/// Longer than any file of a host.
const MOST: u64 = 64 << 10;

/// What is to be done.
#[derive(Debug, Subcommand)]
pub(crate) enum HostCommand {
    /// Let a host deposit backups, and make its file
    Add(AddArgs),
    /// List the hosts
    List,
    /// Adopt nothing more of a host
    Remove {
        /// The host, by its name or id
        host: String,
    },
}

/// Options of `add`.
#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// What people call it
    #[arg(required_unless_present = "again")]
    name: Option<String>,
    /// The file for the host, which must not exist
    #[arg(long, value_name = "FILE", required_unless_present = "again")]
    out: Option<PathBuf>,
    /// Add the host of this file once more, after the catalog was rebuilt
    #[arg(long, value_name = "FILE", conflicts_with_all = ["name", "out"])]
    again: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct AddedView<'a> {
    host: HostId,
    label: &'a str,
}

pub(super) async fn run(cx: &mut Context<'_, '_>, command: HostCommand, by: &Actor) -> Result<(), Failure> {
    match command {
        HostCommand::Add(AddArgs { again: Some(again), .. }) => {
            let file = read(cx, &again)?;
            let repository = cx.open().await?;
            repository.add_host_again(&file, by).await?;
            added(cx, &file)
        }
        HostCommand::Add(AddArgs { name: Some(name), out: Some(out), .. }) => {
            if out.exists() {
                return Err(Error::environment(format!("secret file {} exists", out.display())).into());
            }
            let repository = cx.open().await?;
            let file = repository.add_host(&name, by).await?;
            secret::create(&out, &file.to_text()?)?;
            added(cx, &file)
        }
        HostCommand::Add(_) => Err(Error::invalid("neither a name nor a file is given").into()),
        HostCommand::List => list(cx).await,
        HostCommand::Remove { host } => {
            let repository = cx.open().await?;
            let known = find(&repository, &host).await?;
            repository.remove_host(known.host, by).await?;
            if cx.json() {
                return cx.document(&AddedView { host: known.host, label: &known.label });
            }
            cx.line(&format!("nothing that {} deposits is adopted from now on", known.label))
        }
    }
}

/// The file of a host.
pub(super) fn read(cx: &mut Context<'_, '_>, file: &Path) -> Result<HostFile> {
    let at = |e| Error::io(format!("the file of the host {}", file.display()), e);
    let open = File::open(file).map_err(at)?;
    let exposed = open.metadata().map_err(at)?.mode() & 0o004 != 0;
    let mut text = Zeroizing::new(String::new());
    open.take(MOST).read_to_string(&mut text).map_err(at)?;
    if exposed {
        cx.remark(&format!("every user of this machine can read the file of the host {}", file.display()));
    }
    Ok(HostFile::parse(&text)?)
}

async fn find(repository: &Repository, named: &str) -> Result<HostInfo> {
    let hosts = repository.hosts().await?;
    let found = hosts.into_iter().find(|host| host.label == named || host.host.to_string() == named);
    found.ok_or_else(|| Error::invalid(format!("there is no host {named}")))
}

fn added(cx: &mut Context<'_, '_>, file: &HostFile) -> Result<(), Failure> {
    if cx.json() {
        return cx.document(&AddedView { host: file.host(), label: file.label() });
    }
    cx.line(&format!("{} may deposit backups, and opens nothing", file.label()))
}

async fn list(cx: &mut Context<'_, '_>) -> Result<(), Failure> {
    let repository = cx.open().await?;
    let hosts = cx.work().run(async { Ok(repository.hosts().await?) }).await?;
    if cx.json() {
        return cx.document(&hosts);
    }
    let mut table = Table::new(&["host", "name", "since", "newest backup", "is adopted"]);
    for host in &hosts {
        table.row(vec![
            Cell::text(host.host),
            Cell::text(&host.label),
            Cell::text(host.since),
            Cell::text(host.last.map(|backup| backup.to_string()).unwrap_or_default()),
            Cell::text(if host.outdated { "no: it needs another file" } else { "yes" }),
        ]);
    }
    cx.table(&table)
}
