//! Azure Blob Storage by Azurite, Microsoft's own emulator.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64ct::{Base64, Encoding as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::{Service, listens};
use crate::cache::{Cache, make_readable};
use crate::error::{Error, Result};
use crate::offload::blocking;
use crate::unprivileged;

const NAME: &str = "azurite 3.37.0";
const PACKAGE: &str = "azurite@3.37.0";
const VARIABLE: &str = "BACKUP_TESTKIT_AZURITE";
/// The program in a directory of npm's.
const MAIN: &str = "node_modules/azurite/dist/src/blob/main.js";
/// The account and key that every emulator has; they are no secret.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A running emulator of Blob Storage, in memory, that ends with this value, or with the test process.
#[derive(Debug)]
pub struct Azurite(Service);

impl Azurite {
    /// The directory with its `node_modules`: that in `BACKUP_TESTKIT_AZURITE`, otherwise one into which `npm` has put the pinned
    /// version on first use (a minute, 370 MB). Blocks.
    ///
    /// # Errors
    /// [`Error::Unavailable`] without `npm`, or when it can't fetch it.
    pub fn packages() -> Result<PathBuf> {
        match std::env::var_os(VARIABLE).filter(|given| !given.is_empty()) {
            Some(given) => Ok(PathBuf::from(given)),
            None => Cache::open()?.provide("azurite/3.37.0", fetch),
        }
    }

    /// Starts an emulator without containers and waits until it answers.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when this machine can't have it, [`Error::Server`] when it does not come up.
    ///
    /// # Cancel safety
    /// Dropping the future ends what was started; fetching that has begun goes on in the background.
    pub async fn start() -> Result<Self> {
        blocking(|| {
            let (node, packages) = (node()?, Self::packages()?);
            let command = |port: u16, home: &Path| {
                let mut command = Command::new(&node);
                command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", home).arg(packages.join(MAIN));
                command.args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()]);
                command.args(["--inMemoryPersistence", "--silent", "--disableTelemetry", "--skipApiVersionCheck"]);
                Ok(command)
            };
            Service::start(NAME, "EADDRINUSE", command, listens).map(Self)
        })
        .await
    }

    /// Base address of the account for clients, `http://127.0.0.1:<port>/devstoreaccount1`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("{}/{ACCOUNT}", self.0.endpoint())
    }

    /// Name of the account.
    #[must_use]
    pub fn account(&self) -> &str {
        ACCOUNT
    }

    /// Key of the account.
    #[must_use]
    pub fn key(&self) -> &str {
        KEY
    }

    /// Makes a container.
    ///
    /// # Errors
    /// [`Error::Server`] when it can't be made, [`Error::Io`] without an answer.
    pub fn create_container(&self, name: &str) -> Result<()> {
        // Any moment: the emulator checks the signature and not the age.
        let (date, version) = ("Sat, 01 Jan 2022 00:00:00 GMT", "2021-12-02");
        let path = format!("/{ACCOUNT}/{name}");
        // Shared Key, "Authorize with Shared Key" of the REST reference: the method, eleven headers that are empty here, the
        // headers x-ms-*, and the resource, whose path begins with the account twice because an emulator's does.
        let text = format!(
            "PUT{}x-ms-date:{date}\nx-ms-version:{version}\n/{ACCOUNT}{path}\nrestype:container",
            "\n".repeat(12)
        );
        let authorization = format!("SharedKey {ACCOUNT}:{}", sign(&text)?);
        let headers = [("x-ms-date", date), ("x-ms-version", version), ("Authorization", &authorization)];
        self.0.ask(NAME, "PUT", &format!("{path}?restype=container"), &headers, "")
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.process.pid()
    }

    /// The end of the server's log.
    #[must_use]
    pub fn log(&self) -> String {
        self.0.log()
    }
}

fn sign(text: &str) -> Result<String> {
    let key = Base64::decode_vec(KEY).map_err(|error| Error::invalid(format!("the account's key: {error}")))?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).map_err(|error| Error::invalid(error.to_string()))?;
    mac.update(text.as_bytes());
    Ok(Base64::encode_string(&mac.finalize().into_bytes()))
}

/// The first `node` on the path, or of the system, that the servers' account can run.
fn node() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates = std::env::split_paths(&path).chain([PathBuf::from("/usr/bin")]).map(|dir| dir.join("node"));
    let runs = |node: &PathBuf| {
        let mut command = Command::new(node);
        command.arg("--version").current_dir("/");
        unprivileged().apply(&mut command).output().is_ok_and(|output| output.status.success())
    };
    let found = candidates.find(|node| node.is_absolute() && node.exists() && runs(node));
    found.ok_or_else(|| Error::unavailable(NAME, format!("no node that uid {} can run", unprivileged().uid)))
}

fn fetch(dir: &Path) -> Result<()> {
    let hint = format!("{VARIABLE} may name the directory of an installed one");
    let mut npm = Command::new("npm");
    // Nothing of what comes is run while it is installed.
    npm.args(["install", "--ignore-scripts", "--omit=dev", "--no-save", "--no-audit", "--no-fund", "--prefix"]);
    match npm.arg(dir).arg(PACKAGE).current_dir(dir).output() {
        Ok(output) if output.status.success() => make_readable(dir),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(Error::unavailable(NAME, format!("npm failed ({}): {said}; {hint}", output.status)))
        }
        Err(error) => Err(Error::unavailable_because(NAME, format!("npm does not run; {hint}"), error)),
    }
}
