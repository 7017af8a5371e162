//! What there should be, by the catalogs of the restored server, and whether its files are there.

use std::collections::HashMap;

use backup_core::catalog::{DrillCheck, DrillOutcome};
use backup_core::engine::Examined;
use backup_core::{Finding, Result, Severity};

use super::instance::Instance;

/// The names of relations, by the path of their first file below the data directory: `base/5/16384`.
pub(super) type Names = HashMap<String, String>;

/// The databases that can be entered, in the order of their names.
pub(super) async fn databases(instance: &Instance) -> Result<Vec<String>> {
    let mut session = instance.session("template1").await?;
    let rows = session.query("SELECT datname FROM pg_database WHERE datallowconn ORDER BY datname").await?;
    session.close().await;
    rows.iter().map(|row| Ok(row.required("datname")?.to_owned())).collect()
}

/// Looks for the file of every relation, and notes their names.
pub(super) async fn check(
    instance: &Instance,
    databases: &[String],
    names: &mut Names,
    examined: &mut Examined,
) -> Result<()> {
    // What belongs to a session of the source is gone with it.
    const RELATIONS: &str = "SELECT n.nspname || '.' || c.relname AS name, pg_relation_filepath(c.oid) AS path, \
         (pg_stat_file(pg_relation_filepath(c.oid), true)).size IS NULL AS missing \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'i', 't', 'm', 'S') AND c.relpersistence <> 't' AND pg_relation_filepath(c.oid) IS NOT NULL \
         ORDER BY c.oid";
    let (mut relations, mut missing) = (0_u64, Vec::new());
    for database in databases {
        let mut session = instance.session(database).await?;
        for row in session.query(RELATIONS).await? {
            let name = format!("{database}.{}", row.required("name")?);
            let path = row.required("path")?;
            relations += 1;
            if row.required("missing")? == "t" {
                missing.push((name.clone(), path.to_owned()));
            }
            // Those that all databases share are the same in each.
            names.entry(path.to_owned()).or_insert(name);
        }
        session.close().await;
    }
    let mut check = DrillCheck::passed("relations")
        .counted("databases", databases.len() as u64)
        .counted("relations", relations)
        .counted("missing", missing.len() as u64);
    for (name, path) in missing {
        let text = format!("its file {path} is missing");
        check = check.failed(format!("{name}: {text}"));
        examined.wrong(DrillOutcome::Damaged, format!("{name}: {text}"));
        examined.findings.push(Finding::new(Severity::Blocker, "missing-file", text).about(name));
    }
    examined.checks.push(check);
    Ok(())
}
