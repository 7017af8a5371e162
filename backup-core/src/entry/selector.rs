//! Which entries of a backup are meant.

use super::EntryPath;
use crate::error::{Error, Result};

/// A choice of entries: everything, or what lies at or below any of some folders or files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    within: Vec<EntryPath>,
}

impl Selector {
    /// Every entry.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Entries at or below any of `folders`; every entry when there is none.
    pub fn within(folders: impl IntoIterator<Item = EntryPath>) -> Self {
        Self { within: folders.into_iter().collect() }
    }

    /// Parses one path per item, as given on a command line. A trailing `/` is allowed.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for what is not an [`EntryPath`].
    pub fn parse<'a>(items: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let within = items
            .into_iter()
            .map(|item| {
                EntryPath::new(item.strip_suffix('/').unwrap_or(item)).map_err(|e| {
                    Error::invalid(format!("selector {item:?} is not a path inside a backup")).with_source(e)
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self { within })
    }

    /// The same choice among the entries of `folder` when they are called by their paths in the whole backup.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when a path becomes too long.
    pub fn below(&self, folder: &EntryPath) -> Result<Self> {
        if self.is_all() {
            return Ok(Self::within([folder.clone()]));
        }
        Ok(Self { within: self.within.iter().map(|path| path.below(folder)).collect::<Result<_>>()? })
    }

    /// What this choice means inside of `folder`: none when nothing there is meant.
    #[must_use]
    pub fn inside(&self, folder: &EntryPath) -> Option<Self> {
        if self.within.is_empty() || self.within.iter().any(|path| folder.is_within(path.as_bytes())) {
            return Some(Self::all());
        }
        let within: Vec<_> = self.within.iter().filter_map(|path| path.inside(folder)).collect();
        (!within.is_empty()).then_some(Self { within })
    }

    /// Whether nothing outside of `folder` is meant.
    #[must_use]
    pub fn is_inside(&self, folder: &EntryPath) -> bool {
        !self.is_all() && self.within.iter().all(|path| path.is_within(folder.as_bytes()))
    }

    /// Whether every entry is meant.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.within.is_empty()
    }

    /// Whether `path` is meant.
    #[must_use]
    pub fn matches(&self, path: &EntryPath) -> bool {
        self.within.is_empty() || self.within.iter().any(|folder| path.is_within(folder.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_means_folders_and_files() {
        let selector = Selector::parse(["base/1/", "global/pg_control"]).unwrap();
        for (path, chosen) in [("base/1/2", true), ("base/12", false), ("global/pg_control", true), ("global", false)] {
            assert_eq!(selector.matches(&EntryPath::new(path).unwrap()), chosen, "{path}");
        }
        assert!(Selector::all().matches(&EntryPath::new("x").unwrap()));
        assert!(Selector::parse(["../x"]).is_err());
    }
    #[test]
    fn a_choice_goes_into_folders_and_comes_out_again() {
        let folder = EntryPath::new("a").unwrap();
        let said = |items: &[&str]| Selector::parse(items.iter().copied()).unwrap();
        assert_eq!(Selector::all().below(&folder).unwrap(), said(&["a"]));
        assert_eq!(said(&["x/y"]).below(&folder).unwrap(), said(&["a/x/y"]));
        assert_eq!(said(&["b", "a/x"]).inside(&folder), Some(said(&["x"])));
        assert_eq!(said(&["a", "a/x"]).inside(&folder), Some(Selector::all()));
        assert_eq!(said(&["b", "ab"]).inside(&folder), None);
        assert!(said(&["a/x", "a"]).is_inside(&folder));
        assert!(!said(&["a/x", "ab"]).is_inside(&folder) && !Selector::all().is_inside(&folder));
    }
}
