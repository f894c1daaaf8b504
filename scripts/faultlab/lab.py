"""Three network namespaces (clients, proxy, origins), the processes in them, and what the status page says."""

import asyncio
import contextlib
import ctypes
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
CLIENT, GOING, PROXY, PROXY_BACK, ORIGIN = "10.77.0.1", "10.77.0.3", "10.77.0.2", "10.77.1.1", "10.77.1.2"
PORT, ADMIN_PORT = 27000, 27001
ORIGIN_PORTS = {"a": 27002, "b": 27003}
RELAY_OFFSET = 10


class Failure(Exception):
    """The suite cannot go on; the text says why and what to do."""


def missing():
    """What is missing on this machine, in words."""
    lacks = [f"{name} ({package})" for name, package in (("ip", "iproute2"), ("nft", "nftables"), ("cc", "gcc")) if not shutil.which(name)]
    lacks = [f"the program {lack}" for lack in lacks]
    if os.geteuid() != 0:
        lacks.append("root, for network namespaces")
    elif not lacks:
        try:
            with Network():
                pass
        except Failure as failure:
            lacks.append(f"the right to make network namespaces, links and filters: {failure}")
    return lacks


def run(*command, text=None):
    """Runs a command that must succeed."""
    done = subprocess.run([str(part) for part in command], input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout


def end_with_parent():
    """In a child: it ends when this program does, however that ends."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setpgid(0, 0)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a proxy listens, for clients and for who asks how it is, and where its servers are: `name: "address:port"`."""

    address: str
    port: int
    admin_port: int
    servers: dict


class Network:
    """The namespaces and their links. Use it in a `with` block."""

    def __init__(self):
        self.names = {role: f"rl{os.getpid()}{role}" for role in ("client", "proxy", "origin")}

    def __enter__(self):
        try:
            self.build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def build(self):
        """Makes all; what was made stays where it fails."""
        for name in self.names.values():
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        self.link("client", "c0", [CLIENT, GOING], "proxy", "p0", [PROXY])
        self.link("proxy", "p1", [PROXY_BACK], "origin", "o0", [ORIGIN])
        for role in self.names:
            self.nft(role, "add table inet fault")
            for hook in ("input", "output"):
                self.nft(role, f"add chain inet fault {hook} {{ type filter hook {hook} priority 0; }}")

    def __exit__(self, *_):
        for name in self.names.values():
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def link(self, one, one_end, one_addresses, other, other_end, other_addresses):
        """Joins two namespaces."""
        one, other = self.names[one], self.names[other]
        run("ip", "-n", one, "link", "add", one_end, "type", "veth", "peer", "name", other_end, "netns", other)
        for name, end, addresses in ((one, one_end, one_addresses), (other, other_end, other_addresses)):
            for address in addresses:
                run("ip", "-n", name, "address", "add", f"{address}/24", "dev", end)
            run("ip", "-n", name, "link", "set", end, "up")

    def nft(self, role, command):
        """One command of nft(8)."""
        run("ip", "netns", "exec", self.names[role], "nft", "-f", "-", text=command + "\n")

    def drop(self, role, hook, match):
        """Drops what matches."""
        self.nft(role, f"add rule inet fault {hook} {match} drop")

    def clear(self):
        """Drops nothing any more."""
        for role in self.names:
            self.nft(role, "flush table inet fault")

    def inside(self, role, work):
        """Runs `work` in a thread of its own inside a namespace; gives the thread and a list that gets the result."""
        results = []

        def enter():
            with open(f"/run/netns/{self.names[role]}", "rb") as namespace:
                if LIBC.setns(namespace.fileno(), CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            try:
                results.append(work())
            except BaseException as error:  # pylint: disable=broad-except  # it is raised again where it is waited for
                results.append(error)

        thread = threading.Thread(target=enter, daemon=True)
        thread.start()
        return thread, results

    def call(self, role, work):
        """Runs `work` inside a namespace and gives its result."""
        thread, results = self.inside(role, work)
        thread.join()
        if isinstance(results[0], BaseException):
            raise results[0]
        return results[0]


class Origin:
    """A misbehaving origin in a process of its own."""

    def __init__(self, lab, name):
        self.lab, self.name = lab, name
        self.child = None
        self.start()

    def start(self):
        """Starts it, again if it was killed."""
        command = [sys.executable, HERE / "origin.py", ORIGIN, str(ORIGIN_PORTS[self.name]), self.name]
        self.child = self.lab.spawn("origin", f"origin-{self.name}", command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.child.stdout.readline()

    def command(self, line):
        """Has it obey; gives its answer."""
        self.child.stdin.write(line + "\n")
        self.child.stdin.flush()
        return self.child.stdout.readline()

    def mode(self, mode):
        """Sets what happens to requests."""
        self.command(f"mode {mode}")

    def count(self):
        """What it has counted: `served`, requests that it answered or was about to, by method, and `busy`, those that it works on."""
        return json.loads(self.command("count"))

    def kill(self):
        """SIGKILL."""
        self.child.kill()
        self.child.wait()

    def signal(self, number):
        """Any signal."""
        self.child.send_signal(number)


class Lab:
    """One case's processes. Use it in a `with` block."""

    def __init__(self, network, directory, kind):
        self.network, self.directory, self.kind = network, directory, kind
        self.children = []
        self.origins = {}
        self.proxy = None
        self.clock = directory / "clock"
        # What a case keeps for its judge.
        self.crowd, self.answers, self.dates = [], [], []
        self.freed = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.network.clear()
        for child in self.children:
            if child.poll() is None:
                child.send_signal(signal.SIGCONT)
                # With its workers, if it has some.
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()

    def spawn(self, role, name, command, environment=None, **pipes):
        """Starts a process in a namespace. `ip netns exec` becomes the command itself, so the child's id is the command's."""
        whole = ["ip", "netns", "exec", self.network.names[role], *map(str, command)]
        log = open(self.directory / f"{name}.log", "ab")  # pylint: disable=consider-using-with  # it is the child's
        pipes.setdefault("stdout", log)
        child = subprocess.Popen(whole, stderr=log, env=environment, preexec_fn=end_with_parent, **pipes)
        log.close()
        self.children.append(child)
        return child

    def start_origins(self):
        """Starts both."""
        self.origins = {name: Origin(self, name) for name in ORIGIN_PORTS}

    def start_relays(self, milliseconds):
        """Starts a delaying relay before each origin."""
        for name, port in ORIGIN_PORTS.items():
            command = [sys.executable, HERE / "relay.py", ORIGIN, str(port + RELAY_OFFSET), str(port), str(milliseconds)]
            self.spawn("origin", f"relay-{name}", command, stdout=subprocess.PIPE, text=True).stdout.readline()

    def start_proxy(self, settings, offset=0, environment=None):
        """Starts the proxy and waits until it answers. `offset` is added to the servers' ports."""
        servers = {name: f"{ORIGIN}:{port + offset}" for name, port in ORIGIN_PORTS.items()}
        command = self.kind.command(self.directory, settings, Place(PROXY, PORT, ADMIN_PORT, servers))
        self.proxy = self.spawn("proxy", self.kind.name, command, environment={**os.environ, **(environment or {})})
        deadline = time.monotonic() + 10
        while True:
            try:
                self.network.call("client", lambda: socket.create_connection((PROXY, PORT), timeout=2).close())
                self.kind.state(self)
                return
            except OSError as error:
                if self.proxy.poll() is not None or time.monotonic() > deadline:
                    raise Failure(f"the proxy does not answer: {error}\n{self.log()}") from error
                time.sleep(0.02)

    def page(self, path):
        """A page of the proxy's admin listener."""

        def ask():
            with urllib.request.urlopen(f"http://{PROXY}:{ADMIN_PORT}{path}", timeout=2) as page:
                return page.read().decode()

        return self.network.call("proxy", ask)

    def status(self):
        """Ringlane's status page."""
        return json.loads(self.page("/lb/status"))

    def log(self):
        """The proxy's log."""
        return (self.directory / f"{self.kind.name}.log").read_text(errors="replace")


def run_loop(coroutine):
    """asyncio.run for a thread that is not the main one."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.close()
