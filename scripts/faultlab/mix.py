"""The mixed load of scripts/soak: what each kind of client does, and which of its losses a fault explains."""

import asyncio
import socket
import struct

from .load import parse

MIB = 1 << 20
HOST = b"Host: a.example\r\n"
# Faults of one server that others make up for, as long as nothing of the answer has left and the request may be sent twice.
HIDDEN = frozenset({"kill", "pause", "refuse", "hang", "slow 1500", "reset_head", "close_head", "half_close", "garbage"})
# Faults that can cut off an answer that has begun.
CUTTING = frozenset({"kill", "pause", "refuse", "reset_body"})


def get(path, *fields):
    """A GET as bytes."""
    return b"GET " + path + b" HTTP/1.1\r\n" + HOST + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


class Kind:
    """One kind of client. `turn` makes one request on its connection, and gives a result in one word: `ok` or what went wrong."""

    name = ""
    clients = 1
    # Seconds between two requests.
    pause = 0.1
    # Results that a fault of these modes explains, while it lasts or shortly after.
    explained = {"reset_body": {"truncated"}}

    async def turn(self, connection, chance):
        """One request."""
        raise NotImplementedError

    def explains(self, mode, result):
        """Whether a fault explains a result."""
        return result in self.explained.get(mode, ())


async def ask(connection, request, size=None):
    """Asks; `ok` for a 200 with a body of that size."""
    result, _, got = await connection.ask(request)
    if result == "200" and size is not None and got != size:
        connection.close()
        return f"{got} bytes of {size}"
    return "ok" if result == "200" else result


class KeepAlive(Kind):
    """Small GETs on one connection."""

    name, clients, pause = "keep-alive", 5, 0.1

    async def turn(self, connection, chance):
        return await ask(connection, get(b"/x"))


class NewConnection(Kind):
    """A connection for each request."""

    name, clients, pause = "new connection", 2, 0.15

    async def turn(self, connection, chance):
        connection.close()
        return await ask(connection, get(b"/x", b"Connection: close"))


class Large(Kind):
    """Answers of 1 MiB."""

    name, pause = "1 MiB", 0.5
    explained = {mode: {"truncated"} for mode in CUTTING}

    async def turn(self, connection, chance):
        return await ask(connection, get(b"/bytes/%d" % MIB), MIB)


class Chunked(Kind):
    """Chunked answers of any size."""

    name, pause = "chunked answer", 0.2
    explained = Large.explained

    async def turn(self, connection, chance):
        size = chance.randrange(1, 200_000)
        return await ask(connection, get(b"/chunked/%d" % size), size)


class Post(Kind):
    """POSTs, which are not sent twice."""

    name, clients, pause = "POST", 2, 0.2
    explained = {mode: {"502", "504", "truncated"} for mode in HIDDEN | CUTTING}

    def request(self, chance):
        """The head and body."""
        size = chance.randrange(1, 300_000)
        return b"POST /x HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % size + bytes(size)

    async def turn(self, connection, chance):
        return await ask(connection, self.request(chance))


class ChunkedPost(Post):
    """Uploads in chunks."""

    name, clients = "chunked upload", 1

    def request(self, chance):
        chunks = [bytes(chance.randrange(1, 9000)) for _ in range(chance.randrange(1, 30))]
        body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
        return b"POST /x HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"


class SlowUpload(Post):
    """An upload whose pieces take their time."""

    name, clients = "slow upload", 1

    async def turn(self, connection, chance):
        connection.close()
        try:
            await connection.open()
            connection.writer.write(b"POST /x HTTP/1.1\r\n" + HOST + b"Connection: close\r\nContent-Length: 40000\r\n\r\n")
            for _ in range(10):
                await asyncio.sleep(0.1)
                connection.writer.write(bytes(4000))
            return await ask(connection, b"")
        except OSError:
            connection.close()
            return "502"  # the answer was given before the body was taken, and a reset overtook it


class SlowReader(Large):
    """Takes 300 kB in small pieces."""

    name, pause = "slow reader", 0.3

    async def turn(self, connection, chance):
        connection.close()
        try:
            await connection.open()
            connection.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
            connection.writer.write(get(b"/bytes/300000", b"Connection: close"))
            status, fields = parse(await connection.reader.readuntil(b"\r\n\r\n"))
            left = int(fields["content-length"])
            if status != 200:
                return str(status)
            while left:
                piece = await connection.reader.read(min(left, 15_000))
                if not piece:
                    return "truncated"
                left -= len(piece)
                await asyncio.sleep(0.05)
            return "ok"
        except (OSError, asyncio.IncompleteReadError):
            return "truncated"
        finally:
            connection.close()


class Tunnel(Kind):
    """An upgraded connection that echoes for a while."""

    name, pause = "tunnel", 0.3
    explained = {mode: {"truncated", "closed", "reset", "502", "504"} for mode in HIDDEN | CUTTING}

    async def turn(self, connection, chance):
        connection.close()
        result, _, _ = await connection.ask(get(b"/x", b"Connection: upgrade", b"Upgrade: echo"))
        if result != "101":
            return result
        try:
            for _ in range(20):
                piece = chance.randbytes(chance.randrange(1, 5000))
                connection.writer.write(piece)
                if await connection.reader.readexactly(len(piece)) != piece:
                    return "another echo"
                await asyncio.sleep(0.05)
            return "ok"
        except asyncio.IncompleteReadError:
            return "truncated"
        except OSError:
            return "reset"
        finally:
            connection.close()


class Aborting(Kind):
    """Goes away somewhere in its exchange, by FIN or RST. It sees no errors, it makes some."""

    name, clients, pause = "aborting client", 2, 0.2

    async def turn(self, connection, chance):
        request = chance.choice([get(b"/wait/700"), get(b"/bytes/%d" % MIB), get(b"/x")[:-9], b"POST /x HTTP/1.1\r\n" + HOST + b"Content-Length: 90000\r\n\r\n" + bytes(5000)])
        try:
            await connection.open()
            connection.writer.write(request)
            await asyncio.sleep(chance.random() * 0.5)
            if chance.random() < 0.5:
                connection.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            return "unreachable"
        finally:
            connection.close()
        return "ok"


KINDS = [KeepAlive(), NewConnection(), Large(), Chunked(), Post(), ChunkedPost(), SlowUpload(), SlowReader(), Tunnel(), Aborting()]
