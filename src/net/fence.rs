//! A fence around a task: a panic in it ends it and nothing else. The runtime has none of its own.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

/// Runs `task`; a panic in it is an error. What it owned is dropped, and shared state is only changed by whole steps, so others go on.
pub async fn fenced<T>(task: impl Future<Output = T>) -> Result<T, Box<dyn Any + Send>> {
    let mut task = pin!(task);
    poll_fn(
        move |cx| match catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(cx))) {
            Ok(polled) => polled.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        },
    )
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Waker};

    fn poll_once<T>(future: impl Future<Output = T>) -> Poll<T> {
        pin!(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_panic_is_an_error_and_a_value_a_value() {
        assert!(matches!(poll_once(fenced(async { 5 })), Poll::Ready(Ok(5))));
        let panics = async {
            if true {
                panic!("on purpose");
            }
        };
        assert!(matches!(poll_once(fenced(panics)), Poll::Ready(Err(_))));
    }
}
