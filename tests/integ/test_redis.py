"""Redis comes, goes, hangs and comes back as another: clients stay, local traffic goes on, nothing comes twice."""
import os
import threading
import time

import pytest

from waiting import SCALE, hold_for, wait_for

# The longest outage. The acceptance run uses 60 s; by default a stand-in that passes every timeout and backoff cap.
LONG_OUTAGE = float(os.environ.get("TEST_LONG_OUTAGE", "12"))
BACK = 20  # seconds to notice, or to come back; due: 1
QUICK = "redis { timeout = 2s }\n"


def is_up(server):
    return server.metric("ringcast_redis_up") == 1


def wait_up(server, seconds=BACK):
    wait_for("both links are up", lambda: is_up(server), seconds)


def wait_down(server, seconds=BACK):
    wait_for("the loss is noticed", lambda: not is_up(server), seconds)


def settled(server):
    """Nothing waits to be sent or echoed any more."""
    redis = server.stats()["redis"]
    return redis["pending_messages"] == 0 and redis["pending_bytes"] == 0


def pair(ringcast, redis, connect, config=QUICK):
    """Two replicas and a client on each."""
    one, two = ringcast(config, redis=redis), ringcast(config, redis=redis)
    one.wait_ready(BACK)
    two.wait_ready(BACK)
    return one, two, connect(one.url("/ws/a")), connect(two.url("/ws/a"))


@pytest.mark.asan
def test_absent_at_start(ringcast, redis_server, connect):
    redis_server.stop()
    server = ringcast(QUICK, redis=redis_server)
    ready = server.api("/ready")
    assert ready.status == 503 and ready.json["status"] == "not_ready" and ready.json["reasons"]
    assert server.api("/health").status == 200
    client = connect(server.url("/ws/a"))  # after subscribe_timeout, and counted
    client.send("local")
    assert client.recv() == "local"
    assert server.publish("demo:a", "queued")["redis"] == "queued"
    assert client.recv() == "queued"
    redis_server.start()
    server.wait_ready(BACK)
    wait_up(server)
    wait_for("the room is subscribed", lambda: redis_server.subscribers("demo:a") == 1)
    redis_server.publish("demo:a", b"from redis")
    assert client.recv() == "from redis"
    wait_for("nothing is pending", lambda: settled(server))
    assert client.quiet()


@pytest.mark.limit(120)
@pytest.mark.parametrize("seconds", [0, 3, 8, LONG_OUTAGE])
def test_killed_and_restarted(ringcast, redis_server, connect, seconds):
    """The new one has another run id and knows nothing. What was published meanwhile reaches the other replica
    once it is back, once and in order; the own clients had it at once."""
    one, two, a, b = pair(ringcast, redis_server, connect)
    a.send("before")
    assert a.recv() == "before" and b.recv() == "before"

    redis_server.kill()
    ended = time.monotonic() + seconds
    sent = []
    while not sent or time.monotonic() < ended:
        for how in ("client", "api"):
            text = "%s %d" % (how, len(sent))
            sent.append(text)
            if how == "client":
                a.send(text)
            else:
                assert one.publish("demo:a", text)["redis"] in ("queued", "sent")
            assert a.recv(BACK) == text
        time.sleep(0.05)  # pace, not a wait
    redis_server.start()
    wait_up(one)
    wait_up(two)
    assert b.recv_many(len(sent), 30) == sent
    a.send("after")
    assert a.recv(BACK) == "after" and b.recv(BACK) == "after"
    wait_for("nothing is pending", lambda: settled(one))
    assert a.quiet() and b.quiet()
    assert one.metric("ringcast_redis_gaps_total") >= 1
    assert one.metric("ringcast_redis_reconnects_total") >= 1
    assert one.stats()["redis"]["state"] == two.stats()["redis"]["state"]


@pytest.mark.limit(120)
def test_black_hole(ringcast, redis_server, connect):
    """TCP stays open and nothing answers: only the missing PONG tells."""
    one, two, a, b = pair(ringcast, redis_server, connect)
    redis_server.pause()
    try:
        a.send("into the hole")
        assert a.recv(BACK) == "into the hole"  # once the link is declared dead
        wait_down(one)
        wait_down(two)
        for n in range(20):
            a.send("%d" % n)
        assert a.recv_many(20) == ["%d" % n for n in range(20)]
        b.send("b's own")
        assert b.recv() == "b's own"
    finally:
        redis_server.resume()
    wait_up(one)
    wait_up(two)
    wanted = ["into the hole"] + ["%d" % n for n in range(20)]
    assert b.recv_many(21, 30) == wanted
    assert a.recv(30) == "b's own"
    a.send("after")
    assert a.recv(BACK) == "after" and b.recv(BACK) == "after"
    for server in (one, two):
        wait_for("nothing is pending", lambda s=server: settled(s))
    assert a.quiet() and b.quiet()


@pytest.mark.asan
@pytest.mark.parametrize("kind", ["pubsub", "normal"])
def test_client_kill_of_one_link(ringcast, redis_server, connect, kind):
    """Either link alone is cut. Publications flow on; each message comes exactly once to both replicas."""
    one, two, a, b = pair(ringcast, redis_server, connect)
    total = 400
    sender = threading.Thread(target=lambda: [(a.send("%d" % n), time.sleep(0.002)) for n in range(total)])
    sender.start()
    for _ in range(3):
        redis_server.cli("client", "kill", "type", kind)
        time.sleep(0.15)  # pace, not a wait
    sender.join()
    assert a.recv_many(total, 60) == ["%d" % n for n in range(total)]
    wait_up(one)
    wait_up(two)
    wait_for("nothing is pending", lambda: settled(one))
    a.send("last")
    assert a.recv(30) == "last"
    # The other replica's own subscriber link was cut too, so it may have missed some; but nothing twice, nothing out
    # of order, and all of it when its link stood.
    got = []
    while not got or got[-1] != "last":
        got.append(b.recv(30))
    numbers = [int(m) for m in got[:-1]]
    assert numbers == sorted(set(numbers))
    if kind == "normal":
        assert numbers == list(range(total))
    assert a.quiet() and b.quiet()


@pytest.mark.limit(120)
def test_output_buffer_limit_cut_is_a_counted_gap(ringcast, redis_factory, connect):
    """Redis cuts a subscriber that it can't write to fast enough: foreign messages are lost, which is counted."""
    redis = redis_factory("--client-output-buffer-limit", "pubsub 256kb 128kb 1")
    server = ringcast(redis=redis)
    server.wait_ready()
    client = connect(server.url("/ws/a"))
    gaps = server.metric("ringcast_redis_gaps_total")
    pipe = redis.client()
    batch = pipe.pipeline(transaction=True)  # all of it before Redis writes any of it out
    for n in range(600):
        batch.publish("demo:a", b"%07d" % n + b"." * 1000)
    batch.execute()
    wait_for("the cut is counted", lambda: server.metric("ringcast_redis_gaps_total") > gaps, BACK)
    wait_up(server)
    wait_for("subscribed again", lambda: redis.subscribers("demo:a") == 1, BACK)
    redis.publish("demo:a", b"after")
    got = []
    while not got or got[-1] != "after":
        got.append(client.recv(30))
    numbers = [int(m[:7]) for m in got[:-1]]
    assert numbers == sorted(set(numbers)) and len(numbers) < 600
    assert client.quiet()


@pytest.mark.limit(120)
def test_pending_limit_is_counted_and_logged(ringcast, redis_server, connect):
    """More is published during an outage than `pending` may hold: own clients get all, the other replica what was
    kept, and the rest is counted."""
    one, two, a, b = pair(ringcast, redis_server, connect, "redis { pending_size = 64k  timeout = 2s }\n")
    redis_server.kill()
    wait_down(one)
    count = 400
    messages = [("%05d" % n).ljust(1000, ".") for n in range(count)]
    a.send_many(messages)
    assert a.recv_many(count, 60) == messages
    wait_for("given up, counted", lambda: one.metric("ringcast_redis_given_up_total"))
    redis_server.start()
    wait_up(one)
    wait_up(two)
    a.send("last")
    assert a.recv(30) == "last"
    got = []
    while not got or got[-1] != "last":
        got.append(b.recv(30))
    numbers = [int(m[:5]) for m in got[:-1]]
    assert numbers == sorted(set(numbers))
    wait_for("each that is missing is counted",
             lambda: one.metric("ringcast_redis_given_up_total") == count - len(numbers))
    assert any("pending" in line for line in one.log().splitlines() if "level=warn" in line or "level=error" in line)


@pytest.mark.limit(120)
def test_clients_stay_through_everything(ringcast, redis_server, connect):
    server = ringcast(QUICK, redis=redis_server)
    server.wait_ready()
    clients = [connect(server.url("/ws/room%d" % (n % 5))) for n in range(30)]
    for _ in range(3):
        redis_server.kill()
        wait_down(server)
        redis_server.start()
        wait_up(server)
        redis_server.cli("client", "kill", "type", "pubsub")
    wait_for("all rooms subscribed", lambda: all(redis_server.subscribers("demo:room%d" % n) == 1 for n in range(5)), BACK)
    for n in range(5):
        redis_server.publish("demo:room%d" % n, b"here")
    assert [c.recv(BACK) for c in clients] == ["here"] * 30
    assert all(c.is_open() for c in clients)
    assert server.stats()["totals"]["connections"] == 30


@pytest.mark.asan
def test_authentication_and_database_and_unix_url(ringcast, redis_factory, connect):
    redis = redis_factory("--requirepass", "s3cret:/@")

    class Authenticated:
        url = "redis://:s3cret%%3A%%2F%%40@127.0.0.1:%d/2" % redis.port
    server = ringcast(redis=Authenticated)
    server.wait_ready()
    assert "s3cret" not in server.log()
    assert "s3cret" not in server.stats()["redis"]["address"]
    client = connect(server.url("/ws/a"))
    redis.client(password="s3cret:/@").publish("demo:a", "x")
    assert client.recv() == "x"

    plain = redis_factory()
    server = ringcast(redis=plain.unix_url)
    server.wait_ready()
    client = connect(server.url("/ws/a"))
    plain.publish("demo:a", b"by unix socket")
    assert client.recv() == "by unix socket"


def test_wrong_password_is_said_and_tried_again(ringcast, redis_factory, connect):
    redis = redis_factory("--requirepass", "right")
    server = ringcast(QUICK, redis="redis://:wrong@127.0.0.1:%d" % redis.port)
    hold_for("it never says ready", lambda: server.api("/ready").status == 503, 1)
    assert "WRONGPASS" in server.log() or "password" in server.log() or "AUTH" in server.log()
    assert "wrong@" not in server.log()
    redis.client(password="right").config_set("requirepass", "wrong")
    server.wait_ready(BACK)


def test_foreign_garbage_on_our_own_channel_is_dropped(ringcast, redis_server, connect):
    """ringcast:m:<channel> carries our own form; whatever else stands there reaches nobody and breaks nothing."""
    server = ringcast(redis=redis_server)
    server.wait_ready()
    client = connect(server.url("/ws/a"))
    for junk in (b"", b"x", b"\x01", b"\x01\x01" + b"\0" * 15, b"\x02\x01" + b"\0" * 16 + b"hi", b"\x01\x09" + b"\0" * 16 + b"hi",
                 b"\xff" * 1000):
        redis_server.publish("ringcast:m:demo:a", junk)
    redis_server.publish("demo:a", b"good")
    assert client.recv() == "good"
    assert client.quiet()


def test_a_message_of_another_ringcast_comes_once(ringcast, redis_server, connect):
    """The same origin and id again is dropped: that is how a resend after an outage stays invisible."""
    server = ringcast(redis=redis_server)
    server.wait_ready()
    client = connect(server.url("/ws/a"))
    origin = b"originXY"

    def own(ident, payload, opcode=1):
        return b"\x01" + bytes([opcode]) + origin + ident.to_bytes(8, "big") + payload
    for ident, payload in ((1, b"one"), (2, b"two"), (1, b"one"), (2, b"two"), (3, b"three")):
        redis_server.publish("ringcast:m:demo:a", own(ident, payload))
    redis_server.publish("ringcast:m:demo:a", own(4, b"bytes", opcode=2))
    assert client.recv_many(4) == ["one", "two", "three", b"bytes"]
    assert client.quiet()


def test_on_gap_close_tells_the_clients(ringcast, redis_server, connect):
    server = ringcast(QUICK + '''
        namespace "strict" { path = "/strict"  redis_channel = "strict"  on_gap = "close" }
        namespace "loose"  { path = "/loose"   redis_channel = "loose" }
        ''', redis=redis_server)
    server.wait_ready(BACK)
    strict, loose = connect(server.url("/strict")), connect(server.url("/loose"))
    redis_server.cli("client", "kill", "type", "pubsub")
    assert strict.wait_closed()[0] == 1013
    wait_up(server)
    wait_for("subscribed again", lambda: redis_server.subscribers("loose") == 1, BACK)
    redis_server.publish("loose", b"x")
    assert loose.recv(BACK) == "x"
