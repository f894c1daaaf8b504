//! The event log: `tracing` events on standard error.

use std::env;
use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{Log, LogFormat, environment_filter};

const VARIABLE: &str = "RUST_LOG";

/// Starts the log. The environment variable `RUST_LOG` wins over the configured filter.
///
/// # Errors
///
/// A sentence for the user: the variable holds no filter.
pub(super) fn start(log: &Log) -> Result<(), String> {
    let filter = filter(env::var(VARIABLE).ok(), &log.level)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    let started = match log.format {
        LogFormat::Text => builder.with_ansi(colours()).finish().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init(),
    };
    started.map_err(|error| format!("the log cannot start: {error}"))
}

fn filter(variable: Option<String>, configured: &str) -> Result<EnvFilter, String> {
    match variable.filter(|text| !text.is_empty()) {
        Some(text) => environment_filter(&text).map_err(|error| format!("{VARIABLE}: {error}")),
        // It has been checked.
        None => Ok(EnvFilter::builder().parse_lossy(configured)),
    }
}

/// Colours are for terminals, and for people who have not turned them off (no-color.org).
fn colours() -> bool {
    io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_wins_over_the_configuration() {
        // (variable, configured, filter)
        let cases = [
            (None, "info", Some("info")),
            (Some(""), "info", Some("info")),
            (Some("debug"), "info", Some("debug")),
            (Some("ringlane=trace"), "warn", Some("ringlane=trace")),
            (Some("ringlane=nonsense"), "info", None),
            (Some("inof"), "info", None),
            (Some("INOF,ringlane=debug"), "info", None),
            // Others heed the variable too: it may name what is none of ours.
            (Some("my_crate"), "info", Some("my_crate=trace")),
            (Some("ringlane"), "info", Some("ringlane=trace")),
            (
                Some("warn,ringlane::health"),
                "info",
                Some("ringlane::health=trace,warn"),
            ),
            (Some("info,"), "warn", Some("info")),
            (Some(",info"), "warn", Some("info")),
            (Some("3"), "warn", Some("info")),
            (Some("6"), "warn", None),
            (Some("-1"), "warn", None),
            (Some("99999999999999999999"), "warn", None),
            (Some("err"), "warn", None),
            (Some("WARNING"), "info", None),
            (Some("info,verbose"), "info", None),
        ];
        for (variable, configured, expected) in cases {
            let found = filter(variable.map(str::to_owned), configured).ok();
            assert_eq!(
                found.map(|filter| filter.to_string()).as_deref(),
                expected,
                "{variable:?} {configured}"
            );
        }
    }
}
