"""What the application's parts share: data, a cache on Redis, a way to publish, and the active broadcast."""
import asyncio
import json

import publishing


class Refuse(Exception):
    def __init__(self, status, detail):
        super().__init__(detail)
        self.status, self.detail = status, detail


class Cache:
    """Redis as the original's cache helper uses it: without Redis it is empty, and nothing fails."""

    def __init__(self, url):
        self.redis = publishing.aioredis.from_url(url, decode_responses=True, socket_connect_timeout=0.5, socket_timeout=0.5)

    async def get(self, key):
        try:
            return await self.redis.get(key)
        except (publishing.RedisError, OSError, asyncio.TimeoutError):
            return None

    async def set(self, key, value, seconds=86400):
        try:
            await self.redis.set(key, value, ex=seconds)
        except (publishing.RedisError, OSError, asyncio.TimeoutError):
            pass

    async def delete(self, key):
        try:
            await self.redis.delete(key)
        except (publishing.RedisError, OSError, asyncio.TimeoutError):
            pass

    async def close(self):
        await self.redis.close()


class Site:
    """What the URLs need: the data, Redis for broadcasts' state, and a way to publish."""

    def __init__(self, data, publisher, cache):
        self.data, self.feeds, self.cache = data, publisher, cache

    def login(self, request):
        session = request.cookies.get("session_id")
        user, _ = self.data.user_of_session(session) if session else (None, None)
        if user is None:
            raise Refuse(401, "Not authenticated")
        return user

    def creator(self, request):
        user = self.login(request)
        if not user["is_creator"]:
            raise Refuse(403, "Only creators can perform this action")
        return user


def site_of(request):
    return request.app.state.site


async def current_broadcast(site, user_id):
    """The frame of the active broadcast, or None: Redis alone decides, as in the original's socket (F25)."""
    text = await site.cache.get("current_broadcast")
    if not text:
        return None
    found = json.loads(text)
    if await site.cache.get("broadcast:%s:ack:%s" % (found["id"], user_id)):
        return None
    return {"type": "active_broadcast", "broadcast": {
        "id": found["id"], "message": found["message"], "message_type": found["type"], "created_by": found["created_by"],
        "created_at": found["created_at"]}}


async def acknowledge(site, user_id, broadcast_id):
    await site.cache.set("broadcast:%s:ack:%s" % (broadcast_id, user_id), "1")
