//! Against a real server on this host.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::*;
use crate::ErrorKind;
use crate::catalog::{Actor, Audited, Role, ServiceChange};

/// One request as it came.
#[derive(Debug, Clone)]
struct Request {
    head: String,
    body: String,
}

impl Request {
    fn header(&self, name: &str) -> &str {
        let found = self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        });
        found.unwrap_or_else(|| panic!("no {name}: {}", self.head))
    }
}

/// A server that answers with what it is told, one answer for each connection; an empty one is silence.
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start(answers: &[&str], tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (address, seen) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<Request>>>::default());
        let (answers, taken): (Vec<_>, _) = (answers.iter().map(|&a| a.to_owned()).collect(), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            let mut open: Vec<Box<dyn std::any::Any + Send>> = Vec::new();
            for answer in answers {
                let (tcp, _) = listener.accept().await.unwrap();
                match &tls {
                    None => open.push(Box::new(answered(tcp, &answer, &taken).await)),
                    // A client that does not believe the certificate goes away.
                    Some(tls) => {
                        let Ok(stream) = tls.accept(tcp).await else { continue };
                        open.push(Box::new(answered(stream, &answer, &taken).await));
                    }
                }
            }
        });
        Self { address, seen, task }
    }

    fn notifier(&self, tune: impl FnOnce(WebhookSettings) -> WebhookSettings) -> WebhookNotifier {
        let secret = WebhookSecret::new(*b"correct horse battery").unwrap();
        let settings = WebhookSettings::new(format!("http://{}/hook?x=1", self.address), secret);
        let settings = settings.pause(Duration::from_millis(1));
        WebhookNotifier::new(tune(settings), Env::system()).unwrap()
    }
}

async fn answered<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, answer: &str, seen: &Mutex<Vec<Request>>) -> S {
    let mut text = String::new();
    let (head, body) = loop {
        let mut piece = [0; 4096];
        let read = stream.read(&mut piece).await.unwrap();
        assert_ne!(read, 0, "the request ends early: {text}");
        text.push_str(std::str::from_utf8(&piece[..read]).unwrap());
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|l| l.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if length.is_some_and(|length: usize| body.len() >= length) {
            break (head.to_owned(), body.to_owned());
        }
    };
    seen.lock().push(Request { head, body });
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    stream
}

const OK: &str = "HTTP/1.1 204 No Content\r\n\r\n";
const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
const NEVER: &str = "HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n";
const SILENCE: &str = "";

fn service() -> ServiceId {
    ServiceId::new("orders").unwrap()
}

fn changed() -> Notice {
    let (at, by) = (Timestamp::UNIX_EPOCH, Actor::new(Role::Owner, "kim"));
    Notice::Changed(Box::new(Audited { at, by, change: ServiceChange::PlanChanged { plan: "premium".to_owned() } }))
}

#[tokio::test]
async fn a_notice_arrives_signed_and_says_what_happened() {
    let server = Server::start(&[OK], None).await;
    server.notifier(|s| s).notify(&service(), &changed()).await.unwrap();
    let request = server.seen.lock()[0].clone();
    assert!(request.head.starts_with("POST /hook?x=1 HTTP/1.1\r\n"), "{}", request.head);
    assert_eq!(request.header("host"), server.address.to_string());
    let body: Value = serde_json::from_str(&request.body).unwrap();
    assert_eq!((&body["service"], &body["notice"]), (&"orders".into(), &"changed".into()));
    assert_eq!((&body["change"], &body["plan"]), (&"plan_changed".into(), &"premium".into()));
    assert_eq!(body["id"], request.header("backup-notice-id"));
    // As a receiver would.
    let (moment, signature) = request.header("backup-signature").split_once(',').unwrap();
    let moment = moment.strip_prefix("t=").unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(b"correct horse battery").unwrap();
    mac.update(format!("{moment}.{}", request.body).as_bytes());
    assert_eq!(signature, format!("v1={}", hex(&mac.finalize().into_bytes())));
    let age = Env::system().now().as_second() - moment.parse::<i64>().unwrap();
    assert!((0..60).contains(&age), "{age}");
}

#[tokio::test]
async fn what_fails_is_tried_again_under_the_same_id() {
    let server = Server::start(&[BUSY, SILENCE, OK, OK, OK, OK], None).await;
    let notifier = server.notifier(|s| s.attempt_timeout(Duration::from_secs(1)));
    notifier.notify(&service(), &changed()).await.unwrap();
    notifier.notify(&service(), &changed()).await.unwrap();
    let ids = || server.seen.lock().iter().map(|r| r.header("backup-notice-id").to_owned()).collect::<Vec<_>>();
    let seen = ids();
    assert!(seen.len() == 4 && seen.iter().all(|id| *id == seen[0]), "the same notice, whenever it comes: {seen:?}");
    let trouble = Notice::Trouble { text: "no route".to_owned() };
    notifier.notify(&service(), &trouble).await.unwrap();
    notifier.notify(&service(), &trouble).await.unwrap();
    let seen = ids();
    assert!(seen[4] != seen[5] && seen[4] != seen[0], "trouble that comes again is another: {seen:?}");
}

#[tokio::test]
async fn nobody_waits_longer_than_was_said_and_a_refusal_is_final() {
    let server = Server::start(&[NEVER, SILENCE, BUSY, BUSY, BUSY], None).await;
    let refused = server.notifier(|s| s).notify(&service(), &changed()).await.unwrap_err();
    assert_eq!((refused.kind(), server.seen.lock().len()), (ErrorKind::Environment, 1), "{refused}");
    let clock = Env::system();
    let begun = clock.clock().monotonic();
    let bounded = server.notifier(|s| s.within(Duration::from_millis(300)));
    let late = bounded.notify(&service(), &changed()).await.unwrap_err();
    let took = clock.clock().monotonic() - begun;
    assert_eq!(late.kind(), ErrorKind::Unavailable, "{late}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    let tried = server.notifier(|s| s.attempts(3)).notify(&service(), &changed()).await.unwrap_err();
    assert!(tried.to_string().contains("3 attempts") && server.seen.lock().len() == 5, "{tried}");
}

#[tokio::test]
async fn a_server_is_believed_by_its_certificate_only() {
    let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let server = Server::start(&[OK, OK, OK], Some(TlsAcceptor::from(Arc::new(config)))).await;
    let roots = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(roots.path(), certified.cert.pem()).unwrap();
    let url = format!("https://{}/hook", server.address);
    let secret = || WebhookSecret::new([1; 32]).unwrap();
    let settings = WebhookSettings::new(&url, secret()).roots(roots.path());
    WebhookNotifier::new(settings, Env::system()).unwrap().notify(&service(), &changed()).await.unwrap();
    assert_eq!(server.seen.lock().len(), 1);
    let another = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(roots.path(), another.cert.pem()).unwrap();
    let settings = WebhookSettings::new(&url, secret()).roots(roots.path()).attempts(1);
    let distrusted = WebhookNotifier::new(settings, Env::system()).unwrap().notify(&service(), &changed()).await;
    assert_eq!(distrusted.unwrap_err().kind(), ErrorKind::Environment);
    assert_eq!(server.seen.lock().len(), 1, "nothing was said to it");
}

#[test]
fn secrets_are_long_and_never_shown() {
    assert_eq!(WebhookSecret::new("short").unwrap_err().kind(), ErrorKind::InvalidInput);
    let settings = WebhookSettings::new("https://example.com", WebhookSecret::new("hunter2 hunter2 hunter2").unwrap());
    assert!(!format!("{settings:?}").contains("hunter2"));
}
