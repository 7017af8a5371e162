//! Who is there, and what they do. What fails is not there, or it is there whole.

use std::time::Duration;

use backup_core::catalog::{Actor, BackupRecord, Event, Role};
use backup_core::entry::{EntryMeta, EntryPath};
use backup_core::env::Env;
use backup_core::repository::{BackupSession, CollectOptions, ParentChoice, Repository as _};
use backup_core::{BackupSinkExt, Consistency, Snapshot};
use backup_storage::fault::DroppedAfter;

use crate::content::Content;
use crate::world::{Choices, World, work};

const KIB: usize = 1 << 10;
const HOUR: Duration = Duration::from_secs(3600);
/// The file that says which backup it is.
pub(crate) const NAME: &str = "name";

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn by() -> Actor {
    Actor::new(Role::Operator, "walk")
}

fn some_files(choices: &mut Choices, name: &str) -> Content {
    let mut content = Content::new();
    for file in 0..8 {
        // Some never change, some now and then. Larger ones have segments of their own.
        let version = if file % 4 == 0 { 0 } else { choices.below(3) };
        let len = if file < 4 { 130 } else { 5 };
        content.insert(format!("file-{file:02}"), noise(file * 10 + version, len * KIB));
    }
    content.insert(NAME.to_owned(), name.as_bytes().to_vec());
    content
}

async fn put(session: &dyn BackupSession, content: &Content) -> backup_core::Result<()> {
    for (path, bytes) in content {
        session.sink().put_bytes(EntryMeta::file(EntryPath::new(path.as_str())?), bytes.clone().into()).await?;
    }
    Ok(())
}

fn snapshot(env: &Env) -> Snapshot {
    let now = env.now();
    Snapshot::new("test", "1", "source", "memory", Consistency::PointInTime, (now, now))
}

async fn wait(choices: &mut Choices, most: u64) {
    for _ in 0..choices.below(most) {
        tokio::task::yield_now().await;
    }
}

/// A backup before anything goes wrong.
pub(crate) async fn first(world: &World, choices: &mut Choices) {
    let content = some_files(choices, "first");
    world.truth.lock().contents.insert("first".to_owned(), content.clone());
    let env = world.somebody(choices);
    let repository = world.open(&world.first, &env).await.unwrap();
    let session = repository.begin(ParentChoice::None, &work(&env)).await.unwrap();
    put(session.as_ref(), &content).await.unwrap();
    let record = session.commit(snapshot(&env)).await.unwrap();
    world.truth.lock().committed.insert(record.id);
}

/// Makes backups, gives up some, and dies in the middle of others.
pub(crate) async fn writer(world: &World, number: u64, mut choices: Choices) {
    let env = world.somebody(&mut choices);
    for round in 0..3 {
        let name = format!("{number}-{round}");
        let content = some_files(&mut choices, &name);
        world.truth.lock().contents.insert(name, content.clone());
        let polls = if choices.below(4) == 0 { choices.below(120) } else { u64::MAX };
        let one = async {
            let repository = world.open(&world.first, &env).await?;
            let parent = if choices.below(4) == 0 { ParentChoice::None } else { ParentChoice::Newest };
            let session = repository.begin(parent, &work(&env)).await?;
            put(session.as_ref(), &content).await?;
            wait(&mut choices, 60).await;
            if choices.below(6) == 0 {
                return session.abort().await.map(|()| None);
            }
            session.commit(snapshot(&env)).await.map(Some)
        };
        let ended: Option<backup_core::Result<Option<BackupRecord>>> = DroppedAfter::new(polls, one).await;
        let mut truth = world.truth.lock();
        match ended {
            Some(Ok(Some(record))) => {
                truth.committed.insert(record.id);
            }
            Some(_) => {}
            None => truth.outcome.dropped += 1,
        }
    }
}

/// Stops in the middle of a backup, for hours or days, and goes on as if nothing had happened.
pub(crate) async fn zombie(world: &World, number: u64, mut choices: Choices) {
    let env = world.somebody(&mut choices);
    for round in 0..2 {
        let name = format!("{number}-{round}");
        let content = some_files(&mut choices, &name);
        world.truth.lock().contents.insert(name, content.clone());
        let (early, late): (Content, Content) = content.into_iter().partition(|_| choices.below(2) == 0);
        let one = async {
            let repository = world.open(&world.first, &env).await?;
            let session = repository.begin(ParentChoice::Newest, &work(&env)).await?;
            put(session.as_ref(), &early).await?;
            wait(&mut choices, 120).await;
            world.clock.advance(HOUR * u32::try_from(choices.below(96)).unwrap());
            wait(&mut choices, 200).await;
            put(session.as_ref(), &late).await?;
            session.commit(snapshot(&env)).await
        };
        let ended: backup_core::Result<BackupRecord> = one.await;
        let mut truth = world.truth.lock();
        truth.outcome.zombies.0 += 1;
        match ended {
            Ok(record) => {
                truth.committed.insert(record.id);
            }
            Err(_) => truth.outcome.zombies.1 += 1,
        }
    }
}

/// Collects, with more or less patience, and dies in the middle.
pub(crate) async fn collector(world: &World, mut choices: Choices) {
    let env = world.somebody(&mut choices);
    let day = HOUR * 24;
    for _ in 0..4 {
        let Ok(repository) = world.open(&world.first, &env).await else { continue };
        let silence = if choices.below(5) == 0 { Duration::ZERO } else { day };
        let grace = if choices.below(2) == 0 { day } else { Duration::ZERO };
        let interrupted = if choices.below(2) == 0 { Duration::ZERO } else { day };
        let protect = if choices.below(3) == 0 { day * 2 } else { Duration::ZERO };
        let options = CollectOptions::default().silence(silence).grace(grace).interrupted(interrupted).protect(protect);
        let options = options.dead_percent([10, 40, 101][choices.below(3) as usize]);
        let work = work(&env);
        let collecting = repository.collect(&options, &work);
        let polls = if choices.below(3) == 0 { choices.below(60) } else { u64::MAX };
        if DroppedAfter::new(polls, collecting).await.is_none() {
            world.truth.lock().outcome.dropped += 1;
        }
        wait(&mut choices, 40).await;
    }
}

/// Lets backups go, and changes its mind.
pub(crate) async fn operator(world: &World, mut choices: Choices) {
    let env = world.somebody(&mut choices);
    for _ in 0..10 {
        wait(&mut choices, 30).await;
        let Ok(repository) = world.open(&world.first, &env).await else { continue };
        let Ok(catalog) = repository.catalog().await else { continue };
        let at = env.now();
        let event = match choices.below(6) {
            0 => catalog.collections().last().map(|collection| Event::CollectionWithdrawn {
                collection: collection.condemned.number,
                by: by(),
                at,
            }),
            1 => catalog.expired().next().map(|(backup, _)| Event::BackupReinstated { backup, by: by(), at }),
            _ => catalog.backups().next().map(|backup| Event::BackupExpired {
                backup: backup.id,
                reason: "walk".to_owned(),
                by: by(),
                at,
            }),
        };
        if let Some(event) = event {
            let _ = repository.decide(&mut |_| Ok(vec![event.clone()])).await;
        }
    }
}

/// Copies to a further region, and dies in the middle.
pub(crate) async fn courier(world: &World, region: usize, mut choices: Choices) {
    let Some(region) = world.regions.get(region) else { return };
    let env = world.somebody(&mut choices);
    let there = region.store(&env);
    for _ in 0..4 {
        wait(&mut choices, 60).await;
        let Ok(repository) = world.open(&world.first, &env).await else { continue };
        let polls = if choices.below(3) == 0 { choices.below(100) } else { u64::MAX };
        let work = work(&env);
        let ended = DroppedAfter::new(polls, repository.replicate(&there, &work)).await;
        let mut truth = world.truth.lock();
        match ended {
            Some(Ok(_)) => truth.outcome.copies.0 += 1,
            Some(Err(_)) => truth.outcome.copies.1 += 1,
            None => truth.outcome.dropped += 1,
        }
    }
}

/// Time passes.
pub(crate) async fn time(world: &World, mut choices: Choices) {
    for _ in 0..6 {
        wait(&mut choices, 200).await;
        world.clock.advance(HOUR * u32::try_from(choices.below(16)).unwrap());
    }
}
