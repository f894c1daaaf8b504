//! How much the process's heap holds, counted at the allocator.
//!
//! A shard's thread, and one that [measures](made), adds what it allocates to a word of its own and takes off what it frees. So counting
//! is a load and a store on a cache line that nobody else writes to. The other threads share one. What one thread allocated may be freed by
//! another: a single word means nothing, their sum is exact.
//!
//! Counted are the bytes that were asked for. What the allocator rounds up, keeps for the next one or cannot give back comes on top.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering::Relaxed};

/// Threads that can have a word of their own.
const OWN: usize = 256;

/// One thread's word, on a pair of cache lines of its own, for CPUs fetch lines in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Slot(AtomicIsize);

impl Slot {
    const fn empty() -> Self {
        Self(AtomicIsize::new(0))
    }

    /// One writer, so there is no need for a locked instruction.
    #[inline]
    fn add(&self, bytes: isize) {
        self.0
            .store(self.0.load(Relaxed).wrapping_add(bytes), Relaxed);
    }
}

static SLOTS: [Slot; OWN] = [const { Slot::empty() }; OWN];
static SHARED: Slot = Slot::empty();
/// How many of [`SLOTS`] have a thread.
static TAKEN: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The thread's slot. It has no destructor, so it is there until the thread's very end.
    static SLOT: Cell<Option<&'static Slot>> = const { Cell::new(None) };
}

/// Bytes that the heap holds; 0 where the program's allocator is not [`Counted`].
pub fn held() -> u64 {
    let taken = TAKEN.load(Relaxed);
    let slots = SLOTS[..taken].iter().chain([&SHARED]);
    let sum: isize = slots.map(|slot| slot.0.load(Relaxed)).sum();
    // A free may be seen before the allocation that another thread made for it.
    sum.max(0) as u64
}

/// What `make` gives, and how many bytes this thread allocated for it and did not free; 0 where nothing is counted, or no word is left for
/// the thread, which [claims](claim) one.
pub fn made<T>(make: impl FnOnce() -> T) -> (T, u64) {
    claim();
    let own = || SLOT.get().map_or(0, |slot| slot.0.load(Relaxed));
    let before = own();
    let value = make();
    (value, own().wrapping_sub(before).max(0) as u64)
}

#[inline]
fn add(bytes: isize) {
    match SLOT.get() {
        Some(slot) => slot.add(bytes),
        None => add_shared(bytes),
    }
}

#[cold]
fn add_shared(bytes: isize) {
    SHARED.0.fetch_add(bytes, Relaxed);
}

/// Gives the calling thread a word of its own, while there are any. It is not given back: for threads that last.
pub fn claim() {
    let free = |taken| (taken < OWN).then_some(taken + 1);
    if SLOT.get().is_none()
        && let Ok(number) = TAKEN.fetch_update(Relaxed, Relaxed, free)
    {
        SLOT.set(Some(&SLOTS[number]));
    }
}

/// An allocator that counts.
#[derive(Debug)]
pub struct Counted<A>(pub A);

// SAFETY: every call goes to the allocator inside as it came, and its answer back as it is. Counting neither allocates nor panics.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Counted<A> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that the allocator inside asks for.
        let block = unsafe { self.0.alloc(layout) };
        gained(block, layout.size());
        block
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let block = unsafe { self.0.alloc_zeroed(layout) };
        gained(block, layout.size());
        block
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above; the block came from the allocator inside.
        unsafe { self.0.dealloc(block, layout) };
        add(-(layout.size() as isize));
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: as above.
        let moved = unsafe { self.0.realloc(block, layout, new_size) };
        if !moved.is_null() {
            add(new_size as isize - layout.size() as isize);
        }
        moved
    }
}

/// Counts a block that the allocator gave, if it gave one. No layout is larger than `isize::MAX`.
#[inline]
fn gained(block: *mut u8, size: usize) {
    if !block.is_null() {
        add(size as isize);
    }
}
