"""The original as it was: the app of app.py with the five socket endpoints in its own process, on manager.py.

    FEEDS_DB=file  REDIS_URL=redis://...  python3 -m uvicorn --factory original:create_app

Faults stay in: identity by query, refusals before accept, the handler that ends and leaves a zombie (F7),
delivery to every socket of the channel (F1).
"""
import asyncio
import json
import time

from fastapi import WebSocket, WebSocketDisconnect

import app as site_app
import publishing
import hook
from manager import WebSocketManager
from state import acknowledge, current_broadcast

CHANNELS = ("broadcasts", "track_comments", "forum_threads", "forum_global", "book_requests")


class Zombie(Exception):
    """The handler ends without closing; the ASGI server keeps the connection open."""


async def idle_text(websocket):
    """A text frame, or None after 30 s without any frame."""
    try:
        message = await asyncio.wait_for(websocket.receive(), 30)
    except asyncio.TimeoutError:
        return None
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    if message.get("text") is None:
        raise Zombie()
    return message["text"]


def json_object(text, is_text_ignored):
    """The object of a frame; None if it is to be ignored."""
    try:
        value = json.loads(text)
    except ValueError:
        if is_text_ignored:
            return None
        raise Zombie() from None
    if not isinstance(value, dict):
        raise Zombie()
    return value


async def serve(manager, websocket, key, on_text, on_idle):
    """The loop that the endpoints share in shape."""
    try:
        while True:
            text = await idle_text(websocket)
            if text is None:
                await on_idle()
            else:
                await on_text(text)
    except (WebSocketDisconnect, RuntimeError):
        pass
    except Zombie:
        await manager.disconnect(websocket, key)
        await asyncio.Event().wait()  # unregistered, deaf, and open
    finally:
        await manager.disconnect(websocket, key)


def add_broadcasts(app, manager):
    @app.websocket("/api/creator/broadcast/ws")
    async def broadcasts(websocket: WebSocket, user_id: int):
        site = websocket.app.state.site
        if site.data.user(user_id) is None:
            await websocket.close(1008)
            return
        await websocket.accept()
        await manager.connect(websocket, user_id)
        await websocket.send_text(json.dumps({"type": "connected", "message": "Connected to broadcast live updates"}))

        async def active():
            frame = await current_broadcast(site, user_id)
            if frame:
                await websocket.send_text(json.dumps(frame))

        async def on_text(text):
            if text == "ping":
                await websocket.send_text("pong")
                return
            message = json_object(text, True)
            if message and message.get("type") == "get_active_broadcast":
                await active()
            elif message and message.get("type") == "acknowledge_broadcast" and message.get("broadcast_id"):
                await acknowledge(site, user_id, message["broadcast_id"])

        await active()
        await serve(manager, websocket, user_id, on_text, lambda: websocket.send_text("ping"))


def add_comments(app, manager):
    @app.websocket("/api/ws/track/{track}")
    async def comments(websocket: WebSocket, track: str, user_id: int):
        site = websocket.app.state.site
        user = site.data.user(user_id)
        if user is None or not site.data.one("SELECT 1 FROM tracks WHERE id = ?", track):
            await websocket.close(1008)
            return
        await websocket.accept()
        key = "track:%s:user:%d" % (track, user_id)
        await manager.connect(websocket, key)
        await websocket.send_text(json.dumps({"type": "connected", "track_id": track, "message": "Connected to comment updates"}))

        async def on_text(text):
            message = json_object(text, False)
            if message.get("type") == "typing":
                await manager.broadcast({"type": "user_typing", "track_id": track, "user_id": user_id, "username": user["username"],
                                         "is_typing": message.get("is_typing")})

        async def on_idle():
            pass

        await serve(manager, websocket, key, on_text, on_idle)


def forum_user(websocket):
    site = websocket.app.state.site
    return hook.identify(site, {"headers": {"cookie": websocket.headers.get("cookie")}})


def add_threads(app, manager):
    @app.websocket("/api/forum/ws/thread/{thread_id}")
    async def thread(websocket: WebSocket, thread_id: int):
        site = websocket.app.state.site
        await websocket.accept()
        try:
            user, _ = forum_user(websocket)
            hook.check_room(site, {"namespace": "forum_threads", "room": str(thread_id)}, user)
        except hook.Denied as denied:
            await websocket.close(1008, denied.answer["reason"])
            return
        await manager.connect(websocket, user["id"])
        for message in ({"message": "Connected to live updates"},
                        {"message": "Connected to thread %d live updates" % thread_id, "user_id": user["id"]}):
            await websocket.send_text(json.dumps(dict({"type": "connected", "thread_id": thread_id}, **message)))

        async def on_text(text):
            try:
                message = json_object(text, False)
            except Zombie:
                return  # this endpoint alone lives on
            if message.get("type") == "typing":
                await manager.broadcast({"type": "user_typing", "thread_id": thread_id, "user_id": user["id"],
                                         "username": user["alias"], "is_typing": message.get("is_typing")})
            elif message.get("type") == "ping":
                await websocket.send_text('{"type": "pong"}')

        await serve(manager, websocket, user["id"], on_text, lambda: heartbeat(websocket))


async def heartbeat(websocket):
    await websocket.send_text(json.dumps({"type": "heartbeat", "timestamp": time.monotonic()}))


def add_global(app, manager):
    @app.websocket("/api/forum/ws/global")
    async def forum_global(websocket: WebSocket):
        await websocket.accept()
        try:
            user, session = forum_user(websocket)
        except hook.Denied as denied:
            await websocket.close(1008, denied.answer["reason"])
            return
        await manager.connect(websocket, user["id"])
        await websocket.send_text(json.dumps({"type": "connected", "message": "Connected to global forum updates",
                                              "user_id": user["id"], "session_id": session["id"][:8] + "..."}))

        async def on_text(text):
            message = json_object(text, False)
            if message.get("type") == "ping":
                await websocket.send_text(json.dumps({"type": "pong", "timestamp": time.monotonic()}))
            elif message.get("type") == "heartbeat":
                await websocket.send_text('{"type": "heartbeat_ack"}')

        await serve(manager, websocket, user["id"], on_text, lambda: heartbeat(websocket))


def add_book_requests(app, manager):
    @app.websocket("/api/book-requests/ws")
    async def book_requests(websocket: WebSocket, user_id: int):
        site = websocket.app.state.site
        user = site.data.user(user_id)
        if user is None:
            await websocket.close(1008)
            return
        first = site.data.initial_data(user)
        await websocket.accept()
        await manager.connect(websocket, user_id)
        await websocket.send_text(json.dumps(first))

        async def on_text(text):
            if text == "ping":
                await websocket.send_text("pong")
                return
            message = json_object(text, True)
            user = site.data.user(user_id)
            if message and message.get("type") == "refresh_quota":
                await websocket.send_text(json.dumps({"type": "quota_update", "quota": site.data.quota(user)}))
            elif message and message.get("type") == "refresh_pending" and site.data.is_staff(user):
                count = site.data.pending(site.data.creator_of(user))
                await websocket.send_text(json.dumps({"type": "pending_count_update", "pending_count": count}))

        await serve(manager, websocket, user_id, on_text, lambda: websocket.send_text("ping"))


def create_app():
    managers = {channel: WebSocketManager(channel) for channel in CHANNELS}
    app = site_app.create_app(lambda data, _redis_url: publishing.Original(managers, data))
    app.state.managers = managers
    for channel, add in zip(CHANNELS, (add_broadcasts, add_comments, add_threads, add_global, add_book_requests)):
        add(app, managers[channel])
    return app
