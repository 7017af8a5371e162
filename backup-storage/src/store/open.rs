//! From a URL to a store.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;
use url::Url;

use crate::error::{Error, Result};

use super::{Store, StoreSettings, Traits};

/// What a scheme opens.
type Opened = (Arc<dyn ObjectStore>, Traits);

impl Store {
    /// Opens the place that a URL names.
    ///
    /// | URL | feature | place |
    /// |---|---|---|
    /// | `file:///absolute/directory` | `fs` | a directory, created when missing ([`Store::local`]) |
    /// | `s3://bucket/prefix` | `aws` | S3 and what speaks its protocol (`AWS_ENDPOINT`) |
    /// | `gs://bucket/prefix` | `gcp` | Google Cloud Storage |
    /// | `az://container/prefix` | `azure` | Azure Blob Storage |
    /// | `http://host/path`, `https://…` | `http` | a published repository, for reading only, from a server that lists folders (WebDAV) |
    /// | `memory:///` | – | memory, empty at each opening |
    ///
    /// Credentials and endpoints come from the clouds' usual environment variables (`AWS_…`, `GOOGLE_…`, `AZURE_…`) and
    /// [`StoreSettings::options`]. Emulators: `AWS_ENDPOINT`, `STORAGE_EMULATOR_HOST`, `AZURE_STORAGE_ENDPOINT` (or
    /// `AZURE_STORAGE_USE_EMULATOR=true` for Azurite at its usual port). Nothing is sent yet: see
    /// [`Store::probe_exclusive_create`].
    ///
    /// # Errors
    /// [`InvalidInput`](crate::error::ErrorKind::InvalidInput) for a URL that is not one of these or whose feature
    /// is not compiled in; [`Environment`](crate::error::ErrorKind::Environment) for an unusable directory or incomplete credentials.
    pub fn open(url: &str, settings: &StoreSettings) -> Result<Self> {
        let parsed = Url::parse(url).map_err(|error| match error {
            url::ParseError::RelativeUrlWithoutBase => {
                Error::invalid(format!("store {url:?} is not a URL; a directory is written file:///absolute/directory"))
            }
            error => Error::invalid(format!("store {:?} is not a URL: {error}", without_secrets(url))),
        })?;
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(Error::invalid("a store URL must not hold credentials; use the environment or the settings"));
        }
        match parsed.scheme() {
            "memory" => {
                let store = Self::memory().with_settings(settings.clone());
                store.inside(parsed.path())
            }
            "file" => open_directory(&parsed, settings),
            scheme => {
                let (inner, traits) = match scheme {
                    "s3" | "s3a" => open_s3(&parsed, settings),
                    "gs" => open_gcs(&parsed, settings),
                    "az" | "azure" => open_azure(&parsed, settings),
                    "http" | "https" => open_http(&parsed, settings),
                    other => Err(Error::invalid(format!(
                        "store scheme {other:?} is unknown; known are file, s3, gs, az, http, https and memory"
                    ))),
                }?;
                let inside = if matches!(scheme, "http" | "https") { "" } else { parsed.path() };
                Self::build(inner, traits, settings.clone()).inside(inside)
            }
        }
    }

    /// The sub-store at the path of a URL, whose alphabet is that of the bucket's owner and not ours.
    fn inside(self, url_path: &str) -> Result<Self> {
        let path = Path::from_url_path(url_path)
            .map_err(|error| Error::invalid(format!("store prefix {url_path:?} is malformed")).with_source(error))?;
        if path.as_ref().len() > 512 {
            return Err(Error::invalid(format!("store prefix {url_path:?} is longer than 512 bytes")));
        }
        Ok(Self { prefix: Arc::from(path.as_ref()), ..self })
    }
}

/// A URL that did not parse may still hold a password: only its scheme is shown.
fn without_secrets(url: &str) -> String {
    url.split_once("://").map_or_else(|| url.to_owned(), |(scheme, _)| format!("{scheme}://…"))
}

#[cfg(feature = "fs")]
fn open_directory(url: &Url, settings: &StoreSettings) -> Result<Store> {
    if url.host_str().is_some_and(|host| host != "localhost") {
        return Err(Error::invalid(format!(
            "store {url} is not absolute: a directory is written file:///absolute/directory"
        )));
    }
    let dir = url.to_file_path().map_err(|()| {
        Error::invalid(format!("store {url} is not a directory of this machine: write file:///absolute/directory"))
    })?;
    Store::local_with(&dir, settings.clone())
}

#[cfg(not(feature = "fs"))]
fn open_directory(url: &Url, _settings: &StoreSettings) -> Result<Store> {
    Err(not_compiled(url, "fs"))
}

#[allow(dead_code, reason = "unused with all features on")]
fn not_compiled(url: &Url, feature: &str) -> Error {
    Error::invalid(format!(
        "stores of scheme {} are not compiled in; enable the feature {feature} of backup-storage",
        url.scheme()
    ))
}

#[cfg(any(feature = "aws", feature = "gcp", feature = "azure"))]
fn bucket(url: &Url) -> Result<&str> {
    url.host_str().ok_or_else(|| Error::invalid(format!("store {url} names no bucket")))
}

/// The settings of every HTTP client, in the client's own words.
///
/// The client's request timeout covers the whole body (30 s by default), which a large body on a slow line cannot keep: it is
/// set beyond every deadline of ours, and silence is caught by the read timeout and by [`Store`] itself.
#[cfg(any(feature = "aws", feature = "gcp", feature = "azure", feature = "http"))]
fn client_settings(settings: &StoreSettings) -> [(object_store::ClientConfigKey, String); 3] {
    use object_store::ClientConfigKey as Key;
    let millis = |duration: std::time::Duration| format!("{} ms", duration.as_millis().max(1));
    [
        (Key::Timeout, "7 days".to_owned()),
        (Key::ConnectTimeout, millis(settings.connect_timeout)),
        (Key::ReadTimeout, millis(settings.stall_timeout)),
    ]
}

/// The client's own retries are few: they resume broken downloads and refresh credentials; all else is repeated, counted and
/// disambiguated by [`Store`].
#[cfg(any(feature = "aws", feature = "gcp", feature = "azure", feature = "http"))]
fn client_retries(settings: &StoreSettings) -> object_store::RetryConfig {
    // The client draws its delay from the range between the two and panics when it is empty.
    let init_backoff = settings.first_delay.max(std::time::Duration::from_millis(1));
    let max_backoff = settings.max_delay.max(init_backoff.saturating_mul(2));
    object_store::RetryConfig {
        max_retries: 2,
        retry_timeout: settings.stall_timeout,
        backoff: object_store::BackoffConfig { init_backoff, max_backoff, base: 2.0 },
    }
}

/// An environment variable that is set and not empty.
#[cfg(any(feature = "gcp", feature = "azure"))]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// An incomplete or wrong configuration of a cloud client.
#[cfg(any(feature = "aws", feature = "gcp", feature = "azure", feature = "http"))]
fn configuration(url: &Url, error: object_store::Error) -> Error {
    Error::environment(format!("cannot open store {url}: its client is not configured")).with_source(error)
}

/// Applies the settings' options to a cloud client's builder.
#[cfg(any(feature = "aws", feature = "gcp", feature = "azure"))]
macro_rules! configured {
    ($builder:expr, $key:ty, $settings:expr) => {{
        let mut builder = $builder;
        for (name, value) in $settings.options.iter() {
            let key: $key = name
                .parse()
                .map_err(|_| Error::invalid(format!("{name:?} is not a setting of this store's client")))?;
            builder = builder.with_config(key, value);
        }
        for (key, value) in client_settings($settings) {
            builder = builder.with_config(<$key>::Client(key), value);
        }
        builder.with_retry(client_retries($settings))
    }};
}

#[cfg(feature = "aws")]
fn open_s3(url: &Url, settings: &StoreSettings) -> Result<Opened> {
    use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum as Client};

    use super::Checksum;

    let mut builder = configured!(AmazonS3Builder::from_env(), AmazonS3ConfigKey, settings)
        .with_bucket_name(bucket(url)?)
        .with_unsigned_payload(settings.unsigned_payload);
    match settings.checksum {
        Some(Checksum::Crc64nvme) => builder = builder.with_checksum_algorithm(Client::CRC64NVME),
        Some(Checksum::Sha256) => builder = builder.with_checksum_algorithm(Client::SHA256),
        None => {}
    }
    // Directory buckets (S3 Express, names ending in --x-s3) list in no order and cannot start after a name.
    let sorted_listing = !bucket(url)?.ends_with("--x-s3");
    let inner = builder.build().map_err(|error| configuration(url, error))?;
    Ok((Arc::new(inner), Traits { sorted_listing, ..Traits::default() }))
}

#[cfg(not(feature = "aws"))]
fn open_s3(url: &Url, _settings: &StoreSettings) -> Result<Opened> {
    Err(not_compiled(url, "aws"))
}

#[cfg(feature = "gcp")]
fn open_gcs(url: &Url, settings: &StoreSettings) -> Result<Opened> {
    use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};

    let mut builder = GoogleCloudStorageBuilder::from_env();
    // What Google's own clients go by: another place, where nobody asks for a token.
    if let Some(emulator) = variable("STORAGE_EMULATOR_HOST") {
        let scheme = if emulator.contains("://") { "" } else { "http://" };
        builder = builder.with_base_url(&format!("{scheme}{emulator}")).with_bearer_token("");
    }
    let builder = configured!(builder, GoogleConfigKey, settings);
    let inner = builder.with_bucket_name(bucket(url)?).build().map_err(|error| configuration(url, error))?;
    Ok((Arc::new(inner), Traits { sorted_listing: true, ..Traits::default() }))
}

#[cfg(not(feature = "gcp"))]
fn open_gcs(url: &Url, _settings: &StoreSettings) -> Result<Opened> {
    Err(not_compiled(url, "gcp"))
}

#[cfg(feature = "azure")]
fn open_azure(url: &Url, settings: &StoreSettings) -> Result<Opened> {
    use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};

    let mut builder = MicrosoftAzureBuilder::from_env();
    // The names that Azure's own command line has for them.
    for (name, key) in
        [("AZURE_STORAGE_ACCOUNT", AzureConfigKey::AccountName), ("AZURE_STORAGE_KEY", AzureConfigKey::AccessKey)]
    {
        if let (None, Some(value)) = (builder.get_config_value(&key), variable(name)) {
            builder = builder.with_config(key, value);
        }
    }
    let builder = configured!(builder, AzureConfigKey, settings);
    let inner = builder.with_container_name(bucket(url)?).build().map_err(|error| configuration(url, error))?;
    // Accounts with a hierarchical namespace list folder by folder, which is another order.
    Ok((Arc::new(inner), Traits::default()))
}

#[cfg(not(feature = "azure"))]
fn open_azure(url: &Url, _settings: &StoreSettings) -> Result<Opened> {
    Err(not_compiled(url, "azure"))
}

#[cfg(feature = "http")]
fn open_http(url: &Url, settings: &StoreSettings) -> Result<Opened> {
    let mut builder =
        object_store::http::HttpBuilder::new().with_url(url.as_str()).with_retry(client_retries(settings));
    for (key, value) in client_settings(settings) {
        builder = builder.with_config(key, value);
    }
    let plain = url.scheme() == "http";
    builder = builder.with_config(object_store::ClientConfigKey::AllowHttp, plain.to_string());
    let inner = builder.build().map_err(|error| configuration(url, error))?;
    // There is no create-only put over plain HTTP, and nobody should delete where he cannot create.
    Ok((Arc::new(inner), Traits { read_only: true, ..Traits::default() }))
}

#[cfg(not(feature = "http"))]
fn open_http(url: &Url, _settings: &StoreSettings) -> Result<Opened> {
    Err(not_compiled(url, "http"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn refusal(url: &str) -> String {
        let error = Store::open(url, &StoreSettings::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{url}");
        error.to_string()
    }

    #[test]
    fn wrong_urls_are_refused_with_the_right_spelling() {
        assert!(refusal("backups").contains("file:///absolute/directory"));
        assert!(refusal("./backups").contains("file:///absolute/directory"));
        assert!(refusal("file://backups/x").contains("file:///absolute/directory"));
        assert!(refusal("ftp://host/x").contains("\"ftp\" is unknown"));
        assert!(refusal("s3://key:secret@bucket/x").contains("must not hold credentials"));
        assert!(!refusal("s3://key:secret@[bucket/x").contains("secret"));
    }

    #[cfg(not(feature = "aws"))]
    #[test]
    fn a_scheme_that_is_not_compiled_in_names_its_feature() {
        assert!(refusal("s3://bucket/x").contains("feature aws"));
    }

    #[cfg(feature = "aws")]
    #[test]
    fn an_s3_url_becomes_bucket_and_prefix() {
        let settings = StoreSettings::default().option("aws_region", "eu-1").option("aws_access_key_id", "k");
        let settings = settings.option("aws_secret_access_key", "hunter2");
        let store = Store::open("s3://bucket/Team_A/prod", &settings).unwrap();
        assert_eq!(store.prefix(), "Team_A/prod");
        assert_eq!(store.to_string(), "Store(Team_A/prod in AmazonS3(bucket))");
        assert!(!format!("{store:?} {:?}", store.settings()).contains("hunter2"));
        let error = Store::open("s3://bucket", &settings.option("nonsense", "1")).unwrap_err();
        assert_eq!(error.to_string(), "\"nonsense\" is not a setting of this store's client");
    }

    #[cfg(feature = "gcp")]
    #[test]
    fn a_gs_url_becomes_bucket_and_prefix_and_keeps_its_secrets() {
        let settings = StoreSettings::default().option("google_bearer_token", "hunter2");
        let store = Store::open("gs://bucket/Team_A/prod", &settings).unwrap();
        assert_eq!(store.to_string(), "Store(Team_A/prod in GoogleCloudStorage(bucket))");
        assert!(!format!("{store:?} {:?}", store.settings()).contains("hunter2"));
        for key in [
            "{\"private_key\": \"hunter2\"",
            "{\"private_key\": \"hunter2\", \"private_key_id\": \"\", \"client_email\": \"\"}",
        ] {
            let settings = StoreSettings::default().option("google_service_account_key", key);
            let error = Store::open("gs://bucket", &settings).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Environment, "{error}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[cfg(feature = "azure")]
    #[test]
    fn an_az_url_becomes_container_and_prefix_and_keeps_its_secrets() {
        let settings = StoreSettings::default().option("azure_storage_account_name", "account");
        let store =
            Store::open("az://container/Team_A", &settings.clone().option("azure_storage_account_key", "aHVudGVyMg=="));
        let store = store.unwrap();
        assert_eq!(store.prefix(), "Team_A");
        assert!(store.to_string().contains("account: account") && store.to_string().contains("container"), "{store}");
        assert!(!format!("{store:?} {:?}", store.settings()).contains("aHVudGVyMg"));
        let error =
            Store::open("az://container", &settings.option("azure_storage_account_key", "hunter2 is no base64"));
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Environment, "{error}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }

    #[cfg(feature = "http")]
    #[tokio::test]
    async fn a_published_repository_is_for_reading_only() {
        let store = Store::open("https://127.0.0.1:1/backups", &StoreSettings::default()).unwrap();
        let name = super::super::ObjectName::new("a").unwrap();
        let refused = [store.create(&name, "x").await.map(|_| ()).unwrap_err(), store.delete(&name).await.unwrap_err()];
        for (error, action) in refused.iter().zip(["create", "delete"]) {
            assert_eq!(error.kind(), ErrorKind::Environment);
            assert_eq!(error.to_string(), format!("{action} a: Store(HttpStore) is for reading only"));
        }
        let names = futures::stream::iter([name]);
        let outcomes: Vec<_> = futures::StreamExt::collect(store.delete_many(names)).await;
        assert!(outcomes[0].1.as_ref().unwrap_err().to_string().ends_with("is for reading only"));
        assert_eq!(store.metrics(), super::super::StoreMetrics::default(), "nothing was sent");
    }

    #[test]
    fn memory_and_file_urls_open() {
        let store = Store::open("memory:///a/b", &StoreSettings::default().retries(3)).unwrap();
        assert_eq!((store.prefix(), store.settings().retries), ("a/b", 3));
        assert_eq!(store.at("c").unwrap().to_string(), "Store(a/b/c in InMemory)");
    }

    #[cfg(feature = "fs")]
    #[test]
    fn a_file_url_is_a_directory_even_with_spaces() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("with space");
        let url = Url::from_directory_path(&dir).unwrap();
        Store::open(url.as_str(), &StoreSettings::default()).unwrap();
        assert!(dir.is_dir());
    }
}
