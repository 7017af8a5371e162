//! A real ZooKeeper, for servers that agree through one.
//!
//! Java and Maven are taken from the machine; Maven brings exact versions of the few archives that a server without its
//! web interface needs.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::cache::{Cache, make_readable};
use crate::error::{Error, Result};
use crate::offload::blocking;
use crate::process::{ServerProcess, free_port, tail};
use crate::scratch::scratch_dir;
use crate::{unprivileged, wait};

const NAME: &str = "zookeeper 3.9.5";
const VARIABLE: &str = "BACKUP_TESTKIT_ZOOKEEPER";
/// ZooKeeper itself, what its own description leaves to the user, and something that writes its log.
const ARTIFACTS: [&str; 5] = [
    "org.apache.zookeeper:zookeeper:3.9.5",
    "commons-cli:commons-cli:1.5.0",
    "io.dropwizard.metrics:metrics-core:4.1.12.1",
    "org.xerial.snappy:snappy-java:1.1.10.5",
    "org.slf4j:slf4j-simple:2.0.13",
];
const COPY: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";
/// A Java program takes seconds, and more on a machine that is busy with other things.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// A running ZooKeeper that ends with this value, or with the test process. It forgets everything then.
#[derive(Debug)]
pub struct ZooKeeper {
    port: u16,
    // The process ends before its directory goes.
    process: ServerProcess,
    home: TempDir,
}

impl ZooKeeper {
    /// The directory of its archives: `BACKUP_TESTKIT_ZOOKEEPER` (the `lib` of an installation), otherwise the pinned
    /// version, fetched by Maven on first use. Blocks.
    ///
    /// # Errors
    /// [`Error::Unavailable`] without Maven, or when it can't fetch them.
    pub fn archives() -> Result<PathBuf> {
        match std::env::var_os(VARIABLE).filter(|given| !given.is_empty()) {
            Some(given) => Ok(PathBuf::from(given)),
            None => Cache::open()?.provide("zookeeper/3.9.5", fetch),
        }
    }

    /// Starts a server with no data and waits until it answers.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when this machine can't have it, [`Error::Server`] when it does not come up.
    ///
    /// # Cancel safety
    /// Dropping the future ends what was started; fetching that has begun goes on in the background.
    pub async fn start() -> Result<Self> {
        blocking(Self::start_blocking).await
    }

    fn start_blocking() -> Result<Self> {
        let archives = Self::archives()?;
        let mut attempt = 0;
        loop {
            attempt += 1;
            match Self::launch(&archives) {
                // Between finding a free port and binding it somebody else may have taken it.
                Err(Error::Server { log, .. }) if attempt < 5 && log.contains("Address already in use") => {}
                other => return other,
            }
        }
    }

    fn launch(archives: &Path) -> Result<Self> {
        let java = java()?;
        let home = scratch_dir()?;
        let port = free_port()?;
        let data = home.path().join("data");
        std::fs::create_dir(&data).map_err(Error::io("create", &data))?;
        unprivileged().own(&data)?;
        let config = home.path().join("zoo.cfg");
        let text = format!(
            "tickTime=500\nminSessionTimeout=1000\ndataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\n\
             admin.enableServer=false\n4lw.commands.whitelist=*\nmaxClientCnxns=0\n",
            data.display()
        );
        std::fs::write(&config, text).map_err(Error::io("write", &config))?;
        let mut command = Command::new(java);
        command.env_clear().env("PATH", "/usr/bin:/bin").current_dir(home.path());
        // Small and quick to start; every record of its log that is synced would make a test wait.
        command.args(["-Xmx96m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]);
        command.args([
            "-Dzookeeper.preAllocSize=1024",
            "-Dzookeeper.forceSync=no",
            "-Dzookeeper.jmx.log4j.disable=true",
        ]);
        command.arg("-cp").arg(archives.join("*")).arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(config);
        let log = home.path().join("log");
        let mut process = ServerProcess::spawn(&mut command, &log, Signal::KILL, &[home.path().to_owned()])?;
        let answered = wait::until(START_PATIENCE, || match process.ended() {
            Some(exit) => Some(Err(exit)),
            None => is_well(port).then_some(Ok(())),
        });
        let what = match answered {
            Some(Ok(())) => return Ok(Self { port, process, home }),
            Some(Err(exit)) => format!("ended while starting ({exit})"),
            None => format!("did not answer within {START_PATIENCE:?}"),
        };
        Err(Error::Server { server: NAME.to_owned(), what, log: tail(&log, 40) })
    }

    /// TCP port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The end of the server's log.
    #[must_use]
    pub fn log(&self) -> String {
        tail(&self.home.path().join("log"), 60)
    }
}

/// Asks what it does (`4lw.commands`): it says that it is well, `imok`, before it takes connections, but its mode only after.
fn is_well(port: u16) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"srvr")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    };
    ask().is_ok_and(|answer: String| answer.contains("Mode: "))
}

/// The first `java` on the path, or of the system, that the servers' account can run.
fn java() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates = std::env::split_paths(&path).chain([PathBuf::from("/usr/bin")]).map(|dir| dir.join("java"));
    let runs = |java: &PathBuf| {
        let mut command = Command::new(java);
        command.arg("-version").current_dir("/");
        unprivileged().apply(&mut command).output().is_ok_and(|output| output.status.success())
    };
    let found = candidates.find(|java| java.is_absolute() && java.exists() && runs(java));
    found.ok_or_else(|| Error::unavailable(NAME, format!("no java that uid {} can run", unprivileged().uid)))
}

fn fetch(dir: &Path) -> Result<()> {
    let mut description = String::from(
        "<project><modelVersion>4.0.0</modelVersion><groupId>testkit</groupId><artifactId>zookeeper</artifactId>\
         <version>1</version><packaging>pom</packaging><dependencies>",
    );
    for artifact in ARTIFACTS {
        let mut parts = artifact.split(':');
        for name in ["groupId", "artifactId", "version"] {
            let opening = if name == "groupId" { "<dependency>" } else { "" };
            description.push_str(&format!("{opening}<{name}>{}</{name}>", parts.next().unwrap_or_default()));
        }
        description.push_str("</dependency>");
    }
    description.push_str("</dependencies></project>");
    let file = dir.join("pom.xml");
    std::fs::write(&file, description).map_err(Error::io("write", &file))?;
    let mut maven = Command::new("mvn");
    maven.args(["--batch-mode", "--quiet", "--file"]).arg(&file).arg(COPY).current_dir(dir);
    let output = maven.arg("-DincludeScope=runtime").arg(format!("-DoutputDirectory={}", dir.display())).output();
    match output {
        Ok(output) if output.status.success() => make_readable(dir),
        Ok(output) => {
            // Maven says what failed on its standard output.
            let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            Err(Error::unavailable(
                NAME,
                format!("mvn failed ({}): {said}; {VARIABLE} may name its lib", output.status),
            ))
        }
        Err(error) => {
            let reason = format!("mvn does not run; {VARIABLE} may name the lib of an installed one");
            Err(Error::unavailable_because(NAME, reason, error))
        }
    }
}
