//! What hosts that only write have said at the ends of their sessions.
//!
//! The key of an adopted deposit stands in the journal. The deposit has it once more, for a rebuild of the catalog: lost, it harms nobody today.

use backup_core::repository::VerifyReport;
use futures::stream::{self, StreamExt};

use super::findings::Findings;
use super::history::History;
use crate::context::Context;
use crate::deposit::genuine::{self, Found};
use crate::error::{Error, Result};
use crate::layout;

/// Looks at the deposits of the backups that are kept.
pub(super) async fn check(
    context: &Context,
    history: &History,
    (report, findings): (&mut VerifyReport, &mut Findings),
) -> Result<()> {
    let sessions = history.records.values().map(|record| record.session);
    let sessions: Vec<_> = sessions.filter(|session| history.catalog.depositor(*session).is_some()).collect();
    let mut found = stream::iter(sessions)
        .map(|session| async move { Ok::<_, Error>((session, genuine::look(context, session).await?)) })
        .buffered(context.shape.transfers * 2)
        .boxed();
    while let Some(next) = found.next().await {
        let (session, found) = next?;
        report.objects += 1;
        let problem = match found {
            Found::Genuine(genuine) => match genuine.unwrap(&context.keyring)? {
                Ok(_) => continue,
                Err(reason) => reason.to_string(),
            },
            // The key of an older epoch that this recipient does not have.
            Found::Untold(_) => continue,
            Found::Foreign(problem) => problem,
            Found::Nothing => "it is missing".to_owned(),
        };
        findings.add(layout::deposit(session)?.as_str(), problem, []);
    }
    Ok(())
}
