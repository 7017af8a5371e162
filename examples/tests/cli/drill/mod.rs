//! Drills: what they prove, what they find, and that nothing of them stays.

mod killed;
mod postgres;
mod redis;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use backup_testkit::{scratch_dir, unprivileged};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Ran, Vault};

/// A place for scratch instances, and a vault whose backups are proven there.
pub(crate) struct Range {
    pub(crate) vault: Vault,
    pub(crate) scratch: TempDir,
}

impl Range {
    async fn open() -> Self {
        Self { vault: Vault::created().await, scratch: scratch_dir().unwrap() }
    }

    /// The arguments of a drill.
    fn args(&self, engine: &str, more: &[&str]) -> Vec<String> {
        let scratch = format!("--scratch={}", self.scratch.path().display());
        let mut args: Vec<String> = ["drill", engine, &scratch].map(str::to_owned).into();
        if unprivileged().drops_root() {
            let account = std::env::var("BACKUP_TESTKIT_USER").unwrap_or_else(|_| "nobody".to_owned());
            args.push(format!("--run-as={account}"));
        }
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        args
    }

    async fn run(&self, engine: &str, more: &[&str]) -> Ran {
        let args = self.args(engine, &[&["--json"], more].concat());
        let ran = self.vault.run(&args.iter().map(String::as_str).collect::<Vec<_>>()).await;
        assert_eq!(self.left(), [""; 0], "nothing stays: {ran:?}");
        ran
    }

    /// A drill that passes and writes one object, its record.
    async fn passes(&self, engine: &str, more: &[&str]) -> Value {
        let before: BTreeSet<PathBuf> = self.vault.objects("").into_iter().collect();
        let ran = self.run(engine, more).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        let after: BTreeSet<PathBuf> = self.vault.objects("").into_iter().collect();
        let written: Vec<_> = after.difference(&before).collect();
        assert!(written.len() == 1 && written[0].display().to_string().contains("/catalog/"), "{written:?}");
        assert_eq!(before.difference(&after).count(), 0, "nothing is removed");
        let record = ran.json();
        assert_eq!((&record["outcome"], &record["problem"]), (&Value::from("passed"), &Value::Null), "{record}");
        record
    }

    /// What is in the place for scratch instances.
    fn left(&self) -> Vec<String> {
        names(self.scratch.path())
    }
}

fn names(dir: &Path) -> Vec<String> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The check of this name.
#[track_caller]
fn check<'a>(record: &'a Value, name: &str) -> &'a Value {
    let checks = record["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no check {name}: {record}"))
}

/// What a check has counted.
#[track_caller]
fn figure(record: &Value, name: &str, what: &str) -> u64 {
    check(record, name)["figures"][what].as_u64().unwrap_or_else(|| panic!("no {what} of {name}: {record}"))
}
