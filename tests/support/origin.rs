//! Origins: one that a test drives by hand, step by step, and one that answers by itself.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use super::{PATIENCE, QUIET, Request, Wire};

/// A listening socket whose connections the test accepts and scripts.
pub(crate) struct Origin {
    socket: Socket,
    /// As the proxy's configuration wants it.
    pub(crate) address: String,
}

impl Origin {
    pub(crate) fn bind() -> Self {
        Self::bind_with_backlog("127.0.0.1:0", 1024)
    }

    /// One whose connections have small receive buffers: what it does not read soon stays with the proxy.
    pub(crate) fn bind_narrow() -> Self {
        let origin = Self::bind();
        let narrowed = origin.socket.set_recv_buffer_size(4096);
        narrowed.expect("a socket option");
        origin
    }

    pub(crate) fn bind_v6() -> Self {
        Self::bind_with_backlog("[::1]:0", 1024)
    }

    pub(crate) fn bind_with_backlog(address: &str, backlog: i32) -> Self {
        let address: SocketAddr = address.parse().expect("a socket address");
        let socket = listen(&address.into(), backlog);
        let bound = socket
            .local_addr()
            .ok()
            .and_then(|address| address.as_socket())
            .expect("a bound address");
        Self {
            socket,
            address: bound.to_string(),
        }
    }

    pub(crate) fn bind_unix(path: &Path) -> Self {
        Self::bind_unix_with_backlog(path, 1024)
    }

    /// One that has this many connections wait to be accepted, and one more.
    pub(crate) fn bind_unix_with_backlog(path: &Path, backlog: i32) -> Self {
        let socket = listen(&SockAddr::unix(path).expect("a short path"), backlog);
        Self {
            socket,
            address: format!("unix:{}", path.display()),
        }
    }

    /// An address where nothing listens, nor ever will: a socket that does not listen keeps the port until the test process ends.
    pub(crate) fn nowhere() -> String {
        Self::nowhere_at("127.0.0.1:0")
    }

    pub(crate) fn nowhere_v6() -> String {
        Self::nowhere_at("[::1]:0")
    }

    fn nowhere_at(address: &str) -> String {
        let address: SocketAddr = address.parse().expect("a socket address");
        let socket =
            Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
        socket.bind(&address.into()).expect("bind");
        let bound = socket
            .local_addr()
            .ok()
            .and_then(|address| address.as_socket())
            .expect("a bound address");
        std::mem::forget(socket);
        bound.to_string()
    }

    /// A listener whose queue is full: Linux drops each further SYN. The connections that fill it must live as long as that is to last.
    pub(crate) fn black_hole() -> (Self, Vec<Wire>) {
        let origin = Self::bind_with_backlog("127.0.0.1:0", 0);
        let fillers = origin.fill();
        (origin, fillers)
    }

    /// Makes it such a one.
    pub(crate) fn fill(&self) -> Vec<Wire> {
        let address: SocketAddr = self.address.parse().expect("an address");
        let mut fillers = Vec::new();
        loop {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            match socket.connect_timeout(&SockAddr::from(address), Duration::from_millis(200)) {
                Ok(()) => fillers.push(Wire::new(socket)),
                Err(_) => return fillers,
            }
        }
    }

    /// The next connection of the proxy.
    #[track_caller]
    pub(crate) fn accept(&self) -> Wire {
        self.accept_within(PATIENCE)
            .unwrap_or_else(|| panic!("no connection within {PATIENCE:?}"))
    }

    /// The other end of a tunnel that this client, which is connected to the proxy, asks for.
    #[track_caller]
    pub(crate) fn tunnel(&self, client: &mut Wire) -> Wire {
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
        let mut upstream = self.accept();
        upstream.request();
        upstream
            .send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
        assert_eq!(client.response("GET").status, 101);
        upstream
    }

    pub(crate) fn accept_within(&self, patience: Duration) -> Option<Wire> {
        self.socket
            .set_read_timeout(Some(patience))
            .expect("a socket option"); // accept(2) obeys SO_RCVTIMEO
        loop {
            match self.socket.accept() {
                Ok((socket, _)) => return Some(Wire::new(socket)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                // With a timeout accept(2) is not restarted after a stop and a continue (signal(7)).
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("accept: {error}"),
            }
        }
    }

    /// Asserts that nobody connects for a while.
    #[track_caller]
    pub(crate) fn expect_nobody(&self) {
        if let Some(mut wire) = self.accept_within(QUIET) {
            wire.receive_within(QUIET).ok();
            panic!(
                "an unexpected connection with {}",
                wire.unread().escape_ascii()
            );
        }
    }

    /// Answers each request with what `answer` makes of it, each connection in a thread of its own.
    pub(crate) fn serve(
        self,
        answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static,
    ) -> Served {
        let served = Served {
            address: self.address.clone(),
            record: Arc::default(),
        };
        let record = Arc::clone(&served.record);
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            while !record.stop.load(Ordering::Relaxed) {
                let Some(wire) = self.accept_within(Duration::from_millis(50)) else {
                    continue;
                };
                record.connections.fetch_add(1, Ordering::Relaxed);
                let (record, answer) = (Arc::clone(&record), Arc::clone(&answer));
                std::thread::spawn(move || record.converse(wire, &*answer));
            }
        });
        served
    }

    /// Answers each request with 200 and this body.
    pub(crate) fn serve_text(body: &'static str) -> Served {
        Self::bind().serve(move |_| super::ok(body))
    }
}

fn listen(address: &SockAddr, backlog: i32) -> Socket {
    let socket = Socket::new(address.domain(), Type::STREAM, None).expect("a socket");
    if address.domain() != Domain::UNIX {
        socket.set_reuse_address(true).expect("a socket option");
    }
    socket.bind(address).expect("bind");
    socket.listen(backlog).expect("listen");
    socket
}

/// An origin that answers by itself. It fails its test at the end if the proxy sent it anything but clean requests.
pub(crate) struct Served {
    pub(crate) address: String,
    record: Arc<Record>,
}

#[derive(Default)]
struct Record {
    stop: AtomicBool,
    connections: AtomicUsize,
    requests: Mutex<Vec<Request>>,
    complaints: Mutex<Vec<String>>,
}

impl Record {
    fn converse(&self, mut wire: Wire, answer: &dyn Fn(&Request) -> Vec<u8>) {
        while self.wait_for_request(&mut wire) {
            match Request::read(&mut wire) {
                Ok(request) => {
                    let answered = catch_unwind(AssertUnwindSafe(|| answer(&request)));
                    let Ok(response) = answered else {
                        // To the proxy this is a server that closes, which may be just what the test expects.
                        return self.complain(format!("no answer to {request:?}"));
                    };
                    self.requests.lock().expect("a whole record").push(request);
                    let failed = wire.try_send(&response).is_err();
                    if failed || response.is_empty() || is_last(&response) {
                        return;
                    }
                }
                Err(complaint) => return self.complain(complaint),
            }
        }
    }

    fn complain(&self, complaint: String) {
        let mut complaints = self.complaints.lock().expect("a whole record");
        complaints.push(complaint);
    }

    fn wait_for_request(&self, wire: &mut Wire) -> bool {
        while wire.unread().is_empty() {
            match wire.receive_within(Duration::from_millis(50)) {
                Ok(more) if !more => return false,
                Err(_) if self.stop.load(Ordering::Relaxed) => return false,
                _ => {}
            }
        }
        true
    }
}

/// Whether this response ends its connection.
fn is_last(response: &[u8]) -> bool {
    let head = String::from_utf8_lossy(&response[..response.len().min(4096)]).to_ascii_lowercase();
    head.contains("connection: close\r\n")
}

impl Served {
    pub(crate) fn connections(&self) -> usize {
        self.record.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.record.requests.lock().expect("a whole record").clone()
    }

    pub(crate) fn targets(&self) -> Vec<String> {
        self.requests()
            .into_iter()
            .map(|request| request.target)
            .collect()
    }

    /// The only request so far.
    #[track_caller]
    pub(crate) fn only_request(&self) -> Request {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "requests: {requests:?}");
        requests.remove(0)
    }

    #[track_caller]
    pub(crate) fn last_request(&self) -> Request {
        self.requests().pop().expect("a request")
    }

    /// What was wrong with what came in; asking forgives it.
    pub(crate) fn take_complaints(&self) -> Vec<String> {
        std::mem::take(&mut *self.record.complaints.lock().expect("a whole record"))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.record.stop.store(true, Ordering::Relaxed);
        let complaints = self.take_complaints();
        if !std::thread::panicking() {
            assert!(complaints.is_empty(), "the origin got: {complaints:?}");
        }
    }
}
