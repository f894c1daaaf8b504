//! A plain TCP byte relay: what it costs to pass bytes on and do nothing else.
//!
//! It is the floor that the comparison measures proxies against, so it runs on the same runtime with the same ring flags as a
//! shard, and knows nothing of HTTP: one upstream connection for each client connection, bytes copied both ways as they come.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use monoio::io::{AsyncReadRent, AsyncWriteRentExt, OwnedReadHalf, OwnedWriteHalf, Splitable};
use monoio::net::TcpStream;

use crate::runtime;

/// Bytes read at once. Small messages use only the first page; large bodies take fewer rounds.
const BUFFER: usize = 64 * 1024;

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
        let accepting = runtime::accept(listener, move |client| {
            let server = to[turn.get()];
            turn.set((turn.get() + 1) % to.len());
            relay(client, server)
        });
        if accepting.is_ok() {
            std::future::pending::<()>().await;
        }
    })?;
    Ok(address)
}

/// Connects to `server` and copies both ways until both directions have ended.
async fn relay(client: TcpStream, server: SocketAddr) {
    // A server that refuses: dropping the client's connection is all that a relay can say.
    let Ok(server) = TcpStream::connect_addr(server).await else {
        return;
    };
    if server.set_nodelay(true).is_err() {
        return;
    }
    let (client_reads, client_writes) = client.into_split();
    let (server_reads, server_writes) = server.into_split();
    monoio::spawn(pump(server_reads, client_writes));
    pump(client_reads, server_writes).await;
}

/// Copies one direction until its end or an error. Dropping the write half then passes the end on (`shutdown(SHUT_WR)`).
async fn pump(mut from: OwnedReadHalf<TcpStream>, mut to: OwnedWriteHalf<TcpStream>) {
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        let (read, filled) = from.read(buffer).await;
        if !matches!(read, Ok(1..)) {
            return;
        }
        let (written, emptied) = to.write_all(filled).await;
        if written.is_err() {
            return;
        }
        buffer = emptied;
    }
}
