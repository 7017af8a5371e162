//! A bandwidth limit by debt: a request pays for its bytes at once and the next ones wait until the debt is worked off.

use std::time::Duration;

use backup_core::env::Clock;
use parking_lot::Mutex;

/// A token bucket on an injected clock. It may save up one second's worth of bytes.
#[derive(Debug)]
pub(super) struct Bandwidth {
    bytes_per_second: u64,
    /// When the bucket will be, or was, exactly empty, on the clock's monotonic scale.
    empty_at: Mutex<Option<Duration>>,
}

impl Bandwidth {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), empty_at: Mutex::new(None) }
    }

    /// Waits until `bytes` may be moved.
    ///
    /// # Cancel safety
    /// The bytes stay paid for when the future is dropped: a limit errs on the side of less traffic.
    pub(super) async fn pay(&self, bytes: u64, clock: &dyn Clock) {
        let wait = self.charge(bytes, clock.monotonic());
        if !wait.is_zero() {
            clock.sleep(wait).await;
        }
    }

    /// Books `bytes` at `now` and says how long to wait first.
    fn charge(&self, bytes: u64, now: Duration) -> Duration {
        let mut empty_at = self.empty_at.lock();
        let oldest = now.saturating_sub(Duration::from_secs(1));
        let start = empty_at.unwrap_or(oldest).max(oldest);
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        let end = start.saturating_add(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)));
        *empty_at = Some(end);
        end.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_holds_over_any_span_longer_than_the_burst() {
        let limit = Bandwidth::new(1000);
        let mut now = Duration::from_secs(100);
        assert_eq!(limit.charge(1000, now), Duration::ZERO, "one second's worth is saved up");
        assert_eq!(limit.charge(500, now), Duration::from_millis(500));
        assert_eq!(limit.charge(500, now), Duration::from_secs(1), "a second payer waits behind the first");
        now += Duration::from_secs(60);
        assert_eq!(limit.charge(1000, now), Duration::ZERO);
        assert_eq!(limit.charge(2000, now), Duration::from_secs(2), "idle time saves up one second, not sixty");
    }

    #[tokio::test]
    async fn paying_waits_on_the_injected_clock() {
        let env = backup_core::env::Env::seeded(1);
        let limit = Bandwidth::new(1 << 20);
        let start = env.clock().monotonic();
        for _ in 0..100 {
            limit.pay(1 << 20, &**env.clock()).await;
        }
        let took = env.clock().monotonic() - start;
        assert!(took >= Duration::from_secs(99) && took <= Duration::from_secs(100), "{took:?}");
    }
}
