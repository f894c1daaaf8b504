//! Requests that wait until a server of their upstream has room, first come, first served.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use crate::net::deadline::Ticks;

/// One shard's queue for one upstream. Most requests in it take any server; one that is tried again takes none that it has tried, and
/// lets those pass that do. Where one looks for a server in vain, others that have tried the same ones would too, so only the first of
/// them looks; it is called when there may be room.
#[derive(Debug)]
pub struct Queue {
    /// How long a request may wait.
    pub patience: Ticks,
    /// In the order of their first waiters. None is empty.
    lines: RefCell<Vec<Line>>,
    length: Cell<usize>,
    length_max: usize,
    /// Requests that have ever joined.
    joined: Cell<u64>,
}

/// Requests that have tried the same servers.
#[derive(Debug)]
struct Line {
    tried: Rc<[usize]>,
    waiting: VecDeque<Rc<Waiter>>,
}

#[derive(Debug)]
struct Waiter {
    /// Its place among all that have ever joined.
    number: u64,
    called: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// A request's place in a [`Queue`], which it leaves when this is dropped.
#[derive(Debug)]
pub struct Turn<'q> {
    queue: &'q Queue,
    tried: Rc<[usize]>,
    waiter: Rc<Waiter>,
}

impl Queue {
    /// A queue for at most `length_max` requests.
    pub fn new(length_max: usize, patience: Ticks) -> Self {
        Self {
            patience,
            lines: RefCell::default(),
            length: Cell::new(0),
            length_max,
            joined: Cell::new(0),
        }
    }

    /// Whether somebody waits who takes any server: a new request need not look for one.
    pub fn holds_up(&self) -> bool {
        self.lines.borrow().iter().any(Line::takes_any)
    }

    /// A place at the end for a request that takes none of the servers `tried`, and has just looked in vain; `None` when the queue is
    /// full.
    pub fn join(&self, tried: &[usize]) -> Option<Turn<'_>> {
        if self.length.get() >= self.length_max {
            return None;
        }
        self.length.update(|length| length + 1);
        let number = self.joined.replace(self.joined.get() + 1);
        let waiter = Rc::new(Waiter {
            number,
            called: Cell::new(false),
            waker: RefCell::default(),
        });
        let mut lines = self.lines.borrow_mut();
        let tried = if let Some(line) = lines.iter_mut().find(|line| line.is_of(tried)) {
            line.waiting.push_back(Rc::clone(&waiter));
            Rc::clone(&line.tried)
        } else {
            let tried: Rc<[usize]> = tried.into();
            lines.push(Line {
                tried: Rc::clone(&tried),
                waiting: VecDeque::from([Rc::clone(&waiter)]),
            });
            tried
        };
        Some(Turn {
            queue: self,
            tried,
            waiter,
        })
    }

    /// Tells that there may be room: the first of each line looks, as far as no one before it takes any server.
    pub fn call(&self) {
        for line in &*self.lines.borrow() {
            if let Some(first) = line.waiting.front() {
                first.called.set(true);
                if let Some(waker) = &*first.waker.borrow() {
                    waker.wake_by_ref();
                }
            }
            if line.takes_any() {
                return;
            }
        }
    }

    /// Takes a request out. Gives whether it was the first of its line.
    fn leave(&self, turn: &Turn<'_>) -> bool {
        let mut lines = self.lines.borrow_mut();
        let Some(index) = lines.iter().position(|line| line.is_of(&turn.tried)) else {
            return false;
        };
        let waiting = &mut lines[index].waiting;
        let place = waiting
            .iter()
            .position(|waiter| Rc::ptr_eq(waiter, &turn.waiter));
        let Some(place) = place else { return false };
        waiting.remove(place);
        self.length.update(|length| length - 1);
        if place == 0 {
            let line = lines.remove(index);
            if let Some(first) = line.first() {
                let index = lines.partition_point(|other| other.first() < Some(first));
                lines.insert(index, line);
            }
        }
        place == 0
    }
}

impl Line {
    /// Whether it is the line of those that have tried these servers, in whichever order.
    fn is_of(&self, tried: &[usize]) -> bool {
        tried.iter().all(|server| self.tried.contains(server))
            && self.tried.iter().all(|server| tried.contains(server))
    }

    /// The number of its first waiter.
    fn first(&self) -> Option<u64> {
        self.waiting.front().map(|waiter| waiter.number)
    }

    fn takes_any(&self) -> bool {
        self.tried.is_empty()
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
        if self.queue.leave(self) {
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
        let turns = [(); 3].map(|()| queue.join(&[]).expect("room"));
        assert!(queue.join(&[]).is_none(), "the queue is full");
        assert!(queue.holds_up());
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
        assert!(!queue.holds_up());
        queue.call();
        assert!(queue.join(&[]).is_some(), "there is room again");
    }

    #[test]
    fn one_that_leaves_from_the_middle_calls_nobody() {
        let queue = Queue::new(3, Duration::from_secs(1).into());
        let [first, second, third] = [(); 3].map(|()| queue.join(&[]).expect("room"));
        drop(second);
        assert!(!is_called(&first) && !is_called(&third));
        drop(first);
        assert!(is_called(&third));
    }

    #[test]
    fn who_does_not_take_every_server_holds_nobody_up_who_does() {
        let queue = Queue::new(5, Duration::from_secs(1).into());
        let picky = queue.join(&[0]).expect("room");
        assert!(!queue.holds_up());
        let [any, behind] = [(); 2].map(|()| queue.join(&[]).expect("room"));
        assert!(queue.holds_up());
        queue.call();
        assert!(is_called(&picky) && is_called(&any) && !is_called(&behind));
        drop(any);
        assert!(is_called(&picky) && is_called(&behind));
    }

    #[test]
    fn one_of_those_that_have_tried_the_same_is_called() {
        let queue = Queue::new(9, Duration::from_secs(1).into());
        let tried: [&[usize]; 6] = [&[1, 0], &[0, 1], &[0], &[], &[2], &[0]];
        let turns = tried.map(|tried| queue.join(tried).expect("room"));
        let called = || turns.each_ref().map(is_called);
        assert_eq!(called(), [false; 6], "they have just looked");
        queue.call();
        assert_eq!(
            called(),
            [true, false, true, true, false, false],
            "up to the one that takes any"
        );
        let [first, second, third, any, behind, last] = turns;
        drop(first);
        assert!(is_called(&second), "the next in the line");
        assert!(is_called(&third) && is_called(&any), "they still may look");
        drop(third);
        // Its line's first has come after the one that takes any.
        assert!(!is_called(&behind) && !is_called(&last));
        drop(any);
        assert!(is_called(&second) && is_called(&behind) && is_called(&last));
    }
}
