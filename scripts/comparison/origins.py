"""The sample origins that stand behind every proxy."""

from .processes import Process

NAMES = ("origin-1", "origin-2", "origin-3")


def process(binary, ports, cpu, directory):
    """One process that is an origin on each of the ports. It adds their numbers to the name that it is given."""
    listens = [word for port in ports for word in ("--listen", f"127.0.0.1:{port}")]
    return Process("origin", [binary, "origin", "--name", "origin", "--cpu", cpu, *listens], cpu, directory)
