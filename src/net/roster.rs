//! Which sockets a shard's tasks have open, for when the shard dies: then the tasks never run again, and somebody else must close them.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Deref;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;

use super::socket::Socket;

/// The descriptors of open sockets.
#[derive(Debug, Default)]
pub struct Roster {
    open: RefCell<BTreeSet<RawFd>>,
}

impl Roster {
    /// Enters a socket, which stays on the roster for as long as it is open.
    pub fn enter(self: &Rc<Self>, socket: Socket) -> Listed {
        let fd = socket.as_raw_fd();
        self.open.borrow_mut().insert(fd);
        let entry = Entry {
            roster: Rc::clone(self),
            fd,
        };
        Listed {
            _entry: entry,
            socket,
        }
    }

    /// Those on it now.
    pub fn descriptors(&self) -> Vec<RawFd> {
        self.open.borrow().iter().copied().collect()
    }
}

/// A socket on its shard's roster.
#[derive(Debug)]
pub struct Listed {
    // Before the socket, so that it is dropped first: once that is closed, its number may be another's.
    _entry: Entry,
    socket: Socket,
}

impl Deref for Listed {
    type Target = Socket;

    #[inline]
    fn deref(&self) -> &Socket {
        &self.socket
    }
}

#[derive(Debug)]
struct Entry {
    roster: Rc<Roster>,
    fd: RawFd,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.roster.open.borrow_mut().remove(&self.fd);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_socket_is_listed_while_it_is_open() {
        let roster = Rc::<Roster>::default();
        let mut runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let (one, other) = UnixStream::pair().expect("a pair");
            let enter = |stream: UnixStream| {
                let socket = Socket::new(stream.into()).expect("a socket");
                roster.enter(socket)
            };
            let (one, other) = (enter(one), enter(other));
            let mut both = vec![one.as_raw_fd(), other.as_raw_fd()];
            both.sort_unstable();
            assert_eq!(roster.descriptors(), both);
            drop(one);
            assert_eq!(roster.descriptors(), [other.as_raw_fd()]);
        });
    }
}
