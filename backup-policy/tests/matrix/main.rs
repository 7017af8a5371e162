//! The matrix: what it says, how it is read, and whether what follows from it is what the platform's page promises.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod document;
mod promise;
mod sixty_days;
