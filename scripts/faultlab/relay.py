"""A relay that delays: `relay.py ADDRESS PORT TO_PORT MILLISECONDS`. Bytes of both directions arrive that much later, in order."""

import asyncio
import sys

PIECES_MAX = 64


async def carry(reader, writer, delay):
    """One direction. A bounded queue, so that a slow reader slows the sender."""
    queue = asyncio.Queue(PIECES_MAX)
    clock = asyncio.get_running_loop()

    async def fill():
        piece = b"-"
        while piece:
            try:
                piece = await reader.read(65536)
            except OSError:
                piece = b""
            await queue.put((clock.time() + delay, piece))

    filling = asyncio.create_task(fill())
    try:
        while True:
            due, piece = await queue.get()
            await asyncio.sleep(max(0, due - clock.time()))
            if not piece:
                writer.write_eof()
                return
            writer.write(piece)
            await writer.drain()
    except OSError:
        pass
    finally:
        filling.cancel()


async def main():
    """Relays until it is ended."""
    address, port, to_port, delay = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]) / 1000

    async def serve(reader, writer):
        try:
            far_reader, far_writer = await asyncio.open_connection(address, to_port)
        except OSError:
            writer.transport.abort()
            return
        await asyncio.gather(carry(reader, far_writer, delay), carry(far_reader, writer, delay), return_exceptions=True)
        writer.close()
        far_writer.close()

    server = await asyncio.start_server(serve, address, port)
    print("ready", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
