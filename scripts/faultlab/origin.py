"""An origin that misbehaves on request. Run as a program: `origin.py ADDRESS PORT NAME`, commands on standard input.

`mode MODE [NUMBER]` sets what happens to each request from now on, `count` prints a line of JSON. Paths choose the answer while
the mode is `ok`: /bytes/N, /chunked/N, /wait/MS; an upgrade becomes an echo; anything else gets the origin's name.
"""

import asyncio
import json
import random
import socket
import struct
import sys

BLOCK = bytes(range(33, 97)) * 1024


class Gone(Exception):
    """The proxy has closed its connection."""


class Origin:
    """A listening origin and its mode."""

    def __init__(self, address, port, name):
        self.address, self.port, self.name = address, port, name
        self.mode, self.number = "ok", 0
        self.served = {}
        self.writers = set()
        self.working = set()
        self.server = None
        self.noise = random.Random(name)

    async def listen(self):
        """Opens the port, which `refuse` closes."""
        if self.server is None:
            self.server = await asyncio.start_server(self.converse, self.address, self.port, backlog=512)

    async def refuse(self):
        """Closes the port and all connections."""
        if self.server is not None:
            self.server.close()
            self.server = None
        for writer in list(self.writers):
            writer.transport.abort()

    async def command(self, line):
        """One command; what it answers."""
        word, *rest = line.split()
        if word == "count":
            return json.dumps({"served": self.served, "busy": sum(not gone(reader) for reader in self.working)})
        self.mode, self.number = rest[0], int(rest[1]) if len(rest) > 1 else 0
        if self.mode == "refuse":
            await self.refuse()
        else:
            await self.listen()
        return "done"

    async def converse(self, reader, writer):
        """Serves one connection."""
        self.writers.add(writer)
        try:
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while await self.exchange(reader, writer):
                pass
        except (Gone, OSError, asyncio.IncompleteReadError, ValueError):
            pass
        finally:
            self.writers.discard(writer)
            writer.close()

    async def exchange(self, reader, writer):
        """Serves one request; whether another may follow."""
        head = await reader.readuntil(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = line.split(" ")
        fields = dict(field.lower().split(": ", 1) for field in lines if field)
        self.working.add(reader)
        try:
            return await self.serve(reader, writer, method, target, fields)
        finally:
            self.working.discard(reader)

    async def serve(self, reader, writer, method, target, fields):
        """Reads a request's body and answers, or misbehaves; whether another request may follow."""
        length = await read_body(reader, writer, fields)
        misbehave = getattr(self, f"do_{self.mode}", None)
        if misbehave is not None:
            return await misbehave(writer, reader)
        if self.mode == "slow":
            await asyncio.sleep(self.number / 1000)
        if not target.startswith("/health"):
            self.served[method] = self.served.get(method, 0) + 1
        if "upgrade" in fields:
            return await echo(reader, writer)
        await self.answer(writer, target, length)
        return fields.get("connection") != "close"

    async def answer(self, writer, target, length):
        """The answer of an origin that is well."""
        _, kind, *rest = target.split("?")[0].split("/")
        if kind == "wait":
            await asyncio.sleep(int(rest[0]) / 1000)
        if kind == "chunked":
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for piece in pieces(int(rest[0])):
                writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                await writer.drain()
            writer.write(b"0\r\n\r\n")
        else:
            body = [f"{self.name} {length}\n".encode()]
            size = int(rest[0]) if kind == "bytes" else len(body[0])
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            for piece in pieces(size) if kind == "bytes" else body:
                writer.write(piece)
                await writer.drain()
        await writer.drain()

    async def do_hang(self, writer, reader):
        """Says nothing."""
        await asyncio.sleep(3600)

    async def do_reset_head(self, writer, reader):
        """Resets in the middle of a head."""
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Le")
        return await reset(writer)

    async def do_close_head(self, writer, reader):
        """Closes in the middle of a head."""
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Le")
        return False

    async def do_reset_body(self, writer, reader):
        """Resets in the middle of a body."""
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + BLOCK[:500])
        return await reset(writer)

    async def do_half_close(self, writer, reader):
        """Finishes sending without an answer, and reads on."""
        writer.write_eof()
        while await reader.read(65536):
            pass
        return False

    async def do_garbage(self, writer, reader):
        """Answers with noise."""
        writer.write(self.noise.randbytes(200))
        return False


def gone(reader):
    """Whether the proxy has closed or reset its connection."""
    return reader.at_eof() or reader.exception() is not None


async def reset(writer):
    """Ends a connection with a reset, when what was written has left."""
    await writer.drain()
    await asyncio.sleep(0.005)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    raise Gone


async def read_body(reader, writer, fields):
    """Reads a request's body; its length."""
    if fields.get("expect") == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if "chunked" not in fields.get("transfer-encoding", ""):
        left = length = int(fields.get("content-length", 0))
        while left:
            piece = await reader.read(min(left, 65536))
            if not piece:
                raise Gone
            left -= len(piece)
        return length
    length = 0
    while size := int((await reader.readline()).split(b";")[0], 16):
        await reader.readexactly(size + 2)
        length += size
    while await reader.readline() != b"\r\n":
        pass
    return length


async def echo(reader, writer):
    """A tunnel that sends back what comes."""
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
    while piece := await reader.read(65536):
        writer.write(piece)
        await writer.drain()
    return False


def pieces(size):
    """`size` bytes in pieces."""
    while size > 0:
        piece = BLOCK[: min(size, len(BLOCK))]
        size -= len(piece)
        yield piece


async def main():
    """Serves and obeys until standard input ends."""
    origin = Origin(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    await origin.listen()
    print("ready", flush=True)
    commands = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(commands)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    while line := await commands.readline():
        print(await origin.command(line.decode()), flush=True)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
