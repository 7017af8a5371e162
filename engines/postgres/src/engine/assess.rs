//! Why a restore would be refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use backup_core::engine::RestoreContext;
use backup_core::entry::Selector;
use backup_core::{Error, Finding, Result, Severity};

use super::facts::Facts;
use super::settings::{PostgresSettings, Replay};
use super::target::{self, Contents, State};

fn blocker(code: &str, dir: &Path, text: impl Into<String>) -> Finding {
    Finding::new(Severity::Blocker, code, text).about(dir.display().to_string())
}

/// Looks at the target of a restore.
pub(super) async fn assess(settings: &PostgresSettings, cx: &RestoreContext) -> Result<Vec<Finding>> {
    let dir = settings.data_dir.clone().ok_or_else(|| Error::invalid("a restore needs the data directory to write"))?;
    if !dir.is_absolute() {
        return Err(Error::invalid(format!("{} is not an absolute path", dir.display())));
    }
    if !cx.selector().is_all() {
        return Err(Error::invalid("a PostgreSQL cluster is restored as a whole: nothing can be selected"));
    }
    let record = cx.source().record();
    let facts = Facts::of(&record.snapshot)?;
    let placed = target::place(settings, &facts.tablespaces, &dir)?;
    let supply = super::restore::supply(cx, &facts).await?;
    let log = match &supply {
        Some(supply) if settings.replay == Replay::Files => {
            supply.segments()?.len() as u64 * supply.segment_size().bytes()
        }
        _ => 0,
    };
    let mut needs = vec![(dir.clone(), cx.source().footprint(cx.selector()).await?.bytes + log)];
    for tablespace in &placed {
        let bytes = cx.source().footprint(&Selector::within([tablespace.entry()?])).await?.bytes;
        needs[0].1 = needs[0].1.saturating_sub(bytes);
        needs.push((tablespace.dir.clone(), bytes));
    }
    let (delta, id) = (settings.delta, record.id);
    let looked = tokio::task::spawn_blocking(move || -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        let state = target::state(&dir)?;
        match &state {
            State::Free => {}
            State::Interrupted(of) if delta || *of == Some(id) => {
                let text = "an interrupted restore is completed: what is already right is not fetched again";
                findings.push(Finding::new(Severity::Note, "resume", text).about(dir.display().to_string()));
            }
            State::Interrupted(_) => {
                findings.push(blocker(
                    "not-empty",
                    &dir,
                    "holds an interrupted restore of another backup; restore with delta",
                ));
            }
            State::Cluster(of) if delta => match of {
                Some(id) if *id != facts.system_id => {
                    let text = format!("holds another cluster, with system identifier {id}, not {}", facts.system_id);
                    findings.push(blocker("other-cluster", &dir, text));
                }
                _ => {}
            },
            State::Cluster(_) => {
                findings.push(blocker(
                    "not-empty",
                    &dir,
                    "holds a cluster; choose an empty directory or restore with delta",
                ));
            }
            State::Other => findings.push(blocker("not-empty", &dir, "is not empty and holds no cluster")),
        }
        if let Some(pid) = target::running(&dir) {
            findings
                .push(blocker("running", &dir, format!("a server is running in it, with pid {pid}")).in_surroundings());
        }
        permissions(&dir, &mut findings);
        for tablespace in &placed {
            permissions(&tablespace.dir, &mut findings);
            let oid = tablespace.oid;
            let text = match target::contents(tablespace, &dir, facts.major)? {
                Contents::Own if state != State::Free => continue,
                Contents::Free => continue,
                Contents::Own => {
                    format!("tablespace {oid} cannot be restored into it: it is not empty; map it elsewhere")
                }
                Contents::Foreign(name) => {
                    let name = name.display();
                    format!("tablespace {oid} cannot be restored into it: it holds {name}; map it elsewhere")
                }
            };
            findings.push(blocker("not-empty", &tablespace.dir, text));
        }
        // What an existing directory has already cannot be told before it is compared; a full disk later loses nothing.
        if state == State::Free {
            space(&needs, &mut findings);
        }
        Ok(findings)
    });
    looked.await.map_err(|e| Error::internal("looking at the target panicked").with_source(e))?
}

/// Bytes that are missing, by device: tablespaces mostly share the file system.
fn space(needs: &[(PathBuf, u64)], findings: &mut Vec<Finding>) {
    let mut devices: BTreeMap<u64, (u64, u64, &Path)> = BTreeMap::new();
    for (dir, bytes) in needs {
        if let Some((device, free)) = target::free_bytes(dir) {
            devices.entry(device).or_insert((free, 0, dir)).1 += bytes;
        }
    }
    for (free, bytes, dir) in devices.into_values() {
        if free < bytes {
            let text = format!("has {free} bytes free, the backup needs {bytes}");
            findings.push(blocker("no-space", dir, text).in_surroundings());
        }
    }
}

fn permissions(dir: &Path, findings: &mut Vec<Finding>) {
    let uid = rustix::process::geteuid().as_raw();
    let owner = target::owner(dir);
    if let Some((owner, _)) = owner
        && uid != 0
        && owner != uid
    {
        let text = format!("belongs to uid {owner}, this process runs as uid {uid}");
        findings.push(blocker("wrong-owner", dir, text).in_surroundings());
    }
    if uid == 0 && owner.is_none_or(|(owner, _)| owner == 0) {
        let text = "will belong to root, which PostgreSQL refuses to run as: create it for the server's account first, or chown it";
        findings.push(Finding::new(Severity::Warning, "owned-by-root", text).about(dir.display().to_string()));
    }
}
