//! `init`: create the service's repository.

use backup_core::repository::Repository as _;

use super::Context;
use crate::cli::failure::Failure;
use crate::cli::view::InitView;

pub(super) async fn run(cx: &mut Context<'_, '_>) -> Result<(), Failure> {
    let place = cx.place()?;
    let vault = place.vault.clone();
    let repository = place.create(cx.work()).await?;
    if cx.json() {
        let view = InitView {
            service: repository.service().as_str(),
            vault: &vault,
            repository: repository.id().to_string(),
            suite: repository.suite().to_string(),
        };
        return cx.document(&view);
    }
    cx.line(&format!("created the repository of service {} in {vault}", repository.service()))?;
    cx.remark("without the passphrase nobody can restore: keep a copy of it far from this machine");
    Ok(())
}
