//! What must be true.

use std::collections::BTreeSet;
use std::time::Duration;

use backup_core::repository::{CollectOptions, Repository as _, VerifyLevel, VerifyReport};
use jiff::SignedDuration;

use crate::actors::NAME;
use crate::content::read;
use crate::world::{Place, World, work};

/// Every backup that the catalog in `place` has is what somebody has stored under its name. Returns their names, and what a verification says.
async fn whole(world: &World, place: &Place) -> (BTreeSet<String>, VerifyReport) {
    let seed = world.seed;
    let env = world.env(SignedDuration::ZERO);
    let repository = world.open(place, &env).await.unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
    let catalog = repository.catalog().await.unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
    let mut names = BTreeSet::new();
    for backup in catalog.backups() {
        let source = repository.open(backup.id).await.unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
        let content = read(source.as_ref()).await;
        let name = String::from_utf8(content[NAME].clone()).unwrap();
        assert!(world.truth.lock().contents[&name] == content, "seed {seed}: backup {} is not what was put", backup.id);
        names.insert(name);
    }
    let report = repository.verify(VerifyLevel::Full, &work(&env)).await.unwrap();
    assert!(report.is_sound(), "seed {seed}: {:?}", report.damages);
    place.assert_clean();
    (names, report)
}

/// What was committed is there, unless somebody has let it go.
pub(crate) async fn first_region(world: &World) {
    whole(world, &world.first).await;
    let env = world.env(SignedDuration::ZERO);
    let catalog = world.open(&world.first, &env).await.unwrap().catalog().await.unwrap();
    let expired: BTreeSet<_> = catalog.expired().map(|(id, _)| id).collect();
    for id in &world.truth.lock().committed {
        let known = catalog.backup(*id).is_some() || expired.contains(id);
        assert!(known, "seed {}: backup {id} was committed and is not known", world.seed);
    }
}

/// Nobody works any more: a few runs take away all that nobody needs.
pub(crate) async fn nothing_unneeded(world: &World) {
    // Of a session that has stored nothing only its own clock tells how old it is, and that may be a day ahead.
    world.clock.advance(Duration::from_secs(2 * 86_400));
    let env = world.env(SignedDuration::ZERO);
    let now = Duration::ZERO;
    let options = CollectOptions::default().grace(now).silence(now).interrupted(now).dead_percent(1);
    for _ in 0..3 {
        let repository = world.open(&world.first, &env).await.unwrap();
        repository.collect(&options, &work(&env)).await.unwrap();
    }
    let (_, report) = whole(world, &world.first).await;
    assert_eq!(report.garbage_objects, 0, "seed {}: {report:?}", world.seed);
    let catalog = world.open(&world.first, &env).await.unwrap().catalog().await.unwrap();
    assert_eq!(catalog.collections().count(), 0, "seed {}", world.seed);
}

/// After a last copy each further region is what the first one is.
pub(crate) async fn further_regions(world: &World) {
    let env = world.env(SignedDuration::ZERO);
    let (names, _) = whole(world, &world.first).await;
    for region in &world.regions {
        let repository = world.open(&world.first, &env).await.unwrap();
        let done = repository.replicate(&region.store(&env), &work(&env)).await;
        let done = done.unwrap_or_else(|error| panic!("seed {}: {error:?}", world.seed));
        assert_eq!((done.region.entries_behind, done.region.missing.len()), (0, 0), "seed {}", world.seed);
        let (copied, report) = whole(world, region).await;
        assert_eq!(copied, names, "seed {}", world.seed);
        // Whoever dies while it looks whether a store keeps create-only puts leaves what it has tried with.
        let probes = region.probes().await;
        assert_eq!(report.garbage_objects, probes, "seed {}: in a region: {report:?}", world.seed);
    }
}
