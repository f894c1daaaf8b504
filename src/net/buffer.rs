//! Byte buffers that a shard uses again and again.

use std::cell::RefCell;

/// Buffers of one size, last in first out, so that the next one taken is the one whose memory is still in the cache.
#[derive(Debug)]
pub struct BufferPool {
    free: RefCell<Vec<Vec<u8>>>,
    capacity: usize,
    free_max: usize,
}

impl BufferPool {
    /// A pool of buffers of `capacity` bytes that keeps at most `free_max` of them for the next user.
    pub fn new(capacity: usize, free_max: usize) -> Self {
        Self {
            free: RefCell::new(Vec::with_capacity(free_max)),
            capacity,
            free_max,
        }
    }

    /// An empty buffer.
    #[inline]
    pub fn take(&self) -> Vec<u8> {
        let free = self.free.borrow_mut().pop();
        free.unwrap_or_else(|| Vec::with_capacity(self.capacity))
    }

    /// Gives a buffer back. One that has grown, and one too many, is freed.
    #[inline]
    pub fn give(&self, mut buffer: Vec<u8>) {
        let mut free = self.free.borrow_mut();
        if buffer.capacity() == self.capacity && free.len() < self.free_max {
            buffer.clear();
            free.push(buffer);
        }
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
}
