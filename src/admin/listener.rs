//! Sockets and threads of the status listener.
//!
//! One thread accepts; each connection has a thread of its own, up to a limit, so that a slow or hostile client delays
//! nobody else. Beyond the limit the answer is 503.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use socket2::SockRef;

use super::connection::{Limits, Server};
use super::http::{Answer, HEAD_BYTES_MAX, Request};
use crate::net::listener::unbound;

/// A connection's thread needs little: the pages are on the heap.
const STACK_BYTES: usize = 256 * 1024;
/// A pause after a failed accept, for descriptors may be short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections that may wait for the accepting thread.
const BACKLOG: i32 = 128;

/// Opens the socket. The error names the address.
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let open = || {
        let socket = unbound(address)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    open().map_err(|error: io::Error| {
        io::Error::new(error.kind(), format!("admin listener {address}: {error}"))
    })
}

/// A listener that answers with what its handler returns. Dropping it closes the socket; running answers go on.
pub(super) struct Listener {
    address: SocketAddr,
    socket: Arc<TcpListener>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    pub(super) fn start<H>(socket: TcpListener, limits: Limits, handler: H) -> io::Result<Self>
    where
        H: Fn(&Request) -> Answer + Send + Sync + 'static,
    {
        let address = socket.local_addr()?;
        let socket = Arc::new(socket);
        let stopping = Arc::new(AtomicBool::new(false));
        let acceptor = Acceptor {
            socket: Arc::clone(&socket),
            stopping: Arc::clone(&stopping),
            slots: Arc::new(Server {
                handler,
                limits,
                loopback: address.ip().is_loopback(),
            }),
        };
        let thread = thread::Builder::new()
            .name("admin".into())
            .spawn(move || acceptor.run())?;
        Ok(Self {
            address,
            socket,
            stopping,
            thread: Some(thread),
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stopping.store(true, Relaxed);
        // On Linux this makes a waiting accept(2) return.
        let woken = SockRef::from(&*self.socket).shutdown(Shutdown::Both);
        if let (Ok(()), Some(thread)) = (woken, self.thread.take()) {
            let _ = thread.join();
        }
    }
}

struct Acceptor<H> {
    socket: Arc<TcpListener>,
    stopping: Arc<AtomicBool>,
    /// One clone goes with each connection's thread, so the clones tell how many there are.
    slots: Arc<Server<H>>,
}

impl<H: Fn(&Request) -> Answer + Send + Sync + 'static> Acceptor<H> {
    fn run(&self) {
        while !self.stopping.load(Relaxed) {
            match self.socket.accept() {
                Ok((stream, _)) => self.serve(stream),
                Err(_) if self.stopping.load(Relaxed) => return,
                Err(error) => {
                    tracing::warn!("admin: cannot accept: {error}");
                    thread::sleep(ACCEPT_PAUSE);
                }
            }
        }
    }

    fn serve(&self, stream: TcpStream) {
        let server = Arc::clone(&self.slots);
        if Arc::strong_count(&server) > server.limits.connections + 1 {
            return refuse(&stream);
        }
        let thread = thread::Builder::new()
            .name("admin-client".into())
            .stack_size(STACK_BYTES);
        if let Err(error) = thread.spawn(move || server.serve(&stream)) {
            tracing::warn!("admin: cannot start a thread: {error}");
        }
    }
}

/// Answers 503 without waiting. A request that has come is read first, or closing would reset the connection.
fn refuse(mut stream: &TcpStream) {
    let answer = Answer::text(503, "too many connections to this listener\n");
    if stream.set_nonblocking(true).is_ok() {
        let _ = stream.read(&mut [0; HEAD_BYTES_MAX]);
        let _ = stream.write(&answer.to_bytes(false, SystemTime::now()));
        let _ = stream.shutdown(Shutdown::Write);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::time::Instant;

    use super::*;

    const REQUEST: &[u8] = b"GET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n";

    /// Enough connections that one which is closing is in nobody's way.
    fn quick() -> Limits {
        Limits {
            connections: 64,
            head_timeout: Duration::from_millis(300),
            write_timeout: Duration::from_millis(300),
            answer_timeout: Duration::from_millis(300),
            close_timeout: Duration::from_millis(300),
        }
    }

    fn start(limits: Limits) -> Listener {
        let handler = |request: &Request| match request.path.as_str() {
            "/panic" => panic!("provoked"),
            "/content" => Answer::text(200, String::from_utf8_lossy(&request.content)),
            "/huge" => Answer::text(200, "x".repeat(64 << 20)),
            path => Answer::text(200, path),
        };
        let socket = bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
        Listener::start(socket, limits, handler).expect("a thread")
    }

    fn connect(listener: &Listener) -> TcpStream {
        let stream = TcpStream::connect(listener.address()).expect("it listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("not zero");
        stream
    }

    fn exchange(listener: &Listener, request: &[u8]) -> String {
        let mut stream = connect(listener);
        stream.write_all(request).expect("it reads");
        rest(&mut stream)
    }

    fn rest(stream: &mut TcpStream) -> String {
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .expect("it ends without reset");
        answer
    }

    fn status(answer: &str) -> &str {
        answer.split(' ').nth(1).unwrap_or(answer)
    }

    #[test]
    fn heads_come_in_pieces_of_any_size() {
        let listener = start(Limits {
            head_timeout: Duration::from_secs(20),
            ..quick()
        });
        let mut stream = connect(&listener);
        for byte in REQUEST {
            stream.write_all(&[*byte]).expect("it reads");
        }
        assert!(rest(&mut stream).ends_with("\r\n\r\n/echo"));
    }

    #[test]
    fn a_panic_costs_one_answer() {
        let listener = start(quick());
        for _ in 0..5 {
            assert_eq!(
                status(&exchange(
                    &listener,
                    b"GET /panic HTTP/1.1\r\nHost: localhost\r\n\r\n"
                )),
                "500"
            );
        }
        assert_eq!(status(&exchange(&listener, REQUEST)), "200");
    }

    /// Waits until a connection that is to be given up frees its place.
    fn wait_for_a_place(listener: &Listener) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while status(&exchange(listener, REQUEST)) != "200" {
            assert!(Instant::now() < deadline, "the place is still taken");
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn clients_beyond_the_limit_get_503_until_the_others_time_out() {
        let head_timeout = Duration::from_secs(1);
        let listener = start(Limits {
            connections: 2,
            head_timeout,
            ..quick()
        });
        let mut silent = connect(&listener);
        let mut slow = connect(&listener);
        slow.write_all(b"GET ").expect("it reads");
        let start = Instant::now();
        let beyond = exchange(&listener, REQUEST);
        assert!(
            status(&beyond) == "503" || start.elapsed() > head_timeout,
            "{beyond}"
        );
        assert_eq!(status(&rest(&mut slow)), "408");
        assert_eq!(rest(&mut silent), "");
        wait_for_a_place(&listener);
    }

    #[test]
    fn a_client_that_does_not_read_loses_its_place() {
        let listener = start(Limits {
            connections: 1,
            ..quick()
        });
        let mut stream = connect(&listener);
        stream
            .write_all(b"GET /huge HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .expect("it reads");
        wait_for_a_place(&listener);
    }

    #[test]
    fn content_that_nobody_asked_for_does_not_cut_the_answer() {
        let listener = start(quick());
        let mut request =
            b"PUT /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 40000\r\n\r\n".to_vec();
        request.resize(request.len() + 40_000, b'x');
        assert!(exchange(&listener, &request).ends_with("/echo"));
    }

    #[test]
    fn the_content_of_a_post_is_read_whole() {
        let listener = start(quick());
        let head = "POST /content HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n";
        let whole = format!("{head}\r\nhello, and more");
        assert!(exchange(&listener, whole.as_bytes()).ends_with("\r\n\r\nhello"));

        let mut stream = connect(&listener);
        stream
            .write_all(format!("{head}Expect: 100-continue\r\n\r\n").as_bytes())
            .expect("it reads");
        let mut interim = [0; 25];
        stream.read_exact(&mut interim).expect("an interim answer");
        assert_eq!(interim.as_slice(), b"HTTP/1.1 100 Continue\r\n\r\n");
        for byte in b"hello" {
            stream.write_all(&[*byte]).expect("it reads");
        }
        assert!(rest(&mut stream).ends_with("\r\n\r\nhello"));

        let short = format!("{head}\r\nhell");
        assert_eq!(status(&exchange(&listener, short.as_bytes())), "408");
        let mut stream = connect(&listener);
        stream.write_all(short.as_bytes()).expect("it reads");
        stream.shutdown(Shutdown::Write).expect("open");
        assert_eq!(status(&rest(&mut stream)), "400");
    }

    #[test]
    fn a_head_that_ends_early_or_is_too_long_is_refused() {
        let listener = start(quick());
        let mut stream = connect(&listener);
        stream.write_all(b"GET / HTTP/1.1\r\n").expect("it reads");
        stream.shutdown(Shutdown::Write).expect("open");
        assert_eq!(status(&rest(&mut stream)), "400");
        let long = format!("GET / HTTP/1.1\r\na: {}", "b".repeat(HEAD_BYTES_MAX));
        assert_eq!(status(&exchange(&listener, long.as_bytes())), "431");
    }

    #[test]
    fn dropping_it_closes_the_socket() {
        let listener = start(quick());
        let address = listener.address();
        drop(listener);
        assert!(TcpStream::connect(address).is_err());
    }

    #[test]
    fn an_ipv6_address_leaves_the_port_to_ipv4() {
        let any: SocketAddr = (Ipv6Addr::UNSPECIFIED, 0).into();
        if TcpListener::bind(any).is_err() {
            // Not eprintln!: what that writes in a test that passes is never seen.
            let said = writeln!(io::stderr(), "admin: LEFT OUT, for there is no IPv6 here");
            said.expect("tests have a standard error");
            return;
        }
        // Another process may have the port of the other family.
        for _ in 0..20 {
            let any = bind(any).expect("a free port");
            let port = any.local_addr().expect("bound").port();
            if bind((Ipv4Addr::UNSPECIFIED, port).into()).is_ok() {
                return;
            }
        }
        panic!("no port is left to IPv4");
    }

    #[test]
    fn an_address_in_use_is_named() {
        let listener = start(quick());
        let error = bind(listener.address()).expect_err("in use");
        assert!(
            error.to_string().contains(&listener.address().to_string()),
            "{error}"
        );
    }
}
