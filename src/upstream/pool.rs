//! Keep-alive connections of one shard to one server.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use super::place::Attempt;
use crate::config;
use crate::net::deadline::Ticks;
use crate::net::roster::Listed;
use crate::net::socket::Peek;
use crate::telemetry::counters::Tally;

/// When a connection was begun, and to which of its server's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Birth {
    tick: u32,
    generation: u32,
}

/// A connection to a server.
#[derive(Debug)]
pub struct Connection {
    /// The socket; no wait or send is in flight while the connection is in a pool.
    pub socket: Listed,
    /// Where it leads, while that is not known to take it.
    pub promised: Option<Attempt>,
    birth: Birth,
    /// Requests sent on it.
    requests: u64,
    _open: Tally,
}

impl Connection {
    /// A connection that has come about, or is begun with its first bytes.
    pub const fn new(socket: Listed, promised: Option<Attempt>, birth: Birth, open: Tally) -> Self {
        Self {
            socket,
            promised,
            birth,
            requests: 0,
            _open: open,
        }
    }

    /// Whether "connection refused" means that the server has not taken it. Of one that it has taken, the kernel says so when an ICMP error
    /// came before the timeout that ended it.
    pub fn may_be_refused(&self) -> bool {
        self.promised.is_some() && !self.socket.was_taken()
    }

    /// Counts a request.
    pub const fn count_request(&mut self) {
        self.requests += 1;
    }
}

#[derive(Debug)]
struct Idle {
    connection: Box<Connection>,
    since: u32,
}

/// The idle connections to one server, newest last. Ticks are those of the shard's clock.
#[derive(Debug)]
pub struct Pool {
    idle: RefCell<VecDeque<Idle>>,
    max_idle: usize,
    idle_ticks: Ticks,
    age_ticks: Option<Ticks>,
    requests_max: u64,
    /// How often the server has moved: connections to its earlier addresses are not kept.
    generation: Cell<u32>,
    /// The server is taken out: no connection is kept for it.
    closed: Cell<bool>,
    /// Connections found closed or out of step since [`Pool::take_stale`] was last called.
    stale: Cell<u64>,
}

impl Pool {
    /// An empty pool.
    pub fn new(settings: &config::Pool) -> Self {
        Self {
            idle: RefCell::default(),
            max_idle: settings.max_idle,
            idle_ticks: settings.idle_timeout.into(),
            age_ticks: settings.max_age.map(Ticks::from),
            requests_max: settings.max_requests.unwrap_or(u64::MAX),
            generation: Cell::new(0),
            closed: Cell::new(false),
            stale: Cell::new(0),
        }
    }

    /// What a connection to the server's present address is to be made with that begins at tick `now`.
    pub const fn birth(&self, now: u32) -> Birth {
        Birth {
            tick: now,
            generation: self.generation.get(),
        }
    }

    /// The newest connection that is still good: open, within its times, and with nothing unasked-for to read. Others are closed on the
    /// way: all of them when the newest has been idle too long.
    pub fn take(&self, now: u32) -> Option<Box<Connection>> {
        loop {
            let Idle { connection, since } = self.idle.borrow_mut().pop_back()?;
            if self.is_over(since, now) || self.is_too_old(&connection, now) {
                continue;
            }
            if connection.socket.peek() == Peek::Empty {
                return Some(connection);
            }
            self.stale.set(self.stale.get() + 1);
        }
    }

    /// Keeps a connection for the next request, unless it has served its time; a full pool closes its oldest.
    pub fn put(&self, connection: Box<Connection>, now: u32) {
        if self.max_idle == 0
            || self.closed.get()
            || connection.birth.generation != self.generation.get()
            || connection.requests >= self.requests_max
            || self.is_too_old(&connection, now)
        {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        if idle.len() == self.max_idle {
            idle.pop_front();
        }
        idle.push_back(Idle {
            connection,
            since: now,
        });
    }

    /// Whether a connection is never used for a second request.
    pub const fn closes_after_one(&self) -> bool {
        self.max_idle == 0 || self.requests_max == 1
    }

    /// Closes connections that have been idle too long; the oldest are in front, so the others are not looked at.
    pub fn expire_idle(&self, now: u32) {
        let mut idle = self.idle.borrow_mut();
        while idle
            .front()
            .is_some_and(|idle| self.is_over(idle.since, now))
        {
            idle.pop_front();
        }
    }

    /// Closes connections that have been idle too long, are too old, or were closed by the server.
    pub fn expire(&self, now: u32) {
        self.idle.borrow_mut().retain(|idle| {
            !self.is_over(idle.since, now)
                && !self.is_too_old(&idle.connection, now)
                && idle.connection.socket.peek() == Peek::Empty
        });
    }

    /// The server has moved: closes all connections, those in use and those being made when they are given back.
    pub fn renew(&self) {
        self.generation.set(self.generation.get().wrapping_add(1));
        self.clear();
    }

    /// Closes all idle connections.
    pub fn clear(&self) {
        self.idle.borrow_mut().clear();
    }

    /// Closes the connection that has been idle for longest.
    pub fn close_oldest(&self) {
        self.idle.borrow_mut().pop_front();
    }

    /// Closes it, with all its connections, or opens it again. While it is closed, connections given back are closed too.
    pub fn set_closed(&self, closed: bool) {
        self.closed.set(closed);
        if closed {
            self.clear();
        }
    }

    /// How many connections are idle.
    pub fn len(&self) -> usize {
        self.idle.borrow().len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Connections found closed or out of step at checkout since the last call.
    pub fn take_stale(&self) -> u64 {
        self.stale.take()
    }

    /// Whether the time is over for a connection that is idle since then. Ticks are counted as [`Deadline::set`] does: the first one was
    /// partly over.
    ///
    /// [`Deadline::set`]: crate::net::deadline::Deadline::set
    fn is_over(&self, since: u32, now: u32) -> bool {
        Ticks::between(since, now) > self.idle_ticks
    }

    /// The same for its age.
    fn is_too_old(&self, connection: &Connection, now: u32) -> bool {
        self.age_ticks
            .is_some_and(|age| Ticks::between(connection.birth.tick, now) > age)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::rc::Rc;
    use std::sync::Arc;
    use std::time::Duration;

    use monoio::{LegacyDriver, RuntimeBuilder};

    use super::*;
    use crate::net::roster::Roster;
    use crate::net::socket::Socket;
    use crate::telemetry::counters::ShardCounters;

    /// A pool, and connections to put into it. Sockets need a runtime.
    struct Fixture {
        pool: Pool,
        counters: Arc<ShardCounters>,
        /// The servers' ends.
        peers: RefCell<Vec<UnixStream>>,
    }

    impl Fixture {
        fn run(idle_ms: u64, age_ms: Option<u64>, test: impl FnOnce(&Self)) {
            let settings = config::Pool {
                max_idle: 8,
                idle_timeout: Duration::from_millis(idle_ms),
                max_age: age_ms.map(Duration::from_millis),
                max_requests: None,
            };
            let fixture = Self {
                pool: Pool::new(&settings),
                counters: Arc::new(ShardCounters::new(1, 1)),
                peers: RefCell::default(),
            };
            let runtime = RuntimeBuilder::<LegacyDriver>::new().build();
            runtime
                .expect("a runtime")
                .block_on(async { test(&fixture) });
        }

        /// Gives the pool a connection that began then.
        fn put(&self, birth: Birth, now: u32) {
            let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
            self.peers.borrow_mut().push(theirs);
            let socket = Socket::new(ours.into()).expect("a socket");
            let socket = Rc::<Roster>::default().enter(socket);
            let connection = Connection::new(
                socket,
                None,
                birth,
                Tally::new(&self.counters, 0, |server| &server.open),
            );
            self.pool.put(Box::new(connection), now);
        }

        /// Open connections, in the pool or not.
        fn open(&self) -> u64 {
            self.counters.servers[0].open.get()
        }
    }

    #[test]
    fn what_leads_to_an_earlier_address_is_not_kept() {
        Fixture::run(60_000, None, |fixture| {
            let pool = &fixture.pool;
            fixture.put(pool.birth(0), 0);
            fixture.put(pool.birth(0), 0);
            let in_use = pool.take(0).expect("two are idle");
            // Begun before the server moved, and there only afterwards.
            let begun = pool.birth(0);
            pool.renew();
            assert_eq!(pool.len(), 0, "an idle one");
            pool.put(in_use, 0);
            fixture.put(begun, 0);
            assert_eq!((pool.len(), fixture.open()), (0, 0));
            fixture.put(pool.birth(0), 0);
            assert!(pool.take(0).is_some(), "the new address");
        });
    }

    /// A tick may be partly over when a connection is put back in it, so 300 ms are surely over after four.
    #[test]
    fn idle_time_is_never_cut_short_nor_exceeded() {
        Fixture::run(300, None, |fixture| {
            let pool = &fixture.pool;
            fixture.put(pool.birth(10), 10);
            fixture.put(pool.birth(11), 11);
            pool.expire_idle(13);
            pool.expire(13);
            assert_eq!(pool.len(), 2, "too early");
            pool.expire_idle(14);
            assert_eq!(pool.len(), 1, "the older one alone");
            let taken = pool.take(14).expect("in time");
            pool.put(taken, 14);
            fixture.put(pool.birth(14), 14);
            assert!(pool.take(18).is_none(), "the newest is over its time");
            assert_eq!((pool.len(), fixture.open()), (0, 0));
        });
    }

    #[test]
    fn age_is_never_cut_short_nor_exceeded() {
        Fixture::run(60_000, Some(300), |fixture| {
            let pool = &fixture.pool;
            fixture.put(pool.birth(10), 10);
            pool.expire(13);
            let aged = pool.take(13).expect("in time");
            pool.put(aged, 13);
            assert!(pool.take(14).is_none(), "too old to be taken");
            fixture.put(pool.birth(10), 14);
            assert_eq!((pool.len(), fixture.open()), (0, 0), "or to be kept");
        });
    }
}
