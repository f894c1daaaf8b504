"""The proxies under comparison: their configuration for one core and the same work.

Each listens on one port, spreads requests in turn over the same origin ports, keeps connections to them, keeps the client's Host
and sends X-Forwarded-For, -Proto, -Host and X-Real-IP. Nobody logs requests. The relay is no proxy but the floor: it passes bytes on.
"""

import os
import re
import shutil
import subprocess

from .processes import Failure, Process

NGINX = """\
daemon off;
worker_processes 1;
{user}
pid {directory}/nginx.pid;
error_log stderr warn;
worker_rlimit_nofile {descriptors};
events {{
    worker_connections {connections};
    multi_accept on;
}}
http {{
    access_log off;
    client_body_temp_path {directory}/nginx-body;
    proxy_temp_path {directory}/nginx-proxy;
    fastcgi_temp_path {directory}/nginx-fastcgi;
    uwsgi_temp_path {directory}/nginx-uwsgi;
    scgi_temp_path {directory}/nginx-scgi;
    tcp_nodelay on;
    keepalive_timeout 3600s;
    keepalive_requests 1000000000;
    # Buffering is on, as by default; no body goes to disk. Larger buffers halve the user time of large bodies.
    proxy_buffering on;
    proxy_buffer_size 16k;
    proxy_buffers 16 64k;
    proxy_busy_buffers_size 128k;
    proxy_max_temp_file_size 0;
    upstream origins {{
        {nginx_servers}
        keepalive 1024;
        keepalive_requests 1000000000;
        keepalive_timeout 3600s;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://origins;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $http_host;
            proxy_set_header X-Real-IP $remote_addr;
        }}
    }}
}}
"""

HAPROXY = """\
global
    nbthread 1
    maxconn {connections}
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout http-keep-alive 1h
    timeout http-request 10s
    option forwardfor
    http-reuse always
frontend clients
    bind 127.0.0.1:{port} backlog 4096
    http-request set-header X-Forwarded-Proto http
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request set-header X-Real-IP %[src]
    default_backend origins
backend origins
    balance roundrobin
    {haproxy_servers}
"""

RINGLANE = """\
cpus = "{cpu}"
io = "{io}"
[admin]
enabled = false
[timeouts]
keep_alive = "1h"
[[listen]]
address = "127.0.0.1:{port}"
backlog = 4096
[[upstream]]
name = "origins"
policy = "{policy}"
pool = {{ max_idle = 1024, idle_timeout = "1h", max_age = "off", max_requests = "off" }}
server = [ {ringlane_servers} ]
"""

# Ringlane's policies for balancing, each under comparison as a proxy of its own. The first is what the others are held against.
POLICIES = (
    "round_robin",
    "least_connections",
    "random",
    "two_choices",
    "ip_hash",
    "hash",
    "first",
    "least_latency",
)

# Packages that have what may be missing, and the words to get it with.
SOURCES = {
    "nginx": "apt-get install nginx",
    "haproxy": "apt-get install haproxy",
    "wrk": "apt-get install wrk",
    "oha": "cargo install oha",
    "valgrind": "apt-get install valgrind",
    "callgrind_control": "apt-get install valgrind",
    "callgrind_annotate": "apt-get install valgrind",
}


def missing_programs(proxies, generator):
    """What is not installed, one line each."""
    return missing([*(name for name in ("nginx", "haproxy") if name in proxies), generator])


def missing(wanted):
    """The programs among those wanted that are not installed, one line each."""
    return [f"{name} is missing: {SOURCES[name]}" for name in wanted if program(name) is None]


def program(name):
    """Where a program is; Debian keeps servers where an ordinary user's PATH does not reach."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


class Setting:
    """What a comparison's proxies have in common."""

    def __init__(self, binary, directory, cpu, origin_ports, descriptors, before=None):
        self.binary = binary
        self.before = before
        self.directory = directory
        self.cpu = cpu
        self.origin_ports = origin_ports
        self.descriptors = descriptors
        # A proxy holds up to two descriptors for each client connection.
        self.connections = min(16384, descriptors // 2 - 64)


def process(name, setting, port):
    """The process of the proxy `name`, listening on `port`; its configuration is written."""
    if name in POLICIES:
        command = ringlane(setting, port, name)
    else:
        commands = {"nginx": nginx, "haproxy": haproxy, "relay": relay, "ringlane": ringlane, "before": before}
        command = commands[name](setting, port)
    return Process(name, command, setting.cpu, setting.directory)


def nginx(setting, port):
    path = setting.directory / "nginx.conf"
    path.write_text(
        NGINX.format(
            # Started by root, its worker would else be a user who cannot enter our directory.
            user="user root;" if os.geteuid() == 0 else "",
            directory=setting.directory,
            descriptors=setting.descriptors,
            connections=2 * setting.connections,
            port=port,
            nginx_servers="\n        ".join(f"server 127.0.0.1:{origin};" for origin in setting.origin_ports),
        )
    )
    return [program("nginx"), "-c", path, "-p", setting.directory]


def haproxy(setting, port):
    path = setting.directory / "haproxy.cfg"
    servers = [f"server origin{n} 127.0.0.1:{origin}" for n, origin in enumerate(setting.origin_ports, 1)]
    path.write_text(
        HAPROXY.format(connections=setting.connections, port=port, haproxy_servers="\n    ".join(servers))
    )
    return [program("haproxy"), "-db", "-f", path]


def relay(setting, port):
    to = [word for origin in setting.origin_ports for word in ("--to", f"127.0.0.1:{origin}")]
    return [setting.binary, "relay", "--listen", f"127.0.0.1:{port}", "--cpu", setting.cpu, *to]


def ringlane(setting, port, policy=POLICIES[0], io="auto"):
    path = setting.directory / "ringlane.toml"
    servers = ", ".join(f'{{ address = "127.0.0.1:{origin}" }}' for origin in setting.origin_ports)
    path.write_text(RINGLANE.format(cpu=setting.cpu, io=io, port=port, policy=policy, ringlane_servers=servers))
    return [setting.binary, "run", "--config", path]


def before(setting, port):
    return [setting.before, *ringlane(setting, port)[1:]]


def versions(proxies, generator, binary):
    """What each program calls its version."""
    commands = {
        "nginx": [program("nginx"), "-v"],
        "haproxy": [program("haproxy"), "-v"],
        "relay": [binary, "--version"],
        "ringlane": [binary, "--version"],
        "wrk": [program("wrk"), "-v"],
        "oha": [program("oha"), "--version"],
    }
    programs = ["ringlane" if name in (*POLICIES, "before") else name for name in proxies]
    return {name: version(commands[name]) for name in dict.fromkeys([*programs, generator])}


def version(command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except OSError as error:
        raise Failure(f"{command[0]}: {error}") from error
    found = re.search(r"\d+\.\d+\S*", done.stdout + done.stderr)
    return found.group(0) if found else "unknown"
