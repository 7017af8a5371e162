//! The way back of a cluster: key by key into one of any size, or as files of its members.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use backup_core::engine::members::{each_member, wanted_members};
use backup_core::engine::{RestoreContext, Restored, Work};
use backup_core::observe::{Observer, Phase, Progress, Unit};
use backup_core::{Error, Finding, MemberName, Result, Severity};

use super::RedisCluster;
use super::layout::Layout;
use crate::engine::facts;
use crate::engine::settings::Persistence;
use crate::restore::{self, ReplaySettings, RestoreSettings, Way, blocking};

/// Where the files of the members lie until all of them are whole.
const PARTIAL: &str = ".restore.partial";

/// The members that are wanted, each with the context of its restore.
type Members = Vec<(MemberName, RestoreContext)>;

/// Why a restore would be refused.
pub(super) async fn assess(engine: &RedisCluster, cx: &RestoreContext) -> Result<Vec<Finding>> {
    let refused = |code: &str, text: &str| Finding::new(Severity::Blocker, code, text);
    let mut findings = Vec::new();
    if engine.settings.persistence == Persistence::Off {
        findings.push(refused("persistence-off", "the data of this cluster are not kept"));
    }
    let members = wanted_members(cx).await?;
    if let Some((name, _)) = members.iter().find(|(_, member)| !member.selector().is_all()) {
        let text = "a member is one file: which keys are wanted is said by rules";
        findings.push(refused("selection", text).about(name.to_string()));
    }
    match engine.way() {
        None => findings.push(refused("no-data-directory", "nothing says where the members go")),
        Some(settings) if findings.is_empty() => findings.extend(assess_way(&settings, &members).await?),
        Some(_) => {}
    }
    Ok(findings)
}

async fn assess_way(settings: &RestoreSettings, members: &Members) -> Result<Vec<Finding>> {
    match &settings.way {
        Way::Live(_) => {
            let text = "a node of a cluster follows no primary outside of it, so it cannot be given a snapshot as a replica is: \
                restore key by key, or into files";
            Ok(vec![Finding::new(Severity::Blocker, "cluster-live", text)])
        }
        Way::Files(dir) => {
            let mut findings = occupied(dir).await?;
            findings.extend(members.iter().filter_map(|(name, member)| {
                let slots = member.source().record().snapshot.fact(facts::SLOTS)?;
                let text = format!(
                    "it had the slots {slots}: a node that is started on its folder takes those of its keys, CLUSTER ADDSLOTS gives it the others"
                );
                Some(Finding::new(Severity::Note, "member-slots", text).about(name.to_string()))
            }));
            Ok(findings)
        }
        Way::Replay(replay) => {
            let mut findings = match members.first() {
                Some((_, member)) => restore::assess(settings, member).await?,
                None => Vec::new(),
            };
            match Layout::ask(&replay.target).await {
                Ok(layout) => findings.extend(layout.findings),
                // All members may as well go into one server that is no cluster.
                Err(crate::Error::Server { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            Ok(findings)
        }
    }
}

/// Restores the members.
pub(super) async fn restore(engine: &RedisCluster, cx: &RestoreContext) -> Result<Restored> {
    let findings = assess(engine, cx).await?;
    if let Some(finding) = findings.iter().find(|finding| finding.severity == Severity::Blocker) {
        return Err(finding.refusal("the restore"));
    }
    let settings = engine.way().ok_or_else(|| Error::invalid("nothing says where the members go"))?;
    let members = wanted_members(cx).await?;
    let mut restored = match &settings.way {
        Way::Replay(replay) => keys(&settings, replay, &members, cx.work()).await?,
        Way::Files(dir) => files(&settings, dir, members, cx.work()).await?,
        Way::Live(_) => return Err(Error::invalid("a node of a cluster is given no snapshot")),
    };
    restored.findings.splice(0..0, findings);
    Ok(restored)
}

async fn keys(settings: &RestoreSettings, replay: &ReplaySettings, members: &Members, work: &Work) -> Result<Restored> {
    let sources: Vec<_> = members.iter().map(|(_, member)| Arc::clone(member.source())).collect();
    restore::replay_all(settings, replay, &sources, work).await
}

/// Writes every member into a folder of its own. They appear when all are whole.
async fn files(settings: &RestoreSettings, dir: &Path, members: Members, work: &Work) -> Result<Restored> {
    let staging = Staging::make(dir, &members).await?;
    let total = members.iter().map(|(_, member)| member.source().record().data_bytes).sum();
    work.started(Phase::Write, Some(total), Unit::Bytes);
    let quiet = Work::new(work.env().clone())
        .with_cancel(work.cancel().clone())
        .with_observer(Arc::new(Together(Arc::clone(work.observer()))));
    let parts = each_member(members, None, |name, member| {
        let way = Way::Files(staging.partial.join(name.as_str()));
        let settings = RestoreSettings { way, ..settings.clone() };
        let cx = RestoreContext::new(quiet.clone(), Arc::clone(member.source()), member.target().clone());
        async move { restore::restore(&settings, &cx).await }
    });
    let mut restored = Restored::default();
    for part in parts.await? {
        restored.extracted += part.extracted;
        let new = part.findings.into_iter().filter(|finding| !restored.findings.contains(finding));
        let new: Vec<_> = new.collect();
        restored.findings.extend(new);
    }
    staging.finish().await?;
    work.ended(Phase::Write);
    Ok(restored)
}

/// Several members report one phase: it begins and ends once, and what is only looked at does not count.
#[derive(Debug)]
struct Together(Arc<dyn Observer>);

impl Observer for Together {
    fn on(&self, progress: &Progress) {
        if matches!(progress, Progress::Advanced { phase: Phase::Write, .. } | Progress::Found(_)) {
            self.0.on(progress);
        }
    }
}

/// Says what stands in the way of the members' folders.
async fn occupied(dir: &Path) -> Result<Vec<Finding>> {
    let dir = dir.to_owned();
    let found = blocking(move || match fs::read_dir(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Ok(Some(("data-directory", format!("{} is not a directory", dir.display()))))
        }
        Err(error) => Err(error),
        Ok(entries) => {
            for entry in entries {
                let name = entry?.file_name();
                // What is not whole yet is made anew.
                if name != PARTIAL {
                    let text = format!("{} has a {} already", dir.display(), name.display());
                    return Ok(Some(("data-directory-in-use", text)));
                }
            }
            Ok(None)
        }
    });
    Ok(found.await?.into_iter().map(|(code, text)| Finding::new(Severity::Blocker, code, text)).collect())
}

/// The folders of the members while they are written. They go when they are not finished.
#[derive(Debug)]
struct Staging {
    dir: PathBuf,
    partial: PathBuf,
    names: Vec<String>,
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Nothing is left of it when it was finished; what else stays is removed by the next restore.
        let _ = fs::remove_dir_all(&self.partial);
    }
}

impl Staging {
    async fn make(dir: &Path, members: &Members) -> Result<Self> {
        let names: Vec<_> = members.iter().map(|(name, _)| name.to_string()).collect();
        let staging = Self { dir: dir.to_owned(), partial: dir.join(PARTIAL), names: names.clone() };
        let (dir, partial) = (staging.dir.clone(), staging.partial.clone());
        blocking(move || {
            fs::create_dir_all(&dir)?;
            match fs::remove_dir_all(&partial) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            fs::create_dir(&partial)?;
            names.iter().try_for_each(|name| folder(&partial.join(name), &dir))
        })
        .await?;
        Ok(staging)
    }

    /// Puts the folders to where they belong.
    async fn finish(&self) -> Result<()> {
        let Self { dir, partial, names } = self;
        let (dir, partial, names) = (dir.clone(), partial.clone(), names.clone());
        blocking(move || {
            for name in &names {
                fs::File::open(partial.join(name))?.sync_all()?;
                fs::rename(partial.join(name), dir.join(name))?;
            }
            fs::remove_dir(&partial)?;
            fs::File::open(&dir)?.sync_all()
        })
        .await
    }
}

/// A new folder that whoever owns `like` owns, too: that is the servers' account.
fn folder(path: &Path, like: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
    fs::DirBuilder::new().mode(0o700).create(path)?;
    let (wanted, has) = (fs::metadata(like)?, fs::metadata(path)?);
    if (wanted.uid(), wanted.gid()) != (has.uid(), has.gid()) {
        std::os::unix::fs::chown(path, Some(wanted.uid()), Some(wanted.gid()))?;
    }
    Ok(())
}
