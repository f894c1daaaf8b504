//! Every key of the file: where it stands, what it takes, its default.
//!
//! A key that is not in this table does not exist. The reader takes defaults and ranges from here, `did you mean` its candidates, and
//! a test holds `docs/configuration.md` to it.

use std::fmt;
use std::time::Duration;

use super::units::{Size, Span};

/// A table of the file and the keys that may stand in it.
#[derive(Debug)]
pub struct Section {
    /// As the file writes it: `[timeouts]`, `[[upstream]]`; empty for the top of the file.
    pub title: &'static str,
    /// Its keys, those with a table of their own included.
    pub keys: &'static [Key],
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name in its section.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// A word that it takes beside that, such as `off`.
    pub word: Option<&'static str>,
    /// What holds where it is not given; `None` when it must be given.
    pub default: Option<Value<'static>>,
}

/// What a key takes. Bounds are included.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `true` or `false`.
    Flag,
    /// A whole number.
    Number(u64, u64),
    /// A duration such as `10s`.
    Duration(Duration, Duration),
    /// Bytes: a whole number or a text such as `32KiB`.
    Size(u64, u64),
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// A text with rules of its own, in words.
    Text(&'static str),
    /// A list of texts with rules of their own, in words.
    Texts(&'static str),
    /// A table, `[name]` or inline.
    Table(&'static Section),
    /// A list of tables, `[[name]]` or inline.
    Tables(&'static Section),
}

/// A value that was read, and is of its key's kind and in its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Of a [`Kind::Flag`].
    Flag(bool),
    /// Of a [`Kind::Number`].
    Number(u64),
    /// Of a [`Kind::Duration`].
    Duration(Duration),
    /// Of a [`Kind::Size`], in bytes.
    Size(u64),
    /// Of a [`Kind::Choice`] or [`Kind::Text`].
    Text(&'a str),
    /// The key's own word, such as `off`.
    Word(&'a str),
    /// The empty list, as a default.
    Nothing,
    /// A default that comes from elsewhere in the file, in words.
    Derived(&'static str),
}

/// As the file writes it.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => flag.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::Duration(duration) => write!(f, "\"{}\"", Span(*duration)),
            Self::Size(bytes) => write!(f, "\"{}\"", Size(*bytes)),
            Self::Text(text) | Self::Word(text) => write!(f, "\"{text}\""),
            Self::Nothing => f.write_str("[]"),
            Self::Derived(source) => f.write_str(source),
        }
    }
}

impl Section {
    /// The key of that name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// This section and all below it, in the file's order.
    pub fn all(&'static self) -> Vec<&'static Section> {
        let inner = self.keys.iter().filter_map(|key| match key.kind {
            Kind::Table(section) | Kind::Tables(section) => Some(section),
            _ => None,
        });
        std::iter::once(self)
            .chain(inner.flat_map(Section::all))
            .collect()
    }
}

impl Key {
    /// What the key takes, in words: `1 to 64`, `"1ms" to "1d", or "off"`.
    pub fn takes(&self) -> String {
        let kind = match self.kind {
            Kind::Flag => "true or false".to_owned(),
            Kind::Number(min, max) => format!("{min} to {max}"),
            Kind::Duration(min, max) => {
                format!("{} to {}", Value::Duration(min), Value::Duration(max))
            }
            Kind::Size(min, max) => format!("{} to {}", Value::Size(min), Value::Size(max)),
            Kind::Choice(choices) => one_of(choices),
            Kind::Text(rule) | Kind::Texts(rule) => rule.to_owned(),
            Kind::Table(section) => format!("a table {}", section.title),
            Kind::Tables(section) => format!("tables {}", section.title),
        };
        self.word
            .map_or(kind.clone(), |word| format!("{kind}, or \"{word}\""))
    }

    const fn new(name: &'static str, kind: Kind) -> Self {
        Self {
            name,
            kind,
            word: None,
            default: None,
        }
    }

    /// Takes `word` as well, and has it as the default unless a default follows.
    const fn or(self, word: &'static str) -> Self {
        Self {
            word: Some(word),
            default: Some(Value::Word(word)),
            ..self
        }
    }

    const fn default(self, value: Value<'static>) -> Self {
        Self {
            default: Some(value),
            ..self
        }
    }
}

/// `"a"`, `"a" or "b"`, `"a", "b" or "c"`.
fn one_of(choices: &[&str]) -> String {
    let quoted: Vec<_> = choices
        .iter()
        .map(|choice| format!("\"{choice}\""))
        .collect();
    match quoted.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => quoted.concat(),
    }
}

const fn flag(name: &'static str, default: bool) -> Key {
    Key::new(name, Kind::Flag).default(Value::Flag(default))
}

const fn number(name: &'static str, min: u64, max: u64) -> Key {
    Key::new(name, Kind::Number(min, max))
}

const fn duration(name: &'static str, min: Duration, max: Duration) -> Key {
    Key::new(name, Kind::Duration(min, max))
}

/// A timeout: never zero, at most a day.
const fn timeout(name: &'static str, default: Duration) -> Key {
    duration(name, MILLISECOND, DAY).default(Value::Duration(default))
}

const fn size(name: &'static str, min: u64, max: u64) -> Key {
    Key::new(name, Kind::Size(min, max))
}

/// A choice; the first is the default.
const fn choice(name: &'static str, choices: &'static [&'static str]) -> Key {
    Key::new(name, Kind::Choice(choices)).default(Value::Text(choices[0]))
}

const fn text(name: &'static str, rule: &'static str) -> Key {
    Key::new(name, Kind::Text(rule))
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const MILLISECOND: Duration = Duration::from_millis(1);
const TENTH_SECOND: Duration = Duration::from_millis(100);
const SECOND: Duration = seconds(1);
const HOUR: Duration = seconds(60 * 60);
const DAY: Duration = seconds(24 * 60 * 60);
/// Browsers keep no cookie longer (RFC 6265bis section 5.5).
const COOKIE_AGE_MAX: Duration = seconds(400 * 24 * 60 * 60);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// Beyond the descriptors that a process can have (`fs.nr_open` ends at 2^30 and defaults to 2^20).
const CONNECTIONS_MAX: u64 = 1 << 24;
/// The default of `connections_per_shard`: a bound that memory can hold.
pub const CONNECTIONS_PER_SHARD_DEFAULT: u64 = 65536;
/// "No limit" is a word of its own, so this only keeps a typing mistake out.
const REQUESTS_MAX: u64 = 1 << 40;

/// Submission entries of a ring.
pub const RING_ENTRIES_DEFAULT: u32 = 1024;

/// The top of the file.
pub static ROOT: Section = Section {
    title: "",
    keys: &[
        number("shards", 1, 1024).or("auto"),
        text("cpus", "a CPU list such as \"0-3,8\"").or("auto"),
        flag("pin", true),
        choice("io", &["auto", "uring", "epoll"]),
        number("ring_entries", 256, 32768).default(Value::Number(RING_ENTRIES_DEFAULT as u64)),
        number("accepts", 1, 64).default(Value::Number(8)),
        timeout("shutdown_timeout", seconds(30)),
        text("user", "a user's name or number").or("same"),
        text("group", "a group's name or number").default(Value::Derived("the user's own group")),
        Key::new("log", Kind::Table(&LOG)),
        Key::new("access_log", Kind::Table(&ACCESS_LOG)),
        Key::new("admin", Kind::Table(&ADMIN)),
        Key::new("timeouts", Kind::Table(&TIMEOUTS)),
        Key::new("limits", Kind::Table(&LIMITS)),
        Key::new("rate_limit", Kind::Table(&RATE_LIMIT)),
        Key::new("forward", Kind::Table(&FORWARD)),
        Key::new("listen", Kind::Tables(&LISTEN)),
        Key::new("upstream", Kind::Tables(&UPSTREAM)),
        Key::new("route", Kind::Tables(&ROUTE)),
    ],
};

static LOG: Section = Section {
    title: "[log]",
    keys: &[
        text(
            "level",
            "a level, or a filter such as \"info,ringlane=debug\"",
        )
        .default(Value::Text("info")),
        choice("format", &["text", "json"]),
    ],
};

static ACCESS_LOG: Section = Section {
    title: "[access_log]",
    keys: &[
        text("path", "a file to append to, or \"-\" for standard output").default(Value::Text("-")),
        choice("format", &["combined", "json"]),
        size("buffer", 4 * KIB, 64 * MIB).default(Value::Size(256 * KIB)),
    ],
};

static ADMIN: Section = Section {
    title: "[admin]",
    keys: &[
        flag("enabled", true),
        text("address", "an IP address and port").default(Value::Text("127.0.0.1:9900")),
        flag("orders", true),
        text("token", "16 to 256 letters, digits or \"-._~+/\"").or("off"),
        text("token_file", "a file with a token").or("off"),
    ],
};

static TIMEOUTS: Section = Section {
    title: "[timeouts]",
    keys: &[
        timeout("client_header", seconds(10)),
        timeout("client_body", seconds(30)),
        timeout("keep_alive", seconds(75)),
        timeout("write", seconds(30)),
        timeout("tunnel_idle", HOUR),
        size("client_body_min_rate", 1, GIB).or("off"),
        size("response_min_rate", 1, GIB).or("off"),
        duration("min_rate_grace", SECOND, HOUR).default(Value::Duration(seconds(20))),
        duration("client_gone_check", TENTH_SECOND, HOUR)
            .or("off")
            .default(Value::Duration(Duration::from_millis(500))),
    ],
};

static LIMITS: Section = Section {
    title: "[limits]",
    keys: &[
        size("head", KIB, MIB).default(Value::Size(32 * KIB)),
        number("header_count", 8, 4096).default(Value::Number(128)),
        size("uri", 64, MIB).default(Value::Size(8 * KIB)),
        choice("underscores", &["pass", "drop", "refuse"]),
        size("body", 1, 1 << 50).or("off"),
        number("requests_per_connection", 1, REQUESTS_MAX).or("off"),
        number("connections_per_shard", 1, CONNECTIONS_MAX)
            .default(Value::Number(CONNECTIONS_PER_SHARD_DEFAULT)),
        number("connections", 1, CONNECTIONS_MAX).or("off"),
        number("connections_per_client", 1, CONNECTIONS_MAX).or("off"),
        number("client_v6_prefix", 1, 128).default(Value::Number(64)),
        number("max_in_flight", 1, CONNECTIONS_MAX).or("off"),
        size("memory", MIB, 1 << 50).or("off"),
    ],
};

static RATE_LIMIT: Section = Section {
    title: "[rate_limit]",
    keys: &[
        number("requests", 1, 1_000_000),
        duration("period", SECOND, HOUR).default(Value::Duration(SECOND)),
        number("burst", 1, 1_000_000).or("auto"),
        number("clients", 1024, CONNECTIONS_MAX).default(Value::Number(65536)),
        Key::new(
            "exempt",
            Kind::Texts("a list of addresses and networks such as \"10.0.0.0/8\""),
        )
        .default(Value::Nothing),
    ],
};

static FORWARD: Section = Section {
    title: "[forward]",
    keys: &[
        Key::new(
            "trusted_proxies",
            Kind::Texts("a list of addresses and networks such as \"10.0.0.0/8\""),
        )
        .default(Value::Nothing),
        flag("x_forwarded", true),
        flag("forwarded", false),
        flag("via", false),
        flag("served_by", false),
    ],
};

static LISTEN: Section = Section {
    title: "[[listen]]",
    keys: &[
        text(
            "address",
            "an IP address and port, such as \"0.0.0.0:8080\"",
        ),
        number("backlog", 1, 1 << 20).default(Value::Number(4096)),
        duration("defer_accept", MILLISECOND, HOUR).or("off"),
        number("fast_open", 1, 65535).or("off"),
        TCP_KEEPALIVE,
        TCP_USER_TIMEOUT,
        BUSY_POLL_US,
        RECV_BUFFER,
        SEND_BUFFER,
        CONGESTION,
    ],
};

static UPSTREAM: Section = Section {
    title: "[[upstream]]",
    keys: &[
        text("name", NAME_RULE),
        choice(
            "policy",
            &[
                "round_robin",
                "least_connections",
                "random",
                "two_choices",
                "ip_hash",
                "hash",
                "first",
                "least_latency",
            ],
        ),
        text(
            "hash",
            "\"path\", \"uri\", \"query:NAME\", \"header:NAME\" or \"cookie:NAME\"",
        )
        .default(Value::Text("path")),
        number("ip_hash_v6_prefix", 1, 128).default(Value::Number(64)),
        number("hash_balance_factor", 100, 10_000).or("off"),
        duration("slow_start", SECOND, HOUR).or("off"),
        choice("when_none_healthy", &["fail", "try_all"]),
        text(
            "host",
            "\"keep\", \"upstream\", or a fixed host with or without port",
        )
        .default(Value::Text("keep")),
        duration("resolve", SECOND, DAY).or("off"),
        number("retries", 0, 16).default(Value::Number(1)),
        text("retry_statuses", STATUSES_RULE).or("off"),
        flag("retry_non_idempotent", false),
        // With a head of the default limit it fits one of the shard's largest buffers.
        size("retry_body_bytes", 1, 64 * KIB).or("off"),
        number("retry_budget", 1, 1000)
            .or("off")
            .default(Value::Number(20)),
        number("queue", 1, 1 << 20).or("off"),
        timeout("queue_timeout", seconds(5)),
        timeout("connect_timeout", seconds(3)),
        timeout("response_header_timeout", seconds(60)),
        timeout("response_body_timeout", seconds(60)),
        Key::new(
            "source",
            Kind::Texts("a list of IP addresses such as \"10.0.0.1\""),
        )
        .default(Value::Nothing),
        flag("fast_open", false),
        TCP_KEEPALIVE,
        TCP_USER_TIMEOUT,
        BUSY_POLL_US,
        RECV_BUFFER,
        SEND_BUFFER,
        CONGESTION,
        Key::new("pool", Kind::Table(&POOL)),
        Key::new("health", Kind::Table(&HEALTH)),
        Key::new("passive", Kind::Table(&PASSIVE)),
        Key::new("sticky", Kind::Table(&STICKY)),
        Key::new("server", Kind::Tables(&SERVER)),
    ],
};

static POOL: Section = Section {
    title: "[upstream.pool]",
    keys: &[
        number("max_idle", 0, 65536).default(Value::Number(64)),
        timeout("idle_timeout", seconds(60)),
        duration("max_age", MILLISECOND, DAY)
            .or("off")
            .default(Value::Duration(HOUR)),
        number("max_requests", 1, REQUESTS_MAX).or("off"),
    ],
};

static HEALTH: Section = Section {
    title: "[upstream.health]",
    keys: &[
        choice("type", &["http", "tcp"]),
        duration("interval", TENTH_SECOND, HOUR).default(Value::Duration(seconds(5))),
        duration("fast_interval", MILLISECOND, HOUR).default(Value::Duration(SECOND)),
        duration("timeout", MILLISECOND, HOUR).default(Value::Duration(seconds(3))),
        number("rise", 1, 1000).default(Value::Number(2)),
        number("fall", 1, 1000).default(Value::Number(3)),
        text("path", "a path, with a query if need be").default(Value::Text("/health")),
        text("method", "a method").default(Value::Text("GET")),
        text("host", "a host with or without port").default(Value::Derived("the server's address")),
        Key::new(
            "headers",
            Kind::Texts("a list of fields such as \"X-Probe: yes\""),
        )
        .default(Value::Nothing),
        text("expect", STATUSES_RULE).default(Value::Text("2xx,3xx")),
        text("body", "a text").or("off"),
        size("body_limit", 1, MIB).default(Value::Size(64 * KIB)),
        number("port", 1, 65535).or("same"),
    ],
};

static PASSIVE: Section = Section {
    title: "[upstream.passive]",
    keys: &[
        number("fall", 1, 10_000).default(Value::Number(5)),
        timeout("window", seconds(10)),
        timeout("eject", seconds(10)),
        timeout("eject_max", seconds(300)),
        number("max_ejected", 1, 100).default(Value::Number(50)),
        text("statuses", STATUSES_RULE).or("off"),
    ],
};

static STICKY: Section = Section {
    title: "[upstream.sticky]",
    keys: &[
        text("cookie", "the name of a cookie"),
        text("key", "a secret of at least 32 bytes"),
        text("key_file", "the path of a file with a key on each line").or("off"),
        Key::new("previous_keys", Kind::Texts("a list of keys")).default(Value::Nothing),
        duration("max_age", SECOND, COOKIE_AGE_MAX).or("session"),
        text("path", "a path").default(Value::Text("/")),
        text("domain", "a host name").or("off"),
        choice("same_site", &["lax", "strict", "none"]),
        flag("secure", false),
        flag("http_only", true),
    ],
};

static SERVER: Section = Section {
    title: "[[upstream.server]]",
    keys: &[
        text("address", "\"IP:port\", \"host:port\" or \"unix:/path\""),
        text("name", NAME_RULE).default(Value::Derived("the address")),
        number("weight", 0, 1000).default(Value::Number(1)),
        flag("backup", false),
        number("max_requests", 1, CONNECTIONS_MAX).or("off"),
        number("max_connections", 1, CONNECTIONS_MAX).or("off"),
    ],
};

static ROUTE: Section = Section {
    title: "[[route]]",
    keys: &[
        text("host", "\"*\", a host, or \"*.\" and a domain").default(Value::Text("*")),
        text("path", "a path that starts with \"/\"").default(Value::Text("/")),
        text("upstream", "the name of an [[upstream]]"),
        flag("strip_prefix", false),
    ],
};

const STATUSES_RULE: &str = "codes, classes and ranges such as \"200,3xx,401-403\"";
const NAME_RULE: &str = "1 to 64 letters, digits, \"-\", \"_\", \".\" or \":\"";

// Socket options that listeners and upstreams share. "off" leaves the kernel's own value.
const TCP_KEEPALIVE: Key = duration("tcp_keepalive", SECOND, HOUR)
    .or("off")
    .default(Value::Duration(seconds(60)));
const TCP_USER_TIMEOUT: Key = duration("tcp_user_timeout", SECOND, DAY).or("off");
const BUSY_POLL_US: Key = number("busy_poll_us", 1, 100_000).or("off");
const RECV_BUFFER: Key = size("recv_buffer", 4 * KIB, GIB).or("off");
const SEND_BUFFER: Key = size("send_buffer", 4 * KIB, GIB).or("off");
const CONGESTION: Key = text(
    "congestion",
    "the name of a congestion control algorithm, such as \"bbr\"",
)
.or("off");
