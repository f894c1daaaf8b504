//! `ringlane run`: the proxy.

use std::process::ExitCode;

use clap::Args;

use super::{ConfigFile, WRONG_USE, load, log, say};
use crate::server::{SERVICE_SIGNALS, Server};

const AFTER_HELP: &str = "\
SIGTERM and SIGINT stop accepting and let running exchanges finish, up to shutdown_timeout.
A second signal ends at once. SIGUSR1 opens the access log's file again, for log rotation. SIGHUP and SIGUSR2
change nothing: there is no reload yet. RUST_LOG sets the log's filter and wins over the configuration. It is
refused when it is no filter, or when a word in it is meant for a level and is none.

Exit code: 0 after a signal, 1 when the proxy cannot run or a second signal ended it, 2 for wrong use, or a
configuration or RUST_LOG that is refused.";

#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(super) struct RunArgs {
    #[command(flatten)]
    config: ConfigFile,
}

pub(super) fn run(args: &RunArgs) -> ExitCode {
    let Some(config) = load(&args.config.path) else {
        return ExitCode::from(WRONG_USE);
    };
    if let Err(error) = log::start(&config.log) {
        say(&format!("error: {error}"));
        return ExitCode::from(WRONG_USE);
    }
    match Server::start(config, &SERVICE_SIGNALS) {
        Ok(server) => server.wait(),
        Err(error) => {
            tracing::error!(%error, "cannot start");
            // A log that is off must not hide why nothing runs.
            if !tracing::enabled!(tracing::Level::ERROR) {
                say(&format!("error: cannot start: {error}"));
            }
            ExitCode::FAILURE
        }
    }
}
