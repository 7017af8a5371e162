//! A command line to be measured.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program with its arguments and environment.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(String, OsString)>,
    directory: PathBuf,
}

impl Job {
    pub(crate) fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), arguments: vec![], environment: vec![], directory: PathBuf::from("/") }
    }

    pub(crate) fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    pub(crate) fn args<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Where it runs; the root directory otherwise.
    pub(crate) fn current_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = directory.into();
        self
    }

    /// Runs it without measuring, for what a contender has to have done before it is its turn.
    pub(crate) fn run(&self) -> Result<String, crate::Error> {
        let mut command = Command::new(&self.program);
        let output = self.dress(command.args(&self.arguments)).output();
        let output = output.map_err(|error| format!("{self} does not run: {error}"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = [output.stdout, output.stderr].concat();
        Err(format!("{self} failed ({}):\n{}", output.status, String::from_utf8_lossy(&said).trim()).into())
    }

    /// The command that runs it below a keeper, which is the program `keeper` and writes what it has seen to `report`.
    pub(super) fn kept(&self, keeper: &Path, report: &Path) -> Command {
        let mut command = Command::new(keeper);
        command.arg("keep").arg(report).arg("--").arg(&self.program).args(&self.arguments);
        self.dress(&mut command);
        command
    }

    /// An environment that is the same whoever runs the bench: no locale, time zone, proxy or `PG*` variable leaks in.
    fn dress<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
        command.envs(self.environment.iter().map(|(name, value)| (name, value))).current_dir(&self.directory)
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.program.file_name().unwrap_or_default().display())?;
        self.arguments.iter().take(6).try_for_each(|argument| write!(f, " {}", argument.display()))
    }
}
