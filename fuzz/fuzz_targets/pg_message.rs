//! Messages of a server: never panics, takes whole messages only, and never more than there is.

#![no_main]

use backup_postgres::wire::{decode, server_end_point};
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = server_end_point(data);
    let mut buffer = BytesMut::from(data);
    loop {
        let before = buffer.len();
        match decode(&mut buffer, 1 << 16) {
            Ok(Ok(_)) => assert!(buffer.len() < before),
            Ok(Err(missing)) => {
                assert!(missing > 0 && buffer.len() == before);
                break;
            }
            Err(_) => break,
        }
    }
});
