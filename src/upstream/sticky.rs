//! Sticky sessions: the value of a cookie that stands for a server.
//!
//! A value is the start of HMAC-SHA-256 (RFC 2104) over the names of the upstream and the server. It depends on nothing else, so
//! every shard, restart and node with the same key makes and takes the same values, and a server that moves to another address or
//! another place in the file keeps its clients. It tells nothing to those who do not have the key, but that two clients have the
//! same server.
//!
//! All values are made at start. A request's value is looked up in a table, by a number: nothing is compared byte by byte, so the
//! time that a wrong value takes does not tell how much of it is right.

use std::collections::HashMap;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::config::{self, Upstream};

/// Keeps these values apart from whatever else the key may be used for.
const PURPOSE: &[u8] = b"ringlane sticky 1";
/// Hexadecimal digits of a value: 128 bits cannot be guessed.
const DIGITS: usize = 32;

/// What the cookie of a client says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bond {
    /// Whom it leads to, by index in the upstream.
    pub server: u32,
    /// It was made with the present key.
    pub fresh: bool,
}

/// The cookie of one upstream.
#[derive(Debug)]
pub struct Sticky {
    /// The cookie's name.
    pub name: String,
    bonds: HashMap<u128, Bond>,
    /// By server, as `Set-Cookie` has it.
    cookies: Vec<String>,
}

impl Sticky {
    /// `None` when the upstream has no sticky sessions.
    pub fn new(upstream: &Upstream) -> Option<Self> {
        let sticky = upstream.sticky.as_ref()?;
        let values = |key| {
            let servers = upstream.servers.iter();
            servers.map(move |server| value(key, &upstream.name, &server.name))
        };
        let mut bonds = HashMap::new();
        for (age, key) in sticky.keys.iter().enumerate() {
            for (server, value) in (0..).zip(values(key)) {
                let fresh = age == 0;
                bonds.entry(value).or_insert(Bond { server, fresh });
            }
        }
        let (name, attributes) = (&sticky.cookie, sticky.attributes());
        let values = sticky.keys.first().map(values).into_iter().flatten();
        Some(Self {
            name: name.clone(),
            bonds,
            cookies: values
                .map(|value| format!("{name}={value:0DIGITS$x}{attributes}"))
                .collect(),
        })
    }

    /// Whom a value stands for; `None` when it is none of ours.
    pub fn bond(&self, value: &[u8]) -> Option<Bond> {
        self.bonds.get(&number(value)?).copied()
    }

    /// The value of a `Set-Cookie` field that leads to this server.
    pub fn cookie(&self, server: usize) -> &str {
        &self.cookies[server]
    }
}

/// Names have no zero byte, so no two pairs give the same message.
fn value(key: &config::Key, upstream: &str, server: &str) -> u128 {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes keys of any length");
    for part in [PURPOSE, upstream.as_bytes(), server.as_bytes()] {
        mac.update(part);
        mac.update(&[0]);
    }
    let mac = mac.finalize().into_bytes();
    mac.iter()
        .take(DIGITS / 2)
        .fold(0, |value, byte| value << 8 | u128::from(*byte))
}

/// Exactly as [`Sticky::cookie`] has it: a value has one form.
fn number(value: &[u8]) -> Option<u128> {
    if value.len() != DIGITS {
        return None;
    }
    value.iter().try_fold(0, |number, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    fn sticky(upstream: &str, servers: &[&str], keys: &str) -> Sticky {
        let servers: Vec<_> = (1..)
            .zip(servers)
            .map(|(port, name)| format!("{{ address = \"127.0.0.1:{port}\", name = \"{name}\" }}"))
            .collect();
        let text = format!(
            "[[listen]]\naddress = \"127.0.0.1:80\"\n[[upstream]]\nname = \"{upstream}\"\nserver = [{}]\n\
             [upstream.sticky]\ncookie = \"id\"\n{keys}\n",
            servers.join(", ")
        );
        let config = Config::parse(&text, "test.toml").expect("a valid file");
        Sticky::new(&config.upstreams[0]).expect("it is on")
    }

    fn value_of(sticky: &Sticky, server: usize) -> Vec<u8> {
        let cookie = sticky.cookie(server).as_bytes();
        cookie["id=".len()..][..DIGITS].to_vec()
    }

    fn key(text: &str) -> String {
        format!("key = \"{text}\"")
    }

    /// Other programs that share the key can be written from this: `printf 'ringlane sticky 1\0app\0a\0' | openssl dgst -sha256 -hmac KEY`.
    #[test]
    fn values_are_as_documented() {
        let sticky = sticky("app", &["a"], &key(KEY));
        assert_eq!(value_of(&sticky, 0), b"f3cb40f03e54282223a497081979b6b2");
    }

    #[test]
    fn a_value_goes_by_key_and_names_alone() {
        let one = sticky("app", &["a", "b", "c"], &key(KEY));
        let other = sticky("app", &["c", "x", "b"], &key(KEY));
        let bond = |sticky: &Sticky, value: &[u8]| sticky.bond(value).map(|bond| bond.server);
        assert_eq!(bond(&one, &value_of(&other, 0)), Some(2));
        assert_eq!(bond(&one, &value_of(&other, 1)), None);
        assert_eq!(bond(&one, &value_of(&other, 2)), Some(1));
        let other_key = sticky("app", &["a", "b", "c"], &key(&KEY.replace('0', "1")));
        let other_upstream = sticky("web", &["a", "b", "c"], &key(KEY));
        for server in 0..3 {
            assert_eq!(bond(&one, &value_of(&one, server)), Some(server as u32));
            assert_eq!(bond(&one, &value_of(&other_key, server)), None);
            assert_eq!(bond(&one, &value_of(&other_upstream, server)), None);
        }
    }

    #[test]
    fn a_value_has_one_form() {
        let sticky = sticky("app", &["a"], &key(KEY));
        let value = value_of(&sticky, 0);
        let upper = value.to_ascii_uppercase();
        let longer = [&value[..], b"0"].concat();
        let leading = [b"0", &value[..]].concat();
        let signed = [b"+", &value[1..]].concat();
        let quoted = [b"\"", &value[..], b"\""].concat();
        for wrong in [
            &upper,
            &longer,
            &leading,
            &signed,
            &quoted,
            &value[1..].to_vec(),
            &Vec::new(),
        ] {
            assert_eq!(sticky.bond(wrong), None, "{}", wrong.escape_ascii());
        }
        assert!(sticky.bond(&value).is_some());
    }

    #[test]
    fn values_of_previous_keys_are_taken_and_not_made() {
        let before = sticky("app", &["a", "b"], &key(KEY));
        let new = KEY.replace('0', "1");
        let keys = format!("{}\nprevious_keys = [\"{KEY}\"]", key(&new));
        let after = sticky("app", &["a", "b"], &keys);
        let bond = after.bond(&value_of(&before, 1));
        assert_eq!(
            bond,
            Some(Bond {
                server: 1,
                fresh: false
            })
        );
        let bond = after.bond(&value_of(&after, 1));
        assert_eq!(
            bond,
            Some(Bond {
                server: 1,
                fresh: true
            })
        );
    }
}
