#![no_main]
use std::sync::LazyLock;

use backup_storage::primitives::Kernels;

static KERNELS: LazyLock<Kernels> = LazyLock::new(|| Kernels::new(backup_crypto::Suite::ChaCha20Poly1305).expect("zstd is there"));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    backup_storage::primitives::parsers::pack(&KERNELS, bytes);
});
