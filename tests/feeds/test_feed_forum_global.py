"""Section 4: the forum's global feed, badges and announcements."""
import json

import pytest

from data import opaque
from stack import parsed, types


def test_the_greeting_shows_no_part_of_the_session_id(site):
    fan = site.fan()
    client = site.connect(fan, "forum_global")
    assert json.loads(client.first) == {"type": "connected", "message": "Connected to global forum updates", "user_id": fan.id,
                                        "session_id": opaque(fan.session)[:8] + "..."}
    assert fan.session[:8] not in client.first
    assert client.quiet()


def test_ping_and_heartbeat_are_answered(site):
    client = site.connect(site.fan(), "forum_global")
    client.send('{"type":"ping"}')
    first = json.loads(client.recv())
    assert first["type"] == "pong" and isinstance(first["timestamp"], float)
    client.send('{"type":"ping"}')
    assert json.loads(client.recv())["timestamp"] >= first["timestamp"]
    client.send('{"type":"heartbeat"}')
    assert json.loads(client.recv()) == {"type": "heartbeat_ack"}
    client.send('{"type":"heartbeat_ack"}')
    client.send('{"type":"subscribe"}')
    client.ping()
    assert client.quiet() and client.is_open()


def test_a_new_thread_is_announced_once_to_everybody_online(site):
    """T1: one publication, whoever holds the sockets; the original asked its own table of sockets."""
    creator, ann, bob = site.creator(), site.fan(), site.fan()
    clients = [site.connect(p, "forum_global") for p in (creator, ann, ann, bob)]
    before = site.server.stats()["namespaces"]["forum_global"]["publications"]
    made = creator.post("/api/forum/threads", {"title": "News"})
    for frames in parsed(site.received("forum_global", clients)):
        assert len(frames) == 1
        assert frames[0]["type"] == "new_thread_created" and frames[0]["thread"]["id"] == made["id"]
        assert frames[0]["creator"] == {"id": creator.id, "username": creator.alias, "role": "Creator"}
        assert set(frames[0]) == {"type", "thread", "creator"}
        assert set(frames[0]["thread"]) == {
            "id", "title", "user_id", "username", "user_role", "user_badge_color", "message_count", "view_count", "is_pinned",
            "is_locked", "min_tier_cents", "last_message_at", "created_at", "can_access", "is_following", "follower_count",
            "thread_type", "unread_count", "tier_info"}
    after = site.server.stats()["namespaces"]["forum_global"]["publications"]
    assert after - before == 2  # the thread and the mark
    ann.call("POST", "/api/forum/threads", {"title": "x"}, status=403)


def test_a_sub_thread_is_announced_to_followers_with_access(site):
    creator, follower, other, poor = site.creator(), site.fan(), site.fan(), site.fan(tier_cents=0)
    room = site.thread(creator, min_tier_cents=100)
    for person in (follower, poor):
        site.data.run("INSERT INTO followers VALUES (?,?)", room, person.id)
    clients = [site.connect(p, "forum_global") for p in (follower, other, poor)]
    message = creator.post("/api/forum/threads/%d/messages" % room, {"content": "x"})["id"]
    sub = creator.post("/api/forum/messages/%d/create-thread" % message, {"title": "aside"})["id"]
    got, nothing, without_access = parsed(site.received("forum_global", clients))
    assert nothing == without_access == [] and len(got) == 1
    frame = got[0]
    assert (frame["type"], frame["parent_thread_id"], frame["parent_message_id"]) == ("new_sub_thread_created", room, message)
    assert frame["thread"]["id"] == sub and frame["thread"]["thread_type"] == "sub"
    assert {"can_delete", "can_manage", "parent_message_id", "created_from_message"} <= set(frame["thread"])


def test_unread_counts_go_to_all_of_ones_own_sockets(site):
    creator, ann, bob = site.creator(), site.fan(), site.fan()
    room, elsewhere = site.thread(creator), site.thread(creator)
    for thread in (room, elsewhere):
        site.data.run("INSERT INTO followers VALUES (?,?)", thread, ann.id)
        creator.post("/api/forum/threads/%d/messages" % thread, {"content": "x"})
        creator.post("/api/forum/threads/%d/messages" % thread, {"content": "y"})
    clients = [site.connect(p, "forum_global") for p in (ann, ann, bob)]
    ann.post("/api/forum/threads/%d/mark-read" % room)
    ann.post("/api/forum/threads/%d/mark-read" % room)  # nothing marked: nothing published
    ann.call("GET", "/api/forum/threads/%d" % elsewhere)
    first, second, others = parsed(site.received("forum_global", clients))
    assert first == second == [
        {"type": "unread_count_updated", "thread_id": room, "thread_unread_count": 0, "total_forum_unread": 2,
         "marked_read_count": 2},
        {"type": "unread_count_updated", "thread_id": elsewhere, "thread_unread_count": 0, "total_forum_unread": 0,
         "marked_read_count": 2}]
    assert others == []


def test_restrictions_reach_the_restricted_alone(site):
    creator, ann, bob = site.creator(), site.fan(), site.fan()
    clients = [site.connect(p, "forum_global") for p in (ann, bob)]
    creator.post("/api/forum/users/%d/restrict" % ann.id, {"reason": "noise", "until": None})
    creator.post("/api/forum/users/%d/unrestrict" % ann.id)
    frames, nothing = parsed(site.received("forum_global", clients))
    assert frames == [{"type": "everyone_restricted", "reason": "noise", "until": None, "restricted_by": creator.username},
                      {"type": "everyone_unrestricted", "unrestricted_by": creator.username}]
    assert nothing == []
    ann.call("POST", "/api/forum/users/%d/restrict" % bob.id, {"reason": "x"}, status=403)


def test_everyone_switches_are_published_and_reach_all(site):
    """T2: they never went through Redis."""
    creator = site.creator()
    clients = [site.connect(site.fan(), "forum_global"), site.connect(site.fan(), "forum_global")]
    creator.post("/api/forum/everyone/disable", {"reason": "calm"})
    creator.post("/api/forum/everyone/enable")
    for frames in parsed(site.received("forum_global", clients)):
        assert frames == [{"type": "everyone_disabled", "reason": "calm", "disabled_by": creator.username},
                          {"type": "everyone_enabled", "enabled_by": creator.username}]


@pytest.mark.parametrize("word", ["team", "everyone"])
def test_mentions_of_many_reach_everybody(site, word):
    creator = site.creator()
    room = site.thread(creator)
    clients = [site.connect(site.fan(), "forum_global"), site.connect(site.fan(), "forum_global")]
    message = creator.post("/api/forum/threads/%d/messages" % room, {"content": "hey @%s" % word})["id"]
    for frames in parsed(site.received("forum_global", clients)):
        assert frames == [{"type": word + "_mention", "thread_id": room, "message_id": message, "thread_title": "A thread",
                           "sender": {"id": creator.id, "username": creator.alias, "role": "Creator"}, "notification_count": 1}]


def test_the_app_may_aim_such_mentions(site):
    """F27: _target_users is respected if the application adds it."""
    ann, bob = site.fan(), site.fan()
    clients = [site.connect(p, "forum_global") for p in (ann, bob)]
    site.publish("forum_global", {"type": "team_mention", "thread_id": 1, "_target_users": [ann.id]})
    assert [types(t) for t in site.received("forum_global", clients)] == [["team_mention"], []]


def test_thread_id_is_data_here_and_never_a_filter(site):
    clients = [site.connect(site.fan(), "forum_global"), site.connect(site.fan(), "forum_threads", site.thread())]
    site.publish("forum_global", {"type": "team_mention", "thread_id": 12345})
    assert types(site.received("forum_global", clients[:1])[0]) == ["team_mention"]
    assert site.received("forum_threads", clients[1:]) == [[]]


@pytest.mark.parametrize("kind", ["thread_deleted", "forum_notification", "forum_notification_count", "new_notification",
                                  "notification_read", "initial_data", "thread_marked_read"])
def test_types_that_clients_know_and_nobody_publishes_pass(site, kind):
    client = site.connect(site.fan(), "forum_global")
    text = '{"type": "%s", "thread_id": 3, "thread_title": "Gr\\u00fc\\u00dfe", "count": 12345678901234567890}' % kind
    site.publish("forum_global", text)
    assert site.received("forum_global", [client]) == [[text]]


def test_two_sockets_of_a_forum_tab_get_one_each(site):
    ann = site.fan()
    clients = [site.connect(ann, "forum_global") for _ in range(2)]
    site.publish("forum_global", {"type": "unread_count_updated", "thread_id": 1, "_target_users": [str(ann.id), str(ann.id)]})
    assert [types(t) for t in site.received("forum_global", clients)] == [["unread_count_updated"]] * 2
