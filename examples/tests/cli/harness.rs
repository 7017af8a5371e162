//! A vault of its own for every test, and runs of the program against it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use backup_examples::cli::{Host, Terminals, main_with};
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub(crate) const SERVICE: &str = "shop";
pub(crate) const PASSPHRASE: &str = "correct horse battery staple";

/// What a run left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: u8,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// The one document on standard output.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("stdout is not one JSON document ({e}): {self:?}"))
    }

    /// Asserts that it failed with `code` and one line, and returns the line.
    #[track_caller]
    pub(crate) fn failed(&self, code: u8) -> &str {
        assert_eq!(self.code, code, "{self:?}");
        assert_eq!(self.out, "", "nothing on stdout");
        let line = self.err.strip_suffix('\n').unwrap_or_else(|| panic!("{self:?}"));
        assert!(line.starts_with("error: ") && !line.contains('\n'), "one clear line: {self:?}");
        line
    }

    /// Asserts that it failed with `code` and a JSON object, and returns what is under `error`.
    #[track_caller]
    pub(crate) fn failed_json(&self, code: u8) -> Value {
        assert_eq!(self.code, code, "{self:?}");
        let value: Value = serde_json::from_str(&self.err).unwrap_or_else(|e| panic!("{e}: {self:?}"));
        let error = value.as_object().filter(|o| o.len() == 1).and_then(|o| o.get("error"));
        let error = error.unwrap_or_else(|| panic!("one object with one key: {self:?}"));
        assert_eq!(keys(error), ["causes", "kind", "message"]);
        assert!(error["causes"].as_array().unwrap().iter().all(Value::is_string));
        error.clone()
    }
}

/// The keys of a JSON object, sorted.
pub(crate) fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

/// A vault in a directory.
pub(crate) struct Vault {
    pub(crate) dir: TempDir,
}

impl Vault {
    /// A place for a vault; nothing is in it.
    pub(crate) fn absent() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// A vault with an empty repository.
    pub(crate) async fn created() -> Self {
        let vault = Self::absent();
        assert_eq!(vault.run(&["init"]).await.code, 0);
        vault
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("vault")
    }

    pub(crate) fn url(&self) -> String {
        format!("file://{}", self.root().display())
    }

    /// Runs the program with everything that it needs in variables.
    pub(crate) async fn run(&self, args: &[&str]) -> Ran {
        self.run_on(args, Terminals::default(), CancellationToken::new()).await
    }

    pub(crate) async fn run_on(&self, args: &[&str], terminals: Terminals, cancel: CancellationToken) -> Ran {
        let variables =
            [("BACKUP_VAULT", self.url().as_str()), ("BACKUP_SERVICE", SERVICE), ("BACKUP_PASSPHRASE", PASSPHRASE)]
                .map(|(name, value)| (name.to_owned(), value.to_owned()));
        run(args, &variables, terminals, cancel).await
    }

    /// Runs with `--json`, expects success and returns the document.
    #[track_caller]
    pub(crate) fn json<'a>(&'a self, args: &'a [&'a str]) -> impl Future<Output = Value> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let ran = self.run(&[&["--json"], args].concat()).await;
            assert_eq!((ran.code, ran.err.as_str()), (0, ""), "at {caller}: {ran:?}");
            ran.json()
        }
    }

    /// A file with `content` that only its owner can read.
    pub(crate) fn secret_file(&self, content: &str) -> PathBuf {
        let file = self.dir.path().join("passphrase");
        std::fs::write(&file, content).unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        file
    }

    /// The objects of the repository whose name below it starts with `prefix`, sorted.
    pub(crate) fn objects(&self, prefix: &str) -> Vec<PathBuf> {
        let root = self.root().join(SERVICE);
        let mut files = Vec::new();
        collect(&root, &mut files);
        files.retain(|file| file.strip_prefix(&root).is_ok_and(|name| name.starts_with(prefix)));
        files.sort();
        files
    }
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
}

/// Flips one bit in the middle of a file.
pub(crate) fn damage(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    // Stored objects are read-only to protect them from accidents such as this one.
    std::fs::set_permissions(file, Permissions::from_mode(0o600)).unwrap();
    std::fs::write(file, bytes).unwrap();
}

/// Runs the program in process.
pub(crate) async fn run(
    args: &[&str],
    variables: &[(String, String)],
    terminals: Terminals,
    cancel: CancellationToken,
) -> Ran {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut host = Host::new(&mut out, &mut err).with_terminals(terminals).with_cancel(cancel);
    for (name, value) in variables {
        host = host.with_variable(name, value);
    }
    let code = main_with(["backupctl"].iter().chain(args), &mut host).await;
    drop(host);
    Ran { code, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}
