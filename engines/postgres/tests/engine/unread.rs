//! Which files a local backup takes from its parent without reading them: those whose size and time are the parent's, where
//! that time proves something.

use std::time::{Duration, SystemTime};

use backup_core::BackupSourceExt;
use backup_core::catalog::BackupRecord;
use backup_core::entry::EntryPath;
use backup_postgres::Method;
use backup_testkit::{PgVersion, Postgres, StopMode, require_or_skip};

use crate::harness::{Vault, engine, value};

async fn content(vault: &Vault, backup: &BackupRecord, path: &str) -> String {
    let source = vault.0.open(backup.id).await.unwrap();
    let bytes = source.read_small(&EntryPath::new(path).unwrap(), 1 << 20).await.unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn by_size_and_time() {
    let mut server = require_or_skip!(Postgres::builder(PgVersion::V17).start().await);
    let engine = engine(&server, Method::Local);
    let folder = server.data_dir().join("extra");
    std::fs::create_dir(&folder).unwrap();
    let write = |name: &str, content: &str, time: SystemTime| {
        let path = folder.join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    };
    let recent = std::fs::metadata(&folder).unwrap().modified().unwrap();
    let old = recent - Duration::from_secs(3600);
    // A time in the future proves nothing, as one just before the parent began does not.
    let future = recent + Duration::from_secs(3600);
    for (name, time) in [("old", old), ("recent", recent), ("future", future), ("moved", old)] {
        write(name, "first", time);
    }
    let vault = Vault::memory();
    let first = vault.backup(&engine).await;
    // A liar changes content and puts size and time back.
    for (name, time) in
        [("old", old), ("recent", recent), ("future", future), ("moved", old + Duration::from_micros(1))]
    {
        write(name, "other", time);
    }
    let second = vault.backup(&engine).await;
    assert_eq!(second.parent, Some(first.id));
    assert_eq!(content(&vault, &second, "extra/old").await, "first", "this one was not read");
    for name in ["recent", "future", "moved"] {
        assert_eq!(content(&vault, &second, &format!("extra/{name}")).await, "other", "{name}");
    }

    // What the server writes is always seen, also where the size stays.
    let client = server.connect("postgres").await.unwrap();
    client.batch_execute("create table t as select 1 as i, repeat('x', 100) as pad; checkpoint").await.unwrap();
    let path = server.data_dir().join(value(&client, "select pg_relation_filepath('t')").await);
    let third = vault.backup(&engine).await;
    let len = std::fs::metadata(&path).unwrap().len();
    client.batch_execute("update t set i = 2, pad = repeat('y', 100); checkpoint").await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), len);
    let fourth = vault.backup(&engine).await;
    let entry = path.strip_prefix(server.data_dir()).unwrap().to_str().unwrap().to_owned();
    assert!(!content(&vault, &third, &entry).await.contains(&"y".repeat(100)));
    assert!(content(&vault, &fourth, &entry).await.contains(&"y".repeat(100)));

    // Another place, another clock: a copy of the directory is read, whatever its times say.
    drop(client);
    server.stop(StopMode::Fast).await.unwrap();
    let copy = server.home().join("copy");
    assert!(std::process::Command::new("cp").arg("-a").arg(server.data_dir()).arg(&copy).status().unwrap().success());
    let old_file = copy.join("extra/old");
    assert_eq!(std::fs::metadata(&old_file).unwrap().modified().unwrap(), old);
    let copied = Postgres::open(PgVersion::V17, &copy).await.unwrap();
    let fifth = vault.backup(&crate::harness::engine(&copied, Method::Local)).await;
    assert_eq!(fifth.parent, Some(fourth.id), "the same cluster by its identifier");
    assert_eq!(content(&vault, &fifth, "extra/old").await, "other");
}
