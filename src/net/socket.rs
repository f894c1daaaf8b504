//! A connected stream socket of any family.
//!
//! Reads mostly wait for readiness on the ring and then receive directly: a wait holds no buffer and loses nothing when it is dropped, so
//! one task can wait for several things and an idle connection costs no buffer. Where bytes are certain to be wanted, the ring is asked
//! for them at once. Sends are queued on the ring or made directly.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::mem::{self, ManuallyDrop, offset_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use monoio::io::{AsyncReadRent, AsyncWriteRent};
use monoio::net::{TcpStream, UnixStream};
use monoio::utils::is_legacy;
use pin_project_lite::pin_project;
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags, Shutdown, sockopt};

use super::descriptors::is_kept;

/// What a look at a socket's receive queue shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peek {
    /// Nothing has come.
    Empty,
    /// Bytes have come.
    Bytes,
    /// The peer has closed or reset the connection.
    Closed,
}

/// What is known of a socket's peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// It may send and receive.
    There,
    /// It sends no more. Whether it still receives shows only when it is sent something.
    Finished,
    /// The connection is reset, or closed in both directions.
    Gone,
}

/// Waits of a socket that may end at once, one after the other, before its task lets others run: with epoll, a peer that is always
/// ready would else have the shard for itself. On a ring each wait takes a loop turn.
const TURN_WAITS_MAX: u32 = 4;

const BROKEN: PollFlags = PollFlags::HUP.union(PollFlags::ERR);

/// A connected stream socket. It must be used on the thread that made it, inside of that thread's runtime.
#[derive(Debug)]
pub struct Socket {
    // The runtime's type for Unix sockets serves for every stream socket: it is a descriptor and its registration, and nothing else. The
    // one for TCP has room for two addresses as well.
    stream: ManuallyDrop<UnixStream>,
    /// Waits that have begun and not ended. The runtime may still refer to the descriptor while this is not 0.
    waits: Cell<u32>,
    /// Waits in a row that ended at once.
    ready_at_once: Cell<u32>,
}

#[allow(clippy::manual_async_fn)] // an async function would hold its arguments twice, for every exchange
impl Socket {
    /// Takes over a descriptor. That it may not be a Unix socket is of no matter: only descriptor calls follow.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            stream: ManuallyDrop::new(UnixStream::from_std(fd.into())?),
            waits: Cell::new(0),
            ready_at_once: Cell::new(0),
        })
    }

    /// Takes over a stream of the runtime.
    pub fn from_stream(stream: TcpStream) -> io::Result<Self> {
        // SAFETY: into_raw_fd hands the ownership over.
        Self::new(unsafe { OwnedFd::from_raw_fd(stream.into_raw_fd()) })
    }

    /// Receives what is there into the free capacity of `buffer`, at most `max` bytes, without waiting. Gives the number of bytes, 0 at the
    /// end of the stream.
    #[inline]
    pub fn try_recv(&self, buffer: &mut Vec<u8>, max: usize) -> io::Result<usize> {
        debug_assert!(
            buffer.len() < buffer.capacity(),
            "a receive without room would look like the end of the stream"
        );
        let room = buffer.spare_capacity_mut();
        let max = room.len().min(max);
        let ((received, _), _) = net::recv(self, &mut room[..max], RecvFlags::DONTWAIT)?;
        let received = received.len();
        // SAFETY: so many bytes behind the old length have just been received into the vector's own capacity.
        unsafe { buffer.set_len(buffer.len() + received) };
        Ok(received)
    }

    /// Sends what the socket takes of `bytes` without waiting.
    #[inline]
    pub fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(net::send(
            self,
            bytes,
            SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
        )?)
    }

    /// Queues `buffer` for sending with the other sends of this loop turn and waits until the kernel has taken what it can of it. Gives the
    /// number of bytes. When dropped, the kernel keeps the bytes, `buffer` stays empty, and how much was sent is not known.
    pub fn send_queued(&self, buffer: &mut Vec<u8>) -> impl Future<Output = io::Result<usize>> {
        async move {
            self.begin_wait();
            let (sent, bytes) = self.alias().write(mem::take(buffer)).await;
            *buffer = bytes;
            self.end_wait();
            sent
        }
    }

    /// Receives into `buffer`, which must be empty, and waits until something has come. Gives the number of bytes, 0 at the end of the
    /// stream. One operation of a ring does what waiting for readiness and receiving take an operation and a system call for. When
    /// dropped, bytes that came meanwhile are lost, and `buffer` with them: the connection is of no use then.
    pub fn recv_queued(&self, buffer: &mut Vec<u8>) -> impl Future<Output = io::Result<usize>> {
        async move {
            self.begin_wait();
            let (received, bytes) = self.alias().read(mem::take(buffer)).await;
            *buffer = bytes;
            self.end_wait();
            received
        }
    }

    /// A second stream of the same descriptor, for the runtime's operations, which want the stream for themselves.
    fn alias(&self) -> ManuallyDrop<UnixStream> {
        // SAFETY: reads and writes only clone the handle of the descriptor; a wait for readiness may hold the original meanwhile. The copy
        // is never dropped, so the handle's count stays right.
        ManuallyDrop::new(unsafe { std::ptr::read(&raw const *self.stream) })
    }

    /// Looks whether bytes or the end of the stream have come, taking nothing.
    pub fn peek(&self) -> Peek {
        match net::recv(self, &mut [0u8], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((0, _)) => Peek::Closed,
            Ok(_) => Peek::Bytes,
            Err(Errno::AGAIN) => Peek::Empty,
            Err(_) => Peek::Closed,
        }
    }

    /// What is known of the peer, taking nothing. What it sent before its end may still be there to receive.
    pub fn peer(&self) -> Peer {
        // Errors and hang-ups are told unasked.
        let mut looked = [PollFd::new(self, PollFlags::RDHUP)];
        match poll(&mut looked, Some(&Timespec::default())) {
            Ok(1..) if looked[0].revents().intersects(BROKEN) => Peer::Gone,
            Ok(1..) => Peer::Finished,
            _ => Peer::There,
        }
    }

    /// Whether bytes were sent that the peer has not acknowledged.
    pub fn has_unsent(&self) -> bool {
        self.unsent() > 0
    }

    /// How many bytes were sent that the peer has not acknowledged (`SIOCOUTQ`, tcp(7)).
    pub fn unsent(&self) -> usize {
        let mut bytes: libc::c_int = 0;
        // SAFETY: the kernel writes one int to `bytes`, which lives through the call.
        let result = unsafe { libc::ioctl(self.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
        if result == 0 {
            usize::try_from(bytes).unwrap_or(0)
        } else {
            0
        }
    }

    /// Whether the peer has taken the connection: it has acknowledged something, be it the SYN alone (`TCP_INFO`, tcp(7)).
    pub fn was_taken(&self) -> bool {
        // Which counts the SYN.
        const AT: usize = offset_of!(libc::tcp_info, tcpi_bytes_acked);
        let mut info = [0_u8; AT + size_of::<u64>()];
        let mut len = info.len() as libc::socklen_t;
        // SAFETY: the kernel writes `len` bytes at most, for which `info` has room.
        let result = unsafe {
            libc::getsockopt(
                self.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        result == 0 && info[AT..].iter().any(|byte| *byte > 0)
    }

    /// Waits until a receive would not block. May be dropped at any time.
    #[inline]
    pub fn readable(&self) -> impl Future<Output = io::Result<()>> + '_ {
        // The epoll driver clears a readiness that is over only when it checks.
        Ready::new(self, self.stream.readable(false))
    }

    /// Waits for the end of a connect that has begun: `SO_ERROR` then says how it went. May be dropped at any time.
    pub fn connected(&self) -> impl Future<Output = io::Result<()>> + '_ {
        Ready::new(self, self.stream.writable(false))
    }

    /// Waits until a send would not block. May be dropped at any time.
    ///
    /// # Errors
    ///
    /// The wait cannot be begun: descriptors, watches or memory are short ([`is_exhaustion`](super::descriptors::is_exhaustion)).
    pub async fn writable(&self) -> io::Result<()> {
        Ready::new(self, self.stream.writable(false)).await?;
        // What a ring polls for ends, unasked, when the peer has finished sending (IO_POLL_UNMASK in io_uring/poll.c): with a full buffer,
        // one wait after the other would end at once.
        if !is_legacy() && !self.has_room() {
            let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
            if is_kept(set.as_raw_fd()) {
                return Err(Errno::MFILE.into());
            }
            let data = epoll::EventData::new_u64(0);
            epoll::add(&set, self, data, epoll::EventFlags::OUT)?;
            Self::new(set)?.readable().await?;
        }
        Ok(())
    }

    /// Whether a send would not block, be it because the connection is broken.
    fn has_room(&self) -> bool {
        let mut looked = [PollFd::new(self, PollFlags::OUT)];
        !matches!(poll(&mut looked, Some(&Timespec::default())), Ok(0))
    }

    /// Counts a wait for as long as the kernel may know of it. One that is dropped half-way stays counted.
    #[inline]
    fn begin_wait(&self) {
        self.waits.set(self.waits.get() + 1);
    }

    #[inline]
    fn end_wait(&self) {
        self.waits.set(self.waits.get() - 1);
    }

    /// Ends the direction towards the peer (FIN after what is queued).
    pub fn shutdown_write(&self) {
        // An error means that the connection is gone already, which is what was asked for.
        let _ = net::shutdown(self, Shutdown::Write);
    }

    /// Makes the close that follows a reset, so that the peer cannot take what it got for whole.
    pub fn reset_on_close(&self) {
        // An error means that the connection is gone already.
        let _ = sockopt::set_socket_linger(self, Some(Duration::ZERO));
    }

    /// Makes it an orderly close again.
    pub fn finish_on_close(&self) {
        let _ = sockopt::set_socket_linger(self, None);
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open for as long as `self` is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.as_raw_fd()) }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // SAFETY: the stream is not used after this.
        let stream = unsafe { ManuallyDrop::take(&mut self.stream) };
        if self.waits.get() == 0 {
            // The runtime's own close is two queue entries and an allocation; without a wait in flight a plain close(2) does.
            // SAFETY: into_raw_fd hands the ownership over.
            drop(unsafe { OwnedFd::from_raw_fd(stream.into_raw_fd()) });
        }
        // Else the runtime closes it when the kernel has let go of the operation.
    }
}

pin_project! {
    /// A wait for readiness.
    struct Ready<'a, F> {
        socket: &'a Socket,
        #[pin]
        wait: F,
    }
}

impl<'a, F> Ready<'a, F> {
    #[inline]
    fn new(socket: &'a Socket, wait: F) -> Self {
        socket.begin_wait();
        Self { socket, wait }
    }
}

impl<F: Future<Output = io::Result<()>>> Future for Ready<'_, F> {
    type Output = io::Result<()>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        let at_once = &this.socket.ready_at_once;
        if at_once.get() == TURN_WAITS_MAX {
            at_once.set(0);
            // A task that wakes itself is run again before all others; one that is woken by another goes behind them.
            let waker = cx.waker().clone();
            monoio::spawn(async move { waker.wake() });
            return Poll::Pending;
        }
        let polled = this.wait.poll(cx);
        if polled.is_ready() {
            at_once.set(at_once.get() + 1);
            this.socket.end_wait();
        } else {
            at_once.set(0);
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    use monoio::{LegacyDriver, RuntimeBuilder};

    use super::*;

    #[test]
    fn a_receive_takes_what_there_is_room_for_and_no_more_than_told() {
        let runtime = RuntimeBuilder::<LegacyDriver>::new().build();
        runtime.expect("a runtime").block_on(async {
            let (ours, mut theirs) = UnixStream::pair().expect("a pair of sockets");
            let socket = Socket::new(ours.into()).expect("a socket");
            theirs.write_all(b"0123456789").expect("room");
            let mut buffer = Vec::with_capacity(8);
            buffer.push(b'>');
            let received = [3, usize::MAX].map(|max| socket.try_recv(&mut buffer, max).ok());
            assert_eq!(
                (received, &buffer[..]),
                ([Some(3), Some(4)], &b">0123456"[..])
            );
        });
    }
}
