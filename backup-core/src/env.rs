//! Time, waiting and randomness, injected.
//!
//! Nothing else in the workspace asks the operating system for them (clippy forbids it), so a whole backup can be replayed
//! by seed with a clock that a test moves by hand.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

/// A source of time and of waiting.
#[async_trait::async_trait]
pub trait Clock: Debug + Send + Sync + 'static {
    /// Wall-clock time. May jump; only for stamps that people read and for policy, never to measure a duration.
    fn now(&self) -> Timestamp;

    /// Time since an arbitrary fixed moment; never goes backwards.
    fn monotonic(&self) -> Duration;

    /// Returns after `duration` has passed on this clock.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    async fn sleep(&self, duration: Duration);
}

/// A source of unpredictable bytes.
pub trait Entropy: Debug + Send + Sync + 'static {
    /// Fills `out` with random bytes.
    fn fill(&self, out: &mut [u8]);
}

/// The clock of the machine.
#[derive(Debug, Clone)]
pub struct SystemClock {
    origin: std::time::Instant,
}

impl Default for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place where the machine's clock is read")]
    fn default() -> Self {
        Self { origin: std::time::Instant::now() }
    }
}

#[async_trait::async_trait]
impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place where the machine's clock is read")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "the one place where time is waited for")]
    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// The randomness of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    /// # Panics
    /// When the operating system has no randomness to give: nothing can be encrypted then, and nothing must be.
    #[expect(clippy::disallowed_methods, reason = "the one place where the system's randomness is read")]
    fn fill(&self, out: &mut [u8]) {
        getrandom::fill(out).expect("the operating system provides randomness");
    }
}

/// Clock and entropy together, as they are handed to components.
#[derive(Debug, Clone)]
pub struct Env {
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl Default for Env {
    fn default() -> Self {
        Self::system()
    }
}

impl Env {
    /// The machine's clock and randomness.
    #[must_use]
    pub fn system() -> Self {
        Self { clock: Arc::new(SystemClock::default()), entropy: Arc::new(SystemEntropy) }
    }

    /// An environment of the given parts.
    pub fn new(clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self { clock, entropy }
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The randomness.
    #[must_use]
    pub fn entropy(&self) -> &Arc<dyn Entropy> {
        &self.entropy
    }

    /// Wall-clock time, in whole microseconds: what is written down comes back equal.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let now = self.clock.now();
        Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
    }

    /// `N` random bytes.
    #[must_use]
    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.entropy.fill(&mut bytes);
        bytes
    }
}

/// A clock that stands still until somebody moves it, and whose sleepers wait until it has come so far: for simulations.
#[derive(Debug)]
pub struct SimulatedClock {
    wall: parking_lot::Mutex<Timestamp>,
    monotonic: tokio::sync::watch::Sender<Duration>,
}

impl SimulatedClock {
    /// A clock that stands at `start`.
    #[must_use]
    pub fn at(start: Timestamp) -> Self {
        Self { wall: parking_lot::Mutex::new(start), monotonic: tokio::sync::watch::Sender::new(Duration::ZERO) }
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        self.jump(jiff::SignedDuration::try_from(by).unwrap_or(jiff::SignedDuration::MAX));
        self.monotonic.send_modify(|since| *since = since.saturating_add(by));
    }

    /// Sets the wall clock forward or back, without time passing.
    pub fn jump(&self, by: jiff::SignedDuration) {
        let mut wall = self.wall.lock();
        let end = if by.is_negative() { Timestamp::MIN } else { Timestamp::MAX };
        *wall = wall.checked_add(by).unwrap_or(end);
    }
}

#[async_trait::async_trait]
impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        *self.wall.lock()
    }

    fn monotonic(&self) -> Duration {
        *self.monotonic.borrow()
    }

    async fn sleep(&self, duration: Duration) {
        let mut moved = self.monotonic.subscribe();
        let until = moved.borrow().saturating_add(duration);
        // The sender lives as long as the clock that is borrowed here.
        let _ = moved.wait_for(|since| *since >= until).await;
    }
}

/// The clock of the machine, ahead by a time that nobody waits for: for real servers whose service is to grow old.
#[derive(Debug, Default)]
pub struct ShiftedClock {
    clock: SystemClock,
    by: parking_lot::Mutex<jiff::SignedDuration>,
}

impl ShiftedClock {
    /// A clock that is ahead by `by`, or behind when that is negative.
    #[must_use]
    pub fn by(by: jiff::SignedDuration) -> Self {
        Self { clock: SystemClock::default(), by: parking_lot::Mutex::new(by) }
    }

    /// Sets by how much it is ahead.
    pub fn set(&self, by: jiff::SignedDuration) {
        *self.by.lock() = by;
    }
}

#[async_trait::async_trait]
impl Clock for ShiftedClock {
    fn now(&self) -> Timestamp {
        let by = *self.by.lock();
        let end = if by.is_negative() { Timestamp::MIN } else { Timestamp::MAX };
        self.clock.now().checked_add(by).unwrap_or(end)
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }

    async fn sleep(&self, duration: Duration) {
        self.clock.sleep(duration).await;
    }
}

#[cfg(any(test, feature = "test-util"))]
mod manual {
    use super::{Clock, Debug, Duration, Entropy, Timestamp};
    use parking_lot::Mutex;

    /// A clock that stands still until a test moves it. Sleeping moves it: nothing ever waits for real.
    #[derive(Debug)]
    pub struct ManualClock {
        state: Mutex<(Timestamp, Duration)>,
    }

    impl ManualClock {
        /// A clock that stands at `start`.
        #[must_use]
        pub fn at(start: Timestamp) -> Self {
            Self { state: Mutex::new((start, Duration::ZERO)) }
        }

        /// Moves time forward.
        pub fn advance(&self, by: Duration) {
            let mut state = self.state.lock();
            state.0 = state.0.checked_add(by).unwrap_or(Timestamp::MAX);
            state.1 += by;
        }
    }

    #[async_trait::async_trait]
    impl Clock for ManualClock {
        fn now(&self) -> Timestamp {
            self.state.lock().0
        }

        fn monotonic(&self) -> Duration {
            self.state.lock().1
        }

        async fn sleep(&self, duration: Duration) {
            self.advance(duration);
            tokio::task::yield_now().await;
        }
    }

    /// Reproducible "randomness" for tests: SplitMix64 from a seed. Never for real keys.
    #[derive(Debug)]
    pub struct SeededEntropy(Mutex<u64>);

    impl SeededEntropy {
        /// The sequence that belongs to `seed`.
        #[must_use]
        pub fn new(seed: u64) -> Self {
            Self(Mutex::new(seed))
        }
    }

    impl Entropy for SeededEntropy {
        fn fill(&self, out: &mut [u8]) {
            let mut state = self.0.lock();
            for chunk in out.chunks_mut(8) {
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut z = *state;
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                let bytes = (z ^ (z >> 31)).to_le_bytes();
                chunk.copy_from_slice(&bytes[..chunk.len()]);
            }
        }
    }

    impl super::Env {
        /// A manual clock at 2026-01-01 and entropy from `seed`.
        #[must_use]
        pub fn seeded(seed: u64) -> Self {
            let start = Timestamp::from_second(1_767_225_600).unwrap_or(Timestamp::UNIX_EPOCH);
            Self::new(std::sync::Arc::new(ManualClock::at(start)), std::sync::Arc::new(SeededEntropy::new(seed)))
        }
    }
}
#[cfg(any(test, feature = "test-util"))]
pub use manual::{ManualClock, SeededEntropy};

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manual_clock_moves_only_by_hand_and_by_sleeping() {
        let env = Env::seeded(1);
        let (wall, since) = (env.now(), env.clock().monotonic());
        assert_eq!((env.now(), env.clock().monotonic()), (wall, since));
        env.clock().sleep(Duration::from_secs(3600)).await;
        assert_eq!(env.now().duration_since(wall).as_secs(), 3600);
        assert_eq!(env.clock().monotonic() - since, Duration::from_secs(3600));

        let clock = ManualClock::at(Timestamp::MAX);
        clock.advance(Duration::from_secs(1));
        assert_eq!(clock.now(), Timestamp::MAX, "time ends, the process does not");
    }

    #[tokio::test]
    async fn sleepers_of_a_simulated_clock_wait_until_it_has_come_so_far() {
        let clock = SimulatedClock::at(Timestamp::UNIX_EPOCH);
        let mut sleeper = std::pin::pin!(clock.sleep(Duration::from_secs(10)));
        assert!(futures::poll!(&mut sleeper).is_pending());
        clock.advance(Duration::from_secs(9));
        clock.jump(jiff::SignedDuration::from_hours(-24));
        assert!(futures::poll!(&mut sleeper).is_pending());
        assert_eq!(clock.now().as_second(), 9 - 86_400);
        clock.advance(Duration::from_secs(1));
        assert!(futures::poll!(&mut sleeper).is_ready());
        assert_eq!(clock.monotonic(), Duration::from_secs(10));
    }

    #[test]
    fn a_seed_decides_every_byte() {
        let bytes = |seed| {
            let env = Env::seeded(seed);
            (env.random::<32>(), env.random::<5>())
        };
        assert_eq!(bytes(1), bytes(1));
        assert_ne!(bytes(1), bytes(2));
        let (first, second) = bytes(1);
        assert_ne!(first[..5], second, "a sequence goes on");
    }

    #[tokio::test]
    async fn the_machine_has_time_and_randomness() {
        let env = Env::system();
        assert_ne!(env.random::<16>(), env.random::<16>());
        let before = env.clock().monotonic();
        env.clock().sleep(Duration::ZERO).await;
        assert!(env.clock().monotonic() >= before);
        assert!(env.now() > Timestamp::UNIX_EPOCH);
    }
}
