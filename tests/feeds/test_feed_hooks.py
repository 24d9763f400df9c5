"""The application's hook from the feeds' side: what it is asked, and what happens when it fails. The unit of failure is
the new socket; whoever is connected notices nothing."""
import json
import time

import pytest
import websockets

from data import opaque
from server import raw_request, upgrade
from stack import FEEDS, PATHS, QUERY_FEEDS, Person, origin_of, types
from waiting import Deadline, wait_for


def verdict(site, person, feed, room=""):
    """(status, None) of a refusal before the upgrade, (101, code) of one after it, (101, None) when let in."""
    try:
        client = site.connect(person, feed, room, greeting=False)
    except websockets.InvalidStatusCode as error:
        return error.status_code, None
    try:
        client.recv()
    except websockets.ConnectionClosed:
        return 101, client.websocket.close_code
    return 101, None


def test_what_the_hook_is_asked(site):
    fan, track = site.fan(), site.track()
    site.connect(fan, "track_comments", track)
    asked, = site.data.hook_calls("track_comments", "connect")
    assert asked["room"] == track and asked["method"] == "GET" and asked["address"] == "127.0.0.1"
    assert asked["uri"].startswith("/api/ws/track/") and asked["query"] == "user_id=%d" % fan.id
    assert asked["headers"] == {"cookie": "theme=dark; session_id=" + fan.session, "origin": origin_of(site.server.url("/"))}
    assert asked["conn"] and set(asked) <= {"event", "conn", "namespace", "room", "method", "uri", "query", "headers", "address"}
    site.connect(fan, "forum_global")
    asked, = site.data.hook_calls("forum_global", "connect")
    assert asked["room"] == ""


def test_what_the_hook_is_asked_for_a_message(site):
    fan = site.fan()
    client = site.connect(fan, "book_requests")
    client.send('{ "type":"refresh_quota", "x":"\\u00e4" }')
    assert types([client.recv()]) == ["quota_update"]
    asked, = site.data.hook_calls("book_requests", "message")
    assert asked["message"] == '{ "type":"refresh_quota", "x":"\\u00e4" }'
    assert fan.session in asked["headers"]["cookie"]


@pytest.mark.parametrize("feed", FEEDS)
@pytest.mark.parametrize("fault", ["garbage", "error", "user", "huge"])
def test_a_hook_that_answers_nonsense_refuses_new_sockets_alone(site, feed, fault):
    fan, late, room = site.fan(), site.fan(), site.room_for(feed)
    connected = site.connect(fan, feed, room)
    site.data.set_fault(feed, fault)
    expected = (503, None) if feed in QUERY_FEEDS else (101, 1011)
    assert verdict(site, late, feed, room) == expected
    site.publish(feed, {"type": "x", "_target_users": [fan.id]})
    assert types([connected.recv()]) == ["x"]
    site.data.set_fault(feed, None)
    # A circuit that opened meanwhile closes again by itself.
    wait_for("the hook is asked again", lambda: verdict(site, site.fan(), feed, room) == (101, None), every=0.2)


@pytest.mark.limit(120)
def test_a_slow_hook_is_waited_for_in_bounded_time(stack):
    own = stack(changes=[(r"timeout\s*=\s*3s", "timeout = 1s"), (r"cache_ttl\s*=\s*\w+", "cache_ttl = 100ms")])
    fan = own.fan()
    connected = {feed: own.connect(fan, feed, own.room_for(feed)) for feed in FEEDS}
    for feed in FEEDS:
        own.data.set_fault(feed, "slow:10")
        began = time.monotonic()
        assert verdict(own, own.fan(), feed, own.room_for(feed)) == ((503, None) if feed in QUERY_FEEDS else (101, 1011))
        assert time.monotonic() - began < 8
        own.data.set_fault(feed, None)
        own.publish(feed, {"type": "x", "_target_users": [fan.id]})
        assert types([connected[feed].recv()]) == ["x"]
        wait_for("let in again", lambda: verdict(own, own.fan(), feed, own.room_for(feed)) == (101, None), every=0.2)


@pytest.mark.limit(120)
def test_a_dead_app_refuses_new_sockets_and_keeps_the_others(stack):
    own = stack(changes=[(r"cache_ttl\s*=\s*\w+", "cache_ttl = 100ms")])
    fan = own.fan()
    connected = {feed: own.connect(fan, feed, own.room_for(feed)) for feed in FEEDS}
    own.app.kill()
    for feed in FEEDS:
        expected = (503, None) if feed in QUERY_FEEDS else (101, 1011)
        wait_for("the refusal", lambda: verdict(own, own.fan(), feed, own.room_for(feed)) == expected)
        own.publish(feed, {"type": "x", "_target_users": [fan.id]})
        assert types([connected[feed].recv()]) == ["x"]
    connected["broadcasts"].send("ping")
    assert connected["broadcasts"].recv() == "pong"
    own.app.start()
    wait_for("let in again", lambda: verdict(own, own.fan(), "broadcasts") == (101, None), every=0.2)


def test_a_session_that_expires_ends_its_sockets(site):
    user = site.data.add_user()
    person = Person(site, user, site.data.add_session(user, seconds=2))
    client = site.connect(person, "broadcasts")
    deadline = Deadline(15)
    code, _reason = client.wait_closed(15)
    assert code == 1008 and not deadline.passed()


# ---- eviction (F18)

def evict(site, how, body):
    if how == "api":
        answer = site.server.api("/api/disconnect", "POST", json.dumps(body))
        assert answer.status == 200, answer.body
    else:
        site.publish("ringcast:control", dict(body, method="disconnect"))


@pytest.mark.parametrize("how", ["api", "control"])
def test_a_user_can_be_put_out_of_everything(site, how):
    fan, other = site.fan(), site.fan()
    mine = [site.connect(fan, feed, site.room_for(feed)) for feed in FEEDS]
    stays = site.connect(other, "broadcasts")
    evict(site, how, {"user": str(fan.id), "code": 1008, "reason": "banned"})
    assert [client.wait_closed() for client in mine] == [(1008, "banned")] * 5
    assert stays.quiet() and stays.is_open()


@pytest.mark.parametrize("how", ["api", "control"])
def test_a_login_session_can_be_put_out(site, how):
    """Logout on one device leaves the other device's sockets."""
    fan = site.fan()
    elsewhere = Person(site, fan.id, site.data.add_session(fan.id))
    here, there = site.connect(fan, "forum_global"), site.connect(elsewhere, "forum_global")
    evict(site, how, {"session": opaque(fan.session), "code": 1008, "reason": "logged out"})
    assert here.wait_closed() == (1008, "logged out")
    assert there.quiet() and there.is_open()


@pytest.mark.parametrize("how", ["api", "control"])
def test_a_thread_can_be_put_out(site, how):
    fan, gone, kept = site.fan(), site.thread(), site.thread()
    out, stays = site.connect(fan, "forum_threads", gone), site.connect(fan, "forum_threads", kept)
    evict(site, how, {"channel": "forum_threads:%d" % gone, "code": 1008, "reason": "thread deleted"})
    assert out.wait_closed() == (1008, "thread deleted")
    assert stays.quiet() and stays.is_open()


def test_eviction_takes_no_code_that_pages_take_for_farewell(site):
    """Broadcast pages stay away after 1000: without a code, an evicted client gets another one."""
    fan = site.fan()
    client = site.connect(fan, "broadcasts")
    evict(site, "api", {"user": str(fan.id)})
    assert client.wait_closed()[0] not in (1000, 1005)


def test_clients_can_publish_nothing_but_typing(site):
    """S68: no frame of a client becomes a message of the feed, whatever it says."""
    creator = site.creator()
    for feed in FEEDS:
        room = site.room_for(feed)
        mine, other = site.connect(creator, feed, room), site.connect(site.fan(), feed, room)
        for text in ('{"type":"new_broadcast","broadcast":{"id":"1"}}', '{"type":"x","_target_users":["%d"]}' % other.person.id,
                     '{"type":"broadcast","_rc_origin":"00","track_id":"%s","thread_id":"%s"}' % (room, room)):
            mine.send(text)
        mine.ping()
        assert site.received(feed, [other]) == [[]]


def test_session_ids_stand_in_no_log_and_no_frame(site):
    """F30; the log is also searched at the end of every arrangement, for every session id of its tests."""
    fan = site.fan()
    texts = []
    for feed in FEEDS:
        client = site.connect(fan, feed, site.room_for(feed))
        texts.append(client.first)
    raw_request(site.server, upgrade(PATHS["broadcasts"].format(user=fan.id, room=""), Cookie="session_id=%sx" % fan.session))
    assert all(fan.session[:8] not in text for text in texts + [site.server.log(), site.server.api("/stats").body.decode()])
