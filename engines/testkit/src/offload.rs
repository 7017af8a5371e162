//! Work that blocks, kept away from the threads that run async code.

use crate::error::{Error, Result};

/// Runs file work and provisioning off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(Error::invalid(format!("the runtime is shutting down: {error}"))),
        },
    }
}
