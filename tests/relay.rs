//! The byte relay over real sockets.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};

use ringlane::{origin, relay};

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

#[test]
fn a_relay_passes_bytes_and_ends_both_ways() {
    let origins = ["a", "b"]
        .map(|name| origin::spawn(ANY_PORT, name.to_owned(), None).expect("an origin"))
        .to_vec();
    let relay = relay::spawn(ANY_PORT, origins, None).expect("a relay");
    for name in ["a", "b", "a"] {
        let mut stream = TcpStream::connect(relay).expect("a connection");
        // The half-closed client's answer still arrives, and then the origin's end does.
        stream
            .write_all(b"GET /bytes/300000 HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n")
            .expect("requests sent");
        stream.shutdown(Shutdown::Write).expect("a half close");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("the answers");
        assert!(answer.len() > 300_000);
        assert!(
            answer.ends_with(&format!("hello from {name}\n")),
            "{}",
            answer.len()
        );
    }
}

#[test]
fn a_relay_to_nobody_closes() {
    let closed = TcpListener::bind(ANY_PORT)
        .expect("a port")
        .local_addr()
        .expect("its address");
    let relay = relay::spawn(ANY_PORT, vec![closed], None).expect("a relay");
    let mut stream = TcpStream::connect(relay).expect("a connection");
    assert_eq!(
        stream.read(&mut [0; 16]).unwrap_or(0),
        0,
        "an end or a reset"
    );
}
