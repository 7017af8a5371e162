//! What is stored is checked and counted.

use std::sync::Arc;

use bytes::Bytes;

use super::RepositoryHarness;
use super::stage::{Stage, put_all};
use crate::conformance::bytes::{BLOCK, MIB, noise, patched, text};
use crate::repository::{ParentChoice, VerifyLevel};

/// Sound content is found sound at every level, by every handle.
pub async fn verification_of_sound_content(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let (a, b) = (noise(1, 4 * MIB), text(2, 2 * MIB));
    stage.store(ParentChoice::None, &[("a", &a), ("b", &b), ("zeros", &Bytes::from(vec![0; MIB]))]).await;
    stage.store(ParentChoice::Newest, &[("a", &patched(&a, MIB, 10)), ("b", &b)]).await;
    stage.store(ParentChoice::None, &[("a", &a)]).await;
    let open = stage.begin(ParentChoice::Newest).await;
    put_all(open.sink().as_ref(), &[("c", &noise(3, 2 * MIB))]).await;
    for repository in [Arc::clone(&stage.repository), harness.reopen(stage.repository.service()).await] {
        for level in [VerifyLevel::Catalog, VerifyLevel::Objects, VerifyLevel::Sample(50), VerifyLevel::Full] {
            let report = repository.verify(level, &stage.work()).await.expect("it can be verified");
            assert!(report.is_sound(), "{level}: {report:?}");
            assert_eq!(report.harmed(), [], "{level}: harmed backups");
            assert_eq!(report.backups, 3, "{level}: verified backups");
            assert!(level == VerifyLevel::Catalog || report.objects > 0, "{level}: verified objects");
            assert!(level != VerifyLevel::Full || report.read_bytes > 4 * MIB as u64, "{level}: read bytes");
        }
    }
    open.abort().await.expect("a session can be aborted");
}

/// The numbers of a record are those of its entries.
pub async fn counters(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let a = noise(1, 4 * MIB + 1);
    let b = noise(2, 100);
    let full = stage.store(ParentChoice::None, &[("a", &a), ("b", &b), ("empty", &Bytes::new())]).await;
    let len = (a.len() + b.len()) as u64;
    assert_eq!((full.entries, full.data_bytes, full.new_bytes), (3, len, len), "entries, data and new bytes");
    // Noise does not shrink, and what is added to it (headers, tags, manifest) is little.
    assert!((len..len + len / 4).contains(&full.stored_bytes), "stored bytes: {}", full.stored_bytes);
    assert_eq!(full.reused, [], "sessions that a full backup reuses");

    let changed = patched(&a, 0, BLOCK);
    let session = stage.begin(ParentChoice::Newest).await;
    let stored = put_all(session.sink().as_ref(), &[("a", &changed), ("b", &b)]).await;
    let second = stage.commit(session).await;
    assert_eq!((second.entries, second.data_bytes, second.new_bytes), (2, len, BLOCK as u64), "of the second backup");
    assert_eq!(stored.iter().map(|s| s.new_bytes).sum::<u64>(), second.new_bytes, "puts and record agree");
    assert!(second.stored_bytes < full.stored_bytes / 4, "stored bytes of the second: {}", second.stored_bytes);
    assert_eq!(second.reused, [full.session], "sessions that the second backup reuses");

    let zeros = stage.store(ParentChoice::None, &[("zeros", &Bytes::from(vec![0; 8 * MIB]))]).await;
    assert_eq!(zeros.data_bytes, 8 * MIB as u64, "zeros are content");
    assert!(zeros.stored_bytes < MIB as u64, "but cost nothing: {}", zeros.stored_bytes);
}
