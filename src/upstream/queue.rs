//! Requests that wait until a server of their upstream has room, first come, first served.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use crate::net::deadline::Ticks;

/// One shard's queue for one upstream. Only its head looks for a server, and whoever stands behind none but picky ones; they are called
/// when there may be one.
#[derive(Debug)]
pub struct Queue {
    /// How long a request may wait.
    pub patience: Ticks,
    waiting: RefCell<VecDeque<Rc<Waiter>>>,
    length_max: usize,
}

#[derive(Debug, Default)]
struct Waiter {
    /// Some servers will not do for it: it may have to let others pass.
    picky: bool,
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

    /// A place at the end; `None` when the queue is full. A `picky` one does not take every server, and holds nobody up who does.
    pub fn join(&self, picky: bool) -> Option<Turn<'_>> {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() == self.length_max {
            return None;
        }
        let waiter = Rc::new(Waiter {
            picky,
            ..Waiter::default()
        });
        // There may be room that those in front do not take.
        let is_next = !waiting.is_empty() && waiting.iter().all(|waiter| waiter.picky);
        waiter.called.set(is_next);
        waiting.push_back(Rc::clone(&waiter));
        Some(Turn {
            queue: self,
            waiter,
        })
    }

    /// Tells the first in the queue that there may be room, and those behind it as far as it is for picky ones to take it.
    pub fn call(&self) {
        for waiter in self.waiting.borrow().iter() {
            waiter.called.set(true);
            if let Some(waker) = &*waiter.waker.borrow() {
                waker.wake_by_ref();
            }
            if !waiter.picky {
                return;
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
        let Some(place) = place else { return };
        waiting.remove(place);
        let was_next = waiting.iter().take(place).all(|waiter| waiter.picky);
        drop(waiting);
        if was_next {
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
        let turns = [(); 3].map(|()| queue.join(false).expect("room"));
        assert!(queue.join(false).is_none(), "the queue is full");
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
        let [first, second, third] = [(); 3].map(|()| queue.join(false).expect("room"));
        drop(second);
        assert!(!is_called(&first) && !is_called(&third));
        drop(first);
        assert!(is_called(&third));
    }

    #[test]
    fn picky_ones_hold_nobody_up() {
        let queue = Queue::new(5, Duration::from_secs(1).into());
        let [picky, any, behind] =
            [true, false, false].map(|picky| queue.join(picky).expect("room"));
        assert!(!is_called(&picky), "it has just looked");
        assert!(is_called(&any), "there may be room for it");
        assert!(!is_called(&behind));
        queue.call();
        assert!(is_called(&picky) && is_called(&any) && !is_called(&behind));
        drop(any);
        assert!(is_called(&picky) && is_called(&behind));
    }
}
