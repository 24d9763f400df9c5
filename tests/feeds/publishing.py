"""How the application publishes: once it leaves the sockets to ringcast, and how it did before.

One object with `send`, `present` and `close`. Every channel's helper stands here, so that "who gets a request
update" and "who gets the pending count" are said in one place each.
"""
import asyncio
import http.client
import json
import socket
from urllib.parse import urlsplit

import redis.asyncio as aioredis
from redis.exceptions import RedisError


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class RingcastApi:
    """The admin API over TCP ("http://host:port") or a unix socket ("unix:/path")."""

    def __init__(self, where, key=None, timeout=3):
        self.where, self.key, self.timeout = where, key, timeout

    def request(self, method, path, body=None):
        if self.where.startswith("unix:"):
            connection = UnixConnection(self.where[5:], self.timeout)
        else:
            url = urlsplit(self.where)
            connection = http.client.HTTPConnection(url.hostname, url.port, timeout=self.timeout)
        try:
            headers = {"Content-Type": "application/json"}
            if self.key:
                headers["X-API-Key"] = self.key
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200:
                raise OSError("%s answers %d %s" % (path, answer.status, text[:200]))
            return json.loads(text)
        finally:
            connection.close()

    async def call(self, path, body):
        loop = asyncio.get_running_loop()
        return (await loop.run_in_executor(None, self.request, "POST", path, body))["result"]

    async def stats(self):
        return await asyncio.get_running_loop().run_in_executor(None, self.request, "GET", "/stats", None)


class Ringcast:
    """Publishing for ringcast: PUBLISH on Redis, and when that fails the admin API of the ringcast beside us (T4).

    `groups`: admins are named as a group, which ringcast resolves from who is connected: no database query for a
    publication, and a team change counts from the next one on. Without it they are named by id: what a fleet wants
    in which replicas of the original are left, because those take a message with groups alone for untargeted.
    """

    def __init__(self, redis_url, api, data, groups=True):
        self.redis = aioredis.from_url(redis_url, socket_connect_timeout=0.5, socket_timeout=0.5) if redis_url else None
        self.api, self.data, self.groups = api, data, groups
        self.cached_admins = {}

    async def close(self):
        if self.redis:
            await self.redis.close()

    async def send(self, channel, message, users=None, group=None):
        """users: ids, or None for everybody. group: (creator id) his admins."""
        message = dict(message)
        if group is not None:
            if self.groups:
                message["_target_groups"] = ["creator:%d:admins" % group]
            else:
                users = list(users or []) + self.admins(group)
        if users is not None:
            message["_target_users"] = [str(u) for u in dict.fromkeys(users)]
        try:
            if self.redis is None:
                raise RedisError("none configured")
            await self.redis.publish(channel, json.dumps(message))
        except (RedisError, OSError, asyncio.TimeoutError):
            await self.api.call("/api/publish", {"channel": channel, "data": message})

    def admins(self, creator):
        if creator not in self.cached_admins:
            self.cached_admins[creator] = self.data.admins(creator)
        return self.cached_admins[creator]

    def team_changed(self, creator):
        self.cached_admins.pop(creator, None)

    async def send_counted(self, channel, message):
        """Through the API, which tells how many users it went to; else as send(), and nobody knows (T3)."""
        try:
            return (await self.api.call("/api/publish", {"channel": channel, "data": message})).get("users", 0)
        except OSError:
            await self.send(channel, message)
            return 0

    async def connected_users(self, channel):
        try:
            return (await self.api.stats())["namespaces"][channel]["users"]
        except (OSError, KeyError):
            return 0

    async def present(self, channel):
        """Ids of the users who are online, on any replica (T1); None: nobody can say."""
        try:
            result = await self.api.call("/api/presence", {"channel": channel})
        except OSError:
            return None
        return presence_users(result)

    # ---- who gets what: the same for each way of publishing

    async def request_update(self, creator, requester, message):
        await self.send("book_requests", message, [requester], creator)

    async def pending_count(self, creator, count):
        await self.send("book_requests", {"type": "pending_count_update", "pending_count": count}, None, creator)

    async def quota_update(self, requester, quota):
        await self.send("book_requests", {"type": "quota_update", "quota": quota}, [requester])

    async def new_thread(self, message):
        """Published once, to whoever is online and may know; untargeted when presence cannot be asked."""
        online = await self.present("forum_global")
        await self.send("forum_global", message, online)

    async def everyone_switch(self, message):
        await self.send("forum_global", message)


def presence_users(result):
    """User ids of an /api/presence answer, as strings."""
    presence = result["presence"] if "presence" in result else result["users"]
    if isinstance(presence, dict):
        return [str(u) for u in presence]
    return [str(entry["user"] if isinstance(entry, dict) else entry) for entry in presence]


class Original:
    """The original's own way: its managers, one for a channel; with what T1 to T4 say about it."""

    def __init__(self, managers, data):
        self.managers, self.data = managers, data
        self.cached_admins = {}

    async def close(self):
        await self.managers["broadcasts"].close()  # the other four never are

    async def send(self, channel, message, users=None, group=None):
        targets = {str(u) for u in users or []}
        if group is not None:
            if group not in self.cached_admins:  # for ever
                self.cached_admins[group] = self.data.admins(group)
            targets |= {str(u) for u in self.cached_admins[group]}
        await self.managers[channel].broadcast(message, targets)

    def team_changed(self, creator):
        pass  # the helper exists and is never called

    async def send_counted(self, channel, message):
        await self.managers[channel].broadcast(message)
        return self.managers[channel].get_connection_count()

    async def connected_users(self, channel):
        return self.managers[channel].get_user_count()

    request_update, pending_count, quota_update = Ringcast.request_update, Ringcast.pending_count, Ringcast.quota_update

    async def new_thread(self, message):
        for user in list(self.managers["forum_global"].users):
            await self.send("forum_global", dict(message), [user])

    async def everyone_switch(self, message):
        """Through the old in-memory manager alone, never through Redis (T2)."""
        await self.managers["forum_global"].deliver(message)
