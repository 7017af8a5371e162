//! As a file that a server loads when it starts.

use backup_core::ErrorKind;
use backup_redis::RestoreSettings;
use backup_redis::rdb::sample::{SampleFile, small_file};
use backup_redis::rdb::{KeyFilter, RdbVersion, Rules};
use backup_testkit::{Redis, RedisVersion, require_or_skip, scratch_dir};

use crate::harness::{Vault, run};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_starts_with_what_was_wanted() {
    let source =
        require_or_skip!(Redis::builder(RedisVersion::Valkey81).user("carol on >secret ~* +get").start().await);
    let mut there = source.connect().await.unwrap();
    for line in ["SET a:1 x", "SET b:1 y", "SELECT 3", "SET a:2 z"] {
        run(&mut there, line).await;
    }
    let vault = Vault::memory();
    let backup = vault.backup(&source).await;
    let home = scratch_dir().unwrap();
    let dir = home.path().join("data");
    let way = RestoreSettings::files(&dir).rules(Rules::default().filter(KeyFilter::all().prefix("a:")));
    vault.restore(&backup, way.clone()).await.unwrap();
    assert!(std::fs::read_to_string(dir.join("users.acl")).unwrap().contains("user carol on"));
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 2, "and nothing else");
    let again = vault.restore(&backup, way.clone()).await.unwrap_err();
    assert!(again.to_string().contains("has a dump.rdb already"), "{again}");

    // A restore that died before the data were there leaves the users behind, which the next one knows by their second name.
    std::fs::remove_file(dir.join("dump.rdb")).unwrap();
    let foreign = vault.restore(&backup, way.clone()).await.unwrap_err();
    assert!(foreign.to_string().contains("has a users.acl already"), "{foreign}");
    std::fs::hard_link(dir.join("users.acl"), dir.join(".users.acl.partial")).unwrap();
    vault.restore(&backup, way).await.unwrap();
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 2);
    let server = Redis::builder(RedisVersion::Valkey81).data_dir(&dir).start().await.unwrap();
    let mut here = server.connect().await.unwrap();
    assert_eq!(run(&mut here, "DBSIZE").await, "1");
    assert_eq!(run(&mut here, "GET a:1").await, "x");
    run(&mut here, "SELECT 3").await;
    assert_eq!(run(&mut here, "GET a:2").await, "z");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_never_touched() {
    let vault = Vault::memory();
    let home = scratch_dir().unwrap();
    let mut broken = small_file();
    broken[20] ^= 1;
    let backup = vault.keep(broken).await;
    let error = vault.restore(&backup, RestoreSettings::files(home.path())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}");
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);

    let backup = vault.keep(SampleFile::new(RdbVersion::redis(11)).string("a", b"1").finish()).await;
    for name in ["appendonlydir", "dump.rdb"] {
        let dir = scratch_dir().unwrap();
        std::fs::write(dir.path().join(name), b"theirs").unwrap();
        vault.restore(&backup, RestoreSettings::files(dir.path())).await.unwrap_err();
        assert_eq!(std::fs::read(dir.path().join(name)).unwrap(), b"theirs");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
    let server = require_or_skip!(Redis::builder(RedisVersion::Redis72).start().await);
    let error = vault.restore(&backup, RestoreSettings::files(server.data_dir())).await.unwrap_err();
    assert!(error.to_string().contains("a server runs in"), "{error}");
}
