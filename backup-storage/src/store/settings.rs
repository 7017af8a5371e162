//! How a store is used, as data. Everything has a default with a reason.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact::required as friendly;
use serde::{Deserialize, Serialize};

/// Limits, patience and cloud options of a [`Store`](super::Store).
///
/// ```
/// use backup_storage::store::StoreSettings;
/// let settings = StoreSettings::default().max_requests(8).upload_limit(Some(50 << 20));
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct StoreSettings {
    /// How long a connection may take to open. 5 s: a healthy region answers in milliseconds, and a retry may reach another node.
    #[serde(with = "friendly")]
    pub connect_timeout: Duration,
    /// How long the store may be silent, before the first byte of an answer or between two pieces of a body.
    /// 30 s: above the slowest answers of large stores under load, below the patience of people.
    #[serde(with = "friendly")]
    pub stall_timeout: Duration,
    /// The slowest transfer that is still waited for, in bytes per second. A request may take `stall_timeout` plus its body at this
    /// rate. 64 KiB/s: a 16 MiB pack gets under five minutes, a dead peer does not hold a slot for ever.
    pub min_rate: u64,
    /// How often a failed request is tried again. 8 with the delays below spans half a minute: a store's usual hiccup.
    pub retries: u32,
    /// The first delay before a retry; doubles each time, and a random half of it is taken off.
    #[serde(with = "friendly")]
    pub first_delay: Duration,
    /// The longest delay before a retry.
    #[serde(with = "friendly")]
    pub max_delay: Duration,
    /// How many requests may be in flight in this store and all its sub-stores. 64: enough to fill 10 Gbit/s with 16 MiB bodies.
    pub max_requests: usize,
    /// Upload limit in bytes per second, for this store and all its sub-stores together. None: as fast as it goes.
    pub upload_limit: Option<u64>,
    /// Download limit in bytes per second, for this store and all its sub-stores together. None: as fast as it goes.
    pub download_limit: Option<u64>,
    /// The largest object that is written or read whole. 256 MiB: twice the largest pack, so that a lying length in an answer
    /// cannot exhaust memory.
    pub max_object_len: u64,
    /// S3: leave the body out of the request signature. On by default over TLS would be safe and saves one SHA-256 pass over
    /// every body; off by default because over plain HTTP the signature is the only thing that protects the body.
    pub unsigned_payload: bool,
    /// S3: the checksum sent with every body, which the store verifies. None by default: every segment is authenticated by its
    /// seal; buckets with object lock require one.
    pub checksum: Option<Checksum>,
    /// Settings of the cloud client by the names that its environment variables have in lower case
    /// (`aws_endpoint`, `aws_region`, `google_service_account`, `azure_storage_account_name`, …); they win over the environment.
    pub options: ClientSettings,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            stall_timeout: Duration::from_secs(30),
            min_rate: 64 << 10,
            retries: 8,
            first_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(10),
            max_requests: 64,
            upload_limit: None,
            download_limit: None,
            max_object_len: 256 << 20,
            unsigned_payload: false,
            checksum: None,
            options: ClientSettings::default(),
        }
    }
}

/// A checksum that S3 verifies on arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Checksum {
    /// CRC-64/NVME: by far the cheaper one.
    Crc64nvme,
    /// SHA-256.
    Sha256,
}

/// Settings of a cloud client, credentials among them. Never printed and never serialised.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct ClientSettings(BTreeMap<String, String>);

impl ClientSettings {
    /// Adds or replaces one setting.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.insert(name.into(), value.into());
    }

    /// Names and values.
    #[cfg_attr(not(any(feature = "aws", feature = "gcp", feature = "azure")), allow(dead_code, reason = "for clouds"))]
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl fmt::Debug for ClientSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Serialize for ClientSettings {
    /// An empty map: settings are written to logs and reports, and these values may be secret.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(std::iter::empty::<(&str, &str)>())
    }
}

impl StoreSettings {
    /// Sets [`StoreSettings::connect_timeout`].
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets [`StoreSettings::stall_timeout`].
    #[must_use]
    pub fn stall_timeout(mut self, timeout: Duration) -> Self {
        self.stall_timeout = timeout;
        self
    }

    /// Sets [`StoreSettings::min_rate`].
    #[must_use]
    pub fn min_rate(mut self, bytes_per_second: u64) -> Self {
        self.min_rate = bytes_per_second;
        self
    }

    /// Sets [`StoreSettings::retries`].
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// Sets [`StoreSettings::first_delay`] and [`StoreSettings::max_delay`].
    #[must_use]
    pub fn delays(mut self, first: Duration, max: Duration) -> Self {
        self.first_delay = first;
        self.max_delay = max;
        self
    }

    /// Sets [`StoreSettings::max_requests`].
    #[must_use]
    pub fn max_requests(mut self, requests: usize) -> Self {
        self.max_requests = requests;
        self
    }

    /// Sets [`StoreSettings::upload_limit`].
    #[must_use]
    pub fn upload_limit(mut self, bytes_per_second: Option<u64>) -> Self {
        self.upload_limit = bytes_per_second;
        self
    }

    /// Sets [`StoreSettings::download_limit`].
    #[must_use]
    pub fn download_limit(mut self, bytes_per_second: Option<u64>) -> Self {
        self.download_limit = bytes_per_second;
        self
    }

    /// Sets [`StoreSettings::max_object_len`].
    #[must_use]
    pub fn max_object_len(mut self, bytes: u64) -> Self {
        self.max_object_len = bytes;
        self
    }

    /// Sets [`StoreSettings::unsigned_payload`].
    #[must_use]
    pub fn unsigned_payload(mut self, unsigned: bool) -> Self {
        self.unsigned_payload = unsigned;
        self
    }

    /// Sets [`StoreSettings::checksum`].
    #[must_use]
    pub fn checksum(mut self, checksum: Option<Checksum>) -> Self {
        self.checksum = checksum;
        self
    }

    /// Adds one setting of the cloud client, see [`StoreSettings::options`].
    #[must_use]
    pub fn option(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.set(name, value);
        self
    }

    /// How long a request with a body of `bytes` may take altogether.
    pub(super) fn deadline(&self, bytes: u64) -> Duration {
        self.stall_timeout.saturating_add(Duration::from_millis(bytes.saturating_mul(1000) / self.min_rate.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_round_trip_as_json_with_readable_durations() {
        let settings = StoreSettings::default().upload_limit(Some(1 << 20)).checksum(Some(Checksum::Crc64nvme));
        let json = serde_json::to_string(&settings).unwrap();
        assert!(json.contains(r#""stall_timeout":"30s""#), "{json}");
        assert_eq!(serde_json::from_str::<StoreSettings>(&json).unwrap(), settings);
        assert_eq!(serde_json::from_str::<StoreSettings>("{}").unwrap(), StoreSettings::default());
    }

    #[test]
    fn client_settings_never_show_their_values() {
        let settings = StoreSettings::default().option("aws_secret_access_key", "hunter2");
        let shown = format!("{settings:?} {}", serde_json::to_string(&settings).unwrap());
        assert!(shown.contains("aws_secret_access_key") && !shown.contains("hunter2"), "{shown}");
        let read: StoreSettings = serde_json::from_str(r#"{"options":{"aws_region":"eu-1"}}"#).unwrap();
        assert_eq!(read.options.iter().collect::<Vec<_>>(), [("aws_region", "eu-1")]);
    }

    #[test]
    fn large_bodies_get_the_time_they_need() {
        let settings = StoreSettings::default();
        assert_eq!(settings.deadline(0), Duration::from_secs(30));
        assert_eq!(settings.deadline(128 << 20), Duration::from_secs(30 + 2048));
        assert!(settings.deadline(u64::MAX) > Duration::from_secs(1 << 20));
    }
}
