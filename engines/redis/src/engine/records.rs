//! What is not in the snapshot file: users, configuration, functions, modules, the layout of a cluster.

use backup_core::engine::BackupSink;
use backup_core::entry::EntryMeta;
use backup_core::{BackupSinkExt as _, LossyItem, Result};
use bytes::Bytes;

use super::facts;
use crate::client::{Connection, Reply};
use crate::node::{Info, NodeFacts};

/// What was asked of the server, and what could not be had.
#[derive(Debug, Default)]
pub(super) struct Records {
    entries: Vec<(&'static str, Bytes)>,
    pub(super) lossy: Vec<LossyItem>,
    /// Of a member of a cluster: its name and slots.
    pub(super) member: Option<(String, String)>,
}

impl Records {
    /// Asks for everything. What a server does not tell is missing, with its reason.
    ///
    /// # Errors
    /// Those of the connection.
    pub(super) async fn ask(connection: &mut Connection, facts: &NodeFacts, info: &Info) -> crate::Result<Self> {
        let mut records = Self::default();
        records.entries.push((facts::INFO, info.text().into()));
        let users = records.wanted(connection, &["ACL", "LIST"], "users and their passwords").await?;
        records.keep(facts::USERS, users.map(|reply| lines(&reply)));
        let settings = records.wanted(connection, &["CONFIG", "GET", "*"], "configuration").await?;
        records.keep(facts::CONFIGURATION, settings.map(|reply| json(&reply)));
        if facts.since_functions() {
            let functions = records.wanted(connection, &["FUNCTION", "DUMP"], "functions as a record").await?;
            let dump = functions.and_then(|reply| Some(Bytes::copy_from_slice(reply.bytes()?)));
            // Without functions there are two bytes of a version and eight of a checksum.
            records.keep(facts::FUNCTIONS, dump.filter(|dump| dump.len() > 10));
        }
        let modules = records.wanted(connection, &["MODULE", "LIST"], "list of modules").await?;
        let modules = modules.filter(|reply| !reply.items().is_empty());
        records.keep(
            facts::MODULES,
            modules.map(|reply| {
                let list: Vec<_> = reply.items().iter().map(object).collect();
                serde_json::Value::Array(list).to_string().into()
            }),
        );
        if facts.cluster {
            let nodes = records.wanted(connection, &["CLUSTER", "NODES"], "layout of the cluster").await?;
            let text = nodes.and_then(|reply| reply.text());
            records.member = text.as_deref().and_then(own);
            records.keep(facts::CLUSTER, text.map(Bytes::from));
        }
        Ok(records)
    }

    /// Asks one question. An error of the server is no error of the backup: something is missing then.
    async fn wanted(
        &mut self,
        connection: &mut Connection,
        words: &[&str],
        what: &'static str,
    ) -> crate::Result<Option<Reply>> {
        match connection.call(words).await {
            Ok(reply) => Ok(Some(reply)),
            Err(crate::Error::Server { command, message }) => {
                self.lossy.push(LossyItem::new(what, format!("{command} was refused: {message}")));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn keep(&mut self, name: &'static str, bytes: Option<Bytes>) {
        self.entries.extend(bytes.map(|bytes| (name, bytes)));
    }

    /// Puts what was told.
    pub(super) async fn put(&self, sink: &dyn BackupSink) -> Result<()> {
        for (name, bytes) in &self.entries {
            sink.put_bytes(EntryMeta::record(facts::path(name)?), bytes.clone()).await?;
        }
        Ok(())
    }
}

fn lines(reply: &Reply) -> Bytes {
    reply.items().iter().filter_map(Reply::text).flat_map(|line| [line, "\n".to_owned()]).collect::<String>().into()
}

fn json(reply: &Reply) -> Bytes {
    object(reply).to_string().into()
}

/// Names and values in turn as an object.
fn object(reply: &Reply) -> serde_json::Value {
    let text = |reply: &Reply| match reply {
        Reply::Int(number) => serde_json::Value::from(*number),
        Reply::Array(items) => items.iter().filter_map(Reply::text).collect(),
        other => serde_json::Value::from(other.text().unwrap_or_default()),
    };
    reply.pairs().filter_map(|(name, value)| Some((name.text()?, text(value)))).collect()
}

/// Name and slots of the node that was asked (`CLUSTER NODES`: fields and flags, slots from the ninth field on; one in brackets is on its way).
pub(super) fn own(nodes: &str) -> Option<(String, String)> {
    let line = nodes.lines().find(|line| line.split(' ').nth(2).is_some_and(|flags| flags.contains("myself")))?;
    let mut fields = line.split(' ');
    let name = fields.next()?.to_owned();
    let slots: Vec<_> = fields.skip(7).filter(|slots| !slots.starts_with('[')).collect();
    Some((name, slots.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_knows_its_slots() {
        let nodes = "aa 127.0.0.1:1@2 master - 0 1 1 connected 0-5\nbb 127.0.0.1:3@4 myself,master - 0 0 2 connected 6-9 12 [7->-aa]\n";
        assert_eq!(own(nodes), Some(("bb".to_owned(), "6-9,12".to_owned())));
        assert_eq!(own("aa 127.0.0.1:1@2 master - 0 1 1 connected\n"), None);
    }

    #[test]
    fn pairs_become_an_object() {
        let bulk = |text: &'static str| Reply::Bulk(Bytes::from_static(text.as_bytes()));
        let reply = Reply::Array(vec![
            bulk("name"),
            bulk("bf"),
            bulk("ver"),
            Reply::Int(2),
            bulk("args"),
            Reply::Array(vec![bulk("x")]),
        ]);
        assert_eq!(object(&reply).to_string(), r#"{"args":["x"],"name":"bf","ver":2}"#);
    }
}
