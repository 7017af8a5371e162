use proptest::prelude::*;

use super::{Expiry, ObjectKind, Replication, Role, Statement, Target, Verb};

fn read(text: &str) -> Statement {
    Statement::parse(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// What a statement refers to, each as `role database.name`.
fn refers(text: &str) -> Vec<String> {
    let show = |database: Option<String>, name: String| {
        database.map_or_else(|| name.clone(), |database| format!("{database}.{name}"))
    };
    read(text)
        .references()
        .into_iter()
        .map(|found| format!("{:?} {}", found.role, show(found.database, found.name)))
        .collect()
}

#[test]
fn every_kind_of_object_is_known() {
    let cases = [
        ("CREATE DATABASE d ENGINE = Atomic", ObjectKind::Database, None, "d"),
        ("ATTACH TABLE _ UUID 'u' (`x` UInt8) ENGINE = MergeTree ORDER BY x", ObjectKind::Table, None, "_"),
        ("create temporary table if not exists t (x Int8) engine=Memory", ObjectKind::Table, None, "t"),
        ("CREATE OR REPLACE TABLE d.t (x Int8) ENGINE = Log", ObjectKind::Table, Some("d"), "t"),
        ("CREATE TABLE `d.1`.\"t`\" (x Int8) ENGINE = Log", ObjectKind::Table, Some("d.1"), "t`"),
        ("CREATE VIEW d.v (`x` UInt8) AS SELECT x FROM d.t", ObjectKind::View, Some("d"), "v"),
        ("CREATE MATERIALIZED VIEW d.m TO d.t AS SELECT 1", ObjectKind::MaterializedView, Some("d"), "m"),
        ("CREATE LIVE VIEW d.l AS SELECT 1", ObjectKind::LiveView, Some("d"), "l"),
        ("CREATE WINDOW VIEW d.w AS SELECT 1", ObjectKind::WindowView, Some("d"), "w"),
        ("CREATE DICTIONARY d.c (`k` UInt64) PRIMARY KEY k", ObjectKind::Dictionary, Some("d"), "c"),
        ("CREATE FUNCTION f AS (x, y) -> ((x * y) + 1)", ObjectKind::Function, None, "f"),
        ("CREATE NAMED COLLECTION n AS a = 'b'", ObjectKind::NamedCollection, None, "n"),
    ];
    for (text, kind, database, name) in cases {
        let read = read(text);
        assert_eq!((read.kind(), read.database(), read.name()), (kind, database, name), "{text}");
    }
}

#[test]
fn what_is_no_definition_is_refused() {
    let hostile = [
        "",
        "SELECT 1",
        "CREATE",
        "CREATE TABLE",
        "CREATE TABLE (x Int8)",
        "CREATE USER u",
        "CREATE TABLE 't' (x Int8)",
        "CREATE TABLE a.b.c (x Int8)",
        "CREATE TABLE t (x Int8 ENGINE = Log",
        "CREATE TABLE t x Int8) ENGINE = Log",
        "CREATE VIEW v AS SELECT (1",
        "CREATE VIEW v AS SELECT 1)",
        "CREATE TABLE `t",
        "CREATE TABLE t (x String DEFAULT 'a) ENGINE = Log",
        "CREATE TABLE t /* (x Int8) ENGINE = Log",
    ];
    for text in hostile {
        Statement::parse(text).expect_err(text);
    }
    let deep = format!("CREATE VIEW v AS SELECT {}1{}", "(".repeat(1 << 20), ")".repeat(1 << 20));
    assert!(read(&deep).references().is_empty());
    Statement::parse(&deep[..deep.len() - 1]).unwrap_err();
    let long = "n".repeat(1 << 20);
    assert_eq!(read(&format!("CREATE TABLE `{long}` (x Int8) ENGINE = Log")).name(), long);
    Statement::parse("CREATE TABLE t ".repeat(1 << 20)).unwrap_err();
}

#[test]
fn targets_of_materialized_views() {
    let table = Target::Table { database: Some("d".to_owned()), name: "t".to_owned() };
    for text in [
        "CREATE MATERIALIZED VIEW d.m TO d.t (`x` UInt8) AS SELECT x FROM d.s",
        "CREATE MATERIALIZED VIEW d.m REFRESH EVERY 1 HOUR DEPENDS ON d.a, d.b APPEND TO d.t (`x` UInt8) AS SELECT 1",
        "CREATE MATERIALIZED VIEW d.m UUID 'u' TO `d`.`t` DEFINER = a SQL SECURITY DEFINER AS SELECT 1",
    ] {
        assert_eq!(read(text).target(), Some(table.clone()), "{text}");
    }
    let inner = read(
        "ATTACH MATERIALIZED VIEW _ UUID 'u' TO INNER UUID 'i' (`x` UInt8) ENGINE = MergeTree ORDER BY x TTL d TO DISK 'z' AS SELECT 1",
    );
    assert_eq!((inner.uuid(), inner.target()), (Some("u"), Some(Target::Inner { uuid: Some("i".to_owned()) })));
    assert_eq!(inner.engine().unwrap().name, "MergeTree");
    let old = read("CREATE MATERIALIZED VIEW d.m (x UInt8) ENGINE = Log AS SELECT 1");
    assert_eq!(old.target(), Some(Target::Inner { uuid: None }));
    assert_eq!(read("CREATE TABLE t (x Int8) ENGINE = Log").target(), None);
}

#[test]
fn engines_and_their_arguments() {
    let table = read(
        "CREATE TABLE d.t (`ENGINE` String DEFAULT 'ENGINE = x', k UInt8) ENGINE = ReplicatedReplacingMergeTree('/a, (b', '{replica}', k + f(1, 2)) ORDER BY k SETTINGS index_granularity = 8192",
    );
    let engine = table.engine().unwrap();
    assert_eq!((engine.name.as_str(), engine.arguments.len()), ("ReplicatedReplacingMergeTree", 3));
    assert_eq!((engine.arguments[2].text.as_str(), &engine.arguments[2].value), ("k + f(1, 2)", &None));
    let at = Replication { path: Some("/a, (b".to_owned()), replica: Some("{replica}".to_owned()) };
    assert_eq!(table.replication(), Some(at));

    let unreplicated = table.unreplicated().unwrap();
    assert!(unreplicated.text().contains("ENGINE = ReplacingMergeTree(k + f(1, 2)) ORDER"), "{unreplicated}");
    assert_eq!(unreplicated.replication(), None);
    unreplicated.unreplicated().unwrap_err();
    let moved = table.replicated_at("/it's", "r").unwrap();
    assert!(moved.text().contains(r"ReplicatedReplacingMergeTree('/it\'s', 'r', k + f(1, 2)) ORDER"), "{moved}");

    let old = read("CREATE TABLE t (d Date, k UInt8) ENGINE = ReplicatedMergeTree('/p', 'r', d, k, 8192)");
    assert!(old.unreplicated().unwrap().text().ends_with("ENGINE = MergeTree(d, k, 8192)"));
    for engine in [
        "ReplicatedMergeTree",
        "ReplicatedMergeTree()",
        "ReplicatedReplacingMergeTree(k)",
        "ReplicatedGraphiteMergeTree('c')",
    ] {
        let table = read(&format!("CREATE TABLE t (k UInt8) ENGINE = {engine} ORDER BY k"));
        assert_eq!(table.replication(), Some(Replication { path: None, replica: None }), "{engine}");
        let plain = table.unreplicated().unwrap();
        assert_eq!(plain.engine().unwrap().name, engine.split('(').next().unwrap().trim_start_matches("Replicated"));
        let placed = table.replicated_at("/p", "r").unwrap();
        assert_eq!(placed.replication().unwrap().path.as_deref(), Some("/p"), "{placed}");
    }
    let database = read("CREATE DATABASE d ENGINE = Replicated('/d', '{shard}', '{replica}')");
    assert_eq!((database.replication(), database.engine().unwrap().arguments.len()), (None, 3));
    assert_eq!(database.with_engine("Atomic").unwrap().text(), "CREATE DATABASE d ENGINE = Atomic");
    assert_eq!(read("CREATE TABLE t (x Int8) ENGINE = `Null`").engine().unwrap().name, "Null");
    assert_eq!(read("CREATE TABLE t (x Int8) ENGINE Log").engine().unwrap().name, "Log");
    read("CREATE VIEW v AS SELECT 1").with_engine("Log").unwrap_err();
}

#[test]
fn names_uuids_and_verbs_change_and_nothing_else() {
    let table = read("CREATE TABLE d.t UUID 'u' /* d.t */ (`t` UInt8 COMMENT 'd.t') ENGINE = Log -- d.t");
    assert_eq!(
        table.renamed(Some("e`"), "x.y").unwrap().text(),
        r"CREATE TABLE `e\``.`x.y` UUID 'u' /* d.t */ (`t` UInt8 COMMENT 'd.t') ENGINE = Log -- d.t"
    );
    assert!(table.renamed(None, "_").unwrap().text().starts_with("CREATE TABLE `_` UUID 'u'"));
    assert!(table.with_uuid("v").unwrap().text().starts_with("CREATE TABLE d.t UUID 'v' /*"));
    assert!(table.without_uuid().unwrap().text().starts_with("CREATE TABLE d.t /*"));
    assert_eq!(table.without_uuid().unwrap().with_uuid("u").unwrap().text(), table.text());
    let attached = table.with_verb(Verb::Attach).unwrap();
    assert!(attached.text().starts_with("ATTACH TABLE d.t UUID"));
    assert_eq!(attached.with_verb(Verb::Create).unwrap(), table);
    read("CREATE OR REPLACE TABLE t (x Int8) ENGINE = Log").with_verb(Verb::Attach).unwrap_err();
    let view = read("CREATE MATERIALIZED VIEW d.m UUID 'u' TO INNER UUID 'i' (x Int8) ENGINE = Log AS SELECT 1");
    assert_eq!(view.without_uuid().unwrap().text(), "CREATE MATERIALIZED VIEW d.m (x Int8) ENGINE = Log AS SELECT 1");
    read("CREATE DATABASE d").renamed(Some("x"), "y").unwrap_err();
    assert_eq!(read("CREATE DATABASE d").renamed(None, "y").unwrap().text(), "CREATE DATABASE `y`");
    read("CREATE FUNCTION f AS x -> x").with_uuid("u").unwrap_err();
    // Nothing grows together with what stands beside it.
    assert_eq!(read("CREATE TABLE d.t`x` AS SELECT 1").renamed(None, "n").unwrap().name(), "n");
    let dense = read("CREATE TABLE t UUID 'u'AS SELECT 1");
    assert_eq!(dense.without_uuid().unwrap().text(), "CREATE TABLE t AS SELECT 1");
    let alias = read("CREATE TABLE d.a (`x` Enum8('(' = 1)) ENGINE = Alias('d', 't')");
    assert_eq!(alias.without_columns().unwrap().text(), "CREATE TABLE d.a ENGINE = Alias('d', 't')");
    let plain = read("CREATE TABLE d.t ENGINE = MergeTree(x) ORDER BY (x)");
    assert_eq!(plain.without_columns().unwrap(), plain);
}

#[test]
fn queries_name_tables() {
    let text = "CREATE VIEW d.v AS WITH c AS (SELECT * FROM d.a), 5 AS n SELECT trim(BOTH ' ' FROM x), `FROM d.no`, t.from FROM c \
        INNER JOIN d.b AS b ON a.x = b.x ARRAY JOIN arr, brr LEFT JOIN (SELECT y FROM `d`.`e.1`, d.f WHERE y IN (d.g)) AS z USING x \
        WHERE x IN d.h AND y IN (1, 2) AND z NOT IN (SELECT q FROM d.i GROUP BY q, r) /* FROM d.no */ UNION ALL SELECT 'FROM d.no' FROM numbers(3)";
    let expected = ["a", "b", "e.1", "f", "g", "h", "i"].map(|name| format!("Read d.{name}"));
    assert_eq!(refers(text), expected);
    assert_eq!(refers("CREATE VIEW v AS SELECT extract(YEAR FROM d), (SELECT max(x) FROM u)"), ["Read u"]);
}

#[test]
fn functions_and_engines_name_tables() {
    let cases: [(&str, &[&str]); 13] = [
        ("CREATE TABLE d.t (k UInt8, v String DEFAULT dictGet('d.c', 'v', k)) ENGINE = Log", &["Dictionary d.c"]),
        (
            "CREATE VIEW d.v AS SELECT dictGetOrDefault(d.c, 'v', 1), joinGet('d.j', 'x', 1)",
            &["Dictionary d.c", "Join d.j"],
        ),
        ("CREATE VIEW d.v AS SELECT * FROM dictionary('d.c')", &["Dictionary d.c"]),
        ("CREATE VIEW d.v AS SELECT * FROM merge('d', '^x')", &["Merge d.^x"]),
        (
            "CREATE VIEW d.v AS SELECT * FROM remote('h:9000', d.t), cluster('c', 'e', 'u')",
            &["Remote d.t", "Remote e.u"],
        ),
        ("CREATE TABLE d.t (x Int8) ENGINE = Distributed('c', 'e', 'u', rand())", &["Distributed e.u"]),
        ("CREATE TABLE d.t (x Int8) ENGINE = Distributed(c, currentDatabase(), u)", &["Distributed u"]),
        ("CREATE TABLE d.t (x Int8) ENGINE = Buffer('d', 'u', 16, 1, 2, 3, 4, 5, 6)", &["Buffer d.u"]),
        ("CREATE TABLE d.t (x Int8) ENGINE = Merge('d', '^u')", &["Merge d.^u"]),
        ("CREATE TABLE d.t (x Int8) ENGINE = Dictionary('d.c')", &["Dictionary d.c"]),
        ("CREATE TABLE d.t (x Int8) AS remote('h', 'd', 'u')", &["Remote d.u"]),
        ("CREATE TABLE d.t AS d.u", &["Like d.u"]),
        (
            "CREATE MATERIALIZED VIEW d.m REFRESH AFTER 1 DAY DEPENDS ON d.a, d.b TO d.t AS SELECT * FROM d.s",
            &["DependsOn d.a", "DependsOn d.b", "Target d.t", "Read d.s"],
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(refers(text), expected, "{text}");
    }
}

#[test]
fn dictionaries_name_their_source() {
    let of = |source: &str| {
        refers(&format!(
            "CREATE DICTIONARY d.c (`k` UInt64) PRIMARY KEY k SOURCE({source}) LIFETIME(MIN 0 MAX 1) LAYOUT(FLAT())"
        ))
    };
    assert_eq!(of("CLICKHOUSE(HOST 'localhost' PORT 9000 USER 'u' TABLE 't' DB 'd')"), ["DictionarySource d.t"]);
    assert_eq!(of("CLICKHOUSE(TABLE t)"), ["DictionarySource t"]);
    assert_eq!(of("CLICKHOUSE(HOST 'far' TABLE 't' DB 'd')"), ["Remote d.t"]);
    assert_eq!(
        of("CLICKHOUSE(QUERY 'SELECT k FROM d.a JOIN d.b USING k')"),
        ["DictionarySource d.a", "DictionarySource d.b"]
    );
    assert!(of("FILE(PATH '/x' FORMAT 'CSV')").is_empty());
    assert!(of("MYSQL(TABLE 't' DB 'd')").is_empty());
}

#[test]
fn values_that_expire_are_told_from_rows_that_do() {
    let table =
        |columns: &str, more: &str| format!("CREATE TABLE d.t ({columns}) ENGINE = MergeTree ORDER BY d {more}");
    for (columns, more, expiry) in [
        ("`d` DateTime, `x` UInt8 TTL d + INTERVAL 1 DAY", "", Expiry::Values),
        ("`d` DateTime, `x` UInt8", "TTL d + INTERVAL 1 DAY GROUP BY d SET x = max(x)", Expiry::Values),
        ("`d` DateTime, `x` UInt8", "ttl d + toIntervalDay(1) DELETE WHERE (x = 1)", Expiry::Rows),
        (
            "`d` DateTime, `x` UInt8",
            "TTL d + INTERVAL 1 DAY RECOMPRESS CODEC(ZSTD(1)) SETTINGS merge_with_ttl_timeout = 1",
            Expiry::Rows,
        ),
        ("`d` DateTime, `ttl` String DEFAULT 'ttl'", "", Expiry::Nothing),
    ] {
        assert_eq!(read(&table(columns, more)).expiry(), expiry, "{columns} {more}");
    }
}

#[test]
fn references_can_lead_elsewhere() {
    let elsewhere = |text: &str| {
        let to = |database: &str, name: &str| (format!("{database}2"), name.to_owned());
        read(text)
            .redirected(|found| Some(to(found.database.as_deref()?, &found.name)))
            .map(|read| read.text().to_owned())
    };
    assert_eq!(
        elsewhere("CREATE MATERIALIZED VIEW d.m TO d.t (x Int8) AS SELECT dictGet('d.c', 'v', x) FROM d.s AS s, u")
            .unwrap(),
        "CREATE MATERIALIZED VIEW d.m TO `d2`.`t` (x Int8) AS SELECT dictGet('d2.c', 'v', x) FROM `d2`.`s` AS s, u"
    );
    assert_eq!(
        elsewhere("CREATE VIEW d.v AS SELECT d.s.x, `d`.s.*, s.x, d.o.x, c.d.s.x FROM d.s").unwrap(),
        "CREATE VIEW d.v AS SELECT `d2`.`s`.x, `d2`.`s`.*, s.x, d.o.x, c.d.s.x FROM `d2`.`s`"
    );
    assert_eq!(
        elsewhere("CREATE TABLE d.t (x Int8) ENGINE = Distributed('c', 'd', 'u', rand())").unwrap(),
        "CREATE TABLE d.t (x Int8) ENGINE = Distributed('c', 'd2', 'u', rand())"
    );
    let source =
        |settings: &str| format!("CREATE DICTIONARY d.c (k UInt64) PRIMARY KEY k SOURCE(CLICKHOUSE({settings}))");
    assert_eq!(elsewhere(&source("TABLE 't' DB 'd'")).unwrap(), source("TABLE 't' DB 'd2'"));
    let placed = read(&source("TABLE 't'")).redirected(|_| Some(("d".to_owned(), "u".to_owned()))).unwrap();
    assert_eq!(placed.text(), source("TABLE 'u' DB 'd'"));
    assert_eq!(
        elsewhere(&source(r"QUERY 'SELECT \'d.t\' FROM d.t, d.u'")).unwrap(),
        source(r"QUERY 'SELECT \'d.t\' FROM `d2`.`t`, `d2`.`u`'")
    );
}

proptest! {
    #[test]
    fn any_name_can_be_given_and_read_again(database in any::<String>(), name in any::<String>()) {
        let table = read("CREATE TABLE d.t (`x` UInt8) ENGINE = Log");
        let renamed = table.renamed(Some(&database), &name).unwrap();
        prop_assert_eq!((renamed.database(), renamed.name()), (Some(database.as_str()), name.as_str()));
        let back = renamed.renamed(Some("d"), "t").unwrap();
        prop_assert_eq!(back.text(), "CREATE TABLE `d`.`t` (`x` UInt8) ENGINE = Log");
        let view = read("CREATE VIEW v AS SELECT * FROM d.t").redirected(|_| Some((database.clone(), name.clone()))).unwrap();
        let found = view.references().remove(0);
        prop_assert_eq!((found.role, found.database, found.name), (Role::Read, Some(database), name));
    }

    #[test]
    fn no_text_is_too_strange(words in prop::collection::vec(
        prop::sample::select(vec![
            "CREATE", "ATTACH", "TABLE", "VIEW", "MATERIALIZED", "DICTIONARY", "UUID", "'u'", "TO", "INNER", "ENGINE", "=", "AS", "SELECT",
            "FROM", "JOIN", "IN", "(", ")", ",", ".", "d", "`t`", "Distributed", "dictGet", "'d.t'", "SOURCE", "CLICKHOUSE", "WITH", "DEPENDS",
            "ON", "ReplicatedMergeTree", "TEMPORARY", "OR", "REPLACE", "merge", "remote", "DB", "[", "]", "QUERY", "/* */", "$x$",
        ]), 0..24)
    ) {
        for text in [words.join(" "), format!("CREATE TABLE d.t {}", words.join(" ")), format!("CREATE VIEW v AS SELECT {}", words.join(" "))] {
            let Ok(read) = Statement::parse(text) else { continue };
            let _ = (read.engine(), read.target(), read.replication(), read.references());
            let _ = (read.without_uuid(), read.unreplicated(), read.replicated_at("/p", "r"), read.with_engine("Log"));
            if let Ok(renamed) = read.renamed(None, "n") {
                prop_assert_eq!(renamed.name(), "n");
                prop_assert_eq!(renamed.references().len(), read.references().len());
            }
            let _ = read.redirected(|found| Some((found.name.clone(), found.name.clone())));
        }
    }
}

#[test]
fn settings_of_a_table_are_read() {
    let of = |text: &str| Statement::parse(text).unwrap().setting("storage_policy");
    let table = "CREATE TABLE d.t (`storage_policy` String) ENGINE = MergeTree ORDER BY tuple()";
    assert_eq!(of(table), None);
    assert_eq!(
        of(&format!("{table} SETTINGS index_granularity = 8192, storage_policy = 'it\\'s'")).as_deref(),
        Some("it's")
    );
    assert_eq!(of(&format!("{table} SETTINGS index_granularity = 8192 COMMENT 'storage_policy = \\'x\\''")), None);
    let view = "CREATE MATERIALIZED VIEW d.v (x Int8) ENGINE = MergeTree ORDER BY x SETTINGS storage_policy = 'a' AS SELECT x FROM t";
    assert_eq!(of(view).as_deref(), Some("a"));
    let query = "CREATE MATERIALIZED VIEW d.v (x Int8) ENGINE = MergeTree ORDER BY x SETTINGS y = 1 AS SELECT x FROM t SETTINGS storage_policy = 'a'";
    assert_eq!(of(query), None);
}
