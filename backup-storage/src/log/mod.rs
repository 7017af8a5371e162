//! The log: what is captured between and after backups, as write-once objects of one writer at a time.
//!
//! ```text
//! append ─▶ queue ─(cut by size, by time, by flush)─▶ seal ─▶ put ─▶ put … ─▶ fence check ─▶ durable
//!           bounded                         one blocking thread   a few at a time    one for all that landed
//! ```
//! A piece of log is one object whose [name] says the range that it holds, so what is stored is known by a listing. Its content
//! is sealed like that of a [pack](crate::pack), and its last segment holds the moments and names of the range.
//!
//! **Fencing.** A writer gets its number by a commit to the journal. It acknowledges a piece when its object is stored *and* a look
//! at the journal that began afterwards has shown no later writer. A later writer commits its number first and lists then: so
//! it sees every object that its predecessor has acknowledged, and seals the predecessor where its log ends. What the
//! predecessor may still store beyond does not count, whenever it arrives.
//!
//! **Spool.** A writer may acknowledge what is durable in a folder of its host, and send it from there; see `writer/spool`.
//!
//! **Window.** A writer has at most [`WINDOW`](writer::WINDOW) objects on their way. Whoever finds object `n` therefore knows that
//! all before `n` less the window were stored, and only inside of the window does a missing object mean that the writer died on it.

pub(crate) mod cache;
pub(crate) mod compact;
pub(crate) mod name;
pub(crate) mod object;
pub(crate) mod pieces;
pub(crate) mod source;
pub(crate) mod stored;
pub(crate) mod verify;
pub(crate) mod writer;

pub(crate) use cache::LogCache;
pub(crate) use source::LogReader;
pub(crate) use stored::Stored;
