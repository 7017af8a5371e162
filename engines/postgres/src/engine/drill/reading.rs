//! Every row of every table, read and digested.

use backup_core::catalog::{DrillCheck, DrillOutcome};
use backup_core::engine::{Examined, Work};
use backup_core::observe::{Phase, Unit};
use backup_core::{Finding, Result, Severity};

use super::instance::Instance;
use crate::Error;
use crate::wire::Session;

/// Tables, filled materialized views and sequences, with what reads them. What is foreign is not read: it lies elsewhere. Tables that all databases share
/// are read once.
const TABLES: &str = "SELECT n.nspname || '.' || c.relname AS name, c.relkind AS kind, c.relisshared AS shared, \
     quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS quoted \
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.relkind IN ('r', 'm', 'S') AND c.relpersistence <> 't' AND c.relispopulated ORDER BY c.oid";

/// What was read of all databases.
#[derive(Debug, Default)]
struct Total {
    tables: u64,
    rows: u64,
    bytes: u64,
    digest: blake3::Hasher,
}

/// Reads everything in `databases`.
pub(super) async fn check(
    instance: &Instance,
    databases: &[String],
    examined: &mut Examined,
    work: &Work,
) -> Result<()> {
    let (mut total, mut problem) = (Total::default(), None);
    work.started(Phase::Verify, None, Unit::Bytes);
    for (index, database) in databases.iter().enumerate() {
        let mut session = instance.session(database).await?;
        let tables = session.query(TABLES).await?;
        // Bytes as they are stored: what is no text of the database's encoding is not what is looked for here.
        session.query("SET client_encoding = 'SQL_ASCII'").await?;
        for table in &tables {
            if index > 0 && table.required("shared")? == "t" {
                continue;
            }
            let quoted = table.required("quoted")?;
            let command = match table.required("kind")? {
                "r" => format!("COPY {quoted} TO STDOUT"),
                _ => format!("COPY (TABLE {quoted}) TO STDOUT"),
            };
            let name = format!("{database}.{}", table.required("name")?);
            match read(&mut session, &command, &name, &mut total, work).await {
                Ok(()) => {}
                Err(Error::Server(error)) if session.is_idle() => {
                    let outcome = judge(&error);
                    let text = error.to_string();
                    problem.get_or_insert(format!("{name}: {text}"));
                    examined.wrong(outcome, format!("{name} cannot be read: {text}"));
                    examined.findings.push(Finding::new(Severity::Blocker, "unreadable-table", text).about(name));
                }
                Err(error) => return Err(error.into()),
            }
        }
        session.close().await;
    }
    work.ended(Phase::Verify);
    let mut check = DrillCheck::passed("tables")
        .counted("tables", total.tables)
        .counted("rows", total.rows)
        .counted("bytes", total.bytes)
        .with_digest(total.digest.finalize().to_hex().to_string());
    if let Some(problem) = problem {
        check = check.failed(problem);
        // Of what could not be read there is no digest.
        check.digest = None;
    }
    examined.checks.push(check);
    Ok(())
}

/// Reads one table. Every row ends with the only line feed in it ("Text Format" of COPY in the manual).
async fn read(session: &mut Session, command: &str, name: &str, total: &mut Total, work: &Work) -> crate::Result<()> {
    let mut digest = blake3::Hasher::new();
    let (mut rows, mut bytes) = (0_u64, 0_u64);
    let mut copy = session.copy_out(command).await?;
    while let Some(row) = copy.next().await? {
        digest.update(&row);
        rows += u64::from(row.last() == Some(&b'\n'));
        bytes += row.len() as u64;
    }
    work.advanced(Phase::Verify, bytes);
    total.tables += 1;
    total.rows += rows;
    total.bytes += bytes;
    // Statistics, and what the drill itself has begun, are no content of the source.
    if !name.ends_with("pg_catalog.pg_statistic") {
        total.digest.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes()).update(&rows.to_le_bytes());
        total.digest.update(digest.finalize().as_bytes());
    }
    Ok(())
}

/// What a server's refusal to read says about the data: class XX is damage, and so is a file that is missing or too short; an output function whose
/// library is not here, or a lock of a prepared transaction, is not.
pub(super) fn judge(error: &crate::ServerError) -> DrillOutcome {
    let file = matches!(error.sqlstate.as_str(), "58P01" | "58030") && error.message.contains("\"base/");
    match error.sqlstate.get(..2) {
        Some("XX") => DrillOutcome::Damaged,
        // Text or numbers that no input could have made.
        Some("22") => DrillOutcome::Damaged,
        _ if file => DrillOutcome::Damaged,
        _ => DrillOutcome::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_told_from_what_is_missing_here() {
        let error = |state: &str, message: &str| {
            let mut error = crate::ServerError::default();
            (error.sqlstate, error.message) = (state.to_owned(), message.to_owned());
            error
        };
        assert_eq!(judge(&error("XX001", "invalid page in block 0")), DrillOutcome::Damaged);
        assert_eq!(judge(&error("58P01", "could not open file \"base/5/1\"")), DrillOutcome::Damaged);
        assert_eq!(judge(&error("58P01", "could not access file \"$libdir/postgis-3\"")), DrillOutcome::Failed);
        assert_eq!(judge(&error("55P03", "canceling statement due to lock timeout")), DrillOutcome::Failed);
    }
}
