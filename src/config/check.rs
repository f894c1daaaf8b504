//! From text to a checked [`Config`], or to all that is wrong with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::DeTable;
use tracing_subscriber::EnvFilter;

use super::complaint::{Complaint, Complaints, Flaw, Severity, nearest};
use super::reader::Reader;
use super::{
    AccessFormat, AccessLog, Config, Forward, Io, IoMode, Limits, Log, LogFormat, RateLimit,
    Shards, Timeouts, Underscores, account, address, listen, route, secrecy, sticky, units,
    upstream,
};

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
/// The filter's parser takes 0 to 5 for these levels, in their order.
const NUMBER_MAX: u64 = 5;

/// What reading a file came to.
#[derive(Debug)]
pub struct Reading {
    /// The configuration; `None` when a complaint is an error.
    pub config: Option<Config>,
    /// Errors and warnings, in the file's order.
    pub complaints: Vec<Complaint>,
}

impl Reading {
    /// Reads and checks the file at `path`.
    pub fn load(path: &Path) -> Self {
        let file = path.display().to_string();
        match read_text(path) {
            Ok(text) => Self::parse(&text, &file),
            Err(message) => Self {
                config: None,
                complaints: vec![Complaint::about_file(&file, message)],
            },
        }
    }

    /// Reads and checks a configuration's text; `file` is its name in complaints.
    pub fn parse(text: &str, file: &str) -> Self {
        read(text, file)
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    let bytes =
        fs::read(path).map_err(|error| format!("the configuration cannot be read: {error}"))?;
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.split(|byte| *byte == b'\n').count();
        format!("the configuration is not UTF-8 text: see line {line}")
    })
}

fn read(text: &str, file: &str) -> Reading {
    let (document, syntax_errors) = DeTable::parse_recoverable(text);
    let shown = secrecy::concealed(text, document.get_ref(), !syntax_errors.is_empty());
    let complaints = Complaints::new(file, &shown);
    for error in &syntax_errors {
        complaints.error(&error.span().unwrap_or(0..0), Flaw::new(error.message()));
    }
    // What the parser recovers from a broken file may lack keys that the file has: no second round of complaints.
    let config = if syntax_errors.is_empty() {
        Some(check(&Reader::root(&document, &complaints), &complaints))
    } else {
        None
    };
    let complaints = complaints.into_sorted();
    let refused = complaints
        .iter()
        .any(|complaint| complaint.severity == Severity::Error);
    Reading {
        config: config.filter(|_| !refused),
        complaints,
    }
}

/// Checks everything, however much is wrong. What was complained about is left out or has its default.
fn check(root: &Reader<'_>, complaints: &Complaints<'_>) -> Config {
    let listens = listen::listens(root, complaints);
    let admin = listen::admin(&root.table("admin"), &listens, complaints);
    let steered = admin.as_ref().is_some_and(|admin| admin.orders);
    let upstreams = upstream::upstreams(root, steered, complaints);
    let limits = limits(&root.table("limits"), root.gives("rate_limit"), complaints);
    let routes = route::routes(root, &upstreams, limits.uri_bytes, complaints);
    sticky::warn_of_shared(&upstreams, &routes, complaints);
    Config {
        shards: shards(root, complaints),
        pin: root.flag("pin"),
        io: io(root, complaints),
        shutdown_timeout: root.duration("shutdown_timeout"),
        account: account::account(root, complaints),
        log: log(&root.table("log")),
        access_log: root
            .table_if_given("access_log")
            .map(|table| access_log(&table)),
        admin,
        timeouts: timeouts(&root.table("timeouts"), complaints),
        limits,
        rate_limit: root
            .table_if_given("rate_limit")
            .map(|table| rate_limit(&table, complaints)),
        forward: forward(&root.table("forward"), complaints),
        listens: listens.into_iter().map(Spanned::into_inner).collect(),
        upstreams: upstreams.into_iter().map(Spanned::into_inner).collect(),
        routes,
    }
}

fn shards(root: &Reader<'_>, complaints: &Complaints<'_>) -> Shards {
    let count = root.number_or_word("shards");
    let cpus = root.parsed("cpus", units::cpu_list);
    match (count, cpus) {
        (Some(count), Some(cpus)) => {
            let flaw = Flaw::new("cpus and shards are both given");
            let hint = format!(
                "cpus alone runs one shard on each of its {} CPUs; remove shards = {count}",
                cpus.len()
            );
            complaints.error(&root.span_of("cpus"), flaw.help(hint));
            Shards::Auto
        }
        (Some(count), None) => Shards::Count(count as usize),
        (None, Some(cpus)) => Shards::Cpus(cpus),
        (None, None) => Shards::Auto,
    }
}

fn io(root: &Reader<'_>, complaints: &Complaints<'_>) -> Io {
    let of_rings = ["ring_entries", "accepts"];
    for key in of_rings.into_iter().filter(|key| root.changes(key)) {
        if root.choice("io") == "epoll" {
            let flaw = Flaw::new(format!("{key} never acts: io = \"epoll\""));
            complaints.warning(&root.span_of(key), flaw);
        }
    }
    Io {
        mode: match root.choice("io") {
            "uring" => IoMode::Uring,
            "epoll" => IoMode::Epoll,
            _ => IoMode::Auto,
        },
        ring_entries: root.number("ring_entries") as u32,
        accepts: root.number("accepts") as usize,
    }
}

fn log(table: &Reader<'_>) -> Log {
    Log {
        level: table.parsed("level", level).unwrap_or_default(),
        format: match table.choice("format") {
            "json" => LogFormat::Json,
            _ => LogFormat::Text,
        },
    }
}

/// Reads a filter of the event log from the environment. Other programs may heed the variable too, so only what is no filter is refused,
/// and a word that is meant for a level and is none.
///
/// # Errors
/// A sentence for people.
pub fn environment_filter(text: &str) -> Result<EnvFilter, String> {
    let meant = |word: &&str| level_meant_by(word).is_some() || is_wrong_number(word);
    filter(text, words(text).find(meant)).map_err(Flaw::into_sentence)
}

/// Checks the filter of a configuration, in which a word alone must be a level.
fn level(text: &str) -> Result<String, Flaw> {
    filter(text, words(text).next()).map(|_| text.to_owned())
}

/// The words of a filter that stand alone and are no level: its own parser takes `inof` for a target of that name.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_level = |word: &str| LEVELS.iter().any(|level| word.eq_ignore_ascii_case(level));
    text.split(',')
        .map(str::trim)
        .filter(move |word| !word.contains(['=', '[']) && !is_level(word))
}

/// The level that a word comes near to, or that other programs call so.
fn level_meant_by(word: &str) -> Option<&'static str> {
    let word = word.to_lowercase();
    match word.as_str() {
        "warning" => Some("warn"),
        "notice" => Some("info"),
        "verbose" => Some("debug"),
        "err" | "crit" | "critical" | "fatal" | "alert" | "emerg" => Some("error"),
        "none" => Some("off"),
        _ => nearest(&word, LEVELS),
    }
}

/// Whether a word begins as a number does, which no target does, and is none that stands for a level.
fn is_wrong_number(word: &str) -> bool {
    let begins = |first: char| first.is_ascii_digit() || matches!(first, '+' | '-');
    word.starts_with(begins) && word.parse().map_or(true, |number: u64| number > NUMBER_MAX)
}

/// Reads a `tracing` filter, or refuses it for a word.
fn filter(text: &str, word: Option<&str>) -> Result<EnvFilter, Flaw> {
    if let Some(word) = word {
        let levels = LEVELS.join(", ");
        let flaw = Flaw::new(format!("`{word}` is not a level; they are {levels}"));
        return Err(match level_meant_by(word) {
            Some(level) => flaw.help(format!("did you mean `{level}`?")),
            None => flaw,
        });
    }
    EnvFilter::builder()
        .parse(text)
        .map_err(|error| Flaw::new(format!("`{text}` is not a filter: {error}")))
}

fn access_log(table: &Reader<'_>) -> AccessLog {
    AccessLog {
        path: table.parsed("path", access_log_path).flatten(),
        format: match table.choice("format") {
            "json" => AccessFormat::Json,
            _ => AccessFormat::Combined,
        },
        buffer_bytes: table.size("buffer") as usize,
    }
}

fn access_log_path(text: &str) -> Result<Option<PathBuf>, Flaw> {
    match text {
        "-" => Ok(None),
        "" => Err(Flaw::new("the path is empty").help(r#"write "-" for standard output"#)),
        _ if text.contains('\0') => Err(Flaw::new("the path has a NUL character")),
        _ => Ok(Some(PathBuf::from(text))),
    }
}

fn timeouts(table: &Reader<'_>, complaints: &Complaints<'_>) -> Timeouts {
    let timeouts = Timeouts {
        client_header: table.duration("client_header"),
        client_body: table.duration("client_body"),
        keep_alive: table.duration("keep_alive"),
        write: table.duration("write"),
        tunnel_idle: table.duration("tunnel_idle"),
        client_body_min_rate: table.size_or_word("client_body_min_rate"),
        response_min_rate: table.size_or_word("response_min_rate"),
        min_rate_grace: table.duration("min_rate_grace"),
        client_gone_check: table.duration_or_word("client_gone_check"),
    };
    let rates = [timeouts.client_body_min_rate, timeouts.response_min_rate];
    if table.changes("min_rate_grace") && rates == [None, None] {
        let flaw = Flaw::new("min_rate_grace never acts: no least rate is set")
            .help("give client_body_min_rate or response_min_rate");
        complaints.warning(&table.span_of("min_rate_grace"), flaw);
    }
    timeouts
}

fn limits(table: &Reader<'_>, has_rates: bool, complaints: &Complaints<'_>) -> Limits {
    let limits = Limits {
        head_bytes: table.size("head") as usize,
        header_count: table.number("header_count") as usize,
        uri_bytes: table.size("uri") as usize,
        underscores: match table.choice("underscores") {
            "drop" => Underscores::Drop,
            "refuse" => Underscores::Refuse,
            _ => Underscores::Pass,
        },
        body_bytes: table.size_or_word("body"),
        requests_per_connection: table.number_or_word("requests_per_connection"),
        connections_per_shard: table.number("connections_per_shard") as usize,
        connections: table
            .number_or_word("connections")
            .map(|count| count as usize),
        connections_per_client: table
            .number_or_word("connections_per_client")
            .map(|count| count as usize),
        client_v6_prefix: table.number("client_v6_prefix") as u8,
        max_in_flight: table
            .number_or_word("max_in_flight")
            .map(|count| count as usize),
        memory_bytes: table.size_or_word("memory"),
    };
    let key = "connections_per_client";
    let counts_clients = table.changes(key) || table.refuses(key) || has_rates;
    if table.changes("client_v6_prefix") && !counts_clients {
        let flaw = Flaw::new("client_v6_prefix never acts: clients have no limits");
        let flaw = flaw.help("set connections_per_client, or add [rate_limit]");
        complaints.warning(&table.span_of("client_v6_prefix"), flaw);
    }
    if table.gives("uri") && limits.uri_bytes >= limits.head_bytes {
        let head = units::Size(limits.head_bytes as u64);
        let flaw = Flaw::new(format!(
            "uri never acts: a request target is part of the head, which ends at {head}"
        ));
        complaints.warning(&table.span_of("uri"), flaw);
    }
    limits
}

fn rate_limit(table: &Reader<'_>, complaints: &Complaints<'_>) -> RateLimit {
    let texts = table.texts("exempt").into_iter();
    let exempt = texts
        .filter_map(|text| complaints.check(&text.span(), address::network(text.get_ref())))
        .collect();
    // A missing or refused number has been complained about.
    let given = table.number_or_word("requests");
    let requests = given.unwrap_or(1);
    let (period, burst) = (
        table.duration("period"),
        table.number_or_word("burst").unwrap_or(requests),
    );
    let fill_us = period.as_micros() * u128::from(burst) / u128::from(requests);
    if given.is_some() && fill_us > RateLimit::FILL_MAX.as_micros() {
        let max = units::Span(RateLimit::FILL_MAX);
        let days = fill_us.div_ceil(Duration::from_secs(24 * 60 * 60).as_micros());
        let flaw = Flaw::new(format!(
            "burst is {burst}: it takes {days} days to come back, longer than {max}"
        ));
        let help =
            "the time is burst x period / requests; lower burst or period, or raise requests";
        complaints.error(&table.span_of("burst"), flaw.help(help));
    }
    RateLimit {
        requests,
        period,
        burst,
        clients: table.number("clients") as usize,
        exempt,
    }
}

fn forward(table: &Reader<'_>, complaints: &Complaints<'_>) -> Forward {
    let mut trusted_proxies = Vec::new();
    for text in table.texts("trusted_proxies") {
        let Some(network) = complaints.check(&text.span(), address::network(text.get_ref())) else {
            continue;
        };
        if network.prefix_len() == 0 {
            let flaw = Flaw::new(format!(
                "`{network}` lets every client claim any address in X-Forwarded-For"
            ));
            complaints.warning(
                &text.span(),
                flaw.help("list the proxies in front of this one only"),
            );
        }
        trusted_proxies.push(network);
    }
    Forward {
        trusted_proxies,
        x_forwarded: table.flag("x_forwarded"),
        forwarded: table.flag("forwarded"),
        via: table.flag("via"),
        served_by: table.flag("served_by"),
    }
}
