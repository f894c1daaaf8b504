//! Everything that one shard's exchanges share: its settings, pools, buffers and counters. Nothing here leaves the shard's thread.

use std::cell::{Cell, OnceCell, RefCell, RefMut};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use super::gate::Gate;
use super::memory::Share;
use super::pace::MinRate;
use super::rate::Buckets;
use super::route::Router;
use crate::config::Config;
use crate::http1::body::ADDED_BYTES_MAX;
use crate::http1::forward::Disclosure;
use crate::http1::head::{Limits, RequestHead, ResponseHead};
use crate::net::arrival::Arrivals;
use crate::net::buffer::BufferPool;
use crate::net::deadline::{Deadlines, Ticks};
use crate::telemetry::access_log::ShardAccessLog;
use crate::telemetry::clients::Placement;
use crate::telemetry::counters::{AllCounters, Gauge, ServerCounters, ShardCounters};
use crate::telemetry::date::{Utc, unix_seconds};
use crate::telemetry::memory::Memory;
use crate::upstream::group::Group;
use crate::upstream::place::Places;
use crate::upstream::watch::Source;

/// Bytes that one receive of a head takes at most; what comes with the head goes on with it in one send.
const SCRATCH_BYTES: usize = 64 * 1024;
/// A head with a small body fits; waiting exchanges hold one such buffer each, and one more where the ring receives into it.
const MESSAGE_BYTES: usize = 2 * 1024;
/// What a message buffer is taken for: the fields that we add need room too.
const MESSAGE_ROOM: usize = MESSAGE_BYTES / 2;
/// A head with many cookies fits, and an answer of a few pages.
const LARGE_MESSAGE_BYTES: usize = 20 * 1024;
/// What a large message buffer is taken for.
const LARGE_MESSAGE_ROOM: usize = LARGE_MESSAGE_BYTES - 2 * 1024;
/// One round of a long body.
const BULK_BYTES: usize = 128 * 1024;
/// Bytes that one receive takes at most. When they are written in chunks anew they fit into another bulk buffer, which so keeps its size.
pub const RECEIVE_BYTES_MAX: usize = BULK_BYTES - ADDED_BYTES_MAX;
/// Message buffers kept for the next exchange.
const MESSAGES_KEPT: usize = 1024;
/// Large message buffers kept for the next exchange.
const LARGE_MESSAGES_KEPT: usize = 128;
/// Bulk buffers kept for the next body.
const BULKS_KEPT: usize = 16;

/// Timeouts in ticks of the shard's clock.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For a whole request head.
    pub client_header: Ticks,
    /// Between two reads of a request body.
    pub client_body: Ticks,
    /// Of a request body.
    pub client_body_rate: Option<MinRate>,
    /// Of a response, at the client.
    pub response_rate: Option<MinRate>,
    /// Between two requests.
    pub keep_alive: Ticks,
    /// Between two writes that make progress.
    pub write: Ticks,
    /// Without a byte in a tunnel.
    pub tunnel_idle: Ticks,
    /// Between two looks at a client that waits for its answer.
    pub client_gone_check: Option<Ticks>,
}

/// One more of something that a gauge shows, for as long as it lives.
#[derive(Debug)]
pub struct Held<'g>(&'g Gauge);

impl<'g> Held<'g> {
    /// Counts one in.
    pub fn new(gauge: &'g Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What a shard is given when it starts, beside the configuration.
pub struct Parts<'a> {
    /// Where the servers are.
    pub places: &'a Places,
    /// The counters of all shards, by shard number.
    pub counters: &'a AllCounters,
    /// Where the shard learns about the servers' health, when somebody checks it.
    pub health: Option<&'a Source>,
    /// The request rates of all clients, when they are limited.
    pub buckets: Option<&'a Arc<Buckets>>,
    /// The ceiling of the heap, where it has one.
    pub memory: Option<&'a Arc<Memory>>,
    /// Where client addresses are counted, when their connections are limited.
    pub placement: Option<&'a Placement>,
    /// The shard's access log, when it is on.
    pub access_log: Option<ShardAccessLog>,
    /// Messages are sent and answers received through a ring, all of a loop turn at once.
    pub on_ring: bool,
}

/// The state of one shard.
pub struct Lane {
    /// The checked configuration.
    pub config: Arc<Config>,
    /// Messages are sent and answers received through a ring, all of a loop turn at once.
    pub on_ring: bool,
    /// What the shard counts.
    pub counters: Arc<ShardCounters>,
    /// Deadlines of its tasks, and its clock.
    pub deadlines: Rc<Deadlines>,
    /// What arrives at clients that have sent a request before, where they are waited for together.
    pub arrivals: OnceCell<Rc<Arrivals>>,
    /// Timeouts of the client's side.
    pub timeouts: Timeouts,
    /// Limits of heads.
    pub limits: Limits,
    /// Which fields tell servers about clients.
    pub disclosure: Disclosure,
    /// Which request goes where.
    pub router: Router,
    /// The limits that a request meets first, where there are any.
    pub gate: Option<Box<Gate>>,
    /// The shard's part in keeping the heap below its ceiling, where it has one.
    pub memory: Option<Box<Share>>,
    /// Where client addresses are counted, where their connections are limited.
    pub placement: Option<Placement>,
    /// The upstreams.
    pub groups: Vec<Group>,
    /// Buffers for heads and small messages.
    messages: BufferPool,
    /// Buffers for heads with many cookies and answers of a few pages.
    large_messages: BufferPool,
    /// Buffers for long bodies.
    pub bulk: BufferPool,
    scratch: RefCell<Vec<u8>>,
    request_head: RefCell<RequestHead>,
    response_head: RefCell<ResponseHead>,
    date: RefCell<String>,
    access_log: Option<ShardAccessLog>,
    dated_at: Cell<u64>,
    /// The sweeper is to panic: a test asked for it.
    #[cfg(debug_assertions)]
    pub fault: Cell<bool>,
}

impl Lane {
    /// The state of shard number `shard`.
    pub fn new(config: Arc<Config>, shard: usize, parts: Parts<'_>) -> Self {
        let Parts {
            places, counters, ..
        } = parts;
        let mut first_id = 0;
        let groups = config.upstreams.iter().enumerate().map(|(id, upstream)| {
            let group = Group::new(
                upstream,
                id,
                first_id,
                places,
                shard,
                counters,
                parts.health,
            );
            first_id += upstream.servers.len();
            group
        });
        let groups = groups.collect();
        let grace = config.timeouts.min_rate_grace;
        let lane = Self {
            on_ring: parts.on_ring,
            counters: Arc::clone(&counters[shard]),
            deadlines: Rc::default(),
            arrivals: OnceCell::new(),
            timeouts: Timeouts {
                client_header: config.timeouts.client_header.into(),
                client_body: config.timeouts.client_body.into(),
                client_body_rate: config
                    .timeouts
                    .client_body_min_rate
                    .map(|bytes| MinRate::new(bytes, grace)),
                response_rate: config
                    .timeouts
                    .response_min_rate
                    .map(|bytes| MinRate::new(bytes, grace)),
                keep_alive: config.timeouts.keep_alive.into(),
                write: config.timeouts.write.into(),
                tunnel_idle: config.timeouts.tunnel_idle.into(),
                client_gone_check: config.timeouts.client_gone_check.map(Ticks::from),
            },
            limits: Limits {
                head_bytes: config.limits.head_bytes,
                fields: config.limits.header_count,
                target_bytes: config.limits.uri_bytes,
            },
            disclosure: Disclosure {
                x_forwarded: config.forward.x_forwarded,
                forwarded: config.forward.forwarded,
                via: config.forward.via,
            },
            gate: Gate::new(&config, shard, counters, parts.buckets),
            memory: parts
                .memory
                .map(|memory| Box::new(Share::new(memory, counters.len()))),
            placement: parts.placement.cloned(),
            router: Router::new(&config.routes),
            groups,
            messages: BufferPool::new(MESSAGE_BYTES, MESSAGES_KEPT),
            large_messages: BufferPool::new(LARGE_MESSAGE_BYTES, LARGE_MESSAGES_KEPT),
            bulk: BufferPool::new(BULK_BYTES, BULKS_KEPT),
            scratch: RefCell::new(Vec::with_capacity(SCRATCH_BYTES)),
            request_head: RefCell::default(),
            response_head: RefCell::default(),
            date: RefCell::default(),
            access_log: parts.access_log,
            dated_at: Cell::new(0),
            #[cfg(debug_assertions)]
            fault: Cell::new(false),
            config,
        };
        lane.update_date();
        lane
    }

    /// The counters of the server with this flat index.
    #[inline]
    pub fn server(&self, id: usize) -> &ServerCounters {
        &self.counters.servers[id]
    }

    /// Lends the shard's receive buffer, empty, for work that does not wait.
    #[inline]
    pub fn with_scratch<R>(&self, f: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        let mut scratch = self.scratch.borrow_mut();
        scratch.clear();
        f(&mut scratch)
    }

    /// An empty buffer for about `len` bytes and a head.
    #[inline]
    pub fn take_for(&self, len: usize) -> Vec<u8> {
        if len <= MESSAGE_ROOM {
            self.messages.take()
        } else if len <= LARGE_MESSAGE_ROOM {
            self.large_messages.take()
        } else {
            let mut buffer = self.bulk.take();
            if buffer.capacity() < len {
                // A small one, for memory is tight, or a head of a size that few have.
                buffer.reserve(len + MESSAGE_ROOM);
            }
            buffer
        }
    }

    /// Adds `bytes` to a buffer of one of the pools, which a larger one takes the place of when it is full. False, and nothing is
    /// added, when the largest is too small, or memory is tight.
    pub fn extend(&self, buffer: &mut Vec<u8>, bytes: &[u8]) -> bool {
        let len = buffer.len() + bytes.len();
        if len > buffer.capacity() {
            if len > BULK_BYTES || len > LARGE_MESSAGE_ROOM && self.bulk.is_spent() {
                return false;
            }
            let mut larger = self.take_for(len);
            larger.extend_from_slice(buffer);
            self.give(std::mem::replace(buffer, larger));
        }
        buffer.extend_from_slice(bytes);
        true
    }

    /// Gives a buffer back to the pool that it came from.
    #[inline]
    pub fn give(&self, buffer: Vec<u8>) {
        match buffer.capacity() {
            MESSAGE_BYTES => self.messages.give(buffer),
            LARGE_MESSAGE_BYTES => self.large_messages.give(buffer),
            _ => self.bulk.give(buffer),
        }
    }

    /// Frees what is kept for the next user.
    #[cold]
    pub fn free_spare_buffers(&self) {
        self.messages.clear();
        self.large_messages.clear();
        self.bulk.clear();
    }

    /// Has receives take little or much at once, and with it what an exchange then holds. Not while it is lent: the next look will.
    pub fn resize_scratch(&self, small: bool) {
        let capacity = if small { MESSAGE_ROOM } else { SCRATCH_BYTES };
        if let Ok(mut scratch) = self.scratch.try_borrow_mut()
            && scratch.capacity() != capacity
        {
            *scratch = Vec::with_capacity(capacity);
        }
    }

    /// Whether an exchange may hold a message buffer while it waits for its answer, for the ring to receive into.
    #[inline]
    pub fn receives_ahead(&self) -> bool {
        self.on_ring && self.scratch.borrow().capacity() == SCRATCH_BYTES
    }

    /// Whether a message buffer takes so many bytes with room to spare.
    #[inline]
    pub const fn is_brief(bytes: usize) -> bool {
        bytes < MESSAGE_BYTES
    }

    /// Lets bulk buffers of so many bytes in all be made until the next call. Bodies that find none left move with small ones.
    pub fn allow_bulk(&self, bytes: u64) {
        self.bulk.allow(bytes / BULK_BYTES as u64);
    }

    /// Lends a request head to parse into, for work that does not wait.
    #[inline]
    pub fn request_head(&self) -> RefMut<'_, RequestHead> {
        let mut head = self.request_head.borrow_mut();
        head.clear();
        head
    }

    /// Lends a response head to parse into, for work that does not wait.
    #[inline]
    pub fn response_head(&self) -> RefMut<'_, ResponseHead> {
        let mut head = self.response_head.borrow_mut();
        head.clear();
        head
    }

    /// Whether `address` is a proxy whose word counts.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.config
            .forward
            .trusted_proxies
            .iter()
            .any(|network| network.contains(&address))
    }

    /// Uses the present date as a Date field has it (RFC 9110 section 6.6.1), at most a second old.
    #[inline]
    pub fn with_date<R>(&self, f: impl FnOnce(&[u8]) -> R) -> R {
        f(self.date.borrow().as_bytes())
    }

    /// Formats the date anew when a second has passed; called by the sweeper.
    pub fn update_date(&self) {
        let seconds = unix_seconds(SystemTime::now());
        if self.dated_at.replace(seconds) != seconds || self.date.borrow().is_empty() {
            *self.date.borrow_mut() = Utc::from_unix_seconds(seconds).http();
        }
    }

    /// The access log, when it is on.
    #[inline]
    pub fn access_log(&self) -> Option<&ShardAccessLog> {
        self.access_log.as_ref()
    }

    /// Work of the sweeper that can wait for a whole second: what pools hold.
    pub fn sweep_pools(&self) {
        let now = self.deadlines.now();
        self.groups.iter().for_each(|group| group.sweep(now));
    }

    /// Work of the sweeper in each turn: idle times, servers that have limits, and gauges.
    pub fn sweep_groups(&self) {
        let now = self.deadlines.now();
        self.groups.iter().for_each(|group| group.tick(now));
        for server in self.groups.iter().flat_map(|group| &group.servers) {
            self.server(server.id).idle.set(server.pool.len() as u64);
        }
    }

    /// The sockets of all clients and of all connections to servers, and what waits for them, for when the shard has died and its tasks
    /// never run again.
    pub fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let servers = self.groups.iter().flat_map(Group::descriptors);
        let arrivals = self.arrivals.get().map(AsRawFd::as_raw_fd);
        self.deadlines
            .descriptors()
            .into_iter()
            .chain(servers)
            .chain(arrivals)
    }

    /// Closes all idle connections to servers.
    pub fn close_pools(&self) {
        for server in self.groups.iter().flat_map(|group| &group.servers) {
            server.pool.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::body::{Coding, Reader};
    use crate::http1::framing::Framing;

    const LIMITS: Limits = Limits {
        head_bytes: 16 * 1024,
        fields: 128,
        target_bytes: 1024,
    };

    #[test]
    fn a_full_receive_written_in_chunks_anew_fits_into_a_buffer() {
        let chunk = |bytes: usize| format!("{bytes:x}\r\n{}\r\n", "x".repeat(bytes));
        let long = chunk(4 * BULK_BYTES);
        let short = chunk(1000).repeat(4 * BULK_BYTES / 1000);
        for (framing, body) in [
            (Framing::Chunked, &long),
            (Framing::Chunked, &short),
            (Framing::UntilClose, &long),
        ] {
            let mut reader = Reader::new(framing);
            for input in body.as_bytes().chunks(RECEIVE_BYTES_MAX) {
                let mut output = Vec::with_capacity(BULK_BYTES);
                let moved = reader.transfer(input, Coding::Chunked, &LIMITS, &mut output);
                assert!(moved.is_ok());
                assert_eq!(output.capacity(), BULK_BYTES, "no other is kept");
            }
        }
    }
}
