"""Three replicas while one of them, or Redis, is away: S24 to S29, S39."""
import json
import os
import signal
import threading
import time

import pytest

import publishing
from stack import FEEDS, everywhere, parsed
from waiting import wait_for


@pytest.mark.limit(150)
def test_a_rolling_restart_loses_nothing_on_the_others(stack):
    """S39: each replica is stopped and started in turn; clients of the others get everything, in order."""
    own = stack(replicas=3, changes=[(r"drain_time = 10s", "drain_time = 1s")])
    ann = own.fan()
    clients = everywhere(own, ann, "broadcasts")
    sent, is_over = [0], threading.Event()

    def publisher():
        while not is_over.is_set():
            own.publish("broadcasts", {"type": "x", "n": sent[0]})
            sent[0] += 1
            time.sleep(0.005)
    thread = threading.Thread(target=publisher)
    thread.start()
    try:
        server = own.servers[2]
        server.kill(signal.SIGTERM)
        assert clients[2].wait_closed()[0] == 1012
        assert server.wait() == 0
        server.start()
        server.wait_ready()
        own.connect(ann, "broadcasts", server=server).recv()
    finally:
        is_over.set()
        thread.join()
    for frames in parsed(own.received("broadcasts", clients[:2])):
        assert [f["n"] for f in frames] == list(range(sent[0]))


# ---- Redis away (S24 to S29)

def numbers(client, count):
    """The "n" of its next messages; what an idle client is sent in between is passed over."""
    found = []
    while len(found) < count:
        text = client.recv()
        message = {} if text == "ping" else json.loads(text)
        if message and message["type"] != "heartbeat":
            found.append(message["n"])
    return found


OUTAGES = [0, 3, 8] + ([int(os.environ["TEST_LONG_OUTAGE"])] if os.environ.get("TEST_LONG_OUTAGE") else [])


@pytest.mark.limit(120 + 2 * max(OUTAGES))
@pytest.mark.parametrize("seconds", OUTAGES)
def test_redis_killed_and_back(stack, seconds):
    """Published on replica 1 all the time, through its API: its own clients get everything at once, all others
    when Redis is back, each once, in order. Nothing is lost."""
    own = stack(replicas=3, calm=False)
    fan = own.fan()
    rooms = {feed: own.room_for(feed) for feed in FEEDS}
    clients = {feed: everywhere(own, fan, feed, rooms[feed]) for feed in FEEDS}
    api = publishing.RingcastApi("http://127.0.0.1:%d" % own.server.admin_port)
    n = 0

    def publish():
        nonlocal n
        for feed in FEEDS:
            api.request("POST", "/api/publish", {"channel": feed, "data": {"type": "x", "n": n, "_target_users": [fan.id]}})
        n += 1
    for _ in range(20):
        publish()
    own.redis.kill()
    began = time.monotonic()
    publish()
    if seconds:
        wait_for("noticed", lambda: all(s.stats()["redis"]["state"] != "up" for s in own.servers))
    while time.monotonic() - began < seconds:
        publish()
        time.sleep(0.1)  # paces the publisher
    for feed in FEEDS:  # S26, S27: nobody was closed, and replica 1 has delivered by itself
        local = clients[feed][0]
        assert numbers(local, n) == list(range(n)) and local.is_open()
    during = n
    own.redis.start()
    own.redis_client = own.redis.client()
    wait_for("all are back", lambda: all(s.stats()["redis"]["state"] == "up" for s in own.servers), 30)
    wait_for("nothing is pending", lambda: own.server.stats()["redis"]["pending_messages"] == 0, 30)
    for _ in range(20):
        publish()
    for feed in FEEDS:
        for replica, client in enumerate(clients[feed]):
            first = during if replica == 0 else 0
            assert numbers(client, n - first) == list(range(first, n)), (feed, replica)
            assert client.quiet() and client.is_open()
    print("outage of %d s: %d messages on each feed, 0 lost, 0 twice" % (seconds, n))


@pytest.mark.limit(90)
def test_foreign_publications_are_delivered_as_soon_as_redis_has_subscribers(stack):
    """What a plain PUBLISH was told has reached N replicas has reached their clients: the count is the proof (F11, F12)."""
    own = stack(replicas=3, calm=False)
    fan = own.fan()
    clients = everywhere(own, fan, "broadcasts")
    own.redis.kill()
    own.redis.start()
    own.redis_client = own.redis.client()
    reached = []

    def publish_until_all():
        receivers = own.publish("broadcasts", {"type": "x", "n": len(reached)})
        reached.append(receivers)
        return receivers >= 3
    wait_for("all three listen again", publish_until_all, every=0.01)
    for _ in range(20):
        publish_until_all()
    certain = [i for i, r in enumerate(reached) if r >= 3]
    for frames in parsed(own.received("broadcasts", clients)):
        assert [f["n"] for f in frames if f["n"] in certain] == certain
    print("lost while not subscribed: %d of %d" % (len(reached) - len(certain), len(reached)))


def test_replicas_are_ready_only_when_they_are_subscribed(stack):
    """F10, S37."""
    own = stack()
    assert own.server.is_ready()
    assert all(own.redis.subscribers(feed) == 1 for feed in FEEDS)
