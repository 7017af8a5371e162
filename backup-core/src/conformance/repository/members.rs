//! Backups of groups: each member a folder of the whole, seen as a backup of its own.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt as _};

use super::RepositoryHarness;
use super::stage::{Stage, content, delta, entries, file, path, put_all, range, scratch};
use crate::catalog::BackupRecord;
use crate::conformance::bytes::{BLOCK, MIB, assert_same, noise};
use crate::engine::members::{MemberSource, member_backup, member_names, member_restore};
use crate::engine::{BackupContext, BackupSinkExt as _, BackupSource, Changes, Extract, Patch, RestoreContext};
use crate::entry::{ContentIdentity, Selector};
use crate::error::ErrorKind;
use crate::member::{Group, Member, MemberName};
use crate::repository::{BackupSession, ParentChoice};
use crate::snapshot::Snapshot;
use crate::target::RecoveryTarget;

fn name(name: &str) -> MemberName {
    MemberName::new(name).expect("cases use valid names")
}

/// The context of a session, as orchestration makes it.
fn context(stage: &Stage, session: &dyn BackupSession) -> BackupContext {
    BackupContext::new(stage.work(), session.sink(), session.parent().cloned())
        .with_parent_source(session.parent_source())
}

async fn commit(stage: &Stage, session: Box<dyn BackupSession>, members: &[&str]) -> BackupRecord {
    stage.later().await;
    let now = stage.env.now();
    let members = members.iter().map(|of| {
        let snapshot = stage.snapshot().with_fact("of", *of);
        Member::new(name(of), snapshot).with_taken_at(now)
    });
    let group = Group::new(members.collect()).expect("the names differ");
    let snapshot = Snapshot::of_group("conformance", "source", "none", (now, now), group);
    session.commit(snapshot).await.expect("a session can be committed")
}

async fn member(source: &Arc<dyn BackupSource>, of: &str) -> MemberSource {
    MemberSource::open(source, &name(of)).await.expect("the backup has this member")
}

/// Members with the same paths do not meet, and each of them is, read alone, what a backup of it alone would be.
pub async fn members_are_backups_of_their_own(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let session = stage.begin(ParentChoice::None).await;
    let cx = context(&stage, session.as_ref());
    let (one, two) = (noise(1, MIB + 7), noise(2, 3 * MIB));
    let (a, b) = (member_backup(&cx, &name("a")).await, member_backup(&cx, &name("b")).await);
    let (a, b) = (a.expect("there is no parent to be read"), b.expect("there is no parent to be read"));
    assert!(a.parent().is_none() && a.parent_source().is_none());
    // A name that another begins with is another name.
    let longer = member_backup(&cx, &name("a.b")).await.expect("there is no parent to be read");
    let (of_a, of_b, small) = ([("data", &one), ("deep/er", &one)], [("data", &two)], Bytes::from_static(b"c"));
    let of_longer = [("data", &small)];
    tokio::join!(
        put_all(a.sink().as_ref(), &of_a),
        put_all(b.sink().as_ref(), &of_b),
        put_all(longer.sink().as_ref(), &of_longer),
    );
    session.sink().put_bytes(file("whole"), Bytes::from_static(b"of all")).await.expect("content can be put");
    drop((cx, a, b, longer));
    let record = commit(&stage, session, &["a", "b", "a.b"]).await;
    assert_eq!(
        record.snapshot.group.as_ref().and_then(|group| group.skew),
        Some(0),
        "the header is what was committed"
    );

    let source = stage.open(record.id).await;
    let names: Vec<_> =
        member_names(source.as_ref()).expect("it has members").iter().map(ToString::to_string).collect();
    assert_eq!(names, ["a", "a.b", "b"]);
    let (a, b) = (member(&source, "a").await, member(&source, "b").await);
    let paths = |entries: Vec<crate::entry::EntryInfo>| -> Vec<String> {
        entries.into_iter().map(|entry| entry.meta.path.to_string()).collect()
    };
    assert_eq!(paths(entries(&a, Selector::all()).await), ["data", "deep/er"]);
    assert_eq!(paths(entries(&a, Selector::within([path("deep")])).await), ["deep/er"]);
    assert_eq!(paths(entries(&b, Selector::all()).await), ["data"]);
    assert_same(&content(&a, &path("data")).await, &one, "the data of a");
    assert_same(&content(&b, &path("data")).await, &two, "the data of b");
    assert_eq!(range(&b, &path("data"), 5..9).await.expect("it can be read"), two[5..9]);
    assert_eq!(range(&b, &path("whole"), 0..1).await.expect_err("it is not b's").kind(), ErrorKind::InvalidInput);
    assert!(a.entry(&path("whole")).await.expect("it can be looked for").is_none());
    assert_eq!((a.record().entries, a.record().data_bytes), (2, 2 * one.len() as u64));
    assert_eq!(a.record().snapshot.fact("of"), Some("a"));
    let error = MemberSource::open(&source, &name("c")).await.expect_err("there is no such member");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);

    let cx = RestoreContext::new(stage.work(), Arc::clone(&source), RecoveryTarget::backup(record.id));
    let chosen = cx.with_selector(Selector::within([path("a/deep"), path("b")]));
    let inside = async |of: &str| member_restore(&chosen, &name(of)).await.expect("it can be read");
    assert_eq!(inside("a").await.map(|cx| cx.selector().clone()), Some(Selector::within([path("deep")])));
    assert!(inside("b").await.is_some_and(|cx| cx.selector().is_all()));
    assert!(inside("a.b").await.is_none());
}

/// A member finds its own content in the parent, by path, by patch and by identity, and extracts into a directory of its own.
pub async fn members_go_on_from_their_parents(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let (one, two) = (noise(1, 2 * MIB), noise(2, 2 * MIB));
    let identity = ContentIdentity::new(b"part-1".to_vec()).expect("it is short");
    let session = stage.begin(ParentChoice::None).await;
    let cx = context(&stage, session.as_ref());
    for (of, bytes) in [("a", &one), ("b", &two)] {
        let cx = member_backup(&cx, &name(of)).await.expect("there is no parent to be read");
        put_all(cx.sink().as_ref(), &[("data", bytes), ("table", bytes)]).await;
        let part = file("part").with_identity(identity.clone());
        if of == "a" {
            cx.sink().put_bytes(part, bytes.clone()).await.expect("content can be put");
        }
    }
    drop(cx);
    let parent = commit(&stage, session, &["a", "b"]).await;
    stage.later().await;

    let session = stage.begin(ParentChoice::Newest).await;
    let cx = context(&stage, session.as_ref());
    let fresh = member_backup(&cx, &name("c")).await.expect("the parent can be read");
    assert!(fresh.parent().is_none(), "the parent has no such member");
    let cx = member_backup(&cx, &name("b")).await.expect("the parent can be read");
    assert_eq!(cx.parent().map(|parent| parent.id), Some(parent.id));
    let before = cx.parent_source().expect("it has a parent");
    assert_same(&content(before.as_ref(), &path("data")).await, &two, "the parent of b");
    let sink = cx.sink();
    let stored = put_all(sink.as_ref(), &[("data", &two)]).await;
    assert_eq!(stored[0].new_bytes, 0, "it is what b's was");
    let changes = Changes::new([Range { start: 10, end: 20 }]);
    let patch = Patch::new(file("table"), two.len() as u64, changes);
    let body = stream::iter([Ok(one.slice(10..20))]).boxed();
    sink.put_patch(patch, body).await.expect("the parent has this entry");
    let part = sink.reuse(file("part").with_identity(identity)).await.expect("it can be asked");
    assert_eq!(part.map(|part| part.new_bytes), Some(0), "another member has the same content");
    drop((cx, fresh));
    let record = commit(&stage, session, &["b"]).await;

    let source = stage.open(record.id).await;
    let member = member(&source, "b").await;
    let table = [&two[..10], &one[10..20], &two[20..]].concat();
    assert_same(&content(&member, &path("table")).await, &table, "the patched entry");
    let dirs = scratch();
    let [root, other] = ["root", "other"].map(|dir| dirs.path().join(dir));
    for dir in [&root, &other] {
        std::fs::create_dir(dir).expect("a folder can be made");
    }
    let order = Extract::into_dir(&root).with_elsewhere(path("part"), &other).with_last([path("data")]);
    let error = member.extract(order, &stage.work()).await.expect_err("a file is no folder");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let order = || delta(&root).with_except([path("part")]).with_last([path("data")]);
    std::fs::write(root.join("foreign"), b"x").expect("a file can be written");
    let done = member.extract(order(), &stage.work()).await.expect("it can be extracted");
    assert_eq!((done.entries, done.removed), (2, 1));
    let there = |name: &str| std::fs::read(root.join(name)).expect("it was extracted");
    assert_same(&there("data"), &two, "data");
    assert_same(&there("table"), &table, "table");
    assert!(!root.join("b").exists() && !root.join("part").exists() && !root.join("foreign").exists());
    let again = member.extract(order(), &stage.work()).await.expect("it can be extracted again");
    // The last is written again, and a block of which only a part has been seen.
    let most = (two.len() + BLOCK) as u64;
    assert!(again.written_bytes <= most, "{} bytes were written again", again.written_bytes);
    // Whoever orders one folder and names what lies outside is told.
    let mut beyond = Extract::into_dir(&other).with_folder(path("b"));
    let error = source.extract(beyond.clone(), &stage.work()).await.expect_err("everything is more than a folder");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    beyond.selector = Selector::within([path("b/data")]);
    source.extract(beyond, &stage.work()).await.expect("it can be extracted");
    assert_same(&std::fs::read(other.join("data")).expect("it was extracted"), &two, "data alone");
}
