//! One connection, seen as bytes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use super::PATIENCE;

/// How a peer ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// FIN.
    Close,
    /// RST.
    Reset,
}

/// A blocking socket with what was received but not asked for yet. Every wait ends after [`PATIENCE`].
pub(crate) struct Wire {
    socket: Socket,
    unread: Vec<u8>,
    end: Option<End>,
}

impl Wire {
    #[track_caller]
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::connect_to(&address.into())
            .unwrap_or_else(|error| panic!("connect to {address}: {error}"))
    }

    /// A client whose receive buffer is small, so that its kernel acknowledges little ahead of it.
    pub(crate) fn connect_narrow(address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a socket option");
        socket.connect(&address.into()).expect("the proxy listens");
        Self::new(socket)
    }

    #[track_caller]
    pub(crate) fn connect_unix(path: &Path) -> Self {
        let address = SockAddr::unix(path).expect("a path short enough for a socket");
        Self::connect_to(&address)
            .unwrap_or_else(|error| panic!("connect to {}: {error}", path.display()))
    }

    pub(crate) fn connect_to(address: &SockAddr) -> io::Result<Self> {
        let socket = Socket::new(address.domain(), Type::STREAM, None)?;
        socket.connect_timeout(address, PATIENCE)?;
        Ok(Self::new(socket))
    }

    pub(crate) fn new(socket: Socket) -> Self {
        let is_unix = socket
            .local_addr()
            .is_ok_and(|address| address.domain() == Domain::UNIX);
        if !is_unix {
            socket.set_tcp_nodelay(true).ok(); // fails where the peer is gone already, which a read will tell
        }
        Self {
            socket,
            unread: Vec::new(),
            end: None,
        }
    }

    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the peer takes what is sent");
    }

    /// For peers that may have gone.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.socket.set_write_timeout(Some(PATIENCE))?;
        (&self.socket).write_all(bytes.as_ref())
    }

    /// Sends byte by byte, each in a segment of its own.
    #[track_caller]
    pub(crate) fn dribble(&mut self, bytes: impl AsRef<[u8]>) {
        for byte in bytes.as_ref() {
            self.send([*byte]);
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Sends without waiting until the peer has taken nothing for `quiet`; returns the number of bytes taken.
    pub(crate) fn send_until_full(
        &mut self,
        chunk: &[u8],
        quiet: Duration,
        at_most: usize,
    ) -> usize {
        self.socket
            .set_write_timeout(Some(quiet))
            .expect("a socket option");
        let mut sent = 0;
        while sent < at_most {
            match (&self.socket).write(chunk) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("after {sent} bytes: {error}"),
            }
        }
        sent
    }

    /// Closes the sending half.
    pub(crate) fn finish_sending(&mut self) {
        self.socket.shutdown(Shutdown::Write).ok();
    }

    /// Closes with RST.
    pub(crate) fn reset(self) {
        self.socket
            .set_linger(Some(Duration::ZERO))
            .expect("a socket option");
    }

    /// Receives once more, waiting for at most `patience`; `Ok(false)` at the end.
    pub(crate) fn receive_within(&mut self, patience: Duration) -> io::Result<bool> {
        if self.end.is_some() {
            return Ok(false);
        }
        let mut chunk = [0; 16 * 1024];
        self.socket
            .set_read_timeout(Some(patience.max(Duration::from_millis(1))))?;
        match uninterrupted(|| (&self.socket).read(&mut chunk)) {
            Ok(0) => self.end = Some(End::Close),
            Ok(count) => self.unread.extend_from_slice(&chunk[..count]),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
                ) =>
            {
                self.end = Some(End::Reset);
            }
            Err(error) => return Err(error),
        }
        Ok(self.end.is_none())
    }

    /// Receives once more; an error tells what was awaited and what had come.
    pub(crate) fn receive(&mut self, awaited: &str) -> Result<(), String> {
        match self.receive_within(PATIENCE) {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!(
                "{:?} while waiting for {awaited}; unread: {}",
                self.end,
                self.show()
            )),
            Err(error) => Err(format!(
                "{error} while waiting for {awaited}; unread: {}",
                self.show()
            )),
        }
    }

    /// What has been received and not been asked for.
    pub(crate) fn unread(&self) -> &[u8] {
        &self.unread
    }

    fn show(&self) -> String {
        self.unread[..self.unread.len().min(2000)]
            .escape_ascii()
            .to_string()
    }

    /// Takes bytes up to and with `end`.
    pub(crate) fn take_until(&mut self, end: &[u8]) -> Result<Vec<u8>, String> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.unread[searched..]
                .windows(end.len())
                .position(|window| window == end)
            {
                return Ok(self.unread.drain(..searched + at + end.len()).collect());
            }
            searched = (self.unread.len() + 1).saturating_sub(end.len());
            self.receive(&format!("{:?}", end.escape_ascii().to_string()))?;
        }
    }

    /// Takes exactly `count` bytes.
    pub(crate) fn take(&mut self, count: usize) -> Result<Vec<u8>, String> {
        while self.unread.len() < count {
            self.receive(&format!("{count} bytes"))?;
        }
        Ok(self.unread.drain(..count).collect())
    }

    #[track_caller]
    pub(crate) fn read_until(&mut self, end: &[u8]) -> Vec<u8> {
        self.take_until(end)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    #[track_caller]
    pub(crate) fn read(&mut self, count: usize) -> Vec<u8> {
        self.take(count).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Asserts that exactly these bytes come next.
    #[track_caller]
    pub(crate) fn expect(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        let got = self.read(bytes.len());
        assert_eq!(
            got.escape_ascii().to_string(),
            bytes.escape_ascii().to_string()
        );
    }

    /// Receives to the end; what came, and how it ended.
    #[track_caller]
    pub(crate) fn read_to_end(&mut self) -> (Vec<u8>, End) {
        loop {
            match self.receive_within(PATIENCE) {
                Ok(true) => {}
                Ok(false) => {
                    return (
                        std::mem::take(&mut self.unread),
                        self.end.expect("it ended"),
                    );
                }
                Err(error) => panic!("{error} while waiting for the end; unread: {}", self.show()),
            }
        }
    }

    /// Asserts that the peer closes in good order, and sends nothing before.
    #[track_caller]
    pub(crate) fn expect_close(&mut self) {
        let (rest, end) = self.read_to_end();
        assert_eq!(
            (rest.escape_ascii().to_string().as_str(), end),
            ("", End::Close)
        );
    }

    /// Asserts that the connection ends, in whatever way, without further bytes.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        let (rest, _) = self.read_to_end();
        assert_eq!(rest.escape_ascii().to_string(), "");
    }

    /// Asserts that neither bytes nor the end come for a while.
    #[track_caller]
    pub(crate) fn expect_silence(&mut self, duration: Duration) {
        let outcome = self.receive_within(duration);
        let silent = outcome
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        assert!(
            silent && self.unread.is_empty(),
            "expected silence, got {outcome:?}, {:?} and {}",
            self.end,
            self.show()
        );
    }

    /// Receives and drops `count` bytes, without keeping them; for large bodies.
    #[track_caller]
    pub(crate) fn skip(&mut self, count: u64) {
        let held = count.min(self.unread.len() as u64);
        self.unread.drain(..held as usize);
        let mut left = count - held;
        let mut chunk = vec![0; 1024 * 1024];
        self.socket
            .set_read_timeout(Some(PATIENCE))
            .expect("a socket option");
        while left > 0 {
            let most = left.min(chunk.len() as u64) as usize;
            match uninterrupted(|| (&self.socket).read(&mut chunk[..most])) {
                Ok(0) => panic!("closed {left} bytes before the end"),
                Ok(count) => left -= count as u64,
                Err(error) => panic!("{error}, {left} bytes before the end"),
            }
        }
    }

    /// Waits until the peer has ended the connection, without reading what it may have sent before.
    #[track_caller]
    pub(crate) fn expect_end_within(&mut self, patience: Duration) -> End {
        let start = Instant::now();
        loop {
            let left = patience.saturating_sub(start.elapsed());
            match self.receive_within(left) {
                Ok(true) => {}
                Ok(false) => return self.end.expect("it ended"),
                Err(error) => panic!("no end within {patience:?} ({error})"),
            }
        }
    }
}

/// Calls again what a signal interrupts: with a timeout the kernel does not do so by itself (signal(7)).
fn uninterrupted(mut read: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match read() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
