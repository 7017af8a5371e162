#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    backup_storage::primitives::parsers::plain(bytes);
});
