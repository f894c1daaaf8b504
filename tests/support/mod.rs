//! What the integration tests share: a proxy process, scripted origins, raw connections and a strict message reader.
//!
//! Nothing here knows the proxy's code. A message is judged by the RFCs alone, so that a mistake of the codec cannot hide behind itself.

#![allow(dead_code, unused_imports, unused_macros)] // each test file uses its own part

mod message;
mod namespace;
mod origin;
mod patient;
mod proxy;
mod wire;

use std::io::Write;
use std::sync::Mutex;
use std::time::{Duration, Instant};

pub(crate) use message::{Framing, Head, Request, Response, field_values, last, ok};
pub(crate) use namespace::{Firewall, is_in_own_network};
pub(crate) use origin::{Origin, Served};
pub(crate) use patient::Patient;
pub(crate) use proxy::{Config, Proxy};
pub(crate) use wire::{End, Wire};

/// How much more time all takes with a sanitizer in it.
pub(crate) const SLOWNESS: u64 = if cfg!(sanitizer) { 6 } else { 1 };

/// How long a test waits for what must happen. Long, because test machines are slow; a passing test never waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10 * SLOWNESS);

/// How long a test watches for what must not happen.
pub(crate) const QUIET: Duration = Duration::from_millis(200);

/// How the proxy under test talks to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Uring,
    Epoll,
}

/// Runs one test in one mode; failures name it, for they carry the name of the generated test.
///
/// Where `io_uring` is forbidden its half fails, so that nobody believes it was tested, unless the environment says that this is known.
pub(crate) fn run(mode: Mode, test: fn(Mode)) {
    if mode == Mode::Uring
        && std::env::var_os("RINGLANE_TEST_NO_URING").is_some_and(|value| value == "1")
    {
        eprintln!("skipped: RINGLANE_TEST_NO_URING=1");
        return;
    }
    test(mode);
}

/// Says that a test is left out here, wholly or in part, though it passes. `.ci/run` shows these lines.
pub(crate) fn left_out(test: &str, reason: &str) {
    // Not eprintln!: what that writes in a test that passes is never seen.
    let written = writeln!(std::io::stderr(), "{test}: LEFT OUT, for {reason}");
    written.expect("tests have a standard error");
}

/// Makes of each function `fn name(mode: Mode)` the tests `name::uring` and `name::epoll`.
macro_rules! in_each_mode {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            #[test]
            fn uring() {
                crate::support::run(crate::support::Mode::Uring, super::$name);
            }

            #[test]
            fn epoll() {
                crate::support::run(crate::support::Mode::Epoll, super::$name);
            }
        }
    )+};
}

pub(crate) use in_each_mode;

/// Runs the cases in threads of their own, for cases that mostly wait, and fails with all failures listed by name.
pub(crate) fn all_at_once<T: Sync>(
    cases: &[T],
    name: impl Fn(&T) -> String + Sync,
    case: impl Fn(&T) + Sync,
) {
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for one in cases {
            let (failed, name, case) = (&failed, &name, &case);
            scope.spawn(move || {
                let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(one)));
                if let Err(cause) = outcome {
                    failed.lock().expect("no panic inside").push(format!(
                        "{}: {}",
                        name(one),
                        panic_text(&*cause)
                    ));
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no panic inside");
    assert!(
        failed.is_empty(),
        "{} of {} cases failed:\n{}",
        failed.len(),
        cases.len(),
        failed.join("\n")
    );
}

/// The message of a caught panic.
pub(crate) fn panic_text(cause: &(dyn std::any::Any + Send)) -> &str {
    cause
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| cause.downcast_ref::<&str>().copied())
        .unwrap_or("panicked")
}

/// Asks again and again until the answer is yes.
#[track_caller]
pub(crate) fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    let start = Instant::now();
    while !happened() {
        assert!(
            start.elapsed() < PATIENCE,
            "did not happen within {PATIENCE:?}: {what}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Asserts that what began at `start`, or after it, took about `expected`: at most a tick less, by which a shard that gets no CPU for a
/// moment may be early, and not two seconds more (timeouts are found by a sweep a few times a second).
#[track_caller]
pub(crate) fn took_about(start: Instant, expected: Duration) {
    let took = start.elapsed();
    assert!(
        took + Duration::from_millis(100) >= expected,
        "too early: after {took:?}, expected {expected:?}"
    );
    assert!(
        took <= expected + Duration::from_secs(2 * SLOWNESS),
        "too late: after {took:?}, expected {expected:?}"
    );
}
