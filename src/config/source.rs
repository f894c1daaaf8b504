//! Local addresses of connections to servers.

use std::net::IpAddr;

use super::complaint::{Complaints, Flaw, Seen};
use super::reader::Reader;
use super::{ServerAddress, Upstream, address};

/// The addresses of an upstream. That the machine has them shows at the start.
pub(super) fn sources(table: &Reader<'_>, complaints: &Complaints<'_>) -> Vec<IpAddr> {
    let mut seen = Seen::new();
    let mut sources = Vec::new();
    for text in table.texts("source") {
        let span = text.span();
        let Some(address) = complaints.check(&span, source(text.get_ref())) else {
            continue;
        };
        if let Some(first) = seen.note(address.to_string(), &span) {
            let line = complaints.line(&first);
            let flaw = Flaw::new(format!("`{address}` is a source already, see line {line}"));
            complaints.error(&span, flaw);
        }
        sources.push(address);
    }
    sources
}

fn source(text: &str) -> Result<IpAddr, Flaw> {
    let address: IpAddr = text.parse().map_err(|_| {
        let flaw = Flaw::new(format!("`{text}` is not an IP address"));
        flaw.help("write an address of this machine without port, such as \"10.0.0.1\"")
    })?;
    if address.is_unspecified() || address::is_of_many(address) {
        let flaw = Flaw::new(format!("connections cannot come from `{address}`"));
        return Err(flaw.help("without source the kernel chooses the address"));
    }
    Ok(address)
}

/// Complains about servers that no source can reach, and sources that reach no server.
pub(super) fn check(table: &Reader<'_>, upstream: &Upstream, complaints: &Complaints<'_>) {
    let (sources, servers) = (&upstream.sources, &upstream.servers);
    if sources.is_empty() || servers.is_empty() {
        return;
    }
    let span = table.span_of("source");
    if upstream.is_local() {
        let flaw = Flaw::new("source never acts: every server is a Unix socket");
        complaints.warning(&span, flaw);
        return;
    }
    for server in servers {
        let fits = |source: &IpAddr| fits(*source, &server.address);
        if !server.address.is_unix() && !sources.iter().any(fits) {
            let flaw = Flaw::new(format!(
                "no source is of the address family of server `{}`",
                server.name
            ));
            complaints.error(
                &span,
                flaw.help("add one, or an upstream of its own for it"),
            );
        }
    }
    for source in sources {
        if !servers.iter().any(|server| fits(*source, &server.address)) {
            let flaw = Flaw::new(format!(
                "source `{source}` never acts: no server is of its address family"
            ));
            complaints.error(&span, flaw);
        }
    }
}

/// Whether a connection from there to the server is thinkable. What a host name stands for is not known yet.
fn fits(source: IpAddr, server: &ServerAddress) -> bool {
    match server {
        ServerAddress::Socket(address) => address.is_ipv4() == source.is_ipv4(),
        ServerAddress::Name(..) => true,
        ServerAddress::Unix(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let cases = [
            ("127.0.0.2", true),
            ("::1", true),
            ("", false),
            ("localhost", false),
            ("127.0.0.1:80", false),
            ("10.0.0.0/8", false),
            ("0.0.0.0", false),
            ("::", false),
            ("224.0.0.1", false),
        ];
        for (text, good) in cases {
            assert_eq!(source(text).is_ok(), good, "{text:?}");
        }
    }
}
