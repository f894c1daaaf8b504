//! Socket options (tcp(7), socket(7)).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket as RawSocket, TcpKeepalive, Type};

use crate::config::Tcp;

/// Unanswered questions after which a peer has vanished.
const KEEPALIVE_QUESTIONS: u32 = 4;

/// A socket option could not be set: which one, and why.
#[derive(Debug)]
pub struct OptionError {
    /// The option's name in the configuration.
    pub option: &'static str,
    /// What the kernel said.
    pub error: io::Error,
}

impl std::fmt::Display for OptionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} cannot be set: {}", self.option, self.error)?;
        if self.option == "congestion" {
            f.write_str("; it must be in net.ipv4.tcp_available_congestion_control, and for unprivileged users in tcp_allowed_congestion_control")?;
        }
        Ok(())
    }
}

impl std::error::Error for OptionError {}

fn named<T>(option: &'static str, result: io::Result<T>) -> Result<T, OptionError> {
    result.map_err(|error| OptionError { option, error })
}

/// Sets the options that listeners and upstream sockets share. Accepted sockets inherit them from their listener.
pub fn set_tcp(fd: BorrowedFd<'_>, tcp: &Tcp) -> Result<(), OptionError> {
    let socket = SockRef::from(&fd);
    if let Some(bytes) = tcp.recv_buffer {
        named("recv_buffer", socket.set_recv_buffer_size(bytes))?;
    }
    if let Some(bytes) = tcp.send_buffer {
        named("send_buffer", socket.set_send_buffer_size(bytes))?;
    }
    if let Some(idle) = tcp.tcp_keepalive {
        named("tcp_keepalive", socket.set_tcp_keepalive(&keepalive(idle)))?;
    }
    if let Some(limit) = tcp.tcp_user_timeout {
        named("tcp_user_timeout", socket.set_tcp_user_timeout(Some(limit)))?;
    }
    if let Some(us) = tcp.busy_poll_us {
        named(
            "busy_poll_us",
            set_int(fd, libc::SOL_SOCKET, libc::SO_BUSY_POLL, us),
        )?;
    }
    if let Some(name) = &tcp.congestion {
        named("congestion", socket.set_tcp_congestion(name.as_bytes()))?;
    }
    Ok(())
}

/// After `idle` without a byte, four questions in the same time again: who has vanished is found after twice `idle`. In whole seconds,
/// rounded up (tcp(7)).
fn keepalive(idle: Duration) -> TcpKeepalive {
    let seconds = idle.as_millis().div_ceil(1000).max(1) as u64;
    let interval = seconds.div_ceil(u64::from(KEEPALIVE_QUESTIONS));
    TcpKeepalive::new()
        .with_time(Duration::from_secs(seconds))
        .with_interval(Duration::from_secs(interval))
        .with_retries(KEEPALIVE_QUESTIONS)
}

/// Whether the process may set these options on the sockets that it will open: some take privileges or a module of the kernel.
pub fn try_tcp(tcp: &Tcp) -> Result<(), OptionError> {
    let socket = named("socket", RawSocket::new(Domain::IPV4, Type::STREAM, None))?;
    set_tcp(socket.as_fd(), tcp)
}

/// Wakes the listener only when data has come, or after `wait` (`TCP_DEFER_ACCEPT`, whole seconds, rounded up).
pub fn set_defer_accept(fd: BorrowedFd<'_>, wait: Duration) -> Result<(), OptionError> {
    let seconds = wait.as_millis().div_ceil(1000).clamp(1, 3600) as u32;
    named(
        "defer_accept",
        set_int(fd, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, seconds),
    )
}

/// Accepts data in a SYN; `queue` bounds requests that are not yet confirmed (`TCP_FASTOPEN`, RFC 7413).
pub fn set_fast_open(fd: BorrowedFd<'_>, queue: u32) -> Result<(), OptionError> {
    named(
        "fast_open",
        set_int(fd, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, queue),
    )
}

/// Sends the first data in the SYN where the server gave us a cookie (`TCP_FASTOPEN_CONNECT`).
pub fn set_fast_open_connect(fd: BorrowedFd<'_>) -> Result<(), OptionError> {
    named(
        "fast_open",
        set_int(fd, libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, 1),
    )
}

/// Leaves the choice of a port to connect(2) when the socket is bound to an address alone (`IP_BIND_ADDRESS_NO_PORT`; both families).
pub fn set_bind_address_no_port(fd: BorrowedFd<'_>) -> Result<(), OptionError> {
    named(
        "source",
        set_int(fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1),
    )
}

fn set_int(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: u32,
) -> io::Result<()> {
    let value = libc::c_int::try_from(value).unwrap_or(libc::c_int::MAX);
    // SAFETY: the kernel reads `value`, which lives through the call, by the size given.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
