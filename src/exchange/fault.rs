//! Faults on request, for tests of what contains them: in debug builds, when the environment has `RINGLANE_FAULTS`.

use std::sync::OnceLock;

use super::lane::Lane;
use super::request::Request;

/// # Panics
///
/// Here for `/fault/connection`, in the shard's sweeper for `/fault/shard`, and in the health thread, whenever it looks, from one
/// `/fault/health` to the next.
pub fn provoke(lane: &Lane, request: &Request<'_>) {
    static ALLOWED: OnceLock<bool> = OnceLock::new();
    if !ALLOWED.get_or_init(|| std::env::var_os("RINGLANE_FAULTS").is_some()) {
        return;
    }
    assert!(
        !request.outgoing.starts_with(b"GET /fault/connection "),
        "a fault was asked for"
    );
    if request.outgoing.starts_with(b"GET /fault/shard ") {
        lane.fault.set(true);
    }
    if request.outgoing.starts_with(b"GET /fault/health ")
        && let Some(group) = lane.groups.first()
    {
        group.toggle_health_fault();
    }
}
