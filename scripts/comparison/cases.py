"""The cases of a comparison: kinds of load."""

IDLE_CONNECTIONS = 8000


class Case:
    """One kind of load."""

    def __init__(self, name, title, connections, path="/", closing=False, idle=False):
        self.name = name
        self.title = title
        self.connections = connections
        self.path = path
        self.closing = closing
        self.idle = idle


def small(connections):
    """Small requests and answers on connections that stay."""
    return Case(f"small-{connections}", f"small, {connections} connections", connections)


SMALL = [small(connections) for connections in (16, 64, 256, 1024)]
CASES = [
    *SMALL,
    Case("new", "new connection for each, 64", 64, closing=True),
    Case("16k", "16 KiB bodies, 64 connections", 64, path="/bytes/16384"),
    Case("1m", "1 MiB bodies, 16 connections", 16, path="/bytes/1048576"),
    Case("idle", f"{IDLE_CONNECTIONS:,} idle connections", IDLE_CONNECTIONS, idle=True),
]
