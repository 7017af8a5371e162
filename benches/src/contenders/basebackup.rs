//! `pg_basebackup`, compressed with zstd −1 by itself, and `zstd -d | tar -x` back.

use std::path::{Path, PathBuf};

use super::{Place, Server};
use crate::Error;
use crate::measure::Job;
use crate::peers::{self, Missing, Program};
use crate::rounds::{Contender, Phase};

pub(crate) struct BaseBackup {
    program: Program,
    zstd: Program,
    place: Place,
    server: Server,
}

impl BaseBackup {
    pub(crate) fn new(base: &Path, server: &Server) -> Result<Self, Missing> {
        let (program, zstd) = (peers::PG_BASEBACKUP.provide()?, peers::ZSTD.provide()?);
        Ok(Self { program, zstd, place: Place::new(base, "basebackup"), server: server.clone() })
    }
}

impl Contender for BaseBackup {
    fn name(&self) -> String {
        self.program.name.to_owned()
    }

    fn terms(&self) -> String {
        format!(
            "{}; tar, zstd −1 at the client, no encryption; syncs what it writes; restored by zstd -d and tar, which do not",
            self.program.version
        )
    }

    fn setup(&mut self) -> Result<(), Error> {
        self.place.make()
    }

    fn job(&mut self, phase: Phase) -> Result<Option<Job>, Error> {
        let repository = self.place.repository();
        Ok(match phase {
            Phase::Full => Some(
                self.program
                    .job()
                    .args([
                        "-Ft",
                        "-X",
                        "fetch",
                        "--compress=client-zstd:1",
                        "--checkpoint=fast",
                        "-w",
                        "-U",
                        "postgres",
                    ])
                    .args(["-p", &self.server.port.to_string(), "-h"])
                    .arg(&self.server.sockets)
                    .arg("-D")
                    .arg(repository),
            ),
            Phase::Restore => {
                let script = r#""$1" -dcq "$2" | tar -x -C "$3""#;
                let job = Job::new("/bin/sh").args(["-c", script, "sh"]).arg(&self.zstd.path);
                Some(job.arg(repository.join("base.tar.zst")).arg(self.place.make_restored()?))
            }
            // Of the older servers it has no increments.
            _ => None,
        })
    }

    fn output(&self, phase: Phase) -> PathBuf {
        if phase == Phase::Restore { self.place.restored() } else { self.place.repository() }
    }

    fn clean(&mut self) -> Result<(), Error> {
        self.place.remove()
    }
}
