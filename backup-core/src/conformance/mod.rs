//! Conformance suites as code: what every repository and every engine must do, runnable by third parties.
//!
//! A suite gets a harness that makes the thing under test, and panics at the first rule that is broken, with a message that
//! says which. The rules are those of the traits' documentation and nothing else: no suite knows how an implementation
//! works. Each case is a function of its own, so that one can be run alone.
//!
//! Cases are sequential and take their time from the harness's [`Env`](crate::env::Env). Give them an
//! [`Env::seeded`](crate::env::Env::seeded) one: cases let time pass by sleeping on its clock, which costs nothing there.

mod bytes;
pub mod engine;
pub mod log;
pub mod repository;
