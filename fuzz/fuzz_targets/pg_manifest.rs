//! Manifests: never panics, and pieces do not matter. Their checksum over themselves is put right for half of the inputs.

#![no_main]

use backup_postgres::manifest::{Manifest, ManifestReader};
use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};

fuzz_target!(|data: &[u8]| {
    let mut text = data.to_vec();
    if data.first() == Some(&b'{') {
        let digest: String = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
        text.extend_from_slice(format!("\"Manifest-Checksum\": \"{digest}\"}}\n").as_bytes());
    }
    let whole = Manifest::parse(&text).ok();
    let mut files = Vec::new();
    let mut reader = ManifestReader::new();
    let pushed = text.chunks(7).try_for_each(|part| reader.push(part, &mut |file| files.push(file)));
    let summary = pushed.and_then(|()| reader.finish()).ok();
    assert_eq!(whole.as_ref().map(|manifest| &manifest.summary), summary.as_ref());
    if let Some(whole) = whole {
        assert_eq!(whole.files, files);
    }
});
