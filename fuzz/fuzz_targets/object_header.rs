//! The plain header of objects: never panics, and what it accepts encodes back to the same bytes.

#![no_main]

use backup_crypto::ObjectHeader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(header) = ObjectHeader::parse(data) {
        assert_eq!(header.encode(), data[..ObjectHeader::LEN]);
    }
});
