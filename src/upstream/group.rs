//! One shard's view of an upstream: its servers, their pools, and whose turn it is.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;

use super::pool::{Connection, Pool};
use super::resolve::Places;
use crate::balance::round_robin::RoundRobin;
use crate::config::{HostPolicy, Tcp, Upstream};
use crate::net::connect::{self, Address};
use crate::net::deadline::Ticks;

/// One server of an upstream.
#[derive(Debug)]
pub struct Server {
    /// Flat index over all servers of all upstreams, in the order of the configuration.
    pub id: usize,
    /// Its name for logs and X-Served-By.
    pub name: String,
    /// The Host it gets when the upstream's policy is to send the server's own.
    pub host: String,
    /// Its keep-alive connections.
    pub pool: Pool,
    /// The address that the pool's connections lead to.
    pooled: RefCell<Option<Arc<Address>>>,
    places: Places,
}

/// An upstream, as one shard sees it.
#[derive(Debug)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its servers.
    pub servers: Vec<Server>,
    /// The Host field that servers get.
    pub host: HostPolicy,
    /// Further servers that a request may be tried on after one that took it has failed.
    pub retries: u32,
    /// To establish a connection.
    pub connect_ticks: Ticks,
    /// From the request's last byte to the response head.
    pub response_header_ticks: Ticks,
    /// Between two reads of a response body.
    pub response_body_ticks: Ticks,
    rotation: RoundRobin,
    tcp: Tcp,
    fast_open: bool,
}

/// Servers that a request has been tried on, by index in the group.
#[derive(Debug, Default)]
pub struct Tried(Vec<usize>);

impl Tried {
    /// Marks a server.
    pub fn insert(&mut self, server: usize) {
        self.0.push(server);
    }

    /// Whether the server is marked.
    pub fn contains(&self, server: usize) -> bool {
        self.0.contains(&server)
    }
}

impl Group {
    /// The upstream's view of one shard. `first_id` is the flat index of its first server.
    pub fn new(upstream: &Upstream, first_id: usize, places: &Places, shard: usize) -> Self {
        let servers = upstream
            .servers
            .iter()
            .enumerate()
            .map(|(index, server)| Server {
                id: first_id + index,
                name: server.name.clone(),
                host: server.address.host_field(),
                pool: Pool::new(&upstream.pool),
                pooled: RefCell::default(),
                places: Arc::clone(places),
            });
        Self {
            name: upstream.name.clone(),
            servers: servers.collect(),
            host: upstream.host.clone(),
            retries: upstream.retries,
            connect_ticks: upstream.connect_timeout.into(),
            response_header_ticks: upstream.response_header_timeout.into(),
            response_body_ticks: upstream.response_body_timeout.into(),
            rotation: RoundRobin::new(upstream.servers.len(), shard),
            tcp: upstream.tcp.clone(),
            fast_open: upstream.fast_open,
        }
    }

    /// Whether each connection is closed after one request.
    pub fn closes_connections(&self) -> bool {
        self.servers
            .first()
            .is_some_and(|server| server.pool.closes_after_one())
    }

    /// The next server that has not been tried.
    #[inline]
    pub fn choose(&self, tried: &Tried) -> Option<usize> {
        self.rotation.next(|server| !tried.contains(server))
    }

    /// A new connection to a server. May be dropped at any time.
    pub async fn connect(&self, server: usize, now: u32) -> io::Result<Connection> {
        let server = &self.servers[server];
        let Some(address) = server.place() else {
            return Err(io::Error::new(
                io::ErrorKind::AddrNotAvailable,
                "the host name is not resolved",
            ));
        };
        let socket = connect::connect(&address, &self.tcp, self.fast_open).await?;
        Ok(Connection::new(socket, now))
    }
}

impl Server {
    /// Where it is now. When it has moved, connections to the old place are closed.
    fn place(&self) -> Option<Arc<Address>> {
        let place = self.places[self.id].get();
        let mut pooled = self.pooled.borrow_mut();
        if *pooled != place {
            self.pool.clear();
            pooled.clone_from(&place);
        }
        place
    }

    /// Closes what the pool should not keep; called by the sweeper.
    pub fn sweep(&self, now: u32) {
        self.place();
        self.pool.expire(now);
    }
}
