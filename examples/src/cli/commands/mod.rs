//! One file per command. Each gets a [`Context`] and its own options, and says its result once, at the end.

pub(crate) mod adopt;
pub(crate) mod backup;
pub(crate) mod collect;
pub(crate) mod compact;
pub(crate) mod drill;
pub(crate) mod expire;
pub(crate) mod export;
pub(crate) mod hold;
pub(crate) mod host;
mod init;
pub(crate) mod key;
mod list;
pub(crate) mod log;
pub(crate) mod look;
pub(crate) mod plan;
pub(crate) mod rebuild;
pub(crate) mod repair;
pub(crate) mod replicate;
pub(crate) mod restore;
pub(crate) mod service;
pub(crate) mod show;
pub(crate) mod verify;
mod windows;

use std::path::Path;
use std::sync::Arc;

use backup_core::catalog::BackupRecord;
use backup_core::engine::Work;
use backup_core::{Error, Finding, Result, ServiceId, Severity};
use backup_crypto::{Identity, Passphrase};
use backup_storage::{DepositRepository, Repository};
use clap::CommandFactory;
use clap::error::ErrorKind as Misuse;
use serde::Serialize;

use super::args::{Cli, Command, Global};
use super::failure::Failure;
use super::host::Host;
use super::vault::Place;
use super::{passphrase, secret};
use crate::progress::Bars;
use crate::table::{Cell, Table};

/// Runs one command.
pub(crate) async fn run(mut cx: Context<'_, '_>, command: Command) -> Result<(), Failure> {
    let outcome = match command {
        Command::Init => init::run(&mut cx).await,
        Command::Adopt(args) => adopt::run(&mut cx, args).await,
        Command::Backup(engine) => backup::run(&mut cx, engine).await,
        Command::Log(engine) => log::run(&mut cx, engine).await,
        Command::Collect(args) => collect::run(&mut cx, args).await,
        Command::Compact(args) => compact::run(&mut cx, args).await,
        Command::Drill(engine) => drill::run(&mut cx, engine).await,
        Command::Expire(args) => expire::run(&mut cx, args).await,
        Command::Export(command) => export::run(&mut cx, command).await,
        Command::Gc(args) => collect::gc(&mut cx, args).await,
        Command::Hold(command) => hold::run(&mut cx, command).await,
        Command::Key(command) => key::run(&mut cx, command).await,
        Command::List => list::run(&mut cx).await,
        Command::Windows => windows::run(&mut cx).await,
        Command::Look(command) => look::run(&mut cx, command).await,
        Command::Show(args) => show::run(&mut cx, args).await,
        Command::Plan(engine) => plan::run(&mut cx, engine).await,
        Command::Rebuild(args) => rebuild::run(&mut cx, args).await,
        Command::Reinstate(args) => collect::reinstate(&mut cx, args).await,
        Command::Repair(args) => repair::run(&mut cx, args).await,
        Command::Replicate(args) => replicate::run(&mut cx, args).await,
        Command::Restore(engine) => restore::run(&mut cx, engine).await,
        Command::Service(args) => service::run(&mut cx, args).await,
        Command::Verify(args) => verify::run(&mut cx, args).await,
    };
    cx.clear_progress();
    let flushed = cx.host.stdout.flush();
    outcome.and_then(|()| Ok(flushed?))
}

/// What every command has: the surroundings, the global options, and the work that it does.
pub(crate) struct Context<'a, 'h> {
    host: &'a mut Host<'h>,
    global: &'a Global,
    work: Work,
    bars: Option<Arc<Bars>>,
}

impl<'a, 'h> Context<'a, 'h> {
    pub(crate) fn new(host: &'a mut Host<'h>, global: &'a Global) -> Self {
        let mut work = Work::new(host.env.clone()).with_cancel(host.cancel.clone());
        let bars = (host.terminals.stderr && !global.json && !global.quiet).then(|| Arc::new(Bars::on_stderr()));
        if let Some(bars) = &bars {
            work = work.with_observer(Arc::<Bars>::clone(bars));
        }
        Self { host, global, work, bars }
    }

    /// The work of this command: observed and cancellable.
    fn work(&self) -> &Work {
        &self.work
    }

    fn json(&self) -> bool {
        self.global.json
    }

    /// Removes what progress has drawn, so that results are not written into it.
    fn clear_progress(&self) {
        if let Some(bars) = &self.bars {
            bars.clear();
        }
    }

    /// Opens the repository that the options name.
    async fn open(&mut self) -> Result<Repository, Failure> {
        let place = self.place()?;
        Ok(place.open(&self.work).await?)
    }

    /// Opens the repository as the host of `file`, which only writes and remembers its backups in the folder `state`.
    async fn open_as_host(&mut self, file: &Path, state: Option<&Path>) -> Result<DepositRepository, Failure> {
        let file = host::read(self, file)?;
        let named = self.global.service.as_deref().or_else(|| self.host.variable("BACKUP_SERVICE"));
        if let Some(named) = named.filter(|named| *named != file.service().as_str()) {
            let own = file.service();
            return Err(Error::invalid(format!("the file of the host is for service {own}, not for {named}")).into());
        }
        Ok(super::vault::open_as_host(&self.vault_url()?, file, state, &self.work).await?)
    }

    fn place(&mut self) -> Result<Place, Failure> {
        let vault = self.vault_url()?;
        let service = self.service_name()?;
        let identity = self.identity()?;
        Ok(Place { vault, service, identity })
    }

    fn vault_url(&self) -> Result<String, Failure> {
        self.option("--vault <URL>", self.global.vault.as_deref(), "BACKUP_VAULT")
    }

    fn service_name(&self) -> Result<String, Failure> {
        self.option("--service <NAME>", self.global.service.as_deref(), "BACKUP_SERVICE")
    }

    /// The service that is named.
    fn service_id(&self) -> Result<ServiceId, Failure> {
        Ok(ServiceId::new(self.service_name()?)?)
    }

    /// Whether a service is named.
    fn has_service(&self) -> bool {
        self.service_name().is_ok()
    }

    /// As whom repositories are opened.
    fn identity(&mut self) -> Result<Identity, Failure> {
        match &self.global.key_file {
            Some(file) => Ok(secret::identity(file)?),
            None => Ok(self.passphrase()?.into()),
        }
    }

    fn passphrase(&mut self) -> Result<Passphrase, Failure> {
        Ok(match &self.global.passphrase_file {
            Some(file) => {
                let read = passphrase::from_file(file)?;
                if read.exposed {
                    self.remark(&format!("every user of this machine can read the passphrase in {}", file.display()));
                }
                read.passphrase
            }
            None => match self.host.variable("BACKUP_PASSPHRASE") {
                Some(value) => passphrase::from_variable(value)?,
                None => return Err(missing("--passphrase-file <FILE>", "BACKUP_PASSPHRASE")),
            },
        })
    }

    fn option(&self, option: &str, given: Option<&str>, variable: &str) -> Result<String, Failure> {
        let value = given.or_else(|| self.host.variable(variable));
        value.map(str::to_owned).ok_or_else(|| missing(option, variable))
    }

    /// A warning for a person. Programs find the same in the JSON document where it matters to them.
    fn remark(&mut self, text: &str) {
        if !self.global.quiet && !self.global.json {
            self.clear_progress();
            // Whether anybody reads it does not change what is done.
            let _ = writeln!(self.host.stderr, "warning: {text}");
        }
    }

    /// The findings that a person should know of.
    fn remark_findings(&mut self, findings: &[Finding]) {
        for finding in findings.iter().filter(|f| f.severity >= Severity::Warning) {
            self.remark(&finding.to_string());
        }
    }

    /// Writes the one JSON document.
    fn document(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value)
            .map_err(|e| Error::internal("the result has no form in JSON").with_source(e))?;
        Ok(writeln!(self.host.stdout, "{text}")?)
    }

    /// Writes a table, or plain lines where nobody looks.
    fn table(&mut self, table: &Table) -> Result<(), Failure> {
        self.clear_progress();
        Ok(table.write(self.host.stdout, self.host.terminals.stdout)?)
    }

    /// Writes a line for people.
    fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.clear_progress();
        Ok(writeln!(self.host.stdout, "{text}")?)
    }
}

/// Neither the option nor its variable was given: as wrong as any other command line.
fn missing(option: &str, variable: &str) -> Failure {
    let message = format!("the required argument {option} was not given and {variable} is not set");
    Failure::Usage(Cli::command().error(Misuse::MissingRequiredArgument, message))
}

/// A target as it may be shown: results end up in logs, where the password of a URL does not belong.
fn without_password(into: &str) -> String {
    let shown = || {
        let (scheme, rest) = into.split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next()?;
        let (user, _) = authority.rsplit_once('@')?;
        let (name, _) = user.split_once(':')?;
        Some(format!("{scheme}://{name}:***{}", rest.get(user.len()..)?))
    };
    shown().unwrap_or_else(|| into.to_owned())
}

/// What a person wants to know of one backup.
fn describe(backup: &BackupRecord) -> Table {
    let mut table = Table::new(&[]);
    let mut row = |name: &str, value: Cell| table.row(vec![Cell::text(name), value]);
    row("backup", Cell::text(backup.id));
    row("service", Cell::text(&backup.service));
    row("engine", Cell::text(&backup.snapshot.engine));
    row("kind", Cell::text(backup.kind));
    if let Some(parent) = backup.parent {
        row("parent", Cell::text(parent));
    }
    row("started at", Cell::text(backup.started_at));
    row("ended at", Cell::text(backup.ended_at));
    row("data", Cell::Bytes(backup.data_bytes));
    row("new", Cell::Bytes(backup.new_bytes));
    row("stored", Cell::Bytes(backup.stored_bytes));
    row("entries", Cell::Count(backup.entries));
    if let Some(position) = &backup.snapshot.stop {
        row("position", Cell::text(position));
    }
    table
}
