//! What operators order at run time: which servers are taken out, and other weights.
//!
//! Orders go to the monitor, which alone writes the table; from there every shard learns of them as it learns of health. They hold
//! until the next order, whatever probes say, and end with the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use super::passive::Bell;
use super::table::Entry;

/// How long an order waits for a monitor that is just being started again.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether an operator lets a server take requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Order {
    /// It serves while it is healthy.
    Serve,
    /// It finishes what runs and gets nothing new, except from clients that are bound to it.
    Drain,
    /// It finishes what runs and gets nothing at all.
    Down,
}

impl Order {
    /// The order with this number; a number that none has takes the server out.
    pub(super) const fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Serve,
            1 => Self::Drain,
            _ => Self::Down,
        }
    }

    /// As an operator gives it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Serve => "up",
            Self::Drain => "drain",
            Self::Down => "down",
        }
    }
}

/// One thing that an operator changes about a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steer {
    /// Whether it takes requests.
    Order(Order),
    /// Its weight, 0 to 1000; `None` is the configured one.
    Weight(Option<u16>),
}

impl Steer {
    /// Every kind, by its number.
    pub const KINDS: [&'static str; 4] = ["up", "drain", "down", "weight"];

    /// The number of its kind.
    pub const fn kind(self) -> usize {
        match self {
            Self::Order(order) => order as usize,
            Self::Weight(_) => 3,
        }
    }

    /// The entry of a server that this is ordered for.
    pub(super) fn applied_to(self, entry: Entry, now_ms: u64) -> Entry {
        match self {
            Self::Order(order) if order == entry.order => entry,
            Self::Order(order) => Entry {
                order,
                ordered_ms: now_ms,
                ..entry
            },
            Self::Weight(weight) => Entry { weight, ..entry },
        }
    }
}

/// An order on its way.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) server: usize,
    pub(super) steer: Steer,
    /// Set by the first to decide: the monitor, that it carries the order out; the sender, that it gives up.
    decided: Arc<AtomicBool>,
    done: SyncSender<Entry>,
}

impl Command {
    /// Whether the order still stands. To be asked once, and then followed.
    pub(super) fn claim(&self) -> bool {
        !self.decided.swap(true, Ordering::AcqRel)
    }

    /// Tells the sender what the table says now.
    pub(super) fn answer(&self, entry: Entry) {
        // It has room for the one answer; a sender that is gone does not ask.
        let _ = self.done.try_send(entry);
    }
}

/// Gives orders to the monitor, from any thread.
#[derive(Clone, Debug)]
pub struct Helm {
    commands: Sender<Command>,
    bell: Arc<Bell>,
}

impl Helm {
    pub(super) fn new(bell: &Arc<Bell>) -> (Self, Receiver<Command>) {
        let (commands, inbox) = channel();
        let bell = Arc::clone(bell);
        (Self { commands, bell }, inbox)
    }

    /// Has an order for a server (its place in the table) carried out. Its entry, when that is done; shards see it from their next
    /// request on. `None` when the monitor is dead for longer than a second: nothing has changed then.
    pub fn steer(&self, server: usize, steer: Steer) -> Option<Entry> {
        let (done, answered) = sync_channel(1);
        let decided = Arc::new(AtomicBool::new(false));
        let command = Command {
            server,
            steer,
            decided: Arc::clone(&decided),
            done,
        };
        self.commands.send(command).ok()?;
        self.bell.ring();
        let in_time = answered.recv_timeout(PATIENCE).ok();
        if in_time.is_none() && decided.swap(true, Ordering::AcqRel) {
            // It was claimed in the last moment.
            return answered.recv().ok();
        }
        in_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_an_order_is_that_of_the_change() {
        let drained = Steer::Order(Order::Drain).applied_to(Entry::ASSUMED_UP, 5);
        assert_eq!((drained.order, drained.ordered_ms), (Order::Drain, 5));
        assert_eq!(Steer::Order(Order::Drain).applied_to(drained, 9), drained);
        let weighed = Steer::Weight(Some(7)).applied_to(drained, 9);
        assert_eq!((weighed.weight, weighed.ordered_ms), (Some(7), 5));
        assert_eq!(Steer::Weight(None).applied_to(weighed, 9), drained);
    }

    #[test]
    fn an_order_that_nobody_takes_is_given_up_and_never_carried_out() {
        let (bell, _heard) = Bell::new().expect("a socket pair");
        let (helm, inbox) = Helm::new(&Arc::new(bell));
        assert_eq!(helm.steer(0, Steer::Weight(Some(1))), None);
        assert!(!inbox.recv().expect("it was sent").claim());
        drop(inbox);
        assert_eq!(helm.steer(0, Steer::Weight(Some(1))), None);
    }

    #[test]
    fn kinds_have_the_names_of_their_orders() {
        for order in [Order::Serve, Order::Drain, Order::Down] {
            assert_eq!(Steer::KINDS[Steer::Order(order).kind()], order.as_str());
            assert_eq!(Order::from_code(order as u8), order);
        }
        assert_eq!(Steer::KINDS[Steer::Weight(None).kind()], "weight");
    }
}
