//! Where the things of a server stand in a backup.
//!
//! ```text
//! databases/<database>                              record: the database
//! metadata/<database>/<table>                       record: the table, with the statement that makes it
//! parts/<database>/<table>                          record: its parts
//! data/<database>/<table>/<partition>/<part>/<file> the files of a part
//! data/<database>/<table>/mutation_<number>.txt     a mutation that had not come to its end
//! data/<database>/<table>/rows.native               the rows of a table without parts, in the server's format `Native`
//! functions/<name>                                  record: a function that users made
//! access/<uuid>, named_collections/<name>           record: a file with the statements that attach a user, a role, …
//! macros                                            record: what the server's macros stood for
//! ```
//! Names are escaped as the server escapes them for its own files, so a table stands where people look for it. A selector names folders of
//! `data`: `data/shop`, `data/shop/orders`, `data/shop/orders/202401`; or of `metadata` for what is to come back without rows.

use backup_core::Result;
use backup_core::entry::EntryPath;

use crate::ddl::{escape_for_file_name, unescape_for_file_name};
use crate::part::PartName;
use crate::server::TableKey;

/// Folder of the databases' records.
pub(crate) const DATABASES: &str = "databases";
/// Folder of the tables' records.
pub(crate) const METADATA: &str = "metadata";
/// Folder of the records of tables' parts.
pub(crate) const PARTS: &str = "parts";
/// Folder of the parts' files.
pub(crate) const DATA: &str = "data";
/// Folder of functions.
pub(crate) const FUNCTIONS: &str = "functions";
/// Folder of users, roles and the like; the server calls it the same.
pub(crate) const ACCESS: &str = "access";
/// Folder of named collections; the server calls it the same.
pub(crate) const COLLECTIONS: &str = "named_collections";

fn named(folder: &str, names: &[&str]) -> Result<EntryPath> {
    let names = names.iter().map(|name| escape_for_file_name(name));
    let path = names.fold(folder.to_owned(), |path, name| format!("{path}/{name}"));
    EntryPath::new(path)
}

/// The record of a database.
pub(crate) fn database(name: &str) -> Result<EntryPath> {
    named(DATABASES, &[name])
}

/// What is in `folder` about a table.
pub(crate) fn table(folder: &str, key: &TableKey) -> Result<EntryPath> {
    named(folder, &[&key.database, &key.name])
}

/// The record of something that is in no database.
pub(crate) fn object(folder: &str, name: &str) -> Result<EntryPath> {
    named(folder, &[name])
}

/// The folder of a part. Partitions' ids need no escaping: [`PartName`] takes only what a server gives.
pub(crate) fn part(key: &TableKey, name: &PartName) -> Result<EntryPath> {
    let folder = table(DATA, key)?;
    EntryPath::new(format!("{folder}/{}/{name}", name.partition()))
}

/// The rows of a table without parts.
const ROWS: &str = "rows.native";

/// The entry of the rows of a table without parts.
pub(crate) fn rows(key: &TableKey) -> Result<EntryPath> {
    EntryPath::new(format!("{}/{ROWS}", table(DATA, key)?))
}

/// The entry of a mutation, as the server calls the file.
pub(crate) fn mutation(key: &TableKey, id: &str) -> Result<EntryPath> {
    EntryPath::new(format!("{}/{id}", table(DATA, key)?))
}

/// Whether a file of this name is a mutation (`MergeTreeMutationEntry.cpp`).
pub(crate) fn is_mutation(name: &str) -> bool {
    let number = name.strip_prefix("mutation_").and_then(|rest| rest.strip_suffix(".txt"));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether what lies below a table's folder of data is a file of the table and of no part.
pub(crate) fn is_loose(below: &str) -> bool {
    below == ROWS || is_mutation(below)
}

/// The table that `path`, in the folder `folder`, is about, and what of the path is below it.
pub(crate) fn table_of<'a>(folder: &str, path: &'a EntryPath) -> Option<(TableKey, &'a str)> {
    let rest = path.as_str()?.strip_prefix(folder)?.strip_prefix('/')?;
    let (database, rest) = rest.split_once('/')?;
    let (name, rest) = rest.split_once('/').unwrap_or((rest, ""));
    Some((TableKey::new(unescape_for_file_name(database)?, unescape_for_file_name(name)?), rest))
}

/// The record of the server's macros.
pub(crate) fn macros() -> Result<EntryPath> {
    EntryPath::new("macros")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::part::Syntax;

    #[test]
    fn tables_stand_where_the_server_would_have_them() {
        let key = TableKey::new("shop.x", "a b/é");
        let path = table(DATA, &key).unwrap();
        assert_eq!(path.as_str(), Some("data/shop%2Ex/a%20b%2F%C3%A9"));
        let part = part(&key, &PartName::parse("202401_1_1_0", Syntax::Custom).unwrap()).unwrap();
        assert_eq!(part.as_str(), Some("data/shop%2Ex/a%20b%2F%C3%A9/202401/202401_1_1_0"));
        assert_eq!(table_of(DATA, &part), Some((key.clone(), "202401/202401_1_1_0")));
        assert_eq!(table_of(DATA, &path), Some((key, "")));
        assert_eq!(table_of(DATA, &EntryPath::new("data/x").unwrap()), None);
        assert_eq!(table_of(DATA, &EntryPath::new("metadata/x/y").unwrap()), None);
    }
}
