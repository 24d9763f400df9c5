"""The original's WebSocketManager as its users could observe it, faults included.

One manager per channel, plain channel names, lazy connection to Redis, the publisher's own clients served by the
echo. Used where the original itself is wanted: fleets of both kinds, and the comparison of bench/feeds.py.
What it does wrong (F3, F5, F6, F8, F9, F12) is wrong here on purpose.
"""
import asyncio
import itertools
import json
import logging
import os

import redis.asyncio as aioredis

log = logging.getLogger("websocket_manager")


def redis_url():
    """REDIS_URL, else put together; a password variable is not looked at."""
    return os.environ.get("REDIS_URL") or "redis://%s:%s/%s" % (
        os.environ.get("REDIS_HOST", "redis"), os.environ.get("REDIS_PORT", "6379"), os.environ.get("REDIS_DB", "0"))


class WebSocketManager:
    anonymous = itertools.count(1)

    def __init__(self, channel):
        self.channel = channel
        self.users = {}  # key -> set of sockets
        self.redis = self.pubsub = self.listener = None
        self.starting = None
        self.has_tried = False

    # ---- Redis

    def start_redis(self):
        if not self.has_tried:
            self.has_tried = True
            self.starting = asyncio.get_running_loop().create_task(self.connect_redis())

    async def connect_redis(self):
        try:
            self.redis = aioredis.from_url(redis_url(), decode_responses=True, socket_connect_timeout=5, socket_timeout=5)
            await self.redis.ping()
            log.info("✅ WebSocketManager [%s] connected to Redis", self.channel)
        except Exception as error:
            self.redis = None
            log.error("❌ WebSocketManager [%s] Redis connection failed: %s", self.channel, error)
            log.warning("⚠️  WebSocketManager [%s] will operate in single-replica mode", self.channel)
            return
        if await self.subscribe():
            self.listener = asyncio.get_running_loop().create_task(self.listen())

    async def subscribe(self):
        try:
            self.pubsub = self.redis.pubsub()
            await self.pubsub.subscribe(self.channel)
        except Exception as error:
            log.error("❌ WebSocketManager [%s] failed to subscribe: %s", self.channel, error)
            return False
        log.info("✅ WebSocketManager [%s] subscribed to Redis channel", self.channel)
        return True

    async def listen(self):
        log.info("🎧 WebSocketManager [%s] listener started", self.channel)
        while True:
            try:
                message = await self.pubsub.get_message(ignore_subscribe_messages=True, timeout=1.0)
                if message and message["type"] == "message":
                    await self.received(message["data"])
            except asyncio.CancelledError:
                log.info("🛑 WebSocketManager [%s] listener cancelled", self.channel)
                raise
            except Exception as error:
                log.error("❌ WebSocketManager [%s] listener error: %s", self.channel, error)
                await asyncio.sleep(5)
                if not await self.subscribe():
                    return  # dead until a restart

    async def received(self, data):
        try:
            message = json.loads(data)
        except ValueError as error:
            log.error("❌ Invalid JSON in Redis message: %s", error)
            return
        try:
            await self.deliver(message)
        except Exception as error:
            log.error("❌ Error processing Redis message: %s", error)

    # ---- sockets

    async def connect(self, websocket, user_id=None, **_metadata):
        key = str(user_id) if user_id else "anonymous-%d" % next(self.anonymous)
        self.users.setdefault(key, set()).add(websocket)
        log.info("✅ WebSocket connected [%s]: user=%s, total=%d", self.channel, key, self.get_connection_count())
        self.start_redis()
        return key

    async def disconnect(self, websocket, user_id):
        sockets = self.users.get(str(user_id))
        if sockets is None or websocket not in sockets:
            return
        sockets.discard(websocket)
        if not sockets:
            del self.users[str(user_id)]
        log.info("❌ WebSocket disconnected [%s]: user=%s, total=%d", self.channel, user_id, self.get_connection_count())

    async def deliver(self, message):
        targets = message.get("_target_users")
        text = json.dumps({k: v for k, v in message.items() if not k.startswith("_")})
        sent = 0
        # A live dictionary: a user who comes or goes meanwhile ends the loop (F8).
        for key, sockets in (((k, self.users[k]) for k in set(targets) & set(self.users)) if targets else self.users.items()):
            for websocket in list(sockets):
                try:
                    await websocket.send_text(text)
                    sent += 1
                except Exception as error:
                    log.warning("⚠️  Failed to send to websocket: %s", error)
                    sockets.discard(websocket)
        if sent:
            log.debug("✉️  Sent to %d local connections [%s]", sent, self.channel)

    # ---- publishing

    async def broadcast(self, message, target_user_ids=None):
        if target_user_ids:
            message["_target_users"] = list(target_user_ids)
        if not self.has_tried:
            self.start_redis()
            await asyncio.sleep(0.1)
        if self.redis is not None:
            try:
                await self.redis.publish(self.channel, json.dumps(message))
                log.debug("📤 Broadcast sent to Redis [%s]", self.channel)
                return
            except Exception as error:
                log.error("❌ Failed to publish to Redis [%s]: %s", self.channel, error)
        await self.deliver(message)

    async def send_to_user(self, user_id, message):
        await self.broadcast(message, {str(user_id)})

    # ---- questions

    def get_connection_count(self):
        return sum(len(sockets) for sockets in self.users.values())

    def get_user_count(self):
        return len(self.users)

    def is_user_connected(self, user_id):
        return str(user_id) in self.users

    async def close(self):
        if self.listener:
            self.listener.cancel()
            await asyncio.gather(self.listener, return_exceptions=True)
        if self.pubsub:
            await self.pubsub.unsubscribe(self.channel)
            await self.pubsub.close()
        if self.redis:
            await self.redis.close()
        log.info("🛑 WebSocketManager [%s] closed", self.channel)
