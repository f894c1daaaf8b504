//! Memory that is asked for before it is used.
//!
//! A task that is woken finds its state in a cache far away: others ran meanwhile, and the kernel for all of them. State is read here and
//! there, each place after the one that leads to it; asked for at once, its cache lines come at the same time.

/// Bytes of a cache line.
#[cfg(target_arch = "x86_64")]
const LINE_BYTES: usize = 64;

/// Asks for all of the value at `start`, and does not wait for it. Does nothing where stable Rust has no way to ask.
#[inline]
#[cfg_attr(
    not(target_arch = "x86_64"),
    expect(unused_variables, reason = "no way to ask")
)]
pub fn prefetch<T>(start: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let ask = |offset| {
            let line = start.cast::<i8>().wrapping_add(offset);
            // SAFETY: a hint reads nothing that could be seen, and any address will do.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line) };
        };
        let mut offset = 0;
        // A loop so plain that the compiler unrolls it: one instruction for each line. Chained iterators took six.
        while offset < size_of::<T>() {
            ask(offset);
            offset += LINE_BYTES;
        }
        // Where the value does not begin with a line, it may end in one more.
        ask(size_of::<T>().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_address_will_do() {
        prefetch(std::ptr::null::<[u8; 1024]>());
        prefetch(std::ptr::without_provenance::<[u8; 100]>(usize::MAX - 10));
        prefetch(&raw const *Box::new([1_u8; 300]));
        prefetch(&());
    }
}
