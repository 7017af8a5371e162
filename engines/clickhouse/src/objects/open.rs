//! From settings to a client of a store.

use std::sync::Arc;

use backup_core::{Error, Result};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreScheme};
use url::Url;

use super::{Bucket, ObjectDisk};

/// Opens the store of the disk `name`.
pub(super) fn open(name: &str, disk: &ObjectDisk) -> Result<Bucket> {
    let wrong = |reason: &str| Error::invalid(format!("the objects of the disk {name}: {reason}"));
    let url = Url::parse(&disk.url).map_err(|error| wrong(&format!("their address is no url: {error}")))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("a url must not hold credentials, which are options"));
    }
    let (scheme, prefix) =
        ObjectStoreScheme::parse(&url).map_err(|_| wrong(&format!("{url} is of no store that is known")))?;
    let store: Arc<dyn ObjectStore> = match scheme {
        ObjectStoreScheme::Memory => Arc::new(InMemory::new()),
        #[cfg(feature = "fs")]
        ObjectStoreScheme::Local => Arc::new(object_store::local::LocalFileSystem::new()),
        #[cfg(feature = "aws")]
        ObjectStoreScheme::AmazonS3 => {
            use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
            Arc::new(cloud::client!(AmazonS3Builder, AmazonS3ConfigKey, name, url, disk)?)
        }
        #[cfg(feature = "gcp")]
        ObjectStoreScheme::GoogleCloudStorage => {
            use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
            Arc::new(cloud::client!(GoogleCloudStorageBuilder, GoogleConfigKey, name, url, disk)?)
        }
        #[cfg(feature = "azure")]
        ObjectStoreScheme::MicrosoftAzure => {
            use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
            Arc::new(cloud::client!(MicrosoftAzureBuilder, AzureConfigKey, name, url, disk)?)
        }
        _ => return Err(wrong(&format!("stores such as {url} were not compiled in"))),
    };
    Ok(Bucket::new(name, &url, store, prefix))
}

#[cfg(any(feature = "aws", feature = "gcp", feature = "azure"))]
mod cloud {
    use std::time::Duration;

    use object_store::{ClientConfigKey, RetryConfig};

    /// Requests are of some megabytes each, so one that takes longer is stuck.
    pub(super) const REQUEST: &str = "120 s";
    /// Nobody waits longer for a store that is away.
    const PATIENCE: Duration = Duration::from_secs(180);

    pub(super) fn retries() -> RetryConfig {
        RetryConfig { retry_timeout: PATIENCE, ..RetryConfig::default() }
    }

    pub(super) const TIMEOUT: ClientConfigKey = ClientConfigKey::Timeout;

    /// A client by the options of a disk and what the environment has of it.
    macro_rules! client {
        ($builder:ty, $key:ty, $name:expr, $url:expr, $disk:expr) => {{
            let mut builder = <$builder>::from_env().with_url($url.as_str()).with_retry(cloud::retries());
            builder = builder.with_config(<$key>::Client(cloud::TIMEOUT), cloud::REQUEST);
            for (option, value) in &$disk.options {
                let key: $key = option.to_ascii_lowercase().parse().map_err(|_| {
                    Error::invalid(format!("{option:?} is no option of the objects of the disk {}", $name))
                })?;
                builder = builder.with_config(key, value);
            }
            builder.build().map_err(|error| {
                let text = format!("the objects of the disk {}: the client of {} is not configured", $name, $url);
                Error::environment(text).with_source(error)
            })
        }};
    }
    pub(super) use client;
}

#[cfg(test)]
mod tests {
    use backup_core::ErrorKind;

    use super::*;

    #[test]
    fn addresses_that_lead_nowhere_are_refused() {
        for bad in ["", "bucket/x", "s3://user:word@bucket/x", "ftp://host/x", "http://127.0.0.1/x"] {
            let error = open("s3", &ObjectDisk::new(bad)).expect_err(bad);
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad}: {error}");
            assert!(!error.to_string().contains("word"), "{error}");
        }
        open("s3", &ObjectDisk::new("memory:///x/")).unwrap();
    }

    #[cfg(feature = "aws")]
    #[test]
    fn options_that_no_client_has_are_refused() {
        let disk =
            ObjectDisk::new("s3://bucket/x").option("endpoint", "http://127.0.0.1:1").option("allow_http", "true");
        let disk = disk.option("access_key_id", "a").option("secret_access_key", "b");
        open("s3", &disk).unwrap();
        let error = open("s3", &disk.option("secret_acces_key", "b")).unwrap_err();
        assert!(error.to_string().contains("\"secret_acces_key\" is no option"), "{error}");
    }
}
