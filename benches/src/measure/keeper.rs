//! The process between the bench and what it measures.
//!
//! It makes itself the reaper of its descendants (prctl(2), `PR_SET_CHILD_SUBREAPER`), so a process that a command leaves in the
//! background comes to it and not to init, and its time is counted. What it counts for itself is left out: the kernel keeps times
//! of children that were waited for apart from a process's own.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backup_testkit::wait::Stopwatch;
use rustix::process::{WaitOptions, getpid, set_child_subreaper, wait};

use super::tree;
use crate::Error;

/// How often the tree is looked at. A look costs some tens of microseconds.
const INTERVAL: Duration = Duration::from_millis(10);

/// What it has seen.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Kept {
    pub(crate) wall: f64,
    pub(crate) cpu: f64,
    pub(crate) rss: f64,
    pub(crate) read: u64,
    pub(crate) written: u64,
}

/// Runs `program`, waits for it and for everything that it leaves behind, and writes what that cost to `report`.
pub(crate) fn keep(report: &Path, program: &PathBuf, arguments: &[OsString]) -> Result<(), Error> {
    set_child_subreaper(Some(getpid()))?;
    let io = tree::io_of(std::process::id())?;
    let ended = AtomicBool::new(false);
    let (wall, rss, status) = std::thread::scope(|scope| -> Result<_, Error> {
        let watch = Stopwatch::start();
        let mut child = Command::new(program).args(arguments).spawn()?;
        let watcher = scope.spawn(|| {
            let mut most = 0;
            while !ended.load(Ordering::Relaxed) {
                most = most.max(tree::resident(std::process::id()));
                std::thread::park_timeout(INTERVAL);
            }
            most
        });
        let status = child.wait();
        let wall = watch.elapsed();
        // Those that were left behind; an error says that there are no more.
        while wait(WaitOptions::empty()).is_ok() {}
        ended.store(true, Ordering::Relaxed);
        watcher.thread().unpark();
        let rss = watcher.join().map_err(|_| "the watcher of memory has panicked")?;
        Ok((wall, rss, status?))
    })?;
    if !status.success() {
        return Err(format!("{}: {status}", program.display()).into());
    }
    let after = tree::io_of(std::process::id())?;
    let kept = Kept {
        wall: wall.as_secs_f64(),
        cpu: tree::cpu_of(std::process::id())?.children,
        rss: rss as f64 / f64::from(1 << 20),
        read: after.read.saturating_sub(io.read),
        written: after.written.saturating_sub(io.written),
    };
    std::fs::write(report, serde_json::to_vec(&kept)?)?;
    Ok(())
}
