//! Pages that are corrupt at the source are named, and their backup is kept.

use std::os::unix::fs::FileExt;

use backup_core::Severity;
use backup_postgres::Method;
use backup_testkit::{PgVersion, Postgres, StopMode, require_or_skip};

use crate::harness::{METHODS, Target, Vault, engine, value};

#[tokio::test(flavor = "multi_thread")]
async fn corrupt_pages_are_named_and_kept() {
    for version in [PgVersion::V13, PgVersion::V18] {
        let mut built = Postgres::builder(version).setting("autovacuum", "off");
        if version >= PgVersion::V17 {
            // Of what is not sent again, too, it is known that it is wrong.
            built = built.setting("summarize_wal", "on");
        }
        let mut server = require_or_skip!(built.start().await);
        let client = server.connect("postgres").await.unwrap();
        client
            .batch_execute("create table t as select i, md5(i::text) from generate_series(1, 20000) i")
            .await
            .unwrap();
        let path = value(&client, "select pg_relation_filepath('t')").await;
        drop(client);
        server.stop(StopMode::Fast).await.unwrap();
        let file = std::fs::File::options().read(true).write(true).open(server.data_dir().join(&path)).unwrap();
        let mut byte = [0];
        for page in [3, 17] {
            file.read_exact_at(&mut byte, page * 8192 + 5000).unwrap();
            file.write_all_at(&[byte[0] ^ 1], page * 8192 + 5000).unwrap();
        }
        // Old enough that an incremental backup does not read the file again.
        let long_ago = file.metadata().unwrap().modified().unwrap() - std::time::Duration::from_secs(3600);
        file.set_modified(long_ago).unwrap();
        drop(file);
        server.start().await.unwrap();

        for method in METHODS {
            let (vault, engine) = (Vault::memory(), engine(&server, method));
            // The second one reuses what the first has read, findings included.
            for number in 0..2 {
                let record = vault.backup(&engine).await;
                if number > 0 && method == Method::Protocol && version >= PgVersion::V17 {
                    assert_eq!(record.snapshot.fact("changes"), Some("summaries"), "{:?}", record.snapshot.findings);
                }
                let found: Vec<_> = record.snapshot.findings.iter().filter(|f| f.code == "page-checksum").collect();
                assert_eq!(found.len(), 2, "{version} {method}: {found:?}");
                for (finding, block) in found.iter().zip([3, 17]) {
                    assert_eq!((&finding.subject, finding.severity), (&path, Severity::Warning));
                    assert_eq!(finding.message, format!("block {block} has a wrong checksum"));
                }
                let report = vault.check(&engine, &record).await;
                assert!(report.is_sound(), "{:?}", report.findings);
                assert_eq!(report.findings.len(), 2, "{version} {method}: {:?}", report.findings);

                let target = Target::new(version);
                let restored = target.restore(&vault, &record).await.unwrap();
                assert!(restored.findings.iter().any(|f| f.code == "page-checksum"), "{:?}", restored.findings);
                let copy = target.open().await;
                let client = copy.connect("postgres").await.unwrap();
                client.batch_execute("select * from t").await.unwrap_err();
                assert_eq!(value(&client, "select count(*) from pg_class where relname = 't'").await, "1");
            }
        }
    }
}
