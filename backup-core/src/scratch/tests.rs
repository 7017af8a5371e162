use std::process::Command;

use super::process::Identity;
use super::*;
use crate::ErrorKind;

fn root() -> (tempfile::TempDir, ScratchRoot) {
    let dir = tempfile::tempdir().unwrap();
    let root = ScratchRoot::new(dir.path());
    (dir, root)
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    entries.collect()
}

fn sleeper() -> ServerCommand {
    ServerCommand::new("/bin/sleep").arg("600")
}

#[tokio::test]
async fn a_drill_leaves_nothing_and_is_alone() {
    let (dir, root) = root();
    let env = Env::system();
    let mut scratch = root.make(DrillId::mint(&env), &env).await.unwrap();
    let refused = root.make(DrillId::mint(&env), &env).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
    assert_eq!(root.clear(&env).await.unwrap(), [], "one that is under way is left alone");
    assert!(scratch.free_bytes().unwrap() > 0);
    scratch.write("server.conf", "x").unwrap();
    let mut server = ServerProcess::start(&mut scratch, &sleeper()).unwrap();
    let identity = Identity::read(&scratch.dir().join("server-1")).unwrap();
    assert!(server.is_running() && identity.is_alive() && Some(identity.pid) == server.pid());
    drop(server);
    assert!(!identity.is_alive());
    scratch.remove().unwrap();
    assert_eq!(names(dir.path()), [""; 0]);
    drop(root.make(DrillId::mint(&env), &env).await.unwrap());
    assert_eq!(names(dir.path()), [""; 0]);
}

#[tokio::test]
async fn what_a_drill_has_left_goes_and_nothing_else() {
    let (dir, root) = root();
    let env = Env::system();
    let mut scratch = root.make(DrillId::mint(&env), &env).await.unwrap();
    let server = ServerProcess::start(&mut scratch, &sleeper()).unwrap();
    let identity = Identity::read(&scratch.dir().join("server-1")).unwrap();
    // As a process that is killed leaves it: the lock ends, nothing else does.
    scratch.lock = None;
    drop(scratch);
    // Another process got the id of a server that had ended.
    let other = root.dir.join(format!("drill-{}", DrillId::mint(&env)));
    fs::create_dir(&other).unwrap();
    fs::write(other.join(MARK), other.file_name().unwrap().to_str().unwrap().strip_prefix("drill-").unwrap()).unwrap();
    let mut bystander = Command::new("/bin/sleep").arg("600").spawn().unwrap();
    let same_id = Identity::of(bystander.id()).unwrap();
    fs::write(other.join("server-1"), format!("{} 1 {}\n", bystander.id(), "another-boot")).unwrap();
    // What only looks like a drill's.
    let strange = root.dir.join(format!("drill-{}", DrillId::mint(&env)));
    fs::create_dir(&strange).unwrap();
    fs::write(strange.join("precious"), "x").unwrap();
    fs::create_dir(root.dir.join("drill-x")).unwrap();

    let cleared = root.clear(&env).await.unwrap();
    assert_eq!(cleared.len(), 2, "{cleared:?}");
    assert!(!identity.is_alive(), "its server was ended");
    assert!(same_id.is_alive(), "and no other process");
    bystander.kill().unwrap();
    bystander.wait().unwrap();
    let mut left = names(dir.path());
    left.sort();
    assert_eq!(left, [strange.file_name().unwrap().to_str().unwrap(), "drill-x"]);
    assert!(strange.join("precious").exists());
    drop(server);
}

#[tokio::test]
async fn a_server_that_is_not_let_go_on_never_becomes_one() {
    let mut child = Command::new("/bin/sh")
        .args(["-c", process::WAIT, "drill", "/bin/sleep", "600"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdin.take());
    assert!(!child.wait().unwrap().success());
}

#[tokio::test]
async fn last_words_are_the_end_of_the_log() {
    let (_dir, root) = root();
    let env = Env::system();
    let mut scratch = root.make(DrillId::mint(&env), &env).await.unwrap();
    let command = ServerCommand::new("/bin/sh").arg("-c").arg("echo one; echo two >&2; exit 3");
    let mut server = ServerProcess::start(&mut scratch, &command).unwrap();
    while server.is_running() {
        env.clock().sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(server.last_words(), "one; two");
}
