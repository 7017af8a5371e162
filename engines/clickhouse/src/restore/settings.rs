//! How a backup is brought into a server.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use backup_core::{Error, Result};

use crate::server::TableKey;

/// What happens to tables that are there already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnExisting {
    /// The restore is refused before anything is changed.
    #[default]
    Refuse,
    /// They are dropped and made anew. Also the way to repeat a restore that was interrupted.
    Replace,
    /// They stay, and parts are added to them; those that are there already, file by file, are left out. So several backups can be brought
    /// into one table: those of the shards of a cluster, say.
    Add,
}

impl fmt::Display for OnExisting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Refuse => "refuse",
            Self::Replace => "replace",
            Self::Add => "add",
        })
    }
}

impl FromStr for OnExisting {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "refuse" => Ok(Self::Refuse),
            "replace" => Ok(Self::Replace),
            "add" => Ok(Self::Add),
            _ => Err(Error::invalid(format!("{text:?} is none of refuse, replace and add"))),
        }
    }
}

/// How a backup is brought into a server. Data, not components.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct RestoreSettings {
    /// What happens to tables that are there already.
    pub existing: OnExisting,
    /// New names of databases.
    pub databases: BTreeMap<String, String>,
    /// New names of tables: `database.table` as it was, and as it is to be. Stronger than those of databases.
    pub tables: Vec<(TableKey, TableKey)>,
    /// Only definitions, no rows.
    pub structure_only: bool,
    /// Replicated tables become tables of one server: for a server without Keeper.
    pub unreplicated: bool,
    /// Parts that are not what their own lists say are left out and told, instead of ending the restore.
    pub skip_damaged: bool,
    /// Users, roles, quotas, policies and profiles stay as they are in the target.
    pub keep_access: bool,
    /// Tables of the target that the same restore has made, of other members: all parts are added to them, also those that are alike.
    #[serde(skip)]
    pub(crate) joined: BTreeSet<TableKey>,
}

impl RestoreSettings {
    /// Sets what happens to tables that are there already.
    #[must_use]
    pub fn existing(mut self, rule: OnExisting) -> Self {
        self.existing = rule;
        self
    }

    /// Gives a database another name.
    #[must_use]
    pub fn rename_database(mut self, from: impl Into<String>, to: impl Into<String>) -> Self {
        self.databases.insert(from.into(), to.into());
        self
    }

    /// Gives a table another name.
    #[must_use]
    pub fn rename_table(mut self, from: TableKey, to: TableKey) -> Self {
        self.tables.push((from, to));
        self
    }

    /// Takes a new name as it is given on a command line: `old=new` for a database, `old.table=new.table` for a table. Names with dots
    /// cannot be given so.
    ///
    /// # Errors
    /// [`InvalidInput`](backup_core::ErrorKind::InvalidInput) for anything else.
    pub fn rename(self, text: &str) -> Result<Self> {
        let wrong =
            || Error::invalid(format!("{text:?} is neither database=database nor database.table=database.table"));
        let (from, to) = text.split_once('=').ok_or_else(wrong)?;
        let table = |name: &str| {
            let (database, table) = name.split_once('.')?;
            let plain = !database.is_empty() && !table.is_empty() && !table.contains('.');
            plain.then(|| TableKey::new(database, table))
        };
        match (table(from), table(to)) {
            (Some(from), Some(to)) => Ok(self.rename_table(from, to)),
            (None, None) if !from.is_empty() && !to.is_empty() && !text.contains('.') => {
                Ok(self.rename_database(from, to))
            }
            _ => Err(wrong()),
        }
    }

    /// Sets whether only definitions are wanted.
    #[must_use]
    pub fn structure_only(mut self, on: bool) -> Self {
        self.structure_only = on;
        self
    }

    /// Sets whether replicated tables become plain ones.
    #[must_use]
    pub fn unreplicated(mut self, on: bool) -> Self {
        self.unreplicated = on;
        self
    }

    /// Sets whether damaged parts are left out.
    #[must_use]
    pub fn skip_damaged(mut self, on: bool) -> Self {
        self.skip_damaged = on;
        self
    }

    /// Sets whether users and the like stay as they are.
    #[must_use]
    pub fn keep_access(mut self, on: bool) -> Self {
        self.keep_access = on;
        self
    }

    /// What a table of the backup is called in the target.
    #[must_use]
    pub fn target(&self, table: &TableKey) -> TableKey {
        if let Some((_, to)) = self.tables.iter().find(|(from, _)| from == table) {
            return to.clone();
        }
        match self.databases.get(&table.database) {
            Some(database) => TableKey::new(database.clone(), table.name.clone()),
            None => table.clone(),
        }
    }

    /// What happens to a table of the target that is there already.
    pub(crate) fn rule(&self, target: &TableKey) -> OnExisting {
        if self.joined.contains(target) { OnExisting::Add } else { self.existing }
    }

    /// Whether anything is called by another name.
    #[must_use]
    pub fn renames(&self) -> bool {
        !self.databases.is_empty() || !self.tables.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_names_are_read_as_they_are_meant() {
        let settings = RestoreSettings::default().rename("shop=shop2").unwrap().rename("shop.a=x.b").unwrap();
        assert_eq!(settings.target(&TableKey::new("shop", "a")), TableKey::new("x", "b"));
        assert_eq!(settings.target(&TableKey::new("shop", "c")), TableKey::new("shop2", "c"));
        assert_eq!(settings.target(&TableKey::new("other", "c")), TableKey::new("other", "c"));
        for bad in ["shop", "=x", "x=", "a.b=c", "a=b.c", "a.b.c=d.e", "a.=b.c"] {
            assert!(RestoreSettings::default().rename(bad).is_err(), "{bad}");
        }
    }
}
