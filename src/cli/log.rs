//! The event log: `tracing` events on standard error.

use std::env;
use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{Log, LogFormat, check_log_filter};

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
    let given = variable.filter(|text| !text.is_empty());
    if let Some(text) = &given {
        check_log_filter(text).map_err(|error| format!("{VARIABLE}: {error}"))?;
    }
    // The configured one has been checked as well.
    let filter = given.as_deref().unwrap_or(configured);
    Ok(EnvFilter::builder().parse_lossy(filter))
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
