//! The proxies that the cases can be held against, each with one origin behind it and the same timeouts.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::support::{Config, Mode, PATIENCE, Proxy};

/// Which proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Ringlane(Mode),
    Nginx,
    Haproxy,
}

/// One that runs.
pub(crate) enum Running {
    /// Boxed, for it is much larger than the other.
    Ringlane(Box<Proxy>),
    Peer(Peer),
}

/// A process of somebody else's program.
pub(crate) struct Peer {
    child: Child,
    address: SocketAddr,
    directory: PathBuf,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        std::fs::remove_dir_all(&self.directory).ok();
    }
}

impl Running {
    /// An error when the process has ended by itself: the cases since then say nothing.
    pub(crate) fn check(&mut self) -> Result<(), String> {
        let Self::Peer(peer) = self else {
            return Ok(()); // says so itself when it is dropped
        };
        match peer.child.try_wait() {
            Ok(None) => Ok(()),
            ended => Err(format!("the proxy ended during the run: {ended:?}")),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Ringlane(proxy) => proxy.addresses[0],
            Self::Peer(peer) => peer.address,
        }
    }
}

/// What all three are set to: a silent peer is given up after two seconds, and nothing is tried twice.
const RINGLANE: &str = "\
[timeouts]
client_header = \"2s\"
client_body = \"2s\"
keep_alive = \"5s\"
";
const RINGLANE_UPSTREAM: &str =
    "retries = 0\nresponse_header_timeout = \"2s\"\nresponse_body_timeout = \"2s\"\n";

/// Connections to the origin are kept, upgrades pass, the client's host is told: as its documentation advises for a proxy.
const NGINX: &str = "\
daemon off;
master_process off;
USER
pid DIRECTORY/nginx.pid;
error_log DIRECTORY/error.log warn;
events { worker_connections 512; }
http {
    access_log off;
    client_body_temp_path DIRECTORY/body;
    proxy_temp_path DIRECTORY/proxy;
    fastcgi_temp_path DIRECTORY/fastcgi;
    uwsgi_temp_path DIRECTORY/uwsgi;
    scgi_temp_path DIRECTORY/scgi;
    client_header_timeout 2s;
    client_body_timeout 2s;
    keepalive_timeout 5s;
    lingering_timeout 1s;
    client_max_body_size 0;
    map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
    upstream origin { server ORIGIN; keepalive 16; }
    server {
        listen ADDRESS;
        location / {
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_read_timeout 2s;
            proxy_send_timeout 2s;
            proxy_next_upstream off;
            proxy_buffer_size 16k;
            proxy_buffers 8 16k;
            proxy_pass_header Date;
            proxy_pass_header Server;
        }
    }
}
";

const HAPROXY: &str = "\
global
    maxconn 512
    nbthread 1
defaults
    mode http
    timeout connect 1s
    timeout client 2s
    timeout server 2s
    timeout http-request 2s
    timeout http-keep-alive 5s
    timeout tunnel 5s
    option forwardfor
frontend client
    bind ADDRESS
    default_backend origin
backend origin
    http-reuse always
    server origin ORIGIN
";

impl Target {
    /// What it is called on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ringlane(_) => "ringlane",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
        }
    }

    /// Name and version.
    pub(crate) fn version(self) -> String {
        let (title, skipped) = match self {
            Self::Ringlane(_) => return format!("Ringlane {}", env!("CARGO_PKG_VERSION")),
            Self::Nginx => ("nginx", "nginx version: nginx/"),
            Self::Haproxy => ("HAProxy", "HAProxy version "),
        };
        let output = Command::new(self.name()).arg("-v").output();
        let text = output.map_or_else(
            |error| error.to_string(),
            |output| String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        );
        let rest = text.trim_start_matches(skipped);
        let version = rest.split(['-', ' ', '\n']).next().unwrap_or_default();
        format!("{title} {version}")
    }

    /// Starts it in front of `origin`. Several at once do not get in each other's way: a peer whose port somebody else took is
    /// started again.
    pub(crate) fn start(self, origin: SocketAddr) -> Result<Running, String> {
        match self {
            Self::Ringlane(mode) => Ok(Running::Ringlane(Box::new(
                Config::new(mode)
                    .tables(RINGLANE)
                    .upstream(&[&origin.to_string()], RINGLANE_UPSTREAM)
                    .start(),
            ))),
            Self::Nginx => self
                .peer(NGINX, origin)
                .or_else(|_| self.peer(NGINX, origin)),
            Self::Haproxy => self
                .peer(HAPROXY, origin)
                .or_else(|_| self.peer(HAPROXY, origin)),
        }
    }

    fn peer(self, template: &str, origin: SocketAddr) -> Result<Running, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", self.name());
        let address = free_address().map_err(failed)?;
        let directory = std::env::temp_dir().join(format!(
            "ringlane-conformance-{}-{}",
            std::process::id(),
            address.port()
        ));
        std::fs::create_dir_all(&directory).map_err(failed)?;
        // Without this directive root's workers become somebody who may not write to the directory.
        let root = std::fs::metadata("/proc/self").is_ok_and(|own| {
            use std::os::unix::fs::MetadataExt as _;
            own.uid() == 0
        });
        let text = template
            .replace("USER", if root { "user root;" } else { "" })
            .replace("DIRECTORY", &directory.display().to_string())
            .replace("ADDRESS", &address.to_string())
            .replace("ORIGIN", &origin.to_string());
        let file = directory.join("conf");
        std::fs::write(&file, text).map_err(failed)?;
        let mut command = Command::new(self.name());
        match self {
            Self::Haproxy => command.args(["-db", "-f"]).arg(&file),
            _ => command.arg("-p").arg(&directory).arg("-c").arg(&file),
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let mut peer = Peer {
            child,
            address,
            directory,
        };
        peer.await_listener()?;
        Ok(Running::Peer(peer))
    }
}

impl Peer {
    fn await_listener(&mut self) -> Result<(), String> {
        let start = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("it ended at start: {status}"));
            }
            if start.elapsed() > PATIENCE {
                return Err("it does not listen".to_owned());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

/// An address that was free a moment ago.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}
