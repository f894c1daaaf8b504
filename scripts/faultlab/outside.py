"""What can be seen of any proxy from outside: the memory and descriptors of its processes, and its connections."""

import dataclasses
import os
import pathlib
import signal

LISTEN = "0A"


def family(pid):
    """A process and all below it, as ids."""
    ids = [pid]
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text(encoding="ascii").split():
            ids += family(int(child))
    return ids


def memory(pid):
    """(PSS, RSS) of a process and all below it, bytes."""
    sizes = {"Pss:": 0, "Rss:": 0}
    for one in family(pid):
        for line in pathlib.Path(f"/proc/{one}/smaps_rollup").read_text(encoding="ascii").splitlines():
            name, *words = line.split()
            if name in sizes:
                sizes[name] += int(words[0]) * 1024
    return sizes["Pss:"], sizes["Rss:"]


def descriptors(pid):
    """Open files of a process and all below it."""
    return sum(len(os.listdir(f"/proc/{one}/fd")) for one in family(pid))


@dataclasses.dataclass(frozen=True)
class Connections:
    """Open sockets of a proxy: those that its clients made, and those to its servers."""

    clients: int
    servers: int


def connections(port, server_ports):
    """The connections of the proxy that listens on a port of this machine and has servers on others of its ports."""
    clients = servers = 0
    for line in pathlib.Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        words = line.split()
        local, remote = (int(address.split(":")[1], 16) for address in words[1:3])
        # The kernel's own, such as those in TIME_WAIT, have no inode.
        if words[3] != LISTEN and words[9] != "0":
            clients += local == port
            servers += remote in server_ports
    return Connections(clients, servers)


def kill(pid):
    """Ends a process and all below it."""
    for one in family(pid):
        os.kill(one, signal.SIGKILL)
