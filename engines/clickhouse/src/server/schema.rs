//! Databases and tables, as the system tables tell.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Server;
use crate::client::Client;
use crate::ddl::quote;
use crate::error::Result;

/// Databases that every server makes by itself.
const OWN: [&str; 4] = ["system", "INFORMATION_SCHEMA", "information_schema", "_temporary_and_external_tables"];

/// A table's database and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableKey {
    /// The database.
    pub database: String,
    /// The table's own name.
    pub name: String,
}

impl TableKey {
    /// A name in a database.
    pub fn new(database: impl Into<String>, name: impl Into<String>) -> Self {
        Self { database: database.into(), name: name.into() }
    }

    /// As it stands in a statement: both names quoted.
    #[must_use]
    pub fn quoted(&self) -> String {
        quote::qualified(&self.database, &self.name)
    }
}

impl fmt::Display for TableKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.database, self.name)
    }
}

/// A database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DatabaseDef {
    /// Its name.
    pub name: String,
    /// Its engine: `Atomic`, `Ordinary`, `Replicated`, …
    pub engine: String,
    /// The engine with its arguments, where the server tells them.
    pub engine_full: Option<String>,
    /// Its UUID, where it has one.
    pub uuid: Option<String>,
}

/// What an object of a database is, as far as a backup is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ObjectKind {
    /// A table of the MergeTree family: its parts are frozen.
    Parts,
    /// A table with content that no snapshot can be taken of (`Log`, `Memory`, `Join`, …).
    Content,
    /// A materialized view: its content is in a table of its own.
    MaterializedView,
    /// A dictionary: its content is that of its source.
    Dictionary,
    /// A view, and tables that only lead elsewhere (`Distributed`, `Buffer`, `Kafka`, `URL`, …).
    Other,
}

impl ObjectKind {
    /// What an object of `engine` is.
    #[must_use]
    pub fn of(engine: &str) -> Self {
        match engine {
            "MaterializedView" | "WindowView" | "LiveView" => Self::MaterializedView,
            "Dictionary" => Self::Dictionary,
            "Log" | "TinyLog" | "StripeLog" | "Memory" | "Set" | "Join" | "EmbeddedRocksDB" | "KeeperMap" => {
                Self::Content
            }
            "File" => Self::Content,
            _ if engine.ends_with("MergeTree") => Self::Parts,
            _ => Self::Other,
        }
    }
}

/// A table, view or dictionary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TableDef {
    /// What it is called.
    #[serde(flatten)]
    pub key: TableKey,
    /// Its engine.
    pub engine: String,
    /// Its UUID, where its database gives one.
    pub uuid: Option<String>,
    /// The statement that makes it.
    pub create: String,
    /// Its directories as the server calls them, one on each disk that it may use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data_paths: Vec<String>,
    /// What it needs to be made, as far as the server knows (from 22.3 on).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<TableKey>,
    /// Bytes that its parts have on disk, where the server tells.
    #[serde(default)]
    pub bytes: Option<u64>,
}

impl TableDef {
    /// What it is.
    #[must_use]
    pub fn kind(&self) -> ObjectKind {
        ObjectKind::of(&self.engine)
    }

    /// Whether its parts are also at other servers, by Keeper.
    #[must_use]
    pub fn is_replicated(&self) -> bool {
        self.kind() == ObjectKind::Parts && self.engine.starts_with("Replicated")
    }

    /// Whether it is the table behind a materialized view without a table of its own.
    #[must_use]
    pub fn is_inner(&self) -> bool {
        self.key.name.starts_with(".inner.") || self.key.name.starts_with(".inner_id.")
    }

    /// The name that the server gives to the table behind this view.
    #[must_use]
    pub fn inner(&self) -> TableKey {
        let name = match &self.uuid {
            Some(uuid) => format!(".inner_id.{uuid}"),
            None => format!(".inner.{}", self.key.name),
        };
        TableKey::new(self.key.database.clone(), name)
    }

    /// Whether this is still the same table with the same definition.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.uuid, &self.create, &self.data_paths) == (&other.uuid, &other.create, &other.data_paths)
    }
}

/// No UUID, as servers write it.
const NIL: &str = "00000000-0000-0000-0000-000000000000";

fn uuid(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty() && text != NIL)
}

impl Server {
    fn own(column: &str) -> String {
        let names: Vec<_> = OWN.iter().map(|name| quote::string(name)).collect();
        format!("{column} NOT IN ({})", names.join(", "))
    }

    /// The databases, but for those that every server has.
    ///
    /// # Errors
    /// Those of the server and of the connection.
    pub(crate) async fn databases(&self, client: &Client) -> Result<Vec<DatabaseDef>> {
        #[derive(Deserialize)]
        struct Row {
            name: String,
            engine: String,
            engine_full: String,
            uuid: String,
        }
        let full = if self.has("databases", "engine_full") { "engine_full" } else { "''" };
        let id = if self.has("databases", "uuid") { "toString(uuid)" } else { "''" };
        let sql = format!(
            "SELECT name, engine, {full} AS engine_full, {id} AS uuid FROM system.databases WHERE {} ORDER BY name",
            Self::own("name")
        );
        let rows: Vec<Row> = client.rows("its databases", &sql).await?;
        Ok(rows
            .into_iter()
            .map(|row| DatabaseDef {
                name: row.name,
                engine: row.engine,
                engine_full: Some(row.engine_full).filter(|text| !text.is_empty()),
                uuid: uuid(row.uuid),
            })
            .collect())
    }

    /// Everything in the databases, by name.
    ///
    /// # Errors
    /// Those of the server and of the connection.
    pub(crate) async fn tables(&self, client: &Client) -> Result<BTreeMap<TableKey, TableDef>> {
        #[derive(Deserialize)]
        struct Row {
            database: String,
            name: String,
            engine: String,
            create: String,
            uuid: String,
            paths: Vec<String>,
            need_databases: Vec<String>,
            need_tables: Vec<String>,
            bytes: Option<u64>,
        }
        let has = |column: &str| self.has("tables", column);
        let paths = match (has("data_paths"), has("data_path")) {
            (true, _) => "data_paths",
            (false, true) => "arrayFilter(x -> x != '', [data_path])",
            (false, false) => "[]",
        };
        let (need_databases, need_tables) = match has("loading_dependencies_database") {
            true => ("loading_dependencies_database", "loading_dependencies_table"),
            false => ("CAST([] AS Array(String))", "CAST([] AS Array(String))"),
        };
        let id = if has("uuid") { "toString(uuid)" } else { "''" };
        let bytes = if has("total_bytes") { "total_bytes" } else { "NULL" };
        let lasting = if has("is_temporary") { "NOT is_temporary" } else { "1" };
        let sql = format!(
            "SELECT database, name, engine, create_table_query AS create, {id} AS uuid, {paths} AS paths,
             {need_databases} AS need_databases, {need_tables} AS need_tables, {bytes} AS bytes
             FROM system.tables WHERE {} AND {lasting}",
            Self::own("database")
        );
        let rows: Vec<Row> = client.listing("its tables", &sql).await?;
        let tables = rows.into_iter().map(|row| {
            let needs = row.need_databases.into_iter().zip(row.need_tables);
            let def = TableDef {
                key: TableKey::new(row.database, row.name),
                engine: row.engine,
                uuid: uuid(row.uuid),
                create: row.create,
                data_paths: row.paths,
                needs: needs.map(|(database, name)| TableKey::new(database, name)).collect(),
                bytes: row.bytes,
            };
            (def.key.clone(), def)
        });
        Ok(tables.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_so_that_they_stay_names() {
        assert_eq!(TableKey::new("a b", "x`; DROP").quoted(), "`a b`.`x\\`; DROP`");
    }

    #[test]
    fn engines_are_told_apart() {
        for (engine, kind) in [
            ("MergeTree", ObjectKind::Parts),
            ("ReplicatedReplacingMergeTree", ObjectKind::Parts),
            ("TinyLog", ObjectKind::Content),
            ("MaterializedView", ObjectKind::MaterializedView),
            ("Distributed", ObjectKind::Other),
        ] {
            assert_eq!(ObjectKind::of(engine), kind, "{engine}");
        }
    }
}
