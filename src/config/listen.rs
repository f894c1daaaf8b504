//! Listeners, the status listener, and the socket options that listeners and upstreams share.

use std::net::{Ipv6Addr, SocketAddr};

use toml::Spanned;

use super::complaint::{Complaints, Flaw, Seen};
use super::reader::Reader;
use super::{Admin, Listen, Tcp, address, token};

/// Bytes of an algorithm's name, without the closing NUL (`TCP_CA_NAME_MAX`, linux/tcp.h).
const CONGESTION_BYTES_MAX: usize = 15;

/// All listeners with a good address, each with the place of its address.
pub(super) fn listens(root: &Reader<'_>, complaints: &Complaints<'_>) -> Vec<Spanned<Listen>> {
    let tables = root.tables("listen");
    if root.lacks("listen") {
        let flaw = Flaw::new("there is no [[listen]]: clients have nowhere to connect");
        complaints.file_error(flaw.help("add [[listen]] with address = \"0.0.0.0:8080\""));
    }
    let listens: Vec<_> = tables.iter().filter_map(listen).collect();
    let mut seen = Seen::new();
    // The kernel gives each port 0 a port of its own.
    for listen in listens
        .iter()
        .filter(|listen| listen.get_ref().address.port() != 0)
    {
        if let Some(first) = seen.note(listen.get_ref().address, &listen.span()) {
            let line = complaints.line(&first);
            let flaw = Flaw::new(format!(
                "`{}` is listened on already, see line {line}",
                listen.get_ref().address
            ));
            complaints.error(&listen.span(), flaw);
        }
    }
    listens
}

fn listen(table: &Reader<'_>) -> Option<Spanned<Listen>> {
    // Every key is read before the address may end this, so that all complaints come at once.
    let address = table.parsed("address", address::listener);
    let backlog = table.number("backlog") as u32;
    let defer_accept = table.duration_or_word("defer_accept");
    let fast_open = table.number_or_word("fast_open").map(|queue| queue as u32);
    let tcp = tcp(table);
    let listen = Listen {
        address: address?,
        backlog,
        defer_accept,
        fast_open,
        tcp,
    };
    Some(Spanned::new(table.span_of("address"), listen))
}

/// The socket options that listeners and upstreams share.
pub(super) fn tcp(table: &Reader<'_>) -> Tcp {
    Tcp {
        tcp_keepalive: table.duration_or_word("tcp_keepalive"),
        tcp_user_timeout: table.duration_or_word("tcp_user_timeout"),
        busy_poll_us: table
            .number_or_word("busy_poll_us")
            .map(|microseconds| microseconds as u32),
        recv_buffer: table
            .size_or_word("recv_buffer")
            .map(|bytes| bytes as usize),
        send_buffer: table
            .size_or_word("send_buffer")
            .map(|bytes| bytes as usize),
        congestion: table.parsed("congestion", congestion),
    }
}

fn congestion(text: &str) -> Result<String, Flaw> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if (1..=CONGESTION_BYTES_MAX).contains(&text.len()) && text.bytes().all(good) {
        return Ok(text.to_owned());
    }
    let hint =
        "`sysctl net.ipv4.tcp_available_congestion_control` lists those that this kernel has";
    Err(Flaw::new(format!(
        "`{text}` cannot be the name of a congestion control algorithm"
    ))
    .help(hint))
}

/// The status listener; `None` when it is off or its address is wrong.
pub(super) fn admin(
    table: &Reader<'_>,
    listens: &[Spanned<Listen>],
    complaints: &Complaints<'_>,
) -> Option<Admin> {
    let enabled = table.flag("enabled");
    let token = token::token(table, complaints);
    let orders = table.flag("orders");
    let idle = match (enabled, orders) {
        (false, _) => Some("enabled"),
        (true, false) => Some("orders"),
        (true, true) => None,
    };
    for key in ["orders", "token", "token_file"] {
        if let Some(why) = idle.filter(|why| *why != key && table.changes(key)) {
            let flaw = Flaw::new(format!("{key} never acts: {why} = false in [admin]"));
            complaints.warning(&table.span_of(key), flaw);
        }
    }
    let address = table.parsed("address", address::listener)?;
    if !enabled {
        if table.changes("address") {
            let flaw = Flaw::new("address never acts: enabled = false in [admin]");
            complaints.warning(&table.span_of("address"), flaw);
        }
        return None;
    }
    // The complaint stands at the listener: the status page's address may be the default, which has no line.
    for listen in listens
        .iter()
        .filter(|listen| overlap(listen.get_ref().address, address))
    {
        let flaw = Flaw::new(format!("the status page listens on `{address}` already"));
        let hint = "give [admin] or this listener another port, or set enabled = false in [admin]";
        complaints.error(&listen.span(), flaw.help(hint));
    }
    let is_local = address.ip().is_loopback();
    let has_token = ["token", "token_file"].iter().any(|key| table.changes(key));
    if !is_local && orders && !has_token {
        let flaw = Flaw::new(format!(
            "other machines could give orders at `{address}`, without a token"
        ));
        let hint = "give [admin] a token_file, listen on 127.0.0.1 or [::1], or set orders = false";
        complaints.error(&table.span_of("address"), flaw.help(hint));
    } else if !is_local {
        let over = if address.ip() == Ipv6Addr::UNSPECIFIED {
            "over IPv6 alone and "
        } else {
            ""
        };
        let flaw = Flaw::new(format!(
            "`{address}` shows the status page to other machines, {over}without a password"
        ));
        let hint = "listen on 127.0.0.1 or [::1], or keep others out with a firewall";
        complaints.warning(&table.span_of("address"), flaw.help(hint));
    }
    Some(Admin {
        address,
        orders,
        token,
    })
}

/// Whether the second of two sockets without a common `SO_REUSEPORT` could not bind.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let same_family = one.is_ipv4() == other.is_ipv4();
    let any = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && same_family && (any || one.ip() == other.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_addresses() {
        let cases = [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("[::1]:80", "[::]:80", true),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("0.0.0.0:80", "[::1]:80", false),
        ];
        for (one, other, expected) in cases {
            let parse = |text: &str| text.parse().expect("an address of the table");
            assert_eq!(overlap(parse(one), parse(other)), expected, "{one} {other}");
        }
    }

    #[test]
    fn congestion_names() {
        let cases = [
            ("bbr", true),
            ("cubic", true),
            ("a2_b-c", true),
            ("", false),
            ("a b", false),
            ("sixteen_bytes_xx", false),
        ];
        for (text, good) in cases {
            assert_eq!(congestion(text).is_ok(), good, "{text:?}");
        }
    }
}
