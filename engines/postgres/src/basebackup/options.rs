//! What is asked of `BASE_BACKUP`, in the grammar of the server's version.

use crate::error::{Error, Result};
use crate::version::ServerVersion;

/// How the backup's first checkpoint is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Checkpoint {
    /// At once, with all the I/O it takes.
    Fast,
    /// Spread over `checkpoint_completion_target`: kind to the server, minutes of silence for us.
    Spread,
}

/// Whether and how a `backup_manifest` is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ManifestOption {
    /// None.
    No,
    /// With this checksum for every file.
    Yes(ManifestChecksum),
    /// The same, with all paths hex-encoded.
    ForceEncode(ManifestChecksum),
}

/// The checksum of every file in the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "names of algorithms")]
pub enum ManifestChecksum {
    None,
    Crc32c,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

impl ManifestChecksum {
    fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Crc32c => "CRC32C",
            Self::Sha224 => "SHA224",
            Self::Sha256 => "SHA256",
            Self::Sha384 => "SHA384",
            Self::Sha512 => "SHA512",
        }
    }
}

/// Compression by the server (from 15): the archives then arrive as `.gz`, `.lz4` or `.zst`, for the caller to decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// gzip at this level, 1 to 9.
    Gzip(u8),
    /// LZ4 at this level, 1 to 12.
    Lz4(u8),
    /// zstd at this level, 1 to 22, with this many worker threads.
    Zstd(u8, u8),
}

/// The options of `BASE_BACKUP`. WAL is never included: it is captured as a log of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BaseBackupOptions {
    label: String,
    checkpoint: Checkpoint,
    wait_for_archive: bool,
    max_rate: Option<u32>,
    verify_checksums: bool,
    manifest: ManifestOption,
    estimate: bool,
    incremental: bool,
    compression: Option<Compression>,
}

impl Default for BaseBackupOptions {
    fn default() -> Self {
        Self {
            label: "backup".to_owned(),
            // A spread checkpoint delays the backup by minutes and a fast one costs seconds on most servers.
            checkpoint: Checkpoint::Fast,
            // Our own log capture decides when the needed WAL is durable; waiting for the server's archiver could hang.
            wait_for_archive: false,
            max_rate: None,
            verify_checksums: true,
            // SHA-256 identifies content for reuse and detects tampering; the server computes it at about 1.5 GB/s.
            manifest: ManifestOption::Yes(ManifestChecksum::Sha256),
            // The estimate walks all files once more, but progress without a total is worth little.
            estimate: true,
            incremental: false,
            compression: None,
        }
    }
}

impl BaseBackupOptions {
    /// The label that goes into `backup_label` and the backup history file.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// The kind of checkpoint at the start.
    #[must_use]
    pub fn checkpoint(mut self, checkpoint: Checkpoint) -> Self {
        self.checkpoint = checkpoint;
        self
    }

    /// Whether the server waits until its own archiver has taken all needed WAL. On a standby this can wait for the next
    /// WAL switch of the primary.
    #[must_use]
    pub fn wait_for_archive(mut self, wait: bool) -> Self {
        self.wait_for_archive = wait;
        self
    }

    /// The highest rate in kB/s at which the server sends, 32 to 1048576.
    #[must_use]
    pub fn max_rate(mut self, rate: Option<u32>) -> Self {
        self.max_rate = rate;
        self
    }

    /// Whether the server verifies page checksums, where the cluster has them.
    #[must_use]
    pub fn verify_checksums(mut self, verify: bool) -> Self {
        self.verify_checksums = verify;
        self
    }

    /// Whether and how a manifest is made.
    #[must_use]
    pub fn manifest(mut self, manifest: ManifestOption) -> Self {
        self.manifest = manifest;
        self
    }

    /// Whether the server estimates sizes before it starts.
    #[must_use]
    pub fn estimate(mut self, estimate: bool) -> Self {
        self.estimate = estimate;
        self
    }

    /// Whether only blocks changed since the manifest that was uploaded before on the same session are sent (from 17).
    #[must_use]
    pub fn incremental(mut self, incremental: bool) -> Self {
        self.incremental = incremental;
        self
    }

    /// Compression by the server (from 15).
    #[must_use]
    pub fn compression(mut self, compression: Option<Compression>) -> Self {
        self.compression = compression;
        self
    }

    /// The command for a server of `version`.
    ///
    /// # Errors
    /// [`Error::Settings`] for an option that this version does not have, or a value out of range.
    pub fn command(&self, version: ServerVersion) -> Result<String> {
        let major = version.major();
        if self.label.contains('\0') || self.label.len() > 1024 {
            // MAXPGPATH is the server's limit.
            return Err(Error::settings("the label of a base backup is too long or holds a zero byte"));
        }
        if let Some(rate) = self.max_rate.filter(|rate| !(32..=1_048_576).contains(rate)) {
            return Err(Error::settings(format!("max_rate {rate} is not within 32..=1048576 kB/s")));
        }
        if self.incremental && major < 17 {
            return Err(Error::settings(format!("postgresql {version} has no incremental base backups")));
        }
        if self.compression.is_some() && major < 15 {
            return Err(Error::settings(format!("postgresql {version} does not compress base backups")));
        }
        Ok(if major < 15 { self.keywords() } else { self.list() })
    }

    /// `'` is doubled; the replication scanner knows no other escape.
    fn quoted_label(&self) -> String {
        format!("'{}'", self.label.replace('\'', "''"))
    }

    fn manifest_words(&self) -> Option<(&'static str, &'static str)> {
        match self.manifest {
            ManifestOption::No => None,
            ManifestOption::Yes(checksum) => Some(("yes", checksum.name())),
            ManifestOption::ForceEncode(checksum) => Some(("force-encode", checksum.name())),
        }
    }

    fn keywords(&self) -> String {
        let mut command = format!("BASE_BACKUP LABEL {}", self.quoted_label());
        let mut add = |text: &str| {
            command.push(' ');
            command.push_str(text);
        };
        if self.estimate {
            add("PROGRESS");
        }
        if self.checkpoint == Checkpoint::Fast {
            add("FAST");
        }
        if !self.wait_for_archive {
            add("NOWAIT");
        }
        if let Some(rate) = self.max_rate {
            add(&format!("MAX_RATE {rate}"));
        }
        add("TABLESPACE_MAP");
        if !self.verify_checksums {
            add("NOVERIFY_CHECKSUMS");
        }
        if let Some((manifest, checksum)) = self.manifest_words() {
            add(&format!("MANIFEST '{manifest}' MANIFEST_CHECKSUMS '{checksum}'"));
        }
        command
    }

    fn list(&self) -> String {
        let mut items = vec![format!("LABEL {}", self.quoted_label())];
        if self.estimate {
            items.push("PROGRESS".to_owned());
        }
        let checkpoint = if self.checkpoint == Checkpoint::Fast { "fast" } else { "spread" };
        items.push(format!("CHECKPOINT '{checkpoint}'"));
        items.push(format!("WAIT {}", self.wait_for_archive));
        if let Some(rate) = self.max_rate {
            items.push(format!("MAX_RATE {rate}"));
        }
        items.push("TABLESPACE_MAP".to_owned());
        items.push(format!("VERIFY_CHECKSUMS {}", self.verify_checksums));
        if let Some((manifest, checksum)) = self.manifest_words() {
            items.push(format!("MANIFEST '{manifest}', MANIFEST_CHECKSUMS '{checksum}'"));
        }
        if self.incremental {
            items.push("INCREMENTAL".to_owned());
        }
        match self.compression {
            None => {}
            Some(Compression::Gzip(level)) => {
                items.push(format!("COMPRESSION 'gzip', COMPRESSION_DETAIL 'level={level}'"));
            }
            Some(Compression::Lz4(level)) => {
                items.push(format!("COMPRESSION 'lz4', COMPRESSION_DETAIL 'level={level}'"));
            }
            Some(Compression::Zstd(level, workers)) => {
                items.push(format!("COMPRESSION 'zstd', COMPRESSION_DETAIL 'level={level},workers={workers}'"));
            }
        }
        format!("BASE_BACKUP ( {} )", items.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(major: u32) -> ServerVersion {
        ServerVersion::new(major * 10_000).unwrap()
    }

    #[test]
    fn both_grammars() {
        let options = BaseBackupOptions::default().label("it's");
        assert_eq!(
            options.command(version(14)).unwrap(),
            "BASE_BACKUP LABEL 'it''s' PROGRESS FAST NOWAIT TABLESPACE_MAP MANIFEST 'yes' MANIFEST_CHECKSUMS 'SHA256'"
        );
        assert_eq!(
            options.command(version(15)).unwrap(),
            "BASE_BACKUP ( LABEL 'it''s', PROGRESS, CHECKPOINT 'fast', WAIT false, TABLESPACE_MAP, \
             VERIFY_CHECKSUMS true, MANIFEST 'yes', MANIFEST_CHECKSUMS 'SHA256' )"
        );
    }

    #[test]
    fn what_a_version_lacks_is_refused() {
        let incremental = BaseBackupOptions::default().incremental(true);
        assert!(incremental.command(version(16)).is_err());
        assert!(incremental.command(version(17)).unwrap().contains(", INCREMENTAL"));
        let zstd = BaseBackupOptions::default().compression(Some(Compression::Zstd(3, 2)));
        assert!(zstd.command(version(14)).is_err());
        assert!(zstd.command(version(15)).unwrap().contains("COMPRESSION_DETAIL 'level=3,workers=2'"));
        assert!(BaseBackupOptions::default().max_rate(Some(31)).command(version(15)).is_err());
        assert!(BaseBackupOptions::default().label("a\0").command(version(15)).is_err());
    }
}
