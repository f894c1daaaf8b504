//! How a server is chosen: the policy and what goes with it.

use super::complaint::{Complaints, Flaw};
use super::reader::Reader;
use super::{HashKey, Policy, Server};

/// What a hash key is written as, for hints.
const HASH_KEYS: [&str; 5] = ["path", "uri", "query", "header", "cookie"];

pub(super) fn policy(upstream: &Reader<'_>) -> Policy {
    match upstream.choice("policy") {
        "least_connections" => Policy::LeastConnections,
        "random" => Policy::Random,
        "two_choices" => Policy::TwoChoices,
        "ip_hash" => Policy::IpHash,
        "hash" => Policy::Hash,
        "first" => Policy::First,
        "least_latency" => Policy::LeastLatency,
        _ => Policy::RoundRobin,
    }
}

pub(super) fn hash(upstream: &Reader<'_>) -> HashKey {
    upstream.parsed("hash", hash_key).unwrap_or(HashKey::Path)
}

fn hash_key(text: &str) -> Result<HashKey, Flaw> {
    let (kind, name) = text.split_once(':').unwrap_or((text, ""));
    let is_token = http::HeaderName::try_from(name).is_ok();
    // Compared as it is sent, where anything else is percent-encoded.
    let sent = |byte: u8| byte.is_ascii_graphic() && !b"&=#".contains(&byte);
    let is_argument = !name.is_empty() && name.bytes().all(sent);
    match (kind, name) {
        ("path", "") if text == kind => Ok(HashKey::Path),
        ("uri", "") if text == kind => Ok(HashKey::Uri),
        ("query", name) if is_argument => Ok(HashKey::Query(name.to_owned())),
        ("header", name) if is_token => Ok(HashKey::Header(name.to_owned())),
        ("cookie", name) if is_token => Ok(HashKey::Cookie(name.to_owned())),
        _ => {
            let flaw = Flaw::new(format!("`{}` is no part of a request", text.escape_debug()));
            let help =
                "write \"path\", \"uri\", \"query:NAME\", \"header:NAME\" or \"cookie:NAME\"";
            Err(match kind {
                "query" if !name.is_ascii() => {
                    flaw.help("write the name as it is sent: %C3%BC for `\u{fc}`")
                }
                "path" | "uri" | "query" | "header" | "cookie" => flaw.help(help),
                _ => flaw.help(help).nearest(kind, HASH_KEYS),
            })
        }
    }
}

/// Complains about settings that the policy does not ask for, and about servers that leave no choice.
pub(super) fn check(
    upstream: &Reader<'_>,
    policy: Policy,
    servers: &[Server],
    complaints: &Complaints<'_>,
) {
    if !servers.is_empty() && servers.iter().all(|server| server.weight == 0) {
        let flaw = Flaw::new("every server has weight 0: all requests get 503");
        complaints.warning(&upstream.span_of("server"), flaw);
    }
    // What a refused policy asks for is not known.
    if upstream.refuses("policy") {
        return;
    }
    let hashes = matches!(policy, Policy::Hash | Policy::IpHash);
    let idle = [
        ("hash", policy != Policy::Hash),
        ("ip_hash_v6_prefix", policy != Policy::IpHash),
        ("hash_balance_factor", !hashes),
        ("slow_start", policy == Policy::First),
    ];
    for (key, _) in idle.into_iter().filter(|(_, idle)| *idle) {
        if upstream.changes(key) {
            let flaw = Flaw::new(format!("{key} never acts with this policy"));
            let flaw = flaw.help(format!("the policy is \"{}\"", upstream.choice("policy")));
            complaints.warning(&upstream.span_of(key), flaw);
        }
    }
}

/// Complains about a server's weight where the policy goes by the servers' order alone.
pub(super) fn check_weight(
    server: &Reader<'_>,
    policy: Policy,
    weight: u16,
    complaints: &Complaints<'_>,
) {
    if policy == Policy::First && weight > 0 && server.changes("weight") {
        let flaw = Flaw::new(format!(
            "weight {weight} acts like 1: the policy is \"first\""
        ));
        let flaw = flaw.help("put the servers in the order in which they are to be taken");
        complaints.warning(&server.span_of("weight"), flaw);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_keys() {
        let cases = [
            ("path", Some(HashKey::Path)),
            ("uri", Some(HashKey::Uri)),
            ("query:user id", None),
            ("query:user", Some(HashKey::Query("user".to_owned()))),
            (
                "header:X-Tenant",
                Some(HashKey::Header("X-Tenant".to_owned())),
            ),
            ("cookie:sid", Some(HashKey::Cookie("sid".to_owned()))),
            ("", None),
            ("path:", None),
            ("path:x", None),
            ("query", None),
            ("query:", None),
            ("header:", None),
            ("header:a b", None),
            ("cookie:a=b", None),
            ("Path", None),
        ];
        for (text, expected) in cases {
            assert_eq!(hash_key(text).ok(), expected, "{text:?}");
        }
    }
}
