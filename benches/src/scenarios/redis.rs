//! A Redis dataset into a local vault and back into a running server.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use backup_core::RecoveryTarget;
use backup_core::catalog::BackupRecord;
use backup_core::engine::Work as Context;
use backup_core::entry::Selector;
use backup_core::run::{BackupOptions, backup, plan_restore, restore};
use backup_redis::client::ClientSettings;
use backup_redis::{RedisEngine, RedisSettings, RestoreSettings};
use backup_testkit::Redis;
use backup_testkit::redis::RedisVersion;

use crate::Error;
use crate::chart;
use crate::figures::{Figures, table};
use crate::work::{self, Work, measure_beside};

const VERSION: RedisVersion = RedisVersion::Redis82;

/// Fills a server with about `size` MB and measures every contender `runs` times, in turn.
#[expect(clippy::print_stdout, reason = "a program that reports to its terminal")]
pub(crate) async fn run(size: u64, runs: usize, out: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(out)?;
    println!("about {size} MB in {VERSION} are being written …");
    // Both contenders would wait five seconds for further replicas.
    let source = Redis::builder(VERSION).setting("repl-diskless-sync-delay", "0").start().await?;
    fill(&source, size << 20).await?;
    let scratch = tempfile::tempdir_in(out)?;
    let (mut dump, mut snapshot, mut sync, mut live) = (vec![], vec![], vec![], vec![]);
    let cli = redis_cli();
    if cli.is_none() {
        println!("no redis-cli on this machine: a plain replica of the bench stands in for it");
    }
    for round in 0..runs {
        println!("round {} of {runs} …", round + 1);
        let file = scratch.path().join("dump.zst");
        let dumping = Work::RedisDump { port: source.port(), cli: cli.clone(), out: file.clone() };
        dump.push(measure_beside(source.pid(), &dumping)?);
        std::fs::remove_file(&file)?;
        let vault = scratch.path().join("vault");
        let backup = Work::RedisBackup { vault: vault.clone(), url: source.url() };
        snapshot.push(measure_beside(source.pid(), &backup)?);

        let replica = Redis::builder(VERSION).start().await?;
        // What the new replica itself uses is what a target uses.
        let syncing = Work::RedisSync { source: source.port(), target: replica.port() };
        sync.push(measure_beside(replica.pid(), &syncing)?);
        drop(replica);
        let target = Redis::builder(VERSION).start().await?;
        let restore = Work::RedisRestore { vault: vault.clone(), url: target.url() };
        live.push(measure_beside(target.pid(), &restore)?);
        let counted = (keys(&source).await?, keys(&target).await?);
        if counted.0 != counted.1 {
            return Err(format!("{} keys were restored of {}", counted.1, counted.0).into());
        }
        std::fs::remove_dir_all(&vault)?;
    }
    let dumped = if cli.is_some() { "redis-cli --rdb - \\| zstd -1" } else { "a plain replica \\| zstd -1" };
    let all = [
        Figures::of(dumped, &dump),
        Figures::of("snapshot", &snapshot),
        Figures::of("full sync of a new replica", &sync),
        Figures::of("live restore", &live),
    ];
    let mut text = table(&all);
    text += "\nThe server's processor time is the primary's for the first two, and the new one's for the others.\n";
    let json = serde_json::json!({
        "bench": "redis", "size_mb": size, "runs": runs, "figures": all,
        "snapshot_over_dump": all[1].wall.median / all[0].wall.median,
        "stored_over_dump": all[1].stored as f64 / all[0].stored as f64,
        "sync_over_live": all[2].wall.median / all[3].wall.median,
    });
    std::fs::write(out.join("redis.json"), serde_json::to_string_pretty(&json)?)?;
    std::fs::write(out.join("redis.svg"), chart::seconds("Redis, local vault", &all))?;
    std::fs::write(out.join("redis.md"), &text)?;
    println!("{text}\nwritten to {}", out.display());
    Ok(())
}

async fn keys(server: &Redis) -> Result<i64, Error> {
    server.connect().await?.run("DBSIZE").await?.number().ok_or_else(|| "DBSIZE is no number".into())
}

/// Sessions, documents and counters: strings of some hundred bytes, hashes and sorted sets, made of words.
async fn fill(server: &Redis, size: u64) -> Result<(), Error> {
    const WORDS: [&str; 16] = [
        "account", "session", "order", "invoice", "customer", "delivery", "pending", "shipped", "berlin", "helsinki",
        "toronto", "sydney", "monthly", "premium", "refund", "basket",
    ];
    let mut client = server.connect().await?;
    // xorshift64*: the same data in every run.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    };
    let mut text = move |len: usize| {
        let mut text = String::with_capacity(len + 16);
        while text.len() < len {
            let word = random();
            text.push_str(WORDS[(word % 16) as usize]);
            text.push_str(&format!(" {:x} ", word >> 40));
        }
        text
    };
    let (mut written, mut number) = (0_u64, 0_u64);
    while written < size {
        let mut commands: Vec<Vec<String>> = Vec::with_capacity(1000);
        for _ in 0..1000 {
            number += 1;
            let mut command = match number % 10 {
                0 => vec!["HSET".to_owned(), format!("user:{number}")],
                1 => vec!["ZADD".to_owned(), format!("ranking:{number}")],
                _ => vec!["SET".to_owned(), format!("session:{number}"), text(200 + (number % 13) as usize * 90)],
            };
            match number % 10 {
                0 => (0..12).for_each(|field| command.extend([format!("field-{field}"), text(40)])),
                1 => (0..20).for_each(|member| command.extend([(member * 17 % 23).to_string(), text(16)])),
                _ => {}
            }
            written += command.iter().map(|word| word.len() as u64).sum::<u64>();
            commands.push(command);
        }
        client.send(&commands).await?;
    }
    Ok(())
}

fn redis_cli() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join("redis-cli")).find(|program| program.exists())
}

/// What people do without a backup program: the snapshot of a replica through `zstd -1` into a file, which is synced; bytes in and out.
pub(crate) fn dump(port: u16, cli: Option<&Path>, out: &Path) -> Result<(u64, u64), Error> {
    let mut file = File::create(out)?;
    let mut encoder = zstd::Encoder::new(&file, 1)?;
    let bytes = match cli {
        Some(cli) => {
            let mut child =
                Command::new(cli).args(["-p", &port.to_string(), "--rdb", "-"]).stdout(Stdio::piped()).spawn()?;
            let bytes = io::copy(child.stdout.as_mut().ok_or("no output")?, &mut encoder)?;
            let status = child.wait()?;
            if !status.success() {
                return Err(format!("redis-cli: {status}").into());
            }
            bytes
        }
        None => plain_replica(port, &mut encoder)?,
    };
    encoder.finish()?.flush()?;
    file.flush()?;
    file.sync_all()?;
    Ok((bytes, file.metadata()?.len()))
}

/// Asks for a snapshot alone and passes it on as it comes, up to the mark that the server has named before it, as `redis-cli` does.
fn plain_replica(port: u16, to: &mut impl Write) -> Result<u64, Error> {
    const MARK: usize = 40;
    let mut server = TcpStream::connect(("127.0.0.1", port))?;
    // A snapshot is refused while an answer is on its way.
    for question in ["REPLCONF capa eof", "REPLCONF rdb-only 1"] {
        server.write_all(format!("{question}\r\n").as_bytes())?;
        let mut answer = [0; 5];
        server.read_exact(&mut answer)?;
        if answer != *b"+OK\r\n" {
            return Err(format!("the server does not take {question}").into());
        }
    }
    server.write_all(b"SYNC\r\n")?;
    let (mut buffer, mut held) = (vec![0; 256 << 10], Vec::new());
    let mut mark: Option<Vec<u8>> = None;
    let mut bytes = 0;
    loop {
        let len = server.read(&mut buffer)?;
        if len == 0 {
            return Err("the server hung up".into());
        }
        held.extend_from_slice(&buffer[..len]);
        let Some(mark) = &mark else {
            // Signs of life come before it.
            let named = held.windows(5).position(|window| window == b"$EOF:").map(|at| at + 5);
            if let Some(at) = named
                && held.len() >= at + MARK + 2
            {
                mark = Some(held[at..at + MARK].to_vec());
                held.drain(..at + MARK + 2);
            }
            continue;
        };
        let given = held.len().saturating_sub(MARK);
        to.write_all(&held[..given])?;
        bytes += given as u64;
        held.drain(..given);
        if held == *mark {
            return Ok(bytes);
        }
    }
}

/// A backup into the vault, which is made.
pub(crate) async fn take(vault: &Path, url: &str) -> Result<BackupRecord, Error> {
    let repository = work::made(vault).await?;
    let engine = RedisEngine::new(RedisSettings::default().url(url))?;
    Ok(backup(&repository, &engine, BackupOptions::default(), &Context::default()).await?)
}

/// The newest backup into the running server at `url`; bytes of content.
pub(crate) async fn put_back(vault: &Path, url: &str) -> Result<(u64, u64), Error> {
    let repository = work::open(vault).await?;
    let settings = RestoreSettings::live(ClientSettings::new(url.parse()?));
    let engine = RedisEngine::new(RedisSettings::default())?.with_restore(settings);
    let work = Context::default();
    let plan = plan_restore(&repository, &engine, RecoveryTarget::latest(), Selector::all(), &work).await?;
    restore(&engine, &plan, &work).await?;
    Ok((plan.footprint.bytes, 0))
}

/// Has the server at `target` follow the one at `source` until it has everything.
pub(crate) fn sync(source: u16, target: u16) -> Result<(), Error> {
    let mut server = TcpStream::connect(("127.0.0.1", target))?;
    server.write_all(format!("REPLICAOF 127.0.0.1 {source}\r\n").as_bytes())?;
    let mut buffer = vec![0; 64 << 10];
    let mut ask = |command: &str| -> io::Result<String> {
        server.write_all(command.as_bytes())?;
        let len = server.read(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..len]).into_owned())
    };
    loop {
        if ask("INFO replication\r\n")?.contains("master_link_status:up") {
            return Ok(());
        }
        std::thread::park_timeout(std::time::Duration::from_millis(5));
    }
}
