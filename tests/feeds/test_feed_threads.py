"""Section 3: the threads of the forum."""
import json

import pytest

from stack import parsed
from waiting import wait_for

GLOBAL_AND_THREAD = ["forum_global", "forum_threads"]


def closed_with(site, feed, room="", headers=()):
    """Connects, which is accepted, and is then closed: (code, reason), with no frame before."""
    client = site.clients.connect(site.url(feed, room=room), extra_headers=list(headers))
    verdict = client.wait_closed()
    assert not client.websocket.messages
    return verdict


def cookie(text):
    return [("Cookie", text)]


def test_one_greeting_the_second_of_the_originals(site):
    thread, fan = site.thread(), site.fan()
    client = site.connect(fan, "forum_threads", thread)
    assert json.loads(client.first) == {"type": "connected", "thread_id": thread, "user_id": fan.id,
                                        "message": "Connected to thread %d live updates" % thread}
    assert client.quiet()


def test_a_user_id_of_an_old_script_is_ignored(site):
    thread, fan = site.thread(), site.fan()
    client = site.clients.connect(site.url("forum_threads", room=thread) + "?user_id=999999",
                                  extra_headers=site.headers(fan))
    assert json.loads(client.recv())["user_id"] == fan.id


@pytest.mark.parametrize("feed", GLOBAL_AND_THREAD)
@pytest.mark.parametrize("headers,reason", [
    ((), "No authentication"), (cookie("theme=dark"), "No session ID"), (cookie("session_id="), "No session ID"),
    (cookie("session_id=7e57-no-such"), "Invalid session")])
def test_refusals_come_after_the_accept_with_code_and_reason(site, feed, headers, reason):
    assert closed_with(site, feed, site.room_for(feed), headers) == (1008, reason)


@pytest.mark.parametrize("feed", GLOBAL_AND_THREAD)
@pytest.mark.parametrize("what", ["expired", "logged out", "inactive", "deleted"])
def test_a_session_that_no_longer_holds_is_invalid(site, feed, what):
    fan = site.fan(is_active=what != "inactive")
    if what == "expired":
        site.data.run("UPDATE sessions SET expires_at = 1 WHERE id = ?", fan.session)
    elif what == "logged out":
        site.data.run("UPDATE sessions SET is_active = 0 WHERE id = ?", fan.session)
    elif what == "deleted":
        site.data.run("DELETE FROM users WHERE id = ?", fan.id)
    assert closed_with(site, feed, site.room_for(feed), site.headers(fan)) == (1008, "Invalid session")


def test_last_active_is_touched(site):
    fan = site.fan()
    site.connect(fan, "forum_threads", site.thread())
    assert site.data.value("SELECT last_active FROM sessions WHERE id = ?", fan.session) > 0


def test_an_unknown_thread(site):
    assert closed_with(site, "forum_threads", 987654321, site.headers(site.fan())) == (1008, "Thread not found")


@pytest.mark.parametrize("thread,tier,is_let_in", [
    ({}, None, True), ({"min_tier_cents": 500}, 500, True), ({"min_tier_cents": 500}, 499, False),
    ({"min_tier_cents": 500}, None, False), ({"is_private": True}, 9999, False)])
def test_access_by_tier_and_privacy(site, thread, tier, is_let_in):
    room, fan = site.thread(**thread), site.fan(tier_cents=tier)
    if is_let_in:
        assert json.loads(site.connect(fan, "forum_threads", room).first)["type"] == "connected"
    else:
        assert closed_with(site, "forum_threads", room, site.headers(fan)) == (1008, "Access denied")


@pytest.mark.parametrize("who", ["creator", "team"])
def test_creators_and_team_of_anybody_read_everything(site, who):
    room = site.thread(is_private=True, min_tier_cents=100000)
    person = site.creator() if who == "creator" else site.team(site.creator())
    assert json.loads(site.connect(person, "forum_threads", room).first)["type"] == "connected"


@pytest.mark.parametrize("reason", ["Authentication error", "Database error", "User info error", "Manager connection error",
                                    "Internal error"])
@pytest.mark.parametrize("feed", GLOBAL_AND_THREAD)
def test_failures_of_the_app_close_with_1011(site, feed, reason):
    site.data.set_fault(feed, reason.lower().replace(" ", "_") + ":1011")
    assert closed_with(site, feed, site.room_for(feed), site.headers(site.fan())) == (1011, reason)


def test_every_event_of_a_thread_reaches_it_and_no_other(site):
    creator = site.creator()
    ann, bob = site.fan(), site.fan()
    here, there = site.thread(creator), site.thread(creator)
    clients = [site.connect(ann, "forum_threads", here), site.connect(bob, "forum_threads", there)]
    post = "/api/forum/threads/%d/messages" % here
    first = ann.post(post, {"content": "one @bob"})["id"]
    reply = bob.post(post, {"content": "two", "reply_to_id": first})["id"]
    ann.call("PATCH", "/api/forum/messages/%d" % first, {"content": "uno"})
    bob.post("/api/forum/messages/%d/like" % first)
    bob.post("/api/forum/messages/%d/like" % first)  # a repeated like publishes nothing
    bob.call("DELETE", "/api/forum/messages/%d/like" % first)
    creator.call("PATCH", "/api/forum/threads/%d" % here, {"is_locked": True, "min_tier_cents": 500})
    sub = creator.post("/api/forum/messages/%d/create-thread" % reply, {"title": "aside"})["id"]
    ann.call("DELETE", "/api/forum/messages/%d" % first)
    frames, foreign = parsed(site.received("forum_threads", clients))
    assert foreign == [] and all(f["thread_id"] == here for f in frames)
    assert [f["type"] for f in frames] == ["new_message", "new_message", "message_edited", "message_liked", "message_unliked",
                                           "thread_updated", "message_thread_count_updated", "messages_deleted"]
    message = frames[0]["message"]
    assert message["content_html"] == "<p>one @bob</p>" and message["mentions"] == ["bob"] and message["username"] == ann.alias
    assert frames[1]["message"]["reply_to_message"]["id"] == first
    assert frames[2]["message"]["is_edited"] is True and frames[2]["message"]["content"] == "uno"
    liker = {"id": bob.id, "username": bob.alias}
    assert frames[3] == {"type": "message_liked", "thread_id": here, "message_id": first, "like_count": 1, "liked_by": liker}
    assert frames[4] == {"type": "message_unliked", "thread_id": here, "message_id": first, "like_count": 0, "unliked_by": liker}
    assert frames[5]["updates"] == {"is_pinned": False, "is_locked": True, "min_tier_cents": 500,
                                    "tier_info": {"min_tier_cents": 500}}
    assert frames[6] == {"type": "message_thread_count_updated", "thread_id": here, "message_id": reply, "spawned_thread_count": 1,
                         "sub_thread_id": sub, "sub_thread_title": "aside", "creator_username": creator.alias}
    assert frames[7] == {"type": "messages_deleted", "thread_id": here, "message_ids": [first, reply], "deleted_count": 2}


def test_a_long_quote_is_cut(site):
    ann, room = site.fan(), site.thread()
    client = site.connect(ann, "forum_threads", room)
    first = ann.post("/api/forum/threads/%d/messages" % room, {"content": "x" * 300})["id"]
    ann.post("/api/forum/threads/%d/messages" % room, {"content": "y", "reply_to_id": first})
    frames, = parsed(site.received("forum_threads", [client]))
    assert frames[1]["message"]["reply_to_message"]["content"] == "x" * 100 + "..."


def test_who_may_do_what_in_a_thread(site):
    creator = site.creator()
    team, ann, bob = site.team(creator), site.fan(), site.fan(tier_cents=None)
    room, dear = site.thread(creator), site.thread(creator, min_tier_cents=500)
    first = site.data.thread(room)["first_message_id"]
    post = "/api/forum/threads/%d/messages" % room
    bob.call("POST", "/api/forum/threads/%d/messages" % dear, {"content": "x"}, status=403)
    ann.call("POST", post, {"content": "@everyone"}, status=403)
    team.post(post, {"content": "@everyone"})
    mine = ann.post(post, {"content": "x"})["id"]
    bob.call("PATCH", "/api/forum/messages/%d" % mine, {"content": "y"}, status=403)
    bob.call("DELETE", "/api/forum/messages/%d" % mine, status=403)
    ann.call("POST", "/api/forum/messages/%d/like" % mine, {}, status=400)
    creator.call("DELETE", "/api/forum/messages/%d" % first, status=400)
    ann.call("PATCH", "/api/forum/threads/%d" % room, {"is_locked": True}, status=403)
    team.call("DELETE", "/api/forum/messages/%d" % mine)
    creator.call("PATCH", "/api/forum/threads/%d" % room, {"is_locked": True})
    ann.call("POST", post, {"content": "x"}, status=403)
    creator.post(post, {"content": "x"})


def test_typing_reaches_the_thread_as_an_alias(site):
    ann, bob, here, there = site.fan(), site.fan(), site.thread(), site.thread()
    mine = site.connect(ann, "forum_threads", here)
    clients = [mine, site.connect(bob, "forum_threads", here), site.connect(bob, "forum_threads", there)]
    mine.send('{"type":"typing","is_typing":true}')
    expected = {"type": "user_typing", "thread_id": here, "user_id": ann.id, "username": ann.alias, "is_typing": True}
    assert json.loads(clients[0].recv()) == json.loads(clients[1].recv()) == expected
    assert site.received("forum_threads", clients) == [[], [], []]


def test_a_json_ping_is_answered_without_a_time(site):
    client = site.connect(site.fan(), "forum_threads", site.thread())
    client.send('{"type":"ping"}')
    assert json.loads(client.recv()) == {"type": "pong"}
    client.send('{"type":"heartbeat_ack"}')
    client.send('{"type":"other"}')
    client.ping()
    assert client.quiet() and client.is_open()


def test_bad_json_and_non_objects_are_survived(site):
    client = site.connect(site.fan(), "forum_threads", site.thread())
    client.send("not json")
    client.send("[1]")
    client.send('{"type":"ping"}')
    assert json.loads(client.recv()) == {"type": "pong"}


def test_each_viewer_gets_one_copy(site):
    """No dual mode: the original's page got two on the replica that published (F16)."""
    ann, room = site.fan(), site.thread()
    clients = [site.connect(ann, "forum_threads", room), site.connect(ann, "forum_threads", room),
               site.connect(ann, "forum_global")]
    ann.post("/api/forum/threads/%d/messages" % room, {"content": "x"})
    first, second = site.received("forum_threads", clients[:2])
    assert len(first) == len(second) == 1
    assert site.received("forum_global", clients[2:]) == [[]]


def test_a_thread_that_is_deleted_or_dearer_publishes_nothing(site):
    creator, ann = site.creator(), site.fan()
    room = site.thread(creator)
    client = site.connect(ann, "forum_threads", room)
    creator.call("DELETE", "/api/forum/threads/%d" % room)
    assert site.received("forum_threads", [client]) == [[]]


@pytest.mark.limit(120)
def test_access_that_is_lost_ends_the_feed_at_the_recheck(stack):
    """F18: checked at connect only before; a short period here, minutes in production."""
    own = stack(changes=[(r"recheck\s*=\s*\w+", "recheck = 1s"), (r"cache_ttl\s*=\s*\w+", "cache_ttl = 100ms")])
    creator, fan, member = own.creator(), own.fan(tier_cents=500), own.fan(tier_cents=900)
    room = own.thread(creator, min_tier_cents=500)
    leaves, stays = own.connect(fan, "forum_threads", room), own.connect(member, "forum_threads", room)
    own.data.run("UPDATE threads SET min_tier_cents = 900 WHERE id = ?", room)
    assert leaves.wait_closed() == (1008, "Access denied")
    wait_for("rechecks of who stays", lambda: any(c["event"] == "recheck" and member.session in c["headers"]["cookie"]
                                                  for c in own.data.hook_calls("forum_threads", "recheck")))
    assert stays.is_open()
    gone = own.connect(own.fan(), "forum_global")
    own.data.run("UPDATE sessions SET is_active = 0 WHERE id = ?", gone.person.session)
    assert gone.wait_closed() == (1008, "Invalid session")
