//! Writing a manifest of version 2, as `backup_manifest.c` does.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::reader::{ManifestFile, WalRange};

/// Writes a manifest as its files come. What was written is taken out in between, so that memory does not grow.
#[derive(Debug)]
pub struct ManifestWriter {
    digest: Sha256,
    text: Vec<u8>,
    any: bool,
}

impl ManifestWriter {
    /// The start of the manifest of a backup of this cluster.
    #[must_use]
    pub fn new(system_id: u64) -> Self {
        let text =
            format!("{{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": {system_id},\n\"Files\": [");
        Self { digest: Sha256::new(), text: text.into_bytes(), any: false }
    }

    /// Adds a file.
    pub fn file(&mut self, file: &ManifestFile) {
        let between = if std::mem::replace(&mut self.any, true) { ",\n{ " } else { "\n{ " };
        self.text.extend_from_slice(between.as_bytes());
        match std::str::from_utf8(&file.path) {
            Ok(path) => {
                self.text.extend_from_slice(b"\"Path\": ");
                self.string(path);
            }
            Err(_) => self.add(&format!("\"Encoded-Path\": \"{}\"", hex(&file.path))),
        }
        self.add(&format!(", \"Size\": {}", file.size));
        if !file.modified.is_empty() {
            self.text.extend_from_slice(b", \"Last-Modified\": ");
            self.string(&file.modified);
        }
        if let Some(sum) = &file.checksum {
            let name = sum.algorithm.name();
            self.add(&format!(", \"Checksum-Algorithm\": \"{name}\", \"Checksum\": \"{}\"", hex(&sum.value)));
        }
        self.text.extend_from_slice(b" }");
    }

    /// What was written since it was taken last.
    pub fn take(&mut self) -> Bytes {
        self.digest.update(&self.text);
        std::mem::take(&mut self.text).into()
    }

    /// Adds the log that recovery needs, and the manifest's checksum over itself. Returns what was not taken yet.
    #[must_use]
    pub fn finish(mut self, ranges: &[WalRange]) -> Bytes {
        self.text.extend_from_slice(b"\n],\n\"WAL-Ranges\": [\n");
        for (number, WalRange { timeline, start, end }) in ranges.iter().enumerate() {
            let between = if number == 0 { "" } else { ",\n" };
            self.add(&format!(
                "{between}{{ \"Timeline\": {timeline}, \"Start-LSN\": \"{start}\", \"End-LSN\": \"{end}\" }}"
            ));
        }
        self.text.extend_from_slice(b"\n],\n");
        let mut rest = self.take().to_vec();
        let digest = hex(&self.digest.finalize());
        rest.extend_from_slice(format!("\"Manifest-Checksum\": \"{digest}\"}}\n").as_bytes());
        rest.into()
    }

    fn add(&mut self, text: &str) {
        self.text.extend_from_slice(text.as_bytes());
    }

    /// A string of JSON.
    fn string(&mut self, text: &str) {
        self.text.push(b'"');
        for char in text.chars() {
            match char {
                '"' | '\\' => {
                    self.text.push(b'\\');
                    self.text.push(char as u8);
                }
                control if control < ' ' => self.add(&format!("\\u{:04x}", control as u32)),
                other => self.text.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        self.text.push(b'"');
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lsn::{Lsn, TimelineId};
    use crate::manifest::{ChecksumAlgorithm, FileHasher, Manifest};

    fn files() -> impl Strategy<Value = Vec<ManifestFile>> {
        let path = prop_oneof![
            "[a-z\"\\\\\n\u{1}é/]{1,20}".prop_map(String::into_bytes),
            prop::collection::vec(1_u8..=255, 1..20),
        ];
        let file = (path, any::<u64>(), any::<bool>(), any::<bool>()).prop_map(|(path, size, sum, time)| {
            let checksum = sum.then(|| FileHasher::new(ChecksumAlgorithm::Sha256).finish());
            let modified = if time { "2026-11-24 01:02:03 GMT".to_owned() } else { String::new() };
            ManifestFile { path, size, checksum, modified }
        });
        prop::collection::vec(file, 0..6)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(files in files(), ranges in 1_u32..4, taken in 0_usize..6) {
            let ranges: Vec<_> = (1..=ranges)
                .rev()
                .map(|n| WalRange { timeline: TimelineId::new(n).unwrap(), start: Lsn(n.into()), end: Lsn(1 << 33) })
                .collect();
            let mut writer = ManifestWriter::new(7_512_345_678_901_234_567);
            let mut text = Vec::new();
            for (number, file) in files.iter().enumerate() {
                writer.file(file);
                if number == taken {
                    text.extend_from_slice(&writer.take());
                }
            }
            text.extend_from_slice(&writer.finish(&ranges));
            let read = Manifest::parse(&text).unwrap();
            prop_assert_eq!(read.files, files);
            prop_assert_eq!(read.summary.wal_ranges, ranges);
            prop_assert_eq!((read.summary.version, read.summary.system_id), (2, Some(7_512_345_678_901_234_567)));
        }
    }
}
