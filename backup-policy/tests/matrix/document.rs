//! The matrix as a document.

use backup_policy::{Error, Matrix, MatrixDocument, Offer, Plan, Profile, ServiceKind};
use serde_json::{Value, json};

fn built_in() -> Value {
    serde_json::from_str(Matrix::BUILT_IN_DOCUMENT).unwrap()
}

fn read(document: &Value) -> Result<Matrix, Error> {
    let document: MatrixDocument = serde_json::from_value(document.clone()).unwrap();
    Matrix::try_from(document)
}

#[test]
fn table_and_document_say_the_same() {
    let document: Matrix = serde_json::from_str(Matrix::BUILT_IN_DOCUMENT).unwrap();
    assert_eq!(document, Matrix::built_in());
    // Written down again it is the same document, value by value.
    assert_eq!(serde_json::to_value(Matrix::built_in()).unwrap(), built_in());
}

#[test]
fn who_is_not_known_is_told_who_is() {
    let matrix = Matrix::built_in();
    let error = matrix.offer(&ServiceKind::POSTGRES, &"enterprise".parse().unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "plan enterprise is not known; known are hobbyist, startup, business, premium");
    let error = matrix.offer(&"mongodb".parse().unwrap(), &Plan::STARTUP).unwrap_err();
    assert!(matches!(&error, Error::UnknownService { service, known } if service == "mongodb" && known.len() == 13));
    for name in ["", "Postgres", "post gres", "1st", "a\n", &"a".repeat(64)] {
        let error = ServiceKind::new(name).unwrap_err().to_string();
        assert!(error.contains("1 to 63 of a-z, 0-9 and -"), "{error}");
        assert!(Plan::new(name).is_err());
    }
}

#[test]
fn an_embedder_adds_plans_services_and_tiers_without_code() {
    let own = json!({
        "plans": ["enterprise"],
        "services": {
            "postgres": { "enterprise": { "backups": {
                "cadence": "every 6h",
                "tiers": [
                    { "period": "every", "age": "90d" },
                    { "period": "weekly", "age": "52w" },
                    { "period": "monthly", "count": 24 },
                    { "period": "yearly", "age": "3650d", "count": 1 }
                ],
                "minimum_count": 5, "minimum_age": "7d", "pitr": "90d", "users_may": ["restore", "fork"]
            } } },
            "mongodb": { "enterprise": { "no_backups": { "reason": "not yet" } } }
        }
    });
    let matrix = Matrix::built_in().overlaid(read(&own).unwrap());
    let enterprise: Plan = "enterprise".parse().unwrap();
    let profile = matrix.offer(&ServiceKind::POSTGRES, &enterprise).unwrap().profile().unwrap();
    assert_eq!((profile.tiers().len(), profile.minimum_count()), (4, 5));
    assert_eq!(
        matrix.offer(&"mongodb".parse().unwrap(), &enterprise),
        Ok(&Offer::NoBackups { reason: "not yet".into() })
    );
    // A plan that a service does not name exists, but not for it.
    assert_eq!(matrix.offer(&ServiceKind::REDIS, &enterprise), Ok(&Offer::NotAvailable));
    assert!(matrix.offer(&ServiceKind::REDIS, &Plan::PREMIUM).unwrap().profile().is_some());
    assert_eq!(matrix.plans().len(), 5);
    let again: Matrix = serde_json::from_value(serde_json::to_value(&matrix).unwrap()).unwrap();
    assert_eq!(again, matrix);
}

#[test]
fn what_is_wrong_in_a_document_is_named_with_its_place() {
    let cell = "/services/redis/startup/backups";
    let cases = [
        ("/tiers/0/age", json!("-3d"), "services.redis.startup.tiers[0].age is -3d; allowed is a whole number"),
        ("/tiers/0/age", json!("1000000000d"), "tiers[0].age is 1000000000d; allowed is a whole number with a unit"),
        ("/tiers/0/age", json!("0h"), "tiers[0].age is 0h"),
        ("/tiers/0/age", json!("36526d"), "from 1s to 36525d (100 years)"),
        (
            "/tiers/0/age",
            json!("6h"),
            "tiers[0].age is 6h; allowed is 12h or more, the longest time between two backups",
        ),
        ("/tiers/0/period", json!("hourly"), "tiers[0].period is hourly; allowed is a period no shorter than"),
        ("/tiers/0/period", json!("fortnightly"), "tiers[0].period is fortnightly; allowed is one of every, hourly"),
        ("/tiers/0/count", json!(0), "tiers[0].count is 0; allowed is 1 to 10000"),
        ("/tiers/0/count", json!(-1), "tiers[0].count is -1; allowed is 1 to 10000"),
        ("/tiers/0", json!({ "period": "every" }), "tiers[0] is without age and count"),
        ("/tiers", json!([]), "services.redis.startup.tiers is empty; allowed is 1 to 16 tiers"),
        ("/tiers", json!(vec![json!({ "period": "every", "age": "1d" }); 17]), "tiers is 17 tiers; allowed is 1 to 16"),
        ("/minimum_count", json!(0), "services.redis.startup.minimum_count is 0; allowed is 1 to 1000"),
        ("/minimum_count", json!(1001), "minimum_count is 1001; allowed is 1 to 1000"),
        ("/minimum_age", json!("-1h"), "services.redis.startup.minimum_age is -1h"),
        ("/pitr", json!("0d"), "services.redis.startup.pitr is 0d"),
        ("/cadence", json!("every 5h"), "services.redis.startup.cadence is every 5 hours; allowed is a divisor of 24"),
        ("/cadence", json!("cron 0 0 30 2 *"), "services.redis.startup.cadence.cron is \"0 0 30 2 *\""),
        ("/cadence", json!("cron 0 0 * * MON"), "tiers[0].age is 24h; allowed is 168h or more"),
        (
            "/users_may",
            json!(["download"]),
            "services.redis.startup.users_may[0] is download; allowed is restore or fork",
        ),
    ];
    for (place, value, message) in cases {
        let mut document = built_in();
        let pointer = format!("{cell}{place}");
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        match document.pointer_mut(parent).unwrap() {
            Value::Object(fields) => _ = fields.insert(name.to_owned(), value),
            Value::Array(items) => items[0] = value,
            other => panic!("{other}"),
        }
        let error = read(&document).unwrap_err().to_string();
        assert!(error.contains(message), "{place}: {error}");
        // Whoever reads it as a matrix at once is told the same.
        assert_eq!(serde_json::from_value::<Matrix>(document).unwrap_err().to_string(), error);
    }
}

#[test]
fn names_in_a_document_are_checked() {
    let none = json!("not_available");
    for (document, message) in [
        (json!({ "plans": ["a", "a"], "services": {} }), "plans[1] is a; allowed is each plan once"),
        (json!({ "plans": ["A"], "services": {} }), "plans[0] is \"A\""),
        (
            json!({ "plans": ["a"], "services": { "x": { "b": none } } }),
            "services.x is b; allowed is a plan of plans: a",
        ),
        (json!({ "plans": ["a"], "services": { "X": {} } }), "services is \"X\""),
        (
            json!({ "plans": ["a"], "services": { "x": { "a": { "no_backups": { "reason": " " } } } } }),
            "services.x.a.reason is empty",
        ),
    ] {
        let error = read(&document).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    for text in [
        r#"{ "plans": [], "services": { "x": {}, "x": {} } }"#,
        r#"{ "plans": ["a"], "services": { "x": { "a": "not_available", "a": "not_available" } } }"#,
        r#"{ "plans": [], "services": {}, "extra": 1 }"#,
        r#"{ "plans": ["a"], "services": { "x": { "a": { "backups": { "cadence": "daily", "tiers": [], "users_may": [], "window": "1d" } } } } }"#,
    ] {
        assert!(serde_json::from_str::<MatrixDocument>(text).is_err(), "{text}");
    }
}

#[test]
fn each_built_in_profile_would_be_accepted() {
    let matrix = Matrix::built_in();
    let mut profiles = 0;
    for kind in matrix.kinds() {
        for plan in matrix.plans() {
            let Some(profile) = matrix.offer(kind, plan).unwrap().profile() else { continue };
            let text = serde_json::to_string(profile).unwrap();
            assert_eq!(serde_json::from_str::<Profile>(&text).unwrap(), *profile, "{kind} {plan}");
            profiles += 1;
        }
    }
    assert_eq!(profiles, 33);
}
