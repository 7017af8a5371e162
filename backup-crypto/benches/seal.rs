//! Speed of sealing and opening, for every suite, backend and two usual segment lengths, and of block identities.
//!
//! `docs/decisions/0001-crypto.md` draws its choice of backends from this benchmark.

use std::hint::black_box;

use backup_crypto::entropy::SeededEntropy;
use backup_crypto::*;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const LENGTHS: [(usize, &str); 2] = [(64 << 10, "64KiB"), (1 << 20, "1MiB")];

/// A sealer refuses a used index, so a benchmark takes the next one, and the next sealer when all are used.
struct Sealing<'a> {
    make: &'a dyn Fn() -> ObjectSealer,
    sealer: ObjectSealer,
    next: u32,
}

impl<'a> Sealing<'a> {
    fn new(make: &'a dyn Fn() -> ObjectSealer) -> Self {
        Self { make, sealer: make(), next: 0 }
    }

    fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> SegmentHeader {
        if self.next == MAX_SEGMENTS {
            *self = Self::new(self.make);
        }
        let segment = SegmentHeader { index: self.next, last: false, plain_len: plain.len() as u32, codec: 0, role: 0 };
        self.next += 1;
        out.clear();
        self.sealer.seal(segment, plain, out).expect("a fresh index within the limits");
        segment
    }
}

fn segments(c: &mut Criterion) {
    let entropy = SeededEntropy::new(1);
    let key = EpochKey::generate(&entropy);
    let repository = RepositoryId::generate(&entropy);
    let context = ObjectContext { repository, epoch: EpochId(1), kind: ObjectKind::Pack, name: "packs/bench/000001" };
    for suite in Suite::ALL {
        for backend in Backend::ALL {
            let mut group = c.benchmark_group(format!("{suite}/{backend}"));
            for (len, label) in LENGTHS {
                let mut plain = vec![0; len];
                entropy.fill(&mut plain);
                let make =
                    || ObjectSealer::with_backend(*backend, suite, &key, &context, [7; 32]).expect("a valid context");
                let mut sealing = Sealing::new(&make);
                let mut out = Vec::new();
                group.throughput(Throughput::Bytes(len as u64));
                group.bench_function(BenchmarkId::new("seal", label), |b| {
                    b.iter(|| sealing.seal(black_box(&plain), &mut out));
                });
                let mut sealed = Vec::new();
                let segment = sealing.seal(&plain, &mut sealed);
                let opener = ObjectOpener::with_backend(*backend, &key, &context, sealing.sealer.header())
                    .expect("the header of its own sealer");
                group.bench_function(BenchmarkId::new("open", label), |b| {
                    b.iter(|| opener.open(segment, black_box(&sealed), &mut out).expect("an unchanged segment"));
                });
            }
            group.finish();
        }
    }
    c.bench_function("object/new", |b| {
        b.iter(|| ObjectSealer::new(Suite::Aes256Gcm, black_box(&key), &context, [7; 32]).expect("a valid context"));
    });
}

fn identities(c: &mut Criterion) {
    let (hash, _) = HashKey::generate(&SeededEntropy::new(1));
    let block = vec![0x42; 128 << 10];
    let mut group = c.benchmark_group("identity");
    group.throughput(Throughput::Bytes(block.len() as u64));
    group.bench_function("block/128KiB", |b| b.iter(|| hash.block(black_box(&block))));
    group.finish();
}

fn passphrase(c: &mut Criterion) {
    let entropy = SeededEntropy::new(1);
    let key = EpochKey::generate(&entropy);
    let repository = RepositoryId::generate(&entropy);
    let recipient = Recipient::from(Passphrase::new("a passphrase").expect("a passphrase"));
    let mut group = c.benchmark_group("recipient");
    group.sample_size(10);
    group.bench_function("passphrase/wrap", |b| {
        b.iter(|| recipient.wrap(&key, repository, EpochId(1), &entropy).expect("memory for argon2"));
    });
    group.finish();
}

criterion_group!(benches, segments, identities, passphrase);
criterion_main!(benches);
