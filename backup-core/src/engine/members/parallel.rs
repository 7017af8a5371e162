//! The same work on every member at the same time.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use tokio::task::JoinSet;
use tracing::Instrument as _;

use crate::error::{Error, Result};
use crate::member::MemberName;

/// Does `work` for each of `members`, on a task of its own each, and at most `limit` of them at a time; all at once where there is no
/// limit, which is what keeps their moments together. The outcomes are in the order of the members.
///
/// The first that fails ends the others, and has ended them when this returns: nobody writes any more into what is given up then.
///
/// # Cancel safety
/// Dropping the future ends all of the work.
///
/// # Errors
/// That of the first member that failed, with its name.
pub async fn each_member<T, U, F, Fut>(
    members: impl IntoIterator<Item = (MemberName, T)> + Send,
    limit: Option<NonZeroUsize>,
    work: F,
) -> Result<Vec<U>>
where
    F: Fn(MemberName, T) -> Fut + Send,
    Fut: Future<Output = Result<U>> + Send + 'static,
    T: Send,
    U: Send + 'static,
{
    let mut waiting: std::collections::VecDeque<_> = members.into_iter().enumerate().collect();
    let limit = limit.map_or(usize::MAX, NonZeroUsize::get);
    let mut tasks = JoinSet::new();
    let mut outcomes = BTreeMap::new();
    loop {
        while tasks.len() < limit
            && let Some((number, (name, member))) = waiting.pop_front()
        {
            let span = tracing::info_span!("member", %name);
            let task = work(name.clone(), member);
            let told = async move {
                task.await.map(|outcome| (number, outcome)).map_err(|error| error.context(format!("member {name}")))
            };
            tasks.spawn(told.instrument(span));
        }
        let failure = match tasks.join_next().await {
            None => return Ok(outcomes.into_values().collect()),
            Some(Ok(Ok((number, outcome)))) => {
                outcomes.insert(number, outcome);
                continue;
            }
            Some(Ok(Err(error))) => error,
            Some(Err(ended)) => Error::internal("the work on a member ended by itself").with_source(ended),
        };
        tasks.shutdown().await;
        return Err(failure);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Barrier;

    use super::*;
    use crate::ErrorKind;

    fn members(count: usize) -> Vec<(MemberName, usize)> {
        (0..count).map(|number| (MemberName::new(format!("m{number}")).unwrap(), number)).collect()
    }

    #[tokio::test]
    async fn all_work_at_the_same_time_unless_there_is_a_limit() {
        let all = Arc::new(Barrier::new(5));
        let outcomes = each_member(members(5), None, |name, number| {
            let all = Arc::clone(&all);
            async move {
                // Nobody gets past this before everybody is here.
                all.wait().await;
                Ok(format!("{name}={number}"))
            }
        });
        assert_eq!(outcomes.await.unwrap(), ["m0=0", "m1=1", "m2=2", "m3=3", "m4=4"]);

        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        each_member(members(9), NonZeroUsize::new(2), |_, _| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                now.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }
        })
        .await
        .unwrap();
        assert_eq!(most.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn one_that_fails_ends_the_others() {
        struct Ended(Arc<AtomicUsize>);
        impl Drop for Ended {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let (ended, all) = (Arc::new(AtomicUsize::new(0)), Arc::new(Barrier::new(4)));
        let outcome = each_member(members(4), None, |_, number| {
            let (mine, all) = (Ended(Arc::clone(&ended)), Arc::clone(&all));
            async move {
                let _mine = mine;
                all.wait().await;
                if number == 2 {
                    return Err(Error::environment("no"));
                }
                std::future::pending::<Result<()>>().await
            }
        });
        let error = outcome.await.unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Environment, "member m2"));
        assert_eq!(error.causes(), ["no"]);
        assert_eq!(ended.load(Ordering::SeqCst), 4, "nobody goes on behind the error");
    }
}
