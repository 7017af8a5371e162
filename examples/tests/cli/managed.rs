//! Services under management, from the command line: as an operator of one host sees them.

use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use backup_examples::cli::{Terminals, exit};
use backup_testkit::tokio_postgres::{Client, NoTls, connect};
use backup_testkit::{PgVersion, Postgres, require_or_skip, unprivileged, wait};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::harness::{PASSPHRASE, Ran, SERVICE, Vault, run};
use crate::process::{backupctl, ended, send};

/// A host with a server that is handed over to the program.
struct Host {
    vault: Vault,
    server: Postgres,
}

impl Host {
    async fn open() -> backup_testkit::Result<Self> {
        let server = Postgres::builder(PgVersion::V17).setting("listen_addresses", "").start().await?;
        server.connect("postgres").await?.batch_execute("create table t (n int primary key)").await?;
        Ok(Self { vault: Vault::absent(), server })
    }

    fn file(&self) -> PathBuf {
        self.vault.dir.path().join("host.json")
    }

    async fn run_as(&self, service: &str, args: &[&str]) -> Ran {
        let variables = [
            ("BACKUP_VAULT", self.vault.url()),
            ("BACKUP_SERVICE", service.to_owned()),
            ("BACKUP_PASSPHRASE", PASSPHRASE.to_owned()),
            ("BACKUP_HOST_FILE", self.file().display().to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value));
        run(&[&["service"], args].concat(), &variables, Terminals::default(), CancellationToken::new()).await
    }

    async fn run(&self, args: &[&str]) -> Ran {
        self.run_as(SERVICE, args).await
    }

    async fn json_as(&self, service: &str, args: &[&str]) -> Value {
        let ran = self.run_as(service, &[args, &["--json"]].concat()).await;
        assert_eq!(ran.code, 0, "{args:?}: {ran:?}");
        ran.json()
    }

    async fn json(&self, args: &[&str]) -> Value {
        self.json_as(SERVICE, args).await
    }

    fn create(&self, plan: &str) -> Vec<String> {
        let (bin, data) = (self.server.binaries().bin_dir().display(), self.server.data_dir().display());
        let mut args: Vec<String> = ["create", "--plan", plan, "--region", "eu"].map(str::to_owned).into();
        args.extend([
            format!("--bin-dir={bin}"),
            format!("--data-dir={data}"),
            format!("--port={}", self.server.port()),
        ]);
        args.push(format!("--socket-dir={}", self.server.socket_dir().display()));
        args.push(format!("--role={}", self.server.superuser()));
        args.extend(["--setting=listen_addresses=".to_owned(), "--setting=fsync=off".to_owned()]);
        if unprivileged().drops_root() {
            let account = std::env::var("BACKUP_TESTKIT_USER").unwrap_or_else(|_| "nobody".to_owned());
            args.push(format!("--run-as={account}"));
        }
        args
    }

    /// A runner as a process of its own.
    fn runner(&self) -> Child {
        let mut command = backupctl(&self.vault, &["service", "run", "--lease", "3s", "--json"]);
        command.env("BACKUP_HOST_FILE", self.file()).spawn().unwrap()
    }

    async fn client(&self, port: u16) -> Client {
        let socket = self.server.socket_dir();
        let (user, password) = (self.server.superuser(), self.server.password());
        let text =
            format!("host='{}' port={port} user='{user}' password='{password}' dbname=postgres", socket.display());
        let (client, connection) = connect(&text, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    async fn add(&self, from: i32, to: i32) {
        let client = self.client(self.server.port()).await;
        client.execute("insert into t select generate_series($1::int, $2::int)", &[&from, &to]).await.unwrap();
    }

    async fn rows(&self, port: u16) -> i64 {
        self.client(port).await.query_one("select count(*) from t", &[]).await.unwrap().get(0)
    }

    /// Who follows the log, once it is somebody else than `known`.
    async fn follower(&self, known: Option<&str>) -> String {
        for _ in 0..600 {
            let status = self.json(&["status"]).await;
            if let Some(runner) = status["capture"]["runner"].as_str().filter(|runner| Some(*runner) != known) {
                return runner.to_owned();
            }
            tokio::time::timeout(Duration::from_millis(50), std::future::pending::<()>()).await.unwrap_err();
        }
        panic!("nobody follows the log but {known:?}");
    }
}

impl Drop for Host {
    /// Ends the servers that the program has started; the testkit knows of its own only.
    fn drop(&mut self) {
        for data in [self.server.data_dir().to_owned(), self.server.home().join("copy")] {
            let Ok(text) = std::fs::read_to_string(data.join("postmaster.pid")) else { continue };
            let pid = text.lines().next().and_then(|line| line.trim().parse().ok());
            if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, Signal::QUIT);
                wait::until(Duration::from_secs(10), || (!data.join("postmaster.pid").exists()).then_some(()));
            }
        }
    }
}

fn strs(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_life_from_the_command_line() {
    let host = require_or_skip!(Host::open().await);
    // The role has a password, which the operator keeps where libpq looks for it; here the socket lets it in without.
    let hba = host.server.data_dir().join("pg_hba.conf");
    std::fs::write(&hba, "local all all trust\nlocal replication all trust\n").unwrap();
    host.client(host.server.port()).await.batch_execute("select pg_reload_conf()").await.unwrap();

    for (args, why) in [
        (host.create("startup-"), "hobbyist, startup, business, premium"),
        ([host.create("startup"), vec!["--hour=24".to_owned()]].concat(), "23"),
        ([host.create("startup"), vec!["--minute=-1".to_owned()]].concat(), "59"),
    ] {
        let refused = host.run(&strs(&args)).await;
        assert!(refused.failed(exit::INVALID_INPUT).contains(why), "{refused:?}");
    }
    let nowhere: Vec<_> = host.create("startup").into_iter().filter(|arg| !arg.starts_with("--bin-dir")).collect();
    let refused = host.run(&strs(&[nowhere, vec!["--bin-dir=/nowhere".to_owned()]].concat())).await;
    assert!(refused.failed(exit::INVALID_INPUT).contains("--bin-dir"), "{refused:?}");
    let nothing = host.run(&["run", "--once"]).await;
    assert_ne!(nothing.code, exit::DONE, "what was refused has left no machine: {nothing:?}");

    let created = host.run(&strs(&[host.create("startup"), vec!["--json".to_owned()]].concat())).await.json();
    assert_eq!((&created["stage"], &created["spec"]["location"]), (&json!("running"), &json!("eu")));
    let again = host.run(&strs(&host.create("startup"))).await;
    assert!(again.failed(exit::CONFLICT).contains("exists already"), "{again:?}");
    let typo = host.run_as("shpo", &["status"]).await;
    assert!(typo.failed(exit::INVALID_INPUT).contains("it has shop"), "{typo:?}");
    assert!(host.run(&["schedule"]).await.failed(exit::INVALID_INPUT).contains("--default"));
    assert!(host.run(&["schedule", "--hour=24"]).await.failed(exit::INVALID_INPUT).contains("23"));
    assert_eq!(host.json(&["schedule", "--hour=3"]).await["spec"]["backup_hour"], json!(3));
    assert_eq!(host.json(&["schedule", "--default"]).await["spec"]["backup_hour"], Value::Null);
    assert_eq!(host.json(&["plan", "business"]).await["spec"]["plan"], "business");

    host.add(1, 10).await;
    let tick = host.json(&["run", "--once"]).await;
    assert_eq!(tick["done"][0]["done"], "backup", "{tick}");
    let status = host.json(&["status", "--trail"]).await;
    assert_eq!((&status["backups"], &status["listed"][0]["location"]), (&json!(1), &json!("eu")), "{status}");
    assert!(status["listed"][0]["kept"][0]["reason"].is_string() && status["next_backup"].is_string(), "{status}");
    assert!(status["trail"].as_array().unwrap().iter().any(|line| line["change"] == "schedule_changed"), "{status}");
    let table = host.run(&["status"]).await;
    assert!(table.out.contains("stage\trunning\n"), "{table:?}");

    // One runner follows the log; it is killed, and another one takes over.
    let mut first = host.runner();
    let follower = host.follower(None).await;
    host.add(11, 20).await;
    first.kill().unwrap();
    first.wait().unwrap();
    let second = host.runner();
    host.follower(Some(&follower)).await;
    host.add(21, 30).await;
    send(&second, Signal::TERM);
    let output = ended(second);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let done: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(done["ticks"].as_u64().unwrap() >= 1 && done["failed"] == json!([]), "{done}");
    assert_eq!(host.json(&["status"]).await["capture"], Value::Null, "whoever ends in order gives it back");
    host.add(31, 40).await;

    let off = host.json(&["power-off"]).await;
    assert!(off["stage"] == "off" && off["deadline"].is_string(), "{off}");
    assert!(!host.server.data_dir().exists(), "its data directory is given up");
    assert_eq!(host.run(&["power-off"]).await.code, exit::INVALID_INPUT);
    assert_eq!(host.json(&["power-on"]).await["stage"], "running");
    assert_eq!(host.rows(host.server.port()).await, 40);

    let (data, port) = (host.server.home().join("copy"), host.server.port() + 1);
    let (data, text) = (data.display().to_string(), port.to_string());
    let used = host.server.data_dir().display().to_string();
    let taken = host.run(&["fork", "--into", "copy", "--data-dir", &used, "--port", &text]).await;
    assert!(taken.failed(exit::INVALID_INPUT).contains("not empty"), "{taken:?}");
    let fork = host.json(&["fork", "--into", "copy", "--data-dir", &data, "--port", &text]).await;
    assert_eq!((&fork["stage"], &fork["spec"]["origin"]["service"]), (&json!("running"), &json!(SERVICE)));
    assert_eq!(host.rows(port).await, 40);

    // A fork that was not backed up yet is not deleted by mistake.
    assert!(host.run_as("copy", &["delete"]).await.failed(exit::INVALID_INPUT).contains("--accept-data-loss"));
    assert_eq!(host.json_as("copy", &["delete", "--accept-data-loss"]).await["stage"], "deleted");
    let tick = host.json_as("copy", &["run", "--once"]).await;
    assert_eq!(tick["done"][0]["done"], "discarded", "{tick}");
    assert!(!PathBuf::from(&data).exists());
    assert_eq!(host.json_as("copy", &["recover"]).await["stage"], "off");

    let all = host.run_as("", &["status", "--json"]).await.json();
    let stages: Vec<_> = all.as_array().unwrap().iter().map(|s| (s["service"].clone(), s["stage"].clone())).collect();
    assert_eq!(stages, [(json!("copy"), json!("off")), (json!(SERVICE), json!("running"))]);
    let bounded = host.json(&["run", "--for", "200ms"]).await;
    assert_eq!(bounded["failed"], json!([]), "{bounded}");
    // A restore by hand is as it ever was, and says in the catalog that it reads.
    let into = host.vault.dir.path().join("restored").display().to_string();
    host.vault.json(&["restore", "postgres", "--into", &into]).await;
}
