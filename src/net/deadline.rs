//! Deadlines of a shard's connections on a coarse clock.
//!
//! No operation has a timer of its own. A task writes when it must have got on; the shard's sweeper looks through all deadlines ten times
//! a second and wakes the tasks that are late. Nothing is cancelled and nothing is allocated for it.
//!
//! The same entry of a task, and the same waker, serve what [arrives](super::arrival) at its socket.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::os::fd::RawFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pin_project_lite::pin_project;

/// How often the sweeper looks: the resolution of every timeout.
pub const TICK: Duration = Duration::from_millis(100);

/// A span of time in ticks, rounded up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticks(u32);

impl Ticks {
    /// This many.
    pub const fn of(count: u64) -> Self {
        // Half of the clock's range is more than six years.
        Self(if count < (u32::MAX / 2) as u64 {
            count as u32
        } else {
            u32::MAX / 2
        })
    }

    /// How many.
    pub const fn count(self) -> u64 {
        self.0 as u64
    }

    /// From one reading of the clock to a later one.
    pub const fn between(earlier: u32, later: u32) -> Self {
        Self(later.saturating_sub(earlier))
    }

    /// What is left of it after `other`.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl From<Duration> for Ticks {
    fn from(duration: Duration) -> Self {
        // Half of the clock's range is more than six years.
        Self(
            duration
                .as_nanos()
                .div_ceil(TICK.as_nanos())
                .clamp(1, u128::from(u32::MAX / 2)) as u32,
        )
    }
}

/// Which of a task's deadlines. A proxied exchange goes both ways at once, so there are two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// What the client must do next.
    Request = 0,
    /// What the server must do next, or the client with the response.
    Response = 1,
}

/// Set in [`Entry::flags`] when the process drains.
const DRAIN: u8 = 1 << 7;
/// Set in [`Entry::flags`] when the task's waker is there.
const REGISTERED: u8 = 1 << 6;
/// Set in [`Entry::flags`] when something has arrived at the task's socket.
const ARRIVED: u8 = 1 << 5;
/// Set in [`Entry::flags`] when nothing more will arrive. It stays.
const ENDED: u8 = 1 << 4;
/// Set in [`Entry::flags`] when urgent data has arrived. It stays.
const URGENT: u8 = 1 << 3;
/// No deadline.
const NEVER: u32 = u32::MAX;
/// Entries of a page: as many as an 8-bit index reaches, which so needs no check.
const PAGE_ENTRIES: usize = 1 << u8::BITS;

struct Entry {
    waker: Cell<Option<Waker>>,
    /// The task's socket, for [`Deadlines::descriptors`].
    fd: Cell<Option<RawFd>>,
    due: [Cell<u32>; 2],
    /// How many tasks have had this entry before.
    generation: Cell<u32>,
    /// One bit a slot whose deadline has passed, and those above.
    flags: Cell<u8>,
}

type Page = [Entry; PAGE_ENTRIES];

/// All deadlines of one shard, in a few pieces of memory that the sweeper reads from end to end and that never move.
#[derive(Default)]
pub struct Deadlines {
    pages: RefCell<Vec<Rc<Page>>>,
    free: RefCell<Vec<u32>>,
    /// Tasks that wait for the next turn.
    pausing: RefCell<Vec<u32>>,
    now: Cell<u32>,
    draining: Cell<bool>,
}

/// What has arrived at a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// Bytes.
    Bytes,
    /// The end of the stream, maybe behind bytes. It is told of once.
    End,
    /// Urgent data (tcp(7)), at which a receive stops although there may be more.
    Urgent,
}

/// A wait ended because something more urgent came up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupt {
    /// The slot's deadline is past.
    Overdue,
    /// The process drains.
    Drain,
}

impl Deadlines {
    /// The present tick. Ticks count from the shard's start.
    pub fn now(&self) -> u32 {
        self.now.get()
    }

    /// Whether the process drains.
    pub fn draining(&self) -> bool {
        self.draining.get()
    }

    /// Moves the clock on by a tick and wakes who is late.
    pub fn sweep(&self) {
        let now = self.now.get().saturating_add(1);
        self.now.set(now);
        let pages = self.pages.borrow();
        for entry in pages.iter().flat_map(|page| page.iter()) {
            // Nearly all are neither due: one comparison each.
            if entry.due.iter().any(|due| due.get() <= now) {
                for (slot, due) in entry.due.iter().enumerate() {
                    if due.get() <= now {
                        due.set(NEVER);
                        entry.flag(1 << slot);
                    }
                }
                entry.wake();
            }
        }
        for index in self.pausing.borrow_mut().drain(..) {
            pages[index as usize / PAGE_ENTRIES][index as usize % PAGE_ENTRIES].wake();
        }
    }

    /// Something has arrived at the socket of the task with this [key](Deadline::key).
    pub fn arrived(&self, key: u64, what: Arrived) {
        let pages = self.pages.borrow();
        // A key's lower half is an index that was given out, and there is no fewer of them.
        let index = key as u32 as usize;
        let entry = &pages[index / PAGE_ENTRIES][index % PAGE_ENTRIES];
        // What is told may be of a task that has ended meanwhile.
        if entry.generation.get() == (key >> 32) as u32 {
            entry.flag(match what {
                Arrived::Bytes => ARRIVED,
                Arrived::End => ARRIVED | ENDED,
                Arrived::Urgent => ARRIVED | URGENT,
            });
            entry.wake();
        }
    }

    /// The sockets of all tasks, for when the shard has died and its tasks never run again.
    pub fn descriptors(&self) -> Vec<RawFd> {
        let pages = self.pages.borrow();
        let entries = pages.iter().flat_map(|page| page.iter());
        entries.filter_map(|entry| entry.fd.get()).collect()
    }

    /// Tells every task that the process drains.
    pub fn drain(&self) {
        self.draining.set(true);
        for entry in self.pages.borrow().iter().flat_map(|page| page.iter()) {
            entry.flag(DRAIN);
            entry.wake();
        }
    }

    /// Makes room for more tasks. Gives the first of the new places.
    #[cold]
    fn grow(&self) -> u32 {
        let mut pages = self.pages.borrow_mut();
        let first = (pages.len() * PAGE_ENTRIES) as u32;
        pages.push(Rc::new(std::array::from_fn(|_| Entry::unused())));
        let others = first + 1..first + PAGE_ENTRIES as u32;
        self.free.borrow_mut().extend(others.rev());
        first
    }
}

impl Entry {
    const fn unused() -> Self {
        Self {
            waker: Cell::new(None),
            fd: Cell::new(None),
            due: [const { Cell::new(NEVER) }; 2],
            generation: Cell::new(0),
            flags: Cell::new(0),
        }
    }

    #[inline]
    fn flag(&self, flag: u8) {
        self.flags.set(self.flags.get() | flag);
    }

    #[inline]
    fn set_due(&self, slot: Slot, due: u32) {
        self.due[slot as usize].set(due);
        self.flags.set(self.flags.get() & !(1 << slot as u8));
    }

    /// All waits of a connection are one task's, so its first waker is good for all.
    #[inline]
    fn register(&self, cx: &Context<'_>) {
        if self.flags.get() & REGISTERED == 0 {
            self.waker.set(Some(cx.waker().clone()));
            self.flag(REGISTERED);
        }
    }

    fn wake(&self) {
        let waker = self.waker.take();
        if let Some(waker) = &waker {
            waker.wake_by_ref();
        }
        self.waker.set(waker);
    }
}

/// The deadlines of one task.
pub struct Deadline {
    all: Rc<Deadlines>,
    page: Rc<Page>,
    index: u32,
}

impl fmt::Debug for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let due = self.entry().due.each_ref().map(Cell::get);
        f.debug_struct("Deadline").field("due", &due).finish()
    }
}

impl Deadline {
    /// Registers a task, and its socket where it has one. The task is the one that first waits.
    pub fn new(all: &Rc<Deadlines>, fd: Option<RawFd>) -> Self {
        let free = all.free.borrow_mut().pop();
        let index = free.unwrap_or_else(|| all.grow());
        let deadline = Self {
            all: Rc::clone(all),
            page: Rc::clone(&all.pages.borrow()[index as usize / PAGE_ENTRIES]),
            index,
        };
        let entry = deadline.entry();
        entry.fd.set(fd);
        entry.flags.set(if all.draining.get() { DRAIN } else { 0 });
        deadline
    }

    #[inline]
    fn entry(&self) -> &Entry {
        &self.page[usize::from(self.index as u8)]
    }

    /// The present tick of the shard's clock.
    pub fn now(&self) -> u32 {
        self.all.now.get()
    }

    /// Sets the slot's deadline to `after` from now.
    #[inline]
    pub fn set(&self, slot: Slot, after: Ticks) {
        // One tick more: the present one is already partly over.
        let due = self.all.now.get().saturating_add(after.0).saturating_add(1);
        self.entry().set_due(slot, due);
    }

    /// Takes the slot's deadline away.
    #[inline]
    pub fn clear(&self, slot: Slot) {
        self.entry().set_due(slot, NEVER);
    }

    /// How much of the slot's time is left, when it has a deadline.
    pub fn left(&self, slot: Slot) -> Option<Ticks> {
        let due = self.entry().due[slot as usize].get();
        // The tick that `set` adds.
        (due != NEVER).then(|| Ticks(due.saturating_sub(self.all.now.get()).saturating_sub(1)))
    }

    /// Waits for `wait` until the slot's deadline. The caller drops `wait` when that comes first: a wait for readiness leaves nothing
    /// behind, but after a send or a receive that the kernel has begun (`send_queued`, `recv_queued`) nobody knows how far it came.
    /// Its connection is of no use then and must be closed.
    #[inline]
    pub const fn guard<F: Future>(&self, slot: Slot, wait: F) -> Guard<'_, F> {
        Guard {
            deadline: self,
            mask: 1 << slot as u8,
            wait,
        }
    }

    /// Waits for `wait`, until the request slot's deadline or until the process drains: for a connection with nothing to do.
    #[inline]
    pub const fn guard_idle<F: Future>(&self, wait: F) -> Guard<'_, F> {
        Guard {
            deadline: self,
            mask: DRAIN | 1 << Slot::Request as u8,
            wait,
        }
    }

    /// Whether the slot's deadline has passed since it was set.
    pub fn is_overdue(&self, slot: Slot) -> bool {
        self.entry().flags.get() & 1 << slot as u8 != 0
    }

    /// What names the task to [`Deadlines::arrived`]. No other task of the shard has the same but after 2^32 of them.
    pub fn key(&self) -> u64 {
        u64::from(self.entry().generation.get()) << 32 | u64::from(self.index)
    }

    /// Whether a receive that gives less than there is room for may leave something behind that has been told of.
    pub fn is_urgent(&self) -> bool {
        self.entry().flags.get() & URGENT != 0
    }

    /// Waits until something arrives at the task's socket that has not been told of, or its end has come. To be used under a guard,
    /// which knows the task.
    #[inline]
    pub fn arrival(&self) -> impl Future<Output = ()> + '_ {
        poll_fn(|_| {
            let flags = &self.entry().flags;
            let is_told = flags.get() & (ARRIVED | ENDED) != 0;
            flags.set(flags.get() & !ARRIVED);
            if is_told {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
    }

    /// Waits for the sweeper's next turn: for what tells nobody when it is worth another try. Needs no slot, for another of the task's
    /// waits may use it.
    pub async fn next_turn(&self) {
        let since = self.now();
        self.all.pausing.borrow_mut().push(self.index);
        poll_fn(|cx| {
            self.entry().register(cx);
            if self.now() == since {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        })
        .await;
    }

    /// Sleeps for at least `after`, or until the process drains.
    pub async fn sleep(&self, after: Ticks) {
        self.set(Slot::Request, after);
        let _ = self.guard_idle(std::future::pending::<()>()).await;
    }
}

pin_project! {
    /// A wait under a deadline. Written by hand because async functions around each other would hold the wait several times over, and
    /// every idle connection has one.
    pub struct Guard<'d, F> {
        deadline: &'d Deadline,
        mask: u8,
        #[pin]
        wait: F,
    }
}

impl<F: Future> Future for Guard<'_, F> {
    type Output = Result<F::Output, Interrupt>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let entry = this.deadline.entry();
        match entry.flags.get() & *this.mask {
            0 => {}
            fired if fired & DRAIN != 0 => return Poll::Ready(Err(Interrupt::Drain)),
            // Before anything else: a peer that always has something ready must not outlast its time.
            _ => return Poll::Ready(Err(Interrupt::Overdue)),
        }
        let waited = this.wait.poll(cx);
        if waited.is_pending() {
            entry.register(cx);
        }
        waited.map(Ok)
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        let entry = self.entry();
        entry.waker.take();
        entry.fd.take();
        entry.generation.update(|before| before.wrapping_add(1));
        entry.due.iter().for_each(|due| due.set(NEVER));
        self.all.free.borrow_mut().push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    fn sweep(all: &Deadlines, ticks: u32) {
        (0..ticks).for_each(|_| all.sweep());
    }

    fn registered(all: &Rc<Deadlines>) -> Deadline {
        Deadline::new(all, None)
    }

    #[test]
    fn a_deadline_fires_after_its_ticks_and_only_once_set() {
        let all = Rc::new(Deadlines::default());
        let one = registered(&all);
        one.set(Slot::Request, Ticks::from(Duration::from_millis(250)));
        sweep(&all, 3);
        assert!(
            !one.is_overdue(Slot::Request),
            "three whole ticks may have been less than 300 ms"
        );
        all.sweep();
        assert!(one.is_overdue(Slot::Request) && !one.is_overdue(Slot::Response));
        one.set(Slot::Request, Ticks(5));
        assert!(!one.is_overdue(Slot::Request));
        one.clear(Slot::Request);
        sweep(&all, 100);
        assert!(!one.is_overdue(Slot::Request));
    }

    #[test]
    fn a_pause_ends_with_the_next_turn() {
        let all = Rc::new(Deadlines::default());
        let one = registered(&all);
        let mut pause = pin!(one.next_turn());
        let mut poll = || {
            let mut cx = Context::from_waker(Waker::noop());
            pause.as_mut().poll(&mut cx).is_ready()
        };
        assert!(!poll() && !poll());
        all.sweep();
        assert!(poll());
        assert!(all.pausing.borrow().is_empty());
    }

    #[test]
    fn places_are_used_again_without_what_was_there() {
        let all = Rc::new(Deadlines::default());
        let first = registered(&all);
        first.set(Slot::Response, Ticks(1));
        sweep(&all, 2);
        drop(first);
        let second = registered(&all);
        assert_eq!(
            (second.index, second.is_overdue(Slot::Response)),
            (0, false)
        );
        assert_eq!(all.pages.borrow().len(), 1);
    }

    #[test]
    fn durations_round_up() {
        let ticks = |ms| Ticks::from(Duration::from_millis(ms)).0;
        assert_eq!([ticks(0), ticks(1), ticks(100), ticks(101)], [1, 1, 1, 2]);
        assert_eq!(Ticks::from(Duration::MAX).0, u32::MAX / 2);
    }
}
