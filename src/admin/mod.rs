//! The status listener: what runs here, how it fares.
//!
//! It has threads and blocking sockets of its own, so that it answers while every shard is busy. What it shows needs no secret, but
//! is not for strangers: it listens on loopback unless told otherwise. It changes nothing but what operators order (`servers`); beyond
//! loopback that takes a token.

mod connection;
mod health;
pub mod http;
mod listener;
mod metrics;
mod page;
mod sampler;
mod servers;
mod status;
mod traffic;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use self::connection::Limits;
use self::http::{Answer, Request};
use self::listener::Listener;
use self::sampler::Sampler;
pub use self::servers::Orders;
use self::servers::Servers;
use crate::config;
use crate::health::overview::Overview;
use crate::telemetry::prometheus;
use crate::telemetry::view::View;

const INDEX: &str = "\
Ringlane status listener
/lb/        what runs here, for a browser
/lb/status  upstreams, servers and shards as JSON
/lb/servers/UPSTREAM/SERVER  one server as JSON; POST orders what it is to do
/metrics    Prometheus text
/healthz    200 while this process takes connections, 503 when not
";

/// The running status listener. Dropping it closes the listener.
pub struct Admin {
    listener: Listener,
    _sampler: sampler::Thread,
    bytes_later: u64,
}

impl Admin {
    /// Opens the socket, which may take privileges that threads must not have. The error names the address.
    pub fn bind(config: &config::Admin) -> io::Result<TcpListener> {
        listener::bind(config.address)
    }

    /// Starts to answer on the socket.
    pub fn start(
        socket: TcpListener,
        orders: Orders,
        view: Arc<View>,
        health: Option<Arc<Overview>>,
    ) -> io::Result<Self> {
        let bytes_later = sampler::bytes_later(&view);
        let sampler = Arc::new(Sampler::new(view));
        let thread = sampler::Thread::start(Arc::clone(&sampler))?;
        let handler = move |request: &Request| {
            let overview = health.as_deref();
            if request.path.starts_with(servers::PREFIX) {
                let servers = Servers {
                    sampler: &sampler,
                    overview,
                    orders: &orders,
                };
                servers.answer(request)
            } else {
                answer(request, &sampler, overview, &orders)
            }
        };
        let listener = Listener::start(socket, Limits::default(), handler)?;
        Ok(Self {
            listener,
            _sampler: thread,
            bytes_later,
        })
    }

    /// Bytes of the heap that its samples will hold beyond the first.
    pub fn bytes_later(&self) -> u64 {
        self.bytes_later
    }

    /// Where it listens; with the real port when the configured one was 0.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }
}

fn answer(
    request: &Request,
    sampler: &Sampler,
    overview: Option<&Overview>,
    orders: &Orders,
) -> Answer {
    let reads = matches!(request.method.as_str(), "GET" | "HEAD");
    if let Some(file) = page::file(&request.path) {
        return if reads { file } else { Answer::not_allowed() };
    }
    let page: fn(&Sampler, Option<&Overview>, &Orders) -> Answer = match request.path.as_str() {
        "/" => |_, _, _| Answer::text(200, INDEX),
        "/lb/status" => |sampler, overview, orders| {
            Answer::json(&status::Status::new(sampler, overview, orders))
        },
        "/metrics" => |sampler, overview, _| {
            Answer::new(
                200,
                prometheus::CONTENT_TYPE,
                metrics::render(sampler, overview),
            )
        },
        "/healthz" => |sampler, _, _| health(sampler.view()),
        _ => return Answer::text(404, "not found; / lists what is here\n"),
    };
    if reads {
        page(sampler, overview, orders)
    } else {
        Answer::not_allowed()
    }
}

/// Whether this process takes connections. Its servers may be well or not: a restart would not help them.
fn health(view: &View) -> Answer {
    if view.draining.load(Relaxed) {
        Answer::text(503, "draining\n")
    } else if view
        .shards
        .iter()
        .any(|shard| shard.running_thread().is_some())
    {
        Answer::text(200, "ok\n")
    } else {
        Answer::text(503, "no shard is running\n")
    }
}
