//! pgBackRest with blocks and bundles, zstd −1, AES-256-CBC, as many processes as processors.

use std::path::{Path, PathBuf};

use super::{Place, SECRET, Server, processors};
use crate::Error;
use crate::measure::Job;
use crate::peers::{self, Missing, Program};
use crate::rounds::{Contender, Phase};
use crate::work::Work;

pub(crate) struct PgBackRest {
    program: Program,
    place: Place,
    server: Server,
    /// What keeps the log, where the scenario has it archived.
    pub(crate) segments: Vec<String>,
}

impl PgBackRest {
    pub(crate) fn new(base: &Path, server: &Server) -> Result<Self, Missing> {
        let program = peers::PGBACKREST.provide()?;
        let (place, server) = (Place::new(base, "pgbackrest"), server.clone());
        Ok(Self { program, place, server, segments: vec![] })
    }

    fn command(&self, verb: &str) -> Job {
        self.settings(self.program.job().arg(verb).arg("--no-config"))
    }

    /// Options of a command line are refused by commands that do not know them; those of the environment are not.
    fn settings(&self, job: Job) -> Job {
        let home = self.place.home();
        let mut job = job
            .env("HOME", &home)
            .env("PGBACKREST_LOCK_PATH", home.join("lock"))
            .env("PGBACKREST_SPOOL_PATH", home.join("spool"))
            .env("PGBACKREST_STANZA", "bench")
            .env("PGBACKREST_PG1_PATH", &self.server.data)
            .env("PGBACKREST_PG1_PORT", self.server.port.to_string())
            .env("PGBACKREST_PG1_SOCKET_PATH", &self.server.sockets)
            .env("PGBACKREST_PG1_USER", "postgres")
            .env("PGBACKREST_REPO1_PATH", self.place.repository())
            .env("PGBACKREST_REPO1_CIPHER_PASS", SECRET)
            .env("PGBACKREST_PROCESS_MAX", processors().to_string());
        for (name, value) in [
            ("REPO1_CIPHER_TYPE", "aes-256-cbc"),
            ("REPO1_BUNDLE", "y"),
            ("REPO1_BLOCK", "y"),
            ("COMPRESS_TYPE", "zst"),
            ("COMPRESS_LEVEL", "1"),
            ("START_FAST", "y"),
            ("ARCHIVE_CHECK", "n"),
            ("LOG_LEVEL_CONSOLE", "warn"),
            ("LOG_LEVEL_STDERR", "off"),
            ("LOG_LEVEL_FILE", "off"),
        ] {
            job = job.env(&format!("PGBACKREST_{name}"), value);
        }
        job
    }

    /// This program for each segment, one after the other as a server calls it; `{}` stands for the segment.
    fn each(&self, verb: &str, arguments: &[PathBuf]) -> Result<Job, Error> {
        let list = self.place.home().join("segments");
        std::fs::write(&list, self.segments.join("\n"))?;
        let verbs = [verb.to_owned(), "--no-config".to_owned()];
        let arguments = verbs.into_iter().chain(arguments.iter().map(|path| path.display().to_string())).collect();
        let work = Work::Each { list, program: self.program.path.clone(), arguments };
        Ok(self.settings(work.job()?).env("PGBACKREST_ARCHIVE_ASYNC", "y"))
    }
}

impl Contender for PgBackRest {
    fn name(&self) -> String {
        self.program.name.to_owned()
    }

    fn terms(&self) -> String {
        format!(
            "{}; zstd −1, AES-256-CBC, blocks and bundles, {} processes; syncs what it writes; the log that a backup needs is not in it",
            self.program.version,
            processors()
        )
    }

    fn setup(&mut self) -> Result<(), Error> {
        self.place.make()?;
        std::fs::create_dir_all(self.place.repository())?;
        self.command("stanza-create").run().map(drop)
    }

    fn job(&mut self, phase: Phase) -> Result<Option<Job>, Error> {
        Ok(Some(match phase {
            Phase::Full => self.command("backup").arg("--type=full"),
            Phase::Unchanged | Phase::Changed(_) => self.command("backup").arg("--type=incr"),
            Phase::Restore | Phase::RestoreAgain => {
                let into = self.place.make_restored()?;
                self.command("restore").env("PGBACKREST_PG1_PATH", into)
            }
            Phase::Delta => self.command("restore").arg("--delta").env("PGBACKREST_PG1_PATH", self.place.restored()),
            Phase::Archive => self.each("archive-push", &[self.server.data.join("pg_wal/{}")])?,
            Phase::Fetch => {
                let into = self.place.make_restored()?;
                self.each("archive-get", &[PathBuf::from("{}"), into.join("{}")])?
            }
        }))
    }

    fn output(&self, phase: Phase) -> PathBuf {
        match phase {
            Phase::Restore | Phase::RestoreAgain | Phase::Delta | Phase::Fetch => self.place.restored(),
            Phase::Full | Phase::Unchanged | Phase::Changed(_) | Phase::Archive => self.place.repository(),
        }
    }

    fn clean(&mut self) -> Result<(), Error> {
        self.place.remove()
    }
}
