"""The API beyond publishing: broadcast, orders to all replicas, channels, replicas; errors; the key; the unix socket."""
import json

import pytest

from waiting import wait_for

CONFIG = """
redis { timeout = 2s   lease = 3s }
auth "anybody" { type = "query" }
namespace "room" { path = "/ws/{room}"   redis_channel = "room:{room}"   auth = "anybody"   user_query = "user_id"
                   presence = on   publish = { "client", "api" }   origins = { "*" } }
namespace "news" { path = "/news"   redis_channel = "news"   publish = { "api" }   origins = { "*" } }
namespace "feed" { path = "/feed"   redis_channel = "feed"   envelope = "json"   targeted_only = on   auth = "anybody"
                   user_query = "user_id"   publish = { "api" }   origins = { "*" } }
namespace "quiet" { path = "/quiet/{room}"   redis_channel = "quiet:{room}"   publish = { "client" }   origins = { "*" } }
"""


def ask(server, path, body, **options):
    return server.api(path, "POST", body if isinstance(body, (str, bytes)) else json.dumps(body), **options)


def result(server, path, body):
    answer = ask(server, path, body)
    assert answer.status == 200, answer.body
    return answer.json["result"]


def pair(ringcast, redis):
    one, two = ringcast(CONFIG, redis=redis), ringcast(CONFIG, redis=redis)
    for server in (one, two):
        wait_for("both know each other", lambda: len(result(server, "/api/info", {})["nodes"]) == 2)
        wait_for("both hear each other", lambda: server.metric("ringcast_redis_up") == 1)
    return one, two


# ---- what errors say

def test_messages_name_what_is_wrong(ringcast):
    """For whoever reads them in the log of a publisher."""
    server = ringcast(CONFIG + '''
namespace "track" { path = "/track/{room}"   redis_channel = "track"   envelope = "json"   route_key = "id"   publish = { "api" } }''')
    for path, body, text in (
            ("/api/groups", {"group": 5, "add": ["7"]}, "group: a string of 1 to 255 bytes is required"),
            ("/api/groups", {"group": 5}, "group: a string of 1 to 255 bytes is required"),
            ("/api/groups", {"group": ""}, "group: a string of 1 to 255 bytes is required"),
            ("/api/groups", {"group": "g"}, "at least one of add and remove is required"),
            ("/api/disconnect", {"session": 5}, "session: a string of 1 to 255 bytes is required"),
            ("/api/disconnect", {"conn": "x" * 300}, "conn: a string of 1 to 255 bytes is required"),
            ("/api/disconnect", {"user": 7, "reason": "x" * 124}, "reason: a string of at most 123 bytes is required"),
            ("/api/publish", {"channel": "track:1", "data": {"id": 2}},
             "the payload names no room by its route_key, or another one than the channel"),
            ("/api/publish", {"channel": "track", "data": {"x": 2}},
             "the payload names no room by its route_key, or another one than the channel")):
        answer = ask(server, path, body)
        assert (answer.status, answer.error, answer.json["error"]["message"]) == (400, "bad_request", text), body


# ---- broadcast

@pytest.mark.asan
def test_broadcast(ringcast, connect):
    server = ringcast(CONFIG)
    a, b, news = connect(server.url("/ws/a?user_id=1")), connect(server.url("/ws/b?user_id=2")), connect(server.url("/news"))
    answers = result(server, "/api/broadcast", {"channels": ["room:a", "nope", "news", "quiet:a", "room:b", 7, "room:a"],
                                                "data": {"n": 1}})["responses"]
    assert [r.get("error", {}).get("code") for r in answers] == [None, "unknown_namespace", None, "publish_denied", None,
                                                                "bad_request", None]
    assert [r["result"]["channel"] for r in answers if "result" in r] == ["room:a", "news", "room:b", "room:a"]
    assert answers[-1]["result"]["seq"] == answers[0]["result"]["seq"] + 1
    for client, times in ((a, 2), (b, 1), (news, 1)):
        assert client.recv_many(times) == ['{"n": 1}'] * times
        assert client.quiet()


def test_broadcast_to_a_thousand(ringcast, connect):
    server = ringcast(CONFIG)
    client = connect(server.url("/ws/999?user_id=1"))
    channels = ["room:%d" % i for i in range(1000)]
    answers = result(server, "/api/broadcast", {"channels": channels, "text": "x" * 5000})["responses"]
    assert [r["result"]["channel"] for r in answers] == channels
    assert [r["result"]["sockets"] for r in answers] == [0] * 999 + [1]
    assert not any(r["result"]["partial"] for r in answers)
    assert client.recv() == "x" * 5000
    answer = ask(server, "/api/broadcast", {"channels": channels + ["room:1000"], "text": "x"})
    assert (answer.status, answer.error) == (400, "bad_request")


def test_broadcast_by_redis(ringcast, redis_server, connect):
    one, two = pair(ringcast, redis_server)
    clients = [connect(s.url("/ws/%s?user_id=1" % room)) for s in (one, two) for room in "ab"]
    answers = result(one, "/api/broadcast", {"channels": ["room:a", "room:b"], "text": "hello"})["responses"]
    assert [r["result"]["redis"] for r in answers] == ["sent", "sent"]
    assert [(r["result"]["sockets"], r["result"]["users"], r["result"]["partial"]) for r in answers] == [(2, 1, False)] * 2
    for client in clients:
        assert client.recv() == "hello" and client.quiet()


# ---- orders

@pytest.mark.asan
def test_disconnect_by_user_everywhere(ringcast, redis_server, connect):
    one, two = pair(ringcast, redis_server)
    gone = [connect(s.url("/ws/a?user_id=7")) for s in (one, two, one, two)]
    gone += [connect(s.url("/feed?user_id=7")) for s in (one, two)]
    stay = [connect(s.url("/ws/a?user_id=8")) for s in (one, two)]
    assert result(one, "/api/disconnect", {"user": 7, "code": 4001, "reason": "bye"}) == {}
    for client in gone:
        assert client.wait_closed() == (4001, "bye")
    for client in stay:
        assert client.quiet() and client.is_open()
    for server in (one, two):
        assert server.stats()["totals"]["evicted"] == 3


def test_disconnect_by_channel_and_namespace(ringcast, connect):
    server = ringcast(CONFIG)
    a, b, feed = connect(server.url("/ws/a?user_id=7")), connect(server.url("/ws/b?user_id=7")), \
        connect(server.url("/feed?user_id=7"))
    result(server, "/api/disconnect", {"channel": "room:a"})
    assert a.wait_closed()[0] == 1008
    assert b.quiet()
    result(server, "/api/disconnect", {"user": "7", "namespace": "room", "code": 1012})
    assert b.wait_closed()[0] == 1012
    assert feed.quiet() and feed.is_open()


def test_an_order_over_redis(ringcast, redis_server, connect):
    """By anybody who may PUBLISH; what is no order changes nothing, and is counted."""
    one, two = pair(ringcast, redis_server)
    clients = [connect(s.url("/ws/a?user_id=7")) for s in (one, two)]
    bad = [b"", b"{", b"[]", b"{}", b'{"method":"reboot"}', b'{"method":["disconnect"]}', b"\xff",
           b'{"method":"disconnect","x":"' + b"y" * 70000 + b'"}']
    for text in bad:
        redis_server.publish("ringcast:control", text)
    for server in (one, two):
        wait_for("all are counted", lambda: server.metric("ringcast_controls_bad_total") == len(bad))
        assert server.log_events("control_bad")
    assert all(client.quiet() for client in clients)
    redis_server.publish("ringcast:control", b'{"method":"disconnect","user":"7","code":4002}')
    for client in clients:
        assert client.wait_closed()[0] == 4002


def test_the_own_echo_is_dropped(ringcast, redis_server, connect):
    one, two = pair(ringcast, redis_server)
    result(one, "/api/groups", {"group": "g", "add": ["7"]})
    wait_for("the other one has it", lambda: two.metric("ringcast_controls_total") == 1)
    result(two, "/api/groups", {"group": "g", "remove": ["7"]})
    wait_for("and back", lambda: one.metric("ringcast_controls_total") == 2)
    assert two.metric("ringcast_controls_total") == 2


def test_groups_take_effect_on_the_next_message(ringcast, redis_server, connect):
    one, two = pair(ringcast, redis_server)
    clients = {(s, user): connect(s.url("/feed?user_id=%d" % user)) for s in (one, two) for user in (7, 8)}

    def send(text):
        body = {"channel": "feed", "data": {"text": text, "_target_groups": ["admins"]}}
        assert one.publish_answer(body).status == 200

    result(one, "/api/groups", {"group": "admins", "add": [7]})
    wait_for("the other one has it", lambda: two.metric("ringcast_controls_total") == 1)
    send("one")
    result(one, "/api/groups", {"group": "admins", "add": ["8"], "remove": ["7"]})
    wait_for("the other one has it", lambda: two.metric("ringcast_controls_total") == 2)
    send("two")
    for (_, user), client in clients.items():
        assert json.loads(client.recv()) == {"text": {7: "one", 8: "two"}[user]}
        assert client.quiet()


# ---- questions

@pytest.mark.asan
def test_channels(ringcast, connect):
    server = ringcast(CONFIG)
    for i in range(12):
        connect(server.url("/ws/%s?user_id=%d" % ("ab"[i % 2], i)))
    connect(server.url("/news"))
    want = {"room:a": {"num_clients": 6}, "room:b": {"num_clients": 6}, "news": {"num_clients": 1}}
    assert result(server, "/api/channels", {}) == {"channels": want, "partial": False}
    assert result(server, "/api/channels", "") == {"channels": want, "partial": False}
    del want["news"]
    assert result(server, "/api/channels", {"pattern": "room:"}) == {"channels": want, "partial": False}
    assert result(server, "/api/channels", {"pattern": "x"}) == {"channels": {}, "partial": False}


def test_many_channels(ringcast, connect):
    server = ringcast(CONFIG)
    for i in range(300):
        connect(server.url("/ws/%s-%d?user_id=1" % ("r" * 100, i)))
    found = result(server, "/api/channels", {"pattern": "room:r"})
    assert len(found["channels"]) == 300 and not found["partial"]


def test_a_worker_that_does_not_answer(ringcast, connect):
    import os
    import signal
    server = ringcast(CONFIG)
    connect(server.url("/news"))
    pids = server.worker_pids()
    # One stands still for less than stuck_time: the other one may be asked, and says that it is not everything.
    os.kill(pids[0], signal.SIGSTOP)
    try:
        wait_for("a partial answer", lambda: partial_channels(server), 4, every=0.05)
    finally:
        os.kill(pids[0], signal.SIGCONT)
    wait_for("a whole one", lambda: not result(server, "/api/channels", {})["partial"])


def partial_channels(server):
    try:
        return ask(server, "/api/channels", {}, seconds=0.5).json["result"]["partial"]
    except OSError:
        return False  # the one that stands still had accepted it


def test_info(ringcast, redis_server, connect):
    one, two = pair(ringcast, redis_server)
    connect(two.url("/ws/a?user_id=7"))
    connect(two.url("/ws/a?user_id=7"))

    def seen():
        nodes = {n["node"]: n for n in result(one, "/api/info", {})["nodes"]}
        return nodes[two.stats()["node"]]["connections"] == 2 and nodes
    nodes = wait_for("what the other one says", seen)
    assert set(nodes) == {one.stats()["node"], two.stats()["node"]}
    node = nodes[two.stats()["node"]]
    assert node["pid"] == two.pid and node["version"] == two.stats()["version"]
    assert node["namespaces"]["room"] == {"connections": 2, "users": 1}


# ---- form

ENDPOINTS = ["/api/broadcast", "/api/presence", "/api/presence_stats", "/api/channels", "/api/info", "/api/disconnect",
             "/api/groups"]


def test_errors(ringcast):
    server = ringcast(CONFIG)
    for path in ENDPOINTS:
        for body, code in (("{", "bad_json"), ("[]", "bad_request")):
            answer = ask(server, path, body)
            assert (answer.status, answer.error) == (400, code), path
        answer = server.api(path)
        assert (answer.status, answer.error) == (405, "method_not_allowed")
    for path, body, status, code in (
            ("/api/presence", {"channel": "nope:a"}, 404, "unknown_namespace"),
            ("/api/presence", {"channel": "news"}, 400, "not_available"),
            ("/api/presence", {}, 400, "bad_request"),
            ("/api/presence_stats", {"channel": "room:a/b"}, 400, "bad_request"),
            ("/api/broadcast", {"channels": [], "text": "x"}, 400, "bad_request"),
            ("/api/broadcast", {"channels": "room:a", "text": "x"}, 400, "bad_request"),
            ("/api/broadcast", {"channels": ["room:a"]}, 400, "bad_request"),
            ("/api/broadcast", {"channels": ["room:a"], "b64data": "%"}, 400, "bad_base64"),
            ("/api/disconnect", {"user": "7", "conn": "1"}, 400, "bad_request"),
            ("/api/disconnect", {"user": "7", "code": 1006}, 400, "bad_request"),
            ("/api/groups", {"group": "g"}, 400, "bad_request"),
            ("/api/groups", {"group": "g", "add": ["u%d" % i for i in range(20000)]}, 413, "too_large")):
        answer = ask(server, path, body)
        assert (answer.status, answer.error) == (status, code), (path, body)
    assert server.api("/health").status == 200


def test_the_key(ringcast):
    server = ringcast(CONFIG + 'admin "127.0.0.1:0" { api_key = "secret" }\nlisten "127.0.0.1:0" {}\n', listen=False)
    for path in ENDPOINTS:
        assert ask(server, path, "{}").status == 401, path
        assert ask(server, path, "{", headers={"X-API-Key": "secret"}).error == "bad_json", path
    assert ask(server, "/api/info", "{}", headers={"Authorization": "Bearer secret"}).status == 200


def test_unix_socket(ringcast, connect, tmp_path):
    path = str(tmp_path / "admin.sock")
    server = ringcast(CONFIG + 'admin "unix:%s" { mode = 0600 }\nadmin "127.0.0.1:0" {}\nlisten "127.0.0.1:0" {}\n' % path,
                      listen=False)
    client = connect(server.url("/ws/a?user_id=7"))
    for endpoint, body in (("/api/presence", {"channel": "room:a"}), ("/api/channels", {}), ("/api/info", {}),
                           ("/api/broadcast", {"channels": ["room:a"], "text": "hello"}), ("/api/disconnect", {"user": 7})):
        answer = ask(server, endpoint, body, unix=path)
        assert answer.status == 200, (endpoint, answer.body)
    assert client.recv() == "hello"
    assert client.wait_closed()[0] == 1008
