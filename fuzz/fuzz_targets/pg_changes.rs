//! Stored maps of changes: never panics, takes no more memory than the bytes deserve, and what is read is written the same.

#![no_main]

use backup_postgres::changes::ChangeMap;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(map) = ChangeMap::from_bytes(data) else { return };
    let bytes = map.to_bytes().unwrap();
    assert_eq!(ChangeMap::from_bytes(&bytes).unwrap(), map);
    let mut both = map.clone();
    both.merge(&map);
    for path in ["base/5/16384", "base/5/16384_vm.7", "global/1262"] {
        let _ = both.file(path.as_bytes());
    }
});
