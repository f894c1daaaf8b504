//! Requests that wait until a server of their upstream has room, first come, first served.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use crate::net::deadline::Ticks;

/// One shard's queue for one upstream. Most requests in it take any server; one that is tried again takes none that it has tried, and
/// lets those pass that do. One that is bound to a server which takes requests of its own clients alone lets nobody else have that.
/// Where one looks for a server in vain, others that could use the same ones would too, so only the first of them looks; it is called
/// when there may be room.
#[derive(Debug)]
pub struct Queue {
    /// How long a request may wait.
    pub patience: Ticks,
    /// In the order of their first waiters. None is empty.
    lines: RefCell<Vec<Line>>,
    /// Servers that take requests of their own clients alone, in ascending order.
    reserved: RefCell<Vec<usize>>,
    length: Cell<usize>,
    length_max: usize,
    /// Requests that have ever joined.
    joined: Cell<u64>,
}

/// Requests that have tried the same servers and are bound to the same one.
#[derive(Debug)]
struct Line {
    tried: Rc<[usize]>,
    own: Option<usize>,
    waiting: VecDeque<Rc<Waiter>>,
}

#[derive(Debug)]
struct Waiter {
    /// Its place among all that have ever joined.
    number: u64,
    called: Cell<Option<Call>>,
    waker: RefCell<Option<Waker>>,
}

/// Where a request that waited is to look for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// At the server that it is bound to, which takes requests of its own clients alone. The others are for those before it.
    Own,
    /// At all that it has not tried.
    Any,
}

/// A request's place in a [`Queue`], which it leaves when this is dropped.
#[derive(Debug)]
pub struct Turn<'q> {
    queue: &'q Queue,
    tried: Rc<[usize]>,
    own: Option<usize>,
    waiter: Rc<Waiter>,
}

impl Queue {
    /// A queue for at most `length_max` requests.
    pub fn new(length_max: usize, patience: Ticks) -> Self {
        Self {
            patience,
            lines: RefCell::default(),
            reserved: RefCell::default(),
            length: Cell::new(0),
            length_max,
            joined: Cell::new(0),
        }
    }

    /// Whether somebody waits who takes any server: a new request need not look for one.
    pub fn holds_up(&self) -> bool {
        self.lines.borrow().iter().any(Line::takes_any)
    }

    /// Whether somebody waits who is bound to this server.
    pub fn is_awaited(&self, server: usize) -> bool {
        let lines = self.lines.borrow();
        lines.iter().any(|line| line.own == Some(server))
    }

    /// These servers, in ascending order, take requests of their own clients alone from now on, and no others do.
    pub fn reserve(&self, servers: Vec<usize>) {
        *self.reserved.borrow_mut() = servers;
    }

    /// Whether a server takes requests of its own clients alone.
    pub fn is_reserved(&self, server: usize) -> bool {
        self.reserved.borrow().binary_search(&server).is_ok()
    }

    /// A place at the end for a request that takes none of the servers `tried`, is bound to the server `own`, and has just looked in
    /// vain; `None` when the queue is full.
    pub fn join(&self, tried: &[usize], own: Option<usize>) -> Option<Turn<'_>> {
        if self.length.get() >= self.length_max {
            return None;
        }
        let own = own.filter(|own| !tried.contains(own));
        self.length.update(|length| length + 1);
        let number = self.joined.replace(self.joined.get() + 1);
        let waiter = Rc::new(Waiter {
            number,
            called: Cell::new(None),
            waker: RefCell::default(),
        });
        let mut lines = self.lines.borrow_mut();
        let tried = if let Some(line) = lines.iter_mut().find(|line| line.is_of(tried, own)) {
            line.waiting.push_back(Rc::clone(&waiter));
            Rc::clone(&line.tried)
        } else {
            let tried: Rc<[usize]> = tried.into();
            lines.push(Line {
                tried: Rc::clone(&tried),
                own,
                waiting: VecDeque::from([Rc::clone(&waiter)]),
            });
            tried
        };
        Some(Turn {
            queue: self,
            tried,
            own,
            waiter,
        })
    }

    /// Tells that there may be room: the first of each line looks, as far as no one before it takes any server. Behind such a one only
    /// those look that are bound to a server which it cannot use.
    pub fn call(&self) {
        let lines = self.lines.borrow();
        let any = lines.iter().position(Line::takes_any);
        let (front, behind) = lines.split_at(any.map_or(lines.len(), |any| any + 1));
        for line in front {
            line.call(Call::Any);
        }
        if !self.reserved.borrow().is_empty() {
            for line in behind {
                if line.own.is_some_and(|own| self.is_reserved(own)) {
                    line.call(Call::Own);
                }
            }
        }
    }

    /// Takes a request out. Gives whether it was the first of its line.
    fn leave(&self, turn: &Turn<'_>) -> bool {
        let mut lines = self.lines.borrow_mut();
        let Some(index) = lines
            .iter()
            .position(|line| line.is_of(&turn.tried, turn.own))
        else {
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
    /// Whether it is the line of those that have tried these servers, in whichever order, and are bound to this one.
    fn is_of(&self, tried: &[usize], own: Option<usize>) -> bool {
        self.own == own
            && tried.iter().all(|server| self.tried.contains(server))
            && self.tried.iter().all(|server| tried.contains(server))
    }

    /// The number of its first waiter.
    fn first(&self) -> Option<u64> {
        self.waiting.front().map(|waiter| waiter.number)
    }

    fn takes_any(&self) -> bool {
        self.tried.is_empty()
    }

    /// Calls its first waiter.
    fn call(&self, call: Call) {
        if let Some(first) = self.waiting.front() {
            first.called.set(first.called.get().max(Some(call)));
            if let Some(waker) = &*first.waker.borrow() {
                waker.wake_by_ref();
            }
        }
    }
}

impl Turn<'_> {
    /// Waits until this request is called. May be dropped at any time.
    pub async fn called(&self) -> Call {
        poll_fn(|cx| {
            if let Some(call) = self.waiter.called.take() {
                return Poll::Ready(call);
            }
            *self.waiter.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
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
        let turns = [(); 3].map(|()| queue.join(&[], None).expect("room"));
        assert!(queue.join(&[], None).is_none(), "the queue is full");
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
        assert!(queue.join(&[], None).is_some(), "there is room again");
    }

    #[test]
    fn one_that_leaves_from_the_middle_calls_nobody() {
        let queue = Queue::new(3, Duration::from_secs(1).into());
        let [first, second, third] = [(); 3].map(|()| queue.join(&[], None).expect("room"));
        drop(second);
        assert!(!is_called(&first) && !is_called(&third));
        drop(first);
        assert!(is_called(&third));
    }

    #[test]
    fn who_does_not_take_every_server_holds_nobody_up_who_does() {
        let queue = Queue::new(5, Duration::from_secs(1).into());
        let picky = queue.join(&[0], None).expect("room");
        assert!(!queue.holds_up());
        let [any, behind] = [(); 2].map(|()| queue.join(&[], None).expect("room"));
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
        let turns = tried.map(|tried| queue.join(tried, None).expect("room"));
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

    #[test]
    fn who_is_bound_to_a_server_that_others_cannot_use_looks_there_alone() {
        let queue = Queue::new(9, Duration::from_secs(1).into());
        let mut cx = Context::from_waker(Waker::noop());
        let mut call = |turn: &Turn<'_>| match pin!(turn.called()).poll(&mut cx) {
            Poll::Ready(call) => Some(call),
            Poll::Pending => None,
        };
        queue.reserve(vec![1]);
        let any = queue.join(&[], None).expect("room");
        let [ordinary, own, next] = [0, 1, 1].map(|own| queue.join(&[], Some(own)).expect("room"));
        let tried = queue.join(&[1], Some(1)).expect("room");
        assert!(queue.is_awaited(1) && !queue.is_awaited(2));
        queue.call();
        let mut calls =
            |turns: &[&Turn<'_>]| turns.iter().map(|turn| call(turn)).collect::<Vec<_>>();
        assert_eq!(
            calls(&[&any, &ordinary, &own, &next, &tried]),
            [Some(Call::Any), None, Some(Call::Own), None, None]
        );
        drop(own);
        assert_eq!(
            calls(&[&any, &ordinary, &next]),
            [Some(Call::Any), None, Some(Call::Own)]
        );
        queue.reserve(vec![0]);
        queue.call();
        assert_eq!(
            calls(&[&any, &ordinary, &next]),
            [Some(Call::Any), Some(Call::Own), None]
        );
        queue.call();
        drop(any);
        assert_eq!(
            calls(&[&ordinary, &next]),
            [Some(Call::Any), None],
            "first come, first served"
        );
        drop(ordinary);
        assert_eq!(calls(&[&next, &tried]), [Some(Call::Any), None]);
    }
}
