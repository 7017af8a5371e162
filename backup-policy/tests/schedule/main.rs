//! When backups are made.

mod clocks;
mod due;
mod slots;
