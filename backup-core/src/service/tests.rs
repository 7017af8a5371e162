//! Services on a platform that exists in memory: machines that can be lost, a clock that is moved by hand, crashes wherever something is
//! awaited.

mod capture;
mod crash;
mod drills;
mod life;
mod reading;
mod simulated;
mod telling;
mod time;
mod upkeep;
