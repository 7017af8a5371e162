//! A toy engine: a deployment is a directory of files. It "runs" when it has a file `IDENTITY` (its identity and its version,
//! a line each) and no restore is under way.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::conformance::engine::{EngineHarness, EngineTarget};
use backup_core::engine::{
    BackupContext, CheckContext, CheckReport, Deployment, EngineDescriptor, Existing, Extract, LocalFile,
    RestoreContext, Restored,
};
use backup_core::entry::{EntryMeta, EntryPath, Selector};
use backup_core::env::Env;
use backup_core::repository::{MemoryRepository, Repository};
use backup_core::{
    BackupEngine, BackupSinkExt, BackupSourceExt, Consistency, Error, Finding, Result, ServiceId, Severity, Snapshot,
};
use futures::TryStreamExt;

/// What makes a directory a deployment; written last.
const IDENTITY: &str = "IDENTITY";
/// Says which backup is being restored here.
const MARKER: &str = ".restoring";

static DESCRIPTOR: EngineDescriptor =
    EngineDescriptor::new("directory", "Directory of files", Consistency::PerPart, "paths inside the directory");

/// A way to be wrong that the suite must notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Leaves out a file of the backup.
    Forgets,
    /// Restores over whatever is there.
    Overwrites,
    /// Writes what makes a deployment run along with the rest, and without saying that a restore is under way.
    StartsEarly,
    /// Takes its own unfinished restore for somebody's data.
    CannotResume,
    /// Calls a directory that is not there an empty deployment.
    Invents,
    /// Has another name for the source in its snapshots than in its inspections.
    Renames,
    /// Checks nothing.
    ChecksNothing,
    /// Ignores errors of the content while it checks.
    ChecksBlindly,
}

#[derive(Debug)]
pub(crate) struct DirectoryEngine {
    dir: PathBuf,
    fault: Option<Fault>,
}

impl fmt::Display for DirectoryEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "directory({})", self.dir.display())
    }
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> Error + '_ {
    move |e| Error::io(path.display(), e)
}

fn path(name: &str) -> EntryPath {
    EntryPath::new(name).unwrap()
}

/// The files below `dir`, sorted.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(&folder).map_err(io(&folder))? {
            let item = item.map_err(io(&folder))?.path();
            if item.is_dir() { folders.push(item) } else { found.push(item) }
        }
    }
    found.sort();
    Ok(found)
}

impl DirectoryEngine {
    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }
}

#[async_trait]
impl BackupEngine for DirectoryEngine {
    fn descriptor(&self) -> &EngineDescriptor {
        &DESCRIPTOR
    }

    async fn inspect(&self) -> Result<Deployment> {
        let identity = self.dir.join(IDENTITY);
        if self.has(Fault::Invents) && !identity.exists() {
            return Ok(Deployment::new("nothing", "0", "local"));
        }
        let text = fs::read_to_string(&identity).map_err(io(&identity))?;
        let (source, version) = text.split_once('\n').ok_or_else(|| Error::damaged("the identity has one line"))?;
        Ok(Deployment::new(source, version.trim(), "local"))
    }

    async fn backup(&self, cx: &BackupContext) -> Result<Snapshot> {
        let started = cx.work().env().now();
        let deployment = self.inspect().await?;
        let mut locals = Vec::new();
        for file in files(&self.dir)? {
            let name = EntryPath::relative(&self.dir, &file)?;
            if !(self.has(Fault::Forgets) && name.as_bytes().ends_with(b"0")) {
                locals.push(LocalFile::new(file, EntryMeta::file(name)));
            }
        }
        cx.sink().put_files(locals, |_, _| Ok(())).await?;
        cx.sink().put_bytes(EntryMeta::record(path("about")), deployment.source.clone().into()).await?;
        let source = if self.has(Fault::Renames) { "somebody".to_owned() } else { deployment.source };
        let times = (started, cx.work().env().now());
        Ok(Snapshot::new(DESCRIPTOR.name, deployment.version, source, "local", DESCRIPTOR.consistency, times))
    }

    async fn assess_restore(&self, cx: &RestoreContext) -> Result<Vec<Finding>> {
        let mut found = fs::read_dir(&self.dir).map_err(io(&self.dir))?;
        let marker = fs::read_to_string(self.dir.join(MARKER)).ok();
        let own = marker == Some(cx.source().record().id.to_string()) && !self.has(Fault::CannotResume);
        if found.next().is_none() || own || self.has(Fault::Overwrites) {
            return Ok(Vec::new());
        }
        let message = "the directory is not empty";
        Ok(vec![Finding::new(Severity::Blocker, "not-empty", message).about(self.dir.display().to_string())])
    }

    async fn restore(&self, cx: &RestoreContext) -> Result<Restored> {
        if let Some(blocker) = self.assess_restore(cx).await?.first() {
            return Err(Error::invalid(blocker.to_string()));
        }
        let marker = self.dir.join(MARKER);
        let mut order = Extract::into_dir(&self.dir)
            .with_existing(Existing::Delta)
            .with_selector(cx.selector().clone())
            .with_keep([path(MARKER)]);
        if !self.has(Fault::StartsEarly) {
            fs::write(&marker, cx.source().record().id.to_string()).map_err(io(&marker))?;
            order = order.with_last([path(IDENTITY)]);
        }
        let extracted = cx.source().extract(order, cx.work()).await?;
        if marker.exists() {
            fs::remove_file(&marker).map_err(io(&marker))?;
        }
        Ok(Restored::new(extracted))
    }

    async fn check(&self, cx: &CheckContext) -> Result<CheckReport> {
        let mut report = CheckReport::default();
        if self.has(Fault::ChecksNothing) {
            return Ok(report);
        }
        let mut entries = cx.source().entries(Selector::all());
        while let Some(entry) = entries.try_next().await? {
            match cx.source().read_small(&entry.meta.path, u64::MAX).await {
                Ok(content) => report.bytes += content.len() as u64,
                Err(_) if self.has(Fault::ChecksBlindly) => {}
                Err(error) => return Err(error),
            }
            report.entries += 1;
        }
        if cx.source().entry(&path(IDENTITY)).await?.is_none() {
            report.findings.push(Finding::new(Severity::Blocker, "no-identity", "the backup has no identity"));
        }
        Ok(report)
    }
}

/// Directories on disk and repositories in memory.
pub(crate) struct Directories {
    env: Env,
    live: tempfile::TempDir,
    fault: Option<Fault>,
}

impl Directories {
    pub(crate) fn new(fault: Option<Fault>) -> Self {
        let live = tempfile::tempdir().unwrap();
        fs::write(live.path().join(IDENTITY), "deployment-1\n1.0\n").unwrap();
        fs::create_dir(live.path().join("data")).unwrap();
        for n in 0..6 {
            fs::write(live.path().join(format!("data/{n}")), vec![b'0' + n; 300_000]).unwrap();
        }
        Self { env: Env::seeded(3), live, fault }
    }
}

/// Of names and contents, unless the directory does not "run".
fn digest(dir: &Path) -> Option<String> {
    if !dir.join(IDENTITY).exists() || dir.join(MARKER).exists() {
        return None;
    }
    let mut digest = String::new();
    for file in files(dir).unwrap() {
        let content = fs::read(&file).unwrap();
        let sum = content.iter().fold(0_u64, |sum, b| sum.wrapping_mul(31).wrapping_add(u64::from(*b)));
        digest += &format!("{} {} {sum:x}\n", file.strip_prefix(dir).unwrap().display(), content.len());
    }
    Some(digest)
}

#[async_trait]
impl EngineHarness for Directories {
    fn env(&self) -> Env {
        self.env.clone()
    }

    async fn repository(&self) -> Arc<dyn Repository> {
        Arc::new(MemoryRepository::new(ServiceId::new("directory").unwrap()))
    }

    async fn engine(&self) -> Arc<dyn BackupEngine> {
        Arc::new(DirectoryEngine { dir: self.live.path().to_owned(), fault: self.fault })
    }

    async fn mutate(&self, step: u32) {
        let file = self.live.path().join(format!("data/{}", step % 6));
        let mut content = fs::read(&file).unwrap();
        let at = step as usize * 7919 % content.len();
        content[at] = content[at].wrapping_add(1);
        content.extend_from_slice(format!("step {step}").as_bytes());
        fs::write(&file, content).unwrap();
    }

    async fn digest(&self) -> String {
        digest(self.live.path()).unwrap()
    }

    async fn target(&self) -> Box<dyn EngineTarget> {
        Box::new(Target { dir: tempfile::tempdir().unwrap(), fault: self.fault })
    }

    async fn unreachable(&self) -> Option<Arc<dyn BackupEngine>> {
        Some(Arc::new(DirectoryEngine { dir: self.live.path().join("missing"), fault: self.fault }))
    }
}

struct Target {
    dir: tempfile::TempDir,
    fault: Option<Fault>,
}

#[async_trait]
impl EngineTarget for Target {
    fn engine(&self) -> Arc<dyn BackupEngine> {
        Arc::new(DirectoryEngine { dir: self.dir.path().to_owned(), fault: self.fault })
    }

    async fn digest(&self) -> Option<String> {
        digest(self.dir.path())
    }
}
