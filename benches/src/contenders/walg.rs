//! WAL-G with libsodium into a directory, and lz4: the version that can be had reads zstd and does not write it.

use std::path::{Path, PathBuf};

use super::{Place, SECRET, Server};
use crate::Error;
use crate::measure::Job;
use crate::peers::{self, Missing, Program};
use crate::rounds::{Contender, Phase};

pub(crate) struct WalG {
    program: Program,
    place: Place,
    server: Server,
}

impl WalG {
    /// `version` is the server's.
    pub(crate) fn new(base: &Path, server: &Server, version: u32) -> Result<Self, Missing> {
        if version > 14 {
            let reason = format!(
                "version {} calls pg_start_backup, which servers have up to 14; newer ones cannot be had as a Go module (--server 14)",
                peers::WAL_G.version
            );
            return Err(Missing { name: peers::WAL_G.name.to_owned(), reason });
        }
        Ok(Self { program: peers::WAL_G.provide()?, place: Place::new(base, "walg"), server: server.clone() })
    }

    fn command(&self, verb: &str) -> Job {
        let job = self.program.job().arg(verb);
        job.env("WALG_FILE_PREFIX", self.place.repository())
            .env("WALG_COMPRESSION_METHOD", "lz4")
            .env("WALG_LIBSODIUM_KEY", &SECRET[..32])
            .env("WALG_DELTA_MAX_STEPS", "100")
            .env("PGDATA", &self.server.data)
            .env("PGHOST", &self.server.sockets)
            .env("PGPORT", self.server.port.to_string())
            .env("PGUSER", "postgres")
            .env("PGDATABASE", "postgres")
            .env("HOME", self.place.home())
    }
}

impl Contender for WalG {
    fn name(&self) -> String {
        self.program.name.to_owned()
    }

    fn terms(&self) -> String {
        format!(
            "{}; lz4 (this version writes no zstd), libsodium; does not sync; the log that a backup needs is not in it",
            self.program.version
        )
    }

    fn setup(&mut self) -> Result<(), Error> {
        self.place.make()?;
        std::fs::create_dir_all(self.place.repository())?;
        Ok(())
    }

    fn job(&mut self, phase: Phase) -> Result<Option<Job>, Error> {
        Ok(match phase {
            Phase::Full => Some(self.command("backup-push").arg(&self.server.data).arg("--full")),
            Phase::Unchanged | Phase::Changed(_) => Some(self.command("backup-push").arg(&self.server.data)),
            Phase::Restore | Phase::RestoreAgain => {
                Some(self.command("backup-fetch").arg(self.place.make_restored()?).arg("LATEST"))
            }
            Phase::Delta | Phase::Archive | Phase::Fetch => None,
        })
    }

    fn output(&self, phase: Phase) -> PathBuf {
        match phase {
            Phase::Restore | Phase::RestoreAgain => self.place.restored(),
            _ => self.place.repository(),
        }
    }

    fn clean(&mut self) -> Result<(), Error> {
        self.place.remove()
    }
}
