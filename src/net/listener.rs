//! Listening sockets: bound for all shards at start, accepted from by one shard each.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::fchown;
use std::rc::Rc;

use monoio::net::TcpListener;
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket as RawSocket, Type};

use super::option::{OptionError, set_defer_accept, set_fast_open, set_tcp};
use super::socket::Socket;
use crate::config::{Account, Listen};

/// Why a listener could not be opened.
#[derive(Debug)]
pub enum ListenError {
    /// Creating, binding or listening failed.
    Socket(io::Error),
    /// An option could not be set.
    Option(OptionError),
}

impl std::fmt::Display for ListenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(error) if error.kind() == io::ErrorKind::AddrInUse => {
                write!(
                    f,
                    "the address is in use by a socket without SO_REUSEPORT or of another user, or its port by a connection (those in \
                     net.ipv4.ip_local_port_range may be, a minute after its end too); stop that program or choose another address"
                )
            }
            Self::Socket(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                write!(
                    f,
                    "{error}; ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE"
                )
            }
            Self::Socket(error) => error.fmt(f),
            Self::Option(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ListenError {}

impl From<io::Error> for ListenError {
    fn from(error: io::Error) -> Self {
        Self::Socket(error)
    }
}

impl From<OptionError> for ListenError {
    fn from(error: OptionError) -> Self {
        Self::Option(error)
    }
}

/// Takes every segment but a SYN without ACK (bpf(4); a filter of a TCP socket sees the segment from the TCP header on).
/// Accepted sockets inherit it, to which no such segment comes.
static DROP_SYN: [SockFilter; 5] = {
    const SYN: u32 = 0x02;
    const SYN_ACK: u32 = 0x12;
    const FLAGS_AT: u32 = 13;
    [
        SockFilter::new(
            (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16,
            0,
            0,
            FLAGS_AT,
        ),
        SockFilter::new(
            (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16,
            0,
            0,
            SYN_ACK,
        ),
        SockFilter::new(
            (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
            0,
            1,
            SYN,
        ),
        SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0),
        SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, u32::MAX),
    ]
};

/// Opens one listening socket on `address`, beside others of this process on the same address (`SO_REUSEPORT`, socket(7)). Those must
/// belong to one user, so with an account the sockets are its own from the start: it can open them again, and the next process can
/// open its own beside them.
pub fn open(
    listen: &Listen,
    address: SocketAddr,
    account: Option<&Account>,
) -> Result<StdListener, ListenError> {
    let socket = unbound(address)?;
    if let Some(Account { uid, gid, .. }) = account {
        // Without the right to, the process runs as the account already, or is about to be refused to become it.
        let _ = fchown(&socket, Some(*uid), Some(*gid));
    }
    socket.set_reuse_port(true)?;
    // Accepted sockets inherit it, which saves a call for each.
    socket.set_tcp_nodelay(true)?;
    set_tcp(socket.as_fd(), &listen.tcp)?;
    if let Some(wait) = listen.defer_accept {
        set_defer_accept(socket.as_fd(), wait)?;
    }
    socket.bind(&address.into())?;
    if let Some(queue) = listen.fast_open {
        set_fast_open(socket.as_fd(), queue)?;
    }
    socket.listen(i32::try_from(listen.backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// Whether a socket is bound to `address` or one that overlaps with it, on the same port. Only beside one with `SO_REUSEPORT` does
/// [`open`] succeed.
pub fn is_shared(address: SocketAddr) -> bool {
    let bound = unbound(address).and_then(|socket| socket.bind(&address.into()));
    bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

/// A TCP socket that can be bound to this address beside connections that linger there in `TIME_WAIT`, but beside no listener. It takes
/// no IPv4 clients on an IPv6 address.
pub fn unbound(address: SocketAddr) -> io::Result<RawSocket> {
    let domain = Domain::for_address(address);
    let socket = RawSocket::new(domain, Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // One listener is one family, so that `[::]` and `0.0.0.0` can both be configured.
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// A listening socket on its shard's runtime.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
}

impl Listener {
    /// Takes the socket onto the calling thread's runtime. `nonblocking` is for the epoll driver, which calls accept itself.
    pub fn new(listener: StdListener, nonblocking: bool) -> io::Result<Self> {
        listener.set_nonblocking(nonblocking)?;
        Ok(Self {
            listener: TcpListener::from_std(listener)?,
        })
    }

    /// Waits for a connection. Must not be dropped before it completes: an accepted descriptor would be lost.
    pub async fn accept(&self) -> io::Result<(Socket, SocketAddr)> {
        let (stream, peer) = self.listener.accept().await?;
        Ok((Socket::from_stream(stream)?, peer))
    }

    /// Takes a connection that is already waiting.
    pub fn try_accept(&self) -> io::Result<(Socket, SocketAddr)> {
        Waiting::accept(self.as_fd())?.admit()
    }

    /// Has the kernel drop connection attempts that are new to it, while those whose handshake has begun still end up in the backlog. The
    /// clients' kernels try again in a second.
    pub fn refuse_new(&self) -> io::Result<()> {
        SockRef::from(&self.as_fd()).attach_filter(&DROP_SYN)
    }

    /// Leaves the listening state. Waiting accepts end with an error; connections in the backlog are reset.
    pub fn shutdown(&self) {
        shutdown(self.as_fd());
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open for as long as `self` is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.as_raw_fd()) }
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.listener.as_raw_fd()
    }
}

/// A client that the kernel has let in and no shard has taken yet.
#[derive(Debug)]
pub struct Waiting {
    socket: OwnedFd,
    peer: SocketAddr,
}

impl Waiting {
    /// The next one of a listener's backlog, without waiting.
    fn accept(listener: BorrowedFd<'_>) -> io::Result<Self> {
        // With it the accepts that wait on the ring are not touched, but this one does not block.
        SockRef::from(&listener).set_nonblocking(true)?;
        let (socket, peer) = SockRef::from(&listener).accept()?;
        let peer = peer
            .as_socket()
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(Self {
            socket: socket.into(),
            peer,
        })
    }

    /// Takes it onto the calling thread's runtime.
    pub fn admit(self) -> io::Result<(Socket, SocketAddr)> {
        // Sockets taken by accept(2) do not inherit O_NONBLOCK; the epoll driver's own are non-blocking, and so is every call on ours.
        Ok((Socket::new(self.socket)?, self.peer))
    }
}

/// Ends a listener of a shard that has died. Closing resets what its backlog holds, so the clients there are taken out first. Those in
/// the middle of their handshake are lost. Whoever holds it here knows that it is open, for its number is another's once it is not.
pub fn salvage(listener: Rc<Listener>) -> Vec<Waiting> {
    let fd = orphan(listener.as_raw_fd());
    // With this share of it the owner stays for ever, and never closes the number again.
    std::mem::forget(listener);
    // Else a crowd that comes without end would be taken in without end; an error costs those that come meanwhile.
    let _ = SockRef::from(&fd).attach_filter(&DROP_SYN);
    let mut waiting = Vec::new();
    loop {
        match Waiting::accept(fd.as_fd()) {
            Ok(client) => waiting.push(client),
            Err(error) if is_one_clients(&error) => {}
            Err(_) => break,
        }
    }
    shutdown(fd.as_fd());
    waiting
}

/// Ends a socket of a shard that has died and whose runtime can no longer close it: shuts it down, then closes it.
pub fn abandon(fd: RawFd) {
    shutdown(orphan(fd).as_fd());
}

/// Takes over a descriptor of a shard that has died.
fn orphan(fd: RawFd) -> OwnedFd {
    // SAFETY: the callers' numbers are of descriptors that are open, for their owners had not dropped them when the shard died. Those were
    // leaked, by the caller or with their runtime, and never run again, so nobody else closes the number.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn shutdown(fd: BorrowedFd<'_>) {
    // An error means that it is not connected or listening any more.
    let _ = rustix::net::shutdown(fd, rustix::net::Shutdown::Both);
}

/// Whether accepting failed because that one client is gone, and the next may be there (accept(2)).
pub fn is_one_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
    )
}

/// Whether the listening socket itself is at its end.
pub fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::EBADF | libc::ENOTSOCK | libc::EOPNOTSUPP | libc::ECANCELED)
    )
}
