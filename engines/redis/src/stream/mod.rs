//! The replication stream as bytes: commands, transactions, moments, and where a restore stops.
//!
//! The rule of this room: nothing here reads a clock or touches a server, memory does not grow with the input, and no input makes it
//! panic. All of it is pure but [`stop`], which reads the stored log. Offsets count the bytes of the stream from its beginning, as the server does.

mod cut;
mod edit;
mod framer;
mod keys;
mod note;
#[cfg(test)]
pub(crate) mod sample;
mod second;
mod stop;
mod tracker;

pub use cut::{Cut, cut, limit_at};
pub(crate) use edit::{Editor, judge};
pub use framer::{Command, Framer};
pub(crate) use note::APART;
pub use note::{Moment, StreamNote};
pub use second::{Second, Seconds};
pub use stop::{Stop, stop};
pub use tracker::Tracker;
