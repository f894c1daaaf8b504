//! The shard's sweeper: deadlines, pools, the date, the log, and the shard's end, a few times a second.

use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{io, mem};

use super::ring_watch::RingWatch;
use crate::exchange::lane::Lane;
use crate::net::deadline::TICK;
use crate::net::timer::Interval;

/// Ticks between two looks at the pools: one second.
const POOL_TICKS: u32 = 10;

/// Sweeps until the shard has drained. `close` is called with the ticks since its last call when draining begins, and until it tells that
/// the listeners are closed.
///
/// # Panics
///
/// In debug builds, when a test asked for it.
pub async fn run(
    lane: &Rc<Lane>,
    ring: Option<&RingWatch>,
    draining: &AtomicBool,
    mut close: impl FnMut(u32) -> bool,
) -> io::Result<()> {
    let interval = Interval::new(TICK)?;
    let (mut told, mut closed) = (false, false);
    let mut pools_due = POOL_TICKS;
    let (mut behind, mut skipped) = (false, 0);
    loop {
        let ticks = interval.tick().await?;
        lane.counters.sweeps.inc();
        let was_behind = mem::replace(&mut behind, ticks > 1);
        if behind && !was_behind {
            // One completion queue does not hold all that came while the shard stood still. It is read before anybody is late.
            skipped = ticks;
            continue;
        }
        let ticks = ticks + mem::take(&mut skipped);
        ring.inspect(|ring| ring.begin());
        // Time in which the shard stood still is nobody's: what was set meanwhile was set by a clock that was behind, and would come
        // early if that caught up.
        lane.deadlines.sweep();
        lane.sweep_groups();
        ring.inspect(|ring| ring.end());
        lane.update_date();
        if let Some(memory) = &lane.memory {
            memory.look(lane);
        }
        #[cfg(debug_assertions)]
        assert!(!lane.fault.get(), "a fault was asked for");
        if let Some(log) = lane.access_log() {
            log.flush();
        }
        pools_due = pools_due.saturating_sub(ticks);
        if pools_due == 0 {
            pools_due = POOL_TICKS;
            lane.sweep_pools();
        }
        if draining.load(Ordering::Relaxed) {
            if !told {
                told = true;
                lane.deadlines.drain();
                lane.close_pools();
            }
            if !closed {
                closed = close(ticks);
            } else if lane.counters.connections.get() == 0 {
                // A turn after the listeners were shut down their tasks have ended too, and nothing holds the access log's last lines.
                return Ok(());
            }
        }
    }
}
