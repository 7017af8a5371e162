//! Where the passphrase comes from. Never from an argument: every user of the machine can read those.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use backup_core::{Error, Result};
use backup_crypto::Passphrase;
use zeroize::Zeroizing;

/// More than the longest passphrase and its line end; what follows the first line is not read.
const MOST: u64 = Passphrase::MAX_LEN as u64 + 2;

/// A passphrase, and whether every user of the machine could have read its file.
pub(crate) struct FromFile {
    pub(crate) passphrase: Passphrase,
    pub(crate) exposed: bool,
}

/// The first line of a file with a secret, without its line end.
pub(crate) fn line_of(file: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let at = || format!("secret file {}", file.display());
    let open = File::open(file).map_err(|e| Error::io(at(), e))?;
    read_line(open).map_err(|e| Error::io(at(), e))
}

fn read_line(open: File) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(MOST as usize));
    open.take(MOST).read_to_end(&mut bytes)?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let end = line.strip_suffix(b"\r").unwrap_or(line).len();
    bytes.truncate(end);
    Ok(bytes)
}

/// The first line of `file`, without its line end.
pub(crate) fn from_file(file: &Path) -> Result<FromFile> {
    let at = || format!("passphrase file {}", file.display());
    let open = File::open(file).map_err(|e| Error::io(at(), e))?;
    let exposed = open.metadata().map_err(|e| Error::io(at(), e))?.mode() & 0o004 != 0;
    let line = read_line(open).map_err(|e| Error::io(at(), e))?;
    let line = std::str::from_utf8(&line).map_err(|_| Error::invalid(format!("{} is not UTF-8", at())))?;
    let passphrase = Passphrase::new(line).map_err(|e| Error::invalid(at()).with_source(e))?;
    Ok(FromFile { passphrase, exposed })
}

/// The passphrase of an environment variable.
pub(crate) fn from_variable(value: &str) -> Result<Passphrase> {
    Passphrase::new(value).map_err(|e| Error::invalid("variable BACKUP_PASSPHRASE").with_source(e))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use backup_core::ErrorKind;

    use super::*;

    fn read(content: &[u8], mode: u32) -> Result<FromFile> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        std::fs::set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
        from_file(file.path())
    }

    #[test]
    fn only_the_first_line_counts() {
        for content in ["word", "word\n", "word\r\n", "word\nsecond\n"] {
            assert!(!read(content.as_bytes(), 0o600).unwrap().exposed);
        }
        assert!(read(b" \n", 0o600).is_ok(), "blanks are part of a passphrase");
        assert!(read(&[&[b'x'; 4096][..], b"\nrest"].concat(), 0o600).is_ok());
        for bad in [&b""[..], b"\n", b"\xff\n", &[b'x'; 5000]] {
            assert_eq!(read(bad, 0o600).err().map(|e| e.kind()), Some(ErrorKind::InvalidInput));
        }
    }

    #[test]
    fn a_file_that_everyone_can_read_is_noticed() {
        assert!(read(b"word", 0o644).unwrap().exposed);
        assert!(!read(b"word", 0o640).unwrap().exposed);
    }

    #[test]
    fn a_missing_file_is_the_environment() {
        assert_eq!(from_file(Path::new("/does/not/exist")).err().unwrap().kind(), ErrorKind::Environment);
    }
}
