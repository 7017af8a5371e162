//! Definitions of ClickHouse objects. Never panics, and what was changed is a statement that says what it was changed to.

#![no_main]

use backup_clickhouse::ddl::{ObjectKind, Statement, Verb, escape_for_file_name, order, quote, unescape_for_file_name};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [mode, bytes @ ..] = data else { return };
    let edges = bytes.chunks_exact(2).take(200).map(|pair| (pair[0], pair[1]));
    let sorted = order(bytes.iter().copied().take(200), edges);
    assert!(sorted.sorted.len() <= 200);

    let Ok(text) = std::str::from_utf8(bytes) else { return };
    assert_eq!(quote::unquote(&quote::string(text)).as_deref(), Some(text));
    assert_eq!(quote::unquote(&quote::identifier(text)).as_deref(), Some(text));
    if let Some(value) = quote::unquote(text) {
        assert_eq!(quote::unquote(&quote::identifier(&value)), Some(value));
    }
    assert_eq!(unescape_for_file_name(&escape_for_file_name(text)).as_deref(), Some(text));
    if let Some(name) = unescape_for_file_name(text) {
        assert_eq!(escape_for_file_name(&name), text);
    }

    let text = match mode % 5 {
        0 => text.to_owned(),
        1 => format!("CREATE TABLE d.t {text}"),
        2 => format!("CREATE MATERIALIZED VIEW d.m {text}"),
        3 => format!("CREATE VIEW d.v AS SELECT {text}"),
        _ => format!("CREATE DICTIONARY d.c (k UInt64) PRIMARY KEY k SOURCE(CLICKHOUSE({text}))"),
    };
    let Ok(read) = Statement::parse(text) else { return };
    let references = read.references();
    let _ = (read.engine(), read.target(), read.uuid());

    let renamed = read.renamed(None, "n").expect("a name can be given to everything");
    assert_eq!((renamed.name(), renamed.kind()), ("n", read.kind()));
    assert_eq!(renamed.references().len(), references.len());
    if let Ok(attached) = read.with_verb(Verb::Attach) {
        assert_eq!((attached.verb(), attached.name()), (Verb::Attach, read.name()));
    }
    if let Ok(placed) = read.replicated_at("/p", "r") {
        let replication = placed.replication().expect("it is replicated");
        assert_eq!((replication.path.as_deref(), replication.replica.as_deref()), (Some("/p"), Some("r")));
        assert_eq!(placed.unreplicated().expect("it is replicated").replication(), None);
    }
    let plain = read.without_uuid().expect("a uuid can be left out");
    assert_eq!(plain.name(), read.name());
    if !matches!(read.kind(), ObjectKind::Function | ObjectKind::NamedCollection) {
        assert_eq!(read.with_uuid("u").expect("it can have a uuid").uuid(), Some("u"));
    }
    // References may lie within each other in texts that are no statements; so only that it does not fail is asked.
    let _ = read.redirected(|found| Some(("d2".to_owned(), found.name.clone())));
});
