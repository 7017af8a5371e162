//! From a connected stream to a session that is ready: startup parameters, authentication, first parameters.
//!
//! Source: manual, "Message Flow", "Start-up" and "SASL Authentication". A server that says "authenticated" before it has
//! proven itself in a SCRAM exchange is not believed, and with `channel_binding=require` nothing but SCRAM-PLUS over
//! TLS is answered at all: no password, no hash.

use std::collections::BTreeMap;

use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{self, ScramSha256};
use postgres_protocol::message::frontend;

use super::certificate::server_end_point;
use super::channel::Channel;
use super::message::{Authentication, Message};
use super::session::SessionKind;
use crate::conn::{ChannelBinding, Host, Secret, Settings};
use crate::error::{Error, Result, ServerError};

/// SCRAM's cost is chosen by the server; a hostile one must not be able to keep a core busy for minutes.
const MAX_SCRAM_ITERATIONS: u32 = 5_000_000;

/// What a server reports while a session starts.
#[derive(Debug, Default)]
pub(super) struct Started {
    pub(super) parameters: BTreeMap<String, String>,
    pub(super) notices: Vec<ServerError>,
}

pub(super) async fn start(
    channel: &mut Channel,
    settings: &Settings,
    host: &Host,
    kind: SessionKind,
) -> Result<Started> {
    let database = settings.database.clone().unwrap_or_else(|| settings.user.clone());
    // A physical replication session has no database and so no encoding. Told UTF8, a server up to 16 fails with 22021 as
    // soon as it warns of a file whose name is anything else.
    let encoding = if kind == SessionKind::Replication { "SQL_ASCII" } else { "UTF8" };
    let mut parameters = vec![
        ("user", settings.user.as_str()),
        ("application_name", settings.application_name.as_str()),
        ("client_encoding", encoding),
        // What is parsed must not depend on the role's or the database's settings.
        ("DateStyle", "ISO"),
        ("TimeZone", "UTC"),
    ];
    match kind {
        SessionKind::Sql => parameters.push(("database", &database)),
        SessionKind::Replication => parameters.push(("replication", "true")),
        SessionKind::ReplicationDatabase => {
            parameters.push(("database", &database));
            parameters.push(("replication", "database"));
        }
    }
    if let Some(options) = &settings.options {
        parameters.push(("options", options));
    }
    channel.queue(|out| frontend::startup_message(parameters, out))?;
    channel.flush().await?;

    let lookup = if kind == SessionKind::Replication { "replication" } else { database.as_str() };
    let mut login = Login { settings, host, lookup, scram: None, proven: false };
    let mut started = Started::default();
    loop {
        match channel.receive("the session's start").await? {
            Message::Authentication(request) => login.answer(channel, request).await?,
            Message::ParameterStatus(name, value) => {
                started.parameters.insert(name, value);
            }
            Message::Notice(notice) => started.notices.push(notice),
            Message::BackendKeyData(_) | Message::NegotiateProtocolVersion => {}
            Message::ReadyForQuery(_) if login.proven => return Ok(started),
            Message::Error(error) => return Err(refusal(settings, error)),
            other => return Err(Error::protocol(format!("unexpected {other:?} while a session starts"))),
        }
    }
}

/// Which of the errors of this crate a refused start is.
fn refusal(settings: &Settings, error: ServerError) -> Error {
    let user = settings.user.clone();
    // ClientAuthentication reports missing pg_hba.conf lines; the message is translated, the routine's name is not.
    let no_line = error.routine.as_deref() == Some("ClientAuthentication");
    match error.sqlstate.as_str() {
        "42501" => Error::NotPermitted { user, server: Box::new(error) },
        "28000" if no_line => Error::NotPermitted { user, server: Box::new(error) },
        "28000" | "28P01" => Error::Authentication { user, reason: error.to_string() },
        _ => Error::Server(Box::new(error)),
    }
}

struct Login<'a> {
    settings: &'a Settings,
    host: &'a Host,
    /// The database name under which the password file is asked.
    lookup: &'a str,
    scram: Option<ScramSha256>,
    proven: bool,
}

impl Login<'_> {
    fn failed(&self, reason: impl Into<String>) -> Error {
        Error::Authentication { user: self.settings.user.clone(), reason: reason.into() }
    }

    fn password(&self) -> Result<Secret> {
        self.settings
            .password_for(self.host, self.lookup)
            .ok_or_else(|| self.failed("the server wants a password and none is given"))
    }

    async fn answer(&mut self, channel: &mut Channel, request: Authentication) -> Result<()> {
        let bound = self.settings.tls.channel_binding == ChannelBinding::Require;
        match request {
            Authentication::Ok if self.scram.is_some() => {
                return Err(self.failed("the server did not prove that it knows the password"));
            }
            Authentication::Ok if bound && !self.proven => {
                return Err(self.failed("channel binding is required, but the server asked for no proof"));
            }
            Authentication::Ok => {
                self.proven = true;
                return Ok(());
            }
            Authentication::Cleartext | Authentication::Md5(_) if bound => {
                return Err(self.failed("channel binding is required, but the server wants a plain password"));
            }
            Authentication::Cleartext => {
                let password = self.password()?;
                channel.queue(|out| frontend::password_message(password.reveal().as_bytes(), out))?;
            }
            Authentication::Md5(salt) => {
                let password = self.password()?;
                let hash = md5_hash(self.settings.user.as_bytes(), password.reveal().as_bytes(), salt);
                channel.queue(|out| frontend::password_message(hash.as_bytes(), out))?;
            }
            Authentication::Sasl(mechanisms) => {
                let password = self.password()?;
                let (mechanism, binding) = self.mechanism(channel, &mechanisms)?;
                let scram = ScramSha256::new(password.reveal().as_bytes(), binding);
                channel.queue(|out| frontend::sasl_initial_response(mechanism, scram.message(), out))?;
                self.scram = Some(scram);
            }
            Authentication::SaslContinue(data) => {
                if scram_iterations(&data).is_none_or(|count| count > MAX_SCRAM_ITERATIONS) {
                    return Err(self.failed("the server's scram iteration count is not acceptable"));
                }
                let scram = self.scram.as_mut().ok_or_else(|| Error::protocol("a sasl message before sasl began"))?;
                let updated = scram.update(&data).map(|()| scram.message().to_vec());
                let response = updated.map_err(|error| self.failed(error.to_string()))?;
                channel.queue(|out| frontend::sasl_response(&response, out))?;
            }
            Authentication::SaslFinal(data) => {
                let mut scram = self.scram.take().ok_or_else(|| Error::protocol("a sasl message before sasl began"))?;
                scram.finish(&data).map_err(|_| self.failed("the server's proof is wrong"))?;
                self.proven = true;
                return Ok(());
            }
            Authentication::Unsupported(number) => {
                return Err(
                    self.failed(format!("the server wants authentication method {number}, which is not supported"))
                );
            }
        }
        channel.flush().await
    }

    /// The mechanism to use and what binds it to the channel.
    fn mechanism(&self, channel: &Channel, offered: &[String]) -> Result<(&'static str, sasl::ChannelBinding)> {
        let offers = |name: &str| offered.iter().any(|offer| offer == name);
        let wish = self.settings.tls.channel_binding;
        let point = match channel.transport().peer_certificate() {
            Some(certificate) if wish != ChannelBinding::Disable => server_end_point(&certificate),
            _ => None,
        };
        match point {
            Some(point) if offers(sasl::SCRAM_SHA_256_PLUS) => {
                Ok((sasl::SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(point)))
            }
            _ if wish == ChannelBinding::Require => {
                let reason =
                    if channel.transport().is_tls() { "the server or its certificate" } else { "without tls, it" };
                Err(self.failed(format!("channel binding is required, but {reason} cannot give it")))
            }
            // "I could, but you do not offer it": a server that did offer it knows that somebody has cut it out.
            Some(_) if offers(sasl::SCRAM_SHA_256) => Ok((sasl::SCRAM_SHA_256, sasl::ChannelBinding::unrequested())),
            None if offers(sasl::SCRAM_SHA_256) => Ok((sasl::SCRAM_SHA_256, sasl::ChannelBinding::unsupported())),
            _ => Err(self.failed(format!("none of the offered mechanisms {offered:?} is supported"))),
        }
    }
}

/// The iteration count in a server-first-message `r=…,s=…,i=4096` (RFC 5802 §5.1).
fn scram_iterations(message: &[u8]) -> Option<u32> {
    std::str::from_utf8(message).ok()?.split(',').find_map(|part| part.strip_prefix("i="))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_iteration_count_is_found() {
        assert_eq!(scram_iterations(b"r=abc,s=c2FsdA==,i=4096"), Some(4096));
        assert_eq!(scram_iterations(b"r=abc,s=c2FsdA=="), None);
        assert_eq!(scram_iterations(b"i=99999999999"), None);
    }

    #[test]
    fn refusals_name_the_right_party() {
        let settings = Settings::parse("user=u host=h", |_| None).unwrap();
        let error = |sqlstate: &str, routine: &str| {
            let error =
                ServerError { sqlstate: sqlstate.into(), routine: Some(routine.into()), ..ServerError::default() };
            refusal(&settings, error)
        };
        assert!(matches!(error("42501", "InitPostgres"), Error::NotPermitted { .. }));
        assert!(matches!(error("28000", "ClientAuthentication"), Error::NotPermitted { .. }));
        assert!(matches!(error("28000", "InitializeSessionUserId"), Error::Authentication { .. }));
        assert!(matches!(error("28P01", "auth_failed"), Error::Authentication { .. }));
        assert!(matches!(error("53300", "InitProcess"), Error::Server(_)));
    }
}
