//! Processes and what they used, as proc(5) tells it. A process that has gone is no error: it has used nothing more.

use std::path::PathBuf;

use crate::Error;

/// Processor time in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Cpu {
    /// Of the process itself.
    pub(super) own: f64,
    /// Of its children that it has waited for, and theirs.
    pub(super) children: f64,
}

/// Bytes of a process and of its children that it has waited for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Io {
    pub(super) read: u64,
    pub(super) written: u64,
}

fn file(process: u32, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{process}/{name}"))
}

pub(super) fn cpu_of(process: u32) -> Result<Cpu, Error> {
    let stat = std::fs::read_to_string(file(process, "stat"))?;
    cpu_in(&stat).ok_or_else(|| format!("no times of process {process}").into())
}

/// Fields 14 to 17 of the file `stat`, which count in hundredths of a second. The name before them may contain anything.
fn cpu_in(stat: &str) -> Option<Cpu> {
    let fields = stat.rsplit(')').next()?.split_whitespace().skip(11).take(4);
    let ticks: Vec<f64> = fields.map(|field| field.parse().ok()).collect::<Option<_>>()?;
    let [user, system, child_user, child_system] = ticks[..] else { return None };
    Some(Cpu { own: (user + system) / 100.0, children: (child_user + child_system) / 100.0 })
}

pub(super) fn io_of(process: u32) -> Result<Io, Error> {
    let text = std::fs::read_to_string(file(process, "io"))?;
    io_in(&text).ok_or_else(|| format!("no bytes of process {process}").into())
}

fn io_in(text: &str) -> Option<Io> {
    let field = |name: &str| -> Option<u64> {
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.trim().parse().ok())
    };
    // What was given up before it was written, such as a file that was removed at once.
    let written = field("write_bytes")?.saturating_sub(field("cancelled_write_bytes")?);
    Some(Io { read: field("rchar")?, written })
}

/// Processor seconds of a process, of those it has waited for, and of those that run below it: a sum that only grows.
pub(crate) fn cpu_of_tree(process: u32) -> Result<f64, Error> {
    let mut all = 0.0;
    let mut processes = vec![process];
    while let Some(process) = processes.pop() {
        // A server's process may end between the listing and the look; its parent has then been given its time.
        if let Ok(cpu) = cpu_of(process) {
            all += cpu.own + cpu.children;
        }
        processes.extend(children(process));
    }
    Ok(all)
}

/// Bytes resident in memory of everything below `process`: their sum, or the high-water mark of one of them if that is more.
pub(super) fn resident(process: u32) -> u64 {
    let (mut sum, mut most) = (0, 0);
    let mut processes = children(process);
    while let Some(process) = processes.pop() {
        let status = std::fs::read_to_string(file(process, "status")).unwrap_or_default();
        let (now, high) = resident_in(&status);
        sum += now;
        most = most.max(high);
        processes.extend(children(process));
    }
    sum.max(most)
}

/// `VmRSS` and `VmHWM` of the file `status`, in bytes.
fn resident_in(status: &str) -> (u64, u64) {
    let field = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
        kib.unwrap_or(0) << 10
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// The processes that any thread of `process` has started and that are still there.
fn children(process: u32) -> Vec<u32> {
    let Ok(threads) = std::fs::read_dir(file(process, "task")) else { return vec![] };
    let lists = threads.flatten().filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<u32>>()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_stand_behind_a_name_of_any_kind() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 100 200 0 0 150 50 300 25 20 0 1 0 5 6 7";
        assert_eq!(cpu_in(stat), Some(Cpu { own: 2.0, children: 3.25 }));
        assert_eq!(cpu_in("7 (short) S 1"), None);
    }

    #[test]
    fn bytes_that_were_given_up_are_not_written() {
        let text = "rchar: 1000\nwchar: 5\nsyscr: 1\nsyscw: 1\nread_bytes: 0\nwrite_bytes: 8192\ncancelled_write_bytes: 4096\n";
        assert_eq!(io_in(text), Some(Io { read: 1000, written: 4096 }));
        assert_eq!(io_in("rchar: 1000\n"), None);
    }

    #[test]
    fn memory_is_told_in_kib() {
        assert_eq!(resident_in("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t     1024 kB\n"), (1 << 20, 2 << 20));
        assert_eq!(resident_in("Name:\tkernel thread\n"), (0, 0));
    }
}
