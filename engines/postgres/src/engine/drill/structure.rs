//! The server's own checks of what its files hold: `amcheck` of its contributed modules.

use backup_core::catalog::{DrillCheck, DrillOutcome};
use backup_core::engine::{Examined, Work};
use backup_core::{Finding, Result, Severity};

use super::instance::Instance;
use super::reading::judge;
use crate::Error;
use crate::wire::Session;

const CHECK: &str = "amcheck";
/// The schema that the drill makes for it. The instance is its own.
const SCHEMA: &str = "backup_drill";

/// B-tree indexes. That the heap's rows are all in it is asked where that calls no function of a user.
const INDEXES: &str = "SELECT c.oid AS oid, n.nspname || '.' || c.relname AS name, \
     (i.indexprs IS NULL AND i.indpred IS NULL) AS whole \
     FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
     JOIN pg_am a ON a.oid = c.relam \
     WHERE a.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence <> 't' AND i.indisready AND i.indisvalid ORDER BY c.oid";

/// Tables in the usual form.
const HEAPS: &str = "SELECT c.oid AS oid, n.nspname || '.' || c.relname AS name \
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_am a ON a.oid = c.relam \
     WHERE a.amname = 'heap' AND c.relkind IN ('r', 't', 'm') AND c.relpersistence = 'p' ORDER BY c.oid";

#[derive(Debug, Default)]
struct Seen {
    indexes: u64,
    heaps: u64,
    problem: Option<String>,
}

/// Checks all databases, where the server has the module.
pub(super) async fn check(
    instance: &Instance,
    databases: &[String],
    examined: &mut Examined,
    work: &Work,
) -> Result<()> {
    let mut seen = Seen::default();
    for database in databases {
        work.checkpoint()?;
        let mut session = instance.session(database).await?;
        let available = "SELECT 1 FROM pg_available_extensions WHERE name = 'amcheck'";
        if session.query(available).await?.is_empty() {
            session.close().await;
            examined.checks.push(DrillCheck::skipped(CHECK, "the server has no amcheck here"));
            return Ok(());
        }
        let schema = match install(&mut session).await {
            Ok(schema) => schema,
            Err(Error::Server(error)) => {
                examined.checks.push(DrillCheck::skipped(CHECK, format!("{database}: {error}")));
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        self::database(&mut session, database, &schema, &mut seen, examined).await?;
        session.close().await;
    }
    let mut check = DrillCheck::passed(CHECK).counted("indexes", seen.indexes).counted("tables", seen.heaps);
    if let Some(problem) = seen.problem {
        check = check.failed(problem);
    }
    examined.checks.push(check);
    Ok(())
}

/// Makes the module available, and returns the schema that its functions are in, quoted.
async fn install(session: &mut Session) -> crate::Result<String> {
    session.query("SET default_transaction_read_only = off").await?;
    let installed = "SELECT quote_ident(n.nspname) AS name FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace \
         WHERE e.extname = 'amcheck'";
    if let Some(row) = session.query(installed).await?.first() {
        return Ok(row.required("name")?.to_owned());
    }
    session.query(&format!("CREATE SCHEMA {SCHEMA}")).await?;
    session.query(&format!("CREATE EXTENSION amcheck SCHEMA {SCHEMA}")).await?;
    Ok(SCHEMA.to_owned())
}

async fn database(
    session: &mut Session,
    database: &str,
    schema: &str,
    seen: &mut Seen,
    examined: &mut Examined,
) -> Result<()> {
    for row in session.query(INDEXES).await? {
        let (oid, name) = (row.required("oid")?, format!("{database}.{}", row.required("name")?));
        let whole = row.required("whole")? == "t";
        let checked = session.query(&format!("SELECT {schema}.bt_index_check({oid}::regclass, {whole})")).await;
        seen.indexes += 1;
        note(checked.map(|_| None), name, seen, examined)?;
    }
    if session.version().major() < 14 {
        return Ok(());
    }
    for row in session.query(HEAPS).await? {
        let (oid, name) = (row.required("oid")?, format!("{database}.{}", row.required("name")?));
        let command = format!(
            "SELECT format('block %s, item %s: %s', blkno, offnum, msg) AS said \
             FROM {schema}.verify_heapam({oid}::regclass, on_error_stop => true, check_toast => true) LIMIT 1"
        );
        let said = match session.query(&command).await {
            Ok(rows) => Ok(rows.first().map(|row| row.required("said").map(str::to_owned)).transpose()?),
            Err(error) => Err(error),
        };
        seen.heaps += 1;
        note(said, name, seen, examined)?;
    }
    Ok(())
}

/// Notes what a check has said.
fn note(said: crate::Result<Option<String>>, name: String, seen: &mut Seen, examined: &mut Examined) -> Result<()> {
    let (outcome, text) = match said {
        Ok(None) => return Ok(()),
        Ok(Some(text)) => (DrillOutcome::Damaged, text),
        Err(Error::Server(error)) if !matches!(error.severity.as_str(), "FATAL" | "PANIC") => {
            (judge(&error), error.to_string())
        }
        Err(error) => return Err(error.into()),
    };
    seen.problem.get_or_insert(format!("{name}: {text}"));
    examined.wrong(outcome, format!("{name} is not in order: {text}"));
    examined.findings.push(Finding::new(Severity::Blocker, CHECK, text).about(name));
    Ok(())
}
