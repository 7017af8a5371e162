//! Names that an embedder may add to.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Declares a name: text of a limited alphabet, open for more than the known ones.
macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, { $($(#[$known_doc:meta])* $known:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $type(Cow<'static, str>);

        impl $type {
            $($(#[$known_doc])* pub const $known: Self = Self(Cow::Borrowed($text));)+

            /// A name of 1 to 63 letters `a-z`, digits and `-`, the first a letter.
            ///
            /// # Errors
            /// [`Error::Invalid`] for anything else.
            pub fn new(name: impl Into<String>) -> Result<Self> {
                let name = name.into();
                if is_name(&name) { Ok(Self(Cow::Owned(name))) } else { Err(refused($what, &name)) }
            }

            /// The name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = Error;

            fn from_str(name: &str) -> Result<Self> {
                Self::new(name)
            }
        }

        impl TryFrom<String> for $type {
            type Error = Error;

            fn try_from(name: String) -> Result<Self> {
                Self::new(name)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0.into_owned()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name! {
    /// A kind of service.
    ServiceKind, "service", {
        /// Apache Kafka's data.
        KAFKA = "kafka",
        /// Configuration of Apache Kafka: topics, ACLs, users, quotas, schemas, connectors.
        KAFKA_CONFIG = "kafka-config",
        /// PostgreSQL.
        POSTGRES = "postgres",
        /// MySQL and MariaDB.
        MYSQL = "mysql",
        /// OpenSearch.
        OPENSEARCH = "opensearch",
        /// Apache Cassandra.
        CASSANDRA = "cassandra",
        /// Redis and Valkey.
        REDIS = "redis",
        /// Apache Flink.
        FLINK = "flink",
        /// M3DB.
        M3DB = "m3db",
        /// M3 Aggregator.
        M3AGGREGATOR = "m3aggregator",
        /// M3 Coordinator.
        M3COORDINATOR = "m3coordinator",
        /// Grafana.
        GRAFANA = "grafana",
        /// ClickHouse.
        CLICKHOUSE = "clickhouse",
    }
}

name! {
    /// A plan that a service can be on.
    Plan, "plan", {
        /// The smallest.
        HOBBYIST = "hobbyist",
        /// The second.
        STARTUP = "startup",
        /// The third.
        BUSINESS = "business",
        /// The largest.
        PREMIUM = "premium",
    }
}

fn is_name(name: &str) -> bool {
    let letter = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    letter && name.len() <= 63 && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn refused(what: &str, name: &str) -> Error {
    let shown = if name.len() > 80 { format!("{} bytes long", name.len()) } else { format!("{name:?}") };
    Error::invalid(what, shown, "1 to 63 of a-z, 0-9 and -, the first a letter")
}
