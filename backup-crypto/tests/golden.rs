//! The byte formats, pinned: what is in `tests/golden` was written once and must be made and read the same way for ever.
//!
//! Every file is lines of `name = hexadecimal bytes`. Set `BACKUP_CRYPTO_GOLDEN=write` to write files that do not exist; an existing
//! file is never overwritten, because a change of a released format is a new version beside the old one.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use backup_crypto::*;

/// Bytes 0, 1, 2, … without end: golden inputs must not depend on a random number generator of anyone.
#[derive(Debug, Default)]
struct Counting(std::sync::atomic::AtomicU8);

impl Entropy for Counting {
    fn fill(&self, out: &mut [u8]) {
        out.iter_mut().for_each(|byte| *byte = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn bytes(hex: &str) -> Vec<u8> {
    assert_eq!(hex.len() % 2, 0);
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// Compares with the committed file and gives back what the file says.
fn golden(name: &str, made: &[(&str, Vec<u8>)]) -> BTreeMap<String, Vec<u8>> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let made: String = made.iter().fold(String::new(), |text, (name, bytes)| text + name + " = " + &hex(bytes) + "\n");
    if std::env::var_os("BACKUP_CRYPTO_GOLDEN").is_some_and(|mode| mode == "write") && !path.exists() {
        std::fs::write(&path, &made).unwrap();
    }
    let pinned = std::fs::read_to_string(&path).unwrap();
    assert_eq!(made, pinned, "{name}");
    pinned.lines().map(|line| line.split_once(" = ").unwrap()).map(|(name, hex)| (name.into(), bytes(hex))).collect()
}

const REPOSITORY: RepositoryId = RepositoryId::from_bytes(*b"golden-repositor");
const EPOCH: EpochId = EpochId(0x0102_0304);

fn epoch_key() -> EpochKey {
    EpochKey::take(&mut std::array::from_fn(|i| 0xe0 ^ i as u8))
}

fn segments() -> [(SegmentHeader, Vec<u8>); 3] {
    let text = b"every object is created once and never overwritten";
    let footer = (0..70).collect();
    [
        (SegmentHeader { index: 0, last: false, plain_len: 50, codec: 0, role: 0 }, text.to_vec()),
        (SegmentHeader { index: 258, last: false, plain_len: 1 << 20, codec: 1, role: 2 }, Vec::new()),
        (SegmentHeader { index: 70_000, last: true, plain_len: 300, codec: 1, role: 255 }, footer),
    ]
}

fn object(suite: Suite, file: &str) {
    let context =
        ObjectContext { repository: REPOSITORY, epoch: EPOCH, kind: ObjectKind::Pack, name: "packs/golden/000001" };
    for backend in Backend::ALL {
        let salt = std::array::from_fn(|i| 0xa0 + i as u8);
        let sealer = ObjectSealer::with_backend(*backend, suite, &epoch_key(), &context, salt).unwrap();
        let sealed = segments().map(|(segment, plain)| {
            let mut sealed = Vec::new();
            sealer.seal(segment, &plain, &mut sealed).unwrap();
            sealed
        });
        let [first, second, third] = sealed;
        let made = [
            ("header", sealer.header().encode().to_vec()),
            ("segment 0", first),
            ("segment 258", second),
            ("segment 70000", third),
        ];
        let pinned = golden(file, &made);

        let header = ObjectHeader::parse(&pinned["header"]).unwrap();
        let opener = ObjectOpener::with_backend(*backend, &epoch_key(), &context, &header).unwrap();
        for (segment, plain) in segments() {
            let mut out = Vec::new();
            opener.open(segment, &pinned[&format!("segment {}", segment.index)], &mut out).unwrap();
            assert_eq!(out, plain, "{backend}");
        }
    }
}

#[test]
fn object_of_chacha20_poly1305() {
    object(Suite::ChaCha20Poly1305, "object-chacha20-poly1305.hex");
}

#[test]
fn object_of_aes_256_gcm() {
    object(Suite::Aes256Gcm, "object-aes-256-gcm.hex");
}

fn wrapped(file: &str, recipient: &Recipient, identity: &Identity) {
    let wrap = recipient.wrap(&epoch_key(), REPOSITORY, EPOCH, &Counting::default()).unwrap();
    let pinned = golden(file, &[("recipient", wrap.recipient().to_string().into_bytes()), ("wrap", wrap.encode())]);
    let wrap = WrappedKey::parse(&pinned["wrap"]).unwrap();
    assert_eq!(wrap.recipient().as_str().as_bytes(), pinned["recipient"]);
    assert_eq!(identity.unwrap(&wrap, REPOSITORY, EPOCH).unwrap(), epoch_key());
}

#[test]
fn wrap_for_a_passphrase() {
    let passphrase = Passphrase::new("gölden passphrase").unwrap();
    let recipient = Recipient::Passphrase(passphrase.clone(), PassphraseParams::new(256, 2, 2).unwrap());
    wrapped("wrap-passphrase.hex", &recipient, &passphrase.into());
}

#[test]
fn wrap_for_a_raw_key() {
    let key = RawKey::take(&mut [0x5a; 32]);
    wrapped("wrap-raw-key.hex", &key.clone().into(), &key.into());
}

#[test]
fn wrap_for_an_x25519_key() {
    let secret = X25519SecretKey::take(&mut std::array::from_fn(|i| 3 * i as u8));
    let texts = [
        ("public key as text", secret.public_key().to_string().into_bytes()),
        ("secret key as text", secret.to_secret_text().as_bytes().to_vec()),
    ];
    golden("x25519-texts.hex", &texts);
    wrapped("wrap-x25519.hex", &secret.public_key().into(), &secret.into());
}

#[test]
fn wrap_by_a_service() {
    #[derive(Debug)]
    struct Service;

    impl std::fmt::Display for Service {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Service")
        }
    }

    #[async_trait::async_trait]
    impl KeyWrapper for Service {
        fn recipient_id(&self) -> RecipientId {
            "kms-golden".parse().unwrap()
        }

        async fn wrap(&self, context: &WrapContext<'_>, _: &EpochKey) -> Result<Vec<u8>> {
            Ok(context.associated_data().into_bytes())
        }

        async fn unwrap(&self, context: &WrapContext<'_>, sealed: &[u8]) -> Result<EpochKey> {
            assert_eq!(sealed, context.associated_data().as_bytes());
            Ok(epoch_key())
        }
    }

    futures::executor::block_on(async {
        let wrap = WrappedKey::wrap_by(&Service, &epoch_key(), REPOSITORY, EPOCH).await.unwrap();
        let pinned = golden("wrap-service.hex", &[("wrap", wrap.encode())]);
        let wrap = WrappedKey::parse(&pinned["wrap"]).unwrap();
        assert_eq!(wrap.unwrap_by(&Service, REPOSITORY, EPOCH).await.unwrap(), epoch_key());
    });
}

#[test]
fn identities_and_fingerprints() {
    let hash = HashKey::derive(&epoch_key(), REPOSITORY);
    let block = vec![0x42; 128 << 10];
    golden(
        "identities.hex",
        &[
            ("epoch fingerprint", epoch_key().fingerprint(REPOSITORY, EPOCH).as_bytes().to_vec()),
            ("block of nothing", hash.block(b"").to_vec()),
            ("block of 128 KiB of 0x42", hash.block(&block).to_vec()),
            ("content of nothing", hash.content(b"").to_vec()),
            ("content of 128 KiB of 0x42", hash.content(&block).to_vec()),
        ],
    );
}

#[test]
fn hosts_that_only_write() {
    let secret = HostSecret::derive(&epoch_key(), REPOSITORY, EPOCH, b"golden-host-id-1");
    assert_eq!(secret.to_secret_text().parse::<HostSecret>().unwrap(), secret);
    let hash = HashKey::from_secret(&secret.hash_root(), REPOSITORY.as_bytes());
    golden(
        "host.hex",
        &[
            ("text", secret.to_secret_text().as_bytes().to_vec()),
            ("tag", secret.tag("packs/x/deposit", b"body").to_vec()),
            ("hash root", secret.hash_root().to_vec()),
            ("block of nothing", hash.block(b"").to_vec()),
            ("deposit key", epoch_key().deposit_key(REPOSITORY, EPOCH).public_key().as_bytes().to_vec()),
        ],
    );
}
