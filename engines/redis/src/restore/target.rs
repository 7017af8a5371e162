//! The server that a snapshot goes to: what it is, and whether it can take the snapshot.

use backup_core::{Finding, Severity};

use crate::client::{ClientSettings, Connection};
use crate::error::{Error, Result};
use crate::node::{Info, NodeFacts, Product, Role};
use crate::rdb::{Counted, Dialect, RdbVersion, Summary, ValueType};

/// Connects to the one server that `settings` name.
pub(super) async fn connect(settings: &ClientSettings) -> Result<Connection> {
    if settings.address.watched.is_some() {
        // They would take a primary that follows somebody for a broken one, and put another in its place.
        let text = "a server that sentinels watch cannot follow a restore: restore key by key, or let them forget it meanwhile \
                    (SENTINEL REMOVE) and name the server itself";
        return Err(Error::Settings(text.to_owned()));
    }
    match settings.address.nodes.as_slice() {
        [node] => Connection::open(settings, node).await,
        nodes => Err(Error::Settings(format!("one server is restored into, not {}", nodes.len()))),
    }
}

/// What a server says about itself.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// Its version, for people.
    pub(super) version: String,
    /// The newest snapshot that it reads of its own kind.
    reads: RdbVersion,
    /// How many databases it has.
    databases: u64,
    /// The host of the primary that it follows.
    pub(super) follows: Option<String>,
    /// Whether it is a node of a cluster.
    pub(super) cluster: bool,
    /// How many modules it has.
    modules: usize,
}

impl Target {
    /// Asks the server.
    pub(super) async fn of(connection: &mut Connection) -> Result<Self> {
        let info = crate::node::info(connection).await?;
        let facts =
            NodeFacts::of(&info).ok_or_else(|| Error::Protocol("a server that does not say who it is".into()))?;
        let databases = config(connection, "databases").await?.and_then(|text| text.parse().ok());
        let modules = connection.call(&["MODULE", "LIST"]).await.map_or(0, |list| list.items().len());
        Ok(Self {
            version: format!("{} {}", facts.product, facts.version),
            reads: reads(facts.product, facts.line()),
            // A server that does not say has as many as servers have by default.
            databases: databases.unwrap_or(16),
            follows: follows(&info, &facts),
            cluster: facts.cluster,
            modules,
        })
    }

    /// Whether it reads snapshots of this version.
    pub(super) fn reads(&self, version: RdbVersion) -> bool {
        version == self.reads
            || version.dialect == Dialect::Redis
                && version.number <= if self.reads.dialect == Dialect::Valkey { 11 } else { self.reads.number }
    }

    /// Whether it takes a value of this type out of a snapshot of `version`.
    pub(super) fn takes(&self, version: RdbVersion, value_type: ValueType) -> bool {
        // Up to here both kinds of servers have the same types.
        let dialect = if value_type.0 <= 21 { Dialect::Redis } else { version.dialect };
        self.reads(RdbVersion { dialect, number: value_type.since(version) })
    }

    /// A blocker when it does not read snapshots of this version.
    pub(super) fn judge_version(&self, version: RdbVersion) -> Option<Finding> {
        let text = format!("{} does not read {version}: it can be restored key by key, or rewritten", self.version);
        (!self.reads(version)).then(|| Finding::new(Severity::Blocker, "snapshot-version", text))
    }

    /// What would make it end itself, or leave something out, when it is given this snapshot.
    pub(super) fn judge(&self, summary: &Summary) -> Result<()> {
        let refuse = |text| Err(Error::Unsupported(text));
        if let Some(finding) = self.judge_version(summary.version) {
            return refuse(finding.message);
        }
        let used = summary.databases.iter().map(|database| database.number).max();
        if let Some(last) = used.filter(|last| *last >= self.databases) {
            return refuse(format!("the snapshot has a database {last}, the server only {} databases", self.databases));
        }
        if !summary.modules.is_empty() && self.modules == 0 {
            let types = summary.modules.join(", ");
            return refuse(format!("the snapshot has data of modules ({types}), and the server has no modules"));
        }
        if let (Counted::Until { what, .. }, true) = (summary.counted, self.reads != summary.version) {
            return refuse(format!(
                "the snapshot has data that is not known here ({what}), and the server is another one"
            ));
        }
        Ok(())
    }
}

fn follows(info: &Info, facts: &NodeFacts) -> Option<String> {
    let host = info.get("master_host").unwrap_or("an unknown primary");
    matches!(facts.role, Role::Replica { .. }).then(|| host.to_owned())
}

/// The version of the snapshots that a server writes, as far as its release tells.
pub(crate) fn snapshot_version(facts: &NodeFacts) -> RdbVersion {
    reads(facts.product, facts.line())
}

/// The newest snapshot that a server reads (`RDB_VERSION` in `rdb.h` of each release).
fn reads(product: Product, line: (u32, u32)) -> RdbVersion {
    let (major, minor) = line;
    match (product, major, minor) {
        (Product::Valkey, 9.., _) => RdbVersion::valkey(RdbVersion::VALKEY),
        (Product::Valkey, ..) => RdbVersion::redis(11),
        (Product::Redis, ..=6, _) => RdbVersion::redis(9),
        (Product::Redis, 7, ..=1) => RdbVersion::redis(10),
        (Product::Redis, 7, 2..=3) => RdbVersion::redis(11),
        (Product::Redis, 7, _) | (Product::Redis, 8, ..=5) => RdbVersion::redis(12),
        (Product::Redis, 8, 6..=7) => RdbVersion::redis(13),
        (Product::Redis, 8, 8) => RdbVersion::redis(14),
        (Product::Redis, 8, 9) => RdbVersion::redis(15),
        (Product::Redis, ..) => RdbVersion::redis(RdbVersion::NEWEST_REDIS),
    }
}

/// A configuration parameter. None when the server does not have it.
pub(super) async fn config(connection: &mut Connection, name: &str) -> Result<Option<String>> {
    let reply = connection.call(&["CONFIG", "GET", name]).await?;
    Ok(reply.pairs().find_map(|(key, value)| (key.text()? == name).then(|| value.text())?))
}

/// Sets a configuration parameter.
pub(super) async fn set_config(connection: &mut Connection, name: &str, value: &str) -> Result<()> {
    connection.call(&["CONFIG", "SET", name, value]).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_read_what_their_release_reads() {
        let lines = [(6, 2), (7, 0), (7, 2), (7, 4), (8, 0), (8, 2), (8, 6)];
        assert_eq!(lines.map(|line| reads(Product::Redis, line).number), [9, 10, 11, 12, 12, 12, 13]);
        let target = |product, line| Target {
            version: String::new(),
            reads: reads(product, line),
            databases: 16,
            follows: None,
            cluster: false,
            modules: 0,
        };
        let valkey = target(Product::Valkey, (9, 1));
        assert!(valkey.reads(RdbVersion::valkey(80)) && valkey.reads(RdbVersion::redis(11)));
        assert!(!valkey.reads(RdbVersion::redis(12)));
        let old = target(Product::Valkey, (8, 1));
        assert!(old.reads(RdbVersion::redis(9)));
        assert!(!old.reads(RdbVersion::valkey(80)) && !old.reads(RdbVersion::redis(12)));
        assert!(!target(Product::Redis, (8, 2)).reads(RdbVersion::valkey(80)));
        assert!(target(Product::Redis, (8, 2)).judge_version(RdbVersion::redis(13)).is_some());
    }
}
