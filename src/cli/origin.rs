//! `ringlane origin`: sample origins to put behind a proxy.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::thread;

use clap::Args;

use super::say;
use crate::origin;

const AFTER_HELP: &str = "\
Paths:
  /bytes/N      N bytes with Content-Length
  /chunked/N    N bytes in chunks
  /slow/MS      the text of / after so many milliseconds
  /status/CODE  this status, 200 to 599
  /echo         the request's body
  /headers      the request's head
  /events       server-sent events
Any other path is answered with a line that names the origin.";

/// Options of `ringlane origin`.
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(super) struct OriginArgs {
    /// Address to listen on; port 0 lets the kernel choose. Given several times, one thread serves them all.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9001")]
    listen: Vec<SocketAddr>,
    /// Name in the answers; with several addresses a number follows it.
    #[arg(long, default_value = "origin")]
    name: String,
    /// CPU to run on.
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
}

/// Serves until the process is ended.
pub(super) fn run(args: &OriginArgs) -> ExitCode {
    match start(args) {
        Ok(()) => loop {
            thread::park();
        },
        Err(error) => {
            say(&format!("ringlane origin: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn start(args: &OriginArgs) -> io::Result<()> {
    let name = |index: usize| match args.listen.len() {
        1 => args.name.clone(),
        _ => format!("{}-{}", args.name, index + 1),
    };
    let origins = args
        .listen
        .iter()
        .enumerate()
        .map(|(index, &address)| (address, name(index)))
        .collect();
    for address in origin::spawn_all(origins, args.cpu)? {
        // They run as well without somebody to tell.
        let _ = writeln!(io::stdout(), "listening on http://{address}");
    }
    Ok(())
}
