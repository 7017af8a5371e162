//! `key list|add|remove|rotate|generate|host`: who can open the repository, and who may write to it without that.

use std::path::PathBuf;

use backup_core::catalog::{Actor, Role};
use backup_core::{Error, Result};
use backup_crypto::{OsEntropy, Recipient, RecipientId, X25519SecretKey};
use backup_storage::{AddRecipient, ChangedKeys, KeyHolder};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::Context;
use super::host::{self, HostCommand};
use crate::cli::failure::Failure;
use crate::cli::secret;
use crate::table::{Cell, Table};

/// What is to be done.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// List who can open what; no secret is shown
    List,
    /// Let one more open everything that is stored
    Add(AddArgs),
    /// Begin a new key without one of the recipients, and delete what was wrapped for it
    Remove {
        /// The recipient, as `list` shows it
        recipient: String,
        #[command(flatten)]
        others: Others,
    },
    /// Begin a new key for all recipients
    Rotate(Others),
    /// Hosts that only write: they deposit backups, and open nothing
    #[command(subcommand)]
    Host(HostCommand),
    /// Make a key pair; the public key is printed
    Generate {
        /// File for the secret key; it must not exist
        file: PathBuf,
    },
}

/// Options of `add`.
#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// A public key: backup1…
    #[arg(long, value_name = "KEY", required_unless_present = "file", conflicts_with = "file")]
    public: Option<String>,
    /// File whose first line is a passphrase, a key, or a public key
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// What people call it
    #[arg(long)]
    label: Option<String>,
    /// Replace what was wrapped for it before
    #[arg(long)]
    rewrap: bool,
}

/// Those for whom nothing can be wrapped without them.
#[derive(Debug, Args)]
pub(crate) struct Others {
    /// File whose first line is the passphrase or key of one who stays; may be given several times
    #[arg(long = "with", value_name = "FILE")]
    with: Vec<PathBuf>,
}

impl Others {
    fn holders(&self) -> Result<Vec<KeyHolder>> {
        self.with.iter().map(|file| Ok(KeyHolder::Recipient(secret::recipient(file)?))).collect()
    }
}

#[derive(Debug, Serialize)]
struct GeneratedView {
    public: String,
    recipient: String,
}

pub(super) async fn run(cx: &mut Context<'_, '_>, command: KeyCommand) -> Result<(), Failure> {
    let by = Actor::new(Role::Operator, "backupctl");
    match command {
        KeyCommand::List => list(cx).await,
        KeyCommand::Host(command) => host::run(cx, command, &by).await,
        KeyCommand::Generate { file } => generate(cx, &file),
        KeyCommand::Add(args) => {
            let holder = KeyHolder::Recipient(new(&args)?);
            let repository = cx.open().await?;
            let mut options = AddRecipient::default();
            options.label = args.label;
            options.rewrap = args.rewrap;
            let changed = repository.add_recipient(&holder, &options, &by, cx.work()).await?;
            changed_keys(cx, &changed, "can open everything that is stored")
        }
        KeyCommand::Remove { recipient, others } => {
            let recipient: RecipientId =
                recipient.parse().map_err(|e: backup_crypto::Error| Error::invalid(e.to_string()))?;
            let given = others.holders()?;
            let repository = cx.open().await?;
            let changed = repository.remove_recipient(&recipient, &given, &by, cx.work()).await?;
            cx.remark("who has kept an older key can still read what was sealed with it");
            for host in repository.hosts().await?.iter().filter(|host| host.outdated) {
                cx.remark(&format!("host {} needs another file: remove it, and add it again", host.label));
            }
            changed_keys(cx, &changed, "opens nothing that is written from now on")
        }
        KeyCommand::Rotate(others) => {
            let given = others.holders()?;
            let repository = cx.open().await?;
            let changed = repository.rotate_keys(&given, &by, cx.work()).await?;
            changed_keys(cx, &changed, "")
        }
    }
}

fn new(args: &AddArgs) -> Result<Recipient> {
    match (&args.public, &args.file) {
        (Some(public), _) => secret::public(public),
        (None, Some(file)) => secret::recipient(file),
        (None, None) => Err(Error::invalid("nobody is named")),
    }
}

async fn list(cx: &mut Context<'_, '_>) -> Result<(), Failure> {
    let repository = cx.open().await?;
    let report = cx.work().run(async { Ok(repository.keys().await?) }).await?;
    if cx.json() {
        return cx.document(&report);
    }
    let mut table = Table::new(&["recipient", "kind", "label", "epochs", "opens what is written"]);
    for known in &report.recipients {
        let epochs: Vec<_> = known.epochs.iter().map(u32::to_string).collect();
        table.row(vec![
            Cell::text(&known.recipient),
            Cell::text(known.kind.as_deref().unwrap_or("lost")),
            Cell::text(known.label.as_deref().unwrap_or_default()),
            Cell::text(epochs.join(", ")),
            Cell::text(if known.present { "yes" } else { "no" }),
        ]);
    }
    cx.table(&table)?;
    if !report.unfinished.is_empty() {
        cx.remark("a change of the keys is under way or has died: the same change again completes it");
    }
    cx.line(&format!("everything is sealed in epoch {}", report.current))
}

fn generate(cx: &mut Context<'_, '_>, file: &std::path::Path) -> Result<(), Failure> {
    let secret = X25519SecretKey::generate(&OsEntropy);
    let mut text = secret.to_secret_text();
    text.push('\n');
    secret::create(file, &text)?;
    let public = secret.public_key();
    let view = GeneratedView { public: public.to_string(), recipient: public.id().to_string() };
    if cx.json() {
        return cx.document(&view);
    }
    cx.line(&view.public)
}

fn changed_keys(cx: &mut Context<'_, '_>, changed: &ChangedKeys, what: &str) -> Result<(), Failure> {
    for left in &changed.left {
        cx.remark(&format!("{} could not be deleted: {}", left.object, left.reason));
    }
    if cx.json() {
        return cx.document(changed);
    }
    if let Some(recipient) = &changed.recipient {
        cx.line(&format!("{recipient} {what}"))?;
    }
    cx.line(&format!("everything is sealed in epoch {}", changed.epoch))
}
