//! What a process gives to the program: writers, variables, a clock, a way to be stopped.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;

use backup_core::env::Env;
use tokio_util::sync::CancellationToken;

/// Which of the writers are terminals, where a person looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terminals {
    /// Results are shown as tables.
    pub stdout: bool,
    /// Progress is shown as bars.
    pub stderr: bool,
}

/// The surroundings of one run.
pub struct Host<'a> {
    pub(crate) stdout: &'a mut (dyn Write + Send),
    pub(crate) stderr: &'a mut (dyn Write + Send),
    pub(crate) terminals: Terminals,
    pub(crate) variables: BTreeMap<String, String>,
    pub(crate) cancel: CancellationToken,
    pub(crate) env: Env,
}

impl<'a> Host<'a> {
    /// A host without terminals and variables, with the machine's clock and randomness, that is never cancelled.
    pub fn new(stdout: &'a mut (dyn Write + Send), stderr: &'a mut (dyn Write + Send)) -> Self {
        Self {
            stdout,
            stderr,
            terminals: Terminals::default(),
            variables: BTreeMap::new(),
            cancel: CancellationToken::new(),
            env: Env::system(),
        }
    }

    /// Says which writers are terminals.
    #[must_use]
    pub fn with_terminals(mut self, terminals: Terminals) -> Self {
        self.terminals = terminals;
        self
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn with_variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// Adds those environment variables of the process that stand in for options. Values that are not Unicode are as good
    /// as absent.
    #[must_use]
    pub fn with_process_variables(mut self) -> Self {
        let ours = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with("BACKUP_"));
        self.variables.extend(ours);
        self
    }

    /// Sets by what the run is cancelled.
    #[must_use]
    pub fn with_cancel(mut self, cancel: CancellationToken) -> Self {
        self.cancel = cancel;
        self
    }

    /// A variable that is set to something.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

impl fmt::Debug for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values may be secret.
        f.debug_struct("Host")
            .field("terminals", &self.terminals)
            .field("variables", &self.variables.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
