//! What a command costs: of it and of everything that it starts.
//!
//! Every contender is a command line, ours too, and all of them run below the same [keeper], a process that adopts what
//! the command leaves behind. So one rule holds for a program of one process and for one that forks a pool of workers:
//!
//! | figure | what it is |
//! |---|---|
//! | wall | from the start of the command to its end |
//! | CPU | user and system time of all its processes, also of those that end after it |
//! | server CPU | what the database server's processes used meanwhile, where the command talks to one |
//! | peak RSS | the largest sum of the resident sets of all its processes, looked at every 10 ms, and no less than the high-water mark of any one of them |
//! | read | bytes that its processes asked the kernel for, from files, pipes and sockets |
//! | written | bytes that its processes had the kernel write to disks |
//!
//! The last two come from `/proc/PID/io` (proc(5)), where the kernel adds those of a child when its parent has waited for it.

mod job;
pub(crate) mod keeper;
mod tree;

pub(crate) use job::Job;
pub(crate) use tree::cpu_of_tree;

use std::process::Stdio;

use crate::Error;

/// What one run cost.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub(crate) struct Cost {
    /// Seconds by the clock.
    pub(crate) wall: f64,
    /// Seconds of processor time of the command's processes.
    pub(crate) cpu: f64,
    /// Seconds of processor time that the server used meanwhile.
    pub(crate) server_cpu: f64,
    /// Peak resident memory in MiB.
    pub(crate) rss: f64,
    /// Bytes that were read by system calls.
    pub(crate) read: u64,
    /// Bytes that went to disks.
    pub(crate) written: u64,
    /// Bytes of content, where the contender tells or the scenario knows.
    pub(crate) bytes: u64,
    /// Bytes that the contender's repository, or the restored directory, has more than before.
    pub(crate) stored: u64,
    /// Bytes of content that were read, where not all of it was and the contender tells.
    pub(crate) content_read: u64,
    /// Requests to the store, where the contender tells.
    pub(crate) requests: Option<u64>,
}

/// What the bench's own pieces of work say on standard output.
#[derive(Debug, Clone, Copy, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub(crate) struct Said {
    pub(crate) bytes: u64,
    pub(crate) stored: u64,
    pub(crate) content_read: u64,
    pub(crate) requests: Option<u64>,
}

/// Runs `job` and says what it cost and what it printed. `server` is the main process of the database server, if the job uses one.
///
/// An error has the end of what the job said on standard error.
pub(crate) fn measure(job: &Job, server: Option<u32>) -> Result<(Cost, String), Error> {
    let before = server.map(cpu_of_tree).transpose()?.unwrap_or(0.0);
    let kept = tempfile::NamedTempFile::new()?;
    let mut command = job.kept(&std::env::current_exe()?, kept.path());
    let output = command.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        let all: Vec<_> = said.lines().chain(errors.lines()).collect();
        let end = all[all.len().saturating_sub(20)..].join("\n");
        return Err(format!("{job} failed ({}):\n{end}", output.status).into());
    }
    let kept: keeper::Kept = serde_json::from_slice(&std::fs::read(kept.path())?)?;
    let after = server.map(cpu_of_tree).transpose()?.unwrap_or(0.0);
    let cost = Cost {
        wall: kept.wall,
        cpu: kept.cpu,
        server_cpu: after - before,
        rss: kept.rss,
        read: kept.read,
        written: kept.written,
        ..Cost::default()
    };
    Ok((cost, said))
}
