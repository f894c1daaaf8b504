//! `ringlane relay`: a plain TCP byte relay, the floor in the comparison.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::thread;

use clap::Args;

use super::say;
use crate::relay;

/// Options of `ringlane relay`.
#[derive(Args, Debug)]
pub(super) struct RelayArgs {
    /// Address to listen on; port 0 lets the kernel choose.
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// Server to relay to. Given several times, connections go to each in turn.
    #[arg(long, value_name = "ADDR", required = true)]
    to: Vec<SocketAddr>,
    /// CPU to run on.
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
}

/// Relays until the process is ended.
pub(super) fn run(args: &RelayArgs) -> ExitCode {
    match relay::spawn(args.listen, args.to.clone(), args.cpu) {
        Ok(address) => {
            // It runs as well without somebody to tell.
            let _ = writeln!(io::stdout(), "listening on {address}");
            loop {
                thread::park();
            }
        }
        Err(error) => {
            say(&format!("ringlane relay: {error}"));
            ExitCode::FAILURE
        }
    }
}
