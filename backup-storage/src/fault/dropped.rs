//! Futures that are dropped in the middle: what is left of a task that was cancelled.

use std::pin::Pin;
use std::task::{Context, Poll};

/// A future that is dropped after so many polls. `None` when that was before its end.
#[derive(Debug)]
pub struct DroppedAfter<F> {
    future: Option<Pin<Box<F>>>,
    polls: u64,
}

impl<F: Future> DroppedAfter<F> {
    /// `future`, which is polled at most `polls` times.
    pub fn new(polls: u64, future: F) -> Self {
        Self { future: Some(Box::pin(future)), polls }
    }
}

impl<F: Future> Future for DroppedAfter<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(left) = self.polls.checked_sub(1) else {
            self.future = None;
            return Poll::Ready(None);
        };
        self.polls = left;
        match &mut self.future {
            Some(future) => future.as_mut().poll(cx).map(Some),
            None => Poll::Ready(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_ends_in_time_or_not_at_all() {
        let twice = || async {
            tokio::task::yield_now().await;
            7
        };
        assert_eq!(DroppedAfter::new(2, twice()).await, Some(7));
        assert_eq!(DroppedAfter::new(1, twice()).await, None);
        assert_eq!(DroppedAfter::new(0, twice()).await, None);
    }
}
