//! `ringlane demo`: three sample origins and the proxy in front of them, in one program.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use super::{WRONG_USE, log, say};
use crate::config::{Complaint, Config};
use crate::origin;
use crate::server::{Server, TERMINAL_SIGNALS};
use clap::Args;

/// Names of the origins, and the ports they take when those are free.
const ORIGINS: [(&str, u16); 3] = [("a", 9001), ("b", 9002), ("c", 9003)];

/// Options of `ringlane demo`.
#[derive(Args, Debug)]
pub(super) struct DemoArgs {
    /// Address of the proxy.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Address of the status page.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9900")]
    admin: SocketAddr,
}

/// Runs until a signal ends it.
pub(super) fn run(args: &DemoArgs) -> ExitCode {
    match start(args) {
        Ok(server) => server.wait(),
        Err((message, code)) => {
            say(&format!("ringlane demo: {message}"));
            code
        }
    }
}

/// Starts the origins and the proxy, and says how to try them. The error is a sentence for the user, and how to exit.
fn start(args: &DemoArgs) -> Result<Server, (String, ExitCode)> {
    let failed = |error: &dyn Display| (error.to_string(), ExitCode::FAILURE);
    let wrong_use = |message| (message, ExitCode::from(WRONG_USE));
    if args.listen == args.admin && args.listen.port() != 0 {
        return Err(wrong_use(format!(
            "--listen and --admin are both {}: give one of them another port",
            args.listen
        )));
    }
    let mut origins = Vec::with_capacity(ORIGINS.len());
    for (name, port) in ORIGINS {
        let address = spawn_origin(name, port).map_err(|error| failed(&error))?;
        origins.push((name, address));
    }
    let text = config_text(args, &origins);
    let refused = |complaints: Vec<_>| wrong_use(join(&complaints));
    let config = Config::parse(&text, "demo").map_err(refused)?;
    log::start(&config.log).map_err(wrong_use)?;
    let server = Server::start(config, &TERMINAL_SIGNALS).map_err(|error| failed(&error))?;
    // It runs as well without somebody to tell.
    let _ = io::stdout().write_all(guide(&server, &origins).as_bytes());
    Ok(server)
}

/// Complaints, one a line. Only the two addresses of the command line can give cause for one.
fn join(complaints: &[Complaint]) -> String {
    let lines: Vec<String> = complaints.iter().map(Complaint::to_string).collect();
    lines.join("\n")
}

/// An origin at `port`, or at one that the kernel chooses when that is taken.
fn spawn_origin(name: &str, port: u16) -> io::Result<SocketAddr> {
    let at = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    match origin::spawn(at(port), name.to_owned(), None) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            origin::spawn(at(0), name.to_owned(), None)
        }
        outcome => outcome,
    }
}

/// The demo's configuration, as a user would write it. Its log tells what went wrong, and the guide the rest. It is
/// silent to root, who has no file here to name another user in.
fn config_text(args: &DemoArgs, origins: &[(&str, SocketAddr)]) -> String {
    let servers: Vec<String> = origins
        .iter()
        .map(|(name, address)| format!("{{ address = \"{address}\", name = \"{name}\" }}"))
        .collect();
    format!(
        "[admin]\n\
         address = \"{admin}\"\n\
         [forward]\n\
         served_by = true\n\
         [log]\n\
         level = \"warn,ringlane::privileges=error\"\n\
         [[listen]]\n\
         address = \"{listen}\"\n\
         [[upstream]]\n\
         name = \"demo\"\n\
         server = [ {servers} ]\n",
        admin = args.admin,
        listen = args.listen,
        servers = servers.join(", "),
    )
}

/// What is listening where, and lines to try.
fn guide(server: &Server, origins: &[(&str, SocketAddr)]) -> String {
    let mut lines = Vec::new();
    for address in server.listening() {
        lines.push(format!("proxy      http://{address}/"));
    }
    if let Some(admin) = server.admin() {
        lines.push(format!(
            "status     http://{admin}/lb/ in a browser, or ringlane top --admin {admin}"
        ));
    }
    for (name, address) in origins {
        lines.push(format!("origin {name}   http://{address}/"));
    }
    lines.push(format!("io mode    {}", server.io_mode()));
    if let Some(proxy) = server.listening().first() {
        lines.push(format!(
            "\nTry, in another terminal:\n\
             \x20 curl -i http://{proxy}/              # each shard takes the origins in turn\n\
             \x20 curl http://{proxy}/headers          # what an origin gets to see\n\
             \x20 curl -N http://{proxy}/events        # server-sent events leave at once\n\
             \x20 curl -o /dev/null http://{proxy}/bytes/1073741824\n\
             \x20 wrk -t2 -c64 -d10s --latency http://{proxy}/\n\
             \nCtrl-C ends it."
        ));
    }
    lines.join("\n") + "\n"
}
