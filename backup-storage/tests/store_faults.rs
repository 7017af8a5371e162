//! `Store` tells the truth whatever the store beneath it does. Every case is replayed by its seed.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "also in the helpers of tests")]

use std::sync::Arc;
use std::time::Duration;

use backup_core::env::Env;
use backup_storage::error::ErrorKind;
use backup_storage::fault::{Crash, Fault, FaultOp, FaultPlan, FaultStore, GuardOp, WriteOnceGuard};
use backup_storage::store::{Created, ObjectName, Store, StoreSettings};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};

struct Bench {
    truth: Arc<InMemory>,
    guard: WriteOnceGuard,
    faults: FaultStore,
    store: Store,
}

fn bench(seed: u64, plan: FaultPlan) -> Bench {
    let truth = Arc::new(InMemory::new());
    let guard = WriteOnceGuard::new(Arc::clone(&truth) as Arc<dyn ObjectStore>);
    let faults = FaultStore::new(Arc::new(guard.clone()), seed, plan);
    let store = Store::from_object_store(Arc::new(faults.clone()));
    let store = store.with_env(Env::seeded(seed)).with_settings(StoreSettings::default().retries(6));
    Bench { truth, guard, faults, store }
}

fn name(text: &str) -> ObjectName {
    ObjectName::new(text).unwrap()
}

/// What really lies in the store, asked behind the faults' back.
async fn truth(bench: &Bench, object: &ObjectName) -> Option<Bytes> {
    match bench.truth.get(&Path::from(object.as_str())).await {
        Ok(found) => Some(found.bytes().await.unwrap()),
        Err(_) => None,
    }
}

/// Whether an outcome says what is the case.
async fn assert_truthful(
    bench: &Bench,
    object: &ObjectName,
    ours: &[u8],
    outcome: &Result<Created, ErrorKind>,
    seed: u64,
) {
    let there = truth(bench, object).await;
    match outcome {
        Ok(Created::New | Created::AlreadyOurs) => {
            assert_eq!(there.as_deref(), Some(ours), "seed {seed}: {outcome:?}, {:?}", bench.faults.log());
        }
        Ok(Created::Conflict) => {
            assert!(there.is_some_and(|there| there != ours), "seed {seed}: {:?}", bench.faults.log());
        }
        Err(kind) => assert!(
            matches!(kind, ErrorKind::Unavailable | ErrorKind::Environment),
            "seed {seed}: {kind}, {:?}",
            bench.faults.log()
        ),
    }
}

/// Three writers per name, every fault alone and all together, a thousand seeds each: no claim is ever false, and nothing is
/// ever overwritten, not even by puts that land after their client gave up.
#[tokio::test(start_paused = true)]
async fn create_is_truthful_under_every_fault_for_a_thousand_seeds() {
    let mut plans: Vec<(String, FaultPlan)> = Fault::ALL
        .into_iter()
        .filter(|fault| fault.strikes(FaultOp::Put) || fault.strikes(FaultOp::Get))
        .map(|fault| (format!("{fault:?}"), FaultPlan::quiet().with(fault, 0.3).yields(3)))
        .collect();
    plans.push(("storm".to_owned(), FaultPlan::stormy(0.08)));
    plans.push(("storm with a full disk".to_owned(), FaultPlan::stormy(0.05).with(Fault::FullDisk, 0.05)));
    for (what, plan) in plans {
        let (mut injected, mut ours, mut conflicts, mut errors) = (0, 0, 0, 0);
        for seed in 0..1000 {
            let bench = bench(seed, plan.clone());
            let object = name("catalog/1");
            let bodies = ["writer a, nonce 1", "writer b, nonce 2", "writer c, a longer body, nonce 3"];
            let puts = bodies.map(|body| {
                let (store, object) = (bench.store.clone(), object.clone());
                async move { store.create(&object, body).await.map_err(|error| error.kind()) }
            });
            let outcomes = futures::future::join_all(puts).await;
            for (outcome, body) in outcomes.iter().zip(bodies) {
                assert_truthful(&bench, &object, body.as_bytes(), outcome, seed).await;
            }
            bench.faults.flush_late().await;
            for (outcome, body) in outcomes.iter().zip(bodies) {
                assert_truthful(&bench, &object, body.as_bytes(), outcome, seed).await;
                match outcome {
                    Ok(Created::Conflict) => conflicts += 1,
                    Ok(_) => ours += 1,
                    Err(_) => errors += 1,
                }
            }
            assert!(outcomes.iter().filter(|outcome| outcome.is_ok_and(Created::is_ours)).count() <= 1, "seed {seed}");
            bench.guard.assert_clean();
            injected += bench.faults.log().len();
        }
        println!("{what}: {injected} faults, {ours} ours, {conflicts} conflicts, {errors} errors");
        assert!(injected > 100, "{what} was hardly tried");
        assert!(ours > 500, "{what} leaves no room for progress");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_is_found_to_be_ours() {
    for fault in [Fault::LostReply, Fault::OwnPutExists, Fault::StallAfter] {
        let bench = bench(1, FaultPlan::quiet());
        bench.faults.script(FaultOp::Put, "", 0, fault);
        assert_eq!(bench.store.create(&name("a"), "body").await.unwrap(), Created::AlreadyOurs, "{fault:?}");
        let landed = bench.guard.history().iter().filter(|event| event.op == GuardOp::Created).count();
        assert_eq!(landed, 1);
        let metrics = bench.store.metrics();
        assert_eq!((metrics.read_backs, metrics.landed_unseen, metrics.create.requests), (1, 1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_conflict_with_nothing_written_is_put_again() {
    for fault in [Fault::FalseConflict, Fault::Refused, Fault::Stall] {
        let bench = bench(1, FaultPlan::quiet());
        bench.faults.script(FaultOp::Put, "", 0, fault);
        assert_eq!(bench.store.create(&name("a"), "body").await.unwrap(), Created::New, "{fault:?}");
        assert_eq!(bench.store.metrics().create.retries, 1);
    }
}

/// A conflict is known from the size alone; the other body is not downloaded.
#[tokio::test(start_paused = true)]
async fn a_conflict_of_another_length_costs_no_download() {
    let bench = bench(1, FaultPlan::quiet());
    let big = Bytes::from(vec![7u8; 1 << 20]);
    assert_eq!(bench.store.create(&name("a"), big).await.unwrap(), Created::New);
    assert_eq!(bench.store.create(&name("a"), "body").await.unwrap(), Created::Conflict);
    assert_eq!(bench.store.metrics().get.bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_the_environments_fault_at_once() {
    let bench = bench(1, FaultPlan::quiet().with(Fault::FullDisk, 1.0));
    let error = bench.store.create(&name("a"), "body").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Environment);
    assert!(error.to_string().contains("no space is left"), "{error}");
    assert_eq!(bench.store.metrics().create.requests, 1, "waiting frees no space");
}

#[tokio::test(start_paused = true)]
async fn a_silent_store_is_given_up_in_bounded_time() {
    let bench = bench(1, FaultPlan::quiet().with(Fault::Stall, 1.0));
    let settings = bench.store.settings().clone().stall_timeout(Duration::from_secs(10)).min_rate(1 << 20);
    let store = bench.store.with_settings(settings);
    let start = tokio::time::Instant::now();
    let error = store.create(&name("a"), vec![0u8; 20 << 20]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    // Seven puts of 10 s + 20 MiB at 1 MiB/s, and seven read-backs of 10 s; delays pass on the seeded clock.
    assert_eq!(start.elapsed().as_secs(), 7 * 30 + 7 * 10);
    let start = tokio::time::Instant::now();
    assert_eq!(store.get(&name("a")).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(start.elapsed().as_secs(), 7 * 10);
    let listed = store.list("").try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!(listed.kind(), ErrorKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn reads_survive_torn_bodies_and_never_return_one() {
    for seed in 0..1000 {
        let bench = bench(seed, FaultPlan::quiet());
        let body: Bytes = (0..=255u8).cycle().take(5000).collect();
        assert!(bench.store.create(&name("a"), body.clone()).await.unwrap().is_ours());
        bench.faults.set_plan(
            FaultPlan::quiet()
                .with(Fault::ShortBody, 0.2)
                .with(Fault::BrokenBody, 0.2)
                .with(Fault::Stall, 0.05)
                .yields(2),
        );
        let unavailable =
            |error: backup_storage::error::Error| assert_eq!(error.kind(), ErrorKind::Unavailable, "seed {seed}");
        match bench.store.get(&name("a")).await {
            Ok(found) => assert_eq!(found, body, "seed {seed}"),
            Err(error) => unavailable(error),
        }
        match bench.store.get_range(&name("a"), 10..4000).await {
            Ok(found) => assert_eq!(found, body.slice(10..4000), "seed {seed}"),
            Err(error) => unavailable(error),
        }
        match bench.store.get_ranges(&name("a"), &[5..9, 4000..5000]).await {
            Ok(found) => assert_eq!(found, [body.slice(5..9), body.slice(4000..5000)], "seed {seed}"),
            Err(error) => unavailable(error),
        }
        match bench.store.get_suffix(&name("a"), 100).await {
            Ok(found) => assert_eq!(found, (body.slice(4900..), 5000), "seed {seed}"),
            Err(error) => unavailable(error),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn broken_listings_are_resumed_without_gaps_or_repeats() {
    for seed in 0..200 {
        let bench = bench(seed, FaultPlan::quiet());
        let names: Vec<ObjectName> = (0..50).map(|number| name(&format!("x/{number:02}"))).collect();
        for object in &names {
            assert!(bench.store.create(object, "x").await.unwrap().is_ours());
        }
        bench.faults.set_plan(FaultPlan::quiet().with(Fault::BrokenList, 0.4));
        match bench.store.list("x").map_ok(|meta| meta.name).try_collect::<Vec<_>>().await {
            Ok(listed) => assert_eq!(listed, names, "seed {seed}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "seed {seed}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_append_only_role_is_told_apart_from_a_hiccup() {
    let bench = bench(1, FaultPlan::quiet());
    assert!(bench.store.create(&name("a"), "x").await.unwrap().is_ours());
    bench.faults.set_plan(FaultPlan::quiet().with(Fault::DeleteDenied, 1.0));
    assert_eq!(bench.store.delete(&name("a")).await.unwrap_err().kind(), ErrorKind::Environment);
    bench.store.probe_exclusive_create().await.expect("the probe cleans up only as far as it is permitted");
    bench.faults.set_plan(FaultPlan::quiet().with(Fault::Refused, 0.3).with(Fault::LostReply, 0.3));
    let mut outcomes = bench.store.delete_many(futures::stream::iter([name("a"), name("b"), name("c")]));
    while let Some((object, outcome)) = outcomes.next().await {
        outcome.unwrap_or_else(|error| panic!("{object}: {error}"));
    }
    assert_eq!(truth(&bench, &name("a")).await, None);
}

/// The process dies at each request in turn, before or after the request's effect, failing or hanging: what is there afterwards is
/// whole, and the next process finds out what it needs.
#[tokio::test(start_paused = true)]
async fn a_crash_at_any_request_leaves_whole_objects() {
    for after in 0..6 {
        for (lands, hangs) in [(false, false), (true, false), (false, true), (true, true)] {
            let bench = bench(after, FaultPlan::quiet());
            bench.faults.script(FaultOp::Put, "/2", 0, Fault::LostReply);
            bench.faults.crash(Crash { after, lands, hangs });
            let work = async {
                for number in 0..4 {
                    let object = name(&format!("log/{number}"));
                    let body = format!("body {number}").into_bytes();
                    assert!(bench.store.create(&object, body).await?.is_ours());
                }
                Ok::<_, backup_storage::error::Error>(())
            };
            tokio::select! {
                biased;
                () = bench.faults.crashed() => {}
                outcome = work => assert_eq!(outcome.is_err(), after < 5),
            }
            bench.faults.revive();
            for number in 0..4 {
                let object = name(&format!("log/{number}"));
                let body = format!("body {number}").into_bytes();
                if let Some(found) = truth(&bench, &object).await {
                    assert_eq!(found, body);
                }
                assert!(bench.store.create(&object, body).await.unwrap().is_ours());
            }
            bench.guard.assert_clean();
        }
    }
}

#[tokio::test]
async fn the_same_seed_injects_the_same_faults() {
    let run = |seed| async move {
        let bench = bench(seed, FaultPlan::quiet().with(Fault::Refused, 0.3).with(Fault::LostReply, 0.3).yields(3));
        let puts =
            (0..20).map(|number| {
                let store = bench.store.clone();
                async move {
                    store.create(&name(&format!("{}", number % 7)), vec![number]).await.map_err(|error| error.kind())
                }
            });
        let outcomes = futures::future::join_all(puts).await;
        (bench.faults.log(), outcomes)
    };
    assert_eq!(run(7).await, run(7).await);
    assert_ne!(run(7).await.0, run(8).await.0);
}

#[tokio::test]
async fn the_guard_catches_what_write_once_forbids() {
    let guard = WriteOnceGuard::new(Arc::new(InMemory::new()));
    let create = || PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    let (a, b) = (Path::from("a/b"), Path::from("a"));
    guard.put_opts(&a, "one".into(), create()).await.unwrap();
    assert!(guard.put_opts(&a, "two".into(), create()).await.is_err());
    guard.assert_clean();

    assert!(guard.put(&a, "two".into()).await.is_err(), "overwriting");
    assert!(guard.put_multipart(&b).await.is_err());
    assert!(guard.copy(&a, &b).await.is_err());
    assert!(guard.rename(&a, &b).await.is_err());
    assert_eq!(guard.violations().len(), 4);
    guard.delete(&a).await.unwrap();
    guard.put_opts(&a, "two".into(), create()).await.unwrap();
    guard.put_opts(&b, "x".into(), create()).await.unwrap();
    guard.put_opts(&Path::from("Upper"), "x".into(), create()).await.unwrap();
    let violations = guard.violations();
    assert_eq!(
        violations[4..],
        ["a/b held other bytes before", "a is the folder of a/b", "Upper has a character outside the alphabet"]
    );
}

/// A put that answers success although something is there: what some stores do with conditions that they do not know.
#[tokio::test]
async fn a_store_that_overwrites_is_refused_by_the_probe() {
    #[derive(Debug)]
    struct Lenient(InMemory);
    impl std::fmt::Display for Lenient {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Lenient")
        }
    }
    #[async_trait::async_trait]
    impl ObjectStore for Lenient {
        async fn put_opts(
            &self,
            path: &Path,
            payload: object_store::PutPayload,
            _options: PutOptions,
        ) -> object_store::Result<object_store::PutResult> {
            self.0.put_opts(path, payload, PutOptions::default()).await
        }
        async fn put_multipart_opts(
            &self,
            path: &Path,
            options: object_store::PutMultipartOptions,
        ) -> object_store::Result<Box<dyn object_store::MultipartUpload>> {
            self.0.put_multipart_opts(path, options).await
        }
        async fn get_opts(
            &self,
            path: &Path,
            options: object_store::GetOptions,
        ) -> object_store::Result<object_store::GetResult> {
            self.0.get_opts(path, options).await
        }
        fn delete_stream(
            &self,
            paths: futures::stream::BoxStream<'static, object_store::Result<Path>>,
        ) -> futures::stream::BoxStream<'static, object_store::Result<Path>> {
            self.0.delete_stream(paths)
        }
        fn list(
            &self,
            prefix: Option<&Path>,
        ) -> futures::stream::BoxStream<'static, object_store::Result<object_store::ObjectMeta>> {
            self.0.list(prefix)
        }
        async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<object_store::ListResult> {
            self.0.list_with_delimiter(prefix).await
        }
        async fn copy_opts(
            &self,
            from: &Path,
            to: &Path,
            options: object_store::CopyOptions,
        ) -> object_store::Result<()> {
            self.0.copy_opts(from, to, options).await
        }
    }
    let store = Store::from_object_store(Arc::new(Lenient(InMemory::new())));
    let error = store.probe_exclusive_create().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Environment);
    assert!(error.to_string().contains("must not be used"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn limits_hold_across_sub_stores() {
    let bench = bench(1, FaultPlan::quiet().latency(Duration::from_millis(10)));
    let settings = StoreSettings::default().upload_limit(Some(1 << 20)).max_requests(2);
    let store = bench.store.with_settings(settings);
    let start = store.env().clock().monotonic();
    let puts = (0..8).map(|number| {
        let store = store.at(&format!("sub-{}", number % 3)).unwrap();
        async move { store.create(&name(&format!("{number}")), vec![0u8; 1 << 20]).await.unwrap() }
    });
    assert_eq!(futures::future::join_all(puts).await, [Created::New; 8]);
    assert!(store.env().clock().monotonic() - start >= Duration::from_secs(7), "8 MiB at 1 MiB/s, 1 MiB saved up");
    assert_eq!(store.metrics().create.bytes, 8 << 20);
}
