//! Writers, collectors and operators at the same time, over a store that reorders, loses replies and stalls, by seed; some of them die.
//!
//! Whatever happens: every backup that has not expired is whole, in the middle and at the end, and at the end nothing is left that nobody needs.

use std::collections::BTreeSet;

use backup_core::repository::Repository as _;
use backup_storage::fault::DroppedAfter;
use parking_lot::Mutex;

use super::*;

/// Seeds; more by `BACKUP_COLLECT_SEEDS`, one by `BACKUP_COLLECT_SEED`.
fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match number("BACKUP_COLLECT_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("BACKUP_COLLECT_SEEDS").unwrap_or(500)).collect(),
    }
}

/// A small generator of choices.
struct Choices(u64);

impl Choices {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % most
    }
}

/// What may have been committed, by the file that says so: each backup has a name of its own in it.
#[derive(Default)]
struct Truth(Mutex<BTreeMap<String, Content>>);

const NAME: &str = "name";

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

async fn writer(world: &World, truth: &Truth, number: u64, mut choices: Choices) {
    for round in 0..3 {
        let name = format!("{number}-{round}");
        let content = some_files(&mut choices, &name);
        truth.0.lock().insert(name, content.clone());
        let repository = world.open().await;
        let one = async {
            let parent = if choices.below(4) == 0 { ParentChoice::None } else { ParentChoice::Newest };
            let session = repository.begin(parent, &world.work()).await?;
            put(session.as_ref(), &content).await?;
            for _ in 0..choices.below(60) {
                tokio::task::yield_now().await;
            }
            if choices.below(6) == 0 {
                return session.abort().await;
            }
            session.commit(snapshot(&world.env)).await.map(drop)
        };
        // What fails is not there, or it is there whole.
        let _ = one.await;
    }
}

async fn collector(world: &World, mut choices: Choices) {
    for _ in 0..4 {
        let repository = world.open().await;
        let silence = if choices.below(5) == 0 { Duration::ZERO } else { Duration::from_secs(86_400) };
        let grace = if choices.below(3) == 0 { Duration::from_secs(86_400) } else { Duration::ZERO };
        let interrupted = if choices.below(2) == 0 { Duration::ZERO } else { Duration::from_secs(86_400) };
        let options = CollectOptions::default().silence(silence).grace(grace).interrupted(interrupted);
        let options = options.dead_percent([10, 40, 101][choices.below(3) as usize]);
        let work = world.work();
        let collecting = repository.collect(&options, &work);
        let polls = if choices.below(3) == 0 { choices.below(60) } else { u64::MAX };
        let _ = DroppedAfter::new(polls, collecting).await;
    }
}

async fn operator(world: &World, mut choices: Choices) {
    for _ in 0..10 {
        for _ in 0..choices.below(30) {
            tokio::task::yield_now().await;
        }
        let repository = world.open().await;
        let Ok(catalog) = repository.catalog().await else { continue };
        let at = world.env.now();
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

/// Every backup that there is is what one of the writers has stored under its name.
async fn check(world: &World, truth: &Truth, seed: u64) {
    let repository = world.open().await;
    let catalog = repository.catalog().await.unwrap();
    for backup in catalog.backups() {
        let source = repository.open(backup.id).await.unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
        let content = read(source.as_ref()).await;
        let name = String::from_utf8(content[NAME].clone()).unwrap();
        assert!(truth.0.lock()[&name] == content, "seed {seed}: backup {} is not what was put", backup.id);
    }
    let report = repository.verify(VerifyLevel::Full, &world.work()).await.unwrap();
    assert!(report.is_sound(), "seed {seed}: {:?}", report.damages);
}

async fn live(seed: u64) -> (usize, bool) {
    let world = World::new(seed).await;
    let truth = Truth::default();
    let mut choices = Choices(seed);
    let first = some_files(&mut choices, "first");
    truth.0.lock().insert("first".to_owned(), first.clone());
    world.backup(&first).await;
    let storm = match seed % 3 {
        0 => FaultPlan::quiet().yields(8),
        1 => FaultPlan::stormy(0.005).yields(4),
        _ => FaultPlan::stormy(0.02),
    };
    world.faults.set_plan(storm);
    let mut own = || Choices(choices.below(u64::MAX));
    let (a, b, c, d, e, f) = (own(), own(), own(), own(), own(), own());
    tokio::join!(
        writer(&world, &truth, 1, a),
        writer(&world, &truth, 2, b),
        writer(&world, &truth, 3, c),
        collector(&world, d),
        collector(&world, e),
        operator(&world, f),
    );
    world.faults.set_plan(FaultPlan::quiet());
    world.faults.revive();
    world.faults.flush_late().await;
    check(&world, &truth, seed).await;
    // Nobody works any more: two runs take away all that nobody needs.
    let options = at_once().silence(Duration::ZERO).interrupted(Duration::ZERO).dead_percent(1);
    for _ in 0..3 {
        world.collect(&options).await;
    }
    check(&world, &truth, seed).await;
    let repository = world.open().await;
    let report = repository.verify(VerifyLevel::Full, &world.work()).await.unwrap();
    assert_eq!(report.garbage_objects, 0, "seed {seed}: {report:?}");
    let catalog = repository.catalog().await.unwrap();
    assert_eq!(catalog.collections().count(), 0, "seed {seed}");
    let sessions: BTreeSet<_> = catalog.moves().map(|moved| moved.to.session).collect();
    (catalog.backups().count(), !sessions.is_empty())
}

/// Lives every `of`th seed from `first` on.
fn live_all(first: u64, of: u64) {
    let seeds: Vec<_> = seeds().into_iter().filter(|seed| seed % of == first).collect();
    let (mut backups, mut copied) = (0, 0);
    for seed in &seeds {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (left, moved) = runtime.block_on(live(*seed));
        backups += left;
        copied += usize::from(moved);
    }
    // The walk is worth its name: something is kept, and something was copied.
    assert!(
        seeds.len() < 100 || (backups > seeds.len() && copied > seeds.len() / 10),
        "{backups} kept, {copied} copied"
    );
}

#[test]
fn nothing_is_lost_while_everybody_works() {
    live_all(0, 2);
}

#[test]
fn nothing_is_lost_while_everybody_works_and_others_test() {
    live_all(1, 2);
}
