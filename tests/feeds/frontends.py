"""The socket code of the application's pages, by the facts about them: when they reconnect, what they send, which
pings they demand, what they do with frames. Unchanged pages must work, and these are what "unchanged" means here.

`speed` divides the pages' own times (not the server's), so that a test need not wait half a minute for a retry.
"""
import asyncio
import json

import websockets

from stack import origin_of

GIVE_UP = None  # a retry rule's answer


class Frontend:
    """One socket of a page: states connecting, open, waiting, given_up; everything that came is kept."""

    feed = None

    def __init__(self, url, cookie, speed=1.0):
        self.url, self.speed = url, speed
        self.options = {"extra_headers": [("Cookie", cookie)] if cookie else [], "origin": origin_of(url), "ping_interval": None,
                        "max_size": None, "open_timeout": 20, "close_timeout": 5}
        self.state = "connecting"
        self.websocket = None
        self.opens = self.failures = self.tries = self.duplicates = self.dead = 0
        self.texts, self.messages, self.closes, self.shown = [], [], [], set()

    # ---- what differs

    def retry(self, code, was_open):
        """Seconds until the next attempt, or GIVE_UP. `tries` counts attempts since the last success."""
        raise NotImplementedError

    async def opened(self):
        pass

    async def on_raw(self, text):
        """A text that is not JSON."""

    async def on_message(self, message):
        pass

    # ---- life

    async def run(self):
        while self.state != "given_up":
            code, was_open = await self.attempt()
            pause = self.retry(code, was_open)
            self.tries += 1
            if pause is GIVE_UP:
                self.state = "given_up"
                return
            self.state = "waiting"
            await asyncio.sleep(pause / self.speed)
            self.state = "connecting"

    async def attempt(self):
        try:
            self.websocket = await websockets.connect(self.url, **self.options)
        except (OSError, asyncio.TimeoutError, websockets.WebSocketException) as error:
            self.failures += 1
            self.closes.append((1006, type(error).__name__))  # all that a browser says of a refusal
            return 1006, False
        self.state, self.tries = "open", 0
        self.opens += 1
        helpers = [asyncio.ensure_future(task) for task in self.tasks()]
        try:
            await self.opened()
            async for text in self.websocket:
                await self.take(text)
        except websockets.ConnectionClosed:
            pass
        finally:
            for helper in helpers:
                helper.cancel()
        code = self.websocket.close_code or 1006
        self.closes.append((code, self.websocket.close_reason))
        return code, True

    def tasks(self):
        return []

    async def take(self, text):
        self.texts.append(text)
        try:
            message = json.loads(text, parse_constant=self.not_json)
        except ValueError:
            await self.on_raw(text)
            return
        if isinstance(message, dict):
            self.messages.append(message)
            await self.on_message(message)

    @staticmethod
    def not_json(name):
        raise AssertionError("JSON.parse would throw at " + name)

    def show(self, key):
        """What the page would hide because it shows it already is a second copy."""
        if key in self.shown:
            self.duplicates += 1
        self.shown.add(key)

    async def send(self, message):
        await self.websocket.send(message if isinstance(message, str) else json.dumps(message))

    def types(self):
        return [message.get("type") for message in self.messages]


class Broadcasts(Frontend):
    """On every page. Comes back unless the code is 1000: 5 s * 2^n, at most 30 s, ten times."""

    feed = "broadcasts"

    def retry(self, code, was_open):
        if code == 1000 or self.tries >= 10:
            return GIVE_UP
        return min(5 * 2 ** self.tries, 30)

    async def opened(self):
        await self.send({"type": "get_active_broadcast"})

    async def on_raw(self, text):
        if text == "ping":
            await self.send("pong")

    async def on_message(self, message):
        if message.get("type") == "new_broadcast":
            self.show(message["broadcast"]["id"])

    async def acknowledge(self, broadcast_id):
        await self.send({"type": "acknowledge_broadcast", "broadcast_id": broadcast_id})


class CreatorPanel(Broadcasts):
    """The creator's broadcast panel: every 5 s for ever."""

    def retry(self, code, was_open):
        return 5


class Comments(Frontend):
    """A track page. Five tries, 1 s * n."""

    feed = "track_comments"

    def retry(self, code, was_open):
        return GIVE_UP if self.tries >= 5 else self.tries + 1

    async def on_message(self, message):
        if message.get("type") == "new_comment":
            self.show(message["comment"]["id"])

    async def type_key(self):
        """The page sends one for each key."""
        await self.send({"type": "typing", "is_typing": True})

    async def stop_typing(self):
        await self.send({"type": "typing", "is_typing": False})


class ForumGlobal(Frontend):
    """The forum page's global socket. Stays away after 1008 and after one failed attempt to come back; pings every
    25 s and takes the link for dead when no pong comes within 5 s."""

    feed = "forum_global"
    PING, PONG = 25, 5

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.pong = asyncio.Event()

    def retry(self, code, was_open):
        if code == 1008 or not was_open:
            return GIVE_UP
        return 5

    def tasks(self):
        return [self.pings()]

    async def pings(self):
        while True:
            await asyncio.sleep(self.PING / self.speed)
            self.pong.clear()
            await self.send({"type": "ping"})
            try:
                await asyncio.wait_for(self.pong.wait(), self.PONG)
            except asyncio.TimeoutError:
                self.dead += 1
                await self.websocket.close(4000)
                return

    async def on_message(self, message):
        if message.get("type") == "pong":
            self.pong.set()
        elif message.get("type") == "heartbeat":
            await self.send({"type": "heartbeat_ack"})


class ForumBadge(Frontend):
    """The badge script on every page, on the same URL: six tries, 5 s * n."""

    feed = "forum_global"

    def retry(self, code, was_open):
        return GIVE_UP if self.tries >= 6 else 5 * (self.tries + 1)


class ForumThread(Frontend):
    """The forum page's thread socket; its answer to heartbeats is nothing."""

    feed = "forum_threads"

    def retry(self, code, was_open):
        return GIVE_UP if code == 1008 or not was_open else 5

    async def on_message(self, message):
        if message.get("type") == "new_message":
            self.show(message["message"]["id"])


class BookRequests(Frontend):
    """Five tries, 5 s * n, at most 30 s; answers text pings."""

    feed = "book_requests"

    def retry(self, code, was_open):
        return GIVE_UP if self.tries >= 5 else min(5 * (self.tries + 1), 30)

    async def on_raw(self, text):
        if text == "ping":
            await self.send("pong")


class BookRequestsPage(BookRequests):
    """The two page controllers and the badge script never try again."""

    def retry(self, code, was_open):
        return GIVE_UP


PAGES = {
    "any": (Broadcasts, ForumBadge),
    "forum": (Broadcasts, ForumBadge, ForumGlobal, ForumThread),
    "track": (Broadcasts, ForumBadge, Comments),
    "creator": (Broadcasts, ForumBadge, CreatorPanel, BookRequestsPage),
    "book_requests": (Broadcasts, ForumBadge, BookRequests, BookRequestsPage),
}


class Browser:
    """Runs sockets of pages on the event loop of a Clients object."""

    def __init__(self, stack):
        self.stack, self.loop = stack, stack.clients.loop
        self.running = []

    def open(self, kind, person, room="", server=None, speed=1.0, url=None):
        """Start one socket; it is connecting when this returns."""
        async def start():
            socket = kind(url or self.stack.url(kind.feed, person.id, room, server),
                          "session_id=" + person.session if person else None, speed=speed)
            socket.person = person
            return socket, asyncio.ensure_future(socket.run())
        socket, task = self.call(start())
        self.running.append((socket, task))
        return socket

    def open_page(self, name, person, track="", thread="", **options):
        rooms = {"track_comments": track, "forum_threads": thread}
        return [self.open(kind, person, rooms.get(kind.feed, ""), **options) for kind in PAGES[name]]

    def call(self, coroutine, seconds=20):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(seconds)

    def close(self):
        async def stop():
            for socket, task in self.running:
                task.cancel()
                if socket.websocket is not None:
                    await socket.websocket.close()
        self.call(stop(), 60)
        self.running = []
