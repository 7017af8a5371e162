//! `kill -9` at every step of a service's life, on real servers: the next process finishes or rolls back, nothing is lost early and
//! nothing stays for ever.
//!
//! The process that is killed is this very test program, which runs [`child::child`] and kills itself after a given number of commits and
//! calls of the host; the next one is another such process, whose clock is ahead of the first one's by more than a lease.

mod child;
mod steps;

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use backup_examples::machines::{HostFile, PostgresMachine};
use backup_testkit::tokio_postgres::{Client, NoTls, connect};
use backup_testkit::{PgVersion, Postgres, StopMode, require_or_skip, unprivileged, wait};
use tempfile::TempDir;

use self::child::{Errand, Found, Order};

const SHOP: &str = "shop";
const COPY: &str = "copy";
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// Ends servers that a killed process has started, also when this process is killed itself: the pipe to its standard input ends then.
struct Reaper(std::process::Child);

const REAPER: &str = r#"
read -r word
for data in "$@"; do
    [ -r "$data/postmaster.pid" ] && read -r pid < "$data/postmaster.pid" && kill -s QUIT "$pid"
done
"#;

impl Reaper {
    fn new(data: &[&Path]) -> Self {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", REAPER, "reaper"]).args(data).current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(std::os::unix::process::CommandExt::process_group(&mut command, 0).spawn().unwrap())
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Killed,
    Finished,
}

/// A host with a server, a vault, and processes that come and go.
struct Stage {
    _reaper: Reaper,
    vault: TempDir,
    file: PathBuf,
    server: Postgres,
    /// How far the clock of the next process is ahead, in seconds.
    ahead: i64,
    rows: i32,
}

impl Stage {
    async fn open() -> backup_testkit::Result<Self> {
        let mut server = Postgres::builder(PgVersion::V17).start().await?;
        let client = server.connect("postgres").await?;
        client.batch_execute("create table t (n int primary key)").await?;
        drop(client);
        server.stop(StopMode::Fast).await?;
        let vault = tempfile::tempdir().unwrap();
        let file = vault.path().join("host.json");
        let (data, copy) = (server.data_dir().to_owned(), server.home().join("copy"));
        let mut host = HostFile::default();
        host.region = "eu".to_owned();
        for (name, data, offset) in [(SHOP, &data, 0), (COPY, &copy, 1)] {
            let mut machine = PostgresMachine::new(server.binaries().bin_dir(), data, server.port() + offset);
            machine = machine.socket_dir(server.socket_dir()).setting("listen_addresses=").setting("fsync=off");
            machine.url = Some(connection(&server, offset));
            if unprivileged().drops_root() {
                let account = std::env::var("BACKUP_TESTKIT_USER").unwrap_or_else(|_| "nobody".to_owned());
                machine = machine.run_as(account);
            }
            host.machines.insert(name.to_owned(), machine);
        }
        host.write(&file).unwrap();
        let stage = Self { _reaper: Reaper::new(&[&data, &copy]), vault, file, server, ahead: 0, rows: 0 };
        stage.all(&[Errand::Start(SHOP.to_owned()), Errand::Create(SHOP.to_owned())]);
        stage.all(&[Errand::Tick(SHOP.to_owned())]);
        Ok(stage)
    }

    fn data(&self, service: &str) -> PathBuf {
        if service == SHOP { self.server.data_dir().to_owned() } else { self.server.home().join("copy") }
    }

    /// Runs `errands` in a process of their own, which is killed after `steps` steps, and says what it found in the end.
    fn run(&self, errands: &[Errand], steps: Option<u32>) -> (Ended, Vec<Found>) {
        let order = Order {
            vault: self.vault.path().join("vault"),
            host_file: self.file.clone(),
            report: self.vault.path().join("report.json"),
            ahead: self.ahead,
            steps,
            errands: errands.to_vec(),
        };
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "killed::child::child", "--ignored", "--nocapture"]);
        command.env(child::ORDER, serde_json::to_string(&order).unwrap());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let status = wait::until(Duration::from_secs(120), || child.try_wait().unwrap());
        let Some(status) = status else {
            child.kill().unwrap();
            panic!("{errands:?} do not end");
        };
        if status.signal() == Some(9) {
            return (Ended::Killed, Vec::new());
        }
        assert!(status.success(), "{errands:?}: {status}");
        let report = std::fs::read(&order.report).unwrap();
        (Ended::Finished, serde_json::from_slice(&report).unwrap())
    }

    /// Runs errands that nobody kills.
    fn all(&self, errands: &[Errand]) -> Vec<Found> {
        self.run(errands, None).1
    }

    /// A later process.
    fn pass(&mut self, seconds: i64) {
        self.ahead += seconds;
    }

    async fn connect(&self, service: &str) -> Client {
        let (client, connection) = connect(&connection(&self.server, u16::from(service == COPY)), NoTls).await.unwrap();
        // It ends with the client or the server.
        tokio::spawn(connection);
        client
    }

    /// Writes one more row into the shop.
    async fn write(&mut self) {
        self.rows += 1;
        self.connect(SHOP).await.execute("insert into t values ($1)", &[&self.rows]).await.unwrap();
    }

    async fn has_everything(&self, service: &str, step: u32) {
        let count = "select count(*)::int, coalesce(max(n), 0)::int from t";
        let row = self.connect(service).await.query_one(count, &[]).await.unwrap();
        assert_eq!((row.get::<_, i32>(0), row.get::<_, i32>(1)), (self.rows, self.rows), "{service}, step {step}");
    }
}

fn connection(server: &Postgres, offset: u16) -> String {
    format!(
        "host='{}' port={} user='{}' password='{}' dbname=postgres",
        server.socket_dir().display(),
        server.port() + offset,
        server.superuser(),
        server.password()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn turning_off_and_on() {
    let mut stage = require_or_skip!(Stage::open().await);
    let of = || SHOP.to_owned();
    let mut left = [Ended::Killed; 2];
    for step in 1.. {
        assert!(step < 40, "it never gets through");
        stage.write().await;
        left[0] = stage.run(&[Errand::PowerOff(of())], Some(step)).0;
        stage.pass(600);
        // What was not begun yet is as if nobody had asked.
        let found = stage.all(&[Errand::Tick(of()), Errand::EnsureOff(of())]);
        assert!(found[0].stage == "off" || found[0].stage == "running", "step {step}: {found:?}");
        assert!(found[1].stage == "off" && !stage.data(SHOP).exists(), "step {step}: {found:?}");
        assert_eq!(found[1].loss, None, "step {step}");

        left[1] = stage.run(&[Errand::PowerOn(of())], Some(step)).0;
        stage.pass(600);
        let found = stage.all(&[Errand::Tick(of()), Errand::EnsureOn(of())]);
        assert!(found[0].stage == "off" || found[0].stage == "running", "step {step}: {found:?}");
        assert_eq!(found[1].stage, "running", "step {step}");
        stage.has_everything(SHOP, step).await;
        if left == [Ended::Finished; 2] {
            assert!(step >= 8, "there are more steps than {step}");
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forking_deleting_and_purging() {
    let mut stage = require_or_skip!(Stage::open().await);
    stage.write().await;
    // The log that the fork needs is stored when the source is turned off; a fork asks nothing of its source.
    stage.all(&[Errand::PowerOff(SHOP.to_owned())]);
    let of = || COPY.to_owned();
    let fork = || Errand::Fork { source: SHOP.to_owned(), into: of() };
    let mut left = [Ended::Killed; 3];
    for step in 1.. {
        assert!(step < 40, "it never gets through");
        left[0] = stage.run(&[fork()], Some(step)).0;
        stage.pass(2 * HOUR);
        let found = stage.all(&[Errand::Tick(of()), fork(), Errand::Release(SHOP.to_owned())]);
        assert!(found[0].stage == "running" || found[0].stage == "none", "step {step}: {found:?}");
        assert_eq!(found[1].stage, "running", "step {step}");
        assert_eq!(found[2].holds, 0, "step {step}: a hold that nobody needs goes by itself");
        stage.has_everything(COPY, step).await;

        left[1] = stage.run(&[Errand::Delete(of()), Errand::Tick(of())], Some(step)).0;
        stage.pass(600);
        let found = stage.all(&[Errand::Delete(of()), Errand::Tick(of())]);
        assert!(found[1].stage == "deleted" && !stage.data(COPY).exists(), "step {step}: {found:?}");
        stage.pass(29 * DAY);
        assert_eq!(stage.all(&[Errand::Tick(of())])[0].stage, "deleted", "it stays until its time has come");

        stage.pass(DAY + HOUR);
        left[2] = stage.run(&[Errand::Tick(of())], Some(step)).0;
        stage.pass(600);
        let found = stage.all(&[Errand::Tick(of())]);
        assert_eq!(found[0].stage, "none", "step {step}");
        assert!(!stage.vault.path().join("vault").join(COPY).exists(), "no key and no object is left at step {step}");
        if left == [Ended::Finished; 3] {
            assert!(step >= 8, "there are more steps than {step}");
            break;
        }
    }
    stage.all(&[Errand::PowerOn(SHOP.to_owned())]);
    stage.has_everything(SHOP, 0).await;
}
