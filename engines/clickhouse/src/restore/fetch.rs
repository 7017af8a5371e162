//! Fetches the parts of a backup into the stage and verifies them.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use backup_core::engine::{BackupSourceExt, Extract, Extracted, RestoreContext, Work};
use backup_core::entry::{EntryPath, Selector};
use backup_core::observe::Phase;
use backup_core::{Error, Finding, Result, Severity};
use futures::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;

use super::plan::{self, Content, Plan};
use super::receiver;
use super::settings::{OnExisting, RestoreSettings};
use super::stage::{Stage, Staged, StagedPart};
use crate::client::Client;
use crate::ddl::quote;
use crate::engine::{PartRecord, Stand};
use crate::files::{blocking, read_list};
use crate::layout;
use crate::part::verify::{PartFacts, Problem, Verifier};
use crate::server::{Disk, Place, Server, TableDef, TableKey, find};

/// A mutation has at most so many bytes.
const MAX_MUTATION: u64 = 16 << 20;
/// Parts that are extracted by one order: each entry is compared with all of their folders.
const BATCH_PARTS: usize = 256;

/// Fetching, and what is needed for it.
pub(super) struct Fetch<'a> {
    pub(super) cx: &'a RestoreContext,
    pub(super) client: &'a Client,
    pub(super) server: &'a Server,
    pub(super) settings: &'a RestoreSettings,
    pub(super) stage: &'a Stage,
    /// The tables of the target before anything is changed.
    pub(super) existing: &'a BTreeMap<TableKey, TableDef>,
}

/// What was fetched.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    pub(super) tables: Vec<Staged>,
    pub(super) extracted: Extracted,
    pub(super) findings: Vec<Finding>,
}

/// Parts of one table that go to one disk together.
#[derive(Debug)]
struct Batch<'d> {
    disk: &'d Disk,
    parts: Vec<PartRecord>,
}

impl Fetch<'_> {
    /// All parts of the plan, `parallel` tables at a time.
    pub(super) async fn all(&self, plan: &Plan, parallel: usize) -> Result<Fetched> {
        // Futures that nobody polls cost nothing.
        let mut tables = Vec::new();
        for (table, content) in &plan.contents {
            if !content.parts.is_empty() {
                tables.push(self.table(plan, tables.len(), table, content));
            }
        }
        let mut done = stream::iter(tables).buffer_unordered(parallel.max(1));
        let mut all = Fetched::default();
        while let Some(one) = done.try_next().await? {
            all.tables.extend(one.tables);
            all.extracted += one.extracted;
            all.findings.extend(one.findings);
        }
        Ok(all)
    }

    async fn table(&self, plan: &Plan, number: usize, table: &TableKey, content: &Content) -> Result<Fetched> {
        let mut all = Fetched::default();
        let mut parts = content.parts.clone();
        let is_patch = |part: &PartRecord| part.parsed().is_ok_and(|name| name.is_patch());
        let target = self.settings.target(table);
        let adding = self.settings.rule(&target) == OnExisting::Add;
        let joined = self.settings.joined.contains(&target);
        // Patches and mutations go by the numbers of parts, which attaching would change.
        let special = !content.mutations.is_empty() || parts.iter().any(is_patch);
        let replicated = plan.tables.iter().any(|def| def.key == *table && def.is_replicated());
        let reached = !self.stage.is_staging();
        let loaded = special && reached && content.whole && !adding && (!replicated || self.settings.unreplicated);
        if special && !loaded {
            let patches: Vec<_> = parts.extract_if(.., |part| is_patch(part)).collect();
            all.findings.extend(left_out(table, content, &patches));
        }
        if let Some(there) = receiver(plan, table, self.settings, self.existing).filter(|_| adding && !joined) {
            leave_out(&mut parts, &content.stands, self.there(&there.key).await?);
        }
        let mut staged = Staged { table: table.clone(), parts: Vec::new(), mutations: Vec::new(), loaded };
        for (index, batch) in batches(parts, self.stage.disks()).iter().enumerate() {
            self.cx.work().checkpoint()?;
            let dir = self.stage.folder(batch.disk, &format!("{number}-{index}")).await?;
            self.batch(&dir, batch, &mut staged, &mut all).await?;
        }
        for id in content.mutations.iter().filter(|_| loaded) {
            if !layout::is_mutation(id) {
                return Err(Error::damaged(format!("{id:?} is no mutation of {table}")));
            }
            let bytes = self.cx.source().read_small(&layout::mutation(table, id)?, MAX_MUTATION).await?;
            staged.mutations.push((id.clone(), bytes));
        }
        all.tables.push(staged);
        Ok(all)
    }

    async fn batch(&self, dir: &Path, batch: &Batch<'_>, staged: &mut Staged, all: &mut Fetched) -> Result<()> {
        let table = &staged.table;
        let folder = layout::table(layout::DATA, table)?;
        let order = Extract::into_dir(dir).with_folder(folder.clone()).with_selector(selector(table, &batch.parts)?);
        // Progress is told for all tables together.
        let work = self.cx.work();
        let quiet = Work::new(work.env().clone()).with_cancel(work.cancel().clone());
        let extracted = self.cx.source().extract(order, &quiet).await?;
        work.advanced(Phase::Write, extracted.bytes);
        all.extracted += extracted;
        for part in &batch.parts {
            self.cx.work().checkpoint()?;
            let path = inside(&folder, &plan::path(table, part)?)?.under(dir);
            let own = path.clone();
            let facts = blocking(move || verify(&own)).await?;
            if let Some(wrong) = wrong(part, &facts) {
                let subject = format!("{table} {}", part.name);
                if !self.settings.skip_damaged {
                    return Err(Error::damaged(format!("the part {subject} is not attached: {wrong}")));
                }
                all.findings.push(Finding::new(Severity::Warning, "part-damaged", wrong).about(subject));
                continue;
            }
            staged.parts.push(StagedPart { name: part.name.clone(), disk: batch.disk.name.clone(), path });
        }
        Ok(())
    }

    /// The hashes of the parts that a table has, each as often as it has them.
    async fn there(&self, table: &TableKey) -> Result<HashMap<String, usize>> {
        #[derive(Deserialize)]
        struct Row {
            path: String,
        }
        // The lists of parts on object disks are objects. Servers that have such disks tell the hashes.
        if self.stage.is_staging() || self.server.disks.iter().any(|disk| disk.place == Place::Objects) {
            return self.told(table).await;
        }
        let sql = format!(
            "SELECT path FROM system.parts WHERE active AND database = {} AND table = {}",
            quote::string(&table.database),
            quote::string(&table.name)
        );
        let rows: Vec<Row> = self.client.rows("the parts of a table", &sql).await?;
        let dirs: Vec<_> = rows
            .iter()
            .filter_map(|row| find(&self.server.disks, row.path.trim_end_matches('/')))
            .map(|(disk, below)| disk.dir.join(below))
            .collect();
        blocking(move || {
            let mut there = HashMap::new();
            for dir in dirs {
                // A part that was merged away meanwhile is none, and one that is damaged is no part that is wanted.
                if let Some(Ok(list)) = read_list(&dir)? {
                    *there.entry(list.hash_of_all_files().to_string()).or_insert(0) += 1;
                }
            }
            Ok(there)
        })
        .await
    }
}

impl Fetch<'_> {
    /// The same, as the server tells it.
    async fn told(&self, table: &TableKey) -> Result<HashMap<String, usize>> {
        #[derive(Deserialize)]
        struct Row {
            hash: String,
        }
        let sql = format!(
            "SELECT lower(hash_of_all_files) AS hash FROM system.parts WHERE active AND database = {} AND table = {}",
            quote::string(&table.database),
            quote::string(&table.name)
        );
        let mut there = HashMap::new();
        for row in self.client.rows::<Row>("the parts of a table", &sql).await? {
            *there.entry(row.hash).or_insert(0) += 1;
        }
        Ok(there)
    }
}

/// What is not brought back where parts get other numbers.
fn left_out(table: &TableKey, content: &Content, patches: &[PartRecord]) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !content.mutations.is_empty() {
        let text = format!(
            "mutations that had not come to their end are not run again: {}; they come back when the whole table does, into a new one \
             that is not replicated",
            content.mutations.join(", ")
        );
        findings.push(Finding::new(Severity::Warning, "mutation-left-out", text).about(table.to_string()));
    }
    if !patches.is_empty() {
        let text = "what lightweight updates changed, and was not applied yet, is missing; it comes back when the whole table does, \
                    into a new one that is not replicated";
        findings.push(Finding::new(Severity::Warning, "patch-left-out", text).about(table.to_string()));
    }
    findings
}

/// Leaves out parts that are there already, also as what they were merged to.
fn leave_out(parts: &mut Vec<PartRecord>, stands: &[Stand], mut there: HashMap<String, usize>) {
    for stand in stands {
        let whole = stand.parts.iter().all(|name| parts.iter().any(|part| part.name == *name));
        if let Some(count) = there.get_mut(&stand.hash).filter(|count| whole && **count > 0) {
            *count -= 1;
            parts.retain(|part| !stand.parts.contains(&part.name));
        }
    }
    parts.retain(|part| match there.get_mut(&part.hash) {
        Some(count) if *count > 0 => {
            *count -= 1;
            false
        }
        _ => true,
    });
}

/// Which parts go together: those of a disk of the same name as before where the server has it, else of the one that is always there.
fn batches(parts: Vec<PartRecord>, disks: &[Disk]) -> Vec<Batch<'_>> {
    let mut batches: Vec<Batch<'_>> = Vec::new();
    for part in parts {
        let local = disks.iter().filter(|disk| disk.place == Place::Local);
        let Some(disk) = local.clone().find(|disk| disk.name == part.disk).or_else(|| disks.first()) else { continue };
        match batches.last_mut().filter(|batch| batch.disk == disk && batch.parts.len() < BATCH_PARTS) {
            Some(batch) => batch.parts.push(part),
            None => batches.push(Batch { disk, parts: vec![part] }),
        }
    }
    batches
}

/// The folders of the parts.
fn selector(table: &TableKey, parts: &[PartRecord]) -> Result<Selector> {
    let paths: Result<Vec<EntryPath>> = parts.iter().map(|part| plan::path(table, part)).collect();
    Ok(Selector::within(paths?))
}

fn inside(folder: &EntryPath, path: &EntryPath) -> Result<EntryPath> {
    path.inside(folder).ok_or_else(|| Error::internal(format!("{path} is not in {folder}")))
}

/// Reads a part that was extracted. Blocking.
fn verify(dir: &Path) -> Result<PartFacts> {
    let mut verifier = Verifier::new();
    let mut buffer = vec![0; 256 << 10];
    let mut folders = vec![(dir.to_owned(), String::new())];
    while let Some((dir, below)) = folders.pop() {
        let failed = |error| Error::io(dir.display(), error);
        for entry in std::fs::read_dir(&dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = format!("{below}{}", entry.file_name().to_string_lossy());
            if entry.file_type().map_err(failed)?.is_dir() {
                folders.push((entry.path(), format!("{name}/")));
                continue;
            }
            let mut file = File::open(entry.path()).map_err(failed)?;
            verifier.file(&name, file.metadata().map_err(failed)?.len());
            loop {
                match file.read(&mut buffer).map_err(failed)? {
                    0 => break,
                    read => verifier.bytes(buffer.get(..read).unwrap_or_default()),
                }
            }
        }
    }
    Ok(verifier.finish())
}

/// Why a part must not be attached, and which file it is.
pub(crate) fn wrong(part: &PartRecord, facts: &PartFacts) -> Option<String> {
    // Every release has another small file that is in no list. One that came with the part hurts nobody.
    let hurts = |finding: &&crate::part::verify::Finding| finding.problem != Problem::Unlisted;
    if let Some(finding) = facts.findings.iter().find(hurts) {
        return Some(finding.to_string());
    }
    let hash = facts.hash_of_all_files.map(|hash| hash.to_string());
    let other = !part.hash.is_empty() && hash.as_deref() != Some(part.hash.as_str());
    other.then(|| format!("its files are those of another part: {} instead of {}", hash.unwrap_or_default(), part.hash))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn part(name: &str, disk: &str) -> PartRecord {
        PartRecord { name: name.to_owned(), disk: disk.to_owned(), hash: name.to_owned(), ..PartRecord::default() }
    }

    fn disk(name: &str) -> Disk {
        Disk { name: name.to_owned(), path: format!("/{name}/"), dir: PathBuf::from("/"), place: Place::Local }
    }

    #[test]
    fn parts_go_to_their_disks_in_order_and_not_too_many_at_a_time() {
        let disks = [disk("hot"), disk("cold")];
        let parts = vec![part("1", "hot"), part("2", "elsewhere"), part("3", "cold"), part("4", "hot")];
        let all = batches(parts, &disks);
        let told: Vec<_> = all
            .iter()
            .map(|batch| {
                (batch.disk.name.as_str(), batch.parts.iter().map(|part| part.name.as_str()).collect::<Vec<_>>())
            })
            .collect();
        assert_eq!(told, [("hot", vec!["1", "2"]), ("cold", vec!["3"]), ("hot", vec!["4"])]);
        let many = (0..1000).map(|number| part(&number.to_string(), "hot")).collect();
        assert!(batches(many, &disks).iter().all(|batch| batch.parts.len() <= BATCH_PARTS));
    }

    #[test]
    fn parts_that_are_there_are_left_out_as_often_as_they_are() {
        let mut parts = vec![part("a", ""), part("b", ""), part("a", ""), part("a", "")];
        leave_out(&mut parts, &[], HashMap::from([("a".to_owned(), 2), ("c".to_owned(), 1)]));
        assert_eq!(parts.iter().map(|part| part.name.as_str()).collect::<Vec<_>>(), ["b", "a"]);
    }

    #[test]
    fn parts_that_are_there_as_one_are_left_out() {
        let stand = |parts: &[&str]| Stand {
            hash: "merged".to_owned(),
            parts: parts.iter().map(|name| (*name).to_owned()).collect(),
            ..Stand::default()
        };
        let there = HashMap::from([("merged".to_owned(), 1)]);
        let all = vec![part("a", ""), part("b", ""), part("c", "")];
        let names = |parts: &[PartRecord]| parts.iter().map(|part| part.name.clone()).collect::<Vec<_>>();
        let mut parts = all.clone();
        leave_out(&mut parts, &[stand(&["a", "b"])], there.clone());
        assert_eq!(names(&parts), ["c"]);
        let mut parts = all[1..].to_vec();
        leave_out(&mut parts, &[stand(&["a", "b"])], there);
        assert_eq!(names(&parts), ["b", "c"], "of the others it is not known");
    }
}
