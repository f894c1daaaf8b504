//! Sticky sessions: the cookie, and the key that makes its value.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;

use super::complaint::{Complaints, Flaw};
use super::reader::Reader;
use super::{HostPattern, Route, Upstream, secrecy};

/// As many as the bytes of the hash that it keys (RFC 2104 section 3).
const KEY_BYTES_MIN: usize = 32;
const KEY_BYTES_MAX: usize = 4096;
const KEYS_MAX: usize = 16;
const KEY_FILE_BYTES_MAX: u64 = 128 * 1024;
const COOKIE_BYTES_MAX: usize = 64;
const PATH_BYTES_MAX: usize = 1024;
const MAKE_KEY: &str = "make one with `openssl rand -hex 32`";

/// A cookie that leads a client back to its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sticky {
    /// Its name.
    pub cookie: String,
    /// The first makes values, the others are still taken.
    pub keys: Vec<Key>,
    /// How long clients keep it; `None` is as long as their session lasts.
    pub max_age: Option<Duration>,
    /// Its Path attribute.
    pub path: String,
    /// Its Domain attribute.
    pub domain: Option<String>,
    /// Its `SameSite` attribute.
    pub same_site: SameSite,
    /// Its Secure attribute.
    pub secure: bool,
    /// Its `HttpOnly` attribute.
    pub http_only: bool,
}

impl Sticky {
    /// Its attributes as `Set-Cookie` writes them after the value, the first semicolon included (RFC 6265 section 4.1).
    pub fn attributes(&self) -> String {
        let flag = |set: bool, name: &str| if set { name.to_owned() } else { String::new() };
        let domain = self.domain.as_ref();
        let age = self.max_age.map(|age| age.as_secs());
        [
            format!("; Path={}", self.path),
            domain.map_or(String::new(), |domain| format!("; Domain={domain}")),
            age.map_or(String::new(), |age| format!("; Max-Age={age}")),
            flag(self.secure, "; Secure"),
            flag(self.http_only, "; HttpOnly"),
            format!("; SameSite={}", self.same_site.as_str()),
        ]
        .concat()
    }
}

/// Which requests from other sites carry a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// Those that follow a link.
    Lax,
    /// None.
    Strict,
    /// All; such a cookie must be Secure.
    None,
}

impl SameSite {
    /// As `Set-Cookie` writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lax => "Lax",
            Self::Strict => "Strict",
            Self::None => "None",
        }
    }
}

/// A secret. Nothing prints it.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// The secret itself.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

pub(super) fn sticky(table: &Reader<'_>, complaints: &Complaints<'_>) -> Sticky {
    let sticky = Sticky {
        cookie: table.parsed("cookie", cookie_name).unwrap_or_default(),
        keys: keys(table, complaints),
        max_age: table.duration_or_word("max_age"),
        path: table.parsed("path", path).unwrap_or_default(),
        domain: table.parsed("domain", domain),
        same_site: match table.choice("same_site") {
            "strict" => SameSite::Strict,
            "none" => SameSite::None,
            _ => SameSite::Lax,
        },
        secure: table.flag("secure"),
        http_only: table.flag("http_only"),
    };
    check(table, &sticky, complaints);
    sticky
}

/// Complains about a cookie that browsers refuse.
fn check(table: &Reader<'_>, sticky: &Sticky, complaints: &Complaints<'_>) {
    if sticky.same_site == SameSite::None && !sticky.secure {
        let flaw = Flaw::new("same_site: browsers drop a cookie with SameSite=None and no Secure");
        let help = "add secure = true, or use \"lax\"";
        complaints.error(&table.span_of("same_site"), flaw.help(help));
    }
    // The prefixes of RFC 6265bis, section 4.1.3.
    let begins = |prefix: &str| {
        let start = sticky.cookie.get(..prefix.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    let of_host = begins("__Host-");
    if (of_host || begins("__Secure-")) && !sticky.secure {
        let flaw = Flaw::new("cookie: browsers drop a cookie of such a name without Secure");
        complaints.error(&table.span_of("cookie"), flaw.help("add secure = true"));
    }
    if of_host && (sticky.domain.is_some() || sticky.path != "/") {
        let flaw =
            Flaw::new("cookie: a name with `__Host-` goes with no domain and path \"/\" only");
        complaints.error(&table.span_of("cookie"), flaw);
    }
}

/// Warns of upstreams that would replace each other's cookie with every request: browsers keep one of a name, path and domain, or host.
pub(super) fn warn_of_shared(
    upstreams: &[Spanned<Upstream>],
    routes: &[Route],
    complaints: &Complaints<'_>,
) {
    let mut seen: HashMap<_, Vec<&Route>> = HashMap::new();
    let mut warned = HashSet::new();
    for route in routes {
        // A file that is refused may have routes to nowhere.
        let Some(upstream) = upstreams.get(route.upstream) else {
            continue;
        };
        let Some(sticky) = &upstream.get_ref().sticky else {
            continue;
        };
        let domain = sticky.domain.as_ref().map(|name| name.to_ascii_lowercase());
        let others = (seen.entry((&sticky.cookie, &sticky.path, domain.clone()))).or_default();
        // What a route shares hangs on its host, so another with that of the same upstream shares no more.
        let known = |other: &&Route| (other.upstream, &other.host) == (route.upstream, &route.host);
        if others.iter().any(known) {
            continue;
        }
        let share = |other: &&Route| {
            let place = if let Some(domain) = &domain {
                format!("domain {domain}")
            } else {
                let host = shared_host(&other.host, &route.host, routes)?;
                format!("host {host}")
            };
            Some((other.upstream, place))
        };
        let mut rivals = others
            .iter()
            .filter(|other| other.upstream != route.upstream);
        if let Some((other, place)) = rivals.find_map(share)
            && warned.insert(route.upstream)
        {
            let other = &upstreams[other].get_ref().name;
            let flaw = Flaw::new(format!(
                "upstream `{other}` has a cookie `{}` for {place} too: each replaces the other's",
                sticky.cookie
            ));
            complaints.warning(&upstream.span(), flaw.help("give each a name of its own"));
        }
        others.push(route);
    }
}

/// The hosts of which routes with either pattern take requests, if there are any.
fn shared_host<'a>(
    one: &'a HostPattern,
    other: &'a HostPattern,
    routes: &[Route],
) -> Option<&'a HostPattern> {
    let both = narrower(one, other)?;
    // A narrower pattern goes first; where it takes every path, nothing is left for the wider one.
    let wider = if both == one { other } else { one };
    let taken = |route: &Route| {
        route.path == "/"
            && route.host != *wider
            && narrower(&route.host, wider) == Some(&route.host)
            && narrower(&route.host, both) == Some(both)
    };
    (!routes.iter().any(taken)).then_some(both)
}

/// The one of two patterns whose hosts the other takes as well.
fn narrower<'a>(one: &'a HostPattern, other: &'a HostPattern) -> Option<&'a HostPattern> {
    use HostPattern::{Any, Exact, Suffix};
    match (one, other) {
        (Any, narrow) | (narrow, Any) => Some(narrow),
        (Suffix(suffix), narrow @ (Exact(host) | Suffix(host)))
        | (narrow @ (Exact(host) | Suffix(host)), Suffix(suffix))
            if host.ends_with(suffix) =>
        {
            Some(narrow)
        }
        _ => (one == other).then_some(one),
    }
}

/// RFC 6265 section 4.1.1: a token.
fn cookie_name(text: &str) -> Result<String, Flaw> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if (1..=COOKIE_BYTES_MAX).contains(&text.len()) && text.bytes().all(token) {
        return Ok(text.to_owned());
    }
    let flaw = Flaw::new(format!("`{}` is no name of a cookie", text.escape_debug()));
    Err(flaw.help("names have 1 to 64 letters, digits, \"-\", \"_\" or \".\""))
}

fn path(text: &str) -> Result<String, Flaw> {
    let good = |byte: u8| byte.is_ascii_graphic() && byte != b';';
    if text.starts_with('/') && text.len() <= PATH_BYTES_MAX && text.bytes().all(good) {
        return Ok(text.to_owned());
    }
    let flaw = Flaw::new(format!("`{}` is no path of a cookie", text.escape_debug()));
    Err(flaw.help("write a path that starts with \"/\", without \";\" and spaces"))
}

fn domain(text: &str) -> Result<String, Flaw> {
    let label = |label: &str| {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=63).contains(&label.len()) && label.bytes().all(good)
    };
    let is_number = text
        .rsplit('.')
        .next()
        .is_some_and(|last| last.parse::<u32>().is_ok());
    if text.len() <= 253 && text.split('.').all(label) && !is_number {
        return Ok(text.to_owned());
    }
    let flaw = Flaw::new(format!("`{}` is no domain", text.escape_debug()));
    Err(flaw.help("write a host name such as \"example.com\", without a leading dot"))
}

/// What the file gives as key, and what it gave before.
fn keys(table: &Reader<'_>, complaints: &Complaints<'_>) -> Vec<Key> {
    let file = table.parsed("key_file", file_path);
    let mut keys = match (table.gives("key"), &file) {
        (true, Some(_)) => {
            let flaw = Flaw::new("key and key_file are both given");
            complaints.error(&table.span_of("key_file"), flaw.help("remove one of them"));
            Vec::new()
        }
        (true, None) => table.parsed("key", key).into_iter().collect(),
        (false, Some(file)) => {
            let read = read(file).map_err(|flaw| flaw.of("key_file"));
            let read = complaints.check(&table.span_of("key_file"), read);
            if read.is_some() {
                secrecy::check_file(file, &table.span_of("key_file"), complaints);
            }
            read.unwrap_or_default()
        }
        (false, None) => {
            if !table.changes("key_file") {
                let flaw = Flaw::new("[upstream.sticky] needs `key`");
                let help = format!("{MAKE_KEY}, or name a file with key_file");
                complaints.error(&table.span(), flaw.help(help));
            }
            Vec::new()
        }
    };
    for text in table.texts("previous_keys") {
        let previous = key(text.get_ref()).map_err(|flaw| flaw.of("previous_keys"));
        keys.extend(complaints.check(&text.span(), previous));
    }
    if keys.len() > KEYS_MAX {
        let flaw = Flaw::new(format!("a cookie has at most {KEYS_MAX} keys"));
        let key = if table.gives("previous_keys") {
            "previous_keys"
        } else {
            "key_file"
        };
        complaints.error(&table.span_of(key), flaw);
    }
    keys
}

fn file_path(text: &str) -> Result<PathBuf, Flaw> {
    if text.is_empty() || text.contains('\0') {
        return Err(Flaw::new("this is no path"));
    }
    Ok(PathBuf::from(text))
}

/// The text of a complaint never has the key itself.
fn key(text: &str) -> Result<Key, Flaw> {
    let length = text.len();
    if length < KEY_BYTES_MIN {
        let flaw = Flaw::new(format!(
            "the key has {length} bytes; {KEY_BYTES_MIN} are the least"
        ));
        return Err(flaw.help(MAKE_KEY));
    }
    if length > KEY_BYTES_MAX {
        let flaw = format!("the key has {length} bytes; {KEY_BYTES_MAX} are the most");
        return Err(Flaw::new(flaw));
    }
    Ok(Key(text.to_owned()))
}

/// One key a line; empty lines do not count.
fn read(path: &Path) -> Result<Vec<Key>, Flaw> {
    let name = secrecy::file_name(&path.to_string_lossy());
    let unreadable = |error| Flaw::new(format!("{name} cannot be read: {error}"));
    // A pipe would keep the start waiting.
    if !path.metadata().map_err(unreadable)?.is_file() {
        return Err(Flaw::new(format!("{name} is no file")));
    }
    let file = File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    let mut bounded = file.take(KEY_FILE_BYTES_MAX);
    bounded.read_to_string(&mut text).map_err(unreadable)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let keys = lines.map(key).collect::<Result<Vec<_>, _>>()?;
    if keys.is_empty() {
        return Err(Flaw::new(format!("{name} is empty")).help(MAKE_KEY));
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_paths_and_domains_cannot_break_out_of_the_field() {
        let cases = [
            ("app", true),
            ("__Host-app", true),
            ("", false),
            ("a b", false),
            ("a=b", false),
            ("a;b", false),
            ("a\r\nb", false),
            ("ü", false),
        ];
        for (text, good) in cases {
            assert_eq!(cookie_name(text).is_ok(), good, "{text:?}");
        }
        let cases = [
            ("/", true),
            ("/a/b", true),
            ("", false),
            ("a", false),
            ("/a; Secure", false),
            ("/a\r\n", false),
        ];
        for (text, good) in cases {
            assert_eq!(path(text).is_ok(), good, "{text:?}");
        }
        let cases = [
            ("example.com", true),
            ("localhost", true),
            ("", false),
            (".example.com", false),
            ("example.com.", false),
            ("10.0.0.1", false),
            ("a;b", false),
            ("a b.example", false),
        ];
        for (text, good) in cases {
            assert_eq!(domain(text).is_ok(), good, "{text:?}");
        }
    }

    #[test]
    fn a_key_file_has_a_key_on_each_line() {
        let path = std::env::temp_dir().join(format!("ringlane-keys-{}", std::process::id()));
        let (first, second) = ("1".repeat(32), "2".repeat(64));
        let cases = [
            (format!("{first}\n"), Ok(1)),
            (format!("\n {first}\r\n\n{second}"), Ok(2)),
            (format!("{first}\nshort\n"), Err("the key has 5 bytes")),
            ("\n \n".to_owned(), Err("is empty")),
        ];
        for (text, expected) in cases {
            std::fs::write(&path, &text).expect("a file");
            match (read(&path), expected) {
                (Ok(keys), Ok(count)) => {
                    assert_eq!(keys.len(), count, "{text:?}");
                    assert_eq!(keys[0].as_bytes(), first.as_bytes());
                }
                (Err(flaw), Err(expected)) => {
                    assert!(format!("{flaw:?}").contains(expected), "{flaw:?}");
                }
                (found, _) => panic!("{text:?}: {found:?}"),
            }
        }
        std::fs::remove_file(&path).ok();
    }

    #[test]
    fn nothing_prints_a_key() {
        let text = "0123456789abcdef0123456789abcdef";
        let key = key(text).expect("a key");
        assert_eq!(format!("{key:?}"), "(secret)");
        let short = super::key(&text[1..]).expect_err("too short");
        assert!(!format!("{short:?}").contains(&text[1..9]), "{short:?}");
        let misplaced = read(Path::new(text)).expect_err("no file");
        assert!(!format!("{misplaced:?}").contains(text), "{misplaced:?}");
    }
}
