"""The proxies that meet the faults, and one setting for all of them: the same timeouts, further tries and checks.

Each speaks keep-alive on both sides, names the server in X-Served-By, and gets two threads or processes. Nobody logs requests.
"""

import csv
import dataclasses
import pathlib
import shutil
import signal
import subprocess

from . import lab as labs

FALL, RISE, DRAIN = 3, 2, "10s"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Times that all proxies are set to, as text that all of them read."""

    # A client's head, each piece of its body, the wait for its next request, and for room for the answer.
    client: str = "2s"
    connect: str = "500ms"
    # For a server's answer, and each piece of it.
    response: str = "1s"
    tunnel: str = "3s"
    # Silence after which the kernel asks a client whether it is there, and the time between its four questions.
    keepalive: str = "1m"
    keepalive_interval: str = "15s"
    check_interval: str = "500ms"
    check_fast: str = "250ms"
    check_timeout: str = "500ms"
    # How long a tunnel may be silent.
    tunnel: str = "3s"
    # Further tries of a request that may be sent again.
    retries: int = 1


class Proxy:
    """What the suite asks of a proxy."""

    name = ""
    # The signal that ends it in good order, and what its log must say then.
    graceful = signal.SIGTERM
    drained = ""
    # A body is passed on as it comes, not kept until it is complete.
    streams_uploads = True

    def __init__(self, binary):
        self.binary = binary

    def version(self):
        """Its name and version."""
        done = subprocess.run([self.binary, "-v"], capture_output=True, text=True, check=True)
        return " ".join((done.stdout or done.stderr).removeprefix("nginx version: ").replace("/", " ").split()[:3]).replace(" version", "")

    def command(self, directory, settings, place):
        """Writes its configuration; the command that starts it. `place` is a `lab.Place`."""
        raise NotImplementedError

    def state(self, lab):
        """What it says of server a: up, down, ejected; `None` if it says nothing."""
        return None


class Ringlane(Proxy):
    """Ourselves."""

    name = "ringlane"
    drained = "drained"

    def version(self):
        return subprocess.run([self.binary, "--version"], capture_output=True, text=True, check=True).stdout.strip()

    def command(self, directory, settings, place):
        path = directory / "ringlane.toml"
        servers = ", ".join(f'{{ address = "{server}", name = "{name}" }}' for name, server in place.servers.items())
        client = "\n".join(f'{key} = "{settings.client}"' for key in ("client_header", "client_body", "keep_alive", "write"))
        path.write_text(
            f"""shards = 2
pin = false
shutdown_timeout = "{DRAIN}"
[admin]
address = "{place.address}:{place.admin_port}"
orders = false
[timeouts]
{client}
tunnel_idle = "{settings.tunnel}"
[forward]
served_by = true
[[listen]]
address = "{place.address}:{place.port}"
tcp_keepalive = "{settings.keepalive}"
[[upstream]]
name = "app"
server = [{servers}]
retries = {settings.retries}
connect_timeout = "{settings.connect}"
response_header_timeout = "{settings.response}"
response_body_timeout = "{settings.response}"
[upstream.health]
interval = "{settings.check_interval}"
fast_interval = "{settings.check_fast}"
timeout = "{settings.check_timeout}"
rise = {RISE}
fall = 2
[upstream.passive]
fall = {FALL}
window = "10s"
eject = "1s"
eject_max = "2s"
""",
            encoding="utf-8",
        )
        return [self.binary, "run", "--config", path]

    def state(self, lab):
        return {server["name"]: server["state"] for server in lab.status()["upstreams"][0]["servers"]}["a"]


class Nginx(Proxy):
    """nginx without its commercial modules: no active checks, and no page that says how servers are."""

    name = "nginx"
    graceful = signal.SIGQUIT
    streams_uploads = False

    def command(self, directory, settings, place):
        path = directory / "nginx.conf"
        servers = "\n        ".join(f"server {server} max_fails={FALL} fail_timeout=1s;" for server in place.servers.values())
        names = "\n        ".join(f"~{server}$ {name};" for name, server in place.servers.items())
        places = "\n    ".join(f"{part}_temp_path {directory}/{part};" for part in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        path.write_text(
            f"""daemon off;
user root;
worker_processes 2;
worker_shutdown_timeout {DRAIN};
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    {places}
    client_header_timeout {settings.client};
    client_body_timeout {settings.client};
    keepalive_timeout {settings.client};
    send_timeout {settings.client};
    client_max_body_size 0;
    map $upstream_addr $served_by {{
        {names}
    }}
    map $http_upgrade $connection_upgrade {{
        "" "";
        default upgrade;
    }}
    upstream app {{
        zone app 64k;
        {servers}
        keepalive 32;
    }}
    server {{
        listen {place.address}:{place.port} so_keepalive={settings.keepalive}:{settings.keepalive_interval}:4;
        location / {{
            proxy_pass http://app;
            proxy_http_version 1.1;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Host $http_host;
            proxy_connect_timeout {settings.connect};
            proxy_send_timeout {settings.response};
            proxy_read_timeout {settings.response};
            proxy_next_upstream error timeout invalid_header;
            proxy_next_upstream_tries {settings.retries + 1};
            add_header X-Served-By $served_by;
        }}
    }}
}}
""",
            encoding="utf-8",
        )
        return [self.binary, "-c", path, "-p", directory]


class HAProxy(Proxy):
    """HAProxy. Second tries of requests that a server may have seen are for safe methods only: by itself it does not look at the method."""

    name = "haproxy"
    graceful = signal.SIGUSR1

    def command(self, directory, settings, place):
        path = directory / "haproxy.cfg"
        checks = f"check inter {settings.check_interval} fastinter {settings.check_fast} rise {RISE} fall 2 observe layer7 error-limit {FALL} on-error mark-down"
        servers = "\n    ".join(f"server {name} {server} {checks}" for name, server in place.servers.items())
        path.write_text(
            f"""global
    nbthread 2
    hard-stop-after {DRAIN}
defaults
    mode http
    timeout http-request {settings.client}
    timeout http-keep-alive {settings.client}
    timeout client {settings.client}
    timeout connect {settings.connect}
    timeout server {settings.response}
    timeout check {settings.check_timeout}
    timeout tunnel {settings.tunnel}
    option clitcpka
    clitcpka-idle {settings.keepalive}
    clitcpka-intvl {settings.keepalive_interval}
    clitcpka-cnt 4
    option abortonclose
frontend clients
    bind {place.address}:{place.port}
    default_backend app
backend app
    balance roundrobin
    option httpchk GET /health
    option redispatch 1
    retries {settings.retries}
    retry-on conn-failure empty-response junk-response response-timeout
    http-request disable-l7-retry unless {{ method GET HEAD OPTIONS }}
    http-response set-header X-Served-By %s
    http-response set-header Date %[date,http_date]
    {servers}
listen admin
    bind {place.address}:{place.admin_port}
    stats enable
    stats uri /lb/status
""",
            encoding="utf-8",
        )
        return [self.binary, "-db", "-f", path]

    def state(self, lab):
        rows = csv.DictReader(lab.page("/lb/status;csv").removeprefix("# ").splitlines())
        status = next(row["status"] for row in rows if (row["pxname"], row["svname"]) == ("app", "a"))
        return status.split()[0].lower()


KINDS = {kind.name: kind for kind in (Ringlane, Nginx, HAProxy)}


def program(name):
    """Where a peer's program is; Debian keeps servers where an ordinary user's PATH does not reach."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise labs.Failure(f"{name} is missing: apt-get install {name}")
    return pathlib.Path(found)

