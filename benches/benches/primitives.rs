//! The hot kernels one by one. Sealing and opening alone are in `backup-crypto`'s own bench.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use backup_crypto::Suite;
use backup_storage::primitives::Kernels;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const MIB: usize = 1 << 20;

/// Rows as databases have them: numbers that count up, words from a small vocabulary, some noise.
fn rows(len: usize) -> Vec<u8> {
    let words = ["customer", "pending", "shipped", "2026-11-24", "invoice", "Berlin", "0.00", "true"];
    let mut state = 1_u64;
    let mut out = Vec::with_capacity(len + 64);
    while out.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let row = format!(
            "{},{},{},{:08x};",
            out.len(),
            words[(state >> 61) as usize],
            words[(state >> 40 & 7) as usize],
            state >> 32
        );
        out.extend_from_slice(row.as_bytes());
    }
    out.truncate(len);
    out
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 7_u64;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

fn kernels(c: &mut Criterion) {
    let mut kernels = Kernels::new(Suite::preferred_here()).unwrap();
    for (name, content) in [("rows", rows(MIB)), ("noise", noise(MIB))] {
        let mut group = c.benchmark_group("segment");
        group.throughput(Throughput::Bytes(MIB as u64));
        group.bench_function(BenchmarkId::new("compress", name), |b| {
            b.iter(|| kernels.compress(black_box(&content)).unwrap());
        });
        let before = vec![[0; 16]; 8];
        group.bench_function(BenchmarkId::new("diff", name), |b| {
            b.iter(|| kernels.diff(black_box(&content), &before).unwrap());
        });
    }
    for suite in Suite::ALL {
        let mut kernels = Kernels::new(suite).unwrap();
        let content = rows(8 * MIB);
        let object = kernels.pack(&content).unwrap();
        let mut group = c.benchmark_group(format!("pack of 8 MiB, {suite}"));
        group.throughput(Throughput::Bytes(content.len() as u64));
        group.bench_function("pack", |b| b.iter(|| kernels.pack(black_box(&content)).unwrap().len()));
        group.bench_function("unpack", |b| b.iter(|| kernels.unpack(black_box(&object)).unwrap()));
    }
    let mut group = c.benchmark_group("manifest");
    group.throughput(Throughput::Elements(100_000));
    group.sample_size(10);
    group.bench_function("write 100,000 entries", |b| b.iter(|| kernels.manifest(100_000).unwrap()));
}

criterion_group!(benches, kernels);
criterion_main!(benches);
