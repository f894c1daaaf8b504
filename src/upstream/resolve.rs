//! Host names of servers, resolved by a thread of their own: getaddrinfo(3) blocks.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::place::{Place, Places};
use crate::config::{Config, ServerAddress};
use crate::net::connect::Address;

#[derive(Debug)]
struct Name {
    place: usize,
    host: String,
    port: u16,
    every: Option<Duration>,
    due: Instant,
}

/// Fills in the addresses that need no resolving, resolves the others once, and goes on resolving those whose upstream asks for it.
pub fn start(config: &Config) -> std::io::Result<Places> {
    let servers = || {
        config.upstreams.iter().flat_map(|upstream| {
            upstream
                .servers
                .iter()
                .map(move |server| (upstream, server))
        })
    };
    let places: Places = servers().map(|_| Place::default()).collect();
    let mut names = Vec::new();
    for (index, (upstream, server)) in servers().enumerate() {
        match &server.address {
            ServerAddress::Socket(address) => {
                places[index].set(vec![Address::Socket(*address)]);
            }
            ServerAddress::Unix(path) => {
                places[index].set(vec![Address::Unix(path.clone())]);
            }
            ServerAddress::Name(host, port) => {
                names.push(Name {
                    place: index,
                    host: host.clone(),
                    port: *port,
                    every: upstream.resolve,
                    due: Instant::now(),
                });
            }
        }
    }
    for name in &mut names {
        name.resolve(&places);
    }
    names.retain(|name| name.every.is_some() || places[name.place].get().is_none());
    if !names.is_empty() {
        let places = Arc::clone(&places);
        std::thread::Builder::new()
            .name("resolver".to_owned())
            .spawn(move || run(names, &places))?;
    }
    Ok(places)
}

impl Name {
    /// How soon a name that could not be resolved is tried again.
    const RETRY: Duration = Duration::from_secs(5);

    fn resolve(&mut self, places: &Places) {
        let answer = (self.host.as_str(), self.port)
            .to_socket_addrs()
            .map(each_once);
        match answer {
            Ok(addresses) if !addresses.is_empty() => {
                let text = format!("{addresses:?}");
                let addresses = addresses.into_iter().map(Address::Socket);
                if places[self.place].set(addresses.collect()) {
                    tracing::info!(host = %self.host, addresses = %text, "resolved");
                }
                self.due = Instant::now() + self.every.unwrap_or(Self::RETRY);
            }
            Ok(_) => self.failed("no addresses"),
            Err(error) => self.failed(&error.to_string()),
        }
    }

    /// The last known addresses stay in use.
    fn failed(&mut self, why: &str) {
        tracing::warn!(host = %self.host, error = why, "cannot be resolved; trying again");
        self.due = Instant::now() + Self::RETRY;
    }
}

/// getaddrinfo(3) gives an address once for each line of hosts(5) that has it; tried again at once it would fail again.
fn each_once(answer: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for address in answer {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

fn run(mut names: Vec<Name>, places: &Places) {
    while !names.is_empty() {
        let next = names
            .iter()
            .map(|name| name.due)
            .min()
            .unwrap_or_else(Instant::now);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        for name in names.iter_mut().filter(|name| name.due <= Instant::now()) {
            name.resolve(places);
        }
        // Without a setting to resolve again, a name is done once it has an address.
        names.retain(|name| name.every.is_some() || places[name.place].get().is_none());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_counts_once() {
        let all = [2, 2, 1, 2, 3].map(|last| SocketAddr::from(([127, 0, 0, last], 80)));
        assert_eq!(each_once(all.into_iter()), [all[0], all[2], all[4]]);
    }
}
