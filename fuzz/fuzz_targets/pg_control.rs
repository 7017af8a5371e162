//! The control file and the header of segments: never panic, under a right checksum too.

#![no_main]

use backup_postgres::control::ControlFile;
use backup_postgres::wal::LongPageHeader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = LongPageHeader::parse(data);
    let _ = ControlFile::parse(data);
    if data.len() >= 296 {
        let mut sealed = data.to_vec();
        let (version, crc_at) = if data[8] & 1 == 0 { (1300_u32, 288) } else { (1800, 292) };
        sealed[8..12].copy_from_slice(&version.to_le_bytes());
        sealed[204..208].copy_from_slice(&8_u32.to_le_bytes());
        sealed[208..216].copy_from_slice(&1_234_567.0_f64.to_le_bytes());
        let crc = crc32c::crc32c(&sealed[..crc_at]);
        sealed[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
        let _ = ControlFile::parse(&sealed);
    }
});
