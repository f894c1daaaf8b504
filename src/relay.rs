//! A plain TCP byte relay: what it costs to pass bytes on and do nothing else.
//!
//! It is the floor that the comparison measures proxies against, so it runs on the same runtime with the same ring flags as a
//! shard, and knows nothing of HTTP: one upstream connection for each client connection, bytes copied both ways as they come.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use monoio::net::TcpStream;

use crate::net::buffer::BufferPool;
use crate::net::connect::{self, Address, Connected, Options};
use crate::net::socket::Socket;
use crate::runtime;

/// Bytes received at once. Small messages touch only the first page; a 1 MiB body costs 0.8 of what it does with 64 KiB.
const BUFFER_BYTES: usize = 256 * 1024;
/// Buffers kept for reuse: one is in use at a time, save where a peer reads slowly.
const BUFFERS_FREE_MAX: usize = 64;

/// Starts a relay thread, on `cpu` if given, from `listen` to the servers `to`, each new connection to the next in turn.
/// Returns the address it listens on.
pub fn spawn(
    listen: SocketAddr,
    to: Vec<SocketAddr>,
    cpu: Option<usize>,
) -> io::Result<SocketAddr> {
    if to.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a relay needs a server to relay to",
        ));
    }
    let listener = runtime::listen(listen)?;
    let address = listener.local_addr()?;
    runtime::start("relay", cpu, move || async move {
        let turn = Rc::new(Cell::new(0));
        let buffers = Rc::new(BufferPool::new(BUFFER_BYTES, BUFFERS_FREE_MAX));
        let accepting = runtime::accept(listener, move |client| {
            let server = to[turn.get()];
            turn.set((turn.get() + 1) % to.len());
            relay(client, server, Rc::clone(&buffers))
        });
        if accepting.is_ok() {
            std::future::pending::<()>().await;
        }
    })?;
    Ok(address)
}

/// Connects to `server` and copies both ways until both directions have ended.
async fn relay(client: TcpStream, server: SocketAddr, buffers: Rc<BufferPool>) {
    let Ok(client) = Socket::from_stream(client) else {
        return;
    };
    let client = Rc::new(client);
    // A server that refuses: dropping the client's connection is all that a relay can say.
    let (address, options) = (Address::Socket(server), Options::default());
    let Ok(Connected::Taken(server) | Connected::Promised(server)) =
        connect::connect(&address, &options, Rc::new).await
    else {
        return;
    };
    monoio::spawn(pump(
        Rc::clone(&server),
        Rc::clone(&client),
        Rc::clone(&buffers),
    ));
    pump(client, server, buffers).await;
}

/// Copies one direction until its end or an error, and passes the end on.
async fn pump(from: Rc<Socket>, to: Rc<Socket>, buffers: Rc<BufferPool>) {
    while from.readable().await.is_ok() {
        // A buffer is taken when there is something to put into it: all connections share the few that stay in the CPU's cache.
        let mut buffer = buffers.take();
        let received = from.try_recv(&mut buffer, usize::MAX);
        let goes_on = match received {
            Ok(0) => false,
            Ok(_) => send_all(&to, &buffer).await.is_ok(),
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        };
        buffers.give(buffer);
        if !goes_on {
            break;
        }
    }
    to.shutdown_write();
}

/// Sends straight to the socket; waits only when that is full.
async fn send_all(to: &Socket, mut bytes: &[u8]) -> io::Result<()> {
    loop {
        match to.try_send(bytes) {
            Ok(sent) if sent == bytes.len() => return Ok(()),
            Ok(sent) => bytes = &bytes[sent..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
            Err(error) => return Err(error),
        }
    }
}
