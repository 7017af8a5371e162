//! What is decided about stored things is committed like a backup: all of it or nothing, once, for everybody.

use super::RepositoryHarness;
use super::stage::{Stage, put_all};
use crate::catalog::{Actor, Catalog, CloseReason, Event, Role, ServiceChange, ServiceSpec};
use crate::conformance::bytes::noise;
use crate::error::{Error, ErrorKind};
use crate::repository::ParentChoice;

/// Decisions are atomic, are asked for again when somebody was faster, and concern everybody.
pub async fn decisions_are_made_once(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let session = stage.begin(ParentChoice::None).await;
    put_all(session.sink().as_ref(), &[("file", &noise(1, 1000))]).await;
    let record = stage.commit(session).await;
    let other = harness.reopen(stage.repository.service()).await;
    let (by, at) = (Actor::new(Role::Platform, "conformance"), harness.env().now());
    let service = |change| Event::Service { change, lease: None, by: by.clone(), at };
    let held = |hold: &str| {
        let (hold, reason) = (hold.to_owned(), "kept".to_owned());
        Event::HoldPlaced { backup: record.id, hold, reason, by: by.clone(), at, log: false }
    };
    let expired = Event::BackupExpired { backup: record.id, reason: "old".to_owned(), by: by.clone(), at };

    // All or none: the second event does not fit behind the first.
    let refused = stage.repository.decide(&mut |_| Ok(vec![held("a"), expired.clone()])).await;
    assert_eq!(refused.err().map(|e| e.kind()), Some(ErrorKind::Conflict), "a decision that does not fit");
    let catalog = other.catalog().await.expect("the catalog can be read");
    assert_eq!(catalog.holds(record.id).count(), 0, "nothing of it was committed");
    // What the decider says itself is told as it is, and what is not for deciding is refused.
    let own = stage.repository.decide(&mut |_| Err(Error::invalid("not today"))).await;
    assert!(own.is_err_and(|e| e.kind() == ErrorKind::InvalidInput && e.to_string().contains("not today")));
    let session = record.session;
    for event in [
        Event::SessionClosed { session, at, reason: CloseReason::Abandoned },
        Event::BackupRecovered { record: Box::new(record.clone()) },
    ] {
        let refused = stage.repository.decide(&mut |_| Ok(vec![event.clone()])).await;
        assert_eq!(refused.err().map(|e| e.kind()), Some(ErrorKind::InvalidInput), "an event that is no decision");
    }
    // Nothing to decide is no commit, and the catalog comes back nevertheless.
    let catalog = stage.repository.decide(&mut |_| Ok(Vec::new())).await.expect("nothing can be decided");
    assert_eq!(catalog.latest().map(|b| b.id), Some(record.id));

    // Two that count from what they see: whoever loses sees what the winner has done.
    let spec = Box::new(ServiceSpec::new("test", "startup", "here", "here"));
    stage
        .repository
        .decide(&mut |_| Ok(vec![service(ServiceChange::Created { spec: spec.clone() })]))
        .await
        .expect("created");
    let count = |catalog: &Catalog| catalog.service().map_or(0, |service| service.trail.len());
    let moved = |catalog: &Catalog| {
        let zone = format!("zone-{}", count(catalog));
        Ok(vec![service(ServiceChange::Moved { zone })])
    };
    for _ in 0..3 {
        let (mut one, mut two) = (moved, moved);
        let (first, second) = futures::join!(stage.repository.decide(&mut one), other.decide(&mut two));
        first.expect("the first of two");
        second.expect("the second of two");
    }
    let catalog = stage.repository.catalog().await.expect("the catalog can be read");
    let state = catalog.service().expect("the service");
    assert_eq!(
        (state.trail.len(), state.spec.zone.as_str()),
        (7, "zone-6"),
        "every decision counted on the one before"
    );

    // What has expired is gone for everybody, with the reason.
    other.decide(&mut |_| Ok(vec![expired.clone()])).await.expect("expired");
    let gone = stage.repository.open(record.id).await.err();
    assert!(gone.is_some_and(|e| e.kind() == ErrorKind::InvalidInput && e.to_string().contains("old")));
    let parent = stage.repository.begin(ParentChoice::Backup(record.id), &stage.work()).await.err();
    assert_eq!(parent.map(|e| e.kind()), Some(ErrorKind::InvalidInput), "an expired parent");
    let session = stage.begin(ParentChoice::Newest).await;
    assert_eq!(session.parent(), None, "an expired backup is nobody's newest");
}
