//! Connections to servers.

use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;

use monoio::net::TcpStream;
use socket2::{Domain, SockAddr, SockRef, Socket as RawSocket, Type};

use super::descriptors;
use super::option::{set_fast_open_connect, set_tcp};
use super::socket::Socket;
use super::source::{self, Sources};
use crate::config::Tcp;

/// Where to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP.
    Socket(SocketAddr),
    /// A Unix stream socket.
    Unix(PathBuf),
}

/// How connections to an upstream's servers are made.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Options of the socket.
    pub tcp: Tcp,
    /// `TCP_FASTOPEN_CONNECT`.
    pub fast_open: bool,
    /// Where they come from.
    pub sources: Sources,
    /// They may take the last descriptors, which are kept for such as these.
    pub takes_last: bool,
}

/// A connection, as far as it has come.
#[derive(Debug)]
pub enum Connected<S> {
    /// The peer has taken it.
    Taken(S),
    /// It is begun with the first bytes (`TCP_FASTOPEN_CONNECT`, tcp(7)): whether the peer takes it shows afterwards.
    Promised(S),
}

/// Connects without blocking. May be dropped at any time. `keep` gets the socket before it is connected.
pub async fn connect<S: Deref<Target = Socket>>(
    address: &Address,
    options: &Options,
    keep: impl FnOnce(Socket) -> S,
) -> io::Result<Connected<S>> {
    let socket = match begin(address, options)? {
        Begun::Connected(socket) => {
            let socket = keep(Socket::new(socket.into())?);
            return Ok(match address {
                Address::Socket(_) if options.fast_open => Connected::Promised(socket),
                _ => Connected::Taken(socket),
            });
        }
        Begun::Pending(socket) => keep(Socket::new(socket.into())?),
    };
    socket.connected().await?;
    match SockRef::from(&socket.as_fd()).take_error()? {
        None => Ok(Connected::Taken(socket)),
        Some(error) => Err(error),
    }
}

/// Whether a Unix socket has no room for another connection until its owner accepts one. That is told at once, and nobody tells when there
/// is room again (connect(2)).
pub fn is_backlog_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// Like [`connect`], for the epoll driver alone: gives a stream of the runtime. That a server refuses shows as `NotConnected`.
pub async fn connect_stream(address: &Address, options: &Options) -> io::Result<TcpStream> {
    let (Begun::Connected(socket) | Begun::Pending(socket)) = begin(address, options)?;
    let stream = TcpStream::from_std(socket.into())?;
    stream.writable(false).await?;
    stream.peer_addr()?;
    Ok(stream)
}

enum Begun {
    Connected(RawSocket),
    Pending(RawSocket),
}

fn begin(address: &Address, options: &Options) -> io::Result<Begun> {
    match address {
        Address::Socket(address) => options.sources.in_turn(*address, |source| {
            let socket = tcp_socket(*address, options)?;
            if let Some(source) = source {
                source::bind(&socket, source)?;
            }
            begin_on(socket, &SockAddr::from(*address))
        }),
        Address::Unix(path) => {
            let socket = socket(Domain::UNIX, options)?;
            // What is received stays in the sender's buffer (unix(7)).
            if let Some(bytes) = options.tcp.send_buffer {
                socket.set_send_buffer_size(bytes)?;
            }
            begin_on(socket, &SockAddr::unix(path)?)
        }
    }
}

fn begin_on(socket: RawSocket, address: &SockAddr) -> io::Result<Begun> {
    match socket.connect(address) {
        Ok(()) => Ok(Begun::Connected(socket)),
        // After an interrupted call the connection goes on being made (connect(2)).
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EINTR)) => {
            Ok(Begun::Pending(socket))
        }
        Err(error) => Err(error),
    }
}

fn socket(domain: Domain, options: &Options) -> io::Result<RawSocket> {
    let socket = RawSocket::new(domain, Type::STREAM.nonblocking().cloexec(), None)?;
    if descriptors::is_kept(socket.as_raw_fd()) && !options.takes_last {
        return Err(io::Error::from_raw_os_error(libc::EMFILE));
    }
    Ok(socket)
}

fn tcp_socket(address: SocketAddr, options: &Options) -> io::Result<RawSocket> {
    let socket = socket(Domain::for_address(address), options)?;
    socket.set_tcp_nodelay(true)?;
    let option = |error: super::option::OptionError| error.error;
    set_tcp(socket.as_fd(), &options.tcp).map_err(option)?;
    if options.fast_open {
        set_fast_open_connect(socket.as_fd()).map_err(option)?;
    }
    Ok(socket)
}
