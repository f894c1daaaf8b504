//! Connections to servers.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;

use socket2::{Domain, SockAddr, SockRef, Socket as RawSocket, Type};

use super::option::{set_fast_open_connect, set_tcp};
use super::socket::Socket;
use crate::config::Tcp;

/// Where to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP.
    Socket(SocketAddr),
    /// A Unix stream socket.
    Unix(PathBuf),
}

/// Connects without blocking. May be dropped at any time.
pub async fn connect(address: &Address, tcp: &Tcp, fast_open: bool) -> io::Result<Socket> {
    let (socket, address) = match address {
        Address::Socket(address) => (
            tcp_socket(*address, tcp, fast_open)?,
            SockAddr::from(*address),
        ),
        Address::Unix(path) => (
            RawSocket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?,
            SockAddr::unix(path)?,
        ),
    };
    match socket.connect(&address) {
        Ok(()) => return Socket::new(socket.into()),
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    let socket = Socket::new(socket.into())?;
    socket.writable().await?;
    match SockRef::from(&socket.as_fd()).take_error()? {
        None => Ok(socket),
        Some(error) => Err(error),
    }
}

fn tcp_socket(address: SocketAddr, tcp: &Tcp, fast_open: bool) -> io::Result<RawSocket> {
    let socket = RawSocket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        None,
    )?;
    socket.set_tcp_nodelay(true)?;
    let option = |error: super::option::OptionError| error.error;
    set_tcp(socket.as_fd(), tcp).map_err(option)?;
    if fast_open {
        set_fast_open_connect(socket.as_fd()).map_err(option)?;
    }
    Ok(socket)
}
