//! What is refused, and how: nothing of a snapshot that is not whole becomes a backup.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backup_core::ErrorKind;
use backup_redis::{Persistence, RedisEngine, RedisSettings};
use backup_testkit::redis::every_type;
use backup_testkit::{Redis, RedisVersion, require_or_skip};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{Capture, Vault, engine, position, settings};

/// Stands between an engine and a server, and does something to the byte with this number of what the server sends over a connection
/// that asked to replicate.
struct Meddler {
    port: u16,
    task: tokio::task::JoinHandle<()>,
    passed: Arc<AtomicU64>,
}

#[derive(Clone, Copy)]
enum Deed {
    Flip(u64),
    HangUp(u64),
    Nothing,
}

impl Meddler {
    async fn before(server: &Redis, deed: Deed) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (port, to) = (listener.local_addr().unwrap().port(), server.port());
        let passed = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&passed);
        let task = tokio::spawn(async move {
            let mut tasks = tokio::task::JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                tasks.spawn(pass(client, server, deed, Arc::clone(&count)));
            }
        });
        Self { port, task, passed }
    }

    fn engine(&self) -> RedisEngine {
        RedisEngine::new(RedisSettings::default().url(format!("redis://127.0.0.1:{}", self.port))).unwrap()
    }
}

impl Drop for Meddler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(mut client: TcpStream, mut server: TcpStream, deed: Deed, count: Arc<AtomicU64>) {
    let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
    let (mut replica, mut sent) = (false, 0_u64);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(len @ 1..) = read else { return };
                replica |= up[..len].starts_with(b"*3\r\n$5\r\nPSYNC");
                if server.write_all(&up[..len]).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut down) => {
                let Ok(len @ 1..) = read else { return };
                let mut end = len;
                if replica {
                    match deed {
                        Deed::Flip(at) if (sent..sent + len as u64).contains(&at) => down[(at - sent) as usize] ^= 0x20,
                        Deed::HangUp(at) if sent + len as u64 > at => end = (at - sent) as usize,
                        _ => {}
                    }
                    sent += len as u64;
                    count.store(sent, Ordering::Relaxed);
                }
                if client.write_all(&down[..end]).await.is_err() || end < len {
                    return;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_was_damaged_or_cut_on_its_way_is_no_backup() {
    let server = require_or_skip!(Redis::builder(RedisVersion::Redis72).start().await);
    every_type(&server).await.unwrap();
    let vault = Vault::memory();
    let honest = Meddler::before(&server, Deed::Nothing).await;
    vault.backup(&honest.engine()).await;
    let length = honest.passed.load(Ordering::Relaxed);
    assert!(length > 10_000);
    // The answer to the request has about a hundred bytes, and the last forty are the mark.
    for at in (150..length).step_by(length as usize / 7).chain([length - 50, length - 42, length - 1]) {
        let meddler = Meddler::before(&server, Deed::Flip(at)).await;
        let error = vault.try_backup(&meddler.engine()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "byte {at} of {length}: {error}");
        let meddler = Meddler::before(&server, Deed::HangUp(at)).await;
        let error = vault.try_backup(&meddler.engine()).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Unavailable), "byte {at} of {length}: {error}");
    }
    assert_eq!(vault.0.catalog().await.unwrap().backups().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_is_never_backed_up() {
    let server = require_or_skip!(Redis::builder(RedisVersion::Redis62).start().await);
    let vault = Vault::memory();
    let cache = RedisEngine::new(settings(&server).persistence(Persistence::Off)).unwrap();
    let error = vault.try_backup(&cache).await.unwrap_err();
    assert!(error.to_string().contains("persistence-off"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_without_its_primary_is_not_read() {
    let mut primary = require_or_skip!(Redis::builder(RedisVersion::Valkey81).start().await);
    let replica = Redis::replica_of(&primary).await.unwrap();
    primary.kill9().await;
    replica.wait_info("replication", "master_link_status", |status| status == "down").await.unwrap();
    let error = Vault::memory().try_backup(&engine(&replica)).await.unwrap_err();
    assert!(error.to_string().contains("replica-not-linked"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_told_apart() {
    let server = require_or_skip!(Redis::builder(RedisVersion::Redis82).password("right").start().await);
    let url = |login: &str| RedisSettings::default().url(format!("redis://{login}127.0.0.1:{}", server.port()));
    let vault = Vault::memory();
    let wrong = vault.try_backup(&RedisEngine::new(url(":wrong@")).unwrap()).await.unwrap_err();
    assert!(wrong.to_string().contains("authentication failed") && !wrong.to_string().contains(":wrong"), "{wrong}");
    let nobody = vault.try_backup(&RedisEngine::new(url("")).unwrap()).await.unwrap_err();
    assert!(nobody.to_string().contains("NOAUTH"), "{nobody}");
    let nowhere = RedisEngine::new(RedisSettings::default().url("redis://127.0.0.1:1")).unwrap();
    assert_eq!(vault.try_backup(&nowhere).await.unwrap_err().kind(), ErrorKind::Unavailable);
    let nothing = RedisEngine::new(RedisSettings::default()).unwrap();
    assert_eq!(vault.try_backup(&nothing).await.unwrap_err().kind(), ErrorKind::InvalidInput);

    // A log of one deployment does not go into that of another.
    let capture = Capture::start(&vault, url(":right@").identity("one"));
    capture.finds("log-begins").await;
    server.connect().await.unwrap().run("SET a 1").await.unwrap();
    capture.reaches(&position(&server).await).await;
    capture.stop().await;
    let other = Capture::start(&vault, url(":right@").identity("other"));
    let error = other.fails().await;
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("one of one, not of other"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_nothing_is_given_up() {
    use backup_redis::client::{Address, ClientSettings, Connection};
    let mut server = require_or_skip!(Redis::builder(RedisVersion::Redis62).start().await);
    let address: Address = server.url().parse().unwrap();
    let settings = ClientSettings::new(address).silence(std::time::Duration::from_millis(100));
    let mut connection = Connection::open(&settings, &settings.address.nodes[0]).await.unwrap();
    server.pause();
    let error = connection.call(&["PING"]).await.unwrap_err();
    assert!(error.to_string().contains("no answer within 100ms"), "{error}");
    server.resume();
    let error = connection.call(&["PING"]).await.unwrap_err();
    assert!(error.to_string().contains("dropped half-way"), "{error}");
}
