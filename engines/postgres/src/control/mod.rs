//! `global/pg_control`: what a cluster knows about itself.
//!
//! Source: `src/include/catalog/pg_control.h` of versions 13 to 18; little-endian, structures aligned to eight bytes. The
//! version of the format says where the CRC is: 1300 (servers 13 to 16) and 1700 share one layout, 1800 puts one byte,
//! `default_char_signedness`, before the nonce. `CheckPoint` got `wal_level` in 1700, in what was padding before.

mod stopped;

use crate::error::{Error, Result};
use crate::lsn::{Lsn, TimelineId};
use crate::wal::SegmentSize;
pub use stopped::stopped_at;

/// What the cluster was doing when the file was written (`DBState`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "names of the server")]
pub enum ClusterState {
    Startup,
    ShutDown,
    ShutDownInRecovery,
    ShuttingDown,
    InCrashRecovery,
    InArchiveRecovery,
    InProduction,
}

/// The fields of `pg_control` that backup and restore need.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ControlFile {
    /// The identifier that `initdb` gave the cluster.
    pub system_id: u64,
    /// The version of this file's format: 1300, 1700 or 1800.
    pub control_version: u32,
    /// The version of the system catalogs, for example 202209061.
    pub catalog_version: u32,
    /// What the cluster was doing.
    pub state: ClusterState,
    /// When the file was last written, in seconds since 1970.
    pub time: i64,
    /// The record of the latest checkpoint.
    pub checkpoint: Lsn,
    /// Where replay from that checkpoint starts.
    pub redo: Lsn,
    /// The timeline of that checkpoint.
    pub timeline: TimelineId,
    /// When that checkpoint was made, in seconds since 1970.
    pub checkpoint_time: i64,
    /// Up to where replay must go before the cluster is consistent; invalid unless in recovery.
    pub min_recovery: Lsn,
    /// The timeline of that position; none if invalid.
    pub min_recovery_timeline: Option<TimelineId>,
    /// The redo position of the backup that is being recovered from; invalid once its end was reached.
    pub backup_start: Lsn,
    /// The end of that backup, if it was taken from a standby.
    pub backup_end: Lsn,
    /// Whether the record of the end of that backup must still be seen.
    pub backup_end_required: bool,
    /// The size of data pages.
    pub block_size: u32,
    /// How many pages a file of a relation has at most.
    pub relation_segment_blocks: u32,
    /// The size of pages of the log.
    pub wal_block_size: u32,
    /// The size of segments of the log.
    pub wal_segment_size: SegmentSize,
    /// 0 without page checksums, else the version of the algorithm (1).
    pub data_checksum_version: u32,
}

impl ControlFile {
    /// The size of the file; only the first 300 bytes or so are used.
    pub const FILE_SIZE: usize = 8192;

    /// Reads the file and verifies its CRC. Never panics.
    ///
    /// # Errors
    /// [`Error::Malformed`] when it is too short, of an unsupported version, torn (wrong CRC: read it again) or
    /// contradictory.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let wrong = |reason: String| Error::malformed("pg_control", reason);
        let Some(head) = bytes.first_chunk::<296>() else {
            return Err(wrong(format!("only {} bytes", bytes.len())));
        };
        let u32_at = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let i64_at = |at: usize| i64::from_le_bytes(u64_at(at).to_le_bytes());

        let control_version = u32_at(8);
        let crc_at = match control_version {
            1300 | 1700 => 288,
            1800 => 292,
            other if other != 0 && other.is_multiple_of(65536) => {
                return Err(wrong("written on a machine of the other byte order".to_owned()));
            }
            other => return Err(wrong(format!("format version {other}"))),
        };
        let (stored, computed) = (u32_at(crc_at), crc32c::crc32c(&head[..crc_at]));
        if stored != computed {
            return Err(wrong(format!("crc is {computed:08x}, {stored:08x} is stored")));
        }
        let state = match u32_at(16) {
            0 => ClusterState::Startup,
            1 => ClusterState::ShutDown,
            2 => ClusterState::ShutDownInRecovery,
            3 => ClusterState::ShuttingDown,
            4 => ClusterState::InCrashRecovery,
            5 => ClusterState::InArchiveRecovery,
            6 => ClusterState::InProduction,
            other => return Err(wrong(format!("state {other}"))),
        };
        // Guards against a layout that is not what the version says, for example on a platform of 32 bits.
        if f64::from_bits(u64_at(208)) != 1_234_567.0 || u32_at(204) != 8 {
            return Err(wrong("written on a machine with other alignment or numbers".to_owned()));
        }
        let block_size = |at: usize, what: &str, from: u32| {
            let size = u32_at(at);
            let fits = size.is_power_of_two() && (from..=64 << 10).contains(&size);
            if fits { Ok(size) } else { Err(wrong(format!("{what} of {size} bytes"))) }
        };
        Ok(Self {
            system_id: u64_at(0),
            control_version,
            catalog_version: u32_at(12),
            state,
            time: i64_at(24),
            checkpoint: Lsn(u64_at(32)),
            redo: Lsn(u64_at(40)),
            timeline: TimelineId::new(u32_at(48)).ok_or_else(|| wrong("timeline 0".to_owned()))?,
            checkpoint_time: i64_at(104),
            min_recovery: Lsn(u64_at(136)),
            min_recovery_timeline: TimelineId::new(u32_at(144)),
            backup_start: Lsn(u64_at(152)),
            backup_end: Lsn(u64_at(160)),
            backup_end_required: head[168] != 0,
            block_size: block_size(216, "pages", 1 << 10)?,
            relation_segment_blocks: u32_at(220),
            wal_block_size: block_size(224, "log pages", 1 << 10)?,
            wal_segment_size: SegmentSize::new(u32_at(228))?,
            data_checksum_version: u32_at(252),
        })
    }

    /// The oldest and newest major versions of servers that write this format.
    #[must_use]
    pub fn server_versions(&self) -> (u32, u32) {
        match self.control_version {
            1300 => (13, 16),
            1700 => (17, 17),
            _ => (18, 18),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The file of a fresh server 15, made by hand from the layout.
    fn golden(version: u32) -> Vec<u8> {
        let mut bytes = vec![0; ControlFile::FILE_SIZE];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &7_512_345_678_901_234_567_u64.to_le_bytes());
        put(8, &version.to_le_bytes());
        put(12, &202_209_061_u32.to_le_bytes());
        put(16, &6_u32.to_le_bytes());
        put(32, &0x200_0060_u64.to_le_bytes());
        put(40, &0x200_0028_u64.to_le_bytes());
        put(48, &3_u32.to_le_bytes());
        put(204, &8_u32.to_le_bytes());
        put(208, &1_234_567.0_f64.to_le_bytes());
        put(216, &8192_u32.to_le_bytes());
        put(220, &131_072_u32.to_le_bytes());
        put(224, &8192_u32.to_le_bytes());
        put(228, &(16_u32 << 20).to_le_bytes());
        put(252, &1_u32.to_le_bytes());
        seal(&mut bytes);
        bytes
    }

    fn seal(bytes: &mut [u8]) {
        let at = if bytes[8..12] == 1800_u32.to_le_bytes() { 292 } else { 288 };
        let crc = crc32c::crc32c(&bytes[..at]);
        bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    }

    #[test]
    fn every_format() {
        for version in [1300, 1700, 1800] {
            let control = ControlFile::parse(&golden(version)).unwrap();
            assert_eq!((control.system_id, control.control_version), (7_512_345_678_901_234_567, version));
            assert_eq!((control.redo, control.checkpoint), (Lsn(0x200_0028), Lsn(0x200_0060)));
            assert_eq!((control.timeline.get(), control.state), (3, ClusterState::InProduction));
            assert_eq!((control.block_size, control.data_checksum_version), (8192, 1));
        }
        for version in [0, 1201, 1902, 1300_u32.swap_bytes()] {
            assert!(ControlFile::parse(&golden(version)).is_err(), "{version}");
        }
    }

    #[test]
    fn every_bit_is_under_the_crc() {
        let good = golden(1300);
        for at in 0..292 {
            let mut bytes = good.clone();
            bytes[at] ^= 0x40;
            assert!(ControlFile::parse(&bytes).is_err(), "byte {at}");
        }
        assert!(ControlFile::parse(&good[..295]).is_err());
    }

    #[test]
    fn sense_is_checked_under_a_right_crc() {
        for at in [16, 48, 204, 208, 216, 224, 228] {
            let mut bytes = golden(1800);
            bytes[at] = if at == 48 { 0 } else { 0x33 };
            seal(&mut bytes);
            assert!(ControlFile::parse(&bytes).is_err(), "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..400), sealed: bool) {
            if sealed && bytes.len() >= 296 {
                bytes[8..12].copy_from_slice(&1300_u32.to_le_bytes());
                seal(&mut bytes);
            }
            let _ = ControlFile::parse(&bytes);
        }
    }
}
