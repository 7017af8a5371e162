//! Services on a platform that exists in memory: machines that can be lost, a clock that is moved by hand, crashes wherever something is
//! awaited.

mod crash;
mod life;
mod simulated;
mod time;
