#!/usr/bin/env python3
"""A distant server on this machine: a TCP proxy with a round trip and rates.

wan.py TARGET_PORT RTT_MS CONNECTION_MB_PER_S TOTAL_MB_PER_S

Prints the port it listens on. A new connection waits one round trip (the handshake), each
direction adds half of one, and bytes towards the client are held to a rate for each connection
and one for all together. What is under way is bounded, so that the server feels the rate.
"""
import asyncio
import sys

target, rtt, rate, total = int(sys.argv[1]), float(sys.argv[2]) / 1000, float(sys.argv[3]) * 1e6, float(sys.argv[4]) * 1e6
free_at = 0.0  # when the shared link will have sent all that was given to it


async def pump(reader, writer, own_rate):
    """Moves bytes with the delay of half a round trip; paced where own_rate is not 0."""
    global free_at
    loop = asyncio.get_running_loop()
    queue = asyncio.Queue(64)
    own_free = 0.0

    async def out():
        while True:
            due, data = await queue.get()
            if data is None:
                break
            await asyncio.sleep(max(0, due - loop.time()))
            writer.write(data)
            await writer.drain()
        writer.close()

    sender = asyncio.create_task(out())
    try:
        while data := await reader.read(16384):
            now = loop.time()
            if own_rate:
                own_free = max(own_free, now) + len(data) / own_rate
                free_at = max(free_at, now) + len(data) / total
                leave = max(own_free, free_at)
                # What has not left yet holds the reader back, as a full socket would.
                await asyncio.sleep(max(0, leave - now - 0.05))
                now = leave
            await queue.put((now + rtt / 2, data))
    except (ConnectionError, asyncio.CancelledError):
        pass
    await queue.put((0, None))
    try:
        await sender
    except (ConnectionError, asyncio.CancelledError):
        pass


async def serve(reader, writer):
    await asyncio.sleep(rtt)
    try:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", target, limit=1 << 18)
    except OSError:
        writer.close()
        return
    await asyncio.gather(pump(reader, up_writer, 0), pump(up_reader, writer, rate))


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 18)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
