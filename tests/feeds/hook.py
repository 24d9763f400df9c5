"""The application's side of the authorization hook (POST /internal/ws): who may connect where, with which first
frames, and what the app answers to clients' messages. Refusals carry the original's codes and reasons.
"""
import asyncio
import json

from fastapi import Request
from fastapi.responses import JSONResponse, PlainTextResponse

from data import opaque
from state import acknowledge, current_broadcast, site_of


def cookie_of(header, name):
    """The value of a cookie; None without one."""
    for part in (header or "").split(";"):
        key, _, value = part.strip().partition("=")
        if key == name:
            return value
    return None


class Denied(Exception):
    """A refusal as the hook says it."""

    def __init__(self, reason, status=403, code=1008):
        super().__init__(reason)
        self.answer = {"allow": False, "status": status, "code": code, "reason": reason}


def identify(site, asked):
    """The user behind the cookie, by the reasons of the original's forum."""
    header = asked["headers"].get("cookie")
    if not header:
        raise Denied("No authentication")
    session_id = cookie_of(header, "session_id")
    if not session_id:
        raise Denied("No session ID")
    user, session = site.data.user_of_session(session_id)
    if user is None:
        raise Denied("Invalid session")
    return user, session


def check_room(site, asked, user):
    if asked["namespace"] == "track_comments":
        if not site.data.one("SELECT 1 FROM tracks WHERE id = ?", asked["room"]):
            raise Denied("Track not found")
    elif asked["namespace"] == "forum_threads":
        # A number beyond what the database can hold names no thread.
        thread = site.data.thread(int(asked["room"])) if len(asked["room"]) < 19 else None
        if thread is None:
            raise Denied("Thread not found")
        if not site.data.may_read(user, thread):
            raise Denied("Access denied")


async def first_frames(site, asked, user):
    if asked["namespace"] == "broadcasts":
        frame = await current_broadcast(site, user["id"])
        return [frame] if frame else []
    if asked["namespace"] == "book_requests":
        return [site.data.initial_data(user)]
    return []


async def message_frames(site, asked, user):
    """The answer to a client's message, which comes as its text."""
    message = json.loads(asked["message"])
    kind = message.get("type")
    if kind == "get_active_broadcast":
        frame = await current_broadcast(site, user["id"])
        return [frame] if frame else []
    if kind == "acknowledge_broadcast":
        if message.get("broadcast_id"):
            await acknowledge(site, user["id"], message["broadcast_id"])
        return []
    if kind == "refresh_quota":
        return [{"type": "quota_update", "quota": site.data.quota(user)}]
    if kind == "refresh_pending" and site.data.is_staff(user):
        return [{"type": "pending_count_update", "pending_count": site.data.pending(site.data.creator_of(user))}]
    return []


async def hook_answer(site, asked):
    user, session = identify(site, asked)
    if asked["event"] == "message":
        return {"frames": await message_frames(site, asked, user)}
    check_room(site, asked, user)
    forum = asked["namespace"].startswith("forum_")
    answer = {"allow": True, "user": user["id"], "groups": site.data.groups(user), "session": opaque(session["id"]),
              "expires_at": int(session["expires_at"]),
              "info": {"username": user["alias"] if forum else user["username"], "tag": opaque(session["id"])[:8]}}
    if asked["event"] == "connect":
        answer["frames"] = await first_frames(site, asked, user)
    return answer


async def faulty(mode):
    """Answers of a hook that has gone wrong, for the tests."""
    kind, _, value = mode.partition(":")
    if kind == "slow":
        await asyncio.sleep(float(value))
        return JSONResponse({"allow": True, "user": "1"})
    if kind == "garbage":
        return PlainTextResponse("<html>502</html>")
    if kind == "error":
        return PlainTextResponse("no", status_code=500)
    if kind == "user":
        return JSONResponse({"allow": True, "user": {"id": 1}})
    if kind == "huge":
        return PlainTextResponse('{"allow":true,"user":"1","info":{"x":"' + "x" * (8 << 20) + '"}}')
    return JSONResponse({"allow": False, "status": 403, "code": int(value), "reason": kind.replace("_", " ").capitalize()})


def add_hook(app):
    @app.post("/internal/ws")
    async def hook(request: Request):
        site = site_of(request)
        asked = await request.json()
        site.data.run("INSERT INTO hooks (namespace, event, body) VALUES (?,?,?)", asked["namespace"], asked["event"],
                      json.dumps(asked))
        mode = site.data.fault(asked["namespace"])
        if mode:
            return await faulty(mode)
        try:
            return JSONResponse(await hook_answer(site, asked))
        except Denied as denied:
            return JSONResponse(denied.answer)
        except Exception as error:  # the original closes with 1011 then
            return JSONResponse({"allow": False, "status": 503, "code": 1011, "reason": "Internal error (%s)" % type(error).__name__})

    @app.get("/health")
    async def health():
        return {"status": "ok"}
