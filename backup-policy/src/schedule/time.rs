//! The time of day that a user chooses.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// `backup_hour` and `backup_minute`, in UTC. Each may be null: then it is a moment that follows from the service's name.
///
/// How it applies depends on the cadence. Daily: at that time. Every few hours: at that time and every few hours from it, so
/// that every 12 hours with hour 3 means 3 and 15 o'clock; hourly, only the minute counts. Every few days: at that time, on
/// days that follow from the service's name. A cron expression says its times itself, so both must be null.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "Fields", try_from = "Fields")]
pub struct BackupTime {
    hour: Option<u8>,
    minute: Option<u8>,
}

impl BackupTime {
    /// Both null: the default of each service.
    pub const DEFAULT: Self = Self { hour: None, minute: None };

    /// A time from what a user gave.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an hour outside of 0 to 23, or a minute outside of 0 to 59.
    pub fn new(hour: Option<i64>, minute: Option<i64>) -> Result<Self> {
        Self::DEFAULT.with_hour(hour)?.with_minute(minute)
    }

    /// The same minute with another hour; null returns to the default.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_hour(self, hour: Option<i64>) -> Result<Self> {
        Ok(Self { hour: checked("backup_hour", hour, 23)?, ..self })
    }

    /// The same hour with another minute; null returns to the default.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_minute(self, minute: Option<i64>) -> Result<Self> {
        Ok(Self { minute: checked("backup_minute", minute, 59)?, ..self })
    }

    /// The hour, 0 to 23.
    #[must_use]
    pub fn hour(self) -> Option<u8> {
        self.hour
    }

    /// The minute, 0 to 59.
    #[must_use]
    pub fn minute(self) -> Option<u8> {
        self.minute
    }
}

/// `03:15 UTC`, `03:** UTC`, `default`.
impl fmt::Display for BackupTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |part: Option<u8>| part.map_or_else(|| "**".to_owned(), |part| format!("{part:02}"));
        match (self.hour, self.minute) {
            (None, None) => f.write_str("default"),
            (hour, minute) => write!(f, "{}:{} UTC", part(hour), part(minute)),
        }
    }
}

fn checked(place: &str, value: Option<i64>, last: u8) -> Result<Option<u8>> {
    let fits = |value: i64| {
        let known = u8::try_from(value).ok().filter(|value| *value <= last);
        known.ok_or_else(|| Error::invalid(place, value, format!("0 to {last} (UTC), or null for the default")))
    };
    value.map(fits).transpose()
}

/// As it stands in documents and settings.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(default)]
    backup_hour: Option<i64>,
    #[serde(default)]
    backup_minute: Option<i64>,
}

impl From<BackupTime> for Fields {
    fn from(time: BackupTime) -> Self {
        Self { backup_hour: time.hour.map(i64::from), backup_minute: time.minute.map(i64::from) }
    }
}

impl TryFrom<Fields> for BackupTime {
    type Error = Error;

    fn try_from(fields: Fields) -> Result<Self> {
        Self::new(fields.backup_hour, fields.backup_minute)
    }
}
