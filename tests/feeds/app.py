"""A small FastAPI application that plays the original: its HTTP URLs, its access rules, its order of publishing,
and the authorization hook that ringcast asks (POST /internal/ws). It has no WebSocket of its own.

    FEEDS_DB=file  REDIS_URL=redis://...  RINGCAST_API=http://127.0.0.1:8081|unix:/path  [RINGCAST_API_KEY=...]
    FEEDS_TARGETS=groups|users   python3 -m uvicorn --factory app:create_app
"""
import json
import os
import re
import urllib.parse
import uuid

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

import publishing
from data import Data, now
from hook import add_hook
from state import Cache, Refuse, Site, acknowledge, current_broadcast, site_of

MAX_CHARACTERS = 280


# ---- section 1: broadcasts

def add_broadcasts(app):
    base = "/api/creator/broadcast"

    @app.post(base)
    async def create(request: Request):
        site = site_of(request)
        user = site.creator(request)
        body = await request.json()
        message, kind = body.get("message", ""), body.get("type", "info")
        if not message or len(message) > MAX_CHARACTERS:
            return {"status": "error", "message": "Message must have 1 to %d characters" % MAX_CHARACTERS}
        row = {"id": str(uuid.uuid4()), "message": message, "type": kind, "created_by": user["id"], "created_at": now()}
        site.data.run("UPDATE broadcasts SET is_active = 0")
        site.data.run("INSERT INTO broadcasts VALUES (?,?,?,?,?,1)", *row.values())
        await site.cache.set("current_broadcast", json.dumps(row))
        sent = await site.feeds.send_counted("broadcasts", {"type": "new_broadcast", "broadcast": {
            "id": row["id"], "message": message, "message_type": kind, "created_by": user["username"],
            "created_at": row["created_at"]}})
        return {"status": "success", "id": row["id"], "message": message, "character_count": len(message),
                "max_characters": MAX_CHARACTERS, "sent_to_users": sent}

    @app.post(base + "/clear")
    async def clear(request: Request):
        site = site_of(request)
        site.creator(request)
        site.data.run("UPDATE broadcasts SET is_active = 0")
        await site.cache.delete("current_broadcast")
        text = "Active broadcast has been cleared"
        cleared = await site.feeds.send_counted("broadcasts", {"type": "broadcast_cleared", "message": text})
        return {"status": "success", "message": text, "cleared_for_users": cleared}

    @app.post(base + "/acknowledge")
    async def acknowledge_http(request: Request):
        site = site_of(request)
        user = site.login(request)
        broadcast = (await request.json()).get("broadcast_id")
        if broadcast:
            await acknowledge(site, user["id"], broadcast)
            site.data.run("INSERT OR IGNORE INTO acks VALUES (?,?)", broadcast, user["id"])
        return {"status": "success"}

    @app.get(base + "/active")
    async def active(request: Request):
        site = site_of(request)
        user = site.login(request)
        frame = await current_broadcast(site, user["id"])
        if frame:
            found = frame["broadcast"]
            return {"broadcast": {"id": found["id"], "message": found["message"], "type": found["message_type"]}}
        row = site.data.one("SELECT * FROM broadcasts WHERE is_active AND id NOT IN (SELECT broadcast_id FROM acks WHERE user_id = ?)",
                            user["id"])
        if row is None or await site.cache.get("broadcast:%s:ack:%s" % (row["id"], user["id"])):
            return {"broadcast": None}
        return {"broadcast": {"id": row["id"], "message": row["message"], "type": row["type"]}}

    @app.get(base + "/limits")
    async def limits(request: Request):
        site = site_of(request)
        site.creator(request)
        return {"max_characters": MAX_CHARACTERS, "recommended_length": 120,
                "current_active_broadcasts": int(bool(await site.cache.get("current_broadcast")))}

    @app.get(base + "/stats")
    async def stats(request: Request):
        site = site_of(request)
        user = site.creator(request)
        today = site.data.value("SELECT count(*) FROM broadcasts WHERE created_by = ? AND created_at >= ?", user["id"], now()[:10])
        return {"status": "success", "stats": {
            "broadcasts_today": today, "active_broadcast": int(bool(await site.cache.get("current_broadcast"))),
            "connected_users": await site.feeds.connected_users("broadcasts"),
            "connected_users_note": "Count is for this replica only", "max_characters": MAX_CHARACTERS}}


# ---- section 2: comments

async def form_of(request):
    return dict(urllib.parse.parse_qsl((await request.body()).decode(), keep_blank_values=True))


def seconds_of(text):
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if 0 < value < 1e9 else None  # not NaN, not infinite


def mentioned(site, track, author, content):
    """Ids of the users that `@creator` or `@username` name."""
    found = []
    for name in re.findall(r"@(\w+)", content):
        if name == "creator":
            user = site.data.value("SELECT creator_id FROM tracks WHERE id = ?", track)
        else:
            user = site.data.value("SELECT id FROM users WHERE username = ? AND is_active", name)
        if user and user != author["id"] and user not in found:
            found.append(user)
    return found


def add_comments(app):
    @app.post("/api/tracks/{track}/comments")
    async def create(track: str, request: Request):
        site = site_of(request)
        user = site.login(request)
        if not site.data.one("SELECT 1 FROM tracks WHERE id = ?", track):
            raise Refuse(404, "Track not found")
        form = await form_of(request)
        row = site.data.run("INSERT INTO comments (track_id, user_id, parent_id, content, timestamp, created_at)"
                            " VALUES (?,?,?,?,?,?)", track, user["id"], form.get("parent_id"), form.get("content", ""),
                            seconds_of(form.get("timestamp")), now())
        comment = site.data.comment(row)
        await site.feeds.send("track_comments", {"type": "new_comment", "track_id": track, "comment": comment})
        for target in mentioned(site, track, user, form.get("content", "")):
            await site.feeds.send("track_comments", {"type": "mention", "track_id": track, "comment": comment,
                                                     "from_user": user["username"]}, [target])
        return comment

    def own(site, comment_id):
        row = site.data.one("SELECT * FROM comments WHERE id = ?", comment_id)
        if row is None:
            raise Refuse(404, "Comment not found")
        return row

    @app.put("/api/comments/{comment_id}")
    async def edit(comment_id: int, request: Request):
        site = site_of(request)
        user = site.login(request)
        row = own(site, comment_id)
        if row["user_id"] != user["id"]:
            raise Refuse(403, "Not your comment")
        content = (await form_of(request)).get("content", "")
        edited = now()
        site.data.run("UPDATE comments SET content = ?, is_edited = 1, last_edited_at = ? WHERE id = ?", content, edited, comment_id)
        await site.feeds.send("track_comments", {
            "type": "comment_edited", "track_id": row["track_id"], "comment_id": comment_id, "content": content,
            "timestamp": row["timestamp"], "is_edited": True, "last_edited_at": edited})
        return {"status": "success"}

    @app.delete("/api/comments/{comment_id}")
    async def delete(comment_id: int, request: Request):
        site = site_of(request)
        user = site.login(request)
        row = own(site, comment_id)
        author = site.data.user(row["user_id"])
        if not (user["id"] == author["id"] or user["is_creator"] or (user["is_team"] and not site.data.is_staff(author))):
            raise Refuse(403, "Not allowed")
        site.data.run("DELETE FROM comments WHERE id = ?", comment_id)
        await site.feeds.send("track_comments", {"type": "comment_deleted", "track_id": row["track_id"], "comment_id": comment_id})
        return {"status": "success"}

    @app.get("/api/tracks/{track}/comments/since/{comment_id}")
    async def since(track: str, comment_id: int, request: Request):
        site = site_of(request)
        site.login(request)
        rows = site.data.all("SELECT id FROM comments WHERE track_id = ? AND id > ? ORDER BY id", track, comment_id)
        return {"comments": [site.data.comment(row["id"]) for row in rows]}


# ---- section 3: threads

def thread_for(site, user, thread_id):
    thread = site.data.thread(thread_id)
    if thread is None:
        raise Refuse(404, "Thread not found")
    if not site.data.may_read(user, thread):
        raise Refuse(403, "Access denied")
    return thread


def message_view(site, message_id):
    row = site.data.message(message_id)
    user = site.data.user(row["user_id"])
    quoted = site.data.message(row["reply_to_id"]) if row["reply_to_id"] else None
    reply = None
    if quoted:
        other = site.data.user(quoted["user_id"])
        text = quoted["content"]
        reply = {"id": quoted["id"], "content": text[:100] + "..." if len(text) > 100 else text, "username": other["alias"],
                 "user_role": site.data.role(other), "user_badge_color": "#6b7280", "created_at": quoted["created_at"]}
    return {"id": row["id"], "content": row["content"], "content_html": "<p>%s</p>" % row["content"], "user_id": user["id"],
            "username": user["alias"], "user_role": site.data.role(user), "user_badge_color": "#6b7280",
            "is_edited": bool(row["is_edited"]), "created_at": row["created_at"], "mentions": re.findall(r"@(\w+)", row["content"]),
            "reply_to_id": row["reply_to_id"], "reply_to_message": reply, "reply_count": 0, "like_count": 0, "user_has_liked": False}


def add_threads(app):
    base = "/api/forum"

    @app.post(base + "/threads/{thread_id}/messages")
    async def post(thread_id: int, request: Request):
        site = site_of(request)
        user = site.login(request)
        thread = thread_for(site, user, thread_id)
        body = await request.json()
        content = body["content"]
        names = re.findall(r"@(\w+)", content)
        if thread["is_locked"] and not user["is_creator"]:
            raise Refuse(403, "Thread is locked")
        if {"everyone", "team"} & set(names) and not site.data.is_staff(user):
            raise Refuse(403, "Only creators and team can mention everyone")
        row = site.data.add_message(thread_id, user["id"], content, body.get("reply_to_id"))
        for follower in site.data.all("SELECT user_id FROM followers WHERE thread_id = ? AND user_id <> ?", thread_id, user["id"]):
            site.data.run("INSERT INTO notifications (user_id, thread_id) VALUES (?,?)", follower["user_id"], thread_id)
        await site.feeds.send("forum_threads", {"type": "new_message", "thread_id": thread_id, "message": message_view(site, row)})
        sender = {"id": user["id"], "username": user["alias"], "role": site.data.role(user)}
        for name in ("team", "everyone"):
            if name in names:
                await site.feeds.send("forum_global", {"type": name + "_mention", "thread_id": thread_id, "message_id": row,
                                                       "sender": sender, "thread_title": thread["title"], "notification_count": 1})
        return {"id": row}

    def message_of(site, message_id):
        row = site.data.message(message_id)
        if row is None:
            raise Refuse(404, "Message not found")
        return row

    @app.patch(base + "/messages/{message_id}")
    async def edit(message_id: int, request: Request):
        site = site_of(request)
        user = site.login(request)
        row = message_of(site, message_id)
        if row["user_id"] != user["id"]:
            raise Refuse(403, "Not your message")
        content, edited = (await request.json())["content"], now()
        site.data.run("UPDATE messages SET content = ?, is_edited = 1, edited_at = ? WHERE id = ?", content, edited, message_id)
        await site.feeds.send("forum_threads", {"type": "message_edited", "thread_id": row["thread_id"], "message": {
            "id": message_id, "content": content, "content_html": "<p>%s</p>" % content, "is_edited": True, "edited_at": edited,
            "mentions": re.findall(r"@(\w+)", content)}})
        return {"status": "success"}

    @app.delete(base + "/messages/{message_id}")
    async def delete(message_id: int, request: Request):
        site = site_of(request)
        user = site.login(request)
        row = message_of(site, message_id)
        if row["user_id"] != user["id"] and not site.data.is_staff(user):
            raise Refuse(403, "Not allowed")
        if site.data.thread(row["thread_id"])["first_message_id"] == message_id:
            raise Refuse(400, "The first message stays")
        replies = site.data.all("SELECT id FROM messages WHERE reply_to_id = ? ORDER BY id", message_id)
        ids = [message_id] + [r["id"] for r in replies]
        for one in ids:
            site.data.run("DELETE FROM messages WHERE id = ?", one)
        await site.feeds.send("forum_threads", {"type": "messages_deleted", "thread_id": row["thread_id"], "message_ids": ids,
                                                "deleted_count": len(ids)})
        return {"status": "success"}

    async def like(request, message_id, is_like):
        site = site_of(request)
        user = site.login(request)
        row = message_of(site, message_id)
        thread_for(site, user, row["thread_id"])
        if row["user_id"] == user["id"]:
            raise Refuse(400, "Not one's own message")
        had = site.data.one("SELECT 1 FROM likes WHERE message_id = ? AND user_id = ?", message_id, user["id"]) is not None
        if had != is_like:
            site.data.run("INSERT INTO likes VALUES (?,?)" if is_like else "DELETE FROM likes WHERE message_id = ? AND user_id = ?",
                          message_id, user["id"])
            count = site.data.value("SELECT count(*) FROM likes WHERE message_id = ?", message_id)
            await site.feeds.send("forum_threads", {
                "type": "message_liked" if is_like else "message_unliked", "thread_id": row["thread_id"], "message_id": message_id,
                "like_count": count, "liked_by" if is_like else "unliked_by": {"id": user["id"], "username": user["alias"]}})
        return {"status": "success"}

    @app.post(base + "/messages/{message_id}/like")
    async def like_it(message_id: int, request: Request):
        return await like(request, message_id, True)

    @app.delete(base + "/messages/{message_id}/like")
    async def unlike_it(message_id: int, request: Request):
        return await like(request, message_id, False)

    @app.patch(base + "/threads/{thread_id}")
    async def update(thread_id: int, request: Request):
        site = site_of(request)
        site.creator(request)
        body = await request.json()
        for key in ("is_pinned", "is_locked", "min_tier_cents"):
            if key in body:
                site.data.run("UPDATE threads SET %s = ? WHERE id = ?" % key, body[key], thread_id)
        row = site.data.thread(thread_id)
        await site.feeds.send("forum_threads", {"type": "thread_updated", "thread_id": thread_id, "updates": {
            "is_pinned": bool(row["is_pinned"]), "is_locked": bool(row["is_locked"]), "min_tier_cents": row["min_tier_cents"],
            "tier_info": {"min_tier_cents": row["min_tier_cents"]} if row["min_tier_cents"] else None}})
        return {"status": "success"}

    @app.delete(base + "/threads/{thread_id}")
    async def delete_thread(thread_id: int, request: Request):
        site = site_of(request)
        site.creator(request)
        site.data.run("DELETE FROM threads WHERE id = ?", thread_id)  # publishes nothing
        return {"status": "success"}

    @app.post(base + "/messages/{message_id}/create-thread")
    async def create_sub_thread(message_id: int, request: Request):
        site = site_of(request)
        user = site.login(request)
        row = message_of(site, message_id)
        thread_for(site, user, row["thread_id"])
        title = (await request.json()).get("title", "A thread of its own")
        sub = site.data.add_thread(user["id"], title, parent_thread_id=row["thread_id"], parent_message_id=message_id)
        count = site.data.value("SELECT count(*) FROM threads WHERE parent_message_id = ?", message_id)
        await site.feeds.send("forum_threads", {
            "type": "message_thread_count_updated", "thread_id": row["thread_id"], "message_id": message_id,
            "spawned_thread_count": count, "sub_thread_id": sub, "sub_thread_title": title, "creator_username": user["alias"]})
        followers = site.data.all("SELECT u.* FROM followers f JOIN users u ON u.id = f.user_id WHERE f.thread_id = ?", row["thread_id"])
        parent = site.data.thread(row["thread_id"])
        for follower in followers:
            if site.data.may_read(follower, parent):
                await site.feeds.send("forum_global", {
                    "type": "new_sub_thread_created", "thread": site.data.thread_view(sub, user), "creator": author_view(site, user),
                    "parent_thread_id": row["thread_id"], "parent_message_id": message_id}, [follower["id"]])
        return {"id": sub}


# ---- section 4: forum, global

def author_view(site, user):
    return {"id": user["id"], "username": user["alias"], "role": site.data.role(user)}


async def mark_read(site, user, thread_id):
    marked = site.data.db.execute("UPDATE notifications SET is_read = 1 WHERE user_id = ? AND thread_id = ? AND NOT is_read",
                                  (user["id"], thread_id)).rowcount
    if marked:
        total = site.data.value("SELECT count(*) FROM notifications WHERE user_id = ? AND NOT is_read", user["id"])
        await site.feeds.send("forum_global", {"type": "unread_count_updated", "thread_id": thread_id, "thread_unread_count": 0,
                                               "total_forum_unread": total, "marked_read_count": marked}, [user["id"]])
    return marked


def add_forum(app):
    base = "/api/forum"

    @app.post(base + "/threads")
    async def create(request: Request):
        site = site_of(request)
        user = site.creator(request)
        body = await request.json()
        thread = site.data.add_thread(user["id"], body.get("title", "New"), is_private=bool(body.get("is_private")))
        await site.feeds.new_thread({"type": "new_thread_created", "thread": site.data.thread_view(thread, user),
                                     "creator": author_view(site, user)})
        return {"id": thread}

    @app.get(base + "/threads/{thread_id}")
    async def open_thread(thread_id: int, request: Request):
        site = site_of(request)
        user = site.login(request)
        thread_for(site, user, thread_id)
        await mark_read(site, user, thread_id)
        return site.data.thread_view(thread_id, user)

    @app.post(base + "/threads/{thread_id}/mark-read")
    async def mark(thread_id: int, request: Request):
        site = site_of(request)
        return {"marked": await mark_read(site, site.login(request), thread_id)}

    @app.post(base + "/users/{user_id}/restrict")
    async def restrict(user_id: int, request: Request):
        site = site_of(request)
        user = site.creator(request)
        body = await request.json()
        await site.feeds.send("forum_global", {"type": "everyone_restricted", "reason": body.get("reason", ""),
                                               "until": body.get("until"), "restricted_by": user["username"]}, [user_id])
        return {"status": "success"}

    @app.post(base + "/users/{user_id}/unrestrict")
    async def unrestrict(user_id: int, request: Request):
        site = site_of(request)
        user = site.creator(request)
        await site.feeds.send("forum_global", {"type": "everyone_unrestricted", "unrestricted_by": user["username"]}, [user_id])
        return {"status": "success"}

    @app.post(base + "/everyone/disable")
    async def disable(request: Request):
        site = site_of(request)
        user = site.creator(request)
        reason = (await request.json()).get("reason", "")
        await site.feeds.everyone_switch({"type": "everyone_disabled", "reason": reason, "disabled_by": user["username"]})
        return {"status": "success"}

    @app.post(base + "/everyone/enable")
    async def enable(request: Request):
        site = site_of(request)
        user = site.creator(request)
        await site.feeds.everyone_switch({"type": "everyone_enabled", "enabled_by": user["username"]})
        return {"status": "success"}


# ---- section 5: book requests

SHORT = ("id", "user_id", "title", "author", "link", "description", "status", "created_at", "updated_at", "responded_by_id",
         "response_message", "response_date", "month_year")
LONG = SHORT + ("accepted_by_id", "accepted_at", "user_reply")


def request_view(row, action, responder=None):
    view = {key: row[key] for key in (SHORT if action == "created" else LONG)}
    if responder:
        view["responder"] = {"id": responder["id"], "username": responder["username"]}
    return {"type": "book_request_update", "book_request": view, "action": action, "timestamp": now()}


def add_book_requests(app):
    base = "/api/book-requests"

    def request_for_staff(site, request, request_id):
        user = site.login(request)
        row = site.data.one("SELECT * FROM book_requests WHERE id = ?", request_id)
        if row is None:
            raise Refuse(404, "Request not found")
        requester = site.data.user(row["user_id"])
        if not site.data.is_staff(user) or site.data.creator_of(user) != site.data.creator_of(requester):
            raise Refuse(403, "Not allowed")
        return user, row, requester

    def reload(site, request_id):
        return site.data.one("SELECT * FROM book_requests WHERE id = ?", request_id)

    @app.post(base + "/")
    async def create(request: Request):
        site = site_of(request)
        user = site.login(request)
        if site.data.quota(user)["requests_remaining"] <= 0:
            raise Refuse(403, "No requests left")
        body = await request.json()
        stamp = now()
        row = site.data.run("INSERT INTO book_requests (user_id, title, author, link, description, status, created_at, updated_at,"
                            " month_year) VALUES (?,?,?,?,?,'pending',?,?,?)", user["id"], body.get("title"), body.get("author"),
                            body.get("link"), body.get("description"), stamp, stamp, stamp[:7])
        site.data.run("UPDATE users SET used = used + 1 WHERE id = ?", user["id"])
        # No pending count: the admin page counts from "created".
        await site.feeds.request_update(site.data.creator_of(user), user["id"], request_view(reload(site, row), "created"))
        await site.feeds.quota_update(user["id"], site.data.quota(site.data.user(user["id"])))
        return {"id": row}

    @app.post(base + "/{request_id}/respond")
    async def respond(request_id: int, request: Request):
        site = site_of(request)
        user, row, requester = request_for_staff(site, request, request_id)
        body = await request.json()
        site.data.run("UPDATE book_requests SET status = ?, response_message = ?, responded_by_id = ?, response_date = ?,"
                      " updated_at = ? WHERE id = ?", body["status"], body.get("message"), user["id"], now(), now(), request_id)
        creator = site.data.creator_of(user)
        await site.feeds.request_update(creator, requester["id"], request_view(reload(site, request_id), "status_changed", user))
        await site.feeds.pending_count(creator, site.data.pending(creator))
        if body["status"] == "rejected" and body.get("refund", True):
            site.data.run("UPDATE users SET used = max(used - 1, 0) WHERE id = ?", requester["id"])
            await site.feeds.quota_update(requester["id"], site.data.quota(site.data.user(requester["id"])))
        return {"status": "success"}

    @app.post(base + "/{request_id}/reply")
    async def reply(request_id: int, request: Request):
        site = site_of(request)
        user = site.login(request)
        row = reload(site, request_id)
        if row is None or row["user_id"] != user["id"]:
            raise Refuse(403, "Not your request")
        if row["status"] in ("pending", "rejected") or row["user_reply"]:
            raise Refuse(400, "No reply is possible now")
        site.data.run("UPDATE book_requests SET user_reply = ? WHERE id = ?", (await request.json())["reply"], request_id)
        await site.feeds.request_update(site.data.creator_of(user), user["id"], request_view(reload(site, request_id), "reply_added"))
        return {"status": "success"}

    @app.post(base + "/{request_id}/accept")
    async def accept(request_id: int, request: Request):
        site = site_of(request)
        user, _, _ = request_for_staff(site, request, request_id)
        site.data.run("UPDATE book_requests SET accepted_by_id = ?, accepted_at = ? WHERE id = ?", user["id"], now(), request_id)
        return {"status": "success"}

    @app.post(base + "/{request_id}/fulfill")
    async def fulfill(request_id: int, request: Request):
        site = site_of(request)
        request_for_staff(site, request, request_id)
        site.data.run("UPDATE book_requests SET status = 'fulfilled' WHERE id = ?", request_id)
        return {"status": "success"}

    @app.post(base + "/settings")
    async def settings(request: Request):
        site_of(request).creator(request)
        return {"status": "success"}

    @app.post(base + "/chapters-settings")
    async def chapters_settings(request: Request):
        site_of(request).creator(request)
        return {"status": "success"}


def create_app(publisher_of=None):
    """publisher_of(data, redis_url) -> what publishes; by default ringcast's way."""
    app = FastAPI()
    redis_url = os.environ["REDIS_URL"]

    @app.on_event("startup")
    async def start():
        data = Data(os.environ["FEEDS_DB"])
        if publisher_of:
            publisher = publisher_of(data, redis_url)
        else:
            api = publishing.RingcastApi(os.environ["RINGCAST_API"], os.environ.get("RINGCAST_API_KEY"))
            publisher = publishing.Ringcast(redis_url, api, data, os.environ.get("FEEDS_TARGETS", "groups") == "groups")
        app.state.site = Site(data, publisher, Cache(redis_url))

    @app.on_event("shutdown")
    async def stop():
        await app.state.site.feeds.close()
        await app.state.site.cache.close()
        app.state.site.data.close()

    @app.exception_handler(Refuse)
    async def refuse(_request, error):
        return JSONResponse({"detail": error.detail}, status_code=error.status)

    for add in (add_broadcasts, add_comments, add_threads, add_forum, add_book_requests, add_hook):
        add(app)
    return app

