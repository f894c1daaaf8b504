"""Processes of a comparison: started pinned, read from /proc, ended whatever happens."""

import ctypes
import os
import resource
import signal
import socket
import subprocess
import time

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)
# Under valgrind an end in order takes its time.
END_SECONDS = 30
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Failure(Exception):
    """The comparison cannot go on or its figures would be worth nothing; the text says why."""


def raise_descriptor_limit(wanted):
    """Raises RLIMIT_NOFILE, which children inherit, towards `wanted`. Returns what it is then."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (max(hard, wanted), hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            return limit
        except (ValueError, OSError):
            continue
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class Ports:
    """Free TCP ports of 127.0.0.1, below those that outgoing connections take, where there is room below."""

    def __init__(self):
        with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
            first = int(file.read().split()[0])
        # Where outgoing connections take nearly all ports, one that is free now must do.
        self.next, self.end = (min(21000, first - 2000), first) if first >= 3024 else (21000, 65536)

    def take(self):
        """A port that nobody listens on; never the same one twice."""
        while self.next < self.end:
            port, self.next = self.next, self.next + 1
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                    return port
                except OSError:
                    continue
        raise Failure(f"no free port on 127.0.0.1 below {self.end}")


class Process:
    """A child on one CPU, with its output in a file. Use it in a `with` block."""

    def __init__(self, name, command, cpu, directory):
        self.name = name
        self.command = [str(part) for part in command]
        self.cpu = cpu
        self.log = directory / f"{name}.log"
        self.child = None

    def __enter__(self):
        with open(self.log, "wb") as log:
            self.child = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=lambda: confine(self.cpu)
            )
        return self

    def __exit__(self, *_):
        if self.child.poll() is None:
            self.child.terminate()
            # A process that is stopped takes the signal only when it goes on.
            self.child.send_signal(signal.SIGCONT)
        try:
            self.child.wait(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            for pid in reversed(self.pids()):
                os.kill(pid, signal.SIGKILL)
            self.child.wait()

    def wait_until_listening(self, ports, seconds=10):
        """Returns when every port takes connections."""
        deadline = time.monotonic() + seconds
        for port in ports:
            while not takes_connections(port):
                if self.child.poll() is not None or time.monotonic() > deadline:
                    raise Failure(f"{self.name} does not listen on port {port}\n{self.last_words()}")
                time.sleep(0.02)

    def check_alive(self):
        """Complains if the process has ended."""
        if self.child.poll() is not None:
            raise Failure(f"{self.name} ended with status {self.child.returncode}\n{self.last_words()}")

    def last_words(self):
        """The end of its output."""
        text = self.log.read_text(errors="replace").strip() or "(it printed nothing)"
        return f"  {' '.join(self.command)}\n" + "\n".join(f"  | {line}" for line in text.splitlines()[-10:])

    def pids(self):
        """The process and its children: nginx works in one."""
        pid = self.child.pid
        try:
            with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
                return [pid] + [int(child) for child in file.read().split()]
        except OSError:
            return [pid]

    def cpu_seconds(self):
        """User and system time that it has used, its children's included."""
        user = system = 0
        for pid in self.pids():
            with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
                fields = file.read().rpartition(")")[2].split()
            user += int(fields[11])
            system += int(fields[12])
        return user / TICKS_PER_SECOND, system / TICKS_PER_SECOND

    def memory_bytes(self):
        """Proportional set size: private pages, and its share of shared ones."""
        total = 0
        for pid in self.pids():
            with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
                total += next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
        return total * 1024


def confine(cpu):
    """In the child: runs on `cpu` only, and ends when this program does, however that ends."""
    os.sched_setaffinity(0, {cpu})
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    # Ctrl-C is for this program, which then ends its children in order.
    os.setpgid(0, 0)


def takes_connections(port):
    """Whether something listens there."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def connections_opened():
    """TCP connections that this machine has accepted since its start (RFC 1213 tcpPassiveOpens)."""
    with open("/proc/net/snmp", encoding="ascii") as file:
        names, values = (line.split()[1:] for line in file if line.startswith("Tcp:"))
    return int(dict(zip(names, values))["PassiveOpens"])
