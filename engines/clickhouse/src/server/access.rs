//! Where a server keeps users, roles, quotas, policies and profiles that were made by statements.
//!
//! Source: `AccessControl.cpp`, `system.user_directories`. A directory of files is where `user_directories/local_directory/path` or
//! `access_control_path` of the configuration says; packages put it beside the data, as the folder `access`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Disk, Server, find};
use crate::client::Client;
use crate::error::Result;

/// The folder beside the data, where nothing else is said.
const FOLDER: &str = "access";

/// A place of users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AccessPlace {
    /// Files in a directory: what the server calls it, where it is on this machine, and whether the server only reads it.
    Files {
        /// As the server calls it.
        path: String,
        /// On this machine, where it may not be.
        dir: PathBuf,
        /// Whether the server makes no users there.
        read_only: bool,
    },
    /// Below this path in Keeper.
    Keeper(String),
    /// Gone when the server ends.
    Memory,
    /// Where nothing of it can be read, and why.
    Elsewhere(&'static str),
}

/// A place of users, as the server tells it.
#[derive(Debug, Clone, Deserialize)]
struct Row {
    name: String,
    kind: String,
    params: String,
}

impl Server {
    /// The places of its users, by their names: those that it tells. Where it tells of no files (before 20.5), the usual folder is one if its
    /// files are `reached`.
    ///
    /// # Errors
    /// Those of the server and of the connection.
    pub(crate) async fn access_places(&self, client: &Client, reached: bool) -> Result<Vec<(String, AccessPlace)>> {
        let mut rows = Vec::new();
        if self.has_table("user_directories") {
            let sql = "SELECT name, toString(type) AS kind, params FROM system.user_directories ORDER BY precedence";
            rows = client.rows::<Row>("its directories of users", sql).await?;
        }
        let mut places: Vec<_> = rows.into_iter().map(|row| (row.name.clone(), place(&row, &self.disks))).collect();
        if reached
            && !places.iter().any(|(_, place)| matches!(place, AccessPlace::Files { .. }))
            && let Some(disk) = self.disks.first()
        {
            let (path, dir) = (format!("{}{FOLDER}/", disk.path), disk.dir.join(FOLDER));
            places.push((FOLDER.to_owned(), AccessPlace::Files { path, dir, read_only: false }));
        }
        Ok(places)
    }
}

fn place(row: &Row, disks: &[Disk]) -> AccessPlace {
    #[derive(Default, Deserialize)]
    struct Params {
        path: Option<String>,
        zookeeper_path: Option<String>,
        // A flag, which some versions write as a string.
        #[serde(default, alias = "readonly")]
        read_only: serde_json::Value,
    }
    let Params { path, zookeeper_path, read_only } = serde_json::from_str(&row.params).unwrap_or_default();
    match row.kind.replace([' ', '_', '.'], "").to_lowercase().as_str() {
        "localdirectory" => match path.filter(|path| path.starts_with('/')) {
            Some(path) => {
                let below = find(disks, path.trim_end_matches('/'));
                let dir = below.map_or_else(|| Path::new(&path).to_owned(), |(disk, below)| disk.dir.join(below));
                let read_only = matches!(read_only.to_string().trim_matches('"'), "true" | "1");
                AccessPlace::Files { path, dir, read_only }
            }
            None => AccessPlace::Elsewhere("they are in a directory, and the server does not say where"),
        },
        "memory" => AccessPlace::Memory,
        "replicated" => match zookeeper_path.filter(|path| path.starts_with('/')) {
            Some(path) => AccessPlace::Keeper(path),
            None => AccessPlace::Elsewhere("they are kept in keeper, and the server does not say where there"),
        },
        "usersxml" => AccessPlace::Elsewhere("they are part of the server's configuration"),
        "ldap" => AccessPlace::Elsewhere("they are kept at an ldap server"),
        _ => AccessPlace::Elsewhere("they are kept elsewhere"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Place;

    fn told(kind: &str, params: &str) -> AccessPlace {
        let disk = Disk {
            name: Disk::DEFAULT.to_owned(),
            path: "/var/lib/clickhouse/".to_owned(),
            dir: "/mnt/db1".into(),
            place: Place::Local,
        };
        let row = Row { name: "x".to_owned(), kind: kind.to_owned(), params: params.to_owned() };
        place(&row, &[disk])
    }

    #[test]
    fn directories_are_where_this_machine_sees_them() {
        let files =
            |path: &str, dir: &str, read_only| AccessPlace::Files { path: path.to_owned(), dir: dir.into(), read_only };
        // As 20.5 to 26 show them.
        for kind in ["local directory", "local_directory"] {
            let params = r#"{"path":"\/var\/lib\/clickhouse\/access\/"}"#;
            let wanted = files("/var/lib/clickhouse/access/", "/mnt/db1/access", false);
            assert_eq!(told(kind, params), wanted, "below the data, which this machine sees elsewhere");
        }
        let params = r#"{"path":"\/etc\/clickhouse\/users\/","readonly":"true"}"#;
        assert_eq!(told("local directory", params), files("/etc/clickhouse/users/", "/etc/clickhouse/users/", true));
        for bad in ["", "{}", r#"{"path":"users"}"#] {
            assert!(matches!(told("local directory", bad), AccessPlace::Elsewhere(_)), "{bad}");
        }
    }

    #[test]
    fn parameters_say_where_users_are_in_keeper() {
        // As 23.8 shows it.
        let params = r#"{"zookeeper_path":"\/clickhouse\/access\/"}"#;
        assert_eq!(told("replicated", params), AccessPlace::Keeper("/clickhouse/access/".to_owned()));
        for bad in ["", "{}", r#"{"path":"/x"}"#, r#"{"zookeeper_path":"x"}"#] {
            assert!(matches!(told("replicated", bad), AccessPlace::Elsewhere(_)), "{bad}");
        }
    }

    #[test]
    fn others_are_told_apart() {
        assert_eq!(told("memory", "{}"), AccessPlace::Memory);
        for (kind, word) in
            [("users.xml", "configuration"), ("users_xml", "configuration"), ("ldap", "ldap"), ("token", "elsewhere")]
        {
            let place = told(kind, r#"{"path":"/etc/x"}"#);
            assert!(matches!(place, AccessPlace::Elsewhere(why) if why.contains(word)), "{kind}: {place:?}");
        }
    }
}
