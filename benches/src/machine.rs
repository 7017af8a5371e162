//! What the figures were measured on.

use std::path::Path;

use crate::contenders::processors;

/// A machine, as far as it tells of itself.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Machine {
    pub(crate) processors: usize,
    pub(crate) model: String,
    pub(crate) memory_mb: u64,
    pub(crate) kernel: String,
    /// Of the directory that everything is written to.
    pub(crate) file_system: String,
    /// Whether the bench was built with optimisation: figures of one that was not say nothing.
    pub(crate) optimised: bool,
    /// Processes that wanted to run when it began: other work disturbs.
    pub(crate) load: String,
}

impl Machine {
    pub(crate) fn here(dir: &Path) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.map(|rest| rest.trim_start_matches([' ', '\t', ':']).to_owned()).unwrap_or_default()
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let kib = memory.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0);
        Self {
            processors: processors(),
            model: field(&read("/proc/cpuinfo"), "model name"),
            memory_mb: kib * 1024 / 1_000_000,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            file_system: file_system(&read("/proc/mounts"), &dir.canonicalize().unwrap_or_else(|_| dir.to_owned())),
            optimised: !cfg!(debug_assertions),
            load: read("/proc/loadavg").split_whitespace().next().unwrap_or_default().to_owned(),
        }
    }

    pub(crate) fn text(&self) -> String {
        let Self { processors, model, memory_mb, kernel, file_system, load, .. } = self;
        let built = if self.optimised {
            ""
        } else {
            " **The bench was built without optimisation: these figures say nothing.**"
        };
        let memory = *memory_mb as f64 / 1000.0;
        format!(
            "{processors} processors ({model}), {memory:.1} GB of memory, Linux {kernel}, {file_system}, load {load} at the beginning.{built}"
        )
    }
}

/// The type of the file system of the longest mount point above `dir`, by a table of mounts (fstab(5)).
fn file_system(mounts: &str, dir: &Path) -> String {
    let all = mounts.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        Some((Path::new(fields.next()?), fields.next()?))
    });
    let above = all.filter(|(point, _)| dir.starts_with(point));
    above.max_by_key(|(point, _)| point.as_os_str().len()).map(|(_, kind)| kind.to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_mount_counts() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmpdir xfs rw 0 0\n";
        assert_eq!(file_system(mounts, Path::new("/tmp/x")), "tmpfs");
        assert_eq!(file_system(mounts, Path::new("/tmpd")), "ext4");
        assert_eq!(file_system("", Path::new("/")), "");
    }
}
