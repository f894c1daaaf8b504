//! A fence around a task: a panic in it ends it and nothing else. The runtime has none of its own.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::prefetch::prefetch;

/// How a fenced task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It ran to its end.
    Returned,
    /// It panicked; what it owned is dropped with it.
    Panicked,
}

pin_project! {
    /// Runs a task and then calls `ended`. Written by hand because an async block would hold the task twice.
    pub struct Fenced<F, E> {
        #[pin]
        task: F,
        ended: Option<E>,
    }
}

/// Puts a fence around `task`. Shared state is only changed by whole steps, so a panic leaves nothing half-done for others.
pub const fn fenced<F, E>(task: F, ended: E) -> Fenced<F, E>
where
    F: Future<Output = ()>,
    E: FnOnce(End),
{
    Fenced {
        task,
        ended: Some(ended),
    }
}

impl<F: Future<Output = ()>, E: FnOnce(End)> Future for Fenced<F, E> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        prefetch(&raw const *self);
        let this = self.project();
        let task = this.task;
        let end = match catch_unwind(AssertUnwindSafe(|| task.poll(cx))) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(())) => End::Returned,
            Err(_) => End::Panicked,
        };
        if let Some(ended) = this.ended.take() {
            ended(end);
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Waker;

    use super::*;

    fn end_of(task: impl Future<Output = ()>) -> Option<End> {
        let mut seen = None;
        let polled = pin!(fenced(task, |end| seen = Some(end)))
            .poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(polled.is_ready(), seen.is_some());
        seen
    }

    #[test]
    fn a_panic_ends_the_task_like_a_return() {
        assert_eq!(end_of(async {}), Some(End::Returned));
        assert_eq!(end_of(async { panic!("on purpose") }), Some(End::Panicked));
        assert_eq!(end_of(std::future::pending()), None);
    }
}
