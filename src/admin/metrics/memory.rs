//! What the heap holds, and its ceiling where it has one.

use crate::net::heap;
use crate::telemetry::memory::Room;
use crate::telemetry::prometheus::Text;
use crate::telemetry::view::View;

pub(super) fn render(text: &mut Text, view: &View) {
    let held = heap::held();
    text.gauge(
        "ringlane_heap_bytes",
        "What the heap holds, as it was asked for.",
    )
    .sample(&[], held);
    let Some(memory) = &view.memory else {
        return;
    };
    text.gauge(
        "ringlane_heap_ceiling_bytes",
        "What it may hold, `limits.memory`.",
    )
    .sample(&[], memory.ceiling());
    let short = u8::from(memory.room(held) == Room::Short);
    text.gauge(
        "ringlane_memory_short",
        "1 while requests are refused for memory.",
    )
    .sample(&[], short);
    text.counter(
        "ringlane_memory_shortages_total",
        "Times that the heap reached its ceiling.",
    )
    .sample(&[], memory.shortages());
}
