"""Section 0: what all five feeds have in common, and what their clients see of the server."""
import json
import signal
import time

import pytest
import websockets

from clients import Clients
from server import raw_request, upgrade
from stack import FEEDS, PATHS, QUERY_FEEDS, types
from waiting import Deadline, wait_for
from wsraw import BINARY, TEXT, frame


def handshake(site, path, person=None, **extra):
    headers = dict({"Origin": "https://feeds.example"}, **extra)
    if person:
        headers["Cookie"] = "session_id=" + person.session
    return raw_request(site.server, upgrade(path, host="feeds.example", **headers))


def path_of(feed, user, room=""):
    return PATHS[feed].format(user=user, room=room)


# ---- refusals

@pytest.mark.parametrize("feed", QUERY_FEEDS)
@pytest.mark.parametrize("query", ["", "?user_id=", "?user_id=abc", "?user_id=1.5", "?user=1", "?user_id=0x10"])
def test_no_integer_user_id_is_403_with_an_empty_body(site, feed, query):
    fan = site.fan()
    path = path_of(feed, "", site.room_for(feed)).partition("?")[0]
    answer = handshake(site, path + query, fan)
    assert (answer.status, answer.body, answer.closed) == (403, b"", True)


@pytest.mark.parametrize("feed", QUERY_FEEDS)
def test_a_refusal_before_the_accept_is_403_with_an_empty_body(site, feed):
    answer = handshake(site, path_of(feed, 1, site.room_for(feed)))  # no cookie at all
    assert (answer.status, answer.body, answer.closed) == (403, b"", True)


@pytest.mark.parametrize("path", ["/ws/broadcasts", "/ws/comments/1", "/ws/forum/1", "/ws/book-requests", "/ws/book-requests/admin",
                                  "/api/book-requests/admin/ws", "/api/forum/ws", "/nowhere"])
def test_urls_that_never_existed_are_403(site, path):
    answer = handshake(site, path, site.fan())
    assert (answer.status, answer.body) == (403, b"")


@pytest.mark.parametrize("thread", ["abc", "1.5", "5a", "%2b", "--5"])
def test_a_thread_id_that_is_no_integer_is_refused_as_this_feed_refuses(site, thread):
    """By a Close with a code, as everything else that is wrong with a thread. (The original: 403; no page asks for one.)"""
    fan = site.fan()
    client = site.clients.connect(site.server.url("/api/forum/ws/thread/" + thread), extra_headers=site.headers(fan))
    assert client.wait_closed() == (1008, "no valid room named")


@pytest.mark.parametrize("form", ["+%s", "00%s", "%%20%s%%20", "%%2B%s", "+000%s"])
def test_integers_are_read_as_the_original_did(site, form):
    """Signs, leading zeros and blanks; a '+' in a query is a blank, in a path it is a sign."""
    fan, room = site.fan(), site.thread()
    client = site.clients.connect(site.server.url("/api/forum/ws/thread/" + form % room),
                                  extra_headers=site.headers(fan))
    assert '"thread_id":%d' % room in client.recv().replace(" ", "")
    client.person = fan
    site.publish("forum_threads", {"type": "x", "thread_id": room})
    assert types(site.received("forum_threads", [client])[0]) == ["x"]
    other = site.clients.connect(site.server.url("/api/creator/broadcast/ws?user_id=" + form % fan.id),
                                 extra_headers=site.headers(fan))
    assert types([other.recv()]) == ["connected"]


def test_of_two_user_ids_the_last_counts(site):
    fan, other = site.fan(), site.fan()
    path = "/api/creator/broadcast/ws?user_id=%d&user_id=%d"
    assert handshake(site, path % (other.id, fan.id), fan).status == 101
    assert handshake(site, path % (fan.id, other.id), fan).status == 403


@pytest.mark.parametrize("feed", QUERY_FEEDS)
def test_another_users_id_is_refused(site, feed):
    """F2: the identity is the cookie's, and the query must agree."""
    fan, creator = site.fan(), site.creator()
    room = site.room_for(feed)
    assert handshake(site, path_of(feed, creator.id, room), fan).status == 403
    assert handshake(site, path_of(feed, fan.id, room), fan).status == 101


@pytest.mark.parametrize("feed", FEEDS)
def test_foreign_origins_are_refused(site, feed):
    """F23: no page of another site opens our sockets with our users' cookies."""
    fan, room = site.fan(), site.room_for(feed)
    path = path_of(feed, fan.id, room)
    assert handshake(site, path, fan, Origin="https://evil.example").status == 403
    assert handshake(site, path, fan, Origin="https://feeds.example.evil.example").status == 403
    assert handshake(site, path, fan, Origin="null").status == 403
    assert handshake(site, path, fan).status == 101


@pytest.mark.parametrize("feed", FEEDS)
def test_refusals_are_logged_with_their_reason_and_counted(site, feed):
    """S15, S73: 403 without a body to the client, the reason in the log."""
    fan, room = site.fan(), site.room_for(feed)
    site.data.run("UPDATE sessions SET is_active = 0 WHERE id = ?", fan.session)
    before = sum(site.server.stats()["totals"]["refused"].values())
    if feed in QUERY_FEEDS:
        assert handshake(site, path_of(feed, fan.id, room), fan).status == 403
    else:
        assert site.connect(fan, feed, room, greeting=False).wait_closed()[0] == 1008
    wait_for("the log line", lambda: [line for line in site.server.log().splitlines()
                                      if "ns=" + feed in line and "Invalid session" in line])
    assert fan.session not in site.server.log()
    wait_for("the counter", lambda: sum(site.server.stats()["totals"]["refused"].values()) > before)


# ---- frames

@pytest.mark.parametrize("feed", FEEDS)
def test_a_message_of_more_than_16k_closes_with_1009(site, feed):
    client = site.connect(site.fan(), feed, site.room_for(feed))
    client.send("x" * (16 * 1024 + 1))
    assert client.wait_closed()[0] == 1009


@pytest.mark.parametrize("feed", FEEDS)
def test_one_bad_message_leaves_no_zombie(site, feed):
    """F7: the original stopped listening and left the link up. Ours goes on, registered and heard."""
    fan, room = site.fan(), site.room_for(feed)
    client = site.connect(fan, feed, room)
    for text in ("[1,2]", "7", '"x"', "{"):
        client.send(text)
    client.ping()
    assert client.quiet() and client.is_open()
    site.publish(feed, {"type": "still_here", "_target_users": [fan.id]})
    assert types([client.recv()]) == ["still_here"]


@pytest.mark.parametrize("feed", FEEDS)
def test_the_fifth_bad_message_closes_with_1008(site, feed):
    client = site.connect(site.fan(), feed, site.room_for(feed))
    for _ in range(5):
        client.send("[]")
    assert client.wait_closed()[0] == 1008


@pytest.mark.parametrize("feed", FEEDS)
def test_binary_closes_with_1003_and_bad_utf8_with_1007(site, feed):
    for opcode, payload, code in ((BINARY, b"\x00", 1003), (TEXT, b"\xff\xfe", 1007)):
        client = site.connect(site.fan(), feed, site.room_for(feed))

        async def send_raw(client=client, data=frame(opcode, payload)):
            client.websocket.transport.write(data)
        client.call(send_raw())
        assert client.wait_closed()[0] == code


def test_compression_that_is_offered_is_declined(site):
    """A difference that clients cannot see but on the wire: the original accepted permessage-deflate."""
    fan = site.fan()
    client = site.connect(fan, "broadcasts", compression="deflate")
    assert client.websocket.extensions == []
    site.publish("broadcasts", {"type": "x", "text": "y" * 5000})
    assert types(site.received("broadcasts", [client])[0]) == ["x"]


# ---- idle clients, keepalive, shutdown

@pytest.mark.limit(75)
def test_silence_of_30_s_brings_a_ping_or_a_heartbeat(site):
    """With the times of etc/feeds.conf. Traffic to the client does not count as the client's life."""
    fan = site.fan()
    clients = {feed: site.connect(fan, feed, site.room_for(feed)) for feed in FEEDS}
    began = time.monotonic()
    spoke = site.connect(fan, "broadcasts")
    wait_for("half of the time", lambda: time.monotonic() - began > 16, every=0.5)
    spoke.send("pong")
    site.publish("broadcasts", {"type": "x", "_target_users": [fan.id]})
    assert types([clients["broadcasts"].recv(), spoke.recv()]) == ["x", "x"]
    for feed in ("broadcasts", "book_requests"):
        assert clients[feed].recv(40) == "ping"
    for feed in ("forum_global", "forum_threads"):
        assert types([clients[feed].recv(10)]) == ["heartbeat"]
    assert 29 <= time.monotonic() - began <= 36
    assert clients["track_comments"].quiet() and spoke.quiet()
    assert all(client.is_open() for client in clients.values())


@pytest.mark.limit(90)
def test_idle_frames_repeat_and_dead_links_end_with_1011(stack):
    own = stack(changes=[(r"after\s*=\s*30s", "after = 1s"),
                         (r"ping_interval = 20s", "ping_interval = 1s"), (r"pong_timeout = 20s", "pong_timeout = 1s")])
    fan = own.fan()
    alive = {feed: own.connect(fan, feed, own.room_for(feed)) for feed in FEEDS}
    for _ in range(3):
        assert alive["broadcasts"].recv() == alive["book_requests"].recv() == "ping"
        assert types([alive["forum_global"].recv(), alive["forum_threads"].recv()]) == ["heartbeat"] * 2
    assert isinstance(json.loads(alive["forum_global"].recv())["timestamp"], float)

    async def deaf(client):
        client.websocket.pong = lambda *_: never()  # the library answers pings by this method

    async def never():
        return None
    dead = own.connect(fan, "track_comments", own.track())
    dead.call(deaf(dead))
    assert dead.wait_closed() == (1011, "keepalive ping timeout")
    assert alive["track_comments"].is_open()


@pytest.mark.limit(90)
def test_a_stop_closes_with_1012_and_leaves_nothing_in_redis(stack):
    """S10, S41, F31: every feed's sockets are told of the restart; no key outlives the lease."""
    own = stack(changes=[(r"drain_time = 10s", "drain_time = 1s")])
    clients = [own.connect(own.fan(), feed, own.room_for(feed)) for feed in FEEDS]
    channels = own.redis_client.pubsub_channels()
    assert {f.encode() for f in FEEDS} <= set(channels)  # S74: plain SUBSCRIBE for each
    own.server.kill(signal.SIGTERM)
    assert [client.wait_closed()[0] for client in clients] == [1012] * 5
    assert own.server.wait() == 0
    wait_for("no channel is left", lambda: not own.redis_client.pubsub_channels())
    wait_for("no key is left", lambda: not own.redis_client.keys("ringcast:*"), 30)


def test_a_reload_refuses_nobody_and_closes_with_1012(stack):
    """Forum clients give up after one failed reconnect: the port must never refuse. Whoever is closed may come back."""
    own = stack(changes=[(r"drain_time = 10s", "drain_time = 1s")])
    fan = own.fan()
    clients = [own.connect(fan, feed, own.room_for(feed)) for feed in FEEDS]
    generation = own.server.stats()["generation"]
    own.server.kill(signal.SIGHUP)
    deadline = Deadline(20)
    more = Clients()
    try:
        while own.server.stats()["generation"] == generation or any(c.is_open() for c in clients) and not deadline.passed():
            more.connect(own.url("forum_global"), extra_headers=own.headers(fan)).close()
    finally:
        more.close_all()
    for feed, client in zip(FEEDS, clients):
        if not client.is_open():
            assert client.websocket.close_code == 1012
            client = own.connect(fan, feed, own.room_for(feed))
        own.publish(feed, {"type": "after", "_target_users": [fan.id]})
        assert types([client.recv()]) == ["after"]


def test_a_second_socket_needs_no_second_login(site):
    """One tab opens several sockets with one cookie: the hook is asked once for a feed and a room while it is cached."""
    fan = site.fan()
    for _ in range(4):
        site.connect(fan, "forum_global")
    asked = [c for c in site.data.hook_calls("forum_global", "connect") if fan.session in c["headers"]["cookie"]]
    assert 1 <= len(asked) <= 2  # one for each worker


def test_the_query_of_a_refused_client_shows_nothing_in_the_answer(site):
    with pytest.raises(websockets.InvalidStatusCode) as caught:
        site.clients.connect(site.url("broadcasts", user="77"))
    assert caught.value.status_code == 403 and not caught.value.headers.get("Set-Cookie")
