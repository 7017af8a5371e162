use super::*;

fn parse(text: &str) -> Result<Settings> {
    Settings::parse(text, |name| (name == "USER").then(|| "me".to_owned()))
}

fn with(text: &str, variables: &[(&str, &str)]) -> Result<Settings> {
    Settings::parse(text, |name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
}

fn addresses(settings: &Settings) -> Vec<String> {
    settings.hosts.iter().map(ToString::to_string).collect()
}

#[test]
fn defaults_are_those_of_the_manual() {
    let settings = parse("").unwrap();
    assert_eq!(addresses(&settings), ["/var/run/postgresql/.s.PGSQL.5432", "/tmp/.s.PGSQL.5432"]);
    assert_eq!(settings.user, "me");
    assert_eq!(settings.tls.mode, SslMode::Prefer);
    assert_eq!(settings.target_session, TargetSession::Any);
    assert!(settings.database.is_none() && settings.password.is_none());
}

#[test]
fn several_hosts_share_a_port_or_have_their_own() {
    assert_eq!(addresses(&parse("host=a,b port=1").unwrap()), ["a:1", "b:1"]);
    assert_eq!(addresses(&parse("host=a,/s,::1 port=1,,3").unwrap()), ["a:1", "/s/.s.PGSQL.5432", "[::1]:3"]);
    assert_eq!(addresses(&parse("postgresql://a:1,b/").unwrap()), ["a:1", "b:5432"]);
    assert_eq!(addresses(&parse("port=6000").unwrap())[0], "/var/run/postgresql/.s.PGSQL.6000");
    for text in ["host=a,b port=1,2,3", "host=a port=1,2", "host=a,b hostaddr=::1", "port=0", "port=65536", "port=x"] {
        assert!(matches!(parse(text), Err(Error::Settings(_))), "{text}");
    }
}

#[test]
fn a_given_address_keeps_the_name_for_certificates() {
    let settings = parse("host=db.example hostaddr=127.0.0.1").unwrap();
    assert_eq!(
        settings.hosts,
        [Host::Tcp { name: "db.example".into(), address: Some("127.0.0.1".into()), port: 5432 }]
    );
}

#[test]
fn the_environment_fills_what_the_string_leaves_open() {
    let variables = [
        ("PGHOST", "envhost"),
        ("PGPORT", "77"),
        ("PGUSER", "envuser"),
        ("PGPASSWORD", "envpass"),
        ("PGDATABASE", "envdb"),
        ("PGAPPNAME", "envapp"),
        ("PGCONNECT_TIMEOUT", "3"),
        ("PGSSLMODE", "disable"),
        ("PGTARGETSESSIONATTRS", "standby"),
        ("PGOPTIONS", "-c x=y"),
    ];
    let settings = with("user=given", &variables).unwrap();
    assert_eq!(addresses(&settings), ["envhost:77"]);
    assert_eq!((settings.user.as_str(), settings.database.as_deref()), ("given", Some("envdb")));
    assert_eq!(settings.password.as_ref().unwrap().reveal(), "envpass");
    assert_eq!(settings.application_name, "envapp");
    assert_eq!(settings.connect_timeout, Some(Duration::from_secs(3)));
    assert_eq!(settings.tls.mode, SslMode::Disable);
    assert_eq!(settings.target_session, TargetSession::Standby);
    assert_eq!(settings.options.as_deref(), Some("-c x=y"));
}

#[test]
fn protection_that_cannot_be_given_is_refused() {
    for text in [
        "gssencmode=require",
        "sslcrl=/x",
        "requirepeer=root",
        "require_auth=scram-sha-256",
        "service=x",
        "load_balance_hosts=random",
        "ssl_max_protocol_version=TLSv1.2",
        "sslmode=verify-full",
        "sslmode=verify-ca",
        "sslrootcert=system sslmode=require",
        "sslnegotiation=direct",
        "sslcert=/x",
        "sslmode=yes",
        "unknown=1",
        "host=@abstract",
        "channel_binding=no",
    ] {
        assert!(matches!(parse(text), Err(Error::Settings(_))), "{text}");
    }
    for text in
        ["gssencmode=prefer", "load_balance_hosts=disable", "keepalives=1 sslsni=1", "ssl_max_protocol_version=TLSv1.3"]
    {
        assert!(parse(text).is_ok(), "{text}");
    }
    assert_eq!(parse("sslrootcert=system").unwrap().tls.mode, SslMode::VerifyFull);
}

#[test]
fn no_password_is_ever_shown() {
    let settings = parse("password=hunter2 host=h").unwrap();
    assert!(!format!("{settings:?}").contains("hunter2"));
    for text in ["password='hunter2", "password=hunter2 nonsense=hunter2", "postgresql://u:hunter2%@h"] {
        let error = parse(text).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
}

#[test]
fn without_any_user_there_are_no_settings() {
    assert!(matches!(with("", &[]), Err(Error::Settings(_))));
}

#[cfg(unix)]
#[test]
fn the_password_file_is_asked_per_host() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join(".pgpass");
    std::fs::write(&file, "a:*:*:*:one\nb:*:replication:*:two\nlocalhost:*:*:*:three\n/s:*:*:*:four\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let home = home.path().to_str().unwrap();
    let password = |text: &str, database: &str| {
        let settings = with(text, &[("HOME", home), ("USER", "me")]).unwrap();
        settings.password_for(&settings.hosts[0], database).map(|p| p.reveal().to_owned())
    };
    assert_eq!(password("host=a", "x").as_deref(), Some("one"));
    assert_eq!(password("host=b", "x"), None);
    assert_eq!(password("host=b", "replication").as_deref(), Some("two"));
    assert_eq!(password("", "x").as_deref(), Some("three"));
    assert_eq!(password("host=/s", "x").as_deref(), Some("four"));
    assert_eq!(password("host=a password=given", "x").as_deref(), Some("given"));
}
