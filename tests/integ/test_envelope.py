"""Json namespaces: what a message says of whom it is for, one copy for each client, beside replicas that know no
keys of ours, and with Redis coming and going."""
import json
import os
import threading
import time

import pytest

from test_redis import BACK, QUICK, settled, wait_up
from waiting import wait_for

LONG_OUTAGE = float(os.environ.get("TEST_LONG_OUTAGE", "12"))
FEEDS = QUICK + """
namespace "comments" { path = "/track/{room}"   redis_channel = "track_comments"   envelope = "json"   route_key = "track_id"
                       publish = { "client", "api", "redis" }   origins = { "*" }   max_publication = 4k }
namespace "news" { path = "/news"   redis_channel = "news_channel"   envelope = "json"   origins = { "*" } }
namespace "notes" { path = "/notes"   redis_channel = "notes"   envelope = "json"   targeted_only = on   origins = { "*" } }
namespace "chat" { path = "/chat/{room}"   redis_channel = "chat:{room}"   envelope = "json"   origins = { "*" }
                   publish = { "client", "api", "redis" } }
"""


def dropped(server, namespace):
    return {k: v for k, v in server.stats()["namespaces"][namespace]["dropped"].items() if v}


def publish(server, channel, data):
    answer = server.publish_answer({"channel": channel, "data": data})
    assert answer.status == 200, (answer.status, answer.body)
    return answer.json["result"]


class Original:
    """What an original replica does with Redis: it publishes what json.dumps() writes, and of what it hears it delivers
    the keys that do not begin with an underscore, to its own clients (which are a list here)."""

    def __init__(self, redis_server, channel):
        self.redis, self.channel, self.got = redis_server.client(), channel, []
        self.listener = redis_server.client().pubsub()
        self.listener.subscribe(channel)
        assert self.listener.get_message(timeout=20)["type"] == "subscribe"
        self.thread = threading.Thread(target=self.listen, daemon=True)
        self.is_over = False
        self.thread.start()

    def listen(self):
        while not self.is_over:
            message = self.listener.get_message(timeout=0.1)
            if message and message["type"] == "message":
                data = json.loads(message["data"])
                self.got.append({k: v for k, v in data.items() if not k.startswith("_")})

    def broadcast(self, message, target_users=None):
        data = dict(message)
        if target_users is not None:
            data["_target_users"] = list(target_users)
        self.redis.publish(self.channel, json.dumps(data))

    def close(self):
        self.is_over = True
        self.thread.join(10)


@pytest.fixture
def original(redis_server):
    replicas = []

    def start(channel):
        replicas.append(Original(redis_server, channel))
        return replicas[-1]

    yield start
    for replica in replicas:
        replica.close()


@pytest.mark.asan
@pytest.mark.parametrize("mode", ["local", "redis"])
def test_rooms_by_key(ringcast, redis_factory, connect, mode):
    server = ringcast(FEEDS, redis=redis_factory() if mode == "redis" else None)
    server.wait_ready(BACK)
    one, two = connect(server.url("/track/t1")), connect(server.url("/track/17"))
    assert publish(server, "comments", {"track_id": "t1", "text": "\u00e9"})["seq"] >= 0
    assert one.recv() == '{"track_id": "t1", "text": "\\u00e9"}'  # byte for byte
    publish(server, "comments", {"_a": 1, "track_id": 17, "_b": {"track_id": "t1"}})
    assert two.recv() == '{ "track_id": 17}'
    publish(server, "comments:t1", {"track_id": "t1", "n": 2})
    assert one.recv() == '{"track_id": "t1", "n": 2}'
    assert one.quiet() and two.quiet()
    assert dropped(server, "comments") == {}


@pytest.mark.asan
@pytest.mark.parametrize("mode", ["local", "redis"])
def test_what_is_for_nobody(ringcast, redis_factory, connect, mode):
    """Refused if the publisher has made a mistake that he can mend; else taken, and gone. Never for everybody."""
    server = ringcast(FEEDS, redis=redis_factory() if mode == "redis" else None)
    server.wait_ready(BACK)
    clients = [connect(server.url(p)) for p in ("/track/t1", "/news", "/notes", "/chat/a")]

    def refused(channel, text):
        answer = server.publish_answer('{"channel":"%s","data":%s}' % (channel, text))
        return answer.status, answer.error

    assert refused("comments", "{}") == (400, "bad_request")
    assert refused("comments", '{"track_id":1.5}') == (400, "bad_request")
    assert refused("comments:t1", '{"track_id":"t2"}') == (400, "bad_request")
    assert refused("comments", "[1]") == (400, "bad_request")
    assert refused("chat", '{"a":1}') == (400, "bad_request")
    answer = server.publish_answer({"channel": "comments", "text": '{"track_id":NaN}'})
    assert (answer.status, answer.error) == (400, "bad_json")
    answer = server.publish_answer({"channel": "comments", "text": '{"track_id":"%s"}' % ("x" * 5000)})
    assert (answer.status, answer.error) == (413, "too_large")
    for targets in ([], None, 7, "7", [None, 1.5], {}):
        result = publish(server, "comments", {"track_id": "t1", "_target_users": targets})
        assert (result["seq"], result["dropped"]) == (0, "no_target")
    result = publish(server, "notes", {"a": 1})
    assert (result["seq"], result["dropped"]) == (0, "untargeted")
    assert all(client.quiet() for client in clients)
    assert dropped(server, "comments") == {"no_route": 3, "not_object": 1, "bad_json": 1, "no_target": 6}
    assert dropped(server, "notes") == {"untargeted": 1}
    assert dropped(server, "chat") == {"no_route": 1}
    assert server.metric("ringcast_targets_skipped_total") == 6
    line = server.wait_log("dropped", ns="comments", reason="no_target")
    assert line["level"] == "warn" and line["total"] == "1"
    assert len(server.log_events("dropped", ns="comments", reason="no_target")) == 1


def test_foreign_nonsense_is_counted(ringcast, redis_server, connect):
    server = ringcast(FEEDS, redis=redis_server)
    server.wait_ready(BACK)
    client = connect(server.url("/track/t1"))
    for text in (b"", b"{", b'{"track_id":Infinity}', b'{"track_id":"\xff"}', b"[]", b'{"track_id":null}',
                 b'{"track_id":"t1","_target_users":[]}', b'{"track_id":"t1","x":"' + b"x" * 5000 + b'"}'):
        assert redis_server.publish("track_comments", text) == 1
    redis_server.publish("track_comments", b'{"track_id":"t1","_rc_origin":"zz","_rc_id":"1"}')
    assert client.recv() == '{"track_id":"t1"}'
    assert client.quiet()
    assert dropped(server, "comments") == {"bad_json": 3, "bad_utf8": 1, "not_object": 1, "no_route": 1, "no_target": 1,
                                           "too_large": 1}


@pytest.mark.parametrize("mode", ["local", "redis"])
def test_clients_have_no_server_keys(ringcast, redis_factory, connect, mode):
    """What a client writes there is gone; what it sends reaches its own room or nobody."""
    server = ringcast(FEEDS, redis=redis_factory() if mode == "redis" else None)
    server.wait_ready(BACK)
    one, two, peer = connect(server.url("/track/t1")), connect(server.url("/track/t2")), connect(server.url("/track/t1"))
    one.send('{"track_id":"t1","_target_users":[1],"_rc_origin":"0000000000000001","_rc_id":1,"n":1}')
    assert one.recv() == peer.recv() == '{"track_id":"t1","n":1}'
    one.send('{"track_id":"t2"}')
    one.send('{"n":2}')
    one.send('{"track_id":"t1","n":3}')
    assert one.recv() == peer.recv() == '{"track_id":"t1","n":3}'
    assert one.quiet() and peer.quiet() and two.quiet()
    assert dropped(server, "comments").get("no_route") == 2


@pytest.mark.asan
def test_keys_of_ours_mean_nothing_in_a_publisher_s_text(ringcast, redis_server, connect, original):
    """Neither here nor, after signing, at others."""
    server, other = ringcast(FEEDS, redis=redis_server), ringcast(FEEDS, redis=redis_server)
    server.wait_ready(BACK)
    other.wait_ready(BACK)
    here, there, replica = connect(server.url("/news")), connect(other.url("/news")), original("news_channel")
    raw = redis_server.client().pubsub()
    raw.subscribe("news_channel")
    assert raw.get_message(timeout=20)["type"] == "subscribe"
    for n in range(3):  # the same id each time: would be taken for repeated
        publish(server, "news", {"_rc_ask": 1, "n": n, "_rc_origin": "00000000000000ff", "_rc_id": 7, "_keep": 1})
        assert json.loads(here.recv()) == json.loads(there.recv()) == {"n": n}
    wait_for("the original has all", lambda: len(replica.got) == 3)
    texts = []

    def take():
        message = raw.get_message(timeout=1)
        if message and message["type"] == "message":
            texts.append(message["data"])
        return len(texts) == 3

    wait_for("Redis has told all", take)
    for text in texts:
        pairs = json.loads(text, object_pairs_hook=list)
        keys = [k for k, _ in pairs]
        assert keys in (["n", "_keep", "_rc_origin", "_rc_id"], ["n", "_keep", "_rc_ask", "_rc_origin", "_rc_id"]), text
        assert pairs[-2][1] == server.stats()["node"]
    assert here.quiet() and there.quiet()


@pytest.mark.asan
def test_mixed_fleet(ringcast, redis_server, connect, original):
    """Two replicas of ours and two originals on one channel: each client of each gets each message once, in the one order
    that Redis gives, whoever publishes."""
    ours = [ringcast(FEEDS, redis=redis_server) for _ in range(2)]
    for server in ours:
        server.wait_ready(BACK)
    clients = [connect(server.url("/track/t1")) for server in ours for _ in range(2)]
    strangers = [connect(server.url("/track/t2")) for server in ours]
    theirs = [original("track_comments") for _ in range(2)]
    total = 200
    for n in range(total):
        message = {"type": "new_comment", "track_id": "t1", "n": n}
        if n % 4 < 2:
            publish(ours[n % 4], "comments", message)
        else:
            theirs[n % 4 - 2].broadcast(message)
    for client in clients:
        assert sorted(json.loads(t)["n"] for t in client.recv_many(total)) == list(range(total))
    for replica in theirs:
        wait_for("an original has all", lambda r=replica: len(r.got) >= total)
        assert sorted(m["n"] for m in replica.got) == list(range(total))
        assert all(set(m) == {"type", "track_id", "n"} for m in replica.got)
    for client in clients + strangers:
        assert client.quiet()
    assert all(s.stats()["redis"]["duplicates"] == 0 for s in ours)


@pytest.mark.limit(120)
@pytest.mark.parametrize("seconds", [0, 3, 8, LONG_OUTAGE])
def test_killed_and_restarted(ringcast, redis_server, connect, original, seconds):
    """As in test_redis.py: own clients have everything at once, the other replica once Redis is back, once and in order."""
    one, two = ringcast(FEEDS, redis=redis_server), ringcast(FEEDS, redis=redis_server)
    one.wait_ready(BACK)
    two.wait_ready(BACK)
    a, b = connect(one.url("/track/t1")), connect(two.url("/track/t1"))
    publish(one, "comments", {"track_id": "t1", "n": "before"})
    before = a.recv()
    assert json.loads(before)["n"] == "before" and b.recv() == before
    redis_server.kill()
    ended = time.monotonic() + seconds
    sent = []
    while not sent or time.monotonic() < ended:
        for how in ("client", "api"):
            text = '{"track_id": "t1", "n": "%s %d"}' % (how, len(sent))
            sent.append(text)
            if how == "client":
                a.send(text)
            else:
                assert publish(one, "comments", json.loads(text))["redis"] in ("queued", "sent")
            assert a.recv(BACK) == text
        time.sleep(0.05)  # pace, not a wait
    redis_server.start()
    wait_up(one)
    wait_up(two)
    assert b.recv_many(len(sent), 30) == sent
    a.send('{"track_id":"t1"}')
    assert a.recv(BACK) == '{"track_id":"t1"}' and b.recv(BACK) == '{"track_id":"t1"}'
    wait_for("nothing is pending", lambda: settled(one))
    assert a.quiet() and b.quiet()


@pytest.mark.parametrize("kind", ["pubsub", "normal"])
def test_one_link_is_cut(ringcast, redis_server, connect, kind):
    """Whatever is sent again or comes late: nothing twice, nothing out of order."""
    one, two = ringcast(FEEDS, redis=redis_server), ringcast(FEEDS, redis=redis_server)
    one.wait_ready(BACK)
    two.wait_ready(BACK)
    a, b = connect(one.url("/chat/a")), connect(two.url("/chat/a"))
    total = 300
    sender = threading.Thread(target=lambda: [(a.send('{"n":%d}' % n), time.sleep(0.002)) for n in range(total)])
    sender.start()
    for _ in range(3):
        redis_server.cli("client", "kill", "type", kind)
        time.sleep(0.15)  # pace, not a wait
    sender.join()
    assert [json.loads(t)["n"] for t in a.recv_many(total, 60)] == list(range(total))
    wait_up(one)
    wait_up(two)
    wait_for("nothing is pending", lambda: settled(one))
    a.send('{"n":%d}' % total)
    assert json.loads(a.recv(30))["n"] == total
    got = []
    while not got or got[-1] != total:
        got.append(json.loads(b.recv(30))["n"])
    assert got == sorted(set(got))
    assert kind == "pubsub" or got == list(range(total + 1))
    assert a.quiet() and b.quiet()
