//! Byte buffers that a shard uses again and again.

use std::cell::{Cell, RefCell};

/// Buffers of one size, last in first out, so that the next one taken is the one whose memory is still in the cache.
#[derive(Debug)]
pub struct BufferPool {
    /// It never grows.
    free: RefCell<Vec<Vec<u8>>>,
    capacity: usize,
    /// Buffers that may still be made.
    allowed: Cell<u64>,
}

/// What a buffer has instead when no more full ones may be made. No pool has such buffers, so none keeps them.
const SMALL_BYTES: usize = 4 * 1024;

impl BufferPool {
    /// A pool of buffers of `capacity` bytes that keeps at most `free_max` of them for the next user.
    pub fn new(capacity: usize, free_max: usize) -> Self {
        Self {
            free: RefCell::new(Vec::with_capacity(free_max)),
            capacity,
            allowed: Cell::new(u64::MAX),
        }
    }

    /// An empty buffer.
    #[inline]
    pub fn take(&self) -> Vec<u8> {
        let free = self.free.borrow_mut().pop();
        free.unwrap_or_else(|| self.make())
    }

    #[cold]
    fn make(&self) -> Vec<u8> {
        let capacity = match self.allowed.get() {
            0 => SMALL_BYTES.min(self.capacity),
            allowed => {
                self.allowed.set(allowed - 1);
                self.capacity
            }
        };
        Vec::with_capacity(capacity)
    }

    /// Lets so many buffers be made from here on. Those beyond are small.
    pub fn allow(&self, buffers: u64) {
        self.allowed.set(buffers);
    }

    /// Whether a buffer taken now would be a small one.
    pub fn is_spent(&self) -> bool {
        self.allowed.get() == 0 && self.free.borrow().is_empty()
    }

    /// Frees the buffers that nobody uses.
    pub fn clear(&self) {
        self.free.borrow_mut().clear();
    }

    /// Gives a buffer back. One that has grown, and one too many, is freed.
    #[inline]
    pub fn give(&self, mut buffer: Vec<u8>) {
        let mut free = self.free.borrow_mut();
        if buffer.capacity() == self.capacity && free.len() < free.capacity() {
            buffer.clear();
            free.push(buffer);
        } else {
            self.discard(buffer);
        }
    }

    #[cold]
    fn discard(&self, buffer: Vec<u8>) {
        if buffer.capacity() == self.capacity {
            // Another may be made in its place.
            self.allowed.set(self.allowed.get().saturating_add(1));
        }
        drop(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_empty_and_a_grown_one_does_not() {
        let pool = BufferPool::new(16, 1);
        let mut buffer = pool.take();
        buffer.extend_from_slice(b"abc");
        let address = buffer.as_ptr();
        pool.give(buffer);
        let again = pool.take();
        assert_eq!((again.as_ptr(), again.len()), (address, 0));
        pool.give(Vec::with_capacity(1000));
        assert_eq!(pool.free.borrow().len(), 0);
        pool.give(again);
        pool.give(Vec::with_capacity(16));
        assert_eq!(pool.free.borrow().len(), 1);
    }

    #[test]
    fn no_more_are_made_than_is_allowed() {
        let pool = BufferPool::new(8192, 1);
        let capacity_of_next = || pool.take().capacity();
        assert_eq!(capacity_of_next(), 8192);
        pool.allow(2);
        let (first, second) = (pool.take(), pool.take());
        assert!(pool.is_spent());
        assert_eq!(capacity_of_next(), SMALL_BYTES);
        pool.give(first);
        assert!(!pool.is_spent(), "one is free");
        pool.give(second);
        pool.clear();
        assert_eq!(
            (capacity_of_next(), capacity_of_next()),
            (8192, SMALL_BYTES),
            "one in place of the one too many"
        );
    }
}
