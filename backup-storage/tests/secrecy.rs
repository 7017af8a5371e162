//! Nothing readable leaves the process: no content, no name, no key.
#![allow(clippy::unwrap_used)]

use backup_core::engine::{LogOptions, Work};
use backup_core::entry::{EntryMeta, EntryPath};
use backup_core::env::Env;
use backup_core::log::{LineageRecord, LogRange, Mark, Notation};
use backup_core::repository::{ParentChoice, Repository as _};
use backup_core::{BackupSinkExt, Consistency, Finding, Lineage, ServiceId, Severity, Snapshot};
use backup_crypto::{Passphrase, PassphraseParams, RawKey, Recipient, Suite};
use backup_storage::store::{ObjectName, Store};
use backup_storage::{CompactLog, CreateOptions, Repository, RepositorySettings};
use bytes::Bytes;
use futures::TryStreamExt;

const SECRETS: [&str; 9] = [
    "the-content-of-a-row-in-the-table",
    "customers_of_the_bank",
    "a-finding-about-something",
    "fact-that-only-the-engine-knows",
    "correct horse battery staple",
    "0123456789abcdef0123456789abcdef",
    "a-row-that-was-inserted-later",
    "restore-point-before-the-merger",
    "what-the-timeline-history-says",
];

/// Noise around a secret, which keeps the segment from being compressed: that would hide it as well.
fn noisy(secret: &str) -> Bytes {
    let mut content = vec![0; 200_000];
    blake3::Hasher::new().finalize_xof().fill(&mut content);
    content[100_000..100_000 + secret.len()].copy_from_slice(secret.as_bytes());
    content.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_readable_is_in_the_vault() {
    for suite in Suite::ALL {
        let store = Store::memory();
        let key = RawKey::take(&mut SECRETS[5].as_bytes().try_into().unwrap());
        let passphrase = Passphrase::new(SECRETS[4]).unwrap();
        let cheap = PassphraseParams::new(8 << 10, 1, 1).unwrap();
        let recipients = vec![Recipient::from(key), Recipient::Passphrase(passphrase, cheap)];
        let options = CreateOptions::default().suite(suite);
        let settings = RepositorySettings::default().workers(2);
        let service = ServiceId::new("svc").unwrap();
        let repository =
            Repository::create(&store, service, recipients, options, &settings, Env::system()).await.unwrap();

        let work = Work::default();
        let session = repository.begin(ParentChoice::None, &work).await.unwrap();
        let meta = EntryMeta::file(EntryPath::new(format!("base/{}", SECRETS[1])).unwrap());
        session.sink().put_bytes(meta, noisy(SECRETS[0])).await.unwrap();
        let small = EntryMeta::file(EntryPath::new("small").unwrap());
        session.sink().put_bytes(small, SECRETS[0].into()).await.unwrap();
        let now = Env::system().now();
        let snapshot = Snapshot::new("postgres", "17", "source", "local", Consistency::PointInTime, (now, now))
            .with_findings([Finding::new(Severity::Warning, "code", SECRETS[2])])
            .with_fact("fact", SECRETS[3]);
        session.commit(snapshot).await.unwrap();
        capture(&repository, &work).await;

        let objects: Vec<_> = store.list("").try_collect().await.unwrap();
        assert!(objects.len() >= 6, "{objects:?}");
        let logs = objects.iter().filter(|object| object.name.as_str().starts_with("svc/log/")).count();
        assert_eq!(logs, 2, "one that was made of two, and one that was too large for that");
        for object in objects {
            let name = ObjectName::new(object.name.as_str()).unwrap();
            let bytes = store.get(&name).await.unwrap();
            for secret in SECRETS {
                let needle = secret.as_bytes();
                assert!(!bytes.windows(needle.len()).any(|w| w == needle), "{suite}: {secret:?} stands in {name}");
                assert!(!name.as_str().contains(secret), "{suite}: {secret:?} stands in the name {name}");
            }
        }
    }
}

/// Stores pieces of log, and makes one of two of them.
async fn capture(repository: &Repository, work: &Work) {
    let content = noisy(SECRETS[6]);
    let (lineage, len, now) = (Lineage::new("1"), content.len() as u64, Env::system().now());
    let sink = repository.open_log(LogOptions::default(), work).await.unwrap();
    let record = LineageRecord::new(lineage.clone(), "source", Notation::Decimal, now).with_fact("fact", SECRETS[8]);
    sink.declare(record).await.unwrap();
    let mut known = None;
    for number in 0..3 {
        let range = LogRange::new(lineage.clone(), number * len..(number + 1) * len);
        let named = Mark::Name { offset: range.end, name: SECRETS[7].to_owned(), at: now };
        sink.append(range, content.clone(), &[named]).await.unwrap();
        sink.flush();
        known = sink.advanced(known.as_ref()).await.unwrap();
    }
    sink.close().await.unwrap();
    let compact = CompactLog::default().least_age(std::time::Duration::ZERO).target(2 * len + 2);
    let done = repository.compact_log(&compact, work).await.unwrap();
    assert_eq!((done.written, done.deleted), (1, 2), "{done:?}");
}
