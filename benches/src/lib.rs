//! Side-by-side benchmarks with plots
