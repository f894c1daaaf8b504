//! Sticky sessions: from a request's cookie to the one that its answer carries.

use crate::http1::cookie;
use crate::http1::head::RequestHead;
use crate::telemetry::counters::{ServerCounters, StickyKind};
use crate::upstream::sticky::{Bond, Sticky};

/// The server that the request's cookie leads to. The first cookie of the name counts, right or wrong.
pub(super) fn bond(sticky: &Sticky, head: &RequestHead, bytes: &[u8]) -> Option<Bond> {
    sticky.bond(cookie::find(&head.fields, bytes, sticky.name.as_bytes())?)
}

/// The cookie to set when `server` answers; `None` when the client has it already.
pub(super) fn cookie(sticky: &Sticky, bond: Option<Bond>, server: usize) -> Option<&str> {
    let kept = bond.is_some_and(|bond| bond.fresh && bond.server as usize == server);
    (!kept).then(|| sticky.cookie(server))
}

/// Counts an answer of `server`.
pub(super) fn count(bond: Option<Bond>, server: usize, counters: &ServerCounters) {
    let kind = match bond {
        None => StickyKind::Insert,
        Some(bond) if bond.server as usize == server => StickyKind::Hit,
        Some(_) => StickyKind::Move,
    };
    counters.sticky(kind).inc();
}
