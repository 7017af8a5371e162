//! Runnable compositions of the backup crates.
//!
//! - **`backupctl`** (`examples/backupctl`): a complete command-line application over every engine. All of it is in
//!   [`cli`], so that tests drive it in process and an embedder can read it file by file; the example itself only brings the
//!   process: arguments, terminal, signals.
//! - **`quickstart`** (`examples/quickstart`): a real PostgreSQL backed up, destroyed and restored, as a story.
//!
//! The PostgreSQL servers of one host as machines of managed services are in [`machines`].
//!
//! What both need is here: [`progress`] as bars of a terminal, [`signals`] that cancel work, [`table`]s and numbers for
//! [people](human).
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `aws`, `gcp`, `azure` | no | vaults in that cloud's object store |

pub mod cli;
pub mod human;
pub mod machines;
pub mod progress;
pub mod signals;
pub mod table;

/// The README's example, compiled as a documentation test.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}
