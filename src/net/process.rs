//! Facts about the process and its threads.

use rustix::process::{Resource, Rlimit, setrlimit};

/// The calling thread's kernel id (gettid(2)).
pub fn thread_id() -> u32 {
    rustix::thread::gettid().as_raw_nonzero().get() as u32
}

/// Lifts the limit of locked memory, which rings count against on some kernels, where the process may (`CAP_SYS_RESOURCE`).
pub fn lift_locked_memory_limit() {
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    // Without the right the limit stays, and the trial of the rings says if it is too low.
    let _ = setrlimit(Resource::Memlock, unlimited);
}

/// Keeps the kernel from backing the heap with huge pages (`PR_SET_THP_DISABLE`): the allocator asks for them, and a heap of small
/// connections spread over huge pages takes several times the memory.
pub fn disable_huge_pages() {
    // Where the kernel does not know the call, memory is all that is lost.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}
