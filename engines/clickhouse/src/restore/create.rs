//! Makes databases, functions and tables in a server.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::engine::RestoreContext;
use backup_core::{Error, Finding, Result, Severity};
use serde::Deserialize;

use super::plan::Plan;
use super::rows;
use super::settings::{OnExisting, RestoreSettings};
use crate::client::Client;
use crate::ddl::{self, Statement, Verb, quote};
use crate::files::blocking;
use crate::server::{DatabaseDef, Server, TableDef, TableKey, homes};

/// Runs definitions.
pub(super) struct Maker<'a> {
    cx: &'a RestoreContext,
    /// With the settings that let everything be made which could be made once.
    client: Client,
    server: &'a Server,
    settings: &'a RestoreSettings,
}

impl<'a> Maker<'a> {
    /// Asks the server which settings it has that forbid definitions.
    ///
    /// # Errors
    /// Those of the server and of the connection.
    pub(super) async fn new(
        cx: &'a RestoreContext,
        client: &Client,
        server: &'a Server,
        settings: &'a RestoreSettings,
    ) -> Result<Self> {
        #[derive(Deserialize)]
        struct Row {
            name: String,
        }
        // What was allowed when a table was made need not be so for whoever restores it.
        let sql = r"SELECT name FROM system.settings WHERE match(name, '^allow_(experimental|suspicious|deprecated)_')
                    AND value IN ('0', 'false') AND name NOT LIKE '%analyzer%' AND name NOT LIKE '%parallel%'";
        let rows: Vec<Row> = client.rows("its settings", sql).await?;
        let mut parameters: Vec<_> = rows.into_iter().map(|row| (row.name, "1".to_owned())).collect();
        let sql = "SELECT name FROM system.settings WHERE name = 'flatten_nested'";
        if !client.rows::<Row>("its settings", sql).await?.is_empty() {
            // Definitions are as they were behind the flattening.
            parameters.push(("flatten_nested".to_owned(), "0".to_owned()));
        }
        Ok(Self { cx, client: client.clone().with_parameters(parameters), server, settings })
    }

    /// Drops what is to be replaced: views before what they are of.
    pub(super) async fn drop_all(&self, plan: &Plan, existing: &BTreeMap<TableKey, TableDef>) -> Result<()> {
        for table in plan.tables.iter().rev() {
            self.cx.work().checkpoint()?;
            let target = self.settings.target(&table.key);
            if self.settings.rule(&target) != OnExisting::Replace {
                continue;
            }
            let Some(old) = existing.get(&target).filter(|old| !old.is_inner()) else { continue };
            let kind = if old.engine == "Dictionary" { "DICTIONARY" } else { "TABLE" };
            self.drop(kind, &target).await?;
        }
        Ok(())
    }

    async fn drop(&self, kind: &str, table: &TableKey) -> crate::Result<()> {
        let sync = if self.server.version.since(21, 1) { " SYNC" } else { "" };
        let sql = format!("DROP {kind} IF EXISTS {}{sync}", table.quoted());
        self.client.execute(&format!("dropping {table}"), &sql).await
    }

    /// Whether the directories are the server's own: a table is made whose directory must appear. Before anything is dropped.
    ///
    /// # Errors
    /// [`Environment`](backup_core::ErrorKind::Environment) when it does not.
    pub(super) async fn prove(&self, plan: &Plan) -> Result<()> {
        let Some(table) = plan.contents.iter().find(|(_, content)| !content.parts.is_empty()).map(|(table, _)| table)
        else {
            return Ok(());
        };
        let database = self.settings.target(table).database;
        let number = u64::from_le_bytes(self.cx.work().env().random());
        let probe = TableKey::new(database, format!("backup_library_probe_{number:016x}"));
        let sql = format!("CREATE TABLE {} (x UInt8) ENGINE = MergeTree ORDER BY x", probe.quoted());
        self.client.execute("a table by which its directory is known", &sql).await?;
        let seen = self.sees(&probe).await;
        self.drop("TABLE", &probe).await?;
        if seen? {
            return Ok(());
        }
        let dir = self.server.default_disk()?.dir.display();
        Err(Error::environment(format!("{dir} is not the data directory of the server that answers")))
    }

    async fn sees(&self, probe: &TableKey) -> Result<bool> {
        let tables = self.server.tables(&self.client).await?;
        let found = tables.get(probe).into_iter().flat_map(|table| homes(&self.server.disks, table));
        let homes: Vec<_> = found.map(|(_, home)| home).collect();
        blocking(move || Ok(homes.iter().any(|dir| dir.is_dir()))).await
    }

    /// Makes the databases of the plan that are not there.
    pub(super) async fn databases(&self, plan: &Plan) -> Result<()> {
        for database in &plan.databases {
            self.database(database).await?;
        }
        for name in plan.tables.iter().map(|table| self.settings.target(&table.key).database).collect::<BTreeSet<_>>() {
            let sql = format!("CREATE DATABASE IF NOT EXISTS {}", quote::identifier(&name));
            self.client.execute(&format!("making the database {name}"), &sql).await?;
        }
        Ok(())
    }

    /// Makes everything of the plan that is not there.
    pub(super) async fn make(&self, plan: &Plan) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        for function in &plan.functions {
            if let Err(error) =
                self.client.execute(&format!("making the function {}", function.name), &function.create).await
            {
                if !self.exists(&function.name).await? {
                    return Err(error.into());
                }
                let text = "exists already and stays as it is";
                findings.push(Finding::new(Severity::Note, "function-exists", text).about(function.name.clone()));
            }
        }
        findings.extend(self.tables(plan).await?);
        Ok(findings)
    }

    /// Makes the tables in their order. What cannot be made because something is missing is tried again behind the others: an order that
    /// is read from statements is not always whole.
    async fn tables(&self, plan: &Plan) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        // The server makes the table behind a view with its view.
        let inner = |table: &&TableDef| table.is_inner() && plan.tables.iter().any(|view| view.inner() == table.key);
        let mut waiting: Vec<_> = plan.tables.iter().filter(|table| !inner(table)).collect();
        let mut attach = false;
        while !waiting.is_empty() {
            let before = waiting.len();
            let mut later = Vec::new();
            for table in waiting {
                self.cx.work().checkpoint()?;
                let in_circle = attach && plan.circles.contains(&table.key);
                match self.table(table, in_circle).await {
                    Ok(()) => findings.extend(rows::insert(self.cx, &self.client, self.settings, table).await?),
                    Err(error) if error.0 => later.push((table, error.1)),
                    Err(error) => return Err(error.1),
                }
            }
            if later.len() == before {
                let circle = later.iter().any(|(table, _)| plan.circles.contains(&table.key));
                match later.pop() {
                    Some((_, error)) if attach || !circle => return Err(error),
                    Some(last) => later.push(last),
                    None => {}
                }
                attach = true;
            }
            waiting = later.into_iter().map(|(table, _)| table).collect();
        }
        Ok(findings)
    }

    async fn database(&self, database: &DatabaseDef) -> Result<()> {
        let name = self.settings.databases.get(&database.name).unwrap_or(&database.name);
        // What a server makes by itself: the other engines lead elsewhere, or are made by their tables.
        let engine = match (&database.engine_full, database.engine.as_str()) {
            (_, "Atomic" | "Ordinary" | "Memory" | "Overlay") => String::new(),
            (Some(full), _) => format!(" ENGINE = {full}"),
            (None, engine) => format!(" ENGINE = {engine}"),
        };
        let sql = format!("CREATE DATABASE IF NOT EXISTS {}{engine}", quote::identifier(name));
        Ok(self.client.execute(&format!("making the database {name}"), &sql).await?)
    }

    async fn exists(&self, function: &str) -> Result<bool> {
        #[derive(Deserialize)]
        struct Row {
            #[expect(dead_code, reason = "only whether there is one")]
            name: String,
        }
        let sql = format!("SELECT name FROM system.functions WHERE name = {}", quote::string(function));
        Ok(!self.client.rows::<Row>("its functions", &sql).await?.is_empty())
    }

    /// Makes one table. The error comes with whether something else was missing.
    async fn table(&self, table: &TableDef, in_circle: bool) -> Result<(), (bool, Error)> {
        let target = self.settings.target(&table.key);
        let mut statement = self.statement(table, &target).map_err(|error| (false, error))?;
        if in_circle {
            // Attaching looks at nothing that is referred to. Where there are UUIDs, it must say one.
            let attached =
                statement.with_verb(Verb::Attach).and_then(|statement| match self.server.has("tables", "uuid") {
                    true => statement.with_uuid(&uuid(self.cx.work().env().random())),
                    false => Ok(statement),
                });
            statement = attached.map_err(|error| (false, unreadable(table, error)))?;
        }
        let what = format!("making {target}");
        let mut made = self.client.execute(&what, statement.text()).await;
        let exists = matches!(made, Err(crate::Error::Server { code: TABLE_EXISTS, .. }));
        if exists && self.settings.rule(&target) == OnExisting::Replace {
            made = self.replace_unloaded(&target, &what, statement.text()).await;
        }
        match made {
            Ok(()) => Ok(()),
            Err(_) if exists && self.settings.rule(&target) == OnExisting::Add => Ok(()),
            Err(error) => Err((error.is_gone(), error.into())),
        }
    }

    /// Makes a table in place of one that is not loaded, which no list of tables has: a restore that was killed may leave one.
    async fn replace_unloaded(&self, table: &TableKey, what: &str, statement: &str) -> crate::Result<()> {
        self.client.execute(&format!("loading {table}"), &format!("ATTACH TABLE {}", table.quoted())).await?;
        self.drop("TABLE", table).await?;
        self.client.execute(what, statement).await
    }

    /// The statement that makes `table` under the name `target`, and refers to others by their new names.
    fn statement(&self, table: &TableDef, target: &TableKey) -> Result<Statement> {
        let change = || -> ddl::Result<Statement> {
            let mut statement = Statement::parse(table.create.clone())?.without_uuid()?;
            if self.settings.unreplicated && statement.replication().is_some() {
                statement = statement.unreplicated()?;
            }
            if !self.settings.renames() {
                return Ok(statement);
            }
            let redirected = statement.redirected(|reference| {
                let database = reference.database.as_ref().unwrap_or(&table.key.database);
                let old = TableKey::new(database.clone(), reference.name.clone());
                let new = self.settings.target(&old);
                (new != old).then_some((new.database, new.name))
            })?;
            redirected.renamed(Some(&target.database), &target.name)
        };
        change().map_err(|error| unreadable(table, error))
    }
}

/// `TABLE_ALREADY_EXISTS`
const TABLE_EXISTS: u32 = 57;

fn unreadable(table: &TableDef, error: ddl::Error) -> Error {
    Error::new(error.kind(), format!("the definition of {}: {error}", table.key)).with_source(error)
}

/// A random UUID (RFC 9562, version 4).
fn uuid(random: [u8; 16]) -> String {
    let number = u128::from_be_bytes(random) & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let text = format!("{number:032x}");
    let mut uuid = String::new();
    for (at, digit) in text.chars().enumerate() {
        if matches!(at, 8 | 12 | 16 | 20) {
            uuid.push('-');
        }
        uuid.push(digit);
    }
    uuid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_of_version_four() {
        assert_eq!(uuid([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(uuid([0; 16]), "00000000-0000-4000-8000-000000000000");
    }
}
