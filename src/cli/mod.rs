//! The command line: one file a subcommand.
//!
//! Exit codes: 0 done, 1 failed while running, 2 wrong use or a configuration that is refused.

mod check;
mod client;
mod ctl;
mod demo;
mod log;
mod origin;
mod place;
mod plan;
mod relay;
mod run;
mod table;
mod top;

use std::env;
use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::config::{Config, Reading};

/// Exit code for wrong use and refused configurations, as clap has it.
const WRONG_USE: u8 = 2;

const ABOUT: &str = "HTTP reverse proxy and load balancer for Linux: io_uring, one shard per core";

const EXAMPLES: &str = "\
Examples:
  ringlane demo
  ringlane check --config config/ringlane.toml
  ringlane run --config config/ringlane.toml
  ringlane ctl status
  RUST_LOG=debug ringlane run --config config/ringlane.toml

`ringlane help COMMAND` says more about a command.
Every key of the configuration is in docs/configuration.md.";

#[derive(Parser, Debug)]
#[command(name = "ringlane", version, about = ABOUT, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the proxy until SIGTERM or SIGINT
    Run(run::RunArgs),
    /// Say what is wrong with a configuration, or what would run
    Check(check::CheckArgs),
    /// Show and steer a running proxy
    Ctl(ctl::CtlArgs),
    /// Run three sample origins and the proxy in front of them
    Demo(demo::DemoArgs),
    /// Watch a running proxy in the terminal
    Top(top::TopArgs),
    /// Run a sample origin to put behind a proxy
    Origin(origin::OriginArgs),
    /// Run a plain TCP byte relay, the floor of the comparison
    Relay(relay::RelayArgs),
}

/// The option that says which configuration to read.
#[derive(Args, Debug)]
struct ConfigFile {
    /// The configuration, a TOML file
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    path: PathBuf,
}

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => match cli.command {
            Command::Run(args) => run::run(&args),
            Command::Check(args) => check::run(&args),
            Command::Ctl(args) => ctl::run(&args),
            Command::Demo(args) => demo::run(&args),
            Command::Top(args) => top::run(&args),
            Command::Origin(args) => origin::run(&args),
            Command::Relay(args) => relay::run(&args),
        },
        Err(answer) => {
            print(&answer);
            ExitCode::from(answer.exit_code() as u8)
        }
    }
}

/// Prints help, version or what is wrong, the latter with a usage line, which clap leaves out of some messages.
fn print(answer: &clap::Error) {
    // Nobody is left to tell when it cannot be printed.
    let _ = answer.print();
    if answer.use_stderr() && !answer.to_string().contains("Usage:") {
        say(&format!("\n{}", usage(env::args_os().skip(1))));
    }
}

/// The usage line of the command that these arguments name.
fn usage(arguments: impl Iterator<Item = OsString>) -> impl Display {
    let mut named = Cli::command();
    // Has each command know those that it stands under.
    named.build();
    for argument in arguments {
        if let Some(command) = named.find_subcommand(&argument) {
            named = command.clone();
        }
    }
    named.render_usage()
}

/// Prints a line on standard error, if that is still open.
fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Reads a configuration and prints its errors and warnings on standard error.
fn load(path: &Path) -> Option<Config> {
    let Reading { config, complaints } = Reading::load(path);
    for complaint in &complaints {
        say(&format!("{complaint}\n"));
    }
    if config.is_none() {
        say(&format!("{} is refused", path.display()));
    }
    config
}
