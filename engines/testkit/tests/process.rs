//! Servers and provisioning between processes: what only several real processes can show.
//!
//! The tests named `child_…` are the other processes: they are ignored in a plain run and started by the others with
//! their wishes in the environment.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use backup_testkit::{Cache, PgBinaries, PgVersion, Postgres, require_or_skip, scratch_dir, wait};

const MINUTE: Duration = Duration::from_secs(60);

fn child(test: &str, environment: &[(&str, &Path)]) -> Child {
    Command::new(std::env::current_exe().expect("a test has a program"))
        .args(["--ignored", "--exact", "--nocapture", test])
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the test's own program runs")
}

/// The rest of the first line that contains `mark`.
fn said(child: &mut Child, mark: &str) -> Option<String> {
    let mut lines = BufReader::new(child.stdout.take()?).lines().map_while(Result::ok);
    lines.find_map(|line| Some(line.split_once(mark)?.1.to_owned()))
}

fn alive(pid: &str) -> bool {
    // A process that has ended but is not reaped is gone for all purposes.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").trim_start().starts_with('Z'))
}

#[tokio::test]
#[ignore = "the process that is killed by a_killed_test_leaves_no_server"]
async fn child_that_waits_to_be_killed() {
    let server = Postgres::builder(PgVersion::V17).start().await.unwrap();
    println!("server: {} {}", server.pid().unwrap(), server.home().display());
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_test_leaves_no_server() {
    drop(require_or_skip!(Postgres::builder(PgVersion::V17).start().await));
    let mut test = child("child_that_waits_to_be_killed", &[]);
    let line = said(&mut test, "server: ").expect("the child started a server");
    let (pid, home) = line.split_once(' ').unwrap();
    assert!(alive(pid));
    // `Child::kill` is SIGKILL: no destructor runs.
    test.kill().unwrap();
    test.wait().unwrap();
    wait::until(MINUTE, || (!alive(pid)).then_some(())).expect("the server ends");
    wait::until(MINUTE, || (!Path::new(home).exists()).then_some(())).expect("its directory goes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panicking_test_leaves_no_server() {
    let server = require_or_skip!(Postgres::builder(PgVersion::V17).start().await);
    let (pid, home) = (server.pid().unwrap().to_string(), server.home().to_owned());
    let panicked = tokio::spawn(async move {
        let _server = server;
        panic!("on purpose");
    });
    assert!(panicked.await.unwrap_err().is_panic());
    assert!(!alive(&pid));
    assert!(!home.exists());
}

#[tokio::test]
#[ignore = "the processes that race in processes_that_race_provision_once"]
async fn child_that_provisions() {
    let server = Postgres::builder(PgVersion::V17).start().await.unwrap();
    println!("identifier: {}", server.system_identifier().await.unwrap());
}

#[test]
fn processes_that_race_provision_once() {
    let programs = require_or_skip!(PgBinaries::get(PgVersion::V17));
    let cache = scratch_dir().unwrap();
    let environment =
        [("BACKUP_TESTKIT_CACHE", cache.path()), ("BACKUP_TESTKIT_POSTGRES_17", programs.bin_dir().parent().unwrap())];
    let racers: Vec<_> = (0..4).map(|_| child("child_that_provisions", &environment)).collect();
    let identifiers: Vec<_> = racers
        .into_iter()
        .map(|mut racer| {
            let identifier = said(&mut racer, "identifier: ");
            let output = racer.wait_with_output().unwrap();
            identifier.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)))
        })
        .collect();
    // Had the template been made twice, there would be two identifiers.
    assert!(identifiers.iter().all(|identifier| *identifier == identifiers[0]), "{identifiers:?}");
    let left: Vec<_> = std::fs::read_dir(cache.path().join("partial")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_killed_provisioner_is_succeeded() {
    let dir = scratch_dir().unwrap();
    let mut provisioner = child("child_that_stalls_while_provisioning", &[("STALL_IN", dir.path())]);
    said(&mut provisioner, "provisioning").unwrap();
    provisioner.kill().unwrap();
    provisioner.wait().unwrap();
    let made = Cache::at(dir.path())
        .unwrap()
        .provide("thing", |partial| {
            assert_eq!(std::fs::read_dir(partial).unwrap().count(), 0, "leftovers are gone");
            Ok(())
        })
        .unwrap();
    assert!(made.is_dir());
}

#[test]
#[ignore = "the process that is killed by a_killed_provisioner_is_succeeded"]
fn child_that_stalls_while_provisioning() {
    let dir = PathBuf::from(std::env::var_os("STALL_IN").unwrap());
    let _ = Cache::at(dir).unwrap().provide("thing", |partial| {
        std::fs::write(partial.join("half"), "half").unwrap();
        println!("provisioning");
        loop {
            std::thread::park();
        }
    });
}

#[tokio::test]
#[ignore = "the process that is started by an_override_is_used_or_refused"]
async fn child_that_uses_an_override() {
    match Postgres::builder(PgVersion::V16).start().await {
        Ok(server) => println!("answer: runs {}", server.binaries().bin_dir().display()),
        Err(error) => println!("answer: {}", error.full()),
    }
}

#[test]
fn an_override_is_used_or_refused() {
    let right = require_or_skip!(PgBinaries::get(PgVersion::V16));
    let wrong = require_or_skip!(PgBinaries::get(PgVersion::V15));
    let cache = scratch_dir().unwrap();
    let answer = |dir: &Path| {
        let environment = [("BACKUP_TESTKIT_CACHE", cache.path()), ("BACKUP_TESTKIT_POSTGRES_16", dir)];
        let mut test = child("child_that_uses_an_override", &environment);
        let answer = said(&mut test, "answer: ").unwrap();
        test.wait().unwrap();
        answer
    };
    let used = answer(right.bin_dir());
    assert_eq!(used, format!("runs {}", right.bin_dir().display()));
    assert!(!cache.path().join("postgres").exists(), "nothing was fetched");
    let refused = answer(wrong.bin_dir());
    assert!(refused.contains("is wanted as postgresql 16 but says \"postgres (PostgreSQL) 15."), "{refused}");
    let absent = answer(cache.path());
    assert!(absent.contains("does not run"), "{absent}");
}

#[tokio::test]
#[ignore = "the process that is started by skipping_is_loud_and_can_be_forbidden"]
async fn child_without_any_server() {
    let _server = require_or_skip!(backup_testkit::Versity::start().await);
    unreachable!("there is no go command here");
}

#[test]
fn skipping_is_loud_and_can_be_forbidden() {
    let cache = scratch_dir().unwrap();
    let nowhere = Path::new("/nonexistent");
    let run = |policy: &str| {
        let environment =
            [("BACKUP_TESTKIT_CACHE", cache.path()), ("PATH", nowhere), ("BACKUP_TESTKIT", Path::new(policy))];
        // Without --nocapture: the message has to get past the harness by itself.
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "child_without_any_server"])
            .envs(environment)
            .output()
            .unwrap();
        let both = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&both).into_owned())
    };
    let (passed, text) = run("");
    assert!(passed, "{text}");
    assert!(text.contains("SKIPPED child_without_any_server") && text.contains("go command does not run"), "{text}");
    let (passed, text) = run("require");
    assert!(!passed, "{text}");
    assert!(text.contains("versity s3 gateway 1.8.0 cannot be had here"), "{text}");
}
