//! Where repositories lie.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::repository::Vault;

/// The regions of a platform and their vaults.
///
/// The backups of a service lie in the object storage of the region where it was first created, for ever. A region without object storage
/// uses that of the first of its neighbours that has it.
#[derive(Debug, Clone, Default)]
pub struct Regions {
    vaults: BTreeMap<String, Arc<dyn Vault>>,
    neighbours: BTreeMap<String, Vec<String>>,
}

impl Regions {
    /// No region.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a region with object storage.
    #[must_use]
    pub fn with_vault(mut self, region: impl Into<String>, vault: Arc<dyn Vault>) -> Self {
        self.vaults.insert(region.into(), vault);
        self
    }

    /// Adds a region without object storage; `neighbours` are those to use instead, the nearest first.
    #[must_use]
    pub fn with_neighbours<S: Into<String>>(
        mut self,
        region: impl Into<String>,
        neighbours: impl IntoIterator<Item = S>,
    ) -> Self {
        self.neighbours.insert(region.into(), neighbours.into_iter().map(Into::into).collect());
        self
    }

    /// Where the repository of a service is created whose first region is `region`.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when it is not known or nothing near it has object storage.
    pub fn place(&self, region: &str) -> Result<(String, Arc<dyn Vault>)> {
        let own = std::iter::once(region);
        let near = self.neighbours.get(region).into_iter().flatten().map(String::as_str);
        for place in own.chain(near) {
            if let Some(vault) = self.vaults.get(place) {
                return Ok((place.to_owned(), Arc::clone(vault)));
            }
        }
        if self.neighbours.contains_key(region) {
            return Err(Error::invalid(format!("neither region {region} nor its neighbours have object storage")));
        }
        let known: Vec<_> = self.vaults.keys().chain(self.neighbours.keys()).map(String::as_str).collect();
        Err(Error::invalid(format!("region {region:?} is not known; known are {}", known.join(", "))))
    }

    /// The vault of a location.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when there is none.
    pub fn vault(&self, location: &str) -> Result<&Arc<dyn Vault>> {
        self.vaults.get(location).ok_or_else(|| {
            let known: Vec<_> = self.vaults.keys().map(String::as_str).collect();
            Error::invalid(format!("there is no vault in {location:?}; there is one in {}", known.join(", ")))
        })
    }

    /// All vaults.
    pub fn vaults(&self) -> impl Iterator<Item = (&str, &Arc<dyn Vault>)> {
        self.vaults.iter().map(|(location, vault)| (location.as_str(), vault))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::MemoryVault;

    #[test]
    fn a_region_without_storage_uses_the_nearest_that_has_it() {
        let vault = || Arc::new(MemoryVault::new()) as Arc<dyn Vault>;
        let regions = Regions::new()
            .with_vault("aws-eu-north-1", vault())
            .with_vault("aws-eu-west-1", vault())
            .with_neighbours("upcloud-fi-hel", ["do-ams", "aws-eu-north-1", "aws-eu-west-1"])
            .with_neighbours("moon", ["mars"]);
        let place = |region| regions.place(region).map(|(location, _)| location).map_err(|e| e.to_string());
        assert_eq!(place("aws-eu-west-1").unwrap(), "aws-eu-west-1");
        assert_eq!(place("upcloud-fi-hel").unwrap(), "aws-eu-north-1");
        assert!(place("moon").unwrap_err().contains("nor its neighbours"));
        assert!(place("nowhere").unwrap_err().contains("upcloud-fi-hel"));
        assert!(regions.vault("upcloud-fi-hel").is_err());
    }
}
