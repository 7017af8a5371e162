//! Whoever may add objects and has the repository's key: a host that was taken over.

use backup_core::BackupId;
use backup_core::catalog::{
    Actor, Catalog, Condemned, Event, PackDamage, PackId, PackMove, Role, SessionPacks, SessionState,
};
use backup_core::log::LogPurpose;
use backup_core::repository::{CollectOptions, ParentChoice, Repository as _};
use backup_storage::Repository;
use futures::TryStreamExt;
use jiff::Timestamp;

use crate::intruder;
use crate::month::{Content, Month, put, snapshot};

fn by() -> Actor {
    Actor::new(Role::Owner, "nobody in particular")
}

/// Lets go of everything, at a time of its own.
pub(crate) async fn expire_all(repository: &Repository, at: Timestamp) -> usize {
    let catalog = repository.catalog().await.unwrap();
    let expired = |backup: BackupId| Event::BackupExpired { backup, reason: "old".to_owned(), by: by(), at };
    let events: Vec<_> = catalog.backups().map(|backup| expired(backup.id)).collect();
    let count = events.len();
    let _ = repository.forge(events).await;
    count
}

/// The packs that lie there, by session.
async fn packs(repository: &Repository) -> Vec<PackId> {
    let objects: Vec<_> = repository.store().list("packs").try_collect().await.unwrap();
    let packs = objects.iter().filter_map(|object| {
        let (session, number) = object.name.as_str().strip_prefix("packs/")?.split_once('/')?;
        Some(PackId { session: session.parse().ok()?, number: number.parse().ok()? })
    });
    packs.collect()
}

fn condemned(catalog: &Catalog, packs: &[PackId], moves: Vec<PackMove>) -> Condemned {
    let mut condemned = Condemned::default();
    (condemned.number, condemned.pins, condemned.moves) = (catalog.next_collection(), catalog.pins(), moves);
    let mut sessions: Vec<_> = packs.iter().map(|pack| pack.session).collect();
    sessions.dedup();
    for session in sessions {
        let numbers = packs.iter().filter(|pack| pack.session == session).map(|pack| pack.number);
        condemned.packs.push(SessionPacks::new(session, numbers, true));
    }
    condemned
}

/// Condemns everything that is stored, whether anybody needs it or not.
pub(crate) async fn condemn_all(repository: &Repository, at: Timestamp, begun: bool) -> usize {
    let catalog = repository.catalog().await.unwrap();
    let open = |pack: &PackId| matches!(catalog.session(pack.session), Some(SessionState::Open { .. }));
    let all: Vec<_> = packs(repository).await.into_iter().filter(|pack| !open(pack)).collect();
    let collection = Box::new(condemned(&catalog, &all, Vec::new()));
    let number = collection.number;
    let mut events = vec![Event::Condemned { collection, at }];
    if begun {
        events.push(Event::SweepBegun { collection: number, at });
    }
    let _ = repository.forge(events).await;
    1
}

/// Says that what packs hold is somewhere else.
async fn move_all(repository: &Repository, at: Timestamp) -> usize {
    let catalog = repository.catalog().await.unwrap();
    let all = packs(repository).await;
    let (Some(to), Some(from)) = (all.last(), all.first()) else { return 0 };
    let moves = vec![PackMove { from: *from, to: *to, base: 0, count: 1 }];
    let collection = Box::new(condemned(&catalog, &[*from], moves));
    let _ = repository.forge(vec![Event::Condemned { collection, at }]).await;
    1
}

/// Does one thing. Returns how much was planted.
pub(crate) async fn act(month: &mut Month) -> usize {
    let times = ["2001-01-01T00:00:00Z", "2026-03-10T00:00:00Z", "2026-12-01T00:00:00Z", "2040-01-01T00:00:00Z"];
    let at: Timestamp = times[month.choices.below(4) as usize].parse().unwrap();
    let Ok(repository) = month.open_at(at).await else { return 0 };
    let Ok(catalog) = repository.catalog().await else { return 0 };
    match month.choices.below(12) {
        0 => expire_all(&repository, at).await,
        1 => condemn_all(&repository, at, false).await,
        2 => condemn_all(&repository, at, true).await,
        3 => expire_all(&repository, at).await + condemn_all(&repository, at, true).await,
        4 => move_all(&repository, at).await,
        5 => {
            // As an operator in a hurry would: this deletes nothing, and says that it is about to.
            let zero = std::time::Duration::ZERO;
            let options = CollectOptions::default().grace(zero).silence(zero).interrupted(zero).dead_percent(1);
            let _ = repository.collect(&options, &month.work()).await;
            1
        }
        6 => {
            let open = catalog.sessions().filter(|(_, state)| matches!(state, SessionState::Open { .. }));
            let open: Vec<_> = open.map(|(session, _)| session).collect();
            for session in &open {
                let _ = repository.fence(*session).await;
            }
            open.len()
        }
        7 => {
            // Rubbish that claims to be the newest, or older than everything.
            let mut made = 0;
            for _ in 0..3 {
                let content = Content::from([("file-0".to_owned(), month.choices.bytes(2_000))]);
                let Ok(session) = repository.begin(ParentChoice::None, &month.work()).await else { break };
                if put(session.as_ref(), &content).await.is_ok() {
                    made += usize::from(session.commit(snapshot(at)).await.is_ok());
                }
            }
            made
        }
        8 => {
            let opened = |ahead: u64| {
                let epoch = backup_core::log::LogEpoch(catalog.log().next_epoch().0 + u32::try_from(ahead).unwrap());
                Event::LogOpened { epoch, purpose: LogPurpose::Stream, at }
            };
            usize::from(repository.forge((0..20).map(opened).collect()).await.is_ok()) * 20
        }
        9 => {
            let all = packs(&repository).await;
            let backups: Vec<_> = catalog.backups().map(|backup| backup.id).collect();
            let damage =
                |pack: &PackId| PackDamage { pack: *pack, problem: "torn".to_owned(), backups: backups.clone() };
            let event = Event::PacksDamaged { packs: all.iter().map(damage).collect(), at };
            usize::from(repository.forge(vec![event]).await.is_ok())
        }
        10 => usize::from(repository.forge_generation().await.is_ok()),
        _ => intruder::act(month).await,
    }
}
