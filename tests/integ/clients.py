"""WebSocket clients by python3-websockets, driven from plain (not async) tests."""
import asyncio
import threading

import websockets

from waiting import SCALE

DEADLINE = 20


class Client:
    """One connection. recv(), send(), close() block with a deadline; each message is kept as it came."""

    def __init__(self, loop, websocket):
        self.loop, self.websocket = loop, websocket

    def call(self, coroutine, seconds=DEADLINE):
        return asyncio.run_coroutine_threadsafe(
            asyncio.wait_for(coroutine, seconds * SCALE), self.loop).result()

    def recv(self, seconds=DEADLINE):
        return self.call(self.websocket.recv(), seconds)

    def recv_many(self, count, seconds=60):
        async def take():
            return [await self.websocket.recv() for _ in range(count)]
        return self.call(take(), seconds)

    def send(self, message, seconds=DEADLINE):
        return self.call(self.websocket.send(message), seconds)

    def send_many(self, messages, seconds=60):
        async def give():
            for message in messages:
                await self.websocket.send(message)
        return self.call(give(), seconds)

    def ping(self, seconds=DEADLINE):
        """A round trip through the server: what was sent to us before is here now."""
        async def go():
            await (await self.websocket.ping())
        return self.call(go(), seconds)

    def quiet(self):
        """True when nothing is waiting, after a round trip."""
        self.ping()
        return not self.websocket.messages

    def wait_closed(self, seconds=DEADLINE):
        """Wait for the server's close; returns (code, reason)."""
        self.call(self.websocket.wait_closed(), seconds)
        return self.websocket.close_code, self.websocket.close_reason

    def is_open(self):
        return self.websocket.open

    def close(self, code=1000, seconds=DEADLINE):
        self.call(self.websocket.close(code), seconds)


class Clients:
    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.clients = []

    def connect(self, url, seconds=DEADLINE, **options):
        """Connect; `url` may be "unix:PATH:/path". Options go to websockets.connect."""
        settings = dict(max_size=None, max_queue=None, ping_interval=None, close_timeout=10, open_timeout=seconds * SCALE)
        settings.update(options)

        async def open_it():
            if url.startswith("unix:"):
                path, target = url[5:].split(":", 1)
                return await websockets.unix_connect(path, "ws://localhost" + target, **settings)
            return await websockets.connect(url, **settings)

        future = asyncio.run_coroutine_threadsafe(open_it(), self.loop)
        client = Client(self.loop, future.result(seconds * SCALE + 5))
        self.clients.append(client)
        return client

    def close_now(self):
        """Close all clients of now; more may come."""
        async def close_them(clients):
            await asyncio.gather(*(c.websocket.close() for c in clients), return_exceptions=True)
        clients, self.clients = self.clients, []
        asyncio.run_coroutine_threadsafe(close_them(clients), self.loop).result(30 * SCALE)

    def close_all(self):
        try:
            self.close_now()
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join(10)
