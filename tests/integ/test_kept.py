"""Retained messages, stored values, receipts: what is kept for clients and given to them."""
import json
import socket
import threading
import time

import pytest

from server import CALM, raw_socket, upgrade
from waiting import wait_for

CONFIG = CALM + """
auth "query" { type = "query" }
namespace "news" { path = "/news/{room}" redis_channel = "news" envelope = "json" route_key = "room" origins = { "*" }
    greeting = '{"type":"hello"}' retain = "last" publish = { "api", "redis", "client" }
    rule "again" { action = "retained" } }
namespace "raw" { path = "/raw/{room}" origins = { "*" } retain = "last" publish = { "api", "redis", "client" } }
namespace "notice" { path = "/notice" envelope = "json" origins = { "*" } auth = "query" user_query = "user"
    greeting = '{"type":"hello"}'
    retain = "redis" retain_key = "notice" retain_unless = "seen:{value.id}:{user}"
    retain_frame = '{"type":"notice","id":{value.id:int},"text":"{value.text}","for":"{user}"}'
    receipts = on
    rule "seen" { action = "store" key = "seen:{msg.id}:{user}" value = "1" ttl = 60s coerce = { "id:string" } }
    rule "again" { action = "retained" }
    rule "read" { action = "receipt" key = "{msg.id}" coerce = { "id:string" } } }
"""
HELLO = '{"type":"hello"}'


def message(room, n):
    return json.dumps({"room": room, "n": n})  # as the API client writes it


@pytest.fixture(params=[False, True], ids=["local", "redis"])
def server(request, ringcast, redis_factory):
    started = ringcast(CONFIG, redis=redis_factory() if request.param else None)
    started.wait_ready()
    return started


def publish(server, channel, text):
    return server.publish_answer({"channel": channel, "data": json.loads(text)}).json["result"]


def comes_in(connect, server, path, *frames):
    client = connect(server.url(path))
    assert [client.recv() for _ in frames] == list(frames)
    return client


def test_the_last_message_comes_first(server, connect):
    publish(server, "news:a", message("a", 1))
    publish(server, "news:b", message("b", 1))
    publish(server, "news:a", message("a", 2))  # nobody listens yet
    first = comes_in(connect, server, "/news/a", HELLO, message("a", 2))
    publish(server, "news:a", message("a", 3))
    assert first.recv() == message("a", 3)
    clients = [comes_in(connect, server, "/news/a", HELLO, message("a", 3)) for _ in range(8)]  # on both workers
    publish(server, "news:a", message("a", 4))
    for client in [first] + clients:
        assert client.recv() == message("a", 4) and client.quiet()
    first.send('{"type":"again"}')
    assert first.recv() == message("a", 4)
    assert comes_in(connect, server, "/news/c", HELLO).quiet()


def test_targeted_messages_are_not_retained(server, connect):
    publish(server, "news:a", message("a", 1))
    server.publish_answer({"channel": "news", "data": {"room": "a", "n": 2, "_target_users": ["7"]}})
    client = comes_in(connect, server, "/news/a", HELLO, message("a", 1))
    assert client.quiet()


def test_binary_and_empty_ones(server, connect):
    keeper = connect(server.url("/raw/a"))  # with Redis a room is seen while somebody is in it
    keeper.send(b"\x00\xff")
    assert keeper.recv() == b"\x00\xff"
    assert connect(server.url("/raw/a")).recv() == b"\x00\xff"
    keeper.send("")
    assert keeper.recv() == ""
    assert connect(server.url("/raw/a")).recv() == ""


@pytest.mark.limit(120)
def test_no_newcomer_misses_one_or_gets_one_twice(server, connect):
    """Messages flow while clients come: each gets consecutive ones, whichever it begins with."""
    ended = threading.Event()
    sent = []

    def flow():
        while not ended.is_set():
            publish(server, "news:a", message("a", len(sent)))
            sent.append(len(sent))

    publisher = threading.Thread(target=flow)
    publisher.start()
    try:
        wait_for("messages flow", lambda: len(sent) > 20)
        clients = [connect(server.url("/news/a")) for _ in range(60)]
    finally:
        ended.set()
        publisher.join()
    publish(server, "news:a", message("a", len(sent)))
    for client in clients:
        assert client.recv() == HELLO
        got = [json.loads(client.recv())["n"]]
        while got[-1] != len(sent):
            got.append(json.loads(client.recv())["n"])
        assert got == list(range(got[0], len(sent) + 1))
        assert client.quiet()


def test_a_reload_keeps_them(server, connect):
    publish(server, "news:a", message("a", 1))
    publish(server, "raw:x", '"x"')
    server.write_config(CONFIG.replace("retain = \"last\" publish = { \"api\", \"redis\", \"client\" } }",
                                       "publish = { \"api\", \"redis\", \"client\" } }"))
    server.process.send_signal(1)
    server.wait_log("reloaded")
    comes_in(connect, server, "/news/a", HELLO, message("a", 1))
    assert connect(server.url("/raw/x")).quiet()


def notice_server(ringcast, redis):
    server = ringcast(CONFIG, redis=redis)
    server.wait_ready()
    wait_for("the command link is open", lambda: server.log_events("redis_connected", link="cmd"))
    return server


def test_a_value_of_redis_is_a_first_frame(ringcast, redis_server, connect):
    server = notice_server(ringcast, redis_server)
    redis = redis_server.client()
    assert comes_in(connect, server, "/notice?user=7", HELLO).quiet()
    redis.set("notice", '{"id":"12","text":"a \\"word\\""}')
    frame = '{"type":"notice","id":12,"text":"a \\"word\\"","for":"7"}'
    client = comes_in(connect, server, "/notice?user=7", HELLO, frame)
    client.send('{"type":"again"}')
    assert client.recv() == frame
    client.send('{"type":"seen","id":"12"}')
    wait_for("it is stored", lambda: redis.get("seen:12:7") == b"1")
    assert 50000 < redis.pttl("seen:12:7") <= 60000
    client.send('{"type":"seen"}')  # a key with a hole: ignored
    client.send('{"type":"again"}')
    assert comes_in(connect, server, "/notice?user=7", HELLO).quiet()
    assert client.quiet()
    assert redis.keys("seen:*") == [b"seen:12:7"]
    comes_in(connect, server, "/notice?user=8", HELLO, frame.replace('"7"', '"8"'))
    redis.set("notice", "no JSON")
    assert comes_in(connect, server, "/notice?user=8", HELLO).quiet()
    assert server.metric("ringcast_dropped_total", namespace="notice", reason="bad_json") == 1


def test_without_redis_clients_come_in(ringcast, redis_server, connect):
    server = notice_server(ringcast, redis_server)
    redis_server.client().set("notice", '{"id":1,"text":"x"}')
    redis_server.pause()
    try:
        client = comes_in(connect, server, "/notice?user=7", HELLO)  # after ASK_ANSWER_MS at most
        client.send('{"type":"again"}')
        assert client.quiet()
    finally:
        redis_server.resume()
    redis_server.kill()
    comes_in(connect, server, "/notice?user=7", HELLO)


def test_who_has_read_is_kept(ringcast, redis_server, connect):
    server = notice_server(ringcast, redis_server)
    redis = redis_server.client()
    for user in ("7", "8"):
        client = comes_in(connect, server, "/notice?user=%s" % user, HELLO)
        client.send('{"type":"read","id":"m1"}')
        client.send('{"type":"read","id":""}')
    wait_for("both are there", lambda: redis.zcard("ringcast:receipts:notice:m1") == 2)
    assert sorted(redis.zrange("ringcast:receipts:notice:m1", 0, -1)) == [b"7", b"8"]
    assert 0 < redis.pttl("ringcast:receipts:notice:m1") <= 24 * 3600 * 1000
    assert len(redis.keys("ringcast:receipts:*")) == 1
    result = receipts(server, "notice", "m1").json["result"]
    assert sorted(r["user"] for r in result["read"]) == ["7", "8"]
    assert all(abs(r["at"] / 1000 - time.time()) < 60 for r in result["read"])
    redis_server.kill()
    assert receipts(server, "notice", "m1").status == 503


def receipts(server, channel, message_id):
    return server.api("/api/receipts", "POST", json.dumps({"channel": channel, "id": message_id}))


def test_who_has_read_without_redis(ringcast, connect):
    server = ringcast(CONFIG)
    server.wait_ready()
    for user in ("7", "8", "7"):
        client = comes_in(connect, server, "/notice?user=%s" % user, HELLO)
        client.send('{"type":"read","id":%s}' % ("5" if user == "8" else '"5"'))  # as the application names them
    wait_for("both are there", lambda: len(receipts(server, "notice", 5).json["result"]["read"]) == 2)
    assert receipts(server, "notice", "other").json["result"]["read"] == []
    for channel, message_id, status, code in (("notice", "", 400, "bad_request"), ("notice", None, 400, "bad_request"),
                                              ("notice", "x" * 256, 400, "bad_request"), ("raw:a", "m", 400, "not_available"),
                                              ("none", "m", 404, "unknown_namespace")):
        answer = receipts(server, channel, message_id)
        assert (answer.status, answer.error) == (status, code)


@pytest.mark.parametrize("with_redis", [False, True], ids=["local", "redis"])
def test_how_many_have_it(ringcast, redis_factory, connect, with_redis):
    """Five sockets, one of which does not read a large message until later."""
    server = ringcast(CONFIG, redis=redis_factory() if with_redis else None)
    server.wait_ready()
    clients = [comes_in(connect, server, "/notice?user=%d" % user, HELLO) for user in (7, 7, 8, 9)]
    stuck = raw_socket(server)
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    stuck.sendall(upgrade("/notice?user=10"))
    server.wait_connections(5)
    text = "x" * 1_000_000
    for _ in range(8):  # more than the kernel keeps for a socket
        server.publish_answer({"channel": "notice", "data": {"n": 1, "text": text}})
    answer = server.publish_answer({"channel": "notice", "data": {"n": 2}, "id": "m2"}).json["result"]
    assert (answer["sockets"], answer["users"]) == (5, 4)

    def delivered(message_id):
        return receipts(server, "notice", message_id).json["result"].get("delivered")

    def counts(sockets, of, users, of_users):
        return {"sockets": sockets, "of": of, "users": users, "of_users": of_users, "partial": False}

    wait_for("four have it", lambda: delivered("m2") == counts(4, 5, 3, 4))
    for client in clients:
        assert [client.recv() for _ in range(9)][-1] == json.dumps({"n": 2})
    assert delivered("m2") == counts(4, 5, 3, 4)
    server.publish_answer({"channel": "notice", "data": {"n": 3, "_target_users": [7, 12]}, "id": 3})
    wait_for("both have it", lambda: delivered("3") == counts(2, 2, 1, 1))
    assert delivered("m3") is None
    tail = json.dumps({"n": 2}).encode()
    seen = b""
    stuck.settimeout(20)
    while not seen.endswith(tail):
        piece = stuck.recv(65536)
        assert piece
        seen = seen[-100:] + piece
    wait_for("all have it", lambda: delivered("m2") == counts(5, 5, 4, 4))
    stuck.close()
    bad = server.publish_answer({"channel": "notice", "data": {"n": 4}, "id": ""})
    assert (bad.status, bad.error) == (400, "bad_request")


def test_other_replicas_are_not_among_them(ringcast, redis_server, connect):
    servers = [ringcast(CONFIG, redis=redis_server) for _ in range(2)]
    for server in servers:
        server.wait_ready()
        wait_for("both are known", lambda: len(server.api("/api/info", "POST", "{}").json["result"]["nodes"]) == 2)
    clients = [comes_in(connect, server, "/notice?user=7", HELLO) for server in servers for _ in range(2)]
    answer = servers[0].publish_answer({"channel": "notice", "data": {"n": 1}, "id": "m1"}).json["result"]
    assert (answer["sockets"], answer["users"]) == (4, 1)
    for client in clients:
        assert client.recv() == json.dumps({"n": 1})
    wait_for("both have it", lambda: receipts(servers[0], "notice", "m1").json["result"].get("delivered") == {
        "sockets": 2, "of": 2, "users": 1, "of_users": 1, "partial": True})
    assert receipts(servers[1], "notice", "m1").json["result"] == {"read": []}


def test_an_id_means_nothing_without_receipts(server, connect):
    client = comes_in(connect, server, "/news/a", HELLO)
    assert server.publish_answer({"channel": "news:a", "data": {"room": "a"}, "id": [1]}).status == 200
    assert client.recv() == json.dumps({"room": "a"})


AWAY = CALM + """
auth "query" { type = "query" }
namespace "mail" { path = "/mail" redis_channel = "mail" envelope = "json" origins = { "*" } auth = "query" user_query = "user"
    greeting = '{"type":"hello"}' presence = on offline_max = 3 offline_ttl = 60s publish = { "api", "redis" } }
"""


def letter(n, *users):
    return {"n": n, "_target_users": list(users)}


def kept(redis, user):
    return redis.xlen("ringcast:offline:mail:%s" % user)


@pytest.fixture
def two(ringcast, redis_server):
    """Two replicas that know each other."""
    servers = [ringcast(AWAY, redis=redis_server) for _ in range(2)]
    for server in servers:
        server.wait_ready()
        server.wait_log("redis_connected", link="cmd")
    for server in servers:
        wait_for("they know each other",
                 lambda s=server: len(s.api("/api/info", "POST", "{}").json["result"]["nodes"]) == 2)
    return servers


def is_listed(redis, user):
    return any(b"\0%s\0" % user.encode() in member for key in redis.keys("ringcast:presence:*:mail")
               for member in redis.zrange(key, 0, -1))


@pytest.mark.limit(120)
def test_who_is_away_gets_them_at_the_next_connect(two, redis_server, connect):
    one, other = two
    redis = redis_server.client()
    here = comes_in(connect, one, "/mail?user=1", HELLO)
    there = comes_in(connect, other, "/mail?user=2", HELLO)
    for user in ("1", "2"):
        wait_for("the user is listed", lambda u=user: is_listed(redis, u))
        wait_for("the mark is gone", lambda u=user: not redis.exists("ringcast:online:mail:" + u))
    one.publish_answer({"channel": "mail", "data": letter(0, "1", 2, "3", 4)})
    redis_server.publish("mail", json.dumps(letter(1, 3, "1", "2")).encode())  # foreign: one of the two keeps it
    for client in (here, there):
        assert [json.loads(client.recv())["n"] for _ in range(2)] == [0, 1]
    wait_for("all is kept", lambda: (kept(redis, 3), kept(redis, 4)) == (2, 1))
    assert kept(redis, 1) == kept(redis, 2) == 0
    assert 0 < redis.pttl("ringcast:offline:mail:3") <= 60000
    assert sum(s.metric("ringcast_offline_queued_total") for s in two) == 3
    client = connect(other.url("/mail?user=3"))
    assert client.recv() == HELLO
    assert [json.loads(client.recv()) for _ in range(2)] == [{"n": 0}, {"n": 1}]
    again = comes_in(connect, one, "/mail?user=3", HELLO)  # taken once
    other.publish_answer({"channel": "mail", "data": letter(2, "3")})
    for each in (client, again):
        assert json.loads(each.recv()) == {"n": 2} and each.quiet()
    assert redis.keys("ringcast:offline:*") == [b"ringcast:offline:mail:4"]


@pytest.mark.limit(120)
def test_the_newest_are_kept_for_whom_is_away(two, redis_server, connect):
    one, other = two
    redis = redis_server.client()
    for n in range(5):
        one.publish_answer({"channel": "mail", "data": letter(n, "9")})
    wait_for("five were kept", lambda: one.metric("ringcast_offline_queued_total") == 5)
    assert kept(redis, 9) == 3
    client = connect(other.url("/mail?user=9"))
    assert client.recv() == HELLO
    assert [json.loads(client.recv())["n"] for _ in range(3)] == [2, 3, 4]
    # Gone again: the next one is kept again, when the list and the mark say that he is.
    client.close()
    wait_for("he is away", lambda: not is_listed(redis, "9") and not redis.exists("ringcast:online:mail:9"))
    one.publish_answer({"channel": "mail", "data": letter(7, "9")})
    wait_for("it is kept", lambda: kept(redis, 9) == 1)


def test_nothing_is_kept_while_redis_is_away(two, redis_server, connect):
    redis_server.kill()
    one, _ = two
    one.wait_log("redis_lost", link="cmd")
    one.publish_answer({"channel": "mail", "data": letter(1, "9")})
    wait_for("it is counted", lambda: one.metric("ringcast_offline_lost_total") == 1)
    comes_in(connect, one, "/mail?user=9", HELLO)
