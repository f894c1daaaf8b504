//! What arrives at sockets that are waited for again and again.
//!
//! A wait for readiness on the ring is an operation each time: queued, armed, completed. A client that is waited for again and again is
//! entered here once (edge-triggered, epoll(7)), and the ring waits for all such clients together, once a loop turn.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use super::deadline::{Arrived, Deadline, Deadlines};
use super::socket::Socket;

/// Arrivals that are told of at once.
const EVENTS_MAX: usize = 256;

/// A shard's sockets at which something may arrive.
pub struct Arrivals {
    // Not a socket, but waited for like one.
    epoll: Socket,
    deadlines: Rc<Deadlines>,
}

impl Arrivals {
    /// None so far. They are told of to the tasks that have deadlines among `deadlines`.
    ///
    /// # Errors
    ///
    /// Descriptors or memory are short.
    pub fn new(deadlines: &Rc<Deadlines>) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self {
            epoll: Socket::new(epoll)?,
            deadlines: Rc::clone(deadlines),
        })
    }

    /// Enters a socket until it is closed: [`Deadline::arrival`] of its task hears of what has arrived and of what will.
    ///
    /// # Errors
    ///
    /// Memory is short, or the user's `fs.epoll.max_user_watches` are used up.
    pub fn enter(&self, socket: &Socket, deadline: &Deadline) -> io::Result<()> {
        let data = epoll::EventData::new_u64(deadline.key());
        let flags = epoll::EventFlags::IN
            | epoll::EventFlags::PRI
            | epoll::EventFlags::RDHUP
            | epoll::EventFlags::ET;
        Ok(epoll::add(&self.epoll, socket, data, flags)?)
    }

    /// Takes a socket out again.
    pub fn leave(&self, socket: &Socket) {
        // It is there: it has been entered, and is open.
        let _ = epoll::delete(&self.epoll, socket);
    }

    /// Tells of what arrives, for as long as the shard runs.
    pub async fn run(self: Rc<Self>) {
        let pause = Deadline::new(&self.deadlines, None);
        loop {
            match self.epoll.readable().await {
                Ok(()) => self.tell(),
                // Memory is short. What has arrived stays told of until it is fetched.
                Err(_) => pause.next_turn().await,
            }
        }
    }

    fn tell(&self) {
        let mut room = [MaybeUninit::uninit(); EVENTS_MAX];
        loop {
            let events = match epoll::wait(&self.epoll, &mut room, Some(&Timespec::default())) {
                Ok((events, _)) => events,
                Err(Errno::INTR) => continue,
                Err(_) => return,
            };
            for event in &*events {
                let epoll::Event { flags, data } = *event;
                self.deadlines.arrived(data.u64(), meaning(flags));
            }
            if events.len() < EVENTS_MAX {
                return;
            }
        }
    }
}

/// The peer has ended its side.
const ENDED: epoll::EventFlags = epoll::EventFlags::RDHUP.union(epoll::EventFlags::HUP);

fn meaning(flags: epoll::EventFlags) -> Arrived {
    if flags.intersects(ENDED) {
        Arrived::End
    } else if flags.contains(epoll::EventFlags::PRI) {
        Arrived::Urgent
    } else {
        Arrived::Bytes
    }
}

impl AsRawFd for Arrivals {
    fn as_raw_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use monoio::{LegacyDriver, RuntimeBuilder};

    use super::*;

    /// A socket that is entered, its task's deadlines, and its peer.
    fn entered(arrivals: &Arrivals) -> (Deadline, Socket, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let socket = Socket::new(ours.into()).expect("a socket");
        let deadline = Deadline::new(&arrivals.deadlines, None);
        arrivals.enter(&socket, &deadline).expect("room for one");
        (deadline, socket, theirs)
    }

    fn is_told(deadline: &Deadline) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        pin!(deadline.arrival()).poll(&mut context).is_ready()
    }

    fn receive(socket: &Socket) -> usize {
        socket
            .try_recv(&mut Vec::with_capacity(64), usize::MAX)
            .expect("something to receive")
    }

    fn run(test: impl FnOnce(&Arrivals)) {
        let runtime = RuntimeBuilder::<LegacyDriver>::new().build();
        runtime.expect("a runtime").block_on(async {
            let arrivals = Arrivals::new(&Rc::default()).expect("a descriptor");
            test(&arrivals);
        });
    }

    #[test]
    fn each_arrival_is_told_of_once() {
        run(|arrivals| {
            let (deadline, socket, mut peer) = entered(arrivals);
            let (other, _other_socket, _other_peer) = entered(arrivals);
            for _ in 0..3 {
                arrivals.tell();
                assert!(!is_told(&deadline), "nothing has come");
                peer.write_all(b"a").expect("room");
                arrivals.tell();
                assert!(is_told(&deadline) && !is_told(&deadline));
                assert_eq!(receive(&socket), 1);
            }
            assert!(!is_told(&other));
        });
    }

    #[test]
    fn what_had_arrived_before_is_told_of() {
        run(|arrivals| {
            let (ours, mut theirs) = UnixStream::pair().expect("a pair of sockets");
            theirs.write_all(b"a").expect("room");
            let socket = Socket::new(ours.into()).expect("a socket");
            let deadline = Deadline::new(&arrivals.deadlines, None);
            arrivals.enter(&socket, &deadline).expect("room for one");
            arrivals.tell();
            assert!(is_told(&deadline));
        });
    }

    #[test]
    fn an_end_that_came_with_bytes_is_not_forgotten() {
        run(|arrivals| {
            let (deadline, socket, mut peer) = entered(arrivals);
            peer.write_all(b"a").expect("room");
            peer.shutdown(Shutdown::Write).expect("it is open");
            arrivals.tell();
            assert!(is_told(&deadline));
            assert_eq!(receive(&socket), 1);
            arrivals.tell();
            assert!(is_told(&deadline), "the end is still to be received");
            assert_eq!(receive(&socket), 0);
            let mut rest = Vec::new();
            drop(socket);
            peer.read_to_end(&mut rest).expect("an end");
        });
    }

    #[test]
    fn the_next_task_does_not_hear_of_the_last_ones_socket() {
        run(|arrivals| {
            let (deadline, socket, mut peer) = entered(arrivals);
            drop(deadline);
            let next = Deadline::new(&arrivals.deadlines, None);
            peer.write_all(b"a").expect("room");
            arrivals.tell();
            assert!(!is_told(&next));
            drop(socket);
        });
    }

    #[test]
    fn more_than_one_fetch_brings_is_told_of() {
        run(|arrivals| {
            let all: Vec<_> = (0..=EVENTS_MAX).map(|_| entered(arrivals)).collect();
            for (_, _, peer) in &all {
                (&*peer).write_all(b"a").expect("room");
            }
            arrivals.tell();
            assert!(all.iter().all(|(deadline, ..)| is_told(deadline)));
        });
    }
}
