//! `ringlane ctl`: shows and steers a running proxy through its status listener.

mod status;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::STRANGE;
use super::place::Place;
use super::{WRONG_USE, say};
use crate::config::{Admin, Token, read_token};

const VARIABLE: &str = "RINGLANE_TOKEN";
const WEIGHT_MAX: u16 = 1000;

const AFTER_HELP: &str = "\
The address is that of --admin, else that of [admin] in --config, else 127.0.0.1:9900.
The token is that of --token-file, else that of the variable RINGLANE_TOKEN, else that of [admin] in --config.
A proxy whose listener is on loopback and has no token takes orders without one.
Orders hold until the next order for the server, or until the proxy ends.

Examples:
  ringlane ctl status
  ringlane ctl drain app a --token-file /etc/ringlane/token
  ringlane ctl up app a --config /etc/ringlane/ringlane.toml

Exit code: 0 when done, 1 when the proxy cannot be reached or refuses, or another order came at the same time,
2 for wrong use.";

#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(super) struct CtlArgs {
    #[command(flatten)]
    place: Place,
    /// A file with the token
    #[arg(long, value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Show upstreams, servers and shards
    Status {
        /// Print the status page as it is
        #[arg(long)]
        json: bool,
    },
    /// Give a server no new requests, but let sticky clients go on
    Drain(Server),
    /// Give a server no requests at all
    Down(Server),
    /// Let a server serve again, as far as it is healthy
    Up(Server),
    /// Change a server's weight
    Weight {
        #[command(flatten)]
        server: Server,
        /// 0 to 1000, or `configured` for that of the configuration
        #[arg(value_parser = weight)]
        weight: Weight,
    },
}

#[derive(Args, Debug)]
struct Server {
    /// The upstream's name
    upstream: String,
    /// The server's name
    server: String,
}

/// `None` is the configured one.
type Weight = Option<u16>;

fn weight(text: &str) -> Result<Weight, String> {
    let number = || text.parse().ok().filter(|weight| *weight <= WEIGHT_MAX);
    match text {
        "configured" => Ok(None),
        _ => number()
            .map(Some)
            .ok_or_else(|| "a weight is 0 to 1000, or `configured`".to_owned()),
    }
}

/// Why a command ended without success: a sentence for the user.
enum Failure {
    /// What was given does not serve.
    Use(String),
    /// The proxy cannot be reached, or refused.
    Proxy(String),
}

pub(super) fn run(args: &CtlArgs) -> ExitCode {
    let (why, code) = match obey(args) {
        Ok(text) => {
            // A reader that has seen enough, such as head(1), is no failure.
            let _ = io::stdout().lock().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(Failure::Use(why)) => (why, ExitCode::from(WRONG_USE)),
        Err(Failure::Proxy(why)) => (why, ExitCode::FAILURE),
    };
    say(&format!("error: {why}"));
    code
}

/// What to print.
fn obey(args: &CtlArgs) -> Result<String, Failure> {
    let (server, order) = match &args.command {
        Command::Status { json } => return show(&args.place, *json),
        Command::Drain(server) => (server, json!({"state": "drain"})),
        Command::Down(server) => (server, json!({"state": "down"})),
        Command::Up(server) => (server, json!({"state": "up"})),
        Command::Weight { server, weight } => (server, json!({"weight": weight})),
    };
    let admin = args.place.configured().map_err(Failure::Use)?;
    let client = args.place.client(admin.as_ref()).map_err(Failure::Use)?;
    let token = token(args.token_file.as_deref(), admin)?;
    let path = format!(
        "/lb/servers/{}/{}",
        encoded(&server.upstream),
        encoded(&server.server)
    );
    let token = token.as_ref().map(Token::secret);
    let shown = client.post(&path, token, &order.to_string());
    let shown = shown.map_err(Failure::Proxy)?;
    let line = status::line(&server.upstream, &shown);
    let is_of_server = shown["name"] == *server.server;
    if !is_of_server || shown.get("order").is_none() || !shown["weight"].is_u64() {
        let why = format!("the answer does not show the order; {STRANGE}");
        return Err(Failure::Proxy(why));
    }
    if !is_carried_out(&order, &shown) {
        // The page is made after the order has been carried out.
        let why = format!("another order has come since: {}", line.trim_end());
        return Err(Failure::Proxy(why));
    }
    Ok(line)
}

/// Whether a server's page, which has a weight, shows what was ordered.
fn is_carried_out(order: &Value, page: &Value) -> bool {
    match (order["state"].as_str(), order["weight"].as_u64()) {
        (Some("up"), _) => page.get("order") == Some(&Value::Null),
        (Some(state), _) => page["order"] == state,
        (None, Some(weight)) => page["weight"] == weight,
        (None, None) => page["weight"] == page["configured_weight"],
    }
}

fn show(place: &Place, json: bool) -> Result<String, Failure> {
    let client = place.reader().map_err(Failure::Use)?;
    let (status, text) = client.status().map_err(Failure::Proxy)?;
    Ok(if json { text } else { status::page(&status) })
}

/// `None` when none is given: a proxy on loopback may want none.
fn token(file: Option<&Path>, configured: Option<Admin>) -> Result<Option<Token>, Failure> {
    if let Some(path) = file {
        let failed = |error| Failure::Use(format!("{}: {error}", path.display()));
        return read_token(path).map(Some).map_err(failed);
    }
    if let Some(text) = std::env::var_os(VARIABLE).filter(|text| !text.is_empty()) {
        let text = text.to_string_lossy();
        let failed = |error| Failure::Use(format!("{VARIABLE}: {error}"));
        return text.trim().parse().map(Some).map_err(failed);
    }
    Ok(configured.and_then(|admin| admin.token))
}

/// A name as a path segment (RFC 3986 section 3.3).
fn encoded(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte);
    let encode = |byte: u8| {
        if plain(byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    name.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded() {
        for (name, segment) in [
            ("app-1.a_b:80", "app-1.a_b:80"),
            ("unix:/run/a.sock", "unix:%2Frun%2Fa.sock"),
            ("[::1]:80", "%5B::1%5D:80"),
            ("é ", "%C3%A9%20"),
        ] {
            assert_eq!(encoded(name), segment);
        }
    }

    #[test]
    fn weights() {
        for (text, expected) in [
            ("0", Some(Some(0))),
            ("1000", Some(Some(1000))),
            ("configured", Some(None)),
            ("1001", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(weight(text).ok(), expected, "{text:?}");
        }
    }
}
