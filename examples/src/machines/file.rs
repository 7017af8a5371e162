//! Which service has which machine on this host: a small document that `service create` and `service fork` write.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use backup_core::{Error, Result, ServiceId};
use serde::{Deserialize, Serialize};

use super::PostgresMachine;

/// The machines of this host and the region whose object storage the vault is.
///
/// ```json
/// {"region": "eu", "machines": {"shop": {"bin_dir": "/usr/lib/postgresql/17/bin", "data_dir": "/srv/shop", "port": 5432}}}
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct HostFile {
    /// The region that this host's vault serves. Set by the first service.
    pub region: String,
    /// The machines, by the names of their services.
    #[serde(default)]
    pub machines: BTreeMap<String, PostgresMachine>,
}

impl HostFile {
    /// Reads it; none when there is no such file.
    ///
    /// # Errors
    /// [`Environment`](backup_core::ErrorKind::Environment) when it cannot be read;
    /// [`InvalidInput`](backup_core::ErrorKind::InvalidInput) when it is something else, naming the place.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(format!("read {}", path.display()), error)),
        };
        let file: Self = serde_json::from_slice(&text)
            .map_err(|error| Error::invalid(format!("{} describes no host: {error}", path.display())))?;
        for name in file.machines.keys() {
            ServiceId::new(name).map_err(|error| error.context(format!("{} describes no host", path.display())))?;
        }
        Ok(Some(file))
    }

    /// Writes it: whoever reads it meanwhile finds the old one or the new one.
    ///
    /// # Errors
    /// [`Environment`](backup_core::ErrorKind::Environment).
    pub fn write(&self, path: &Path) -> Result<()> {
        let failed = |error| Error::io(format!("write {}", path.display()), error);
        let mut text = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::internal("a host has no form in JSON").with_source(error))?;
        text.push(b'\n');
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        let mut file = std::fs::File::create(&beside).map_err(failed)?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)?;
        std::fs::rename(&beside, path).map_err(failed)
    }

    /// The machines by service.
    ///
    /// # Errors
    /// As [`read`](Self::read), which has checked the names.
    pub fn services(&self) -> Result<BTreeMap<ServiceId, PostgresMachine>> {
        self.machines.iter().map(|(name, machine)| Ok((ServiceId::new(name)?, machine.clone()))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_what_is_wrong_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("host.json");
        assert_eq!(HostFile::read(&path).unwrap(), None);
        let mut file = HostFile { region: "eu".to_owned(), ..HostFile::default() };
        file.machines.insert("shop".to_owned(), PostgresMachine::new("/bin", "/srv/shop", 5432));
        file.write(&path).unwrap();
        assert_eq!(HostFile::read(&path).unwrap(), Some(file));
        for (text, why) in [
            ("{", "EOF"),
            (r#"{"region": "eu", "machine": {}}"#, "machine"),
            (
                r#"{"region": "eu", "machines": {"Shop": {"bin_dir": "/b", "data_dir": "/d", "port": 1}}}"#,
                "describes no host",
            ),
            (r#"{"region": "eu", "machines": {"shop": {"bin_dir": "/b", "data_dir": "/d", "port": 70000}}}"#, "70000"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = HostFile::read(&path).unwrap_err();
            assert_eq!(error.kind(), backup_core::ErrorKind::InvalidInput);
            assert!(error.to_string().contains(why), "{error}");
        }
    }
}
