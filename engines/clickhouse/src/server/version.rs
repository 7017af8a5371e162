//! Versions of servers.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// A version such as `18.16.1` or `26.5.1.1`. Ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerVersion {
    numbers: Vec<u32>,
    text: String,
}

impl ServerVersion {
    /// Year and number of the release in that year.
    #[must_use]
    pub fn release(&self) -> (u32, u32) {
        let number = |index: usize| self.numbers.get(index).copied().unwrap_or(0);
        (number(0), number(1))
    }

    /// Whether it is this release or a later one.
    #[must_use]
    pub fn since(&self, year: u32, number: u32) -> bool {
        self.release() >= (year, number)
    }
}

impl FromStr for ServerVersion {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Protocol { what: "its version".to_owned(), reason: format!("{text:?} is no version") };
        // Builds of others append their names: `24.3.5.47.altinitystable`.
        let numbers = text.split('.').map_while(|part| part.split('-').next()?.parse().ok());
        let numbers: Vec<u32> = numbers.collect();
        if numbers.len() < 2 {
            return Err(wrong());
        }
        Ok(Self { numbers, text: text.to_owned() })
    }
}

impl PartialOrd for ServerVersion {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ServerVersion {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| self.text.cmp(&other.text))
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_ordered() {
        let read = |text: &str| text.parse::<ServerVersion>().unwrap();
        assert!(read("18.16.1") < read("19.3.4") && read("22.10.1.1") > read("22.8.5.29"));
        assert!(read("22.8.5.29").since(22, 8) && !read("22.8.5.29").since(22, 9));
        assert_eq!(read("24.3.5.47.altinitystable").release(), (24, 3));
        for bad in ["", "eighteen", "18"] {
            assert!(bad.parse::<ServerVersion>().is_err(), "{bad}");
        }
    }
}
