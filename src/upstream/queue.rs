//! Requests that wait until a server of their upstream has room, first come, first served.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use crate::net::deadline::Ticks;

/// One shard's queue for one upstream. Only its head looks for a server; it is called when there may be one.
#[derive(Debug)]
pub struct Queue {
    /// How long a request may wait.
    pub patience: Ticks,
    waiting: RefCell<VecDeque<Rc<Waiter>>>,
    length_max: usize,
}

#[derive(Debug, Default)]
struct Waiter {
    called: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// A request's place in a [`Queue`], which it leaves when this is dropped.
#[derive(Debug)]
pub struct Turn<'q> {
    queue: &'q Queue,
    waiter: Rc<Waiter>,
}

impl Queue {
    /// A queue for at most `length_max` requests.
    pub fn new(length_max: usize, patience: Ticks) -> Self {
        Self {
            patience,
            waiting: RefCell::default(),
            length_max,
        }
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.borrow().is_empty()
    }

    /// A place at the end; `None` when the queue is full.
    pub fn join(&self) -> Option<Turn<'_>> {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() == self.length_max {
            return None;
        }
        let waiter = Rc::<Waiter>::default();
        waiting.push_back(Rc::clone(&waiter));
        Some(Turn {
            queue: self,
            waiter,
        })
    }

    /// Tells the first in the queue that there may be room.
    pub fn call(&self) {
        if let Some(first) = self.waiting.borrow().front() {
            first.called.set(true);
            if let Some(waker) = &*first.waker.borrow() {
                waker.wake_by_ref();
            }
        }
    }
}

impl Turn<'_> {
    /// Waits until this request is called. May be dropped at any time.
    pub async fn called(&self) {
        poll_fn(|cx| {
            if self.waiter.called.take() {
                return Poll::Ready(());
            }
            *self.waiter.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Turn<'_> {
    /// The next in the queue is called: there may be room for more than one.
    fn drop(&mut self) {
        let mut waiting = self.queue.waiting.borrow_mut();
        let place = waiting
            .iter()
            .position(|waiter| Rc::ptr_eq(waiter, &self.waiter));
        if let Some(place) = place {
            waiting.remove(place);
        }
        drop(waiting);
        if place == Some(0) {
            self.queue.call();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::Context;
    use std::time::Duration;

    use super::*;

    fn is_called(turn: &Turn<'_>) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        pin!(turn.called()).poll(&mut cx).is_ready()
    }

    #[test]
    fn the_first_is_called_and_calls_the_next_when_it_leaves() {
        let queue = Queue::new(3, Duration::from_secs(1).into());
        let turns = [(); 3].map(|()| queue.join().expect("room"));
        assert!(queue.join().is_none(), "the queue is full");
        queue.call();
        let [first, second, third] = turns;
        assert!(
            is_called(&first) && !is_called(&first),
            "once for each call"
        );
        assert!(!is_called(&second));
        drop(first);
        assert!(is_called(&second) && !is_called(&third));
        drop(second);
        drop(third);
        assert!(queue.is_empty());
        queue.call();
    }

    #[test]
    fn one_that_leaves_from_the_middle_calls_nobody() {
        let queue = Queue::new(3, Duration::from_secs(1).into());
        let [first, second, third] = [(); 3].map(|()| queue.join().expect("room"));
        drop(second);
        assert!(!is_called(&first) && !is_called(&third));
        drop(first);
        assert!(is_called(&third));
    }
}
