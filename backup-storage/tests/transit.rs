//! Vault's transit engine as a recipient, against a small server that speaks its documented protocol.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backup_core::ErrorKind;
use backup_core::catalog::{Actor, Role};
use backup_core::engine::Work;
use backup_core::env::Env;
use backup_core::repository::{Repository as _, VerifyLevel};
use backup_crypto::{Identity, KeyWrapper, RawKey};
use backup_storage::store::Store;
use backup_storage::transit::{TransitSettings, VaultTransit};
use backup_storage::{AddRecipient, CreateOptions, KeyHolder, Repository, RepositorySettings, Unlock};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const TOKEN: &str = "hvs.secret-of-a-test";

/// What a transit engine keeps, and what it was asked.
#[derive(Debug, Default)]
struct Engine {
    version: u32,
    /// Ciphertexts below this version are not opened any more.
    least: u32,
    /// By ciphertext: plaintext and associated data.
    wrapped: BTreeMap<String, (String, String)>,
    /// Answered instead of anything else.
    failure: Option<(u16, String)>,
    asked: Vec<String>,
}

impl Engine {
    fn answer(&mut self, path: &str, token: &str, body: &Value) -> (u16, String) {
        self.asked.push(path.to_owned());
        let error = |status: u16, text: &str| (status, json!({ "errors": [text] }).to_string());
        if let Some(failure) = self.failure.clone() {
            return failure;
        }
        if token != TOKEN {
            return error(403, "permission denied");
        }
        let text = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
        match path {
            "/v1/kms/transit/encrypt/backups" => {
                let ciphertext = format!("vault:v{}:{}", self.version, self.wrapped.len());
                self.wrapped.insert(ciphertext.clone(), (text("plaintext"), text("associated_data")));
                (200, json!({ "data": { "ciphertext": ciphertext, "key_version": self.version } }).to_string())
            }
            "/v1/kms/transit/decrypt/backups" => {
                let ciphertext = text("ciphertext");
                let version: u32 = ciphertext[7..].split_once(':').unwrap().0.parse().unwrap();
                match self.wrapped.get(&ciphertext) {
                    Some(_) if version < self.least => {
                        error(400, "ciphertext or signature version is disallowed by policy (too old)")
                    }
                    Some((plaintext, bound)) if *bound == text("associated_data") => {
                        (200, json!({ "data": { "plaintext": plaintext } }).to_string())
                    }
                    _ => error(400, "cipher: message authentication failed"),
                }
            }
            _ => error(400, "encryption key not found"),
        }
    }
}

struct Server {
    url: String,
    engine: Arc<Mutex<Engine>>,
}

async fn exchange(mut stream: TcpStream, engine: Arc<Mutex<Engine>>) -> Option<()> {
    let mut bytes = Vec::new();
    let (head, body) = loop {
        let mut piece = [0; 4096];
        let len = stream.read(&mut piece).await.ok().filter(|len| *len > 0)?;
        bytes.extend_from_slice(&piece[..len]);
        let text = String::from_utf8(bytes.clone()).ok()?;
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let field = |name: &str| {
            let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}: ")));
            line.map(|line| line[name.len() + 2..].to_owned())
        };
        if body.len() == field("content-length")?.parse::<usize>().ok()? {
            assert_eq!(field("x-vault-request").as_deref(), Some("true"));
            assert_eq!(field("x-vault-namespace").as_deref(), Some("team"));
            let token = field("x-vault-token").unwrap_or_default();
            break ((head.lines().next()?.split(' ').nth(1)?.to_owned(), token), serde_json::from_str(body).ok()?);
        }
    };
    let (status, body) = engine.lock().unwrap().answer(&head.0, &head.1, &body);
    if status == 0 {
        // It never answers.
        std::future::pending::<()>().await;
    }
    let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    stream.write_all(answer.as_bytes()).await.ok()
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let engine = Arc::new(Mutex::new(Engine { version: 1, ..Engine::default() }));
        let shared = Arc::clone(&engine);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(exchange(stream, Arc::clone(&shared)));
            }
        });
        Self { url, engine }
    }

    fn settings(&self, token: &str) -> TransitSettings {
        let settings = TransitSettings::new(&self.url, "backups", token.to_owned().into()).unwrap();
        settings.mount("kms/transit").unwrap().namespace("team").timeout(Duration::from_millis(500))
    }

    fn key(&self) -> Arc<dyn KeyWrapper> {
        Arc::new(VaultTransit::new(self.settings(TOKEN)).unwrap())
    }

    fn fail(&self, failure: Option<(u16, &str)>) {
        self.engine.lock().unwrap().failure = failure.map(|(status, text)| (status, text.to_owned()));
    }
}

fn service() -> backup_core::ServiceId {
    backup_core::ServiceId::new("svc").unwrap()
}

async fn open(store: &Store, unlock: impl Into<Unlock>) -> backup_storage::error::Result<Repository> {
    Repository::open(store, service(), unlock, &RepositorySettings::default(), Env::seeded(1)).await
}

#[tokio::test]
async fn a_repository_is_created_opened_and_rotated_by_a_key_that_never_leaves_the_service() {
    let server = Server::start().await;
    let (store, env) = (Store::memory(), Env::seeded(1));
    let options = CreateOptions::default().service(server.key());
    let offline = RawKey::take(&mut [1; 32]);
    let (recipients, settings) = (vec![offline.clone().into()], RepositorySettings::default());
    Repository::create(&store, service(), recipients, options, &settings, env.clone()).await.unwrap();
    let (by, work) = (Actor::new(Role::Operator, "test"), Work::new(env));
    let repository = open(&store, server.key()).await.unwrap();
    repository.catalog().await.unwrap();
    let given = [KeyHolder::from(offline.clone())];
    repository.rotate_keys(&given, &by, &work).await.unwrap();
    assert_eq!(repository.keys().await.unwrap().current, 2);
    assert!(repository.keys().await.unwrap().recipients.iter().any(|r| r.kind.as_deref() == Some("key service")));
    open(&store, server.key()).await.unwrap().catalog().await.unwrap();

    // A new version of the key, and the end of the old one.
    server.engine.lock().unwrap().version = 2;
    open(&store, server.key()).await.unwrap().catalog().await.unwrap();
    let options = AddRecipient::default().rewrap();
    let rewrapped = repository.add_recipient(&KeyHolder::Service(server.key()), &options, &by, &work).await.unwrap();
    assert_eq!((rewrapped.stored, rewrapped.deleted), (2, 2));
    server.engine.lock().unwrap().least = 2;
    let repository = open(&store, server.key()).await.unwrap();
    assert!(repository.verify(VerifyLevel::Full, &work).await.unwrap().is_sound());

    // The offline key needs no service, and can remove it when it is given up.
    server.fail(Some((503, r#"{"errors":["Vault is sealed"]}"#)));
    let repository = open(&store, Identity::from(offline)).await.unwrap();
    repository.remove_recipient(&server.key().recipient_id(), &[], &by, &work).await.unwrap();
    server.fail(None);
    assert_eq!(open(&store, server.key()).await.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn what_the_service_refuses_is_said_and_no_secret_is() {
    let server = Server::start().await;
    let (store, env) = (Store::memory(), Env::seeded(1));
    let options = CreateOptions::default().service(server.key());
    Repository::create(&store, service(), Vec::new(), options, &RepositorySettings::default(), env).await.unwrap();
    let long = format!(r#"{{"errors":["{}"]}}"#, "x".repeat(70_000));
    let cases = [
        (503, r#"{"errors":["Vault is sealed"]}"#, ErrorKind::Unavailable, "sealed"),
        (403, r#"{"errors":["permission denied"]}"#, ErrorKind::Environment, "permission denied"),
        (400, r#"{"errors":["encryption key not found"]}"#, ErrorKind::Environment, "no such key"),
        (404, r#"{"errors":[]}"#, ErrorKind::Environment, "no such engine"),
        (429, "", ErrorKind::Unavailable, "too many"),
        (500, "<html>", ErrorKind::Unavailable, "server failed"),
        (307, "", ErrorKind::Environment, "another server"),
        (400, r#"{"errors":["cipher: message authentication failed"]}"#, ErrorKind::Damaged, "not one of this key"),
        (200, r#"{"data":{"plaintext":"AAAA"}}"#, ErrorKind::Damaged, "no key of an epoch"),
        (200, r#"{"data":{}}"#, ErrorKind::Unavailable, "not understood"),
        (200, long.as_str(), ErrorKind::Unavailable, "more than 65536 bytes"),
        (0, "", ErrorKind::Unavailable, "timed out"),
    ];
    for (status, body, kind, said) in cases {
        server.fail(Some((status, body)));
        let error = backup_core::Error::from(open(&store, server.key()).await.unwrap_err());
        let text = format!("{error}: {}", error.causes().join(": "));
        assert_eq!(error.kind(), kind, "{status} {text}");
        assert!(text.contains(said) && !text.contains(TOKEN), "{status} {text}");
    }
    server.fail(None);
    let wrong = VaultTransit::new(server.settings("hvs.wrong")).unwrap();
    assert_eq!(open(&store, Unlock::service(wrong)).await.unwrap_err().kind(), ErrorKind::Environment);
    let key = VaultTransit::new(server.settings(TOKEN)).unwrap();
    assert!(!format!("{key} {key:?} {:?}", server.settings(TOKEN)).contains(TOKEN));
    open(&store, server.key()).await.unwrap();
    for key in ["", "../sys", "a/b", "a?b", ".."] {
        assert!(TransitSettings::new(&server.url, key, String::new().into()).is_err(), "{key}");
    }
    assert!(TransitSettings::new("https://user:word@host", "k", String::new().into()).is_err());
    let https = TransitSettings::new("https://127.0.0.1:1", "k", String::new().into()).unwrap();
    assert_eq!(VaultTransit::new(https).unwrap_err().kind(), ErrorKind::InvalidInput, "nobody is trusted unasked");
}
