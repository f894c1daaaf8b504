//! What the heap holds is counted, whichever thread allocates and frees.

use std::alloc::System;
use std::sync::Mutex;
use std::thread;

use ringlane::net::heap::{self, Counted};

#[global_allocator]
static ALLOCATOR: Counted<System> = Counted(System);

const MIB: u64 = 1 << 20;
/// What the test harness may do beside.
const NOISE: u64 = MIB / 4;
/// All threads together make one sum, so the tests take turns.
static ALONE: Mutex<()> = Mutex::new(());

/// Asserts that so much more is held than at the beginning.
#[track_caller]
fn expect(before: u64, bytes: u64) {
    let more = heap::held() as i64 - before as i64;
    assert!(more.abs_diff(bytes as i64) < NOISE, "{more} for {bytes}");
}

#[test]
fn the_sum_is_what_is_held() {
    let _alone = ALONE.lock();
    let before = heap::held();
    assert!(before > 0, "the program itself holds something");
    let mut grown = Vec::<u8>::with_capacity(MIB as usize);
    expect(before, MIB);
    grown.reserve_exact(8 * MIB as usize);
    expect(before, 8 * MIB);
    grown.shrink_to(2 * MIB as usize);
    expect(before, 2 * MIB);
    let zeroed = vec![0u8; 4 * MIB as usize];
    expect(before, 6 * MIB);
    assert!(grown.try_reserve_exact(isize::MAX as usize / 2).is_err());
    expect(before, 6 * MIB);
    let freed_elsewhere = thread::spawn(move || drop((grown, zeroed)));
    freed_elsewhere.join().expect("no panic");
    expect(before, 0);
}

/// The last of them share a count.
#[test]
fn more_threads_than_a_server_has() {
    let _alone = ALONE.lock();
    let before = heap::held();
    let left: Vec<Vec<u8>> = (0..600)
        .map(|_| {
            let thread = thread::spawn(|| Vec::with_capacity(64 << 10));
            thread.join().expect("no panic")
        })
        .collect();
    expect(before, 600 * (64 << 10));
    drop(left);
    expect(before, 0);
}
