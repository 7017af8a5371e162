//! A guard over the hot kernels that counts instructions instead of time: a loaded or slower machine changes nothing.
//!
//! `cargo bench -p backup-benches --bench instructions` runs each kernel below Valgrind's Cachegrind, and compares with
//! `instructions.json` beside this crate's manifest; `-- --bless` writes that file. More than 3 % above is an error, more than 3 %
//! below is worth a new file. Counts are those of one compiler and of one set of processor features (Valgrind shows programs AVX2 and
//! AES, and no AVX-512, where the processor has them), so the file names the compiler, and another one's is not compared.
#![allow(missing_docs, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::PathBuf;
use std::process::Command;

use backup_crypto::Suite;
use backup_storage::primitives::Kernels;

type Error = Box<dyn std::error::Error>;

const KERNELS: [&str; 5] = ["compress", "diff", "pack", "unpack", "manifest"];
/// Above so much more, in hundredths, it is another kernel.
const TOLERANCE: f64 = 3.0;
const MIB: usize = 1 << 20;

/// What was counted once.
#[derive(Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Baseline {
    compiler: String,
    /// Instructions of one call.
    kernels: BTreeMap<String, u64>,
}

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--kernel") {
        let [name, times] = arguments.get(at + 1..at + 3).ok_or("--kernel NAME TIMES")? else { return Ok(()) };
        return kernel(name, times.parse()?);
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("valgrind is not on this machine: instructions are not counted");
        return Ok(());
    }
    let mut found = Baseline { compiler: compiler()?, kernels: BTreeMap::new() };
    for name in KERNELS {
        // What comes before and after the kernel is in both and cancels out.
        let (one, three) = (count(name, 1)?, count(name, 3)?);
        found.kernels.insert(name.to_owned(), (three - one) / 2);
    }
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("instructions.json");
    if arguments.iter().any(|argument| argument == "--bless") {
        std::fs::write(&file, serde_json::to_string_pretty(&found)? + "\n")?;
        println!("written to {}", file.display());
    }
    let known: Baseline = match std::fs::read(&file) {
        Ok(bytes) => serde_json::from_slice(&bytes)?,
        Err(_) => Baseline::default(),
    };
    compare(&known, &found)
}

/// Prints both and fails where one has grown.
fn compare(known: &Baseline, found: &Baseline) -> Result<(), Error> {
    let comparable = known.compiler == found.compiler;
    if !comparable {
        println!("nothing was written down for {}: --bless does it", found.compiler);
    }
    let mut grown = vec![];
    for (name, count) in &found.kernels {
        let before = known.kernels.get(name).filter(|_| comparable);
        let change = before.map(|before| (*count as f64 / *before as f64 - 1.0) * 100.0);
        let change_text = change.map_or_else(|| "–".to_owned(), |change| format!("{change:+.2} %"));
        println!("{name:10} {count:>13} instructions  {change_text}");
        if change.is_some_and(|change| change > TOLERANCE) {
            grown.push(name.as_str());
        }
    }
    if grown.is_empty() { Ok(()) } else { Err(format!("more instructions than before: {}", grown.join(", ")).into()) }
}

fn compiler() -> Result<String, Error> {
    let output = Command::new("rustc").arg("--version").output()?;
    Ok(format!(
        "{}, {}",
        String::from_utf8(output.stdout)?.trim(),
        if cfg!(debug_assertions) { "debug" } else { "optimised" }
    ))
}

/// Instructions of a process that calls the kernel so many times.
fn count(name: &str, times: u32) -> Result<u64, Error> {
    let output = Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["--kernel", name, &times.to_string()])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{name}: {}: {said}", output.status).into());
    }
    let line = said
        .lines()
        .find(|line| line.contains("refs:") && line.contains(" I "))
        .ok_or("no count in what valgrind says")?;
    let digits: String = line.rsplit(':').next().unwrap_or_default().chars().filter(char::is_ascii_digit).collect();
    Ok(digits.parse()?)
}

fn kernel(name: &str, times: u32) -> Result<(), Error> {
    let mut kernels = Kernels::new(Suite::preferred_here())?;
    let content = rows(MIB);
    let object = kernels.pack(&content)?;
    for _ in 0..times {
        match name {
            "compress" => _ = black_box(kernels.compress(black_box(&content))?),
            "diff" => _ = black_box(kernels.diff(black_box(&content), &[[0; 16]; 8])?),
            "pack" => _ = black_box(kernels.pack(black_box(&content))?),
            "unpack" => _ = black_box(kernels.unpack(black_box(&object))?),
            "manifest" => _ = black_box(kernels.manifest(10_000)?),
            other => return Err(format!("there is no kernel {other}").into()),
        }
    }
    Ok(())
}

/// Rows as databases have them.
fn rows(len: usize) -> Vec<u8> {
    let words = ["customer", "pending", "shipped", "2026-11-24", "invoice", "Berlin", "0.00", "true"];
    let mut state = 1_u64;
    let mut out = Vec::with_capacity(len + 64);
    while out.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (first, second) = (words[(state >> 61) as usize], words[(state >> 40 & 7) as usize]);
        out.extend_from_slice(format!("{},{first},{second},{:08x};", out.len(), state >> 32).as_bytes());
    }
    out.truncate(len);
    out
}
