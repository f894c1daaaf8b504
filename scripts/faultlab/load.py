"""Clients: requests at a bounded rate, each with its outcome."""

import asyncio
import dataclasses
import time

PATIENCE = 8.0


@dataclasses.dataclass
class Outcome:
    """What became of one request."""

    began: float
    seconds: float
    method: str
    result: str
    server: str = ""
    fresh: bool = True


class Connection:
    """One client connection. `ask` gives a result in one word; every word but a status ends the connection."""

    def __init__(self, address, port, source=None):
        self.address, self.port, self.source = address, port, source
        self.reader = self.writer = None
        self.used = 0

    async def open(self):
        """Connects."""
        local = (self.source, 0) if self.source else None
        self.reader, self.writer = await asyncio.open_connection(self.address, self.port, local_addr=local)
        self.used = 0

    def close(self):
        """Closes at once."""
        if self.writer is not None:
            self.writer.transport.abort()
        self.reader = self.writer = None

    async def ask(self, request, head_only=False):
        """Sends a request and reads the answer: (result, fields, body bytes)."""
        try:
            if self.writer is None:
                await self.open()
        except OSError as error:
            return ("refused" if isinstance(error, ConnectionRefusedError) else "unreachable"), {}, 0
        self.used += 1
        began = False
        try:
            self.writer.write(request)
            status = 100
            while 100 <= status < 200 and status != 101:
                head = await self.reader.readuntil(b"\r\n\r\n")
                began = True
                status, fields = parse(head)
            size = 0 if head_only or status == 101 else await read_body(self.reader, fields)
        except asyncio.IncompleteReadError as error:
            self.close()
            return ("truncated" if began or error.partial else "closed"), {}, 0
        except (ValueError, IndexError):
            self.close()
            return "malformed", {}, 0
        except OSError:
            self.close()
            return ("truncated" if began else "reset"), {}, 0
        if fields.get("connection") == "close":
            self.close()
        return str(status), fields, size


def parse(head):
    """A response head's status and fields."""
    line, *lines = head.decode("latin-1").split("\r\n")
    version, status = line.split(" ", 2)[:2]
    if version != "HTTP/1.1":
        raise ValueError(version)
    fields = {}
    for field in filter(None, lines):
        name, value = field.split(":", 1)
        fields[name.lower()] = value.strip()
    return int(status), fields


async def read_body(reader, fields):
    """Reads a body to its end; its length."""
    size = 0
    if "chunked" in fields.get("transfer-encoding", ""):
        while length := int(await reader.readuntil(b"\r\n"), 16):
            piece = await reader.readexactly(length + 2)
            size += len(piece) - 2
        await reader.readuntil(b"\r\n")
        return size
    left = int(fields["content-length"])
    while left:
        piece = await reader.read(min(left, 1 << 18))
        if not piece:
            raise asyncio.IncompleteReadError(b"-", left)
        size, left = size + len(piece), left - len(piece)
    return size


GET = b"GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 10\r\n\r\n0123456789"


class Load:
    """Clients that ask one request after another until told to stop: three GETs, then a POST."""

    def __init__(self, address, port, clients=10, pause=0.05):
        self.address, self.port, self.clients, self.pause = address, port, clients, pause
        self.outcomes = []
        self.stopping = False

    async def client(self, number):
        """One client. Every fourth makes a connection for each request."""
        connection = Connection(self.address, self.port)
        turn = number
        while not self.stopping:
            turn += 1
            method, request = ("POST", POST) if turn % 4 == 0 else ("GET", GET)
            began, fresh = time.monotonic(), connection.writer is None
            try:
                result, fields, _ = await asyncio.wait_for(connection.ask(request), PATIENCE)
            except asyncio.TimeoutError:
                connection.close()
                result, fields = "no answer", {}
            self.outcomes.append(Outcome(began, time.monotonic() - began, method, result, fields.get("x-served-by", ""), fresh))
            if number % 4 == 3:
                connection.close()
            await asyncio.sleep(self.pause)
        connection.close()

    async def run(self):
        """All clients, begun one after another."""

        async def later(number):
            await asyncio.sleep(number * self.pause / self.clients)
            await self.client(number)

        await asyncio.gather(*(later(number) for number in range(self.clients)))
