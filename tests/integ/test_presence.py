"""Who is online: a user counts once, on however many workers and replicas; nobody stays longer than the lease."""
import json
import os
import signal

import pytest

from waiting import hold_for, wait_for

LEASE = 3
CONFIG = """
redis { timeout = 2s   lease = %ds }
auth "anybody" { type = "query" }
namespace "room" { path = "/ws/{room}"   redis_channel = "room:{room}"   auth = "anybody"   user_query = "user_id"
                   presence = on   publish = { "client", "api" }   origins = { "*" } }
namespace "dark" { path = "/dark/{room}"   redis_channel = "dark:{room}"   auth = "anybody"   user_query = "user_id"
                   publish = { "client", "api" }   origins = { "*" } }
""" % LEASE
SOON = 20


def ask(server, path, **body):
    return server.api(path, "POST", json.dumps(body))


def presence(server, channel):
    answer = ask(server, "/api/presence", channel=channel)
    assert answer.status == 200, answer.body
    return answer.json["result"]


def stats(server, channel):
    answer = ask(server, "/api/presence_stats", channel=channel)
    assert answer.status == 200, answer.body
    return answer.json["result"]


def sees(server, channel, users, partial=False):
    """Whether the list is just {user: sockets}, and the numbers agree with it."""
    found, numbers = presence(server, channel), stats(server, channel)
    return found["partial"] == partial and numbers["partial"] == partial \
        and {user: entry["sockets"] for user, entry in found["presence"].items()} == users \
        and all(entry["user"] == user for user, entry in found["presence"].items()) \
        and numbers["num_users"] == len(users) and numbers["num_clients"] == sum(users.values())


def wait_sees(server, channel, users, seconds=SOON, **options):
    try:
        wait_for("%s: %s" % (channel, users), lambda: sees(server, channel, users, **options), seconds)
    except TimeoutError:
        assert False, "%s: %s, but %s %s" % (channel, users, presence(server, channel), stats(server, channel))


def on_both_workers(server, connect, path, least=2):
    """Sockets, until each worker has one of them. Returns their number."""
    before = {w["slot"]: w["connections"] for w in server.workers()}
    for n in range(1, 200):
        connect(server.url(path))
        now = {w["slot"]: w["connections"] for w in server.workers()}
        if n >= least and all(now[slot] > before.get(slot, 0) for slot in now):
            return n
    raise AssertionError("all sockets are with one worker")


def nodes(server):
    return {node["node"]: node for node in ask(server, "/api/info").json["result"]["nodes"]}


def pair(ringcast, redis):
    one, two = ringcast(CONFIG, redis=redis), ringcast(CONFIG, redis=redis)
    for server in (one, two):
        wait_for("both know each other", lambda: len(nodes(server)) == 2)
    return one, two


def own_keys(redis):
    return sorted(key.decode() for key in redis.client().keys("ringcast:*"))


@pytest.mark.asan
def test_local(ringcast, connect):
    """Without Redis this host is everything there is."""
    server = ringcast(CONFIG)
    n = on_both_workers(server, connect, "/ws/a?user_id=7")
    other = connect(server.url("/ws/a?user_id=8"))
    connect(server.url("/ws/b?user_id=7"))
    wait_sees(server, "room:a", {"7": n, "8": 1})
    wait_sees(server, "room:b", {"7": 1})
    wait_sees(server, "room", {"7": n + 1, "8": 1})
    wait_sees(server, "room:empty", {})
    assert server.stats()["namespaces"]["room"]["users"] == 2
    assert server.stats()["totals"]["users"] == 2
    assert server.metric("ringcast_users", namespace="room") == 2
    other.close()
    wait_sees(server, "room:a", {"7": n})
    wait_for("one user", lambda: server.stats()["namespaces"]["room"]["users"] == 1)


def test_namespaces_that_only_count(ringcast, connect):
    server = ringcast(CONFIG)
    on_both_workers(server, connect, "/dark/a?user_id=7")
    connect(server.url("/dark/b?user_id=8"))
    wait_for("two users", lambda: server.stats()["namespaces"]["dark"]["users"] == 2)
    for path in ("/api/presence", "/api/presence_stats"):
        answer = ask(server, path, channel="dark:a")
        assert (answer.status, answer.error) == (400, "not_available")


def test_a_newcomer_is_known_at_once(ringcast, redis_server, connect):
    """With a lease of a minute nobody would look for it before a third of that."""
    config = CONFIG.replace("lease = %ds" % LEASE, "lease = 60s")
    servers = [ringcast(config, redis=redis_server) for _ in range(3)]
    for number, server in enumerate(servers):
        wait_for("Redis", lambda: server.metric("ringcast_redis_up") == 1)
        connect(server.url("/ws/a?user_id=%d" % number))
    for server in servers:
        wait_sees(server, "room:a", {"0": 1, "1": 1, "2": 1}, 5)
        wait_for("all three are nodes", lambda: server.stats()["cluster"]["nodes"] == 3, 5)
    assert servers.pop().stop() == 0
    for server in servers:
        wait_for("one has gone", lambda: server.stats()["cluster"]["nodes"] == 2, 5)
    assert stats(servers[0], "room:a") == {"num_clients": 2, "num_users": 2, "partial": False}


@pytest.mark.limit(120)
@pytest.mark.asan
def test_one_user_on_two_workers_and_two_replicas_counts_once(ringcast, redis_server, connect):
    one, two = pair(ringcast, redis_server)
    a = on_both_workers(one, connect, "/ws/a?user_id=7")
    b = on_both_workers(two, connect, "/ws/a?user_id=7")
    connect(two.url("/ws/a?user_id=8"))
    connect(two.url("/ws/b?user_id=9"))
    for server in (one, two):
        wait_sees(server, "room:a", {"7": a + b, "8": 1})
        wait_sees(server, "room", {"7": a + b, "8": 1, "9": 1})
    assert one.stats()["namespaces"]["room"]["users"] == 1
    assert two.stats()["namespaces"]["room"]["users"] == 3
    for server in (one, two):
        wait_for("distinct users of the cluster", lambda: server.stats()["cluster"]["users"]["room"] == 3)
        wait_for("connections of the cluster", lambda: server.stats()["cluster"]["connections"] == a + b + 2)
        assert server.stats()["cluster"]["nodes"] == 2
        assert server.metric("ringcast_cluster_users", namespace="room") == 3


def test_namespaces_that_only_count_are_united_too(ringcast, redis_server, connect):
    one, two = pair(ringcast, redis_server)
    for server, users in ((one, range(0, 30)), (two, range(20, 50))):
        for user in users:
            connect(server.url("/dark/a?user_id=%d" % user))
    for server in (one, two):
        wait_for("50 distinct users", lambda: server.stats()["cluster"]["users"]["dark"] == 50)
        assert server.stats()["namespaces"]["dark"]["users"] == 30


def test_a_dead_worker_s_users_are_gone(ringcast, redis_server, connect):
    one, two = ringcast(CONFIG, redis=redis_server, expect_deaths=True), ringcast(CONFIG, redis=redis_server)
    wait_for("both know each other", lambda: len(nodes(two)) == 2)
    n = on_both_workers(one, connect, "/ws/a?user_id=7", 8)
    wait_sees(two, "room:a", {"7": n})
    worker = next(w for w in one.workers() if w["connections"])
    os.kill(worker["pid"], signal.SIGKILL)
    left = n - worker["connections"]
    wait_sees(two, "room:a", {"7": left} if left else {})
    wait_sees(one, "room:a", {"7": left} if left else {})


@pytest.mark.limit(120)
def test_a_killed_replica_s_users_are_gone_after_the_lease(ringcast, redis_server, connect):
    one, two = pair(ringcast, redis_server)
    connect(one.url("/ws/a?user_id=7"))
    connect(two.url("/ws/a?user_id=8"))
    wait_sees(one, "room:a", {"7": 1, "8": 1})
    two.kill()
    two.wait()
    assert presence(one, "room:a")["presence"], "the own user stays"
    wait_sees(one, "room:a", {"7": 1}, LEASE + 2)
    wait_for("it is no node any more", lambda: len(nodes(one)) == 1, LEASE + 2)
    wait_for("the cluster's numbers, too", lambda: one.stats()["cluster"]["users"]["room"] == 1)
    assert one.stats()["cluster"]["nodes"] == 1
    one.stop()
    wait_for("no key is left", lambda: own_keys(redis_server) == [], LEASE + 2)


@pytest.mark.limit(120)
def test_a_clean_stop_leaves_nothing(ringcast, redis_server, connect):
    one, two = pair(ringcast, redis_server)
    for server in (one, two):
        connect(server.url("/ws/a?user_id=%d" % server.port))
    wait_sees(one, "room:a", {str(one.port): 1, str(two.port): 1})
    wait_for("nodes, and of each: node, users, presence", lambda: len(own_keys(redis_server)) == 7)
    two.stop()
    wait_sees(one, "room:a", {str(one.port): 1}, 2)  # at once, not after the lease
    one.stop()
    assert own_keys(redis_server) == []


def test_every_key_has_a_lease(ringcast, redis_server, connect):
    """Looked at while there is change: no key is ever without one."""
    server = ringcast(CONFIG, redis=redis_server)
    client = redis_server.client()
    for user in range(30):
        connect(server.url("/ws/%d?user_id=%d" % (user % 3, user)))
        for key in client.keys("ringcast:*"):
            assert client.pttl(key) != -1, key
    wait_sees(server, "room:0", {str(user): 1 for user in range(0, 30, 3)})
    key = next(k for k in own_keys(redis_server) if "presence" in k)
    wait_for("all are written", lambda: client.zcard(key) == 30)
    assert b"0\x0027\x001" in client.zrangebylex(key, b"[0\0", b"(0\1")
    assert len(client.zrangebylex(key, b"[0\0", b"(0\1")) == 10
    # Renewed: after more than a lease it is still there.
    hold_for("the key stays", lambda: client.exists(key), LEASE * 1.5)


@pytest.mark.limit(120)
def test_redis_restarted_empty(ringcast, redis_server, connect):
    """What Redis has lost is written anew; while it is away the answer is this host's, and says so."""
    one, two = pair(ringcast, redis_server)
    connect(one.url("/ws/a?user_id=7"))
    connect(two.url("/ws/a?user_id=8"))
    wait_sees(one, "room:a", {"7": 1, "8": 1})
    redis_server.kill()
    wait_sees(one, "room:a", {"7": 1}, partial=True)
    wait_sees(two, "room:a", {"8": 1}, partial=True)
    leaver = connect(two.url("/ws/a?user_id=9"))
    connect(two.url("/ws/b?user_id=9"))
    wait_sees(two, "room:a", {"8": 1, "9": 1}, partial=True)
    leaver.close()
    redis_server.start()
    for server in (one, two):
        wait_sees(server, "room:a", {"7": 1, "8": 1})
        wait_sees(server, "room:b", {"9": 1})


def test_redis_flushed(ringcast, redis_server, connect):
    one, two = pair(ringcast, redis_server)
    connect(one.url("/ws/a?user_id=7"))
    connect(two.url("/ws/a?user_id=8"))
    wait_sees(one, "room:a", {"7": 1, "8": 1})
    redis_server.client().flushall()
    wait_for("the keys are back", lambda: len(own_keys(redis_server)) == 7, LEASE + 2)
    wait_sees(one, "room:a", {"7": 1, "8": 1})


def test_redis_hangs(ringcast, redis_server, connect):
    """An answer in bounded time, partial."""
    one, two = pair(ringcast, redis_server)
    connect(one.url("/ws/a?user_id=7"))
    connect(two.url("/ws/a?user_id=8"))
    wait_sees(one, "room:a", {"7": 1, "8": 1})
    redis_server.pause()
    try:
        answer = presence(one, "room:a")
        assert answer == {"presence": {"7": {"user": "7", "sockets": 1}}, "partial": True}
    finally:
        redis_server.resume()
    wait_sees(one, "room:a", {"7": 1, "8": 1})


def test_others_nonsense_is_passed_over(ringcast, redis_server, connect):
    """Anybody may write to Redis; nobody can make us trip."""
    server = ringcast(CONFIG, redis=redis_server)
    connect(server.url("/ws/a?user_id=7"))
    client = redis_server.client()
    wait_for("the node is there", lambda: client.exists("ringcast:nodes"))
    liar = "00000000deadbeef"
    far = client.time()[0] * 1000 + 3600000
    client.zadd("ringcast:nodes", {liar: far, "nonsense": far, "0" * 15: far})
    client.set("ringcast:node:" + liar, "{not json")
    client.set("ringcast:users:" + liar, '{"room":"zz"}')
    client.zadd("ringcast:presence:%s:room" % liar,
                {m: 0 for m in (b"a", b"a\0", b"a\0\0", b"a\x008\0", b"a\x008\0x", b"a\x008\x000", b"a\x008\x0099999999999",
                                b"a\0" + b"u" * 300 + b"\x001", b"a\x009\x002", b"b\x00other\x001")})
    wait_sees(server, "room:a", {"7": 1, "9": 2})
    assert set(nodes(server)) == {server.stats()["node"]}
    client.set("ringcast:presence:%s:room" % liar, "no sorted set")
    wait_sees(server, "room:a", {"7": 1}, partial=True)


@pytest.mark.limit(180)
def test_many_users(ringcast, redis_server, connect):
    """Several pages of another replica, several batches of ours."""
    one, two = ringcast(CONFIG, redis=redis_server), ringcast(CONFIG, redis=redis_server)
    for server in (one, two):
        wait_for("both know each other", lambda: len(nodes(server)) == 2)
    client = redis_server.client()
    connect(one.url("/ws/a?user_id=own"))
    other = "00000000feedbeef"
    client.zadd("ringcast:nodes", {other: client.time()[0] * 1000 + 3600000})
    key = "ringcast:presence:%s:room" % other
    client.zadd(key, {"a\0%06d\0001" % user: 0 for user in range(3500)})
    client.zadd(key, {"b\0x%06d\0001" % user: 0 for user in range(9000)})
    wait_for("all pages", lambda: stats(one, "room:a") == {"num_clients": 3501, "num_users": 3501, "partial": False})
    assert len(presence(one, "room:a")["presence"]) == 3501
    assert stats(one, "room") == {"num_clients": 12501, "num_users": 12501, "partial": False}
    answer = ask(one, "/api/presence", channel="room")
    assert (answer.status, answer.error) == (413, "too_large")
