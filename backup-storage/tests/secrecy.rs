//! Nothing readable leaves the process: no content, no name, no key.
#![allow(clippy::unwrap_used)]

use backup_core::engine::Work;
use backup_core::entry::{EntryMeta, EntryPath};
use backup_core::env::Env;
use backup_core::repository::{ParentChoice, Repository as _};
use backup_core::{BackupSinkExt, Consistency, Finding, ServiceId, Severity, Snapshot};
use backup_crypto::{Passphrase, PassphraseParams, RawKey, Recipient, Suite};
use backup_storage::store::{ObjectName, Store};
use backup_storage::{CreateOptions, Repository, RepositorySettings};
use futures::TryStreamExt;

const SECRETS: [&str; 6] = [
    "the-content-of-a-row-in-the-table",
    "customers_of_the_bank",
    "a-finding-about-something",
    "fact-that-only-the-engine-knows",
    "correct horse battery staple",
    "0123456789abcdef0123456789abcdef",
];

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
        // Noise around the secret keeps the segment from being compressed, which would hide it as well.
        let mut content = vec![0; 200_000];
        blake3::Hasher::new().finalize_xof().fill(&mut content);
        content[100_000..100_000 + SECRETS[0].len()].copy_from_slice(SECRETS[0].as_bytes());
        session.sink().put_bytes(meta, content.into()).await.unwrap();
        let small = EntryMeta::file(EntryPath::new("small").unwrap());
        session.sink().put_bytes(small, SECRETS[0].into()).await.unwrap();
        let now = Env::system().now();
        let snapshot = Snapshot::new("postgres", "17", "source", "local", Consistency::PointInTime, (now, now))
            .with_findings([Finding::new(Severity::Warning, "code", SECRETS[2])])
            .with_fact("fact", SECRETS[3]);
        session.commit(snapshot).await.unwrap();

        let objects: Vec<_> = store.list("").try_collect().await.unwrap();
        assert!(objects.len() >= 6, "{objects:?}");
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
