//! What a ring's header tells: how much went in and came out, and what did not fit (`io_uring_setup(2)`).
//!
//! The runtime keeps its ring to itself, but the kernel shows it: the ring is a descriptor of the process, and its header can be mapped
//! once more, here to read it only. Where each number stands is the kernel's layout, the same for all rings, and is told when one is made.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::io_uring::{
    IORING_OFF_SQ_RING, IoringFeatureFlags, IoringSqFlags, io_uring_params, io_uring_setup,
};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Where the numbers stand is in the first page.
const HEADER_BYTES: usize = 4096;
/// What a descriptor of a ring is a link to (proc(5)).
const RING: &str = "anon_inode:[io_uring]";

/// Held while a ring is made, so that the one that is new is known to be that one.
static MAKING: Mutex<()> = Mutex::new(());

/// Does what makes a ring while no other one is made.
pub fn alone<R>(make: impl FnOnce() -> R) -> R {
    // Nothing is behind the lock that a panic could leave half done.
    let _alone = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    make()
}

/// Does what makes one ring, and gives a view of that ring's header; `None` when it cannot be had.
pub fn observed<R>(make: impl FnOnce() -> R) -> (R, Option<Header>) {
    alone(|| {
        let before = rings();
        let result = make();
        let header = before
            .and_then(|before| only_new(&before, &rings()?))
            .and_then(Header::map);
        if let Err(error) = &header {
            tracing::debug!(%error, "the ring's figures cannot be had");
        }
        (result, header.ok())
    })
}

/// The rings among the process's descriptors.
fn rings() -> io::Result<BTreeSet<RawFd>> {
    let mut rings = BTreeSet::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let path = entry?.path();
        // One that has been closed meanwhile is no link any more.
        if fs::read_link(&path).is_ok_and(|target| target.as_os_str() == RING) {
            let number = path.file_name().and_then(|name| name.to_str());
            rings.extend(number.and_then(|number| number.parse::<RawFd>().ok()));
        }
    }
    Ok(rings)
}

fn only_new(before: &BTreeSet<RawFd>, after: &BTreeSet<RawFd>) -> io::Result<RawFd> {
    let mut new = after.difference(before);
    match (new.next(), new.next()) {
        (Some(fd), None) => Ok(*fd),
        _ => Err(io::Error::other("no ring, or more than one, is new")),
    }
}

/// Places of numbers in a header, in bytes.
#[derive(Clone, Copy, Debug)]
struct Layout {
    submitted: usize,
    entries: usize,
    flags: usize,
    dropped: usize,
    completed: usize,
    lost: usize,
}

impl Layout {
    /// Of this kernel, told by a ring that is made for it and goes at once.
    fn get() -> Option<Self> {
        static LAYOUT: OnceLock<Option<Layout>> = OnceLock::new();
        *LAYOUT.get_or_init(|| Self::ask().ok())
    }

    fn ask() -> io::Result<Self> {
        let mut params = io_uring_params::default();
        // SAFETY: the only descriptor that the parameters may name is for a flag that is not set.
        let _ring = unsafe { io_uring_setup(1, &mut params) }?;
        let (queue, completions) = (&params.sq_off, &params.cq_off);
        let layout = Self {
            submitted: queue.head as usize,
            entries: queue.ring_entries as usize,
            flags: queue.flags as usize,
            dropped: queue.dropped as usize,
            completed: completions.tail as usize,
            lost: completions.overflow as usize,
        };
        // Before Linux 5.4 the two queues were two mappings.
        let is_one = params.features.contains(IoringFeatureFlags::SINGLE_MMAP);
        if is_one && layout.fits() {
            Ok(layout)
        } else {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    /// Whether each place is one for a whole, aligned word of the mapping.
    fn fits(&self) -> bool {
        let Self {
            submitted,
            entries,
            flags,
            dropped,
            completed,
            lost,
        } = *self;
        [submitted, entries, flags, dropped, completed, lost]
            .iter()
            .all(|at| at % align_of::<AtomicU32>() == 0 && *at < HEADER_BYTES)
    }
}

/// What a header told at one moment. Counts wrap around.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Submissions that the kernel has taken.
    pub submitted: u32,
    /// Submissions that it has dropped as invalid.
    pub dropped: u32,
    /// Completions that it has queued.
    pub completed: u32,
    /// Completions that are lost because the queue was full; kernels with `IORING_FEAT_NODROP` keep them, unless memory runs out.
    pub lost: u32,
    /// Completions wait in the kernel for room in the queue.
    pub overflows: bool,
}

/// A ring's header, to be read.
#[derive(Debug)]
pub struct Header {
    start: NonNull<u8>,
    layout: Layout,
}

impl Header {
    fn map(ring: RawFd) -> io::Result<Self> {
        let layout = Layout::get().ok_or(io::ErrorKind::Unsupported)?;
        // SAFETY: the caller has just seen it open, and its runtime has not begun to run.
        let ring = unsafe { BorrowedFd::borrow_raw(ring) };
        // SAFETY: a new mapping, at a place that the kernel chooses, takes nobody's memory.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                HEADER_BYTES,
                ProtFlags::READ,
                MapFlags::SHARED,
                ring,
                IORING_OFF_SQ_RING,
            )
        }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::Unsupported)?;
        Ok(Self { start, layout })
    }

    /// Reads it: five loads.
    pub fn read(&self) -> Reading {
        let flags = IoringSqFlags::from_bits_retain(self.word(self.layout.flags));
        Reading {
            submitted: self.word(self.layout.submitted),
            dropped: self.word(self.layout.dropped),
            completed: self.word(self.layout.completed),
            lost: self.word(self.layout.lost),
            overflows: flags.contains(IoringSqFlags::CQ_OVERFLOW),
        }
    }

    /// Entries of the submission queue.
    pub fn entries(&self) -> u32 {
        self.word(self.layout.entries)
    }

    fn word(&self, at: usize) -> u32 {
        // SAFETY: the layout has places for whole, aligned words of the mapping only, and that lives as long as `self`. Others write there by
        // atomic stores; a relaxed load does with memory that may only be read.
        unsafe { AtomicU32::from_ptr(self.start.as_ptr().add(at).cast()) }.load(Relaxed)
    }
}

impl Drop for Header {
    fn drop(&mut self) {
        // SAFETY: this mapping is `self`'s own, and no reference into it outlives a call.
        // An error would leave a page mapped, no more.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), HEADER_BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use io_uring::{IoUring, opcode};

    use super::*;

    #[test]
    fn it_tells_what_went_through_the_ring() {
        let (ring, header) = observed(|| IoUring::new(8));
        let (Ok(mut ring), Some(header)) = (ring, header) else {
            // Not eprintln!: what that writes in a test that passes is never seen.
            let said = writeln!(
                io::stderr(),
                "ring: LEFT OUT, for io_uring cannot be had here"
            );
            said.expect("tests have a standard error");
            return;
        };
        assert_eq!((header.read(), header.entries()), (Reading::default(), 8));
        let submit = |ring: &mut IoUring, count: usize| {
            for _ in 0..count {
                let nop = opcode::Nop::new().build();
                // SAFETY: a no-op refers to no memory.
                unsafe { ring.submission().push(&nop) }.expect("room for it");
            }
            assert_eq!(ring.submit().expect("a ring of ours"), count);
        };
        submit(&mut ring, 3);
        let told = header.read();
        assert_eq!((told.submitted, told.completed), (3, 3));
        assert!(!told.overflows);
        // 16 completions have room.
        submit(&mut ring, 8);
        submit(&mut ring, 8);
        let told = header.read();
        assert_eq!((told.submitted, told.completed), (19, 16));
        assert!(told.overflows, "three wait in the kernel");
        assert_eq!((told.lost, told.dropped), (0, 0));
    }

    #[test]
    fn a_ring_is_not_taken_for_another_one() {
        let (before, after) = (BTreeSet::from([3, 7]), BTreeSet::from([3, 9]));
        assert_eq!(only_new(&before, &after).ok(), Some(9));
        assert!(only_new(&after, &after).is_err());
        assert!(only_new(&BTreeSet::new(), &after).is_err());
        let ((), none) = observed(|| ());
        assert!(none.is_none());
    }
}
