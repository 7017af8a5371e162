//! What each operation costs as the amount of data, the number of files and the number of backups grow.
//!
//! A cost that grows as the n-th power of a size is a straight line where both axes are logarithmic; n is fitted by least squares
//! (see [`fit`]). 1 is what reading all of it must cost, 0 is a cost that does not depend on it.

mod fit;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use backup_core::repository::Repository as _;

use super::catalog::fill;
use super::trees::Tree;
use crate::chart::{self, Line};
use crate::machine::Machine;
use crate::measure::Cost;
use crate::work::{Work, measure, open};
use crate::{Common, Error};

/// Costs of each operation, by size.
type Curves = BTreeMap<&'static str, Vec<(f64, Cost)>>;

/// A curve as it is reported.
#[derive(Debug, serde::Serialize)]
struct Curve {
    across: &'static str,
    operation: String,
    quantity: &'static str,
    /// None with fewer than two sizes.
    exponent: Option<f64>,
    points: Vec<(f64, f64)>,
}

/// What is read of a cost.
type Of = fn(&Cost) -> f64;

/// What is plotted: its name, its unit, and how it is taken from a cost.
const QUANTITIES: [(&str, &str, Of); 3] = [
    ("wall", "seconds", |cost| cost.wall),
    ("cpu", "processor seconds", |cost| cost.cpu),
    ("rss", "MiB of memory at the peak", |cost| cost.rss),
];

/// Measures with up to `max` MB.
#[expect(clippy::print_stdout, reason = "a program that reports to its terminal")]
pub(crate) async fn run(max: u64, common: &Common) -> Result<(), Error> {
    let Common { runs, out } = common;
    std::fs::create_dir_all(out)?;
    let base = tempfile::tempdir_in(std::path::absolute(out)?)?;
    let mut curves = vec![];
    let mut text = format!("## growth\n\n{}\n", Machine::here(out).text());
    let sizes: Vec<u64> = (0..6).rev().map(|halvings| (max >> halvings).max(1)).collect();
    let by_size = trees(base.path(), *runs, Tree::FewLarge, sizes.iter().map(|mb| (*mb as f64, mb << 20)))?;
    report("data", "MB of rows in eight files", &by_size, out, &mut curves, &mut text)?;

    // Files of 8 kB in the mean, as many as lie in a 32nd of the largest dataset.
    let counts = sizes.iter().map(|mb| ((mb << 20) as f64 / 32.0 / 8192.0, (mb << 20) / 32));
    let by_files = trees(base.path(), *runs, Tree::ManySmall, counts)?;
    report("files", "files of 8 kB in the mean (about)", &by_files, out, &mut curves, &mut text)?;

    let most = (max * 4).clamp(512, 32768);
    let by_backups = backups(base.path(), *runs, most).await?;
    report("backups", "backups in the repository", &by_backups, out, &mut curves, &mut text)?;

    let json = serde_json::json!({
        "bench": "growth", "max_mb": max, "runs": runs, "machine": Machine::here(out), "curves": curves,
    });
    std::fs::write(out.join("growth.json"), serde_json::to_string_pretty(&json)?)?;
    std::fs::write(out.join("growth.md"), &text)?;
    println!("{text}\nwritten to {}", out.display());
    Ok(())
}

/// The cheapest of several runs: what is left when the machine does nothing else.
fn least(costs: Vec<Cost>) -> Option<Cost> {
    costs.into_iter().min_by(|a, b| a.wall.total_cmp(&b.wall))
}

/// A tree of each of `sizes` (what the axis shows, and bytes): backup, unchanged backup, restore, verification.
#[expect(clippy::print_stdout, reason = "a program that reports to its terminal")]
fn trees(base: &Path, runs: usize, tree: Tree, sizes: impl Iterator<Item = (f64, u64)>) -> Result<Curves, Error> {
    let mut curves = Curves::new();
    for (shown, bytes) in sizes {
        println!("{} MB of {} …", bytes >> 20, tree.title());
        let here = base.join("tree-and-vault");
        let (dir, vault, into) = (here.join("tree"), here.join("vault"), here.join("restored"));
        tree.plant(&dir, bytes)?;
        let settled = backup_testkit::wait::Deadline::after(std::time::Duration::from_secs(3));
        backup_testkit::wait::until(std::time::Duration::from_secs(4), || settled.passed().then_some(()));
        let mut all: BTreeMap<&'static str, Vec<Cost>> = BTreeMap::new();
        // The first one warms up.
        for round in 0..=runs {
            Work::Create { vault: vault.clone() }.job()?.run()?;
            std::fs::create_dir(&into)?;
            let backup = Work::FilesBackup { vault: vault.clone(), dir: dir.clone() };
            for (operation, work) in [
                ("first backup", backup.clone()),
                ("unchanged backup", backup),
                ("restore", Work::FilesRestore { vault: vault.clone(), into: into.clone(), delta: false }),
                ("full verification", Work::Verify { vault: vault.clone() }),
            ] {
                rustix::fs::sync();
                let cost = measure(&work)?;
                if round > 0 {
                    all.entry(operation).or_default().push(cost);
                }
            }
            std::fs::remove_dir_all(&vault)?;
            std::fs::remove_dir_all(&into)?;
        }
        std::fs::remove_dir_all(&here)?;
        for (operation, costs) in all {
            curves.entry(operation).or_default().extend(least(costs).map(|cost| (shown, cost)));
        }
    }
    Ok(curves)
}

/// A repository of up to `most` backups of next to nothing: opened and its catalog read, and one more backup taken.
#[expect(clippy::print_stdout, reason = "a program that reports to its terminal")]
async fn backups(base: &Path, runs: usize, most: u64) -> Result<Curves, Error> {
    let (vault, dir): (PathBuf, PathBuf) = (base.join("many"), base.join("little"));
    std::fs::create_dir(&dir)?;
    std::fs::write(dir.join("file"), "little")?;
    let mut curves = Curves::new();
    let mut taken = 0;
    for wanted in (0..4).rev().map(|eighths: u32| most >> (3 * eighths)) {
        println!("{wanted} backups …");
        fill(&vault, wanted.saturating_sub(taken)).await?;
        open(&vault).await?.checkpoint_catalog().await?;
        taken = taken.max(wanted);
        let mut all: BTreeMap<&'static str, Vec<Cost>> = BTreeMap::new();
        for _ in 0..=runs {
            all.entry("catalog").or_default().push(measure(&Work::Catalog { vault: vault.clone() })?);
            let backup = Work::FilesBackup { vault: vault.clone(), dir: dir.clone() };
            all.entry("one more backup").or_default().push(measure(&backup)?);
            taken += 1;
        }
        for (operation, costs) in all {
            curves.entry(operation).or_default().extend(least(costs).map(|cost| (wanted as f64, cost)));
        }
    }
    // What was asked for of the catalog is what is there.
    let known = open(&vault).await?.catalog().await?.backups().count() as u64;
    if known != taken {
        return Err(format!("{known} backups are known of {taken}").into());
    }
    Ok(curves)
}

/// Draws and tabulates `curves` over `across`.
fn report(
    name: &'static str,
    across: &'static str,
    curves: &Curves,
    out: &Path,
    all: &mut Vec<Curve>,
    text: &mut String,
) -> Result<(), Error> {
    for (quantity, unit, of) in QUANTITIES {
        let mut lines = vec![];
        for (operation, costs) in curves {
            // Processor time counts in hundredths of a second; less than one has no logarithm.
            let points: Vec<_> = costs.iter().map(|(size, cost)| (*size, of(cost).max(0.005))).collect();
            let exponent = fit::exponent(&points);
            let shown = exponent.map_or_else(|| operation.to_string(), |n| format!("{operation}, n = {n:.2}"));
            lines.push(Line { name: shown, points: points.clone() });
            all.push(Curve { across: name, operation: operation.to_string(), quantity, exponent, points });
        }
        let title = format!("cost against {across}");
        std::fs::write(out.join(format!("growth-{name}-{quantity}.svg")), chart::growth(&title, across, unit, &lines))?;
        *text += &format!("\n### {quantity} against {across}\n\n| | exponent |");
        let sizes = curves.values().next().map(Vec::as_slice).unwrap_or_default();
        *text += &sizes.iter().map(|(size, _)| format!(" {size:.0} |")).collect::<String>();
        *text += &format!("\n|---|---|{}\n", "---|".repeat(sizes.len()));
        for curve in all.iter().filter(|curve| curve.across == name && curve.quantity == quantity) {
            let exponent = curve.exponent.map_or_else(|| "–".to_owned(), |n| format!("{n:.2}"));
            let values: String = curve.points.iter().map(|(_, value)| format!(" {value:.2} |")).collect();
            *text += &format!("| {} | {exponent} |{values}\n", curve.operation);
        }
        *text += &format!("\n![{title}](growth-{name}-{quantity}.svg)\n");
    }
    Ok(())
}
