//! How often.

use std::fmt;
use std::str::FromStr;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::cron::CronRule;
use crate::age::Age;
use crate::error::{Error, Result};

const HOURS: &str = "a divisor of 24 (1, 2, 3, 4, 6, 8, 12, 24), or a multiple of 24 up to 744 (31 days)";
const ALLOWED: &str = "daily, every Nh or every Nd, or cron followed by five fields";

/// How often a backup is made.
///
/// As text, and so in documents: `daily`, `every 3h`, `every 2d`, `cron 15 3 * * MON`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Cadence(pub(crate) Rhythm);

/// What a cadence consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rhythm {
    /// Every so many hours.
    Hours(u16),
    /// At moments that an expression names.
    Cron(Box<CronRule>),
}

impl Cadence {
    /// Once a day.
    #[must_use]
    pub const fn daily() -> Self {
        Self::hours(24)
    }

    /// Every `hours`: a divisor of 24, so that each day has its backups at the same times, or whole days up to 31.
    ///
    /// # Errors
    /// [`Error::Invalid`] for any other number.
    pub fn every_hours(hours: i64) -> Result<Self> {
        let fits = |hours: &u16| {
            matches!(hours, 1 | 2 | 3 | 4 | 6 | 8 | 12) || (hours.is_multiple_of(24) && (24..=744).contains(hours))
        };
        let known = u16::try_from(hours).ok().filter(fits);
        known.map(Self::hours).ok_or_else(|| Error::invalid("cadence", format!("every {hours} hours"), HOURS))
    }

    /// At the moments, in UTC, that a cron expression of five fields names.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it cannot be read, or never comes true.
    pub fn cron(expression: &str) -> Result<Self> {
        Ok(Self(Rhythm::Cron(Box::new(CronRule::parse(expression)?))))
    }

    pub(crate) const fn hours(hours: u16) -> Self {
        Self(Rhythm::Hours(hours))
    }

    /// The longest time between two backups, of a cron expression over nine years.
    #[must_use]
    pub fn longest_interval(&self) -> SignedDuration {
        match &self.0 {
            Rhythm::Hours(hours) => Age::hours(*hours).duration(),
            Rhythm::Cron(rule) => rule.longest_interval(),
        }
    }
}

impl FromStr for Cadence {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refused = || Error::invalid("cadence", format!("{text:?}"), ALLOWED);
        if text == "daily" {
            return Ok(Self::daily());
        }
        if let Some(expression) = text.strip_prefix("cron ") {
            return Self::cron(expression).map_err(|error| error.within("cadence"));
        }
        let length = text.strip_prefix("every ").ok_or_else(refused)?;
        let (number, unit) = match (length.strip_suffix('h'), length.strip_suffix('d')) {
            (Some(number), _) => (number, 1),
            (_, Some(number)) => (number, 24),
            _ => return Err(refused()),
        };
        let hours = number.parse::<i64>().ok().and_then(|number| number.checked_mul(unit)).ok_or_else(refused)?;
        Self::every_hours(hours)
    }
}

impl TryFrom<String> for Cadence {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Cadence> for String {
    fn from(cadence: Cadence) -> Self {
        cadence.to_string()
    }
}

impl fmt::Display for Cadence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Rhythm::Hours(24) => f.write_str("daily"),
            Rhythm::Hours(hours) if hours % 24 == 0 => write!(f, "every {}d", hours / 24),
            Rhythm::Hours(hours) => write!(f, "every {hours}h"),
            Rhythm::Cron(rule) => write!(f, "cron {}", rule.text()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        for text in ["daily", "every 1h", "every 12h", "every 2d", "cron 15 3 * * MON"] {
            let cadence: Cadence = text.parse().unwrap();
            assert_eq!(cadence.to_string(), text);
        }
        assert_eq!("every 24h".parse::<Cadence>(), Ok(Cadence::daily()));
        assert_eq!("every 1d".parse::<Cadence>(), Ok(Cadence::daily()));
    }

    #[test]
    fn what_is_no_cadence_is_told_what_is() {
        for text in [
            "",
            "weekly",
            "every",
            "every h",
            "every 5h",
            "every 0h",
            "every -3h",
            "every 36h",
            "every 32d",
            "every 9999999999999999999d",
        ] {
            assert!(text.parse::<Cadence>().is_err(), "{text}");
        }
        assert_eq!(
            "every 5h".parse::<Cadence>().unwrap_err().to_string(),
            "cadence is every 5 hours; allowed is a divisor of 24 (1, 2, 3, 4, 6, 8, 12, 24), or a multiple of 24 up to 744 (31 days)"
        );
    }
}
